"""Each check of a claim as a strip: the system above what was tried in its place, with the bound and how far each stands from
it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from broadsheet.lab.claims import SYSTEM, Check, Claim
from broadsheet.lab.ledger import Recorded
from broadsheet.lab.verdicts import Outcome

ROLES = {"ablation": "mechanism off", "null": "trivial explanation"}

WRONG = "wrong on purpose"
"""What an ablation is in a check of our own code."""

LOGARITHMIC = 100.0
"""From this ratio of the largest to the smallest value on, a strip of positive numbers has a logarithmic scale."""


@dataclass(frozen=True)
class Row:
    """The system, or what was tried in its place, in one check.

    - `said`: what was measured, `system − augmentation` for a difference; `role`: what that is, in words.
    - `stands`: how far inside or outside the bound, in words; `remark`: what it means for the claim as a whole.
    - `spot`, `span`: where value and interval lie on the strip, in percent; None where there is none.
    """

    kind: str
    said: str
    role: str
    value: float
    low: float | None
    high: float | None
    inside: bool
    stands: str
    remark: str
    spot: float | None
    span: tuple[float, float] | None


@dataclass(frozen=True)
class Strip:
    """One check: what is wanted of which metric, and everything that it was tried on.

    - `of`: what the check looks at where that is not what the claim is about; no control is tried on it.
    - `difference`: what is subtracted, seed by seed.
    - `wanted`: the bound, in words; `shaded`: where it is met, and `edges`: its ends, in percent of the strip.
    """

    metric: str
    wanted: str
    of: str
    difference: str
    logarithmic: bool
    shaded: tuple[float, float]
    edges: tuple[float, ...]
    rows: tuple[Row, ...]


def _role(claim: Claim, arm: str, kind: str) -> str:
    if kind == "ablation" and claim.kind == "check":
        return WRONG
    if kind == "ablation" and claim.about != SYSTEM:
        return "in its place"
    mine = "our code" if claim.kind == "check" else "mechanism on"
    return ROLES.get(kind) or (mine if arm == SYSTEM else "what it is about")


def strips(state: Recorded) -> Iterable[Strip]:
    """One for each check, in the claim's order."""
    claim, preset = state.claim, state.preset or ""
    position = 0
    for check, outcome in zip(claim.checks, state.outcomes, strict=False):
        tried = check.mentions(claim.about)
        found: list[tuple[str, str, Check, Outcome, str]] = []
        kind = (
            SYSTEM if tried else "ablation" if check.of in claim.ablations else "null" if check.of in claim.nulls else "other"
        )
        found.append((kind, _role(claim, check.of, kind), check, outcome, ""))
        for trial in state.trials if tried else ():
            remark = "meets the whole claim too" if trial.met else "may meet the claim too" if trial.unclear else ""
            changed = check.with_control(trial.control, claim.about)
            found.append((trial.kind, _role(claim, trial.control, trial.kind), changed, trial.outcomes[position], remark))
        position += tried
        yield _strip(claim, check, preset, found)


def _strip(claim: Claim, check: Check, preset: str, found: Sequence[tuple[str, str, Check, Outcome, str]]) -> Strip:
    low, high = check.bounds(preset)
    edges = [edge for edge in (low, high) if math.isfinite(edge)]
    shown = [*edges, *(outcome.value for _, _, _, outcome, _ in found)]
    ends = [end for _, _, _, outcome, _ in found for end in (outcome.low, outcome.high) if end is not None]
    place, logarithmic = _scale(shown, ends)
    rows = [
        Row(
            kind=kind, said=outcome.of, role=role, value=outcome.value, low=outcome.low, high=outcome.high,
            inside=outcome.passed, stands=_stands(used, outcome), remark=remark,
            spot=place(outcome.value) if math.isfinite(outcome.value) else None,
            span=None if outcome.low is None or outcome.high is None else (place(outcome.low), place(outcome.high)),
        )
        for kind, role, used, outcome, remark in found
    ]  # fmt: skip
    return Strip(
        metric=check.metric,
        wanted=_wanted(check, preset, found[0][3].seeds),
        of="" if check.mentions(claim.about) else check.of,
        difference=check.minus or "",
        logarithmic=logarithmic,
        shaded=(place(low) if math.isfinite(low) else 0.0, place(high) if math.isfinite(high) else 100.0),
        edges=tuple(dict.fromkeys(place(edge) for edge in edges)),
        rows=tuple(rows),
    )


def _wanted(check: Check, preset: str, seeds: int) -> str:
    """The bound, and of what: "≥ 0.95 on each of 3 seeds"."""
    wanted = bound(check, preset)
    if seeds < 2:
        return wanted
    how = {
        "each": f"on each of {seeds} seeds",
        "mean": f"for the mean over {seeds} seeds, with its 95 % interval",
        "count": f"on at least {check.count} of {seeds} seeds",
    }
    return f"{wanted} {how[check.over or 'each']}"


def bound(check: Check, preset: str) -> str:
    """The bound alone: "≥ 0.95"."""
    return dataclasses.replace(check, over="each", count=None).text(preset)


def _stands(check: Check, outcome: Outcome) -> str:
    """How far an outcome stands from the bound, in words."""
    if not math.isfinite(outcome.distance):
        return "no finite number: meets no bound"
    if check.of == check.minus:
        return f"no difference to itself: {_far(outcome)}"
    if outcome.passed and outcome.distance < 0:
        return f"inside on {outcome.seeds_passed} of {outcome.seeds} seeds"
    if not outcome.passed and outcome.distance >= 0:
        if check.over == "mean":
            return (
                f"{_far(outcome)}, but its interval is not" if outcome.low is not None else f"{_far(outcome)}, on too few seeds"
            )
        return f"{_far(outcome)} on average, but only {outcome.seeds_passed} of {outcome.seeds} seeds are"
    if not outcome.passed and outcome.seeds_passed and check.over != "mean":
        return f"{_far(outcome)} on average; {outcome.seeds_passed} of {outcome.seeds} seeds are inside"
    return _far(outcome)


def _far(outcome: Outcome) -> str:
    if outcome.distance == 0:
        return "on the bound"
    return f"{'inside' if outcome.distance > 0 else 'outside'} by {abs(outcome.distance):.2g}"


def _scale(values: Sequence[float], ends: Sequence[float]) -> tuple[Callable[[float], float], bool]:
    """Where a value lies on a strip, in percent, with a margin at both ends; and whether the scale is logarithmic.

    The ends of intervals widen the strip by half of what the values take at most, at either side; it cuts what is longer.
    """
    known = [value for value in values if math.isfinite(value)]
    positive = [value for value in known if value > 0]
    logarithmic = bool(positive) and min(known) >= 0 and max(positive) >= LOGARITHMIC * min(positive)
    least = min(positive) / 10 if logarithmic and min(known) == 0 else min(positive, default=0.0)

    def at(value: float) -> float:
        return math.log10(max(value, least)) if logarithmic else value

    low, high = (at(min(known)), at(max(known))) if known else (0.0, 0.0)
    if not logarithmic:
        reach = (high - low) / 2
        low, high = max(min([low, *ends]), low - reach), min(max([high, *ends]), high + reach)

    def place(value: float) -> float:
        share = 0.5 if high <= low else (at(value) - low) / (high - low)
        return round(4 + 92 * min(1.0, max(0.0, share)), 2)

    return place, logarithmic
