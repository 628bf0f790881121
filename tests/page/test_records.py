import json
import unicodedata
from datetime import date

import pytest
from records import records

from broadsheet.errors import DataError
from broadsheet.page import Catalogue, bibtex
from broadsheet.page import records as records_module
from broadsheet.page.facts import Facts
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


def read(tmp_path, *given, name="papers.jsonl"):
    (tmp_path / name).write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in given))
    return read_records(tmp_path / name)


def test_each_shape_of_record_in_full(tmp_path):
    hub = {"paper": {"id": "2306.16922", "title": "A", "summary": "S", "upvotes": 7, "authors": [{"name": "Z A"}],
                     "publishedAt": "2023-06-14T13:34:13.000Z", "numComments": 9}, "numComments": 3}  # fmt: skip
    assert read(tmp_path, hub) == ("hub", [Facts("A", "2306.16922", "S", 1, ("Z A",), "2023-06-14", 3, 7)])
    del hub["numComments"]
    assert read(tmp_path, hub)[1][0].comments == 9
    flat = {
        "id": "2306.16922",
        "title": "A",
        "publishedAt": "2023-06-14",
        "upvotes": True,
        "numComments": "many",
        "authors": "Z A",
    }
    assert read(tmp_path, flat) == ("hub", [Facts("A", "2306.16922", published="2023-06-14")])
    own = {
        "title": "A",
        "arxiv": "2306.16922",
        "abstract": "S",
        "authors": 5,
        "names": ["Z A"],
        "published": "2023-06-14",
        "comments": 0,
        "upvotes": 2,
    }
    assert read(tmp_path, own) == ("page", [Facts("A", "2306.16922", "S", 5, ("Z A",), "2023-06-14", 0, 2)])
    empty = {"title": "A", "arxiv": "", "abstract": "", "published": "", "author_names": ["Z A"], "names": []}
    assert read(tmp_path, empty) == ("page", [Facts("A", names=("Z A",))])
    note = {"content": {"title": {"value": "A"}, "abstract": {"value": "S"}, "authors": {"value": ["Z A", "B C"]}},
            "pdate": 86_400_000 * 19_000 - 1, "cdate": 0}  # fmt: skip
    assert read(tmp_path, note) == ("openreview", [Facts("A", None, "S", 2, ("Z A", "B C"), "2022-01-07")])
    note["pdate"] = None
    note["cdate"] = 86_400_000 * 19_000
    assert read(tmp_path, note)[1][0].published == "2022-01-08"
    note["cdate"] = None
    assert read(tmp_path, note)[1][0].published is None
    arxiv = {
        "id": "0704.0001",
        "title": "A",
        "abstract": "",
        "authors_parsed": [["A", "Z.", ""]],
        "versions": None,
        "update_date": "2008-11-26",
    }
    assert read(tmp_path, arxiv) == ("arxiv", [Facts("A", "0704.0001", None, 1, ("Z. A",), "2008-11-26")])


def test_lists_and_lines_are_told_apart_whatever_stands_before_them(tmp_path):
    one = {"title": "A"}
    assert len(read(tmp_path, " \n\t" + json.dumps([one, one]))[1]) == 2
    assert len(read(tmp_path, "", one, "  ", one, "")[1]) == 2
    assert len(read(tmp_path, one, {"notes": [{"content": one}] * 3}, one)[1]) == 5
    with pytest.raises(DataError, match="line 2, note 2: "):
        read(tmp_path, one, {"notes": [{"content": one}, {"content": {"title": None}}]})
    with pytest.raises(DataError, match="line 3 is not JSON"):
        read(tmp_path, one, "", "{")
    with pytest.raises(DataError, match="record 2 is no paper"):
        read(tmp_path, json.dumps([one, {"title": "A", "names": 3}]))
    with pytest.raises(DataError, match="There is no file"):
        read_records(tmp_path / "none.json")
    assert [records_module.is_records(name) for name in ("a.JSON", "a.ndjson", "a.bib", "a.txt", "json")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_files_at_their_limits(tmp_path, monkeypatch):
    line = json.dumps({"title": "A"})
    for name, limit, said in (
        ("LONGEST_LINE", len(line), "line 1 is longer than"), ("LARGEST", len(line), "is larger than"), ("MOST", 1, "more than 0 records"),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(records_module, name, limit)
            assert len(read(tmp_path, line)[1]) == 1
            patch.setattr(records_module, name, limit - 1)
            with pytest.raises(DataError, match=said):
                read(tmp_path, line)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, ()), ([], ()), (["A B", None, {"name": ""}, {"fullname": "C D"}, {"name": "E F", "fullname": "G"}], ("A B", "C D", "E F")),
        ("A B", ("A B",)), ("A B and C D", ("A B", "C D")), ("A B, C D, and E F", ("A B", "C D", "E F")), ("A B; C D", ("A B", "C D")),
        ("Last, First and Other, Second M.", ("First Last", "Second M. Other")), ("A B (Zurich, Bern), C D", ("A B", "C D")),
        ("A B, et al.", ("A B", "et al.")), ("A B and others", ("A B", "others")),
    ],
)  # fmt: skip
def test_people_in_any_form(given, names):
    assert tuple(" ".join(name.split()) for name in records_module.people(given)) == names


@pytest.mark.parametrize("given", ["Plato", "A B, Plato", {"name": "A B"}, 7, ["A B", 7], "A B, C and D E"])
def test_what_names_nobody(given):
    with pytest.raises(ValueError, match="no names"):
        records_module.people(given)


def test_bibtex_in_its_corners(tmp_path):
    text = r"""
@article (first, title = "A {quoted \"} title", TITLE = {second}, note = {see https://arxiv.org/abs/2306.16922v2 there}, year = soon,
  month = 6, day = 1)
@misc{second, title = {An \{open\} one -- and --- more~space}, abstract = {}, author = {others}, howpublished = {arXiv:2306.16923}}
@misc{third, title = {A $x_{1}$ and {B}}, author = { Last , First , extra, one and  A B }, doi = {10.48550/arXiv.2306.16924}, year = 2023, month = {June}, day = 2}
"""
    first, second, third = read(tmp_path, text, name="refs.bib")[1]
    assert (first.title, first.arxiv, first.published) == ('A quoted \\" title', "2306.16922", None)
    assert (second.title, second.abstract, second.names, second.authors, second.names_cut) == (
        "An {open} one \u2013 and \u2014 more space", None, None, None, True,
    )  # fmt: skip
    assert (second.arxiv, third.arxiv) == ("2306.16923", "2306.16924")
    assert (third.title, third.names, third.published) == ("A $x_{1}$ and {B}", ("Last First extra one", "A B"), "2023-06-02")
    assert bibtex.facts({"title": "T"}) == Facts("T")
    for month, wanted in (("13", "no day"), ("0", None), ("x", None), ("", None)):
        fields = {"title": "T", "year": "2023", "month": month, "day": "2"}
        if wanted is None:
            assert bibtex.facts(fields).published is None
        else:
            with pytest.raises(DataError, match="YYYY-MM-DD"):
                bibtex.facts(fields)
    for cut in (
        "@misc{x, title = {a}",
        "@misc{x, title = {a}, year 3}",
        '@misc{x, title = "a}',
        "@misc{x, title = {a\\}}",
        "@misc{x, title = ,}",
    ):
        with pytest.raises(DataError, match="is not whole"):
            list(bibtex.entries(cut))
