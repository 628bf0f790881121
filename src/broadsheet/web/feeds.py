"""Atom feeds of every listing, badges, and whether the site is well."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from broadsheet import __version__
from broadsheet.errors import NotFoundError
from broadsheet.page import intake
from broadsheet.page.edition import Edition, Filters, month_of, week_of
from broadsheet.web.render import base, day_text, feed, link, templates
from broadsheet.web.security import is_administrator

router = APIRouter(include_in_schema=False)
monitoring = APIRouter(include_in_schema=False)

ENTRIES = 60
COLOURS = {
    "holds": "#1d6b34", "reference": "#1d6b34", "mixed": "#8a5a00", "fails": "#a3271f", "vacuous": "#4a3b8f",
    "stale": "#8a5a00", "provisional": "#4a3b8f",
}  # fmt: skip


def feed_of(request: Request, title: str, path: str, slugs: Sequence[str]) -> Response:
    """Papers as an Atom feed; `path`: the page that shows the same."""
    view = request.app.state.edition.view
    shown = [view.papers[slug] for slug in slugs[:ENTRIES]]
    updated = max((paper.day for paper in shown if paper.day), default="1970-01-01")
    own = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    text = feed(
        "feed.xml", base=base(request), title=title, path=path, own=own, papers=shown, updated=updated, standings=view.standings
    )
    return Response(text, media_type="application/atom+xml")


def _view(request: Request) -> Any:
    return request.app.state.edition.view


@router.get("/feeds/latest.atom")
async def latest(request: Request) -> Response:
    return feed_of(request, "Broadsheet: latest papers", "/", _view(request).newest)


@router.get("/feeds/trending.atom")
async def trending(request: Request) -> Response:
    return feed_of(request, "Broadsheet: trending", "/trending", _view(request).trending)


@router.get("/feeds/day/{day}.atom")
async def by_day(request: Request, day: str) -> Response:
    wanted = intake.day(day).isoformat()
    return feed_of(request, f"Broadsheet: {day_text(wanted)}", f"/day/{wanted}", _view(request).days.get(wanted, ()))


@router.get("/feeds/week/{week}.atom")
async def by_week(request: Request, week: str) -> Response:
    return feed_of(request, f"Broadsheet: week {week}", f"/week/{week}", _view(request).between(*week_of(week)))


@router.get("/feeds/month/{month}.atom")
async def by_month(request: Request, month: str) -> Response:
    return feed_of(request, f"Broadsheet: {month}", f"/month/{month}", _view(request).between(*month_of(month)))


@router.get("/feeds/topics/{topic}.atom")
async def by_topic(request: Request, topic: str) -> Response:
    view = _view(request)
    if topic not in view.topics:
        raise NotFoundError(f"There is no topic {topic[:60]!r}.")
    return feed_of(request, f"Broadsheet: {topic}", f"/topics/{topic}", view.topics[topic])


@router.get("/feeds/authors/{name:path}.atom")
async def by_author(request: Request, name: str) -> Response:
    spelt, slugs = _view(request).author(name)
    return feed_of(request, f"Broadsheet: papers of {spelt}", link(f"/authors/{spelt}"), slugs)


@router.get("/feeds/search.atom")
async def by_search(
    request: Request,
    q: Annotated[str, Query(max_length=400)] = "",
    topic: str = "",
    verdict: str = "",
    basis: str = "",
) -> Response:
    """What a search finds, the newest first."""
    edition: Edition = request.app.state.edition
    found = await run_in_threadpool(edition.search, q, Filters(topic, verdict, basis), ENTRIES)
    newest = sorted(found.slugs, key=lambda slug: edition.view.papers[slug].day, reverse=True)
    words = q or topic or verdict or basis or "all papers"
    return feed_of(request, f"Broadsheet: {words}", link("/search", q=q, topic=topic, verdict=verdict, basis=basis), newest)


@router.get("/badges/{slug}.svg")
async def badge(request: Request, slug: str) -> Response:
    """How a paper's own claims stand, as a picture; never for a paper that is reconstructed from its abstract."""
    standing = _view(request).standings.get(slug)
    if standing is None:
        raise NotFoundError(f"No paper called {slug[:60]!r} runs here.")
    if standing.entry.facts["basis"] == "reconstructed":
        raise NotFoundError(f"There is no badge for {slug}: it is reconstructed from its abstract.")
    counts = {name: count for name, count in standing.counts.items() if name != "not run"}
    words = ", ".join(f"{count} {name}" for name, count in counts.items()) or "not run"
    worst = next((name for name in ("fails", "vacuous", "stale", "mixed", "provisional", "holds") if name in counts), "")
    text = templates.get_template("badge.svg").render(words=words, colour=COLOURS.get(worst, "#66625b"), scale=standing.scale)
    headers = {
        "cache-control": "max-age=300",
        "access-control-allow-origin": "*",
        "cross-origin-resource-policy": "cross-origin",
    }
    return Response(text, media_type="image/svg+xml", headers=headers)


@monitoring.get("/healthz")
async def health(request: Request) -> Response:
    """200 while the store answers, else 503; the reason, which names the database, is for the administrator."""
    edition, live = request.app.state.edition, request.app.state.live
    trouble = live.trouble if not live.trouble or is_administrator(request) else "The store cannot be reached."
    body = {
        "status": "trouble" if trouble else "ok", "trouble": trouble, "version": __version__,
        "papers": len(edition.view.papers), "by_meaning": edition.nearest is not None,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    return JSONResponse(body, 503 if trouble else 200, headers={"cache-control": "no-store"})


@router.get("/robots.txt")
async def robots() -> Response:
    return Response("User-agent: *\nDisallow: /api/\nDisallow: /search\n", media_type="text/plain")


@router.get("/sitemap.xml")
async def sitemap(request: Request) -> Response:
    """The latest papers' addresses, for search engines."""
    view, at = _view(request), base(request)
    rows = "".join(
        f"<url><loc>{at}/papers/{quote(slug)}</loc></url>" for slug in view.newest[:40_000]
    )  # fmt: skip
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{rows}</urlset>'
    )
    return Response(text, media_type="application/xml")
