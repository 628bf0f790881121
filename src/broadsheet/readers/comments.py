"""Comments on papers and on their claims: threads two deep, edits and deletions that leave a trace, reports."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, Select, delete, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from broadsheet.errors import InputError, NotFoundError
from broadsheet.lab.people import Account, Authorship, Comment, Complaint, Wording
from broadsheet.lab.rows import RUN_ID
from broadsheet.lab.store import Store, raise_revision
from broadsheet.lab.tables import Run
from broadsheet.page.edition import Noticed
from broadsheet.page.facts import UNWANTED
from broadsheet.readers import notices, rates
from broadsheet.readers.accounts import Reader, account

LONGEST, LONGEST_RUN, LONGEST_REASON = 10_000, 400, 400
"""Characters of a comment, of a run's address and of a report's reason."""

OFTEN, NEWCOMERS = rates.Limit("commented", 20, 3600), rates.Limit("commented", 5, 3600)
CHANGES = rates.Limit("edited", 60, 3600)
REPORTS = rates.Limit("reported", 20, 3600)
"""How often in an hour: comments, those of accounts younger than `NEW`, edits and deletions, reports."""

NEW, KNOWN = timedelta(days=7), 3
"""A comment with a link waits for a moderator until so many comments of its account have been shown, and so many days."""

TWICE = timedelta(minutes=10)
"""Within it, the same words at the same place are the same comment."""

PER_PAGE, MOST_ANSWERS = 20, 100
"""Comments of a page, without their answers; and answers that a comment may have."""

LINK = re.compile(
    r"https?:|www\.|mailto:|\][(\[:]|"
    r"<[a-z][a-z0-9+.-]*:|<[^>\s]{1,254}@|\b[\w-]{1,63}\.[a-z]{2,6}/",
    re.IGNORECASE,
)
ADDRESS = re.compile(r"[!#-;=?-\[\]_a-z~%]+")
SHOWN, WAITING, HIDDEN, DELETED = "shown", "waiting", "hidden", "deleted"
REPRODUCED = ("", "yes", "no")

_COMMENTS = select(Comment, Account.name.label("name")).outerjoin(Account, Account.id == Comment.account_id)
_below = aliased(Comment)
_OPEN = or_(
    Comment.state.in_((SHOWN, DELETED)),
    (Comment.state == HIDDEN) & select(_below.id).where(_below.parent_id == Comment.id, _below.state == SHOWN).exists(),
)


@dataclass(frozen=True)
class Said:
    """A comment as its readers see it; `name` is empty where the account is gone, `text` where they may not read it."""

    id: int
    slug: str
    claim: str
    parent: int | None
    account: int | None
    name: str
    text: str
    run: str
    reproduced: str
    author: bool
    state: str
    made: datetime
    edited: datetime | None
    answers: tuple[Said, ...] = ()


@dataclass(frozen=True)
class Threads:
    """A page of a discussion: `number` of `last`, and how many comments without a parent there are."""

    found: Sequence[Said]
    count: int
    number: int
    last: int


NOTHING = Threads((), 0, 1, 1)


@dataclass(frozen=True)
class Tally:
    """Of a claim: comments, how many readers could and could not reproduce it, and what the authors said last."""

    comments: int = 0
    could: int = 0
    could_not: int = 0
    answer: Said | None = None


def tidy(text: str, most: int = LONGEST) -> str:
    """A text of several lines without control characters and marks that turn its direction round; raises `InputError` where it
    is empty or too long."""
    if len(text) > 2 * most:
        raise InputError(f"That is too long: {most} characters are allowed.")
    kept = clean(text)
    if not kept:
        raise InputError("There is nothing in it.")
    if len(kept) > most:
        raise InputError(f"That is {len(kept)} characters; {most} are allowed.")
    return kept


def clean(text: str) -> str:
    """A text of several lines without control characters, marks that turn its direction round, and what is no character."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in lines if char in "\n\t" or (_kept(char) and char not in UNWANTED)).strip()


def _kept(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp") and char not in "\ufffe\uffff"


def add(
    store: Store, reader: Reader, slug: str, text: str, claim: str = "", parent: int = 0, run: str = "",
    reproduced: str = "", now: datetime | None = None,
) -> tuple[int, Noticed]:  # fmt: skip
    """Writes a comment on a paper, one of its claims, or a comment; returns its number and what the paper has now.

    An answer to an answer stands beneath the same comment. The paper and the claim are the caller's to look up.
    """
    now, text, run = now or datetime.now(UTC), tidy(text), plain_run(run)
    if reproduced not in REPRODUCED or (reproduced and not claim):
        raise InputError("Whether something was reproduced is said of a claim, by 'yes' or 'no'.")
    with store.session() as session:
        young = account(session, reader.id).made > now - NEW
    rates.count(store, NEWCOMERS if young else OFTEN, str(reader.id), now)
    with store.session() as session:
        raise_revision(session, "readers")
        _must_be_known(session, slug, run)
        above = _above(session, slug, parent)
        claim, place = (above.claim, above.parent_id or above.id) if above else (claim, None)
        if place is not None and _answers(session, place) >= MOST_ANSWERS:
            raise InputError(f"This thread has {MOST_ANSWERS} answers, which are all it can take; begin another.")
        twin = select(Comment.id).where(
            Comment.account_id == reader.id, Comment.slug == slug, Comment.claim == claim, Comment.text == text,
            Comment.parent_id.is_(None) if place is None else Comment.parent_id == place,
            Comment.made > now - TWICE, Comment.state != DELETED,
        )  # fmt: skip
        known = session.scalars(twin).first()
        if known is not None:
            return known, notices.recount_comments(session, slug)
        row = Comment(
            slug=slug, claim=claim, parent_id=place, account_id=reader.id, text=text, run=run,
            reproduced=reproduced if claim else "",  # an answer is on the claim of what it answers
            author=_is_author(session, reader.id, slug), state=SHOWN, made=now, edited=None,
        )  # fmt: skip
        if _waits(session, reader, f"{text} {run}", row.author, now):
            row.state = WAITING
        session.add(row)
        session.flush()
        return row.id, notices.recount_comments(session, slug)


def _answers(session: Session, number: int) -> int:
    return session.scalar(_count(Comment.parent_id == number)) or 0


def _count(*which: ColumnElement[bool]) -> Select[int]:
    return select(func.count()).select_from(Comment).where(*which)


def _above(session: Session, slug: str, parent: int) -> Comment | None:
    """The comment that is answered; raises `NotFoundError` where it is none of the paper's, or is not shown."""
    if not parent:
        return None
    found = session.get(Comment, parent)
    if found is None or found.slug != slug or found.state != SHOWN:
        raise NotFoundError("The comment that is answered is not there any more.")
    return found


def plain_run(text: str) -> str:
    """A run that a comment speaks of: the number of one of this site, or an https address; raises `InputError` for others."""
    run = text.strip()
    try:
        found = urlsplit(run)
        whole = found.scheme == "https" and bool(found.hostname) and not found.username and (found.port or 443) > 0
    except ValueError:
        whole = False
    if not run or RUN_ID.fullmatch(run) or (whole and len(run) <= LONGEST_RUN and ADDRESS.fullmatch(run)):
        return run
    raise InputError("A run is wanted as its number on this site (64 hexadecimal digits) or as an https address.")


def _must_be_known(session: Session, slug: str, run: str) -> None:
    """Raises `InputError` where a run of this site is meant that is none of the paper's."""
    if RUN_ID.fullmatch(run) and session.scalars(select(Run.id).where(Run.id == run, Run.slug == slug)).first() is None:
        raise InputError("This site has no run of this paper with that number.")


def _is_author(session: Session, reader: int, slug: str) -> bool:
    found = session.get(Authorship, (reader, slug))
    return found is not None and found.state == "confirmed"


def _waits(session: Session, reader: Reader, text: str, author: bool, now: datetime) -> bool:
    """Whether a comment waits for a moderator: one with a link, of an account that is not known yet."""
    if author or reader.moderates or not LINK.search(text):
        return False
    known = session.scalar(_count(Comment.account_id == reader.id, Comment.state == SHOWN)) or 0
    return known < KNOWN or account(session, reader.id).made > now - NEW


def edit(store: Store, reader: Reader, number: int, text: str, now: datetime | None = None) -> tuple[Said, Noticed]:
    """Changes the words of one's own comment; the earlier ones are kept for moderators."""
    now, text = now or datetime.now(UTC), tidy(text)
    rates.count(store, CHANGES, str(reader.id), now)
    with store.session() as session:
        raise_revision(session, "readers")
        found = _own(session, reader, number, SHOWN, WAITING)
        if found.text != text:
            session.add(Wording(comment_id=found.id, text=found.text, made=found.edited or found.made))
            found.text, found.edited = text, now
            if _waits(session, reader, text, found.author, now):
                found.state = WAITING
            session.flush()
        return _said(found, reader.name), notices.recount_comments(session, found.slug)


def erase(store: Store, reader: Reader, number: int, now: datetime | None = None) -> tuple[Said, Noticed]:
    """Deletes one's own comment with all its words; that there was one stays to be seen."""
    rates.count(store, CHANGES, str(reader.id), now)
    with store.session() as session:
        raise_revision(session, "readers")
        found = _own(session, reader, number, SHOWN, WAITING, HIDDEN)
        empty(session, [found.id])
        session.refresh(found)
        return _said(found, reader.name), notices.recount_comments(session, found.slug)


def empty(session: Session, numbers: Sequence[int]) -> None:
    """Takes the words out of comments and leaves their places; their papers are to be counted anew."""
    session.execute(delete(Wording).where(Wording.comment_id.in_(numbers)))
    session.execute(update(Complaint).where(Complaint.comment_id.in_(numbers), Complaint.outcome == "").values(outcome=DELETED))
    gone = {"text": "", "run": "", "reproduced": "", "state": DELETED}
    session.execute(update(Comment).where(Comment.id.in_(numbers)).values(**gone))


def _own(session: Session, reader: Reader, number: int, *states: str) -> Comment:
    query = select(Comment).where(Comment.id == number, Comment.account_id == reader.id, Comment.state.in_(states))
    found = session.scalars(query).one_or_none()
    if found is None:
        raise NotFoundError("There is no such comment of yours.")
    return found


def report(store: Store, reader: Reader, number: int, reason: str, now: datetime | None = None) -> None:
    """Tells moderators of a comment; a second report of the same reader changes nothing."""
    reason = " ".join(tidy(reason, LONGEST_REASON).split())
    rates.count(store, REPORTS, str(reader.id), now)
    with store.session() as session:
        raise_revision(session, "readers")
        found = session.get(Comment, number)
        if found is None or found.state != SHOWN or found.account_id == reader.id:
            raise NotFoundError("There is no such comment to report.")
        if session.get(Complaint, (number, reader.id)) is None:
            session.add(
                Complaint(comment_id=number, account_id=reader.id, reason=reason, made=now or datetime.now(UTC), outcome="")
            )


def one(store: Store, number: int, reader: Reader | None = None) -> Said:
    """A comment; raises `NotFoundError` where there is none that this reader may see."""
    with store.session() as session:
        row = session.execute(_COMMENTS.where(Comment.id == number, _visible(reader))).one_or_none()
        if row is None:
            raise NotFoundError("There is no such comment.")
        return _read(row)


def threads(
    store: Store, slug: str, claim: str = "", number: int = 1, reader: Reader | None = None, per_page: int = PER_PAGE
) -> Threads:
    """A page of the comments on a paper, or on one of its claims, each with its answers, the oldest first."""
    mine = [Comment.slug == slug, Comment.claim == claim, Comment.parent_id.is_(None), _visible(reader)]
    with store.session() as session:
        count = session.scalar(_count(*mine)) or 0
        last = max(1, math.ceil(count / per_page))
        if number > last:
            raise NotFoundError(f"There is no page {number}; the last one is {last}.")
        start = (number - 1) * per_page
        page = _COMMENTS.where(*mine).order_by(Comment.id).limit(per_page).offset(start)
        top = [_read(row) for row in session.execute(page)] if count else []
        below = _COMMENTS.where(Comment.parent_id.in_([one.id for one in top]), _visible(reader)).order_by(Comment.id)
        answers: dict[int | None, list[Said]] = {}
        for row in session.execute(below) if top else ():
            answers.setdefault(row.Comment.parent_id, []).append(_read(row))
    return Threads([replace(one, answers=tuple(answers.get(one.id, ()))) for one in top], count, number, last)


def latest(store: Store, slug: str, most: int = 60) -> list[Said]:
    """The newest comments on a paper and its claims that everybody sees."""
    query = _COMMENTS.where(Comment.slug == slug, Comment.state == SHOWN).order_by(Comment.id.desc()).limit(most)
    with store.session() as session:
        return [_read(row) for row in session.execute(query)]


def of_account(store: Store, number: int, most: int = 200) -> list[Said]:
    """An account's own comments, the newest first."""
    query = _COMMENTS.where(Comment.account_id == number, Comment.state != DELETED).order_by(Comment.id.desc()).limit(most)
    with store.session() as session:
        return [_said(row.Comment, row.name or "") for row in session.execute(query)]


def page_of(store: Store, found: Said, reader: Reader | None = None) -> int:
    """The page of its discussion on which a comment stands."""
    first = found.parent or found.id
    before = _count(
        Comment.slug == found.slug, Comment.claim == found.claim, Comment.parent_id.is_(None), Comment.id < first,
        _visible(reader),
    )  # fmt: skip
    with store.session() as session:
        return (session.scalar(before) or 0) // PER_PAGE + 1


def tallies(store: Store, slug: str) -> dict[str, Tally]:
    """claim -> what readers said of it. Whoever says it twice is counted once, by what was said last."""
    of = [Comment.slug == slug, Comment.claim != "", Comment.state == SHOWN]
    stated = select(Comment.claim, Comment.account_id, Comment.reproduced, Comment.author, Comment.id).where(*of)
    last: dict[str, dict[int | None, str]] = {}
    count: dict[str, int] = {}
    answers: dict[str, int] = {}
    with store.session() as session:
        for claim, who, reproduced, author, number in session.execute(stated.order_by(Comment.id)):
            count[claim] = count.get(claim, 0) + 1
            if reproduced:
                last.setdefault(claim, {})[who] = reproduced
            if author:
                answers[claim] = number
        query = _COMMENTS.where(Comment.id.in_(answers.values()))
        words = {row.Comment.claim: _read(row) for row in session.execute(query)} if answers else {}
    found = {claim: list(by.values()) for claim, by in last.items()}
    return {
        claim: Tally(total, found.get(claim, []).count("yes"), found.get(claim, []).count("no"), words.get(claim))
        for claim, total in count.items()
    }


def _visible(reader: Reader | None) -> ColumnElement[bool]:
    """What a reader sees something of: a hidden comment only where it was answered, one that waits only if it is their own."""
    if reader is None:
        return _OPEN
    return or_(_OPEN, (Comment.state == WAITING) & (Comment.account_id == reader.id))


def _read(row: Any) -> Said:
    """A comment, of a hidden or deleted one its place alone."""
    found = _said(row.Comment, row.name or "")
    if found.state in (SHOWN, WAITING):
        return found
    return replace(found, name="", text="", run="", reproduced="", author=False)


def _said(row: Comment, name: str) -> Said:
    return Said(
        row.id, row.slug, row.claim, row.parent_id, row.account_id, name, row.text, row.run, row.reproduced, row.author,
        row.state, row.made, row.edited,
    )  # fmt: skip


def said(rows: Iterable[Any]) -> list[Said]:
    """Comments with all their words, for moderators: rows of (comment, name)."""
    return [_said(row.Comment, row.name or "") for row in rows]
