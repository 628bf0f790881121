"""Leaky integrate-and-fire neurons with a surrogate gradient."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics import System
from broadsheet.dynamics.system import as_array


@jax.custom_jvp
def spike(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """1 where x > 0, else 0; its derivative is that of a fast sigmoid, `1 / (1 + 25 |x|)^2`."""
    return (x > 0).astype(x.dtype)


@spike.defjvp
def _spike_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x,), (dx,) = primals, tangents
    return spike(x), dx / (1 + 25 * jnp.abs(x)) ** 2


class LIFState(NamedTuple):
    """Synaptic current, membrane potential (threshold 1, rest 0) and the last spikes."""

    current: Float[Array, " neurons"]
    v: Float[Array, " neurons"]
    spikes: Float[Array, " neurons"]


class LIFLayer(System):
    """A recurrent layer of LIF neurons with exponential synapses and a leaky read-out: (inputs,) to (outputs,).

    `v <- a v + (1 - a) i`, spike and soft reset by 1 at v > 1; decay factors `exp(-dt / tau)` are exact for a step.

    **Arguments:** `tau_syn`, `tau_mem`, `tau_out`: time constants, ms; `dt`: ms.
    """

    w_in: Float[Array, "neurons inputs"]
    w_rec: Float[Array, "neurons neurons"]
    head: eqx.nn.Linear
    tau_syn: Float[Array, ""]
    tau_mem: Float[Array, ""]
    tau_out: Float[Array, ""]
    dt: float = eqx.field(static=True)

    def __init__(
        self, inputs: int, neurons: int, outputs: int, *, tau_syn: float = 5.0, tau_mem: float = 20.0,
        tau_out: float = 50.0, gain: float = 10.0, dt: float = 1.0, key: PRNGKeyArray,
    ) -> None:  # fmt: skip
        k_in, k_rec, k_out = jax.random.split(key, 3)
        self.w_in = gain * jax.random.normal(k_in, (neurons, inputs)) / jnp.sqrt(inputs)
        self.w_rec = jax.random.normal(k_rec, (neurons, neurons)) / jnp.sqrt(neurons)
        self.head = eqx.nn.Linear(neurons, outputs, key=k_out)
        self.tau_syn, self.tau_mem, self.tau_out = as_array(tau_syn), as_array(tau_mem), as_array(tau_out)
        self.dt = dt

    @property
    def held(self) -> frozenset[str]:
        return super().held | {"tau_syn", "tau_mem", "tau_out"}

    def init(self, key: PRNGKeyArray) -> tuple[LIFState, Float[Array, " neurons"]]:
        zeros = jnp.zeros(self.w_rec.shape[0])
        return LIFState(zeros, zeros, zeros), zeros

    def step(
        self, state: tuple, inputs: Float[Array, " inputs"], key: PRNGKeyArray | None = None
    ) -> tuple[tuple, Float[Array, " outputs"]]:
        (current, v, last), out = state
        current = jnp.exp(-self.dt / self.tau_syn) * current + self.w_in @ inputs + self.w_rec @ last
        a = jnp.exp(-self.dt / self.tau_mem)
        v = a * (v - last) + (1 - a) * current
        spikes = spike(v - 1)
        out = jnp.exp(-self.dt / self.tau_out) * out + spikes
        return (LIFState(current, v, spikes), out), self.head(out)
