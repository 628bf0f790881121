"""Times on the edges of bins: exact fractions say in which bin each one lies."""

from fractions import Fraction

import numpy as np
import pytest

from broadsheet.numerics.bins import bin_of, bins_in


@pytest.mark.parametrize("kind", ["f8", "f4"])
@pytest.mark.parametrize("width", ["0.1", "1", "0.3", "0.001", "2.5"])
def test_a_spike_at_each_edge_is_in_the_bin_that_begins_there(kind, width):
    steps = np.arange(5000)
    exact = Fraction(width)
    edges = np.array([float(k * exact) for k in steps]).astype(kind)
    np.testing.assert_array_equal(bin_of(edges, float(width)), steps)
    np.testing.assert_array_equal(bin_of(steps.astype(kind) * np.dtype(kind).type(width), float(width)), steps)
    middles = np.array([float((k + Fraction(1, 2)) * exact) for k in steps]).astype(kind)
    np.testing.assert_array_equal(bin_of(middles, float(width)), steps)


def test_half_precision_is_read_as_far_as_it_tells_bins_apart():
    """Up to 1 s it tells milliseconds apart; beyond its precision a time stays within half a step of what it says."""
    ms = np.arange(1000)
    np.testing.assert_array_equal(bin_of((ms / 1000).astype("f2"), 0.001), ms)
    late = np.arange(4096, 8192, 4).astype("f2")
    np.testing.assert_array_equal(bin_of(late, 1.0), np.arange(4096, 8192, 4))


def test_what_lies_before_an_edge_stays_there():
    assert bin_of(np.array([0.99, 0.9999, 1.0, 1.98], "f4"), 1.0).tolist() == [0, 0, 1, 1]
    assert bin_of(np.array([0.98], "f2"), 1.0).tolist() == [0]
    assert bin_of(np.array([-0.5, 0.0]), 1.0).tolist() == [-1, 0]
    assert bin_of(np.array([3, 7], "u1"), 0.1).tolist() == [30, 70]


@pytest.mark.parametrize(
    ("duration", "width", "count"), [(10.4, 1.0, 11), (0.3, 0.1, 3), (0.4, 1.0, 1), (1000.0, 10.0, 100), (0.0, 1.0, 0)]
)
def test_bins_of_a_duration(duration, width, count):
    assert bins_in(duration, width) == count
