"""`recordings describe`: what it says of files in public shapes, of odd ones, and of hostile ones."""

import json

import h5py
import numpy as np
import nwb_files
import pytest
from matplotlib.figure import Figure

from broadsheet.recordings import Session, Spikes, Traces
from broadsheet.recordings.description import describe_session
from broadsheet.recordings.pictures import draw_raster
from commands import call, read

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_a_probe(tmp_path):
    put = nwb_files.write_probe(tmp_path / "s.nwb")
    found = read("recordings", "describe", tmp_path / "s.nwb", "--out", tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text()) == found
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    assert [unit["spikes"] for unit in found["units"]] == [len(each) for each in put["times"]]
    assert (found["start"], found["stop"]) == (0, 120)
    assert found["unit_columns"]["quality"] == "good (16), mua (8)"
    traces = {each["name"].rpartition("/")[2]: each for each in found["traces"]}
    assert traces["running_speed"]["dt"] == pytest.approx(0.01)
    assert traces["pupil_area"]["missing"] == pytest.approx(10 / 3582)
    (trials,) = found["tables"]
    assert (trials["name"], trials["rows"], trials["median"]) == ("trials", 29, 2.5)
    assert trials["columns"]["lick_times"] == "lists of 0 to 3 entries"
    assert found["unused"]["stimulus/gratings"].startswith("images")
    assert any("0.279% of the values are missing" in each for each in found["warnings"])
    said = call("recordings", "describe", tmp_path / "s.nwb").stdout
    for words in ("24 units, median", "running_speed", "Not used: stimulus/gratings", "Look: behavior", "subject species: Mus"):
        assert words in said


def test_arrays_and_tables(tmp_path):
    np.savez(
        tmp_path / "s.npz",
        spike_times=[0.5, 1.0, 1.5],
        spike_units=[0, 0, 1],
        speed=np.zeros(30),
        speed_times=np.arange(30) / 10,
    )
    found = read("recordings", "describe", tmp_path / "s.npz", "--out", tmp_path / "a.json")
    assert [unit["name"] for unit in found["units"]] == ["0", "1"]
    (tmp_path / "s.csv").write_text("time,x,y\n" + "".join(f"{k / 5},{k},{-k}\n" for k in range(40)))
    found = read("recordings", "describe", tmp_path / "s.csv", "--out", tmp_path / "b.json")
    assert (found["traces"][0]["channels"], found["traces"][0]["dt"]) == (2, pytest.approx(0.2))


def test_what_looks_wrong_is_said():
    rng = np.random.default_rng(0)
    late = Spikes(tuple(np.sort(rng.uniform(0, 3.6e6, 500)) for _ in range(3)), ("a", "b", "c"), 0.0, 3.6e6)
    gaps = Traces(np.array([1.0, np.nan, 1.0, 1.0]), np.array([0.0, 1.0, 2.0, 7.0]), ("v",))
    said = " ".join(describe_session(Session("s", late, {"v": gaps})).warnings)
    assert "The spikes last 1000 h and most units fire less than once in 10 s; are these times ms?" in said
    assert "v: 25.000% of the values are missing" in said
    assert "v: 1 steps are longer than one and a half times the median of 1 s" in said
    fast = Spikes((np.arange(1, 2000) / 2000,), ("a",), 0.0, 1.0)
    said = " ".join(describe_session(Session("s", fast)).warnings)
    assert "The median unit fires 1999 spikes a second" in said
    assert "There is one unit" in said
    part = Spikes((np.array([0.5]), np.array([0.5])), ("a", "b"), 0.0, 4.0, ([[0.0, 1.0]], [[0.0, 4.0]]))
    assert any("observed for 25.0% to 100.0%" in each for each in describe_session(Session("s", part)).warnings)
    assert describe_session(Session("s")).summary() == "nothing that is read"


def test_a_raster_shows_what_was_not_observed():
    axis = Figure().subplots()
    observed = ([[0.0, 1.0], [3.0, 4.0]], [[0.0, 1.5], [3.0, 4.0]])
    end = draw_raster(axis, Spikes((np.array([0.5, 3.5]), np.array([3.2])), ("a", "b"), 0.0, 4.0, observed), 0.0, 4.0)
    (grey,) = axis.patches
    assert (grey.get_x(), grey.get_width(), end) == (1.5, 1.5, 4.0)
    times, rows = axis.lines[0].get_data()
    assert dict(zip(times.tolist(), rows.tolist(), strict=True)) == {0.5: 1, 3.5: 1, 3.2: 0}
    busy = Spikes((np.arange(1, 50_000) / 5000,), ("a",), 0.0, 10.0)
    assert draw_raster(Figure().subplots(), busy, 0.0, 10.0) == pytest.approx(2.4, rel=1e-3)


def test_a_part_that_cannot_be_read_is_said_and_the_rest_described(tmp_path):
    nwb = nwb_files.new_file()
    nwb.add_unit(spike_times=[1.0, 3.0, 2.0, 9.0], id=4)
    nwb.add_unit(spike_times=[1.0, 2.0], id=5)
    nwb.add_trial(start_time=1.0, stop_time=1.0)
    nwb_files.write(nwb, tmp_path / "s.nwb")
    found = read("recordings", "describe", tmp_path / "s.nwb")
    assert [unit["name"] for unit in found["units"]] == ["5"]
    assert any("Unit 4: the spike at 2 s comes after 3 s" in each for each in found["warnings"])
    assert any("Trial 0 is from 1 to 1 s" in each for each in found["warnings"])
    found = read("recordings", "describe", tmp_path / "s.nwb", "--mend", tmp_path / "mended.nwb")
    assert ([unit["spikes"] for unit in found["units"]], found["warnings"]) == ([4, 2], [])


@pytest.mark.parametrize("kind", ["truncated", "text", "link", "old", "missing"])
def test_hostile_files_get_one_sentence_and_exit_2(kind, tmp_path):
    path = tmp_path / "s.nwb"
    nwb_files.write(nwb_files.new_file(), path)
    says = "is truncated"
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "text":
        path.write_text("hello")
        says = "is no HDF5 file"
    elif kind == "missing":
        path.unlink()
        says = "there is no such file"
    else:
        with h5py.File(path, "a") as file:
            if kind == "link":
                file["acquisition/x"] = h5py.ExternalLink("/etc/passwd", "/")
                says = "is a link to another file, '/etc/passwd'"
            else:
                file.attrs["nwb_version"] = "1.0.5"
                says = "is of NWB 1.0.5"
    said = call("recordings", "describe", path, code=2).stderr
    assert says in " ".join(said.split())
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1
