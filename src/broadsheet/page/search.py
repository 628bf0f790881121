"""Search by words: an inverted index in memory that knows typing errors, phrases, hyphens and two ways of spelling English.

With embeddings (`broadsheet.page.meaning`) its scores are blended with those by meaning.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from broadsheet.errors import InputError
from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.identifiers import identifier
from broadsheet.page.names import Names, folded
from broadsheet.page.spelling import COMMON, WORD, Stems, abbreviations

FIELDS = {
    "title": (3.0, 10), "summary": (1.5, 45), "abstract": (1.0, 180), "topics": (1.5, 6), "names": (1.0, 15),
    "tested": (1.0, 400),
}  # fmt: skip
"""field -> (weight of a word in it, the usual number of its words)."""

SATURATION, LENGTH = 0.6, 0.4
"""k1 and b of BM25: how soon a word's repetitions count for no more, and how far a long field is held against it."""

RARITY = 0.5
"""Power of BM25's inverse document frequency: in a whole sentence the rarest word is often chance, not what is asked for."""

AGREEING = 2
"""Papers that have to write an abbreviation out alike before it is searched as these words, too."""

WORDS = 1.5
"""What a score by words, from 0 to 1, weighs beside the nearness by meaning: chosen on queries that judge nothing."""

UNRELATED = 0.2
"""Nearness up to which a text does not count as found by meaning."""

DEPTH = 1000
"""Papers of each kind of search that are blended."""

MOST_BEGUN = 40
"""Words that one with only its beginning given may stand for; the commonest are taken."""

LONGEST_QUERY = 400


@dataclass(frozen=True)
class Found:
    """What the words of a query found, each the best first.

    `all_words`: short names of papers that hold them all; `some_words`: of others; `read_as`: a word -> what it was read as;
    `scores`: short name -> how well its words fit, from 0 to 1.
    """

    all_words: list[str]
    some_words: list[str]
    read_as: dict[str, str]
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def slugs(self) -> list[str]:
        return self.all_words + self.some_words


@dataclass(frozen=True)
class _Term:
    """What is looked for: any of some words in their index form, or words in a row. `must`: nothing is found without it."""

    words: tuple[str, ...] = ()
    row: tuple[str, ...] = ()
    must: bool = False


class Words:
    """The inverted index of a set of papers. Safe to search from several threads; `update` replaces papers.

    A paper's score is BM25 over its fields together (BM25F; Robertson, Zaragoza and Taylor, CIKM 2004).
    """

    def __init__(self, papers: Iterable[ListedPaper] = ()) -> None:
        self._lock = threading.Lock()
        self._stems = Stems()
        self._vocabulary: Counter[str] = Counter()
        self._abbreviated: dict[str, Counter[str]] = {}
        self._clear()
        self.update(papers)

    def _clear(self) -> None:
        self._slugs: list[str] = []
        self._texts: list[str] = []
        self._places: dict[str, int] = {}
        self._replaced: list[int] = []
        self._holding: dict[str, tuple[array[int], array[float]]] = {}
        self._sorted: list[str] = []
        self._by_length: dict[int, list[str]] = {}

    def update(self, papers: Iterable[ListedPaper]) -> None:
        """Adds papers, or replaces those of the same short name."""
        with self._lock:
            rows = {}
            for paper in papers:
                lists = (" ".join(part) for part in (paper.topics, paper.names, paper.tested))
                parts = (paper.title, paper.summary, paper.abstract or "", *lists)
                rows[paper.slug] = [folded(part) for part in parts]
                for short, words in abbreviations(paper.abstract or ""):
                    self._abbreviated.setdefault(short, Counter())[words] += 1
            self._stems.learn({word for folds in rows.values() for part in folds for word in part})
            for slug, folds in rows.items():
                text = "\n".join(f" {' '.join([self._stems[word] for word in part])} " for part in folds)
                old = self._places.get(slug)
                if old is not None and self._texts[old] == text:
                    continue
                if old is not None:
                    self._slugs[old] = self._texts[old] = ""
                    self._replaced.append(old)
                self._add(slug, text)
                self._vocabulary.update({word for part in folds for word in part})
            if len(self._slugs) > 2 * len(self._places) + 1000:
                held = [(slug, self._texts[place]) for slug, place in self._places.items()]
                self._clear()
                for slug, text in held:
                    self._add(slug, text)
            self._sorted, self._by_length = [], {}

    def _add(self, slug: str, text: str) -> None:
        place = self._places[slug] = len(self._slugs)
        self._slugs.append(slug)
        self._texts.append(text)
        weights: dict[str, float] = {}
        for (weight, usual), part in zip(FIELDS.values(), text.split("\n"), strict=True):
            words = part.split()
            weight /= 1 - LENGTH + LENGTH * len(words) / usual
            for word in words:
                weights[word] = weights.get(word, 0.0) + weight
        for word, weight in weights.items():
            if word not in self._holding:
                self._holding[word] = array("I"), array("f")
            places, held = self._holding[word]
            places.append(place)
            held.append(weight)

    def search(self, query: str, most: int = 200) -> Found:
        """Papers that hold all words of the query, then those that hold some of them.

        Titles weigh most. Words in double quotes are searched as a phrase and have to be there. A word that no paper
        holds stands for those that begin with it, else for the nearest one that some do. Raises `InputError` for a query
        without a word.
        """
        with self._lock:
            terms, read_as = self._terms(query)
            scores, held, must = self._score(terms)
            complete = held == len(terms)
            every = self._best(np.where(complete, scores, 0.0), most)
            some = self._best(np.where(complete | ~must, 0.0, scores), most - len(every)) if len(every) < most else {}
        return Found(list(every), list(some), read_as, every | some)

    @staticmethod
    def snippet(query: str, paper: ListedPaper, read_as: Mapping[str, str], around: int = 90) -> str:
        """The place in a paper's abstract with most of the query's words, which stand between \x02 and \x03.

        Where the abstract holds none of them, the place in its summary, else in what is tested of it; empty where these hold
        none either.
        """
        words = {read_as.get(word, word) for word in WORD.findall(query.lower())}
        stems = sorted(
            {part[: max(4, len(part) - 2)] for word in words - COMMON for part in folded(word)}, key=len, reverse=True
        )
        if not stems:
            return ""
        pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, stems))})[\w-]*", re.IGNORECASE)
        for text in (paper.abstract or "", paper.summary, *paper.tested):
            places = [(found.start(), found.end()) for found in pattern.finditer(text)]
            if places:
                starts = [start for start, _ in places]
                best = max(places, key=lambda place: bisect_left(starts, place[0] + 2 * around) - bisect_left(starts, place[0]))
                low, high = max(0, best[0] - around // 2), min(len(text), best[0] + 2 * around)
                low = text.rfind(" ", 0, low) + 1 if low else 0
                high = text.find(" ", high) if high < len(text) and text.find(" ", high) > 0 else len(text)
                shown = pattern.sub(lambda found: f"\x02{found[0]}\x03", text[low:high])
                return ("…" if low else "") + shown + ("…" if high < len(text) else "")
        return ""

    def count(self, word: str) -> int:
        """In how many papers a word stands, in whatever form."""
        with self._lock:
            return sum(len(self._word(stem)[0]) for stem in self._stemmed(folded(word)))

    def similar(self, paper: ListedPaper, most: int) -> list[str]:
        """Papers that share the rarest words of a paper's title and topics."""
        words = {word for word in folded(" ".join((paper.title, *paper.topics))) if len(word) > 3 and word not in COMMON}
        with self._lock:
            rarest = sorted((self._vocabulary[word], word) for word in words if self._vocabulary[word] > 1)[:3]
            scores, _, _ = self._score([_Term((self._stems[word],)) for _, word in rarest])
            found = self._best(scores, most + 1)
        return [slug for slug in found if slug != paper.slug][:most]

    def _best(self, scores: np.ndarray, most: int) -> dict[str, float]:
        """The papers of the highest scores above 0; of equal ones that which was taken in first."""
        places = np.flatnonzero(scores)
        if len(places) > 2 * most:
            least = np.partition(scores[places], -2 * most)[-2 * most]
            places = places[scores[places] >= least]
        places = places[np.argsort(-scores[places], kind="stable")]
        found = ((self._slugs[place], float(scores[place])) for place in places)
        return dict([item for item in found if item[0]][:most])

    def _score(self, terms: Sequence[_Term]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(score, how many terms it holds, whether it holds all that have to be there) of each place in the index."""
        count, papers = len(self._slugs), len(self._places)
        scores, held, must = np.zeros(count, np.float32), np.zeros(count, np.int16), np.ones(count, bool)
        there = np.ones(count, bool)
        there[self._replaced] = False
        highest = 0.0
        for term in terms:
            places, weights = self._found(term)
            known = int(np.count_nonzero(there[places]))
            rarity = float(np.log1p((papers - known + 0.5) / (known + 0.5))) ** RARITY
            highest += rarity
            scores[places] += rarity * weights / (SATURATION + weights)
            held[places] += 1
            if term.must:
                must &= np.isin(np.arange(count), places, assume_unique=True)
        return scores / (highest or 1.0), held, must

    def _found(self, term: _Term) -> tuple[np.ndarray, np.ndarray]:
        """(places, weights there) of a term."""
        found = [self._word(word) for word in term.words]
        if term.row:
            found.append(self._row(term.row))
        if len(found) == 1:
            return found[0]
        total = np.zeros(len(self._slugs), np.float32)
        for places, weights in found:
            total[places] += weights
        places = np.flatnonzero(total)
        return places, total[places]

    def _word(self, word: str) -> tuple[np.ndarray, np.ndarray]:
        places, weights = self._holding.get(word, _NOWHERE)
        return np.array(places, np.int64), np.array(weights, np.float32)

    def _row(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Where words stand in a row, with the least of their weights."""
        total = np.full(len(self._slugs), np.inf, np.float32)
        for word in dict.fromkeys(words):
            places, weights = self._word(word)
            here = np.zeros(len(self._slugs), np.float32)
            here[places] = weights
            np.minimum(total, here, out=total)
        row = f" {' '.join(words)} "
        places = np.array([place for place in np.flatnonzero(total) if row in self._texts[place]], np.int64)
        return places, total[places]

    def _terms(self, query: str) -> tuple[list[_Term], dict[str, str]]:
        """(what is looked for, words that were read as others)."""
        if len(query) > LONGEST_QUERY:
            raise InputError(f"The query has {len(query)} characters; {LONGEST_QUERY} are possible.")
        query = unicodedata.normalize("NFC", query).replace("\u201c", '"').replace("\u201d", '"')
        read_as: dict[str, str] = {}
        terms: list[_Term] = []
        words: list[str] = []
        for phrase, rest in re.findall(r'"([^"]+)"|([^"]+)', query):
            if phrase and folded(phrase):
                terms.append(_Term(row=self._stemmed(folded(phrase)), must=True))
            words += [re.sub("['\u2019]s$", "", word) for word in WORD.findall(rest.lower())]
        plain = [word for word in words if word not in COMMON] or words
        if len(words) > 1 and COMMON.issuperset(words):  # they say something in their order alone
            terms.append(_Term(row=self._stemmed(folded(" ".join(words)))))
        for word in dict.fromkeys(plain[:40]):
            parts = folded(word)
            if len(parts) > 1:
                terms += self._joined(parts)
            elif parts:
                known, stems = self._known(parts[0])
                if known != parts[0]:
                    read_as[word] = known
                terms.append(_Term(stems, self._stemmed(self._written_out(parts[0]).split())))
        terms = list(dict.fromkeys(terms))
        if not terms:
            raise InputError(f"{query.strip()[:60]!r} holds no word to search for.")
        return terms, read_as

    def _stemmed(self, words: Sequence[str]) -> tuple[str, ...]:
        stems = self._stems.of(words)
        return tuple(stems[word] for word in words)

    def _written_out(self, word: str) -> str:
        """What an abbreviation stands for in most of the papers that say so; empty where fewer than `AGREEING` agree."""
        known = self._abbreviated.get(word) or self._abbreviated.get(word.removesuffix("s"))
        whole, papers = known.most_common(1)[0] if known else ("", 0)
        return whole if papers >= AGREEING else ""

    def _joined(self, parts: list[str]) -> list[_Term]:
        """The terms of a word with hyphens, its longer parts among them: post-synaptic is also postsynaptic."""
        term = _Term(self._stemmed(["".join(parts)]), self._stemmed(parts))
        longer = [part for part in parts if len(part) > 3]
        if len(self._found(term)[0]):
            return [term, *(_Term((*self._stemmed([part]), *term.words)) for part in longer)]
        return [_Term(self._known(part)[1]) for part in longer] or [term]

    def _known(self, word: str) -> tuple[str, tuple[str, ...]]:
        """(the word, or the nearest that some paper holds where none holds it or begins with it; how the index has it)."""
        (stem,) = self._stemmed([word])
        if stem in self._holding:
            return word, (stem,)
        begun = self._begun(min(word, stem, key=len))
        if begun or len(word) < 4 or word.isdigit():
            return word, begun or (stem,)
        from rapidfuzz import process
        from rapidfuzz.distance import DamerauLevenshtein

        if not self._by_length:
            for other in self._vocabulary:
                self._by_length.setdefault(len(other), []).append(other)
        allowed = 1 if len(word) < 8 else 2
        near = []
        for size in range(max(4, len(word) - allowed), len(word) + allowed + 1):
            others = self._by_length.get(size, [])
            near += process.extract(word, others, scorer=DamerauLevenshtein.distance, score_cutoff=allowed, limit=50)
        near = [item for item in near if item[0] not in COMMON and self._stems[item[0]] in self._holding]
        best = min(near, key=lambda item: (item[1], item[0][0] != word[0], -self._vocabulary[item[0]]), default=None)
        return (best[0], (self._stems[best[0]],)) if best else (word, (stem,))

    def _begun(self, start: str) -> tuple[str, ...]:
        """The words that begin so, in their index form."""
        self._sorted = self._sorted or sorted(self._holding)
        found = self._sorted[bisect_left(self._sorted, start) : bisect_left(self._sorted, start + "\uffff")]
        return tuple(sorted(found, key=lambda word: -len(self._holding[word][0]))[:MOST_BEGUN])


_NOWHERE: tuple[array[int], array[float]] = array("I"), array("f")


def blend(found: Found, near: Iterable[tuple[str, float]] = ()) -> list[str]:
    """Short names by words and by meaning together, the best first: `WORDS` times the score of the words plus the nearness.

    `near`: (short name, nearness) by meaning; a paper that is not among them counts as `UNRELATED`.
    """
    close = dict(near)
    if not close:
        return found.slugs
    slugs = dict.fromkeys([*found.slugs, *close])
    score = {slug: WORDS * found.scores.get(slug, 0.0) + close.get(slug, UNRELATED) for slug in slugs}
    return sorted(slugs, key=lambda slug: -score[slug])


def called(query: str, names: Names, words: Words) -> list[str]:
    """The papers that a query names, which stand before all that it describes: by short name, title or author.

    A single word is an author's name where it stands among the authors at least as often as in the text of other papers.
    """
    named = names.named(query)
    authored = names.authored(query)
    if len(folded(query)) == 1 and words.count(query) > 2 * len(authored):
        authored = []
    return list(dict.fromkeys([*named, *authored]))


def search(
    papers: Iterable[ListedPaper], query: str, most: int = 20, near: Sequence[tuple[str, float]] = ()
) -> list[tuple[ListedPaper, str]]:
    """Papers by the words of a query, the best first, with a snippet; for a set of papers that is searched once.

    `near`: (short name, nearness) by meaning, to blend with. An arXiv identifier in any spelling finds its paper alone.
    """
    known = {paper.slug: paper for paper in papers}
    names = Names(known.values())
    if identifier(query) is not None:
        return [(known[slug], "") for slug in names.named(query)]
    index = Words(known.values())
    found = index.search(query, max(most, DEPTH))
    slugs = list(dict.fromkeys([*called(query, names, index), *blend(found, near)]))[:most]
    return [(known[slug], re.sub("[\x02\x03]", "", index.snippet(query, known[slug], found.read_as))) for slug in slugs]
