"""What functionals are set beside: PySCF's own solutions, wave functions, and dissociation energies from experiment."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.build import molecule
from jaxtyping import Array, Float

from broadsheet.electrons.kohn_sham import mean_field
from broadsheet.errors import InputError

LIBXC = {"lda": "lda,pw", "pbe": "pbe,pbe", "scan": "scan,scan", "b3lyp": "b3lyp"}
"""What PySCF calls our functionals."""
MOST_ALONE = 60
"""Basis functions up to which PySCF gets one thread: several wait for each other longer than they work."""


def _threads(field: Any) -> Any:
    from pyscf import lib

    return lib.with_omp_threads(1 if field.mol.nao <= MOST_ALONE else None)


def field_of(name: str, grid: int, basis: str = "def2-svp") -> Any:
    """PySCF's mean field of one of ASE's molecules, of its cation (`H2O+`), of an atom, or of two atoms at a distance
    (`H2@1.5`, Å)."""
    if "@" in name:
        symbols, distance = name.split("@")
        return mean_field(Atoms(symbols, [[0, 0, 0], [0, 0, float(distance)]]), grid=grid, basis=basis)
    made = molecule(name.removesuffix("+"))
    if name.endswith("+"):
        made.info["charge"] = 1
    else:
        made.info["spin"] = round(abs(made.get_initial_magnetic_moments().sum())) + 1
    return mean_field(made, grid=grid, basis=basis)


def solution(field: Any, kind: str, tolerance: float = 1e-9) -> tuple[float, Float[Array, "spins n n"]]:
    """PySCF's self-consistent energy (Hartree) and density matrix with a functional that `LIBXC` names.

    **Raises:** `InputError` where it finds none.
    """
    field.xc, field.conv_tol = LIBXC[kind], tolerance
    with _threads(field):
        total = float(field.kernel())
        if not field.converged:  # stretched bonds: second order in the orbitals
            found = field.newton()
            total = float(found.kernel(field.mo_coeff, field.mo_occ))
            if not found.converged:
                raise InputError(f"PySCF does not converge {kind} for {field.mol.elements}.")
            field.mo_coeff, field.mo_occ = found.mo_coeff, found.mo_occ
    matrix = np.asarray(field.make_rdm1())
    return total, jnp.asarray(matrix[None] / 2 if matrix.ndim == 2 else matrix)


def fock_of(field: Any) -> Float[np.ndarray, "spins n n"]:
    """PySCF's Fock matrix of each spin at its solution, Hartree."""
    with _threads(field):
        matrix = np.asarray(field.get_hcore() + field.get_veff())
    return matrix[None] if matrix.ndim == 2 else matrix


def full_interaction(field: Any) -> tuple[float, Float[np.ndarray, "1 n n"]]:
    """Full configuration interaction of a closed shell in the field's basis: Hartree, and the density matrix of one spin."""
    from pyscf import fci, scf

    with _threads(field):
        hartree_fock = scf.RHF(field.mol).run()
        solver = fci.FCI(hartree_fock)
        total, state = solver.kernel()
    C = hartree_fock.mo_coeff
    return float(total), (C @ solver.make_rdm1(state, C.shape[1], field.mol.nelec) @ C.T)[None] / 2


def coupled_cluster(field: Any) -> float:
    """CCSD(T) in the field's basis, Hartree; of one electron Hartree-Fock, which is exact."""
    from pyscf import cc, scf

    with _threads(field):
        found = (scf.UHF if field.mol.spin else scf.RHF)(field.mol).run(verbose=0)
        if field.mol.nelectron == 1:
            return float(found.e_tot)
        correlated = cc.CCSD(found).run(verbose=0)
        return float(correlated.e_tot + (correlated.ccsd_t() if field.mol.nelectron > 2 else 0.0))


def symbols(name: str) -> list[str]:
    """The atoms of one of ASE's molecules."""
    return list(molecule(name).get_chemical_symbols())


def dissociation_energy(name: str) -> float:
    """Of one of ASE's G2 molecules into atoms, without zero-point motion, from experimental enthalpies of formation, kcal/mol.

    **Source:** Curtiss et al., J. Chem. Phys. 106, 1063 (1997), and Staroverov et al., J. Chem. Phys. 119, 12129 (2003), as ASE
    carries them.
    """
    from ase.data.g2 import data

    rows: Any = data
    row = rows[name]
    atoms = [rows[each]["enthalpy"] - rows[each]["thermal correction"] for each in symbols(name)]
    return float(sum(atoms) - row["enthalpy"] + row["ZPE"] + row["thermal correction"])
