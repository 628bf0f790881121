"""Keyword search over the catalogue, with SQLite's full-text index (FTS5), made in memory from what is known now."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable

from broadsheet.errors import InputError
from broadsheet.page.catalogue import ListedPaper

COLUMNS = ("title", "summary", "abstract", "topics", "names")


def search(papers: Iterable[ListedPaper], query: str, most: int = 20) -> list[tuple[ListedPaper, str]]:
    """Papers that hold all words of the query (as beginnings of words), the best first, with a snippet.

    Titles weigh most. Words in double quotes are searched as a phrase.
    """
    terms = [f'"{phrase}"' if phrase else f'"{word}"*' for phrase, word in re.findall(r'"([^"]+)"|([\w\'-]+)', query)]
    if not terms:
        raise InputError(f"{query!r} holds no word to search for.")
    known = {paper.slug: paper for paper in papers}
    with sqlite3.connect(":memory:") as index:
        index.execute(
            f"CREATE VIRTUAL TABLE papers USING fts5(slug UNINDEXED, {', '.join(COLUMNS)}, "
            "tokenize='porter unicode61 remove_diacritics 2')"
        )
        index.executemany(
            "INSERT INTO papers VALUES (?, ?, ?, ?, ?, ?)",
            [(p.slug, p.title, p.summary, p.abstract or "", " ".join(p.topics), " ".join(p.names)) for p in known.values()],
        )
        found = index.execute(
            "SELECT slug, snippet(papers, -1, '', '', '…', 16) FROM papers WHERE papers MATCH ? "
            "ORDER BY bm25(papers, 0, 8, 4, 2, 3, 2) LIMIT ?",
            (" ".join(terms), most),
        ).fetchall()
    return [(known[slug], snippet) for slug, snippet in found]
