"""Tables of numbers from users' files: CSV with or without names of its columns, and NumPy's arrays."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from broadsheet.errors import DataError
from broadsheet.files import load_arrays, read_text

MAX_BYTES = 2048 * 2**20
DELIMITERS = ",;\t"


class NumberTable(NamedTuple):
    """- `values`: (rows, columns), NaN where a cell is empty; `names`: of the columns, or their numbers from 0."""

    values: Float[np.ndarray, "rows columns"]
    names: tuple[str, ...]


def read_numbers(path: str | Path) -> NumberTable:
    """The table of a .csv or .tsv (comma, semicolon or tab; names in the first line where none of its cells is a number), or
    the one two-dimensional array of a .npy, .npz or .safetensors.

    **Raises:** `DataError` with the line and the column for a cell that is no number and for rows of another length, for
    several arrays and for other shapes.
    """
    path = Path(path)
    if path.suffix in (".npy", ".npz", ".safetensors"):
        arrays = load_arrays(path)
        if len(arrays) != 1:
            raise DataError(f"{path} holds {', '.join(arrays) or 'nothing'}; one array is wanted.")
        (values,) = arrays.values()
        if values.ndim != 2 or values.dtype.kind not in "biuf":
            raise DataError(f"{path} holds {values.dtype} of the shape {values.shape}; numbers (rows, columns) are wanted.")
        return NumberTable(values.astype(float), tuple(map(str, range(values.shape[1]))))
    lines = read_text(path, MAX_BYTES).splitlines()
    first = next((line for line in lines if line.strip()), "")
    delimiter = max(DELIMITERS, key=first.count)
    rows = [(k, row) for k, row in enumerate(csv.reader(lines, delimiter=delimiter), start=1) if any(map(str.strip, row))]
    if not rows:
        raise DataError(f"{path} is empty.")
    names: tuple[str, ...] = tuple(map(str, range(len(rows[0][1]))))
    if not any(map(_is_number, rows[0][1])):
        names = tuple(cell.strip() for cell in rows.pop(0)[1])
    values = np.empty((len(rows), len(names)))
    for made, (line, row) in zip(values, rows, strict=True):
        if len(row) != len(names):
            raise DataError(f"{path}, line {line}: {len(row)} cells; {len(names)} are wanted, as in the first line.")
        for k, cell in enumerate(row):
            if cell.strip() and not _is_number(cell):
                raise DataError(f"{path}, line {line}, column {names[k]}: {cell.strip()[:40]!r} is no number.")
            made[k] = float(cell) if cell.strip() else np.nan
    return NumberTable(values, names)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
