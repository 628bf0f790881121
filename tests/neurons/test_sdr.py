import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from broadsheet.errors import InputError
from broadsheet.neurons import sdr
from broadsheet.neurons.sdr_data import correlated_sdrs, k_winners, poirazi_mel

# published tables: (n, a, s, theta) -> probability
FALSE_MATCHES = [
    ((10_000, 300, 24, 12), 8.376e-13),
    ((300, 64, 24, 12), 1.0946e-3),
    ((500, 64, 24, 12), 5.696e-6),
    ((700, 64, 24, 12), 1.413e-7),
    ((1100, 128, 24, 12), 2.996e-6),
    ((1100, 256, 24, 12), 3.505e-3),
    ((100_000, 2000, 6, 6), 6.35e-11),
    ((100_000, 2000, 10, 10), 1.00e-17),
    ((100_000, 2000, 12, 6), 5.29e-8),
    ((100_000, 2000, 24, 12), 8.59e-15),
    ((100_000, 2000, 80, 10), 4.63e-6),
    ((2000, 32, 8, 4), 3.62e-6),
]


@pytest.mark.parametrize(("sizes", "published"), FALSE_MATCHES)
def test_false_match_equals_the_published_tables(sizes, published):
    assert sdr.false_match(*sizes) == pytest.approx(published, rel=2e-3)


def test_false_negative_equals_the_published_table():
    np.testing.assert_allclose(sdr.false_negative(128, 30, [8, 12, 16], 64), [7.354e-4, 0.07170, 0.58250], rtol=1e-3)


def test_median_over_the_grid_equals_the_published_list():
    published = [1.73e-2, 1.99e-3, 1.71e-4, 1.20e-5, 6.57e-7, 3.33e-8, 1.35e-9, 4.80e-11, 1.54e-12, 3.41e-14]
    np.testing.assert_allclose(sdr.median_false_match(np.arange(3, 13)), published, rtol=5e-3)
    assert sdr.median_false_match(24)[0] == pytest.approx(2.07e-39, rel=5e-3)
    assert sdr.optimal_theta(1e-9) == 10
    assert sdr.optimal_theta(1e-300) == 25


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_false_match_equals_exact_fractions(data):
    n = data.draw(st.integers(5, 200))
    a, s = data.draw(st.integers(0, n)), data.draw(st.integers(1, min(n, 40)))
    theta = data.draw(st.integers(0, s))
    exact = sum(
        (Fraction(math.comb(s, b) * math.comb(n - s, a - b), math.comb(n, a)) for b in range(theta, min(s, a) + 1)), Fraction()
    )
    assert float(sdr.false_match(n, a, s, theta)) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)
    assert float(sdr.false_match(n, a, s, theta)) == pytest.approx(stats.hypergeom.sf(theta - 1, n, s, a), rel=1e-6, abs=1e-14)


def test_logs_reach_below_the_smallest_float():
    assert sdr.false_match(100_000, 500, 200, 180) == 0.0
    assert sdr.false_match(100_000, 500, 200, 180, log=True) == pytest.approx(
        stats.hypergeom.logsf(179, 100_000, 200, 500), rel=1e-6
    )


def test_unions_equal_simulation_and_many_segments_the_closed_form():
    rng = np.random.default_rng(0)
    unions = [len(np.unique(sdr.random_sdrs(rng, 500, 20, 10))) for _ in range(300)]
    assert sdr.union_synapses(500, 20, 10) == pytest.approx(np.mean(unions), rel=0.01)
    assert sdr.any_segment(3.62e-6, 500) == pytest.approx(1.81e-3, rel=2e-3)


def test_random_patterns_are_uniform_subsets():
    patterns = sdr.random_sdrs(1, 12, 4, 30_000)
    assert all(len(set(row)) == 4 for row in patterns[:500].tolist())
    counts = np.bincount(patterns.ravel(), minlength=12)
    assert stats.chisquare(counts).pvalue > 1e-4
    overlap = sdr.overlaps(12, patterns, np.array([[0, 1, 2]]))[:, 0]
    expected = stats.hypergeom.pmf(np.arange(4), 12, 3, 4) * len(overlap)
    assert stats.chisquare(np.bincount(overlap.astype(int), minlength=4), expected).pvalue > 1e-4


def test_noise_keeps_sparsity_and_replaces_the_right_number():
    patterns = sdr.random_sdrs(2, 300, 40, 50)
    noisy = sdr.noise(3, patterns, 0.3, 300)
    for before, after in zip(patterns.tolist(), noisy.tolist(), strict=True):
        assert len(set(after)) == 40
        assert len(set(before) & set(after)) == 28


def test_sdr_objects():
    a, b = sdr.SDR(10, [1, 2, 3]), sdr.SDR(10, [3, 4])
    assert (len(a | b), a.overlap(b), a.dense().sum()) == (4, 1, 3)
    for cell in (0, 9):
        assert len(sdr.SDR(10, [cell])) == 1
    assert len(sdr.SDR(10, [])) == 0
    for cell in (-1, 10):
        with pytest.raises(InputError, match=r"0…9"):
            sdr.SDR(10, [cell])


@pytest.mark.parametrize("call", [lambda: sdr.false_match(10, 11, 3, 1), lambda: sdr.false_match(10.5, 3, 3, 1),
                                  lambda: sdr.false_negative(10, 5, 6, 3), lambda: sdr.random_sdrs(0, 5, 6, 1)])  # fmt: skip
def test_impossible_sizes_are_named(call):
    with pytest.raises(InputError):
        call()


def test_generated_data():
    correlated = correlated_sdrs(0, 2000, 40, 20)
    assert all(len(set(row)) == 40 for row in correlated.tolist())
    together = sdr.to_dense(2000, correlated_sdrs(0, 2000, 40, 300))
    both = (together[:, 0] & together[:, 1]).sum()
    assert both >= together[:, 0].sum() * 0.9  # cells 0 and 1 are one cluster
    cells, labels = poirazi_mel(0, 200)
    assert cells.shape == (200, 40)
    assert (cells // 10 == np.arange(40)).all()
    assert np.bincount(cells.ravel(), minlength=400).tolist() == [20] * 400
    assert labels.sum() == 100
    theirs = poirazi_mel(0, 200, latent=40, bins=10, fixed=4, product=4)[0]  # verdicts rest on this size
    np.testing.assert_array_equal(cells, theirs)
    winners = k_winners(0, np.random.default_rng(0).normal(size=(5, 64)), n=100, k=7)
    assert winners.shape == (5, 7)


def test_edges_of_patterns_and_noise():
    assert sorted(sdr.random_sdrs(0, 6, 6, 2)[0]) == list(range(6))
    assert sdr.random_sdrs(0, 6, 0, 3).shape == (3, 0)
    whole = np.arange(4)[None]
    assert sorted(sdr.noise(0, whole, 0.5, 6)[0].tolist())[-2:] == [4, 5]
    with pytest.raises(InputError, match="2 other cells to switch on are not there: n = 5, a = 4"):
        sdr.noise(0, whole, 0.5, 5)
    assert sorted(sdr.noise(0, whole, 0.1, 9)[0]) == [0, 1, 2, 3]  # 0.4 of a cell is none, 0.5 one
    assert len({*sdr.noise(0, whole, 0.125, 9)[0].tolist()} - {0, 1, 2, 3}) == 1
    some = sdr.sample_columns(0, np.arange(40).reshape(4, 10), 3)
    assert some.shape == (4, 3)
    assert (some // 10 == np.arange(4)[:, None]).all()
    assert all(len(set(row)) == 3 for row in some.tolist())
    np.testing.assert_array_equal(
        sdr.overlaps(9, np.array([[0, 1], [7, 8]]), np.array([[1, 2, 8], [0, 1, 3]])), [[1, 2], [1, 0]]
    )
    np.testing.assert_array_equal(sdr.to_csr(4, np.array([[0, 3], [1, 2]])).toarray(), [[1, 0, 0, 1], [0, 1, 1, 0]])


def test_closed_forms_by_hand():
    assert sdr.false_match(5.0, 2.0, 2, 2) == pytest.approx(1 / 10)
    assert sdr.false_negative(4, 2, 2, 1) == pytest.approx(1 / 2)  # one of four goes, and both synapses are needed
    assert sdr.false_negative(4, 2, 1, 1) == 0
    assert sdr.any_segment(0.5, 3) == pytest.approx(7 / 8)
    assert sdr.union_activity(10, 5, 2) == sdr.union_synapses(10, 5, 2) == pytest.approx(7.5)
    n, a, s = sdr.threshold_grid()
    assert len(n) == 5 * 6 * 7
    assert (sorted(set(n)), sorted(set(s))) == ([1000, 5000, 9000, 13000, 17000], [20, 25, 30, 35, 40, 45, 50])
    assert (a[n == 1000].min(), a[n == 17000].max()) == (5, 510)
    assert sdr.optimal_theta() == 10
    grid = np.array([100]), np.array([10]), np.array([5])
    for target, theta in ((1.0, 1), (0.4, 2), (1e-9, 6), (0.0, 25)):
        assert sdr.optimal_theta(target, grid) == theta
    for wrong in (-1, 2.5):
        with pytest.raises(InputError, match="whole numbers from 0"):
            sdr.false_match(10, wrong, 3, 1)


def test_clusters_winners_and_ranks_by_hand():
    made = correlated_sdrs(0, 40, 6, 200, sizes=(2, 3), cells_per_size=10)
    dense = sdr.to_dense(40, made)
    assert (dense[:, 0] & dense[:, 1]).sum() > 0.5 * dense[:, 0].sum()  # cells 0 and 1 are one cluster, 10 to 12 another
    assert (dense[:, 10] & dense[:, 12]).sum() > 0.5 * dense[:, 10].sum()
    assert (dense[:, 1] & dense[:, 2]).sum() < 0.3 * dense[:, 1].sum()
    assert (dense.sum(axis=1) == 6).all()
    X = np.random.default_rng(1).normal(size=(5, 8)) + 3
    projection = np.random.default_rng(0).normal(size=(8, 50))
    wanted = np.argsort(-((X - X.mean(axis=1, keepdims=True)) @ projection), axis=1)[:, :7]
    np.testing.assert_array_equal(np.sort(k_winners(0, X, 50, 7)), np.sort(wanted))
    assert k_winners(0, X).shape == (5, 41)
    cells, labels = poirazi_mel(0, 20, latent=6, bins=5)
    assert labels.tolist() == [1] * 10 + [0] * 10
    assert (cells // 5 == np.arange(6)).all()
    assert np.bincount(cells.ravel(), minlength=30).tolist() == [4] * 30
