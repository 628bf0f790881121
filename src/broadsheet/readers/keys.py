"""Secrets: random ones that are kept as digests, and what is signed with the site's own key."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from weakref import WeakKeyDictionary

from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from broadsheet.errors import StoreError
from broadsheet.lab.people import Secret
from broadsheet.lab.store import Store

SITE = "site"

_keys: WeakKeyDictionary[Store, bytes] = WeakKeyDictionary()


def fresh() -> str:
    """A new secret of 256 bits, as 43 characters that may stand in an address."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is kept of a secret: 64 hexadecimal digits, of which it cannot be found again."""
    return hashlib.sha256(secret.encode()).hexdigest()


def site_key(store: Store) -> bytes:
    """The site's random key, made when it is first wanted; web processes and senders of one store share it."""
    if store in _keys:
        return _keys[store]
    with store.session() as session:
        found = session.get(Secret, SITE)
        if found is not None:
            return _keys.setdefault(store, bytes.fromhex(found.value))
    try:
        with store.session() as session:
            session.execute(insert(Secret).values(name=SITE, value=secrets.token_hex(32)))
    except StoreError as error:  # another process made it just now
        if not isinstance(error.__cause__, IntegrityError):
            raise
    return site_key(store)


def signature(key: bytes, purpose: str, of: str) -> str:
    """32 hexadecimal digits that only who has the key can make."""
    return hmac.new(key, f"{purpose} {of}".encode(), hashlib.sha256).hexdigest()[:32]


def signed(key: bytes, purpose: str, of: str, given: str) -> bool:
    """Whether a signature is the right one, in the same time for each wrong one."""
    return hmac.compare_digest(signature(key, purpose, of).encode(), given.encode())
