"""Systems made of systems: one after another, side by side, in a loop, at another rate."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from broadsheet.dynamics.system import State, System, common_dt, is_moore, split
from broadsheet.errors import CompositionError, InputError


class Series(System):
    """The output of each system is the input of the next, within the same step."""

    systems: tuple[System, ...]
    dt: float | None = eqx.field(static=True)

    def init(self, key: PRNGKeyArray) -> State:
        return tuple(system.init(k) for system, k in zip(self.systems, split(key, len(self.systems)), strict=True))

    def step(self, state: State, inputs: PyTree, key: PRNGKeyArray | None = None) -> tuple[State, PyTree]:
        after, signal = [], inputs
        for system, part, k in zip(self.systems, state, split(key, len(self.systems)), strict=True):
            part, signal = system.step(part, signal, k)
            after.append(part)
        return tuple(after), signal

    def readout(self, state: State) -> PyTree:
        return self.systems[-1].readout(state[-1])

    def consolidate(self, state: State) -> Series:
        parts = (system.consolidate(part) for system, part in zip(self.systems, state, strict=True))
        return Series(tuple(parts), self.dt)

    @property
    def moore(self) -> bool:
        return is_moore(self.systems[-1])


class Parallel(System):
    """Systems side by side: inputs and outputs are tuples, one entry a system."""

    systems: tuple[System, ...]
    dt: float | None = eqx.field(static=True)

    def init(self, key: PRNGKeyArray) -> State:
        return tuple(system.init(k) for system, k in zip(self.systems, split(key, len(self.systems)), strict=True))

    def step(self, state: State, inputs: PyTree, key: PRNGKeyArray | None = None) -> tuple[State, PyTree]:
        inputs = (None,) * len(self.systems) if inputs is None else inputs
        if len(inputs) != len(self.systems):
            raise CompositionError(f"{len(self.systems)} parallel systems got {len(inputs)} inputs.")
        keys = split(key, len(self.systems))
        pairs = [s.step(part, x, k) for s, part, x, k in zip(self.systems, state, inputs, keys, strict=True)]
        return tuple(part for part, _ in pairs), tuple(output for _, output in pairs)

    def readout(self, state: State) -> PyTree:
        return tuple(system.readout(part) for system, part in zip(self.systems, state, strict=True))

    def consolidate(self, state: State) -> Parallel:
        parts = (system.consolidate(part) for system, part in zip(self.systems, state, strict=True))
        return Parallel(tuple(parts), self.dt)

    @property
    def moore(self) -> bool:
        return all(is_moore(system) for system in self.systems)


class Feedback(System):
    """A loop: `forward` receives `combine(inputs, fed)`, where `fed` is what `back` makes of forward's output.

    One of the two has a readout; it speaks first in each step, which is why the loop has no algebraic cycle.
    """

    forward: System
    back: System | None
    combine: Callable[[PyTree, PyTree], PyTree] = eqx.field(static=True)
    dt: float | None = eqx.field(static=True)

    def init(self, key: PRNGKeyArray) -> State:
        first, second = split(key, 2)
        return self.forward.init(first), None if self.back is None else self.back.init(second)

    def step(self, state: State, inputs: PyTree, key: PRNGKeyArray | None = None) -> tuple[State, PyTree]:
        ahead, behind = state
        first, second = split(key, 2)
        if self.back is None:
            ahead, output = self.forward.step(ahead, self.combine(inputs, self.forward.readout(ahead)), first)
        elif is_moore(self.forward):
            behind, fed = self.back.step(behind, self.forward.readout(ahead), second)
            ahead, output = self.forward.step(ahead, self.combine(inputs, fed), first)
        else:
            fed = self.back.readout(behind)
            ahead, output = self.forward.step(ahead, self.combine(inputs, fed), first)
            behind, _ = self.back.step(behind, output, second)
        return (ahead, behind), output

    def readout(self, state: State) -> PyTree:
        return self.forward.readout(state[0])

    def consolidate(self, state: State) -> Feedback:
        back = None if self.back is None else self.back.consolidate(state[1])
        return Feedback(self.forward.consolidate(state[0]), back, self.combine, self.dt)

    @property
    def moore(self) -> bool:
        return is_moore(self.forward)


class Substep(System):
    """`count` steps of a fast system in one step of a slow one, under a constant input; the last output is shown."""

    system: System
    count: int = eqx.field(static=True)
    dt: float | None = eqx.field(static=True)

    def init(self, key: PRNGKeyArray) -> State:
        return self.system.init(key)

    def step(self, state: State, inputs: PyTree, key: PRNGKeyArray | None = None) -> tuple[State, PyTree]:
        def one(state: State, n: jax.Array) -> tuple[State, None]:
            return self.system.step(state, inputs, None if key is None else jax.random.fold_in(key, n))[0], None

        state, _ = jax.lax.scan(one, state, jnp.arange(self.count - 1))
        last = None if key is None else jax.random.fold_in(key, self.count - 1)
        return self.system.step(state, inputs, last)

    def consolidate(self, state: State) -> Substep:
        return Substep(self.system.consolidate(state), self.count, self.dt)


def series(*systems: System) -> Series:
    """One system after another; `CompositionError` where their time steps differ."""
    if not systems:
        raise InputError("series() needs at least one system.")
    return Series(tuple(systems), common_dt(*systems))


def parallel(*systems: System) -> Parallel:
    """Systems side by side on a tuple of inputs; `CompositionError` where their time steps differ."""
    if not systems:
        raise InputError("parallel() needs at least one system.")
    return Parallel(tuple(systems), common_dt(*systems))


def add(inputs: PyTree, fed: PyTree) -> PyTree:
    """Input plus feedback; the feedback alone where there is no input."""
    return fed if inputs is None else jax.tree.map(jnp.add, inputs, fed)


def feedback(forward: System, back: System | None = None, *, combine: Callable[[PyTree, PyTree], PyTree] = add) -> Feedback:
    """Feeds the output of `forward`, through `back` where given, into its own input.

    **Arguments:** `combine(inputs, fed)`: what `forward` receives; by default the sum.

    **Raises:** `CompositionError` where neither system has a `readout`: the loop then has no delay in it.

    **Example:**

        >>> import jax.numpy as jnp
        >>> from broadsheet.dynamics import Delay, rollout
        >>> echo = feedback(Delay(jnp.zeros(()), steps=3))
        >>> rollout(echo, jnp.array([1.0, 0, 0, 0, 0, 0, 0]))[1].tolist()
        [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    """
    if not (is_moore(forward) or (back is not None and is_moore(back))):
        names = type(forward).__name__ + ("" if back is None else f" and {type(back).__name__}")
        raise CompositionError(
            f"The loop through {names} has no delay: its output depends on its present input. "
            "Put a Delay in the loop, or use a system with a readout."
        )
    return Feedback(forward, back, combine, common_dt(*([forward] if back is None else [forward, back])))


def substep(system: System, count: int) -> Substep:
    """The system at a `count` times coarser time step: the multi-rate tool."""
    if count < 1:
        raise InputError(f"substep(system, {count}): at least one step is needed.")
    dt = common_dt(system)
    return Substep(system, count, None if dt is None else dt * count)
