"""Following lists by mail: asking for letters, confirming, and ending them from a letter or from an account."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from email.message import EmailMessage
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, Form, HTTPException, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as FormError

from broadsheet.errors import InputError, NotFoundError
from broadsheet.readers import accounts, keys, lists, mail, subscriptions
from broadsheet.readers.accounts import LinkError, Reader
from broadsheet.readers.lists import Followed
from broadsheet.readers.subscriptions import Following
from broadsheet.web import people
from broadsheet.web.accounts import NO_REFERRER, Reads, SignedIn, count_asking, shown
from broadsheet.web.api import SIGNED, Number
from broadsheet.web.render import templates

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1", tags=["readers"])

OwnForm = Depends(people.require_own_form)
Subscribes = Annotated[Reader, Depends(people.wanted("subscriptions"))]
Kind = Annotated[str, Form(max_length=20)]
Value = Annotated[str, Form(max_length=1600)]
Rhythm = Annotated[str, Form(max_length=10)]

LARGEST_FORM = 4096
"""Bytes of a form that ends a subscription."""


def _followed(request: Request, kind: str, value: str) -> Followed:
    return lists.followed(request.app.state.edition.view, kind, value)


@router.get("/subscribe")
async def form(
    request: Request,
    kind: Annotated[str, Query(max_length=20)] = "trending",
    value: Annotated[str, Query(max_length=1600)] = "",
) -> Response:
    """A form to follow a list by mail."""
    people.way_out(request)
    return shown(request, "subscribe.html", followed=_followed(request, kind, value), address="", mistake="")


@router.post("/subscribe", dependencies=[OwnForm])
async def subscribe(
    request: Request,
    later: BackgroundTasks,
    address: Annotated[str, Form(max_length=400)] = "",
    kind: Kind = "trending",
    value: Value = "",
    rhythm: Rhythm = "daily",
) -> Response:
    """Mails a link that confirms, and says the same whatever is known of the address."""
    out, followed = people.way_out(request), _followed(request, kind, value)
    try:
        to, rhythm = accounts.plain_address(address), lists.plain_rhythm(rhythm)
    except InputError as error:
        return shown(request, "subscribe.html", 422, followed=followed, address=address, mistake=str(error))

    def work() -> str | None:
        count_asking(request, people.store(request), to)
        return subscriptions.ask(people.store(request), to, followed, rhythm)

    if (token := await run_in_threadpool(work)) is not None:
        sender = people.sender(request)
        later.add_task(people.send, request, out, _link_letter(sender, to, token, followed, rhythm), sender.address)
    return shown(request, "subscribe-sent.html", address=to, followed=followed)


def _link_letter(sender: mail.Sender, to: str, token: str, followed: Followed, rhythm: str) -> EmailMessage:
    text = templates.get_template("letters/confirm.txt").render(
        url=f"{sender.url}/confirm/{token}", title=sender.name, followed=followed, rhythm=rhythm
    )
    return mail.letter(sender, to, f"Confirm: {followed.plain_title}, {rhythm}", text)


@router.get("/confirm/{token}")
async def link(request: Request, token: str) -> Response:
    """A page with a button; to look at it confirms nothing, as mail scanners do."""
    try:
        await run_in_threadpool(subscriptions.look, people.store(request), token)
    except LinkError as error:
        return shown(request, "error.html", 410, NO_REFERRER, status=410, message=str(error))
    return shown(request, "confirm.html", 200, NO_REFERRER, token=token, following=None)


@router.post("/confirm/{token}", dependencies=[OwnForm])
async def confirm(request: Request, token: str) -> Response:
    """Begins the subscription, in whichever browser the link was opened."""
    try:
        following = await run_in_threadpool(subscriptions.confirm, people.store(request), token)
    except LinkError as error:
        return shown(request, "error.html", 410, NO_REFERRER, status=410, message=str(error))
    return shown(request, "confirm.html", 200, NO_REFERRER, token="", following=following)


def _signed(request: Request, number: str, signature: str) -> int:
    """The number of a subscription in a link of ours; anything else is the same 404."""
    key = keys.site_key(people.store(request))
    if not keys.signed(key, "unsubscribe", number, signature) or not number.isdecimal():
        raise HTTPException(404, "This link is not one of ours.")
    return int(number)


@router.get("/unsubscribe/{number}/{signature}")
async def leaving(request: Request, number: str, signature: str) -> Response:
    """A form that ends a subscription; to look at it ends nothing."""

    def work() -> Followed | None:
        return subscriptions.of_link(people.store(request), _signed(request, number, signature))

    followed = await run_in_threadpool(work)
    return shown(request, "unsubscribe.html", 200, NO_REFERRER, followed=followed, done=False)


@router.post("/unsubscribe/{number}/{signature}")
async def leave(request: Request, number: str, signature: str) -> Response:
    """Ends a subscription, as a mail program does by itself (RFC 8058): from anywhere, without a cookie, in this request.

    Whoever has the link got it in a letter. What has ended already stays so, and is answered alike.
    """
    given = await _leaving_form(request)

    def work() -> None:
        found = _signed(request, number, signature)
        subscriptions.unsubscribe(people.store(request), found, "all" in given, "never" in given)

    await run_in_threadpool(work)
    return shown(request, "unsubscribe.html", 200, NO_REFERRER, followed=None, done=True)


async def _leaving_form(request: Request) -> set[str]:
    """Names of what was sent, of either kind of form; nothing where it cannot be read, which asks for no more than one end."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > LARGEST_FORM:
        return set()
    try:
        return set((await request.form(max_files=0, max_fields=10)).keys())
    except FormError:
        return set()


@router.get("/account/subscriptions")
async def own(request: Request, reader: SignedIn) -> Response:
    return await _own_page(request, reader)


async def _own_page(request: Request, reader: Reader, code: int = 200, mistake: str = "") -> Response:
    following = await run_in_threadpool(subscriptions.of_account, people.store(request), reader.id)
    return shown(request, "subscriptions.html", code, following=following, mistake=mistake)


@router.post("/account/subscriptions")
async def follow(
    request: Request, reader: SignedIn, kind: Kind = "trending", value: Value = "", rhythm: Rhythm = "daily"
) -> Response:
    """Begins a subscription of the account: its address is confirmed already."""
    return await _changed(request, reader, subscriptions.follow, reader.id, _followed(request, kind, value), rhythm)


@router.post("/account/subscriptions/all/end")
async def stop_all(request: Request, reader: SignedIn) -> Response:
    return await _changed(request, reader, subscriptions.leave, reader.id)


@router.post("/account/subscriptions/{number}")
async def change(request: Request, reader: SignedIn, number: Number, rhythm: Rhythm = "") -> Response:
    return await _changed(request, reader, subscriptions.change, reader.id, number, rhythm)


@router.post("/account/subscriptions/{number}/end")
async def stop(request: Request, reader: SignedIn, number: Number) -> Response:
    return await _changed(request, reader, subscriptions.leave, reader.id, number)


async def _changed(request: Request, reader: Reader, work: Callable[..., Any], *given: Any) -> Response:
    try:
        await run_in_threadpool(work, people.store(request), *given)
    except NotFoundError:
        raise
    except InputError as error:
        return await _own_page(request, reader, 422, str(error))
    return RedirectResponse("/account/subscriptions", 303)


class FollowingOut(BaseModel):
    """A list that the account gets by mail; `value`: which topic, author, or search as in the address of its page."""

    id: int
    kind: str
    value: str
    title: str
    rhythm: str
    since: datetime


class FollowingIn(BaseModel):
    kind: Literal["trending", "topic", "search", "author", "verdicts"]
    value: Annotated[str, Field(max_length=1600)] = ""
    rhythm: Literal["daily", "weekly"] = "daily"


class RhythmIn(BaseModel):
    rhythm: Literal["daily", "weekly"]


def _out(following: Following) -> FollowingOut:
    of = following.followed
    return FollowingOut(
        id=following.id, kind=of.kind, value=of.value, title=of.title, rhythm=following.rhythm, since=following.since
    )  # fmt: skip


@api.get("/me/subscriptions", responses=SIGNED)
def api_own(request: Request, reader: Reads) -> list[FollowingOut]:
    """What the account gets by mail."""
    return [_out(one) for one in subscriptions.of_account(people.store(request), reader.id)]


@api.post("/me/subscriptions", status_code=201, responses=SIGNED)
def api_follow(request: Request, reader: Subscribes, wanted: FollowingIn) -> FollowingOut:
    """Begins to send a list to the account's address; one that is sent already gets the rhythm."""
    followed = _followed(request, wanted.kind, wanted.value)
    return _out(subscriptions.follow(people.store(request), reader.id, followed, wanted.rhythm))


@api.patch("/me/subscriptions/{number}", responses=SIGNED)
def api_change(request: Request, reader: Subscribes, number: Number, wanted: RhythmIn) -> FollowingOut:
    """Gives a subscription another rhythm."""
    return _out(subscriptions.change(people.store(request), reader.id, number, wanted.rhythm))


@api.delete("/me/subscriptions/{number}", status_code=204, responses=SIGNED)
def api_leave(request: Request, reader: Subscribes, number: Number) -> Response:
    """Ends a subscription."""
    if not subscriptions.leave(people.store(request), reader.id, number):
        raise NotFoundError("There is no such subscription.")
    return Response(status_code=204)
