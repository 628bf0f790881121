"""Votes: one of each reader for a paper, which may be taken back. `readers.weight` says what they count for in trending."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from broadsheet.lab.people import Vote
from broadsheet.lab.store import Store, raise_revision
from broadsheet.page.edition import Noticed
from broadsheet.readers import notices, rates

OFTEN = rates.Limit("voted", 120, 3600)
"""How many votes a reader may cast or take back in an hour."""


def cast(store: Store, reader: int, slug: str, wanted: bool = True, now: datetime | None = None) -> Noticed:
    """An account's vote for a paper, or no vote of it any more (`wanted`); the same again changes nothing.

    The weight of the paper that it voted for before is made anew too: only now is it seen who votes together.
    """
    rates.count(store, OFTEN, str(reader), now)
    now = now or datetime.now(UTC)
    with store.session() as session:
        raise_revision(session, "readers")
        found = session.get(Vote, (slug, reader))
        if wanted and found is None:
            session.add(Vote(slug=slug, account_id=reader, made=now))
        elif found is not None and not wanted:
            session.execute(delete(Vote).where(Vote.slug == slug, Vote.account_id == reader))
        session.flush()
        return notices.recount(session, [slug, *_before(session, reader, slug)], now, turn=reader)[slug]


def _before(session: Session, reader: int, slug: str) -> list[str]:
    """The paper that an account voted for last, beside this one."""
    query = select(Vote.slug).where(Vote.account_id == reader, Vote.slug != slug).order_by(Vote.made.desc(), Vote.slug).limit(1)
    return list(session.scalars(query))
