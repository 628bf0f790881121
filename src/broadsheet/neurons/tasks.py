"""Sequence tasks for single neurons and small networks; each is a function of a key, traced by JAX where it can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8, PRNGKeyArray
from sklearn.datasets import load_digits

Task = Callable[[PRNGKeyArray, int], tuple[Array, Array]]
"""(key, count) to inputs (count, time, channels) and labels (count,)."""


def which_pulse(
    key: PRNGKeyArray, batch: int, *, delay: int = 300, noise: float = 0.05
) -> tuple[Float[Array, "batch time 3"], Int[Array, " batch"]]:
    """A pulse on channel 0 or 1 in the first 21 steps, then noise pulses on channel 2; which one was it, `delay` later?"""
    k_which, k_when, k_noise = jax.random.split(key, 3)
    which = jax.random.randint(k_which, (batch,), 0, 2)
    when = jax.random.randint(k_when, (batch,), 0, 21)
    x = jnp.zeros((batch, 21 + delay, 3)).at[jnp.arange(batch), when, which].set(1.0)
    distraction = jax.random.bernoulli(k_noise, noise, (batch, 21 + delay)).at[:, :21].set(False)
    return x.at[..., 2].set(distraction.astype(x.dtype)), which


def branch_coincidences(
    key: PRNGKeyArray, batch: int, *, inputs: int = 4, steps: int = 40
) -> tuple[Float[Array, "batch time 2*{inputs}"], Int[Array, " batch"]]:
    """Two branches; an active one fires all its inputs within 10 steps, a quiet one a single spike. Is exactly one active?"""
    k_active, k_start, k_offset, k_lone, k_input = jax.random.split(key, 5)
    active = jax.random.bernoulli(k_active, 0.5, (batch, 2))
    start = jax.random.randint(k_start, (batch, 2, 1), 5, 25)
    together = start + jax.random.randint(k_offset, (batch, 2, inputs), 0, 10)
    lone = jax.random.randint(k_lone, (batch, 2, 1), 5, 35)
    speaker = jax.random.randint(k_input, (batch, 2, 1), 0, inputs) == jnp.arange(inputs)
    times = jnp.where(active[..., None], together, jnp.where(speaker, lone, -1))
    x = (times[..., None] == jnp.arange(steps)).astype(jnp.float32)
    return x.reshape(batch, 2 * inputs, steps).swapaxes(1, 2), active.sum(axis=1) % 2


class Batches(eqx.Module):
    """A task at a fixed batch size: a key to (inputs, labels), as `broadsheet.learn.fit` wants it."""

    task: Task
    size: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        return self.task(key, self.size)


class DigitSpikes(eqx.Module):
    """scikit-learn's 8x8 digits as spike trains of 64 channels, split into a training and a test half.

    A channel fires in each step with probability `pixel / 32` (pixels are 0 to 16).
    """

    images: Float[Array, "samples 64"]
    labels: Int[Array, " samples"]
    steps: int = eqx.field(static=True)

    def __init__(self, steps: int = 20, test: bool = False) -> None:
        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.target))  # one split for everyone
        half = order[len(order) // 2 :] if test else order[: len(order) // 2]
        self.images = jnp.asarray(digits.data[half] / 32, jnp.float32)
        self.labels = jnp.asarray(digits.target[half])
        self.steps = steps

    def single(self, key: PRNGKeyArray, batch: int) -> tuple[Array, Array]:
        """One digit: (batch, steps, 64), label 0 to 9."""
        k_row, k_spike = jax.random.split(key)
        rows = jax.random.randint(k_row, (batch,), 0, len(self.labels))
        p = jnp.broadcast_to(self.images[rows][:, None], (batch, self.steps, 64))
        return jax.random.bernoulli(k_spike, p).astype(jnp.float32), self.labels[rows]

    def adding(self, key: PRNGKeyArray, batch: int) -> tuple[Array, Array]:
        """Two digits one after the other: (batch, 2 steps, 64), label their sum, 0 to 18."""
        first, second = jax.random.split(key)
        (a, la), (b, lb) = self.single(first, batch), self.single(second, batch)
        return jnp.concatenate([a, b], axis=1), la + lb

    def pixels(self, key: PRNGKeyArray, batch: int) -> tuple[Array, Array]:
        """Pixels one by one: (batch, 64, 1) in [0, 1], label 0 to 9."""
        rows = jax.random.randint(key, (batch,), 0, len(self.labels))
        return 2 * self.images[rows][..., None], self.labels[rows]


class SpokenDigits(eqx.Module):
    """Recordings of spoken digits as spikes (samples, time, channels); labels 0-9 in one language, 10-19 in another."""

    spikes: Int8[Array, "samples time channels"]
    labels: Int[Array, " samples"]

    def __init__(self, spikes: Any, labels: Any) -> None:
        self.spikes, self.labels = jnp.asarray(spikes, jnp.int8), jnp.asarray(labels)

    def adding(self, key: PRNGKeyArray, batch: int) -> tuple[Array, Array]:
        """Two digits one after the other; the label is the sum of the digits, whatever the language."""
        a, b = jax.random.randint(key, (2, batch), 0, len(self.labels))
        x = jnp.concatenate([self.spikes[a], self.spikes[b]], axis=1)
        return x.astype(jnp.float32), self.labels[a] % 10 + self.labels[b] % 10
