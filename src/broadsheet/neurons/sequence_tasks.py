"""Sequence tasks in which a sum of past inputs is no answer; each is a function of a key, traced by JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


def marked_pulse(
    key: PRNGKeyArray, batch: int, *, delay: int = 80, early: int = 40, rate: float = 0.03, pause: int = 15
) -> tuple[Float[Array, "batch time 3"], Int[Array, " batch"]]:
    """Of pulses on channels 0 and 1, which came together with the mark, at least `delay` steps ago?

    The marked pulse and the mark, on channel 2, come in the first `early` steps; unmarked ones come on both channels at `rate`
    a step, before and after, none within `pause` steps of the mark.
    """
    k_which, k_when, k_noise = jax.random.split(key, 3)
    steps = early + delay
    which = jax.random.randint(k_which, (batch,), 0, 2)
    when = jax.random.randint(k_when, (batch,), 0, early)
    near = jnp.abs(jnp.arange(steps) - when[:, None]) <= pause
    noise = jax.random.bernoulli(k_noise, rate, (batch, steps, 2)) & ~near[..., None]
    x = jnp.concatenate([noise.astype(jnp.float32), jnp.zeros((batch, steps, 1))], axis=2)
    rows = jnp.arange(batch)
    return x.at[rows, when, which].set(1.0).at[rows, when, 2].set(1.0), which


def clustered_bursts(
    key: PRNGKeyArray, batch: int, *, inputs: int = 4, steps: int = 40, width: int = 5
) -> tuple[Float[Array, "batch time 2*{inputs}"], Int[Array, " batch"]]:
    """Two bursts of spikes on two branches: does each come to one branch, or half of each to either?

    Each input fires once, half of them in a burst of `width` steps, the others in a later one; so neither the number of a
    branch's spikes nor the times of all spikes together say which it is.
    """
    k_label, k_start, k_gap, k_order, k_first, k_offset = jax.random.split(key, 6)
    clustered = jax.random.bernoulli(k_label, 0.5, (batch, 1, 1))
    early = jax.random.randint(k_start, (batch, 1, 1), 0, steps // 2 - width)
    late = jax.random.randint(k_gap, (batch, 1, 1), steps // 2, steps - width)
    first = jax.random.bernoulli(k_first, 0.5, (batch, 1, 1))
    whole = (jnp.arange(2)[None, :, None] == 0) == first
    half = jnp.argsort(jax.random.uniform(k_order, (batch, 2, inputs)), axis=2) < inputs // 2
    begins = jnp.where(jnp.where(clustered, whole, half), early, late)
    times = begins + jax.random.randint(k_offset, (batch, 2, inputs), 0, width)
    x = (times[..., None] == jnp.arange(steps)).astype(jnp.float32)
    return x.reshape(batch, 2 * inputs, steps).swapaxes(1, 2), clustered[:, 0, 0].astype(jnp.int32)
