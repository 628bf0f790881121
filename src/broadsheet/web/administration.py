"""What the administrator does: starts and cancels runs, imports papers, signs in."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from broadsheet.errors import BroadsheetError, InputError
from broadsheet.lab.runner import queue_runs
from broadsheet.page import intake, sources
from broadsheet.page.catalogue import Imported
from broadsheet.page.edition import Edition
from broadsheet.web.live import Live
from broadsheet.web.pages import context
from broadsheet.web.render import templates
from broadsheet.web.security import (
    COOKIE,
    SESSION,
    Tries,
    new_session,
    require_administrator,
    require_own_page,
    too_many,
)

router = APIRouter(include_in_schema=False)

Admin = Depends(require_administrator)
OwnPage = Depends(require_own_page)

ASKED_FOR = 1e6
"""Priority of runs that somebody waits for, above those of the whole page."""


@router.get("/runs")
async def runs(request: Request) -> Response:
    """What runs, waits and has run; for the administrator, imports as well."""
    jobs = await run_in_threadpool(request.app.state.live.jobs.recent, 100)
    made = templates.get_template("runs.html").render(request=request, jobs=jobs, **context(request))
    return HTMLResponse(made)


@router.post("/runs", dependencies=[Admin])
async def start_run(
    request: Request,
    slug: Annotated[str, Form()],
    experiment: Annotated[str, Form()] = "",
    preset: Annotated[str, Form()] = "quick",
    seeds: Annotated[int, Form(ge=0, le=100)] = 1,
) -> Response:
    """Queues an experiment of a paper, or all; `seeds=0` takes as many as its claims ask for."""
    live: Live = request.app.state.live
    await run_in_threadpool(queue_runs, live.jobs, slug, experiment or None, preset, seeds or None, ASKED_FOR)
    await live.look()  # so that the page shows them at once
    return RedirectResponse(f"/papers/{slug}#running", 303)


@router.post("/runs/{job}/cancel", dependencies=[Admin])
async def cancel_run(request: Request, job: int) -> Response:
    await run_in_threadpool(request.app.state.live.jobs.cancel, job)
    return RedirectResponse("/runs", 303)


@router.post("/imports", dependencies=[Admin])
async def start_import(
    request: Request,
    source: Annotated[str, Form(max_length=4000)] = "",
    as_of: Annotated[str, Form()] = "",
    file: UploadFile | None = None,
) -> Response:
    """Imports a saved page or records that were sent, a live source, or arXiv ids."""
    day = intake.day(as_of) if as_of else None
    content = await file.read() if file is not None else b""
    name = file.filename if file is not None else None

    def work() -> str:
        try:
            done = import_given(request.app.state.edition, source, content, name or "the page", day)
        except BroadsheetError as error:
            return f"Nothing was imported. {error}"
        return f"{done.seen} paper{'s' if done.seen != 1 else ''}: {len(done.new)} new, {len(done.changed)} with news."

    said = await run_in_threadpool(work)
    jobs = await run_in_threadpool(request.app.state.live.jobs.recent, 100)
    made = templates.get_template("runs.html").render(request=request, jobs=jobs, said=said, **context(request))
    return HTMLResponse(made, 422 if said.startswith("Nothing") else 200)


def import_given(edition: Edition, source: str, content: bytes, name: str, day: date | None) -> Imported:
    """Imports what an administrator sent: a file's content, else a live source or arXiv ids. Never a file of this machine."""
    if content:
        given = intake.uploaded(content, name, day)
    else:
        words = source.split()
        if not words:
            raise InputError("Choose a file, or name a source.")
        found = intake.live_source(source.strip(), day)
        if found is None and not sources.looks_like_ids(words):
            raise InputError(
                f"{source.strip()[:60]!r} is no source: daily, daily:YYYY-MM-DD, hub:QUERY, arxiv:QUERY or arXiv ids."
            )
        given = found or ("arxiv", sources.arxiv_ids(words), day or date.today())
    return edition.catalogue.add(*given)


@router.get("/administrator")
async def administrator(request: Request) -> Response:
    made = templates.get_template("administrator.html").render(request=request, wrong=False, **context(request))
    return HTMLResponse(made)


@router.post("/administrator", dependencies=[OwnPage])
async def sign_in(request: Request, token: Annotated[str, Form(max_length=400)] = "") -> Response:
    """Signs the administrator in for half a day."""
    wanted = request.app.state.settings.token
    tries: Tries = request.app.state.tries
    if wait := tries.wait(request):
        raise too_many(wait)
    if not wanted or not tries.right(request, token, wanted):
        await asyncio.sleep(0.5)
        made = templates.get_template("administrator.html").render(request=request, wrong=True, **context(request))
        return HTMLResponse(made, 403)
    answer = RedirectResponse("/runs", 303)
    answer.set_cookie(
        COOKIE, new_session(wanted), max_age=SESSION, httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return answer


@router.post("/administrator/leave", dependencies=[OwnPage])
async def sign_out(request: Request) -> Response:
    answer = RedirectResponse("/", 303)
    answer.delete_cookie(COOKIE)
    return answer
