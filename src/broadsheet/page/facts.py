"""What is known of a paper, from any source; None where a source does not say."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from broadsheet.errors import InputError

ARXIV_ID = re.compile(r"(?:arxiv:)?(\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(v\d+)?", re.IGNORECASE)

GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
}  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """One source's facts of one paper. `published` is an ISO date; `authors` their number, `names` who they are."""

    title: str
    arxiv: str | None = None
    abstract: str | None = None
    authors: int | None = None
    names: tuple[str, ...] | None = None
    published: str | None = None
    comments: int | None = None
    upvotes: int | None = None

    def with_changes(self, **changes: Any) -> Facts:
        return dataclasses.replace(self, **changes)

    def known(self) -> dict[str, Any]:
        """The fields that are known, as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
            if value is not None
        }


def arxiv_id(text: str) -> str:
    """The plain arXiv identifier (no version) of an id or a URL; raises `InputError` where it is none."""
    found = ARXIV_ID.fullmatch(re.sub(r"^https?://[^/]*/(abs|pdf|papers)/", "", text.strip()).removesuffix(".pdf"))
    if found is None:
        raise InputError(f"{text!r} is no arXiv identifier (such as 2306.16922).")
    return found[1].lower()


def title_key(title: str) -> str:
    """A title in the form by which two sources are compared: plain lower-case letters and digits.

    LaTeX, accents and Greek letters are spelled out: `J/$\\Psi$` and `J/Ψ` are the same, as are `Schr\\"odinger` and
    `Schrödinger`.
    """
    text = re.sub(r"\\([a-zA-Z]+)", lambda found: f" {found[1]} " if found[1].lower() in GREEK else " ", title)
    text = unicodedata.normalize("NFKD", text)
    text = "".join(_spelled(char) for char in text if not unicodedata.combining(char)).casefold()
    return "".join(char for char in text if char.isalnum())[:400]


def _spelled(char: str) -> str:
    name = unicodedata.name(char, "")
    return name.split()[-1] if name.startswith("GREEK ") and " LETTER " in name else char


def slug_of(title: str) -> str:
    """A short name made of a title's first words."""
    text = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = [word for word in re.findall(r"[a-z0-9]+", text) if word not in ("a", "an", "the", "of", "for", "in", "on", "and")]
    return "-".join(words[:6])[:60] or "paper"
