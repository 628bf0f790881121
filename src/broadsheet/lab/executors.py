"""Where jobs run: local processes, or a Dask cluster without a shared disk. Both report to one handler in one process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, Protocol

from broadsheet.errors import BroadsheetError, JobError
from broadsheet.files import unpack

Handler = Callable[["Task", dict[str, Any]], None]
STOP, CONTINUE = getattr(signal, "SIGSTOP", None), getattr(signal, "SIGCONT", None)
RETRIES = 2
"""How often a job whose process was lost is started again."""


@dataclass
class Task:
    """A job on its way: what the worker is told, and how it stands."""

    spec: dict[str, Any]
    exclusive: bool = False
    priority: float = 0.0
    state: str = "queued"
    message: str = ""
    attempts: int = 0
    finished: set[str] = field(default_factory=set)

    def left(self) -> dict[str, Any]:
        """The spec without the runs that are finished."""
        return {**self.spec, "runs": [run for run in self.spec["runs"] if run["id"] not in self.finished]}


class Executor(Protocol):
    """Runs tasks and hands each event to `handle`, one at a time, in the caller's thread."""

    def run(self, tasks: list[Task], handle: Handler, deadline: float | None = None) -> None: ...

    def cancel(self, task: Task) -> None: ...


@dataclass
class _Worker:
    """A process, what it was started for, and the task it is at."""

    process: subprocess.Popen
    kind: tuple[str, ...]
    cores: set[int]
    task: Task | None = None

    def tell(self, message: Mapping[str, Any]) -> None:
        """A line on its standard input."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()


class LocalExecutor:
    """Processes on this machine, `processes` at once; an exclusive job runs with nothing beside it, in a process of its own.

    A process whose job ended well takes the next one that fits: to start Python and JAX anew costs seconds. Jobs that run side
    by side share the processor's cores out: as many threads as cores in each of them would stand in each other's way. While a
    job measures a time (`log.alone`), the others stand still, and none starts.
    """

    def __init__(self, processes: int = 1) -> None:
        self.processes = max(1, processes)
        self._running: dict[int, _Worker] = {}
        self._idle: list[_Worker] = []
        self._keep = True
        self._alone: _Worker | None = None
        self._asking: list[_Worker] = []
        self._cancelled: set[int] = set()
        self._events: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()

    def run(
        self,
        tasks: list[Task],
        handle: Handler,
        deadline: float | None = None,
        feed: Callable[[int], list[Task] | None] | None = None,
    ) -> None:
        """Runs all tasks, those of high priority first; at `deadline` (monotonic seconds) what is left is cancelled.

        `feed(free)` is asked again and again for more, with the number of processes that have nothing to do; it gives tasks,
        or None when no more will come: then what runs is stopped. As code may change meanwhile, each of these tasks has a new
        process.
        """
        waiting = sorted(tasks, key=lambda task: -task.priority)
        self._keep = feed is None
        try:
            while waiting or self._running or feed is not None:
                if feed is not None:
                    more = feed(self.processes - len(waiting) - len(self._running))
                    if more is None:
                        return
                    waiting += more
                if deadline is not None and time.monotonic() > deadline:
                    for task in waiting + [worker.task for worker in self._running.values() if worker.task is not None]:
                        self.cancel(task)
                waiting = self._start(waiting, handle)
                with contextlib.suppress(queue.Empty):
                    self._handle(*self._events.get(timeout=0.1), waiting, handle)
        finally:
            for worker in list(self._running.values()):
                _kill(worker.process)
            self._dismiss()

    def cancel(self, task: Task) -> None:
        """Stops a task, running or waiting; runs that it has finished stay."""
        self._cancelled.add(id(task))
        if id(task) in self._running:
            _kill(self._running[id(task)].process)

    def _start(self, waiting: list[Task], handle: Handler) -> list[Task]:
        left = []
        for task in waiting:
            alone = task.exclusive or any(worker.task.exclusive for worker in self._running.values() if worker.task)
            if id(task) in self._cancelled:
                task.state = "cancelled"
                handle(task, {"event": "end"})
            elif len(self._running) >= (1 if alone else self.processes) or self._alone:
                left.append(task)
            else:
                others = self._running or any(not other.exclusive for other in waiting if other is not task)
                self._launch(task, self._free_cores() if others and not task.exclusive else set())
        return left

    def _free_cores(self) -> set[int]:
        """A job's share of the cores, those that fewest jobs run on; none where it has all, or they cannot be shared out."""
        if not hasattr(os, "sched_getaffinity") or self.processes == 1:
            return set()
        cores = os.sched_getaffinity(0)
        taken = Counter(core for worker in self._running.values() for core in worker.cores)
        share = len(cores) // self.processes
        return set(sorted(cores, key=lambda core: (taken[core], core))[:share])

    def _launch(self, task: Task, cores: set[int]) -> None:
        """Gives a task to a process that is idle and fits, or else to a new one on these cores, on all where none are named."""
        task.state = "running"
        task.attempts += 1
        kind = tuple(f"{task.spec.get(name)}" for name in ("precision", "device", "trust"))
        fitting = [worker for worker in self._idle if (worker.kind, worker.cores) == (kind, cores) and not task.exclusive]
        if fitting:
            self._idle.remove(worker := fitting[0])
        else:
            self._dismiss()
            with _on_cores(cores):
                process = subprocess.Popen(
                    [sys.executable, "-m", "broadsheet.lab.worker"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    env=worker_environment(task.spec), text=True, start_new_session=True,
                )  # fmt: skip
            worker = _Worker(process, kind, cores)
            threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        worker.task = task
        self._running[id(task)] = worker
        worker.tell(task.left())

    def _dismiss(self) -> None:
        """Ends the idle processes."""
        for worker in self._idle:
            assert worker.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                worker.process.stdin.close()
        self._idle.clear()

    def _let_one_be_alone(self) -> None:
        """Stops all others of the next worker that asks for it, and tells it."""
        if self._alone is None and self._asking:
            self._alone = self._asking.pop(0)
            others = [worker.process for worker in self._running.values() if worker is not self._alone]
            for process in others:
                _signal(process, STOP)
            self._alone.tell({"stopped": [process.pid for process in others]})

    def _go_on(self, worker: _Worker) -> None:
        """Takes back what a worker asked for or has."""
        self._asking = [other for other in self._asking if other is not worker]
        if self._alone is worker:
            self._alone = None
            for other in self._running.values():
                _signal(other.process, CONTINUE)
        self._let_one_be_alone()

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            with contextlib.suppress(ValueError):  # a line cut by a kill
                self._events.put((worker, json.loads(line)))
        worker.process.wait()
        self._events.put((worker, None))

    def _handle(self, worker: _Worker, message: dict[str, Any] | None, waiting: list[Task], handle: Handler) -> None:
        task = worker.task
        if task is None:  # it was idle, and has ended
            self._idle = [other for other in self._idle if other is not worker]
        elif message is None:  # ended, without a word where the task is still running
            del self._running[id(task)]
            self._go_on(worker)
            if task.state == "running":
                if id(task) in self._cancelled:
                    task.state = "cancelled"
                elif task.attempts <= RETRIES:
                    task.state = "queued"
                    waiting.append(task)
                    return
                else:
                    lost = f"its process was lost {task.attempts} times (exit {worker.process.returncode})"
                    task.state, task.message = "failed", lost
            handle(task, {"event": "end"})
        elif message["event"] == "done":
            task.state, worker.task = "done", None
            del self._running[id(task)]
            self._idle.append(worker)
            if task.exclusive or not self._keep:
                self._dismiss()
            handle(task, {"event": "end"})
        elif message["event"] == "failed":
            task.state, task.message = "failed", message.get("message", "")
            task.spec["trace"] = message.get("trace", "")
        elif message["event"] == "alone":
            self._asking.append(worker)
            self._let_one_be_alone()
        elif message["event"] == "together":
            self._go_on(worker)
        else:
            handle(task, message)
            if message["event"] == "run":
                task.finished.add(message["id"])


class _SchedulerGoneError(JobError):
    """Nothing more can be asked of the cluster."""


class DaskExecutor:
    """A Dask cluster, at an address (`tcp://…`) or given as a client. Every run is a task of its own.

    Workers need the package and nothing of our disk: results come back as bytes through a queue. Dask starts a lost
    worker's task again on another.
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
        from distributed import Event, Queue

        name = f"broadsheet-{uuid.uuid4().hex}"
        stream = Queue(name, client=self.client)
        by_id = {id(task): task for task in tasks}
        runs = []
        for task in sorted(tasks, key=lambda task: -task.priority):
            task.state = "running"
            stop = f"{name}-{id(task)}"
            self._stop[id(task)] = Event(stop, client=self.client)
            for run in task.spec["runs"]:
                future = self.client.submit(
                    run_remotely,
                    {**task.spec, "runs": [run], "figures": None},
                    name,
                    stop,
                    id(task),
                    priority=task.priority,
                    pure=False,
                    key=f"{stop}-{run['id'][:16]}",
                )
                runs.append((future, task, run["id"]))
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
                        handle(task, {"event": "end"})
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
        for owner, message, content in _messages(stream, wait):
            task = by_id[owner]
            if content is not None:
                folder = Path(task.spec["scratch"]) / f"{message['id']}-{uuid.uuid4().hex[:8]}"
                archive = folder.with_suffix(".zip")
                archive.parent.mkdir(parents=True, exist_ok=True)
                archive.write_bytes(content)
                message["folder"] = str(unpack(archive, folder))
                archive.unlink()
                task.finished.add(message["id"])
            handle(task, message)

    @staticmethod
    def _is_over(future: Any, task: Task, run: str) -> bool:
        """Whether nothing more is to come of a run: its results are here, or its future has ended.

        Where a worker is gone, the future is "lost" until Dask has computed it again, which is no end.
        """
        return run in task.finished or future.status in ("finished", "error", "cancelled")

    @staticmethod
    def _settle(future: Any, task: Task, run: str) -> None:
        """What a run that has ended without results says of its task; a failure is kept above a cancellation."""
        if run in task.finished or task.state == "failed":
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


def run_remotely(spec: dict[str, Any], stream_name: str, stop_name: str, owner: int) -> tuple[str, str]:
    """On a Dask worker: runs one job's process and sends its events, and each finished run's folder as bytes."""
    from distributed import Event, Queue, get_client

    client = get_client()
    stream, stop = Queue(stream_name, client=client), Event(stop_name, client=client)
    scratch = Path(tempfile.mkdtemp(prefix="broadsheet-"))
    executor = LocalExecutor()
    task = Task({**spec, "scratch": str(scratch)})

    def send(_: Task, message: dict[str, Any]) -> None:
        if stop.is_set():
            executor.cancel(task)
        if message["event"] == "run":
            stream.put((owner, message, _pack(Path(message["folder"]))))
        elif message["event"] in ("start", "progress"):
            stream.put((owner, message, None))

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


def worker_environment(spec: dict[str, Any]) -> dict[str, str]:
    """Precision and device are set before JAX is imported: switching later leaks float32 into float64 code."""
    env = dict(os.environ)
    env["JAX_ENABLE_X64"] = "1" if spec.get("precision") == "float64" else "0"
    env["JAX_PLATFORMS"] = "cpu" if spec.get("device") == "cpu" else "cuda,cpu"
    env["BROADSHEET_TRUST"] = "1" if spec.get("trust") else "0"
    env.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return env


@contextlib.contextmanager
def _on_cores(cores: set[int]) -> Iterator[None]:
    """This thread on some cores (all where none are named): a process started from it has them before it counts its threads."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _kill(process: subprocess.Popen) -> None:
    _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen, number: int | None) -> None:
    """To a process and all that it started."""
    if number is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
