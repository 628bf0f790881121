"""The Python interface to papers: `broadsheet.load(slug)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broadsheet.errors import InputError
from broadsheet.lab.claims import SYSTEM
from broadsheet.lab.engine import Plan, execute, plan, raise_failures
from broadsheet.lab.executors import Executor
from broadsheet.lab.jobs import tidy
from broadsheet.lab.ledger import Recorded, latest, states, verdict_list
from broadsheet.lab.messages import JobSpec
from broadsheet.lab.paper import FIRST_SEED, Paper, Report
from broadsheet.lab.registry import Entry, entry, import_paper
from broadsheet.lab.store import Store
from broadsheet.lab.verdicts import Verdict


@dataclass(frozen=True)
class Result:
    """What `LoadedPaper.run` gives back: reports by experiment and variant, and the claims as these runs judge them."""

    reports: Mapping[str, Mapping[str, Report]]
    verdicts: tuple[Verdict, ...]

    def __getitem__(self, experiment: str) -> Mapping[str, Report]:
        return self.reports[experiment]


class LoadedPaper:
    """A paper by its short name; its facts at once, its code when it runs."""

    def __init__(self, slug: str) -> None:
        self.entry: Entry = entry(slug)

    @property
    def facts(self) -> Mapping[str, Any]:
        """Title, arXiv id, summary, basis and the rest."""
        return self.entry.facts

    @property
    def paper(self) -> Paper:
        """The `Paper` object, with configs and functions (imports JAX)."""
        return import_paper(self.entry.module)

    def claims(self) -> list[Recorded]:
        """Every claim with its last recorded verdict."""
        return states(self.entry, latest([self.entry.slug]).get(self.entry.slug))

    def run(
        self,
        experiment: str | None = None,
        *,
        preset: str = "quick",
        seed: int = FIRST_SEED,
        variants: tuple[str, ...] | None = None,
        overrides: Mapping[str, Any] | None = None,
        data: str | None = None,
        trust: bool = False,
        executor: Executor | None = None,
    ) -> Result:
        """Runs one experiment, or all that have the preset, in a process of their own; finds runs that are there already.

        Where `overrides` and a variant set the same name, the override counts; a variant that it makes the same as the system
        is left out.

        **Raises:** `InputError` for names that do not exist, `JobError` where a run fails.
        """
        store = Store()
        tidy(store)
        names = [experiment] if experiment else [n for n, made in self.entry.experiments.items() if preset in made.presets]
        if not names:
            raise InputError(f"{self.entry.slug} has no experiment with the preset {preset!r}.")
        asked = (preset, variants, (seed,), overrides or {}, data, trust, False)
        plans = [plan(self.entry, JobSpec(self.entry.slug, name, *asked), store) for name in names]
        execute(plans, store, executor)
        raise_failures(plans)
        return Result(
            {made.experiment.name: collect(made, store) for made in plans},
            tuple(v for _, v in verdict_list(plans, store)),
        )


def collect(made: Plan, store: Store) -> dict[str, Report]:
    """variant -> report of the first seed, the system first."""
    rows = {run.id: run for run in store.find(slug=made.entry.slug, experiment=made.experiment.name)}
    seed = made.runs[0].seed
    found = {run.variant: store.report(rows[run.id]) for run in made.runs if run.seed == seed and run.id in rows}
    return dict(sorted(found.items(), key=lambda item: item[0] != SYSTEM))
