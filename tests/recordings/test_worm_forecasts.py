"""Forecasts of worms that lack neurons: against other libraries' regressions, closed forms and scikit-learn's own checks."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import (
    check_get_params_invariance,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
)

from broadsheet.errors import InputError
from broadsheet.recordings.worm import GRUForecaster, RidgeVAR, across_worms, persistence_errors, split


def worms(count=3, bins=80, cells=6, seed=0):
    rng = np.random.default_rng(seed)
    weights = 0.8 * np.eye(cells) + 0.3 * (rng.random((cells, cells)) < 0.2)
    out = []
    for _ in range(count):
        x = np.zeros((bins, cells))
        for t in range(1, bins):
            x[t] = 0.6 * x[t - 1] @ weights + rng.standard_normal(cells)
        out.append(x)
    return out


def lagged(parts, lags):
    inputs = np.concatenate([np.hstack([x[lags - 1 - k : len(x) - 1 - k] for k in range(lags)]) for x in parts])
    return inputs, np.concatenate([x[lags:] for x in parts])


@pytest.mark.parametrize("lags", [1, 3])
def test_all_inputs_are_ridge_regression_over_worms(lags):
    parts = worms()
    model = RidgeVAR(lags, ridge=5.0).fit(parts)
    inputs, targets = lagged(parts, lags)
    other = Ridge(alpha=5.0).fit(inputs, targets)
    np.testing.assert_allclose(model.coef_.reshape(-1, 6), other.coef_.T, atol=1e-8)
    np.testing.assert_allclose(model.intercept_, other.intercept_, atol=1e-8)
    np.testing.assert_allclose(model.predict(parts[0])[lags:], other.predict(lagged(parts[:1], lags)[0]), atol=1e-8)


def test_a_support_is_a_ridge_regression_of_each_target_on_its_inputs():
    parts = worms()
    support = np.random.default_rng(1).random((6, 6)) < 0.4
    model = RidgeVAR(ridge=2.0, support=support).fit(parts)
    inputs, targets = lagged(parts, 1)
    for target in range(6):
        allowed = np.flatnonzero(support[:, target] | (np.arange(6) == target))
        other = Ridge(alpha=2.0).fit(inputs[:, allowed], targets[:, target])
        np.testing.assert_allclose(model.coef_[0][allowed, target], other.coef_, atol=1e-8)
        assert not np.delete(model.coef_[0][:, target], allowed).any()
    own = RidgeVAR(support="self").fit(parts).coef_[0]
    assert not (own - np.diag(np.diag(own))).any()


def test_worms_that_lack_neurons():
    """A target learns from the worms that have it; an input that a worm lacks counts as zero there."""
    parts = worms()
    parts[0][:, 2] = np.nan
    parts[1][:, 5] = np.nan
    model = RidgeVAR(ridge=1.0).fit(parts)
    filled = [np.nan_to_num(part) for part in parts]
    for target, having in ((2, [1, 2]), (5, [0, 2]), (0, [0, 1, 2])):
        inputs, targets = lagged([filled[k] for k in having], 1)
        np.testing.assert_allclose(model.coef_[0][:, target], Ridge(alpha=1.0).fit(inputs, targets[:, target]).coef_, atol=1e-8)
    made = model.predict(parts)
    assert np.isnan(made[0][:, 2]).all()
    assert np.isfinite(np.delete(made[0], 2, axis=1)).all()
    assert np.isfinite(model.errors(parts)).all()
    nowhere = [np.column_stack([part, np.full(len(part), np.nan)]) for part in worms()]
    assert RidgeVAR().fit(nowhere).coef_[0][:, 6].tolist() == [0.0] * 6 + [1.0]


def test_missing_bins_take_their_pairs_along():
    parts = worms(1)
    cut = parts[0].copy()
    cut[30] = np.nan
    inputs, targets = lagged(parts, 1)
    kept = np.ones(len(inputs), bool)
    kept[[29, 30]] = False
    other = Ridge(alpha=10.0).fit(inputs[kept], targets[kept])
    np.testing.assert_allclose(RidgeVAR().fit([cut]).coef_[0], other.coef_.T, atol=1e-8)


def test_chosen_inputs_are_those_that_drive():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((4000, 5))
    for t in range(1, 4000):
        x[t, 0] += 0.8 * x[t - 1, 3]
    model = RidgeVAR(support="correlated", inputs=1).fit(x)
    assert np.flatnonzero(model.coef_[0][:, 0]).tolist() == [0, 3]
    assert model.coef_[0][3, 0] == pytest.approx(0.8, abs=0.05)


def test_errors_and_score():
    parts = worms()
    model = RidgeVAR().fit(parts)
    errors = [np.mean((model.predict(part)[1:] - part[1:]) ** 2) for part in parts]
    np.testing.assert_allclose(model.errors(parts), errors)
    base = [np.mean(np.diff(part, axis=0) ** 2) for part in parts]
    np.testing.assert_allclose(persistence_errors(parts), base)
    assert model.score(parts) == pytest.approx(1 - np.mean(errors) / np.mean(base))
    assert model.score(parts) > 0.1


def test_worms_are_left_out_in_turn():
    parts = worms(4)
    models = {"all": RidgeVAR(), "self": RidgeVAR(support="self", lags=2)}
    found = across_worms(models, parts)
    for name, model in models.items():
        for k in range(4):
            alone = clone(model).fit(parts[:k] + parts[k + 1 :])
            assert found[name][k] == pytest.approx(alone.errors([parts[k]])[0] / persistence_errors([parts[k]])[0])
    folded = across_worms({"all": RidgeVAR()}, parts, folds=2)["all"]
    fitted = RidgeVAR().fit([parts[1], parts[3]])
    assert folded[0] == pytest.approx(fitted.errors([parts[0]])[0] / persistence_errors([parts[0]])[0])


def test_splits_keep_time_and_worms_together():
    parts = worms(4)
    early, late = split(parts, "time", 0.25)
    assert all(np.array_equal(np.vstack(pair), whole) for pair, whole in zip(zip(early, late, strict=True), parts, strict=True))
    train, test = split(parts, "worm", 0.25)
    assert len(train) == 3
    assert np.array_equal(test[0], parts[3])
    with pytest.raises(InputError, match="time or worm"):
        split(parts, "window")


def test_a_recurrent_net_learns_what_repeats():
    """A sine of period 8 is not what it was a sample ago, and is no straight line of it."""
    times = np.arange(400)
    x = np.stack([np.sin(2 * np.pi * times / 8), np.cos(2 * np.pi * times / 8)], 1)
    model = GRUForecaster(hidden=16, steps=150, batch=4, window=30, rate=1e-2).fit(x)
    assert model.score(x) > 0.9
    assert len(model.losses_) == 150
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


@pytest.mark.parametrize("model", [RidgeVAR(), GRUForecaster(steps=2, hidden=3)])
def test_scikit_learn(model):
    check_no_attributes_set_in_init(type(model).__name__, clone(model))
    check_parameters_default_constructible(type(model).__name__, clone(model))
    check_get_params_invariance(type(model).__name__, clone(model))
    if isinstance(model, GRUForecaster):  # compiled for every shape; what follows is the base class'
        return
    x = worms(1)[0]
    pipe = make_pipeline(FunctionTransformer(lambda x: x - x.mean(0)), clone(model)).fit(x)
    assert pipe.predict(x).shape == x.shape
    assert np.isfinite(pipe.score(x))
    stack = np.stack(worms(4))
    assert cross_val_score(clone(model), stack, cv=2).shape == (2,)
    assert clone(model).fit(stack).predict(stack).shape == stack.shape


def test_grid_search():
    search = GridSearchCV(RidgeVAR(), {"ridge": [0.1, 1e4], "support": ["all", "self"]}, cv=2).fit(np.stack(worms(4)))
    assert search.best_params_["ridge"] == 0.1
    pickle.loads(pickle.dumps(search.best_estimator_))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (RidgeVAR(lags=0), "lags=0"),
        (RidgeVAR(ridge=-1.0), "ridge=-1.0"),
        (RidgeVAR(support="none"), "support='none'"),
        (RidgeVAR(support=np.ones((2, 2))), "support is"),
        (RidgeVAR(lags=100), "101 or more"),
        (GRUForecaster(hidden=0), "from 1 on"),
    ],
)
def test_one_sentence(model, words):
    with pytest.raises(InputError, match=words):
        model.fit(worms(1))


def test_other_neurons_than_fitted():
    with pytest.raises(InputError, match="fitted to 6"):
        RidgeVAR().fit(worms()).predict(worms(cells=4))
