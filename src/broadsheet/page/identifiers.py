"""The spellings of an arXiv identifier: one function reads them all, wherever a person or a file gives one."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

ARCHIVES = (
    "acc-phys", "adap-org", "alg-geom", "ao-sci", "astro-ph", "atom-ph", "bayes-an", "chao-dyn", "chem-ph", "cmp-lg",
    "comp-gas", "cond-mat", "cs", "dg-ga", "funct-an", "gr-qc", "hep-ex", "hep-lat", "hep-ph", "hep-th", "math", "math-ph",
    "mtrl-th", "nlin", "nucl-ex", "nucl-th", "patt-sol", "physics", "plasm-ph", "q-alg", "q-bio", "quant-ph", "solv-int",
    "supr-con",
)  # fmt: skip
"""What the identifiers before April 2007 begin with."""

PLACES = ("abs", "pdf", "html", "ps", "dvi", "format", "src", "e-print", "tb", "paper", "papers", "arxiv", "overview")
"""What stands before the identifier in an address: of arXiv, its mirrors, the Hub, this site, and readers of papers."""

LONGEST = 1000

_NUMBER = rf"(?P<new>[0-9]{{4}}\.[0-9]{{4,5}})|(?P<archive>{'|'.join(ARCHIVES)})(?:\.[a-z-]{{2,12}})?/(?P<old>[0-9]{{7}})"
_SPELLED = re.compile(
    rf"(?:\S*/(?:{'|'.join(PLACES)})/|\S*/(?=arxiv:))?"
    rf"(?:oai:arxiv\.org:|(?:doi:?\s*|\S*/)?10\.48550/arxiv\.|arxiv\s*[:.]?\s*)?"
    rf"(?:{_NUMBER})(?:v[0-9]{{1,4}})?(?:\.pdf|\.ps|\.ps\.gz)?/?(?:\s*\[[a-z.-]+\])?",
    re.IGNORECASE,
)
_DOI = re.compile(r"(?:^|[\s/:=])(10\.[0-9]{4,9}(?:\.[0-9]+)*/[^\s?#]+)")
_HYPHENS = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
_AROUND = " \t<>(){}\"'`,;"


def identifier(text: str) -> str | None:
    """The arXiv identifier that a text spells, in its preferred form, without a version; None where it spells none.

    Read are identifiers of both ages (`2306.16922v2`, `hep-th/9901001`), with or without `arXiv:`, in any case; a subject
    class is no part of the old ones (`math.GT/0309136` is `math/0309136`); addresses of their pages at arXiv, at its mirrors or
    on the Hub, whatever follows behind `?` and `#`; and their DOIs (`10.48550/arXiv.2306.16922`), plain or as an address.
    """
    plain = _cleaned(text)
    if plain is None:
        return None
    given = doi(plain)
    if given is not None and not given.lower().startswith("10.48550/arxiv."):
        return None  # a publisher's DOI may end in what looks like an identifier
    found = _SPELLED.fullmatch(plain) or _SPELLED.fullmatch(plain.rstrip("."))
    if found is None:
        return None
    return found["new"] or f"{found['archive'].lower()}/{found['old']}"


def doi(text: str) -> str | None:
    """The DOI that a text or an address holds, of whoever gave it; None where there is none."""
    plain = _cleaned(text)
    found = _DOI.search(plain) if plain is not None else None
    return found[1].rstrip(".") if found else None


def _cleaned(text: str) -> str | None:
    """Without what may stand around it: brackets and quotes, and behind an address `?…` and `#…`."""
    if len(text) > LONGEST:
        return None
    plain = unicodedata.normalize("NFKC", text).translate(_HYPHENS)
    plain = "".join(char for char in plain if unicodedata.category(char) not in ("Cf", "Cc") or char in "\t\n")
    return unquote(re.split(r"[?#]", plain, maxsplit=1)[0]).strip().strip(_AROUND)
