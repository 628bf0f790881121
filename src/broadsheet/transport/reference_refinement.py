"""Trajectories of a population from unpaired snapshots at several times, under a reference process of a given family.

Bridges between neighbouring snapshots are found under the reference, its parameters are fitted to paths of the bridges, and so
on in turns: each half lowers the divergence of the paths' law from the reference (Shen, Berlinghieri and Broderick, arXiv
2408.06277).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.optimize import least_squares
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from broadsheet.errors import InputError
from broadsheet.learn import fit
from broadsheet.transport.bridges import Method, schrodinger_bridge, walk
from broadsheet.transport.drift_regression import DriftRegressor
from broadsheet.transport.reference_processes import ReferenceSDE, brownian, grid
from broadsheet.transport.two_samples import wasserstein1

FEW = 64
"""Parameters up to which a reference is refitted by least squares."""
ROWS = 50_000
"""Increments that a refit sees, drawn at random where there are more."""


class Increments(NamedTuple):
    """Steps of paths: from states `x` (rows, d) at times `t`, at rates `v` (rows, d), over `width` (rows,)."""

    x: Float[Array, "rows d"]
    t: Float[Array, " rows"]
    v: Float[Array, "rows d"]
    width: Float[Array, " rows"]


def increments_of(
    paths: Float[Array | np.ndarray, "times paths d"],
    times: Float[np.ndarray, " times"],
    rows: int | None = None,
    key: Any = None,
) -> Increments:
    """All steps of paths, or `rows` of them at random."""
    x = jnp.asarray(paths)
    return _increments(x, jnp.asarray(times, x.dtype), rows, key)


@partial(jax.jit, static_argnames="rows")
def _increments(x: Array, t: Array, rows: int | None, key: Any) -> Increments:
    count = (len(t) - 1) * x.shape[1]
    chosen = jnp.arange(count)
    if rows is not None and rows < count:
        chosen = jax.random.choice(key, count, (rows,), replace=False)
    step, path = chosen // x.shape[1], chosen % x.shape[1]
    width = t[step + 1] - t[step]
    return Increments(x[step, path], t[step], (x[step + 1, path] - x[step, path]) / width[:, None], width)


@eqx.filter_jit
def misfit(reference: ReferenceSDE, steps: Increments) -> Float[Array, ""]:
    """Mean square of the steps' noise in units of what it should be, a dimension: 1 for paths of the reference itself."""
    return jnp.mean(_residuals(reference, steps) ** 2)


def _residuals(reference: ReferenceSDE, steps: Increments) -> Float[Array, "rows d"]:
    away = steps.v - jax.vmap(reference)(steps.x, steps.t)
    return away * jnp.sqrt(steps.width)[:, None] / reference.sigma


@eqx.filter_jit
def _linearised(reference: ReferenceSDE, flat: Array, unravel: Callable, steps: Increments) -> tuple[Array, Array]:
    """Residuals and their slopes, reduced to as many rows as there are parameters: the sum of squares, its slope and its
    curvature stay what they are."""

    def residuals(p: Array) -> Array:
        return _residuals(eqx.tree_at(lambda r: r.params, reference, unravel(p)), steps).ravel()

    r, J = residuals(flat), jax.jacfwd(residuals)(flat)
    q, upper = jnp.linalg.qr(J)
    part = q.T @ r
    rest = jnp.sqrt(jnp.maximum(r @ r - part @ part, 0))
    return jnp.append(part, rest), jnp.concatenate([upper, jnp.zeros_like(upper[:1])])


def refit(
    reference: ReferenceSDE,
    steps: Increments,
    *,
    by: Literal["auto", "least-squares", "adam"] = "auto",
    rate: float = 0.05,
    epochs: int = 20,
    batch: int | None = None,
    key: PRNGKeyArray | None = None,
) -> ReferenceSDE:
    """The reference of the same family under which steps are likeliest, from its present parameters on.

    **Arguments:**

    - `by`: `"least-squares"` (Levenberg and Marquardt's kind; families linear in their parameters are solved in one step) or
      `"adam"`; by default least squares up to 64 parameters.
    - `rate`, `epochs`, `batch`: of Adam; `batch` rows a step, by default all.

    **Raises:** `InputError` where the family has no parameters, or its misfit is not finite.
    """
    free = eqx.filter(reference.params, eqx.is_inexact_array)
    many = sum(leaf.size for leaf in jax.tree.leaves(free))
    if not many:
        raise InputError("The reference has no parameters to be refitted.")
    if by == "adam" or (by == "auto" and many > FEW):
        rows = len(steps.x)
        size = min(batch or rows, rows)
        return fit(
            reference, _Misfit(), _Rows(steps, size), optimiser=optax.adam(rate), steps=max(1, epochs * rows // size),
            key=jax.random.key(0) if key is None else key,
            parameters=eqx.tree_at(lambda tree: tree.params, jax.tree.map(lambda _: False, reference),
                                   jax.tree.map(eqx.is_inexact_array, reference.params)),
        ).model  # fmt: skip
    flat, unravel = ravel_pytree(free)
    cached: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def at(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if p.tobytes() not in cached:
            cached.clear()
            part, slopes = _linearised(reference, jnp.asarray(p, flat.dtype), unravel, steps)
            cached[p.tobytes()] = np.asarray(part, float), np.asarray(slopes, float)
        return cached[p.tobytes()]

    start = np.asarray(flat, float)
    if not np.isfinite(at(start)[0]).all():
        raise InputError("The misfit of the reference is not finite at its parameters; begin with others.")
    found = least_squares(lambda p: at(p)[0], start, lambda p: at(p)[1], x_scale="jac", max_nfev=200)
    return eqx.tree_at(lambda r: r.params, reference, eqx.combine(unravel(jnp.asarray(found.x, flat.dtype)), reference.params))


class _Misfit(eqx.Module):
    def __call__(self, model: ReferenceSDE, batch: Increments, key: PRNGKeyArray) -> Array:
        return misfit(model, batch)


class _Rows(eqx.Module):
    steps: Increments
    size: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> Increments:
        if self.size == len(self.steps.x):
            return self.steps
        rows = jax.random.randint(key, (self.size,), 0, len(self.steps.x))
        return jax.tree.map(lambda leaf: leaf[rows], self.steps)


def snapshots_of(X: Any, t: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """Rows by their time: times that rise, and the points of each.

    **Raises:** `InputError` for rows that are not finite, fewer than two times, and a time with one point.
    """
    x, when = np.asarray(X), np.asarray(t)
    if x.ndim != 2 or x.dtype.kind not in "biuf" or not x.size:
        raise InputError(f"X holds {x.dtype} of {x.shape}; numbers (points, dimensions) are wanted.")
    if when.shape != (len(x),) or when.dtype.kind not in "biuf":
        raise InputError(f"t holds {when.dtype} of {when.shape}; one number a row of X ({len(x)} rows) is wanted.")
    bad = ~(np.isfinite(x).all(axis=1) & np.isfinite(when))
    if bad.any():
        raise InputError(f"{int(bad.sum())} rows are not finite, the first of them row {int(np.argmax(bad))}; leave them out.")
    times, counts = np.unique(when, return_counts=True)
    if len(times) < 2:
        raise InputError(f"All rows are of time {times[0]:g}; snapshots at two times or more are wanted.")
    if counts.min() < 2:
        raise InputError(f"Time {times[np.argmin(counts)]:g} has one point; two or more a time are wanted.")
    return times.astype(float), [x[when == each].astype(float) for each in times]


def stack_snapshots(snapshots: Any, times: Any) -> tuple[np.ndarray, np.ndarray]:
    """A list of snapshots (points, dimensions) at times that rise, as rows and the time of each, for `SBIRR.fit`.

    **Raises:** `InputError` for another number of times, times that do not rise, and snapshots that are empty or of different
    dimension.
    """
    when = np.asarray(times, float)
    parts = [np.asarray(each, float) for each in snapshots]
    if when.shape != (len(parts),):
        raise InputError(f"There are {len(parts)} snapshots and times of {when.shape}; one time a snapshot is wanted.")
    late = np.flatnonzero(~(np.diff(when) > 0))
    if len(late):
        raise InputError(f"Time {late[0] + 1} is {when[late[0] + 1]:g}, after {when[late[0]]:g}; times that rise are wanted.")
    for k, part in enumerate(parts):
        if part.ndim != 2 or not part.size or part.shape[1] != parts[0].shape[-1]:
            raise InputError(
                f"Snapshot {k} is {part.shape}; points (at least one, {parts[0].shape[-1]} dimensions) are wanted."
            )
    return np.concatenate(parts), np.repeat(when, [len(part) for part in parts])


class SBIRR(BaseEstimator):
    """Multi-marginal Schrödinger bridges with iterative reference refinement: from points, each with the time at which it was
    seen, to trajectories and the parameters of their law of motion.

    **Arguments:**

    - `reference`: a family and where to begin, `ReferenceSDE(lotka_volterra, {...}, sigma=0.1)`; by default Brownian motion of
      volatility 0.1, which has nothing to refine.
    - `outer`: how often bridges are found anew, with a refit of the reference after each; `method`: see `schrodinger_bridge`.
    - `inner`, `regressor`, `simulated`: turns of `"ipfp"`, how it fits drifts, and paths simulated for that at least; `group`:
      of `"gaussian"`; `dt`: step of time.
    - `refitting`, `rate`, `epochs`, `batch`: see `refit`.
    - `random_state`: an integer.

    Fitted: `reference_`, `params_`; `times_` of the snapshots, `grid_` (times,) and `paths_` (times, points, d), one path
    through each point; `bridges_` between neighbours; `misfits_` and `history_`, the misfit of each turn's paths before their
    refit and the parameters after it; `n_features_in_`.
    """

    def __init__(
        self, reference: ReferenceSDE | None = None, *, outer: int = 10, method: Method = "gaussian", inner: int = 10,
        dt: float = 0.02, regressor: DriftRegressor | None = None, simulated: int = 1, group: int | None = None,
        refitting: Literal["auto", "least-squares", "adam"] = "auto", rate: float = 0.05, epochs: int = 20,
        batch: int | None = None, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.reference = reference
        self.outer = outer
        self.method = method
        self.inner = inner
        self.dt = dt
        self.regressor = regressor
        self.simulated = simulated
        self.group = group
        self.refitting = refitting
        self.rate = rate
        self.epochs = epochs
        self.batch = batch
        self.random_state = random_state

    def fit(self, X: Any, t: Any, *, report: Callable[[int, float], None] | None = None) -> SBIRR:
        """**Arguments:** `X` (rows, d); `t` (rows,): when each was seen, in any order; `report`: called with (turns made,
        misfit).

        **Raises:** `InputError`, see `snapshots_of`; for fewer than one turn; and where paths leave finite numbers.
        """
        self.times_, parts = snapshots_of(X, t)
        if self.outer < 1:
            raise InputError(f"outer is {self.outer}; at least 1 is wanted.")
        reference = brownian() if self.reference is None else self.reference
        free = bool(jax.tree.leaves(eqx.filter(reference.params, eqx.is_inexact_array)))
        self.n_features_in_ = np.shape(X)[1]
        self.misfits_, self.history_ = [], []
        spans = list(pairwise(self.times_))
        self.grid_ = np.append(np.concatenate([grid(*span, self.dt)[:-1] for span in spans]), self.times_[-1])
        key = jax.random.key(self.random_state)
        for turn in range(self.outer):
            bridging, walking, choosing, fitting = jax.random.split(jax.random.fold_in(key, turn), 4)
            self.bridges_ = [
                schrodinger_bridge(
                    first, second, reference, start=begin, stop=end, dt=self.dt, method=self.method, iterations=self.inner,
                    regressor=self.regressor, simulated=self.simulated, group=self.group, key=jax.random.fold_in(bridging, k),
                )
                for k, ((first, second), (begin, end)) in enumerate(zip(pairwise(parts), spans, strict=True))
            ]  # fmt: skip
            self.paths_ = walk(self.bridges_, walking)
            steps = increments_of(self.paths_, self.grid_, ROWS, choosing)
            self.misfits_.append(float(misfit(reference, steps)))
            if not np.isfinite(self.misfits_[-1]):
                raise InputError(
                    f"Paths of turn {turn + 1} are not finite: take a smaller dt, or another reference to begin with."
                )
            if report is not None:
                report(turn + 1, self.misfits_[-1])
            if not free:
                break
            reference = refit(
                reference, steps, by=self.refitting, rate=self.rate, epochs=self.epochs, batch=self.batch, key=fitting
            )
            self.history_.append(reference.params)
        self.reference_, self.params_ = reference, reference.params
        self._key = jax.random.fold_in(key, self.outer)
        return self

    def sample(self, n_samples: int = 1, *, random_state: int | None = None) -> Float[np.ndarray, "n_samples times d"]:
        """New trajectories on `grid_`, through points drawn from all snapshots."""
        check_is_fitted(self, "bridges_")
        if n_samples < 1:
            raise InputError(f"sample: {n_samples} trajectories; at least 1 is wanted.")
        key = self._key if random_state is None else jax.random.key(random_state)
        many = self.paths_.shape[1]
        made = [walk(self.bridges_, jax.random.fold_in(key, k)) for k in range(-(-n_samples // many))]
        paths = np.concatenate(made, axis=1)
        chosen = np.random.default_rng(self.random_state).permutation(paths.shape[1])[:n_samples]
        return np.swapaxes(paths[:, chosen], 0, 1)

    def interpolate(self, t: float) -> Float[np.ndarray, "points d"]:
        """Where the fitted paths are at a time between the first and the last snapshot.

        **Raises:** `InputError` for a time outside.
        """
        check_is_fitted(self, "paths_")
        if not self.grid_[0] <= t <= self.grid_[-1]:
            raise InputError(f"The trajectories run from {self.grid_[0]:g} to {self.grid_[-1]:g}, not to {t:g}.")
        late = int(np.clip(np.searchsorted(self.grid_, t), 1, len(self.grid_) - 1))
        share = (t - self.grid_[late - 1]) / (self.grid_[late] - self.grid_[late - 1])
        return (1 - share) * self.paths_[late - 1] + share * self.paths_[late]

    def predict(self, X: Any, t: Any = None) -> Float[np.ndarray, "rows d"]:
        """The refined reference's drift at rows and their times, by default that of the first snapshot."""
        check_is_fitted(self, "reference_")
        x = jnp.asarray(np.asarray(X, float), float)
        when = jnp.asarray(self.times_[0] if t is None else np.asarray(t, float), x.dtype)
        return np.asarray(jax.vmap(self.reference_)(x, jnp.broadcast_to(when, len(x))), float)

    def score(self, X: Any, t: Any) -> float:
        """Minus the mean over the times of Wasserstein's distance from rows to the trajectories there; times before the first
        snapshot or after the last are left out."""
        check_is_fitted(self, "paths_")
        x, when = np.asarray(X, float), np.asarray(t, float)
        inside = [each for each in np.unique(when) if self.grid_[0] <= each <= self.grid_[-1]]
        if not inside:
            raise InputError(f"No row is of a time from {self.grid_[0]:g} to {self.grid_[-1]:g}.")
        return -float(np.mean([wasserstein1(self.interpolate(each), x[when == each]) for each in inside]))
