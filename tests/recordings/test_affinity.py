"""Affinities of pairs: against plain loops, NumPy's correlation and closed forms."""

import math

import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.recordings.affinity import (
    KERNELS,
    differential_affinity,
    edge_series,
    fold,
    kernel_value,
    rates_of_change,
    unfold,
    windowed_correlation,
)


def traces(seed=0, shape=(2, 4, 60)):
    return np.cumsum(np.random.default_rng(seed).standard_normal(shape), axis=2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_of_loops(kernel):
    given = traces()
    given[1, 2] = np.nan
    rates = rates_of_change(given, 0.25)
    found = differential_affinity(given, 0.25, kernel)
    assert found.mask.sum() == 6 + 3
    for p, (i, j) in enumerate(found.pairs):
        for t in range(60):
            a, b = rates[0, i, t], rates[0, j, t]
            size = {"geomean": math.sqrt(abs(a * b)), "min": min(abs(a), abs(b)), "product": abs(a * b)}[kernel]
            assert found.values[t, 0, p] == pytest.approx(size if a * b > 0 else 0, abs=2e-6)
    assert (found.values[:, 1, ~found.mask[1]] == 0).all()
    assert (found.values >= 0).all()


def test_rates_by_hand():
    trace = np.array([[[0.0, 1.0, 4.0, 4.0]]])
    plain = np.gradient(trace[0, 0] / 4, 0.5)
    np.testing.assert_allclose(rates_of_change(trace, 0.5, smooth=0.0)[0, 0], plain / np.sqrt((plain**2).mean()))
    assert (rates_of_change(np.ones((1, 1, 5)), 1.0) == 0).all()


def test_independent_rates_have_the_known_floor():
    a, b = np.random.default_rng(1).standard_normal((2, 400_000))
    root = 2**0.25 * math.gamma(0.75) / math.sqrt(math.pi)  # the mean of sqrt|x|
    assert float(kernel_value(a, b).mean()) == pytest.approx(root**2 / 2, abs=3e-3)
    assert float(kernel_value(a, b, "product").mean()) == pytest.approx(1 / math.pi, abs=5e-3)


def test_averages_of_frames():
    whole, halved = differential_affinity(traces(), 0.25), differential_affinity(traces(), 0.25, every=4)
    np.testing.assert_allclose(halved.values, whole.values.reshape(15, 4, 2, 6).mean(axis=1), atol=1e-6)


def test_windows_are_pearson():
    given = traces(2)
    found = windowed_correlation(given, 20).values
    for t in (0, 7, 30, 59):
        part = given[1, :, max(t - 10, 0) : min(t + 10, 60)]
        np.testing.assert_allclose(found[t, 1], unfold(np.maximum(np.corrcoef(part), 0)), atol=1e-5)


def test_edge_series_average_to_correlation():
    given = np.abs(traces(3, (1, 3, 50)))
    scores = (given[0] - given[0].mean(axis=1, keepdims=True)) / given[0].std(axis=1, keepdims=True)
    np.testing.assert_allclose(edge_series(given, smooth=0.0).values[:, 0, 0], np.maximum(scores[0] * scores[1], 0), atol=1e-5)


def test_fold_and_back():
    values = np.arange(12.0).reshape(2, 6)
    matrix = fold(values, 4)
    assert (matrix == matrix.swapaxes(1, 2)).all()
    np.testing.assert_array_equal(unfold(matrix), values)
    with pytest.raises(InputError, match="not those of the 10 pairs"):
        fold(values, 5)


def test_refused():
    broken = traces()
    broken[0, 1, 5] = np.nan
    with pytest.raises(InputError, match="Animal 0, neuron 1: the trace is nan in frame 5"):
        differential_affinity(broken, 0.25)
    for wrong, words in (
        (lambda: differential_affinity(traces()[0], 0.25), "animals, neurons, frames"),
        (lambda: differential_affinity(traces(), 0.0), "dt = 0"),
        (lambda: differential_affinity(traces(), 1.0, every=61), "every = 61"),
        (lambda: windowed_correlation(traces(), 1), "window = 1"),
        (lambda: differential_affinity(traces()[:, :1], 1.0), "have no pair"),
        (lambda: rates_of_change(traces()[:, :, :2], 1.0), "2 frames"),
    ):
        with pytest.raises(InputError, match=words):
            wrong()
