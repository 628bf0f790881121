"""From metrics to verdicts. Pure functions: an edited bound is judged again from stored metrics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broadsheet.lab.claims import SYSTEM, Check, Claim

Metrics = Mapping[str, float]
Table = Mapping[int, Mapping[str, Metrics]]
"""seed -> variant or arm -> metrics"""

GOOD = ("holds", "reference", "reported")
NEEDS_REASON = ("fails", "mixed", "vacuous", "provisional")


@dataclass(frozen=True)
class Outcome:
    """What one check found: the mean over seeds, its 95 % interval where there is one, and the control's value."""

    metric: str
    of: str
    bound: str
    value: float | None
    low: float | None
    high: float | None
    control: float | None
    passed: bool | None
    seeds_passed: int = 0
    seeds: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {k: _finite(v) for k, v in self.__dict__.items()}


@dataclass(frozen=True)
class Verdict:
    """A claim's verdict at one preset. `leaning` is what a provisional one would be with enough such seeds."""

    claim: Claim
    verdict: str
    preset: str
    seeds: tuple[int, ...]
    outcomes: tuple[Outcome, ...] = field(default_factory=tuple)
    leaning: str | None = None

    @property
    def good(self) -> bool:
        return self.verdict in GOOD


def judge(claim: Claim, table: Table, preset: str, *, deterministic: bool = False) -> Verdict:
    """The verdict on a claim from the metrics of each seed and variant.

    A mean holds when its 95 % t-interval lies inside the bound, fails when it lies outside, and is mixed between. A claim
    that the control meets too is vacuous, whatever else it is.

    **Example:**

        >>> from broadsheet.lab import at_least, at_most
        >>> checks = [at_least("accuracy", 0.9), at_most("accuracy", 0.6, of="off")]
        >>> claim = Claim("C1", "memory carries the long range", kind="check", checks=checks, seeds=2)
        >>> runs = {seed: {"system": {"accuracy": 0.95}, "off": {"accuracy": 0.5}} for seed in (100, 101)}
        >>> judge(claim, runs, "quick").verdict
        'holds'
        >>> runs = {seed: {"system": {"accuracy": 0.95}, "off": {"accuracy": 0.93}} for seed in (100, 101)}
        >>> judge(claim, runs, "quick").verdict  # without the mechanism it is as good
        'vacuous'
    """
    seeds = tuple(sorted(seed for seed in table if _complete(claim, table[seed])))
    if not seeds or not claim.judged_at(preset):
        return Verdict(claim, "not run", preset, ())
    outcomes, states = [], []
    for check in claim.checks:
        outcome, state = _apply(check, table, seeds, preset, claim, deterministic)
        outcomes.append(outcome)
        states.append(state)
    verdict = "holds" if all(s == "holds" for s in states) else "fails" if "fails" in states else "mixed"
    if any(_met_by_control(claim, control, table, seeds, preset, deterministic) for control in claim.controls):
        verdict = "vacuous"
    if verdict == "holds" and claim.reference:
        verdict = "reference"
    leaning = None
    if len(seeds) < claim.seeds and not deterministic:
        verdict, leaning = "provisional", verdict
    return Verdict(claim, verdict, preset, seeds, tuple(outcomes), leaning)


def _complete(claim: Claim, arms: Mapping[str, Metrics]) -> bool:
    """Whether a seed has every number that the claim's checks look at."""

    def has(arm: str, metric: str) -> bool:
        return arm in arms and metric in arms[arm]

    return all(
        has(check.of, check.metric) and (check.minus is None or has(check.minus, check.metric)) for check in claim.checks
    ) and all(control in arms for control in claim.controls)


def _values(check: Check, table: Table, seeds: Sequence[int], arm: str | None = None) -> list[float]:
    def number(seed: int, name: str) -> float:
        value = table[seed].get(name, {}).get(check.metric, math.nan)
        return math.nan if value is None else float(value)

    values = [number(seed, arm or check.of) for seed in seeds]
    if check.minus is not None:
        values = [value - number(seed, check.minus) for seed, value in zip(seeds, values, strict=True)]
    return values


def _state(
    check: Check, values: Sequence[float], preset: str, deterministic: bool
) -> tuple[str, float | None, float | None, int]:
    """(holds, mixed or fails; low and high end of the interval; number of values that pass)."""
    low, high = check.bounds(preset)
    passed = [low <= value <= high for value in values]  # NaN never passes
    if check.over == "count":
        return ("holds" if sum(passed) >= (check.count or 1) else "fails"), None, None, sum(passed)
    if check.over == "mean":
        interval = confidence_interval(values)
        if interval is None:
            return ("holds" if all(passed) else "fails"), None, None, sum(passed)
        inside = low <= interval[0] and interval[1] <= high
        outside = interval[1] < low or interval[0] > high or any(math.isnan(v) for v in values)
        return ("holds" if inside else "fails" if outside else "mixed"), *interval, sum(passed)
    interval = None if deterministic else confidence_interval(values)
    state = "holds" if all(passed) else "mixed" if any(passed) else "fails"
    return state, *(interval or (None, None)), sum(passed)


def _apply(
    check: Check, table: Table, seeds: Sequence[int], preset: str, claim: Claim, deterministic: bool
) -> tuple[Outcome, str]:
    values = _values(check, table, seeds)
    state, low, high, passed = _state(check, values, preset, deterministic)
    control = None
    if check.minus is not None:
        control = statistics.fmean(_values(Check(check.metric, check.sense, check.value, of=check.minus), table, seeds))
    elif check.of == SYSTEM and claim.controls:
        control = statistics.fmean(_values(check, table, seeds, claim.controls[0]))
    return (
        Outcome(
            metric=check.metric,
            of=check.of if check.minus is None else f"{check.of} − {check.minus}",
            bound=check.text(preset),
            value=statistics.fmean(values),
            low=low,
            high=high,
            control=control,
            passed=state == "holds",
            seeds_passed=passed,
            seeds=len(values),
        ),
        state,
    )


def _met_by_control(claim: Claim, control: str, table: Table, seeds: Sequence[int], preset: str, deterministic: bool) -> bool:
    """Whether the control meets every check of the system; metrics that only the system has are not met by it."""
    mine = [check for check in claim.checks if check.of == SYSTEM]
    return bool(mine) and all(
        _state(check, _values(check, table, seeds, control), preset, deterministic)[0] == "holds" for check in mine
    )


def confidence_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % t-interval of the mean; None for fewer than two values or where one is not finite."""
    if len(values) < 2 or not all(math.isfinite(value) for value in values):
        return None
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    half = t_quantile(len(values) - 1) * spread / math.sqrt(len(values))
    return mean - half, mean + half


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t distribution, exact to 0.1 % (SciPy would cost half a second of start-up)."""
    exact = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 6: 2.4469, 7: 2.3646, 8: 2.3060, 9: 2.2622}
    if freedom in exact:
        return exact[freedom]
    z = 1.959964
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
