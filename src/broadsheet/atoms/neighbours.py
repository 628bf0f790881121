"""Neighbour lists, padded, for open and periodic cells; linear in the number of atoms."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from broadsheet.atoms.structures import AtomsBatch, bucket
from broadsheet.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

OVERLAP = 0.05
"""Å; two atoms closer than this are one atom twice."""
DENSEST = 1.5
"""Atoms in Å^3, ten times as many as in any solid; where more are, the cell or the positions are wrong."""
MANY = 10_000_000
"""Pairs of a structure that are looked for whatever its density."""
WHOLE = 100_000_000
"""Places for pairs that a batch may have, where most of them are empty or each atom sees all others."""


class Neighbours(eqx.Module):
    """For each atom its neighbours, nearest first, padded.

    `index`: the neighbour; `shift`: lattice vectors to add to its position; `mask`: what is real; `reverse`, where it was asked
    for: the place of the same pair in the neighbour's row. Padding points at the atom itself.
    """

    index: Int[Array, "atoms neighbours"] | Int[np.ndarray, "atoms neighbours"]
    shift: Int[Array, "atoms neighbours 3"] | Int[np.ndarray, "atoms neighbours 3"]
    mask: Bool[Array, "atoms neighbours"] | Bool[np.ndarray, "atoms neighbours"]
    reverse: Int[Array, "atoms neighbours"] | Int[np.ndarray, "atoms neighbours"] | None = None

    @property
    def width(self) -> int:
        return self.index.shape[1]


def pairs(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float, name: str = "the structure"
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(i, j, shifts, distances) of all pairs within the cutoff of one structure, both directions, images included.

    **Raises:** `InputError` where atoms lie so densely, or are so many, that their pairs do not fit into memory.
    """
    if not pbc.any():  # a cutoff far beyond the structure would only cost cells
        cutoff = min(cutoff, float(np.linalg.norm(np.ptp(positions, axis=0))) + 1.0)
    box = np.where(pbc[:, None], cell, 0.0)
    if pbc.any() and not pbc.all():
        box = _completed(positions, box, pbc, cutoff)
    _check_density(positions, box, bool(pbc.any()), cutoff, name)
    try:
        i, j, shifts, distances = _cell_lists()(cutoff=float(cutoff), full_list=True).compute(
            points=np.ascontiguousarray(positions, float),
            box=np.ascontiguousarray(box, float),
            periodic=bool(pbc.any()),
            quantities="ijSd",
        )
    except MemoryError:
        raise InputError(
            f"{name} has {len(positions)} atoms, whose neighbours within {cutoff:g} Å do not fit into memory."
        ) from None
    if pbc.any() and not pbc.all():
        real = ~(shifts[:, ~pbc] != 0).any(axis=1)
        i, j, shifts, distances = i[real], j[real], shifts[real], distances[real]
    return i.astype(np.int64), j.astype(np.int64), shifts.astype(np.int32), distances


def _check_density(positions: np.ndarray, box: np.ndarray, periodic: bool, cutoff: float, name: str) -> None:
    """Raises `InputError` where there are many pairs and atoms are denser than in matter, before any pair is looked for.

    Atoms are counted in cells as wide as the cutoff (3 Å at least) or wider, or in the whole box where that is narrower. All
    pairs lie in neighbouring cells, so that they are fewer than the sum of the squared counts times the neighbouring cells.
    """
    edge = max(cutoff, 3.0)
    if periodic:
        inverse = np.linalg.inv(box)
        heights = 1 / np.sqrt((inverse**2).sum(axis=0))
        images = (2 * np.ceil(cutoff / heights) + 1).prod()
    else:
        heights, images = np.maximum(np.ptp(positions, axis=0), edge), 1.0
    if len(positions) ** 2 * images <= MANY:
        return
    cells = np.maximum(np.floor(heights / edge), 1)
    if periodic:
        places = (positions @ inverse % 1 * cells).astype(np.int64)
        near = np.prod(np.where(cells >= 3, 3, 2 * np.ceil(cutoff / heights) + 1))
        volume = abs(np.linalg.det(box))
    else:
        places = ((positions - positions.min(axis=0)) / heights * cells).astype(np.int64)
        near, volume = np.prod(np.minimum(cells, 3)), heights.prod()
    flat = (places[:, 0] * int(cells[1] + 1) + places[:, 1]) * int(cells[2] + 1) + places[:, 2]
    counts = np.unique(flat, return_counts=True)[1]
    squares = float((counts.astype(float) ** 2).sum())
    density = squares / len(positions) / (volume / np.prod(cells))
    if squares * near > MANY and density > DENSEST:
        raise InputError(
            f"{name} has {density:.3g} atoms to the cubic Å, more than ten times as many as any solid: its cell or positions "
            "are not in Å, or wrong."
        )


@functools.cache
def _cell_lists() -> Any:
    """vesin's `NeighborList`. It imports PyTorch where that is installed, for tensors that it never gets from here: seconds of
    every process. So it is imported as if PyTorch were not there, and forgotten, that others can import it whole."""
    if "torch" in sys.modules or "vesin" in sys.modules:
        from vesin import NeighborList

        return NeighborList
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from vesin import NeighborList
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("torch", "vesin")]:
            del sys.modules[name]
    return NeighborList


def _completed(positions: np.ndarray, box: np.ndarray, pbc: np.ndarray, cutoff: float) -> np.ndarray:
    """A cell whose open directions are so long that no image comes near."""
    from ase.geometry import complete_cell

    full = complete_cell(box)
    for axis in np.flatnonzero(~pbc):
        across = full[axis] / np.linalg.norm(full[axis])
        extent = positions @ across
        full[axis] = across * (extent.max() - extent.min() + 2 * cutoff + 1)
    return full


def check_overlap(structure: Atoms, name: str = "the structure") -> None:
    """Raises `InputError` naming two atoms that lie on each other, or an atom and its own image."""
    i, j, _, distances = pairs(structure.positions, structure.cell.array, structure.pbc, 2.0)  # small cells take long
    refuse_overlap(i, j, distances, name)


def refuse_overlap(i: np.ndarray, j: np.ndarray, distances: np.ndarray, name: str) -> None:
    """Raises `InputError` naming two atoms of these pairs that lie on each other."""
    if len(distances) and distances.min() < OVERLAP:
        at = int(distances.argmin())
        raise InputError(
            f"Atoms {i[at]} and {j[at]} of {name} overlap (distance {distances[at]:.3f} Å); "
            "take one of them out or use a larger cell."
        )


def neighbour_list(
    batch: AtomsBatch,
    cutoff: float,
    *,
    width: int | None = None,
    nearest: int | None = None,
    self_edges: bool = False,
    reverse: bool = False,
) -> Neighbours:
    """All neighbours within the cutoff (Å), images included, nearest first.

    Made on the host with vesin's cell lists; distances are computed again inside jit, so that they have gradients.

    **Arguments:** `width`: neighbours to pad to; the next bucket by default. `nearest`: keep only as many. `self_edges`: the
    atom itself first, at distance 0. `reverse`: also where each pair is found from its other end (not with `nearest`).

    **Raises:** `InputError` where two atoms lie on each other, or an atom has more neighbours than `width`.
    """
    if not cutoff > 0:
        raise InputError(f"The cutoff is {cutoff} Å; it must be above 0.")
    positions, cells, pbc = np.asarray(batch.positions, float), np.asarray(batch.cell, float), np.asarray(batch.pbc)
    graph, real = np.asarray(batch.graph), np.asarray(batch.node_mask)
    atoms = len(positions)
    parts: list[tuple[np.ndarray, ...]] = []
    ordered = np.flatnonzero(real)[np.argsort(graph[real], kind="stable")]
    members = np.split(ordered, np.cumsum(np.bincount(graph[real], minlength=len(cells)))[:-1])
    for k in np.flatnonzero(np.asarray(batch.graph_mask)):
        own = members[k]
        i, j, shifts, distances = pairs(positions[own], cells[k], pbc[k], cutoff, f"structure {k}")
        refuse_overlap(i, j, distances, f"structure {k}")
        parts.append((own[i], own[j], shifts, distances))
    if self_edges:
        own = np.flatnonzero(real)
        parts.append((own, own, np.zeros((len(own), 3), np.int32), np.zeros(len(own))))
    i, j, shifts, distances = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((distances, i))
    i, j, shifts = i[order], j[order], shifts[order]
    counts = np.bincount(i, minlength=atoms)
    slot = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
    if nearest is not None:
        keep = slot < nearest + self_edges
        i, j, shifts, slot = i[keep], j[keep], shifts[keep], slot[keep]
        counts = np.minimum(counts, nearest + self_edges)
    most = int(counts.max(initial=0))
    if width is None:
        width = bucket(most, 4)
    elif most > width:
        raise InputError(
            f"Atom {int(counts.argmax())} has {most} neighbours within {cutoff:g} Å and {width} fit; give more room "
            "or a smaller cutoff."
        )
    if atoms * width > max(WHOLE, 50 * len(i)):
        raise InputError(f"Atom {int(counts.argmax())} has {most} neighbours within {cutoff:g} Å and most have far fewer.")
    index = np.repeat(np.arange(atoms, dtype=np.int32)[:, None], width, axis=1)
    shift = np.zeros((atoms, width, 3), np.int32)
    mask = np.zeros((atoms, width), bool)
    index[i, slot], shift[i, slot], mask[i, slot] = j, shifts, True
    if not reverse:
        return Neighbours(index, shift, mask)
    back = np.zeros((atoms, width), np.int32)
    here = np.lexsort((*shifts.T, j, i))
    there = np.lexsort((*-shifts.T, i, j))
    back[i[here], slot[here]] = slot[there]
    return Neighbours(index, shift, mask, back)


def whole_structures(batch: AtomsBatch, *, width: int | None = None) -> Neighbours:
    """All atoms of the structure, the atom itself among them, in their order; for structures without periodic directions.

    **Raises:** `InputError` where a structure has more atoms than `width`, or too many for all their pairs.
    """
    graph, real = np.asarray(batch.graph), np.asarray(batch.node_mask)
    counts = np.bincount(graph[real], minlength=batch.structures)
    most = int(counts.max(initial=1))
    if width is not None and most > width:
        raise InputError(f"A structure has {most} atoms and {width} fit.")
    slots, atoms = most if width is None else width, np.arange(len(graph), dtype=np.int32)
    if slots * len(graph) > WHOLE:
        raise InputError(f"A structure has {most} atoms, too many for a potential where each sees all others.")
    first = np.searchsorted(graph, graph)
    mask = (np.arange(slots) < counts[graph][:, None]) & real[:, None]
    index = np.where(mask, first[:, None] + np.arange(slots), atoms[:, None]).astype(np.int32)
    return Neighbours(index, np.zeros((len(atoms), slots, 3), np.int32), mask)


def separations(batch: AtomsBatch, neighbours: Neighbours) -> list[Float[Array, "atoms neighbours"]]:
    """x, y and z from each atom to its neighbours, Å; zero for padding. Differentiable in positions and cell."""
    positions, cell = jnp.asarray(batch.positions), jnp.asarray(batch.cell)[batch.graph]
    shift, mask = jnp.asarray(neighbours.shift, positions.dtype), jnp.asarray(neighbours.mask)

    def component(d: int) -> Array:  # as a product with the 3 x 3 cell, all this is many times slower on a CPU
        x, image = positions[:, d], sum(shift[..., k] * cell[:, None, k, d] for k in range(3))
        return jnp.where(mask, x[neighbours.index] + image - x[:, None], 0)

    return [component(d) for d in range(3)]


def displacements(batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, "atoms neighbours 3"]:
    """Vectors from each atom to its neighbours, Å; zero for padding. Differentiable in positions and cell."""
    return jnp.stack(separations(batch, neighbours), axis=-1)
