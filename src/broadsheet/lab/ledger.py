"""The ledger: what was verified, kept with the code as one JSON file a paper, and judged again whenever it is read.

A ledger entry holds metrics, not only verdicts: an edited bound is judged from them. Where the code hash no longer matches,
the verdict is stale. What is verified anew is merged claim by claim: seeds of the same code come together, and fewer seeds, a
smaller preset or a part of the claims replace nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broadsheet.cache import write_atomic
from broadsheet.lab import growth, location, metrics
from broadsheet.lab.claims import NONE_YET, Claim
from broadsheet.lab.growth import Growth
from broadsheet.lab.identity import code_hash, environment
from broadsheet.lab.paper import PRESETS
from broadsheet.lab.registry import Entry, ExperimentEntry, entries, papers_folder
from broadsheet.lab.verdicts import Outcome, Trial, Verdict, judge

if TYPE_CHECKING:
    from broadsheet.lab.engine import Plan
    from broadsheet.lab.store import Store

BASES = {
    "paper": "from the paper's text",
    "code": "from the official code",
    "reconstructed": "after the idea of the abstract",
}
CURVES = "growth-"
"""How the files of curves begin, of a claim at growing sizes."""

SHOWN = ("holds", "reference", "mixed", "fails", "vacuous", "provisional", "reported", "stale", "not run")


def ledger_folder() -> Path:
    """`docs/verdicts` of a checkout, else what the installed package carries."""
    package = papers_folder().parent
    checkout = package.parent.parent / "docs" / "verdicts"
    return checkout if checkout.is_dir() else package / "verdicts"


def make_entry(
    entry: Entry, plans: Sequence[Plan], store: Store, grown: Mapping[str, Mapping[str, Mapping[float, Plan]]] | None = None
) -> dict[str, Any]:
    """A ledger entry from recorded runs: the metrics that claims look at, per experiment, with hashes and times.

    `grown`: experiment -> setting -> factor -> plan, of runs at growing sizes.
    """
    from broadsheet.lab.engine import metrics_table

    table = metrics_table(plans, store)
    runs = {run.id: run for run in store.find(slug=entry.slug)}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    experiments: dict[str, Any] = {}
    for made in plans:
        mine = [runs[run.id] for run in made.runs if run.id in runs]
        if not mine:
            continue
        experiments[made.experiment.name] = {
            "preset": made.job.preset,
            "code_hash": code_hash(entry, made.experiment),
            "device": mine[0].device,
            "made": now,
            "seconds": round(sum(run.seconds for run in {run.id: run for run in mine}.values()), 1),
            "metrics": metrics.table_to_json(table[made.experiment.name], digits=6),
        }
    for name, settings in (grown or {}).items():
        records = {setting: growth.record(sizes, setting, store) for setting, sizes in settings.items()}
        if name in experiments:
            experiments[name]["growth"] = records
    return {
        "slug": entry.slug,
        "basis": entry.facts["basis"],
        "made": now,
        "environment": environment(),
        "experiments": experiments,
        "verdicts": {},
    }


def with_verdicts(entry: Entry, data: dict[str, Any]) -> dict[str, Any]:
    """The ledger entry with its verdicts spelled out, for people who read the file."""
    left_out = ("id", "kind", "experiment", "where")
    data["verdicts"] = {
        state.claim.id: {name: value for name, value in state.to_dict().items() if name not in left_out}
        for state in states(entry, data)
    }
    return data


def write(entry: Entry, data: dict[str, Any], folder: Path) -> Path:
    """Writes a paper's ledger file, merged with what is there."""
    path = folder / f"{entry.slug}.json"
    data = merge(entry, json.loads(path.read_text()) if path.exists() else None, data)
    text = json.dumps(with_verdicts(entry, data), indent=1, ensure_ascii=False)
    return write_atomic(path, text + "\n")


def merge(entry: Entry, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> dict[str, Any]:
    """Two ledger entries of a paper as one that supports, for each claim, the better verdict of the two.

    Records of an experiment with the same code, preset and device become one with the seeds of both. Of others, each claim
    keeps the one that says most of it: judged before not run, enough seeds before fewer, the larger preset, then the present
    code. A record on which no claim rests goes; the first of those that stay is the experiment's, the rest its `"more"`.
    """
    old, new = old or {}, new or {}
    experiments = {}
    for name, experiment in entry.experiments.items():
        was, now = (data.get("experiments", {}).get(name) for data in (old, new))
        if was or now:
            experiments[name] = _merged(entry, experiment, was, now)
    return {**old, **new, "experiments": experiments}


def _merged(
    entry: Entry, experiment: ExperimentEntry, was: Mapping[str, Any] | None, now: Mapping[str, Any] | None
) -> dict[str, Any]:
    pool: list[dict[str, Any]] = []
    for found in (*_records(now), *_records(was)):
        same = next((k for k, kept in enumerate(pool) if _alike(kept, found)), None)
        if same is None:
            pool.append(dict(found))
        else:
            pool[same] = _with_seeds(pool[same], found)
    present = code_hash(entry, experiment)
    rests_on = [k for claim in experiment.claims if (k := _best(experiment, claim, pool, present)) is not None]
    kept = sorted(set(rests_on), key=lambda k: (-rests_on.count(k), k)) or [_largest(pool, present)]
    first, *more = (pool[k] for k in kept)
    grown = {
        setting: growth.merge((was or {}).get("growth", {}).get(setting), (now or {}).get("growth", {}).get(setting))
        for setting in dict.fromkeys([*(was or {}).get("growth", {}), *(now or {}).get("growth", {})])
    }
    return first | ({"more": more} if more else {}) | ({"growth": grown} if grown else {})


def _records(record: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What an entry holds of one experiment, at one preset and code each."""
    if record is None:
        return []
    return [{k: v for k, v in record.items() if k not in ("more", "growth")}, *record.get("more", ())]


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[name] == other[name] for name in ("code_hash", "preset", "device"))


def _with_seeds(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """One record with the seeds of two; its time is what so many seeds take by the newer one."""
    both = growth.merged_seeds(old["metrics"], new["metrics"])
    return {**old, **new, "metrics": both, "seconds": round(new["seconds"] / len(new["metrics"]) * len(both), 1)}


def _best(experiment: ExperimentEntry, claim: Claim, pool: Sequence[Mapping[str, Any]], present: str) -> int | None:
    """Which record says most of a claim, the newest (first) of equals; None where none says anything."""
    asked = 1 if experiment.deterministic else claim.seeds

    def says(k: int) -> tuple[Any, ...]:
        state = _judge(experiment, claim, pool[k])
        count, fresh = len(state.seeds), pool[k]["code_hash"] == present
        return not state.leaning, _size(pool[k]), min(count, asked), fresh, count, -k

    known = [k for k, record in enumerate(pool) if _judge(experiment, claim, record).verdict != "not run"]
    return max(known, key=says, default=None)


def _largest(pool: Sequence[Mapping[str, Any]], present: str) -> int:
    """Which record is of the largest preset, then of the present code, then of most seeds, then the newest."""
    return max(
        range(len(pool)),
        key=lambda k: (_size(pool[k]), pool[k]["code_hash"] == present, len(pool[k]["metrics"]), -k),
    )


def _size(record: Mapping[str, Any]) -> int:
    return PRESETS.index(record["preset"]) if record["preset"] in PRESETS else PRESETS.index("quick")


def _judge(experiment: ExperimentEntry, claim: Claim, record: Mapping[str, Any]) -> Verdict:
    table = metrics.table_from_json(record["metrics"])
    return judge(claim, table, record["preset"], deterministic=experiment.deterministic)


def keep_figures(entry: Entry, plans: Sequence[Plan], store: Store, folder: Path) -> None:
    """Copies the figures of verified experiments, with their captions, beside the ledger, in place of older ones; none where
    the ledger's record is of a larger preset. Curves of claims that grow are drawn from the ledger."""
    data = json.loads((folder / f"{entry.slug}.json").read_text())
    for made in plans:
        name = made.experiment.name
        drawn = location.figures_folder(store.folder, entry.slug, name, made.job.preset)
        place = shown_figures(folder, entry.slug, name)
        if drawn.is_dir() and data["experiments"].get(name, {}).get("preset") == made.job.preset:
            for file in place.glob("*"):
                if not file.name.startswith(CURVES):
                    file.unlink()
            for file in drawn.glob("*.svg"):
                _keep_figure(place, file.stem, file.read_bytes(), file.with_suffix(".txt").read_text())
    keep_curves(entry, data, lambda name: shown_figures(folder, entry.slug, name))


def keep_curves(entry: Entry, data: Mapping[str, Any], place: Callable[[str], Path]) -> None:
    """Draws the curve of each claim that a ledger entry has at several sizes, in the folder of its experiment."""
    for state in states(entry, data):
        for grown in state.growth:
            if len(grown.sizes) > 1:
                name = f"{CURVES}{state.claim.id}-{grown.setting}"
                _keep_figure(place(state.experiment), name, growth.svg(grown), growth.caption(grown))


def _keep_figure(place: Path, name: str, drawing: bytes, caption: str) -> None:
    write_atomic(place / f"{name}.svg", drawing)
    write_atomic(place / f"{name}.txt", caption)


def shown_figures(folder: Path, slug: str, experiment: str) -> Path:
    """Where the figures of an experiment lie in a ledger's folder."""
    return folder / "figures" / slug / experiment


@dataclass(frozen=True)
class Recorded:
    """A claim as it stands: its last verdict, with what it rests on.

    - `verdict`: None where it was not run; `"stale"` where the code has changed since, then `leaning` is what it was.
    - `outcomes`: what each check found; `trials`: the same with each control in the system's place.
    - `warnings`: of the claim as a whole, or what keeps it from being judged; each trial has its own.
    - `growth`: the claim at growing sizes, one for each setting that was grown.
    - `scale`: the size it was made at and what it rests on, in words.
    """

    claim: Claim
    experiment: str
    verdict: str | None
    preset: str | None = None
    outcomes: tuple[Outcome, ...] = ()
    seeds: tuple[int, ...] = ()
    leaning: str | None = None
    trials: tuple[Trial, ...] = ()
    warnings: tuple[str, ...] = ()
    growth: tuple[Growth, ...] = ()
    scale: str = ""

    @property
    def ablations(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.kind == "ablation")

    @property
    def nulls(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.kind == "null")

    @property
    def text(self) -> str:
        """The verdict with its scale: "holds (toy size, from the official code)"."""
        return f"{self.verdict} ({self.scale})" if self.verdict else "not run"

    def to_dict(self) -> dict[str, Any]:
        """As `show --json` and the ledger have it."""
        return {
            "id": self.claim.id,
            "kind": self.claim.kind,
            "statement": self.claim.statement,
            "where": self.claim.where,
            "experiment": self.experiment or None,
            "verdict": self.verdict,
            "leaning": self.leaning,
            "scale": self.scale or None,
            "preset": self.preset,
            "seeds": list(self.seeds),
            "published": self.claim.published or None,
            "reason": self.claim.reason or self.claim.untested or None,
            "checks": [outcome.to_dict() for outcome in self.outcomes],
            **controls_dict(self.claim, self.trials),
            "warnings": list(self.warnings),
            "growth": [grown.to_dict() for grown in self.growth],
        }


def controls_dict(claim: Claim, trials: Sequence[Trial]) -> dict[str, Any]:
    """A claim's controls as JSON values: the trials of each kind, and what is said where there is none."""
    return {
        "ablations": [trial.to_dict() for trial in trials if trial.kind == "ablation"],
        "no_ablation": claim.no_ablation or None,
        "nulls": [trial.to_dict() for trial in trials if trial.kind == "null"],
        "no_null": claim.no_null or (NONE_YET if claim.waits_for_null else None),
    }


def states(entry: Entry, data: Mapping[str, Any] | None) -> list[Recorded]:
    """Every claim of a paper with the verdict that a ledger entry supports, judged by the present bounds."""
    return [_state(entry, name, claim, (data or {}).get("experiments", {}).get(name)) for name, claim in entry.claims()]


def _state(entry: Entry, name: str, claim: Claim, kept: Mapping[str, Any] | None) -> Recorded:
    if not name or kept is None:
        return Recorded(claim, name, None)
    experiment, present = entry.experiments[name], code_hash(entry, entry.experiments[name])
    grown = growth.growths(claim, experiment, kept.get("growth", {}), present)
    pool = _records(kept)
    record = pool[(_best(experiment, claim, pool, present) or 0) if len(pool) > 1 else 0]
    state = _judge(experiment, claim, record)
    if state.verdict == "not run":
        return Recorded(claim, name, None, warnings=state.warnings, growth=grown)
    stale = record["code_hash"] != present
    return Recorded(
        claim,
        name,
        "stale" if stale else state.verdict,
        record["preset"],
        state.outcomes,
        state.seeds,
        state.verdict if stale else state.leaning,
        state.trials,
        state.warnings,
        grown,
        scale(record["preset"], entry.facts["basis"], experiment),
    )


def latest(slugs: Iterable[str], store: Store | None = None) -> dict[str, dict[str, Any]]:
    """slug -> what is known: the shipped file, merged with the verifications of this home."""
    found = {}
    folder = ledger_folder()
    for slug in slugs:
        path = folder / f"{slug}.json"
        if path.exists():
            found[slug] = json.loads(path.read_text())
    if store is None and location.exists():
        from broadsheet.lab.store import Store

        store = Store()
    if store is not None:
        for slug, data in verified(store).items():
            shipped = found.get(slug)
            if slug in entries():
                older, newer = (data, shipped) if shipped and shipped["made"] > data["made"] else (shipped, data)
                found[slug] = merge(entries()[slug], older, newer)
    return found


def verified(store: Store) -> dict[str, dict[str, Any]]:
    """slug -> what this home's newest verification says that can be read."""
    return store.verifications(lambda slug, data: slug not in entries() or _is_whole(data))


def _is_whole(data: Mapping[str, Any]) -> bool:
    """Whether an entry has all that is read of it, each of its type."""
    try:
        found = [data["made"]]
        for kept in data["experiments"].values():
            for record in _records(kept):
                found += [record["code_hash"], record["preset"], record["device"], str(float(record["seconds"]))]
                found += ["seeds" if metrics.table_from_json(record["metrics"]) else None]
            for grown in kept.get("growth", {}).values():
                found += [grown["code_hash"], grown["preset"]]
                for factor, size in grown["sizes"].items():
                    found += [str(float(factor) + float(size["value"]))]
                    metrics.table_from_json(size["metrics"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return all(isinstance(text, str) for text in found)


def counts(recorded: Iterable[Recorded]) -> dict[str, int]:
    """How many claims of the paper (not checks of our own) have each verdict."""
    total: dict[str, int] = {}
    for state in recorded:
        if state.claim.kind == "paper":
            name = state.verdict or "not run"
            total[name] = total.get(name, 0) + 1
    return {name: total[name] for name in SHOWN if name in total}


def waiting_for_null(recorded: Iterable[Recorded]) -> list[str]:
    """The claims of the paper for which nobody has built a null model yet."""
    return [state.claim.id for state in recorded if state.claim.waits_for_null]


def scale(preset: str | None, basis: str, experiment: ExperimentEntry | None = None) -> str:
    """In brackets behind a verdict: the size it was made at, and what it rests on.

    "quick" is a toy beside what was published, unless the experiment has the same size at "paper". What a repository's commands
    write is theirs: whether its code is the paper's is not known here.
    """
    if experiment is not None and experiment.command is not None:
        return "its own size, by the repository's own commands"
    size = {"smoke": "smoke size", "quick": "toy size", "paper": "the paper's size"}.get(preset or "", preset or "")
    if preset == "quick" and experiment is not None and experiment.presets.get("paper") == experiment.presets["quick"]:
        size = "the paper's size"
    return f"{size}, {BASES.get(basis, basis)}"


def verdict_list(plans: Sequence[Plan], store: Store) -> list[tuple[str, Verdict]]:
    """(experiment, verdict) of every claim that the plans' presets judge."""
    from broadsheet.lab.engine import metrics_table

    table = metrics_table(plans, store)
    return [
        (
            made.experiment.name,
            judge(claim, table[made.experiment.name], made.job.preset, deterministic=made.experiment.deterministic),
        )
        for made in plans
        for claim in made.experiment.claims_at(made.job.preset)
    ]
