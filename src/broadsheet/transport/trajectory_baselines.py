"""What interpolates snapshots without a bridge: splines through matched points, and the family's own paths fitted to means."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from scipy.interpolate import CubicSpline
from scipy.optimize import least_squares
from scipy.spatial.distance import cdist

from broadsheet.errors import InputError, MissingExtraError
from broadsheet.transport.reference_processes import ReferenceSDE, euler_paths, grid
from broadsheet.transport.two_samples import wasserstein1

LOST = 1e3
"""What a path misses that is not finite, in units of the means' spread."""


def matched(snapshots: list[Float[np.ndarray, "points d"]]) -> Float[np.ndarray, "snapshots chains d"]:
    """Chains through all snapshots, as many as the first has points, by the cheapest transport between neighbours; where a
    point's weight is divided, the largest part is followed."""
    try:
        import ot
    except ImportError:
        raise MissingExtraError("Optimal transport (POT)", "transport") from None
    at = np.arange(len(snapshots[0]))
    chains = [snapshots[0]]
    for first, second in pairwise(snapshots):
        plan = ot.emd([], [], cdist(first, second) ** 2, numItermax=10_000_000)
        at = plan.argmax(axis=1)[at]
        chains.append(second[at])
    return np.stack(chains)


def spline_paths(
    snapshots: list[Float[np.ndarray, "points d"]], times: Float[np.ndarray, " snapshots"], at: Float[np.ndarray, " wanted"]
) -> Float[np.ndarray, "wanted chains d"]:
    """Natural cubic splines through `matched` chains, at times between the first and the last."""
    return CubicSpline(times, matched(snapshots), bc_type="natural" if len(times) > 2 else "not-a-knot")(at)


@eqx.filter_jit
def _means(
    reference: ReferenceSDE, flat: Array, unravel: Callable, start: Array, times: Array, marks: Array
) -> tuple[Float[Array, "snapshots d"], Float[Array, "snapshots d parameters"]]:
    """Where the path without noise is at the snapshots, and how that moves with the parameters."""

    def at(p: Array) -> Array:
        moved = eqx.tree_at(lambda r: r.params, reference, unravel(p))

        def step(x: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
            x = x + given[1] * moved(x, given[0])
            return x, x

        return jax.lax.scan(step, start, (times[:-1], jnp.diff(times)))[1][marks]

    return at(flat), jax.jacfwd(at)(flat)


def shoot(
    reference: ReferenceSDE,
    snapshots: list[Float[np.ndarray, "points d"]],
    times: Float[np.ndarray, " snapshots"],
    *,
    dt: float = 0.02,
    starts: int = 20,
    seed: int = 0,
) -> tuple[ReferenceSDE, float]:
    """The family's parameters by trajectory matching, as for ordinary equations: from the mean of the first snapshot, the path
    without noise is to meet the means of the others.

    Tried from the reference's own parameters and from log-uniform ones between .05 and 20, each time fitted to the first two
    snapshots, then to three, and so on. Of those that miss the means by at most twice the least, the one is taken whose paths
    from the first snapshot's points come nearest to the other snapshots. Returns it and the root mean square of what it misses,
    in units of the means' spread over time.

    **Raises:** `InputError` where no start has a finite path.
    """
    flat, unravel = ravel_pytree(reference.params)
    edges = [grid(a, b, dt) for a, b in pairwise(times)]
    times_all = jnp.asarray(np.append(np.concatenate([e[:-1] for e in edges]), times[-1]), flat.dtype)
    marks = jnp.asarray(np.cumsum([len(e) - 1 for e in edges]) - 1)
    means = np.stack([part.mean(axis=0) for part in snapshots])
    begin = jnp.asarray(means[0], flat.dtype)
    scale = np.maximum(means.std(axis=0), 1e-9)

    def path(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        made = _means(reference, jnp.asarray(p, flat.dtype), unravel, begin, times_all, marks)
        found, slopes = (np.asarray(part, float) for part in made)
        lost = ~np.isfinite(slopes).all(axis=2) | ~np.isfinite(found)
        return np.where(lost, LOST, (found - means[1:]) / scale), np.where(lost[..., None], 0.0, slopes / scale[:, None])

    def away(p: np.ndarray, count: int) -> np.ndarray:
        return path(p)[0][:count].clip(-LOST, LOST).ravel()

    def slopes(p: np.ndarray, count: int) -> np.ndarray:
        return path(p)[1][:count].reshape(-1, len(p))

    rng = np.random.default_rng(seed)
    tried = [np.asarray(flat, float)] + [np.exp(rng.uniform(np.log(0.05), np.log(20), len(flat))) for _ in range(starts)]
    fits: list[tuple[float, np.ndarray]] = []
    for p in tried:
        for count in range(1, len(means)):
            p = least_squares(away, p, slopes, x_scale=np.maximum(np.abs(p), 0.1), max_nfev=50, args=(count,)).x
        fits.append((float(np.sqrt(np.mean(away(p, len(means) - 1) ** 2))), p))
    fits.sort(key=lambda each: each[0])
    if fits[0][0] >= LOST:
        raise InputError("From no parameters to begin with does the path without noise stay finite.")
    made = [
        (missed, eqx.tree_at(lambda r: r.params, reference, unravel(jnp.asarray(p, flat.dtype))))
        for missed, p in fits
        if missed <= 2 * fits[0][0]
    ]
    start = jnp.asarray(snapshots[0], flat.dtype)

    def far(found: ReferenceSDE) -> float:
        paths = euler_paths(found, found.sigma, start, times_all, jax.random.key(seed))
        places = np.asarray(paths, float)[1 + np.asarray(marks)]
        if not np.isfinite(places).all():
            return np.inf
        return sum(wasserstein1(points, part) for points, part in zip(places, snapshots[1:], strict=True))

    missed, best = min(made, key=lambda each: far(each[1]))
    return best, missed
