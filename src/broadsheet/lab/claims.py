"""Claims and their checks: what is asserted, on which metric, against which ablations and null models."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from broadsheet.errors import InputError

SYSTEM = "system"
"""Name of the variant, or arm, that has the paper's mechanism."""

NONE_YET = "none yet"
"""In place of a claim's null model where nobody has built one so far; such claims are counted and shown."""

Bound = float | Mapping[str, float]


@dataclass(frozen=True)
class Check:
    """A bound on one scalar metric; made by `at_least`, `at_most` and `equals`.

    - `of`: the variant or arm it looks at, by default the system.
    - `minus`: subtract the metric of this variant or arm, seed by seed.
    - `over`: `"each"` seed must meet the bound; the `"mean"` must, with its 95 % interval; or `"count"`: at least
      `count` seeds must. By default each seed, and for a paired difference (`minus`) the mean.
    - `value`: a number, or one per preset; at a preset without one the claim is not judged (see `Claim.judged_at`).
    - `within`: the smallest and the largest value that the metric can have; a control outside it is warned of.
    - `chance`: what a random or trivial system scores; a control that is worse is warned of.
    """

    metric: str
    sense: Literal["at_least", "at_most", "equals"]
    value: Bound
    of: str = SYSTEM
    minus: str | None = None
    over: Literal["each", "mean", "count", ""] = ""
    count: int | None = None
    tol: float = 0.0
    within: tuple[float, float] | None = None
    chance: float | None = None

    def __post_init__(self) -> None:
        if not self.over:
            object.__setattr__(self, "over", "mean" if self.minus else "each")
        if self.over == "count" and (self.count is None or self.count < 1):
            raise InputError(f"The check of {self.metric!r} counts seeds: say how many (count=…).")
        if self.over not in ("each", "mean", "count"):
            raise InputError(f"The check of {self.metric!r} has over={self.over!r}; each, mean or count is wanted.")
        if self.within is not None:
            low, high = (float(end) for end in self.within)
            if not low < high:
                raise InputError(f"The check of {self.metric!r} has within=({low:g}, {high:g}); the smaller value comes first.")
            object.__setattr__(self, "within", (low, high))

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

    def distance(self, value: float, preset: str) -> float:
        """How far inside the bound a value lies; negative outside it, by how much."""
        low, high = self.bounds(preset)
        return min(value - low, high - value)

    def text(self, preset: str) -> str:
        """The bound as a person reads it: `≥ 0.95`, `≤ 1e-05`, `= 10 ± 0.5`."""
        value = self.value_at(preset)
        if value is None:
            return "no bound"
        sign = {"at_least": "≥", "at_most": "≤", "equals": "="}[self.sense]
        spread = f" ± {self.tol:g}" if self.sense == "equals" and self.tol else ""
        how = {"each": "", "mean": " (mean)", "count": f" (in {self.count} seeds)"}[self.over or "each"]
        return f"{sign} {value:g}{spread}{how}"

    def mentions(self, arm: str) -> bool:
        """Whether it compares anything with this variant or arm."""
        return arm in (self.of, self.minus)

    def with_control(self, control: str, arm: str = SYSTEM) -> Check:
        """The check with a control in the place of `arm`, wherever it names it; where the control is what is subtracted, that
        is `control - control`, which is zero."""
        swap = {arm: control}
        return dataclasses.replace(
            self, of=swap.get(self.of, self.of), minus=None if self.minus is None else swap.get(self.minus, self.minus)
        )

    def to_dict(self) -> dict[str, Any]:
        data = {k: v for k, v in dataclasses.asdict(self).items() if v != _DEFAULTS.get(k, ...)}
        if self.over == ("mean" if self.minus else "each"):
            del data["over"]
        if self.within is not None:
            data["within"] = list(self.within)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Check:
        return cls(**data)


_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Check) if f.default is not dataclasses.MISSING}


def at_least(metric: str, value: Bound, **options: Any) -> Check:
    """The metric is `value` or more. Options: `of`, `minus`, `over`, `count`, `within`, `chance` (see `Check`)."""
    return Check(metric, "at_least", value, **options)


def at_most(metric: str, value: Bound, **options: Any) -> Check:
    """The metric is `value` or less. Options: `of`, `minus`, `over`, `count`, `within`, `chance` (see `Check`)."""
    return Check(metric, "at_most", value, **options)


def equals(metric: str, value: Bound, tol: float = 0.0, **options: Any) -> Check:
    """The metric is within `tol` of `value`. Options: `of`, `minus`, `over`, `count`, `within`, `chance` (see `Check`)."""
    return Check(metric, "equals", value, tol=tol, **options)


@dataclass(frozen=True)
class Claim:
    """Something asserted, and how it is tested; it holds when all checks do, and no control meets it.

    A control is tried on the whole claim: it takes the system's place in every check that names the system, as what is
    looked at or as what is subtracted. A check of other arms alone states something about these; it stays as it is.

    - `kind`: `"paper"`, something the paper asserts (`where` in it), or `"check"`, our own correctness.
    - `ablation`: the variants or arms with the mechanism switched off; for a check of our own, wrong implementations.
    - `null`: the variants or arms that explain it without the system: a constant, the input's own statistics, a linear
      read-out, shuffled time or labels, the classical method. `NONE_YET` where none has been built.
    - `no_ablation`, `no_null`: a sentence that says why one of them makes no sense. A claim of the paper has one of each, or
      the sentence, and at least one control.
    - `about`: the variant or arm that the claim is about, where that is not the system.
    - `grows`: the setting of the experiment with which the effect might fade: steps, epochs, atoms.
    - `answers_to`: control -> why it is a fair one, where `verify` warns of it.
    - `seeds`: how many seeds a verdict takes; fewer make it provisional.
    - `reference`: what an independent result is compared with (a closed form, a library), for claims of kind "check".
    - `reason`: why it fails, is mixed or vacuous, where it does.
    - `published`: the paper's own figure for it, in words, where it gives one.
    - `untested`: why it cannot be tested here; such a claim has no checks.
    """

    id: str
    statement: str
    kind: Literal["paper", "check"]
    checks: Sequence[Check] = ()
    where: str = ""
    ablation: str | Sequence[str] = ()
    null: str | Sequence[str] = ()
    no_ablation: str = ""
    no_null: str = ""
    about: str = SYSTEM
    grows: str = ""
    answers_to: Mapping[str, str] = field(default_factory=dict)
    seeds: int = 3
    reference: str = ""
    reason: str = ""
    untested: str = ""
    published: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "checks", tuple(self.checks))
        object.__setattr__(self, "ablation", _names(self.ablation))
        object.__setattr__(self, "null", NONE_YET if self.null == NONE_YET else _names(self.null))
        if self.kind not in ("paper", "check"):
            raise InputError(f"Claim {self.id}: kind is {self.kind!r}; 'paper' or 'check' is wanted.")
        if bool(self.checks) == bool(self.untested):
            raise InputError(f"Claim {self.id}: give checks, or say with untested=… why there are none.")
        if self.seeds < 1:
            raise InputError(f"Claim {self.id} asks for {self.seeds} seeds; one is the least.")
        if any(check.of == check.minus for check in self.checks):
            raise InputError(f"Claim {self.id} subtracts a variant or arm from itself.")
        if self.checks:
            self._check_controls()

    def _check_controls(self) -> None:
        """Raises `InputError` where the controls are missing, decorative or contradict each other."""
        if self.kind == "paper":
            if not self.controls:
                raise InputError(f"Claim {self.id} has no control: name a variant or arm with ablation=… or null=….")
            if not self.ablation and not self.no_ablation:
                raise InputError(f"Claim {self.id} has no ablation: name one, or say with no_ablation=… why it makes no sense.")
            if not self.null and not self.no_null:
                raise InputError(
                    f"Claim {self.id} has no null model: name one, say with no_null=… why it makes no sense, or null=NONE_YET."
                )
        if (self.ablation and self.no_ablation) or (self.null and self.no_null):
            raise InputError(f"Claim {self.id} names a control and says that there is none.")
        if len(set(self.controls)) < len(self.controls):
            raise InputError(f"Claim {self.id} names a control twice.")
        if self.about in self.controls:
            raise InputError(f"Claim {self.id} is about {self.about!r}, which cannot be its own control.")
        if self.controls and not self.tried:
            raise InputError(
                f"Claim {self.id}: no check looks at {self.about!r}, so that its control {self.controls[0]!r} is tried on "
                "nothing; say with about=… which variant or arm the claim is about."
            )
        if set(self.answers_to) - set(self.controls):
            raise InputError(
                f"Claim {self.id} answers for {', '.join(sorted(set(self.answers_to) - set(self.controls)))}, no control of it."
            )

    @property
    def ablations(self) -> tuple[str, ...]:
        return tuple(self.ablation)

    @property
    def nulls(self) -> tuple[str, ...]:
        return () if self.null == NONE_YET else tuple(self.null)

    @property
    def controls(self) -> tuple[str, ...]:
        """The variants or arms that must not meet the claim, ablations first."""
        return self.ablations + self.nulls

    @property
    def waits_for_null(self) -> bool:
        """Whether it is known to lack a null model that it should have."""
        return self.null == NONE_YET

    @property
    def tried(self) -> tuple[Check, ...]:
        """The checks in which a control takes the system's place."""
        return tuple(check for check in self.checks if check.mentions(self.about))

    def tried_on(self, control: str) -> tuple[Check, ...]:
        """Those checks with a control in the system's place."""
        return tuple(check.with_control(control, self.about) for check in self.tried)

    def needs(self) -> dict[str, set[str]]:
        """Variant or arm -> the metrics that its checks look at, those of the controls included."""
        wanted: dict[str, set[str]] = {}
        for check in (*self.checks, *(check for control in self.controls for check in self.tried_on(control))):
            for arm in filter(None, (check.of, check.minus)):
                wanted.setdefault(arm, set()).add(check.metric)
        return wanted

    def judged_at(self, preset: str) -> bool:
        """Whether each check has a bound at this preset.

        A bound that is one number was found at "quick": of a claim of the paper it judges no other size. Our own checks are
        identities and hold at each.
        """
        at_any = self.kind == "check" or preset == "quick"
        return bool(self.checks) and all(
            check.value_at(preset) is not None and (at_any or isinstance(check.value, Mapping)) for check in self.checks
        )

    def to_dict(self) -> dict[str, Any]:
        data = dataclasses.asdict(self)
        data["checks"] = [check.to_dict() for check in self.checks]
        data["ablation"] = list(self.ablations)
        data["null"] = NONE_YET if self.waits_for_null else list(self.nulls)
        data["answers_to"] = dict(self.answers_to)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Claim:
        return cls(**{**data, "checks": tuple(Check.from_dict(check) for check in data["checks"])})


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
