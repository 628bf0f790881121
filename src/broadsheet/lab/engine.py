"""From a request to recorded runs: plan, find what is there, run the rest, record each run as it ends."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broadsheet.cache import write_atomic
from broadsheet.errors import InputError, JobError, StoreError
from broadsheet.lab.executors import Executor, LocalExecutor, Task
from broadsheet.lab.identity import code_hash, data_checksum, device_kind, run_identity
from broadsheet.lab.jobs import Jobs
from broadsheet.lab.location import figures_folder
from broadsheet.lab.paper import FIRST_SEED
from broadsheet.lab.registry import Entry, ExperimentEntry
from broadsheet.lab.store import Store

Watch = Callable[["Plan", dict[str, Any]], None]


@dataclass(frozen=True)
class Request:
    """A job by names only: an experiment at a preset, its variants, seeds and overrides."""

    experiment: str
    preset: str = "quick"
    variants: tuple[str, ...] | None = None  # None: all
    seeds: tuple[int, ...] = (FIRST_SEED,)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    trust: bool = False
    figures: bool = True
    priority: float = 0.0


@dataclass
class Plan:
    """A request made concrete: every run with its identity, and which of them are recorded already."""

    entry: Entry
    experiment: ExperimentEntry
    request: Request
    runs: list[dict[str, Any]]
    task: Task
    found: set[str]
    failure: str = ""

    @property
    def missing(self) -> list[dict[str, Any]]:
        return [run for run in self.runs if run["id"] not in self.found]

    @property
    def seconds(self) -> float:
        """About how long what is missing takes at quick size."""
        return self.experiment.cost * len(self.missing) / len(self.experiment.variant_names())


def plan(entry: Entry, request: Request, store: Store) -> Plan:
    """Works out the runs of a request, without importing the paper, JAX or torch."""
    experiment = entry.experiment(request.experiment)
    variants = request.variants or tuple(experiment.variant_names())
    overrides = dict(request.overrides)
    if request.data is not None:
        if experiment.data is None:
            raise InputError(f"{experiment.name} takes no data of its own; leave --data out.")
        overrides[experiment.data] = str(Path(request.data).expanduser().absolute())
    seeds = request.seeds[:1] if experiment.deterministic else request.seeds
    device = device_kind() if experiment.command is None else "cpu"
    runs: list[dict[str, Any]] = []
    for seed in seeds:
        for variant in variants:
            config = experiment.configure(request.preset, variant, overrides)
            if experiment.command is not None:
                config = {"command": experiment.command["commands"][variant]}
            checksum = None
            if experiment.data is not None and config.get(experiment.data):
                checksum = data_checksum(config[experiment.data])
                config[experiment.data] = "given"
            identity = run_identity(entry, experiment, config, seed, device=device, data_checksum=checksum)
            runs.append({"id": identity, "variant": variant, "seed": seed})
    found = store.has([run["id"] for run in runs])
    spec = {
        "slug": entry.slug,
        "module": entry.module,
        "experiment": experiment.name,
        "preset": request.preset,
        "overrides": overrides,
        "precision": experiment.precision,
        "device": device,
        "code_hash": code_hash(entry, experiment),
        "trust": request.trust,
        "command": dict(experiment.command) if experiment.command else None,
        "figure_seed": seeds[0],
        "runs": [],
        "figures": None,
    }
    made = Plan(entry, experiment, request, runs, Task(spec, experiment.exclusive, request.priority), found)
    # configurations that are the same run once
    spec["runs"] = list({run["id"]: run for run in made.missing}.values())
    return made


def execute(
    plans: Sequence[Plan],
    store: Store,
    executor: Executor | None = None,
    watch: Watch = lambda plan, event: None,
    deadline: float | None = None,
) -> None:
    """Runs what the plans miss, of one priority the longest first, which leaves processes idle least at the end.

    Each run is recorded as it ends; a failure is kept in its plan and stops no other.
    """
    executor = executor or LocalExecutor()
    with Execution(store, watch) as execution:
        todo = sorted((made for made in plans if execution.needed(made)), key=lambda made: -made.seconds)
        executor.run([execution.add(made) for made in todo], execution.handle, deadline)
        if not isinstance(executor, LocalExecutor):  # a cluster's workers have no reports to draw from
            late = [made for made in todo if not made.missing and _wants_figures(made, store)]
            for made in late:
                made.task.spec |= {"runs": [], "figures": _folders(made, store)}
                made.task.state, made.task.attempts = "queued", 0
            LocalExecutor().run([made.task for made in late], execution.handle)


class Execution:
    """Plans on their way through an executor: what their tasks say is recorded, told to the store, and watched.

    A context manager: on leaving, scratch folders go and jobs without an end are cancelled.
    """

    def __init__(self, store: Store, watch: Watch = lambda plan, event: None) -> None:
        self.store, self.watch = store, watch
        self.jobs = Jobs(store)
        self._plans: dict[int, tuple[Plan, int, Path]] = {}
        self._told: dict[int, float] = {}

    def __enter__(self) -> Execution:
        return self

    def __exit__(self, *_: object) -> None:
        for made, job_id, scratch in self._plans.values():
            shutil.rmtree(scratch, ignore_errors=True)
            if made.task.state in ("queued", "running"):
                with contextlib.suppress(StoreError):
                    self.jobs.end(job_id, "cancelled", "stopped")

    def needed(self, made: Plan) -> bool:
        """Whether a plan has anything to do."""
        return bool(made.missing) or _wants_figures(made, self.store)

    def add(self, made: Plan, job_id: int | None = None) -> Task:
        """The task of a plan, ready for an executor; `job_id` where the job is in the queue already."""
        scratch = self.store.scratch()
        made.task.spec["scratch"] = str(scratch)
        if _wants_figures(made, self.store):
            made.task.spec["figures"] = _folders(made, self.store)
        job_id = job_id or self.jobs.start(job_spec(made))
        self._plans[id(made.task)] = (made, job_id, scratch)
        return made.task

    def forget(self, task: Task) -> None:
        """Lets go of a task that was stopped and whose job goes back to the queue."""
        _, _, scratch = self._plans.pop(id(task))
        shutil.rmtree(scratch, ignore_errors=True)

    def handle(self, task: Task, message: dict[str, Any]) -> None:
        """Takes what an executor says of a task."""
        made, job_id, _ = self._plans[id(task)]
        if message["event"] == "run":
            self.store.record(Path(message["folder"]))
            made.found.add(message["id"])
            self._tell(job_id, "run", {"id": message["id"], "done": len(made.runs) - len(made.missing)})
        elif message["event"] == "figure":
            keep_figure(self.store, made, message)
            self._tell(job_id, "figure", {"name": message["name"]})
        elif message["event"] == "start":
            run = {"id": message["id"], "variant": message["variant"], "seed": message["seed"]}
            self._tell(job_id, "start", {**run, "done": len(made.runs) - len(made.missing), "of": len(made.runs)})
        elif message["event"] == "progress":
            self._progress(job_id, message)
        elif message["event"] == "end":
            if task.state != "done":
                made.failure = task.message or task.state
            self.jobs.end(job_id, task.state, task.message)
        self.watch(made, message)

    def _tell(self, job_id: int, kind: str, data: dict[str, Any]) -> None:
        """An event that readers miss stops no run."""
        with contextlib.suppress(StoreError):
            self.jobs.tell(job_id, kind, data)

    def _progress(self, job_id: int, message: dict[str, Any]) -> None:
        """Tells the store twice a second at the most."""
        now = time.monotonic()
        if now - self._told.get(job_id, 0.0) < 0.5 and message["fraction"] < 1:
            return
        self._told[job_id] = now
        metrics = {name: value for name, value in message["metrics"].items() if math.isfinite(value)}
        self._tell(job_id, "progress", {"id": message["id"], "fraction": message["fraction"], "metrics": metrics})


def keep_figure(store: Store, made: Plan, message: Mapping[str, Any]) -> None:
    """Moves a drawn figure into the store, with its caption and what it was drawn from."""
    folder = figures_folder(store.folder, made.entry.slug, made.experiment.name, made.request.preset)
    folder.mkdir(parents=True, exist_ok=True)
    os.replace(message["path"], folder / f"{message['name']}.svg")
    write_atomic(folder / f"{message['name']}.txt", message["caption"])
    write_atomic(folder / "drawn-from", _drawn_from(made))


def _drawn_from(made: Plan) -> str:
    seed = made.runs[0]["seed"]
    return " ".join(sorted(run["id"] for run in made.runs if run["seed"] == seed))


def _wants_figures(made: Plan, store: Store) -> bool:
    """Whether figures are to be drawn: a whole set of variants without overrides, not drawn from these runs yet."""
    request = made.request
    whole = {run["variant"] for run in made.runs} == set(made.experiment.variant_names())
    if not (request.figures and made.experiment.figures and whole and not request.overrides and request.data is None):
        return False
    stamp = figures_folder(store.folder, made.entry.slug, made.experiment.name, request.preset) / "drawn-from"
    return not stamp.exists() or stamp.read_text() != _drawn_from(made)


def _folders(made: Plan, store: Store) -> dict[str, str]:
    """Variant -> folder of the recorded run of the figures' seed."""
    seed = made.runs[0]["seed"]
    return {run["variant"]: str(store.runs / run["id"]) for run in made.runs if run["seed"] == seed and run["id"] in made.found}


def job_spec(made: Plan) -> dict[str, Any]:
    """A plan as the row of its job."""
    request = made.request
    return {
        "slug": made.entry.slug, "experiment": made.experiment.name, "preset": request.preset,
        "variants": list(request.variants or made.experiment.variant_names()), "seeds": list(request.seeds),
        "overrides": {name: str(value) for name, value in request.overrides.items()}, "runs": len(made.missing),
    }  # fmt: skip


def metrics_table(plans: Sequence[Plan], store: Store) -> dict[str, dict[int, dict[str, dict[str, float]]]]:
    """experiment -> seed -> variant or arm -> metrics, of all recorded runs of the plans."""
    table: dict[str, dict[int, dict[str, dict[str, float]]]] = {}
    rows = {run.id: run for made in plans for run in store.find(slug=made.entry.slug, experiment=made.experiment.name)}
    for made in plans:
        seeds = table.setdefault(made.experiment.name, {})
        for run in made.runs:
            if run["id"] in rows:
                arms = seeds.setdefault(run["seed"], {})
                for arm, metrics in rows[run["id"]].scalars.items():
                    name = arm if arm and run["variant"] == "system" else run["variant"]
                    if not arm or run["variant"] == "system":
                        arms[name] = {k: float("nan") if v is None else v for k, v in metrics.items()}
    return table


def raise_failures(plans: Sequence[Plan]) -> None:
    """`JobError` with the first failure, where a plan has one."""
    for made in plans:
        if made.failure:
            raise JobError(f"{made.entry.slug}: {made.experiment.name} failed: {made.failure}")
