"""From metrics to verdicts. Pure functions: an edited bound is judged again from stored metrics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from broadsheet.errors import InputError
from broadsheet.lab.claims import Check, Claim
from broadsheet.lab.metrics import Arms, Table, finite

GOOD = ("holds", "reference", "reported")


@dataclass(frozen=True)
class Outcome:
    """What one check found: the mean over seeds, its 95 % interval where there is one, and how far inside the bound the mean
    lies (`distance`, negative outside it)."""

    metric: str
    of: str
    bound: str
    value: float
    low: float | None
    high: float | None
    distance: float
    passed: bool
    seeds_passed: int = 0
    seeds: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {name: finite(value) for name, value in self.__dict__.items()}


@dataclass(frozen=True)
class Trial:
    """A control in the system's place: what each check that names the system found then, and whether all of them were met.

    It is `unclear` where its means lie inside the bounds, and only an interval that reaches over one speaks against it, or a
    number that is not finite, which the paper's file does not answer for.
    `warnings` say why it might fail by construction; `answer` is what the paper's file says to them.
    """

    control: str
    kind: Literal["ablation", "null"]
    outcomes: tuple[Outcome, ...]
    met: bool
    unclear: bool = False
    warnings: tuple[str, ...] = ()
    answer: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "control": self.control,
            "kind": self.kind,
            "met": self.met,
            "unclear": self.unclear,
            "checks": [outcome.to_dict() for outcome in self.outcomes],
            "warnings": list(self.warnings),
            "answer": self.answer or None,
        }


@dataclass(frozen=True)
class Verdict:
    """A claim's verdict at one preset, with the trial of each control.

    `leaning` is what a provisional verdict would be with enough such seeds; `warnings` are of the claim as a whole.
    """

    claim: Claim
    verdict: str
    preset: str
    seeds: tuple[int, ...]
    outcomes: tuple[Outcome, ...] = ()
    trials: tuple[Trial, ...] = ()
    leaning: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return self.verdict in GOOD

    @property
    def met_by(self) -> tuple[str, ...]:
        """The controls that meet the claim as well."""
        return tuple(trial.control for trial in self.trials if trial.met)


def judge(claim: Claim, table: Table, preset: str, *, deterministic: bool = False) -> Verdict:
    """The verdict on a claim from the metrics of each seed and variant.

    A mean holds when its 95 % t-interval lies inside the bound, fails when it lies outside, and is mixed between. Each control
    is then tried in the system's place, in every check that names the system; a claim that one of them meets too is vacuous,
    whatever else it is, and one that it may meet is no better than mixed. A seed counts where it has each metric that the
    checks need, of the controls as well: where none has, the claim is not run, and a warning says what is missing.

    **Example:**

        >>> from broadsheet.lab import NONE_YET, at_least
        >>> options = {"checks": [at_least("accuracy", 0.9)], "ablation": "off", "null": NONE_YET, "seeds": 2}
        >>> claim = Claim("C1", "memory carries the long range", kind="paper", **options)
        >>> runs = {seed: {"system": {"accuracy": 0.95}, "off": {"accuracy": 0.5}} for seed in (100, 101)}
        >>> judge(claim, runs, "quick").verdict
        'holds'
        >>> runs = {seed: {"system": {"accuracy": 0.95}, "off": {"accuracy": 0.93}} for seed in (100, 101)}
        >>> judge(claim, runs, "quick").verdict  # without the mechanism it is as good
        'vacuous'
    """
    if not claim.judged_at(preset):
        return Verdict(claim, "not run", preset, ())
    needs = claim.needs()
    seeds = tuple(
        sorted(
            seed
            for seed, arms in table.items()
            if all(metric in arms.get(arm, {}) for arm, metrics in needs.items() for metric in metrics)
        )
    )
    if not seeds:
        return Verdict(claim, "not run", preset, (), warnings=tuple(lacking(claim, table.values())))
    outcomes, states = [], []
    for check in claim.checks:
        outcome, state = _apply(check, table, seeds, preset, deterministic)
        outcomes.append(outcome)
        states.append(state)
    trials = tuple(_try(claim, control, table, seeds, preset, deterministic) for control in claim.controls)
    verdict = "holds" if all(s == "holds" for s in states) else "fails" if "fails" in states else "mixed"
    if any(trial.met for trial in trials):
        verdict = "vacuous"
    elif verdict == "holds" and any(trial.unclear for trial in trials):
        verdict = "mixed"
    if verdict == "holds" and claim.reference:
        verdict = "reference"
    leaning: str | None = None
    warnings: tuple[str, ...] = ()
    if not deterministic:
        fewest = 2 if any(check.over == "mean" for check in claim.checks) else 1  # one seed has no interval
        if len(seeds) < max(claim.seeds, fewest):
            verdict, leaning = "provisional", verdict
        if len(seeds) > 1 and all(
            _same([_number(table, seed, arm, metric) for seed in seeds]) for arm, metrics in needs.items() for metric in metrics
        ):
            warnings = ("its metrics are the same on every seed; an experiment that is deterministic says so and runs once",)
    return Verdict(claim, verdict, preset, seeds, tuple(outcomes), trials, leaning, warnings)


def lacking(claim: Claim, runs: Iterable[Arms], *, whole: bool = False) -> list[str]:
    """A sentence for each metric that a claim needs of a variant or arm and that no run reports.

    Of an arm that no run has, only where the runs are `whole`, of all variants.
    """
    runs, missing = list(runs), []
    for arm, metrics in claim.needs().items():
        there = [arms[arm] for arms in runs if arm in arms]
        for metric in sorted(metrics):
            if (there or whole) and not any(metric in row for row in there):
                missing.append(f"{'the control ' if arm in claim.controls else ''}{arm!r} reports no {metric!r}")
    return missing


def require(claim: Claim, runs: Iterable[Arms], *, whole: bool = False) -> None:
    """Raises `InputError` where runs lack a metric that the claim needs (see `lacking`)."""
    missing = lacking(claim, runs, whole=whole)
    if missing:
        raise InputError(f"Claim {claim.id}: {missing[0]}, which its checks need; report it, or declare another control.")


def _number(table: Table, seed: int, arm: str, metric: str) -> float:
    return float(table[seed][arm][metric])


def _values(check: Check, table: Table, seeds: Sequence[int]) -> list[float]:
    values = [_number(table, seed, check.of, check.metric) for seed in seeds]
    if check.minus is not None:
        values = [value - _number(table, seed, check.minus, check.metric) for seed, value in zip(seeds, values, strict=True)]
    return values


def _state(
    check: Check, values: Sequence[float], preset: str, deterministic: bool
) -> tuple[str, tuple[float, float] | None, int]:
    """(holds, mixed or fails; the mean's interval; number of values that pass)."""
    low, high = check.bounds(preset)
    passed = [low <= value <= high for value in values]  # NaN never passes
    interval = None if deterministic else confidence_interval(values)
    if check.over == "count":
        return ("holds" if sum(passed) >= (check.count or 1) else "fails"), None, sum(passed)
    if check.over == "mean" and interval is not None:
        inside = low <= interval[0] and interval[1] <= high
        outside = interval[1] < low or interval[0] > high
        return ("holds" if inside else "fails" if outside else "mixed"), interval, sum(passed)
    if check.over == "mean":
        certain = deterministic or all(math.isfinite(value) for value in values)
        return ("fails" if not all(passed) else "holds" if certain else "mixed"), None, sum(passed)
    return ("holds" if all(passed) else "mixed" if any(passed) else "fails"), interval, sum(passed)


def _apply(check: Check, table: Table, seeds: Sequence[int], preset: str, deterministic: bool) -> tuple[Outcome, str]:
    values = _values(check, table, seeds)
    state, interval, passed = _state(check, values, preset, deterministic)
    mean = sum(values) / len(values)
    low, high = interval or (None, None)
    return (
        Outcome(
            metric=check.metric,
            of=check.of if check.minus is None else f"{check.of} − {check.minus}",
            bound=check.text(preset),
            value=mean,
            low=low,
            high=high,
            distance=check.distance(mean, preset),
            passed=state == "holds",
            seeds_passed=passed,
            seeds=len(values),
        ),
        state,
    )


def _try(claim: Claim, control: str, table: Table, seeds: Sequence[int], preset: str, deterministic: bool) -> Trial:
    checks = claim.tried_on(control)
    found = [_apply(check, table, seeds, preset, deterministic) for check in checks]
    met = all(state == "holds" for _, state in found)
    answer = claim.answers_to.get(control, "")
    near = all(
        state == "holds"
        or (state == "mixed" and check.over == "mean" and outcome.distance >= 0)
        or not (math.isfinite(outcome.value) or answer)  # what is no number meets no bound, and breaks none
        for check, (outcome, state) in zip(checks, found, strict=True)
    )
    return Trial(
        control=control,
        kind="ablation" if control in claim.ablations else "null",
        outcomes=tuple(outcome for outcome, _ in found),
        met=met,
        unclear=near and not met,
        warnings=tuple(_warnings(claim, control, table, seeds, preset, deterministic)),
        answer=answer,
    )


def _warnings(claim: Claim, control: str, table: Table, seeds: Sequence[int], preset: str, deterministic: bool) -> list[str]:
    """Why a control might fail by construction: it is not finite, is impossible, does not vary, or is worse than chance."""
    said = []
    for check in claim.tried:
        name = check.metric
        values = [_number(table, seed, control, name) for seed in seeds]
        if not all(math.isfinite(value) for value in values):
            said.append(f"{name} is not finite on {sum(not math.isfinite(v) for v in values)} of {len(values)} seeds")
            continue
        if check.within is not None and not all(check.within[0] <= value <= check.within[1] for value in values):
            said.append(f"{name} leaves its range, {check.within[0]:g} to {check.within[1]:g}")
        mine = [_number(table, seed, claim.about, name) for seed in seeds]
        if not deterministic and len(seeds) > 1 and _same(values) and not _same(mine):
            said.append(f"{name} is {values[0]:g} on every seed")
        mean = statistics.fmean(values)
        if check.chance is not None and _worse(check, check.chance, mean, claim.about, preset):
            said.append(f"{name}, {mean:.4g}, is worse than chance, {check.chance:g}")
    return list(dict.fromkeys(said))


def _worse(check: Check, chance: float, value: float, about: str, preset: str) -> bool:
    """Whether a control's value lies further from the bound than chance does, on its outer side."""
    if check.minus is None:
        return check.distance(value, preset) < min(0.0, check.distance(chance, preset))
    larger_helps = (check.sense == "at_least") == (check.of == about)
    return check.sense != "equals" and (value < chance if larger_helps else value > chance)


def _same(values: Sequence[float]) -> bool:
    return all(value == values[0] for value in values)


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
