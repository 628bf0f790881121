"""ASE calculators: of our potentials, of ensembles of any calculators, and one that stops where its models disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from broadsheet.atoms.charge import charge_changed
from broadsheet.atoms.neighbours import Neighbours
from broadsheet.atoms.potential import Potential, compiled_predict, fresh_neighbours, members
from broadsheet.atoms.structures import AtomsBatch, batch_atoms
from broadsheet.errors import InputError


class OutsideDomainError(InputError):
    """A structure has left what the models were trained on."""


class PotentialCalculator(Calculator):
    """Energy, forces and stress of one potential, or their means over several, with `energy_std` and `forces_std`.

    Neighbours are found again when an atom has moved half the `skin` (Å). The standard deviations (n - 1 in the denominator)
    are in `results`, and `forces_std` has one for each component.

    **Raises:** `OutsideDomainError` where a mean `forces_std` component exceeds `stop_above` (eV/Å); `InputError` where an
    energy is not finite, as where atoms come too close or have more neighbours than the model holds.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress", "energy_std", "forces_std"]

    def __init__(
        self, potential: Potential | Sequence[Potential], *, skin: float = 0.5, direct: bool = False,
        stop_above: float | None = None, **options: Any,
    ):  # fmt: skip
        super().__init__(**options)
        self.members = list(members(potential))
        check_stop(stop_above, len(self.members))
        self.skin, self.direct, self.stop_above = skin, direct, stop_above
        self._neighbours: Neighbours | None = None
        self._made_at: tuple[np.ndarray, np.ndarray, bytes] | None = None
        self._width = 0

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        return [*super().check_state(atoms, tol), *charge_changed(self.atoms, atoms)]

    def _list(self, batch: AtomsBatch, atoms: Atoms) -> Neighbours:
        moved = np.inf
        kind = atoms.numbers.tobytes() + atoms.pbc.tobytes()
        if self._made_at is not None and self._made_at[2] == kind and np.array_equal(self._made_at[1], atoms.cell.array):
            moved = np.sqrt(((atoms.positions - self._made_at[0]) ** 2).sum(axis=1).max())
        if self._neighbours is None or moved > self.skin / 2:
            self._neighbours = fresh_neighbours(self.members[0], batch, self.skin, self._width)
            self._width = self._neighbours.width
            self._made_at = (atoms.positions.copy(), atoms.cell.array.copy(), kind)
        return self._neighbours

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Sequence[str] = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        batch = batch_atoms([self.atoms], count=1, motion=False)  # ASE moves them
        neighbours, n = self._list(batch, self.atoms), len(self.atoms)
        found = [compiled_predict(each, batch, neighbours, "stress" in properties, self.direct) for each in self.members]
        energies = np.array([float(each.energy[0]) for each in found])
        forces = np.array([np.asarray(each.forces[:n], float) for each in found])
        if not np.isfinite(energies).all() or not np.isfinite(forces).all():
            raise InputError(
                "The potential gives no finite energy here: atoms lie too close, or one has more neighbours than the model "
                "holds."
            )
        self.results = {"energy": float(energies.mean()), "forces": forces.mean(axis=0)}
        self.results["free_energy"] = self.results["energy"]
        if "stress" in properties:
            if self.direct or not self.atoms.pbc.all():
                raise InputError("Stress needs gradient forces and a structure that is periodic in all three directions.")
            stress = np.mean([np.asarray(each.stress[0], float) for each in found if each.stress is not None], axis=0)
            self.results["stress"] = stress.flat[[0, 4, 8, 5, 2, 1]]
        if len(self.members) > 1:
            self.results["energy_std"] = float(energies.std(ddof=1))
            self.results["forces_std"] = forces.std(axis=0, ddof=1)
            check_domain(self.results["forces_std"], self.stop_above)


def check_stop(stop_above: float | None, count: int) -> None:
    """Raises `InputError` for a limit on the disagreement of fewer than two models."""
    if stop_above is not None and count < 2:
        raise InputError("stop_above needs several potentials; one has no spread.")


def check_domain(forces_std: np.ndarray, stop_above: float | None) -> None:
    """Raises `OutsideDomainError` where the models' forces on one atom differ by more than the limit (eV/Å)."""
    if stop_above is None:
        return
    per_atom = np.sqrt((np.asarray(forces_std) ** 2).sum(axis=-1))
    worst = int(per_atom.argmax())
    if per_atom[worst] > stop_above:
        raise OutsideDomainError(
            f"The models' forces on atom {worst} differ by {per_atom[worst]:.3g} eV/Å, above the limit of {stop_above:g}: "
            "the structure has left what they were trained on."
        )


class EnsembleCalculator(Calculator):
    """The mean of any ASE calculators with `energy_std` and `forces_std`; stops where they disagree.

    **Arguments:** `calculators`: two or more; `stop_above`: eV/Å, as in `check_domain`.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "energy_std", "forces_std"]

    def __init__(self, calculators: Sequence[Calculator], stop_above: float | None = None, **options: Any):
        super().__init__(**options)
        if len(calculators) < 2:
            raise InputError(f"EnsembleCalculator: {len(calculators)} calculators have no spread; two or more are wanted.")
        self.members, self.stop_above = list(calculators), stop_above

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        return [*super().check_state(atoms, tol), *charge_changed(self.atoms, atoms)]

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Sequence[str] = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        energies, forces = [], []
        for member in self.members:
            member.calculate(self.atoms.copy(), ["energy", "forces"], list(all_changes))
            energies.append(member.results["energy"])
            forces.append(np.asarray(member.results["forces"]))
        self.results = {
            "energy": float(np.mean(energies)), "free_energy": float(np.mean(energies)), "forces": np.mean(forces, axis=0),
            "energy_std": float(np.std(energies, ddof=1)), "forces_std": np.std(forces, axis=0, ddof=1),
        }  # fmt: skip
        check_domain(self.results["forces_std"], self.stop_above)
