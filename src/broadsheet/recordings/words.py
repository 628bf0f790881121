"""What the messages of this room have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broadsheet.errors import MissingExtraError


def pynapple() -> Any:
    """The package; raises `MissingExtraError`."""
    try:
        import pynapple as nap
    except ImportError:
        raise MissingExtraError("pynapple", "recordings") from None
    return nap


def one_twice(names: Sequence[str]) -> str | None:
    """The first name that comes twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def some(names: Sequence[str], count: int = 8) -> str:
    """A list for a message, not longer than a line."""
    return (", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")) or "none"
