"""Signals sampled together, in seconds; those of a file are read by stretches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np

from broadsheet.errors import DataError, InputError
from broadsheet.files import MIB
from broadsheet.recordings.words import one_twice, pynapple

BLOCK_BYTES = 32 * MIB
"""What one block of a trace may take in memory."""
LARGEST_READ = 8192 * MIB
"""What is read at once, as numbers of eight bytes."""


@dataclass(frozen=True)
class Traces:
    """Signals sampled together: fluorescence of cells, a running speed, a position.

    - `values`: (samples, channels), NaN where a sample is missing.
    - `times`: (samples,) s, in rising order.
    - `names`: of the channels, each once.
    - `unit`: of the values, as the file has it.
    - `kind`: what NWB calls such a thing: `TimeSeries`, `RoiResponseSeries` (cells), `SpatialSeries` (a position).
    - `columns`: name -> (channels,), what is known of each channel.

    **Raises:** `InputError` for shapes that do not fit, times that do not rise, and a name that comes twice.
    """

    values: np.ndarray
    times: np.ndarray
    names: tuple[str, ...]
    unit: str = ""
    kind: str = "TimeSeries"
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values, times = np.asarray(self.values, float), np.asarray(self.times, float)
        values = values[:, None] if values.ndim == 1 else values
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "names", tuple(map(str, self.names)))
        if values.ndim != 2 or times.shape != values.shape[:1] or values.shape[1] != len(self.names):
            raise InputError(
                f"Traces of shape {values.shape} with {times.shape} times and {len(self.names)} names; (samples, channels), "
                "(samples,) and one name a channel are wanted."
            )
        check_clock(times)
        if twice := one_twice(self.names):
            raise InputError(f"Two traces are named {twice!r}; each name is wanted once.")
        if wrong := [name for name, column in self.columns.items() if len(column) != len(self.names)]:
            raise InputError(
                f"The column {wrong[0]!r} has {len(self.columns[wrong[0]])} entries; there are {len(self.names)} channels."
            )

    def __len__(self) -> int:
        """Samples."""
        return len(self.times)

    @property
    def dt(self) -> float:
        """The median step between samples (s); NaN for one sample."""
        return float(np.median(np.diff(self.times))) if len(self) > 1 else float("nan")

    @property
    def start(self) -> float:
        """Time of the first sample (s)."""
        return float(self.times[0]) if len(self) else float("nan")

    @property
    def stop(self) -> float:
        """Time of the last sample (s)."""
        return float(self.times[-1]) if len(self) else float("nan")

    def rows(self, first: int, last: int) -> np.ndarray:
        """The values of the samples from `first` on, before `last`."""
        return self.values[first:last]

    def moments(self, first: int, last: int) -> np.ndarray:
        """The times of the samples from `first` on, before `last`."""
        return self.times[first:last]

    def sample_at(self, time: float) -> int:
        """The first sample at `time` (s) or later."""
        return int(np.searchsorted(self.times, time))

    def between(self, start: float, stop: float) -> Traces:
        """The samples from `start` on, before `stop` (s)."""
        first = self.sample_at(start)
        last = max(first, self.sample_at(stop))
        return Traces(self.rows(first, last), self.moments(first, last), self.names, self.unit, self.kind, self.columns)

    def gaps(self, longest: float = 1.5) -> int:
        """Steps longer than so many medians."""
        return int((np.diff(self.times) > longest * self.dt).sum())

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(times, values) of one stretch after the other, in bounded memory."""
        size = max(1, BLOCK_BYTES // (8 * max(1, len(self.names))))
        for first in range(0, len(self), size):
            last = min(first + size, len(self))
            yield self.moments(first, last), self.rows(first, last)

    def choose(self, channels: Any) -> Traces:
        """Some channels, in the order given."""
        index = {name: k for k, name in enumerate(self.names)}
        if unknown := [name for name in channels if name not in index]:
            raise InputError(f"There is no channel {unknown[0]!r}.")
        at = [index[name] for name in channels]
        columns = {name: np.asarray(column)[at] for name, column in self.columns.items()}
        return Traces(self.values[:, at], self.times, tuple(channels), self.unit, self.kind, columns)

    def __reduce__(self) -> Any:
        return Traces, (self.values, self.times, self.names, self.unit, self.kind, dict(self.columns))

    @classmethod
    def from_pynapple(cls, frame: Any, unit: str = "") -> Traces:
        """From a `pynapple.Tsd` or `TsdFrame`; the columns' metadata are kept."""
        columns = getattr(frame, "columns", ["value"])
        known = {name: np.asarray(frame.get_info(name)) for name in getattr(frame, "metadata_columns", [])}
        return cls(np.asarray(frame.values), np.asarray(frame.index), tuple(map(str, columns)), unit, columns=known)

    def to_pynapple(self) -> Any:
        """A `pynapple.TsdFrame`."""
        known = {name: np.asarray(column) for name, column in self.columns.items()}
        return pynapple().TsdFrame(
            t=self.times, d=self.values, columns=list(self.names), time_units="s", metadata=known or None
        )


class StoredTraces(Traces):
    """Traces of a file. Nothing is read before it is asked for; `between` and `blocks` read what they give.

    **Arguments:** `read`: (first, last) -> values (last - first, channels); `clock`: () -> times of all samples (s), checked,
    or (start, rate) where they are even; `samples`: their number; the rest as of `Traces`.
    """

    _read: Callable[[int, int], np.ndarray]
    _clock: Callable[[], np.ndarray] | tuple[float, float]
    _samples: int

    def __init__(
        self, read: Callable[[int, int], np.ndarray], clock: Callable[[], np.ndarray] | tuple[float, float], samples: int,
        names: tuple[str, ...], unit: str = "", kind: str = "TimeSeries", columns: Mapping[str, np.ndarray] | None = None,
    ) -> None:  # fmt: skip
        if twice := one_twice(names):
            raise InputError(f"Two traces are named {twice!r}; each name is wanted once.")
        given = {"_read": read, "_clock": clock, "_samples": samples, "names": names, "unit": unit, "kind": kind}
        for name, value in {**given, "columns": columns or {}}.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return int(self._samples)

    @property
    def even(self) -> tuple[float, float] | None:
        """Start (s) and rate (1/s) of even samples."""
        return self._clock if isinstance(self._clock, tuple) else None

    @property
    def dt(self) -> float:
        return 1 / self.even[1] if self.even and len(self) > 1 else super().dt

    @property
    def start(self) -> float:
        return self.even[0] if self.even and len(self) else super().start

    @property
    def stop(self) -> float:
        return self.even[0] + (len(self) - 1) / self.even[1] if self.even and len(self) else super().stop

    @cached_property
    def times(self) -> np.ndarray:
        """(samples,) s."""
        if self.even:
            if 8 * len(self) > LARGEST_READ:
                raise DataError(f"{len(self)} times are asked for at once; take stretches by between() or blocks().")
            return self.even[0] + np.arange(len(self)) / self.even[1]
        return np.asarray(cast("Callable[[], np.ndarray]", self._clock)(), float)

    @cached_property
    def values(self) -> np.ndarray:
        """(samples, channels), read whole."""
        return self.rows(0, len(self))

    def rows(self, first: int, last: int) -> np.ndarray:
        if "values" in self.__dict__:
            return self.values[first:last]
        return np.asarray(self._read(first, min(last, len(self))), float)

    def moments(self, first: int, last: int) -> np.ndarray:
        if self.even:
            return self.even[0] + np.arange(first, min(last, len(self))) / self.even[1]
        return super().moments(first, last)

    def sample_at(self, time: float) -> int:
        if not self.even:
            return super().sample_at(time)
        start, rate = self.even
        near = int(np.clip(np.floor((time - start) * rate) - 1, 0, len(self)))
        while near < len(self) and start + near / rate < time:  # at most three steps
            near += 1
        return near

    def gaps(self, longest: float = 1.5) -> int:
        return 0 if self.even else super().gaps(longest)


def check_clock(times: np.ndarray) -> None:
    """Raises `InputError` where times are not finite or do not rise from sample to sample."""
    if not np.isfinite(times).all():
        raise InputError(f"The time of sample {int((~np.isfinite(times)).argmax())} is not a finite number.")
    if times.size > 1 and (steps := np.diff(times)).min() <= 0:
        k = int(steps.argmin())
        what = "comes twice" if steps[k] == 0 else f"comes after {times[k]:.6g} s"
        raise InputError(f"The sample at {times[k + 1]:.6g} s {what}; the times of traces must rise from sample to sample.")
