import jax
import numpy as np
import pytest
from ase.build import bulk

from broadsheet.atoms.files import write_structures
from broadsheet.atoms.structures import forces_of
from broadsheet.errors import DataError, MissingDataError
from broadsheet.papers.dataset_compression import RIVALS, copper_cells, paper
from quiet import Quiet


def run(name, preset="smoke", **overrides):
    experiment = paper.experiments[name]
    config = experiment.configure(preset, overrides=overrides)
    with jax.enable_x64(True):
        return experiment.function(config, jax.random.key(1), Quiet())


def test_cells_are_rare_in_the_way_they_say():
    cells, kinds = copper_cells(np.random.default_rng(0), 60, whole=5, moved=4, warm=0.2, repeat=2, strain=0.0)
    assert {kind: int((kinds == kind).sum()) for kind in np.unique(kinds)} == {"common": 51, "moved": 4, "whole": 5}
    sizes = [len(cells[k]) for k in np.flatnonzero(kinds == "whole")]
    assert sorted(sizes) == [2, 8, 12, 31, 32]
    lattice = bulk("Cu", cubic=True, a=3.6).repeat(2).positions
    off = {kind: np.array([np.linalg.norm(cells[k].positions - lattice, axis=1) for k in np.flatnonzero(kinds == kind)])
           for kind in ("common", "moved")}  # fmt: skip
    assert ((off["moved"] > 0.35).sum(axis=1) == 1).all()
    spread = np.sort(np.sqrt((off["common"] ** 2).mean(axis=1) / 3))
    assert (np.abs(spread[:41] - 0.02) < 0.006).all()
    assert (np.abs(spread[41:] - 0.06) < 0.015).all()
    forces = np.array([np.abs(each).max() for each in forces_of(cells)])
    assert forces[kinds == "moved"].min() > np.percentile(forces[kinds == "common"], 60)


def test_the_best_of_the_rivals_is_what_diversity_is_gained_over():
    report = run("diluted", fractions=(0.2,))
    have = {arm: report.arrays[f"{arm}_diversity"][0] for arm in report.arms}
    for arm, row in report.arms.items():
        others = [have[rival] for rival in RIVALS if rival != arm] + ([have["system"]] if arm in RIVALS else [])
        assert row["least_diversity_gain"] == pytest.approx(have[arm] - max(others))
    assert report.arms["largest_force"]["largest_kept"] == 1.0


def test_rare_structures_of_a_file_are_those_of_rare_types(tmp_path):
    cells, _ = copper_cells(np.random.default_rng(0), 120)
    for k, each in enumerate(cells):
        each.info["config_type"] = "odd" if k == 7 else "bulk"
    write_structures(cells, tmp_path / "cells.extxyz")
    report = run("outliers", data=str(tmp_path / "cells.extxyz"))
    assert np.flatnonzero(report.arrays["rare"]).tolist() == [7]
    write_structures(cells[:20], tmp_path / "few.extxyz")
    with pytest.raises(DataError, match="none of them is rare"):
        run("outliers", data=str(tmp_path / "few.extxyz"))
    write_structures(cells[:7], tmp_path / "one.extxyz")
    with pytest.raises(DataError, match="tells them apart"):
        run("outliers", data=str(tmp_path / "one.extxyz"))
    with pytest.raises(MissingDataError, match="GAP-20"):
        run("outliers", "paper")


def test_the_chosen_size_is_inside_its_grid():
    fraction = run("auto_size", "smoke", count=60, rare=6).metrics["fraction"]
    assert 2 / 60 <= fraction <= 0.5
