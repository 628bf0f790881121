"""Reference processes of Schrödinger bridges: a drift with parameters, as a plain function, and noise of constant strength.

A family of references is a function `drift(params, x, t)` of one state (d,) at one time; `params` is any tree of arrays, whose
values are where learning starts. Steps are Euler's and Maruyama's: the discretised process is the one that is bridged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from broadsheet.errors import InputError

Drift = Callable[[Float[Array, " d"], Float[Array, ""]], Float[Array, " d"]]
"""Of a state at a time. One with numbers in it should be an Equinox module: functions are compiled once each."""


class ReferenceSDE(eqx.Module):
    """`dX = drift(params, X, t) dt + sigma dW`.

    **Arguments:**

    - `drift`: a plain function of (params, x (d,), t) to (d,), of a module's top level where the process is to be pickled.
    - `params`: its numbers, to begin with.
    - `sigma`: volatility, above 0, in units of x over the root of the unit of time.

    **Raises:** `InputError` for a volatility that is not above 0.
    """

    params: PyTree
    sigma: Float[Array, ""]
    drift: Callable[[PyTree, Array, Array], Array] = eqx.field(static=True)

    def __init__(self, drift: Callable[[PyTree, Array, Array], Array], params: PyTree = None, sigma: float = 0.1) -> None:
        if not isinstance(sigma, jax.core.Tracer) and not sigma > 0:
            raise InputError(f"sigma is {sigma:g}; a volatility above 0 is wanted.")
        self.drift = drift
        self.params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float) if eqx.is_array_like(leaf) else leaf, params)
        self.sigma = jnp.asarray(sigma, float)

    def __call__(self, x: Float[Array, " d"], t: Float[Array, ""]) -> Float[Array, " d"]:
        return self.drift(self.params, x, t)


def no_drift(params: PyTree, x: Float[Array, " d"], t: Float[Array, ""]) -> Float[Array, " d"]:
    """Brownian motion's."""
    return jnp.zeros_like(x)


def linear(params: dict[str, Any], x: Float[Array, " d"], t: Float[Array, ""]) -> Float[Array, " d"]:
    """`A x + b`, with `params` of `A` (d, d) and `b` (d,)."""
    return params["A"] @ x + params["b"]


def lotka_volterra(params: dict[str, Any], x: Float[Array, "2"], t: Float[Array, ""]) -> Float[Array, "2"]:
    """Prey and predators: `a x - b x y` and `d x y - g y`, at the absolute values of the rates."""
    a, b, d, g = (jnp.abs(params[name]) for name in "abdg")
    return jnp.stack([a * x[0] - b * x[0] * x[1], d * x[0] * x[1] - g * x[1]])


def repressilator(params: dict[str, Any], x: Float[Array, "3"], t: Float[Array, ""]) -> Float[Array, "3"]:
    """Three genes in a ring: `beta / (1 + (x_prev / k)^n) - gamma x`, concentrations below 0 as 0 (Elowitz and Leibler, Nature
    403, 335 (2000), without messengers)."""
    beta, n, k, gamma = (jnp.abs(params[name]) for name in ("beta", "n", "k", "gamma"))
    x = jnp.maximum(x, 0) + 1e-8
    return beta * jax.nn.sigmoid(-n * jnp.log(jnp.roll(x, 1) / k)) - gamma * x


def vortex(params: dict[str, Any], x: Float[Array, "2"], t: Float[Array, ""]) -> Float[Array, "2"]:
    """A rotating current about (x0, y0): `s (y - y0) exp(-l)` and `-s (x - x0)`, ellipses whose axes differ by `exp(l / 2)`."""
    away = x - jnp.stack([params["x0"], params["y0"]])
    return params["s"] * jnp.stack([away[1] * jnp.exp(-params["l"]), -away[0]])


def lamb_oseen(params: dict[str, Any], x: Float[Array, "2"], t: Float[Array, ""]) -> Float[Array, "2"]:
    """A viscous vortex about (x0, y0): at r, in units of `exp(scale)`, the speed is `circulation (1 - exp(-r²)) / r`."""
    away = (x - jnp.stack([params["x0"], params["y0"]])) * jnp.exp(-params["scale"])
    squared = jnp.maximum((away**2).sum(), 1e-12)
    return params["circulation"] * -jnp.expm1(-squared) / squared * jnp.stack([-away[1], away[0]])


class Potential(eqx.Module):
    """Dense layers with ReLU between, (d,) to a number."""

    layers: tuple[eqx.nn.Linear, ...]

    def __init__(self, d: int, hidden: tuple[int, ...] = (128, 64, 64), *, key: PRNGKeyArray) -> None:
        sizes = (d, *hidden, 1)
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(eqx.nn.Linear(a, b, key=k) for a, b, k in zip(sizes[:-1], sizes[1:], keys, strict=True))

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x)[0]


def gradient_field(params: Callable[[Array], Array], x: Float[Array, " d"], t: Float[Array, ""]) -> Float[Array, " d"]:
    """The slope of a potential, such as `Potential(d, key=…)`."""
    return jax.grad(params)(x)


def brownian(sigma: float = 0.1) -> ReferenceSDE:
    """Brownian motion as the reference: bridges of it are entropic transport."""
    return ReferenceSDE(no_drift, None, sigma)


@eqx.filter_jit
def euler_paths(
    drift: Drift, sigma: Float[Array, ""], x: Float[Array, "n d"], times: Float[Array, " times"], key: PRNGKeyArray
) -> Float[Array, "times n d"]:
    """Paths from x at `times[0]`, at all times. Times may fall: then the drift is that of the time reversed, and x is at
    `times[0]` as well."""

    def step(x: Array, given: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        now, then, k = given
        width = jnp.abs(then - now)
        rate = jax.vmap(drift, (0, None))(x, now)
        x = x + width * rate + sigma * jnp.sqrt(width) * jax.random.normal(k, x.shape, x.dtype)
        return x, x

    _, path = jax.lax.scan(step, x, (times[:-1], times[1:], jax.random.split(key, len(times) - 1)))
    return jnp.concatenate([x[None], path])


class Transitions(NamedTuple):
    """Where paths from each of n points are, to first order in the noise; exact for drifts linear in x.

    - `mean` (steps + 1, n, d): the path without noise; `covariance` (n, d, d): of the last point.
    - `gain` (steps + 1, n, d, d): the covariance of each point with the last, times the inverse of the last's: 0 at the start
      and the identity at the end. A path to which `gain (y - end)` is added ends in y, and has the law of the paths that do.
    """

    mean: Float[Array, "times n d"]
    covariance: Float[Array, "n d d"]
    gain: Float[Array, "times n d d"]


@eqx.filter_jit
def transitions(drift: Drift, sigma: Float[Array, ""], x: Float[Array, "n d"], times: Float[Array, " times"]) -> Transitions:
    """The linear-noise approximation of Euler's steps (van Kampen, Can. J. Phys. 39, 551 (1961))."""
    eye = jnp.eye(x.shape[1], dtype=x.dtype)

    def of_one(x: Array) -> Transitions:
        def forth(carry: tuple, now: tuple[Array, Array]) -> tuple:
            m, S = carry
            start, width = now
            J = eye + width * jax.jacfwd(drift)(m, start)
            m, S = m + width * drift(m, start), J @ S @ J.T + sigma**2 * width * eye
            return (m, S), (m, S, J)

        zero = jnp.zeros_like(eye)
        last: Array
        means: Array
        spreads: Array
        flows: Array
        (_, last), (means, spreads, flows) = jax.lax.scan(forth, (x, zero), (times[:-1], jnp.diff(times)))

        def back(onward: Array, J: Array) -> tuple[Array, Array]:
            return onward @ J, onward

        first, onward = jax.lax.scan(back, eye, flows, reverse=True)  # of each later point: how the last one moves with it
        spreads, onward = jnp.concatenate([zero[None], spreads]), jnp.concatenate([first[None], onward])
        whiten = inverse_lower(jnp.linalg.cholesky(last))
        gain = jnp.swapaxes(onward @ spreads, 1, 2) @ whiten.T @ whiten
        return Transitions(jnp.concatenate([x[None], means]), last, gain)

    found = jax.lax.map(of_one, x, batch_size=256)
    return Transitions(jnp.swapaxes(found.mean, 0, 1), found.covariance, jnp.swapaxes(found.gain, 0, 1))


def inverse_lower(factor: Float[Array, "*n d d"]) -> Float[Array, "*n d d"]:
    """Inverses of lower triangular matrices."""
    unit = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    return jax.scipy.linalg.solve_triangular(factor, unit, lower=True)


def grid(start: float, stop: float, dt: float) -> np.ndarray:
    """Times from start to stop in equal steps of at most dt."""
    return np.linspace(start, stop, max(1, int(np.ceil((stop - start) / dt - 1e-9))) + 1)


def family(name: str, dimensions: int, sigma: float, key: PRNGKeyArray) -> ReferenceSDE:
    """A family of references by its name in `FAMILIES`, where learning begins from near no drift.

    **Raises:** `InputError` for an unknown name, and for another number of dimensions than the family has.
    """
    if name not in FAMILIES:
        raise InputError(f"{name!r} is no family of references; there are {', '.join(FAMILIES)}.")
    drift, wanted, start = FAMILIES[name]
    if wanted not in (None, dimensions):
        raise InputError(f"The family {name} is of {wanted} dimensions; the data have {dimensions}.")
    return ReferenceSDE(drift, start(dimensions, key), sigma)


def _numbers(**values: float) -> Callable[[int, PRNGKeyArray], dict[str, float]]:
    return lambda dimensions, key: values


FAMILIES: dict[str, tuple[Callable[..., Array], int | None, Callable[[int, PRNGKeyArray], PyTree]]] = {
    "brownian": (no_drift, None, lambda dimensions, key: None),
    "linear": (linear, None, lambda d, key: {"A": jnp.zeros((d, d)), "b": jnp.zeros(d)}),
    "gradient": (gradient_field, None, lambda d, key: Potential(d, key=key)),
    "lotka-volterra": (lotka_volterra, 2, _numbers(a=1e-5, b=1e-5, d=1e-5, g=1e-5)),
    "repressilator": (repressilator, 3, _numbers(beta=1e-5, n=1.0, k=1.0, gamma=1e-5)),
    "vortex": (vortex, 2, _numbers(x0=0.0, y0=0.0, l=0.0, s=1e-5)),
    "lamb-oseen": (lamb_oseen, 2, _numbers(x0=0.0, y0=0.0, scale=0.0, circulation=1e-5)),
}
"""Families by name: the drift, its dimensions (any where None), and the parameters to begin with."""
