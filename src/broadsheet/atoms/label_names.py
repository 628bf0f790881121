"""Under which names files keep energies, forces, stress, charge and multiplicity, and what is one level of theory."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from broadsheet.atoms.structures import check_labels, has_volume
from broadsheet.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms

Quantity = Literal["energy", "forces", "stress"]
Found = dict[str, tuple[str, Any]]
"""Key and value by quantity: energy, forces, stress, virial."""
QUANTITIES: tuple[Quantity, ...] = ("energy", "forces", "stress")
NAME = re.compile(r"(?:(?P<before>.+)_)?(?P<what>energy|forces?|stress|virials?)(?:_(?P<after>.+))?", re.IGNORECASE)
LEVELS = {"", "ref", "dft", "qm", "mace"}
"""Marks of a level of theory, without case; any other mark is one where energy and forces both have it."""
NO_LEVELS = {"free", "std", "var", "error", "weight", "uncertainty", "per_atom", "unit", "units"}
SIMILAR = {"energy": "energ", "forces": "forc", "stress": "stress|virial"}
OTHERS = {"energy": "per_?atom", "forces": "grad"}
"""Parts of names of what is no total energy, or has the other sign."""
NO_LABEL = "per_?atom|unit|std|weight|error"
UNITS = {"ev", "ev/å", "ev/a", "ev/ang", "ev/angstrom", "ev/å^3", "ev/a^3", "ev/ang^3", "ev/angstrom^3", "å", "a", "ang",
         "angstrom", "angstroms", "electronvolt", "metal", "ase"}  # fmt: skip
"""Words for the units that are read, without case; `metal` is LAMMPS's."""
WITH_UNITS = {"", "energy", "energies", "force", "forces", "stress", "virial", "virials", "length", "position", "positions",
              "coordinates", "cell", "lattice"}  # fmt: skip
CHARGE = ("charge", "total_charge", "net_charge")
SPIN = ("spin", "multiplicity", "spin_multiplicity", "mult")


@dataclass
class LabelNames:
    """Finds the labels of structures, all of one level of theory, and puts them where `energies_of` and batches look.

    A level has `energy` (eV), `forces` or `force` (eV/Å) and `stress` (eV/Å^3, ASE's sign; six numbers xx, yy, zz, yz, xz, xy,
    or the matrix) or `virial(s)` (eV, minus stress times volume): all without a mark, or all with one before or after, as
    `REF_energy` and `REF_forces`, `dft_energy`, `energy_dft`. Of two levels that differ none is taken.

    **Arguments:** `energy`, `forces`, `stress`: keys to take, wherever they are; what is not named is of their level. `wanted`:
    what each structure must have. One instance holds the structures of several files to one level.
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    wanted: tuple[Quantity, ...] = ()
    _levels: set[str] = field(default_factory=set, init=False, repr=False)

    def take(self, structure: Atoms, where: str) -> Atoms:
        """The structure with its labels; `where` names it in errors.

        **Raises:** `DataError` for labels that are missing, no numbers, not finite or of another shape, for two levels in a
        structure, or another level than that of the structures before.
        """
        levels = _levels_of(structure, where)
        given: dict[str, str] = {what: key for what in QUANTITIES if (key := getattr(self, what)) is not None}
        found = _named(structure, given, levels, where) if given else self._one_level(levels, where)
        plain = not given and found is levels.get("")
        if "virial" in found:
            found = _with_stress(structure, found, "stress" in self.wanted, where)
        for what in self.wanted:
            if what not in found:
                raise DataError(f"{where} has no {what}{_similar(structure, what)}.")
        if "stress" in self.wanted and not has_volume(structure):
            raise DataError(f"{where} has a stress but no volume: it is not periodic in all three directions.")
        results = structure.calc.results if structure.calc is not None else {}
        if any(results.get(what) is not value for what, (_, value) in found.items() if what != "virial"):
            from ase.calculators.singlepoint import SinglePointCalculator

            labels = {what: _shaped(what, *found[what], len(structure), where) for what in QUANTITIES if what in found}
            labels = {name: value for name, value in results.items() if plain and name not in QUANTITIES} | labels
            structure.calc = SinglePointCalculator(structure, **labels)
        check_labels(structure, where)
        return structure

    def _one_level(self, levels: dict[str, Found], where: str) -> Found:
        """The level that all structures have, or nothing."""
        real = {
            mark: found for mark, found in levels.items()
            if (_bare(mark) in LEVELS and found.keys() & {"energy", "forces"}) or found.keys() >= {"energy", "forces"}
        }  # fmt: skip
        if not real:
            return {}
        first, *others = real.values()
        for other in others:
            if not _agree(first, other):
                raise DataError(f"{where} has labels of two levels of theory, {_keys(first)} and {_keys(other)}; {_choose()}.")
        if self._levels and not self._levels & real.keys():
            raise DataError(
                f"{where} has {_keys(first)}, and structures before it have labels of another mark, which can be of another "
                f"level of theory; {_choose()}."
            )
        self._levels = self._levels & real.keys() if self._levels else {*real}
        return max((real[mark] for mark in real if mark in self._levels), key=len)


def _choose() -> str:
    return "name the keys to take, by --energy-key, --forces-key and --stress-key on the command line"


def _keys(found: Found) -> str:
    return " with ".join(found[what][0] for what in (*QUANTITIES, "virial") if what in found)


def _bare(mark: str) -> str:
    return mark.strip("_").lower()


@functools.lru_cache(maxsize=4096)
def classified(name: str) -> tuple[str, str] | None:
    """(mark, quantity) of a key: `REF_forces` are the forces of the mark `REF_`; None for what is no label."""
    match = NAME.fullmatch(name)
    if match is None or (match["before"] and match["after"]):
        return None
    what = {"e": "energy", "f": "forces", "s": "stress", "v": "virial"}[match["what"][0].lower()]
    mark = f"{match['before']}_" if match["before"] else f"_{match['after']}" if match["after"] else ""
    return None if _bare(mark) in NO_LEVELS else (mark, what)


def _levels_of(structure: Atoms, where: str) -> dict[str, Found]:
    """What the structure has, by mark. Energies and stress are of the structure, forces of its atoms."""
    levels: dict[str, Found] = {}
    results = structure.calc.results if structure.calc is not None else {}
    for source in (results, structure.info, structure.arrays):
        for name, value in source.items():
            known = classified(name) if isinstance(name, str) else None
            if known is None:
                continue
            mark, what = known
            of_atoms = source is structure.arrays or (what == "forces" and np.size(value) == 3 * len(structure))
            if source is not results and of_atoms != (what == "forces"):
                continue
            level = levels.setdefault(mark, {})
            if what in level and not _same(what, level[what][1], value):
                raise DataError(f"{where} has two values of its {what}, under {level[what][0]} and {name}; {_choose()}.")
            level.setdefault(what, (name, value))
    return levels


def _named(structure: Atoms, given: dict[str, str], levels: dict[str, Found], where: str) -> Found:
    """The keys that are wanted, and what else is of their level."""
    found: Found = {}
    marks = {known[0] for key in given.values() if (known := classified(key)) is not None}
    if len(marks) == 1:
        found |= levels.get(marks.pop(), {})
    if "stress" in given:
        found.pop("virial", None)
        found.pop("stress", None)
    for what, key in given.items():
        if what in OTHERS and re.search(OTHERS[what], key, re.IGNORECASE):
            kind = "an energy of each atom, and totals are" if what == "energy" else "a gradient, and forces, minus it, are"
            raise DataError(f"{where}: {key} says by its name that it is {kind} wanted.")
        results = structure.calc.results if structure.calc is not None else {}
        source = next((each for each in (results, structure.info, structure.arrays) if key in each), None)
        if source is None:
            raise DataError(f"{where} has no {key}{_similar(structure, what)}.")
        known = classified(key)
        found["virial" if what == "stress" and known is not None and known[1] == "virial" else what] = (key, source[key])
    return found


def _similar(structure: Atoms, what: str) -> str:
    """Which keys of a structure could be what is missed."""
    results = structure.calc.results if structure.calc is not None else {}
    names = [str(name) for name in (*results, *structure.info, *structure.arrays)]
    near = [
        name for name in dict.fromkeys(names) if re.search(SIMILAR[what], name, re.I) and not re.search(NO_LABEL, name, re.I)
    ]
    return f" (it has {', '.join(near[:4])}; --{what}-key names one on the command line)" if near else ""


def _same(what: str, one: Any, other: Any) -> bool:
    try:
        one, other = (np.asarray(each, float) for each in (one, other))
    except (ValueError, TypeError):
        return str(one) == str(other)
    if what in ("stress", "virial"):
        one, other = (each.ravel()[[0, 4, 8, 5, 2, 1]] if each.size == 9 else each for each in (one, other))
    return one.size == other.size and np.allclose(one.ravel(), other.ravel(), rtol=1e-6, atol=1e-6, equal_nan=True)


def _agree(one: Found, other: Found) -> bool:
    shared = one.keys() & other.keys()
    return bool(shared) and all(_same(what, one[what][1], other[what][1]) for what in shared)


def _with_stress(structure: Atoms, found: Found, wanted: bool, where: str) -> Found:
    """Stress from a virial: minus virial / volume."""
    key, value = found["virial"]
    rest = {what: pair for what, pair in found.items() if what != "virial"}
    if not has_volume(structure):
        if wanted:
            raise DataError(f"{where} has a {key} but no volume: it is not periodic in all three directions.")
        return rest
    stress = -_shaped("stress", key, value, len(structure), where) / structure.cell.volume
    if "stress" not in rest:
        return rest | {"stress": (key, stress)}
    own, given = _shaped("stress", *rest["stress"], len(structure), where), rest["stress"][0]
    if not np.allclose(own, stress, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise DataError(f"{where}: {given} is not minus {key} / volume; name one of them by --stress-key on the command line.")
    return rest


def _shaped(what: str, key: str, value: Any, atoms: int, where: str) -> Any:
    """A label as ASE keeps it: a number, (atoms, 3), or xx, yy, zz, yz, xz, xy."""
    try:
        found = np.asarray(value)
        if found.dtype.kind not in "iuf":
            raise ValueError
    except ValueError:
        raise DataError(f"{where}: {key}={str(value)[:40]} is no number.") from None
    found = found.astype(float)
    sizes = {"energy": (1,), "forces": (3 * atoms,), "stress": (6, 9)}[what]
    if found.size not in sizes:
        raise DataError(f"{where}: {key} has {found.size} numbers; {' or '.join(map(str, sizes))} are wanted.")
    if what == "energy":
        return float(found.item())
    if what == "forces":
        return found.reshape(-1, 3)
    if found.size == 6:
        return found.ravel()
    matrix = found.reshape(3, 3)
    if (np.abs(matrix - matrix.T) > 1e-6 + 0.01 * np.abs(matrix).max()).any():
        raise DataError(f"{where}: {key} is not symmetric.")
    return matrix.flat[[0, 4, 8, 5, 2, 1]]


def without_labels(structure: Atoms) -> Atoms:
    """A copy without labels, whatever their names: those of other positions are none of the moved structure."""
    made = structure.copy()
    for source in (made.info, made.arrays):
        for name in [name for name in source if isinstance(name, str) and classified(name) is not None]:
            del source[name]
    return made


@functools.lru_cache(maxsize=4096)
def _states_units(key: str) -> bool:
    stem, _, last = key.lower().rpartition("_")
    return last in ("unit", "units") and stem.rpartition("_")[2] in WITH_UNITS


def check_stated(structure: Atoms, where: str) -> Atoms:
    """The structure with its total charge (e) in `info["charge"]` and its multiplicity in `info["spin"]`, where it has them.

    The charge is read from `charge`, `total_charge` or `net_charge`, the multiplicity from `spin`, `multiplicity`,
    `spin_multiplicity` or `mult`. Of an open structure without them, initial charges and magnetic moments of the atoms that
    add up to whole numbers say it, as they do to ASE's calculators.

    **Raises:** `DataError` where two of these contradict each other or are no numbers, or the structure states units that are
    not eV and Å.
    """
    info = structure.info
    for key in info:
        if not isinstance(key, str) or not _states_units(key):
            continue
        words = str(info[key]).lower().replace("**", "^").replace("ångström", "å").replace(",", " ").split()
        if not set(words) <= UNITS:
            raise DataError(f"{where} states {key}={str(info[key])[:40]}; energies are read in eV and lengths in Å.")
    for name, keys, total, what in (
        ("charge", CHARGE, _whole_sum(structure, "initial_charges"), "initial charges"),
        ("spin", SPIN, _multiplicity(structure), "initial magnetic moments"),
    ):
        stated = {key: _number(key, info[key], where) for key in keys if key in info}
        if len({*stated.values()}) > 1:
            raise DataError(f"{where} has {' and '.join(f'{key}={value:g}' for key, value in stated.items())}.")
        if not stated and total is not None:
            info[name] = total
        elif stated:
            (key, value), *_ = stated.items()
            if total is not None and value != total:
                raise DataError(f"{where} has {key}={value:g}, and the {what} of its atoms say {total}.")
            if name not in info:
                info[name] = info[key]
    return structure


def _number(key: str, value: Any, where: str) -> float:
    try:
        found = np.asarray(value)
        if found.dtype.kind not in "iuf" or found.size != 1 or not np.isfinite(found).all():
            raise ValueError
    except ValueError:
        raise DataError(f"{where}: {key}={str(value)[:40]} is no number.") from None
    return float(found.item())


def _whole_sum(structure: Atoms, name: str) -> int | None:
    """The sum over an open structure's atoms, where it is whole and not zero."""
    if name not in structure.arrays or structure.arrays[name].ndim != 1 or structure.pbc.any():
        return None
    total = structure.arrays[name].sum()
    near = np.round(total) if np.isfinite(total) else 0
    return int(near) if near and abs(total - near) < 1e-3 else None


def _multiplicity(structure: Atoms) -> int | None:
    total = _whole_sum(structure, "initial_magmoms")
    return None if total is None else abs(total) + 1
