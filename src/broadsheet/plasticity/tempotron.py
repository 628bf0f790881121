"""The tempotron: a neuron that learns to fire on some patterns of spikes and to keep silent on others.

Gütig and Sompolinsky (2006), doi 10.1038/nn1643.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError


def psp_kernel(t: Float[Array, "*shape"], tau: float = 15.0, tau_s: float = 3.75) -> Float[Array, "*shape"]:
    """Postsynaptic potential t ms after a spike, `V0 (exp(-t / tau) - exp(-t / tau_s))`, with its maximum at 1."""
    if not tau > tau_s > 0:
        raise InputError(f"tau = {tau} and tau_s = {tau_s} ms; tau has to be the longer one, and both above 0.")
    peak = tau * tau_s / (tau - tau_s) * np.log(tau / tau_s)
    top = np.exp(-peak / tau) - np.exp(-peak / tau_s)
    return jnp.where(t >= 0, (jnp.exp(-t / tau) - jnp.exp(-t / tau_s)) / top, 0.0)


class Tempotron(ClassifierMixin, BaseEstimator):
    """Binary classifier of spike patterns (samples, time, inputs): 1 where the voltage passes the threshold.

    On an error all weights move by `rate` times what each input contributed to the largest voltage, up if the neuron should
    have fired, down if not. Learning ends early when no pattern is wrong.

    **Parameters:** `tau`, `tau_s`: ms; `threshold`; `rate`; `epochs`; `momentum`; `dt`: ms a bin; `random_state`: integer.

    **Attributes:** `coef_` (inputs,); `errors_`: wrong patterns of each epoch; `classes_`.
    """

    def __init__(
        self, tau: float = 15.0, tau_s: float = 3.75, *, threshold: float = 1.0, rate: float = 0.02, epochs: int = 100,
        momentum: float = 0.0, dt: float = 1.0, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.tau = tau
        self.tau_s = tau_s
        self.threshold = threshold
        self.rate = rate
        self.epochs = epochs
        self.momentum = momentum
        self.dt = dt
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Tempotron:
        """Learns patterns; `y` has two classes, of which the second one (in order) is the one to fire on."""
        traces = self._traces(X)
        self.classes_, target = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) != 2 or target.shape != (len(traces),):
            raise InputError(f"y has {len(self.classes_)} classes for {len(traces)} patterns; two, one label each, are wanted.")
        rng = np.random.default_rng(self.random_state)
        weights = jnp.asarray(rng.normal(0, 0.01, traces.shape[2]), jnp.float32)
        velocity = jnp.zeros_like(weights)
        self.errors_: list[int] = []
        for _ in range(self.epochs):
            order = jnp.asarray(rng.permutation(len(traces)))
            (weights, velocity), wrong = _epoch(
                (weights, velocity), traces[order], jnp.asarray(target)[order], self.threshold, self.rate, self.momentum
            )
            self.errors_.append(int(wrong))
            if not self.errors_[-1]:
                break
        self.coef_ = np.asarray(weights)
        return self

    def voltage(self, X: Any) -> Float[np.ndarray, "samples time"]:
        """Membrane potential without a reset."""
        check_is_fitted(self, "coef_")
        return np.asarray(self._traces(X) @ self.coef_)

    def decision_function(self, X: Any) -> np.ndarray:
        """Largest voltage less the threshold."""
        return self.voltage(X).max(axis=1) - self.threshold

    def predict(self, X: Any) -> np.ndarray:
        return self.classes_[(self.decision_function(X) > 0).astype(int)]

    def _traces(self, X: Any) -> Float[Array, "samples time inputs"]:
        """Potential that each input alone would cause with weight 1."""
        X = jnp.asarray(X, jnp.float32)
        if X.ndim != 3 or not bool(jnp.isfinite(X).all()):
            raise InputError(f"X has the shape {X.shape}, or holds NaN; (samples, time, inputs) of spikes is wanted.")
        wanted = len(self.coef_) if hasattr(self, "coef_") else X.shape[2]
        if X.shape[2] != wanted:
            raise InputError(f"X has {X.shape[2]} inputs; the tempotron learned {wanted}.")
        kernel = psp_kernel(self.dt * jnp.arange(X.shape[1]), self.tau, self.tau_s)
        return jax.vmap(jax.vmap(lambda x: jnp.convolve(x, kernel)[: len(x)], 1, 1))(X)


@jax.jit
def _epoch(carry: tuple, traces: Array, target: Array, threshold: Any, rate: Any, momentum: Any) -> tuple[tuple, Array]:
    def one(carry: tuple, pattern: tuple) -> tuple[tuple, Array]:
        weights, velocity = carry
        trace, wanted = pattern
        voltage = trace @ weights
        top = jnp.argmax(voltage)
        error = wanted - (voltage[top] > threshold).astype(voltage.dtype)
        velocity = momentum * velocity + rate * error * trace[top]
        return (weights + velocity, velocity), error != 0

    carry, wrong = jax.lax.scan(one, carry, (traces, target.astype(traces.dtype)))
    return carry, wrong.sum()
