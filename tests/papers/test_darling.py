"""DARLING's experiments: the same arms share everything but their reward, and TRL pays what the reward says."""

import jax
import numpy as np
import pytest

from broadsheet.lab.claims import SYSTEM
from broadsheet.language.diversity.problems import closed
from broadsheet.language.diversity.training import reinforced
from broadsheet.papers import darling
from broadsheet.papers.darling import SMOKE, Dealt, _arms
from quiet import Quiet


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROADSHEET_HOME", str(tmp_path_factory.mktemp("home")))
        yield closed("make number", 0, steps=2)


def test_what_is_known_is_met_and_wrong_ways_miss_it():
    config = darling.known.configure("quick")
    arms = darling.known.function(config, jax.random.key(0), Quiet()).arms
    for claim in darling.known.claims:
        inside = {
            arm: all(check.distance(arms[arm][check.metric], "quick") >= 0 for check in claim.checks)
            for arm in (SYSTEM, *claim.ablations)
        }
        assert inside == {SYSTEM: True} | dict.fromkeys(claim.ablations, False), claim.id


def test_arms_differ_in_what_their_names_say(problem):
    texts = ["3+4", "4+3", "9-2", "1*7", "2+2", "8-1", "7*1", "x"]
    prompts = ["7="] * 8
    paid = {}
    for name, (reward, more) in _arms(SMOKE, problem, 0).items():
        reward.group = None
        paid[name] = np.array(reward(prompts=prompts, completions=texts))
        assert more == ({"entropy": SMOKE.entropy} if name == "entropy" else {})
    right = np.array([1, 1, 1, 1, 0, 1, 1, 0])
    np.testing.assert_array_equal(paid["quality"], right)
    np.testing.assert_array_equal(paid["entropy"], right)
    np.testing.assert_allclose(paid["system"], right * [6, 6, 7, 6, 7, 7, 6, 7] / np.float64(7))
    np.testing.assert_array_equal(paid["wording"], right)  # no two share a sign and a digit


def test_dealt_diversities_are_the_same_numbers(problem):
    texts = ["3+4", "4+3", "9-2", "1*7"] * 4
    quality = [np.ones(16)]
    own = _arms(SMOKE, problem, 0)["system"][0].divs([texts], quality)[0][0]
    dealt = Dealt(problem.quality, problem.partitioner, seed=0).divs([texts], quality)[0][0]
    np.testing.assert_array_equal(np.sort(own), np.sort(dealt))
    assert (own != dealt).any()


def test_trl_trains_on_the_product_and_a_seed_gives_the_same_model_twice(problem):
    calls = []
    inner = _arms(SMOKE, problem, 0)["system"][0]

    def reward(prompts, completions, **columns):
        calls.append((list(prompts), inner(prompts, completions, **columns)))
        return calls[-1][1]

    settings = {"steps": 2, "batch": 36, "group": 4, "rate": 1e-3, "beta": 0.0, "seed": 3}
    looks = [reinforced(problem, reward, settings)[-1] for _ in range(2)]
    assert [len(set(map(str, prompts))) for prompts, _ in calls] == [9] * 4
    assert all(len(set(prompts[k : k + 4])) == 1 for prompts, _ in calls for k in range(0, 36, 4))
    np.testing.assert_array_equal(looks[0].at().classes, looks[1].at().classes)
    assert calls[0] == calls[2]
    calls.clear()
    reinforced(problem, reward, settings | {"batch": 16, "device_batch": 8}, parts=2)  # two updates, drawn at once
    assert [len(prompts) for prompts, _ in calls] == [32]
