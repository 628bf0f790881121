"""Who may start runs and imports, and what a browser is told it may do with our pages."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import math
import re
import time
from collections import OrderedDict, deque
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broadsheet.readers.accounts import PREFIX
from broadsheet.web.settings import Settings, is_loopback

COOKIE = "broadsheet_session"
SESSION = 12 * 3600
"""Seconds that a signed-in administrator stays one."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
SECRETS = re.compile(r"^/(sign-in|confirm|unsubscribe|account/address|feeds/collections/\d+)/.+")
"""Paths that hold the secret of a link, or of a private feed."""

PERSONAL = "private, no-store"
LARGEST_BODY, LARGEST_OF_READERS = 64 * 2**20, 2**20
"""Bytes of a body: of pages that are imported, and of anything else that readers send."""

IMPORTS = ("/imports", "/api/v1/imports")
PATIENCE, SLOWEST = 30.0, 2**14
"""A body may take so many seconds, and one more for each so many bytes that have come."""

TRIES, WINDOW = 10, 300.0
"""Wrong tokens that one address may send in so many seconds."""

NOT_SAID = "The administrator sees why."


class Tries:
    """Wrong tokens by client address, of this web process; the addresses heard of longest ago are forgotten first."""

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, request: Request) -> int:
        """Seconds until its address may try again; 0 where it may."""
        wrong = self._wrong.get(client_address(request), deque())
        left = wrong[0] + WINDOW - time.monotonic() if len(wrong) == TRIES else 0.0
        return max(0, math.ceil(left))

    def right(self, request: Request, given: str, token: str) -> bool:
        """Whether a token is the right one; a wrong one is counted, and while its address has to wait, none is."""
        if self.wait(request):
            return False
        address = client_address(request)
        if hmac.compare_digest(given.strip().encode(), token.encode()):
            self._wrong.pop(address, None)
            return True
        self._wrong.setdefault(address, deque(maxlen=TRIES)).append(time.monotonic())
        self._wrong.move_to_end(address)
        if len(self._wrong) > self._most:
            self._wrong.popitem(last=False)
        return False


def client_address(request: Request) -> str:
    """Who asks; of an IPv6 address the part that one customer has as a whole."""
    host = request.client.host if request.client else ""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:100]
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)


def too_many(wait: int) -> HTTPException:
    """The answer to an address that has sent too many wrong tokens."""
    return HTTPException(429, f"Too many wrong tokens; try again in {wait} s.", {"retry-after": str(wait)})


def masked(path: str) -> str:
    """A path as it may be logged: without the secret of a link."""
    return SECRETS.sub(r"/\1/…", path)


def is_administrator(request: Request) -> bool:
    """Whether a request comes from the administrator: by token or session, or, without a token, from this machine.

    A request that was passed on by a proxy does not count as from this machine, nor does one under a foreign host name
    (a page elsewhere whose name was made to point here).
    """
    if not hasattr(request.state, "administrator"):  # once a request: a wrong token counts once
        request.state.administrator = _is_administrator(request)
    return request.state.administrator


def _is_administrator(request: Request) -> bool:
    settings: Settings = request.app.state.settings
    if settings.token:
        given = bearer(request)
        if given and not given.startswith(PREFIX) and request.app.state.tries.right(request, given, settings.token):
            return True
        return valid_session(settings.token, request.cookies.get(COOKIE, ""))
    client = request.client.host if request.client else ""
    passed_on = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "via", "x-real-ip"))
    own_name = is_loopback(urlsplit(f"//{request.headers.get('host', '')}").hostname or "")
    return is_loopback(client) and own_name and not passed_on


def bearer(request: Request) -> str:
    """The token of the Authorization header, empty where there is none."""
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() if kind.lower() == "bearer" else ""


def require_administrator(request: Request) -> None:
    """Raises 403 for anyone else, and for a form that another site's page sent; 429 after too many wrong tokens."""
    if not is_administrator(request):
        wait = request.app.state.tries.wait(request) if bearer(request) else 0
        raise too_many(wait) if wait else HTTPException(403, "Only the administrator may do this.")
    require_own_page(request)


def require_own_page(request: Request) -> None:
    """Raises 403 for a form that another site's page sent."""
    own = {request.headers.get("host", ""), urlsplit(request.app.state.settings.url).netloc}
    origin = request.headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc not in own - {""}
    if foreign or request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "The request came from another site.")


def message_for(administrator: bool, state: str, message: str) -> str:
    """What is said of a job: why it failed names files of this machine, and is the administrator's to read."""
    return NOT_SAID if message and state in ("failed", "lost") and not administrator else message


def new_session(token: str) -> str:
    """A signed cookie that is valid for `SESSION` seconds."""
    until = str(int(time.time()) + SESSION)
    return f"{until}.{_sign(token, until)}"


def valid_session(token: str, cookie: str) -> bool:
    until, _, signature = cookie.partition(".")
    return (
        hmac.compare_digest(signature.encode(), _sign(token, until).encode()) and until.isdigit() and int(until) > time.time()
    )


def _sign(token: str, until: str) -> str:
    return hmac.new(token.encode(), f"session {until}".encode(), hashlib.sha256).hexdigest()


class Guard:
    """ASGI middleware: own names only, security headers on every answer, HEAD as GET without the body, an end to bodies that
    are too large or take too long."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        server = (scope.get("server") or ("", 0))[0]
        if len(hosts) > 1 or any(not self.settings.answers_to(host, server) for host in hosts):
            await _refuse(send, 421, f"This site has another name than {hosts[-1][:80]!r}; 'serve --url' gives it one.")
            return
        imported = not self.settings.readers or scope["path"] in IMPORTS
        most = LARGEST_BODY if imported else LARGEST_OF_READERS
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            await _refuse(send, 413, "The body is too large.")
            return
        head = scope["method"] == "HEAD"
        if head:
            scope = {**scope, "method": "GET"}
        secret = self.settings.readers and SECRETS.match(scope["path"]) is not None
        state = scope.setdefault("state", {})
        received, whole, answered, began = 0, False, False, time.monotonic()

        async def counted() -> Message:
            nonlocal received, whole
            if whole:  # what comes now is that the reader has gone
                return await receive()
            try:
                async with asyncio.timeout(began + PATIENCE + received / SLOWEST - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                if answered:
                    return {"type": "http.disconnect"}
                raise HTTPException(408, "The request did not come whole in time.", {"connection": "close"}) from None
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > most:
                raise HTTPException(413, "The body is too large.")
            return message

        async def with_headers(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                held = {name.lower() for name, _ in message["headers"]}
                wanted = HEADERS | self._of_readers(secret, state.get("reader") is not None)
                message["headers"] = list(message["headers"]) + [
                    (name.encode(), value.encode()) for name, value in wanted.items() if name.encode() not in held
                ]
            elif head:
                message = {**message, "body": b""}
            await send(message)

        await self.app(scope, counted, with_headers)

    def _of_readers(self, secret: bool, personal: bool) -> dict[str, str]:
        """What a site with readers says more: that it wants TLS, and that what is one reader's alone is kept nowhere."""
        headers = {"strict-transport-security": "max-age=31536000"} if self.settings.readers and self.settings.secure else {}
        if secret:
            headers["referrer-policy"] = "no-referrer"
        if secret or personal:
            headers["cache-control"] = PERSONAL
        return headers


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"detail": message}).encode()
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
