"""A spike-based content-addressable memory after the hippocampus, arXiv 2310.05868.

Memories are pairs of a cue and a content, stored in one shot by fast STDP and recalled by either of them. The control of what
plasticity does is the same network whose synapses do not see pairs that meet in one step; that of what the circuit does is a
Hopfield network of the same units, or the circuit at shorter intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from broadsheet.lab import NONE_YET, Claim, Log, Paper, Report, Runs, at_most, equals
from broadsheet.lab.plots import COLOURS, CONTROL_COLOUR, SYSTEM_COLOUR, figure, label
from broadsheet.lab.timing import measure
from broadsheet.networks.hippocampus import (
    CONTENT_TO_CUE,
    CUE_TO_CONTENT,
    HippocampalCAM,
    HippocampalNetwork,
    connections,
    fast_stdp,
    run_fresh,
    schedule,
)
from broadsheet.numerics import generator

paper = Paper(
    slug="hippocampal-memory",
    arxiv="2310.05868",
    title="Bio-inspired computational memory model of the Hippocampus: an approach to a neuromorphic spike-based "
    "Content-Addressable Memory",
    published="2023-10-09",
    authors=5,
    basis="code",
    code="github.com/dancasmor/An-aproach-to-a-spike-based-Content-Addressable-Memory-bio-inspired-in-the-Hippocampus (GPL)",
    summary="A network of spiking neurons, wired after the recurrent collaterals of CA3, stores a pattern under a cue in three "
    "milliseconds by fast spike-timing-dependent plasticity. The cue alone recalls the pattern, any part of a pattern recalls "
    "the cues it was stored under, and storing again overwrites.",
    topics=("hippocampus", "associative memory", "STDP", "neuromorphic computing"),
    parts=("broadsheet.networks.HippocampalCAM", "broadsheet.networks.hippocampus", "broadsheet.plasticity.STDP"),
    verbs=("broadsheet networks recall PATTERNS.npy",),
    tasks={"recall stored patterns": "capacity:recalled_by_cue"},
    notes=(
        "Steps, synaptic scaling and the order of plasticity are those that reproduce the authors' published spike tables; "
        "nothing of their programs, which are GPL and need SpiNNaker hardware, is used.",
        "Recall by content changes weights: after a few questions with bits of different memories, cues that shared an answer "
        "are linked, and exact recall is lost (C3b). The documented 7 ms between stores is enough for recall by cue only.",
    ),
)

Operation = tuple[int, int | None, tuple[int, ...]]
Answers = dict[tuple[int, str], set[int]]
"""Spikes of the output by (ms, "cue" or "content"); times that are not listed are silent."""


def answers(out: dict[str, np.ndarray]) -> Answers:
    """Every spike of the output populations of one run."""
    found: Answers = {}
    for name, population in (("cue", "OutCue"), ("content", "OutCont")):
        for t, neuron in zip(*np.nonzero(out[population]), strict=True):
            found.setdefault((int(t), name), set()).add(int(neuron))
    return found


def mismatches(found: Answers, expected: Answers) -> int:
    """In how many steps and outputs the two tables differ."""
    return sum(found.get(at, set()) != expected.get(at, set()) for at in found.keys() | expected.keys())


def echo(start: int, cue: int, bits: tuple[int, ...]) -> Answers:
    """What a store shows on the output: both parts, twice."""
    return {(start + lag, name): set(part) for lag in (5, 7) for name, part in (("cue", {cue}), ("content", bits))}


def by_cue(start: int, cue: int, bits: tuple[int, ...]) -> Answers:
    return {(start + 5, "cue"): {cue}, (start + CUE_TO_CONTENT, "content"): set(bits)}


def by_content(start: int, bits: tuple[int, ...], cues: set[int]) -> Answers:
    return {(start + 5, "content"): set(bits), (start + CONTENT_TO_CUE, "cue"): cues}


FUNCTIONAL: tuple[Operation, ...] = (
    (0, 0, (0, 1, 8, 9)), (10, 4, (1, 5, 6)), (20, 3, (4, 5, 6)), (30, 0, ()), (40, None, (6,)), (50, None, (0, 4)),
    (60, 3, (1, 3, 4, 8)), (70, 3, ()), (80, None, (6,)),
)  # fmt: skip
FUNCTIONAL_TABLE: Answers = (
    echo(0, 0, (0, 1, 8, 9)) | echo(10, 4, (1, 5, 6)) | echo(20, 3, (4, 5, 6)) | by_cue(30, 0, (0, 1, 8, 9))
    | by_content(40, (6,), {3, 4}) | by_content(50, (0, 4), {0, 3}) | echo(60, 3, (1, 3, 4, 8))
    | {(66, "content"): {5, 6}}  # a last sign of the bits that are being forgotten
    | by_cue(70, 3, (1, 3, 4, 8)) | by_content(80, (6,), {4})
)  # fmt: skip
MAP = np.array([[0, 5, 1, 3], [0, 3, 4, 5], [0, 5, 4, 3], [2, 4, 4, 3]])
STATES = ("unknown", "start", "goal", "free", "path", "obstacle")
MAP_QUERIES = ((112, (1, 2, 4)), (118, (3,)), (124, (5,)), (130, (0,)))
STRESS_GAP = 14


def stress() -> tuple[tuple[Operation, ...], Answers, int]:
    """Five cues stored, recalled by cue and by each bit; then the same with complemented contents, twice."""
    operations: list[Operation] = []
    table: Answers = {}
    start = 0
    contents = [tuple(bit for bit in range(10) if (cue + 1) >> bit & 1) for cue in range(5)]
    forgotten: list[set[int]] = [set()] * 5
    for _ in range(3):
        for cue, bits in enumerate(contents):
            operations.append((start, cue, bits))
            table |= echo(start, cue, bits)
            if forgotten[cue]:
                table[start + 6, "content"] = forgotten[cue] - set(bits)  # the last sign of old bits
            start += STRESS_GAP
        for cue, bits in enumerate(contents):
            operations.append((start, cue, ()))
            table |= by_cue(start, cue, bits)
            start += STRESS_GAP
        for bit in range(10):
            operations.append((start, None, (bit,)))
            cues = {cue for cue, bits in enumerate(contents) if bit in bits}
            table |= by_content(start, (bit,), cues) if cues else {(start + 5, "content"): {bit}}
            start += STRESS_GAP
        forgotten = [set(bits) for bits in contents]
        contents = [tuple(sorted(set(range(10)) - bits)) for bits in forgotten]
    return tuple(operations), table, start


def lookup() -> tuple[tuple[Operation, ...], Answers]:
    """A map of 16 cells stored as its states, one of six each, and asked for the cells in a state."""
    states = MAP.ravel().tolist()
    operations: list[Operation] = [(7 * cell, cell, (state,)) for cell, state in enumerate(states)]
    table: Answers = {}
    for cell, state in enumerate(states):
        table |= echo(7 * cell, cell, (state,))
    for start, wanted in MAP_QUERIES:
        operations.append((start, None, wanted))
        table |= by_content(start, wanted, {cell for cell, state in enumerate(states) if state in wanted})
    return tuple(operations), table


@dataclass(frozen=True)
class Tables:
    """The three published experiments; the control has no depression by pairs that meet in one step."""

    zero_lag: bool = True


@paper.experiment(
    presets={"smoke": Tables(), "quick": Tables(), "paper": Tables()},
    variants={"no-zero-lag": {"zero_lag": False}},
    deterministic=True,
    claims=[
        Claim("C1", "stores, recalls, overwrites and searches to the millisecond as the published tables say", kind="check",
              ablation="no-zero-lag", reference="the authors' result tables: 90, 840 and 140 ms of operations",
              checks=[equals("functional", 0), equals("stress", 0), equals("map", 0)]),
    ],
    cost=8.0,
)  # fmt: skip
def functional(config: Tables, key, log: Log) -> Report:
    """The published sequences: three memories and a relearning, a stress test, and a map that is searched."""
    metrics: dict[str, float] = {}
    cam = HippocampalCAM(5, 10, rule=fast_stdp(config.zero_lag))
    out, weights = _in_parts(cam, schedule(5, 10, FUNCTIONAL, 90))
    metrics["functional"] = mismatches(answers(out), FUNCTIONAL_TABLE)
    log.progress(0.3)
    operations, table, steps = stress()
    cam.reset()
    metrics["stress"] = mismatches(answers(_in_parts(cam, schedule(5, 10, operations, steps))[0]), table)
    log.progress(0.7)
    operations, table = lookup()
    on_map = HippocampalCAM(16, 6, rule=fast_stdp(config.zero_lag)).run(schedule(16, 6, operations, 140))
    metrics["map"] = mismatches(answers(on_map), table)
    arrays = {f"raster_{name}": array for name, array in out.items()}
    arrays |= {f"weights_{name}": np.stack([each[name] for each in weights]) for name in weights[0]}
    arrays["map_answers"] = np.stack([on_map["OutCue"][start + CONTENT_TO_CUE] for start, _ in MAP_QUERIES])
    return Report(metrics=metrics, arrays=arrays)


def _in_parts(cam: HippocampalCAM, spikes: np.ndarray) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """Runs 10 ms at a time: (spikes of all populations, learned weights after each part)."""
    parts, weights = [], []
    for start in range(0, len(spikes), 10):
        parts.append(cam.run(spikes[start : start + 10]))
        weights.append(cam.weights)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, weights


@functional.figure
def raster(runs: Runs):
    """Spikes of all populations; stores and questions are shaded."""
    data = runs["system"].arrays
    order = ["InCue", "InCont", "CueCue", "ContCue", "Cond", "CondInt", "ContCont", "CueCont", "MergeCue", "MergeCont",
             "OutCue", "OutCont"]  # fmt: skip
    fig, axis = figure(width=8.4, height=5.6)
    offset, ticks = 0, []
    for k, name in enumerate(order):
        spikes = data[f"raster_{name}"]
        times, neurons = np.nonzero(spikes)
        axis.plot(times, offset + neurons, ".", ms=4, color=COLOURS[k % len(COLOURS)])
        axis.axhline(offset - 0.5, color="#dddddd", lw=0.6)
        ticks.append(offset + (spikes.shape[1] - 1) / 2)
        offset += spikes.shape[1]
    for start, cue, bits in FUNCTIONAL:
        stored = cue is not None and bits
        axis.axvspan(start - 0.5, start + (2.5 if stored else 0.5), color=SYSTEM_COLOUR if stored else "#c2571a", alpha=0.15)
    axis.set_yticks(ticks, order)
    label(axis, "time (ms)", "population, neurons", "blue: store; orange: question", legend=False)
    return fig


@functional.figure
def weights(runs: Runs):
    """Learned weights after each operation: content by cue above, cue by content below."""
    data = runs["system"].arrays
    fig, axes = figure(len(FUNCTIONAL), 2, width=1.5, height=1.8)
    for row, (name, x, y) in enumerate(
        (("weights_CueCue-ContCue", "content bit", "cue"), ("weights_ContCont-CueCont", "content bit", "cue"))
    ):
        for k, (axis, matrix) in enumerate(zip(axes[row], data[name], strict=True)):
            image = axis.imshow(matrix if row == 0 else matrix.T, vmin=0, vmax=6, cmap="Blues", aspect="auto")
            label(axis, x, y, f"{10 * (k + 1)} ms", legend=False)
    fig.colorbar(image, ax=axes, label="weight (nA)")
    return fig


@functional.figure
def searched_map(runs: Runs):
    """The stored map, and the cells that answer each question."""
    fig, axes = figure(1 + len(MAP_QUERIES), width=2.2, height=2.5)
    axes[0].imshow(MAP, cmap="Pastel1", vmin=0, vmax=8)
    for (row, column), state in np.ndenumerate(MAP):
        axes[0].text(column, row, STATES[state], ha="center", va="center", fontsize=6)
    label(axes[0], "column", "row", "stored states", legend=False)
    for axis, answer, (_, wanted) in zip(axes[1:], runs["system"].arrays["map_answers"], MAP_QUERIES, strict=True):
        axis.imshow(np.reshape(answer, MAP.shape), cmap="Blues", vmin=0, vmax=1)
        label(axis, "column", "row", ", ".join(STATES[state] for state in wanted), legend=False)
    return fig


@dataclass(frozen=True)
class Capacity:
    """Random contents under every cue, recalled in every way."""

    cues: int = 16
    bits: int = 16
    memories: int = 10  # drawn anew
    queries: int = 50  # in a row on one memory


@paper.experiment(
    presets={"smoke": Capacity(cues=4, bits=5, memories=2, queries=5), "quick": Capacity(),
             "paper": Capacity(memories=100, queries=200)},
    claims=[
        Claim("C2", "every cue stores an arbitrary content of its own", kind="paper", where="abstract: content-addressable "
              "memory; stress test", null="hopfield",
              no_ablation="without a cell for each cue there is no place to store a content in",
              checks=[equals("recalled_by_cue", 1.0)]),
        Claim("C3", "a part of a content recalls exactly the cues that share a bit with it", kind="paper",
              where="recall from fragments", ablation="no-lateral-scaling", null=NONE_YET,
              checks=[equals("recalled_by_bit", 1.0), equals("recalled_by_fragment", 1.0)]),
        Claim("C3b", "questions by content change the memory: soon answers are wrong", kind="check", ablation="fresh",
              reference="the same questions, each to a freshly written memory", checks=[at_most("exact_in_a_row", 0.5)]),
        Claim("C4", "storing under a used cue forgets what was there", kind="paper", where="abstract: forgetting",
              ablation="no-zero-lag", null=NONE_YET, checks=[equals("new_bits", 1.0), equals("old_bits", 0)]),
    ],
    cost=15.0,
)  # fmt: skip
def capacity(config: Capacity, key, log: Log) -> Report:
    """Exact recall by cue, by bits and by larger parts; what questions in a row do; and overwriting."""
    rng = generator(key)
    n, m = config.cues, config.bits
    network = HippocampalNetwork(n, m)
    unscaled = HippocampalNetwork(n, m, weight_scale=lambda _, weight: weight / m if weight == -6.0 * m else weight)
    contents = _contents(rng, config.memories, n, m)
    fragments = [np.sort(rng.choice(m, min(size, m), replace=False)) for size in (1, 2, 3, 5) for _ in range(5)]
    pairs = [np.sort(rng.choice(m, 2, replace=False)) for _ in range(config.queries)]
    singles = [np.array([bit]) for bit in range(m)]

    arms = {
        "system": {
            "recalled_by_cue": _by_cue(network, contents, 7, 6),
            "recalled_by_bit": _in_a_row(network, contents, singles, 10, 8).mean(),
            "recalled_by_fragment": _apart(network, contents[0], fragments, 10).mean(),
        },
        "no-lateral-scaling": {
            "recalled_by_bit": _in_a_row(unscaled, contents, singles, 10, 8).mean(),
            "recalled_by_fragment": _apart(unscaled, contents[0], fragments, 10).mean(),
        },
        "hopfield": {"recalled_by_cue": np.mean([_hopfield(each) for each in contents])},
    }
    log.progress(0.5)
    row = _in_a_row(network, contents, pairs, 10, 8)
    arms["system"]["exact_in_a_row"] = row.mean()
    arms["fresh"] = {"exact_in_a_row": _apart(network, contents[0], pairs, 10).mean()}
    log.progress(0.8)
    for arm, lag in (("system", True), ("no-zero-lag", False)):
        new, old = _overwritten(HippocampalNetwork(n, m, rule=fast_stdp(lag)), contents)
        arms.setdefault(arm, {}).update(new_bits=new, old_bits=old)
    return Report(arms=arms, arrays={"exact": row.mean(axis=0)})


def _contents(rng: np.random.Generator, memories: int, cues: int, bits: int) -> np.ndarray:
    """Random contents (memories, cues, bits), each bit with probability 1/2, none empty."""
    drawn = rng.random((memories, cues, bits)) < 0.5
    drawn[..., 0] |= ~drawn.any(axis=-1)
    return drawn


def _write(contents: np.ndarray, gap: int, after: int) -> np.ndarray:
    """Input spikes that store one content after the other, and room for what follows (time, neurons)."""
    cues, bits = contents.shape
    operations = [(gap * cue, cue, np.nonzero(content)[0]) for cue, content in enumerate(contents)]
    return schedule(cues, bits, operations, gap * cues + after)


def _run(network: HippocampalNetwork, spikes: list[np.ndarray], *wanted: str) -> list[np.ndarray]:
    stacked = np.stack(spikes)
    silence = -stacked.shape[1] % 256  # few lengths, so few compilations
    padded = np.pad(stacked, ((0, 0), (0, silence), (0, 0)))
    out = network.populations(np.asarray(run_fresh(network, jnp.asarray(padded, jnp.result_type(float)))))
    return [out[name] for name in wanted]


def _by_cue(network: HippocampalNetwork, contents: np.ndarray, store_gap: int, recall_gap: int) -> float:
    """Share of contents recalled exactly, each by its cue."""
    _, cues, _ = contents.shape
    starts = store_gap * cues + recall_gap * np.arange(cues)
    spikes = [_write(each, store_gap, recall_gap * cues + CUE_TO_CONTENT + 1) for each in contents]
    for one in spikes:
        one[starts, np.arange(cues)] = True
    (found,) = _run(network, spikes, "OutCont")
    return float((found[:, starts + CUE_TO_CONTENT] == contents).all(axis=-1).mean())


def _in_a_row(
    network: HippocampalNetwork, contents: np.ndarray, queries: list[np.ndarray], store_gap: int, recall_gap: int
) -> np.ndarray:
    """Whether the cues that answer are exactly the right ones: (memories, queries), one question after another."""
    _, cues, _ = contents.shape
    starts = store_gap * cues + recall_gap * np.arange(len(queries))
    spikes = [_write(each, store_gap, recall_gap * len(queries) + CONTENT_TO_CUE + 1) for each in contents]
    for one in spikes:
        for start, bits in zip(starts, queries, strict=True):
            one[start, cues + bits] = True
    (found,) = _run(network, spikes, "OutCue")
    return (found[:, starts + CONTENT_TO_CUE] == _sharing(contents, queries)).all(axis=-1)


def _apart(network: HippocampalNetwork, contents: np.ndarray, queries: list[np.ndarray], gap: int) -> np.ndarray:
    """The same for one memory that is written anew for each question: (queries,)."""
    cues, _ = contents.shape
    start = gap * cues
    spikes = []
    for bits in queries:
        one = _write(contents, gap, CONTENT_TO_CUE + 2)
        one[start, cues + bits] = True
        spikes.append(one)
    (found,) = _run(network, spikes, "OutCue")
    return (found[:, start + CONTENT_TO_CUE] == _sharing(contents[None], queries)[0]).all(axis=-1)


def _sharing(contents: np.ndarray, queries: list[np.ndarray]) -> np.ndarray:
    """Cues that share a bit with a question: (memories, queries, cues)."""
    return np.stack([contents[:, :, bits].any(axis=-1) for bits in queries], axis=1)


def _hopfield(contents: np.ndarray) -> float:
    """Share of contents that a Hopfield network of as many units recalls exactly when their cue is held."""
    cues, bits = contents.shape
    patterns = np.concatenate([2.0 * np.eye(cues) - 1, 2.0 * contents - 1], axis=1)
    weights = patterns.T @ patterns / patterns.shape[1]
    np.fill_diagonal(weights, 0.0)
    state = np.concatenate([patterns[:, :cues], np.zeros((cues, bits))], axis=1)
    for _ in range(50):
        state[:, cues:] = np.where(state @ weights[:, cues:] > 0, 1.0, -1.0)
    return float((state[:, cues:] == patterns[:, cues:]).all(axis=1).mean())


def _overwritten(network: HippocampalNetwork, contents: np.ndarray) -> tuple[float, int]:
    """(share of new bits recalled, number of old bits that come with them) after all contents were complemented."""
    _, cues, _ = contents.shape
    new = ~contents
    new[..., 0] |= ~new.any(axis=-1)
    start, gap = 20 * cues, 8
    spikes = []
    for before, after in zip(contents, new, strict=True):
        one = np.concatenate([_write(before, 10, 0), _write(after, 10, gap * cues + CUE_TO_CONTENT + 1)])
        one[start + gap * np.arange(cues), np.arange(cues)] = True
        spikes.append(one)
    (found,) = _run(network, spikes, "OutCont")
    answered = found[:, start + gap * np.arange(cues) + CUE_TO_CONTENT]
    return float(answered[new].mean()), int((answered & ~new).sum())


@capacity.figure
def endurance(runs: Runs):
    """How many answers are exact, against the number of questions that were asked before."""
    run = runs["system"]
    fig, axis = figure()
    exact = run.arrays["exact"]
    axis.plot(np.arange(1, len(exact) + 1), exact, "o-", ms=3, label="one memory, questions in a row")
    axis.axhline(run.arms["fresh"]["exact_in_a_row"], color=CONTROL_COLOUR, label="a fresh memory for each")
    axis.set_ylim(-0.03, 1.05)
    label(axis, "question of two bits, number", "exact answers (share of memories)")
    return fig


@dataclass(frozen=True)
class Timing:
    """How close operations may follow each other."""

    cues: int = 16
    bits: int = 16
    memories: int = 20


@paper.experiment(
    presets={"smoke": Timing(cues=4, bits=5, memories=2), "quick": Timing(), "paper": Timing(memories=200)},
    claims=[
        Claim("C5", "operations need 7 and 6 ms by cue, 10 and 8 ms by content", kind="paper", where="time per operation; the "
              "spacing for recall by content is ours", ablation="shorter",
              no_null="how many steps an operation takes is a property of the circuit alone",
              checks=[equals("by_cue", 1.0), equals("by_content", 1.0), equals("by_content_fresh", 1.0)]),
    ],
    cost=15.0,
)  # fmt: skip
def timing(config: Timing, key, log: Log) -> Report:
    """Exact recall against the time between stores and between questions; the control takes each one ms less."""
    rng = generator(key)
    network = HippocampalNetwork(config.cues, config.bits)
    contents = _contents(rng, config.memories, config.cues, config.bits)
    singles = [np.array([bit]) for bit in range(config.bits)]
    gaps = np.arange(5, 12)
    by_cue_store = np.array([_by_cue(network, contents, int(gap), 6) for gap in gaps])
    by_cue_recall = np.array([_by_cue(network, contents, 7, int(gap)) for gap in gaps])
    log.progress(0.5)
    by_content_store = np.array([_in_a_row(network, contents, singles, int(gap), 8).mean() for gap in gaps])
    by_content_recall = np.array([_in_a_row(network, contents, singles, 10, int(gap)).mean() for gap in gaps])
    log.progress(0.9)
    fresh = np.array([_apart(network, contents[0], singles, int(gap)).mean() for gap in gaps])

    def at(values: np.ndarray, gap: int) -> float:
        return float(values[gap - gaps[0]])

    def arm(less: int) -> dict[str, float]:
        return {
            "by_cue": min(at(by_cue_store, 7 - less), at(by_cue_recall, 6 - less)),
            "by_content": min(at(by_content_store, 10 - less), at(by_content_recall, 8 - less)),
            "by_content_fresh": at(fresh, 9 - less),
        }

    shorter = arm(1) | {"by_content_at_7": at(by_content_store, 7)}
    return Report(
        arms={"system": arm(0), "shorter": shorter},
        arrays={"gaps": gaps, "by_cue_store": by_cue_store, "by_cue_recall": by_cue_recall,
                "by_content_store": by_content_store, "by_content_recall": by_content_recall},
    )  # fmt: skip


@timing.figure
def intervals(runs: Runs):
    """Exact recall against the time that each operation gets."""
    data = runs["system"].arrays
    fig, axes = figure(2)
    for axis, operation, title in zip(axes, ("store", "recall"), ("between stores", "between questions"), strict=True):
        axis.plot(data["gaps"], data[f"by_cue_{operation}"], "o-", label="recalled by cue")
        axis.plot(data["gaps"], data[f"by_content_{operation}"], "s-", label="recalled by content")
        label(axis, f"time {title} (ms)", "exact answers (share)")
    return fig


@dataclass(frozen=True)
class Activity:
    """Spikes that an operation costs, by closed form and by count."""

    bits: int = 8
    sizes: tuple[int, ...] = (1, 2, 4, 8)  # bits of a content


@paper.experiment(
    presets={"smoke": Activity(bits=4, sizes=(1, 2)), "quick": Activity(), "paper": Activity(bits=16, sizes=(1, 2, 4, 8, 16))},
    deterministic=True,
    claims=[
        Claim("C6", "spikes of a store, of a recall by cue and of one by content follow from the circuit; silence costs none",
              kind="check", reference="10 (1 + m), 5 + 3 m and 1 + 5 f + 3 c for m bits, f bits asked and c cues answering",
              ablation="one-pass", checks=[equals("store_error", 0), equals("by_cue_error", 0), equals("by_content_error", 0),
                                          equals("idle", 0)]),
    ],
    cost=4.0,
)  # fmt: skip
def activity(config: Activity, key, log: Log) -> Report:
    """Spikes of all populations but the input. `one-pass` is a count that forgets what an operation sets off."""

    def spent(out: dict[str, np.ndarray]) -> int:
        return int(sum(array.sum() for name, array in out.items() if not name.startswith("In")))

    store, recall, search, shares = [], [], [], []
    cases = [(1, 1), (1, 3), (2, 1), (3, 2)] if config.bits >= 8 else [(1, 1), (1, 3)]
    cam = HippocampalCAM(5, config.bits)
    for m in config.sizes:
        cam.reset()
        store.append(spent(cam.run(schedule(5, config.bits, [(0, 0, tuple(range(m)))], 20))))
        recall.append(spent(cam.run(schedule(5, config.bits, [(0, 0, ())], 20))))
    for f, c in cases:
        cam.reset()
        for cue in range(c):
            cam.run(schedule(5, config.bits, [(0, cue, tuple(range(f)))], 20))
        search.append(spent(cam.run(schedule(5, config.bits, [(0, None, tuple(range(f)))], 20))))
        shares.append((f, c))
    idle = spent(cam.run(np.zeros((20, 5 + config.bits), bool)))
    sizes, asked, answering = np.array(config.sizes), *np.array(shares).T

    def arm(by_store: np.ndarray, by_cue: np.ndarray, by_bits: np.ndarray) -> dict[str, Any]:
        return {
            "store_error": np.abs(np.array(store) - by_store).max(),
            "by_cue_error": np.abs(np.array(recall) - by_cue).max(),
            "by_content_error": np.abs(np.array(search) - by_bits).max(),
            "idle": idle,
        }

    arms = {
        "system": arm(10 * (1 + sizes), 5 + 3 * sizes, 1 + 5 * asked + 3 * answering),
        "one-pass": arm(5 * (1 + sizes), 1 + sizes, asked + answering),
    }
    return Report(arms=arms, arrays={"m": sizes, "store": np.array(store), "recall": np.array(recall)})


@activity.figure
def spikes(runs: Runs):
    """Spikes of a store and of a recall against the size of the content."""
    data = runs["system"].arrays
    fig, axis = figure()
    axis.plot(data["m"], data["store"], "o", label="store")
    axis.plot(data["m"], 10 * (1 + data["m"]), "-", color=SYSTEM_COLOUR, lw=0.8, label="10 (1 + m)")
    axis.plot(data["m"], data["recall"], "s", label="recall by cue")
    axis.plot(data["m"], 5 + 3 * data["m"], "-", color="#c2571a", lw=0.8, label="5 + 3 m")
    label(axis, "bits of the content, m", "spikes (count)")
    return fig


@dataclass(frozen=True)
class Scaling:
    """Large memories, and imperfect hardware."""

    sizes: tuple[int, ...] = (16, 32)  # cues and bits
    noise: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2)  # relative error of each kind of static weight


@paper.experiment(
    presets={"smoke": Scaling(sizes=(4,), noise=(0.0,)), "quick": Scaling(), "paper": Scaling(sizes=(16, 64, 128, 256, 512))},
    claims=[
        Claim("C7", "memories of 128 cues and bits are recalled exactly", kind="paper", where="scalability",
              null="hopfield", no_ablation="without a cell for each cue there is no place to store a content in",
              checks=[equals("recalled", {"paper": 1.0})]),
    ],
    cost=8.0,
)  # fmt: skip
def scaling(config: Scaling, key, log: Log) -> Report:
    """Recall by cue against size, with run time, and against the error of static weights."""
    rng = generator(key)
    recalled, seconds, hopfield = [], [], []
    for k, size in enumerate(config.sizes):
        contents = _contents(rng, 1, size, size)
        took = measure(partial(_by_cue, HippocampalNetwork(size, size), contents, 7, 6), repeats=1, warm_up=0)
        recalled.append(took.result)
        seconds.append(took.minimum / (size * 13 / 1000))
        hopfield.append(_hopfield(contents[0]))
        log.progress((k + 1) / (len(config.sizes) + 1))
    contents = _contents(rng, 4, 16, 16)
    kinds = [f"{c.source}-{c.target}" for c in connections(16)]
    robust = []
    for spread in config.noise:
        errors = {name: 1 + spread * rng.standard_normal() for name in kinds}
        noisy = HippocampalNetwork(16, 16, weight_scale=lambda name, weight, errors=errors: weight * errors[name])
        robust.append(_by_cue(noisy, contents, 7, 6))
    within = [size for size in config.sizes if size <= 128]
    return Report(
        arms={"system": {"recalled": min(recalled[: len(within)]), "seconds_per_s": seconds[-1]},
              "hopfield": {"recalled": min(hopfield[: len(within)]), "seconds_per_s": 0.0}},
        arrays={"sizes": np.array(config.sizes), "recalled": np.array(recalled), "hopfield": np.array(hopfield),
                "noise": np.array(config.noise), "robust": np.array(robust)},
    )  # fmt: skip


@scaling.figure
def sizes(runs: Runs):
    """Exact recall against the size of the memory and against errors of its weights."""
    data = runs["system"].arrays
    fig, (left, right) = figure(2)
    left.plot(data["sizes"], data["recalled"], "o-", label="spiking memory")
    left.plot(data["sizes"], data["hopfield"], "o-", color=CONTROL_COLOUR, label="Hopfield network")
    label(left, "cues, and bits of a content", "recalled exactly (share)")
    right.plot(100 * data["noise"], data["robust"], "o-")
    label(right, "error of static weights (%, standard deviation)", "recalled exactly (share)")
    return fig
