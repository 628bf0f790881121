"""A hidden Markov chain whose states are coupled Poisson GLMs, as a scikit-learn estimator.

Spikes come from a circuit whose couplings change with a hidden state. Couplings are free in each state, scatter around a mean
that states share (Gaussian), or are a type times a strength with a prior of types that states share (one-hot). arXiv
2310.15263.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.recordings import switching_steps as steps_of
from broadsheet.recordings.sequences import sequences
from broadsheet.recordings.switching_em import EXACT, Blocks, Link, Penalty, blocks_of
from broadsheet.recordings.switching_onehot import OneHot, Prior, onehot_from
from broadsheet.recordings.switching_tasks import Switching, exponential_filter, sticky

Weights = Literal["free", "gaussian", "onehot"]


class HMMGLM(DensityMixin, BaseEstimator):
    """Switching Poisson GLM of spike counts X: (bins, neurons), (trials, bins, neurons), or a list of arrays of unequal
    length; NaN where a count is missing.

    **Parameters:**

    - `n_states`.
    - `weights`: `"free"`; `"gaussian"`: scattered around a mean that states share; `"onehot"`: type times strength.
    - `link`: from drive to spikes a bin: `"softplus"`, `"exp"`, or `"sigmoid"` (rates below 1).
    - `share_bias`: one bias a neuron for all states.
    - `history`: number of bins (their weights fall as exp(-k)), or the weights, that of the last bin first.
    - `penalty`: precision of a Gaussian prior of free couplings around 0; `lasso`: rate of a Laplace prior; biases have none.
    - `spread`: standard deviation of Gaussian couplings around their mean.
    - `tau`: temperature of the one-hot types; `noise`: whether their likelihood is learned from noisy types, as the paper does;
      `prior`: `"categorical"` or `"concrete"` (the density, which has no bound at the corners); `share_prior`: one prior for
      all states; `rounds`, `steps`, `rate`: rounds of EM, gradient steps in each, and Adam's rate, after a fit of free
      couplings.
    - `restarts`: fits from random starts, of which the one with the best objective stays; `warm_start`: begin where the last
      fit ended instead; `max_iter`, `tol`: EM stops where an iteration gains less than `tol` nats a bin.
    - `pseudocount`: of each transition.
    - `random_state`: integer, RandomState or None.

    Couplings of a neuron with its own history are fitted as the others are. The first state of a sequence is uniform.

    **Attributes:** `weights_` (states, targets, sources); `biases_` (states, neurons); `transition_` (states, states);
    `history_`: objective of each iteration (log-likelihood plus log-priors, types without noise); `restarts_`: objective that
    each restart reached; `converged_`; `n_iter_`; `filter_`; `n_features_in_`; Gaussian: `mean_weights_`; one-hot: `types_`
    (-1, 0, 1), `strengths_`, `prior_probs_` (targets, sources, 3), or (states, …) where the prior is not shared.
    """

    def __init__(
        self, n_states: int = 3, *, weights: Weights = "free", link: Link = "softplus", share_bias: bool = True,
        history: int | Sequence[float] = 5, penalty: float = 0.0, lasso: float = 0.0, spread: float = 1 / 3, tau: float = 0.5,
        noise: bool = True, prior: Prior = "categorical", share_prior: bool = True, rounds: int = 20, steps: int = 15,
        rate: float = 0.06, restarts: int = 3, warm_start: bool = False, max_iter: int = 100, tol: float = 1e-5,
        pseudocount: float = 0.1, random_state: int | np.random.RandomState | None = None,
    ) -> None:  # fmt: skip
        self.n_states = n_states
        self.weights = weights
        self.link = link
        self.share_bias = share_bias
        self.history = history
        self.penalty = penalty
        self.lasso = lasso
        self.spread = spread
        self.tau = tau
        self.noise = noise
        self.prior = prior
        self.share_prior = share_prior
        self.rounds = rounds
        self.steps = steps
        self.rate = rate
        self.restarts = restarts
        self.warm_start = warm_start
        self.max_iter = max_iter
        self.tol = tol
        self.pseudocount = pseudocount
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        start: HMMGLM | None = None,
        report: Callable[[float, float], None] | None = None,
        checkpoint: str | Path | None = None,
    ) -> HMMGLM:
        """Fits by expectation maximisation over all sequences.

        **Arguments:** `start`: a fitted model of as many states and neurons, from whose couplings this fit begins, in place of
        random ones; `report(share, objective)`: called after each iteration; `checkpoint`: a folder where the state of the
        fit is kept, so that the same fit goes on from there after an interruption.
        """
        self._check_parameters()
        parts = counts_of(X)
        filter_ = self._filter()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        bins = sum(map(len, parts))
        with jax.enable_x64(True):
            data = blocks_of(parts, filter_)
            begin = start if start is not None else self if self.warm_start and hasattr(self, "weights_") else None
            first = self._one_state(data, parts) if begin is None else None
            climbs = 1 if begin is not None or self.n_states == 1 else self.restarts
            whole = climbs * self.max_iter + (self.rounds if self.weights == "onehot" else 0)
            climber = steps_of.Climber(report, whole, self.tol * bins, checkpoint)
            pseudocount = jnp.asarray(float(self.pseudocount))

            def step(state: tuple, k: int) -> tuple:
                return steps_of.em_step(data, state, link=self.link, share_bias=self.share_bias, pseudocount=pseudocount)

            best: tuple[Any, list[float], bool] | None = None
            self.restarts_ = []
            for k in range(climbs):
                if begin is not None:
                    state = self._begun(data, begin, parts[0].shape[1])
                else:
                    state = self._random_start(data, first, np.random.default_rng([seed, k]))
                found = climber.climb(f"climb-{k}", step, state, self.max_iter)
                self.restarts_.append(found[1][-1])
                if best is None or found[1][-1] > best[1][-1]:
                    best = found
            assert best is not None
            (W, transition, penalty, *_), history, self.converged_ = best
            if self.weights == "onehot":
                (onehot, transition, *_), history, _ = self._types(data, climber, np.asarray(W), transition, seed)
                self._keep_types(onehot)
                W = onehot.effective()
            W, transition, mean = np.array(W), np.array(transition), np.array(penalty.mean)
        self.weights_, self.biases_, self.transition_ = W[:, :, 1:].copy(), W[:, :, 0].copy(), transition
        if self.weights == "gaussian":
            self.mean_weights_ = mean
        self.history_, self.n_iter_ = np.array(history), len(history)
        self.filter_, self.n_features_in_ = filter_, W.shape[1]
        return self

    def _one_state(self, data: Blocks, parts: Sequence[np.ndarray]) -> np.ndarray:
        """The GLM of one state, from which restarts begin."""
        neurons = parts[0].shape[1]
        seen = sum((part >= 0).sum(axis=0) for part in parts)
        mean = sum(np.maximum(part, 0).sum(axis=0, dtype=float) for part in parts) / np.maximum(seen, 1)
        mean = np.clip(mean, 1e-3, 0.99 if self.link == "sigmoid" else None)
        if self.link == "sigmoid":
            bias = np.log(mean / (1 - mean))
        else:
            bias = np.log(mean) if self.link == "exp" else np.log(np.expm1(mean))
        W = jnp.zeros((1, neurons, neurons + 1)).at[0, :, 0].set(jnp.asarray(bias))
        ones = jnp.ones((data.counts.shape[0], 1, data.shape[0]))
        penalty = self._penalty(np.zeros((neurons, neurons)), False)
        W, *_ = steps_of.fisher_steps(data, ones, W, penalty, jnp.zeros(neurons), self.link, True, 8)
        return np.asarray(W)

    def _random_start(self, data: Blocks, first: np.ndarray | None, rng: np.random.Generator) -> tuple:
        assert first is not None
        W = np.repeat(first, self.n_states, axis=0)
        if self.n_states > 1:
            jitter = rng.normal(size=W.shape) * (0.1 + W[:, :, 1:].std())
            jitter[:, :, 0] = 0.0 if self.share_bias else 0.1 * jitter[:, :, 0]
            W = W + jitter
        return self._state(data, W, sticky(self.n_states), W[:, :, 1:].mean(axis=0))

    def _begun(self, data: Blocks, other: HMMGLM, neurons: int) -> tuple:
        """Where another fit ended; raises `InputError` where it has other sizes."""
        check_is_fitted(other, "weights_")
        if other.weights_.shape[:2] != (self.n_states, neurons):
            raise InputError(
                f"The fit to begin from has {other.weights_.shape[0]} states and {other.weights_.shape[1]} neurons; "
                f"{self.n_states} and {neurons} are wanted."
            )
        W = np.concatenate([other.biases_[:, :, None], other.weights_], axis=2)
        if self.share_bias:
            W[:, :, 0] = W[:, :, 0].mean(axis=0)
        return self._state(data, W, other.transition_, getattr(other, "mean_weights_", other.weights_.mean(axis=0)))

    def _state(self, data: Blocks, W: np.ndarray, transition: np.ndarray, mean: np.ndarray) -> steps_of.State:
        """What EM carries along."""
        shared = self.weights == "gaussian"
        penalty = self._penalty(mean if shared else 0.0 * mean, shared)
        known = steps_of.emissions_of(data, jnp.asarray(W), self.link)
        return jnp.asarray(W), jnp.asarray(transition), penalty, jnp.zeros(W.shape[1]), known

    def _penalty(self, mean: np.ndarray, shared: bool) -> Penalty:
        lasso, precision = 0.0 if shared else float(self.lasso), self.spread**-2.0 if shared else float(self.penalty)
        exact = len(mean) <= EXACT or lasso > 0
        return Penalty(jnp.asarray(mean), jnp.asarray(precision), jnp.asarray(lasso), shared, exact)

    def _types(self, data: Blocks, climber: steps_of.Climber, W: np.ndarray, transition: Any, seed: int) -> tuple:
        """Rounds of EM with types and strengths, from free couplings."""
        start = onehot_from(W, self.share_bias, self.share_prior)
        numbers = {name: jnp.asarray(float(getattr(self, name))) for name in ("tau", "rate", "pseudocount")}
        noise, key = numbers["tau"] if self.noise else None, jax.random.key(seed)

        def step(state: tuple, k: int) -> tuple:
            return steps_of.onehot_step(data, state, jax.random.fold_in(key, k), link=self.link, prior=self.prior, noise=noise,
                                        steps=self.steps, **numbers)  # fmt: skip

        memory = optax.adam(self.rate).init(start)
        known = steps_of.emissions_of(data, start.effective(), self.link)
        return climber.climb("types", step, (start, transition, memory, known), self.rounds, stops=not self.noise)

    def _keep_types(self, found: OneHot) -> None:
        alpha, theta = np.asarray(found.alpha), np.asarray(jax.nn.softmax(found.theta))
        self.types_ = alpha.argmax(axis=-1) - 1
        self.type_probs_ = np.array(jax.nn.softmax(found.alpha))
        self.strengths_ = np.array(jax.nn.softplus(found.rho))
        self.prior_probs_ = theta[0].copy() if self.share_prior else theta.copy()

    def hardened(self, X: Any, *, steps: int = 200, rate: float = 0.03) -> HMMGLM:
        """A copy whose types are exactly one-hot, each at its likeliest, with strengths and biases fitted again to X along the
        states found here, by `steps` of Adam at a `rate`. It may be less likely than the model itself: look at both.

        **Raises:** `InputError` where weights are not one-hot.
        """
        check_is_fitted(self, "weights_")
        if self.weights != "onehot":
            raise InputError(f"weights are {self.weights!r}: only types of a one-hot model can be hardened.")
        parts = self._known(X)
        with jax.enable_x64(True):
            data = blocks_of(parts, self.filter_)
            W = jnp.asarray(np.concatenate([self.biases_[:, :, None], self.weights_], axis=2))
            states = steps_of.states_of(data, W, jnp.asarray(self.transition_), self.link)
            hard = np.eye(3)[self.types_ + 1]
            strength = np.maximum(self.strengths_, 1e-3)
            rho = jnp.asarray(strength + np.log(-np.expm1(-strength)))
            bias = self.biases_[:1] if self.share_bias else self.biases_
            start = OneHot(jnp.asarray(bias), jnp.asarray(10 * hard), rho, jnp.asarray(np.log(self.prior_probs_ + 1e-12)))
            found = steps_of.hard_steps(data, states, start, self.link, jnp.asarray(float(rate)), steps)
            weights = np.array(found.couplings(jnp.log(jnp.asarray(hard))))
            strengths = np.array(jax.nn.softplus(found.rho))
        out = type(self)(**self.get_params())
        out.__dict__.update(self.__dict__)
        out.weights_, out.biases_ = weights[:, :, 1:].copy(), weights[:, :, 0].copy()
        out.strengths_, out.type_probs_ = strengths, hard
        return out

    def log_prob(self, X: Any) -> Float[np.ndarray, " sequences"]:
        """Log-likelihood of each sequence, nats, each bin given those before it."""
        return self._log_prob(self._known(X))

    def _log_prob(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        with jax.enable_x64(True):
            return np.array(steps_of.log_likelihoods(blocks_of(parts, self.filter_), *self._arrays(), self.link))

    def score(self, X: Any, y: Any = None) -> float:
        """Log-likelihood a bin, nats; missing bins do not count."""
        parts = self._known(X)
        return float(self._log_prob(parts).sum() / max(1, sum(int((part >= 0).any(axis=1).sum()) for part in parts)))

    def predict(self, X: Any) -> Any:
        """The likeliest path of states of each sequence (Viterbi): (bins,), (trials, bins) or a list, as X is."""
        return self._each(X, steps_of.paths)

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the states given all of the sequence: (bins, states), (trials, bins, states) or a list, as X is."""
        return self._each(X, steps_of.probabilities)

    def filter(self, X: Any) -> Any:
        """Probabilities of the states given the sequence up to each bin, shapes as of `predict_proba`."""
        return self._each(X, steps_of.filtered_probabilities)

    def sample(self, bins: int, trials: int = 1, *, random_state: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Counts (trials, bins, neurons) and states (trials, bins) of the fitted model."""
        check_is_fitted(self, "weights_")
        rng = np.random.default_rng(random_state)
        system = Switching(self.weights_, self.biases_, self.transition_, self.filter_, self.link)
        states = system.states(bins, trials, rng)
        return system.counts(states, rng), states

    def _each(self, X: Any, f: Callable) -> Any:
        parts = self._known(X)
        with jax.enable_x64(True):
            found = np.array(f(blocks_of(parts, self.filter_), *self._arrays(), self.link))
        out = [each[: len(part)] for each, part in zip(found, parts, strict=True)]
        dims = np.ndim(X) if hasattr(X, "__array__") else 0
        return out[0] if dims == 2 else np.stack(out) if dims == 3 else out

    def _arrays(self) -> tuple[Any, Any]:
        W = np.concatenate([self.biases_[:, :, None], self.weights_], axis=2)
        return jnp.asarray(W), jnp.asarray(self.transition_)

    def _known(self, X: Any) -> list[np.ndarray]:
        check_is_fitted(self, "weights_")
        parts = counts_of(X)
        if parts[0].shape[1] != self.n_features_in_:
            raise InputError(f"The counts are of {parts[0].shape[1]} neurons; the model was fitted to {self.n_features_in_}.")
        return parts

    def _filter(self) -> np.ndarray:
        filter_ = (
            exponential_filter(int(self.history)) if isinstance(self.history, Integral) else np.asarray(self.history, float)
        )
        if filter_.ndim != 1 or not filter_.size or not np.isfinite(filter_).all():
            raise InputError(f"history = {self.history!r}; a number of bins from 1 on, or a list of their weights, is wanted.")
        return filter_

    def _check_parameters(self) -> None:
        choices = {"weights": ("free", "gaussian", "onehot"), "link": ("exp", "softplus", "sigmoid"),
                   "prior": ("categorical", "concrete")}  # fmt: skip
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name} = {getattr(self, name)!r}; {', '.join(known[:-1])} or {known[-1]} is wanted.")
        for name in ("n_states", "restarts", "max_iter", "rounds", "steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)}; 1 or more is wanted.")
        for name in ("tau", "spread", "rate", "pseudocount"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} = {getattr(self, name)}; a number above 0 is wanted.")
        for name in ("penalty", "lasso"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} = {getattr(self, name)}; 0 or more is wanted.")


def counts_of(X: Any) -> list[np.ndarray]:
    """Sequences as whole numbers of 16 bits, -1 where missing; whole numbers that come in are not copied as floats on the
    way.
    """
    raw = [X] if getattr(X, "ndim", 0) == 2 else list(X) if getattr(X, "ndim", 0) == 3 or isinstance(X, list | tuple) else X
    plain = isinstance(raw, list) and raw and all(
        isinstance(part, np.ndarray) and part.dtype.kind in "iu" and part.ndim == 2 and part.shape[1:] == raw[0].shape[1:]
        and min(part.shape) > 1 and part.min() >= 0 and part.max() < 2**15
        for part in raw
    )  # fmt: skip
    if plain:
        return [part.astype(np.int16, copy=False) for part in raw]
    parts = sequences(X, counts=True, missing=True, shortest=2)
    if max(np.nanmax(part, initial=0) for part in parts) >= 2**15:
        raise InputError("A bin holds more than 32767 spikes; smaller bins are wanted.")
    return [np.where(np.isnan(part), -1, part).astype(np.int16) for part in parts]
