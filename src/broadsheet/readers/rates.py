"""How often something may be done: counted in the store, so that all web processes count together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from broadsheet.errors import BroadsheetError, StoreError
from broadsheet.lab.people import Rate
from broadsheet.lab.store import Store
from broadsheet.readers.keys import signature, site_key


class TooOftenError(BroadsheetError):
    """Something was done too often; `wait`: seconds until it may be done again."""

    def __init__(self, what: str, wait: int) -> None:
        super().__init__(f"That was {what} too often; try again in {_span(wait)}.")
        self.wait = wait


@dataclass(frozen=True)
class Limit:
    """So many times in so many seconds, of one kind."""

    what: str
    most: int
    seconds: int


def count(store: Store, limit: Limit, who: str, now: datetime | None = None) -> None:
    """Counts once more what somebody does; raises `TooOftenError` where the limit is reached.

    `who` is kept as a digest with the site's key, of which it cannot be found again by trying addresses.
    """
    now = now or datetime.now(UTC)
    key, early = signature(site_key(store), "rate", f"{limit.what} {who}"), now - timedelta(seconds=limit.seconds)
    mine = update(Rate).where(Rate.key == key)
    more = mine.where(Rate.start > early, Rate.count < limit.most).values(count=Rate.count + 1)
    with store.session() as session:
        for change in (
            more,
            mine.where(Rate.start <= early).values(start=now, count=1),
            more,
        ):  # another may start anew between
            if session.execute(change).rowcount:  # type: ignore[attr-defined]
                return
        start = session.scalar(select(Rate.start).where(Rate.key == key))
    if start is not None:
        raise TooOftenError(limit.what, max(1, math.ceil(limit.seconds - (now - start).total_seconds())))
    try:
        with store.session() as session:
            session.execute(insert(Rate).values(key=key, start=now, count=1))
    except StoreError as error:
        if not isinstance(error.__cause__, IntegrityError):
            raise
        count(store, limit, who, now)  # another request came first


def forget(store: Store, now: datetime | None = None) -> None:
    """Drops counts of more than a day ago."""
    now = now or datetime.now(UTC)
    with store.session() as session:
        session.execute(delete(Rate).where(Rate.start < now - timedelta(days=1)))


def _span(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{math.ceil(seconds / 60)} min"
