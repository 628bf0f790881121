"""Labels from electronic structure and from classical calculators, and frames of molecular dynamics with them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from broadsheet.atoms.charge import charge_and_multiplicity, charge_and_unpaired, charge_changed
from broadsheet.atoms.label_names import CHARGE, SPIN
from broadsheet.atoms.neighbours import check_overlap
from broadsheet.atoms.structures import labelled
from broadsheet.cache import digest, fixture
from broadsheet.errors import DataError, InputError, MissingExtraError

if TYPE_CHECKING:
    from ase import Atoms

Method = Literal["emt", "lj", "gfn1", "gfn2", "b3lyp/6-31g*"]
MOLECULES = ("CH3CH2OH", "CH3COOH", "CH3NO2", "C2H6NH", "CH3CONH2", "C3H8", "H2CCO", "C4H4O")
"""ASE's g2 molecules whose labelled frames ship with the package."""


def calculator(method: Method, structure: Atoms | None = None) -> Any:
    """The ASE calculator of a method: effective medium theory, Lennard-Jones, GFN1/2-xTB (tblite) or B3LYP (PySCF).

    Charge and multiplicity are those of `charge_and_multiplicity`.

    **Raises:** `InputError` for another name, and a charge or multiplicity that is not whole; `MissingExtraError` where the
    program is missing.
    """
    if method == "emt":
        from ase.calculators.emt import EMT

        return EMT()
    if method == "lj":
        from ase.calculators.lj import LennardJones

        return LennardJones()
    if method in ("gfn1", "gfn2"):
        try:
            from tblite.ase import TBLite
        except ImportError:
            raise MissingExtraError(f"{method} energies (tblite)", "atoms") from None
        charge, multiplicity = (None, None) if structure is None else charge_and_multiplicity(structure)
        return TBLite(
            method="GFN1-xTB" if method == "gfn1" else "GFN2-xTB", verbosity=0, charge=charge, multiplicity=multiplicity
        )
    if method == "b3lyp/6-31g*":
        return B3LYP()
    raise InputError(f"{method!r} is no method; {', '.join(get_args(Method))} are.")


class B3LYP(Calculator):
    """Energy and forces of B3LYP/6-31G* by PySCF, for molecules; charge and multiplicity as in `charge_and_multiplicity`, the
    lowest by default.

    With six Cartesian d functions, as Gaussian and GAMESS have that basis; five change an atom's energy by 40 meV.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Sequence[str] = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        try:
            from pyscf import dft, gto
        except ImportError:
            raise MissingExtraError("B3LYP energies (PySCF)", "atoms") from None
        from ase.units import Bohr, Hartree

        structure = self.atoms
        assert structure is not None
        check_overlap(structure)
        if structure.pbc.any():
            raise InputError("B3LYP/6-31G* is for molecules here, and the structure is periodic.")
        charge, unpaired = charge_and_unpaired(structure)
        parts = list(zip(structure.get_chemical_symbols(), structure.positions.tolist(), strict=True))
        molecule = gto.M(atom=parts, basis="6-31g*", charge=charge, spin=unpaired, cart=True, verbose=0)
        field = (dft.UKS if unpaired else dft.RKS)(molecule, xc="b3lyp")
        energy = field.kernel()
        if not field.converged:
            raise InputError("B3LYP/6-31G* isn't converged.")
        self.results = {"energy": energy * Hartree, "forces": -field.nuc_grad_method().kernel() * Hartree / Bohr}

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        return [*super().check_state(atoms, tol), *charge_changed(self.atoms, atoms)]


def label(structures: Sequence[Atoms], method: Method = "gfn2") -> list[Atoms]:
    """Copies with energy (eV) and forces (eV/Å) of the method, and stress where a calculator of periodic cells has it.

    Made once for each list of structures and kept in the cache.

    **Raises:** `InputError` where the method fails on a structure (named by its place).
    """
    content = digest([[each.numbers.tolist(), each.positions.round(10).tolist(), each.cell.array.round(10).tolist(),
                       each.pbc.tolist(), each.info.get("charge", 0), each.info.get("spin", 1), *_said_otherwise(each)]
                      for each in structures])  # fmt: skip

    def build(folder: Any) -> None:
        found: dict[str, np.ndarray] = {}
        for k, each in enumerate(structures):
            try:
                energy, forces, stress = _labels_of(each, method)
            except MissingExtraError:
                raise
            except Exception as error:
                raise InputError(f"{method} fails on structure {k}: {str(error).splitlines()[0][:120]}.") from None
            found |= {f"e{k}": np.asarray(energy), f"f{k}": forces}
            if stress is not None:
                found[f"s{k}"] = stress
        np.savez_compressed(folder / "labels.npz", **found)  # type: ignore[arg-type]

    place = fixture("atom-labels", {"method": method, "structures": content, "version": 1}, build)
    with np.load(place / "labels.npz", allow_pickle=False) as kept:
        return [
            labelled(each, float(kept[f"e{k}"]), kept[f"f{k}"], kept[f"s{k}"] if f"s{k}" in kept.files else None)
            for k, each in enumerate(structures)
        ]


def _said_otherwise(structure: Atoms) -> list[Any]:
    """Charge and multiplicity where they are not in `info` under the names that labels were always found by."""
    others = ("initial_charges" in structure.arrays, "initial_magmoms" in structure.arrays,
              bool({*CHARGE[1:], *SPIN[1:]} & structure.info.keys()))  # fmt: skip
    return list(charge_and_multiplicity(structure)) if any(others) else []


def _labels_of(structure: Atoms, method: Method) -> tuple[float, np.ndarray, np.ndarray | None]:
    calc = calculator(method, structure)
    made = structure.copy()
    made.calc = calc
    with few_threads(method):
        stress = made.get_stress(apply_constraint=False) if made.pbc.all() else None
        return made.get_potential_energy(), made.get_forces(apply_constraint=False), stress


def few_threads(method: Method) -> contextlib.AbstractContextManager[object]:
    """One thread for tight binding: several wait for each other and make small molecules nine times slower."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1) if method in ("gfn1", "gfn2") else contextlib.nullcontext()


def frames(
    structure: Atoms,
    method: Method = "gfn2",
    *,
    count: int,
    temperature: float,
    every: int = 20,
    settle: int = 100,
    dt: float = 0.5,
    seed: int = 0,
    report: Callable[[int], None] | None = None,
) -> list[Atoms]:
    """Labelled frames of ASE's Langevin dynamics, `every` steps of `dt` (fs) apart, after `settle` steps at `temperature`
    (K).
    """
    from ase import units
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

    rng = np.random.default_rng(seed)
    made = structure.copy()
    made.calc = calculator(method, structure)
    MaxwellBoltzmannDistribution(made, temperature_K=temperature, rng=rng)
    motion = Langevin(made, dt * units.fs, temperature_K=temperature, friction=0.02 / units.fs, fixcm=False, rng=rng)
    motion.run(settle)
    found = []
    for k in range(count):
        motion.run(every)
        found.append(labelled(made, made.get_potential_energy(), made.get_forces(apply_constraint=False)))
        if report is not None:
            report(k)
    return found


def molecules(names: Sequence[str] = MOLECULES, count: int | None = None) -> list[list[Atoms]]:
    """Frames of small molecules with GFN2-xTB energies and forces that ship with the package: for each name the first `count`.

    60 frames a molecule (240 of ethanol) of Langevin dynamics at 300 to 700 K, 10 fs apart, in random order.

    **Raises:** `InputError` for a name that does not ship.
    """
    from ase import Atoms

    unknown = sorted(set(names) - set(MOLECULES))
    if unknown:
        raise InputError(f"{unknown[0]} does not ship; {', '.join(MOLECULES)} do.")
    source = resources.files("broadsheet.atoms") / "molecules.npz"
    with resources.as_file(source) as path, np.load(path, allow_pickle=False) as data:
        found = []
        for name in names:
            positions, energies, forces = (data[f"{name}_{part}"] for part in ("positions", "energy", "forces"))
            if count is not None and count > len(energies):
                raise DataError(f"{name} has {len(energies)} frames; {count} are wanted.")
            rows = range(len(energies) if count is None else count)
            found.append([
                labelled(Atoms(data[f"{name}_numbers"], positions[k].astype(float)), energies[k], forces[k].astype(float))
                for k in rows
            ])  # fmt: skip
    return found


def make_molecules(path: str, counts: Sequence[int] = (240, *[60] * 7)) -> None:
    """Writes the shipped frames again."""
    from ase.build import molecule

    arrays: dict[str, np.ndarray] = {}
    for k, (name, count) in enumerate(zip(MOLECULES, counts, strict=True)):
        found: list[Atoms] = []
        for part, temperature in enumerate((300.0, 500.0, 700.0)):
            found += frames(molecule(name), count=count // 3, temperature=temperature, seed=100 * k + part)
        order = np.random.default_rng(k).permutation(len(found))
        arrays[f"{name}_numbers"] = found[0].numbers.astype(np.int16)
        arrays[f"{name}_positions"] = np.array([found[n].positions for n in order], np.float64).round(6).astype(np.float32)
        # labels of the rounded positions, so that the file is consistent to the last digit
        again = [found[0].copy() for _ in order]
        for each, positions in zip(again, arrays[f"{name}_positions"], strict=True):
            each.positions = positions.astype(float)
        again = label(again)
        arrays[f"{name}_energy"] = np.array([each.get_potential_energy() for each in again])
        arrays[f"{name}_forces"] = np.array([each.get_forces() for each in again], np.float32)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
