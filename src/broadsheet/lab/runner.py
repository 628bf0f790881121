"""The runner: one process a home that takes jobs from the queue and runs them.

Whoever asks for a run, a page or another machine, writes a job; the runner plans it, runs it in worker processes, records
each run as it ends, and tells what happens as events. When it is killed, its workers end with it, and the next runner puts
the jobs back: finished runs are found, so that nothing is lost or done twice.
"""

from __future__ import annotations

import logging
import threading
import time

from broadsheet.errors import BroadsheetError, InputError, JobError, MissingExtraError, StoreError
from broadsheet.lab.engine import Execution, Plan, plan
from broadsheet.lab.executors import Task
from broadsheet.lab.jobs import Jobs, tidy
from broadsheet.lab.local import LocalExecutor
from broadsheet.lab.messages import Ended, JobSpec, News
from broadsheet.lab.paper import FIRST_SEED
from broadsheet.lab.registry import entries, entry, missing_extra
from broadsheet.lab.store import Store
from broadsheet.lab.tables import Job

MOST_WAITING = 8
"""Jobs that are taken from the queue and wait for a command that runs the same."""

logger = logging.getLogger("broadsheet.runner")


class Runner:
    """Runs the queue of a store, `processes` jobs at once, until `stop` is set."""

    def __init__(self, store: Store, processes: int = 1) -> None:
        self.store, self.jobs = store, Jobs(store)
        self.executor = LocalExecutor(processes)
        self.stop = threading.Event()
        self._tasks: dict[int, Task] = {}
        self._waiting: dict[int, Plan] = {}
        self._asked = 0.0

    def run(self) -> None:
        """Works until `stop`; raises `JobError` where this home has a runner already."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.store.folder / "runner.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise JobError(f"A runner works for {self.store.folder} already.") from None
        try:
            logger.info("runner started", extra={"requeued": self._recover()})
            while not self.stop.is_set():
                try:
                    with Execution(self.store, self._watch) as execution:
                        try:
                            self.executor.run([], execution.handle, feed=lambda free, to=execution: self._feed(free, to))
                        finally:
                            self._forget(execution)
                    self.jobs.requeue()
                except StoreError as error:  # the database is away: its jobs go back when it returns
                    logger.error("store failed", extra={"error": str(error)})
                    self.executor = LocalExecutor(self.executor.processes)  # the old one still holds the stopped tasks
                    self.stop.wait(2.0)
                    self._recover()
        finally:
            lock.release()
        logger.info("runner stopped")

    def _recover(self) -> int:
        """Takes in what stopped processes left, as soon as the store answers; returns how many jobs went back to the queue."""
        while not self.stop.is_set():
            try:
                tidy(self.store)
                return self.jobs.requeue()
            except StoreError:
                self.stop.wait(2.0)
        return 0

    def _feed(self, free: int, execution: Execution) -> list[Task] | None:
        if self.stop.is_set():
            return None
        now = time.monotonic()
        if now - self._asked < 0.4:
            return []
        self._asked = now
        for job_id in self.jobs.cancelling():
            if job_id in self._tasks:
                self.executor.cancel(self._tasks[job_id])
            else:
                self._waiting.pop(job_id, None)
                self.jobs.end(job_id, "cancelled")
        again = list(self._waiting.items())[: max(0, free)]
        tasks = [task for job_id, made in again if (task := self._start(job_id, made, execution)) is not None]
        while len(tasks) < free and len(self._waiting) < MOST_WAITING and (job := self.jobs.claim()) is not None:
            task = self._prepare(job, execution)
            if task is not None:
                tasks.append(task)
        return tasks

    def _prepare(self, job: Job, execution: Execution) -> Task | None:
        """The task of a claimed job; a job that needs nothing, or cannot be planned, is over at once."""
        try:
            made = plan(entry(job.spec.slug), job.spec, self.store, job.priority)
        except StoreError:
            raise
        except BroadsheetError as error:
            self.jobs.end(job.id, "failed", str(error))
            return None
        return self._start(job.id, made, execution)

    def _start(self, job_id: int, made: Plan, execution: Execution) -> Task | None:
        """The task of a plan; None where it needs nothing, and where a command runs it now, for which the job waits."""
        if not execution.take(made):
            self._waiting[job_id] = made
            return None
        self._waiting.pop(job_id, None)
        if not execution.needed(made):
            self.jobs.end(job_id, "done", "found: it was run before")
            return None
        logger.info("job started", extra={"job": job_id, "slug": made.entry.slug, "experiment": made.experiment.name})
        task = execution.add(made, job_id)
        self._tasks[job_id] = task
        return task

    def _watch(self, made: Plan, news: News) -> None:
        if isinstance(news, Ended):
            self._tasks = {job_id: task for job_id, task in self._tasks.items() if task is not made.task}
            done = {"slug": made.entry.slug, "experiment": made.experiment.name, "state": news.state}
            logger.info("job ended", extra={**done, "reason": news.message, "trace": made.task.trace})

    def _forget(self, execution: Execution) -> None:
        """Lets go of jobs that were stopped in the middle, without ending them: they wait for the next turn."""
        for task in self._tasks.values():
            execution.forget(task)
        self._tasks.clear()
        self._waiting.clear()


def queue_runs(
    jobs: Jobs, slug: str, experiment: str | None = None, preset: str = "quick", seeds: int | None = 1, priority: float = 0.0
) -> list[int]:
    """Queues an experiment of a paper, or all that have the preset, on the first verdict seeds; returns the jobs' numbers.

    `seeds=None` takes as many as the claims ask for. Raises `InputError` for names that do not exist or an extra that is
    not installed.
    """

    made = entry(slug)
    extra = missing_extra(made)
    if extra is not None:
        raise MissingExtraError(slug, extra)
    if seeds is not None and not 1 <= seeds <= 100:
        raise InputError(f"{seeds} seeds; 1 to 100 are possible.")
    names = [experiment] if experiment else [name for name, e in made.experiments.items() if preset in e.presets]
    if not names:
        raise InputError(f"{slug} has no experiment with the preset {preset!r}.")
    specs = []
    for name in names:
        found = made.experiment(name)
        found.configure(preset, "system", {})
        count = seeds or found.seeds_at(preset)
        numbers = tuple(range(FIRST_SEED, FIRST_SEED + (1 if found.deterministic else count)))
        specs.append(JobSpec(slug, name, preset, seeds=numbers))
    return [jobs.queue(spec, priority) for spec in specs]


def queue_page(jobs: Jobs, costs: dict[tuple[str, str], float]) -> tuple[list[int], dict[str, str]]:
    """Queues every quick experiment of every paper that runs here, the cheap ones first.

    **Returns:** (the jobs' numbers, paper -> the extra that it lacks).
    """
    lacking = {slug: extra for slug, made in entries().items() if (extra := missing_extra(made))}
    queued = [
        job
        for slug, made in entries().items()
        for name, experiment in made.experiments.items()
        if slug not in lacking and "quick" in experiment.presets
        for job in queue_runs(jobs, slug, name, priority=-costs.get((slug, name), experiment.cost))
    ]
    return queued, lacking
