"""What a structure says of how its atoms move: which directions are free, and the velocities that it has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from broadsheet.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

KEEP_ALL = (".traj", ".json")
"""Files of ASE that hold any constraint."""
FIXED = 1e-6
"""Share of the largest velocity that may point along a fixed direction: the rounding of a file."""


def freedom(structure: Atoms, name: str = "the structure") -> Float[np.ndarray, "atoms 3 3"] | None:
    """For each atom the projection onto the directions in which it may move; None where nothing is fixed.

    Read are ASE's FixAtoms, FixCartesian, FixScaled, FixedPlane and FixedLine; several on one atom hold together.

    **Raises:** `InputError` naming a constraint of any other kind.
    """
    if not structure.constraints:
        return None
    from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled

    normals = np.zeros((len(structure), 3, 3))  # sums of n n^T over the directions n that are fixed
    for each in structure.constraints:
        if isinstance(each, FixAtoms):
            fixed = np.eye(3)
        elif isinstance(each, FixCartesian):
            fixed = np.diag(np.asarray(each.mask, float))
        elif isinstance(each, FixScaled):
            across = structure.cell.reciprocal()[np.asarray(each.mask, bool)]
            across = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-300)
            fixed = across.T @ across
        elif isinstance(each, FixedPlane):
            fixed = np.outer(each.dir, each.dir)
        elif isinstance(each, FixedLine):
            fixed = np.eye(3) - np.outer(each.dir, each.dir)
        else:
            raise InputError(
                f"{name} has the constraint {type(each).__name__}, which is not kept here; FixAtoms, FixCartesian, FixScaled, "
                "FixedPlane and FixedLine are."
            )
        normals[np.asarray(each.index, int)] += fixed
    values, vectors = np.linalg.eigh(normals)
    open_ = values < 1e-9
    found = np.einsum("nik,nk,njk->nij", vectors, open_, vectors)
    along_axes = ~(normals * (1 - np.eye(3))).any(axis=(1, 2))  # these exactly, so that what is fixed stays to the bit
    found[along_axes] = np.eye(3) * (np.diagonal(normals[along_axes], axis1=1, axis2=2) < 1e-9)[:, None, :]
    return found


def velocities_of(structure: Atoms, name: str = "the structure") -> Float[np.ndarray, "atoms 3"] | None:
    """The velocities that a structure's momenta say, Å/fs; None where it has none.

    **Raises:** `InputError` for momenta that are not finite or move an atom along a direction that a constraint fixes.
    """
    from ase import units

    if "momenta" not in structure.arrays or not structure.arrays["momenta"].any():
        return None
    found = structure.get_velocities() * units.fs
    if not np.isfinite(found).all():
        raise InputError(f"{name} has momenta that are not finite.")
    check_velocities(found, freedom(structure, name), name)
    return found


def check_velocities(velocities: np.ndarray, free: np.ndarray | None, name: str) -> None:
    """Raises `InputError` where a velocity points along a direction that is fixed."""
    if free is None:
        return
    along = np.abs(velocities - np.einsum("nij,nj->ni", free, velocities)).max(axis=1)
    if along.max() > FIXED * np.abs(velocities).max():
        raise InputError(f"{name}: atom {int(along.argmax())} has a velocity along a direction in which it is fixed.")


def check_written(structure: Atoms, path: Path, name: str = "the structure") -> None:
    """Raises `InputError` for constraints that a file of this kind does not keep, so that they are not lost on the way."""
    from ase.constraints import FixAtoms, FixCartesian

    if path.suffix.lower() in KEEP_ALL:
        return
    kept = (FixAtoms, FixCartesian) if path.suffix.lower() in (".xyz", ".extxyz") else ()
    lost = [type(each).__name__ for each in structure.constraints if not isinstance(each, kept)]
    if lost:
        raise InputError(
            f"{name} has the constraint {lost[0]}, which {path} would not keep; .traj keeps all, extended XYZ FixAtoms and "
            "FixCartesian."
        )
