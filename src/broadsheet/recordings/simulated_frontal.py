"""A stand-in for the frontal neurons that were recorded during Mental Pong: a noisy tracker, and units tuned to what it
believes.

Constants are ours, not measured ones: tuning widths, rates and noise of the order that such neurons have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from broadsheet.errors import InputError
from broadsheet.recordings.mental_pong import FRAME, MentalPong, PongTrials, folded

BIN = 0.05
"""Seconds."""


@dataclass(frozen=True)
class Tracker:
    """Believes what it sees; while the ball is hidden it goes on by itself.

    - `diffusion`: of the position while hidden (units a root of a frame); `misjudged`: spread of the speed that it takes along
      (share of it).
    - `bounces`: probability that a trial's hidden bounces are foreseen; else the belief slides along the wall.
    - `slowing`: share of the vertical speed that is lost in each hidden frame.
    """

    diffusion: float = 0.15
    misjudged: float = 0.05
    bounces: float = 0.9
    slowing: float = 0.0

    def believe(
        self, trials: PongTrials, repeats: int, rng: np.random.Generator
    ) -> Float[np.ndarray, "repeats trials frames 5"]:
        """x, y, dx, dy and the foreseen height of arrival, NaN after the end; `repeats` presentations of each trial."""
        if repeats < 1:
            raise InputError(f"{repeats} presentations; at least 1 is wanted.")
        pong = MentalPong()
        low, high = pong.radius, pong.size - pong.radius
        seen = np.broadcast_to(trials.states, (repeats, *trials.states.shape))
        out = np.full((*seen.shape[:3], 5), np.nan)
        foresees = rng.random((repeats, len(trials))) < self.bounces
        state = seen[:, :, 0].copy()
        for t in range(seen.shape[2]):
            hidden = t >= trials.hidden
            if t:
                moved = state.copy()
                moved[..., :2] += state[..., 2:] + self.diffusion * rng.standard_normal((repeats, len(trials), 2))
                moved[..., 3] *= 1 - self.slowing
                outside = (moved[..., 1] < low) | (moved[..., 1] > high)
                moved[..., 3] = np.where(outside & foresees, -moved[..., 3], moved[..., 3])
                inside = folded(moved[..., 1], low, high)
                moved[..., 1] = np.where(foresees, inside, np.clip(moved[..., 1], low, high))
                begins = (trials.hidden == t)[None, :, None]
                wrong = 1 + self.misjudged * rng.standard_normal((repeats, len(trials), 2))
                moved[..., 2:] = np.where(begins, seen[:, :, t - 1, 2:] * wrong, moved[..., 2:])
                state = np.where(hidden[None, :, None], moved, seen[:, :, t])
            left = np.maximum(pong.size - state[..., 0], 0) / np.maximum(state[..., 2], 0.1)
            arrival = state[..., 1] + state[..., 3] * left
            arrival = np.where(foresees, folded(arrival, low, high), np.clip(arrival, low, high))
            out[:, :, t] = np.concatenate([state, arrival[..., None]], axis=-1)
        out[:, ~np.isfinite(trials.x)] = np.nan
        return out

    def answers(self, trials: PongTrials, repeats: int, rng: np.random.Generator) -> Float[np.ndarray, "repeats trials"]:
        """Where it puts the paddle at the end."""
        return self.believe(trials, repeats, rng)[:, np.arange(len(trials)), trials.end, 1]


class FrontalUnits(NamedTuple):
    """Tuning: rates in spikes/s of units to beliefs. Six in ten know the position, two the velocity, two the arrival."""

    centre: Float[np.ndarray, "units 2"]  # units of the arena; of arrival units the second is the height
    kind: np.ndarray  # 0: position, 1: velocity, 2: arrival
    gain: Float[np.ndarray, " units"]  # spikes/s at the peak
    direction: Float[np.ndarray, "units 2"]
    width: float = 6.0
    baseline: float = 2.0  # spikes/s

    @classmethod
    def draw(cls, units: int, rng: np.random.Generator) -> FrontalUnits:
        kind = np.repeat([0, 1, 2], [units - 2 * (units // 5), units // 5, units // 5])
        angle = rng.uniform(0, 2 * np.pi, units)
        direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return cls(rng.uniform(0, 32, (units, 2)), kind, rng.uniform(5, 30, units), direction)

    def rates(self, beliefs: Float[np.ndarray, "... 5"]) -> Float[np.ndarray, "... units"]:
        """Spikes/s."""
        beliefs = np.asarray(beliefs, np.float32)
        out = np.empty((*beliefs.shape[:-1], len(self.kind)), np.float32)
        place, fast, arrives = (np.flatnonzero(self.kind == k) for k in range(3))
        centre = self.centre.astype(np.float32)
        far = sum((beliefs[..., k, None] - centre[place, k]) ** 2 for k in range(2))
        out[..., place] = np.exp(-far / (2 * self.width**2))
        along = beliefs[..., 2:4] @ self.direction[fast].T.astype(np.float32)
        out[..., fast] = np.logaddexp(0, 6 * along) / 3
        out[..., arrives] = np.exp(-((beliefs[..., 4, None] - centre[arrives, 1]) ** 2) / (2 * self.width**2))
        return self.baseline + self.gain.astype(np.float32) * out


class Frontal(NamedTuple):
    """Single trials of simulated units, and their times.

    - `counts`: (trials, conditions, bins, units) smoothed spike counts, NaN outside a condition's trial.
    - `rates`: (conditions, bins, units) mean rate over trials (spikes/s).
    - `frames`: (conditions, bins) the time of each bin's centre, in frames of the task; NaN outside.
    - `hidden`: (conditions, bins) whether the ball is behind the occluder.
    """

    counts: np.ndarray
    rates: np.ndarray
    frames: np.ndarray
    hidden: np.ndarray


def bin_frames(trials: PongTrials) -> tuple[Float[np.ndarray, "conditions bins"], np.ndarray]:
    """Centres of bins of 50 ms, in frames of the task, NaN after the end; and whether the ball is hidden then."""
    centres = (np.arange(int(trials.end.max() * FRAME / BIN)) + 0.5) * BIN / FRAME
    frames = np.where(centres <= trials.end[:, None], centres, np.nan)
    return frames, frames >= trials.hidden[:, None]


def at_frames(values: Float[np.ndarray, "... frames channels"], frames: np.ndarray) -> np.ndarray:
    """Values between frames, on a line: (…, conditions, frames, channels) at (conditions, bins); NaN where a frame is."""
    low = np.clip(np.floor(np.nan_to_num(frames)).astype(int), 0, values.shape[-2] - 2)
    part = (frames - low)[..., None]
    first, second = (
        np.take_along_axis(values, at.reshape((1,) * (values.ndim - 3) + (*at.shape, 1)), -2) for at in (low, low + 1)
    )
    return first + np.where(part > 0, part * (second - first), 0 * part)


def simulate_frontal(
    trials: PongTrials,
    units: FrontalUnits,
    repeats: int,
    seed: int | np.random.Generator,
    *,
    tracker: Tracker | None = None,
    only_hidden: bool = False,
) -> Frontal:
    """Poisson counts in bins of 50 ms, smoothed by a Gaussian of 50 ms.

    **Arguments:** `only_hidden`: NaN also while the ball is in sight, which saves time.
    """
    rng = np.random.default_rng(seed)
    frames, hidden = bin_frames(trials)
    wanted = hidden if only_hidden else np.isfinite(frames)
    beliefs = at_frames((tracker or Tracker()).believe(trials, repeats, rng), frames)
    rates = units.rates(beliefs[:, wanted])
    counts = np.zeros((repeats, *frames.shape, rates.shape[-1]), np.float32)
    counts[:, wanted] = rng.poisson(rates * BIN)
    weight = gaussian_filter1d(wanted.astype(np.float32), 1.0, axis=1, mode="constant")
    smooth = gaussian_filter1d(counts, 1.0, axis=2, mode="constant") / np.where(wanted, weight, 1)[..., None]
    smooth[:, ~wanted] = np.nan
    means = np.full((*frames.shape, rates.shape[-1]), np.nan)
    means[wanted] = rates.mean(axis=0)
    return Frontal(smooth, means, np.where(wanted, frames, np.nan), hidden)
