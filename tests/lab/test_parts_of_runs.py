"""Parts of a run's way by themselves, with nothing started: what a worker reads and writes, what executors make of messages."""

import json
import math
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from broadsheet.errors import InputError, JobError
from broadsheet.lab import api, cluster, engine, local, messages, presence, runner, worker
from broadsheet.lab.cluster import DaskExecutor
from broadsheet.lab.executors import Task
from broadsheet.lab.local import LocalExecutor, worker_environment
from broadsheet.lab.messages import RunSpec, TaskSpec
from broadsheet.lab.paper import Report
from broadsheet.lab.registry import entry

RUNS = tuple(RunSpec(letter * 64, variant, seed) for letter, variant, seed in (("a", "system", 100), ("b", "off", 101)))


def spec(**changed):
    given = {
        "slug": "toy", "module": "toy", "experiment": "one", "preset": "quick", "runs": RUNS, "overrides": {},
        "precision": "float32", "device": "cpu", "code_hash": "c" * 64, "figure_seed": 100, "trust": False, "command": None, **changed,
    }  # fmt: skip
    return TaskSpec(**given)


@pytest.mark.parametrize(
    ("written", "needed", "said"),
    [
        ("[1]", (), "wrote JSON that is no object"),
        ('{"a": "x"}', ("a",), "the metric 'a' as text ('x')"),
        ('{"a": null}', ("a",), "the metric 'a' as null"),
        ('{"a": [1]}', ("a",), "the metric 'a' as a list"),
        ('{"a": {"b": 1, "c": 2}}', ("a",), r"the metric 'a' as an object ('b', 'c')"),
        ('{"a": 1' + "0" * 309 + "}", (), "a number of 310 digits"),
    ],
)
def test_metrics_that_are_none_are_told(tmp_path, written, needed, said):
    file = tmp_path / "out.json"
    file.write_text(written)
    with pytest.raises(JobError) as error:
        worker._metrics("./run", file, needed)
    assert said in str(error.value)
    with pytest.raises(JobError, match="wrote no file"):
        worker._metrics("./run", tmp_path / "none.json", ())


def test_metrics_are_the_numbers_of_a_file(tmp_path):
    file = tmp_path / "out.json"
    file.write_text('{"a": 1, "b": 2.5, "note": "x", "list": [1]}')
    assert worker._metrics("./run", file, ("a", "c")) == {"a": 1, "b": 2.5}
    assert worker._filled("--seed={seed} {seed} {out}", {"seed": 3, "out": Path("o")}) == "--seed=3 3 o"


def test_progress_is_told_five_times_a_second_at_the_most_and_at_the_end(home, monkeypatch):
    said, now = [], [0.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: now[0])
    log = worker.RunLog(SimpleNamespace(say=said.append), RUNS[0])
    for at, fraction in ((1.0, 0.1), (1.1, 0.2), (1.2, 0.3), (1.3, 0.4), (1.35, 1.0), (1.36, 1.0)):
        now[0] = at
        log.progress(fraction, loss=np.float32(fraction))
    assert [each.fraction for each in said] == [0.1, 0.4, 1.0, 1.0]
    assert [type(value) for value in said[0].metrics.values()] == [float]
    assert log.checkpoint("x") == home / "checkpoints" / RUNS[0].id / "x"


def test_a_finished_run_is_a_folder_with_all_that_is_known_of_it(tmp_path, monkeypatch):
    report = Report({"auc": 0.5, "bad": math.nan}, {"curve": np.arange(3.0)}, {"off": {"auc": 0.25}})
    folder = worker.write_run(spec(scratch=str(tmp_path)), RUNS[1], report, {"width": 3}, 1.23456)
    record = json.loads((folder / "run.json").read_text())
    assert folder == tmp_path / RUNS[1].id
    assert {name: record[name] for name in ("id", "slug", "experiment", "preset", "variant", "seed", "config")} == {
        "id": RUNS[1].id, "slug": "toy", "experiment": "one", "preset": "quick", "variant": "off", "seed": 101,
        "config": {"width": 3},
    }  # fmt: skip
    assert record["scalars"] == {"": {"auc": 0.5, "bad": None}, "off": {"auc": 0.25}}
    assert (record["seconds"], record["code_hash"], record["precision"], record["device"]) == (
        1.235,
        "c" * 64,
        "float32",
        "cpu",
    )
    assert record["arrays_bytes"] == (folder / "arrays.npz").stat().st_size > 0
    assert 10 < record["peak_mib"] < 100_000
    found = worker._load(folder)
    assert found.arrays["curve"].tolist() == [0, 1, 2]
    assert (found.metrics["auc"], math.isnan(found.metrics["bad"])) == (0.5, True)
    bare = worker.write_run(spec(scratch=str(tmp_path)), RUNS[0], Report({"auc": 1.0}), {}, 0.0)
    assert not (bare / "arrays.npz").exists()
    assert json.loads((bare / "run.json").read_text())["arrays_bytes"] == 0


def test_temporary_files_stay_in_the_folder_where_its_path_is_short(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setattr(worker.tempfile, "tempdir", None)
    for length, kept in ((75, True), (76, False)):
        folder = (
            tmp_path / ("x" * (length - len(str(tmp_path)) - 1))
            if len(str(tmp_path)) < 74
            else Path("/tmp") / ("y" * (length - 5))
        )
        assert len(str(folder)) == length
        monkeypatch.setenv("TMPDIR", "/tmp")
        monkeypatch.setattr(worker.Path, "mkdir", lambda *_, **__: None)
        worker._keep_temporary_files(folder)
        assert (os.environ["TMPDIR"] == str(folder)) is kept


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"precision": "float64"}, "JAX_ENABLE_X64", "1"), ({"precision": "float32"}, "JAX_ENABLE_X64", "0"),
        ({"device": "cpu"}, "JAX_PLATFORMS", "cpu"), ({"device": "gpu"}, "JAX_PLATFORMS", "cuda,cpu"),
        ({"trust": True}, "BROADSHEET_TRUST", "1"), ({"trust": False}, "BROADSHEET_TRUST", "0"),
    ],
)  # fmt: skip
def test_a_process_knows_its_precision_its_device_and_whom_it_trusts(given, name, value, monkeypatch):
    monkeypatch.setenv(name, "something else")
    monkeypatch.setenv("MINE", "kept")
    made = worker_environment(spec(**given))
    assert (made[name], made["MINE"]) == (value, "kept")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    assert worker_environment(spec())["TF_CPP_MIN_LOG_LEVEL"] == "3"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    assert worker_environment(spec())["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_cores_are_shared_out_among_processes(monkeypatch):
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4} if pid == 0 else {9}, raising=False)
    made = LocalExecutor(2)
    assert LocalExecutor(0).processes == 1
    assert LocalExecutor(1)._free_cores() == set()
    assert made._free_cores() == {0, 1}
    made._running[1] = SimpleNamespace(cores={0, 1})
    assert made._free_cores() == {2, 3}
    made._running[2] = SimpleNamespace(cores={2, 3})
    assert made._free_cores() == {4, 0}


def at_work(executor, **facts):
    task = Task(spec(), state="running", attempts=facts.pop("attempts", 1), **facts)
    process = SimpleNamespace(returncode=-9, pid=1, stdin=SimpleNamespace(close=lambda: None))
    made = local._Worker(process, ("float32", "cpu", False), set(), task)
    executor._running[id(task)] = made
    return made, task


def test_a_lost_process_is_tried_three_times(monkeypatch):
    for attempts, state in ((1, "queued"), (2, "queued"), (3, "failed")):
        made, ended, waiting = LocalExecutor(), [], []
        of, task = at_work(made, attempts=attempts)
        made._handle(of, None, waiting, lambda task, event, ended=ended: ended.append(event))
        assert task.state == state
        assert (waiting == [task]) is (state == "queued")
        assert len(ended) == (state == "failed")
        assert not made._running
    assert ended[0].message == "its process was lost 3 times (exit -9)"


def test_what_executors_make_of_a_workers_words(monkeypatch):
    monkeypatch.setattr(local, "_signal", lambda process, number: None)
    made, seen = LocalExecutor(), []
    of, task = at_work(made)
    handle = lambda task, event: seen.append(event)  # noqa: E731
    written = messages.Written(RUNS[0].id, "folder", 1.0)
    made._handle(of, written, [], handle)
    assert task.finished == {RUNS[0].id}
    assert [run.id for run in task.left().runs] == [RUNS[1].id]
    made._handle(of, messages.Failed("why", "where"), [], handle)
    assert (task.state, task.message, task.trace) == ("failed", "why", "where")
    assert seen == [written]
    made._handle(of, None, [], handle)
    assert (seen[-1].state, seen[-1].message) == ("failed", "why")
    of, task = at_work(made)
    made._handle(of, messages.Done(), [], handle)
    assert (task.state, of.task, made._idle, made._running) == ("done", None, [of], {})
    made._handle(of, None, [], handle)  # the idle one has ended
    assert made._idle == []
    of, task = at_work(made, exclusive=True)
    made._handle(of, messages.Done(), [], handle)
    assert made._idle == []
    of, task = at_work(made)
    made.cancel(task)
    made._handle(of, None, [], handle)
    assert task.state == seen[-1].state == "cancelled"


def future(status, result=None, error=None):
    return SimpleNamespace(status=status, result=lambda: result, exception=lambda: error)


@pytest.mark.parametrize(
    ("made", "state", "message"),
    [
        (future("finished", ("cancelled", "")), "cancelled", ""),
        (future("error", error=ValueError("why")), "failed", "why"),
        (future("cancelled"), "failed", "it was cancelled on the cluster"),
    ],
)
def test_how_a_piece_of_work_on_a_cluster_ends(made, state, message):
    task = Task(spec(), state="running")
    DaskExecutor._settle(made, task, RUNS[0])
    assert (task.state, task.message) == (state, message)
    failed = Task(spec(), state="failed", message="before")
    DaskExecutor._settle(made, failed, RUNS[0])
    assert failed.message == "before"
    done = Task(spec(), state="running", finished={RUNS[0].id})
    DaskExecutor._settle(made, done, RUNS[0])
    assert done.state == "running"


def test_when_nothing_more_is_to_come_of_a_run():
    task = Task(spec())
    over = {status: DaskExecutor._is_over(future(status), task, RUNS[0]) for status in
            ("pending", "lost", "finished", "error", "cancelled")}  # fmt: skip
    assert over == {"pending": False, "lost": False, "finished": True, "error": True, "cancelled": True}
    task.finished.add(RUNS[0].id)
    assert DaskExecutor._is_over(future("lost"), task, RUNS[0])


class Stream:
    """A queue that gives what it holds, then nothing."""

    def __init__(self, *held):
        self.held = list(held)
        self.asked = 0

    def qsize(self):
        return len(self.held)

    def get(self, timeout):
        self.asked += 1
        if not self.held:
            raise TimeoutError
        return self.held.pop(0)


def test_a_queue_is_emptied_and_results_become_folders(tmp_path):
    source = tmp_path / "made"
    source.mkdir()
    (source / "run.json").write_text("{}")
    task, seen = Task(spec(scratch=str(tmp_path / "scratch"))), []
    begun, written = messages.Begun(RUNS[0].id, "system", 100), messages.Written(RUNS[0].id, str(source), 1.0)
    stream = Stream((7, messages.line(begun), None), (7, messages.line(written), cluster._pack(source)))
    DaskExecutor._drain(stream, {7: task}, lambda task, event: seen.append(event))
    assert stream.asked == 2
    assert seen[0] == begun
    folder = Path(seen[1].folder)
    assert folder.parent == tmp_path / "scratch"
    assert (folder / "run.json").read_text() == "{}"
    assert sorted(folder.parent.iterdir()) == [folder]
    assert task.finished == {RUNS[0].id}
    for wait, asked in ((False, 0), (True, 1)):
        empty = Stream()
        assert list(cluster._messages(empty, wait)) == []
        assert empty.asked == asked


def test_reports_are_of_the_first_seed_the_system_first():
    runs = [RunSpec(f"{k}" * 64, variant, seed) for k, (seed, variant) in enumerate(
        [(100, "off"), (100, "system"), (100, "lost"), (101, "off"), (101, "system")])]  # fmt: skip
    asked = {}

    class Store:
        def find(self, **which):
            asked.update(which)
            return [SimpleNamespace(id=run.id) for run in runs if run.variant != "lost"]

        def report(self, row):
            return row.id[0]

    made = SimpleNamespace(entry=SimpleNamespace(slug="toy"), experiment=SimpleNamespace(name="one"), runs=runs)
    found = api.collect(made, Store())
    assert found == {"system": "1", "off": "0"}
    assert list(found) == ["system", "off"]
    assert asked == {"slug": "toy", "experiment": "one"}


def test_plans_say_what_is_missing_and_how_long_it_takes():
    experiment = SimpleNamespace(cost=30.0, variant_names=lambda: ["system", "off", "null"], name="one")
    made = engine.Plan(SimpleNamespace(slug="toy"), experiment, None, list(RUNS), Task(spec()), {RUNS[0].id})
    assert made.missing == [RUNS[1]]
    assert made.seconds == 10.0
    assert engine._drawn_from(made) == RUNS[0].id
    engine.raise_failures([made])
    made.failure = "why"
    with pytest.raises(JobError, match="toy: one failed: why"):
        engine.raise_failures([made])
    assert [engine._text(value) for value in ([1, [2, None]], None, 0.5, "x")] == ["1+2+none", "none", "0.5", "x"]


def test_progress_reaches_the_store_twice_a_second_at_the_most(store_free_execution, monkeypatch):
    made, told, watched, now = *store_free_execution, [0.0]
    monkeypatch.setattr(engine.time, "monotonic", lambda: now[0])
    for at, fraction, loss in ((10.0, 0.1, 1.0), (10.4, 0.2, 1.0), (10.5, 0.3, math.nan), (10.6, 1.0, 2.0)):
        now[0] = at
        made._progress(None, 1, messages.Progress("a", fraction, {"loss": loss}))
    assert [news.fraction for news in told] == [0.1, 0.3, 1.0]
    assert [dict(news.metrics) for news in told] == [{"loss": 1.0}, {}, {"loss": 2.0}]
    assert [news.fraction for news in watched] == [0.1, 0.2, 0.3, 1.0]


@pytest.fixture
def store_free_execution():
    told, watched = [], []
    made = object.__new__(engine.Execution)
    made.jobs = SimpleNamespace(tell=lambda job, news: told.append(news))
    made.watch, made._told = lambda plan, news: watched.append(news), {}
    return made, told, watched


@pytest.mark.parametrize(("seeds", "count"), [(1, 1), (3, 3), (100, 100), (0, None), (101, None)])
def test_as_many_seeds_are_queued_as_asked_for(seeds, count):
    queued = []
    jobs = SimpleNamespace(queue=lambda spec, priority: queued.append((spec, priority)) or len(queued))
    name = next(name for name, made in entry("sdr-dendrites").experiments.items() if not made.deterministic)
    if count is None:
        with pytest.raises(InputError, match=f"{seeds} seeds; 1 to 100"):
            runner.queue_runs(jobs, "sdr-dendrites", name, seeds=seeds)
        return
    assert runner.queue_runs(jobs, "sdr-dendrites", name, seeds=seeds, priority=2.0) == [1]
    assert queued[0][0].seeds == tuple(range(100, 100 + count))
    assert (queued[0][1], queued[0][0].preset) == (2.0, "quick")


def test_all_experiments_of_a_size_are_queued_with_the_seeds_of_their_claims():
    queued = []
    jobs = SimpleNamespace(queue=lambda spec, priority: queued.append(spec) or len(queued))
    made = entry("sdr-dendrites")
    assert runner.queue_runs(jobs, made.slug, seeds=None) == list(range(1, len(queued) + 1))
    wanted = {
        name: 1 if each.deterministic else each.seeds_at("quick")
        for name, each in made.experiments.items()
        if "quick" in each.presets
    }
    assert {spec.experiment: len(spec.seeds) for spec in queued} == wanted
    with pytest.raises(InputError, match="has no experiment with the preset 'huge'"):
        runner.queue_runs(jobs, made.slug, preset="huge")


def test_scratch_folders_are_named_after_a_process_that_is_there(tmp_path):
    folder = presence.scratch(tmp_path)
    name = presence.mine(tmp_path)
    assert folder.name.partition("-")[0] == name
    assert presence.own(tmp_path) == presence.known(tmp_path) == {name}
    assert presence.gone(tmp_path) == set()
    (tmp_path / "processes" / "0123456789ab").write_text("")
    for made in ("0123456789ab-x", "somebodys own", "abc"):
        (tmp_path / "scratch" / made).mkdir()
    assert presence.gone(tmp_path) == {"0123456789ab"}
    assert [place.name for place in presence.left_behind(tmp_path)] == ["0123456789ab-x"]
    presence.clear(tmp_path)
    assert presence.known(tmp_path) == {name}
    assert {place.name for place in (tmp_path / "scratch").iterdir()} == {folder.name, "somebodys own", "abc"}
    with presence.temporary(tmp_path) as place:
        assert place.is_dir()
    assert not place.exists()
    assert presence.gone(tmp_path / "none") == presence.known(tmp_path / "none") == set()
    assert presence.left_behind(tmp_path / "none") == []


@pytest.mark.parametrize("given", ["", "/somewhere/else"])
def test_compiled_programs_are_kept_at_home_unless_a_folder_is_named(toy, home, monkeypatch, given):
    import jax

    told = {}
    monkeypatch.setattr(jax.config, "update", told.__setitem__)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", given)
    worker._paper_runner(spec(experiment="coin"))
    assert told.pop("jax_compilation_cache_dir", None) == (None if given else str(home / "cache" / "jax"))
    assert told == {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}


class Flag:
    """What tells a piece of work on a cluster to stop."""

    def __init__(self, name=None, client=None):
        self.name, self.up = name, False

    def set(self):
        self.up = True

    def is_set(self):
        return self.up


class Cluster:
    """Stands in for Dask: a piece of work is done when it is handed in, by `does`, which puts what it sends into the queue."""

    def __init__(self, monkeypatch, does):
        self.queue, self.closed, self.submitted, self.does = Stream(), [], [], does
        self.queue.put, self.queue.close = self.queue.held.append, lambda: self.closed.append(True)
        stub = SimpleNamespace(Queue=lambda name, client: self.queue, Event=Flag, Client=lambda *given, **named: (given, named))
        monkeypatch.setitem(sys.modules, "distributed", stub)

    def submit(self, function, task, name, stop, owner, **options):
        self.submitted.append((task, owner, options))
        return self.does(self.queue, task.runs[0], owner)


def test_runs_on_a_cluster_are_pieces_of_work_by_priority(tmp_path, monkeypatch):
    def does(queue, run, owner):
        queue.put((owner, messages.line(messages.Begun(run.id, run.variant, run.seed)), None))
        return future("finished", ("running", ""))

    cluster_ = Cluster(monkeypatch, does)
    low, high = Task(spec(figures={"system": "x"}), priority=1.0), Task(spec(), priority=2.0)
    seen = []
    DaskExecutor(cluster_).run([low, high], lambda task, event: seen.append((task, event)))
    assert [owner for _, owner, _ in cluster_.submitted] == [id(high)] * 2 + [id(low)] * 2
    assert [task.runs for task, *_ in cluster_.submitted] == [(run,) for run in RUNS] * 2
    assert all(task.figures is None for task, *_ in cluster_.submitted)
    assert [options["priority"] for *_, options in cluster_.submitted] == [2.0, 2.0, 1.0, 1.0]
    assert not any(options["pure"] for *_, options in cluster_.submitted)
    assert len({options["key"] for *_, options in cluster_.submitted}) == 4
    ended = [(task, event) for task, event in seen if event.kind == "end"]
    assert ended == [(high, messages.Ended("done")), (low, messages.Ended("done"))]
    assert [event.kind for _, event in seen].count("start") == 4
    assert cluster_.closed == [True]


def test_a_cluster_where_pieces_fail_or_time_is_up(monkeypatch):
    cluster_ = Cluster(monkeypatch, lambda queue, run, owner: future("error", error=ValueError("why")))
    task, ended = Task(spec()), []
    executor = DaskExecutor(cluster_)
    executor.run([task], lambda task, event: ended.append(event))
    assert ended == [messages.Ended("failed", "why")]
    assert not executor._stop[id(task)].up
    late = Task(spec())
    executor.run([late], lambda task, event: None, deadline=-1.0)
    assert executor._stop[id(late)].up
    early = Task(spec())
    executor.run([early], lambda task, event: None, deadline=time.monotonic() + 100)
    assert not executor._stop[id(early)].up
    executor.cancel(Task(spec()))  # one that it does not have
    broken = Task(spec())
    cluster_.queue.held.append((id(broken), messages.line(messages.Begun("x", "system", 1)), None))
    with pytest.raises(ZeroDivisionError):
        executor.run([broken], lambda task, event: 1 / 0)
    assert executor._stop[id(broken)].up  # what it had begun is stopped
    assert DaskExecutor("tcp://there").client == (("tcp://there",), {"timeout": "10s"})


def test_a_piece_of_work_on_a_cluster_sends_what_it_finds_and_leaves_nothing(home, monkeypatch, tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (made / "run.json").write_text("{}")
    queue, stop, ran, cancelled = [], Flag(), [], []

    class Here:
        def run(self, tasks, send):
            (task,) = tasks
            ran.append(task.spec)
            for event in (messages.Begun("a", "system", 100), messages.Progress("a", 0.5), messages.Written("a", str(made), 1.0),
                          messages.Painted("f", "p", "c"), messages.Ended("done")):  # fmt: skip
                send(task, event)
            assert cancelled == []
            stop.set()
            send(task, messages.Progress("a", 0.75))
            assert cancelled[0] is task
            task.state, task.message = "done", "well"

        def cancel(self, task):
            cancelled.append(task)

    stub = SimpleNamespace(
        Event=lambda name, client: stop, Queue=lambda name, client: SimpleNamespace(put=queue.append), get_client=lambda: None
    )
    monkeypatch.setitem(sys.modules, "distributed", stub)
    monkeypatch.setattr(cluster, "LocalExecutor", Here)
    assert cluster.run_remotely(spec(), "queue", "stop", 7) == ("done", "well")
    assert [owner for owner, *_ in queue] == [7] * 4
    assert [json.loads(text)["kind"] for _, text, _ in queue] == ["start", "progress", "run", "progress"]
    assert [content is None for *_, content in queue] == [True, True, False, True]
    assert (ran[0].disposable, spec().disposable, spec().scratch, spec().figures) == (True, False, "", None)
    assert Path(ran[0].scratch).parent == home / "cluster" / "scratch"
    assert not Path(ran[0].scratch).exists()

    def fails(self, tasks, send):
        raise JobError("why")

    monkeypatch.setattr(Here, "run", fails)
    assert cluster.run_remotely(spec(), "queue", "stop", 7) == ("failed", "why")


def test_one_worker_after_the_other_is_alone(monkeypatch):
    """Told: which processes stand still for it. They go on when it has measured, or has ended."""
    sent = []
    monkeypatch.setattr(local, "_signal", lambda process, number: sent.append((process.pid, number)))
    monkeypatch.setattr(local._Worker, "tell", lambda worker, message: sent.append((worker.process.pid, message)))
    made = LocalExecutor(3)
    workers = []
    for pid in (1, 2, 3):
        worker_, _ = at_work(made)
        worker_.process.pid = pid
        workers.append(worker_)
    first, second, third = workers
    handle = lambda task, event: None  # noqa: E731
    made._handle(first, messages.Alone(), [], handle)
    made._handle(second, messages.Alone(), [], handle)
    assert sent == [(2, local.STOP), (3, local.STOP), (1, messages.Permit((2, 3)))]
    assert made._start([Task(spec())], handle) != []  # nothing starts meanwhile
    sent.clear()
    made._handle(first, messages.Together(), [], handle)
    going, then = sent[:3], sent[3:]
    assert going == [(pid, local.CONTINUE) for pid in (1, 2, 3)]
    assert then == [(1, local.STOP), (3, local.STOP), (2, messages.Permit((1, 3)))]
    sent.clear()
    made._handle(third, messages.Alone(), [], handle)
    made._handle(third, messages.Together(), [], handle)  # it had not been alone yet
    assert sent == []
    second.task.state = "failed"
    made._handle(second, None, [], handle)
    assert sent == [(1, local.CONTINUE), (3, local.CONTINUE)]
    assert made._alone is None


def test_as_many_tasks_start_as_there_are_processes_and_an_exclusive_one_alone(monkeypatch):
    launched = []
    monkeypatch.setattr(
        LocalExecutor,
        "_launch",
        lambda self, task, cores: launched.append((task, cores)) or self._running.update({id(task): at(task)}),
    )
    monkeypatch.setattr(LocalExecutor, "_free_cores", lambda self: {0})

    def at(task):
        return local._Worker(SimpleNamespace(pid=1), ("float32", "cpu", False), set(), task)

    def started(executor, *tasks):
        launched.clear()
        left = executor._start(list(tasks), lambda task, event: None)
        return [(task, cores) for task, cores in launched], left

    one, two, three, alone = (Task(spec()) for _ in range(4))
    alone.exclusive = True
    assert started(LocalExecutor(2), one, two, three) == ([(one, {0}), (two, {0})], [three])
    assert started(LocalExecutor(), one, two) == ([(one, {0})], [two])
    assert started(LocalExecutor(2), one) == ([(one, set())], [])  # by itself it has all cores
    assert started(LocalExecutor(2), alone, one) == ([(alone, set())], [one])
    assert started(LocalExecutor(2), one, alone) == ([(one, set())], [alone])
    gone = LocalExecutor(2)
    gone.cancel(one)
    ended = []
    assert gone._start([one], lambda task, event: ended.append(event)) == []
    assert (one.state, ended) == ("cancelled", [messages.Ended("cancelled")])


class Asked:
    """What a worker's process hears and says."""

    def __init__(self, *tasks):
        self.tasks, self.said = list(tasks), []

    def task(self):
        if not self.tasks:
            raise EOFError
        return self.tasks.pop(0)

    def say(self, message):
        self.said.append(message)


def test_a_process_takes_tasks_until_one_fails(monkeypatch):
    forgot, ran = [], []
    monkeypatch.setattr(worker, "_forget_programs", lambda: forgot.append(len(ran)))
    monkeypatch.setattr(worker, "_forget_peak", lambda: None)

    def run(task, coordinator):
        ran.append(task)
        if task.slug == "user":
            raise InputError("a mistake of the user's")
        if task.slug == "bug":
            raise ZeroDivisionError("of ours")

    monkeypatch.setattr(worker, "run_task", run)
    for tasks, said, code in (
        ([spec(), spec(), spec(module="other"), spec(slug="user"), spec()], [messages.Done()] * 3 + [messages.Failed("a mistake of the user's")], 1),
        ([spec(slug="bug")], None, 1),
    ):  # fmt: skip
        ran.clear(), forgot.clear()
        asked = Asked(*tasks)
        monkeypatch.setattr(worker, "Coordinator", lambda asked=asked: asked)
        assert worker.main() == code
        if said is not None:
            assert asked.said == said
            assert forgot == [2, 3]  # before a task of another module
        else:
            (failed,) = asked.said
            assert failed.message == "ZeroDivisionError: of ours"
            assert "Traceback" in failed.trace


def test_a_task_is_its_runs_then_its_figures(tmp_path, home, monkeypatch):
    drawn = []
    report = Report({"auc": 0.5}, {"curve": [1.0, 2.0]})
    monkeypatch.setattr(
        worker, "_paper_runner", lambda task: lambda run, log: (log.checkpoint("x").parent.mkdir(parents=True), (report, {}))[1]
    )
    monkeypatch.setattr(worker, "_draw", lambda task, figures, reports, coordinator: drawn.append((figures, reports)))
    monkeypatch.setattr(worker, "_keep_temporary_files", lambda folder: drawn.append(folder))
    asked = Asked()
    worker.run_task(spec(scratch=str(tmp_path), figures={"off": "there"}), asked)
    assert [each.kind for each in asked.said] == ["start", "run"] * 2
    assert asked.said[0] == messages.Begun(RUNS[0].id, "system", 100)
    assert asked.said[3].folder == str(tmp_path / RUNS[1].id)
    assert not list((home / "checkpoints").iterdir())
    temporary, (figures, reports) = drawn
    assert (temporary, figures, list(reports)) == (tmp_path / "tmp", {"off": "there"}, ["system"])  # of the figures' seed
    assert reports["system"].arrays["curve"].tolist() == [1.0, 2.0]
    drawn.clear()
    worker.run_task(spec(scratch=str(tmp_path), runs=()), Asked())
    assert drawn == [tmp_path / "tmp"]


def test_figures_are_drawn_from_all_variants_the_system_first(tmp_path, monkeypatch):
    order = []

    def curve(runs):
        """The curve
        of each."""
        order.append(list(runs))
        return SimpleNamespace(savefig=lambda path, metadata: path.write_text(str(metadata)))

    experiment = SimpleNamespace(
        variants={"off": {}, "null": {}}, figures={"curve": curve, "bare": lambda runs: curve(runs)},
        variant_names=lambda: ["system", "off", "null"],
    )  # fmt: skip
    monkeypatch.setattr("broadsheet.lab.registry.import_paper", lambda module: SimpleNamespace(experiments={"one": experiment}))
    found = worker.write_run(spec(scratch=str(tmp_path / "kept")), RUNS[0], Report({"auc": 1.0}), {}, 0.0)
    (tmp_path / "s").mkdir()
    task, asked = spec(scratch=str(tmp_path / "s")), Asked()
    worker._draw(task, {"off": str(found)}, {"null": Report(), "system": Report()}, asked)
    assert order == [["system", "off", "null"]] * 2
    assert [(each.name, Path(each.path).name, each.caption) for each in asked.said] == [
        ("curve", "curve.svg", "The curve of each."), ("bare", "bare.svg", "bare"),
    ]  # fmt: skip
    assert Path(asked.said[0].path).read_text() == "{'Date': None}"
    order.clear()
    worker._draw(task, {}, {"null": Report(), "system": Report()}, Asked())
    assert order == []  # one is missing


def test_a_command_is_filled_in_and_its_metrics_read(tmp_path, monkeypatch):
    ran = []

    def run(typed, words, folder, seconds):
        ran.append((typed, words, folder, seconds))
        Path(words[-1]).write_text('{"a": 0.5, "note": "x"}')

    monkeypatch.setattr(worker.commands, "run", run)
    told = {
        "commands": {"off": "./run '{seed} {n}' {out}"},
        "folder": "f",
        "timeout": 9.0,
        "metrics": ["a"],
        "settings": {"n": 1},
    }
    one = worker._command_runner(spec(scratch=str(tmp_path), overrides={"n": 2}), told)
    report, config = one(RUNS[1], None)
    out = tmp_path / f"{RUNS[1].id}.json"
    assert ran == [("./run '{seed} {n}' {out}", ["./run", "101 2", str(out)], "f", 9.0)]
    assert (report.metrics, config) == ({"a": 0.5}, {"command": told["commands"]["off"], "settings": {"n": 2}})
    assert not out.exists()
    del told["settings"]
    assert "settings" not in worker._command_runner(spec(scratch=str(tmp_path)), told)(RUNS[1], None)[1]


def test_an_experiment_gets_its_settings_and_the_key_of_its_seed(monkeypatch):
    import jax

    seen = []
    made = SimpleNamespace(
        configure=lambda *given: given,
        function=lambda config, key, log: seen.append((config, key, log)) or Report(),
        deterministic=False,
    )
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr("broadsheet.lab.registry.import_paper", lambda module: SimpleNamespace(experiments={"one": made}))
    one = worker._paper_runner(spec(overrides={"a": 1}))
    assert one(RUNS[1], "log")[1] == ["quick", "off", {"a": 1}]
    made.deterministic = True
    one(RUNS[1], "log")
    assert [config for config, *_ in seen] == [("quick", "off", {"a": 1})] * 2
    assert [int(jax.random.key_data(key)[-1]) for _, key, _ in seen] == [101, 0]
    for backend, device, right in (("gpu", "gpu", True), ("cuda", "gpu", True), ("cpu", "gpu", False), ("gpu", "cpu", False)):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        if right:
            worker._paper_runner(spec(device=device))
        else:
            with pytest.raises(JobError, match=f"planned for {device}, but JAX runs on {backend}"):
                worker._paper_runner(spec(device=device))
