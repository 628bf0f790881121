"""A thousand hostile titles, abstracts and pages: taken in or refused with a reason, shown as text, never run."""

import json
import math
import random
import re
import time
from datetime import date

import feedparser
import pytest
from browsing import client
from bs4 import BeautifulSoup

from broadsheet.errors import BroadsheetError
from broadsheet.lab.store import Store
from broadsheet.page import Catalogue, intake
from broadsheet.page.facts import Facts
from broadsheet.web.mathematics import plain, rich

PIECES = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>", "</title><script>alert(1)</script>",
    "{{ 7*7 }}", "{% raw %}", "javascript:alert(1)", "\u202egnp.exe", "\u2066x\u2069", "\x00", "\ud83d", "\U0001f600", "&lt;b&gt;", "&#60;",
    "]]>", "<!--", "-->", "<![CDATA[", "$\\text{<script>alert(1)</script>}$", "$\\href{javascript:alert(1)}{x}$", "$$" + "{" * 300 + "$$",
    "$\\frac{1}{", "\\input{/etc/passwd}", "\\def\\x{\\x\\x}\\x", "$" + "\\sqrt{" * 60 + "x" + "}" * 60 + "$", "' OR 1=1 --", '"); DROP TABLE papers;',
    "a" * 3000, "\u0301" * 200, "ﷺ" * 50, "A normal title", "with words", "<math><mtext><style><img src=x onerror=alert(1)></style></mtext></math>",
    "<a href='javascript:alert(1)'>x</a>", "x\r\nSet-Cookie: a=b", "../../etc/passwd", "\\\"o", "%00", "${7*7}", "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
)  # fmt: skip


def texts(count, seed=0):
    draw = random.Random(seed)
    return [
        "".join(draw.choice(PIECES) + draw.choice((" ", "", "\n")) for _ in range(draw.randint(1, 6))) for _ in range(count)
    ]


def harmless(html):
    page = BeautifulSoup(html, "html.parser")
    scripts = page.find_all("script")
    assert all(
        re.fullmatch(r"/static/site\.js\?v=[0-9a-f]+", script.get("src", "")) and not script.string for script in scripts
    )
    for element in page.find_all(True):
        assert not [name for name in element.attrs if name.startswith("on")], element
        for name in ("href", "src", "action"):
            assert not str(element.attrs.get(name, "")).strip().lower().startswith(("javascript:", "data:")), element
    return page


def test_a_thousand_titles_and_abstracts(home):
    taken, refused = [], 0
    for k, (title, abstract) in enumerate(zip(texts(1000, 1), texts(1000, 2), strict=True)):
        try:
            taken.append(Facts(title, arxiv=f"2512.{k:05d}", abstract=abstract, names=(title[:50],), published="2025-12-11"))
        except BroadsheetError as error:
            assert "\n" not in str(error)
            refused += 1
    assert len(taken) > 500
    assert refused > 50
    Catalogue(Store()).add("hub", taken, date(2025, 12, 11))
    for facts in taken:
        for text in (facts.title, facts.abstract or ""):
            shown = BeautifulSoup(str(rich(text)), "html.parser")
            assert {element.name for element in shown.find_all(True)} <= {
                "math", "mi", "mo", "mn", "mrow", "msub", "msup", "msqrt", "mroot", "mfrac", "mtext", "mstyle", "mspace", "mover",
                "munder", "msubsup", "munderover", "mtable", "mtr", "mtd", "mpadded", "code", "mark",
            }  # fmt: skip
            plain(text)
    with client() as site:
        for number in range(1, 4):
            harmless(site.get(f"/day/2025-12-11?number={number}").text)
        draw = random.Random(3)
        for facts in draw.sample(taken, 40):
            answer = site.get(f"/papers/{facts.arxiv}")
            assert answer.status_code == 200
            page = harmless(answer.text)
            assert "script" not in [element.name for element in page.h1.find_all(True)]
        assert not feedparser.parse(site.get("/feeds/latest.atom").content).bozo
        for text in texts(60, 4):
            answer = site.get("/search", params={"q": text[:400].encode("utf-8", "replace").decode()})
            assert answer.status_code in (200, 422)
            harmless(answer.text)
        assert json.loads(site.get("/api/daily_papers?limit=200").text)


@pytest.mark.parametrize(
    "piece",
    ["\\[", "\\(", "$", "$$", "$ ", "$x$ ", "\\alpha ", '\\"o', "{", "\\text{", "\\begin{a}", "$a \\[ ", "\\" * 2,
     "\\[" * 9 + "a" * 400, "$" + "_" * 398 + "$ ", "$" + "\\sqrt" * 79 + "$ ", "$" + "&" * 398 + "$ ", "$" + "\\\\" * 199 + "$ "],
)  # fmt: skip
def test_four_times_the_text_takes_four_times_as_long_and_no_more(piece):
    """Shown text is worked out between two answers of the server: what is quadratic here stops everybody."""

    def seconds(size):
        text = (piece * (size // len(piece) + 1))[:size]
        best = math.inf
        for _ in range(3):
            began = time.perf_counter()
            rich.__wrapped__(text)
            plain.__wrapped__(text)
            best = min(best, time.perf_counter() - began)
        return best

    for small in (2_000, 5_000, 100_000):  # a quadratic way of reading takes sixteen times as long
        assert seconds(4 * small) < 9 * max(seconds(small), 4e-3)


def test_formulas_are_found_as_they_always_were():
    assert str(rich(r"$a$$b$")).count("<math>") == 2
    assert str(rich(r"\(x\) and \[y\] and $$z$$")).count("<math>") == 3
    assert str(rich("It costs $5 and $6, or \\$7 and \\$8.")) == "It costs $5 and $6, or $7 and $8."
    assert str(rich("$ a$ and an end that never comes \\[x $y$")).count("<math>") == 1
    assert plain(r"$\alpha$-rule \(x\)") == "α-rule x"


def test_a_thousand_pages(home):
    """Pages in which something was cut, doubled, turned round or put in: read, or refused in one sentence."""
    hydrated = '<html><div data-props="' + json.dumps(
        {"dailyPapers": [{"paper": {"id": "2512.00001", "title": "T", "summary": "S", "authors": [{"name": "A"}], "publishedAt": "2025-12-11T00"}}]}
    ).replace('"', "&quot;") + '"></div></html>'  # fmt: skip
    sources = (
        "Daily Papers\n\nDec 11\n\nA brand new paper\n\n" + "An abstract. " * 30 + "\n\n  • 3 authors\n·\nNov 2 4\n", hydrated,
        '<html><article><h3><a href="/papers/2512.00002">Title</a></h3><p>Abstract</p><time datetime="2025-12-11">x</time></article></html>',
        json.dumps({"title": "x", "arxiv": "2512.00003", "names": ["A"]}),
    )  # fmt: skip
    draw = random.Random(5)
    catalogue, good = Catalogue(Store()), 0
    for k in range(1000):
        page = bytearray(draw.choice(sources).encode())
        for _ in range(draw.randint(0, 3)):
            place = draw.randrange(len(page) + 1)
            change = draw.randrange(4)
            if change == 0:
                page[place : place + draw.randint(1, 40)] = b""
            elif change == 1:
                page[place:place] = draw.choice(PIECES).encode("utf-8", "surrogatepass")
            elif change == 2:
                page[place:place] = bytes(draw.randrange(256) for _ in range(3))
            else:
                page[place:place] = page[: draw.randint(1, 200)]
        try:
            given = intake.uploaded(bytes(page), draw.choice(("p.html", "p.txt", "p.json", "p.jsonl")), date(2025, 12, 11))
            catalogue.add(*given)
            good += 1
        except BroadsheetError as error:
            assert "\n" not in str(error), k
    assert good > 50


def test_sizes_are_limited(home):
    big = b"<html><article><h3>" + b"T" * 10 * 2**20 + b"</h3></article></html>"
    with pytest.raises(BroadsheetError, match="at most"):
        intake.uploaded(big, "page.html")
    with pytest.raises(BroadsheetError, match="longer than"):
        intake.uploaded(b'{"title": "' + b"T" * 10 * 2**20 + b'"}', "page.jsonl")
    with client() as site:
        answer = site.post("/imports", files={"file": ("page.html", big)})
        assert answer.status_code == 422
        assert "at most" in answer.text
