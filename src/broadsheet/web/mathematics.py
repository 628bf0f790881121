"""Titles and abstracts as HTML: LaTeX becomes MathML and plain text, everything else is text; a sanitiser has the last word."""

from __future__ import annotations

import html
import logging
import re
from functools import lru_cache

import nh3
from markupsafe import Markup

FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(?!\s)([^$]{1,400}?)(?<!\s)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\]")
LONGEST = 400
"""Characters of a formula; longer ones stay source."""

TAGS = {
    "math", "mi", "mo", "mn", "mrow", "msub", "msup", "msubsup", "mfrac", "msqrt", "mroot", "mtext", "mspace", "mover",
    "munder", "munderover", "mtable", "mtr", "mtd", "mstyle", "mpadded", "code", "mark",
}  # fmt: skip
ATTRIBUTES = {"mo": {"stretchy"}, "mi": {"mathvariant"}, "mtd": {"columnalign"}}


@lru_cache(maxsize=8192)
def rich(text: str) -> Markup:
    """A title or an abstract as HTML that holds no other elements than formulas."""
    parts, place = [], 0
    for found in FORMULA.finditer(text):
        parts.append(_text(text[place : found.start()]))
        parts.append(_formula(next(group for group in found.groups() if group is not None), found[0]))
        place = found.end()
    parts.append(_text(text[place:]))
    return _clean("".join(parts))


@lru_cache(maxsize=8192)
def plain(text: str) -> str:
    """A title as text, for places that take no HTML: page titles, feeds, badges."""
    text = FORMULA.sub(lambda found: _words(next(group for group in found.groups() if group is not None)), text)
    return _words(text)


def snippet(marked: str) -> Markup:
    """A search snippet as HTML; \x02 and \x03 stand around the words that were found."""
    text = html.escape(marked).replace("\x02", "<mark>").replace("\x03", "</mark>")
    return _clean(text)


def _clean(text: str) -> Markup:
    return Markup(nh3.clean(text, tags=TAGS, attributes=ATTRIBUTES, link_rel=None))


def _text(text: str) -> str:
    return html.escape(_words(text))


def _words(text: str) -> str:
    """LaTeX outside formulas: accents, quotes and emphasis as plain text."""
    if "\\" not in text or len(text) > 20_000 or text.count("{") > 200:
        return text
    from pylatexenc.latex2text import LatexNodes2Text

    logging.getLogger("pylatexenc").setLevel(logging.CRITICAL)
    try:
        return LatexNodes2Text(keep_comments=True).latex_to_text(text)
    except Exception:  # the library raises many kinds on broken input
        return text


def _formula(source: str, whole: str) -> str:
    if len(source) > LONGEST or source.count("{") > 40:
        return f"<code>{html.escape(whole)}</code>"
    from latex2mathml.converter import convert

    try:
        return convert(source)
    except Exception:  # the library raises many kinds on broken input
        return f"<code>{html.escape(whole)}</code>"
