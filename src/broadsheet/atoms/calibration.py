"""What a spread is worth: a factor fitted to held-out values that have errors of their own, and the likelihood of others."""

from __future__ import annotations

import numpy as np

from broadsheet.errors import InputError

FACTORS = np.logspace(-3, 3, 1201)
"""Factors tried, in units of the one that would make the errors as large as the spreads."""


def spread_factor(
    mean: np.ndarray,
    deviation: np.ndarray,
    targets: np.ndarray,
    noise: np.ndarray | float = 0.0,
    *,
    up_to_a_constant: bool = False,
) -> float:
    """The factor of the deviations that held-out targets ask for: its mean under their likelihood, with a flat prior.

    Targets are normal about the mean, with variance `noise^2 + factor^2 deviation^2`: what they are known to is counted apart,
    so that noisy targets do not widen the spread. Of many targets it is the factor of maximum likelihood, to 1.2 %; of few that
    are explained by their noise it is above 0.

    **Arguments:** `mean`, `deviation`, `targets`: arrays of one axis; `noise`: deviation of the targets themselves;
    `up_to_a_constant`: mean and targets may differ by any constant, as free energies do.

    **Raises:** `InputError` where shapes differ, or nothing is finite or spread at all.
    """
    mean, deviation, targets = (np.asarray(part, float) for part in (mean, deviation, targets))
    noise = np.broadcast_to(np.asarray(noise, float), mean.shape)
    if not mean.shape == deviation.shape == targets.shape or mean.ndim != 1 or not mean.size:
        raise InputError(f"spread_factor: shapes {mean.shape}, {deviation.shape}, {targets.shape}; one and the same is wanted.")
    error = targets - mean
    size, spread = np.sqrt(np.mean(error**2)), np.sqrt(np.mean(deviation**2))
    if not np.isfinite(size + spread) or not size > 0 or not spread > 0:
        raise InputError("spread_factor: errors and deviations above 0, all of them finite, are wanted.")
    factors = FACTORS * size / spread
    variance = noise**2 + (factors[:, None] * deviation) ** 2
    if not (variance > 0).all():
        raise InputError("spread_factor: a target without noise has no deviation either.")
    rest = np.broadcast_to(error, variance.shape)
    if up_to_a_constant:
        rest = error - (np.sum(error / variance, axis=1) / np.sum(1 / variance, axis=1))[:, None]
    loss = np.sum(rest**2 / variance + np.log(variance), axis=1) / 2
    weight = np.exp(loss.min() - loss) * factors  # even in the factor, not in its logarithm
    return float(np.sum(weight * factors) / np.sum(weight))


def normal_nll(mean: np.ndarray, deviation: np.ndarray, targets: np.ndarray) -> float:
    """Mean negative log-likelihood of targets under independent normal laws; lower is better, in nats a value."""
    deviation = np.asarray(deviation, float)
    return float(np.mean(((targets - mean) / deviation) ** 2 / 2 + np.log(deviation) + np.log(2 * np.pi) / 2))
