"""Which processes are at work on a home folder.

Each that takes jobs or makes scratch folders holds a lock on a file of its own in `processes/`, under a name that no other will
have. The system frees the lock however the process ends, so that a name whose lock is free is gone. The number of a process and
its machine's name cannot say that: a container that is made again has the same, or a number that lives elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from broadsheet.cache import locked

NAMED = re.compile(r"[0-9a-f]+-.+")
"""What a scratch folder is called; another one is somebody's own."""

_held: dict[tuple[Path, int], tuple[str, Any]] = {}  # by folder and process: a forked one is another
_one = threading.Lock()


def mine(home: Path) -> str:
    """This process's name in a home, held until it ends."""
    from filelock import FileLock

    key = (home, os.getpid())
    with _one:
        if key not in _held:
            name = uuid.uuid4().hex[:12]
            with _guarded(home) as folder:
                lock = FileLock(folder / name, timeout=0, thread_local=False)
                lock.acquire()
            _held[key] = (name, lock)
        return _held[key][0]


def own(home: Path) -> set[str]:
    """The name of this process in a home, where it has one."""
    held = _held.get((home, os.getpid()))
    return {held[0]} if held else set()


def gone(home: Path) -> set[str]:
    """Names whose processes have ended, and which nobody has forgotten yet."""
    if not (home / "processes").is_dir():
        return set()
    with _guarded(home) as folder:
        return {file.name for file in folder.iterdir() if not _is_held(home, file)}


def forget(home: Path, names: Iterable[str]) -> None:
    """Drops names that are gone, when nothing bears them any more."""
    for name in names:
        (home / "processes" / name).unlink(missing_ok=True)


def known(home: Path) -> set[str]:
    """All names of a home that are not forgotten; others belong to processes of another home, or to none."""
    folder = home / "processes"
    return {file.name for file in folder.iterdir()} if folder.is_dir() else set()


def scratch(home: Path) -> Path:
    """A new folder for what is not finished, named after this process: whoever tidies removes it when that is gone."""
    place = home / "scratch"
    place.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=place, prefix=f"{mine(home)}-"))


@contextlib.contextmanager
def temporary(home: Path) -> Iterator[Path]:
    """A scratch folder that goes with the block, or with whoever tidies after a kill."""
    place = scratch(home)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def left_behind(home: Path) -> list[Path]:
    """Scratch folders whose process is no longer there."""
    if not (home / "scratch").is_dir():
        return []
    places = list((home / "scratch").iterdir())  # before the names, since each has its name first
    there = known(home) - gone(home)
    return [place for place in places if NAMED.fullmatch(place.name) and place.name.partition("-")[0] not in there]


def clear(home: Path) -> None:
    """Removes the scratch folders of a home in which nothing else is kept, where their processes are gone, and the names."""
    absent = gone(home)
    for place in left_behind(home):
        shutil.rmtree(place, ignore_errors=True)
    forget(home, absent)


@contextlib.contextmanager
def _guarded(home: Path) -> Iterator[Path]:
    """The folder of names, while no other process makes or looks through them."""
    with locked(home / "processes.lock"):
        folder = home / "processes"
        folder.mkdir(exist_ok=True)
        yield folder


def _is_held(home: Path, file: Path) -> bool:
    from filelock import FileLock, Timeout

    if file.name in own(home):
        return True
    try:
        with FileLock(file, timeout=0):
            return False
    except (Timeout, PermissionError):  # of another user: believed
        return True
