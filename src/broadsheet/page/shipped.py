"""Our own facts and summaries, which ship with the package: those of the papers that run.

Names of their authors are in `authors.toml`, and where each was read: a saved page has only their number.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from broadsheet.lab.registry import Entry, entries

AUTHORS = Path(__file__).parent / "authors.toml"
FIELDS = ("slug", "arxiv", "title", "published", "authors", "code", "summary", "topics", "parts", "basis")


@cache
def shipped() -> dict[str, dict[str, Any]]:
    """slug -> facts: slug, arxiv, title, published, authors (their number), names, code, summary, topics, parts, basis, tested.

    `names` are all of a paper's authors' in the paper's order, or none; `tested` is what its experiments try and claim here, a
    text for each, and what is noted of them.
    """
    names = tomllib.loads(AUTHORS.read_text(encoding="utf-8"))
    return {
        slug: {**{name: entry.facts[name] for name in FIELDS}, "names": names.get(slug, []), "tested": _tested(entry)}
        for slug, entry in entries().items()
    }


def _tested(entry: Entry) -> list[str]:
    texts = [(made.summary, *(claim.statement for claim in made.claims)) for made in entry.experiments.values()]
    texts += [tuple(claim.statement for claim in entry.untested), tuple(entry.facts.get("notes", ()))]
    return [" ".join(map(_sentence, filter(None, text))) for text in texts if any(text)]


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
