"""Drifts from increments of paths: Gaussian processes, exact, by chosen points, or by random features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.errors import InputError
from broadsheet.transport.reference_processes import Drift

MAX_ROWS = 8192
"""Of an exact Gaussian process, whose matrix of 8192 rows takes 256 MB in single precision."""


@runtime_checkable
class DriftRegressor(Protocol):
    """Fits a drift to rates `v` that were seen at states `x` and times `t`, a step of time an index, with noise of a variance.
    The drift's own variance is `prior`, its lengths those of the problem: twice the spread of both snapshots in x, and in t the
    time between them."""

    def __call__(
        self,
        x: Float[Array, "steps n d"],
        t: Float[Array, " steps"],
        v: Float[Array, "steps n d"],
        noise: Float[Array, ""],
        prior: Float[Array, ""],
        lengths: Float[Array, " columns"],
        key: PRNGKeyArray,
    ) -> Drift: ...


class _Scaled(eqx.Module):
    """Columns (x, t) in units of lengths."""

    lengths: Float[Array, " columns"]

    def __call__(self, x: Float[Array, "*n d"], t: Float[Array, ""]) -> Float[Array, "*n columns"]:
        return jnp.concatenate([x, jnp.broadcast_to(t, (*x.shape[:-1], 1))], axis=-1) / self.lengths


def _kernel(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return jnp.exp(-jnp.sqrt(jnp.maximum(squared, 0.0)))


class _Kernel(eqx.Module):
    scaled: _Scaled
    rows: Float[Array, "rows columns"]
    weights: Float[Array, "rows d"]

    def __call__(self, x: Float[Array, " d"], t: Float[Array, ""]) -> Float[Array, " d"]:
        return _kernel(self.scaled(x, t)[None], self.rows)[0] @ self.weights


@dataclass(frozen=True)
class ExactGP:
    """Posterior mean of a Gaussian process with the exponential kernel `exp(-r)` of (x, t), one for each dimension.

    - `length`: of the kernel, in units of the problem's. Far shorter ones lose paths that begin where no others were.

    The cost is the cube of the number of rows (steps times points), of which there may be 8192.
    """

    length: float = 1.0

    def __call__(self, x: Array, t: Array, v: Array, noise: Array, prior: Array, lengths: Array, key: PRNGKeyArray) -> Drift:
        if x.shape[0] * x.shape[1] > MAX_ROWS:
            raise InputError(
                f"ExactGP: {x.shape[1]} paths of {x.shape[0]} steps are {x.shape[0] * x.shape[1]} rows, more than {MAX_ROWS}; "
                "take RandomFeatures, whose cost is linear in them."
            )
        return _exact(x, t, v, noise, prior, self.length * lengths)


@eqx.filter_jit
def _exact(x: Array, t: Array, v: Array, noise: Array, prior: Array, lengths: Array) -> Drift:
    scaled = _Scaled(lengths)
    rows = jax.vmap(scaled)(x, t).reshape(-1, x.shape[-1] + 1)
    K = prior * _kernel(rows, rows) + (noise + 1e-6) * jnp.eye(len(rows), dtype=x.dtype)
    factor = jax.scipy.linalg.cho_factor(K, lower=True)
    return _Kernel(scaled, rows, prior * jax.scipy.linalg.cho_solve(factor, v.reshape(len(rows), -1)))


class _Linear(eqx.Module):
    """A drift linear in features of a state and a time."""

    seen: Callable[[Array, Array], Array]
    weights: Float[Array, "features d"]

    def __call__(self, x: Float[Array, " d"], t: Float[Array, ""]) -> Float[Array, " d"]:
        return self.seen(x, t) @ self.weights


def _ridge(seen: Callable[[Array, Array], Array], x: Array, t: Array, v: Array, ridge: Array, features: int) -> _Linear:
    """Least squares with a penalty, its normal equations summed over the steps."""

    def add(sums: tuple[Array, Array], step: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        made = seen(step[0], step[1])
        return (sums[0] + made.T @ made, sums[1] + made.T @ step[2]), None

    start = (ridge * jnp.eye(features, dtype=x.dtype), jnp.zeros((features, x.shape[-1]), x.dtype))
    (gram, moments), _ = jax.lax.scan(add, start, (x, t, v))
    return _Linear(seen, jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(gram, lower=True), moments))


class _Cosines(eqx.Module):
    scaled: _Scaled
    frequencies: Float[Array, "columns features"]
    phases: Float[Array, " features"]

    def __call__(self, x: Float[Array, "*n d"], t: Float[Array, ""]) -> Float[Array, "*n features"]:
        scale = jnp.sqrt(2 / len(self.phases)).astype(x.dtype)
        return scale * jnp.cos(self.scaled(x, t) @ self.frequencies + self.phases)


@dataclass(frozen=True)
class RandomFeatures:
    """The same Gaussian process with its kernel as a mean over random cosines (Rahimi and Recht, NIPS 2007): frequencies of the
    exponential kernel are drawn from Cauchy's law in d + 1 dimensions.

    - `features`: how many cosines; `length`: see `ExactGP`.

    Time and memory are linear in points and steps. Away from the data the drift is noise, not 0: for snapshots that paths of
    the first reference do not reach, take `Nystrom`.
    """

    features: int = 500
    length: float = 1.0

    def __call__(self, x: Array, t: Array, v: Array, noise: Array, prior: Array, lengths: Array, key: PRNGKeyArray) -> Drift:
        if self.features < 1:
            raise InputError(f"RandomFeatures: {self.features} features; at least 1 is wanted.")
        return _random(x, t, v, noise / prior, self.length * lengths, key, self.features)


@eqx.filter_jit
def _random(x: Array, t: Array, v: Array, ridge: Array, lengths: Array, key: PRNGKeyArray, features: int) -> Drift:
    normal, tail, phase = jax.random.split(key, 3)
    z = jax.random.normal(normal, (x.shape[-1] + 1, features), x.dtype)
    z = z / jnp.abs(jax.random.normal(tail, (features,), x.dtype))
    phases = jax.random.uniform(phase, (features,), x.dtype, maxval=2 * jnp.pi)
    return _ridge(_Cosines(_Scaled(lengths), z, phases), x, t, v, ridge, features)


class _Chosen(eqx.Module):
    scaled: _Scaled
    rows: Float[Array, "features columns"]
    whitened: Float[Array, "features features"]

    def __call__(self, x: Float[Array, "*n d"], t: Float[Array, ""]) -> Float[Array, "*n features"]:
        z = self.scaled(x, t)
        return (_kernel(z.reshape(-1, z.shape[-1]), self.rows) @ self.whitened).reshape(*z.shape[:-1], -1)


@dataclass(frozen=True)
class Nystrom:
    """The same Gaussian process on the span of its kernel at some rows, chosen at random (Williams and Seeger, NIPS 2000).

    - `points`: how many rows; `length`: see `ExactGP`.

    Time and memory are linear in points and steps.
    """

    points: int = 300
    length: float = 1.0

    def __call__(self, x: Array, t: Array, v: Array, noise: Array, prior: Array, lengths: Array, key: PRNGKeyArray) -> Drift:
        if self.points < 1:
            raise InputError(f"Nystrom: {self.points} points; at least 1 is wanted.")
        return _nystrom(x, t, v, noise / prior, self.length * lengths, key, min(self.points, x.shape[0] * x.shape[1]))


@eqx.filter_jit
def _nystrom(x: Array, t: Array, v: Array, ridge: Array, lengths: Array, key: PRNGKeyArray, points: int) -> Drift:
    scaled = _Scaled(lengths)
    step, row = jnp.divmod(jax.random.choice(key, x.shape[0] * x.shape[1], (points,), replace=False), x.shape[1])
    rows = jax.vmap(scaled)(x[step, row], t[step])
    values, vectors = jnp.linalg.eigh(_kernel(rows, rows))
    kept = values > 1e-5 * values[-1]
    whitened = vectors * jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, values, 1.0)), 0.0)
    return _ridge(_Chosen(scaled, rows, whitened), x, t, v, ridge, points)
