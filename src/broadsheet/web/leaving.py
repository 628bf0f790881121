"""Another address, all that is kept of an account as a file, and its deletion; and what is kept of readers at all."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Form, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from broadsheet.errors import InputError
from broadsheet.readers import accounts, leaving, mail, privacy, rates
from broadsheet.readers.accounts import LinkError
from broadsheet.web import people
from broadsheet.web.accounts import NO_REFERRER, Recent, SignedIn, account_page, count_asking, shown
from broadsheet.web.pages import page
from broadsheet.web.render import templates
from broadsheet.web.security import PERSONAL

router = APIRouter(include_in_schema=False)

EXPORTS = rates.Limit("exported", 10, 3600)


@router.get("/about/privacy")
async def about_privacy(request: Request) -> Response:
    return await page(request, "privacy.html", lambda: {"held": privacy.HELD, "elsewhere": privacy.ELSEWHERE})


@router.post("/account/export")
async def export(request: Request, reader: Recent) -> Response:
    store = people.store(request)
    await run_in_threadpool(rates.count, store, EXPORTS, str(reader.id))
    found = await run_in_threadpool(leaving.export, store, reader.id)
    headers = {"content-disposition": 'attachment; filename="broadsheet-account.json"', "cache-control": PERSONAL}
    return Response(json.dumps(found, ensure_ascii=False, indent=1), media_type="application/json", headers=headers)


@router.post("/account/delete")
async def delete(request: Request, reader: Recent, name: Annotated[str, Form(max_length=200)] = "") -> Response:
    """Deletes the account, where its name was typed again."""
    if accounts.name_key(name) != accounts.name_key(reader.name):
        return await account_page(request, reader, 422, mistake="To delete the account, type its name.")
    await run_in_threadpool(leaving.delete_account, people.store(request), reader.id)
    request.state.reader = None
    answer = shown(request, "left.html")
    people.set_cookie(request, answer, people.SESSION_COOKIE, "", 0)
    return answer


@router.post("/account/address")
async def ask(
    request: Request, later: BackgroundTasks, reader: Recent, address: Annotated[str, Form(max_length=400)] = ""
) -> Response:
    """Mails a link to a new address, and says the same whether or not another account has it."""
    store, out, sender = people.store(request), people.way_out(request), people.sender(request)
    try:
        to = accounts.plain_address(address)
    except InputError as error:
        return await account_page(request, reader, 422, mistake=str(error))
    await run_in_threadpool(count_asking, request, store, to)
    to, token = await run_in_threadpool(leaving.ask_for_address, store, reader.id, to)
    text = templates.get_template("letters/address.txt").render(
        url=f"{sender.url}/account/address/{token}", title=sender.name
    )  # fmt: skip
    later.add_task(people.send, request, out, mail.letter(sender, to, f"Your address at {sender.name}", text), sender.address)
    return shown(request, "address-sent.html", address=to)


@router.get("/account/address/{token}")
async def look(request: Request, token: str, reader: SignedIn) -> Response:
    try:
        await run_in_threadpool(leaving.look_at_address, people.store(request), reader.id, token)
    except LinkError as error:
        return shown(request, "error.html", 410, NO_REFERRER, status=410, message=str(error))
    return shown(request, "address-link.html", 200, NO_REFERRER, token=token)


@router.post("/account/address/{token}")
async def change(request: Request, later: BackgroundTasks, token: str, reader: SignedIn) -> Response:
    """Changes the address, and tells the one before."""
    store = people.store(request)
    try:
        before = await run_in_threadpool(leaving.change_address, store, reader.id, token, reader.session)
    except LinkError as error:
        return shown(request, "error.html", 410, NO_REFERRER, status=410, message=str(error))
    except InputError as error:
        return shown(request, "error.html", 409, NO_REFERRER, status=409, message=str(error))
    if before and request.app.state.settings.mail:
        out, sender = people.way_out(request), people.sender(request)
        text = templates.get_template("letters/address-changed.txt").render(name=reader.name, title=sender.name)
        told = mail.letter(sender, before, f"Your address at {sender.name} was changed", text)
        later.add_task(people.send, request, out, told, sender.address)
    return RedirectResponse("/account", 303, NO_REFERRER)
