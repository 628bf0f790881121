"""Signing in through OpenID providers, and linking what they confirm to an account."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from broadsheet.errors import InputError, NotFoundError
from broadsheet.readers import keys, providers, rates
from broadsheet.readers.accounts import LinkError, Reader
from broadsheet.readers.providers import Provider, ProviderError
from broadsheet.web import people
from broadsheet.web.accounts import BROWSER_LIFE, NO_REFERRER, OwnForm, Recent, account_page, refused, shown, signed_in
from broadsheet.web.render import base
from broadsheet.web.security import client_address

router = APIRouter(include_in_schema=False)

ASKED = rates.Limit("asked for a provider", 30, 3600)


def _provider(request: Request, key: str) -> Provider:
    found = providers.configured(request.app.state.settings.providers).get(key)
    if found is None:
        raise NotFoundError("This site does not know such a provider.")
    return found


def _callback(request: Request, provider: Provider) -> str:
    return f"{base(request)}/providers/{provider.key}/callback"


async def _begun(request: Request, provider: Provider, next: str, number: int | None = None) -> Response:
    """A page that leads on to the provider: a form may not, by the policy of our pages."""
    store = people.store(request)
    await run_in_threadpool(rates.count, store, ASKED, client_address(request))
    browser = people.cookie(request, people.BROWSER_COOKIE) or keys.fresh()
    try:
        address = await run_in_threadpool(
            providers.begin, store, provider, _callback(request, provider), browser, next, number
        )  # fmt: skip
    except ProviderError as error:
        return shown(request, "error.html", 502, status=502, message=str(error))
    answer = shown(request, "go-on.html", 200, NO_REFERRER, provider=provider, address=address)
    people.set_cookie(request, answer, people.BROWSER_COOKIE, browser, BROWSER_LIFE)
    return answer


@router.post("/providers/{key}", dependencies=[OwnForm])
async def begin(request: Request, key: str, next: Annotated[str, Form(max_length=400)] = "/") -> Response:
    return await _begun(request, _provider(request, key), people.local(next))


@router.post("/account/providers/{key}")
async def begin_linking(request: Request, key: str, reader: Recent) -> Response:
    return await _begun(request, _provider(request, key), "/account#links", reader.id)


@router.get("/providers/{key}/callback")
async def callback(
    request: Request,
    key: str,
    state: Annotated[str, Query(max_length=400)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
    iss: Annotated[str, Query(max_length=400)] = "",
) -> Response:
    """Where a provider sends its reader back to: signs in, or links, where this browser asked for it."""
    provider = _provider(request, key)
    store = people.store(request)
    browser = people.cookie(request, people.BROWSER_COOKIE)
    if not code:
        return shown(request, "error.html", 403, NO_REFERRER, status=403, message=f"{provider.name} did not sign you in.")
    try:
        who, asked = await run_in_threadpool(
            providers.finish, store, provider, _callback(request, provider), browser, state, code, iss
        )
    except LinkError as error:
        refused(request, provider.key, error)
        return shown(request, "error.html", 403, NO_REFERRER, status=403, message=str(error))
    except ProviderError as error:
        refused(request, provider.key, error)
        return shown(request, "error.html", 502, NO_REFERRER, status=502, message=str(error))
    if asked["account"] is not None:
        return await _linked(request, asked["account"], who)
    agent = request.headers.get("user-agent", "")
    number, secret, new = await run_in_threadpool(providers.sign_in, store, who, agent)
    answer = RedirectResponse("/account" if new else people.local(asked["next"]), 303, NO_REFERRER)
    return await signed_in(request, number, secret, provider.key, answer)


async def _linked(request: Request, number: int, who: providers.Who) -> Response:
    reader: Reader | None = request.state.reader
    if reader is None or reader.id != number or not reader.session:
        message = "The account that asked for this link is not signed in here."
        return shown(request, "error.html", 403, NO_REFERRER, status=403, message=message)
    try:
        await run_in_threadpool(providers.link, people.store(request), number, who)
    except InputError as error:
        return await account_page(request, reader, 409, mistake=str(error))
    return RedirectResponse("/account#links", 303, NO_REFERRER)


@router.post("/account/links/end")
async def unlink(
    request: Request,
    reader: Recent,
    issuer: Annotated[str, Form(max_length=200)] = "",
    subject: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    try:
        await run_in_threadpool(providers.unlink, people.store(request), reader.id, issuer, subject)
    except InputError as error:
        return await account_page(request, reader, 422, mistake=str(error))
    return RedirectResponse("/account#links", 303)
