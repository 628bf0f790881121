"""The verb that finds, carries over and keeps a direction, and what `compare` says of two models from inside."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import load_file

import commands
from broadsheet.language import tiny_world as tiny
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.confidence import entropy_neurons, iou, read_confidence
from broadsheet.language.directions import Direction, cosines, mass_mean_by_block, transfer_table
from broadsheet.language.models import model_identity
from broadsheet.language.states import Spool, read_states
from broadsheet.language.tiny_model import tiny_model
from broadsheet.language.tiny_tasks import QUESTION, statements
from broadsheet.language.tiny_world import World

SHIPPED = Path(__file__).parents[1] / "references" / "tiny_chain"


def call(*words, code=0):
    return commands.call("language", *words, code=code)


@pytest.fixture(scope="module")
def models():
    made = {}
    for stage in ("base", "sft"):
        made[stage] = tiny_model(0)
        made[stage].load_state_dict(load_file(SHIPPED / f"{stage}.safetensors"))
        made[stage].eval()
    return made


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for stage, model in models.items():
        model.save_pretrained(root / stage)
        tiny.tokenizer().save_pretrained(root / stage)
    return {stage: str(root / stage) for stage in models}


@pytest.fixture(scope="module")
def found():
    return statements(World(0))


@pytest.fixture(scope="module")
def rows(found):
    return [tiny.encode(QUESTION.start + text + QUESTION.text) for text in found.texts]


@pytest.fixture(scope="module")
def file(found, rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "statements.jsonl"
    lines = [{"text": tiny.decode(row), "label": int(label), "group": str(group)}
             for row, label, group in zip(rows, found.labels, found.groups, strict=True)]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_directions_are_fitted_carried_over_saved_and_read_again(home, models, folders, file, found, rows, tmp_path):
    kept, out = tmp_path / "truth.safetensors", tmp_path / "findings.json"
    words = ("directions", folders["base"], "--texts", file, "--transfer", folders["sft"], "--layer", 1, "--save", kept)
    said = json.loads(call(*words, "--out", out, "--json").stdout)
    states = {name: read_states(model, rows, 1) for name, model in models.items()}
    table = transfer_table(states, found.labels, found.groups)
    assert said["accuracy"] == table["base", "base"]
    assert said["accuracies"]["own in other"] == table["base", "sft"]
    alike = cosines(*(mass_mean_by_block(model, rows, found.labels, found.groups) for model in models.values()))
    assert_allclose([row["cosine"] for row in said["blocks"]], alike, rtol=1e-5)
    assert json.loads(out.read_text())["blocks"] == said["blocks"]
    assert out.with_suffix(".png").stat().st_size > 5000
    direction = Direction.load(kept)
    assert direction.model == model_identity(folders["base"])
    wanted = Direction.fit(states["base"], found.labels, found.groups, layer=1)
    assert_allclose(direction.vector, wanted.vector, atol=1e-5)
    again = call("directions", folders["sft"], "--texts", file, "--load", kept, "--json")
    assert json.loads(again.stdout)["accuracy"] == wanted.accuracy(states["sft"], found.labels, found.groups)
    assert "fitted on another model" in again.stderr
    shown = call("directions", folders["base"], "--texts", file).stdout
    assert "192 texts in 4 groups" in " ".join(shown.split())
    assert not list((home / "cache" / "directions-unfinished").glob("*/"))  # nothing stays on the disk


def test_an_interrupted_run_goes_on(home, folders, file, monkeypatch):
    plain = json.loads(call("directions", folders["base"], "--texts", file, "--json").stdout)
    whole, written = Spool._put, []

    def stop(spool, layer, chosen, states):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(layer)
        whole(spool, layer, chosen, states)

    monkeypatch.setattr(Spool, "_put", stop)
    with pytest.raises((KeyboardInterrupt, AssertionError)):
        call("directions", folders["base"], "--texts", file, "--json")
    monkeypatch.setattr(Spool, "_put", lambda *given: (written.append(given[1]), whole(*given)))
    written.clear()
    again = json.loads(call("directions", folders["base"], "--texts", file, "--json").stdout)
    assert again == plain
    lengths = np.unique([len(json.loads(line)["text"].split()) for line in file.read_text().splitlines()], return_counts=True)[
        1
    ]
    assert len(written) == 3 * (sum(-(-count // 64) for count in lengths) - 1)  # the first batch is there


def test_what_is_wrong_with_directions_is_said_in_a_sentence(home, folders, file, tmp_path):
    def refused(*words):
        return call("directions", *words, code=2).stderr

    base = folders["base"]
    (tmp_path / "one.csv").write_text("text,label\ncity_1,1\n")
    assert "one label alone" in refused(base, "--texts", tmp_path / "one.csv")
    (tmp_path / "none.csv").write_text("")
    assert "has no text" in refused(base, "--texts", tmp_path / "none.csv")
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    assert "text (or statement) and label are wanted" in refused(base, "--texts", tmp_path / "columns.csv")
    assert "Block 9 does not exist" in refused(base, "--texts", file, "--layer", 9)
    assert "mass-mean or ttpd" in refused(base, "--texts", file, "--kind", "pca")
    assert "same polarity" in refused(base, "--texts", file, "--kind", "ttpd")
    assert "names the same model" in refused(base, "--texts", file, "--transfer", base)
    assert "written as .safetensors" in refused(base, "--texts", file, "--save", tmp_path / "d.pt")
    assert "none at position -30" in refused(base, "--texts", file, "--position", -30)
    small = new_model("gpt2", Sizes(words=30, width=16, blocks=2))
    small.save_pretrained(tmp_path / "small")
    tiny.tokenizer().save_pretrained(tmp_path / "small")
    assert "the embedding of the GPT2LMHeadModel has 30" in refused(tmp_path / "small", "--texts", file)
    Direction(np.ones(16), 1, model="small").save(tmp_path / "d.safetensors")
    assert "width of 16, the model one of 64" in refused(base, "--texts", file, "--load", tmp_path / "d.safetensors")
    Direction(np.ones(64), 7).save(tmp_path / "e.safetensors")
    assert "is of block 7; the model has 3" in refused(base, "--texts", file, "--load", tmp_path / "e.safetensors")
    assert "goes without" in refused(base, "--texts", file, "--load", tmp_path / "e.safetensors", "--layer", 1)
    wide = new_model("llama", Sizes(words=463, width=32, blocks=3))
    wide.save_pretrained(tmp_path / "wide")
    tiny.tokenizer().save_pretrained(tmp_path / "wide")
    assert "differ in width" in refused(base, "--texts", file, "--transfer", tmp_path / "wide")


def test_compare_looks_at_confidence_neurons_and_directions(home, models, folders, file, found, rows, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(tiny.decode(row) for row in rows[:40]))
    words = ("compare", folders["base"], folders["sft"], "--texts", texts, "--draws", 20)
    said = json.loads(call(*words, "--labelled", file, "--json").stdout)
    for each, model in zip(said["models"], models.values(), strict=True):
        assert each["confidence"] == pytest.approx(read_confidence(model, rows[:40]).summary(), rel=1e-5)
    sets = [entropy_neurons(model).candidates for model in models.values()]
    assert said["entropy_neurons"]["overlap"] == iou(*sets)
    alike = cosines(*(mass_mean_by_block(model, rows, found.labels, found.groups) for model in models.values()))
    assert_allclose(said["cosines"], alike, rtol=1e-5)
    shown = call(*words, "--labelled", file).stdout
    assert "Entropy neurons in common" in shown
    assert "by block" in shown
    experts = new_model("mixtral", Sizes(words=463, width=64, blocks=3))
    with torch.no_grad():
        experts.save_pretrained(tmp_path / "experts")
    tiny.tokenizer().save_pretrained(tmp_path / "experts")
    without = call("compare", folders["base"], tmp_path / "experts", "--texts", texts, "--draws", 20, "--json")
    assert "Entropy neurons are left out" in without.stderr
    assert "entropy_neurons" not in json.loads(without.stdout)


def test_compare_goes_on_with_the_model_that_was_not_done_and_writes_findings(home, folders, file, rows, tmp_path, monkeypatch):
    from broadsheet.cli import language

    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(tiny.decode(row) for row in rows[:40]))
    words = ("compare", folders["base"], folders["sft"], "--texts", texts, "--draws", 20, "--labelled", file)
    read, seen = language._states, []

    def stops(name, *rest, **options):
        seen.append(name)
        if name == folders["sft"] and seen.count(name) == 1:
            raise KeyboardInterrupt
        return read(name, *rest, **options)

    monkeypatch.setattr(language, "_states", stops)
    call(*words, code=130)
    found = json.loads(call(*words, "--out", tmp_path / "found.json", "--json").stdout)
    assert seen == [folders["base"], folders["sft"], folders["sft"]]
    assert json.loads((tmp_path / "found.json").read_text()) == found
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.undo()
    assert json.loads(call(*words, "--json").stdout)["cosines"] == found["cosines"]
    assert "written as .json" in call(*words, "--out", tmp_path / "found.txt", code=2).stderr
