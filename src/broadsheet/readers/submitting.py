"""What readers bring: arXiv identifiers and repositories with a `claims.toml`, which wait for the administrator."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import InstrumentedAttribute

from broadsheet.errors import InputError, NotFoundError
from broadsheet.lab.people import Account, Submission
from broadsheet.lab.store import Store
from broadsheet.page.identifiers import identifier
from broadsheet.readers import accounts
from broadsheet.readers.comments import clean

MOST_WAITING = 10
"""What one account may have waiting."""

REPOSITORY = re.compile(r"https://((?:[a-z0-9-]+\.)+[a-z0-9-]+(?::\d{1,5})?)((?:/[\w.~+%-]+)+)/*", re.IGNORECASE | re.ASCII)
"""The address of a repository, of characters that mean nothing to a shell: the administrator copies it into one."""

Kind = Literal["paper", "repository"]
Outcome = Literal["accepted", "refused"]


@dataclass(frozen=True)
class Brought:
    """A submission as it is shown; `by`: the name of the account."""

    id: int
    account: int
    by: str
    kind: str
    value: str
    note: str
    state: str
    answer: str
    made: datetime


def submit(store: Store, number: int, given: str, note: str = "") -> int:
    """Takes in an arXiv identifier in any spelling, or the https address of a repository; returns the submission's number.

    Raises `InputError` for anything else, for what waits already, and where too much of the account's waits.
    """
    kind, value = read(given)
    note = clean(note)
    if len(note) > 400:
        raise InputError("A note has 400 characters at the most.")
    with store.session() as session:
        accounts.hold(session, number)
        waiting = select(func.count()).select_from(Submission).where(Submission.state == "waiting")
        if session.scalar(waiting.where(Submission.value == value)):
            raise InputError(f"{value} waits already.")
        if (session.scalar(waiting.where(Submission.account_id == number)) or 0) >= MOST_WAITING:
            raise InputError(f"{MOST_WAITING} of yours wait already; the administrator looks at those first.")
        made = Submission(
            account_id=number, kind=kind, value=value, note=note, state="waiting", made=datetime.now(UTC), settled=None
        )  # fmt: skip
        session.add(made)
        session.flush()
        return made.id


def read(given: str) -> tuple[Kind, str]:
    """(what it is, how it is spelt): an arXiv identifier, or a repository's https address without user, query or fragment."""
    text = given.strip()
    arxiv = identifier(text)
    if arxiv is not None:
        return "paper", arxiv
    found = REPOSITORY.fullmatch(text)
    if found is None or len(text) > 400:
        raise InputError("An arXiv identifier is wanted, or the https address of a repository with a claims.toml.")
    return "repository", f"https://{found[1].lower()}{found[2]}"


def waiting(store: Store) -> list[Brought]:
    """What waits for the administrator, the oldest first."""
    return _found(store, Submission.state == "waiting", Submission.id)


def of_account(store: Store, number: int) -> list[Brought]:
    """What an account has brought, the newest first."""
    return _found(store, Submission.account_id == number, Submission.id.desc())


def one(store: Store, number: int) -> Brought:
    """One submission; raises `NotFoundError` where there is none."""
    found = _found(store, Submission.id == number, Submission.id)
    if not found:
        raise NotFoundError("There is no such submission.")
    return found[0]


def settle(store: Store, number: int, outcome: Outcome, answer: str = "") -> None:
    """The administrator's word; raises `InputError` where there was one already."""
    with store.session() as session:
        wanted = update(Submission).where(Submission.id == number, Submission.state == "waiting")
        values = {"state": outcome, "answer": clean(answer)[:400], "settled": datetime.now(UTC)}
        if not session.execute(wanted.values(**values)).rowcount:  # type: ignore[attr-defined]
            raise InputError("That submission does not wait any more.")


def _found(store: Store, which: ColumnElement[bool], order: ColumnElement[int] | InstrumentedAttribute[int]) -> list[Brought]:
    query = select(Submission, Account.name).join(Account, Account.id == Submission.account_id).where(which)
    with store.session() as session:
        return [
            Brought(row.id, row.account_id, by, row.kind, row.value, row.note, row.state, row.answer, row.made)
            for row, by in session.execute(query.order_by(order).limit(500))
        ]
