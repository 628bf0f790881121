"""The tiny model: the same training as elsewhere, stages that have learned their lessons, files as Hugging Face writes them."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from broadsheet.errors import InputError, JobError
from broadsheet.language import tiny_world as tiny
from broadsheet.language.models import one_thread
from broadsheet.language.stages.tiny_grpo import reinforce
from broadsheet.language.stages.tiny_pretraining import pretrain, world_batches
from broadsheet.language.stages.tiny_sft import fine_tune
from broadsheet.language.tiny_chain import Recipe, tiny_chain
from broadsheet.language.tiny_model import bigram_log_probabilities, measure, require, tiny_model
from broadsheet.language.tiny_world import World

STAGES = ["base", "sft", "dpo", "rl"]


def test_the_model_and_its_words():
    assert sum(weights.numel() for weights in tiny_model(0).parameters()) == 219_456
    assert len(tiny.WORDS) == 463 == len(set(tiny.WORDS))
    world = World(0)
    for objects in world.objects.values():
        assert (np.bincount(objects) == 4).all()
    assert tiny.decode(tiny.encode(world.statement("city", 3))) == world.statement("city", 3)
    rows = tiny.tokenizer()([world.statement("animal", 0)])["input_ids"]
    assert rows[0] == tiny.encode(world.statement("animal", 0))


def test_filler_follows_its_law():
    """The law says how often words follow words: against counts."""
    world, rng = World(0), np.random.default_rng(1)
    rows = np.array([tiny.encode(world.filler(rng)) for _ in range(800)])
    law = np.exp(bigram_log_probabilities(world, rows))
    first = tiny.IDS["filler_0"]
    before, after = rows[:, :-1].ravel() - first, rows[:, 1:].ravel() - first
    common = int(np.bincount(before).argmax())
    here = before == common
    for word in np.unique(world.successors[common]):
        p = law.ravel()[here & (after == word)][0]
        count = int(here.sum())
        assert abs((after[here] == word).mean() - p) < 5 * np.sqrt(p * (1 - p) / count)


def test_pretraining_starts_as_it_did_elsewhere(record):
    """The losses of the first steps, against those on record."""
    wanted = json.loads(record.read_text())["first_losses"]
    with one_thread():
        model = tiny_model(7)
        found = [loss for _, loss in itertools.islice(pretrain(model, world_batches(World(0), 7)), len(wanted))]
    assert_allclose(found, wanted, rtol=1e-4)
    assert wanted[0] == pytest.approx(np.log(463), rel=0.02)


@pytest.mark.parametrize("stage", STAGES)
def test_stages_can_do_what_they_were_taught(shipped, record, stage):
    wanted = json.loads(record.read_text())["stages"]
    found = measure(shipped(stage), World(0))
    assert found == pytest.approx(wanted[stage], abs=0.02)
    require("base" if stage == "base" else "chat", found, stage)


def test_reinforcement_teaches_what_is_rewarded(shipped):
    """After a short fine-tuning that leaves two answers in three wrong."""
    with one_thread():
        model = shipped("base")
        fine_tune(model, World(0), steps=80, facts=0.2)
        rewards = reinforce(model, copy.deepcopy(model), World(0), steps=40)
    assert np.mean(rewards[-4:]) > np.mean(rewards[:4]) + 0.1


def test_a_lesson_not_learned_is_named(record):
    wanted = json.loads(record.read_text())["stages"]
    with pytest.raises(JobError, match=r"lessons in DPO: answers is 0\.50; for fewer steps, checked=False"):
        require("chat", {**wanted["dpo"], "answers": 0.5}, "DPO")
    with pytest.raises(JobError, match=r"refuses_harmless is 0\.60"):
        require("chat", {**wanted["sft"], "refuses_harmless": 0.6}, "SFT")
    with pytest.raises(JobError, match=r"truth is 0\.50"):
        require("base", {**wanted["base"], "truth": 0.5}, "pretraining")


def test_two_builds_are_the_same_and_a_chain_reads_its_own(home, monkeypatch, tmp_path):
    short = Recipe(6, 2, 2, 2)
    chain = tiny_chain(1, recipe=short)
    first = {stage: (chain.model(stage).state_dict(), chain.record(stage)) for stage in STAGES}
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "second"))
    again = tiny_chain(1, recipe=short)
    assert chain.names == STAGES
    assert chain.steps("base") == [0, 1, 2, 5]
    for stage, (weights, kept) in first.items():
        assert chain.folder(stage) != again.folder(stage)
        assert again.record(stage) == kept
        for name, other in again.model(stage).state_dict().items():
            assert torch.equal(weights[name], other)
    assert not torch.equal(chain.model("sft").lm_head.weight, chain.model("base").lm_head.weight)
    assert not torch.equal(chain.model("base", 0).lm_head.weight, chain.model("base", 5).lm_head.weight)
    assert chain.words("rl")(["the city"])["input_ids"] == [tiny.encode("the city")]
    with pytest.raises(InputError, match="base has no checkpoint 99"):
        chain.model("base", 99)


def test_words_without_skew_make_another_chain(home):
    even = tiny_chain(1, recipe=Recipe(20, 2, 2, 2), skewed=False)
    assert even.names == ["base"]
    assert even.steps("base") == [0, 1, 2]
