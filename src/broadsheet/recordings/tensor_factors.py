"""Non-negative tensor factors: components of a time curve, loadings of animals and a pattern of pairs each.

`A[t, w, p] ≈ sum over r of weight_r time[t, r] animal[w, r] pair[p, r]`, all of them 0 or more. All starts, and all ranks of a
scan, run as one program: their columns stand side by side, so that a sweep is two matrix products with the tensor, however many
they are (the products for time and animals share one). An animal may lack pairs or frames. What is missing then has a weight of
0 in the least squares, and the normal equations keep small closed forms, so that hierarchical alternating least squares (HALS,
Cichocki & Phan 2009) costs about as much as on a whole tensor.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import linear_sum_assignment
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError

Method = Literal["hals", "mu"]
TINY = 1e-12
CALM = 3
"""Sweeps in a row that gain too little, after which it is over: the error of one is known to some 1e-7 of the tensor."""


class Factors(NamedTuple):
    """Components of a tensor; columns have a length of 1, and the weights fall.

    - `time`: (frames, rank); `animal`: (animals, rank); `pair`: (pairs, rank).
    - `weight`: (rank,).
    - `error`: `‖mask (A - Â)‖ / ‖mask A‖`.
    """

    time: Float[np.ndarray, "frames rank"]
    animal: Float[np.ndarray, "animals rank"]
    pair: Float[np.ndarray, "pairs rank"]
    weight: Float[np.ndarray, " rank"]
    error: float

    def tensor(self) -> Float[np.ndarray, "frames animals pairs"]:
        """What the components add up to."""
        return np.einsum("r,tr,wr,pr->twp", self.weight, self.time, self.animal, self.pair, optimize=True)


class NTF(BaseEstimator):
    """Non-negative factors of a tensor (frames, animals, pairs), the best of several random starts.

    **Parameters:**

    - `rank`: components.
    - `n_starts`: random starts, run side by side.
    - `method`: `"hals"`, or `"mu"`: multiplicative updates, which are slower and never leave or reach 0.
    - `max_sweeps`: at most as many; `tol`: stop where the error falls by less than this share in each of three sweeps.
    - `random_state`: integer.

    **Attributes:** `time_`, `animal_`, `pair_`, `weights_`, `error_`: those of the best start, as in `Factors`; `starts_`: the
    `Factors` of all starts, the best first; `similarity_`: of starts within 1 % of the best error (see `start_similarity`);
    `n_sweeps_`.
    """

    def __init__(
        self, rank: int = 3, *, n_starts: int = 10, method: Method = "hals", max_sweeps: int = 500, tol: float = 1e-6,
        random_state: int = 0,
    ) -> None:  # fmt: skip
        self.rank = rank
        self.n_starts = n_starts
        self.method = method
        self.max_sweeps = max_sweeps
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, mask: Any = None) -> NTF:
        """Fits a tensor (frames, animals, pairs) of numbers from 0 on; NaN is missing.

        **Arguments:** `mask`: (animals, pairs), False for pairs that an animal lacks, in place of NaN.

        **Raises:** `InputError` for what is negative or infinite, and for NaN that are neither whole pairs nor whole frames
        of an animal.
        """
        given = checked_tensor(X, mask)
        (self.starts_,), self.n_sweeps_ = _factorise(
            given, [self.rank], self.n_starts, self.method, self.max_sweeps, self.tol, self.random_state
        )
        best = self.starts_[0]
        self.time_, self.animal_, self.pair_, self.weights_, self.error_ = best
        self.similarity_ = start_similarity(self.starts_)
        return self

    def transform(self, X: Any, mask: Any = None) -> Float[np.ndarray, "frames rank"]:
        """Time curves (scaled by the weights) of the fitted animals and pairs in another tensor (frames, animals, pairs)."""
        check_is_fitted(self, "time_")
        given = checked_tensor(X, mask)
        if given.values.shape[1:] != (len(self.animal_), len(self.pair_)):
            raise InputError(
                f"The tensor has {given.values.shape[1]} animals and {given.values.shape[2]} pairs; the factors have "
                f"{len(self.animal_)} and {len(self.pair_)}."
            )
        return time_curves(given, self.animal_, self.pair_)

    def score(self, X: Any, y: Any = None, mask: Any = None) -> float:
        """Share of the sum of squares that the fitted animals and pairs account for, with new time curves; 1 is all."""
        check_is_fitted(self, "time_")
        given = checked_tensor(X, mask)
        curves = self.transform(X, mask)
        left = total = 0.0
        for start in range(0, len(curves), 256):  # bounds the memory
            rows = slice(start, start + 256)
            part = np.einsum("tr,wr,pr->twp", curves[rows], self.animal_, self.pair_, optimize=True)
            seen = given.frames[rows, :, None] * given.pairs
            left += float((seen * (given.values[rows] - part) ** 2).sum(dtype=np.float64))
            total += float((given.values[rows] ** 2).sum(dtype=np.float64))
        return 1 - left / total


class RankResult(NamedTuple):
    """Of one rank: the lowest error, those of all starts in rising order, and how similar good starts are."""

    rank: int
    error: float
    errors: tuple[float, ...]
    similarity: float


def rank_scan(
    X: Any, ranks: Sequence[int], *, mask: Any = None, n_starts: int = 10, method: Method = "hals", max_sweeps: int = 500,
    tol: float = 1e-6, random_state: int = 0,
) -> list[RankResult]:  # fmt: skip
    """Error and stability at several ranks, fitted side by side. Take the rank after which the error stops to fall steeply,
    where starts still agree (0.9 and more)."""
    fits, _ = _factorise(checked_tensor(X, mask), list(ranks), n_starts, method, max_sweeps, tol, random_state)
    return [
        RankResult(rank, starts[0].error, tuple(each.error for each in starts), start_similarity(starts))
        for rank, starts in zip(ranks, fits, strict=True)
    ]


def matched(one: Factors, other: Factors) -> tuple[np.ndarray, float]:
    """Which component of `other` belongs to each of `one`, and the mean of the products of their three cosines."""
    same = (one.time.T @ other.time) * (one.animal.T @ other.animal) * (one.pair.T @ other.pair)
    rows, columns = linear_sum_assignment(-same)
    return columns, float(same[rows, columns].mean())


def start_similarity(starts: Sequence[Factors], within: float = 0.01) -> float:
    """Mean similarity of all pairs of starts whose error is within a share of the lowest; the two best always count. NaN for
    one start."""
    ordered = sorted(starts, key=lambda each: each.error)
    good = [each for k, each in enumerate(ordered) if k < 2 or each.error <= (1 + within) * ordered[0].error]
    found = [matched(one, other)[1] for one, other in combinations(good, 2)]
    return float(np.mean(found)) if found else float("nan")


class Given(NamedTuple):
    """A tensor with 0 for what is missing, and what each animal has: frames (frames, animals), pairs (animals, pairs)."""

    values: np.ndarray
    frames: np.ndarray
    pairs: np.ndarray

    @property
    def whole(self) -> bool:
        return bool(self.frames.all() and self.pairs.all())


def checked_tensor(X: Any, mask: Any) -> Given:
    values = np.asarray(X)
    if values.ndim != 3 or 0 in values.shape or values.dtype.kind not in "biuf":
        raise InputError(f"The tensor is {values.dtype} of {values.shape}; numbers (frames, animals, pairs) are wanted.")
    values = values.astype(np.float32, copy=False)
    frames, animals, pairs = values.shape
    seen = np.ones((animals, pairs), bool) if mask is None else np.asarray(mask, bool)
    if seen.shape != (animals, pairs):
        raise InputError(f"The mask is {seen.shape}; ({animals}, {pairs}) is wanted, one entry an animal and pair.")
    at = np.ones((frames, animals), bool)
    for animal in range(animals if np.isnan(values.min()) else 0):
        missing = np.isnan(values[:, animal])
        if missing.any():
            at[:, animal] = ~missing[:, seen[animal]].all(axis=1)
            seen[animal] &= ~missing[at[:, animal]].all(axis=0)
            if missing[np.ix_(at[:, animal], seen[animal])].any():
                raise InputError(f"Animal {animal} lacks single values; whole pairs or whole frames may be missing.")
    if not seen.any() or not at.any():
        raise InputError("The tensor has no value: all is missing.")
    if not (seen.all() and at.all()):
        values = np.where(at[:, :, None] & seen, values, np.float32(0))
    if not np.isfinite(low := values.min()) or not np.isfinite(high := values.max()) or low < 0:
        raise InputError("The tensor holds negative or infinite values; finite ones from 0 on are wanted.")
    if high == 0:
        raise InputError("The tensor is 0 everywhere, so that there is nothing to factorise.")
    return Given(values, at.astype(np.float32), seen.astype(np.float32))


def _factorise(
    given: Given, ranks: list[int], n_starts: int, method: str, max_sweeps: int, tol: float, seed: int
) -> tuple[list[list[Factors]], int]:
    """Of each rank the factors of all starts, the best first; and the sweeps that it took."""
    if not ranks or min(ranks) < 1 or n_starts < 1 or max_sweeps < 1:
        raise InputError(f"ranks {ranks}, {n_starts} starts and {max_sweeps} sweeps: one or more of each is wanted.")
    if method not in ("hals", "mu"):
        raise InputError(f"method = {method!r}; hals or mu is wanted.")
    width, rng = max(ranks), np.random.default_rng(seed)
    frames, animals, pairs = given.values.shape
    scale = float(given.values.mean()) or 1.0
    first: list[tuple[np.ndarray, ...]] = []
    for rank in (rank for rank in ranks for _ in range(n_starts)):
        used = np.arange(width) < rank  # a column of zeros stays one
        drawn = [np.abs(rng.standard_normal((size, width))) * used for size in (frames, animals, pairs)]
        first.append((drawn[0] * (scale / rank), drawn[1], drawn[2]))
    side = 1 if given.whole else width
    together = max(1, _MEMORY // (width * (frames * animals + side * (pairs + animals + frames))))
    found: list[Factors] = []
    sweeps = 0
    values, seen = _on_device(given)
    for start in range(0, len(first), together):
        stacked = [
            jnp.asarray(np.stack(each).swapaxes(1, 2), jnp.float32)
            for each in zip(*first[start : start + together], strict=True)
        ]
        with jax.enable_x64(True):  # sums of squares, whose small changes tell when to stop
            factors, error, count = _descend(values, seen, *stacked, tol, max_sweeps, method)
        sweeps = max(sweeps, int(count))
        columns = [np.asarray(each, np.float64) for each in factors]
        for k, each in enumerate(np.asarray(error)):
            rank = ranks[(start + k) // n_starts]
            time, animal, pair = (column[k, :rank].T for column in columns)
            found.append(_normalised(time, animal, pair, float(each)))
    by_rank = [sorted(found[k * n_starts : (k + 1) * n_starts], key=lambda each: each.error) for k in range(len(ranks))]
    return by_rank, sweeps


_MEMORY = 1 << 27
"""Numbers that all starts of a program may need beside the tensor."""


def _on_device(given: Given) -> tuple[Array, tuple[Array, Array] | None]:
    """The tensor, and what each animal has where something is missing. JAX takes an array as it is where it begins at a
    multiple of 64 bytes; what NumPy copies there costs a seventh of JAX's own copy."""
    room = np.empty(given.values.size + 16, np.float32)
    aligned = room[-room.ctypes.data % 64 // 4 :][: given.values.size].reshape(given.values.shape)
    aligned[...] = given.values
    seen = None if given.whole else (jnp.asarray(given.frames), jnp.asarray(given.pairs))
    return jax.device_put(aligned, may_alias=True), seen


def _normalised(time: np.ndarray, animal: np.ndarray, pair: np.ndarray, error: float) -> Factors:
    sizes = [np.linalg.norm(each, axis=0) for each in (time, animal, pair)]
    weight = np.prod(sizes, axis=0)
    order = np.argsort(-weight, kind="stable")
    columns = [(each / np.where(size > 0, size, 1))[:, order] for each, size in zip((time, animal, pair), sizes, strict=True)]
    return Factors(columns[0], columns[1], columns[2], weight[order], error)


@functools.partial(jax.jit, static_argnames="method")
def _descend(
    A: Array, seen: tuple[Array, Array] | None, time: Array, animal: Array, pair: Array, tol: Array, max_sweeps: Array,
    method: Method,
) -> tuple[tuple[Array, Array, Array], Array, Array]:  # fmt: skip
    """Sweeps of all starts (starts, rank, size) until none gets better, with their errors and the count of sweeps."""
    size = jnp.sum(jnp.square(A), dtype=float)
    update = _hals if method == "hals" else _multiply

    def sweep(state: tuple) -> tuple:
        (time, animal, pair), error, calm, count = state
        pair_grams = _grams(pair, seen and seen[1].T)
        products = jnp.einsum("twp,srp->twsr", A, pair)
        time = update(time, jnp.einsum("twsr,srw->srt", products, animal), _time_gram(animal, pair_grams, seen))
        frames_grams = _grams(time, seen and seen[0])
        animal = update(animal, jnp.einsum("twsr,srt->srw", products, time), frames_grams * pair_grams)
        gram = _pair_gram(animal, frames_grams, seen)
        rows = jnp.einsum("srt,srw->twsr", time, animal).reshape(-1, pair.shape[0] * pair.shape[1])
        target = jnp.einsum("nq,np->qp", rows, A.reshape(len(rows), -1)).reshape(pair.shape)
        pair = update(pair, target, gram)
        left = size - 2 * jnp.sum(target * pair, axis=(1, 2), dtype=float) + _square(time, animal, pair, seen)
        now = jnp.sqrt(jnp.maximum(left, 0) / size)
        calm = jnp.where((error - now > tol * error).any(), 0, calm + 1)
        return _rescale(time, animal, pair), now, calm, count + 1

    begin = ((time, animal, pair), jnp.full(len(time), 1e9, float), jnp.asarray(0), jnp.asarray(0))
    factors, error, _, count = jax.lax.while_loop(lambda at: (at[2] < CALM) & (at[3] < max_sweeps), sweep, begin)
    return factors, error, count


def _grams(factor: Array, seen: Array | None) -> Float[Array, "starts rank rank animals"]:
    """`factorᵀ factor` over the rows (size, animals) that each animal has; of one animal where all have all."""
    if seen is None:
        return jnp.einsum("srn,sqn->srq", factor, factor)[..., None]
    return jnp.einsum("nw,srn,sqn->srqw", seen, factor, factor)


def _time_gram(animal: Array, pair_grams: Array, seen: tuple[Array, Array] | None) -> Float[Array, "starts rank rank frames"]:
    """The normal matrix of each frame; one of all where nothing is missing."""
    if seen is None:
        return jnp.einsum("srw,sqw->srq", animal, animal)[..., None] * pair_grams
    return jnp.einsum("tw,srw,sqw,srqw->srqt", seen[0], animal, animal, pair_grams)


def _pair_gram(animal: Array, frames_grams: Array, seen: tuple[Array, Array] | None) -> Float[Array, "starts rank rank pairs"]:
    """The normal matrix of each pair; one of all where nothing is missing."""
    if seen is None:
        return jnp.einsum("srw,sqw->srq", animal, animal)[..., None] * frames_grams
    return jnp.einsum("wp,srw,sqw,srqw->srqp", seen[1], animal, animal, frames_grams)


def _square(time: Array, animal: Array, pair: Array, seen: tuple[Array, Array] | None) -> Float[Array, " starts"]:
    """Sums of squares of what the components add up to, where it is seen, in float64."""
    time, animal, pair = (each.astype(float) for each in (time, animal, pair))
    grams = _grams(time, seen and seen[0]) * _grams(pair, seen and seen[1].T)
    if seen is None:
        return jnp.sum(_time_gram(animal, grams, None), axis=(1, 2, 3))
    return jnp.einsum("srw,sqw,srqw->s", animal, animal, grams)


def _times(factor: Array, gram: Array) -> Array:
    """Each row times its normal matrix."""
    return jnp.sum(factor[:, :, None] * gram, axis=1)


PASSES = 2
"""Over the columns at each update: they cost little beside the products with the tensor."""


def _hals(factor: Array, target: Array, gram: Array) -> Array:
    """Component by component the best values from 0 on, the others held."""
    rank = factor.shape[1]

    def component(k: Any, factor: Array) -> Array:
        r = k % rank
        row = jax.lax.dynamic_index_in_dim(gram, r, axis=2, keepdims=False)
        now, wanted, curvature = (
            jax.lax.dynamic_index_in_dim(each, r, axis=1, keepdims=False) for each in (factor, target, row)
        )
        others = sum(factor[:, q] * row[:, q] for q in range(rank))  # XLA's own sum over so few is 25 times slower
        best = now + (wanted - others) / jnp.maximum(curvature, TINY)
        return jax.lax.dynamic_update_index_in_dim(factor, jnp.maximum(best, 0), r, axis=1)

    return jax.lax.fori_loop(0, PASSES * rank, component, factor)


def _multiply(factor: Array, target: Array, gram: Array) -> Array:
    """Lee and Seung's update."""
    return factor * target / jnp.maximum(_times(factor, gram), TINY)


def _rescale(time: Array, animal: Array, pair: Array) -> tuple[Array, Array, Array]:
    """Components of length 1 in time and animals, so that no factor runs away."""
    for factor in (time, animal):
        pair = pair * jnp.linalg.norm(factor, axis=2)[:, :, None]
    return _unit(time), _unit(animal), pair


def _unit(factor: Array) -> Array:
    return factor / jnp.maximum(jnp.linalg.norm(factor, axis=2)[:, :, None], TINY)


def time_curves(given: Given, animal: np.ndarray, pair: np.ndarray, passes: int = 200) -> Float[np.ndarray, "frames rank"]:
    """The best time curves from 0 on for given loadings of animals and patterns of pairs."""
    given_animal, given_pair = jnp.asarray(animal.T, jnp.float32)[None], jnp.asarray(pair.T, jnp.float32)[None]
    return np.asarray(_solve_time(*_on_device(given), given_animal, given_pair, passes)[0].T, np.float64)


@jax.jit
def _solve_time(A: Array, seen: tuple[Array, Array] | None, animal: Array, pair: Array, passes: Array) -> Array:
    gram = _time_gram(animal, _grams(pair, seen and seen[1].T), seen)
    target = jnp.einsum("twsr,srw->srt", jnp.einsum("twp,srp->twsr", A, pair), animal)
    return jax.lax.fori_loop(0, passes, lambda _, time: _hals(time, target, gram), jnp.zeros_like(target))
