"""Votes and comments: pages, forms, the queue of moderators, a feed of each paper, and the same as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from broadsheet.errors import InputError, NotFoundError
from broadsheet.lab.ledger import Recorded
from broadsheet.lab.rows import RUN_ID
from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.edition import Noticed
from broadsheet.readers import comments, marks, moderation, votes
from broadsheet.readers.accounts import Reader
from broadsheet.readers.comments import Said
from broadsheet.readers.rates import TooOftenError
from broadsheet.web import markdown, people, render
from broadsheet.web.accounts import SignedIn, shown
from broadsheet.web.api import OPEN, SIGNED, Number
from broadsheet.web.pages import PageNumber, page
from broadsheet.web.render import base, link
from broadsheet.web.security import is_administrator, require_administrator

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1")

Voting = Annotated[Reader, Depends(people.wanted("votes"))]
Commenting = Annotated[Reader, Depends(people.wanted("comments"))]
Words = Annotated[str, Form(max_length=4 * comments.LONGEST)]
Short = Annotated[str, Form(max_length=1000)]


def _reader(request: Request) -> Reader | None:
    return request.state.reader


def _seeing(request: Request) -> Reader | None:
    """Who may see their own comments that wait: by a session, or by a key that has to do with comments."""
    reader = _reader(request)
    return reader if reader is not None and reader.scopes & {"read", "comments"} else None


def _paper(request: Request, name: str) -> ListedPaper:
    return people.edition(request).view.paper(name)


def _claim(request: Request, slug: str, name: str) -> Recorded | None:
    """A claim of a paper, None for an empty name; raises `NotFoundError` where the paper has none of that name."""
    standing = people.edition(request).view.standings.get(slug)
    found = next((state for state in standing.claims if state.claim.id == name), None) if standing else None
    if name and found is None:
        raise NotFoundError(f"The paper has no claim {name[:40]!r}.")
    return found if name else None


def _statements(request: Request, slug: str) -> tuple[tuple[str, str], ...]:
    """(name, statement) of a paper's claims, for quotes."""
    standing = people.edition(request).view.standings.get(slug)
    return tuple((state.claim.id, state.claim.statement) for state in standing.claims) if standing else ()


def _place(slug: str, claim: str = "") -> str:
    """The path of a discussion."""
    return f"/papers/{slug}/claims/{claim}/discussion" if claim else f"/papers/{slug}/discussion"


def _where(request: Request, found: Said) -> str:
    """Where a comment stands, for a reader."""
    number = comments.page_of(people.store(request), found, _reader(request))
    return link(_place(found.slug, found.claim), number=number if number > 1 else "") + f"#comment-{found.id}"


def of_paper(request: Request, slug: str, claim: str = "", number: int = 1) -> dict[str, Any]:
    """What the pages of a paper and of its discussions show of what readers said; from the store."""
    store, reader, statements = people.store(request), _seeing(request), _statements(request, slug)
    silent = reader is None and number == 1 and slug not in people.edition(request).view.notices  # as most papers are
    return {
        "threads": comments.NOTHING if silent else comments.threads(store, slug, claim, number, reader),
        "tallies": {} if silent else comments.tallies(store, slug),
        "statements": statements,
        "authorship": moderation.authorship(store, reader.id, slug) if reader else "",
        "as_html": lambda found: markdown.rendered(found.text, found.slug, statements),
        "place": _place(slug, claim),
        "moderates": moderates(request),
        "longest": comments.LONGEST,
        "run_link": run_link,
    }


def moderates(request: Request) -> bool:
    """Whether who asks sees to comments: a moderator who is signed in, or the administrator."""
    reader = _reader(request)
    return is_administrator(request) or (reader is not None and bool(reader.session) and reader.moderates)


async def moderating(request: Request) -> bool:
    """A dependency: lets moderators and the administrator in; whether it is the administrator."""
    await people.know(request)
    reader = _reader(request)
    if reader is not None and reader.session and reader.moderates:
        if request.method not in ("GET", "HEAD"):
            people.require_own_form(request)
    elif is_administrator(request):
        require_administrator(request)
    elif reader is None:
        raise people.SignInWanted
    else:
        raise HTTPException(403, "Only moderators may do this.")
    return is_administrator(request)


Moderating = Annotated[bool, Depends(moderating)]


@router.get("/about/trending")
async def about_trending(request: Request) -> Response:
    return await page(request, "trending.html", dict)


@router.post("/papers/{slug}/vote")
async def vote(
    request: Request, slug: str, reader: Voting, wanted: Annotated[bool, Form()] = True, next: Short = "/"
) -> Response:
    """A vote, or none any more; goes back to the page that it was cast on."""
    found = _paper(request, slug)
    await run_in_threadpool(_cast, request, reader, found.slug, wanted)
    return RedirectResponse(f"{people.local(next).partition('#')[0]}#v-{found.slug}", 303)


def _cast(request: Request, reader: Reader, slug: str, wanted: bool) -> Noticed:
    noticed = votes.cast(people.store(request), reader.id, slug, wanted)
    people.edition(request).note(slug, noticed)
    return noticed


@router.get("/papers/{slug}/discussion")
async def discussion(
    request: Request, slug: str, number: PageNumber = 1, quote: Annotated[str, Query(max_length=40)] = ""
) -> Response:
    """What readers say of a paper; `quote`: a claim with which a comment begins."""
    found = _paper(request, slug)
    if found.slug != slug:
        return RedirectResponse(_place(found.slug), 301)
    draft = {"text": f"[[{quote}]] "} if _claim(request, found.slug, quote) else {}
    return await page(request, "discussion.html", *_discussion(request, found, None, number, draft))


@router.get("/papers/{slug}/claims/{claim}/discussion")
async def claim_discussion(request: Request, slug: str, claim: str, number: PageNumber = 1) -> Response:
    """What readers say of a claim, and whether they could reproduce it."""
    found = _paper(request, slug)
    state = _claim(request, found.slug, claim)
    if found.slug != slug:
        return RedirectResponse(_place(found.slug, claim), 301)
    return await page(request, "discussion.html", *_discussion(request, found, state, number, {}))


def _discussion(
    request: Request, paper: ListedPaper, state: Recorded | None, number: int, draft: Mapping[str, Any], mistake: str = ""
) -> tuple[Callable[[], Mapping[str, Any]], Callable[[], Mapping[str, Any]]]:
    given = {"paper": paper, "state": state, "draft": draft, "mistake": mistake}
    given["feed"] = f"/feeds/papers/{paper.slug}/comments.atom"
    claim = state.claim.id if state else ""
    return lambda: given, lambda: of_paper(request, paper.slug, claim, number)


@router.post("/papers/{slug}/comments")
async def write(
    request: Request,
    slug: str,
    reader: Commenting,
    text: Words = "",
    claim: Annotated[str, Form(max_length=40)] = "",
    parent: Annotated[int, Form(ge=0, le=2**31 - 1)] = 0,
    run: Short = "",
    reproduced: Annotated[str, Form(max_length=10)] = "",
) -> Response:
    """Writes a comment and goes to where it stands; what cannot be taken is shown again, with the reason."""
    found = _paper(request, slug)
    state = _claim(request, found.slug, claim)
    try:
        at = await run_in_threadpool(
            lambda: _where(request, _write(request, reader, found.slug, text, claim, parent, run, reproduced))
        )
    except NotFoundError:
        raise
    except (InputError, TooOftenError) as error:
        draft = {"text": text, "run": run, "reproduced": reproduced, "parent": parent}
        given, slow = _discussion(request, found, state, 1, draft, str(error))
        mine = await run_in_threadpool(marks.mine, people.store(request), reader.id)
        code, headers = (429, {"retry-after": str(error.wait)}) if isinstance(error, TooOftenError) else (422, {})
        return shown(request, "discussion.html", code, headers, **given(), **await run_in_threadpool(slow), mine=mine)
    return RedirectResponse(at, 303)


def _write(request: Request, reader: Reader, slug: str, text: str, claim: str, parent: int, run: str, reproduced: str) -> Said:
    number, noticed = comments.add(people.store(request), reader, slug, text, claim, parent, run, reproduced)
    people.edition(request).note(slug, noticed)
    return comments.one(people.store(request), number, reader)


@router.get("/comments/{number}")
async def comment(request: Request, number: Number) -> Response:
    """Goes to where a comment stands now."""

    def work() -> str:
        return _where(request, comments.one(people.store(request), number, _reader(request)))

    return RedirectResponse(await run_in_threadpool(work), 303)


@router.post("/comments/{number}/edit")
async def edit(request: Request, number: Number, reader: Commenting, text: Words = "") -> Response:
    return RedirectResponse(await run_in_threadpool(lambda: _where(request, _edit(request, reader, number, text))), 303)


def _edit(request: Request, reader: Reader, number: int, text: str) -> Said:
    found, noticed = comments.edit(people.store(request), reader, number, text)
    people.edition(request).note(found.slug, noticed)
    return found


@router.post("/comments/{number}/delete")
async def erase(request: Request, number: Number, reader: Commenting) -> Response:
    return RedirectResponse(await run_in_threadpool(lambda: _where(request, _erase(request, reader, number))), 303)


def _erase(request: Request, reader: Reader, number: int) -> Said:
    found, noticed = comments.erase(people.store(request), reader, number)
    people.edition(request).note(found.slug, noticed)
    return found


@router.post("/comments/{number}/report")
async def report(request: Request, number: Number, reader: Commenting, reason: Short = "") -> Response:
    await run_in_threadpool(comments.report, people.store(request), reader, number, reason)
    at = await run_in_threadpool(lambda: _where(request, comments.one(people.store(request), number, reader)))
    return shown(request, "reported.html", at=at)


@router.post("/papers/{slug}/authorship")
async def ask(request: Request, slug: str, reader: SignedIn, words: Short = "") -> Response:
    """An account says that it is an author of a paper."""
    found = _paper(request, slug)
    await run_in_threadpool(moderation.ask, people.store(request), reader, found.slug, words)
    return RedirectResponse(f"/papers/{found.slug}#discussion", 303)


@router.get("/account/comments")
async def own(request: Request, reader: SignedIn) -> Response:
    """A reader's own votes and comments."""
    store = people.store(request)
    found = await run_in_threadpool(comments.of_account, store, reader.id)
    mine = await run_in_threadpool(marks.mine, store, reader.id)
    return shown(request, "own-comments.html", found=found, mine=mine, words=markdown.words)


@router.get("/moderation")
async def queue(request: Request, administrator: Moderating) -> Response:
    """What waits for a moderator."""
    found = await run_in_threadpool(moderation.queue, people.store(request))
    return shown(request, "moderation.html", queue=found, as_html=_as_html(request), addresses=administrator)


def _as_html(request: Request) -> Callable[[Said], str]:
    return lambda found: markdown.rendered(found.text, found.slug, _statements(request, found.slug))


@router.post("/moderation/comments/{number}")
async def settle(
    request: Request, number: Number, administrator: Moderating, action: Annotated[str, Form(max_length=20)] = ""
) -> Response:
    changed = await run_in_threadpool(moderation.settle, people.store(request), number, action, administrator)
    for slug, noticed in changed.items():
        people.edition(request).note(slug, noticed)
    return RedirectResponse("/moderation", 303)


@router.post("/moderation/authors", dependencies=[Depends(moderating)])
async def confirm(
    request: Request,
    account: Annotated[int, Form(ge=1, le=2**31 - 1)],
    slug: Annotated[str, Form(max_length=120)],
    yes: Annotated[bool, Form()] = False,
) -> Response:
    await run_in_threadpool(moderation.confirm, people.store(request), account, slug, yes)
    return RedirectResponse("/moderation", 303)


@router.get("/feeds/papers/{slug}/comments.atom")
async def feed(request: Request, slug: str) -> Response:
    """The newest comments on a paper and its claims."""
    found = _paper(request, slug)
    said = await run_in_threadpool(comments.latest, people.store(request), found.slug)
    updated = max((one.edited or one.made for one in said), default=None)
    given: dict[str, Any] = {"base": base(request), "paper": found, "said": said, "updated": updated}
    text = await run_in_threadpool(lambda: render.feed("comments.xml", as_html=_as_html(request), **given))
    return Response(text, media_type="application/atom+xml")


class VotesOut(BaseModel):
    """Votes of this site's readers for a paper, what they count for in trending, and whether one is yours."""

    votes: int
    weight: float
    mine: bool


class CommentOut(BaseModel):
    """A comment. `text` is Markdown, `html` the same for pages; both are empty where it was deleted or hidden.

    `claim`: the claim that it is on; `parent`: the comment that it answers; `reproduced`: `yes` or `no`, of the claim; `run`: a
    run of this site or an https address; `author`: whether a confirmed author of the paper wrote it; `state`: `shown`,
    `waiting` (for a moderator), `hidden` or `deleted`.
    """

    id: int
    paper: str
    claim: str
    parent: int | None
    name: str
    text: str
    html: str
    reproduced: str
    run: str
    author: bool
    state: str
    made: str
    edited: str | None
    url: str
    answers: list[CommentOut]


class CommentsOut(BaseModel):
    """A page of comments; `count`: all comments without a parent, `last`: the last page."""

    count: int
    last: int
    comments: list[CommentOut]


class CommentIn(BaseModel):
    """A comment in Markdown on a paper, on a claim of it, or on a comment (`parent`)."""

    text: str = Field(max_length=2 * comments.LONGEST)
    claim: str = Field("", max_length=40)
    parent: int = Field(0, ge=0, le=2**31 - 1)
    run: str = Field("", max_length=comments.LONGEST_RUN)
    reproduced: Literal["", "yes", "no"] = ""


class WordsIn(BaseModel):
    """The new words of a comment."""

    text: str = Field(max_length=2 * comments.LONGEST)


class ReportIn(BaseModel):
    """Why moderators are to look at a comment."""

    reason: str = Field(max_length=comments.LONGEST_REASON)


def _out(request: Request, found: Said) -> CommentOut:
    return CommentOut(
        id=found.id, paper=found.slug, claim=found.claim, parent=found.parent, name=found.name, text=found.text,
        html=_as_html(request)(found) if found.text else "", reproduced=found.reproduced, run=found.run, author=found.author,
        state=found.state, made=found.made.isoformat(), edited=found.edited.isoformat() if found.edited else None,
        url=f"{base(request)}/comments/{found.id}", answers=[_out(request, answer) for answer in found.answers],
    )  # fmt: skip


def _votes_out(request: Request, slug: str, noticed: Noticed) -> VotesOut:
    reader = _reader(request)
    own = reader is not None and "read" in reader.scopes and slug in marks.mine(people.store(request), reader.id).votes
    return VotesOut(votes=noticed.votes, weight=noticed.weight, mine=own)


@api.get("/papers/{slug}/votes", responses=OPEN)
def read_votes(request: Request, slug: str) -> VotesOut:
    """Votes for a paper; with a key of the scope `read`, whether one is yours."""
    found = _paper(request, slug)
    return _votes_out(request, found.slug, people.edition(request).view.notices.get(found.slug, Noticed()))


@api.put("/papers/{slug}/vote", responses=SIGNED)
def put_vote(request: Request, slug: str, reader: Voting) -> VotesOut:
    """Votes for a paper. Scope `votes`."""
    noticed = _cast(request, reader, _paper(request, slug).slug, True)
    return VotesOut(votes=noticed.votes, weight=noticed.weight, mine=True)


@api.delete("/papers/{slug}/vote", responses=SIGNED)
def delete_vote(request: Request, slug: str, reader: Voting) -> VotesOut:
    """Takes a vote back. Scope `votes`."""
    noticed = _cast(request, reader, _paper(request, slug).slug, False)
    return VotesOut(votes=noticed.votes, weight=noticed.weight, mine=False)


@api.get("/papers/{slug}/comments", responses=OPEN)
def read_comments(
    request: Request, slug: str, claim: Annotated[str, Query(max_length=40)] = "", number: PageNumber = 1
) -> CommentsOut:
    """A page of the comments on a paper, or on one of its claims, each with its answers, the oldest first."""
    found = _paper(request, slug)
    _claim(request, found.slug, claim)
    made = comments.threads(people.store(request), found.slug, claim, number, _seeing(request))
    return CommentsOut(count=made.count, last=made.last, comments=[_out(request, said) for said in made.found])


@api.post("/papers/{slug}/comments", status_code=201, responses=SIGNED)
def post_comment(request: Request, slug: str, wanted: CommentIn, reader: Commenting) -> CommentOut:
    """Comments on a paper, a claim or a comment. Scope `comments`."""
    found = _paper(request, slug)
    _claim(request, found.slug, wanted.claim)
    return _out(
        request,
        _write(request, reader, found.slug, wanted.text, wanted.claim, wanted.parent, wanted.run, wanted.reproduced),
    )


@api.get("/comments/{number}", responses=OPEN)
def read_comment(request: Request, number: Number) -> CommentOut:
    """One comment."""
    return _out(request, comments.one(people.store(request), number, _seeing(request)))


@api.patch("/comments/{number}", responses=SIGNED)
def patch_comment(request: Request, number: Number, wanted: WordsIn, reader: Commenting) -> CommentOut:
    """Changes the words of your own comment. Scope `comments`."""
    return _out(request, _edit(request, reader, number, wanted.text))


@api.delete("/comments/{number}", responses=SIGNED)
def delete_comment(request: Request, number: Number, reader: Commenting) -> CommentOut:
    """Deletes your own comment; that there was one stays to be seen. Scope `comments`."""
    return _out(request, _erase(request, reader, number))


@api.post("/comments/{number}/reports", status_code=204, responses=SIGNED)
def post_report(request: Request, number: Number, wanted: ReportIn, reader: Commenting) -> None:
    """Tells moderators of a comment. Scope `comments`."""
    comments.report(people.store(request), reader, number, wanted.reason)


def run_link(run: str, slug: str) -> tuple[str, str]:
    """(address, words) of a run that a comment speaks of."""
    return (f"/papers/{slug}#provenance", run[:10]) if RUN_ID.fullmatch(run) else (run, run.removeprefix("https://")[:60])
