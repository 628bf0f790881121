"""What is measured on trajectories: distribution functions of distances and angles, drift of the energy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def _nearest_image(delta: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    return delta if lengths is None else delta - lengths * np.round(delta / lengths)


def radial_distribution(
    positions: Float[np.ndarray, "frames n 3"], lengths: Float[np.ndarray, "3"], edges: Float[np.ndarray, " edges"]
) -> Float[np.ndarray, " bins"]:
    """g(r) in an orthogonal periodic box of these side lengths (Å): counts of pairs over those of an ideal gas.

    `edges`: Å, up to half the shortest side.
    """
    frames, n, _ = positions.shape
    i, j = np.triu_indices(n, 1)
    counts = np.zeros(len(edges) - 1)
    for frame in positions:
        r = np.linalg.norm(_nearest_image(frame[i] - frame[j], lengths), axis=1)
        counts += np.histogram(r, edges)[0]
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    return counts / (frames * n * (n - 1) / 2 * shells / np.prod(lengths))


def angular_distribution(
    positions: Float[np.ndarray, "frames n 3"],
    lengths: Float[np.ndarray, "3"] | None,
    edges: Float[np.ndarray, " edges"],
    cutoff: float,
) -> Float[np.ndarray, " bins"]:
    """Probability density of the angle (degrees) at a particle between two neighbours within the cutoff (Å)."""
    counts = np.zeros(len(edges) - 1)
    for frame in positions:
        delta = _nearest_image(frame[None, :] - frame[:, None], lengths)
        r = np.linalg.norm(delta, axis=2)
        for k in range(len(frame)):
            near = np.flatnonzero((r[k] < cutoff) & (r[k] > 0))
            if len(near) < 2:
                continue
            unit = delta[k, near] / r[k, near, None]
            cosines = (unit @ unit.T)[np.triu_indices(len(near), 1)]
            counts += np.histogram(np.degrees(np.arccos(np.clip(cosines, -1, 1))), edges)[0]
    return counts / np.maximum(counts.sum(), 1) / np.diff(edges)


def energy_drift(times: Float[np.ndarray, " frames"], energies: Float[np.ndarray, " frames"], atoms: int) -> float:
    """Slope of the total energy against time by least squares, meV an atom and ps; `times` in fs, energies in eV."""
    return float(np.polyfit(times / 1000, 1000 * energies / atoms, 1)[0])
