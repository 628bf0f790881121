"""States from the command line: files of all kinds, interruption, mistakes."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from broadsheet.cli.app import app
from broadsheet.errors import BroadsheetError
from broadsheet.recordings import HMMGLM, Session, Spikes, Trials, write_nwb
from broadsheet.recordings.binned_files import read_binned
from broadsheet.recordings.prefrontal_files import read_prefrontal

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(0.4, (4, 40, 3))
FAST = ["--states", "2", "--folds", "2", "--restarts", "1", "--max-iter", "2"]


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "home"))


def run(*arguments):
    return CliRunner().invoke(app, ["recordings", "states", *map(str, arguments)])


def _session(trials=4):
    times = tuple(np.unique(np.sort(RNG.uniform(0, 20, 60)).round(4)) for _ in range(3))
    start = 2.0 + 4 * np.arange(trials)
    return Session("rat", Spikes(times, ("a", "b", "c"), 0.0, 20.0), trials=Trials(start, start + 1))


@pytest.fixture(scope="module")
def prefrontal(tmp_path_factory):
    folder = tmp_path_factory.mktemp("200104")
    times = np.sort(RNG.uniform(1e6, 1.1e6, 900)).round(1)
    cells = RNG.integers(1, 4, 900)
    (folder / "200104_SpikeData.dat").write_text("".join(f"{t:.1f}\t{c}\n" for t, c in zip(times, cells, strict=True)))
    rows = [f"{1.01e6 + 2e4 * k:.1f}\t{1.013e6 + 2e4 * k:.1f}\t 4.0\t 1.0\t 0.0\t 1.0\n" for k in range(4)]
    (folder / "200104_Behavior.dat").write_text("".join(rows))
    return folder


def test_counts_are_read_cut_and_told_apart(tmp_path, prefrontal):
    np.savez(tmp_path / "trials.npz", counts=COUNTS, dt=0.05)
    held = read_binned(str(tmp_path / "trials.npz"))
    assert held.dt == 0.05
    np.testing.assert_array_equal(np.stack(held.counts), COUNTS)
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["trial", "a", "b", "c"])
        writer.writerows([k, *row] for k, part in enumerate(COUNTS) for row in part)
    held = read_binned(str(tmp_path / "table.csv"))
    assert held.names == ("a", "b", "c")
    np.testing.assert_array_equal(np.stack(held.counts), COUNTS)
    session = read_prefrontal(prefrontal)
    assert session.trials.columns["rule"].tolist() == [4] * 4
    held = read_binned(str(prefrontal), window=(-5.0, 10.0))
    assert np.stack(held.counts).shape == (4, 750, 3)
    first = session.spikes.times[1]
    assert held.counts[2][:, 1].sum() == ((first >= 1045.0) & (first < 1060.0)).sum()


def test_nwb_with_trials(tmp_path):
    file = tmp_path / "rat.nwb"
    write_nwb(_session(), file)
    out = tmp_path / "states.json"
    result = run(file, *FAST, "--window=-1,2", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert found["units"] == ["a", "b", "c"]
    assert set(found["held_out"]) == {"2"}
    assert all(np.isfinite(row["nats_per_bin"]) for row in found["held_out"].values())
    np.testing.assert_allclose(sum(row["occupancy"] for row in found["states"]), 1.0)
    assert out.with_suffix(".png").stat().st_size > 10_000
    with np.load(out.with_suffix(".npz")) as arrays:
        assert arrays["probabilities"].shape == (600, 2)


def test_goes_on_after_an_interruption(tmp_path, monkeypatch):
    np.savez(tmp_path / "c.npz", counts=COUNTS)
    fits, fit = [], HMMGLM.fit

    def failing(self, X, *args, **options):
        fits.append(self.n_states)
        if len(fits) == 2:
            raise KeyboardInterrupt
        return fit(self, X, *args, **options)

    monkeypatch.setattr(HMMGLM, "fit", failing)
    assert run(tmp_path / "c.npz", *FAST).exit_code != 0
    result = run(tmp_path / "c.npz", *FAST)
    assert result.exit_code == 0, result.output
    assert len(fits) == 4  # the second block and the whole; the first block was there
    assert not list((tmp_path / "home" / "cache" / "recordings-states-unfinished").glob("*/"))


def _npz(folder, **arrays):
    np.savez(folder / "wrong.npz", **arrays)
    return folder / "wrong.npz"


def _text(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (lambda f: _npz(f, counts=np.ones((30, 1))), [], "two units"),
        (lambda f: _npz(f, counts=-COUNTS), [], "whole numbers"),
        (lambda f: _npz(f, counts=COUNTS), ["--window=-1,2"], "in bins already"),
        (lambda f: _npz(f, counts=COUNTS), ["--folds", "9"], "as many, or more"),
        (lambda f: _npz(f, counts=COUNTS), ["--window", "3"], "comma"),
        (lambda f: _text(f, "wrong.csv", "a,b\n1,2\n3\n"), [], "line 3"),
        (lambda f: _text(f, "wrong.csv", "a,b\n1,x\n"), [], "line 2"),
        (lambda f: f, [], "SpikeData"),
        (lambda f: _text(f, "1_SpikeData.dat", "1.0\t1\n2.0\n"), [], "line 2"),
        (lambda f: _text(f, "1_SpikeData.dat", "1.0\t1\n1.0\t1\n2.0\t2\n"), [], "twice"),
        (lambda f: f / "none.npz", [], "no such file"),
    ],
)
def test_mistakes_are_said_in_one_sentence(tmp_path, make, options, says):
    result = run(make(tmp_path), *FAST, *options)
    assert result.exit_code != 0
    assert isinstance(result.exception, BroadsheetError)
    assert says in str(result.exception)
