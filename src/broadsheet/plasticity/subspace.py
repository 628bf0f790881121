"""Lateral neurons that learn the subspace of activity, and weight changes that are orthogonal to it (arXiv 2402.11984).

A gradient step `dW = -eta delta x^T` leaves the answers to old inputs unchanged where x is first projected off the subspace
that old inputs span. Lateral neurons with weights H find that subspace by a Hebbian rule on `y (x - H^T y)^T`, Oja's.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.dynamics.system import as_array
from broadsheet.errors import InputError
from broadsheet.numerics import generator

CLAMP = 10.0
"""Largest entry of a Hebbian change, before momentum."""


class LateralSubspace(eqx.Module):
    """Lateral neurons of one layer: rows of `H` (capacity, n), of which the first `old` are frozen and the first `used` exist.

    Rows that do not exist yet are zero and do nothing, so that a layer with room for all tasks compiles once. All methods
    return a new object.

    **Arguments:**

    - `n`: presynaptic neurons; `capacity`: room for rows, extended where `grow` needs more.
    - `rate`: learning rate; stable below about 1 over the largest eigenvalue of the activity.
    - `momentum`; `iterations`: Hebbian updates a batch.
    - `spiking`: None for graded lateral neurons, or (range, steps): their answers are clipped and rounded to what so many
      steps of spikes can say.
    - `sees_old`: whether new rows see activity less what old rows explain; without it they learn the old subspace again.
    - `width`: how many rows move at a time; `grow` raises it where needed.
    """

    H: Float[Array, "rows n"]
    velocity: Float[Array, "rows n"]
    old: Int[Array, ""]
    used: Int[Array, ""]
    rate: Array
    momentum: Array
    iterations: int = eqx.field(static=True)
    spiking: tuple[Array, Array] | None
    sees_old: bool = eqx.field(static=True)
    width: int = eqx.field(static=True)  # most rows that move at a time

    def __init__(
        self, n: int, *, capacity: int = 0, rate: Any = 0.01, momentum: Any = 0.9, iterations: int = 5,
        spiking: tuple[Any, Any] | None = None, sees_old: bool = True, width: int = 0,
    ) -> None:  # fmt: skip
        if n < 1 or capacity < 0:
            raise InputError(f"n = {n} inputs and room for {capacity} rows; at least 1 and 0 are wanted.")
        if not rate > 0 or not 0 <= momentum < 1 or iterations < 1:
            raise InputError(
                f"rate = {rate}, momentum = {momentum}, iterations = {iterations}; above 0, in [0, 1), at least 1."
            )
        if spiking is not None and not (spiking[0] > 0 and spiking[1] >= 1):
            raise InputError(f"spiking = {spiking}; a range above 0 and at least one step are wanted.")
        self.H = self.velocity = jnp.zeros((capacity, n))
        self.old = self.used = jnp.zeros((), jnp.int32)
        self.rate, self.momentum = as_array(rate), as_array(momentum)
        self.spiking = None if spiking is None else (as_array(spiking[0]), as_array(float(spiking[1])))
        self.iterations, self.sees_old = iterations, sees_old
        self.width = width

    def grow(self, rows: int, key: PRNGKeyArray) -> LateralSubspace:
        """With `rows` new rows, orthonormal among themselves."""
        n, used = self.H.shape[1], int(self.used)
        if rows < 0 or used + rows > n:
            raise InputError(f"{used} rows and {rows} more do not fit into {n} dimensions.")
        capacity = max(self.H.shape[0], used + rows)
        H, velocity = (np.pad(np.asarray(array), ((0, capacity - len(array)), (0, 0))) for array in (self.H, self.velocity))
        H[used : used + rows] = np.linalg.qr(generator(key).standard_normal((n, rows)))[0].T
        grown = LateralSubspace(
            n, capacity=capacity, rate=self.rate, momentum=self.momentum, iterations=self.iterations, spiking=self.spiking,
            sees_old=self.sees_old, width=max(self.width, used + rows - int(self.old)),
        )  # fmt: skip
        values = (jnp.asarray(H), jnp.asarray(velocity), self.old, self.used + rows)
        return eqx.tree_at(lambda s: (s.H, s.velocity, s.old, s.used), grown, values)

    def freeze(self, orthonormal: bool = False) -> LateralSubspace:
        """All rows become old; `orthonormal=True` replaces them by an orthonormal basis of their span, which is exact."""
        rows = self.H
        if orthonormal:
            used = int(self.used)
            rows = rows.at[:used].set(jnp.linalg.qr(rows[:used].T)[0].T)
        return eqx.tree_at(lambda s: (s.H, s.velocity, s.old), self, (rows, jnp.zeros_like(rows), self.used))

    def respond(self, x: Float[Array, "*batch n"], rows: Float[Array, "rows n"]) -> Float[Array, "*batch rows"]:
        """What the lateral neurons answer."""
        y = x @ rows.T
        if self.spiking is None:
            return y
        reach, steps = self.spiking
        return jnp.round(jnp.clip(y / reach, -1.0, 1.0) * steps) / steps * reach

    def project(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """`x` less its part in the span of the old rows."""
        rows = jnp.where(self._is_old, self.H, 0.0)
        return x - self.respond(x, rows) @ rows

    def update(self, x: Float[Array, "batch n"]) -> LateralSubspace:
        """The Hebbian updates of one batch; old rows stay."""

        count = self.H.shape[0]
        width = min(self.width, count)
        start = jnp.minimum(self.old, count - width)
        moving = ((start + jnp.arange(width)) >= self.old)[:, None]

        def window(array: Array) -> Array:
            return jnp.where(moving, jax.lax.dynamic_slice_in_dim(array, start, width), 0.0)

        unexplained = self.project(x) if self.sees_old else x

        def once(carry: tuple, _: None) -> tuple[tuple, None]:
            rows, velocity = carry
            y = self.respond(x, rows)
            change = jnp.clip(y.T @ (unexplained - y @ rows) / x.shape[0], -CLAMP, CLAMP)
            velocity = self.momentum * velocity + (1 - self.momentum) * change
            return (rows + self.rate * velocity, velocity), None

        carry, _ = jax.lax.scan(once, (window(self.H), window(self.velocity)), length=self.iterations)

        def write(array: Array, rows: Array) -> Array:
            there = jax.lax.dynamic_slice_in_dim(array, start, width)
            return jax.lax.dynamic_update_slice_in_dim(array, jnp.where(moving, rows, there), start, 0)

        values = (write(self.H, carry[0]), write(self.velocity, carry[1]))
        return eqx.tree_at(lambda s: (s.H, s.velocity), self, values)

    @property
    def _is_old(self) -> Array:
        return (jnp.arange(self.H.shape[0]) < self.old)[:, None]


@jax.custom_vjp
def projected_linear(
    x: Float[Array, "*batch n"],
    W: Float[Array, "out n"],
    trace: Float[Array, "*batch n"],
    feedback: Float[Array, "out n"],
) -> Float[Array, "*batch out"]:
    """`x W^T`, whose weights learn from another trace of the input, and which sends errors back by other weights.

    `dW = delta^T trace` and `dx = delta feedback`: with the projected input as trace, old answers are kept; `feedback = W` is
    backpropagation, a fixed random matrix is feedback alignment. The trace itself and the feedback get no derivative.
    """
    return x @ W.T


def _linear_forward(x: Array, W: Array, trace: Array, feedback: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ W.T, (trace, feedback)


def _linear_backward(kept: tuple[Array, Array], delta: Array) -> tuple[Array, Array, Array, Array]:
    trace, feedback = kept
    gradient = delta.reshape(-1, delta.shape[-1]).T @ trace.reshape(-1, trace.shape[-1])
    return delta @ feedback, gradient, jnp.zeros_like(trace), jnp.zeros_like(feedback)


projected_linear.defvjp(_linear_forward, _linear_backward)


def patches(x: Float[Array, "batch channels height width"], size: int) -> Float[Array, "positions features"]:
    """All zero-padded patches of side `size`, as rows of channels * size * size: what a convolution's lateral rows learn."""
    found = jax.lax.conv_general_dilated_patches(x, (size, size), (1, 1), "SAME")
    return jnp.moveaxis(found, 1, -1).reshape(-1, found.shape[1])


def projected_weights(W: Float[Array, "out ..."], subspace: LateralSubspace) -> Float[Array, "out ..."]:
    """The weights, whose gradient loses its part in the old rows' span: `dW - dW H^T H`.

    For graded lateral neurons the same as projecting what the weights see, and cheaper where that has more rows than they.
    """

    @jax.custom_vjp
    def identity(W: Array) -> Array:
        return W

    def backward(_: Any, gradient: Array) -> tuple[Array]:
        return (subspace.project(gradient.reshape(gradient.shape[0], -1)).reshape(gradient.shape),)

    identity.defvjp(lambda W: (W, None), backward)
    return identity(W)


def projected_conv(
    x: Float[Array, "batch channels height width"], W: Float[Array, "out channels k k"], subspace: LateralSubspace
) -> Float[Array, "batch out height width"]:
    """A convolution (zero padding, stride 1) whose weights learn from patches less their part in the old rows' span."""
    return jax.lax.conv_general_dilated(x, projected_weights(W, subspace), (1, 1), "SAME")


def principal_subspace(x: Any, rows: int) -> Float[Array, "rows n"]:
    """The leading principal directions of uncentred activity (samples, n), as orthonormal rows: what SVD gives at once."""
    return jnp.linalg.svd(jnp.asarray(x), full_matrices=False)[2][:rows]


def smallest_cosine(A: Float[Array, "a n"], B: Float[Array, "b n"]) -> Float[Array, ""]:
    """Cosine of the largest principal angle between two row spaces: 1 where they agree."""
    bases = [jnp.linalg.qr(rows.T)[0] for rows in (A, B)]
    return jnp.min(jnp.linalg.svd(bases[0].T @ bases[1], compute_uv=False))
