"""Commands of other repositories: what they leave behind, print and write."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from broadsheet.errors import JobError
from broadsheet.lab import commands, worker
from waiting import until

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")


def run(folder, script, seconds=20.0):
    commands.run(script, ["sh", "-c", script], str(folder), seconds)


def living(mark: Path) -> list[int]:
    """Processes that have this file's name on their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(mark) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def sleeping(mark: Path) -> str:
    """A command that sleeps and is found by a name."""
    return f"sh -c 'sleep 100; : {mark}'"


def test_a_background_process_that_keeps_the_output_open_is_not_waited_for(tmp_path):
    mark, began = tmp_path / "mark", time.monotonic()
    run(tmp_path, f"{sleeping(mark)} & echo done > out")
    assert time.monotonic() - began < 10
    assert (tmp_path / "out").read_text() == "done\n"
    assert living(mark) == []


@linux
@pytest.mark.parametrize(
    "start", ["{} & wait", "setsid {} & wait", "(setsid {} &) & sleep 100", "nohup setsid sh -c '{0} & {0}' & wait"]
)
def test_nothing_is_left_after_a_timeout(tmp_path, start):
    mark = tmp_path / "mark"
    script = tmp_path / "deep.sh"
    script.write_text(f"sleep 100; : {mark}")
    with pytest.raises(JobError, match=r"took longer than 0\.5 s"):
        run(tmp_path, start.format(f"sh {script}"), 0.5)
    assert living(script) == []


@linux
def test_nothing_is_left_when_whoever_asked_is_killed(tmp_path):
    script = tmp_path / "deep.sh"
    script.write_text("sleep 100; :")
    ask = f"from broadsheet.lab import commands; commands.run('x', ['sh', '-c', 'setsid sh {script} & sh {script}'], '.', 60.0)"
    asking = subprocess.Popen([sys.executable, "-c", ask], start_new_session=True)
    until(lambda: len(living(script)) >= 3)
    os.killpg(asking.pid, signal.SIGKILL)
    asking.wait()
    until(lambda: living(script) == [])


def test_what_is_printed_costs_nothing_and_its_last_line_is_told(tmp_path):
    with pytest.raises(JobError, match=r"ended with 3: the \ufffd reason$"):
        run(tmp_path, "printf '\\377\\376\\000'; head -c 200000000 /dev/zero; head -c 20000000 /dev/zero >&2; "
                      "printf '\\n\\033[31mthe \\377 reason\\033[0m\\n\\n\\033[2J\\n' >&2; exit 3")  # fmt: skip


def test_signals_and_commands_that_cannot_start_are_told(tmp_path):
    with pytest.raises(JobError, match="ended with -9: no message"):
        run(tmp_path, "kill -9 $$")
    plain = tmp_path / "plain"
    plain.write_text("no program")
    for words, told in (([str(plain)], "Permission denied"), (["no-such"], "no such program"), (["a\0b"], "cannot be started")):
        with pytest.raises(JobError, match=told):
            commands.run("it", words, str(tmp_path), 5.0)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('{"a": "0.9"}', r"the metric 'a' as text \('0\.9'\)"),
        ('{"a": {"mean": 0.9, "std": 0.1}}', r"the metric 'a' as an object \('mean', 'std'\)"),
        ('{"a": [0.9]}', "the metric 'a' as a list"),
        ('{"a": null}', "the metric 'a' as null"),
        ('{"a": 1' + "0" * 400 + "}", "the metric 'a' as a number of 401 digits"),
        ("[" * 100_000, r"what it wrote to \{out\} is not valid JSON"),
        ("[0.9]", "no object"),
    ],
)
def test_a_metric_that_is_no_number_is_named(tmp_path, written, told):
    out = tmp_path / "out.json"
    out.write_text(written)
    with pytest.raises(JobError, match=told):
        worker._metrics("./it", out, ["a"])


def test_what_no_check_names_is_its_authors(tmp_path):
    out = tmp_path / "out.json"
    out.write_text('{"a": 1, "note": "text", "more": {"b": 2}, "c": 0.5}')
    assert worker._metrics("./it", out, ["a", "missing"]) == {"a": 1, "c": 0.5}
    out.unlink()
    os.mkfifo(out)  # nobody would ever write there
    with pytest.raises(JobError, match="wrote no file"):
        worker._metrics("./it", out, ["a"])


def test_processes_below_one_are_found_by_their_parents(tmp_path, monkeypatch):
    """As /proc has them, `pid (name) state parent`; names may hold anything, and zombies have ended."""
    for pid, name, state, parent in (
        (10, "a", "S", 1), (11, "b) Z 99 (", "R", 10), (12, "c d", "S", 11), (13, "z", "Z", 10), (14, "x", "X", 10), (15, "of a zombie", "S", 13),
        (16, "other", "S", 1),
    ):  # fmt: skip
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) {state} {parent} 0 0")
    (tmp_path / "17").mkdir()  # has ended just now
    (tmp_path / "self").mkdir()
    monkeypatch.setattr(commands, "PROC", tmp_path)
    assert commands._below(10) == [11, 12]
    assert sorted(commands._below(1)) == [10, 11, 12, 16]
    assert commands._below(12) == []


@pytest.mark.parametrize(
    ("said", "line"),
    [("", "no message"), (" \n\t\n", "no message"), ("one\ntwo\n \n", "two"), ("\x1b[1;31mred\x1b[0m", "red"), ("a\x07b", "a b"), ("x" * 300, "x" * 200)],
)  # fmt: skip
def test_the_last_line_that_says_something(said, line):
    assert commands._last_line(said) == line
