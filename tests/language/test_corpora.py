"""Corpora from files in the forms in which they are kept, and by name through a package that is not here."""

import gzip
import json
import sys
from types import SimpleNamespace

import pytest

from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.language.corpora import read_corpus

ROWS = [{"text": "One.\nTwo.", "timestamp": "2019-04-25T12:57:54Z", "url": "https://a.example"}, {"text": "Three, ü."}]


@pytest.mark.parametrize("name", ["c4.jsonl", "c4-train.00000-of-01024.json.gz"])
def test_lines_of_json_as_c4_has_them(name, tmp_path):
    opened = gzip.open if name.endswith("gz") else open
    with opened(tmp_path / name, "wt", encoding="utf-8") as stream:
        stream.write("\n".join(map(json.dumps, ROWS)) + "\n\n")
    assert read_corpus(str(tmp_path / name)) == ["One.\nTwo.", "Three, ü."]
    assert read_corpus(str(tmp_path / name), most=1) == ["One.\nTwo."]


def test_a_text_file_is_one_text(tmp_path):
    (tmp_path / "wiki.test.txt").write_text(" = Robert = \n \n Robert is . \n")
    assert read_corpus(str(tmp_path / "wiki.test.txt")) == [" = Robert = \n \n Robert is . \n"]


def test_names_are_asked_of_the_package(monkeypatch):
    asked = []

    def load_dataset(place, kind, *, split, streaming):
        asked.append((place, kind, split, streaming))
        return iter(ROWS)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert read_corpus("c4", "train", most=1) == ["One.\nTwo."]
    assert read_corpus("wikitext-2", "test") == ["One.\nTwo.\n\nThree, ü."]
    assert asked == [("allenai/c4", "en", "train", True), ("Salesforce/wikitext", "wikitext-2-raw-v1", "test", True)]

    def unreachable(*place, **options):
        raise ConnectionError("Couldn't reach 'allenai/c4' on the Hub")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=unreachable))
    with pytest.raises(MissingDataError, match="c4 cannot be read from allenai/c4: Couldn't reach"):
        read_corpus("c4")


@pytest.mark.parametrize(
    ("name", "content", "kind", "said"),
    [
        ("a.jsonl", b'{"text": "a"}\nnot json\n', DataError, "line 2: it is no JSON"),
        ("a.jsonl", b'{"words": "a"}\n', DataError, "line 1: an object with a field 'text'"),
        ("a.jsonl", b"\xff\xfe\n", DataError, "cannot be read"),
        ("a.json.gz", b"not gzip", DataError, "cannot be read"),
        ("a.parquet", b"PAR1", InputError, "a .txt, .jsonl or .json.gz file is wanted"),
        (None, b"", MissingDataError, "is no corpus: c4, wikitext-2, or"),
    ],
)
def test_mistakes_get_a_sentence(name, content, kind, said, tmp_path):
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(kind, match=said):
        read_corpus(str(tmp_path / (name or "b.txt")))


def test_without_the_package_it_says_what_to_get(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDataError, match="pip install datasets"):
        read_corpus("c4")
