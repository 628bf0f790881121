"""Readings of spectra against closed forms, NumPy's SVD and scikit-learn."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score

from broadsheet.errors import InputError
from broadsheet.language.geometry import (
    GeometryTrace,
    StreamingCovariance,
    alpha_req,
    bootstrap,
    direction,
    measure,
    participation_ratio,
    phases,
    project_topk,
    rankme,
    spectrum,
    spectrum_of,
    stable_rank,
)


@pytest.fixture
def x():
    rng = np.random.default_rng(3)
    return rng.standard_normal((300, 40)) * np.arange(1, 41) ** -0.6 + rng.standard_normal(40)


def test_spectrum_is_that_of_pca(x):
    assert_allclose(spectrum(x), PCA().fit(x).explained_variance_, rtol=1e-12)
    assert_allclose(spectrum(x, kind="singular", center=False), np.linalg.svd(x, compute_uv=False), rtol=1e-10)
    assert_allclose(spectrum(x, most=5), spectrum(x)[:5])


def test_batches_and_a_large_offset_change_nothing(x):
    far = x + 1e6
    made = StreamingCovariance(40)
    for start in range(0, 300, 37):
        made.update(far[start : start + 37])
    assert_allclose(made.spectrum(), PCA().fit(x).explained_variance_, rtol=1e-6)
    assert_allclose(spectrum_of(np.array_split(x, 7)), spectrum(x), rtol=1e-12)
    assert_allclose(made.matrix(center=False), far.T @ far / 299, rtol=1e-12)


def test_alpha_is_weighted_least_squares(x):
    values = spectrum(x)
    low, high = 12, 36
    ranks = np.arange(low, high + 1)
    slope, start = np.polyfit(np.log(ranks), np.log(values[ranks - 1]), 1, w=ranks**-0.5)
    alpha, r2 = alpha_req(values)
    assert_allclose(alpha, -slope, rtol=1e-12)
    assert_allclose(r2, r2_score(np.log(values[ranks - 1]), start + slope * np.log(ranks)), rtol=1e-12)


def test_the_papers_window_is_ranks_12_to_100():
    values = np.arange(1.0, 513) ** -1.0
    bent = values.copy()
    bent[:11] *= 7
    bent[100:] *= 7
    assert_allclose(alpha_req(bent)[0], 1.0, rtol=1e-12)
    bent[11] *= 7
    assert abs(alpha_req(bent)[0] - 1.0) > 1e-3


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_only_real_ranks_are_fitted(kind):
    """Twelve texts have eleven ranks once centred; 60 texts of width 512 have 59, and a plain fit over 12 to 59 is theirs."""
    rng = np.random.default_rng(0)
    for count, width in ((12, 16), (60, 512)):
        features = (rng.standard_normal((count, width)) * np.arange(1, width + 1) ** -0.7).astype(kind)
        values = spectrum(features)
        centred = features.astype(float) - features.astype(float).mean(axis=0)
        assert np.sum(values > 0) == np.linalg.matrix_rank(centred) == count - 1
        squares = np.linalg.svd(centred, compute_uv=False)[: count - 1] ** 2 / (count - 1)
        assert_allclose(values[: count - 1], squares, rtol=1e-6)
        ranks = np.arange(2 if width < 20 else 12, count)
        slope = np.polyfit(np.log(ranks), np.log(squares[ranks - 1]), 1, w=ranks**-0.5)[0]
        assert_allclose(alpha_req(values)[0], -slope, rtol=1e-5)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_features_in_a_subspace_have_its_rank(kind):
    """Rounding of the features themselves is no rank either, with or without a common offset."""
    rng = np.random.default_rng(1)
    law = np.arange(1, 25) ** -1.0
    basis = np.linalg.qr(rng.standard_normal((64, 24)))[0]
    for offset in (0.0, 30.0):
        features = ((rng.standard_normal((400, 24)) * law) @ basis.T + offset).astype(kind)
        assert np.sum(spectrum(features) > 0) == 24
        assert np.sum(spectrum(features, center=False) > 0) in (24, 25)
    noisy = spectrum(features)
    noisy[24:] = 1e-17 * noisy[0] * rng.uniform(0.1, 9, 40)
    assert_allclose(alpha_req(noisy), alpha_req(spectrum(features)), rtol=1e-12)


@pytest.mark.parametrize("d", [64, 512, 2048])
def test_rankme_of_flat_spectra(d):
    assert_allclose(rankme(np.ones(d)), d * (1 + d * 1e-7 * (np.log(d) - 1)), rtol=1e-6)


def test_ranks_of_two_values():
    p = np.array([0.9, 0.1])
    assert_allclose(rankme(5 * p, eps=0.0), 0.9**-0.9 * 0.1**-0.1, rtol=1e-12)
    assert_allclose(participation_ratio(5 * p), 1 / 0.82, rtol=1e-12)
    assert_allclose(stable_rank(5 * p), 1 / 0.9, rtol=1e-12)


def test_project_topk_keeps_the_head_of_the_spectrum(x):
    kept = project_topk(x, 5)
    assert_allclose(kept.mean(axis=0), x.mean(axis=0), atol=1e-12)
    assert_allclose(spectrum(kept)[:5], spectrum(x)[:5], rtol=1e-10)
    assert spectrum(kept)[5:].max() < 1e-12


def test_phases_of_a_curve_with_all_three():
    steps = [0, 10, 20, 50, 100, 200, 400, 800, 1600]
    found = phases(steps, [40, 30, 12, 12, 15, 20, 24, 24, 22])
    assert found == {"warm-up": (0, 20), "entropy-seeking": (20, 400), "compression-seeking": (400, 1600)}
    rising = phases(steps, np.arange(9) + 1.0)
    assert rising["warm-up"] is None
    assert rising["compression-seeking"] is None


def test_a_trace_is_plotted_with_the_phases_it_has():
    """Flat spectra of known ranks: 40, 12, 24 and 22 values."""
    trace = GeometryTrace()
    for step, rank in enumerate([40, 30, 12, 12, 12, 20, 24, 24, 24, 22, 22]):
        trace.add(100 * step, np.ones(rank))
    left, right = trace.plot().axes
    (line,) = left.get_lines()
    assert_allclose(line.get_ydata(), [40, 30, 12, 12, 12, 20, 24, 24, 24, 22, 22], rtol=1e-4)
    assert_allclose(line.get_xdata(), 100 * np.arange(11) + 1)
    assert [text.get_text() for text in left.get_legend().get_texts()] == list(trace.phases())
    assert_allclose(right.get_lines()[0].get_ydata(), 0.0, atol=1e-9)


def test_bootstrap_brackets_a_known_rank():
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((4000, 12))
    low, high = bootstrap(flat, draws=40)["rankme"]
    assert 11.8 < low <= high <= 12.001
    wide = bootstrap(flat[:60], draws=40)["rankme"]
    assert wide[1] - wide[0] > 5 * (high - low)


def test_direction_of_a_change(x):
    """A rounder cloud on the same texts is an expansion; a twin, drawn apart by rounding alone, is not."""
    x = x - x.mean(axis=0)
    rounder = x * np.arange(1, 41) ** 0.3
    assert direction(bootstrap(x, rounder, draws=30)) == "expansion"
    assert direction(bootstrap(rounder, x, draws=30)) == "compression"
    noise = 1e-7 * np.random.default_rng(0).standard_normal(x.shape)
    assert direction(bootstrap(x, x + noise, draws=30)) == "neither"
    with pytest.raises(InputError, match="same texts"):
        bootstrap(x, x[:-1])


def test_trace_keeps_readings(x):
    trace = GeometryTrace()
    for step in (0, 5, 10):
        trace.add(step, spectrum(x * (1 + step)))
    assert_allclose(trace["rankme"], rankme(spectrum(x)), rtol=1e-9)
    assert set(trace.readings) == set(measure(spectrum(x)))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: spectrum(np.ones((1, 4))), "at least 2"),
        (lambda: spectrum(np.full((5, 4), np.inf)), "NaN or infinity"),
        (lambda: spectrum(np.ones((5, 4)), kind="values"), "eigenvalues or singular"),
        (lambda: StreamingCovariance(3).update(np.ones((2, 4))), r"\(samples, 3\)"),
        (lambda: alpha_req(np.ones(2)), "needs 3"),
        (lambda: measure(spectrum(np.random.default_rng(0).standard_normal((12, 200)))), "take more texts"),
        (lambda: phases([1, 2], [1, 2]), "at least 3"),
        (lambda: spectrum_of([]), "no features"),
    ],
)
def test_mistakes_get_a_sentence(made, said):
    with pytest.raises(InputError, match=said):
        made()
