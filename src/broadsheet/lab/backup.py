"""A store as one archive, and back: for backups, and to move between SQLite and PostgreSQL.

The archive is a zip file: `manifest.json`, the tables as JSON lines under `tables/`, the files of runs under `runs/`, drawn
figures under `figures/`. It is read in one transaction, so that it shows one moment even while the site goes on.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Table, func, insert, select, text
from sqlalchemy.orm import Session

from broadsheet.cache import writing
from broadsheet.errors import DataError, InputError, StoreError
from broadsheet.files import MIB, existing
from broadsheet.lab import people, presence
from broadsheet.lab.location import leads_out
from broadsheet.lab.rows import PLAIN, RUN_ID, checked, parsed
from broadsheet.lab.store import RECORD_FILE, SCHEMA, Store, read_record
from broadsheet.lab.tables import Base

KIND = "broadsheet backup"
LARGEST = 64 * 1024 * MIB
SMALL = 64 * MIB
MOST_PACKED = 100
"""How many times as large an archive may become that is not small."""

LONGEST_ROW = 8 * MIB
AT_ONCE = 100
"""Rows that are written at once."""

GAP = 100_000
"""Numbers that are left out: some were given after the archive was made, and stand in links that went out."""

LEFT_OUT = ("events", "revisions", *(table.__tablename__ for table in (people.Token, people.SignIn, people.Rate)))
"""Tables that say what happens now, and who is signed in."""

OLDER = ("0002",)
"""Schemas whose archives are read as well: those that only lack tables of this one."""


def backup(store: Store, file: Path) -> dict[str, int]:
    """Writes the archive and returns how many rows of each table it holds. The file appears when it is whole."""
    if file.exists():
        raise InputError(f"{file} is there already; nothing was changed.")
    counts: dict[str, int] = {}
    with writing(file) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        runs = _write_tables(store, archive, counts)
        for run in runs:
            _write_folder(archive, store.place(run), f"runs/{run}", store.runs)
        _write_folder(archive, store.folder / "figures", "figures", store.folder / "figures")
        made = datetime.now(UTC).isoformat(timespec="seconds")
        archive.writestr("manifest.json", json.dumps({"kind": KIND, "schema": SCHEMA, "made": made, "rows": counts}, indent=1))
    return counts


def _write_tables(store: Store, archive: zipfile.ZipFile, counts: dict[str, int]) -> list[str]:
    """Writes all rows as of one moment, in order, as an answer points to a comment before it; returns the runs' identities."""
    level = "REPEATABLE READ" if store.engine.dialect.name == "postgresql" else "SERIALIZABLE"
    runs: list[str] = []
    with store.guarded(), store.engine.connect().execution_options(isolation_level=level) as connection:
        if store.engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        for table in _tables():
            counts[table.name] = 0
            with archive.open(f"tables/{table.name}.jsonl", "w") as stream:
                for row in connection.execute(select(table).order_by(*table.primary_key)).mappings():
                    stream.write((json.dumps(_to_json(table, dict(row)), ensure_ascii=False) + "\n").encode())
                    counts[table.name] += 1
                    if table.name == "runs":
                        runs.append(row["id"])
    return runs


def _write_folder(archive: zipfile.ZipFile, folder: Path, name: str, inside: Path) -> None:
    """Its files, but for links and what lies behind links that lead out of a folder."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink() and not leads_out(path, inside):
            archive.write(path, f"{name}/{path.relative_to(folder)}")


def restore(store: Store, file: Path) -> dict[str, int]:
    """Fills an empty store from an archive, in one transaction; returns how many rows of each table.

    All of the archive is checked before anything of it is kept: names, sizes, and each row by the types of its table.

    **Raises:** `InputError` where the store holds anything, `DataError` where the archive is none of ours, damaged or tampered
    with.
    """
    with store.session() as session:
        held = {table.name: session.scalar(select(func.count()).select_from(table)) for table in _tables()}
    if any(held.values()):
        full = ", ".join(f"{count} {name}" for name, count in held.items() if count)
        raise InputError(f"The store is not empty ({full}); restore into a new BROADSHEET_HOME or database.")
    if not zipfile.is_zipfile(existing(file)):
        raise DataError(f"{file} is no backup of Broadsheet: it is no zip file.")
    with presence.temporary(store.folder) as folder:
        try:
            with zipfile.ZipFile(file) as archive:
                members = _members(archive, file, shutil.disk_usage(store.folder).free)
                counts, runs = _checked(archive, members, file)
                for member in members:
                    if member.filename.startswith(("runs/", "figures/")) and not member.is_dir():
                        _extract(archive, member, folder / member.filename)
                _check_folders(folder, runs, file)
                with store.session() as session:
                    for table in _tables():
                        _insert(session, table, (row for _, row in _rows(archive, members, table, file)))
                    session.execute(text("UPDATE revisions SET number = number + 1"))
                    for run in sorted((folder / "runs").glob("*")):
                        if not store.place(run.name).exists():
                            os.replace(run, store.place(run.name))
                    if (folder / "figures").is_dir():
                        shutil.copytree(folder / "figures", store.folder / "figures", dirs_exist_ok=True)
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError) as error:
            raise DataError(f"{file} cannot be unpacked ({str(error)[:100]}); nothing was changed.") from None
    return counts


def _insert(session: Session, table: Table, rows: Iterator[dict[str, Any]]) -> None:
    while some := list(islice(rows, AT_ONCE)):
        session.execute(insert(table), some)
    if "id" not in table.c or table.c.id.autoincrement is not True:
        return
    for_ever = table.dialect_options["sqlite"]["autoincrement"]  # whose numbers are never given again
    last = f"COALESCE(MAX(id), 0) + {GAP if for_ever else 0}"
    if session.get_bind().dialect.name == "postgresql":
        sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
        session.execute(text(f"SELECT setval({sequence}, GREATEST({last}, 1)) FROM {table.name}"))
    elif for_ever:
        session.execute(text(f"DELETE FROM sqlite_sequence WHERE name = '{table.name}'"))
        session.execute(text(f"INSERT INTO sqlite_sequence (name, seq) SELECT '{table.name}', {last} FROM {table.name}"))


def _members(archive: zipfile.ZipFile, file: Path, room: int) -> list[zipfile.ZipInfo]:
    """What the archive holds, after a look at names and sizes: nothing is unpacked yet."""
    members = archive.infolist()
    if len({member.filename for member in members}) < len(members):
        raise DataError(f"{file} is damaged: it holds two files of one name.")
    for member in members:
        _check_name(member.filename, file)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
            raise DataError(f"{file}: {member.filename!r} is packed in another way than backups are.")
    size, packed = (sum(getattr(member, name) for member in members) for name in ("file_size", "compress_size"))
    if size > min(LARGEST, room):
        raise DataError(f"{file} unpacks to {size / MIB:.0f} MiB; {min(LARGEST, room) / MIB:.0f} MiB are allowed or free here.")
    if size > SMALL and size > MOST_PACKED * packed:
        raise DataError(f"{file} unpacks to {size / MIB:.0f} MiB from {packed / MIB:.1f}, as no backup does.")
    return members


def _check_name(name: str, file: Path) -> None:
    """Raises `DataError` for a file that no backup holds, and for one that would be written elsewhere."""
    kind, *parts = name.rstrip("/").split("/")
    depths = {"manifest.json": (0,), "tables": (0, 1), "runs": (0, 1, 2), "figures": (0, 1, 2, 3, 4)}
    if len(parts) not in depths.get(kind, ()) or not all(PLAIN.fullmatch(part) for part in parts):
        raise DataError(f"{file} holds {name[:80]!r}, which no backup holds.")
    if kind == "runs" and parts and not RUN_ID.fullmatch(parts[0]):
        raise DataError(f"{file} holds files of {parts[0][:80]!r}, which is no run.")


def _checked(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], file: Path) -> tuple[dict[str, int], set[str]]:
    """How many rows of each table there are, and the runs among them, after a look at all of them."""
    try:
        manifest = parsed(_content(archive, "manifest.json", MIB))
        kind, schema, rows = manifest["kind"], manifest["schema"], manifest["rows"]
    except (KeyError, TypeError, DataError):
        raise DataError(f"{file} is no backup of Broadsheet: it has no manifest.") from None
    if kind != KIND:
        raise DataError(f"{file} is no backup of Broadsheet.")
    if schema not in (SCHEMA, *OLDER):
        raise DataError(
            f"{file} has schema {str(schema)[:20]}, this Broadsheet {SCHEMA}: restore it with the version that made it."
        )
    if not isinstance(rows, dict) or not all(type(count) is int for count in rows.values()):
        raise DataError(f"{file} is damaged: its manifest does not count the rows.")
    runs: set[str] = set()
    lengths: dict[str, int] = {}
    for table in _tables():
        found = 0
        for where, row in _rows(archive, members, table, file):
            found += 1
            if table.name == "runs":
                runs.add(row["id"])
            if table.name == "vectors" and lengths.setdefault(row["model"], len(row["value"])) != len(row["value"]):
                raise DataError(f"{file} is damaged: {where} has another length than those of the same model.")
        if found != rows.get(table.name, 0):
            raise DataError(f"{file} is damaged: {found} of {rows.get(table.name, 0)} rows of {table.name} are there.")
    return {table.name: rows.get(table.name, 0) for table in _tables()}, runs


def _rows(
    archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], table: Table, file: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a table, with the words that say where it stands."""
    name = f"tables/{table.name}.jsonl"
    if name not in {member.filename for member in members}:
        return
    with archive.open(name) as stream:
        for k, line in enumerate(iter(lambda: stream.readline(LONGEST_ROW + 1), b""), 1):
            where = f"row {k} of {table.name}"
            if len(line) > LONGEST_ROW:
                raise DataError(f"{file} is damaged: {where} has more than {LONGEST_ROW // MIB} MiB.")
            try:
                yield where, checked(table, parsed(line))
            except DataError as error:
                raise DataError(f"{file} is damaged: {where}: {error}.") from None


def _check_folders(folder: Path, runs: set[str], file: Path) -> None:
    """Raises `DataError` for files of runs that have no row, or whose record is of another run."""
    for place in sorted((folder / "runs").glob("*")):
        if place.name not in runs:
            raise DataError(f"{file} is damaged: it holds files of the run {place.name}, but not its row.")
        if (place / RECORD_FILE).exists():
            try:
                read_record(place, place.name)
            except StoreError as error:
                raise DataError(f"{file} is damaged: {str(error).replace(str(place), f'the run {place.name}')}") from None


def _content(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    with archive.open(name) as stream:
        return stream.read(most)


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path) -> None:
    """One file of the archive, as a plain file, whatever the archive says that it is."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as stream, place.open("xb") as out:
        shutil.copyfileobj(stream, out, MIB)


def _tables() -> list[Table]:
    """The tables that are kept, those first that others point to."""
    return [table for table in Base.metadata.sorted_tables if table.name not in LEFT_OUT]


def _to_json(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    for column in table.columns:
        value = row[column.name]
        if isinstance(value, datetime):
            row[column.name] = value.isoformat()
        elif isinstance(value, bytes):
            row[column.name] = base64.b64encode(value).decode()
    return row
