"""Numbers as spikes, and spikes as numbers: rate, latency, Poisson and Markov codes with their decoders.

Spikes are arrays (time, …) of 0 and 1, one entry a step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.errors import InputError
from broadsheet.numerics.checks import concrete


def constant_current(x: Float[Array, "*shape"], steps: int) -> Float[Array, "time *shape"]:
    """The same value in every step: what a static image is to neurons that integrate."""
    return jnp.broadcast_to(x, (_whole("steps", steps), *x.shape))


def rate_code(x: Float[Array, "*shape"], steps: int, key: PRNGKeyArray) -> Float[Array, "time *shape"]:
    """Independent spikes with the probability `x`, from 0 to 1, in each step."""
    _within("x", x, 0.0, 1.0)
    return (jax.random.uniform(key, (_whole("steps", steps), *x.shape)) < x).astype(x.dtype)


def poisson_trains(
    rate: Float[Array, "*shape"], steps: int, key: PRNGKeyArray, *, dt: float = 1.0
) -> Float[Array, "time *shape"]:
    """Poisson spikes at a rate in spikes/s, at most one a step of `dt` ms: probability `1 - exp(-rate dt / 1000)`."""
    _within("rate", rate, 0.0, jnp.inf)
    return rate_code(-jnp.expm1(-rate * dt / 1000), steps, key)


class PoissonEvents(NamedTuple):
    """Spikes in order of time: step and input of each (events,), of which the first `drawn` are real; how many more there would
    have been."""

    steps: Int[Array, " events"]
    inputs: Int[Array, " events"]
    drawn: Int[Array, ""]
    lost: Int[Array, ""]


def poisson_events(rates: Float[Array, " inputs"], steps: int, key: PRNGKeyArray, *, dt: float, size: int) -> PoissonEvents:
    """The spikes of `poisson_trains` as events, several of an input in a step possible: work is that of `size` events.

    **Arguments:** `rates`: spikes/s of each input; `steps`: of `dt` ms; `size`: room for events.
    """
    k_count, k_times, k_inputs = jax.random.split(key, 3)
    total = rates.sum()
    drawn = jax.random.poisson(k_count, total * (steps * dt) / 1000).astype(jnp.int32)
    count = jnp.minimum(drawn, size)
    gaps = jnp.where(jnp.arange(size + 1) <= count, jax.random.exponential(k_times, (size + 1,)), 0.0)
    reached = jnp.cumsum(gaps)  # as a share of the last, uniform times in their order
    at = jnp.minimum(reached[:-1] / reached[-1] * steps, steps - 1).astype(jnp.int32)
    shares = jnp.cumsum(rates) / jnp.maximum(total, 1e-9)
    inputs = jnp.searchsorted(shares, jax.random.uniform(k_inputs, (size,))).astype(jnp.int32)
    return PoissonEvents(at, jnp.minimum(inputs, rates.shape[0] - 1), count, drawn - count)


def markov_trains(
    probability: Float[Array, "*shape"], correlation: Any, steps: int, key: PRNGKeyArray
) -> Float[Array, "time *shape"]:
    """Two-state Markov chains with a mean of `probability` spikes a step and this correlation of neighbouring steps.

    At `correlation = 0` they are independent; above 0 spikes come in bursts. The chains start from their long-run state.

    **Raises:** `InputError` where a correlation below 0 is impossible at this probability.
    """
    _within("probability", probability, 0.0, 1.0)
    _within("correlation", correlation, -1.0, 1.0)
    p, c = jnp.asarray(probability), jnp.asarray(correlation)
    after_spike, after_none = p + c * (1 - p), p - c * p
    known = concrete(jnp.minimum(after_spike, 1 - after_none).min())
    if known is not None and known < -1e-6:
        raise InputError(f"correlation = {correlation} is impossible at the probability {probability}.")
    first, rest = jax.random.split(key)
    start = (jax.random.uniform(first, p.shape) < p).astype(p.dtype)

    def step(last: Array, u: Array) -> tuple[Array, Array]:
        now = (u < jnp.where(last > 0, after_spike, after_none)).astype(p.dtype)
        return now, now

    draws = jax.random.uniform(rest, (_whole("steps", steps) - 1, *p.shape))
    return jnp.concatenate([start[None], jax.lax.scan(step, start, draws)[1]])


def latency_code(
    x: Float[Array, "*shape"], steps: int, *, tau: float = 5.0, threshold: float = 0.01
) -> Float[Array, "time *shape"]:
    """One spike each, the earlier the larger the value: at `tau log(x / (x - threshold))` steps, none at or below threshold.

    That is when a leaky neuron with time constant `tau` steps reaches the threshold under the current `x`.
    """
    if not tau > 0 or not threshold > 0:
        raise InputError(f"tau = {tau} and threshold = {threshold}; numbers above 0 are wanted.")
    above = x > threshold
    at = jnp.where(above, tau * jnp.log(jnp.where(above, x, 1.0) / jnp.where(above, x - threshold, 1.0)), steps)
    return (jnp.round(at)[None] == jnp.arange(_whole("steps", steps)).reshape(-1, *[1] * x.ndim)).astype(x.dtype)


def spike_count(spikes: Float[Array, "time *shape"]) -> Float[Array, "*shape"]:
    """Number of spikes."""
    return spikes.sum(axis=0)


def firing_rate(spikes: Float[Array, "time *shape"], *, dt: float = 1.0) -> Float[Array, "*shape"]:
    """Spikes a second, for steps of `dt` ms."""
    return spikes.mean(axis=0) * 1000 / dt


def first_spike(spikes: Float[Array, "time *shape"]) -> Float[Array, "*shape"]:
    """Step of the first spike; the number of steps where there is none."""
    any_spike = (spikes > 0).any(axis=0)
    return jnp.where(any_spike, (spikes > 0).argmax(axis=0), spikes.shape[0]).astype(spikes.dtype)


def weighted_rate(spikes: Float[Array, "time *shape"], tau: float) -> Float[Array, "*shape"]:
    """Mean over time with weights `exp(-(T - t) / tau)`, tau in steps: late spikes count more."""
    if not tau > 0:
        raise InputError(f"tau = {tau} steps; a number above 0 is wanted.")
    weights = jnp.exp((jnp.arange(spikes.shape[0]) + 1 - spikes.shape[0]) / tau)
    return jnp.tensordot(weights / weights.sum(), spikes, 1)


def exponential_trace(spikes: Float[Array, "time *shape"], tau: float, *, dt: float = 1.0) -> Float[Array, "time *shape"]:
    """Each spike leaves a trace that decays with `tau` ms: `x <- exp(-dt / tau) x + s`."""
    if not tau > 0:
        raise InputError(f"tau = {tau} ms; a number above 0 is wanted.")
    decay = jnp.exp(-dt / tau)

    def step(trace: Array, s: Array) -> tuple[Array, Array]:
        trace = decay * trace + s
        return trace, trace

    return jax.lax.scan(step, jnp.zeros_like(spikes[0]), spikes)[1]


def double_exponential(
    spikes: Float[Array, "time *shape"], rise: float = 3.0, decay: float = 20.0, dt: float = 1.0
) -> Float[Array, "time *shape"]:
    """Spikes filtered twice: `h <- h exp(-dt / rise) + s`, then `r <- r q + (1 - q) h` with `q = exp(-dt / decay)`; in ms."""
    if not (rise > 0 and decay > 0):
        raise InputError(f"rise = {rise} and decay = {decay} ms; times above 0 are wanted.")
    first, second = jnp.exp(-dt / rise), jnp.exp(-dt / decay)

    def step(carry: tuple, s: Array) -> tuple[tuple, Array]:
        h, r = carry
        h = first * h + s
        r = second * r + (1 - second) * h
        return (h, r), r

    zero = jnp.zeros_like(spikes[0])
    return jax.lax.scan(step, (zero, zero), spikes)[1]


def _within(name: str, value: Any, low: float, high: float) -> None:
    known = concrete(value)
    if known is not None and not ((known >= low) & (known <= high)).all():
        raise InputError(f"{name} must lie between {low:g} and {high:g}, and NaN is neither.")


def _whole(name: str, value: int) -> int:
    if value < 1:
        raise InputError(f"{name} = {value}; at least 1 is wanted.")
    return value
