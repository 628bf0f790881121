"""A benchmark for quantum chemistry relaxations via machine learning interatomic potentials, arXiv 2506.23008.

Potentials learn from whole relaxations and are judged along them and as relaxers. The controls split by frame instead of by
molecule, learn from relaxed geometries alone, see distances but no directions, or have not learned.
"""

from __future__ import annotations

import gzip
import pickle
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from broadsheet.atoms.compression import select
from broadsheet.atoms.environments import describe_all
from broadsheet.atoms.labels import Method, calculator
from broadsheet.atoms.message_passing import MessageConfig
from broadsheet.atoms.potential import Potential, scaled
from broadsheet.atoms.potentials.escaip import EScAIP
from broadsheet.atoms.potentials.painn import PaiNN
from broadsheet.atoms.potentials.schnet import SchNet
from broadsheet.atoms.potentials.transip import AtomTransformer
from broadsheet.atoms.registry import build
from broadsheet.atoms.relaxation_benchmark import fitted, frame_errors, relaxation_report
from broadsheet.atoms.training import Training
from broadsheet.atoms.trajectories import MOLECULES, TrajectorySet, g2_relaxations, label_from_atoms, read_pubchemqcr
from broadsheet.errors import InputError, MissingDataError
from broadsheet.lab import NONE_YET, Claim, Log, Paper, Report, Runs, at_least, at_most
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
    tasks={"relax molecules": "architectures:relaxed"},
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
    data = g2_relaxations(config.names, config.copies, config.stages, config.rattle, log.progress)
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
        """The frames, thinned; `MissingDataError` where the published files are wanted and not given."""
        if not self.names:
            if self.data is None:
                raise MissingDataError("The paper's size needs PubChemQCR's LMDB files (divelab/PubChemQCR on the Hugging Face "
                                       "Hub): --data FOLDER --trust.")  # fmt: skip
            return read_pubchemqcr(self.data, "1st", limit=self.limit).thinned(self.most)
        return g2_relaxations(self.names, self.copies, self.stages, self.rattle, log.progress).thinned(self.most)


TINIEST = MessageConfig(width=8, interactions=1, basis=8)
SMOKE: dict[str, Any] = {"names": ("C2H6", "CH4", "C2H2", "C2H4", "C3H4_D2d"), "copies": 1, "most": 3, "network": TINIEST,
                         "steps": 2, "batch": 2, "force_weight": 0.0, "shares": (0.4, 0.2, 0.4)}  # fmt: skip
PUBLISHED_SIZE: dict[str, Any] = {"names": (), "most": 16, "network": MessageConfig(), "steps": 400_000, "batch": 32,
                                  "learning_rate": 5e-4, "shares": (0.6, 0.2, 0.2)}  # fmt: skip


@dataclass(frozen=True)
class Leak(Learning):
    """The same frames of few molecules split by molecule, and by frame."""

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
              reference="the same network, steps and frames, split by molecule", about="by-frame", ablation="system",
              checks=[at_most("relative_energy_mae", 0.7, of="by-frame")]),
    ],
    cost=12.0,
)  # fmt: skip
def splits(config: Leak, key, log: Log) -> Report:
    """Test errors of SchNet, split by molecule and by frame, over those by molecule."""
    data = config.load(log)
    errors = {}
    for k, (name, by) in enumerate((("system", "molecule"), ("by-frame", "frame"))):
        first, second, test = data.split(config.shares, generator(key), by)  # type: ignore[arg-type]
        trained = fitted(SchNet(config.network, key), first, second, config.training(), key)
        errors[name] = frame_errors(trained.potential, test.frames())
        log.progress((k + 2) / 3)
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
    for name, colour, text in (("by_frame", CONTROL_COLOUR, "split by frame"), ("system", SYSTEM_COLOUR, "split by molecule")):
        share = np.full(len(data[name]), 1 / len(data[name]))
        axis.hist(np.maximum(data[name], 1), bins, weights=share, histtype="step", color=colour, label=text)
    axis.set_xscale("log")
    label(axis, "energy error (meV/atom)", "share of frames")
    return fig


@dataclass(frozen=True)
class Architectures(Learning):
    """Networks under one protocol."""

    models: tuple[str, ...] = ("painn", "schnet")
    relaxations: int = 16  # start geometries of unseen molecules


@paper.experiment(
    presets={
        "smoke": Architectures(**SMOKE, relaxations=1),
        "quick": Architectures(),
        "paper": Architectures(**PUBLISHED_SIZE, models=("painn", "schnet", "escaip"), relaxations=200),
    },
    data="data",
    claims=[
        Claim("C4", "vectors that turn with the molecule predict forces better than distances alone", kind="paper",
              where="table of nine models: 46.9 against 56.2 meV/Å", published="ratio 0.83", ablation="schnet",
              null="untrained", grows="steps", checks=[
                  at_most("log_force_rmse", {"quick": np.log(0.95)}, minus="schnet", over="each")],
              reason="With 544 frames of 34 molecules the two err nearly alike over whole trajectories, where the first steps "
              "from rattled geometries outweigh the rest: PaiNN 5 and 6 % less in two seeds, 4 % more in one. Its "
              "relaxations end nearer to the minimum."),
        Claim("C5", "a learned potential relaxes molecules it has never seen", kind="paper", where="abstract: relaxations",
              ablation="untrained", null=NONE_YET, grows="steps", checks=[at_least("relaxed", {"quick": 0.8})],
              reason="Force errors of 1 to 2 eV/Å on unseen molecules, after 500 steps on 34 others, are too large: relaxed "
              "geometries lie near the minimum (median gain 0.76 to 0.98), a third to four fifths within 30 meV an atom."),
        Claim("C7", "more trajectories lower the errors", kind="paper", where="subset and full set", published="PaiNN 46.92 to "
              "39.28 meV/Å", untested="needs the 3.5 million trajectories of the full set"),
        Claim("C8", "a low force error alone doesn't make a good relaxer", kind="paper", where="introduction", untested="two "
              "or three networks have no ranks to compare; their agreement is reported as the metric `rank_agreement`"),
    ],
    cost=25.0,
)  # fmt: skip
def architectures(config: Architectures, key, log: Log) -> Report:
    """Test errors and relaxations of unseen molecules, a network an arm, and of one that learned nothing."""
    from scipy.stats import spearmanr

    first, second, test = config.load(log).split(config.shares, generator(key))
    frames, place, starts, ends = test.frames(), test.place(), *_pairs(test, config.relaxations)
    arms: dict[str, dict[str, float]] = {}
    arrays: dict[str, Any] = {"atoms": np.array([len(each) for each in frames]), "place": place}
    for k, name in enumerate(config.models):
        trained = fitted(_network(name, config.network, key), first, second, config.training(), key).potential
        arm = "system" if name == "painn" else name
        arms[arm] = _judge(trained, frames, starts, ends, config.reference(), arrays, arm)
        log.progress((k + 1) / (len(config.models) + 1))
    untrained = scaled(_network(config.models[0], config.network, key), first.frames())
    arms["untrained"] = _judge(untrained, frames, starts, ends, config.reference(), arrays, "untrained")
    learned = [arm for name, arm in arms.items() if name != "untrained"]
    worse = np.array([[arm["force_rmse"], -arm["relaxed"]] for arm in learned])
    agreement = spearmanr(*worse.T).statistic if (np.ptp(worse, axis=0) > 0).all() else 0.0
    arms["ranks"] = {"rank_agreement": float(agreement)}
    return Report(arms=arms, arrays=arrays)


def _network(name: str, sizes: MessageConfig, key) -> Potential:
    """A network of these sizes, or of about their cost where it has others."""
    if name in ("painn", "schnet"):
        return (PaiNN if name == "painn" else SchNet)(sizes, key)
    if name == "escaip":
        return build(EScAIP, key, size="tiny" if sizes.width <= 64 else "small", cutoff=sizes.cutoff)
    if name == "transip":
        return build(AtomTransformer, key, width=sizes.width, blocks=sizes.interactions)
    raise InputError(f"Architectures: {name!r} is neither painn, schnet, escaip nor transip.")


def _pairs(test: TrajectorySet, most: int) -> tuple[list, list]:
    """First and last frames of up to so many trajectories."""
    return test.frames(test.starts()[:most]), test.frames(test.ends()[:most])


def _judge(potential: Potential, frames: list, starts: list, ends: list, method: Any, arrays: dict[str, Any],
           name: str) -> dict[str, float]:  # fmt: skip
    """Errors of frames and scores of relaxations, kept in `arrays` too."""
    errors, relaxed = frame_errors(potential, frames), relaxation_report(potential, starts, ends, reference=method)
    arrays |= {f"{name}_energy": errors.energy, f"{name}_force": errors.force, f"{name}_excess": relaxed.excess,
               f"{name}_rmsd": relaxed.rmsd, f"{name}_steps": relaxed.steps}  # fmt: skip
    return {"energy_mae": errors.energy.mean(), "force_rmse": errors.force.mean(),
            "log_force_rmse": np.log(errors.force.mean()), **relaxed.summary()}  # fmt: skip


TEXTS = {"system": "PaiNN", "schnet": "SchNet", "escaip": "EScAIP", "untrained": "untrained"}


@architectures.figure
def force_errors(runs: Runs):
    """Force errors along the trajectory and with the number of atoms; each network's means."""
    data = runs["system"].arrays
    fig, axes = figure(3, width=3.4)
    names = [name for name in TEXTS if f"{name}_force" in data and name != "untrained"]
    for k, name in enumerate(names):
        force, place = data[f"{name}_force"], data["place"]
        thirds = [force[(place >= low) & (place <= low + 1 / 3)].mean() for low in (0, 1 / 3, 2 / 3)]
        axes[0].bar(k, force.mean(), color=COLOURS[k])
        axes[1].semilogy(range(3), thirds, "o-", color=COLOURS[k], label=TEXTS[name])
        sizes = np.unique(data["atoms"])
        axes[2].plot(sizes, [force[data["atoms"] == n].mean() for n in sizes], "o", color=COLOURS[k])
    axes[0].set_xticks(range(len(names)), [TEXTS[name] for name in names])
    axes[1].set_xticks(range(3), ["first", "middle", "last"])
    label(axes[0], "network", "force RMSE (meV/Å)", legend=False)
    label(axes[1], "third of the trajectory", "force RMSE (meV/Å)")
    label(axes[2], "atoms", "force RMSE (meV/Å)", legend=False)
    return fig


@architectures.figure
def minima(runs: Runs):
    """Reference energy and distance of the geometries that potentials relax to, against the reference's own minimum."""
    data = runs["system"].arrays
    fig, axes = figure(2)
    for k, (name, text) in enumerate((name, text) for name, text in TEXTS.items() if f"{name}_excess" in data):
        colour = CONTROL_COLOUR if name == "untrained" else COLOURS[k]
        excess, rmsd = (np.sort(data[f"{name}_{what}"][np.isfinite(data[f"{name}_{what}"])]) for what in ("excess", "rmsd"))
        axes[0].step(np.maximum(excess, 0.1), np.arange(1, len(excess) + 1) / len(data[f"{name}_excess"]), color=colour,
                     label=text)  # fmt: skip
        axes[1].step(rmsd, np.arange(1, len(rmsd) + 1) / len(rmsd), color=colour)
    axes[0].axvline(30, color="0.4", lw=0.8)
    axes[0].set_xscale("log")
    label(axes[0], "energy above the minimum (meV/atom)", "share of relaxations")
    label(axes[1], "RMSD of heavy atoms (Å)", "share of relaxations", legend=False)
    return fig


@dataclass(frozen=True)
class Choice(Learning):
    """The same network and steps on frames chosen in other ways."""

    relaxations: int = 16
    kinds: tuple[str, ...] = ("system", "final")  # also "third" and "cover"
    chosen: float = 0.5  # share of the frames that the set cover keeps


@paper.experiment(
    presets={
        "smoke": Choice(**SMOKE, relaxations=1),
        "quick": Choice(),
        "paper": Choice(**PUBLISHED_SIZE, relaxations=200, kinds=("system", "final", "third", "cover")),
    },
    data="data",
    claims=[
        Claim("C6", "whole trajectories teach more than relaxed geometries: forces and relaxations from the start",
              kind="paper", where="abstract: relaxation trajectories, not only equilibria", ablation="final",
              null=NONE_YET, grows="steps", checks=[
                  at_most("log_force_rmse", {"quick": np.log(0.5)}, minus="final", over="each"),
                  at_least("relaxed", {"quick": 0.05}, minus="final", over="mean")],
              reason="Relaxations work with whole trajectories and never with relaxed geometries alone; but forces on unseen "
              "molecules are a quarter better on average, not twice as good, since 34 molecules teach little about others."),
    ],
    cost=30.0,
)  # fmt: skip
def what_to_train_on(config: Choice, key, log: Log) -> Report:
    """PaiNN on all frames, on relaxed geometries alone, on every third, and on what a set cover keeps."""
    first, second, test = config.load(log).split(config.shares, generator(key))
    frames, starts, ends = test.frames(), *_pairs(test, config.relaxations)
    cover = select(describe_all(first.frames()), max(2, int(config.chosen * len(first))), "cover", seed=seed_of(key)).indices
    kept = {
        "system": np.arange(len(first)),
        "final": first.ends(),
        "third": np.arange(0, len(first), 3),
        "cover": np.sort(cover),
    }
    arms: dict[str, dict[str, float]] = {}
    arrays: dict[str, Any] = {"place": test.place()}
    for k, name in enumerate(config.kinds):
        which = kept[name]
        trained = fitted(PaiNN(config.network, key), first.take(which), second, config.training(), key).potential
        arms[name] = _judge(trained, frames, starts, ends, config.reference(), arrays, name) | {"frames": len(which)}
        log.progress((k + 1) / len(config.kinds))
    return Report(arms=arms, arrays=arrays)


@what_to_train_on.figure
def taught(runs: Runs):
    """Force errors along the trajectory, and energies of relaxed geometries, by what was trained on."""
    data = runs["system"].arrays
    fig, axes = figure(2)
    texts = {"system": "all frames", "final": "relaxed geometries", "third": "every third", "cover": "set cover, half"}
    bins = np.linspace(0, 1, 6)
    middle = (bins[1:] + bins[:-1]) / 2
    for k, (name, text) in enumerate((name, text) for name, text in texts.items() if f"{name}_force" in data):
        colour = CONTROL_COLOUR if name == "final" else COLOURS[k]
        at = np.clip(np.digitize(data["place"], bins) - 1, 0, 4)
        means = [data[f"{name}_force"][at == n].mean() if (at == n).any() else np.nan for n in range(5)]
        axes[0].semilogy(middle, means, "o-", color=colour, label=text)
        excess = np.sort(data[f"{name}_excess"][np.isfinite(data[f"{name}_excess"])])
        axes[1].step(np.maximum(excess, 0.1), np.arange(1, len(excess) + 1) / len(data[f"{name}_excess"]), color=colour)
    axes[1].set_xscale("log")
    label(axes[0], "place along the trajectory", "force RMSE (meV/Å)")
    label(axes[1], "energy above the minimum (meV/atom)", "share of relaxations", legend=False)
    return fig
