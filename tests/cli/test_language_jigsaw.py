"""The verb that makes a training set of puzzles: of pictures, videos and depths; interrupted; and given what it cannot use."""

import json

import numpy as np
import pytest
from datasets import load_from_disk
from PIL import Image
from typer.testing import CliRunner

from broadsheet.cli.app import app
from broadsheet.errors import BroadsheetError
from broadsheet.language.jigsaw import training_sets
from broadsheet.language.jigsaw.generated import photo_crops
from broadsheet.language.jigsaw.puzzles import reassemble
from broadsheet.language.jigsaw.scenes import random_scene


def run(*arguments):
    found = CliRunner().invoke(app, ["language", "jigsaw", *map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, BroadsheetError | SystemExit):
        raise found.exception
    return found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    place = tmp_path_factory.mktemp("pictures")
    for k, crop in enumerate(photo_crops(0, 4, (90, 91))):
        Image.fromarray(crop).save(place / f"img{k}.png")
    for k in range(7):
        Image.new("RGB", (50, 200)).save(place / f"small{k}.png")
    (place / "broken.jpg").write_bytes(b"no picture")
    return place


def test_pictures(pictures, home, tmp_path):
    out = tmp_path / "set"
    told = run(pictures, "--out", out, "--grid", "2x3", "--seed", 5, "--json")
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found == json.loads((out / "jigsaw.json").read_text())
    assert (found["samples"], found["puzzles"]) == (4, 4)
    assert len(found["skipped"]["too small"]) == 7
    assert "7 left out, too small: small0.png, small1.png, small2.png, small3.png, small4.png and 2 more." in told.stderr
    assert "1 left out, unreadable: broken.jpg." in told.stderr
    assert (out / "puzzles.png").stat().st_size > 5000
    for row in load_from_disk(str(out)):
        whole = np.asarray(reassemble(row["images"], row["target"], (2, 3)))
        np.testing.assert_array_equal(whole, np.asarray(Image.open(pictures / row["sample"])))
    assert not list((home / "cache" / "jigsaw-unfinished").glob("*/"))
    again = run(pictures, "--out", out)
    assert "is there already" in str(again.exception)
    other = run(pictures, "--out", tmp_path / "two", "--limit", 2, "--epochs", 2, "--even")
    assert other.stdout == f"4 puzzles of 2 samples in {tmp_path / 'two'}; puzzles.png shows the first.\n"


def test_videos_and_depths(home, tmp_path):
    frames = [Image.fromarray(np.full((24, 32), 4 * k, np.uint8)) for k in range(40)]
    (tmp_path / "videos").mkdir()
    frames[0].save(tmp_path / "videos" / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(tmp_path / "videos" / "b.gif", save_all=True, append_images=frames[1:9], duration=100)
    told = run(tmp_path / "videos", "--out", tmp_path / "v", "--kind", "video", "--clips", 3, "--frames", 2, "--shortest", 3)
    assert told.exit_code == 0, told.output
    assert "1 left out, too short: b.gif. It is 0.9 s long; at least 3 s are wanted." in told.stderr
    [row] = load_from_disk(str(tmp_path / "v"))
    clips = [row["images"][k : k + 2] for k in (0, 2, 4)]
    shown = [np.asarray(frame).mean() for frame in reassemble(clips, row["target"])]
    assert shown == sorted(shown)
    for name in ("color", "depth"):
        (tmp_path / "rooms" / name).mkdir(parents=True)
    image, depth = random_scene(0)
    Image.fromarray(image).save(tmp_path / "rooms" / "color" / "1.png")
    Image.fromarray((depth * 1000).astype(np.uint16)).save(tmp_path / "rooms" / "depth" / "1.png")
    told = run(tmp_path / "rooms", "--out", tmp_path / "d", "--kind", "depth", "--points", 4)
    assert told.exit_code == 0, told.output
    [row] = load_from_disk(str(tmp_path / "d"))
    assert sorted(row["target"]) == [1, 2, 3, 4]
    assert len(row["images"]) == 1


def test_interrupted_it_goes_on(pictures, home, tmp_path, monkeypatch):
    """Stopped behind its third part, the same command goes on from there and ends with the same set."""
    make, made, stop = training_sets._write_part, [], True

    def spied(file, *rest):
        if stop and len(made) == 3:
            raise KeyboardInterrupt
        made.append(file.stem)
        return make(file, *rest)

    monkeypatch.setattr(training_sets, "PART", 1)
    monkeypatch.setattr(training_sets, "_write_part", spied)
    assert run(pictures, "--out", tmp_path / "a").exit_code != 0
    assert not (tmp_path / "a").exists()
    parts, stop = home / "cache" / "jigsaw-unfinished", False
    assert list(parts.glob("*/2-1.json"))
    assert run(pictures, "--out", tmp_path / "a").exit_code == 0
    assert made == [f"{k}-1" for k in range(12)]
    assert not list(parts.glob("*/"))
    monkeypatch.undo()
    monkeypatch.setenv("BROADSHEET_HOME", str(home))
    assert run(pictures, "--out", tmp_path / "b").exit_code == 0
    first, second = (load_from_disk(str(tmp_path / name)) for name in "ab")
    assert first["target"][:] == second["target"][:]
    assert first["sample"][:] == second["sample"][:] == [f"img{k}.png" for k in range(4)]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--kind", "sound"], "image, video or depth"),
        (["--grid", "3"], "such as 3x3"),
        (["--grid", "1x1"], "at least 2"),
        (["--grid", "9999x9999"], "None of 12 samples"),
        (["--grid", "9" * 5000 + "x3"], "such as 3x3"),
        (["--grid", "٣x3"], "such as 3x3"),
        (["--kind", "video"], "no files that end in"),
        (["--kind", "depth"], "folders 'color'"),
        (["--smallest", "500"], "None of 12 samples makes a puzzle"),
        (["--variant", "other"], "'paper' or 'released'"),
        (["--trim", "0.5"], "below 0.5"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(pictures, home, tmp_path, options, why):
    told = run(pictures, "--out", tmp_path / "set", *options)
    assert isinstance(told.exception, BroadsheetError), told.output
    assert why in str(told.exception)
    assert not (tmp_path / "set").exists()


def test_an_empty_folder(home, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert "has no files that end in" in str(run(tmp_path / "nothing", "--out", tmp_path / "set").exception)
    assert "no such file or folder" in str(run(tmp_path / "nowhere", "--out", tmp_path / "set").exception)
