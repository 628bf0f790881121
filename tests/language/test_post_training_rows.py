"""Training data from files, folders and lists, in the columns that trainers take; and what is wrong with it, in a sentence."""

import json

import pytest
from datasets import Dataset, DatasetDict

from broadsheet.errors import BroadsheetError
from broadsheet.language.characters import character_tokenizer
from broadsheet.language.post_training.rows import (
    first_as_long,
    for_fine_tuning,
    for_preferences,
    for_reinforcement,
    identity,
    read_rows,
)

QUESTION = {"role": "user", "content": "1+1=?"}
ANSWER = {"role": "assistant", "content": "2"}
ROWS = [{"messages": [QUESTION, ANSWER], "number": number} for number in range(5)]


@pytest.fixture
def written(tmp_path, home):
    """A function that writes rows as JSON lines."""

    def write(rows, name="rows.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / name

    return write


def test_the_same_rows_are_the_same_wherever_they_are(written, tmp_path):
    listed = read_rows(ROWS)
    Dataset.from_list(ROWS).to_parquet(tmp_path / "rows.parquet")
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "disk")
    DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[:2])}).save_to_disk(tmp_path / "splits")
    written(ROWS, "folder/train-0.jsonl"), written(ROWS[:2], "folder/test.jsonl")
    for data, split in [
        (written(ROWS), None), (tmp_path / "rows.parquet", None), (tmp_path / "disk", None), (tmp_path / "splits", None),
        (tmp_path / "splits", "train"), (tmp_path / "folder", "train"), (listed.select([4, 3, 2, 1, 0]).select([4, 3, 2, 1, 0]), None),
    ]:  # fmt: skip
        assert identity(read_rows(data, split)) == identity(listed), (data, split)
    assert identity(read_rows(ROWS[::-1])) != identity(listed) != identity(read_rows(tmp_path / "splits", "test"))
    assert identity(listed.rename_column("number", "n")) != identity(listed)


def test_columns_get_their_names_and_texts_become_turns():
    rows = read_rows(
        [{"question": "1+1=?", "answer": 2, "prompt": "x"}], columns={"prompt": "question", "label": "answer"}, chat=True
    )
    assert for_reinforcement(rows)[0] == {"prompt": [QUESTION], "label": 2}
    swapped = read_rows([{"chosen": "a", "rejected": "b"}], columns={"chosen": "rejected", "rejected": "chosen"})
    assert swapped[0] == {"chosen": "b", "rejected": "a"}


def test_whole_conversations_become_prompts_and_answers():
    other = {"role": "assistant", "content": "3"}
    pairs = for_preferences(read_rows([{"prompt": "unused", "chosen": [QUESTION, ANSWER], "rejected": [QUESTION, other]}]))
    assert pairs[0] == {"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [other]}
    assert for_reinforcement(read_rows(ROWS))[0] == {"prompt": [QUESTION], "number": 0}
    assert for_fine_tuning(read_rows(ROWS)).column_names == ["messages"]
    with pytest.raises(BroadsheetError, match="Pair 1: chosen and rejected differ before"):
        for_preferences(read_rows([{"chosen": [QUESTION, ANSWER], "rejected": [ANSWER, other]}]))


@pytest.mark.parametrize("limit", [7, 13, 14, 400])
def test_the_first_long_prompt_is_found_as_one_that_is_counted(limit):
    words = character_tokenizer()
    texts = ["a", "b" * 10, "c" * 300, "d" * 500]
    rows = read_rows([{"prompt": [{"role": "user", "content": text}]} for text in texts])
    counted = [len(f"u\n{text}\na\n") for text in texts]  # a token is a character or a role
    expected = next(((number, count) for number, count in enumerate(counted) if count >= limit), None)
    assert first_as_long(rows, words, limit) == expected


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("", "is empty"),
        ("\n\n", "has no rows"),
        ('{"a": 1}\n{"a"\n', "line 2: a JSON object is wanted"),
        ("nonsense\n", "line 1: a JSON object is wanted"),
        ('{"a": 1}\n', "there is no 'prompt' among a"),
    ],
)
def test_a_file_that_is_none_is_told_in_one_sentence(lines, says, tmp_path, home):
    (tmp_path / "rows.jsonl").write_text(lines)
    with pytest.raises(BroadsheetError, match=says):
        for_fine_tuning(read_rows(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (lambda folder: read_rows(folder / "none.jsonl"), "no such file"),
        (lambda folder: read_rows(folder), "no data files"),
        (
            lambda folder: read_rows(ROWS, columns={"label": "answer"}),
            "no column 'answer' .for label.; it has messages, number",
        ),
        (lambda folder: read_rows(ROWS, columns={"a": "number", "b": "number"}), "given two names"),
        (lambda folder: read_rows([]), "no rows"),
        (lambda folder: read_rows([1, 2]), "dictionaries"),
        (lambda folder: read_rows([{"a": 1}, {"a": "x"}]), "not alike"),
        (lambda folder: for_preferences(read_rows(ROWS)), "no 'chosen'"),
        (lambda folder: for_reinforcement(read_rows([{"text": "a"}])), "no 'prompt'"),
    ],
)
def test_what_is_wrong_with_data_is_told_in_one_sentence(read, says, tmp_path, home):
    with pytest.raises(BroadsheetError, match=says):
        read(tmp_path)
