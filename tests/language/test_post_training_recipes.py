"""Recipes: what they say is used, and what is wrong in them is told in a sentence that names table and key; estimates; the verb."""

import json
import math
import re
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, pipeline

from broadsheet.errors import BroadsheetError, InputError
from broadsheet.language.architectures import Sizes, new_model
from broadsheet.language.characters import character_model, character_tokenizer
from broadsheet.language.post_training.estimates import activations, count_steps, estimate
from broadsheet.language.post_training.following import estimates, plan
from broadsheet.language.post_training.recipes import read_recipe
from broadsheet.language.post_training.rows import for_fine_tuning, for_preferences, read_rows
from broadsheet.language.post_training.settings import DPOSettings, RLSettings, SFTSettings
from broadsheet.language.post_training.trainers import Run, fine_tune, prefer, reinforce
from commands import call, read

RECIPE = """
model = "tiny-model"
folder = "trained"
tracker = "none"

[stages.sft]
data = "chats.jsonl"
steps = 3
batch = 8
rate = 1e-3

[stages.reasons]
kind = "rlvr"
data = "sums.jsonl"
columns = { prompt = "question", label = "answer" }
chat = true
verifier = "gsm8k"
worth = 1
steps = 1
batch = 8
group = 4
answer_tokens = 2

[evaluation]
suite = "suite.jsonl"
samples = 2
k = [2]
tokens = 2
"""


@pytest.fixture
def place(tmp_path, home):
    """A folder with a model, data and a recipe."""
    character_model(0).save_pretrained(tmp_path / "tiny-model")
    character_tokenizer().save_pretrained(tmp_path / "tiny-model")
    sums = [(f"{a}+{b}=?", str(a + b)) for a in range(4) for b in range(4)]
    files = {
        "chats": [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in sums],
        "sums": [{"question": q, "answer": a} for q, a in sums],
        "suite": [{"prompt": q, "label": a, "verifier": "gsm8k", "task": "sums"} for q, a in sums],
    }
    for name, rows in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def test_a_recipe_is_followed_and_leaves_a_model_findings_and_a_figure(place):
    dry = read("language", "posttrain", place / "recipe.toml", "--dry-run")
    assert [(stage["stage"], stage["rows"], stage["steps"]) for stage in dry["stages"]] == [("sft", 16, 3), ("reasons", 16, 1)]
    assert dry["stages"][0]["parameters"] == character_model(0).num_parameters()
    assert not (place / "trained").exists()
    first = read("language", "posttrain", place / "recipe.toml", "--stage", "sft")
    assert first["trained"] == str(place / "trained" / "1-sft")
    found = read("language", "posttrain", place / "recipe.toml", "--out", place / "found.json")
    assert [stage["found"] for stage in found["stages"]] == [True, False]
    assert found["stages"][1]["worth"] == 1
    assert [score["stage"] for score in found["scores"]] == ["start", "sft", "reasons"]
    assert set(found["scores"][0]["mean"]) == {"greedy", "sampled", "pass@2", "maj@2"}
    assert json.loads((place / "found.json").read_text())["trained"] == found["trained"]
    assert (place / "found.png").read_bytes()[:4] == b"\x89PNG"
    assert AutoModelForCausalLM.from_pretrained(found["trained"])
    assert AutoTokenizer.from_pretrained(found["trained"]).chat_template


def test_the_recipe_of_the_readme_trains_a_model_that_transformers_alone_loads(place, monkeypatch):
    text = (Path(__file__).parents[2] / "README.md").read_text()
    (place / "recipe.toml").write_text(re.search(r"```toml\n(.*?)```", text, re.S)[1])
    monkeypatch.setenv("TRACKIO_DIR", str(place / "runs"))
    assert "The model is in" in call("language", "posttrain", place / "recipe.toml").stdout
    ask = pipeline("text-generation", model=str(place / "trained" / "2-rlvr"), max_new_tokens=3)
    said = ask([{"role": "user", "content": "1+2=?"}])[0]["generated_text"][-1]
    assert said["role"] == "assistant"
    assert said["content"].isdigit()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("steps = 3", "stepz = 3", r"\[stages.sft\] has no key 'stepz'"),
        ("steps = 3", 'steps = "3"', r"\[stages.sft\]: steps is '3'; int is wanted"),
        ("steps = 3", "steps = 0", r"\[stages.sft\]: SFTSettings: steps is 0"),
        ("batch = 8\ngroup", "batch = 10\ngroup", r"\[stages.reasons\]: RLSettings: batch 10 is no multiple of group 4"),
        ("worth = 1\n", 'worth = "much"\n', r"\[stages.reasons\]: worth is 'much'; a number is wanted"),
        ('kind = "rlvr"\n', "", r"\[stages.reasons\]: the kind of stage is 'reasons'"),
        ('"gsm8k"', '"gsm9k"', r"\[stages.reasons\]: verifier: There is no verifier called 'gsm9k'"),
        ("chat = true", "chat = 1", r"\[stages.reasons\]: chat is 1; true or false is wanted"),
        ('"question"', "3", r"\[stages.reasons\]: columns.prompt is 3"),
        ('"question"', '"asked"', r"\[stages.reasons\]: .*has no column 'asked'"),
        ('data = "chats.jsonl"', 'data = "sums.jsonl"', r"\[stages.sft\]: Fine-tuning takes rows with messages"),
        ('data = "chats.jsonl"\n', "", r"\[stages.sft\]: data is missing"),
        ('"chats.jsonl"', '"none.jsonl"', r"\[stages.sft\]: none.jsonl: there is no such file"),
        ('"suite.jsonl"', '"none.jsonl"', "none.jsonl: there is no such file"),
        ("k = [2]", "k = [0.5]", r"\[evaluation\]: k is \[0.5\]"),
        ('"tiny-model"', '"./no-model"', "no-model: there is no such folder"),
        ('tracker = "none"', 'tracker = "paper"', "tracker is 'paper'"),
        ('folder = "trained"', 'push = "me"', "has no key 'push'"),
        ("[stages.sft]", "[stages.sft", "is no TOML"),
    ],
)
def test_a_mistake_in_a_recipe_is_told_in_one_sentence(old, new, says, place):
    assert old in RECIPE
    (place / "recipe.toml").write_text(RECIPE.replace(old, new, 1))
    done = call("language", "posttrain", place / "recipe.toml", code=2)
    assert re.search(says, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
    assert not list((place / "trained").glob("*-*"))


def test_a_stage_or_an_answer_that_there_is_not(place):
    with pytest.raises(InputError, match="has no stage 'dpo'; it has sft, reasons"):
        plan(read_recipe(place / "recipe.toml"), "dpo")
    pairs = '[stages.dpo]\ndata = "sums.jsonl"\nsamples = 4\n'
    (place / "recipe.toml").write_text(f'model = "m"\nfolder = "f"\n{pairs}')
    with pytest.raises(BroadsheetError, match=r"\[stages.dpo\]: samples is of answers that a verifier rates"):
        read_recipe(place / "recipe.toml")


def test_pairs_that_are_yet_to_be_made_are_estimated(place):
    columns = 'columns = { prompt = "question", label = "answer" }'
    stage = f'[stages.dpo]\ndata = "sums.jsonl"\n{columns}\nverifier = "gsm8k"\nanswer_tokens = 7\nbatch = 4\n'
    (place / "recipe.toml").write_text(f'model = "{place / "tiny-model"}"\nfolder = "f"\n{stage}')
    found = estimates(plan(read_recipe(place / "recipe.toml")))["dpo"]
    assert (found.steps, found.longest) == (4, len("1+1=?") + 7)


def chat(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize(
    ("rows", "batch", "at_once", "epochs"), [(10, 4, 4, 1.0), (10, 4, 2, 1.5), (7, 2, 1, 2.0), (3, 8, 8, 1.0), (9, 4, 2, 0.5)]
)
def test_steps_and_tokens_are_those_that_trainers_count(rows, batch, at_once, epochs):
    words, run = character_tokenizer(), Run()
    data = for_fine_tuning(read_rows([{"messages": chat("a" * k, "b")} for k in range(rows)]))
    settings = SFTSettings(batch=batch, device_batch=at_once, epochs=epochs, log_every=1)
    model = character_model(0, width=16, blocks=1)
    found = estimate(model.config, words, data, settings)
    fine_tune(model, words, data, settings, run)
    assert found.steps == len([record for record in run.records if "loss" in record])
    assert found.longest == len("u\n\na\nbe") + rows - 1
    if epochs == int(epochs):
        assert found.tokens == run.records[-2]["num_tokens"]


def test_steps_of_the_other_stages_are_those_that_trainers_count():
    words, model = character_tokenizer(), character_model(0, width=16, blocks=1)
    pairs = [{"prompt": chat("a", "")[:1], "chosen": chat("", "b")[1:], "rejected": chat("", "ccc")[1:]}] * 9
    settings, run = DPOSettings(batch=2, log_every=1), Run()
    prefer(model, words, pairs, settings, run)
    assert count_steps(9, settings) == len([record for record in run.records if "loss" in record])
    assert estimate(model.config, words, for_preferences(read_rows(pairs)), settings).tokens == 9 * (8 + 10)
    for updates in (1, 2):
        learnt, run = RLSettings(batch=4, group=2, answer_tokens=2, updates=updates, log_every=1), Run()
        reinforce(model, words, [{"prompt": "ab"}] * 5, lambda completions, **named: [0.0, 1.0] * 2, learnt, run)
        assert count_steps(5, learnt) == len([record for record in run.records if "loss" in record])


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt_neox", "gpt2"])
def test_activations_are_what_a_forward_pass_keeps(architecture):
    import torch

    model = new_model(architecture, Sizes(words=50, width=32, blocks=2)).train()
    own = {weights.untyped_storage().data_ptr() for weights in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes() if storage.data_ptr() not in own else 0
        return tensor

    mask = torch.ones(3, 1, 10, 10, dtype=torch.bool)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = model.base_model(input_ids=torch.zeros(3, 10, dtype=torch.long), attention_mask=mask, use_cache=False)
    assert activations(model.config, 3, 10) == pytest.approx(sum(kept.values()), rel=0.02)
    del states


def test_memory_of_a_large_model_is_known_without_making_it():
    config = AutoConfig.for_model(
        "llama", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128256,
    )  # fmt: skip
    rows = for_fine_tuning(read_rows([{"messages": chat("a" * 100, "b")}] * 4))
    full = estimate(config, character_tokenizer(), rows, SFTSettings(batch=1))
    light = estimate(config, character_tokenizer(), rows, SFTSettings(batch=1, adapter=16))
    assert full.parameters == 8_030_261_248  # Llama 3.1 8B's
    assert full.memory["optimiser"] == 8 * full.parameters
    assert light.trained == 41_943_040  # as PEFT counts
    assert math.isclose(light.peak, 4 * full.parameters, rel_tol=0.15)
