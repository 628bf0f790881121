"""Tangent kernels without Jacobians against those by them, against a plain loop, and their alignment."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.learn.tangent_kernels import LinearisedRun, kernel_alignment, run_kernel, tangent_kernel
from broadsheet.networks import RateRNN, Recurrent, network_kernel
from broadsheet.networks.laziness import _PLACES, hidden_states, weights_of

FAMILIES = ("recurrent", "input", "output", "bias")
X = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)


def finite_differences(net, family, inputs):
    """Kernel by central differences of every weight, in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), net)
        weights = np.asarray(_PLACES[type(net)][family](wide))
        run = jax.jit(lambda flat: jnp.stack([
            eqx.tree_at(_PLACES[type(net)][family], wide, flat.reshape(weights.shape))(one) for one in jnp.asarray(inputs, float)
        ]).ravel())  # fmt: skip
        flat, step = weights.ravel(), 1e-6
        columns = [np.asarray(run(flat + step * e) - run(flat - step * e)) / (2 * step) for e in np.eye(flat.size)]
    jacobian = np.stack(columns, axis=1)
    return jacobian @ jacobian.T


@pytest.mark.parametrize("family", FAMILIES)
def test_a_leaky_network_s_kernel_equals_finite_differences(family):
    net = RateRNN(2, 4, 2, activation="tanh", alpha=0.4, bias=True, key=jax.random.key(0))
    exact = finite_differences(net, family, X)
    np.testing.assert_allclose(network_kernel(net, X, weights=family), exact, atol=2e-6 * abs(exact).max())


@pytest.mark.parametrize("steps", [(1, -1), (-1, 0, 2), (1, 0), (-1,)])
def test_the_two_ways_agree_at_chosen_steps_and_in_blocks(steps):
    net = RateRNN(2, 4, 2, key=jax.random.key(1))
    ours = network_kernel(net, X, steps=steps)
    theirs = tangent_kernel(net, X, where=lambda net: net.w_rec, function=lambda net, x: net(x)[jnp.array(steps)], block=2)
    np.testing.assert_allclose(ours, theirs, atol=1e-6 * abs(np.asarray(theirs)).max())


def test_a_step_is_named_once():
    with pytest.raises(InputError, match="once"):
        network_kernel(RateRNN(2, 4, 2, key=jax.random.key(1)), X, steps=(1, 1))


def test_a_start_that_is_not_zero_counts():
    rng = np.random.default_rng(1)
    w, u, start = (rng.normal(size=shape) for shape in ((3, 3), (1, 3), (2, 3)))
    states = np.stack([start @ w.T, start @ w.T @ w.T], axis=1)  # a linear network without input
    run = LinearisedRun(*map(jnp.asarray, (np.zeros((2, 2, 1)), start, states, np.ones((2, 2, 3)), np.zeros(()))))
    found = run_kernel(run, jnp.asarray(w), jnp.asarray(u), steps=(1,))
    rows = [np.outer(u[0] @ w, h0).ravel() + np.outer(u[0], w @ h0).ravel() for h0 in start]
    np.testing.assert_allclose(found, np.stack(rows) @ np.stack(rows).T, rtol=1e-5)


def test_gated_networks_go_by_jacobians():
    net = Recurrent(2, 3, 2, kind="gru", key=jax.random.key(0))
    kernel = network_kernel(net, X, weights="output", steps=(-1,))
    last = np.asarray(hidden_states(net, jnp.asarray(X)))[:, -1]
    np.testing.assert_allclose(kernel, np.kron(last @ last.T, np.eye(2)), atol=1e-6)
    assert weights_of(net, "recurrent").shape == (9, 3)


def test_alignment():
    a, b = np.diag([1.0, 0.0]), np.eye(2)
    assert kernel_alignment(a, b) == pytest.approx(2**-0.5)
    assert kernel_alignment(a, 3 * a) == pytest.approx(1)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 3))
    cka = np.linalg.norm((x - x.mean(0)).T @ (y - y.mean(0))) ** 2 / (
        np.linalg.norm((x - x.mean(0)).T @ (x - x.mean(0))) * np.linalg.norm((y - y.mean(0)).T @ (y - y.mean(0)))
    )  # Kornblith et al. (2019), linear
    assert kernel_alignment(x @ x.T, y @ y.T, centred=True) == pytest.approx(cka)
    for bad in (np.zeros((2, 2)), np.eye(3), np.full((2, 2), np.nan)):
        with pytest.raises(InputError, match="kernel_alignment"):
            kernel_alignment(b, bad)
