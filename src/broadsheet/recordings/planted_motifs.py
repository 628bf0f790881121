"""Recordings in which it is known who acts together, when, and in which animals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.signal import lfilter

from broadsheet.recordings.affinity import unfold


class Motif(NamedTuple):
    """Neurons `first` to before `last` act together from `start` to `stop` (frames) in some `animals`."""

    first: int
    last: int
    start: int
    stop: int
    animals: tuple[int, ...]


MOTIFS = (
    Motif(0, 8, 30, 90, (0, 1, 2, 3)),
    Motif(6, 16, 100, 160, (1, 2, 3, 4, 5)),
    Motif(16, 24, 170, 230, (0, 2, 4, 5)),
)
"""Three motifs of 24 neurons, two of which overlap, in 240 frames of 6 animals."""


class Planted(NamedTuple):
    """Traces with what is true of them: of each motif its time window, animals and pairs, as 0 and 1."""

    traces: Float[np.ndarray, "animals neurons frames"]
    time: Bool[np.ndarray, "frames motifs"]
    animals: Bool[np.ndarray, "animals motifs"]
    pairs: Bool[np.ndarray, "pairs motifs"]


def motif_recordings(
    rng: np.random.Generator, motifs: tuple[Motif, ...] = MOTIFS, *, animals: int = 6, neurons: int = 24, frames: int = 240,
    noise: float = 0.05, period: float = 20.0, missing: float = 0.0,
) -> Planted:  # fmt: skip
    """A motif is a sine of `period` frames under a Hann window, of one phase in each animal, with a gain of 0.7 to 1.3 for each
    neuron; on top of it comes a slow random walk.

    **Arguments:** `noise`: spread of a step of the walk, of which 0.3 is taken; `missing`: share of the neurons that each
    animal lacks (NaN).
    """
    traces = 0.3 * np.cumsum(noise * rng.standard_normal((animals, neurons, frames)), axis=2)
    time, which = np.zeros((frames, len(motifs)), bool), np.zeros((animals, len(motifs)), bool)
    members = np.zeros((neurons, len(motifs)), bool)
    for k, motif in enumerate(motifs):
        length = motif.stop - motif.start
        time[motif.start : motif.stop, k], members[motif.first : motif.last, k] = True, True
        for animal in motif.animals:
            which[animal, k] = True
            wave = np.sin(2 * np.pi * np.arange(length) / period + rng.uniform(0, 2 * np.pi)) * np.hanning(length)
            gains = rng.uniform(0.7, 1.3, motif.last - motif.first)
            traces[animal, motif.first : motif.last, motif.start : motif.stop] += gains[:, None] * wave
    lacking = round(missing * neurons)
    for animal in range(animals if lacking else 0):
        traces[animal, rng.choice(neurons, lacking, replace=False)] = np.nan
    pairs = np.stack([unfold(np.outer(each, each)) for each in members.T], axis=1)
    return Planted(traces, time, which, pairs)


class Stimulated(NamedTuple):
    """Recordings of animals that were given stimuli.

    - `traces`: (animals, neurons, frames), NaN for neurons that were not identified.
    - `windows`: (stimuli, 2), first frame of each and the one after its last.
    - `groups`: (neurons,), the number of the stimulus that drives a neuron, -1 for none, -2 for the spontaneous group.
    """

    traces: Float[np.ndarray, "animals neurons frames"]
    windows: Int[np.ndarray, "stimuli 2"]
    groups: Int[np.ndarray, " neurons"]


def stimulated_worms(
    rng: np.random.Generator, animals: int = 20, *, neurons: int = 40, frames: int = 960, dt: float = 0.25,
    onsets: tuple[float, ...] = (60.0, 120.0, 180.0), lasts: float = 10.0, responds: float = 0.8, snr: float = 3.0,
    missing: float = 0.25,
) -> Stimulated:  # fmt: skip
    """Each stimulus drives a pair of sensory neurons and 6 to 10 neurons behind them, 1 to 3 s later; a last group oscillates
    at 0.02 Hz by itself; all have pink noise.

    **Arguments:** `onsets`, `lasts`: of the stimuli, s; `responds`: probability that an animal answers a stimulus; `snr`:
    spread of a response to that of the noise; `missing`: share of the neurons that are not identified in each animal.
    """
    time = np.arange(frames) * dt
    groups = np.full(neurons, -1)
    sensory, behind = 2, 2 * len(onsets) + 2
    for k in range(len(onsets)):
        size = int(rng.integers(6, 11))
        groups[sensory * k : sensory * (k + 1)] = k
        groups[behind : behind + size] = k
        behind += size
    groups[behind : behind + 8] = -2
    windows = np.array([(round(onset / dt), round((onset + lasts) / dt)) for onset in onsets])
    traces = _pink(rng, (animals, neurons, frames))
    for animal in range(animals):
        gains, phase = np.exp(0.3 * rng.standard_normal(neurons)), rng.uniform(0, 2 * np.pi)
        traces[animal, groups == -2] += snr * np.sqrt(2) * np.sin(2 * np.pi * 0.02 * time + phase) / 2
        for k, onset in enumerate(onsets):
            if rng.random() > responds:
                continue
            for neuron in np.flatnonzero(groups == k):
                lag = 0.0 if neuron < sensory * len(onsets) else rng.uniform(1.0, 3.0)
                traces[animal, neuron] += snr * gains[neuron] * _response(time - onset - lag, lasts)
        if lacking := round(missing * neurons):
            traces[animal, rng.choice(neurons, lacking, replace=False)] = np.nan
    return Stimulated(traces, windows, groups)


def _response(since: np.ndarray, lasts: float, rise: float = 1.5, fall: float = 4.0) -> np.ndarray:
    """Calcium after a step of `lasts` seconds: towards 1 with the time constant `rise`, and back with `fall` (s)."""
    up = 1 - np.exp(-np.clip(since, 0, lasts) / rise)
    return up * np.exp(-np.maximum(since - lasts, 0) / fall)


def _pink(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise whose power falls as 1/f, of unit spread: white noise through the usual filter of three poles."""
    b, a = (0.049922035, -0.095993537, 0.050612699, -0.004408786), (1.0, -2.494956002, 2.017265875, -0.522189400)
    warm = 1000
    noise = lfilter(b, a, rng.standard_normal((*shape[:-1], shape[-1] + warm)), axis=-1)[..., warm:]
    return noise / noise.std(axis=-1, keepdims=True)
