"""Least squares of a few parameters between limits by Levenberg and Marquardt, for models that cost less than SciPy's calls.

Steps are scaled as Moré has them, and the first is no longer than the parameters (Lecture Notes in Mathematics 630, 105, 1978).
A parameter at a limit that the slope pushes outwards is held, and a step beyond a limit ends on it (Kanzow, Yamashita and
Fukushima, J. Comput. Appl. Math. 172, 375, 2004).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from broadsheet.errors import InputError


class Minimum(NamedTuple):
    """Parameters `x`, and the residuals (residuals,) there and their slopes, `jac` (residuals, parameters)."""

    x: np.ndarray
    residuals: np.ndarray
    jac: np.ndarray

    @property
    def total(self) -> float:
        """The sum of squares."""
        return float(self.residuals @ self.residuals)


def bounded_least_squares(
    function: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    start: np.ndarray,
    limits: np.ndarray,
    xtol: float = 1e-8,
    ftol: float = 1e-14,
    most: int = 200,
) -> Minimum:
    """The least sum of squares near `start`.

    **Arguments:** `function`: residuals (residuals,) and their slopes (residuals, parameters) at parameters; `limits`
    (2, parameters): lower and upper; `xtol`, `ftol`: the search ends before a step shorter than `xtol` times the parameters, or
    one that promises less than `ftol` of the sum; `most`: at most as many evaluations.

    **Raises:** `InputError` where the residuals at the start are not finite.

    **Example:**

        >>> import numpy as np
        >>> t = np.arange(5.0)
        >>> decay = lambda x: (np.exp(-x[0] * t) - 0.5**t, -t[:, None] * np.exp(-x[0] * t)[:, None])
        >>> bounded_least_squares(decay, np.array([0.1]), np.array([[0.0], [9.0]])).x.round(6).tolist()
        [0.693147]
    """
    (lower, upper), damping, scale = limits, 1e-3, np.zeros(len(start))
    x = np.clip(start, lower, upper)
    residuals, slopes = function(x)
    total = residuals @ residuals
    if not np.isfinite(total):
        raise InputError(f"The residuals at the start, {x.tolist()}, are not finite; start where the model is.")
    evaluations = 1
    while evaluations < most:
        curvature, gradient = slopes.T @ slopes, slopes.T @ residuals
        scale = np.maximum(scale, np.sqrt(curvature.diagonal()))
        held = ((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0)) | (scale == 0)
        share = np.where(held, 0.0, 1 / np.where(scale > 0, scale, 1.0))
        matrix = share[:, None] * curvature * share
        reach = (evaluations == 1 and np.linalg.norm(scale * x)) or np.inf
        while np.linalg.norm(unit := -np.linalg.solve(matrix + damping * np.eye(len(x)), share * gradient)) > reach:
            damping *= 10
        wanted = share * unit
        promised = -(2 * gradient + curvature @ wanted) @ wanted
        if wanted @ wanted <= xtol**2 * (x @ x) or promised <= ftol * total:
            break
        step = np.minimum(np.maximum(x + wanted, lower), upper) - x
        tried, tried_slopes = function(x + step)
        tried_total, evaluations = tried @ tried, evaluations + 1
        gained, promised = total - tried_total, max(-(2 * gradient + curvature @ step) @ step, 0.0)
        if gained > 0.75 * promised:
            damping = max(damping / 10, 1e-10)
        elif not gained > 0.25 * promised:
            damping *= 4
        if gained > 0:
            x, residuals, slopes, total = x + step, tried, tried_slopes, tried_total
    return Minimum(x, residuals, slopes)
