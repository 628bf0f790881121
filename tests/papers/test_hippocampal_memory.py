"""What the experiments do to input spikes and to rules."""

import numpy as np
import pytest

from broadsheet.networks.hippocampus import HippocampalNetwork
from broadsheet.papers.hippocampal_memory import (
    _disturbed,
    _hebbian_by_cue,
    _latencies,
    _shortest,
    _stored_and_asked,
    short_stdp,
)


def test_spikes_move_by_one_step_or_do_not_come():
    rng = np.random.default_rng(0)
    spikes = np.zeros((400, 5), bool)
    spikes[2::4] = True
    np.testing.assert_array_equal(_disturbed(spikes, rng), spikes)
    assert not _disturbed(spikes, rng, dropped=1.0).any()
    moved = _disturbed(spikes, rng, jitter=1.0)
    assert moved.sum() == spikes.sum()
    assert not (moved & spikes).any()
    assert 0.4 < moved[1::4].sum() / spikes.sum() < 0.6
    assert _disturbed(spikes, rng, dropped=0.3).sum() / spikes.sum() == pytest.approx(0.7, abs=0.05)


def test_a_window_of_one_ms_moves_a_synapse_as_far_for_a_pair_one_step_apart():
    rule = short_stdp()
    assert float(rule.a_plus) * np.exp(-1.0) == pytest.approx(6 * np.exp(-1 / 3), rel=1e-6)


def test_the_shortest_time_is_followed_by_exact_answers_only():
    gaps = np.arange(5, 9)
    assert _shortest(gaps, np.array([0.2, 1.0, 0.9, 1.0])) == 8
    assert _shortest(gaps, np.ones(4)) == 5
    assert _shortest(gaps, np.zeros(4)) == 9


def test_single_operations_end_when_the_authors_table_says():
    """Its first store ends 7 ms after it begins, its first recall by cue after 6, that by content after 6."""
    assert _latencies(HippocampalNetwork(5, 10)) == (7, 6, 6)


def test_hebbian_synapses_see_spikes_that_move_but_not_those_that_do_not_come():
    rng = np.random.default_rng(1)
    contents = rng.random((2, 4, 5)) < 0.5
    spikes = _stored_and_asked(contents, 7, 6)
    assert _hebbian_by_cue(spikes, contents) == 1.0
    assert _hebbian_by_cue([_disturbed(one, rng, jitter=1.0) for one in spikes], contents) == 1.0
    gone = [one.copy() for one in spikes]
    for one in gone:
        one[28:34] = False  # the first question
    assert _hebbian_by_cue(gone, contents) == pytest.approx(0.75 + 0.25 * (~contents[:, 0].any(axis=1)).mean())
