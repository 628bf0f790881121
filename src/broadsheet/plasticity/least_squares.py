"""Recursive least squares: a linear read-out that fits all it has seen after each step, as FORCE learning has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics.system import as_array, fixed
from broadsheet.plasticity.rule import LearningRule


class LeastSquaresState(NamedTuple):
    """Weights, and the inverse of the features' correlation."""

    weights: Float[Array, "outcomes features"]
    P: Float[Array, "features features"]


class RecursiveLeastSquares(LearningRule):
    """A linear read-out by recursive least squares (Sussillo and Abbott, 2009): `w_k <- w_k + e_k P x / (λ + x'P x)`.

    Input: features (features,), targets (outcomes,), gate () of which nothing is made. Output: `z = w x` before the change.
    For fixed x and means p1 of n and p2 of m trials, w gives `(n p1 + m p2) / (n + m + alpha / |x|²)`: without forgetting,
    what was learned long holds long. It is not local: P ties the synapses of all features. Use float64: P loses its symmetry
    otherwise.

    **Arguments:** `weights` (features, outcomes), at the start; `alpha`: P starts at 1 / alpha; `forget`: λ, 1 for none.
    """

    modulators: ClassVar[Mapping[str, Literal["one", "post"]]] = {"gate": "one"}
    sees_output: ClassVar[bool] = True
    local: ClassVar[bool] = False
    unbounded: ClassVar[bool] = True

    alpha: Array = fixed()
    forget: Array = fixed()

    def __init__(self, weights: Any = None, *, alpha: Any = 0.1, forget: Any = 1.0) -> None:
        super().__init__(weights)
        self.alpha, self.forget = as_array(alpha), as_array(forget)

    def init(self, key: PRNGKeyArray) -> LeastSquaresState:
        return LeastSquaresState(self.start.T, jnp.eye(self.start.shape[0]) / self.alpha)

    def learned(self, state: LeastSquaresState) -> Float[Array, "features outcomes"]:
        return state.weights.T

    def step(
        self, state: LeastSquaresState, inputs: tuple[Array, Array, Array], key: PRNGKeyArray | None = None
    ) -> tuple[LeastSquaresState, Float[Array, " outcomes"]]:
        x, y, _ = inputs
        z = state.weights @ x
        Px = state.P @ x
        gain = Px / (self.forget + x @ Px)
        P = (state.P - jnp.outer(gain, Px)) / self.forget
        return LeastSquaresState(state.weights + jnp.outer(y - z, gain), P), z

    def trial(self, state: LeastSquaresState, *inputs: Array) -> LeastSquaresState:
        """The state after all steps of a trial, in one: the same weights, for a tenth of the work."""
        X, Y, _ = inputs
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
        return state._replace(P=jnp.eye(state.P.shape[0]) / self.alpha)
