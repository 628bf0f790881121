import json
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
