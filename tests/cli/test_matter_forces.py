"""`broadsheet matter forces`: calibrated once on frames with forces, used on others, and what it refuses."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from broadsheet.cli.matter import app
from broadsheet.errors import InputError
from broadsheet.matter import SyntheticCells
from broadsheet.matter.traction_files import write_frame


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in ("forces", *arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def movies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("movies")
    cells = SyntheticCells(0, size=48, h=64 / 48).sample(3)
    for k in range(3):
        write_frame(
            folder / "movies" / f"cell_{k}" / "frame_0.npy",
            force=cells.force[k],
            mask=cells.mask[k],
            zyxin=100 + 50 * cells.zyxin[k],
        )
    np.save(folder / "plain.npy", cells.zyxin)
    np.save(folder / "masks.npy", cells.mask)
    return folder


def test_calibrate_once_and_predict(movies, tmp_path):
    model, out = tmp_path / "m.safetensors", tmp_path / "found.json"
    options = ("--model", model, "--json")
    size = ("--steps", 2, "--channels", 2, "--kind", "gfnn")
    found = run(movies / "movies" / "cell_0", "--calibrate", movies / "movies", "--pixel", 1.333, *size, *options, "--out", out)
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert report["calibrated_on"] == {"frames": 3, "cells": 3}
    assert set(report["held_out_error"]) == {"gfnn", "linear filter", "towards the middle"}
    assert out.is_file()
    assert out.with_suffix(".png").stat().st_size > 10_000
    with np.load(out.with_suffix(".npz")) as stored:
        assert stored["forces"].shape == (1, 2, 48, 48)
    again = json.loads(run(movies / "movies" / "cell_0", *options).stdout)
    assert again["frames"] == report["frames"]
    plain = run(movies / "plain.npy", "--masks", movies / "masks.npy", "--model", model)
    assert plain.exit_code == 0
    assert "plain.npy, frame 2" in plain.output
    with pytest.raises(InputError, match="has no masks"):
        run(movies / "plain.npy", "--model", model)
    with pytest.raises(InputError, match=r"was calibrated at 1\.333"):
        run(movies / "movies" / "cell_0", "--model", model, "--pixel", 0.5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Say what to learn from"),
        (("--calibrate", "plain.npy", "--pixel", 1), "no measured forces"),
        (("--calibrate", "movies/cell_0", "--pixel", 1), "one frame"),
        (("--calibrate", "movies"), "--pixel is wanted"),
        (("--model", "m.bin"), r"kept as \.safetensors"),
        (("--model", "m.safetensors"), "no such file"),
        (("--model", "m.safetensors", "--measured-forces", "plain.npy"), "belong to --calibrate"),
    ],
)
def test_what_is_refused(movies, arguments, words, monkeypatch):
    monkeypatch.chdir(movies)
    with pytest.raises(InputError, match=words):
        run("plain.npy", *arguments)


def test_a_mask_at_the_border_is_refused_by_the_sheet(movies, tmp_path):
    cells = SyntheticCells(0, size=48, h=64 / 48).sample(2)
    for k in range(2):
        moved = np.roll(cells.mask[k], 12, axis=1) | (np.arange(48) == 47)
        write_frame(tmp_path / f"frame_{k}.npy", force=cells.force[k], mask=moved, zyxin=moved + 0.1 * cells.zyxin[k])
    with pytest.raises(InputError, match=r"frame_0\.npy: the mask touches the border"):
        run(movies / "movies" / "cell_0", "--calibrate", tmp_path, "--pixel", 1, "--kind", "pbnn", "--steps", 2)
