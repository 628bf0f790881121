"""Three-factor learning: what a synapse has seen, times an error or reward that arrives later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics.system import as_array, fixed
from broadsheet.errors import InputError
from broadsheet.numerics.checks import positive
from broadsheet.plasticity.rule import LearningRule


class ThreeFactorState(NamedTuple):
    """Plastic weights, the presynaptic trace, and what synapses are eligible for."""

    weights: Float[Array, "pre post"]
    trace: Float[Array, " pre"]
    eligibility: Float[Array, "pre post"]


class ThreeFactor(LearningRule):
    """A dense projection that learns by `dw = rate * modulator_j * e_ij`. Input: presynaptic spikes (pre,), a postsynaptic
    factor (post,) and a modulator (post,) or (). Output: `pre @ weights` before the change.

    The eligibility `e` decays with `tau_e` and grows by the presynaptic trace times the postsynaptic factor: with spikes as
    factor and a reward as modulator this is reward-modulated Hebbian learning; with a factor of one and an error as
    modulator it is the delta rule on traces (LMS, PES).

    **Arguments:** `weights` (pre, post); `rate`; `tau`: of the presynaptic trace, ms; `tau_e`: of the eligibility, ms, or 0
    for what is eligible in this step alone; `bounds`: on weights; `dt`: ms.
    """

    modulators: ClassVar[Mapping[str, Literal["one", "post"]]] = {"modulator": "post"}
    unbounded: ClassVar[bool] = True  # but for bounds that are given

    rate: Array = fixed()
    tau: Array = fixed()
    tau_e: Array | None = fixed()
    bounds: Float[Array, "2"] = fixed()
    dt: float = eqx.field(static=True)

    def __init__(
        self, weights: Any = None, *, rate: Any = 0.01, tau: Any = 20.0, tau_e: Any = 0.0,
        bounds: tuple[float, float] = (-jnp.inf, jnp.inf), dt: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(weights)
        positive("tau, the time constant of the trace,", tau)
        if isinstance(tau_e, (int, float)) and tau_e == 0:
            self.tau_e = None
        else:
            positive("tau_e, the time constant of the eligibility,", tau_e)
            self.tau_e = as_array(tau_e)
        if not bounds[0] < bounds[1]:
            raise InputError(f"bounds = {bounds}; the lower one has to be below the upper one.")
        self.rate, self.tau, self.bounds, self.dt = as_array(rate), as_array(tau), as_array(bounds), dt

    @property
    def limits(self) -> tuple[Any, Any]:
        return self.bounds[0], self.bounds[1]

    def init(self, key: PRNGKeyArray) -> ThreeFactorState:
        return ThreeFactorState(self.start, jnp.zeros(self.start.shape[0]), jnp.zeros_like(self.start))

    def step(
        self, state: ThreeFactorState, inputs: tuple[Array, Array, Array], key: PRNGKeyArray | None = None
    ) -> tuple[ThreeFactorState, Float[Array, " post"]]:
        pre, post, modulator = inputs
        trace = jnp.exp(-self.dt / self.tau) * state.trace + pre
        kept = 0.0 if self.tau_e is None else jnp.exp(-self.dt / self.tau_e) * state.eligibility
        eligibility = kept + trace[:, None] * post
        weights = jnp.clip(state.weights + self.rate * modulator * eligibility, *self.bounds)
        return ThreeFactorState(weights, trace, eligibility), pre @ state.weights
