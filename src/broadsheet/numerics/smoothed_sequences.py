"""Smoothing of many hidden Markov chains at once, or of a long one, in blocks of bins that go side by side.

What a loop over the bins of a chain of few states costs is starting its steps. Here each sequence is cut into blocks: one pass
goes through all of them at a time and finds what each makes of every state that it may begin in; the blocks' ends are joined
in order; and with these known one pass forward and one backward go through all blocks together. For a sequence of n bins that
is some 4 sqrt(n) steps in place of 2 n. Särkkä and García-Fernández, arXiv 2102.05743, have the same products in a tree.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from broadsheet.numerics.hidden_markov import Smoothed, smoothed

LANES = 512
"""Blocks of all sequences together, about: more have nothing left to gain from going side by side."""


def blocks_of_bins(sequences: int, bins: int) -> int:
    """Into how many blocks each of these sequences is cut: the passes through a block, three, take as long as joining them."""
    return max(1, min(round(math.sqrt(1.5 * bins)), LANES // sequences))


def smoothed_sequences(
    log_initial: Float[Array, " states"],
    log_transitions: Float[Array, "states states"],
    log_emissions: Float[Array, "sequences bins states"],
    lengths: Int[Array, " sequences"] | None = None,
    *,
    blocks: int | None = None,
) -> Smoothed:
    """As `jax.vmap` of `hidden_markov.smoothed` over sequences: every part of the result has them first.

    Probabilities are scaled in each bin, in place of their logs. In float64 that is as exact as logs are wherever no transition
    is below 1e-100, however unlikely the emissions; where a number is lost all the same, the logs are computed instead. It is
    not to be differentiated.

    **Arguments:** rows of exp(`log_transitions`) sum to 1; `lengths`: bins of each sequence before its padding, in which
    emissions are 0; `blocks`: of each sequence, by default as many as are fastest.
    """
    sequences, bins, _ = log_emissions.shape
    lengths = jnp.full(sequences, bins) if lengths is None else lengths
    count = blocks_of_bins(sequences, bins) if blocks is None else max(1, min(blocks, bins - 1))
    found = _scaled(log_initial, log_transitions, log_emissions, lengths, count)
    whole = jnp.isfinite(found.log_likelihood).all() & jnp.isfinite(found.states).all() & jnp.isfinite(found.transitions).all()
    return jax.lax.cond(
        whole,
        lambda: found,
        lambda: jax.vmap(smoothed, in_axes=(None, None, 0, 0))(log_initial, log_transitions, log_emissions, lengths),
    )


def _scaled(log_initial: Array, log_transitions: Array, log_emissions: Array, lengths: Array, blocks: int) -> Smoothed:
    """Lanes, blocks within sequences, are the last axis of what the loops carry; the first bin is before all blocks."""
    sequences, bins, states = log_emissions.shape
    steps = max(1, -(-(bins - 1) // blocks))
    P = jnp.exp(log_transitions)
    most = log_emissions.max(axis=2)
    emissions = jnp.exp(log_emissions - most[..., None])
    padded = jnp.pad(emissions[:, 1:], ((0, 0), (0, blocks * steps - (bins - 1)), (0, 0)), constant_values=1.0)
    # (steps, states, lanes)
    e = padded.reshape(sequences, blocks, steps, states).transpose(2, 3, 0, 1).reshape(steps, states, -1)

    def ahead(here: Array, e: Array) -> tuple[Array, tuple[Array, Array]]:
        joint = _moved(P.T, here) * e
        norm = joint.sum(axis=0)
        here = joint / norm
        return here, (here, norm)

    joint = jnp.exp(log_initial) * emissions[:, 0]
    norm_0 = joint.sum(axis=1)
    first = (joint / norm_0[:, None]).T  # (states, sequences)
    if blocks == 1:
        starts, ends = first, jnp.ones_like(first)
    else:
        starts, ends = _joined(P, e, first, blocks)
    last, (here, norms) = jax.lax.scan(ahead, starts, e)
    ends = ends / (ends * last).sum(axis=0)

    def back(backward: Array, ratio: Array) -> tuple[Array, tuple[Array, Array]]:
        message = ratio * backward
        return _moved(P, message), (backward, message)

    begins, (backward, message) = jax.lax.scan(back, ends, e / norms[:, None], reverse=True)

    def apart(found: Array) -> Array:
        """(sequences, bins - 1, …) from (steps, …, lanes)."""
        middle = found.shape[1:-1]
        found = found.reshape(steps, *middle, sequences, blocks)
        found = jnp.moveaxis(found, (-2, -1), (0, 1)).reshape(sequences, blocks * steps, *middle)
        return found[:, : bins - 1]

    real = jnp.arange(bins) < lengths[:, None]
    before = jnp.concatenate([starts[None], here[:-1]])
    begin = begins.reshape(states, sequences, blocks)[..., 0].T * first.T
    smooth = jnp.concatenate([begin[:, None], apart(here * backward)], axis=1)
    counted = jnp.where(real[:, 1:, None], apart(message), 0.0)
    counts = jnp.einsum("qti,qtj->qij", apart(before), counted) * P
    likelihood = (jnp.log(apart(norms)).sum(axis=1) + jnp.log(norm_0)) + most.sum(axis=1)
    return Smoothed(jnp.where(real[..., None], smooth, 0.0), counts, likelihood)


def _moved(matrix: Array, vectors: Array) -> Array:
    """The matrix times each of the vectors along the first axis."""
    return (matrix @ vectors.reshape(len(vectors), -1)).reshape(vectors.shape)


def _joined(P: Array, e: Array, first: Array, blocks: int) -> tuple[Array, Array]:
    """Probabilities of the state before each block given the past, and, but for a factor, of all that follows each block given
    the state at its end: (states, lanes)."""
    states, sequences = first.shape

    def through(product: Array, e: Array) -> tuple[Array, None]:
        product = _moved(P.T, product) * e[:, None]  # (to, from, lanes), but for a factor of each lane
        return product / product.sum(axis=(0, 1)), None

    eye = jnp.broadcast_to(jnp.eye(states)[..., None], (states, states, e.shape[2]))
    product, _ = jax.lax.scan(through, eye, e)
    product = jnp.moveaxis(product.reshape(states, states, sequences, blocks), 3, 0)

    def ahead(here: Array, product: Array) -> tuple[Array, Array]:
        following = (product * here).sum(axis=1)
        return following / following.sum(axis=0), here

    def back(after: Array, product: Array) -> tuple[Array, Array]:
        before = (product * after[:, None]).sum(axis=0)
        return before / before.max(axis=0), after

    _, starts = jax.lax.scan(ahead, first, product)
    _, ends = jax.lax.scan(back, jnp.ones_like(first), product, reverse=True)
    return tuple(jnp.moveaxis(each, 0, 2).reshape(states, -1) for each in (starts, ends))  # type: ignore[return-value]
