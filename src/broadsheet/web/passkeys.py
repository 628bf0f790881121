"""Passkeys in the browser: made, named and removed on the account's page, and a way to sign in."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from broadsheet.errors import InputError
from broadsheet.readers import keys, passkeys, rates
from broadsheet.readers.accounts import LinkError
from broadsheet.readers.passkeys import Party
from broadsheet.web import people
from broadsheet.web.accounts import BROWSER_LIFE, OwnForm, Recent, SignedIn, account_page, refused, signed_in
from broadsheet.web.render import base
from broadsheet.web.security import PERSONAL, client_address

router = APIRouter(include_in_schema=False)

ASKED = rates.Limit("asked for passkeys", 60, 3600)


class Answer(BaseModel):
    """What the script of the page sends: the token of the ceremony, and the credential as JSON."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(max_length=100)
    credential: str = Field(max_length=20_000)
    name: str = Field("", max_length=200)
    next: str = Field("/", max_length=400)


def site_of(request: Request) -> Party | None:
    """The site as authenticators know it, None where it has no passkeys."""
    return passkeys.party(base(request), request.app.state.settings.title)


def _site(request: Request) -> Party:
    found = site_of(request)
    if found is None:
        raise HTTPException(404, "This site has no passkeys: they want TLS, and a name instead of a number.")
    return found


def _begun(request: Request, browser: str, token: str, options: dict[str, Any]) -> Response:
    answer = JSONResponse({"token": token, "options": options}, headers={"cache-control": PERSONAL})
    people.set_cookie(request, answer, people.BROWSER_COOKIE, browser, BROWSER_LIFE)
    return answer


@router.post("/passkeys/options", dependencies=[OwnForm])
async def options(request: Request) -> Response:
    """The options of a sign-in: any passkey of this site will do."""
    site, store = _site(request), people.store(request)
    browser = people.cookie(request, people.BROWSER_COOKIE) or keys.fresh()
    await run_in_threadpool(rates.count, store, ASKED, client_address(request))
    return _begun(request, browser, *await run_in_threadpool(passkeys.begin, store, site, browser))


@router.post("/passkeys", dependencies=[OwnForm])
async def sign_in(request: Request, given: Answer) -> Response:
    site, store = _site(request), people.store(request)
    browser, agent = people.cookie(request, people.BROWSER_COOKIE), request.headers.get("user-agent", "")
    try:
        number, secret = await run_in_threadpool(
            passkeys.sign_in, store, site, browser, given.token, given.credential, agent
        )  # fmt: skip
    except LinkError as error:
        refused(request, "passkey", error)
        raise HTTPException(403, str(error)) from None
    answer = JSONResponse({"to": people.local(given.next)}, headers={"cache-control": PERSONAL})
    return await signed_in(request, number, secret, "passkey", answer)


@router.post("/account/passkeys/options")
async def new_options(request: Request, reader: Recent) -> Response:
    site, store = _site(request), people.store(request)
    browser = people.cookie(request, people.BROWSER_COOKIE) or keys.fresh()
    await run_in_threadpool(rates.count, store, ASKED, f"account {reader.id}")
    return _begun(request, browser, *await run_in_threadpool(passkeys.begin_adding, store, site, reader, browser))


@router.post("/account/passkeys")
async def add(request: Request, reader: Recent, given: Answer) -> Response:
    site, store, browser = _site(request), people.store(request), people.cookie(request, people.BROWSER_COOKIE)
    await run_in_threadpool(
        passkeys.add, store, site, reader.id, browser, given.token, given.credential, given.name
    )  # fmt: skip
    return JSONResponse({"to": "/account#passkeys"}, headers={"cache-control": PERSONAL})


@router.post("/account/passkeys/name")
async def rename(
    request: Request,
    reader: SignedIn,
    passkey: Annotated[str, Form(max_length=400)] = "",
    name: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    await run_in_threadpool(passkeys.rename, people.store(request), reader.id, passkey, name)
    return RedirectResponse("/account#passkeys", 303)


@router.post("/account/passkeys/end")
async def remove(request: Request, reader: Recent, passkey: Annotated[str, Form(max_length=400)] = "") -> Response:
    try:
        await run_in_threadpool(passkeys.remove, people.store(request), reader.id, passkey)
    except InputError as error:
        return await account_page(request, reader, 422, mistake=str(error))
    return RedirectResponse("/account#passkeys", 303)
