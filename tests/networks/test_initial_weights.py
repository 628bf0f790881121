"""Starts of different structure at one norm, and effective ranks."""

import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.networks.initial_weights import (
    block_weights,
    chain_weights,
    dale_weights,
    gaussian_weights,
    low_rank_weights,
    match_radius,
    ring_weights,
    shuffled_weights,
    smooth_spectrum_weights,
    spectral_radius,
    truncate,
    wired_weights,
)
from broadsheet.numerics.ranks import effective_rank

N = 40


def test_effective_ranks_by_hand_and_of_orthogonal_matrices():
    assert effective_rank(np.diag([1.0, 1.0, 0.0])) == pytest.approx(2)
    assert effective_rank(np.diag([2.0, 1.0])) == pytest.approx(25 / 17)
    p = np.array([2, 1]) / 3
    assert effective_rank(np.diag([2.0, 1.0]), "entropy") == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0]
    assert effective_rank(1e-200 * q) == pytest.approx(7)
    assert effective_rank(q, "entropy") == pytest.approx(7)
    assert effective_rank(gaussian_weights(0, 400)) == pytest.approx(200, rel=0.03)  # Marchenko-Pastur: n / 2
    for bad in (np.zeros((2, 2)), np.ones(3), np.array([[np.nan]])):
        with pytest.raises(InputError):
            effective_rank(bad)


def test_all_have_one_norm_and_their_structure():
    whole = gaussian_weights(0, N)
    for rank in (1, 7, N):
        low = low_rank_weights(0, N, rank)
        assert np.linalg.matrix_rank(low) == rank
        assert np.linalg.norm(low) == pytest.approx(np.linalg.norm(whole))
    assert np.abs(truncate(whole, N) - whole).max() < 1e-12
    dale = dale_weights(0, N)
    assert (dale[:, :32] >= 0).all()
    assert (dale[:, 32:] <= 0).all()
    ring = np.abs(ring_weights(0, N, reach=0.05))
    near, far = ring[np.arange(N), (np.arange(N) + 1) % N], ring[np.arange(N), (np.arange(N) + N // 2) % N]
    assert near.mean() > 100 * far.mean()
    chain = chain_weights(0, N, links=4, noise=0.0)
    assert set(zip(*(np.nonzero(chain.reshape(4, 10, 4, 10).any(axis=(1, 3)))), strict=True)) == {(1, 0), (2, 1), (3, 2)}
    for made in (dale, block_weights(0, N), ring_weights(0, N), chain):
        assert 0.5 < np.linalg.norm(made) / np.linalg.norm(whole) < 2
    assert effective_rank(smooth_spectrum_weights(0, N, 5.0)) == pytest.approx(5)
    assert spectral_radius(match_radius(whole, 0.3)) == pytest.approx(0.3)


def test_wiring_keeps_signs_of_cells_and_shuffling_what_they_send():
    wiring = np.zeros((3, 3))
    wiring[0, 1], wiring[1, 2], wiring[2, 0] = 3, 4, 12
    made = wired_weights(wiring, [1, -1, 1], gain=1.0)
    np.testing.assert_allclose(made * 13 / 3**0.5, [[0, 0, 12], [3, 0, 0], [0, -4, 0]])
    weights = gaussian_weights(0, N)
    mixed = shuffled_weights(1, weights)
    np.testing.assert_allclose(np.sort(mixed, axis=0), np.sort(weights, axis=0))
    np.testing.assert_array_equal(np.diag(mixed), np.diag(weights))
    assert (mixed != weights).mean() > 0.8


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: low_rank_weights(0, 4, 5), "rank of 5"),
        (lambda: smooth_spectrum_weights(0, 4, 4.0), "effective rank of 4"),
        (lambda: dale_weights(0, 4, excitatory=1.0), "share of 1.0"),
        (lambda: match_radius(np.triu(np.ones((3, 3)), 1), 1.0), "no loops"),
        (lambda: wired_weights(np.zeros((2, 2)), [1, 1]), "not all zero"),
        (lambda: wired_weights(np.ones((2, 2)), [1, 0]), "±1"),
        (lambda: chain_weights(0, 4, links=1), "1 groups"),
    ],
)
def test_what_is_wrong_is_said(call, said):
    with pytest.raises(InputError, match=said):
        call()
