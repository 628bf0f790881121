"""Measures of laziness against what the paper's program printed for the same weights and trials, and the cognitive tasks."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.networks import RateRNN, gaussian_weights, laziness_report, network_kernel, train_starts
from broadsheet.networks.cognitive_tasks import (
    UNASKED,
    ImageRows,
    context_decision,
    decisions_right,
    delay_match,
    perceptual_decision,
    step_loss,
)
from broadsheet.networks.initial_weights import truncate

REFERENCE = Path(__file__).parents[1] / "references" / "rich_lazy.npz"


def test_measures_equal_those_of_the_paper_s_program():
    with np.load(REFERENCE) as stored:
        known = dict(stored)

    def net(k, when):
        made = RateRNN(3, 10, 3, key=jax.random.key(0))
        parts = tuple(jnp.asarray(known[f"{name}_{when}"][k]) for name in ("w_in", "w_rec", "w_out"))
        return eqx.tree_at(lambda net: (net.w_in, net.w_rec, net.w_out), made, parts)

    inputs = known["inputs"].transpose(1, 0, 2)
    for k, rank in enumerate(known["ranks"]):
        start = truncate(known["gaussian"], min(int(rank), 10))
        np.testing.assert_allclose(known["w_rec_before"][k], start, atol=1e-6)
        found = laziness_report(net(k, "before"), net(k, "after"), inputs)
        assert found.weight_change == pytest.approx(known["change"][k], rel=1e-5)
        assert found.signs == pytest.approx(known["signs"][k], abs=1e-6)
        assert found.representation == pytest.approx(known["representation"][k], rel=1e-5)
        assert found.kernel == pytest.approx(known["kernel"][k], rel=5e-5)  # summed in float32 there
    kernel = np.asarray(network_kernel(net(-1, "before"), inputs[:32]))
    theirs = kernel.reshape(32, 8, 3, 32, 8, 3).transpose(1, 0, 2, 4, 3, 5).reshape(768, 768)  # steps first there
    assert np.linalg.norm(kernel) == pytest.approx(float(known["kernel_norm"]), rel=1e-5)
    np.testing.assert_allclose(theirs[:30, -30:], known["kernel_corner"], atol=1e-5 * abs(known["kernel_corner"]).max())


def test_trials_say_what_the_answer_is():
    x, labels = (np.asarray(part) for part in perceptual_decision(jax.random.key(0), 2000))
    assert (labels[:, :-1] == 0).all()
    assert (x[:, :, 0] == (np.arange(8) < 7)).all()
    assert (x[:, -1] == 0).all()
    evidence = (x[:, :7, 1] - x[:, :7, 2]).mean(axis=1)
    strength = np.abs(evidence).round(1)
    sure = strength > 0.4
    assert ((evidence > 0) + 2 * (evidence < 0) == labels[:, -1])[sure].all()
    assert 0.1 < sure.mean() < 0.3  # one coherence of five
    assert (x[:, :7, 1] - x[:, :7, 1].mean(axis=1, keepdims=True)).std() == pytest.approx(0.1 * (6 / 7) ** 0.5, rel=0.02)

    x, labels = (np.asarray(part) for part in delay_match(jax.random.key(1), 500))
    sample, test = x[:, 0, 1:].argmax(axis=1), x[:, 6, 1:].argmax(axis=1)
    np.testing.assert_array_equal(labels[:, -1], np.where(sample == test, 1, 2))
    assert (x[:, [1, 2, 3, 4, 5, 7], 1:] == 0).all()

    x, labels = (np.asarray(part) for part in context_decision(jax.random.key(2), 2000))
    cue = x[:, 0, 5:].argmax(axis=1)
    assert (x[:, :, 5:].sum(axis=2) == 1).all()
    both = (x[:, :2, 1:5:2] - x[:, :2, 2:5:2]).mean(axis=1)
    relevant = both[np.arange(2000), cue]
    strong = abs(relevant) > 0.35
    assert ((relevant < 0) + 1 == labels[:, -1])[strong].mean() > 0.99
    assert ((both[np.arange(2000), 1 - cue] < 0) + 1 == labels[:, -1])[strong].mean() < 0.6


def test_rows_are_asked_for_at_the_end_alone():
    images, digits = np.arange(24.0).reshape(2, 3, 4), np.array([1, 0])
    labels = np.asarray(jax.jit(lambda key: ImageRows(images, digits)(key, 5)[1])(jax.random.key(0)))
    assert set(labels[:, -1]) <= {0, 1}
    assert (labels[:, :-1] == UNASKED).all()
    logits = np.zeros((5, 3, 2), np.float32)
    logits[:, 0], logits[:, -1, 1] = 99.0, np.log(3.0)
    expected = np.where(labels[:, -1] == 1, -np.log(0.75), -np.log(0.25)).mean()
    loss, right = jax.jit(lambda *given: (step_loss(*given), decisions_right(*given)))(logits, labels)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert float(right) == pytest.approx((labels[:, -1] == 1).mean())
    with pytest.raises(InputError, match="as many"):
        ImageRows(images[:0], digits[:0])


def test_starts_learn_apart_and_frozen_ones_and_diverged_ones_harm_none():
    net = RateRNN(3, 6, 3, key=jax.random.key(0))
    probe = perceptual_decision(jax.random.key(1), 16)
    one, other = gaussian_weights(0, 6), gaussian_weights(1, 6)
    options = {"steps": 6, "batch": 4, "probe": probe, "key": jax.random.key(2), "looks": 2}
    starts = {"one": one, "still": one, "wild": 1e30 * np.ones((6, 6))}
    found = train_starts(net, starts, perceptual_decision, frozen=["still"], **options)
    swapped = train_starts(net, {"other": other, "still": one, "one": one}, perceptual_decision, frozen=["still"], **options)
    np.testing.assert_allclose(found.after["one"].w_rec, swapped.after["one"].w_rec, atol=1e-7)
    np.testing.assert_array_equal(found.after["still"].w_rec, found.before["still"].w_rec)
    assert (np.asarray(found.after["still"].w_in) != np.asarray(net.w_in)).any()
    assert np.isnan(found.loss("wild")[-1])
    assert np.isnan(laziness_report(found.before["one"], found.after["wild"], probe[0], kernel_batch=4).kernel)
    assert found.looks.tolist() == [3, 6]
    assert found.at_loss("one", 1e9).w_rec.shape == (6, 6)
    with pytest.raises(InputError, match=r"Recurrent weights of \(2, 2\)"):
        train_starts(net, {"bad": np.eye(2)}, perceptual_decision, **options)


def test_pairs_that_are_not_one_network_are_refused():
    net, wide = (RateRNN(3, units, 2, key=jax.random.key(0)) for units in (4, 5))
    with pytest.raises(InputError, match="Two states of one network"):
        laziness_report(net, wide, np.zeros((2, 3, 3)))
    with pytest.raises(InputError, match=r"\(examples, time, 3\)"):
        laziness_report(net, net, np.zeros((2, 3, 4)))
    with pytest.raises(InputError, match="finite"):
        laziness_report(net, net, np.full((2, 3, 3), np.nan))
