"""What the commands print: tables on a terminal or off it, JSON, and live progress that is quiet off a terminal."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from broadsheet.lab.claims import Claim
    from broadsheet.lab.engine import Plan, Watch
    from broadsheet.lab.messages import News
    from broadsheet.lab.verdicts import Outcome, Trial

STYLES = {
    "holds": "green", "reference": "green", "mixed": "yellow", "fails": "red", "vacuous": "magenta",
    "provisional": "cyan", "stale": "dim yellow", "reported": "blue", "not run": "dim",
}  # fmt: skip


def console() -> Console:
    """Rich's console; 120 columns wide where the output is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120, highlight=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """JSON on standard output; numbers that are not finite become null."""
    from broadsheet.lab.metrics import finite

    print(json.dumps(finite(value), indent=1, ensure_ascii=False))


def table(columns: Sequence[str | tuple[str, dict[str, Any]]], rows: Sequence[Sequence[Any]], title: str = "") -> Any:
    """A Rich table without frame."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False, padding=(0, 1))
    for column in columns:
        name, options = (column, {}) if isinstance(column, str) else column
        made.add_column(name, **options)
    for row in rows:
        made.add_row(*(cell if not isinstance(cell, str | int | float) and cell is not None else _text(cell) for cell in row))
    return made


def _text(value: Any) -> str:
    from rich.markup import escape

    return "" if value is None else escape(str(value))


def verdict(name: str | None) -> Any:
    """A verdict in its colour."""
    from rich.text import Text

    name = name or "not run"
    return Text(name, style=STYLES.get(name, ""))


def number(value: float | None) -> str:
    """A number as people read it."""
    return "–" if value is None or value != value else f"{value:.4g}"


def counts_text(counts: Mapping[str, int]) -> Any:
    """Verdict counts in their colours."""
    from rich.text import Text

    made = Text()
    for name, count in counts.items():
        made.append(f"{', ' if len(made) else ''}{count} {name}", style=STYLES.get(name, ""))
    return made


def checks_text(claim: Claim, outcomes: Sequence[Outcome], intervals: bool = False) -> str:
    """Each check with its value and bound, and of what it is where that is a difference, or another arm than the claim's."""
    lines = []
    for outcome in outcomes:
        of = "" if outcome.of == claim.about else f" ({outcome.of})"
        known = intervals and outcome.low is not None and outcome.high is not None
        interval = f" ({number(outcome.low)} to {number(outcome.high)})" if known else ""
        lines.append(f"{outcome.metric}{of} {number(outcome.value)}{interval} {outcome.bound}")
    return "\n".join(lines)


def controls_text(trials: Sequence[Trial]) -> str:
    """Each control with its value for each check, and whether it meets the claim; a difference says so."""
    lines = []
    for trial in trials:
        values = ", ".join(
            f"{'' if outcome.of == trial.control else f'{outcome.of} '}{number(outcome.value)}" for outcome in trial.outcomes
        )
        lines.append(f"{trial.control}: {values}{' meets it' if trial.met else ' may meet it' if trial.unclear else ''}")
    return "\n".join(lines)


def warning_lines(claim: Claim, trials: Sequence[Trial], warnings: Sequence[str]) -> list[str]:
    """What is to be said of a claim and of each control that may fail by construction, with the paper's answer."""
    lines = [f"{claim.id}: {warning}." for warning in warnings]
    for trial in trials:
        if trial.warnings:
            answer = f" The paper's file: {trial.answer}" if trial.answer else ""
            lines.append(f"{claim.id}, control {trial.control}: {'; '.join(trial.warnings)}.{answer}")
    return lines


@contextlib.contextmanager
def progress(plans: Sequence[Plan]) -> Iterator[Watch]:
    """A watcher for `execute`: a bar an experiment on a terminal, nothing off it."""
    if not sys.stderr.isatty():
        yield lambda plan, news: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    from broadsheet.lab.messages import Progress, Recorded, Started

    bars = Bars(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[live]}"), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    with bars:
        tasks = {
            id(made): bars.add_task(
                f"{made.entry.slug} {made.experiment.name}", total=max(1, len(made.missing)), live="", start=False
            )
            for made in plans
            if made.missing
        }
        finished = dict.fromkeys(tasks, 0)

        def watch(made: Plan, news: News) -> None:
            task = tasks.get(id(made))
            if task is None:
                return
            if isinstance(news, Started):
                bars.start_task(task)
                bars.update(task, live=f"{news.variant}, seed {news.seed}")
            elif isinstance(news, Progress):
                live = " ".join(f"{name} {value:.3g}" for name, value in news.metrics.items())
                bars.update(task, completed=finished[id(made)] + news.fraction)
                if live:
                    bars.update(task, live=live)
            elif isinstance(news, Recorded):
                finished[id(made)] += 1
                bars.update(task, completed=finished[id(made)])

        yield watch


@contextlib.contextmanager
def bar(text: str) -> Iterator[Callable[[float, str], None]]:
    """A progress bar on a terminal, nothing off it."""
    if not sys.stderr.isatty():
        yield lambda share, live: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    made = Progress(TextColumn(text), BarColumn(), TextColumn("{task.fields[live]}"), TimeRemainingColumn(),
                   console=Console(stderr=True), transient=True)  # fmt: skip
    with made:
        task = made.add_task("", total=1.0, live="")
        yield lambda share, live: made.update(task, completed=share, live=live)
