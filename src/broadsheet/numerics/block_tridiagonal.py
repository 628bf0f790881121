"""Symmetric positive definite matrices of blocks beside the diagonal, factored and solved inside a JAX program.

Cholesky's factor has the blocks C_i on its diagonal and W_i before them: C_i C_i' = D_i - W_i W_i' and W_i C_{i-1}' = L_i,
where D_i are the matrix's blocks on the diagonal and L_i those before them (L_0 is not looked at).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax.linalg import cholesky, triangular_solve
from jaxtyping import Array, Float

Blocks = Float[Array, "blocks rows rows"]


def block_cholesky(diagonal: Blocks, before: Blocks) -> tuple[Blocks, Blocks]:
    """C and W; of `diagonal` the lower triangles count. NaN where the matrix is not positive definite."""

    def step(C: Array, given: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        W = triangular_solve(C, given[1], left_side=False, lower=True, transpose_a=True)
        C = cholesky(given[0] - W @ W.T, symmetrize_input=False)
        return C, (C, W)

    start = jnp.eye(diagonal.shape[1], dtype=diagonal.dtype)
    return jax.lax.scan(step, start, (diagonal, before.at[0].set(0.0)))[1]


def block_solve(factor: tuple[Blocks, Blocks], b: Float[Array, "blocks rows"]) -> Float[Array, "blocks rows"]:
    """The solution for a right-hand side, by the factor that `block_cholesky` found.

    **Example:**

        >>> import jax.numpy as jnp
        >>> factor = block_cholesky(jnp.full((2, 1, 1), 2.0), jnp.ones((2, 1, 1)))  # the matrix 2 1, 1 2
        >>> block_solve(factor, jnp.array([[3.0], [3.0]])).round(3).tolist()
        [[1.0], [1.0]]
    """

    def down(y: Array, given: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        C, W, b = given
        y = triangular_solve(C, (b - W @ y)[:, None], left_side=True, lower=True)[:, 0]
        return y, y

    def up(pull: Array, given: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        C, W, y = given
        x = triangular_solve(C, (y - pull)[:, None], left_side=True, lower=True, transpose_a=True)[:, 0]
        return W.T @ x, x

    y = jax.lax.scan(down, jnp.zeros_like(b[0]), (*factor, b))[1]
    return jax.lax.scan(up, jnp.zeros_like(b[0]), (*factor, y), reverse=True)[1]
