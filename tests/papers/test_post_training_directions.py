"""How post-training reshapes language models, truthfulness, refusal and confidence: real formats, and claims that can be judged."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.torch import load_file

from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.lab.claims import SYSTEM
from broadsheet.language import tiny_world as tiny
from broadsheet.language.directions import cosine
from broadsheet.language.labelled import read_labelled, read_requests
from broadsheet.language.models import load
from broadsheet.language.states import read_states
from broadsheet.language.tiny_model import tiny_model
from broadsheet.language.tiny_tasks import requests, statements
from broadsheet.language.tiny_world import World
from broadsheet.papers.post_training_reshapes import paper
from quiet import Quiet

SHIPPED = Path(__file__).parents[1] / "references" / "tiny_chain"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Base and SFT of the tests' tiny chain, as checkpoints of the Hub are."""
    made, root = [], tmp_path_factory.mktemp("models")
    for stage in ("base", "sft"):
        folder, model = root / stage, tiny_model(0)
        model.load_state_dict(load_file(SHIPPED / f"{stage}.safetensors"))
        model.save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
        made.append(str(folder))
    return tuple(made)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Files in the formats of the official code, AdvBench and Alpaca, with what the tiny models know."""
    folder, found = tmp_path_factory.mktemp("data"), statements(World(0))
    for topic, relation in (("cities", "city"), ("sp_en_trans", "animal"), ("inventors", "person")):
        lines = ["statement,label,subject"]
        lines += [f"<bos> {text},{label},x" for text, label, group in
                  zip(found.texts, found.labels, found.groups, strict=True) if group == relation]  # fmt: skip
        (folder / f"{topic}.csv").write_text("\n".join(lines) + "\n")
    examples = [f"{World(0).statement('city', s, other)} this statement is : {answer}" for s in (0, 1)
                for other, answer in ((0, "TRUE"), (2, "FALSE"))]  # fmt: skip
    (folder / "few_shot_samples.json").write_text(json.dumps([{"dataset_name": "cities", "few_shot_examples": examples}]))
    goals = "\n".join(f'"{text}","Sure, here is how"' for text in requests("harmful"))
    (folder / "harmful_behaviors.csv").write_text(f"goal,target\n{goals}\n")
    alpaca = [{"instruction": text, "input": "", "output": ""} for text in requests("harmless")]
    alpaca.insert(3, {"instruction": "Shorten this.", "input": "A text.", "output": ""})
    (folder / "alpaca_data.json").write_text(json.dumps(alpaca))
    (folder / "texts.txt").write_text("\n".join(tiny.decode(row) for row in World(0).probe(12, 20)))
    return folder


def at_paper_size(name, **changes):
    """The paper's preset with other models, small ones."""
    experiment = paper.experiments[name]
    config = experiment.configure("paper", SYSTEM, {"device": "cpu", "precision": "float32", **changes})
    return experiment.function(config, jax.random.key(0), Quiet())


def test_the_papers_preset_reads_statements_as_the_official_code_has_them(folders, data):
    report = at_paper_size("truthfulness", models=folders, data=str(data), train=("sp_en_trans", "inventors"), first=0, layer=2,
                           draws=1)  # fmt: skip
    arms = report.arms
    some = [read_labelled(data / f"{topic}.csv") for topic in ("sp_en_trans", "inventors")]
    by_hand = []
    for folder in folders:
        model, words = load(folder)
        states = [read_states(model, words(part.texts)["input_ids"], 2) for part in some]  # the period of the bare statement
        centre = np.concatenate([x - x.mean(axis=0) for x in states])
        labels = np.concatenate([part.labels for part in some])
        by_hand.append(centre[labels == 1].mean(axis=0) - centre[labels == 0].mean(axis=0))
    assert arms["system"]["cosine"] == pytest.approx(cosine(*by_hand), abs=1e-5)
    assert {f"nie_{a}_{b}" for a in ("base", "post") for b in ("base", "post")} <= set(arms["random"])
    assert "foreign" not in arms
    assert report.arrays["site"] == (2, -4)  # the question has three tokens here


def test_the_papers_preset_reads_requests_as_advbench_and_alpaca_have_them(folders, data):
    report = at_paper_size(
        "refusal", models=folders, data=str(data), train=("sp_en_trans", "inventors"), layer=2, target="sft", requests=24,
        asked=12, tokens=2, plain="<bos> user : {} assistant :", chat="<bos> <|user|> {} <|assistant|>", positions=(-1, -1),
        draws=1,
    )  # fmt: skip
    assert 0 <= report.arms["system"]["added"] <= 1
    assert list(report.arrays["models"]) == ["base", "sft"]


def test_the_papers_preset_reads_texts(folders, data):
    report = at_paper_size("confidence", models=folders, data=str(data / "texts.txt"), draws=1)
    assert 0.2 < report.arms["system"]["overlap"] <= 1 > report.arms["random-neurons"]["overlap"]
    assert 0 < report.arms["system"]["entropy_base"] < np.log(463)


def test_what_is_missing_is_named(folders, data, tmp_path):
    for name in ("truthfulness", "refusal", "confidence"):
        with pytest.raises(MissingDataError, match="pass --data"):
            at_paper_size(name)
    with pytest.raises(InputError, match=r"animal_class.csv: there is no such file"):
        at_paper_size("truthfulness", models=folders, data=str(data))
    (tmp_path / "other.csv").write_text("behaviour,label\nx,1\n")
    with pytest.raises(DataError, match="goal is wanted, as AdvBench has"):
        read_requests(tmp_path / "other.csv")
    with pytest.raises(DataError, match=r"text \(or statement\) and label are wanted"):
        read_labelled(tmp_path / "other.csv")
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="as Alpaca has"):
        read_requests(tmp_path / "other.json")
    (tmp_path / "one.csv").write_text("text,label\nonly,1\nanother,1\n")
    with pytest.raises(InputError, match="'one' have one label alone"):
        read_labelled(tmp_path / "one.csv")
    (tmp_path / "wrong.csv").write_text("text,label\nonly,maybe\n")
    with pytest.raises(DataError, match="line 2: the label is 'maybe'"):
        read_labelled(tmp_path / "wrong.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="has no text"):
        read_labelled(tmp_path / "empty.csv")


def test_files_of_requests_and_texts(data):
    assert read_requests(data / "harmful_behaviors.csv") == requests("harmful")
    assert read_requests(data / "alpaca_data.json") == requests("harmless")  # what has an input is left out
    found = read_labelled(data / "cities.csv")
    assert set(found.groups) == {"cities"}
    assert found.labels.mean() == 0.5
    (data / "neg").mkdir()
    for name, label in (("a.csv", 1), ("neg_a.csv", 0)):
        (data / "neg" / name).write_text(f"statement,label\nx is,{label}\ny is,{1 - label}\n")
    both = read_labelled(data / "neg")
    assert (set(both.groups), sorted(both.polarities)) == ({"a"}, [-1, -1, 1, 1])
