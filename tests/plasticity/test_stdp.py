"""STDP on traces against the sum over all pairs and triplets of spikes."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.dynamics import rollout
from broadsheet.errors import InputError
from broadsheet.plasticity import STDP, Triplet

WIDE = (-1e3, 1e3)


def run(rule, pre, post):
    state, sent = rollout(rule, (jnp.asarray(pre, jnp.float32), jnp.asarray(post, jnp.float32)))
    return np.asarray(state.weights), np.asarray(sent)


def by_pairs(pre, post, rule, axonal=0, dendritic=0, triplet=(0.0, 0.0), tau=(20.0, 30.0, 101.0, 125.0)):
    """Every pair of spikes as the synapse sees them; where both arrive in one step the postsynaptic one came first."""
    before, after = np.nonzero(pre)[0] + axonal, np.nonzero(post)[0] + dendritic
    before, after = before[before < len(pre)], after[after < len(post)]
    change = 0.0
    for h in after:
        o2 = sum(np.exp(-(h - g) / tau[3]) for g in after if g < h)
        change += rule[0] * sum(np.exp(-(h - p) / tau[0]) for p in before if p < h) * (1 + triplet[0] * o2)
    for p in before:
        r2 = sum(np.exp(-(p - q) / tau[2]) for q in before if q < p)
        change -= rule[1] * sum(np.exp(-(p - h) / tau[1]) for h in after if h <= p) * (1 + triplet[1] * r2)
    return change


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), axonal=st.integers(0, 2), dendritic=st.integers(0, 2), triplet=st.booleans())
def test_traces_sum_over_all_pairs_and_triplets(seed, axonal, dendritic, triplet):
    rng = np.random.default_rng(seed)
    pre, post = (rng.random((60, 1)) < 0.2 for _ in range(2))
    terms = (0.7, 0.4) if triplet else (0.0, 0.0)
    options = {"a_plus": 0.5, "a_minus": 0.3, "tau_plus": 20.0, "tau_minus": 30.0, "bounds": WIDE, "axonal": axonal,
               "dendritic": dendritic}  # fmt: skip
    extra = {"triplet_plus": 0.5 * terms[0], "triplet_minus": 0.3 * terms[1], "tau_x": 101.0, "tau_y": 125.0}
    rule = Triplet([[0.0]], **options, **extra) if triplet else STDP([[0.0]], **options)
    expected = by_pairs(pre[:, 0], post[:, 0], (0.5, 0.3), axonal, dendritic, terms)
    np.testing.assert_allclose(run(rule, pre, post)[0][0, 0], expected, rtol=1e-4, atol=1e-4)


def test_one_pair_follows_the_window():
    for lag in (1, 5, 20):
        pre, post = np.zeros((40, 1)), np.zeros((40, 1))
        pre[3], post[3 + lag] = 1, 1
        rule = STDP([[0.5]], a_plus=0.1, a_minus=0.2, bounds=WIDE)
        np.testing.assert_allclose(run(rule, pre, post)[0], 0.5 + 0.1 * np.exp(-lag / 20), rtol=1e-5)
        np.testing.assert_allclose(run(rule, post, pre)[0], 0.5 - 0.2 * np.exp(-lag / 20), rtol=1e-5)


def test_skipping_silence_changes_nothing():
    rng = np.random.default_rng(4)
    pre, post = rng.random((200, 6)) < 0.05, rng.random((200, 4)) < 0.05
    made = [
        run(STDP(np.full((6, 4), 0.5), a_plus=0.1, a_minus=0.12, dendritic=1, skip_silence=skip), pre, post)
        for skip in (True, False)
    ]
    assert not np.allclose(made[0][0], 0.5)
    np.testing.assert_array_equal(made[0][0], made[1][0])
    np.testing.assert_array_equal(made[0][1], made[1][1])


def test_nearest_pairing_forgets_earlier_spikes_and_zero_lag_can_be_left_out():
    pre, post = np.zeros((30, 1)), np.zeros((30, 1))
    pre[[2, 10]], post[14] = 1, 1
    rule = STDP([[0.0]], a_plus=0.1, pairing="nearest", bounds=WIDE)
    np.testing.assert_allclose(run(rule, pre, post)[0], 0.1 * np.exp(-4 / 20), rtol=1e-5)
    together = np.zeros((5, 1))
    together[2] = 1
    for zero_lag, expected in ((True, -0.2), (False, 0.0)):
        rule = STDP([[0.0]], a_minus=0.2, zero_lag=zero_lag, bounds=WIDE)
        np.testing.assert_allclose(run(rule, together, together)[0], expected, atol=1e-7)


def test_bounds_hold_and_soft_ones_are_approached():
    rng = np.random.default_rng(0)
    pre = (rng.random((400, 3)) < 0.2).astype(float)
    post = np.roll(pre, 1, axis=0)
    hard, _ = run(STDP(np.full((3, 3), 0.5), a_plus=0.2, a_minus=0.2), pre, post)
    assert hard.min() == 0 or hard.max() == 1
    assert ((hard >= 0) & (hard <= 1)).all()
    soft, _ = run(STDP(np.full((3, 3), 0.5), a_plus=0.05, a_minus=0.05, soft=True), pre, post)
    assert ((soft > 0) & (soft < 1)).all()


def test_output_uses_the_weights_after_the_change_and_learning_is_kept():
    rule = STDP([[0.0]], a_plus=1.0, a_minus=0.0, bounds=(0.0, 9.0))
    pre, post = np.array([[1.0], [0.0], [1.0]]), np.array([[0.0], [1.0], [0.0]])
    weights, sent = run(rule, pre, post)
    grown = np.exp(-1 / 20)
    np.testing.assert_allclose(sent[:, 0], [0, 0, grown], rtol=1e-5)
    state, _ = rollout(rule, (jnp.asarray(pre), jnp.asarray(post)))
    np.testing.assert_allclose(rule.consolidate(state).weights, weights)


def test_triplets_as_they_come_are_those_of_visual_cortex():
    """Pfister and Gerstner (2006), the full model of all spikes: A2+ of 5e-10 is nothing; ms."""
    rule = Triplet([[0.0]])
    np.testing.assert_allclose([rule.a_plus, rule.triplet_plus, rule.a_minus, rule.triplet_minus], [0, 6.2e-3, 7e-3, 2.3e-4])
    np.testing.assert_allclose([*rule.tau_pre.ravel(), *rule.tau_post.ravel()], [16.8, 101, 33.7, 125])


@pytest.mark.parametrize(
    ("options", "said"),
    [({"tau_plus": -1.0}, "tau_plus = -1.0"), ({"axonal": -1}, "axonal = -1"),
     ({"bounds": (1.0, 0.0)}, "bounds"), ({"weights": [1.0]}, "weights have the shape")],
)  # fmt: skip
def test_mistakes_are_named(options, said):
    with pytest.raises(InputError, match=said):
        STDP(**({"weights": [[0.0]]} | options))
    with pytest.raises(InputError, match="tau_y = nan"):
        Triplet(tau_y=float("nan"))
    for name in ("tau_x", "tau_y"):
        with pytest.raises(InputError, match=f"{name} = 0"):
            Triplet(**{name: 0.0})


@pytest.mark.parametrize(
    "options",
    [
        {}, {"dt": 0.5, "pairing": "nearest"}, {"soft": True, "bounds": (-1.0, 2.0), "a_plus": 0.2, "a_minus": 0.3},
        {"zero_lag": False, "a_plus": 0.3, "a_minus": 0.4, "tau_plus": 5.0, "tau_minus": 9.0},
    ],
    ids=str,
)  # fmt: skip
def test_many_synapses_follow_their_two_traces(options):
    """Weights and what they send, by hand: growth at a spike after, then shrinking at a spike before, then the output."""
    rng = np.random.default_rng(1)
    pre, post = (rng.random((30, size)) < 0.3 for size in (3, 2))
    start = rng.uniform(0.2, 0.8, (3, 2))
    said = {"a_plus": 0.01, "a_minus": 0.012, "tau_plus": 20.0, "tau_minus": 20.0, "bounds": (0.0, 1.0), "dt": 1.0} | options
    low, high = said["bounds"]
    weights, before, after, sent = start.copy(), np.zeros(3), np.zeros(2), []
    for x, y in zip(pre, post, strict=True):
        before, after = before * np.exp(-said["dt"] / said["tau_plus"]), after * np.exp(-said["dt"] / said["tau_minus"])
        new_before, new_after = (np.where(s, 1, t) if "pairing" in said else t + s for s, t in ((x, before), (y, after)))
        seen = new_after if said.get("zero_lag", True) else after
        grown = said["a_plus"] * np.outer(before, y)
        weights = np.minimum(weights + grown * (high - weights if "soft" in said else 1), high)
        shrunk = said["a_minus"] * np.outer(x, seen)
        weights = np.maximum(weights - shrunk * (weights - low if "soft" in said else 1), low)
        before, after = new_before, new_after
        sent.append(x @ weights)
    found = run(STDP(start, **options), pre, post)
    np.testing.assert_allclose(found[0], weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[1], sent, rtol=1e-4, atol=1e-6)
    assert np.abs(weights - start).max() > 0.01


def test_a_triplet_rule_without_triplets_is_that_of_pairs():
    rng = np.random.default_rng(2)
    pre, post = (rng.random((30, size)) < 0.3 for size in (3, 2))
    options = {"a_plus": 0.03, "a_minus": 0.02, "tau_plus": 20.0, "tau_minus": 20.0}
    pairs = run(STDP(np.full((3, 2), 0.5), **options), pre, post)[0]
    bare = run(Triplet(np.full((3, 2), 0.5), triplet_plus=0, triplet_minus=0.0, **options), pre, post)[0]
    np.testing.assert_array_equal(pairs, bare)
