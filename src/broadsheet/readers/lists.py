"""Lists of papers that can be followed by mail: trending, a topic, a search, an author; and claims whose verdict changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode

from broadsheet.errors import InputError, NotFoundError
from broadsheet.page.edition import Filters, View
from broadsheet.readers.mail import one_line

if TYPE_CHECKING:
    from broadsheet.page.edition import Edition

KINDS = {
    "trending": "trending papers",
    "topic": "papers of a topic",
    "search": "papers that a search finds",
    "author": "papers of an author",
    "verdicts": "claims whose verdict changed",
}
"""kind of list -> what is in it."""

RHYTHMS = ("daily", "weekly")
LONGEST = 400
"""Characters of a search with its filters, and of a name."""

QUERY = ("q", "topic", "verdict", "basis", "code", "since", "until")
MOST_FOUND = 200
"""Papers of a search that count as found."""


@dataclass(frozen=True)
class Followed:
    """A list: its kind, and which topic, search (as in the address of its page) or author."""

    kind: str
    value: str = ""

    @property
    def title(self) -> str:
        """What it is called: "Trending papers", "Papers on neurons", "Papers that “spikes” finds"."""
        if self.kind == "search":
            given = dict(parse_qsl(self.value))
            words = f"“{given.pop('q')}”" if "q" in given else ""
            rest = ", ".join(f"{name} {value}" if name != "code" else "with code" for name, value in given.items())
            return f"Papers that {' with '.join(part for part in (words, rest) if part)} finds"
        return {
            "topic": f"Papers on {self.value}",
            "author": f"Papers of {self.value}",
            "verdicts": "Verdicts that changed",
        }.get(self.kind, "Trending papers")

    @property
    def plain_title(self) -> str:
        """What it is called without words that somebody typed, for letters that nobody has confirmed yet."""
        return "Papers that a search finds" if self.kind == "search" else self.title

    @property
    def path(self) -> str:
        """Its page on the site."""
        return {
            "topic": f"/topics/{quote(self.value)}",
            "author": f"/authors/{quote(self.value, safe='/:.-_~')}",
            "search": f"/search?{self.value}",
            "verdicts": "/verdicts",
        }.get(self.kind, "/trending")

    @property
    def label(self) -> str:
        """Its name where only letters, digits and hyphens may stand (RFC 2919)."""
        return f"{self.kind}-{hashlib.sha256(self.value.encode()).hexdigest()[:10]}" if self.value else self.kind

    @property
    def papers(self) -> bool:
        """Whether papers are in it, and not claims."""
        return self.kind != "verdicts"


def followed(view: View, kind: str, value: str = "") -> Followed:
    """A list that somebody asks for, as it is kept; raises `InputError` and `NotFoundError` where it is none of this page."""
    if kind not in KINDS:
        raise InputError(f"{kind[:20]!r} is no list; {', '.join(KINDS)} are.")
    if kind == "topic":
        if value not in view.topics:
            raise NotFoundError(f"There is no topic {value[:60]!r}.")
        return Followed(kind, value)
    if kind == "author":
        return Followed(kind, view.author(value)[0][:LONGEST])
    if kind == "search":
        return Followed(kind, _plain_search(value))
    return Followed(kind)


def plain_rhythm(rhythm: str) -> str:
    """`daily` or `weekly`; raises `InputError` for anything else."""
    if rhythm not in RHYTHMS:
        raise InputError(f"{rhythm[:20]!r} is no rhythm; daily and weekly are.")
    return rhythm


def _plain_search(value: str) -> str:
    """A search as the address of its page has it, in one order and without what is empty."""
    given = {name: one_line(text, LONGEST) for name, text in parse_qsl(value[: 4 * LONGEST])}
    kept = {name: given[name] for name in QUERY if given.get(name)}
    if kept.pop("code", "").lower() in ("true", "1", "on", "yes"):
        kept["code"] = "true"
    if not kept:
        raise InputError("A search has words, or filters.")
    _filters(kept)
    plain = urlencode(kept)
    if len(plain) > LONGEST:
        raise InputError(f"The search is too long to be followed: {len(plain)} characters, {LONGEST} at most.")
    return plain


def _filters(given: dict[str, str]) -> Filters:
    return Filters(
        topic=given.get("topic", ""), verdict=given.get("verdict", ""), basis=given.get("basis", ""), code="code" in given,
        since=given.get("since", ""), until=given.get("until", ""),
    )  # fmt: skip


def found(edition: Edition, wanted: Followed) -> list[str]:
    """The papers of a list now, by short name, in no order of their own."""
    view = edition.view
    if wanted.kind == "topic":
        return list(view.topics.get(wanted.value, ()))
    if wanted.kind == "author":
        return list(view.authors.get(" ".join(wanted.value.casefold().split()), ("", ()))[1])
    if wanted.kind == "search":
        given = dict(parse_qsl(wanted.value))
        try:
            return edition.search(given.get("q", ""), _filters(given), MOST_FOUND).slugs
        except InputError:
            return []
    return list(view.trending) if wanted.kind == "trending" else []
