import numpy as np
import pytest

from broadsheet.neurons.complexity import lz76
from broadsheet.papers.meta_neuron import Bursts, best_threshold, burst_samples, by_substrings


@pytest.mark.parametrize("probability", [0.0, 0.02, 0.3, 0.5, 1.0])
def test_components_by_substrings_are_those_of_the_bit_sets(probability):
    rng = np.random.default_rng(0)
    for size in (1, 2, 17, 300):
        train = rng.random(size) < probability
        assert by_substrings(train) == lz76(train)


def test_components_of_known_strings_by_substrings():
    for text, count in (("0001101001000101", 6), ("0" * 64, 2), ("01" * 32, 3)):
        assert by_substrings([int(c) for c in text]) == count


def test_bursts_have_one_spike_count_and_lie_within_their_window():
    X, y = burst_samples(200, Bursts(window=30), np.random.default_rng(1))
    times = [np.flatnonzero(x.any(axis=1)) for x in X]
    spans = np.array([at[-1] - at[0] for at in times])
    assert spans[y == 1].max() < 30 < np.median(spans[y == 0])
    assert (X.sum(axis=(1, 2)) == 20).all()  # counts say nothing of the class


def test_the_best_threshold_of_separable_numbers_makes_no_error():
    train, y = np.array([1, 2, 5, 7]), np.array([0, 0, 1, 1])
    assert best_threshold(train, y, np.array([0, 6]), np.array([0, 1])) == 1
