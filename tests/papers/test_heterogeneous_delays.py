"""Controls of the layer of delays, against what they are made from."""

import numpy as np
import pytest

from broadsheet.papers.heterogeneous_delays import _along, _as_many, _by_rates, _kept, _nearness, _small
from broadsheet.vision.delay_layer import DelayConv, MotionDetector
from broadsheet.vision.event_movies import motions


def test_rates_are_the_log_odds_of_independent_taps():
    """With taps that are independent, the evidence is the log-probability of a class, but for what all classes share."""
    rng = np.random.default_rng(0)
    past, labels = rng.random((300, 2, 2, 3, 3)) < 0.3, rng.integers(0, 3, 300)
    layer = _by_rates(past, labels)
    one = past[7]
    expected = []
    for c in range(3):
        p = (past[labels == c].sum(axis=0) + 1) / ((labels == c).sum() + 2)
        expected.append(np.log(np.where(one, p, 1 - p)).sum() + np.log((labels == c).mean()))
    found = (np.asarray(layer.K) * one).reshape(3, -1).sum(axis=1) + np.asarray(layer.bias)
    np.testing.assert_allclose(found - found[0], np.array(expected) - expected[0], atol=1e-4)


def test_a_kernel_lies_along_the_motion_that_it_was_drawn_along():
    velocities = motions(8, (0.63,))
    K = np.zeros((8, 2, 9, 7, 7))
    for c, (vx, vy) in enumerate(velocities):
        for d in range(1, 5):
            K[c, 1, d, 3 + round(vx * d), 3 + round(vy * d)] = 1.0
    layer = DelayConv(K)
    assert _along(layer, np.arange(8), velocities) == 1.0
    assert _along(layer.mirror(), np.arange(8), velocities) == 0.0
    assert _along(layer, (np.arange(8) + 1) % 8, velocities) == 0.0


def test_weights_are_kept_by_worth_and_by_nearness():
    layer = DelayConv(np.ones((2, 2, 3, 5, 5)))
    kept = np.asarray(_kept(layer, np.asarray(_nearness(layer)), 3 / 75).K)
    assert kept.sum() == 2 * 2 * 3
    assert kept[:, :, :, 2, 2].all()
    worth = np.random.default_rng(1).random(layer.K.shape)
    kept = np.asarray(_kept(layer, worth, 0.1).K) > 0
    assert kept.sum() == 30
    assert worth[kept].min() > worth[~kept].max()


@pytest.mark.parametrize(("side", "delays", "wide"), [(7, 9, 21), (3, 3, 7), (5, 4, 11)])
def test_a_wide_kernel_has_as_many_weights(side, delays, wide):
    assert _as_many(side, delays) == wide
    assert wide**2 >= side**2 * delays


def test_a_small_layer_learns_from_the_inner_part_alone():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 200)
    past = rng.random((200, 2, 3, 5, 5)) < 0.2
    past[:, 1, 0, 2, 2] = labels == 1
    layer = _small(MotionDetector(3, 5), past, labels, 1, 3)
    K = np.asarray(layer.K)
    assert not K[:, :, 1:].any()
    assert not K[..., [0, 4], :].any()
    assert not K[..., [0, 4]].any()
    assert K[:, 1, 0, 2, 2].argmax() == 1
