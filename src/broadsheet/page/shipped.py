"""Our own facts and summaries, which ship with the package: one file a paper in `page/shipped`, and the papers that run.

A paper that gets a system moves from its file here into its file in `broadsheet.papers`.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from broadsheet.lab.registry import entries

FOLDER = Path(__file__).parent / "shipped"
FIELDS = ("slug", "arxiv", "title", "published", "authors", "code", "summary", "topics", "parts", "basis")


@cache
def shipped() -> dict[str, dict[str, Any]]:
    """slug -> facts: slug, arxiv, title, published, authors (their number), code, summary, topics, nearest parts, basis.

    The basis is None for a paper without a system.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(FOLDER.glob("*.toml")):
        found[file.stem] = {
            "slug": file.stem,
            "basis": None,
            "code": "",
            "parts": [],
            **tomllib.loads(file.read_text()),
        }
    for slug, entry in entries().items():
        found[slug] = {name: entry.facts[name] for name in FIELDS}
    return found
