"""Sparse distributed representations and active dendrites, arXiv 1601.00720.

A dendritic segment is a pattern detector: exact combinatorics says how often it is wrong, and why 8 to 20 coincident
synapses are the right number. The control throughout is the same segment in a densely active population.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from broadsheet.lab import NONE_YET, Claim, Log, Paper, Report, Runs, at_least, at_most, equals
from broadsheet.lab.plots import CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.neurons import sdr
from broadsheet.neurons.dendrite import DendriticNeuron
from broadsheet.neurons.sdr_data import correlated_sdrs, k_winners, poirazi_mel
from broadsheet.numerics import generator

paper = Paper(
    slug="sdr-dendrites",
    arxiv="1601.00720",
    title="How do neurons operate on sparse distributed representations? "
    "A mathematical theory of sparsity, neurons and active dendrites",
    published="2016-01-04",
    authors=2,
    basis="code",
    code="github.com/numenta/htmresearch (AGPL-3.0, Python 2): projects/sdr_paper",
    summary="A dendritic segment that fires when enough of its few synapses see active cells recognises patterns of a large, "
    "sparse population almost without error. Exact formulas for false matches, missed patterns and unions explain why about "
    "ten coincident synapses are the right threshold, and a one-neuron classifier learns patterns online.",
    topics=("dendrites", "sparse coding", "associative memory"),
    parts=("broadsheet.neurons.sdr", "broadsheet.neurons.DendriticNeuron", "broadsheet.neurons.sdr_data"),
    tasks={"recall stored patterns": "online:recall"},
    notes=(
        "The published curve for half-active populations (0.005 to 0.007 with 24 synapses and threshold 12) does not follow "
        "from the formula, which gives 0.58; only its flatness is reproduced.",
        "The equations and tables come from the authors' code as described; none of its text is used (AGPL).",
    ),
)

POINTS = (
    (300, 64, 24, 12),
    (300, 64, 20, 8),
    (400, 64, 20, 8),
    (500, 128, 24, 10),
    (600, 32, 20, 4),
    (1000, 64, 24, 5),
)
"""(n, a, s, theta) at which simulation meets theory: false match probabilities from 3e-4 to 0.08."""


@dataclass(frozen=True)
class Theory:
    """False matches and misses of one segment, by formula and by drawing patterns."""

    draws: int = 200_000  # patterns per point
    trials: int = 20  # of 500 patterns each, per noise level
    n_noise: int = 6000
    step: int = 800  # of the population axis, cells


@paper.experiment(
    presets={
        "smoke": Theory(draws=2000, trials=1, n_noise=1000, step=5000),
        "quick": Theory(),
        "paper": Theory(draws=5_000_000, trials=100, step=200),
    },
    claims=[
        Claim("C1", "the false-match formula is exact", kind="check", ablation="strict",
              reference="Monte Carlo through patterns and segments; control: > instead of ≥ at the threshold",
              checks=[at_most("worst_z", 4.0)]),
        Claim("C4", "missed patterns under noise follow the formula", kind="check", ablation="off_by_one",
              reference="simulation of 10 000 noisy patterns per point; control: the sum starts one synapse early",
              checks=[at_most("noise_excess", 0.0)]),
        Claim("C8", "the curves over n, s and noise lie on the formula", kind="check", ablation="strict",
              reference="Monte Carlo where more than 100 hits are expected",
              checks=[at_most("curve_error", {"paper": 0.1})]),
    ],
    cost=12.0,
)  # fmt: skip
def theory(config: Theory, key, log: Log) -> Report:
    """Formulas against patterns: how often a segment fires on a random pattern, and misses its own under noise."""
    rng = generator(key)
    simulated, exact, strict = [], [], []
    for k, (n, a, s, theta) in enumerate(POINTS):
        segment = sdr.random_sdrs(rng, n, s, 1)
        overlap = sdr.overlaps(n, sdr.random_sdrs(rng, n, a, config.draws), segment)
        simulated.append(float((overlap >= theta).mean()))
        exact.append(float(sdr.false_match(n, a, s, theta)))
        strict.append(float(sdr.false_match(n, a, s, theta + 1)))
        log.progress((k + 1) / 12)
    measured, expected, wrong = map(np.array, (simulated, exact, strict))

    def worst(p: np.ndarray) -> float:
        return float(np.max(np.abs(measured - p) / np.sqrt(p * (1 - p) / config.draws)))

    def curve(p: np.ndarray) -> float:
        seen = expected * config.draws > 100
        return float(np.max(np.abs(np.log10(np.maximum(measured, 1e-12) / p))[seen], initial=0.0))

    noise = _noise(config, rng, log)
    populations = np.arange(300, 20_101, config.step)
    arrays = {
        "populations": populations,
        "by_n_64": sdr.false_match(populations, 64, 24, 12),
        "by_n_256": sdr.false_match(populations, 256, 24, 12),
        "by_n_half": sdr.false_match(populations, populations // 2, 24, 12),
        "thresholds": np.arange(3, 25),
        "median": sdr.median_false_match(np.arange(3, 25)),
        "points_exact": expected,
        "points_simulated": measured,
        **noise["arrays"],
    }
    return Report(
        arms={
            "system": {"worst_z": worst(expected), "curve_error": curve(expected), "noise_excess": noise["excess"]},
            "strict": {"worst_z": worst(wrong), "curve_error": curve(wrong)},
            "off_by_one": {"noise_excess": noise["control"]},
        },
        arrays=arrays,
    )


def _noise(config: Theory, rng: np.random.Generator, log: Log) -> dict:
    """Missed patterns of segments with 30 synapses on patterns of 128 cells, for three thresholds."""
    n, a, s, thetas = config.n_noise, 128, 30, np.array([8, 12, 16])
    levels = np.arange(0.30, 0.81, 0.10)
    missed = np.zeros((len(levels), len(thetas)))
    count = 500 * config.trials
    for i, level in enumerate(levels):
        patterns = sdr.random_sdrs(rng, n, a, count)
        segments = sdr.sample_columns(rng, patterns, s)
        noisy = sdr.to_dense(n, sdr.noise(rng, patterns, level, n))
        overlap = np.take_along_axis(noisy, segments.astype(np.int64), axis=1).sum(axis=1)
        missed[i] = (overlap[:, None] < thetas).mean(axis=0)
        log.progress(0.5 + 0.5 * (i + 1) / len(levels))
    lost = np.floor(levels * a + 0.5).astype(int)

    def excess(shift: int) -> float:
        """Largest distance from theory beyond 4 binomial sigma + 2e-4 (lucky hits), where anything is missed."""
        p = sdr.false_negative(a, s, thetas + shift, lost[:, None])
        beyond = np.abs(missed - p) - 4 * np.sqrt(p * (1 - p) / count) - 2e-4
        return float(beyond[p > 1e-3].max())

    curve = np.arange(0.15, 0.81, 0.01)
    exact = sdr.false_negative(a, s, thetas, np.floor(curve * a + 0.5).astype(int)[:, None])
    arrays = {"noise": levels, "missed": missed, "noise_curve": curve, "missed_exact": exact}
    return {"excess": excess(0), "control": excess(1), "arrays": arrays}


@theory.figure
def recognition(runs: Runs):
    """False matches against population, threshold and noise."""
    data = runs["system"].arrays
    fig, (left, middle, right) = figure(3)
    for name, text in (("by_n_64", "a = 64"), ("by_n_256", "a = 256")):
        left.semilogy(data["populations"], data[name], label=text)
    left.semilogy(data["populations"], data["by_n_half"], color=CONTROL_COLOUR, label="a = n/2 (dense)")
    label(left, "population n (cells)", "P(false match)", "24 synapses, threshold 12")
    middle.axvspan(8, 20, color="#f0e6d2", label="measured in NMDA spikes")
    middle.semilogy(data["thresholds"], data["median"], color=SYSTEM_COLOUR, label="median over the grid")
    middle.axhline(1e-9, color="k", lw=0.6)
    label(middle, "threshold θ (synapses)", "P(false match)")
    for k, theta in enumerate((8, 12, 16)):
        (line,) = right.plot(data["noise_curve"], data["missed_exact"][:, k], label=f"θ = {theta}")
        right.plot(data["noise"], data["missed"][:, k], "o", ms=4, color=line.get_color())
    label(right, "noise (fraction of cells replaced)", "P(missed)", "formula (lines), simulation (dots)")
    return fig


@dataclass(frozen=True)
class Sparsity:
    """What sparsity buys, by formula; `dense` is the control."""

    n: int = 16_000  # largest population


@paper.experiment(
    presets={"smoke": Sparsity(), "quick": Sparsity(), "paper": Sparsity()},
    deterministic=True,
    claims=[
        Claim("C2", "high dimension helps only where activity is sparse", kind="paper", where="abstract", ablation="dense",
              no_null="a probability in closed form has no counterpart without the segment", checks=[
            at_most("growth_ratio", 1e-10), at_least("growth_ratio", 0.98, of="dense"),
            at_most("growth_ratio", 1.01, of="dense")]),
        Claim("C3", "24 synapses, under 5 % of a pattern of 512 cells, recognise it", kind="paper", where="abstract",
              ablation="dense", no_null="a probability in closed form has no counterpart without the segment",
              checks=[at_most("few_synapses", 5e-12), at_most("sampled_share", 0.05)]),
        Claim("C5", "one segment stores ten patterns; forty make it fire on anything", kind="paper", where="union property",
              ablation="dense", no_null="a probability in closed form has no counterpart without the segment",
              checks=[at_most("union_10", 1e-6), at_least("union_40", 0.1)]),
        Claim("C6", "the best threshold, 10, lies where NMDA spikes are measured (8 to 20)", kind="paper", where="abstract",
              ablation="dense", no_null="a probability in closed form has no counterpart without the segment",
              checks=[equals("optimal_theta", 10)]),
    ],
    cost=1.0,
)  # fmt: skip
def union(config: Sparsity, key, log: Log) -> Report:
    """Error against population, stored patterns and threshold, in a sparse and in a half-active population."""

    def stored(n: int, a: int, M: np.ndarray) -> np.ndarray:
        return np.asarray(sdr.false_match(n, a, np.round(sdr.union_synapses(n, 30, M)).astype(int), 15))

    n, _, s = sdr.threshold_grid()
    arms = {
        "system": {
            "growth_ratio": sdr.false_match(4100, 64, 24, 12) / sdr.false_match(300, 64, 24, 12),
            "few_synapses": sdr.false_match(config.n, 512, 24, 12),
            "sampled_share": 24 / 512,
            "union_10": stored(20_000, 200, np.array(10)),
            "union_40": stored(20_000, 200, np.array(40)),
            "optimal_theta": sdr.optimal_theta(1e-9),
        },
        "dense": {
            "growth_ratio": sdr.false_match(3500, 1750, 24, 12) / sdr.false_match(300, 150, 24, 12),
            "few_synapses": sdr.false_match(config.n, config.n // 2, 24, 12),
            "sampled_share": 24 / (config.n // 2),
            "union_10": stored(20_000, 10_000, np.array(10)),
            "union_40": stored(20_000, 10_000, np.array(40)),
            "optimal_theta": sdr.optimal_theta(1e-9, (n, n // 2, s)),
        },
    }
    M = np.arange(1, 61)
    arrays: dict[str, np.ndarray] = {"M": M}
    for size in (1000, 2000, 20_000):
        arrays[f"segment_{size}"] = stored(size, size // 100, M)
        active = np.round(sdr.union_activity(size, size // 100, M)).astype(int)
        arrays[f"activity_{size}"] = np.asarray(sdr.false_match(size, active, 30, 15))
    arrays["segment_dense"] = stored(20_000, 10_000, M)
    return Report(arms=arms, arrays=arrays)


@union.figure
def unions(runs: Runs):
    """False matches against the number of patterns in a union, on the segment and in the activity."""
    data = runs["system"].arrays
    fig, axes = figure(2)
    for axis, where, title in zip(
        axes, ("segment", "activity"), ("patterns on one segment", "patterns active at once"), strict=True
    ):
        for size in (1000, 2000, 20_000):
            axis.semilogy(data["M"], np.maximum(data[f"{where}_{size}"], 1e-30), label=f"n = {size}, 1 % active")
        if where == "segment":
            axis.semilogy(data["M"], data["segment_dense"], color=CONTROL_COLOUR, label="n = 20 000, half active")
        axis.set_ylim(1e-20, 2)
        label(axis, f"{title}, M", "P(false match)", "30 synapses a pattern, threshold 15")
    return fig


@dataclass(frozen=True)
class Online:
    """A stream of patterns, learned in one pass by one neuron, then recalled under noise."""

    n: int = 2000  # cells
    a: int = 40  # active in a pattern
    synapses: int = 20
    theta: int = 10
    segments: int = 200
    patterns: int = 200
    novel: int = 2000
    noise: float = 0.2  # fraction of active cells replaced at recall
    source: Literal["random", "correlated", "digits"] = "random"


@paper.experiment(
    presets={
        "smoke": Online(segments=20, patterns=20, novel=100),
        "quick": Online(),
        "paper": Online(n=20_000, segments=2000, patterns=2000, novel=20_000, theta=12, synapses=24),
    },
    variants={"dense": {"a": 1000}, "low-threshold": {"theta": 2}, "correlated": {"source": "correlated"},
              "digits": {"source": "digits"}},
    claims=[
        Claim("C7", "one neuron learns 200 patterns online and confuses none", kind="paper", where="active dendrites",
              ablation="dense", null=NONE_YET,
              checks=[at_least("recall", 0.99), at_most("false_match", 0.005), at_least("false_match", 0.9, of="dense")]),
    ],
    cost=6.0,
)  # fmt: skip
def online(config: Online, key, log: Log) -> Report:
    """Stream learning with active dendrites on random, correlated and real patterns (digits: is it a 3?)."""
    rng = generator(key)
    positive, negative, test = _stream(config, rng)
    neuron = DendriticNeuron(config.segments, config.synapses, config.theta, random_state=rng)
    learned = np.arange(0, config.patterns + 1, max(1, config.patterns // 10))
    curve = []
    for start, stop in pairwise(learned.tolist()):
        rows = np.arange(start, stop)
        samples = sparse.vstack([positive[rows], negative[rows]]) if negative is not None else positive[rows]
        labels = np.repeat([1, 0], [len(rows), samples.shape[0] - len(rows)])
        neuron.partial_fit(samples, labels, classes=[0, 1])
        curve.append([float(neuron.predict(part).mean()) for part in test])
        log.progress(stop / config.patterns)
    hits, false = np.array(curve).T
    used = neuron.neurons_[0].used
    return Report(
        metrics={"recall": hits[-1], "false_match": false[-1], "segments_used": used},
        arrays={"learned": learned[1:], "recall": hits, "false_match": false},
    )


def _stream(config: Online, rng: np.random.Generator) -> tuple:
    """(patterns to learn, patterns to reject while learning or None, (patterns to recall, patterns to reject))."""
    if config.source in ("random", "correlated"):
        make = sdr.random_sdrs if config.source == "random" else correlated_sdrs
        patterns = make(rng, config.n, config.a, config.patterns)
        novel = make(rng, config.n, config.a, config.novel)
        noisy = sdr.noise(rng, patterns, min(config.noise, config.n / config.a - 1), config.n)
        return sdr.to_csr(config.n, patterns), None, (sdr.to_csr(config.n, noisy), sdr.to_csr(config.n, novel))
    digits = load_digits()
    X = sdr.to_csr(2048, k_winners(rng, digits.data))
    labels = (digits.target == 3).astype(int)
    split = {"test_size": 0.5, "stratify": labels, "random_state": int(rng.integers(2**31))}
    train, test = train_test_split(np.arange(len(labels)), **split)
    own = train[labels[train] == 1]
    rows = np.resize(own, config.patterns)
    others = np.resize(train[labels[train] == 0], config.patterns)
    return X[rows], X[others], (X[test[labels[test] == 1]], X[test[labels[test] == 0]])


@online.figure
def stream(runs: Runs):
    """Recall and false matches while the stream is learned."""
    fig, (left, right) = figure(2)
    for name, run in runs.items():
        style = {"color": CONTROL_COLOUR} if name == "dense" else {}
        left.plot(run.arrays["learned"], run.arrays["recall"], label=name, **style)
        right.plot(run.arrays["learned"], run.arrays["false_match"], label=name, **style)
    label(left, "patterns learned", "recalled under noise (fraction)")
    label(right, "patterns learned", "novel patterns accepted (fraction)")
    return fig


@dataclass(frozen=True)
class Classify:
    """Two pools of neurons, one a class; the class whose segments respond more, summed through a nonlinearity, wins."""

    source: Literal["random", "poirazi-mel"] = "random"
    populations: tuple[int, ...] = (400, 600, 800)  # n of the random patterns
    a: int = 64
    neurons: int = 1  # in each pool
    segments: int = 500  # of each neuron, one a stored pattern
    synapses: int = 24
    theta: int = 12
    nonlinearity: Literal["threshold", "sigmoid", "power"] = "sigmoid"
    noise: float = 0.2


@paper.experiment(
    presets={
        "smoke": Classify(populations=(400,), segments=40),
        "quick": Classify(),
        "paper": Classify(populations=tuple(range(400, 2801, 200)), a=256, segments=500),
    },
    variants={
        "linear": {"theta": 1, "nonlinearity": "threshold"},
        "poirazi-mel": {"source": "poirazi-mel", "neurons": 25, "segments": 400, "synapses": 25, "nonlinearity": "power"},
    },
    cost=8.0,
)
def classify(config: Classify, key, log: Log) -> Report:
    """Two-class recognition of stored patterns under noise, and of classes that no linear unit separates."""
    rng = generator(key)
    errors = []
    segments = config.neurons * config.segments
    sizes = config.populations if config.source == "random" else (400,)
    for n in sizes:
        if config.source == "random":
            known = sdr.random_sdrs(rng, n, config.a, 2 * segments)
            labels = np.repeat([1, 0], segments)
            test, truth = sdr.noise(rng, known, config.noise, n), labels
        else:
            cells, classes = poirazi_mel(rng, 8000)
            train = rng.random(len(classes)) < 0.5
            known, labels, test, truth = cells[train], classes[train], cells[~train], classes[~train]
        score = np.zeros(len(test))
        for label_of, sign in ((1, 1.0), (0, -1.0)):
            own = known[labels == label_of]
            rows = np.arange(len(own)) if len(own) == segments else rng.integers(0, len(own), segments)
            pool = DendriticNeuron(segments, config.synapses, config.theta, nonlinearity=config.nonlinearity, random_state=rng)
            pool.store(sdr.to_csr(n, own[rows]))
            score += sign * pool.decision_function(sdr.to_csr(n, test))
        jitter = 5e-4 * rng.uniform(-1, 1, len(score))
        errors.append(float(((score + jitter > 0) != truth).mean()))
        log.progress(len(errors) / len(sizes))
    return Report(metrics={"error": errors[-1]}, arrays={"populations": np.array(sizes), "errors": np.array(errors)})


@classify.figure
def two_pools(runs: Runs):
    """Errors of the two-pool classifier against the size of the population."""
    fig, axis = figure()
    for name, run in runs.items():
        style = {"color": CONTROL_COLOUR} if name == "linear" else {}
        axis.plot(run.arrays["populations"], run.arrays["errors"], "o-", label=name, **style)
    label(axis, "population n (cells)", "errors (fraction; chance is 0.5)")
    return fig
