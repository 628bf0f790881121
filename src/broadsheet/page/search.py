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

    @staticmethod
    def snippet(query: str, paper: ListedPaper, read_as: Mapping[str, str], around: int = 90) -> str:
        """The place in a paper's summary or abstract with most of the query's words, which stand between \x02 and \x03.

        Empty where it holds none of them.
        """
        words = {read_as.get(word, word) for word in WORD.findall(query.lower())}
        stems = sorted(
            {part[: max(4, len(part) - 2)] for word in words - COMMON for part in _words(word)}, key=len, reverse=True
        )
        if not stems:
            return ""
        pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, stems))})[\w-]*", re.IGNORECASE)
        for text in (paper.abstract or "", paper.summary):
            places = [(found.start(), found.end()) for found in pattern.finditer(text)]
            if places:
                best = max(places, key=lambda place: sum(place[0] <= start < place[0] + 2 * around for start, _ in places))
                low, high = max(0, best[0] - around // 2), min(len(text), best[0] + 2 * around)
                low = text.rfind(" ", 0, low) + 1 if low else 0
                high = text.find(" ", high) if high < len(text) and text.find(" ", high) > 0 else len(text)
                shown = pattern.sub(lambda found: f"\x02{found[0]}\x03", text[low:high])
                return ("…" if low else "") + shown + ("…" if high < len(text) else "")
        return ""

    def similar(self, paper: ListedPaper, most: int) -> list[str]:
        """Papers that share the rarest words of a paper's title and topics."""
        words = {word for word in _words(" ".join((paper.title, *paper.topics))) if len(word) > 3 and word not in COMMON}
        rarest = sorted((self._vocabulary[word], word) for word in words if self._vocabulary[word] > 1)[:3]
        if not rarest:
            return []
        with self._lock:
            found = self._match(" OR ".join(_quoted(word) for _, word in rarest), most + 1)
        return [slug for slug in found if slug != paper.slug][:most]

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
            if len(parts) > 1:
                terms += [(term, False) for term in self._joined(parts)]
            elif parts:
                known = self._known(parts[0])
                if known != parts[0]:
                    read_as[word] = known
                terms.append((f"{_quoted(known)}*", False))
        if not terms:
            raise InputError(f"{query.strip()[:60]!r} holds no word to search for.")
        return terms, read_as

    def _joined(self, parts: list[str]) -> list[str]:
        """The terms of a word with hyphens: post-synaptic is also postsynaptic; where no paper holds it, its longer parts."""
        term = f"({_quoted(' '.join(parts))}* OR {_quoted(''.join(parts))}*)"
        with self._lock:
            held = self._match(term, 1)
        return [term] if held else [f"{_quoted(part)}*" for part in parts if len(part) > 4] or [term]

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
        with self._lock:  # an update must not change the words meanwhile
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


def search(
    papers: Iterable[ListedPaper], query: str, most: int = 20, near: Sequence[str] = ()
) -> list[tuple[ListedPaper, str]]:
    """Papers by the words of a query, the best first, with a snippet; for a set of papers that is searched once.

    `near`: a ranking by meaning that is fused with that by words.
    """
    known = {paper.slug: paper for paper in papers}
    index = Words(known.values())
    found = index.search(query, max(most, 200))
    slugs = fuse(found.all_words, found.slugs, near) if near else found.slugs
    return [(known[slug], re.sub("[\x02\x03]", "", index.snippet(query, known[slug], found.read_as))) for slug in slugs[:most]]


def _words(text: str) -> list[str]:
    """Lower-case words without accents, as the index has them."""
    flat = unicodedata.normalize("NFKD", text.lower())
    return re.findall(r"[^\W_]+", "".join(char for char in flat if not unicodedata.combining(char)))


def _quoted(text: str) -> str:
    return f'"{text}"'
