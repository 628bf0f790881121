"""Tracked particles from a CSV file, as trackpy writes them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from jaxtyping import Float

from broadsheet.errors import DataError
from broadsheet.files import MIB, read_text

COLUMNS = {"frame": ("frame", "t"), "particle": ("particle", "id", "track", "track_id"), "x": ("x",), "y": ("y",)}


def read_tracks(path: str | Path, max_bytes: int = 512 * MIB) -> Float[np.ndarray, "frames particles 2"]:
    """Positions of all particles in all frames; NaN where a particle was not seen.

    The file has a header and the columns `frame`, `particle` (or `id`, `track`), `x` and `y`, in any order and with any
    others; the unit of length is the file's.

    **Raises:** `DataError` where a column is missing, a number is none, or a particle is twice in a frame.
    """
    lines = read_text(path, max_bytes).splitlines()
    reader = csv.reader(lines)
    header = [name.strip().lower() for name in next(reader, [])]
    at = {}
    for wanted, names in COLUMNS.items():
        found = [header.index(name) for name in names if name in header]
        if not found:
            raise DataError(f"{path} has the columns {', '.join(header) or '(none)'}; {wanted!r} is missing.")
        at[wanted] = found[0]
    rows = []
    for number, row in enumerate(reader, start=2):
        if not row:
            continue
        try:
            rows.append([float(row[at[name]]) for name in COLUMNS])
        except (ValueError, IndexError):
            raise DataError(f"{path}, line {number}: {','.join(row)[:60]!r} has no number for each column.") from None
    if not rows:
        raise DataError(f"{path} has a header and no rows.")
    table = np.array(rows)
    if not np.isfinite(table).all() or (table[:, 0] != np.round(table[:, 0])).any():
        raise DataError(f"{path}: frames must be whole numbers and positions finite.")
    frames = (table[:, 0] - table[:, 0].min()).astype(int)
    _, particle = np.unique(table[:, 1], return_inverse=True)
    shape = (int(frames.max()) + 1, int(particle.max()) + 1, 2)
    if np.prod(shape, dtype=float) * 8 > 4096 * MIB:
        raise DataError(f"{path}: {shape[0]} frames of {shape[1]} particles are too many; renumber frames or cut the file.")
    if len({*zip(frames.tolist(), particle.tolist(), strict=True)}) < len(table):
        raise DataError(f"{path}: a particle appears twice in one frame.")
    positions = np.full(shape, np.nan)
    positions[frames, particle] = table[:, 2:]
    return positions
