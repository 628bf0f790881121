"""Networks whose signals are rates of fluxons and whose weights are bias currents: synapses pass a pulse with a probability.

Time is cut into clock slots. A synapse passes a pulse with the probability that its bias current sets, a neuron fires in a slot
in which as many passed pulses coincide as its threshold says. With independent inputs the expected rates are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics.system import as_array, fixed
from broadsheet.errors import InputError

Scalar = float | Float[Array, ""]

MIDDLE, WIDTH = 56.6, 6.4
"""Bias at which a synapse (`flux_synapse`) passes half of the pulses at 4.2 K, and its grey zone, µA."""


def passing(bias: Float[Array, "..."], middle: Scalar = MIDDLE, width: Scalar = WIDTH) -> Float[Array, "..."]:
    """The probability that a synapse passes a pulse: an error function of its bias, µA, with a grey zone of `width`."""
    return 0.5 * (1 + jax.scipy.special.erf(math.sqrt(math.pi) * (bias - middle) / width))


def bias_for(probability: Float[Array, "..."], middle: Scalar = MIDDLE, width: Scalar = WIDTH) -> Float[Array, "..."]:
    """The bias, µA, that makes a synapse pass pulses with a probability: the inverse of `passing`."""
    return middle + width / math.sqrt(math.pi) * jax.scipy.special.erfinv(2 * jnp.asarray(probability) - 1)


class RateNetwork(eqx.Module):
    """Layers of stochastic synapses and coincidence neurons, (inputs,) rates to (outputs,) rates, all from 0 to 1.

    **Arguments:** `biases`: for each layer the synapses' bias currents [outputs, inputs], µA; `thresholds`: for each layer
    the number of coincident pulses that makes a neuron fire.
    """

    biases: tuple[Float[Array, "_ _"], ...]
    thresholds: tuple[int, ...] = eqx.field(static=True)
    middle: Float[Array, ""] = fixed()
    width: Float[Array, ""] = fixed()

    def __init__(
        self, biases: Sequence[Float[Array, "_ _"]], thresholds: Sequence[int],
        middle: float = MIDDLE, width: float = WIDTH,
    ) -> None:  # fmt: skip
        if len(biases) != len(thresholds) or not biases:
            raise InputError(f"{len(biases)} layers of synapses and {len(thresholds)} thresholds; as many of both are wanted.")
        for layer, threshold in zip(biases, thresholds, strict=True):
            if not 1 <= threshold <= layer.shape[1]:
                raise InputError(
                    f"A threshold of {threshold} pulses with {layer.shape[1]} synapses; 1 to that many are possible."
                )
        self.biases = tuple(as_array(layer) for layer in biases)
        self.thresholds = tuple(int(threshold) for threshold in thresholds)
        self.middle, self.width = as_array(middle), as_array(width)

    def rates(self, inputs: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """Expected output rates; exact where the pulses that meet in a neuron are independent."""
        for bias, threshold in zip(self.biases, self.thresholds, strict=True):
            arriving = passing(bias, self.middle, self.width) * inputs
            inputs = jax.vmap(lambda p, threshold=threshold: at_least(p, threshold))(arriving)
        return inputs

    def sample(self, inputs: Float[Array, " inputs"], slots: int, key: PRNGKeyArray) -> Float[Array, "slots outputs"]:
        """Pulses of the outputs in each of `slots` clock slots, 0 or 1."""
        k_in, *keys = jax.random.split(key, len(self.biases) + 1)
        pulses = jax.random.bernoulli(k_in, inputs, (slots, inputs.shape[0])).astype(inputs.dtype)
        for bias, threshold, k in zip(self.biases, self.thresholds, keys, strict=True):
            passed = jax.random.bernoulli(k, passing(bias, self.middle, self.width), (slots, *bias.shape))
            count = (passed * pulses[:, None, :]).sum(-1)
            pulses = (count >= threshold).astype(inputs.dtype)
        return pulses


def at_least(probabilities: Float[Array, " events"], threshold: int) -> Float[Array, ""]:
    """The probability that at least `threshold` of independent events happen: the tail of the Poisson-binomial."""

    def add(fewer: Float[Array, " threshold"], p: Float[Array, ""]) -> tuple[Float[Array, " threshold"], None]:
        return fewer * (1 - p) + jnp.concatenate([jnp.zeros(1, fewer.dtype), fewer[:-1]]) * p, None

    start = jnp.zeros(threshold, probabilities.dtype).at[0].set(1.0)
    fewer, _ = jax.lax.scan(add, start, probabilities)
    return 1 - fewer.sum()


def rate_xor(probability: float = 0.95) -> RateNetwork:
    """Exclusive or of dual-rail rates (A, not A, B, not B), every synapse passing with one probability."""
    on, off = bias_for(jnp.asarray(probability)), jnp.asarray(0.0)  # a synapse without bias passes nothing
    hidden = jnp.stack([jnp.stack([on, off, off, on]), jnp.stack([off, on, on, off])])
    return RateNetwork((hidden, jnp.stack([on, on])[None]), (2, 1))
