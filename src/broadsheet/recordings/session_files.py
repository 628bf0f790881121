"""Sessions from .npz files and tables, for those who have no NWB."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.errors import BroadsheetError, DataError
from broadsheet.files import MIB, load_arrays, read_text
from broadsheet.recordings.sessions import Session
from broadsheet.recordings.spikes import Spikes
from broadsheet.recordings.traces import Traces
from broadsheet.recordings.trials import Trials
from broadsheet.recordings.words import some

LARGEST_TABLE = 1024 * MIB
UNITS = ("unit", "neuron", "cluster", "cell")


def read_arrays(path: Path) -> Session:
    """A session of a .npz file. All times are seconds.

    - `spike_times` and `spike_units`, (spikes,): when, and of which unit (a whole number); `unit_names`, (units,);
      `start`, `stop`.
    - `X` and `X_times`: traces named X, (samples, channels) and (samples,); `X_names`, (channels,); `X_unit`.
    - `trial_start`, `trial_stop`, (trials,); `trial_…`: columns.

    **Raises:** `DataError` that names the file and the array; arrays that are none of these are in `unused`.
    """
    arrays = load_arrays(path)
    taken: set[str] = set()

    def take(name: str) -> Any:
        taken.add(name)
        return arrays.get(name)

    try:
        spikes, trials, traces = None, None, {}
        if "spike_times" in arrays:
            times, units = _numbers(arrays, "spike_times"), take("spike_units")
            taken.add("spike_times")
            units = np.zeros(len(times), int) if units is None else np.ravel(units)
            spikes = _spikes(times, units, take("unit_names"), take("start"), take("stop"))
        for name in [each.removesuffix("_times") for each in arrays if each.endswith("_times")]:
            if name in arrays:
                values, clock = _numbers(arrays, name), _numbers(arrays, f"{name}_times")
                taken |= {name, f"{name}_times"}
                count = 1 if values.ndim == 1 else values.shape[-1]
                names, unit = take(f"{name}_names"), take(f"{name}_unit")
                channels = ([name] if count == 1 else range(count)) if names is None else np.ravel(names)
                traces[name] = Traces(values, clock, tuple(map(str, channels)), "" if unit is None else str(unit))
        if "trial_start" in arrays or "trial_stop" in arrays:
            start, stop = (_numbers(arrays, name) for name in ("trial_start", "trial_stop"))
            taken |= {name for name in arrays if name.startswith("trial_")}
            columns = {name.removeprefix("trial_"): arrays[name] for name in arrays if name.startswith("trial_")}
            trials = Trials(start, stop, {name: column for name, column in columns.items() if name not in ("start", "stop")})
    except BroadsheetError as error:
        raise DataError(f"{path}: {error}") from None
    if spikes is None and not traces:
        raise DataError(
            f"{path} holds {some(tuple(arrays))}; spike_times with spike_units, or traces as X with X_times, are wanted (s)."
        )
    unused = {name: f"an array {arrays[name].shape} of another name" for name in arrays if name not in taken}
    return Session(str(path), spikes, traces, trials, unused=unused)


def _numbers(arrays: dict[str, Any], name: str) -> np.ndarray:
    if name not in arrays:
        raise DataError(f"there is no array {name!r}.")
    if arrays[name].dtype.kind not in "biuf":
        raise DataError(f"{name} holds {arrays[name].dtype}; numbers are wanted.")
    return np.asarray(arrays[name], float)


def _spikes(times: np.ndarray, units: np.ndarray, names: Any, start: Any, stop: Any) -> Spikes:
    """Spikes in one list, each with its unit: a number of the names, or the name itself."""
    if times.ndim != 1 or times.shape != units.shape:
        raise DataError(f"{times.shape} spike times have units of the shape {units.shape}; one each is wanted.")
    if units.dtype.kind == "f" and not np.array_equal(units, np.floor(units)):
        raise DataError("the units of spikes are no whole numbers.")
    at: Any
    if names is None:
        known, at = np.unique(units, return_inverse=True)
        labels = [str(int(each)) if known.dtype.kind in "biuf" else str(each) for each in known]
    else:
        labels, at = [str(each) for each in np.ravel(names)], units.astype(int) if units.dtype.kind in "biuf" else None
        if at is None or (at.size and (at.min() < 0 or at.max() >= len(labels))):
            raise DataError(
                f"spike_units should be numbers from 0 to {len(labels) - 1}, since there are {len(labels)} unit_names."
            )
    order = np.argsort(at, kind="stable")
    parts = np.split(times[order], np.cumsum(np.bincount(at, minlength=len(labels)))[:-1])
    ends = [float(np.ravel(each)[0]) if each is not None else None for each in (start, stop)]
    first = (times.min() if times.size else 0.0) if ends[0] is None else ends[0]
    last = (times.max() if times.size else 0.0) if ends[1] is None else ends[1]
    return Spikes(tuple(parts), tuple(labels), float(first), float(last))


def read_table(path: Path) -> Session:
    """A session of a CSV (or TSV) table with a header: `time` (s) and `unit` of each spike, or `time` and traces.

    Empty cells and NaN of traces are missing samples.

    **Raises:** `DataError` that names the line.
    """
    text = read_text(path, LARGEST_TABLE)
    rows = csv.reader(io.StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    header = [name.strip() for name in next(rows, [])]
    lower = [name.lower() for name in header]
    clock = next((lower.index(name) for name in ("time", "times", "t", "spike_time", "time_s") if name in lower), None)
    if clock is None or len(header) < 2:
        raise DataError(f"{path} has the columns {some(header)}; time (s) and unit, or time and traces, are wanted.")
    unit = next((lower.index(name) for name in UNITS if name in lower), None)
    others = [name for k, name in enumerate(header) if unit is not None and k not in (clock, unit)]
    unused = dict.fromkeys(others, "a column beside time and unit")
    times: list[float] = []
    cells: list[Any] = []
    for line, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(header):
            raise DataError(f"{path}, line {line}: {len(row)} cells; {len(header)} are wanted, as in the header.")
        try:
            times.append(float(row[clock]))
            cells.append(
                row[unit].strip() if unit is not None
                else [float(cell) if cell.strip() else float("nan") for k, cell in enumerate(row) if k != clock]
            )  # fmt: skip
        except ValueError:
            raise DataError(f"{path}, line {line}: {some(row)} holds a cell that is no number.") from None
    if not times:
        raise DataError(f"{path} has no line below its header.")
    try:
        if unit is not None:
            return Session(str(path), _spikes(np.array(times), np.array(cells), None, None, None), unused=unused)
        names = tuple(name for k, name in enumerate(header) if k != clock)
        return Session(str(path), traces={path.stem: Traces(np.array(cells), np.array(times), names)})
    except BroadsheetError as error:
        raise DataError(f"{path}: {error}") from None
