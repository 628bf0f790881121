"""The command that checks claims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broadsheet.cli.output import console, number, print_json, progress, table, verdict
from broadsheet.cli.pages import AsJson
from broadsheet.cli.running import PROCESSES, Processes, Scheduler, executor_for
from broadsheet.errors import InputError

if TYPE_CHECKING:
    from broadsheet.lab.engine import Plan
    from broadsheet.lab.registry import Entry
    from broadsheet.lab.store import Store
    from broadsheet.lab.verdicts import Verdict


@dataclass
class Checked:
    """One target's verdicts and what they took."""

    entry: Entry
    plans: list[Plan]
    verdicts: list[tuple[str, Verdict]]
    seconds: float


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
    data: Annotated[str | None, typer.Option(metavar="PATH", help="The data that the paper preset needs.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Read files that could run code (pickles).")] = False,
    ledger: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write verdicts and figures there, one file a paper.")
    ] = None,
    scheduler: Scheduler = None,
    processes: Processes = PROCESSES,
    as_json: AsJson = False,
) -> None:
    """Check claims, each against its control; exit 1 where one does not hold."""
    from broadsheet.lab.ledger import keep_figures, make_entry, with_verdicts, write
    from broadsheet.lab.registry import entries
    from broadsheet.lab.store import Store

    if bool(targets) == every:
        raise InputError("Name papers or folders, or say --all.")
    store = Store()
    store.tidy()
    found = list(entries().values()) if every else [_target(name) for name in targets or []]
    wanted = {name.upper() for name in claim or []}
    whole = ledger is not None and not wanted  # then figures of experiments without a claim are drawn too
    checked = [_check(made, preset, seeds, wanted, data, trust, store, scheduler, processes, whole) for made in found]
    for done in checked:
        if done.entry.folder is None and not data:
            record = make_entry(done.entry, done.plans, store)
            store.add_verification(done.entry.slug, with_verdicts(done.entry, record))
            if ledger is not None:
                write(done.entry, make_entry(done.entry, done.plans, store), ledger)
                keep_figures(done.entry, done.plans, store, ledger)
    if as_json:
        rows = [_json(done, preset) for done in checked]
        print_json(rows[0] if len(rows) == 1 and not every else rows)
    else:
        for done in checked:
            _print(done, preset)
    if not all(state.good for done in checked for _, state in done.verdicts) or any(
        p.failure for d in checked for p in d.plans
    ):
        raise typer.Exit(1)


def _target(name: str) -> Entry:
    """A folder with claims where one is meant, else a paper."""
    from broadsheet.lab.external import load_repository
    from broadsheet.lab.registry import entries, entry

    path = Path(name)
    if name not in entries() and ("/" in name or name in (".", "..") or path.exists()):
        return load_repository(path)
    return entry(name)


def _check(
    made: Entry, preset: str, seeds: int | None, wanted: set[str], data: str | None, trust: bool, store: Store,
    scheduler: str | None, processes: int, whole: bool,
) -> Checked:  # fmt: skip
    from broadsheet.lab.engine import execute, plan
    from broadsheet.lab.ledger import verdict_list
    from broadsheet.lab.messages import JobSpec
    from broadsheet.lab.paper import FIRST_SEED

    unknown = wanted - {claim.id.upper() for _, claim in made.claims()}
    if unknown:
        raise InputError(
            f"{made.slug} has no claim {', '.join(sorted(unknown))}; there are {', '.join(c.id for _, c in made.claims())}."
        )
    plans = []
    for name, experiment in made.experiments.items():
        asked = [c for c in experiment.claims_at(preset) if not wanted or c.id.upper() in wanted]
        if preset in experiment.presets and (asked or (whole and experiment.figures)):
            count = seeds or max((1 if experiment.deterministic else c.seeds for c in asked), default=1)
            given = data if experiment.data else None
            numbers = tuple(range(FIRST_SEED, FIRST_SEED + count))
            plans.append(plan(made, JobSpec(made.slug, name, preset, seeds=numbers, data=given, trust=trust), store))
    if not plans:
        raise InputError(f"{made.slug} has no claim that is judged at {preset!r}{' among those asked for' if wanted else ''}.")
    with progress(plans) as watch:
        execute(plans, store, executor_for(scheduler, processes), watch)
    verdicts = [(n, v) for n, v in verdict_list(plans, store) if not wanted or v.claim.id.upper() in wanted]
    ids = {run.id for p in plans for run in p.runs}
    seconds = sum(run.seconds for run in store.find(slug=made.slug) if run.id in ids)
    return Checked(made, plans, verdicts, round(seconds, 1))


def _json(done: Checked, preset: str) -> dict[str, Any]:
    return {
        "slug": done.entry.slug,
        "preset": preset,
        "seeds": sorted({run.seed for made in done.plans for run in made.runs}),
        "seconds": done.seconds,
        "failures": {made.experiment.name: made.failure for made in done.plans if made.failure},
        "claims": [
            {
                "id": state.claim.id, "kind": state.claim.kind, "statement": state.claim.statement, "experiment": name,
                "verdict": state.verdict, "leaning": state.leaning, "reason": state.claim.reason or None,
                "seeds": list(state.seeds), "checks": [outcome.to_dict() for outcome in state.outcomes],
            }
            for name, state in done.verdicts
        ],
    }  # fmt: skip


def _print(done: Checked, preset: str) -> None:
    from broadsheet.lab.ledger import scale

    rows: list[Any] = []
    for _, state in done.verdicts:
        lines = [f"{c.metric} {number(c.value)}{_interval(c.low, c.high)} {c.bound}" for c in state.outcomes]
        controls = [number(c.control) if c.control is not None else "" for c in state.outcomes]
        rows.append((state.claim.id, state.claim.statement, verdict(state.verdict), "\n".join(lines), "\n".join(controls)))
    columns: list[Any] = ["", ("claim", {"ratio": 1}), "verdict", ("value and bound", {"ratio": 1}), "control"]
    console().print(table(columns, rows, f"{done.entry.slug} ({scale(preset, done.entry.facts['basis'])}; {done.seconds:g} s)"))
    for _, state in done.verdicts:
        if state.claim.reason and not state.good:
            print(f"{state.claim.id}: {state.claim.reason}")
    for made in done.plans:
        if made.failure:
            print(f"{made.experiment.name} failed: {made.failure}")


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({number(low)} to {number(high)})"
