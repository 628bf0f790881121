"""Where the store is, and whether there is one yet; kept apart so that looking costs no import of a database library."""

from __future__ import annotations

import os
from pathlib import Path

from broadsheet.cache import home


def database_url() -> str:
    """`BROADSHEET_DATABASE`, else a SQLite file in the home folder."""
    url = os.environ.get("BROADSHEET_DATABASE")
    if url and url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    return url or f"sqlite:///{home() / 'broadsheet.db'}"


def exists() -> bool:
    """Whether anything was ever stored, so that reading commands need not make a database."""
    return bool(os.environ.get("BROADSHEET_DATABASE")) or (home() / "broadsheet.db").exists()


def figures_folder(store_folder: Path, slug: str, experiment: str, preset: str) -> Path:
    """Where the drawn figures of an experiment are."""
    return store_folder / "figures" / slug / experiment / preset
