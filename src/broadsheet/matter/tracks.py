"""Tracked particles from a table of text, as trackpy, TrackMate and others write them."""

from __future__ import annotations

import csv
import re
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from broadsheet.errors import DataError
from broadsheet.files import MIB, read_text

COLUMNS = {
    "frame": ("frame", "frame_number", "slice"),
    "time": ("t", "time", "position_t"),
    "particle": ("particle", "particle_id", "track", "track_id", "trajectory", "trajectory_id", "id"),  # ids may be of spots
    "x": ("x", "position_x", "pos_x", "x_position"),
    "y": ("y", "position_y", "pos_y", "y_position"),
    "z": ("z", "position_z", "pos_z", "z_position"),
}
"""What a table says, and how its columns are called, in capitals or not, a unit in brackets behind."""

MAX_BYTES = 4096 * MIB
SLACK = 0.05
"""Share of a frame by which a time, rounded to a few decimals, may miss it."""


class Tracks(NamedTuple):
    """Positions (frames, particles, 2 or 3) at equal times, NaN where a particle was not seen, and what the file says of them.

    `step`: frames, or units of time where the file counts by time, from one row to the next; `interval`: time of a frame, where
    the file has both; `length_unit`, `time_unit`: as the file spells them, or empty; `notes`: what was left out, and why.
    """

    positions: Float[np.ndarray, "frames particles dim"]
    step: float
    interval: float | None
    length_unit: str
    time_unit: str
    notes: tuple[str, ...]


def read_tracks(path: str | Path, max_bytes: int = 512 * MIB) -> Float[np.ndarray, "frames particles dim"]:
    """Positions of all particles in all frames, from the first to the last; NaN where a particle was not seen.

    They have three dimensions where the file has a column z that changes. For the columns see `track_file`.

    **Raises:** as `track_file`; also where frames are counted by times that are no whole numbers.
    """
    tracks = track_file(path, max_bytes)
    step = round(tracks.step)
    if step != tracks.step:
        raise DataError(f"{path} counts frames by times that are {tracks.step:g} apart; frames must be whole numbers.")
    if step == 1:
        return tracks.positions
    rows, *rest = tracks.positions.shape
    _check_size(path, ((rows - 1) * step + 1, *rest))
    positions = np.full(((rows - 1) * step + 1, *rest), np.nan)
    positions[::step] = tracks.positions
    return positions


def track_file(path: str | Path, max_bytes: int = 512 * MIB) -> Tracks:
    """Tracks from a table with a header and a row for each particle in each frame, in any order.

    Columns are `frame` (whole numbers), `particle` (or `track`, `TRACK_ID`, `id`), `x`, `y` and perhaps `z` (or `POSITION_X`,
    …), with commas, semicolons or tabs between, and any others. A unit may stand in brackets behind a name. Without a frame,
    rows go by `t` or `time`, in equal steps, of which some may be missing; beside a frame it says how long a frame takes. Rows
    whose coordinates are all empty or NaN say that a particle was not seen. Of TrackMate's three further lines of header the
    last says the units.

    **Raises:** `DataError` where a column is missing or there twice, a number is none, frames are no whole numbers, or a
    particle is twice in a frame; it names the line.
    """
    header, units, table, lines = _table(path, max_bytes)
    notes = []
    axes = [name for name in "xyz" if name in table]
    points = np.stack([table[name] for name in axes], axis=1)
    missing = np.isnan(points).all(axis=1)
    _all(path, lines, f"{', '.join(axes)} must all be finite, or none of them there", missing | np.isfinite(points).all(axis=1))
    length = {units[name] for name in axes}
    if len(length) > 1:
        raise DataError(f"{path} has {', '.join(axes)} in different units: {', '.join(sorted(length))}.")
    if "z" in axes and len(np.unique(points[~missing, 2])) <= 1:
        notes.append("z is the same everywhere: the tracks lie in a plane")
        points = points[:, :2]
    frames, step = _frames(path, lines, table)
    _, particle = np.unique(table["particle"], return_inverse=True)
    shape = (int(frames.max()) + 1, int(particle.max()) + 1, points.shape[1])
    _check_size(path, shape)
    cell = frames * shape[1] + particle
    often = np.bincount(cell)
    if often.max() > 1:
        one, other = lines[cell == often.argmax()][:2]
        raise DataError(f"{path}: a particle appears twice in one frame, in lines {one} and {other}.")
    positions = np.full(shape, np.nan)
    positions[frames, particle] = points
    interval = None
    if {"frame", "time"} <= table.keys():
        interval = _interval(table["frame"], table["time"])
        if interval is None:
            notes.append(f"the times of {header['time']!r} are not equally spaced: lags count frames")
    return Tracks(positions, step, interval, length.pop(), units.get("time", ""), tuple(notes))


def _table(path: str | Path, max_bytes: int) -> tuple[dict[str, str], dict[str, str], dict[str, np.ndarray], np.ndarray]:
    """How the columns are spelled, their units, their numbers (NaN where empty), and the line of each row."""
    lines = read_text(path, max_bytes).splitlines()
    first = lines[0] if lines else ""
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(lines, delimiter=delimiter)
    header = [name.strip() for name in next(reader, [])]
    at, units = _columns(path, header)
    pick = itemgetter(*at.values())
    rows, numbers = [], []
    for number, row in enumerate(reader, start=2):
        if not row:
            continue
        if number <= 4 and _is_header(header, row):
            units = {name: row[place].strip().strip("()[]") for name, place in at.items()}
            continue
        try:
            rows.append([float(text or "nan") for text in pick(row)])
            numbers.append(number)
        except (ValueError, IndexError):
            raise DataError(
                f"{path}, line {number}: {delimiter.join(row)[:60]!r} has no number for each of {', '.join(at)}."
            ) from None
    if not rows:
        raise DataError(f"{path} has a header and no rows.")
    table, found = dict(zip(at, np.array(rows).T, strict=True)), np.array(numbers)
    for name in at.keys() - {*"xyz"}:
        _all(path, found, f"the {name} is no number", np.isfinite(table[name]))
    return {name: header[place] for name, place in at.items()}, units, table, found


def _columns(path: str | Path, header: list[str]) -> tuple[dict[str, int], dict[str, str]]:
    """Where each column is, and its unit."""
    parts = [re.fullmatch(r"(.*?)\s*(?:[\[(](.*)[\])])?", name) for name in header]
    names = ["" if part is None else part[1].strip().lower().replace(" ", "_") for part in parts]
    at, units = {}, {}
    for wanted, spellings in COLUMNS.items():
        found = [spelling for spelling in spellings if spelling in names]
        if found:
            if names.count(found[0]) > 1:
                raise DataError(f"{path} has {names.count(found[0])} columns for {found[0]!r}: {', '.join(header)}.")
            at[wanted] = names.index(found[0])
            part = parts[at[wanted]]
            units[wanted] = (part and part[2]) or ""
    missing = [name for name in ("particle", "x", "y") if name not in at]
    missing = missing if "frame" in at or "time" in at else ["frame", *missing]
    if missing:
        raise DataError(f"{path} has the columns {', '.join(header) or '(none)'}; {missing[0]!r} is missing.")
    return at, units


def _is_header(header: list[str], row: list[str]) -> bool:
    """Whether a row is one of the three that TrackMate writes below its header, the last of them with units."""
    return "POSITION_X" in header and len(row) == len(header) and not any(re.search("[0-9]", cell) for cell in row)


def _all(path: str | Path, lines: np.ndarray, wrong: str, fine: np.ndarray) -> None:
    if not fine.all():
        raise DataError(f"{path}, line {lines[int(fine.argmin())]}: {wrong}.")


def _frames(path: str | Path, lines: np.ndarray, table: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """The row of positions that each line belongs to, and what lies between two rows, in frames or in the unit of time."""
    counted = table["frame" if "frame" in table else "time"]
    whole = counted == np.round(counted)
    if "frame" in table:
        _all(path, lines, "frames must be whole numbers", whole)
    since = counted - counted.min()
    if since.max() > 2**53:
        raise DataError(f"{path}: frames from {counted.min():g} to {counted.max():g} are too many; renumber them.")
    found = np.unique(since)
    if whole.all():
        step = float(max(1, np.gcd.reduce(found.astype(np.int64))))
    else:
        step = _step(found)
        off = np.abs(since / step - np.round(since / step))
        _all(path, lines, f"the time is no multiple of {step:g} after the first; frames at equal times are wanted", off < SLACK)
    return np.round(since / step).astype(np.int64), step


def _step(times: np.ndarray) -> float:
    """The time between frames, from the sorted times of some, the first 0: the shortest gap, made exact by later ones."""
    gaps = np.diff(times)
    step = gaps[gaps > 1e-9 * times[-1]].min()
    for time in times[times > step / 2]:
        step = time / round(time / step)
    return float(step)


def _interval(frame: np.ndarray, time: np.ndarray) -> float | None:
    """Time of one frame, where times grow evenly with frames."""
    since = frame - frame.min()
    if not since.any():
        return None
    start, end = time[since.argmin()], time[since.argmax()]
    interval = float((end - start) / since.max())
    even = interval > 0 and bool((np.abs(time - start - interval * since) <= SLACK * interval).all())
    return interval if even else None


def _check_size(path: str | Path, shape: tuple[int, ...]) -> None:
    if np.prod(shape, dtype=float) * 8 > MAX_BYTES:
        raise DataError(f"{path}: {shape[0]} frames of {shape[1]} particles are too many; renumber frames or cut the file.")
