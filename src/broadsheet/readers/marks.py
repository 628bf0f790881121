"""What one reader has marked: votes, papers read, papers for later."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from sqlalchemy import select

from broadsheet.lab.people import Collected, Collection, ReadMark, Vote
from broadsheet.lab.store import Store

LATER = "later"
"""The kind of the collection that each account has to read later."""


@dataclass(frozen=True)
class Mine:
    """Short names of papers that a reader voted for, has read, and keeps for later; `shelves`: (number, title) of
    collections."""

    votes: AbstractSet[str] = frozenset()
    read: AbstractSet[str] = frozenset()
    later: AbstractSet[str] = frozenset()
    shelves: Sequence[tuple[int, str]] = ()


NOBODY = Mine()


def mine(store: Store, number: int) -> Mine:
    """The marks of an account."""
    later = select(Collected.slug).join(Collection, Collection.id == Collected.collection_id)
    shelves = select(Collection.id, Collection.title).where(Collection.account_id == number, Collection.kind != LATER)
    with store.session() as session:
        return Mine(
            frozenset(session.scalars(select(Vote.slug).where(Vote.account_id == number))),
            frozenset(session.scalars(select(ReadMark.slug).where(ReadMark.account_id == number))),
            frozenset(session.scalars(later.where(Collection.account_id == number, Collection.kind == LATER))),
            [(row.id, row.title) for row in session.execute(shelves.order_by(Collection.title))],
        )
