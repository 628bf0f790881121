"""The command line: `broadsheet`. Nothing here imports JAX or torch; heavy modules are imported when a command runs."""

from __future__ import annotations

import os
import sys

from broadsheet.errors import BroadsheetError


def main() -> None:
    """Runs the command line. A user's mistake is one sentence on standard error and exit code 2."""
    from broadsheet.cli.app import app

    try:
        code = app(standalone_mode=False)
    except BroadsheetError as error:
        print(f"broadsheet: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("broadsheet: stopped; finished runs are kept.", file=sys.stderr)
        code = 130
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
