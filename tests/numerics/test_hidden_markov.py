"""Chains against enumeration, and against what dynamax made of the same numbers."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.numerics.hidden_markov import filtered, likeliest_path, observed, smoothed

REFERENCE = np.load(Path(__file__).parent.parent / "references" / "states" / "dynamax.npz")


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def _enumerated(initial, transitions, emission):
    """States, steps and log-likelihood by the sum over all paths; transitions (bins - 1, states, states)."""
    bins, states = emission.shape
    paths = np.array(list(itertools.product(range(states), repeat=bins)))
    joint = np.log(initial)[paths[:, 0]] + emission[np.arange(bins), paths].sum(axis=1)
    for t in range(bins - 1):
        joint = joint + np.log(transitions[t])[paths[:, t], paths[:, t + 1]]
    total = np.logaddexp.reduce(joint)
    weight = np.exp(joint - total)
    marginal = np.stack([np.bincount(column, weight, states) for column in paths.T])
    steps = np.zeros((states, states))
    for t in range(bins - 1):
        np.add.at(steps, (paths[:, t], paths[:, t + 1]), weight)
    return marginal, steps, total, paths[joint.argmax()], joint.max()


def test_transitions_of_each_step_against_enumeration():
    rng = np.random.default_rng(0)
    initial, transitions = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), (5, 3))
    emission = 3 * rng.normal(size=(6, 3)) - 900  # no exponential of which is a number
    marginal, steps, total, path, most = _enumerated(initial, transitions, emission)
    given = (np.log(initial), np.log(transitions), emission)
    found = smoothed(*map(jnp.asarray, given))
    np.testing.assert_allclose(found.states, marginal, atol=1e-10)
    np.testing.assert_allclose(found.transitions, steps, atol=1e-10)
    np.testing.assert_allclose(found.log_likelihood, total, atol=1e-9)
    ours, joint = likeliest_path(*map(jnp.asarray, given))
    np.testing.assert_array_equal(ours, path)
    np.testing.assert_allclose(joint, most)


def test_dynamax_says_the_same():
    initial, transition = (jnp.log(REFERENCE[name]) for name in ("initial", "transition"))
    emission = jnp.asarray(REFERENCE["emission"])
    found = jax.jit(smoothed)(initial, transition, emission)
    np.testing.assert_allclose(found.states, REFERENCE["smoothed"], atol=1e-9)
    np.testing.assert_allclose(found.transitions, REFERENCE["transitions"], atol=1e-7)
    np.testing.assert_allclose(found.log_likelihood, REFERENCE["log_likelihood"], rtol=1e-12)
    forward = filtered(initial, transition, emission)
    np.testing.assert_allclose(np.exp(forward.log_states), REFERENCE["filtered"], atol=1e-9)
    np.testing.assert_array_equal(likeliest_path(initial, transition, emission)[0], REFERENCE["path"])


def test_padding_changes_nothing_and_missing_bins_are_passed_over():
    rng = np.random.default_rng(1)
    initial, transition = jnp.log(rng.dirichlet(np.ones(2))), jnp.log(rng.dirichlet(np.ones(2), 2))
    emission = rng.normal(size=(5, 2))
    emission[2] = np.nan
    emission = observed(jnp.asarray(emission), jnp.asarray([True, True, False, True, True]))
    np.testing.assert_array_equal(emission[2], 0.0)
    short = smoothed(initial, transition, emission)
    padded = jnp.concatenate([emission, jnp.zeros((4, 2))])
    both = jax.vmap(lambda e, n: smoothed(initial, transition, e, n))(jnp.stack([padded, padded]), jnp.array([5, 9]))
    np.testing.assert_allclose(both.states[0, :5], short.states, atol=1e-12)
    np.testing.assert_array_equal(both.states[0, 5:], 0.0)
    np.testing.assert_allclose(both.transitions[0], short.transitions, atol=1e-12)
    np.testing.assert_allclose(both.log_likelihood, [short.log_likelihood] * 2)
    np.testing.assert_allclose(both.transitions.sum(axis=(1, 2)), [4, 8])  # one step between bins


def test_a_chain_that_never_returns():
    """Transitions of probability 0 stay 0."""
    with np.errstate(divide="ignore"):
        transition = jnp.asarray(np.log(np.array([[0.5, 0.5], [0.0, 1.0]])))
        initial = jnp.asarray(np.log(np.array([1.0, 0.0])))
    emission = jnp.asarray(np.array([[0.0, 0.0], [-900.0, 0.0], [0.0, -900.0], [0.0, -900.0]]))
    found = smoothed(initial, transition, emission)
    assert np.isfinite(found.states).all()
    assert found.transitions[1, 0] == 0
    np.testing.assert_array_equal(likeliest_path(initial, transition, emission)[0], [0, 0, 0, 0])
