"""The queue of jobs and what they say while they run, in the store, so that every process sees the same.

A job is `queued`, `running`, then `done`, `failed`, `cancelled` or `lost`. Jobs of the queue belong to the runner that took
them (`broadsheet.lab.runner`), and wait again where it was killed; those of a command belong to its process, and are `lost`
where that was killed. Whoever tidies sees it by the process's name (`broadsheet.lab.presence`) or, where the process worked on
another home, by the sign of life that each gives of its jobs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.orm import Session

from broadsheet.errors import DataError, InputError, NotFoundError, StoreError
from broadsheet.lab import presence
from broadsheet.lab.messages import Ended, JobSpec, News, read
from broadsheet.lab.store import Store
from broadsheet.lab.tables import Event, Job

QUEUE = "queue"
"""Owner of the jobs that wait for a runner; of one that a runner has taken: this, a colon, and the runner's name."""

BEAT = 30.0  # s
LEASE = timedelta(minutes=10)
"""How often a process says of its jobs that it lives, and after what silence those of another home are given up."""

unended: set[Path] = set()
"""Homes of which this process could not write that its jobs have ended, as where the disk was full."""

OVER = ("done", "failed", "cancelled", "lost")
UNDER_WAY = ("running", "cancelling")
OF_THE_QUEUE = Job.owner.startswith(QUEUE)
NEVER_MORE_THAN = 2_000
"""Jobs that may wait at once."""


class Jobs:
    """Jobs of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def start(self, spec: JobSpec) -> int:
        """A job that this process runs itself."""
        return self._add(spec, "running", self._process, 0.0)

    def queue(self, spec: JobSpec, priority: float = 0.0) -> int:
        """A job for the runner. The same job again, while it waits or runs, is that job."""
        with self.store.session() as session:
            waiting = session.scalars(select(Job).where(Job.state.in_(("queued", "running")), OF_THE_QUEUE)).all()
            for job in waiting:
                if job.spec == spec:
                    return job.id
            if len(waiting) >= NEVER_MORE_THAN:
                raise InputError(f"{len(waiting)} jobs wait already; cancel some first.")
        return self._add(spec, "queued", QUEUE, priority)

    def _add(self, spec: JobSpec, state: str, owner: str, priority: float) -> int:
        with self.store.session() as session:
            now = _now(session)
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
                .values(state="running", owner=self._runner, updated=_now(session))
                .returning(Job)
            ).one_or_none()
            session.expunge_all()
            return taken

    def end(self, job_id: int, state: str, message: str = "") -> None:
        """A job is over: its last event stays, its progress goes."""
        with self.store.session() as session:
            session.execute(
                update(Job).where(Job.id == job_id).values(state=state, message=message[:4000], updated=_now(session))
            )
            session.execute(delete(Event).where(Event.job_id == job_id, Event.kind == "progress"))
            session.add(_event(job_id, Ended(state, message[:4000])))

    def cancel(self, job_id: int) -> str:
        """Cancels a job of the queue, waiting or running; its state is `cancelling` until the runner has seen it."""
        with self.store.session() as session:
            waiting = session.execute(
                update(Job).where(Job.id == job_id, Job.state == "queued").values(state="cancelled", updated=_now(session))
            )
            if waiting.rowcount == 0:  # type: ignore[attr-defined]
                session.execute(
                    update(Job)
                    .where(Job.id == job_id, Job.state == "running", OF_THE_QUEUE)
                    .values(state="cancelling", updated=_now(session))
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
        """Running jobs of this runner that are to be stopped."""
        with self.store.session() as session:
            return list(session.scalars(select(Job.id).where(Job.state == "cancelling", Job.owner == self._runner)))

    def requeue(self) -> int:
        """Puts back what this runner had taken and does not run any more."""
        with self.store.session() as session:
            taken = select(Job.id, Job.state, Job.owner).where(Job.state.in_(UNDER_WAY), Job.owner == self._runner)
            return sum(_let_go(session, *row) for row in session.execute(taken).all())

    def beat(self) -> None:
        """Says of this process's jobs that it lives."""
        mine = Job.owner.in_((self._process, self._runner))
        with self.store.session() as session:
            session.execute(update(Job).where(Job.state.in_(UNDER_WAY), mine).values(updated=_now(session)))

    def stop_mine(self, message: str) -> None:
        """Cancels the jobs that this process runs itself."""
        with self.store.session() as session:
            left = session.scalars(select(Job.id).where(Job.state == "running", Job.owner == self._process)).all()
        for job_id in left:
            self.end(job_id, "cancelled", message)

    def tidy(self) -> int:
        """Lets go of jobs whose process is gone, or is this one and could not end them; drops events of old jobs.

        **Returns:** how many jobs it let go of.
        """
        home = self.store.folder
        gone = presence.gone(home)
        there = presence.known(home) - gone
        idle = presence.own(home) if home in unended else set()
        with self.store.session() as session:
            now = _now(session)
            rows = session.execute(select(Job.id, Job.state, Job.owner, Job.updated).where(Job.state.in_(UNDER_WAY))).all()
            let_go = 0
            for job_id, state, owner, updated in rows:
                name = owner.rpartition(":")[2]
                if name in idle:
                    let_go += _let_go(session, job_id, state, owner, "its end could not be recorded")
                elif name in gone or (name not in there and updated < now - LEASE):
                    let_go += _let_go(session, job_id, state, owner)
            old = select(Job.id).where(Job.state.in_(OVER), Job.updated < now - timedelta(days=1))
            session.execute(delete(Event).where(Event.job_id.in_(old)))
        unended.discard(home)
        presence.forget(home, gone)
        return let_go

    @property
    def _process(self) -> str:
        return f"process:{socket.gethostname()[:60]}:{os.getpid()}:{presence.mine(self.store.folder)}"

    @property
    def _runner(self) -> str:
        return f"{QUEUE}:{presence.mine(self.store.folder)}"

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


def _let_go(session: Session, job_id: int, state: str, owner: str, why: str = "its process was killed") -> int:
    """A job whose process does not run it any more: one of the queue waits again, one of a command is lost."""
    if state == "cancelling":
        after = "cancelled"
    else:
        after = "queued" if owner.startswith(QUEUE) else "lost"
    message = why if after == "lost" else ""
    changed = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state == state, Job.owner == owner)
        .values(state=after, owner=QUEUE if after == "queued" else owner, message=message, updated=_now(session))
    )
    if changed.rowcount and after != "queued":  # type: ignore[attr-defined]
        session.execute(delete(Event).where(Event.job_id == job_id, Event.kind == "progress"))
        session.add(_event(job_id, Ended(after, message)))
    return changed.rowcount  # type: ignore[attr-defined]


def _now(session: Session) -> datetime:
    """The time by the database's clock, which all machines share."""
    now = session.scalars(select(func.now())).one()
    return now if now.tzinfo else now.replace(tzinfo=UTC)


def tidy(store: Store) -> int:
    """What each command does first: takes in what killed processes left, finished runs, scratch folders and jobs.

    **Returns:** how many runs were taken in.
    """
    adopted = store.tidy()
    Jobs(store).tidy()
    return adopted
