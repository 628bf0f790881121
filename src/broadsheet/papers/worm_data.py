"""Homogenized C. elegans Neural Activity and Connectivity Data, arXiv 2411.12091.

Recordings of many laboratories are brought to one list of neurons, one scale and one rate; maps of the wiring stand over the
same list. No package ships the recordings: where none are given, worms are simulated on a real wiring, and figures say so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from scipy import stats

from broadsheet.errors import MissingDataError
from broadsheet.lab import Claim, Log, Paper, Report, Runs, at_least, at_most
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.numerics import generator
from broadsheet.recordings.worm.atlas import (
    FunctionalAtlas,
    distances,
    nearest,
    one_way_present,
    read_positions,
    response_by_count,
    shares,
    shares_at_distance,
    write_planted,
)
from broadsheet.recordings.worm.by_hand import by_hand
from broadsheet.recordings.worm.connectomes import Connectome, jaccard, weight_correlation
from broadsheet.recordings.worm.forecasts import GRUForecaster, RidgeVAR, across_worms, persistence_errors
from broadsheet.recordings.worm.names import canonical_names, canonicalise, slots
from broadsheet.recordings.worm.pipeline import Raw, Recording, homogenise, whole_zscore
from broadsheet.recordings.worm.simulated import LABS, Lab, activity, record, simulate, spelled
from broadsheet.recordings.worm.tables import Summary, iter_parquet

paper = Paper(
    slug="worm-data",
    arxiv="2411.12091",
    title="Homogenized C. elegans Neural Activity and Connectivity Data",
    published="2024-11-18",
    authors=4,
    basis="code",
    code="github.com/qsimeon/worm-data-preprocess (no licence found), github.com/qsimeon/worm-graph (MIT)",
    summary="A dozen calcium-imaging data sets of the worm brought to one format, names and rate, beside aligned graphs of its "
    "wiring, so that models can be fitted across worms and laboratories.",
    topics=("C. elegans", "calcium imaging", "connectomes"),
    parts=(
        "broadsheet.recordings.worm.homogenise",
        "broadsheet.recordings.worm.Connectome",
        "broadsheet.recordings.worm.FunctionalAtlas",
        "broadsheet.recordings.worm.RidgeVAR",
        "broadsheet.recordings.worm.load_parquet",
        "broadsheet.recordings.worm.simulate",
    ),
    requires=("recordings",),
    verbs=("broadsheet recordings worm FILE --out DATASET",),
    notes=(
        "The authors' newest code takes the z-score last, after smoothing and resampling, and the derivative of the traces as "
        "given; their first code takes the z-score first. Both orders are there.",
        "The newest code smooths with the past half of its kernels, takes the derivative and interpolates with samples ahead, "
        "and lets the user choose a running z-score: neither causal throughout nor acausal. Here one setting decides for all.",
        "No package ships calcium traces: at quick the worms are simulated on a wiring, so that what W3 and W6 find is known "
        "to be in the data. On recordings W6 can come out otherwise.",
        "Pairs of cells whose bodies lie near each other answer to stimulation more often than pairs that are wired, so that "
        "W4 and W5 are vacuous against place. Against unwired pairs at equal distance the ratios are about 2.8 and 1.4.",
        "Of the two adult maps of W8, one with its left and right cells exchanged agrees with the other nearly as well (0.485 "
        "against 0.494): what agrees is the wiring of classes.",
        "The GRU learns its six simulated worms by heart (0.91 of persistence's error on these, 1.1 on two others).",
    ),
)

UNKNOWN = (
    "",
    "12",
    "007",
    "AVA",
    "AVAL?",
    "RM?",
    "merge",
    "Q1",
    "AVZL",
    "VB12",
    "DA0",
    "IL3L",
    "CANL",
    "nan",
    "neuron 7",
    "AVALR",
)
"""Labels that name no one cell of the list."""


@dataclass(frozen=True)
class Homogenise:
    """Recordings of several laboratories, one format."""

    source: Literal["simulated", "parquet"] = "simulated"
    data: str | None = None  # the authors' worm_data_short.parquet
    wiring: str = "cook2019h"
    labs: int = 4
    worms: int = 2  # a laboratory
    seconds: float = 300.0  # at most, of a recording
    pair_seconds: float = 300.0  # of the worm that is recorded at two rates
    dt: float = 0.333  # s


@paper.experiment(
    presets={
        "smoke": Homogenise(labs=2, worms=1, seconds=20.0, pair_seconds=20.0),
        "quick": Homogenise(),
        "paper": Homogenise(source="parquet"),
    },
    claims=[
        Claim("W1", "the pipeline is exact", kind="check", reference="loops over single numbers",
              ablation=("sample-deviation", "derivative-late", "block-means"), checks=[at_most("deviation", 1e-6)]),
        Claim("W2", "names survive dialects, and unknown ones get no neuron's place", kind="check",
              reference="the list itself, spelled in four ways", ablation=("zeros-removed", "as-written"),
              checks=[at_least("recovered", 1.0), at_most("invented", 0.0)]),
        Claim("W3", "the same worm recorded at two rates gives the same homogenised traces", kind="paper",
              where="abstract: one common sampling rate", ablation="index", null=("held", "other-cells"),
              checks=[at_least("r", 0.95), at_least("r", 0.3, minus="index")]),
        Claim("W9", "the released table has 900 worms and 240 neurons, z-scored, at one rate", kind="paper",
              where="abstract: 12 experiments, approximately 900 worms, 250 neurons",
              no_ablation="it is a count of what was released", null="largest-source", checks=[
                  at_least("worms", {"paper": 900}), at_least("neurons", {"paper": 240}),
                  at_most("largest_mean", {"paper": 0.05}), at_most("dt_error", {"paper": 1e-3})]),
    ],
    data="data",
    cost=12.0,
)  # fmt: skip
def homogenize_demo(config: Homogenise, key, log: Log) -> Report:
    """Traces of laboratories in one format: exactness, names, two rates of one worm, and what the data set covers."""
    rng = generator(key)
    total = Summary()
    largest: dict[str, Summary] = {}
    shown: dict[str, np.ndarray] = {}
    for raw, recording in _worms(config, rng):
        total.add(recording)
        largest.setdefault(recording.source, Summary()).add(recording)
        if not shown:
            cells = np.flatnonzero(recording.mask)[:5]
            shown = {"time": recording.time, "calcium": recording.calcium[:, cells], "shown": cells}
            if raw is not None:
                columns = [[canonicalise(name) for name in raw.names].index(canonical_names()[cell]) for cell in cells]
                shown |= {"raw_time": raw.times, "raw": raw.traces[:, columns]}
    log.progress(0.5)
    exact, names, rates = _exactness(rng), _names(), _two_rates(config, rng)
    biggest = max(largest.values(), key=lambda each: len(each.durations))
    return Report(
        arms={
            "system": {**exact.pop("system"), **names.pop("system"), **rates.pop("system"), **_counts(total, config.dt)},
            "largest-source": _counts(biggest, config.dt),
            **exact, **names, **rates,
        },
        arrays={
            **shown, "masks": np.array(total.masks), "durations": total.durations, "steps": total.steps,
            "original_steps": total.original_steps, "simulated": config.source == "simulated",
        },
    )  # fmt: skip


def _worms(config: Homogenise, rng: np.random.Generator) -> Iterator[tuple[Raw | None, Recording]]:
    if config.source == "parquet":
        if not config.data:
            raise MissingDataError(
                "The paper's size needs the authors' table: download worm_data_short.parquet of the data set "
                "qsimeon/celegans_neural_data from Hugging Face, then --data FILE."
            )
        yield from ((None, recording) for recording in iter_parquet(config.data))
        return
    wiring = Connectome.load(config.wiring)
    for raw in simulate(wiring, config.seconds, LABS[: config.labs], worms=config.worms, key=rng):
        yield raw, homogenise(raw.traces, raw.times, raw.names, config.dt, source=raw.source, worm=raw.worm)


def _counts(found: Summary, dt: float) -> dict[str, float]:
    worms, neurons = float(len(found.durations)), float((found.coverage > 0).sum())
    error = max(abs(step - dt) for step in found.steps)
    return {"worms": worms, "neurons": neurons, "largest_mean": found.largest_mean, "dt_error": error}


def _exactness(rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """The largest deviation from `by_hand`, of the pipeline and of wrong ways."""
    times = np.cumsum(rng.uniform(0.15, 0.6, 60))
    traces, names, dt, alpha = 300 + 40 * rng.standard_normal((60, 3)).cumsum(0), ["AVAL", "vb02", "RIS"], 0.333, 0.1
    made = homogenise(traces, times, names, dt, "exponential", amount=alpha)
    cells = [slots()["AVAL"], slots()["VB2"], slots()["RIS"]]
    ours = np.stack([each[:, cells].T for each in (made.calcium, made.residual, made.smooth_calcium, made.smooth_residual)])
    given = (traces.T.tolist(), times.tolist(), dt, alpha)
    right = by_hand(*given)
    wrong = {"sample-deviation": by_hand(*given, lost=1), "derivative-late": by_hand(*given, late=True),
             "block-means": by_hand(*given, blocks=True)}  # fmt: skip
    return {name: {"deviation": float(abs(each - right).max())} for name, each in {"system": ours, **wrong}.items()}


def _names() -> dict[str, dict[str, float]]:
    """Shares of names that come back from dialects, and of unknown ones that get a place; also by simpler rules."""
    listed = set(canonical_names())
    rules: dict[str, Callable[[str], str | None]] = {
        "system": canonicalise,
        "zeros-removed": lambda name: name if name.endswith("0") else name.replace("0", ""),
        "as-written": lambda name: name,
    }
    spellings = [(spelled(name, dialect), name) for dialect in ("canonical", "padded", "lower", "separated") for name in listed]
    return {
        rule: {"recovered": float(np.mean([read(text) == name for text, name in spellings])),
               "invented": float(np.mean([read(text) in listed for text in UNKNOWN]))}
        for rule, read in rules.items()
    }  # fmt: skip


def _two_rates(config: Homogenise, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Median correlation over neurons between two recordings of one worm, every 0.25 s and every 0.6 s from 0.3 s on: on one
    grid, without resampling, each on the grid of its own start, by the newest sample, and of cells that are not the same."""
    times, _, calcium = activity(Connectome.load(config.wiring), config.pair_seconds, key=rng)
    fast, slow = (
        record(times, calcium[0], Lab("pair", dt, labelled=None, seconds=config.pair_seconds), rng) for dt in (0.25, 0.6)
    )
    late = slow.times >= 0.3
    slow = Raw(slow.traces[late], slow.times[late], slow.names)

    def correlated(shift: int = 0, **options: Any) -> float:
        a, b = (homogenise(each.traces, each.times, each.names, config.dt, **options) for each in (fast, slow))
        skip = round((b.time[0] - a.time[0]) / config.dt) if "start" in options else 0
        count = min(len(a.time) - skip, len(b.time))
        return _median_r(a.calcium[skip : skip + count], np.roll(b.calcium[:count], shift, axis=1))

    order = [[raw.names.index(name) for name in canonical_names()] for raw in (fast, slow)]
    x, y = (whole_zscore(raw.traces[:, columns].T).T for raw, columns in zip((fast, slow), order, strict=True))
    count = min(len(x), len(y))
    found = {"system": correlated(start=0.0), "index": _median_r(x[:count], y[:count]), "own-start": correlated(),
             "held": correlated(start=0.0, causal=True), "other-cells": correlated(7, start=0.0)}  # fmt: skip
    return {name: {"r": value} for name, value in found.items()}


def _median_r(a: np.ndarray, b: np.ndarray) -> float:
    a, b = (each - each.mean(0) for each in (a, b))
    return float(np.median((a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))))


@homogenize_demo.figure
def coverage_and_traces(runs: Runs):
    """Traces before and after, which neurons are identified in which worm, and lengths and steps."""
    data = runs["system"].arrays
    fig, ((raw, after), (seen, steps)) = figure(2, 2, width=5.2)
    kind = "simulated" if data["simulated"] else "released"
    names = canonical_names()
    if "raw" in data:
        for column, slot in zip(np.asarray(data["raw"]).T, np.asarray(data["shown"]), strict=True):
            raw.plot(data["raw_time"], column, lw=0.7, label=names[int(slot)])
    else:
        raw.plot(np.sort(data["durations"])[::-1], color=SYSTEM_COLOUR)
    label(raw, *(("time (s)", "as recorded") if "raw" in data else ("worm", "recording (s)")), f"{kind} worm")
    for k, (column, slot) in enumerate(zip(np.asarray(data["calcium"]).T, np.asarray(data["shown"]), strict=True)):
        after.plot(data["time"], column + 5 * k, lw=0.7, label=names[int(slot)])
    label(after, "time (s)", "z-score (moved up)", "homogenised", legend=False)
    seen.imshow(np.asarray(data["masks"]), aspect="auto", cmap="Blues", interpolation="nearest")
    label(seen, "slot (300 neurons, alphabetical)", "worm", "identified neurons", legend=False)
    edges = np.linspace(0, 1.2, 25)
    steps.hist(data["original_steps"], edges, color=CONTROL_COLOUR, label="before")
    steps.hist(data["steps"], edges, color=SYSTEM_COLOUR, alpha=0.7, label="after")
    label(steps, "median step (s)", "worms", "sampling")
    return fig


@dataclass(frozen=True)
class Maps:
    """The maps of the wiring beside each other."""

    shuffles: int = 20
    swaps: int = 10  # tries an edge
    shown: tuple[str, ...] = ("white", "cook2019h", "witvliet1", "witvliet7", "witvliet8")


@paper.experiment(
    presets={"smoke": Maps(shuffles=2, swaps=1, shown=("white", "witvliet8")), "quick": Maps(), "paper": Maps(shuffles=200)},
    claims=[
        Claim("W7", "chemical synapses grow from birth to adult, and not by wider coverage", kind="paper",
              where="the eight reconstructions of Witvliet et al. 2021", ablation="shuffled-ages", null="coverage", checks=[
                  at_least("rho", 0.9, within=(-1, 1)), at_least("rho_a_pair", 0.9, within=(-1, 1))]),
        Claim("W8", "the two adult maps agree on which cells are joined", kind="paper",
              where="reconstructions 7 and 8 of Witvliet et al. 2021", ablation="shuffled-labels",
              null=("swapped-edges", "classes"), checks=[
                  at_least("jaccard", 0.45, within=(0, 1)), at_least("over_shuffled", 5.0)]),
    ],
    deterministic=True,
    cost=8.0,
)  # fmt: skip
def connectome_atlas(config: Maps, key, log: Log) -> Report:
    """All shipped maps over one list of neurons: their growth from birth to adult, and how far they agree."""
    rng = generator(key)
    stages = [Connectome.load(f"witvliet{k}") for k in range(1, 9)]
    adult, other = stages[6], stages[7]
    totals = [each.tables["chemical"].total for each in stages]
    cells = np.array([each.annotated.sum() for each in stages])
    seen = [
        other.chem[np.ix_(each.annotated, each.annotated)].sum() for each in stages
    ]  # the adult's wiring of each stage's cells
    common = np.logical_and.reduce([each.annotated for each in stages])
    orders = [rng.permutation(8) for _ in range(config.shuffles)]
    growth = {
        "system": {"rho": _rho(totals), "rho_a_pair": _rho(totals / cells**2),
                   "rho_common": _rho([each.chem[np.ix_(common, common)].sum() for each in stages])},
        "coverage": {"rho": _rho(seen), "rho_a_pair": _rho(seen / cells**2)},
        "shuffled-ages": {"rho": float(np.mean([_rho(np.array(totals)[order]) for order in orders])),
                          "rho_a_pair": float(np.mean([_rho((totals / cells**2)[order]) for order in orders]))},
    }  # fmt: skip
    log.progress(0.3)
    shuffled = float(np.mean([jaccard(adult, other.permuted(rng)) for _ in range(config.shuffles)]))
    few = range(max(config.shuffles // 10, 1))
    agreement = {
        "system": jaccard(adult, other),
        "shuffled-labels": max(jaccard(adult, other.permuted(rng)) for _ in range(config.shuffles)),
        "swapped-edges": float(np.mean([jaccard(adult, other.swapped(rng, config.swaps)) for _ in few])),
        "classes": float(np.mean([jaccard(adult, other.within_classes(rng)) for _ in few])),
    }
    arms = {name: {"jaccard": value, "over_shuffled": value / shuffled} for name, value in agreement.items()}
    maps = [Connectome.load(name) for name in config.shown]
    return Report(
        arms={
            "system": growth["system"] | arms.pop("system") | {
                "birth_to_adult": jaccard(stages[0], other), "shuffled": shuffled, "mirrored": jaccard(adult, other.mirrored()),
                "weight_correlation": weight_correlation(adult, other)},
            "coverage": growth["coverage"], "shuffled-ages": growth["shuffled-ages"], **arms,
        },
        arrays={
            "names": np.array(config.shown), "totals": totals, "cells": cells,
            "matrices": np.stack([each.chem for each in maps]).astype(np.float32),
            "jaccard": [[jaccard(a, b) for b in maps] for a in maps],
            "correlation": [[weight_correlation(a, b) for b in maps] for a in maps],
        },
    )  # fmt: skip


def _rho(values: Any) -> float:
    return float(stats.spearmanr(np.arange(len(values)), values).statistic)


@connectome_atlas.figure
def maps(runs: Runs):
    """Chemical synapses of each map over the same neurons, their agreement, and growth."""
    data = runs["system"].arrays
    names, matrices = [str(name) for name in data["names"]], np.asarray(data["matrices"])
    fig, axes = figure(4, 2, width=3.4)
    *places, same, alike, grown = axes.flat
    for axis, name, matrix in zip(places, names, matrices, strict=False):
        pre, post = np.nonzero(matrix)
        axis.scatter(post, pre, s=0.6 * np.log1p(matrix[pre, post]), color=SYSTEM_COLOUR, linewidths=0)
        axis.set_ylim(300, 0)
        label(axis, "post (300 neurons, alphabetical)", "pre", name, legend=False)
    for axis in places[len(names) :]:
        axis.remove()
    for axis, kind, title in ((same, "jaccard", "Jaccard index of pairs"), (alike, "correlation", "correlation of weights")):
        image = axis.imshow(np.asarray(data[kind]), vmin=0, vmax=1, cmap="viridis")
        axis.set_xticks(range(len(names)), names, rotation=40, fontsize="x-small")
        axis.set_yticks(range(len(names)), names, fontsize="x-small")
        fig.colorbar(image, ax=axis)
        label(axis, "map", "map", title, legend=False)
    totals, cells = np.asarray(data["totals"]), np.asarray(data["cells"])
    grown.plot(range(1, 9), totals, "o-", color=SYSTEM_COLOUR, label="listed synapses")
    grown.plot(
        range(1, 9), totals[0] * (cells / cells[0]) ** 2, "s--", color=CONTROL_COLOUR, label="if by pairs of cells alone"
    )
    label(grown, "brain, birth to adult", "chemical synapses", "growth")
    return fig


@dataclass(frozen=True)
class Propagation:
    """The atlas of signal propagation beside the wiring."""

    data: str | None = None  # folder of wormneuroatlas' files; else BROADSHEET_WORM_ATLAS, or the installed package
    planted: bool = False  # a made-up atlas, written and read in the same format
    strain: Literal["wt", "unc31"] = "wt"
    wiring: str = "wormneuroatlas:default"
    shuffles: int = 200
    swaps: int = 10


@paper.experiment(
    presets={
        "smoke": Propagation(planted=True, wiring="white", shuffles=2, swaps=1),
        "quick": Propagation(),
        "paper": Propagation(shuffles=2000),
    },
    variants={"unc31": {"strain": "unc31"}},
    claims=[
        Claim("W4", "cells joined by gap junctions answer to each other's stimulation", kind="paper",
              where="signal-propagation data beside the wiring",
              ablation="shuffled-labels", null=("swapped-edges", "nearest-cells"), checks=[at_least("gap_ratio", 3.0)],
              reason="cells whose bodies are nearest, as many a cell as it has gap junctions, answer more often still: 5.4 "
              "times as often as others, where gap junctions give 4.4; against unwired pairs at equal distance these give 2.8"),
        Claim("W5", "chemical wiring predicts propagation, and its direction is kept", kind="paper",
              where="signal-propagation data beside the wiring",
              ablation="shuffled-labels", null=("swapped-edges", "nearest-cells"), checks=[
                  at_least("chem_ratio", 1.6), at_least("one_way", 0.95, of="as-read"),
                  at_most("one_way", 0.3, of="transposed")],
              reason="nearest cells answer 4.0 times as often as others, where chemical synapses give 2.1; against unwired "
              "pairs at equal distance these give 1.4"),
    ],
    data="data",
    cost=8.0,
)  # fmt: skip
def structure_function(config: Propagation, key, log: Log) -> Report:
    """How often a stimulated cell's partners answer, by how they are wired, against shuffled wirings and against place."""
    rng = generator(key)
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_planted(Path(scratch), Connectome.load("white"), rng) if config.planted else config.data
        atlas, wiring = FunctionalAtlas.load(folder, config.strain), Connectome.load(config.wiring, folder)
        distance = distances(read_positions(folder))
    found = _ratios(wiring, atlas, distance)
    shuffled = np.array([list(_ratios(wiring.permuted(rng), atlas).values()) for _ in range(config.shuffles)])
    log.progress(0.6)
    swapped = np.array([
        list(_ratios(wiring.swapped(rng, config.swaps), atlas).values()) for _ in range(max(config.shuffles // 20, 1))
    ])  # fmt: skip
    white = Connectome.load("white")
    turned = Connectome("transposed", wiring.chem.T, wiring.gap, wiring.annotated)
    counts = shares(wiring.chem, wiring.gap, atlas)
    by_count = response_by_count(wiring, atlas)
    return Report(
        metrics=found | {"above_shuffled": float((found["gap_ratio"] > shuffled[:, 0]).mean())},
        arms={
            "shuffled-labels": dict(zip(("gap_ratio", "chem_ratio"), shuffled.mean(0), strict=True)),
            "swapped-edges": dict(zip(("gap_ratio", "chem_ratio"), swapped.mean(0), strict=True)),
            "nearest-cells": _ratios(nearest(wiring, distance), atlas, distance),
            "as-read": {"one_way": one_way_present(white, wiring)},
            "transposed": {"one_way": one_way_present(white, turned), "chem_ratio": _ratios(turned, atlas)["chem_ratio"]},
        } if config.strain == "wt" else {},
        arrays={
            "shares": [counts.gap, counts.chem, counts.unwired],
            "pairs": [counts.pairs[each] for each in ("gap", "chem", "unwired")],
            "shuffled": shuffled,
            "planted": config.planted,
            "synapses": np.array([text for text, _, _ in by_count]),
            "response": [mean for _, mean, _ in by_count],
            "response_error": [error for _, _, error in by_count],
        },
    )  # fmt: skip


def _ratios(wiring: Connectome, atlas: FunctionalAtlas, distance: np.ndarray | None = None) -> dict[str, float]:
    found = shares(wiring.chem, wiring.gap, atlas)
    ratios = {"gap_ratio": found.gap_ratio, "chem_ratio": found.chem_ratio}
    if distance is not None:
        unwired = (wiring.chem <= 0) & (wiring.gap <= 0)
        ratios["gap_at_distance"] = shares_at_distance(wiring.gap, unwired, atlas, distance)
        ratios["chem_at_distance"] = shares_at_distance(wiring.chem, unwired, atlas, distance)
    return ratios


@structure_function.figure
def answers(runs: Runs):
    """Shares of significant answers by wiring with 95 % intervals, against shuffles, and responses by number of synapses."""
    data = runs["system"].arrays
    kind = "made-up atlas" if data["planted"] else "signal propagation"
    fig, (bars, spread, counts) = figure(3)
    p, n = np.asarray(data["shares"]), np.asarray(data["pairs"])
    bars.bar(["gap junction", "chemical", "neither"], p, yerr=1.96 * np.sqrt(p * (1 - p) / n),
             color=[SYSTEM_COLOUR, COLOURS[1], CONTROL_COLOUR])  # fmt: skip
    label(bars, "wiring, stimulated to responding", "pairs with q < 0.05 (share)", kind, legend=False)
    shuffled = np.asarray(data["shuffled"])
    arms = runs["system"].arms
    for k, (name, colour) in enumerate((("gap_ratio", SYSTEM_COLOUR), ("chem_ratio", COLOURS[1]))):
        spread.hist(shuffled[:, k], 20, color=colour, alpha=0.35, label=f"{name[:-6]}, labels shuffled")
        spread.axvline(runs["system"].metrics[name], color=colour, label=f"{name[:-6]}, wired")
        if "nearest-cells" in arms:
            spread.axvline(arms["nearest-cells"][name], color=colour, ls=":", label=f"{name[:-6]}, nearest cells")
    spread.set_ylim(0, 1.9 * spread.get_ylim()[1])
    label(spread, "answers over those of unwired pairs (ratio)", "shuffles", "against shuffles and place")
    counts.errorbar(
        [str(each) for each in data["synapses"]], data["response"], data["response_error"], fmt="o-", color=SYSTEM_COLOUR
    )
    label(counts, "chemical synapses", "mean response (ΔF/F)", "response by number", legend=False)
    return fig


@dataclass(frozen=True)
class Forecasts:
    """The next sample of all neurons, from worms to other worms."""

    source: Literal["simulated", "parquet"] = "simulated"
    data: str | None = None  # the authors' worm_data_short.parquet
    wiring: str = "cook2019h"
    world: Literal["wired", "swapped"] = "wired"  # what the simulated worms are wired by
    worms: int = 8
    seconds: float = 300.0
    labelled: int = 100  # cells identified in the sparser look at the same worms
    folds: int = 8
    dt: float = 0.333  # s
    ridge: float = 10.0
    swaps: int = 4
    gru_steps: int = 300
    hidden: int = 64


@paper.experiment(
    presets={
        "smoke": Forecasts(wiring="witvliet1", worms=2, folds=2, seconds=20.0, swaps=1, gru_steps=2, hidden=4),
        "quick": Forecasts(),
        "paper": Forecasts(source="parquet", worms=1000, folds=5, gru_steps=5000, hidden=128),
    },
    variants={"swapped-worms": {"world": "swapped"}},
    claims=[
        Claim("W6", "inputs by the wiring forecast other worms better than edge swaps of it, and than as many inputs chosen "
              "from the data", kind="paper", where="connectome-constrained models as the use of the data set",
              ablation="swapped-worms", null=("self", "swapped-edges", "chosen-by-data", "all-inputs"), grows="worms", checks=[
                  at_most("p_swapped", 0.05, within=(0, 1)), at_most("p_chosen", 0.05, within=(0, 1))]),
    ],
    data="data",
    cost=30.0,
)  # fmt: skip
def forecast_baselines(config: Forecasts, key, log: Log) -> Report:
    """Errors over persistence's of autoregressions, of linear models with all, wired, swapped or chosen inputs, and of a GRU,
    each fitted to other worms; of z-scores that know the whole recording and of running ones."""
    rng = generator(key)
    wiring = Connectome.load(config.wiring)
    swaps = {f"swap-{k}": _support(wiring.swapped(rng, config.swaps)) for k in range(4)}
    support = _support(wiring)
    common: dict[str, Any] = {"ridge": config.ridge}
    models = {
        "system": RidgeVAR(support=support, **common),
        "self": RidgeVAR(support="self", **common),
        **{name: RidgeVAR(support=each, **common) for name, each in swaps.items()},
        "swapped-edges": RidgeVAR(support=_support(wiring.swapped(rng, config.swaps)), **common),
        "chosen-by-data": RidgeVAR(support="correlated", inputs=support.sum(0), **common),
        "all-inputs": RidgeVAR(**common),
    }
    looks = _looks(config, wiring, rng)
    log.progress(0.3)
    few = ("system", "self", "swap-0", "swap-1", "chosen-by-data")
    errors = {
        look: across_worms({name: models[name] for name in (few if look == "sparse" else models)}, worms, config.folds)
        for look, worms in looks.items()
    }
    log.progress(0.7)
    rivals = {"swapped": list(swaps), "chosen": ["chosen-by-data"]}
    rows: dict[str, dict[str, float]] = {name: {} for name in models}
    for look, found in errors.items():
        for name, error in found.items():
            rows[name][f"ratio_{look}"] = float(error.mean())
            for against, others in rivals.items():
                rows[name][f"p_{against}_{look}"] = max(_better(error, found[other]) for other in others if other in found)
    for row in rows.values():
        row |= {f"p_{against}": max(row[f"p_{against}_acausal"], row[f"p_{against}_causal"]) for against in rivals}
    more = _more(config, models, looks["acausal"], key) if config.world == "wired" else {}
    shown = [name for name in rows if not name.startswith("swap-")]
    return Report(
        metrics=rows["system"] | ({"ratio_gru": more["gru"]} if more else {}),
        arms={name: rows[name] for name in shown if name != "system"} if config.world == "wired" else {},
        arrays={
            "models": np.array(shown), "looks": np.array(list(errors)), "simulated": config.source == "simulated",
            "ratios": [[each[name].mean() if name in each else np.nan for name in shown] for each in errors.values()],
            "spread": [[stats.sem(each[name]) if name in each else np.nan for name in shown] for each in errors.values()],
            **more,
        },
    )  # fmt: skip


def _support(wiring: Connectome) -> np.ndarray:
    return (wiring.chem > 0) | (wiring.gap > 0)


def _looks(config: Forecasts, wiring: Connectome, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """The same worms z-scored over the whole recording, by running moments, and the first with few cells identified."""
    if config.source == "parquet":
        if not config.data:
            raise MissingDataError(
                "The paper's size needs the authors' table: download worm_data_short.parquet of the data set "
                "qsimeon/celegans_neural_data from Hugging Face, then --data FILE."
            )
        found: dict[str, list[np.ndarray]] = {"acausal": [], "causal": []}
        for recording in iter_parquet(config.data):
            if recording.mask.any() and len(found["acausal"]) < config.worms:
                cells = [name if seen else None for name, seen in zip(canonical_names(), recording.mask, strict=True)]
                found["acausal"].append(recording.masked())
                found["causal"].append(homogenise(recording.calcium, recording.time, cells, config.dt, causal=True).masked())
        return found
    world = wiring if config.world == "wired" else wiring.swapped(rng, config.swaps)
    lab = Lab("all cells", config.dt, labelled=None, seconds=config.seconds)
    raws = simulate(world, config.seconds, [lab], worms=config.worms, key=rng)
    whole = [homogenise(raw.traces, raw.times, raw.names, config.dt).masked() for raw in raws]
    running = [homogenise(raw.traces, raw.times, raw.names, config.dt, causal=True).masked() for raw in raws]
    sparse = []
    for each in whole:
        seen = np.zeros(each.shape[1], bool)
        seen[rng.permutation(each.shape[1])[: config.labelled]] = True
        sparse.append(np.where(seen, each, np.nan))
    return {"acausal": whole, "causal": running, "sparse": sparse}


def _better(errors: np.ndarray, reference: np.ndarray) -> float:
    """The p of a paired one-sided t test that errors are below the reference's; 1 where they are the same."""
    if np.allclose(errors, reference, rtol=1e-9):
        return 1.0
    return float(stats.ttest_rel(errors, reference, alternative="less").pvalue)


def _more(config: Forecasts, models: dict[str, RidgeVAR], worms: list[np.ndarray], key: Any) -> dict[str, Any]:
    """Errors over persistence's on the last quarter of the worms: a GRU's, and the linear models' by how many worms they were
    fitted to."""
    cut = len(worms) - max(len(worms) // 4, 1)
    base = persistence_errors(worms[cut:])
    seed = int(jax.random.randint(jax.random.fold_in(key, 1), (), 0, 2**31 - 1))
    gru = GRUForecaster(config.hidden, steps=config.gru_steps, seed=seed).fit(worms[:cut])
    numbers = sorted({max(round(cut * share), 1) for share in (0.2, 0.4, 0.7, 1.0)})
    shown = ("self", "system", "swapped-edges", "all-inputs")

    def ratio(model: Any) -> float:
        return float((model.errors(worms[cut:]) / base).mean())

    by_number = [[ratio(models[name].fit(worms[:count])) for name in shown] for count in numbers]
    return {"gru": ratio(gru), "numbers": numbers, "by_number": by_number}


@forecast_baselines.figure
def errors(runs: Runs):
    """Error over persistence's by model and by preprocessing, and by the number of worms fitted to."""
    data = runs["system"].arrays
    fig, (bars, curve) = figure(2, width=5.6)
    names, looks = [str(name) for name in data["models"]], [str(look) for look in data["looks"]]
    said = {"acausal": "z-scores know all", "causal": "running z-scores", "sparse": "few cells identified"}
    words = {"system": "wired", "self": "own past", "swapped-edges": "swapped", "chosen-by-data": "chosen", "all-inputs": "all"}
    for k, look in enumerate(looks):
        at = np.arange(len(names)) + (k - (len(looks) - 1) / 2) * 0.25
        bars.bar(
            at,
            np.asarray(data["ratios"])[k],
            0.25,
            yerr=np.asarray(data["spread"])[k],
            color=COLOURS[k],
            label=said.get(look, look),
        )
    bars.plot([len(names)], [float(data["gru"])], "D", color=COLOURS[0], label="GRU, z-scores know all")
    bars.axhline(1, color="k", lw=0.6)
    bars.set_xticks(range(len(names) + 1), [*(words.get(name, name) for name in names), "GRU"])
    bars.set_ylim(0.85, 1.25)
    kind = "simulated" if data["simulated"] else "released"
    label(bars, "inputs of the linear model", "squared error / persistence's", f"{kind} worms, fitted to others")
    for k, name in enumerate(("own past", "wired", "swapped", "all")):
        colour = SYSTEM_COLOUR if name == "wired" else CONTROL_COLOUR if name == "swapped" else COLOURS[k + 1]
        curve.plot(data["numbers"], np.asarray(data["by_number"])[:, k], "o-", color=colour, label=name)
    curve.axhline(1, color="k", lw=0.6)
    curve.set_ylim(0.85, 1.3)
    label(curve, "worms fitted to", "squared error / persistence's", "two worms held out")
    return fig
