"""The store: finished runs, verifications, jobs and the catalogue, in SQLite or in any PostgreSQL database.

A run is recorded whole: its folder is renamed into place, then its row is written in one transaction. A folder without a
row (a process killed in between) is adopted the next time the store is opened.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from sqlalchemy import URL, Engine, Table, Text, create_engine, event, select, text, type_coerce, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from broadsheet.cache import home, locked
from broadsheet.errors import DataError, InputError, StoreError
from broadsheet.files import MIB, load_arrays, read_bytes
from broadsheet.lab import presence
from broadsheet.lab.location import FILE, database_url, leads_out, writable
from broadsheet.lab.metrics import from_json
from broadsheet.lab.paper import Report
from broadsheet.lab.rows import RUN_ID, checked, parsed
from broadsheet.lab.tables import Revision, Run, Verification

SCHEMA = "0003"
RECORD_FILE = "run.json"
ARRAYS_FILE = "arrays.npz"
LARGEST_RECORD = 64 * MIB

logger = logging.getLogger("broadsheet.store")


class Store:
    """The store of one home folder; open it once a process. Only the coordinator writes.

    A home that cannot be written to can be read: what is stored is listed and shown.
    """

    def __init__(self, folder: Path | None = None, url: str | None = None, *, migrate: bool = True) -> None:
        self.folder = folder or home()
        self.runs = self.folder / "runs"
        url = url or database_url()
        if self.folder.is_dir() and not writable(self.folder):
            self.engine = _engine(url) if url else _reading_engine(self.folder / FILE)
        else:
            try:
                self.runs.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"{self.folder} cannot be the home folder ({error.strerror or error}).") from None
            self.engine = _engine(url or URL.create("sqlite", database=str(self.folder / FILE)))
        if migrate:
            with self.guarded():
                self._migrate()

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Turns the database library's errors into `StoreError`."""
        try:
            yield
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise StoreError(f"The store ({self.engine.url.render_as_string()}) failed: {reason}") from error
        except json.JSONDecodeError as error:
            raise StoreError(
                f"The store ({self.engine.url.render_as_string()}) holds a row that is not JSON ({error})."
            ) from error

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: all of it is written, or nothing."""
        with self.guarded(), Session(self.engine) as session, session.begin():
            yield session

    def _migrate(self) -> None:
        found = self.schema()
        if found == SCHEMA:
            return
        if found is not None and found > SCHEMA:
            raise StoreError(
                f"The store is of a newer Broadsheet (schema {found}, this one knows {SCHEMA}): update Broadsheet."
            )
        if found is not None and self.engine.dialect.name != "sqlite":
            raise StoreError(f"The database has schema {found}, {SCHEMA} is wanted: run 'broadsheet db upgrade' once.")
        self.upgrade()

    def upgrade(self) -> None:
        """Brings the database to the present schema, in one transaction, while other processes wait."""
        if not writable(self.folder):
            raise StoreError(f"{self.folder} cannot be written to, and its store is of an older Broadsheet.")
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        with locked(self.folder / "migrate.lock"), self.guarded(), self.engine.begin() as connection:
            if self.engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(7023306)"))  # other machines wait as well
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def schema(self) -> str | None:
        """The schema that the database has; None for a new one."""
        try:
            with self.engine.connect() as connection:
                return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        except SQLAlchemyError as error:
            if "alembic_version" in str(error):
                return None
            raise

    def revisions(self) -> dict[str, int]:
        """How often papers, runs and vectors were changed."""
        with self.session() as session:
            return {row.name: row.number for row in session.scalars(select(Revision))}

    def scratch(self) -> Path:
        """A new folder on the store's disk for results that are not recorded yet, named after its owner."""
        return presence.scratch(self.folder)

    def tidy(self) -> int:
        """Adopts recorded folders that have no row and removes what killed processes left; returns how many were adopted.

        Commands call `broadsheet.lab.jobs.tidy`, which looks after their jobs too.
        """
        for left in presence.left_behind(self.folder):
            if self._take_in(left):
                shutil.rmtree(left, ignore_errors=True)
        with self.session() as session:
            known = set(session.scalars(select(Run.id)))
        adopted = 0
        for folder in self.runs.iterdir():
            if folder.name not in known and (folder / RECORD_FILE).exists():
                try:
                    row = read_record(folder, folder.name)
                except StoreError as error:
                    logger.warning("%s It stays as it is.", error)
                    continue
                self._insert(row)
                adopted += 1
        return adopted

    def _take_in(self, left: Path) -> bool:
        """Records the finished runs of a scratch folder; False where a record cannot be read, so that the folder stays."""
        whole = True
        for record in left.glob(f"*/{RECORD_FILE}"):
            try:
                self.record(record.parent)
            except StoreError as error:
                logger.warning("%s It stays as it is.", error)
                whole = False
        return whole

    def place(self, run_id: str) -> Path:
        """The folder of a run; raises `StoreError` where the id is none, which could lead anywhere."""
        if not RUN_ID.fullmatch(run_id):
            raise StoreError(f"The store holds a run whose id is {run_id[:80]!r}, which is no run's.")
        return self.runs / run_id

    def arrays(self, run: Run) -> Path | None:
        """The file of a run's arrays where it is still kept, in this home and not behind a link."""
        found = self.place(run.id) / ARRAYS_FILE
        return None if found.is_symlink() or not found.is_file() or leads_out(found, self.runs) else found

    def record(self, folder: Path) -> str:
        """Takes a finished run's folder into the store: renamed into place, then written down. Known runs stay as they are."""
        row = read_record(folder)
        place = self.place(row["id"])
        if not place.exists():
            os.replace(folder, place)
        self._insert(row)
        return row["id"]

    def _insert(self, row: dict[str, Any]) -> None:
        with self.session() as session:
            raise_revision(session, "runs")
            if session.get(Run, row["id"]) is None:
                session.add(Run(**row))

    def has(self, ids: list[str]) -> set[str]:
        """Which of these runs are recorded."""
        with self.session() as session:
            return set(session.scalars(select(Run.id).where(Run.id.in_(ids))))

    def find(self, **wanted: Any) -> list[Run]:
        """Recorded runs by column values, oldest first."""
        with self.session() as session:
            query = select(Run).filter_by(**wanted).order_by(Run.finished)
            found = list(session.scalars(query))
            session.expunge_all()
            return found

    def report(self, run: Run) -> Report:
        """A run's metrics, and its arrays where they are still kept."""
        arrays = self.arrays(run)
        scalars = from_json(run.scalars)
        kept: dict[str, Any] = load_arrays(arrays) if arrays is not None else {}
        return Report(scalars.pop("", {}), kept, scalars)

    def add_verification(self, slug: str, entry: dict[str, Any]) -> None:
        with self.session() as session:
            raise_revision(session, "runs")
            session.add(Verification(slug=slug, made=datetime.now(UTC), entry=entry))

    def verifications(self, sound: Callable[[str, Any], bool] = lambda slug, entry: True) -> dict[str, dict[str, Any]]:
        """slug -> the newest verification's ledger entry that is `sound`; others are told of, and stay."""
        with self.session() as session:
            rows = session.execute(
                select(Verification.id, Verification.slug, type_coerce(Verification.entry, Text)).order_by(
                    Verification.id.desc()
                )
            ).all()
        found: dict[str, dict[str, Any]] = {}
        for number, slug, given in rows:
            if slug in found:
                continue
            try:
                entry = parsed(given) if isinstance(given, str) else given  # PostgreSQL's driver has read it already
            except DataError:
                entry = None
            if isinstance(entry, dict) and sound(slug, entry):
                found[slug] = entry
            else:
                logger.warning("Verification %d of %s in the store cannot be read and is left out.", number, slug)
        return found

    def size(self) -> int:
        """Bytes of stored arrays."""
        files = self.runs.glob(f"*/{ARRAYS_FILE}")
        return sum(file.stat().st_size for file in files if not file.is_symlink() and not leads_out(file, self.runs))

    def free(self, budget: int, keep: set[str], dry_run: bool = False) -> tuple[int, int]:
        """Deletes arrays of runs outside `keep`, oldest first, until the rest fits in `budget` bytes; metrics stay.

        **Returns:** (number of runs whose arrays went, bytes freed).
        """
        total, freed, count = self.size(), 0, 0
        for run in self.find():
            if total - freed <= budget:
                break
            arrays = self.arrays(run)
            if run.id in keep or arrays is None:
                continue
            freed += arrays.stat().st_size
            count += 1
            if not dry_run:
                arrays.unlink()
        return count, freed


def read_record(folder: Path, run_id: str | None = None) -> dict[str, Any]:
    """The row of a finished run's folder; raises `StoreError` where its record is none, or of another run than `run_id`."""
    try:
        data = parsed(read_bytes(folder / RECORD_FILE, LARGEST_RECORD))
        columns = Run.__table__.columns.keys()
        row = checked(cast(Table, Run.__table__), {name: data[name] for name in columns if name in data})
    except (OSError, InputError, TypeError) as error:
        raise StoreError(f"{folder} holds no finished run ({error}).") from None
    if run_id not in (None, row["id"]):
        raise StoreError(f"{folder} holds the record of another run, {row['id']}.")
    return row


def raise_revision(session: Session, name: str) -> int:
    """Says in this transaction that papers, runs or vectors change; returns the new number.

    To be called first: it takes the write lock, so that transactions that change the same thing come one after the other.
    """
    raised = update(Revision).where(Revision.name == name).values(number=Revision.number + 1)
    session.execute(raised.execution_options(synchronize_session=False))  # else it looks through all the session has
    return session.scalars(select(Revision.number).where(Revision.name == name)).one()


def _engine(url: str | URL) -> Engine:
    if not str(url).startswith("sqlite"):
        try:
            return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
        except (ImportError, SQLAlchemyError) as error:
            raise StoreError(
                f"The database {str(url).split('@')[-1]} cannot be used ({error}); see the extra 'postgres'."
            ) from None
    engine = create_engine(url, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def _reading_engine(file: Path) -> Engine:
    """The database of a home that cannot be written to, where SQLite can make none of its files."""
    if not file.exists():
        raise StoreError(f"{file.parent} cannot be written to, and holds no store.")
    journal, index = (file.with_name(file.name + end) for end in ("-wal", "-shm"))
    query = {"mode": "ro", "uri": "true"}
    if not journal.exists() or not journal.stat().st_size:
        query["immutable"] = "1"
    elif not index.exists():  # what was written last is in the journal, which cannot be read in place
        copy = Path(tempfile.mkdtemp(prefix="broadsheet-"))
        weakref.finalize(engine := _engine(URL.create("sqlite", database=str(copy / file.name))), shutil.rmtree, copy, True)
        for part in (file, journal):
            shutil.copyfile(part, copy / part.name)
        return engine
    return create_engine(URL.create("sqlite", database=f"file:{quote(str(file))}", query=query))
