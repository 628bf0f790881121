"""How the paper's phases are read: on traces and features whose phases are known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from broadsheet.papers.representation_geometry import Looks, _gains, _in_expansion, _readings, _toy_phases


def known(flat: list[int], texts: int = 4000) -> Looks:
    """Checkpoints every 25 steps whose features fill so many of 24 dimensions evenly."""
    rng = np.random.default_rng(0)
    states = [rng.standard_normal((texts, 24)) * np.where(np.arange(24) < dims, 1.0, 1e-3) for dims in flat]
    return Looks(25 * np.arange(len(flat)), np.array(states), list(np.linspace(5, 1, len(flat))))


def test_phases_of_features_that_fill_known_dimensions():
    found, trace = _readings(known([20, 10, 5, 8, 10, 12, 10]), draws=20)
    assert_allclose(trace["rank"], [20, 10, 5, 8, 10, 12, 10], rtol=0.01)
    for name, value in (("collapse", 5 / 20), ("expansion", 12 / 5), ("reversal", 10 / 5)):
        assert_allclose(found[name], value, rtol=0.01)
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"] < 1.03 * value
    assert found["loss_rises"] == 0
    assert found["alpha_fall_low"] <= found["alpha_fall"] <= found["alpha_fall_high"]


def test_a_loss_that_rises_is_seen():
    looks = known([4, 3, 5], texts=100)
    found, _ = _readings(looks._replace(losses=[3.0, 2.0, 2.1]), draws=2)
    assert found["loss_rises"] == 1
    assert looks.until(25).steps.tolist() == [0, 25]


def test_what_is_learned_in_the_expansion():
    rank = np.array([30.0, 10, 15, 19.5, 20])
    assert _in_expansion(rank, [0.0, 0.2, 0.5, 0.8, 1.0]) == pytest.approx(0.6 / 0.8)
    assert _in_expansion(rank, [0.0, 0.0, 0.0, 0.0, 1.0]) == 0
    assert np.isnan(_in_expansion(rank, [1.0, 0.5, 0.4, 0.3, 0.2]))


def test_phases_of_a_toy_trace():
    ranks = np.concatenate([np.linspace(8, 4, 21), np.linspace(4, 7.5, 105), np.full(100, 7.5), np.linspace(7.5, 7.0, 100)])
    found = _toy_phases(ranks)
    assert found["collapse"] == pytest.approx(0.5)
    assert found["expansion"] == pytest.approx(7.5 / 4)
    assert found["compression"] == pytest.approx(7.0 / 7.5)


def test_gains_have_signs_and_intervals_of_their_own():
    """Any order of signs can come out, of a control too."""
    rng = np.random.default_rng(0)
    levels = [0.0, 0.3, 0.5, 0.2]
    found = _gains([np.r_[level, level - 0.1 + 0.01 * rng.standard_normal(400)] for level in levels])
    for name, gain in (("sft", 0.3), ("dpo", 0.2), ("rl", -0.3)):
        assert found[f"{name}_gain"] == pytest.approx(gain)
        assert found[f"{name}_gain_high"] - gain == pytest.approx(1.96 * 0.01 * 2**0.5, rel=0.15)
    assert found["dpo_gain_low"] > 0 > found["rl_gain_high"]
