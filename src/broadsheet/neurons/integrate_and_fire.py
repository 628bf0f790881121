"""Integrate-and-fire neurons without learnable weights: what networks are made of. Voltages in mV, times in ms.

Linear equations are integrated exactly for a step. A spike resets the neuron in the step in which it fires; for the refractory
period after it the membrane potential stands still, while synapses go on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.dynamics.system import System, as_array, fixed
from broadsheet.errors import InputError
from broadsheet.neurons.lif import spike

Neurons = Float[Array, " neurons"]
Drive = Float[Array, "2 neurons"]


class Membrane(NamedTuple):
    """Membrane potential, and the steps for which it still stands still."""

    v: Neurons
    refractory: Int[Array, " neurons"]


class Synapses(NamedTuple):
    """A membrane and its two synapses, excitatory and inhibitory."""

    membrane: Membrane
    g: Drive


class IntegrateAndFire(System):
    """What the family shares: threshold, reset and refractory period.

    **Arguments:** `tau`, `rest`, `threshold`, `reset`: membrane time constant (ms) and potentials (mV), numbers or one a
    neuron; `reset=None` takes the height of the threshold above rest off instead (a soft reset); `refractory`: ms, a
    multiple of `dt`; `v0`: potential at the start, by default rest; `dt`: ms.
    """

    tau: Array = fixed()
    rest: Array = fixed()
    threshold: Array = fixed()
    reset: Array | None = fixed()
    v0: Array = fixed()
    size: int = eqx.field(static=True)
    hold: int = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self, size: int, *, tau: Any = 20.0, rest: Any = -60.0, threshold: Any = -50.0, reset: Any = -60.0,
        refractory: float = 0.0, v0: Any = None, dt: float = 0.1,
    ) -> None:  # fmt: skip
        self.hold = round(refractory / dt)
        if abs(self.hold * dt - refractory) > 1e-6 * dt:
            raise InputError(f"refractory = {refractory} ms is not a multiple of dt = {dt} ms.")
        if not jnp.all(as_array(tau) > 0):
            raise InputError("tau, the membrane time constant, must be above 0 ms.")
        self.tau, self.rest, self.threshold = as_array(tau), as_array(rest), as_array(threshold)
        self.reset = None if reset is None else as_array(reset)
        self.v0 = jnp.broadcast_to(self.rest if v0 is None else as_array(v0), (size,))
        self.size, self.dt = size, dt

    def at_rest(self) -> Membrane:
        return Membrane(self.v0, jnp.zeros(self.size if self.hold else 0, jnp.int32))

    def fire(self, state: Membrane, v: Neurons) -> tuple[Membrane, Neurons]:
        """Holds refractory neurons, finds the spikes of the others and resets."""
        if self.hold:
            v = jnp.where(state.refractory > 0, state.v, v)
        spikes = spike(v - self.threshold)
        if self.reset is None:
            v = v - spikes * (self.threshold - self.rest)
        else:
            fired = jax.lax.stop_gradient(spikes)  # a product, not a choice: it keeps the layout of a batch
            v = v * (1 - fired) + self.reset * fired
        if self.hold:
            left = jnp.where(spikes > 0, self.hold - 1, jnp.maximum(state.refractory - 1, 0)).astype(jnp.int32)
            return Membrane(v, left), spikes
        return Membrane(v, state.refractory), spikes


class LIF(IntegrateAndFire):
    """Leaky integrate-and-fire neurons whose input (neurons,) are jumps of the potential, in mV; output: spikes, 0 or 1.

    `tau dv/dt = rest - v`, the jumps of a step added after its leak.
    """

    __init__ = IntegrateAndFire.__init__

    def init(self, key: PRNGKeyArray) -> Membrane:
        return self.at_rest()

    def step(self, state: Membrane, inputs: Neurons, key: PRNGKeyArray | None = None) -> tuple[Membrane, Neurons]:
        leak = jnp.exp(-self.dt / self.tau)
        return self.fire(state, self.rest + leak * (state.v - self.rest) + inputs)


class _Synaptic(IntegrateAndFire):
    tau_syn: Float[Array, "2 1"] = fixed()
    g0: Drive = fixed()

    def __init__(self, size: int, *, tau_syn: tuple[float, float] = (5.0, 10.0), g0: Any = 0.0, **membrane: Any) -> None:
        super().__init__(size, **membrane)
        self.tau_syn = as_array(tau_syn)[:, None]
        if not jnp.all(self.tau_syn > 0):
            raise InputError("tau_syn, the time constants of the synapses, must be above 0 ms.")
        self.g0 = jnp.broadcast_to(as_array(g0), (2, size))

    def init(self, key: PRNGKeyArray) -> Synapses:
        return Synapses(self.at_rest(), self.g0)


class CurrentLIF(_Synaptic):
    """LIF neurons with exponential synaptic currents: `tau dv/dt = g_e + g_i - (v - rest)`, g in mV.

    Input: (2, neurons), what arriving spikes add to the two currents at the start of the step.
    """

    __init__ = _Synaptic.__init__

    def step(self, state: Synapses, inputs: Drive, key: PRNGKeyArray | None = None) -> tuple[Synapses, Neurons]:
        membrane, g = state.membrane, state.g + inputs
        leak, decay = jnp.exp(-self.dt / self.tau), jnp.exp(-self.dt / self.tau_syn)
        reach = self.tau_syn / (self.tau_syn - self.tau) * (decay - leak)  # of a current, over one step
        v = self.rest + leak * (membrane.v - self.rest) + reach[0] * g[0] + reach[1] * g[1]
        membrane, spikes = self.fire(membrane, v)
        return Synapses(membrane, decay * g), spikes


class ConductanceLIF(_Synaptic):
    """LIF neurons with exponential synaptic conductances, relative to the leak:
    `tau dv/dt = rest - v + g_e (E_e - v) + g_i (E_i - v)`, by exponential Euler steps (exact for constant g).

    Input: (2, neurons), what arriving spikes add to the two conductances at the start of the step.

    **Arguments:** `reversal`: E_e and E_i, mV; the others are those of `IntegrateAndFire`, and `tau_syn` (ms) of the synapses.
    """

    reversal: Float[Array, "2 1"] = fixed()

    def __init__(self, size: int, *, reversal: tuple[float, float] = (0.0, -80.0), **rest: Any) -> None:
        super().__init__(size, **rest)
        self.reversal = as_array(reversal)[:, None]

    def step(self, state: Synapses, inputs: Drive, key: PRNGKeyArray | None = None) -> tuple[Synapses, Neurons]:
        membrane, g = state.membrane, state.g + inputs
        total = 1 + g[0] + g[1]
        goal = (self.rest + g[0] * self.reversal[0] + g[1] * self.reversal[1]) / total
        v = goal + (membrane.v - goal) * jnp.exp(-self.dt / self.tau * total)
        membrane, spikes = self.fire(membrane, v)
        return Synapses(membrane, jnp.exp(-self.dt / self.tau_syn) * g), spikes


class Izhikevich(System):
    """Izhikevich's neuron (2003): `dv/dt = 0.04 v² + 5 v + 140 - u + I`, `du/dt = a (b v - u)`; v in mV, time in ms.

    At v >= 30 it fires: v <- c, u <- u + d. Forward Euler in `dt`; `half_steps=True` takes two half steps for v, as the
    published program does at 1 ms.

    **Arguments:** `a`, `b`, `c`, `d`: numbers or one a neuron; by default a regular spiking cell.
    """

    a: Array = fixed()
    b: Array = fixed()
    c: Array = fixed()
    d: Array = fixed()
    size: int = eqx.field(static=True)
    half_steps: bool = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self, size: int, *, a: Any = 0.02, b: Any = 0.2, c: Any = -65.0, d: Any = 8.0, half_steps: bool = False, dt: float = 1.0
    ) -> None:
        self.a, self.b, self.c, self.d = as_array(a), as_array(b), as_array(c), as_array(d)
        self.size, self.half_steps, self.dt = size, half_steps, dt

    def init(self, key: PRNGKeyArray) -> tuple[Neurons, Neurons]:
        v = jnp.full(self.size, -65.0)
        return v, jnp.broadcast_to(self.b * v, (self.size,))

    def step(self, state: tuple, inputs: Neurons, key: PRNGKeyArray | None = None) -> tuple[tuple, Neurons]:
        v, u = state
        parts = 2 if self.half_steps else 1
        slow = v
        for _ in range(parts):
            slow = v
            v = v + self.dt / parts * (0.04 * v**2 + 5 * v + 140 - u + inputs)
        u = u + self.dt * self.a * (self.b * (v if self.half_steps else slow) - u)
        spikes = spike(v - 30.0)
        fired = spikes > 0
        return (jnp.where(fired, self.c, v), jnp.where(fired, u + self.d, u)), spikes
