"""Stochastic steps: overdamped Langevin and geometric Brownian motion."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from broadsheet.dynamics.system import System, as_array
from broadsheet.errors import InputError


def overdamped_step(
    position: Float[Array, "..."],
    force: Float[Array, "..."],
    key: PRNGKeyArray,
    *,
    dt: float | Float[Array, ""],
    mobility: float | Float[Array, "..."],
    diffusion: float | Float[Array, "..."],
) -> Float[Array, "..."]:
    """Euler-Maruyama step of `dr = mobility * force * dt + sqrt(2 diffusion) dW`.

    Its stationary law for a force `-grad U` is `exp(-U mobility / diffusion)` up to O(dt); `mobility = diffusion / kT`
    is the fluctuation-dissipation theorem, and stochastic-gradient Langevin sampling is `mobility = diffusion = 1` with
    `dt` the step size.
    """
    noise = jax.random.normal(key, position.shape, position.dtype)
    return position + mobility * force * dt + jnp.sqrt(2 * diffusion * dt) * noise


def geometric_brownian_step(
    value: Float[Array, "..."],
    key: PRNGKeyArray,
    *,
    dt: float | Float[Array, ""],
    drift: float | Float[Array, "..."],
    volatility: float | Float[Array, "..."],
) -> Float[Array, "..."]:
    """Exact step of `dX = drift X dt + volatility X dW` (Ito): X keeps its sign and `E[X_t] = X_0 exp(drift t)`."""
    noise = jax.random.normal(key, value.shape, value.dtype)
    return value * jnp.exp((drift - volatility**2 / 2) * dt + volatility * jnp.sqrt(dt) * noise)


class OverdampedLangevin(System):
    """Positions under a force and thermal noise; the output is the position after the step.

    **Arguments:** `force`: a function of the position; `start`: position at time 0; `dt`, `mobility`, `diffusion` as in
    `overdamped_step`, in any consistent units. The input, where there is one, is added to the force.
    """

    force: Callable[[PyTree], PyTree]
    start: Float[Array, "..."]
    mobility: Float[Array, ""]
    diffusion: Float[Array, ""]
    dt: float = eqx.field(static=True)

    def __init__(self, force: Callable, start: Array, *, dt: float, mobility: float = 1.0, diffusion: float = 1.0):
        self.force, self.start, self.dt = force, start, dt
        self.mobility, self.diffusion = as_array(mobility), as_array(diffusion)

    def init(self, key: PRNGKeyArray) -> Float[Array, "..."]:
        return self.start

    def step(
        self, state: Float[Array, "..."], inputs: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        if key is None:
            raise InputError("OverdampedLangevin draws noise: give rollout a key.")
        force = self.force(state) if inputs is None else self.force(state) + inputs
        after = overdamped_step(state, force, key, dt=self.dt, mobility=self.mobility, diffusion=self.diffusion)
        return after, after
