"""When to stop: exit of each sample as soon as a calibrated confidence passes a threshold (arXiv 2303.10276)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError

Signal = Literal["maxprob", "margin", "entropy"]
Choice = Literal["steady", "fastest"]
NEVER = 1.0
"""The threshold where none keeps the accuracy: no confidence is above it, and every sample stays to the last step."""
THRESHOLDS = np.concatenate([np.arange(0.11, 0.99, 0.01), [0.99, 0.995, 0.999]])
"""Grid from which a threshold is chosen."""


class Point(NamedTuple):
    """A threshold with what it gives: mean step of exit and accuracy."""

    threshold: float
    steps: float
    accuracy: float


class DynamicConfidence(BaseEstimator):
    """Exit policy of a converted spiking network, fitted to its summed read-out on calibration data.

    Confidence is the largest probability of `softmax(O(t) / alpha)`, O(t) being the read-out summed (not averaged) up to
    step t; a sample exits at the first step whose confidence is above the threshold, at the last step otherwise.

    **Parameters:**

    - `alpha`: temperature; None fits it by the likelihood of the labels at the last step.
    - `threshold`: None chooses one by `choice`; 1, at which no sample leaves early, where none does what is asked.
    - `signal`: `"maxprob"`, `"margin"` (largest less second largest probability) or `"entropy"` (one minus it, over the
      largest possible).
    - `tolerance`: accuracy, as a share, that may be lost on the calibration data.
    - `choice`: `"steady"`, the smallest threshold from which on every one keeps the last step's accuracy but for `tolerance`;
      or `"fastest"`, the paper's own, the fastest point of the Pareto front that does so by itself, often a chance of few
      samples.

    **Attributes:** `alpha_`, `threshold_`, `front_` (threshold, mean step, accuracy of each point of the Pareto front).
    """

    def __init__(
        self, alpha: float | None = None, threshold: float | None = None, *, signal: Signal = "maxprob", tolerance: float = 0.0,
        choice: Choice = "steady",
    ) -> None:  # fmt: skip
        self.alpha = alpha
        self.threshold = threshold
        self.signal = signal
        self.tolerance = tolerance
        self.choice = choice

    def fit(self, logits: Any, y: Any) -> DynamicConfidence:
        """Fits temperature and threshold to the summed read-out (samples, time, classes) and labels (samples,)."""
        logits, y = _checked(logits, y)
        if self.signal not in get_args(Signal):
            raise InputError(f"signal = {self.signal!r}; one of {', '.join(get_args(Signal))} is wanted.")
        if self.choice not in get_args(Choice):
            raise InputError(f"choice = {self.choice!r}; one of {', '.join(get_args(Choice))} is wanted.")
        if self.alpha is not None and not self.alpha > 0:
            raise InputError(f"alpha = {self.alpha}; a temperature above 0 is wanted.")
        self.alpha_ = fit_temperature(logits[:, -1], y) if self.alpha is None else float(self.alpha)
        self.front_ = self.pareto(logits, y)
        if self.threshold is not None:
            self.threshold_ = float(self.threshold)
        else:
            self.threshold_ = self._chosen(logits, y)
        return self

    def _chosen(self, logits: np.ndarray, y: np.ndarray) -> float:
        wanted = (logits[:, -1].argmax(axis=1) == y).mean() - self.tolerance - 1e-12
        if self.choice == "fastest":
            return next((float(threshold) for threshold, _, accuracy in self.front_ if accuracy >= wanted), NEVER)
        lost = [point.threshold for point in self.sweep(logits, y) if point.accuracy < wanted]
        higher = THRESHOLDS[max(lost, default=0.0) < THRESHOLDS]
        return float(higher[0]) if len(higher) else NEVER

    def confidence(self, logits: Float[np.ndarray, "samples time classes"]) -> Float[np.ndarray, "samples time"]:
        """Confidence at each step, from 0 to 1."""
        check_is_fitted(self, "alpha_")
        return np.asarray(_confidence(jnp.asarray(logits), self.alpha_, self.signal))

    def leaves(self, total: Float[Array, "batch classes"]) -> Array:
        """Whether samples exit at a step with this summed read-out: what `run_dynamic` asks."""
        check_is_fitted(self, "threshold_")
        return _confidence(total[:, None], self.alpha_, self.signal)[:, 0] > self.threshold_

    def exit_times(
        self, logits: Float[np.ndarray, "samples time classes"], threshold: float | None = None
    ) -> Int[np.ndarray, " samples"]:
        """Step of the exit, counted from 1."""
        passed = self.confidence(logits) > (self.threshold_ if threshold is None else threshold)
        return np.where(passed.any(axis=1), passed.argmax(axis=1) + 1, logits.shape[1])

    def predict(self, logits: Float[np.ndarray, "samples time classes"]) -> Int[np.ndarray, " samples"]:
        """The answer at the exit."""
        return answers_at(logits, self.exit_times(logits))

    def score(self, logits: Any, y: Any) -> float:
        """Accuracy at the exit."""
        return float((self.predict(logits) == np.asarray(y)).mean())

    def pareto(self, logits: Any, y: Any) -> Float[np.ndarray, "points 3"]:
        """Thresholds that no other beats in both mean step and accuracy, fastest first: (threshold, mean step, accuracy)."""
        points = self.sweep(logits, y)
        kept: list[Point] = []
        for point in sorted(points, key=lambda p: (p.steps, -p.accuracy, p.threshold)):
            if not kept or point.accuracy > kept[-1].accuracy:
                kept.append(point)
        return np.array(kept)

    def sweep(self, logits: Any, y: Any) -> list[Point]:
        """What each threshold of the grid gives."""
        logits, y = _checked(logits, y)
        confidence = self.confidence(logits)
        right = logits.argmax(axis=2) == y[:, None]
        points = []
        for threshold in THRESHOLDS:
            passed = confidence > threshold
            exits = np.where(passed.any(axis=1), passed.argmax(axis=1), logits.shape[1] - 1)
            points.append(Point(float(threshold), float(exits.mean() + 1), float(right[np.arange(len(y)), exits].mean())))
        return points

    @staticmethod
    def oracle(logits: Any, y: Any) -> tuple[Int[np.ndarray, " samples"], float]:
        """(first right step of each sample, the last where there is none; share with any right step): a bound, no method."""
        logits, y = _checked(logits, y)
        right = logits.argmax(axis=2) == y[:, None]
        return np.where(right.any(axis=1), right.argmax(axis=1) + 1, logits.shape[1]), float(right.any(axis=1).mean())


def answers_at(logits: Float[np.ndarray, "samples time classes"], steps: Int[np.ndarray, " samples"]) -> np.ndarray:
    """Answers of each sample at a step of its own, counted from 1."""
    return np.asarray(logits)[np.arange(len(logits)), np.asarray(steps) - 1].argmax(axis=1)


def _confidence(logits: Array, alpha: float, signal: Signal) -> Array:
    p = jax.nn.softmax(logits / alpha, axis=-1)
    if signal == "maxprob":
        return p.max(axis=-1)
    if signal == "margin":
        top = jax.lax.top_k(p, 2)[0]
        return top[..., 0] - top[..., 1]
    return 1 + jnp.sum(p * jnp.log(jnp.maximum(p, 1e-30)), axis=-1) / np.log(p.shape[-1])


def fit_temperature(logits: Float[np.ndarray, "samples classes"], y: Int[np.ndarray, " samples"]) -> float:
    """The temperature that makes the labels likeliest."""
    logits, y = np.asarray(logits, float), np.asarray(y)

    def surprise(log_alpha: float) -> float:
        return -float(log_softmax(logits / np.exp(log_alpha), axis=1)[np.arange(len(y)), y].mean())

    return float(np.exp(minimize_scalar(surprise, bounds=(-4.0, 8.0), method="bounded").x))


def calibration_error(
    confidence: Float[np.ndarray, " samples"], right: Any, bins: int = 10
) -> tuple[float, Float[np.ndarray, "bins 3"]]:
    """(ECE, of each bin of equal width: mean confidence, accuracy and share of samples; NaN where empty)."""
    confidence, right = np.asarray(confidence, float), np.asarray(right, float)
    which = np.clip((confidence * bins).astype(int), 0, bins - 1)
    table = np.full((bins, 3), np.nan)
    for k in range(bins):
        inside = which == k
        table[k, 2] = inside.mean()
        if inside.any():
            table[k, :2] = confidence[inside].mean(), right[inside].mean()
    return float(np.nansum(table[:, 2] * np.abs(table[:, 0] - table[:, 1]))), table


def _checked(logits: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    logits, y = np.asarray(logits), np.asarray(y)
    if logits.ndim != 3 or y.shape != logits.shape[:1]:
        raise InputError(f"logits are {logits.shape} and y {y.shape}; (samples, time, classes) and (samples,) are wanted.")
    if not np.isfinite(logits).all():
        raise InputError("logits hold NaN or infinity.")
    return logits, y
