"""Spikes of sorted units, in seconds, and when each unit was observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from broadsheet.errors import InputError, MissingExtraError
from broadsheet.numerics.bins import SLACK, bin_of, bins_in
from broadsheet.recordings.stretches import check_times, clipped, joined, shared_stretches, within
from broadsheet.recordings.words import one_twice, pynapple, some

Missing = Literal["refuse", "nan"]


class StoredTimes(Sequence[np.ndarray]):
    """Spike times that are read unit by unit when they are asked for, and checked then.

    **Arguments:** `read`: unit -> its times (s); `check`: what is raised for wrong ones; `sizes`: spikes of each unit.
    """

    def __init__(self, read: Callable[[int], np.ndarray], check: Callable[[int, np.ndarray], None], sizes: Any) -> None:
        self._read, self._check, self.sizes = read, check, tuple(map(int, sizes))

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, unit: Any) -> Any:
        if isinstance(unit, slice):
            return tuple(self[k] for k in range(*unit.indices(len(self))))
        unit = range(len(self))[unit]
        times = np.asarray(self._read(unit), float)
        self._check(unit, times)
        return times

    def choose(self, units: Sequence[int]) -> StoredTimes:
        """Some of them, still unread."""
        return StoredTimes(
            lambda k: self._read(units[k]), lambda k, times: self._check(units[k], times), [self.sizes[k] for k in units]
        )


@dataclass(frozen=True)
class Spikes:
    """Spikes of sorted units from `start` to `stop` (s).

    - `times`: for each unit its spike times (s), in rising order. From a file they are read unit by unit, each time anew;
      `load()` keeps them.
    - `names`: of the units, each once.
    - `observed`: for each unit (stretches, 2) starts and ends (s) of when it was observed; None where that is all the time.
      What was not observed is not silence: see `counts`.
    - `columns`: name -> (units,), what is known of each unit (its area, its quality).

    **Raises:** `InputError` for times that fall, come twice, are not finite or lie outside what was observed; it names
    the unit.
    """

    times: Sequence[Any]
    names: tuple[str, ...]
    start: float
    stop: float
    observed: Sequence[Any] | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        times = self.times if isinstance(self.times, StoredTimes) else tuple(np.asarray(each, float) for each in self.times)
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "names", tuple(map(str, self.names)))
        if len(self.names) != len(times):
            raise InputError(f"{len(times)} units have {len(self.names)} names; one each is wanted.")
        if twice := one_twice(self.names):
            raise InputError(f"Two units are named {twice!r}; each name is wanted once.")
        if not (np.isfinite([self.start, self.stop]).all() and self.start <= self.stop):
            raise InputError(f"The spikes are from {self.start} to {self.stop} s; two numbers in this order are wanted.")
        object.__setattr__(self, "start", float(self.start))
        object.__setattr__(self, "stop", float(self.stop))
        if self.observed is not None:
            object.__setattr__(self, "observed", self._simple(self.observed))
        if wrong := [name for name, column in self.columns.items() if len(column) != len(self.names)]:
            raise InputError(
                f"The column {wrong[0]!r} of the units has {len(self.columns[wrong[0]])} entries for {len(self)} units."
            )
        if not isinstance(times, StoredTimes):
            for k, each in enumerate(times):
                check_times(self.names[k], each, self.stretches(k))

    def _simple(self, observed: Sequence[Any]) -> tuple[np.ndarray, ...] | None:
        """Observed stretches in order, those that touch joined; None where each unit was observed all the time."""
        if len(observed) != len(self.names):
            raise InputError(f"{len(self.names)} units have {len(observed)} lists of observed stretches; one each is wanted.")
        made: list[np.ndarray] = []
        known: dict[bytes, np.ndarray] = {}
        for name, each in zip(self.names, observed, strict=True):
            stretches = np.asarray(each, float).reshape(-1, 2)
            if (found := known.get(stretches.tobytes())) is None:
                if not np.isfinite(stretches).all() or (stretches[:, 1] < stretches[:, 0]).any():
                    raise InputError(f"Unit {name}: observed stretches must be pairs of a start and a later end (s).")
                found = known[stretches.tobytes()] = joined(stretches)
                if found.size and (found[0, 0] < self.start - 1e-6 or found[-1, 1] > self.stop + 1e-6):
                    raise InputError(f"Unit {name} is observed outside {self.start:g} to {self.stop:g} s.")
            made.append(found)
        whole = all(len(each) == 1 and each[0, 0] <= self.start and each[0, 1] >= self.stop for each in known.values())
        return None if whole else tuple(made)

    def __len__(self) -> int:
        return len(self.times)

    def __reduce__(self) -> Any:
        return Spikes, (tuple(self.times), self.names, self.start, self.stop, self.observed, dict(self.columns))

    @property
    def duration(self) -> float:
        """Seconds from start to stop."""
        return self.stop - self.start

    @property
    def sizes(self) -> Int[np.ndarray, " units"]:
        """Spikes of each unit; those of a file are not read for it."""
        if isinstance(self.times, StoredTimes):
            return np.array(self.times.sizes, int)
        return np.array([each.size for each in self.times], int)

    def stretches(self, unit: int) -> Float[np.ndarray, "stretches 2"]:
        """When a unit was observed: starts and ends (s)."""
        return np.array([[self.start, self.stop]]) if self.observed is None else self.observed[unit]

    def seconds(self) -> Float[np.ndarray, " units"]:
        """For how long each unit was observed."""
        return np.array([np.diff(self.stretches(k), axis=1).sum() for k in range(len(self))])

    def rates(self) -> Float[np.ndarray, " units"]:
        """Spikes a second of the time that a unit was observed."""
        return self.sizes / np.maximum(self.seconds(), 1e-12)

    def load(self) -> Spikes:
        """The same with all times in memory."""
        return Spikes(tuple(self.times), self.names, self.start, self.stop, self.observed, self.columns)

    def between(self, start: float, stop: float) -> Spikes:
        """The spikes from `start` on, before `stop` (s); both are cut to the recording."""
        start, stop = max(start, self.start), min(stop, self.stop)
        if not start < stop:
            raise InputError(
                f"Nothing lies between {start:g} and {stop:g} s; the spikes are from {self.start:g} to {self.stop:g} s."
            )
        if (start, stop) == (self.start, self.stop):
            return self
        side: Any = "right" if stop == self.stop else "left"
        kept = tuple(each[np.searchsorted(each, start) : np.searchsorted(each, stop, side)] for each in self.times)
        part = self._part(times=kept, start=start, stop=stop)
        if self.observed is not None:
            object.__setattr__(part, "observed", part._simple([clipped(each, start, stop) for each in self.observed]))
        return part

    def together(self) -> Spikes:
        """The spikes of when all units were observed, which are then observed in the same stretches.

        **Raises:** `InputError` where there is no such time.
        """
        if self.observed is None:
            return self
        shared = shared_stretches(self.observed)
        if not len(shared):
            raise InputError("There is no time at which all units were observed; choose() some that were observed together.")
        kept = tuple(each[within(each, shared)] for each in self.times)
        return Spikes(kept, self.names, float(shared[0, 0]), float(shared[-1, 1]), (shared,) * len(self), self.columns)

    def choose(self, units: Sequence[str]) -> Spikes:
        """Some units, in the order given."""
        index = {name: k for k, name in enumerate(self.names)}
        if unknown := [name for name in units if name not in index]:
            raise InputError(f"There is no unit {unknown[0]!r}; there are {some(self.names)}.")
        return self._units([index[name] for name in units])

    def where(self, column: str, value: str) -> Spikes:
        """The units of which a column says `value`."""
        if column not in self.columns:
            raise InputError(f"The units have no column {column!r}; they have {some(tuple(self.columns))}.")
        entries = [str(each) for each in self.columns[column]]
        if value not in entries:
            raise InputError(f"No unit has {column} {value!r}; there are {some(tuple(sorted(set(entries))))}.")
        return self._units([k for k, each in enumerate(entries) if each == value])

    def _units(self, at: Sequence[int]) -> Spikes:
        times = self.times.choose(at) if isinstance(self.times, StoredTimes) else tuple(self.times[k] for k in at)
        observed = None if self.observed is None else tuple(self.observed[k] for k in at)
        columns = {name: np.asarray(column)[list(at)] for name, column in self.columns.items()}
        return Spikes(times, tuple(self.names[k] for k in at), self.start, self.stop, observed, columns)

    def _part(self, **changed: Any) -> Spikes:
        """The same with other fields, whose times were checked already."""
        made = object.__new__(Spikes)
        for each in fields(self):
            object.__setattr__(made, each.name, changed.get(each.name, getattr(self, each.name)))
        return made

    def population(self, least: int = 2) -> Spikes:
        """Itself; raises `InputError` where there are fewer than `least` units."""
        if len(self) < least:
            said = {0: "is no unit", 1: "is one unit"}.get(len(self), f"are {len(self)} units")
            raise InputError(f"There {said}; a population of {least} or more is wanted.")
        return self

    def counts(self, dt: float, missing: Missing = "refuse") -> Int[np.ndarray, "bins units"] | Float[np.ndarray, "bins units"]:
        """Spikes in bins of `dt` seconds from the start on; a spike on an edge belongs to the later bin, the last bin may be
        cut short by the end.

        **Arguments:** `missing`: what happens where a unit was not observed throughout a bin: "refuse" raises, "nan" makes the
        counts floats with NaN there.
        """
        if not dt > 0:
            raise InputError(f"Bins of {dt} s; a number above 0 is wanted.")
        if dt > self.duration * (1 + SLACK):
            raise InputError(f"A bin of {dt:g} s is longer than the recording of {self.duration:g} s.")
        bins = bins_in(self.duration, dt)
        gaps = self.unobserved(dt) if self.observed is not None else None
        if gaps is not None and missing == "refuse" and gaps.any():
            unit = int(gaps.any(axis=0).argmax())
            raise InputError(
                f"Unit {self.names[unit]} was not observed in {int(gaps[:, unit].sum())} of {bins} bins, the first at "
                f"{self.start + dt * int(gaps[:, unit].argmax()):g} s; take missing='nan', or a stretch by between()."
            )
        rows = np.zeros((len(self), bins), np.int32)  # a unit's bins lie together in memory, which makes writing them fast
        one = np.int32(1)  # of the rows' own type: others are added many times slower
        for row, each in zip(rows, self.times, strict=True):
            at = bin_of(each - self.start, dt)
            if at.size and not 0 <= at[0] <= at[-1] < bins:  # times rise
                at = np.clip(at, 0, bins - 1)
            np.add.at(row, at, one)
        out = rows.T
        return out if gaps is None or not gaps.any() else np.where(gaps, np.nan, out)

    def unobserved(self, dt: float) -> np.ndarray:
        """(bins, units): whether some of the bin was not observed."""
        bins = bins_in(self.duration, dt)
        out = np.zeros((bins, len(self)), bool)
        if self.observed is None:
            return out
        known: dict[int, np.ndarray] = {}
        for k, stretches in enumerate(self.observed):
            if (found := known.get(id(stretches))) is None:
                found = known[id(stretches)] = np.ones(bins, bool)
                for start, stop in (stretches - self.start) / dt:
                    last = bins if stop * dt >= self.duration * (1 - SLACK) else int(np.floor(stop + SLACK))
                    found[int(np.ceil(start - SLACK)) : last] = False
            out[:, k] = found
        return out

    @classmethod
    def from_pynapple(cls, group: Any) -> Spikes:
        """From a `pynapple.TsGroup`: its column `name` has the names, if there is one, its other columns are kept, and its time
        support says when the units were observed."""
        support = np.column_stack([group.time_support.start, group.time_support.end])
        if not len(support):
            raise InputError("The group's time support is empty.")
        names = group["name"] if "name" in group.metadata_columns else group.index
        times = tuple(np.asarray(group[k].index) for k in group.index)
        columns = {name: np.asarray(group[name]) for name in group.metadata_columns if name not in ("rate", "name")}
        observed = None if len(support) == 1 else (support,) * len(times)
        return cls(times, tuple(map(str, names)), float(support[0, 0]), float(support[-1, 1]), observed, columns)

    def to_pynapple(self) -> Any:
        """A `pynapple.TsGroup`; names are its column `name`, and its time support is when all units were observed.

        **Raises:** `InputError` where units were observed at different times, which a `TsGroup` cannot say.
        """
        nap = pynapple()
        stretches = self.stretches(0) if len(self) else np.array([[self.start, self.stop]])
        if self.observed is not None and any(not np.array_equal(each, stretches) for each in self.observed):
            raise InputError(
                "Units were observed at different times, which a TsGroup cannot say; take together(), or choose() some of them."
            )
        support = nap.IntervalSet(stretches[:, 0], stretches[:, 1])
        units = {k: nap.Ts(each, time_units="s") for k, each in enumerate(self.times)}
        taken = {name: np.asarray(column) for name, column in self.columns.items() if name not in ("rate", "name")}
        return nap.TsGroup(units, time_support=support, metadata={"name": list(self.names), **taken})

    @classmethod
    def from_neo(cls, trains: Iterable[Any]) -> Spikes:
        """From `neo.SpikeTrain`s, one a unit; where their starts and ends differ, each was observed in its own stretch."""
        trains = list(trains)
        if not trains:
            raise InputError("There is no Neo spike train.")
        spans = np.array([[float(each.t_start.rescale("s")), float(each.t_stop.rescale("s"))] for each in trains])
        names = [str(each.name or k) for k, each in enumerate(trains)]
        times = tuple(np.sort(each.rescale("s").magnitude) for each in trains)
        observed = tuple(spans[k : k + 1] for k in range(len(trains)))
        return cls(times, tuple(names), float(spans[:, 0].min()), float(spans[:, 1].max()), observed)

    def to_neo(self) -> list[Any]:
        """A list of `neo.SpikeTrain`, one a unit, from when it was first observed to when it was last; gaps between are kept
        as the annotation `observed`, since Neo has no place for them."""
        try:
            import neo
        except ImportError:
            raise MissingExtraError("Neo", "recordings") from None
        made = []
        for k, (each, name) in enumerate(zip(self.times, self.names, strict=True)):
            stretches = self.stretches(k)
            start, stop = (stretches[0, 0], stretches[-1, 1]) if len(stretches) else (self.start, self.stop)
            notes = {"observed": stretches} if len(stretches) > 1 else {}
            made.append(neo.SpikeTrain(each, units="s", t_start=start, t_stop=stop, name=name, **notes))
        return made
