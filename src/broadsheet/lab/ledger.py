"""The ledger: what was verified, kept with the code as one JSON file a paper, and judged again whenever it is read.

A ledger entry holds metrics, not only verdicts: an edited bound is judged from them. Where the code hash no longer matches,
the verdict is stale.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broadsheet.cache import write_atomic
from broadsheet.lab import location
from broadsheet.lab.claims import Claim
from broadsheet.lab.identity import code_hash, environment
from broadsheet.lab.registry import Entry, papers_folder
from broadsheet.lab.verdicts import Outcome, Verdict, judge

if TYPE_CHECKING:
    from broadsheet.lab.engine import Plan
    from broadsheet.lab.store import Store

BASES = {
    "paper": "from the paper's text",
    "code": "from the official code",
    "reconstructed": "after the idea of the abstract",
}
SHOWN = ("holds", "reference", "mixed", "fails", "vacuous", "provisional", "reported", "stale", "not run")


def ledger_folder() -> Path:
    """`docs/verdicts` of a checkout, else what the installed package carries."""
    package = papers_folder().parent
    checkout = package.parent.parent / "docs" / "verdicts"
    return checkout if checkout.is_dir() else package / "verdicts"


def make_entry(entry: Entry, plans: Sequence[Plan], store: Store) -> dict[str, Any]:
    """A ledger entry from recorded runs: the metrics that claims look at, per experiment, with hashes and times."""
    from broadsheet.lab.engine import metrics_table

    table = metrics_table(plans, store)
    runs = {run.id: run for run in store.find(slug=entry.slug)}
    experiments = {}
    for made in plans:
        mine = [runs[run.id] for run in made.runs if run.id in runs]
        experiments[made.experiment.name] = {
            "preset": made.job.preset,
            "code_hash": code_hash(entry, made.experiment),
            "device": mine[0].device if mine else "cpu",
            "seconds": round(sum(run.seconds for run in {run.id: run for run in mine}.values()), 1),
            "metrics": {str(seed): _finite(arms) for seed, arms in table[made.experiment.name].items()},
        }
    return {
        "slug": entry.slug,
        "basis": entry.facts["basis"],
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "experiments": experiments,
        "verdicts": {},
    }


def with_verdicts(entry: Entry, data: dict[str, Any]) -> dict[str, Any]:
    """The ledger entry with its verdicts spelled out, for people who read the file."""
    data["verdicts"] = {
        state.claim.id: {
            "statement": state.claim.statement,
            "verdict": state.verdict,
            "reason": state.claim.reason,
            "checks": [outcome.to_dict() for outcome in state.outcomes],
        }
        for state in states(entry, data)
    }
    return data


def write(entry: Entry, data: dict[str, Any], folder: Path) -> Path:
    """Writes a paper's ledger file; experiments that were not run this time keep their recorded metrics."""
    path = folder / f"{entry.slug}.json"
    if path.exists():
        old = json.loads(path.read_text())["experiments"]
        data["experiments"] = {**{k: v for k, v in old.items() if k in entry.experiments}, **data["experiments"]}
    text = json.dumps(with_verdicts(entry, data), indent=1, ensure_ascii=False)
    return write_atomic(path, text + "\n")


def keep_figures(entry: Entry, plans: Sequence[Plan], store: Store, folder: Path) -> None:
    """Copies the figures of verified experiments, with their captions, beside the ledger, in place of older ones."""
    for made in plans:
        drawn = location.figures_folder(store.folder, entry.slug, made.experiment.name, made.job.preset)
        place = shown_figures(folder, entry.slug, made.experiment.name)
        if not drawn.is_dir():
            continue
        shutil.rmtree(place, ignore_errors=True)
        for file in drawn.glob("*.svg"):
            write_atomic(place / file.name, file.read_bytes())
            write_atomic(place / f"{file.stem}.txt", file.with_suffix(".txt").read_text())


def shown_figures(folder: Path, slug: str, experiment: str) -> Path:
    """Where the figures of an experiment lie in a ledger's folder."""
    return folder / "figures" / slug / experiment


@dataclass(frozen=True)
class Recorded:
    """A claim as it stands: its last verdict, with the scale it was made at."""

    claim: Claim
    experiment: str
    verdict: str | None
    preset: str | None = None
    outcomes: tuple[Outcome, ...] = ()
    seeds: tuple[int, ...] = ()
    leaning: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As `show --json` prints it."""
        return {
            "id": self.claim.id,
            "kind": self.claim.kind,
            "statement": self.claim.statement,
            "where": self.claim.where,
            "experiment": self.experiment or None,
            "verdict": self.verdict,
            "preset": self.preset,
            "seeds": list(self.seeds),
            "reason": self.claim.reason or self.claim.untested or None,
            "checks": [outcome.to_dict() for outcome in self.outcomes],
        }


def states(entry: Entry, data: Mapping[str, Any] | None) -> list[Recorded]:
    """Every claim of a paper with the verdict that a ledger entry supports, judged by the present bounds."""
    recorded = []
    for name, claim in entry.claims():
        record = (data or {}).get("experiments", {}).get(name) if name else None
        if record is None:
            recorded.append(Recorded(claim, name, None))
            continue
        table = {int(seed): _numbers(arms) for seed, arms in record["metrics"].items()}
        made = entry.experiments[name]
        state = judge(claim, table, record["preset"], deterministic=made.deterministic)
        if state.verdict == "not run":
            recorded.append(Recorded(claim, name, None))
            continue
        stale = record["code_hash"] != code_hash(entry, made)
        verdict = "stale" if stale else state.verdict
        recorded.append(
            Recorded(
                claim,
                name,
                verdict,
                record["preset"],
                state.outcomes,
                state.seeds,
                state.verdict if stale else state.leaning,
            )
        )
    return recorded


def latest(slugs: Iterable[str], store: Store | None = None) -> dict[str, dict[str, Any]]:
    """slug -> the newest ledger entry: the shipped file, or a later verification of this home."""
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
        for slug, data in store.verifications().items():
            if slug not in found or data["made"] > found[slug]["made"]:
                found[slug] = data
    return found


def counts(recorded: Iterable[Recorded]) -> dict[str, int]:
    """How many claims of the paper (not checks of our own) have each verdict."""
    total: dict[str, int] = {}
    for state in recorded:
        if state.claim.kind == "paper":
            name = state.verdict or "not run"
            total[name] = total.get(name, 0) + 1
    return {name: total[name] for name in SHOWN if name in total}


def scale(preset: str | None, basis: str) -> str:
    """In brackets behind a verdict: the size it was made at, and what it rests on."""
    size = {"smoke": "smoke size", "quick": "quick size", "paper": "the paper's size"}.get(preset or "", preset or "")
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


def _finite(arms: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    return {
        arm: {name: float(f"{value:.6g}") if abs(value) < float("inf") else None for name, value in row.items()}
        for arm, row in arms.items()
    }


def _numbers(arms: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
    return {arm: {k: float("nan") if v is None else v for k, v in row.items()} for arm, row in arms.items()}
