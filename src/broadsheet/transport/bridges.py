"""Schrödinger bridges between two snapshots: of all laws of paths with the two as ends, the one nearest to a reference process.

`schrodinger_bridge` finds it in one of two ways.

- `"gaussian"`: entropic transport with the reference's transition density as kernel, the density from the linear-noise
  approximation; paths between partners are paths of the reference, moved to end in the partner. Exact where the drift is linear
  in x (up to the sampling of partners), approximate where the noise bends far from its first order.
- `"ipfp"`: iterative proportional fitting of drifts (De Bortoli et al., arXiv 2106.01357; Vargas et al., Entropy 23, 1134
  (2021)): paths are pushed forth under one drift, and the drift back is regressed on them, in turns. Linear in points with
  `Nystrom` and `RandomFeatures`. Errors of the drifts add up over the turns: the reference is in them at the first only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.errors import InputError
from broadsheet.numerics import generator
from broadsheet.numerics.scaled_sinkhorn import scaled_sinkhorn
from broadsheet.transport.drift_regression import DriftRegressor, Nystrom
from broadsheet.transport.reference_processes import (
    Drift,
    ReferenceSDE,
    Transitions,
    euler_paths,
    grid,
    inverse_lower,
    transitions,
)

Method = Literal["gaussian", "ipfp"]
SWEEPS = 1000
ROWS = 1024
"""Of the plan that are held at once where partners are drawn."""


class GaussianBridge(eqx.Module):
    """A bridge by entropic transport. Paths go from points of one snapshot to points of the other, both by their indices.

    - `times` (steps + 1,); `x0` (n, d), `x1` (m, d): the snapshots; `row_error`: how far the plan's row sums are from equal
      weights, summed; 0 where the sweeps have converged.
    - `rows`, `columns` (groups, at most n or m), `log_plan` (groups, rows, columns), `potential` (m,): points are put into
      groups, each with a plan of its own; one group of all is the bridge, several are an approximation whose cost is linear.
    """

    reference: ReferenceSDE
    times: Float[Array, " times"]
    x0: Float[Array, "n d"]
    x1: Float[Array, "m d"]
    moments: Transitions
    rows: Int[Array, "groups _"]
    columns: Int[Array, "groups _"]
    log_plan: Float[Array, "groups _ _"]
    potential: Float[Array, " m"]
    row_error: Float[Array, ""]

    @property
    def first(self) -> Int[np.ndarray, " n"]:
        """All points of the first snapshot, as `forth` takes them; `last` those of the second, for `back`."""
        return np.arange(len(self.x0))

    @property
    def last(self) -> Int[np.ndarray, " m"]:
        return np.arange(len(self.x1))

    def forth(
        self, key: PRNGKeyArray, at: Int[np.ndarray, " paths"] | None = None
    ) -> tuple[Float[Array, "times paths d"], Int[np.ndarray, " paths"]]:
        """Paths from points of the first snapshot (all), and the points of the second in which they end."""
        choosing, walking = jax.random.split(key)
        begin = self.first if at is None else np.asarray(at)
        end = self.partners(choosing, begin)
        return self.paths(walking, begin, end), end

    def back(
        self, key: PRNGKeyArray, at: Int[np.ndarray, " paths"] | None = None
    ) -> tuple[Float[Array, "times paths d"], Int[np.ndarray, " paths"]]:
        """Paths, forth in time, that end in points of the second snapshot (all), and where in the first they begin."""
        choosing, walking = jax.random.split(key)
        end = self.last if at is None else np.asarray(at)
        begin = self.partners(choosing, end, backwards=True)
        return self.paths(walking, begin, end), begin

    def partners(self, key: PRNGKeyArray, at: Int[np.ndarray, " paths"], backwards: bool = False) -> Int[np.ndarray, " paths"]:
        """For each point of the first snapshot one of the second, drawn from the plan; backwards the other way about."""
        inner, outer = map(np.asarray, (self.columns, self.rows) if backwards else (self.rows, self.columns))
        log_plan, rng = np.asarray(self.log_plan), generator(key)
        log_plan = np.swapaxes(log_plan, 1, 2) if backwards else log_plan
        slots = np.zeros(inner.max() + 1, int)
        slots[inner[inner >= 0]] = np.flatnonzero(inner.ravel() >= 0)
        group, slot = np.divmod(slots[at], inner.shape[1])
        chosen = np.empty(len(at), int)
        for k in range(0, len(at), ROWS):
            part = slice(k, k + ROWS)
            weights = log_plan[group[part], slot[part]]
            below = np.cumsum(np.exp(weights - weights.max(axis=1, keepdims=True)), axis=1)
            drawn = (below < rng.random((len(below), 1)) * below[:, -1:]).sum(axis=1)
            chosen[part] = outer[group[part], drawn]
        return chosen

    def paths(
        self, key: PRNGKeyArray, begin: Int[np.ndarray, " paths"], end: Int[np.ndarray, " paths"]
    ) -> Float[Array, "times paths d"]:
        """Paths of the reference between given points of the two snapshots."""
        return _pinned(
            self.reference, self.moments.gain, self.times, self.x0, self.x1, jnp.asarray(begin), jnp.asarray(end), key
        )

    def coupling(self) -> Float[np.ndarray, "n m"]:
        """Weight of each pair of points; the sum is 1."""
        if len(self.rows) == 1:  # all points, in their order
            return np.exp(np.asarray(self.log_plan[0]))
        made = np.zeros((len(self.x0), len(self.x1)))
        for rows, columns, plan in zip(np.asarray(self.rows), np.asarray(self.columns), np.asarray(self.log_plan), strict=True):
            r, c = np.flatnonzero(rows >= 0), np.flatnonzero(columns >= 0)
            made[np.ix_(rows[r], columns[c])] = np.exp(plan[np.ix_(r, c)]) * len(r) / len(self.x0)
        return made

    def drift(self, x: Float[Array | np.ndarray, "n d"], t: float) -> Float[Array, "n d"]:
        """The bridge's own: `b + sigma² grad log h`, h(x, t) the sum over points to come of exp(potential) times the density of
        ending there.

        **Raises:** `InputError` for a time outside the interval, and for plans in several groups, whose potentials differ.
        """
        if len(self.rows) > 1:
            raise InputError(f"The points are in {len(self.rows)} groups; a drift is had from one, with group=None.")
        begin, end = float(self.times[0]), float(self.times[-1])
        if not begin <= t < end:
            raise InputError(f"The bridge has a drift from {begin:g} to before {end:g}, not at {t:g}.")
        left = jnp.asarray(grid(t, end, float(self.times[1] - self.times[0])), self.x0.dtype)
        return _bridge_drift(self, jnp.asarray(x, self.x0.dtype), left)


@eqx.filter_jit
def _bridge_drift(bridge: GaussianBridge, x: Array, times: Array) -> Array:
    reference = bridge.reference

    def log_h(x: Array) -> Array:
        found = transitions(reference, reference.sigma, x[None], times)
        return jax.scipy.special.logsumexp(bridge.potential - _costs(found, bridge.x1)[0])

    def of_one(x: Array) -> Array:
        return reference(x, times[0]) + reference.sigma**2 * jax.grad(log_h)(x)

    return jax.lax.map(of_one, x, batch_size=256)


def _costs(moments: Transitions, y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Minus the log density of ending in y."""
    d, columns = y.shape[1], list(y.T)
    factor = jnp.linalg.cholesky(moments.covariance)
    constant = jnp.log(jnp.diagonal(factor, axis1=1, axis2=2)).sum(1) + d * jnp.log(2 * jnp.pi) / 2

    def of_one(given: tuple[Array, Array, Array]) -> Array:  # number by number: one pass, without an array of each product
        mean, whiten, constant = given
        away = [y - m for y, m in zip(columns, mean, strict=True)]
        white = [sum(whiten[k, i] * away[i] for i in range(k + 1)) for k in range(d)]
        return sum(each**2 for each in white) / 2 + constant

    return jax.lax.map(of_one, (moments.mean[-1], inverse_lower(factor), constant), batch_size=16)


@eqx.filter_jit
def _pinned(
    reference: ReferenceSDE, gain: Array, times: Array, x0: Array, x1: Array, begin: Array, end: Array, key: PRNGKeyArray
) -> Array:
    path = euler_paths(reference, reference.sigma, x0[begin], times, key)
    missed = x1[end] - path[-1]

    def moved(given: tuple[Array, Array]) -> Array:
        points, g = given
        return points + jnp.einsum("nij,nj->ni", g[begin], missed)

    return jax.lax.map(moved, (path, gain))


@eqx.filter_jit
def _grouped_plan(moments: Transitions, x1: Array, rows: Array, columns: Array) -> tuple[Array, Array, Array]:
    """The plan of each group, the potential of each point of the second snapshot, and the groups' mean row error."""

    def of_group(given: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        r, c = given
        part = Transitions(moments.mean[-1:, r], moments.covariance[r], moments.gain[:1, r])
        a, b = ((index >= 0) / (index >= 0).sum() for index in (r, c))
        a, b = a.astype(x1.dtype), b.astype(x1.dtype)
        costs = _costs(part, x1[c])
        found = scaled_sinkhorn(costs, a, b, sweeps=SWEEPS)
        log_plan = jnp.log(a)[:, None] + jnp.log(b) + found.f[:, None] + found.g - costs
        return log_plan, jnp.log(b) + found.g, found.row_error

    log_plan, potential, error = jax.lax.map(of_group, (rows, columns))
    spread = jnp.zeros(len(x1) + 1, x1.dtype).at[columns.ravel()].set(potential.ravel())[:-1]
    return log_plan, spread, error.mean()


def _groups(n: int, m: int, group: int | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indices of points by group, -1 where a group has one fewer."""
    many = 1 if group is None else -(-max(n, m) // group)
    many = min(many, n, m)

    def dealt(count: int) -> np.ndarray:
        order = rng.permutation(count) if many > 1 else np.arange(count)
        size = -(-count // many)
        made = np.full((size, many), -1)
        made.ravel()[:count] = order
        return made.T

    return dealt(n), dealt(m)


class IPFPBridge(eqx.Module):
    """A bridge as two drifts, forth and back. Paths go on from any points.

    - `times` (steps + 1,); `x0`, `x1`: the snapshots; `forward`, `backward`: drifts of one state at a time.
    """

    reference: ReferenceSDE
    times: Float[Array, " times"]
    x0: Float[Array, "n d"]
    x1: Float[Array, "m d"]
    forward: Drift
    backward: Drift

    @property
    def first(self) -> Float[Array, "n d"]:
        """All points of the first snapshot, as `forth` takes them; `last` those of the second, for `back`."""
        return self.x0

    @property
    def last(self) -> Float[Array, "m d"]:
        return self.x1

    def forth(
        self, key: PRNGKeyArray, at: Float[Array, "paths d"] | None = None
    ) -> tuple[Float[Array, "times paths d"], Float[Array, "paths d"]]:
        """Paths from points at the first time (the snapshot's), and where they end."""
        path = euler_paths(self.forward, self.reference.sigma, self.first if at is None else at, self.times, key)
        return path, path[-1]

    def back(
        self, key: PRNGKeyArray, at: Float[Array, "paths d"] | None = None
    ) -> tuple[Float[Array, "times paths d"], Float[Array, "paths d"]]:
        """Paths, forth in time, that end in points at the second time (the snapshot's), and where they begin."""
        path = euler_paths(self.backward, self.reference.sigma, self.last if at is None else at, self.times[::-1], key)[::-1]
        return path, path[0]

    def drift(self, x: Float[Array | np.ndarray, "n d"], t: float) -> Float[Array, "n d"]:
        """The bridge's own, forth in time."""
        return _drift_at(self.forward, jnp.asarray(x, self.x0.dtype), jnp.asarray(t, self.x0.dtype))


@eqx.filter_jit
def _drift_at(drift: Drift, x: Array, t: Array) -> Array:
    return jax.vmap(drift, (0, None))(x, t)


Bridge = GaussianBridge | IPFPBridge


def walk(bridges: list[Bridge], key: PRNGKeyArray) -> Float[np.ndarray, "times paths d"]:
    """A path through each point of each snapshot, forth over all later bridges between neighbours and back over all earlier
    ones; those through the first snapshot's points come first."""
    plans = [bridge for bridge in bridges if isinstance(bridge, GaussianBridge)]
    drifts = [bridge for bridge in bridges if isinstance(bridge, IPFPBridge)]
    parts: Sequence[Array | np.ndarray] = _through_points(plans, key) if plans else _along_drifts(drifts, key)
    whole = [np.asarray(part, float) for part in parts]
    return np.concatenate([part[:-1] for part in whole[:-1]] + whole[-1:])


def _counts(bridges: Sequence[Bridge]) -> list[int]:
    """Points of each snapshot."""
    return [len(bridges[0].x0), *(len(bridge.x1) for bridge in bridges)]


def _through_points(bridges: list[GaussianBridge], key: PRNGKeyArray) -> list[Array]:
    counts = _counts(bridges)
    origin = np.repeat(np.arange(len(counts)), counts)
    chains = np.empty((len(counts), len(origin)), int)  # a point of each snapshot
    for k, count in enumerate(counts):
        chains[k, origin == k] = np.arange(count)
    for k, bridge in enumerate(bridges):
        on = origin <= k
        chains[k + 1, on] = bridge.partners(jax.random.fold_in(key, 3 * k), chains[k, on])
    for k, bridge in reversed(list(enumerate(bridges))):
        on = origin > k
        chains[k, on] = bridge.partners(jax.random.fold_in(key, 3 * k + 1), chains[k + 1, on], backwards=True)
    return [bridge.paths(jax.random.fold_in(key, 3 * k + 2), chains[k], chains[k + 1]) for k, bridge in enumerate(bridges)]


def _along_drifts(bridges: list[IPFPBridge], key: PRNGKeyArray) -> list[np.ndarray]:
    """All paths are walked over all bridges, for one shape is compiled once; those that begin later are put in their place."""
    counts = _counts(bridges)
    total, edges = sum(counts), np.cumsum([0, *counts])
    parts = []
    at = np.tile(bridges[0].x0, (-(-total // counts[0]), 1))[:total]
    for k, bridge in enumerate(bridges):
        at[edges[k] : edges[k + 1]] = bridge.x0
        parts.append(np.array(bridge.forth(jax.random.fold_in(key, 2 * k), jnp.asarray(at))[0]))
        at = parts[k][-1].copy()
    at = np.tile(bridges[-1].x1, (-(-total // counts[-1]), 1))[:total]
    for k, bridge in reversed(list(enumerate(bridges))):
        at[edges[k + 1] : edges[k + 2]] = bridge.x1
        path = np.asarray(bridge.back(jax.random.fold_in(key, 2 * k + 1), jnp.asarray(at))[0])
        parts[k][:, edges[k + 1] :] = path[:, edges[k + 1] :]
        at = path[0].copy()
    return parts


def schrodinger_bridge(
    x0: Any,
    x1: Any,
    reference: ReferenceSDE,
    *,
    start: float = 0.0,
    stop: float = 1.0,
    dt: float = 0.02,
    method: str = "gaussian",
    iterations: int = 10,
    regressor: DriftRegressor | None = None,
    simulated: int = 1,
    group: int | None = None,
    key: PRNGKeyArray,
) -> Bridge:
    """The bridge between a snapshot at `start` and one at `stop`.

    **Arguments:**

    - `x0` (n, d), `x1` (m, d): points of equal weights; `reference`: the process that the bridge stays near to.
    - `dt`: the longest step of time.
    - `iterations`, `regressor`: of `"ipfp"`, turns of both drifts, and how drifts are fitted (`Nystrom()`); `simulated`:
      how many paths are simulated at least, points being taken more than once where there are fewer.
    - `group`: of `"gaussian"`, about how many points share a plan; by default all, at a cost of n m.

    **Raises:** `InputError` for snapshots that are empty, not finite, or of different dimension, and for times out of order.

    **Example:**

        >>> import jax, numpy as np
        >>> from broadsheet.transport.reference_processes import brownian
        >>> x = np.random.default_rng(0).normal(size=(200, 1))
        >>> bridge = schrodinger_bridge(x, x + 3, brownian(0.5), key=jax.random.key(0))
        >>> paths, partners = bridge.forth(jax.random.key(1))
        >>> paths.shape, bool(abs(paths[-1].mean() - x.mean() - 3) < 0.3)
        ((51, 200, 1), True)
    """
    first, second = snapshot(x0, "x0"), snapshot(x1, "x1")
    if first.shape[1] != second.shape[1]:
        raise InputError(f"The snapshots have {first.shape[1]} and {second.shape[1]} dimensions.")
    if not stop > start or not dt > 0:
        raise InputError(f"From {start:g} to {stop:g} in steps of {dt:g}: times that rise and a step above 0 are wanted.")
    times = jnp.asarray(grid(start, stop, dt), first.dtype)
    if method == "ipfp":
        if iterations < 1:
            raise InputError(f"{iterations} iterations; at least 1 is wanted.")
        return _ipfp(first, second, reference, times, iterations, regressor or Nystrom(), simulated, key)
    if method != "gaussian":
        raise InputError(f"method is {method!r}; 'gaussian' or 'ipfp' is wanted.")
    if group is not None and group < 2:
        raise InputError(f"Groups of {group} points; at least 2 are wanted.")
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    rows, columns = map(jnp.asarray, _groups(len(first), len(second), group, np.random.default_rng(seed)))
    moments = transitions(reference, reference.sigma, first, times)
    log_plan, potential, error = _grouped_plan(moments, second, rows, columns)
    return GaussianBridge(reference, times, first, second, moments, rows, columns, log_plan, potential, error)


def _ipfp(
    x0: Array, x1: Array, reference: ReferenceSDE, times: Array, iterations: int, regressor: DriftRegressor, simulated: int,
    key: PRNGKeyArray,
) -> IPFPBridge:  # fmt: skip
    sigma, rising = reference.sigma, np.asarray(times)
    falling, width = jnp.asarray(rising[::-1]), jnp.asarray(rising[1] - rising[0])
    first, last = (jnp.asarray(np.tile(x, (-(-simulated // len(x)), 1))) for x in (x0, x1))
    lengths = _lengths(x0, x1, times)

    def fitted(path: Array, when: Array, k: PRNGKeyArray) -> Drift:
        """The drift of paths the other way about, along `when`, from what they do in each step."""
        x, t, rates, noise, prior = _turned(path, when, width, sigma)
        return regressor(x, t, rates, noise, prior, lengths, k)

    forward: Drift = reference
    for turn in range(iterations + 1):
        keys = jax.random.split(jax.random.fold_in(key, turn), 4)
        path = euler_paths(forward, sigma, first, times, keys[0])
        backward = fitted(path, falling, keys[1])
        if turn < iterations:
            path = euler_paths(backward, sigma, last, falling, keys[2])
            forward = fitted(path, times, keys[3])
    return IPFPBridge(reference, times, x0, x1, forward, backward)


@jax.jit
def _lengths(x0: Array, x1: Array, times: Array) -> Array:
    """Over which drifts change: twice the spread of the points, and the time between the snapshots."""
    spread = jnp.sqrt(jnp.concatenate([x0, x1]).var(axis=0).mean())
    return jnp.append(jnp.full(x0.shape[1], 2 * spread), times[-1] - times[0])


@jax.jit
def _turned(path: Array, when: Array, width: Array, sigma: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Paths the other way about, where they run along `when`: states, times and rates of their steps, and the variances of the
    rates' noise and of drifts before the paths are seen."""
    path = path[::-1]
    return path[:-1], when[:-1], (path[1:] - path[:-1]) / width, sigma**2 / width, 1 / width


def snapshot(x: Any, name: str) -> Float[Array, "n d"]:
    """Points as an array, or `InputError` with what is wrong."""
    made = np.asarray(x)
    if made.ndim != 2 or made.dtype.kind not in "biuf" or not made.size:
        raise InputError(f"{name} holds {made.dtype} of {made.shape}; numbers (points, dimensions) are wanted.")
    if not np.isfinite(made).all():
        raise InputError(f"{name} has {int((~np.isfinite(made)).any(axis=1).sum())} points that are not finite.")
    return jnp.asarray(made, float)
