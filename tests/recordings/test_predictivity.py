from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut
from threadpoolctl import threadpool_info, threadpool_limits

from broadsheet.errors import InputError
from broadsheet.recordings import (
    behavioural_consistency,
    contact_readout,
    decode_state,
    halves_of,
    inter_animal_consistency,
    neural_predictivity,
    residual_errors,
)
from broadsheet.recordings import predictivity as module

TRACE = np.load(Path(__file__).parents[1] / "references" / "pong.npz")
SPLITS = [(order[:45], order[45:]) for order in TRACE["order"]]


@pytest.mark.parametrize(("name", "alphas"), [("cv", module.ALPHAS), ("fixed", [10.0])])
def test_the_measure_is_that_of_the_labs_program(name, alphas):
    found = neural_predictivity(
        TRACE["X"], TRACE["Y"], splits=SPLITS, halves=TRACE["halves"], alphas=alphas, leave_out="samples"
    )
    for ours, theirs in (
        (found.r, "r_xy"), (found.prediction_reliability, "r_xx"), (found.response_reliability, "r_yy"), (found.each, "r_xy_n_sb"),
    ):  # fmt: skip
        expected = TRACE[f"{name}_model_{theirs}"].transpose(1, 0, 2)  # theirs: halves, splits, units
        np.testing.assert_allclose(np.broadcast_to(ours, expected.shape), expected, atol=1e-9)


@pytest.mark.parametrize(("name", "alphas"), [("cv", module.ALPHAS), ("fixed", np.array([10.0]))])
def test_consistency_between_animals_is_that_of_the_labs_program(name, alphas):
    """With their halves of both animals, which are not drawn but given one by one."""
    own = module._halved(TRACE["source"], TRACE["own_halves"])
    theirs = module._halved(TRACE["Y"], TRACE["halves"])
    means = TRACE["source"].mean(axis=0), np.nanmean(TRACE["Y"], axis=0)
    for k in range(3):
        found = inter_animal_consistency(*means, halves=(own[k], theirs[k]), splits=SPLITS, alphas=alphas, leave_out="samples")
        np.testing.assert_allclose(found.each[:, 0], TRACE[f"{name}_animal_r_xy_n_sb"][k], atol=1e-9)


def test_small_products_are_of_one_thread_and_large_ones_of_all(monkeypatch):
    """Seen from within the decomposition and the choice of a penalty; what is found is the same."""
    seen, svd, choose = set(), np.linalg.svd, module.Ridge.choose

    def watched(call):
        def watching(*given, **options):
            pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas" and pool["threading_layer"] != "disabled"]
            seen.update(pool["num_threads"] for pool in pools)
            return call(*given, **options)

        return watching

    monkeypatch.setattr(np.linalg, "svd", watched(svd))
    monkeypatch.setattr(module.Ridge, "choose", watched(choose))
    found = {}
    with threadpool_limits(2, user_api="blas"):
        for threads, small in ((1, module.SMALL), (2, 0.0)):
            monkeypatch.setattr(module, "SMALL", small)
            seen.clear()
            found[threads] = neural_predictivity(TRACE["X"], TRACE["Y"], splits=SPLITS, halves=TRACE["halves"]).each
            assert seen == {threads}
    np.testing.assert_allclose(found[1], found[2], atol=1e-9)


def grouped(units=3):
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(9), rng.integers(3, 7, 9))
    X = rng.normal(size=(9, 6))[group] + 0.1 * rng.normal(size=(len(group), 6))
    return rng, group, X, X[:, :2] @ rng.normal(size=(2, units)) + rng.normal(size=(9, units))[group]


def test_penalties_are_chosen_by_leaving_groups_out():
    """Against a loop over groups and penalties, and over samples against scikit-learn's RidgeCV."""
    _, group, X, Y = grouped()
    alphas = np.array([0.01, 0.1, 1.0, 10.0, 100.0])
    errors = [
        sum(
            ((Ridge(alpha).fit(X[train], Y[train]).predict(X[test]) - Y[test]) ** 2).sum()
            for train, test in GroupKFold(9).split(X, Y, group)
        )
        for alpha in alphas
    ]
    ridge = module.Ridge.of(X, alphas, group)
    assert ridge.choose(Y)[0] == alphas[int(np.argmin(errors))]
    made, alpha = ridge.predict(X, Y)
    np.testing.assert_allclose(made, Ridge(alpha).fit(X, Y).predict(X), atol=1e-9)
    for targets in (Y, Y + 5, np.random.default_rng(1).normal(size=(len(X), 40))):
        theirs = RidgeCV(alphas).fit(X, targets)
        made, alpha = module.Ridge.of(X, alphas).predict(X[:5], targets)
        assert alpha == theirs.alpha_
        np.testing.assert_allclose(made, theirs.predict(X[:5]), atol=1e-9)


@pytest.mark.parametrize("features", [5, 30, 38, 39, 200])
@pytest.mark.parametrize("together", [1, 4])
def test_the_penalty_is_that_of_leaving_out_one_by_one_where_features_outnumber_samples_too(features, together):
    rng = np.random.default_rng(features)
    X, group = rng.normal(size=(40, features)), np.repeat(np.arange(40 // together), together)
    X[:, 0] = group == 0  # one group has a feature of its own
    Y = X @ rng.normal(size=(features, 7)) / np.sqrt(features) + 0.5 * rng.normal(size=(40, 7))
    alphas = np.geomspace(1e-9, 1e6, 6)
    errors = [
        sum(
            ((Ridge(alpha, solver="svd").fit(X[train], Y[train]).predict(X[test]) - Y[test]) ** 2).sum()
            for train, test in LeaveOneGroupOut().split(X, Y, group)
        )
        for alpha in alphas
    ]
    assert module.Ridge.of(X, alphas, group).choose(Y)[0] == alphas[int(np.argmin(errors))] > 1e-9


def test_wide_features_and_constant_ones_are_no_trouble():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(40, 200)), rng.normal(size=(40, 3))
    for alpha in module.ALPHAS[::6]:
        made = module.Ridge.of(X, np.array([alpha])).predict(X[:4] + 1, Y)[0]
        np.testing.assert_allclose(made, Ridge(alpha, solver="svd").fit(X, Y).predict(X[:4] + 1), atol=1e-8)
    constant = neural_predictivity(np.ones((12, 5, 2)), rng.normal(size=(6, 12, 5, 3)) + rng.normal(size=(12, 5, 3)), halves=2)
    np.testing.assert_allclose(constant.rho[constant.reliable], 0, atol=1e-9)


def test_the_measure_is_calibrated_and_units_of_noise_have_no_number():
    rng = np.random.default_rng(2)
    rates = rng.normal(size=(30, 12, 20))
    trials = rates + rng.normal(size=(10, *rates.shape))
    trials[..., 0] = rng.normal(size=trials.shape[:-1])
    found = neural_predictivity(rates, trials, halves=6)
    assert abs(found.median - 1) < 0.02
    assert found.raw[1] < 0.97
    assert abs(neural_predictivity(rng.normal(size=(30, 12, 4)), trials, halves=6).median) < 0.1
    assert 0 < found.sem < 0.05
    assert found.each.shape == (5, 6, 20)


def test_conditions_stay_together_and_nan_is_left_out():
    rng = np.random.default_rng(3)
    X, Y = rng.normal(size=(10, 6, 3)), rng.normal(size=(4, 10, 6, 2))
    X[2, 3] = np.nan
    Y[:, 5, 1] = np.nan
    Y[0, 4] = np.nan
    one = neural_predictivity(X, Y, halves=2, leave_out="samples")
    kept = np.ones((10, 6), bool)
    kept[2, 3] = kept[5, 1] = False
    group = np.repeat(np.arange(10), 6)[kept.ravel()]
    splits = list(module.group_splits(group, 5))
    for train, test in splits:
        assert not set(group[train]) & set(group[test])
    other = neural_predictivity(X[kept], Y[:, kept], splits=splits, halves=2, leave_out="samples")
    np.testing.assert_allclose(one.each, other.each)


@pytest.mark.parametrize(
    ("X", "Y", "options", "what"),
    [
        (np.zeros(5), np.zeros((2, 5, 1)), {}, "features\\) or"),
        (np.zeros((5, 2)), np.zeros((2, 6, 1)), {}, "is wanted"),
        (np.zeros((5, 2)), np.zeros((1, 5, 1)), {}, "2 or more"),
        (np.zeros((5, 2)), np.zeros((4, 5, 1)), {"alphas": [0.0], "train_fraction": 0.5}, "above 0"),
        (np.zeros((5, 2)), np.zeros((4, 5, 1)), {"halves": np.ones((2, 4), bool)}, "both halves"),
        (np.zeros((5, 2)), np.zeros((4, 5, 1)), {"groups": np.zeros(4)}, "groups has 4"),
        (np.zeros((5, 2)), np.zeros((4, 5, 1)), {"groups": np.zeros(5)}, "of one group"),
        (np.zeros((5, 2)), np.zeros((4, 5, 1)), {"leave_out": "trials", "train_fraction": 0.5}, "groups and samples"),
        (np.full((5, 2), np.nan), np.zeros((4, 5, 1)), {}, "3 or more"),
        (np.zeros((5, 2)), np.zeros((4, 5, 1)), {"splits": [([0], [1, 2])]}, "two samples"),
    ],
)
def test_mistakes_are_one_sentence(X, Y, options, what):
    with pytest.raises(InputError, match=what):
        neural_predictivity(X, Y, **options)


def test_states_are_read_out_of_conditions_that_were_not_seen():
    rng = np.random.default_rng(4)
    state = rng.normal(size=(20, 8, 2))
    features = state @ rng.normal(size=(2, 6))
    features[0, 2] = np.nan
    found = decode_state(features, state)
    assert (found.r > 0.999).all()
    assert np.isnan(found.made[0, 2]).all()
    assert np.nanmax(np.abs(found.made - state)) < 0.05
    other = decode_state(features, state, learned_from=(features, -state))
    assert (other.r < -0.999).all()
    with pytest.raises(InputError, match="same conditions"):
        decode_state(features, state[:5])


def test_consistency_of_errors_is_that_of_the_published_program():
    for halves, expected in zip(TRACE["behaviour_halves"], TRACE["behaviour"], strict=True):
        assert behavioural_consistency(halves[:2], halves[2:]) == pytest.approx(expected, abs=1e-12)


def test_residuals_hold_nothing_of_the_truth_and_a_shared_bias_is_found():
    rng = np.random.default_rng(5)
    truth, bias = rng.normal(size=40), rng.normal(size=40)
    subject = truth * 0.8 + 0.5 * bias + 0.3 * rng.normal(size=(30, 40))
    left = residual_errors(subject, truth)
    np.testing.assert_allclose(left @ truth, left.sum(axis=1) * 0, atol=1e-9)
    halves = halves_of(left, 5)
    model = residual_errors(3 * truth + bias, truth)
    assert behavioural_consistency(np.stack([model, model]), halves) > 0.9
    assert np.isnan(behavioural_consistency(np.stack([model, -model]), halves))
    for wrong in (
        lambda: residual_errors(subject, truth[:5]),
        lambda: halves_of(subject[:1]),
        lambda: behavioural_consistency(halves, model),
    ):
        with pytest.raises(InputError):
            wrong()


def test_the_readout_of_contact_chooses_its_penalty():
    rng = np.random.default_rng(6)
    X = rng.normal(size=(60, 3))
    found = contact_readout(3).fit(X, X[:, 0] > 0)
    assert found.score(X, X[:, 0] > 0) > 0.95
    assert found.best_params_["classify__C"] in np.logspace(-8, 8, 17)
