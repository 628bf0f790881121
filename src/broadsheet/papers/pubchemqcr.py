"""A benchmark for quantum chemistry relaxations via machine learning interatomic potentials, arXiv 2506.23008.

Potentials learn from whole relaxations and are judged along them and as relaxers. The controls split by frame instead of by
molecule, learn from relaxed or rattled geometries alone, or see distances but no directions; a pair table that needs no
training and a classical force field stand beside them.
"""

from __future__ import annotations

import gzip
import pickle
import tempfile
from dataclasses import dataclass, replace
from itertools import cycle, pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.atoms.compression import select
from broadsheet.atoms.environments import describe_all
from broadsheet.atoms.force_fields import relax_by_force_field
from broadsheet.atoms.labels import Method, calculator
from broadsheet.atoms.message_passing import Edges, MessageConfig, MessagePassing
from broadsheet.atoms.neighbours import Neighbours
from broadsheet.atoms.pair_table import fit_pair_table
from broadsheet.atoms.potential import Potential
from broadsheet.atoms.potentials.escaip import EScAIP
from broadsheet.atoms.potentials.painn import PaiNN, PaiNNInteraction
from broadsheet.atoms.potentials.schnet import SchNet
from broadsheet.atoms.potentials.transip import AtomTransformer
from broadsheet.atoms.registry import build
from broadsheet.atoms.relaxation_benchmark import fitted, frame_errors, judge_relaxed, relaxation_report
from broadsheet.atoms.training import Training
from broadsheet.atoms.trajectories import (
    MOLECULES,
    TrajectorySet,
    g2_relaxations,
    label_from_atoms,
    rattled,
    read_pubchemqcr,
)
from broadsheet.errors import InputError, MissingDataError
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.numerics import generator, seed_of

paper = Paper(
    slug="pubchemqcr",
    arxiv="2506.23008",
    title="A Benchmark for Quantum Chemistry Relaxations via Machine Learning Interatomic Potentials",
    published="2025-06-28",
    authors=11,
    basis="code",
    code="huggingface.co/datasets/divelab/PubChemQCR (CC-BY-4.0); github.com/divelab/AIRS, OpenMol/TDN",
    summary="Geometry optimisations of millions of small molecules as training data: potentials see every step of a "
    "relaxation, far from equilibrium and near it, and are then asked to relax molecules they have never seen. Here with "
    "trajectories made on the spot, the published files' reader, SchNet, PaiNN and EScAIP under one protocol, and relaxations "
    "judged by the reference method.",
    topics=("interatomic potentials", "data sets", "geometry relaxation"),
    parts=("broadsheet.atoms.TrajectorySet", "broadsheet.atoms.read_pubchemqcr", "broadsheet.atoms.PaiNN",
           "broadsheet.atoms.relaxation_report"),
    verbs=("broadsheet atoms benchmark pubchemqcr MODEL",),
    requires=("atoms",),
    tasks={"relax molecules": "potentials:relaxed"},
    notes=(
        "The trajectories of the quick size are GFN2-xTB relaxations of 48 of ASE's g2 molecules from rattled geometries. They "
        "start much farther from equilibrium than PubChemQC's, so that errors of forces are many times the published ones.",
        "Total energies are predicted and forces are their gradients; the authors' released PaiNN averages the energies of "
        "atoms and differentiates the average, which sets the targets of energies and forces against each other.",
        "PaiNN's messages carry unit vectors and go to zero at the cutoff, as in its own paper; the authors' code uses raw "
        "vectors and no cutoff function, so that its energy jumps at 4.5 Å.",
        "Root mean square force errors are of vectors and averaged over molecules, as the authors' code has it; an error of "
        "components is smaller by the square root of 3.",
        "The published table was not reproduced: the 41 000 trajectories of PubChemQCR-S were not at hand. Its reader is "
        "tested on records made in its layout.",
        "At the paper's size all neighbours would not fit into memory at once, so that they are found batch by batch. The "
        "41 000 trajectories of the subset are read whole; of the full set `limit` takes the first ones.",
        "The published energies of isolated atoms are those of 6-31G* with six Cartesian d functions (to 7e-7 Hartree); five, "
        "as many programs have by default, raise that of nitrogen by 44 meV.",
    ),
)  # fmt: skip

LADDER: tuple[tuple[Method, float], ...] = (("gfn1", 0.05), ("gfn2", 0.02))
"""Methods, and the largest force (eV/Å) to which each relaxes."""


@dataclass(frozen=True)
class Ladder:
    """Relaxations down two methods, one after the other."""

    names: tuple[str, ...] = ("CH3CH2OH", "HCOOH", "CH3CN", "C4H4O", "CH3COOH", "C2H6NH")
    stages: tuple[tuple[Method, float], ...] = LADDER
    copies: int = 2
    rattle: float = 0.1  # Å
    probes: int = 10  # frames whose forces are compared with finite differences


@paper.experiment(
    presets={
        "smoke": Ladder(names=("H2O2",), copies=1, probes=1),
        "quick": Ladder(),
        "paper": Ladder(names=MOLECULES, stages=(*LADDER, ("b3lyp/6-31g*", 0.05)), copies=1, probes=50),
    },
    claims=[
        Claim("C1", "energies fall, end forces are small, stages join, and forces are the energy's gradient", kind="check",
              reference="finite differences; control: the steps of each stage in another order", ablation="shuffled", checks=[
                  at_least("falling", 0.95), at_most("fd_error", 1e-3), at_most("joint_error", 1e-9),
                  at_most("force_left", 1.0)]),
    ],
    cost=10.0,
)  # fmt: skip
def trajectories(config: Ladder, key, log: Log) -> Report:
    """Trajectories as made, and with the steps of each stage shuffled."""
    data = g2_relaxations(config.names, config.copies, config.stages, config.rattle, log.progress, seed_of(key))
    rng = generator(key)
    fmax = dict(config.stages)
    runs = data.trajectory * len(data.stages) + data.stage
    parts = np.split(np.arange(len(data)), np.flatnonzero(np.diff(runs)) + 1)
    probes = rng.choice(len(data), min(config.probes, len(data)), replace=False)
    slopes = {int(k): _slope(data, int(k), rng) for k in probes}
    arms = {}
    for name, order in (("system", parts), ("shuffled", [rng.permutation(part) for part in parts])):
        at = np.concatenate(order)  # frame at[k] stands in place k, with the energies and forces of its own
        rises = np.concatenate([np.diff(data.energy[part]) for part in order])
        joins = [
            np.abs(data.frame(int(a[-1])).positions - data.frame(int(b[0])).positions).max()
            for a, b in pairwise(order)
            if data.trajectory[a[0]] == data.trajectory[b[0]]
        ]
        left = [_largest(data, int(part[-1])) / fmax[data.stages[data.stage[part[0]]]] for part in order]
        errors = []
        for place, (direction, slope) in slopes.items():
            forces = data.frame(int(at[place])).get_forces()
            errors.append(abs(float(np.sum(forces * direction)) + slope) if forces.shape == direction.shape else np.inf)
        arms[name] = {"falling": float(np.mean(rises < 1e-3)), "joint_error": float(max(joins)), "force_left": float(max(left)),
                      "fd_error": float(max(errors))}  # fmt: skip
    shown = np.flatnonzero(data.trajectory == 0)
    lowest = np.array([data.energy[shown][data.stage[shown] == stage].min() for stage in range(len(data.stages))])
    return Report(arms=arms, arrays={
        "stage": data.stage[shown], "energy": 1000 * (data.energy[shown] - lowest[data.stage[shown]]),
        "force": np.array([_largest(data, int(k)) for k in shown]), "frames": np.array(len(data)),
    })  # fmt: skip


def _largest(data: TrajectorySet, k: int) -> float:
    return float(np.linalg.norm(data.frame(k).get_forces(), axis=1).max())


def _slope(data: TrajectorySet, k: int, rng: np.random.Generator, step: float = 1e-3) -> tuple[np.ndarray, float]:
    """A random direction, and the derivative of the energy along it by central differences, eV/Å."""
    frame = data.frame(k)
    method: Any = frame.info["stage"]
    along = rng.standard_normal(frame.positions.shape)
    along /= np.linalg.norm(along)
    sides = []
    for sign in (1, -1):
        moved = frame.copy()
        moved.positions += sign * step * along
        moved.calc = calculator(method, moved)
        sides.append(moved.get_potential_energy())
    return along, (sides[0] - sides[1]) / (2 * step)


@trajectories.figure
def descent(runs: Runs):
    """Energy above the stage's lowest, and largest force, along one relaxation."""
    data = runs["system"].arrays
    fig, axes = figure(2)
    step = np.arange(len(data["stage"]))
    for stage in np.unique(data["stage"]):
        which = data["stage"] == stage
        axes[0].semilogy(step[which], np.maximum(data["energy"][which], 1e-2), "o-", ms=3, label=f"stage {stage + 1}")
        axes[1].semilogy(step[which], data["force"][which], "o-", ms=3)
    label(axes[0], "step", "energy above the lowest (meV)")
    label(axes[1], "step", "largest force (eV/Å)", legend=False)
    return fig


@dataclass(frozen=True)
class Records:
    """One molecule's record in the published layout, from PySCF's own energy and gradient."""

    molecule: str = "NH3"  # its atoms are spherical, so that their energies have no second solution
    charges: bool = True  # atoms carry nuclear charges, as Firefly's do


@paper.experiment(
    presets={"smoke": Records(molecule="H2"), "quick": Records(), "paper": Records(molecule="N2H4")},
    claims=[
        Claim("C2", "the reader has units, sign and zero of energy right", kind="check", reference="PySCF's B3LYP/6-31G*, of "
              "the molecule and of its atoms; control: the gradient as if per Å, with its sign", ablation="raw", checks=[
                  at_most("energy_error", 1e-5), at_most("force_error", 1e-5)]),
    ],
    cost=6.0,
)  # fmt: skip
def reader(config: Records, key, log: Log) -> Report:
    """Relative errors of energy and forces read from a record, against those that PySCF gives by another way."""
    import lmdb
    from ase.build import molecule
    from pyscf import dft, gto

    rng = generator(key)
    structure = molecule(config.molecule)
    structure.positions += 0.05 * rng.standard_normal(structure.positions.shape)
    options = {"basis": "6-31g*", "cart": True, "verbose": 0}
    parts = list(zip(structure.symbols, structure.positions.tolist(), strict=True))
    field = dft.RKS(gto.M(atom=parts, **options), xc="b3lyp")
    energy, slope = field.kernel(), field.nuc_grad_method().kernel()
    free = 0.0
    for symbol, count in structure.symbols.formula.count().items():
        atom = gto.M(atom=symbol, spin={"H": 1, "N": 3}[symbol], **options)
        free += count * dft.UKS(atom, xc="b3lyp").kernel()
    log.progress(0.8)
    atoms = [
        {"atom": s, "x": x, "y": y, "z": z} | ({"charge": float(n)} if config.charges else {})
        for s, n, (x, y, z) in zip(structure.symbols, structure.numbers, structure.positions.tolist(), strict=True)
    ]
    gradient = [
        dict(zip(("dx", "dy", "dz"), row, strict=True)) | {"atom": s}
        for s, row in zip(structure.symbols, slope.tolist(), strict=True)
    ]
    step = {"coordinates": atoms, "energy": energy, "gradient": gradient}
    with tempfile.TemporaryDirectory() as folder:
        with lmdb.open(folder, map_size=2**24) as environment, environment.begin(write=True) as transaction:
            transaction.put(
                b"000000962", gzip.compress(pickle.dumps({"pm3": [], "hf": [], "DFT_1st": [step], "DFT_2nd": None}))
            )
        frame = read_pubchemqcr(folder, "1st", trust=True).frame(0)
    forces = -51.42206747632590 * slope  # eV/Å in a Hartree/Bohr, and eV in a Hartree below: CODATA 2018
    found = {"system": (frame.get_potential_energy(), frame.get_forces()), "raw": (27.211386245988 * energy, slope)}
    return Report(arms={name: {
        "energy_error": abs(total / (27.211386245988 * (energy - free)) - 1),
        "force_error": np.abs(read - forces).max() / np.abs(forces).max(),
    } for name, (total, read) in found.items()})  # fmt: skip


SMALLEST = MessageConfig(width=32, interactions=2, basis=20)


@dataclass(frozen=True)
class Learning:
    """Trajectories, and how potentials learn from them."""

    names: tuple[str, ...] = MOLECULES
    stages: tuple[tuple[Method, float], ...] = (("gfn2", 0.02),)
    copies: int = 2
    rattle: float = 0.1  # Å
    most: int = 8  # frames of a trajectory
    shares: tuple[float, ...] = (0.7, 0.1, 0.2)  # of the molecules: training, validation, test
    network: MessageConfig = SMALLEST
    steps: int = 500
    batch: int = 8
    learning_rate: float = 3e-3
    energy_weight: float = 1.0  # of the loss
    force_weight: float = 1.0
    data: str | None = None  # PubChemQCR's LMDB files
    limit: int | None = None  # molecules of them

    def training(self) -> Training:
        """Settings of the training loop."""
        return Training(steps=self.steps, batch=self.batch, learning_rate=self.learning_rate, force_weight=self.force_weight,
                        energy_weight=self.energy_weight, evaluate=max(1, self.steps // 4))  # fmt: skip

    def reference(self) -> Any:
        """The method of the labels: its name, or what labels structures with it."""
        return self.stages[-1][0] if self.data is None else label_from_atoms

    def load(self, log: Log) -> TrajectorySet:
        """All frames; `MissingDataError` where the published files are wanted and not given."""
        if not self.names:
            if self.data is None:
                raise MissingDataError("The paper's size needs PubChemQCR's LMDB files (divelab/PubChemQCR on the Hugging Face "
                                       "Hub): --data FOLDER --trust.")  # fmt: skip
            return read_pubchemqcr(self.data, "1st", limit=self.limit)
        return g2_relaxations(self.names, self.copies, self.stages, self.rattle, log.progress)


TINIEST = MessageConfig(width=8, interactions=1, basis=8)
SMOKE: dict[str, Any] = {"names": ("C2H6", "CH4", "C2H2", "C2H4", "C3H4_D2d"), "copies": 1, "most": 3, "network": TINIEST,
                         "steps": 2, "batch": 2, "force_weight": 0.0, "shares": (0.4, 0.2, 0.4)}  # fmt: skip
PUBLISHED_SIZE: dict[str, Any] = {"names": (), "most": 16, "network": MessageConfig(), "steps": 400_000, "batch": 32,
                                  "learning_rate": 5e-4, "shares": (0.6, 0.2, 0.2), "limit": 41_000}  # fmt: skip


@dataclass(frozen=True)
class Leak(Learning):
    """The same frames of few molecules split by molecule, by trajectory and by frame."""

    names: tuple[str, ...] = MOLECULES[:24]
    shares: tuple[float, ...] = (0.5, 0.1, 0.4)  # many are tested: a few are too unlike each other
    steps: int = 1200
    learning_rate: float = 2e-3
    energy_weight: float = 10.0


@paper.experiment(
    presets={"smoke": Leak(**SMOKE), "quick": Leak(), "paper": Leak(**PUBLISHED_SIZE)},
    data="data",
    claims=[
        Claim("C3", "a split by frame flatters: neighbours of tested frames are trained on", kind="check",
              reference="the same network, steps and frames, split by molecule; control: split by trajectory, so that tested "
              "molecules are known and no neighbours of tested frames are", about="by-frame", ablation="by-trajectory",
              checks=[at_most("relative_energy_mae", 0.7, of="by-frame")],
              reason="Other relaxations of the tested molecules are enough to flatter: 0.38 of the error by molecule over "
              "three seeds, and by frame 0.19."),
    ],
    cost=30.0,
)  # fmt: skip
def splits(config: Leak, key, log: Log) -> Report:
    """Test errors of SchNet, split by molecule, by trajectory and by frame, over those by molecule."""
    data = config.load(log).thinned(config.most)
    errors = {}
    for k, (name, by) in enumerate((("system", "molecule"), ("by-trajectory", "trajectory"), ("by-frame", "frame"))):
        first, second, test = data.split(config.shares, generator(key), by)  # type: ignore[arg-type]
        trained = fitted(SchNet(config.network, key), first, second, config.training(), key)
        errors[name] = frame_errors(trained.potential, test.frames())
        log.progress((k + 2) / 4)
    whole = {name: (found.energy.mean(), found.force.mean()) for name, found in errors.items()}
    return Report(
        arms={name: {"energy_mae": energy, "force_rmse": force, "relative_energy_mae": energy / whole["system"][0]}
              for name, (energy, force) in whole.items()},
        arrays={name.replace("-", "_"): found.energy for name, found in errors.items()},
    )  # fmt: skip


@splits.figure
def flattered(runs: Runs):
    """Energy errors of test frames."""
    data = runs["system"].arrays
    fig, axis = figure()
    bins = np.geomspace(1, max(10.0, data["system"].max()), 24)
    kinds = (("by_frame", CONTROL_COLOUR, "split by frame"), ("by_trajectory", COLOURS[1], "by trajectory"),
             ("system", SYSTEM_COLOUR, "by molecule"))  # fmt: skip
    for name, colour, text in kinds:
        share = np.full(len(data[name]), 1 / len(data[name]))
        axis.hist(np.maximum(data[name], 1), bins, weights=share, histtype="step", color=colour, label=text)
    axis.set_xscale("log")
    label(axis, "energy error (meV/atom)", "share of frames")
    return fig


class WithoutDirections(PaiNNInteraction):
    """PaiNN's interaction where no message carries a direction, so that all vectors stay zero."""

    def __call__(self, features: Any, edges: Edges, neighbours: Neighbours) -> Any:
        return super().__call__(features, eqx.tree_at(lambda e: e.unit, edges, jnp.zeros_like(edges.unit)), neighbours)


class ScalarPaiNN(PaiNN):
    """PaiNN without directions: as many weights, the same steps, all features invariant."""

    def __init__(self, config: MessageConfig, key: Any):
        MessagePassing.__init__(self, config, key, WithoutDirections, jax.nn.silu)


def as_large_schnet(config: MessageConfig, key: Any) -> SchNet:
    """The narrowest SchNet, its width a multiple of 8, with as many weights as a PaiNN, the elements' embeddings apart."""

    def weights(net: MessagePassing) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter((net.interactions, net.readout), eqx.is_array)))

    wanted, width = weights(PaiNN(config, key)), config.width
    while weights(found := SchNet(replace(config, width=width), key)) < wanted:
        width += 8
    return found


@dataclass(frozen=True)
class Potentials(Learning):
    """Networks, and what they learn from, under one protocol."""

    relaxations: int = 20  # start geometries of unseen molecules
    more: tuple[str, ...] = ()  # other networks: "escaip", "transip"
    rattled: bool = True  # whether rattled geometries are labelled and learnt from
    third: bool = False  # whether every third frame is
    cover: int = 0  # frames that a set cover chooses, of at most 20 000; 0: none


KINDS = {
    "system": "PaiNN, whole trajectories", "schnet": "SchNet", "scalars": "PaiNN without directions",
    "schnet-large": "SchNet, as many weights", "pairs": "pair table", "final": "relaxed geometries",
    "few": "as many frames, whole", "rattled": "rattled geometries",
    "quarter": "quarter of the molecules", "dense": "the quarter, more frames",
    "force-field": "MMFF94 and UFF", "third": "every third frame", "cover": "set cover", "escaip": "EScAIP",
    "transip": "TransIP",
}  # fmt: skip
UNRELAXED = ("scalars", "schnet-large")
"""Whose relaxations no claim asks for."""
AMONG = 20_000
"""Frames among which a set cover chooses."""


@paper.experiment(
    presets={
        "smoke": Potentials(**SMOKE, relaxations=2),
        "quick": Potentials(),
        "paper": Potentials(**PUBLISHED_SIZE, relaxations=200, more=("escaip",), rattled=False, third=True, cover=10_000),
    },
    data="data",
    claims=[
        Claim("C4", "vectors that turn with the molecule predict forces better than distances alone", kind="paper",
              where="table of nine models: 46.9 against 56.2 meV/Å", published="ratio 0.83", ablation="scalars",
              null=("schnet-large", "pairs"), grows="steps", seeds=8, checks=[
                  at_most("log_force_rmse", {"quick": np.log(0.95)}, minus="schnet")],
              reason="Over eight seeds PaiNN errs 4 % less than SchNet, between 9 % less and 2 % more; without directions as "
              "much, and a SchNet of as many weights 4 % less. 544 frames of 34 molecules don't tell what directions bring."),
        Claim("C5", "a learned potential relaxes molecules it has never seen", kind="paper", where="abstract: relaxations",
              ablation="final", null=("force-field", "pairs"), grows="steps", seeds=8, checks=[
                  at_least("relaxed", {"quick": 0.8}, over="mean")],
              reason="MMFF94 and UFF, which learned from no trajectory, relax 0.94 of the molecules over eight seeds, where "
              "PaiNN relaxes 0.44 and a pair table 0.10."),
        Claim("C6", "whole trajectories teach more than relaxed geometries, also as many frames: forces, and relaxations from "
              "the start", kind="paper", where="abstract: relaxation trajectories, not only equilibria", ablation="final",
              null="rattled", grows="steps", seeds=8, checks=[
                  at_most("log_force_rmse", {"quick": np.log(0.5)}, minus="final"),
                  at_most("log_force_rmse", {"quick": np.log(0.5)}, of="few", minus="final"),
                  at_least("relaxed", {"quick": 0.05}, minus="final")],
              reason="Over eight seeds the forces are 26 % better, not twice as good, and 14 % with as few frames. Rattled "
              "minima that no relaxation went through do nearly as well, 19 %, and relax more: 0.55 of the molecules above "
              "what relaxed geometries do, whole trajectories 0.44."),
        Claim("C7", "more trajectories lower the errors", kind="paper", where="subset and full set, 85 times as many; here "
              "four times", published="PaiNN 46.92 to 39.28 meV/Å", ablation="quarter", null="dense", grows="steps",
              seeds=8, checks=[
                  at_most("log_force_rmse", {"quick": np.log(0.95)}, minus="quarter")],
              reason="Four times the molecules take 40 % off the force error over eight seeds; more frames of a quarter of "
              "them take 9 %, but with an interval that reaches to more than the 5 % asked. At four times the steps, on one "
              "seed, these take 13 % and meet it."),
        Claim("C8", "a low force error alone doesn't make a good relaxer", kind="paper", where="introduction", about="ranks",
              no_ablation="two rankings are compared: there is no mechanism that could be off", null="relaxations",
              grows="steps", seeds=8, checks=[
                  at_most("agreement", {"quick": -0.1}, of="ranks", minus="forces")],
              reason="Across halves of the molecules eight potentials rank by relaxations and by force errors 0.25 less "
              "alike than by force errors twice, between 0.51 less and 0.02 more over eight seeds. Whether rankings by "
              "relaxations agree with each other as well is open: 0.11 less when these seeds were trained once, as well when "
              "they were trained again."),
    ],
    cost=130.0,
)  # fmt: skip
def potentials(config: Potentials, key, log: Log) -> Report:
    """Errors on unseen molecules and relaxations of them, an arm a network or what it learned from, and how both rank them."""
    whole, rng = config.load(log), generator(key)
    every, second, test = (part.thinned(4 * config.most) for part in whole.split(config.shares, rng))
    first, second, test = (part.thinned(config.most) for part in (every, second, test))
    frames, starts, ends = test.frames(), *_pairs(test, config.relaxations)
    judged = {}

    def judge(name: str, potential: Potential) -> None:
        errors = frame_errors(potential, frames, size=config.batch)  # as in training, whose program it shares
        relaxed = None if name in UNRELAXED else relaxation_report(potential, starts, ends, reference=config.reference())
        judged[name] = (errors, relaxed)
        log.progress(len(judged) / 11)

    settings = config.training()
    for name, network in _networks(config, key).items():
        judge(name, fitted(network, first, second, settings, key).potential)
    for name, chosen in _chosen(config, whole, every, first, rng, seed_of(key)).items():
        judge(name, fitted(PaiNN(config.network, key), chosen, second, settings, key, scale_on=first).potential)
    judge("pairs", fit_pair_table(first.frames(), second.frames(), cutoff=config.network.cutoff))
    moved = [relax_by_force_field(start, end) for start, end in zip(starts, ends, strict=True)]
    minima_of_it, converged = [each[0] for each in moved], [each[1] for each in moved]
    classical = judge_relaxed(minima_of_it, converged, [0] * len(moved), starts, ends, config.reference())
    arrays: dict[str, Any] = {"atoms": np.array([len(each) for each in frames]), "place": test.place()}
    arms: dict[str, dict[str, float]] = {
        "force-field": classical.summary(),
        **_agreement(judged, test.molecule, test.starts()[: config.relaxations]),
    }
    for name, (errors, relaxed) in judged.items():
        found = {} if relaxed is None else relaxed.summary()
        arms[name] = found | {"energy_mae": errors.energy.mean(), "force_rmse": errors.force.mean(),
                              "log_force_rmse": np.log(errors.force.mean())}  # fmt: skip
        arrays |= {f"{name}_force": errors.force}
    for name, (_, relaxed) in (judged | {"force-field": (None, classical)}).items():
        if relaxed is not None:
            arrays |= {f"{name}_excess": relaxed.excess, f"{name}_rmsd": relaxed.rmsd}
    return Report(arms=arms, arrays=arrays)


def _networks(config: Potentials, key: Any) -> dict[str, Potential]:
    """Networks that learn from all frames."""
    sizes = config.network
    made: dict[str, Potential] = {"system": PaiNN(sizes, key), "schnet": SchNet(sizes, key), "scalars": ScalarPaiNN(sizes, key),
                                  "schnet-large": as_large_schnet(sizes, key)}  # fmt: skip
    for name in config.more:
        if name not in ("escaip", "transip"):
            raise InputError(f"Potentials: {name!r} is neither escaip nor transip.")
        made[name] = (
            build(EScAIP, key, size="tiny" if sizes.width <= 64 else "small", cutoff=sizes.cutoff)
            if name == "escaip"
            else build(AtomTransformer, key, width=sizes.width, blocks=sizes.interactions)
        )
    return made


def _chosen(config: Potentials, whole: TrajectorySet, every: TrajectorySet, first: TrajectorySet, rng: np.random.Generator,
            seed: int) -> dict[str, TrajectorySet]:  # fmt: skip
    """Other frames to learn from: of `first`, of its trajectories in more frames (`every`), and of no trajectory."""
    final = first.ends()
    quarter = _quarter(first, rng)
    made = {
        "final": first.take(final),
        "few": first.take(np.sort(rng.choice(len(first), len(final), replace=False))),
        "quarter": first.take(np.flatnonzero(np.isin(first.molecule, quarter))),
        "dense": every.take(np.flatnonzero(np.isin(every.molecule, quarter))),
    }
    if config.rattled:  # of all molecules, that they are labelled once for all splits
        off = rattled(whole.take(whole.ends()), config.most - 1, config.rattle, config.reference())
        made["rattled"] = off.take(np.flatnonzero(np.isin(off.molecule, first.molecule)))
    if config.third:
        made["third"] = first.take(np.arange(0, len(first), 3))
    if config.cover:
        among = np.sort(rng.choice(len(first), min(AMONG, len(first)), replace=False))
        size = min(config.cover, len(among))
        picked = select(describe_all(first.frames(among)), size, "cover", seed=seed).indices
        made["cover"] = first.take(np.sort(among[picked]))
    return made


def _quarter(data: TrajectorySet, rng: np.random.Generator) -> np.ndarray:
    """A quarter of the molecules, among them each element where a hundred draws find such."""
    molecules = np.unique(data.molecule)
    owner = np.repeat(data.molecule, np.diff(data.first))
    elements = len(np.unique(data.numbers))
    for _ in range(100):
        drawn = rng.choice(molecules, max(1, len(molecules) // 4), replace=False)
        if len(np.unique(data.numbers[np.isin(owner, drawn)])) == elements:
            break
    return drawn


def _pairs(test: TrajectorySet, most: int) -> tuple[list, list]:
    """First and last frames of up to so many trajectories."""
    return test.frames(test.starts()[:most]), test.frames(test.ends()[:most])


def _agreement(judged: dict[str, Any], molecule: np.ndarray, starts: np.ndarray) -> dict[str, dict[str, float]]:
    """Spearman's correlation over the potentials of how good they are on two halves of the molecules: by force error on one and
    energy above the minimum on the other (`ranks`), and by the same of the two on both (`forces`, `relaxations`).

    **Arguments:** `judged`: by potential, errors of frames and the report of relaxations or None; `molecule`: of each frame;
    `starts`: the frames that relaxations began at.
    """
    from scipy.stats import rankdata

    names = [name for name, (_, relaxed) in judged.items() if relaxed is not None]
    halves = [np.isin(molecule, part) for part in np.array_split(np.unique(molecule[starts]), 2)]
    force = np.array([[judged[name][0].force[half].mean() for half in halves] for name in names])
    excess = np.array([
        [np.median(np.nan_to_num(judged[name][1].excess[half[starts]], nan=np.inf)) for half in halves] for name in names
    ])  # fmt: skip

    def spearman(a: np.ndarray, b: np.ndarray) -> float:
        a, b = (rankdata(part) - (len(names) + 1) / 2 for part in (a, b))
        return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-9))

    crossed = (spearman(force[:, 0], excess[:, 1]) + spearman(force[:, 1], excess[:, 0])) / 2
    return {"ranks": {"agreement": crossed}, "forces": {"agreement": spearman(*force.T)},
            "relaxations": {"agreement": spearman(*excess.T)}}  # fmt: skip


def _colours(names: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and line of each arm: the system's own, dashed ones once the colours are used up."""
    styles = [(colour, line) for line in ("-", "--", ":") for colour in COLOURS]
    return dict(zip(names, styles, strict=False))


@potentials.figure
def force_errors(runs: Runs):
    """Force errors on unseen molecules, and along the trajectory: networks, and what they learned from."""
    data = runs["system"].arrays
    fig, axes = figure(2, width=4.6)
    names = [name for name in KINDS if f"{name}_force" in data]
    styles = _colours(names)
    place = data["place"]
    for k, name in enumerate(names):
        force, (colour, line) = data[f"{name}_force"], styles[name]
        axes[0].barh(k, force.mean(), color=colour)
        thirds = [force[(place >= low) & (place <= low + 1 / 3)].mean() for low in (0, 1 / 3, 2 / 3)]
        axes[1].semilogy(range(3), thirds, marker="o", ms=3, ls=line, color=colour)
    axes[0].set_yticks(range(len(names)), [KINDS[name] for name in names], fontsize="small")
    axes[0].invert_yaxis()
    axes[1].set_xticks(range(3), ["first", "middle", "last"])
    label(axes[0], "force RMSE (meV/Å)", "potential", legend=False)
    label(axes[1], "third of the trajectory", "force RMSE (meV/Å)", legend=False)
    return fig


@potentials.figure
def minima(runs: Runs):
    """Reference energy and distance of the geometries that potentials relax to, against the reference's own minimum."""
    data = runs["system"].arrays
    fig, axes = figure(2, width=4.6)
    names = [name for name in KINDS if f"{name}_excess" in data]
    for name, (colour, line) in _colours(names).items():
        excess, rmsd = (np.sort(data[f"{name}_{what}"][np.isfinite(data[f"{name}_{what}"])]) for what in ("excess", "rmsd"))
        shares = np.arange(1, len(excess) + 1) / len(data[f"{name}_excess"])
        axes[0].step(np.maximum(excess, 0.1), shares, color=colour, ls=line, label=KINDS[name])
        axes[1].step(rmsd, np.arange(1, len(rmsd) + 1) / len(rmsd), color=colour, ls=line)
    axes[0].axvline(30, color="0.4", lw=0.8)
    axes[0].set_xscale("log")
    axes[0].legend(frameon=False, fontsize="x-small")
    label(axes[0], "energy above the minimum (meV/atom)", "share of relaxations", legend=False)
    label(axes[1], "RMSD of heavy atoms (Å)", "share of relaxations", legend=False)
    return fig


@potentials.figure
def ranks(runs: Runs):
    """Each potential's force error against how far above the minimum its relaxations end."""
    data = runs["system"].arrays
    fig, axis = figure(width=6.4, height=3.8)
    marks = zip(cycle("sD^vP*X"), cycle(COLOURS[1:]), strict=False)
    for name in (name for name in KINDS if f"{name}_force" in data and f"{name}_excess" in data):
        x, y = data[f"{name}_force"].mean(), np.median(np.nan_to_num(data[f"{name}_excess"], nan=np.inf))
        mark, colour = ("o", SYSTEM_COLOUR) if name == "system" else next(marks)
        if np.isfinite(y):
            axis.plot(x, max(y, 0.1), mark, color=colour, label=KINDS[name])
    axis.set_yscale("log")
    label(axis, "force RMSE (meV/Å)", "median energy above the minimum\n(meV/atom)", legend=False)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    return fig
