"""Who reads: the account behind a request, by its session or by a key of the API, and what it may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote, urlsplit

from fastapi import HTTPException, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from broadsheet.readers import accounts
from broadsheet.readers.accounts import PREFIX, Reader
from broadsheet.readers.mail import Post, Sender, post
from broadsheet.web.render import base
from broadsheet.web.security import bearer, require_own_page
from broadsheet.web.settings import Settings

SESSION_COOKIE, BROWSER_COOKIE = "reader", "reader_browser"
"""Names of cookies: who is signed in, and which browser asked for a link. Over TLS they begin with `__Host-`."""


class SignInWanted(Exception):
    """A page is for readers who are signed in."""


async def know(request: Request) -> None:
    """Finds out who asks, once a request: `request.state.reader`, None for everybody else."""
    if hasattr(request.state, "reader"):
        return
    request.state.reader = None
    if not request.app.state.settings.readers:
        return
    store = request.app.state.edition.store
    token, secret = bearer(request), cookie(request, SESSION_COOKIE)
    if token.startswith(PREFIX):
        request.state.reader = await run_in_threadpool(accounts.by_token, store, token)
        if request.state.reader is None:
            raise HTTPException(401, "This key is not known, or it is too old.", {"www-authenticate": "Bearer"})
    elif secret:
        request.state.reader = await run_in_threadpool(accounts.by_session, store, secret)


def wanted(scope: str = "") -> Callable[[Request], Awaitable[Reader]]:
    """A dependency: the reader, signed in or with a key that has the scope.

    A form of another site's page is refused; who is not signed in is sent to sign in, or under /api gets 401.
    """

    async def reader(request: Request) -> Reader:
        await know(request)
        found: Reader | None = request.state.reader
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


def moderator(request: Request, reader: Reader) -> None:
    """Raises 403 for anyone who does not moderate."""
    if not reader.moderates:
        raise HTTPException(403, "Only moderators may do this.")


def require_own_form(request: Request) -> None:
    """Raises 403 for a form that another site's page sent, and for one whose sender does not say where it came from."""
    if "origin" not in request.headers and "sec-fetch-site" not in request.headers:
        raise HTTPException(403, "The request does not say which page it came from.")
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
    found = urlsplit(path)
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and not found.scheme and not found.netloc
    return path if plain and path.isprintable() and "\\" not in path else "/"


def sign_in_address(request: Request) -> str:
    """Where to sign in, to come back to the page of a request."""
    back = request.url.path if request.method in ("GET", "HEAD") else urlsplit(request.headers.get("referer", "/")).path
    return f"/sign-in?next={quote(back, safe='')}"


def sender(request: Request) -> Sender:
    settings: Settings = request.app.state.settings
    return Sender(settings.title, settings.sender, base(request))


def way_out(request: Request) -> Post:
    """How letters go out; raises 503 where the site has no mail server."""
    settings: Settings = request.app.state.settings
    if not settings.mail:
        raise HTTPException(503, "This site sends no letters; the administrator can make a link to sign in.")
    return post(settings.mail)
