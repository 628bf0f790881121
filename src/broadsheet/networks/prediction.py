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
    """Outcome (-1 for none), time of the event (ms), whether statistics changed before it, and the cue, of each trial
    (trials,).
    """

    outcomes: Int[Array, " trials"]
    times: Float[Array, " trials"]
    switched: Bool[Array, " trials"]
    cues: Int[Array, " trials"]


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
        times, cues = jnp.full(block.trials, block.time), jnp.zeros(block.trials, int)
        parts.append(Trials(jnp.where(outcome < len(p), outcome, OMITTED), times, switched, cues))
    return Trials(*(jnp.concatenate(field) for field in zip(*parts, strict=True)))


def interleaved(key: PRNGKeyArray, courses: Sequence[Trials]) -> Trials:
    """Trials of several cues, numbered in this order, in one random order that keeps the order of each cue's own."""
    sizes = [len(course.outcomes) for course in courses]
    cues = jax.random.permutation(key, jnp.repeat(jnp.arange(len(sizes)), jnp.asarray(sizes), total_repeat_length=sum(sizes)))
    place = jnp.argsort(jnp.argsort(cues, stable=True))  # of the n-th trial of a cue, among all trials sorted by cue
    joined = Trials(*(jnp.concatenate(field) for field in zip(*courses, strict=True)))
    return Trials(*(field[place] for field in joined))._replace(cues=cues)


class Library(NamedTuple):
    """Features of trajectories, as many of each cue, cue after cue; the times at which they were taken, ms; how many cues."""

    features: Float[Array, "trajectories time features"]
    times: Float[Array, " time"]
    cues: int = 1


def serial_compound(times: Float[Array, " time"], cues: int = 1) -> Library:
    """Features without a network: one for each time after each cue, 1 then and 0 else, as models of conditioning have them."""
    features = jnp.eye(cues * len(times)).reshape(cues, len(times), -1)
    return Library(features, times, cues)


def library(
    system: Reservoir, key: PRNGKeyArray, *, trials: int = 12, steps: int = 600, start: int = 100, every: int = 3,
    tonic: float = 0.3,
) -> Library:  # fmt: skip
    """Features of as many trials of each of the reservoir's cues, from `start` ms on, each `every` ms; centred and scaled over
    all of them. `tonic`: strength of a cue after its first 100 ms.
    """
    cues = system.cue.shape[1]
    keys = jax.random.split(key, cues * trials)
    filtered = jnp.concatenate([
        trajectories(system, cue_course(steps, cue, cues, tonic=tonic), keys[cue * trials : (cue + 1) * trials], every)[1]
        for cue in range(cues)
    ])  # fmt: skip
    times = jnp.arange(every, steps + 1, every) * 1.0
    late = np.asarray(times) >= start
    return Library(Features.of(filtered)(filtered)[:, late], times[late], cues)


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
    """Runs trials through a read-out that learns in each; each takes one trajectory of its cue at random.

    On trials without an outcome the gate opens at the time that was predicted.

    **Arguments:** `rule`: one that is modulated by a gate, `ErrorModulated` or `RecursiveLeastSquares`, on weights (features,
    outcomes); `off`, `on`: of the gate; `reset`: whether the rule is told when statistics change.
    """
    of_each = given.features.shape[0] // given.cues
    chosen = trials.cues * of_each + jax.random.randint(key, trials.outcomes.shape, 0, of_each)

    def one(state: Any, now: tuple) -> tuple[Any, tuple]:
        (outcome, time, switched, _), which = now
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
