"""Recurrent weights to start from, of different structure at one norm; row = to, column = from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from broadsheet.errors import InputError
from broadsheet.numerics import generator
from broadsheet.numerics.ranks import effective_rank

Norm = Literal["match", "none"]


def gaussian_weights(key: Any, units: int, gain: float = 1.25) -> Float[np.ndarray, "units units"]:
    """Independent Gaussian numbers of deviation `gain / sqrt(units)`: a spectral radius near `gain`."""
    if units < 1 or not np.isfinite(gain):
        raise InputError(f"gaussian_weights: {units} units and a gain of {gain}; at least one unit and a number are wanted.")
    return generator(key).standard_normal((units, units)) * gain / units**0.5


def match_norm(weights: Float[np.ndarray, "units units"], to: Float[np.ndarray, "units units"] | float) -> np.ndarray:
    """The weights scaled to the Frobenius norm `to`, or to that of another matrix.

    **Raises:** `InputError` for weights that are all zero or not finite.
    """
    weights, wanted = np.asarray(weights, float), float(np.linalg.norm(to)) if np.ndim(to) else float(to)
    norm = float(np.linalg.norm(weights))
    if not norm > 0 or not np.isfinite(norm):
        raise InputError("match_norm: the weights are all zero or not finite, so that no scale gives them a norm.")
    return weights * (wanted / norm)


def spectral_radius(weights: Float[np.ndarray, "units units"]) -> float:
    """The largest absolute eigenvalue."""
    return float(np.abs(np.linalg.eigvals(weights)).max())


def match_radius(weights: Float[np.ndarray, "units units"], radius: float) -> np.ndarray:
    """The weights scaled to a spectral radius.

    **Raises:** `InputError` where the radius of the weights is 0, as it is of a chain.
    """
    own = spectral_radius(weights)
    if own <= 1e-9 * np.linalg.norm(weights):
        raise InputError("match_radius: the weights have the spectral radius 0 (no loops), so that no scale changes it.")
    return np.asarray(weights, float) * (radius / own)


def truncate(weights: Float[np.ndarray, "units units"], rank: int, norm: Norm = "match") -> np.ndarray:
    """The weights' first `rank` singular directions, by default scaled to the norm that all of them had."""
    weights = np.asarray(weights, float)
    if not 1 <= rank <= min(weights.shape):
        raise InputError(f"truncate: a rank of {rank} for weights of {weights.shape}; 1 to {min(weights.shape)} is wanted.")
    u, s, vt = np.linalg.svd(weights, full_matrices=False)
    kept = u[:, :rank] * s[:rank] @ vt[:rank]
    return match_norm(kept, weights) if norm == "match" else kept


def low_rank_weights(
    key: Any, units: int, rank: int, *, gain: float = 1.25, norm: Norm = "match"
) -> Float[np.ndarray, "units units"]:
    """A Gaussian matrix's first `rank` singular directions at the norm of the whole matrix (arXiv 2310.08513).

    The same key gives the same Gaussian matrix for each rank.
    """
    return truncate(gaussian_weights(key, units, gain), rank, norm)


def smooth_spectrum_weights(key: Any, units: int, wanted: float, *, gain: float = 1.25) -> Float[np.ndarray, "units units"]:
    """Weights of full rank whose *effective* rank (participation) is `wanted`: the singular vectors of a Gaussian matrix, with
    singular values that fall exponentially, at that matrix's norm.

    **Raises:** `InputError` for an effective rank that is not between 1 and the number of units.
    """
    if not 1.01 <= wanted < units:
        raise InputError(f"smooth_spectrum_weights: an effective rank of {wanted:g}; from 1.01 to less than {units} is wanted.")
    whole = gaussian_weights(key, units, gain)
    u, _, vt = np.linalg.svd(whole)
    places = np.arange(units)

    def beside(fall: float) -> float:
        s = np.exp(-fall * places)
        return float((s**2).sum() ** 2 / (s**4).sum()) - wanted

    s = np.exp(-brentq(beside, 1e-9, 10.0) * places)
    return match_norm(u * s @ vt, whole)


def dale_weights(
    key: Any, units: int, *, gain: float = 1.25, excitatory: float = 0.8, balance: bool = True
) -> Float[np.ndarray, "units units"]:
    """Dale's law: columns of one sign, the first `excitatory` share positive, magnitudes half-normal.

    `balance`: inhibition is stronger by the ratio of numbers, so that columns cancel on average.
    """
    if not 0 < excitatory < 1:
        raise InputError(f"dale_weights: a share of {excitatory} excitatory units; more than 0 and less than 1 is wanted.")
    whole = gaussian_weights(key, units, gain)
    signs = np.where(np.arange(units) < round(excitatory * units), 1.0, -1.0)
    strength = np.where(signs > 0, 1.0, excitatory / (1 - excitatory) if balance else 1.0)
    return match_norm(np.abs(whole) * signs * strength, whole)


def block_weights(
    key: Any, units: int, *, types: int = 4, gain: float = 1.25, spread: float = 1.0
) -> Float[np.ndarray, "units units"]:
    """Cell types: the mean and the deviation of a weight depend on the types it joins. Means are Gaussian, of deviation
    `spread` times that of a weight; deviations log-normal."""
    if not 1 <= types <= units:
        raise InputError(f"block_weights: {types} types among {units} units; 1 to {units} is wanted.")
    rng = generator(key)
    whole = gaussian_weights(rng, units, gain)
    of = np.arange(units) * types // units
    means, widths = rng.standard_normal((types, types)) * spread, np.exp(0.5 * rng.standard_normal((types, types)))
    made = whole * widths[np.ix_(of, of)] + means[np.ix_(of, of)] * gain / units**0.5
    return match_norm(made, whole)


def ring_weights(key: Any, units: int, *, reach: float = 0.1, gain: float = 1.25) -> Float[np.ndarray, "units units"]:
    """Distance-dependent strength: Gaussian weights times `exp(-d / reach)`, d the distance on a ring of length 1."""
    if not reach > 0:
        raise InputError(f"ring_weights: a reach of {reach}; more than 0 is wanted.")
    whole = gaussian_weights(key, units, gain)
    places = np.arange(units) / units
    apart = np.abs(places[:, None] - places)
    return match_norm(whole * np.exp(-np.minimum(apart, 1 - apart) / reach), whole)


def chain_weights(
    key: Any, units: int, *, links: int = 10, gain: float = 1.25, noise: float = 0.1
) -> Float[np.ndarray, "units units"]:
    """Groups in a row, each with positive weights to the next alone, and weak Gaussian weights everywhere."""
    if not 2 <= links <= units:
        raise InputError(f"chain_weights: {links} groups among {units} units; 2 to {units} is wanted.")
    whole = gaussian_weights(key, units, gain)
    of = np.arange(units) * links // units
    forward = np.abs(whole) * (of[:, None] == of + 1)
    return match_norm(forward * links**0.5 + noise * whole, whole)


def wired_weights(
    wiring: Float[np.ndarray, "units units"],
    signs: np.ndarray | Sequence[float] | Sequence[int],
    *,
    gain: float = 1.25,
) -> Float[np.ndarray, "units units"]:
    """A connectome as weights: `wiring[i, j]` synapses from i to j, cells of one sign each, at the norm that a Gaussian matrix
    of this gain has on average (`gain sqrt(units)`).

    **Raises:** `InputError` for wiring that is not square, negative, empty or of another size than the signs.
    """
    wiring, signs = np.asarray(wiring, float), np.asarray(signs, float)
    if wiring.ndim != 2 or wiring.shape != (len(signs), len(signs)) or not np.isin(signs, (-1, 1)).all():
        raise InputError(
            f"wired_weights: wiring of {wiring.shape} and {signs.shape} signs; a square and as many ±1 are wanted."
        )
    if not np.isfinite(wiring).all() or wiring.min() < 0 or not wiring.any():
        raise InputError("wired_weights: numbers of synapses are finite, not negative and not all zero.")
    return match_norm((wiring * signs[:, None]).T, gain * len(signs) ** 0.5)


def shuffled_weights(key: Any, weights: Float[np.ndarray, "units units"]) -> Float[np.ndarray, "units units"]:
    """The same weights, each column's in random order over its off-diagonal places: what cells send stays, to whom does not."""
    rng, made = generator(key), np.array(weights, float)
    for k in range(len(made)):
        rest = np.flatnonzero(np.arange(len(made)) != k)
        made[rest, k] = rng.permutation(made[rest, k])
    return made


def describe(weights: Float[np.ndarray, "units units"]) -> dict[str, float]:
    """Effective ranks, Frobenius norm, spectral radius and largest singular value."""
    return {
        "effective_rank": effective_rank(weights), "entropy_rank": effective_rank(weights, "entropy"),
        "norm": float(np.linalg.norm(weights)), "radius": spectral_radius(weights),
        "largest_singular_value": float(np.linalg.norm(weights, 2)),
    }  # fmt: skip
