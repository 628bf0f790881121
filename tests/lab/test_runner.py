import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from broadsheet.errors import InputError, JobError, NotFoundError, StoreError
from broadsheet.lab import registry
from broadsheet.lab.engine import Execution, plan
from broadsheet.lab.jobs import LEASE, Jobs, tidy
from broadsheet.lab.messages import Ended, JobSpec, Recorded, Started
from broadsheet.lab.runner import Runner, queue_runs
from broadsheet.lab.store import Store
from broadsheet.lab.tables import Job
from waiting import until

COIN = JobSpec("toy", "coin")


@pytest.fixture
def known(toy, monkeypatch):
    """The toy paper among those that run here."""
    monkeypatch.setattr("broadsheet.lab.runner.entry", lambda slug: {"toy": toy}[slug])
    return toy


def working(store, processes=1):
    """A runner in a thread."""
    runner = Runner(store, processes)
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    return runner, thread


def test_the_queue_is_in_order_and_holds_a_job_once(store):
    jobs = Jobs(store)
    low = jobs.queue(COIN)
    high = jobs.queue(replace(COIN, seeds=(101,)), priority=5)
    assert jobs.queue(COIN) == low
    assert [job.id for job in jobs.recent()] == [high, low]
    assert jobs.claim().id == high
    assert [job.state for job in jobs.recent()] == ["running", "queued"]
    assert [job.id for job in jobs.recent(slug="toy", states=("queued",))] == [low]
    assert jobs.recent(slug="other") == []
    assert jobs.queue(replace(COIN, seeds=(101,))) == high  # it runs
    jobs.end(high, "done")
    assert jobs.queue(replace(COIN, seeds=(101,))) != high  # it is over, and will be found
    assert jobs.cancel(low) == "cancelled"
    with pytest.raises(NotFoundError, match="no job 999"):
        jobs.cancel(999)
    own = jobs.start(COIN)
    with pytest.raises(InputError, match="a command"):
        jobs.cancel(own)


def test_two_claims_never_take_the_same_job(store):
    jobs = Jobs(store)
    for seed in range(12):
        jobs.queue(replace(COIN, seeds=(seed,)))
    taken = []

    def take():
        mine = Jobs(Store())
        while (job := mine.claim()) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(set(taken))
    assert len(taken) == 12


LEFT = """
from broadsheet.lab.jobs import Jobs
from broadsheet.lab.messages import JobSpec
from broadsheet.lab.store import Store
jobs = Jobs(Store())
jobs.store.scratch()
print(jobs.start(JobSpec("toy", "coin", seeds=(101,))), flush=True)
print(jobs.claim().id, flush=True)
input()
"""


@contextlib.contextmanager
def another(**env):
    """A process that has started a job of its own and taken one of the queue; (process, its job, the other's number)."""
    command = [sys.executable, "-c", LEFT]
    with subprocess.Popen(command, env=os.environ | env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, int(process.stdout.readline()), int(process.stdout.readline())
        finally:
            process.kill()


def test_jobs_of_killed_commands_are_lost_and_those_of_a_killed_runner_go_back(store):
    jobs = Jobs(store)
    mine, queued = jobs.start(COIN), jobs.queue(replace(COIN, seeds=(102,)))
    nobodys = jobs.job(queued).owner
    jobs.tell(mine, Recorded("x", 1))
    with another() as (process, gone, taken):
        assert taken == queued
        owner = jobs.job(gone).owner
        assert len({nobodys, owner, jobs.job(taken).owner}) == 3
        assert jobs.tidy() == 0  # it lives
        assert len(list((store.folder / "scratch").iterdir())) == 1
        process.kill()
        process.wait()
        assert tidy(store) == 0
    assert [jobs.job(job).state for job in (mine, gone, queued)] == ["running", "lost", "queued"]
    assert [jobs.job(job).owner for job in (gone, queued)] == [owner, nobodys]
    assert [said for _, job, said in jobs.events(0) if job == gone] == [Ended("lost", "its process was killed")]
    assert list((store.folder / "scratch").iterdir()) == []
    assert len(list((store.folder / "processes").iterdir())) == 1  # this one's
    assert jobs.claim().id == queued
    assert jobs.requeue() == 1
    assert jobs.job(queued).state == "queued"
    with store.session() as session:
        session.get(Job, gone).updated -= timedelta(days=2)
    jobs.tidy()
    assert {job for _, job, *_ in jobs.events(0)} == {mine}  # what was said of old jobs goes


def test_a_process_is_more_than_its_number_and_the_name_of_its_machine(store):
    """A container that is made again has the same name, and in it other processes have the numbers of those that are gone."""
    jobs = Jobs(store)
    jobs.queue(COIN)
    with another() as (process, gone, _):
        process.kill()
    with store.session() as session:
        row = session.get(Job, gone)
        kind, host, _, name = row.owner.split(":")
        row.owner = f"{kind}:{host}:{os.getpid()}:{name}"
    assert jobs.tidy() == 2
    assert jobs.job(gone).state == "lost"


def test_jobs_of_another_home_are_given_up_after_a_long_silence(store, tmp_path):
    """Nothing here knows its processes: a runner of another machine, or one whose folder went with its container."""
    jobs = Jobs(store)
    waiting = jobs.queue(COIN)
    there = {"BROADSHEET_HOME": str(tmp_path / "elsewhere"), "BROADSHEET_DATABASE": store.engine.url.render_as_string(False)}
    with another(**there) as (process, command, taken):
        assert taken == waiting
        assert jobs.tidy() == 0
        process.kill()
    assert jobs.tidy() == 0  # it may live
    with store.session() as session:
        for job in (command, taken):
            session.get(Job, job).updated -= 2 * LEASE
    assert jobs.tidy() == 2
    assert [jobs.job(job).state for job in (command, taken)] == ["lost", "queued"]


def test_a_process_says_of_its_jobs_that_it_lives(known, store, monkeypatch):
    monkeypatch.setattr("broadsheet.lab.engine.BEAT", 0.05)
    jobs = Jobs(store)
    with Execution(store) as execution:
        execution.add(plan(known, COIN, store))
        (job,) = jobs.recent()
        with store.session() as session:
            session.get(Job, job.id).updated -= LEASE
        until(lambda: jobs.job(job.id).updated > job.updated - LEASE)
    with store.session() as session:
        session.get(Job, job.id).updated -= LEASE
    time.sleep(0.2)
    assert jobs.job(job.id).updated <= job.updated  # it stops with the execution


def test_the_runner_runs_the_queue_and_tells_what_happens(known, store):
    jobs = Jobs(store)
    first = jobs.queue(COIN)
    wrong = jobs.queue(replace(COIN, experiment="nope"))
    runner, thread = working(store)
    until(lambda: jobs.job(first).state == "done" and jobs.job(wrong).state == "failed")
    assert "no experiment" in jobs.job(wrong).message
    assert len(store.find(slug="toy")) == 2
    kinds = [said.kind for _, job, said in jobs.events(0) if job == first]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert kinds.count("run") == 2
    assert "progress" not in kinds  # dropped when it ended
    again = jobs.queue(COIN)
    until(lambda: jobs.job(again).state == "done")
    assert "found" in jobs.job(again).message
    with pytest.raises(JobError, match="already"):
        Runner(store).run()
    runner.stop.set()
    thread.join(20)
    assert not thread.is_alive()


def test_cancel_and_stop_keep_what_is_finished(known, store):
    jobs = Jobs(store)
    slow = replace(COIN, overrides={"pause": "30"})
    job, later = jobs.queue(slow), jobs.queue(replace(slow, seeds=(101,)))
    runner, thread = working(store)
    until(lambda: any(isinstance(said, Started) for *_, said in jobs.events(0)))
    jobs.cancel(job)
    until(lambda: jobs.job(job).state == "cancelled")
    until(lambda: jobs.job(later).state == "running")
    runner.stop.set()
    thread.join(20)
    assert jobs.job(later).state == "queued"  # the next runner goes on with it


@pytest.mark.parametrize("when", ["tidy", "record"])
def test_an_outage_of_the_store_at_the_start_and_in_the_middle_of_a_run(known, store, monkeypatch, when):
    """The job that ran goes back to the queue, and is run to its end when the store is back."""
    jobs = Jobs(store)
    runner = Runner(store)
    method, failures = getattr(store, when), iter([True])

    def fails_once(*given):
        if next(failures, False):
            raise StoreError("The store failed: it is away.")
        return method(*given)

    monkeypatch.setattr(store, when, fails_once)
    job = jobs.queue(COIN)
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    until(lambda: jobs.job(job).state == "done", 40)
    assert sorted(run.variant for run in store.find(slug="toy")) == ["fair", "system"]
    runner.stop.set()
    thread.join(20)
    assert not thread.is_alive()


RUN = """
import sys
from broadsheet.lab import registry, runner
import toy
made = registry.describe(toy.paper, "toy")
runner.entry = lambda slug: made
from broadsheet.lab.store import Store
runner.Runner(Store(), 2).run()
"""


def test_kill_the_runner_again_and_again(known, store):
    """Whenever it is killed: afterwards every run is there, once, and no job is left."""
    jobs = Jobs(store)
    wanted = [jobs.queue(replace(COIN, seeds=(seed,), overrides={"pause": "0.4"})) for seed in range(100, 104)]
    for wait in (2.0, 3.8):
        process = subprocess.Popen([sys.executable, "-c", RUN], env=os.environ.copy(), start_new_session=True)
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process = subprocess.Popen([sys.executable, "-c", RUN], env=os.environ.copy(), start_new_session=True)
    try:
        until(lambda: all(jobs.job(job).state == "done" for job in wanted), 90)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    runs = [(run.seed, run.variant) for run in store.find(slug="toy")]
    assert sorted(runs) == sorted({(seed, variant) for seed in range(100, 104) for variant in ("system", "fair")})


def test_mistakes_are_named_before_anything_is_queued(known, store, monkeypatch):
    jobs = Jobs(store)
    for call, words in (
        (lambda: queue_runs(jobs, "toy", "nope"), "no experiment"),
        (lambda: queue_runs(jobs, "toy", preset="paper"), "no experiment with the preset"),
        (lambda: queue_runs(jobs, "toy", "coin", seeds=1000), "1 to 100"),
    ):
        with pytest.raises(InputError, match=words):
            call()
    monkeypatch.setattr("broadsheet.lab.runner.missing_extra", lambda made: "language")
    with pytest.raises(InputError, match="extra 'language'"):
        queue_runs(jobs, "toy")
    assert jobs.recent() == []
    assert registry.entries()


def test_a_queue_takes_no_more_than_it_may_hold(home, monkeypatch):
    monkeypatch.setattr("broadsheet.lab.jobs.NEVER_MORE_THAN", 2)
    jobs = Jobs(Store())
    first, _ = jobs.queue(COIN), jobs.queue(replace(COIN, seeds=(101,)))
    jobs.start(COIN)  # of a command: it waits for nobody
    assert jobs.claim().id == first
    with pytest.raises(InputError, match="2 jobs wait already"):
        jobs.queue(replace(COIN, seeds=(102,)))
    jobs.end(first, "done")
    jobs.queue(replace(COIN, seeds=(102,)))


def test_cancelled_jobs_waiting_and_running(home):
    jobs = Jobs(Store())
    waiting, running = jobs.queue(COIN, priority=-1.0), jobs.queue(replace(COIN, seeds=(101,)))
    assert jobs.claim().id == running
    assert (jobs.cancel(waiting), jobs.cancel(running)) == ("cancelled", "cancelling")
    assert [(job, said) for _, job, said in jobs.events(0)] == [(waiting, Ended("cancelled"))]
    assert jobs.cancelling() == [running]
    assert jobs.cancel(running) == "cancelling"
    assert jobs.requeue() == 1  # what is to be stopped does not wait again
    assert jobs.job(running).state == "cancelled"
    assert [said for _, job, said in jobs.events(0) if job == running] == [Ended("cancelled", "")]
    assert jobs.claim() is None
    with pytest.raises(NotFoundError, match="no job 99"):
        jobs.job(99)
    own = jobs.start(COIN)
    jobs.stop_mine("why")
    assert (jobs.job(own).state, jobs.job(own).message) == ("cancelled", "why")


def test_what_was_said_of_jobs_is_read_from_a_number_on(home):
    store = Store()
    jobs = Jobs(store)
    assert jobs.last_event() == 0
    one, other = jobs.start(COIN), jobs.start(COIN)
    for k in range(3):
        jobs.tell(one, Recorded(f"{k}", k))
    jobs.tell(other, Recorded("x", 9))
    numbers = [number for number, *_ in jobs.events(0)]
    assert numbers == sorted(numbers)
    assert jobs.last_event() == numbers[-1]
    assert [job for _, job, _ in jobs.events(numbers[1])] == [one, other]
    assert [said.done for *_, said in jobs.events(0, one)] == [0, 1, 2]
    assert [said.done for *_, said in jobs.events(0, most=2)] == [0, 1]
    assert [job.id for job in jobs.recent(most=1)] == [other]
    jobs.end(one, "done")
    jobs.end(other, "done")
    for age, left in ((timedelta(hours=23, minutes=59), {one, other}), (timedelta(minutes=2), {other})):
        with store.session() as session:
            session.get(Job, one).updated -= age
        jobs.tidy()
        assert {job for _, job, _ in jobs.events(0)} == left


def test_jobs_whose_end_could_not_be_written_are_let_go(home, monkeypatch):
    from broadsheet.lab.jobs import unended

    store = Store()
    jobs = Jobs(store)
    own, waiting = jobs.start(COIN), jobs.queue(COIN)
    assert jobs.claim().id == waiting
    assert jobs.tidy() == 0
    unended.add(store.folder)
    assert jobs.tidy() == 2
    assert (jobs.job(own).state, jobs.job(own).message) == ("lost", "its end could not be recorded")
    assert (jobs.job(waiting).state, jobs.job(waiting).message, jobs.job(waiting).owner) == ("queued", "", "queue")
    assert store.folder not in unended
    silent = jobs.start(COIN)
    with store.session() as session:
        session.get(Job, silent).owner = "process:host:1:0123456789ab"
        session.get(Job, silent).updated -= LEASE - timedelta(seconds=60)
    assert jobs.tidy() == 0
    with store.session() as session:
        session.get(Job, silent).updated -= timedelta(seconds=61)
    assert jobs.tidy() == 1


def test_jobs_as_they_come_are_shown_by_the_hundred(home):
    """And wait with priority 0: after those above it, before those below."""
    jobs = Jobs(Store())
    plain, below, above = (
        jobs.queue(COIN),
        jobs.queue(replace(COIN, seeds=(1,)), -0.5),
        jobs.queue(replace(COIN, seeds=(2,)), 0.5),
    )
    assert [jobs.claim().id for _ in range(3)] == [above, plain, below]
    with jobs.store.session() as session:
        session.add_all(
            Job(row={"slug": "a"}, state="done", created=job.created, updated=job.updated, message="")
            for job in [jobs.job(plain)] * 110
        )
    assert len(jobs.recent()) == 100
    assert len(jobs.recent(200)) == 113
