"""Structures in files: extended XYZ and whatever else ASE reads, ASE databases, LMDB."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from broadsheet.atoms.extxyz import PACKED, read_extxyz
from broadsheet.atoms.label_names import LabelNames, check_stated
from broadsheet.atoms.structures import check_structure
from broadsheet.cache import write_atomic
from broadsheet.errors import BroadsheetError, DataError, InputError, MissingExtraError, UntrustedError
from broadsheet.files import MIB, PICKLE_OPCODES, existing, limited

if TYPE_CHECKING:
    from ase import Atoms

XYZ = {".xyz", ".extxyz"}
LMDB = {".lmdb", ".aselmdb"}
RECORD_LIMIT = 64 * MIB
"""Bytes that one record of an LMDB may unpack to."""
SQLITE = b"SQLite format 3\0"
REFUSED = {".pckl", ".pkl", ".pickle", ".bundle"}
ARRAY = re.compile(r'"__(?:complex_)?ndarray__"\s*:\s*\[\s*\[([^\]]*)\]')


def read_structures(
    path: str | Path, *, limit: int | None = None, check: bool = True, labels: LabelNames | bool = True
) -> list[Atoms]:
    """All structures of a file, with energy, forces and stress where it has them.

    What a file says of charge, multiplicity, masses, momenta, fixed atoms and units is used or refused: see `check_stated`,
    `read_extxyz` and, for labels, `LabelNames`.

    **Arguments:** `limit`: structures at most; `labels`: which keys are taken, or False to leave labels as the file has them.

    **Raises:** `DataError` naming the structure that cannot be read or used; `UntrustedError` for pickles.
    """
    names = LabelNames() if labels is True else labels or None
    found = []
    for k, each in enumerate(iterate_structures(path)):
        if limit is not None and k == limit:
            break
        where = f"{path}: structure {k}"
        if check:
            try:
                check_structure(each, where)
            except InputError as error:
                raise DataError(str(error)) from None
        found.append(each if names is None else names.take(each, where))
    if not found:
        raise DataError(f"{path} holds no structures.")
    return found


def iterate_structures(path: str | Path) -> Iterator[Atoms]:
    """The structures one at a time, so that large files need little memory; labels stay as they are in the file.

    The name is that of a file whatever is in it: `@`, `#` and `*` mean nothing.
    """
    path = existing(path)
    if path.suffix.lower() in REFUSED:
        raise UntrustedError(f"{path} may hold Python pickles, which could run code; write it as extended XYZ.")
    if path.is_file():
        with path.open("rb") as stream:
            if stream.read(2) in PICKLE_OPCODES:
                raise UntrustedError(f"{path} is a Python pickle, which could run code; write it as extended XYZ.")
    elif path.suffix.lower() not in LMDB:
        raise InputError(f"{path} is a folder; a file of structures is wanted.")
    k = 0
    try:
        for each in _reader(path):
            yield check_stated(each, f"{path}: structure {k}")
            k += 1
    except BroadsheetError:
        raise
    except MemoryError:
        raise DataError(f"{path}: structure {k} cannot be read (it asks for more memory than such a file needs).") from None
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DataError(f"{path}: structure {k} cannot be read ({reason}).") from None


def _reader(path: Path) -> Iterator[Atoms]:
    suffix = path.suffix.lower()
    if suffix in LMDB:
        return _lmdb(path)
    if suffix == ".db":
        return _sqlite(path)
    if suffix == ".json":
        return _json(path)
    if (Path(path.stem).suffix.lower() if suffix in PACKED else suffix) in XYZ:
        return read_extxyz(path)
    from ase.io import iread
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    name, size = str(path.absolute()), path.stat().st_size  # some relative names mean servers to ASE
    with path.open("rb") as stream:
        if stream.read(len(SQLITE)) == SQLITE:
            return _sqlite(path)
    try:
        kind = filetype(name)
        kind = kind if kind in ioformats else filetype(name, guess=False)
    except UnknownFileTypeError:
        raise DataError(f"{path} is of no format that is known by its name or its beginning; is it .extxyz?") from None
    own = {"extxyz": read_extxyz, "xyz": read_extxyz, "db": _sqlite, "json": _json}.get(kind)
    if own is not None:
        return own(path)
    found = iread(name, index=":", format=kind, do_not_split_by_at_sign=True)
    return limited(found, memory=512 * MIB + 100 * size, seconds=10 + size / (0.1 * MIB))


def _sqlite(path: Path) -> Iterator[Atoms]:
    """An ASE database: rows, their key-value pairs and data in `info`. It is opened to read only."""
    from ase.db.sqlite import SQLite3Database

    class ReadOnly(SQLite3Database):
        def _connect(self) -> sqlite3.Connection:
            return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=20)

    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        made = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    if ("table", "systems") not in {each[:2] for each in made}:
        raise DataError(f"{path} is no ASE database: it has no table of systems.")
    if any(kind in ("view", "trigger") or "GENERATED" in (sql or "").upper() for kind, _, sql in made):
        raise UntrustedError(f"{path} holds views, triggers or computed columns, which no ASE database has.")
    for k, row in enumerate(ReadOnly(str(path.absolute()), use_lock_file=False).select()):
        yield _of_row(row, f"{path}: structure {k}")


def _json(path: Path) -> Iterator[Atoms]:
    """An ASE database as JSON."""
    from ase.db.jsondb import JSONDatabase

    _check_arrays(path.read_text(encoding="utf-8"), str(path))
    for k, row in enumerate(JSONDatabase(str(path.absolute()), use_lock_file=False).select()):
        yield _of_row(row, f"{path}: structure {k}")


def _check_arrays(text: str, where: str) -> None:
    """Raises `DataError` for an array of ASE's JSON that is larger than the text that holds it; ASE makes room first."""
    for match in ARRAY.finditer(text):
        sizes = [int(part) for part in match[1].split(",") if part.strip().isdigit()]
        if math.prod(sizes) > len(text):
            raise DataError(f"{where} announces an array of {'x'.join(map(str, sizes))[:60]} numbers and has no room for it.")


def _of_row(row: Any, where: str) -> Atoms:
    """The structure of a row. Key-value pairs are taken past its attributes, of which `charge` is another."""
    made = row.toatoms()
    stated: Mapping[str, Any] = {key: vars(row)[key] for key in row.key_value_pairs}
    raw = vars(row).get("_data")
    if isinstance(raw, str):
        _check_arrays(raw, where)
    data = dict(row.data) if raw else {}
    for key in stated.keys() & data.keys():
        if not np.array_equal(stated[key], data[key]):
            raise DataError(f"{where} has {key}={stated[key]} as a key and {key}={data[key]} in its data.")
    made.info.update({**stated, **data})
    return made


@contextlib.contextmanager
def reading_lmdb(path: Path) -> Iterator[Any]:
    """A transaction that reads an LMDB; raises `DataError` where the file is none, `MissingExtraError` without `lmdb`."""
    try:
        import lmdb
    except ImportError:
        raise MissingExtraError(f"Reading {path}", "atoms") from None
    try:
        environment = lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, max_readers=1)
    except lmdb.Error as error:
        raise DataError(f"{path} is not an LMDB ({error}).") from None
    with contextlib.closing(environment), environment.begin() as transaction:
        file = path / "data.mdb" if path.is_dir() else path
        pages = environment.info()["last_pgno"] + 1
        if pages * environment.stat()["psize"] > file.stat().st_size:
            raise DataError(f"{path} is truncated: its last page lies behind its end.")
        yield transaction


def _lmdb(path: Path) -> Iterator[Atoms]:
    """ASE-LMDB as fairchem writes it: zlib-compressed JSON rows under decimal keys; pickled records are refused."""
    from ase.db.core import AtomsRow
    from ase.io.jsonio import decode

    with reading_lmdb(path) as transaction:
        keys = sorted(int(key) for key in transaction.cursor().iternext(values=False) if key.isdigit())
        for key in keys:
            raw: bytes = transaction.get(str(key).encode()) or b""
            if raw[:2] in PICKLE_OPCODES:
                raise UntrustedError(f"{path}: record {key} is a Python pickle, which could run code.")
            try:
                inflater = zlib.decompressobj()
                text = inflater.decompress(raw, RECORD_LIMIT)
                if inflater.unconsumed_tail:
                    raise DataError(f"{path}: record {key} unpacks to more than {RECORD_LIMIT} bytes.")
                plain = text.decode()
                _check_arrays(plain, f"{path}: record {key}")
                row: dict[str, Any] = decode(plain)
                row.setdefault("id", key)
                made = _of_row(AtomsRow(row), f"{path}: record {key}")
            except BroadsheetError:
                raise
            except Exception as error:
                raise DataError(f"{path}: record {key} cannot be read ({str(error)[:100]}).") from None
            yield made


def write_lmdb(structures: Sequence[Atoms], path: str | Path) -> None:
    """Writes structures as an ASE-LMDB that fairchem reads."""
    try:
        import lmdb
    except ImportError:
        raise MissingExtraError(f"Writing {path}", "atoms") from None
    from ase.db.row import atoms2dict
    from ase.io.jsonio import encode

    path = Path(path)
    size = max(64 * 1024 * 1024, 4096 * sum(len(each) for each in structures))
    environment = lmdb.open(str(path), subdir=False, map_size=size, meminit=False)
    with contextlib.closing(environment), environment.begin(write=True) as transaction:
        for k, each in enumerate(structures, 1):
            row = atoms2dict(each)
            if each.calc is not None:
                row |= {name: value for name, value in each.calc.results.items() if name in ("energy", "forces", "stress")}
            row |= {"mtime": 0.0, "ctime": 0.0, "user": "", "key_value_pairs": {}, "data": dict(each.info)}
            transaction.put(str(k).encode(), zlib.compress(encode(row).encode()))
        transaction.put(b"nextid", zlib.compress(json.dumps(len(structures) + 1).encode()))
        transaction.put(b"deleted_ids", zlib.compress(b"[]"))


def write_structures(structures: Sequence[Atoms], path: str | Path) -> Path:
    """Writes extended XYZ, or what the suffix says and ASE knows; whole or not at all.

    **Raises:** `InputError` for a suffix that ASE cannot write.
    """
    import tempfile

    from ase.io import write
    from ase.io.formats import UnknownFileTypeError, filetype

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".xyz", ".extxyz"):
        import io

        text = io.StringIO()
        write(text, list(structures), format="extxyz")
        return write_atomic(path, text.getvalue())
    try:
        kind = filetype(str(path), read=False)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            scratch = Path(folder) / path.name
            write(scratch, list(structures), format=kind)
            write_atomic(path, scratch.read_bytes())
    except (UnknownFileTypeError, ValueError, TypeError) as error:
        raise InputError(f"{path}: ASE cannot write this format ({str(error)[:80]}); use .extxyz.") from None
    return path
