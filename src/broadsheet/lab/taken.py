"""What a process has taken to run, so that no other of the same home runs it too.

A lock on a file stands for an experiment with its settings; the system frees it however the process ends. The files are few:
their names are short, and what shares one by chance waits for the other.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from broadsheet.cache import digest

LETTERS = 3
"""Of a name, which is a hexadecimal number."""


class Taken:
    """What this process has taken in a home, until it lets go. The same again, as often as it likes, is its own."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "taken"
        self._locks: dict[str, Any] = {}
        self._count: Counter[str] = Counter()

    def take(self, what: Any) -> bool:
        """Takes it, where no other process has; `what`: JSON values."""
        from filelock import FileLock, Timeout

        name = digest(what)[:LETTERS]
        if name not in self._locks:
            self._folder.mkdir(exist_ok=True)
            lock = FileLock(self._folder / name, timeout=0, thread_local=False)
            try:
                lock.acquire()
            except Timeout:
                return False
            self._locks[name] = lock
        self._count[name] += 1
        return True

    def let_go(self, what: Any) -> None:
        """Gives it to others, when all here that took it have let go."""
        name = digest(what)[:LETTERS]
        if name in self._locks:
            self._count[name] -= 1
            if not self._count[name]:
                self._locks.pop(name).release()

    def clear(self) -> None:
        """Lets go of everything."""
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()
        self._count.clear()
