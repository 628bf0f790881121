"""Hostile comments: what is rendered is read by a parser of HTML, which must find nothing that acts."""

from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest

pytest.importorskip("markdown_it", reason="markdown-it is not here: pip install '.[readers]'")

from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.web.markdown import ATTRIBUTES, LONGEST, MOST_MARKS, TAGS, rendered, words

CLAIMS = (("C1", 'it holds "<b>always</b>"'),)
HOSTILE = [
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt&colon;alert(1))",
    "[x](java&#10;script:alert(1))",
    "[x](\x01javascript:alert(1))",
    "[x](vbscript:msgbox(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](file:///etc/passwd)",
    "[x][r]\n\n[r]: javascript:alert(1) 'a\" onmouseover=\"alert(1)'",
    "<javascript:alert(1)>",
    '[x](https://a.org "a\\" onmouseover=\\"alert(1)")',
    "[x](https://a.org/\"onmouseover='alert(1)')",
    "![x](https://a.org/pixel.png)",
    "![x](javascript:alert(1))",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><animate attributeName=href to=javascript:alert(1)></svg>",
    "<math><a xlink:href=javascript:alert(1)>x</a></math>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<form action=/moderation><input name=q></form>",
    "<!--><script>alert(1)</script>-->",
    "<style>body{display:none}</style>",
    "<base href=//evil.org><link rel=stylesheet href=//evil.org>",
    "<a href=javascript:alert(1) onclick=alert(1)>x</a>",
    r"$\href{javascript:alert(1)}{x}$",
    r"$\text{<img src=x onerror=alert(1)>}$",
    r"$\text{</math><script>alert(1)</script>}$",
    r"$$\style{background:url(javascript:alert(1))}{x}$$",
    r"$\class{x}{y}$ $\require{html}$ $\unicode{x3c}script$",
    r"$<svg onload=alert(1)>$",
    "```html\n<script>alert(1)</script>\n```",
    "`<img src=x onerror=alert(1)>`",
    "[[C1]] [[<script>]] [[C1](javascript:alert(1))]",
    "[" * 900 + "x" + "](javascript:alert(1))" * 60,
    "| <script> | b |\n|---|---|\n| [x](javascript:1) | <svg/onload=1> |",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;img src=x onerror=alert(1)&#62;",
    "# <img src=x onerror=alert(1)>\n\n> <script>\n\n1. <svg>",
    "\u202ejavascript\u202c [\u202e](https://a.org)",
    "<" * 400 + "script",
    "x" * 100_000,
    "[x](javascript:alert(1)) " * 4_000,
]


class Reader(HTMLParser):
    """Fails at every element, attribute and address that a comment has no need of."""

    def __init__(self):
        super().__init__()
        self.links = []

    def handle_starttag(self, tag, attributes):
        assert tag in TAGS
        for name, value in attributes:
            if tag == "a" and name == "rel":
                assert value == "nofollow ugc noopener"
                continue
            assert name in ("title", *ATTRIBUTES.get(tag, ())) or (tag, name, value) == ("p", "class", "raw")
            if name == "href":
                self.links.append(value)
                assert urlsplit(value.strip()).scheme in ("", "http", "https", "mailto")
                assert "rel" in dict(attributes)

    def handle_comment(self, data):
        raise AssertionError(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def read(text):
    reader = Reader()
    reader.feed(str(rendered(text, "hlop", CLAIMS)))
    reader.close()
    return reader


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_hostile_comes_through(text):
    read(text)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([*"[]()<>*_`$\\{}|#>-!&;:\"'\n /=", *HOSTILE[:39], "a", "href", "on", "$$", "[[C1]]"]), max_size=30
    ).map("".join)
)
def test_nothing_hostile_comes_through_in_any_mixture(text):
    read(text)


@pytest.mark.parametrize(
    "text",
    ["[" * LONGEST, "[" * (MOST_MARKS // 2) + "](" * (MOST_MARKS // 4), "*a " * 6000, "*_" * (MOST_MARKS // 2), "> " * 9000, "- " * 9000,
     "".join("`" * k + " " for k in range(60)), "$a " * 6000, "\\(" * 9000, "[a](b" * 400, "|a" * 900 + "\n" + "|-" * 900, "\\" * LONGEST,
     "[[C1]]" * 450, "<http://a" * 1900, "&#x0;" * 1900, "\n".join("  " * k + "- a" for k in range(100))],
    ids=range(16),
)  # fmt: skip
def test_no_text_takes_long(text):
    read(text)  # tenths of a second; what grows faster than the text would take minutes


def test_a_small_text_makes_no_huge_table():
    text = "a|" * 900 + "\n" + "-|" * 900 + "\n" + "a\n" * 3000
    assert len(rendered(text)) < 2 * len(text)
    assert "<td>" in rendered("a|b\n-|-\n" + "c|d\n" * 1000)


def test_markdown_formulas_and_quotes():
    html = str(
        rendered(
            "*a* **b** `c` ~~d~~\n\n- e\n\n| f |\n|---|\n| g |\n\n# h\n\n$x^2$ costs $5 or $6\n\n[[C1]] [[C2]]", "hlop", CLAIMS
        )
    )
    for part in ("<em>a</em>", "<strong>b</strong>", "<code>c</code>", "<s>d</s>", "<li>e</li>", "<td>g</td>", "<h4>h</h4>", "<msup>",
                 "costs $5 or $6", 'href="/papers/hlop#C1"', "always", "[[C2]]"):  # fmt: skip
        assert part in html
    assert "<b>always" not in html
    assert read("[a](/papers/hlop) <https://a.org/b?c=d&e>").links == ["/papers/hlop", "https://a.org/b?c=d&e"]
    assert words("**Bold** $x^2$ <b> [a](https://b.org)") == "Bold x^2 <b> a"
