"""Two-layer linear networks against the flow by SciPy and the tangent kernel by differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from broadsheet.errors import InputError
from broadsheet.learn.tangent_kernels import tangent_kernel
from broadsheet.networks.linear_learning import (
    LinearNet,
    anisotropic_features,
    expected_alignment,
    low_rank_net,
    matrix_alignment,
    predicted_alignment,
    rank_one_net,
    train_linear,
    unit,
)

D = 6


@jax.jit
def seen(start, end, beta):
    """The kernel at the end, how far it is aligned with that of the start, and what is predicted of that."""
    return end.kernel, matrix_alignment(start.kernel, end.kernel), predicted_alignment(start.kernel, beta)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def kernel(w, a):
    return w.T @ w + a @ a * np.eye(w.shape[1])


def flow(w, a, beta):
    """Gradient flow to its end, by an adaptive solver."""

    def slope(_, y):
        w, a = y[:-D].reshape(D, D), y[-D:]
        missing = beta - w.T @ a
        return np.concatenate([np.outer(a, missing).ravel(), w @ missing])

    end = solve_ivp(slope, (0, 200), np.concatenate([w.ravel(), a]), rtol=1e-10, atol=1e-12).y[:, -1]
    return end[:-D].reshape(D, D), end[-D:]


@pytest.mark.parametrize(("rank", "norm"), [(1, 0.01), (3, 0.01), (2, 1.0), (6, 1.0)])
def test_descent_ends_where_the_flow_does(rank, norm):
    rng = np.random.default_rng(rank)
    beta = unit(rng.standard_normal(D))
    net = low_rank_net(rng, D, D, rank, norm, readout=0.01)
    found = train_linear(net, jnp.asarray(beta), rate=0.002, until=1e-14)
    w, a = np.asarray(net.w), np.asarray(net.a)
    end = kernel(*flow(w, a, beta))
    ours, alignment, predicted = map(np.asarray, seen(net, found.net, beta))
    np.testing.assert_allclose(ours, end, atol=3e-3)
    start = kernel(w, a)
    expected = np.sum(start * end) / np.linalg.norm(start) / np.linalg.norm(end)
    assert alignment == pytest.approx(expected, abs=1e-3)
    if norm < 0.1:
        assert predicted == pytest.approx(expected, abs=2e-3)


def test_the_kernel_is_that_of_the_network():
    rng = np.random.default_rng(0)
    net = LinearNet(jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.normal(size=4)))
    x = rng.normal(size=(5, 3))
    ours = np.asarray(jax.jit(lambda net: net.kernel)(net))
    np.testing.assert_allclose(tangent_kernel(net, jnp.asarray(x)), x @ ours @ x.T, rtol=1e-10)


def test_the_closed_form_is_the_mean_over_directions():
    rng = np.random.default_rng(0)
    net = low_rank_net(rng, 20, 20, 5, 0.01, readout=0.0)
    betas = rng.standard_normal((20_000, 20))
    each = jax.jit(lambda net, betas: jax.vmap(lambda beta: predicted_alignment(net.kernel, beta))(betas))
    mean = float(np.mean(each(net, betas)))
    assert mean == pytest.approx(float(expected_alignment(5.0, 20)), rel=2e-3)
    np.testing.assert_allclose(expected_alignment(np.array([1, 2, 5, 10, 20]), 20), [0.2189, 0.3096, 0.4896, 0.6923, 0.9791],
                               atol=1e-4)  # fmt: skip


def test_aligned_starts():
    rng = np.random.default_rng(0)
    beta = unit(rng.standard_normal(D))
    net = rank_one_net(rng, D, beta, 0.2)
    np.testing.assert_allclose(jax.jit(lambda net: net.balance)(net), 0, atol=1e-15)
    assert float(seen(net, train_linear(net, jnp.asarray(beta)).net, beta)[1]) == pytest.approx(1, abs=1e-12)
    s = np.linalg.svd(anisotropic_features(0, D, 7.0), compute_uv=False)
    np.testing.assert_allclose(s, [7, 7, 7, 1, 1, 1])
    with pytest.raises(InputError, match="rank 7"):
        low_rank_net(0, D, D, 7, 1.0)


def test_a_net_that_does_not_move_is_given_up_after_a_hundred_thousand_steps():
    found = train_linear(LinearNet(jnp.eye(2), jnp.ones(2)), jnp.array([3.0, 0.0]), rate=0.0)
    assert (int(found.steps), float(found.loss)) == (100_000, 2.5)
