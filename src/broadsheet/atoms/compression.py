"""Choosing few structures that keep all environments, arXiv 2511.10561: greedy minimum set cover, and what it is compared
with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from broadsheet.atoms.environments import BANDWIDTH, EnvironmentSet, describe_all, log_density
from broadsheet.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

Method = Literal["cover", "random", "mean_fps", "k_means", "fps", "environment_fps", "novelty_mean", "entropy", "cover_mean"]
UNDERFLOW = 745.1332191019412
"""Exponents from which exp(-x) is 0 in float64."""


class Selection(NamedTuple):
    """Places of the chosen structures in the order in which they were picked, and for `cover` the novelty of each pick: the
    dH of its most novel environment given the picks before, infinite for the first.
    """

    indices: Int[np.ndarray, " chosen"]
    novelty: Float[np.ndarray, " chosen"] | None = None


def structure_entropies(environments: EnvironmentSet, h: float = BANDWIDTH) -> Float[np.ndarray, " structures"]:
    """Entropy of each structure by itself, nats."""
    first = np.searchsorted(environments.owner, np.arange(environments.structures + 1))
    counts = np.diff(first)
    found = np.zeros(len(counts))
    for size in np.unique(counts):  # structures of one size are one array
        for part in np.array_split(np.flatnonzero(counts == size), max(1, (counts == size).sum() * size**2 // 2_000_000)):
            rows = environments.X[first[part][:, None] + np.arange(size)]
            with jax.enable_x64(True):
                found[part] = np.asarray(_own_entropies(rows, np.float64(1 / (2 * h**2))))
    return found


@jax.jit
def _own_entropies(rows: jax.Array, scale: jax.Array) -> jax.Array:
    centred = rows - jnp.mean(rows, axis=1, keepdims=True)
    square = jnp.sum(centred**2, axis=2)
    distance = square[:, :, None] + square[:, None] - 2 * centred @ jnp.swapaxes(centred, 1, 2)
    density = jnp.sum(jnp.exp(-scale * jnp.maximum(distance, 0)), axis=2)
    return jnp.log(rows.shape[1]) - jnp.mean(jnp.log(density), axis=1)


def select(
    environments: EnvironmentSet,
    size: int,
    method: Method = "cover",
    *,
    reference: Float[np.ndarray, "known features"] | None = None,
    h: float = BANDWIDTH,
    seed: int = 0,
    underflow: bool = False,
    report: Callable[[float], None] | None = None,
) -> Selection:
    """`size` of the structures.

    - "cover": the structure whose most novel environment is the most novel, its own entropy added (the paper's method); the
      first is the one of largest entropy. With `reference` environments, novelty is counted from those from the start.
    - "random"; "mean_fps": farthest points of the structures' mean descriptors, the first at random; "k_means": one of each
      of `size` clusters of the mean descriptors; "fps": farthest structures by the mean distance of their environments;
      "environment_fps": the structure whose farthest environment is the farthest from all chosen, by plain distance.
    - "novelty_mean": as "cover", by the mean novelty of a structure's environments; "entropy": the structures of largest
      entropy, without any novelty; "cover_mean": the distance of "fps" times the structure's entropy.

    **Arguments:** `underflow`: novelties above 745 are infinite and tie, as in the authors' code, where the kernel underflows;
    `report`: called with the share done.

    **Raises:** `InputError` where there are not as many structures.
    """
    count = environments.structures
    if not 1 <= size <= count:
        raise InputError(f"{size} of {count} structures cannot be chosen.")
    if method not in get_args(Method):
        raise InputError(f"{method!r} is no way to choose; {', '.join(get_args(Method))} are.")
    if reference is not None and method != "cover":
        raise InputError(f"Only 'cover' takes reference environments; {method!r} does not.")
    rng = np.random.default_rng(seed)
    if method in ("cover", "novelty_mean"):
        return _cover(environments, size, reference, h, underflow, method == "novelty_mean", report)
    if method == "random":
        return Selection(rng.choice(count, size, replace=False))
    if method == "entropy":
        return Selection(np.argsort(-structure_entropies(environments, h), kind="stable")[:size])
    if method == "environment_fps":
        return Selection(_farthest_environments(environments, size, h))
    if method in ("fps", "cover_mean"):
        return Selection(_farthest_structures(environments, size, h, method == "cover_mean"))
    counts = np.bincount(environments.owner, minlength=count)
    means = np.zeros((count, environments.X.shape[1]))
    np.add.at(means, environments.owner, environments.X)
    means /= counts[:, None]
    return Selection(_farthest_points(means, size, rng) if method == "mean_fps" else _clusters(means, size, rng, seed))


def _cover(
    environments: EnvironmentSet, size: int, reference: np.ndarray | None, h: float, underflow: bool, mean: bool,
    report: Callable[[float], None] | None,
) -> Selection:  # fmt: skip
    own = structure_entropies(environments, h)
    first = np.searchsorted(environments.owner, np.arange(environments.structures + 1))
    longest = int(np.diff(first).max())
    centre = environments.X.mean(axis=0)
    X = np.concatenate([environments.X - centre, np.zeros((longest, environments.X.shape[1]))])
    known = np.full(len(X), -np.inf)
    free = np.ones(environments.structures, bool)
    picks, trace = [], []
    if reference is not None and len(reference):
        known[: len(environments.X)] = log_density(environments.X, reference, h)
    else:
        picks, trace = [int(own.argmax())], [np.inf]
        free[picks[0]] = False
    with jax.enable_x64(True):
        state = (jnp.asarray(known), jnp.asarray(free), jnp.asarray(picks[0] if picks else -1))
        arrays = tuple(jnp.asarray(part) for part in (X, environments.owner, first, own))
        scale, cap = np.float64(1 / (2 * h**2)), np.float64(UNDERFLOW if underflow else np.inf)
        while len(picks) < size:
            steps = min(64, size - len(picks))
            state, (chosen, gained) = _pick(*arrays, state, scale, cap, np.int32(steps), longest, mean)
            picks += np.asarray(chosen)[:steps].tolist()
            trace += np.asarray(gained)[:steps].tolist()
            if report is not None:
                report(len(picks) / size)
    return Selection(np.array(picks), np.array(trace))


@partial(jax.jit, static_argnums=(8, 9))
def _pick(
    X: jax.Array, owner: jax.Array, first: jax.Array, own: jax.Array, state: tuple, scale: jax.Array, cap: jax.Array,
    steps: jax.Array, longest: int, mean: bool,
) -> tuple[tuple, tuple[jax.Array, jax.Array]]:  # fmt: skip
    """Up to 64 picks: each adds the newest structure's kernels to what is known of all environments."""
    n, square = len(owner), jnp.sum(X**2, axis=1)

    def one(k: jax.Array, carry: tuple) -> tuple:
        (known, free, newest), chosen, gained = carry
        begin = first[jnp.maximum(newest, 0)]
        new, norms = jax.lax.dynamic_slice_in_dim(X, begin, longest), jax.lax.dynamic_slice_in_dim(square, begin, longest)
        real = (jnp.arange(longest) < first[newest + 1] - begin) & (newest >= 0)
        exponent = -scale * jnp.maximum(square + norms[:, None] - 2 * new @ X.T, 0)
        known = jnp.logaddexp(known, jax.nn.logsumexp(jnp.where(real[:, None], exponent, -jnp.inf), axis=0))
        if mean:
            novelty = jax.ops.segment_sum(-known[:n], owner, len(own), indices_are_sorted=True) / jnp.diff(first)
        else:
            novelty = jax.ops.segment_max(-known[:n], owner, len(own), indices_are_sorted=True)
        novelty = jnp.where(novelty > cap, jnp.inf, novelty)
        best = jnp.argmax(jnp.where(free, novelty + own, -jnp.inf))
        return (known, free.at[best].set(False), best), chosen.at[k].set(best), gained.at[k].set(novelty[best])

    start = state, jnp.zeros(64, state[2].dtype), jnp.zeros(64)
    state, chosen, gained = jax.lax.fori_loop(0, steps, one, start)
    return state, (chosen, gained)


def _farthest_structures(environments: EnvironmentSet, size: int, h: float, times_entropy: bool) -> np.ndarray:
    """Farthest-point sampling where two structures' distance is the mean over all pairs of their environments."""
    own, counts = structure_entropies(environments, h), np.bincount(environments.owner)
    first = np.concatenate([[0], np.cumsum(counts)])
    X, square = environments.X, (environments.X**2).sum(axis=1)
    picks, nearest = [int(own.argmax())], np.full(environments.structures, np.inf)
    while len(picks) < size:
        rows = slice(first[picks[-1]], first[picks[-1] + 1])
        apart = np.sqrt(np.maximum(square + square[rows][:, None] - 2 * X[rows] @ X.T, 0)).mean(axis=0)
        nearest = np.minimum(nearest, np.add.reduceat(apart, first[:-1]) / counts)
        score = nearest * own if times_entropy else nearest.copy()
        score[picks] = -np.inf
        picks.append(int(score.argmax()))
    return np.array(picks)


def _farthest_environments(environments: EnvironmentSet, size: int, h: float) -> np.ndarray:
    """Farthest-point sampling where a structure is as far as the environment of it that is farthest from all chosen."""
    first = np.searchsorted(environments.owner, np.arange(environments.structures + 1))
    X = environments.X - environments.X.mean(axis=0)
    square = (X**2).sum(axis=1)
    picks, nearest = [int(structure_entropies(environments, h).argmax())], np.full(len(X), np.inf)
    while len(picks) < size:
        rows = slice(first[picks[-1]], first[picks[-1] + 1])
        nearest = np.minimum(nearest, np.maximum(square + square[rows][:, None] - 2 * X[rows] @ X.T, 0).min(axis=0))
        score = np.maximum.reduceat(nearest, first[:-1])
        score[picks] = -np.inf
        picks.append(int(score.argmax()))
    return np.array(picks)


def _farthest_points(means: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    picks, nearest = [int(rng.integers(len(means)))], np.full(len(means), np.inf)
    while len(picks) < size:
        nearest = np.minimum(nearest, np.linalg.norm(means - means[picks[-1]], axis=1))
        nearest[picks] = -np.inf
        picks.append(int(nearest.argmax()))
    return np.array(picks)


def _clusters(means: np.ndarray, size: int, rng: np.random.Generator, seed: int) -> np.ndarray:
    """One member of each cluster; where clusters are fewer than asked for (equal structures), the rest at random."""
    from sklearn.cluster import KMeans

    distinct = len(np.unique(means.round(12), axis=0))
    labels = KMeans(min(size, distinct), n_init=1, random_state=seed % 2**32).fit_predict(means)
    picks = [int(rng.choice(np.flatnonzero(labels == k))) for k in np.unique(labels)]
    rest = np.setdiff1d(np.arange(len(means)), picks)
    return np.concatenate([picks, rng.choice(rest, size - len(picks), replace=False)]).astype(int)


def fractions_curve(
    environments: EnvironmentSet, chosen: Mapping[int, Int[np.ndarray, " chosen"]], sizes: Sequence[int], h: float = BANDWIDTH
) -> tuple[np.ndarray, np.ndarray]:
    """(entropy, diversity) in nats of what was chosen at each size."""
    from scipy.special import logsumexp

    found = []
    for size in sizes:
        part = environments.of(chosen[size]).X
        density = log_density(part, part, h)
        found.append((np.log(len(part)) - density.mean(), logsumexp(-density)))
    return np.array(found)[:, 0], np.array(found)[:, 1]


def best_size(environments: EnvironmentSet, order: Int[np.ndarray, " chosen"], grid: int = 12, h: float = BANDWIDTH) -> int:
    """How many of the first structures of a selection have the largest entropy times diversity.

    Tried from a single structure to the whole selection, `grid` sizes evenly on a logarithmic scale, then as many between the
    neighbours of the best. The whole selection is the answer where the product still rises there: nothing is redundant.

    **Raises:** `InputError` for fewer than 3 sizes.
    """
    if grid < 3:
        raise InputError(f"best_size: {grid} sizes are tried; at least 3 are wanted.")
    tried: dict[int, float] = {}
    low, high = 1, len(order)
    for _ in range(2):
        new = np.unique(np.geomspace(low, high, grid).round().astype(int)).tolist()
        new = [size for size in new if size not in tried]
        if new:
            have = fractions_curve(environments, {size: order[:size] for size in new}, new, h)
            tried |= dict(zip(new, (have[0] * have[1]).tolist(), strict=True))
        sizes = sorted(tried)
        best = int(np.argmax([tried[size] for size in sizes]))
        low, high = sizes[max(best - 1, 0)], sizes[min(best + 1, len(sizes) - 1)]
    return sizes[best]


def compress(
    structures: Sequence[Atoms],
    fraction: float | Literal["auto"] = "auto",
    method: Method = "cover",
    *,
    neighbours: int = 32,
    cutoff: float = 5.0,
    elements: Sequence[str] | None = None,
    h: float = BANDWIDTH,
    seed: int = 0,
) -> Selection:
    """A fraction of the structures, rounded up; "auto" takes the size at which entropy times diversity is largest.

    With `elements` environments that differ by an element only count as different (see `describe`).

    **Raises:** `InputError` for a fraction that is not in (0, 1].
    """
    if fraction != "auto" and not 0 < fraction <= 1:
        raise InputError(f"compress: the fraction is {fraction}; a number above 0 and up to 1, or 'auto', is wanted.")
    environments = describe_all(structures, neighbours, cutoff, elements=elements)
    count = environments.structures
    size = count if fraction == "auto" else int(np.ceil(fraction * count))
    found = select(environments, size, method, h=h, seed=seed)
    if fraction != "auto":
        return found
    best = best_size(environments, found.indices, h=h)
    return Selection(found.indices[:best], None if found.novelty is None else found.novelty[:best])
