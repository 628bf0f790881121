"""Where a store lies: any name of a home, and homes that cannot be written to."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broadsheet.cli.app import app
from broadsheet.errors import StoreError
from broadsheet.lab.store import Store
from broadsheet.page import Catalogue
from broadsheet.page.facts import Facts

NOBODY = 65_534


@pytest.mark.parametrize("name", ["a?b=c", "a#b", "a%20b", "a b", "ä&ö;", "%(here)s", "file:x?mode=memory", "a@b:c"])
def test_any_name_of_a_home_is_that_home(tmp_path, monkeypatch, name):
    homes = [tmp_path / name, tmp_path / f"{name}2", tmp_path / "plain"]
    for k, home in enumerate(homes):
        monkeypatch.setenv("BROADSHEET_HOME", str(home))
        monkeypatch.delenv("BROADSHEET_DATABASE", raising=False)
        Catalogue().add("page", [Facts(f"Paper number {k}")], date(2025, 1, 1))
    for k, home in enumerate(homes):
        assert (home / "broadsheet.db").is_file()
        monkeypatch.setenv("BROADSHEET_HOME", str(home))
        assert [slug for slug in Catalogue().papers() if slug.startswith("paper-number")] == [f"paper-number-{k}"]
    assert {path.name for path in tmp_path.iterdir()} == {home.name for home in homes}


@pytest.fixture
def locked_home(monkeypatch):
    """A home that this process may read and not write, also where the tests run as root."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    home = place / "h?#%20"
    monkeypatch.setenv("BROADSHEET_HOME", str(home))
    monkeypatch.delenv("BROADSHEET_DATABASE", raising=False)
    store = Store()
    Catalogue(store).add("page", [Facts("Read only paper", abstract="Locked.")], date(2025, 1, 1))
    store.engine.dispose()
    yield home
    shutil.rmtree(place)


@contextlib.contextmanager
def read_only(home):
    for path in [*home.rglob("*"), home]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in [home, *home.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_read_only_home_is_listed_and_shown(locked_home):
    for arguments in (["list"], ["show", "elm-neuron"]):  # what is imported late lies where only root may read
        CliRunner().invoke(app, arguments)
    Store().engine.dispose()
    before = {path: path.stat().st_mtime_ns for path in locked_home.rglob("*")}
    with read_only(locked_home):
        run = CliRunner().invoke
        assert "read-only-paper" in run(app, ["list", "--json"]).output
        assert "Locked." in run(app, ["show", "read-only-paper"]).output
        assert run(app, ["show", "elm-neuron"]).exit_code == 0
        assert "read-only-paper" in run(app, ["search", "locked paper"]).output
        with pytest.raises(StoreError, match="readonly"):
            Catalogue().add("page", [Facts("More")], date(2025, 1, 1))
    assert {path: path.stat().st_mtime_ns for path in locked_home.rglob("*")} == before


@pytest.mark.parametrize("with_index", [True, False])
def test_what_a_killed_process_wrote_last_is_read_too(locked_home, with_index):
    """The last writes are in the journal, which only a process that may write could take in."""
    database = locked_home / "broadsheet.db"
    writer = sqlite3.connect(database)
    writer.execute("UPDATE sightings SET facts = replace(facts, 'Read only', 'Journalled')")
    writer.commit()
    parts = {path.name: path.read_bytes() for path in locked_home.glob("broadsheet.db*")}
    writer.close()
    assert parts["broadsheet.db-wal"]
    for name, content in parts.items():
        if with_index or not name.endswith("-shm"):
            (locked_home / name).write_bytes(content)
    with read_only(locked_home):
        assert Catalogue().paper("read-only-paper").title == "Journalled paper"


def test_a_home_that_is_none_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("BROADSHEET_DATABASE", raising=False)
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="cannot be the home folder"):
            Store(place)


def test_a_read_only_home_without_a_store_is_told(locked_home):
    (locked_home / "broadsheet.db").unlink()
    with read_only(locked_home), pytest.raises(StoreError, match="holds no store"):
        Store()
