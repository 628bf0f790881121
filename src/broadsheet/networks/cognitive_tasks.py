"""Short trials of cognitive tasks for networks that answer at every step, and images row by row.

Timing as in arXiv 2310.08513: 8 steps of 100 ms. The trials are after NeuroGym's PerceptualDecisionMaking-v0,
DelayMatchSample-v0 and ContextDecisionMaking-v0 with that timing: noise of deviation `1 / sqrt(dt)`, dt in ms, on the evidence
while it is shown, and a fixation cue until the decision. The answer is 0 (fixate) until then.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.errors import InputError

UNASKED = -1
"""Label of a step at which no answer is asked for."""
STEPS = 8
NOISE = 0.1

Trials = tuple[Float[Array, "batch time inputs"], Int[Array, "batch time"]]
CognitiveTask = Callable[[PRNGKeyArray, int], Trials]
"""(key, count) to inputs and the label of each step."""


@functools.partial(jax.jit, static_argnums=1)
def perceptual_decision(key: PRNGKeyArray, count: int, *, noise: float = NOISE) -> Trials:
    """2AF: seven steps of noisy evidence for left and right, then the decision which was stronger.

    Inputs: fixation, evidence of two sides, `½ (1 ± coherence)`, of 0, 6.4, 12.8, 25.6 or 51.2 %. Labels 0, then 1 or 2.
    """
    k_side, k_strength, k_noise = jax.random.split(key, 3)
    side = jax.random.randint(k_side, (count,), 0, 2)
    coherence = jax.random.choice(k_strength, jnp.array([0.0, 0.064, 0.128, 0.256, 0.512]), (count,))
    shown = jnp.arange(STEPS) < STEPS - 1
    return _trials(_evidence(k_noise, side, coherence, shown, noise), side)


@functools.partial(jax.jit, static_argnums=1)
def delay_match(key: PRNGKeyArray, count: int, *, noise: float = NOISE) -> Trials:
    """DMS: a sample of one step, five steps of delay, a test of one step, then the decision whether they were the same.

    Inputs: fixation, two channels of the stimulus (1 and 0, or 0 and 1). Labels 0, then 1 (match) or 2.
    """
    k_side, k_match, *k_noise = jax.random.split(key, 4)
    side = jax.random.randint(k_side, (count,), 0, 2)
    other = jax.random.randint(k_match, (count,), 0, 2)
    certain, steps = jnp.ones(count), jnp.arange(STEPS)
    sample = _evidence(k_noise[0], side, certain, steps == 0, noise)
    test = _evidence(k_noise[1], (side + other) % 2, certain, steps == STEPS - 2, noise)
    return _trials(sample + test, other)


@functools.partial(jax.jit, static_argnums=1)
def context_decision(key: PRNGKeyArray, count: int, *, noise: float = NOISE) -> Trials:
    """CXT: two steps of evidence in two modalities, five of delay, then the decision in the one that a constant cue names.

    Inputs: fixation, two channels of each modality (coherences of 5, 15 or 50 %), two of the cue. Labels 0, then 1 or 2.
    """
    k_sides, k_strength, k_context, *k_noise = jax.random.split(key, 5)
    sides = jax.random.randint(k_sides, (2, count), 0, 2)
    coherences = jax.random.choice(k_strength, jnp.array([0.05, 0.15, 0.5]), (2, count))
    context = jax.random.randint(k_context, (count,), 0, 2)
    shown = jnp.arange(STEPS) < 2
    evidence = [_evidence(k, side, c, shown, noise) for k, side, c in zip(k_noise, sides, coherences, strict=True)]
    cue = jnp.broadcast_to(jax.nn.one_hot(context, 2)[:, None], (count, STEPS, 2))
    return _trials(jnp.concatenate([*evidence, cue], axis=2), jnp.take_along_axis(sides, context[None], axis=0)[0])


def _evidence(key: PRNGKeyArray, side: Array, coherence: Array, shown: Array, noise: float) -> Array:
    """(batch, time, 2): `½ (1 ± coherence)` with noise while it is shown."""
    toward = jnp.where(side == 0, coherence, -coherence)
    mean = 0.5 * (1 + jnp.stack([toward, -toward], axis=1))
    noisy = mean[:, None] + noise * jax.random.normal(key, (len(side), STEPS, 2))
    return jnp.where(shown[:, None], noisy, 0.0)


def _trials(channels: Array, choice: Array) -> Trials:
    """Channels with the fixation cue before them, and the choice as label of the last step."""
    fixation = jnp.broadcast_to((jnp.arange(STEPS) < STEPS - 1)[:, None], (len(channels), STEPS, 1)).astype(channels.dtype)
    labels = jnp.zeros((len(channels), STEPS), choice.dtype).at[:, -1].set(1 + choice)
    return jnp.concatenate([fixation, channels], axis=2), labels


class ImageRows(eqx.Module):
    """Images shown one row a step, with the label asked for at the last one; drawn with replacement."""

    images: Float[Array, "samples rows columns"]
    labels: Int[Array, " samples"]

    def __init__(self, images: Float[np.ndarray, "samples rows columns"], labels: Int[np.ndarray, " samples"]) -> None:
        if np.ndim(images) != 3 or len(images) != len(labels) or not len(labels):
            raise InputError(f"ImageRows: images of {np.shape(images)} and {len(labels)} labels; as many, grey, are wanted.")
        self.images, self.labels = jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32)

    def __call__(self, key: PRNGKeyArray, count: int) -> Trials:
        rows = jax.random.randint(key, (count,), 0, len(self.labels))
        asked = jnp.full((count, self.images.shape[1]), UNASKED, jnp.int32)
        return self.images[rows], asked.at[:, -1].set(self.labels[rows])


TASKS: dict[str, CognitiveTask] = {"2AF": perceptual_decision, "DMS": delay_match, "CXT": context_decision}
"""The tasks of trials by the names of arXiv 2310.08513."""
CHANNELS = {"2AF": (3, 3), "DMS": (3, 3), "CXT": (7, 3)}
"""Inputs and outputs of each."""


def step_loss(logits: Float[Array, "batch time classes"], labels: Int[Array, "batch time"]) -> Float[Array, ""]:
    """Mean cross-entropy over the steps at which an answer is asked for."""
    asked = labels != UNASKED
    scores = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(scores, jnp.maximum(labels, 0)[..., None], axis=2)[..., 0]
    return -jnp.sum(jnp.where(asked, chosen, 0.0)) / jnp.sum(asked)


def decisions_right(logits: Float[Array, "batch time classes"], labels: Int[Array, "batch time"]) -> Float[Array, ""]:
    """Share of right answers at the last step."""
    return jnp.mean(jnp.argmax(logits[:, -1], axis=1) == labels[:, -1])
