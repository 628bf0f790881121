"""Kohn-Sham energies of a density matrix: integrals from PySCF, everything after them differentiable.

Atomic units throughout. A density matrix D has one matrix a spin, (spins, n, n); a restricted molecule has one for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from broadsheet.atoms.charge import charge_and_unpaired
from broadsheet.atoms.neighbours import check_overlap
from broadsheet.atoms.structures import check_structure
from broadsheet.electrons.core_potentials import core_potentials
from broadsheet.electrons.functionals import Density, Functional
from broadsheet.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from ase import Atoms

BLOCK = 4096
"""Grid points taken at once; a block of them stays in the processor's cache."""
MOST_EXACT = 120
"""Basis functions up to which all repulsion integrals are kept; more take density fitting."""


class Repulsion(eqx.Module):
    """Repulsion integrals (pq|rs): all of them, or fitted, (pq|P)(P|rs).

    `packed`: (pairs, pairs) or (auxiliary, pairs), a pair once, p >= q; `full`, where exchange is wanted: (n, n, n, n) with
    p, r, q, s, or (auxiliary, n, n).
    """

    packed: Float[Array, "rows pairs"]
    full: Float[Array, "..."] | None
    fitted: bool = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def coulomb(self, total: Float[Array, "n n"]) -> Float[Array, "n n"]:
        """sum_rs (pq|rs) D_rs."""
        p, q = np.tril_indices(self.size)
        once = jnp.where(jnp.asarray(p == q), 1.0, 2.0) * total[p, q]
        inner = self.packed @ once
        found = self.packed.T @ inner if self.fitted else inner
        made = jnp.zeros((self.size, self.size)).at[p, q].set(found)
        return made + jnp.tril(made, -1).T

    def exchange(self, D: Float[Array, "n n"]) -> Float[Array, "n n"]:
        """sum_rs (pr|qs) D_rs, for one spin."""
        if self.full is None:
            raise InputError("This molecule has no integrals for exchange; make it with exchange=True.")
        if self.fitted:
            half = jnp.einsum("apr,rs->aps", self.full, D)
            return jnp.einsum("aps,aqs->pq", half, self.full)
        n = self.size
        return (self.full.reshape(n * n, n * n) @ D.reshape(-1)).reshape(n, n)

    def orbital_exchange(self, orbitals: Float[Array, "n occupied"]) -> Float[Array, "n n"]:
        """The same of D = C C^T; with fitted integrals far cheaper."""
        if not self.fitted or self.full is None:
            return self.exchange(orbitals @ orbitals.T)
        half = jnp.einsum("apr,ri->pai", self.full, orbitals).reshape(self.size, -1)
        return half @ half.T


class Molecule(eqx.Module):
    """What a Kohn-Sham calculation needs to know of a molecule in a basis; atomic units.

    - `overlap`, `core` (kinetic energy and nuclear attraction): (n, n); `orthogonal`: X with X^T S X = 1, (n, m).
    - `orbitals`: basis functions on the grid, in blocks, with their first derivatives: (blocks, 4, points, n); `weights`.
    - `repulsion`; `nuclear`: repulsion of the nuclei; `square`: integrals of r^2 about the origin; `guess`: start density.
    - `electrons`: of each spin; `restricted`: one matrix for both.
    """

    overlap: Float[Array, "n n"]
    core: Float[Array, "n n"]
    orthogonal: Float[Array, "n m"]
    orbitals: Float[Array, "blocks parts points n"]
    weights: Float[Array, "blocks points"]
    repulsion: Repulsion
    nuclear: Float[Array, ""]
    square: Float[Array, "n n"]
    guess: Float[Array, "spins n n"]
    electrons: tuple[int, int] = eqx.field(static=True)
    restricted: bool = eqx.field(static=True)

    @property
    def size(self) -> int:
        """Basis functions."""
        return self.overlap.shape[0]

    def occupations(self) -> np.ndarray:
        """Occupation of each orbital, lowest first: (spins, orbitals)."""
        kept = np.arange(self.orthogonal.shape[1])
        return np.stack([kept < count for count in self.electrons[: 1 if self.restricted else 2]]).astype(float)

    @classmethod
    def from_pyscf(cls, field: Any, *, exchange: bool = True, block: int = BLOCK) -> Molecule:
        """Integrals, grid and start density of a PySCF mean field (RKS, UKS; with density fitting where it has that).

        **Raises:** `InputError` without double precision in JAX, or for integrals too many to keep.
        """
        if jnp.zeros(()).dtype != jnp.float64:
            raise InputError("Density functionals need double precision: set JAX_ENABLE_X64=1.")
        mol = field.mol
        n = mol.nao
        fitting = getattr(field, "with_df", None)
        if fitting is None and n > MOST_EXACT:
            raise InputError(f"{n} basis functions have too many repulsion integrals to keep; take density_fit().")
        if fitting is not None:
            if fitting._cderi is None:
                fitting.build()
            packed = np.concatenate(list(fitting.loop()))
        else:
            packed = mol.intor("int2e", aosym="s4")
        full = None
        if exchange:
            from pyscf import ao2mo, lib

            full = lib.unpack_tril(packed) if fitting is not None else ao2mo.restore(1, packed, n).transpose(0, 2, 1, 3)
        if field.grids.coords is None:
            field.grids.build()
        orbitals, weights = _blocks(field._numint.eval_ao(mol, field.grids.coords, deriv=1), field.grids.weights, block)
        S = field.get_ovlp()
        values, vectors = np.linalg.eigh(S)
        kept = values > 1e-8
        up, down = mol.nelec
        _check_room(max(up, down), int(kept.sum()), "the molecule")
        guess = np.asarray(field.get_init_guess())
        restricted = guess.ndim == 2
        if restricted and up != down:
            raise InputError(f"{up} and {down} electrons of the two spins need an unrestricted mean field (UKS).")
        return cls(
            overlap=jnp.asarray(S), core=jnp.asarray(field.get_hcore()), orbitals=jnp.asarray(orbitals),
            orthogonal=jnp.asarray(vectors[:, kept] / np.sqrt(values[kept])), weights=jnp.asarray(weights),
            repulsion=Repulsion(jnp.asarray(packed), None if full is None else jnp.asarray(full), fitting is not None, n),
            nuclear=jnp.asarray(float(mol.energy_nuc())), square=jnp.asarray(mol.intor("int1e_r2")),
            guess=jnp.asarray(guess[None] / 2 if restricted else guess), electrons=(int(up), int(down)), restricted=restricted,
        )  # fmt: skip

    @classmethod
    def from_atoms(
        cls, atoms: Atoms, *, basis: str = "def2-svp", grid: int = 3, fitted: bool | None = None, exchange: bool = True
    ) -> Molecule:
        """Of an ASE structure; charge and multiplicity from `info`, `grid` from 0 to 9 as PySCF counts them."""
        return cls.from_pyscf(mean_field(atoms, basis=basis, grid=grid, fitted=fitted), exchange=exchange)


def mean_field(
    atoms: Atoms, *, basis: str = "def2-svp", grid: int = 3, fitted: bool | None = None, name: str = "the structure"
) -> Any:
    """PySCF's mean field of an ASE structure, its grid built; density fitting for large ones by default.

    Charge and multiplicity are those of `charge_and_unpaired`. Where the basis was made for an
    effective core potential, as def2's from rubidium on, that is in the Hamiltonian, and its electrons are left out. `name`:
    of the structure in errors.

    **Raises:** `MissingExtraError` without PySCF; `InputError` for no atoms, an atom that is no element, a periodic structure,
    atoms that overlap, a basis that lacks an element or its core potential, a charge or multiplicity that is not whole or that
    the electrons do not allow, or more electrons of a spin than orbitals.
    """
    try:
        from pyscf import dft, gto
    except ImportError:
        raise MissingExtraError("Density functionals (PySCF)", "atoms") from None
    check_molecule(atoms, basis, name)
    charge, unpaired = charge_and_unpaired(atoms, name)
    symbols = atoms.get_chemical_symbols()
    parts = list(zip(symbols, atoms.positions.tolist(), strict=True))
    mol = gto.M(atom=parts, basis=basis, ecp=core_potentials(basis, symbols), charge=charge, spin=None, verbose=0)
    if mol.nelectron < max(unpaired, 1):
        raise InputError(f"{name}: {mol.nelectron} electrons outside the cores cannot have the multiplicity {unpaired + 1}.")
    mol.spin = unpaired
    _check_room(max(mol.nelec), mol.nao, name)
    field = (dft.UKS if unpaired else dft.RKS)(mol)
    if fitted if fitted is not None else mol.nao > MOST_EXACT:
        field = field.density_fit()
    field.grids.level = grid
    field.grids.build()
    return field


def check_molecule(atoms: Atoms, basis: str = "def2-svp", name: str = "the structure") -> None:
    """Raises `InputError` for what `mean_field` refuses, but for too few orbitals; nothing is computed."""
    check_structure(atoms, name)
    if atoms.pbc.any():
        raise InputError(f"Density functionals here are for molecules, and {name} is periodic.")
    check_overlap(atoms, name)
    charge_and_unpaired(atoms, name)
    core_potentials(basis, atoms.get_chemical_symbols())


def _check_room(electrons: int, orbitals: int, name: str) -> None:
    if electrons > orbitals:
        raise InputError(
            f"{name}: {electrons} electrons of one spin do not fit into {orbitals} independent "
            f"orbital{'s' if orbitals > 1 else ''}; take a larger basis or another multiplicity."
        )


def _blocks(orbitals: np.ndarray, weights: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """(4, points, n) and (points,) as blocks of even size, padded with points of no weight; whole multiples of 128, so that
    like molecules have the same shapes and share compiled programs."""
    points = len(weights)
    count = -(-points // block)
    size = min(block, 128 * -(-points // (128 * count)))
    pad = count * size - points
    orbitals = np.pad(orbitals, [(0, 0), (0, pad), (0, 0)])
    return np.ascontiguousarray(orbitals.reshape(4, count, size, -1).swapaxes(0, 1)), np.pad(weights, (0, pad)).reshape(
        count, size
    )


class Local(eqx.Module):
    """Spin densities of one block of the grid, their gradients and kinetic energy densities, (spins, …, points)."""

    rho: Float[Array, "spins points"]
    gradient: Float[Array, "spins 3 points"]
    tau: Float[Array, "spins points"]

    def density(self) -> Density:
        """As functionals read it: of both spins."""
        rho, gradient, tau = (jnp.concatenate([part, part]) if len(part) == 1 else part
                              for part in (self.rho, self.gradient, self.tau))  # fmt: skip
        (up, down) = gradient
        return Density(rho, jnp.stack([jnp.sum(a * b, axis=0) for a, b in ((up, up), (up, down), (down, down))]), tau)


def local_of_matrix(orbitals: Float[Array, "4 points n"], D: Float[Array, "spins n n"], level: str) -> Local:
    """From the density matrix; differentiable in it."""
    chi, slopes = orbitals[0], orbitals[1:]
    half = jnp.einsum("gn,snm->sgm", chi, D)
    rho = jnp.einsum("sgm,gm->sg", half, chi)
    empty = jnp.zeros((len(D), 3, len(chi)))
    gradient = empty if level == "lda" else 2 * jnp.einsum("sgm,dgm->sdg", half, slopes)
    tau = 0 * rho if level != "mgga" else 0.5 * jnp.einsum("dgn,snm,dgm->sg", slopes, D, slopes)
    return Local(rho, gradient, tau)


def local_of_orbitals(orbitals: Float[Array, "4 points n"], C: Float[Array, "spins n occupied"], level: str) -> Local:
    """From occupied orbitals, D = C C^T."""
    values = jnp.einsum("gn,sni->sgi", orbitals[0], C)
    rho = jnp.sum(values**2, axis=-1)
    if level == "lda":
        return Local(rho, jnp.zeros((len(C), 3, rho.shape[1])), 0 * rho)
    slopes = [jnp.einsum("gn,sni->sgi", part, C) for part in orbitals[1:]]
    gradient = jnp.stack([2 * jnp.sum(values * part, axis=-1) for part in slopes], axis=1)
    tau = 0 * rho if level != "mgga" else 0.5 * jnp.sum(jnp.stack([jnp.sum(part**2, axis=-1) for part in slopes]), axis=0)
    return Local(rho, gradient, tau)


def grid_density(molecule: Molecule, D: Float[Array, "spins n n"]) -> Density:
    """Local quantities at all points of the grid, padding included, in a row."""
    local = jax.lax.map(lambda orbitals: local_of_matrix(orbitals, D, "mgga").density(), molecule.orbitals)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(leaf.shape[1], -1), local)


def xc_energy(functional: Functional, molecule: Molecule, D: Float[Array, "spins n n"]) -> Float[Array, ""]:
    """The functional's energy of a density matrix, without exact exchange, Hartree."""

    def block(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        orbitals, weights = part
        local = local_of_matrix(orbitals, D, functional.level)
        return total + jnp.sum(weights * functional.energy_density(local.density())), None

    return jax.lax.scan(jax.checkpoint(block), jnp.zeros(()), (molecule.orbitals, molecule.weights))[0]


def energy(functional: Functional, molecule: Molecule, D: Float[Array, "spins n n"]) -> Float[Array, ""]:
    """Total energy of a density matrix, Hartree."""
    found = energy_without_xc(molecule, D)
    if functional.exact_exchange:
        found = found + functional.exact_exchange * exchange_energy(molecule, D)
    return found + xc_energy(functional, molecule, D)


def energy_without_xc(molecule: Molecule, D: Float[Array, "spins n n"]) -> Float[Array, ""]:
    """Kinetic energy, attraction to the nuclei, and classical repulsion of electrons and of nuclei, Hartree."""
    total = jnp.sum(D, axis=0) * (2 if molecule.restricted else 1)
    return jnp.vdot(total, molecule.core) + 0.5 * jnp.vdot(total, molecule.repulsion.coulomb(total)) + molecule.nuclear


def exchange_energy(molecule: Molecule, D: Float[Array, "spins n n"]) -> Float[Array, ""]:
    """Exact exchange of a density matrix, Hartree; raises `InputError` where the molecule has no integrals for it."""
    parts = jnp.stack([jnp.vdot(one, molecule.repulsion.exchange(one)) for one in D])
    return -0.5 * jnp.sum(parts) * (2 if molecule.restricted else 1)


def density_error(molecule: Molecule, D: Float[Array, "spins n n"], wanted: Float[Array, "spins n n"]) -> Float[Array, ""]:
    """The integral of (rho - rho of `wanted`)^2 an electron, of both spins together, Bohr^-3."""
    change = jnp.sum(D - wanted, axis=0) * (2 if molecule.restricted else 1)

    def block(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        orbitals, weights = part
        return total + jnp.sum(weights * jnp.sum((orbitals[0] @ change) * orbitals[0], axis=1) ** 2), None

    return jax.lax.scan(block, jnp.zeros(()), (molecule.orbitals, molecule.weights))[0] / sum(molecule.electrons)


def fock(functional: Functional, molecule: Molecule, D: Float[Array, "spins n n"]) -> Float[Array, "spins n n"]:
    """dE/dD of each spin, symmetric, Hartree."""
    return energy_and_fock(functional, molecule, D)[1]


def energy_and_fock(
    functional: Functional, molecule: Molecule, D: Float[Array, "spins n n"]
) -> tuple[Float[Array, ""], Float[Array, "spins n n"]]:
    """Both, from one pass."""
    found, F = jax.value_and_grad(lambda D: energy(functional, molecule, D))(D)
    if molecule.restricted:
        F = F / 2
    return found, (F + jnp.swapaxes(F, 1, 2)) / 2


def energy_and_fock_of_orbitals(
    functional: Functional,
    molecule: Molecule,
    C: Float[Array, "spins n orbitals"],
    empty: tuple[Bool[Array, ""], int] | None = None,
) -> tuple[Float[Array, ""], Float[Array, "spins n n"]]:
    """The same for D = C C^T, faster, and not to be differentiated: the potential on the grid by differentiation, its matrix by
    hand. `empty`: whether columns of C are zero from some place on, and that place; they cost nothing where they are.
    """
    level, twice = functional.level, 2 if molecule.restricted else 1

    def matrix(orbitals: Array, slope: Local) -> Array:
        """Half of a spin's potential in the basis, the other half its transpose; a plain product of matrices is fastest."""
        half = 0.5 * slope.rho[:, None] * orbitals[0]
        if level != "lda":
            half = half + sum(slope.gradient[d, :, None] * orbitals[1 + d] for d in range(3))
        V = orbitals[0].T @ half
        if level == "mgga":
            for part in orbitals[1:]:
                V = V + part.T @ (0.25 * slope.tau[:, None] * part)
        return V / twice

    def of_filled(function: Callable[[Array], Any]) -> Any:
        if empty is None:
            return function(C)
        return jax.lax.cond(empty[0], lambda: function(C[:, :, : empty[1]]), lambda: function(C))

    def block(carry: tuple[Array, Array], part: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        orbitals, weights = part
        local = of_filled(lambda C: local_of_orbitals(orbitals, C, level))

        def total(local: Local) -> Array:
            return jnp.sum(weights * functional.energy_density(local.density()))

        value, slope = jax.value_and_grad(total)(local)
        slope = jax.lax.optimization_barrier(slope)  # else XLA computes the functional anew for every basis function
        V = jnp.stack([matrix(orbitals, jax.tree.map(lambda part: part[spin], slope)) for spin in range(len(C))])  # noqa: B023
        return (carry[0] + value, carry[1] + V), None

    D = jnp.einsum("sni,smi->snm", C, C)
    (xc, V), _ = jax.lax.scan(block, (jnp.zeros(()), jnp.zeros_like(D)), (molecule.orbitals, molecule.weights))
    total = jnp.sum(D, axis=0) * twice
    J = molecule.repulsion.coulomb(total)
    F = molecule.core + J + V + jnp.swapaxes(V, 1, 2)
    found = jnp.vdot(total, molecule.core + 0.5 * J) + molecule.nuclear + xc
    if functional.exact_exchange:
        K = of_filled(lambda C: jnp.stack([molecule.repulsion.orbital_exchange(one) for one in C]))
        F = F - functional.exact_exchange * K
        found = found - 0.5 * functional.exact_exchange * twice * jnp.sum(D * K)
    return found, F


def spread(molecule: Molecule, D: Float[Array, "spins n n"]) -> Float[Array, ""]:
    """<r^2> of all electrons about the origin, Bohr^2."""
    return jnp.vdot(jnp.sum(D, axis=0) * (2 if molecule.restricted else 1), molecule.square)
