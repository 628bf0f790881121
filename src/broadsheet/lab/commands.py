"""Commands of other repositories, run by a guard that leaves nothing of them behind.

A command may start other processes, which may outlive it, keep its output open, or leave its group and session. So a small
process stands between: it starts the command in a session of its own, is told by the system of every orphan below it (on
Linux, where a process can adopt them), and ends all of them when the command has ended, when its time is up, and when whoever
asked is gone, however that happened. Elsewhere than on Linux it ends the command's process group: what has left that stays.

What a command prints is nobody's concern: of its standard error the end is kept, as bytes, for the sentence that tells why it
failed; the rest is thrown away as it comes, so that its amount costs no memory and no disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from broadsheet.errors import JobError

KEPT = 64 * 1024
"""Bytes of standard error that are kept."""

PIPE = 1024 * 1024
"""Bytes that a pipe holds at the most, as Linux comes."""

PATIENCE = 10.0
"""Seconds for which processes are ended that go on starting others."""

PR_SET_CHILD_SUBREAPER = 36
PROC = Path("/proc")


def run(typed: str, words: Sequence[str], folder: str, seconds: float) -> None:
    """Runs a command in a folder, and returns when it has ended well; nothing that it started is left then, or after an error.

    **Arguments:** `typed`: what stands in the file, for messages; `words`: program and arguments.

    **Raises:** `JobError` where there is no such program, where it took longer than `seconds`, and where it ended with another
    code than 0, with the last line of its standard error.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "broadsheet.lab.commands"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as guard:  # fmt: skip
        assert guard.stdin is not None
        assert guard.stdout is not None
        guard.stdin.write(json.dumps({"words": list(words), "folder": folder, "seconds": seconds}).encode() + b"\n")
        guard.stdin.flush()
        answer = guard.stdout.read()  # nothing else has this pipe: it ends with the guard
    if not answer:
        raise JobError(f"{typed!r} was lost: the process that watched it was killed.")
    found = json.loads(answer)
    if found["unknown"]:
        raise JobError(f"{words[0]}: {found['unknown']} (in the command {typed!r}).")
    if found["late"]:
        raise JobError(f"{typed!r} took longer than {seconds:g} s.")
    if found["code"]:
        raise JobError(f"{typed!r} ended with {found['code']}: {_last_line(found['said'])}")


def _last_line(said: str) -> str:
    """The last line that says something, without colours and what else a terminal would obey."""
    plain = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", said)
    lines = ("".join(char if char.isprintable() else " " for char in line).strip() for line in plain.splitlines())
    return ([line for line in lines if line] or ["no message"])[-1][:200]


def guard() -> None:
    """The process in between: one command as a JSON line on standard input, how it ended as one on standard output."""
    asked = json.loads(sys.stdin.buffer.readline())
    _adopt_orphans()
    found = {"unknown": "", "late": False, "code": None, "said": ""}
    try:
        process = subprocess.Popen(
            asked["words"], cwd=asked["folder"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        found["unknown"] = "there is no such program"
    except (OSError, ValueError) as error:
        found["unknown"] = f"it cannot be started ({getattr(error, 'strerror', None) or error})"
    else:
        found |= _watched(process, asked["seconds"])
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # the thread that buries children waits for ever


def _watched(process: subprocess.Popen, seconds: float) -> dict[str, object]:
    """Waits for the end of a command, of its time, or of whoever asked; then ends all that is left of it."""
    assert process.stderr is not None
    said, stderr = b"", process.stderr.fileno()
    os.set_blocking(stderr, False)
    ended, tell = os.pipe()
    threading.Thread(target=_bury, args=(process.pid, tell), daemon=True).start()
    code, late, until = None, False, time.monotonic() + seconds
    with selectors.DefaultSelector() as watch:
        for stream in (ended, stderr, 0):
            watch.register(stream, selectors.EVENT_READ)
        open_ = True
        while open_ and code is None and not late:
            left = until - time.monotonic()
            late = left <= 0
            for key, _ in watch.select(max(0.0, left)):
                if key.fd == 0:  # nothing more is ever written there: whoever asked is gone
                    open_ = False
                elif key.fd == ended:
                    code, late = os.waitstatus_to_exitcode(int(os.read(ended, 64))), False
                elif (more := os.read(stderr, KEPT)) == b"":
                    watch.unregister(stderr)
                else:
                    said = (said + more)[-KEPT:]
    _end(process.pid)
    with contextlib.suppress(BlockingIOError):
        for _ in range(PIPE // KEPT):
            said = (said + os.read(stderr, KEPT))[-KEPT:]
    return {"code": code, "late": late, "said": said.decode(errors="replace")}


def _adopt_orphans() -> None:
    """Processes below this one whose parents end become its children, whatever their session."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _bury(command: int, tell: int) -> None:
    """Waits for all children, so that none stays as a zombie; tells the status of the command."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == command:
                os.write(tell, str(status).encode())


def _end(session: int) -> None:
    """Ends the command's group, then all that is below this process, until nothing is left."""
    until = time.monotonic() + PATIENCE
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(session, signal.SIGKILL)
    while (below := _below(os.getpid())) and time.monotonic() < until:
        for pid in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def _below(ancestor: int) -> list[int]:
    """All living processes that descend from one; none where the system has no /proc."""
    children: dict[int, list[int]] = {}
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_bytes().rpartition(b")")[2].split()[:2]
            if state not in (b"Z", b"X"):
                children.setdefault(int(parent), []).append(int(folder.name))
    found = children.get(ancestor, []).copy()
    for pid in found:  # grows while it is gone through
        found += children.get(pid, [])
    return found


if __name__ == "__main__":
    guard()
