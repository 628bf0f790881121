"""Potentials of entropic transport by scalings of a kernel: `numerics.sinkhorn`'s, where no gradient goes through them.

Half-sweeps in the log domain, each on what the last left, bring the potentials to their scale while epsilon falls. From there
on the two sides are scaled in turn by sums of a kernel that has the potentials in it: two products of a matrix with a vector
a sweep, in place of two log-sum-exps. Scalings that grow large are put into the potentials, and the kernel is made anew
(Schmitzer, arXiv 1610.06519, section 3).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jaxtyping import Array, Bool, Float, Int

from broadsheet.numerics.sinkhorn import Potentials

KERNEL = 100
"""Sweeps at the most before a kernel is made anew."""
LARGE = 15.0
"""Of a scaling's logarithm: beyond it the kernel is made anew, long before single precision ends (87)."""


class _Scaled(NamedTuple):
    """Scalings of both sides, the sweeps made, the largest step of a potential over epsilon, how far row sums were from the
    weights, and whether all sums are above 0 and all scalings moderate."""

    u: Float[Array, " n"]
    v: Float[Array, " m"]
    sweeps: Int[Array, ""]
    moved: Float[Array, ""]
    row_error: Float[Array, ""]
    sound: Bool[Array, ""]


def scaled_sinkhorn(
    costs: Float[Array, "n m"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    *,
    epsilon: float = 1.0,
    sweeps: int = 1000,
    tolerance: float = 1e-4,
) -> Potentials:
    """Potentials and cost of entropic transport between two weighted samples.

    **Arguments:**

    - `costs`: finite; `a`, `b`: weights, each summing to 1. A weight may be 0.
    - `epsilon`: strength of the entropy, in units of the cost; on the way to it, it falls by four from the largest cost.
    - `sweeps`: at the last epsilon at most, as long as a potential moves by more than `tolerance` times epsilon.

    **Returns:** potentials whose column sums are exact to rounding; `row_error` is of the plan one sweep earlier.

    **Example:**

        >>> import jax.numpy as jnp
        >>> from broadsheet.numerics.sinkhorn import plan_of
        >>> half, costs = jnp.full(2, 0.5), jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> plan_of(costs, scaled_sinkhorn(costs, half, half, epsilon=0.1), epsilon=0.1).round(3).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    log_a, log_b = jnp.log(a), jnp.log(b)
    infinite = jnp.asarray(jnp.inf, costs.dtype)

    def exact(f: Array, g: Array, eps: Array | float) -> tuple[Array, Array]:
        f = -eps * logsumexp(log_b + (g - costs) / eps, axis=1)
        return f, -eps * logsumexp((log_a + f / eps)[:, None] - costs / eps, axis=0)

    def fall(carry: tuple) -> tuple:
        eps, f, g = carry
        return eps / 4, *exact(f, g, eps)

    zero = jnp.zeros_like(costs[:, 0]), jnp.zeros_like(costs[0])
    _, f, g = jax.lax.while_loop(lambda carry: carry[0] > epsilon, fall, (jnp.max(costs), *zero))

    def scale(kernel: Array, made: _Scaled) -> _Scaled:
        rows = kernel @ (b * made.v)
        u = 1 / rows
        columns = (a * u) @ kernel
        v = 1 / columns
        steps = jnp.abs(jnp.log(jnp.concatenate([u / made.u, v / made.v])))
        logs = jnp.abs(jnp.log(jnp.concatenate([u, v])))
        error = (a * jnp.abs(made.u * rows - 1)).sum()
        return _Scaled(u, v, made.sweeps + 1, steps.max(), error, jnp.all(logs < LARGE))

    def renew(carry: tuple) -> tuple:
        f, g, before = carry
        f, g = exact(f, g, epsilon)
        kernel = jnp.exp((f[:, None] + g - costs) / epsilon)
        until = jnp.minimum(before.sweeps + KERNEL, sweeps)
        begin = _Scaled(jnp.ones_like(f), jnp.ones_like(g), before.sweeps, infinite, infinite, jnp.asarray(True))

        def go_on(made: _Scaled) -> Array:
            return made.sound & (made.moved > tolerance) & (made.sweeps < until)

        made = jax.lax.while_loop(go_on, lambda made: scale(kernel, made), begin)

        def kept(logs: Array) -> Array:  # of sums that are lost the exact half-sweeps know more
            return jnp.where(jnp.isfinite(logs), logs, 0.0)

        return f + epsilon * kept(jnp.log(made.u)), g + epsilon * kept(jnp.log(made.v)), made

    def more(carry: tuple) -> Array:
        made = carry[2]
        return ((made.moved > tolerance) | ~made.sound) & (made.sweeps < sweeps)

    start = _Scaled(zero[0], zero[1], jnp.asarray(0), infinite, infinite, jnp.asarray(True))
    f, g, made = jax.lax.while_loop(more, renew, (f, g, start))
    return Potentials(f, g, a @ f + b @ g, made.row_error)
