"""Tasks on a Dask cluster."""

from __future__ import annotations

import dataclasses
import io
import shutil
import threading
import time
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterator
from itertools import compress
from pathlib import Path
from typing import Any

from broadsheet.cache import home
from broadsheet.errors import BroadsheetError, JobError
from broadsheet.files import unpack
from broadsheet.lab import presence
from broadsheet.lab.executors import Event, Handler, Task
from broadsheet.lab.local import LocalExecutor
from broadsheet.lab.messages import Begun, Progress, RunSpec, Said, TaskSpec, Written, line, read_line


class _SchedulerGoneError(JobError):
    """Nothing more can be asked of the cluster."""


class DaskExecutor:
    """A Dask cluster, at an address (`tcp://…`) or given as a client. Every run is a piece of work of its own there.

    Workers need the package and nothing of our disk: results come back as bytes through a queue. Dask starts a lost
    worker's piece again on another.
    """

    def __init__(self, cluster: Any, timeout: str = "10s") -> None:
        from distributed import Client

        try:
            self.client = Client(cluster, timeout=timeout) if isinstance(cluster, str) else cluster
        except (OSError, TimeoutError, ValueError) as error:
            raise JobError(f"No Dask scheduler answers at {cluster} ({str(error).splitlines()[0]}).") from None
        self._stop = {}  # type: dict[int, Any]

    def run(self, tasks: list[Task], handle: Handler, deadline: float | None = None) -> None:
        """Runs all tasks; at `deadline` (monotonic seconds) what is left is cancelled."""
        from distributed import Event as Flag
        from distributed import Queue

        name = f"broadsheet-{uuid.uuid4().hex}"
        stream = Queue(name, client=self.client)
        by_id = {id(task): task for task in tasks}
        runs = []
        for task in sorted(tasks, key=lambda task: -task.priority):
            task.state = "running"
            stop = f"{name}-{id(task)}"
            self._stop[id(task)] = Flag(stop, client=self.client)
            for run in task.spec.runs:
                future = self.client.submit(
                    run_remotely,
                    dataclasses.replace(task.spec, runs=(run,), figures=None),
                    name,
                    stop,
                    id(task),
                    priority=task.priority,
                    pure=False,
                    key=f"{stop}-{run.id[:16]}",
                )
                runs.append((future, task, run))
        left = Counter(id(task) for _, task, _ in runs)
        try:
            while runs:
                if deadline is not None and time.monotonic() > deadline:
                    for task in tasks:
                        self.cancel(task)
                self._drain(stream, by_id, handle, wait=True)
                over = [self._is_over(*each) for each in runs]
                ended, runs = list(compress(runs, over)), [each for each, gone in zip(runs, over, strict=True) if not gone]
                if ended:  # what a run sent is in the queue before its task ends
                    self._drain(stream, by_id, handle)
                for future, task, run in ended:
                    left[id(task)] -= 1
                    self._settle(future, task, run)
                    if left[id(task)] == 0:
                        task.state = "done" if task.state == "running" else task.state
                        handle(task, task.ended())
        except _SchedulerGoneError:
            raise
        except BaseException:
            for task in tasks:
                self.cancel(task)
            raise
        stream.close()

    def cancel(self, task: Task) -> None:
        """Stops a task wherever it runs; runs that it has finished stay."""
        if id(task) in self._stop:
            self._stop[id(task)].set()

    @staticmethod
    def _drain(stream: Any, by_id: dict[int, Task], handle: Handler, wait: bool = False) -> None:
        """Handles what the queue holds; `wait`: where it is empty, for a moment, until something comes."""
        for owner, text, content in _messages(stream, wait):
            task, message = by_id[owner], read_line(text, Said)
            if isinstance(message, Written):
                folder = Path(task.spec.scratch) / f"{message.id}-{uuid.uuid4().hex[:8]}"
                archive = folder.with_suffix(".zip")
                archive.parent.mkdir(parents=True, exist_ok=True)
                archive.write_bytes(content)
                message = dataclasses.replace(message, folder=str(unpack(archive, folder)))
                archive.unlink()
                task.finished.add(message.id)
            handle(task, message)

    @staticmethod
    def _is_over(future: Any, task: Task, run: RunSpec) -> bool:
        """Whether nothing more is to come of a run: its results are here, or its future has ended.

        Where a worker is gone, the future is "lost" until Dask has computed it again, which is no end.
        """
        return run.id in task.finished or future.status in ("finished", "error", "cancelled")

    @staticmethod
    def _settle(future: Any, task: Task, run: RunSpec) -> None:
        """What a run that has ended without results says of its task; a failure is kept above a cancellation."""
        if run.id in task.finished or task.state == "failed":
            return
        if future.status == "finished":
            task.state, task.message = future.result()
        else:
            error = future.exception() if future.status == "error" else "it was cancelled on the cluster"
            task.state, task.message = "failed", f"{error}"


def _messages(stream: Any, wait: bool) -> Iterator[Any]:
    """What a queue holds; `wait`: where it is empty, the first that comes within a moment."""
    try:
        for _ in range(stream.qsize() or int(wait)):
            try:
                yield stream.get(timeout=0.2)
            except TimeoutError:
                return
    except OSError:
        raise _SchedulerGoneError("The Dask scheduler went away; what had come before is kept.") from None


def run_remotely(spec: TaskSpec, stream_name: str, stop_name: str, owner: int) -> tuple[str, str]:
    """On a Dask worker: runs one task's process and sends its events, and each finished run's folder as bytes.

    Its scratch folder goes with it: it is removed in the end; by the task's process, where this one is killed; and by the next
    piece of work on this machine, where both are.
    """
    from distributed import Event as Flag
    from distributed import Queue, get_client

    client = get_client()
    stream, stop = Queue(stream_name, client=client), Flag(stop_name, client=client)
    presence.clear(home() / "cluster")
    scratch = presence.scratch(home() / "cluster")
    executor = LocalExecutor()
    task = Task(dataclasses.replace(spec, scratch=str(scratch), disposable=True))

    def send(_: Task, event: Event) -> None:
        if stop.is_set():
            executor.cancel(task)
        if isinstance(event, Written):
            stream.put((owner, line(event), _pack(Path(event.folder))))
        elif isinstance(event, Begun | Progress):
            stream.put((owner, line(event), None))

    watcher_done = threading.Event()

    def watch() -> None:
        while not watcher_done.wait(0.5):
            if stop.is_set():
                executor.cancel(task)

    threading.Thread(target=watch, daemon=True).start()
    try:
        executor.run([task], send)
    except BroadsheetError as error:
        return "failed", str(error)
    finally:
        watcher_done.set()
        shutil.rmtree(scratch, ignore_errors=True)
    return task.state, task.message


def _pack(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return buffer.getvalue()
