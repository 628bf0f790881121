"""`broadsheet language diversity` on files of answers."""

import json

import pytest

from broadsheet.cli.app import app
from broadsheet.language.diversity.classifier import ClassifierPartitioner, pair_classifier, pair_tokenizer
from commands import call as run

ROWS = [
    ("7=", "3+4", "a", True), ("7=", "4+3", "a", True), ("7=", "9-2", "b", True), ("7=", "1+1", "c", False),
    ("2=", "1+1", "a", True), ("2=", "1+1", "a", True), ("2=", "2*1", "b", True), ("2=", "5", "c", False),
]  # fmt: skip


@pytest.fixture
def answers(tmp_path):
    file = tmp_path / "answers.jsonl"
    names = ("prompt", "response", "meaning", "correct")
    file.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in ROWS))
    return file


def test_by_a_key_with_findings_and_a_figure(answers, tmp_path):
    found = json.loads(run("language", "diversity", answers, "--key", "meaning", "--out", tmp_path / "o.json", "--json").stdout)
    assert found["classes"] == 3
    assert found["distinct"] == {"1": 1.0, "2": pytest.approx(11 / 6), "4": 3.0}
    assert found["pass"] == {"1": 0.75, "2": 1.0, "4": 1.0}
    assert found["distinct_correct"]["4"] == 2.0
    assert [group["classes"] for group in found["groups"]] == [[0, 0, 1, 2]] * 2
    assert json.loads((tmp_path / "o.json").read_text()) == found
    assert (tmp_path / "o.png").stat().st_size > 5000


def test_by_equal_texts_and_by_a_classifier(answers, tmp_path):
    assert json.loads(run("language", "diversity", answers, "--json").stdout)["classes"] == 3.5
    words = pair_tokenizer()
    pair_classifier(words, 0).save_pretrained(tmp_path / "pairs")
    words.save_pretrained(tmp_path / "pairs")
    how = ("--classifier", tmp_path / "pairs", "--no-short-rule", "--json")
    all_alike = json.loads(run("language", "diversity", answers, "--threshold", "0", *how).stdout)
    none_alike = json.loads(run("language", "diversity", answers, "--threshold", "1", *how).stdout)
    assert (all_alike["classes"], none_alike["classes"]) == (1, 3.5)
    assert (
        "answers to 2 prompts, the same by" in run("language", "diversity", answers, "--classifier", tmp_path / "pairs").stdout
    )


@pytest.mark.parametrize(
    ("options", "content", "said"),
    [
        (("--key", "x"), None, "row 1 has no column 'x'; it has prompt, response, meaning, correct"),
        (("--k", "9"), None, "k is 9; from 1 to the largest number of answers to a prompt, 4"),
        (("--k", "two"), None, "whole numbers, separated by commas"),
        (("--key", "meaning", "--classifier", "m"), None, "one of them is wanted"),
        (("--classifier", "/no/such"), None, "there is no such folder"),
        (("--out", "o.txt"), None, "findings are written as .json"),
        ((), "", "has no rows"),
        ((), '{"prompt": "a", "response": 3}', "row 1: response is '3'; a text is wanted"),
        ((), '{"prompt": "a", "response": "b", "correct": NaN}', "row 1: correct is 'nan'; true or false"),
        ((), '{"prompt": "a", "response": "b"}\nno', "line 2: a JSON object a line is wanted"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(answers, options, content, said):
    if content is not None:
        answers.write_text(content)
    failed = run("language", "diversity", answers, *options, code=2)
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr


def test_interrupted_it_goes_on_with_the_prompts_that_are_left(answers, tmp_path, home, monkeypatch):
    words = pair_tokenizer()
    pair_classifier(words, 0).save_pretrained(tmp_path / "pairs")
    words.save_pretrained(tmp_path / "pairs")
    monkeypatch.setattr("broadsheet.cli.language_diversity.AT_ONCE", 1)
    judged, whole = [], ClassifierPartitioner.partition_groups

    def stopped(self, groups):
        judged.append(groups)
        if len(judged) == 2:
            raise RuntimeError("stopped")
        return whole(self, groups)

    monkeypatch.setattr(ClassifierPartitioner, "partition_groups", stopped)
    with pytest.raises(RuntimeError, match="stopped"):
        app(["language", "diversity", str(answers), "--classifier", str(tmp_path / "pairs")], standalone_mode=False)
    run("language", "diversity", answers, "--classifier", tmp_path / "pairs")
    assert judged[1:] == [judged[1]] * 2
