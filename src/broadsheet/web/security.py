"""Who may start runs and imports, and what a browser is told it may do with our pages."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
LARGEST_BODY = 64 * 2**20


def is_administrator(request: Request) -> bool:
    """Whether a request comes from the administrator: by token or session, or, without a token, from this machine.

    A request that was passed on by a proxy does not count as from this machine, nor does one under a foreign host name
    (a page elsewhere whose name was made to point here).
    """
    settings: Settings = request.app.state.settings
    if settings.token:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), settings.token.encode()):
            return True
        return valid_session(settings.token, request.cookies.get(COOKIE, ""))
    client = request.client.host if request.client else ""
    passed_on = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "via", "x-real-ip"))
    own_name = is_loopback(urlsplit(f"//{request.headers.get('host', '')}").hostname or "")
    return is_loopback(client) and own_name and not passed_on


def require_administrator(request: Request) -> None:
    """Raises 403 for anyone else, and for a form that another site's page sent."""
    if not is_administrator(request):
        raise HTTPException(403, "Only the administrator may do this.")
    own = request.headers.get("host", "")
    origin = request.headers.get("origin")
    if (origin is not None and urlsplit(origin).netloc != own) or request.headers.get("sec-fetch-site", "same-origin") not in (
        "same-origin", "none",
    ):  # fmt: skip
        raise HTTPException(403, "The request came from another site.")


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
    """ASGI middleware: security headers on every answer, HEAD as GET without the body, an end to bodies that are too large."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > LARGEST_BODY:
            await _refuse(send)
            return
        head = scope["method"] == "HEAD"
        if head:
            scope = {**scope, "method": "GET"}
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > LARGEST_BODY:
                raise HTTPException(413, "The body is too large.")
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                held = {name.lower() for name, _ in message["headers"]}
                message["headers"] = list(message["headers"]) + [
                    (name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in held
                ]
            elif head:
                message = {**message, "body": b""}
            await send(message)

        await self.app(scope, counted, with_headers)


async def _refuse(send: Send) -> None:
    body = b'{"detail":"The body is too large."}'
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
