"""Non-negative tensor factors: against TensorLy, brute force on what is missing, and closed forms."""

import pickle

import numpy as np
import pytest
import tensorly
from sklearn.base import clone
from tensorly.decomposition import non_negative_parafac_hals

from broadsheet.errors import InputError
from broadsheet.recordings.tensor_factors import NTF, Factors, matched, rank_scan, start_similarity

SHAPE = (30, 5, 21)


def planted(seed=0, noise=0.0):
    rng = np.random.default_rng(seed)
    parts = [rng.gamma(0.5, size=(size, 3)) for size in SHAPE]
    return np.einsum("tr,wr,pr->twp", *parts) + noise * rng.random(SHAPE), parts


def error(fit, tensor, mask):
    seen = np.broadcast_to(mask, tensor.shape)
    left = (fit.starts_[0].tensor() - tensor)[seen]
    return np.linalg.norm(left) / np.linalg.norm(tensor[seen])


def test_the_error_is_tensorlys():
    tensor, _ = planted(2, 0.5)
    theirs = min(
        float(
            tensorly.norm(tensor - tensorly.cp_to_tensor(non_negative_parafac_hals(tensor, 3, init="random", random_state=k)))
        )
        for k in range(3)
    )
    ours = NTF(3, n_starts=3).fit(tensor)
    assert ours.error_ == pytest.approx(theirs / np.linalg.norm(tensor), abs=1e-3)
    assert ours.error_ == pytest.approx(error(ours, tensor, True), abs=1e-5)
    assert NTF(3, n_starts=3, method="mu", max_sweeps=2000).fit(tensor).error_ == pytest.approx(ours.error_, abs=2e-3)
    assert ours.score(tensor) == pytest.approx(1 - ours.error_**2, abs=1e-4)
    np.testing.assert_allclose(ours.transform(tensor), ours.time_ * ours.weights_, atol=0.02 * ours.weights_.max())


def test_it_stops_after_three_sweeps_that_gain_too_little():
    tensor, _ = planted(2, 0.5)
    tensor = tensor.astype(np.float32).astype(float)
    count = NTF(3, n_starts=1, tol=1e-3).fit(tensor).n_sweeps_
    fits = [NTF(3, n_starts=1, tol=-1.0, max_sweeps=count - k).fit(tensor) for k in range(5)]
    errors = np.array([error(fit, tensor, True) for fit in fits])  # of the last five sweeps, in float64
    gains = 1 - errors[:-1] / errors[1:]
    assert (gains[:3] < 1e-3).all()
    assert gains[3] > 1e-3


def test_what_is_missing_is_predicted():
    tensor, parts = planted(3)
    mask = np.random.default_rng(3).random((5, 21)) > 0.25
    spoiled = np.where(mask, tensor, 1e3)
    fit = NTF(3, n_starts=3, max_sweeps=3000, tol=1e-8).fit(spoiled, mask=mask)
    assert error(fit, tensor, True) < 0.05  # the pairs that no one showed it, too
    truth = Factors(*(part / np.linalg.norm(part, axis=0) for part in parts), np.ones(3), 0.0)
    assert matched(truth, fit.starts_[0])[1] > 0.98
    zeros = NTF(3, n_starts=3).fit(np.where(mask, tensor, 0.0))
    assert error(zeros, tensor, True) > 0.2


def test_missing_pairs_and_frames_are_what_a_plain_loop_minimises():
    tensor, _ = planted(4, 0.3)
    with_gaps = tensor.copy()
    with_gaps[20:, 1] = np.nan
    with_gaps[:, 2, 4:9] = np.nan
    fit = NTF(3, n_starts=3, max_sweeps=2000, tol=1e-9).fit(with_gaps)
    best, seen = fit.starts_[0], np.isfinite(with_gaps)
    assert fit.error_ == pytest.approx(np.linalg.norm((best.tensor() - tensor)[seen]) / np.linalg.norm(tensor[seen]), abs=1e-4)
    for name, index in (("time", "t"), ("animal", "w"), ("pair", "p")):
        factor = getattr(best, name) * best.weight
        others = [k for k in ("time", "animal", "pair") if k != name]
        slope = np.einsum(f"twp,{others[0][0].replace('a', 'w')}r,{others[1][0].replace('a', 'w')}r->{index}r",
                          np.where(seen, best.tensor() - tensor, 0), *(getattr(best, k) for k in others))  # fmt: skip
        assert slope.min() > -0.02  # no value could grow
        assert np.abs(slope * factor).max() < 0.05 * factor.max()  # and none that is not 0 could change
    assert fit.transform(with_gaps).shape == (30, 3)


def test_ranks_side_by_side_are_ranks_alone():
    tensor, _ = planted(5, 0.2)
    scan = rank_scan(tensor, (1, 2, 3, 4), n_starts=3)
    errors = [each.error for each in scan]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] == pytest.approx(NTF(3, n_starts=3).fit(tensor).error_, abs=2e-3)
    falls = -np.diff(errors)
    assert falls[1] > 3 * falls[2]
    assert scan[2].similarity > 0.98


def test_similarity_by_hand():
    eye = np.eye(2)
    one = Factors(eye, eye, eye, np.ones(2), 0.1)
    turned = Factors(eye[:, ::-1], eye[:, ::-1], eye[:, ::-1], np.ones(2), 0.1)
    half = Factors(np.array([[1.0, 0.0], [0.0, 0.6], [0.0, 0.8]])[:2], eye, eye, np.ones(2), 0.5)
    assert matched(one, turned)[1] == 1
    assert matched(one, half)[1] == pytest.approx(0.8)
    assert start_similarity([one, turned, half]) == 1
    assert np.isnan(start_similarity([one]))


def test_estimator_and_refusals():
    tensor, _ = planted(6)
    fit = NTF(3, n_starts=3, random_state=3).fit(tensor)
    again = pickle.loads(pickle.dumps(fit))
    np.testing.assert_array_equal(again.transform(tensor), fit.transform(tensor))
    assert clone(fit).get_params() == fit.get_params()
    np.testing.assert_array_equal(clone(fit).fit(tensor).pair_, fit.pair_)
    np.testing.assert_allclose(np.linalg.norm(fit.pair_, axis=0), 1)
    assert list(fit.weights_) == sorted(fit.weights_, reverse=True)
    one_gap = tensor.copy()
    one_gap[3, 1, 2] = np.nan
    for wrong, words in (
        (lambda: NTF().fit(tensor[0]), "frames, animals, pairs"),
        (lambda: NTF().fit(-tensor), "negative"),
        (lambda: NTF().fit(0 * tensor), "0 everywhere"),
        (lambda: NTF().fit(one_gap), "Animal 1 lacks single values"),
        (lambda: NTF().fit(tensor * np.nan), "all is missing"),
        (lambda: NTF().fit(tensor, mask=np.ones(5)), "one entry an animal and pair"),
        (lambda: NTF(0).fit(tensor), "one or more"),
        (lambda: NTF().set_params(method="als").fit(tensor), "hals or mu"),
        (lambda: fit.transform(tensor[:, :4]), "4 animals"),
    ):
        with pytest.raises(InputError, match=words):
            wrong()
