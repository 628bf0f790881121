"""Signing in through OpenID providers that the administrator names in a TOML file (OpenID Connect Core 1.0, code flow, PKCE).

    [[provider]]
    name = "ORCID"
    issuer = "https://orcid.org"
    client_id = "APP-…"
    client_secret_env = "ORCID_SECRET"
    scopes = ["openid"]
    claim = "sub"

An account belongs to the issuer and its subject, and to nothing else that a provider says: addresses are never compared.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadsheet.errors import BroadsheetError, InputError, StoreError
from broadsheet.files import MIB, read_text
from broadsheet.lab.people import Account, Identity
from broadsheet.lab.store import Store
from broadsheet.readers import accounts, keys
from broadsheet.readers.mail import one_line

TIMEOUT = 10.0
"""Seconds that a provider may take for each answer."""

LEEWAY = 60
"""Seconds by which a provider's clock may differ."""

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
FIELDS = {"name", "issuer", "client_id", "client_secret", "client_secret_env", "scopes", "claim"}
LONGEST = 200


class ProviderError(BroadsheetError):
    """A provider gave no answer, or one that cannot be believed."""


@dataclass(frozen=True)
class Provider:
    """One provider of the file. `claim`: which claim a reader is shown by; by default the first there is of
    `preferred_username`, `name` and `sub`."""

    key: str
    name: str
    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    scopes: tuple[str, ...] = ("openid", "profile")
    claim: str = ""


@dataclass(frozen=True)
class Who:
    """Whom a provider has confirmed: an issuer's subject, and the name to show."""

    issuer: str
    subject: str
    name: str


@cache
def configured(file: str) -> dict[str, Provider]:
    """The providers of a file, by the names that stand in their addresses; raises `InputError` for what is wrong in it."""
    if not file:
        return {}
    try:
        tables = tomllib.loads(read_text(Path(file).expanduser(), MIB)).get("provider")
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{file} is no TOML ({error}).") from None
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{file} has no [[provider]].")
    found = [_provider(table, file) for table in tables]
    for of in ("key", "issuer"):
        if len({getattr(one, of) for one in found}) < len(found):
            raise InputError(f"{file} names a provider twice.")
    return {one.key: one for one in found}


def _provider(table: dict[str, Any], file: str) -> Provider:
    unknown = sorted(set(table) - FIELDS)
    if unknown:
        raise InputError(f"{file}: a provider has no {unknown[0]!r}; it may have {', '.join(sorted(FIELDS))}.")
    texts = {name: table.get(name, "") for name in FIELDS - {"scopes"}}
    for name, value in texts.items():
        if not isinstance(value, str) or (name in ("name", "issuer", "client_id") and not value.strip()):
            raise InputError(f"{file}: a provider's {name} is a text, and there has to be one.")
    scopes = table.get("scopes", ["openid", "profile"])
    if not isinstance(scopes, list) or "openid" not in scopes or not all(isinstance(scope, str) for scope in scopes):
        raise InputError(f"{file}: scopes are a list of texts, and 'openid' is one of them.")
    secret = texts["client_secret"]
    if variable := texts["client_secret_env"]:
        secret = os.environ.get(variable, "")
        if not secret:
            raise InputError(f"{file}: the environment has no {variable}, which would be the secret of {texts['name']}.")
    key = re.sub(r"[^a-z0-9]+", "-", texts["name"].lower()).strip("-")
    if not key or len(texts["issuer"]) > LONGEST:
        raise InputError(f"{file}: a provider's name needs letters or digits, and its issuer is no longer than {LONGEST}.")
    issuer = _trusted(texts["issuer"], texts["issuer"])
    return Provider(key, one_line(texts["name"], 60), issuer, texts["client_id"], secret, tuple(scopes), texts["claim"])


def _trusted(address: Any, issuer: str) -> str:
    """An address of a provider: over TLS, but for one on this machine; raises `InputError` for others."""
    found = urlsplit(address) if isinstance(address, str) else urlsplit("")
    own = urlsplit(issuer).hostname in ("localhost", "127.0.0.1") and found.hostname in ("localhost", "127.0.0.1")
    if not found.hostname or not (found.scheme == "https" or (own and found.scheme == "http")):
        raise InputError(f"The provider {issuer} wants to be asked at {str(address)[:100]!r}; https://… is wanted.")
    return str(address)


def begin(store: Store, provider: Provider, callback: str, browser: str, next: str, number: int | None = None) -> str:
    """Where a browser goes to sign in at a provider; `number`: the account that the identity is to be linked to."""
    found = _metadata(provider)
    nonce, verifier = keys.fresh(), keys.fresh()
    data = {"provider": provider.key, "nonce": nonce, "verifier": verifier, "next": next, "account": number}
    state, _ = accounts.ask(store, "provider", data, browser)
    address, _ = _client(provider, callback).create_authorization_url(
        _trusted(found.get("authorization_endpoint"), provider.issuer), state=state, code_verifier=verifier, nonce=nonce
    )
    return str(address)


def finish(
    store: Store, provider: Provider, callback: str, browser: str, state: str, code: str, issuer: str = ""
) -> tuple[Who, dict[str, Any]]:
    """Whom the provider has confirmed, and what was asked; used up by it, whatever comes of it.

    Raises `LinkError` for an answer that this browser did not ask for, `ProviderError` for one that cannot be believed.
    """
    data = accounts.step(store, "provider", state, browser)
    if data["provider"] != provider.key or (issuer and issuer != provider.issuer):
        raise accounts.LinkError("This answer comes from another provider than the one that was asked.")
    found = _metadata(provider)
    if found.get("authorization_response_iss_parameter_supported") is True and not issuer:
        raise accounts.LinkError("This answer does not say which provider it comes from.")
    endpoint = _trusted(found.get("token_endpoint"), provider.issuer)
    methods = found.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    try:
        token = _client(provider, callback, methods).fetch_token(
            endpoint, code=code, code_verifier=data["verifier"], grant_type="authorization_code", timeout=TIMEOUT,
            allow_redirects=False,
        )  # fmt: skip
    except (AuthlibBaseError, requests.RequestException, ValueError) as error:
        raise ProviderError(f"{provider.name} did not say who you are ({type(error).__name__}).") from None
    return _who(provider, token, _read(_trusted(found.get("jwks_uri"), provider.issuer), provider), data["nonce"]), data


def _who(provider: Provider, token: dict[str, Any], keys_of: dict[str, Any], nonce: str) -> Who:
    """Whom an ID token names: signature, issuer, audience, time and nonce are checked (Core 1.0, 3.1.3.7)."""
    options: Any = {
        "iss": {"essential": True, "value": provider.issuer},
        "aud": {"essential": True, "value": provider.client_id},
        "sub": {"essential": True},
    }
    params = {"nonce": nonce, "client_id": provider.client_id, "access_token": token.get("access_token")}
    try:
        read = jwt.decode(token["id_token"], KeySet.import_key_set(keys_of), algorithms=ALGORITHMS)  # type: ignore[arg-type]
        claims = CodeIDToken(read.claims, read.header, options, params)
        claims.validate(leeway=LEEWAY)
        subject = claims["sub"]
    except (JoseError, AuthlibBaseError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProviderError(f"What {provider.name} says cannot be believed ({type(error).__name__}).") from None
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST:
        raise ProviderError(f"What {provider.name} calls you is no name ({type(subject).__name__}).")
    shown = [provider.claim] if provider.claim else ["preferred_username", "name"]
    name = next((claims[one] for one in shown if isinstance(claims.get(one), str) and claims[one].strip()), subject)
    return Who(provider.issuer, subject, one_line(name, LONGEST)[:LONGEST])


def _metadata(provider: Provider) -> dict[str, Any]:
    """What a provider says of itself; one that says to be another is not believed."""
    found = _read(f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration", provider)
    if found.get("issuer") != provider.issuer:
        raise ProviderError(f"{provider.name} says that it is another issuer than {provider.issuer}.")
    return found


def _read(address: str, provider: Provider) -> dict[str, Any]:
    """A JSON object from an address, which leads nowhere else."""
    try:
        with requests.get(address, timeout=TIMEOUT, allow_redirects=False, stream=True) as answer:
            text = answer.raw.read(MIB + 1, decode_content=True) if answer.status_code == 200 else b""
        found = json.loads(text) if len(text) <= MIB else None
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ProviderError(f"{provider.name} cannot be asked just now.")
    return found


def _client(provider: Provider, callback: str, methods: list[str] | None = None) -> OAuth2Session:
    secret = provider.client_secret
    way = "none" if not secret else "client_secret_post" if methods == ["client_secret_post"] else "client_secret_basic"
    return OAuth2Session(
        provider.client_id, secret or None, token_endpoint_auth_method=way, scope=" ".join(provider.scopes),
        redirect_uri=callback, code_challenge_method="S256",
    )  # fmt: skip


def sign_in(store: Store, who: Who, agent: str = "", now: datetime | None = None) -> tuple[int, str, bool]:
    """Signs in whom a provider has confirmed; returns (the account's number, the session's secret, whether it is new).

    A new account has no address until its reader confirms one by a link: what a provider says of addresses counts for nothing.
    """
    now = now or datetime.now(UTC)
    try:
        with store.session() as session:
            known = session.get(Identity, (who.issuer, who.subject))
            if known is not None:
                known.name = who.name
                found = accounts.account(session, known.account_id)
            else:
                found = _new_account(session, who, now)
            return found.id, accounts.open_session(session, found, agent, now), known is None
    except StoreError as error:
        if isinstance(error.__cause__, IntegrityError):  # the same reader in two windows, or the same name by chance
            return sign_in(store, who, agent, now)
        raise


def _new_account(session: Session, who: Who, now: datetime) -> Account:
    try:
        start = accounts.plain_name(who.name)[: accounts.LONGEST - 7]
    except InputError:
        start = "Reader"
    name = accounts.free_name(session, start)
    found = Account(
        address=None, name=name, key=accounts.name_key(name), role="reader", blocked=False, made=now, seen=now
    )  # fmt: skip
    session.add(found)
    session.flush()
    session.add(Identity(issuer=who.issuer, subject=who.subject, account_id=found.id, name=who.name, made=now))
    return found


def link(store: Store, number: int, who: Who) -> None:
    """Links an identity to an account; raises `InputError` where it belongs to another."""
    try:
        with store.session() as session:
            known = session.get(Identity, (who.issuer, who.subject))
            if known is not None and known.account_id != number:
                raise InputError("Another account is linked with that already; sign in with it, and remove the link there.")
            if known is not None:
                known.name = who.name
                return
            now = datetime.now(UTC)
            session.add(Identity(issuer=who.issuer, subject=who.subject, account_id=number, name=who.name, made=now))
    except StoreError as error:
        if not isinstance(error.__cause__, IntegrityError):
            raise
        link(store, number, who)  # the same in two windows


def held(store: Store, number: int) -> list[Identity]:
    """What an account is linked with."""
    with store.session() as session:
        found = list(session.scalars(select(Identity).where(Identity.account_id == number).order_by(Identity.made)))
        session.expunge_all()
        return found


def unlink(store: Store, number: int, issuer: str, subject: str) -> None:
    """Removes a link; raises `InputError` for the last thing that signs its account in."""
    mine = delete(Identity).where(Identity.account_id == number, Identity.issuer == issuer, Identity.subject == subject)
    with store.session() as session:
        session.execute(mine)
        accounts.check_way_in(session, number)
