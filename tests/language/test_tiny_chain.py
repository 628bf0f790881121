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
from broadsheet.language.tiny_chain import (
    STAGES,
    Recipe,
    bigram_log_probabilities,
    check_stages,
    fine_tune,
    measure,
    new_model,
    pretrain,
    read_model,
    reinforce,
    tiny_chain,
    world_batches,
)
from broadsheet.language.tiny_world import World


def test_the_model_and_its_words():
    assert sum(weights.numel() for weights in new_model(0).parameters()) == 219_456
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


def test_pretraining_starts_as_it_did_elsewhere(shipped):
    """The losses of the first steps, against those on record."""
    wanted = json.loads((shipped / "record.json").read_text())["first_losses"]
    with one_thread():
        model = new_model(7)
        found = [loss for _, loss in itertools.islice(pretrain(model, world_batches(World(0), 7)), len(wanted))]
    assert_allclose(found, wanted, rtol=1e-4)
    assert wanted[0] == pytest.approx(np.log(463), rel=0.02)


@pytest.mark.parametrize("stage", STAGES)
def test_stages_can_do_what_they_were_taught(shipped, stage):
    wanted = json.loads((shipped / "record.json").read_text())["stages"]
    found = measure(read_model(shipped / f"{stage}.safetensors"), World(0))
    assert found == pytest.approx(wanted[stage], abs=0.02)
    check_stages({**wanted, stage: found}, 7)


def test_reinforcement_teaches_what_is_rewarded(shipped):
    """After a short fine-tuning that leaves two answers in three wrong."""
    with one_thread():
        model = read_model(shipped / "base.safetensors")
        fine_tune(model, World(0), steps=80, facts=0.2)
        rewards = reinforce(model, copy.deepcopy(model), World(0), steps=40)
    assert np.mean(rewards[-4:]) > np.mean(rewards[:4]) + 0.1


def test_the_check_of_stages_tells_failure_from_success(shipped):
    wanted = json.loads((shipped / "record.json").read_text())["stages"]
    with pytest.raises(JobError, match=r"truth of base is 0\.50"):
        check_stages({**wanted, "base": {**wanted["base"], "truth": 0.5}}, 7)


def test_two_builds_are_the_same_and_a_chain_reads_its_own(home, monkeypatch, tmp_path):
    short = Recipe(6, 2, 2, 2)
    chain = tiny_chain(1, recipe=short)
    monkeypatch.setenv("BROADSHEET_HOME", str(tmp_path / "second"))
    again = tiny_chain(1, recipe=short)
    assert chain.folder != again.folder
    assert chain.record == again.record
    assert chain.steps == [0, 1, 2, 5]
    for stage in STAGES:
        for one, other in zip(chain.model(stage).parameters(), again.model(stage).parameters(), strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(chain.model("sft").lm_head.weight, chain.model("base").lm_head.weight)
    with pytest.raises(InputError, match="no checkpoint 99"):
        chain.model(99)


def test_words_without_skew_make_another_chain(home):
    even = tiny_chain(1, recipe=Recipe(20, 2, 2, 2), skewed=False)
    assert even.steps == [0, 1, 2]
