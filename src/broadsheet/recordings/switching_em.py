"""Expectation and maximisation of the switching Poisson GLM, on blocks of bins.

State s of the chain has couplings `W[s]` (neurons, 1 + neurons), rows are targets, column 0 is the bias: the rate of a bin is
`link(W[s] @ (1, y))` spikes, where `y` is what each neuron fired before, filtered. Counts stay whole numbers in blocks; what is
computed of a block goes when the next one comes, so that memory is that of the counts plus bins x states.

The maximisation is done for all target neurons at a time, each by itself: a Fisher step, which is kept where that neuron's
expected log-likelihood with its penalty does not drop, and damped where it does. Few neurons have the whole Fisher matrix of
each target (work: neurons cubed); many share one matrix of second moments a state, scaled by each target's mean curvature
(work: neurons squared).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import gammaln

from broadsheet.errors import InputError
from broadsheet.numerics.smoothed_sequences import smoothed_sequences

Link = Literal["exp", "softplus", "sigmoid"]
MISSING = -1
EXACT = 32
"""Up to so many neurons the Fisher matrix of each is computed whole."""
ROUND = 1e-3
"""How far from 0 the corner of the Laplace prior is rounded."""
BLOCK_ELEMENTS = 40_000
"""Bins x neurons of a block, about: it stays in a core's cache."""


class Blocks(eqx.Module):
    """Sequences cut into blocks of bins, each with the bins before it that its history needs.

    - `counts`: (blocks, neurons, lags + bins) whole numbers, -1 where missing or past the end; bins last, along which all
      loops run.
    - `place`: (blocks, 2): sequence, and number of the block in it.
    - `lengths`: (sequences,) bins; `constants`: (sequences,) sum of log x!.
    - `filter_`: (lags,) weights of the bins before, the last one first.
    - `most`: blocks of the longest sequence.
    """

    counts: Array
    place: Array
    lengths: Array
    constants: Array
    filter_: Array
    most: int = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, int]:
        """Bins of a block and neurons."""
        return self.counts.shape[2] - self.filter_.shape[0], self.counts.shape[1]


def blocks_of(parts: Sequence[np.ndarray], filter_: np.ndarray) -> Blocks:
    """Blocks of sequences (bins, neurons) of counts, NaN or -1 where missing; raises `InputError` for counts above 32 767."""
    lags, neurons = len(filter_), parts[0].shape[1]
    longest = max(map(len, parts))
    bins = -(-longest // max(1, round(longest * neurons / max(BLOCK_ELEMENTS, 64 * neurons))))
    each = [-(-len(part) // bins) for part in parts]
    counts = np.full((sum(each), neurons, lags + bins), MISSING, np.int16)
    place = np.array([(k, j) for k, count in enumerate(each) for j in range(count)])
    constants = np.zeros(len(parts))
    for row, (k, j) in zip(counts, place, strict=True):
        first = max(j * bins - lags, 0)
        piece = parts[k][first : (j + 1) * bins]
        if piece.dtype != np.int16:
            if np.nanmax(piece, initial=0) > np.iinfo(np.int16).max:
                raise InputError(f"Sequence {k} has {np.nanmax(piece):g} spikes in a bin; at most 32767 are taken.")
            piece = np.where(np.isnan(piece), MISSING, piece)
        at = first + lags - j * bins
        row[:, at : at + len(piece)] = piece.T
        fresh = np.maximum(row[:, lags:], 0)
        constants[k] += gammaln(np.arange(fresh.max() + 1) + 1.0)[fresh].sum()
    return Blocks(
        jnp.asarray(counts), jnp.asarray(place, jnp.int32), jnp.asarray([len(part) for part in parts], jnp.int32),
        jnp.asarray(constants), jnp.asarray(filter_, float), -(-longest // bins),
    )  # fmt: skip


def decoded(block: Array, filter_: Array) -> tuple[Array, Array, Array]:
    """Counts (neurons, bins), which were seen, and the design (1 + neurons, bins)."""
    lags, bins = filter_.shape[0], block.shape[1] - filter_.shape[0]
    past = jnp.maximum(block, 0).astype(filter_.dtype)
    history = sum(filter_[k] * past[:, lags - 1 - k : lags - 1 - k + bins] for k in range(lags))
    design = jnp.concatenate([jnp.ones((1, bins), filter_.dtype), history])
    return past[:, lags:], block[:, lags:] >= 0, design


def rate(u: Array, link: Link) -> Array:
    """Spikes a bin."""
    if link == "exp":
        return jnp.exp(u)
    return jax.nn.sigmoid(u) if link == "sigmoid" else jax.nn.softplus(jnp.maximum(u, -30.0))


def _log1p(e: Array) -> Array:
    """log(1 + e) for e from 0 to 1, to the last digits, by a series: 1.6 times as fast as the general function."""
    s = e / (2 + e)
    square, total = s * s, jnp.zeros_like(s)
    for k in range(16, -1, -1):
        total = total * square + 1 / (2 * k + 1)
    return 2 * s * total


def _parts(u: Array, link: Link) -> tuple[Array, Array, Array]:
    """Rate, its log, and its derivative with respect to u."""
    if link == "exp":
        f = jnp.exp(u)
        return f, u, f
    u = jnp.maximum(u, -30.0) if link == "softplus" else u
    e = jnp.exp(-jnp.abs(u))
    slope, beyond = jnp.where(u > 0, 1.0, e) / (1 + e), _log1p(e)
    if link == "sigmoid":
        return slope, jnp.minimum(u, 0) - beyond, slope * (1 - slope)
    f = jnp.maximum(u, 0) + beyond
    return f, jnp.log(f), slope


def _log_likelihood(x: Array, u: Array, link: Link) -> Array:
    """Of Poisson counts, without log x!."""
    f, log_f, _ = _parts(u, link)
    return x * log_f - f


def score(x: Array, u: Array, link: Link) -> tuple[Array, Array]:
    """Derivative of the log-likelihood with respect to u, and its Fisher information."""
    f, _, slope = _parts(u, link)
    relative = 1 - f if link == "sigmoid" else 1.0 if link == "exp" else slope / f
    return relative * (x - f), relative * slope


def drives(design: Array, W: Array) -> Array:
    """(states, neurons, bins) of a block."""
    return (W.reshape(-1, W.shape[2]) @ design).reshape(*W.shape[:2], -1)


def emissions(data: Blocks, W: Float[Array, "states neurons features"], link: Link) -> Float[Array, "sequences bins states"]:
    """Log-likelihood of each bin in each state, without log x!; 0 where it is missing or past the end."""

    def one(_: None, block: Array) -> tuple[None, Array]:
        x, seen, design = decoded(block, data.filter_)
        return None, jnp.where(seen, _log_likelihood(x, drives(design, W), link), 0.0).sum(axis=1).T

    return _of_sequences(data, jax.lax.scan(one, None, data.counts)[1])


def _of_sequences(data: Blocks, found: Array) -> Array:
    """(sequences, bins, states) from (blocks, bins, states), 0 past the end."""
    bins, states = found.shape[1:]
    whole = jnp.zeros((data.lengths.shape[0], data.most, bins, states), found.dtype)
    return whole.at[data.place[:, 0], data.place[:, 1]].set(found).reshape(len(whole), -1, states)


class Expected(NamedTuple):
    """- `states`: (blocks, states, bins) probabilities; `transitions`: (states, states) expected number.
    - `log_likelihood`: (sequences,).
    """

    states: Array
    transitions: Array
    log_likelihood: Array


def expectation(
    data: Blocks, W: Array, transition: Float[Array, "states states"], link: Link, log_emissions: Array | None = None
) -> Expected:
    """The E-step over all sequences; the first state of each is uniform. `log_emissions`: those of W, where they are known."""
    states = W.shape[0]
    initial = jnp.full(states, -np.log(states))
    known = emissions(data, W, link) if log_emissions is None else log_emissions
    found = smoothed_sequences(initial, jnp.log(transition), known, data.lengths)
    cut = found.states.reshape(found.states.shape[0], data.most, -1, states)[data.place[:, 0], data.place[:, 1]]
    return Expected(jnp.swapaxes(cut, 1, 2), found.transitions.sum(axis=0), found.log_likelihood - data.constants)


def most_likely_transitions(counts: Array, pseudocount: float | Array) -> Array:
    """Transitions that maximise the expected log-likelihood with a Dirichlet prior."""
    more = counts + pseudocount
    return more / more.sum(axis=1, keepdims=True)


class Moments(NamedTuple):
    """Of the expected log-likelihood of each target: value (neurons,), gradient (states, neurons, features), and information,
    either whole (states, neurons, features, features) or as second moments (states, features, features) with a scale (states,
    neurons).
    """

    value: Array
    gradient: Array
    information: Array
    scale: Array | None


def expected_value(data: Blocks, states: Array, W: Array, link: Link) -> tuple[Float[Array, " neurons"], Array]:
    """Expected log-likelihood of each target, without log x!, and the `emissions` on the way."""

    def one(total: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
        x, seen, design = decoded(given[0], data.filter_)
        each = jnp.where(seen, _log_likelihood(x, drives(design, W), link), 0.0)
        return total + _weighted(each, given[1]), each.sum(axis=1).T

    value, found = jax.lax.scan(one, jnp.zeros(W.shape[1]), (data.counts, states))
    return value, _of_sequences(data, found)


def _weighted(each: Array, gamma: Array) -> Array:
    """Sum over states and bins of (states, neurons, bins), weighted by (states, bins), as products of a matrix and a vector:
    what XLA makes of the sum computes logs one by one."""
    return sum((rows @ weights for rows, weights in zip(each, gamma, strict=True)), jnp.zeros(each.shape[1]))


def moments(data: Blocks, states: Array, W: Array, link: Link, whole: bool) -> Moments:
    """Sums over all bins, weighted by the probabilities of the states (blocks, states, bins); `whole`: the information is.

    The information only shapes the step: its products are of single precision.
    """
    S, N, P = W.shape
    first, second = np.triu_indices(P)

    def one(carry: tuple, given: tuple[Array, Array]) -> tuple[tuple, None]:
        value, gradient, information, scale = carry
        block, gamma = given
        x, seen, design = decoded(block, data.filter_)
        u = drives(design, W)
        weight = jnp.where(seen, gamma[:, None], 0.0)
        slope, fisher = score(x, u, link)
        value = value + _weighted(jnp.where(seen, _log_likelihood(x, u, link), 0.0), gamma)
        gradient = gradient + ((weight * slope).reshape(S * N, -1) @ design.T).reshape(S, N, P)
        fisher, single = weight * fisher, design.astype(jnp.float32)
        if whole:
            added = fisher.reshape(S * N, -1).astype(jnp.float32) @ (single[first] * single[second]).T
        else:
            added = jax.vmap(lambda g: (single * g.astype(jnp.float32)) @ single.T)(gamma)
            scale = scale + fisher.sum(axis=2)
        return (value, gradient, information + added, scale), None

    start = (jnp.zeros(N), jnp.zeros((S, N, P)), jnp.zeros((S * N, len(first)) if whole else (S, P, P)), jnp.zeros((S, N)))
    (value, gradient, information, scale), _ = jax.lax.scan(one, start, (data.counts, states))
    if not whole:
        return Moments(value, gradient, information, scale / jnp.maximum(states.sum(axis=(0, 2)), 1e-9)[:, None])
    square = jnp.zeros((S * N, P, P)).at[:, first, second].set(information).at[:, second, first].set(information)
    return Moments(value, gradient, square.reshape(S, N, P, P), None)


class Penalty(eqx.Module):
    """A prior of the couplings: Gaussian, with its mean (neurons, neurons) and precision, and a Laplace one by `lasso`; biases
    have none. `shared`: over states, its mean is where the couplings' own mean lies, and the normalisation counts.
    `exact`: each target's information is kept whole.
    """

    mean: Array
    precision: Array
    lasso: Array
    shared: bool = eqx.field(static=True)
    exact: bool = eqx.field(static=True)

    def log_density(self, W: Array) -> Array:
        """Of each target's couplings: (neurons,)."""
        away = W[:, :, 1:] - self.mean
        size = jnp.abs(W[:, :, 1:])
        rounded = (size - ROUND * jnp.log1p(size / ROUND)).sum(axis=(0, 2))
        out = -0.5 * self.precision * (away**2).sum(axis=(0, 2)) - self.lasso * rounded
        constant = 0.5 * away.shape[0] * away.shape[2] * jnp.log(jnp.maximum(self.precision, 1e-300) / (2 * jnp.pi))
        return out + constant if self.shared else out

    def curvature(self, W: Array) -> Array:
        """What each coupling's own information gains, or one number; of the Laplace prior, that of a parabola above it."""
        return self.precision + self.lasso / (jnp.abs(W[:, :, 1:]) + ROUND) if self.exact else self.precision

    def gradient(self, W: Array) -> Array:
        weights = W[:, :, 1:]
        return -self.precision * (weights - self.mean) - self.lasso * weights / (jnp.abs(weights) + ROUND)

    def moved(self, W: Array) -> Penalty:
        """With the mean where it is likeliest."""
        return eqx.tree_at(lambda p: p.mean, self, W[:, :, 1:].mean(axis=0)) if self.shared else self


def _penalised(found: Moments, W: Array, penalty: Penalty) -> Moments:
    gradient = found.gradient.at[:, :, 1:].add(penalty.gradient(W))
    return found._replace(value=found.value + penalty.log_density(W), gradient=gradient)


def _direction(found: Moments, precision: Array, damping: Array, share_bias: bool) -> Array:
    """The Fisher step of each target, with `damping` (neurons,) in units of the mean information."""
    if found.scale is None:
        information, ridge = found.information, 1e-7
        size = jnp.trace(information, axis1=2, axis2=3).sum(axis=0) / (information.shape[0] * information.shape[-1])
        A = information[:, :, 1:, 1:]
        level = jnp.broadcast_to(precision, A.shape[:3]) + ((damping + ridge) * size + 1e-9)[:, None]
        v, bias = information[:, :, 1:, 0], information[:, :, 0, 0]
        factor = jax.scipy.linalg.cho_factor(A + level[..., None] * jnp.eye(A.shape[-1]))
        both = jnp.stack([found.gradient[:, :, 1:], v], axis=-1)
        solved = jax.scipy.linalg.cho_solve(factor, both)
        x_g, x_v = solved[..., 0], solved[..., 1]
    else:
        second, scale = found.information, found.scale
        size = scale.mean(axis=0) * jnp.trace(second, axis1=1, axis2=2).mean() / second.shape[-1]
        level = precision + (damping + 1e-7) * size + 1e-9
        values, vectors = jnp.linalg.eigh(second[:, 1:, 1:])
        v, bias = scale[:, :, None] * second[:, None, 1:, 0], scale * second[:, None, 0, 0]
        inverse = 1 / (scale[:, :, None] * jnp.maximum(values, 0.0)[:, None] + level[:, None])
        x_g, x_v = (jnp.einsum("spk,snk->snp", vectors, inverse * (r @ vectors)) for r in (found.gradient[:, :, 1:], v))
    whole = partial(jnp.sum, axis=0, keepdims=True) if share_bias else lambda each: each
    left = whole(bias - (v * x_v).sum(axis=-1)) + (damping + 1e-9) * size + 1e-9
    step = whole(found.gradient[:, :, 0] - (v * x_g).sum(axis=-1)) / left
    step = jnp.broadcast_to(step, bias.shape)
    return jnp.concatenate([step[..., None], x_g - x_v * step[..., None]], axis=-1)


def maximisation(
    data: Blocks, states: Array, W: Array, penalty: Penalty, damping: Array, link: Link, share_bias: bool, steps: int = 1
) -> tuple[Array, Penalty, Array, Array]:
    """`steps` safeguarded Fisher steps: couplings, the prior with its mean moved, damping (neurons,) for the next time, and the
    couplings' `emissions`."""

    def step(_: Any, carry: tuple) -> tuple:
        W, penalty, damping, *_ = carry
        here = _penalised(moments(data, states, W, link, penalty.exact), W, penalty)
        proposed = W + _direction(here, penalty.curvature(W), damping, share_bias)
        value, found = expected_value(data, states, proposed, link)
        better = value + penalty.log_density(proposed) >= here.value  # not where it is NaN
        W = jnp.where(better[None, :, None], proposed, W)
        damping = jnp.where(better, damping / 10, jnp.maximum(10 * damping, 1e-3))
        return W, penalty.moved(W), damping, better.all(), found

    bins = data.most * data.shape[0]
    start = (W, penalty, damping, jnp.asarray(False), jnp.zeros((data.lengths.shape[0], bins, len(W))))
    W, penalty, damping, whole, found = jax.lax.fori_loop(0, steps, step, start)
    return W, penalty, damping, jax.lax.cond(whole, lambda: found, lambda: emissions(data, W, link))
