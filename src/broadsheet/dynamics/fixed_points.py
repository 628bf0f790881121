"""Fixed and slow points of any update `f(state, input) -> state`, and the dynamics around them.

From many starts the speed `q(h) = |f(h) - h|² / 2` is minimised by Adam and then by Newton's method on `f(h) - h`. Where it
vanishes is a fixed point; a minimum above 0 is a slow point, near which trajectories linger. Eigenvalues of the Jacobian say
what happens nearby: a fixed point is stable where all lie within the unit circle. Sussillo & Barak, Neural Comput 25, 626
(2013).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from broadsheet.dynamics.system import System
from broadsheet.errors import InputError

Update = Callable[[Array, Array], Array]
"""State (units,) and input (inputs,) to the next state."""

REACH = 1000
"""A step of Newton's method goes so many times as far as the state is from 0, plus one, and no further."""


class FlatUpdate(eqx.Module):
    """The step of a system as an update of one array, whatever its state is made of (an LSTM's has two parts)."""

    system: System

    def start(self) -> Float[Array, " units"]:
        """The system's first state."""
        return ravel_pytree(self.system.init(jax.random.key(0)))[0]

    def __call__(self, state: Float[Array, " units"], inputs: Float[Array, " inputs"]) -> Float[Array, " units"]:
        whole = ravel_pytree(self.system.init(jax.random.key(0)))[1](state)
        return ravel_pytree(self.system.step(whole, inputs)[0])[0]


@dataclass(frozen=True)
class FixedPoints:
    """Distinct points, fixed ones first and slowest first, as NumPy arrays.

    - `points` (points, units), and the `inputs` (points, inputs) that held there.
    - `speeds`: `|f(h) - h|`, change a step; `fixed`: whether that is below the tolerance.
    - `eigenvalues` (points, units), complex, largest size first.
    - `starts`: how many starts ended at each point; `lost`: how many ended where the speed is neither near 0 nor slow.
    """

    points: np.ndarray
    inputs: np.ndarray
    speeds: np.ndarray
    fixed: np.ndarray
    eigenvalues: np.ndarray
    starts: np.ndarray
    lost: int

    @property
    def radius(self) -> np.ndarray:
        """Spectral radius of the Jacobian at each point."""
        return np.abs(self.eigenvalues).max(axis=1, initial=0.0)

    @property
    def unstable(self) -> np.ndarray:
        """How many eigenvalues lie outside the unit circle."""
        return (np.abs(self.eigenvalues) > 1).sum(axis=1)

    @property
    def stable(self) -> np.ndarray:
        """Which points are fixed, and attract what is near."""
        return self.fixed & (self.radius < 1)


def find_fixed_points(
    update: Update,
    starts: ArrayLike,
    inputs: ArrayLike,
    *,
    steps: int = 2000,
    rate: float = 0.02,
    newton: int = 20,
    tolerance: float = 1e-5,
    slow: float = 0.02,
    merge: float = 1e-2,
    memory: float = 2e8,
    report: Callable[[float], None] | None = None,
) -> FixedPoints:
    """Fixed and slow points that are reached from the starts, each under a constant input.

    Starts are worked on together, in chunks whose Jacobians fit in `memory`; an update that is an Equinox module's method is
    compiled once for all networks of one shape.

    **Arguments:**

    - `starts` (starts, units); `inputs` (inputs,) for all of them, or (starts, inputs).
    - `steps`, `rate`: of Adam, whose rate falls to a hundredth; it stops where all starts are at fixed points.
    - `newton`: steps of Newton's method, none longer than `REACH` times `1 + |h|`, halved until the speed falls.
    - `tolerance`: largest speed of a fixed point, as a share of `1 + |h|`; `slow`: the same of a slow point.
    - `merge`: points with one input are one where they differ by less, as a share of `1 + |h|`.
    - `memory`: bytes; `report`: called with the share of starts that are done.

    **Raises:** `InputError` where starts or inputs are not finite or do not fit.

    **Example:**

        >>> import jax.numpy as jnp
        >>> def update(h, x):  # bistable: h = tanh(2 h) at 0, which repels, and at ±0.96
        ...     return jnp.tanh(2 * h + x)
        >>> found = find_fixed_points(update, jnp.linspace(-1, 1, 21)[:, None], jnp.zeros(1), merge=1e-3)
        >>> sorted((round(float(h), 2), bool(stable)) for h, stable in zip(found.points[:, 0], found.stable))
        [(-0.96, True), (0.0, False), (0.96, True)]
    """
    starts = jnp.atleast_2d(jnp.asarray(starts, jnp.result_type(float)))
    held = jnp.asarray(inputs, starts.dtype)
    held = jnp.broadcast_to(held, (len(starts), held.shape[-1])) if held.ndim == 1 else held
    if len(held) != len(starts):
        raise InputError(f"{len(starts)} starts and {len(held)} inputs; one input, or one a start, is wanted.")
    if not (bool(jnp.isfinite(starts).all()) and bool(jnp.isfinite(held).all())):
        raise InputError("Starts or inputs hold NaN or infinity; finite numbers are wanted.")
    units = starts.shape[1]
    chunk = int(np.clip(memory / (3 * starts.dtype.itemsize * units**2), 1, len(starts)))
    found, speeds = [], []
    for begin in range(0, len(starts), chunk):
        part, given = _padded(starts[begin : begin + chunk], chunk), _padded(held[begin : begin + chunk], chunk)
        h, speed = _descend(update, part, given, steps, rate, newton, tolerance)
        count = min(chunk, len(starts) - begin)
        found.append(np.asarray(h)[:count])
        speeds.append(np.asarray(speed)[:count])
        if report is not None:
            report(min(begin + chunk, len(starts)) / len(starts))
    points, change, x = np.concatenate(found), np.concatenate(speeds), np.asarray(held)
    scale = 1 + np.linalg.norm(points, axis=1)
    kept = np.isfinite(change) & (change <= slow * scale)
    order = np.flatnonzero(kept)[np.argsort(change[kept], kind="stable")]
    chosen, counts = _distinct(points, x, order, merge * scale)
    eigenvalues = spectra(update, points[chosen], x[chosen], memory=memory)
    return FixedPoints(
        points[chosen], x[chosen], change[chosen], change[chosen] <= tolerance * scale[chosen], eigenvalues, counts,
        int(len(points) - kept.sum()),
    )  # fmt: skip


def spectra(
    update: Update,
    states: ArrayLike,
    inputs: ArrayLike,
    *,
    memory: float = 2e8,
) -> np.ndarray:
    """Eigenvalues (states, units) of the Jacobian of the update at each state, complex, largest size first."""
    states = jnp.atleast_2d(jnp.asarray(states))
    held = jnp.asarray(inputs)
    held = jnp.broadcast_to(held, (len(states), held.shape[-1]))
    units = states.shape[1]
    chunk = int(np.clip(memory / (2 * states.dtype.itemsize * units**2), 1, max(len(states), 1)))
    rows = [np.zeros((0, units), complex)]
    for begin in range(0, len(states), chunk):
        count = min(chunk, len(states) - begin)
        part = (_padded(each[begin : begin + chunk], chunk) for each in (states, held))
        values = np.linalg.eigvals(np.asarray(jacobians(update, *part), np.float64)[:count])
        rows.append(np.take_along_axis(values, np.argsort(-np.abs(values), axis=1, kind="stable"), axis=1))
    return np.concatenate(rows)


@eqx.filter_jit
def jacobians(
    update: Update, states: Float[Array, "states units"], inputs: Float[Array, "states inputs"]
) -> Float[Array, "states units units"]:
    """Of the update with respect to the state, at each state: rows are next states, columns states."""
    return jax.vmap(jax.jacfwd(update))(states, inputs)


def _padded(rows: Array, count: int) -> Array:
    """With the first row repeated at the end, so that the last chunk is not compiled again."""
    return rows if len(rows) == count else jnp.concatenate([rows, jnp.repeat(rows[:1], count - len(rows), axis=0)])


@eqx.filter_jit
def _descend(
    update: Update, starts: Array, inputs: Array, steps: int, rate: float, newton: int, tolerance: float
) -> tuple[Array, Array]:
    """Points at the smallest speed that was found from each start, and that speed."""

    def residual(h: Array, x: Array) -> Array:
        return update(h, x) - h

    def q(h: Array, x: Array) -> Array:
        return (residual(h, x) ** 2).sum() / 2

    slope = jax.vmap(jax.value_and_grad(q))

    def near(h: Array, value: Array) -> Array:
        return jnp.sqrt(2 * value) <= tolerance * (1 + jnp.linalg.norm(h, axis=-1))

    def adam(carry: tuple) -> tuple:
        t, h, mean, square, best, lowest = carry
        value, gradient = slope(h, inputs)
        better = value < lowest
        best, lowest = jnp.where(better[:, None], h, best), jnp.where(better, value, lowest)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        move = mean / (1 - 0.9 ** (t + 1)) / (jnp.sqrt(square / (1 - 0.999 ** (t + 1))) + 1e-12)
        return t + 1, h - rate * 0.01 ** (t / steps) * move, mean, square, best, lowest

    zeros = jnp.zeros_like(starts)
    first = (0, starts, zeros, zeros, starts, jnp.full(len(starts), jnp.inf, starts.dtype))
    made = jax.lax.while_loop(lambda c: (c[0] < steps) & ~near(c[4], c[5]).all(), adam, first)

    def polish(h: Array, x: Array) -> tuple[Array, Array]:
        lengths = 0.5 ** jnp.arange(8)

        def step(_: int | Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            h, value = carry
            jacobian = jax.jacfwd(residual)(h, x)
            move = jnp.linalg.solve(jacobian - 1e-9 * jnp.eye(len(h)), -residual(h, x))
            # where the Jacobian is all but singular a step leads to where rounding hides that the state moves: such a step is
            # cut, and what falls by less than rounding may give is no fall
            reach = REACH * (1 + jnp.linalg.norm(h)) / jnp.maximum(jnp.linalg.norm(move), 1e-30)
            tried = h + lengths[:, None] * jnp.where(jnp.isfinite(move), jnp.minimum(reach, 1.0) * move, 0.0)
            values = jax.vmap(q, (0, None))(tried, x)
            k = jnp.nanargmin(jnp.where(jnp.isfinite(values), values, jnp.inf))
            better = values[k] < (1 - 1e-3 * lengths[k]) * value
            return jnp.where(better, tried[k], h), jnp.where(better, values[k], value)

        return jax.lax.fori_loop(0, newton, step, (h, q(h, x)))

    h, value = jax.vmap(polish)(made[4], inputs)
    return h, jnp.sqrt(2 * value)


def _distinct(points: np.ndarray, inputs: np.ndarray, order: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of one point of each group, by `order`, and how many points the groups have."""
    chosen: list[int] = []
    counts: list[int] = []
    for k in order:
        if chosen:
            near = np.linalg.norm(points[chosen] - points[k], axis=1) <= reach[k]
            same = near & (inputs[chosen] == inputs[k]).all(axis=1)
            if same.any():
                counts[int(same.argmax())] += 1
                continue
        chosen.append(int(k))
        counts.append(1)
    return np.asarray(chosen, int), np.asarray(counts, int)
