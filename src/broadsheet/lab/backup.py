"""A store as one archive, and back: for backups, and to move between SQLite and PostgreSQL.

The archive is a zip file: `manifest.json`, the tables as JSON lines under `tables/`, the files of runs under `runs/`, drawn
figures under `figures/`. It is read in one transaction, so that it shows one moment even while the site goes on.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import LargeBinary, Table, func, insert, select, text

from broadsheet.cache import writing
from broadsheet.errors import DataError, InputError
from broadsheet.files import existing, unpack
from broadsheet.lab.store import SCHEMA, Store
from broadsheet.lab.tables import Base, Moment

KIND = "broadsheet backup"
LARGEST = 1 << 40
LEFT_OUT = ("events", "revisions")
"""Tables that say what happens now."""


def backup(store: Store, file: Path) -> dict[str, int]:
    """Writes the archive and returns how many rows of each table it holds. The file appears when it is whole."""
    if file.exists():
        raise InputError(f"{file} is there already; nothing was changed.")
    counts: dict[str, int] = {}
    with writing(file) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        runs = _write_tables(store, archive, counts)
        for run in runs:
            _write_folder(archive, store.runs / run, f"runs/{run}")
        _write_folder(archive, store.folder / "figures", "figures")
        made = datetime.now(UTC).isoformat(timespec="seconds")
        archive.writestr("manifest.json", json.dumps({"kind": KIND, "schema": SCHEMA, "made": made, "rows": counts}, indent=1))
    return counts


def _write_tables(store: Store, archive: zipfile.ZipFile, counts: dict[str, int]) -> list[str]:
    """Writes all rows as of one moment; returns the identities of the runs."""
    level = "REPEATABLE READ" if store.engine.dialect.name == "postgresql" else "SERIALIZABLE"
    runs: list[str] = []
    with store.guarded(), store.engine.connect().execution_options(isolation_level=level) as connection:
        if store.engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        for table in _tables():
            counts[table.name] = 0
            with archive.open(f"tables/{table.name}.jsonl", "w") as stream:
                for row in connection.execute(select(table)).mappings():
                    stream.write((json.dumps(_to_json(table, dict(row)), ensure_ascii=False) + "\n").encode())
                    counts[table.name] += 1
                    if table.name == "runs":
                        runs.append(row["id"])
    return runs


def _write_folder(archive: zipfile.ZipFile, folder: Path, name: str) -> None:
    if folder.is_dir():
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{name}/{path.relative_to(folder)}")


def restore(store: Store, file: Path) -> dict[str, int]:
    """Fills an empty store from an archive, in one transaction; returns how many rows of each table.

    **Raises:** `InputError` where the store holds anything, `DataError` where the archive is none of ours or damaged.
    """
    with store.session() as session:
        held = {table.name: session.scalar(select(func.count()).select_from(table)) for table in _tables()}
    if any(held.values()):
        full = ", ".join(f"{count} {name}" for name, count in held.items() if count)
        raise InputError(f"The store is not empty ({full}); restore into a new BROADSHEET_HOME or database.")
    with tempfile.TemporaryDirectory(dir=store.folder, prefix=".restoring-") as name:
        if not zipfile.is_zipfile(existing(file)):
            raise DataError(f"{file} is no backup of Broadsheet: it is no zip file.")
        folder = unpack(file, Path(name), LARGEST)
        counts = _check(folder, file)
        for run in sorted((folder / "runs").glob("*")):
            if not (store.runs / run.name).exists():
                os.replace(run, store.runs / run.name)
        if (folder / "figures").is_dir():
            shutil.copytree(folder / "figures", store.folder / "figures", dirs_exist_ok=True)
        with store.session() as session:
            for table in _tables():
                rows = [_from_json(table, row) for row in _rows(folder, table, file)]
                for start in range(0, len(rows), 500):
                    session.execute(insert(table), rows[start : start + 500])
                if store.engine.dialect.name == "postgresql" and "id" in table.c and table.c.id.autoincrement is True:
                    newest = (
                        f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), COALESCE(MAX(id), 1)) FROM {table.name}"
                    )
                    session.execute(text(newest))
            session.execute(text("UPDATE revisions SET number = number + 1"))
    return counts


def _check(folder: Path, file: Path) -> dict[str, int]:
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        kind, schema, rows = manifest["kind"], manifest["schema"], manifest["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{file} is no backup of Broadsheet: it has no manifest.") from None
    if kind != KIND:
        raise DataError(f"{file} is no backup of Broadsheet.")
    if schema != SCHEMA:
        raise DataError(f"{file} has schema {schema}, this Broadsheet {SCHEMA}: restore it with the version that made it.")
    for table in _tables():
        found = sum(1 for _ in _rows(folder, table, file))
        if found != rows.get(table.name, 0):
            raise DataError(f"{file} is damaged: {found} of {rows.get(table.name)} rows of {table.name} are there.")
    return rows


def _rows(folder: Path, table: Table, file: Path) -> Iterator[dict[str, Any]]:
    path = folder / "tables" / f"{table.name}.jsonl"
    if not path.exists():
        return
    with path.open() as stream:
        for line in stream:
            try:
                yield json.loads(line)
            except ValueError:
                raise DataError(f"{file} is damaged: a row of {table.name} is not JSON.") from None


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


def _from_json(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    for column in table.columns:
        value = row.get(column.name)
        if isinstance(column.type, Moment) and value is not None:
            row[column.name] = datetime.fromisoformat(value)
        elif isinstance(column.type, LargeBinary) and value is not None:
            row[column.name] = base64.b64decode(value)
    return row
