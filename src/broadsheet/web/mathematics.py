"""Titles and abstracts as HTML: LaTeX becomes MathML and plain text, everything else is text; a sanitiser has the last word."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Iterator
from functools import lru_cache

import nh3
from markupsafe import Markup

OPENING = re.compile(r"\\[\\$(\[]|\$\$?")
CLOSING = {"$$": "$$", "$": "$", "\\(": "\\)", "\\[": "\\]"}
DOLLAR = re.compile(r"(?<!\\)\$")
LONGEST = 400
"""Characters of a formula; longer ones stay source."""
LONGEST_TEXT, MOST_MARKS = 20_000, 500
"""Characters of a text, and backslashes, braces and dollars in it; one with more stays source as a whole."""

TAGS = {
    "math", "mi", "mo", "mn", "mrow", "msub", "msup", "msubsup", "mfrac", "msqrt", "mroot", "mtext", "mspace", "mover",
    "munder", "munderover", "mtable", "mtr", "mtd", "mstyle", "mpadded", "code", "mark",
}  # fmt: skip
ATTRIBUTES = {"mo": {"stretchy"}, "mi": {"mathvariant"}, "mtd": {"columnalign"}}


@lru_cache(maxsize=8192)
def rich(text: str) -> Markup:
    """A title or an abstract as HTML that holds no other elements than formulas."""
    if too_much(text):
        return Markup(html.escape(text))
    return clean("".join(formula(source, whole) if source else _text(whole) for source, whole in _pieces(text)))


@lru_cache(maxsize=8192)
def plain(text: str) -> str:
    """A title as text, for places that take no HTML: page titles, feeds, badges."""
    if too_much(text):
        return text
    return _words("".join(_words(source) if source else whole for source, whole in _pieces(text)))


def too_much(text: str) -> bool:
    """Whether a text is too long, or has too many marks of LaTeX, to be looked through for formulas."""
    return len(text) > LONGEST_TEXT or sum(map(text.count, "\\{$")) > MOST_MARKS


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """(a formula's source, empty for text between formulas; the piece as it stands), in one pass over the text.

    A kind of closing mark that is not found once is not looked for again, so that unclosed marks cost no second pass.
    """
    shown = place = 0
    missing: set[str] = set()
    while opening := OPENING.search(text, place):
        start, closing = opening.end(), CLOSING.get(opening[0], "")
        place = start
        end = text.find(closing, start + 1) if closing and closing not in missing else -1
        if end < 0:  # an escaped sign, or a formula without an end
            missing.add(closing)
            continue
        source = text[start:end]
        if opening[0] == "$" and not _inline(source, text[end + 1 : end + 2]):
            continue
        place = end + len(closing)
        if opening.start() > shown:
            yield "", text[shown : opening.start()]
        yield source, text[opening.start() : place]
        shown = place
    if shown < len(text):
        yield "", text[shown:]


def formula_at(text: str, place: int) -> tuple[str, int] | None:
    """(source, end) of the formula that begins here, None where none does."""
    opening = OPENING.match(text, place)
    closing = CLOSING.get(opening[0], "") if opening else ""
    if opening is None or not closing:
        return None
    start = opening.end()
    end = text.find(closing, start + 1, start + LONGEST + 1)
    source = text[start:end]
    if end < 0 or "\n\n" in source or (opening[0] == "$" and not _inline(source, text[end + 1 : end + 2])):
        return None
    return source, end + len(closing)


def _inline(source: str, after: str) -> bool:
    """Whether what stands between two dollars is a formula, and no amounts of money."""
    return len(source) <= LONGEST and source.strip() == source and source[-1] != "\\" and not after.isdigit()


def snippet(marked: str) -> Markup:
    """A search snippet as HTML; \x02 and \x03 stand around the words that were found."""
    text = html.escape(marked).replace("\x02", "<mark>").replace("\x03", "</mark>")
    return clean(text)


def clean(text: str) -> Markup:
    """HTML without other elements than those of formulas."""
    return Markup(nh3.clean(text, tags=TAGS, attributes=ATTRIBUTES, link_rel=None))


def _text(text: str) -> str:
    return html.escape(_words(text))


def _words(text: str) -> str:
    """LaTeX outside formulas: accents, quotes and emphasis as plain text."""
    if "\\" not in text:
        return text
    from pylatexenc.latex2text import LatexNodes2Text

    logging.getLogger("pylatexenc").setLevel(logging.CRITICAL)
    try:
        return LatexNodes2Text(keep_comments=True).latex_to_text(DOLLAR.sub(r"\\$", text))
    except Exception:  # the library raises many kinds on broken input
        return text


def formula(source: str, whole: str) -> str:
    """A formula as MathML; one that cannot be read as its source (`whole`: with the marks around it)."""
    if len(source) > LONGEST or source.count("{") > 40:
        return f"<code>{html.escape(whole)}</code>"
    from latex2mathml.converter import convert

    try:
        return convert(source)
    except Exception:  # the library raises many kinds on broken input
        return f"<code>{html.escape(whole)}</code>"
