"""How connectivity structure shapes rich and lazy learning in neural circuits, arXiv 2310.08513.

How much do a network's features change while it learns, by the effective rank of the recurrent weights it starts from, at one
Frobenius norm? A two-layer linear network has closed forms; rate networks learn cognitive tasks. Controls: kernels of networks
that learned something else or nothing, the spectral radius or the largest singular value held instead of the norm, recurrent
weights that do not learn, shuffled connectomes; and networks compared at equal loss as well as after equal training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.stats import spearmanr

from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.learn.tangent_kernels import run_kernel, tangent_kernel
from broadsheet.networks.cognitive_tasks import CHANNELS, TASKS, CognitiveTask, ImageRows
from broadsheet.networks.initial_weights import (
    block_weights,
    chain_weights,
    dale_weights,
    gaussian_weights,
    match_radius,
    ring_weights,
    shuffled_weights,
    smooth_spectrum_weights,
    spectral_radius,
    truncate,
    wired_weights,
)
from broadsheet.networks.laziness import Laziness, alignment_or_nan, laziness_report, linearised, network_kernel
from broadsheet.networks.linear_learning import (
    LinearNet,
    anisotropic_features,
    expected_alignment,
    low_rank_net,
    matrix_alignment,
    rank_one_net,
    train_linear,
    unit,
)
from broadsheet.networks.rates import RateRNN
from broadsheet.networks.trained_starts import TrainedStarts, train_starts
from broadsheet.numerics import generator
from broadsheet.numerics.ranks import effective_rank
from broadsheet.recordings.worm import Connectome, neuron_class
from broadsheet.vision.images import digits, mnist

paper = Paper(
    slug="rich-lazy",
    arxiv="2310.08513",
    title="How connectivity structure shapes rich and lazy learning in neural circuits",
    published="2023-10-12",
    authors=6,
    basis="code",
    code="github.com/Helena-Yuhan-Liu/BioRNN_RichLazy (no licence)",
    summary="Networks that start from weights of one norm but of different effective rank learn differently: a high rank is "
    "lazy on average over tasks, the features stay much as they were, and a low rank is rich, unless it points along the task "
    "already. In a two-layer linear network the alignment of the tangent kernel with itself after training goes as the square "
    "root of the effective rank; recurrent networks on cognitive tasks, and wiring taken from brains, follow.",
    topics=("rich and lazy learning", "tangent kernels", "recurrent networks", "connectivity"),
    parts=(
        "broadsheet.networks.laziness_report",
        "broadsheet.networks.train_starts",
        "broadsheet.networks.low_rank_weights",
        "broadsheet.networks.train_linear",
        "broadsheet.learn.tangent_kernels.run_kernel",
        "broadsheet.learn.tangent_kernels.tangent_kernel",
        "broadsheet.numerics.ranks.effective_rank",
    ),
    verbs=("broadsheet networks laziness BEFORE AFTER --inputs FILE",),
    notes=(
        "The authors' program was run beside ours. Its starts, its optimiser and its three measures are those here; the closed "
        "forms of the linear network are derived here, with the theorem's conclusion.",
        "Trials are made here after NeuroGym, with noise of deviation 0.1 a step and a fixation cue until the decision; "
        "NeuroGym 2.3 shows that cue in the fixation period of 2AF alone, which has no step at the paper's timing.",
        "At one Frobenius norm a low rank is a large singular value. With the largest singular value held instead, the "
        "difference between ranks is gone: see the arm matched-singular-value.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Theory:
    """Linear networks of as many hidden units as inputs, one random teacher of length 1 a network."""

    inputs: int = 20
    ranks: tuple[int, ...] = (1, 2, 5, 10, 20)
    teachers: int = 20
    norm: float = 0.01  # of W at the start
    readout: float = 1e-4  # of a, over that of W
    rate: float = 0.05
    aligned: tuple[float, ...] = (0.01, 0.3)  # sizes of the balanced starts
    kappas: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 20.0)  # strong over weak features


LARGE = Theory(inputs=100, ranks=(1, 2, 5, 10, 20, 50, 100), teachers=50)


@paper.experiment(
    presets={"smoke": Theory(inputs=4, ranks=(1, 4), teachers=2), "quick": Theory(), "paper": LARGE},
    precision="float64",
    claims=[
        Claim("RL1", "over teachers, the kernel's alignment with itself after training grows as the square root of the start's "
              "effective rank", kind="paper", where="the theorem on two-layer linear networks", ablation="full-rank",
              null=("another-teacher", "identity"), published="the conclusion, in expectation over tasks",
              reason="the closed form is met to 1 %, and so it is by the kernel of a network that learned another teacher, and "
              "to 2 % by no network at all: from a small start every trained kernel is one direction beside the identity, with "
              "which a kernel of high rank is aligned before anything is learned",
              checks=[at_most("closed_form_error", 0.06), at_least("smallest_rise", 0.0)]),
        Claim("RL4", "W Wᵀ - a aᵀ is conserved", kind="check", reference="gradient flow; control: W trained alone",
              ablation="w-alone", checks=[at_most("drift", 1e-3)]),
    ],
    cost=5.0,
)  # fmt: skip
def linear(config: Theory, key, log: Log) -> Report:
    """Alignment of the tangent kernel before and after learning, by the effective rank of a small start and of a large one."""
    rng, d = generator(key), config.inputs
    size = (len(config.ranks), config.teachers)
    betas = np.array([unit(rng.standard_normal(d)) for _ in range(config.teachers)])
    same = np.broadcast_to(betas, (*size, d)).reshape(-1, d)

    def nets(norm: float, full: bool = False) -> list[LinearNet]:
        return [low_rank_net(rng, d, d, d if full else r, norm, readout=config.readout)
                for r in config.ranks for _ in range(config.teachers)]  # fmt: skip

    starts = nets(config.norm) + nets(config.norm, full=True) + nets(1.0)
    first, last, _ = _trained(starts, np.tile(same, (3, 1)), config.rate)
    small, full, large = np.split(np.arange(len(starts)), 3)
    turned = np.roll(np.arange(config.teachers), 1)
    others, large_others = (each.reshape(size)[:, turned].ravel() for each in (full, large))
    pairs = {"system": (first[small], last[small]), "full-rank": (first[full], last[full]),
             "large": (first[large], last[large]), "large-another": (first[large], last[large_others]),
             "another-teacher": (first[small], last[others]),
             "identity": (first[small], jnp.broadcast_to(jnp.eye(d), first[small].shape))}  # fmt: skip
    found = {arm: np.asarray(matrix_alignment(*pair)).reshape(size) for arm, pair in pairs.items()}
    formula = expected_alignment(np.array(config.ranks), d)
    arms = {
        arm: {"closed_form_error": abs(mean / formula - 1).max(), "smallest_rise": np.diff(mean).min()}
        for arm, mean in ((arm, each.mean(axis=1)) for arm, each in found.items())
    }  # fmt: skip
    balanced = [low_rank_net(rng, d, d, d, 0.1, readout=d**-0.5) for _ in range(2)]
    for arm, readout in (("system", True), ("w-alone", False)):
        arms.setdefault(arm, {})["drift"] = float(_trained(balanced, betas[:2], 0.01, readout).drift.max())
    return Report(arms=arms, arrays={**{arm.replace("-", "_"): each for arm, each in found.items()}, "ranks": config.ranks,
                                     "formula": formula})  # fmt: skip


class Learned(NamedTuple):
    """The kernels of linear networks before and after, and the largest change of the balance of any."""

    first: Array
    last: Array
    drift: Array


def _trained(nets: list[LinearNet], betas: np.ndarray, rate: float, readout: bool = True) -> Learned:
    """Networks that learn a teacher each, all at once."""

    def one(net: LinearNet, beta: Array) -> Learned:
        found = train_linear(net, beta, rate=rate, readout=readout)
        return Learned(net.kernel, found.net.kernel, found.drift)

    return jax.jit(jax.vmap(one))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *nets), jnp.asarray(betas))


@linear.figure
def alignment_by_rank(runs: Runs):
    """Alignment by effective rank: closed form, networks from small and large starts, and what needs no learning."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    left.plot(data["ranks"], data["formula"], color="k", lw=1, label="closed form")
    for arm, colour, mark, text in (("system", SYSTEM_COLOUR, "o", "small start"),
                                    ("large", COLOURS[1], "s", "start of norm 1"),
                                    ("another_teacher", CONTROL_COLOUR, "x", "with a network of another teacher"),
                                    ("identity", CONTROL_COLOUR, "+", "with the identity")):  # fmt: skip
        left.errorbar(data["ranks"], data[arm].mean(axis=1), data[arm].std(axis=1), fmt=mark, color=colour, ms=4, label=text)
    left.set_xscale("log")
    label(left, "effective rank of the start", "kernel alignment", "before and after learning")
    for arm, other, colour, text in (("system", "another_teacher", SYSTEM_COLOUR, "small start"),
                                     ("large", "large_another", COLOURS[1], "start of norm 1")):  # fmt: skip
        beyond = data[arm] - data[other]
        error = beyond.std(axis=1) / data[arm].shape[1] ** 0.5
        right.errorbar(data["ranks"], beyond.mean(axis=1), error, fmt="o-", color=colour, ms=4, label=text)
    right.axhline(0, color="k", lw=0.8, ls=":")
    right.set_xscale("log")
    label(right, "effective rank of the start", "alignment beyond another's", "what is the network's own")
    return fig


@paper.experiment(
    presets={"smoke": Theory(inputs=4, ranks=(1, 4), teachers=2, kappas=(1.0, 20.0)), "quick": Theory(), "paper": LARGE},
    precision="float64",
    claims=[
        Claim("RL2", "a balanced start of rank 1 along the teacher does not turn its kernel at all", kind="paper",
              where="the proposition on aligned starts", ablation="random-direction", null="readout-alone",
              checks=[at_least("balanced_alignment", 1 - 1e-6, within=(0, 1))]),
        Claim("RL3", "a start of rank 1 along the teacher is lazier than one along a random direction", kind="paper",
              where="the exception to the rule", ablation="random-direction", null="another-teacher",
              published="lazy in spite of its low rank", checks=[at_least("over_random", 1.6)]),
    ],
    cost=5.0,
)  # fmt: skip
def alignment(config: Theory, key, log: Log) -> Report:
    """The exception: starts of rank 1 along the task, partly along it, and elsewhere, by how much stronger some features are.

    The task is a random direction read from features F x, half of them `kappa` times as strong; a partly aligned start takes
    the strong half alone.
    """
    rng, d, count = generator(key), config.inputs, config.teachers
    betas = np.array([unit(rng.standard_normal(d)) for _ in range(count)])
    elsewhere = np.array([unit(rng.standard_normal(d)) for _ in range(count)])
    nets: dict[str, list[LinearNet]] = {}
    tasks: dict[str, np.ndarray] = {}
    for name, directions, options in (
        ("aligned", betas, {}), ("random", elsewhere, {}),
        *((f"{kind} {size:g}", which, {"norm": size, "readout": 1.0}) for kind, which in
          (("balanced", betas), ("balanced elsewhere", elsewhere)) for size in config.aligned),
    ):  # fmt: skip
        chosen = {"norm": config.norm, "readout": config.readout, **options}
        nets[name], tasks[name] = [rank_one_net(rng, d, direction, **chosen) for direction in directions], betas
    for size in config.aligned:
        made = [rank_one_net(rng, d, beta, size) for beta in betas]
        nets[f"readout {size:g}"] = [LinearNet(0 * net.w, net.a) for net in made]
        tasks[f"readout {size:g}"] = betas
    for kappa in config.kappas:
        features = [anisotropic_features(rng, d, kappa) for _ in range(count)]
        strong = [truncate(each, d // 2, "none") for each in features]
        reading = [rng.standard_normal(d) for _ in range(count)]
        for kind, matrices in (("whole", features), ("partial", strong), ("none", None)):
            along = [matrix.T @ w for matrix, w in zip(matrices, reading, strict=True)] if matrices else list(elsewhere)
            name = f"{kind} {kappa:g}"
            nets[name] = [rank_one_net(rng, d, each, config.norm, readout=config.readout) for each in along]
            tasks[name] = np.array([unit(matrix.T @ w) for matrix, w in zip(features, reading, strict=True)])
    flat = [net for each in nets.values() for net in each]
    learned = _trained(flat, np.concatenate(list(tasks.values())), config.rate)
    first, last = (each.reshape(len(nets), count, d, d) for each in learned[:2])
    found = dict(zip(nets, np.asarray(matrix_alignment(first, last)), strict=True))
    row = {name: k for k, name in enumerate(nets)}
    another = np.asarray(matrix_alignment(first[row["aligned"]], jnp.roll(last[row["aligned"]], 1, axis=0)))
    chance = found["random"].mean()
    again = found[f"none {config.kappas[0]:g}"].mean()

    def smallest(kind: str) -> float:
        return min(found[f"{kind} {size:g}"].min() for size in config.aligned)

    arms = {
        "system": {"over_random": found["aligned"].mean() / chance, "balanced_alignment": smallest("balanced")},
        "random-direction": {"over_random": again / chance, "balanced_alignment": smallest("balanced elsewhere")},
        "another-teacher": {"over_random": another.mean() / chance},
        "readout-alone": {"balanced_alignment": smallest("readout")},
    }
    arrays = {kind: [found[f"{kind} {kappa:g}"] for kappa in config.kappas] for kind in ("whole", "partial", "none")}
    return Report(arms=arms, arrays={**arrays, "kappas": config.kappas, "inputs": d})


@alignment.figure
def exception(runs: Runs):
    """Kernel alignment of starts of rank 1 by the strength of the task's features."""
    data = runs["system"].arrays
    fig, axis = figure()
    for kind, colour, text in (("whole", SYSTEM_COLOUR, "aligned"), ("partial", COLOURS[1], "aligned with the strong half"),
                               ("none", CONTROL_COLOUR, "random")):  # fmt: skip
        values = np.asarray(data[kind])
        axis.errorbar(data["kappas"], values.mean(axis=1), values.std(axis=1), fmt="o-", ms=4, color=colour, label=text)
    axis.axhline(2 / np.sqrt(data["inputs"] + 3.0), color="k", ls=":", lw=1, label="closed form, aligned")
    axis.set_xscale("log")
    label(axis, "strong over weak features, kappa", "kernel alignment", "starts of rank 1, small readout")
    return fig


@dataclass(frozen=True)
class Learning:
    """Rate networks of ReLU units without biases, trained by gradient descent with momentum."""

    data: str | None = None  # folder of MNIST, for rows
    tasks: tuple[str, ...] = ("2AF",)
    images: str = "digits"  # of the task "rows": digits, or mnist
    units: int = 100
    ranks: tuple[int, ...] = (1, 10, 100)
    row_ranks: tuple[int, ...] = (5, 10, 100)  # of the task "rows"
    gain: float = 1.25
    draws: int = 2  # of the Gaussian matrix
    steps: int = 1500
    rate: float = 0.003
    batch: int = 32
    row_batch: int = 200
    probe: int = 320  # trials on which representations are compared
    kernel: int = 32  # of them for kernels


SMALL = Learning(units=8, ranks=(1, 8), draws=1, steps=4, probe=8, kernel=4)
ALL_TASKS = Learning(tasks=("2AF", "DMS", "CXT", "rows"), images="mnist", units=300, ranks=(1, 30, 100, 300),
                     row_ranks=(5, 30, 100, 300), steps=10_000)  # fmt: skip
OTHERS = ("another-network", "untrained")
GAINS = {"kernel": "kernel_gain", "kernel_equal_loss": "kernel_gain_equal_loss", "representation": "representation_gain",
         "signs": "signs_gain", "change": "change_saved"}  # fmt: skip
"""What a full rank has over the lowest, by measure."""
TRAINED = ("frozen", "radius-alone")
BASELINE = (
    "the kernel before training is as much aligned with that of the network which another draw of the same rank became: two "
    "networks of full rank have kernels alike, two of rank 1 do not, and the training of a network's own adds nothing to that"
)


@paper.experiment(
    presets={"smoke": SMALL, "quick": Learning(), "paper": ALL_TASKS},
    data="data",
    claims=[
        Claim("RL5", "a recurrent network on 2AF keeps more of its tangent kernel from a start of full rank than of rank 1",
              kind="paper", where="figure on 2AF, DMS, CXT and sMNIST", ablation=("same-rank", "matched-singular-value"),
              null=(*OTHERS, *TRAINED), grows="steps", seeds=8, reason=BASELINE,
              checks=[at_least("kernel_gain", 0.2, over="mean")]),
        Claim("RL9", "and its recurrent weights change less", kind="paper", where="figure on 2AF, DMS, CXT and sMNIST",
              ablation="same-rank", null="radius-alone", grows="steps", seeds=8,
              reason="eight seeds do not tell the saving from nothing, nor from what starts of full rank save whose spectral "
              "radius is that of the low rank's",
              checks=[at_least("change_saved", 0.0, over="mean")]),
        Claim("RL10", "the same of the kernel at equal loss", kind="paper", where="figure on 2AF, DMS, CXT and sMNIST",
              ablation=("same-rank", "matched-singular-value"), null=(*OTHERS, *TRAINED), grows="steps", seeds=8,
              reason=BASELINE, checks=[at_least("kernel_gain_equal_loss", 0.2, over="mean")]),
        Claim("RL6", "over all tasks the kept part of the kernel rises with the rank", kind="paper",
              where="figure on 2AF, DMS, CXT and sMNIST", ablation="matched-singular-value", null=OTHERS, seeds=5,
              checks=[at_least("rank_order", {"paper": 0.8}, over="mean")]),
        Claim("RL7", "starts of all ranks have one Frobenius norm", kind="check",
              reference="the Gaussian matrix's own; control: truncated and not scaled", ablation="unscaled",
              checks=[at_most("norm_error", 1e-6)]),
        Claim("RL8", "the kernel without Jacobians is that of automatic differentiation", kind="check",
              reference="jax.jacrev; control: gradients that do not go back in time", ablation="one-step",
              checks=[at_most("kernel_error", 1e-4)]),
    ],
    cost=25.0,
)  # fmt: skip
def recurrent(config: Learning, key, log: Log) -> Report:
    """Change of weights, representations and kernels by the rank of the start, after equal training and at equal loss.

    Each arm is a ladder of starts from the lowest rank to the full one: of the system; of the same ranks at the full matrix's
    largest singular value; of the full rank at the lowest rank's spectral radius; and with recurrent weights that do not
    learn. Two arms take the system's kernels before training and compare them with those of the network of another draw and the
    same rank, trained or not.
    """
    arms: dict[str, dict[str, float]] = {}
    arrays: dict[str, Any] = {"ranks": config.ranks}
    kept: dict[str, list[np.ndarray]] = {}
    for n, name in enumerate(config.tasks):
        starts, ladders = _starts(config, config.row_ranks if name == "rows" else config.ranks, key)

        def report(done: int | float, n: int = n) -> None:
            log.progress((n + done) / len(config.tasks))

        alike = [start for ladder in ladders["system"] for start in ladder]
        found, moved = _learned(config, name, starts, alike, jax.random.fold_in(key, n), report)
        for arm, values in _kept(moved, ladders).items():
            kept.setdefault(arm, []).append(np.nanmean(values["kernel"], axis=0))
            gains = {GAINS[measure]: float(np.nanmean(each[:, -1] - each[:, 0])) for measure, each in values.items()}
            if "change_saved" in gains:
                gains["change_saved"] *= -1
            arms.setdefault(arm, {}).update(gains if n == 0 else {f"{metric}_{name}": gain for metric, gain in gains.items()})
            arrays |= {f"{name}_{arm}_{measure}": each for measure, each in values.items()}
        system = [[list(starts).index(start) for start in ladder] for ladder in ladders["system"]]
        arrays |= {f"{name}_losses": found.losses[:, system].mean(axis=1), f"{name}_looks": found.looks}
    for arm in ("system", "matched-singular-value", *OTHERS):
        order = spearmanr(np.arange(len(config.ranks)), np.mean(kept[arm], axis=0)).statistic
        arms[arm]["rank_order"] = float(np.nan_to_num(order))
    arms["system"] |= {"norm_error": _norm_error(config, key, "match"), "kernel_error": _kernel_error(config, key)}
    arms["unscaled"] = {"norm_error": _norm_error(config, key, "none")}
    arms["one-step"] = {"kernel_error": _kernel_error(config, key, back=False)}
    return Report(arms=arms, arrays=arrays)


Ladders = dict[str, list[list[str]]]
"""Arm -> draw -> names of starts, the lowest rank first."""


def _starts(config: Learning, ranks: tuple[int, ...], key: Any) -> tuple[dict[str, np.ndarray], Ladders]:
    """Recurrent weights by name, and the ladders that they make."""
    starts: dict[str, np.ndarray] = {}
    ladders: Ladders = {arm: [] for arm in ("system", "matched-singular-value", *TRAINED, "same-rank")}
    for draw in range(config.draws):
        whole = gaussian_weights(jax.random.fold_in(key, 100 + draw), config.units, config.gain)
        low = {f"{rank}, {draw}": truncate(whole, rank) for rank in ranks}
        *below, full = low
        matched = {f"matched {name}": low[name] * (np.linalg.norm(whole, 2) / np.linalg.norm(low[name], 2)) for name in below}
        radius = {f"radius {draw}": match_radius(whole, spectral_radius(low[below[0]]))}
        frozen = {f"frozen {name}": low[name] for name in (below[0], full)}
        starts |= low | matched | radius | frozen
        ladders["system"].append(list(low))
        ladders["matched-singular-value"].append([*matched, full])
        ladders["radius-alone"].append([*radius, full])
        ladders["frozen"].append(list(frozen))
    first, last = ladders["system"][0][-1], ladders["system"][-1][-1]
    ladders["same-rank"].append([first, last])
    return starts, ladders


class Moved(NamedTuple):
    """By start: how far it moved, after training and at equal loss, and the kernels before and after."""

    after: dict[str, Laziness]
    equal: dict[str, Laziness]
    first: dict[str, Any]
    last: dict[str, Any]


def _learned(
    config: Learning, task: str, starts: dict[str, np.ndarray], alike: list[str], key: Any, report: Callable[[float], None]
) -> tuple[TrainedStarts, Moved]:
    """Trains from all starts; equal loss is the largest that one of those that are `alike` ends with."""
    rows = task == "rows"
    trials, (inputs, outputs) = _task(config, task)
    net = RateRNN(inputs, config.units, outputs, key=jax.random.fold_in(key, 1))
    probe = trials(jax.random.fold_in(key, 2), config.probe)
    found = train_starts(
        net, starts, trials, steps=config.steps, batch=config.row_batch if rows else config.batch, probe=probe,
        rate=config.rate, key=jax.random.fold_in(key, 3), report=report,
        frozen=[name for name in starts if name.startswith("frozen")],
    )  # fmt: skip
    few, steps = probe[0][: config.kernel], (-1,) if rows else None
    first, last = ({name: network_kernel(each, few, steps=steps) for name, each in nets.items()}
                   for nets in (found.before, found.after))  # fmt: skip
    target = float(np.nanmax([found.loss(name)[-1] for name in alike]))

    def moved(name: str, after: RateRNN) -> Laziness:
        return laziness_report(found.before[name], after, probe[0], steps=steps, kernel_batch=config.kernel, kernel=first[name])

    after = {name: moved(name, each) for name, each in found.after.items()}
    return found, Moved(after, {name: moved(name, found.at_loss(name, target)) for name in starts}, first, last)


def _kept(moved: Moved, ladders: Ladders) -> dict[str, dict[str, np.ndarray]]:
    """Arm -> measure -> (draws, ranks)."""
    kept: dict[str, dict[str, np.ndarray]] = {}
    for arm, ladder in ladders.items():
        after, equal = ([[each[name] for name in names] for names in ladder] for each in (moved.after, moved.equal))
        kept[arm] = {
            "kernel": _table(after, "kernel"), "kernel_equal_loss": _table(equal, "kernel"),
            "representation": _table(after, "representation"), "signs": _table(after, "signs"),
            "change": _table(after, "weight_change"),
        }  # fmt: skip
    for arm, kernels in (("another-network", moved.last), ("untrained", moved.first)):
        system = ladders["system"]
        pairs = [zip(names, system[draw - 1], strict=True) for draw, names in enumerate(system)]
        values = [[alignment_or_nan(moved.first[name], kernels[other]) for name, other in row] for row in pairs]
        kept[arm] = {"kernel": np.array(values), "kernel_equal_loss": np.array(values)}
    return kept


def _table(rows: list[list[Laziness]], measure: str) -> np.ndarray:
    return np.array([[getattr(each, measure) for each in row] for row in rows])


def _task(config: Learning, name: str) -> tuple[CognitiveTask, tuple[int, int]]:
    """Trials of a task, and how many inputs and outputs it has."""
    if name in TASKS:
        return TASKS[name], CHANNELS[name]
    images = mnist(config.data) if config.images == "mnist" else digits(np.random.default_rng(0))
    return ImageRows(images.x, images.y), (images.x.shape[2], int(images.y.max()) + 1)


def _norm_error(config: Learning, key: Any, norm: Any) -> float:
    """Largest deviation of a start's norm from the Gaussian matrix's, as a share of it, in the networks' precision."""
    whole = gaussian_weights(key, config.units, config.gain)
    norms = np.array([np.linalg.norm(truncate(whole, rank, norm).astype(np.float32)) for rank in config.ranks])
    return float(abs(norms / np.linalg.norm(whole) - 1).max())


def _kernel_error(config: Learning, key: Any, *, back: bool = True) -> float:
    """Largest deviation of the kernel without Jacobians from that by them, over the largest entry."""
    net = RateRNN(3, config.units, 3, key=key)
    inputs = TASKS["2AF"](key, 4)[0]
    recurrent = net.w_rec if back else jnp.zeros_like(net.w_rec)
    ours = run_kernel(linearised(net, inputs), recurrent, net.w_out)
    exact = tangent_kernel(net, inputs, where=lambda net: net.w_rec)
    return float(jnp.abs(ours - exact).max() / jnp.abs(exact).max())


@recurrent.figure
def what_is_kept(runs: Runs):
    """Change of weights, features and kernels by rank; the loss; and the kernel's alignment beside that of the controls."""
    data = runs["system"].arrays
    tasks = [name.removesuffix("_losses") for name in data if name.endswith("_losses")]
    fig, axes = figure(3, len(tasks), width=3.8)
    ranks = [str(rank) for rank in data["ranks"]]
    ranks[0] = "lowest" if len(tasks) > 1 else ranks[0]
    for row, task in zip(np.atleast_2d(axes), tasks, strict=True):
        places = np.arange(len(ranks))
        for k, (measure, text) in enumerate((("change", "change of weights"), ("representation", "1 - alignment of features"),
                                             ("kernel", "1 - alignment of kernels"))):  # fmt: skip
            values = np.asarray(data[f"{task}_system_{measure}"])
            values = values if measure == "change" else 1 - values
            row[0].bar(places + 0.27 * (k - 1), values.mean(axis=0), 0.25, color=COLOURS[k], label=text)
        row[0].set_xticks(places, ranks)
        row[0].set_ylim(0, 1.8)
        label(row[0], "rank of the start", "change", task)
        for k, losses in enumerate(np.asarray(data[f"{task}_losses"]).T):
            row[1].semilogy(data[f"{task}_looks"], losses, color=COLOURS[k], label=f"rank {ranks[k]}")
        label(row[1], "step", "loss on probe trials (nats)", task)
        for arm, style in (("system", {"color": SYSTEM_COLOUR, "marker": "o"}),
                           ("matched-singular-value", {"color": COLOURS[1], "marker": "s"}),
                           ("another-network", {"color": CONTROL_COLOUR, "marker": "x"}),
                           ("untrained", {"color": CONTROL_COLOUR, "marker": "+", "ls": ":"})):  # fmt: skip
            row[2].plot(places, np.asarray(data[f"{task}_{arm}_kernel"]).mean(axis=0), label=arm, **style)
        row[2].set_xticks(places, ranks)
        row[2].set_ylim(0, 1.4)
        label(row[2], "rank of the start", "alignment of kernels", task)
    return fig


@dataclass(frozen=True)
class Structure:
    """Starts of different structure at one norm on one task."""

    task: str = "2AF"
    maps: tuple[str, ...] = ("white", "cook2019h", "witvliet8")
    cells: int = 0  # of those that all maps have, the first so many; 0: all
    gain: float = 0.5  # wiring of mostly excitatory cells has three times the Gaussian's spectral radius at its norm
    steps: int = 300
    rate: float = 0.003
    batch: int = 32
    probe: int = 320
    kernel: int = 32


NINE = ("white_a", "white_l4", "varshney", "cook2019h", "cook2019m", "witvliet1", "witvliet3", "witvliet5", "witvliet8")
GABA = ("DD", "VD", "RME", "AVL", "DVB", "RIS")
"""Classes of the worm's 26 GABAergic neurons (McIntire et al., Nature 364, 337 (1993)); the others are taken as excitatory."""


@paper.experiment(
    presets={"smoke": Structure(maps=("varshney",), cells=8, steps=4, probe=8, kernel=4), "quick": Structure(),
             "paper": Structure(maps=NINE, steps=10_000)},
    claims=[
        Claim("RL11", "wiring taken from a brain has a lower effective rank than a Gaussian matrix", kind="paper",
              where="figure on experimentally driven connectivity", ablation="gaussian", null="shuffled", seeds=8,
              reason="so has the same wiring with each cell's synapses sent to random cells, at twice the rank: few synapses "
              "of unequal strength and cells of one sign do for it",
              checks=[at_most("rank_ratio", 1.0, over="mean")]),
        Claim("RL12", "and learns richer: it keeps less of its tangent kernel", kind="paper",
              where="figure on experimentally driven connectivity", ablation="gaussian", null="shuffled", grows="steps",
              seeds=8, checks=[at_least("richer", 0.0, over="mean")],
              reason="Early in training: with four times the steps it keeps as much or more, -0.10 on four seeds with an "
              "interval from -0.28 to 0.08, where it is 0.19 on these at first."),
    ],
    cost=15.0,
)  # fmt: skip
def structure(config: Structure, key, log: Log) -> Report:
    """Effective rank and kernel alignment of starts with Dale's law, cell types, a ring, a chain, and of connectomes.

    Connectomes are the chemical synapses among the cells that all maps list, signs by transmitter; each stands beside itself
    with every cell's synapses sent to random cells.
    """
    wirings, signs = _wirings(config)
    units = len(signs)

    def part(k: int) -> Any:
        return jax.random.fold_in(key, k)

    gaussian = gaussian_weights(part(0), units, config.gain)
    starts = {
        "gaussian": gaussian, "gaussian 2": gaussian_weights(part(1), units, config.gain),
        "gaussian 3": gaussian_weights(part(7), units, config.gain),
        "low rank": truncate(gaussian, max(units // 10, 1)),
        "falling spectrum": smooth_spectrum_weights(part(0), units, max(units / 20, 1.5), gain=config.gain),
        "Dale": dale_weights(part(2), units, gain=config.gain), "cell types": block_weights(part(3), units, gain=config.gain),
        "ring": ring_weights(part(4), units, gain=config.gain),
        "chain": chain_weights(part(5), units, links=min(10, units), gain=config.gain),
    }  # fmt: skip
    for k, (name, wiring) in enumerate(wirings.items()):
        starts[name] = wired_weights(wiring, signs, gain=config.gain)
        starts[f"{name} shuffled"] = shuffled_weights(part(10 + k), starts[name])
    scaled = {name: weights * (np.linalg.norm(gaussian) / np.linalg.norm(weights)) for name, weights in starts.items()}
    work = Learning(units=units, steps=config.steps, rate=config.rate, batch=config.batch, probe=config.probe,
                    kernel=config.kernel)  # fmt: skip
    _, moved = _learned(work, config.task, scaled, ["gaussian", *wirings], part(6), log.progress)
    ranks = {name: effective_rank(weights) for name, weights in scaled.items()}
    groups = {"system": list(wirings), "shuffled": [f"{name} shuffled" for name in wirings], "gaussian": ["gaussian 3"]}
    plain = ["gaussian", "gaussian 2"]

    def kernel(names: list[str], reports: dict[str, Laziness] = moved.after) -> float:
        return float(np.nanmean([reports[name].kernel for name in names]))

    arms = {
        arm: {
            "rank_ratio": float(np.mean([ranks[name] for name in names]) / np.mean([ranks[name] for name in plain])),
            "richer": kernel(plain) - kernel(names),
            "richer_equal_loss": kernel(plain, moved.equal) - kernel(names, moved.equal),
            "change": float(np.nanmean([moved.after[name].weight_change for name in names])),
        }
        for arm, names in groups.items()
    }
    arrays = {"effective_rank": list(ranks.values()), "entropy_rank": [effective_rank(w, "entropy") for w in scaled.values()],
              "kernel": [each.kernel for each in moved.after.values()],
              "largest": [np.linalg.norm(weights, 2) for weights in scaled.values()], "names": list(scaled)}  # fmt: skip
    arms["system"]["rank_correlation"] = float(
        spearmanr(arrays["effective_rank"], arrays["kernel"], nan_policy="omit").statistic
    )
    return Report(arms=arms, arrays=arrays)


def _wirings(config: Structure) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Chemical synapses (pre, post) of each map among the cells that all of them list, and each cell's sign."""
    maps = {name: Connectome.load(name) for name in config.maps}
    cells = np.flatnonzero(np.all([each.annotated for each in maps.values()], axis=0))[: config.cells or None]
    names = next(iter(maps.values())).names
    signs = np.array([-1.0 if neuron_class(names[cell]) in GABA else 1.0 for cell in cells])
    return {name: each.chem[np.ix_(cells, cells)] for name, each in maps.items()}, signs


@structure.figure
def ranks_and_kernels(runs: Runs):
    """Kernel alignment against effective rank, and against the largest singular value, of all starts."""
    data = runs["system"].arrays
    fig, axes = figure(2, width=5.2, height=3.8)
    names = [str(name) for name in data["names"]]
    brains = {name.removesuffix(" shuffled") for name in names if name.endswith(" shuffled")}
    named = [k for k, name in enumerate(names) if name.split()[-1] not in ("shuffled", "2", "3")]  # one of a start's draws
    for axis, values, text in ((axes[0], "effective_rank", "effective rank of the start"),
                               (axes[1], "largest", "largest singular value of the start")):  # fmt: skip
        for k, name in enumerate(names):
            shuffled = name.endswith(" shuffled")
            kind = "connectome" if name in brains else "shuffled connectome" if shuffled else "made"
            colour = {"connectome": SYSTEM_COLOUR, "made": COLOURS[1]}.get(kind, CONTROL_COLOUR)
            first = kind not in axis.get_legend_handles_labels()[1]
            axis.plot(data[values][k], data["kernel"][k], "o", color=colour, ms=4, label=kind if first else None)
        for k in named:
            near = np.abs(np.log(data[values][named] / data[values][k])) < 0.4
            gap = data["kernel"][named] - data["kernel"][k]
            below = (near & (gap > 0) & (gap < 0.03)).any()  # where another name would be in the way
            axis.annotate(names[k], (data[values][k], data["kernel"][k]), fontsize=6, xytext=(3, -8 if below else 2),
                          textcoords="offset points")  # fmt: skip
        axis.set_xscale("log")
        label(axis, text, "kernel alignment, before and after")
    return fig


@dataclass(frozen=True)
class Forgetting(Learning):
    """The first task is learned, then the second, by the same network."""

    tasks: tuple[str, ...] = ("2AF", "DMS")


@paper.experiment(
    presets={"smoke": Forgetting(units=8, ranks=(1, 8), draws=3, steps=4, probe=8), "quick": Forgetting(steps=800),
             "paper": Forgetting(units=300, ranks=(1, 30, 100, 300), steps=10_000, draws=5)},
    cost=10.0,
)  # fmt: skip
def forgetting(config: Forgetting, key, log: Log) -> Report:
    """The loss on a first task before it is learned, after, and after a second one was, by the rank of the start."""
    starts = {name: weights for name, weights in _starts(config, config.ranks, key)[0].items() if name[0].isdigit()}
    (first, sizes), (second, _) = (_task(config, name) for name in config.tasks)
    net = RateRNN(sizes[0], config.units, sizes[1], key=jax.random.fold_in(key, 1))
    probe = first(jax.random.fold_in(key, 2), config.probe)
    options: dict[str, Any] = {"steps": config.steps, "batch": config.batch, "rate": config.rate, "probe": probe}
    learned = train_starts(
        net, starts, first, key=jax.random.fold_in(key, 3), report=lambda done: log.progress(done / 2), **options
    )
    again = train_starts(net, learned.after, second, key=jax.random.fold_in(key, 4),
                         report=lambda done: log.progress((1 + done) / 2), **options)  # fmt: skip
    shape = (config.draws, len(config.ranks))
    losses = np.concatenate([learned.losses, again.losses]).reshape(-1, *shape).mean(axis=1)
    metrics = {
        f"forgotten_rank_{rank}": losses[-1, k] - losses[len(learned.losses) - 1, k] for k, rank in enumerate(config.ranks)
    }
    looks = np.concatenate([learned.looks, config.steps + again.looks])
    return Report(metrics=metrics, arrays={"losses": losses, "looks": looks, "ranks": config.ranks, "change": config.steps})


@forgetting.figure
def first_task(runs: Runs):
    """Loss on the first task while it is learned and while the second one is."""
    data = runs["system"].arrays
    fig, axis = figure()
    for k, rank in enumerate(data["ranks"]):
        axis.semilogy(data["looks"], np.asarray(data["losses"])[:, k], color=COLOURS[k], label=f"rank {rank}")
    axis.axvline(data["change"], color="k", lw=0.8, ls=":", label="the second task begins")
    label(axis, "step", "loss on the first task (nats)")
    return fig
