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
