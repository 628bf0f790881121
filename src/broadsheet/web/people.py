"""Who reads: the account behind a request, by its session or by a key of the API, and what it may do."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from urllib.parse import SplitResult, quote, urlsplit

from fastapi import HTTPException, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from broadsheet.errors import StoreError
from broadsheet.lab.store import Store
from broadsheet.page.edition import Edition
from broadsheet.readers import accounts
from broadsheet.readers.accounts import PREFIX, Reader
from broadsheet.readers.mail import MailError, Post, Sender, post
from broadsheet.web.render import base
from broadsheet.web.security import bearer, require_own_page
from broadsheet.web.settings import Settings

logger = logging.getLogger("broadsheet.site")

SESSION_COOKIE, BROWSER_COOKIE = "reader", "reader_browser"
"""Names of cookies: who is signed in, and which browser asked for a link. Over TLS they begin with `__Host-`."""


RECENT = timedelta(hours=1)
"""How long ago a reader may have signed in to change what signs them in, and to leave."""

LETTERS_AT_ONCE = 4
"""Letters that a web process sends at the same time: a mail server that hangs takes no threads from the pages."""


ADDRESSES = re.compile(r"[^\s@<>]+@[^\s@<>]+")


class SignInWanted(Exception):
    """A page is for readers who are signed in."""


def edition(request: Request) -> Edition:
    """The edition that this site shows."""
    return request.app.state.edition


def store(request: Request) -> Store:
    """The store behind it."""
    return edition(request).store


async def know(request: Request) -> None:
    """Finds out who asks, once a request: `request.state.reader`, None for everybody else."""
    if hasattr(request.state, "reader"):
        return
    request.state.reader = request.state.away = None
    if not request.app.state.settings.readers:
        return
    store = request.app.state.edition.store
    token, secret = bearer(request), cookie(request, SESSION_COOKIE)
    if token.startswith(PREFIX):
        request.state.reader = await run_in_threadpool(accounts.by_token, store, token)
        if request.state.reader is None:
            raise HTTPException(401, "This key is not known, or it is too old.", {"www-authenticate": "Bearer"})
    elif secret:
        try:
            request.state.reader = await run_in_threadpool(accounts.by_session, store, secret)
        except StoreError as error:  # what is known without the store can be read all the same
            request.state.away = error


def wanted(scope: str = "") -> Callable[[Request], Awaitable[Reader]]:
    """A dependency: the reader, signed in or with a key that has the scope.

    A form of another site's page is refused; who is not signed in is sent to sign in, or under /api gets 401.
    """

    async def reader(request: Request) -> Reader:
        await know(request)
        found: Reader | None = request.state.reader
        if request.state.away is not None:
            raise request.state.away
        if found is None:
            if request.url.path.startswith("/api/"):
                raise HTTPException(401, "Sign in, or send a key of the API.", {"www-authenticate": "Bearer"})
            raise SignInWanted
        if scope and scope not in found.scopes:
            raise HTTPException(403, f"This key lacks the scope {scope!r}.")
        if not scope and not found.session:
            raise HTTPException(403, "This is done on the site, signed in, and not with a key.")
        if found.session and request.method not in ("GET", "HEAD"):
            require_own_form(request)
        return found

    return reader


def recent() -> Callable[[Request], Awaitable[Reader]]:
    """A dependency: the reader, who signed in a short time ago; one who did not is asked to sign in anew."""
    signed_in = wanted()

    async def reader(request: Request) -> Reader:
        found = await signed_in(request)
        if found.since is None or found.since < datetime.now(UTC) - RECENT:
            raise SignInWanted
        return found

    return reader


def moderator(request: Request, reader: Reader) -> None:
    """Raises 403 for anyone who does not moderate."""
    if not reader.moderates:
        raise HTTPException(403, "Only moderators may do this.")


def require_own_form(request: Request) -> None:
    """Raises 403 for a form that another site's page sent, and for one whose sender does not say where it came from.

    A page that sends no referrer sends no origin either, but `null`: there the browser's word about the site counts.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is None and origin in (None, "null"):
        raise HTTPException(403, "The request does not say which page it came from.")
    if origin == "null" and site == "same-origin":
        return
    settings: Settings = request.app.state.settings
    if settings.secure and origin == f"http://{urlsplit(settings.url).netloc}":
        raise HTTPException(403, "The page came without TLS: anybody on the way may have changed it.")
    require_own_page(request)


def cookie(request: Request, name: str) -> str:
    return request.cookies.get(_spelt(request, name), "")


def set_cookie(request: Request, answer: Response, name: str, value: str, seconds: int) -> None:
    """Sets a cookie that scripts cannot read and that other sites' forms do not bring; without seconds it is taken away."""
    answer.set_cookie(
        _spelt(request, name), value, max_age=seconds, httponly=True, samesite="lax", secure=_secure(request), path="/"
    )


def _spelt(request: Request, name: str) -> str:
    return f"__Host-{name}" if _secure(request) else name


def _secure(request: Request) -> bool:
    settings: Settings = request.app.state.settings
    return settings.secure or request.url.scheme == "https"


def local(path: str) -> str:
    """A path of this site to go on to; the front page for anything that could lead elsewhere."""
    found = _split(path)
    plain = path.startswith("/") and not path.startswith("//") and not found.scheme and not found.netloc
    return path if plain and path.isprintable() and "\\" not in path else "/"


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("/")


def sign_in_address(request: Request) -> str:
    """Where to sign in, to come back to the page of a request."""
    back = request.url.path if request.method in ("GET", "HEAD") else _split(request.headers.get("referer", "/")).path
    return f"/sign-in?next={quote(local(back), safe='')}"


def sender(request: Request) -> Sender:
    settings: Settings = request.app.state.settings
    return Sender(settings.title, settings.sender, base(request))


def way_out(request: Request) -> Post:
    """How letters go out; raises 503 where the site has no mail server."""
    settings: Settings = request.app.state.settings
    if not settings.mail:
        raise HTTPException(503, "This site sends no letters; the administrator can make a link to sign in.")
    return post(settings.mail)


async def send(request: Request, out: Post, message: EmailMessage, envelope: str) -> None:
    """Sends a letter that somebody asked for; that it failed is logged, without the address."""

    def work() -> None:
        try:
            out.send(message, envelope)
        finally:
            out.close()

    async with request.app.state.letters:
        try:
            await run_in_threadpool(work)
        except (MailError, OSError) as error:
            logger.error("a letter did not go out", extra={"error": ADDRESSES.sub("…", str(error))})
