"""Our own facts and summaries, which ship with the package: those of the papers that run.

Names of their authors are in `authors.toml`, and where each was read: a saved page has only their number.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from broadsheet.lab.registry import entries

AUTHORS = Path(__file__).parent / "authors.toml"
FIELDS = ("slug", "arxiv", "title", "published", "authors", "code", "summary", "topics", "parts", "basis")


@cache
def shipped() -> dict[str, dict[str, Any]]:
    """slug -> facts: slug, arxiv, title, published, authors (their number), names, code, summary, topics, parts, basis.

    `names` are all of a paper's authors' in the paper's order, or none.
    """
    names = tomllib.loads(AUTHORS.read_text(encoding="utf-8"))
    known = {slug: {name: entry.facts[name] for name in FIELDS} for slug, entry in entries().items()}
    return {slug: {**facts, "names": names.get(slug, [])} for slug, facts in known.items()}
