"""Neurons that learn what they are: time constants, thresholds and resets as parameters beside the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from broadsheet.dynamics.system import State, System
from broadsheet.errors import InputError


class Coordinate(NamedTuple):
    """A way to an interval from all real numbers, and back."""

    value: Callable[[Array], Array]
    free: Callable[[Array], Array]


REAL = Coordinate(lambda x: x, lambda y: y)
POSITIVE = Coordinate(jnp.exp, jnp.log)
UNIT = Coordinate(jax.nn.sigmoid, lambda y: jnp.log(y) - jnp.log1p(-y))
NOT_NEGATIVE = Coordinate(jax.nn.softplus, lambda y: jnp.log(jnp.expm1(jnp.maximum(y, 1e-6))))

COORDINATES = {
    "tau": POSITIVE, "tau_syn": POSITIVE, "kappa": POSITIVE, "threshold": REAL, "reset": REAL, "rest": REAL,
    "a": UNIT, "b": REAL, "c": REAL, "d": NOT_NEGATIVE, "success": UNIT,
}  # fmt: skip
"""Where each parameter of a neuron may lie."""


class Intrinsic(System):
    """A neuron whose named parameters are learned, one value a neuron, in coordinates that keep them within their bounds.

    Input, output and state are those of the neuron. `trainable` finds `free`, and what the neuron itself counts as such.

    **Arguments:** `neuron`: a system with a `size`; `names`: its parameters, of `COORDINATES`.
    """

    neuron: System
    free: dict[str, Float[Array, " neurons"]]
    size: int = eqx.field(static=True)
    dt: float | None = eqx.field(static=True)

    def __init__(self, neuron: Any, names: Sequence[str]) -> None:
        self.free = {}
        for name in names:
            if name not in COORDINATES or getattr(neuron, name, None) is None:
                raise InputError(f"{type(neuron).__name__} has no parameter {name!r} that could be learned.")
            value = jnp.broadcast_to(getattr(neuron, name), (neuron.size,))
            self.free[name] = COORDINATES[name].free(value)
        self.neuron, self.size, self.dt = neuron, neuron.size, getattr(neuron, "dt", None)

    def built(self) -> Any:
        """The neuron with the values that `free` stands for."""
        names = sorted(self.free)
        values = [COORDINATES[name].value(self.free[name]) for name in names]
        return (
            eqx.tree_at(lambda neuron: [getattr(neuron, name) for name in names], self.neuron, values) if names else self.neuron
        )

    def init(self, key: PRNGKeyArray) -> State:
        return self.built().init(key)

    def step(self, state: State, inputs: PyTree, key: PRNGKeyArray | None = None) -> tuple[State, PyTree]:
        return self.built().step(state, inputs, key)
