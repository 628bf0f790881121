"""Langevin chains and ensembles against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from broadsheet.atoms.posterior import (
    DeepEnsemble,
    ForceMatchingPosterior,
    MinibatchDensity,
    Sample,
    calibration_factor,
    coverage,
    propagate,
    psgld,
    sample_chains,
    step_schedule,
)
from broadsheet.errors import InputError


def test_a_chain_has_the_variance_of_its_target():
    found = sample_chains(
        lambda x, data, key: -(x**2) / 2, jnp.zeros(40), None, steps=4000, burn_in=200, keep=380, key=jax.random.key(0), step=0.1,
        preconditioned=False,
    )  # fmt: skip
    np.testing.assert_allclose(np.var(found), 1 / (1 - 0.05), rtol=0.05)
    cold = sample_chains(
        lambda x, data, key: -(x**2) / 2, jnp.zeros(40), None, steps=4000, burn_in=200, keep=380, key=jax.random.key(0), step=0.1,
        preconditioned=False, temperature=0.01,
    )  # fmt: skip
    np.testing.assert_allclose(np.var(cold), 0.01 / (1 - 0.05), rtol=0.05)


def test_one_step_without_noise_is_a_scaled_gradient():
    rule = psgld(0.1, jax.random.key(0), temperature=0.0, alpha=0.9, floor=0.0, freeze_after=None)
    gradient = jnp.array([2.0, -1.0])
    updates, _ = rule.update(gradient, rule.init(gradient))
    np.testing.assert_allclose(updates, -0.1 * gradient / np.sqrt(0.9 + 0.1 * np.array([4.0, 1.0])), rtol=1e-6)
    assert isinstance(rule, optax.GradientTransformation)


def test_the_density_is_that_of_normal_errors():
    from scipy import stats

    posterior = ForceMatchingPosterior(lambda w, x: w * x, prior_scale=2.0, force_scale=0.5)
    x, y = np.array([1.0, 2.0, 3.0]), np.array([1.1, 1.7, 3.2])
    sample = Sample(jnp.array(1.05), jnp.log(0.6))
    found = posterior.log_likelihood(sample, jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(found, stats.norm.logpdf(y, 1.05 * x, 0.3).sum(), rtol=1e-4)
    padded = posterior.log_likelihood(sample, jnp.append(x, 0.0), jnp.append(y, 9.0), jnp.arange(4) < 3)
    np.testing.assert_allclose(padded, found, rtol=1e-6)
    prior = posterior.log_prior(sample)
    np.testing.assert_allclose(prior, -(1.05**2) / 8 - 0.6 + np.log(0.6), rtol=1e-4)
    whole = posterior.log_density(sample, (jnp.asarray(x), jnp.asarray(y)), 1.0)
    draws = [MinibatchDensity(posterior, 2)(sample, (jnp.asarray(x), jnp.asarray(y)), jax.random.key(k)) for k in range(300)]
    np.testing.assert_allclose(np.mean(draws), whole, rtol=0.1)


def test_an_ensemble_finds_the_line():
    x = jnp.linspace(-1, 1, 50)
    y = 3 * x + 0.1 * jax.random.normal(jax.random.key(1), (50,))
    found = DeepEnsemble.fit(lambda w, x: w * x, jnp.arange(4.0), (x, y), steps=500, key=jax.random.key(0), learning_rate=0.1)
    np.testing.assert_allclose(found.weights, np.polyfit(x, y, 1)[0], atol=0.02)
    np.testing.assert_allclose(found.noise, 0.1, atol=0.02)


def test_what_is_compiled_serves_other_data_and_temperatures():
    traced = []

    def line(weights, x):
        traced.append(x.shape)
        return weights * x

    x = jnp.linspace(-1, 1, 20)

    def spread(slope, temperature):
        data = (x, slope * x + 0.1 * jax.random.normal(jax.random.key(1), x.shape))
        members = DeepEnsemble.fit(line, jnp.arange(3.0), data, steps=300, key=jax.random.key(0), learning_rate=0.1)
        density = MinibatchDensity(ForceMatchingPosterior(line, prior_scale=10.0, force_scale=1.0), None)
        first = Sample(members.weights, jnp.log(jnp.asarray(members.noise)))
        found = sample_chains(
            density, first, data, steps=600, keep=40, burn_in=100, step=1e-4, temperature=temperature, key=jax.random.key(2)
        )
        return np.mean(found.weights), np.std(found.weights)

    first, wide = spread(2.0, 1.0)
    once = len(traced)
    second, narrow = spread(-1.0, 0.01)
    assert len(traced) == once
    np.testing.assert_allclose([first, second], [2, -1], atol=0.2)
    assert narrow < 0.3 * wide


def test_spreads():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(4000)
    predictions = truth + rng.standard_normal((8, 4000))
    np.testing.assert_allclose(calibration_factor(predictions, truth), 0, atol=0.2)
    off = truth + 2 * rng.standard_normal(4000) + rng.standard_normal((8, 4000))
    np.testing.assert_allclose(calibration_factor(off, truth), 2, rtol=0.1)
    assert coverage(np.zeros(4), np.ones(4), np.array([0, 1, 1.9, 2.1])) == 0.75

    def observable(member):
        if member == 2:
            raise InputError("exploded")
        return np.array([member, np.nan if member == 3 else 1.0])

    found = propagate([0, 1, 2, 3], observable)
    assert found.failed == [2, 3]
    np.testing.assert_allclose(found.mean, [0.5, 1])
    with pytest.raises(InputError, match="members failed"):
        propagate([2, 2], observable)


def test_schedules_and_bad_settings():
    schedule = step_schedule(1e-2, 1e-3, 100)
    np.testing.assert_allclose([schedule(0), schedule(100)], [1e-2, 1e-3], rtol=1e-5)
    with pytest.raises(InputError, match="last"):
        step_schedule(1e-3, 1e-2, 10)
    with pytest.raises(InputError, match="kept"):
        sample_chains(lambda x, d, k: -(x**2), jnp.zeros(2), None, steps=5, keep=10, key=jax.random.key(0))
    with pytest.raises(InputError, match="Chain 0"):
        sample_chains(
            lambda x, d, k: x**4, jnp.ones(2), None, steps=200, keep=2, key=jax.random.key(0), step=1.0, preconditioned=False
        )
    with pytest.raises(InputError, match="above 0"):
        ForceMatchingPosterior(lambda w, x: x, prior_scale=0.0, force_scale=1.0)
    with pytest.raises(InputError, match="four"):
        calibration_factor(np.zeros((3, 2)), np.zeros(2))


@pytest.mark.parametrize(("steps", "burn_in", "keep", "kept"), [(11, 3, 3, [7, 9, 11]), (4, 1, 3, [2, 3, 4])])
def test_what_a_chain_keeps_and_when_its_scale_is_frozen(steps, burn_in, keep, kept):
    """Without noise, down a slope of two: each step by hand."""
    for freeze in (True, False):
        x, v, places = np.array([0.0, 10.0]), 1.0, []
        for n in range(steps):
            v = 0.5 * v + 0.5 * 4 if n < burn_in or not freeze else v
            x = x + 0.1 * 2 / (0.2 + np.sqrt(v))
            places.append(x)
        found = sample_chains(
            lambda x, data, key: 2 * x, jnp.asarray([0.0, 10.0]), None, steps=steps, burn_in=burn_in, keep=keep, step=0.1,
            alpha=0.5, floor=0.2, temperature=0.0, freeze=freeze, key=jax.random.key(0),
        )  # fmt: skip
        np.testing.assert_allclose(found, np.array(places)[np.array(kept) - 1].T, rtol=1e-5)


def test_noise_of_a_step_as_it_comes():
    gradient = jnp.zeros(20_000)
    rule = psgld(lambda made: 0.1 * (made + 1), jax.random.key(0), freeze_after=None)
    first, state = rule.update(gradient, rule.init(gradient))
    second, _ = rule.update(gradient, state)
    for n, found in enumerate((first, second), 1):  # of squares that were one, 0.9 and 0.81 are left
        wanted = np.sqrt(2 * 0.1 * n / (1e-5 + np.sqrt(0.9**n)))
        assert float(found.std()) == pytest.approx(wanted, rel=0.02)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    frozen = psgld(0.1, jax.random.key(0), freeze_after=0)
    assert not (np.asarray(frozen.update(gradient + 3, frozen.init(gradient))[1].square) - 1).any()


def test_batches_of_a_density_count_for_all_frames():
    posterior = ForceMatchingPosterior(lambda w, x: w * x, prior_scale=2.0, force_scale=0.5)
    data = jnp.arange(1.0, 9.0), jnp.arange(1.0, 9.0) ** 2
    sample = Sample(jnp.asarray(1.05), jnp.log(0.6))
    whole = float(posterior.log_density(sample, data, 1.0))
    assert MinibatchDensity(posterior, 8)(sample, data, jax.random.key(0)) == pytest.approx(whole, rel=1e-5)
    assert MinibatchDensity(posterior, None)(sample, data, jax.random.key(0)) == pytest.approx(whole, rel=1e-5)
    keys = jax.random.split(jax.random.key(1), 400)
    for count, values in ((1, 8), (3, 56)):  # one of eight; three, each once
        density = MinibatchDensity(posterior, count)
        draws = np.asarray(jax.jit(jax.vmap(lambda key, density=density: density(sample, data, key)))(keys))
        assert len(np.unique(draws.round(1))) == pytest.approx(values, abs=0 if count == 1 else 4)
        assert abs(draws.mean() - whole) < 4 * draws.std() / 20


def test_an_ensemble_of_batches_and_its_error_over_all_frames():
    x = jnp.linspace(-1, 1, 50)
    y = 3 * x + 0.1 * jax.random.normal(jax.random.key(1), (50,))
    found = DeepEnsemble.fit(
        lambda w, x: w * x, jnp.arange(2.0), (x, y), steps=400, batch=16, key=jax.random.key(0), learning_rate=0.1
    )
    np.testing.assert_allclose(found.weights, np.polyfit(x, y, 1)[0], atol=0.1)
    wanted = [np.sqrt(np.mean((float(w) * np.asarray(x) - np.asarray(y)) ** 2)) for w in found.weights]
    np.testing.assert_allclose(found.noise, wanted, rtol=1e-4)


def test_intervals_hold_95_percent_and_two_members_do():
    found = propagate(range(41), lambda member: np.array([member, 1.0]))
    np.testing.assert_allclose([found.low[0], found.high[0]], [1, 39])
    assert found.failed == []
    assert propagate([1, 3], lambda member: np.array(member)).mean == 2
    with pytest.raises(InputError, match="1 of 2 members failed"):
        propagate([1, np.nan], lambda member: np.array(member))
    assert coverage(np.zeros(2), np.ones(2), np.array([1.95, 1.97])) == 0.5


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"keep": 0}, {"burn_in": -1}, {"burn_in": 3}])
def test_samples_that_cannot_be_kept(wrong):
    with pytest.raises(InputError, match="cannot be kept"):
        sample_chains(lambda x, d, k: -(x**2), jnp.zeros(2), None, **{"steps": 4, "keep": 2, "key": jax.random.key(0), **wrong})
