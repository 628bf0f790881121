"""Tables of an NWB file: units and stretches with their columns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from broadsheet.errors import DataError, InputError
from broadsheet.files import MIB
from broadsheet.recordings.spikes import Spikes, StoredTimes
from broadsheet.recordings.stretches import check_times, joined, within
from broadsheet.recordings.trials import Trials

LARGEST_COLUMN = 5_000_000
"""Rows of a table that are read."""
LARGEST_UNIT = 512 * MIB


def texts(column: Any) -> np.ndarray:
    """Entries as text."""
    return np.array([each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in column], dtype=str)


def plain(table: Any, name: str) -> np.ndarray | None:
    """A column as an array with an entry for each row; None for lists, masks and references.

    Text that was written letter by letter, as a list for each row, is put together.
    """
    column = table[name]
    target = getattr(column, "target", None)
    if target is not None:  # `column` says where each row's list ends
        if np.ndim(target.data) != 1 or len(target.data) > LARGEST_COLUMN or not len(target.data):
            return None
        letters = np.asarray(target.data[:])
        if letters.dtype.kind not in "OSU" or not all(isinstance(each, str | bytes) and len(each) <= 1 for each in letters):
            return None
        letters, ends = texts(letters), np.asarray(column.data[:], np.int64)
        return np.array(["".join(letters[a:b]) for a, b in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)], dtype=str)
    if np.ndim(column.data) != 1 or len(column.data) > LARGEST_COLUMN:
        return None
    elements = getattr(column, "elements", None)
    data = column.data[:]
    if elements is not None:
        return texts(np.asarray(elements.data[:] if hasattr(elements, "data") else elements))[np.asarray(data, int)]
    values: Any = np.asarray(data) if len(data) else np.empty(0)
    if values.dtype.kind in "biuf":
        return values
    if values.dtype.kind in "OSU" and all(isinstance(each, str | bytes) for each in values):
        return texts(values)
    if values.dtype.kind == "O" and all(hasattr(each, "name") for each in values):  # a group of electrodes
        return np.array([str(each.name) for each in values], dtype=str)
    return None


def read_intervals(table: Any, mend: bool = False) -> tuple[Trials, dict[str, str]]:
    """A table of stretches with its columns, and the columns that are not read with the reason. Lists of numbers or texts are
    kept as they are, an array for each row. To `mend` is to leave out rows without a length."""
    rows = len(table.id)
    if rows > LARGEST_COLUMN:
        raise DataError(f"it has {rows} rows; at most {LARGEST_COLUMN} are read.")
    columns, unused = {}, {}
    for name in table.colnames:
        if name in ("start_time", "stop_time"):
            continue
        entries = plain(table, name)
        if entries is None:
            entries = _lists(table, name)
        if entries is None:
            unused[name] = "references or arrays, which are not read"
        else:
            columns[name] = entries
    start, stop = (np.asarray(table[name].data[:], float) for name in ("start_time", "stop_time"))
    if mend:
        kept = np.isfinite(start) & np.isfinite(stop) & (stop > start)
        start, stop, columns = start[kept], stop[kept], {name: entries[kept] for name, entries in columns.items()}
    return Trials(start, stop, columns), unused


def _lists(table: Any, name: str) -> np.ndarray | None:
    """A ragged column of numbers or texts, an array for each row."""
    column = table[name]
    target = getattr(column, "target", None)
    if target is None or hasattr(target, "table") or np.ndim(target.data) != 1 or len(target.data) > LARGEST_COLUMN:
        return None
    values = np.asarray(target.data[:]) if len(target.data) else np.empty(0)
    if values.dtype.kind == "O" and all(isinstance(each, str | bytes) for each in values):
        values = texts(values)
    if values.dtype.kind not in "biufSU":
        return None
    ends = np.asarray(column.data[:], np.int64)
    out = np.empty(len(ends), object)
    for k, (first, last) in enumerate(zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)):
        out[k] = values[first:last]
    return out


def read_units(table: Any, told: Callable[[], AbstractContextManager[None]], mend: bool = False) -> Spikes:
    """The table of units: names, when each was observed, columns; times are read unit by unit.

    Where the file does not say when units were observed, they were from the first to the last spike of any of them. To `mend`
    is to put times in order and to leave out those that come twice, are no numbers, or lie outside what was observed.
    """
    if len(table.id) > LARGEST_COLUMN:
        raise DataError(f"it has {len(table.id)} units; at most {LARGEST_COLUMN} are read.")
    index = table["spike_times"]
    flat, ends = index.target.data, np.asarray(index.data[:], np.int64)
    firsts = np.concatenate([[0], ends[:-1]])
    sizes = ends - firsts
    if (sizes < 0).any() or (ends.size and ends[-1] > len(flat)):
        raise DataError(f"its index of spike times does not fit the {len(flat)} times.")
    if sizes.size and sizes.max() * 8 > LARGEST_UNIT:
        raise DataError(f"unit {int(sizes.argmax())} has {int(sizes.max())} spikes; at most {LARGEST_UNIT // 8} are read.")
    columns = {name: entries for name in table.colnames if (entries := _unit_column(table, name)) is not None}
    if "electrode_group" in columns:
        columns["group"] = columns.pop("electrode_group")
    columns |= _electrodes(table, columns)
    names = columns.pop("unit_name", None)
    names = texts(names) if names is not None and len(set(texts(names))) == len(names) else texts(table.id[:])
    observed = None
    if "obs_intervals" in table.colnames:
        observed = _observed(table["obs_intervals"])
    if observed is not None:
        known = np.concatenate(observed)
        start, stop = float(known[:, 0].min()), float(known[:, 1].max())
    else:
        edges = np.unique(np.concatenate([firsts[sizes > 0], ends[sizes > 0] - 1]))
        at = np.asarray([flat[int(k)] for k in edges], float) if len(edges) < 4096 else np.asarray(flat[:], float)[edges]
        if at.size and not np.isfinite(at).all():
            at = at[np.isfinite(at)]
        start, stop = (float(at.min()), float(at.max())) if at.size else (0.0, 0.0)

    def check(k: int, times: np.ndarray) -> None:
        with told():
            try:
                check_times(names[k], times, spikes.stretches(k) if observed is not None else np.array([[-np.inf, np.inf]]))
            except InputError as error:
                raise InputError(f"{str(error).rstrip('.')}; `describe --mend COPY.nwb` writes a file without such.") from None

    def read(k: int) -> np.ndarray:
        with told():
            return np.asarray(flat[int(firsts[k]) : int(ends[k])], float)

    if mend:
        kept = [np.unique(each[np.isfinite(each)]) for each in map(read, range(len(ends)))]
        if observed is not None:
            kept = [each[within(each, joined(stretches))] for each, stretches in zip(kept, observed, strict=True)]
        elif any(each.size for each in kept):
            start, stop = (float(pick([pick(each) for each in kept if each.size])) for pick in (np.min, np.max))
        return Spikes(tuple(kept), tuple(names), start, stop, observed, columns)
    spikes = Spikes(StoredTimes(read, check, sizes), tuple(names), start, stop, observed, columns)
    return spikes


def _unit_column(table: Any, name: str) -> np.ndarray | None:
    if name in ("spike_times", "obs_intervals", "electrodes"):
        return None
    return plain(table, name)


def _observed(index: Any) -> tuple[np.ndarray, ...] | None:
    """For each unit its observed stretches; None where no unit has one."""
    flat, ends = np.asarray(index.target.data[:], float).reshape(-1, 2), np.asarray(index.data[:], np.int64)
    if not len(flat):
        return None
    firsts = np.concatenate([[0], ends[:-1]])
    return tuple(flat[first:last] for first, last in zip(firsts, ends, strict=True))


def _electrodes(table: Any, known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Where each unit was recorded: the location and the group of its first electrode."""
    if "electrodes" not in table.colnames:
        return {}
    column = table["electrodes"]
    target = getattr(column, "target", None)
    region = column if target is None else target
    rows = np.asarray(region.data[:], int)
    if target is not None:
        ends = np.asarray(column.data[:], np.int64)
        firsts = np.concatenate([[0], ends[:-1]])
        rows = np.array([rows[a] if b > a else -1 for a, b in zip(firsts, ends, strict=True)], int)
    made = {}
    for source, name in (("location", "location"), ("group_name", "group")):
        if name not in known and source in region.table.colnames and len(region.table.id) > rows.max(initial=-1):
            entries = plain(region.table, source)
            if entries is not None:
                made[name] = np.array([str(entries[row]) if row >= 0 else "" for row in rows], dtype=str)
    return made
