"""Collections, what to read later, what was read, and what readers bring."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from broadsheet.errors import BroadsheetError, InputError, NotFoundError
from broadsheet.lab.store import Store
from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.citation import bibtex, csl, ris
from broadsheet.readers import collecting, keys, marks, rates, submitting
from broadsheet.readers.accounts import Reader
from broadsheet.readers.collecting import Shelf
from broadsheet.readers.submitting import Brought
from broadsheet.web import people
from broadsheet.web.accounts import Reads, SignedIn, shown
from broadsheet.web.administration import Admin, import_given
from broadsheet.web.api import OPEN, SIGNED, WRONG, Number
from broadsheet.web.feeds import feed_of
from broadsheet.web.mathematics import plain
from broadsheet.web.render import link

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1", tags=["readers"])

Collects = Annotated[Reader, Depends(people.wanted("collections"))]
Submits = Annotated[Reader, Depends(people.wanted("submissions"))]
Slug = Annotated[str, Form(max_length=200)]
Title = Annotated[str, Form(max_length=400)]
Words = Annotated[str, Form(max_length=8000)]

PER_PAGE = 100
"""Papers of a collection that a page shows."""

SUBMISSIONS = rates.Limit("brought", 20, 86_400)
COLLECTIONS = rates.Limit("made into a collection", 60, 86_400)
KINDS = {
    "bib": "application/x-bibtex",
    "json": "application/vnd.citationstyles.csl+json",
    "ris": "application/x-research-info-systems",
}
"""ending of an export -> its media type."""


def _slug(request: Request, name: str) -> str:
    """The short name of a paper; raises `NotFoundError` where there is none."""
    return people.edition(request).view.paper(name).slug


def _back(request: Request, where: str) -> Response:
    """Goes back to a page of this site."""
    return RedirectResponse(people.local(where), 303)


def _mine(request: Request) -> int | None:
    reader: Reader | None = request.state.reader
    return reader.id if reader is not None and "read" in reader.scopes else None


def _made(request: Request, reader: Reader, title: str, text: str, public: bool) -> int:
    """Makes a collection, unless the account made too many today; its number."""
    rates.count(people.store(request), COLLECTIONS, str(reader.id))
    return collecting.make(people.store(request), reader.id, title, text, public)


def private_feed(store: Store, shelf: Shelf) -> str:
    """The path of a collection's feed; that of a private one cannot be guessed."""
    if shelf.public:
        return f"/feeds/collections/{shelf.id}.atom"
    signature = keys.signature(keys.site_key(store), "feed", _signed_by(shelf.id, shelf.owner, shelf.made))
    return f"/feeds/collections/{shelf.id}/{signature}.atom"


def _signed_by(number: int, owner: int, made: datetime) -> str:
    """What a private feed is signed by: the number of a collection that was deleted may be given again."""
    return f"{owner} {number} {made.astimezone(UTC).isoformat()}"


@router.get("/collections")
async def listed(request: Request) -> Response:
    """Collections that everybody may see."""
    shelves = await run_in_threadpool(collecting.public, people.store(request))
    return shown(request, "collections.html", shelves=shelves)


@router.get("/account/collections")
async def own(request: Request, reader: SignedIn) -> Response:
    return await _own_page(request, reader)


async def _own_page(request: Request, reader: Reader, code: int = 200, mistake: str = "") -> Response:
    def held() -> dict[str, Any]:
        store = people.store(request)
        return {"shelves": collecting.of_account(store, reader.id), "mine": marks.mine(store, reader.id)}

    return shown(request, "own-collections.html", code, mistake=mistake, **(await run_in_threadpool(held)))


@router.post("/account/collections")
async def make(
    request: Request, reader: SignedIn, title: Title = "", text: Words = "", public: Annotated[bool, Form()] = False
) -> Response:
    try:
        number = await run_in_threadpool(_made, request, reader, title, text, public)
    except InputError as error:
        return await _own_page(request, reader, 422, str(error))
    return RedirectResponse(f"/collections/{number}", 303)


@router.get("/collections/{number}")
async def one(request: Request, number: Number, part: Annotated[int, Query(alias="number", ge=1, le=100_000)] = 1) -> Response:
    return await _shelf_page(request, number, part)


async def _shelf_page(request: Request, number: int, part: int = 1, code: int = 200, mistake: str = "") -> Response:
    edition = people.edition(request)

    def held() -> dict[str, Any]:
        shelf = collecting.shelf(edition.store, number, _mine(request))
        papers = [(edition.view.papers[slug], note) for slug, note in shelf.papers if slug in edition.view.papers]
        start, last = (part - 1) * PER_PAGE, max(1, math.ceil(len(papers) / PER_PAGE))
        if part > last:
            raise NotFoundError(f"There is no page {part}; the last one is {last}.")
        return {
            "shelf": shelf,
            "own": shelf.owner == _mine(request),
            "papers": papers[start : start + PER_PAGE],
            "count": len(papers),
            "start": start,
            "number": part,
            "last": last,
            "similar": edition.similar_to_all(shelf.slugs),
            "feed": private_feed(edition.store, shelf),
            "mine": marks.mine(edition.store, who) if (who := _mine(request)) else marks.NOBODY,
        }

    return shown(request, "collection.html", code, mistake=mistake, **(await run_in_threadpool(held)))


def _place(request: Request, reader: Reader, number: int, slug: str) -> str:
    """Where a paper of a collection stands."""
    view = people.edition(request).view
    order = [one for one in collecting.shelf(people.store(request), number, reader.id).slugs if one in view.papers]
    part = order.index(slug) // PER_PAGE + 1 if slug in order else 1
    return link(f"/collections/{number}", number=part if part > 1 else "") + f"#{slug}"


@router.post("/collections/{number}/change")
async def change(
    request: Request,
    reader: SignedIn,
    number: Number,
    title: Title = "",
    text: Words = "",
    public: Annotated[bool, Form()] = False,
) -> Response:
    try:
        await run_in_threadpool(collecting.change, people.store(request), reader.id, number, title, text, public)
    except NotFoundError:
        raise
    except InputError as error:
        return await _shelf_page(request, number, code=422, mistake=str(error))
    return RedirectResponse(f"/collections/{number}", 303)


@router.post("/collections/{number}/delete")
async def delete(request: Request, reader: SignedIn, number: Number) -> Response:
    await run_in_threadpool(collecting.drop, people.store(request), reader.id, number)
    return RedirectResponse("/account/collections", 303)


@router.post("/collections/{number}/papers")
async def put(
    request: Request, reader: SignedIn, number: Number, paper: Slug, note: Annotated[str | None, Form(max_length=8000)] = None
) -> Response:
    """Puts a paper, by short name or identifier, into a collection, or changes its note."""
    try:
        slug = _slug(request, paper.strip())
        await run_in_threadpool(collecting.put, people.store(request), reader.id, number, slug, note)
    except InputError as error:
        await run_in_threadpool(collecting.shelf, people.store(request), number, reader.id)  # of others: there is none
        return await _shelf_page(request, number, code=422, mistake=str(error))
    return RedirectResponse(await run_in_threadpool(_place, request, reader, number, slug), 303)


@router.post("/collections/{number}/take")
async def take(request: Request, reader: SignedIn, number: Number, paper: Slug) -> Response:
    await run_in_threadpool(collecting.take, people.store(request), reader.id, number, paper)
    return RedirectResponse(f"/collections/{number}", 303)


@router.post("/collections/{number}/move")
async def move(
    request: Request, reader: SignedIn, number: Number, paper: Slug, place: Annotated[int, Form(ge=-1, le=2000)]
) -> Response:
    await run_in_threadpool(collecting.move, people.store(request), reader.id, number, paper, place)
    return RedirectResponse(await run_in_threadpool(_place, request, reader, number, paper), 303)


@router.post("/collect")
async def collect(
    request: Request, reader: SignedIn, paper: Slug, collection: Annotated[int, Form(ge=1, le=2**31 - 1)]
) -> Response:
    """Puts a paper into a collection that was chosen on the paper's page."""
    slug = _slug(request, paper)
    await run_in_threadpool(collecting.put, people.store(request), reader.id, collection, slug)
    return _back(request, f"/papers/{slug}")


@router.post("/later")
async def later(request: Request, reader: SignedIn, paper: Slug, keep: Annotated[bool, Form()] = True) -> Response:
    slug = _slug(request, paper)
    await run_in_threadpool(collecting.later, people.store(request), reader.id, slug, keep)
    return _back(request, f"/papers/{slug}")


@router.post("/read")
async def read(request: Request, reader: SignedIn, paper: Slug, read: Annotated[bool, Form()] = True) -> Response:
    slug = _slug(request, paper)
    await run_in_threadpool(collecting.mark_read, people.store(request), reader.id, slug, read)
    return _back(request, f"/papers/{slug}")


def exported(papers: Sequence[ListedPaper], ending: str) -> str:
    """Papers as BibTeX (`bib`), CSL-JSON (`json`) or RIS (`ris`)."""
    if ending == "bib":
        return "".join(f"{bibtex(paper)}\n\n" for paper in papers)
    if ending == "ris":
        return "".join(ris(paper, plain(paper.title)) for paper in papers)
    return json.dumps([csl(paper, plain(paper.title)) for paper in papers], ensure_ascii=False, indent=1)


@router.get("/collections/{number}/export.{ending}")
async def export(request: Request, number: Number, ending: Literal["bib", "json", "ris"]) -> Response:
    """A collection for reference managers."""
    shelf = await run_in_threadpool(collecting.shelf, people.store(request), number, _mine(request))
    view = people.edition(request).view
    text = await run_in_threadpool(exported, [view.papers[slug] for slug in shelf.slugs if slug in view.papers], ending)
    name = shelf.name.encode("ascii", "ignore").decode().strip("-") or "collection"
    headers = {"content-disposition": f'attachment; filename="{name}.{ending}"', "cache-control": "private, no-store"}
    return Response(text, media_type=f"{KINDS[ending]}; charset=utf-8", headers=headers)


@router.get("/feeds/collections/{number}.atom")
async def feed(request: Request, number: Number) -> Response:
    shelf = await run_in_threadpool(collecting.shelf, people.store(request), number, None)
    return _feed(request, shelf)


@router.get("/feeds/collections/{number}/{signature}.atom")
async def own_feed(request: Request, number: Number, signature: str) -> Response:
    """The feed of a private collection, for readers of feeds that cannot sign in."""
    store = people.store(request)

    def found() -> Shelf:
        known = collecting.owner(store, number)
        if known is None or not keys.signed(keys.site_key(store), "feed", _signed_by(number, *known), signature):
            raise NotFoundError("There is no such collection.")
        return collecting.shelf(store, number, known[0])

    answer = _feed(request, await run_in_threadpool(found))
    answer.headers["cache-control"] = "private, no-store"
    return answer


def _feed(request: Request, shelf: Shelf) -> Response:
    view = people.edition(request).view
    slugs = [slug for slug in shelf.slugs[::-1] if slug in view.papers]
    return feed_of(request, f"{shelf.title}, a collection of {shelf.owner_name}", f"/collections/{shelf.id}", slugs)


@router.get("/submit")
async def form(request: Request, reader: SignedIn) -> Response:
    return await _submit_page(request, reader)


async def _submit_page(request: Request, reader: Reader, code: int = 200, mistake: str = "") -> Response:
    brought = await run_in_threadpool(submitting.of_account, people.store(request), reader.id)
    return shown(request, "submit.html", code, brought=brought, mistake=mistake)


def _submit(request: Request, reader: Reader, value: str, note: str) -> int:
    kind, spelt = submitting.read(value)
    if kind == "paper" and spelt in people.edition(request).view.aliases:
        raise InputError(f"{spelt} is on the page already.")
    rates.count(people.store(request), SUBMISSIONS, str(reader.id))
    return submitting.submit(people.store(request), reader.id, value, note)


@router.post("/submit")
async def submit(
    request: Request, reader: SignedIn, value: Annotated[str, Form(max_length=800)] = "", note: Words = ""
) -> Response:
    try:
        await run_in_threadpool(_submit, request, reader, value, note)
    except InputError as error:
        return await _submit_page(request, reader, 422, str(error))
    return RedirectResponse("/submit", 303)


@router.get("/administrator/submissions", dependencies=[Admin])
async def queue(request: Request) -> Response:
    """What waits for the administrator's yes."""
    return await _queue_page(request)


async def _queue_page(request: Request, code: int = 200, said: str = "") -> Response:
    waiting = await run_in_threadpool(submitting.waiting, people.store(request))
    return shown(request, "submissions.html", code, waiting=waiting, said=said)


@router.post("/administrator/submissions/{number}", dependencies=[Admin])
async def settle(
    request: Request, number: Number, outcome: Annotated[Literal["accepted", "refused"], Form()], answer: Words = ""
) -> Response:
    """Accepts or refuses. An accepted paper is imported; of a repository nothing is run here."""

    def work() -> None:
        found = submitting.one(people.store(request), number)
        if outcome == "accepted" and found.kind == "paper":
            import_given(people.edition(request), found.value, b"", "", None)
        submitting.settle(people.store(request), number, outcome, answer)

    try:
        await run_in_threadpool(work)
    except NotFoundError:
        raise
    except BroadsheetError as error:
        return await _queue_page(request, 422, f"It still waits. {error}")
    return RedirectResponse("/administrator/submissions", 303)


class ShelfOut(BaseModel):
    """A collection; `papers` are short names in order, with notes, where one collection was asked for."""

    id: int
    owner: str
    title: str
    text: str
    kind: str
    public: bool
    changed: str
    count: int
    papers: list[dict[str, str]]


class ShelfIn(BaseModel):
    title: str = Field(max_length=400)
    text: str = Field("", max_length=8000)
    public: bool = False


class PlacedIn(BaseModel):
    """A note on a paper of a collection, and its place from 0 where it is to be moved."""

    note: str | None = Field(None, max_length=8000)
    place: int | None = Field(None, ge=0, le=2000)


class MarksOut(BaseModel):
    """Short names of papers that the account has read, keeps for later, and voted for."""

    read: list[str]
    later: list[str]
    votes: list[str]


class MarkIn(BaseModel):
    value: bool = True


class SubmissionIn(BaseModel):
    """An arXiv identifier, or the https address of a repository with a `claims.toml`."""

    value: str = Field(max_length=800)
    note: str = Field("", max_length=400)


class SubmissionOut(BaseModel):
    id: int
    kind: str
    value: str
    note: str
    state: str
    answer: str
    made: str


def _shelf_out(shelf: Shelf) -> ShelfOut:
    return ShelfOut(
        id=shelf.id, owner=shelf.owner_name, title=shelf.title, text=shelf.text, kind=shelf.kind, public=shelf.public,
        changed=shelf.changed.isoformat(), count=shelf.count,
        papers=[{"slug": slug, "note": note} for slug, note in shelf.papers],
    )  # fmt: skip


def _one(request: Request, number: int, reader: Reader) -> ShelfOut:
    return _shelf_out(collecting.shelf(people.store(request), number, reader.id))


@api.get("/collections", responses=WRONG)
def api_public(request: Request, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[ShelfOut]:
    """Collections that everybody may see, the one changed last first."""
    return [_shelf_out(shelf) for shelf in collecting.public(people.store(request), limit)]


@api.get("/collections/{number}", responses=OPEN)
def api_one(request: Request, number: Number) -> ShelfOut:
    """A collection with its papers: one that is public, or the account's own."""
    return _shelf_out(collecting.shelf(people.store(request), number, _mine(request)))


@api.get("/me/collections", responses=SIGNED)
def api_own(request: Request, reader: Reads) -> list[ShelfOut]:
    """The account's collections."""
    return [_shelf_out(shelf) for shelf in collecting.of_account(people.store(request), reader.id)]


@api.post("/me/collections", status_code=201, responses=SIGNED)
def api_make(request: Request, reader: Collects, wanted: ShelfIn) -> ShelfOut:
    """Makes a collection."""
    number = _made(request, reader, wanted.title, wanted.text, wanted.public)
    return _one(request, number, reader)


@api.put("/me/collections/{number}", responses=SIGNED)
def api_change(request: Request, reader: Collects, number: Number, wanted: ShelfIn) -> ShelfOut:
    """Changes a collection's title, text and who sees it."""
    collecting.change(people.store(request), reader.id, number, wanted.title, wanted.text, wanted.public)
    return _one(request, number, reader)


@api.delete("/me/collections/{number}", status_code=204, responses=SIGNED)
def api_drop(request: Request, reader: Collects, number: Number) -> None:
    """Deletes a collection."""
    collecting.drop(people.store(request), reader.id, number)


@api.put("/me/collections/{number}/papers/{slug}", responses=SIGNED)
def api_put(request: Request, reader: Collects, number: Number, slug: str, wanted: PlacedIn) -> ShelfOut:
    """Puts a paper into a collection, changes its note, moves it."""
    found = _slug(request, slug)
    collecting.put(people.store(request), reader.id, number, found, wanted.note)
    if wanted.place is not None:
        collecting.move(people.store(request), reader.id, number, found, wanted.place)
    return _one(request, number, reader)


@api.delete("/me/collections/{number}/papers/{slug}", responses=SIGNED)
def api_take(request: Request, reader: Collects, number: Number, slug: str) -> ShelfOut:
    """Takes a paper out of a collection."""
    collecting.take(people.store(request), reader.id, number, _slug(request, slug))
    return _one(request, number, reader)


@api.get("/me/marks", responses=SIGNED)
def api_marks(request: Request, reader: Reads) -> MarksOut:
    """What the account has read, keeps for later, and voted for."""
    found = marks.mine(people.store(request), reader.id)
    return MarksOut(read=sorted(found.read), later=sorted(found.later), votes=sorted(found.votes))


def _marking(what: Literal["read", "later"]) -> Callable[..., MarksOut]:
    change = {"read": collecting.mark_read, "later": collecting.later}[what]

    def mark(request: Request, reader: Collects, slug: str, wanted: MarkIn) -> MarksOut:
        change(people.store(request), reader.id, _slug(request, slug), wanted.value)
        return api_marks(request, reader)

    mark.__doc__ = {"read": "Marks a paper as read, or not.", "later": "Keeps a paper for later, or no longer."}[what]
    return mark


for name in ("read", "later"):
    api.put(f"/me/{name}/{{slug}}", responses=SIGNED, name=f"mark_{name}")(_marking(name))


def _submission_out(found: Brought) -> SubmissionOut:
    kept = {name: getattr(found, name) for name in ("id", "kind", "value", "note", "state", "answer")}
    return SubmissionOut(**kept, made=found.made.isoformat())


@api.get("/me/submissions", responses=SIGNED)
def api_submissions(request: Request, reader: Reads) -> list[SubmissionOut]:
    """What the account has brought, the newest first."""
    return [_submission_out(found) for found in submitting.of_account(people.store(request), reader.id)]


@api.post("/me/submissions", status_code=202, responses=SIGNED)
def api_submit(request: Request, reader: Submits, wanted: SubmissionIn) -> SubmissionOut:
    """Brings a paper or a repository; it waits for the administrator."""
    return _submission_out(submitting.one(people.store(request), _submit(request, reader, wanted.value, wanted.note)))
