import json
from datetime import date
from html import escape

import pytest

from broadsheet.errors import DataError
from broadsheet.page import hypertext
from broadsheet.page.hypertext import parse_html
from broadsheet.page.saved import read_page

PAPERS = [
    {"paper": {"id": "2306.16922", "title": "The Expressive\n Leaky Memory Neuron", "summary": "Biological neurons", "upvotes": 7,
               "authors": [{"name": "A. Spieler"}, {"name": "B. Second"}], "publishedAt": "2023-06-14T13:34:13.000Z"}, "numComments": 3,
     "title": "The Expressive Leaky Memory Neuron"},
    {"paper": {"id": "2408.00336", "title": "Cybloids", "summary": "Colloids", "upvotes": 0, "authors": [],
               "publishedAt": "2024-08-01T07:18:25.000Z"}},
]  # fmt: skip

HYDRATED = f"""<!doctype html><html><head><link rel="canonical" href="https://huggingface.co/papers/date/2024-08-02"></head><body>
<div class="SVELTE_HYDRATER contents" data-target="DailyPapers" data-props="{escape(json.dumps({"dailyPapers": PAPERS}))}"></div>
</body></html>"""

ARTICLES = """<html><body><header><time datetime="2024-12-11T00:00:00">Dec 11</time></header><main>
<article><a href="/papers/2306.16922"><img></a><h3><a href="/papers/2306.16922">The Expressive <b>Leaky</b> Memory Neuron</a></h3>
<p>Biological cortical neurons are remarkably sophisticated computational devices, temporally integrating.</p>
<ul><li>· 5 authors</li></ul><time datetime="2023-06-14T13:34:13.000Z">Jun 14, 2023</time>
<a href="/papers/2306.16922#community">4</a><script>alert(1)</script></article>
<article><h3><a href="https://arxiv.org/abs/2408.00336v2">Cybloids</a></h3><p>short</p><span>4 authors</span> <span>Aug 1, 2024</span></article>
<article><h3>A paper without a link</h3><div>• 2 authors</div><div>Nov 25</div></article>
<article><p>An advertisement</p></article></main></body></html>"""


def saved(tmp_path, text):
    path = tmp_path / "page.html"
    path.write_text(text)
    return path


def test_the_data_of_the_pages_own_scripts_are_read(tmp_path):
    page = read_page(saved(tmp_path, HYDRATED), today=date(2026, 1, 1))
    assert (page.as_of, page.year_was_given) == (date(2024, 8, 2), True)
    first, second = page.papers
    assert (first.title, first.arxiv, first.authors, first.names) == (
        "The Expressive Leaky Memory Neuron", "2306.16922", 2, ("A. Spieler", "B. Second"),
    )  # fmt: skip
    assert (first.published, first.upvotes, first.comments, first.abstract) == ("2023-06-14", 7, 3, "Biological neurons")
    assert (second.title, second.authors, second.comments) == ("Cybloids", None, None)


def test_articles_are_read_where_there_are_no_data(tmp_path):
    page = read_page(saved(tmp_path, ARTICLES), today=date(2026, 1, 1))
    assert page.as_of == date(2024, 12, 11)
    first, second, third = page.papers
    assert (first.title, first.arxiv, first.authors) == ("The Expressive Leaky Memory Neuron", "2306.16922", 5)
    assert (first.published, first.comments) == ("2023-06-14", 4)
    assert first.abstract.startswith("Biological cortical")
    assert "alert" not in first.abstract
    assert (second.arxiv, second.authors, second.published, second.abstract) == ("2408.00336", 4, "2024-08-01", None)
    assert (third.title, third.arxiv, third.published) == ("A paper without a link", None, "2024-11-25")


def test_as_of_counts_more_than_what_the_page_says(tmp_path):
    assert read_page(saved(tmp_path, ARTICLES), date(2025, 1, 1)).as_of == date(2025, 1, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<html></html>", "holds no papers"),
        ("<!doctype html><article></article>", "holds no papers"),
        ("<html>" + "<div>" * 20_000, "holds no papers"),
        (HYDRATED.replace("2306.16922", "not an id"), "arXiv identifier"),
        (HYDRATED.replace(escape('"2023-06-14T'), escape('"yesterday')), "YYYY-MM-DD"),
        ('<html><div data-props="[[[["></div></html>', "holds no papers"),
        (f"<html><div data-props='{json.dumps({'dailyPapers': [{'title': 5}]})}'></div></html>", "title"),
        (f"<html><div data-props='{json.dumps({'dailyPapers': [{'title': 'x' * 10_000}]})}'></div></html>", "10000 characters"),
        (f"<html><div data-props='{json.dumps({'papers': [{'title': f'p{k}'} for k in range(6000)]})}'></div></html>", "5000"),
    ],
)
def test_other_html_gets_one_sentence(tmp_path, text, words):
    with pytest.raises(DataError, match=words) as caught:
        read_page(saved(tmp_path, text))
    assert "\n" not in str(caught.value)


def page(body, **options):
    return parse_html(f"<html>{body}</html>", "it", options.pop("as_of", None), date(2026, 1, 1))


def test_articles_in_their_corners():
    def one(body):
        (paper,) = page(f"<article>{body}</article>").papers
        return paper

    assert one('<a href="/papers/2306.16922">Linked title</a>').arxiv == "2306.16922"
    assert one('<a href="/papers/2306.16922">Linked title</a>').title == "Linked title"
    assert one('<h4>T</h4><a href="https://arxiv.org/abs/2306.16922"><img></a>').arxiv == "2306.16922"
    assert one('<h2>T</h2><a href="/papers/2306.16922#community">12 comments</a>').comments == 12
    assert one('<h2>T</h2><a href="#community">no number</a>').comments is None
    assert [one(f"<h2>T</h2><p>T</p><p>{'x' * length}</p>").abstract for length in (40, 41)] == [None, "x" * 41]
    assert one("<h2>T</h2><p>short</p><p>" + "long " * 20 + "</p>").abstract == ("long " * 20).strip()
    assert [one(f"<h2>T</h2>{text}").authors for text in ("1 author", "12 authors", "authors")] == [1, 12, None]
    assert (
        one('<h2>T</h2><time datetime="soon">x</time> Foo 3, 2024 and Feb 30, 2024 and Mar 5, 2024').published == "2024-03-05"
    )
    assert one('<h2>T</h2><time datetime="2024-12-11T00:00:00">x</time>').published == "2024-12-11"
    assert one("<h2>T</h2>").published is None


def test_the_day_of_a_page_is_that_of_its_address_or_of_its_first_time():
    article = "<article><h2>T</h2><time datetime='2020-01-01'>x</time></article>"
    for head, day in (
        ("<link rel=canonical href=https://x/2024-08-02><meta property=og:url content=https://x/2024-08-03>", date(2024, 8, 2)),
        ("<meta property=og:url content=https://x/2024-08-03><time datetime=2024-08-04></time>", date(2024, 8, 3)),
        ("<time datetime=none></time><time datetime=2024-13-04></time><time datetime=2024-08-04></time>", date(2024, 8, 4)),
    ):
        found = page(head + article)
        assert (found.as_of, found.year_was_given) == (day, True)
    assert (page(article).as_of, page(article).year_was_given) == (date(2026, 1, 1), False)
    given = page(article, as_of=date(2025, 1, 1))
    assert (given.as_of, given.year_was_given) == (date(2025, 1, 1), True)


def test_data_of_scripts_in_their_corners(monkeypatch):
    def data(props):
        return f"<div data-props='{json.dumps(props)}'></div>"

    item = {"title": "T", "id": "2306.16922"}
    for key in ("dailyPapers", "papers", "trendingPapers"):
        assert [paper.title for paper in page(data({key: [item, 3, {"no": 1}]})).papers] == ["T"]
    assert (
        len(page(data({"papers": [item, item]}) + data([1]) + data({"papers": {}}) + data({"papers": [{"title": "U"}]})).papers)
        == 2
    )
    assert page(data({"papers": [item]}) + "<article><h2>Not read</h2></article>").papers[0].title == "T"
    monkeypatch.setattr(hypertext, "MOST", 1)
    page(data({"papers": [item]}))
    with pytest.raises(DataError, match="holds 2 papers"):
        page(data({"papers": [item, {"title": "U"}]}))
    assert [
        hypertext.is_html(text) for text in ("<!DOCTYPE html>", "x <main class=a>", "<mainly>", " " * 20_000 + "<html>")
    ] == [True, True, False, False]
