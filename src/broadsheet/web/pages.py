"""The pages that people read."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import date
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from broadsheet.errors import InputError, NotFoundError
from broadsheet.lab import ledger
from broadsheet.lab.paper import FIRST_SEED
from broadsheet.lab.registry import missing_extra
from broadsheet.page import intake
from broadsheet.page.citation import bibtex, citation_tags
from broadsheet.page.edition import NO_SYSTEM, Edition, Filters, View, metric_of, month_of, week_of
from broadsheet.page.reading import in_trouble
from broadsheet.page.report import totals
from broadsheet.readers.marks import NOBODY, mine
from broadsheet.web.live import Active
from broadsheet.web.mathematics import plain
from broadsheet.web.render import base, day_text, link, templates
from broadsheet.web.security import is_administrator

router = APIRouter(include_in_schema=False)

PER_PAGE = 20
MOST_OF_A_DAY, UNFOLDED = 60, 8
"""Papers of a day on the front page, and how many of them are in sight at once; the others are behind a summary."""


def context(request: Request) -> dict[str, Any]:
    """What every page is given."""
    edition: Edition = request.app.state.edition
    return {
        "view": edition.view,
        "administrator": is_administrator(request),
        "readers": request.app.state.settings.readers,
        "letters": request.app.state.settings.readers and bool(request.app.state.settings.mail),
        "reader": getattr(request.state, "reader", None),
        "mine": NOBODY,
        "token_wanted": bool(request.app.state.settings.token),
        "trouble": request.app.state.live.trouble,
        "bases": ledger.BASES,
        "base": base(request),
        "active": (),
        "query": "",
    }


def _view(request: Request) -> View:
    return request.app.state.edition.view


async def page(
    request: Request,
    template: str,
    make: Callable[[], Mapping[str, Any]],
    slow: Callable[[], Mapping[str, Any]] = dict,
    active: tuple[Active, ...] = (),
) -> Response:
    """A page that changes only with the view, the day and the jobs on it: rendered once, and not sent again to who has it.

    `make` gives what the template needs; what `slow` gives (from the store, by search) is made in a thread. `active`: the jobs
    that are shown.
    """
    state = request.app.state
    key: Hashable = (base(request), request.url.path, request.url.query, is_administrator(request), active)
    number = (state.edition.view.number, state.live.trouble, date.today())
    reader = getattr(request.state, "reader", None)  # with a reader's marks on it, a page is for nobody else, and not kept
    found = None if reader is not None else state.kept.find(number, key)
    if found is None:
        more = dict(await run_in_threadpool(slow)) if slow is not dict else {}
        if reader is not None and "read" in reader.scopes:  # a key without it sees no marks
            more["mine"] = await run_in_threadpool(mine, state.edition.store, reader.id)
        text = templates.get_template(template).render(
            request=request, **{**context(request), **make(), **more, "active": active}
        )
        if reader is not None:
            return HTMLResponse(text, headers={"cache-control": "private, no-store", "vary": "cookie, authorization"})
        found = state.kept.keep(number, key, text)
    tag, body = found
    headers = {"etag": tag, "cache-control": "no-cache", "vary": "cookie, authorization"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(body, headers=headers)


def _portion(slugs: Sequence[str], number: int) -> dict[str, Any]:
    """One page of a long list."""
    last = max(1, math.ceil(len(slugs) / PER_PAGE))
    if number > last:
        raise NotFoundError(f"There is no page {number}; the last one is {last}.")
    start = (number - 1) * PER_PAGE
    return {"slugs": slugs[start : start + PER_PAGE], "count": len(slugs), "number": number, "last": last}


PageNumber = Annotated[int, Query(ge=1, le=100_000)]


@router.get("/")
async def front(request: Request) -> Response:
    """The latest day; where it is short, the days before it as well."""
    view = _view(request)
    groups: list[tuple[str, list[str]]] = []
    shown: list[str] = []
    for day in sorted(view.days, reverse=True):
        if len(shown) >= 12 or len(groups) >= 10:
            break
        groups.append((day, list(view.days[day][:MOST_OF_A_DAY])))
        shown += groups[-1][1]

    def make() -> dict[str, Any]:
        running = list(view.standings.values())
        return {
            "groups": groups,
            "unfolded": UNFOLDED,
            "before": view.neighbours(groups[-1][0])[0] if groups else None,
            "totals": totals(running),
            "judged": sorted(running, key=lambda item: item.made, reverse=True)[:6],
            "feed": "/feeds/latest.atom",
        }

    jobs = request.app.state.live.active[:5]
    return await page(request, "front.html", make, lambda: {"near": request.app.state.edition.near(shown)}, jobs)


@router.get("/day/{day}")
async def by_day(request: Request, day: str, number: PageNumber = 1) -> Response:
    wanted = intake.day(day).isoformat()
    view = _view(request)

    def make() -> dict[str, Any]:
        before, after = view.neighbours(wanted)
        return {
            **_portion(view.days.get(wanted, ()), number),
            "title": f"Papers of {day_text(wanted)}",
            "path": f"/day/{wanted}",
            "before": before and (f"/day/{before}", day_text(before)),
            "after": after and (f"/day/{after}", day_text(after)),
            "feed": f"/feeds/day/{wanted}.atom",
            "empty": "No page listed papers on this day.",
            "period": "day",
        }

    return await page(request, "listing.html", make)


async def _period(request: Request, name: str, kind: str, bounds: tuple[date, date], number: int) -> Response:
    view = _view(request)
    of: Callable[[str], str] = templates.globals[f"{kind}_name"]  # type: ignore[assignment]

    def make() -> dict[str, Any]:
        before, _ = view.neighbours(bounds[0].isoformat())
        _, after = view.neighbours(bounds[1].isoformat())
        words = f"{day_text(bounds[0])} to {day_text(bounds[1])}" if kind == "week" else bounds[0].strftime("%B %Y")
        return {
            **_portion(view.between(*bounds), number),
            "title": f"Papers of {'the week ' if kind == 'week' else ''}{words}",
            "path": f"/{kind}/{name}",
            "before": before and (f"/{kind}/{of(before)}", of(before)),
            "after": after and (f"/{kind}/{of(after)}", of(after)),
            "feed": f"/feeds/{kind}/{name}.atom",
            "empty": f"No page listed papers in this {kind}.",
            "period": kind,
        }

    return await page(request, "listing.html", make)


@router.get("/week/{week}")
async def by_week(request: Request, week: str, number: PageNumber = 1) -> Response:
    return await _period(request, week, "week", week_of(week), number)


@router.get("/month/{month}")
async def by_month(request: Request, month: str, number: PageNumber = 1) -> Response:
    return await _period(request, month, "month", month_of(month), number)


@router.get("/trending")
async def trending(request: Request, number: PageNumber = 1) -> Response:
    def make() -> dict[str, Any]:
        return {
            **_portion(_view(request).trending, number),
            "title": "Trending",
            "note": "By votes and comments where the papers were listed; half the weight is gone after a week.",
            "path": "/trending", "before": None, "after": None, "feed": "/feeds/trending.atom",
            "empty": "Nothing yet: import a page first.", "period": "trending", "by_mail": "/subscribe",
        }  # fmt: skip

    return await page(request, "listing.html", make)


@router.get("/topics")
async def topics(request: Request) -> Response:
    return await page(request, "topics.html", dict)


@router.get("/topics/{topic}")
async def topic(request: Request, topic: str, number: PageNumber = 1) -> Response:
    view = _view(request)
    if topic not in view.topics:
        raise NotFoundError(f"There is no topic {topic[:60]!r}.")

    def make() -> dict[str, Any]:
        return {
            **_portion(view.topics[topic], number),
            "title": topic[0].upper() + topic[1:], "path": f"/topics/{topic}", "before": None, "after": None,
            "feed": f"/feeds/topics/{quote(topic)}.atom", "empty": "", "period": "topics",
            "by_mail": link("/subscribe", kind="topic", value=topic),
        }  # fmt: skip

    return await page(request, "listing.html", make)


@router.get("/authors/{name:path}")
async def author(request: Request, name: str, number: PageNumber = 1) -> Response:
    """The papers of one author."""
    spelt, slugs = _view(request).author(name)
    if spelt != name:
        return RedirectResponse(link(f"/authors/{spelt}"), 301)

    def make() -> dict[str, Any]:
        return {
            **_portion(slugs, number),
            "title": spelt, "path": f"/authors/{spelt}", "before": None, "after": None,
            "feed": link(f"/feeds/authors/{spelt}.atom"), "empty": "", "period": "authors",
            "by_mail": link("/subscribe", kind="author", value=spelt),
            "note": "Papers that name this author; whoever has the same name is the same author here.",
        }  # fmt: skip

    return await page(request, "listing.html", make)


@router.get("/search")
async def search(
    request: Request,
    q: Annotated[str, Query(max_length=400)] = "",
    topic: str = "",
    verdict: str = "",
    basis: str = "",
    code: bool = False,
    since: str = "",
    until: str = "",
    number: PageNumber = 1,
) -> Response:
    """Search results with filters; without a query, all that the filters leave."""
    edition: Edition = request.app.state.edition
    view, trouble, found = edition.view, "", None
    try:
        filters = Filters(topic, verdict, basis, code, since, until)
        found = await run_in_threadpool(edition.search, q, filters)
    except InputError as error:
        filters, trouble = Filters(), str(error)

    def make() -> dict[str, Any]:
        slugs = found.slugs if found else []
        shown = _portion(slugs, number)
        return {
            **shown,
            "query": q, "filters": filters, "found": found, "mistake": trouble,
            "snippets": {s: edition.words.snippet(q, view.papers[s], found.read_as) for s in shown["slugs"]} if found else {},
            "verdicts": [name for name in ledger.SHOWN if any(name in s.counts for s in view.standings.values())] + [NO_SYSTEM],
            "feed": link("/feeds/search.atom", q=q, topic=topic, verdict=verdict, basis=basis),
            "by_mail": link("/subscribe", kind="search", value=request.url.query) if not trouble else "",
            "by_words_alone": edition.encoder is None,
        }  # fmt: skip

    reader = getattr(request.state, "reader", None)
    marked = {}
    if reader is not None and "read" in reader.scopes:
        marked["mine"] = await run_in_threadpool(mine, edition.store, reader.id)
    body = templates.get_template("search.html").render(request=request, **{**context(request), **make(), **marked})
    return HTMLResponse(body, 422 if trouble else 200)


@router.get("/papers/{name:path}")
async def paper(request: Request, name: str) -> Response:
    """Everything about one paper."""
    edition: Edition = request.app.state.edition
    view = edition.view
    found = view.paper(name)
    if found.slug != name:
        return RedirectResponse(f"/papers/{found.slug}", 301)
    standing = view.standings.get(found.slug)

    def slow() -> dict[str, Any]:
        stored = edition.store.find(slug=found.slug) if standing else []
        runs = [run for run in stored if "command" not in run.config][-40:][::-1]  # a repository may bear the paper's name
        return {"similar": edition.similar(found.slug), "runs": runs, **_said_of(request, found.slug)}

    def make() -> dict[str, Any]:
        return {
            "paper": found, "standing": standing, "bibtex": bibtex(found), "first_seed": FIRST_SEED,
            "tags": citation_tags(found, plain(found.title)),
            "extra": missing_extra(standing.entry) if standing else None,
        }  # fmt: skip

    return await page(request, "paper.html", make, slow, request.app.state.live.active_of(found.slug) if standing else ())


def _said_of(request: Request, slug: str) -> Mapping[str, Any]:
    """What readers say of a paper, on a site that has them."""
    if not request.app.state.settings.readers:
        return {}
    from broadsheet.web.discussion import of_paper  # needs the extra `readers`

    return of_paper(request, slug)


@router.get("/figures/{slug}/{experiment}/{name}.svg")
async def figure(request: Request, slug: str, experiment: str, name: str) -> Response:
    """A figure as a picture that can run nothing."""
    standing = _view(request).standings.get(slug)
    drawn = next((d for d in standing.figures.get(experiment, ()) if d.name == name), None) if standing else None
    if drawn is None or not drawn.file.is_file():
        raise NotFoundError(f"There is no figure {name[:60]!r}.")
    headers = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'", "cache-control": "no-cache"}
    return FileResponse(drawn.file, media_type="image/svg+xml", headers=headers)


@router.get("/compare")
async def compare(request: Request, paper: Annotated[list[str], Query(max_length=4)] = []) -> Response:  # noqa: B006
    """Systems that do the same, side by side, and any papers beside each other."""
    view = _view(request)
    chosen = list(dict.fromkeys(view.paper(name).slug for name in paper if name))

    def make() -> dict[str, Any]:
        tasks = {
            task: [
                (slug, experiment, metric, metric_of(view.standings[slug], experiment, metric))
                for slug, experiment, metric in places
            ]
            for task, places in view.tasks().items()
        }
        return {"tasks": tasks, "chosen": chosen}

    return await page(request, "compare.html", make)


@router.get("/verdicts")
async def verdicts(request: Request) -> Response:
    """How verdicts are made, and all that do not hold."""
    view = _view(request)

    def make() -> dict[str, Any]:
        states = [(slug, state) for slug, standing in view.standings.items() for state in standing.claims]
        tried = [(slug, state) for slug, state in states if state.claim.kind == "paper" and state.claim.judged_at("quick")]
        grown = [(slug, state) for slug, state in tried if state.growth]
        return {
            "totals": totals(list(view.standings.values())),
            "first_seed": FIRST_SEED,
            "tried": tried,
            "waiting": [(slug, state) for slug, state in tried if state.claim.waits_for_null],
            "growing": [state for _, state in tried if state.claim.grows],
            "grown": grown,
            "fading": [(slug, state) for slug, state in grown if any(one.faded for one in state.growth)],
            "troubles": [(slug, state) for slug, state in states if in_trouble(state)],
            "stale": [(slug, state) for slug, state in states if state.verdict == "stale" and not in_trouble(state)],
        }

    return await page(request, "verdicts.html", make)


@router.get("/about/api")
async def about_api(request: Request) -> Response:
    return await page(request, "api.html", lambda: {"paths": request.app.openapi()["paths"]})
