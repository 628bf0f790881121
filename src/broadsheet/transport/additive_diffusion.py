"""The usual diffusion models, of data or of their logarithms, with the network of `PositiveDiffusion`, to compare it with."""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.learn import fit
from broadsheet.transport.positive_diffusion import Draws, averaged_adam, positive
from broadsheet.transport.timed_nets import timed_net

Kind = Literal["exploding", "preserving"]


class AdditiveLoss(eqx.Module):
    """Denoising of standardised data, the noise predicted, t uniform from `t_min` to 1.

    Exploding: `y_t = y + sigma sqrt(t) eps`. Preserving: `y_t = sqrt(a) y + sqrt(1 - a) eps`, `a = exp(-.1 t - 9.95 t²)` (Song
    et al., arXiv 2011.13456).
    """

    sigma: Float[Array, " d"]
    kind: Kind = eqx.field(static=True)
    t_min: float = 1e-3

    def scales(self, t: Float[Array, "*n 1"]) -> tuple[Array, Array]:
        """What the data and the noise are multiplied by."""
        if self.kind == "exploding":
            return jnp.ones_like(t), jax.lax.stop_gradient(self.sigma) * jnp.sqrt(t)
        kept = jnp.exp(-0.1 * t - 9.95 * t**2)
        return jnp.sqrt(kept), jnp.sqrt(1 - kept)

    def predicted(self, net: Any, y: Float[Array, "*n d"], t: Float[Array, "*n 1"]) -> Float[Array, "*n d"]:
        """The noise in y_t, which the network sees with variance 1."""
        kept, added = self.scales(t)
        return jnp.vectorize(net, signature="(d),()->(d)")(y / jnp.sqrt(kept**2 + added**2), t[..., 0])

    def __call__(self, net: Any, y: Float[Array, "n d"], key: PRNGKeyArray) -> Float[Array, ""]:
        when, noise = jax.random.split(key)
        t = jax.random.uniform(when, (len(y), 1), minval=self.t_min, maxval=1.0)
        eps = jax.random.normal(noise, y.shape)
        kept, added = self.scales(t)
        return jnp.mean((self.predicted(net, kept * y + added * eps, t) - eps) ** 2)

    @eqx.filter_jit
    def sample(self, net: Any, key: PRNGKeyArray, count: int, steps: int) -> Float[Array, "count d"]:
        """Euler steps of the exploding reverse equation, ancestral ones (DDPM) of the preserving one."""
        times = jnp.linspace(1.0, self.t_min, steps + 1)[:, None, None]
        first, later = jax.random.split(key)
        kept, added = self.scales(times[0])
        start = jnp.sqrt(kept**2 + added**2) * jax.random.normal(first, (count, len(self.sigma)))

        def step(y: Array, given: tuple[Array, Array, Array]) -> tuple[Array, None]:
            now, then, k = given
            z = jax.random.normal(k, y.shape)
            (a, b), (a_next, b_next) = self.scales(now), self.scales(then)
            eps = self.predicted(net, y, jnp.broadcast_to(now, (count, 1)))
            if self.kind == "exploding":
                gained = b**2 - b_next**2
                return y - gained * eps / b + jnp.sqrt(gained) * z, None
            ratio = (a / a_next) ** 2
            mean = (y - (1 - ratio) / b * eps) / jnp.sqrt(ratio)
            return mean + jnp.sqrt((1 - ratio) * b_next**2 / b**2) * z, None

        return jax.lax.scan(step, start, (times[:-1], times[1:], jax.random.split(later, steps)))[0]


class AdditiveDiffusion(BaseEstimator):
    """Rows under additive noise, standardised; with `log` their logarithms are.

    **Arguments:** `kind`: see `AdditiveLoss`; `sigma`: of the exploding noise, in the units of the data or of their logarithms;
    the rest as of `PositiveDiffusion`. Fitted: `net_`, `loss_`, `mean_`, `spread_`, `losses_`, `n_features_in_`.
    """

    def __init__(
        self, kind: Kind = "preserving", sigma: float = 0.8, *, log: bool = False, hidden: int = 256, depth: int = 3,
        shape: tuple[int, int, int] | None = None,
        steps: int = 3000, batch: int = 128, rate: float = 1e-3, average: float = 0.999, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.kind = kind
        self.sigma = sigma
        self.log = log
        self.hidden = hidden
        self.depth = depth
        self.shape = shape
        self.steps = steps
        self.batch = batch
        self.rate = rate
        self.average = average
        self.random_state = random_state

    def fit(self, X: Any, y: None = None) -> AdditiveDiffusion:
        """**Raises:** `InputError` for NaN, and with `log` for values that are not above 0."""
        x = self._rows(X)
        self.mean_, self.spread_ = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-12)
        rows = jnp.asarray((x - self.mean_) / self.spread_, jnp.float32)
        first, later, self._key = jax.random.split(jax.random.key(self.random_state), 3)
        self.loss_ = AdditiveLoss(jnp.asarray(self.sigma / self.spread_, jnp.float32), self.kind)
        found = fit(
            timed_net(x.shape[1], self.hidden, self.depth, self.shape, first), self.loss_,
            Draws(rows, min(self.batch, len(rows))), optimiser=averaged_adam(self.rate, self.average),
            steps=self.steps, key=later,
        )  # fmt: skip
        self.net_ = eqx.combine(found.opt_state.average, found.model)
        self.losses_ = found.losses
        self.n_features_in_ = x.shape[1]
        return self

    def sample(
        self, n_samples: int = 1, *, steps: int = 500, random_state: int | None = None
    ) -> Float[np.ndarray, "n_samples features"]:
        """Draws from the learnt law; by default another draw follows from the fit's own seed."""
        check_is_fitted(self, "net_")
        key = self._key if random_state is None else jax.random.key(random_state)
        made = self.mean_ + self.spread_ * np.asarray(self.loss_.sample(self.net_, key, n_samples, steps), float)
        return np.exp(made) if self.log else made

    def score(self, X: Any, y: None = None) -> float:
        """Minus the mean squared error of the noise that is predicted, over 32 draws of noise a row: larger is better."""
        check_is_fitted(self, "net_")
        rows = np.repeat((self._rows(X) - self.mean_) / self.spread_, 32, axis=0)
        return -float(eqx.filter_jit(self.loss_)(self.net_, jnp.asarray(rows, jnp.float32), jax.random.key(0)))

    def _rows(self, X: Any) -> np.ndarray:
        x = np.asarray(X, float)
        if self.log:
            return np.log(positive(x))
        if x.ndim != 2 or not np.isfinite(x).all():
            raise InputError(f"X is {x.shape}; finite numbers (rows, features) are wanted.")
        return x
