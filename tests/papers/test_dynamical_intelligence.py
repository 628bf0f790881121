"""The experiments of the position paper at small size, against what can be said without them."""

import dataclasses

import jax
import pytest

from broadsheet.numerics.sparse_codes import SparseCode
from broadsheet.papers.dynamical_intelligence import Replay, _nearest, _table, paper
from quiet import Quiet


def run(name, key=0, **changes):
    experiment = paper.experiments[name]
    config = dataclasses.replace(experiment.configure("smoke"), **changes)
    return experiment.function(config, jax.random.key(key), Quiet())


def test_a_reverse_replay_gives_the_discounted_distance_and_a_forward_one_nothing():
    arms = run("replay", length=3, sweeps=2).arms
    assert arms["system"]["start"] == pytest.approx(0.95**2)
    assert arms["return"]["distance"] == 0
    assert arms["forward"]["start"] == 0


def test_tables_recall_what_they_hold_and_only_that():
    code = SparseCode(40, 4)
    items = code.draw(jax.random.key(0), 12).reshape(4, 3, 4)
    wrong = items.at[:, 0].set(items[:, 0].at[:, 0].set((items[:, 0, 0] + 1) % 40))
    assert _table(items, items) == 1
    assert _table(items, wrong) == 0
    assert _nearest(code.bits(items), code.bits(wrong)) == 1


def test_what_is_ours_is_said():
    assert paper.basis == "reconstructed"
    assert any("none is the paper's" in note for note in paper.notes)
    claims = [claim for experiment in paper.experiments.values() for claim in experiment.claims]
    assert {claim.id for claim in claims} == {*(f"DI{n}" for n in range(1, 12)), "DI9b"}

    assert Replay().discount ** (Replay().length - 1) == pytest.approx(0.3774, abs=1e-4)
