"""Orders and exits of the controls against plain loops and what is expected of them."""

import jax
import numpy as np
import pytest

from broadsheet.conversion import QuantisedNet
from broadsheet.conversion.conversion import Sequential
from broadsheet.conversion.early_exit import THRESHOLDS, Point
from broadsheet.papers.dynamic_confidence import (
    _as_good,
    _by_rank,
    _in_order,
    _patience,
    _patient,
    _quartiles,
    _random_start,
    _widths,
    random_spikes,
)

RNG = np.random.default_rng(0)


def test_quarters_of_an_order_with_ties_are_means_over_all_ways_to_break_them():
    order, right = RNG.integers(1, 5, 40), RNG.random(40) < 0.6
    gaps = []
    for _ in range(4000):
        shuffled = right[np.lexsort((RNG.random(40), order))]
        gaps.append(shuffled[:10].mean() - shuffled[-10:].mean())
    assert abs(_quartiles(order, right) - np.mean(gaps)) < 4 * np.std(gaps) / np.sqrt(4000)
    assert _quartiles(np.arange(8.0), np.arange(8) < 2) == 1.0
    assert _quartiles(np.zeros(8), np.arange(8) < 2) == 0.0


def test_an_answer_that_stays():
    answers = np.array([[0, 1, 1, 1], [2, 2, 0, 0], [0, 1, 2, 0]])
    logits = np.eye(3)[answers]
    np.testing.assert_array_equal(_patient(logits, 1), [1, 1, 1])
    np.testing.assert_array_equal(_patient(logits, 2), [3, 2, 4])
    np.testing.assert_array_equal(_patient(logits, 3), [4, 4, 4])
    assert _patience(logits, answers[:, 0], 1.0) == 1
    assert _patience(logits, np.array([1, 2, 0]), 1.0) == 2
    assert _patience(logits, np.array([0, 1, 1]), 1.0) == 4  # never as good


def test_the_same_exits_in_another_order():
    np.testing.assert_array_equal(_in_order(np.array([3, 1, 2, 1]), np.array([0.4, 0.3, 0.2, 0.1])), [3, 2, 1, 1])


def test_a_fixed_time_that_is_as_good():
    fixed = np.array([0.5, 0.7, 0.6, 0.9])
    assert _as_good(fixed, 0.4) == 1.0
    assert _as_good(fixed, 0.6) == pytest.approx(1.5)
    assert _as_good(fixed, 0.8) == pytest.approx(3.5)
    assert _as_good(fixed, 0.95) == 4.0


def test_widths_count_thresholds_that_keep_the_accuracy_and_those_that_also_save_time():
    points = [Point(float(t), 8.0 if t > 0.605 else 4.0, 0.9 if t > 0.305 else 0.5) for t in THRESHOLDS]
    found = _widths(points, 8)
    assert found["threshold_width"] == pytest.approx(0.999 - 0.31)
    assert found["useful_width"] == pytest.approx(0.60 - 0.31)


def test_ranks_do_not_change_with_the_scale_of_the_read_out():
    logits = np.cumsum(RNG.standard_normal((60, 5, 4)), axis=1)
    y = RNG.integers(0, 4, 60)
    assert _by_rank(logits, logits, y) == _by_rank(50 * logits, 50 * logits, y)
    assert _by_rank(logits, logits, y)[0].steps < _by_rank(logits, logits, y)[-1].steps


def test_random_spikes_are_on_average_the_clipped_activation():
    net = QuantisedNet(Sequential.mlp((3, 6, 2), jax.random.key(0)), (3,), theta=2.0)
    x = RNG.standard_normal((4, 3)).astype(np.float32)
    found = np.asarray(random_spikes(net, x, 4000, jax.random.key(1)))[:, -1] / 4000
    expected = net.body(jax.numpy.asarray(x), lambda k, z: jax.numpy.clip(z, 0.0, 2.0))
    np.testing.assert_allclose(found, expected, atol=0.15)


def test_a_random_start_lies_between_zero_and_the_threshold():
    net = QuantisedNet(Sequential.mlp((3, 500, 2), jax.random.key(0)), (3,), theta=4.0).spiking()
    (started,) = _random_start(net, jax.random.key(1)).init(jax.random.key(2))
    v = np.asarray(started.v)
    assert 0 <= v.min() < 0.2
    assert 3.8 < v.max() <= 4
    assert abs(v.mean() - 2) < 0.2
