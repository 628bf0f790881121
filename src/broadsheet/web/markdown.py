"""Comments as HTML: Markdown without HTML and pictures, formulas as MathML, quotes of claims; a sanitiser has the last word."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markupsafe import Markup

from broadsheet.web import mathematics

LONGEST, MOST_MARKS = 20_000, 2_000
"""Characters of a text, and marks of Markdown in it; one with more is shown as it was written."""

MOST_CELLS = 10_000
"""Cells of a table with all lines of a text as its rows and its widest line as its columns; a row need not write its cells."""

MARKS = "[]()<>*_`&!|"
QUOTE = re.compile(r"\[\[([A-Za-z0-9_.-]{1,40})\]\]")
TAGS = mathematics.TAGS | {
    "p", "br", "hr", "strong", "em", "s", "blockquote", "ul", "ol", "li", "a", "pre", "h3", "h4", "h5", "h6", "table", "thead",
    "tbody", "tr", "th", "td", "q",
}  # fmt: skip
ATTRIBUTES = mathematics.ATTRIBUTES | {"a": {"href"}, "ol": {"start"}, "math": {"display"}}
SCHEMES = {"http", "https", "mailto"}


@lru_cache(maxsize=4096)
def rendered(text: str, slug: str = "", claims: Sequence[tuple[str, str]] = ()) -> Markup:
    """A comment on a paper as HTML. `claims`: (name, statement) of the paper's, which `[[C3]]` quotes."""
    if len(text) > LONGEST or sum(map(text.count, MARKS)) > MOST_MARKS or _cells(text) > MOST_CELLS:
        return Markup('<p class="raw">{}</p>').format(text)
    made = _markdown.render(text, {"slug": slug, "claims": dict(claims), "formulas": not mathematics.too_much(text)})
    return Markup(
        nh3.clean(made, tags=TAGS, attributes=ATTRIBUTES, url_schemes=SCHEMES, link_rel="nofollow ugc noopener")
    )  # fmt: skip


def _cells(text: str) -> int:
    lines = text.split("\n")
    return max(line.count("|") for line in lines) * len(lines)


def words(text: str, most: int = 280) -> str:
    """The beginning of a comment as plain text, cut at a word."""
    shown = " ".join(html.unescape(nh3.clean(rendered(mathematics.plain(text)), tags=set())).split())
    return shown if len(shown) <= most else shown[:most].rsplit(" ", 1)[0] + " …"


def _formula(state: StateInline, silent: bool) -> bool:
    found = mathematics.formula_at(state.src, state.pos) if state.env["formulas"] and state.src[state.pos] in "$\\" else None
    if found is None:
        return False
    source, end = found
    if not silent:
        token = state.push("formula", "", 0)
        token.content, token.meta = source, {"whole": state.src[state.pos : end]}
    state.pos = end
    return True


def _quote(state: StateInline, silent: bool) -> bool:
    found = QUOTE.match(state.src, state.pos) if state.src[state.pos] == "[" else None
    if found is None or found[1] not in state.env["claims"] or state.linkLevel:
        return False
    if not silent:
        state.push("quote", "", 0).content = found[1]
    state.pos = found.end()
    return True


def _draw_formula(self: RendererProtocol, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
    token = tokens[place]
    drawn = str(mathematics.clean(mathematics.formula(token.content, token.meta["whole"])))
    return drawn.replace("<math>", '<math display="block">') if token.meta["whole"].startswith(("$$", "\\[")) else drawn


def _draw_quote(self: RendererProtocol, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
    claim = tokens[place].content
    return Markup('<a href="/papers/{}#{}"><strong>{}</strong> <q>{}</q></a>').format(
        env["slug"], claim, claim, env["claims"][claim]
    )


def _made() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "linkify": False, "maxNesting": 12})
    made.disable(["image", "html_block", "html_inline"]).enable(["table", "strikethrough"])
    made.inline.ruler.before("escape", "formula", _formula)
    made.inline.ruler.before("link", "quote", _quote)
    made.add_render_rule("formula", _draw_formula)
    made.add_render_rule("quote", _draw_quote)
    made.core.ruler.push("headings", _lower)
    return made


def _lower(state: Any) -> None:
    """Headings of a comment stand beneath those of the page."""
    for token in state.tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 3)}"


_markdown = _made()
