"""The reward of a puzzle's answer: against the paper's rule by hand, the official function's traces, and hostile texts."""

import json
import math
import re
import time
from collections import Counter
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.errors import InputError
from broadsheet.language.jigsaw.permutations import (
    draw_order,
    order_of,
    places_of,
    restore,
    target_of,
)
from broadsheet.language.jigsaw.puzzles import JigsawTask
from broadsheet.language.jigsaw.rewards import (
    as_trl_reward,
    chance_accuracy,
    chance_exact,
    chance_of_signal,
    chance_places,
    jigsaw_reward,
)

OFFICIAL = json.loads((Path(__file__).parents[1] / "references" / "jigsaw" / "rewards.json").read_text())
NINE = [3, 1, 4, 2, 5, 9, 7, 8, 6]
FORM = "<think>so</think><answer>{}</answer>"


@pytest.mark.parametrize(
    ("text", "total"),
    [
        (FORM.format("3,1,4,2,5,9,7,8,6"), 1.2),
        ("\n <think></think>\n\n<answer> 3 , 1,4,2,5,9,7,8,6\n</answer> bye", 1.2),
        (FORM.format("1,3,4,2,5,9,7,8,6"), 0.2 + 0.2 * 7 / 9),
        (FORM.format("6,8,7,9,5,2,4,1,3"), 0.2 + 0.2 * 1 / 9),
        (FORM.format("1,2,3,4,6,5,8,7,9"), 0.2),  # a permutation without a right place
        (FORM.format("3,3,4,2,5,9,7,8,6"), 0.2),
        (FORM.format("3,1,4,2,5,9,7,8,10"), 0.2),
        (FORM.format("0,1,4,2,5,9,7,8,6"), 0.2),
        (FORM.format("3,1,4,2,5,9,7,8"), 0.2),
        (FORM.format("3,1,4,2,5,9,7,8,6,6"), 0.2),
        (FORM.format("3 1 4 2 5 9 7 8 6"), 0.2),
        (FORM.format(""), 0.2),
        (FORM.format("3,1,4,2,5,9,7,8,6,"), 0.2),
        (FORM.format("+3,1,4,2,5,9,7,8,6"), 0.2),
        (FORM.format("٣,1,4,2,5,9,7,8,6"), 0.2),
        (FORM.format("3，1，4，2，5，9，7，8，6"), 0.2),
        (FORM.format("1,2,3,4,5,6,7,8,9") + FORM.format("3,1,4,2,5,9,7,8,6"), 1.2),  # the last block counts
        ("<think></think><answer>3,1,4,2,5,9,7,8,6</answer><answer>", 1.2),  # that is closed
        ("<think></think><answer><answer>3,1,4,2,5,9,7,8,6</answer></answer>", 1.2),
        ("<answer>3,1,4,2,5,9,7,8,6</answer>", 0.0),
        ("<think><answer>3,1,4,2,5,9,7,8,6</answer></think>", 0.0),
        ("<think><answer>3,1,4,2,5,9,7,8,6</answer>", 0.0),
        ("<think></think>3,1,4,2,5,9,7,8,6", 0.0),
        ("<think></think><answer>3,1,4,2,5,9,7,8,6", 0.0),
        ("so <think></think><answer>3,1,4,2,5,9,7,8,6</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_the_papers_rule(text, total):
    found = jigsaw_reward(text, NINE)
    assert found.total == pytest.approx(total, abs=1e-12)
    assert found.total == pytest.approx(found.accuracy + found.format, abs=1e-12)
    assert found.exact == (total == 1.2)


@pytest.mark.parametrize("text", [None, True, 3, b"<think></think><answer>2,1</answer>", ["a"], float("nan")])
def test_what_is_no_text_has_no_form(text):
    assert jigsaw_reward(text, [2, 1]) == (0.0, 0.0, 0.0, False)
    assert jigsaw_reward(text, [2, 1], variant="released").total == 0.0


@pytest.mark.parametrize("target", [[1, 1], [0, 1], [2, 3], [1], [], "ab", [None, 1], 5])
def test_a_target_that_is_no_permutation_is_refused(target):
    with pytest.raises(InputError, match="target"):
        jigsaw_reward("", target)


def test_the_released_rule_is_the_official_functions():
    assert len(OFFICIAL) == 1000
    for one in OFFICIAL:
        found = jigsaw_reward(one["text"], one["target"], variant="released")
        wanted = [one["total"], one["accuracy"], one["format"], one["exact"]]
        np.testing.assert_allclose(list(found), wanted, atol=1e-12, err_msg=repr(one["text"]))
    assert len({round(one["total"], 4) for one in OFFICIAL}) > 15


def test_where_the_paper_and_its_code_differ():
    """Of answers alone, in the form that each wants: for every difference one of the reasons below."""
    boxes = [(re.search(r"\\boxed\{([^{}]*)\}", one["text"]), one["target"]) for one in OFFICIAL]
    reasons = Counter()
    for inside, target in [(box[1], target) for box, target in boxes if box and "answer>" not in box[1]]:
        ours = jigsaw_reward(f"<think></think><answer>{inside}</answer>", target)
        theirs = jigsaw_reward(f"<think></think>\\boxed{{{inside}}}", target, variant="released")
        if abs(ours.total - theirs.total) < 1e-12:
            continue
        numbers = [int(part) for part in inside.split(",")]  # else both give the form alone
        if not re.fullmatch(r"[0-9,\s]*", inside):
            reasons["signs, underscores and other scripts' digits are numbers to the code"] += 1
        elif sorted(numbers) == sorted(target):
            assert len(target) <= 4
            assert ours.total > theirs.total
            reasons["no partial credit for four pieces or fewer"] += 1
        else:
            assert len(set(numbers)) == len(target)
            assert theirs.total > ours.total
            reasons["any list with as many distinct numbers is a permutation"] += 1
    assert len(reasons) == 3
    repeated = "\n".join(["a line that has at least seven words"] * 6)
    assert jigsaw_reward(f"<think>{repeated}</think>\\boxed{{2,1}}", [2, 1], variant="released").total == pytest.approx(0.7)
    assert jigsaw_reward(f"<think>{repeated}</think><answer>2,1</answer>", [2, 1]).total == pytest.approx(1.2)


SCRAPS = [
    "<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "{", "}", ",", "1", "2", "3", "٣", "３", "，", "-", "+", "_", "\x00", "\n",
    " ", "\u2028", "\ud800", "²", "9" * 50, "a b c d e f g\n",
]  # fmt: skip
HOSTILE = st.lists(st.sampled_from(SCRAPS) | st.text(max_size=5), max_size=30).map("".join)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(HOSTILE, HOSTILE.map("<think></think><answer>{}</answer>".format), st.none(), st.booleans()),
    st.permutations([1, 2, 3]),
)
def test_no_text_raises_or_earns_more_than_it_may(text, target):
    for variant in ("paper", "released"):
        found = jigsaw_reward(text, target, variant=variant)
        assert found.format in (0.0, 0.2)
        assert found.accuracy == 1.0 if found.exact else found.accuracy <= 0.2 * 2 / 3
        assert found.total <= found.format + found.accuracy + 1e-12
        assert found.format or found.total == 0.0


MANY = 10**6


@pytest.mark.parametrize(
    "text",
    [
        "<answer>" * MANY,
        "<think>" * MANY,
        "<think></think>" + "<answer>" * MANY,
        "<think></think>" + "<answer>" * MANY + "</answer>" * MANY,
        "<think></think>" + "<answer></answer>" * MANY,
        FORM.format("1" * MANY),
        FORM.format("1," * MANY),
        FORM.format("٣" * MANY),
        "<think></think>" + "\\boxed{" * MANY,
        "<think></think>\\boxed{" + "{" * MANY + "}" * MANY,
        "<think></think>\\boxed{" + "7" * MANY + "}",
        "<think></think>\\boxed{" + "٣" * MANY + "}",
        "<think></think>\\boxed{" + "1," * MANY + "}",
        "<think></think>\\boxed{1}" + "\na b c d e f g" * MANY,
        "\x00" * MANY,
    ],
    ids=lambda text: f"{text[:30]!r} {len(text)}",
)
def test_time_grows_with_the_text_alone(text):
    start = time.process_time()
    for variant in ("paper", "released"):
        assert not jigsaw_reward(text, [2, 1, 3], variant=variant).exact
    assert time.process_time() - start < 5.0  # what is quadratic takes hours


@pytest.mark.parametrize("pieces", [2, 3, 4, 5])
def test_what_guessing_earns(pieces):
    """Against all permutations, one by one."""
    target = list(range(1, pieces + 1))
    all_ = [jigsaw_reward(FORM.format(",".join(map(str, one))), target) for one in permutations(target)]
    assert chance_exact(pieces) == pytest.approx(np.mean([one.exact for one in all_]))
    assert chance_accuracy(pieces) == pytest.approx(np.mean([one.accuracy for one in all_]))
    right = Counter(sum(a == b for a, b in zip(one, target, strict=True)) for one in permutations(target))
    np.testing.assert_allclose(chance_places(pieces), [right[k] / math.factorial(pieces) for k in range(pieces + 1)])
    if pieces == 3:
        for partial in (True, False):
            values = [one.accuracy if partial else float(one.exact) for one in all_]
            differ = np.mean([len(set(group)) > 1 for group in product(values, repeat=3)])
            assert chance_of_signal(3, 3, partial) == pytest.approx(differ)


def test_the_target_is_not_its_inverse():
    order = [2, 0, 1]  # slot 1 shows the third piece
    assert target_of(order) == [2, 3, 1]
    assert places_of(order) == [3, 1, 2]
    pieces = ["a", "b", "c"]
    shown = [pieces[place] for place in order]
    assert restore(shown, target_of(order)) == pieces
    assert restore(shown, places_of(order)) != pieces
    assert order_of(target_of(order)) == order


def test_orders_are_uniform_and_new_in_each_epoch():
    drawn = Counter(tuple(draw_order(3, seed=1, epoch=epoch, index=index)) for epoch in range(10) for index in range(300))
    assert len(drawn) == 6
    assert max(abs(count - 500) for count in drawn.values()) < 5 * math.sqrt(3000 * 1 / 6 * 5 / 6)
    assert draw_order(9, seed=1, epoch=2, index=3) == draw_order(9, seed=1, epoch=2, index=3)
    assert draw_order(9, seed=1, epoch=3, index=3) != draw_order(9, seed=1, epoch=2, index=3)
    with pytest.raises(InputError, match="from 0 on"):
        draw_order(9, seed=-1)


def test_trl_calls_it():
    said = FORM.format("2,1,3")
    reward = as_trl_reward(JigsawTask(grid=(1, 3)))
    messages = [{"role": "assistant", "content": said}]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": said}]}]
    columns = {"prompts": [], "completion_ids": [], "trainer_state": None}
    found = reward(completions=[said, messages, parts, None, []], target=[[2, 1, 3]] * 4 + [[1, 2, 3]], **columns)
    assert found == pytest.approx([1.2, 1.2, 1.2, 0.0, 0.0])
    assert reward.__name__ == "jigsaw_reward"
    exact = as_trl_reward(part="exact")
    assert (exact.__name__, exact([said], [[2, 1, 3]])) == ("jigsaw_exact", [1.0])
    with pytest.raises(InputError, match="column 'target'"):
        reward(completions=[said])
