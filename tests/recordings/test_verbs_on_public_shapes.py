"""Each verb on files that pynwb wrote in the shape of a public dandiset."""

import nwb_files
import pandas as pd
import pytest

from commands import read


@pytest.fixture(autouse=True)
def there(tmp_path, home, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_states_of_prefrontal_units(tmp_path):
    file = tmp_path / "pfc.nwb"
    nwb_files.write_prefrontal(file, units=4, trials=8)
    small = ("--states", "2", "--folds", "2", "--restarts", "1", "--max-iter", "3", "--dt", "0.1")
    found = read("recordings", "states", file, *small, "--out", "states.json")
    assert len(found["units"]) == 4
    assert sum(row["occupancy"] for row in found["states"]) == pytest.approx(1)


def test_communities_of_identified_neurons(tmp_path):
    files = [tmp_path / f"worm{k}.nwb" for k in range(2)]
    for k, file in enumerate(files):
        nwb_files.write_worm(file, (*nwb_files.NEURONS, ""), seconds=60.0, seed=k)
    found = read("recordings", "connectome", *files, "--rank", "2", "--starts", "2", "--out", "atlas.json")
    assert [len(each["loadings"]) for each in found["components"]] == [len(found["animals"])] * 2 == [2, 2]
    assert set(found["neurons"]) == set(nwb_files.NEURONS)


def test_running_of_a_mouse(tmp_path):
    file = tmp_path / "mouse.nwb"
    nwb_files.write_probe(file, units=6, seconds=60.0)
    asked = ("--target", "running", "--steps", "2", "--tuning", "0", "--labels", "0.5", "--gap", "0.5")
    found = read("recordings", "decode", file, *asked, "--out", "running.json")["decoders"]["running_speed"]
    assert set(found) == {"neuroformer", "ridge", "lasso", "mlp", "gru", "constant"}
    assert found["ridge"]["r"] > 0.5
    assert found["constant"]["r"] == 0
    assert (tmp_path / "running.png").stat().st_size > 1000


def test_worms_in_one_table(tmp_path):
    file = tmp_path / "worm.nwb"
    nwb_files.write_worm(file, (*nwb_files.NEURONS, ""))
    read("recordings", "worm", file, "--out", "worms.parquet")
    table = pd.read_parquet(tmp_path / "worms.parquet")
    assert set(table[table["is_labeled_neuron"]]["neuron"]) == set(nwb_files.NEURONS)
