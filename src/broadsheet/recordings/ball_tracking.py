"""Where a hidden ball is, without a network: the last place, a straight line, a Kalman filter with constant velocity.

What any model of mental simulation has to be compared with.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from broadsheet.errors import InputError
from broadsheet.recordings.mental_pong import PongTrials, folded


def kalman_filter(
    measured: Float[np.ndarray, "balls frames"], seen: Int[np.ndarray, " balls"], *, noise: float = 0.1, change: float = 0.02
) -> tuple[Float[np.ndarray, "balls frames"], Float[np.ndarray, "balls frames"]]:
    """Position and velocity of points on a line, filtered while they are seen, then extrapolated.

    The state is (position, velocity) with velocity a random walk; measurements have independent noise.

    **Arguments:** `measured`: positions, of which the first `seen` are used; `noise`: their standard deviation (units);
    `change`: standard deviation of the velocity's steps (units a frame).

    **Returns:** the means after each frame.
    """
    measured, seen = np.asarray(measured, float), np.asarray(seen)
    if measured.ndim != 2 or seen.shape != measured.shape[:1] or (seen < 2).any():
        raise InputError(f"Positions are {measured.shape}; (balls, frames) with two seen frames or more each is wanted.")
    step = np.array([[1.0, 1.0], [0.0, 1.0]])
    growth = change**2 * np.array([[0.25, 0.5], [0.5, 1.0]])
    mean = np.stack([measured[:, 0], np.zeros(len(measured))], axis=1)
    spread = np.diag([noise**2, 1.0])
    means = np.zeros((*measured.shape, 2))
    means[:, 0] = mean
    for t in range(1, measured.shape[1]):
        mean, spread = mean @ step.T, step @ spread @ step.T + growth
        gain = spread[:, 0] / (spread[0, 0] + noise**2)
        used = (t < seen)[:, None]
        surprise = np.where(used, np.nan_to_num(measured[:, t, None]) - mean[:, :1], 0.0)
        mean = mean + surprise * gain
        # balls that are hidden keep their mean; the spread of those still seen is all that the gain needs
        spread = (np.eye(2) - np.outer(gain, [1.0, 0.0])) @ spread
        means[:, t] = mean
    return means[..., 0], means[..., 1]


def extrapolated(trials: PongTrials, by: str, *, size: float = 32.0, radius: float = 0.64) -> tuple[np.ndarray, np.ndarray]:
    """Paths of which the hidden part is made up from the visible one: (trials, frames) x and y, NaN after the end.

    **Arguments:** `by`: `"last"`: stays where it was last seen; `"line"`: goes on as in the last two visible frames, through
    walls up to the arena's edge; `"kalman"`: as a Kalman filter with constant velocity says, likewise; `"bouncing"`: the
    filter, reflected.
    """
    frame = np.arange(trials.x.shape[1])
    last = (trials.hidden - 1)[:, None]
    ahead = frame - last
    made = []
    for path in (trials.x, trials.y):
        at = np.take_along_axis(path, last, 1)
        if by == "last":
            speed = np.zeros_like(at)
        elif by == "line":
            speed = at - np.take_along_axis(path, last - 1, 1)
        elif by in ("kalman", "bouncing"):
            where, speeds = kalman_filter(path, trials.hidden)
            at, speed = (np.take_along_axis(part, last, 1) for part in (where, speeds))
        else:
            raise InputError(f"by is {by!r}; last, line, kalman and bouncing are possible.")
        made.append(np.where(ahead > 0, at + speed * ahead, path))
    x, y = made
    y = folded(y, radius, size - radius) if by == "bouncing" else np.clip(y, radius, size - radius)
    gone = ~np.isfinite(trials.x)
    return np.where(gone, np.nan, x), np.where(gone, np.nan, y)
