"""Commands of a site with readers: digest, and `readers` for the administrator."""

from __future__ import annotations

import signal
import sys
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broadsheet.errors import BroadsheetError, InputError, MissingExtraError

if TYPE_CHECKING:
    from datetime import date

    from broadsheet.lab.store import Store
    from broadsheet.readers.digests import Composer
    from broadsheet.readers.mail import Sender
    from broadsheet.readers.sending import Letters, Summary

readers = typer.Typer(
    no_args_is_help=True, help="Readers of the site: their accounts, letters that came back, addresses that want none."
)


def digest(
    day: Annotated[
        str | None, typer.Option(metavar="DATE", help="The day of the digest, YYYY-MM-DD; today by default.")
    ] = None,
    dry_run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the letters as .eml files, store and send nothing.")
    ] = None,
    mail: Annotated[
        str, typer.Option(envvar="BROADSHEET_MAIL", help="The mail server, smtp://… or smtps://…, or a folder.")
    ] = "",
    mail_from: Annotated[str, typer.Option(envvar="BROADSHEET_MAIL_FROM", help="The address that letters come from.")] = "",
    url: Annotated[str, typer.Option(envvar="BROADSHEET_URL", help="The site's public address, for the links.")] = "",
    title: Annotated[str, typer.Option(envvar="BROADSHEET_TITLE", help="What the site calls itself.")] = "Broadsheet",
    meaning: Annotated[bool, typer.Option(help="Saved searches go by meaning, where the extra is installed.")] = True,
) -> None:
    """Send what is new to those who follow by mail: once a day or week, however often this is called. For a timer."""
    from datetime import UTC, datetime

    from broadsheet.cli.output import bar
    from broadsheet.lab.store import Store
    from broadsheet.page import intake
    from broadsheet.readers import keeping, keys
    from broadsheet.readers.digests import compose
    from broadsheet.readers.mail import Sender, post
    from broadsheet.readers.sending import Letters, Sending

    wanted = intake.day(day) if day else datetime.now(UTC).date()
    if not url.startswith(("http://", "https://")) or "@" not in mail_from:
        raise InputError("Letters need the site's public address and one that they come from: --url and --mail-from.")
    if not (mail or dry_run):
        raise InputError("Letters need a mail server: --mail, or --dry-run and a folder.")
    store, sender = Store(), Sender(title, mail_from, url.rstrip("/"))
    letters, composer = Letters(sender, keys.site_key(store)), cache(lambda: _composer(store, sender, meaning))
    if dry_run:
        print(f"Letters in {dry_run}: {_preview(store, composer(), letters, wanted, dry_run)}; nothing was sent.")
        return
    out, stop = post(mail), _asked_to_stop()
    keeping.tidy(store)
    with bar("Digests") as show:
        made = compose(store, composer, wanted, told=lambda share: show(share, ""))
    print(f"New letters: {made.letters}, of digests: {made.issues}; lists with nothing to tell: {made.empty}.", flush=True)
    with bar("Letters") as show:
        summary = Sending(store, out, letters).run(
            lambda done, all_: show(min(1.0, done / max(1, all_)), f"{done} of {all_}"), stop.is_set
        )  # fmt: skip
    _tell(summary)
    if summary.waiting:
        raise typer.Exit(1)


def _composer(store: Store, sender: Sender, with_meaning: bool) -> Composer:
    """A composer of the store's papers as they are now; saved searches go by meaning where the encoder is here."""
    from broadsheet.page import meaning
    from broadsheet.page.edition import Edition
    from broadsheet.readers.digests import Composer, followed_lists

    try:
        from broadsheet.web.mathematics import plain
    except ModuleNotFoundError:
        raise MissingExtraError("A digest", "readers") from None
    edition = Edition(store)
    if with_meaning and meaning.available() and any(followed.kind == "search" for followed, _ in followed_lists(store)):
        try:
            edition.use(meaning.Encoder.load(threads=1))
        except BroadsheetError as error:
            print(f"broadsheet: saved searches go by words alone: {error}", file=sys.stderr)
    edition.refresh()
    return Composer(edition, sender, plain)


def _preview(store: Store, composer: Composer, letters: Letters, day: date, folder: Path) -> int:
    """Writes the letters of a day as files; returns how many."""
    from broadsheet.readers.digests import previews
    from broadsheet.readers.mail import Folder
    from broadsheet.readers.subscriptions import addresses

    out, count = Folder(folder), 0
    for draft in previews(store, composer, day):
        for number, address in addresses(store, draft.followed, draft.rhythm) if draft.text else ():
            count += 1
            out.send(letters.preview(draft, count, number, address), letters.envelope(number))
    return count


def _asked_to_stop() -> threading.Event:
    """Set when a signal asks this command to end: it finishes the letter that it is at."""
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    return stop


def _tell(summary: Summary) -> None:
    parts = [f"{summary.sent} sent"]
    parts += [f"{summary.refused} refused for good"] * bool(summary.refused)
    parts += [f"{summary.ended} subscriptions ended"] * bool(summary.ended)
    parts += [f"{summary.waiting} wait"] * bool(summary.waiting)
    print(f"Letters: {', '.join(parts)}.")
    if summary.unsure:
        numbers = ", ".join(map(str, summary.unsure))
        print(f"Nobody knows whether these arrived, and they are not sent again: {numbers}.")
    if summary.waiting and (why := summary.trouble or summary.failure):
        print(f"broadsheet: {why}", file=sys.stderr)


@readers.command()
def returned(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="A message as it came back; - reads it from standard input.")],
) -> None:
    """Take in a letter that came back: a delivery report, a complaint, or an answer to the return address."""
    from broadsheet.files import read_bytes
    from broadsheet.lab.store import Store
    from broadsheet.readers.returned import LARGEST, take_in

    raw = sys.stdin.buffer.read(LARGEST + 1) if file == "-" else read_bytes(file, LARGEST)
    print(take_in(Store(), raw))


@readers.command()
def suppress(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="The address; kept is a digest of it alone.")],
) -> None:
    """End all that an address gets, and let nobody ask for letters to it any more."""
    from broadsheet.lab.store import Store
    from broadsheet.readers.accounts import plain_address
    from broadsheet.readers.subscriptions import suppress

    count = suppress(Store(), plain_address(address))
    print(f"{count} subscription{'' if count == 1 else 's'} ended; the address gets no more letters.")
