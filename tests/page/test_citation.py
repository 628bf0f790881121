import re

import pytest

from broadsheet.page.catalogue import ListedPaper
from broadsheet.page.citation import bibtex, citation_tags


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
