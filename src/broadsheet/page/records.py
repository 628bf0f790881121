"""Files of many records: the Hub's JSON of daily papers, arXiv's metadata as JSON lines, or this site's own listings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from broadsheet.errors import DataError
from broadsheet.files import MIB
from broadsheet.page.facts import Facts

LARGEST = 512 * MIB
LONGEST_LINE = 2 * MIB
MOST = 200_000
"""Records of one file at the most."""


def is_records(path: str | Path) -> bool:
    """Whether a file's name says JSON or JSON lines."""
    return Path(path).suffix.lower() in (".json", ".jsonl", ".ndjson")


def read_records(path: str | Path) -> tuple[str, list[Facts]]:
    """(source, papers) of a file of records; the source is `hub`, `arxiv` or `page`.

    **Raises:** `DataError`, in one sentence that names the line, where a record is none.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"There is no file {path}.")
    if file.stat().st_size > LARGEST:
        raise DataError(f"{path} is larger than {LARGEST // MIB} MiB.")
    papers: list[Facts] = []
    source = "page"
    for where, record in _records(file):
        if len(papers) >= MOST:
            raise DataError(f"{path} holds more than {MOST} records; split it.")
        try:
            source, facts = _one(record)
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
                yield f"line {k}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{file}, line {k} is not JSON ({str(error)[:80]}).") from None


def _one(record: dict[str, Any]) -> tuple[str, Facts]:
    if not isinstance(record, dict):
        raise DataError(f"a {type(record).__name__} stands where a record is wanted")
    if "paper" in record or "publishedAt" in record:
        return "hub", from_hub(record)
    if "authors_parsed" in record or "update_date" in record:
        return "arxiv", from_arxiv_snapshot(record)
    names = record.get("names") or record.get("author_names")
    return "page", Facts(
        title=_text(record, "title"),
        arxiv=record.get("arxiv") or None,
        abstract=record.get("abstract") or None,
        authors=record.get("authors"),
        names=tuple(names) if names else None,
        published=record.get("published") or None,
        comments=record.get("comments"),
        upvotes=record.get("upvotes"),
    )


def from_hub(item: dict[str, Any]) -> Facts:
    """A paper in the shape of the Hub's `/api/daily_papers`: the paper itself, or an entry that has it under `paper`."""
    inner = item.get("paper")
    paper: dict[str, Any] = {**item, **inner} if isinstance(inner, dict) else item
    authors = paper.get("authors")
    names = tuple(str(a["name"]) for a in authors if isinstance(a, dict) and a.get("name")) if isinstance(authors, list) else ()
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
    parsed = record.get("authors_parsed") or ()
    names = tuple(" ".join(part for part in (a[1], a[0]) if part) for a in parsed)
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
