"""The switching GLM against nemos, the official code, plain NumPy, and scikit-learn's habits."""

import pickle
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks as checks

from broadsheet.errors import DataError, InputError
from broadsheet.recordings import HMMGLM
from broadsheet.recordings import switching_steps as steps_of
from broadsheet.recordings.concrete import concrete_sample
from broadsheet.recordings.switching_em import blocks_of, emissions, expectation, expected_value, moments
from broadsheet.recordings.switching_onehot import onehot_from
from broadsheet.recordings.switching_tasks import Switching, exponential_filter, rule_task, sticky, synthetic

REFERENCES = Path(__file__).parent.parent / "references" / "states"
SYSTEM = synthetic(2, 3, np.random.default_rng(3), stay=0.95)
MORE = SYSTEM.counts(SYSTEM.states(80, 4, np.random.default_rng(4)), np.random.default_rng(5))
X = MORE[:2]
"""Two sequences, as halves of four are and as the paper's smoke presets have them: what is compiled for one serves all."""
SMALL = {"link": "sigmoid", "restarts": 1, "max_iter": 3, "random_state": 0}


@pytest.fixture(scope="module")
def fitted():
    return HMMGLM(2, **SMALL).fit(X)


@pytest.mark.parametrize("link", ["softplus", "exp"])
def test_one_state_is_the_glm_of_nemos(link):
    held = np.load(REFERENCES / "nemos.npz")
    model = HMMGLM(1, link=link, tol=1e-9).fit(held["counts"])
    np.testing.assert_allclose(model.weights_[0], held[f"weights_{link}"], atol=1e-3)
    np.testing.assert_allclose(model.biases_[0], held[f"bias_{link}"], atol=1e-3)
    assert model.score(held["counts"]) == pytest.approx(float(held[f"score_{link}"]), abs=1e-6)


def test_states_are_those_of_the_official_code():
    held = np.load(REFERENCES / "official.npz")
    model = HMMGLM(3, link="sigmoid")
    model.weights_, model.biases_ = held["weights"], np.tile(held["bias"], (3, 1))
    model.transition_, model.filter_, model.n_features_in_ = held["transition"], exponential_filter(), 4
    np.testing.assert_allclose(model.predict_proba(held["counts"]), held["states"], atol=1e-5)
    assert model.predict_proba(held["counts"]).shape == held["states"].shape
    np.testing.assert_array_equal(model.predict(held["counts"]), held["path"], strict=True)


@pytest.mark.parametrize("link", ["softplus"])
def test_emissions_moments_and_missing_bins_against_plain_numpy(link):
    rng = np.random.default_rng(0)
    lengths, W = (23, 40), 0.5 * rng.normal(size=(2, 3, 4))
    parts = [rng.poisson(0.6, (n, 3)).astype(float) for n in lengths]
    parts[0][4], parts[1][7, 1] = np.nan, np.nan
    system = Switching(W[:, :, 1:], W[:, :, 0], sticky(2), exponential_filter(), link)
    with jax.enable_x64(True):
        data = blocks_of(parts, exponential_filter())
        gamma = jnp.asarray(rng.random((2, 2, data.shape[0])))

        @eqx.filter_jit
        def computed(data, gamma, W, transition):
            slope = jax.grad(lambda w: expected_value(data, gamma, w, link)[0].sum())(W)
            total = expectation(data, W, transition, link).log_likelihood
            sums = moments(data, gamma, W, link, True)
            return emissions(data, W, link), sums, expected_value(data, gamma, W, link)[0], slope, total

        found, sums, value, slope, total = computed(data, gamma, jnp.asarray(W), jnp.asarray(sticky(2)))
        found = np.asarray(found)
    plain = system.log_emissions(np.nan_to_num(parts[1]))
    rows = [t for t in range(40) if t != 7]
    from scipy.special import gammaln

    expected = plain + gammaln(np.nan_to_num(parts[1]) + 1).sum(axis=1)[:, None]
    np.testing.assert_allclose(found[1][rows], expected[rows], atol=1e-9)
    np.testing.assert_array_equal(found[0][4], 0.0)
    np.testing.assert_array_equal(found[0][23:], 0.0)
    np.testing.assert_allclose(sums.value, value)
    np.testing.assert_allclose(sums.gradient, slope, atol=1e-9)
    assert np.isfinite(total).all()


def test_restarts_rise_and_the_best_stays():
    model = HMMGLM(2, link="sigmoid", weights="gaussian", restarts=2, max_iter=6, tol=0.0, random_state=0).fit(X)
    assert np.diff(model.history_).min() >= -1e-6 * abs(model.history_[-1])
    assert model.history_[-1] == max(model.restarts_)
    np.testing.assert_allclose(model.mean_weights_, model.weights_.mean(axis=0), atol=1e-9)


def test_many_neurons_climb_by_shared_moments():
    x = np.random.default_rng(0).poisson(0.3, (400, 34))
    model = HMMGLM(2, restarts=1, max_iter=5, tol=0.0, penalty=5.0, random_state=0).fit(x)
    rises = np.diff(model.history_)
    assert rises.min() >= -1e-9 * abs(model.history_[-1])
    assert rises[-1] < rises[0]


def test_types_times_strengths_begin_where_free_couplings_end(fitted):
    W = np.concatenate([fitted.biases_[:, :, None], fitted.weights_], axis=2)
    with jax.enable_x64(True):
        effective = eqx.filter_jit(lambda onehot: onehot.effective())(onehot_from(W, False, True))
        np.testing.assert_allclose(effective, W, atol=1e-2 * np.abs(W).max())
    model = HMMGLM(2, weights="onehot", rounds=2, **SMALL).fit(X, start=fitted)
    a = model.type_probs_
    np.testing.assert_allclose(model.weights_, (a[..., 2] - a[..., 0]) * model.strengths_, atol=1e-9)
    assert model.prior_probs_.shape == (3, 3, 3)
    hard = model.hardened(X)
    np.testing.assert_allclose(hard.weights_, hard.types_ * hard.strengths_, atol=1e-9)
    assert np.isfinite(hard.score(X))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_types_rise_at_least_as_far_as_by_adam_on_the_spikes_themselves(seed):
    """The M-step against as much of Adam by automatic differentiation of the likelihood, and what it says of emissions."""
    system = synthetic(2, 3, np.random.default_rng(seed), stay=0.95)
    x = system.counts(system.states(80, 2, np.random.default_rng(seed)), np.random.default_rng(seed))
    W = np.concatenate([np.zeros((2, 3, 1)), 0.3 * np.random.default_rng(seed).normal(size=(2, 3, 3))], axis=2)
    options = {"link": "sigmoid", "prior": "categorical", "steps": 15}
    with jax.enable_x64(True):
        data, start, transition = blocks_of(list(x), exponential_filter()), onehot_from(W, True, True), jnp.asarray(sticky(2))
        tau, rate, pseudocount = map(jnp.asarray, (0.5, 0.06, 0.1))
        state = (start, transition, optax.adam(0.06).init(start), steps_of.emissions_of(data, start.effective(), "sigmoid"))
        (ours, _, _, known), _ = steps_of.onehot_step(
            data, state, jax.random.key(0), tau=tau, noise=tau, rate=rate, pseudocount=pseudocount, **options
        )
        expected = steps_of.emissions_of(data, ours.effective(), "sigmoid")
        states = steps_of.states_of(data, start.effective(), transition, "sigmoid")
        reached, (before, after) = map(np.asarray, climbed(data, states, start, ours, tau))
    np.testing.assert_allclose(known, expected, atol=1e-9)
    assert after > before
    assert list(reached) == sorted(reached)


@jax.jit
def climbed(data, states, start, ours, tau):
    """What types reach on average, of the start, by Adam and by the M-step; the value without noise before and after."""

    def value(types, W):
        return expected_value(data, states, W, "sigmoid")[0].sum() + types.log_prior("categorical", tau)

    def noisy(types, key):
        return value(types, types.couplings(concrete_sample(types.alpha, tau, key)))

    def adam(carry, key):
        types, memory = carry
        updates, memory = rule.update(jax.tree.map(jnp.negative, jax.grad(noisy)(types, key)), memory)
        return (optax.apply_updates(types, updates), memory), None

    rule = optax.adam(0.03)
    (plain, _), _ = jax.lax.scan(adam, (start, rule.init(start)), jax.random.split(jax.random.key(0), 30))
    all_three = jax.tree.map(lambda *each: jnp.stack(each), start, plain, ours)
    keys = jax.random.split(jax.random.key(9), 200)
    reached = jax.vmap(lambda types: jax.vmap(noisy, (None, 0))(types, keys).mean())(all_three)
    values = jax.vmap(lambda types: value(types, types.effective()))(all_three)
    return reached, values[jnp.array([0, 2])]


def test_shapes_unequal_sequences_and_sampling(fitted):
    assert fitted.predict(X).shape == (2, 80)
    assert [len(each) for each in fitted.predict([X[0], X[1][:30]])] == [80, 30]
    probable, filtered = fitted.predict_proba(X), fitted.filter(X[1])
    np.testing.assert_allclose(probable.sum(axis=-1), 1.0)
    assert filtered.shape == (80, 2)
    np.testing.assert_allclose(probable[1, -1], filtered[-1], atol=1e-9)
    np.testing.assert_allclose(fitted.log_prob(X)[1], fitted.log_prob(X[1])[0])
    counts, states = fitted.sample(50, 2, random_state=0)
    assert counts.shape == (2, 50, 3)
    assert set(np.unique(states)) <= {0, 1}


def test_a_fit_goes_on_from_its_checkpoint(tmp_path, fitted):
    HMMGLM(2, **(SMALL | {"max_iter": 1, "tol": 0.0})).fit(X, checkpoint=tmp_path)
    seen = []
    model = HMMGLM(2, **(SMALL | {"tol": 0.0})).fit(X, checkpoint=tmp_path, report=lambda share, value: seen.append(share))
    assert len(seen) == 2  # two iterations were there already
    assert model.n_iter_ == 4
    with pytest.raises(DataError, match="another fit"):
        HMMGLM(3, **SMALL).fit(X, checkpoint=tmp_path)


def test_scikit_learn(fitted):
    loaded = pickle.loads(pickle.dumps(fitted))
    assert loaded.score(X) == fitted.score(X)
    assert clone(fitted).get_params() == fitted.get_params()
    again = HMMGLM(2, **SMALL, warm_start=True).fit(X).fit(X)
    assert again.history_[-1] >= fitted.history_[-1] - 1e-6
    pipe = make_pipeline(FunctionTransformer(lambda x: np.minimum(x, 5)), HMMGLM(2, **SMALL)).fit(X)
    assert pipe.predict(X).shape == (2, 80)
    search = GridSearchCV(HMMGLM(2, **SMALL), {"penalty": [1.0, 1e4]}, cv=2, refit=False).fit(MORE)
    assert search.best_params_["penalty"] == 1.0
    for check in (
        checks.check_no_attributes_set_in_init, checks.check_parameters_default_constructible, checks.check_get_params_invariance,
        checks.check_set_params, checks.check_estimator_cloneable, checks.check_estimator_repr,
        checks.check_estimator_tags_renamed, checks.check_valid_tag_types,
    ):  # fmt: skip
        check("HMMGLM", HMMGLM())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: HMMGLM().fit(np.full((5, 2), -1)), "whole numbers"),
        (lambda: HMMGLM().fit(np.full((5, 2), 0.5)), "whole numbers"),
        (lambda: HMMGLM().fit(np.ones((1, 2))), "2 or more"),
        (lambda: HMMGLM().fit([np.ones((5, 2)), np.ones((5, 3))]), "sequence 1"),
        (lambda: HMMGLM().fit(np.full((5, 2), 40_000)), "32767"),
        (lambda: HMMGLM(0).fit(X), "n_states"),
        (lambda: HMMGLM().set_params(weights="loose").fit(X), "gaussian or onehot"),
        (lambda: HMMGLM(history=0).fit(X), "history"),
    ],
)
def test_mistakes_are_said_in_one_sentence(wrong, says):
    with pytest.raises(InputError, match=says):
        wrong()


def test_wrong_neurons_and_states(fitted):
    with pytest.raises(InputError, match="2 neurons"):
        fitted.score(X[:, :, :2])
    with pytest.raises(InputError, match="begin from"):
        HMMGLM(3, **SMALL).fit(X, start=fitted)
    with pytest.raises(InputError, match="hardened"):
        fitted.hardened(X)


def test_rule_task():
    task = rule_task(4, 90, 3, np.random.default_rng(0))
    assert (task.states[:, 0] == 0).all()
    assert (np.take_along_axis(task.states, task.choice[:, None], 1) == 3).all()
    assert set(task.states[-1]) == {0, 2, 3}
