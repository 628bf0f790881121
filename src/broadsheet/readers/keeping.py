"""How long things of readers are kept, and their end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, or_

from broadsheet.lab.people import ApiToken, SignIn, Token
from broadsheet.lab.store import Store
from broadsheet.readers import accounts, rates, subscriptions

TOKENS = timedelta(days=1)
"""How long a link is kept after its time, to say that it is too old."""

KEYS = timedelta(days=30)
"""How long a key of the API is shown after its time."""

OFTEN = timedelta(hours=1)
"""How often a site looks for what is to be dropped."""


def tidy(store: Store, now: datetime | None = None) -> None:
    """Drops what is kept no longer: links, sessions, keys, counts, addresses that were not confirmed, what letters went out.

    Any process may call it, at any time.
    """
    now = now or datetime.now(UTC)
    rates.forget(store, now)
    subscriptions.forget(store, now)
    with store.session() as session:
        session.execute(delete(Token).where(Token.expires < now - TOKENS))
        session.execute(delete(SignIn).where(or_(SignIn.expires <= now, SignIn.seen < now - accounts.IDLE)))
        session.execute(delete(ApiToken).where(ApiToken.expires < now - KEYS))
