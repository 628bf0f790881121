"""Digests: what is new in the lists that somebody follows, composed once a list and period, with a letter for each address."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from broadsheet.errors import InputError, StoreError
from broadsheet.lab.people import Issue, Letter, Subscription
from broadsheet.lab.store import Store
from broadsheet.page.edition import Edition, week_name
from broadsheet.readers.lists import Followed, found
from broadsheet.readers.mail import Sender, one_line

if TYPE_CHECKING:
    from jinja2 import Environment

WINDOW = 30
"""Days: papers that were listed before are no news, and no digest is composed for a day before."""

FIRST = {"daily": 2, "weekly": 7}
MOST = {"daily": 10, "weekly": 20}
"""Days whose papers the first digest of a list tells, and papers or claims that each tells."""

LEAD = 280
"""Characters of a paper's summary."""

AT_ONCE = 50
"""Lists that are written in one transaction."""

LINK = "<!--unsubscribe-->"
"""Where the link that ends the subscription goes; no text of a paper has it, as `<` is escaped."""

Known = Mapping[str, Any]


@dataclass(frozen=True)
class Item:
    """A paper or a claim as a digest tells of it."""

    title: str
    meta: str
    text: str
    url: str


@dataclass(frozen=True)
class News:
    """What is new in a list: the first of it, how much there is in all, and what the list holds now."""

    items: Sequence[Item]
    count: int
    known: Known


@dataclass(frozen=True)
class Draft:
    """A digest of a list; `text` is empty where there is nothing to tell."""

    followed: Followed
    rhythm: str
    period: str
    subject: str
    text: str
    html: str
    known: Known

    def row(self, now: datetime) -> dict[str, Any]:
        """As it is stored."""
        return {
            "kind": self.followed.kind, "value": self.followed.value, "rhythm": self.rhythm, "period": self.period,
            "subject": self.subject, "text": self.text, "html": self.html, "known": dict(self.known), "made": now,
        }  # fmt: skip


@dataclass(frozen=True)
class Composed:
    """What composing did: lists with news and without, and letters that were added."""

    issues: int
    empty: int
    letters: int


def period_of(rhythm: str, day: date) -> str:
    """What a letter of a day belongs to: the day itself, or its ISO week."""
    return day.isoformat() if rhythm == "daily" else week_name(day)


class Composer:
    """Composes digests of an edition. `plain`: how a title with formulas is shown as text."""

    def __init__(self, edition: Edition, sender: Sender, plain: Callable[[str], str] = str) -> None:
        self.edition, self.sender, self.plain = edition, sender, plain
        self._rank = {slug: place for place, slug in enumerate(edition.view.trending)}
        self._verdicts = verdicts(edition)

    def draft(self, followed: Followed, rhythm: str, day: date, before: Known | None) -> Draft:
        """A list's digest of a day. `before`: what the list held at the last one; None for the first."""
        news = (self._papers if followed.papers else self._changes)(followed, rhythm, day, before)
        subject = written = html = ""
        if news.count:
            title = one_line(followed.title)
            subject = one_line(f"{title}: {news.items[0].title}", 150)
            given = {
                "title": title, "words": _words(followed, rhythm, news.count, before), "day": f"{day:%-d %B %Y}",
                "items": news.items, "more": news.count - len(news.items), "rhythm": rhythm,
                "url": self.sender.url + followed.path, "site": self.sender.url, "site_name": self.sender.name,
            }  # fmt: skip
            written = _template("digest.txt").render(given).strip() + "\n"
            html = _template("digest.html").render(given)
        return Draft(followed, rhythm, period_of(rhythm, day), subject, written, html, news.known)

    def _papers(self, followed: Followed, rhythm: str, day: date, before: Known | None) -> News:
        """New papers of a list, those that trend most first."""
        papers, last = self.edition.view.papers, day.isoformat()
        start = (day - timedelta(days=WINDOW)).isoformat()
        held = [slug for slug in found(self.edition, followed) if start < papers[slug].day <= last]
        if before is None:
            start = (day - timedelta(days=FIRST[rhythm])).isoformat()
            fresh = [slug for slug in held if papers[slug].day > start]
        else:
            told = set(before.get("papers", ()))
            fresh = [slug for slug in held if slug not in told]
        fresh.sort(key=lambda slug: self._rank.get(slug, len(self._rank)))
        return News([self._paper(slug) for slug in fresh[: MOST[rhythm]]], len(fresh), {"papers": held})

    def _paper(self, slug: str) -> Item:
        paper, standing = self.edition.view.papers[slug], self.edition.view.standings.get(slug)
        meta = [
            f"arXiv {paper.arxiv}" if paper.arxiv else "",
            ", ".join(paper.names[:3]) + (" and others" if len(paper.names) > 3 else ""),
            ", ".join(f"{count} {name}" for name, count in standing.counts.items()) if standing else "",
        ]
        told = one_line(self.plain(paper.summary or paper.abstract or ""), LEAD)
        return Item(one_line(self.plain(paper.title), 300), " · ".join(filter(None, meta)), told, self._url(slug))

    def _changes(self, followed: Followed, rhythm: str, day: date, before: Known | None) -> News:
        """Claims whose verdict is another than at the last digest; the first one only notes how they stand."""
        was: Mapping[str, str] = (before or {}).get("verdicts", {})
        changed = [] if before is None else [name for name, now in self._verdicts.items() if was.get(name) != now]
        items = [self._claim(name, was.get(name, "not run")) for name in changed[: MOST[rhythm]]]
        return News(items, len(changed), {"verdicts": {**was, **self._verdicts}})

    def _claim(self, name: str, was: str) -> Item:
        slug, _, claim = name.partition(" ")
        view = self.edition.view
        state = next(state for state in view.standings[slug].claims if state.claim.id == claim)
        title = one_line(self.plain(view.papers[slug].title), 300) if slug in view.papers else slug
        said = one_line(self.plain(state.claim.statement), LEAD)
        return Item(f"{claim}: {was} → {self._verdicts[name]}", title, said, f"{self._url(slug)}#{claim}")

    def _url(self, slug: str) -> str:
        return f"{self.sender.url}/papers/{slug}"


def _words(followed: Followed, rhythm: str, count: int, before: Known | None) -> str:
    what = f"{count} new paper{'' if count == 1 else 's'}" if followed.papers else f"{count} claim{'' if count == 1 else 's'}"
    since = "the last letter" if before is not None else "yesterday" if rhythm == "daily" else "a week ago"
    return f"{what} since {since}"


def verdicts(edition: Edition) -> dict[str, str]:
    """Paper and claim -> verdict, of the papers' own claims that have one; where the code has changed since, what it was."""
    known = {}
    for slug, standing in edition.view.standings.items():
        for state in standing.claims:
            verdict = state.leaning if state.verdict == "stale" else state.verdict
            if state.claim.kind == "paper" and verdict and verdict != "not run":
                known[f"{slug} {state.claim.id}"] = verdict
    return known


def followed_lists(store: Store) -> list[tuple[Followed, str]]:
    """Each list that somebody follows, and how often."""
    columns = (Subscription.kind, Subscription.value, Subscription.rhythm)
    with store.session() as session:
        rows = session.execute(select(*columns).where(Subscription.state == "active").distinct().order_by(*columns)).all()
    return [(Followed(kind, value), rhythm) for kind, value, rhythm in rows]


def compose(
    store: Store,
    composer: Callable[[], Composer],
    day: date,
    now: datetime | None = None,
    told: Callable[[float], None] = lambda share: None,
) -> Composed:
    """Composes a day's digests and adds a letter for each address that follows; what is composed already stays as it is.

    A list has one digest a period and an address one copy, however often and from wherever this is called, and wherever it was
    stopped. `composer` is called once, and only where a list has no digest of the period yet. Raises `InputError` for a day to
    come, and for one long gone.
    """
    now = now or datetime.now(UTC)
    check_day(day, now)
    lists, once = followed_lists(store), cache(composer)
    issues = letters = 0
    for start in range(0, len(lists), AT_ONCE):
        part = lists[start : start + AT_ONCE]
        added = _add(store, list(_missing(store, once, part, day)), part, day, now)
        issues, letters = issues + added[0], letters + added[1]
        told((start + len(part)) / len(lists))
    return Composed(issues, len(lists) - issues, letters)


def _add(
    store: Store, drafts: Sequence[Draft], lists: Sequence[tuple[Followed, str]], day: date, now: datetime, again: int = 3
) -> tuple[int, int]:
    """Stores digests, and letters for all who follow the lists; returns (lists with news, letters that were added)."""
    into = postgresql.insert if store.engine.dialect.name == "postgresql" else sqlite.insert
    issues = letters = 0
    try:
        with store.session() as session:
            if drafts:
                session.execute(into(Issue).on_conflict_do_nothing(), [draft.row(now) for draft in drafts])
            for followed, rhythm in lists:
                told_of = _of(followed, rhythm).where(Issue.period == period_of(rhythm, day), Issue.text != "")
                number = session.scalars(told_of).one_or_none()
                if number is not None:
                    copies = _copies(number, followed, rhythm, period_of(rhythm, day), now)
                    added = into(Letter).from_select(COLUMNS, copies).on_conflict_do_nothing().returning(Letter.id)
                    issues, letters = issues + 1, letters + len(session.execute(added).all())
    except StoreError as error:
        if again and isinstance(error.__cause__, IntegrityError):  # somebody has left at this moment
            return _add(store, drafts, lists, day, now, again - 1)
        raise
    return issues, letters


def check_day(day: date, now: datetime) -> None:
    """Raises `InputError` for a day to come, and for one of which it is not known any more who got a letter."""
    if not now.date() - timedelta(days=WINDOW) <= day <= now.date():
        raise InputError(f"There are digests for today and the {WINDOW} days before, and not for {day}.")


def _missing(
    store: Store, composer: Callable[[], Composer], lists: Sequence[tuple[Followed, str]], day: date
) -> Iterator[Draft]:
    """Drafts of the lists that have no digest of this period yet."""
    for followed, rhythm in lists:
        with store.session() as session:
            there = session.scalars(_of(followed, rhythm).where(Issue.period == period_of(rhythm, day))).one_or_none()
        if there is None:
            yield composer().draft(followed, rhythm, day, _before(store, followed, rhythm, day))


def previews(store: Store, composer: Composer, day: date, now: datetime | None = None) -> Iterator[Draft]:
    """What a day's digests are, or would be; nothing is stored."""
    check_day(day, now or datetime.now(UTC))
    for followed, rhythm in followed_lists(store):
        yield composer.draft(followed, rhythm, day, _before(store, followed, rhythm, day))


def _before(store: Store, followed: Followed, rhythm: str, day: date) -> Known | None:
    """What a list held at its last digest before this one."""
    last = _of(followed, rhythm).where(Issue.period < period_of(rhythm, day)).order_by(Issue.period.desc()).limit(1)
    earlier = select(Issue.known).where(Issue.id == last.scalar_subquery())
    with store.session() as session:
        return session.scalars(earlier).one_or_none()


def _of(followed: Followed, rhythm: str) -> Select[int]:
    return select(Issue.id).where(Issue.kind == followed.kind, Issue.value == followed.value, Issue.rhythm == rhythm)


COLUMNS = ["issue_id", "subscription_id", "period", "state", "tries", "due", "changed", "answer"]


def _copies(number: int, followed: Followed, rhythm: str, period: str, now: datetime) -> Any:
    """Letters of a digest for all who follow its list."""
    return select(
        literal(number), Subscription.id, literal(period), literal("waiting"), literal(0), literal(now, Letter.due.type),
        literal(now, Letter.changed.type), literal(""),
    ).where(
        Subscription.kind == followed.kind, Subscription.value == followed.value, Subscription.rhythm == rhythm,
        Subscription.state == "active",
    )  # fmt: skip


@cache
def _template(name: str) -> Any:
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "letters"), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, autoescape=select_autoescape(default=True, disabled_extensions=("txt",)),
    )  # fmt: skip
