"""What adaptation does to tuning curves: effects that are measured alike on models and on recordings.

Responses are (neurons, stimuli); angles are in radians and have the period pi, so that all means are of doubled angles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from broadsheet.errors import InputError

Responses = Float[np.ndarray, "neurons stimuli"]


def wrapped(angle: np.ndarray) -> np.ndarray:
    """An orientation or a difference of two, from -pi/2 to below pi/2."""
    return (np.asarray(angle) + np.pi / 2) % np.pi - np.pi / 2


def preferred_orientations(responses: Responses, orientations: Float[np.ndarray, " stimuli"]) -> Float[np.ndarray, " neurons"]:
    """Circular means of tuning curves, less each one's smallest response, from 0 to below pi; NaN for a flat curve.

    Unlike the largest response they show shifts smaller than the spacing of stimuli. Stimuli are taken to be evenly spaced.
    """
    lifted = responses - responses.min(axis=1, keepdims=True)
    vector = lifted @ np.exp(2j * np.asarray(orientations))
    angle = np.angle(vector) / 2 % np.pi
    return np.where(np.abs(vector) > 1e-12 * np.maximum(lifted.sum(axis=1), 1e-300), angle, np.nan)


def coefficient_of_variation(values: np.ndarray) -> float:
    """Standard deviation over mean."""
    return float(np.std(values) / np.mean(values))


def stimulus_covariance(responses: Responses, p: np.ndarray) -> Float[np.ndarray, "neurons neurons"]:
    """Covariance of neurons over the stimuli of an ensemble."""
    centred = responses - (responses @ p)[:, None]
    return (centred * p) @ centred.T


def off_diagonal(matrix: np.ndarray) -> float:
    """Root mean square of what is off the diagonal."""
    return float(np.sqrt(np.mean(matrix[~np.eye(len(matrix), dtype=bool)] ** 2)))


def stimulus_correlation(responses: Responses, p: np.ndarray) -> Float[np.ndarray, "neurons neurons"]:
    """Correlation of neurons over the stimuli of an ensemble; 0 for a neuron that answers all alike."""
    covariance = stimulus_covariance(responses, p)
    spread = np.sqrt(covariance.diagonal())
    safe = np.where(spread > 1e-12 * np.abs(responses).max(axis=1), spread, np.inf)
    return covariance / np.outer(safe, safe)


@dataclass(frozen=True)
class Effects:
    """What changed between two contexts.

    - `distance`: of each neuron's orientation before adaptation from the adapter, -pi/2 to pi/2.
    - `slope`: of each tuning curve after on the one before (its scale), and `peak`, the ratio at the stimulus it preferred.
    - `at_adapter`: ratio of the responses of each neuron to the adapter.
    - `repulsion`: shift of each preferred orientation away from the adapter, radians; negative is attraction.
    - `variation`: coefficient of variation over neurons of the mean response to the biased ensemble, before and after.
    - `correlation`, `covariance`: root mean square off the diagonal, over the stimuli of the biased ensemble, before and after.
    """

    distance: np.ndarray
    slope: np.ndarray
    peak: np.ndarray
    at_adapter: np.ndarray
    repulsion: np.ndarray
    variation: tuple[float, float]
    correlation: tuple[float, float]
    covariance: tuple[float, float]

    def at(self, effect: str, degrees: float) -> float:
        """An effect at a distance from the adapter: both sides' mean, read off between neurons by straight lines."""
        values = getattr(self, effect)
        known = np.isfinite(values) & np.isfinite(self.distance)
        order = np.argsort(self.distance[known])
        angle, value = self.distance[known][order], values[known][order]
        if not len(angle):
            return float("nan")
        sides = np.deg2rad([degrees, -degrees])
        return float(np.interp(wrapped(sides), angle, value, period=np.pi).mean())

    def summary(self) -> dict[str, float]:
        """The effects in numbers: ratios after over before, shifts in degrees."""
        return {
            "slope_adapter": self.at("slope", 0.0),
            "slope_orthogonal": self.at("slope", 90.0),
            "peak_adapter": self.at("peak", 0.0),
            "peak_orthogonal": self.at("peak", 90.0),
            "repulsion_7": float(np.rad2deg(self.at("repulsion", 7.5))),
            "repulsion_15": float(np.rad2deg(self.at("repulsion", 15.0))),
            "repulsion_30": float(np.rad2deg(self.at("repulsion", 30.0))),
            "variation_before": self.variation[0],
            "variation_ratio": self.variation[1] / self.variation[0],
            "correlation_ratio": self.correlation[1] / self.correlation[0],
            "covariance_ratio": self.covariance[1] / self.covariance[0],
        }


def effects(before: np.ndarray, after: np.ndarray, p: np.ndarray, adapter: float, orientations: np.ndarray) -> Effects:
    """Effects of adaptation to an ensemble.

    **Arguments:** `before`, `after`: tuning curves in the uniform and in the biased context; `p`: the biased ensemble;
    `adapter`: its orientation; `orientations`: of the stimuli.

    **Raises:** `InputError` for shapes that do not fit, for NaN, and where nothing answers.
    """
    before, after, p = (np.asarray(each, float) for each in (before, after, p))
    orientations = np.asarray(orientations, float)
    if before.ndim != 2 or before.shape != after.shape or before.shape[1:] != p.shape or p.shape != orientations.shape:
        raise InputError(
            f"Responses of shapes {before.shape} and {after.shape}, {len(p)} probabilities and {len(orientations)} "
            "orientations do not fit together."
        )
    if not all(np.isfinite(each).all() for each in (before, after, p, orientations)):
        raise InputError("Responses, probabilities or orientations hold NaN or infinity.")
    if not (before.any() and after.any()):
        raise InputError("No neuron answers any stimulus in one of the contexts.")
    first, second = (preferred_orientations(each, orientations) for each in (before, after))
    distance = wrapped(first - adapter)
    neurons = np.arange(len(before))
    best = before.argmax(axis=1)
    nearest = np.abs(wrapped(orientations - adapter)).argmin()
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (before * after).sum(axis=1) / (before**2).sum(axis=1)
        peak = after[neurons, best] / before[neurons, best]
        at_adapter = after[:, nearest] / before[:, nearest]
    shift = wrapped(second - first)
    side = np.where(np.abs(distance) < 1e-9, 0.0, np.sign(distance))
    side = np.where(np.pi / 2 - np.abs(distance) < 1e-9, 0.0, side)  # away and towards are the same there
    return Effects(
        distance,
        slope,
        peak,
        at_adapter,
        side * shift,
        (coefficient_of_variation(before @ p), coefficient_of_variation(after @ p)),
        (off_diagonal(stimulus_correlation(before, p)), off_diagonal(stimulus_correlation(after, p))),
        (off_diagonal(stimulus_covariance(before, p)), off_diagonal(stimulus_covariance(after, p))),
    )
