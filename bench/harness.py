"""Times two or more programs on the same input, turn by turn, each in a process of its own.

A comparison is a file in this folder that defines cases (a name and parameters each), the arrays that all sides get, and the
sides: functions that take a case and these arrays, set everything up and return a function of one run. A side may live in an
environment of its own, for peers that do not install beside Broadsheet; a file of comparisons imports nothing but NumPy at its
top, so that every environment can read it.

    python bench/harness.py              all comparisons on this machine's CPU
    python bench/harness.py cuba --runs 5
    python bench/harness.py cuba --device gpu
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE.parent / "docs" / "benchmarks"
ENVIRONMENTS = HERE / ".environments"
OURS = "broadsheet"
ALONE = "# without dependencies: "
"""Before a package of an environment whose own pins do not fit this machine; what it needs is listed beside it."""
Case = dict[str, Any]
Arrays = dict[str, np.ndarray]
Run = Callable[[], dict[str, float]]
"""One run: does the work and returns what was computed, by name, so that sides can be compared. A side that times or weighs
itself (a program of its own) returns `seconds` or `peak_mb` among them."""


@dataclass(frozen=True)
class Side:
    """A program of a comparison: `setup(case, arrays)` returns its `Run`."""

    name: str
    setup: Callable[[Case, Arrays], Run]
    environment: str | None = None
    packages: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    limit: float = 600.0  # s, for a run and for the set-up


@dataclass
class Comparison:
    """A question of speed.

    **Arguments:** `cases`: parameters by name; `inputs(case)`: arrays that all sides get, made in Broadsheet's environment;
    `agree`: values that the sides must share, by name, with a relative tolerance; `shown`: values for the table, by name, with how
    they are called there; `turns`: at most as many, where runs are long.
    """

    title: str
    cases: dict[str, Case]
    inputs: Callable[[Case], Arrays] = lambda case: {}
    text: str = ""
    agree: dict[str, float] = field(default_factory=dict)
    sides: list[Side] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)
    turns: int | None = None

    def side(self, name: str, **options: Any) -> Callable[[Callable], Callable]:
        """Adds a side."""

        def add(setup: Callable) -> Callable:
            self.sides.append(Side(name, setup, **options))
            return setup

        return add


def read_comparison(file: Path) -> Comparison:
    """The comparison that a file defines."""
    sys.path.insert(0, str(HERE))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.comparison


def work(file: Path, side_name: str, case_name: str, inputs: Path) -> None:
    """Sets a side up, then makes a run for each line that comes in, and says how long it took."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what peers print goes to stderr
    comparison = read_comparison(file)
    side = next(side for side in comparison.sides if side.name == side_name)

    def answer(**what: Any) -> None:
        print(json.dumps(what), file=answers, flush=True)

    with np.load(inputs) as stored:
        arrays = dict(stored)
    start = time.perf_counter()
    run = side.setup(comparison.cases[case_name], arrays)
    set_up = time.perf_counter() - start
    start = time.perf_counter()
    run()
    answer(setup=set_up, first=time.perf_counter() - start, versions=versions(side.packages))
    for _ in sys.stdin:
        start = time.perf_counter()
        values = {name: float(value) for name, value in run().items()}
        seconds = time.perf_counter() - start
        answer(seconds=values.pop("seconds", seconds), peak_mb=values.pop("peak_mb", peak_mb()), values=values)


def peak_mb() -> float:
    """The largest resident size of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    return {name: metadata.version(name) for name in packages}


def environment_python(name: str | None) -> Path:
    """The interpreter of an environment, made where it is missing; raises `RuntimeError` where it can't be."""
    if name is None:
        return Path(sys.executable)
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    done = folder / "complete"
    wanted = (HERE / "environments" / f"{name}.txt").read_text()
    if done.exists() and done.read_text() == wanted:
        return python
    print(f"  making the environment {name} …", flush=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    alone = [line.removeprefix(ALONE) for line in wanted.splitlines() if line.startswith(ALONE)]
    for asked in (["-r", HERE / "environments" / f"{name}.txt"], *(["--no-deps", package] for package in alone)):
        made = subprocess.run([*pip, *asked], capture_output=True, text=True)
        if made.returncode:
            raise RuntimeError(f"{name} does not install here: {made.stderr.strip().splitlines()[-1]}")
    done.write_text(wanted)
    return python


class Worker:
    """A side's process."""

    def __init__(self, file: Path, side: Side, case: str, inputs: Path, device: str) -> None:
        self.side = side
        command = [environment_python(side.environment), HERE / "harness.py", "--work", file, side.name, case, inputs]
        self.log = tempfile.TemporaryFile("w+")
        settings = {"JAX_PLATFORMS": "cpu"} if device == "cpu" else {}
        settings["PYTHONWARNINGS"] = "ignore"
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=os.environ | settings,
        )  # fmt: skip

    def read(self) -> dict[str, Any]:
        """The worker's next answer; raises `RuntimeError` with its last words where there is none."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], self.side.limit)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.close()
            self.log.seek(0)
            said = [text for text in self.log.read().strip().splitlines() if text.strip()]
            reasons = [text for text in said if "Error" in text] or said or ["no message"]
            raise RuntimeError(reasons[-1] if ready else f"more than {self.side.limit:.0f} s")
        return json.loads(line)

    def run(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def measure(file: Path, case: str, device: str, runs: int) -> dict[str, Any]:
    """All sides of one case, turn by turn."""
    comparison = read_comparison(file)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **comparison.inputs(comparison.cases[case]))
        found = _take_turns(file, comparison, case, inputs, device, runs)
    for side in found.values():
        if "seconds" in side:
            side["median"] = statistics.median(side["seconds"])
            side["values"] = {name: statistics.median(v[name] for v in side["values"]) for name in side["values"][0]}
    ours = found.get(OURS, {}).get("seconds")
    for name, side in found.items():
        if name != OURS and ours and "seconds" in side:
            ratios = [theirs / own for theirs, own in zip(side["seconds"], ours, strict=True)]
            side["ratio"] = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    disagree = disagreements(comparison, found)
    for line in disagree:
        print(f"  {line}", flush=True)
    return {"sides": found, "parameters": comparison.cases[case], "disagreements": disagree}


def _take_turns(
    file: Path, comparison: Comparison, case: str, inputs: Path, device: str, runs: int
) -> dict[str, dict[str, Any]]:
    """Side -> its answers: seconds and values of each run, or why it failed."""
    workers: dict[str, Worker] = {}
    found: dict[str, dict[str, Any]] = {}
    for side in comparison.sides:
        if device not in side.devices:
            continue
        try:
            workers[side.name] = worker = Worker(file, side, case, inputs, device)
            found[side.name] = {**worker.read(), "seconds": [], "values": [], "peak_mb": 0.0}
        except (RuntimeError, subprocess.CalledProcessError) as error:
            workers.pop(side.name, None)
            found[side.name] = {"failed": str(error)[:300]}
            print(f"  {side.name}: {str(error)[:200]}", flush=True)
    for _ in range(runs):
        for name, worker in list(workers.items()):
            try:
                made = worker.run()
            except RuntimeError as error:
                del workers[name]
                found[name] = {"failed": str(error)[:300]}
                continue
            found[name]["seconds"].append(made["seconds"])
            found[name]["values"].append(made["values"])
            found[name]["peak_mb"] = max(found[name]["peak_mb"], made["peak_mb"])
    for worker in workers.values():
        worker.close()
    return found


def disagreements(comparison: Comparison, found: dict[str, dict[str, Any]]) -> list[str]:
    """Values of sides that lie further from ours than the comparison allows."""
    ours = found.get(OURS, {}).get("values", {})
    return [
        f"{name}: {value} is {side['values'][value]:.6g}, ours {ours[value]:.6g}"
        for value, tolerance in comparison.agree.items()
        for name, side in found.items()
        if value in ours
        and value in side.get("values", {})
        and abs(side["values"][value] - ours[value]) > tolerance * abs(ours[value])
    ]


def machine(device: str) -> dict[str, Any]:
    """What the numbers were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    made = {"cpu": model, "cores": len(os.sched_getaffinity(0)), "system": platform.platform(terse=True)}
    made |= {"python": platform.python_version(), "date": date.today().isoformat()}
    if device == "gpu":
        asked = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
        made["gpu"] = asked.stdout.strip()
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    files = {file.stem: file for file in sorted(HERE.glob("*.py")) if "\ncomparison = " in file.read_text()}
    parser.add_argument("only", nargs="*", metavar="COMPARISON", help=", ".join(files))
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--case", help="one case only; nothing is written")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(Path(asked.work[0]), *asked.work[1:3], Path(asked.work[3]))
        return 0
    unknown = [name for name in asked.only if name not in files]
    if unknown:
        parser.error(f"there is no comparison {unknown[0]}; there are {', '.join(files)}")
    for name in asked.only or files:
        comparison = read_comparison(files[name])
        runs = min(asked.runs, comparison.turns or asked.runs)
        print(f"{comparison.title}", flush=True)
        cases = {}
        for case in [asked.case] if asked.case else comparison.cases:
            cases[case] = measure(files[name], case, asked.device, runs)
            for side, found in cases[case]["sides"].items():
                if "median" in found:
                    ratio = f"{found['ratio']['median']:.2f} times ours" if "ratio" in found else ""
                    print(f"  {case:<28} {side:<24} {found['median']:.4g} s  {ratio}", flush=True)
        if not asked.case:
            made = {
                "title": comparison.title,
                "text": comparison.text,
                "shown": comparison.shown,
                "runs": runs,
                "machine": machine(asked.device),
                "cases": cases,
            }
            RESULTS.mkdir(parents=True, exist_ok=True)
            (RESULTS / f"{name}.{asked.device}.json").write_text(json.dumps(made, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
