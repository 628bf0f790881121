"""The process of a job: runs variants and seeds in turn, writes each run whole, and reports on a stream of JSON lines.

Started as `python -m broadsheet.lab.worker` with the job as one JSON line on standard input; after one that is done it takes
another. It ends when a job fails, and when standard input is closed, so that it never outlives a killed coordinator.
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
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.cache import home, write_atomic
from broadsheet.errors import BroadsheetError, JobError
from broadsheet.files import load_arrays, read_json
from broadsheet.lab.claims import SYSTEM
from broadsheet.lab.metrics import from_json, to_json
from broadsheet.lab.paper import Report
from broadsheet.lab.store import ARRAYS_FILE, RECORD_FILE

Emit = Callable[..., None]


class Coordinator:
    """The other end: jobs come from it on standard input, a line each, and events go to it. The process ends with it."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what an experiment prints must not mix with the stream
        self._jobs: queue.Queue[dict[str, Any]] = queue.Queue()
        self._permits: queue.Queue[list[int]] = queue.Queue()
        self._stopped: list[int] = []
        threading.Thread(target=self._read, daemon=True).start()

    def job(self) -> dict[str, Any]:
        """The next job."""
        return self._jobs.get()

    def emit(self, **event: Any) -> None:
        self._stream.write(json.dumps(event) + "\n")
        self._stream.flush()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """The coordinator's other processes stand still meanwhile."""
        self.emit(event="alone")
        self._stopped = self._permits.get()
        try:
            yield
        finally:
            self.emit(event="together")
            self._stopped = []

    def _read(self) -> None:
        with open(0, "rb", buffering=0, closefd=False) as lines:  # a buffer's lock would be in the way of a process that ends
            for line in lines:
                message = json.loads(line)
                if "stopped" in message:
                    self._permits.put(message["stopped"])
                else:
                    self._jobs.put(message)
        for pid in self._stopped:  # nobody else is left to wake them
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGCONT)
        os._exit(3)


class RunLog:
    """What an experiment sees as `log`: progress goes to the coordinator, checkpoints to a folder of this run."""

    def __init__(self, coordinator: Coordinator, run: Mapping[str, Any]) -> None:
        self._coordinator, self._run, self._last = coordinator, run, 0.0
        self.folder = home() / "checkpoints" / run["id"]

    def progress(self, fraction: float, **metrics: float) -> None:
        now = time.monotonic()
        if now - self._last > 0.2 or fraction >= 1:
            self._last = now
            live = {name: float(value) for name, value in metrics.items()}
            self._coordinator.emit(event="progress", id=self._run["id"], fraction=float(fraction), metrics=live)

    def checkpoint(self, name: str) -> Path:
        return self.folder / name

    def alone(self) -> contextlib.AbstractContextManager[None]:
        return self._coordinator.alone()


def main() -> int:
    coordinator, module = Coordinator(), None
    while True:
        job = coordinator.job()
        if module not in (None, job["module"]):
            _forget_programs()
        module = job["module"]
        _forget_peak()
        try:
            run_job(job, coordinator)
        except BroadsheetError as error:
            coordinator.emit(event="failed", message=str(error), kind=type(error).__name__)
            return 1
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            coordinator.emit(event="failed", message=message, kind="crash", trace=traceback.format_exc())
            return 1
        coordinator.emit(event="done")


def _forget_programs() -> None:
    """Another paper's compiled programs are of no use to this one."""
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


def _forget_peak() -> None:
    """The memory of earlier jobs is not this one's; only Linux can forget it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def run_job(job: Mapping[str, Any], coordinator: Coordinator) -> None:
    """All runs of a job that are still to be done, then its figures."""
    scratch, emit = Path(job["scratch"]), coordinator.emit
    one = _command_runner(job) if job.get("command") else _paper_runner(job)
    reports: dict[str, Report] = {}
    for run in job["runs"]:
        emit(event="start", id=run["id"], variant=run["variant"], seed=run["seed"])
        log = RunLog(coordinator, run)
        began = time.perf_counter()
        report, config = one(run, log)
        seconds = time.perf_counter() - began
        folder = write_run(scratch, job, run, report, config, seconds)
        shutil.rmtree(log.folder, ignore_errors=True)
        emit(event="run", id=run["id"], folder=str(folder), seconds=seconds)
        if run["seed"] == job["figure_seed"]:
            reports[run["variant"]] = report
    if job["figures"] is not None:
        _draw(job, reports, scratch, emit)


def write_run(
    scratch: Path,
    job: Mapping[str, Any],
    run: Mapping[str, Any],
    report: Report,
    config: Mapping[str, Any],
    seconds: float,
) -> Path:
    """A finished run as a folder: its record, then its arrays; complete when the record is there."""
    from broadsheet.lab.identity import environment

    folder = scratch / run["id"]
    folder.mkdir(parents=True, exist_ok=True)
    arrays = report.numpy_arrays()
    if arrays:
        np.savez_compressed(folder / ARRAYS_FILE, **arrays)
    size = (folder / ARRAYS_FILE).stat().st_size if arrays else 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if platform.system() == "Linux" else 1024**2)
    record = {
        "id": run["id"], "slug": job["slug"], "experiment": job["experiment"], "preset": job["preset"],
        "variant": run["variant"], "seed": run["seed"], "config": dict(config), "scalars": to_json(report.scalars()),
        "code_hash": job["code_hash"], "precision": job["precision"], "device": job["device"],
        "environment": environment(), "finished": datetime.now(UTC).isoformat(), "seconds": round(seconds, 3),
        "peak_mib": round(peak, 1), "arrays_bytes": size,
    }  # fmt: skip
    write_atomic(folder / RECORD_FILE, json.dumps(record, indent=1))
    return folder


def _paper_runner(job: Mapping[str, Any]) -> Callable[[Mapping[str, Any], RunLog], tuple[Report, Mapping[str, Any]]]:
    import dataclasses

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
    if ("gpu" if found in ("gpu", "cuda") else "cpu") != job["device"]:
        raise JobError(f"The job was planned for {job['device']}, but JAX runs on {found} here.")
    experiment = import_paper(job["module"]).experiments[job["experiment"]]

    def one(run: Mapping[str, Any], log: RunLog) -> tuple[Report, Mapping[str, Any]]:
        config = experiment.configure(job["preset"], run["variant"], job["overrides"])
        key = jax.random.key(0 if experiment.deterministic else run["seed"])
        report = experiment.function(config, key, log)
        return report, json.loads(json.dumps(dataclasses.asdict(config)))

    return one


def _command_runner(job: Mapping[str, Any]) -> Callable[[Mapping[str, Any], RunLog], tuple[Report, Mapping[str, Any]]]:
    """Runs another repository's command and reads the metrics from the JSON file that it writes."""
    command = job["command"]

    def one(run: Mapping[str, Any], log: RunLog) -> tuple[Report, Mapping[str, Any]]:
        out = Path(job["scratch"]) / f"{run['id']}.json"
        line = command["commands"][run["variant"]]
        words = [w.replace("{seed}", str(run["seed"])).replace("{out}", str(out)) for w in shlex.split(line)]
        try:
            done = subprocess.run(
                words,
                cwd=command["folder"],
                capture_output=True,
                text=True,
                timeout=command["timeout"],
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            raise JobError(f"{words[0]}: there is no such program (in the command {line!r}).") from None
        except subprocess.TimeoutExpired:
            raise JobError(f"{line!r} took longer than {command['timeout']:g} s.") from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise JobError(f"{line!r} ended with {done.returncode}: {last[:200]}")
        if not out.exists():
            raise JobError(f"{line!r} wrote no file at {{out}}; it has to write its metrics there as JSON.")
        metrics = read_json(out)
        if not isinstance(metrics, dict):
            raise JobError(f"{line!r} wrote JSON that is no object of metric names and numbers.")
        numbers = {k: v for k, v in metrics.items() if isinstance(v, int | float)}
        out.unlink()
        return Report(metrics=numbers), {"command": line}

    return one


def _draw(job: Mapping[str, Any], made: dict[str, Report], scratch: Path, emit: Emit) -> None:
    """The figures of an experiment from this job's reports and those found in the store, `"system"` first."""
    import matplotlib

    from broadsheet.lab.registry import import_paper

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "broadsheet", "font.size": 9})
    experiment = import_paper(job["module"]).experiments[job["experiment"]]
    runs = {name: _load(Path(folder)) for name, folder in job["figures"].items()} | made
    ordered = {name: runs[name] for name in [SYSTEM, *experiment.variants] if name in runs}
    if set(ordered) != set(experiment.variant_names()):
        return
    for name, draw in experiment.figures.items():
        path = scratch / "figures" / f"{name}.svg"
        path.parent.mkdir(exist_ok=True)
        draw(ordered).savefig(path, metadata={"Date": None})
        caption = " ".join((draw.__doc__ or name).split())
        emit(event="figure", name=name, path=str(path), caption=caption)


def _load(folder: Path) -> Report:
    record = json.loads((folder / RECORD_FILE).read_text())
    scalars = from_json(record["scalars"])
    arrays = load_arrays(folder / ARRAYS_FILE) if (folder / ARRAYS_FILE).exists() else {}
    return Report(scalars.pop("", {}), arrays, scalars)


if __name__ == "__main__":
    sys.exit(main())
