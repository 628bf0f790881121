"""The command that checks claims."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from broadsheet.cli.output import (
    checks_text,
    console,
    controls_text,
    print_json,
    progress,
    table,
    verdict,
    warning_lines,
)
from broadsheet.cli.pages import AsJson
from broadsheet.cli.running import PROCESSES, Processes, Scheduler, executor_for
from broadsheet.errors import InputError

if TYPE_CHECKING:
    from broadsheet.lab.claims import Claim
    from broadsheet.lab.engine import Plan
    from broadsheet.lab.executors import Executor
    from broadsheet.lab.messages import JobSpec, News
    from broadsheet.lab.metrics import Filled
    from broadsheet.lab.registry import Entry, ExperimentEntry
    from broadsheet.lab.store import Store
    from broadsheet.lab.verdicts import Verdict

DECLARED = "declared"

Grown = dict[str, dict[str, dict[float, "Plan"]]]
"""experiment -> setting -> factor -> plan"""


@dataclass
class Checked:
    """One target's verdicts, what they took, and the ledger entry of this check alone."""

    entry: Entry
    plans: list[Plan]
    grown: Grown
    verdicts: list[tuple[str, Verdict]]
    seconds: float
    record: dict[str, Any]

    def failures(self) -> dict[str, str]:
        """What failed, by experiment."""
        grown = [made for settings in self.grown.values() for sizes in settings.values() for made in sizes.values()]
        return {made.experiment.name: made.failure for made in [*grown, *self.plans] if made.failure}


class WithGrowth(TyperCommand):
    """`--grow` may stand alone: then each claim grows with the setting that it declares."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Gives a `--grow` that no `SETTING=…` follows its value."""
        whole = []
        for word, behind in pairwise([*args, ""]):
            whole += [word, DECLARED] if word == "--grow" and "=" not in behind and behind != DECLARED else [word]
        return super().parse_args(ctx, whole)


def verify(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="PAPER|FOLDER…", help="Papers, or folders with a claims.toml.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All papers that run here.")] = False,
    preset: Annotated[str, typer.Option("--preset", "-p", help="quick or paper.")] = "quick",
    claim: Annotated[list[str] | None, typer.Option(help="Only this claim; may be repeated.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many seeds; fewer than a claim asks for are provisional.")
    ] = None,
    grow: Annotated[
        str | None,
        typer.Option(
            metavar="[SETTING=1,2,4]",
            help="Also at multiples of a setting; without a value, of the one that each claim declares, at 1x and 4x.",
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="PATH", help="The data that the paper preset needs.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Read files that could run code (pickles).")] = False,
    ledger: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write verdicts and figures there, one file a paper.")
    ] = None,
    scheduler: Scheduler = None,
    processes: Processes = PROCESSES,
    as_json: AsJson = False,
) -> None:
    """Check claims, each against its controls; exit 1 where one does not hold."""
    from broadsheet.lab.jobs import tidy
    from broadsheet.lab.ledger import keep_curves, keep_figures, merge, verified, with_verdicts, write
    from broadsheet.lab.location import figures_folder
    from broadsheet.lab.registry import entries
    from broadsheet.lab.store import Store

    if bool(targets) == every:
        raise InputError("Name papers or folders, or say --all.")
    store = Store()
    tidy(store)
    found = list(entries().values()) if every else [_target(name) for name in targets or []]
    wanted = {name.upper() for name in claim or []}
    whole = ledger is not None and not wanted  # then figures of experiments without a claim are drawn too
    asked = Asked(preset, seeds, wanted, grow, data, trust, whole, every)
    checked = [_check(made, asked, store, executor_for(scheduler, processes)) for made in found]
    known = verified(store)
    for done in checked:
        if done.entry.folder is None and not data:
            slug = done.entry.slug
            record = merge(done.entry, known.get(slug), done.record)
            store.add_verification(slug, with_verdicts(done.entry, record))
            keep_curves(done.entry, record, lambda name, slug=slug: figures_folder(store.folder, slug, name, preset))
            if ledger is not None:
                write(done.entry, done.record, ledger)
                keep_figures(done.entry, done.plans, store, ledger)
    if as_json:
        rows = [_json(done, preset) for done in checked]
        print_json(rows[0] if len(rows) == 1 and not every else rows)
    else:
        for done in checked:
            _print(done, preset)
    if not all(state.good for done in checked for _, state in done.verdicts) or any(done.failures() for done in checked):
        raise typer.Exit(1)


def _target(name: str) -> Entry:
    """A folder with claims where one is meant, else a paper."""
    from broadsheet.lab.external import load_repository
    from broadsheet.lab.registry import entries, entry

    path = Path(name)
    if name not in entries() and ("/" in name or name in (".", "..") or path.exists()):
        return load_repository(path)
    return entry(name)


@dataclass(frozen=True)
class Asked:
    """What a `verify` asks of each target."""

    preset: str
    seeds: int | None
    wanted: set[str]
    grow: str | None
    data: str | None
    trust: bool
    whole: bool
    every: bool

    def claims(self, experiment: ExperimentEntry) -> list[Claim]:
        """The claims of an experiment that it is about."""
        return [c for c in experiment.claims_at(self.preset) if not self.wanted or c.id.upper() in self.wanted]

    def job(self, entry: Entry, experiment: ExperimentEntry, claims: list[Claim], **overrides: Any) -> JobSpec:
        """One experiment on as many seeds as these claims ask for."""
        from broadsheet.lab.messages import FIRST_SEED, JobSpec

        count = self.seeds or max((1 if experiment.deterministic else c.seeds for c in claims), default=1)
        given = self.data if experiment.data else None
        return JobSpec(
            entry.slug, experiment.name, self.preset, seeds=tuple(range(FIRST_SEED, FIRST_SEED + count)),
            overrides=overrides, data=given, trust=self.trust, figures=not overrides,
        )  # fmt: skip


def _check(made: Entry, asked: Asked, store: Store, executor: Executor) -> Checked:
    from broadsheet.lab.engine import execute, metrics_table, plan
    from broadsheet.lab.ledger import make_entry, verdict_list
    from broadsheet.lab.messages import Recorded
    from broadsheet.lab.metrics import add_run, from_json
    from broadsheet.lab.verdicts import require

    unknown = asked.wanted - {claim.id.upper() for _, claim in made.claims()}
    if unknown:
        raise InputError(
            f"{made.slug} has no claim {', '.join(sorted(unknown))}; there are {', '.join(c.id for _, c in made.claims())}."
        )
    _growing(made, asked, store)  # says what cannot grow before anything runs
    plans = []
    for experiment in made.experiments.values():
        claims = asked.claims(experiment)
        if asked.preset in experiment.presets and (claims or (asked.whole and experiment.figures)):
            plans.append(plan(made, asked.job(made, experiment, claims), store))
    if not plans:
        among = " among those asked for" if asked.wanted else ""
        raise InputError(f"{made.slug} has no claim that is judged at {asked.preset!r}{among}.")

    def run_all(some: list[Plan]) -> None:
        """Runs what is missing; a control without a metric stops it when its first run is there."""
        with progress(some) as watch:

            def strict(job: Plan, news: News) -> None:
                watch(job, news)
                if isinstance(news, Recorded):
                    for run in store.find(id=news.id):
                        arms: Filled = {}
                        add_run(arms, run.seed, run.variant, from_json(run.scalars))
                        for claim in asked.claims(job.experiment):
                            require(claim, arms.values())

            execute(some, store, executor, strict)

    run_all(plans)
    grown = _growing(made, asked, store)  # the size of the preset itself is found now
    sizes = [one for settings in grown.values() for by_factor in settings.values() for one in by_factor.values()]
    run_all(sizes)
    table = metrics_table(plans, store)
    for done in plans:
        for claim in asked.claims(done.experiment):
            require(claim, table[done.experiment.name].values(), whole=not done.failure)
    verdicts = [(n, v) for n, v in verdict_list(plans, store) if not asked.wanted or v.claim.id.upper() in asked.wanted]
    ids = {run.id for p in [*plans, *sizes] for run in p.runs}
    seconds = sum(run.seconds for run in store.find(slug=made.slug) if run.id in ids)
    return Checked(made, plans, grown, verdicts, round(seconds, 1), make_entry(made, plans, store, grown))


def _growing(made: Entry, asked: Asked, store: Store) -> Grown:
    """The plans of claims that are to grow: with one setting, or each with its own."""
    from broadsheet.lab.engine import plan
    from broadsheet.lab.growth import FACTORS, asked_for, sizes

    if asked.grow is None:
        return {}
    named = None if asked.grow == DECLARED else asked_for(asked.grow)
    grown: Grown = {}
    for name, experiment in made.experiments.items():
        if asked.preset not in experiment.presets:
            continue
        claims = [claim for claim in asked.claims(experiment) if claim.kind == "paper" or claim.grows]
        if named is not None and named[0] in experiment.presets[asked.preset]:
            settings = {named[0]: claims} if claims else {}
        else:
            own = dict.fromkeys(claim.grows for claim in claims if claim.grows) if named is None else {}
            settings = {setting: [claim for claim in claims if claim.grows == setting] for setting in own}
        factors = FACTORS if named is None else named[1]
        for setting, growing in settings.items():
            values = sizes(experiment, asked.preset, setting, factors)
            grown.setdefault(name, {})[setting] = {
                factor: plan(made, asked.job(made, experiment, growing, **{setting: value}), store)
                for factor, value in zip(factors, values, strict=True)
            }
    if not grown and not asked.every:
        what = "a claim that declares what it grows with" if named is None else f"a claim that can grow with {named[0]!r}"
        raise InputError(f"{made.slug} has no {what[2:]}.")
    return grown


def _json(done: Checked, preset: str) -> dict[str, Any]:
    from broadsheet.lab.ledger import controls_dict, scale, states

    growth = {state.claim.id: state.growth for state in states(done.entry, done.record)}
    basis = done.entry.facts["basis"]
    return {
        "slug": done.entry.slug,
        "preset": preset,
        "seeds": sorted({run.seed for made in done.plans for run in made.runs}),
        "seconds": done.seconds,
        "failures": done.failures(),
        "claims": [
            {
                "id": state.claim.id, "kind": state.claim.kind, "statement": state.claim.statement, "experiment": name,
                "verdict": state.verdict, "leaning": state.leaning,
                "scale": scale(preset, basis, done.entry.experiments[name]), "reason": state.claim.reason or None,
                "published": state.claim.published or None, "seeds": list(state.seeds),
                "checks": [outcome.to_dict() for outcome in state.outcomes],
                **controls_dict(state.claim, state.trials), "warnings": list(state.warnings),
                "growth": [grown.to_dict() for grown in growth[state.claim.id]],
            }
            for name, state in done.verdicts
        ],
    }  # fmt: skip


def _print(done: Checked, preset: str) -> None:
    from broadsheet.lab.ledger import scale, states

    rows: list[Any] = []
    for _, state in done.verdicts:
        checks = checks_text(state.claim, state.outcomes, intervals=True)
        rows.append((state.claim.id, state.claim.statement, verdict(state.verdict), checks, controls_text(state.trials)))
    columns: list[Any] = ["", ("claim", {"ratio": 1}), "verdict", ("value and bound", {"ratio": 1}), "controls"]
    size = scale(preset, done.entry.facts["basis"], done.plans[0].experiment)
    console().print(table(columns, rows, f"{done.entry.slug} ({size}; {done.seconds:g} s)"))
    for _, state in done.verdicts:
        if state.claim.reason and not state.good:
            print(f"{state.claim.id}: {state.claim.reason}")
        for line in warning_lines(state.claim, state.trials, state.warnings):
            print(line)
    for recorded in states(done.entry, done.record):
        for grown in recorded.growth:
            print(f"{recorded.claim.id} as {grown.setting} grows: {grown.text}")
    waiting = [state.claim.id for _, state in done.verdicts if state.claim.waits_for_null]
    if waiting:
        print(f"No null model yet: {', '.join(waiting)}.")
    for name, failure in done.failures().items():
        print(f"{name} failed: {failure}")
