"""Spike trains as lists of events, and their way to dense arrays, to files and to Neo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from broadsheet.cache import writing
from broadsheet.errors import DataError, EventOverflowError, InputError, MissingExtraError
from broadsheet.files import MIB, load_arrays

MAX_DENSE = 4096 * MIB


@dataclass(frozen=True)
class SpikeTrains:
    """Spikes of `size` neurons within `duration` ms: time (ms) and neuron of each, (spikes,), ordered by time."""

    times: np.ndarray
    neurons: np.ndarray
    size: int
    duration: float

    def __post_init__(self) -> None:
        times, neurons = np.asarray(self.times, float), np.asarray(self.neurons)
        if times.ndim != 1 or times.shape != neurons.shape:
            raise InputError(f"times are {times.shape} and neurons {neurons.shape}; (spikes,) of both is wanted.")
        if neurons.size and not np.issubdtype(neurons.dtype, np.integer):
            raise InputError("neurons must be whole numbers.")
        if not np.isfinite(times).all() or (times.size and not 0 <= times.min() <= times.max() <= self.duration):
            raise InputError(f"times must lie between 0 and the duration of {self.duration} ms, and NaN is neither.")
        if neurons.size and not 0 <= neurons.min() <= neurons.max() < self.size:
            raise InputError(f"neurons must lie between 0 and {self.size - 1}.")
        order = np.argsort(times, kind="stable")
        object.__setattr__(self, "times", times[order])
        object.__setattr__(self, "neurons", neurons[order].astype(np.int64))

    def __len__(self) -> int:
        return len(self.times)

    @classmethod
    def from_dense(cls, spikes: Any, *, dt: float = 1.0) -> SpikeTrains:
        """From an array (time, neurons) of 0 and 1 with steps of `dt` ms; a spike is at the start of its step."""
        array = np.asarray(spikes)
        if array.ndim != 2 or not np.isin(array, (0, 1)).all():
            raise InputError(f"spikes are {array.shape}; (time, neurons) of 0 and 1 is wanted.")
        steps, neurons = np.nonzero(array)
        return cls(steps * dt, neurons, array.shape[1], array.shape[0] * dt)

    def to_dense(self, *, dt: float = 1.0, counts: bool = False) -> Float[np.ndarray, "time neurons"]:
        """An array (time, neurons) with steps of `dt` ms.

        **Raises:** `EventOverflowError` where a neuron fires twice in a step, unless `counts` asks for their number.
        """
        if not dt > 0:
            raise InputError(f"dt = {dt} ms; a number above 0 is wanted.")
        steps = round(self.duration / dt)
        if steps * self.size * 4 > MAX_DENSE:
            raise InputError(f"{steps} steps of {self.size} neurons need more than {MAX_DENSE / MIB:g} MiB; take a larger dt.")
        at = np.minimum((self.times / dt + 1e-6).astype(np.int64), max(steps - 1, 0))
        out = np.zeros((steps, self.size), np.float32)
        np.add.at(out, (at, self.neurons), 1)
        crowded = int((out > 1).sum())
        if crowded and not counts:
            raise EventOverflowError(f"{crowded} times a neuron fires more than once in a step of {dt} ms; take a smaller dt.")
        return out

    def rates(self) -> Float[np.ndarray, " neurons"]:
        """Spikes a second of each neuron."""
        return np.bincount(self.neurons, minlength=self.size) / max(self.duration, 1e-12) * 1000

    def irregularity(self) -> float:
        """Mean coefficient of variation of intervals, of neurons with at least three spikes; NaN where there are none."""
        order = np.lexsort((self.times, self.neurons))
        trains = np.split(self.times[order], np.cumsum(np.bincount(self.neurons, minlength=self.size))[:-1])
        found = [np.diff(train).std() / np.diff(train).mean() for train in trains if len(train) >= 3]
        return float(np.mean(found)) if found else float("nan")

    @classmethod
    def from_neo(cls, trains: Any) -> SpikeTrains:
        """From Neo spike trains (a list of `neo.SpikeTrain`, one a neuron, all with the same end), counted from their start."""
        trains = list(trains)
        if not trains:
            raise InputError("No spike trains were given.")
        starts = {float(train.t_start.rescale("ms")) for train in trains}
        stops = {float(train.t_stop.rescale("ms")) for train in trains}
        if len(starts) > 1 or len(stops) > 1:
            raise InputError(f"The trains start at {sorted(starts)} and end at {sorted(stops)} ms; they must agree.")
        (start,), (stop,) = starts, stops
        times = [np.asarray(train.rescale("ms").magnitude, float) - start for train in trains]
        neurons = np.repeat(np.arange(len(times)), [len(each) for each in times])
        return cls(np.concatenate(times), neurons, len(times), stop - start)

    def to_neo(self) -> list[Any]:
        """A list of `neo.SpikeTrain`, one a neuron."""
        try:
            import neo
        except ImportError:
            raise MissingExtraError("Neo", "data") from None
        return [neo.SpikeTrain(self.times[self.neurons == k], units="ms", t_stop=self.duration) for k in range(self.size)]

    def save(self, path: str | Path) -> None:
        """As a `.npz` of times, neurons, size and duration."""
        with writing(Path(path)) as stream:
            np.savez_compressed(stream, times=self.times, neurons=self.neurons, size=self.size, duration=self.duration)

    @classmethod
    def load(cls, path: str | Path) -> SpikeTrains:
        """From a `.npz` that `save` wrote; `size` and `duration` may be missing.

        **Raises:** `DataError` where the file holds no spike trains.
        """
        arrays = load_arrays(path)
        if not {"times", "neurons"} <= arrays.keys():
            raise DataError(f"{path} holds {', '.join(arrays) or 'nothing'}; times (ms) and neurons are wanted.")
        times, neurons = np.ravel(arrays["times"]), np.ravel(arrays["neurons"])
        if neurons.size and not np.issubdtype(neurons.dtype, np.integer):
            raise DataError(f"{path}: neurons must be whole numbers.")
        size = int(arrays["size"]) if "size" in arrays else int(neurons.max(initial=-1)) + 1
        duration = float(arrays["duration"]) if "duration" in arrays else float(np.max(times, initial=0.0)) + 1.0
        try:
            return cls(times, neurons, size, duration)
        except InputError as error:
            raise DataError(f"{path}: {error}") from None
