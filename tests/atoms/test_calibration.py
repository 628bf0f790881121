"""Factors of spreads against SciPy's likelihoods."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm

from broadsheet.atoms.calibration import normal_nll, spread_factor
from broadsheet.errors import InputError

rng = np.random.default_rng(0)
DEVIATION, NOISE = rng.uniform(0.5, 2.0, 3000), rng.uniform(0.1, 3.0, 3000)
MEAN = rng.standard_normal(3000)
TRUTH = MEAN + 1.7 * DEVIATION * rng.standard_normal(3000)
TARGETS = TRUTH + NOISE * rng.standard_normal(3000)


def test_the_factor_is_the_likeliest():
    def loss(parameters):
        factor, offset = parameters
        return -norm.logpdf(TARGETS, MEAN + offset, np.hypot(NOISE, factor * DEVIATION)).sum()

    best = minimize(lambda p: loss((p[0], 0.0)), [1.0]).x[0]
    found = spread_factor(MEAN, DEVIATION, TARGETS, NOISE)
    np.testing.assert_allclose(found, best, rtol=0.012)
    np.testing.assert_allclose(found, 1.7, rtol=0.1)
    free = minimize(loss, [1.0, 0.0]).x[0]
    for shift in (0.0, 40.0):
        np.testing.assert_allclose(
            spread_factor(MEAN, DEVIATION, TARGETS + shift, NOISE, up_to_a_constant=True), free, rtol=0.012
        )


def test_spreads_without_scale_get_one():
    found = spread_factor(MEAN, np.ones(3000), MEAN + 3 * rng.standard_normal(3000))
    np.testing.assert_allclose(found, 3, rtol=0.05)
    quiet = spread_factor(MEAN, np.ones(3000), MEAN + 3 * rng.standard_normal(3000), 3.0)
    assert quiet < 1  # the noise of the targets explains them


def test_the_likelihood_is_that_of_normal_laws():
    np.testing.assert_allclose(normal_nll(MEAN, DEVIATION, TRUTH), -norm.logpdf(TRUTH, MEAN, DEVIATION).mean())


def test_what_cannot_be_calibrated():
    with pytest.raises(InputError, match="one and the same"):
        spread_factor(np.zeros(3), np.ones(2), np.ones(3))
    with pytest.raises(InputError, match="above 0"):
        spread_factor(np.zeros(3), np.zeros(3), np.ones(3), 1.0)
    with pytest.raises(InputError, match="no deviation"):
        spread_factor(np.zeros(2), np.array([0.0, 1.0]), np.ones(2))
