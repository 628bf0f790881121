"""Charge and multiplicity of a structure, as electronic structure needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from broadsheet.atoms.label_names import CHARGE, SPIN, check_stated
from broadsheet.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms


def charge_and_multiplicity(structure: Atoms, name: str = "the structure") -> tuple[int, int | None]:
    """Total charge (e) and multiplicity (2S + 1) by `info`, as `check_stated` reads it, or by the sums of the atoms' initial
    charges and magnetic moments; without any, 0 and None. A multiplicity of 0 says nothing, as fairchem writes it.

    **Raises:** `InputError` where one is not whole, where info and atoms contradict each other, for moments that are vectors,
    and for moments that cancel where no multiplicity is stated, since all electrons are paired here then.
    """
    info = check_stated(structure.copy(), name).info
    charge, multiplicity = info.get("charge"), info.get("spin")
    for what, key, stated in (("charges", "initial_charges", charge), ("magnetic moments", "initial_magmoms", multiplicity)):
        values = np.asarray(structure.arrays.get(key, 0.0))
        if not np.isfinite(values).all() or values.ndim > 1:
            raise InputError(f"{name} has initial {what} that are {'vectors' if values.ndim > 1 else 'not finite'}.")
        total = float(values.sum())
        if stated is None and abs(total - round(total)) > 1e-3:
            raise InputError(f"{name} has initial {what} that add up to {total:g}; a whole number is wanted.")
        if stated is None and key == "initial_magmoms" and values.any() and not round(total):
            raise InputError(
                f"{name} has initial magnetic moments that cancel, and such states are not made here; say its multiplicity "
                "(`spin`) to have that of all electrons together."
            )
    return _whole("charge", charge, name) or 0, _whole("multiplicity", multiplicity, name) or None


def charge_and_unpaired(structure: Atoms, name: str = "the structure") -> tuple[int, int]:
    """Total charge (e) and unpaired electrons (2S), as few as can be where no multiplicity is said.

    **Raises:** `InputError` as `charge_and_multiplicity`, and where the electrons do not allow them.
    """
    charge, multiplicity = charge_and_multiplicity(structure, name)
    electrons = int(structure.numbers.sum()) - charge
    if electrons < 1:
        raise InputError(f"{name} has the charge {charge} and so no electrons.")
    unpaired = electrons % 2 if multiplicity is None else multiplicity - 1
    if unpaired > electrons or (electrons - unpaired) % 2:
        raise InputError(f"{name}: {electrons} electrons cannot have the multiplicity {multiplicity}.")
    return charge, unpaired


def _whole(what: str, value: Any, name: str) -> int | None:
    if value is None:
        return None
    found = float(np.asarray(value).item())
    if found != round(found) or (what == "multiplicity" and found < 0):
        least = "" if what == "charge" else ", 1 or more,"
        raise InputError(f"{name} has the {what} {found:g}; a whole number{least} is wanted.")
    return round(found)


def charge_changed(before: Atoms | None, after: Atoms) -> list[str]:
    """["info"] where the charge or multiplicity that `info` says differs, as ASE's calculators list changes: they look at
    everything but that.
    """
    same = before is None or all(before.info.get(key) == after.info.get(key) for key in (*CHARGE, *SPIN))
    return [] if same else ["info"]
