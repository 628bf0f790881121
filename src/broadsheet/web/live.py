"""What happens now: one task a web worker watches the store, keeps the edition fresh and hands events to readers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

from broadsheet.errors import StoreError
from broadsheet.lab.jobs import Jobs
from broadsheet.lab.messages import JobSpec, News
from broadsheet.page.edition import Edition

logger = logging.getLogger("broadsheet.site")

PAUSE = 0.4
"""Seconds between looks at the store."""

OVERLAP = 64
"""Event numbers that are read again, because transactions need not commit in the order of their numbers."""

MOST_READERS = 500


class Live:
    """Watches one store. `trouble` says what is wrong with it, empty while all is well."""

    def __init__(self, edition: Edition) -> None:
        self.edition = edition
        self.jobs = Jobs(edition.store)
        self.trouble = ""
        self._readers: set[asyncio.Queue[dict[str, Any]]] = set()
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._last: int | None = None  # the last event that was read; none before the first look
        self._specs: dict[int, JobSpec] = {}

    async def run(self) -> None:
        """Looks again and again until it is cancelled."""
        while True:
            await asyncio.sleep(PAUSE if not self.trouble else 2.0)
            await self.look()

    async def look(self) -> None:
        """Brings the edition up to date and hands out what is new; a store that is away is `trouble` and no error."""
        try:
            await asyncio.to_thread(self.edition.refresh)
            for event in await asyncio.to_thread(self._news):
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
            return news
        for number, job_id, said in self.jobs.events(self._last - OVERLAP):
            if number in self._seen:
                continue
            self._seen[number] = None
            self._last = max(self._last, number)
            news.append(self._event(job_id, said))
        while len(self._seen) > 4 * OVERLAP + 4000:
            self._seen.popitem(last=False)
        return news

    def _event(self, job_id: int, said: News) -> dict[str, Any]:
        if job_id not in self._specs:
            if len(self._specs) > 2000:
                self._specs.clear()
            self._specs[job_id] = self.jobs.job(job_id).spec
        spec = self._specs[job_id]
        return {"job": job_id, "slug": spec.slug, "experiment": spec.experiment, "kind": said.kind, **said.to_json()}

    def history(self, slug: str | None) -> list[dict[str, Any]]:
        """What the jobs that run now have said so far."""
        running = self.jobs.recent(50, slug, ("running", "cancelling"))
        return [self._event(job.id, said) for job in running for _, _, said in self.jobs.events(0, job.id)]

    async def events(self, slug: str | None) -> AsyncIterator[dict[str, str]]:
        """Server-sent events of one paper's jobs or of all: what is so far, then news."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=2000)
        if len(self._readers) >= MOST_READERS:
            yield {"event": "full", "data": "{}", "retry": "30000"}
            return
        self._readers.add(queue)
        try:
            with contextlib.suppress(StoreError):
                for event in await asyncio.to_thread(self.history, slug):
                    yield _sent(event)
            while True:
                event = await queue.get()
                if event["kind"] == "gone":
                    return
                if slug is None or event["slug"] == slug:
                    yield _sent(event)
        finally:
            self._readers.discard(queue)


def _sent(event: dict[str, Any]) -> dict[str, str]:
    return {"event": "job", "data": json.dumps(event)}
