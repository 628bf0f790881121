"""Two-layer linear networks that learn a linear teacher: gradient descent, its tangent kernel, and what theory says of both.

The network is `f(x) = aᵀ W x`, the teacher `y = βᵀ x`, inputs are white, and the loss is `½ |Wᵀ a - β|²`. Its tangent kernel
is `K(x, x') = xᵀ M x'` with `M = Wᵀ W + |a|² I`; with white inputs the alignment of two kernels is that of their M.
Source: arXiv 2310.08513; the closed forms are derived in the docstrings.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from broadsheet.errors import InputError
from broadsheet.numerics import generator


class LinearNet(eqx.Module):
    """`f(x) = aᵀ W x`."""

    w: Float[Array, "hidden inputs"]
    a: Float[Array, " hidden"]

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, ""]:
        return self.a @ (self.w @ x)

    @property
    def effective(self) -> Float[Array, " inputs"]:
        """`Wᵀ a`, which the teacher is compared with."""
        return self.w.T @ self.a

    @property
    def kernel(self) -> Float[Array, "inputs inputs"]:
        """M of the tangent kernel, both layers trained: `Wᵀ W + |a|² I`."""
        return self.w.T @ self.w + (self.a @ self.a) * jnp.eye(self.w.shape[1])

    @property
    def balance(self) -> Float[Array, "hidden hidden"]:
        """`W Wᵀ - a aᵀ`, which gradient flow conserves."""
        return self.w @ self.w.T - jnp.outer(self.a, self.a)


class LinearTraining(NamedTuple):
    """A trained network, its loss, the steps made, and the largest change of its balance on the way."""

    net: LinearNet
    loss: Array
    steps: Array
    drift: Array


@eqx.filter_jit
def train_linear(
    net: LinearNet,
    beta: Float[Array, " inputs"],
    *,
    rate: float = 0.05,
    until: float = 1e-10,
    most: int = 100_000,
    readout: bool = True,
) -> LinearTraining:
    """Gradient descent on `½ |Wᵀ a - β|²` until the loss is below `until`, `most` steps at most.

    `readout`: whether a is trained too. Works under `jax.vmap`. The loss of a net that did not learn stays in the result.
    """
    balance = net.balance

    def go_on(carry: tuple) -> Array:
        _, loss, count, _ = carry
        return (loss >= until) & (count < most) & jnp.isfinite(loss)

    def step(carry: tuple) -> tuple:
        made, _, count, drift = carry
        missing = beta - made.effective
        made = LinearNet(
            made.w + rate * jnp.outer(made.a, missing),
            made.a + rate * (made.w @ missing) * readout,
        )
        return made, _loss(made, beta), count + 1, jnp.maximum(drift, jnp.abs(made.balance - balance).max())

    start = (net, _loss(net, beta), jnp.asarray(0), jnp.zeros_like(net.a[0]))
    return LinearTraining(*jax.lax.while_loop(go_on, step, start))


def _loss(net: LinearNet, beta: Array) -> Array:
    return 0.5 * jnp.sum((net.effective - beta) ** 2)


def low_rank_net(key: Any, hidden: int, inputs: int, rank: int, norm: float, *, readout: float = 1e-4) -> LinearNet:
    """`W = norm U Vᵀ / sqrt(rank)` with random orthonormal columns, so that its effective rank is `rank` and its Frobenius norm
    `norm`; a of Gaussian numbers of size `readout * norm`, not 0: there W's null space would be a saddle.

    **Raises:** `InputError` for a rank below 1 or above the smaller size.
    """
    if not 1 <= rank <= min(hidden, inputs):
        raise InputError(
            f"A matrix of {hidden} x {inputs} of rank {rank} does not exist; 1 to {min(hidden, inputs)} is wanted."
        )
    rng = generator(key)
    u, v = (np.linalg.qr(rng.standard_normal((size, rank)))[0] for size in (hidden, inputs))
    return _net(norm / rank**0.5 * u @ v.T, readout * norm * rng.standard_normal(hidden))


def rank_one_net(key: Any, hidden: int, direction: np.ndarray, norm: float, *, readout: float = 1.0) -> LinearNet:
    """`W = norm u bᵀ` and `a = readout norm u`, with b the unit vector along `direction` and u a random one.

    With `readout = 1` it is balanced. Where `direction` is the teacher's it is also aligned: M is then proportional to
    `b bᵀ + I` at all times, so that the kernel does not turn however far the weights go.
    """
    u, b = unit(generator(key).standard_normal(hidden)), unit(direction)
    return _net(norm * np.outer(u, b), readout * norm * u)


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector at length 1."""
    return np.asarray(vector) / np.linalg.norm(vector)


def _net(w: np.ndarray, a: np.ndarray) -> LinearNet:
    return LinearNet(jnp.asarray(w, float), jnp.asarray(a, float))


def matrix_alignment(first: Float[Array, "*batch n n"], second: Float[Array, "*batch n n"]) -> Float[Array, "*batch"]:
    """`<A, B> / (|A| |B|)` of the last two axes."""
    inner = jnp.sum(first * second, axis=(-2, -1))
    return inner / jnp.sqrt(jnp.sum(first**2, axis=(-2, -1)) * jnp.sum(second**2, axis=(-2, -1)))


def expected_alignment(effective_rank: float | np.ndarray, inputs: int) -> np.ndarray:
    """Kernel alignment of a small start with what it becomes, over teachers of all directions:
    `(d + 1) sqrt(er) / (d sqrt(d + 3))`.

    From a small start flow ends at `W = sqrt|β| u bᵀ`, `a = sqrt|β| u`, so that `M_f ∝ b bᵀ + I`, of norm `sqrt(d + 3)`. With
    `<b bᵀ> = I / d` the mean of `bᵀ M0 b + Tr M0` is `(1 + 1/d) Tr M0`, and `Tr M0 / |M0|` is `sqrt(er)` by its definition.
    """
    return np.asarray((inputs + 1) / (inputs * np.sqrt(inputs + 3)) * np.sqrt(effective_rank))


def predicted_alignment(start: Float[Array, "n n"], beta: Float[Array, " n"]) -> Array:
    """The same for one teacher and any small start with the kernel `M0`: `(bᵀ M0 b + Tr M0) / (sqrt(d + 3) |M0|)`."""
    b = beta / jnp.linalg.norm(beta)
    return (b @ start @ b + jnp.trace(start)) / (jnp.sqrt(len(b) + 3.0) * jnp.linalg.norm(start))


def anisotropic_features(key: Any, inputs: int, kappa: float) -> Float[np.ndarray, "inputs inputs"]:
    """F with random singular vectors, the first half of its singular values `kappa` and the rest 1."""
    rng = generator(key)
    left, right = (np.linalg.qr(rng.standard_normal((inputs, inputs)))[0] for _ in range(2))
    return left * np.where(np.arange(inputs) < inputs // 2, kappa, 1.0) @ right.T
