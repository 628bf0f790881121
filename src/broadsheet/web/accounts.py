"""Signing in and out, and what a reader's account holds."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from broadsheet.errors import BroadsheetError, InputError
from broadsheet.lab.store import Store
from broadsheet.readers import accounts, keys, mail, passkeys, providers, rates
from broadsheet.readers.accounts import LinkError, Reader
from broadsheet.web import people
from broadsheet.web.api import SIGNED
from broadsheet.web.pages import context
from broadsheet.web.render import base, templates
from broadsheet.web.security import client_address
from broadsheet.web.settings import Settings

logger = logging.getLogger("broadsheet.site")
router = APIRouter(include_in_schema=False)

api = APIRouter(prefix="/api/v1", tags=["readers"])

OwnForm = Depends(people.require_own_form)
SignedIn = Annotated[Reader, Depends(people.wanted())]
Reads = Annotated[Reader, Depends(people.wanted("read"))]
Recent = Annotated[Reader, Depends(people.recent())]

PROGRAMS = ("Firefox", "Edg", "OPR", "SamsungBrowser", "Chrome", "Safari")
SYSTEMS = ("Android", "iPhone", "iPad", "Windows", "Macintosh", "Linux")
"""Words of browsers about themselves: the first that is there says which one it is."""

PER_ADDRESS = rates.Limit("asked for a link", 5, 3600)
PER_CLIENT = rates.Limit("asked for links from one place", 30, 3600)
NO_REFERRER = {"referrer-policy": "no-referrer", "cache-control": "no-store"}
BROWSER_LIFE = 3600
"""Seconds that a browser is known as the one that asked for a link."""


def program(agent: str) -> str:
    """What a browser calls itself, in two words where it is one of the well-known."""
    names = [next((word for word in words if word in agent), "") for words in (PROGRAMS, SYSTEMS)]
    return " on ".join(names).replace("Edg ", "Edge ").replace("OPR ", "Opera ") if all(names) else agent or "unknown"


templates.filters["program"] = program


def shown(request: Request, template: str, code: int = 200, headers: dict[str, str] | None = None, **given: Any) -> Response:
    """A page that is one reader's alone, and kept nowhere."""
    made = templates.get_template(template).render(request=request, **{**context(request), **given})
    return HTMLResponse(made, code, {"cache-control": "private, no-store", **(headers or {})})


def ways(request: Request) -> dict[str, Any]:
    """How one may sign in here: `letters`, `offers_passkeys`, `providers`."""
    settings: Settings = request.app.state.settings
    return {
        "letters": bool(settings.mail),
        "offers_passkeys": passkeys.party(base(request), settings.title) is not None,
        "providers": providers.configured(settings.providers),
    }


@router.get("/sign-in")
async def sign_in(request: Request, next: Annotated[str, Query(max_length=400)] = "/") -> Response:
    return shown(request, "sign-in.html", next=people.local(next), mistake="", **ways(request))


@router.post("/sign-in", dependencies=[OwnForm])
async def ask(
    request: Request,
    later: BackgroundTasks,
    address: Annotated[str, Form(max_length=400)] = "",
    next: Annotated[str, Form(max_length=400)] = "/",
) -> Response:
    """Mails a link, and says the same whether or not the address has an account."""
    store = people.store(request)
    out = people.way_out(request)
    try:
        to = accounts.plain_address(address)
    except InputError as error:
        return shown(request, "sign-in.html", 422, next=people.local(next), mistake=str(error), **ways(request))
    await run_in_threadpool(count_asking, request, store, to)
    browser = people.cookie(request, people.BROWSER_COOKIE) or keys.fresh()
    data = {"address": to, "next": people.local(next)}
    token, code = await run_in_threadpool(accounts.ask, store, "sign-in", data, browser)
    sender = people.sender(request)
    text = templates.get_template("letters/sign-in.txt").render(
        url=f"{sender.url}/sign-in/{token}", code=code, title=sender.name
    )
    later.add_task(people.send, request, out, mail.letter(sender, to, f"Sign in to {sender.name}", text), sender.address)
    answer = shown(request, "sign-in-sent.html", address=to)
    people.set_cookie(request, answer, people.BROWSER_COOKIE, browser, BROWSER_LIFE)
    return answer


def count_asking(request: Request, store: Store, address: str) -> None:
    """Counts a letter that somebody asks for; raises `TooOftenError` for too many to one address, or from one place."""
    rates.count(store, PER_CLIENT, client_address(request))  # first: who has asked too often uses up no other's letters
    rates.count(store, PER_ADDRESS, address)


@router.get("/sign-in/{token}")
async def link(request: Request, token: str) -> Response:
    """A page with a button; to look at it uses nothing up, as mail scanners do."""
    store = people.store(request)
    browser = people.cookie(request, people.BROWSER_COOKIE)
    try:
        same = await run_in_threadpool(accounts.look, store, "sign-in", token, browser)
    except LinkError as error:
        return shown(request, "error.html", 410, NO_REFERRER, status=410, message=str(error))
    return shown(request, "sign-in-link.html", 200, NO_REFERRER, token=token, same=same, mistake="")


@router.post("/sign-in/{token}", dependencies=[OwnForm])
async def use(request: Request, token: str, code: Annotated[str, Form(max_length=20)] = "") -> Response:
    """Signs in; in another browser than the one that asked, with the code that stands in the letter."""
    store = people.store(request)
    browser = people.cookie(request, people.BROWSER_COOKIE)
    try:
        data = await run_in_threadpool(accounts.use, store, "sign-in", token, browser, code)
    except LinkError as error:
        refused(request, "link", error)
        await asyncio.sleep(0.3)
        try:
            await run_in_threadpool(accounts.look, store, "sign-in", token, browser)
        except LinkError:
            return shown(request, "error.html", 410, NO_REFERRER, status=410, message=str(error))
        return shown(request, "sign-in-link.html", 403, NO_REFERRER, token=token, same=False, mistake=str(error))
    agent = request.headers.get("user-agent", "")
    number, secret, new = await run_in_threadpool(accounts.sign_in, store, data["address"], agent)
    answer = RedirectResponse("/account" if new else data["next"], 303, NO_REFERRER)
    return await signed_in(request, number, secret, "link", answer)


async def signed_in(request: Request, number: int, secret: str, way: str, answer: Response) -> Response:
    """Goes on as the reader whose session it is; the session before it, if any, ends. `way`: how the reader signed in."""
    before = people.cookie(request, people.SESSION_COOKIE)
    store = people.store(request)
    if before and (old := await run_in_threadpool(accounts.by_session, store, before)) is not None:
        await run_in_threadpool(accounts.sign_out, store, old.id, [old.session])
    logger.info("signed in", extra={"account": number, "way": way, "client": client_address(request)})
    people.set_cookie(request, answer, people.SESSION_COOKIE, secret, int(accounts.SESSION.total_seconds()))
    people.set_cookie(request, answer, people.BROWSER_COOKIE, "", 0)
    return answer


def refused(request: Request, way: str, error: Exception) -> None:
    """Logs a sign-in that was refused, without a word of who tried."""
    logger.warning("sign-in refused", extra={"way": way, "reason": str(error), "client": client_address(request)})


@router.post("/sign-out")
async def sign_out(request: Request, reader: SignedIn) -> Response:
    await run_in_threadpool(accounts.sign_out, people.store(request), reader.id, [reader.session])
    answer = RedirectResponse("/", 303)
    people.set_cookie(request, answer, people.SESSION_COOKIE, "", 0)
    return answer


class AccountOut(BaseModel):
    """Whose key or session it is, and what it may do."""

    name: str
    role: str
    scopes: list[str]


@api.get("/me", responses=SIGNED)
def api_me(reader: Reads) -> AccountOut:
    """The account behind a key: its name and role, and the key's scopes."""
    return AccountOut(name=reader.name, role=reader.role, scopes=sorted(reader.scopes))


@router.get("/account")
async def own(request: Request, reader: SignedIn) -> Response:
    return await account_page(request, reader)


async def account_page(request: Request, reader: Reader, status: int = 200, **given: Any) -> Response:
    """What an account holds: name, sessions, passkeys, links, keys; `mistake` and `secret` are what the last form brought."""
    store = people.store(request)

    def held() -> dict[str, Any]:
        return {
            "sessions": accounts.sessions(store, reader.id),
            "tokens": accounts.tokens(store, reader.id),
            "passkeys": passkeys.held(store, reader.id),
            "links": providers.held(store, reader.id),
        }

    known = ways(request)
    titles = {one.issuer: one.name for one in known["providers"].values()}
    given = {"mistake": "", "secret": "", "scopes": accounts.SCOPES, "titles": titles, **known, **given}
    given = {**(await run_in_threadpool(held)), **given}
    return shown(request, "account.html", status, **given)


@router.post("/account/name")
async def rename(request: Request, reader: SignedIn, name: Annotated[str, Form(max_length=200)] = "") -> Response:
    try:
        await run_in_threadpool(accounts.rename, people.store(request), reader.id, name)
    except BroadsheetError as error:
        return await account_page(request, reader, 422, mistake=str(error))
    return RedirectResponse("/account", 303)


@router.post("/account/sessions/end")
async def end_session(request: Request, reader: SignedIn, session: Annotated[str, Form(max_length=80)] = "") -> Response:
    """Ends one session of the account; without a name, all but this one."""
    store = people.store(request)

    def work() -> None:
        others = [one.digest for one in accounts.sessions(store, reader.id) if one.digest != reader.session]
        accounts.sign_out(store, reader.id, [session] if session else others)

    await run_in_threadpool(work)
    return RedirectResponse("/account", 303)


@router.post("/account/keys")
async def new_key(
    request: Request,
    reader: Recent,
    name: Annotated[str, Form(max_length=60)] = "",
    scope: Annotated[list[str], Form(max_length=20)] = [],  # noqa: B006
) -> Response:
    """Makes a key of the API and shows it, this once."""
    try:
        secret = await run_in_threadpool(accounts.new_token, people.store(request), reader.id, name, scope)
    except InputError as error:
        return await account_page(request, reader, 422, mistake=str(error))
    return await account_page(request, reader, secret=secret)


@router.post("/account/keys/end")
async def end_key(request: Request, reader: SignedIn, key: Annotated[str, Form(max_length=80)] = "") -> Response:
    await run_in_threadpool(accounts.drop_token, people.store(request), reader.id, key)
    return RedirectResponse("/account", 303)
