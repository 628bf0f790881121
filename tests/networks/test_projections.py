import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from broadsheet.dynamics import rollout
from broadsheet.errors import InputError
from broadsheet.networks.projections import Dense, PoissonBackground, Projection, Uniform
from broadsheet.networks.spikes import events, pack


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), neurons=st.integers(1, 100))
def test_packed_spikes_come_back_as_events(seed, neurons):
    spikes = np.random.default_rng(seed).random((7, neurons)) < 0.3
    words = jax.vmap(pack)(jnp.asarray(spikes, jnp.float32))
    np.testing.assert_array_equal(events(words), np.nonzero(spikes))


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), delay=st.integers(1, 5))
def test_sparse_and_dense_projections_equal_a_delayed_matrix_product(seed, delay):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(40, 9)) * (rng.random((40, 9)) < 0.3)
    spikes = (rng.random((20, 40)) < 0.2).astype(float)
    expected = np.concatenate([np.zeros((delay, 9)), spikes @ matrix])[: len(spikes)]
    pre, post = np.nonzero(matrix)
    order = rng.permutation(len(pre))
    sparse = Projection.from_pairs(pre[order], post[order], matrix[pre, post][order], size=40, out=(9,), delay=delay)
    dense = Dense(jnp.asarray(matrix.T, jnp.float32), delay=delay)
    for system in (sparse, dense):
        np.testing.assert_allclose(rollout(system, jnp.asarray(spikes, jnp.float32))[1], expected, atol=1e-5)


def test_double_synapses_add_up_and_alike_ones_are_kept_once():
    doubled = Projection.from_pairs([0, 0, 1], [2, 2, 0], [0.5, 0.25, 1.0], size=2, out=(3,))
    _, arriving = rollout(doubled, jnp.array([[1.0, 1.0], [0.0, 0.0]]))
    np.testing.assert_allclose(arriving[1], [1.0, 0.0, 0.75])
    assert Projection.from_pairs([0, 0, 1], [0, 1, 2], [2.0, 2.0, 3.0], size=2, out=(3,)).weights.shape == (2, 1)


def test_a_dense_projection_carries_derivatives():
    x = jnp.array([[1.0, 2.0], [0.0, 0.0]])
    gradient = jax.grad(lambda w: jnp.sum(rollout(Dense(w), x)[1]))(jnp.ones((3, 2)))
    np.testing.assert_allclose(gradient, [[1.0, 2.0]] * 3)


@pytest.mark.parametrize("delay", [1, 3])
@pytest.mark.parametrize(
    ("pattern", "matrix"),
    [("one to one", np.eye(6)), ("all to others", 1 - np.eye(6)), ("all to all", np.ones((4, 6)))],
)  # fmt: skip
def test_synapses_that_are_alike_equal_their_matrix(pattern, matrix, delay):
    spikes = jnp.asarray(np.random.default_rng(0).random((20, 6)) < 0.3, jnp.float32)
    alike = Uniform(-1.5, 6, len(matrix), pattern, delay=delay)
    expected = rollout(Dense(jnp.asarray(-1.5 * matrix, jnp.float32), delay), spikes)[1]
    np.testing.assert_allclose(rollout(alike, spikes)[1], expected, rtol=1e-6)


def test_background_is_poisson():
    """Counts of 200 000 draws against the law, by a chi-squared test."""
    _, drive = rollout(PoissonBackground(500, 1.7, 0.5), jnp.zeros((400, 500)), key=jax.random.key(3))
    counts = np.bincount(np.rint(np.asarray(drive).ravel() / 0.5).astype(int), minlength=9)
    law = stats.poisson.pmf(np.arange(8), 1.7)
    observed, expected = np.append(counts[:8], counts[8:].sum()), np.append(law, 1 - law.sum()) * counts.sum()
    assert stats.chisquare(observed, expected).pvalue > 1e-3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Projection([[0]], [[1.0, 2.0]], (3,)), "weights are"),
        (lambda: Projection([[4]], [[1.0]], (3,)), "targets must lie"),
        (lambda: Projection([[0]], [[1.0]], (3,), delay=0), "delay = 0"),
        (lambda: Projection.from_pairs([5], [0], 1.0, size=2, out=(3,)), "pre must lie"),
        (lambda: Projection.from_pairs([[0]], [0], 1.0, size=2, out=(3,)), "pre is"),
        (lambda: Dense(jnp.ones((2, 2)), delay=0), "delay = 0"),
        (lambda: Uniform(1.0, 2, 3, "one to one"), "one to one joins"),
        (lambda: Uniform(1.0, 2, 3, "all to all", delay=0), "delay = 0"),
        (lambda: PoissonBackground(3, 0.0, 1.0), "rate = 0"),
        (lambda: rollout(PoissonBackground(3, 1.0, 1.0), jnp.zeros((2, 3))), "give rollout a key"),
    ],
)
def test_mistakes_are_named(make, said):
    with pytest.raises(InputError, match=said):
        make()
