"""The Expressive Leaky Memory neuron, arXiv 2306.16922.

A recurrent cell with non-negative synapses, dendritic branches, a small network and a bank of slow memory units stands in
for a detailed biophysical neuron. Controls switch one mechanism off: slow memory, nonlinear integration, branches.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np

from broadsheet.dynamics import rollout, trainable
from broadsheet.lab import NONE_YET, Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.language.checkpoints import read_state
from broadsheet.networks import Recurrent
from broadsheet.neurons import BranchedNeuron, ELMCell, LIFLayer, count_params, load_official, record
from broadsheet.neurons.classification import accuracy, fit_classifier
from broadsheet.neurons.datasets import neuronio_recordings, read_shd
from broadsheet.neurons.elm_reference import PUBLISHED_COUNTS, published_cell
from broadsheet.neurons.surrogate import (
    fit_recordings,
    predict_recordings,
    scale_voltage,
    spike_scores,
    voltage_scores,
)  # fmt: skip
from broadsheet.neurons.tasks import DigitSpikes, SpokenDigits, Task, branch_coincidences, which_pulse
from broadsheet.neurons.traces import logistic_on_traces
from broadsheet.numerics import generator

paper = Paper(
    slug="elm-neuron",
    arxiv="2306.16922",
    title="The Expressive Leaky Memory Neuron: an Efficient and Expressive Phenomenological Neuron Model "
    "Can Solve Long-Horizon Tasks",
    published="2023-06-14",
    authors=5,
    basis="code",
    code="github.com/AaronSpieler/elmneuron (MIT)",
    summary="A recurrent model of one cortical neuron: leaky synapses, optional dendritic branches, and a bank of memory "
    "units with widely spread time constants, updated by a small network. With a few thousand parameters it reproduces the "
    "input-output relation of a detailed pyramidal cell, and its slow memory carries tasks over long horizons.",
    topics=("neuron models", "dendrites", "sequence models"),
    parts=("broadsheet.neurons.ELMCell", "broadsheet.neurons.ELMNeuron", "broadsheet.neurons.load_official"),
    verbs=("broadsheet neurons fit-elm RECORDING.npz",),
    notes=(
        "Equality with the official cell is checked against an independent transcription of its published equations; the "
        "official program itself was not run here.",
        "NeuronIO (115 GB), SHD and the Long Range Arena are not shipped: their published scores (AUC 0.9922 at d_m = 20) "
        "are not reproduced at quick, where a generated neuron with eight branches stands in.",
        "At quick size one memory unit does not learn the generated neuron (AUC below 0.5; published on NeuronIO: 0.94), so "
        "that the rise from 1 to 5 units says little; the rise from 5 to 20 is the smaller one, and the one that is judged.",
        "On the generated neuron most of the gain in AUC over synaptic traces is slow memory: against logistic regression on "
        "traces of 5, 20 and 60 ms it is about 0.015. What a linear cell misses shows in the voltage.",
    ),
    untested=[
        Claim("C9", "over 70 % on Pathfinder-X, 16 000 steps", kind="paper", where="abstract", published="over 70 %",
              untested="the Long Range Arena has to be downloaded, and its hyperparameters were not published with the code"),
    ],
)  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """Random cells on random input: is it the published cell, and how do its two versions compare?"""

    cells: int = 8
    d_m: int = 20
    steps: int = 600


@paper.experiment(
    presets={"smoke": Identity(cells=1, d_m=3, steps=20), "quick": Identity(), "paper": Identity(cells=32, d_m=100)},
    claims=[
        Claim("C1", "the cell is the published one, v1 and v2", kind="check", ablation=("plain-tanh", "undecayed"),
              reference="a float64 transcription of the published equations, synapse by synapse; controls: tanh without its "
              "scale, and a network that sees the memory before its decay",
              checks=[at_most("difference_v1", 1e-5), at_most("difference_v2", 1e-5)]),
        Claim("C2", "parameter counts equal the 14 published ones", kind="check", ablation="learned-tau",
              reference="the official README; control: time constants counted as parameters",
              checks=[at_most("count_mismatches", 0)]),
        Claim("C5", "v2 equals v1 where dt is far below every memory time constant", kind="paper", where="official code",
              ablation="fast-memory", no_null="two forms of one cell are compared, and both are needed for that", checks=[
                  at_most("version_gap", 0.03), at_least("version_gap", 0.10, of="fast-memory")]),
        Claim("C5b", "their gap falls with the step as that of a method of first order", kind="check",
              reference="half the step, half the gap", checks=[at_most("gap_halves", 0.5)]),
    ],
    precision="float64",
    cost=6.0,
)  # fmt: skip
def identity(config: Identity, key, log: Log) -> Report:
    """The cell against its published equations, its parameter counts, and version 1 against version 2."""
    arms: dict[str, dict[str, list[float]]] = {name: {} for name in ("system", "plain-tanh", "undecayed")}
    gaps: dict[str, list[tuple[float, float]]] = {"slow": [], "slower": [], "fast": []}

    def add(arm: str, name: str, value: float) -> None:
        arms[arm].setdefault(name, []).append(value)

    for k in range(config.cells):
        cell_key, input_key, weight_key = jax.random.split(jax.random.fold_in(key, k), 3)
        signs = np.repeat([1.0, -1.0], 12)
        x = jax.random.bernoulli(input_key, 0.05, (config.steps, 24)) * signs
        for variant in ("v1", "v2"):
            cell = ELMCell(24, 2, config.d_m, d_tree=6, d_brch=7, routing="neighbour", tau_m=(1.0, 150.0),
                           variant=variant, key=cell_key)  # fmt: skip
            weights = jax.random.uniform(weight_key, (42,), minval=-0.2, maxval=1.0)
            cell = eqx.tree_at(lambda cell: cell.raw_weights, cell, weights)
            ours, stepped = map(np.asarray, _both_ways(cell, x))
            exact = published_cell(cell, np.asarray(x))
            add("system", f"difference_{variant}", max(np.abs(ours - exact).max(), np.abs(stepped - exact).max()))
            for arm, options in (("plain-tanh", {"scale": (1.0, 1.0)}), ("undecayed", {"decayed_input": False})):
                add(arm, f"difference_{variant}", np.abs(ours - published_cell(cell, np.asarray(x), **options)).max())
        for name, bounds in (("slow", (200.0, 1000.0)), ("slower", (400.0, 2000.0)), ("fast", (1.0, 1000.0))):
            gaps[name].append(_version_gap(config.d_m, bounds, cell_key, x))
        log.progress((k + 1) / config.cells)
    worst = {arm: {name: max(values) for name, values in row.items()} for arm, row in arms.items()}
    difference, output = np.swapaxes([gaps[name] for name in ("slow", "slower", "fast")], 1, 2).swapaxes(0, 1)
    slow, slower, fast = np.sqrt((difference**2).sum(axis=1) / (output**2).sum(axis=1))
    worst["system"] |= {"version_gap": slow, "gap_halves": slower / slow, "count_mismatches": _count_mismatches(False)}
    worst["fast-memory"] = {"version_gap": fast}
    worst["learned-tau"] = {"count_mismatches": _count_mismatches(learn_tau=True)}
    ratio = difference / output
    return Report(arms=worst, arrays={"gap_slow": ratio[0], "gap_fast": ratio[2]})


@eqx.filter_jit
def _both_ways(cell: ELMCell, x):
    """The cell's outputs, whole and step by step."""
    return cell(x), rollout(cell, x)[1]


def _version_gap(d_m: int, bounds: tuple[float, float], key, x) -> tuple[float, float]:
    """RMS difference between the outputs of v1 and v2 with the same weights, and RMS output of v1."""
    sizes = {"d_tree": 6, "d_brch": 7, "routing": "neighbour", "tau_m": bounds, "key": key}
    first, second = (np.asarray(_both_ways(ELMCell(24, 2, d_m, variant=v, **sizes), x)[0]) for v in ("v1", "v2"))
    return float(np.sqrt(np.mean((first - second) ** 2))), float(np.sqrt(np.mean(first**2)))


def _count_mismatches(learn_tau: bool) -> int:
    sizes = {"d_tree": 45, "d_brch": 100, "routing": "neighbour", "learn_tau": learn_tau}
    counts = {  # shapes alone: nothing is drawn
        d: count_params(eqx.filter_eval_shape(ELMCell, 1278, 2, d, **sizes, key=jax.random.key(0))) for d in PUBLISHED_COUNTS
    }
    return sum(counts[d] != published for d, published in PUBLISHED_COUNTS.items())


@identity.figure
def versions(runs: Runs):
    """How far version 2 is from version 1, with slow memory and with fast."""
    data = runs["system"].arrays
    fig, axis = figure()
    axis.semilogy(data["gap_slow"], "o", color=SYSTEM_COLOUR, label="τ in [200, 1000] ms")
    axis.semilogy(data["gap_fast"], "s", color=CONTROL_COLOUR, label="τ in [1, 1000] ms")
    label(axis, "random cell", "rms(v1 − v2) / rms(v1)")
    return fig


@dataclass(frozen=True)
class Recall:
    """Which of two pulses came 300 steps ago?"""

    tau_max: float = 600.0  # ms; the paper's mechanism: slow memory
    delay: int = 300  # ms
    d_m: int = 20
    steps: int = 600
    batch: int = 32
    rate: float = 1e-2
    test: int = 500


@paper.experiment(
    presets={"smoke": Recall(steps=3, delay=20, test=20), "quick": Recall(), "paper": Recall(steps=2000, test=5000)},
    variants={"fast": {"tau_max": 10.0}},
    claims=[
        Claim("C4", "slow memory carries the long range", kind="paper", where="abstract", ablation="fast", null=NONE_YET,
              grows="steps", checks=[
            at_least("accuracy", 0.95), at_most("accuracy", 0.65, of="fast")]),
    ],
    cost=8.0,
)  # fmt: skip
def recall(config: Recall, key, log: Log) -> Report:
    """Which of two pulses came 300 steps ago, through noise? Slow memory units against fast ones."""
    cell_key, fit_key, test_key = jax.random.split(key, 3)
    cell = ELMCell(3, 2, config.d_m, tau_m=(1.0, config.tau_max), key=cell_key)
    return _classify(cell, lambda k, n: which_pulse(k, n, delay=config.delay), config, fit_key, test_key, log)


@dataclass(frozen=True)
class Coincidence:
    """Is exactly one of two branches active? A XOR of coincidences."""

    mlp_layers: int = 1
    bounded: bool = True
    d_m: int = 20
    steps: int = 600
    batch: int = 64
    rate: float = 5e-3
    test: int = 2000


@paper.experiment(
    presets={"smoke": Coincidence(steps=3, test=20), "quick": Coincidence(), "paper": Coincidence(steps=5000, test=20_000)},
    variants={"linear": {"mlp_layers": 0, "bounded": False}},
    claims=[
        Claim("C8", "nonlinear integration of branches is needed", kind="paper", where="model", ablation="linear",
              null=NONE_YET, grows="steps", checks=[
            at_least("accuracy", 0.95), at_most("accuracy", 0.6, of="linear")]),
    ],
    cost=7.0,
)  # fmt: skip
def coincidence(config: Coincidence, key, log: Log) -> Report:
    """The XOR of two branches' coincidences, with the cell's network and with a linear map in its place."""
    cell_key, fit_key, test_key = jax.random.split(key, 3)
    cell = ELMCell(8, 2, config.d_m, d_tree=2, d_brch=4, routing=None, tau_m=(1.0, 100.0), mlp_layers=config.mlp_layers,
                   bounded=config.bounded, key=cell_key)  # fmt: skip
    return _classify(cell, branch_coincidences, config, fit_key, test_key, log)


def _classify(model, task: Task, config, fit_key, test_key, log: Log, test_task: Task | None = None) -> Report:
    """Trains a model on a task and tests it on fresh examples."""
    fitted = fit_classifier(
        model, task, steps=config.steps, batch=config.batch, rate=config.rate, key=fit_key,
        report=lambda step, value: log.progress(step / config.steps, loss=value), checkpoint=log.checkpoint("training"),
    )  # fmt: skip
    return Report(
        metrics={
            "accuracy": accuracy(fitted.model, test_task or task, config.test, test_key),
            "final_loss": fitted.losses[-20:].mean(),
            "parameters": _size(model),
        },
        arrays={"loss": fitted.losses},
    )


def _size(model) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, trainable(model))))


def _learning_curves(runs: Runs, control: str, title: str):
    fig, axis = figure()
    for name, run in runs.items():
        colour = CONTROL_COLOUR if name == control else SYSTEM_COLOUR
        window = min(10, len(run.arrays["loss"]))
        smooth = np.convolve(run.arrays["loss"], np.ones(window) / window, mode="valid")
        axis.plot(smooth, color=colour, label=f"{name}: {run.metrics['accuracy']:.0%} right")
    axis.axhline(np.log(2), color="k", lw=0.6)
    label(axis, "training step", "cross-entropy (nats; line: chance)", title)
    return fig


@recall.figure
def slow_memory(runs: Runs):
    """Learning with slow and with fast memory."""
    return _learning_curves(runs, "fast", "one pulse, 300 ms ago")


@coincidence.figure
def branches(runs: Runs):
    """Learning with and without nonlinear integration."""
    return _learning_curves(runs, "linear", "is exactly one branch active?")


@dataclass(frozen=True)
class Surrogate:
    """Fitting the input-output relation of a neuron with nonlinear branches."""

    source: Literal["generator", "neuronio"] = "generator"
    data: str | None = None  # folder of NeuronIO
    checkpoint: str | None = None  # official weights to score instead of training (d_m = the last of d_ms)
    d_ms: tuple[int, ...] = (1, 5, 20)
    d_tree: int = 8
    d_brch: int = 20
    channels: int = 128
    train_ms: int = 120_000
    test_ms: int = 60_000
    steps: int = 1000
    batch: int = 8
    window: int = 200  # ms
    rate: float = 5e-3
    tau_max: float = 150.0  # ms


@paper.experiment(
    presets={
        "smoke": Surrogate(d_ms=(1, 2), train_ms=2000, test_ms=4000, steps=2, channels=16, d_tree=2, d_brch=9),
        "quick": Surrogate(),
        "paper": Surrogate(source="neuronio", d_ms=(1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 50, 100), d_tree=45, d_brch=100,
                           channels=1278, steps=350_000, window=500, rate=5e-4),
    },
    claims=[
        Claim("C3", "accuracy grows with memory units, beyond synaptic traces and beyond any linear cell", kind="paper",
              published="AUC 0.9922 on NeuronIO with 20 memory units, 0.94 with one",
              where="NeuronIO results", ablation="linear", null=NONE_YET, grows="steps", checks=[
                  at_least("smallest_rise", 0.0), at_least("gap_to_traces", 0.02),
                  at_least("explained_variance", 0.1, minus="linear")]),
        Claim("C6", "branches save two thirds of the parameters at equal accuracy", kind="paper", where="Branch-ELM",
              ablation="random-routing", null=NONE_YET, grows="steps", checks=[
                  at_most("parameter_share", 1 / 3), at_least("auc_against_plain", -0.01)]),
    ],
    data="data",
    cost=40.0,
)  # fmt: skip
def surrogate(config: Surrogate, key, log: Log) -> Report:
    """Voltage and spikes of a neuron with nonlinear branches, by ELM cells of growing size and by simpler ones."""
    (x, voltage, spikes), (tx, tv, ts) = _recordings(config, key)
    targets = np.stack([spikes, scale_voltage(voltage)], axis=-1)
    branched = {"d_tree": config.d_tree, "d_brch": config.d_brch}
    largest = config.d_ms[-1]

    def elm(d_m: int, **options):
        return lambda k: ELMCell(config.channels, 2, d_m, tau_m=(1.0, config.tau_max), key=k, **options)

    jobs = {f"branch-{d}": elm(d, **branched, routing="neighbour") for d in config.d_ms}
    jobs |= {f"linear-{d}": elm(d, **branched, routing="neighbour", mlp_layers=0, bounded=False) for d in config.d_ms[-2:]}
    jobs["plain"] = elm(largest)
    jobs["random"] = elm(largest, **branched, routing="random")
    if config.checkpoint:
        state = read_state(config.checkpoint)
        jobs = {"checkpoint": lambda k: load_official(state, config.channels, routing="neighbour", tau_m=(1.0, config.tau_max))}
    done = []

    def run(name: str) -> dict:
        cell_key, fit_key = jax.random.split(jax.random.fold_in(key, sum(name.encode())))
        model = jobs[name](cell_key)
        if not config.checkpoint:
            model = fit_recordings(model, x, targets, ("spikes", "voltage"), steps=config.steps, batch=config.batch,
                                   window=config.window, rate=config.rate, key=fit_key)  # fmt: skip
        out = predict_recordings(model, tx)
        done.append(name)
        log.progress(len(done) / len(jobs))
        scores = spike_scores(ts, out[..., 0]) | voltage_scores(tv, out[..., 1])
        return {"parameters": _size(model), **scores, "voltage": out[0, :2000, 1]}

    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(jobs, pool.map(run, jobs), strict=True))
    traces = {} if config.checkpoint else {
        name: logistic_on_traces(tau, x, spikes, tx, ts) for name, tau in {"own": (5.0,), "slow": (5.0, 20.0, 60.0)}.items()
    }  # fmt: skip
    return _surrogate_report(config, found, tv[0, :2000], largest, traces)


def _surrogate_report(config: Surrogate, found: dict, voltage: np.ndarray, largest: int, traces: dict[str, float]) -> Report:
    arrays = {
        "voltage": voltage,
        "predicted": found["checkpoint" if config.checkpoint else f"branch-{largest}"]["voltage"],
        "parameters": [row["parameters"] for row in found.values()],
        "auc": [row["auc"] for row in found.values()],
        "rmse_mv": [row["rmse_mv"] for row in found.values()],
        "names": np.array(list(found)),
    }
    if config.checkpoint:
        best = {name: value for name, value in found["checkpoint"].items() if name != "voltage"}
        return Report(arms={"system": best}, arrays=arrays)
    aucs = [found[f"branch-{d}"]["auc"] for d in config.d_ms]
    linear = [found[f"linear-{d}"]["auc"] for d in config.d_ms[-2:]]
    best, plain, shuffled = found[f"branch-{largest}"], found["plain"], found["random"]
    return Report(
        arms={
            "system": {
                **{f"auc_{d}": auc for d, auc in zip(config.d_ms, aucs, strict=True)},
                "smallest_rise": float(np.diff(aucs).min()),
                "gap_to_traces": aucs[-1] - traces["own"],
                "gap_to_slow_traces": aucs[-1] - traces["slow"],
                "parameter_share": best["parameters"] / plain["parameters"],
                "auc_against_plain": best["auc"] - plain["auc"],
                "explained_variance": best["explained_variance"],
                "rmse_mv": best["rmse_mv"],
                "tp_at_1_percent": best["tp_at_1_percent"],
                "auc_plain": plain["auc"],
                "auc_traces": traces["own"],
            },
            "linear": {
                "smallest_rise": linear[1] - linear[0],
                "gap_to_traces": linear[1] - traces["own"],
                "gap_to_slow_traces": linear[1] - traces["slow"],
                "explained_variance": found[f"linear-{largest}"]["explained_variance"],
            },
            "random-routing": {
                "parameter_share": shuffled["parameters"] / plain["parameters"],
                "auc_against_plain": shuffled["auc"] - plain["auc"],
            },
        },
        arrays=arrays,
    )


def _recordings(config: Surrogate, key) -> tuple[tuple, tuple]:
    """(inputs, voltage, spikes) for training and for testing, each with recordings first."""
    if config.source == "neuronio":
        return neuronio_recordings(config.data)
    neuron = BranchedNeuron(config.channels, config.d_tree)
    whole = record(generator(key), neuron, config.train_ms + config.test_ms)
    cut = config.train_ms
    return tuple(part[None, :cut] for part in whole), tuple(part[None, cut:] for part in whole)


@surrogate.figure
def fit_quality(runs: Runs):
    """The soma's voltage and its prediction, and accuracy against the number of parameters."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    left.plot(np.minimum(data["voltage"], -45), color=CONTROL_COLOUR, label="neuron")
    left.plot(data["predicted"] / 0.1 - 67.7, color=SYSTEM_COLOUR, label="ELM, clipped at −55 mV")
    label(left, "time (ms)", "soma (mV)")
    for name, size, auc in zip(data["names"], data["parameters"], data["auc"], strict=True):
        system = str(name).startswith("branch")
        right.semilogx(size, auc, "o" if system else "s", color=SYSTEM_COLOUR if system else CONTROL_COLOUR)
        right.annotate(str(name), (size, auc), fontsize="x-small", xytext=(3, 3), textcoords="offset points")
    right.set_xticks([200, 1000, 5000], ["200", "1000", "5000"])
    right.minorticks_off()
    label(right, "parameters", "AUC of spikes", legend=False)
    return fig


@dataclass(frozen=True)
class Adding:
    """Two digits as spikes, one after the other: what is their sum?"""

    source: Literal["digits", "shd"] = "digits"
    data: str | None = None  # folder with shd_train.h5 and shd_test.h5
    model: Literal["elm", "lstm", "lif"] = "elm"
    tau_max: float = 150.0  # steps
    lam: float = 5.0
    d_m: int = 40
    bin_steps: int = 16  # steps per digit
    steps: int = 500
    batch: int = 64
    rate: float = 1e-2
    test: int = 2000


@paper.experiment(
    presets={
        "smoke": Adding(steps=2, test=20, d_m=4, bin_steps=4),
        "quick": Adding(d_m=30, steps=300, test=1000),
        "paper": Adding(source="shd", d_m=100, steps=20_000, batch=8, rate=5e-3, test=2000, bin_steps=100, tau_max=500.0),
    },
    variants={"fast": {"tau_max": 2.0}, "lstm": {"model": "lstm"}, "lif": {"model": "lif"}},
    claims=[
        Claim("C7", "addition over time: as good as an LSTM and a spiking network of equal size", kind="paper",
              where="SHD-Adding", ablation="fast", null=NONE_YET, grows="steps", checks=[
                  at_least("accuracy", {"paper": 0.8}), at_least("accuracy", {"paper": -0.01}, minus="lstm"),
                  at_least("accuracy", {"paper": -0.01}, minus="lif")]),
    ],
    data="data",
    cost=12.0,
)  # fmt: skip
def adding(config: Adding, key, log: Log) -> Report:
    """The sum of two digits shown as spikes one after the other, against an LSTM and a LIF network of equal size."""
    model_key, fit_key, test_key = jax.random.split(key, 3)
    if config.source == "shd":
        train, test = (SpokenDigits(*read_shd(config.data, part)).adding for part in ("train", "test"))
        channels = 700
    else:
        train, test = (DigitSpikes(config.bin_steps, test=part).adding for part in (False, True))
        channels = 64
    return _classify(_adder(config, channels, model_key), train, config, fit_key, test_key, log, test)


def _adder(config: Adding, channels: int, key):
    """The model, the comparisons with as many parameters as the ELM cell has."""
    elm = ELMCell(channels, 19, config.d_m, tau_m=(1.0, config.tau_max), lam=config.lam, key=key)
    if config.model == "elm":
        return elm
    make = Recurrent if config.model == "lstm" else LIFLayer
    width = 1
    while _size(eqx.filter_eval_shape(make, channels, width + 1, 19, key=key)) <= count_params(elm):  # nothing is drawn
        width += 1
    return make(channels, width, 19, key=key)


@adding.figure
def sums(runs: Runs):
    """Accuracy of the sum, by model and by memory."""
    fig, axis = figure()
    names = list(runs)
    colours = [SYSTEM_COLOUR if name == "system" else CONTROL_COLOUR for name in names]
    axis.bar(names, [runs[name].metrics["accuracy"] for name in names], color=colours)
    axis.axhline(0.1, color="k", lw=0.6)
    label(axis, "model (equal parameters)", "right sums (fraction; line: most frequent sum)")
    return fig


@dataclass(frozen=True)
class Ablation:
    """What each choice of the cell is worth on recognising a digit from its spikes."""

    lams: tuple[float, ...] = (1.0, 10.0)
    tau_maxs: tuple[float, ...] = (10.0, 100.0)  # steps
    d_m: int = 20
    steps: int = 100
    seeds: int = 1


@paper.experiment(
    presets={
        "smoke": Ablation(lams=(5.0,), tau_maxs=(10.0,), d_m=3, steps=2),
        "quick": Ablation(),
        "paper": Ablation(lams=(1.0, 2.0, 5.0, 10.0), tau_maxs=(10.0, 30.0, 100.0, 300.0), d_m=100, steps=5000, seeds=3),
    },
    cost=15.0,
)
def ablation(config: Ablation, key, log: Log) -> Report:
    """Accuracy on single digits by input gain and memory range, and with learned time constants, without a network, with v2."""
    settings: list[dict[str, Any]] = [{"lam": lam, "tau_max": tau} for lam in config.lams for tau in config.tau_maxs]
    extras: dict[str, dict[str, Any]] = {
        "learned tau": {"learn_tau": True},
        "no network": {"mlp_layers": 0},
        "v2": {"variant": "v2"},
    }
    train, test = (DigitSpikes(16, test=part) for part in (False, True))

    def score(k: int, options: dict) -> float:
        model_key, fit_key, test_key = jax.random.split(jax.random.fold_in(key, k), 3)
        given = {"tau_m": (1.0, options.pop("tau_max", 100.0)), **options}
        cell = ELMCell(64, 10, config.d_m, **given, key=model_key)
        fitted = fit_classifier(cell, train.single, steps=config.steps, batch=32, rate=2e-2, key=fit_key)
        log.progress((k + 1) / (config.seeds * (len(settings) + len(extras))))
        return accuracy(fitted.model, test.single, 1000, test_key)

    rows = [*settings, *extras.values()]
    jobs = [(n * len(rows) + k, dict(row)) for n in range(config.seeds) for k, row in enumerate(rows)]
    with ThreadPoolExecutor(2) as pool:
        scores = np.array(list(pool.map(lambda job: score(*job), jobs))).reshape(config.seeds, len(rows)).mean(axis=0)
    grid = scores[: len(settings)].reshape(len(config.lams), len(config.tau_maxs))
    others = dict(zip(extras, scores[len(settings) :], strict=True))
    return Report(
        metrics={"best": grid.max(), "worst": grid.min(), **{name.replace(" ", "_"): v for name, v in others.items()}},
        arrays={"accuracy": grid, "lam": config.lams, "tau_max": config.tau_maxs},
    )


@ablation.figure
def heat_map(runs: Runs):
    """Accuracy by input gain and memory range."""
    data = runs["system"].arrays
    fig, axis = figure()
    image = axis.imshow(data["accuracy"], origin="lower", cmap="viridis", aspect="auto")
    axis.set_xticks(range(len(data["tau_max"])), [f"{tau:g}" for tau in data["tau_max"]])
    axis.set_yticks(range(len(data["lam"])), [f"{lam:g}" for lam in data["lam"]])
    fig.colorbar(image, label="right digits (fraction)")
    label(axis, "largest τ (steps)", "λ", legend=False)
    return fig


@dataclass(frozen=True)
class Pixels:
    """Digits read pixel by pixel."""

    tau_max: float = 200.0  # steps
    d_m: int = 100
    steps: int = 20_000
    batch: int = 64
    rate: float = 3e-3
    test: int = 5000


@paper.experiment(
    presets={"smoke": Pixels(d_m=3, steps=2, test=20), "paper": Pixels()},
    variants={"fast": {"tau_max": 4.0}},
    cost=2.0,
)
def pixels(config: Pixels, key, log: Log) -> Report:
    """Sequential classification of digits, one pixel a step."""
    cell_key, fit_key, test_key = jax.random.split(key, 3)
    cell = ELMCell(1, 10, config.d_m, tau_m=(1.0, config.tau_max), key=cell_key)
    train, test = DigitSpikes(), DigitSpikes(test=True)
    return _classify(cell, train.pixels, config, fit_key, test_key, log, test.pixels)
