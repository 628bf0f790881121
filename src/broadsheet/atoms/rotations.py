"""Rotations of structures: drawn evenly, applied to batches with their labels, and how far potentials follow them.

Row vectors: x' = x R^T, forces turn along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.atoms.neighbours import Neighbours
from broadsheet.atoms.potential import Potential, Prediction, compiled_predict, predict
from broadsheet.atoms.structures import AtomsBatch, energies_of, forces_of, labelled
from broadsheet.errors import InputError
from broadsheet.numerics import generator

if TYPE_CHECKING:
    from ase import Atoms


def rotation_matrices(quaternions: Float[Array, "*shape 4"]) -> Float[Array, "*shape 3 3"]:
    """Of quaternions (w, x, y, z), which need not be of unit length."""
    w, x, y, z = jnp.moveaxis(quaternions / jnp.linalg.norm(quaternions, axis=-1, keepdims=True), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


@eqx.filter_jit
def random_rotations(key: PRNGKeyArray, count: int) -> Float[Array, "count 3 3"]:
    """Rotation matrices from the Haar measure: directions of four normal numbers as quaternions."""
    return rotation_matrices(jax.random.normal(key, (count, 4)))


def rotations_from(rng: np.random.Generator, count: int) -> Float[np.ndarray, "count 3 3"]:
    """`random_rotations`, drawn on the host."""
    from scipy.spatial.transform import Rotation

    return Rotation.random(count, random_state=rng).as_matrix()


def turned(
    vectors: Float[Array, "rows 3"] | Float[np.ndarray, "rows 3"], rotations: Float[Array, "rows 3 3"]
) -> Float[Array, "rows 3"]:
    """Each vector by its rotation."""
    return jnp.sum(rotations * vectors[:, None, :], axis=-1)


def rotated(batch: AtomsBatch, rotations: Float[Array, "structures 3 3"]) -> AtomsBatch:
    """Each structure turned about the origin: positions, cell, forces and stress. Neighbour lists stay valid."""
    own = rotations[batch.graph]
    cell = jnp.einsum("gkd,ged->gke", jnp.asarray(batch.cell), rotations)
    made = eqx.tree_at(lambda b: (b.positions, b.cell), batch, (turned(jnp.asarray(batch.positions), own), cell))
    if batch.forces is not None:
        made = eqx.tree_at(lambda b: b.forces, made, turned(jnp.asarray(batch.forces), own))
    if batch.stress is not None:
        stress = jnp.einsum("gad,gde,gbe->gab", rotations, jnp.asarray(batch.stress), rotations)
        made = eqx.tree_at(lambda b: b.stress, made, stress)
    return made


def joined(first: AtomsBatch, second: AtomsBatch) -> AtomsBatch:
    """Two batches one after the other; the padding of the first stays between them."""
    whole = jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a), jnp.asarray(b)]), first, second)
    graph = jnp.concatenate([jnp.asarray(first.graph), jnp.asarray(second.graph) + first.structures])
    return eqx.tree_at(lambda b: b.graph, whole, graph)


def doubled(neighbours: Neighbours) -> Neighbours:
    """The neighbours of a batch and of a copy of it behind it, as `joined` lays them."""
    twice = jax.tree.map(lambda leaf: jnp.concatenate([jnp.asarray(leaf)] * 2), neighbours)
    atoms = neighbours.index.shape[0]
    index = jnp.concatenate([jnp.asarray(neighbours.index), jnp.asarray(neighbours.index) + atoms])
    return eqx.tree_at(lambda n: n.index, twice, index)


def randomly_turned(structures: Sequence[Atoms], rng: np.random.Generator) -> list[Atoms]:
    """Copies in random orientations, each about its centroid, with their energies and forces.

    **Raises:** `DataError` where a structure has no labels; `InputError` for a periodic one.
    """
    found = []
    for each, energy, forces in zip(structures, energies_of(structures), forces_of(structures), strict=True):
        if each.pbc.any():
            raise InputError("randomly_turned: structures without periodic directions are wanted.")
        turn, made = rotations_from(rng, 1)[0], each.copy()
        middle = made.positions.mean(axis=0)
        made.positions = (made.positions - middle) @ turn.T + middle
        found.append(labelled(made, float(energy), forces @ turn.T))
    return found


class RotationAverage(Potential):
    """A potential averaged over fixed rotations of the structure: with many of them, energies hardly change under rotation.

    **Arguments:** `rotations`: how many; each costs as much as the potential itself.
    """

    potential: Potential
    matrices: Float[Array, "rotations 3 3"]
    cutoff: float = eqx.field(static=True)

    def __init__(self, potential: Potential, rotations: int, key: PRNGKeyArray):
        if rotations < 1:
            raise InputError("RotationAverage: at least one rotation is wanted.")
        self.potential, self.cutoff = potential, potential.cutoff
        self.matrices = random_rotations(key, rotations)

    def _each(self, batch: AtomsBatch, neighbours: Neighbours, direct: bool) -> Prediction:
        def one(matrix: Array) -> Prediction:
            turn = jnp.broadcast_to(matrix, (batch.structures, 3, 3))
            found = predict(self.potential, rotated(batch, turn), neighbours, direct=direct)
            return Prediction(found.energy, found.forces @ matrix)

        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.vmap(one)(self.matrices))

    def neighbours(self, batch: AtomsBatch, *, skin: float = 0.0, width: int | None = None) -> Neighbours:
        return self.potential.neighbours(batch, skin=skin, width=width)

    def energy(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, " structures"]:
        turns = jnp.broadcast_to(self.matrices[:, None], (len(self.matrices), batch.structures, 3, 3))
        return jnp.mean(jax.vmap(lambda turn: self.potential.energy(rotated(batch, turn), neighbours))(turns), axis=0)

    def energy_and_forces(self, batch: AtomsBatch, neighbours: Neighbours) -> Prediction:
        return self._each(batch, neighbours, False)

    def energy_and_direct_forces(self, batch: AtomsBatch, neighbours: Neighbours) -> Prediction:
        return self._each(batch, neighbours, True)


class EquivarianceReport(NamedTuple):
    """Forces: mean |F(Rx) - R F(x)| over mean |F(x)|; energies: standard deviation over rotations, meV an atom, averaged."""

    forces: float
    energy: float


_rotated = eqx.filter_jit(rotated)


def equivariance_report(
    potential: Potential, batch: AtomsBatch, neighbours: Neighbours, key: PRNGKeyArray, *, rotations: int = 8,
    direct: bool = False,
) -> EquivarianceReport:  # fmt: skip
    """How far a potential's energies and forces follow random rotations, another for each structure each time."""
    rng, graph = generator(key), np.asarray(batch.graph)
    mask, real = np.asarray(batch.node_mask), np.asarray(batch.graph_mask)
    still = np.asarray(compiled_predict(potential, batch, neighbours, False, direct).forces)
    energies, errors = [], []
    for _ in range(rotations):
        turns = rotations_from(rng, batch.structures).astype(batch.positions.dtype)
        found = compiled_predict(potential, _rotated(batch, jnp.asarray(turns)), neighbours, False, direct)
        energies.append(np.asarray(found.energy)[real])
        back = np.einsum("nd,nde->ne", found.forces, turns[graph])
        errors.append(np.linalg.norm(back - still, axis=1)[mask])
    size = np.linalg.norm(still, axis=1)[mask]
    spread = np.std(energies, axis=0) / np.asarray(batch.counts())[real]
    return EquivarianceReport(float(np.mean(errors) / size.mean()), float(1000 * spread.mean()))
