"""Following checkpoints: in folders, in a Hugging Face trainer, and from the command line."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from transformers import Trainer, TrainerCallback, TrainingArguments

import commands
from broadsheet.language import tiny_world as tiny
from broadsheet.language.directions import mass_mean
from broadsheet.language.geometry import rankme, spectrum, spectrum_of
from broadsheet.language.models import features
from broadsheet.language.states import read_states
from broadsheet.language.tiny_model import tiny_model
from broadsheet.language.tiny_tasks import statements
from broadsheet.language.tiny_world import World
from broadsheet.language.tracking import GeometryCallback, LabelledRows, model_features, track


@pytest.fixture(scope="module")
def folders(shipped, tmp_path_factory):
    """Two stages as Hugging Face writes them."""
    made = {}
    for stage in ("base", "sft"):
        folder = tmp_path_factory.mktemp(stage)
        shipped(stage).save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
        made[stage] = str(folder)
    return made


@pytest.fixture(scope="module")
def texts():
    return [tiny.decode(row) for row in World(0).probe(250, 30)]


def test_track_reads_each_checkpoint(folders, texts, base):
    seen = []
    trace = track([(0, folders["base"], None), (1, folders["sft"], None)], texts, report=lambda step, _: seen.append(step))
    states = np.concatenate(list(features(base, [tiny.encode(text) for text in texts])))
    assert_allclose(trace["rankme"][0], rankme(spectrum(states)), rtol=1e-5)
    assert seen == trace.steps == [0, 1]
    assert trace["rankme"][0] != trace["rankme"][1]


def test_callback_in_a_trainer(tmp_path):
    model, rows = tiny_model(2), World(0).probe(80, 24).tolist()
    before = rankme(spectrum_of(features(tiny_model(2).eval(), rows)))
    callback = GeometryCallback(rows, every=5)
    data = [{"input_ids": row, "labels": row} for row in rows]
    arguments = TrainingArguments(
        str(tmp_path), max_steps=10, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, seed=0
    )
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[callback])
    trainer.train()
    assert callback.trace.steps == [0, 5, 10]
    assert_allclose(callback.trace["rankme"][0], before, rtol=1e-6)
    assert_allclose(callback.trace["rankme"][-1], rankme(spectrum_of(features(model.eval(), rows))), rtol=1e-6)
    logged = [entry for entry in trainer.state.log_history if "geometry/rankme" in entry]
    assert [entry["step"] for entry in logged] == [5, 10]


class Tracker(TrainerCallback):
    """What TensorBoard, Weights & Biases and Trackio do: they take what the trainer logs, from its own callbacks."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **_):
        self.seen.append((state.global_step, dict(logs)))


def test_an_attached_callback_reaches_every_tracker(tmp_path):
    """Directions and geometry, in a tracker that comes before it, as the trainer's own do; against reading them by hand."""
    world, model = World(0), tiny_model(2)
    found = statements(world)
    rows = [tiny.encode(text) for text in found.texts]
    watched = LabelledRows(rows, found.labels, layer=1, groups=found.groups)
    start = mass_mean(read_states(tiny_model(2).eval(), rows, 1), found.labels, found.groups)
    probe = world.probe(80, 24).tolist()
    arguments = TrainingArguments(
        str(tmp_path / "out"), max_steps=4, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True,
        seed=0, learning_rate=1e-2,
    )  # fmt: skip
    data = [{"input_ids": row, "labels": row} for row in probe]
    tracker = Tracker()
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[tracker])
    callback = GeometryCallback(probe, every=2, directions={"truth": watched}).attach(trainer)
    trainer.train()
    states = read_states(model.eval(), rows, 1)
    end = mass_mean(states, found.labels, found.groups)
    last = callback.followed["truth"][-1]
    assert callback.followed["truth"][0]["cosine"] == pytest.approx(1)
    assert last["cosine"] == pytest.approx(start @ end / np.linalg.norm(start) / np.linalg.norm(end), rel=1e-6)
    assert last["length"] == pytest.approx(np.linalg.norm(end), rel=1e-6)
    logged = [(step, logs) for step, logs in tracker.seen if "direction/truth/cosine" in logs]
    assert [step for step, _ in logged] == [0, 2, 4]
    assert logged[-1][1]["direction/truth/separation"] == last["separation"]
    assert [logs["geometry/rankme"] for _, logs in logged] == list(callback.trace["rankme"])


def call(*words, code=0):
    return commands.call("language", *words, code=code)


def test_verbs(home, folders, texts, base, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(texts))
    found = json.loads(call("geometry", folders["base"], "--texts", file, "--json").stdout)
    words = tiny.tokenizer()
    assert_allclose(found["checkpoints"][0]["rankme"], rankme(spectrum_of(model_features(base, words, texts))), rtol=1e-6)
    both = json.loads(call("compare", folders["base"], folders["sft"], "--texts", file, "--json").stdout)
    assert both["direction"] in ("expansion", "compression", "neither")
    assert both["models"][0]["rankme"] == pytest.approx(found["checkpoints"][0]["rankme"])
    same = call("compare", folders["base"], folders["base"], "--texts", file)
    assert "neither" in same.stdout


def test_verbs_say_what_is_wrong(home, folders, tmp_path):
    assert "no such file" in call("geometry", folders["base"], "--texts", tmp_path / "none", code=2).stderr
    (tmp_path / "few").write_text("one\ntwo\n")
    assert "at least 10" in call("geometry", folders["base"], "--texts", tmp_path / "few", code=2).stderr
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 20)
    assert "UTF-8" in call("geometry", folders["base"], "--texts", tmp_path / "binary", code=2).stderr
    (tmp_path / "many").write_text("a\n" * 20)
    done = call("geometry", tmp_path / "no-model", "--texts", tmp_path / "many", code=2)
    assert "there is no such folder" in done.stderr
