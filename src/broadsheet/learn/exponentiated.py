"""Exponentiated gradient descent: multiplicative updates, under which no weight changes its sign."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from broadsheet.errors import InputError


def exponentiated_gradient(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """`w <- w exp(-rate sign(w) gradient)`: mirror descent with the entropy of |w| (Kivinen and Warmuth, Inf. Comput. 132, 1
    (1997)), on weights of either sign, which they keep, as synapses under Dale's law do. A weight of 0 stays 0.

    **Example:**

        >>> import jax.numpy as jnp
        >>> rule = exponentiated_gradient(0.5)
        >>> w = jnp.array([1.0, -1.0])
        >>> updates, _ = rule.update(jnp.array([2.0, 2.0]), rule.init(w), w)
        >>> [round(x, 3) for x in (w + updates).tolist()]
        [0.368, -2.718]
    """

    def init(weights: PyTree) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))

    def update(
        gradient: PyTree, state: optax.ScaleByScheduleState, weights: PyTree | None = None
    ) -> tuple[PyTree, optax.ScaleByScheduleState]:
        if weights is None:
            raise InputError("exponentiated_gradient moves weights by what they are: give update the weights.")
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        updates = jax.tree.map(lambda w, g: w * jnp.expm1(-rate * jnp.sign(w) * g), weights, gradient)
        return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)
