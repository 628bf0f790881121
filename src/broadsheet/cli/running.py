"""Commands that run: run, build, report, gc."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broadsheet.cli.output import console, number, print_json, progress, table
from broadsheet.cli.pages import AsJson, import_, papers_table, recorded_claims
from broadsheet.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from broadsheet.lab.engine import Plan
    from broadsheet.lab.executors import Executor
    from broadsheet.lab.messages import News

Scheduler = Annotated[str | None, typer.Option(metavar="tcp://…", help="A Dask scheduler; local processes by default.")]
PROCESSES = min(2, os.cpu_count() or 1)  # one job seldom keeps two cores busy
Processes = Annotated[int, typer.Option(min=1, help="Local processes at once.")]


def executor_for(scheduler: str | None, processes: int) -> Executor:
    """Local processes, or the Dask cluster at an address."""
    if scheduler:
        from broadsheet.lab.cluster import DaskExecutor

        return DaskExecutor(scheduler)
    from broadsheet.lab.local import LocalExecutor

    return LocalExecutor(processes)


def run(
    slug: Annotated[str, typer.Argument(metavar="PAPER")],
    experiment: Annotated[str | None, typer.Option("--experiment", "-e", help="One experiment; all by default.")] = None,
    preset: Annotated[str, typer.Option("--preset", "-p", help="smoke, quick or paper.")] = "quick",
    seed: Annotated[list[int] | None, typer.Option(help="A seed; may be repeated.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="A variant; may be repeated. All by default.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting.")] = None,
    sweep: Annotated[str | None, typer.Option(metavar="NAME=A,B,C", help="Run once for each value.")] = None,
    data: Annotated[str | None, typer.Option(metavar="PATH", help="Your data, or the paper's.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Read files that could run code (pickles).")] = False,
    scheduler: Scheduler = None,
    processes: Processes = PROCESSES,
    as_json: AsJson = False,
) -> None:
    """Run a paper's experiments; runs that are there already are found."""
    from broadsheet.lab.engine import execute, plan, raise_failures
    from broadsheet.lab.jobs import tidy
    from broadsheet.lab.messages import JobSpec
    from broadsheet.lab.registry import entry
    from broadsheet.lab.store import Store

    made = entry(slug)
    if experiment is None and (set_ or sweep or data or variant):
        raise InputError("--set, --sweep, --data and --variant belong to one experiment: name it with -e.")
    names = [experiment] if experiment else [n for n, e in made.experiments.items() if preset in e.presets]
    if not names:
        raise InputError(f"{slug} has no experiment with the preset {preset!r}.")
    settings = dict(_pair(text) for text in set_ or [])
    swept = [settings]
    if sweep:
        name, values = _pair(sweep)
        swept = [{**settings, name: value} for value in values.split(",")]
    store = Store()
    tidy(store)
    plans = [
        plan(made, JobSpec(slug, n, preset, tuple(variant or ()), tuple(seed or [0]), overrides, data, trust), store)
        for n in names
        for overrides in swept
    ]
    for line in _left_out(plans):
        print(line, file=sys.stderr)
    with progress(plans) as watch:
        execute(plans, store, executor_for(scheduler, processes), watch)
    raise_failures(plans)
    rows = _rows(plans, store)
    if as_json:
        print_json(rows)
        return
    out = console()
    for row in rows:
        what = [row["variant"], f"seed {row['seed']}", *(f"{k}={v}" for k, v in row["set"].items())]
        cells = [(arm or row["variant"], name, number(value)) for arm, m in row["metrics"].items() for name, value in m.items()]
        out.print(table(["arm", "metric", ("value", {"justify": "right"})], cells, f"{row['experiment']}: {', '.join(what)}"))


def _left_out(plans: list[Plan]) -> list[str]:
    """A line for each variant that some settings make the same as the system."""
    found: dict[tuple[str, str], list[str]] = {}
    for made in plans:
        for variant, settings in made.left_out.items():
            found.setdefault((made.experiment.name, variant), []).append(settings)
    return [
        f"{experiment}: {variant!r} is left out with {' and with '.join(settings)}: that is the system itself."
        for (experiment, variant), settings in found.items()
    ]


def _rows(plans: list[Plan], store: Any) -> list[dict[str, Any]]:
    rows = []
    for made in plans:
        recorded = {run.id: run for run in store.find(slug=made.entry.slug, experiment=made.experiment.name)}
        for item in made.runs:
            done = recorded[item.id]
            rows.append(
                {
                    "paper": made.entry.slug, "experiment": made.experiment.name, "preset": made.job.preset,
                    "variant": item.variant, "seed": item.seed, "set": dict(made.job.overrides),
                    "metrics": done.scalars, "seconds": done.seconds, "id": done.id, "folder": str(store.runs / done.id),
                }
            )  # fmt: skip
    return rows


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name or not value:
        raise InputError(f"{text!r} is not NAME=VALUE.")
    return name, value


def build(
    page: Annotated[Path | None, typer.Argument(metavar="[PAGE]", help="A saved Daily Papers page to import first.")] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Time for everything.")] = 8.0,
    as_of: Annotated[str | None, typer.Option(metavar="DATE", help="The day of the page, YYYY-MM-DD.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the report goes.")] = None,
    processes: Processes = PROCESSES,
) -> None:
    """The main job: show every paper with what is known, run what fits in the time, write the report."""
    from broadsheet.lab.engine import execute, plan
    from broadsheet.lab.jobs import tidy
    from broadsheet.lab.messages import Ended, JobSpec
    from broadsheet.lab.registry import entries, missing_extra
    from broadsheet.lab.store import Store
    from broadsheet.page.catalogue import Catalogue
    from broadsheet.page.report import write_report

    deadline = time.monotonic() + 60 * minutes
    if page is not None:
        import_([str(page)], as_of)
    store = Store()
    adopted = tidy(store)
    if adopted:
        print(f"{adopted} finished runs of a stopped process were taken in.")
    screen = console()
    papers = _by_date(Catalogue().papers().values())
    screen.print(papers_table(papers, recorded_claims([paper.slug for paper in papers if paper.basis])))
    print(f"{len(papers)} papers, {sum(paper.basis is not None for paper in papers)} of them run here.", flush=True)

    lacking = {slug: extra for slug, made in entries().items() if (extra := missing_extra(made))}
    for slug, extra in lacking.items():
        print(f"{MissingExtraError(slug, extra)} It is left out.")
    costs = known_costs()
    plans = [
        plan(
            made,
            JobSpec(made.slug, name),
            store,
            priority=-costs.get((made.slug, name), experiment.cost),
        )
        for made in entries().values()
        for name, experiment in made.experiments.items()
        if "quick" in experiment.presets and made.slug not in lacking
    ]
    plans.sort(key=lambda made: -made.task.priority)
    waiting = [made for made in plans if made.missing]
    print(
        f"{len(plans)} experiments at quick size, one seed: {len(plans) - len(waiting)} found, {len(waiting)} to run.",
        flush=True,
    )
    spare = 10.0  # for the report
    with progress(plans) as watch:

        def tell(made: Plan, news: News) -> None:
            watch(made, news)
            if isinstance(news, Ended) and not sys.stderr.isatty():
                state = made.failure or "done"
                print(f"  {made.entry.slug} {made.experiment.name}: {state}", flush=True)

        from broadsheet.lab.local import LocalExecutor

        execute(plans, store, LocalExecutor(processes), tell, deadline - spare)
    _tell_provisional(screen, plans, store)
    path = write_report(out)
    left = [f"{made.entry.slug} {made.experiment.name}" for made in plans if made.missing]
    if left:
        print(f"Not finished in {minutes:g} minutes or failed: {', '.join(left)}. Run it again to go on.")
    print(f"The report: {path}")


def _by_date(papers: Any) -> list[Any]:
    return sorted(papers, key=lambda paper: (paper.published or "", paper.slug), reverse=True)


def known_costs() -> dict[tuple[str, str], float]:
    """(slug, experiment) -> seconds for one seed, from the ledger."""
    from broadsheet.lab.ledger import latest
    from broadsheet.lab.registry import entries

    return {
        (slug, name): record["seconds"] / max(1, len(record["metrics"]))
        for slug, data in latest(list(entries())).items()
        for name, record in data["experiments"].items()
    }


def _tell_provisional(screen: Any, plans: list[Plan], store: Any) -> None:
    """What this one seed says of each claim, beside what is recorded."""
    from broadsheet.cli.output import verdict
    from broadsheet.lab.ledger import verdict_list

    recorded = {
        (slug, s.claim.id): s for slug, states in recorded_claims([p.entry.slug for p in plans]).items() for s in states
    }
    rows = []
    for slug in dict.fromkeys(made.entry.slug for made in plans):
        for _, state in verdict_list([made for made in plans if made.entry.slug == slug], store):
            known = recorded.get((slug, state.claim.id))
            here = state.leaning or state.verdict
            rows.append((slug, state.claim.id, state.claim.statement, verdict(known.verdict if known else None), verdict(here)))
    if rows:
        columns: list[Any] = ["paper", "", ("claim", {"ratio": 1}), "recorded", "this seed"]
        screen.print(table(columns, rows, "Claims at quick size"))


def report(
    out: Annotated[Path | None, typer.Option("--out", help="The file to write.")] = None,
) -> None:
    """Write the report: one self-contained HTML page."""
    from broadsheet.page.report import write_report

    print(write_report(out))


def gc(
    budget: Annotated[str, typer.Option(metavar="SIZE", help="What stored arrays may take, such as 500M or 2G.")] = "2G",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Free the arrays that no verdict needs, oldest first; metrics are kept for ever."""
    from broadsheet.lab.engine import plan
    from broadsheet.lab.jobs import tidy
    from broadsheet.lab.messages import JobSpec
    from broadsheet.lab.paper import FIRST_SEED
    from broadsheet.lab.registry import entries
    from broadsheet.lab.store import Store

    store = Store()
    tidy(store)
    keep = set()
    for made in entries().values():
        for name, experiment in made.experiments.items():
            for preset in set(experiment.presets) - {"smoke"}:
                seeds = tuple(range(FIRST_SEED, FIRST_SEED + experiment.seeds_at(preset)))
                keep |= {run.id for run in plan(made, JobSpec(made.slug, name, preset, seeds=seeds), store).runs}
    count, freed = store.free(_bytes(budget), keep, dry_run)
    left = store.size() - (freed if dry_run else 0)
    if as_json:
        print_json({"runs": count, "bytes_freed": freed, "bytes_left": left, "dry_run": dry_run})
    else:
        print(
            f"{'Would free' if dry_run else 'Freed'} {freed / 2**20:.1f} MiB of {count} runs; {left / 2**20:.1f} MiB are kept."
        )


def _bytes(text: str) -> int:
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    unit = units.get(text[-1:].upper())
    try:
        size = float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        raise InputError(f"{text!r} is no size; 500M or 2G are.") from None
    if size < 0:
        raise InputError(f"{text!r} is negative.")
    return int(size)
