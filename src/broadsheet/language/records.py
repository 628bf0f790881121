"""Records of a file, one a line: CSV and TSV with a header, JSON lines; each with its line, for what is wrong with it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broadsheet.errors import DataError, InputError
from broadsheet.files import MIB, read_text

LABELS = {"1": True, "true": True, "0": False, "false": False}


def read_records(path: Path, what: str) -> list[tuple[int, dict[str, Any]]]:
    """(line, columns) of each record of a file.

    **Raises:** `DataError` for what is no such file, with its line; `InputError` for another ending, which says `what` is read.
    """
    readers: dict[str, Callable[[str], list[tuple[int, dict[str, Any]]]]] = {
        ".csv": lambda text: _table(path, text, ","),
        ".tsv": lambda text: _table(path, text, "\t"),
        ".jsonl": lambda text: _objects(path, text),
    }
    if path.suffix not in readers:
        raise InputError(f"{path}: {what} are read from .csv, .tsv and .jsonl.")
    return readers[path.suffix](read_text(path, 256 * MIB))


def _table(path: Path, text: str, between: str) -> list[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=between)
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from None


def _objects(path: Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                row = None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: a JSON object a line is wanted.")
            rows.append((number, row))
    return rows


def text_of(path: str | Path, row: tuple[int, dict[str, Any]], column: str) -> str:
    """The text of a column.

    **Raises:** `DataError` where there is none.
    """
    value = row[1].get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{path}, line {row[0]}: {column!r} holds no text.")
    return value.strip()


def label_of(path: str | Path, row: tuple[int, dict[str, Any]]) -> bool:
    """Whether the label of a record is 1 or true.

    **Raises:** `DataError` for anything but these, 0 and false.
    """
    value = str(row[1].get("label")).strip().lower()
    if value not in LABELS:
        raise DataError(f"{path}, line {row[0]}: the label is {row[1].get('label')!r}; 1 (true) or 0 (false) is wanted.")
    return LABELS[value]
