"""Spike counts in bins from any file of a recording: sessions, tables of counts, prefrontal recordings."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from broadsheet.errors import DataError, InputError
from broadsheet.files import existing, load_arrays
from broadsheet.recordings.nwb import open_session
from broadsheet.recordings.prefrontal_files import counts_around, read_prefrontal
from broadsheet.recordings.sessions import Session

CLOCKS = ("time", "times", "t", "spike_time", "time_s")


@dataclass(frozen=True)
class Binned:
    """- `counts`: a sequence a trial, or the whole recording cut into stretches: (bins, units) each; NaN where not observed.
    - `starts`: (sequences,) s of the first bin of each; `names`: of the units; `dt`: s.
    """

    counts: list[np.ndarray]
    starts: np.ndarray
    names: tuple[str, ...]
    dt: float


def read_binned(source: str, *, dt: float = 0.02, window: tuple[float, float] | None = None, stretch: float = 30.0) -> Binned:
    """Counts of a recording.

    **Arguments:** `source`: what `open_session` takes; a folder or file of CRCNS pfc-6 (`…_SpikeData.dat`); a .npz with
    `counts` (bins, units) or (trials, bins, units) and perhaps `dt`; a .csv of counts, a column a unit, perhaps with a column
    `trial`; `dt`: bins, s; `window`: from when to when around the start of each trial (s), else the whole recording, cut into
    stretches of `stretch` s.

    **Raises:** `InputError` and `DataError` that say what is wrong with the file.
    """
    path = Path(source).expanduser()
    if "://" not in source and existing(path):
        if path.is_dir() or path.name.endswith("_SpikeData.dat"):
            return _of_session(read_prefrontal(path), dt, window, stretch)
        if path.suffix == ".npz" and "counts" in (arrays := load_arrays(path)):
            dt = float(np.ravel(arrays.get("dt", dt))[0])
            return _of_counts(path, arrays["counts"], dt, window, stretch)
        if path.suffix == ".csv":
            header = _header(path)
            if not any(name.lower() in CLOCKS for name in header):
                return _of_table(path, header, dt, window, stretch)
    with open_session(source) as session:
        return _of_session(session, dt, window, stretch)


def _of_session(session: Session, dt: float, window: tuple[float, float] | None, stretch: float) -> Binned:
    spikes = session.units(2)
    if window is None:
        counts = spikes.counts(dt, missing="nan")
        return _cut(counts, spikes.start, spikes.names, dt, stretch)
    if session.trials is None:
        raise InputError(f"{session.name} has no trials, around which --window could lie.")
    at = session.trials.start
    inside = (at + window[0] >= spikes.start) & (at + window[1] <= spikes.stop)
    if not inside.any():
        raise InputError(
            f"No trial of {session.name} lies in the recording from {window[0]:g} to {window[1]:g} s around its start."
        )
    counts = counts_around(spikes, at[inside], -window[0], window[1], dt)
    return Binned(list(counts), at[inside] + window[0], spikes.names, dt)


def _of_counts(path: Path, counts: np.ndarray, dt: float, window: tuple[float, float] | None, stretch: float) -> Binned:
    if window is not None:
        raise InputError(f"{path} holds counts: they are in bins already, and --window is for spikes with trials.")
    if counts.ndim not in (2, 3) or counts.dtype.kind not in "biuf" or counts.shape[-1] < 2:
        raise DataError(
            f"{path}: counts are {counts.dtype} of the shape {counts.shape}; numbers (bins, units) or (trials, bins, units) of "
            "two units or more are wanted."
        )
    names = tuple(map(str, range(counts.shape[-1])))
    if counts.ndim == 3:
        return Binned(list(counts), np.arange(len(counts)) * counts.shape[1] * dt, names, dt)
    return _cut(counts, 0.0, names, dt, stretch)


def _of_table(path: Path, header: list[str], dt: float, window: tuple[float, float] | None, stretch: float) -> Binned:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream)
        next(rows)
        table = []
        for line, row in enumerate(rows, start=2):
            try:
                table.append([float(cell) if cell.strip() else float("nan") for cell in row])
            except ValueError:
                raise DataError(f"{path}, line {line}: a cell is no number.") from None
            if len(row) != len(header):
                raise DataError(f"{path}, line {line}: {len(row)} cells; {len(header)} are wanted, as in the header.")
    values = np.array(table).reshape(-1, len(header))
    lower = [name.lower() for name in header]
    if "trial" not in lower:
        made = _of_counts(path, values, dt, window, stretch)
        return Binned(made.counts, made.starts, tuple(header), dt)
    at = lower.index("trial")
    counts = np.delete(values, at, axis=1)
    edges = np.flatnonzero(np.diff(values[:, at])) + 1
    made = _of_counts(path, counts, dt, window, stretch)
    names = tuple(name for k, name in enumerate(header) if k != at)
    return Binned(np.split(counts, edges), np.concatenate([[0], edges]) * dt, names, made.dt)


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        return [name.strip() for name in next(csv.reader(stream), [])]


def _cut(counts: np.ndarray, start: float, names: tuple[str, ...], dt: float, stretch: float) -> Binned:
    """Stretches of equal length, as good as; one of fewer than two bins is left out."""
    pieces = max(1, round(len(counts) * dt / stretch))
    parts = [part for part in np.array_split(counts, pieces) if len(part) > 1]
    if not parts:
        raise InputError(f"The recording has {len(counts)} bins of {dt:g} s; two or more are wanted.")
    starts = start + np.cumsum([0] + [len(part) for part in parts[:-1]]) * dt
    return Binned(parts, starts, names, dt)
