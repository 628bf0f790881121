"""What a system is: two methods, `init` and `step`, on an Equinox module."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from broadsheet.errors import CompositionError

State = PyTree
SystemT = TypeVar("SystemT", bound="System")


class System(eqx.Module):
    """A discrete-time dynamical system; its output may depend on the present input (Mealy).

    Numbers are array leaves, sizes and modes are static fields. A system with a time step has a static field `dt`
    (milliseconds for neurons); systems of different `dt` do not compose. One call works on one example: batches are
    `jax.vmap`.

    A *Moore* system also implements `readout(state)`, equal to the output of the next step whatever its input; only
    such a system can close a feedback loop. Weights that a system changes while it runs live in its state: `init`
    copies them there, `consolidate` writes them back.
    """

    def init(self, key: PRNGKeyArray) -> State:
        """The state before the first step."""
        raise TypeError(f"{type(self).__name__} does not define init(key).")

    def step(self, state: State, inputs: PyTree, key: PRNGKeyArray | None = None) -> tuple[State, PyTree]:
        """One time step: the next state and the output. `key` is for noise, and None where none is drawn."""
        raise TypeError(f"{type(self).__name__} does not define step(state, inputs, key).")

    def readout(self, state: State) -> PyTree:
        """The output of the next step, which for a Moore system does not depend on its input."""
        raise CompositionError(f"{type(self).__name__} has no readout: its output depends on its present input.")

    def consolidate(self: SystemT, state: State) -> SystemT:
        """The system with the weights that `state` has learned; a system without plastic weights returns itself."""
        return self

    @property
    def moore(self) -> bool:
        """Whether `readout` is defined."""
        return type(self).readout is not System.readout

    @property
    def held(self) -> frozenset[str]:
        """Names of the fields that hold no parameters: those made with `fixed()`, and what a subclass adds."""
        return frozenset(field.name for field in dataclasses.fields(self) if field.metadata.get("fixed"))


def is_moore(system: System) -> bool:
    """Whether the system's output depends on its state alone, so that it can close a loop."""
    return system.moore


def fixed(**options: Any) -> Any:
    """A field whose numbers are no parameters: `trainable` leaves them out (a reversal potential, a routing table)."""
    metadata = {**options.pop("metadata", {}), "fixed": True}
    return eqx.field(metadata=metadata, **options)


def trainable(system: PyTree) -> PyTree:
    """A tree of booleans of the shape of `system`: true for inexact arrays that no held field has.

    Made for `equinox.partition(system, trainable(system))` and for `broadsheet.learn.fit`.
    """
    children, treedef = jax.tree_util.tree_flatten_with_path(system, is_leaf=lambda node: node is not system)
    if len(children) == 1 and children[0][0] == ():
        shape_only = isinstance(system, jax.ShapeDtypeStruct) and jnp.issubdtype(system.dtype, jnp.inexact)
        return eqx.is_inexact_array(system) or shape_only
    held = system.held if isinstance(system, System) else frozenset()

    def mark(path: tuple, child: PyTree) -> PyTree:
        name = getattr(path[0], "name", None)
        return jax.tree.map(lambda _: False, child) if name in held else trainable(child)

    return jax.tree.unflatten(treedef, [mark(path, child) for path, child in children])


def common_dt(*systems: System) -> float | None:
    """The time step that all systems share (None where none has one); raises `CompositionError` where they differ."""
    steps = {type(system).__name__: float(dt) for system in systems if (dt := getattr(system, "dt", None)) is not None}
    if len(set(steps.values())) > 1:
        listed = ", ".join(f"{name} has dt = {dt:g}" for name, dt in steps.items())
        raise CompositionError(f"Time steps differ: {listed}; wrap the faster system in substep(system, n).")
    return next(iter(steps.values()), None)


def split(key: PRNGKeyArray | None, count: int) -> Any:
    """`count` keys, or as many Nones."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def as_array(value: Any) -> jax.Array:
    """A number as an array leaf of the default float type, so that changing it does not recompile."""
    return jnp.asarray(value, dtype=jnp.result_type(float))
