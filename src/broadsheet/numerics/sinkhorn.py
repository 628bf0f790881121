"""Optimal transport with an entropy, in the log domain: potentials, plans, and the Sinkhorn divergence of two samples.

The regularised cost of moving weights a (n points) to weights b (m points) at costs C is
`min_P <P, C> + epsilon KL(P, a b')`, equal to `<a, f> + <b, g>` at the potentials f and g, whose plan is
`P = a b' exp((f + g' - C) / epsilon)`. Potentials are found by sweeps in which both are averaged with what the other asks for,
while epsilon falls from the largest scale to its value; a last sweep without averaging makes them exact to first order.
Feydy et al., arXiv 1810.08278; schedule and last sweep are those of GeomLoss, so that figures agree sweep by sweep. Everything
goes through `jit`, `vmap` and `grad`; gradients hold the potentials fixed (the envelope theorem), at the price of one sweep.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jaxtyping import Array, Float, Int

from broadsheet.errors import InputError

Cost = Callable[[Array, Array], Array]
"""Points (n, d) and (m, d) to costs (n, m)."""


def half_squared(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """|x - y|² / 2 for all pairs."""
    return jnp.maximum((x**2).sum(1)[:, None] / 2 + (y**2).sum(1) / 2 - x @ y.T, 0.0)


class Potentials(NamedTuple):
    """Of entropic transport.

    - `f`, `g`: potentials of the two sides; `cost`: `<a, f> + <b, g>`.
    - `row_error`: how far the plan's row sums are from the weights, summed; 0 where the sweeps have converged.
    """

    f: Float[Array, " n"]
    g: Float[Array, " m"]
    cost: Float[Array, ""]
    row_error: Float[Array, ""]


def sinkhorn(
    costs: Float[Array, "n m"],
    a: Float[Array, " _"] | None = None,
    b: Float[Array, " _"] | None = None,
    *,
    epsilon: float | Float[Array, ""],
    scaling: float = 0.5,
    start: float | Float[Array, ""] | None = None,
    sweeps: int = 0,
    tolerance: float = 0.0,
) -> Potentials:
    """Potentials and cost of entropic transport between two weighted samples.

    **Arguments:**

    - `a`, `b`: weights, each summing to 1; by default equal ones. A weight may be 0.
    - `epsilon`: strength of the entropy, in units of the cost.
    - `scaling`: epsilon falls by its square from sweep to sweep, as GeomLoss counts it.
    - `start`: the first epsilon, by default the largest cost.
    - `sweeps`: more sweeps at the last epsilon, up to this many, as long as the potentials move by more than `tolerance`.

    **Raises:** `InputError` where `scaling` is not between 0 and 1 or `epsilon` is not above 0.

    **Example:**

        >>> import jax.numpy as jnp
        >>> costs = jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> found = sinkhorn(costs, epsilon=0.1, sweeps=100)
        >>> plan_of(costs, found, epsilon=0.1).round(3).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    _check(epsilon, scaling)
    a, b = _weights(a, costs.shape[0], costs), _weights(b, costs.shape[1], costs)
    held = jax.lax.stop_gradient(costs)
    first = jnp.max(held) if start is None else jnp.asarray(start, costs.dtype)
    f, g = _both_sides(held, _logs(a, b), jnp.asarray(epsilon), scaling, first, sweeps, tolerance)
    return _last_sweep(costs, held, a, b, f, g, epsilon)


def plan_of(
    costs: Float[Array, "n m"],
    found: Potentials,
    a: Float[Array, " _"] | None = None,
    b: Float[Array, " _"] | None = None,
    *,
    epsilon: float,
) -> Float[Array, "n m"]:
    """The transport plan of potentials that `sinkhorn` found; its sums are the weights where the sweeps have converged."""
    a, b = _weights(a, costs.shape[0], costs), _weights(b, costs.shape[1], costs)
    return a[:, None] * b * jnp.exp((found.f[:, None] + found.g - costs) / epsilon)


def sinkhorn_divergence(
    x: Float[Array, "n d"],
    y: Float[Array, "m e"],
    a: Float[Array, " _"] | None = None,
    b: Float[Array, " _"] | None = None,
    *,
    blur: float = 0.05,
    scaling: float = 0.5,
    cost: Cost = half_squared,
    sweeps: int = 0,
    debiased: bool = True,
) -> Float[Array, ""]:
    """S(x, y) = OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2 at epsilon = blur², never negative once the sweeps converge.

    With `sweeps=0` the value and its gradient are those of `geomloss.SamplesLoss("sinkhorn", p=2, blur=…, scaling=…)`, which
    makes about log(diameter / blur) / log(1 / scaling) + 3 sweeps: where costs are far above epsilon that is far from
    converged, and a value is to be compared only with values of the same settings. For 7 and 6 one-hot sequences of 10 symbols
    at blur 0.2 it is 2 % below the value of 20 000 more sweeps, and the gradient off by half its largest entry.

    **Arguments:** as of `sinkhorn`; `cost`: any function of two samples to the matrix of costs, smooth where they meet;
    `debiased`: whether the two terms of a sample with itself are subtracted.

    **Raises:** `InputError` where the samples differ in dimension, or settings are out of range.

    **Example:**

        >>> import jax.numpy as jnp
        >>> one_hot = jnp.eye(4)
        >>> round(float(sinkhorn_divergence(one_hot[:2], one_hot[2:], blur=0.2)), 6)  # 1 - 0.04 log 2
        0.972274
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise InputError(f"The samples have shapes {x.shape} and {y.shape}; (points, dimensions) of one dimension are wanted.")
    _check(blur, scaling)
    return _divergence(
        x, y, _weights(a, len(x), x), _weights(b, len(y), y), jnp.asarray(blur, x.dtype) ** 2, sweeps, scaling, cost, debiased
    )


@functools.partial(jax.jit, static_argnames=("scaling", "cost", "debiased"))
def _divergence(
    x: Array, y: Array, a: Array, b: Array, epsilon: Array, sweeps: int | Array, scaling: float, cost: Cost, debiased: bool
) -> Array:
    held_x, held_y = jax.lax.stop_gradient((x, y))
    costs = cost(held_x, held_y)
    if cost is half_squared:
        both = jnp.concatenate([held_x, held_y])
        first = ((both.max(0) - both.min(0)) ** 2).sum()
    else:
        first = costs.max()
    f, g = _both_sides(costs, _logs(a, b), epsilon, scaling, first, sweeps, 0.0)
    # each side's points move in a matrix of their own, and that side's potentials alone see it: row sums are then exact
    found = _last_sweep(cost(x, held_y), cost(held_x, y), a, b, f, g, epsilon)
    if not debiased:
        return found.cost
    own = [
        weights @ _own_potential(points, held, weights, epsilon, scaling, first, sweeps, cost)
        for points, held, weights in ((x, held_x, a), (y, held_y, b))
    ]
    return found.cost - own[0] - own[1]


def _check(epsilon: float | Array, scaling: float) -> None:
    if not 0 < scaling < 1:
        raise InputError(f"scaling is {scaling:g}; a number between 0 and 1 is wanted.")
    if not isinstance(epsilon, jax.Array) and not epsilon > 0:
        raise InputError(f"epsilon is {epsilon:g}; it must be above 0.")


def _weights(weights: Array | None, count: int, like: Array) -> Array:
    if weights is None:
        return jnp.full(count, 1 / count, like.dtype)
    if weights.shape != (count,):
        raise InputError(f"There are {count} points and weights of shape {weights.shape}; one weight a point is wanted.")
    return weights


def _logs(*weights: Array) -> tuple[Array, ...]:
    """Through which no gradient goes: that to the weights is the potentials."""
    return tuple(jnp.log(jax.lax.stop_gradient(each)) for each in weights)


def _soft_min(costs: Array, log_weights: Array, potential: Array, epsilon: float | Array) -> Array:
    """For each row, what the columns' potential asks for."""
    return -epsilon * logsumexp(log_weights + (potential - costs) / epsilon, axis=1)


def _stages(first: Array, epsilon: Array, scaling: float) -> Int[Array, ""]:
    """How many sweeps are above the last epsilon."""
    return jnp.maximum(jnp.ceil(jnp.log(first / epsilon) / (-2 * jnp.log(scaling))), 0).astype(int)


def _annealed(
    sweep: Callable, begin: tuple, first: Array, epsilon: Array, scaling: float, sweeps: int | Array, tolerance: float
) -> tuple[Array, ...]:
    """Potentials after all sweeps; `sweep(potentials, epsilon)` makes one."""
    stages = _stages(first, epsilon, scaling)
    fall = jnp.asarray(scaling, first.dtype)  # GeomLoss sweeps twice at the first epsilon
    made = jax.lax.fori_loop(0, stages + 1, lambda k, found: sweep(found, first * fall ** (2 * jnp.maximum(k - 1, 0))), begin)
    made = sweep(made, epsilon)

    def more(carry: tuple) -> tuple:
        k, found, _ = carry
        after = sweep(found, epsilon)
        moved = jnp.max(jnp.stack([jnp.max(jnp.abs(new - old)) for new, old in zip(after, found, strict=True)]))
        return k + 1, after, moved

    many = (0, made, jnp.asarray(jnp.inf, first.dtype))
    return jax.lax.while_loop(lambda carry: (carry[0] < sweeps) & (carry[2] > tolerance), more, many)[1]


def _both_sides(
    costs: Array,
    log_weights: tuple[Array, ...],
    epsilon: Array,
    scaling: float,
    first: Array,
    sweeps: int | Array,
    tolerance: float,
) -> tuple[Array, Array]:
    log_a, log_b = log_weights
    epsilon, first = epsilon.astype(costs.dtype), jnp.maximum(first, epsilon).astype(costs.dtype)

    def asked(f: Array, g: Array, eps: Array) -> tuple[Array, Array]:
        return _soft_min(costs, log_b, g, eps), _soft_min(costs.T, log_a, f, eps)

    def sweep(found: tuple[Array, Array], eps: Array) -> tuple[Array, Array]:
        new_f, new_g = asked(*found, eps)
        return (found[0] + new_f) / 2, (found[1] + new_g) / 2

    begin = asked(jnp.zeros_like(costs[:, 0]), jnp.zeros_like(costs[0]), first)
    return _annealed(sweep, begin, first, epsilon, scaling, sweeps, tolerance)  # type: ignore[return-value]


def _own_potential(
    points: Array, held: Array, weights: Array, epsilon: Array, scaling: float, first: Array, sweeps: int | Array, cost: Cost
) -> Array:
    """Of a sample with itself, where both potentials are one."""
    costs, (fixed,) = cost(held, held), _logs(weights)

    def sweep(found: tuple[Array], eps: Array) -> tuple[Array]:
        return ((found[0] + _soft_min(costs, fixed, found[0], eps)) / 2,)

    first = jnp.maximum(first, epsilon)
    begin = (_soft_min(costs, fixed, jnp.zeros_like(costs[0]), first),)
    (f,) = _annealed(sweep, begin, first, epsilon, scaling, sweeps, 0.0)
    return _soft_min(cost(points, held), fixed, f, epsilon)


def _last_sweep(costs_x: Array, costs_y: Array, a: Array, b: Array, f: Array, g: Array, epsilon: float | Array) -> Potentials:
    """Potentials after a sweep without averaging, through which gradients go: to costs the plan, to weights the potentials."""
    log_a, log_b = _logs(a, b)
    new_f, new_g = _soft_min(costs_x, log_b, g, epsilon), _soft_min(costs_y.T, log_a, f, epsilon)
    error = (a * jnp.abs(jnp.exp((f - jax.lax.stop_gradient(new_f)) / epsilon) - 1)).sum()  # of the plan before this sweep
    return Potentials(new_f, new_g, a @ new_f + b @ new_g, error)
