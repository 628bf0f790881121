"""Relaxations as data: every step of every trajectory, made here by a ladder of methods or read as PubChemQCR publishes them.

**Source:** arXiv 2506.23008; the published records as its data card and the authors' code (divelab/AIRS) describe them.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from broadsheet.atoms.files import reading_lmdb
from broadsheet.atoms.labels import Method, calculator, few_threads, label
from broadsheet.atoms.structures import labelled
from broadsheet.cache import fixture, writing
from broadsheet.errors import DataError, InputError, MissingExtraError, UntrustedError
from broadsheet.files import existing, load_arrays, trusted

if TYPE_CHECKING:
    from ase import Atoms

ISOLATED = {
    1: -0.5002727762, 4: -14.6684425428, 5: -24.6543539532, 6: -37.8462799513, 7: -54.5844893657, 8: -75.0606214015,
    9: -99.7155354215, 14: -289.3723539998, 15: -341.2580898032, 16: -398.1049925382, 17: -460.1362417086,
    35: -2573.8397377628,
}  # fmt: skip
"""Energies of isolated atoms at B3LYP/6-31G* (Hartree) by atomic number, which the published labels are counted from."""
Stage = Literal["pm3", "hf", "1st", "1st_smash", "2nd", "mixing"]
MOLECULES = (
    "CH3CHO", "OCHCHO", "CH3CH2OCH3", "HCOOH", "C2H2", "C4H4NH", "C2H6CHOH", "CH2NHCH2", "isobutene", "bicyclobutane", "C2H6",
    "H3CNH2", "methylenecyclopropane", "CH3CH2OH", "CH3CN", "cyclobutene", "CH3ONO", "C3H6_D3h", "CH2OCH2", "C6H6",
    "CH3CONH2", "cyclobutane", "H2CCHCN", "butadiene", "H2CO", "CH3COOH", "N2H4", "CH3OCH3", "C5H5N", "CH3NO2", "C4H4O",
    "CH3OH", "C2H4", "NCCN", "C3H4_D2d", "2-butyne", "C2H6NH", "C3H8", "NH3", "C3H6_Cs", "HCOOCH3", "C3H4_C3v", "CH3COCH3",
    "CH4", "H2CCO", "CH3CH2NH2", "H2O2", "C3H4_C2v",
)  # fmt: skip
"""Of ASE's g2 collection, by name: closed shells of C, H, N and O, 4 to 12 atoms."""
RECORDS = {"pm3": ("pm3",), "hf": ("hf",), "1st": ("DFT_1st",), "1st_smash": ("DFT_1st",), "2nd": ("DFT_2nd",),
           "mixing": ("DFT_1st", "DFT_2nd")}  # fmt: skip
NUMBERS = {("numpy", "dtype"), ("numpy._core.multiarray", "scalar"), ("numpy.core.multiarray", "scalar")}
"""What a record may call."""
RECORD_LIMIT = 256 * 1024 * 1024
"""Bytes that one record may unpack to."""


@dataclass(frozen=True)
class TrajectorySet:
    """Frames of relaxations, trajectory after trajectory; the atoms of all frames in a row.

    - `numbers`: atomic numbers; `positions`: Å; `forces`: eV/Å, all by atom; `first`: where each frame's atoms begin, and the
      end.
    - `energy`: eV; `molecule`: a place in `names`; `trajectory`; `stage`: a place in `stages`; `step`, all by frame.
    """

    numbers: np.ndarray
    positions: np.ndarray
    forces: np.ndarray
    first: np.ndarray
    energy: np.ndarray
    molecule: np.ndarray
    trajectory: np.ndarray
    stage: np.ndarray
    step: np.ndarray
    names: tuple[str, ...]
    stages: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.energy)

    def frame(self, k: int) -> Atoms:
        """One frame with its labels; `info` has the name of the molecule, the stage and the step."""
        from ase import Atoms

        rows = slice(int(self.first[k]), int(self.first[k + 1]))
        info = {"molecule": self.names[self.molecule[k]], "stage": self.stages[self.stage[k]], "step": int(self.step[k])}
        made = Atoms(self.numbers[rows], self.positions[rows], info=info)
        return labelled(made, float(self.energy[k]), self.forces[rows])

    def frames(self, chosen: Sequence[int] | np.ndarray | None = None) -> list[Atoms]:
        """The chosen frames, or all of them."""
        return [self.frame(int(k)) for k in (range(len(self)) if chosen is None else chosen)]

    def take(self, chosen: Sequence[int] | np.ndarray) -> TrajectorySet:
        """A set of the chosen frames alone."""
        chosen = np.asarray(chosen, int)
        rows = [np.arange(self.first[k], self.first[k + 1]) for k in chosen]
        flat = np.concatenate(rows) if rows else np.zeros(0, int)
        by_atom = {name: getattr(self, name)[flat] for name in ("numbers", "positions", "forces")}
        by_frame = {name: getattr(self, name)[chosen] for name in ("energy", "molecule", "trajectory", "stage", "step")}
        first = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(int)
        return replace(self, first=first, **by_atom, **by_frame)

    def _edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of the first and the last frame of each trajectory."""
        change = np.flatnonzero(np.diff(self.trajectory)) + 1
        return np.concatenate([[0], change]), np.concatenate([change - 1, [len(self) - 1]])

    def starts(self) -> np.ndarray:
        """The first frame of each trajectory."""
        return self._edges()[0]

    def ends(self) -> np.ndarray:
        """The last frame of each trajectory."""
        return self._edges()[1]

    def place(self) -> np.ndarray:
        """How far each frame is along its trajectory: 0 at its start, 1 at its end."""
        starts, ends = self._edges()
        length = np.repeat(ends - starts, ends - starts + 1)
        return (np.arange(len(self)) - np.repeat(starts, ends - starts + 1)) / np.maximum(length, 1)

    def thinned(self, most: int) -> TrajectorySet:
        """At most so many frames of each trajectory, evenly spaced, its ends among them: neighbours are near-duplicates."""
        if most < 2:
            raise InputError(f"thinned: {most} frames of a trajectory; two at least, its start and its end, are wanted.")
        kept = [
            np.unique(np.round(np.linspace(a, b, min(most, b - a + 1))).astype(int))
            for a, b in zip(*self._edges(), strict=True)
        ]
        return self.take(np.concatenate(kept))

    def split(
        self, shares: Sequence[float], rng: np.random.Generator, by: Literal["molecule", "trajectory", "frame"] = "molecule"
    ) -> list[TrajectorySet]:
        """Parts with these shares of the molecules. By trajectory, tested molecules are known; by frame, neighbours of tested
        frames are: both flatter.
        """
        if not shares or min(shares) <= 0 or sum(shares) > 1 + 1e-9:
            raise InputError(f"split: shares {tuple(shares)}; all above 0 and at most 1 together are wanted.")
        group = {"molecule": self.molecule, "trajectory": self.trajectory, "frame": np.arange(len(self))}[by]
        order = rng.permutation(np.unique(group))
        bounds = np.round(np.cumsum(shares) * len(order)).astype(int)
        parts = np.split(order, bounds)[: len(shares)]
        if any(len(part) == 0 for part in parts):
            raise InputError(f"split: {len(order)} {by}s are too few for shares {tuple(shares)}.")
        return [self.take(np.flatnonzero(np.isin(group, part))) for part in parts]

    def save(self, path: str | Path) -> None:
        """Writes arrays and names as .npz."""
        with writing(Path(path)) as stream:
            np.savez_compressed(stream, **{field.name: np.asarray(getattr(self, field.name)) for field in fields(self)})  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> TrajectorySet:
        """What `save` wrote; raises `DataError` where something is missing."""
        arrays = load_arrays(path)
        missing = sorted({field.name for field in fields(cls)} - arrays.keys())
        if missing:
            raise DataError(f"{path} has no {missing[0]}: it is no set of trajectories.")
        names, stages = (tuple(str(each) for each in arrays.pop(name)) for name in ("names", "stages"))
        return cls(**arrays, names=names, stages=stages)


@dataclass
class _Collected:
    """Frames as they come, and the set of them."""

    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, float, str, int, str, int]]

    def add(self, numbers: np.ndarray, positions: np.ndarray, forces: np.ndarray, energy: float, name: str, trajectory: int,
            stage: str, step: int) -> None:  # fmt: skip
        self.rows.append((np.asarray(numbers, np.int16), positions, forces, energy, name, trajectory, stage, step))

    def made(self) -> TrajectorySet:
        numbers, positions, forces, energy, name, trajectory, stage, step = zip(*self.rows, strict=True)
        names, stages = tuple(dict.fromkeys(name)), tuple(dict.fromkeys(stage))
        names_at, stages_at = ({text: k for k, text in enumerate(every)} for every in (names, stages))
        return TrajectorySet(
            np.concatenate(numbers), np.concatenate(positions), np.concatenate(forces),
            np.concatenate([[0], np.cumsum([len(each) for each in numbers])]).astype(int), np.array(energy),
            np.array([names_at[each] for each in name]), np.array(trajectory), np.array([stages_at[each] for each in stage]),
            np.array(step), names, stages,
        )  # fmt: skip


def make_trajectories(
    structures: Mapping[str, Atoms],
    stages: Sequence[tuple[Method, float]] = (("gfn1", 0.05), ("gfn2", 0.02)),
    *,
    copies: int = 1,
    rattle: float = 0.1,
    seed: int = 0,
    steps: int = 300,
    report: Callable[[float], None] | None = None,
) -> TrajectorySet:
    """Relaxes rattled copies of structures by BFGS down a ladder of methods; a stage starts where the one before ended.

    **Arguments:** `structures`: by name; `stages`: method and largest force (eV/Å) at which it ends; `copies`: of each, their
    atoms moved by normal noise of `rattle` (Å); `steps`: at most, a stage; `report`: called with the share done.

    **Raises:** `InputError` where a method fails on a structure, or a stage doesn't converge.
    """
    from ase.optimize import BFGS

    rng, found = np.random.default_rng(seed), _Collected([])
    if not structures or not stages or copies < 1:
        raise InputError("make_trajectories: a structure, a stage and a copy at least are wanted.")
    for n, (name, start) in enumerate(structures.items()):
        for copy in range(copies):
            atoms = start.copy()
            atoms.positions += rattle * rng.standard_normal(atoms.positions.shape)
            for method, fmax in stages:
                atoms.calc = calculator(method, atoms)
                kept: list[tuple] = []

                def keep(atoms: Atoms = atoms, kept: list[tuple] = kept) -> None:
                    forces = atoms.get_forces(apply_constraint=False)
                    kept.append((atoms.numbers, atoms.positions.copy(), forces.copy(), atoms.get_potential_energy()))

                try:
                    optimiser = BFGS(atoms, logfile=None)
                    optimiser.attach(keep)
                    with few_threads(method):
                        done = optimiser.run(fmax=fmax, steps=steps)
                except MissingExtraError:
                    raise
                except Exception as error:
                    raise InputError(f"{method} fails on {name}: {str(error).splitlines()[0][:120]}.") from None
                if not done:
                    raise InputError(f"{name} isn't relaxed to {fmax:g} eV/Å by {method} in {steps} steps.")
                for step, (numbers, positions, forces, energy) in enumerate(kept):
                    found.add(numbers, positions, forces, float(energy), name, n * copies + copy, method, step)
            if report is not None:
                report((n * copies + copy + 1) / (len(structures) * copies))
    return found.made()


def g2_relaxations(
    names: Sequence[str] = MOLECULES,
    copies: int = 2,
    stages: Sequence[tuple[Method, float]] = (("gfn2", 0.02),),
    rattle: float = 0.1,
    report: Callable[[float], None] | None = None,
    seed: int = 0,
) -> TrajectorySet:
    """Relaxations of rattled molecules as `make_trajectories` makes them, kept in the cache; the `seed` draws the rattling.

    Names that ASE's g2 collection does not have are taken as SMILES.
    """
    from ase.build import molecule
    from ase.collections import g2

    def build(folder: Path) -> None:
        made = embed_smiles([name for name in names if name not in g2.names])
        structures = {name: made[name] if name in made else molecule(name) for name in names}
        found = make_trajectories(structures, stages, copies=copies, rattle=rattle, seed=seed, report=report)
        found.save(folder / "trajectories.npz")

    parameters = {"names": list(names), "copies": copies, "stages": [list(each) for each in stages], "rattle": rattle}
    parameters |= {"seed": seed} if seed else {}
    return TrajectorySet.load(fixture("relaxations", parameters | {"version": 1}, build) / "trajectories.npz")


def rattled(
    data: TrajectorySet,
    copies: int,
    amplitude: float,
    reference: Method | Callable[[Sequence[Atoms]], list[Atoms]] = "gfn2",
    seed: int = 0,
) -> TrajectorySet:
    """Each frame, and `copies` of it whose atoms are moved by normal noise and labelled anew: states off equilibrium that no
    relaxation went through.

    The spread of the noise is drawn evenly from 0 to `amplitude` (Å) for each copy. **Arguments:** `reference`: the method of
    the labels, or a function that labels structures.

    **Raises:** `InputError` where the method fails on a structure.
    """
    rng = np.random.default_rng(seed)
    made = data.take(np.repeat(np.arange(len(data)), copies + 1))
    spread = np.where(np.arange(len(made)) % (copies + 1) > 0, amplitude * rng.random(len(made)), 0.0)
    noise = np.repeat(spread, np.diff(made.first))[:, None] * rng.standard_normal(made.positions.shape)
    made = replace(made, positions=made.positions + noise)
    found = reference(made.frames()) if callable(reference) else label(made.frames(), reference)
    return replace(
        made, energy=np.array([each.get_potential_energy() for each in found]),
        forces=np.concatenate([each.get_forces() for each in found]), trajectory=np.repeat(data.trajectory, copies + 1),
    )  # fmt: skip


def embed_smiles(smiles: Sequence[str], seed: int = 0) -> dict[str, Atoms]:
    """Start geometries by RDKit's distance geometry (ETKDG), hydrogens added, by SMILES.

    **Raises:** `InputError` for a SMILES that RDKit can't read or embed, `MissingExtraError` without RDKit.
    """
    try:
        from rdkit import Chem
        from rdkit.Chem import rdDistGeom
        from rdkit.rdBase import BlockLogs
    except ImportError:
        raise MissingExtraError("Geometries from SMILES (RDKit)", "atoms") from None
    from ase import Atoms

    found = {}
    quiet = BlockLogs()
    for each in smiles:
        molecule = Chem.MolFromSmiles(each)
        if molecule is None:
            raise InputError(f"{each!r} is no SMILES that RDKit reads.")
        molecule = Chem.AddHs(molecule)
        parameters: Any = rdDistGeom.ETKDGv3()
        parameters.randomSeed = seed
        if rdDistGeom.EmbedMolecule(molecule, parameters) != 0:
            raise InputError(f"RDKit finds no geometry for {each!r}.")
        numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
        found[each] = Atoms(numbers, molecule.GetConformer().GetPositions(), info={"charge": Chem.GetFormalCharge(molecule)})
    del quiet
    return found


class _Plain(pickle.Unpickler):
    """Reads pickles of dictionaries, lists, text and numbers (NumPy's too), and nothing else that would call anything."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in NUMBERS:
            return super().find_class(module, name)
        raise UntrustedError(f"a record asks for {module}.{name}; records hold plain values only.")


def read_pubchemqcr(
    path: str | Path, stage: Stage = "1st", *, limit: int | None = None, trust: bool | None = None
) -> TrajectorySet:
    """Trajectories of PubChemQCR's LMDB files: a key of nine digits a molecule, its value a compressed pickle of its stages.

    Energies are counted from isolated atoms, and everything is in eV and Å. The files hold pickles, so that they are read only
    with `--trust`, and even then nothing that a pickle names is called, NumPy's numbers aside.

    **Arguments:** `path`: an LMDB, or a folder of them; `stage`: "1st" (Firefly, whose atoms have charges), "1st_smash"
    (without charges), "2nd", "mixing" (both; their programs differ by an offset), "hf", "pm3"; `limit`: molecules at most;
    `trust`: as the user said with `--trust` by default.

    **Raises:** `UntrustedError` without trust; `DataError` naming the record that can't be used; `InputError` for a stage that
    isn't one.
    """
    if stage not in get_args(Stage):
        raise InputError(f"{stage!r} is no stage; {', '.join(get_args(Stage))} are.")
    path = existing(path)
    found, molecules = _Collected([]), 0
    allowed = trusted() if trust is None else trust
    for file in _databases(path):
        for key, record in _records(file, allowed):
            if limit is not None and molecules == limit:
                break
            before = len(found.rows)
            for name in RECORDS[stage]:
                steps = record.get(name) or ()
                if name == "DFT_1st" and stage in ("1st", "1st_smash") and steps and _has_charges(steps) != (stage == "1st"):
                    continue
                for number, step in enumerate(steps):
                    try:
                        numbers, positions, forces, energy = _step(step)
                    except (KeyError, TypeError, ValueError, IndexError, InputError) as error:
                        raise DataError(f"{file}: step {number} of {name} of molecule {key} can't be read ({error}).") from None
                    found.add(numbers, positions, forces, energy, key, molecules, name, number)
            molecules += len(found.rows) > before
    if not found.rows:
        raise DataError(f"{path} has no molecule with a trajectory of stage {stage}.")
    return found.made()


def label_from_atoms(structures: Sequence[Atoms]) -> list[Atoms]:
    """Copies with B3LYP/6-31G* energies counted from isolated atoms, as those of `read_pubchemqcr` are, and forces.

    **Raises:** `InputError` for an element whose isolated atom is not in `ISOLATED`, or where PySCF fails.
    """
    return [
        labelled(each, each.get_potential_energy() - _isolated(each.numbers), each.get_forces(apply_constraint=False))
        for each in label(structures, "b3lyp/6-31g*")
    ]


def _isolated(numbers: np.ndarray) -> float:
    """Energy of the atoms apart from each other, eV."""
    from ase.units import Hartree

    unknown = sorted(set(numbers.tolist()) - ISOLATED.keys())
    if unknown:
        raise InputError(f"no energy of the isolated atom {unknown[0]} is known")
    return sum(ISOLATED[z] for z in numbers.tolist()) * Hartree


def _databases(path: Path) -> list[Path]:
    if path.is_file() or (path / "data.mdb").exists():
        return [path]
    files = {file.parent if file.name == "data.mdb" else file for file in path.rglob("*.mdb") if file.name != "lock.mdb"}
    found = sorted(files | {*path.rglob("*.lmdb")})
    if not found:
        raise DataError(f"{path} holds no LMDB (data.mdb, or files that end in .lmdb).")
    return found


def _records(file: Path, trust: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    if not trust:
        raise UntrustedError(f"{file}: PubChemQCR's records are Python pickles; pass --trust if you trust where they are from.")
    with reading_lmdb(file) as transaction:
        for raw, value in transaction.cursor():
            key = raw.decode("latin1")
            if not key.isdigit():
                continue
            try:
                with gzip.open(io.BytesIO(value)) as stream:
                    text = stream.read(RECORD_LIMIT + 1)
                if len(text) > RECORD_LIMIT:
                    raise DataError(f"it unpacks to more than {RECORD_LIMIT} bytes")
                record = _Plain(io.BytesIO(text)).load()
                if not isinstance(record, dict):
                    raise DataError("it is not a dictionary")
            except UntrustedError as error:
                raise UntrustedError(f"{file}: molecule {key}: {error}") from None
            except Exception as error:
                raise DataError(f"{file}: the record of molecule {key} can't be read ({str(error)[:100]}).") from None
            yield key, record


def _has_charges(steps: Sequence[Mapping[str, Any]]) -> bool:
    return "charge" in steps[0]["coordinates"][0]


def _step(step: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """(numbers, positions, forces, energy from isolated atoms) of a published step."""
    from ase.data import atomic_numbers
    from ase.units import Bohr, Hartree

    atoms, gradient = step["coordinates"], step["gradient"]
    numbers = np.array([atomic_numbers[str(each["atom"]).capitalize()] for each in atoms])
    positions = np.array([[float(each[axis]) for axis in "xyz"] for each in atoms])
    forces = -np.array([[float(each[axis]) for axis in ("dx", "dy", "dz")] for each in gradient]) * Hartree / Bohr
    energy = float(step["energy"]) * Hartree - _isolated(numbers)
    if positions.shape != forces.shape or not math.isfinite(energy) or not np.isfinite(positions + forces).all():
        raise ValueError("positions, gradient or energy don't fit each other or aren't finite")
    return numbers, positions, forces, energy
