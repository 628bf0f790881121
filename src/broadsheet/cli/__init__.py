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
    """Whoever ends the command, by SIGTERM or by closing the terminal, interrupts it as Ctrl-C does; the signals that came."""
    came: list[int] = []

    def interrupt(number: int, _: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    wanted = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]
    before = {number: signal.getsignal(number) for number in wanted if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Runs the command line. A user's mistake is one sentence on standard error and exit code 2; a signal: 128 and more."""
    from broadsheet.cli.app import app

    came: list[int] = []
    try:
        with _interruptible() as came:
            code = app(standalone_mode=False)
        if code == 128 + signal.SIGINT:  # what Typer makes of an interruption
            raise KeyboardInterrupt
    except BroadsheetError as error:
        print(f"broadsheet: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("broadsheet: stopped; what was finished is kept.", file=sys.stderr)
        code = 128 + (came[0] if came else signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    except OSError as error:
        print(f"broadsheet: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        code = 2
    except Exception as error:  # click's usage errors carry their own exit code
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()
        code = error.exit_code
    sys.exit(code or 0)
