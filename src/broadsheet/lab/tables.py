"""The store's tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from broadsheet.lab.messages import JobSpec


class Moment(TypeDecorator[datetime]):
    """A time with its zone. SQLite forgets the zone; all our times are in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Base(DeclarativeBase):
    """All tables of the store."""


class Run(Base):
    """One finished run: one experiment, variant and seed. Its arrays lie in `runs/<id>/arrays.npz`."""

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    slug: Mapped[str] = mapped_column(String(120), index=True)
    experiment: Mapped[str] = mapped_column(String(120))
    preset: Mapped[str] = mapped_column(String(40))
    variant: Mapped[str] = mapped_column(String(120))
    seed: Mapped[int] = mapped_column(Integer)
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    scalars: Mapped[dict[str, Any]] = mapped_column(JSON)
    code_hash: Mapped[str] = mapped_column(String(64))
    precision: Mapped[str] = mapped_column(String(20))
    device: Mapped[str] = mapped_column(String(20))
    environment: Mapped[dict[str, Any]] = mapped_column(JSON)
    finished: Mapped[datetime] = mapped_column(Moment)
    seconds: Mapped[float] = mapped_column(Float)
    peak_mib: Mapped[float] = mapped_column(Float)
    arrays_bytes: Mapped[int] = mapped_column(Integer)


class Job(Base):
    """One job: an experiment at a preset, its state and how far it is."""

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    row: Mapped[dict[str, Any]] = mapped_column("spec", JSON)
    state: Mapped[str] = mapped_column(String(20), index=True)
    created: Mapped[datetime] = mapped_column(Moment)
    updated: Mapped[datetime] = mapped_column(Moment)
    message: Mapped[str] = mapped_column(Text, default="")
    priority: Mapped[float] = mapped_column(Float, default=0.0)
    owner: Mapped[str] = mapped_column(String(120), default="")

    @property
    def spec(self) -> JobSpec:
        """What is asked; raises `DataError` where the row does not say it."""
        return JobSpec.from_json(self.row)


class Event(Base):
    """What a job said while it ran, in order; progress is dropped when the job has ended."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    kind: Mapped[str] = mapped_column(String(20))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)


class Verification(Base):
    """The verdicts of one `verify` of one paper, as a ledger entry."""

    __tablename__ = "verifications"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    slug: Mapped[str] = mapped_column(String(120), index=True)
    made: Mapped[datetime] = mapped_column(Moment)
    entry: Mapped[dict[str, Any]] = mapped_column(JSON)


class Listed(Base):
    """A paper of the catalogue: one for each arXiv id, else for each normalised title."""

    __tablename__ = "papers"

    slug: Mapped[str] = mapped_column(String(120), primary_key=True)
    arxiv: Mapped[str | None] = mapped_column(String(40), unique=True)
    title: Mapped[str] = mapped_column(Text)
    title_key: Mapped[str] = mapped_column(String(400), index=True)


class Sighting(Base):
    """What one source says of a paper: the day it first listed it, and what it said last (`as_of`)."""

    __tablename__ = "sightings"
    __table_args__ = (UniqueConstraint("slug", "source"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    slug: Mapped[str] = mapped_column(ForeignKey("papers.slug"), index=True)
    source: Mapped[str] = mapped_column(String(40))
    as_of: Mapped[str] = mapped_column(String(10))
    first: Mapped[str] = mapped_column(String(10))
    revision: Mapped[int] = mapped_column(Integer, index=True)
    facts: Mapped[dict[str, Any]] = mapped_column(JSON)


class Vector(Base):
    """The embeddings of a paper's passages by one model, one behind the other: half-precision numbers, each of length 1."""

    __tablename__ = "vectors"

    slug: Mapped[str] = mapped_column(ForeignKey("papers.slug"), primary_key=True)
    model: Mapped[str] = mapped_column(String(200), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    value: Mapped[bytes] = mapped_column(LargeBinary)


class Revision(Base):
    """A counter that a transaction raises when it changes papers, runs or vectors, so that readers see that there is news."""

    __tablename__ = "revisions"

    name: Mapped[str] = mapped_column(String(20), primary_key=True)
    number: Mapped[int] = mapped_column(Integer)
