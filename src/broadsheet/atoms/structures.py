"""Structures and padded batches of them. Å, eV, eV/Å, eV/Å^3; stress with ASE's sign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from broadsheet.atoms.constraints import freedom
from broadsheet.errors import DataError, InputError

if TYPE_CHECKING:
    from ase import Atoms

MAX_NUMBER = 118
FARTHEST = 1e8
"""Å, the largest coordinate."""
ARTICLES = {"energy": "an ", "forces": "", "stress": "a "}


class AtomsBatch(eqx.Module):
    """Structures laid one after the other, padded so that few shapes are compiled.

    The last structure is empty and owns the padding atoms; `node_mask` and `graph_mask` say what is real. Labels are None
    where the structures have none.

    - `positions`: Å; `numbers`: atomic numbers, 0 for padding; `graph`: which structure an atom belongs to.
    - `cell`: rows are lattice vectors, Å, zero where a structure is open; `pbc`: which of them repeat.
    - `charge`: total charge, e; `spin`: multiplicity, 2S + 1.
    - `energy`: eV; `forces`: eV/Å; `stress`: eV/Å^3.
    - `masses`: amu, None where no structure has other than those of its elements; `free`: projections onto the directions in
      which atoms may move, None where none is fixed.
    """

    positions: Float[Array, "atoms 3"] | Float[np.ndarray, "atoms 3"]
    numbers: Int[Array, " atoms"] | Int[np.ndarray, " atoms"]
    graph: Int[Array, " atoms"] | Int[np.ndarray, " atoms"]
    cell: Float[Array, "structures 3 3"] | Float[np.ndarray, "structures 3 3"]
    pbc: Bool[Array, "structures 3"] | Bool[np.ndarray, "structures 3"]
    charge: Float[Array, " structures"] | Float[np.ndarray, " structures"]
    spin: Float[Array, " structures"] | Float[np.ndarray, " structures"]
    node_mask: Bool[Array, " atoms"] | Bool[np.ndarray, " atoms"]
    graph_mask: Bool[Array, " structures"] | Bool[np.ndarray, " structures"]
    energy: Float[Array, " structures"] | Float[np.ndarray, " structures"] | None = None
    forces: Float[Array, "atoms 3"] | Float[np.ndarray, "atoms 3"] | None = None
    stress: Float[Array, "structures 3 3"] | Float[np.ndarray, "structures 3 3"] | None = None
    masses: Float[Array, " atoms"] | Float[np.ndarray, " atoms"] | None = None
    free: Float[Array, "atoms 3 3"] | Float[np.ndarray, "atoms 3 3"] | None = None

    @property
    def structures(self) -> int:
        """Structures, the padding one among them."""
        return self.cell.shape[0]

    def counts(self) -> Float[Array, " structures"]:
        """Atoms of each structure, at least 1."""
        ones = self.node_mask.astype(self.positions.dtype)
        return jax.numpy.maximum(jax.ops.segment_sum(ones, self.graph, self.structures), 1)

    def sum_atoms(self, values: Float[Array, "atoms ..."]) -> Float[Array, "structures ..."]:
        """Sums over the real atoms of each structure."""
        mask = self.node_mask.reshape(-1, *(1,) * (values.ndim - 1))
        return jax.ops.segment_sum(jax.numpy.where(mask, values, 0), self.graph, self.structures)

    def allowed(self, vectors: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
        """The part of each atom's vector along which constraints let it move."""
        return vectors if self.free is None else jax.numpy.einsum("nij,nj->ni", jax.numpy.asarray(self.free), vectors)


def bucket(size: int, step: int = 8) -> int:
    """The next of few sizes: multiples of `step`, and from 16 steps on eight an octave."""
    if size > 16 * step:
        step *= 2 ** int(np.log2(size / (8 * step)))
    return max(step, -(-size // step) * step)


def batch_atoms(
    structures: Sequence[Atoms], *, atoms: int | None = None, count: int | None = None, motion: bool = True
) -> AtomsBatch:
    """A padded batch of ASE structures.

    Labels are taken from a calculator that holds results (as after reading extended XYZ), charge and multiplicity from
    `info["charge"]` and `info["spin"]`. **Arguments:** `atoms`, `count`: sizes to pad to; the next bucket by default; `motion`:
    masses and constraints too, for what moves atoms.

    **Raises:** `InputError` for an empty list, positions that are not finite, a periodic direction without a lattice vector,
    sizes too small, a charge or multiplicity that is no number, or a constraint that `freedom` does not read.
    """
    if not structures:
        raise InputError("There are no structures to batch.")
    for k, each in enumerate(structures):
        check_structure(each, f"structure {k}")
    sizes = [len(each) for each in structures]
    total, padded = sum(sizes), atoms if atoms is not None else bucket(sum(sizes))
    graphs = count + 1 if count is not None else bucket(len(structures), 4) + 1
    if padded < total or graphs <= len(structures):
        raise InputError(f"{len(structures)} structures of {total} atoms do not fit into {graphs - 1} of {padded}.")
    dtype = np.dtype(jax.numpy.result_type(float))

    def per_atom(parts: list[Any], shape: tuple[int, ...] = ()) -> np.ndarray:
        out = np.zeros((padded, *shape), dtype)
        out[:total] = np.concatenate(parts)
        return out

    def per_structure(parts: list[Any], shape: tuple[int, ...] = (), fill: float = 0.0) -> np.ndarray:
        out = np.full((graphs, *shape), fill, dtype)
        out[: len(parts)] = parts
        return out

    labels = [_labels(each) for each in structures]
    every = {name: all(name in each for each in labels) for name in ("energy", "forces", "stress")}
    pbc = np.zeros((graphs, 3), bool)
    pbc[: len(structures)] = [each.pbc for each in structures]
    weighed = motion and any("masses" in each.arrays for each in structures)
    free = [freedom(each, f"structure {k}") for k, each in enumerate(structures)] if motion else []
    return AtomsBatch(
        positions=per_atom([each.positions for each in structures], (3,)),
        numbers=per_atom([each.numbers for each in structures]).astype(np.int32),
        graph=np.concatenate([np.repeat(np.arange(len(sizes)), sizes), np.full(padded - total, graphs - 1)]).astype(np.int32),
        cell=per_structure([each.cell.array for each in structures], (3, 3)),
        pbc=pbc,
        charge=per_structure([_stated(each, "charge", 0.0, k) for k, each in enumerate(structures)]),
        spin=per_structure([_stated(each, "spin", 1.0, k) for k, each in enumerate(structures)], fill=1.0),
        node_mask=np.arange(padded) < total,
        graph_mask=np.arange(graphs) < len(structures),
        energy=per_structure([each["energy"] for each in labels]) if every["energy"] else None,
        forces=per_atom([each["forces"] for each in labels], (3,)) if every["forces"] else None,
        stress=per_structure([each["stress"] for each in labels], (3, 3)) if every["stress"] else None,
        masses=per_atom([each.get_masses() for each in structures]) if weighed else None,
        free=per_atom([_all_free(n) if one is None else one for n, one in zip(sizes, free, strict=True)], (3, 3))
        if any(one is not None for one in free) else None,
    )  # fmt: skip


def _stated(structure: Atoms, key: str, default: float, place: int) -> float:
    value = structure.info.get(key, default)
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = np.nan
    if not np.isfinite(found):
        raise InputError(f"structure {place} has {key}={str(value)[:40]}; a number is wanted.")
    return found


def _all_free(atoms: int) -> np.ndarray:
    return np.broadcast_to(np.eye(3), (atoms, 3, 3))


def _labels(structure: Atoms) -> dict[str, Any]:
    calculator = structure.calc
    if calculator is None:
        return {}
    results = getattr(calculator, "results", {})
    found: dict[str, Any] = {}
    if "energy" in results:
        found["energy"] = float(results["energy"])
    if "forces" in results:
        found["forces"] = np.asarray(results["forces"], float).reshape(-1, 3)
    if "stress" in results:
        from ase.stress import voigt_6_to_full_3x3_stress

        stress = np.asarray(results["stress"], float)
        found["stress"] = stress.reshape(3, 3) if stress.size == 9 else voigt_6_to_full_3x3_stress(stress)
    return found


def check_structure(structure: Atoms, name: str = "the structure") -> None:
    """Raises `InputError` for what no potential can take: no atoms, unknown numbers, NaN, masses that are no numbers above 0, a
    periodic cell that is flat.
    """
    if len(structure) == 0:
        raise InputError(f"{name} has no atoms.")
    largest = np.abs(structure.positions).max() + np.abs(structure.cell.array).max()
    if not np.isfinite(largest):
        raise InputError(f"{name} has positions or a cell that are not finite.")
    if largest > FARTHEST:
        raise InputError(f"{name} has positions or a cell beyond {FARTHEST:.0e} Å; a centimetre is no size of a structure.")
    if structure.numbers.min() < 1 or structure.numbers.max() > MAX_NUMBER:
        wrong = structure.numbers.min() if structure.numbers.min() < 1 else structure.numbers.max()
        raise InputError(f"{name} has an atom that is no element (atomic number {wrong}).")
    masses = structure.arrays.get("masses")
    if masses is not None and not ((masses > 0) & np.isfinite(masses)).all():
        raise InputError(f"{name} has an atom whose mass is no number above 0.")
    if structure.pbc.any():
        vectors = structure.cell.array[structure.pbc]
        lengths = np.linalg.norm(vectors, axis=1)
        if (lengths < 1e-6).any():
            raise InputError(f"{name} is periodic along a direction without a lattice vector.")
        unit = vectors / lengths[:, None]
        if len(unit) > 1 and np.linalg.det(unit @ unit.T) < 1e-10:
            raise InputError(f"{name} has lattice vectors that lie in one {'plane' if len(unit) == 3 else 'line'}.")


def has_volume(structure: Atoms) -> bool:
    """Whether it is periodic in all three directions, so that its stress is one."""
    return bool(structure.pbc.all() and abs(structure.cell.volume) > 1e-6)


def check_labels(structure: Atoms, name: str = "the structure") -> None:
    """Raises `DataError` for labels that are not finite, or forces of other atoms."""
    found = _labels(structure)
    for what, value in found.items():
        if not np.isfinite(value).all():
            raise DataError(f"{name} has {ARTICLES[what]}{what} that {'are' if what == 'forces' else 'is'} not finite.")
    if "forces" in found and len(found["forces"]) != len(structure):
        raise DataError(f"{name} has {len(structure)} atoms and forces of {len(found['forces'])}.")


def labelled(structure: Atoms, energy: float, forces: np.ndarray | None = None, stress: np.ndarray | None = None) -> Atoms:
    """A copy that carries labels as ASE reads and writes them."""
    from ase.calculators.singlepoint import SinglePointCalculator

    made = structure.copy()
    results = {"energy": energy, "forces": forces, "stress": stress}
    made.calc = SinglePointCalculator(made, **{name: value for name, value in results.items() if value is not None})
    return made


def energies_of(structures: Sequence[Atoms]) -> np.ndarray:
    """Energies, eV; raises `DataError` where a structure has none."""
    found = [_labels(each).get("energy") for each in structures]
    if any(each is None for each in found):
        raise DataError(f"structure {found.index(None)} has no energy.")
    return np.asarray(found, float)


def forces_of(structures: Sequence[Atoms]) -> list[np.ndarray]:
    """Forces of each structure, eV/Å; raises `DataError` where one has none."""
    found = [_labels(each).get("forces") for each in structures]
    missing = [k for k, each in enumerate(found) if each is None]
    if missing:
        raise DataError(f"structure {missing[0]} has no forces.")
    return [each for each in found if each is not None]
