"""The tempotron: a neuron that learns to fire on some patterns of spikes and to keep silent on others.

Gütig and Sompolinsky (2006), doi 10.1038/nn1643.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.numerics.checks import concrete


def psp_kernel(t: Float[Array, "*shape"], tau: Any = 15.0, tau_s: Any = 3.75) -> Float[Array, "*shape"]:
    """Postsynaptic potential t ms after a spike, `V0 (exp(-t / tau) - exp(-t / tau_s))`, with its maximum at 1."""
    slow, fast = concrete(tau), concrete(tau_s)
    if slow is not None and fast is not None and not slow > fast > 0:
        raise InputError(f"tau = {tau} and tau_s = {tau_s} ms; tau has to be the longer one, and both above 0.")
    peak = tau * tau_s / (tau - tau_s) * jnp.log(tau / tau_s)
    top = jnp.exp(-peak / tau) - jnp.exp(-peak / tau_s)
    after = jnp.maximum(t, 0.0)  # before the spike exponentials would overflow, and their derivative with them
    return jnp.where(t >= 0, (jnp.exp(-after / tau) - jnp.exp(-after / tau_s)) / top, 0.0)


class Tempotron(ClassifierMixin, BaseEstimator):
    """Binary classifier of spike patterns (samples, time, inputs): 1 where the voltage passes the threshold.

    On an error all weights move by `rate` times what each input contributed to the largest voltage, up if the neuron should
    have fired, down if not. Learning ends early when no pattern is wrong.

    With `rate_tau` or `rate_threshold` the neuron itself learns too, from the same errors: the logarithm of tau along the
    derivative of the largest voltage (its time held, the change limited to a tenth), the threshold against it.

    **Parameters:** `tau`, `tau_s`: ms; `threshold`; `rate`, `rate_tau`, `rate_threshold`: of learning; `epochs`; `momentum` of
    the weights; `dt`: ms a bin; `random_state`: integer.

    **Attributes:** `coef_` (inputs,); `tau_`, ms, and `threshold_` after learning; `errors_`: wrong patterns of each epoch;
    `classes_`.
    """

    def __init__(
        self, tau: float = 15.0, tau_s: float = 3.75, *, threshold: float = 1.0, rate: float = 0.02, epochs: int = 100,
        momentum: float = 0.0, rate_tau: float = 0.0, rate_threshold: float = 0.0, dt: float = 1.0, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.tau = tau
        self.tau_s = tau_s
        self.threshold = threshold
        self.rate = rate
        self.epochs = epochs
        self.momentum = momentum
        self.rate_tau = rate_tau
        self.rate_threshold = rate_threshold
        self.dt = dt
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Tempotron:
        """Learns patterns; `y` has two classes, of which the second one (in order) is the one to fire on."""
        spikes = _patterns(X)
        self.classes_, target = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) != 2 or target.shape != (len(spikes),):
            raise InputError(f"y has {len(self.classes_)} classes for {len(spikes)} patterns; two, one label each, are wanted.")
        rng = np.random.default_rng(self.random_state)
        start = jnp.asarray(rng.normal(0, 0.01, spikes.shape[2]), jnp.float32)
        neuron = _Learned(start, jnp.log(jnp.float32(self.tau)), jnp.float32(self.threshold))
        given = spikes if self.rate_tau else self._traces(spikes, self.tau)
        rates = (self.rate, self.momentum, self.rate_tau, self.rate_threshold)
        carry = (neuron, jnp.zeros_like(start))
        self.errors_: list[int] = []
        for _ in range(self.epochs):
            order = jnp.asarray(rng.permutation(len(spikes)))
            carry, wrong = _epoch(
                carry, given[order], jnp.asarray(target)[order], rates, (self.dt, self.tau_s), self.rate_tau != 0
            )
            self.errors_.append(int(wrong))
            if not self.errors_[-1]:
                break
        self.coef_ = np.asarray(carry[0].weights)
        self.tau_, self.threshold_ = float(jnp.exp(carry[0].log_tau)), float(carry[0].threshold)
        return self

    def voltage(self, X: Any) -> Float[np.ndarray, "samples time"]:
        """Membrane potential without a reset."""
        check_is_fitted(self, "coef_")
        spikes = _patterns(X)
        if spikes.shape[2] != len(self.coef_):
            raise InputError(f"X has {spikes.shape[2]} inputs; the tempotron learned {len(self.coef_)}.")
        return np.asarray(self._traces(spikes, self.tau_) @ self.coef_)

    def decision_function(self, X: Any) -> np.ndarray:
        """Largest voltage less the threshold."""
        return self.voltage(X).max(axis=1) - self.threshold_

    def predict(self, X: Any) -> np.ndarray:
        return self.classes_[(self.decision_function(X) > 0).astype(int)]

    def _traces(self, spikes: Array, tau: float) -> Float[Array, "samples time inputs"]:
        """Potential that each input alone would cause with weight 1."""
        return jax.vmap(lambda pattern: _potentials(pattern, tau, self.tau_s, self.dt))(spikes)


def _patterns(X: Any) -> Float[Array, "samples time inputs"]:
    spikes = jnp.asarray(X, jnp.float32)
    if spikes.ndim != 3 or not bool(jnp.isfinite(spikes).all()):
        raise InputError(f"X has the shape {spikes.shape}, or holds NaN; (samples, time, inputs) of spikes is wanted.")
    return spikes


class _Learned(NamedTuple):
    weights: Float[Array, " inputs"]
    log_tau: Float[Array, ""]
    threshold: Float[Array, ""]


def _potentials(pattern: Float[Array, "time inputs"], tau: Any, tau_s: Any, dt: Any) -> Float[Array, "time inputs"]:
    kernel = psp_kernel(dt * jnp.arange(pattern.shape[0]), tau, tau_s)
    return jax.vmap(lambda x: jnp.convolve(x, kernel)[: len(x)], 1, 1)(pattern)


@partial(jax.jit, static_argnames="moving")
def _epoch(carry: tuple, given: Array, target: Array, rates: tuple, times: tuple, moving: bool) -> tuple[tuple, Array]:
    """Each pattern in turn: as spikes where tau moves, else as the potentials of its inputs."""
    rate, momentum, rate_tau, rate_threshold = rates
    dt, tau_s = times

    def one(carry: tuple, pattern: tuple) -> tuple[tuple, Array]:
        neuron, velocity = carry
        shown, wanted = pattern
        trace = _potentials(shown, jnp.exp(neuron.log_tau), tau_s, dt) if moving else shown
        voltage = trace @ neuron.weights
        top = jnp.argmax(voltage)
        error = wanted - (voltage[top] > neuron.threshold).astype(voltage.dtype)
        velocity = momentum * velocity + rate * error * trace[top]
        log_tau = neuron.log_tau
        if moving:
            ago = dt * (top - jnp.arange(shown.shape[0]))
            arrived = shown @ neuron.weights
            slope = jax.grad(lambda at: psp_kernel(ago, jnp.exp(at), tau_s) @ arrived)(log_tau)
            change = jnp.clip(rate_tau * error * slope, -0.1, 0.1)
            log_tau = jnp.maximum(log_tau + change, jnp.log(1.1 * tau_s))
        threshold = neuron.threshold - rate_threshold * error
        return (_Learned(neuron.weights + velocity, log_tau, threshold), velocity), error != 0

    carry, wrong = jax.lax.scan(one, carry, (given, target.astype(given.dtype)))
    return carry, wrong.sum()
