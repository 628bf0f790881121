"""How long something takes: repeated, one way after the other where several are compared, with nothing beside it."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from broadsheet.errors import InputError
from broadsheet.lab.paper import Log


@dataclass(frozen=True)
class Timing:
    """Times of one way.

    **Fields:** `seconds`: of each repeat, in order, so that those of ways that were compared belong together one by one;
    `result`: what the last repeat returned.
    """

    seconds: tuple[float, ...]
    result: Any = None

    @property
    def minimum(self) -> float:
        """The shortest, s: what other work on the machine disturbed least."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The median, s."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The longest less the shortest, over the median."""
        return (max(self.seconds) - self.minimum) / self.median


def measure(function: Callable[[], Any], *, repeats: int, warm_up: int = 1, log: Log | None = None) -> Timing:
    """Times of a function of no arguments; see `compare`."""
    return compare({"": function}, repeats=repeats, warm_up=warm_up, log=log)[""]


def compare(
    ways: Mapping[str, Callable[[], Any]],
    *,
    repeats: int,
    warm_up: int = 1,
    log: Log | None = None,
    report: Callable[[float], Any] | None = None,
) -> dict[str, Timing]:
    """Times of several functions of no arguments, A B A B, so that a machine that grows slower does so for all of them.

    **Arguments:** `repeats`: times that each is measured; `warm_up`: calls of each before, which compile and are not counted;
    `log`: while times are measured the jobs beside this one stand still; `report`: gets the share that is done, from 0 to 1.

    A call ends when JAX's arrays in what it returns are there. Raises `InputError` where nothing would be measured.
    """
    if repeats < 1 or warm_up < 0:
        raise InputError(f"Times need at least one repeat and no negative warm-up, not {repeats} and {warm_up}.")
    for _ in range(warm_up):
        for way in ways.values():
            _finished(way())
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Any] = {}
    with log.alone() if log is not None else contextlib.nullcontext():
        for repeat in range(repeats):
            for name, way in ways.items():
                began = time.perf_counter()
                results[name] = _finished(way())
                seconds[name].append(time.perf_counter() - began)
            if report is not None:
                report((repeat + 1) / repeats)
    return {name: Timing(tuple(taken), results[name]) for name, taken in seconds.items()}


def _finished(result: Any) -> Any:
    """Waits for JAX's arrays; where nobody has imported JAX, there are none."""
    jax = sys.modules.get("jax")
    return result if jax is None else jax.block_until_ready(result)
