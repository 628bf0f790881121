"""Sparse distributed representations and active dendrites, arXiv 1601.00720.

A dendritic segment is a pattern detector: exact combinatorics says how often it is wrong, and why 8 to 20 coincident
synapses are the right number. Controls are the same segment in a densely active population, at the threshold that is best
there, populations that grow without getting sparser, point neurons, and a list of the stored patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from scipy import sparse
from scipy.stats import binom
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most, equals
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
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
    patterns: int = 4000  # drawn a point of the curves, each tried on 500 segments


@paper.experiment(
    presets={
        "smoke": Theory(draws=2000, trials=1, n_noise=1000, step=5000, patterns=20),
        "quick": Theory(),
        "paper": Theory(draws=5_000_000, trials=100, step=200, patterns=1_000_000),
    },
    claims=[
        Claim("C1", "the false-match formula is exact", kind="check", ablation="strict",
              reference="Monte Carlo through patterns and segments; control: > instead of ≥ at the threshold",
              checks=[at_most("worst_z", 4.0)]),
        Claim("C4", "missed patterns under noise follow the formula", kind="check", ablation="off_by_one",
              reference="simulation of 10 000 noisy patterns per point; control: the sum starts one synapse early",
              checks=[at_most("noise_excess", 0.0)]),
        Claim("C8", "the curves over population, synapses, noise and unions lie on the formulas", kind="check",
              ablation=("strict", "independent"), reference="Monte Carlo where more than 100 hits are expected; controls: > "
              "instead of ≥ at the threshold, and cells that are active independently of each other",
              checks=[at_most("curve_error", 0.1)]),
    ],
    cost=12.0,
)  # fmt: skip
def theory(config: Theory, key, log: Log) -> Report:
    """Formulas against patterns: how often a segment fires on a random pattern, and misses its own under noise."""
    rng = generator(key)
    simulated, exact, strict = [], [], []
    for k, (n, a, s, theta) in enumerate(POINTS):
        segment = sdr.random_sdrs(rng, n, s, 1)
        hits = [
            (sdr.overlaps(n, sdr.random_sdrs(rng, n, a, count), segment) >= theta).sum() for count in _blocks(config.draws, n)
        ]
        simulated.append(sum(hits) / config.draws)
        exact.append(float(sdr.false_match(n, a, s, theta)))
        strict.append(float(sdr.false_match(n, a, s, theta + 1)))
        log.progress(0.2 * (k + 1) / len(POINTS))
    measured, expected, wrong = map(np.array, (simulated, exact, strict))

    def worst(p: np.ndarray) -> float:
        return float(np.max(np.abs(measured - p) / np.sqrt(p * (1 - p) / config.draws)))

    noise = _noise(config, rng, log)
    curves = _curves(config, rng, log)
    errors = {
        arm: max([_distance(hits, tried, right, formula) for hits, tried, right, formula in curves[arm]] + [noise[arm]])
        for arm in ("system", "strict", "independent")
    }
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
        **curves["arrays"],
    }
    return Report(
        arms={
            "system": {"worst_z": worst(expected), "curve_error": errors["system"], "noise_excess": noise["excess"]},
            "strict": {"worst_z": worst(wrong), "curve_error": errors["strict"]},
            "independent": {"curve_error": errors["independent"]},
            "off_by_one": {"noise_excess": noise["control"]},
        },
        arrays=arrays,
    )


def _blocks(count: int, n: int) -> Iterator[int]:
    """Numbers of patterns that add up to `count`; a block of patterns of n cells stays below 300 MB."""
    block = max(1, min(200_000, 300_000_000 // n))
    for start in range(0, count, block):
        yield min(block, count - start)


def _distance(hits: float | int, tried: int, right: float, formula: float) -> float:
    """How far a formula lies from a simulation, in powers of ten; 0 where the right one expects too few hits to tell."""
    if right * tried <= 100:
        return 0.0
    return float(abs(np.log10(max(hits, 0.5) / tried) - np.log10(max(formula, 1e-300))))


UNION_M = np.array([5, 10, 15, 20, 25, 30, 40, 50, 60])
SAMPLED = ((512, 16_000), (4000, 16_000), (32, 2000), (32, 4000))
"""(a, n) of the curves over the number of synapses."""


def _curves(config: Theory, rng: np.random.Generator, log: Log) -> dict:
    """Simulated false matches along n, s and M, each on 500 segments; with each the formula, at > and of independent cells."""
    points: list[tuple[str, int, int, int, int, int, int]] = [
        ("n", n, a, 24, 12, 1, 1) for a in (64, 128, 256) for n in range(300, 1801, 300)
    ]
    points += [("n", n, n // 2, 24, 12, 1, 1) for n in (300, 1100, 3500)]
    points += [("s", n, a, s, s // 2, 1, 1) for a, n in SAMPLED for s in range(2, 31, 4)]
    points += [(name, n, n // 100, 30, 15, *((M, 1) if name == "segment" else (1, M)))
               for n in (1000, 2000) for M in UNION_M.tolist() for name in ("segment", "activity")]  # fmt: skip
    found: dict[str, list] = {"system": [], "strict": [], "independent": []}
    rows = []
    for k, (curve, n, a, s, theta, stored, active) in enumerate(points):
        segments = _united(rng, n, s, 500, stored)
        hits = 0
        for count in _blocks(config.patterns, max(n, 20_000)):
            overlap = (_united(rng, n, a, count, active) @ segments.T).toarray()
            hits += int((overlap >= theta).sum())
        tried = 500 * config.patterns
        size, cells = (np.round(sdr.union_synapses(n, part, M)).astype(int) for part, M in ((s, stored), (a, active)))
        right = float(sdr.false_match(n, cells, size, theta))
        formulas = {"system": right, "strict": float(sdr.false_match(n, cells, size, theta + 1)),
                    "independent": float(binom.sf(theta - 1, size, cells / n))}  # fmt: skip
        for arm, formula in formulas.items():
            found[arm].append((hits, tried, right, formula))
        rows.append(({"n": 0, "s": 1, "segment": 2, "activity": 3}[curve], n, a, s, max(stored, active), hits / tried, right))
        log.progress(0.4 + 0.6 * (k + 1) / len(points))
    return found | {"arrays": {"curves": np.array(rows, float), "tried": 500 * config.patterns}}


def _united(rng: np.random.Generator, n: int, size: int, count: int, unions: int) -> sparse.csr_array:
    """Unions of `unions` random patterns of `size` cells, `count` of them, as a sparse matrix of ones."""
    if unions == 1:
        return sdr.to_csr(n, sdr.random_sdrs(rng, n, size, count))
    cells = sdr.random_sdrs(rng, n, size, count * unions).reshape(count, -1)
    return sparse.csr_array(sdr.to_dense(n, cells).astype(np.float32))


def _noise(config: Theory, rng: np.random.Generator, log: Log) -> dict:
    """Missed patterns of segments with 30 synapses on patterns of 128 cells, for three thresholds."""
    n, a, s, thetas = config.n_noise, 128, 30, np.array([8, 12, 16])
    levels = np.arange(0.30, 0.81, 0.10)
    missed = np.zeros((len(levels), len(thetas)))
    count = 500 * config.trials
    for i, level in enumerate(levels):
        for size in _blocks(count, n):
            patterns = sdr.random_sdrs(rng, n, a, size)
            segments = sdr.sample_columns(rng, patterns, s)
            noisy = sdr.to_dense(n, sdr.noise(rng, patterns, level, n))
            overlap = np.take_along_axis(noisy, segments.astype(np.int64), axis=1).sum(axis=1)
            missed[i] += (overlap[:, None] < thetas).sum(axis=0) / count
        log.progress(0.2 + 0.2 * (i + 1) / len(levels))
    lost = np.floor(levels * a + 0.5).astype(int)

    def excess(shift: int) -> float:
        """Largest distance from theory beyond 4 binomial sigma + 2e-4 (lucky hits), where anything is missed."""
        p = sdr.false_negative(a, s, thetas + shift, lost[:, None])
        beyond = np.abs(missed - p) - 4 * np.sqrt(p * (1 - p) / count) - 2e-4
        return float(beyond[p > 1e-3].max())

    right = sdr.false_negative(a, s, thetas, lost[:, None])
    formulas = {"system": right, "strict": sdr.false_negative(a, s, thetas + 1, lost[:, None]),
                "independent": binom.sf(s - thetas, s, lost[:, None] / a)}  # fmt: skip
    far = {
        arm: max(
            _distance(*one)
            for one in zip((missed * count).ravel(), [count] * missed.size, right.ravel(), p.ravel(), strict=True)
        )
        for arm, p in formulas.items()
    }
    curve = np.arange(0.15, 0.81, 0.01)
    exact = sdr.false_negative(a, s, thetas, np.floor(curve * a + 0.5).astype(int)[:, None])
    arrays = {"noise": levels, "missed": missed, "noise_curve": curve, "missed_exact": exact}
    return {"excess": excess(0), "control": excess(1), "arrays": arrays, **far}


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


@theory.figure
def curves(runs: Runs):
    """False matches along the number of cells, of synapses and of patterns in a union: formulas (lines), simulation (dots)."""
    data = runs["system"].arrays
    rows, tried = np.asarray(data["curves"]), float(data["tried"])
    fig, axes = figure(4, width=3.6)
    titles = ("population n (cells)", "synapses s, threshold s/2", "patterns on one segment, M", "patterns active at once, M")
    for kind, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        mine = rows[rows[:, 0] == kind]
        along = (1, 3, 4, 4)[kind]
        dense = kind == 0
        names = [
            f"a = {a:g}" if dense and 2 * a != n else "a = n/2" if dense else f"a = {a:g}, n = {n:g}" for n, a in mine[:, 1:3]
        ]
        for k, name in enumerate(dict.fromkeys(names)):
            part = mine[[other == name for other in names]]
            colour = CONTROL_COLOUR if name == "a = n/2" else COLOURS[k]
            axis.semilogy(part[:, along], part[:, 6], color=colour, label=name)
            told = part[part[:, 6] * tried > 100]
            axis.semilogy(told[:, along], told[:, 5], "o", ms=4, color=colour)
        axis.set_ylim(1e-12, 2)
        label(axis, title, "P(false match)")
    return fig


@dataclass(frozen=True)
class Sparsity:
    """What sparsity buys, by formula."""

    n: int = 16_000  # largest population


@paper.experiment(
    presets={"smoke": Sparsity(), "quick": Sparsity(), "paper": Sparsity()},
    deterministic=True,
    claims=[
        Claim("C2", "high dimension helps only where activity is sparse", kind="paper", where="abstract", ablation="dense",
              null="same-sparsity", checks=[
            at_most("growth_ratio", 1e-10), at_least("growth_ratio", 0.98, of="dense"),
            at_most("growth_ratio", 1.01, of="dense")]),
        Claim("C3", "24 synapses, under 5 % of a pattern of 512 cells, recognise it with 30 % of it replaced", kind="paper",
              where="abstract", ablation="dense", null="all", checks=[
                  at_most("few_synapses", 5e-12), at_most("sampled_share", 0.05), at_most("few_missed", 0.05)]),
        Claim("C5", "one segment holds ten patterns almost without false matches; with forty they exceed a tenth", kind="paper",
              where="union property", ablation="dense", null="random-synapses", checks=[
                  at_most("union_10", 1e-6), at_least("union_40", 0.1), at_most("union_missed", 0.05)]),
        Claim("C6", "the smallest threshold of fewer than one false match in 1e9, 10, lies where NMDA spikes are measured "
              "(8 to 20)", kind="paper", where="abstract", ablation="dense", null="half",
              checks=[equals("optimal_theta", 10), at_least("optimal_theta", 8), at_most("optimal_theta", 20)]),
    ],
    cost=1.0,
)  # fmt: skip
def union(config: Sparsity, key, log: Log) -> Report:
    """Error against population, stored patterns and threshold, in a sparse and in a half-active population.

    Noise replaces 30 % of a pattern. The dense population has the threshold of fewest false matches among those that miss no
    more than a twentieth of its noisy patterns. `same-sparsity` grows at 64 active cells of 300, `all` fires when all
    its synapses see active cells, `random-synapses` has as many as ten patterns take, anywhere, and `half` sets the threshold
    to half of the synapses.
    """

    def stored(n: int, a: int, M: np.ndarray, theta: int = 15) -> np.ndarray:
        return np.asarray(sdr.false_match(n, a, np.round(sdr.union_synapses(n, 30, M)).astype(int), theta))

    def missed(a: int, s: int, theta: int) -> float:
        return float(sdr.false_negative(a, s, theta, round(0.3 * a)))

    n, _, s = sdr.threshold_grid()
    half = config.n // 2
    few = max(theta for theta in range(1, 25) if missed(half, 24, theta) <= 0.05)
    union_theta = max(theta for theta in range(1, 31) if missed(10_000, 30, theta) <= 0.05)
    synapses = int(np.round(sdr.union_synapses(20_000, 30, 10)))
    growth = sdr.false_match(300, 64, 24, 12)
    arms: dict[str, dict[str, Any]] = {
        "system": {
            "growth_ratio": sdr.false_match(4100, 64, 24, 12) / growth,
            "few_synapses": sdr.false_match(config.n, 512, 24, 12),
            "sampled_share": 24 / 512,
            "few_missed": missed(512, 24, 12),
            "union_10": stored(20_000, 200, np.array(10)),
            "union_40": stored(20_000, 200, np.array(40)),
            "union_missed": missed(200, 30, 15),
            "optimal_theta": sdr.optimal_theta(1e-9),
            "optimal_theta_1e-6": sdr.optimal_theta(1e-6),
            "optimal_theta_1e-12": sdr.optimal_theta(1e-12),
        },
        "dense": {
            "growth_ratio": sdr.false_match(3500, 1750, 24, 12) / sdr.false_match(300, 150, 24, 12),
            "few_synapses": sdr.false_match(config.n, half, 24, few),
            "sampled_share": 24 / half,
            "few_missed": missed(half, 24, few),
            "union_10": stored(20_000, 10_000, np.array(10), union_theta),
            "union_40": stored(20_000, 10_000, np.array(40), union_theta),
            "union_missed": missed(10_000, 30, union_theta),
            "optimal_theta": sdr.optimal_theta(1e-9, (n, n // 2, s)),
        },
        "same-sparsity": {"growth_ratio": sdr.false_match(4100, round(4100 * 64 / 300), 24, 12) / growth},
        "all": {
            "few_synapses": sdr.false_match(config.n, 512, 24, 24),
            "sampled_share": 24 / 512,
            "few_missed": missed(512, 24, 24),
        },
        "random-synapses": {
            "union_10": stored(20_000, 200, np.array(10)),
            "union_40": stored(20_000, 200, np.array(40)),
            "union_missed": 1 - sdr.false_match(20_000, 200, synapses, 15),
        },
        "half": {"optimal_theta": float(np.median(s)) / 2},
    }
    M = np.arange(1, 61)
    arrays: dict[str, np.ndarray] = {"M": M}
    for size in (1000, 2000, 20_000):
        arrays[f"segment_{size}"] = stored(size, size // 100, M)
        active = np.round(sdr.union_activity(size, size // 100, M)).astype(int)
        arrays[f"activity_{size}"] = np.asarray(sdr.false_match(size, active, 30, 15))
    arrays["segment_dense"] = stored(20_000, 10_000, M, union_theta)
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
    more_noise: tuple[float, ...] = (0.3, 0.4, 0.5)
    source: Literal["random", "correlated", "digits"] = "random"
    beside: bool = True  # point neurons and a list of patterns


DENSE_THETA = 17
"""The threshold at which recall less false matches is largest where half of all cells are active, of 1 to 20."""


@paper.experiment(
    presets={
        "smoke": Online(segments=20, patterns=20, novel=100),
        "quick": Online(),
        "paper": Online(n=20_000, segments=2000, patterns=2000, novel=20_000, theta=12, synapses=24),
    },
    variants={"dense": {"a": 1000, "beside": False}, "dense-tuned": {"a": 1000, "theta": DENSE_THETA, "beside": False},
              "low-threshold": {"theta": 2, "beside": False}, "correlated": {"source": "correlated", "beside": False},
              "digits": {"source": "digits", "beside": False}},
    claims=[
        Claim("C7", "one neuron learns 200 patterns online, recalls them with 30 % of their cells replaced, and confuses none",
              kind="paper", where="active dendrites", seeds=8, ablation=("dense", "dense-tuned"),
              null=("linear-sum", "logistic", "nearest"),
              reason="A list of the stored patterns does as well: it recalls all and accepts none, and a segment for each "
              "pattern is such a list, of half the length. Point neurons do not: on eight development seeds a weighted sum "
              "recalls 0.87 of the patterns with 30 % replaced and accepts 0.15 of new ones, logistic regression 0.86 and "
              "0.25. Nor does a dense population at its best threshold, 17: 0.27 and 0.20.", checks=[
                  at_least("recall", 0.99), at_least("recall_30", 0.99, over="mean"), at_most("false_match", 0.005),
                  at_least("false_match", 0.9, of="dense")]),
    ],
    cost=6.0,
)  # fmt: skip
def online(config: Online, key, log: Log) -> Report:
    """Stream learning with active dendrites on random, correlated and real patterns (digits: is it a 3?).

    Beside it, on the same random patterns: a point neuron whose weights are how often each cell was active, logistic regression
    against as many random patterns, and a list of the stored patterns. Each has the threshold that is best on samples of its
    own.
    """
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
        log.progress(0.8 * stop / config.patterns)
    hits, false = np.array(curve).T
    metrics = {"recall": hits[-1], "false_match": false[-1], "segments_used": neuron.neurons_[0].used}
    arrays = {"learned": learned[1:], "recall": hits, "false_match": false}
    if config.source == "digits":
        return Report(metrics=metrics, arrays=arrays)
    noisy = {level: _replaced(positive, level, config, rng) for level in config.more_noise}
    metrics |= {f"recall_{100 * level:g}": float(neuron.predict(part).mean()) for level, part in noisy.items()}
    if not config.beside:
        return Report(metrics=metrics, arrays=arrays)
    own = (_replaced(positive, 0.3, config, rng), sdr.to_csr(config.n, sdr.random_sdrs(rng, config.n, config.a, config.novel)))
    arms = {"system": metrics}
    for name, score in _others(positive, config, rng).items():
        known, new = (score(part) for part in own)
        edges = np.unique(known)
        at = edges[np.argmax([(known >= edge).mean() - (new >= edge).mean() for edge in edges])]
        arms[name] = {"recall": (score(test[0]) >= at).mean(), "recall_30": (score(noisy[0.3]) >= at).mean(),
                      "false_match": (score(test[1]) >= at).mean()}  # fmt: skip
    return Report(arms=arms, arrays=arrays)


def _replaced(patterns: sparse.csr_array, level: float, config: Online, rng: np.random.Generator) -> sparse.csr_array:
    """The patterns with a share of their active cells replaced."""
    cells = patterns.indices.reshape(patterns.shape[0], -1)
    return sdr.to_csr(config.n, sdr.noise(rng, cells, min(level, config.n / config.a - 1), config.n))


def _others(positive: sparse.csr_array, config: Online, rng: np.random.Generator) -> dict[str, Callable]:
    """How much each of the point neurons, and the list of patterns, answers to patterns."""
    often = np.asarray(positive.sum(axis=0)).ravel()
    random = sdr.to_csr(config.n, sdr.random_sdrs(rng, config.n, config.a, positive.shape[0]))
    regression = LogisticRegression(C=100.0, max_iter=1000)
    regression.fit(sparse.vstack([positive, random]), np.repeat([1, 0], positive.shape[0]))
    return {
        "linear-sum": lambda part: part @ often,
        "logistic": regression.decision_function,
        "nearest": lambda part: (part @ positive.T).toarray().max(axis=1),
    }


def _stream(config: Online, rng: np.random.Generator) -> tuple:
    """(patterns to learn, patterns to reject while learning or None, (patterns to recall, patterns to reject))."""
    if config.source in ("random", "correlated"):
        make = sdr.random_sdrs if config.source == "random" else correlated_sdrs
        patterns = make(rng, config.n, config.a, config.patterns)
        novel = make(rng, config.n, config.a, config.novel)
        stored = sdr.to_csr(config.n, patterns)
        return stored, None, (_replaced(stored, config.noise, config, rng), sdr.to_csr(config.n, novel))
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
    fig, (left, right) = figure(2, width=4.8)
    for name, run in runs.items():
        style = {"dense": {"color": CONTROL_COLOUR}, "dense-tuned": {"color": CONTROL_COLOUR, "ls": "--"}}.get(name, {})
        left.plot(run.arrays["learned"], run.arrays["recall"], label=name, **style)
        right.plot(run.arrays["learned"], run.arrays["false_match"], **style)
    last = runs["system"].arrays["learned"][-1]
    for (name, row), marker in zip(list(runs["system"].arms.items())[1:], "sD^", strict=True):
        left.plot(last, row["recall"], marker, color="k", ms=5, ls="", label=name)
        right.plot(last, row["false_match"], marker, color="k", ms=5)
    label(left, "patterns learned", "recalled with 20 % replaced (fraction)", legend=False)
    fig.legend(loc="outside right upper", frameon=False, fontsize="small")
    label(right, "patterns learned", "novel patterns accepted (fraction)")
    return fig


@dataclass(frozen=True)
class Classify:
    """Two pools of neurons, one a class; the class whose segments respond more, summed through a nonlinearity, wins."""

    populations: tuple[int, ...] = (400, 600, 800)  # n of the random patterns
    a: int = 64
    segments: int = 500  # of each pool, one a stored pattern
    noise: float = 0.2
    samples: int = 4000  # of classes that no linear unit tells apart, half of them to learn
    dendrites: int = 10_000  # segments of each pool for these


@paper.experiment(
    presets={
        "smoke": Classify(populations=(400,), segments=40, samples=80, dendrites=40),
        "quick": Classify(),
        "paper": Classify(populations=tuple(range(400, 2801, 200)), a=256, samples=40_000),
    },
    claims=[
        Claim("D1", "two pools of dendritic segments tell stored patterns apart under noise", kind="paper", seeds=8,
              where="classification by two neurons", ablation="linear-sum", null=("logistic", "nearest"),
              reason="The class of the nearest stored pattern is never wrong on eight development seeds, the pools are in "
              "0.3 % of cases. Without the nonlinearity the same synapses err in 39 %, logistic regression in 32 %.",
              checks=[at_most("stored_error", 0.01, over="mean")]),
        Claim("D2", "and classes that are nonlinear in what is coded", kind="paper", seeds=8,
              where="classification, after Poirazi and Mel", ablation="linear-sum", null=("logistic", "neighbours"),
              reason="A vote of the 25 nearest patterns errs in 22 %, the pools in 20 % (eight development seeds); the same "
              "synapses without the nonlinearity in 29 %, logistic regression in 28 %.",
              checks=[at_most("nonlinear_error", 0.25, over="mean")]),
    ],
    cost=8.0,
)  # fmt: skip
def classify(config: Classify, key, log: Log) -> Report:
    """Two-class recognition of stored patterns under noise, and of classes that no linear unit separates.

    Beside the pools: the same synapses summed without a nonlinearity, logistic regression, the nearest pattern's class, and a
    vote of the 25 nearest.
    """
    rng = generator(key)
    rows = []
    for k, n in enumerate(config.populations):
        known = sdr.random_sdrs(rng, n, config.a, 2 * config.segments)
        labels = np.repeat([1, 0], config.segments)
        test = sdr.noise(rng, known, config.noise, n)
        pools = _pools(rng, n, known, labels, config.segments, synapses=24, theta=12, nonlinearity="sigmoid")
        rows.append(_errors(rng, n, pools, known, labels, test, labels))
        log.progress((k + 1) / (len(config.populations) + 1))
    cells, classes = poirazi_mel(rng, config.samples)
    train = rng.random(len(classes)) < 0.5
    pools = _pools(rng, 400, cells[train], classes[train], config.dendrites, synapses=25, theta=12, nonlinearity="power")
    nonlinear = _errors(rng, 400, pools, cells[train], classes[train], cells[~train], classes[~train])
    arms = {name: {"stored_error": max(row[name] for row in rows), "nonlinear_error": nonlinear[name]} for name in nonlinear}
    arrays = {f"errors_{name}": np.array([row[name] for row in rows]) for name in nonlinear}
    return Report(arms=arms, arrays={"populations": np.array(config.populations), **arrays})


def _pools(
    rng: np.random.Generator, n: int, known: np.ndarray, labels: np.ndarray, segments: int, **options: Any
) -> list[DendriticNeuron]:
    """A neuron for each class, the positive one first, with a segment on each of its patterns, or on as many at random."""
    pools = []
    for wanted in (1, 0):
        own = known[labels == wanted]
        rows = np.arange(len(own)) if len(own) == segments else rng.integers(0, len(own), segments)
        pools.append(DendriticNeuron(segments, random_state=rng, **options).store(sdr.to_csr(n, own[rows])))
    return pools


def _errors(
    rng: np.random.Generator, n: int, pools: list[DendriticNeuron], known: np.ndarray, labels: np.ndarray, test: np.ndarray,
    truth: np.ndarray,
) -> dict[str, float]:  # fmt: skip
    """Share of test patterns in the wrong class, for the pools and for what needs none."""
    shown, stored = sdr.to_csr(n, test), sdr.to_csr(n, known)
    regression = LogisticRegression(max_iter=2000).fit(stored, labels)
    alike = np.concatenate([(shown[rows] @ stored.T).toarray() for rows in np.array_split(np.arange(len(test)), 8)])
    scores = {
        "system": np.subtract(*(pool.decision_function(shown) for pool in pools)),
        "linear-sum": np.subtract(*(pool.neurons_[0].overlaps(shown).sum(axis=1) for pool in pools)),
        "logistic": regression.decision_function(shown),
        "nearest": labels[alike.argmax(axis=1)] - 0.5,
        "neighbours": labels[np.argpartition(-alike, min(25, len(known) - 1), axis=1)[:, :25]].mean(axis=1) - 0.5,
    }
    jitter = 5e-4 * rng.uniform(-1, 1, len(test))
    return {name: float(((score + jitter > 0) != truth).mean()) for name, score in scores.items()}


@classify.figure
def two_pools(runs: Runs):
    """Errors against the size of the population, and on classes that are nonlinear."""
    data, arms = runs["system"].arrays, runs["system"].arms
    fig, (left, right) = figure(2)
    for k, name in enumerate(arms):
        colour = SYSTEM_COLOUR if name == "system" else (CONTROL_COLOUR, *COLOURS[1:])[k - 1]
        left.plot(data["populations"], data[f"errors_{name}"], "o-", color=colour, label=name)
        right.bar(name, arms[name]["nonlinear_error"], color=colour)
    label(left, "population n (cells)", "errors on stored patterns")
    left.set_ylim(-0.02, 0.75)
    right.tick_params(axis="x", rotation=20)
    label(right, "classifier", "errors on nonlinear classes")
    return fig
