"""Commands as a shell runs them, in this process: what they print, and their exit code."""

import contextlib
import functools
import io
import json
import os
import subprocess
import sys
from unittest.mock import patch

import typer.main

from broadsheet.cli import main

BUILT = functools.cache(typer.main.get_command)
"""The tree of all commands: a tenth of a second of work, and the same each time."""


def call(*words, code=0, **env):
    """Runs `broadsheet` with these words; an exception that it does not turn into a sentence is the test's."""
    out, err = io.StringIO(), io.StringIO()
    arguments = ["broadsheet", *map(str, words)]
    with (
        patch.object(sys, "argv", arguments),
        patch.object(typer.main, "get_command", BUILT),
        patch.dict(os.environ, env),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            found = end.code or 0
    done = subprocess.CompletedProcess(arguments, found, out.getvalue(), err.getvalue())
    assert done.returncode == code, done.stdout + done.stderr
    return done


def read(*words, **env):
    """What it prints with --json."""
    return json.loads(call(*words, "--json", **env).stdout)
