"""What comes next, in the latent space of a frozen encoder: predictors of the next latent, and their rollouts.

As in arXiv 2305.11772 and its code (github.com/anayebi/mental-sim): seven latents in, the next one out, trained one step ahead;
in a rollout each prediction is appended to the context and the oldest latent dropped, so that a recurrent network begins anew
in each step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from sklearn.base import BaseEstimator
from sklearn.linear_model import Ridge
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.learn import fit
from broadsheet.recordings.sequences import sequences


class LSTMDynamics(eqx.Module):
    """One LSTM layer over the context, from zero; its last hidden state, mapped to a latent."""

    cell: eqx.nn.LSTMCell
    out: eqx.nn.Linear

    def __init__(self, latents: int, hidden: int, *, key: PRNGKeyArray) -> None:
        cell, out = jax.random.split(key)
        self.cell = eqx.nn.LSTMCell(latents, hidden, key=cell)
        self.out = eqx.nn.Linear(hidden, latents, key=out)

    def __call__(self, context: Float[Array, "context latents"]) -> Float[Array, " latents"]:
        start = (jnp.zeros(self.cell.hidden_size),) * 2
        (hidden, _), _ = jax.lax.scan(lambda state, latent: (self.cell(latent, state), None), start, context)
        return self.out(hidden)


class CTRNNDynamics(eqx.Module):
    """A continuous-time network over the context: `a <- a + (dt / tau) (-a + W h + U z + b)`, `h = max(tanh a, 0)`.

    Its state begins at a fixed random vector; with `dt / tau` of 0.1 and seven steps, the published constants, it stays near
    it.
    """

    start: Array
    recurrent: Array
    inward: Array
    bias: Array
    readout: eqx.nn.Linear
    out: eqx.nn.Linear
    rate: Array  # dt / tau

    def __init__(self, latents: int, hidden: int, tau: float, *, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key, 6)
        self.start = jax.random.normal(keys[0], (hidden,))
        self.recurrent = 1.5 * jax.random.normal(keys[1], (hidden, hidden)) / np.sqrt(hidden)
        self.inward = jax.random.normal(keys[2], (hidden, latents)) / np.sqrt(latents)
        self.bias = jax.random.normal(keys[3], (hidden,))
        self.readout = eqx.nn.Linear(hidden, hidden, key=keys[4])
        self.out = eqx.nn.Linear(hidden, latents, key=keys[5])
        self.rate = jnp.asarray(1.0 / tau)

    def __call__(self, context: Float[Array, "context latents"]) -> Float[Array, " latents"]:
        start, rate = jax.lax.stop_gradient((self.start, self.rate))

        def step(state: Array, latent: Array) -> tuple[Array, None]:
            rates = jnp.maximum(jnp.tanh(state), 0)
            return state + rate * (-state + self.recurrent @ rates + self.inward @ latent + self.bias), None

        state, _ = jax.lax.scan(step, start, context)
        return self.out(self.readout(jnp.maximum(jnp.tanh(state), 0)))


class LinearDynamics(eqx.Module):
    """A linear map of the whole context."""

    weight: Float[Array, "latents inputs"]
    bias: Float[Array, " latents"]

    def __call__(self, context: Float[Array, "context latents"]) -> Float[Array, " latents"]:
        return self.weight @ context.ravel() + self.bias


class Copy(eqx.Module):
    """No dynamics: what is, stays."""

    def __call__(self, context: Float[Array, "context latents"]) -> Float[Array, " latents"]:
        return context[-1]


class Residual(eqx.Module):
    """Dynamics that say how the latent changes."""

    change: Callable[[Array], Array]

    def __call__(self, context: Float[Array, "context latents"]) -> Float[Array, " latents"]:
        return context[-1] + self.change(context)


class LatentPredictor(BaseEstimator):
    """Predicts the next latent from those before it, and rolls itself out.

    **Parameters:**

    - `dynamics`: `"lstm"`, `"ctrnn"`, `"linear"` (a ridge from the whole context) or `"id"` (the last latent again).
    - `context`: latents that it sees.
    - `hidden`: units of a network; `tau`: time constant of the CTRNN, in steps (the paper: 10).
    - `residual`: the network gives the change of the latent, not the latent.
    - `steps`, `batch`, `learning_rate`: training with Adam, the rate falling to zero as a cosine; `alpha`: penalty of the
      ridge.
    - `random_state`: an integer; `report`: called with (steps made, mean loss).

    **Attributes:** `model_`, `losses_`, `n_features_in_`.

    **Example:**

        >>> import numpy as np
        >>> t = np.arange(60)
        >>> circles = np.stack([[np.cos(0.3 * t + p), np.sin(0.3 * t + p)] for p in range(5)]).transpose(0, 2, 1)
        >>> predictor = LatentPredictor("linear", context=2, alpha=1e-6).fit(circles)
        >>> future = predictor.rollout(circles[:, :2], 58)
        >>> bool(np.abs(future - circles[:, 2:]).max() < 1e-3)
        True
    """

    def __init__(
        self,
        dynamics: str = "lstm",
        *,
        context: int = 7,
        hidden: int = 96,
        residual: bool = False,
        tau: float = 10.0,
        steps: int = 500,
        batch: int = 128,
        learning_rate: float = 2e-3,
        alpha: float = 1.0,
        random_state: int = 0,
        report: Callable[[int, float], None] | None = None,
    ) -> None:
        self.dynamics = dynamics
        self.context = context
        self.hidden = hidden
        self.residual = residual
        self.tau = tau
        self.steps = steps
        self.batch = batch
        self.learning_rate = learning_rate
        self.alpha = alpha
        self.random_state = random_state
        self.report = report

    def fit(self, X: Any, y: Any = None) -> LatentPredictor:
        """Learns from sequences of latents: (bins, latents), (videos, bins, latents) or a list of unequal ones."""
        if self.context < 1:
            raise InputError(f"A context of {self.context} latents; 1 or more are wanted.")
        parts = sequences(X, what="latents", shortest=self.context + 1)
        self.n_features_in_ = latents = parts[0].shape[1]
        contexts, targets = self._windows(parts)
        start, learn = jax.random.split(jax.random.key(self.random_state))
        self.losses_ = np.zeros(0)
        if self.dynamics == "id":
            self.model_: Any = Copy()
        elif self.dynamics == "linear":
            change = targets - contexts[:, -1]  # so that the penalty draws it to copying
            ridge = Ridge(self.alpha).fit(contexts.reshape(len(contexts), -1), change)
            self.model_ = Residual(LinearDynamics(jnp.asarray(ridge.coef_), jnp.asarray(ridge.intercept_)))
        elif self.dynamics in ("lstm", "ctrnn"):
            network: Any
            if self.dynamics == "lstm":
                network = LSTMDynamics(latents, self.hidden, key=start)
            elif self.tau >= 1:
                network = CTRNNDynamics(latents, self.hidden, self.tau, key=start)
            else:
                raise InputError(f"tau is {self.tau}; the time constant is 1 step or more.")
            made = fit(
                Residual(network) if self.residual else network,
                _OneStep(),
                _Windows(padded(contexts), padded(targets), jnp.asarray(len(contexts)), self.batch),
                optimiser=adam(self.learning_rate, self.steps),
                steps=self.steps,
                key=learn,
                report=self.report,
            )
            self.model_, self.losses_ = made.model, made.losses
        else:
            raise InputError(f"dynamics is {self.dynamics!r}; lstm, ctrnn, linear and id are possible.")
        return self

    def predict(self, X: Any) -> Any:
        """The latents from bin `context` on, each from the true ones before it; a list where a list was given."""
        check_is_fitted(self)
        parts = self._checked(X, self.context + 1)
        out = [np.asarray(_apply(self.model_, jnp.asarray(self._windows([part])[0], jnp.float32)), float) for part in parts]
        return out if isinstance(X, list | tuple) else out[0] if np.ndim(X) == 2 else np.stack(out)

    def score(self, X: Any, y: Any = None) -> float:
        """Which share of the squared error of copying the last latent it removes; at 0 or below a rollout means nothing."""
        parts = self._checked(X, self.context + 1)
        contexts, targets = self._windows(parts)
        made = np.concatenate(self.predict(parts))
        return float(1 - ((made - targets) ** 2).mean() / ((contexts[:, -1] - targets) ** 2).mean())

    def rollout(self, context: Any, steps: int) -> Float[np.ndarray, "examples steps latents"]:
        """What follows contexts (examples, context, latents), each step from predictions of the steps before."""
        check_is_fitted(self)
        if steps < 1:
            raise InputError(f"A rollout of {steps} steps; 1 or more are wanted.")
        array = np.stack(self._checked(context, self.context))
        if array.shape[1] != self.context:
            raise InputError(f"The context has {array.shape[1]} latents; {self.context} are wanted.")
        return np.asarray(_rollout(self.model_, jnp.asarray(array, jnp.float32), steps), float)

    def _checked(self, X: Any, shortest: int) -> list[np.ndarray]:
        parts = sequences(X, what="latents", shortest=shortest)
        if parts[0].shape[1] != self.n_features_in_:
            raise InputError(f"{parts[0].shape[1]} latents; the predictor was fitted to {self.n_features_in_}.")
        return parts

    def _windows(self, parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """All (windows, context, latents) and what follows each."""
        views = [np.lib.stride_tricks.sliding_window_view(part, self.context, axis=0)[:-1].swapaxes(1, 2) for part in parts]
        return np.concatenate(views), np.concatenate([part[self.context :] for part in parts])


class _Windows(eqx.Module):
    """Random windows and what follows them; only the first `count` are."""

    contexts: Float[Array, "windows context latents"]
    targets: Float[Array, "windows latents"]
    count: Array
    batch: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        which = jax.random.randint(key, (self.batch,), 0, self.count)
        return self.contexts[which], self.targets[which]


def padded(part: np.ndarray) -> Array:
    """Rows of zeros up to a power of two, so that programs serve data of about a size."""
    rows = 1 << (len(part) - 1).bit_length()
    return jnp.asarray(np.concatenate([part, np.zeros((rows - len(part), *part.shape[1:]))]), jnp.float32)


class _OneStep(eqx.Module):
    """Mean squared error one step ahead; as a module it is compiled once for all predictors of a size."""

    def __call__(self, model: Callable[[Array], Array], batch: tuple[Array, Array], key: PRNGKeyArray) -> Array:
        return jnp.mean((jax.vmap(model)(batch[0]) - batch[1]) ** 2)


@functools.lru_cache(maxsize=32)
def adam(rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with a rate that falls to zero as a cosine; the same object for the same numbers, so that programs are kept."""
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


@eqx.filter_jit
def _apply(model: Callable[[Array], Array], contexts: Array) -> Array:
    return jax.vmap(model)(contexts)


@eqx.filter_jit
def _rollout(model: Callable[[Array], Array], contexts: Array, steps: int) -> Array:
    def step(window: Array, _: None) -> tuple[Array, Array]:
        following = model(window)
        return jnp.concatenate([window[1:], following[None]]), following

    return jax.vmap(lambda context: jax.lax.scan(step, context, None, length=steps)[1])(contexts)
