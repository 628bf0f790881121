"""What readers made of papers, in numbers: counted in the transaction that changes a vote or a comment."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeVarTuple

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, aliased

from broadsheet.lab.people import Account, Comment, Notice, Vote
from broadsheet.lab.store import raise_revision
from broadsheet.page.edition import Noticed
from broadsheet.readers.weight import weight

Kinds = TypeVarTuple("Kinds")

ELSEWHERE = timedelta(days=90)
"""How far back votes are looked at to see which readers vote together."""

NEW, FEWEST = timedelta(days=7), 3
"""A newcomer's account is younger, or it has cast fewer votes elsewhere."""

EXACT = 50
"""Votes from which on the weight is made anew with each fiftieth part more alone."""


def recount(session: Session, slugs: Iterable[str], now: datetime | None = None, turn: int | None = None) -> dict[str, Noticed]:
    """Counts the votes and comments of papers anew, in this transaction, which has changed them; pages see it from then on.

    `turn`: spreads the work, where it is given: the weight of a paper with many votes is made anew in some turns alone.
    """
    return {slug: _recount(session, slug, now or datetime.now(UTC), turn) for slug in dict.fromkeys(slugs)}


def _recount(session: Session, slug: str, now: datetime, turn: int | None) -> Noticed:
    recount_comments(session, slug)
    found = session.get_one(Notice, slug)
    found.votes = session.scalar(_of_voters(select(func.count()), slug)) or 0
    if turn is None or (found.votes + turn) % (1 + found.votes // EXACT) == 0:
        found.weight = round(_weight(session, slug, now), 6) if found.votes else 0.0
    return Noticed(found.votes, found.weight, found.comments)


def recount_comments(session: Session, slug: str) -> Noticed:
    """Counts the comments of a paper anew, in this transaction, which has changed them."""
    revision = raise_revision(session, "readers")
    shown = select(func.count()).select_from(Comment).where(Comment.slug == slug, Comment.state == "shown")
    found = session.get(Notice, slug)
    if found is None:
        found = Notice(slug=slug, votes=0, weight=0.0, comments=0, revision=revision)
        session.add(found)
    found.comments, found.revision = session.scalar(shown) or 0, revision
    return Noticed(found.votes, found.weight, found.comments)


def _of_voters(query: Select[*Kinds], slug: str) -> Select[*Kinds]:
    """A query over the votes for a paper of accounts that are not blocked."""
    return query.select_from(Vote).join(Account, Account.id == Vote.account_id).where(Vote.slug == slug, ~Account.blocked)


def _weight(session: Session, slug: str, now: datetime) -> float:
    ordered = _of_voters(select(Account.id, Account.made), slug).order_by(Vote.made, Account.id)
    made = {row.id: row.made for row in session.execute(ordered)}
    elsewhere: dict[int, set[str]] = {number: set() for number in made}
    other = aliased(Vote)
    cast = select(other.account_id, other.slug).select_from(Vote).join(other, other.account_id == Vote.account_id)
    recent = cast.where(Vote.slug == slug, other.slug != slug, other.made >= now - ELSEWHERE)
    for number, name in session.execute(recent):
        if number in elsewhere:
            elsewhere[number].add(name)
    settled = [found for number, found in elsewhere.items() if len(found) >= FEWEST and made[number] <= now - NEW]
    return weight(settled, len(made) - len(settled))
