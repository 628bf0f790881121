"""Cells that integrate and do not fire: read-outs, and the currents of synapses. They take arrays of any shape."""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics.system import System, as_array, fixed
from broadsheet.errors import InputError
from broadsheet.numerics.checks import positive


class LeakyIntegrator(System):
    """`tau dv/dt = rest + gain x - v`; input x and output v after the step, both of the shape `shape`.

    **Arguments:** `tau`, `rest`, `gain`: numbers, or arrays that broadcast to `shape`, `tau` in the unit of `dt`; v starts at
    rest; `method`: `"exact"` for an input that is constant within a step, `"euler"` for a forward Euler step.
    """

    tau: Array = fixed()
    rest: Array = fixed()
    gain: Array = fixed()
    shape: tuple[int, ...] = eqx.field(static=True)
    method: Literal["exact", "euler"] = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self, shape: tuple[int, ...], *, tau: Any, rest: Any = 0.0, gain: Any = 1.0,
        method: Literal["exact", "euler"] = "exact", dt: float = 1.0,
    ) -> None:  # fmt: skip
        positive("tau, the time constant of the integrator,", tau)
        if method not in ("exact", "euler"):
            raise InputError(f"method = {method!r}; 'exact' or 'euler' is wanted.")
        self.tau, self.rest, self.gain = as_array(tau), as_array(rest), as_array(gain)
        self.shape, self.method, self.dt = shape, method, dt

    def init(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        return jnp.broadcast_to(self.rest, self.shape)

    def step(
        self, state: Float[Array, "*shape"], inputs: Float[Array, "*shape"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        share = self.dt / self.tau if self.method == "euler" else 1 - jnp.exp(-self.dt / self.tau)
        v = state + share * (self.rest + self.gain * inputs - state)
        return v, v


class Integrator(System):
    """`dv/dt = gain x` from 0: input x and output v after the step, both of the shape `shape`.

    **Arguments:** `gain`: a number, or an array that broadcasts to `shape`, a change per unit of `dt`.
    """

    gain: Array = fixed()
    shape: tuple[int, ...] = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(self, shape: tuple[int, ...], *, gain: Any = 1.0, dt: float = 1.0) -> None:
        self.gain, self.shape, self.dt = as_array(gain), shape, dt

    def init(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        return jnp.zeros(self.shape)

    def step(
        self, state: Float[Array, "*shape"], inputs: Float[Array, "*shape"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        v = state + self.dt * self.gain * inputs
        return v, v
