"""What estimators take, against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.errors import InputError
from broadsheet.recordings import sequences, with_history


def test_one_several_and_unequal_sequences():
    one = np.arange(6).reshape(3, 2)
    assert [each.tolist() for each in sequences(one)] == [one.astype(float).tolist()]
    assert [each.tolist() for each in sequences(one.tolist())] == [one.astype(float).tolist()]
    assert len(sequences(np.zeros((4, 3, 2)))) == 4
    assert [each.shape for each in sequences([np.zeros((3, 2)), np.zeros((5, 2))])] == [(3, 2), (5, 2)]
    assert all(each.dtype == float for each in sequences(np.zeros((2, 3, 1), np.int8)))


@pytest.mark.parametrize(
    ("x", "options", "says"),
    [
        (np.zeros(3), {}, r"counts are \(3,\); \(bins, channels\)"),
        (np.zeros((2, 2, 2, 2)), {}, "a list of arrays is wanted"),
        ([], {}, "No counts were given"),
        (5, {}, "neither an array nor a list of arrays"),
        ([[1, 2], [3]], {}, "neither an array nor a list of arrays"),
        ([np.zeros((3, 2)), np.zeros(2)], {}, r"sequence 1: counts are \(2,\); \(bins, 2\) is wanted"),
        ([[[1.0]], [["a"]]], {}, "sequence 1: counts are of type <U1"),
        ([np.zeros((3, 2)), np.zeros((3, 1))], {}, r"sequence 1: counts are \(3, 1\); \(bins, 2\) is wanted"),
        (np.zeros((3, 0)), {}, r"counts are \(3, 0\)"),
        (np.array([["a"]]), {}, "of type <U1; numbers are wanted"),
        (np.zeros((3, 1)), {"shortest": 4}, "have 3 bins; 4 or more"),
        (np.array([[1.0], [np.nan]]), {}, "hold nan in bin 1, channel 0; finite numbers"),
        (np.array([[1.0], [np.inf]]), {"missing": True}, "hold inf in bin 1"),
        (np.array([[0.5]]), {"counts": True}, "whole numbers from 0 on"),
        (np.array([[1, -1]]), {"counts": True, "what": "spikes"}, "spikes hold -1 in bin 0, channel 1"),
    ],
)  # fmt: skip
def test_mistakes(x, options, says):
    with pytest.raises(InputError, match=says):
        sequences(x, **options)


def test_missing_bins_are_let_through():
    x = np.array([[1.0, 2.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(sequences(x, missing=True, counts=True)[0], x)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 999))
def test_history_as_a_loop(bins, lags, seed):
    rng = np.random.default_rng(seed)
    x, weights = rng.normal(size=(bins, 2)), rng.normal(size=lags)
    wanted = np.zeros((bins, 2))
    for t in range(bins):
        for k in range(1, lags + 1):
            if t - k >= 0:
                wanted[t] += weights[k - 1] * x[t - k]
    np.testing.assert_allclose(with_history(x, weights), wanted, atol=1e-12)


def test_history_of_a_missing_bin_is_nothing():
    x = np.array([[1.0], [np.nan], [1.0], [0.0]])
    assert with_history(x, np.array([1.0, 10.0]))[:, 0].tolist() == [0, 1, 10, 1]
