import contextlib
import os
from datetime import date

import pytest

from broadsheet.errors import StoreError
from broadsheet.lab.engine import execute, plan, raise_failures
from broadsheet.lab.messages import JobSpec, Started
from broadsheet.lab.store import Store
from broadsheet.page import Catalogue
from broadsheet.page.facts import Facts


@pytest.fixture
def server(tmp_path_factory, monkeypatch):
    """A PostgreSQL server of the test's own."""
    pgserver = pytest.importorskip("pgserver")
    pytest.importorskip("psycopg")
    place = tmp_path_factory.mktemp("pg")
    os.chmod(place.parent.parent, 0o755)
    os.chmod(place.parent, 0o755)
    made = pgserver.get_server(place, cleanup_mode="delete")
    monkeypatch.setenv("BROADSHEET_DATABASE", made.get_uri())
    yield made, place
    with contextlib.suppress(Exception):
        made.cleanup()


def test_the_same_store_in_postgresql_and_a_killed_server(toy, tmp_path, server, kill_server):
    made, place = server
    home = tmp_path / "home"
    os.environ["BROADSHEET_HOME"] = str(home)
    store = Store()
    first = plan(toy, JobSpec("toy", "coin"), store)
    execute([first], store)
    raise_failures([first])
    assert len(store.find()) == 2
    assert not (home / "broadsheet.db").exists()
    Catalogue().add("page", [Facts("Brand new", comments=2)], date(2025, 1, 1))
    assert Catalogue().paper("brand-new").comments == 2

    second = plan(toy, JobSpec("toy", "coin", seeds=(101,), overrides={"pause": "0.3"}), store)
    with pytest.raises(StoreError) as caught:
        execute([second], store, None, lambda p, event: kill_server(place) if isinstance(event, Started) else None)
    assert "\n" not in str(caught.value)
    assert len(list((home / "runs").iterdir())) == 3  # the finished run is on disk, whole

    import pgserver

    made.cleanup_mode = None
    again = pgserver.get_server(place, cleanup_mode="delete")
    os.environ["BROADSHEET_DATABASE"] = again.get_uri()
    fresh = Store()
    assert fresh.tidy() == 1
    assert len(fresh.find()) == 3
    again.cleanup()
