"""Exponentially filtered inputs with a linear read-out: what a neuron does without any interaction of its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics import System, fixed
from broadsheet.dynamics.system import as_array


class TraceReadout(System):
    """Each channel low-passed at each time constant (ms), then a linear map: logistic regression on synaptic traces."""

    head: eqx.nn.Linear
    tau: Float[Array, " taus"] = fixed()
    channels: int = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self, channels: int, outputs: int, tau: Sequence[float] = (5.0, 20.0, 60.0), *, dt: float = 1.0, key: PRNGKeyArray
    ) -> None:
        self.head = eqx.nn.Linear(channels * len(tau), outputs, key=key)
        self.tau, self.channels, self.dt = as_array(tau), channels, dt

    def init(self, key: PRNGKeyArray | None = None) -> Float[Array, "taus channels"]:
        return jnp.zeros((len(self.tau), self.channels))

    def step(
        self, state: Float[Array, "taus channels"], inputs: Float[Array, " channels"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "taus channels"], Float[Array, " outputs"]]:
        state = jnp.exp(-self.dt / self.tau)[:, None] * state + inputs
        return state, self.head(state.ravel())

    def __call__(self, xs: Float[Array, "time channels"]) -> Float[Array, "time outputs"]:
        def one(state: Array, x: Array) -> tuple[Array, Array]:
            state = jnp.exp(-self.dt / self.tau)[:, None] * state + x
            return state, state

        _, traces = jax.lax.scan(one, self.init(), xs)
        return jax.vmap(self.head)(traces.reshape(len(xs), -1))
