"""One catalogue of papers: our own facts, and what imports brought, merged by arXiv id, else by normalised title."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from broadsheet.errors import NotFoundError
from broadsheet.lab import location
from broadsheet.page.facts import Facts, slug_of, title_key
from broadsheet.page.identifiers import identifier
from broadsheet.page.shipped import shipped

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from broadsheet.lab.store import Store


@dataclass
class ListedPaper:
    """A paper as the catalogue shows it.

    `names_cut`: whoever gave the names gave only the first of them; `ours`: what our own facts say where a source that listed
    the paper says something else, which is what is shown; `tested`: of a paper that runs, what its experiments try and claim.
    """

    slug: str
    title: str
    arxiv: str | None = None
    published: str | None = None
    authors: int | None = None
    names: list[str] = field(default_factory=list)
    comments: int | None = None
    upvotes: int | None = None
    abstract: str | None = None
    summary: str = ""
    topics: list[str] = field(default_factory=list)
    code: str = ""
    parts: list[str] = field(default_factory=list)
    basis: str | None = None
    sources: list[str] = field(default_factory=list)
    listed: str | None = None
    names_cut: bool = False
    ours: dict[str, Any] = field(default_factory=dict)
    tested: list[str] = field(default_factory=list)

    @property
    def day(self) -> str:
        """The day under which it is shown: the first on which a page listed it, else that of its publication."""
        return self.listed or self.published or ""


@dataclass(frozen=True)
class Imported:
    """What an import did: papers that were new, papers of which something was new, and all that it saw."""

    seen: int
    new: list[str]
    changed: list[str]


class Catalogue:
    """The papers known in this home: those that ship, and those imported. Reading makes no database."""

    def __init__(self, store: Store | None = None) -> None:
        self._store = store

    @property
    def store(self) -> Store:
        if self._store is None:
            from broadsheet.lab.store import Store

            self._store = Store()
        return self._store

    def papers(self) -> dict[str, ListedPaper]:
        """slug -> paper: shipped facts first, then each source's, the newest last."""
        return self.changed_since(-1)[1]

    def changed_since(self, revision: int) -> tuple[int, dict[str, ListedPaper]]:
        """(the present revision, slug -> paper of those that changed after `revision`); after -1 all of them."""
        known = {slug: ListedPaper(**copy.deepcopy(facts)) for slug, facts in shipped().items()} if revision < 0 else {}
        if self._store is None and not location.exists():
            return 0, known
        from sqlalchemy import select

        from broadsheet.lab.tables import Listed, Revision, Sighting

        with self.store.session() as session:
            now = session.scalars(select(Revision.number).where(Revision.name == "papers")).one()
            if now == revision:
                return now, {}
            twins = _twins(session)
            listed = select(Listed.slug, Listed.arxiv, Listed.title)
            seen = select(
                Sighting.slug, Sighting.source, Sighting.first, Sighting.facts
            ).order_by(Sighting.as_of, Sighting.id)  # fmt: skip
            if revision >= 0:
                changed = {
                    twins.get(slug, slug) for slug in session.scalars(select(Sighting.slug).where(Sighting.revision > revision))
                }
                news = [*changed, *(twin for twin, slug in twins.items() if slug in changed)]
                listed, seen = listed.where(Listed.slug.in_(news)), seen.where(Sighting.slug.in_(news))
            for slug, arxiv, title in session.execute(listed):
                if slug in twins:
                    continue
                if revision >= 0 and slug in shipped():
                    known[slug] = ListedPaper(**copy.deepcopy(shipped()[slug]))
                known.setdefault(slug, ListedPaper(slug, title, identifier(arxiv) or arxiv if arxiv else None))
            said: dict[str, set[str]] = {}
            for stored, source, first, facts in session.execute(seen):
                slug = twins.get(stored, stored)
                _merge(known[slug], source, facts, shipped().get(slug), said.setdefault(slug, set()))
                if source not in known[slug].sources:
                    known[slug].sources.append(source)
                known[slug].listed = min(known[slug].listed or first, first)
        return now, known

    def paper(self, slug: str) -> ListedPaper:
        """A paper by short name or identifier, however spelt; raises `InputError` with the nearest names of an unknown one."""
        papers = self.papers()
        by_id = {paper.arxiv: paper for paper in papers.values() if paper.arxiv}
        found = papers.get(slug) or by_id.get(identifier(slug) or slug)
        if found is None:
            import difflib

            near = difflib.get_close_matches(slug, papers, n=3, cutoff=0.4)
            hint = f" Did you mean {', '.join(near)}?" if near else ""
            raise NotFoundError(f"No paper is called {slug!r}.{hint} 'broadsheet list' shows them all.")
        return found

    def add(self, source: str, papers: Sequence[Facts], as_of: date) -> Imported:
        """Takes in what a source says, in one transaction: all of it, or nothing. The same again changes nothing.

        An older page never overwrites what the same source said later.
        """
        from broadsheet.lab.store import raise_revision

        day = as_of.isoformat()
        with self.store.session() as session:
            revision = raise_revision(session, "papers")
            known = _Known(session)
            said: dict[str, dict[str, Any]] = {}
            for facts in papers:
                slug = known.slug_of(facts)
                said[slug] = {**said.get(slug, {}), **facts.known()}
            known.write(session)
            changed = _write_sightings(session, source, day, revision, said)
            if not known.rows and not changed:
                session.rollback()
        new = {row["slug"]: None for row in known.rows if row["slug"] not in shipped()}
        news = [slug for slug, is_news in changed.items() if is_news and slug not in new]
        return Imported(len(papers), list(new), news)


def _twins(session: Session) -> dict[str, str]:
    """Entries of papers that have another: those stored under an older spelling of an identifier -> those of its own.

    The subject class was once taken for a part of an identifier (`math.GT/0309136`).
    """
    from sqlalchemy import select

    from broadsheet.lab.tables import Listed

    old = select(Listed.slug, Listed.arxiv).where(Listed.arxiv.like("%.%/%"))
    spelt = {slug: identifier(arxiv or "") for slug, arxiv in session.execute(old)}
    if not spelt:
        return {}
    own = select(Listed.arxiv, Listed.slug).where(Listed.arxiv.in_([*filter(None, spelt.values())]))
    slugs: dict[str | None, str] = {row.arxiv: row.slug for row in session.execute(own)}
    for slug in sorted(spelt):  # of several spellings, one stands for all
        slugs.setdefault(spelt[slug], slug)
    return {slug: slugs[arxiv] for slug, arxiv in spelt.items() if arxiv is not None and slugs[arxiv] != slug}


class _Known:
    """Which papers there are, by identifier and title; `rows` are those that an import adds."""

    def __init__(self, session: Session) -> None:
        from sqlalchemy import select

        from broadsheet.lab.tables import Listed

        self.rows: list[dict[str, Any]] = []
        self._stored: dict[str, str | None] = {}
        self._by_arxiv: dict[str, str] = {}
        self._by_title: dict[str, str] = {}
        self._identified: dict[str, str] = {}
        twins = _twins(session)
        for slug, arxiv, key in session.execute(select(Listed.slug, Listed.arxiv, Listed.title_key)):
            if slug in twins:
                self._stored[slug] = arxiv
                continue
            plain = identifier(arxiv) or arxiv if arxiv else None
            if plain and plain != arxiv:
                self._identified[slug] = plain
            self._note(slug, plain, key)
        for slug, own in shipped().items():
            self._by_arxiv[own["arxiv"]] = slug
            self._by_title[title_key(own["title"])] = slug

    def _note(self, slug: str, arxiv: str | None, key: str) -> None:
        self._stored[slug] = arxiv
        if key:
            self._by_title.setdefault(key, slug)
        if arxiv:
            self._by_arxiv[arxiv] = slug

    def slug_of(self, facts: Facts) -> str:
        """The paper that the facts are of, by arXiv id, else by title; a new one where none is known."""
        key = title_key(facts.title)
        slug = self._by_arxiv.get(facts.arxiv) if facts.arxiv else None
        if slug is None and key in self._by_title:  # a namesake with another identifier is another paper
            namesake = self._by_title[key]
            other = self._stored.get(namesake) or shipped().get(namesake, {}).get("arxiv")
            slug = namesake if facts.arxiv is None or other is None else None
        slug = slug or _free_slug(facts.title, self._stored)
        if slug not in self._stored:
            arxiv = shipped()[slug]["arxiv"] if slug in shipped() else facts.arxiv
            self.rows.append({"slug": slug, "arxiv": arxiv, "title": facts.title, "title_key": key})
            self._note(slug, arxiv, key)
        elif self._stored[slug] is None and facts.arxiv:
            self._identified[slug] = facts.arxiv
            self._note(slug, facts.arxiv, key)
        return slug

    def write(self, session: Session) -> None:
        """Writes new papers, and identifiers that were not known before."""
        from sqlalchemy import insert, update

        from broadsheet.lab.tables import Listed

        if self.rows:
            session.execute(insert(Listed), self.rows)
        for slug, arxiv in self._identified.items():
            session.execute(update(Listed).where(Listed.slug == slug).values(arxiv=arxiv))


def _write_sightings(
    session: Session, source: str, day: str, revision: int, said: dict[str, dict[str, Any]]
) -> dict[str, bool]:
    """Writes what a source says of each paper; slug -> whether that is news, of all that were written."""
    from sqlalchemy import insert, select, update

    from broadsheet.lab.tables import Sighting

    wanted = select(Sighting.id, Sighting.slug, Sighting.as_of, Sighting.first, Sighting.facts).where(Sighting.source == source)
    before = {
        row.slug: row for part in _parts(list(said), 500) for row in session.execute(wanted.where(Sighting.slug.in_(part)))
    }
    written: dict[str, bool] = {}
    fresh = []
    for slug, facts in said.items():
        seen = before.get(slug)
        if seen is None:
            row = {"slug": slug, "source": source, "as_of": day, "first": day, "revision": revision, "facts": facts}
            fresh.append(row)
            written[slug] = True
            continue
        merged = {**seen.facts, **facts} if day >= seen.as_of else seen.facts
        first = min(seen.first, day)
        if merged != seen.facts or first != seen.first:
            written[slug] = merged != seen.facts
            values = {"facts": merged, "as_of": max(day, seen.as_of), "first": first, "revision": revision}
            session.execute(update(Sighting).where(Sighting.id == seen.id).values(**values))
    if fresh:
        session.execute(insert(Sighting), fresh)
    return written


def _parts(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _merge(paper: ListedPaper, source: str, facts: dict[str, Any], own: Mapping[str, Any] | None, said: set[str]) -> None:
    """Adds a source's facts. Our own title and identifier stay; what changes with time is taken from the newest.

    The day and the number of authors are those of the page that listed the paper, else of the first source that has them, else
    our own, which are kept beside others'. `said`: which of these a source has given already.
    """
    if own is None:
        paper.title = facts["title"]
    for name in ("published", "authors"):
        value = facts.get(name)
        if value and (name not in said or source == "page"):
            said.add(name)
            setattr(paper, name, value)
            if own is not None:
                paper.ours = {key: own[key] for key in (*paper.ours, name) if own[key] != getattr(paper, key)}
    names, cut = facts.get("names") or [], facts.get("names_cut", False)
    if (len(names), not cut) > (len(paper.names), not paper.names_cut):
        paper.names, paper.names_cut = names, cut
    if paper.names and not paper.authors and not paper.names_cut:
        paper.authors = len(paper.names)
    for name in ("comments", "upvotes"):
        if facts.get(name) is not None:
            setattr(paper, name, facts[name])
    abstract = facts.get("abstract")
    if abstract and len(abstract) > len(paper.abstract or ""):  # a page cuts abstracts off
        paper.abstract = abstract


def _free_slug(title: str, stored: Mapping[str, Any]) -> str:
    slug, number = slug_of(title), 2
    while slug in stored or slug in shipped():
        slug, number = f"{slug_of(title)}-{number}", number + 1
    return slug
