"""Trajectories of a user's cells by the command line."""

import json
from typing import get_args

import numpy as np
import pytest

from broadsheet.cli.transport_trajectories import Family
from broadsheet.transport.reference_processes import FAMILIES
from broadsheet.transport.snapshot_series import predator_prey
from commands import call


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    import jax

    series = predator_prey(jax.random.key(0), 12, 5)
    rows = np.column_stack([np.repeat(series.times, 12), np.concatenate(series.snapshots)])
    path = tmp_path_factory.mktemp("cells") / "cells.csv"
    np.savetxt(path, np.random.default_rng(0).permutation(rows), delimiter=",", header="day,prey,predators", comments="")
    return path


def test_held_out_times_and_a_law(table, tmp_path):
    out, to = tmp_path / "found.json", tmp_path / "paths.npz"
    options = ("--time", "day", "--family", "lotka-volterra", "--sigma", "0.1", "--outer", "3", "--steps", "10")
    said = call("transport", "trajectories", table, *options, "--hold-out", "3", "--to", to, "--out", out).stdout
    assert "time held out" in said
    assert "Law: a " in said
    found = json.loads(out.read_text())
    (row,) = found["held_out"]
    assert row["bridged"] < row["brownian"] < row["before"]
    assert found["params"]["b"] == pytest.approx(0.4, rel=0.3)
    assert np.load(to)["trajectories"].shape == (60, 41, 2)
    assert out.with_suffix(".png").stat().st_size > 5000


def test_all_families_are_offered():
    assert get_args(Family) == tuple(FAMILIES)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--time", "hour"), "no column 'hour'"),
        (("--time", "day", "--hold-out", "0"), "between the first and the last is wanted: 1, 2, 3"),
        (("--time", "day", "--family", "repressilator"), "of 3 dimensions"),
        (("--time", "day", "--to", "x.txt"), "written as .h5ad"),
        (("--time", "day", "--sigma", "-1"), "a number above 0"),
    ],
)
def test_mistakes_are_said_in_a_sentence(table, arguments, said):
    result = call("transport", "trajectories", table, *arguments, code=2)
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
