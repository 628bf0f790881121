"""Sparse distributed representations: how often a dendritic segment is right or wrong, exactly.

arXiv 1601.00720. A population of n cells, a of them active; a segment with s synapses, all on cells of the pattern it
stores, emits an NMDA spike when at least theta of them see active cells. All functions broadcast, and take and return
NumPy arrays; probabilities are summed in log space, `log=True` gives natural logarithms (they reach below 1e-300).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.special import gammaln, logsumexp

from broadsheet.errors import InputError
from broadsheet.numerics import generator

Integers = Any
Numbers = np.ndarray | np.floating
"""An array of the broadcast shape; a NumPy scalar where all arguments are numbers."""


def false_match(n: Integers, a: Integers, s: Integers, theta: Integers, *, log: bool = False) -> Numbers:
    """Probability that a segment fires on a uniformly random pattern.

    `sum_{b=theta}^{min(s,a)} C(s,b) C(n-s,a-b) / C(n,a)`; `s = a` is the match of whole patterns, `theta = s` the exact
    one. 0 where theta exceeds s or a.

    **Raises:** `InputError` where s or a exceed n or an argument is negative.
    """
    n, a, s, theta = _integers(n=n, a=a, s=s, theta=theta)
    if (a > n).any() or (s > n).any():
        raise InputError("A population of n cells cannot have more than n active cells or synapses.")
    top = np.minimum(s, a)
    offsets = np.arange(int(np.max(top - theta, initial=0)) + 1)
    b = theta[..., None] + offsets
    terms = _log_choose(s[..., None], b) + _log_choose((n - s)[..., None], a[..., None] - b)
    terms = terms - _log_choose(n, a)[..., None]
    return _sum_of_terms(np.where(b <= top[..., None], terms, -np.inf), log)


def false_negative(a: Integers, s: Integers, theta: Integers, v: Integers, *, log: bool = False) -> Numbers:
    """Probability that a segment misses its own pattern when noise has switched v of the a active cells off.

    `sum_{b=s-theta+1}^{min(s,v)} C(s,b) C(a-s,v-b) / C(a,v)`: at least s - theta + 1 synapses are lost. Lucky hits by
    cells that noise switched on are left out, so n does not matter.

    **Raises:** `InputError` where s or v exceed a, or theta exceeds s.
    """
    a, s, theta, v = _integers(a=a, s=s, theta=theta, v=v)
    if (s > a).any() or (v > a).any() or (theta > s).any():
        raise InputError("A segment has theta <= s <= a, and noise removes at most the a active cells.")
    top = np.minimum(s, v)
    first = s - theta + 1
    b = first[..., None] + np.arange(int(np.max(top - first, initial=0)) + 1)
    terms = _log_choose(s[..., None], b) + _log_choose((a - s)[..., None], v[..., None] - b)
    terms = terms - _log_choose(a, v)[..., None]
    return _sum_of_terms(np.where(b <= top[..., None], terms, -np.inf), log)


def any_segment(probability: Any, segments: Integers) -> Numbers:
    """Probability that at least one of independent segments fires: `1 - (1 - p)^D`, exact for tiny p."""
    return -np.expm1(np.asarray(segments) * np.log1p(-np.asarray(probability, float)))


def union_synapses(n: Integers, s: Integers, M: Integers) -> Numbers:
    """Expected number of distinct synapses of a segment that stores M sub-sampled patterns: `n (1 - (1 - s/n)^M)`."""
    n, s, M = _integers(n=n, s=s, M=M)
    return -n * np.expm1(M * np.log1p(-s / n))


def union_activity(n: Integers, a: Integers, M: Integers) -> Numbers:
    """Expected number of cells active in a union of M patterns: `n (1 - (1 - a/n)^M)`."""
    return union_synapses(n, a, M)


def threshold_grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The grid of (n, a, s) over which a threshold has to work: 5 populations, sparsity 0.5 to 3 %, 20 to 50 synapses."""
    sparsity = np.arange(1, 7) * 0.005
    n, share, s = np.meshgrid([1000, 5000, 9000, 13000, 17000], sparsity, np.arange(20, 51, 5), indexing="ij")
    return n.ravel(), np.floor(share * n + 0.5).astype(int).ravel(), s.ravel()


def median_false_match(theta: Integers, grid: tuple | None = None) -> np.ndarray:
    """Median over a grid of (n, a, s), by default `threshold_grid()`, of the false match probability at each theta."""
    n, a, s = threshold_grid() if grid is None else grid
    theta = np.atleast_1d(np.asarray(theta))
    return np.median(false_match(n, a, s, theta[:, None]), axis=1)


def optimal_theta(target: float = 1e-9, grid: tuple | None = None, largest: int = 24) -> int:
    """Smallest threshold whose median false match over the grid is below `target`; `largest + 1` where none is."""
    theta = np.arange(1, largest + 1)
    below = np.flatnonzero(median_false_match(theta, grid) < target)
    return int(theta[below[0]]) if len(below) else largest + 1


class SDR:
    """One sparse pattern: n cells, the indices of the active ones (sorted)."""

    def __init__(self, n: int, idx: Any) -> None:
        self.n, self.idx = int(n), np.unique(np.asarray(idx, int))
        if len(self.idx) and not 0 <= self.idx[0] <= self.idx[-1] < n:
            raise InputError(f"Active cells lie in 0…{n - 1}; got {self.idx[0]}…{self.idx[-1]}.")

    def __len__(self) -> int:
        return len(self.idx)

    def overlap(self, other: SDR) -> int:
        """Number of cells active in both."""
        return len(np.intersect1d(self.idx, other.idx, assume_unique=True))

    def __or__(self, other: SDR) -> SDR:
        """The union: both patterns at once."""
        return SDR(self.n, np.union1d(self.idx, other.idx))

    def dense(self) -> np.ndarray:
        """The pattern as booleans (n,)."""
        return to_dense(self.n, self.idx[None])[0]


def random_sdrs(key: Any, n: int, a: int, count: int) -> Int[np.ndarray, "count a"]:
    """Uniformly random subsets of a out of n cells, one a row (Floyd's algorithm, all rows at once).

    **Arguments:** `key`: a JAX key, an integer or a NumPy generator.
    """
    if not 0 <= a <= n:
        raise InputError(f"{a} active cells out of {n} are not possible.")
    rng = generator(key)
    out = np.empty((count, a), np.int32)
    block = max(1, 60_000_000 // n)
    for start in range(0, count, block):
        rows = np.arange(min(block, count - start))
        taken = np.zeros((len(rows), n), bool)
        for k, j in enumerate(range(n - a, n)):
            pick = rng.integers(0, j + 1, len(rows), dtype=np.int32)
            pick = np.where(taken[rows, pick], j, pick)
            taken[rows, pick] = True
            out[start : start + len(rows), k] = pick
    return out


def sample_columns(key: Any, idx: Int[np.ndarray, "count a"], size: int) -> Int[np.ndarray, "count size"]:
    """`size` of the columns of each row, at random without repetition: a segment's synapses on its pattern."""
    rng = generator(key)
    order = random_sdrs(rng, idx.shape[1], size, len(idx))
    return np.take_along_axis(idx, order, axis=1)


def noise(key: Any, idx: Int[np.ndarray, "count a"], frac: float, n: int) -> Int[np.ndarray, "count a"]:
    """Switches `round(frac a)` active cells of each pattern off and as many others on: sparsity is kept."""
    rng = generator(key)
    count, a = idx.shape
    lost = int(np.floor(frac * a + 0.5))
    if a + lost > n:
        raise InputError(f"{lost} other cells to switch on are not there: n = {n}, a = {a}.")
    ordered = sample_columns(rng, idx, a)
    out = ordered.copy()
    taken = to_dense(n, idx)
    rows = np.arange(count)
    for k in range(lost):
        extra = rng.integers(0, n, size=rows.shape)
        while (clash := taken[rows, extra]).any():
            extra = np.where(clash, rng.integers(0, n, size=rows.shape), extra)
        taken[rows, extra] = True
        out[:, k] = extra
    return out


def to_dense(n: int, idx: Int[np.ndarray, "count a"]) -> np.ndarray:
    """Patterns as booleans (count, n)."""
    dense = np.zeros((len(idx), n), bool)
    np.put_along_axis(dense, np.asarray(idx, np.int64), True, axis=1)
    return dense


def to_csr(n: int, idx: Int[np.ndarray, "count a"]) -> sparse.csr_array:
    """Patterns as a sparse binary matrix (count, n)."""
    count, a = idx.shape
    ones = np.ones(count * a, np.float32)
    return sparse.csr_array((ones, idx.ravel().astype(np.int32), np.arange(0, count * a + 1, a)), shape=(count, n))


def overlaps(
    n: int, patterns: Int[np.ndarray, "count a"], segments: Int[np.ndarray, "segments s"]
) -> Float[np.ndarray, "count segments"]:
    """How many synapses of each segment see an active cell, for each pattern."""
    return (to_csr(n, patterns) @ to_csr(n, segments).T).toarray()


def _integers(**values: Any) -> list[np.ndarray]:
    arrays = []
    for name, value in values.items():
        array = np.asarray(value)
        if array.dtype.kind == "f" and (array == np.round(array)).all():
            array = array.astype(np.int64)
        if array.dtype.kind not in "iu" or (array < 0).any():
            raise InputError(f"{name} is {value!r}; whole numbers from 0 are wanted.")
        arrays.append(array)
    return list(np.broadcast_arrays(*arrays))


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """ln C(n, k); -inf outside 0 <= k <= n."""
    inside = (k >= 0) & (k <= n)
    n, k = np.broadcast_arrays(n, np.where(inside, k, 0))
    value = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return np.where(inside, value, -np.inf)


def _sum_of_terms(terms: np.ndarray, log: bool) -> Numbers:
    with np.errstate(divide="ignore"):
        total = np.minimum(logsumexp(terms, axis=-1), 0.0)
    return total if log else np.exp(total)
