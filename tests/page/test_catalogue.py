import importlib
import tomllib
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadsheet.errors import DataError, InputError
from broadsheet.lab.tables import Listed, Sighting
from broadsheet.page import Catalogue
from broadsheet.page.catalogue import Imported, ListedPaper
from broadsheet.page.citation import bibtex
from broadsheet.page.facts import Facts, arxiv_id, slug_of, title_key
from broadsheet.page.names import Names
from broadsheet.page.search import search
from broadsheet.page.shipped import AUTHORS, shipped


def test_all_42_ship_once_each(home):
    assert len(shipped()) == 42
    assert len({facts["arxiv"] for facts in shipped().values()}) == 42
    for facts in shipped().values():
        assert 80 < len(facts["summary"]) < 600
        assert facts["parts"]
        assert date.fromisoformat(facts["published"])
    assert len(Catalogue().papers()) == 42
    assert not home.exists()  # reading makes no database


def test_names_that_ship_are_those_of_all_authors():
    ours = shipped()
    assert set(tomllib.loads(AUTHORS.read_text(encoding="utf-8"))) <= set(ours)
    assert [slug for slug, facts in ours.items() if not facts["names"]] == ["adaptive-gain"]
    for slug, facts in ours.items():
        names = facts["names"]
        assert len(set(names)) == len(names), slug
        assert len(names) in (0, facts["authors"]), slug
        assert tuple(names) == (Facts(facts["title"], names=tuple(names)).names or ()), slug


@pytest.mark.parametrize(
    ("query", "slugs"),
    [("Spieler", ["elm-neuron"]), ("Loewen", ["cybloids"]), ("Lajoie", ["representation-geometry", "rich-lazy"]),
     ("Medvidovic", ["grad-dft"]), ("T.-S. H. Lee", ["jpsi-photoproduction"]), ("Hajishirzi", ["tulu3"])],
)  # fmt: skip
def test_papers_that_ship_are_found_by_their_authors(home, query, slugs):
    known = Catalogue().papers()
    assert Names(known.values()).authored(query) == slugs
    assert [paper.slug for paper, _ in search(known.values(), query, len(slugs))] == slugs
    assert not home.exists()


def test_papers_that_ship_are_cited_with_their_authors_in_order(home):
    entry = bibtex(Catalogue().paper("elm-neuron"))
    assert "author = {Aaron Spieler and Nasim Rahaman and Georg Martius and Bernhard Schölkopf and Anna Levina}" in entry
    assert "note = " not in entry
    assert "author names: broadsheet import 2305.19869" in bibtex(Catalogue().paper("adaptive-gain"))


def test_names_of_an_import_stand_over_ours_where_there_are_more_of_them(any_home):
    ours = shipped()["worm-data"]
    more = ("Quilee Simeon", "Hector Astrom", "Anshul Kashyap", "Konrad P. Kording", "Edward S. Boyden")
    Catalogue().add("bibtex", [Facts(ours["title"], names=(*more[:2], "others"))], date(2025, 1, 1))
    assert Catalogue().paper("worm-data").names == ours["names"]
    Catalogue().add("arxiv", [Facts(ours["title"], arxiv=ours["arxiv"], names=more, authors=5)], date(2025, 1, 2))
    paper = Catalogue().paper("worm-data")
    assert (paper.names, paper.authors, paper.names_cut) == (list(more), 5, False)


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


OLD = Facts("Old math", arxiv="math/0309136", abstract="Short.", names=("A", "B"))


def test_a_subject_class_makes_no_other_paper(any_home):
    for text in ("math.GT/0309136", "math/0309136", "https://arxiv.org/abs/math.GT/0309136v2", "10.48550/arXiv.math/0309136"):
        Catalogue().add("arxiv", [Facts("Old math", arxiv=text)], date(2025, 1, 1))
    assert [paper.arxiv for paper in Catalogue().papers().values() if paper.title == "Old math"] == ["math/0309136"]
    assert Catalogue().paper("MATH.GT/0309136v1").slug == "old-math"


@pytest.mark.parametrize("own", [True, False])
def test_entries_that_were_stored_under_both_spellings_are_one(any_home, own):
    catalogue = Catalogue()
    if own:
        catalogue.add("arxiv", [OLD], date(2025, 1, 1))
    with catalogue.store.session() as session:  # as they were stored once
        for slug, arxiv, comments in (("old-math-2", "math.gt/0309136", 7), ("old-math-3", "math.GT/0309136", 8)):
            session.add(Listed(slug=slug, arxiv=arxiv, title="Old math", title_key="oldmath"))
            session.flush()
            seen = {"title": "Old math", "arxiv": arxiv, "comments": comments}
            session.add(
                Sighting(slug=slug, source="hub", as_of=f"2024-05-0{comments}", first="2024-05-01", revision=0, facts=seen)
            )
    name = "old-math" if own else "old-math-2"

    def found(revision=-1):
        papers = Catalogue().changed_since(revision)[1]
        return [paper for paper in papers.values() if paper.title == "Old math"]

    (paper,) = found()
    assert (paper.slug, paper.arxiv, paper.comments, paper.listed) == (name, "math/0309136", 8, "2024-05-01")
    before = catalogue.store.revisions()["papers"]
    done = Catalogue().add("arxiv", [Facts("Old math", arxiv="math.GT/0309136", upvotes=3)], date(2025, 1, 2))
    assert (done.new, done.changed) == ([], [name])
    for (paper,) in (found(), found(before)):
        assert (paper.slug, paper.arxiv, paper.comments, paper.upvotes) == (name, "math/0309136", 8, 3)


def test_what_a_page_says_of_our_papers_is_shown_and_ours_is_kept(any_home):
    ours = shipped()["grad-dft"]
    assert Catalogue().paper("grad-dft").published == ours["published"]
    title, day = ours["title"], "2023-09-22"
    Catalogue().add("page", [Facts(title, authors=5, published=day)], date(2024, 1, 1))
    Catalogue().add("arxiv", [Facts(title, arxiv=ours["arxiv"], authors=6, published="2023-09-23")], date(2024, 1, 2))
    paper = Catalogue().paper("grad-dft")
    assert (paper.published, paper.authors) == (day, 5)
    assert paper.ours["published"] == ours["published"]
    assert (paper.title, paper.arxiv) == (title, ours["arxiv"])
    Catalogue().add("page", [Facts(title, published=ours["published"])], date(2024, 1, 3))
    assert "published" not in Catalogue().paper("grad-dft").ours


def test_names_come_from_whoever_has_most_of_them(any_home):
    Catalogue().add("bibtex", [Facts("Many", names=("Zoe Last", "Al First", "others"))], date(2025, 1, 1))
    paper = Catalogue().paper("many")
    assert (paper.names, paper.names_cut, paper.authors) == (["Zoe Last", "Al First"], True, None)
    assert "Zoe Last and Al First and others" in bibtex(paper)
    Catalogue().add("hub", [Facts("Many", names=("Zoe Last", "Al First", "Mo Third"))], date(2025, 1, 2))
    Catalogue().add("arxiv", [Facts("Many", names=("Al First",), authors=3)], date(2025, 1, 3))
    paper = Catalogue().paper("many")
    assert (paper.names, paper.names_cut, paper.authors) == (["Zoe Last", "Al First", "Mo Third"], False, 3)
    assert "Zoe Last and Al First and Mo Third}" in bibtex(paper)


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


def test_a_listing_as_it_comes():
    paper = ListedPaper("x", "X")
    assert (paper.names, paper.summary, paper.topics, paper.code, paper.parts, paper.sources, paper.ours, paper.tested) == (
        [], "", [], "", [], [], {}, [],
    )  # fmt: skip
    known = (
        paper.arxiv,
        paper.published,
        paper.authors,
        paper.comments,
        paper.upvotes,
        paper.abstract,
        paper.basis,
        paper.listed,
    )
    assert known == (None,) * 8
    assert (paper.names_cut, paper.day) == (False, "")
    assert ListedPaper("x", "X", published="2025-01-01").day == "2025-01-01"
    assert ListedPaper("x", "X", published="2025-01-01", listed="2025-01-03").day == "2025-01-03"


def test_short_names_are_numbered_and_namesakes_with_other_identifiers_are_others(home):
    catalogue = Catalogue()
    done = catalogue.add("page", [Facts("On memory"), Facts("On the memory!"), Facts("On a memory: of")], date(2025, 1, 1))
    assert done == Imported(3, ["memory", "memory-2", "memory-3"], [])
    same = [Facts("Same", arxiv="2501.00001"), Facts("Same", arxiv="2501.00002"), Facts("Same")]
    done = catalogue.add("page", same, date(2025, 1, 1))
    assert (done.seen, done.new) == (3, ["same", "same-2"])
    assert [catalogue.paper(slug).arxiv for slug in done.new] == ["2501.00001", "2501.00002"]
    assert catalogue.add("hub", [Facts("Same", arxiv="2501.00003")], date(2025, 1, 1)).new == ["same-3"]
    assert catalogue.add("page", [Facts("Later known")], date(2025, 1, 1)).new == ["later-known"]
    assert catalogue.add("page", [Facts("Later known", arxiv="2501.00009")], date(2025, 1, 1)).changed == ["later-known"]
    assert catalogue.paper("2501.00009").slug == "later-known"
    ours = shipped()["elm-neuron"]
    assert catalogue.add("hub", [Facts(ours["title"], arxiv="2501.00010")], date(2025, 1, 1)).new != []
    assert catalogue.add("hub", [Facts("Another title", arxiv=ours["arxiv"])], date(2025, 1, 1)).changed == ["elm-neuron"]
    assert catalogue.paper("elm-neuron").title == ours["title"]


def test_days_on_which_a_source_listed_a_paper(home):
    catalogue = Catalogue()
    for day, comments in ((10, 1), (12, 2), (12, 3), (8, 4), (9, 5)):
        catalogue.add("hub", [Facts("New", comments=comments)], date(2025, 1, day))
    paper = catalogue.paper("new")
    assert (paper.comments, paper.listed, paper.sources) == (3, "2025-01-08", ["hub"])
    assert catalogue.add("hub", [Facts("New", comments=3)], date(2025, 2, 1)).changed == []
    catalogue.add("page", [Facts("New", comments=0, upvotes=0, abstract="Long enough.")], date(2025, 1, 13))
    catalogue.add("arxiv", [Facts("New", abstract="Short.")], date(2025, 1, 14))
    catalogue.add("bibtex", [Facts("New", abstract="Of equal size")], date(2025, 1, 15))
    paper = catalogue.paper("new")
    assert (paper.comments, paper.upvotes, paper.abstract, paper.listed) == (0, 0, "Of equal size", "2025-01-08")
    assert paper.sources == ["hub", "page", "arxiv", "bibtex"]
    revision, changed = catalogue.changed_since(0)
    assert list(changed) == ["new"]
    assert catalogue.changed_since(revision) == (revision, {})
    assert len(catalogue.changed_since(-1)[1]) == 43
    with catalogue.store.session() as session:
        sighting = session.query(Sighting).filter_by(source="hub").one()
        assert (sighting.as_of, sighting.first, sighting.facts) == ("2025-01-12", "2025-01-08", {"title": "New", "comments": 3})


def test_as_many_names_that_are_not_cut_off_are_better(home):
    catalogue = Catalogue()
    catalogue.add("bibtex", [Facts("Many", names=("A One", "B Two", "others"))], date(2025, 1, 1))
    catalogue.add("hub", [Facts("Many", names=("A. One", "B. Two"))], date(2025, 1, 2))
    assert (catalogue.paper("many").names, catalogue.paper("many").authors) == (["A. One", "B. Two"], 2)
    catalogue.add("arxiv", [Facts("Many", names=("Ada One", "Bo Two"))], date(2025, 1, 3))
    assert catalogue.paper("many").names == ["A. One", "B. Two"]


@pytest.mark.parametrize(
    ("query", "near"), [("dense", "dense-hebbian, sdr-dendrites, dale-langevin"), ("delays", "heterogeneous-delays, dale-langevin, rich-lazy")]
)  # fmt: skip
def test_at_most_three_near_names_are_told(home, query, near):
    with pytest.raises(InputError, match=rf"called '{query}'\. Did you mean {near}\?"):
        Catalogue().paper(query)
    with pytest.raises(InputError, match=r"called 'zzzz'\. 'broadsheet list'"):
        Catalogue().paper("zzzz")


@pytest.mark.parametrize(
    ("given", "fine"),
    [
        ({"title": "x" * 600}, True), ({"title": "x" * 601}, False), ({"title": " \u200b "}, False), ({"abstract": "x" * 20_000}, True),
        ({"abstract": "x" * 20_001}, False), ({"names": ("A B",) * 6000}, True), ({"names": ("A B",) * 6001}, False),
        ({"authors": 0, "comments": 2**31 - 1, "upvotes": 0}, True), ({"authors": 2**31}, False), ({"comments": -1}, False),
        ({"upvotes": 2**31}, False), ({"published": "2025-02-29"}, False), ({"arxiv": "none"}, False),
    ],
)  # fmt: skip
def test_facts_at_their_limits(given, fine):
    if fine:
        Facts(**{"title": "T", **given})
    else:
        with pytest.raises(DataError):
            Facts(**{"title": "T", **given})


def test_facts_are_cleaned_and_what_is_known_is_told():
    made = Facts("A\u202e title", names=("A B", " ", "C" * 300, "et al."), abstract=" ", comments=0)
    assert made.known() == {"title": "A title", "names": ["A B", "C" * 200], "comments": 0, "names_cut": True}
    assert Facts("T", names=("Others",)).known() == {"title": "T", "names_cut": True}
    assert Facts("T", names=("Ann Others",)).names_cut is False
    assert slug_of("The One of Two in Three, on four and five six seven eight") == "one-two-three-four-five-six"
    assert slug_of("x" * 100) == "x" * 60
    assert slug_of("李") == "paper"
    assert title_key("J/$\\Psi$ Ünd \\alpha\\foo ß") == title_key("J/Ψ und αss") == "jpsiundalphass"
    assert len(title_key("x" * 500)) == 400
