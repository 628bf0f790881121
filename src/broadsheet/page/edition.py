"""The page as readers see it: every paper, sorted and indexed, kept up to date with the store.

An edition holds everything in memory. `refresh` asks the store for its revisions, one small query, and reads only what
changed. What readers use is one immutable `View`, replaced as a whole, so that no reader sees half of an import.
"""

from __future__ import annotations

import re
import threading
import time
from bisect import bisect_left, insort
from calendar import monthrange
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from broadsheet.errors import InputError, NotFoundError
from broadsheet.page.catalogue import Catalogue, ListedPaper
from broadsheet.page.identifiers import identifier
from broadsheet.page.meaning import Nearest
from broadsheet.page.names import Names, Suggestion
from broadsheet.page.search import DEPTH, UNRELATED, Words, blend, called
from broadsheet.page.standing import Standing, standings

if TYPE_CHECKING:
    from broadsheet.lab.store import Store
    from broadsheet.page.meaning import Encoder

HALF_LIFE = 7.0
"""Days in which the weight of a paper's votes and comments falls to one half."""

SETTLED = 2.0
"""Seconds between two looks at readers' votes and comments, after each of which papers are sorted anew."""

NO_SYSTEM = "no system yet"

NEAR = 0.68
"""Cosine from which on one paper is near another: 98 % of the pairs of the first page that share no topic lie below it."""


@dataclass(frozen=True)
class Filters:
    """What a listing is narrowed to; empty means everything.

    `verdict`: papers with a claim of that verdict, or `no system yet`; `since` and `until`: ISO dates of publication.
    """

    topic: str = ""
    verdict: str = ""
    basis: str = ""
    code: bool = False
    since: str = ""
    until: str = ""

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            value = getattr(self, name)
            if value:
                try:
                    date.fromisoformat(value)
                except ValueError:
                    raise InputError(f"{name} is {value[:20]!r}; a date as YYYY-MM-DD is wanted.") from None

    def __bool__(self) -> bool:
        return self != Filters()


@dataclass(frozen=True)
class Noticed:
    """What readers of the site made of a paper: votes, what these count for in trending (`readers.weight`), comments."""

    votes: int = 0
    weight: float = 0.0
    comments: int = 0


UNNOTICED = Noticed()


@dataclass(frozen=True)
class View:
    """The page at one moment.

    - `papers`: short name -> paper; `newest`: short names, the latest day first; `days`: day -> its papers, latest first.
    - `trending`: by votes and comments that fade with time; `topics`: topic -> papers, the commonest first.
    - `standings`: short name -> standing, of papers that run here; `aliases`: arXiv id -> short name.
    - `authors`: name in lower case -> (the name as it is written, papers, latest first).
    - `notices`: short name -> what readers of the site made of it, of papers of which they made anything.
    """

    papers: Mapping[str, ListedPaper] = field(default_factory=dict)
    standings: Mapping[str, Standing] = field(default_factory=dict)
    newest: Sequence[str] = ()
    trending: Sequence[str] = ()
    days: Mapping[str, Sequence[str]] = field(default_factory=dict)
    topics: Mapping[str, Sequence[str]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    authors: Mapping[str, tuple[str, Sequence[str]]] = field(default_factory=dict)
    notices: Mapping[str, Noticed] = field(default_factory=dict)
    number: int = 0

    def paper(self, name: str) -> ListedPaper:
        """A paper by short name or arXiv identifier in any spelling; raises `NotFoundError` where there is none."""
        slug = name if name in self.papers else self.aliases.get(identifier(name) or name.lower())
        if slug is None:
            raise NotFoundError(f"No paper is called {name[:80]!r}.")
        return self.papers[slug]

    def author(self, name: str) -> tuple[str, Sequence[str]]:
        """(an author's name as it is written, their papers, latest first); raises `NotFoundError` where nobody has it."""
        found = self.authors.get(" ".join(name.casefold().split()))
        if found is None:
            raise NotFoundError(f"No author is called {name[:80]!r}.")
        return found

    def between(self, first: date, last: date) -> list[str]:
        """Papers listed from the first day to the last, the most noticed first."""
        found = [slug for day, slugs in self.days.items() if first.isoformat() <= day <= last.isoformat() for slug in slugs]
        return sorted(found, key=lambda slug: -self.notice(slug))

    def notice(self, slug: str) -> float:
        """How much a paper is noticed: votes and twice the comments where it was listed, and what readers' votes here count
        for. Comments here do not count: whoever likes could write many."""
        return _notice(self.papers[slug], self.notices)

    def noticed(self, paper: ListedPaper) -> Noticed:
        """Votes and comments of a paper, where it was listed and of this site's readers together."""
        here = self.notices.get(paper.slug, UNNOTICED)
        return Noticed((paper.upvotes or 0) + here.votes, here.weight, (paper.comments or 0) + here.comments)

    def neighbours(self, day: str) -> tuple[str | None, str | None]:
        """(the last day with papers before `day`, the first one after it)."""
        days = sorted(self.days)
        place = bisect_left(days, day)
        after = place + (place < len(days) and days[place] == day)
        return (days[place - 1] if place else None), (days[after] if after < len(days) else None)

    def passes(self, slug: str, filters: Filters) -> bool:
        """Whether a paper is among what the filters leave."""
        paper, standing = self.papers[slug], self.standings.get(slug)
        if filters.topic and filters.topic not in paper.topics:
            return False
        if filters.basis and paper.basis != filters.basis:
            return False
        if filters.code and not paper.code:
            return False
        if filters.verdict == NO_SYSTEM and standing is not None:
            return False
        if filters.verdict and filters.verdict != NO_SYSTEM and filters.verdict not in (standing.counts if standing else ()):
            return False
        published = paper.published or ""
        return (not filters.since or published >= filters.since) and (not filters.until or "" < published <= filters.until)

    def tasks(self) -> dict[str, list[tuple[str, str, str]]]:
        """task -> (short name, experiment, metric) of each system that does it."""
        found: dict[str, list[tuple[str, str, str]]] = {}
        for slug, standing in self.standings.items():
            for task, place in standing.entry.facts.get("tasks", {}).items():
                experiment, _, metric = place.partition(":")
                found.setdefault(task, []).append((slug, experiment, metric))
        return {task: sorted(found[task]) for task in sorted(found)}


@dataclass(frozen=True)
class Result:
    """What a search found.

    `slugs`: the best first; `read_as`: query word -> what it was read as; `by_meaning`: whether embeddings took part.
    """

    slugs: list[str]
    read_as: dict[str, str]
    by_meaning: bool


class Edition:
    """The papers of a store, as a `View` with search, refreshed on demand. `readers`: whether their votes are a part of it."""

    def __init__(self, store: Store, readers: bool = True) -> None:
        self.store = store
        self.readers = readers
        self.catalogue = Catalogue(store)
        self.view = View()
        self.encoder: Encoder | None = None
        self.words = Words()
        self.names = Names()
        self.nearest: Nearest | None = None
        self._neighbours: dict[str, list[str]] = {}  # of papers that were shown, since the last change of papers or vectors
        self._revisions: dict[str, int] = {}
        self._settled = -SETTLED
        self._lock = threading.Lock()

    def refresh(self) -> bool:
        """Reads what changed since the last time; returns whether anything did. Votes wait for up to `SETTLED` seconds."""
        with self._lock:
            now = self.store.revisions()
            if not self.readers or time.monotonic() < self._settled + SETTLED:
                now["readers"] = self._revisions.get("readers", 0)
            if now == self._revisions:
                return False
            view = self.view
            if any(now[name] != self._revisions.get(name) for name in ("papers", "runs", "vectors")):
                self._neighbours = {}  # a new one: who makes one just now from what was fills the old one
            noticed: dict[str, Noticed] = {}
            if now["readers"] != self._revisions.get("readers", 0):
                noticed = self._noticed_since(self._revisions.get("readers", 0))
                self._settled = time.monotonic()
                view = replace(view, notices={**view.notices, **noticed})
            if now["papers"] != self._revisions.get("papers"):
                _, changed = self.catalogue.changed_since(self._revisions.get("papers", -1))
                self.words.update(changed.values())
                self.names.update(changed.values())
                view = _sorted({**view.papers, **changed}, view)
            elif noticed:
                view = _moved(view, [slug for slug in noticed if slug in view.papers])
            if now["runs"] != self._revisions.get("runs"):
                view = replace(view, standings=standings(store=self.store))
            if self.encoder is not None and now["vectors"] != self._revisions.get("vectors"):
                self.nearest = Nearest.of(self.store, self.encoder, self.nearest)
            self._revisions = now
            self.view = replace(view, number=view.number + 1)
            return True

    def _noticed_since(self, revision: int) -> dict[str, Noticed]:
        from sqlalchemy import select

        from broadsheet.lab.people import Notice

        query = select(Notice.slug, Notice.votes, Notice.weight, Notice.comments).where(Notice.revision > revision)
        with self.store.session() as session:
            return {row.slug: Noticed(row.votes, row.weight, row.comments) for row in session.execute(query)}

    def note(self, slug: str, noticed: Noticed) -> None:
        """Shows what a reader made of a paper just now; papers are sorted by it at the next refresh."""
        with self._lock:
            self.view = replace(self.view, notices={**self.view.notices, slug: noticed})

    def use(self, encoder: Encoder) -> None:
        """From the next refresh on search goes by meaning as well."""
        with self._lock:
            self.encoder = encoder
            self._revisions.pop("vectors", None)

    def search(self, query: str, filters: Filters = Filters(), most: int = 200) -> Result:
        """Papers by words and, where there are embeddings, by meaning; without a query, all that the filters leave.

        Those that the query names stand first: by title, short name or author. An arXiv identifier finds its paper alone.
        Raises `InputError` for a query without a word.
        """
        view = self.view

        def keep(slugs: Sequence[str]) -> list[str]:
            return [slug for slug in slugs if slug in view.papers and view.passes(slug, filters)]

        if not query.strip():
            return Result(keep(view.newest)[:most], {}, False)
        if identifier(query) is not None:
            return Result(keep(self.names.named(query)), {}, False)
        depth = DEPTH if not filters else 2 * DEPTH
        words = self.words.search(query, max(most, depth))
        near = []
        if self.encoder is not None and self.nearest:
            vector = self.encoder.query(_as_read(query, words.read_as))
            near = [(slug, nearness) for slug, nearness in self.nearest.search(vector, depth) if nearness > UNRELATED]
        ranked = blend(words, near)
        if '"' in query:  # a phrase in quotes has to be there
            ranked = [slug for slug in ranked if slug in words.scores]
        first = called(query, self.names, self.words)
        return Result(keep(list(dict.fromkeys([*first, *ranked])))[:most], words.read_as, bool(near))

    def suggest(self, text: str, limit: int = 8) -> list[Suggestion]:
        """What somebody may mean who has typed so much of an identifier, of a title's words or of an author's name."""
        return self.names.suggest(text, limit)

    def similar(self, slug: str, most: int = 6) -> list[str]:
        """The papers nearest to a paper in meaning; without embeddings, those that share most of its title's words."""
        if self.nearest and slug in self.nearest.places:
            return [other for other, _ in self.nearest.around(slug, most) if other in self.view.papers]
        return self.words.similar(self.view.papers[slug], most)

    def similar_to_all(self, slugs: Sequence[str], most: int = 6) -> list[str]:
        """The papers nearest to many: each of them (of the last 50) has a say for those nearest to it, the nearest most."""
        said: dict[str, float] = {}
        for slug in [slug for slug in slugs if slug in self.view.papers][-50:]:
            for rank, other in enumerate(self.similar(slug, 20)):
                said[other] = said.get(other, 0.0) + 1 / (10 + rank)
        there = set(slugs)
        found = sorted(said, key=lambda slug: (-said[slug], slug))
        return [slug for slug in found if slug not in there][:most]

    def near(self, slugs: Iterable[str], most: int = 2) -> dict[str, list[str]]:
        """For each paper that has no system here, the nearest ones that have one, where any is near: by meaning (`NEAR`).

        Without embeddings, where the paper's title or topics name a topic of theirs.
        """
        known = self._neighbours
        wanted = [slug for slug in slugs if slug not in self.view.standings]
        for slug in wanted:
            if slug not in known:
                known[slug] = self._near(slug)
        return {slug: known[slug][:most] for slug in wanted}

    def _near(self, slug: str) -> list[str]:
        view, nearest = self.view, self.nearest
        if nearest and slug in nearest.places:
            return [other for other, cosine in nearest.around(slug, 25) if cosine >= NEAR and other in view.standings]
        own = " ".join((view.papers[slug].title, *view.papers[slug].topics)).lower()
        return [
            other
            for other in self.words.similar(view.papers[slug], 24)
            if other in view.standings
            and any(re.search(rf"\b{re.escape(t.lower())}\b", own) for t in view.papers[other].topics)
        ]


def _as_read(query: str, read_as: Mapping[str, str]) -> str:
    for word, known in read_as.items():
        query = query.replace(word, known)
    return query


def _notice(paper: ListedPaper, notices: Mapping[str, Noticed]) -> float:
    here = notices.get(paper.slug)
    return (paper.upvotes or 0) + 2 * (paper.comments or 0) + (here.weight if here else 0.0)


def _rank(paper: ListedPaper, notices: Mapping[str, Noticed]) -> tuple[float, bool, str]:
    """What papers of one day are sorted by."""
    return -_notice(paper, notices), paper.basis is None, paper.title


def _sorted(papers: dict[str, ListedPaper], view: View) -> View:
    by_notice = sorted(papers.values(), key=lambda paper: _rank(paper, view.notices))
    newest = sorted(by_notice, key=lambda paper: paper.day, reverse=True)
    days: dict[str, list[str]] = {}
    topics: dict[str, list[str]] = {}
    authors: dict[str, tuple[str, list[str]]] = {}
    for paper in newest:
        if paper.day:
            days.setdefault(paper.day, []).append(paper.slug)
        for topic in paper.topics:
            topics.setdefault(topic, []).append(paper.slug)
        for name in dict.fromkeys(paper.names):
            authors.setdefault(name.casefold(), (name, []))[1].append(paper.slug)
    order = [paper.slug for paper in newest]
    return replace(
        view,
        papers=papers,
        newest=order,
        trending=sorted(order, key=_trend(papers, order, view.notices)),
        days=days,
        topics=dict(sorted(topics.items(), key=lambda item: (-len(item[1]), item[0]))),
        authors=authors,
        aliases={paper.arxiv.lower(): paper.slug for paper in newest if paper.arxiv},
    )


def _trend(papers: Mapping[str, ListedPaper], newest: Sequence[str], notices: Mapping[str, Noticed]) -> Callable[[str], float]:
    """What papers trend by, the most first: how much they are noticed, of which half is gone after `HALF_LIFE` days."""
    latest = _ordinal(papers[newest[0]].day) if newest and papers[newest[0]].day else 0

    @cache
    def fade(day: str) -> float:
        return 0.5 ** ((latest - _ordinal(day)) / HALF_LIFE) if day else 0.0

    return lambda slug: -(1 + _notice(papers[slug], notices)) * fade(papers[slug].day)


def _moved(view: View, slugs: Sequence[str]) -> View:
    """The same papers in their new order, after readers noticed some of them: only these are put elsewhere."""
    papers, moved = view.papers, [view.papers[slug] for slug in slugs]
    days, undated = dict(view.days), view.newest[sum(map(len, view.days.values())) :]

    def ranked(slugs: Sequence[str]) -> list[str]:
        return sorted(slugs, key=lambda slug: _rank(papers[slug], view.notices))

    for day in {paper.day for paper in moved}:
        if day:
            days[day] = ranked(days[day])
        else:
            undated = ranked(undated)
    newest = [*chain.from_iterable(days.values()), *undated]
    place = {slug: number for number, slug in enumerate(newest)}.__getitem__
    trend, among = _trend(papers, newest, view.notices), set(slugs)
    trending = [slug for slug in view.trending if slug not in among]
    for slug in sorted(among, key=place):
        insort(trending, slug, key=lambda slug: (trend(slug), place(slug)))
    topics = {topic: sorted(view.topics[topic], key=place) for paper in moved for topic in paper.topics}
    authors = {key: view.authors[key] for paper in moved for key in map(str.casefold, paper.names)}
    return replace(
        view,
        newest=newest,
        trending=trending,
        days=days,
        topics={**view.topics, **topics},
        authors={**view.authors, **{key: (name, sorted(found, key=place)) for key, (name, found) in authors.items()}},
    )


def _ordinal(day: str) -> int:
    return date.fromisoformat(day).toordinal()


def week_of(text: str) -> tuple[date, date]:
    """First and last day of an ISO week as `2025-W50`; raises `InputError` where it is none."""
    try:
        first = date.fromisoformat(f"{text}-1")
    except ValueError:
        raise InputError(f"{text[:20]!r} is no week; YYYY-Www is wanted.") from None
    return first, date.fromordinal(min(first.toordinal() + 6, date.max.toordinal()))


def month_of(text: str) -> tuple[date, date]:
    """First and last day of a month as `2025-12`; raises `InputError` where it is none."""
    try:
        first = date.fromisoformat(f"{text}-01")
    except ValueError:
        raise InputError(f"{text[:20]!r} is no month; YYYY-MM is wanted.") from None
    return first, first.replace(day=monthrange(first.year, first.month)[1])


def week_name(day: date) -> str:
    year, week, _ = day.isocalendar()
    return f"{year}-W{week:02d}"


def metric_of(standing: Standing, experiment: str, metric: str) -> dict[str, tuple[float, int]]:
    """variant or arm -> (mean over seeds, number of seeds) of a recorded metric, the system first."""
    values: dict[str, list[float]] = {}
    for arms in standing.metrics.get(experiment, {}).values():
        for arm, metrics in arms.items():
            value: Any = metrics.get(metric)
            if value is not None:
                values.setdefault(arm, []).append(float(value))
    found = {arm: (float(np.mean(numbers)), len(numbers)) for arm, numbers in values.items()}
    return dict(sorted(found.items(), key=lambda item: item[0] != "system"))
