"""Potentials of entropic transport by scalings of a kernel: `numerics.sinkhorn`'s, where no gradient goes through them.

Half-sweeps in the log domain between some of the points bring potentials to their scale while epsilon falls. From there on the
two sides are scaled in turn by sums of a kernel that has the potentials in it: two products of a matrix with a vector a sweep,
in place of two log-sum-exps. Scalings that grow large are put into the potentials, and the kernel is made anew (Schmitzer,
arXiv 1610.06519, section 3). Steps are lengthened by the factor that is best for the rate at which they shrink, which takes
near the root of the sweeps (over-relaxation; Thibault et al., arXiv 1711.01851; Lehmann et al., arXiv 2012.12562).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from broadsheet.errors import InputError
from broadsheet.numerics.checks import concrete
from broadsheet.numerics.sinkhorn import Potentials, _soft_min

SOME = 256
"""Points of each side, about, between which the first potentials are found."""
SETTLE = 3
"""Sweeps that these have at the last epsilon."""
LARGE = 15.0
"""Of a scaling's logarithm: beyond it the kernel is made anew, long before single precision ends (87)."""
WINDOW = 2
"""Sweeps over which the rate of convergence is measured."""
LONGEST = 1.9
"""Of the factor of a step; 2 is where sweeps no longer converge."""


class _Scaled(NamedTuple):
    """Scalings of both sides and the factor of their steps; sweeps made, the largest step of a potential over epsilon (before
    it is lengthened) in the last of them and at the end of the last window, how far row sums were from the weights, and
    whether all sums are above 0 and all scalings moderate."""

    u: Float[Array, " n"]
    v: Float[Array, " m"]
    factor: Float[Array, ""]
    sweeps: Int[Array, ""]
    moved: Float[Array, ""]
    before: Float[Array, ""]
    row_error: Float[Array, ""]
    sound: Bool[Array, ""]


def scaled_sinkhorn(
    costs: Float[Array, "n m"],
    a: Float[Array, " _"],
    b: Float[Array, " _"],
    *,
    epsilon: float = 1.0,
    sweeps: int = 1000,
    tolerance: float = 1e-4,
) -> Potentials:
    """Potentials and cost of entropic transport between two weighted samples.

    **Arguments:**

    - `costs`: finite; `a`, `b`: weights, each summing to 1. A weight may be 0.
    - `epsilon`: strength of the entropy, in units of the cost; on the way to it, it falls by four from the range of costs.
    - `sweeps`: at the last epsilon at most, as long as a plain one moves a potential by more than `tolerance` times epsilon.

    **Returns:** potentials whose column sums are exact to rounding; `row_error` is of the plan one sweep earlier.

    **Raises:** `InputError` where `epsilon` is not above 0, and for weights that are not finite, below 0 or do not sum to 1.

    **Example:**

        >>> import jax.numpy as jnp
        >>> from broadsheet.numerics.sinkhorn import plan_of
        >>> half, costs = jnp.full(2, 0.5), jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> plan_of(costs, scaled_sinkhorn(costs, half, half, epsilon=0.1), epsilon=0.1).round(3).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    _check(costs, a, b, epsilon)
    log_a, log_b = jnp.log(a), jnp.log(b)
    infinite = jnp.asarray(jnp.inf, costs.dtype)
    widest = jnp.maximum(costs.max() - costs.min(), epsilon)
    f, g = _begun(costs, a, b, widest, epsilon)

    def renew(carry: tuple) -> tuple:
        f, g, last = carry
        first = jnp.where(last.sweeps > 1, epsilon, widest)  # some points did not stand for all
        f, g = jax.lax.cond(last.sound, lambda: (f, g), lambda: _annealed(costs, log_a, log_b, g, first, epsilon))
        kernel = jnp.exp((f[:, None] + g - costs) / epsilon)

        def scale(made: _Scaled) -> _Scaled:
            rows = made.u * (kernel @ (b * made.v))
            u = made.u * rows**-made.factor
            columns = made.v * ((a * u) @ kernel)
            v = made.v * columns**-made.factor
            moved = jnp.abs(jnp.log(jnp.concatenate([rows, columns]))).max()
            logs = jnp.abs(jnp.log(jnp.concatenate([u, v])))
            made = made._replace(u=u, v=v, sweeps=made.sweeps + 1, moved=moved, row_error=(a * jnp.abs(rows - 1)).sum())
            return _lengthened(made._replace(sound=jnp.all(logs < LARGE)))

        def go_on(made: _Scaled) -> Array:
            return made.sound & (made.moved > tolerance) & (made.sweeps < sweeps)

        one = jnp.asarray(1, costs.dtype)
        begin = last._replace(u=jnp.ones_like(f), v=jnp.ones_like(g), factor=one, before=infinite, sound=jnp.asarray(True))
        made = jax.lax.while_loop(go_on, scale, begin)

        def kept(logs: Array) -> Array:  # of sums that are lost the exact half-sweeps know more
            return jnp.where(jnp.isfinite(logs), logs, 0.0)

        v = 1 / ((a * made.u) @ kernel)
        return f + epsilon * kept(jnp.log(made.u)), g + epsilon * kept(jnp.log(v)), made

    def more(carry: tuple) -> Array:
        made = carry[2]
        return (~made.sound | (made.moved > tolerance)) & (made.sweeps < sweeps)

    start = _Scaled(f, g, infinite, jnp.asarray(0), infinite, infinite, infinite, jnp.asarray(True))
    f, g, made = jax.lax.while_loop(more, renew, (f, g, start))
    return Potentials(f, g, a @ f + b @ g, made.row_error)


def _annealed(
    costs: Array, log_a: Array, log_b: Array, g: Array, first: Array, epsilon: float | Array, settle: int = 1
) -> tuple[Array, Array]:
    """Half-sweeps from the first epsilon to the last, where they are made `settle` times."""

    def sweep(k: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        eps = jnp.maximum(first / 4.0**k, epsilon)
        f = _soft_min(costs, log_b, found[1], eps)
        return f, _soft_min(costs.T, log_a, f, eps)

    falls = jnp.ceil(jnp.log(first / epsilon) / jnp.log(4)).astype(int)
    return jax.lax.fori_loop(0, falls + settle, sweep, (jnp.zeros_like(costs[:, 0]), g))


def _begun(costs: Array, a: Array, b: Array, widest: Array, epsilon: float | Array) -> tuple[Array, Array]:
    """Potentials of all points from those between some."""
    rows, columns = (slice(None, None, max(1, count // SOME)) for count in costs.shape)
    # a trifle for each, as those that are some may have no weight at all
    log_a, log_b = (jnp.log(w + 1e-3 / len(w)) - jnp.log(w.sum() + 1e-3) for w in (a[rows], b[columns]))
    some = costs[rows, columns]
    _, g = _annealed(some, log_a, log_b, jnp.zeros_like(some[0]), widest, epsilon, SETTLE)
    f = _soft_min(costs[:, columns], log_b, g, epsilon)
    return f, _soft_min(costs[rows].T, log_a, f[rows], epsilon)


def _lengthened(made: _Scaled) -> _Scaled:
    """At the end of a window: the factor that is best for the rate seen (Young's, for matrices in two parts), nearer to 1 where
    steps have grown."""
    rate = jnp.maximum((made.moved / made.before) ** (1 / WINDOW), made.factor - 1)  # the latter is what a factor leaves
    plain = (rate + made.factor - 1) ** 2 / (rate * made.factor**2)  # the rate of sweeps of factor 1
    best = jnp.minimum(2 / (1 + jnp.sqrt(1 - jnp.minimum(plain, 1))), LONGEST)
    best = jnp.where(rate < 1, best, 1 + 0.8 * (made.factor - 1))
    ends = made.sweeps % WINDOW == 0
    known = ends & jnp.isfinite(made.before)
    return made._replace(factor=jnp.where(known, best, made.factor), before=jnp.where(ends, made.moved, made.before))


def _check(costs: Array, a: Array, b: Array, epsilon: float | Array) -> None:
    known = concrete(epsilon)
    if known is not None and not known > 0:
        raise InputError(f"epsilon is {known:g}; it must be above 0.")
    for name, weights, count in (("a", a, costs.shape[0]), ("b", b, costs.shape[1])):
        if weights.shape != (count,):
            raise InputError(f"{name} has shape {weights.shape} for {count} points; one weight a point is wanted.")
        known = concrete(weights)
        if known is not None and not ((known >= 0).all() and abs(known.sum() - 1) < 1e-3):
            raise InputError(
                f"{name} sums to {known.sum():g} from {known.min():g} on; weights of 0 or more that sum to 1 are wanted."
            )
