"""Papers by what they are called: identifier, short name, title or authors, written out or while it is typed."""

from __future__ import annotations

import heapq
import re
import threading
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.facts import title_key
from broadsheet.page.identifiers import identifier

LONGEST = 600
MOST_WORDS = 12
UNSAID = frozenset(("and", "et", "al"))
WHOLE = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "ß": "ss", "æ": "ae", "œ": "oe", "þ": "th", "ŋ": "n"}
)
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa"})


def folded(text: str) -> list[str]:
    """The words of a text in lower case and without accents: `Schrödinger's Øresund` is schrodinger, s, oresund."""
    text = text.lower()
    if not text.isascii():
        text = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char)).translate(WHOLE)
    return re.findall(r"[^\W_]+", text)


@dataclass(frozen=True)
class Suggestion:
    """What somebody who types may mean. `kind`: `paper` or `author`; `text`: its title or their name.

    `slug` is the paper's short name, for an author that of their newest paper; `papers`: how many they have.
    """

    kind: str
    text: str
    slug: str
    papers: int = 1


@dataclass
class _Author:
    """A name as it is written, its words, how many of the last are the surname's, words spelt otherwise, and the papers."""

    name: str
    words: tuple[str, ...]
    surname: int
    spelt: dict[str, str]
    slugs: list[str]


class Names:
    """Identifiers, short names, titles and authors of a set of papers. Safe to use from several threads."""

    def __init__(self, papers: Iterable[ListedPaper] = ()) -> None:
        self._lock = threading.Lock()
        self._papers: dict[str, ListedPaper] = {}
        self._ids: dict[str, str] = {}
        self._titles: dict[str, list[str]] = {}
        self._lines: dict[str, str] = {}
        self._authors: dict[str, _Author] = {}
        self._written: dict[str, list[_Author]] = {}
        self._typed: _Typed | None = None
        self.update(papers)

    def update(self, papers: Iterable[ListedPaper]) -> None:
        """Adds papers, or replaces those of the same short name."""
        with self._lock:
            for paper in papers:
                if paper.slug in self._papers:
                    self._forget(self._papers[paper.slug])
                self._papers[paper.slug] = paper
                if paper.arxiv:
                    self._ids[paper.arxiv.lower()] = paper.slug
                self._titles.setdefault(title_key(paper.title), []).append(paper.slug)
                self._lines[paper.slug] = " ".join(folded(paper.title))
                for name in dict.fromkeys(paper.names):
                    self._author(name).slugs.append(paper.slug)
                self._typed = None

    def named(self, query: str) -> list[str]:
        """The papers that a query names whole: by an identifier in any spelling, by short name, or by title."""
        query = query.strip()
        if not query or len(query) > LONGEST:
            return []
        known = identifier(query)
        with self._lock:
            if known is not None and known in self._ids:
                return [self._ids[known]]
            slug = "-".join(folded(query))
            if slug in self._papers:
                return [slug]
            key = title_key(query)
            return list(self._titles.get(key, ())) if key else []

    def authored(self, query: str) -> list[str]:
        """The papers of an author, the newest first; accents may be missing, and first names be initials or left out.

        Of several surnames, the papers that all of them wrote together.
        """
        said = folded(query[:LONGEST])
        found = self._by(said)
        return found or self._by([word for word in said if word not in UNSAID])

    def _by(self, words: Sequence[str]) -> list[str]:
        if not words or len(words) > MOST_WORDS:
            return []
        with self._lock:
            whole = [word for word in words if len(word) > 1 or not word.isascii()]
            candidates = {author.name: author for word in whole for author in self._written.get(word, ())}
            slugs = {slug for author in candidates.values() if _is(words, author) for slug in author.slugs}
            if not slugs and len(words) > 1:
                slugs = set.intersection(*(self._by_surname(word) for word in words))
            return sorted(slugs, key=lambda slug: (self._papers[slug].published or "", slug), reverse=True)

    def suggest(self, text: str, limit: int = 8) -> list[Suggestion]:
        """What may be meant by the beginning of an identifier, of a title's words or of an author's name, the best first."""
        words = folded(text[:LONGEST])
        if not words or limit < 1:
            return []
        start = identifier(text) or re.sub(r"^\s*arxiv[:\s]*", "", text, flags=re.IGNORECASE).strip().lower()
        with self._lock:
            typed = self._typed = self._typed or _Typed(self._papers, self._lines, self._ids, self._authors.values())
            by_id = [self._ids[key] for key in typed.identified(start, limit)] if any(map(str.isdigit, start)) else []
            titles = list(dict.fromkeys([*by_id, *typed.titled(words, limit)]))
            authors = typed.written(words, limit)
            room = max(limit - len(titles), limit // 2)
            found = [Suggestion("author", author.name, self._newest(author), len(author.slugs)) for author in authors[:room]]
            papers = [Suggestion("paper", self._papers[slug].title, slug) for slug in titles[: limit - len(found)]]
        return papers + found

    def _newest(self, author: _Author) -> str:
        return max(author.slugs, key=lambda slug: (self._papers[slug].published or "", slug))

    def _by_surname(self, word: str) -> set[str]:
        authors = self._written.get(word, ())
        return {slug for author in authors if word in author.words[-author.surname :] for slug in author.slugs}

    def _author(self, name: str) -> _Author:
        if name not in self._authors:
            first, _, last = name.rpartition(" ")
            if "," in name:  # Spieler, Aaron
                last, _, first = name.partition(",")
            surname = folded(last)
            umlauts = name.lower().translate(UMLAUTS)
            spelt = dict(zip(folded(umlauts), folded(name), strict=True)) if umlauts != name.lower() else {}
            author = self._authors[name] = _Author(name, (*folded(first), *surname), len(surname), spelt, [])
            for word in {*author.words, *spelt}:
                self._written.setdefault(word, []).append(author)
        return self._authors[name]

    def _forget(self, paper: ListedPaper) -> None:
        if paper.arxiv:
            self._ids.pop(paper.arxiv.lower(), None)
        self._titles[title_key(paper.title)].remove(paper.slug)
        for name in dict.fromkeys(paper.names):
            author = self._authors[name]
            author.slugs.remove(paper.slug)
            if not author.slugs:
                del self._authors[name]
                for word in {*author.words, *author.spelt}:
                    self._written[word].remove(author)


def _is(words: Sequence[str], author: _Author) -> bool:
    """Whether the words name an author: each is one of the name's, or one of the two is the other's initial.

    A written-out word stands for an initial of the name only beside the surname: "grace memory" is no Grace M. Hwang.
    """
    if author.spelt:
        words = [author.spelt.get(word, word) for word in words]
    if len(words) == 1:
        return words[0] in author.words[-author.surname :]
    left = list(author.words)
    initials = []
    for word in words:
        if word in left:
            left.remove(word)
        else:
            initials.append(word)
    if len(initials) == len(words):
        return False
    surnamed = not set(author.words[-author.surname :]).isdisjoint(words)
    for word in initials:
        for letter in (
            word if 1 < len(word) <= 3 and not any(len(other) == 1 and other == word[0] for other in left) else [word]
        ):
            same = next((other for other in left if min(len(other), len(letter)) == 1 and other[0] == letter[0]), None)
            if same is None or (len(letter) > 1 and not surnamed):
                return False
            left.remove(same)
    return True


class _Typed:
    """Identifiers, titles and names in the order in which they are suggested."""

    def __init__(
        self, papers: dict[str, ListedPaper], titles: dict[str, str], ids: Iterable[str], authors: Iterable[_Author]
    ) -> None:
        self._ids = sorted(ids)
        self._slugs = sorted(papers, key=lambda slug: (papers[slug].day, slug), reverse=True)
        self._titles = _Lines([titles[slug] for slug in self._slugs])
        self._authors = sorted(authors, key=lambda author: (-len(author.slugs), author.name))
        turned = [(author.words[-author.surname :], author.words[: -author.surname]) for author in self._authors]
        self._names = _Lines([" ".join(order) for last, first in turned for order in ((*first, *last), (*last, *first))])

    def identified(self, start: str, most: int) -> list[str]:
        place = bisect_left(self._ids, start)
        return [key for key in self._ids[place : place + most] if key.startswith(start)]

    def titled(self, words: Sequence[str], most: int) -> list[str]:
        return [self._slugs[k] for k in self._titles.find(words, most)]

    def written(self, words: Sequence[str], most: int) -> list[_Author]:
        found = dict.fromkeys(k // 2 for k in self._names.find(words, 2 * most))
        return [self._authors[k] for k in found][:most]


class _Lines:
    """Lines of words, found by words of which the last is only begun."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._sorted = sorted(range(len(lines)), key=lines.__getitem__)
        self._first = [lines[k] for k in self._sorted]
        held: dict[str, list[int]] = {}
        for k, line in enumerate(lines):
            for word in line.split():
                held.setdefault(word, []).append(k)
        self._held = held
        self._words = sorted(held)

    def find(self, words: Sequence[str], most: int) -> list[int]:
        """Numbers of lines that start with the words, then of those that hold them in a row, then in any order."""
        row = " ".join(words)
        begun = self._sorted[bisect_left(self._first, row) : bisect_left(self._first, row + "\uffff")]
        found = dict.fromkeys(heapq.nsmallest(most, begun))
        if len(found) < most:
            held = self._holding(words)
            found |= dict.fromkeys(heapq.nsmallest(most, (k for k in held if f" {row}" in self._lines[k])))
            found |= dict.fromkeys(heapq.nsmallest(most, held))
        return list(found)[:most]

    def _holding(self, words: Sequence[str]) -> set[int]:
        *whole, last = words
        first, past = bisect_left(self._words, last), bisect_left(self._words, last + "\uffff")
        held = set().union(*(self._held[word] for word in self._words[first:past]))
        for word in whole:
            held &= set(self._held.get(word, ()))
        return held
