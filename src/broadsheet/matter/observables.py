"""What is measured on trajectories of particles: NumPy in, NumPy out.

Trajectories are `(frames, particles, dim)`, in any unit of length, with frames at equal times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from broadsheet.errors import InputError

Trajectory = Float[np.ndarray, "frames particles dim"]
Points = Float[np.ndarray, "particles dim"]


def msd(positions: Trajectory, lags: Sequence[int]) -> Float[np.ndarray, " lags"]:
    """Mean squared displacement at each lag (frames), over all particles and time origins.

    NaN frames are left out; a lag at which no particle was seen at both ends has NaN.
    """
    positions = np.asarray(positions)
    values = []
    for lag in lags:
        if not 0 <= lag < len(positions):
            raise InputError(f"A lag of {lag} frames does not fit in a trajectory of {len(positions)} frames.")
        step = positions[lag:] - positions[: len(positions) - lag]
        squared = np.einsum("...d,...d->...", step, step)
        mean = squared.mean(dtype=np.float64)
        seen = squared[~np.isnan(squared)] if np.isnan(mean) else squared
        values.append(np.nan if not seen.size else seen.mean() if np.isnan(mean) else mean)
    return np.array(values)


def lags_seen(positions: Trajectory) -> np.ndarray:
    """The lags (frames) above 0 at which some particle was seen at both ends, in order."""
    seen = ~np.isnan(positions).any(axis=-1)
    if seen.all():
        return np.arange(1, len(positions))
    total = np.zeros(len(positions))
    for particles in np.array_split(seen, -(-seen.size // 2**20), axis=1):
        spectrum = np.abs(np.fft.rfft(particles, 2 * len(seen), axis=0)) ** 2
        total += np.fft.irfft(spectrum.sum(axis=1))[: len(seen)]
    return np.flatnonzero(total[1:] > 0.5) + 1


def log_slope(x: np.ndarray, y: np.ndarray) -> float:
    """Exponent between two points, d ln y / d ln x."""
    return float(np.log(y[-1] / y[0]) / np.log(x[-1] / x[0]))


def diffusion_constant(positions: Trajectory, lags: tuple[int, int], dt: float) -> float:
    """Slope of the mean squared displacement between two lags (frames) over 2 dim; `dt` is the time of one frame.

    A slope and not a ratio, because a bounded part of the motion adds a constant to the displacement.
    """
    first, second = msd(positions, lags)
    return float((second - first) / ((lags[1] - lags[0]) * dt) / (2 * positions.shape[-1]))


def headings(positions: Trajectory, lag: int) -> Float[np.ndarray, "headings particles dim"]:
    """Unit vectors of the displacement over `lag` frames."""
    step = positions[lag:] - positions[:-lag]
    return step / np.maximum(np.linalg.norm(step, axis=-1, keepdims=True), 1e-12)


def heading_autocorrelation(positions: Trajectory, lag: int, lags: Sequence[int]) -> Float[np.ndarray, " lags"]:
    """Mean cosine between headings (over `lag` frames) that are `lags` frames apart."""
    e = headings(positions, lag)
    return np.array([np.mean(np.sum(e[n:] * e[: len(e) - n], axis=-1)) for n in lags])


def mean_speed(positions: Trajectory, lag: int, dt: float) -> float:
    """Mean length of the displacement over `lag` frames, per time."""
    return float(np.linalg.norm(positions[lag:] - positions[:-lag], axis=-1).mean() / (lag * dt))


def nearest_distance(points: Points, neighbours: int = 4) -> float:
    """Mean distance of a particle to its `neighbours` nearest, median over particles.

    The median, because a particle on the edge of a cluster finds its fourth neighbour in the next shell only.
    """
    distance, _ = cKDTree(points).query(points, k=neighbours + 1)
    return float(np.median(distance[:, 1:].mean(axis=1)))


def bonds(points: Points, cutoff: float) -> np.ndarray:
    """Pairs (i < j) closer than `cutoff`, (bonds, 2)."""
    return cKDTree(points).query_pairs(cutoff, output_type="ndarray")


def bond_order(points: Points, order: int, cutoff: float) -> Float[np.ndarray, " particles"]:
    """|psi_k| of each particle in the plane: |mean over neighbours within `cutoff` of exp(i k angle)|; 0 without any."""
    pairs = bonds(points, cutoff)
    i, j = np.concatenate([pairs, pairs[:, ::-1]]).T
    delta = points[j] - points[i]
    phase = np.exp(1j * order * np.arctan2(delta[:, 1], delta[:, 0]))
    total = np.zeros(len(points), complex)
    np.add.at(total, i, phase)
    return np.abs(total) / np.maximum(np.bincount(i, minlength=len(points)), 1)


def bond_fluctuation(positions: Trajectory, cutoff: float) -> float:
    """Standard deviation in time of the lengths of the bonds of the first frame, mean over bonds.

    Bond lengths and not displacements, because a free cluster drifts and rotates.
    """
    pairs = bonds(positions[0], cutoff)
    if not len(pairs):
        return float("nan")
    lengths = np.linalg.norm(positions[:, pairs[:, 0]] - positions[:, pairs[:, 1]], axis=-1)
    return float(lengths.std(axis=0).mean())


def radial_distribution(
    positions: Trajectory, edges: np.ndarray
) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """g(r) of a cluster in the plane without walls: pairs per ring area, scaled to a mean of 1 over the bins.

    **Returns:** (bin centres, g).
    """
    counts = np.zeros(len(edges) - 1)
    for points in positions:
        distance = np.linalg.norm(points[:, None] - points[None], axis=-1)[np.triu_indices(len(points), 1)]
        counts += np.histogram(distance, edges)[0]
    area = np.pi * (edges[1:] ** 2 - edges[:-1] ** 2)
    density = counts / area
    return (edges[1:] + edges[:-1]) / 2, density / max(density.mean(), 1e-12)


def cluster_sizes(points: Points, cutoff: float) -> np.ndarray:
    """Sizes of the clusters of particles joined by distances below `cutoff`, largest first."""
    pairs = bonds(points, cutoff)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(points), len(points)))
    return np.sort(np.bincount(connected_components(graph, directed=False)[1]))[::-1]
