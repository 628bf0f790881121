"""Search by words: a full-text index (SQLite's FTS5) in memory that knows typing errors, phrases and hyphens.

With embeddings (`broadsheet.page.meaning`) its ranking is fused with that by meaning: reciprocal ranks are added
(Cormack et al., SIGIR 2009).
"""

from __future__ import annotations

import re
import sqlite3
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from broadsheet.errors import InputError
from broadsheet.page.catalogue import ListedPaper

COLUMNS = ("title", "summary", "abstract", "topics", "names")
WEIGHTS = "0, 8, 4, 2, 3, 2"
WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
COMMON = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "can",
        "do",
        "does",
        "for",
        "from",
        "has",
        "have",
        "how",
        "i",
        "in",
        "into",
        "is",
        "it",
        "its",
        "me",
        "not",
        "no",
        "of",
        "on",
        "one",
        "or",
        "so",
        "some",
        "than",
        "that",
        "the",
        "their",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "use",
        "used",
        "using",
        "via",
        "we",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "with",
        "without",
        "you",
        "your",
    ]
)
LONGEST_QUERY = 400


@dataclass(frozen=True)
class Found:
    """What the words of a query found, each the best first.

    `all_words`: short names of papers that hold them all; `some_words`: of others; `read_as`: a word -> what it was read as.
    """

    all_words: list[str]
    some_words: list[str]
    read_as: dict[str, str]

    @property
    def slugs(self) -> list[str]:
        return self.all_words + self.some_words


class Words:
    """The full-text index of a set of papers. Safe to search from several threads; `update` replaces papers."""

    def __init__(self, papers: Iterable[ListedPaper] = ()) -> None:
        self._lock = threading.Lock()
        self._index = sqlite3.connect(":memory:", check_same_thread=False)
        self._index.execute(
            f"CREATE VIRTUAL TABLE papers USING fts5(slug UNINDEXED, {', '.join(COLUMNS)}, "
            "tokenize='porter unicode61 remove_diacritics 2', prefix='2 3')"
        )
        self._index.execute("CREATE TABLE places (slug TEXT PRIMARY KEY, place INTEGER)")
        self._vocabulary: Counter[str] = Counter()
        self.update(papers)

    def update(self, papers: Iterable[ListedPaper]) -> None:
        """Adds papers, or replaces those of the same short name."""
        with self._lock, self._index:
            for paper in papers:
                old = self._index.execute("SELECT place FROM places WHERE slug = ?", (paper.slug,)).fetchone()
                if old:
                    self._index.execute("DELETE FROM papers WHERE rowid = ?", old)
                row = (paper.title, paper.summary, paper.abstract or "", " ".join(paper.topics), " ".join(paper.names))
                made = self._index.execute("INSERT INTO papers VALUES (?, ?, ?, ?, ?, ?)", (paper.slug, *row))
                self._index.execute("INSERT OR REPLACE INTO places VALUES (?, ?)", (paper.slug, made.lastrowid))
                self._vocabulary.update(set(_words(" ".join(row))))

    def search(self, query: str, most: int = 200) -> Found:
        """Papers that hold all words of the query (as beginnings of words), then those that hold some of them.

        Titles weigh most. Words in double quotes are searched as a phrase and have to be there. A word that no paper
        holds is read as the nearest one that some do. Raises `InputError` for a query without a word.
        """
        terms, read_as = self._terms(query)
        with self._lock:
            every = self._match(" AND ".join(term for term, _ in terms), most)
            must = [term for term, phrase in terms if phrase]
            loose = [term for term, phrase in terms if not phrase]
            some = []
            if len(every) < most and len(loose) > 1:
                some = self._match(" AND ".join([*must, "(" + " OR ".join(loose) + ")"]), most)
        held = set(every)
        return Found(every, [slug for slug in some if slug not in held][: most - len(every)], read_as)

    def snippet(self, query: str, slug: str) -> str:
        """Where a paper holds the query's words: a few words around, marked with \x02 and \x03."""
        terms, _ = self._terms(query)
        with self._lock:
            place = self._index.execute("SELECT place FROM places WHERE slug = ?", (slug,)).fetchone()
            found = place and self._index.execute(
                "SELECT snippet(papers, -1, char(2), char(3), '…', 24) FROM papers WHERE papers MATCH ? AND rowid = ?",
                (" OR ".join(term for term, _ in terms), place[0]),
            ).fetchone()  # fmt: skip
        return found[0] if found else ""

    def _match(self, expression: str, most: int) -> list[str]:
        found = self._index.execute(
            f"SELECT slug FROM papers WHERE papers MATCH ? ORDER BY bm25(papers, {WEIGHTS}) LIMIT ?", (expression, most)
        )
        return [slug for (slug,) in found]

    def _terms(self, query: str) -> tuple[list[tuple[str, bool]], dict[str, str]]:
        """((FTS5 term, whether it is a phrase) for each word, words that were read as others)."""
        if len(query) > LONGEST_QUERY:
            raise InputError(f"The query has {len(query)} characters; {LONGEST_QUERY} are possible.")
        query = unicodedata.normalize("NFC", query).replace("\u201c", '"').replace("\u201d", '"')
        read_as: dict[str, str] = {}
        terms: list[tuple[str, bool]] = []
        words = []
        for phrase, rest in re.findall(r'"([^"]+)"|([^"]+)', query):
            if phrase and _words(phrase):
                terms.append((_quoted(" ".join(_words(phrase))), True))
            words += WORD.findall(rest.lower())
        plain = [word for word in words if word not in COMMON] or words
        for word in dict.fromkeys(plain[:40]):
            parts = _words(word)
            if len(parts) > 1:  # post-synaptic is also postsynaptic
                terms.append((f"({_quoted(' '.join(parts))}* OR {_quoted(''.join(parts))}*)", False))
            elif parts:
                known = self._known(parts[0])
                if known != parts[0]:
                    read_as[word] = known
                terms.append((f"{_quoted(known)}*", False))
        if not terms:
            raise InputError(f"{query.strip()[:60]!r} holds no word to search for.")
        return terms, read_as

    def _known(self, word: str) -> str:
        """The word itself where some paper holds it (or its stem), else the nearest that one holds."""
        if len(word) < 4 or word in self._vocabulary:
            return word
        with self._lock:
            if self._match(f"{_quoted(word)}*", 1):
                return word
        from rapidfuzz import process
        from rapidfuzz.distance import DamerauLevenshtein

        allowed = 1 if len(word) < 8 else 2
        near = process.extract(
            word, self._vocabulary.keys(), scorer=DamerauLevenshtein.distance, score_cutoff=allowed, limit=20
        )  # fmt: skip
        near = [item for item in near if item[0] not in COMMON and len(item[0]) >= 4]
        best = min(near, key=lambda item: (item[1], item[0][0] != word[0], -self._vocabulary[item[0]]), default=None)
        return best[0] if best else word


def fuse(*rankings: Sequence[str], k: int = 10) -> list[str]:
    """Reciprocal rank fusion: each ranking adds `1 / (k + rank)`; the best first, ties in the first ranking's order.

    `k` is small because a page shows few: the first places of one ranking outweigh middling ones in both.
    """
    score: dict[str, float] = {}
    for ranking in rankings:
        for rank, slug in enumerate(ranking, 1):
            score[slug] = score.get(slug, 0.0) + 1 / (k + rank)
    return sorted(score, key=lambda slug: -score[slug])


def search(papers: Iterable[ListedPaper], query: str, most: int = 20) -> list[tuple[ListedPaper, str]]:
    """Papers by the words of a query, the best first, with a snippet; for a set of papers that is searched once."""
    known: Mapping[str, ListedPaper] = {paper.slug: paper for paper in papers}
    index = Words(known.values())
    found = index.search(query, most)
    return [(known[slug], re.sub("[\x02\x03]", "", index.snippet(query, slug))) for slug in found.slugs]


def _words(text: str) -> list[str]:
    """Lower-case words without accents, as the index has them."""
    flat = unicodedata.normalize("NFKD", text.lower())
    return re.findall(r"[^\W_]+", "".join(char for char in flat if not unicodedata.combining(char)))


def _quoted(text: str) -> str:
    return f'"{text}"'
