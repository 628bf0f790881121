"""Losses whose minimiser is the Hyvärinen score: denoising, explicit, and the implicit one of non-negative score matching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.transport.geometric_brownian import GBM

Score = Callable[[Float[Array, "*n d"], Float[Array, "*n 1"]], Float[Array, "*n d"]]
"""The Hyvärinen score of noised data and their times."""


class DenoisingLoss(eqx.Module):
    """Multiplicative denoising score matching: `E lam(t) |h - target|²`, t uniform from `t_min` to T.

    **Arguments:** `weight`: `"noise"`, lam = sigma² t, the error of the predicted noise; `"authors"`, lam = (sigma² t)²: theirs
    weights that error by sigma² t once more; `"one"`, lam = 1, of which the explicit loss differs by a constant.
    """

    gbm: GBM
    t_min: float = 1e-3
    weight: Literal["noise", "authors", "one"] = eqx.field(static=True, default="noise")

    def __call__(self, score: Score, x0: Float[Array, "n d"], key: PRNGKeyArray) -> Float[Array, ""]:
        when, noise = jax.random.split(key)
        gbm = jax.lax.stop_gradient(self.gbm)
        t = jax.random.uniform(when, (len(x0), 1), minval=self.t_min, maxval=gbm.T)
        xt = gbm.marginal(x0, t, noise)
        lam = (gbm.sigma**2 * t) ** {"one": 0, "noise": 1, "authors": 2}[self.weight]
        return jnp.mean(lam * (score(xt, t) - gbm.target(x0, xt, t)) ** 2)


def explicit_loss(score: Callable[[Array], Array], exact: Callable[[Array], Array], x: Float[Array, "n d"]) -> Float[Array, ""]:
    """`E |h - x d log p / dx|²`, where the density is known."""
    return jnp.mean((score(x) - exact(x)) ** 2)


def implicit_loss(score: Callable[[Array], Array], x: Float[Array, "n d"]) -> Float[Array, ""]:
    """`2 E sum_i (h_i²/2 + x_i dh_i/dx_i + h_i) / d`: the explicit loss less a constant, without the density (Hyvärinen,
    Comput. Stat. Data Anal. 51, 2499 (2007), for data on the positive half line; there `h = x * s`)."""

    def one(point: Float[Array, " d"]) -> Array:
        h, slopes = score(point), jnp.diagonal(jax.jacfwd(score)(point))
        return jnp.mean(h**2 + 2 * point * slopes + 2 * h)

    return jnp.mean(jax.vmap(one)(x))
