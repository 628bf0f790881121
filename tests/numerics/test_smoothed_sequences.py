"""Chains in blocks against logs bin by bin, enumeration through these, dynamax, and where numbers run out."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.numerics.hidden_markov import smoothed
from broadsheet.numerics.smoothed_sequences import blocks_of_bins, smoothed_sequences

REFERENCE = np.load(Path(__file__).parent.parent / "references" / "states" / "dynamax.npz")


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def in_logs(initial, transition, emission, lengths):
    return jax.vmap(lambda e, n: smoothed(initial, transition, e, n))(emission, lengths)


@pytest.mark.parametrize("blocks", [1, 2, 7, 29, None])
def test_blocks_of_any_number_say_what_logs_bin_by_bin_say(blocks):
    rng = np.random.default_rng(0)
    initial, transition = jnp.log(rng.dirichlet(np.ones(3))), jnp.log(rng.dirichlet(np.ones(3), 3))
    lengths = jnp.array([30, 11, 1])
    emission = 5 * rng.normal(size=(3, 30, 3)) - 900
    emission[:, 4] = 0.0  # missing
    emission = jnp.where((jnp.arange(30) < lengths[:, None])[..., None], emission, 0.0)
    found, wanted = smoothed_sequences(initial, transition, emission, lengths, blocks=blocks), None
    wanted = in_logs(initial, transition, emission, lengths)
    np.testing.assert_allclose(found.states, wanted.states, atol=1e-12)
    np.testing.assert_allclose(found.transitions, wanted.transitions, atol=1e-12)
    np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, rtol=1e-13)
    np.testing.assert_allclose(found.transitions.sum(axis=(1, 2)), [29, 10, 0], atol=1e-12)


def test_dynamax_says_the_same():
    initial, transition = (jnp.log(REFERENCE[name]) for name in ("initial", "transition"))
    found = smoothed_sequences(initial, transition, jnp.asarray(REFERENCE["emission"])[None], blocks=5)
    np.testing.assert_allclose(found.states[0], REFERENCE["smoothed"], atol=1e-9)
    np.testing.assert_allclose(found.transitions[0], REFERENCE["transitions"], atol=1e-7)
    np.testing.assert_allclose(found.log_likelihood[0], REFERENCE["log_likelihood"], rtol=1e-12)


def test_emissions_of_which_no_exponential_is_a_number_in_a_long_sequence():
    """States whose bins are a thousand nats less likely, and transitions of 1e-80."""
    rng = np.random.default_rng(1)
    rare = np.array([[1 - 2e-80, 1e-80, 1e-80], [1e-9, 1 - 2e-9, 1e-9], [0.3, 0.3, 0.4]])
    initial, transition = jnp.log(jnp.array([0.2, 0.3, 0.5])), jnp.log(jnp.asarray(rare))
    emission = jnp.asarray(1000 * rng.normal(size=(2, 3000, 3)) - 1e5)
    found = jax.jit(smoothed_sequences)(initial, transition, emission)
    wanted = jax.jit(in_logs)(initial, transition, emission, jnp.array([3000, 3000]))
    np.testing.assert_allclose(found.states, wanted.states, atol=1e-9)
    np.testing.assert_allclose(found.transitions, wanted.transitions, atol=1e-6)
    np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, rtol=1e-13)


def test_where_a_number_is_lost_logs_are_computed():
    """A chain that never returns, in bins that all but exclude where it is."""
    with np.errstate(divide="ignore"):
        transition = jnp.asarray(np.log(np.array([[0.5, 0.5], [0.0, 1.0]])))
        initial = jnp.asarray(np.log(np.array([1.0, 0.0])))
    emission = jnp.asarray(np.array([[0.0, -900.0], [-900.0, 0.0], [0.0, -900.0], [0.0, -900.0]]))[None]
    found = smoothed_sequences(initial, transition, emission, blocks=2)
    np.testing.assert_allclose(found.states[0], smoothed(initial, transition, emission[0]).states, atol=1e-12)
    assert np.isfinite(found.log_likelihood).all()


def test_as_many_blocks_as_go_side_by_side():
    assert blocks_of_bins(1, 1) == 1
    assert blocks_of_bins(3, 2000) == 55
    assert blocks_of_bins(80, 1000) == 6
    assert blocks_of_bins(10_000, 1000) == 1
