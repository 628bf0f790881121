"""Does a claim hold when it grows? The same claim at multiples of one setting, its verdicts in words and as a curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from broadsheet.errors import InputError
from broadsheet.lab import metrics
from broadsheet.lab.claims import Check, Claim
from broadsheet.lab.registry import ExperimentEntry
from broadsheet.lab.verdicts import GOOD, Outcome, Verdict, judge

if TYPE_CHECKING:
    from broadsheet.lab.engine import Plan
    from broadsheet.lab.store import Store

FACTORS = (1.0, 4.0)
"""The sizes, as multiples of the preset's, at which a claim with `grows` is run."""

FADED = 0.5
"""A distance from a bound that shrinks with each size to less than this share of the first has faded."""


@dataclass(frozen=True)
class Growth:
    """A claim at growing sizes: factor, value of the setting and verdict for each."""

    claim: Claim
    setting: str
    factors: tuple[float, ...]
    sizes: tuple[float, ...]
    verdicts: tuple[Verdict, ...]
    stale: bool = False

    @property
    def words(self) -> list[str]:
        """The verdict at each size; a provisional one as what it leans to."""
        return [verdict.leaning or verdict.verdict for verdict in self.verdicts]

    @property
    def faded(self) -> tuple[list[float], float] | None:
        """What fades: its value at each size, and the edge of the bound that it goes towards; None where nothing does.

        That is a check that is not met in the end, or whose distance from its bound shrinks with each size to less than half;
        or a control that comes as much nearer to each of the checks that it did not meet at first.
        """
        first, last = self.verdicts[0], self.verdicts[-1]
        if self.words[0] not in GOOD or len(self.verdicts) < 2:
            return None
        for k, outcome in enumerate(last.outcomes):
            series = [verdict.outcomes[k] for verdict in self.verdicts]
            if not outcome.passed or _shrinks([each.distance for each in series]):
                return self._towards(series, self.claim.checks[k])
        for j, trial in enumerate(first.trials):
            unmet = [k for k, outcome in enumerate(trial.outcomes) if outcome.distance < 0]
            series_of = {k: [verdict.trials[j].outcomes[k] for verdict in self.verdicts] for k in unmet}
            if unmet and all(_shrinks([-each.distance for each in series]) for series in series_of.values()):
                return self._towards(series_of[unmet[0]], self.claim.tried[unmet[0]])
        return None

    def _towards(self, series: Sequence[Outcome], check: Check) -> tuple[list[float], float]:
        values, edges = [outcome.value for outcome in series], check.bounds(self.verdicts[0].preset)
        return values, min(edges, key=lambda edge: abs(values[-1] - edge))

    @property
    def text(self) -> str:
        """In one line: "holds at 1x, 2x, 4x", or "fades: 0.31, 0.19, 0.08 towards 0"."""
        parts: list[tuple[str, list[str]]] = []
        for word, factor in zip(self.words, self.factors, strict=True):
            if not parts or parts[-1][0] != word:
                parts.append((word, []))
            parts[-1][1].append(f"{factor:g}x")
        said = "; ".join(f"{word} at {', '.join(where)}" for word, where in parts)
        if (faded := self.faded) is not None:
            values, edge = faded
            said = f"fades: {', '.join(f'{value:.3g}' for value in values)} towards {edge:.3g} ({said})"
        fewest = min(len(verdict.seeds) for verdict in self.verdicts)
        if any(verdict.leaning for verdict in self.verdicts):
            said += f", on {fewest} seed{'s' * (fewest > 1)}"
        return said

    def to_dict(self) -> dict[str, Any]:
        return {
            "setting": self.setting,
            "text": self.text,
            "fades": self.faded is not None,
            "stale": self.stale,
            "sizes": [
                {
                    "factor": factor, "value": size, "verdict": verdict.verdict, "leaning": verdict.leaning,
                    "seeds": list(verdict.seeds), "checks": [outcome.to_dict() for outcome in verdict.outcomes],
                    "controls": [trial.to_dict() for trial in verdict.trials],
                }
                for factor, size, verdict in zip(self.factors, self.sizes, self.verdicts, strict=True)
            ],
        }  # fmt: skip


def _shrinks(distances: Sequence[float]) -> bool:
    """Whether a distance gets smaller with each size, in the end below half of the first."""
    falls = all(after < before for before, after in pairwise(distances))
    return len(distances) > 1 and distances[0] > 0 and falls and distances[-1] < FADED * distances[0]


def asked_for(text: str) -> tuple[str, tuple[float, ...]]:
    """Setting and factors of `steps=1,2,4`, in rising order; raises `InputError` where it is something else."""
    name, sign, given = text.partition("=")
    try:
        factors = sorted({float(part) for part in given.split(",")})
    except ValueError:
        factors = []
    if not (name and sign and factors) or not all(0 < factor < float("inf") for factor in factors):
        raise InputError(f"{text!r} is no growth; SETTING=1,2,4 is: a setting, and what its value is multiplied by.")
    return name.strip(), tuple(factors)


def sizes(experiment: ExperimentEntry, preset: str, setting: str, factors: Sequence[float]) -> list[float]:
    """The setting's value at each factor; whole numbers stay whole.

    **Raises:** `InputError` where the setting is missing, no number, or a variant's own.
    """
    config = experiment.presets[preset]
    base = config.get(setting)
    if isinstance(base, bool) or not isinstance(base, int | float):
        numbers = [name for name, value in config.items() if isinstance(value, int | float) and not isinstance(value, bool)]
        raise InputError(
            f"{experiment.name} has no setting {setting!r} that is a number; there are {', '.join(numbers) or 'none'}."
        )
    own = [name for name, changes in experiment.variants.items() if setting in changes]
    if own:
        raise InputError(f"{experiment.name} cannot grow with {setting!r}: the variant {own[0]!r} sets it itself.")
    return [max(1, round(base * factor)) if isinstance(base, int) else base * factor for factor in factors]


def record(plans: Mapping[float, Plan], setting: str, store: Store) -> dict[str, Any]:
    """What a ledger keeps of runs at growing sizes: their metrics by factor, with the code hash."""
    from broadsheet.lab.engine import metrics_table
    from broadsheet.lab.identity import code_hash

    first = next(iter(plans.values()))
    name = first.experiment.name
    tables = {factor: metrics_table([made], store)[name] for factor, made in plans.items()}
    values = sizes(first.experiment, first.job.preset, setting, list(plans))
    return {
        "preset": first.job.preset,
        "code_hash": code_hash(first.entry, first.experiment),
        "sizes": {
            f"{factor:g}": {"value": value, "metrics": metrics.table_to_json(tables[factor], digits=6)}
            for factor, value in zip(plans, values, strict=True)
            if tables[factor]
        },
    }


def merge(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Two records of one setting as one: seeds and sizes of the same code and preset come together; otherwise the new one
    takes the place of the old where it has as many of both."""
    if old is None or new is None:
        return dict(new or old or {}) or None
    known, found = old["sizes"], new["sizes"]
    if (old["preset"], old["code_hash"]) == (new["preset"], new["code_hash"]):
        both = {
            factor: {
                **known.get(factor, {}), **found.get(factor, {}),
                "metrics": merged_seeds(known.get(factor, {}).get("metrics", {}), found.get(factor, {}).get("metrics", {})),
            }
            for factor in sorted({*known, *found}, key=float)
        }  # fmt: skip
        return {**old, "sizes": both}
    as_many = all(f in found and len(found[f]["metrics"]) >= len(size["metrics"]) for f, size in known.items())
    return dict(new if as_many else old)


def merged_seeds(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Two tables of metrics as one, seed by seed and arm by arm; what the new one has counts."""
    return {
        seed: {
            arm: {**old.get(seed, {}).get(arm, {}), **new.get(seed, {}).get(arm, {})}
            for arm in [*old.get(seed, {}), *(arm for arm in new.get(seed, {}) if arm not in old.get(seed, {}))]
        }
        for seed in sorted({*old, *new}, key=int)
    }


def growths(claim: Claim, experiment: ExperimentEntry, records: Mapping[str, Any], present: str) -> tuple[Growth, ...]:
    """What a ledger's records of an experiment, by setting, say of a claim; `present` is the code hash of today."""
    found = []
    for setting, kept in records.items():
        if claim.kind != "paper" and claim.grows != setting:
            continue
        judged = {
            float(factor): (
                size["value"],
                judge(claim, metrics.table_from_json(size["metrics"]), kept["preset"], deterministic=experiment.deterministic),
            )
            for factor, size in kept["sizes"].items()
        }
        judged = {factor: judged[factor] for factor in sorted(judged) if judged[factor][1].seeds}
        if judged:
            values, verdicts = zip(*judged.values(), strict=True)
            found.append(Growth(claim, setting, tuple(judged), values, verdicts, stale=kept["code_hash"] != present))
    return tuple(found)


def caption(growth: Growth) -> str:
    """What the curve shows, in words."""
    names = ", ".join(dict.fromkeys(check.metric for check in growth.claim.tried))
    return (
        f"{growth.claim.id} as {growth.setting} grows: {names} of {growth.claim.about} and, in grey, of its controls; the "
        f"dashed line is the bound. As it grows: {growth.text}."
    )


def draw(growth: Growth) -> Any:
    """The curve as a Matplotlib figure: for each check the system and its controls against the setting, with the bound."""
    import math

    from broadsheet.lab.plots import CONTROL_COLOUR, SYSTEM_COLOUR, figure, label

    claim, preset = growth.claim, growth.verdicts[0].preset
    fig, axes = figure(columns=len(claim.tried))
    for axis, check in zip([axes] if len(claim.tried) == 1 else axes.flat, claim.tried, strict=True):
        k, j = claim.checks.index(check), claim.tried.index(check)
        mine = [verdict.outcomes[k] for verdict in growth.verdicts]
        spread = [
            [0.0 if end is None else abs(end - outcome.value) for outcome in mine for end in [getattr(outcome, side)]]
            for side in ("low", "high")
        ]
        for style, (n, trial) in zip(("o--", "s:", "^-.", "v--", "d:"), enumerate(growth.verdicts[0].trials), strict=False):
            values = [verdict.trials[n].outcomes[j].value for verdict in growth.verdicts]
            axis.plot(growth.sizes, values, style, color=CONTROL_COLOUR, markersize=4, label=trial.control)
        values = [outcome.value for outcome in mine]
        axis.errorbar(growth.sizes, values, spread, fmt="o-", color=SYSTEM_COLOUR, capsize=3, label=claim.about)
        for edge in check.bounds(preset):
            if math.isfinite(edge):
                axis.axhline(edge, color="black", linestyle="--", linewidth=0.8)
        axis.set_xscale("log", base=2)
        axis.set_xticks(growth.sizes, [f"{size:g}" for size in growth.sizes], minor=False)
        label(axis, growth.setting, check.metric if check.minus is None else f"{check.metric}, minus {check.minus}")
    return fig


def svg(growth: Growth) -> bytes:
    """The curve as SVG text, the same for the same numbers."""
    import io

    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "broadsheet", "font.size": 9}):
        draw(growth).savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
