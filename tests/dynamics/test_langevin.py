import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import OverdampedLangevin, geometric_brownian_step, overdamped_step, rollout
from broadsheet.errors import InputError


def test_harmonic_well_has_the_discrete_stationary_variance():
    """x <- (1 - k dt) x + sqrt(2 D dt) xi has variance D / (k (1 - k dt / 2)) exactly."""
    k, diffusion, dt = 2.0, 0.5, 0.1
    well = OverdampedLangevin(lambda x: -k * x, jnp.zeros(2000), dt=dt, diffusion=diffusion)
    _, x = rollout(well, steps=400, key=jax.random.key(1), every=20)
    assert np.var(x[5:]) == pytest.approx(diffusion / (k * (1 - k * dt / 2)), rel=0.03)


def test_geometric_brownian_motion_has_its_moments_and_keeps_its_sign():
    value, drift, volatility = jnp.full(200_000, -2.0), 0.3, 0.4
    for t in range(4):
        value = geometric_brownian_step(value, jax.random.key(t), dt=0.25, drift=drift, volatility=volatility)
    assert (value < 0).all()
    assert value.mean() == pytest.approx(-2 * np.exp(0.3), rel=0.01)
    assert np.log(-value / 2).var() == pytest.approx(volatility**2, rel=0.02)


def test_noise_needs_a_key():
    with pytest.raises(InputError, match="key"):
        rollout(OverdampedLangevin(lambda x: -x, jnp.zeros(2), dt=0.1), steps=3)


def test_a_step_is_its_drift_and_its_noise_by_hand():
    key, position = jax.random.key(2), jnp.array([1.0, -3.0])
    noise = np.asarray(jax.random.normal(key, (2,)))
    moved = overdamped_step(position, jnp.array([2.0, 5.0]), key, dt=0.25, mobility=0.5, diffusion=3.0)
    np.testing.assert_allclose(moved, [1.25 + np.sqrt(1.5) * noise[0], -2.375 + np.sqrt(1.5) * noise[1]], rtol=1e-6)
    made = OverdampedLangevin(lambda x: 2 * x, position, dt=0.25)
    assert (float(made.mobility), float(made.diffusion)) == (1.0, 1.0)
    np.testing.assert_array_equal(made.init(key), position)
    after, shown = made.step(position, jnp.array([4.0, 0.0]), key)
    np.testing.assert_allclose(after, [1 + 6 * 0.25 + np.sqrt(0.5) * noise[0], -3 - 1.5 + np.sqrt(0.5) * noise[1]], rtol=1e-6)
    np.testing.assert_array_equal(after, shown)
