"""What a recording holds, in seconds: spikes of sorted units, traces, trials; from and to the field's own objects.

A `Session` is one recording of one animal. Its parts go to pynapple (`TsGroup`, `TsdFrame`, `IntervalSet`) and Neo and back,
and to arrays, which is what estimators take. Files are read by `broadsheet.recordings.open_session`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from broadsheet.errors import InputError, MissingExtraError
from broadsheet.numerics.bins import bin_of, bins_in


@dataclass(frozen=True)
class Spikes:
    """Spikes of sorted units from `start` to `stop` (s).

    - `times`: for each unit its spike times (s), in rising order.
    - `names`: of the units, each once.

    **Raises:** `InputError` for times that fall, come twice, are not finite or lie outside; it names the unit.
    """

    times: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    start: float
    stop: float

    def __post_init__(self) -> None:
        times = tuple(np.asarray(each, float) for each in self.times)
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "names", tuple(map(str, self.names)))
        if len(self.names) != len(times):
            raise InputError(f"{len(times)} units have {len(self.names)} names; one each is wanted.")
        if repeated := _repeated(self.names):
            raise InputError(f"Two units are named {repeated!r}; each name is wanted once.")
        if not (np.isfinite([self.start, self.stop]).all() and self.start <= self.stop):
            raise InputError(f"The spikes are from {self.start} to {self.stop} s; two numbers in this order are wanted.")
        slack = 1e-9 * max(abs(self.start), abs(self.stop), 1.0)
        for name, each in zip(self.names, times, strict=True):
            if each.ndim != 1 or not np.isfinite(each).all():
                raise InputError(f"Unit {name}: spike times must be a list of finite numbers (s).")
            if each.size > 1 and (steps := np.diff(each)).min() <= 0:
                k = int(steps.argmin())
                what = "twice" if steps[k] == 0 else f"after {each[k]:g} s"
                raise InputError(f"Unit {name}: the spike at {each[k + 1]:g} s comes {what}; rising times are wanted.")
            if each.size and (each[0] < self.start - slack or each[-1] > self.stop + slack):
                raise InputError(
                    f"Unit {name}: spikes from {each[0]:g} to {each[-1]:g} s lie outside {self.start:g} to {self.stop:g} s."
                )

    def __len__(self) -> int:
        return len(self.times)

    @property
    def duration(self) -> float:
        """Seconds from start to stop."""
        return self.stop - self.start

    def rates(self) -> Float[np.ndarray, " units"]:
        """Spikes a second."""
        return np.array([each.size for each in self.times]) / max(self.duration, 1e-12)

    def between(self, start: float, stop: float) -> Spikes:
        """The spikes from `start` on, before `stop` (s)."""
        kept = tuple(each[np.searchsorted(each, start) : np.searchsorted(each, stop)] for each in self.times)
        return Spikes(kept, self.names, start, stop)

    def choose(self, units: Sequence[str]) -> Spikes:
        """Some units, in the order given."""
        if unknown := [name for name in units if name not in self.names]:
            raise InputError(f"There is no unit {unknown[0]!r}; there are {_some(self.names)}.")
        return Spikes(tuple(self.times[self.names.index(name)] for name in units), tuple(units), self.start, self.stop)

    def counts(self, dt: float) -> Int[np.ndarray, "bins units"]:
        """Spikes in bins of `dt` seconds from the start on; a spike on an edge belongs to the later bin, the last bin may be
        cut short by the end."""
        if not dt > 0:
            raise InputError(f"Bins of {dt} s; a number above 0 is wanted.")
        if dt > self.duration:
            raise InputError(f"A bin of {dt:g} s is longer than the recording of {self.duration:g} s.")
        bins = bins_in(self.duration, dt)
        out = np.zeros((bins, len(self)), np.int32)
        for k, each in enumerate(self.times):
            at = np.clip(bin_of(each - self.start, dt), 0, bins - 1)
            out[:, k] = np.bincount(at, minlength=bins)
        return out

    @classmethod
    def from_pynapple(cls, group: Any) -> Spikes:
        """From a `pynapple.TsGroup`: its column `name` has the names, if there is one.

        **Raises:** `InputError` where its time support has gaps: what was not observed would read as silence.
        """
        support = group.time_support
        if len(support) != 1:
            raise InputError(f"The time support has {len(support)} parts; one is wanted (restrict the group to each in turn).")
        names = group["name"] if "name" in group.metadata_columns else group.index
        times = tuple(np.asarray(group[k].index) for k in group.index)
        return cls(times, tuple(map(str, names)), float(support.start[0]), float(support.end[0]))

    def to_pynapple(self) -> Any:
        """A `pynapple.TsGroup`; names are its column `name`."""
        nap = pynapple()
        support = nap.IntervalSet(self.start, self.stop)
        units = {k: nap.Ts(each, time_units="s") for k, each in enumerate(self.times)}
        return nap.TsGroup(units, time_support=support, metadata={"name": list(self.names)})

    @classmethod
    def from_neo(cls, trains: Sequence[Any]) -> Spikes:
        """From `neo.SpikeTrain`s, one a unit, all with the same start and end."""
        trains = list(trains)
        ends = {(float(each.t_start.rescale("s")), float(each.t_stop.rescale("s"))) for each in trains}
        if len(ends) != 1:
            raise InputError(f"{len(trains)} Neo spike trains have {len(ends)} pairs of start and end; one is wanted.")
        (start, stop), count = ends.pop(), range(len(trains))
        names = [str(trains[k].name or k) for k in count]
        return cls(tuple(np.sort(each.rescale("s").magnitude) for each in trains), tuple(names), start, stop)

    def to_neo(self) -> list[Any]:
        """A list of `neo.SpikeTrain`, one a unit."""
        try:
            import neo
        except ImportError:
            raise MissingExtraError("Neo", "recordings") from None
        return [
            neo.SpikeTrain(each, units="s", t_start=self.start, t_stop=self.stop, name=name)
            for each, name in zip(self.times, self.names, strict=True)
        ]


@dataclass(frozen=True)
class Traces:
    """Signals sampled together: fluorescence of cells, a running speed, a position.

    - `values`: (samples, channels), NaN where a sample is missing.
    - `times`: (samples,) s, in rising order.
    - `names`: of the channels, each once.
    - `unit`: of the values, as the file has it.
    """

    values: np.ndarray
    times: np.ndarray
    names: tuple[str, ...]
    unit: str = ""

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
        if not np.isfinite(times).all() or (times.size > 1 and np.diff(times).min() <= 0):
            raise InputError("The times of traces must be finite and rise from sample to sample.")
        if repeated := _repeated(self.names):
            raise InputError(f"Two traces are named {repeated!r}; each name is wanted once.")

    @property
    def dt(self) -> float:
        """The median step between samples (s); NaN for one sample."""
        return float(np.median(np.diff(self.times))) if self.times.size > 1 else float("nan")

    @classmethod
    def from_pynapple(cls, frame: Any) -> Traces:
        """From a `pynapple.Tsd` or `TsdFrame`."""
        columns = getattr(frame, "columns", ["value"])
        return cls(np.asarray(frame.values), np.asarray(frame.index), tuple(map(str, columns)))

    def to_pynapple(self) -> Any:
        """A `pynapple.TsdFrame`."""
        return pynapple().TsdFrame(t=self.times, d=self.values, columns=list(self.names), time_units="s")


@dataclass(frozen=True)
class Trials:
    """Stretches of a session, with what is known of each.

    - `start`, `stop`: (trials,) s.
    - `columns`: name -> (trials,), what the file says of each trial.

    **Raises:** `InputError` for a trial that ends before it starts or has no length.
    """

    start: np.ndarray
    stop: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        start, stop = np.asarray(self.start, float), np.asarray(self.stop, float)
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "stop", stop)
        if start.ndim != 1 or start.shape != stop.shape:
            raise InputError(f"Trials have {start.shape} starts and {stop.shape} ends; one of each a trial is wanted.")
        bad = ~(stop > start)  # NaN is neither
        if bad.any():
            k = int(bad.argmax())
            raise InputError(f"Trial {k} is from {start[k]:g} to {stop[k]:g} s; a length above 0 is wanted.")
        if wrong := [name for name, column in self.columns.items() if len(column) != len(start)]:
            raise InputError(
                f"The column {wrong[0]!r} has {len(self.columns[wrong[0]])} entries; there are {len(start)} trials."
            )

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def from_pynapple(cls, intervals: Any) -> Trials:
        """From a `pynapple.IntervalSet`, its metadata as columns."""
        columns = {name: np.asarray(intervals.get_info(name)) for name in intervals.metadata_columns}
        return cls(np.asarray(intervals.start), np.asarray(intervals.end), columns)

    def to_pynapple(self) -> Any:
        """A `pynapple.IntervalSet`; overlapping trials are joined there, as pynapple does."""
        return pynapple().IntervalSet(self.start, self.stop, metadata={k: np.asarray(v) for k, v in self.columns.items()})


@dataclass(frozen=True)
class Session:
    """One recording of one animal. Parts that a file lacks are None or empty."""

    name: str
    spikes: Spikes | None = None
    traces: Mapping[str, Traces] = field(default_factory=dict)
    trials: Trials | None = None
    about: Mapping[str, str] = field(default_factory=dict)

    def trace(self, name: str) -> Traces:
        """The traces of a name, or of the only name that ends in it; raises `InputError` where there is none or several."""
        if name in self.traces:
            return self.traces[name]
        found = [each for each in self.traces if each.endswith("/" + name)]
        if len(found) != 1:
            what = "several traces" if found else "no trace"
            raise InputError(f"{self.name} has {what} named {name!r}; it has {_some(tuple(self.traces))}.")
        return self.traces[found[0]]


def pynapple() -> Any:
    """The package; raises `MissingExtraError`."""
    try:
        import pynapple as nap
    except ImportError:
        raise MissingExtraError("pynapple", "recordings") from None
    return nap


def _repeated(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _some(names: Sequence[str], count: int = 8) -> str:
    """A list for a message, not longer than a line."""
    return (", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")) or "none"
