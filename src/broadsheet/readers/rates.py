"""How often something may be done: counted in the store, so that all web processes count together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select, update

from broadsheet.errors import BroadsheetError
from broadsheet.lab.people import Rate
from broadsheet.lab.store import Store
from broadsheet.readers.keys import digest


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
    """Counts once more what somebody does; raises `TooOftenError` where the limit is reached. `who`: kept as a digest alone."""
    now = now or datetime.now(UTC)
    key = digest(f"{limit.what} {who}")
    with store.session() as session:
        raised = update(Rate).where(Rate.key == key, Rate.start > now - timedelta(seconds=limit.seconds))
        if session.execute(raised.where(Rate.count < limit.most).values(count=Rate.count + 1)).rowcount:  # type: ignore[attr-defined]
            return
        found = session.scalars(select(Rate).where(Rate.key == key).with_for_update()).one_or_none()
        if found is None:
            session.add(Rate(key=key, start=now, count=1))
        elif found.start <= now - timedelta(seconds=limit.seconds):
            found.start, found.count = now, 1
        else:
            left = limit.seconds - (now - found.start).total_seconds()
            raise TooOftenError(limit.what, max(1, math.ceil(left)))


def forget(store: Store, now: datetime | None = None) -> None:
    """Drops counts of more than a day ago."""
    now = now or datetime.now(UTC)
    with store.session() as session:
        session.execute(delete(Rate).where(Rate.start < now - timedelta(days=1)))


def _span(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{math.ceil(seconds / 60)} min"
