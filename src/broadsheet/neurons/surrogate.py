"""Fitting a cell to recordings: spikes in, soma voltage and spikes out.

The loss and the scores are those of arXiv 2306.16922: half cross-entropy of the spikes, half squared error of the soma
voltage, clipped at -55 mV, less -67.7 mV, times 0.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from sklearn.base import BaseEstimator
from sklearn.metrics import r2_score, roc_auc_score, roc_curve
from sklearn.utils.validation import check_is_fitted

from broadsheet.dynamics import trainable
from broadsheet.errors import InputError
from broadsheet.learn import fit
from broadsheet.neurons.elm import ELMCell, count_params

if TYPE_CHECKING:
    from broadsheet.learn.pruning import Sparsifier

CLIP, OFFSET, SCALE = -55.0, -67.7, 0.1
BURN_IN = 150
"""Steps at the start of a window that only warm the state up when a fit is scored."""

Model = Callable[[Array], Array]


def scale_voltage(voltage: Any) -> Any:
    """Soma voltage (mV) as the regression's target."""
    return (np.minimum(voltage, CLIP) - OFFSET) * SCALE


class Windows(eqx.Module):
    """Random windows of recordings: a key to (batch, window, channels) and (batch, window, outputs)."""

    inputs: Float[Array, "recordings time channels"]
    targets: Float[Array, "recordings time outputs"]
    batch: int = eqx.field(static=True)
    window: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        which, when = jax.random.split(key)
        rows = jax.random.randint(which, (self.batch,), 0, self.inputs.shape[0])
        starts = jax.random.randint(when, (self.batch,), 0, self.inputs.shape[1] - self.window + 1)

        def cut(array: Array) -> Array:
            size = (1, self.window, array.shape[2])
            return jax.vmap(lambda r, t: jax.lax.dynamic_slice(array, (r, t, 0), size)[0])(rows, starts)

        return cut(self.inputs), cut(self.targets)


def fit_recordings(
    model: Any,
    inputs: Float[np.ndarray, "recordings time channels"],
    targets: Float[np.ndarray, "recordings time outputs"],
    kinds: tuple[str, ...],
    *,
    steps: int,
    batch: int,
    window: int,
    rate: float,
    key: PRNGKeyArray,
    sparsifier: Sparsifier | None = None,
    report: Callable[[int, float], None] | None = None,
) -> Any:
    """Trains a model (time, channels) -> (time, outputs) on random windows of recordings, with Adam and a cosine to 0.

    **Arguments:** `kinds`: what each output is, `"spikes"` (logits, cross-entropy) or `"voltage"` (scaled, squared error);
    the losses of the kinds are averaged; `sparsifier`, `report`: as in `broadsheet.learn.fit`.
    """
    x, y = jnp.asarray(inputs, jnp.float32), jnp.asarray(targets, jnp.float32)
    if x.shape[1] < window:
        raise InputError(f"Recordings of {x.shape[1]} steps are shorter than the window of {window}.")

    def loss(model: Model, data: tuple, key: PRNGKeyArray) -> Array:
        xs, ys = data
        out = jax.vmap(model)(xs)
        terms = [
            optax.sigmoid_binary_cross_entropy(out[..., k], ys[..., k]).mean()
            if kind == "spikes"
            else jnp.mean((out[..., k] - ys[..., k]) ** 2)
            for k, kind in enumerate(kinds)
        ]
        return jnp.mean(jnp.stack(terms))

    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, steps)))
    fitted = fit(
        model,
        loss,
        Windows(x, y, batch, window),
        optimiser=optimiser,
        sparsifier=sparsifier,
        steps=steps,
        key=key,
        parameters=trainable(model),
        chunk=200,
        report=report,
    )
    return fitted.model


@eqx.filter_jit
def _apply(model: Model, windows: Array) -> Array:
    return jax.lax.map(model, windows)


def predict_recordings(
    model: Any, inputs: Float[np.ndarray, "recordings time channels"], window: int = 1000
) -> Float[np.ndarray, "recordings time outputs"]:
    """Outputs for whole recordings, in windows that overlap by the burn-in; each begins from the zero state."""
    recordings, time, channels = inputs.shape
    fresh = max(1, window - BURN_IN)
    starts = np.arange(0, time, fresh)
    padded = np.zeros((recordings, BURN_IN + fresh * len(starts), channels), np.float32)
    padded[:, BURN_IN : BURN_IN + time] = inputs
    windows = np.stack([padded[:, t : t + BURN_IN + fresh] for t in starts], axis=1)
    out = _apply(model, jnp.asarray(windows.reshape(-1, BURN_IN + fresh, channels)))[:, BURN_IN:]
    return np.asarray(out).reshape(recordings, -1, out.shape[-1])[:, :time]


def spike_scores(truth: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """AUC over all time bins, and the true-positive rate at 1 % false positives (AUC is dominated by silence)."""
    false, true, _ = roc_curve(truth.ravel(), logits.ravel())
    return {
        "auc": float(roc_auc_score(truth.ravel(), logits.ravel())),
        "tp_at_1_percent": float(np.interp(0.01, false, true)),
    }


def voltage_scores(truth: np.ndarray, scaled: np.ndarray) -> dict[str, float]:
    """Root mean squared error (mV) and explained variance of the clipped soma voltage."""
    clipped = np.minimum(truth, CLIP).ravel()
    predicted = (scaled / SCALE + OFFSET).ravel()
    return {
        "rmse_mv": float(np.sqrt(np.mean((clipped - predicted) ** 2))),
        "explained_variance": float(r2_score(clipped, predicted)),
    }


class ELMNeuron(BaseEstimator):
    """An ELM neuron fitted to recordings of a neuron.

    `X`: (recordings, time, channels) or (time, channels) input spikes, inhibitory ones -1. `y`: (recordings, time, targets)
    or (time, targets), in the order of `targets`: spikes as 0 and 1, voltage in mV.

    **Parameters:** those of `ELMCell` by the same names (`d_tree=None` is the plain ELM); `targets`; `steps`, `batch`,
    `window`, `learning_rate`: training; `random_state`: integer.

    **Attributes:** `cell_`, `n_parameters_`, `n_features_in_`.
    """

    def __init__(
        self,
        d_m: int = 20,
        *,
        targets: tuple[str, ...] = ("spikes", "voltage"),
        d_tree: int | None = None,
        d_brch: int = 1,
        routing: Literal["neighbour", "random"] | None = None,
        tau_m: tuple[float, float] = (1.0, 150.0),
        variant: Literal["v1", "v2"] = "v1",
        mlp_layers: int = 1,
        dt: float = 1.0,
        steps: int = 1500,
        batch: int = 8,
        window: int = 300,
        learning_rate: float = 3e-3,
        random_state: int = 0,
        report: Callable[[int, float], None] | None = None,
    ) -> None:
        self.d_m = d_m
        self.targets = targets
        self.d_tree = d_tree
        self.d_brch = d_brch
        self.routing = routing
        self.tau_m = tau_m
        self.variant = variant
        self.mlp_layers = mlp_layers
        self.dt = dt
        self.steps = steps
        self.batch = batch
        self.window = window
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.report = report

    def fit(self, X: Any, y: Any) -> ELMNeuron:
        """Trains the cell on random windows."""
        X, y = self._check(X), np.asarray(y, np.float32)
        y = y[None] if y.ndim == 2 else y
        if y.shape != (*X.shape[:2], len(self.targets)):
            raise InputError(f"y has the shape {y.shape}; {(*X.shape[:2], len(self.targets))} is wanted for {self.targets}.")
        y = y.copy()
        for k, kind in enumerate(self.targets):
            if kind == "voltage":
                y[..., k] = scale_voltage(y[..., k])
            elif kind != "spikes":
                raise InputError(f"targets holds {kind!r}; spikes and voltage are possible.")
            elif not np.isin(y[..., k], (0, 1)).all():
                raise InputError("Output spikes must be 0 or 1 in each time bin.")
        self.n_features_in_ = X.shape[2]
        cell_key, fit_key = jax.random.split(jax.random.key(self.random_state))
        cell = ELMCell(
            X.shape[2], len(self.targets), self.d_m, tau_m=self.tau_m, d_tree=self.d_tree, d_brch=self.d_brch,
            routing=self.routing, variant=self.variant, mlp_layers=self.mlp_layers, dt=self.dt, key=cell_key,
        )  # fmt: skip
        self.cell_ = fit_recordings(
            cell, X, y, tuple(self.targets), steps=self.steps, batch=self.batch, window=min(self.window, X.shape[1]),
            rate=self.learning_rate, key=fit_key, report=self.report,
        )  # fmt: skip
        self.n_parameters_ = count_params(cell)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Spike probability in each bin, and voltage in mV: the shape of `y`."""
        out = self.decision_function(X).astype(np.float64)
        for k, kind in enumerate(self.targets):
            out[..., k] = 1 / (1 + np.exp(-out[..., k])) if kind == "spikes" else out[..., k] / SCALE + OFFSET
        return out

    def decision_function(self, X: Any) -> np.ndarray:
        """The cell's raw outputs: logits of spikes, scaled voltage."""
        check_is_fitted(self, "cell_")
        checked = self._check(X)
        out = predict_recordings(self.cell_, checked)
        return out[0] if np.ndim(X) == 2 else out

    def scores(self, X: Any, y: Any) -> dict[str, float]:
        """All scores of the targets: AUC and true positives at 1 % false ones; RMSE (mV) and explained variance."""
        out, y = self.decision_function(X), np.asarray(y)
        found: dict[str, float] = {}
        for k, kind in enumerate(self.targets):
            found |= (spike_scores if kind == "spikes" else voltage_scores)(y[..., k], out[..., k])
        return found

    def score(self, X: Any, y: Any) -> float:
        """AUC of the spikes where they are a target, else the explained variance of the voltage."""
        found = self.scores(X, y)
        return found.get("auc", found.get("explained_variance", np.nan))

    def _check(self, X: Any) -> np.ndarray:
        X = np.asarray(X, np.float32)
        X = X[None] if X.ndim == 2 else X
        if X.ndim != 3:
            raise InputError(f"X has the shape {X.shape}; (recordings, time, channels) is wanted.")
        if not np.isfinite(X).all():
            raise InputError("X holds NaN or infinity.")
        fitted = getattr(self, "n_features_in_", X.shape[2])
        if X.shape[2] != fitted:
            raise InputError(f"X has {X.shape[2]} channels; the neuron was fitted to {fitted}.")
        return X
