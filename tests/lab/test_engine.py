import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

import broadsheet
from broadsheet.errors import InputError, JobError, StoreError
from broadsheet.lab.engine import execute, metrics_table, plan, raise_failures
from broadsheet.lab.ledger import keep_figures, make_entry, shown_figures, states, write
from broadsheet.lab.local import LocalExecutor, worker_environment
from broadsheet.lab.messages import Ended, JobSpec, Progress, Recorded, Started
from broadsheet.lab.store import RECORD_FILE, Store
from broadsheet.lab.tables import Job, Run
from waiting import until


def run(toy, store, job, executor=None, deadline=None):
    made = plan(toy, job, store)
    events = []
    execute([made], store, executor, lambda p, event: events.append(event), deadline)
    return made, events


def test_runs_are_recorded_whole_and_found_again(toy, store):
    made, events = run(toy, store, JobSpec("toy", "coin", seeds=(100, 101)))
    raise_failures([made])
    assert [e.kind for e in events if e.kind in ("run", "figure", "end")] == ["run"] * 4 + ["figure", "end"]
    assert any(isinstance(e, Progress) and e.metrics == {"live": 1.0} for e in events)
    table = metrics_table([made], store)["coin"]
    assert set(table) == {100, 101}
    assert 0.8 < table[100]["system"]["heads"] < 1
    assert 0.4 < table[100]["fair"]["heads"] < 0.6
    record = store.find(variant="fair", seed=100)[0]
    assert record.environment["jax"]
    assert record.peak_mib > 10
    assert store.report(record).arrays["shown"].shape == (400,)
    figure = store.folder / "figures/toy/coin/quick/heads.svg"
    assert "<svg" in figure.read_text()
    again, events = run(toy, store, JobSpec("toy", "coin", seeds=(100, 101)))
    assert not again.missing
    assert events == []
    more, events = run(toy, store, JobSpec("toy", "coin", seeds=(100, 102)))
    assert sum(isinstance(e, Recorded) for e in events) == 2
    assert not (store.folder / "scratch").exists() or list((store.folder / "scratch").iterdir()) == []


def test_figures_of_runs_on_another_machines_disk_are_left_to_it(toy, store):
    run(toy, store, JobSpec("toy", "coin", variants=("fair",)))
    shutil.rmtree(store.runs)
    store.runs.mkdir()
    made, events = run(toy, store, JobSpec("toy", "coin"))
    raise_failures([made])
    assert [e.kind for e in events if e.kind in ("run", "figure", "end")] == ["run", "end"]
    again, events = run(toy, store, JobSpec("toy", "coin"))
    assert (again.failure, events) == ("", [])


def test_precision_is_set_before_jax(toy, store):
    made, _ = run(toy, store, JobSpec("toy", "thirds"))
    metrics = metrics_table([made], store)["thirds"][100]["system"]
    assert metrics["x64"] == 1.0
    assert metrics["error"] < 1e-15


@pytest.mark.parametrize("trust", [{}, {"trust": True}])
def test_files_are_trusted_where_it_is_said_and_nowhere_else(toy, trust, monkeypatch):
    monkeypatch.setattr("broadsheet.lab.api.entry", lambda slug: toy)
    asked = []

    class Watching:
        def run(self, tasks, handle, deadline=None):
            asked.extend(task.spec for task in tasks)

    broadsheet.load("toy").run("thirds", executor=Watching(), **trust)
    (spec,) = asked
    assert spec.trust is bool(trust)
    environment = worker_environment(spec)
    assert environment["BROADSHEET_TRUST"] == ("1" if trust else "0")
    assert (environment["JAX_ENABLE_X64"], spec.precision) == ("1", "float64")
    for device, platforms in (("cpu", "cpu"), ("gpu", "cuda,cpu")):
        assert worker_environment(replace(spec, device=device))["JAX_PLATFORMS"] == platforms


def test_overrides_and_data_change_the_identity(toy, store, tmp_path):
    base = plan(toy, JobSpec("toy", "coin"), store).runs[0].id
    assert plan(toy, JobSpec("toy", "coin"), store).runs[0].id == base
    assert plan(toy, JobSpec("toy", "coin", overrides={"bias": "0.8"}), store).runs[0].id != base
    assert plan(toy, JobSpec("toy", "coin", overrides={"bias": "0.9"}), store).runs[0].id == base
    assert plan(toy, JobSpec("toy", "coin", overrides={"data": "none"}), store).runs[0].id == base
    assert plan(toy, JobSpec("toy", "coin", seeds=(7,)), store).runs[0].id != base
    assert plan(toy, JobSpec("toy", "coin", preset="smoke"), store).runs[0].id != base
    data = tmp_path / "d.csv"
    data.write_text("1")
    first = plan(toy, JobSpec("toy", "coin", data=str(data)), store).runs[0].id
    data.write_text("2")
    assert plan(toy, JobSpec("toy", "coin", data=str(data)), store).runs[0].id not in (first, base)


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (JobSpec("toy", "dice"), "no experiment 'dice'"),
        (JobSpec("toy", "coin", preset="huge"), "no preset 'huge'"),
        (JobSpec("toy", "coin", variants=("odd",)), "no variant 'odd'"),
        (JobSpec("toy", "coin", overrides={"colour": "red"}), "no setting 'colour'"),
        (JobSpec("toy", "coin", overrides={"tosses": "many"}), "a whole number is wanted"),
        (JobSpec("toy", "coin", overrides={"tosses": "1.5"}), "a whole number is wanted"),
        (JobSpec("toy", "coin", data="/does/not/exist"), "no such file"),
        (JobSpec("toy", "thirds", data="/tmp"), "takes no data"),
    ],
)
def test_mistakes_are_named_before_anything_runs(toy, store, job, words):
    with pytest.raises(InputError, match=words):
        plan(toy, job, store)


def test_a_failing_experiment_is_told_and_stops_no_other(toy, store):
    bad = plan(toy, JobSpec("toy", "coin", overrides={"crash": "error"}), store)
    good = plan(toy, JobSpec("toy", "thirds"), store)
    execute([bad, good], store)
    assert "it fell off the table" in bad.failure
    assert not good.failure
    assert not good.missing
    with pytest.raises(JobError, match="fell off"):
        raise_failures([bad, good])
    with store.session() as session:
        assert sorted(job.state for job in session.query(Job)) == ["done", "failed"]


def test_a_lost_process_is_started_again_with_the_next_run(toy, store):
    made, events = run(toy, store, JobSpec("toy", "coin", overrides={"crash": "kill"}))
    raise_failures([made])
    assert made.task.attempts == 3  # each of the two runs killed its first process
    assert sum(isinstance(e, Recorded) for e in events) == 2


def test_cancel_keeps_what_is_finished(toy, store):
    executor = LocalExecutor()
    made = plan(toy, JobSpec("toy", "coin", variants=("system",), seeds=(1, 2, 3), overrides={"pause": "0.3"}), store)

    def stop_after_first(plan_, event):
        if isinstance(event, Recorded):
            executor.cancel(made.task)

    execute([made], store, executor, stop_after_first)
    assert made.failure == "cancelled"
    assert 1 <= len(store.find()) < 3
    assert made.task.state == "cancelled"


def test_a_deadline_cancels_what_is_left(toy, store):
    slow = JobSpec("toy", "coin", overrides={"pause": "60"})
    began = time.monotonic()
    made, _ = run(toy, store, slow, deadline=time.monotonic() + 1)
    assert time.monotonic() - began < 30
    assert made.failure == "cancelled"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be shared out here")
def test_jobs_side_by_side_share_the_cores_out(toy, store):
    mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        pytest.skip("one core")
    executor = LocalExecutor(processes=2)
    plans = [plan(toy, JobSpec("toy", "coin", "quick", ("system",), (seed,), {"pause": "1"}), store) for seed in (1, 2, 3)]
    plans[2].task.exclusive = True
    seen = {}

    def watch(made, event):
        if isinstance(event, Started):
            seen[id(made)] = os.sched_getaffinity(executor._running[id(made.task)].process.pid)

    execute(plans, store, executor, watch)
    raise_failures(plans)
    first, second, alone = (seen[id(made)] for made in plans)
    assert len(first) == len(second) == len(mine) // 2
    assert not first & second
    assert alone == mine == os.sched_getaffinity(0)


def test_a_process_takes_the_next_job_unless_one_failed_or_is_exclusive(toy, store):
    executor = LocalExecutor()
    plans = [plan(toy, JobSpec("toy", "coin", variants=("system",), seeds=(seed,)), store) for seed in range(1, 7)]
    plans[2] = plan(toy, JobSpec("toy", "coin", variants=("system",), seeds=(3,), overrides={"crash": "error"}), store)
    plans[4].task.exclusive = True
    seen = {}

    def watch(made, event):
        if isinstance(event, Started):
            seen[id(made)] = executor._running[id(made.task)].process.pid

    execute(plans, store, executor, watch)
    raise_failures(plans[:2] + plans[3:])
    assert "it fell off the table" in plans[2].failure
    first, second, failed, fourth, alone, last = (seen[id(made)] for made in plans)
    assert first == second == failed
    assert len({failed, fourth, alone, last}) == 4


def test_the_longest_job_starts_first(toy, store):
    plans = [plan(toy, JobSpec("toy", "coin", variants=("system",), seeds=seeds), store) for seeds in ((1,), (2, 3, 4), (5, 6))]
    ends = []
    execute(plans, store, LocalExecutor(), lambda made, event: isinstance(event, Ended) and ends.append(len(made.runs)))
    raise_failures(plans)
    assert ends == [3, 2, 1]


def test_exclusive_jobs_run_alone(toy, store):
    executor = LocalExecutor(processes=3)
    plans = [plan(toy, JobSpec("toy", "coin", ("quick"), ("system",), (seed,), {"pause": "0.5"}), store) for seed in (1, 2, 3)]
    plans[1].task.exclusive = True
    running, most_beside = set(), []

    def watch(made, event):
        if isinstance(event, Started):
            running.add(id(made))
            if len(running) > 1 and any(id(plans[1]) == r for r in running):
                most_beside.append(len(running))
        elif isinstance(event, Ended):
            running.discard(id(made))

    execute(plans, store, executor, watch)
    raise_failures(plans)
    assert most_beside == []


def told(file):
    """Times of a diary: of the job that was alone, and of those beside it."""
    lines = [line.split() for line in file.read_text().splitlines()]
    return [np.array([float(time) for what, time in lines if what == kind]) for kind in ("alone", "beside")]


def test_jobs_stand_still_while_one_measures(toy, store, tmp_path):
    diary = tmp_path / "diary"
    plans = [
        plan(toy, JobSpec("toy", "coin", "quick", ("system",), (seed,), {"diary": str(diary), "alone": f"{seed < 3}"}), store)
        for seed in (1, 2, 3)
    ]
    execute(plans, store, LocalExecutor(processes=3))
    raise_failures(plans)
    alone, beside = told(diary)
    (first, first_end), (second, second_end) = sorted(np.reshape(alone, (2, 2)).tolist())
    assert first_end <= second  # one after the other
    inside = ((beside > first + 0.05) & (beside < first_end)) | ((beside > second + 0.05) & (beside < second_end))
    assert len(beside) == 120
    assert not inside.any()


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
import toy
from broadsheet.lab.engine import execute, plan
from broadsheet.lab.registry import describe
from broadsheet.lab.store import Store
from broadsheet.lab.local import LocalExecutor
from broadsheet.lab.messages import JobSpec
store = Store()
store.tidy()
asked = [JobSpec("toy", "coin", "quick", ("system",), seeds, overrides) for seeds, overrides in {jobs!r}]
made = [plan(describe(toy.paper, "toy"), job, store) for job in asked]
print(sum(len(one.missing) for one in made), flush=True)
execute(made, store, LocalExecutor(len(made)))
"""


def coordinator(*jobs):
    """The command of a process that runs jobs, (seeds, overrides) each, beside each other."""
    return [sys.executable, "-c", SCRIPT.format(here=str(Path(__file__).parent), jobs=jobs)]


@pytest.mark.parametrize("wait", [0.4, 3.3])
def test_kill_the_coordinator_at_any_moment(toy, home, wait):
    """kill -9, then again: nothing half-written, finished runs not repeated, no worker left behind."""
    command = coordinator((tuple(range(8)), {"pause": "0.25"}))
    first = subprocess.Popen(command, stdout=subprocess.PIPE)
    time.sleep(wait)
    first.send_signal(signal.SIGKILL)
    first.wait()
    until(lambda: not _workers(home))
    for folder in (home / "runs").glob("*") if (home / "runs").exists() else []:
        assert json.loads((folder / RECORD_FILE).read_text())["id"] == folder.name
    finished = len(list((home / "runs").glob("*"))) if (home / "runs").exists() else 0
    second = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert second.returncode == 0, second.stderr
    assert int(second.stdout) <= 8 - finished
    assert len(Store().find()) == 8
    assert not [p for p in (home / "scratch").iterdir()]


def test_jobs_that_stand_still_wake_and_end_when_the_coordinator_is_killed(toy, home, tmp_path):
    diary = tmp_path / "diary"
    given = {"diary": str(diary)}
    command = coordinator(((1,), given | {"alone": "true"}), ((2,), given))
    first = subprocess.Popen(command, stdout=subprocess.PIPE)
    until(lambda: diary.exists() and "alone" in diary.read_text())
    assert len(_workers(home)) == 2
    first.kill()
    first.wait()
    until(lambda: not _workers(home))


def _workers(home: Path) -> list[int]:
    """Worker processes of this home that still live."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "broadsheet.lab.worker" in process.cmdline() and process.environ().get("BROADSHEET_HOME") == str(home):
                found.append(process.pid)
    return found


def test_a_folder_without_its_row_is_adopted(toy, store):
    made, _ = run(toy, store, JobSpec("toy", "coin"))
    with store.session() as session:
        session.query(Run).delete()
    assert store.tidy() == 2
    assert len(store.find()) == 2
    assert store.tidy() == 0
    dead = store.folder / "scratch" / "999999999-abc" / "x"
    dead.mkdir(parents=True)
    store.tidy()
    assert not dead.parent.exists()


def test_size_budget_frees_arrays_and_keeps_metrics(toy, store):
    run(toy, store, JobSpec("toy", "coin", seeds=(1, 2)))
    rows = store.find()
    before = store.size()
    assert store.free(before, set()) == (0, 0)
    count, freed = store.free(0, {rows[0].id}, dry_run=True)
    assert (count, store.size()) == (3, before)
    assert store.free(0, {rows[0].id}) == (count, freed)
    assert store.size() == before - freed
    assert store.report(rows[0]).arrays
    assert len(store.find()) == 4
    assert not store.report(rows[1]).arrays
    assert store.report(rows[1]).metrics["heads"] > 0


def test_ledger_judges_again_and_knows_stale_code(toy, store, tmp_path, monkeypatch):
    plans = [plan(toy, JobSpec("toy", "coin", seeds=(100, 101, 102)), store), plan(toy, JobSpec("toy", "thirds"), store)]
    execute(plans, store)
    path = write(toy, make_entry(toy, plans, store), tmp_path)
    data = json.loads(path.read_text())
    assert [state.verdict for state in states(toy, data)] == ["holds", "reference"]
    assert data["verdicts"]["T1"]["ablations"][0]["checks"][0]["value"] < 0.6
    data["experiments"]["coin"]["metrics"]["101"]["system"]["heads"] = 0.1
    assert states(toy, data)[0].verdict == "mixed"
    data["experiments"]["coin"]["code_hash"] = "another"
    assert states(toy, data)[0].verdict == "stale"
    assert [state.verdict for state in states(toy, None)] == [None, None]
    only = write(toy, make_entry(toy, plans[1:], store), tmp_path)
    assert set(json.loads(only.read_text())["experiments"]) == {"coin", "thirds"}


def test_figures_are_kept_with_the_ledger_in_place_of_older_ones(toy, store, tmp_path):
    plans = [plan(toy, JobSpec("toy", "coin", seeds=(100,)), store)]
    execute(plans, store)
    place = shown_figures(tmp_path, "toy", "coin")
    place.mkdir(parents=True)
    (place / "gone.svg").write_text("old")
    (place / "growth-T1-tosses.svg").write_text("a curve")  # drawn from the ledger, by whoever grew it
    write(toy, make_entry(toy, plans, store), tmp_path)
    keep_figures(toy, plans, store, tmp_path)
    assert sorted(file.name for file in place.iterdir()) == ["growth-T1-tosses.svg", "heads.svg", "heads.txt"]
    assert (place / "heads.txt").read_text() == "Heads so far."
    assert "<svg" in (place / "heads.svg").read_text()


def test_a_store_that_is_gone_is_one_sentence(toy, home):
    store = Store()
    store.engine.dispose()
    (home / "broadsheet.db").write_bytes(b"no database" * 1000)
    for extra in ("broadsheet.db-wal", "broadsheet.db-shm"):
        (home / extra).unlink(missing_ok=True)
    with pytest.raises(StoreError) as caught:
        Store()
    assert "\n" not in str(caught.value)


def test_reports_are_checked():
    from broadsheet.lab import Report

    with pytest.raises(InputError, match="a number is wanted"):
        Report(metrics={"a": "many"}).scalars()
    with pytest.raises(InputError, match="Python objects"):
        Report(arrays={"a": np.array([{}])}).numpy_arrays()
    assert Report(arms={"system": {"a": np.float32(1)}}).scalars() == {"system": {"a": 1.0}}
