"""Running a system for many steps: one compiled scan that jit, grad and vmap go through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from broadsheet.dynamics.system import State, System
from broadsheet.errors import InputError


def rollout(
    system: System,
    inputs: PyTree = None,
    *,
    state: State = None,
    steps: int | None = None,
    key: PRNGKeyArray | None = None,
    record: Callable[[State, PyTree], PyTree] | None = None,
    every: int = 1,
    remat: int | None = None,
    start: int | Int[Array, ""] = 0,
    unroll: int = 1,
) -> tuple[State, PyTree]:
    """Steps `system` through `inputs` and returns the last state and what was recorded.

    The key of step t is `fold_in(key, t)`, so that noise does not depend on how a run is cut: a run of 100 steps equals
    one of 60 followed by one of 40 with `start=60`. Many operations on small arrays a step are faster by `one_kernel(rollout)`.

    **Arguments:**

    - `inputs`: arrays with time first, or None for a system without input (then give `steps`).
    - `state`: where to start; by default `initial_state(system, key)`, `system.init` with a key that no step has.
    - `record`: a function of (state after the step, output), by default the output.
    - `every`: record each `every`-th step only; the number of steps must be a multiple.
    - `remat`: chunk length; within a chunk nothing is stored for the backward pass, it is computed again.
    - `start`: number of the first step.
    - `unroll`: how many steps XLA sees at once.

    **Returns:** (state, records), records with time first.

    **Example:**

        >>> import jax.numpy as jnp
        >>> from broadsheet.neurons import LIF
        >>> neurons = LIF(2, tau=20.0, rest=-70.0, threshold=-50.0, reset=-70.0, dt=1.0)
        >>> kicks = jnp.tile(jnp.array([0.5, 2.0]), (100, 1))  # mV a step, (time, neurons)
        >>> state, spikes = rollout(neurons, kicks)
        >>> spikes.sum(0).tolist()
        [0.0, 7.0]
    """
    total = _steps(inputs, steps)
    if every < 1 or total % every:
        raise InputError(f"{total} steps are not a multiple of every = {every}.")
    blocks = total // every
    chunk = blocks if remat is None else max(1, remat // every)
    if blocks % chunk:
        raise InputError(f"{total} steps are not a multiple of the chunk of {chunk * every} steps (remat).")
    if state is None:
        state = initial_state(system, key)
    keep = record if record is not None else (lambda _, output: output)

    def one(state: State, t: Array, x: PyTree) -> tuple[State, PyTree]:
        return system.step(state, x, None if key is None else jax.random.fold_in(key, t))

    def single(state: State, tx: tuple) -> tuple[State, PyTree]:
        state, output = one(state, *tx)
        return state, keep(state, output)

    def block(state: State, block_input: tuple) -> tuple[State, PyTree]:
        head = jax.tree.map(lambda leaf: leaf[:-1], block_input)
        state, _ = jax.lax.scan(lambda s, tx: (one(s, *tx)[0], None), state, head, unroll=unroll)
        return single(state, jax.tree.map(lambda leaf: leaf[-1], block_input))

    def chunks(state: State, chunk_input: tuple) -> tuple[State, PyTree]:
        if every == 1:
            return jax.lax.scan(single, state, chunk_input, unroll=unroll)
        return jax.lax.scan(block, state, chunk_input)

    def fold(leaf: Array, *shape: int) -> Array:
        return leaf.reshape(*shape, *leaf.shape[1:])

    shape = () if every == 1 else (every,)
    times = start + jnp.arange(total)
    if remat is None:
        return chunks(state, jax.tree.map(lambda leaf: fold(leaf, blocks, *shape), (times, inputs)))
    grouped = jax.tree.map(lambda leaf: fold(leaf, blocks // chunk, chunk, *shape), (times, inputs))
    state, records = jax.lax.scan(jax.checkpoint(chunks), state, grouped)
    return state, jax.tree.map(lambda leaf: fold(leaf.reshape(-1, *leaf.shape[2:]), blocks), records)


def rollout_until(
    system: System,
    stop: Callable[[State, PyTree], Any],
    max_steps: int,
    inputs: PyTree = None,
    *,
    state: State = None,
    key: PRNGKeyArray | None = None,
) -> tuple[State, PyTree, Int[Array, ""]]:
    """Steps until `stop(state, output)` is true, or `max_steps` were made.

    Forward only: a loop with an early exit has no reverse-mode derivative, and asking for one raises an error that says so.

    **Returns:** (state, last output, number of steps made).
    """
    if inputs is not None and _steps(inputs, None) < max_steps:
        raise InputError(f"{_steps(inputs, None)} inputs are fewer than max_steps = {max_steps}.")
    if max_steps < 1:
        raise InputError(f"max_steps is {max_steps}; at least 1 is wanted.")
    if state is None:
        state = initial_state(system, key)
    arrays, rest = eqx.partition((system, state, inputs, key), eqx.is_array)
    leaves, treedef = jax.tree.flatten(arrays)

    @jax.custom_vjp
    def loop(leaves: list) -> tuple:
        system, state, inputs, key = eqx.combine(jax.tree.unflatten(treedef, leaves), rest)

        def body(carry: tuple) -> tuple:
            t, state, _, _ = carry
            x = jax.tree.map(lambda leaf: leaf[t], inputs)
            state, output = system.step(state, x, None if key is None else jax.random.fold_in(key, t))
            return t + 1, state, output, jnp.asarray(stop(state, output), bool)

        first = body((jnp.zeros((), int), state, None, None))
        made, state, output, _ = jax.lax.while_loop(lambda carry: (carry[0] < max_steps) & ~carry[3], body, first)
        return state, output, made

    def forward(leaves: list) -> tuple:
        return loop(leaves), None

    def backward(*_: Any) -> tuple:
        raise InputError("rollout_until exits early and cannot be differentiated; use rollout with a fixed length.")

    loop.defvjp(forward, backward)
    return loop(leaves)


def initial_state(system: System, key: PRNGKeyArray | None) -> State:
    """`system.init` with a key of its own, so that the first step's noise is independent of it."""
    return system.init(jax.random.key(0) if key is None else jax.random.fold_in(key, 2**31 - 1))


def _steps(inputs: PyTree, steps: int | None) -> int:
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(inputs)}
    if not lengths:
        if steps is None:
            raise InputError("Without inputs, say how many steps to make: steps=…")
        return steps
    if len(lengths) > 1:
        raise InputError(f"The inputs differ in length: {sorted(lengths)}.")
    (length,) = lengths
    if steps is not None and steps != length:
        raise InputError(f"steps = {steps}, but the inputs have {length}.")
    return length
