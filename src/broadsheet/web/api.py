"""The same as JSON, under `/api/v1`, and the daily papers in the Hub's shape."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from broadsheet.errors import SourceError
from broadsheet.lab.runner import queue_runs
from broadsheet.lab.tables import Job
from broadsheet.page import intake
from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.edition import Edition, Filters, View
from broadsheet.page.names import Suggestion
from broadsheet.page.reading import meaning
from broadsheet.web.administration import ASKED_FOR, Admin, import_given
from broadsheet.web.mathematics import plain
from broadsheet.web.render import link
from broadsheet.web.security import is_administrator, message_for

router = APIRouter()


class Mistake(BaseModel):
    """What was wrong, in one sentence."""

    detail: str


WRONG: dict[int | str, dict[str, Any]] = {
    422: {"model": Mistake, "description": "A value is wrong"},
    503: {"model": Mistake, "description": "The store cannot be reached"},
}
MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Mistake, "description": "Not found"}, **WRONG}
FORBIDDEN: dict[int | str, dict[str, Any]] = {
    400: {"model": Mistake, "description": "The body cannot be read"},
    403: {"model": Mistake, "description": "Not the administrator"},
    413: {"model": Mistake, "description": "Too large"},
    **MISSING,
}
SIGNED: dict[int | str, dict[str, Any]] = {
    400: {"model": Mistake, "description": "The body cannot be read"},
    401: {"model": Mistake, "description": "Nobody is signed in, and no key was sent that is known"},
    403: {"model": Mistake, "description": "The key lacks the scope, or the request came from another site"},
    413: {"model": Mistake, "description": "Too large"},
    429: {"model": Mistake, "description": "Too often"},
    **MISSING,
}
"""What the API may answer to readers besides what they asked for; `OPEN`: where nobody need be signed in."""
OPEN: dict[int | str, dict[str, Any]] = {401: SIGNED[401], **MISSING}
UNANSWERED: dict[int | str, dict[str, Any]] = {424: {"model": Mistake, "description": "The source gave no answer"}, **FORBIDDEN}


class PaperOut(BaseModel):
    """A paper: facts, and how many of its own claims have each verdict (empty where no system runs here)."""

    slug: str
    arxiv: str | None
    title: str
    published: str | None
    listed: str | None
    authors: int | None
    names: list[str]
    comments: int | None
    upvotes: int | None
    summary: str
    abstract: str | None
    topics: list[str]
    code: str
    parts: list[str]
    basis: str | None
    sources: list[str]
    verdicts: dict[str, int]


class CheckOut(BaseModel):
    metric: str
    of: str
    bound: str
    value: float | None
    low: float | None
    high: float | None
    distance: float | None
    passed: bool
    seeds_passed: int
    seeds: int


class TrialOut(BaseModel):
    """A control in the system's place: whether it meets the claim, and why it might fail by construction."""

    control: str
    kind: str
    met: bool
    unclear: bool
    checks: list[CheckOut]
    warnings: list[str]
    answer: str | None


class SizeOut(BaseModel):
    factor: float
    value: float
    verdict: str
    leaning: str | None
    seeds: list[int]
    checks: list[CheckOut]
    controls: list[TrialOut]


class GrowthOut(BaseModel):
    """A claim at multiples of one setting."""

    setting: str
    text: str
    fades: bool
    stale: bool
    sizes: list[SizeOut]


class ClaimOut(BaseModel):
    """A claim with its last recorded verdict, what that means in a sentence (`means`), the size it was made at, its controls,
    and what this site's own runs say (`here`)."""

    id: str
    kind: str
    statement: str
    where: str
    published: str | None
    experiment: str | None
    verdict: str | None
    means: str
    leaning: str | None
    scale: str | None
    preset: str | None
    seeds: list[int]
    reason: str | None
    here: str
    checks: list[CheckOut]
    ablations: list[TrialOut]
    no_ablation: str | None
    nulls: list[TrialOut]
    no_null: str | None
    warnings: list[str]
    growth: list[GrowthOut]


class WholePaperOut(PaperOut):
    claims: list[ClaimOut]
    figures: list[str]
    verbs: list[str]
    notes: list[str]


class PapersOut(BaseModel):
    """One portion of a list, and how long the whole is."""

    count: int
    papers: list[PaperOut]


class SearchOut(PapersOut):
    """`read_as`: words that were read as others; `by_meaning`: whether embeddings took part."""

    read_as: dict[str, str]
    by_meaning: bool


class SuggestionOut(BaseModel):
    """A paper, or an author with the number of their papers, and the address of its page."""

    kind: Literal["paper", "author"]
    text: str
    papers: int
    url: str


class JobOut(BaseModel):
    """A job; `repository`: of a repository of this machine with a `claims.toml`, and not of the paper that bears its name."""

    id: int
    slug: str
    repository: bool
    experiment: str
    preset: str
    state: str
    message: str
    created: str
    updated: str


class JobIn(BaseModel):
    """What to run: an experiment of a paper, or all that have the preset; `seeds=0` takes as many as its claims ask for."""

    slug: str = Field(max_length=120)
    experiment: str | None = Field(None, max_length=120)
    preset: Literal["smoke", "quick", "paper"] = "quick"
    seeds: int = Field(1, ge=0, le=100)


class ImportIn(BaseModel):
    """A live source (`daily`, `daily:YYYY-MM-DD`, `hub:QUERY`, `arxiv:QUERY`) or arXiv ids."""

    source: str = Field(max_length=4000)
    as_of: date | None = None


class ImportOut(BaseModel):
    seen: int
    new: list[str]
    changed: list[str]


Limit = Annotated[int, Query(ge=1, le=200)]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
Text = Annotated[str, Query(max_length=100)]


def _edition(request: Request) -> Edition:
    return request.app.state.edition


def _filters(
    topic: Text = "", verdict: Text = "", basis: Text = "", code: bool = False, since: Text = "", until: Text = ""
) -> Filters:
    return Filters(topic, verdict, basis, code, since, until)


Narrowed = Annotated[Filters, Depends(_filters)]


def paper_facts(view: View, paper: ListedPaper) -> dict[str, Any]:
    """A paper as JSON values."""
    standing = view.standings.get(paper.slug)
    names = (
        "slug", "arxiv", "title", "published", "listed", "authors", "names", "comments", "upvotes", "summary", "abstract",
        "topics", "code", "parts", "basis", "sources",
    )  # fmt: skip
    return {name: getattr(paper, name) for name in names} | {"verdicts": standing.counts if standing else {}}


@router.get("/api/v1/papers", responses=WRONG)
async def papers(
    request: Request,
    filters: Narrowed,
    sort: Literal["newest", "trending"] = "newest",
    limit: Limit = 50,
    offset: Offset = 0,
) -> PapersOut:
    """Papers, newest or trending first, narrowed by topic, verdict, basis, code and dates."""
    view = _edition(request).view
    slugs = view.newest if sort == "newest" else view.trending
    found = [slug for slug in slugs if view.passes(slug, filters)]
    shown = [PaperOut(**paper_facts(view, view.papers[slug])) for slug in found[offset : offset + limit]]
    return PapersOut(count=len(found), papers=shown)


@router.get("/api/v1/papers/{slug}", responses=MISSING)
async def paper(request: Request, slug: str) -> WholePaperOut:
    """A paper with its claims, verdicts and figures, by short name or arXiv id."""
    view = _edition(request).view
    found = view.paper(slug)
    standing = view.standings.get(found.slug)
    claims = [] if standing is None else [
        ClaimOut(**state.to_dict(), means=meaning(state), here=standing.here_text(state.claim.id)) for state in standing.claims
    ]  # fmt: skip
    figures = [] if standing is None else [
        f"/figures/{found.slug}/{name}/{drawn.name}.svg" for name, all_drawn in standing.figures.items() for drawn in all_drawn
    ]  # fmt: skip
    facts = standing.entry.facts if standing else {}
    return WholePaperOut(
        **paper_facts(view, found), claims=claims, figures=figures,
        verbs=list(facts.get("verbs", ())), notes=list(facts.get("notes", ())),
    )  # fmt: skip


@router.get("/api/v1/papers/{slug}/similar", responses=MISSING)
def similar(request: Request, slug: str, limit: Annotated[int, Query(ge=1, le=50)] = 6) -> PapersOut:
    """The papers nearest to one, by meaning where texts are embedded."""
    edition = _edition(request)
    view = edition.view
    found = edition.similar(view.paper(slug).slug, limit)
    return PapersOut(count=len(found), papers=[PaperOut(**paper_facts(view, view.papers[other])) for other in found])


@router.get("/api/v1/search", responses=WRONG)
def search(
    request: Request,
    filters: Narrowed,
    q: Annotated[str, Query(min_length=1, max_length=400)],
    limit: Limit = 20,
    offset: Offset = 0,
) -> SearchOut:
    """Papers by words and meaning; words in double quotes are a phrase that has to be there."""
    edition = _edition(request)
    view = edition.view
    found = edition.search(q, filters)
    shown = [PaperOut(**paper_facts(view, view.papers[slug])) for slug in found.slugs[offset : offset + limit]]
    return SearchOut(count=len(found.slugs), papers=shown, read_as=found.read_as, by_meaning=found.by_meaning)


@router.get("/api/v1/suggestions", responses=WRONG)
def suggestions(
    request: Request, q: Annotated[str, Query(max_length=400)] = "", limit: Annotated[int, Query(ge=1, le=20)] = 8
) -> list[SuggestionOut]:
    """What somebody may mean who has typed so much of a title, an author's name or an identifier."""
    return [_suggestion_out(one) for one in _edition(request).suggest(q, limit)]


def _suggestion_out(one: Suggestion) -> SuggestionOut:
    if one.kind == "author":
        return SuggestionOut(kind="author", text=one.text, papers=one.papers, url=link(f"/authors/{one.text}"))
    return SuggestionOut(kind="paper", text=plain(one.text), papers=one.papers, url=link(f"/papers/{one.slug}"))


@router.get("/api/v1/topics", responses=WRONG)
async def topics(request: Request) -> dict[str, int]:
    """Topics and how many papers each has."""
    return {topic: len(slugs) for topic, slugs in _edition(request).view.topics.items()}


def job_out(request: Request, job: Job) -> JobOut:
    return JobOut(
        id=job.id, slug=job.spec.slug, repository=job.spec.repository, experiment=job.spec.experiment, preset=job.spec.preset,
        state=job.state, message=message_for(is_administrator(request), job.state, job.message),
        created=job.created.isoformat(), updated=job.updated.isoformat(),
    )  # fmt: skip


@router.get("/api/v1/jobs", responses=WRONG)
def jobs(request: Request, limit: Limit = 50) -> list[JobOut]:
    """Jobs: what runs and waits first, then the newest."""
    return [job_out(request, job) for job in request.app.state.live.jobs.recent(limit)]


@router.get("/api/v1/jobs/{number}", responses=MISSING)
def job(request: Request, number: Number) -> JobOut:
    """One job."""
    return job_out(request, request.app.state.live.jobs.job(number))


@router.post("/api/v1/jobs", status_code=202, dependencies=[Admin], responses=FORBIDDEN)
def start(request: Request, wanted: JobIn) -> list[JobOut]:
    """Queues runs. Administrator only."""
    queue = request.app.state.live.jobs
    numbers = queue_runs(queue, wanted.slug, wanted.experiment, wanted.preset, wanted.seeds or None, ASKED_FOR)
    return [job_out(request, queue.job(number)) for number in numbers]


@router.delete("/api/v1/jobs/{number}", dependencies=[Admin], responses=FORBIDDEN)
def cancel(request: Request, number: Number) -> JobOut:
    """Cancels a job that waits or runs. Administrator only."""
    queue = request.app.state.live.jobs
    queue.cancel(number)
    return job_out(request, queue.job(number))


@router.post("/api/v1/imports", dependencies=[Admin], responses=UNANSWERED)
def start_import(request: Request, wanted: ImportIn) -> ImportOut:
    """Imports from a live source. Administrator only."""
    try:
        done = import_given(_edition(request), wanted.source, b"", "", wanted.as_of)
    except SourceError as error:
        return JSONResponse({"detail": str(error)}, 424)  # type: ignore[return-value]
    return ImportOut(seen=done.seen, new=done.new, changed=done.changed)


@router.post("/api/v1/imports/page", dependencies=[Admin], responses=FORBIDDEN)
async def import_page(
    request: Request, name: Annotated[str, Query(max_length=200)] = "page.html", as_of: date | None = None
) -> ImportOut:
    """Imports the page or the records in the body; `name` says by its ending what they are. Administrator only."""
    content = await request.body()

    def work() -> Any:
        return _edition(request).catalogue.add(*intake.uploaded(content, name, as_of))

    done = await run_in_threadpool(work)
    return ImportOut(seen=done.seen, new=done.new, changed=done.changed)


@router.get("/api/v1/events", include_in_schema=False)
async def events(request: Request, slug: str | None = None) -> Response:
    """Server-sent events of jobs: what has been said so far by those that run, then news."""
    if slug is not None:
        slug = _edition(request).view.paper(slug).slug
    said = request.app.state.live.events(slug, is_administrator(request))
    return EventSourceResponse(said, ping=20, headers={"cache-control": "no-store"})


@router.get("/api/daily_papers", responses=WRONG)
async def daily_papers(
    request: Request,
    day: Annotated[date | None, Query(alias="date")] = None,
    limit: Limit = 50,
    sort: Literal["publishedAt", "trending"] = "publishedAt",
) -> list[dict[str, Any]]:
    """The papers of a day, by default the latest, in the shape of the Hugging Face Hub's `/api/daily_papers`."""
    view = _edition(request).view
    wanted = day.isoformat() if day else next(iter(view.days), "")
    slugs = list(view.days.get(wanted, ()))
    if sort == "trending":
        rank = {slug: k for k, slug in enumerate(view.trending)}
        slugs.sort(key=lambda slug: rank[slug])
    return [_as_hub(view.papers[slug]) for slug in slugs[:limit]]


def _as_hub(paper: ListedPaper) -> dict[str, Any]:
    stamp = f"{paper.published}T00:00:00.000Z" if paper.published else None
    listed = f"{paper.day}T00:00:00.000Z" if paper.day else None
    text = paper.abstract or paper.summary
    inner = {
        "id": paper.arxiv or paper.slug,
        "authors": [{"name": name, "hidden": False} for name in paper.names],
        "publishedAt": stamp,
        "submittedOnDailyAt": listed,
        "title": paper.title,
        "summary": text,
        "upvotes": paper.upvotes or 0,
    }
    return {
        "paper": inner, "publishedAt": stamp, "title": paper.title, "summary": text, "numComments": paper.comments or 0,
        "isAuthorParticipating": False,
    }  # fmt: skip
