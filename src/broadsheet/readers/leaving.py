"""What an account takes along, and how it goes: export, another address, deletion."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadsheet.errors import InputError, StoreError
from broadsheet.lab.people import (
    Account,
    ApiToken,
    Authorship,
    Collected,
    Collection,
    Comment,
    Complaint,
    Identity,
    Passkey,
    ReadMark,
    SignIn,
    Submission,
    Subscription,
    Token,
    Vote,
    Wording,
)
from broadsheet.lab.store import Store, raise_revision
from broadsheet.lab.tables import Base
from broadsheet.readers import accounts, notices, subscriptions
from broadsheet.readers.accounts import LinkError

OWN: tuple[type[Base], ...] = (
    SignIn, ApiToken, Passkey, Identity, Vote, Complaint, Authorship, Collection, ReadMark, Submission,
)  # fmt: skip
"""Tables whose rows belong to an account and go with it, what hangs on them first."""

UNSAID = {"digest", "public_key", "account_id"}
"""Columns that an export leaves out: digests of secrets, and the account's own number."""


def export(store: Store, number: int) -> dict[str, Any]:
    """All that is kept of an account, table by table, as JSON; raises `NotFoundError` where it is gone."""
    with store.session() as session:
        found = accounts.account(session, number)
        comments = list(session.scalars(select(Comment).where(Comment.account_id == number).order_by(Comment.id)))
        mine: dict[str, list[Any]] = {
            table.__tablename__: list(session.scalars(select(table).where(_of(table, number)))) for table in OWN
        }
        shelves = select(Collection.id).where(Collection.account_id == number)
        mine |= {
            "collected": list(session.scalars(select(Collected).where(Collected.collection_id.in_(shelves)))),
            "comments": comments,
            "wordings": list(session.scalars(select(Wording).where(Wording.comment_id.in_([one.id for one in comments])))),
            "subscriptions": list(session.scalars(select(Subscription).where(_letters(found)))),
        }
        return {"account": _plain(found), **{name: [_plain(row) for row in rows] for name, rows in sorted(mine.items())}}


def block(store: Store, number: int, blocked: bool = True) -> None:
    """Shuts an account out, or lets it in again: its sessions and keys end, and its votes count or do not."""
    accounts.block(store, number, blocked)
    with store.session() as session:
        raise_revision(session, "readers")
        if slugs := sorted(session.scalars(select(Vote.slug).where(Vote.account_id == number))):
            notices.recount(session, slugs)


def delete_account(store: Store, number: int) -> None:
    """Deletes an account and all that hangs on it; its comments keep their places, without a word and without a name.

    Raises `NotFoundError` where it is gone already.
    """
    with store.session() as session:
        raise_revision(session, "readers")  # first: votes and comments of the same moment wait
        accounts.hold(session, number)
        found = accounts.account(session, number)
        slugs = set(session.scalars(select(Vote.slug).where(Vote.account_id == number)))
        comments = list(session.execute(select(Comment.id, Comment.slug).where(Comment.account_id == number)))
        slugs |= {slug for _, slug in comments}
        subscriptions.end(session, list(session.scalars(select(Subscription.id).where(_letters(found)))))
        _empty(session, [one for one, _ in comments])
        shelves = list(session.scalars(select(Collection.id).where(Collection.account_id == number)))
        session.execute(delete(Collected).where(Collected.collection_id.in_(shelves)))
        for table in OWN:
            session.execute(delete(table).where(_of(table, number)))
        _drop_tokens(session, number, found.address)
        session.execute(delete(Account).where(Account.id == number))
        if slugs:
            notices.recount(session, sorted(slugs))


def _empty(session: Session, comments: list[int]) -> None:
    """Takes an account's words out of its comments, and what others reported of them."""
    for start in range(0, len(comments), 500):
        part = comments[start : start + 500]
        session.execute(delete(Wording).where(Wording.comment_id.in_(part)))
        session.execute(delete(Complaint).where(Complaint.comment_id.in_(part)))
        blank = {"account_id": None, "text": "", "run": "", "reproduced": "", "author": False, "state": "deleted"}
        session.execute(update(Comment).where(Comment.id.in_(part)).values(**blank))


def _drop_tokens(session: Session, number: int, address: str | None) -> None:
    """Drops links that were made for an account, or for its address."""
    for token in session.scalars(select(Token)):
        held = token.data
        if held.get("account") == number or (address and address in (held.get("address"), held.get("new"))):
            session.delete(token)


def ask_for_address(store: Store, number: int, text: str) -> tuple[str, str]:
    """Makes a link that gives an account another address; returns (the new address, the link's token).

    It works for who is signed in to the account, and says nothing of other accounts before it is followed.
    """
    new = accounts.plain_address(text)
    token, _ = accounts.ask(store, "address", {"account": number, "new": new}, _browser(number))
    return new, token


def look_at_address(store: Store, number: int, token: str) -> None:
    """Raises `LinkError` where a link for another address does not work for this account."""
    if not accounts.look(store, "address", token, _browser(number)):
        raise LinkError("This link was asked for by another account.")


def change_address(store: Store, number: int, token: str, session_kept: str) -> str:
    """Gives an account the address that its link was mailed to; returns the one before, empty where there was none.

    What it follows by mail goes along, and its sessions end, but for one.
    """
    look_at_address(store, number, token)
    new = accounts.use(store, "address", token, _browser(number))["new"]
    try:
        with store.session() as session:
            found = accounts.account(session, number)
            before = found.address or ""
            if before == new:
                return ""
            _move_letters(session, found, new)
            found.address = new
            session.execute(delete(SignIn).where(SignIn.account_id == number, SignIn.digest != session_kept))
    except StoreError as error:
        if isinstance(error.__cause__, IntegrityError):
            raise InputError("Another account has that address; sign in there, and delete it or change its address.") from None
        raise
    return before


def _move_letters(session: Session, found: Account, new: str) -> None:
    """Carries an account's subscriptions to another address; those that it has already are not doubled."""
    there = {(row.kind, row.value): row for row in session.scalars(select(Subscription).where(Subscription.address == new))}
    for row in list(session.scalars(select(Subscription).where(_letters(found)))):
        same = there.get((row.kind, row.value))
        if row.address == new:
            row.account_id = found.id
        elif row.state != "active" or (same is not None and same.state == "active"):
            subscriptions.end(session, [row.id])
        else:
            subscriptions.end(session, [same.id] if same is not None else [])  # nobody has confirmed it
            row.address, row.account_id = new, found.id


def _browser(number: int) -> str:
    """What binds a link to an account in place of a browser."""
    return f"account {number}"


def _of(table: Any, number: int) -> Any:
    return table.account_id == number


def _letters(found: Account) -> Any:
    """Subscriptions of an account, and of its address."""
    return or_(Subscription.account_id == found.id, Subscription.address == (found.address or ""))


def _plain(row: Base) -> dict[str, Any]:
    """A row as JSON has it."""
    values = {column.key: getattr(row, column.key) for column in type(row).__table__.columns if column.key not in UNSAID}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
