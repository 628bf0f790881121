"""Integrators against the solutions of their equations."""

import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import rollout, series
from broadsheet.errors import InputError
from broadsheet.neurons import Integrator, LeakyIntegrator


def test_a_leaky_integrator_relaxes_to_its_goal():
    """Under a constant input: rest + gain x (1 - exp(-t / tau)), whatever the step; Euler steps come near it."""
    t = np.arange(1, 201) * 0.5
    expected = -1 + 3 * 2 * (1 - np.exp(-t / 20))
    for method, tolerance in (("exact", 1e-5), ("euler", 0.06)):
        cell = LeakyIntegrator((2, 3), tau=20.0, rest=-1.0, gain=3.0, method=method, dt=0.5)
        found = rollout(cell, jnp.full((200, 2, 3), 2.0))[1]
        np.testing.assert_allclose(found, np.broadcast_to(expected[:, None, None], (200, 2, 3)), atol=tolerance)


def test_two_in_series_are_a_difference_of_exponentials():
    """In the limit of short steps, of an impulse: (exp(-t / 20) - exp(-t / 5)) / (20 - 5)."""
    dt = 0.01
    both = series(LeakyIntegrator((1,), tau=5.0, dt=dt), LeakyIntegrator((1,), tau=20.0, dt=dt))
    t = dt * np.arange(8000)
    found = rollout(both, jnp.zeros((8000, 1)).at[0].set(1 / dt))[1][:, 0]
    np.testing.assert_allclose(found, (np.exp(-t / 20) - np.exp(-t / 5)) / 15, atol=2e-4)


def test_an_integrator_sums_its_input():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((50, 4)))
    found = rollout(Integrator((4,), gain=2.0, dt=0.1), x)[1]
    np.testing.assert_allclose(found, 0.2 * np.cumsum(x, axis=0), atol=1e-5)


def test_mistakes_are_named():
    with pytest.raises(InputError, match="tau, the time constant of the integrator"):
        LeakyIntegrator((1,), tau=0.0)
