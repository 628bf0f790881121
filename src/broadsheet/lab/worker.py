"""The process of a task: runs variants and seeds in turn, writes each run whole, and reports on a stream of JSON lines.

Started as `python -m broadsheet.lab.worker` with the task as one JSON line on standard input; after one that is done it takes
another. It ends when a task fails, and when standard input is closed, so that it never outlives a killed coordinator.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import queue
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.cache import home, write_atomic
from broadsheet.errors import BroadsheetError, InputError, JobError
from broadsheet.files import load_arrays, read_json
from broadsheet.lab import commands, messages
from broadsheet.lab.claims import SYSTEM
from broadsheet.lab.messages import Permit, RunSpec, Said, TaskSpec, Told, line, read_line
from broadsheet.lab.metrics import from_json, to_json
from broadsheet.lab.paper import Report
from broadsheet.lab.schema import jsonable
from broadsheet.lab.store import ARRAYS_FILE, RECORD_FILE

One = Callable[[RunSpec, "RunLog"], tuple[Report, Mapping[str, Any]]]
"""Makes one run: its report and its config."""

LONGEST_TEMPORARY = 75


class Coordinator:
    """The other end: tasks come from it on standard input, a line each, and events go to it. The process ends with it."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what an experiment prints must not mix with the stream
        self._tasks: queue.Queue[TaskSpec] = queue.Queue()
        self._permits: queue.Queue[Permit] = queue.Queue()
        self._stopped: tuple[int, ...] = ()
        self._disposable: str | None = None
        threading.Thread(target=self._read, daemon=True).start()

    def task(self) -> TaskSpec:
        """The next task."""
        task = self._tasks.get()
        self._disposable = task.scratch if task.disposable else None
        return task

    def say(self, message: Said) -> None:
        self._stream.write(line(message))
        self._stream.flush()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """The coordinator's other processes stand still meanwhile."""
        self.say(messages.Alone())
        self._stopped = self._permits.get().stopped
        try:
            yield
        finally:
            self.say(messages.Together())
            self._stopped = ()

    def _read(self) -> None:
        with open(0, "rb", buffering=0, closefd=False) as lines:  # a buffer's lock would be in the way of a process that ends
            for text in lines:
                message = read_line(text, Told)
                if isinstance(message, Permit):
                    self._permits.put(message)
                else:
                    self._tasks.put(message)
        for pid in self._stopped:  # nobody else is left to wake them
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGCONT)
        if self._disposable is not None:
            shutil.rmtree(self._disposable, ignore_errors=True)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # what an experiment has started ends as well
        os._exit(3)


class RunLog:
    """What an experiment sees as `log`: progress goes to the coordinator, checkpoints to a folder of this run."""

    def __init__(self, coordinator: Coordinator, run: RunSpec) -> None:
        self._coordinator, self._run, self._last = coordinator, run, 0.0
        self.folder = home() / "checkpoints" / run.id

    def progress(self, fraction: float, **metrics: float) -> None:
        now = time.monotonic()
        if now - self._last > 0.2 or fraction >= 1:
            self._last = now
            live = {name: float(value) for name, value in metrics.items()}
            self._coordinator.say(messages.Progress(self._run.id, float(fraction), live))

    def checkpoint(self, name: str) -> Path:
        return self.folder / name

    def alone(self) -> contextlib.AbstractContextManager[None]:
        return self._coordinator.alone()


def main() -> int:
    coordinator, module = Coordinator(), None
    while True:
        task = coordinator.task()
        if module not in (None, task.module):
            _forget_programs()
        module = task.module
        _forget_peak()
        try:
            run_task(task, coordinator)
        except BroadsheetError as error:
            coordinator.say(messages.Failed(str(error)))
            return 1
        except Exception as error:
            coordinator.say(messages.Failed(f"{type(error).__name__}: {error}", traceback.format_exc()))
            return 1
        coordinator.say(messages.Done())


def _forget_programs() -> None:
    """Another paper's compiled programs are of no use to this one."""
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


def _forget_peak() -> None:
    """The memory of earlier tasks is not this one's; only Linux can forget it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _keep_temporary_files(folder: Path) -> None:
    """Temporary files of an experiment and of all that it starts go into a folder that is removed however they end.

    Not where its path is long: programs make sockets among their temporary files, whose paths have 107 characters at the most.
    """
    if len(str(folder)) > LONGEST_TEMPORARY:
        return
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


def run_task(task: TaskSpec, coordinator: Coordinator) -> None:
    """All runs of a task that are still to be done, then its figures."""
    one = _paper_runner(task) if task.command is None else _command_runner(task, task.command)
    reports: dict[str, Report] = {}
    _keep_temporary_files(Path(task.scratch) / "tmp")
    for run in task.runs:
        coordinator.say(messages.Begun(run.id, run.variant, run.seed))
        log = RunLog(coordinator, run)
        began = time.perf_counter()
        report, config = one(run, log)
        seconds = time.perf_counter() - began
        folder = write_run(task, run, report, config, seconds)
        shutil.rmtree(log.folder, ignore_errors=True)
        coordinator.say(messages.Written(run.id, str(folder), seconds))
        if run.seed == task.figure_seed:
            reports[run.variant] = replace(report, arrays=report.numpy_arrays())  # as one that is read back
    if task.figures is not None:
        _draw(task, task.figures, reports, coordinator)


def write_run(task: TaskSpec, run: RunSpec, report: Report, config: Mapping[str, Any], seconds: float) -> Path:
    """A finished run as a folder: its record, then its arrays; complete when the record is there."""
    from broadsheet.lab.identity import environment

    folder = Path(task.scratch) / run.id
    folder.mkdir(parents=True, exist_ok=True)
    arrays = report.numpy_arrays()
    if arrays:
        np.savez_compressed(folder / ARRAYS_FILE, **arrays)
    size = (folder / ARRAYS_FILE).stat().st_size if arrays else 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if platform.system() == "Linux" else 1024**2)
    record = {
        "id": run.id, "slug": task.slug, "experiment": task.experiment, "preset": task.preset,
        "variant": run.variant, "seed": run.seed, "config": dict(config), "scalars": to_json(report.scalars()),
        "code_hash": task.code_hash, "precision": task.precision, "device": task.device,
        "environment": environment(), "finished": datetime.now(UTC).isoformat(), "seconds": round(seconds, 3),
        "peak_mib": round(peak, 1), "arrays_bytes": size,
    }  # fmt: skip
    write_atomic(folder / RECORD_FILE, json.dumps(record, indent=1))
    return folder


def _paper_runner(task: TaskSpec) -> One:
    import jax

    from broadsheet.lab.registry import import_paper

    for name, value in (
        ("jax_persistent_cache_min_compile_time_secs", 0.0),
        ("jax_persistent_cache_min_entry_size_bytes", -1),
    ):
        jax.config.update(name, value)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(home() / "cache" / "jax"))
    found = jax.default_backend()
    if ("gpu" if found in ("gpu", "cuda") else "cpu") != task.device:
        raise JobError(f"The job was planned for {task.device}, but JAX runs on {found} here.")
    experiment = import_paper(task.module).experiments[task.experiment]

    def one(run: RunSpec, log: RunLog) -> tuple[Report, Mapping[str, Any]]:
        config = experiment.configure(task.preset, run.variant, task.overrides)
        key = jax.random.key(0 if experiment.deterministic else run.seed)
        report = experiment.function(config, key, log)
        return report, jsonable(config)

    return one


def _command_runner(task: TaskSpec, command: Mapping[str, Any]) -> One:
    """Runs another repository's command and reads the metrics from the JSON file that it writes."""

    def one(run: RunSpec, log: RunLog) -> tuple[Report, Mapping[str, Any]]:
        out = Path(task.scratch) / f"{run.id}.json"
        typed = command["commands"][run.variant]
        settings = {**command.get("settings", {}), **task.overrides}
        words = [_filled(word, {**settings, "seed": run.seed, "out": out}) for word in shlex.split(typed)]
        commands.run(typed, words, command["folder"], command["timeout"])
        numbers = _metrics(typed, out, command["metrics"])
        out.unlink()
        return Report(metrics=numbers), {"command": typed, **({"settings": settings} if settings else {})}

    return one


def _metrics(typed: str, out: Path, needed: Sequence[str]) -> dict[str, float]:
    """The numbers of a file of metrics. What else is in it is its author's, but where a check names it.

    **Raises:** `JobError` that names the metric which is no number.
    """
    if not out.is_file():
        raise JobError(f"{typed!r} wrote no file at {{out}}; it has to write its metrics there as JSON.")
    try:
        metrics = read_json(out)
    except InputError as error:
        raise JobError(f"{typed!r}: {str(error).replace(str(out), 'what it wrote to {out}')}") from None
    if not isinstance(metrics, dict):
        raise JobError(f"{typed!r} wrote JSON that is no object of metric names and numbers.")
    for name in needed:
        if name in metrics and not isinstance(metrics[name], int | float):
            raise JobError(f"{typed!r} wrote the metric {name!r} as {_kind(metrics[name])}; a number is wanted.")
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    for name, value in numbers.items():
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            raise JobError(
                f"{typed!r} wrote the metric {name!r} as a number of {len(str(abs(value)))} digits, too large for any use."
            )
    return numbers


def _kind(value: Any) -> str:
    """What a JSON value is that is no number, in words."""
    if isinstance(value, dict):
        return f"an object ({', '.join(map(repr, list(value)[:5]))})"
    return "a list" if isinstance(value, list) else "null" if value is None else f"text ({str(value)[:40]!r})"


def _filled(word: str, values: Mapping[str, Any]) -> str:
    """A word of a command with each `{name}` replaced by its value."""
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", str(value))
    return word


def _draw(task: TaskSpec, found: Mapping[str, str], made: dict[str, Report], coordinator: Coordinator) -> None:
    """The figures of an experiment from this task's reports and those found in the store's folders, `"system"` first."""
    import matplotlib

    from broadsheet.lab.registry import import_paper

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "broadsheet", "font.size": 9})
    experiment = import_paper(task.module).experiments[task.experiment]
    runs = {name: _load(Path(folder)) for name, folder in found.items()} | made
    ordered = {name: runs[name] for name in [SYSTEM, *experiment.variants] if name in runs}
    if set(ordered) != set(experiment.variant_names()):
        return
    for name, draw in experiment.figures.items():
        path = Path(task.scratch) / "figures" / f"{name}.svg"
        path.parent.mkdir(exist_ok=True)
        draw(ordered).savefig(path, metadata={"Date": None})
        caption = " ".join((draw.__doc__ or name).split())
        coordinator.say(messages.Painted(name, str(path), caption))


def _load(folder: Path) -> Report:
    record = json.loads((folder / RECORD_FILE).read_text())
    scalars = from_json(record["scalars"])
    arrays = load_arrays(folder / ARRAYS_FILE) if (folder / ARRAYS_FILE).exists() else {}
    return Report(scalars.pop("", {}), arrays, scalars)


if __name__ == "__main__":
    sys.exit(main())
