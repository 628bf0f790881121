"""Claims and their checks: what is asserted, on which metric, against which control."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from broadsheet.errors import InputError

SYSTEM = "system"
"""Name of the variant, or arm, that has the paper's mechanism."""

Bound = float | Mapping[str, float]


@dataclass(frozen=True)
class Check:
    """A bound on one scalar metric; made by `at_least`, `at_most` and `equals`.

    - `of`: the variant or arm it looks at, by default the system.
    - `minus`: subtract the metric of this variant or arm, seed by seed; such a check contains its control.
    - `over`: `"each"` seed must meet the bound; the `"mean"` must, with its 95 % interval; or `"count"`: at least
      `count` seeds must. By default each seed, and for a paired difference (`minus`) the mean.
    - `value`: a number, or one per preset; at a preset without one the claim is not judged.
    """

    metric: str
    sense: Literal["at_least", "at_most", "equals"]
    value: Bound
    of: str = SYSTEM
    minus: str | None = None
    over: Literal["each", "mean", "count", ""] = ""
    count: int | None = None
    tol: float = 0.0

    def __post_init__(self) -> None:
        if not self.over:
            object.__setattr__(self, "over", "mean" if self.minus else "each")
        if self.over == "count" and (self.count is None or self.count < 1):
            raise InputError(f"The check of {self.metric!r} counts seeds: say how many (count=…).")
        if self.over not in ("each", "mean", "count"):
            raise InputError(f"The check of {self.metric!r} has over={self.over!r}; each, mean or count is wanted.")

    def value_at(self, preset: str) -> float | None:
        """The number that bounds the metric at a preset, or None where there is none; nothing is judged at "smoke"."""
        if isinstance(self.value, Mapping):
            return self.value.get(preset)
        return None if preset == "smoke" else self.value

    def bounds(self, preset: str) -> tuple[float, float]:
        """The closed interval in which the metric has to lie."""
        value = self.value_at(preset)
        if value is None:
            raise InputError(f"The check of {self.metric!r} has no bound at the preset {preset!r}.")
        low = -math.inf if self.sense == "at_most" else value - self.tol
        high = math.inf if self.sense == "at_least" else value + self.tol
        return low, high

    def text(self, preset: str) -> str:
        """The bound as a person reads it: `≥ 0.95`, `≤ 1e-05`, `= 10 ± 0.5`."""
        value = self.value_at(preset)
        if value is None:
            return "no bound"
        sign = {"at_least": "≥", "at_most": "≤", "equals": "="}[self.sense]
        spread = f" ± {self.tol:g}" if self.sense == "equals" and self.tol else ""
        how = {"each": "", "mean": " (mean)", "count": f" (in {self.count} seeds)"}[self.over or "each"]
        return f"{sign} {value:g}{spread}{how}"

    def to_dict(self) -> dict[str, Any]:
        data = {k: v for k, v in dataclasses.asdict(self).items() if v != _DEFAULTS.get(k, ...)}
        if self.over == ("mean" if self.minus else "each"):
            del data["over"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Check:
        return cls(**data)


_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Check) if f.default is not dataclasses.MISSING}


def at_least(metric: str, value: Bound, **options: Any) -> Check:
    """The metric is `value` or more. Options: `of`, `minus`, `over`, `count` (see `Check`)."""
    return Check(metric, "at_least", value, **options)


def at_most(metric: str, value: Bound, **options: Any) -> Check:
    """The metric is `value` or less. Options: `of`, `minus`, `over`, `count` (see `Check`)."""
    return Check(metric, "at_most", value, **options)


def equals(metric: str, value: Bound, tol: float = 0.0, **options: Any) -> Check:
    """The metric is within `tol` of `value`. Options: `of`, `minus`, `over`, `count` (see `Check`)."""
    return Check(metric, "equals", value, tol=tol, **options)


@dataclass(frozen=True)
class Claim:
    """Something asserted, and how it is tested; it holds when all checks do, and the control does not meet it.

    - `kind`: `"paper"`, something the paper asserts (`where` in it), or `"check"`, our own correctness.
    - `control`: the variants or arms with the mechanism switched off; the checks of the system are tried on each. By
      default those that the checks name in `of`. A check with `minus` contains its control.
    - `seeds`: how many seeds a verdict takes; fewer make it provisional.
    - `reference`: what an independent result is compared with (a closed form, a library), for claims of kind "check".
    - `reason`: why it fails or is mixed, where it does.
    - `published`: the paper's own figure for it, in words, where it gives one.
    - `untested`: why it cannot be tested here; such a claim has no checks.
    """

    id: str
    statement: str
    kind: Literal["paper", "check"]
    checks: Sequence[Check] = ()
    where: str = ""
    control: str | Sequence[str] | None = None
    seeds: int = 3
    reference: str = ""
    reason: str = ""
    untested: str = ""
    published: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "checks", tuple(self.checks))
        if self.kind not in ("paper", "check"):
            raise InputError(f"Claim {self.id}: kind is {self.kind!r}; 'paper' or 'check' is wanted.")
        if bool(self.checks) == bool(self.untested):
            raise InputError(f"Claim {self.id}: give checks, or say with untested=… why there are none.")
        if self.kind == "paper" and self.checks and not self.contains_control:
            raise InputError(f"Claim {self.id} has no control: name a variant with control=…, of=… or minus=….")

    @property
    def controls(self) -> tuple[str, ...]:
        """The variants or arms on which the system's checks must not all be met."""
        if self.control is not None:
            return (self.control,) if isinstance(self.control, str) else tuple(self.control)
        return tuple(dict.fromkeys(check.of for check in self.checks if check.of != SYSTEM))

    @property
    def contains_control(self) -> bool:
        return bool(self.controls) or any(check.minus for check in self.checks)

    def judged_at(self, preset: str) -> bool:
        """Whether each check has a bound at this preset."""
        return bool(self.checks) and all(check.value_at(preset) is not None for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        data = dataclasses.asdict(self)
        data["checks"] = [check.to_dict() for check in self.checks]
        if isinstance(self.control, Sequence) and not isinstance(self.control, str):
            data["control"] = list(self.control)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Claim:
        return cls(**{**data, "checks": tuple(Check.from_dict(check) for check in data["checks"])})
