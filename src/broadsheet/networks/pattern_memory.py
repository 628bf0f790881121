"""A dense memory on patterns of a user's own: reading them, recall from corrupted cues, and capacity beside theory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int8

from broadsheet.errors import DataError, InputError
from broadsheet.files import existing
from broadsheet.networks.dense_memory import DenseHebbian, archetypes, corrupted
from broadsheet.networks.memory_baselines import PairwiseBank, nearest, overlaps
from broadsheet.networks.replica import alpha_c, check_order, rs_solve
from broadsheet.numerics import generator
from broadsheet.numerics.number_tables import read_numbers

LARGEST_RANDOM = 4_000_000
"""Numbers of the random patterns that a measured capacity takes at most."""

LARGEST_BANK = 20_000_000
"""Couplings of the pairwise networks of equal size that are tried at most."""

PAIRWISE_CAPACITY = 0.138
"""Patterns a neuron, of pairwise networks without thermal noise (Amit, Gutfreund and Sompolinsky, 1985)."""


class Recall(NamedTuple):
    """Of one kind of memory and one share of flipped entries: mean overlap with the pattern, and share recalled exactly."""

    memory: str
    flipped: float
    overlap: float
    exact: float


class Capacity(NamedTuple):
    """Load of a memory beside theory for random patterns. `most` is the largest number of patterns that theory allows, and
    `predicted` the overlap it gives at this load (NaN where there is no theory); `measured` are overlaps of as many random
    patterns as `counts`, begun on the pattern, none where they would be too many."""

    load: float
    limit: float
    most: float
    predicted: float
    counts: list[int]
    measured: list[float]
    theory: list[float]


def read_patterns(path: str | Path, neurons: int | None = None) -> Int8[np.ndarray, "patterns neurons"]:
    """Patterns of -1 and 1, one a row, from a .csv (a header is skipped), .npy or .npz of these or of 0 and 1.

    **Raises:** `DataError`, by row, for other values, rows of different lengths, none at all, one neuron, or not `neurons`.
    """
    path = existing(path)
    values = read_numbers(path).values
    if not values.size:
        raise DataError(f"{path} holds no patterns.")
    if neurons is not None and values.shape[1] != neurons:
        raise DataError(f"{path} has {values.shape[1]} numbers in a row; {neurons} are wanted, one a neuron.")
    if values.shape[1] < 2:
        raise DataError(f"{path} has one neuron; a memory couples two or more.")
    zeros = bool(np.isin(values, (0, 1)).all())
    if not zeros and not np.isin(values, (-1, 1)).all():
        allowed = (0, 1) if not (values < 0).any() else (-1, 1)
        row, column = np.argwhere(~np.isin(values, allowed))[0]
        raise DataError(
            f"{path}, row {row + 1}: number {column + 1} is {values[row, column]:g}; patterns of -1 and 1, or of 0 and 1, are "
            "wanted."
        )
    return (2 * values - 1 if zeros else values).astype(np.int8)


def check_patterns(path: str | Path, patterns: np.ndarray, order: int) -> None:
    """Raises where a memory of this order would not hold these patterns apart: fewer neurons than the order, or a row twice."""
    check_order(order, least=2)
    if patterns.shape[1] < order:
        raise InputError(f"{path} has {patterns.shape[1]} neurons, which cannot couple in groups of {order}; lower --order.")
    first: dict[bytes, int] = {}
    for row, pattern in enumerate(patterns):
        before = first.setdefault(pattern.tobytes(), row)
        if before != row:
            raise DataError(f"{path}: rows {before + 1} and {row + 1} are the same pattern; store it once.")


def likeness(patterns: np.ndarray, most: int = 2000) -> dict[str, float]:
    """How far patterns are from independent fair coins: mean entry, and the largest overlap of two of the first `most` rows."""
    some = patterns[:most].astype(np.float32)
    gram = np.abs(some @ some.T) / some.shape[1]
    np.fill_diagonal(gram, 0)
    return {"mean": float(patterns.mean()), "largest_overlap": float(gram.max())}


def recall_table(
    patterns: np.ndarray, order: int, *, flipped: Sequence[float], cues: int = 100, temperature: float = 0.0, sweeps: int = 50,
    key: Any = 0,
) -> list[Recall]:  # fmt: skip
    """Recall of up to `cues` patterns with shares of their entries flipped: by the dense memory, by a pairwise network on the
    same neurons, by pairwise networks of as many numbers in all (where not too many), and by search for the nearest."""
    rng = generator(key)
    wanted = patterns[rng.permutation(len(patterns))[:cues]]
    networks: dict[str, DenseHebbian | PairwiseBank] = {
        f"dense, order {order}": DenseHebbian(patterns, order, temperature=temperature),
        "pairwise, same neurons": DenseHebbian(patterns, 2, temperature=temperature),
    }
    if order > 2 and len(patterns) * patterns.shape[1] ** 2 <= LARGEST_BANK:
        networks["pairwise, same size"] = PairwiseBank(patterns, order, sweeps=sweeps)
    rows = []
    for share in flipped:
        shown = corrupted(rng, wanted, 1 - 2 * share).astype(float)
        for name, memory in networks.items():
            if isinstance(memory, PairwiseBank):
                found = memory.recall(shown)
            else:
                found = np.asarray(memory.glauber(int(rng.integers(2**31)), shown, sweeps))
            rows.append(_recall(name, share, found, wanted))
        rows.append(_recall("nearest stored", share, nearest(patterns, shown), wanted))
    return rows


def _recall(memory: str, share: float, found: np.ndarray, wanted: np.ndarray) -> Recall:
    m = overlaps(found, wanted)
    return Recall(memory, float(share), float(m.mean()), float(np.mean(m == 1)))


def measure_capacity(
    count: int, neurons: int, order: int, *, temperature: float = 0.0,
    points: Sequence[float] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5), cues: int = 32, sweeps: int = 50, key: Any = 0,
) -> Capacity:  # fmt: skip
    """The load of `count` patterns beside the largest one of theory, and the overlap of random patterns at shares of that."""
    rng, cells = generator(key), neurons ** (order - 1)
    if order > 2:
        limit, predicted = alpha_c(order, 0.0, temperature), rs_solve(order, count / cells, 0.0, temperature).m
    else:
        limit, predicted = (math.nan if temperature else PAIRWISE_CAPACITY), math.nan
    counts: list[int] = []
    if limit > 0 and max(points) * limit * cells * neurons <= LARGEST_RANDOM:
        counts = sorted({max(1, round(share * limit * cells)) for share in points})
    measured = []
    for each in counts:
        xi = archetypes(rng, each, neurons)
        padded = np.zeros((counts[-1], neurons))  # one program for all counts
        padded[:each] = xi
        start = xi[np.arange(cues) % each].astype(float)
        net = DenseHebbian(padded, order, temperature=temperature)
        measured.append(float(overlaps(net.glauber(int(rng.integers(2**31)), start, sweeps), start).mean()))
    theory = [rs_solve(order, each / cells, 0.0, temperature).m if order > 2 else math.nan for each in counts]
    return Capacity(count / cells, float(limit), float(limit * cells), float(predicted), counts, measured, theory)


def answers(
    patterns: np.ndarray, cues: np.ndarray, order: int, *, temperature: float = 0.0, sweeps: int = 50, key: Any = 0
) -> tuple[Float[np.ndarray, "cues neurons"], np.ndarray, np.ndarray]:
    """What the memory makes of each cue, the stored pattern nearest to that, and the overlap with it."""
    net = DenseHebbian(patterns, order, temperature=temperature)
    found = np.asarray(net.glauber(int(generator(key).integers(2**31)), cues.astype(float), sweeps))
    scores = found @ patterns.T.astype(float) / patterns.shape[1]
    best = np.argmax(scores, axis=1)
    return found, best, scores[np.arange(len(best)), best]
