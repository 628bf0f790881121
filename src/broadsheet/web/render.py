"""Templates, and how they show values."""

from __future__ import annotations

import zlib
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from broadsheet.page import reading
from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.edition import week_name
from broadsheet.web import mathematics
from broadsheet.web.security import message_for

FOLDER = Path(__file__).parent


def day_text(day: str | date) -> str:
    """11 December 2025."""
    return date.fromisoformat(str(day)).strftime("%-d %B %Y") if day else ""


def plural(count: int | None, word: str) -> str:
    return f"{count or 0} {word}{'' if count == 1 else 's'}"


def seconds(value: float) -> str:
    """A duration: 0.4 s, 12 s, 3 min, 2.5 h."""
    if value < 90:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def lead(paper: ListedPaper, most: int = 420) -> str:
    """Our summary, else the start of the abstract, cut at a word."""
    text = paper.summary or paper.abstract or ""
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " …"


def asset(name: str) -> str:
    """The address of a file of ours, which changes when the file does."""
    return f"/static/{name}?v={_stamps[name]}"


def link(path: str, **query: Any) -> str:
    """An address with a query; empty values are left out."""
    kept = {name: value for name, value in query.items() if value not in ("", None, False, 0)}
    return quote(path, safe="/:.-_~") + (f"?{urlencode(kept)}" if kept else "")


_stamps = {file.name: f"{zlib.crc32(file.read_bytes()):08x}" for file in [*(FOLDER / "static").iterdir(), reading.STYLES]}

templates = Environment(
    loader=ChoiceLoader([FileSystemLoader(FOLDER / "templates"), reading.loader()]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters |= reading.FILTERS | {
    "rich": mathematics.rich, "plain": mathematics.plain, "snippet": mathematics.snippet, "day": day_text,
    "seconds": seconds, "lead": lead,
    "message_for": lambda message, administrator, state: message_for(administrator, state, message),
}  # fmt: skip
templates.globals |= reading.WORDS | {
    "asset": asset, "link": link, "plural": plural,
    "week_name": lambda day: week_name(date.fromisoformat(day)), "month_name": lambda day: day[:7],
}  # fmt: skip
