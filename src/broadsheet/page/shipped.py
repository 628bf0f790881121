"""Our own facts and summaries, which ship with the package: one file a paper in `page/shipped`, and the papers that run.

A paper that gets a system moves from its file here into its file in `broadsheet.papers`. Names of authors are in `authors.toml`
for both, and where each was read: a saved page has only their number.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from broadsheet.lab.registry import entries

FOLDER = Path(__file__).parent / "shipped"
AUTHORS = Path(__file__).parent / "authors.toml"
FIELDS = ("slug", "arxiv", "title", "published", "authors", "code", "summary", "topics", "parts", "basis")


@cache
def shipped() -> dict[str, dict[str, Any]]:
    """slug -> facts: slug, arxiv, title, published, authors (their number), names, code, summary, topics, nearest parts, basis.

    The basis is None for a paper without a system; `names` are all of its authors' in the paper's order, or none.
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
    names = tomllib.loads(AUTHORS.read_text(encoding="utf-8"))
    return {slug: {**facts, "names": names.get(slug, [])} for slug, facts in found.items()}
