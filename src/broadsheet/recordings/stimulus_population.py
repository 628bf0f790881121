"""A population that sees a film: Gabor fields, weak coupling, and a gain by how fast the animal runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter

from broadsheet.numerics import generator


class Population(NamedTuple):
    """A recording: counts in bins, frames of the film (each lasts several bins), speed at each frame, and what is behind
    them."""

    counts: Int[np.ndarray, "bins neurons"]
    frames: Float[np.ndarray, "frames height width"]
    speed: Float[np.ndarray, " frames"]
    fields: Float[np.ndarray, "neurons height width"]
    couplings: Float[np.ndarray, "neurons neurons"]


@dataclass(frozen=True)
class StimulusPopulation:
    """`sample(key)`: neurons fire as Poisson processes with rates `exp(bias + field · frame + gain speed + coupling · last
    bin)`.

    The film is smooth noise that drifts and slowly changes; speed is an Ornstein-Uhlenbeck process with standard deviation 1.

    **Arguments:** `rate`: Hz, without any drive, the median of neurons; `spread`: standard deviation of its logarithm;
    `field`, `gain`: standard deviation of the log-rate by the film and by speed;
    `coupling`: log-rate of a coupling, each neuron has `inputs` of them; `tau`: of speed, s; `frame`: s; `dt`: s.
    """

    neurons: int = 60
    size: int = 16  # pixels
    rate: float = 1.6
    spread: float = 0.7
    field: float = 1.0
    gain: float = 0.5
    coupling: float = 1.0
    inputs: int = 3
    tau: float = 2.0
    frame: float = 0.05
    dt: float = 0.01
    seconds: float = 300.0

    def sample(self, key: Any) -> Population:
        rng = generator(key)
        per_frame = round(self.frame / self.dt)
        shown = round(self.seconds / self.frame)
        frames = self._film(rng, shown)
        speed = _ornstein_uhlenbeck(rng, shown, self.frame / self.tau)
        fields = np.stack([self._gabor(rng) for _ in range(self.neurons)])
        drive = np.tensordot(frames, fields, axes=([1, 2], [1, 2]))
        drive = self.field * (drive - drive.mean(axis=0)) / drive.std(axis=0)
        base = np.log(self.rate * self.dt) + self.spread * rng.standard_normal(self.neurons)
        log_rate = base + drive + speed[:, None] * self.gain * rng.standard_normal(self.neurons)
        couplings = np.zeros((self.neurons, self.neurons))
        for target in range(self.neurons):
            sources = rng.choice(np.delete(np.arange(self.neurons), target), self.inputs, replace=False)
            couplings[target, sources] = self.coupling
        last = np.zeros(self.neurons)
        counts = np.zeros((shown * per_frame, self.neurons), np.int32)
        for t in range(len(counts)):
            rate = np.exp(np.minimum(log_rate[t // per_frame] + couplings @ last, np.log(0.8)))
            counts[t] = last = rng.poisson(rate)
        return Population(counts, frames.astype(np.float32), speed, fields, couplings)

    def _film(self, rng: np.random.Generator, count: int) -> np.ndarray:
        wide = gaussian_filter(rng.standard_normal((count, self.size, self.size)), (3.0, 1.5, 1.5), mode="wrap")
        made = np.stack([np.roll(frame, k // 2, axis=1) for k, frame in enumerate(wide)])
        return made / made.std()

    def _gabor(self, rng: np.random.Generator) -> np.ndarray:
        y, x = np.mgrid[: self.size, : self.size]
        cy, cx = rng.uniform(3, self.size - 3, 2)
        angle, phase, wave = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi), rng.uniform(5, 9)
        along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        return np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 2.0**2)) * np.cos(2 * np.pi * along / wave + phase)


def _ornstein_uhlenbeck(rng: np.random.Generator, count: int, step: float) -> np.ndarray:
    """Exact steps; standard deviation 1."""
    keep = np.exp(-step)
    out = np.empty(count)
    out[0] = rng.standard_normal()
    for k, noise in enumerate(rng.standard_normal(count - 1), start=1):
        out[k] = keep * out[k - 1] + np.sqrt(1 - keep**2) * noise
    return out
