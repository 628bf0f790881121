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
from broadsheet.page.shipped import shipped

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from broadsheet.lab.store import Store


@dataclass
class ListedPaper:
    """A paper as the catalogue shows it."""

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
            listed = select(Listed.slug, Listed.arxiv, Listed.title)
            seen = select(
                Sighting.slug, Sighting.source, Sighting.first, Sighting.facts
            ).order_by(Sighting.as_of, Sighting.id)  # fmt: skip
            if revision >= 0:
                news = select(Sighting.slug).where(Sighting.revision > revision)
                listed, seen = listed.where(Listed.slug.in_(news)), seen.where(Sighting.slug.in_(news))
            for slug, arxiv, title in session.execute(listed):
                if revision >= 0 and slug in shipped():
                    known[slug] = ListedPaper(**copy.deepcopy(shipped()[slug]))
                known.setdefault(slug, ListedPaper(slug, title, arxiv))
            for slug, source, first, facts in session.execute(seen):
                _merge(known[slug], facts, own=slug in shipped())
                known[slug].sources.append(source)
                known[slug].listed = min(known[slug].listed or first, first)
        return now, known

    def paper(self, slug: str) -> ListedPaper:
        """A paper by short name or arXiv id; raises `InputError` with the nearest names where it is not known."""
        papers = self.papers()
        by_id = {paper.arxiv: paper for paper in papers.values() if paper.arxiv}
        found = papers.get(slug) or by_id.get(slug)
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
        from sqlalchemy import insert, select, update

        from broadsheet.lab.store import raise_revision
        from broadsheet.lab.tables import Listed, Sighting

        day = as_of.isoformat()
        new: dict[str, None] = {}
        changed: dict[str, None] = {}
        with self.store.session() as session:
            revision = raise_revision(session, "papers")
            stored: dict[str, str | None] = {}
            by_arxiv: dict[str, str] = {}
            by_title: dict[str, str] = {}
            for slug, arxiv, key in session.execute(select(Listed.slug, Listed.arxiv, Listed.title_key)):
                stored[slug] = arxiv
                by_title[key] = slug
                if arxiv:
                    by_arxiv[arxiv] = slug
            for slug, shipped_facts in shipped().items():
                by_arxiv[shipped_facts["arxiv"]] = slug
                by_title[title_key(shipped_facts["title"])] = slug
            rows: list[dict[str, Any]] = []
            said: dict[str, dict[str, Any]] = {}
            for facts in papers:
                key = title_key(facts.title)
                slug = by_arxiv.get(facts.arxiv) if facts.arxiv else None
                if slug is None and key in by_title:  # the same title, unless it is known as another arXiv paper
                    namesake = by_title[key]
                    other = stored.get(namesake) or shipped().get(namesake, {}).get("arxiv")
                    slug = namesake if facts.arxiv is None or other is None or other == facts.arxiv else None
                slug = slug or _free_slug(facts.title, stored)
                if slug not in stored:
                    own = shipped().get(slug)
                    stored[slug] = own["arxiv"] if own else facts.arxiv
                    rows.append({"slug": slug, "arxiv": stored[slug], "title": facts.title, "title_key": key})
                    (changed if own else new)[slug] = None
                elif stored[slug] is None and facts.arxiv and facts.arxiv not in by_arxiv:
                    stored[slug] = facts.arxiv
                    _set_arxiv(session, rows, slug, facts.arxiv)
                if key:
                    by_title.setdefault(key, slug)
                if stored[slug]:
                    by_arxiv[str(stored[slug])] = slug
                said[slug] = {**said.get(slug, {}), **facts.known()}
            if rows:
                session.execute(insert(Listed), rows)
            before = {}
            for part in _parts(list(said), 500):
                wanted = select(Sighting.id, Sighting.slug, Sighting.as_of, Sighting.first, Sighting.facts)
                for row in session.execute(wanted.where(Sighting.source == source, Sighting.slug.in_(part))):
                    before[row.slug] = row
            fresh, earlier = [], False
            for slug, facts_said in said.items():
                seen = before.get(slug)
                if seen is None:
                    fresh.append(
                        {
                            "slug": slug, "source": source, "as_of": day, "first": day, "revision": revision,
                            "facts": facts_said,
                        }
                    )  # fmt: skip
                    if slug not in new:
                        changed[slug] = None
                    continue
                merged = {**seen.facts, **facts_said} if day >= seen.as_of else seen.facts
                first = min(seen.first, day)
                if merged != seen.facts:
                    changed[slug] = None
                if merged != seen.facts or first != seen.first:
                    earlier = True
                    values = {"facts": merged, "as_of": max(day, seen.as_of), "first": first, "revision": revision}
                    session.execute(update(Sighting).where(Sighting.id == seen.id).values(**values))
            if fresh:
                session.execute(insert(Sighting), fresh)
            if not (rows or fresh or earlier):
                session.rollback()
        return Imported(len(papers), list(new), list(changed))


def _set_arxiv(session: Session, rows: list[dict[str, Any]], slug: str, arxiv: str) -> None:
    """Writes an identifier that a paper had not: into its row, or into the one that is about to be written."""
    from sqlalchemy import update

    from broadsheet.lab.tables import Listed

    for row in rows:
        if row["slug"] == slug:
            row["arxiv"] = arxiv
            return
    session.execute(update(Listed).where(Listed.slug == slug).values(arxiv=arxiv))


def _parts(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _merge(paper: ListedPaper, facts: dict[str, Any], own: bool) -> None:
    """Adds a source's facts. Our own title and identifier stay; what changes with time is taken from the newest."""
    if not own:
        paper.title = facts["title"]
    for name in ("arxiv", "published", "authors", "names"):
        value = facts.get(name)
        if value and not getattr(paper, name):
            setattr(paper, name, value)
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
