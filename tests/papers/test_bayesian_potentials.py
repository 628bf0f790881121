"""What the controls of uncertainty rest on, against closed forms and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import linregress

from broadsheet.atoms.observables import radial_distribution
from broadsheet.atoms.posterior import ForceMatchingPosterior, Sample
from broadsheet.papers.bayesian_potentials import (
    GRID,
    AveragedDensity,
    block_error,
    inverted_histogram,
    least_squares,
    mean_potential,
    over_members,
    toy_frames,
)


def test_the_histogram_of_many_frames_is_the_mean_potential():
    x, _ = toy_frames(np.random.default_rng(0), 400_000)
    used, potential, error = inverted_histogram(x, GRID)
    rest = potential - mean_potential(GRID)[used]
    rest -= np.average(rest, weights=error**-2)
    assert used.sum() > 50
    assert np.mean((rest / error)[1:-1] ** 2) < 2.5  # bins are as wide as the grid, so that the steep ends are off
    assert not inverted_histogram(x[:20], GRID)[0].all()


def test_least_squares_has_the_errors_of_the_textbook():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(50)
    y = 2 * x - 1 + 0.3 * rng.standard_normal(50)
    weights, errors, noise = least_squares(np.stack([x, np.ones(50)], axis=1), y)
    known = linregress(x, y)
    np.testing.assert_allclose(weights, [known.slope, known.intercept])
    np.testing.assert_allclose(errors, [known.stderr, known.intercept_stderr])
    np.testing.assert_allclose(noise, 0.3, rtol=0.3)


def test_an_averaged_loss_does_not_count_its_frames():
    posterior = ForceMatchingPosterior(lambda w, x: w * x, prior_scale=2.0, force_scale=0.5)
    x, y = jnp.arange(1.0, 6.0), jnp.array([1.0, 2.2, 2.9, 4.0, 5.3])
    sample, key = Sample(jnp.array(1.05), jnp.log(0.6)), jax.random.key(0)
    once = AveragedDensity(posterior, jnp.asarray(1.0))(sample, (x, y), key)
    thrice = AveragedDensity(posterior, jnp.asarray(1 / 3))(sample, (jnp.tile(x, 3), jnp.tile(y, 3)), key)
    np.testing.assert_allclose(thrice, once, rtol=1e-5)


def test_what_dynamics_adds_is_not_the_members_spread():
    rng = np.random.default_rng(2)
    members = rng.normal(0, 0.5, (400, 1, 30)) + 1.0
    values = members + rng.normal(0, 0.8, (400, 3, 30))
    within = values.var(axis=1, ddof=1).mean(axis=0)
    found = over_members(values, within)
    np.testing.assert_allclose(found.spread.mean(), 0.5, rtol=0.05)
    np.testing.assert_allclose(found.sampling.mean(), 0.64 / 1200, rtol=0.05)
    alike = over_members(values - members, within)
    assert (alike.spread**2).mean() < 0.03  # of 0.21 that means of three runs have


def test_blocks_know_the_error_of_a_mean():
    rng = np.random.default_rng(3)
    errors = [block_error(rng.standard_normal((50, 4)), 5, lambda part: part.mean(axis=0)) for _ in range(400)]
    np.testing.assert_allclose(np.mean(errors), 1 / 50, rtol=0.1)
    ideal = rng.uniform(0, 20, (400, 30, 3))
    edges, lengths = np.linspace(2, 10, 9), np.full(3, 20.0)
    error = block_error(ideal, 8, lambda part: radial_distribution(part, lengths, edges))
    pairs = 400 * 435 * 4 / 3 * np.pi * np.diff(edges**3) / 8000
    np.testing.assert_allclose(error.mean(), np.mean(1 / pairs), rtol=0.5)  # counts of pairs of an ideal gas are Poisson
