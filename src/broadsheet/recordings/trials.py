"""Stretches of a session, with what is known of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from broadsheet.errors import InputError
from broadsheet.recordings.words import pynapple


@dataclass(frozen=True)
class Trials:
    """Stretches of a session, with what is known of each.

    - `start`, `stop`: (trials,) s.
    - `columns`: name -> (trials,), what the file says of each trial; lists, one a trial, are an array of objects.

    **Raises:** `InputError` for a trial that ends before it starts or has no length.
    """

    start: np.ndarray
    stop: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        start, stop = np.asarray(self.start, float), np.asarray(self.stop, float)
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "stop", stop)
        object.__setattr__(self, "columns", {name: np.asarray(column) for name, column in self.columns.items()})
        if start.ndim != 1 or start.shape != stop.shape:
            raise InputError(f"Trials have {start.shape} starts and {stop.shape} ends; one of each a trial is wanted.")
        bad = ~(stop > start) | ~np.isfinite(start) | ~np.isfinite(stop)  # of NaN none is true
        if bad.any():
            k = int(bad.argmax())
            raise InputError(f"Trial {k} is from {start[k]:g} to {stop[k]:g} s; a length above 0 is wanted.")
        if wrong := [name for name, column in self.columns.items() if len(column) != len(start)]:
            raise InputError(
                f"The column {wrong[0]!r} has {len(self.columns[wrong[0]])} entries; there are {len(start)} trials."
            )

    def __len__(self) -> int:
        return len(self.start)

    def keep(self, which: np.ndarray) -> Trials:
        """Some of the trials, by a mask or by their numbers."""
        return Trials(self.start[which], self.stop[which], {name: column[which] for name, column in self.columns.items()})

    @classmethod
    def from_pynapple(cls, intervals: Any) -> Trials:
        """From a `pynapple.IntervalSet`, its metadata as columns."""
        columns = {name: np.asarray(intervals.get_info(name)) for name in intervals.metadata_columns}
        return cls(np.asarray(intervals.start), np.asarray(intervals.end), columns)

    def to_pynapple(self) -> Any:
        """A `pynapple.IntervalSet`.

        **Raises:** `InputError` for trials that overlap or are not in order, which pynapple would join, dropping columns.
        """
        if (self.start[1:] < self.stop[:-1]).any():
            k = int((self.start[1:] < self.stop[:-1]).argmax())
            raise InputError(
                f"Trial {k + 1} begins before trial {k} ends; an IntervalSet holds stretches that follow each other."
            )
        return pynapple().IntervalSet(self.start, self.stop, metadata=dict(self.columns) or None)
