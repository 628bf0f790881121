"""Lempel-Ziv complexity of spike trains: how many components a train is made of, an estimate of its entropy rate.

Lempel and Ziv (1976), doi 10.1109/TIT.1976.1055501: a train is cut from the left, each component being the shortest piece
that has not occurred before (it may overlap itself). Components are found by shift-and matching on words of bits: the set of
places where the present component still matches an earlier one is a bit set, moved and masked once for each bit of the train,
where scanning for the longest match compares bits again and again.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from broadsheet.errors import InputError


def lz76(bits: Any) -> int:
    """Number of components in the exhaustive history of one train (time,) of 0 and 1, a last unfinished one included.

    For many trains at once: `components`.

    **Raises:** `InputError` where anything but 0 and 1 is in it.
    """
    train = _binary(bits, 1)
    size = len(train)
    ones = int.from_bytes(np.packbits(train, bitorder="little").tobytes(), "little")
    places = (((1 << size) - 1) ^ ones, ones)  # where zeros are, where ones are
    count, ends, start = 0, 0, True
    for at, bit in enumerate(train.tolist()):
        # ends: last places of the pieces, begun before this component was, that equal what is read of it so far
        ends = places[bit] & ((1 << at) - 1 if start else ends << 1)
        start = not ends
        count += start
    return count + (not start)


def components(trains: Any) -> Int[np.ndarray, "*batch"]:
    """Lempel-Ziv components of many trains (…, time) of equal length, compiled."""
    spikes = _binary(trains)
    flat = spikes.reshape(-1, spikes.shape[-1])
    return np.asarray(_components(jnp.asarray(flat))).reshape(spikes.shape[:-1])


def lzc(trains: Any, *, normalise: bool = True) -> Float[np.ndarray, "*batch"]:
    """Lempel-Ziv complexity of trains (…, time): `components * log2(n) / n`, in bits a step.

    It tends to the entropy rate for long trains, from above: at 1000 steps it is some 5 % too large. It depends on the
    length, so compare trains of equal length. `normalise=False` gives the components themselves.
    """
    counts = components(trains).astype(float)
    if not normalise:
        return counts
    size = np.shape(trains)[-1]
    return counts * np.log2(size) / size


def entropy(probability: Any) -> Float[np.ndarray, "*shape"]:
    """Entropy of a step with this probability of a spike, in bits: the entropy rate of trains without memory."""
    p = np.asarray(probability, float)
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError("Probabilities must lie between 0 and 1, and NaN is neither.")
    q = np.clip(p, 1e-300, 1 - 1e-16)
    return np.where((p > 0) & (p < 1), -(q * np.log2(q) + (1 - q) * np.log2(1 - q)), 0.0)


def markov_entropy(probability: float, correlation: float) -> float:
    """Entropy rate, bits a step, of the chains that `broadsheet.neurons.codes.markov_trains` draws."""
    after_spike = probability + correlation * (1 - probability)
    after_none = probability * (1 - correlation)
    return float(probability * entropy(after_spike) + (1 - probability) * entropy(after_none))


def _binary(bits: Any, dimensions: int | None = None) -> Bool[np.ndarray, "*batch time"]:
    array = np.asarray(bits)
    if array.ndim < 1 or not array.shape[-1] or (dimensions is not None and array.ndim != dimensions):
        raise InputError(f"Trains have the shape {array.shape}; (time,) of at least one step is wanted, for each.")
    if not ((array == 0) | (array == 1)).all():
        raise InputError("A train holds 0 and 1, nothing else.")
    return array.astype(bool)


@jax.jit
def _components(trains: Bool[Array, "trains time"]) -> Int[Array, " trains"]:
    """`lz76` of each train; a bit set is a row of 32-bit words, the lowest bit first."""
    count, size = trains.shape
    words = -(-size // 32)
    padded = jnp.pad(trains, ((0, 0), (0, 32 * words - size))).reshape(count, words, 32)
    weights = jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)
    ones = jnp.sum(jnp.where(padded, weights, jnp.uint32(0)), axis=2, dtype=jnp.uint32).T  # trains last: whole vectors
    first = 32 * jnp.arange(words)[:, None]

    def step(carry: tuple, now: tuple) -> tuple[tuple, None]:
        ends, found = carry
        at, bit = now
        places = jnp.where(bit, ones, ~ones)
        open_bits = jnp.clip(at - first, 0, 32).astype(jnp.uint32)  # of this word, earlier than this step
        earlier = jnp.where(open_bits == 32, jnp.uint32(0xFFFFFFFF), (jnp.uint32(1) << (open_bits % 32)) - 1)
        fresh = ~jnp.any(ends != 0, axis=0)
        ends = places & jnp.where(fresh, earlier, _shifted(ends))
        return (ends, found + ~jnp.any(ends != 0, axis=0)), None

    start = (jnp.zeros_like(ones), jnp.zeros(count, jnp.int32))
    (ends, found), _ = jax.lax.scan(step, start, (jnp.arange(size), trains.T))
    return found + jnp.any(ends != 0, axis=0)


def _shifted(words: UInt32[Array, "words trains"]) -> UInt32[Array, "words trains"]:
    """The bit set moved up by one place."""
    carried = jnp.concatenate([jnp.zeros_like(words[:1]), words[:-1] >> 31])
    return (words << 1) | carried
