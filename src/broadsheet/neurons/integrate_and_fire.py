"""Integrate-and-fire neurons: what spiking networks are made of. Voltages in mV, times in ms.

Linear equations are integrated exactly for a step. A spike resets the neuron in the step in which it fires; for the refractory
period after it the membrane potential stands still, while synapses go on.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.dynamics.system import System, as_array, fixed
from broadsheet.errors import InputError
from broadsheet.neurons.surrogates import Spike, at_threshold
from broadsheet.neurons.surrogates import spike as above_threshold
from broadsheet.numerics.checks import concrete, positive

Neurons = Float[Array, " neurons"]
Drive = Float[Array, "2 neurons"]
LONG_AGO = 1e6
"""ms since the last spike of a neuron that never fired."""


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

    **Arguments:**

    - `tau`, `rest`, `threshold`: membrane time constant (ms; infinity for no leak) and potentials (mV), numbers or one a
      neuron.
    - `reset`: the potential after a spike; None for a soft reset, which takes `drop` off instead, by default the height of
      the threshold above rest.
    - `refractory`: ms, a multiple of `dt`, the step of the spike included.
    - `v0`: potential at the start, by default rest.
    - `spike`: the step function and its surrogate derivative (`broadsheet.neurons.surrogates`).
    - `method`: `"exact"` integrates the leak exactly, `"euler"` by a forward Euler step, as snnTorch and Norse do.
    - `learn`: names of parameters that `trainable` counts as such; by default none, a neuron is given.
    """

    tau: Array = fixed()
    rest: Array = fixed()
    threshold: Array = fixed()
    reset: Array | None = fixed()
    drop: Array | None = fixed()
    v0: Array = fixed()
    size: int = eqx.field(static=True)
    hold: int = eqx.field(static=True)
    spike: Spike = eqx.field(static=True)
    method: Literal["exact", "euler"] = eqx.field(static=True)
    learn: tuple[str, ...] = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self, size: int, *, tau: Any = 20.0, rest: Any = -60.0, threshold: Any = -50.0, reset: Any = -60.0, drop: Any = None,
        refractory: float = 0.0, v0: Any = None, spike: Spike = above_threshold, learn: tuple[str, ...] = (),
        method: Literal["exact", "euler"] = "exact", dt: float = 0.1,
    ) -> None:  # fmt: skip
        if size < 1:
            raise InputError(f"size = {size} neurons; at least 1 is wanted.")
        if not dt > 0:
            raise InputError(f"dt = {dt} ms; a number above 0 is wanted.")
        self.hold = round(refractory / dt)
        if refractory < 0 or abs(self.hold * dt - refractory) > 1e-6 * dt:
            raise InputError(f"refractory = {refractory} ms is not a multiple of dt = {dt} ms.")
        positive("tau, the membrane time constant,", tau)
        self.tau, self.rest, self.threshold = as_array(tau), as_array(rest), as_array(threshold)
        self.reset = None if reset is None else as_array(reset)
        if drop is not None and reset is not None:
            raise InputError("drop is what a soft reset takes off: give reset=None with it.")
        self.drop = None if drop is None else as_array(drop)
        self.v0 = jnp.broadcast_to(self.rest if v0 is None else as_array(v0), (size,))
        for name in ("tau", "rest", "threshold", "reset", "drop", "v0"):
            value = getattr(self, name)
            if value is not None and value.shape not in ((), (size,)):
                raise InputError(f"{name} has the shape {value.shape}; a number or ({size},) is wanted.")
            if value is not None and (known := concrete(value)) is not None and np.isnan(known).any():
                raise InputError(f"{name} holds NaN.")
        unknown = set(learn) - {"tau", "rest", "threshold", "reset", "drop", "v0", "tau_syn", "reversal", "g0"}
        if unknown:
            raise InputError(f"learn names {', '.join(sorted(unknown))}, which is no parameter of a neuron.")
        if method not in ("exact", "euler"):
            raise InputError(f"method = {method!r}; 'exact' or 'euler' is wanted.")
        self.size, self.spike, self.method, self.learn, self.dt = size, spike, method, tuple(learn), dt

    @property
    def held(self) -> frozenset[str]:
        return super().held - set(self.learn)

    @property
    def leak(self) -> Array:
        """What is left of a deviation from rest after a step."""
        return jnp.exp(-self.dt / self.tau) if self.method == "exact" else 1 - self.dt / self.tau

    def at_rest(self) -> Membrane:
        return Membrane(self.v0, jnp.zeros(self.size if self.hold else 0, jnp.int32))

    def fire(self, state: Membrane, v: Neurons) -> tuple[Membrane, Neurons]:
        """Holds refractory neurons, finds the spikes of the others and resets."""
        if self.hold:
            v = jnp.where(state.refractory > 0, state.v, v)
        spikes = self.spike(v - self.threshold)
        if self.reset is None:
            v = v - spikes * (self.threshold - self.rest if self.drop is None else self.drop)
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
        return self.fire(state, self.rest + self.leak * (state.v - self.rest) + inputs)


class _Synaptic(IntegrateAndFire):
    tau_syn: Float[Array, "2 1"] = fixed()
    g0: Drive = fixed()

    def __init__(self, size: int, *, tau_syn: tuple[float, float] = (5.0, 10.0), g0: Any = 0.0, **membrane: Any) -> None:
        super().__init__(size, **membrane)
        self.tau_syn = as_array(tau_syn)[:, None]
        positive("tau_syn, the time constants of the synapses,", tau_syn)
        self.g0 = jnp.broadcast_to(as_array(g0), (2, size))

    def init(self, key: PRNGKeyArray) -> Synapses:
        return Synapses(self.at_rest(), self.g0)


class CurrentLIF(_Synaptic):
    """LIF neurons with exponential synaptic currents: `tau dv/dt = g_e + g_i - (v - rest)`, g in mV.

    Input: (2, neurons), what arriving spikes add to the two currents at the start of the step; inhibition is negative.

    `current="exact"` integrates the decaying currents; `"mean"` replaces each by its mean over the step, as the IF_curr_exp
    cell of the SpiNNaker machine does.
    """

    current: Literal["exact", "mean"] = eqx.field(static=True)

    def __init__(self, size: int, *, current: Literal["exact", "mean"] = "exact", **rest: Any) -> None:
        super().__init__(size, **rest)
        if current not in ("exact", "mean"):
            raise InputError(f"current = {current!r}; 'exact' or 'mean' is wanted.")
        self.current = current

    def step(self, state: Synapses, inputs: Drive, key: PRNGKeyArray | None = None) -> tuple[Synapses, Neurons]:
        membrane, g = state.membrane, state.g + inputs
        leak, decay = self.leak, jnp.exp(-self.dt / self.tau_syn)
        if self.current == "mean":
            reach = self.tau_syn / self.dt * (1 - decay) * (1 - leak)  # of a current, over one step
        else:
            reach = self.tau_syn * _difference_quotient(self.dt, self.tau_syn, self.tau)
        v = self.rest + leak * (membrane.v - self.rest) + reach[0] * g[0] + reach[1] * g[1]
        membrane, spikes = self.fire(membrane, v)
        return Synapses(membrane, decay * g), spikes


def _difference_quotient(dt: float, first: Array, second: Array) -> Array:
    """`(exp(-dt / first) - exp(-dt / second)) / (first - second)`, its limit where the two time constants agree."""
    apart = jnp.abs(first - second) > 1e-4 * second
    safe = jnp.where(apart, first - second, 1.0)
    return jnp.where(apart, (jnp.exp(-dt / first) - jnp.exp(-dt / second)) / safe, dt / second**2 * jnp.exp(-dt / second))


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

    Input: I (neurons,). At v >= 30 it fires: v <- c, u <- u + d. Output: spikes, 0 or 1 a step.

    **Arguments:**

    - `a`, `b`, `c`, `d`: numbers or one a neuron; by default a regular spiking cell.
    - `threshold`: mV.
    - `substeps`: forward Euler steps within `dt`, each of which may fire; the input is constant meanwhile.
    - `cap`: stop v at the threshold before u follows it; what a spike overshoots is an artefact of the step.
    - `half_steps`: instead, two half steps for v alone, as the published program takes at 1 ms.
    """

    a: Array = fixed()
    b: Array = fixed()
    c: Array = fixed()
    d: Array = fixed()
    threshold: Array = fixed()
    size: int = eqx.field(static=True)
    substeps: int = eqx.field(static=True)
    cap: bool = eqx.field(static=True)
    half_steps: bool = eqx.field(static=True)
    spike: Spike = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self, size: int, *, a: Any = 0.02, b: Any = 0.2, c: Any = -65.0, d: Any = 8.0, threshold: Any = 30.0, substeps: int = 1,
        cap: bool = False, half_steps: bool = False, spike: Spike = at_threshold, dt: float = 1.0,
    ) -> None:  # fmt: skip
        self.a, self.b, self.c, self.d = as_array(a), as_array(b), as_array(c), as_array(d)
        self.threshold = as_array(threshold)
        if substeps < 1 or (half_steps and substeps > 1):
            raise InputError(f"substeps = {substeps}; at least 1 is wanted, and exactly 1 with half_steps.")
        if not dt > 0:
            raise InputError(f"dt = {dt} ms; a number above 0 is wanted.")
        self.size, self.substeps, self.cap, self.half_steps, self.spike, self.dt = size, substeps, cap, half_steps, spike, dt

    def init(self, key: PRNGKeyArray) -> tuple[Neurons, Neurons]:
        v = jnp.full(self.size, -65.0)
        return v, jnp.broadcast_to(self.b * v, (self.size,))

    def step(self, state: tuple, inputs: Neurons, key: PRNGKeyArray | None = None) -> tuple[tuple, Neurons]:
        if self.substeps == 1:
            return self._step(state, inputs, self.dt)
        part = self.dt / self.substeps

        def one(state: tuple, _: None) -> tuple[tuple, Neurons]:
            return self._step(state, inputs, part)

        state, spikes = jax.lax.scan(one, state, length=self.substeps)
        return state, jnp.max(spikes, axis=0)

    def _step(self, state: tuple, inputs: Neurons, dt: float) -> tuple[tuple, Neurons]:
        v, u = state
        parts = 2 if self.half_steps else 1
        slow = v
        for _ in range(parts):
            slow = v
            v = v + dt / parts * (0.04 * v**2 + 5 * v + 140 - u + inputs)
        if self.cap:
            v = jnp.minimum(v, self.threshold)
        u = u + dt * self.a * (self.b * (v if self.half_steps else slow) - u)
        spikes = self.spike(v - self.threshold)
        fired = jax.lax.stop_gradient(spikes)
        return (v * (1 - fired) + self.c * fired, u + self.d * fired), spikes


class Adapted(NamedTuple):
    """The neuron's state, the rise of its threshold (mV), and the time since its last spike (ms; None without a pause)."""

    neuron: Any
    rise: Neurons
    since: Any


class AdaptiveThreshold(System):
    """A neuron whose threshold rises with each of its spikes and falls back exponentially.

    Works for every neuron here that has a `threshold`.

    **Arguments:** `neuron`; `increment`: mV a spike; `tau`: ms; `pause`: ms between two spikes at least, in which the
    potential goes on, unlike in a refractory period; by default there is no such time.
    """

    neuron: IntegrateAndFire | Izhikevich
    increment: Array = fixed()
    tau: Array = fixed()
    pause: Array | None = fixed()
    dt: float = eqx.field(static=True)

    def __init__(self, neuron: IntegrateAndFire | Izhikevich, *, increment: Any, tau: Any, pause: Any = None) -> None:
        if not hasattr(neuron, "threshold"):
            raise InputError(f"{type(neuron).__name__} has no threshold that could adapt.")
        positive("tau, the time constant of the threshold,", tau)
        self.neuron, self.increment, self.tau = neuron, as_array(increment), as_array(tau)
        self.pause = None if pause is None else as_array(pause)
        self.dt = neuron.dt

    def init(self, key: PRNGKeyArray) -> Adapted:
        silence = jnp.zeros(self.neuron.size)
        return Adapted(self.neuron.init(key), silence, None if self.pause is None else silence + LONG_AGO)

    def step(self, state: Adapted, inputs: Array, key: PRNGKeyArray | None = None) -> tuple[Adapted, Neurons]:
        threshold = self.neuron.threshold + state.rise
        if self.pause is not None:
            threshold = jnp.where(state.since >= self.pause, threshold, jnp.inf)
        raised = eqx.tree_at(lambda neuron: neuron.threshold, self.neuron, threshold)
        inner, spikes = raised.step(state.neuron, inputs, key)
        rise = jnp.exp(-self.dt / self.tau) * state.rise + self.increment * spikes
        since = None if state.since is None else jnp.where(spikes > 0, self.dt, state.since + self.dt)
        return Adapted(inner, rise, since), spikes

    def frozen(self) -> AdaptiveThreshold:
        """With a threshold that stays where it is."""
        return eqx.tree_at(lambda cell: (cell.increment, cell.tau), self, (jnp.zeros(()), jnp.full((), jnp.inf)))
