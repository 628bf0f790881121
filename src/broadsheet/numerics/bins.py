"""Times put into bins of equal width: the one place where that is done."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Int

SLACK = 1e-6
"""Share of a bin by which a time may miss an edge and still lie on it."""


def bin_of(times: Any, width: float) -> Int[np.ndarray, "*times"]:
    """The bin of each time: k where it lies from `k width` up to, but not at, `(k + 1) width`; below 0 for negative times.

    A time that was meant to lie on an edge is stored a rounding error beside it, which would put it one bin early: one that
    misses an edge by no more than the precision in which it is given lies on it. So times in single precision (or in half, as
    far as that tells bins apart) lie in the bins of the same times in double precision.

    **Arguments:** `times`: an array of any shape of whole or floating numbers, all finite; `width`: in the unit of the times.
    """
    times = np.asarray(times)
    at = times / np.float64(width)
    slack: Any = SLACK
    if times.dtype.kind == "f" and times.dtype.itemsize < 8:
        step = np.spacing(np.abs(times)).astype(float) / width  # half of it is how far a number was rounded
        sums = (
            2 if times.dtype.itemsize == 4 else 0.5
        )  # what was computed in single precision lost more; in half nobody computes
        slack = np.minimum(SLACK + np.clip(0.01, 0.5 * step, sums * step), 0.5)
    return np.floor(at + slack).astype(np.int64)


def bins_in(duration: float, width: float) -> int:
    """How many bins a duration has; the last one may be cut short by its end."""
    return max(0, math.ceil(duration / width - SLACK))
