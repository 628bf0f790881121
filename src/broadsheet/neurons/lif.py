"""A trainable recurrent layer of leaky integrate-and-fire neurons."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics.system import System, as_array, fixed
from broadsheet.neurons.integrate_and_fire import LIF, Membrane


class LIFState(NamedTuple):
    """Synaptic current, the membrane, and the last spikes."""

    current: Float[Array, " neurons"]
    membrane: Membrane
    spikes: Float[Array, " neurons"]


class LIFLayer(System):
    """A recurrent layer of LIF neurons with exponential synapses and a leaky read-out: (inputs,) to (outputs,).

    `v <- a v + (1 - a) i`, spike at v > 1, rest 0 and a soft reset by 1; decay factors `exp(-dt / tau)` are exact for a step.

    **Arguments:** `tau_syn`, `tau_mem`, `tau_out`: time constants, ms; `dt`: ms.
    """

    w_in: Float[Array, "neurons inputs"]
    w_rec: Float[Array, "neurons neurons"]
    head: eqx.nn.Linear
    neurons: LIF
    tau_syn: Float[Array, ""] = fixed()
    tau_out: Float[Array, ""] = fixed()
    dt: float = eqx.field(static=True)

    def __init__(
        self, inputs: int, neurons: int, outputs: int, *, tau_syn: float = 5.0, tau_mem: float = 20.0,
        tau_out: float = 50.0, gain: float = 10.0, dt: float = 1.0, key: PRNGKeyArray,
    ) -> None:  # fmt: skip
        k_in, k_rec, k_out = jax.random.split(key, 3)
        self.w_in = gain * jax.random.normal(k_in, (neurons, inputs)) / jnp.sqrt(inputs)
        self.w_rec = jax.random.normal(k_rec, (neurons, neurons)) / jnp.sqrt(neurons)
        self.head = eqx.nn.Linear(neurons, outputs, key=k_out)
        self.neurons = LIF(neurons, tau=tau_mem, rest=0.0, threshold=1.0, reset=None, dt=dt)
        self.tau_syn, self.tau_out = as_array(tau_syn), as_array(tau_out)
        self.dt = dt

    def init(self, key: PRNGKeyArray) -> tuple[LIFState, Float[Array, " neurons"]]:
        zeros = jnp.zeros(self.w_rec.shape[0])
        return LIFState(zeros, self.neurons.at_rest(), zeros), zeros

    def step(
        self, state: tuple, inputs: Float[Array, " inputs"], key: PRNGKeyArray | None = None
    ) -> tuple[tuple, Float[Array, " outputs"]]:
        (current, membrane, last), out = state
        current = jnp.exp(-self.dt / self.tau_syn) * current + self.w_in @ inputs + self.w_rec @ last
        membrane, spikes = self.neurons.step(membrane, (1 - self.neurons.leak) * current)
        out = jnp.exp(-self.dt / self.tau_out) * out + spikes
        return (LIFState(current, membrane, spikes), out), self.head(out)
