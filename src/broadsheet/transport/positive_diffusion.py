"""A generative model of positive data, fitted by multiplicative denoising score matching."""

from __future__ import annotations

import functools
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.learn import fit
from broadsheet.learn.training import with_average
from broadsheet.transport.geometric_brownian import GBM
from broadsheet.transport.multiplicative_samplers import Annealing, Method, lognormal_start, sample_annealed, sample_reverse
from broadsheet.transport.score_matching import DenoisingLoss
from broadsheet.transport.score_nets import ScoreNet
from broadsheet.transport.timed_nets import timed_net


class Draws(eqx.Module):
    """Batches of rows, at random."""

    x: Array
    size: int = eqx.field(static=True)

    def __call__(self, key: Any) -> Array:
        return self.x[jax.random.randint(key, (self.size,), 0, len(self.x))]


@functools.lru_cache(maxsize=64)
def averaged_adam(rate: float, average: float) -> optax.GradientTransformation:
    """Adam with an average of the weights: one object for all fits with the same settings, which are then compiled once."""
    return with_average(optax.adam(rate), average)


class PositiveDiffusion(BaseEstimator):
    """Learns the law of positive rows under geometric Brownian noise, and draws from it by multiplicative steps.

    **Arguments:**

    - `sigma`: volatility of the noise, until T = 1; `form`: what the network sees and gives, see `ScoreNet`.
    - `hidden`, `depth`: of its dense layers; with `shape` (height, width, channels) rows are images, and the network is a
      U-Net, see `timed_net`; `weight`: of the loss, see `DenoisingLoss`.
    - `steps`, `batch`, `rate`: of the training by Adam, whose average of the weights (`average` a step) is what is kept.
    - `random_state`: an integer.

    Fitted: `score_`, a function of (x, t); `gbm_`; `log_mean_`, `log_variance_` (features,) of the data; `losses_`;
    `n_features_in_`. `score(X)` is minus the denoising loss. After arXiv 2510.02730.
    """

    def __init__(
        self, sigma: float = 0.8, *, form: Literal["noise", "stein"] = "noise", hidden: int = 256, depth: int = 3,
        shape: tuple[int, int, int] | None = None,
        weight: Literal["noise", "authors", "one"] = "authors", steps: int = 3000, batch: int = 128, rate: float = 1e-3,
        average: float = 0.999, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.sigma = sigma
        self.form = form
        self.hidden = hidden
        self.depth = depth
        self.shape = shape
        self.weight = weight
        self.steps = steps
        self.batch = batch
        self.rate = rate
        self.average = average
        self.random_state = random_state

    def fit(self, X: Any, y: None = None, *, report: Any = None) -> PositiveDiffusion:
        """**Raises:** `InputError` for values that are not above 0, NaN, and fewer than two rows.

        **Arguments:** `report`: called with (steps made, mean loss of late).
        """
        x = jnp.asarray(positive(X), jnp.float32)
        if len(x) < 2:
            raise InputError(f"X has {len(x)} row; at least 2 are wanted.")
        self.gbm_ = GBM(self.sigma)
        logs = np.log(np.asarray(x, float))
        self.log_mean_, self.log_variance_ = logs.mean(axis=0), logs.var(axis=0)
        first, later, self._key = jax.random.split(jax.random.key(self.random_state), 3)
        net = ScoreNet(
            timed_net(x.shape[1], self.hidden, self.depth, self.shape, first), self.gbm_,
            jnp.asarray(self.log_mean_, jnp.float32), jnp.asarray(self.log_variance_, jnp.float32), self.form,
        )  # fmt: skip
        found = fit(
            net, DenoisingLoss(self.gbm_, weight=self.weight), Draws(x, min(self.batch, len(x))),
            optimiser=averaged_adam(self.rate, self.average), steps=self.steps, key=later, report=report,
            parameters=eqx.tree_at(lambda tree: tree.net, jax.tree.map(lambda _: False, net),
                                   jax.tree.map(eqx.is_inexact_array, net.net)),
        )  # fmt: skip
        average = eqx.combine(found.opt_state.average, found.model)
        self.score_ = average
        self.losses_ = found.losses
        self.n_features_in_ = x.shape[1]
        return self

    def sample(
        self, n_samples: int = 1, *, steps: int = 500, method: Method = "dale", clean: bool = True,
        spacing: Literal["uniform", "geometric"] = "uniform",
        annealing: Annealing | None = None, start: Any = None, random_state: int | None = None,
    ) -> Float[np.ndarray, "n_samples features"]:  # fmt: skip
        """Draws from the learnt law; with `method="ambient"` they may be negative.

        **Arguments:** `steps`, `clean`, `spacing`: see `sample_reverse`; `annealing`: in place of the reverse equation;
        `start`: positive rows at T, by default of the fitted log-normal law; `random_state`: by default another draw follows
        from the fit's own.
        """
        check_is_fitted(self, "score_")
        if n_samples < 1:
            raise InputError(f"sample: {n_samples} samples; at least 1 is wanted.")
        first, later = jax.random.split(self._key if random_state is None else jax.random.key(random_state))
        mean, variance = (jnp.asarray(part, jnp.float32) for part in (self.log_mean_, self.log_variance_))
        begin = (
            lognormal_start(self.gbm_, mean, variance, n_samples, first) if start is None else jnp.asarray(start, jnp.float32)
        )
        if annealing is not None:
            return np.asarray(sample_annealed(self.score_, self.gbm_, begin, later, annealing, method))
        return np.asarray(
            sample_reverse(self.score_, self.gbm_, begin, later, steps=steps, method=method, clean=clean, spacing=spacing)
        )

    def score(self, X: Any, y: None = None) -> float:
        """Minus the mean squared error of the noise that is predicted, over 32 draws of noise a row: larger is better."""
        check_is_fitted(self, "score_")
        x = positive(X)
        if x.shape[1] != self.n_features_in_:
            raise InputError(f"X has {x.shape[1]} features; the model was fitted to {self.n_features_in_}.")
        rows = jnp.asarray(np.repeat(x, 32, axis=0), jnp.float32)
        return -float(eqx.filter_jit(DenoisingLoss(self.gbm_, weight="noise"))(self.score_, rows, jax.random.key(0)))


def positive(X: Any) -> np.ndarray:
    """Rows of finite numbers above 0, or `InputError` with where another stands."""
    x = np.asarray(X)
    if x.ndim != 2 or x.dtype.kind not in "biuf" or not x.size:
        raise InputError(f"X holds {x.dtype} of {x.shape}; real numbers (rows, features) are wanted.")
    bad = np.argwhere(~(np.isfinite(x) & (x > 0)))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"X holds {x[row, column]} in row {row}, column {column}, and {len(bad) - 1} more such values; a multiplicative "
            "model is of finite numbers above 0: shift the data, or leave those rows out."
        )
    return x
