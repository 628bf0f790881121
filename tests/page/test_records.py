import json
import unicodedata
from datetime import date

import pytest
from records import records

from broadsheet.errors import DataError
from broadsheet.page import Catalogue
from broadsheet.page.records import read_records

SNAPSHOT = {
    "id": "0704.0001", "submitter": "P. N.", "authors": "C. Balazs, E. L. Berger", "title": "Calculation of prompt\n  diphoton production",
    "comments": "37 pages", "journal-ref": None, "doi": None, "categories": "hep-ph", "license": None,
    "abstract": "  A fully differential calculation\nin perturbative QCD\n", "update_date": "2008-11-26",
    "versions": [{"version": "v1", "created": "Mon, 2 Apr 2007 19:18:42 GMT"}, {"version": "v2", "created": "Tue, 24 Jul 2007 20:10:27 GMT"}],
    "authors_parsed": [["Balázs", "C.", ""], ["Berger", "E. L.", ""]],
}  # fmt: skip


def test_arxivs_own_metadata(tmp_path):
    file = tmp_path / "arxiv-metadata-oai-snapshot.json"
    file.write_text(json.dumps(SNAPSHOT) + "\n\n" + json.dumps({**SNAPSHOT, "id": "hep-th/9901001", "versions": []}) + "\n")
    source, (first, second) = read_records(file)
    assert source == "arxiv"
    assert (first.title, first.arxiv) == ("Calculation of prompt diphoton production", "0704.0001")
    assert (first.names, first.authors, first.published) == (("C. Balázs", "E. L. Berger"), 2, "2007-04-02")
    assert first.abstract == "A fully differential calculation in perturbative QCD"
    assert (second.arxiv, second.published) == ("hep-th/9901001", "2008-11-26")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no records"),
        ("[]", "no records"),
        ("[1, 2]", "record 1: a int"),
        ('{"title": "x"}\n{"title": ', "line 2 is not JSON"),
        ('{"title": "ok"}\n{"title": null}', "line 2: its title"),
        ('{"title": "x", "authors": "five"}', "line 1 is no paper"),
        ('{"title": "x", "arxiv": "../../etc"}', "arXiv identifier"),
        ('{"title": "x", "published": "soon"}', "YYYY-MM-DD"),
        ('{"title": "x", "names": [1]}', "line 1 is no paper"),
        ('{"title": "\\u202e\\u0000 "}', "without a title"),
        ("[" * 100_000, "not JSON"),
        ('{"title": "' + "x" * 3_000_000 + '"}', "longer than 2 MiB"),
        (b"\xff\xfe\x00", "not JSON"),
    ],
)
def test_a_record_that_is_none_is_named(tmp_path, content, words):
    file = tmp_path / "papers.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=words) as caught:
        read_records(file)
    assert "\n" not in str(caught.value)


def test_odd_characters_are_cleaned(tmp_path):
    file = tmp_path / "papers.jsonl"
    file.write_text(json.dumps({"title": "a\u202eb\u0000c\ud800 d\u2066", "abstract": "x\u0007y " * 3}))
    (paper,) = read_records(file)[1]
    assert paper.title == "ab c d"
    assert paper.abstract == "x y x y x y"


def test_thousands_come_in_at_once_and_only_once(any_home, tmp_path):
    file = tmp_path / "papers.jsonl"
    file.write_text("\n".join(json.dumps(facts.known()) for facts in records(3000)))
    source, papers = read_records(file)
    catalogue = Catalogue()
    done = catalogue.add(source, papers, date(2025, 12, 11))
    assert len(done.new) == 3000
    again = Catalogue().add(source, papers, date(2025, 12, 11))
    assert (again.new, again.changed) == ([], [])
    assert len(Catalogue().papers()) == 3042


BIB = r"""
% a comment
@comment{nothing}
@string{nips = "NeurIPS"}
@article{spieler,
  title = {The {ELM} Neuron: {\"O}sterreich \& more},
  author = "Spieler, Aaron and Nasim {\'A}. Rahaman and {The ELM Team} and {\O}rsted, Jr, Hans and Fran{\c c}ois \v{S}ev\v{c}{\'\i}k",
  journal = {arXiv preprint arXiv:2306.16922},
  year = 2023, month = jun, day = 14
}
@misc(cut, title={Two}, author={A One and B Two and others}, eprint={math.GT/0309136}, archivePrefix={arXiv}, date={2003-09-08})
"""


def test_bibtex_gives_names_in_their_order(tmp_path):
    file = tmp_path / "refs.bib"
    file.write_text(BIB)
    source, (first, second) = read_records(file)
    assert source == "bibtex"
    assert first.title == "The ELM Neuron: Österreich & more"
    assert first.names == ("Aaron Spieler", "Nasim Á. Rahaman", "The ELM Team", "Hans Ørsted Jr", "François Ševčík")
    assert (first.arxiv, first.authors, first.published) == ("2306.16922", 5, "2023-06-14")
    assert (second.names, second.names_cut, second.authors) == (("A One", "B Two"), True, None)
    assert (second.arxiv, second.published) == ("math/0309136", "2003-09-08")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (r"{\ae}", "SMALL LETTER AE"), (r"\AE{}", "CAPITAL LETTER AE"), (r"{\oe}", "SMALL LIGATURE OE"), (r"{\OE}", "CAPITAL LIGATURE OE"),
        (r"{\o}", "SMALL LETTER O WITH STROKE"), (r"{\O}", "CAPITAL LETTER O WITH STROKE"), (r"{\l}", "SMALL LETTER L WITH STROKE"),
        (r"{\L}", "CAPITAL LETTER L WITH STROKE"), (r"{\aa}", "SMALL LETTER A WITH RING ABOVE"),
        (r"{\AA}", "CAPITAL LETTER A WITH RING ABOVE"), (r"{\ss}", "SMALL LETTER SHARP S"), (r"\`e", "SMALL LETTER E WITH GRAVE"),
        (r"\'{E}", "CAPITAL LETTER E WITH ACUTE"), (r"{\^o}", "SMALL LETTER O WITH CIRCUMFLEX"), (r"\~n", "SMALL LETTER N WITH TILDE"),
        (r"\={a}", "SMALL LETTER A WITH MACRON"), (r"\u{g}", "SMALL LETTER G WITH BREVE"), (r"\.z", "SMALL LETTER Z WITH DOT ABOVE"),
        (r'\"u', "SMALL LETTER U WITH DIAERESIS"), (r"\r{u}", "SMALL LETTER U WITH RING ABOVE"),
        (r"\H{o}", "SMALL LETTER O WITH DOUBLE ACUTE"), (r"\v{c}", "SMALL LETTER C WITH CARON"), (r"\d{s}", "SMALL LETTER S WITH DOT BELOW"),
        (r"\c{c}", "SMALL LETTER C WITH CEDILLA"), (r"\k{a}", "SMALL LETTER A WITH OGONEK"), (r"\b{d}", "SMALL LETTER D WITH LINE BELOW"),
        (r"\'{\i}", "SMALL LETTER I WITH ACUTE"),
    ],
)  # fmt: skip
def test_letters_of_latex_are_those_of_unicode(tmp_path, written, name):
    (tmp_path / "refs.bib").write_text(f"@misc{{x, title = {{y}}, author = {{B{written}k, A}}}}")
    _, (found,) = read_records(tmp_path / "refs.bib")
    assert found.names == (f"A B{unicodedata.lookup(f'LATIN {name}')}k",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("@misc{x, title = {open", "entry 'x' is not whole"),
        ("@misc{x, title = }", "entry 'x' is not whole"),
        ("@misc{x, author = {A B}}", "entry 'x'.* without a title"),
        ("@misc{x, title = {y}, date = {2023-13-45}}", "entry 'x'.* YYYY-MM-DD"),
        ("nothing", "no records"),
        ("@misc{x, title = " + "{" * 50_000, "not whole"),
    ],
)
def test_bibtex_that_is_none_is_named(tmp_path, content, words):
    file = tmp_path / "refs.bib"
    file.write_text(content)
    with pytest.raises(DataError, match=words):
        read_records(file)


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"names": ["Z A", "B C"]}, ("Z A", "B C")),
        ({"authors": ["Z A", "B C"]}, ("Z A", "B C")),
        ({"authors": [{"name": "Z A"}, {"fullname": "B C"}]}, ("Z A", "B C")),
        ({"authors": "Z A, B C and D E"}, ("Z A", "B C", "D E")),
        ({"authors": "A, Z and C, B"}, ("Z A", "B C")),
        ({"authors": 7}, None),
        (
            {"content": {"title": {"value": "x"}, "authors": {"value": ["Z A", "B C"]}}, "cdate": 1_687_000_000_000},
            ("Z A", "B C"),
        ),
        ({"content": {"title": "x", "authors": ["Z A", "B C"]}}, ("Z A", "B C")),
        ({"paper": {"id": "2306.16922", "authors": [{"name": "Z A"}, {"name": "B C"}]}}, ("Z A", "B C")),
        ({"update_date": "2008-11-26", "id": "0704.0001", "authors": "Z. A\n(1), B. C (2)"}, ("Z. A", "B. C")),
        (
            {"id": "0704.0001", "update_date": "2008-11-26", "authors_parsed": [["A", "Z.", "Jr."], ["C", "B.", ""]]},
            ("Z. A Jr.", "B. C"),
        ),
    ],
)
def test_names_come_from_every_kind_of_record(tmp_path, record, names):
    file = tmp_path / "papers.jsonl"
    file.write_text(json.dumps({"title": "x", **record}))
    assert read_records(file)[1][0].names == names


def test_an_answer_of_openreview_is_many_papers(tmp_path):
    file = tmp_path / "notes.json"
    notes = [{"content": {"title": {"value": f"Paper {k}"}}, "pdate": 1_687_000_000_000} for k in range(3)]
    file.write_text(json.dumps({"notes": notes, "count": 3}))
    source, papers = read_records(file)
    assert source == "openreview"
    assert [paper.title for paper in papers] == ["Paper 0", "Paper 1", "Paper 2"]
    assert papers[0].published == "2023-06-17"
