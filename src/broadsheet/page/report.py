"""The report: one self-contained HTML page of all papers, their verdicts, figures, how to run each, and what failed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from broadsheet.cache import home, write_atomic
from broadsheet.lab import ledger
from broadsheet.page import reading
from broadsheet.page.catalogue import Catalogue
from broadsheet.page.standing import Drawn, Standing, standings

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATE = Path(__file__).parent / "report.html.j2"


def write_report(out: Path | None = None) -> Path:
    """Writes the report and returns its path; by default `report.html` in the home folder."""
    path = (out or home() / "report.html").absolute()
    write_atomic(path, render())
    return path


def render() -> str:
    """The report as HTML, with styles and figures inside and nothing to load."""
    environment = reading.environment()
    environment.filters["svg"] = _svg
    papers = sorted(Catalogue().papers().values(), key=lambda paper: (paper.published or "", paper.slug), reverse=True)
    known = standings()
    running = [known[paper.slug] for paper in papers if paper.slug in known]
    return environment.get_template(TEMPLATE.name).render(
        papers=papers,
        running={item.entry.slug: item for item in running},
        totals=totals(running),
        bases=ledger.BASES,
        styles=reading.STYLES.read_text(),
        troubles=[(item.entry, state) for item in running for state in item.claims if reading.in_trouble(state)],
        stale=sum(state.verdict == "stale" and not reading.in_trouble(state) for item in running for state in item.claims),
        made=datetime.now(UTC).strftime("%-d %B %Y, %H:%M UTC"),
    )


def totals(running: Sequence[Standing]) -> dict[str, dict[str, int]]:
    """What it rests on, in words -> verdict counts, of all papers of that basis."""
    return {
        text: ledger.counts(state for item in running if item.entry.facts["basis"] == basis for state in item.claims)
        for basis, text in ledger.BASES.items()
        if any(item.entry.facts["basis"] == basis for item in running)
    }


def _svg(figure: Drawn, slug: str, experiment: str) -> Markup:
    from markupsafe import Markup

    return Markup(_inline(figure.file, f"{slug}-{experiment}-{figure.name}"))


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
