"""Passkeys (WebAuthn, level 2): a key pair of a device signs its account in; the site keeps the public half.

A ceremony is a one-time token with its challenge: it is used up by the answer, works in the browser that asked alone, and for
as long as a link does. A passkey belongs to the name of the site: under another name it is not offered.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from webauthn import (
    base64url_to_bytes,
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import bytes_to_base64url, parse_authentication_credential_json
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from broadsheet.errors import InputError, StoreError
from broadsheet.lab.people import Account, Passkey
from broadsheet.lab.store import Store
from broadsheet.readers import accounts, keys
from broadsheet.readers.accounts import LinkError, Reader
from broadsheet.readers.mail import one_line

MOST = 10
"""Passkeys of an account."""

LONGEST_ID = 400
PATIENCE = 300_000
"""Milliseconds that a browser waits for its reader."""


@dataclass(frozen=True)
class Party:
    """The site as authenticators know it: its name in the network, which is for ever, its origin, and its title."""

    id: str
    origin: str
    title: str


def party(url: str, title: str) -> Party | None:
    """The site at an address; None where browsers offer no passkeys: without TLS, or under a bare number."""
    found = urlsplit(url)
    host = found.hostname or ""
    if host != "localhost" and (found.scheme != "https" or _is_number(host)):
        return None
    return Party(host, f"{found.scheme}://{found.netloc}", title)


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def begin_adding(store: Store, site: Party, reader: Reader, browser: str) -> tuple[str, dict[str, Any]]:
    """What a browser needs to make a passkey: a token, and the options of `navigator.credentials.create`."""
    with store.session() as session:
        known = list(session.scalars(select(Passkey.id).where(Passkey.account_id == reader.id)))
    if len(known) >= MOST:
        raise InputError(f"An account has {MOST} passkeys at the most; remove one first.")
    options = generate_registration_options(
        rp_id=site.id,
        rp_name=site.title,
        user_id=_handle(store, reader.id),
        user_name=reader.address or reader.name,
        user_display_name=reader.name,
        timeout=PATIENCE,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.PREFERRED
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=base64url_to_bytes(one)) for one in known],
    )
    data = {"account": reader.id, "challenge": bytes_to_base64url(options.challenge)}
    token, _ = accounts.ask(store, "passkey", data, browser)
    return token, json.loads(options_to_json(options))


def add(store: Store, site: Party, number: int, browser: str, token: str, credential: str, name: str) -> None:
    """Keeps a passkey that a browser has made; raises `InputError` for an answer that does not fit what was asked."""
    data = accounts.step(store, "passkey", token, browser)
    if data.get("account") != number:
        raise LinkError("This passkey was asked for by another account.")
    made = _checked(
        lambda: verify_registration_response(
            credential=credential,
            expected_challenge=base64url_to_bytes(data["challenge"]),
            expected_rp_id=site.id,
            expected_origin=site.origin,
        )
    )
    spelt = bytes_to_base64url(made.credential_id)
    if len(spelt) > LONGEST_ID:
        raise InputError("The passkey's name is too long.")
    row = Passkey(
        id=spelt, account_id=number, public_key=made.credential_public_key, count=made.sign_count,
        name=one_line(name)[:60] or "passkey", made=datetime.now(UTC), used=None,
    )  # fmt: skip
    try:
        with store.session() as session:
            held = session.scalar(select(func.count()).select_from(Passkey).where(Passkey.account_id == number)) or 0
            if held >= MOST:
                raise InputError(f"An account has {MOST} passkeys at the most; remove one first.")
            session.add(row)
    except StoreError as error:
        if isinstance(error.__cause__, IntegrityError):
            raise InputError("This passkey is known already.") from None
        raise


def begin(store: Store, site: Party, browser: str) -> tuple[str, dict[str, Any]]:
    """What a browser needs to sign in by any passkey of this site: a token, and options of `navigator.credentials.get`."""
    options = generate_authentication_options(rp_id=site.id, timeout=PATIENCE)
    token, _ = accounts.ask(store, "passkey", {"challenge": bytes_to_base64url(options.challenge)}, browser)
    return token, json.loads(options_to_json(options))


def sign_in(store: Store, site: Party, browser: str, token: str, credential: str, agent: str = "") -> tuple[int, str]:
    """Signs in by a passkey; returns the account's number and the session's secret.

    Raises `InputError`, in the same words for a passkey that nobody has and for one whose answer is wrong.
    """
    data = accounts.step(store, "passkey", token, browser)
    if "account" in data:
        raise LinkError("This was asked for to make a passkey, and not to sign in.")
    given = _checked(lambda: parse_authentication_credential_json(credential))
    with store.session() as session:
        found = session.get(Passkey, given.id)
        held = (found.id, found.account_id, found.public_key, found.count) if found is not None else None
    if held is None:
        raise LinkError(REFUSED)
    identity, number, public_key, count = held
    if given.response.user_handle not in (None, b"", _handle(store, number)):
        raise LinkError(REFUSED)
    done = _checked(
        lambda: verify_authentication_response(
            credential=given,
            expected_challenge=base64url_to_bytes(data["challenge"]),
            expected_rp_id=site.id,
            expected_origin=site.origin,
            credential_public_key=public_key,
            credential_current_sign_count=count,
        )
    )
    now = datetime.now(UTC)
    used = update(Passkey).where(Passkey.id == identity, Passkey.count == count).values(count=done.new_sign_count, used=now)
    with store.session() as session:
        if not session.execute(used).rowcount:  # type: ignore[attr-defined]
            raise LinkError(REFUSED)  # removed meanwhile, or used by another at the same count
        return number, accounts.open_session(session, session.get_one(Account, number), agent, now)


def held(store: Store, number: int) -> list[Passkey]:
    """An account's passkeys, the newest first."""
    with store.session() as session:
        found = list(session.scalars(select(Passkey).where(Passkey.account_id == number).order_by(Passkey.made.desc())))
        session.expunge_all()
        return found


def rename(store: Store, number: int, passkey: str, name: str) -> None:
    with store.session() as session:
        mine = update(Passkey).where(Passkey.account_id == number, Passkey.id == passkey)
        session.execute(mine.values(name=one_line(name)[:60] or "passkey"))


def remove(store: Store, number: int, passkey: str) -> None:
    """Removes a passkey; raises `InputError` for the last thing that signs its account in."""
    with store.session() as session:
        session.execute(delete(Passkey).where(Passkey.account_id == number, Passkey.id == passkey))
        accounts.check_way_in(session, number)


REFUSED = "This passkey does not sign in here."


def _handle(store: Store, number: int) -> bytes:
    """What authenticators call an account: it says nothing about its reader."""
    return bytes.fromhex(keys.signature(keys.site_key(store), "passkey", str(number)))


def _checked(work: Callable[[], Any]) -> Any:
    """What a check of foreign bytes gives; whatever is wrong with them is one answer."""
    try:
        return work()
    except Exception:  # the parsers beneath raise many kinds
        raise LinkError(REFUSED) from None
