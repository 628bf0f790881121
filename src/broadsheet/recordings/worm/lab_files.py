"""Recordings of a worm from the files of laboratories, by their shape; nothing is guessed beyond what a file says.

| file | shape | laboratories |
| --- | --- | --- |
| .mat (5 and 7.3) | `IDs` or `NeuronNames` or `neuron_ID`, `traces…` or `deltaFOverF_bc`, a time vector; one worm or cells of worms | Kato, Nichols, Skora, Kaplan, Uzel |
| .mat | `proofread_neurons`, `use_flag`, `corrected_F`, `F_0`, `times` | Lin |
| .mat | `neurons`, `is_L`, `norm_traces`, `files`, `fps` | Yemini |
| .h5 | `gcamp/traces_array_F_F20`, `timing/timestamp_confocal`, labels in a JSON beside it | Dag |
| .h5, .json | `trace_array`, `timestamp_confocal`, `neuropal_label` or `labeled` | Flavell (Atanas) |
| N_gcamp.txt | with N_labels.txt and N_t.txt beside it | Leifer |
| .csv | a row a cell: column `neuron`, frames as columns after 106 of features, 0.375 s each | Venkatachalam |
| .csv, .npz, .json | traces with times and names | any |
| .nwb | cells' fluorescence with names | Nejatbakhsh, WormID |
"""  # noqa: E501

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from broadsheet.errors import DataError, InputError
from broadsheet.files import MIB, existing, load_arrays, natural, read_bytes, read_json, read_text
from broadsheet.recordings.worm.pipeline import Raw

NAMES = ("IDs", "NeuronNames", "neuron_ID", "neuron_names", "neuropal_label", "names", "labels", "neurons")
TRACES = ("traces", "deltaFOverF_bc", "traces_bleach_corrected", "trace_array", "calcium_data", "calcium")
TIMES = ("timeVectorSeconds", "tv", "time_vector", "timestamp_confocal", "time_in_seconds", "times", "time", "t")
FEATURES = 107  # columns before the frames in Venkatachalam's tables
FRAME = 0.375  # s, of the same
LARGEST_TEXT = 512 * MIB
LABELS_BESIDE = "NeuroPAL_labels_dict.json"
SUFFIXES = (".nwb", ".mat", ".h5", ".hdf5", ".json", ".csv", ".npz", ".txt")


def read_recordings(path: str | Path) -> list[Raw]:
    """The worms of a file, or of all files of a folder that are recordings by their name's end.

    **Raises:** `DataError` in one sentence that names the file and what it lacks.
    """
    path = existing(path)
    if path.is_dir():
        return [raw for each in recordings_in(path) for raw in read_recordings(each)]
    readers: dict[str, Callable[[Path], Iterable[Raw]]] = {
        ".nwb": _nwb, ".mat": _mat, ".h5": _h5, ".hdf5": _h5, ".json": _json, ".csv": _csv, ".npz": _npz, ".txt": _text,
    }  # fmt: skip
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: recordings are read from files that end in {', '.join(SUFFIXES)}.")
    return list(reader(path))


def recordings_in(path: str | Path) -> list[Path]:
    """A file itself, or the files of a folder that are recordings by their name's end, in the order of their names."""
    path = existing(path)
    if not path.is_dir():
        return [path]
    files = [each for each in sorted(path.rglob("*"), key=lambda each: natural(str(each))) if _is_recording(each)]
    if not files:
        raise InputError(f"{path} holds no file that ends in {', '.join(SUFFIXES)}.")
    return files


def _is_recording(path: Path) -> bool:
    """Whether a file of a folder is a recording, not what lies beside one: labels, times, a report."""
    if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
        return False
    beside = path.name == LABELS_BESIDE or path.name.endswith(".report.json")
    return path.name.endswith("_gcamp.txt") if path.suffix == ".txt" else not beside


def fill_gaps(raw: Raw, how: Literal["refuse", "drop", "hold", "interpolate"] = "refuse", longest: float = 0.05) -> Raw:
    """A recording without NaN.

    Cells that are NaN throughout go in any case. `"drop"` leaves out cells with any NaN; `"hold"` repeats the last number and
    `"interpolate"` draws a line over gaps, and both leave out cells with a gap longer than the share `longest` of the
    recording. Holding looks back alone, but for a gap at the start, which takes the first number; a line looks ahead.
    `"refuse"` leaves NaN where they are, for `homogenise` to name.
    """
    traces = np.asarray(raw.traces, float)
    missing = np.isnan(traces)
    kept = ~missing.all(0)
    if how == "drop":
        kept &= ~missing.any(0)
    elif how in ("hold", "interpolate"):
        kept &= np.array([_longest_run(column) <= longest * len(traces) for column in missing.T])
        traces = traces.copy()
        at = np.arange(len(traces))
        for k in np.flatnonzero(kept & missing.any(0)):
            good = np.flatnonzero(~missing[:, k])
            if how == "interpolate":
                traces[:, k] = np.interp(raw.times, raw.times[good], traces[good, k])
            else:
                traces[:, k] = traces[good[np.clip(np.searchsorted(good, at, side="right") - 1, 0, None)], k]
    elif how != "refuse":
        raise InputError(f"Gaps can be refused, dropped, held or interpolated, not {how!r}.")
    names = tuple(name for name, keep in zip(raw.names, kept, strict=True) if keep)
    return Raw(traces[:, kept], raw.times, names, raw.source, raw.worm, raw.file)


def _longest_run(missing: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], missing.astype(int), [0]])))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0


def _raw(path: Path, traces: Any, times: Any, names: Sequence[Any], worm: str = "") -> Raw:
    """One worm of a file, its traces turned to (samples, cells)."""
    try:
        values, clock = np.asarray(traces, float), np.asarray(times, float).ravel()
    except (ValueError, TypeError):
        raise DataError(f"{path}: traces and times should be numbers.") from None
    labels = tuple(_label(each) for each in names)
    if values.ndim == 2 and values.shape != (len(clock), len(labels)) and values.shape == (len(labels), len(clock)):
        values = values.T
    if values.shape != (len(clock), len(labels)):
        raise DataError(
            f"{path}: traces are {values.shape} with {len(clock)} times and {len(labels)} names; a time a sample and a name a "
            "cell are wanted."
        )
    return Raw(values, clock, labels, path.parent.name, worm, path.name)


def _label(value: Any) -> str | None:
    """A cell's name: of several candidates the first that is there."""
    if isinstance(value, (list, tuple)):
        return next((label for label in map(_label, value) if label), None)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return _label(value.tolist()) if value.size and value.dtype.kind in "USO" else None
    return value.strip() or None if isinstance(value, str) else None


def _mat(path: Path) -> Iterable[Raw]:
    from broadsheet.recordings.worm.matlab import read_matlab

    variables = read_matlab(path)
    if {"proofread_neurons", "corrected_F"} <= variables.keys():
        return [_lin(path, variables)]
    if {"norm_traces", "is_L", "neurons"} <= variables.keys():
        return _yemini(path, variables)
    found = _worms(path, variables)
    for name, value in () if found else variables.items():
        for k, part in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(part, dict):
                found += _worms(path, part, f"{name}{k}" if isinstance(value, list) else "")
    if not found:
        raise DataError(
            f"{path} has no traces with names and times; it has {', '.join(list(variables)[:8]) or 'nothing'}, wanted are e.g. "
            "traces, IDs and timeVectorSeconds."
        )
    return found


def _worms(path: Path, fields: dict[str, Any], prefix: str = "") -> list[Raw]:
    """The worms of a mapping that has traces, names and times; none where it lacks one."""
    keys = [next((key for key in choice if key in fields), None) for choice in (TRACES, NAMES, TIMES)]
    if None in keys:
        return []
    traces, names, times = (fields[key] for key in keys if key)
    if isinstance(traces, list) and traces and np.ndim(traces[0]) == 2:
        if not len(traces) == len(names) == len(times):
            raise DataError(f"{path}: {len(traces)} worms have {len(names)} lists of names and {len(times)} of times.")
        worms = zip(traces, names, times, strict=True)
        return [_raw(path, *_ordered(each), f"{prefix}{k}") for k, each in enumerate(worms) if each[0] is not None]
    return [_raw(path, *_ordered((traces, names, times)), prefix)]


def _ordered(worm: tuple[Any, Any, Any]) -> tuple[Any, Any, list[Any]]:
    traces, names, times = worm
    return traces, times, list(names) if names is not None else []


def _lin(path: Path, fields: dict[str, Any]) -> Raw:
    """Cells marked by `use_flag`; the first sample of `corrected_F`, which is the baseline's, is taken from `F_0`."""
    try:
        used = np.asarray(fields["use_flag"]).ravel() > 0
        traces = np.asarray(fields["corrected_F"], float)[used].T.copy()
        traces[0] = np.asarray(fields["F_0"], float)[used][:, 0]
        times = fields["times"]
        clock = times.get("times", [*times.values()][-1]) if isinstance(times, dict) else times
        names = [name for name, use in zip(fields["proofread_neurons"], used, strict=True) if use]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise DataError(f"{path}: use_flag, corrected_F, F_0 and times do not fit ({str(error)[:60]}).") from None
    return _raw(path, traces, clock, names)


def _yemini(path: Path, fields: dict[str, Any]) -> list[Raw]:
    """Classes of cells with a side each: `is_L` is 1 for the left cell, 0 for the right, NaN for cells without a partner; with
    as many entries a class as there are animals, or twice as many (all left ones first)."""
    animals = len(np.atleast_1d(np.asarray(fields["files"], dtype=object)))
    rate = float(np.ravel(fields["fps"])[0])
    worms: list[list[tuple[str, np.ndarray]]] = [[] for _ in range(animals)]
    for name, sides, traces in zip(fields["neurons"], fields["is_L"], fields["norm_traces"], strict=True):
        marks = np.ravel(sides)
        if len(marks) not in (animals, 2 * animals) or len(traces) != len(marks):
            raise DataError(f"{path}: {name} has {len(marks)} sides and {len(traces)} traces for {animals} animals.")
        for k, (mark, trace) in enumerate(zip(marks, traces, strict=True)):
            if trace is not None and np.size(trace):
                side = "" if np.isnan(mark) else "L" if mark == 1 else "R"
                worms[k % animals].append((f"{name}{side}", np.ravel(trace)))
    made = []
    for k, cells in enumerate(worms):
        if cells:
            length = max(len(trace) for _, trace in cells)
            whole = [(name, trace) for name, trace in cells if len(trace) == length]
            made.append(_raw(path, np.stack([trace for _, trace in whole], 1), np.arange(length) / rate,
                             [name for name, _ in whole], str(k)))  # fmt: skip
    return made


def _h5(path: Path) -> Iterable[Raw]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "gcamp/traces_array_F_F20" in file and "timing/timestamp_confocal" in file:
                traces = file["gcamp/traces_array_F_F20"][()]
                return [_raw(path, traces, file["timing/timestamp_confocal"][: len(traces)], _dag_names(path, traces.shape[1]))]
            fields = {
                name: item[()]
                for name, item in file.items()
                if isinstance(item, h5py.Dataset) and name in TRACES + NAMES + TIMES
            }
    except OSError as error:
        raise DataError(f"{path} cannot be read as HDF5 ({str(error)[:60]}).") from None
    found = _worms(path, fields)
    if not found:
        raise DataError(
            f"{path} has no traces with names and times; wanted are e.g. trace_array, neuropal_label, timestamp_confocal."
        )
    return found


def _dag_names(path: Path, cells: int) -> list[str | None]:
    """Names from `NeuroPAL_labels_dict.json` beside the file or a folder up; cells count from 1 there."""
    names: list[str | None] = [None] * cells
    for folder in (path.parent, path.parent.parent):
        labels = folder / LABELS_BESIDE
        if labels.is_file():
            entry = read_json(labels).get(path.stem.removesuffix("-data"))
            for key, value in (entry[0] if entry else {}).items():
                if not 1 <= int(key) <= cells:
                    raise DataError(f"{labels}: {path.name} has a label for cell {key} of {cells}.")
                names[int(key) - 1] = _label(value.get("label"))
            break
    return names


def _json(path: Path) -> Iterable[Raw]:
    try:
        data = json.loads(read_bytes(path, LARGEST_TEXT))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({str(error)[:80]}).") from None
    if not isinstance(data, dict):
        raise DataError(f"{path} holds a {type(data).__name__}; an object with traces, names and times is wanted.")
    if isinstance(data.get("labeled"), dict) and "trace_array" in data:
        names: list[str | None] = [None] * len(data["trace_array"])
        for key, value in data["labeled"].items():
            if not (key.isdigit() and 1 <= int(key) <= len(names)):
                raise DataError(f"{path} has a label for cell {key} of {len(names)}.")
            names[int(key) - 1] = _label(value.get("label"))
        data = {**data, "names": names, "traces": data["trace_array"]}
        return [_raw(path, data["traces"], data.get("timestamp_confocal", []), names)]
    found = _worms(path, data)
    if not found:
        raise DataError(f"{path} has no traces, names and times; it has {', '.join(map(str, list(data)[:8])) or 'nothing'}.")
    return found


def _npz(path: Path) -> Iterable[Raw]:
    found = _worms(path, load_arrays(path))
    if not found:
        raise DataError(f"{path} should hold arrays traces (samples, cells), times (s) and names.")
    return found


def _csv(path: Path) -> Iterable[Raw]:
    rows = list(csv.reader(read_text(path, LARGEST_TEXT).splitlines()))
    header = [each.strip() for each in rows[0]] if rows else []
    if len(rows) < 2:
        raise DataError(f"{path} has {len(rows)} lines; a header and samples are wanted.")
    if "neuron" in header and len(header) > FEATURES + 2:
        frames = slice(FEATURES, len(header) - 1)
        times = _numbers(path, header[frames], 1) * FRAME
        traces = np.stack([_numbers(path, row[frames], k) for k, row in enumerate(rows[1:], start=2)], 1)
        return [_raw(path, traces, times, [row[header.index("neuron")] for row in rows[1:]])]
    time = next((k for k, name in enumerate(header) if re.fullmatch(r"(?i)t|time.*|seconds", name)), None)
    if time is None:
        raise DataError(f"{path} has no column of times; its first line should name one time and each cell.")
    if any(len(row) != len(header) for row in rows):
        k = next(k for k, row in enumerate(rows) if len(row) != len(header))
        raise DataError(f"{path}, line {k + 1} has {len(rows[k])} entries; the first line has {len(header)}.")
    table = np.stack([_numbers(path, row, k) for k, row in enumerate(rows[1:], start=2)])
    cells = [k for k in range(len(header)) if k != time]
    return [_raw(path, table[:, cells], table[:, time], [header[k] for k in cells])]


def _numbers(path: Path, entries: Sequence[str], line: int) -> np.ndarray:
    try:
        return np.array([float(each) if each.strip() else np.nan for each in entries])
    except ValueError as error:
        raise DataError(f"{path}, line {line}: {str(error)[:60]}; numbers are wanted.") from None


def _text(path: Path) -> Iterable[Raw]:
    if not path.name.endswith("_gcamp.txt"):
        raise DataError(
            f"{path}: of text files those that end in _gcamp.txt are read, with _labels.txt and _t.txt beside them."
        )
    stem = path.name.removesuffix("_gcamp.txt")
    labels, times = path.with_name(f"{stem}_labels.txt"), path.with_name(f"{stem}_t.txt")
    lines = read_text(path, LARGEST_TEXT).splitlines()
    rows = [_numbers(path, line.split(), k) for k, line in enumerate(lines, start=1) if line.strip()]
    if not rows or len({len(row) for row in rows}) != 1:
        raise DataError(f"{path} should have as many numbers in each line.")
    traces = np.stack(rows)
    names = (read_text(existing(labels)).splitlines() + [""] * traces.shape[1])[: traces.shape[1]]
    return [_raw(path, traces, _numbers(times, read_text(existing(times)).split(), 1), names, stem)]


def _nwb(path: Path) -> Iterable[Raw]:
    from broadsheet.recordings.nwb import open_session

    with open_session(path) as session:
        cells = {name: trace for name, trace in session.traces.items() if trace.kind == "RoiResponseSeries"}
        if not cells:
            raise DataError(
                f"{path} has no fluorescence of cells (RoiResponseSeries); it has {', '.join(session.traces) or 'no traces'}."
            )
        best = min(cells, key=lambda name: ("dff" not in name.lower().replace("_", ""), "raw" not in name.lower(), name))
        trace = cells[best]
        return [_raw(path, np.asarray(trace.values), np.asarray(trace.times), list(trace.names))]
