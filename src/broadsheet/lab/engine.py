"""From a job to recorded runs: plan it, find what is there, run the rest, record each run as it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broadsheet.cache import write_atomic
from broadsheet.errors import InputError, JobError, StoreError
from broadsheet.lab import schema
from broadsheet.lab.claims import SYSTEM
from broadsheet.lab.executors import Event, Executor, Task
from broadsheet.lab.identity import code_hash, data_checksum, device_kind, run_identity
from broadsheet.lab.jobs import BEAT, Jobs, unended
from broadsheet.lab.local import LocalExecutor
from broadsheet.lab.location import figures_folder
from broadsheet.lab.messages import (
    Begun,
    Drawn,
    Ended,
    JobSpec,
    News,
    Painted,
    Progress,
    Recorded,
    RunSpec,
    Started,
    TaskSpec,
    Written,
)
from broadsheet.lab.metrics import Filled, add_run, from_json
from broadsheet.lab.registry import Entry, ExperimentEntry
from broadsheet.lab.store import Store
from broadsheet.lab.taken import Taken

logger = logging.getLogger("broadsheet.engine")
LOOK = 0.25  # s
"""Between two looks at what other processes have taken."""

Watch = Callable[["Plan", News], None]


@dataclass
class Plan:
    """A job made concrete: every run with its identity, and which of them are recorded already.

    `left_out`: variants that the job's settings make the same as the system -> the settings that do.
    """

    entry: Entry
    experiment: ExperimentEntry
    job: JobSpec
    runs: list[RunSpec]
    task: Task
    found: set[str]
    left_out: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""

    @property
    def missing(self) -> list[RunSpec]:
        return [run for run in self.runs if run.id not in self.found]

    @property
    def seconds(self) -> float:
        """About how long what is missing takes at quick size."""
        return self.experiment.cost * len(self.missing) / len(self.experiment.variant_names())


def plan(entry: Entry, job: JobSpec, store: Store, priority: float = 0.0) -> Plan:
    """Works out the runs of a job, without importing the paper, JAX or torch.

    The user's settings count before a variant's own. A variant that they make the same as the system is left out, and named in
    the plan; `InputError` where none is left.
    """
    experiment = entry.experiment(job.experiment)
    given = schema.jsonable(schema.changes(experiment, job.preset, SYSTEM, job.overrides))
    job = dataclasses.replace(job, slug=entry.slug, overrides=given, repository=entry.folder is not None)
    if job.data is not None:
        if experiment.data is None:
            raise InputError(f"{experiment.name} takes no data of its own; leave --data out.")
        given = given | {experiment.data: str(Path(job.data).expanduser().absolute())}
    variants, left_out = _variants(experiment, job, given)
    seeds = job.seeds[:1] if experiment.deterministic else job.seeds
    device = device_kind() if experiment.command is None else "cpu"
    runs: list[RunSpec] = []
    for seed in seeds:
        for variant in variants:
            config = experiment.configure(job.preset, variant, given)
            if experiment.command is not None:
                config = {"command": experiment.command["commands"][variant], **({"settings": config} if config else {})}
            checksum = None
            if experiment.data is not None and config.get(experiment.data):
                checksum = data_checksum(config[experiment.data])
                config[experiment.data] = "given"
            identity = run_identity(entry, experiment, config, seed, device=device, data_checksum=checksum)
            runs.append(RunSpec(identity, variant, seed))
    found = store.has([run.id for run in runs])
    spec = TaskSpec(
        slug=entry.slug, module=entry.module, experiment=experiment.name, preset=job.preset, overrides=given,
        precision=experiment.precision, device=device, code_hash=code_hash(entry, experiment), trust=job.trust,
        command=_command(experiment), figure_seed=seeds[0],
        # configurations that are the same run once
        runs=tuple({run.id: run for run in runs if run.id not in found}.values()),
    )  # fmt: skip
    return Plan(entry, experiment, job, runs, Task(spec, experiment.exclusive, priority), found, left_out)


def _command(experiment: ExperimentEntry) -> dict[str, Any] | None:
    """What a worker is told of another repository's command, with the metrics that its claims' checks name."""
    if experiment.command is None:
        return None
    return {**experiment.command, "metrics": sorted({check.metric for claim in experiment.claims for check in claim.checks})}


def _variants(experiment: ExperimentEntry, job: JobSpec, given: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """A job's variants, and those among them that its settings make the same as the system -> these settings in words."""
    wanted = list(job.variants or experiment.variant_names())
    system = experiment.configure(job.preset, SYSTEM, given)
    left_out = {}
    for variant in wanted:
        config = experiment.configure(job.preset, variant, given)
        both = [name for name in experiment.variants.get(variant, ()) if name in given]
        if both and config == system:
            left_out[variant] = ", ".join(f"{name}={_text(given[name])}" for name in both)
    if len(left_out) == len(wanted):
        variant, settings = next(iter(left_out.items()))
        raise InputError(f"{experiment.name}: with {settings} the variant {variant!r} is the same as the system; run that.")
    return [variant for variant in wanted if variant not in left_out], left_out


def _text(value: Any) -> str:
    return "+".join(map(_text, value)) if isinstance(value, list) else "none" if value is None else str(value)


def execute(
    plans: Sequence[Plan],
    store: Store,
    executor: Executor | None = None,
    watch: Watch = lambda plan, event: None,
    deadline: float | None = None,
) -> None:
    """Runs what the plans miss, of one priority the longest first, which leaves processes idle least at the end.

    Each run is recorded as it ends; a failure is kept in its plan and stops no other. What another process of this home has
    taken is waited for, then found, or run here where the other did not come to its end.
    """
    executor = executor or LocalExecutor()
    with Execution(store, watch) as execution:
        todo = sorted((made for made in plans if execution.needed(made)), key=lambda made: -made.seconds)
        waiting, told = todo, False
        while waiting:
            mine = [made for made in waiting if execution.take(made)]
            waiting = [made for made in waiting if not any(made is other for other in mine)]
            executor.run([execution.add(made) for made in mine if execution.needed(made)], execution.handle, deadline)
            if waiting:
                if deadline is not None and time.monotonic() > deadline:
                    break
                if not told:
                    logger.warning("Another process runs %d of the experiments; what it finds is waited for.", len(waiting))
                    told = True
                time.sleep(LOOK)
        if not isinstance(executor, LocalExecutor):  # a cluster's workers have no reports to draw from
            late = [made for made in todo if not made.missing and _wants_figures(made, store)]
            for made in late:
                made.task.spec = dataclasses.replace(made.task.spec, runs=(), figures=_folders(made, store))
                made.task.state, made.task.attempts = "queued", 0
            LocalExecutor().run([made.task for made in late], execution.handle)


class Execution:
    """Plans on their way through an executor: what their tasks say is recorded, told to the store, and watched.

    A context manager: meanwhile its jobs give signs of life; on leaving, scratch folders go, and after an error or an
    interruption the jobs without an end are cancelled.
    """

    def __init__(self, store: Store, watch: Watch = lambda plan, event: None) -> None:
        self.store, self.watch = store, watch
        self.jobs = Jobs(store)
        self._plans: dict[int, tuple[Plan, int, Path]] = {}
        self._told: dict[int, float] = {}
        self._over = threading.Event()
        self._taken = Taken(store.folder)

    def __enter__(self) -> Execution:
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._over.set()
        for _, _, scratch in self._plans.values():
            shutil.rmtree(scratch, ignore_errors=True)
        self._taken.clear()
        if kind is not None:
            try:
                self.jobs.stop_mine("stopped")
            except StoreError:
                unended.add(self.store.folder)

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with contextlib.suppress(StoreError):
                self.jobs.beat()

    def needed(self, made: Plan) -> bool:
        """Whether a plan has anything to do."""
        return bool(made.missing) or _wants_figures(made, self.store)

    def take(self, made: Plan) -> bool:
        """Takes a plan for this process; False where another one of this home has it. What that recorded is found then."""
        if not self._taken.take(_what(made)):
            return False
        made.found |= self.store.has([run.id for run in made.missing])
        made.task.spec = dataclasses.replace(made.task.spec, runs=tuple({run.id: run for run in made.missing}.values()))
        if not self.needed(made):
            self._taken.let_go(_what(made))
        return True

    def add(self, made: Plan, job_id: int | None = None) -> Task:
        """The task of a plan, ready for an executor; `job_id` where the job is in the queue already."""
        scratch = self.store.scratch()
        figures = _folders(made, self.store) if _wants_figures(made, self.store) else None
        made.task.spec = dataclasses.replace(made.task.spec, scratch=str(scratch), figures=figures)
        job_id = job_id or self.jobs.start(made.job)
        self._plans[id(made.task)] = (made, job_id, scratch)
        return made.task

    def forget(self, task: Task) -> None:
        """Lets go of a task that was stopped and whose job goes back to the queue."""
        made, _, scratch = self._plans.pop(id(task))
        shutil.rmtree(scratch, ignore_errors=True)
        self._taken.let_go(_what(made))

    def handle(self, task: Task, event: Event) -> None:
        """Takes what an executor says of a task."""
        made, job_id, _ = self._plans[id(task)]
        match event:
            case Begun():
                done = len(made.runs) - len(made.missing)
                self._tell(made, job_id, Started(event.id, event.variant, event.seed, done, len(made.runs)))
            case Progress():
                self._progress(made, job_id, event)
            case Written():
                self.store.record(Path(event.folder))
                made.found.add(event.id)
                self._tell(made, job_id, Recorded(event.id, len(made.runs) - len(made.missing)))
            case Painted():
                keep_figure(self.store, made, event)
                self._tell(made, job_id, Drawn(event.name))
            case Ended():
                if event.state != "done":
                    made.failure = event.message or event.state
                self.jobs.end(job_id, event.state, event.message)
                self._taken.let_go(_what(made))
                self.watch(made, event)

    def _tell(self, made: Plan, job_id: int, news: News) -> None:
        """An event that readers miss stops no run."""
        with contextlib.suppress(StoreError):
            self.jobs.tell(job_id, news)
        self.watch(made, news)

    def _progress(self, made: Plan, job_id: int, news: Progress) -> None:
        """Tells the store twice a second at the most, and only of numbers that can be drawn."""
        now = time.monotonic()
        if now - self._told.get(job_id, 0.0) < 0.5 and news.fraction < 1:
            self.watch(made, news)
            return
        self._told[job_id] = now
        shown = {name: value for name, value in news.metrics.items() if math.isfinite(value)}
        self._tell(made, job_id, dataclasses.replace(news, metrics=shown))


def _what(made: Plan) -> list[Any]:
    """What a plan's runs have in common that another's do not."""
    job = made.job
    return [job.slug, job.experiment, job.preset, dict(job.overrides), job.data, str(made.entry.folder or "")]


def keep_figure(store: Store, made: Plan, figure: Painted) -> None:
    """Moves a drawn figure into the store, with its caption and what it was drawn from."""
    folder = figures_folder(store.folder, made.entry.slug, made.experiment.name, made.job.preset)
    folder.mkdir(parents=True, exist_ok=True)
    os.replace(figure.path, folder / f"{figure.name}.svg")
    write_atomic(folder / f"{figure.name}.txt", figure.caption)
    write_atomic(folder / "drawn-from", _drawn_from(made))


def _drawn_from(made: Plan) -> str:
    seed = made.runs[0].seed
    return " ".join(sorted(run.id for run in made.runs if run.seed == seed))


def _wants_figures(made: Plan, store: Store) -> bool:
    """Whether figures are to be drawn: a whole set of variants without overrides, not drawn from these runs yet, with folders
    that are here, and not on the disk of another machine that shares the database."""
    job = made.job
    whole = {run.variant for run in made.runs} == set(made.experiment.variant_names())
    if not (job.figures and made.experiment.figures and whole and not job.overrides and job.data is None):
        return False
    stamp = figures_folder(store.folder, made.entry.slug, made.experiment.name, job.preset) / "drawn-from"
    drawn = stamp.exists() and stamp.read_text() == _drawn_from(made)
    return not drawn and all(Path(folder).is_dir() for folder in _folders(made, store).values())


def _folders(made: Plan, store: Store) -> dict[str, str]:
    """Variant -> folder of the recorded run of the figures' seed."""
    seed = made.runs[0].seed
    return {run.variant: str(store.runs / run.id) for run in made.runs if run.seed == seed and run.id in made.found}


def metrics_table(plans: Sequence[Plan], store: Store) -> dict[str, Filled]:
    """experiment -> metrics by seed and by variant or arm, of all recorded runs of the plans."""
    tables: dict[str, Filled] = {}
    rows = {run.id: run for made in plans for run in store.find(slug=made.entry.slug, experiment=made.experiment.name)}
    for made in plans:
        table = tables.setdefault(made.experiment.name, {})
        for run in made.runs:
            if run.id in rows:
                add_run(table, run.seed, run.variant, from_json(rows[run.id].scalars))
    return tables


def raise_failures(plans: Sequence[Plan]) -> None:
    """`JobError` with the first failure, where a plan has one."""
    for made in plans:
        if made.failure:
            raise JobError(f"{made.entry.slug}: {made.experiment.name} failed: {made.failure}")
