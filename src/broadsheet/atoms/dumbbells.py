"""A fluid of dumbbells and its coarse frames: centres, and the forces on them. Å, fs, eV, K."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.atoms.motion import BOLTZMANN
from broadsheet.atoms.neighbours import Neighbours, displacements
from broadsheet.atoms.pair import LennardJones
from broadsheet.atoms.pair_dynamics import PairList, PairRuns, pair_dynamics, pair_list, pair_slopes
from broadsheet.atoms.potential import Potential
from broadsheet.atoms.structures import AtomsBatch, batch_atoms
from broadsheet.errors import DataError
from broadsheet.files import existing, load_arrays
from broadsheet.numerics import norm

if TYPE_CHECKING:
    from ase import Atoms

KJ_PER_NM = 1.0364269e-3
"""1 kJ/(mol nm) in eV/Å."""


@dataclass(frozen=True)
class DumbbellFluid:
    """Two Lennard-Jones sites a molecule on a spring, as argon; a liquid above its critical density."""

    molecules: int
    epsilon: float = 0.0104  # eV
    sigma: float = 3.4  # Å
    bond: float = 2.0  # Å
    stiffness: float = 1.0  # eV/Å^2
    temperature: float = 200.0  # K
    volume: float = 85.0  # Å^3 a molecule

    @property
    def length(self) -> float:
        """Side of the cubic box, Å."""
        return (self.molecules * self.volume) ** (1 / 3)


class Dumbbells(Potential):
    """Lennard-Jones between sites of different molecules and a spring within; sites 2k and 2k+1 are one molecule."""

    pair: LennardJones
    fluid: DumbbellFluid = eqx.field(static=True)
    cutoff: float = eqx.field(static=True)

    def __init__(self, fluid: DumbbellFluid):
        self.fluid, self.cutoff = fluid, min(2.5 * fluid.sigma, fluid.length / 2 - 0.6)
        self.pair = LennardJones(fluid.epsilon, fluid.sigma, self.cutoff, smooth=True)

    def energy(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, " structures"]:
        other = jnp.asarray(neighbours.mask) & (neighbours.index // 2 != jnp.arange(neighbours.index.shape[0])[:, None] // 2)
        pairs = self.pair.energy(batch, eqx.tree_at(lambda n: n.mask, neighbours, other))
        vectors = displacements(batch, neighbours)
        partner = jnp.asarray(neighbours.mask) & (neighbours.index == jnp.arange(neighbours.index.shape[0])[:, None] ^ 1)
        stretch = norm(jnp.where(partner[..., None], vectors, 1.0)) - self.fluid.bond
        springs = jnp.sum(jnp.where(partner, self.fluid.stiffness / 2 * stretch**2, 0), axis=1) / 2
        return pairs + batch.sum_atoms(springs)


class CoarseFrames(NamedTuple):
    """Centres (Å) and forces on them (eV/Å) over frames, padded to one batch; sides of the orthogonal box (Å), and what a first
    repulsion needs: energy and size; `unit`: a scale of energies.
    """

    positions: Float[np.ndarray, "frames atoms 3"]
    forces: Float[np.ndarray, "frames atoms 3"]
    lengths: Float[np.ndarray, "3"]
    molecules: int
    number: int
    temperature: float
    repulsion: float
    size: float
    cutoff: float
    unit: float

    def batch(self, frame: int) -> AtomsBatch:
        """One frame as a batch of a single structure; a bead has the mass of its element."""
        return batch_atoms([_beads(self.number, self.positions[frame, : self.molecules], self.lengths)], count=1)

    def pairs(self) -> PairList:
        """Pairs within the cutoff in all frames, padded to one number with pairs that are twice as far apart."""
        found = [pair_list(place[: self.molecules], self.lengths, self.cutoff) for place in self.positions]
        most = max(len(each.r) for each in found)
        fill = PairList(0.0, 0.0, 2 * self.cutoff, 0.0)

        def stacked(column: tuple[np.ndarray, ...], value: float) -> np.ndarray:
            wide = [((0, most - len(part)), *[(0, 0)] * (part.ndim - 1)) for part in column]
            return np.stack([np.pad(part, each, constant_values=value) for part, each in zip(column, wide, strict=True)])

        return PairList(*(stacked(*each) for each in zip(zip(*found, strict=True), fill, strict=True)))


def coarse_frames(fluid: DumbbellFluid, frames: int, key: PRNGKeyArray, *, every: int = 50, dt: float = 4.0) -> CoarseFrames:
    """Frames of Langevin dynamics of all sites, seen as centres and the sums of forces on both sites."""
    from ase.data import atomic_masses

    side = int(np.ceil(fluid.molecules ** (1 / 3)))
    lattice = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[: fluid.molecules]
    centres = (lattice + 0.5) * fluid.length / side
    way = np.array(jax.random.normal(jax.random.fold_in(key, 0), (fluid.molecules, 3)))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    sites = np.stack([centres - way * fluid.bond / 2, centres + way * fluid.bond / 2], axis=1).reshape(-1, 3)
    potential, lengths = Dumbbells(fluid), np.full(3, fluid.length)
    span = (0.7 * fluid.sigma, potential.cutoff)
    slopes = pair_slopes([potential.pair], jnp.linspace(*span, 4000))[None]

    def run(start: np.ndarray, dt: float, friction: float, key: PRNGKeyArray) -> PairRuns:
        return pair_dynamics(
            slopes, span, start[None], lengths, steps=max(frames * every, 3000), every=every, temperature=fluid.temperature,
            mass=float(atomic_masses[18]), dt=dt, friction=friction, key=key, bond=(fluid.bond, fluid.stiffness),
        )  # fmt: skip

    settled = run(sites, 2.0, 0.05, jax.random.fold_in(key, 1)).positions[0, -1]  # overlaps, whose forces are limited, go
    made = run(settled, dt, 0.005, jax.random.fold_in(key, 2))
    centres_of, forces = (
        function(part[0, -frames:].astype(float).reshape(frames, -1, 2, 3), axis=2)
        for function, part in ((np.mean, made.positions), (np.sum, made.forces))
    )
    return _frames(centres_of, forces, np.full(3, fluid.length), 36, fluid.temperature, 1.2 * fluid.sigma)


def read_coarse(folder: str | Path, temperature: float = 298.0) -> CoarseFrames:
    """Coarse water in the authors' files: conf_COM.npy (nm), forces_COM.npy (kJ/(mol nm)) and box.npy (nm).

    **Raises:** `DataError` where shapes do not fit.
    """
    folder = existing(folder)
    arrays = [load_arrays(folder / name)[""] for name in ("conf_COM.npy", "forces_COM.npy", "box.npy")]
    positions, forces, box = arrays
    lengths = np.diag(box) if box.ndim == 2 else np.ravel(box)
    if positions.ndim != 3 or positions.shape[2] != 3 or positions.shape != forces.shape or lengths.shape != (3,):
        raise DataError(
            f"{folder}: shapes {positions.shape}, {forces.shape}, {box.shape}; (frames, beads, 3) twice and a box are wanted."
        )
    return _frames(10 * positions, KJ_PER_NM * forces, 10 * lengths, 18, temperature, 3.165)


def _frames(
    positions: np.ndarray, forces: np.ndarray, lengths: np.ndarray, number: int, temperature: float, size: float
) -> CoarseFrames:
    molecules = positions.shape[1]
    padded = batch_atoms([_beads(number, positions[0], lengths)], count=1).positions.shape[0] - molecules
    positions, forces = (np.pad(part, ((0, 0), (0, padded), (0, 0))) for part in (positions, forces))
    kT = BOLTZMANN * temperature
    cutoff = float(min(2.2 * size, lengths.min() / 2 - 0.1))
    return CoarseFrames(positions, forces, lengths, molecules, number, temperature, kT, size, cutoff, kT)


def _beads(number: int, positions: np.ndarray, lengths: np.ndarray) -> Atoms:
    from ase import Atoms

    return Atoms([number] * len(positions), positions, cell=lengths, pbc=True)
