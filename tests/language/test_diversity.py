"""Classes of answers, Div and its fusion with quality, counts, and the reward that TRL calls."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from broadsheet.errors import InputError, JobError
from broadsheet.language.diversity.ngrams import NGramDiversity
from broadsheet.language.diversity.partitions import (
    FunctionPartitioner,
    OraclePartitioner,
    closed,
    group_rows,
    short_answers_alike,
)
from broadsheet.language.diversity.rewards import DarlingReward
from broadsheet.language.diversity.scores import (
    darling_reward,
    distinct_at_k,
    diversity,
    diversity_of_correct,
    fuse,
    pass_at_k,
)

OFFICIAL = Path(__file__).parents[1] / "references" / "diversity.npz"


def overlap(one, other):
    """What stood for the classifier when the official functions ran."""
    first, second = set(one.split()), set(other.split())
    return len(first & second) / max(1, len(first | second)) > 0.5


@pytest.fixture(scope="module")
def official():
    """The official functions' values on 1000 groups (bench/references_diversity.py), group by group."""
    with np.load(OFFICIAL) as data:
        held = dict(data)
    cuts = np.flatnonzero(np.diff(held["group"])) + 1
    parts = {name: np.split(values, cuts) for name, values in held.items() if len(values) == len(held["group"])}
    assert len(parts["texts"]) == 1000
    return [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)]


def repeats_itself(group):
    """Whether a short answer that comes twice repeats a word so often that the official rule tells it from itself."""
    texts = group["texts"].tolist()
    return any(texts.count(text) > 1 and short_answers_alike(text, text) is False for text in texts)


def test_partitions_are_the_official_ones_but_for_answers_told_from_themselves(official):
    plain = [group for group in official if not repeats_itself(group)]
    assert len(plain) == 983
    ids = FunctionPartitioner(overlap).partition_groups([group["texts"].tolist() for group in plain])
    for group, found in zip(plain, ids, strict=True):
        np.testing.assert_allclose(diversity(found), group["partition"], rtol=0, atol=1e-15)
    odd = next(group for group in official if group["texts"].tolist()[2:4] == ["the the the"] * 2)
    texts = odd["texts"].tolist()
    assert odd["partition"][2] == odd["partition"][3] == 1  # theirs: no two alike
    assert diversity(FunctionPartitioner(overlap).partition(texts))[2] == 0.75


def test_partitions_of_correct_answers_are_the_official_ones(official):
    for group in (group for group in official if not repeats_itself(group)):
        right = group["correct"].tolist()
        kept = [text for text, one in zip(group["texts"].tolist(), right, strict=True) if one]
        left = iter(FunctionPartitioner(overlap).partition(kept))
        found = diversity_of_correct([next(left) if one else -1 for one in right], right)
        np.testing.assert_allclose(found, group["partition_correct"], rtol=0, atol=1e-15)


@pytest.mark.parametrize("n", [2, 4])
def test_ngrams_are_the_official_ones(official, n):
    for group in official:
        np.testing.assert_array_equal(NGramDiversity(n).scores(group["texts"].tolist()), group[f"ngram{n}"])


def test_fusions_are_the_official_ones_but_for_what_is_overwritten_or_added_at_every_token(official):
    for group in official:
        q, d = group["quality"].astype(float), group["partition"]
        same = {"rtol": 0, "atol": 2e-6}  # theirs are float32
        np.testing.assert_allclose(q * d, group["multiply"], **same)
        np.testing.assert_allclose(fuse(q, d, bias=True), group["multiply_bias"], **same)
        np.testing.assert_allclose(fuse(q, d, "add", weights=(0.5, 2.0)), group["add"], **same)
        np.testing.assert_allclose(fuse(q, d, "zscore"), group["z_quality"] + group["z_div"], rtol=0, atol=3e-5)
        np.testing.assert_allclose(q + d, group["zscore_asked_for"], **same)  # z-scores are overwritten by the sum
        np.testing.assert_allclose((q - 7 * q.min()) * d, group["multiply_bias_of_7_tokens"], **same)  # seven times the bias


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12), st.randoms())
def test_div_is_the_share_of_the_others_that_differ_in_any_order(ids, rng):
    ids = np.array(ids)
    wanted = [np.delete(ids != ids[k], k).mean() for k in range(len(ids))]
    np.testing.assert_allclose(diversity(ids, 0.0), wanted, atol=1e-15)
    order = list(range(len(ids)))
    rng.shuffle(order)
    np.testing.assert_array_equal(diversity(ids[order]), diversity(ids)[order])


def test_div_where_it_is_known():
    np.testing.assert_allclose(diversity([0, 0, 0, 0, 1, 1, 2, 3]), np.array([4, 4, 4, 4, 6, 6, 7, 7]) / 7)
    assert diversity([5, 5]).tolist() == [0.1, 0.1]
    assert diversity([3]).tolist() == [0.1]


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12))
def test_closing_pairs_gives_connected_components(n, pairs):
    pairs = [(a % n, b % n) for a, b in pairs]
    graph = coo_array((np.ones(len(pairs)), tuple(np.array(pairs, int).reshape(-1, 2).T)), shape=(n, n))
    _, wanted = connected_components(graph, directed=False)
    assert closed(n, pairs) == np.unique(wanted, return_inverse=True)[1].tolist()


@given(st.lists(st.sampled_from([None, 0, 1, 2]), min_size=1, max_size=7), st.data())
def test_counts_are_means_over_all_draws(ids, data):
    k = data.draw(st.integers(1, len(ids)))
    draws = list(combinations(ids, k))
    assert distinct_at_k(ids, k) == pytest.approx(np.mean([len({one for one in draw if one is not None}) for draw in draws]))
    right = sum(one is not None for one in ids)
    assert pass_at_k(len(ids), right, k) == pytest.approx(np.mean([any(one is not None for one in draw) for draw in draws]))


def test_counts_refuse_what_cannot_be_drawn():
    with pytest.raises(InputError, match="5 answers cannot be drawn from 4"):
        pass_at_k(4, 2, 5)
    with pytest.raises(InputError, match="3 of 2"):
        pass_at_k(2, 3, 1)
    assert pass_at_k(4096, 1, 1) == pytest.approx(1 / 4096)


def test_short_answers():
    assert short_answers_alike("New York", "new delhi") is True
    assert short_answers_alike("a b c", "d e a") is False
    assert short_answers_alike("", " ") is True
    assert short_answers_alike("one two three four five six", "one") is None


class Counting(FunctionPartitioner):
    def __init__(self, alike):
        super().__init__(alike, short_rule=False)
        self.calls = []

    def same(self, pairs):
        self.calls.append(list(pairs))
        return super().same(pairs)


@given(st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=8), min_size=1, max_size=4), st.integers(0, 999))
def test_a_step_asks_for_each_pair_once_in_one_call_and_finds_what_pair_by_pair_gives(groups, seed):
    rng = np.random.default_rng(seed)
    table = {frozenset(pair): rng.random() < 0.3 for pair in combinations("abcdefg", 2)}
    partitioner = Counting(lambda one, other: table[frozenset((one, other))])
    found = partitioner.partition_groups(groups)
    for group, ids in zip(groups, found, strict=True):
        same = [
            (i, j)
            for i, j in combinations(range(len(group)), 2)
            if group[i] == group[j] or table[frozenset((group[i], group[j]))]
        ]
        assert ids == closed(len(group), same)
    assert len(partitioner.calls) <= 1
    asked = [pair for call in partitioner.calls for pair in call]
    assert len(asked) == len(set(asked)) == partitioner.asked
    assert all(one != other for one, other in asked)


def test_pairs_that_are_joined_already_are_not_asked_for(monkeypatch):
    monkeypatch.setattr("broadsheet.language.diversity.partitions.ROUND", 5)
    partitioner = Counting(lambda one, other: True)
    assert partitioner.partition([f"answer {k}" for k in range(20)]) == [0] * 20
    assert partitioner.asked < 190 / 2


def test_the_oracle_leaves_what_has_no_key_alone():
    oracle = OraclePartitioner(lambda text: text[0] if text else None)
    assert oracle.partition_groups([["ab", "b", "ac"], ["", "", "b"]]) == [[0, 1, 0], [0, 1, 2]]


def test_rows_are_grouped_by_prompt_and_place():
    assert group_rows(["a", "a", "b", "b", "a", "a"]) == [range(2), range(2, 4), range(4, 6)]
    assert group_rows(["a"] * 6, 3) == [range(3), range(3, 6)]
    with pytest.raises(InputError, match="5 answers side by side, which are no groups of 3"):
        group_rows(["a"] * 5, 3)


def test_the_reward_is_the_product_of_each_group_and_is_logged():
    logged = {}
    reward = DarlingReward(lambda texts, *, prompts, score, **_: score, OraclePartitioner(len), group=2)
    asked = [[{"role": "user", "content": "x"}]] * 4 + [[{"role": "user", "content": "y"}]] * 2
    said = [[{"role": "assistant", "content": text}] for text in ("a", "b", "a", "bb", "cc", "c")]
    found = reward(
        prompts=asked,
        completions=said,
        score=[1, 0.5, 1, 0.5, 1, 0],
        log_metric=lambda name, value: logged.update({name: value}),
    )
    assert found == [0.1, 0.05, 1.0, 0.5, 1.0, 0.0]
    assert logged == {
        "darling/quality": pytest.approx(4 / 6),
        "darling/diversity": pytest.approx(4.2 / 6),
        "darling/classes": pytest.approx(5 / 3),
    }


def test_the_reward_of_correct_answers_alone_and_of_ngrams():
    texts, right = ["a a", "b b", "a a", "c c"], [1.0, 1.0, 1.0, 0.0]
    only = DarlingReward(lambda texts, **_: right, OraclePartitioner(str), only_correct=True)
    assert only(prompts=["p"] * 4, completions=texts) == [0.5, 1.0, 0.5, 0.0]
    wording = DarlingReward(lambda texts, **_: right, NGramDiversity(2))
    assert wording(prompts=["p"] * 4, completions=texts) == [0.0, 1.0, 0.0, 0.0]
    with pytest.raises(InputError, match="n-grams make none"):
        DarlingReward(lambda texts, **_: right, NGramDiversity(2), only_correct=True)


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        (lambda texts, **_: 1 / 0, "The quality failed: ZeroDivisionError: division by zero"),
        (lambda texts, **_: [1.0], "1 values for 2 completions"),
        (lambda texts, **_: [1.0, float("nan")], "The quality of 'b' is no finite number"),
    ],
)
def test_a_quality_that_fails_is_told(quality, message):
    with pytest.raises(JobError, match=message):
        DarlingReward(quality, OraclePartitioner(str))(prompts=["p"] * 2, completions=["a", "b"])


def test_a_negative_quality_is_shifted_or_refused():
    with pytest.raises(InputError, match="bias=True"):
        darling_reward([-2.0, 1.0], [0, 1])
    assert darling_reward([-2.0, 1.0, 0.0], [0, 1, 1], bias=True).tolist() == [0.0, 1.5, 1.0]
    for wrong in ({"fusion": "both"}, {"quality": [1.0]}, {"quality": [1.0, np.inf]}):
        with pytest.raises(InputError):
            darling_reward(**{"quality": [1.0, 0.0], "class_ids": [0, 1]} | wrong)
