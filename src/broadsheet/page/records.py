"""Files of many records: the Hub's JSON of daily papers, arXiv's metadata as JSON lines, OpenReview's notes, this site's own
listings, and BibTeX."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from broadsheet.errors import DataError
from broadsheet.files import MIB, read_text
from broadsheet.page import bibtex
from broadsheet.page.facts import Facts

LARGEST = 512 * MIB
LONGEST_LINE = 2 * MIB
SUFFIXES = (".json", ".jsonl", ".ndjson", ".bib")
MOST = 200_000
"""Records of one file at the most."""


def is_records(path: str | Path) -> bool:
    """Whether a file's name says JSON, JSON lines or BibTeX."""
    return Path(path).suffix.lower() in SUFFIXES


def read_records(path: str | Path) -> tuple[str, list[Facts]]:
    """(source, papers) of a file of records; the source is `hub`, `arxiv`, `openreview`, `bibtex` or `page`.

    Names of authors are read in their order from all of them: `authors` as a list of names or of objects with a name, `names`,
    `author_names`, arXiv's `authors_parsed` or its text, and BibTeX's `author`.

    **Raises:** `DataError`, in one sentence that names the line, where a record is none.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"There is no file {path}.")
    if file.stat().st_size > LARGEST:
        raise DataError(f"{path} is larger than {LARGEST // MIB} MiB.")
    papers: list[Facts] = []
    source = "page"
    entries, read = (_entries(file), _entry) if file.suffix.lower() == ".bib" else (_records(file), _one)
    for where, record in entries:
        if len(papers) >= MOST:
            raise DataError(f"{path} holds more than {MOST} records; split it.")
        try:
            source, facts = read(record)
        except DataError as error:
            raise DataError(f"{path}, {where}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}, {where} is no paper's record ({type(error).__name__}: {str(error)[:80]}).") from None
        papers.append(facts)
    if not papers:
        raise DataError(f"{path} holds no records.")
    return source, papers


def _records(file: Path) -> Iterator[tuple[str, Any]]:
    """Each record, with the words that say where it stands."""
    with file.open("rb") as stream:
        first = stream.read(1)
        while first.isspace():
            first = stream.read(1)
        stream.seek(0)
        if first == b"[":
            if file.stat().st_size > 64 * MIB:
                raise DataError(f"{file} is one JSON list of more than 64 MiB; write one record a line instead.")
            try:
                for k, record in enumerate(json.loads(stream.read()), 1):
                    yield f"record {k}", record
            except (ValueError, RecursionError) as error:
                raise DataError(f"{file} is not JSON ({str(error)[:80]}).") from None
            return
        for k, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b""), 1):
            if len(line) > LONGEST_LINE:
                raise DataError(f"{file}, line {k} is longer than {LONGEST_LINE // MIB} MiB.")
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{file}, line {k} is not JSON ({str(error)[:80]}).") from None
            notes = record.get("notes") if isinstance(record, dict) else None
            if isinstance(notes, list):  # an answer of OpenReview, on one line
                yield from ((f"line {k}, note {n}", note) for n, note in enumerate(notes, 1))
            else:
                yield f"line {k}", record


def _entries(file: Path) -> Iterator[tuple[str, Any]]:
    """Each entry of BibTeX."""
    try:
        for key, fields in bibtex.entries(read_text(file, 64 * MIB)):
            yield f"entry {key[:60]!r}", fields
    except DataError as error:
        raise DataError(str(error) if str(file) in str(error) else f"{file}: {error}.") from None


def _entry(fields: dict[str, str]) -> tuple[str, Facts]:
    return "bibtex", bibtex.facts(fields)


def _one(record: dict[str, Any]) -> tuple[str, Facts]:
    if not isinstance(record, dict):
        raise DataError(f"a {type(record).__name__} stands where a record is wanted")
    if "paper" in record or "publishedAt" in record:
        return "hub", from_hub(record)
    if "authors_parsed" in record or "update_date" in record:
        return "arxiv", from_arxiv_snapshot(record)
    if isinstance(record.get("content"), dict):
        return "openreview", from_openreview(record)
    given = record.get("authors")
    count = given if isinstance(given, int) else None
    names = people(record.get("names") or record.get("author_names") or (None if count is not None else given))
    return "page", Facts(
        title=_text(record, "title"),
        arxiv=record.get("arxiv") or None,
        abstract=record.get("abstract") or None,
        authors=count,
        names=names or None,
        published=record.get("published") or None,
        comments=record.get("comments"),
        upvotes=record.get("upvotes"),
    )


def people(given: Any) -> tuple[str, ...]:
    """The names of authors in their order: of a list of names or of objects with one, or of a text with commas or "and".

    **Raises:** `ValueError` for anything else.
    """
    if given is None:
        return ()
    if isinstance(given, str):
        text = re.sub(r"\([^()]*\)", " ", given)  # where they work
        parts = re.split(r"\s+and\s+", text)
        if len(parts) < 2 or not all("," in part for part in parts):  # not "Last, First and Last, First"
            parts = [part for part in re.split(r",\s*and\s+|\s+and\s+|[,;]", text) if part.strip()]
        given = [" ".join(reversed(part.split(",", 1))) for part in parts]
        if not all(len(name.split()) > 1 for name in given if name.strip().casefold() not in ("others", "et al.")):
            raise ValueError(f"its authors are {text[:40]!r}, no names")
    if not isinstance(given, list):
        raise ValueError(f"its authors are {str(given)[:40]!r}, no names")
    found = [item.get("name") or item.get("fullname") if isinstance(item, dict) else item for item in given]
    if not all(isinstance(name, str) for name in found if name is not None):
        raise ValueError(f"its authors are {str(given)[:40]!r}, no names")
    return tuple(name for name in found if name)


def from_openreview(note: dict[str, Any]) -> Facts:
    """A note of OpenReview, of either version of its interface; `pdate` and `cdate` are milliseconds."""
    content = {name: item.get("value") if isinstance(item, dict) else item for name, item in note["content"].items()}
    stamp = note.get("pdate") or note.get("cdate")
    names = people(content.get("authors"))
    return Facts(
        title=_text(content, "title"),
        abstract=content.get("abstract") or None,
        authors=len(names) or None,
        names=names or None,
        published=datetime.fromtimestamp(stamp / 1000, UTC).date().isoformat() if stamp else None,
    )


def from_hub(item: dict[str, Any]) -> Facts:
    """A paper in the shape of the Hub's `/api/daily_papers`: the paper itself, or an entry that has it under `paper`."""
    inner = item.get("paper")
    paper: dict[str, Any] = {**item, **inner} if isinstance(inner, dict) else item
    authors = paper.get("authors")
    names = people(authors) if isinstance(authors, list) else ()
    published = paper.get("publishedAt")
    return Facts(
        title=_text(paper, "title"),
        arxiv=str(paper["id"]) if paper.get("id") else None,
        abstract=str(paper["summary"]) if paper.get("summary") else None,
        authors=len(names) or None,
        names=names or None,
        published=str(published)[:10] if published else None,
        comments=_count(item.get("numComments", paper.get("numComments"))),
        upvotes=_count(paper.get("upvotes")),
    )


def from_arxiv_snapshot(record: dict[str, Any]) -> Facts:
    """A record of arXiv's published metadata (`arxiv-metadata-oai-snapshot.json`)."""
    parsed = record.get("authors_parsed")
    names = tuple(" ".join(part for part in (a[1], a[0], *a[2:3]) if part) for a in parsed) if parsed else ()
    names = names or people(record.get("authors"))
    versions = record.get("versions") or ()
    return Facts(
        title=_text(record, "title"),
        arxiv=str(record["id"]),
        abstract=record.get("abstract") or None,
        authors=len(names) or None,
        names=names or None,
        published=_first_version(versions) or record.get("update_date"),
    )


def _first_version(versions: Any) -> str | None:
    if not versions:
        return None
    from email.utils import parsedate_to_datetime

    return parsedate_to_datetime(versions[0]["created"]).date().isoformat()


def _text(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise DataError(f"its {name} is {str(value)[:40]!r}, no text")
    return value


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
