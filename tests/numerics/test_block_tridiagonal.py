import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.numerics.block_tridiagonal import block_cholesky, block_solve


def matrix(count, rows, seed):
    """A dense one, positive definite, and its blocks."""
    rng = np.random.default_rng(seed)
    root = np.zeros((count * rows, count * rows))
    for k in range(count):
        at = slice(k * rows, (k + 1) * rows)
        root[at, max(0, (k - 1) * rows) : (k + 1) * rows] = rng.standard_normal((rows, rows * min(k + 1, 2)))
        root[at, at] = np.tril(root[at, at]) + 3 * np.eye(rows)
    dense = root @ root.T
    parts = dense.reshape(count, rows, count, rows)
    return dense, np.stack([parts[k, :, k] for k in range(count)]), np.stack([parts[k, :, k - 1] for k in range(count)])


@pytest.mark.parametrize(("count", "rows"), [(1, 5), (2, 1), (7, 4), (3, 24)])
def test_against_a_dense_solution(count, rows):
    dense, diagonal, before = matrix(count, rows, seed=rows)
    b = np.random.default_rng(0).standard_normal((count, rows))
    with jax.enable_x64(True):
        lower = np.tril(diagonal) + 7 * np.triu(np.ones((rows, rows)), 1)  # what is above the diagonal does not count
        C, W = jax.jit(block_cholesky)(lower, jnp.asarray(before))
        found = jax.jit(block_solve)((C, W), b)
    exact = np.linalg.cholesky(dense).reshape(count, rows, count, rows)
    for k in range(count):
        np.testing.assert_allclose(C[k], exact[k, :, k], atol=1e-10)
        if k:
            np.testing.assert_allclose(W[k], exact[k, :, k - 1], atol=1e-10)
    np.testing.assert_allclose(np.ravel(found), np.linalg.solve(dense, b.ravel()), rtol=1e-9, atol=1e-12)


def test_what_is_not_positive_definite_is_nan():
    _, diagonal, before = matrix(4, 3, seed=1)
    diagonal[2] -= 100 * np.eye(3)
    C, _ = block_cholesky(jnp.asarray(diagonal), jnp.asarray(before))
    assert np.isfinite(C[:2]).all()
    assert np.isnan(C[2:]).any()
