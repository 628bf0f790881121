"""The experiments of the paper on files in the formats that its own size reads, and what they are made of."""

import json
import sys

import jax
import numpy as np
import pytest
import torch

from broadsheet.errors import MissingDataError
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.tiny_world import WORDS, World, tokenizer
from broadsheet.learn.rounding import FlexRound, RoundToNearest
from broadsheet.papers.flexround import accuracy, by_hand, moved_weights, paper
from quiet import Quiet
from resnets import write_resnet


def test_the_papers_size_reads_cifar_and_a_residual_network(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (*((f"data_batch_{k}.bin", 8) for k in range(1, 6)), ("test_batch.bin", 12)):
        records = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        records.tofile(tmp_path / name)
    write_resnet(tmp_path / "model.safetensors", side=3, bottleneck=False, classes=10)
    experiment = paper.experiments["digits_cnn"]
    config = experiment.configure("paper", overrides={"data": str(tmp_path), "calibration": 16, "iters": 2, "tests": 10})
    model, images, calibration = config.network(jax.random.key(0))
    assert images.test_x.shape == (10, 3, 32, 32)
    assert calibration.shape == (16, 3, 32, 32)
    raw = np.fromfile(tmp_path / "test_batch.bin", np.uint8).reshape(-1, 3073)
    red = raw[0, 1:1025].reshape(32, 32) / 255
    np.testing.assert_allclose(images.test_x[0, 0], (red - 0.485) / 0.229, atol=1e-5)
    assert images.test_y.tolist() == raw[:10, 0].tolist()
    found = config.quantised(model, calibration, RoundToNearest(bits=4), jax.random.key(0))
    bits = [each.grid.bits for each in found.weights_.values()]
    assert bits == [8] + [4] * (len(bits) - 2) + [8]
    assert np.isfinite(found.predict(images.test_x)).all()


def test_the_papers_size_says_what_it_needs():
    with pytest.raises(MissingDataError, match="CIFAR"):
        paper.experiments["digits_cnn"].configure("paper").network(jax.random.key(0))


def test_derivatives_by_hand_are_those_of_small_differences():
    """Straight through: rounding is taken as x + a constant, so that differences are taken of that."""
    rng = np.random.default_rng(0)
    w, outer = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    params = {"log_step": np.array(np.log(0.4)), "log_elements": rng.normal(0, 0.1, (2, 3)), "log_rows": rng.normal(0, 0.1, (2, 1)),
              "low": np.array(-4.0), "high": np.array(3.0)}  # fmt: skip
    x = w / np.exp(params["log_step"] + params["log_elements"] + params["log_rows"])
    rest, inside = np.round(x) - x, np.abs(np.round(x) + 0.5) < 4
    assert inside.any()

    def total(**changed):
        p = params | changed
        moved = w / np.exp(p["log_step"] + p["log_elements"] + p["log_rows"]) + rest
        return np.sum(outer * np.exp(p["log_step"]) * np.where(inside, moved, np.clip(np.round(x), -4, 3)))

    found = by_hand(w, params, outer)
    for name in ("log_step", "log_elements", "log_rows"):
        for at in np.ndindex(np.shape(params[name])):
            step = np.zeros(np.shape(params[name]))
            step[at] = 1e-6
            slope = (total(**{name: params[name] + step}) - total(**{name: params[name] - step})) / 2e-6
            assert np.asarray(found[name])[at] == pytest.approx(slope, abs=1e-7)


def test_a_weight_has_moved_where_its_code_is_neither_below_nor_above_it():
    w = np.array([[0.4, -0.6, 1.2, -3.9, 2.6]])
    rule = FlexRound(bits=3)
    step = rule.first_grid(w).step
    whole = np.round(w / step)
    assert moved_weights(rule, {"a": w}, {"a": whole}) == {"moved_3": 0.0, "size_3": 1.0}
    whole[0, 3] += 2
    found = moved_weights(rule, {"a": w}, {"a": whole})
    assert found == {"moved_3": 20.0, "size_3": pytest.approx(3.9 / np.mean(np.abs(w)))}


def test_answers_are_counted_in_percent():
    assert accuracy(np.eye(4), np.array([0, 1, 2, 0])) == 75


def test_the_papers_size_reads_a_model_and_its_texts(tmp_path):
    model = new_model("opt", Sizes(words=len(WORDS), width=16, blocks=2, mlp=32, positions=64), seed=1).eval()
    model.save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    documents = [World(0).document(rng) for _ in range(40)]
    (tmp_path / "calibration.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in documents[:20]))
    (tmp_path / "test.txt").write_text("\n\n".join(documents[20:]))
    experiment = paper.experiments["lm_blocks"]
    places = {"model": str(tmp_path / "model"), "data": str(tmp_path)}
    config = experiment.configure("paper", overrides={**places, "iters": 1, "windows": 4, "length": 16})
    report = experiment.function(config, jax.random.key(0), Quiet())
    _, after, held = config.ready(0, Quiet())
    assert after.shape == (4, 16)
    assert held.flatten().tolist() == tokenizer()((tmp_path / "test.txt").read_text())["input_ids"][: held.numel()]
    with torch.no_grad():
        logits = model(input_ids=held).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), held[:, 1:].flatten())
    assert float(report.arrays["full"]) == pytest.approx(float(loss.exp()), rel=1e-4)
    table = report.scalars()
    assert {claim.id: set(claim.needs()) <= set(table) for claim in experiment.claims} == {"F9": True, "F9b": True, "F10": True}
    assert all(row["increase"] == pytest.approx(row["perplexity"] - report.arrays["full"]) for row in table.values())
    assert table["nearest"]["share_of_nearest"] == table["without-elements"]["share_of_plain"] == 1.0


def test_without_texts_the_papers_size_says_what_it_needs(tmp_path, monkeypatch):
    new_model("opt", Sizes(words=len(WORDS), width=16, blocks=1, mlp=16)).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    config = paper.experiments["lm_blocks"].configure("paper", overrides={"model": str(tmp_path)})
    with pytest.raises(MissingDataError, match="pip install datasets"):
        config.ready(0, Quiet())
