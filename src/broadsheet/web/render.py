"""Templates, and how they show values."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from broadsheet.lab.ledger import Recorded
from broadsheet.page import citation, reading
from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.edition import View, week_name
from broadsheet.web import mathematics
from broadsheet.web.security import message_for

FOLDER = Path(__file__).parent
ADDRESS = re.compile(r"(?:https?://)?((?:[a-z0-9-]+\.)+[a-z]{2,}/[^\s,;()<>\"']*[^\s,;()<>\"'.:])", re.IGNORECASE)
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def day_text(day: str | date) -> str:
    """11 December 2025."""
    return date.fromisoformat(str(day)).strftime("%-d %B %Y") if day else ""


def short_day(day: str) -> str:
    """11 Dec 2025."""
    return date.fromisoformat(day).strftime("%-d %b %Y")


def latest_name(view: View) -> str:
    """What the latest day is called: "Today" where it is today."""
    day = next(iter(view.days), "")
    return "Latest" if not day else "Today" if day == date.today().isoformat() else short_day(day)


def base(request: Request) -> str:
    """The site's public address, without a slash at its end."""
    return (request.app.state.settings.url or str(request.base_url)).rstrip("/")


def addresses(text: str) -> list[str]:
    """The addresses that stand in a text, such as that of a paper's code."""
    return [f"https://{found}" for found in ADDRESS.findall(text)]


def linked(text: str) -> Markup:
    """A text with the addresses in it as links."""
    parts, place = [], 0
    for found in ADDRESS.finditer(text):
        parts += [
            escape(text[place : found.start()]),
            Markup('<a href="https://{}" rel="noopener">{}</a>').format(found[1], found[0]),
        ]
        place = found.end()
    return Markup("").join([*parts, escape(text[place:])])


def headline(claims: Iterable[Recorded]) -> reading.Reading | None:
    """The first of the paper's own claims that was measured beside a control, to be shown at a glance."""
    own = (reading.read(state) for state in claims if state.claim.kind == "paper" and state.outcomes)
    return next((found for found in own if found.strips and len(found.strips[0].rows) > 1), None)


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


def feed(template: str, **given: Any) -> str:
    """A feed; characters that XML does not have are left out, as one of them would make it unreadable."""
    return NOT_XML.sub("", templates.get_template(template).render(given))


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
    autoescape=select_autoescape(default=True, disabled_extensions=("txt",)),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters |= reading.FILTERS | {
    "rich": mathematics.rich, "plain": mathematics.plain, "snippet": mathematics.snippet, "day": day_text,
    "seconds": seconds, "lead": lead, "linked": linked, "addresses": addresses, "headline": headline,
    "message_for": lambda message, administrator, state: message_for(administrator, state, message),
}  # fmt: skip
templates.globals |= reading.WORDS | {
    "asset": asset, "link": link, "plural": plural, "latest_name": latest_name, "pdf_url": citation.pdf_url,
    "abstract_url": citation.abstract_url,
    "week_name": lambda day: week_name(date.fromisoformat(day)), "month_name": lambda day: day[:7],
}  # fmt: skip
