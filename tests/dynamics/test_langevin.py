import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import OverdampedLangevin, geometric_brownian_step, rollout
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
