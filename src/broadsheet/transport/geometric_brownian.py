"""Geometric Brownian motion as the noise of a diffusion model of positive data, and the scores that its reverse needs.

All operations are of each coordinate by itself. The *Hyvärinen score* of a density is `h(x) = x * d log p / dx`; of y = log x
the usual score is `1 + h`. Times run from 0, the data, to T. After arXiv 2510.02730.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics.system import as_array
from broadsheet.errors import InputError


class GBM(eqx.Module):
    """`dX = mu X dt + sigma X dW` (Ito) until T: `log X_t = log X_0 + c t + sigma sqrt(t) eps` with `c = mu - sigma²/2`.

    **Arguments:** `sigma`: > 0; `mu`: by default sigma²/2, for which c is 0; `T`: > 0.
    """

    mu: Float[Array, ""]
    sigma: Float[Array, ""]
    T: Float[Array, ""]

    def __init__(self, sigma: float = 0.8, mu: float | None = None, T: float = 1.0) -> None:
        if not (sigma > 0 and T > 0):
            raise InputError(f"GBM: sigma = {sigma:g} and T = {T:g}; both above 0 are wanted.")
        self.sigma, self.T = as_array(sigma), as_array(T)
        self.mu = as_array(sigma**2 / 2 if mu is None else mu)

    @property
    def c(self) -> Float[Array, ""]:
        """Drift of log X."""
        return self.mu - self.sigma**2 / 2

    def marginal(self, x0: Float[Array, "*n d"], t: Float[Array, "*n 1"], key: PRNGKeyArray) -> Float[Array, "*n d"]:
        """A draw of X_t given X_0."""
        return x0 * jnp.exp(self.c * t + self.sigma * jnp.sqrt(t) * jax.random.normal(key, x0.shape))

    def noise(self, x0: Float[Array, "*n d"], xt: Float[Array, "*n d"], t: Float[Array, "*n 1"]) -> Float[Array, "*n d"]:
        """The standard normal number that led from X_0 to X_t."""
        return (jnp.log(xt) - jnp.log(x0) - self.c * t) / (self.sigma * jnp.sqrt(t))

    def target(self, x0: Float[Array, "*n d"], xt: Float[Array, "*n d"], t: Float[Array, "*n 1"]) -> Float[Array, "*n d"]:
        """Hyvärinen score of X_t given X_0: `-1 - (log x_t - log x_0 - c t) / (sigma² t)`."""
        return -1 - self.noise(x0, xt, t) / (self.sigma * jnp.sqrt(t))

    def lognormal_score(
        self, x: Float[Array, "*n d"], t: Float[Array, "*n 1"], mean: Float[Array, "..."], variance: Float[Array, "..."]
    ) -> Float[Array, "*n d"]:
        """Hyvärinen score of X_t where log X_0 is normal with `mean` and `variance`: exact."""
        return -1 - (jnp.log(x) - mean - self.c * t) / (variance + self.sigma**2 * t)
