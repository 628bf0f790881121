"""A full disk, a clock that is set back, and several runners and web workers on one database."""

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broadsheet.errors import BroadsheetError
from broadsheet.lab.engine import execute, plan, raise_failures
from broadsheet.lab.jobs import Jobs, tidy
from broadsheet.lab.messages import JobSpec
from broadsheet.lab.store import Store
from waiting import until

LARGE = JobSpec("toy", "coin", variants=("system",), seeds=(1, 2, 3, 4, 5, 6), overrides={"tosses": "3000000"}, figures=False)
"""A quarter of a megabyte of arrays a seed."""
COIN = JobSpec("toy", "coin", variants=("system",), figures=False)


def run_here(toy, job, store):
    """From this process; what was found before."""
    made = plan(toy, job, store)
    found = {run.seed for run in made.runs if run.id in made.found}
    execute([made], store)
    raise_failures([made])
    return found


RUN = """
from broadsheet.lab import registry
from broadsheet.cli import running, main
import sys, toy
made = registry.describe(toy.paper, "toy")
registry.entry = lambda slug: made
sys.argv = ["broadsheet", "run", "toy", "-e", "coin", "--variant", "system", *sys.argv[1:]]
main()
"""


def run(*words, **given):
    """`broadsheet run` of the toy, in a process of its own."""
    return subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True, timeout=100, **given)


@pytest.fixture
def small_disk(tmp_path):
    """A home on a disk of 1.5 MB."""
    place = tmp_path / "home"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("No disk of its own can be mounted here.")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def whole(store):
    """The seeds whose runs are recorded, with all of their arrays."""
    return {run.seed for run in store.find() if store.report(run).arrays["shown"].shape == (3_000_000,)}


def test_a_disk_that_is_full_in_the_middle_of_runs(small_disk, toy):
    """One sentence; what was recorded stays, and when there is room again the rest is run, and nothing twice."""
    store = Store()
    with pytest.raises(BroadsheetError, match=r"No space left on device|disk is full") as caught:
        run_here(toy, LARGE, store)
    assert "\n" not in str(caught.value)
    kept = whole(store)
    assert kept
    assert len(kept) < 6
    assert list((small_disk / "scratch").iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    tidy(store)
    assert not Jobs(store).recent(states=("running",))
    taken_in = whole(store)  # one more where a run was whole on the disk and only its row found no room
    assert kept <= taken_in < set(LARGE.seeds)
    assert run_here(toy, LARGE, store) == taken_in
    assert whole(store) == set(LARGE.seeds)


CLOCK = """
import datetime, time
BACK = 400 * 86400.0

class Earlier(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

now = time.time
time.time = lambda: now() - BACK
datetime.datetime = Earlier
"""


def test_a_clock_that_is_set_back(toy, home, tmp_path, monkeypatch):
    """By more than a year, between two runs of the same: the first are found, the new ones recorded, and no job is given up."""
    store = Store()
    run_here(toy, replace(COIN, seeds=(1,)), store)
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "sitecustomize.py").write_text(CLOCK)
    early = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "early"), os.environ["PYTHONPATH"]])}
    jobs = Jobs(store)
    mine, waiting = jobs.start(JobSpec("toy", "coin")), jobs.queue(JobSpec("toy", "coin", seeds=(7,)))
    done = run("--seed", "1", "--seed", "2", env=early)
    assert done.returncode == 0, done.stderr
    first, second = sorted(store.find(), key=lambda made: made.seed)
    assert [first.seed, second.seed] == [1, 2]
    assert second.finished < first.finished - timedelta(days=300)  # the clock was back indeed
    assert [jobs.job(job).state for job in (mine, waiting)] == ["running", "queued"]
    assert jobs.recent()[-1].id < mine  # ended ones stand behind, whatever their times
    assert [job.state for job in jobs.recent()[2:]] == ["done", "done"]
    assert tidy(store) == 0
    assert jobs.claim().id == waiting
    ahead = datetime.now(UTC) + timedelta(days=400)
    monkeypatch.setattr("broadsheet.lab.jobs._now", lambda session: ahead)
    assert jobs.tidy() == 0  # and set forward again: what lives on this home is known by its lock


WORK = """
from broadsheet.lab import registry, runner
import toy
made = registry.describe(toy.paper, "toy")
runner.entry = lambda slug: made
from broadsheet.lab.store import Store
made_here = runner.Runner(Store(), 1)
import signal
signal.signal(signal.SIGTERM, lambda *_: made_here.stop.set())
made_here.run()
"""


def test_two_runners_on_one_database_and_one_killed(toy, database, tmp_path, monkeypatch):
    """Of two machines, each with a home of its own: no job is run twice at once, and one's start takes nothing from the other."""
    monkeypatch.setenv("BROADSHEET_DATABASE", database)
    runners = []

    def start(name):
        env = os.environ | {"BROADSHEET_HOME": str(tmp_path / name)}
        runners.append(subprocess.Popen([sys.executable, "-c", WORK], env=env, start_new_session=True, stderr=subprocess.PIPE))
        return runners[-1]

    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "a"))
    store = Store()
    jobs = Jobs(store)
    coin = JobSpec("toy", "coin", overrides={"pause": "0.4"}, figures=False)
    wanted = [jobs.queue(replace(coin, seeds=(seed,))) for seed in range(6)]
    try:
        start("a")
        until(lambda: jobs.job(wanted[0]).state == "running")
        second = start("b")
        until(lambda: sum(job.state == "running" for job in jobs.recent()) == 2)
        owners = {job.owner for job in jobs.recent(states=("running",))}
        assert len(owners) == 2
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
        third = start("b")
        until(lambda: len({job.owner for job in jobs.recent(states=("running",))} | owners) == 3 or third.poll() is not None)
        third.kill()
        third.wait()
        monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "b"))
        tidy(Store())  # the next command there
        until(lambda: all(jobs.job(job).state == "done" for job in wanted), 60)
    finally:
        for each in runners:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.communicate()
    runs = [(run.seed, run.variant) for run in store.find()]
    assert sorted(runs) == sorted({(seed, variant) for seed in range(6) for variant in ("system", "fair")})
    begun = [said.id for _, _, said in jobs.events(0) if said.kind == "start"]
    assert len(begun) - len(set(begun)) <= 2  # only what was stopped began again


def _heeds_signals():
    """Also where the tests themselves run under nohup or behind an `&`, whose children ignore them."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def test_a_signal_ends_a_command_with_a_word_and_leaves_nothing(toy, home):
    """SIGTERM and a closed terminal as well as Ctrl-C; each says its number by the exit code."""
    store = Store()
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    words = [[sys.executable, "-c", RUN, "--set", f"pause={60 + number}"] for number in numbers]  # the same would wait
    running = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True, preexec_fn=_heeds_signals) for each in words]
    jobs = Jobs(store)
    until(lambda: sum(said.kind == "start" for *_, said in jobs.events(0)) == 3)
    for process, number in zip(running, numbers, strict=True):
        process.send_signal(number)
        assert process.communicate(timeout=30)[1] == "broadsheet: stopped; what was finished is kept.\n"
        assert process.returncode == 128 + number
    assert [job.state for job in jobs.recent()] == ["cancelled"] * 3
    assert list((home / "scratch").iterdir()) == []
