"""Spike trains as lists of events, and their way to dense arrays, to files and to Neo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import issparse, load_npz

from broadsheet.cache import writing
from broadsheet.errors import DataError, EventOverflowError, InputError, MissingExtraError
from broadsheet.files import MIB, load_arrays
from broadsheet.numerics.bins import bin_of, bins_in

MAX_DENSE = 4096 * MIB


@dataclass(frozen=True)
class SpikeTrains:
    """Spikes of `size` neurons within `duration` ms: time (ms) and neuron of each, (spikes,), ordered by time.

    Times keep the precision in which they are given, whole numbers become floating ones.

    **Raises:** `InputError` where a time lies outside the duration or a neuron outside the size, or is no whole number.
    """

    times: np.ndarray
    neurons: np.ndarray
    size: int
    duration: float

    def __post_init__(self) -> None:
        times, neurons = np.asarray(self.times), np.asarray(self.neurons)
        times = times if times.dtype.kind == "f" else times.astype(float)
        if times.ndim != 1 or times.shape != neurons.shape:
            raise InputError(f"times are {times.shape} and neurons {neurons.shape}; (spikes,) of both is wanted.")
        if not (np.isfinite(self.duration) and self.duration >= 0):
            raise InputError(f"The duration is {self.duration} ms; a number from 0 on is wanted.")
        if neurons.size and not _whole(neurons):
            raise InputError("neurons must be whole numbers.")
        end = self.duration * (1 + max(1e-12, float(np.finfo(times.dtype).eps)))  # a time at the end may be rounded up
        outside = ~((times >= 0) & (times <= end))
        if outside.any():
            k = int(outside.argmax())
            raise InputError(
                f"Spike {k} has the time {times[k]} ms; times must lie between 0 and the duration of {self.duration} ms, "
                "and NaN is neither."
            )
        strange = (neurons < 0) | (neurons >= self.size)
        if strange.any():
            k = int(strange.argmax())
            raise InputError(f"Spike {k} is of neuron {neurons[k]}; neurons must lie between 0 and {self.size - 1}.")
        order = np.argsort(times, kind="stable")
        object.__setattr__(self, "times", times[order])
        object.__setattr__(self, "neurons", neurons[order].astype(np.int64))

    def __len__(self) -> int:
        return len(self.times)

    @classmethod
    def from_dense(cls, spikes: Any, *, dt: float = 1.0) -> SpikeTrains:
        """From an array (time, neurons) of 0 and 1, of any type, or one of SciPy's sparse ones, with steps of `dt` ms.

        A spike is at the start of its step.
        """
        array = np.asarray(spikes.toarray() if issparse(spikes) else spikes)
        if array.ndim != 2 or not np.isin(array, (0, 1)).all():
            raise InputError(f"spikes are {array.shape}; (time, neurons) of 0 and 1 is wanted.")
        steps, neurons = np.nonzero(array)
        return cls(steps * dt, neurons, array.shape[1], array.shape[0] * dt)

    def to_dense(self, *, dt: float = 1.0, counts: bool = False) -> Float[np.ndarray, "time neurons"]:
        """An array (time, neurons) with steps of `dt` ms: step k has the spikes from `k dt` on, before the next step.

        Where the duration is no multiple of `dt`, the last step is cut short; a spike at the very end is in the last step.

        **Raises:** `EventOverflowError` where a neuron fires twice in a step, unless `counts` asks for their number.
        """
        if not dt > 0:
            raise InputError(f"dt = {dt} ms; a number above 0 is wanted.")
        steps = max(bins_in(self.duration, dt), min(len(self), 1))
        if steps * self.size * 4 > MAX_DENSE:
            raise InputError(f"{steps} steps of {self.size} neurons need more than {MAX_DENSE / MIB:g} MiB; take a larger dt.")
        at = np.minimum(bin_of(self.times, dt), steps - 1)
        out = np.zeros((steps, self.size), np.float32)
        np.add.at(out, (at, self.neurons), 1)
        crowded = np.argwhere(out > 1)
        if len(crowded) and not counts:
            step, neuron = crowded[0]
            raise EventOverflowError(
                f"{len(crowded)} times a neuron fires more than once in a step of {dt} ms, neuron {neuron} at {step * dt:g} ms "
                "first; take a smaller dt, or ask for counts."
            )
        return out

    def rates(self) -> Float[np.ndarray, " neurons"]:
        """Spikes a second of each neuron."""
        return np.bincount(self.neurons, minlength=self.size) / max(self.duration, 1e-12) * 1000

    def irregularity(self) -> float:
        """Mean coefficient of variation of intervals, of neurons with at least three spikes; NaN where there are none."""
        order = np.lexsort((self.times, self.neurons))
        trains = np.split(self.times[order].astype(float), np.cumsum(np.bincount(self.neurons, minlength=self.size))[:-1])
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
        """From a `.npz` or `.safetensors` file like those that `save` writes; `size` and `duration` may be missing.

        The arrays are `times` (ms, in any order) and `neurons` (whole numbers of any type), and the numbers `size`, by default
        that of the last neuron that fires, and `duration` (ms), by default one ms after the last spike.

        **Raises:** `DataError` where the file holds no spike trains, or other arrays beside them.
        """
        arrays = load_arrays(path)
        if not {"times", "neurons"} <= arrays.keys():
            raise DataError(
                f"{path} holds {', '.join(filter(None, arrays)) or 'no named arrays'}; times (ms) and neurons are wanted."
            )
        if strange := sorted(arrays.keys() - {"times", "neurons", "size", "duration"}):
            raise DataError(f"{path} holds {strange[0]!r} beside the spikes; times, neurons, size and duration are read.")
        times, neurons = (np.ravel(arrays[name]) for name in ("times", "neurons"))
        for name, array in (("times", times), ("neurons", neurons)):
            if array.dtype.kind not in "iuf" + "b" * (not array.size):
                raise DataError(f"{path}: {name} are of the type {array.dtype}; numbers are wanted.")
        if neurons.size and not _whole(neurons):
            raise DataError(f"{path}: neurons must be whole numbers.")
        size = _scalar(arrays["size"], "size", path) if "size" in arrays else (int(neurons.max()) + 1 if neurons.size else 0)
        duration = (
            _scalar(arrays["duration"], "duration", path) if "duration" in arrays else float(np.max(times, initial=0.0)) + 1.0
        )
        if size != int(size) or size < 0:
            raise DataError(f"{path}: the size is {size}; a whole number of neurons is wanted.")
        try:
            return cls(times, neurons, int(size), duration)
        except InputError as error:
            raise DataError(f"{path}: {error}") from None


def read_dense(path: str | Path) -> Float[np.ndarray, "time neurons"]:
    """An array (time, neurons) of 0 and 1, of any type, from a file that holds nothing else: dense, or SciPy's `save_npz`.

    **Raises:** `DataError` where another array is there, which names the first entry that is neither 0 nor 1.
    """
    arrays = load_arrays(path)
    if {"format", "shape", "data"} <= arrays.keys():
        array = _sparse(arrays, path)
    elif len(arrays) == 1:
        array = next(iter(arrays.values()))
    else:
        raise DataError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; times and neurons, or one array of 0 and 1, are wanted."
        )
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise DataError(f"{path} has the shape {array.shape} and the type {array.dtype}; (time, neurons) of 0 and 1 is wanted.")
    strange = ~((array == 0) | (array == 1))
    if strange.any():
        step, neuron = np.argwhere(strange)[0]
        raise DataError(f"{path} has {array[step, neuron]} at step {step} of neuron {neuron}; 0 and 1 are wanted.")
    return array.astype(np.float32)


def _sparse(arrays: dict[str, Any], path: str | Path) -> np.ndarray:
    """SciPy's sparse array, as a dense one."""
    shape = tuple(int(n) for n in arrays["shape"])
    if np.prod(shape, dtype=float) * 8 > MAX_DENSE:
        raise DataError(f"{path} is {shape}; that needs more than {MAX_DENSE / MIB:g} MiB.")
    try:
        return load_npz(path).toarray()
    except (ValueError, IndexError, KeyError, NotImplementedError) as error:
        raise DataError(f"{path} is not a sparse array of SciPy ({str(error)[:80]}).") from None


def _whole(numbers: np.ndarray) -> bool:
    """Whether these are whole numbers, of whatever type."""
    kind = numbers.dtype.kind
    return kind in "iu" or (kind == "f" and bool(np.isfinite(numbers).all() and (numbers == np.round(numbers)).all()))


def _scalar(value: np.ndarray, name: str, path: str | Path) -> float:
    if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all():
        raise DataError(f"{path}: {name} has the shape {value.shape} and the type {value.dtype}; one number is wanted.")
    return float(value.reshape(()))
