"""The benchmark of relaxations: errors along trajectories, and relaxations judged as relaxations, arXiv 2506.23008."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from broadsheet.atoms.labelled_sets import EvenSet, StreamedSet
from broadsheet.atoms.labels import Method, label
from broadsheet.atoms.potential import Potential, scaled
from broadsheet.atoms.registry import build, kind, own_loss
from broadsheet.atoms.relaxation import relax
from broadsheet.atoms.structures import batch_atoms, bucket, energies_of, forces_of
from broadsheet.atoms.training import Trained, Training, predictions, train
from broadsheet.atoms.trajectories import TrajectorySet
from broadsheet.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

PUBLISHED = {
    "SchNet": (5.55, 56.22), "PaiNN": (5.33, 46.92), "NequIP": (8.27, 55.59), "SevenNet": (10.21, 48.05),
    "Allegro": (10.80, 61.44), "FAENet": (8.70, 60.51), "MACE": (7.47, 45.70), "PACE": (6.53, 51.43),
    "Equiformer": (5.38, 35.11),
}  # fmt: skip
"""Test errors on PubChemQCR-S, energy MAE (meV an atom) and force RMSE (meV/Å): arXiv 2507.01131, table 1."""
CUTOFF = 4.5
"""Å; the benchmark's."""
FAR = 2.0
"""Å; a relaxation that moves an atom further has left the basin it began in."""
FAILED = 1e6
"""meV an atom above the minimum, and shares of the energy lost, where the reference method fails."""
LARGE = 20_000
"""Frames from which on neighbours are found batch by batch instead of kept."""
PART = 4096
"""Frames whose errors are found together."""


def untrained(name: str, key: PRNGKeyArray | int, width: int | None = None) -> Potential:
    """A potential by its name, tiny where it has such a size, with the benchmark's cutoff where it has one.

    **Raises:** `InputError` for a name that is none, and a width that makes no network.
    """
    found = kind(name)
    size = "tiny" if "tiny" in found.sizes else None
    return build(name, key, size=size, width=width, cutoff=CUTOFF if found.has("cutoff") else None)


def fitted(
    network: Potential,
    training: TrajectorySet,
    validation: TrajectorySet,
    settings: Training,
    key: PRNGKeyArray,
    *,
    scale_on: TrajectorySet | None = None,
) -> Trained:
    """The network trained on frames of trajectories.

    A network with an objective of its own, as an `AtomTransformer`, learns from that.

    **Arguments:** `scale_on`: the frames on which the scale of forces and the element references are fitted, the training
    frames by default; frames whose forces vanish tell no scale.
    """
    potential = scaled(network, (training if scale_on is None else scale_on).frames())
    first, second = (
        StreamedSet(part, potential) if len(part) > LARGE else EvenSet(part.frames(), potential)
        for part in (training, validation)
    )
    return train(potential, first, second, settings, key, loss=own_loss(network, settings), devices=jax.devices()[:1])


class FrameErrors(NamedTuple):
    """Of each frame: absolute energy error (meV an atom), root mean square of the force error's vectors (meV/Å)."""

    energy: np.ndarray
    force: np.ndarray


def frame_errors(potential: Potential, frames: Sequence[Atoms], *, size: int = 32) -> FrameErrors:
    """Errors of each labelled frame by itself, in the benchmark's metrics."""
    energy, force = [], []
    parts = (frames[k : k + PART] for k in range(0, len(frames), PART))
    answers = (answer for part in parts for answer in predictions(potential, EvenSet(part, potential), size=size))
    for batch, found in answers:
        real, graphs = np.asarray(batch.node_mask), np.asarray(batch.graph_mask)
        counts = np.bincount(batch.graph[real], minlength=batch.structures)[graphs]
        energy.append(np.abs(found.energy - np.asarray(batch.energy))[graphs] / counts)
        square = ((found.forces - np.asarray(batch.forces)) ** 2).sum(axis=1)[real]
        force.append(np.sqrt(np.bincount(batch.graph[real], square, batch.structures)[graphs] / counts))
    return FrameErrors(1000 * np.concatenate(energy), 1000 * np.concatenate(force))


class RelaxationReport(NamedTuple):
    """Of each start geometry, where the potential's relaxation led, judged by the reference method.

    - `converged`: below the largest force within the steps allowed; `moved`: furthest move of an atom, Å;
      `success`: converged, and no atom moved 2 Å.
    - `excess`: reference energy there over that of the reference's own minimum, meV an atom; `gain`: share of the reference's
      own drop in energy; `residual`: largest reference force left, eV/Å. NaN where the reference method fails there.
    - `rmsd`: of heavy atoms to the reference's minimum, Å; `steps`.
    """

    converged: np.ndarray
    moved: np.ndarray
    success: np.ndarray
    excess: np.ndarray
    gain: np.ndarray
    residual: np.ndarray
    rmsd: np.ndarray
    steps: np.ndarray
    relaxed: list[Atoms]

    def summary(self) -> dict[str, float]:
        """Shares of successes, of `excess` below 30 meV an atom and of `gain` above 0.8, and medians; where the reference
        method fails, `FAILED` stands for the energy.
        """
        return {
            "success": float(self.success.mean()),
            "close": float((self.success & (self.excess < 30)).mean()),
            "relaxed": float((self.success & (self.excess < 30) & (self.gain > 0.8)).mean()),
            "excess": float(np.median(np.nan_to_num(self.excess, nan=FAILED))),
            "gain": float(np.median(np.nan_to_num(self.gain, nan=-FAILED))),
            "rmsd": float(np.median(self.rmsd)), "steps": float(np.median(self.steps)),
        }  # fmt: skip


def heavy_rmsd(structure: Atoms, reference: Atoms) -> float:
    """Root mean square distance of the heavy atoms after the best rotation, atoms in their order, Å; all atoms below three."""
    from scipy.spatial.transform import Rotation

    heavy = reference.numbers > 1
    if heavy.sum() < 3:
        heavy = np.ones(len(reference), bool)
    here, there = (each.positions[heavy] - each.positions[heavy].mean(axis=0) for each in (structure, reference))
    if len(here) < 2:
        return 0.0
    return float(Rotation.align_vectors(there, here)[1] / np.sqrt(len(here)))


def relaxation_report(
    potential: Potential,
    starts: Sequence[Atoms],
    ends: Sequence[Atoms],
    *,
    reference: Method | Callable[[Sequence[Atoms]], list[Atoms]] = "gfn2",
    fmax: float = 0.05,
    steps: int = 200,
    together: int = 32,
) -> RelaxationReport:
    """Relaxes start geometries with the potential and judges where that leads.

    **Arguments:** `starts`, `ends`: first and last frames of the reference's own relaxations, with its labels; `reference`: its
    method, or a function that labels structures; `fmax`: eV/Å; `together`: structures relaxed at once.

    **Raises:** `InputError` where starts and ends aren't pairs.
    """
    if len(starts) != len(ends) or not starts:
        raise InputError(f"relaxation_report: {len(starts)} starts and {len(ends)} ends; pairs are wanted.")
    relaxed: list[Atoms] = []
    converged, made = [], []
    for k in range(0, len(starts), together):
        for atoms, done, count in _relaxed(potential, starts[k : k + together], fmax, steps):
            relaxed.append(atoms)
            converged.append(done)
            made.append(count)
    return judge_relaxed(relaxed, converged, made, starts, ends, reference)


def judge_relaxed(
    relaxed: list[Atoms],
    converged: Sequence[bool],
    steps: Sequence[int],
    starts: Sequence[Atoms],
    ends: Sequence[Atoms],
    reference: Method | Callable[[Sequence[Atoms]], list[Atoms]] = "gfn2",
) -> RelaxationReport:
    """The report on geometries that were relaxed by whatever means; arguments as of `relaxation_report`."""
    moved = np.array([
        np.linalg.norm(_aligned(a, b) - b.positions, axis=1).max() for a, b in zip(relaxed, starts, strict=True)
    ])  # fmt: skip
    final = [_labelled(each, reference) for each in relaxed]
    counts = np.array([len(each) for each in starts])
    first, last = energies_of(starts), energies_of(ends)
    energy = np.array([np.nan if each is None else each.get_potential_energy() for each in final])
    residual = [np.nan if each is None else np.linalg.norm(forces_of([each])[0], axis=1).max() for each in final]
    return RelaxationReport(
        converged=np.array(converged), moved=moved, success=np.array(converged) & (moved < FAR),
        excess=1000 * (energy - last) / counts, gain=(first - energy) / np.maximum(first - last, 1e-9),
        residual=np.array(residual), rmsd=np.array([heavy_rmsd(a, b) for a, b in zip(relaxed, ends, strict=True)]),
        steps=np.array(steps), relaxed=relaxed,
    )  # fmt: skip


def _aligned(structure: Atoms, reference: Atoms) -> np.ndarray:
    """Positions after the translation and rotation that bring them closest to the reference."""
    from ase.build import minimize_rotation_and_translation

    made = structure.copy()
    made.set_constraint()  # else ASE would not turn what is fixed
    minimize_rotation_and_translation(reference, made)
    return made.positions


def _relaxed(potential: Potential, starts: Sequence[Atoms], fmax: float, steps: int) -> list[tuple[Atoms, bool, int]]:
    """Relaxed together; one by one where that fails, and where it fails for one, its start."""
    batch = batch_atoms(starts, atoms=bucket(len(starts) * bucket(max(map(len, starts)), 4)))
    try:
        found = relax(potential, batch, fmax=fmax, steps=steps)
    except InputError:
        if len(starts) == 1:
            return [(starts[0].copy(), False, steps)]
        return [_relaxed(potential, [each], fmax, steps)[0] for each in starts]
    moves = np.split(np.asarray(found.batch.positions - batch.positions, float), np.cumsum([len(each) for each in starts]))
    rows = []
    for k, each in enumerate(starts):
        made = each.copy()
        made.positions = each.positions + moves[k]
        rows.append((made, bool(found.converged[k]), int(found.steps[k])))
    return rows


def _labelled(structure: Atoms, reference: Method | Callable[[Sequence[Atoms]], list[Atoms]]) -> Atoms | None:
    try:
        return (reference([structure]) if callable(reference) else label([structure], reference))[0]
    except InputError:
        return None
