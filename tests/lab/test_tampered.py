"""Rows and archives that others have changed: one sentence, and nothing outside the home is read, written or removed."""

import contextlib
import io
import json
import shutil
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, text

from broadsheet.errors import BroadsheetError, DataError, InputError, StoreError
from broadsheet.lab import backup as backup_module
from broadsheet.lab import ledger, people, rows
from broadsheet.lab.backup import backup, restore
from broadsheet.lab.jobs import Jobs
from broadsheet.lab.location import figures_folder
from broadsheet.lab.messages import JobSpec
from broadsheet.lab.registry import entries
from broadsheet.lab.store import Store
from broadsheet.lab.tables import Job, Run, Vector, Verification
from broadsheet.page import Catalogue
from broadsheet.page.facts import Facts

ID = "ab" * 32
RECORD = {
    "id": ID, "slug": "toy", "experiment": "coin", "preset": "quick", "variant": "system", "seed": 100, "config": {},
    "scalars": {"": {"mean": 0.5}}, "code_hash": "c", "precision": "float32", "device": "cpu", "environment": {},
    "finished": "2025-01-01T00:00:00+00:00", "seconds": 1.0, "peak_mib": 1.0, "arrays_bytes": 3,
}  # fmt: skip
LEDGER = {"slug": "elm-neuron", "made": "2099-01-01", "experiments": {}}


@pytest.fixture
def filled(home):
    """A store with a row of each kind, a run's files and a figure."""
    store = Store()
    folder = store.scratch() / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(RECORD))
    (folder / "arrays.npz").write_bytes(b"123")
    store.record(folder)
    Jobs(store).queue(JobSpec("toy", "coin", overrides={"a": 1}))
    store.add_verification("elm-neuron", LEDGER)
    Catalogue(store).add(
        "hub", [Facts("New", arxiv="2501.00001", names=("A B",), comments=2, published="2025-01-01")], date(2025, 1, 1)
    )
    figure = figures_folder(store.folder, "toy", "coin", "quick") / "coin.svg"
    figure.parent.mkdir(parents=True)
    figure.write_text("<svg/>")
    return store


@pytest.fixture
def parts(filled, tmp_path):
    """The files of an archive, by name."""
    backup(filled, tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """The database of a new home: to make one anew takes longer than all else here."""
    place = tmp_path_factory.mktemp("new")
    store = Store(place, f"sqlite:///{place}/broadsheet.db")
    store.engine.dispose()
    return place / "broadsheet.db"


@pytest.fixture
def tried(new, tmp_path):
    return lambda content: attempt(new, tmp_path / "tried", content)


def packed(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def attempt(new: Path, place: Path, content: bytes) -> BroadsheetError | None:
    """Restores into a new home; the refusal, where there is one. Nothing is kept then, and nothing beside the home ever."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "home").mkdir(parents=True)
    shutil.copy(new, place / "home")
    archive = place / "archive.zip"
    archive.write_bytes(content)
    store = Store(place / "home", f"sqlite:///{place}/home/broadsheet.db")
    try:
        restore(store, archive)
        refusal = None
    except BroadsheetError as error:
        refusal = error
        assert "\n" not in str(error)
        assert not list(store.runs.iterdir())
        assert not (store.folder / "figures").exists()
        with store.session() as session:
            assert session.scalar(text("SELECT count(*) FROM runs")) == session.scalar(text("SELECT count(*) FROM papers")) == 0
    else:  # what was taken in can be worked with
        store.tidy()
        store.free(0, set())
        Catalogue(store).papers()
        ledger.latest(["elm-neuron"], store)
        for job in Jobs(store).recent():
            assert job.spec.slug
        backup(store, place / "again.zip")
    assert {path.name for path in place.iterdir()} <= {"home", "archive.zip", "again.zip"}
    scratch = store.folder / "scratch"
    assert not scratch.exists() or not list(scratch.iterdir())
    store.engine.dispose()
    return refusal


def changed(parts: dict[str, bytes], table: str, **values) -> dict[str, bytes]:
    """The same files with values of a table's first row changed; what is `...` is left out."""
    name = f"tables/{table}.jsonl"
    row = json.loads(parts[name].splitlines()[0])
    row = {key: value for key, value in {**row, **values}.items() if value is not ...}
    return {**parts, name: json.dumps(row).encode() + b"\n"}


def test_an_archive_that_nobody_changed_is_taken(parts, tried):
    assert tried(packed(parts)) is None


@pytest.mark.parametrize(
    ("table", "values", "told"),
    [
        ("runs", {"id": "../../victim"}, "row 1 of runs: its id is '../../victim', which is no run's"),
        ("runs", {"id": "/etc"}, "no run's"),
        ("runs", {"id": ID.upper()}, "no run's"),
        ("runs", {"id": None}, "its id is null, no text"),
        ("runs", {"id": "ac" * 32}, "files of the run abab"),
        ("runs", {"finished": "yesterday"}, "its finished is 'yesterday', no time"),
        ("runs", {"finished": 3}, "no time"),
        ("runs", {"finished": "0001-01-01T00:00:00+14:00"}, "no time"),
        ("runs", {"seed": "100"}, "its seed is text, no number"),
        ("runs", {"seed": True}, "no number"),
        ("runs", {"seed": 2**70}, "too large"),
        ("runs", {"seconds": ...}, "its seconds is missing"),
        ("runs", {"more": 1}, "no column 'more'"),
        ("runs", {"scalars": [1]}, "its scalars is a list, no object"),
        ("runs", {"scalars": {"": {"a": "b"}}}, "no table of numbers"),
        ("runs", {"slug": "a\0b"}, "characters that are none"),
        ("runs", {"slug": "\ud800"}, "characters that are none"),
        ("runs", {"slug": "x" * 121}, "121 characters"),
        ("jobs", {"spec": {"slug": "toy"}}, "not enough"),
        ("jobs", {"spec": {"slug": ["toy"], "experiment": "coin"}}, "where names stand"),
        ("jobs", {"spec": {"slug": "toy", "experiment": "coin", "seeds": "100"}}, "no list"),
        ("jobs", {"state": "eternal"}, "its state is 'eternal'"),
        ("papers", {"slug": "../x"}, "no short name"),
        ("sightings", {"facts": {}}, "no title"),
        ("sightings", {"facts": {"title": ["x"]}}, "'title' as a list"),
        ("sightings", {"facts": {"title": "x", "names": [1]}}, "no list of texts"),
        ("sightings", {"facts": {"title": "x", "published": "soon"}}, "no day"),
        ("sightings", {"as_of": "2025"}, "no day"),
        ("sightings", {"slug": "missing"}, "FOREIGN KEY"),
        ("verifications", {"entry": "text"}, "no object"),
    ],
)  # fmt: skip
def test_a_changed_row_is_named(parts, tried, table, values, told):
    refusal = tried(packed(changed(parts, table, **values)))
    assert told in str(refusal)


def with_manifest(parts, **values):
    return {**parts, "manifest.json": json.dumps({**json.loads(parts["manifest.json"]), **values}).encode()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda parts: with_manifest(parts, rows=[1]), "does not count"),
        (lambda parts: with_manifest(parts, rows={"runs": "1"}), "does not count"),
        (lambda parts: with_manifest(parts, rows={}), "rows of"),
        (lambda parts: with_manifest(parts, schema=["x"]), "schema"),
        (lambda parts: {**parts, "manifest.json": b"[]"}, "no manifest"),
        (lambda parts: {**parts, "manifest.json": b"[" * 100_000}, "no manifest"),
        (lambda parts: {**parts, "tables/runs.jsonl": b"[]\n"}, "row 1 of runs: it is a list"),
        (lambda parts: {**parts, "tables/runs.jsonl": b"\xff\n"}, "row 1 of runs: it is not JSON"),
        (lambda parts: {**parts, "tables/runs.jsonl": b"[" * 100_000}, "row 1 of runs: it is not JSON"),
        (lambda parts: {**parts, "tables/runs.jsonl": b" " * (9 << 20)}, "more than 8 MiB"),
        (lambda parts: {**parts, "figures/../../x": b""}, "which no backup holds"),
        (lambda parts: {**parts, "/etc/x": b""}, "which no backup holds"),
        (lambda parts: {**parts, "runs/../x": b""}, "which no backup holds"),
        (lambda parts: {**parts, "runs/x/run.json": b""}, "which is no run"),
        (lambda parts: {**parts, f"runs/{'cd' * 32}/run.json": b""}, "but not its row"),
        (lambda parts: {**parts, f"runs/{ID}/run.json": b"{}"}, "no finished run"),
        (lambda parts: {**parts, f"runs/{ID}/run.json": json.dumps({**RECORD, "id": "cd" * 32}).encode()}, "another run"),
        (lambda parts: {**parts, "figures/a/b/quick/.hidden": b""}, "which no backup holds"),
        (lambda parts: {**parts, f"runs/{ID}/arrays.npz": b"\0" * (80 << 20)}, "as no backup does"),
    ],
)  # fmt: skip
def test_a_changed_archive_is_refused(parts, tried, change, told):
    refusal = tried(packed(change(parts)))
    assert told in str(refusal)


def test_an_archive_larger_than_the_disk_is_refused_by_what_it_says(parts, tried):
    content = packed(parts)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = archive.getinfo(f"runs/{ID}/arrays.npz").file_size
    at = content.rindex(f"runs/{ID}/arrays.npz".encode()) - 46 + 24  # in the central directory
    assert int.from_bytes(content[at : at + 4], "little") == size
    assert "MiB" in str(tried(content[:at] + b"\xf0\xff\xff\xff" + content[at + 4 :]))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["../../x", "a/b", ID]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
CHANGES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@CHANGES
@given(st.data())
def test_any_change_of_a_value_is_taken_or_refused(parts, tried, data):
    name = data.draw(st.sampled_from([*sorted(name for name in parts if name.endswith("l") and parts[name]), "manifest.json"]))
    row = json.loads(parts[name].splitlines()[0] if name.endswith("l") else parts[name])
    places = [(row, key) for key in row]
    for inner in row.values():
        if isinstance(inner, dict):
            places += [(inner, key) for key in inner]
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(JSON)
    with contextlib.suppress(UnicodeEncodeError):
        tried(packed({**parts, name: json.dumps(row).encode() + b"\n"}))


@CHANGES
@given(st.data())
def test_any_change_of_bytes_is_taken_or_refused(parts, tried, data):
    content = bytearray(packed(parts))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    tried(bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]))


def test_ids_are_checked_on_the_way_out_too(filled, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "arrays.npz").write_bytes(b"mine")
    row = {**RECORD, "id": "../../victim", "finished": datetime.now(UTC)}
    with filled.session() as session:
        session.execute(insert(Run), [row])
    assert (filled.runs / "../../victim/arrays.npz").exists()
    for reach in (
        lambda: filled.free(-1, set()),
        lambda: backup(filled, tmp_path / "out.zip"),
        lambda: filled.report(Run(**row)),
    ):
        with pytest.raises(StoreError, match=r"whose id is '\.\./\.\./victim'"):
            reach()
    assert (victim / "arrays.npz").read_bytes() == b"mine"
    assert not (tmp_path / "out.zip").exists()
    with pytest.raises(InputError, match="no name"):
        figures_folder(filled.folder, "..", "x", "quick")


def test_links_in_the_home_are_not_followed_out_of_it(filled, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "arrays.npz").write_bytes(b"mine")
    shutil.rmtree(filled.runs / ID)
    (filled.runs / ID).symlink_to(outside)
    (filled.folder / "figures" / "link.svg").symlink_to(outside / "arrays.npz")
    assert filled.size() == 0
    assert filled.free(0, set()) == (0, 0)
    backup(filled, tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        names = archive.namelist()
    assert f"runs/{ID}/arrays.npz" not in names
    assert "figures/link.svg" not in names
    assert "figures/toy/coin/quick/coin.svg" in names
    assert (outside / "arrays.npz").read_bytes() == b"mine"


def test_records_that_are_damaged_are_told_of_and_stay(filled, caplog):
    for name, content in ((ID, "{"), ("cd" * 32, "[1]"), ("ef" * 32, json.dumps(RECORD)), ("own", json.dumps(RECORD))):
        place = filled.runs / name
        place.mkdir(exist_ok=True)
        (place / "run.json").write_text(content)
    own = filled.folder / "scratch" / "my-notes"
    left = filled.folder / "scratch" / "999999999-abc" / "run"
    for place in (own, left):
        place.mkdir(parents=True)
    (left / "run.json").write_text("half of a rec")
    assert filled.tidy() == 0
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 4
    assert sum("another run" in line for line in told) == 2
    assert own.exists()
    assert (left / "run.json").exists()
    assert all((filled.runs / name / "run.json").exists() for name in (ID, "cd" * 32, "ef" * 32, "own"))
    assert [run.id for run in filled.find()] == [ID]


@pytest.mark.parametrize(
    "entry",
    [
        '{"made": 3}',
        "[1]",
        "{",
        '{"made": "2099", "experiments": []}',
        '{"made": "2099", "experiments": {"recall": {"metrics": 1}}}',
    ],
)
def test_a_verification_that_is_damaged_is_told_of_and_the_one_before_counts(filled, caplog, entry):
    with filled.session() as session:
        session.add(Verification(slug="elm-neuron", made=datetime.now(UTC), entry={}))
    with filled.session() as session:
        session.execute(text("UPDATE verifications SET entry = :entry WHERE id = 2"), {"entry": entry})
    assert ledger.verified(filled) == {"elm-neuron": LEDGER}
    assert "Verification 2 of elm-neuron" in caplog.text
    assert ledger.states(entries()["elm-neuron"], ledger.latest(["elm-neuron"], filled)["elm-neuron"])


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("figures/a/b/c/d.svg", True), ("figures/a/b/c/d/e.svg", False), (f"runs/{ID}/more.txt", True), (f"runs/{ID}/a/b", False),
        ("tables/a/b", False), ("manifest.json/x", False), ("other", False), (f"figures/{'x' * 200}", True), (f"figures/{'x' * 201}", False),
    ],
)  # fmt: skip
def test_files_of_an_archive_are_as_deep_as_backups_have_them(parts, tried, name, fine):
    refusal = tried(packed({**parts, name: b"x"}))
    assert refusal is None if fine else "which no backup holds" in str(refusal)


def test_what_packs_well_is_refused_only_where_it_is_large(parts, tried, monkeypatch):
    content = packed({**parts, f"runs/{ID}/more.bin": b"\0" * (1 << 20)})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(member.file_size for member in archive.infolist())
        packed_size = sum(member.compress_size for member in archive.infolist())
    assert size > 100 * packed_size
    assert tried(content) is None
    monkeypatch.setattr(backup_module, "SMALL", size)
    assert tried(content) is None
    monkeypatch.setattr(backup_module, "SMALL", size - 1)
    assert "as no backup does" in str(tried(content))
    monkeypatch.setattr(backup_module, "MOST_PACKED", size // packed_size + 1)
    assert tried(content) is None
    monkeypatch.setattr(backup_module, "LARGEST", size)
    assert tried(content) is None
    monkeypatch.setattr(backup_module, "LARGEST", size - 1)
    assert "are allowed or free here" in str(tried(content))


def test_a_row_may_be_as_long_as_it_is_said(parts, tried, monkeypatch):
    longest = max(len(line) for name in parts if name.startswith("tables/") for line in parts[name].splitlines(keepends=True))
    monkeypatch.setattr(backup_module, "LONGEST_ROW", longest)
    assert tried(packed(parts)) is None
    monkeypatch.setattr(backup_module, "LONGEST_ROW", longest - 1)
    assert "is damaged: row 1 of" in str(tried(packed(parts)))


def test_archives_of_the_schema_before_are_read(parts, tried):
    """They only lack the tables of readers."""
    readers = {
        table.__tablename__ for table in vars(people).values() if isinstance(table, type) and hasattr(table, "__tablename__")
    }
    held = {name: rows for name, rows in json.loads(parts["manifest.json"])["rows"].items() if name not in readers}
    older = {
        name: content for name, content in parts.items() if name.removeprefix("tables/").removesuffix(".jsonl") not in readers
    }
    assert tried(packed(with_manifest(older, schema="0002", rows=held))) is None
    assert "restore it with the version that made it" in str(tried(packed(with_manifest(older, schema="0001", rows=held))))
    assert "0 of 3 rows of votes" in str(tried(packed(with_manifest(older, schema="0002", rows={**held, "votes": 3}))))
    encrypted = bytearray(packed(parts))
    at = encrypted.rindex(b"PK\x01\x02")
    encrypted[at + 8] |= 1
    assert "packed in another way" in str(tried(bytes(encrypted)))


RUN = {"id": "ab" * 32, **{name: value for name, value in RECORD.items() if name != "id"}}
ROWS = [
    (Run, RUN, {}, None),
    (Run, RUN, {"slug": "x" * 120}, None),
    (Run, RUN, {"seed": 2**63 - 1}, None),
    (Run, RUN, {"seed": 2**63}, "too large"),
    (Run, RUN, {"seed": -(2**63)}, "too large"),
    (Run, RUN, {"seed": 1.0}, "its seed is no whole number"),
    (Run, RUN, {"seconds": 2}, None),
    (Run, RUN, {"seconds": False}, "its seconds is true or false, no number"),
    (Run, RUN, {"seconds": float("inf")}, "too large"),
    (Run, RUN, {"scalars": {"": {"a": None, "b": True, "c": 1, "d": 0.5}}}, None),
    (Run, RUN, {"scalars": {"": [1]}}, "no table of numbers"),
    (Run, RUN, {"config": {"a": {"b": [1, None, {"c": "d"}]}}}, None),
    (Run, RUN, {"config": {"a": "\ud800"}}, "characters that are none"),
    (Run, RUN, {"config": {"a\0": 1}}, "characters that are none"),
    (Run, RUN, {"config": {"a": [float("nan")]}}, "not finite"),
    (people.Vote, {"slug": "a", "account_id": 1, "made": "2025-01-01T00:00:00"}, {}, None),
    (people.Notice, {"slug": "a", "votes": 1, "weight": 0.5, "comments": 0, "revision": 1}, {"weight": "1"}, "no number"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "row", "changed", "told"), ROWS)
def test_rows_at_the_limits_of_their_columns(table, row, changed, told):
    if told is None:
        assert rows.checked(table.__table__, {**row, **changed}).keys() == row.keys()
    else:
        with pytest.raises(DataError, match=told):
            rows.checked(table.__table__, {**row, **changed})


def test_json_values_are_nested_as_deeply_as_it_is_said():
    def deep(levels):
        value = []
        for _ in range(levels - 2):
            value = [value]
        return {"a": value}

    rows.checked(Run.__table__, {**RUN, "config": deep(65)})
    with pytest.raises(DataError, match="too deeply"):
        rows.checked(Run.__table__, {**RUN, "config": deep(66)})


def test_times_and_bytes_and_truths_of_rows():
    made = rows.checked(Run.__table__, {**RUN, "finished": "2025-01-01T01:00:00+03:00"})["finished"]
    assert (made, made.utcoffset().total_seconds()) == (datetime(2024, 12, 31, 22, tzinfo=UTC), 0)
    assert rows.checked(Run.__table__, {**RUN, "finished": "2025-01-01"})["finished"] == datetime(2025, 1, 1, tzinfo=UTC)
    vector = {"slug": "a", "model": "m", "digest": "d", "value": "AAE="}
    assert rows.checked(Vector.__table__, vector)["value"] == b"\0\1"
    for value, told in (("AA==", "1 bytes"), ("", "0 bytes"), ("A!E=", "not bytes"), (3, "not bytes")):
        with pytest.raises(DataError, match=told):
            rows.checked(Vector.__table__, {**vector, "value": value})
    account = {
        "id": 1,
        "address": None,
        "name": "a",
        "key": "a",
        "role": "reader",
        "blocked": True,
        "made": "2025-01-01",
        "seen": "2025-01-01",
    }
    assert rows.checked(people.Account.__table__, account)["blocked"] is True
    with pytest.raises(DataError, match="neither true nor false"):
        rows.checked(people.Account.__table__, {**account, "blocked": 1})


JOB = {
    "id": 1, "spec": {"slug": "a", "experiment": "b"}, "state": "done", "created": "2025-01-01", "updated": "2025-01-01", "message": "",
    "priority": 0.0, "owner": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"preset": "quick", "data": "d", "variants": ["a"], "seeds": [1], "overrides": {"a": 1}}, None),
        ({"data": None, "variants": None, "seeds": None, "overrides": None}, None),
        ({"slug": 1}, "where names stand"), ({"experiment": 1}, "where names stand"), ({"preset": 1}, "where names stand"),
        ({"data": 1}, "where names stand"), ({"variants": [1]}, "where names stand"), ({"overrides": [1]}, "A job has"),
        ({"variants": "a"}, "its variants are text, no list"), ({"seeds": [True]}, "no whole numbers"), ({"seeds": [1.0]}, "no whole numbers"),
    ],
)  # fmt: skip
def test_what_a_jobs_row_asks_for(spec, told):
    row = {**JOB, "spec": {**JOB["spec"], **spec}}
    if told is None:
        rows.checked(Job.__table__, row)
    else:
        with pytest.raises(DataError, match=told):
            rows.checked(Job.__table__, row)


def test_arrays_go_oldest_first_until_the_rest_fits(home):
    """Runs of 10, 20 and 40 bytes, finished in this order; what is kept, and what fits, stays."""
    store = Store()
    ids = [letter * 64 for letter in "abc"]
    for k, run in reversed(list(enumerate(ids))):
        folder = store.scratch() / "run"
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({**RECORD, "id": run, "seed": k, "finished": f"2025-01-0{k + 1}"}))
        (folder / "arrays.npz").write_bytes(b"x" * (10 << k))
        assert store.record(folder) == run
    before = store.revisions()["runs"]
    assert [run.id for run in store.find()] == ids
    assert [run.id for run in store.find(seed=1)] == ids[1:2]
    assert store.has([*ids, "d" * 64]) == set(ids)
    assert store.size() == 70
    assert [store.free(budget, set(), dry_run=True) for budget in (70, 69, 60, 59, 40, 39, 0)] == [
        (0, 0), (1, 10), (1, 10), (2, 30), (2, 30), (3, 70), (3, 70),
    ]  # fmt: skip
    assert store.size() == 70
    assert store.free(50, {ids[0]}) == (1, 20)
    assert [(store.arrays(run) is not None) for run in store.find()] == [True, False, True]
    again = store.scratch() / "run"
    again.mkdir()
    (again / "run.json").write_text(json.dumps({**RECORD, "id": ids[0], "seed": 9}))
    store.record(again)
    assert again.exists()  # the run is known already
    assert store.find()[0].seed == 0
    assert store.revisions()["runs"] == before + 1
    report = store.report(Run(**{**RECORD, "scalars": {"": {"a": None}, "off": {"b": 2}}}))
    assert (list(report.metrics), report.arms, report.arrays) == (["a"], {"off": {"b": 2.0}}, {})


def test_the_newest_verification_that_is_sound_counts(home, caplog):
    store = Store()
    for number, slug in enumerate(("a", "b", "a", "b")):
        store.add_verification(slug, {"number": number})
    assert store.verifications() == {"a": {"number": 2}, "b": {"number": 3}}
    assert caplog.text == ""
    assert store.verifications(lambda slug, entry: entry["number"] != 3) == {"a": {"number": 2}, "b": {"number": 1}}
    assert "Verification 4 of b" in caplog.text
    assert store.revisions()["runs"] == 4
