"""Accounts, one-time links, sessions and keys of the API. Nobody has a password."""

from __future__ import annotations

import hmac
import re
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadsheet.errors import InputError, NotFoundError, StoreError
from broadsheet.lab.people import LONGEST_ADDRESS, Account, ApiToken, Identity, Passkey, SignIn, Token, Vote
from broadsheet.lab.store import Store, raise_revision
from broadsheet.readers import keys, notices
from broadsheet.readers.mail import one_line

LINK = timedelta(minutes=15)
SESSION = timedelta(days=30)
IDLE = timedelta(days=14)
"""A session ends so long after its start, and so long after it was last used."""

SEEN = timedelta(minutes=10)
"""How exactly the last use of a session is kept."""

MOST_CODES = 5
"""Codes that may be typed for one link."""

MOST_SESSIONS, MOST_KEYS = 20, 20
"""Sessions of an account, of which one more ends the one that was used longest ago, and keys of the API."""

ATOM, LABEL = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+", r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
ADDRESS = re.compile(rf"(?=.{{1,64}}@){ATOM}(?:\.{ATOM})*@(?:{LABEL}\.)+(?!\d+$){LABEL}")
SHORTEST, LONGEST = 2, 40
"""Characters of a name."""

OF_THE_SITE = re.compile(r"administrat|moderat|broadsheet|webmaster|postmaster|^(admin|root|support|system|security)\d*$")
"""Names, as they are compared, that would speak for the site."""

SCRIPTS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")
"""Scripts whose letters look alike: a name is written in one of them."""

SCOPES = {
    "read": "your votes, marks, collections and subscriptions",
    "votes": "vote, and take votes back",
    "comments": "comment, edit, delete and report",
    "collections": "make and change collections and read marks",
    "subscriptions": "change what you get by mail",
    "submissions": "bring papers",
}
"""scope -> what a key of the API that has it may do."""

PREFIX = "bsr_"
"""What keys of the API begin with, so that scanners of leaked secrets find them."""


@dataclass(frozen=True)
class Reader:
    """Who asks: an account, by which session or key, and what it may do (`scopes`; a session may do all).

    `address` is empty where none is confirmed yet; `since`: when the session began.
    """

    id: int
    name: str
    address: str
    role: str
    session: str = ""
    since: datetime | None = None
    scopes: frozenset[str] = frozenset(SCOPES)

    @property
    def moderates(self) -> bool:
        return self.role == "moderator"


class LinkError(InputError):
    """A link or a code is wrong, used or too old."""


def plain_address(text: str) -> str:
    """An e-mail address in lower case; raises `InputError` for anything that is none."""
    address = text.strip().lower()
    if len(address) > LONGEST_ADDRESS or not ADDRESS.fullmatch(address):
        raise InputError("That is no e-mail address; one like name@example.org is wanted.")
    return address


def plain_name(text: str) -> str:
    """A reader's name: 2 to 40 letters and digits of any language; spaces, dots, hyphens, apostrophes between.

    Raises `InputError` for others, for names that mix scripts whose letters look alike, and for those of the site itself.
    """
    name = " ".join(unicodedata.normalize("NFKC", text[:400]).split())
    if not SHORTEST <= len(name) <= LONGEST or not _spelt(name):
        raise InputError("A name has 2 to 40 letters and digits; spaces, dots, hyphens and apostrophes may stand between.")
    if len({script for letter in name for script in SCRIPTS if unicodedata.name(letter, "").startswith(script)}) > 1:
        raise InputError("A name is written in one script: letters of two that look alike could be taken for another's name.")
    if OF_THE_SITE.search(name_key(name)):
        raise InputError("That name would speak for the site; take one of your own.")
    return name


def _spelt(name: str) -> bool:
    """Whether a name is letters and digits, with single marks between them, and at most two accents on a letter."""
    kinds = "".join("." if letter in " .'-’" else unicodedata.category(letter)[0] for letter in name)
    return re.fullmatch(r"(?:[LN]M{0,2}\.{0,2})+", kinds) is not None and name[-1] not in " '-’"


def name_key(name: str) -> str:
    """A name as it is compared: without case, accents and what stands between."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in plain if unicodedata.category(letter)[0] in "LN" or _vowel(letter))[:60]


def _vowel(letter: str) -> bool:
    """Whether a mark is a vowel of an Indic or like script, and no accent."""
    return unicodedata.category(letter) == "Mc"


def of_address(session: Session, address: str) -> Account | None:
    return session.scalars(select(Account).where(Account.address == address)).one_or_none()


def account(session: Session, number: int) -> Account:
    """An account; raises `NotFoundError` where it is gone."""
    found = session.get(Account, number)
    if found is None:
        raise NotFoundError("There is no such account.")
    return found


def hold(session: Session, number: int) -> None:
    """Lets changes of what belongs to an account come one after the other, until the transaction ends."""
    session.execute(update(Account).where(Account.id == number).values(role=Account.role))


def ask(
    store: Store, purpose: str, data: dict[str, Any], browser: str = "", life: timedelta = LINK, now: datetime | None = None
) -> tuple[str, str]:
    """Makes a one-time token; returns (the token for the link, a code of six digits for another browser's window).

    Kept are digests alone. `browser`: the secret of the browser that asked, which may use the link without the code; a link
    that was made without one may be used anywhere.
    """
    now = now or datetime.now(UTC)
    token, code = keys.fresh(), f"{secrets.randbelow(10**6):06d}"
    row = {**data, "code": keys.digest(f"{token} {code}")}
    with store.session() as session:
        session.execute(delete(Token).where(Token.expires < now - timedelta(days=1)))
        session.add(
            Token(
                digest=keys.digest(token), purpose=purpose, data=row, browser=keys.digest(browser) if browser else "", made=now,
                expires=now + life, used=None, tries=0,
            )
        )  # fmt: skip
    return token, code


def look(store: Store, purpose: str, token: str, browser: str = "", now: datetime | None = None) -> bool:
    """Whether a link still works; raises `LinkError` where not. True where the browser is the one that asked for it."""
    with store.session() as session:
        found = _valid(session, purpose, token, now or datetime.now(UTC))
        return _same(found, browser)


def use(
    store: Store, purpose: str, token: str, browser: str = "", code: str = "", now: datetime | None = None
) -> dict[str, Any]:
    """Uses a link up and returns what it was made for; in another browser than the one that asked, `code` is wanted too.

    Raises `LinkError` for a link that is unknown, used or too old, and for a wrong code, of which few may be tried.
    """
    now = now or datetime.now(UTC)
    with store.session() as session:
        found = _valid(session, purpose, token, now)
        mine = update(Token).where(Token.digest == found.digest)
        if not _same(found, browser):
            if not code.strip():
                raise LinkError("This link was asked for in another browser: type the code that stands beside it.")
            tried = session.execute(mine.where(Token.tries < MOST_CODES).values(tries=Token.tries + 1))  # before it is compared
            if not tried.rowcount:  # type: ignore[attr-defined]
                raise LinkError("This link is too old; ask for a new one.")
        right = _same(found, browser) or hmac.compare_digest(found.data["code"], keys.digest(f"{token} {code.strip()}"))
        if right:
            if not session.execute(mine.where(Token.used.is_(None)).values(used=now)).rowcount:  # type: ignore[attr-defined]
                raise LinkError("This link was used already.")
            return {name: value for name, value in found.data.items() if name != "code"}
    raise LinkError("That is not the code.")


def step(store: Store, purpose: str, token: str, browser: str) -> dict[str, Any]:
    """Uses up a step of a sign-in, in the browser that began it alone; raises `LinkError` elsewhere, and too late."""
    try:
        return use(store, purpose, token, browser)
    except LinkError:
        raise LinkError("This was begun in another browser, or too long ago; begin anew.") from None


def _same(token: Token, browser: str) -> bool:
    return not token.browser or hmac.compare_digest(token.browser, keys.digest(browser))


def _valid(session: Session, purpose: str, token: str, now: datetime) -> Token:
    found = session.get(Token, keys.digest(token))
    if found is None or found.purpose != purpose:
        raise LinkError("This link is not one of ours, or it is too old.")
    if found.used is not None:
        raise LinkError("This link was used already.")
    if found.expires <= now or found.tries >= MOST_CODES:
        raise LinkError("This link is too old; ask for a new one.")
    return found


def sign_in(store: Store, address: str, agent: str = "", now: datetime | None = None) -> tuple[int, str, bool]:
    """Signs in who has proved an address; returns (the account's number, the session's secret, whether the account is new)."""
    now = now or datetime.now(UTC)
    try:
        with store.session() as session:
            found = of_address(session, address)
            new = found is None
            if found is None:
                name = free_name(session, "Reader")
                found = Account(
                    address=address, name=name, key=name_key(name), role="reader", blocked=False, made=now, seen=now
                )  # fmt: skip
                session.add(found)
                session.flush()
            return found.id, open_session(session, found, agent, now), new
    except StoreError as error:
        if isinstance(error.__cause__, IntegrityError):  # the same address in two windows, or the same name by chance
            return sign_in(store, address, agent, now)
        raise


def free_name(session: Session, start: str) -> str:
    """A name that nobody has: the given one, else with a number behind it."""
    name = start
    while session.scalar(select(func.count()).select_from(Account).where(Account.key == name_key(name))):
        name = f"{start} {secrets.randbelow(10**6)}"
    return name


def open_session(session: Session, found: Account, agent: str, now: datetime) -> str:
    """A new session's secret; raises `InputError` for an account that is blocked."""
    if found.blocked:
        raise InputError("This account is blocked; the administrator says why.")
    secret = keys.fresh()
    found.seen = now
    old = select(SignIn.digest).where(SignIn.account_id == found.id).order_by(SignIn.seen.desc()).offset(MOST_SESSIONS - 1)
    session.execute(delete(SignIn).where(SignIn.digest.in_(list(session.scalars(old)))))
    session.add(
        SignIn(
            digest=keys.digest(secret), account_id=found.id, agent=one_line(agent)[:200], made=now, seen=now,
            expires=now + SESSION,
        )
    )  # fmt: skip
    return secret


def check_way_in(session: Session, number: int) -> None:
    """Raises `InputError` where nothing is left that signs an account in: no address, no passkey, no provider."""
    hold(session, number)  # of two that remove the last two, one fails
    if account(session, number).address:
        return
    for table in (Passkey, Identity):
        if session.scalar(select(func.count()).select_from(table).where(table.account_id == number)):
            return
    raise InputError("Nothing else signs this account in: add an e-mail address first.")


def by_session(store: Store, secret: str, now: datetime | None = None) -> Reader | None:
    """Who is signed in with a session's secret."""
    now = now or datetime.now(UTC)
    with store.session() as session:
        query = select(SignIn, Account).join(Account, Account.id == SignIn.account_id)
        row = session.execute(query.where(SignIn.digest == keys.digest(secret))).one_or_none()
        if row is None or row[1].blocked or row[0].expires <= now or row[0].seen < now - IDLE:
            return None
        opened, found = row
        if opened.seen < now - SEEN:
            opened.seen = found.seen = now
        return Reader(found.id, found.name, found.address or "", found.role, session=opened.digest, since=opened.made)


def by_token(store: Store, token: str, now: datetime | None = None) -> Reader | None:
    """Whose a key of the API is."""
    now = now or datetime.now(UTC)
    with store.session() as session:
        query = select(ApiToken, Account).join(Account, Account.id == ApiToken.account_id)
        row = session.execute(query.where(ApiToken.digest == keys.digest(token))).one_or_none()
        if row is None or row[1].blocked or row[0].expires <= now:
            return None
        key, found = row
        if key.seen is None or key.seen < now - SEEN:
            key.seen = now
        return Reader(found.id, found.name, found.address or "", found.role, scopes=frozenset(key.scopes.split()))


def sessions(store: Store, number: int, now: datetime | None = None) -> list[SignIn]:
    """An account's open sessions, the one used last first."""
    now = now or datetime.now(UTC)
    query = select(SignIn).where(SignIn.account_id == number, SignIn.expires > now, SignIn.seen >= now - IDLE)
    with store.session() as session:
        found = list(session.scalars(query.order_by(SignIn.seen.desc())))
        session.expunge_all()
        return found


def sign_out(store: Store, number: int, digests: Iterable[str] | None = None) -> None:
    """Ends some sessions of an account, or all."""
    query = delete(SignIn).where(SignIn.account_id == number)
    with store.session() as session:
        session.execute(query if digests is None else query.where(SignIn.digest.in_(list(digests))))


def new_token(store: Store, number: int, name: str, scopes: Iterable[str], days: int = 365) -> str:
    """A key of the API, to be shown once; raises `InputError` for scopes that are none, and where there are too many keys."""
    wanted = sorted(set(scopes))
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown or not wanted:
        raise InputError(f"A key needs scopes of {', '.join(SCOPES)}; got {', '.join(unknown)[:60] or 'none'}.")
    secret, now = PREFIX + keys.fresh(), datetime.now(UTC)
    with store.session() as session:
        held = session.scalar(select(func.count()).select_from(ApiToken).where(ApiToken.account_id == number)) or 0
        if held >= MOST_KEYS:
            raise InputError(f"An account has {MOST_KEYS} keys at the most; end one first.")
        session.add(
            ApiToken(
                digest=keys.digest(secret), account_id=number, name=one_line(name)[:60] or "key", scopes=" ".join(wanted),
                made=now, seen=None, expires=now + timedelta(days=days),
            )
        )  # fmt: skip
    return secret


def tokens(store: Store, number: int) -> list[ApiToken]:
    """An account's keys of the API, the newest first."""
    with store.session() as session:
        found = list(session.scalars(select(ApiToken).where(ApiToken.account_id == number).order_by(ApiToken.made.desc())))
        session.expunge_all()
        return found


def drop_token(store: Store, number: int, of: str) -> None:
    """Ends a key of an account, by its digest."""
    with store.session() as session:
        session.execute(delete(ApiToken).where(ApiToken.account_id == number, ApiToken.digest == of))


def rename(store: Store, number: int, text: str) -> str:
    """Gives an account another name; raises `InputError` where somebody has it, or it is none."""
    name = plain_name(text)
    with store.session() as session:
        holder = session.scalars(select(Account.id).where(Account.key == name_key(name))).one_or_none()
        if holder not in (None, number):
            raise InputError("Somebody has that name already.")
    taken = update(Account).where(Account.id == number).values(name=name, key=name_key(name))
    try:
        with store.session() as session:
            raise_revision(session, "readers")  # comments show it
            session.execute(taken)
    except StoreError as error:
        if isinstance(error.__cause__, IntegrityError):  # somebody took it just now
            raise InputError("Somebody has that name already.") from None
        raise
    return name


def find(store: Store, text: str) -> Reader:
    """An account by its address or its name; raises `NotFoundError` where there is none."""
    wanted = Account.address == plain_address(text) if "@" in text else Account.key == name_key(text)
    with store.session() as session:
        found = session.scalars(select(Account).where(wanted)).one_or_none()
        if found is None:
            raise NotFoundError(f"No account has the {'address' if '@' in text else 'name'} {text[:80]!r}.")
        return Reader(found.id, found.name, found.address or "", found.role)


def everybody(store: Store) -> list[Account]:
    """All accounts, the oldest first."""
    with store.session() as session:
        found = list(session.scalars(select(Account).order_by(Account.id)))
        session.expunge_all()
        return found


def set_role(store: Store, who: str, role: str) -> None:
    """Makes an account, by its address or name, a `moderator`, or a `reader` again."""
    number = find(store, who).id
    with store.session() as session:
        account(session, number).role = role


def block(store: Store, number: int, blocked: bool = True) -> None:
    """Shuts an account out, or lets it in again; its sessions and keys end, and its votes count no more, or again."""
    with store.session() as session:
        raise_revision(session, "readers")
        account(session, number).blocked = blocked
        session.flush()
        notices.recount(session, session.scalars(select(Vote.slug).where(Vote.account_id == number)).all())
        session.execute(delete(SignIn).where(SignIn.account_id == number))
        session.execute(delete(ApiToken).where(ApiToken.account_id == number))
