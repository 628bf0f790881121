"""Structures in files: extended XYZ and whatever else ASE reads, ASE databases, LMDB."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from broadsheet.atoms.structures import check_structure, labelled
from broadsheet.cache import write_atomic
from broadsheet.errors import BroadsheetError, DataError, InputError, MissingExtraError, UntrustedError
from broadsheet.files import PICKLE_OPCODES, existing

if TYPE_CHECKING:
    from ase import Atoms

DATABASES = {".db", ".json"}
LMDB = {".lmdb", ".aselmdb"}
RECORD_LIMIT = 64 * 1024 * 1024
"""Bytes that one record of an LMDB may unpack to."""
REFUSED = {".pckl", ".pkl", ".pickle", ".bundle"}


def read_structures(path: str | Path, *, limit: int | None = None, check: bool = True) -> list[Atoms]:
    """All structures of a file, with energy, forces and stress where it has them.

    **Raises:** `DataError` naming the structure that cannot be read or used; `UntrustedError` for pickles.
    """
    found = []
    for k, each in enumerate(iterate_structures(path)):
        if limit is not None and k == limit:
            break
        if check:
            try:
                check_structure(each, f"{path}: structure {k}")
            except InputError as error:
                raise DataError(str(error)) from None
        found.append(each)
    if not found:
        raise DataError(f"{path} holds no structures.")
    return found


def iterate_structures(path: str | Path) -> Iterator[Atoms]:
    """The structures one at a time, so that large files need little memory."""
    path = existing(path)
    if path.suffix.lower() in REFUSED:
        raise UntrustedError(f"{path} may hold Python pickles, which could run code; write it as extended XYZ.")
    if path.is_file():
        with path.open("rb") as stream:
            if stream.read(2) in PICKLE_OPCODES:
                raise UntrustedError(f"{path} is a Python pickle, which could run code; write it as extended XYZ.")
    if path.suffix.lower() in LMDB:
        yield from _lmdb(path)
        return
    k = 0
    try:
        if path.suffix.lower() in DATABASES:
            from ase.db import connect

            for row in connect(path).select():
                made = row.toatoms()
                made.info.update(row.key_value_pairs)
                yield made
                k += 1
            return
        from ase.io import iread

        for each in iread(path, index=":"):
            yield _settled(each)
            k += 1
    except BroadsheetError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DataError(f"{path}: structure {k} cannot be read ({reason}).") from None


def _settled(structure: Atoms) -> Atoms:
    """Labels that extended XYZ of older programs keeps under plain names, where ASE looks for them."""
    if structure.calc is not None and "forces" in structure.calc.results:
        return structure
    energy = next((structure.info[name] for name in ("energy", "REF_energy", "dft_energy") if name in structure.info), None)
    forces = next(
        (structure.arrays[name] for name in ("forces", "force", "REF_forces", "dft_force") if name in structure.arrays), None
    )
    if energy is None and structure.calc is not None:
        energy = structure.calc.results.get("energy")
    if energy is None or forces is None:
        return structure
    return labelled(structure, float(energy), np.asarray(forces, float))


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
        yield transaction


def _lmdb(path: Path) -> Iterator[Atoms]:
    """ASE-LMDB as fairchem writes it: zlib-compressed JSON rows under decimal keys; pickled records are refused."""
    from ase.db.core import AtomsRow
    from ase.io.jsonio import decode

    with reading_lmdb(path) as transaction:
        keys = sorted(int(key) for key, _ in transaction.cursor() if key.isdigit())
        for key in keys:
            raw: bytes = transaction.get(str(key).encode()) or b""
            if raw[:2] in PICKLE_OPCODES:
                raise UntrustedError(f"{path}: record {key} is a Python pickle, which could run code.")
            try:
                inflater = zlib.decompressobj()
                text = inflater.decompress(raw, RECORD_LIMIT)
                if inflater.unconsumed_tail:
                    raise DataError(f"{path}: record {key} unpacks to more than {RECORD_LIMIT} bytes.")
                row: dict[str, Any] = decode(text.decode())
                row.setdefault("id", key)
                made = AtomsRow(row).toatoms()
            except DataError:
                raise
            except Exception as error:
                raise DataError(f"{path}: record {key} cannot be read ({str(error)[:100]}).") from None
            made.info.update(row["data"] if isinstance(row.get("data"), dict) else {})
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
