"""Words of the tiny pretraining without their skew, without their order, or without their context."""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from broadsheet.errors import InputError
from broadsheet.language import tiny_world as tiny
from broadsheet.language.chain import Chain, Link
from broadsheet.language.stages.tiny_control_words import COUNT, FIRST, control_batches, even_bigrams, followers
from broadsheet.language.tiny_world import World


def test_even_words_are_even_and_follow_each_other():
    rows = even_bigrams(np.random.default_rng(0), 4000, 50)
    assert rows.min() == FIRST == len(tiny.SPECIAL)
    assert rows.max() == FIRST + COUNT - 1 == tiny.IDS["where"] - 1
    assert chisquare(np.bincount(rows[:, -1] - FIRST, minlength=COUNT)).pvalue > 1e-3
    table = followers()
    for column in table.T:
        assert sorted(column) == list(range(COUNT))
    before, after = rows[:, :-1].ravel() - FIRST, rows[:, 1:].ravel() - FIRST
    expected = 0.9 + 0.1 * 4 / COUNT
    assert abs((table[before] == after[:, None]).any(axis=1).mean() - expected) < 0.003


def test_shuffled_words_are_those_of_the_documents():
    windows = World(0).windows(np.random.default_rng(3), 49)
    wanted = np.array(list(itertools.islice(windows, 32)))
    found = next(control_batches("shuffled", np.random.default_rng(3), 32, 49))
    assert found.shape == (32, 49)
    assert Counter(found.ravel()) == Counter(wanted.ravel())
    assert (found == wanted).mean() < 0.1
    pairs = next(control_batches("paired", np.random.default_rng(3), 32, 49))
    assert pairs.tolist() == [[one, other] for row in wanted for one, other in itertools.pairwise(row)]


def test_the_stage_keeps_what_pretraining_keeps(home):
    chain = Chain([Link("base", "tiny_control_words", {"kind": "paired", "steps": 3, "cosine": 10})], seed=1)
    assert chain.steps("base") == [0, 1, 2]
    assert len(chain.record("base")["losses"]) == 3
    with pytest.raises(InputError, match="even, shuffled, paired are there"):
        Chain([Link("base", "tiny_control_words", {"kind": "odd"})], seed=1).build()
