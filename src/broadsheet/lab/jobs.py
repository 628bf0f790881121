"""The queue of jobs and what they say while they run, in the store, so that every process sees the same.

A job is `queued`, `running`, then `done`, `failed`, `cancelled` or `lost`. Jobs of the queue belong to the runner
(`broadsheet.lab.runner`); those of a command belong to its process and are `lost` where that was killed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import case, delete, func, select, update

from broadsheet.errors import DataError, InputError, NotFoundError, StoreError
from broadsheet.lab.messages import Ended, JobSpec, News, read
from broadsheet.lab.store import Store, alive
from broadsheet.lab.tables import Event, Job

QUEUE = "queue"
"""Owner of the jobs that the runner takes."""

OVER = ("done", "failed", "cancelled", "lost")
NEVER_MORE_THAN = 2_000
"""Jobs that may wait at once."""


class Jobs:
    """Jobs of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def start(self, spec: JobSpec) -> int:
        """A job that this process runs itself."""
        return self._add(spec, "running", _me(), 0.0)

    def queue(self, spec: JobSpec, priority: float = 0.0) -> int:
        """A job for the runner. The same job again, while it waits or runs, is that job."""
        with self.store.session() as session:
            waiting = session.scalars(select(Job).where(Job.state.in_(("queued", "running")), Job.owner == QUEUE)).all()
            for job in waiting:
                if job.spec == spec:
                    return job.id
            if len(waiting) >= NEVER_MORE_THAN:
                raise InputError(f"{len(waiting)} jobs wait already; cancel some first.")
        return self._add(spec, "queued", QUEUE, priority)

    def _add(self, spec: JobSpec, state: str, owner: str, priority: float) -> int:
        now = datetime.now(UTC)
        with self.store.session() as session:
            job = Job(row=spec.to_json(), state=state, created=now, updated=now, message="", owner=owner, priority=priority)
            session.add(job)
            session.flush()
            return job.id

    def claim(self) -> Job | None:
        """Takes the next waiting job, by priority, then age; None where none waits."""
        with self.store.session() as session:
            best = select(Job.id).where(Job.state == "queued").order_by(Job.priority.desc(), Job.id).limit(1).scalar_subquery()
            taken = session.scalars(
                update(Job)
                .where(Job.id == best, Job.state == "queued")
                .values(state="running", updated=datetime.now(UTC))
                .returning(Job)
            ).one_or_none()
            session.expunge_all()
            return taken

    def end(self, job_id: int, state: str, message: str = "") -> None:
        """A job is over: its last event stays, its progress goes."""
        with self.store.session() as session:
            session.execute(
                update(Job).where(Job.id == job_id).values(state=state, message=message[:4000], updated=datetime.now(UTC))
            )
            session.execute(delete(Event).where(Event.job_id == job_id, Event.kind == "progress"))
            session.add(_event(job_id, Ended(state, message[:4000])))

    def cancel(self, job_id: int) -> str:
        """Cancels a job of the queue, waiting or running; its state is `cancelling` until the runner has seen it."""
        with self.store.session() as session:
            waiting = session.execute(
                update(Job).where(Job.id == job_id, Job.state == "queued").values(state="cancelled", updated=datetime.now(UTC))
            )
            if waiting.rowcount == 0:  # type: ignore[attr-defined]
                session.execute(
                    update(Job)
                    .where(Job.id == job_id, Job.state == "running", Job.owner == QUEUE)
                    .values(state="cancelling", updated=datetime.now(UTC))
                )
            else:
                session.add(_event(job_id, Ended("cancelled")))
            state = session.scalars(select(Job.state).where(Job.id == job_id)).one_or_none()
        if state is None:
            raise NotFoundError(f"There is no job {job_id}.")
        if state == "running":
            raise InputError(f"Job {job_id} belongs to a command that runs elsewhere; stop it there.")
        return state

    def cancelling(self) -> list[int]:
        """Running jobs that are to be stopped."""
        with self.store.session() as session:
            return list(session.scalars(select(Job.id).where(Job.state == "cancelling")))

    def requeue(self) -> int:
        """Puts back what a killed runner had taken; to be called by a runner that knows that it is alone."""
        with self.store.session() as session:
            session.execute(update(Job).where(Job.state == "cancelling", Job.owner == QUEUE).values(state="cancelled"))
            back = session.execute(
                update(Job).where(Job.state == "running", Job.owner == QUEUE).values(state="queued", updated=datetime.now(UTC))
            )
            return back.rowcount  # type: ignore[attr-defined]

    def tidy(self) -> int:
        """Marks jobs of commands that were killed on this machine as lost, and drops events of old jobs."""
        old = select(Job.id).where(Job.state.in_(OVER), Job.updated < datetime.now(UTC) - timedelta(days=1))
        with self.store.session() as session:
            rows = session.execute(select(Job.id, Job.owner).where(Job.state == "running", Job.owner != QUEUE)).all()
            session.execute(delete(Event).where(Event.job_id.in_(old)))
        gone = [job_id for job_id, owner in rows if not _lives(owner)]
        for job_id in gone:
            self.end(job_id, "lost", "its process was killed")
        return len(gone)

    def tell(self, job_id: int, news: News) -> None:
        """Writes an event of a job."""
        with self.store.session() as session:
            session.add(_event(job_id, news))

    def events(self, after: int, job_id: int | None = None, most: int = 2000) -> list[tuple[int, int, News]]:
        """(id, job, what it said) of events with a higher id, of one job or of all."""
        wanted = select(Event).where(Event.id > after).order_by(Event.id).limit(most)
        if job_id is not None:
            wanted = wanted.where(Event.job_id == job_id)
        with self.store.session() as session:
            rows = [(row.id, row.job_id, row.kind, row.data) for row in session.scalars(wanted)]
        try:
            return [(number, job, read(kind, data, News)) for number, job, kind, data in rows]
        except DataError as error:
            raise StoreError(f"The store holds an event that this Broadsheet cannot read: {error}") from None

    def last_event(self) -> int:
        with self.store.session() as session:
            return session.scalar(select(func.max(Event.id))) or 0

    def job(self, job_id: int) -> Job:
        """A job; raises `InputError` where there is none."""
        with self.store.session() as session:
            job = session.get(Job, job_id)
            session.expunge_all()
        if job is None:
            raise NotFoundError(f"There is no job {job_id}.")
        return job

    def recent(self, most: int = 100, slug: str | None = None, states: Sequence[str] = ()) -> list[Job]:
        """Jobs: what runs, what waits in the order in which it will run, then the newest of the others."""
        place = case((Job.state.in_(OVER), 2), (Job.state == "queued", 1), else_=0)
        queued = case((Job.state == "queued", -Job.priority), else_=0.0)
        age = case((Job.state == "queued", Job.id), else_=-Job.id)
        wanted = select(Job).order_by(place, queued, age)
        if states:
            wanted = wanted.where(Job.state.in_(states))
        if slug is not None:
            wanted = wanted.where(Job.row["slug"].as_string() == slug)
        with self.store.session() as session:
            found = list(session.scalars(wanted.limit(most)))
            session.expunge_all()
        return found


def _event(job_id: int, news: News) -> Event:
    return Event(job_id=job_id, kind=news.kind, data=news.to_json())


def _me() -> str:
    return f"{socket.gethostname()[:80]}:{os.getpid()}"


def _lives(owner: str) -> bool:
    """Whether the process of an owner lives; one on another machine, or of an old store, is believed."""
    host, _, pid = owner.rpartition(":")
    return not owner or host != socket.gethostname()[:80] or (pid.isdigit() and alive(int(pid)))
