"""Where a paper that runs here stands: its claims with recorded verdicts, what this home's own runs say, its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broadsheet.cache import home
from broadsheet.lab import ledger, location
from broadsheet.lab.identity import code_hash
from broadsheet.lab.ledger import Recorded
from broadsheet.lab.location import figures_folder
from broadsheet.lab.metrics import Filled, Table, add_run, from_json
from broadsheet.lab.paper import FIRST_SEED
from broadsheet.lab.registry import Entry, entries
from broadsheet.lab.store import Store
from broadsheet.lab.verdicts import Verdict, judge


@dataclass(frozen=True)
class Drawn:
    """A figure: its file, what it shows, and the size of the runs that it was drawn from."""

    file: Path
    caption: str
    preset: str

    @property
    def name(self) -> str:
        return self.file.stem

    @property
    def is_curve(self) -> bool:
        """Whether it shows a claim at growing sizes, and so belongs beside the claim."""
        return self.name.startswith(ledger.CURVES)


@dataclass(frozen=True)
class Standing:
    """A paper that runs here.

    - `claims`: every claim with its recorded verdict, its controls' trials, warnings and growth (`Recorded`); `here`: claim
      id -> what the runs of this home say of it.
    - `counts`: how many of the paper's own claims have each verdict; `scale`: the sizes they were made at; `waiting`: the
      claims for which nobody has built a null model yet.
    - `figures`, `seconds`, `metrics`: by experiment; the metrics are the recorded ones, seed -> variant or arm -> metric.
    """

    entry: Entry
    claims: list[Recorded]
    counts: dict[str, int]
    waiting: list[str]
    scale: str
    made: str
    environment: dict[str, Any]
    here: dict[str, Verdict]
    figures: dict[str, list[Drawn]]
    seconds: dict[str, float]
    metrics: dict[str, dict[str, Any]]

    def here_text(self, claim_id: str) -> str:
        """What this home's runs say in words: "holds", or "holds on 1 seed" where there are fewer than it asks for."""
        found = self.here.get(claim_id)
        if found is None:
            return ""
        if found.leaning:
            return f"{found.leaning} on {len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"
        return found.verdict


def standings(slugs: Iterable[str] | None = None, store: Store | None = None) -> dict[str, Standing]:
    """slug -> standing, of all papers that run here or of some."""
    wanted = [slug for slug in (entries() if slugs is None else slugs) if slug in entries()]
    known = ledger.latest(wanted, store)
    runs = _stored_runs(wanted, store)
    return {slug: _standing(entries()[slug], known.get(slug, {}), runs) for slug in wanted}


def _standing(entry: Entry, data: Mapping[str, Any], runs: Mapping[tuple[str, str], Table]) -> Standing:
    recorded = ledger.states(entry, data)
    experiments = data.get("experiments", {})
    return Standing(
        entry=entry,
        claims=recorded,
        counts=ledger.counts(recorded),
        waiting=ledger.waiting_for_null(recorded),
        scale="; ".join(sorted({state.scale for state in recorded if state.scale})),
        made=data.get("made", "")[:10],
        environment=dict(data.get("environment", {})),
        here={state.claim.id: found for state in recorded if (found := _here(entry, state, runs)) is not None},
        figures={name: figures(entry.slug, name) for name in entry.experiments},
        seconds={name: found["seconds"] / max(1, len(found["metrics"])) for name, found in experiments.items()},
        metrics={name: found["metrics"] for name, found in experiments.items()},
    )


def _here(entry: Entry, state: Recorded, runs: Mapping[tuple[str, str], Table]) -> Verdict | None:
    """What this home's own runs say of a claim; None where there are none."""
    table = runs.get((entry.slug, state.experiment))
    if not table or not state.experiment:
        return None
    found = judge(state.claim, table, "quick", deterministic=entry.experiments[state.experiment].deterministic)
    return None if found.verdict == "not run" else found


def _stored_runs(slugs: Iterable[str], store: Store | None) -> dict[tuple[str, str], Filled]:
    """(slug, experiment) -> metrics by seed and arm, of runs at quick size of this home with the present code.

    Runs with settings or data of a user's own say nothing of the claims.
    """
    if store is None and not location.exists():
        return {}
    wanted = set(slugs)
    table: dict[tuple[str, str], Filled] = {}
    configs: dict[tuple[str, str, str], dict[str, Any]] = {}
    for run in (store or Store()).find(preset="quick"):
        made = entries().get(run.slug)
        if made is None or run.slug not in wanted or run.experiment not in made.experiments:
            continue
        experiment = made.experiments[run.experiment]
        known = run.variant in experiment.variant_names()
        if run.seed < FIRST_SEED or not known or run.code_hash != code_hash(made, experiment):
            continue
        key = (run.slug, run.experiment, run.variant)
        if key not in configs:
            configs[key] = experiment.configure("quick", run.variant, {})
        if run.config != configs[key]:
            continue
        add_run(table.setdefault((run.slug, run.experiment), {}), run.seed, run.variant, from_json(run.scalars))
    return table


def figures(slug: str, experiment: str) -> list[Drawn]:
    """The figures of an experiment: of this home's largest runs, else those that came with its recorded verdicts; then the
    curves of its claims at growing sizes, from the same places."""
    places = [(figures_folder(home(), slug, experiment, preset), preset) for preset in ("paper", "quick")]
    places.append((ledger.shown_figures(ledger.ledger_folder(), slug, experiment), "quick"))
    found: list[Drawn] = []
    for curves in (False, True):
        for folder, preset in places:
            files = [file for file in sorted(folder.glob("*.svg")) if file.name.startswith(ledger.CURVES) == curves]
            if files:
                found += [Drawn(file, file.with_suffix(".txt").read_text(), preset) for file in files]
                break
    return found
