"""Neurons with more of a life of their own: a second-order meta neuron, and neurons and synapses that throw dice."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics.system import System, as_array, fixed, split
from broadsheet.errors import InputError
from broadsheet.neurons.surrogates import Spike, rectangle
from broadsheet.numerics.checks import concrete

Neurons = Float[Array, " neurons"]

_spike, _at_threshold = rectangle(1.0), rectangle(1.0, inclusive=True)


def through(value: Array, smooth: Array) -> Array:
    """`value` forward, the derivative of `smooth` backward (straight-through)."""
    return smooth + jax.lax.stop_gradient(value - smooth)


class MetaNeuron(System):
    """Neurons with a potential V and a recovery variable U: `V <- V² - U + I`, `U <- U + a (b V - U)`, from the old values.

    At V > threshold a neuron fires: `V <- c`, `U <- U + d`. At rest V is `(1 - sqrt(1 - 4 (I - U))) / 2`; where I - U is
    above 1/4 there is no rest and it climbs until it fires. Dimensionless, one step at a time; the form of the public code
    of the meta-neuron line of work (Zhang et al., MDN-SNN), where I is `sigmoid(input)`.

    Input: (neurons,). Output: spikes. State: (V, U).

    **Arguments:**

    - `a`, `b`, `c`, `d`: numbers or one a neuron.
    - `threshold`; `u0`: U at the start.
    - `squash`: whether I is the logistic function of the input. Without input a squashed neuron gets 1/2, and fires.
    - `kappa`: None for a neuron that always fires above its threshold; else it fires with the probability
      `sigmoid((V - threshold) / kappa)`, and the rollout needs a key.
    """

    a: Array = fixed()
    b: Array = fixed()
    c: Array = fixed()
    d: Array = fixed()
    threshold: Array = fixed()
    u0: Array = fixed()
    kappa: Array | None = fixed()
    size: int = eqx.field(static=True)
    squash: bool = eqx.field(static=True)
    spike: Spike = eqx.field(static=True)

    def __init__(
        self, size: int, *, a: Any = 0.02, b: Any = 0.2, c: Any = 0.0, d: Any = 0.08, threshold: Any = 0.5, u0: Any = 0.08,
        squash: bool = True, kappa: Any = None, spike: Spike = _spike,
    ) -> None:  # fmt: skip
        if size < 1:
            raise InputError(f"size = {size} neurons; at least 1 is wanted.")
        self.a, self.b, self.c, self.d = as_array(a), as_array(b), as_array(c), as_array(d)
        self.threshold, self.u0 = as_array(threshold), as_array(u0)
        for name in ("a", "b", "c", "d", "threshold", "u0"):
            if getattr(self, name).shape not in ((), (size,)):
                raise InputError(f"{name} has the shape {getattr(self, name).shape}; a number or ({size},) is wanted.")
        known = concrete(self.a)
        if known is not None and not ((known > 0) & (known < 1)).all():
            raise InputError("a must lie between 0 and 1: it is the share of the way that U goes in a step.")
        self.kappa = None if kappa is None else as_array(kappa)
        if self.kappa is not None and (wide := concrete(self.kappa)) is not None and not (wide > 0).all():
            raise InputError("kappa, the width of the firing probability, must be above 0.")
        self.size, self.squash, self.spike = size, squash, spike

    def init(self, key: PRNGKeyArray) -> tuple[Neurons, Neurons]:
        return jnp.zeros(self.size), jnp.broadcast_to(self.u0, (self.size,))

    def step(self, state: tuple, inputs: Neurons, key: PRNGKeyArray | None = None) -> tuple[tuple, Neurons]:
        v, u = self.drift(state, inputs)
        spikes = self._fire(v, key)
        fired = jax.lax.stop_gradient(spikes)
        return (v * (1 - fired) + self.c * fired, u + self.d * fired), spikes

    def drift(self, state: tuple, inputs: Neurons) -> tuple[Neurons, Neurons]:
        """(V, U) after a step in which nothing fires; V is kept within 2, where its square still lets it return."""
        v, u = state
        current = jax.nn.sigmoid(inputs) if self.squash else inputs
        return jnp.clip(v * v - u + current, -2.0, 2.0), u + self.a * (self.b * v - u)

    def _fire(self, v: Neurons, key: PRNGKeyArray | None) -> Neurons:
        if self.kappa is None:
            return self.spike(v - self.threshold)
        if key is None:
            raise InputError("A neuron with kappa fires at random: give rollout a key.")
        probability = jax.nn.sigmoid((v - self.threshold) / self.kappa)
        return through((jax.random.uniform(key, v.shape) < probability).astype(v.dtype), probability)


class QuantalRelease(System):
    """Synapses that fail: each presynaptic spike passes with a probability, with an amplitude that is drawn around 1.

    Input and output: (inputs,). Derivatives go through the expectation. The rollout needs a key.

    **Arguments:** `size`: inputs; `success`: probability of release; `spread`: amplitudes lie uniformly between 1 - spread and
    1 + spread, at 0 all are 1. Both are numbers or one an input.
    """

    success: Array = fixed()
    spread: Array = fixed()
    size: int = eqx.field(static=True)

    def __init__(self, size: int, success: Any = 0.5, spread: Any = 1.0) -> None:
        self.success, self.spread, self.size = as_array(success), as_array(spread), size
        _probability("success", self.success)
        _share("spread, of the amplitudes:", self.spread)

    def init(self, key: PRNGKeyArray) -> None:
        return None

    def step(
        self, state: None, inputs: Float[Array, " inputs"], key: PRNGKeyArray | None = None
    ) -> tuple[None, Float[Array, " inputs"]]:
        if key is None:
            raise InputError("Quantal release is random: give rollout a key.")
        released, amplitude = split(key, 2)
        passed = jax.random.uniform(released, inputs.shape) < self.success
        drawn = jax.random.uniform(amplitude, inputs.shape, maxval=2.0)
        sent = inputs * passed * (self.spread * drawn + (1 - self.spread))
        return None, through(sent, inputs * self.success)


class LevyBaxter(System):
    """Levy and Baxter's neuron (2002): binary inputs, quantal failures, random amplitudes, a threshold; no memory.

    A neuron fires where `sum_i w_i x_i phi_i Q_i >= threshold`, with phi_i a success of this probability and Q_i between 0
    and 1, both drawn anew for each synapse and step. With unit weights and inputs of probability f the sum has the mean
    `n f s / 2` and the variance `n (f s / 3 - (f s / 2)²)`.

    Input: spikes (inputs,). Output: spikes (neurons,). The rollout needs a key.

    **Arguments:** `weights` (neurons, inputs); `success`, `threshold`: numbers or one a neuron.
    """

    weights: Float[Array, "neurons inputs"]
    success: Array = fixed()
    threshold: Array = fixed()
    size: int = eqx.field(static=True)
    spike: Spike = eqx.field(static=True)

    def __init__(self, weights: Any, *, success: Any = 0.75, threshold: Any = 1.0, spike: Spike = _at_threshold) -> None:
        self.weights = as_array(weights)
        if self.weights.ndim != 2:
            raise InputError(f"weights have the shape {self.weights.shape}; (neurons, inputs) is wanted.")
        self.success, self.threshold = as_array(success), as_array(threshold)
        _probability("success", self.success)
        self.size, self.spike = self.weights.shape[0], spike

    def init(self, key: PRNGKeyArray) -> None:
        return None

    def step(self, state: None, inputs: Float[Array, " inputs"], key: PRNGKeyArray | None = None) -> tuple[None, Neurons]:
        return None, self.spike(self.excitation(inputs, key) - self.threshold)

    def excitation(self, inputs: Float[Array, " inputs"], key: PRNGKeyArray | None) -> Neurons:
        """The sum of what the synapses let pass."""
        if key is None:
            raise InputError("A Levy-Baxter neuron is random: give rollout a key.")
        failures, amplitudes = split(key, 2)
        success = jnp.broadcast_to(self.success, (self.size,))[:, None]
        passed = jax.random.uniform(failures, self.weights.shape) < success
        quanta = passed * jax.random.uniform(amplitudes, self.weights.shape)
        return (self.weights * through(quanta, jnp.broadcast_to(success / 2, quanta.shape))) @ inputs


def _probability(name: str, value: Array) -> None:
    _share(f"{name} is a probability:", value)


def _share(what: str, value: Array) -> None:
    known = concrete(value)
    if known is not None and not ((known >= 0) & (known <= 1)).all():
        raise InputError(f"{what} numbers from 0 to 1 are wanted.")
