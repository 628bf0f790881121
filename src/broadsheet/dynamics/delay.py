"""Delays: a ring buffer for one delay, and per-synapse delays, event-driven or dense."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from broadsheet.dynamics.system import System, fixed
from broadsheet.errors import EventOverflowError, InputError


class RingBuffer(NamedTuple):
    """The last `length` values of a signal; `cursor` is where the next one goes, on top of the oldest."""

    values: PyTree
    cursor: Int[Array, ""]

    @classmethod
    def filled(cls, value: PyTree, length: int) -> RingBuffer:
        """A buffer that holds `value` `length` times: a history frozen before the start."""
        stacked = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (length, *jnp.shape(leaf))), value)
        return cls(stacked, jnp.zeros((), jnp.int32))

    @property
    def length(self) -> int:
        return jax.tree.leaves(self.values)[0].shape[0]

    def oldest(self) -> PyTree:
        """The value pushed `length` pushes ago."""
        return self.ago(self.length)

    def ago(self, pushes: int | Int[Array, ""]) -> PyTree:
        """The value pushed `pushes` pushes ago, 1 for the latest, up to `length`."""
        if self.length == 1:  # no cursor to follow: a step with the shortest delay costs no indexing
            return jax.tree.map(lambda leaf: leaf[0], self.values)
        return jax.tree.map(lambda leaf: leaf[(self.cursor - pushes) % self.length], self.values)

    def push(self, value: PyTree) -> RingBuffer:
        """The buffer after `value` has replaced the oldest."""
        if self.length == 1:
            return RingBuffer(
                jax.tree.map(lambda leaf, new: jnp.broadcast_to(new, leaf.shape), self.values, value), self.cursor
            )
        values = jax.tree.map(lambda leaf, new: leaf.at[self.cursor].set(new), self.values, value)
        return RingBuffer(values, (self.cursor + 1) % self.length)


class Delay(System):
    """Its output is the input of `steps` steps ago; a Moore system, so it closes loops.

    **Arguments:** `template`: the shape and type of the signal, and what is put out before the first input arrives.
    """

    template: PyTree = fixed()
    steps: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"A delay of {self.steps} steps is none; at least 1 is wanted.")

    def init(self, key: PRNGKeyArray) -> RingBuffer:
        return RingBuffer.filled(jax.tree.map(jnp.asarray, self.template), self.steps)

    def step(self, state: RingBuffer, inputs: PyTree, key: PRNGKeyArray | None = None) -> tuple[RingBuffer, PyTree]:
        return state.push(inputs), state.oldest()

    def readout(self, state: RingBuffer) -> PyTree:
        return state.oldest()


class SynapticState(NamedTuple):
    """Input that is on its way: `pending[(cursor + d) % slots]` arrives d steps from now."""

    pending: Float[Array, "slots post"]
    cursor: Int[Array, ""]
    overflow: Int[Array, ""]


class SynapticDelays(System):
    """A dense projection in which every synapse has a weight and a delay of its own.

    Input: presynaptic spikes (pre,), 0 or 1 (graded values are allowed in the `"gather"` mode). Output: summed input of
    each postsynaptic neuron (post,). A spike at step t through a synapse of delay d arrives at step t + d; d = 0 is the
    same step.

    `mode="events"` walks only the rows of active inputs, at most `max_events` a step; more are counted in
    `state.overflow` and lost: call `check(state)` after the rollout. `mode="gather"` keeps the history of the inputs and
    reads all synapses each step; use it to train through spikes.

    **Arguments:** `weights` (pre, post); `delays` (pre, post), whole steps.
    """

    weights: Float[Array, "pre post"]
    delays: Int[Array, "pre post"] = fixed()
    slots: int = eqx.field(static=True)
    max_events: int = eqx.field(static=True)
    mode: Literal["events", "gather"] = eqx.field(static=True)

    def __init__(
        self, weights: Any, delays: Any, *, max_events: int | None = None, mode: Literal["events", "gather"] = "events"
    ) -> None:
        self.weights = jnp.asarray(weights)
        self.delays = jnp.asarray(delays, jnp.int32)
        if self.weights.shape != self.delays.shape:
            raise InputError(f"Weights are {self.weights.shape} and delays {self.delays.shape}; they must agree.")
        if int(self.delays.min()) < 0:
            raise InputError(f"The smallest delay is {int(self.delays.min())} steps; delays are not negative.")
        self.slots = int(self.delays.max()) + 1
        self.max_events = self.weights.shape[0] if max_events is None else max_events
        self.mode = mode

    def init(self, key: PRNGKeyArray) -> SynapticState:
        pre, post = self.weights.shape
        width = post if self.mode == "events" else pre
        empty = jnp.zeros((self.slots, width), self.weights.dtype)
        return SynapticState(empty, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def step(
        self, state: SynapticState, inputs: Float[Array, " pre"], key: PRNGKeyArray | None = None
    ) -> tuple[SynapticState, Float[Array, " post"]]:
        return (self._events if self.mode == "events" else self._gather)(state, inputs)

    def _events(self, state: SynapticState, spikes: Array) -> tuple[SynapticState, Array]:
        pre, post = self.weights.shape
        (active,) = jnp.nonzero(spikes, size=self.max_events, fill_value=pre)
        weights = self.weights.at[active].get(mode="fill", fill_value=0.0)
        slot = (state.cursor + self.delays.at[active].get(mode="fill", fill_value=0)) % self.slots
        pending = state.pending.at[slot, jnp.arange(post)[None, :]].add(weights)
        lost = jnp.maximum(jnp.count_nonzero(spikes) - self.max_events, 0).astype(jnp.int32)
        arriving = pending[state.cursor]
        pending = pending.at[state.cursor].set(0.0)
        return SynapticState(pending, (state.cursor + 1) % self.slots, state.overflow + lost), arriving

    def _gather(self, state: SynapticState, spikes: Array) -> tuple[SynapticState, Array]:
        history = state.pending.at[state.cursor].set(spikes)
        slot = (state.cursor - self.delays) % self.slots
        arriving = jnp.sum(self.weights * history[slot, jnp.arange(self.weights.shape[0])[:, None]], axis=0)
        return SynapticState(history, (state.cursor + 1) % self.slots, state.overflow), arriving

    def check(self, state: SynapticState) -> None:
        """Raises `EventOverflowError` where spikes were lost because a step had more than `max_events`."""
        lost = int(state.overflow)
        if lost:
            raise EventOverflowError(
                f"{lost} spikes were lost: a step had more than max_events = {self.max_events} active inputs; raise it."
            )
