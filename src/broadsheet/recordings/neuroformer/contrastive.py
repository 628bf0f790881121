"""The contrastive term: features of two modalities of one window lie closer than those of two windows (arXiv 2311.00136)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def contrastive_loss(
    u: Float[Array, "windows d"], v: Float[Array, "windows d"], there: Bool[Array, " windows"], temperature: float = 0.5,
    symmetric: bool = False,
) -> Float[Array, ""]:  # fmt: skip
    """Mean over windows of `-s_ii + logsumexp_j s_ij`, `s_ij = u_i v_j / temperature` of normalised features; windows that are
    not `there` count nowhere. `symmetric`: the mean of both directions."""
    s = similarity(u, v) / temperature
    pairs = there[:, None] & there[None]

    def one_way(s: Array) -> Array:
        each = jax.nn.logsumexp(jnp.where(pairs, s, -1e9), axis=1) - jnp.diagonal(s)
        return jnp.where(there, each, 0.0).sum() / jnp.maximum(there.sum(), 1)

    return (one_way(s) + one_way(s.T)) / 2 if symmetric else one_way(s)


def similarity(u: Float[Array, "a d"], v: Float[Array, "b d"]) -> Float[Array, "a b"]:
    """Cosines."""
    return _unit(u) @ _unit(v).T


def retrieval(u: Any, v: Any, among: int = 32) -> float:
    """Of features (windows, d) the share of windows whose `v` is the most similar to their `u` of `among` windows in
    turn, so that chance is `1 / among`."""
    u, v = (np.asarray(x) for x in (u, v))
    u, v = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6) for x in (u, v))
    found = []
    for start in range(0, len(u) - among + 1, among):
        here = slice(start, start + among)
        found.append((u[here] @ v[here].T).argmax(axis=1) == np.arange(among))
    return float(np.mean(found))


def _unit(x: Array) -> Array:
    return x * jax.lax.rsqrt(jnp.maximum((x**2).sum(axis=-1, keepdims=True), 1e-12))
