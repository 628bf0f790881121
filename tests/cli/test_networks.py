"""Networks on a user's own files: what a model file or a folder says is used, or refused in a sentence."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from commands import call, read


def model(path, low, high, beta):
    """A network of 8 hidden neurons on 6 inputs, and 60 samples with its own answers as labels."""
    rng = np.random.default_rng(0)
    w, b, v = (rng.normal(size=shape).astype(np.float32) for shape in ((8, 6), 8, (8, 3)))
    arrays = {"w": w, "b": b, "v": v, "low": np.float32(low), "high": np.float32(high)}
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["1"], transB=1, beta=beta),
             helper.make_node("Clip", ["1", "low", "high"], ["2"], "cut"), helper.make_node("MatMul", ["2", "v"], ["o"])]  # fmt: skip
    ends = [[helper.make_tensor_value_info(name, 1, ["N", size])] for name, size in (("x", 6), ("o", 3))]
    made = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    onnx.save(helper.make_model(helper.make_graph(nodes, "net", *ends, made)), path)
    x = rng.normal(size=(60, 6)).astype(np.float32)
    y = (np.clip(x @ w.T + beta * b, low, high) @ v).argmax(axis=1)
    np.savez(path.with_suffix(".npz"), x=x, y=y)
    return ["networks", "convert", path, "--data", path.with_suffix(".npz"), "--out", path.with_suffix(".nir")]


def test_convert_uses_beta_and_ceilings(tmp_path):
    found = read(*model(tmp_path / "a.onnx", 0.0, 0.8, 4.0), "--steps", 256)
    assert found["runs"][-1]["accuracy"] >= 0.95
    assert found["thresholds"] == pytest.approx([0.8])
    done = call(*model(tmp_path / "b.onnx", -1.0, 1.0, 1.0), code=2)
    assert done.stderr.count("\n") == 1
    assert "Clip 'cut' has min -1.0" in done.stderr


def test_an_exit_that_never_happens_is_said(tmp_path):
    words = model(tmp_path / "a.onnx", 0.0, 0.8, 1.0)
    done = call(*words, "--steps", 1, "--early-exit")
    assert "No sample leaves before step 1" in done.stderr
    assert "--exit-choice fastest" in done.stderr
    done = call(*words, "--steps", 16, "--early-exit", "--exit-choice", "fastest", "--tolerance", 0.5)
    assert "leaves" not in done.stderr
    assert "'first' is not one of 'steady', 'fastest'" in call(*words, "--early-exit", "--exit-choice", "first", code=2).stderr


def test_places_says_what_it_passes_over_and_how_it_pairs(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 20, 20)).astype(np.uint8)
    for folder, first in (("ref", 1), ("q", 2)):
        (tmp_path / folder).mkdir()
        for k, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / folder / f"img{k + first}.png")
    (tmp_path / "q" / "notes.txt").touch()
    words = ["networks", "places", tmp_path / "ref", tmp_path / "q", "--neurons", 2, "--epochs", 1, "--out", tmp_path / "p.csv"]
    done = call(*words)
    assert "1 without an image are passed over (notes.txt)" in done.stderr
    assert "img1.png stands beside img2.png" in done.stderr
    rows = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == [f"img{k}.png" for k in range(2, 12)]
    assert [row[4] for row in rows] == [f"img{k}.png" for k in range(1, 11)]
    (tmp_path / "q" / "img5.png").write_bytes(b"no")
    assert "img5.png is no image" in call(*words, code=2).stderr
