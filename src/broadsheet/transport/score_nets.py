"""Networks that give the Hyvärinen score of noised positive data."""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from broadsheet.transport.geometric_brownian import GBM
from broadsheet.transport.timed_nets import TimedMLP, TimedUNet


class ScoreNet(eqx.Module):
    """The Hyvärinen score of X_t by a network: (*n, d) and times (*n, 1) to (*n, d).

    **Arguments:** `form`: `"noise"`, the network sees log x, standardised by what is known of the data and the noise, and gives
    the noise, so that `h = -1 - eps / (sigma sqrt t)`; `"stein"`, it sees x and gives the Stein score s, and `h = x s`, as the
    authors of arXiv 2510.02730 have it. `mean`, `variance`: of log x_0, (d,).
    """

    net: TimedMLP | TimedUNet
    gbm: GBM
    mean: Float[Array, " d"]
    variance: Float[Array, " d"]
    form: Literal["noise", "stein"] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*n d"], t: Float[Array, "*n 1"]) -> Float[Array, "*n d"]:
        gbm, mean, variance = jax.lax.stop_gradient((self.gbm, self.mean, self.variance))
        made = jnp.vectorize(self.net, signature="(d),()->(d)")
        share = t[..., 0] / gbm.T
        if self.form == "stein":
            return x * made(x, share)
        seen = (jnp.log(x) - mean - gbm.c * t) / jnp.sqrt(variance + gbm.sigma**2 * t)
        return -1 - made(seen, share) / (gbm.sigma * jnp.sqrt(t))
