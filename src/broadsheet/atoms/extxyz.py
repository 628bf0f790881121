"""Extended XYZ, frame by frame; every line is checked before it is used, and none is left out."""

from __future__ import annotations

import bz2
import functools
import gzip
import json
import lzma
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from broadsheet.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms

PACKED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
UNPACKED_LIMIT = 64 * 1024 * 1024
"""Characters that any packed file may unpack to; a large one to `UNPACKED_RATIO` times its size."""
UNPACKED_RATIO = 100
BLANK_LIMIT = 1000
"""Empty lines in a row, of which a small packed file could hold any number."""
BARE = "species:S:1:pos:R:3"
"""What the columns are where the comment has no `Properties`."""
ARRAYS = {"pos": "positions", "Z": "numbers", "species": "symbols", "charge": "charges", "mass": "masses"}
"""Names of columns that ASE has other names for."""
SHAPES = {"positions": [("R", 3)], "symbols": [("S", 1)], "numbers": [("I", 1)], "masses": [("R", 1)], "momenta": [("R", 3)],
          "move_mask": [("L", 1), ("L", 3), ("I", 1), ("I", 3)]}  # fmt: skip
"""What some columns have to be."""
MATRICES = {"Lattice", "stress", "virial"}
"""Keys whose nine numbers are a matrix, column after column."""
BY_ATOM = {"forces", "energies", "stresses", "charges", "magmoms"}
BY_STRUCTURE = {"energy", "free_energy", "stress", "dipole", "magmom"}
"""What ASE keeps in the results of a calculator."""
BOOLEANS = {"T": True, "F": False} | {name: name[0] in "tT" for name in ("true", "True", "TRUE", "false", "False", "FALSE")}

PIECE = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\{(?:[^}\\]|\\.)*\}|\[(?:[^\]\\]|\\.)*\]|\\.|[^\s=\\"'{\[]++)"""
ITEM = re.compile(rf"\s*({PIECE}+)(?:\s*=\s*((?:{PIECE}|=)*))?", re.S)
MARKED = re.compile(r"""(["'])((?:(?!\1)[^\\]|\\.)*)\1|\{((?:[^}\\]|\\.)*)\}|\[((?:[^\]\\]|\\.)*)\]|\\(.)""", re.S)


class Column(NamedTuple):
    """Neighbouring columns of one name: `kind` is R, I, S or L."""

    name: str
    kind: str
    first: int
    end: int


def read_extxyz(path: Path) -> Iterator[Atoms]:
    """The frames of an (extended) XYZ file, packed (.gz, .bz2, .xz) or not; empty lines between them are left out.

    `Properties` names the columns: `species` or `Z`, `pos`, `move_mask` (F: the atom is fixed), `masses` or `mass` (amu),
    `momenta`, `initial_charges`, `initial_magmoms`, `forces` and any others. The comment's keys go to `info`, results that ASE
    knows to a calculator that holds them. Six numbers of `stress` are xx, yy, zz, yz, xz, xy.

    **Raises:** `DataError` naming structure and line: a count, a column or a key that does not fit.
    """
    number, k, blank = 1, 0, 0
    with _lines(path) as (lines, most):
        line = next(lines, None)
        while line is not None:
            try:
                if not line.strip():
                    blank += 1
                    if blank > BLANK_LIMIT:
                        raise _Wrong(f"{blank} empty lines follow each other")
                    number, line = number + 1, next(lines, None)
                    continue
                blank = 0
                count = _count(line, most)
                comment = next(lines, None)
                rows = list(islice(lines, count))
                if comment is None or len(rows) < count:
                    raise _Wrong(f"{count} atoms are announced and {len(rows)} lines of atoms follow")
                line, vectors = next(lines, None), []
                while line is not None and line.lstrip().startswith("VEC"):
                    vectors.append(line)
                    line = next(lines, None)
                yield _frame(comment, rows, vectors)
            except _Wrong as error:
                raise DataError(f"{path}: structure {k} cannot be read (line {number + error.line}: {error}).") from None
            number, k = number + 2 + count + len(vectors), k + 1


class _Wrong(Exception):
    """What is wrong with a frame, and in which of its lines."""

    def __init__(self, text: str, line: int = 0):
        super().__init__(text)
        self.line = line


@contextmanager
def _lines(path: Path) -> Iterator[tuple[Iterator[str], int]]:
    """Lines of a text file, and how many there can be."""
    size = path.stat().st_size
    opened = PACKED.get(path.suffix.lower())
    try:
        if opened is None:
            with path.open(encoding="utf-8-sig") as stream:
                yield stream, size
        else:
            limit = max(UNPACKED_LIMIT, UNPACKED_RATIO * size)
            with opened(path, "rt", encoding="utf-8-sig") as stream:
                yield _limited(stream, limit, path), limit
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.object[error.start]:#04x}); save it again as UTF-8.") from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path} is damaged ({str(error)[:100]}).") from None


def _limited(stream: Any, limit: int, path: Path) -> Iterator[str]:
    left = limit
    while line := stream.readline(left + 1):
        left -= len(line)
        if left < 0:
            raise DataError(f"{path} unpacks to more than {limit} characters; unpack it first.")
        yield line


def _count(line: str, most: int) -> int:
    text = line.strip()
    if not (text.isascii() and text.isdigit()):
        raise _Wrong(f"{_short(text)} stands where the number of atoms of a structure is wanted")
    if len(text) > 18 or 2 * int(text) > most:
        raise _Wrong(f"{_short(text)} atoms are announced, more than the file has room for")
    return int(text)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _frame(comment: str, rows: Sequence[str], vectors: Sequence[str]) -> Atoms:
    from ase import Atoms

    info = {"comment": comment.strip()} if vectors else comment_of(comment)
    cell, pbc = _cell(info, vectors, 2 + len(rows))
    named = info.pop("Properties", BARE)
    arrays = _arrays(rows, _columns(str(named)), known=named is not BARE)
    numbers = _numbers(arrays)
    mask = arrays.pop("move_mask", None)
    results = {name: arrays.pop(name) for name in [*arrays] if name in BY_ATOM}
    results |= {name: _result(name, info.pop(name)) for name in [*info] if name in BY_STRUCTURE}
    made = Atoms(numbers, positions=arrays.pop("positions"), cell=cell, pbc=pbc, info=info)
    for name, values in arrays.items():
        made.new_array(name, values)
    if mask is not None:
        made.set_constraint(_constraint(mask))
    if results:
        from ase.calculators.singlepoint import SinglePointCalculator

        made.calc = SinglePointCalculator(made, **results)
    return made


def comment_of(text: str) -> dict[str, Any]:
    """The keys and values of a comment line: numbers, booleans, arrays of them, text, and JSON after `_JSON`.

    **Raises:** `DataError` for a key that is there twice with different values.
    """
    found: dict[str, str] = {}
    place, text = 0, text.strip()
    while place < len(text):
        match = ITEM.match(text, place)
        if match is None:
            return _free_text(text)
        key, value = _unmarked(match[1]), "T" if match[2] is None else _unmarked(match[2])
        if found.setdefault(key, value) != value:
            raise _Wrong(f"{key} is there twice, as {_short(found[key])} and as {_short(value)}", 1)
        place = match.end()
    return {key: _value(key, value) for key, value in found.items()}


def _free_text(text: str) -> dict[str, Any]:
    """A comment in words, whose quotation marks do not close."""
    if "=" in text:
        raise _Wrong("a quotation mark or bracket of the comment does not close", 1)
    return {"comment": text}


def _unmarked(text: str) -> str:
    """Without quotation marks, brackets and backslashes."""
    if text[:1] == '"' and text[-1] == '"' and '"' not in text[1:-1] and "\\" not in text:
        return text[1:-1]
    if not any(mark in text for mark in "\"'{[\\"):
        return text

    def inner(match: re.Match) -> str:
        inside = next((part for part in match.groups()[1:4] if part is not None), None)
        return match[5] if inside is None else re.sub(r"\\(.)", r"\1", inside, flags=re.S)

    return MARKED.sub(inner, text)


def _value(key: str, text: str) -> Any:
    if key.lower() == "uid":
        return text
    parts = text.replace(",", " ").split()
    numbers: Any = None
    try:
        numbers = np.array([int(part) for part in parts], int)
    except (ValueError, OverflowError):
        with suppress(ValueError):
            numbers = np.array([float(part) for part in parts])
    if numbers is not None:
        if key in MATRICES and numbers.size == 9:
            return numbers.reshape(3, 3, order="F")
        return numbers[0] if len(numbers) == 1 else numbers
    if all(part in BOOLEANS for part in parts):
        flags = [BOOLEANS[part] for part in parts]
        return flags[0] if len(flags) == 1 else flags
    if not text.startswith("_JSON "):
        return text
    try:
        found = json.loads(text.removeprefix("_JSON "))
    except (ValueError, RecursionError):
        raise _Wrong(f"{key} is no JSON", 1) from None
    try:
        array = np.array(found)
    except ValueError:
        return found
    return array if array.dtype.kind in "ifb" else found


def _cell(info: dict[str, Any], vectors: Sequence[str], line: int) -> tuple[np.ndarray | None, Any]:
    """The cell's rows and which of them repeat."""
    if vectors:
        try:
            rows = [[float(part) for part in each.split()[1:]] for each in vectors]
            names = [each.split()[0] for each in vectors]
            if names != ["VEC1", "VEC2", "VEC3"][: len(names)] or any(len(row) != 3 for row in rows):
                raise ValueError
        except ValueError:
            raise _Wrong("VEC1, VEC2 and VEC3 of three numbers each are wanted after the atoms", line) from None
        return np.array(rows + [[0.0] * 3] * (3 - len(rows))), np.arange(3) < len(rows)
    lattice, pbc = info.pop("Lattice", None), info.pop("pbc", None)
    if lattice is not None and not (isinstance(lattice, np.ndarray) and lattice.shape == (3, 3)):
        raise _Wrong("Lattice is not nine numbers", 1)
    flags = np.atleast_1d([lattice is not None] if pbc is None else np.asarray(pbc))
    if flags.size not in (1, 3) or not all(each in (0, 1) for each in flags.tolist()):
        raise _Wrong("pbc is not three of T and F", 1)
    return None if lattice is None else lattice.T, np.broadcast_to(flags.astype(bool), 3)


@functools.lru_cache(maxsize=256)
def _columns(text: str) -> tuple[Column, ...]:
    """The columns that `Properties` names; how many there are is compared with the lines before any is made."""
    parts = text.split(":")
    found: list[Column] = []
    for name, kind, width in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        if kind not in ("R", "I", "S", "L") or not (width.isascii() and width.isdigit() and len(width) < 19 and int(width)):
            raise _Wrong(f"Properties has {_short(f'{name}:{kind}:{width}')}; a name, R, I, S or L, and a number are wanted", 1)
        first = found[-1].end if found else 0
        found.append(Column(ARRAYS.get(name, name), kind, first, first + int(width)))
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if len(parts) % 3 or twice is not None:
        raise _Wrong(f"Properties names {twice} twice" if twice else "Properties is not made of name:type:columns", 1)
    shapes = {each.name: (each.kind, each.end - each.first) for each in found}
    if "positions" not in shapes or not {"symbols", "numbers"} & {*names}:
        raise _Wrong(f"Properties has no {'species or Z' if 'positions' in shapes else 'pos'}", 1)
    for own, name in zip(parts[::3], names, strict=True):
        if shapes[name] not in SHAPES.get(name, [shapes[name]]):
            (got, columns), (wanted, right) = shapes[name], SHAPES[name][0]
            raise _Wrong(f"Properties has {own}:{got}:{columns}; {own}:{wanted}:{right} is wanted", 1)
    return tuple(found)


def _logical(text: str) -> bool:
    return BOOLEANS[text]


CONVERT: dict[str, tuple[Any, Any]] = {"R": (float, float), "I": (int, int), "S": (str, object), "L": (_logical, bool)}


def _arrays(rows: Sequence[str], columns: Sequence[Column], known: bool) -> dict[str, np.ndarray]:
    split, width = [row.split() for row in rows], columns[-1].end
    if {*map(len, split)} - {width}:
        at = next(k for k, row in enumerate(split) if len(row) != width)
        hint = "Properties names" if known else "without Properties there are"
        raise _Wrong(f"it has {len(split[at])} columns and {hint} {width}", 2 + at)
    found = {}
    for name, kind, first, end in columns:
        convert, dtype = CONVERT[kind]
        try:
            if end - first == 1:
                values = np.array([convert(row[first]) for row in split], dtype)
            else:
                values = np.array([[*map(convert, row[first:end])] for row in split], dtype).reshape(len(split), end - first)
        except (ValueError, KeyError, OverflowError):
            raise _wrong_value(split, name, kind, first, end) from None
        found[name] = values
    return found


def _wrong_value(split: Sequence[Sequence[str]], name: str, kind: str, first: int, end: int) -> _Wrong:
    """Names the first value that is none of its kind."""
    convert, dtype = CONVERT[kind]
    word = {"R": "number", "I": "whole number", "L": "T or F", "S": "text"}[kind]
    for k, row in enumerate(split):
        for text in row[first:end]:
            try:
                np.array(convert(text), dtype)
            except (ValueError, KeyError, OverflowError):
                return _Wrong(f"{name} has {_short(text)}, which is no {word}", 2 + k)
    return _Wrong(f"{name} cannot be read", 2)


def _numbers(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Atomic numbers of species, Z or both."""
    from ase.data import atomic_numbers

    symbols, numbers = arrays.pop("symbols", None), arrays.pop("numbers", None)
    if symbols is None:
        assert numbers is not None
        return numbers
    known = {symbol: atomic_numbers.get(symbol.capitalize(), -1) for symbol in {*symbols}}
    found = np.array([known[symbol] for symbol in symbols], int)
    if (found < 0).any():
        at = int(found.argmin())
        raise _Wrong(f"{_short(symbols[at])} is no element", 2 + at)
    if numbers is not None and (found != numbers).any():
        at = int((found != numbers).argmax())
        raise _Wrong(f"its species is {symbols[at]} and its Z {numbers[at]}", 2 + at)
    return found


def _result(name: str, value: Any) -> Any:
    try:
        found = np.asarray(value)
        if found.dtype.kind not in "if" or not found.size or (found.size > 1 and name not in ("stress", "dipole")):
            raise ValueError
    except ValueError:
        raise _Wrong(f"{name}={str(value)[:40]} is no number", 1) from None
    if name != "stress":
        return value
    if found.size not in (6, 9):
        raise _Wrong(f"stress has {found.size} numbers; six or nine are wanted", 1)
    if found.size == 6:
        return found.astype(float)
    found = found.astype(float).reshape(3, 3)
    if (np.abs(found - found.T) > 1e-6 + 0.01 * np.abs(found).max()).any():
        raise _Wrong("stress is not symmetric", 1)
    return found.flat[[0, 4, 8, 5, 2, 1]]


def _constraint(mask: np.ndarray) -> Any:
    from ase.constraints import FixAtoms, FixCartesian

    fixed = ~mask.astype(bool)
    if mask.ndim == 1:
        return FixAtoms(mask=fixed) if fixed.any() else None
    return [FixCartesian(int(k), mask=fixed[k]) for k in np.flatnonzero(fixed.any(axis=1))]
