"""What waits for a moderator: comments that were reported or have links, and accounts that say they are authors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from broadsheet.errors import InputError, NotFoundError
from broadsheet.lab.people import Account, ApiToken, Authorship, Comment, Complaint, Identity, SignIn, Vote, Wording
from broadsheet.lab.store import Store, raise_revision
from broadsheet.page.edition import Noticed
from broadsheet.readers import notices, rates
from broadsheet.readers.accounts import Reader, account
from broadsheet.readers.comments import DELETED, HIDDEN, SHOWN, WAITING, Said, said, tidy

CLAIMS = rates.Limit("asked to be confirmed", 10, 86_400)
LONGEST_WORDS = 400
MOST, LATEST, MOST_WORDINGS = 200, 50, 400
"""Comments, and claims of authorship, that a queue shows at once; comments that were hidden last; earlier words of them."""

ACTIONS = ("show", "hide", "dismiss", "block")


@dataclass(frozen=True)
class Case:
    """A comment to look at: why it was reported, and how it read before."""

    comment: Said
    reasons: Sequence[str] = ()
    wordings: Sequence[str] = ()


@dataclass(frozen=True)
class Asked:
    """An account that says it is an author of a paper, and who it is elsewhere: (issuer, subject, name)."""

    account: int
    name: str
    address: str
    slug: str
    words: str
    state: str
    identities: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Queue:
    """All that waits, and the authors who were confirmed last."""

    reported: Sequence[Case]
    waiting: Sequence[Case]
    hidden: Sequence[Case]
    asked: Sequence[Asked]
    authors: Sequence[Asked]

    def __len__(self) -> int:
        return len(self.reported) + len(self.waiting) + len(self.asked)


def queue(store: Store) -> Queue:
    """What a moderator has to look at, what was reported first on top."""
    open_ones = select(Complaint.comment_id).where(Complaint.outcome == "")
    with store.session() as session:
        return Queue(
            _cases(session, Comment.id.in_(open_ones), Comment.state.in_((SHOWN, WAITING))),
            _cases(session, Comment.state == WAITING, Comment.id.not_in(open_ones)),
            _cases(session, Comment.state == HIDDEN, latest=True),
            _asked(session, "asked"),
            _asked(session, "confirmed"),
        )


def _cases(session: Session, *which: ColumnElement[bool], latest: bool = False) -> list[Case]:
    query = select(Comment, Account.name.label("name")).outerjoin(Account, Account.id == Comment.account_id)
    ordered = query.order_by(Comment.id.desc()).limit(LATEST) if latest else query.order_by(Comment.id).limit(MOST)
    found = said(session.execute(ordered.where(*which)))
    numbers = [one.id for one in found]
    reasons: dict[int, list[str]] = {}
    wordings: dict[int, list[str]] = {}
    for complaint in session.scalars(select(Complaint).where(Complaint.comment_id.in_(numbers), Complaint.outcome == "")):
        reasons.setdefault(complaint.comment_id, []).append(complaint.reason)
    before = select(Wording).where(Wording.comment_id.in_(numbers)).order_by(Wording.id.desc()).limit(MOST_WORDINGS)
    for wording in list(session.scalars(before))[::-1]:
        wordings.setdefault(wording.comment_id, []).append(wording.text)
    return [Case(one, reasons.get(one.id, ()), wordings.get(one.id, ())) for one in found]


def _asked(session: Session, state: str) -> list[Asked]:
    query = select(Authorship, Account).join(Account, Account.id == Authorship.account_id).where(Authorship.state == state)
    rows = session.execute(query.order_by(Authorship.made.desc()).limit(MOST)).all()
    identities: dict[int, list[tuple[str, str, str]]] = {}
    for known in session.scalars(select(Identity).where(Identity.account_id.in_([who.id for _, who in rows]))):
        identities.setdefault(known.account_id, []).append((known.issuer, known.subject, known.name))
    return [
        Asked(who.id, who.name, who.address or "", asked.slug, asked.words, asked.state, identities.get(who.id, ()))
        for asked, who in rows
    ]


def settle(store: Store, number: int, action: str, administrator: bool = False) -> dict[str, Noticed]:
    """What a moderator does with a comment; returns what the papers have now that it changes.

    `show`; `hide`; `dismiss` (the reports; it stays as it is); `block`: its account is shut out, all its comments are hidden
    and its votes count no more. Moderators are blocked by the administrator alone.
    """
    if action not in ACTIONS:
        raise InputError(f"{action[:20]!r} is nothing that moderators do; one of {', '.join(ACTIONS)} is wanted.")
    with store.session() as session:
        raise_revision(session, "readers")
        found = session.get(Comment, number)
        if found is None or found.state == DELETED:
            raise NotFoundError("There is no such comment.")
        changed = {found.slug}
        if action == "block":
            changed |= _block(session, found, administrator)
        elif action != "dismiss":
            found.state = SHOWN if action == "show" else HIDDEN
        outcome = "dismissed" if action in ("dismiss", "show") else HIDDEN
        session.execute(
            update(Complaint).where(Complaint.comment_id == number, Complaint.outcome == "").values(outcome=outcome)
        )
        session.flush()
        if action == "block":
            return notices.recount(session, sorted(changed))
        return {found.slug: notices.recount_comments(session, found.slug)}


def _block(session: Session, found: Comment, administrator: bool) -> set[str]:
    """Blocks a comment's account and hides what it wrote; returns the papers that this changes."""
    if found.account_id is None:
        raise NotFoundError("The account of this comment is gone already.")
    who = account(session, found.account_id)
    if who.role != "reader" and not administrator:
        raise InputError("Only the administrator may block a moderator.")
    who.blocked = True
    for table in (SignIn, ApiToken):
        session.execute(delete(table).where(table.account_id == who.id))
    written = session.scalars(select(Comment.slug).where(Comment.account_id == who.id)).all()
    hidden = update(Comment).where(Comment.account_id == who.id, Comment.state.in_((SHOWN, WAITING)))
    session.execute(hidden.values(state=HIDDEN))
    return {*written, *session.scalars(select(Vote.slug).where(Vote.account_id == who.id))}


def ask(store: Store, reader: Reader, slug: str, words: str, now: datetime | None = None) -> None:
    """An account says that it is an author of a paper; a moderator confirms it, or not."""
    words = " ".join(tidy(words, LONGEST_WORDS).split())
    rates.count(store, CLAIMS, str(reader.id), now)
    with store.session() as session:
        raise_revision(session, "readers")
        found = session.get(Authorship, (reader.id, slug))
        if found is None:
            made = now or datetime.now(UTC)
            session.add(Authorship(account_id=reader.id, slug=slug, state="asked", words=words, made=made))
        elif found.state != "confirmed":
            found.state, found.words = "asked", words


def confirm(store: Store, number: int, slug: str, yes: bool) -> None:
    """Confirms that an account is an author of a paper, or says that it is not; what it wrote there is marked, or not."""
    with store.session() as session:
        raise_revision(session, "readers")
        found = session.get(Authorship, (number, slug))
        if found is None:
            raise NotFoundError("Nobody asked for that.")
        found.state = "confirmed" if yes else "refused"
        mine = update(Comment).where(Comment.account_id == number, Comment.slug == slug)
        session.execute(mine.values(author=yes))
        session.flush()
        notices.recount_comments(session, slug)


def authorship(store: Store, number: int, slug: str) -> str:
    """What is known of an account as an author of a paper: `asked`, `confirmed`, `refused`, or empty."""
    with store.session() as session:
        found = session.get(Authorship, (number, slug))
        return found.state if found is not None else ""
