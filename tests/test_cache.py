import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from broadsheet import cache


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path))
    return tmp_path


def test_a_fixture_is_built_once_and_again_when_damaged():
    calls = []

    def build(folder):
        calls.append(1)
        (folder / "a.txt").write_text("content")

    first = cache.fixture("words", {"seed": 1}, build)
    assert cache.fixture("words", {"seed": 1}, build) == first
    assert len(calls) == 1
    (first / "a.txt").write_text("damaged")
    assert (cache.fixture("words", {"seed": 1}, build) / "a.txt").read_text() == "content"
    assert len(calls) == 2
    assert cache.fixture("words", {"seed": 2}, build) != first


def test_a_failed_build_leaves_nothing():
    def fail(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        cache.fixture("words", {}, fail)
    left = [path.name for path in (cache.home() / "cache" / "words").iterdir() if not path.name.endswith(".lock")]
    assert left == []


def slow_build(folder):
    (folder / "a").write_text("1")
    time.sleep(30)


def test_a_killed_build_does_not_block_the_next():
    process = multiprocessing.get_context("fork").Process(target=cache.fixture, args=("slow", {}, slow_build))
    process.start()
    time.sleep(0.7)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = cache.fixture("slow", {}, lambda folder: (folder / "a").write_text("2"))
    assert (done / "a").read_text() == "2"


def test_atomic_writes_keep_the_old_content_on_failure(tmp_path):
    path = cache.write_atomic(tmp_path / "x" / "a.txt", "old")
    with pytest.raises(TypeError):
        cache.write_atomic(path, None)
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    assert cache.checksum(path) == cache.checksum(path)
    assert cache.digest({"b": 1, "a": [1.0]}) == cache.digest({"a": [1.0], "b": 1})


def test_a_file_that_is_being_written_is_not_there_yet(tmp_path):
    path = cache.write_atomic(tmp_path / "a.txt", "old")
    with cache.writing(path) as stream:
        stream.write(b"n")
        stream.flush()
        assert path.read_text() == "old"
        stream.write(b"ew")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


WRITING = """
import os, sys, time
from pathlib import Path
from broadsheet.cache import writing
with writing(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    stream.flush()
    print("half", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_writer_leaves_goes_with_the_next_and_a_living_ones_stays(tmp_path):
    def writer():
        made = subprocess.Popen([sys.executable, "-c", WRITING, str(tmp_path / "file")], stdout=subprocess.PIPE)
        made.stdout.readline()
        return made

    with writer() as killed, writer() as alive:
        killed.kill()
        killed.wait()
        assert len(list(tmp_path.iterdir())) == 2
        cache.write_atomic(tmp_path / "file", "whole")
        assert len([left for left in tmp_path.iterdir() if left.suffix == ".part"]) == 1
        assert (tmp_path / "file").read_text() == "whole"
        alive.kill()
    cache.write_atomic(tmp_path / "file", "again")
    assert [left.name for left in tmp_path.iterdir()] == ["file"]


def test_a_fixture_whose_builder_was_killed_is_built_anew(home):
    code = (
        "import os\nfrom broadsheet.cache import fixture\n"
        "fixture('things', {}, lambda folder: ((folder / 'half').write_text('x'), os.kill(os.getpid(), 9)))"
    )
    subprocess.run([sys.executable, "-c", code])
    assert list((home / "cache" / "things").glob(".building-*"))
    place = cache.fixture("things", {}, lambda folder: (folder / "whole").write_text("x"))
    assert [file.name for file in place.iterdir()] == ["whole"]
    assert not list((home / "cache" / "things").glob(".building-*"))
