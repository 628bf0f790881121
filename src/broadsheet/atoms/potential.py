"""What a potential is: an energy of structures; forces and stress are its derivatives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from broadsheet.atoms.neighbours import Neighbours, neighbour_list
from broadsheet.atoms.structures import MAX_NUMBER, AtomsBatch, energies_of, forces_of
from broadsheet.errors import DataError, InputError

if TYPE_CHECKING:
    from ase import Atoms


class Prediction(NamedTuple):
    """Energy (eV), forces (eV/Å) and stress (eV/Å^3, zero for open structures) of a batch."""

    energy: Float[Array, " structures"]
    forces: Float[Array, "atoms 3"]
    stress: Float[Array, "structures 3 3"] | None = None


class Potential(eqx.Module):
    """An energy of structures. A subclass has a `cutoff` (Å, static) and `energy`; `neighbours` only where it wants other
    neighbours than all within the cutoff, `energy_and_forces` only where it knows its gradient better than differentiation
    does, `energy_and_direct_forces` only where it predicts forces beside the energy.

    **Example:**

        >>> from ase import Atoms
        >>> from broadsheet.atoms import batch_atoms, displacements
        >>> class Springs(Potential):  # of 2 eV/Å^2 between neighbours
        ...     cutoff: float = eqx.field(static=True, default=4.0)
        ...     def energy(self, batch, neighbours):
        ...         square = jnp.sum(displacements(batch, neighbours) ** 2, axis=(1, 2))
        ...         return batch.sum_atoms(square / 2)  # each pair lies in both rows
        >>> springs, batch = Springs(), batch_atoms([Atoms("H2", [[0, 0, 0], [0, 0, 3.0]])])
        >>> found = springs.energy_and_forces(batch, springs.neighbours(batch))
        >>> float(found.energy[0]), found.forces[:2, 2].tolist()
        (9.0, [6.0, -6.0])
    """

    cutoff: eqx.AbstractVar[float]

    @abstractmethod
    def energy(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, " structures"]:
        """Energy of each structure, eV."""

    def energy_and_forces(self, batch: AtomsBatch, neighbours: Neighbours) -> Prediction:
        """Energies and their negative gradients, from one forward and one backward pass."""

        def total(positions: Array) -> tuple[Array, Array]:
            energy = self.energy(eqx.tree_at(lambda b: b.positions, batch, positions), neighbours)
            return jnp.sum(jnp.where(batch.graph_mask, energy, 0)), energy

        (_, energy), gradient = jax.value_and_grad(total, has_aux=True)(jnp.asarray(batch.positions))
        return Prediction(energy, -gradient)

    def neighbours(self, batch: AtomsBatch, *, skin: float = 0.0, width: int | None = None) -> Neighbours:
        """Neighbours as the potential wants them, made on the host; a `skin` (Å) keeps them valid for a while."""
        return neighbour_list(batch, self.cutoff + skin, width=width)

    def energy_and_direct_forces(self, batch: AtomsBatch, neighbours: Neighbours) -> Prediction:
        """Energies, and forces predicted beside them, which are nobody's gradient."""
        raise InputError(f"{type(self).__name__} has no direct forces; its forces are the gradient of its energy.")


def energy_forces_stress(potential: Potential, batch: AtomsBatch, neighbours: Neighbours) -> Prediction:
    """Also the stress, dE/d(strain) / volume with symmetric strain."""

    def total(positions: Array, strain: Array) -> tuple[Array, Array]:
        symmetric = (strain + jnp.swapaxes(strain, 1, 2)) / 2
        deformation = jnp.eye(3, dtype=positions.dtype) + symmetric
        moved = jnp.einsum("nd,nde->ne", positions, deformation[batch.graph])
        cell = jnp.einsum("gkd,gde->gke", jnp.asarray(batch.cell), deformation)
        energy = potential.energy(eqx.tree_at(lambda b: (b.positions, b.cell), batch, (moved, cell)), neighbours)
        return jnp.sum(jnp.where(batch.graph_mask, energy, 0)), energy

    strain = jnp.zeros_like(jnp.asarray(batch.cell))
    (_, energy), gradients = jax.value_and_grad(total, (0, 1), has_aux=True)(jnp.asarray(batch.positions), strain)
    volume = jnp.abs(jnp.linalg.det(jnp.asarray(batch.cell)))[:, None, None]
    stress = jnp.where(volume > 1e-6, gradients[1] / jnp.maximum(volume, 1e-6), 0)
    return Prediction(energy, -gradients[0], stress)


class SumPotential(Potential):
    """The sum of potentials that share a neighbour list, as a fixed repulsion and a network."""

    parts: tuple[Potential, ...]
    cutoff: float = eqx.field(static=True)

    def __init__(self, *parts: Potential):
        self.parts, self.cutoff = parts, max(part.cutoff for part in parts)

    def energy(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, " structures"]:
        return sum((part.energy(batch, neighbours) for part in self.parts[1:]), self.parts[0].energy(batch, neighbours))

    def energy_and_forces(self, batch: AtomsBatch, neighbours: Neighbours) -> Prediction:
        found = [part.energy_and_forces(batch, neighbours) for part in self.parts]
        return jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *found)


class ScaledPotential(Potential):
    """A network of order one in physical units: `scale * network + sum of element references`.

    `references` (eV, by atomic number, NaN for elements never seen) and `scale` (eV and eV/Å) are fitted on the training set
    and fixed afterwards. Both are leaves, so that another training set needs no other program.
    """

    network: Potential
    references: np.ndarray
    scale: np.ndarray
    cutoff: float = eqx.field(static=True)

    def __init__(self, network: Potential, references: np.ndarray | None = None, scale: float = 1.0):
        self.network, self.cutoff, self.scale = network, network.cutoff, np.asarray(scale, float)
        self.references = np.zeros(MAX_NUMBER + 1) if references is None else np.asarray(references, float)

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that the references know."""
        return [int(z) for z in np.flatnonzero(np.isfinite(self.references)) if z]

    def energy(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, " structures"]:
        return jnp.asarray(self.scale) * self.network.energy(batch, neighbours) + self._own(batch)

    def energy_and_forces(self, batch: AtomsBatch, neighbours: Neighbours) -> Prediction:
        return self.in_units(self.network.energy_and_forces(batch, neighbours), batch)

    def in_units(self, found: Prediction, batch: AtomsBatch) -> Prediction:
        """What the network says, in eV and eV/Å."""
        scale = jnp.asarray(self.scale)
        return Prediction(scale * found.energy + self._own(batch), scale * found.forces)

    def _own(self, batch: AtomsBatch) -> Float[Array, " structures"]:
        return batch.sum_atoms(jnp.asarray(self.references, batch.positions.dtype)[batch.numbers])

    def neighbours(self, batch: AtomsBatch, *, skin: float = 0.0, width: int | None = None) -> Neighbours:
        unknown = sorted(set(np.asarray(batch.numbers)[np.asarray(batch.node_mask)].tolist()) - set(self.elements))
        if unknown:
            from ase.data import chemical_symbols

            names = ", ".join(chemical_symbols[z] for z in unknown)
            raise InputError(f"The potential was never trained on {names}.")
        return self.network.neighbours(batch, skin=skin, width=width)

    def energy_and_direct_forces(self, batch: AtomsBatch, neighbours: Neighbours) -> Prediction:
        return self.in_units(self.network.energy_and_direct_forces(batch, neighbours), batch)


def element_references(structures: Sequence[Atoms]) -> np.ndarray:
    """Energies of the elements, eV, by atomic number: least squares of the total energies on composition.

    Of least norm where composition does not tell elements apart; NaN for elements that no structure has.
    """
    energies = energies_of(structures)
    seen = np.unique(np.concatenate([each.numbers for each in structures]))
    composition = np.stack([[np.sum(each.numbers == z) for z in seen] for each in structures]).astype(float)
    found, *_ = np.linalg.lstsq(composition, energies, rcond=1e-10)
    references = np.full(MAX_NUMBER + 1, np.nan)
    references[0], references[seen] = 0.0, found
    return references


def scaled(network: Potential, structures: Sequence[Atoms]) -> ScaledPotential:
    """The network with element references and the root mean square of a force component of these structures."""
    forces = np.concatenate(forces_of(structures))
    scale = float(np.sqrt(np.mean(forces**2)))
    if not scale > 0:
        raise DataError("All forces are zero; there is nothing to learn from.")
    return ScaledPotential(network, element_references(structures), scale)


def check_energy(potential: Potential, batch: AtomsBatch, neighbours: Neighbours) -> None:
    """Raises `InputError` where a potential's energy is anything but one number a structure; nothing is computed."""
    found = eqx.filter_eval_shape(lambda: potential.energy(batch, neighbours))
    wanted, got = (batch.structures,), getattr(found, "shape", None)
    if got != wanted:
        cure = "; sum over atoms by batch.sum_atoms" if got == np.shape(batch.numbers) else ""
        raise InputError(
            f"The energy of {type(potential).__name__} has the shape {got}; {wanted}, one a structure, is wanted{cure}."
        )


def predict(
    potential: Potential, batch: AtomsBatch, neighbours: Neighbours, stress: bool = False, direct: bool = False
) -> Prediction:
    """Energy and forces, by gradient or direct, and stress where wanted."""
    if direct:
        return potential.energy_and_direct_forces(batch, neighbours)
    if stress:
        return energy_forces_stress(potential, batch, neighbours)
    return potential.energy_and_forces(batch, neighbours)


def members(potential: Potential | Sequence[Potential]) -> tuple[Potential, ...]:
    """One potential, or several that share their neighbours.

    **Raises:** `InputError` where there is none, or they are not of one kind and cutoff.
    """
    found = (potential,) if isinstance(potential, Potential) else tuple(potential)
    if not found:
        raise InputError("There is no potential.")
    if len({_shape(each) for each in found}) > 1:
        raise InputError("Potentials of one kind and cutoff are wanted.")
    return found


def _shape(potential: Potential) -> Any:
    inner = potential.network if isinstance(potential, ScaledPotential) else potential
    return type(inner), potential.cutoff, getattr(inner, "config", None)


compiled_predict = eqx.filter_jit(predict)
"""`predict`, compiled once for each kind of potential and size of batch."""


def fresh_neighbours(potential: Potential, batch: AtomsBatch, skin: float, width: int) -> Neighbours:
    """Neighbours found again for atoms that have moved, not narrower than before, which keeps the compiled shape."""
    found = potential.neighbours(batch, skin=skin)
    return found if found.width >= width else potential.neighbours(batch, skin=skin, width=width)
