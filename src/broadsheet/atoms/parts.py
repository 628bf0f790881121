"""Compression of sets too large for one choice: part by part, then among what was chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from broadsheet.atoms.compression import Method, Selection, select
from broadsheet.atoms.environments import BANDWIDTH, EnvironmentSet
from broadsheet.errors import InputError


def select_in_parts(
    environments: EnvironmentSet,
    size: int,
    method: Method = "cover",
    *,
    part: int = 20_000,
    h: float = BANDWIDTH,
    seed: int = 0,
    mapped: Callable[[Callable, Iterable[Any]], Iterable[Any]] = map,
    report: Callable[[float], None] | None = None,
) -> Selection:
    """`size` structures out of sets of any size: structures are dealt into parts of about `part` environments, as many as would
    be needed are chosen in each, and again among those until one choice is left.

    A choice among n environments costs n times those chosen; in parts the memory of a choice is bounded, and parts run wherever
    `mapped` puts them (a Dask client's map, say).

    **Raises:** `InputError` where there are fewer structures than `size`, or a part could not hold twice as many.
    """
    count = environments.structures
    if not 1 <= size <= count:
        raise InputError(f"{size} of {count} structures cannot be chosen.")
    left, round_ = np.arange(count), 0
    while True:
        here = environments.of(left)
        parts = -(-len(here.X) // part)
        parts = min(parts, len(left) // (2 * size))
        if parts <= 1:
            found = select(here, size, method, h=h, seed=seed, report=report)
            return Selection(left[found.indices], found.novelty)
        dealt = np.array_split(np.random.default_rng(seed + round_).permutation(left), parts)
        tasks = [(environments.of(each), size, method, h, seed) for each in dealt]
        kept = []
        for each, chosen in zip(dealt, mapped(_chosen, tasks), strict=True):
            kept.append(each[chosen])
            if report is not None:
                report(len(kept) / (2 * parts))
        left, round_ = np.sort(np.concatenate(kept)), round_ + 1


def _chosen(task: tuple[EnvironmentSet, int, Method, float, int]) -> np.ndarray:
    environments, size, method, h, seed = task
    return select(environments, min(size, environments.structures), method, h=h, seed=seed).indices
