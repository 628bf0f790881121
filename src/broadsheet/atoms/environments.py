"""Atom-centred environments as vectors, and the information in sets of them, arXiv 2511.10561 (dskoda/quests, BSD-3-Clause).

Descriptors are in 1/Å, information is in nats. Everything is in float64, whatever JAX's default is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from broadsheet.atoms.neighbours import pairs, refuse_overlap
from broadsheet.atoms.structures import check_structure
from broadsheet.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

BANDWIDTH = 0.015
"""1/Å; the authors' width of the kernel."""
BLOCK = 1024
TIE = 1e-8
"""Relative; distances closer than this are one shell."""


class EnvironmentSet(NamedTuple):
    """Descriptors of environments (1/Å), and which structure each belongs to, in the structures' order."""

    X: Float[np.ndarray, "environments features"]
    owner: Int[np.ndarray, " environments"]

    @property
    def structures(self) -> int:
        return int(self.owner[-1]) + 1 if len(self.owner) else 0

    def of(self, chosen: Sequence[int] | Int[np.ndarray, " chosen"]) -> EnvironmentSet:
        """The environments of these structures, which are numbered again in this order."""
        first = np.searchsorted(self.owner, np.arange(self.structures + 1))
        rows = [np.arange(first[k], first[k + 1]) for k in chosen]
        owner = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
        return EnvironmentSet(self.X[np.concatenate(rows)], owner)


def describe(
    structure: Atoms,
    neighbours: int = 32,
    cutoff: float = 5.0,
    *,
    whole_shells: bool = True,
    elements: Sequence[str] | None = None,
) -> Float[np.ndarray, "atoms features"]:
    """Descriptors of all atoms of a structure: 2 `neighbours` - 1 numbers each, 1/Å.

    First w(r)/r of the nearest neighbours, with w(r) = (1 - (r/cutoff)^2)^2; then the mean over these neighbours of their own
    ranked nearness to each other, sqrt(w(r_j) w(r_l))/r_jl. Turning, shifting and renumbering a structure leave them;
    elements do not enter unless they are given. Images count along periodic directions (in the authors' code only where all
    three are periodic).

    **Arguments:** `whole_shells`: where the last shell would be cut, the mean goes over all of it, so that the descriptor
    does not depend on the order in which equal distances are sorted; without, as in the authors' code. Without such ties both
    are equal. `elements`: symbols of all elements that occur; the same numbers follow once more for each of them with its
    atoms alone as neighbours, then a 1 in the place of the atom's own. (The authors' experimental form has the atoms of one
    element among themselves only: distances between unlike atoms enter it without their elements.)

    **Raises:** `InputError` for fewer than 2 neighbours, a cutoff that is not positive, or an atom of another element.
    """
    return describe_all([structure], neighbours, cutoff, whole_shells=whole_shells, elements=elements).X


def describe_all(
    structures: Iterable[Atoms],
    neighbours: int = 32,
    cutoff: float = 5.0,
    *,
    whole_shells: bool = True,
    elements: Sequence[str] | None = None,
) -> EnvironmentSet:
    """Descriptors of all atoms of all structures, which may come from a generator: only descriptors are kept.

    **Raises:** `InputError` as `describe`, naming the structure, and for atoms that lie on each other.
    """
    if neighbours < 2 or not cutoff > 0:
        raise InputError(f"describe: {neighbours} neighbours and a cutoff of {cutoff:g} Å; at least 2 and above 0 are wanted.")
    if elements is not None and (not len(elements) or len(set(elements)) < len(elements)):
        raise InputError(f"describe: the elements are {list(elements)}; each that occurs, once, is wanted.")
    parts, sizes, owns = [], [], []
    waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for k, structure in enumerate(structures):
        check_structure(structure, f"structure {k}")
        waiting.append(_near(structure, neighbours, cutoff, whole_shells, name=f"structure {k}"))
        if elements is not None:
            symbols = structure.get_chemical_symbols()
            if not set(symbols) <= set(elements):
                raise InputError(f"describe: structure {k} has {sorted(set(symbols) - set(elements))}; not among the elements.")
            own = np.array([list(elements).index(symbol) for symbol in symbols])
            waiting += [_near(structure, neighbours, cutoff, whole_shells, own == which) for which in range(len(elements))]
            owns.append(own)
        sizes.append(len(structure))
        if sum(len(each[0]) for each in waiting) >= BLOCK:
            parts.append(_descriptors(waiting, neighbours, cutoff))
            waiting = []
    if waiting:
        parts.append(_descriptors(waiting, neighbours, cutoff))
    if not parts:
        raise InputError("There are no structures to describe.")
    X, owner = np.concatenate(parts), np.repeat(np.arange(len(sizes)), sizes)
    if elements is None:
        return EnvironmentSet(X, owner)
    each = np.split(X, (1 + len(elements)) * np.cumsum(sizes)[:-1])  # of a structure all, then with one element after another
    X = np.concatenate([np.hstack(np.split(rows, 1 + len(elements))) for rows in each])
    return EnvironmentSet(np.concatenate([X, np.eye(len(elements))[np.concatenate(owns)]], axis=1), owner)


def _near(
    structure: Atoms, k: int, cutoff: float, whole: bool, among: np.ndarray | None = None, name: str = "the structure"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances and vectors of the nearest neighbours of each atom, nearest first, and how many there are; `among`: which
    atoms can be neighbours.
    """
    n = len(structure)
    i, j, shifts, r = pairs(structure.positions, structure.cell.array, structure.pbc, cutoff, name)
    refuse_overlap(i, j, r, name)
    if among is not None:
        i, j, shifts, r = (each[among[j]] for each in (i, j, shifts, r))
    order = np.lexsort((r, i))
    i, j, shifts, r = i[order], j[order], shifts[order], r[order]
    counts = np.bincount(i, minlength=n)
    slot = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
    last = np.full(n, np.inf)
    full = counts > k
    last[full] = r[(np.cumsum(counts) - counts)[full] + k - 1]
    keep = slot < k
    if whole:
        keep |= r <= last[i] * (1 + TIE)
    i, j, shifts, r, slot = i[keep], j[keep], shifts[keep], r[keep], slot[keep]
    width = max(k, int(slot.max(initial=0)) + 1)
    distances, vectors = np.full((n, width), np.inf), np.zeros((n, width, 3))
    distances[i, slot] = r
    vectors[i, slot] = structure.positions[j] + shifts @ structure.cell.array - structure.positions[i]
    return distances, vectors, np.bincount(i, minlength=n)


def _descriptors(near: list[tuple[np.ndarray, np.ndarray, np.ndarray]], k: int, cutoff: float) -> np.ndarray:
    width = max(each[0].shape[1] for each in near)
    r = np.concatenate([np.pad(each[0], ((0, 0), (0, width - each[0].shape[1])), constant_values=np.inf) for each in near])
    vectors = np.concatenate([np.pad(each[1], ((0, 0), (0, width - each[1].shape[1]), (0, 0))) for each in near])
    counts = np.concatenate([each[2] for each in near])
    found = np.empty((len(r), 2 * k - 1))
    weight = (1 - (np.minimum(r, cutoff) / cutoff) ** 2) ** 2
    found[:, :k] = (weight / r)[:, :k]

    def rank(start: int) -> None:
        rows = slice(start, start + 128)
        v, root = vectors[rows], np.sqrt(weight[rows])
        square = np.sum((v[:, :, None] - v[:, None, :]) ** 2, axis=-1)
        np.einsum("njj->nj", square)[...] = np.inf
        square[square == 0] = np.inf  # padding lies on padding
        ranked = root[:, :, None] * root[:, None, :] / np.sqrt(square)
        ranked.sort(axis=2)
        found[rows, k:] = ranked[:, :, ::-1][:, :, : k - 1].sum(axis=1)

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # NumPy lets go of the interpreter in all of these
        list(threads.map(rank, range(0, len(r), 128)))
    found[:, k:] /= np.maximum(k, counts)[:, None]
    return found


def bandwidth(volume: float, rule: Literal["gaussian", "cutoff"] = "gaussian") -> float:
    """The authors' width of the kernel (1/Å) for a volume an atom (Å^3)."""
    if not volume > 0:
        raise InputError(f"bandwidth: the volume is {volume} Å^3; it must be above 0.")
    if rule == "gaussian":
        return float(0.0897141 * np.exp(-0.5 * (volume / 10.896) ** 2) + 0.0119417)
    z, limit = np.log(volume) ** 2, 11.61172
    return float(0.086164 * (1 - (min(z, limit) / limit) ** 2) ** 2 + 0.016)


@jax.jit
def _log_sums(Y: jax.Array, X: jax.Array, real: jax.Array, scale: jax.Array) -> jax.Array:
    """log sum over x of exp(-|y - x|^2 scale), for blocks of y against blocks of x."""

    def against(y: jax.Array) -> jax.Array:
        square = jnp.sum(y**2, axis=1)[:, None]

        def add(carry: tuple[jax.Array, jax.Array], block: tuple[jax.Array, jax.Array]) -> tuple[tuple, None]:
            x, mask = block
            exponent = -scale * jnp.maximum(square + jnp.sum(x**2, axis=1) - 2 * y @ x.T, 0)
            exponent = jnp.where(mask, exponent, -jnp.inf)
            top = jnp.maximum(carry[0], jnp.max(exponent, axis=1))
            total = carry[1] * jnp.exp(carry[0] - top) + jnp.sum(jnp.exp(exponent - top[:, None]), axis=1)
            return (top, total), None

        start = jnp.full(len(y), -1e300), jnp.zeros(len(y))
        (top, total), _ = jax.lax.scan(add, start, (X, real))
        return top + jnp.log(total)

    return jax.lax.map(against, Y)


def _blocks(X: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in blocks, and which are real. The number of blocks is rounded up, so that few shapes are compiled."""
    count = -(-len(X) // size)
    count = count if count <= 8 else -(-count // 8) * 8
    padded = np.zeros((count * size, X.shape[1]))
    padded[: len(X)] = X
    return padded.reshape(count, size, -1), (np.arange(count * size) < len(X)).reshape(count, size)


def log_density(
    Y: Float[np.ndarray, "m features"], X: Float[np.ndarray, "n features"], h: float = BANDWIDTH
) -> Float[np.ndarray, " m"]:
    """log of the sum over X of exp(-|y - x|^2 / 2h^2): 0 for one equal environment. Far ones stay ranked, nothing underflows.

    Blockwise, so that memory does not grow with the product of the sizes.

    **Raises:** `InputError` for a width that is not positive, or features that do not match or are not finite.
    """
    Y, X = np.asarray(Y, float), np.asarray(X, float)
    if not h > 0:
        raise InputError(f"The kernel's width is {h}; it must be above 0.")
    if Y.ndim != 2 or X.ndim != 2 or Y.shape[1] != X.shape[1] or not len(X):
        raise InputError(
            f"Environments of the shapes {Y.shape} and {X.shape}; (any, features) of both, and not none, are wanted."
        )
    if not np.isfinite(Y).all() or not np.isfinite(X).all():
        raise InputError("Environments must be finite.")
    size = min(BLOCK, max(8, 1 << int(np.ceil(np.log2(max(len(X), len(Y), 1))))))
    centre = X.mean(axis=0)  # small numbers keep the digits of small distances
    (ys, _), (xs, real) = _blocks(Y - centre, size), _blocks(X - centre, size)
    with jax.enable_x64(True):
        found = np.asarray(_log_sums(ys, xs, real, np.float64(1 / (2 * h**2))))
    return found.reshape(-1)[: len(Y)]


def entropy(X: Float[np.ndarray, "n features"], h: float = BANDWIDTH) -> float:
    """-mean log(p/n), p the density of the set at its own members: 0 if all are equal, log n if all are far apart."""
    return float(np.log(len(X)) - log_density(X, X, h).mean())


def diversity(X: Float[np.ndarray, "n features"], h: float = BANDWIDTH) -> float:
    """log sum 1/p: the logarithm of the number of distinct environments."""
    from scipy.special import logsumexp

    return float(logsumexp(-log_density(X, X, h)))


def novelty(
    Y: Float[np.ndarray, "m features"], X: Float[np.ndarray, "n features"], h: float = BANDWIDTH
) -> Float[np.ndarray, " m"]:
    """Differential entropy dH(y|X) = -log p_X(y): up to 0 for what the set knows, above for what is new."""
    return -log_density(Y, X, h)


def overlap(
    Y: Float[np.ndarray, "m features"], X: Float[np.ndarray, "n features"], h: float = BANDWIDTH, eps: float = 1e-5
) -> float:
    """Share of the environments Y that the set X covers: dH(y|X) < eps."""
    return float((novelty(Y, X, h) < eps).mean())
