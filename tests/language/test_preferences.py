"""Pairs from rated answers: the rule, ties, draws, TRL's columns, mistakes."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.errors import InputError
from broadsheet.language.post_training.preferences import build_pairs

rated = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 5)), max_size=6)


@settings(max_examples=150, deadline=None)
@given(st.lists(rated, max_size=5), st.integers(0, 3))
def test_the_best_is_chosen_and_a_lower_one_rejected(prompts, seed):
    responses = [[text for text, _ in answers] for answers in prompts]
    scores = [[score for _, score in answers] for answers in prompts]
    pairs = build_pairs(responses, scores, seed)
    for pair in pairs:
        answers = prompts[pair["index"]]
        best = max(score for _, score in answers)
        assert (pair["chosen"], pair["score_chosen"]) in answers
        assert (pair["rejected"], pair["score_rejected"]) in answers
        assert pair["score_rejected"] < pair["score_chosen"] == best
        assert pair["chosen"] != pair["rejected"]
    for index in set(range(len(prompts))) - {pair["index"] for pair in pairs}:
        best = [text for text, score in prompts[index] if score == max(scores[index])]
        lower = [text for text, score in prompts[index] if score < max(scores[index])]
        assert not lower or any(all(text == one for text in lower) for one in best)


def test_draws_are_even_among_the_best_and_among_the_lower_ones():
    answers, scores = ["a", "b", "c", "d", "e"], [5, 5, 3, 1, 2]
    drawn = build_pairs([answers] * 6000, [scores] * 6000, seed=0)
    for column, among in (("chosen", "ab"), ("rejected", "cde")):
        counts = Counter(pair[column] for pair in drawn)
        assert set(counts) == set(among)
        expected = 6000 / len(among)
        assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in counts.values())


def test_a_prompts_draw_depends_on_the_seed_and_its_number_alone():
    answers, scores = [["a", "b", "c", "d"]] * 20, [[4, 3, 2, 1]] * 20
    pairs = build_pairs(answers, scores, 1)
    assert build_pairs(answers, scores, 1) == pairs
    assert build_pairs(answers, scores, 2) != pairs
    others = [["x"]] * 3 + answers[3:]
    assert build_pairs(others, [[1]] * 3 + scores[3:], 1) == pairs[3:]


def test_ratings_of_several_aspects_are_averaged():
    [pair] = build_pairs([["a", "b"]], [[(5, 1, 1, 1), (3, 3, 3, 2)]], 0)
    assert (pair["chosen"], pair["score_chosen"], pair["score_rejected"]) == ("b", 2.75, 2.0)


def test_trl_takes_the_pairs():
    datasets = pytest.importorskip("datasets")
    from trl.data_utils import is_conversational, maybe_extract_prompt

    said = [[[{"role": "assistant", "content": text}] for text in "ab"]]
    [pair] = datasets.Dataset.from_list(build_pairs(said, [[2, 1]], 0, [[{"role": "user", "content": "hi"}]])).to_list()
    assert is_conversational(pair)
    assert maybe_extract_prompt(pair)["prompt"] == [{"role": "user", "content": "hi"}]
    assert pair["chosen"] == [{"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("responses", "scores", "prompts", "said"),
    [
        ([["a"]], [], None, "answers to 1 prompts, ratings for 0; as many"),
        ([["a"]], [[1]], ["p", "q"], "and 2 prompts"),
        ([["a", "b"]], [[1]], None, "Prompt 0 has 2 answers and 1 ratings"),
        ([["a", "b"]], [[1, math.nan]], None, "Prompt 0 has the rating nan"),
        ([["a", "b"]], [[1, "good"]], None, "the rating 'good'"),
        ([["a", "b"]], [[1, ()]], None, "the rating"),
        ([["a", "b"]], [[1, None]], None, "the rating None"),
    ],
)
def test_mistakes(responses, scores, prompts, said):
    with pytest.raises(InputError, match=said):
        build_pairs(responses, scores, 0, prompts)
