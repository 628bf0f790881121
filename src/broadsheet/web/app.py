"""The site as an ASGI application: `create()` reads its settings from the environment."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable
from multiprocessing.process import BaseProcess
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broadsheet import __version__
from broadsheet.errors import BroadsheetError, NotFoundError, StoreError
from broadsheet.lab.store import Store
from broadsheet.page import meaning
from broadsheet.page.edition import Edition
from broadsheet.readers.rates import TooOftenError
from broadsheet.web import administration, api, feeds, logs, pages, people
from broadsheet.web.live import Live
from broadsheet.web.render import templates
from broadsheet.web.security import HEADERS, Guard, Tries, masked
from broadsheet.web.settings import Settings

logger = logging.getLogger("broadsheet.site")
access = logging.getLogger("broadsheet.access")

KEPT_PAGES = 2_000


class Kept:
    """Rendered pages of the present view: (address, who asks, …) -> (tag, body). A new view empties it."""

    def __init__(self) -> None:
        self._number: object = None
        self._pages: OrderedDict[Hashable, tuple[str, bytes]] = OrderedDict()

    def find(self, number: object, key: Hashable) -> tuple[str, bytes] | None:
        """A page as it was rendered of this view."""
        if number != self._number:
            self._pages.clear()
            self._number = number
        return self._pages.get(key)

    def keep(self, number: object, key: Hashable, text: str) -> tuple[str, bytes]:
        """Keeps a page, if its view is still the present one; gives its tag and its bytes."""
        body = text.encode()
        made = f'W/"{zlib.crc32(body):08x}-{len(body)}"', body
        if number == self._number:
            self._pages[key] = made
            if len(self._pages) > KEPT_PAGES:
                self._pages.popitem(last=False)
        return made


def create(settings: Settings | None = None, store: Store | None = None) -> FastAPI:
    """The application of a store, by default of the home folder's."""
    settings = settings or Settings.from_environment()
    edition = Edition(store or Store(), settings.readers)
    live = Live(edition)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await live.look()
        tasks = [asyncio.create_task(live.run())]
        if settings.readers:
            tasks.append(asyncio.create_task(_tidy(edition.store)))
        if settings.meaning and meaning.available():
            threading.Thread(target=_load_encoder, args=(edition,), daemon=True).start()
        yield
        for task in tasks:
            task.cancel()

    app = FastAPI(
        title="Broadsheet",
        version=__version__,
        description="Papers, their claims with controls and verdicts, and runs of their experiments.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.settings, app.state.edition, app.state.live, app.state.kept = settings, edition, live, Kept()
    app.state.tries, app.state.letters = Tries(), asyncio.Semaphore(people.LETTERS_AT_ONCE)
    app.add_exception_handler(BroadsheetError, _mistake)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(people.SignInWanted, _sign_in)
    app.add_exception_handler(TooOftenError, _too_often)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _crash)
    app.mount(
        "/static",
        StaticFiles(directory=Path(__file__).parent / "static", packages=[("broadsheet.page", "static")]),
        name="static",
    )
    for part in (api.router, feeds.router, *_of_readers(settings), pages.router, administration.router):
        app.include_router(part, dependencies=[Depends(_page_is_read), Depends(people.know)])
    app.include_router(feeds.monitoring)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Access)
    return app


def _of_readers(settings: Settings) -> tuple[APIRouter, ...]:
    """The pages of a site that has readers."""
    if not settings.readers:
        return ()
    from broadsheet.web import accounts, collecting, discussion, leaving, letters, passkeys, providers

    return (
        accounts.router,
        accounts.api,
        leaving.router,
        passkeys.router,
        providers.router,
        collecting.router,
        collecting.api,
        discussion.router,
        discussion.api,
        letters.router,
        letters.api,
    )


def worker() -> FastAPI:
    """The application of a web process that `broadsheet serve` starts."""
    from threadpoolctl import threadpool_limits

    settings = Settings.from_environment()
    logs.configure(settings.log, requests=settings.log == "json")
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    threadpool_limits(1, "blas")  # many small products at once: threads of their own would fight
    # 'serve' has brought the store up to date. To ask it here as well would fail during an outage, and a worker that
    # fails to start ends the whole site.
    return create(settings, Store(migrate=False))


def _end_after(parent: BaseProcess) -> None:
    """Ends this web process when the one that started it was killed: else it would keep the port."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
    os._exit(3)


async def _page_is_read(request: Request) -> None:
    """Nothing is said about papers before the store was read once."""
    if not request.app.state.edition.view.number:
        raise StoreError(request.app.state.live.trouble)


def _load_encoder(edition: Edition) -> None:
    try:
        encoder = meaning.Encoder.load(threads=1)
    except BroadsheetError as error:
        logger.warning("search goes by words alone", extra={"error": str(error)})
        return
    edition.use(encoder)
    logger.info("search by meaning is ready")


async def _tidy(store: Store) -> None:
    """Drops now and then what is kept of readers no longer."""
    from broadsheet.readers import keeping

    while True:
        try:
            await run_in_threadpool(keeping.tidy, store)
        except StoreError as error:
            logger.warning("nothing was tidied", extra={"error": str(error)})
        await asyncio.sleep(keeping.OFTEN.total_seconds())


class Access:
    """ASGI middleware: one log line a request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not access.isEnabledFor(logging.INFO):
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            access.info(
                "request",
                extra={
                    "method": scope["method"], "path": masked(scope["path"]), "status": status,
                    "ms": round(1000 * (time.perf_counter() - began), 1),
                    "client": scope["client"][0] if scope.get("client") else "",
                },
            )  # fmt: skip


def _answer(request: Request, status: int, message: str) -> Response:
    """A mistake in one sentence: as JSON under /api, as a page elsewhere."""
    if request.url.path.startswith("/api") or "text/html" not in request.headers.get("accept", "text/html"):
        return JSONResponse({"detail": message}, status)
    body = templates.get_template("error.html").render(
        request=request, status=status, message=message, **pages.context(request)
    )
    return HTMLResponse(body, status)


async def _mistake(request: Request, error: Exception) -> Response:
    if isinstance(error, StoreError):
        logger.error("store failed", extra={"error": str(error)})
        return _answer(request, 503, "The store cannot be reached just now; try again in a moment.")
    return _answer(request, 404 if isinstance(error, NotFoundError) else 422, str(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = "There is no such page." if error.status_code == 404 and error.detail == "Not Found" else str(error.detail)
    answer = _answer(request, error.status_code, message)
    answer.headers.update(error.headers or {})
    return answer


async def _sign_in(request: Request, error: Exception) -> Response:
    return RedirectResponse(people.sign_in_address(request), 303)


async def _too_often(request: Request, error: Exception) -> Response:
    assert isinstance(error, TooOftenError)
    answer = _answer(request, 429, str(error))
    answer.headers["retry-after"] = str(error.wait)
    return answer


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    return _answer(request, 422, f"{place or 'The request'}: {first['msg']}.")


async def _crash(request: Request, error: Exception) -> Response:
    logger.error("request failed", extra={"path": masked(request.url.path)}, exc_info=error)
    answer = _answer(request, 500, "Something went wrong here; it was written to the log.")
    answer.headers.update(HEADERS)  # it is made outside of what sets them
    return answer
