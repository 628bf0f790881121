"""How well tractions were predicted, and what they add up to. Forces are (x, y): x along columns, y along rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from broadsheet.errors import InputError

Forces = Float[np.ndarray, "cells 2 height width"]


class ForceMetrics(NamedTuple):
    """One number a cell."""

    nmse: Float[np.ndarray, " cells"]
    """Mean squared error over the cell's own mean squared traction; 1 is what no force at all would score."""
    magnitude_r2: Float[np.ndarray, " cells"]
    """Explained variance of the amounts, inside the mask."""
    angle: Float[np.ndarray, " cells"]
    """Mean angle between the two, degrees, where the measured amount is above a tenth of the largest."""
    net_force: Float[np.ndarray, " cells"]
    """Sum of the predicted tractions over the sum of their amounts: 0 in balance."""
    dipole: Float[np.ndarray, " cells"]
    """Contractile strength: - sum F x of the prediction, over that of what was measured."""


def as_forces(F: ArrayLike, what: str = "Forces") -> Forces:
    """Checked tractions; raises `InputError` where the shape or a value is wrong."""
    F = np.asarray(F, float)
    F = F[None] if F.ndim == 3 else F
    if F.ndim != 4 or F.shape[1] != 2:
        raise InputError(f"{what} have shape {F.shape}; (cells, 2, height, width) is wanted, with x before y.")
    if not np.isfinite(F).all():
        raise InputError(f"{what} hold values that are not finite.")
    return F


def nmse(F: ArrayLike, predicted: ArrayLike) -> Float[np.ndarray, " cells"]:
    """Squared error of each cell over its own squared traction."""
    F, predicted = as_forces(F), as_forces(predicted, "Predicted forces")
    if F.shape != predicted.shape:
        raise InputError(f"Forces have shape {F.shape}, predicted ones {predicted.shape}.")
    power = (F**2).sum(axis=(1, 2, 3))
    if not power.all():
        raise InputError(f"Cell {int(np.argmin(power))} has no force anywhere; there is nothing to compare an error with.")
    return ((F - predicted) ** 2).sum(axis=(1, 2, 3)) / power


def dipole(F: ArrayLike, h: float = 1.0) -> Float[np.ndarray, " cells"]:
    """Contractile strength - sum F . x h² with x from the image's centre: positive where a cell pulls inward."""
    F = as_forces(F)
    height, width = F.shape[2:]
    x, y = h * (np.arange(width) - (width - 1) / 2), h * (np.arange(height) - (height - 1) / 2)
    return -((F[:, 0] * x).sum(axis=(1, 2)) + (F[:, 1] * y[:, None]).sum(axis=(1, 2))) * h * h


def net_force(F: ArrayLike) -> Float[np.ndarray, " cells"]:
    """Amount of the sum of tractions over the sum of their amounts; 0 where there are none."""
    F = as_forces(F)
    whole = np.linalg.norm(F, axis=1).sum(axis=(1, 2))
    return np.linalg.norm(F.sum(axis=(2, 3)), axis=1) / np.maximum(whole, 1e-300)


def force_metrics(F: ArrayLike, predicted: ArrayLike, mask: ArrayLike) -> ForceMetrics:
    """Predicted tractions against measured ones, cell by cell."""
    F, predicted = as_forces(F), as_forces(predicted, "Predicted forces")
    errors = nmse(F, predicted)
    inside = np.broadcast_to(np.asarray(mask) != 0, (len(F), *F.shape[2:]))
    size, guessed = np.linalg.norm(F, axis=1), np.linalg.norm(predicted, axis=1)
    r2, angles = np.zeros(len(F)), np.zeros(len(F))
    for k in range(len(F)):
        true, ours = size[k][inside[k]], guessed[k][inside[k]]
        if not true.size or np.ptp(true) == 0:
            raise InputError(f"Cell {k}: the tractions inside the mask are all the same; there is no variance to explain.")
        r2[k] = 1 - ((true - ours) ** 2).sum() / ((true - true.mean()) ** 2).sum()
        strong = size[k] > 0.1 * size[k].max()
        a, b = F[k][:, strong], predicted[k][:, strong]
        angles[k] = np.degrees(np.abs(np.arctan2(a[0] * b[1] - a[1] * b[0], (a * b).sum(axis=0)))).mean()
    return ForceMetrics(errors, r2, angles, net_force(predicted), dipole(predicted) / dipole(F))
