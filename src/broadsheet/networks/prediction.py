"""Predictions of what comes, when, and how probably: trials of a cue and its outcome, and read-outs that learn them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from broadsheet.errors import InputError
from broadsheet.networks.reservoir import Features, Reservoir, cue_course, trajectories

OMITTED = -1


class Block(NamedTuple):
    """Trials with one statistics: how many, the probability of each outcome, and when it comes (ms after the start)."""

    trials: int
    probabilities: tuple[float, ...]
    time: float


class Trials(NamedTuple):
    """Outcome (-1 for none), time of the event (ms), and whether statistics changed before it, of each trial (trials,)."""

    outcomes: Int[Array, " trials"]
    times: Float[Array, " trials"]
    switched: Bool[Array, " trials"]


def cue_trials(key: PRNGKeyArray, blocks: Sequence[Block]) -> Trials:
    """Outcomes drawn block after block; what is missing to a probability of 1 is that of an omission."""
    parts = []
    for number, block in enumerate(blocks):
        p = np.asarray(block.probabilities, float)
        if block.trials < 1 or (p < 0).any() or p.sum() > 1 + 1e-9:
            raise InputError(f"{block}: at least one trial, and probabilities of at most 1 together, are wanted.")
        u = jax.random.uniform(jax.random.fold_in(key, number), (block.trials,))
        outcome = jnp.searchsorted(jnp.cumsum(jnp.asarray(p)), u, side="right")
        switched = jnp.zeros(block.trials, bool).at[0].set(number > 0)
        parts.append(Trials(jnp.where(outcome < len(p), outcome, OMITTED), jnp.full(block.trials, block.time), switched))
    return Trials(*(jnp.concatenate(field) for field in zip(*parts, strict=True)))


class Library(NamedTuple):
    """Features of a cue's trajectories, and the times at which they were taken, ms."""

    features: Float[Array, "trajectories time features"]
    times: Float[Array, " time"]


def library(
    system: Reservoir, key: PRNGKeyArray, *, trials: int = 12, steps: int = 600, start: int = 100, every: int = 3
) -> Library:
    """Features of as many trials of one cue, from `start` ms on, each `every` ms; centred and scaled over all of them."""
    _, filtered = trajectories(system, cue_course(steps), jax.random.split(key, trials), every)
    times = jnp.arange(every, steps + 1, every) * 1.0
    late = np.asarray(times) >= start
    return Library(Features.of(filtered)(filtered)[:, late], times[late])


def prediction_object(
    z: Float[Array, "time outcomes"], times: Float[Array, " time"]
) -> tuple[Float[Array, ""], Float[Array, " outcomes"]]:
    """(when, how probably each outcome): the time of the largest sum over outcomes, and each one's mean within 10 ms of it."""
    when = times[jnp.argmax(z.sum(axis=1))]
    near = jnp.abs(times - when) <= 10.0
    return when, (near @ z) / near.sum()


def target(
    outcome: Array, time: Array, times: Float[Array, " time"], outcomes: int, width: float = 20.0
) -> Float[Array, "time outcomes"]:
    """A bump of this standard deviation (ms) at the event, for the outcome that came; nothing where none came."""
    return jnp.exp(-((times - time) ** 2) / (2 * width**2))[:, None] * (jnp.arange(outcomes) == outcome)


def attention(
    time: Array, times: Float[Array, " time"], *, off: Any = 0.2, on: Any = 1.0, within: float = 60.0
) -> Float[Array, " time"]:
    """The gate of learning: `on` within so many ms of the event, else `off`."""
    return jnp.where(jnp.abs(times - time) < within, on, off)


class Course(NamedTuple):
    """Of each trial, before it was learned: predicted time and probabilities, and the read-outs; and the last weights."""

    time: Float[Array, " trials"]
    probability: Float[Array, "trials outcomes"]
    z: Float[Array, "trials time outcomes"]
    weights: Float[Array, "outcomes features"]


@eqx.filter_jit
def learn(
    rule: Any, given: Library, trials: Trials, key: PRNGKeyArray, *, off: Any = 0.2, on: Any = 1.0, reset: bool = False
) -> Course:
    """Runs trials through a read-out that learns in each; each takes one trajectory of the library at random.

    On trials without an outcome the gate opens at the time that was predicted.

    **Arguments:** `rule`: one that is modulated by a gate, `ErrorModulated` or `RecursiveLeastSquares`, on weights (features,
    outcomes); `off`, `on`: of the gate; `reset`: whether the rule is told when statistics change.
    """
    chosen = jax.random.randint(key, trials.outcomes.shape, 0, given.features.shape[0])

    def one(state: Any, now: tuple) -> tuple[Any, tuple]:
        (outcome, time, switched), which = now
        if reset:
            fresh = rule.reset(state)
            state = jax.tree.map(lambda new, old: jnp.where(switched, new, old), fresh, state)
        X = given.features[which]
        z = X @ rule.learned(state)
        when, chance = prediction_object(z, given.times)
        Y = target(outcome, time, given.times, z.shape[1])
        gate = attention(jnp.where(outcome == OMITTED, when, time), given.times, off=off, on=on)
        return rule.trial(state, X, Y, gate), (when, chance, z)

    state, (when, chance, z) = jax.lax.scan(one, rule.init(key), (trials, chosen))
    return Course(when, chance, z, rule.learned(state).T)


def subspace_angle(first: Float[np.ndarray, "features _"], second: Float[np.ndarray, "features _"]) -> float:
    """The smallest principal angle between the spans of two sets of columns, degrees."""
    from scipy.linalg import subspace_angles

    return float(np.degrees(subspace_angles(first, second).min()))
