"""The Concrete density against the formula of the official code, and its edges."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.recordings.concrete import concrete_log_density, concrete_sample

log_density = jax.jit(concrete_log_density)
REFERENCE = np.load(Path(__file__).parent.parent / "references" / "states" / "official.npz")


def test_official_formula():
    with jax.enable_x64(True):
        ours = log_density(np.log(REFERENCE["a"]), REFERENCE["log_pi"], 0.3)
        np.testing.assert_allclose(ours, REFERENCE["log_density"], rtol=1e-9)


def test_one_class_of_two_is_a_logistic():
    """With two classes, the log-ratio is logistic with scale 1 / tau around (log pi_1 - log pi_0) / tau."""
    with jax.enable_x64(True):
        log_pi, tau = np.log(np.array([0.3, 0.7])), 0.4
        ratio = np.linspace(-6, 6, 25)
        log_a = np.stack([-np.logaddexp(0, ratio), -np.logaddexp(0, -ratio)], axis=-1)
        z = tau * (ratio - (log_pi[1] - log_pi[0]) / tau)
        logistic = np.log(tau) - z - 2 * np.log1p(np.exp(-z))
        np.testing.assert_allclose(log_density(log_a, log_pi, tau) + log_a.sum(axis=-1), logistic, atol=1e-10)


def test_likeliest_class_of_samples_has_the_class_probability():
    drawn = concrete_sample(jnp.broadcast_to(jnp.log(jnp.array([0.2, 0.5, 0.3])), (20_000, 3)), 0.2, jax.random.key(0))
    np.testing.assert_allclose(np.bincount(drawn.argmax(axis=-1)) / 20_000, [0.2, 0.5, 0.3], atol=0.015)
