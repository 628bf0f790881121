"""The lab as it comes: options and limits as the guides say, tables as the migrations make them."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broadsheet.errors import InputError
from broadsheet.lab import (
    backup,
    claims,
    commands,
    engine,
    external,
    growth,
    jobs,
    local,
    location,
    paper,
    people,
    plots,
    rows,
    runner,
    schema,
    store,
    tables,
    taken,
    timing,
    worker,
)
from broadsheet.lab.store import Store

MIB = 1024**2


def test_limits_and_times():
    assert (backup.LARGEST, backup.SMALL, backup.MOST_PACKED) == (64 * 1024 * MIB, 64 * MIB, 100)
    assert (backup.LONGEST_ROW, backup.AT_ONCE, backup.KIND) == (8 * MIB, 100, "broadsheet backup")
    assert (backup.GAP, people.LONGEST_ADDRESS, people.DIGEST) == (100_000, 254, 64)  # RFC 5321; hexadecimal digits of 256 bits
    assert (commands.KEPT, commands.PIPE, commands.PATIENCE) == (64 * 1024, 1024 * 1024, 10.0)
    assert commands.PR_SET_CHILD_SUBREAPER == 36  # linux/prctl.h
    assert (0.25, 30.0, timedelta(minutes=10), 2000) == (engine.LOOK, jobs.BEAT, jobs.LEASE, jobs.NEVER_MORE_THAN)
    assert timedelta(seconds=jobs.BEAT) * 10 < jobs.LEASE  # a process that misses a few beats is still alive
    assert timedelta(days=30).total_seconds() == external.LONGEST
    assert (growth.FACTORS, growth.FADED) == ((1.0, 4.0), 0.5)
    assert (local.RETRIES, runner.MOST_WAITING, rows.DEEPEST, taken.LETTERS) == (2, 8, 64, 3)
    assert (store.LARGEST_RECORD, location.FILE, paper.FIRST_SEED) == (64 * MIB, "broadsheet.db", 100)
    assert worker.LONGEST_TEMPORARY + len("/wandb-0123456789") < 108  # sun_path of a Unix socket


def test_colours_of_figures_differ_and_are_hexadecimal():
    shown = {plots.SYSTEM_COLOUR, plots.CONTROL_COLOUR, *plots.COLOURS}
    assert len(shown) == 7
    assert all(len(each) == 7 and int(each[1:], 16) >= 0 for each in shown)


def test_tables_are_those_that_the_migrations_make(tmp_path, monkeypatch):
    """Alembic's own comparison: columns, their types and lengths, keys, what is unique."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import inspect

    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path))
    made = Store()
    with made.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.Base.metadata) == []
        look = inspect(connection)
        for name, table in tables.Base.metadata.tables.items():
            assert look.get_pk_constraint(name)["constrained_columns"] == [column.name for column in table.primary_key]
    assert made.schema() == store.SCHEMA


def test_a_job_as_it_comes_waits_for_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path))
    with Store().session() as session:
        moment = datetime.now(UTC)
        job = tables.Job(row={}, state="queued", created=moment, updated=moment)
        session.add(job)
        session.flush()
        assert (job.id, job.message, job.priority, job.owner) == (1, "", 0.0, "")
        session.expire(job)
        assert job.created == moment  # with its zone


@pytest.mark.parametrize(
    ("check", "inside", "edge"),
    [
        (claims.at_least("m", 0.5), 1.0, 0.5),
        (claims.at_most("m", 0.5), 0.0, 0.5),
        (claims.equals("m", 0.5, tol=0.1), 0.5, 0.6),
        (claims.equals("m", 0.5, tol=0.1), 0.5, 0.4),
    ],
)
def test_distance_is_above_0_inside_and_0_at_the_bound(check, inside, edge):
    assert check.distance(inside, "quick") > 0
    assert check.distance(edge, "quick") == pytest.approx(0, abs=1e-12)
    assert check.distance(edge + (edge - inside), "quick") == pytest.approx(-abs(edge - inside))


def test_checks_say_their_bound_as_a_person_reads_it():
    made = {
        "≥ 0.95": claims.at_least("m", 0.95),
        "≤ 1e-05": claims.at_most("m", 1e-5),
        "= 10 ± 0.5": claims.equals("m", 10, tol=0.5),
        "= 10": claims.equals("m", 10),
        "≥ 0.1 (mean)": claims.at_least("m", 0.1, minus="ablation"),
        "≥ 0.1 (in 2 seeds)": claims.at_least("m", 0.1, over="count", count=2),
    }
    assert {check.text("quick") for check in made.values()} == set(made)
    assert claims.at_least("m", {"quick": 1.0}).text("paper") == "no bound"
    assert claims.at_least("m", 1.0).value_at("smoke") is None
    assert claims.at_least("m", {"smoke": 1.0}).bounds("smoke") == (1.0, math.inf)


BAD = {
    "count of none": (lambda n: claims.at_least("m", 1.0, over="count", count=n), 1, 0),
    "within": (lambda high: claims.at_least("m", 1.0, within=(0.0, high)), 1e-3, 0.0),
    "seeds": (
        lambda n: claims.Claim("a", "b", "check", [claims.at_least("m", 1.0)], seeds=n, no_ablation="x", no_null="y"), 1, 0,
    ),
    "repeats": (lambda n: timing.measure(lambda: None, repeats=n), 1, 0),
    "warm-up": (lambda n: timing.measure(lambda: None, repeats=1, warm_up=n), 0, -1),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bounds_are_where_they_are_said_to_be(name):
    make, good, bad = BAD[name]
    make(good)
    with pytest.raises(InputError):
        make(bad)


def test_times_are_those_of_all_repeats():
    made = timing.Timing((3.0, 1.0, 2.0, 6.0))
    assert (made.minimum, made.median, made.spread) == (1.0, 2.5, 2.0)
    calls, shares = [], []
    timing.compare({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2, report=shares.append)
    assert calls == ["a", "b"] * 3  # once to warm up, then one way after the other
    assert shares == [0.5, 1.0]


def test_figures_have_the_size_and_look_asked_for():
    made, axes = plots.figure(columns=2, rows=3)
    assert made.get_size_inches().tolist() == pytest.approx([8.4, 9.3])
    assert axes.shape == (3, 2)
    one = plots.figure()[1]
    assert not one.spines["top"].get_visible()
    assert not one.spines["right"].get_visible()
    assert one.spines["left"].get_visible()
    one.plot([0, 1], label="curve")
    plots.label(one, "time (s)", "rate (Hz)", "title")
    assert (one.get_xlabel(), one.get_ylabel(), one.get_title()) == ("time (s)", "rate (Hz)", "title")
    assert one.get_legend() is not None
    other = plots.figure()[1]
    other.plot([0, 1])
    plots.label(other, "x", "y")
    assert other.get_legend() is None


def test_links_that_lead_out_of_a_folder_or_in_a_circle(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "inside").write_text("")
    for name, target in (("in", folder / "inside"), ("out", tmp_path / "elsewhere"), ("circle", folder / "circle")):
        (folder / name).symlink_to(target)
    assert [location.leads_out(folder / name, folder) for name in ("inside", "in", "out", "circle")] == [
        False, False, True, True,
    ]  # fmt: skip
    assert location.leads_out(folder / ".." / "x", folder)
    assert location.figures_folder(folder, "a", "b", "quick") == folder / "figures" / "a" / "b" / "quick"
    for wrong in ("", ".hidden", "a/b", "a\\b", "a\0b"):
        with pytest.raises(InputError, match="is no name"):
            location.figures_folder(folder, "a", wrong, "quick")


@pytest.mark.parametrize(
    ("distances", "shrinks"),
    [
        ([1.0, 0.49], True),
        ([1.0, 0.5], False),
        ([1.0, 0.4, 0.45], False),
        ([0.0, -1.0], False),
        ([1.0], False),
        ([4, 2, 1], True),
    ],
)
def test_a_distance_fades_that_falls_below_half(distances, shrinks):
    assert growth._shrinks(distances) is shrinks


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql://me@host/db", "postgresql+psycopg://me@host/db"),
        ("postgresql://me:postgresql://@host/db", "postgresql+psycopg://me:postgresql://@host/db"),
        ("sqlite:///x.db", "sqlite:///x.db"),
        ("", None),
    ],
)
def test_addresses_of_databases(url, found, monkeypatch):
    monkeypatch.setenv("BROADSHEET_DATABASE", url)
    assert location.database_url() == found
    assert location.exists() or not url


FIELDS = [
    ("bool", {}, [("yes", True), ("0", False), (True, True), ("TRUE", True)], ["maybe", 2]),
    ("int", {}, [("3", 3), (3.0, 3), ("1e3", 1000), ("-2", -2)], ["3.5", 3.5, True, "x", float("nan"), [1]]),
    ("float", {}, [("3", 3.0), (2, 2.0), ("1e-3", 1e-3)], ["nan", float("inf"), True, "x", None]),
    ("text", {}, [("a", "a"), (3, "3")], [True, [1], None]),
    ("choice", {"choices": ("a", 1)}, [("a", "a"), (1, 1), ("1", 1)], ["b", 2, 1.0]),
    ("int", {"optional": True}, [("none", None), (None, None), ("None", None), (4, 4)], ["nothing"]),
    ("list", {"parts": (schema.Field("x", "int"),)}, [("1+2", (1, 2)), ("1 2", (1, 2)), ([3], (3,)), ("", ())], ["1+x", 5, b"1"]),
    ("row", {"parts": (schema.Field("x", "int"), schema.Field("y", "float"))}, [("1 2.5", (1, 2.5))], ["1", "1 2 3", {"x": 1}]),
    ("list", {"parts": (schema.Field("x", "list", parts=(schema.Field("y", "float"),)),)}, [("1e+1;2 3", ((10.0,), (2.0, 3.0)))], []),
    ("config", {}, [], [{}, "x"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options_", "good", "bad"), FIELDS)
def test_settings_are_read_by_their_kind(kind, options_, good, bad):
    field = schema.Field("steps", kind, **options_)
    for given, wanted in good:
        found = field.parse(given)
        assert (found, type(found)) == (wanted, type(wanted))
    for given in bad:
        with pytest.raises(InputError, match="steps is"):
            field.parse(given)
    assert schema.Field.from_json(field.to_json()) == field
    long = "x" * 100
    with pytest.raises(InputError) as said:
        schema.Field("steps", "int").parse(long)
    assert str(said.value) == f"steps is {repr(long)[:80]}…; a whole number is wanted."


def test_a_new_row_has_neither_words_nor_numbers_nor_rights():
    """What a column is where nobody says it: empty, 0, false; an account reads."""
    nothing = {str: "", int: 0, float: 0.0, bool: False}
    for table in tables.Base.metadata.tables.values():
        for column in table.columns:
            if column.default is not None:
                given = column.default.arg
                wanted = "reader" if (table.name, column.name) == ("accounts", "role") else nothing[column.type.python_type]
                assert (given, type(given)) == (wanted, type(wanted)), f"{table.name}.{column.name}"
    missing = {column.name for column in people.Account.__table__.columns if column.default is None and not column.nullable}
    assert missing == {"id", "name", "key", "made", "seen"}


def test_numbers_of_rows_are_given_by_the_database_and_where_links_went_out_never_again():
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.schema import CreateTable

    for name, table in tables.Base.metadata.tables.items():
        made = {kind: str(CreateTable(table).compile(dialect=kind.dialect())) for kind in (postgresql, sqlite)}
        numbered = "id" in table.c and table.c.id.type.python_type is int
        assert ("id SERIAL NOT NULL" in made[postgresql]) is numbered, name
        if numbered:
            assert table.c.id.autoincrement is True, name
        assert ("AUTOINCREMENT" in made[sqlite]) is (name in ("accounts", "subscriptions", "letters")), name


def test_a_new_database_is_as_its_guide_says(tmp_path, monkeypatch):
    from sqlalchemy import text

    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path))
    made = Store()
    names = ("busy_timeout", "foreign_keys", "journal_mode", "synchronous")
    with made.engine.connect() as connection:
        pragmas = {name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in names}
        rows = connection.execute(text("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")).scalars().all()
    assert pragmas == {"busy_timeout": 30_000, "foreign_keys": 1, "journal_mode": "wal", "synchronous": 1}
    assert set(rows) == {"accounts", "subscriptions", "letters", "events"}
    assert made.revisions() == {"papers": 0, "runs": 0, "vectors": 0, "readers": 0}


def test_checks_and_claims_as_they_come():
    check = claims.at_least("m", 0.5)
    assert check.to_dict() == {"metric": "m", "sense": "at_least", "value": 0.5}
    assert (check.tol, check.of, check.minus, check.over, check.count) == (0.0, "system", None, "each", None)
    assert claims.at_least("m", 0.5, minus="off").to_dict() == {
        "metric": "m", "sense": "at_least", "value": 0.5, "minus": "off",
    }  # fmt: skip
    assert claims.equals("m", 0.5, 0.1, over="mean", within=(0, 1)).to_dict() == {
        "metric": "m", "sense": "equals", "value": 0.5, "over": "mean", "tol": 0.1, "within": [0.0, 1.0],
    }  # fmt: skip
    made = claims.Claim("a", "b", "check", [check])
    assert made.to_dict() == {
        "id": "a", "statement": "b", "kind": "check", "checks": [check.to_dict()], "where": "", "ablation": [], "null": [],
        "no_ablation": "", "no_null": "", "about": "system", "grows": "", "answers_to": {}, "seeds": 3, "reference": "",
        "reason": "", "untested": "", "published": "",
    }  # fmt: skip
    assert (made.needs(), made.waits_for_null, made.tried) == ({"system": {"m"}}, False, (check,))
    assert check.mentions("system")
    assert not check.mentions("off")
    assert check.with_control("off") == claims.at_least("m", 0.5, of="off")
    swapped = claims.at_least("m", 0.5, of="peer", minus="system").with_control("off")
    assert (swapped.of, swapped.minus) == ("peer", "off")
    both = claims.Claim(
        "a", "b", "paper", [check, claims.at_most("n", 1.0, of="peer", minus="system")], ablation="off", no_null="why"
    )
    assert both.needs() == {"system": {"m", "n"}, "peer": {"n"}, "off": {"m", "n"}}
    assert [each.of for each in both.tried_on("off")] == ["off", "peer"]
    one = {"checks": [check], "ablation": "off"}
    for options, kind in (
        ({**one, "no_null": "x"}, "neither"), ({**one, "null": "r", "no_null": "x"}, "paper"),
        ({**one, "no_null": "x", "untested": "y"}, "paper"), ({"untested": ""}, "paper"),
    ):  # fmt: skip
        with pytest.raises(InputError, match="Claim a"):
            claims.Claim("a", "b", kind, **options)
    untried = claims.Claim("a", "b", "paper", untested="no data")
    assert (untried.controls, untried.judged_at("quick")) == ((), False)


def test_tasks_and_plans_as_they_come():
    from broadsheet.lab.executors import Task
    from broadsheet.lab.messages import Ended, Failed, JobSpec, Progress

    task = Task(None)
    assert (task.exclusive, task.priority, task.state, task.message, task.trace, task.attempts, task.finished) == (
        False, 0.0, "queued", "", "", 0, set(),
    )  # fmt: skip
    assert task.ended() == Ended("queued", "")
    assert (Failed("x").trace, Ended("done").message, Progress("x", 0.5).metrics) == ("", "", {})
    job = JobSpec("toy", "coin")
    assert (job.preset, job.variants, job.seeds, job.overrides, job.data, job.trust, job.figures, job.repository) == (
        "quick", None, (100,), {}, None, False, True, False,
    )  # fmt: skip
    assert JobSpec("toy", "coin", variants=(), seeds=(), overrides=None) == job
    assert job.to_json() == {"slug": "toy", "experiment": "coin", "preset": "quick", "seeds": [100]}
    assert replace(job, figures=False, repository=True, variants=("a",), data="d", overrides={"x": 1}, trust=True).to_json() == {
        "slug": "toy", "experiment": "coin", "preset": "quick", "seeds": [100], "variants": ["a"], "overrides": {"x": 1},
        "data": "d", "figures": False, "repository": True,
    }  # fmt: skip


def test_settings_in_the_index_and_in_words():
    made = schema.Field("x", "int")
    assert made.to_json() == {"name": "x", "kind": "int"}
    assert (made.choices, made.parts, made.optional, made.default) == ((), (), False, ...)
    row = schema.Field("x", "row", parts=(schema.Field("x", "choice", ("a", 1)), made), optional=True, default=None)
    assert row.to_json() == {
        "name": "x", "kind": "row", "optional": True, "default": None,
        "parts": [{"name": "x", "kind": "choice", "choices": ["a", 1]}, {"name": "x", "kind": "int"}],
    }  # fmt: skip
    assert row.wanted() == "2 values (one of a, 1; a whole number), or none"
    for length, cut in ((78, False), (79, True)):  # with its quotes 80 characters are shown, and 81 are not
        with pytest.raises(InputError) as said:
            made.parse("x" * length)
        assert ("…" in str(said.value)) is cut


def test_how_a_curve_is_labelled_without_a_legend():
    axis = plots.figure(width=2.0, height=1.0)[1]
    assert axis.figure.get_size_inches().tolist() == [2.0, 1.0]
    axis.plot([0, 1], label="curve")
    plots.label(axis, "x", "y", legend=False)
    assert axis.get_legend() is None
    assert axis.get_title() == ""
    assert plots.figure()[0].get_size_inches().tolist() == pytest.approx([4.2, 3.1])
