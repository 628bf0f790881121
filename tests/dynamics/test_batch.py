"""A batch inside one system equals its examples one by one."""

import jax
import jax.numpy as jnp
import pytest

from broadsheet.dynamics import batch, feedback, rollout
from broadsheet.errors import InputError
from broadsheet.networks import Dense
from broadsheet.neurons import LIF


def _network(weights):
    return feedback(LIF(20, tau=20.0, rest=0.0, threshold=1.0, reset=0.0, refractory=2.0, dt=1.0), Dense(weights, delay=2))


def test_batch_equals_examples_one_by_one():
    weights = 0.3 * jax.random.normal(jax.random.key(0), (20, 20))
    drive = 0.1 + 0.2 * jax.random.normal(jax.random.key(1), (50, 20, 4))

    def together(weights):
        return rollout(batch(_network(weights), 4), drive)[1]

    def apart(weights):
        return jnp.stack([rollout(_network(weights), drive[..., k])[1] for k in range(4)], axis=-1)

    assert jnp.array_equal(together(weights), apart(weights))
    assert together(weights).sum() > 50
    target = jax.random.normal(jax.random.key(2), (50, 20, 4))
    first, second = (jax.grad(lambda w, run=run: jnp.sum(run(w) * target))(weights) for run in (together, apart))
    assert jnp.allclose(first, second, rtol=1e-4, atol=1e-5)
    assert jnp.abs(first).max() > 1e-3


def test_derivatives_through_dense_agree_in_both_modes():
    """The backward pass goes through a copy of the weights: it must be the transpose of the forward one."""
    weights, spikes = jax.random.normal(jax.random.key(0), (7, 5)), jax.random.normal(jax.random.key(1), (5,))

    def arriving(weights, spikes):
        return Dense(weights).readout(spikes)

    for argument in (0, 1):
        ahead, back = (mode(arriving, argument)(weights, spikes) for mode in (jax.jacfwd, jax.jacrev))
        assert jnp.allclose(ahead, back, atol=1e-6)
    assert jnp.allclose(jax.jacrev(arriving, 1)(weights, spikes), weights)


def test_noise_differs_between_examples_and_sizes_are_checked():
    from broadsheet.networks import PoissonBackground

    counts = rollout(batch(PoissonBackground(50, 1.0, 1.0), 3), jnp.zeros((4, 50, 3)), key=jax.random.key(0))[1]
    assert not jnp.array_equal(counts[..., 0], counts[..., 1])
    with pytest.raises(InputError, match="at least one example"):
        batch(LIF(2), 0)


def test_a_batch_learns_the_mean_of_what_its_examples_learn():
    from broadsheet.plasticity import STDP

    rule = STDP(jnp.full((4, 2), 0.5), a_plus=0.05, a_minus=0.04)
    pre, post = (1.0 * jax.random.bernoulli(jax.random.key(k), 0.3, (30, size, 3)) for k, size in ((0, 4), (1, 2)))
    together = batch(rule, 3)
    learned = together.consolidate(rollout(together, (pre, post))[0]).system.weights
    apart = [rule.consolidate(rollout(rule, (pre[..., k], post[..., k]))[0]).weights for k in range(3)]
    assert jnp.allclose(learned, jnp.stack(apart).mean(axis=0), atol=1e-6)
    assert not jnp.allclose(apart[0], apart[1], atol=1e-3)
