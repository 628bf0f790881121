"""Read-outs that learn while they run: error-modulated, with time and identity apart, and by recursive least squares."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics.system import System, as_array, fixed
from broadsheet.errors import InputError

Series = Float[Array, "time features"]
Targets = Float[Array, "time outcomes"]
Given = tuple[Float[Array, " features"], Float[Array, " outcomes"], Float[Array, ""]]


class WhatWhen(NamedTuple):
    """Weights that all outcomes share, and what each has of its own."""

    when: Float[Array, " features"]
    what: Float[Array, "outcomes features"]


class ErrorModulated(System):
    """A linear read-out that learns by a three-factor rule, `dw_k = rate g e_k x`: presynaptic trace x, error e, gate g.

    Input: features (features,), targets (outcomes,), gate (). Output: `z_k = (when + what_k) . x` before the change.

    The rule has two parts: the error of the summed prediction moves the shared weights (time, blind to identity), what is
    left of each error moves an outcome's own. With `split` a step does the first alone, and `replay` the second afterwards.
    Stable for `rate g |x|² < 2`. For fixed x, probability p and `a = rate |x|²`, after n trials z has the mean
    `p (1 - (1 - a)^n)` and in the end the variance `a p (1 - p) / (2 - a)`.

    **Arguments:** `features`, `outcomes`; `rate`; `split`; `hebbian`: the target in place of the error, a rule of two factors.
    """

    rate: Array = fixed()
    features: int = eqx.field(static=True)
    outcomes: int = eqx.field(static=True)
    split: bool = eqx.field(static=True)
    hebbian: bool = eqx.field(static=True)

    def __init__(self, features: int, outcomes: int, *, rate: Any = 0.2, split: bool = False, hebbian: bool = False) -> None:
        if min(features, outcomes) < 1:
            raise InputError(f"{features} features and {outcomes} outcomes; at least one of each is wanted.")
        self.rate, self.features, self.outcomes = as_array(rate), features, outcomes
        self.split, self.hebbian = split, hebbian

    def init(self, key: PRNGKeyArray) -> WhatWhen:
        return WhatWhen(jnp.zeros(self.features), jnp.zeros((self.outcomes, self.features)))

    def weights(self, state: WhatWhen) -> Float[Array, "outcomes features"]:
        """The weights onto each outcome."""
        return state.when + state.what

    def step(
        self, state: WhatWhen, inputs: Given, key: PRNGKeyArray | None = None
    ) -> tuple[WhatWhen, Float[Array, " outcomes"]]:
        x, y, gate = inputs
        z = self.weights(state) @ x
        common, own = self._errors(y, z)
        when = state.when + self.rate * gate * common * x
        what = state.what if self.split else state.what + self.rate * gate * jnp.outer(own, x)
        return WhatWhen(when, what), z

    def replay(self, state: WhatWhen, X: Series, Y: Targets, gate: Float[Array, " time"]) -> WhatWhen:
        """Moves what outcomes have of their own through stored features, in their order."""

        def one(state: WhatWhen, given: Given) -> tuple[WhatWhen, None]:
            x, y, g = given
            _, own = self._errors(y, self.weights(state) @ x)
            return state._replace(what=state.what + self.rate * g * jnp.outer(own, x)), None

        return jax.lax.scan(one, state, (X, Y, gate))[0]

    def trial(self, state: WhatWhen, X: Series, Y: Targets, gate: Float[Array, " time"]) -> WhatWhen:
        """The state after one trial: online steps, and the replay where time and identity are split."""
        state, _ = jax.lax.scan(lambda state, given: self.step(state, given), state, (X, Y, gate))
        return self.replay(state, X, Y, gate) if self.split else state

    def _errors(self, y: Array, z: Array) -> tuple[Array, Array]:
        error = y if self.hebbian else y - z
        common = error.mean()
        return common, error - common


class LeastSquaresState(NamedTuple):
    """Weights, and the inverse of the features' correlation."""

    weights: Float[Array, "outcomes features"]
    P: Float[Array, "features features"]


class RecursiveLeastSquares(System):
    """A linear read-out by recursive least squares, as FORCE learning has it: `w_k <- w_k + e_k P x / (λ + x'P x)`.

    Input: features (features,), targets (outcomes,), gate () of which nothing is made. Output: `z = w x` before the change.
    For fixed x and means p1 of n and p2 of m trials, w gives `(n p1 + m p2) / (n + m + alpha / |x|²)`: without forgetting,
    what was learned long holds long. Use float64: P loses its symmetry otherwise.

    **Arguments:** `features`, `outcomes`; `alpha`: P starts at 1 / alpha; `forget`: λ, 1 for none.
    """

    alpha: Array = fixed()
    forget: Array = fixed()
    features: int = eqx.field(static=True)
    outcomes: int = eqx.field(static=True)

    def __init__(self, features: int, outcomes: int, *, alpha: Any = 0.1, forget: Any = 1.0) -> None:
        if min(features, outcomes) < 1:
            raise InputError(f"{features} features and {outcomes} outcomes; at least one of each is wanted.")
        self.alpha, self.forget = as_array(alpha), as_array(forget)
        self.features, self.outcomes = features, outcomes

    def init(self, key: PRNGKeyArray) -> LeastSquaresState:
        return LeastSquaresState(jnp.zeros((self.outcomes, self.features)), jnp.eye(self.features) / self.alpha)

    def weights(self, state: LeastSquaresState) -> Float[Array, "outcomes features"]:
        """The weights onto each outcome."""
        return state.weights

    def step(
        self, state: LeastSquaresState, inputs: Given, key: PRNGKeyArray | None = None
    ) -> tuple[LeastSquaresState, Float[Array, " outcomes"]]:
        x, y, _ = inputs
        z = state.weights @ x
        Px = state.P @ x
        gain = Px / (self.forget + x @ Px)
        P = (state.P - jnp.outer(gain, Px)) / self.forget
        return LeastSquaresState(state.weights + jnp.outer(y - z, gain), P), z

    def trial(self, state: LeastSquaresState, X: Series, Y: Targets, gate: Float[Array, " time"]) -> LeastSquaresState:
        """The state after all steps of a trial, in one: the same weights, for a tenth of the work."""
        count = X.shape[0]
        ages = self.forget ** jnp.arange(count - 1, -1, -1)
        fresh = state.P / self.forget**count
        PX = fresh @ X.T
        gain = jnp.linalg.solve(jnp.diag(1 / ages) + X @ PX, PX.T)
        weights = state.weights + (Y - X @ state.weights.T).T @ gain
        P = fresh - PX @ gain
        return LeastSquaresState(weights, (P + P.T) / 2)

    def reset(self, state: LeastSquaresState) -> LeastSquaresState:
        """The weights kept, everything else forgotten."""
        return state._replace(P=jnp.eye(self.features) / self.alpha)
