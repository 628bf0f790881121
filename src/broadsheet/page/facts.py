"""What is known of a paper, from any source; None where a source does not say."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from dataclasses import dataclass
from datetime import date
from typing import Any

from broadsheet.errors import DataError, InputError
from broadsheet.page.identifiers import doi, identifier

GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
}  # fmt: skip


UNWANTED = frozenset("\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
LONGEST_TITLE = 600
LONGEST_ABSTRACT = 20_000
MOST_AUTHORS = 6_000


@dataclass(frozen=True)
class Facts:
    """One source's facts of one paper. `published` is an ISO date; `authors` their number, `names` who they are, in order, and
    `names_cut` says that the source leaves names out behind them ("et al.").

    Text is cleaned (`plain`); what cannot be a paper's raises `DataError`.
    """

    title: str
    arxiv: str | None = None
    abstract: str | None = None
    authors: int | None = None
    names: tuple[str, ...] | None = None
    published: str | None = None
    comments: int | None = None
    upvotes: int | None = None
    names_cut: bool = False

    def __post_init__(self) -> None:
        title = plain(self.title)
        if not title:
            raise DataError("A paper without a title cannot be listed.")
        if len(title) > LONGEST_TITLE:
            raise DataError(f"A title of {len(title)} characters ({title[:40]!r}…) is none; {LONGEST_TITLE} are allowed.")
        abstract = plain(self.abstract) if self.abstract else None
        if abstract and len(abstract) > LONGEST_ABSTRACT:
            raise DataError(f"The abstract of {title[:60]!r} has {len(abstract)} characters; {LONGEST_ABSTRACT} are allowed.")
        names = tuple(name for text in self.names or () if (name := plain(text)[:200]))
        if names and names[-1].casefold().rstrip(".") in ("others", "et al"):
            names = names[:-1]
            object.__setattr__(self, "names_cut", True)
        if len(names) > MOST_AUTHORS:
            raise DataError(f"{title[:60]!r} has {len(names)} authors; {MOST_AUTHORS} are allowed.")
        if self.published is not None:
            try:
                date.fromisoformat(self.published)
            except ValueError:
                raise DataError(f"The date of {title[:60]!r} is {self.published[:30]!r}; YYYY-MM-DD is wanted.") from None
        for name in ("authors", "comments", "upvotes"):
            count = getattr(self, name)
            if count is not None and not 0 <= count < 2**31:
                raise DataError(f"The number of {name} of {title[:60]!r} is {count}.")
        changes = {"title": title, "abstract": abstract or None, "names": names or None}
        if self.arxiv is not None:
            try:
                changes["arxiv"] = arxiv_id(self.arxiv)
            except InputError as error:
                raise DataError(str(error)) from None
        for name, value in changes.items():
            object.__setattr__(self, name, value)

    def with_changes(self, **changes: Any) -> Facts:
        return dataclasses.replace(self, **changes)

    def known(self) -> dict[str, Any]:
        """The fields that are known, as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
            if value is not None and value is not False
        }


def plain(text: str) -> str:
    """Text on one line without control characters, halves of surrogate pairs and marks that turn its direction round."""
    kept = (char if unicodedata.category(char) not in ("Cc", "Zl", "Zp") else " " for char in text if char not in UNWANTED)
    return " ".join("".join(char for char in kept if not "\ud800" <= char <= "\udfff").split())


def arxiv_id(text: str) -> str:
    """The arXiv identifier that any of its spellings means (`identifiers.identifier`); raises `InputError` where it is none."""
    found = identifier(text)
    if found is not None:
        return found
    if doi(text) is not None:
        raise InputError(
            f"{text[:200]!r} is a DOI that arXiv did not give; give the paper's arXiv identifier (such as 2306.16922)."
        )
    raise InputError(f"{text[:200]!r} is no arXiv identifier (such as 2306.16922).")


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
    if char.isascii():
        return char
    name = unicodedata.name(char, "")
    return name.split()[-1] if name.startswith("GREEK ") and " LETTER " in name else char


def slug_of(title: str) -> str:
    """A short name made of a title's first words."""
    text = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = [word for word in re.findall(r"[a-z0-9]+", text) if word not in ("a", "an", "the", "of", "for", "in", "on", "and")]
    return "-".join(words[:6])[:60] or "paper"
