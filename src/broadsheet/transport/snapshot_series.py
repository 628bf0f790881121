"""Populations that are seen at several times, each individual once: the systems on which trajectory inference is tried."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.errors import InputError
from broadsheet.transport.reference_processes import (
    ReferenceSDE,
    euler_paths,
    lotka_volterra,
    repressilator,
    vortex,
)


class SnapshotSeries(NamedTuple):
    """- `times` (snapshots,) and `snapshots`, each (points, d); `truth`: the process that made them."""

    times: Float[np.ndarray, " snapshots"]
    snapshots: list[Float[np.ndarray, "points d"]]
    truth: ReferenceSDE

    def every(self, step: int, start: int = 0) -> SnapshotSeries:
        """Every so many snapshots."""
        return SnapshotSeries(self.times[start::step], self.snapshots[start::step], self.truth)


def observe(
    truth: ReferenceSDE,
    start: Float[Array, "population d"],
    times: Float[np.ndarray, " snapshots"],
    key: PRNGKeyArray,
    dt: float,
) -> SnapshotSeries:
    """A population that begins at `start` at the first time; at each time an equal part of it is seen, and no one twice.

    **Raises:** `InputError` for times that do not rise in whole steps of dt, and for fewer individuals than snapshots.
    """
    each = len(start) // len(times)
    steps = np.round((times - times[0]) / dt).astype(int)
    if not (np.diff(steps) > 0).all() or not np.allclose(times[0] + steps * dt, times):
        raise InputError(f"The times {times} do not rise in whole steps of {dt:g}.")
    if each < 1:
        raise InputError(f"{len(start)} individuals for {len(times)} snapshots: at least one each is wanted.")
    grid = jnp.asarray(times[0] + dt * np.arange(steps[-1] + 1), start.dtype)
    paths = np.asarray(euler_paths(truth, truth.sigma, start, grid, key), float)
    return SnapshotSeries(times, [paths[s, k * each : (k + 1) * each] for k, s in enumerate(steps)], truth)


def _uniform(key: PRNGKeyArray, count: int, low: tuple[float, ...], width: float) -> Array:
    drawn = np.asarray(jax.random.uniform(key, (count, len(low))))
    return jnp.asarray(np.asarray(low, drawn.dtype) + drawn.dtype.type(width) * drawn)


def predator_prey(key: PRNGKeyArray, points: int = 50, snapshots: int = 9, sigma: float = 0.1) -> SnapshotSeries:
    """Lotka and Volterra's, at rates 1, .4, .1 and .4, seen at times 0, 1, 2 and on."""
    first, later = jax.random.split(key)
    truth = ReferenceSDE(lotka_volterra, {"a": 1.0, "b": 0.4, "d": 0.1, "g": 0.4}, sigma)
    start = _uniform(first, points * snapshots, (5.0, 4.0), 0.1)
    return observe(truth, start, np.arange(float(snapshots)), later, 0.02)


def gene_ring(key: PRNGKeyArray, points: int = 50, snapshots: int = 11, sigma: float = 0.1) -> SnapshotSeries:
    """The repressilator at beta 10, n 3, k 1, gamma 1, seen at times 0, .75, 1.5 and on."""
    first, later = jax.random.split(key)
    truth = ReferenceSDE(repressilator, {"beta": 10.0, "n": 3.0, "k": 1.0, "gamma": 1.0}, sigma)
    start = _uniform(first, points * snapshots, (1.0, 1.0, 2.0), 0.1)
    return observe(truth, start, 0.75 * np.arange(snapshots), later, 0.01)


def drifters(key: PRNGKeyArray, points: int = 111, snapshots: int = 9, sigma: float = 0.1) -> SnapshotSeries:
    """Floats on a rotating current with its centre at (.3, -.2), let go in a patch off it, seen at times 0, 1, 2 and on."""
    first, later = jax.random.split(key)
    truth = ReferenceSDE(vortex, {"x0": 0.3, "y0": -0.2, "l": 0.4, "s": 0.8}, sigma)
    start = _uniform(first, points * snapshots, (-1.2, -0.4), 0.5)
    return observe(truth, start, np.arange(float(snapshots)), later, 0.02)


def two_fates(params: dict[str, Any], x: Float[Array, " d"], t: Float[Array, ""]) -> Float[Array, " d"]:
    """Drift down a potential that is one valley at x0 = 0 and two, at x1 = -1 and 1, at x0 = `length`; the rest falls to 0."""
    along = jnp.clip(x[0] / params["length"], 0, 1)
    side = 4 * along * x[1] - 4 * x[1] ** 3 - 4 * (1 - along) * x[1]
    rest = -2.0 * x[2:]
    return jnp.concatenate([(params["length"] - x[:1]) * params["speed"], side[None] * params["speed"], rest])


def branching(
    key: PRNGKeyArray, points: int = 100, snapshots: int = 5, dimensions: int = 5, sigma: float = 0.3
) -> SnapshotSeries:
    """Cells that choose between two fates, in as many dimensions as the principal components that single-cell data are seen in;
    seen at times 0, 1, 2 and on."""
    first, later = jax.random.split(key)
    truth = ReferenceSDE(two_fates, {"length": 4.0, "speed": 0.5}, sigma)
    drawn = np.asarray(jax.random.normal(first, (points * snapshots, dimensions)))
    start = jnp.asarray(drawn.dtype.type(0.2) * drawn)
    return observe(truth, start, np.arange(float(snapshots)), later, 0.05)
