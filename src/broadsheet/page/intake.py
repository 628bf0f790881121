"""What an import is given, turned into papers: files of several kinds, live sources, arXiv ids."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from broadsheet.cache import home
from broadsheet.errors import InputError
from broadsheet.files import read_text
from broadsheet.lab import presence
from broadsheet.page import records, saved
from broadsheet.page import sources as live
from broadsheet.page.facts import Facts, arxiv_id
from broadsheet.page.identifiers import doi, identifier

MOST_IDS = 10_000


def read(sources: list[str], as_of: date | None = None) -> tuple[str, list[Facts], date]:
    """(name of the source, its papers, the day they are as of).

    **Arguments:** `sources`: one of `daily`, `daily:YYYY-MM-DD`, `hub:QUERY`, `arxiv:QUERY`, a saved page, a file of
    records, of BibTeX or of arXiv ids; or arXiv ids, in any spelling (`identifiers.identifier`).
    """
    first = sources[0]
    when = as_of or date.today()
    if len(sources) == 1:
        found = live_source(first, as_of)
        if found is not None:
            return found
    ids = [" ".join(sources)] if identifier(" ".join(sources)) else sources  # "arXiv 2306.16922" is one
    if live.looks_like_ids(ids):
        return "arxiv", live.arxiv_ids(ids), when
    if len(sources) > 1:
        raise InputError("Give one file or source at a time, or arXiv ids only.")
    if ("://" in first or doi(first)) and not Path(first).exists():
        arxiv_id(first)  # says what it is instead
    if records.is_records(first):
        name, papers = records.read_records(first)
        return name, papers, when
    text = read_text(first, saved.LARGEST)
    for words in ([line for line in text.splitlines() if line.strip()], text.split(maxsplit=MOST_IDS)):
        if words and len(words) < MOST_IDS and live.looks_like_ids(words):
            return "arxiv", live.arxiv_ids(words), when
    page = saved.read_any(text, first, as_of, date.today())
    return "page", list(page.papers), page.as_of


def live_source(text: str, as_of: date | None = None) -> tuple[str, list[Facts], date] | None:
    """The papers of a live source, as `read`; None where the text names none."""
    when = as_of or date.today()
    kind, colon, rest = text.partition(":")
    if kind == "daily":
        wanted = day(rest) if colon else as_of
        return "hub", live.hub_daily(wanted), wanted or when
    if kind == "hub" and colon:
        return "hub", live.hub_search(rest), when
    if kind == "arxiv" and colon and not live.looks_like_ids([text]):
        return "arxiv", live.arxiv_search(rest), when
    return None


def day(text: str) -> date:
    """A day as YYYY-MM-DD; raises `InputError` where it is none."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is no date; YYYY-MM-DD is wanted.") from None


def uploaded(content: bytes, name: str, as_of: date | None = None) -> tuple[str, list[Facts], date]:
    """As `read`, of a file that was sent by a browser; `name` is what its sender calls it."""
    suffix = Path(name).suffix.lower()
    with presence.temporary(home()) as folder:
        path = folder / f"page{suffix if suffix in records.SUFFIXES else '.txt'}"
        path.write_bytes(content)
        try:
            return read([str(path)], as_of)
        except InputError as error:
            raise type(error)(str(error).replace(str(path), name[:100] or "the page")) from None
