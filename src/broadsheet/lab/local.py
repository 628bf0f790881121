"""Tasks in processes on this machine."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from broadsheet.lab.executors import Handler, Task
from broadsheet.lab.messages import Alone, Done, Failed, Permit, Said, TaskSpec, Together, Told, Written, line, read_line

STOP, CONTINUE = getattr(signal, "SIGSTOP", None), getattr(signal, "SIGCONT", None)
RETRIES = 2
"""How often a task whose process was lost is started again."""


@dataclass
class _Worker:
    """A process, what it was started for, and the task it is at."""

    process: subprocess.Popen
    kind: tuple[str, str, bool]
    cores: set[int]
    task: Task | None = None

    def tell(self, message: Told) -> None:
        """A line on its standard input."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line(message))
            self.process.stdin.flush()


class LocalExecutor:
    """Processes on this machine, `processes` at once; an exclusive task runs with nothing beside it, in a process of its own.

    A process whose task ended well takes the next one that fits: to start Python and JAX anew costs seconds. Tasks side by side
    share the processor's cores out: as many threads as cores in each of them would stand in each other's way. While a task
    measures a time (`log.alone`), the others stand still, and none starts.
    """

    def __init__(self, processes: int = 1) -> None:
        self.processes = max(1, processes)
        self._running: dict[int, _Worker] = {}
        self._idle: list[_Worker] = []
        self._keep = True
        self._alone: _Worker | None = None
        self._asking: list[_Worker] = []
        self._cancelled: set[int] = set()
        self._events: queue.Queue[tuple[_Worker, Said | None]] = queue.Queue()

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
                handle(task, task.ended())
            elif len(self._running) >= (1 if alone else self.processes) or self._alone:
                left.append(task)
            else:
                others = self._running or any(not other.exclusive for other in waiting if other is not task)
                self._launch(task, self._free_cores() if others and not task.exclusive else set())
        return left

    def _free_cores(self) -> set[int]:
        """A task's share of the cores, those that fewest tasks run on; none where it has all, or they cannot be shared out."""
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
        kind = (task.spec.precision, task.spec.device, task.spec.trust)
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
            self._alone.tell(Permit(tuple(process.pid for process in others)))

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
        for text in worker.process.stdout:
            with contextlib.suppress(ValueError):  # a line cut by a kill
                self._events.put((worker, read_line(text, Said)))
        worker.process.wait()
        self._events.put((worker, None))

    def _handle(self, worker: _Worker, message: Said | None, waiting: list[Task], handle: Handler) -> None:
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
            handle(task, task.ended())
        elif isinstance(message, Done):
            task.state, worker.task = "done", None
            del self._running[id(task)]
            self._idle.append(worker)
            if task.exclusive or not self._keep:
                self._dismiss()
            handle(task, task.ended())
        elif isinstance(message, Failed):
            task.state, task.message, task.trace = "failed", message.message, message.trace
        elif isinstance(message, Alone):
            self._asking.append(worker)
            self._let_one_be_alone()
        elif isinstance(message, Together):
            self._go_on(worker)
        else:
            handle(task, message)
            if isinstance(message, Written):
                task.finished.add(message.id)


def worker_environment(spec: TaskSpec) -> dict[str, str]:
    """Precision and device are set before JAX is imported: switching later leaks float32 into float64 code."""
    env = dict(os.environ)
    env["JAX_ENABLE_X64"] = "1" if spec.precision == "float64" else "0"
    env["JAX_PLATFORMS"] = "cpu" if spec.device == "cpu" else "cuda,cpu"
    env["BROADSHEET_TRUST"] = "1" if spec.trust else "0"
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
