"""Commands of the site: serve, work, watch, db."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from broadsheet.cli.running import PROCESSES, Processes, known_costs
from broadsheet.errors import BroadsheetError, InputError, MissingExtraError, SourceError, StoreError

if TYPE_CHECKING:
    from broadsheet.lab.runner import Runner
    from broadsheet.lab.store import Store
    from broadsheet.web.settings import Settings

db = typer.Typer(no_args_is_help=True, help="The database: upgrade, backup, restore.")

AGAIN = 300.0
"""Seconds between two looks whether digests are due."""

Log = Annotated[Literal["text", "json"], typer.Option("--log", help="Log lines for people, or as JSON.")]


def serve(
    run: Annotated[bool, typer.Option("--run", help="Run the page: every paper's quick experiments, as they fit.")] = False,
    host: Annotated[str, typer.Option(help="Where to listen; others than this machine need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    url: Annotated[
        str,
        typer.Option(envvar="BROADSHEET_URL", help="The public address; the site answers to its name, and to this machine's."),
    ] = "",
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the administrator's token; or BROADSHEET_TOKEN holds it.")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="A saved page to import first.")] = None,
    as_of: Annotated[str | None, typer.Option(metavar="DATE", help="The day of the page, YYYY-MM-DD.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Web processes.")] = 1,
    processes: Processes = PROCESSES,
    runner: Annotated[bool, typer.Option(help="Run jobs here; else 'broadsheet work' does elsewhere.")] = True,
    meaning: Annotated[bool, typer.Option(help="Search by meaning, where the extra is installed.")] = True,
    readers: Annotated[
        bool, typer.Option("--readers", envvar="BROADSHEET_READERS", help="Let people have accounts, votes and comments.")
    ] = False,
    mail: Annotated[
        str, typer.Option(envvar="BROADSHEET_MAIL", help="The mail server, smtp://… or smtps://…, or a folder for .eml files.")
    ] = "",
    mail_from: Annotated[str, typer.Option(envvar="BROADSHEET_MAIL_FROM", help="The address that letters come from.")] = "",
    title: Annotated[
        str, typer.Option(envvar="BROADSHEET_TITLE", help="What the site calls itself in letters.")
    ] = "Broadsheet",
    providers: Annotated[
        Path | None, typer.Option(envvar="BROADSHEET_PROVIDERS", help="A TOML file of OpenID providers to sign in with.")
    ] = None,
    digest_hour: Annotated[
        int | None,
        typer.Option(envvar="BROADSHEET_DIGEST_HOUR", min=0, max=23, help="Send digests each day from this hour on, UTC."),
    ] = None,
    log: Log = "text",
) -> None:
    """Start the site. With --run it fills while the page's experiments run."""
    try:
        import uvicorn

        from broadsheet.web import logs
        from broadsheet.web.settings import Settings
    except ModuleNotFoundError:
        raise MissingExtraError("The site", "web") from None
    from broadsheet.lab.jobs import Jobs, tidy
    from broadsheet.lab.runner import queue_page
    from broadsheet.lab.store import Store

    settings = Settings(
        host, port, url, _token(token_file), meaning, log, readers, mail, mail_from, title, str(providers or "")
    )  # fmt: skip
    if readers:
        _check_readers(settings)
    if digest_hour is not None and not (readers and mail and url):
        raise InputError("Digests need --readers, --mail, --mail-from and the public address with --url.")
    _check_free(host, port)
    logs.configure(log)
    store = Store()
    tidy(store)
    if page is not None:
        from broadsheet.cli.pages import import_

        import_([str(page)], as_of, embed=False)
    if run:
        queued, lacking = queue_page(Jobs(store), known_costs())
        print(f"{len(queued)} experiments are queued: what was run before is found, the rest fills the page as it goes.")
        for slug, extra in lacking.items():
            print(f"{MissingExtraError(slug, extra)} It is left out.")
    settings.to_environment()
    keeper = _Keeper(["work", "--processes", str(processes), "--log", log, *(["--no-meaning"] * (not meaning))])
    if runner:
        keeper.start()
    digests = _Digests(digest_hour)
    if digest_hour is not None:
        digests.start(_digest_command(settings))
    print(f"Broadsheet is on {url or f'http://{host}:{port}'} (stop it with Ctrl-C).", flush=True)
    try:
        uvicorn.run(
            "broadsheet.web.app:worker", factory=True, host=host, port=port, workers=workers, log_config=None,
            http="broadsheet.web.patience:Patient", access_log=False, server_header=False,
            proxy_headers=bool(url), timeout_graceful_shutdown=5, timeout_keep_alive=75,
        )  # fmt: skip
    finally:
        digests.stop()
        keeper.stop()


class _Keeper:
    """Keeps the runner's process alive; it ends when this process does, however that ends."""

    def __init__(self, arguments: list[str]) -> None:
        self._command = [sys.executable, "-m", "broadsheet.cli", *arguments, "--with-parent"]
        self._process: subprocess.Popen | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self) -> None:
        while not self._stopped.is_set():
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True)
            code = self._process.wait()
            self._stopped.wait(30.0 if code == 2 else 2.0)  # 2: it said why, another runner works for this home

    def stop(self) -> None:
        self._stopped.set()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()


def _digest_command(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """`broadsheet digest` with the settings of a site; the mail server's password stays out of the list of processes."""
    words = [] if settings.meaning else ["--no-meaning"]
    given = {"MAIL": settings.mail, "MAIL_FROM": settings.sender, "URL": settings.url, "TITLE": settings.title}
    named = {f"BROADSHEET_{name}": value for name, value in given.items()}
    return [sys.executable, "-m", "broadsheet.cli", "digest", *words], {**os.environ, **named}


class _Digests:
    """Sends the day's digests in a process of its own, from an hour on, and again while letters wait."""

    def __init__(self, hour: int | None) -> None:
        self._hour = hour
        self._done: date | None = None
        self._process: subprocess.Popen | None = None
        self._stopped = threading.Event()

    def start(self, command: tuple[list[str], dict[str, str]]) -> None:
        threading.Thread(target=self._keep, args=command, daemon=True).start()

    def due(self, now: datetime) -> bool:
        """Whether the digests of this day are still to be sent."""
        return self._hour is not None and now.hour >= self._hour and self._done != now.date()

    def _keep(self, command: list[str], environment: dict[str, str]) -> None:
        while not self._stopped.is_set():
            now = datetime.now(UTC)
            if self.due(now):
                self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
                if self._process.wait() == 0:
                    self._done = now.date()
            self._stopped.wait(AGAIN)

    def stop(self) -> None:
        self._stopped.set()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()  # it finishes the letter that it is at
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)


def work(
    processes: Processes = PROCESSES,
    meaning: Annotated[bool, typer.Option(help="Embed new papers' texts, where the extra is installed.")] = True,
    log: Log = "text",
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
) -> None:
    """Run the jobs that the site queues, and embed new papers' texts. 'serve' starts one itself."""
    import importlib.util

    from broadsheet.lab.runner import Runner
    from broadsheet.lab.store import Store

    if importlib.util.find_spec("fastapi"):
        from broadsheet.web import logs

        logs.configure(log)
    store = _store_when_back() if with_parent else Store()
    made = Runner(store, processes)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: made.stop.set())
    if with_parent:
        threading.Thread(target=_stop_with_parent, args=(made,), daemon=True).start()
    if meaning:
        threading.Thread(target=_embed, args=(store, made), daemon=True).start()
    made.run()


def _store_when_back() -> Store:
    """The store, waited for during an outage as long as the site lives: its keeper would come back much later."""
    from broadsheet.lab.store import Store

    while True:
        try:
            return Store()
        except StoreError as error:
            logging.getLogger(__name__).warning("waiting for the store", extra={"error": str(error)})
        if select.select([0], [], [], 1.0)[0]:  # nothing is ever written: the parent has ended
            raise SystemExit(3)


def _stop_with_parent(runner: Runner) -> None:
    while os.read(0, 1024):
        pass
    runner.stop.set()
    time.sleep(10)
    os._exit(3)


def _embed(store: Store, runner: Runner) -> None:
    """Embeds what imports bring, as long as the runner works."""
    from broadsheet.page import meaning
    from broadsheet.page.catalogue import Catalogue

    if not meaning.available():
        return
    encoder, seen = None, -1
    while not runner.stop.wait(1.0):
        try:
            now = store.revisions()["papers"]
            if now == seen:
                continue
            texts = meaning.missing(store, Catalogue(store).papers().values())
            if texts:
                encoder = encoder or meaning.Encoder.load(threads=1)
                meaning.embed(store, encoder, texts, stopped=runner.stop.is_set)
            seen = now
        except InputError:
            return
        except BroadsheetError:
            runner.stop.wait(5.0)


def _token(file: Path | None) -> str:
    if file is None:
        return os.environ.get("BROADSHEET_TOKEN", "").strip()
    from broadsheet.files import read_text

    return read_text(file, 4096).strip()


def _check_readers(settings: Settings) -> None:
    """Says now what is wrong with the providers' file, or that the extra is not here."""
    try:
        from broadsheet.readers import passkeys, providers
    except ModuleNotFoundError:
        raise MissingExtraError("A site with readers", "readers") from None
    if settings.url and passkeys.party(settings.url, settings.title) is None:
        print(f"There are no passkeys under {settings.url}: they want TLS, and a name.")
    providers.configured(settings.providers)


def _check_free(host: str, port: int) -> None:
    """Says in one sentence what uvicorn would say in a log."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0], found[1]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[4])
    except OSError as error:
        raise InputError(
            f"The site cannot listen on {host}:{port} ({error.strerror or error}); choose another --port."
        ) from None


def watch(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="[SOURCE…]", help="daily (the default), hub:QUERY or arxiv:QUERY.")
    ] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Hours between looks.")] = 6.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, for a timer of the system.")] = False,
    embed: Annotated[bool | None, typer.Option(help="Embed new texts; by default where the extra is installed.")] = None,
) -> None:
    """Bring in the day's page again and again. A source that gives no answer is tried again the next time."""
    from broadsheet.cli.pages import import_
    from broadsheet.page import intake

    wanted = sources or ["daily"]
    for source in wanted:
        if source.partition(":")[0] not in ("daily", "hub", "arxiv"):
            raise InputError(f"{source!r} is no live source; daily, hub:QUERY and arxiv:QUERY are.")
        if source.startswith("daily:"):
            intake.day(source.removeprefix("daily:"))
    while True:
        failure: SourceError | None = None
        for source in wanted:
            try:
                import_([source], None, embed=embed)
            except SourceError as error:
                failure = error
                print(f"broadsheet: {error}", file=sys.stderr, flush=True)
        if once:
            if failure is not None:
                raise typer.Exit(2)
            return
        time.sleep(3600 * every)


@db.command()
def upgrade() -> None:
    """Bring the database to the schema of this version. SQLite does it by itself."""
    from broadsheet.lab.store import SCHEMA, Store

    store = Store(migrate=False)
    before = store.schema()
    store.upgrade()
    print(f"The database has schema {SCHEMA}" + (f", it had {before}." if before != SCHEMA else "; nothing was to be done."))


@db.command()
def backup(file: Annotated[Path, typer.Argument(metavar="FILE.zip", help="Where the archive goes.")]) -> None:
    """Write everything that is stored into one archive, while the site goes on."""
    from broadsheet.lab.backup import backup as write
    from broadsheet.lab.store import Store

    counts = write(Store(), file)
    print(f"{file} holds {_told(counts)}.")


@db.command()
def restore(file: Annotated[Path, typer.Argument(metavar="FILE.zip", help="An archive that 'db backup' wrote.")]) -> None:
    """Fill an empty store from an archive; SQLite and PostgreSQL read each other's."""
    from broadsheet.lab.backup import restore as read
    from broadsheet.lab.store import Store

    counts = read(Store(), file)
    print(f"Restored {_told(counts)}.")


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count) or "nothing"
