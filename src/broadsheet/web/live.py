"""What happens now: one task a web worker watches the store, keeps the edition fresh and hands events to readers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from broadsheet.errors import StoreError
from broadsheet.lab.jobs import Jobs
from broadsheet.lab.messages import JobSpec, News, Progress, Recorded, Started
from broadsheet.page.edition import Edition
from broadsheet.web.security import message_for

logger = logging.getLogger("broadsheet.site")

PAUSE = 0.4
"""Seconds between looks at the store."""

OVERLAP = 64
"""Event numbers that are read again, because transactions need not commit in the order of their numbers."""

MOST_READERS = 500
MOST_SHOWN = 50
"""Jobs that are known to run or to wait at the most."""

LATER = 30_000
"""Milliseconds after which a reader too many is to come back."""


@dataclass(frozen=True)
class Active:
    """A job that runs or waits; `percent` is how much of a running one is done."""

    number: int
    slug: str
    experiment: str
    state: str
    percent: int
    repository: bool


class Live:
    """Watches one store. `trouble` says what is wrong with it, empty while all is well; `active` are the jobs of now."""

    def __init__(self, edition: Edition) -> None:
        self.edition = edition
        self.jobs = Jobs(edition.store)
        self.trouble = ""
        self.active: tuple[Active, ...] = ()
        self._shares: dict[int, tuple[int, int, float]] = {}  # runs that are done, of how many, and how much of the next
        self._readers: set[asyncio.Queue[dict[str, Any]]] = set()
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._last: int | None = None  # the last event that was read; none before the first look
        self._specs: dict[int, JobSpec] = {}
        self._looking = asyncio.Lock()

    async def run(self) -> None:
        """Looks again and again until it is cancelled."""
        while True:
            await asyncio.sleep(PAUSE if not self.trouble else 2.0)
            await self.look()

    async def look(self) -> None:
        """Brings the edition up to date and hands out what is new; a store that is away is `trouble` and no error."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        try:
            await asyncio.to_thread(self.edition.refresh)
            for event in await asyncio.to_thread(self._news):  # handed out here: queues belong to this loop
                for queue in list(self._readers):
                    if queue.full():
                        self._readers.discard(queue)  # it reads too slowly; its browser connects again
                        queue.get_nowait()
                        queue.put_nowait({"kind": "gone"})
                    else:
                        queue.put_nowait(event)
            self.trouble = ""
        except StoreError as error:
            if not self.trouble:
                logger.error("store failed", extra={"error": str(error)})
            self.trouble = str(error)

    def _news(self) -> list[dict[str, Any]]:
        news: list[dict[str, Any]] = []
        if self._last is None:  # the first look: what comes from now on is news
            last = self.jobs.last_event()
            self._seen.update(dict.fromkeys(number for number, *_ in self.jobs.events(last - OVERLAP)))
            self._last = last
            self._see_active()
            return news
        for number, job_id, said in self.jobs.events(self._last - OVERLAP):
            if number in self._seen:
                continue
            self._seen[number] = None
            self._last = max(self._last, number)
            self._follow(job_id, said)
            news.append(self._event(job_id, said, number))
        news += self._see_active()
        while len(self._seen) > 4 * OVERLAP + 4000:
            self._seen.popitem(last=False)
        return news

    def _see_active(self) -> list[dict[str, Any]]:
        """Brings `active` up to date; returns an event for each job that waits and did not before."""
        known = {job.number for job in self.active}
        active, news = [], []
        for job in self.jobs.recent(MOST_SHOWN, states=("running", "cancelling", "queued")):
            if job.state != "queued" and job.id not in self._shares:
                self._shares[job.id] = (0, 1, 0.0)
                for _, _, said in self.jobs.events(0, job.id):
                    self._follow(job.id, said)
            done, of, share = self._shares.get(job.id, (0, 1, 0.0))
            spec, percent = job.spec, int(100 * min(1.0, (done + share) / max(1, of)))
            active.append(Active(job.id, spec.slug, spec.experiment, job.state, percent, spec.repository))
            if job.state == "queued" and job.id not in known:
                news.append(_waits(active[-1]))
        self.active = tuple(active)
        self._shares = {number: share for number, share in self._shares.items() if number in {job.number for job in active}}
        return news

    def _follow(self, job_id: int, said: News) -> None:
        """Keeps how far a job is."""
        done, of, _ = self._shares.get(job_id, (0, 1, 0.0))
        if isinstance(said, Started):
            self._shares[job_id] = (said.done, said.of, 0.0)
        elif isinstance(said, Recorded):
            self._shares[job_id] = (said.done, of, 0.0)
        elif isinstance(said, Progress):
            self._shares[job_id] = (done, of, said.fraction)

    def active_of(self, slug: str) -> tuple[Active, ...]:
        """The jobs of a paper that run or wait."""
        return tuple(job for job in self.active if job.slug == slug and not job.repository)

    def _event(self, job_id: int, said: News, number: int) -> dict[str, Any]:
        if job_id not in self._specs:
            if len(self._specs) > 2000:
                self._specs.clear()
            self._specs[job_id] = self.jobs.job(job_id).spec
        spec = self._specs[job_id]
        whose = {"job": job_id, "slug": spec.slug, "experiment": spec.experiment, "repository": spec.repository}
        return {**whose, "number": number, "kind": said.kind, **said.to_json()}

    def history(self, slug: str | None) -> list[dict[str, Any]]:
        """What the jobs that run now have said so far, and which wait."""
        jobs = self.jobs.recent(MOST_SHOWN, slug, ("running", "cancelling"))
        found = [self._event(job.id, said, number) for job in jobs for number, _, said in self.jobs.events(0, job.id)]
        return found + [_waits(job) for job in self.active if job.state == "queued"]

    async def events(self, slug: str | None, administrator: bool = False) -> AsyncIterator[dict[str, Any]]:
        """Server-sent events of one paper's jobs or of all: what is so far, then news.

        A reader too many is told to come back later.
        """
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=2000)
        if len(self._readers) >= MOST_READERS:
            yield {"event": "full", "data": "{}", "retry": LATER}
            return
        self._readers.add(queue)
        told: set[int] = set()
        try:
            with contextlib.suppress(StoreError):
                for event in await asyncio.to_thread(self.history, slug):
                    told.add(event["number"])
                    if _of(event, slug):
                        yield _sent(event, administrator)
            while True:
                event = await queue.get()
                if event["kind"] == "gone":
                    return
                if _of(event, slug) and event["number"] not in told:
                    yield _sent(event, administrator)
        finally:
            self._readers.discard(queue)


def _of(event: dict[str, Any], slug: str | None) -> bool:
    """Whether an event is for readers of a paper; a repository that bears the paper's name is not the paper."""
    return slug is None or (event["slug"] == slug and not event["repository"])


def _waits(job: Active) -> dict[str, Any]:
    whose = {"job": job.number, "slug": job.slug, "experiment": job.experiment, "repository": job.repository}
    return {**whose, "number": -job.number, "kind": "queued"}


def _sent(event: dict[str, Any], administrator: bool) -> dict[str, str]:
    if event["kind"] == "end":
        event = {**event, "message": message_for(administrator, event["state"], event["message"])}
    return {"event": "job", "data": json.dumps(event)}
