"""Where the store is, and whether there is one yet; kept apart so that looking costs no import of a database library."""

from __future__ import annotations

import os
from pathlib import Path

from broadsheet.cache import home
from broadsheet.errors import InputError

FILE = "broadsheet.db"
"""The SQLite database in the home folder, where no other is named."""


def database_url() -> str | None:
    """The address of the database that `BROADSHEET_DATABASE` names; None where the store is a file in the home folder."""
    url = os.environ.get("BROADSHEET_DATABASE")
    if url and url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    return url or None


def exists() -> bool:
    """Whether anything was ever stored, so that reading commands need not make a database."""
    return bool(os.environ.get("BROADSHEET_DATABASE")) or (home() / FILE).exists()


def writable(path: Path) -> bool:
    """Whether this process may write a file, or into a folder."""
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def leads_out(path: Path, folder: Path) -> bool:
    """Whether what a path of a folder stands for, links followed, lies elsewhere; so does a link to itself."""
    try:
        return not path.resolve(strict=False).is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a circle
        return True


def figures_folder(store_folder: Path, slug: str, experiment: str, preset: str) -> Path:
    """Where the drawn figures of an experiment are; raises `InputError` for a name that would lead elsewhere."""
    for name in (slug, experiment, preset):
        if not name or name.startswith(".") or set(name) & {"/", "\\", "\0"}:
            raise InputError(f"{name[:80]!r} is no name of a paper, an experiment or a size.")
    return store_folder / "figures" / slug / experiment / preset
