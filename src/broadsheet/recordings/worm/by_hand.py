"""The pipeline number by number, in plain loops: what `homogenise` is checked against, right and in wrong ways."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def by_hand(
    traces: Sequence[Sequence[float]], times: Sequence[float], dt: float, alpha: float, *, lost: int = 0, late: bool = False,
    blocks: bool = False,
) -> np.ndarray:  # fmt: skip
    """Steps 3 to 6 for each trace, number by number: z-score, derivative, exponential smoothing, interpolation. (4, cells,
    samples): calcium, residual, and both smoothed.

    Wrong ways: `lost` degrees of freedom in the deviation, the derivative of what was smoothed, means of blocks of 0.1 s.
    """
    first, last = times[0], times[-1]
    grid: list[float] = []
    while first + len(grid) * dt < last - 1e-12:
        grid.append(first + len(grid) * dt)
    out: list[list[list[float]]] = [[], [], [], []]
    for trace in traces:
        count = len(trace)
        mean = sum(trace) / count
        spread = (sum((value - mean) ** 2 for value in trace) / (count - lost)) ** 0.5
        z = [(value - mean) / (spread or 1.0) for value in trace]
        smooth = _exponential(z, alpha)
        slope = _slopes(smooth if late else z, times)
        for kind, values in enumerate((z, slope, smooth, _exponential(slope, alpha))):
            if blocks:
                size, fine, points = int(dt / 0.1), [], 0
                while first + points * 0.1 < last:
                    fine.append(_between(values, times, first + points * 0.1))
                    points += 1
                means = [sum(fine[k : k + size]) / size for k in range(0, len(fine) - size + 1, size)]
                out[kind].append([means[min(k, len(means) - 1)] for k in range(len(grid))])
            else:
                out[kind].append([_between(values, times, at) for at in grid])
    return np.array(out)


def _exponential(values: Sequence[float], alpha: float) -> list[float]:
    made = [values[0]]
    for value in values[1:]:
        made.append(alpha * value + (1 - alpha) * made[-1])
    return made


def _slopes(values: Sequence[float], times: Sequence[float]) -> list[float]:
    made, last = [], len(values) - 1
    for k in range(last + 1):
        low, high = max(k - 1, 0), min(k + 1, last)
        made.append((values[high] - values[low]) / (times[high] - times[low]))
    return made


def _between(values: Sequence[float], times: Sequence[float], at: float) -> float:
    k = 0
    while k < len(times) - 2 and times[k + 1] <= at:
        k += 1
    return values[k] + (values[k + 1] - values[k]) * (at - times[k]) / (times[k + 1] - times[k])
