"""An ASE calculator of any functional, a trained one included; forces by PySCF's integral derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from broadsheet.atoms.charge import charge_changed
from broadsheet.electrons.functionals import Density, Functional, named
from broadsheet.electrons.kohn_sham import Molecule, mean_field
from broadsheet.electrons.self_consistency import GroundState, converge
from broadsheet.errors import InputError


class KohnShamCalculator(Calculator):
    """Energy (eV) and forces (eV/Å) of molecules, charge, multiplicity and core potentials as in `mean_field`.

    **Arguments:** `functional`: a functional, or the name of one; `basis`, `grid`: as PySCF knows them; `fitted`: density
    fitting (large molecules by default); `where`: what errors call the structure. The density of the step before is the next
    one's start.

    **Raises:** `InputError` for what `mean_field` refuses, unknown names, and where self-consistency isn't reached.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces"]

    def __init__(
        self, functional: Functional | str = "pbe", *, basis: str = "def2-svp", grid: int = 3, fitted: bool | None = None,
        where: str = "the structure", **options: Any,
    ):  # fmt: skip
        super().__init__(**options)
        self.functional = named(functional) if isinstance(functional, str) else functional
        self.basis, self.grid, self.fitted, self.where = basis, grid, fitted, where
        self.ground: GroundState | None = None

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        return [*super().check_state(atoms, tol), *charge_changed(self.atoms, atoms)]

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Sequence[str] = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        from ase.units import Bohr, Hartree

        structure = self.atoms
        assert structure is not None
        field = mean_field(structure, basis=self.basis, grid=self.grid, fitted=self.fitted, name=self.where)
        molecule = Molecule.from_pyscf(field, exchange=self.functional.exact_exchange > 0)
        before = self.ground.D if self.ground is not None and self.ground.D.shape == molecule.guess.shape else None
        try:
            self.ground = converge(self.functional, molecule, start=before, residual=1e-6)
        except InputError as error:
            raise InputError(f"{self.where}: {error}") from None
        energy = float(self.ground.energy) * Hartree
        self.results = {"energy": energy, "free_energy": energy}
        if "forces" in properties:
            self.results["forces"] = -_gradient(field, self.functional, molecule, self.ground) * Hartree / Bohr


def _gradient(field: Any, functional: Functional, molecule: Molecule, ground: GroundState) -> np.ndarray:
    """dE/dR in Hartree/Bohr, PySCF's derivatives of integrals with our density and our functional's potential."""
    kind = {"lda": "LDA", "gga": "GGA", "mgga": "MGGA"}[functional.level]
    field.define_xc_(_evaluator(functional), kind, hyb=functional.exact_exchange)
    field.xc = "pbe0" if functional.exact_exchange else "pbe"  # it asks of the name only whether exchange is mixed in
    orbitals, levels, filled = (np.asarray(part) for part in (ground.orbitals, ground.levels, molecule.occupations()))
    if molecule.restricted:
        orbitals, levels, filled = orbitals[0], levels[0], 2 * filled[0]
    return field.nuc_grad_method().kernel(mo_energy=levels, mo_coeff=orbitals, mo_occ=filled)


def _evaluator(functional: Functional) -> Any:
    """The functional as PySCF asks for it: energy an electron and first derivatives at points of the grid."""
    derivative = eqx.filter_jit(jax.grad(lambda d, f: jnp.sum(f.energy_density(d))))
    value = eqx.filter_jit(lambda d, f: f.energy_density(d))

    def evaluate(code: Any, rho: Any, spin: int = 0, relativity: int = 0, deriv: int = 1, omega: Any = None,
                 verbose: Any = None) -> tuple[Any, Any, None, None]:  # fmt: skip
        parts = np.asarray(rho, float)
        halves = np.stack([parts, parts]) / 2 if spin == 0 else parts
        halves = halves[:, None] if halves.ndim == 2 else halves
        slopes = halves[:, 1:4] if halves.shape[1] >= 4 else np.zeros((2, 3, halves.shape[2]))
        sigma = np.stack([(slopes[a] * slopes[b]).sum(axis=0) for a, b in ((0, 0), (0, 1), (1, 1))])
        tau = halves[:, -1] if functional.level == "mgga" else np.zeros_like(halves[:, 0])
        density = Density(*(jnp.asarray(part) for part in (halves[:, 0], sigma, tau)))
        energy, slope = np.asarray(value(density, functional)), derivative(density, functional)
        total = halves[:, 0].sum(axis=0)
        per_electron = energy / np.maximum(total, 1e-30)
        v_rho, v_sigma, v_tau = (np.asarray(part) for part in (slope.rho, slope.sigma, slope.tau))
        if spin == 0:  # dE/d(total): both spins move together
            found = (v_rho.mean(axis=0), (v_sigma[0] + v_sigma[1] + v_sigma[2]) / 4, None, v_tau.mean(axis=0))
        else:
            found = (v_rho.T, v_sigma.T, None, v_tau.T)
        keep = {"lda": 1, "gga": 2, "mgga": 4}[functional.level]
        return per_electron, found[:keep] + (None,) * (4 - keep), None, None

    return evaluate
