"""Worm data: its claims' controls on small worlds, the real loaders' messages, and the table that the paper's size reads."""

import jax
import numpy as np
import pytest

from broadsheet.errors import MissingDataError
from broadsheet.papers.worm_data import Forecasts, Homogenise, Maps, Propagation, _better, paper
from broadsheet.recordings.worm import Connectome, homogenise, simulate, write_parquet
from broadsheet.recordings.worm.simulated import Lab
from quiet import Quiet

KEY = jax.random.key(0)


def run(name, config):
    report = paper.experiments[name].function(config, KEY, Quiet())
    return report.scalars()


def test_exactness_and_names_fail_in_wrong_ways():
    found = run("homogenize_demo", Homogenise(labs=1, worms=1, seconds=20.0, pair_seconds=20.0))
    assert found["system"]["deviation"] < 1e-9
    assert min(found[name]["deviation"] for name in ("sample-deviation", "derivative-late", "block-means")) > 1e-3
    assert (found["system"]["recovered"], found["system"]["invented"]) == (1, 0)
    assert max(found[name]["recovered"] for name in ("zeros-removed", "as-written")) < 0.7


def test_the_maps_grow_and_agree_as_measured():
    found = run("connectome_atlas", Maps(shuffles=5, swaps=2))
    assert (found["system"]["rho"], found["system"]["rho_a_pair"]) == (1, 1)
    assert found["coverage"]["rho"] > 0.9 > 0 > found["coverage"]["rho_a_pair"]
    assert found["system"]["jaccard"] == pytest.approx(0.494, abs=5e-3)
    assert found["system"]["shuffled"] == pytest.approx(0.030, abs=5e-3)
    assert found["classes"]["jaccard"] < 0.45


def test_an_atlas_of_a_folder_and_none(monkeypatch):
    found = run("structure_function", Propagation(planted=True, wiring="white", shuffles=3, swaps=1))
    assert found[""]["gap_ratio"] > 3
    assert found["shuffled-labels"]["gap_ratio"] < 2
    assert found["as-read"]["one_way"] == 1
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("BROADSHEET_WORM_ATLAS", raising=False)
    with pytest.raises(MissingDataError, match="BROADSHEET_WORM_ATLAS"):
        run("structure_function", Propagation())


@pytest.mark.parametrize(("name", "config"), [("homogenize_demo", Homogenise(source="parquet")),
                                              ("forecast_baselines", Forecasts(source="parquet"))])  # fmt: skip
def test_the_papers_size_says_what_to_get(name, config):
    with pytest.raises(MissingDataError, match="worm_data_short"):
        run(name, config)


def test_the_papers_size_reads_the_authors_table(tmp_path):
    raws = simulate(Connectome.load("white"), 40.0, [Lab("A", seconds=40.0), Lab("B", 0.6, seconds=40.0)], worms=2, key=0)
    path = tmp_path / "worm_data_short.parquet"
    order = [*raws[::2], *raws[1::2]]  # the first two are of both laboratories
    write_parquet(path, (homogenise(raw.traces, raw.times, raw.names, source=raw.source, worm=raw.worm) for raw in order))
    found = run("homogenize_demo", Homogenise(source="parquet", data=str(path), pair_seconds=20.0))
    assert (found["system"]["worms"], found["largest-source"]["worms"]) == (4, 2)
    assert found["system"]["dt_error"] < 1e-3
    assert found["system"]["largest_mean"] < 0.05
    small = Forecasts(source="parquet", wiring="witvliet1", data=str(path), worms=2, folds=2, swaps=1, gru_steps=2, hidden=4)
    errors = run("forecast_baselines", small)
    assert np.isfinite([value for row in errors.values() for value in row.values()]).all()


def test_a_model_is_no_better_than_itself():
    errors = np.array([1.0, 1.2, 0.9, 1.1])
    assert _better(errors, errors) == 1
    assert _better(errors - 0.1 - 0.01 * np.arange(4), errors) < 0.01
    assert _better(errors + 0.1 + 0.01 * np.arange(4), errors) > 0.99
