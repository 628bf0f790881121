"""Shared n-grams against a plain scan and the official program's own scores; what is removed; mistakes."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.errors import InputError
from broadsheet.language import ngram_index
from broadsheet.language.decontamination import Match, decontaminate, turns_of
from broadsheet.language.ngram_index import Overlaps, PromptIndex, tokens

ROOT = Path(__file__).parents[2]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def plain_scan(items, prompts, n):
    """(item, prompt, overlap) of all that share an n-gram: every text beside every prompt, token by token."""
    found = []
    for item, texts in enumerate(items):
        for number, fields in enumerate(prompts):
            best = 0.0
            for text in texts:
                words = tokens(text)
                there = {tuple(words[k : k + n]) for k in range(len(words) - n + 1)}
                shares = []
                for asked in map(tokens, fields):
                    marked = {
                        at for k in range(len(asked) - n + 1) if tuple(asked[k : k + n]) in there for at in range(k, k + n)
                    }
                    shares.append(len(marked) / len(asked) if asked else 0.0)
                best = max(best, sum(shares) / len(fields))
            if best:
                found.append((item, number, best))
    return found


def searched(items, prompts, n):
    return list(zip(*(column.tolist() for column in Overlaps.joined(list(PromptIndex(prompts, n).search(items)))), strict=True))


text = st.lists(st.sampled_from(["a", "B", "c", "!", "İ", "1_0"]), max_size=12).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(
    items=st.lists(st.lists(text, max_size=3), max_size=6),
    prompts=st.lists(st.lists(text, min_size=1, max_size=3), max_size=6),
    n=st.integers(1, 4),
    sizes=st.tuples(st.sampled_from([1, 30, 2**18]), st.sampled_from([1, 7, 2**20])),
)
def test_pairs_and_overlaps_are_those_of_a_plain_scan(items, prompts, n, sizes):
    before = ngram_index.BLOCK, ngram_index.EXPANDED
    ngram_index.BLOCK, ngram_index.EXPANDED = sizes
    try:
        assert searched(items, prompts, n) == plain_scan(items, prompts, n)
    finally:
        ngram_index.BLOCK, ngram_index.EXPANDED = before


def test_a_hash_that_collides_is_drawn_again_and_one_that_agrees_by_chance_is_no_match(monkeypatch):
    draws = []

    class Poor:
        """Codes of one bit, at first; then real ones."""

        def __init__(self):
            self.real = np.random.Generator(np.random.PCG64(len(draws)))
            draws.append(self)

        def integers(self, low, high, size, dtype):
            found = self.real.integers(low, high, size, dtype)
            return found % np.uint64(2) if len(draws) < 4 else found

    monkeypatch.setattr(ngram_index.np.random, "default_rng", Poor)
    prompts = [[" ".join(LETTERS[k : k + 8])] for k in range(18)]
    index = PromptIndex(prompts, 8)
    assert len(draws) == 4
    index._codes[:] = index._codes[1]  # every n-gram has one hash now
    index._keys, index._starts = index._windows(index._ids)[1][:1], np.array([0, 1])
    index._there[:] = True
    assert not list(index.search([["h g f e d c b a"]]))


def test_overlaps_are_those_of_the_official_program():
    spec = importlib.util.spec_from_file_location("references_verifiers", ROOT / "bench" / "references_verifiers.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    theirs = json.loads((ROOT / "tests/references/post_training/verifiers.json").read_text())["overlaps"]
    items, prompts = made.prompts(200, 3, "train"), made.prompts(60, 3, "eval")
    ours = searched(items, prompts, 8)
    assert {(item, prompt) for item, prompt, _ in theirs} == {(item, prompt) for item, prompt, _ in ours}
    apart = [
        (mine, float(other[2]))
        for mine, other in zip(ours, sorted(map(tuple, theirs)), strict=True)
        if abs(mine[2] - other[2]) > 1e-12
    ]
    for (_, prompt, overlap), other in apart:  # they mark an n-gram that comes twice in a prompt where it last comes
        assert overlap > other
        assert any(
            len({tuple(words[k : k + 8]) for k in range(len(words) - 7)}) < len(words) - 7
            for words in map(tokens, prompts[prompt])
        )
    assert len(apart) < len(ours) / 10


def planted(seed=0, items=2000, every=10):
    """Prompts of 20 words, items with one of every ten holding a prompt whole, and which those are."""
    rng = np.random.default_rng(seed)

    def words(count):
        return " ".join(f"w{k}" for k in rng.integers(0, 5000, count))

    prompts = [words(20) for _ in range(500)]
    made = [words(40) for _ in range(items)]
    chosen = np.arange(0, items, every)
    for k in chosen:
        made[k] = f"{words(10)} {prompts[rng.integers(500)].upper()}, {words(10)}"
    return prompts, made, chosen


def test_what_is_planted_is_found_and_nothing_else():
    prompts, items, chosen = planted()
    clean, report = decontaminate(items, {"test": prompts})
    assert report.removed["train"] == chosen.tolist()
    assert clean == [item for k, item in enumerate(items) if k % 10]
    assert {match.overlap for match in report.matches} == {1.0}
    [row] = report.rows
    assert row.contaminated == len({match.prompt for match in report.matches})
    assert row.over_rule
    assert report.table() == {"test": {"train": row.percent}}


def test_an_overlap_of_half_is_none_and_of_more_is_one():
    prompt = " ".join(LETTERS[:16])
    half, more = " ".join(LETTERS[:8]), " ".join(LETTERS[:9])
    clean, report = decontaminate([half, more], [prompt])
    assert clean == [half]
    assert report.matches == [Match("train", 1, "evaluation", 0, 9 / 16)]
    assert decontaminate([half, more], [prompt], threshold=0.49)[0] == []


def test_only_a_users_turns_count_and_each_by_itself():
    asked = " ".join(LETTERS[:16])
    first, second = " ".join(LETTERS[:8]), " ".join(LETTERS[8:16])
    said = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": asked}]}
    parted = [{"role": "user", "content": first}, {"role": "user", "content": second}]
    shared = {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": "Yes"}]}
    assert decontaminate([said, parted, shared], [asked])[0] == [said, parted]


def test_fields_are_averaged():
    first, second = " ".join(LETTERS[:8]), " ".join(LETTERS[8:16])
    clean, report = decontaminate([first], {"a": [(first, second)], "b": [first]})
    assert [(match.evaluation, match.overlap) for match in report.matches] == [("b", 1.0)]
    assert decontaminate([first + " " + second], {"a": [(first, second)]})[1].matches[0].overlap == 1.0


def test_what_touches_few_prompts_stays_where_so_much_is_tolerated():
    prompts, _, _ = planted()
    items = [*prompts[:10], *prompts[300:320]]
    evals = {"a": prompts[:300], "b": prompts[300:]}  # 10 of 300 and 20 of 200
    clean, report = decontaminate(items, evals, tolerated=0.04)
    assert clean == items[:10]
    assert [row.contaminated for row in report.rows] == [10, 20]
    assert len(report.matches) == 30
    assert decontaminate(iter(items[:6]), evals, tolerated=0.02)[0] == items[:6]  # 2 % are not more than 2 %
    assert decontaminate(prompts[:29], {"a": prompts[:100]}, tolerated=0.29)[0] == prompts[:29]


def test_several_training_sets_make_a_table():
    prompts, items, _ = planted(items=100)
    clean, report = decontaminate({"one": items, "two": prompts[:5]}, {"a": prompts, "b": ["a b c"]})
    assert clean["two"] == []
    assert report.table()["a"]["two"] == 1.0
    assert [row.short for row in report.rows] == [0, 1, 0, 1]
    assert report.table()["b"] == {"one": 0.0, "two": 0.0}
    assert json.loads(json.dumps(report.to_dict()))["removed"]["two"] == [0, 1, 2, 3, 4]


def test_a_data_set_stays_one():
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"prompt": [" ".join(LETTERS[:10]), "hello"], "label": [1, 2]})
    clean, _ = decontaminate(rows, {"a": [{"question": " ".join(LETTERS[:10])}]})
    assert clean["label"] == [2]


@pytest.mark.parametrize(
    ("train", "evals", "options", "said"),
    [
        (["x"], {}, {}, "no evaluation"),
        ("x", ["x"], {}, "training set train is 'x'; items"),
        (3, ["x"], {}, "training set train is '3'"),
        (["x"], "x", {}, "evaluation evaluation is 'x'; prompts"),
        (["x"], {"a": []}, {}, "a has no prompt"),
        ([3], ["x"], {}, "item 0 of train is '3'"),
        ([{"answer": "x"}], ["x"], {}, "has the columns answer"),
        ([{"messages": [{"role": "user"}]}], ["x"], {}, "in place of a text"),
        (["x"], [None], {}, "prompt 0 of evaluation"),
        (["x"], ["x"], {"n": 0}, "n is 0"),
        (["x"], ["x"], {"threshold": 50}, "threshold is 50"),
    ],
)
def test_mistakes(train, evals, options, said):
    with pytest.raises(InputError, match=said):
        decontaminate(train, evals, **options)


def test_named_columns_are_read():
    row = {"passage": "a", "question": "b", "prompt": "c"}
    assert turns_of(row, columns=["passage", "question"]) == ["a", "b"]
    assert turns_of(row) == ["c"]
    with pytest.raises(InputError, match="title is wanted"):
        turns_of(row, columns=["title"])
