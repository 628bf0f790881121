"""From noise back to positive data: multiplicative steps that keep the sign, ambient ones that need not, and the flow."""

from __future__ import annotations

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.errors import InputError
from broadsheet.transport.geometric_brownian import GBM
from broadsheet.transport.score_matching import Score

Method = Literal["dale", "ambient", "flow"]
SMALLEST = 1e-30
"""What an ambient value that has left the positive half line is taken as where its score is asked for."""


def reverse_step(
    x: Float[Array, "n d"], h: Float[Array, "n d"], gbm: GBM, d: Float[Array, ""], z: Float[Array, "n d"], method: Method
) -> Float[Array, "n d"]:
    """One step of length d against time.

    - `"dale"`: `x exp(d (sigma² (1 + h) - c) + sigma sqrt(d) z)`, Euler's step of log x: never changes sign.
    - `"ambient"`: `x (1 + d (2 sigma² + sigma² h - mu) + sigma sqrt(d) z)`, Euler's step of x: coarse ones change sign.
    - `"flow"`: `x exp(d (sigma² (1 + h) / 2 - c))`, the probability flow; without noise.
    """
    variance = gbm.sigma**2
    if method == "dale":
        return x * jnp.exp(d * (variance * (1 + h) - gbm.c) + gbm.sigma * jnp.sqrt(d) * z)
    if method == "ambient":
        return x * (1 + d * (2 * variance + variance * h - gbm.mu) + gbm.sigma * jnp.sqrt(d) * z)
    return x * jnp.exp(d * (variance / 2 * (1 + h) - gbm.c))


def lognormal_start(
    gbm: GBM, mean: Float[Array, " d"], variance: Float[Array, " d"], count: int, key: PRNGKeyArray
) -> Float[Array, "count d"]:
    """Draws of the log-normal law fitted to X_T: `log x ~ N(mean + c T, variance + sigma² T)`."""
    spread = jnp.sqrt(variance + gbm.sigma**2 * gbm.T)
    return jnp.exp(mean + gbm.c * gbm.T + spread * jax.random.normal(key, (count, len(mean))))


@eqx.filter_jit
def sample_reverse(
    score: Score, gbm: GBM, start: Float[Array, "n d"], key: PRNGKeyArray, *, steps: int, method: Method = "dale",
    t_min: float | Array = 1e-3, t_max: float | Array | None = None,
    spacing: Literal["uniform", "geometric"] = "uniform", clean: bool = False,
) -> Float[Array, "n d"]:  # fmt: skip
    """The reverse-time equation from `t_max`, by default T, to `t_min` in `steps` steps; `clean`: the last adds no noise."""
    if steps < 1:
        raise InputError(f"sample_reverse: {steps} steps; at least 1 is wanted.")
    share = jnp.linspace(0.0, 1.0, steps + 1)
    begin = gbm.T if t_max is None else jnp.asarray(t_max)
    times = begin * (t_min / begin) ** share if spacing == "geometric" else begin + (t_min - begin) * share

    def step(x: Array, given: tuple[Array, Array, Array, Array]) -> tuple[Array, None]:
        now, then, k, last = given
        z = jax.random.normal(k, x.shape) * jnp.where(last & clean, 0.0, 1.0)
        h = score(jnp.maximum(x, SMALLEST), jnp.full((len(x), 1), now))
        return reverse_step(x, h, gbm, now - then, z, method), None

    given = (times[:-1], times[1:], jax.random.split(key, steps), jnp.arange(steps) == steps - 1)
    return jax.lax.scan(step, start, given)[0]


class Annealing(NamedTuple):
    """The authors' schedule: `inner` steps of length `step` at each of `levels` times from T down, the noise multiplied by
    `factor` from level to level, and `clean` steps without noise at the end. `levels * inner * step` is how far time runs back;
    it need not be T.
    """

    step: float = 6.165e-4
    inner: int = 1
    factor: float = 0.995
    levels: int = 1000
    clean: int = 0


@eqx.filter_jit
def sample_annealed(
    score: Score, gbm: GBM, start: Float[Array, "n d"], key: PRNGKeyArray, schedule: Annealing, method: Method = "dale"
) -> Float[Array, "n d"]:
    """Draws by annealed dynamics, which is not the reverse-time equation."""
    if schedule.inner < 1 or schedule.levels < 1 or schedule.clean < 0 or not schedule.step > 0:
        raise InputError(f"{schedule}: at least one step and level, of a length above 0, are wanted.")
    total = schedule.levels * schedule.inner + schedule.clean
    level = jnp.minimum(jnp.arange(total) // schedule.inner, schedule.levels - 1)
    times = gbm.T * (schedule.levels - level) / schedule.levels
    loudness = jnp.where(jnp.arange(total) < schedule.levels * schedule.inner, schedule.factor**level, 0.0)

    def one(x: Array, given: tuple[Array, Array, Array]) -> tuple[Array, None]:
        now, loud, k = given
        z = loud * jax.random.normal(k, x.shape)
        h = score(jnp.maximum(x, SMALLEST), jnp.full((len(x), 1), now))
        return reverse_step(x, h, gbm, jnp.asarray(schedule.step), z, method), None

    return jax.lax.scan(one, start, (times, loudness, jax.random.split(key, total)))[0]
