"""One catalogue of papers: our own facts, and what imports brought, merged by arXiv id, else by normalised title."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from broadsheet.errors import InputError
from broadsheet.lab import location
from broadsheet.page.facts import Facts, slug_of, title_key
from broadsheet.page.shipped import shipped


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


@dataclass(frozen=True)
class Imported:
    """What an import did: papers that were new, papers of which something was new, and all that it saw."""

    seen: int
    new: list[str]
    changed: list[str]


class Catalogue:
    """The papers known in this home: those that ship, and those imported. Reading makes no database."""

    def papers(self) -> dict[str, ListedPaper]:
        """slug -> paper: shipped facts first, then each source's, the newest last."""
        known = {slug: ListedPaper(**facts) for slug, facts in shipped().items()}
        if not location.exists():
            return known
        from sqlalchemy import select

        from broadsheet.lab.store import Store
        from broadsheet.lab.tables import Listed, Sighting

        with Store().session() as session:
            for row in session.scalars(select(Listed)):
                known.setdefault(row.slug, ListedPaper(row.slug, row.title, row.arxiv))
            for seen in session.scalars(select(Sighting).order_by(Sighting.as_of, Sighting.id)):
                _merge(known[seen.slug], seen.facts, own=seen.slug in shipped())
                known[seen.slug].sources.append(seen.source)
        return known

    def paper(self, slug: str) -> ListedPaper:
        """A paper by short name or arXiv id; raises `InputError` with the nearest names where it is not known."""
        papers = self.papers()
        by_id = {paper.arxiv: paper for paper in papers.values() if paper.arxiv}
        found = papers.get(slug) or by_id.get(slug)
        if found is None:
            import difflib

            near = difflib.get_close_matches(slug, papers, n=3, cutoff=0.4)
            hint = f" Did you mean {', '.join(near)}?" if near else ""
            raise InputError(f"No paper is called {slug!r}.{hint} 'broadsheet list' shows them all.")
        return found

    def add(self, source: str, papers: Sequence[Facts], as_of: date) -> Imported:
        """Takes in what a source says, in one transaction: all of it, or nothing. The same again changes nothing.

        An older page never overwrites what the same source said later.
        """
        from sqlalchemy import select

        from broadsheet.lab.store import Store
        from broadsheet.lab.tables import Listed, Sighting

        new: list[str] = []
        changed: list[str] = []
        with Store().session() as session:
            rows = list(session.scalars(select(Listed)))
            by_arxiv = {row.arxiv: row.slug for row in rows if row.arxiv}
            by_title = {row.title_key: row.slug for row in rows}
            for known_slug, own_facts in shipped().items():
                by_arxiv[own_facts["arxiv"]] = known_slug
                by_title[title_key(own_facts["title"])] = known_slug
            stored = {row.slug: row for row in rows}
            for facts in papers:
                key = title_key(facts.title)
                slug = by_arxiv.get(facts.arxiv) if facts.arxiv else None
                slug = slug or by_title.get(key)
                if slug is None:
                    slug = _free_slug(facts.title, {*stored, *shipped()})
                row = stored.get(slug)
                if row is None:
                    own = shipped().get(slug)
                    row = Listed(slug=slug, arxiv=own["arxiv"] if own else facts.arxiv, title=facts.title, title_key=key)
                    session.add(row)
                    session.flush()
                    stored[slug] = row
                    (changed if own else new).append(slug)
                elif row.arxiv is None and facts.arxiv:
                    row.arxiv = facts.arxiv
                by_title[key] = slug
                if row.arxiv:
                    by_arxiv[row.arxiv] = slug
                seen = session.scalars(select(Sighting).filter_by(slug=slug, source=source)).one_or_none()
                known = facts.known()
                if seen is None:
                    session.add(Sighting(slug=slug, source=source, as_of=as_of.isoformat(), facts=known))
                    if slug not in new and slug not in changed:
                        changed.append(slug)
                elif as_of.isoformat() >= seen.as_of and {**seen.facts, **known} != seen.facts:
                    seen.facts = {**seen.facts, **known}
                    seen.as_of = as_of.isoformat()
                    changed.append(slug)
        return Imported(len(papers), new, changed)


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


def _free_slug(title: str, taken: Iterable[str]) -> str:
    slug, number = slug_of(title), 2
    while slug in taken:
        slug, number = f"{slug_of(title)}-{number}", number + 1
    return slug
