"""Loops compiled as one kernel against the same loops compiled as usual."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import one_kernel, rollout
from broadsheet.neurons import CurrentLIF

KEY = jax.random.key(5)


def noisy(cell, weights, inputs, key):
    """Spikes and potentials of a recurrent network with noise, a branch and products of a vector and a matrix."""

    def step(carry, x):
        state, spikes, key = carry
        key, now = jax.random.split(key)
        drive = spikes @ weights + x + jax.random.normal(now, x.shape)
        drive = jax.lax.cond(jnp.any(spikes > 0), lambda d: 1.1 * d, lambda d: d, drive)
        state, spikes = cell.step(state, jnp.stack([drive, -spikes]))
        return (state, spikes, key), (spikes, state.membrane.v)

    return jax.lax.scan(step, (cell.init(key), jnp.zeros(cell.size), key), inputs)[1]


@pytest.fixture(scope="module")
def case():
    cell = CurrentLIF(12, refractory=1.0, dt=1.0)
    return cell, 2 * jax.random.normal(KEY, (12, 12)), 6 + jax.random.normal(KEY, (200, 12))


def test_the_same_spikes_potentials_and_derivatives(case):
    cell, weights, inputs = case
    fast = one_kernel(noisy)
    for found, expected in zip(fast(cell, weights, inputs, KEY), noisy(cell, weights, inputs, KEY), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert fast(cell, weights, inputs, KEY)[0].sum() > 10
    slopes = [jax.grad(lambda w, run=run: run(cell, w, inputs, KEY)[1].mean())(weights) for run in (fast, noisy)]
    assert np.abs(slopes[1]).max() > 0
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-4, atol=1e-6)


def test_a_batch_one_after_the_other(case):
    cell, weights, inputs = case
    batch = jnp.stack([inputs, 0.9 * inputs, 1.2 * inputs])
    many = jax.vmap(lambda x: one_kernel(noisy)(cell, weights, x, KEY)[1])(batch)
    one_by_one = [noisy(cell, weights, x, KEY)[1] for x in batch]
    np.testing.assert_allclose(many, one_by_one, atol=1e-3)


def test_xla_sees_one_call_and_no_loop_around_the_kernels(case):
    cell, weights, inputs = case

    def loops(function):
        text = jax.jit(lambda x: function(cell, weights, x, KEY)).lower(inputs).compile().as_text()
        entry = text[text.index("ENTRY") :]
        return "while(" in entry, "xla_cpu_small_call" in entry

    if jax.default_backend() == "cpu":
        assert loops(noisy) == (True, False)
        assert loops(one_kernel(noisy)) == (False, True)


@pytest.mark.parametrize("unread", [np.ones(7, "f4"), jnp.zeros((0, 3)), jnp.asarray(True), jax.random.key(1), None, "text"])
def test_arguments_that_nothing_reads(unread):
    def decay(x, _):
        return jax.lax.scan(lambda c, _: (0.5 * c, c.sum()), x, length=3)[1]

    np.testing.assert_allclose(one_kernel(decay)(jnp.ones(4), unread), [4.0, 2.0, 1.0])


def test_a_rollout_of_a_system():
    cell = CurrentLIF(5, dt=1.0)
    drive = jnp.full((50, 2, 5), 20.0).at[:, 1].set(0.0)
    run = one_kernel(rollout)
    np.testing.assert_array_equal(run(cell, drive)[1], rollout(cell, drive)[1])
    assert run(cell, drive)[1].sum() > 0
