"""Data sets on disk: the authors' table there and back, tables that are something else, folders; and the verb over all of it."""

import contextlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import worm_files as files

from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.recordings.worm import Summary, homogenise, iter_parquet, load_parquet, read_folder, write_folder, write_parquet
from broadsheet.recordings.worm.names import slots
from commands import call, read

RNG = np.random.default_rng(0)


def recording(worm="w0", source="Lab2020", **options):
    x, t = files.traces(RNG, 60), files.times(60)
    return homogenise(x, t, files.NAMES, source=source, worm=worm, file="raw.mat", **options)


def same(a, b):
    np.testing.assert_allclose(a.calcium, b.calcium, atol=1e-5)
    np.testing.assert_allclose(a.residual, b.residual, atol=1e-4)
    np.testing.assert_allclose(a.smooth_calcium, b.smooth_calcium, atol=1e-5)
    np.testing.assert_allclose(a.others, b.others, atol=1e-5)
    np.testing.assert_allclose(a.time, b.time, atol=1e-4)
    np.testing.assert_array_equal(a.mask, b.mask)
    assert (a.source, a.worm, a.file, a.other_names, a.causal, a.smooth) == (
        b.source,
        b.worm,
        b.file,
        b.other_names,
        b.causal,
        b.smooth,
    )


@pytest.mark.parametrize("kind", ["table.parquet", "folder"])
def test_there_and_back(tmp_path, kind):
    made = [recording(), recording("w1", smooth="gaussian"), recording("w0", "Other2021", causal=True)]
    path = tmp_path / kind
    write, read = (write_parquet, load_parquet) if path.suffix else (write_folder, read_folder)
    assert write(path, made) == 3
    for a, b in zip(read(path), made, strict=True):
        same(a, b)


def test_the_authors_columns(tmp_path):
    write_parquet(tmp_path / "a.parquet", [recording()])
    table = pq.read_table(tmp_path / "a.parquet").to_pandas()
    theirs = {"source_dataset", "raw_data_file", "worm", "neuron", "slot", "is_labeled_neuron", "smooth_method", "interpolate_method",
              "normalization_method", "calcium_data", "time_in_seconds", "max_timesteps"}  # fmt: skip
    assert theirs <= set(table.columns)
    labelled = table[table.is_labeled_neuron]
    assert labelled.neuron.tolist() == sorted(files.KNOWN)
    assert labelled.slot.tolist() == [slots()[name] for name in sorted(files.KNOWN)]
    assert not set(table[~table.is_labeled_neuron].slot) & set(labelled.slot)
    assert all(len(series) == count for series, count in zip(table.calcium_data, table.max_timesteps, strict=True))


def table(**changes):
    """A small table as the authors' code makes it: worms' names repeat between sources, unlabelled cells in random slots."""
    time = np.arange(5, dtype=np.float32) * np.float32(0.333)
    rows = []
    for source, worm, neuron, slot, known in (
        ("A", "worm0", "AVAL", 40, True), ("A", "worm0", "7", 211, False), ("A", "worm1", "VB2", 280, True),
        ("B", "worm0", "AVAL", 40, True),
    ):  # fmt: skip
        rows.append({"source_dataset": source, "worm": worm, "neuron": neuron, "slot": slot, "is_labeled_neuron": known,
                     "calcium_data": np.linspace(-1, 1, 5, dtype=np.float32), "time_in_seconds": time})  # fmt: skip
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return pa.table({**columns, **changes})


def test_a_released_table(tmp_path):
    path = tmp_path / "worm_data_short.parquet"
    pq.write_table(table(), path)
    worms = load_parquet(path)
    assert [(each.source, each.worm) for each in worms] == [("A", "worm0"), ("A", "worm1"), ("B", "worm0")]
    first = worms[0]
    assert np.flatnonzero(first.mask).tolist() == [slots()["AVAL"]]
    assert first.other_names == ("7",)
    assert not first.calcium[:, 211].any()  # the slot of an unlabelled cell says nothing
    np.testing.assert_allclose(first.residual[:, slots()["AVAL"]], 0.5 / 0.333, rtol=1e-5)
    found = Summary()
    for each in worms:
        found.add(each)
    assert (found.as_json()["worms"], found.as_json()["neurons"], found.unlabelled) == (3, 2, 1)


def test_times_that_went_through_half_precision(tmp_path):
    """Steps of 0.333 s from 600 s on come out as 0 and 0.5 s."""
    time = (600 + 0.333 * np.arange(40)).astype(np.float16).astype(np.float32)
    assert (np.diff(time) == 0).any()
    columns = {"source_dataset": ["A"], "worm": ["w"], "neuron": ["AVAL"], "is_labeled_neuron": [True],
               "calcium_data": [np.ones(40, np.float32)], "time_in_seconds": [time]}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (worm,) = load_parquet(tmp_path / "a.parquet")
    np.testing.assert_allclose(np.diff(worm.time), 0.333, atol=0.015)
    assert np.ptp(np.diff(worm.time)) < 1e-9


@pytest.mark.parametrize(
    ("changes", "drop", "words"),
    [
        ({}, "neuron", "lacks the columns neuron"),
        ({"worm": ["worm0", "worm1", "worm1", "worm0"], "source_dataset": ["A"] * 4}, None, "stand in two places"),
        ({"neuron": ["AVAL", "aval", "VB2", "AVAL"], "is_labeled_neuron": [True] * 4}, None, "AVAL twice, once as aval"),
        ({"calcium_data": [[1.0], [1.0] * 5, [1.0] * 5, [1.0] * 5]}, None, "1 samples for 5 times"),
        ({"time_in_seconds": [[0.0, 2, 1, 3, 4]] * 4}, None, "do not rise"),
        ({"calcium_data": ["a"] * 4}, None, "no list of numbers"),
    ],
)
def test_other_tables(tmp_path, changes, drop, words):
    made = table(**changes)
    pq.write_table(made.drop_columns([drop]) if drop else made, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=words):
        load_parquet(tmp_path / "a.parquet")


def test_no_table(tmp_path):
    with pytest.raises(MissingDataError, match="worm_data_short"):
        load_parquet(tmp_path / "none.parquet")
    (tmp_path / "a.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="no parquet file"):
        load_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="No worm"):
        write_parquet(tmp_path / "b.parquet", [])
    with pytest.raises(InputError, match="each name is wanted once"):
        write_parquet(tmp_path / "b.parquet", [recording(), recording()])
    assert not (tmp_path / "b.parquet").exists()


def test_a_table_is_read_worm_by_worm(tmp_path):
    write_parquet(tmp_path / "a.parquet", (recording(f"w{k}") for k in range(5)))
    reading = iter_parquet(tmp_path / "a.parquet")
    assert next(reading).worm == "w0"
    reading.close()


@pytest.fixture
def laboratory(tmp_path):
    folder = tmp_path / "Lab2020"
    folder.mkdir()
    x, t = files.traces(RNG, 60), files.times(60)
    files.write_table(folder / "b.csv", x, t)
    files.write_matlab_5(folder / "a.mat", {"IDs": files.NAMES, "traces": x, "tv": t[:, None]}, "WT")
    return folder


@pytest.mark.parametrize("out", ["set.parquet", "set"])
def test_verb(tmp_path, laboratory, out):
    out = tmp_path / out
    report = read("recordings", "worm", laboratory, "--out", out)
    assert (report["worms"], report["neurons"], report["sources"]) == (2, 4, {"Lab2020": {"worms": 2, "labelled": 8}})
    assert report["preprocessing"] == ["acausal"]
    worms = load_parquet(out) if out.suffix else read_folder(out)
    assert [each.worm for each in worms] == ["a", "b"]
    assert json.loads(out.with_name("set.report.json").read_text())["dataset"] == str(out)
    assert out.with_name("set.png").stat().st_size > 1000


def test_verb_of_one_file(tmp_path, laboratory):
    said = call("recordings", "worm", laboratory / "b.csv", "--out", tmp_path / "c.parquet", "--causal", "--source", "Z").stdout
    assert "(causal)" in said
    assert load_parquet(tmp_path / "c.parquet")[0].causal


def test_verb_goes_on_after_an_interruption(tmp_path, laboratory, monkeypatch):
    from broadsheet.recordings.worm import lab_files

    read, seen = lab_files.read_recordings, []

    def stopped(path):
        seen.append(path.name)
        if path.name == "b.csv" and len(seen) < 3:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(lab_files, "read_recordings", stopped)
    arguments = ("recordings", "worm", laboratory, "--out", tmp_path / "set.parquet", "--dt", "0.5")
    with contextlib.suppress(KeyboardInterrupt):
        call(*arguments, code=130)
    assert not (tmp_path / "set.parquet").exists()
    call(*arguments)
    assert seen == ["a.mat", "b.csv", "b.csv"]  # the first file was not read again


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        ("a.csv", "time,AVAL\n0,1\n1,nan\n2,3\n3,1\n", (), "AVAL is nan"),
        ("a.csv", "time,AVAL\n0,1\n2,1\n1,1\n3,1\n", (), "times must rise"),
        ("a.csv", "AVAL\n1\n", (), "no column of times"),
        ("a.csv", "time,AVAL\n0,1\n1,1\n2,3\n3,1\n", ("--causal", "--gaps", "interpolate"), "looks ahead"),
        ("b.doc", "", (), "files that end in"),
    ],
)
def test_verb_refuses_in_one_sentence(tmp_path, name, content, options, words):
    (tmp_path / name).write_text(content)
    said = call("recordings", "worm", tmp_path / name, "--out", tmp_path / "set.parquet", *options, code=2).stderr
    assert words in said
    assert len(said.strip().splitlines()) == 1
