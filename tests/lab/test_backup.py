import base64
import json
import zipfile
from datetime import date

import pytest

from broadsheet.errors import DataError, InputError, StoreError
from broadsheet.lab.backup import backup, restore
from broadsheet.lab.engine import execute, plan
from broadsheet.lab.jobs import Jobs
from broadsheet.lab.messages import JobSpec
from broadsheet.lab.store import SCHEMA, Store
from broadsheet.lab.tables import Vector
from broadsheet.page import Catalogue
from broadsheet.page.facts import Facts


def filled(store, toy):
    made = plan(toy, JobSpec("toy", "coin"), store)
    execute([made], store)
    store.add_verification("toy", {"slug": "toy", "made": "2025-01-01", "experiments": {}})
    Catalogue(store).add("hub", [Facts("Brand new", arxiv="2501.00001", comments=2), Facts("Ünïcode 中文")], date(2025, 1, 1))
    return made


def test_a_backup_restores_the_same_in_either_database(toy, store, tmp_path, monkeypatch, request):
    made = filled(store, toy)
    counts = backup(store, tmp_path / "all.zip")
    assert {name: count for name, count in counts.items() if count} == {
        "jobs": 1, "papers": 2, "runs": 2, "verifications": 1, "sightings": 2,
    }  # fmt: skip
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert "Ünïcode 中文".encode() in archive.read("tables/papers.jsonl")  # as a person reads it
    with pytest.raises(InputError, match="already"):
        backup(store, tmp_path / "all.zip")
    with pytest.raises(InputError, match="not empty"):
        restore(store, tmp_path / "all.zip")
    for kind in ("sqlite", "postgresql"):
        monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / f"other-{kind}"))
        monkeypatch.delenv("BROADSHEET_DATABASE", raising=False)
        if kind == "postgresql":
            import uuid

            import psycopg

            server, name = request.getfixturevalue("postgres"), f"other_{uuid.uuid4().hex}"
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            address, _, options = server.partition("?")
            monkeypatch.setenv("BROADSHEET_DATABASE", f"{address.rpartition('/')[0]}/{name}?{options}")
        other = Store()
        assert restore(other, tmp_path / "all.zip") == counts
        assert Catalogue(other).paper("brand-new") == Catalogue(store).paper("brand-new")
        before, after = ({run.id: run for run in kept.find()} for kept in (store, other))
        assert set(before) == set(after) == {run.id for run in made.runs}
        for run in before:
            assert after[run].scalars == before[run].scalars
            assert after[run].finished == before[run].finished
            old, new = store.report(before[run]).arrays, other.report(after[run]).arrays
            assert set(old) == set(new)
            assert all((old[name] == new[name]).all() for name in old)
        assert other.verifications() == store.verifications()
        assert plan(toy, JobSpec("toy", "coin"), other).missing == []
        assert Jobs(other).start(JobSpec("toy", "coin")) > max(job.id for job in Jobs(store).recent())


@pytest.mark.parametrize(
    "harm", ["not a zip", "no manifest", "foreign", "other schema", "row lost", "lengths", "leaves its folder"]
)
def test_a_damaged_backup_changes_nothing(toy, any_home, tmp_path, monkeypatch, harm):
    store = Store()
    Catalogue(store).add("hub", [Facts("Brand new"), Facts("Newer")], date(2025, 1, 1))
    with store.session() as session:
        session.add_all(Vector(slug=slug, model="m", digest="d", value=bytes(8)) for slug in ("brand-new", "newer"))
    backup(store, tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(parts["manifest.json"])
    if harm == "no manifest":
        del parts["manifest.json"]
    elif harm == "foreign":
        parts["manifest.json"] = json.dumps({**manifest, "kind": "x"}).encode()
    elif harm == "other schema":
        parts["manifest.json"] = json.dumps({**manifest, "schema": "0001"}).encode()
    elif harm == "row lost":
        parts["tables/sightings.jsonl"] = b""
    elif harm == "lengths":
        rows = [json.loads(line) for line in parts["tables/vectors.jsonl"].splitlines()]
        rows[1]["value"] = base64.b64encode(bytes(4)).decode()
        parts["tables/vectors.jsonl"] = "\n".join(map(json.dumps, rows)).encode()
    elif harm == "leaves its folder":
        parts["../../evil"] = b"x"
    bad = tmp_path / "bad.zip"
    with zipfile.ZipFile(bad, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    if harm == "not a zip":
        bad.write_bytes(b"nothing")
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "other"))
    monkeypatch.delenv("BROADSHEET_DATABASE", raising=False)
    other = Store()
    with pytest.raises(DataError) as caught:
        restore(other, bad)
    assert "\n" not in str(caught.value)
    assert len(Catalogue(other).papers()) == 42
    assert not (tmp_path / "evil").exists()


def test_an_older_database_is_upgraded_and_a_newer_one_refused(any_home):
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import text

    from broadsheet.lab import store as module

    store = Store(migrate=False)
    config = Config()
    config.set_main_option("script_location", str(module.Path(module.__file__).parent / "migrations"))
    with store.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with store.engine.begin() as connection:
        connection.execute(text("INSERT INTO papers (slug, title, title_key) VALUES ('old', 'Old', 'old')"))
        connection.execute(
            text(
                "INSERT INTO sightings (slug, source, as_of, facts) VALUES ('old', 'hub', '2024-05-01', '{\"title\": \"Old\"}')"
            )
        )
    if store.engine.dialect.name == "postgresql":
        with pytest.raises(StoreError, match="db upgrade"):
            Store()
        Store(migrate=False).upgrade()
    upgraded = Store()
    assert upgraded.schema() == SCHEMA
    assert Catalogue(upgraded).paper("old").listed == "2024-05-01"
    with upgraded.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="newer"):
        Store()


def test_numbers_that_went_out_in_links_are_not_given_again(home, tmp_path, monkeypatch):
    """After a restore the next account is far beyond those of the archive; the next job is the next."""
    from datetime import UTC, datetime

    from broadsheet.lab.people import Account, Collection, Token

    def another(store, key):
        with store.session() as session:
            now = datetime.now(UTC)
            account = Account(name=key, key=key, made=now, seen=now)
            session.add(account)
            session.flush()
            number = account.id
            listed = Collection(account_id=number, name=key, title=key, made=now, changed=now)
            session.add(listed)
            session.add(Token(digest=key, purpose="sign-in", data={}, made=now, expires=now))
            session.flush()
            return number, listed.id

    store = Store()
    assert [another(store, key) for key in ("a", "b")] == [(1, 1), (2, 2)]
    backup(store, tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("manifest.json"))
    assert "tables/accounts.jsonl" in names
    assert not {f"tables/{name}.jsonl" for name in ("events", "revisions", "tokens", "sessions", "rates")} & set(names)
    assert (manifest["kind"], manifest["schema"], manifest["rows"]["accounts"]) == ("broadsheet backup", SCHEMA, 2)
    assert datetime.fromisoformat(manifest["made"]).microsecond == 0
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "other"))
    other = Store()
    before = other.revisions()
    restore(other, tmp_path / "all.zip")
    assert other.revisions() == {name: number + 1 for name, number in before.items()}
    assert another(other, "c") == (100_003, 3)
    assert another(other, "d") == (100_004, 4)
