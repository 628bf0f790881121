"""The report: one self-contained HTML page of all papers, their verdicts, figures, how to run each, and what failed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from broadsheet.cache import home, write_atomic
from broadsheet.lab import ledger, location
from broadsheet.lab.identity import code_hash
from broadsheet.lab.location import figures_folder
from broadsheet.lab.paper import FIRST_SEED
from broadsheet.lab.registry import Entry, entries
from broadsheet.lab.verdicts import GOOD, judge
from broadsheet.page.catalogue import Catalogue, ListedPaper

TEMPLATE = Path(__file__).parent / "report.html.j2"


def write_report(out: Path | None = None) -> Path:
    """Writes the report and returns its path; by default `report.html` in the home folder."""
    path = (out or home() / "report.html").absolute()
    write_atomic(path, render())
    return path


def render() -> str:
    """The report as HTML, with styles and figures inside and nothing to load."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: "–" if value is None or value != value else f"{value:.4g}"
    environment.filters["svg"] = lambda text: Markup(text)
    papers = sorted(Catalogue().papers().values(), key=lambda paper: (paper.published or "", paper.slug), reverse=True)
    known = ledger.latest(list(entries()))
    runs = _stored_runs()
    running = [_running(paper, entries()[paper.slug], known, runs) for paper in papers if paper.slug in entries()]
    return environment.get_template(TEMPLATE.name).render(
        papers=papers,
        running={item["paper"].slug: item for item in running},
        totals={
            text: ledger.counts(state for item in running if item["paper"].basis == basis for state in item["claims"])
            for basis, text in ledger.BASES.items()
            if any(item["paper"].basis == basis for item in running)
        },
        bases=ledger.BASES,
        troubles=[
            (item["paper"], state)
            for item in running
            for state in item["claims"]
            if state.verdict and state.verdict not in GOOD
        ],
        made=datetime.now(UTC).strftime("%-d %B %Y, %H:%M UTC"),
    )


def _running(paper: ListedPaper, entry: Entry, known: dict[str, Any], runs: dict[tuple[str, str], Any]) -> dict[str, Any]:
    """What the page shows of a paper that runs here."""
    recorded = ledger.states(entry, known.get(entry.slug))
    presets = {state.preset for state in recorded if state.preset}
    return {
        "paper": paper,
        "entry": entry,
        "claims": recorded,
        "counts": ledger.counts(recorded),
        "scale": ", ".join(ledger.scale(preset, entry.facts["basis"]) for preset in sorted(presets)),
        "here": {state.claim.id: _here(entry, state, runs) for state in recorded if state.experiment},
        "figures": {name: _figures(entry.slug, name) for name in entry.experiments},
        "seconds": {
            n: r["seconds"] / max(1, len(r["metrics"])) for n, r in known.get(entry.slug, {}).get("experiments", {}).items()
        },
        "made": known.get(entry.slug, {}).get("made", "")[:10],
    }


def _stored_runs() -> dict[tuple[str, str], Any]:
    """(slug, experiment) -> seed -> variant or arm -> metrics, of runs at quick size of this home with the present code."""

    from broadsheet.lab.store import Store

    if not location.exists():
        return {}
    table: dict[tuple[str, str], Any] = {}
    for run in Store().find(preset="quick"):
        made = entries().get(run.slug)
        if made is None or run.experiment not in made.experiments:
            continue
        experiment = made.experiments[run.experiment]
        untouched = run.variant == "system" or run.variant in experiment.variants
        if run.seed < FIRST_SEED or not untouched or run.code_hash != code_hash(made, experiment):
            continue
        arms = table.setdefault((run.slug, run.experiment), {}).setdefault(run.seed, {})
        for arm, metrics in run.scalars.items():
            if not arm or run.variant == "system":
                arms[arm or run.variant] = {k: float("nan") if v is None else v for k, v in metrics.items()}
    return table


def _here(entry: Entry, state: Any, runs: dict[tuple[str, str], Any]) -> str | None:
    """What this home's own runs say of a claim: its verdict, or "holds on 1 seed" where there are fewer than it asks for."""
    table = runs.get((entry.slug, state.experiment))
    if not table:
        return None
    found = judge(state.claim, table, "quick", deterministic=entry.experiments[state.experiment].deterministic)
    if found.verdict == "not run":
        return None
    if found.leaning:
        return f"{found.leaning} on {len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"
    return found.verdict


def _figures(slug: str, experiment: str) -> list[dict[str, str]]:
    """The figures of an experiment: of this home's largest runs, else those that came with its recorded verdicts."""
    places = [(figures_folder(home(), slug, experiment, preset), preset) for preset in ("paper", "quick")]
    places.append((ledger.shown_figures(ledger.ledger_folder(), slug, experiment), "quick"))
    for folder, preset in places:
        files = sorted(folder.glob("*.svg"))
        if files:
            return [
                {
                    "svg": _inline(file, f"{slug}-{experiment}-{file.stem}"),
                    "caption": file.with_suffix(".txt").read_text(),
                    "preset": preset,
                }
                for file in files
            ]
    return []


def _inline(file: Path, prefix: str) -> str:
    """An SVG for the middle of a page: no prologue, names of its own, as wide as it fits."""
    text = file.read_text()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\1{prefix}-", text)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups()  # type: ignore[union-attr]
    opening = (
        f'<svg viewBox="0 0 {width} {height}" role="img" xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'style="max-width:{float(width) * 1.4:.0f}px; min-width:{float(width) * 0.7:.0f}px">'
    )
    return re.sub(r"<svg[^>]*>", opening, text, count=1)
