"""The command line: `broadsheet`. Nothing here imports JAX or torch; heavy modules are imported when a command runs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from broadsheet.errors import BroadsheetError


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Whoever ends the command, by Ctrl-C, by SIGTERM or by closing the terminal, interrupts it; the signals that came."""
    came: list[int] = []

    def interrupt(number: int, _: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    wanted = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]
    before = {number: signal.getsignal(number) for number in wanted if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _told(error: Exception) -> int:
    """Says what went wrong, in a sentence where it is a user's mistake; the exit code."""
    if isinstance(error, BroadsheetError):
        print(f"broadsheet: {error}", file=sys.stderr)
        return 2
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    if isinstance(error, OSError):
        print(f"broadsheet: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 2
    if not hasattr(error, "exit_code") or not hasattr(error, "show"):
        raise error
    error.show()  # click's usage errors carry their own exit code
    return error.exit_code


def main() -> None:
    """Runs the command line. A user's mistake is one sentence on standard error and exit code 2; a signal: 128 and more."""
    from broadsheet.cli.app import app

    came: list[int] = []
    try:
        with _interruptible() as came:
            code = app(standalone_mode=False)
        if code == 128 + signal.SIGINT:  # what Typer makes of an interruption
            raise KeyboardInterrupt
    except (Exception, KeyboardInterrupt) as error:
        if came or isinstance(error, KeyboardInterrupt):  # in its middle a library may make another error of it
            print("broadsheet: stopped; what was finished is kept.", file=sys.stderr)
            code = 128 + (came[0] if came else signal.SIGINT)
        else:
            code = _told(error)
    sys.exit(code or 0)
