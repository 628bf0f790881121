"""The verb that decontaminates, on small files of each kind; interruption; mistakes."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from broadsheet.cli import language_decontaminate
from broadsheet.cli.app import app
from broadsheet.errors import BroadsheetError
from broadsheet.language import ngram_index
from broadsheet.language.rows import read_rows

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "home"))


def run(*words):
    """What is printed, and what is said beside it; a mistake, as the sentence that it gets."""
    found = CliRunner().invoke(app, ["language", "decontaminate", *map(str, words)])
    if isinstance(found.exception, BroadsheetError):
        return "", str(found.exception)
    if isinstance(found.exception, SystemExit) and found.exit_code == 2:
        return "", found.stderr
    if found.exception is not None:
        raise found.exception
    return found.stdout, found.stderr


def words(rng, count):
    return " ".join(f"w{k}" for k in rng.integers(0, 3000, count))


def rows(count=60, every=6):
    """Prompts of two evaluations, and conversations of which one of every six has a prompt of the first."""
    rng = np.random.default_rng(0)
    prompts = [words(rng, 20) for _ in range(100)]
    made = []
    for k in range(count):
        asked = words(rng, 30) if k % every else f"{words(rng, 5)} {prompts[k]} é"
        made.append({"id": k, "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": prompts[1]}]})
    return prompts[:80], prompts[80:], made


def lines(path, some):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some), "utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    first, second, made = rows()
    return {
        "train": lines(tmp_path / "train.jsonl", made),
        "first": lines(tmp_path / "first.jsonl", [{"question": text} for text in first]),
        "second": lines(tmp_path / "second.jsonl", [{"passage": text, "question": "short"} for text in second]),
    }


def test_lines_are_searched_cleaned_and_reported(files, tmp_path):
    clean, report = tmp_path / "clean.jsonl", tmp_path / "report.json"
    said, _ = run(
        files["train"], "--against", files["first"], "--against", f"{files['second']}:passage,question",
        "--out", clean, "--report", report, "--json",
    )  # fmt: skip
    found = json.loads(said)
    assert json.loads(report.read_text()) == found
    assert report.with_suffix(".png").stat().st_size > 5000
    assert found["removed"] == {str(files["train"]): 10}
    assert found["kept"] == 50
    assert found["matches_counted"] == 10
    assert {match["overlap"] for match in found["matches"]} == {1.0}
    assert [(row["prompts"], row["contaminated"], row["over_rule"]) for row in found["rows"]] == [
        (80, 10, True),
        (20, 0, False),
    ]
    there = files["train"].read_text("utf-8").splitlines(keepends=True)
    assert clean.read_text("utf-8") == "".join(line for k, line in enumerate(there) if k % 6)


def test_the_table_names_what_is_over_the_rule(files):
    said, _ = run(files["train"], "--against", files["first"], "--against", files["second"])
    assert "12.5" in said
    assert f"More than 2 % matched: {files['first']}." in said
    kept, _ = run(files["train"], "--against", files["first"], "--tolerate", 0.2, "--json")
    assert json.loads(kept)["removed"] == {str(files["train"]): 0}


def test_files_of_every_kind_are_read_and_written(files, tmp_path):
    import datasets
    import pyarrow
    import pyarrow.parquet

    _, _, made = rows()
    flat = [{"id": row["id"], "prompt": row["messages"][0]["content"], "answer": 'a "quoted",\nline'} for row in made]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(made), tmp_path / "train.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), tmp_path / "flat.parquet", row_group_size=7)
    with (tmp_path / "train.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(flat[0]))
        table.writeheader()
        table.writerows(flat)
    datasets.DatasetDict({"train": datasets.Dataset.from_list(made)}).save_to_disk(tmp_path / "folder")
    for source, out in [
        ("train.parquet", "a.parquet"), ("flat.parquet", "b.csv"), ("train.csv", "c.csv"), ("train.csv", "d.parquet"),
        ("folder", "e.parquet"), ("folder", "f.jsonl"), ("train.jsonl", "g.parquet"), ("train.csv", "h.tsv"),
    ]:  # fmt: skip
        _, beside = run(tmp_path / source, "--against", files["first"], "--out", tmp_path / out)
        assert not beside.startswith("Error"), beside
        kept = list(read_rows(tmp_path / out))
        assert [int(row["id"]) for row in kept] == [k for k in range(60) if k % 6], (source, out)
        assert list(kept[0]) == list(next(read_rows(tmp_path / source)))
    assert list(read_rows(tmp_path / "a.parquet")) == [row for k, row in enumerate(made) if k % 6]
    assert pyarrow.parquet.read_schema(tmp_path / "a.parquet") == pyarrow.parquet.read_schema(tmp_path / "train.parquet")


def test_it_goes_on_where_it_was_stopped(files, monkeypatch):
    monkeypatch.setattr(language_decontaminate, "TOGETHER", 7)
    command = (files["train"], "--against", files["first"], "--json")
    whole = json.loads(run(*command)[0])
    real, seen = ngram_index.PromptIndex.search, []

    def search(self, items):
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(self, items)

    monkeypatch.setattr(ngram_index.PromptIndex, "search", search)
    CliRunner().invoke(app, ["language", "decontaminate", *map(str, command)])
    assert len(seen) == 4
    assert json.loads(run(*command)[0]) == whole
    assert len(seen) == 4 + 6  # nine parts of seven rows, of which three were there
    run(*command)
    assert len(seen) == 4 + 6 + 9  # what is finished leaves nothing


def test_several_training_sets_make_a_table(files, tmp_path):
    other = lines(tmp_path / "other.jsonl", [{"prompt": "hello"}])
    said, _ = run(files["train"], other, "--against", files["first"], "--json")
    found = json.loads(said)
    assert [row["contaminated"] for row in found["rows"]] == [10, 0]
    shown, _ = run(files["train"], other, "--against", files["first"])
    assert "training set" in shown


def test_a_row_without_a_text_in_a_field_is_left_out(files, tmp_path):
    some = lines(tmp_path / "some.jsonl", [{"question": None}, {"question": "a b"}])
    said, beside = run(files["train"], "--against", f"{some}:question", "--json")
    assert "1 without a text: left out" in beside
    assert json.loads(said)["rows"][0]["prompts"] == 1


def test_data_sets_of_the_hub_are_streamed(files, monkeypatch):
    import datasets

    asked = []

    def load_dataset(name, configuration, *, split, streaming):
        asked.append((name, configuration, split, streaming))
        return iter(json.loads(line) for line in files["first"].read_text("utf-8").splitlines())

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    said, _ = run("owner/chat", "--against", "openai/gsm8k@main", "--against", "google/ifeval@/train:question", "--json")
    assert [row["contaminated"] for row in json.loads(said)["rows"]] == [80, 80]
    assert asked == [
        ("openai/gsm8k", "main", "test", True), ("google/ifeval", None, "train", True), ("owner/chat", None, "train", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("train", "against", "more", "said"),
    [
        ("nothing.jsonl", "first", (), "there is no such file or folder"),
        ("train", "nothing/here/at/all", (), "there is no such file or folder"),
        ("text.txt", "first", (), "rows are read from .jsonl"),
        ("broken.jsonl", "first", (), "line 2: a JSON object a line is wanted"),
        ("list.jsonl", "first", (), "line 1: a JSON object a line is wanted"),
        ("empty.jsonl", "empty.jsonl", (), "has no prompt"),
        ("other.jsonl", "first", (), "row 0, has the columns answer"),
        ("train", "first", ("--columns", "asked"), "asked is wanted"),
        ("train", "first", ("--out", "clean.txt"), "rows are written as .jsonl"),
        ("train", "first", ("--report", "report.txt"), "findings are written as .json"),
        ("train", "first", ("--against", "FIRST"), "is named twice"),
        ("train", "first", ("--threshold", "50"), "--threshold"),
        ("latin.csv", "first", (), "it cannot be read"),
        ("ragged.csv", "first", (), "has not as many fields as the header"),
        ("wrong.parquet", "first", (), "is no Parquet file"),
        ("wrong.jsonl.gz", "first", (), "it cannot be read"),
        ("folder", "first", (), "cannot be read from that folder"),
    ],
)
def test_mistakes_get_a_sentence(files, tmp_path, monkeypatch, train, against, more, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "broken.jsonl").write_text('{"prompt": "x"}\n{"prompt": ')
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "other.jsonl").write_text('{"answer": "x"}\n')
    (tmp_path / "latin.csv").write_bytes("prompt\ncafé\n".encode("latin1"))
    (tmp_path / "ragged.csv").write_text("prompt,answer\nx\n")
    (tmp_path / "wrong.parquet").write_text("PAR1 no")
    (tmp_path / "wrong.jsonl.gz").write_text("no gzip")
    (tmp_path / "folder").mkdir()
    more = [str(files["first"]) if word == "FIRST" else word for word in more]
    _, sentence = run(files.get(train, train), "--against", files.get(against, against), *more)
    assert said in sentence
    assert "Traceback" not in sentence


def test_an_empty_training_set_is_clean(files, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    found = json.loads(run(tmp_path / "empty.jsonl", "--against", files["first"], "--out", tmp_path / "o.parquet", "--json")[0])
    assert found["kept"] == 0
    assert list(read_rows(tmp_path / "o.parquet")) == []
