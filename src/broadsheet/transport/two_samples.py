"""How far two samples are from each other."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

from broadsheet.errors import InputError, MissingExtraError

ROWS = 1024
"""Rows of the matrix of distances that is held."""


def _mean_distance(x: np.ndarray, y: np.ndarray) -> float:
    return float(sum(cdist(x[k : k + ROWS], y).sum() for k in range(0, len(x), ROWS)) / (len(x) * len(y)))


def energy_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """`2 E|X - Y| - E|X - X'| - E|Y - Y'|` in Euclid's norm: 0 where the laws are one, about `2 sd / n` more by chance (Székely
    and Rizzo, J. Stat. Plan. Inference 143, 1249 (2013)). Pairs of a row with itself are left out."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    within = [_mean_distance(part, part) * len(part) / (len(part) - 1) for part in (x, y)]
    return 2 * _mean_distance(x, y) - within[0] - within[1]


def wasserstein1(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """The earth mover's distance: the least mean way in Euclid's norm by which points of equal weights become the others.

    **Raises:** `InputError` for samples that are empty or of different dimension; `MissingExtraError` without POT.
    """
    try:
        import ot
    except ImportError:
        raise MissingExtraError("The exact Wasserstein distance (POT)", "transport") from None
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise InputError(f"The samples have shapes {x.shape} and {y.shape}; points (at least one) of one dimension are wanted.")
    return float(ot.emd2([], [], cdist(x, y), numItermax=10_000_000))
