"""Two commands at once on one home: what one has taken, the other waits for and finds."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from broadsheet.lab.engine import _what, execute, plan
from broadsheet.lab.external import load_repository
from broadsheet.lab.jobs import Jobs
from broadsheet.lab.messages import JobSpec
from broadsheet.lab.runner import Runner
from broadsheet.lab.store import Store
from broadsheet.lab.taken import Taken
from waiting import until

CLAIMS = """
[[experiment]]
name = "slow"
command = "sh run.sh {seed} {out}"
ablations = { off = "sh run.sh {seed} {out} off" }
nulls = { none = "sh run.sh {seed} {out} none" }

[[experiment.claim]]
id = "C1"
statement = "a is what it is"
where = "here"
seeds = 2
checks = [{ metric = "a", at_least = 0.5 }]
"""
RUN = 'echo "$1 $3" >> ../diary; sleep 0.4; [ -z "$3" ] && a=1 || a=0; echo "{\\"a\\": $a.$1}" > $2\n'


@pytest.fixture
def repository(tmp_path, home):
    place = tmp_path / "slow"
    place.mkdir()
    (place / "claims.toml").write_text(CLAIMS)
    (place / "run.sh").write_text(RUN)
    Store().engine.dispose()
    return place


def verify(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "broadsheet.cli", "verify", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def test_two_commands_do_nothing_twice(repository):
    both = [verify(repository) for _ in range(2)]
    told = [process.communicate(timeout=100)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    lines = (repository.parent / "diary").read_text().splitlines()
    assert sorted(lines) == sorted({f"{seed} {arm}" for seed in (100, 101) for arm in ("", "off", "none")})
    assert sum("Another process runs 1 of the experiments" in text for text in told) <= 1


def test_what_a_killed_command_had_taken_is_taken_over(repository):
    first = verify(repository)
    diary = repository.parent / "diary"
    until(lambda: diary.exists() and len(diary.read_text().splitlines()) >= 2)
    second = verify(repository)
    os.killpg(first.pid, signal.SIGKILL)
    told, _ = second.communicate(timeout=100)
    first.communicate()
    assert second.returncode == 0, told
    assert len(Store().find()) == 6


def test_a_deadline_ends_the_wait(repository):
    store = Store()
    made = plan(load_repository(repository), JobSpec("slow", "slow"), store)
    other = Taken(store.folder)
    assert other.take(_what(made))
    execute([made], store, deadline=0.0)
    assert len(made.missing) == 3
    assert not (repository.parent / "diary").exists()
    other.let_go(_what(made))
    execute([made], store)
    assert made.missing == []


def test_the_runner_waits_for_a_command_and_finds_what_it_ran(toy, home):
    store = Store()
    made = plan(toy, JobSpec("toy", "coin", variants=("system",), figures=False), store)
    runner = Runner(store)
    job = Jobs(store).queue(made.job)
    other = Taken(store.folder)
    assert other.take(_what(made))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("broadsheet.lab.runner.entry", lambda slug: toy)
        at_work = threading.Thread(target=runner.run, daemon=True)
        at_work.start()
        until(lambda: runner._waiting)
        assert Jobs(store).job(job).state == "running"
        other.clear()
        until(lambda: Jobs(store).job(job).state == "done")
        runner.stop.set()
        at_work.join(30)
    assert len(store.find()) == 1


def test_the_same_again_is_ones_own(tmp_path):
    mine, other = Taken(tmp_path), Taken(tmp_path)
    assert mine.take(["a"])
    assert mine.take(["a"])
    mine.let_go(["a"])
    assert not other.take(["a"])
    mine.let_go(["a"])
    mine.let_go(["a"])  # once too often
    assert other.take(["a"])
    assert not mine.take(["a"])
    other.clear()
    assert mine.take(["a"])
