import re

import pytest

from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.citation import bibtex, citation_tags, csl, ris


def paper(**changes):
    given = {"published": "2023-06-14", "arxiv": "2306.16922", "names": ["Aaron Spieler", "Bernhard Schölkopf", "Anna Levina"]}
    return ListedPaper("elm-neuron", "The ELM & its 50 % memory_units", **(given | changes))


def fields(text):
    return dict(re.findall(r"^  (\w+) = \{(.*)\},?$", text, re.MULTILINE))


def test_names_keep_their_order_and_none_is_made_up():
    found = fields(bibtex(paper()))
    assert found["author"] == "Aaron Spieler and Bernhard Schölkopf and Anna Levina"
    assert found["title"] == r"{The ELM \& its 50 \% memory\_units}"
    assert (found["eprint"], found["archivePrefix"], found["year"]) == ("2306.16922", "arXiv", "2023")
    assert found["url"] == "https://arxiv.org/abs/2306.16922"
    assert "note" not in found
    assert not {"eprint", "archivePrefix", "url"} & set(fields(bibtex(paper(arxiv=None))))
    assert fields(bibtex(paper(authors=5)))["author"].endswith("Anna Levina and others")
    unknown = fields(bibtex(paper(names=[], authors=5)))
    assert "author" not in unknown
    assert unknown["note"] == "author names: broadsheet import 2306.16922"


@pytest.mark.parametrize(
    ("name", "written"),
    [("The ATLAS Collaboration", "{The ATLAS Collaboration}"), ("Gemma Team", "{Gemma Team}"),
     ("Smith and Sons", "{Smith and Sons}"), ("Sandy Anderson", "Sandy Anderson"), ("Martin L. King, Jr.", "King, Jr., Martin L."),
     ("Martin L. King Jr.", "King, Jr., Martin L."), ("Yann LeCun", "Yann LeCun"), ("Spieler, Aaron", "Spieler, Aaron"),
     ("Jo{hn Doe", "John Doe")],
)  # fmt: skip
def test_names_are_taken_apart_as_they_are_meant(name, written):
    assert fields(bibtex(paper(names=[name, "Z"])))["author"] == f"{written} and Z"


def test_tags_of_a_paper_without_identifier_or_date():
    assert citation_tags(ListedPaper("x", "A & B"), "A & B") == [("citation_title", "A & B")]
    names = [content for name, content in citation_tags(paper(), "T") if name == "citation_author"]
    assert names == ["Aaron Spieler", "Bernhard Schölkopf", "Anna Levina"]


def test_csl_json_and_ris_by_hand():
    full = paper(names=["Aaron Spieler", "The ATLAS Collaboration", "Martin L. King, Jr.", "Plato"], abstract="Two\nlines.")
    assert csl(full, "A title") == {
        "id": "elm-neuron", "type": "article", "title": "A title",
        "author": [{"family": "Spieler", "given": "Aaron"}, {"literal": "The ATLAS Collaboration"},
                   {"family": "King", "given": "Martin L.", "suffix": "Jr."}, {"literal": "Plato"}],
        "issued": {"date-parts": [[2023, 6, 14]]}, "number": "arXiv:2306.16922", "publisher": "arXiv",
        "URL": "https://arxiv.org/abs/2306.16922", "abstract": "Two\nlines.",
    }  # fmt: skip
    assert ris(full, "A title").split("\r\n") == [
        "TY  - GEN", "ID  - elm-neuron", "TI  - A title", "AU  - Spieler, Aaron", "AU  - The ATLAS Collaboration",
        "AU  - King, Martin L., Jr.", "AU  - Plato", "PY  - 2023", "DA  - 2023/06/14", "PB  - arXiv", "M1  - arXiv:2306.16922",
        "UR  - https://arxiv.org/abs/2306.16922", "AB  - Two lines.", "ER  - ", "",
    ]  # fmt: skip
    bare = ListedPaper("x", "X")
    assert csl(bare, "X") == {"id": "x", "type": "article", "title": "X"}
    assert ris(bare, "X") == "TY  - GEN\r\nID  - x\r\nTI  - X\r\nER  - \r\n"
    assert bibtex(bare) == "@misc{x,\n  title = {{X}},\n  note = {author names unknown}\n}"


def test_tags_are_those_of_arxiv():
    assert citation_tags(paper(abstract="Why."), "T") == [
        ("citation_title", "T"), *(("citation_author", name) for name in ("Aaron Spieler", "Bernhard Schölkopf", "Anna Levina")),
        ("citation_publication_date", "2023/06/14"), ("citation_online_date", "2023/06/14"), ("citation_arxiv_id", "2306.16922"),
        ("citation_pdf_url", "https://arxiv.org/pdf/2306.16922"), ("citation_abstract_html_url", "https://arxiv.org/abs/2306.16922"),
        ("citation_abstract", "Why."),
    ]  # fmt: skip


def test_others_are_named_where_the_names_are_fewer_than_the_authors():
    names = ["A One", "B Two"]
    for options, more in (
        ({"authors": 2}, False),
        ({"authors": 3}, True),
        ({}, False),
        ({"authors": 2, "names_cut": True}, True),
    ):
        assert fields(bibtex(paper(names=names, **options)))["author"].endswith("and others") is more
    assert "{The \\alpha case}" in bibtex(ListedPaper("x", "The \\alpha case"))
    assert "{The $a_b$ case}" in bibtex(ListedPaper("x", "The $a_b$ {case"))
    assert "{The $a_{b}$ case}" in bibtex(ListedPaper("x", "The $a_{b}$ case"))
