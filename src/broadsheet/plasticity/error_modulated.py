"""The error-modulated rule: a linear read-out that learns while it runs, with time and identity apart (arXiv 2510.14382)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics.system import as_array, fixed
from broadsheet.plasticity.rule import LearningRule

Series = Float[Array, "time features"]
Targets = Float[Array, "time outcomes"]


class WhatWhen(NamedTuple):
    """Weights that all outcomes share, and what each has of its own."""

    when: Float[Array, " features"]
    what: Float[Array, "outcomes features"]


class ErrorModulated(LearningRule):
    """A linear read-out that learns by a three-factor rule, `dw_k = rate g e_k x`: presynaptic trace x, error e, gate g.

    Input: features (features,), targets (outcomes,), gate (). Output: `z_k = (when + what_k) . x` before the change.

    The rule has two parts: the error of the summed prediction moves the shared weights (time, blind to identity), what is
    left of each error moves an outcome's own. With `split` a step does the first alone, and `replay` the second afterwards.
    Stable for `rate g |x|² < 2`. For fixed x, probability p and `a = rate |x|²`, after n trials z has the mean
    `p (1 - (1 - a)^n)` and in the end the variance `a p (1 - p) / (2 - a)`.

    **Arguments:** `weights` (features, outcomes), at the start; `rate`; `split`; `hebbian`: the target in place of the error, a
    rule of two factors.
    """

    modulators: ClassVar[Mapping[str, Literal["one", "post"]]] = {"gate": "one"}
    sees_output: ClassVar[bool] = True
    unbounded: ClassVar[bool] = True

    rate: Array = fixed()
    split: bool = eqx.field(static=True)
    hebbian: bool = eqx.field(static=True)

    def __init__(self, weights: Any = None, *, rate: Any = 0.2, split: bool = False, hebbian: bool = False) -> None:
        super().__init__(weights)
        self.rate, self.split, self.hebbian = as_array(rate), split, hebbian

    def init(self, key: PRNGKeyArray) -> WhatWhen:
        return WhatWhen(jnp.zeros(self.start.shape[0]), self.start.T)

    def learned(self, state: WhatWhen) -> Float[Array, "features outcomes"]:
        return (state.when + state.what).T

    def step(
        self, state: WhatWhen, inputs: tuple[Array, Array, Array], key: PRNGKeyArray | None = None
    ) -> tuple[WhatWhen, Float[Array, " outcomes"]]:
        x, y, gate = inputs
        z = (state.when + state.what) @ x
        common, own = self._errors(y, z)
        when = state.when + self.rate * gate * common * x
        what = state.what if self.split else state.what + self.rate * gate * jnp.outer(own, x)
        return WhatWhen(when, what), z

    def replay(self, state: WhatWhen, X: Series, Y: Targets, gate: Float[Array, " time"]) -> WhatWhen:
        """Moves what outcomes have of their own through stored features, in their order."""

        def one(state: WhatWhen, given: tuple[Array, Array, Array]) -> tuple[WhatWhen, None]:
            x, y, g = given
            _, own = self._errors(y, (state.when + state.what) @ x)
            return state._replace(what=state.what + self.rate * g * jnp.outer(own, x)), None

        return jax.lax.scan(one, state, (X, Y, gate))[0]

    def trial(self, state: WhatWhen, *inputs: Array) -> WhatWhen:
        """The state after one trial: online steps, and the replay where time and identity are split."""
        state = super().trial(state, *inputs)
        return self.replay(state, *inputs) if self.split else state

    def _errors(self, y: Array, z: Array) -> tuple[Array, Array]:
        error = y if self.hebbian else y - z
        common = error.mean()
        return common, error - common
