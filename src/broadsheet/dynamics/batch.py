"""Many examples in step with each other, inside one system."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from broadsheet.dynamics.system import State, System, common_dt
from broadsheet.errors import InputError


class Batch(System):
    """`size` examples of one system side by side: every array of state, input and output has the examples as its last axis."""

    system: System
    size: int = eqx.field(static=True)
    dt: float | None = eqx.field(static=True)

    def init(self, key: PRNGKeyArray) -> State:
        return jax.vmap(self.system.init, out_axes=-1)(jax.random.split(key, self.size))

    def step(self, state: State, inputs: PyTree, key: PRNGKeyArray | None = None) -> tuple[State, PyTree]:
        keys = None if key is None else jax.random.split(key, self.size)
        step = jax.vmap(self.system.step, in_axes=(-1, -1, 0), out_axes=-1, axis_size=self.size)
        return step(state, inputs, keys)

    def readout(self, state: State) -> PyTree:
        return jax.vmap(self.system.readout, in_axes=-1, out_axes=-1, axis_size=self.size)(state)

    def consolidate(self, state: State) -> Batch:
        """The system with what was learned, averaged over the examples."""
        each = jax.vmap(lambda part: eqx.filter(self.system.consolidate(part), eqx.is_array), in_axes=-1, axis_size=self.size)
        learned = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0).astype(leaf.dtype), each(state))
        return Batch(eqx.combine(learned, self.system), self.size, self.dt)

    @property
    def moore(self) -> bool:
        return self.system.moore


def batch(system: System, size: int) -> Batch:
    """The system for `size` examples at once, their axis last: inputs (time, …, size) to outputs (time, …, size).

    `jax.vmap(rollout)` does the same with the examples first. With them last, a dense projection onto many neurons is a
    product of its weights with a tall matrix, which a CPU computes faster, forward and backward.
    """
    if size < 1:
        raise InputError(f"batch(system, {size}): at least one example is needed.")
    return Batch(system, size, common_dt(system))
