"""What a worm's neurons do one sample later: baselines over recordings that lack neurons.

All take what `sequences` takes, (bins, neurons), (worms, bins, neurons) or a list, with NaN in columns of neurons that a worm
lacks (`Recording.masked`) and in bins that are missing. Errors are over what was seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.learn import fit
from broadsheet.recordings.sequences import sequences

BATCH = 4_000_000
"""Numbers of the matrices that are solved together."""


class _Forecaster(RegressorMixin, ABC):
    """What all forecasters share: `predict` gives each bin's forecast from those before it, `score` one less the ratio of the
    squared error to persistence's."""

    def _first(self) -> int:
        """The first bin that is forecast."""
        return 1

    @abstractmethod
    def _forecast(self, seen: np.ndarray) -> np.ndarray:
        """Forecasts of the bins from the first on, of a sequence (bins, neurons) with 0 for what is missing."""

    def predict(self, X: Any) -> Any:
        """Forecasts in the shape of X: bin t from bins before t. The first bins repeat what is there; NaN for neurons that a
        worm lacks."""
        check_is_fitted(self, "n_features_in_")
        parts = _checked(X, self._first() + 1, self.n_features_in_)
        out = []
        for part in parts:
            lacking = np.isnan(part).all(0)
            made = np.where(np.isnan(part), 0.0, part)
            made[self._first() :] = self._forecast(made)
            made[:, lacking] = np.nan
            out.append(made)
        return out if isinstance(X, (list, tuple)) else out[0] if np.asarray(X).ndim == 2 else np.stack(out)

    def errors(self, X: Any) -> Float[np.ndarray, " worms"]:
        """Each sequence's mean squared error over what was seen, from the first bin on that all forecasters forecast."""
        parts = _checked(X, self._first() + 1, self.n_features_in_)
        return np.array([np.nanmean((self.predict(part)[self._first() :] - part[self._first() :]) ** 2) for part in parts])

    def score(self, X: Any, y: None = None) -> float:
        """1 - (squared error / persistence's), over all sequences: 0 is as good as repeating the last bin."""
        parts = _checked(X, self._first() + 1, getattr(self, "n_features_in_", None))
        return float(1 - self.errors(parts).mean() / persistence_errors(parts, self._first()).mean())


def persistence_errors(X: Any, first: int = 1) -> Float[np.ndarray, " worms"]:
    """Each sequence's mean squared error of repeating the last bin, from bin `first` on."""
    parts = _checked(X, first + 1)
    return np.array([np.nanmean((part[first - 1 : -1] - part[first:]) ** 2) for part in parts])


class RidgeVAR(_Forecaster, BaseEstimator):
    """Each neuron's next sample as a linear function of samples before, by ridge regression.

    **Arguments:**

    - `lags`: bins looked back; `ridge`: penalty of squared weights.
    - `support`: which inputs a target may use besides its own past: `"all"`; `"self"`, none (an autoregression of each neuron);
      (neurons, neurons), row = input, column = target; or `"correlated"`, those that go best with the target's next change in
      the data fitted to, as many as `inputs` says, a number or one a target.

    Fitted: `coef_` (lags, inputs, targets), `intercept_` (targets,), `n_features_in_`. A target that no worm has repeats its
    last bin.
    """

    def __init__(self, lags: int = 1, ridge: float = 10.0, support: Any = "all", inputs: Any = 10):
        self.lags = lags
        self.ridge = ridge
        self.support = support
        self.inputs = inputs

    def _first(self) -> int:
        return self.lags

    def fit(self, X: Any, y: None = None) -> RidgeVAR:
        if not (isinstance(self.lags, (int, np.integer)) and self.lags >= 1):
            raise InputError(f"lags={self.lags!r}; a whole number from 1 on is wanted.")
        if not self.ridge >= 0:
            raise InputError(f"ridge={self.ridge!r}; a number from 0 on is wanted.")
        return self._fit_moments([_Moments.of(part, self.lags) for part in _checked(X, self.lags + 1)])

    def _fit_moments(self, moments: Sequence[_Moments]) -> RidgeVAR:
        size = len(moments[0].seen)
        self.coef_ = np.zeros((self.lags, size, size))
        self.coef_[0] = np.eye(size)
        self.intercept_ = np.zeros(size)
        self.n_features_in_ = size
        support = self._allowed(moments, size)
        seen = np.array([each.seen for each in moments])  # (worms, neurons)
        alike: dict[bytes, list[int]] = {}  # targets that the same worms have
        for target in np.flatnonzero(seen.any(0)).tolist():
            alike.setdefault(seen[:, target].tobytes(), []).append(target)
        for targets in alike.values():
            worms = [each for each, has in zip(moments, seen[:, targets[0]], strict=True) if has]
            gram, cross = worms[0].gram, worms[0].cross
            for each in worms[1:]:
                gram, cross = gram + each.gram, cross + each.cross
            self._solve(gram, cross, support, np.array(targets))
        return self

    def _allowed(self, moments: Sequence[_Moments], size: int) -> np.ndarray:
        if isinstance(self.support, str):
            if self.support == "correlated":
                return _correlated(moments, np.broadcast_to(self.inputs, (size,))) | np.eye(size, dtype=bool)
            if self.support not in ("all", "self"):
                raise InputError(f"support={self.support!r}; all, self, correlated or an array (neurons, neurons) is wanted.")
            return np.ones((size, size), bool) if self.support == "all" else np.eye(size, dtype=bool)
        support = np.asarray(self.support)
        if support.shape != (size, size):
            raise InputError(f"support is {support.shape}; ({size}, {size}), inputs in rows, is wanted.")
        return (support != 0) | np.eye(size, dtype=bool)

    def _solve(self, gram: np.ndarray, cross: np.ndarray, support: np.ndarray, targets: np.ndarray) -> None:
        """Targets of as many inputs are solved together; those that may use all share one matrix."""
        size = self.n_features_in_
        counts = support[:, targets].sum(0)
        for count in np.unique(counts):
            group = targets[counts == count]
            share = len(group) if count == size else max(1, BATCH // (int(count) * self.lags + 1) ** 2)
            for first in range(0, len(group), share):
                some = group[first : first + share]
                inputs = np.nonzero(support[:, some[:1] if count == size else some].T)[1].reshape(-1, count)
                lagged = inputs[:, None] + size * np.arange(self.lags)[:, None]
                columns = np.concatenate([lagged.reshape(len(inputs), -1), np.full((len(inputs), 1), self.lags * size)], 1)
                matrix = gram[columns[:, :, None], columns[:, None, :]]
                penalised = np.arange(columns.shape[1] - 1)  # the constant is not
                matrix[:, penalised, penalised] += self.ridge
                right = cross[columns[0]][:, some][None] if count == size else cross[columns, some[:, None]][..., None]
                try:
                    weights = np.linalg.solve(matrix, right)
                except np.linalg.LinAlgError:  # without a penalty, inputs that are silent or alike
                    weights = np.linalg.pinv(matrix) @ right
                weights = weights[0].T if count == size else weights[..., 0]  # (targets, lags and inputs, then the constant)
                if count == size:
                    self.coef_[:, :, some] = weights[:, :-1].reshape(len(some), self.lags, size).transpose(1, 2, 0)
                    self.intercept_[some] = weights[:, -1]
                    continue
                self.coef_[:, :, some] = 0.0
                for target, used, found in zip(some, inputs, weights, strict=True):
                    self.coef_[:, used, target] = found[:-1].reshape(self.lags, count)
                self.intercept_[some] = weights[:, -1]

    def _forecast(self, seen: np.ndarray) -> np.ndarray:
        count = len(seen) - self.lags
        return self.intercept_ + sum(seen[self.lags - 1 - k :][:count] @ self.coef_[k] for k in range(self.lags))


@dataclass(frozen=True)
class _Moments:
    """Second moments of one sequence: inputs (all lags, newest first, then a constant) with inputs and with targets."""

    gram: np.ndarray
    cross: np.ndarray
    seen: np.ndarray

    @classmethod
    def of(cls, part: np.ndarray, lags: int) -> _Moments:
        missing = np.isnan(part)
        if missing.any():
            seen = ~missing.all(0)
            whole = ~missing[:, seen].any(1)
            rows = np.flatnonzero(np.logical_and.reduce([whole[k : len(part) - lags + k] for k in range(lags + 1)]))
            part = np.where(missing, 0.0, part)
        else:
            seen, rows = np.ones(part.shape[1], bool), np.arange(len(part) - lags)
        inputs = np.concatenate([part[rows + lags - 1 - k] for k in range(lags)] + [np.ones((len(rows), 1))], 1)
        return cls(inputs.T @ inputs, inputs.T @ part[rows + lags], seen & (len(rows) > 0))


def _correlated(moments: Sequence[_Moments], counts: np.ndarray) -> np.ndarray:
    """(inputs, targets): for each target the inputs whose newest sample correlates best with what its own last sample leaves of
    the next one. Worms that lack a cell say nothing about it."""
    size = len(moments[0].seen)
    total, weight = np.zeros((size, size)), 0.0
    for each in moments:
        gram, cross = each.gram[:size, :size], each.cross[:size]
        power = np.maximum(gram.diagonal(), 1e-300)
        own = cross.diagonal() / power  # each target's slope on itself
        left = cross - gram * own  # of inputs with what is left of targets
        total += left / np.sqrt(power)[:, None] / np.sqrt(power)
        weight += 1.0
    strength = np.abs(total) / max(weight, 1.0)
    np.fill_diagonal(strength, 0.0)
    support = np.zeros((size, size), bool)
    for target, count in enumerate(np.asarray(counts, int)):
        best = np.argsort(-strength[:, target], kind="stable")[: max(count, 0)]
        support[best[strength[best, target] > 0], target] = True
    return support


class _Recurrent(eqx.Module):
    """A gated recurrent unit whose output is added to the last sample."""

    cell: eqx.nn.GRUCell
    out: eqx.nn.Linear

    def __init__(self, neurons: int, hidden: int, key: Array):
        first, second = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(neurons, hidden, key=first)
        out = eqx.nn.Linear(hidden, neurons, key=second)
        self.out = eqx.tree_at(lambda layer: (layer.weight, layer.bias), out, (0.1 * out.weight, jnp.zeros(neurons)))

    def __call__(self, x: Float[Array, "bins neurons"]) -> Float[Array, "bins neurons"]:
        def step(h: Array, now: Array) -> tuple[Array, Array]:
            h = self.cell(now, h)
            return h, now + self.out(h)

        return jax.lax.scan(step, jnp.zeros(self.cell.hidden_size), x)[1]


class _Windows(eqx.Module):
    """Random stretches of random worms."""

    x: Array  # (worms, bins, neurons), zeros where unseen
    seen: Array
    length: Array  # (worms,) bins
    batch: int
    window: int

    def __call__(self, key: Array) -> tuple[Array, Array]:
        first, second = jax.random.split(key)
        worm = jax.random.randint(first, (self.batch,), 0, len(self.x))
        start = jax.random.uniform(second, (self.batch,)) * (self.length[worm] - self.window)

        def cut(w: Array, s: Array) -> tuple[Array, Array]:
            size = (1, self.window + 1, self.x.shape[2])
            at = (w, s.astype(int), 0)
            return jax.lax.dynamic_slice(self.x, at, size)[0], jax.lax.dynamic_slice(self.seen, at, size)[0]

        return jax.vmap(cut)(worm, start)


class _MaskedError(eqx.Module):
    def __call__(self, model: _Recurrent, batch: tuple[Array, Array], key: Any) -> Array:
        x, seen = batch
        wrong = jnp.where(seen[:, 1:], jax.vmap(model)(x[:, :-1]) - x[:, 1:], 0.0)
        return (wrong**2).sum() / seen[:, 1:].sum()


class GRUForecaster(_Forecaster, BaseEstimator):
    """A gated recurrent unit over the neurons (zeros where a worm lacks one) that forecasts the change to the next sample.

    **Arguments:** `hidden`: units; `steps`, `batch`, `window`, `rate`: of the training by Adam on random stretches; `seed`.
    Fitted: `model_`, `losses_`, `n_features_in_`.
    """

    def __init__(
        self, hidden: int = 64, steps: int = 300, batch: int = 8, window: int = 100, rate: float = 3e-3, seed: int = 0
    ):
        self.hidden = hidden
        self.steps = steps
        self.batch = batch
        self.window = window
        self.rate = rate
        self.seed = seed

    def fit(self, X: Any, y: None = None) -> GRUForecaster:
        if min(self.hidden, self.steps, self.batch, self.window) < 1 or not self.rate > 0:
            raise InputError("hidden, steps, batch and window are whole numbers from 1 on, rate is above 0.")
        parts = _checked(X, 2)
        window = min(self.window, min(map(len, parts)) - 1)
        longest = max(map(len, parts))
        padded = np.stack([np.pad(part, ((0, longest - len(part)), (0, 0)), constant_values=np.nan) for part in parts])
        data = _Windows(jnp.asarray(np.nan_to_num(padded), jnp.float32), jnp.asarray(~np.isnan(padded)),
                        jnp.asarray([len(part) for part in parts]), self.batch, window)  # fmt: skip
        first, second = jax.random.split(jax.random.key(self.seed))
        model = _Recurrent(padded.shape[2], self.hidden, first)
        made = fit(model, _MaskedError(), data, optimiser=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(self.rate)),
                   steps=self.steps, key=second)  # fmt: skip
        self.model_, self.losses_ = (
            jax.tree.map(lambda leaf: np.asarray(leaf) if eqx.is_array(leaf) else leaf, made.model),
            made.losses,
        )
        self.n_features_in_ = padded.shape[2]
        return self

    def _forecast(self, seen: np.ndarray) -> np.ndarray:
        return np.asarray(_run(self.model_, jnp.asarray(seen[:-1], jnp.float32)), float)


@eqx.filter_jit
def _run(model: _Recurrent, x: Array) -> Array:
    return model(x)


def split(
    X: Sequence[np.ndarray], by: str = "time", share: float = 0.25, rng: Any = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Training and test parts: the last `share` of each recording's time, or a `share` of the worms (the last ones, or at
    random with a generator). Windows are not split at random: neighbours would stand on both sides."""
    parts = _checked(X, 4)
    if not 0 < share < 1:
        raise InputError(f"A share of {share} for the test; a number between 0 and 1 is wanted.")
    if by == "time":
        cuts = [min(max(int(len(part) * (1 - share)), 2), len(part) - 2) for part in parts]
        return [part[:c] for part, c in zip(parts, cuts, strict=True)], [part[c:] for part, c in zip(parts, cuts, strict=True)]
    if by != "worm":
        raise InputError(f"by={by!r}; time or worm is wanted.")
    if len(parts) < 2:
        raise InputError("One worm cannot be split by worm; two or more are wanted.")
    order = np.arange(len(parts)) if rng is None else rng.permutation(len(parts))
    held = set(order[len(parts) - min(max(round(share * len(parts)), 1), len(parts) - 1) :].tolist())
    return [part for k, part in enumerate(parts) if k not in held], [part for k, part in enumerate(parts) if k in held]


def across_worms(
    models: dict[str, _Forecaster], X: Sequence[np.ndarray], folds: int | None = None
) -> dict[str, Float[np.ndarray, " worms"]]:
    """Each model's error on each worm over persistence's, fitted to worms of other folds; by default each worm is a fold."""
    parts = _checked(X, 3)
    folds = len(parts) if folds is None else min(folds, len(parts))
    if folds < 2:
        raise InputError(f"{len(parts)} worms in {folds} folds; two or more of each are wanted.")
    fold = np.arange(len(parts)) % folds
    base, out = persistence_errors(parts), {}
    moments: dict[int, list[_Moments]] = {}
    for name, model in models.items():
        found = np.zeros(len(parts))
        for k in range(folds):
            fresh, rest, held = clone(model), np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            if isinstance(fresh, RidgeVAR):  # a worm's moments serve all models and folds
                if fresh.lags not in moments:
                    moments[fresh.lags] = [_Moments.of(part, fresh.lags) for part in parts]
                fresh._fit_moments([moments[fresh.lags][w] for w in rest])
            else:
                fresh.fit([parts[w] for w in rest])
            found[held] = fresh.errors([parts[w] for w in held])
        out[name] = found / base
    return out


def _checked(X: Any, shortest: int, size: int | None = None) -> list[np.ndarray]:
    parts = sequences(X, what="traces", missing=True, shortest=shortest)
    if size is not None and parts[0].shape[1] != size:
        raise InputError(f"The traces have {parts[0].shape[1]} neurons; the model was fitted to {size}.")
    return parts
