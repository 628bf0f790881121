"""Networks that noise drives: the official program's states, plain loops, closed forms."""

import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.networks.noise_rnn import NoiseRNN, fit_sequences, matched_distance
from broadsheet.networks.stochastic_mechanism import (
    Run,
    at_rest,
    critical_pairs,
    kick_units,
    noise_spread,
    regions,
    residency,
    run,
    scaled,
)
from broadsheet.networks.symbol_gru import SymbolGRU
from broadsheet.numerics.markov_chains import TeacherBatches, linear_chain

GIVEN = json.loads((Path(__file__).parents[1] / "references" / "hmmrnn.json").read_text())["rnn"]


def network(w_in, w_rec, w_out, **options):
    """A network of these weights, of which none is drawn first."""
    (units, noise), symbols = np.shape(w_in), len(w_out)
    made = eqx.filter_eval_shape(lambda: NoiseRNN(units, noise, symbols, key=jax.random.key(0), **options))
    weights = (jnp.asarray(np.asarray(each, np.float32)) for each in (w_in, w_rec, w_out, 1.0))
    return eqx.tree_at(lambda model: (model.net.w_in, model.net.w_rec, model.net.w_out, model.net.alpha), made, tuple(weights))


def official():
    return network(*(GIVEN[name] for name in ("w_in", "w_rec", "w_out")))


def test_states_and_logits_are_the_official_ones():
    model = official()

    @eqx.filter_jit
    def driven(net, noise):
        h = jax.vmap(net.states)(noise)
        return h, net.output(h)

    h, logits = driven(model.net, np.asarray(GIVEN["noise"], np.float32))
    assert np.allclose(h, GIVEN["h"], atol=1e-6)
    assert np.allclose(logits, GIVEN["logits"], atol=1e-6)


def test_twice_the_noise_is_twice_the_state():
    model = official()
    one, two = (model.rollout(jax.random.key(1), 3, 20, sigma) for sigma in (1.0, 2.0))
    assert np.allclose(two.h, 2 * np.asarray(one.h), atol=1e-6)
    assert (np.asarray(one.logits).argmax(-1) == np.asarray(two.logits).argmax(-1)).all()


def test_straight_through():
    model = official()

    def emitted(scale):
        made = eqx.tree_at(lambda m: m.net.w_out, model, scale * model.net.w_out).emit(jax.random.key(1), 4, 5)
        return made[..., 0].sum(), made

    grown, made = jax.jit(jax.grad(emitted, has_aux=True))(1.0)
    assert np.allclose(np.sort(np.asarray(made)), [0, 0, 1], atol=1e-6)
    assert np.isfinite(grown)
    assert grown != 0


def test_a_training_is_repeatable_and_keeps_the_best():
    model, data = NoiseRNN(8, 2, 3, key=jax.random.key(0)), TeacherBatches(linear_chain(2), 8, 12)
    held = data(jax.random.key(9))
    found = [fit_sequences(model, data, steps=3, key=jax.random.key(1), validate=held) for _ in range(2)]
    assert found[0].losses.tolist() == found[1].losses.tolist()
    assert not np.allclose(found[0].model.net.w_rec, model.net.w_rec)
    held_still = fit_sequences(model, data, steps=3, key=jax.random.key(1), validate=held, recurrent=0.0).model.net
    assert np.array_equal(held_still.w_rec, model.net.w_rec)
    assert not np.allclose(held_still.w_in, model.net.w_in)


def test_matched_distance():
    x = np.array([[0, 0, 0], [1, 1, 1]])
    assert matched_distance(x, x[::-1], 3) == pytest.approx(0, abs=1e-3)
    assert matched_distance(x, np.array([[0, 0, 2], [1, 1, 2]]), 3) == pytest.approx(np.sqrt(2), abs=1e-5)


def test_residency_and_spread_where_they_are_known():
    """Two units that noise cannot switch: one decays to nothing, and the other's symbol then wins."""
    model = network(np.zeros((2, 1)), np.diag([0.5, 0.9]), np.eye(2), activation="identity")
    # 8 (1/2)^t < (9/10)^t from t = 4 on
    assert residency(model, jax.random.key(0), np.array([[8, 1], [1, 8]], np.float32), 3, 10).tolist() == [4, 10]
    assert at_rest(model, jax.random.key(0), 3, 200)[:, -1].max() < 1e-7
    noisy = network([[1.0], [2.0]], np.diag([0.5, 0.9]), np.eye(2), activation="identity")
    seen = run(noisy, jax.random.key(1), 30)
    spread = noise_spread(noisy, jax.random.key(2), seen, np.array([3, 9]), steps=2, rollouts=4000)
    exact = [5.0, 5.0 + 0.25 + 0.81 * 4]
    assert spread.trace.mean(axis=0) == pytest.approx(exact, rel=0.05)
    replayed = noise_spread(noisy, jax.random.key(2), seen, np.array([3]), mix=0.0, steps=2, rollouts=3)
    assert replayed.trace.max() < 1e-10
    with pytest.raises(InputError, match="within a run of 30"):
        noise_spread(noisy, jax.random.key(2), seen, np.array([29]))


def test_transitions_regions_and_pairs():
    seen = Run(np.zeros((7, 1)), np.zeros((7, 1)), np.array([0, 0, 1, 1, 1, 0, 0]))
    assert seen.transitions.tolist() == [2, 5]
    assert seen.dwells.tolist() == [3]
    assert seen.rate == pytest.approx(2 / 6)
    assert regions(np.array([1.0, 5.0, 20.0, 20.0]), np.array([0.9, 0.9, 0.9, 0.5])).tolist() == [0, 1, 2, 3]
    assert critical_pairs(np.array([[np.exp(0.5j), np.exp(-0.5j), 0.2, 3.0]])).tolist() == [1]


def test_a_planted_kick_unit_is_found_and_silenced():
    """Units 0 and 1 stand for symbols; unit 2, silent at rest, fires before the change to symbol 1 and drives unit 1."""
    rng = np.random.default_rng(0)
    steps, period = 400, 20
    h, symbols = rng.random((steps, 4)) * 0.1, np.zeros(steps, int)
    for start in range(period, steps, 2 * period):
        symbols[start : start + period] = 1
        h[start - 2 : start, 2] = 5.0
    w_rec = np.zeros((4, 4))
    w_rec[1, 2], w_rec[2, 2] = 1.0, -1.0
    w_in = np.array([[0.0], [0.0], [1.0], [0.0]])
    w_out = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.5, 0.0]])
    model = network(w_in, w_rec, w_out)
    noise = np.where(h[:, 2:3] > 1, 11.0, -0.2)  # what makes unit 2 cross its threshold
    labels = np.where(np.abs(np.arange(steps) % period - period // 2) < 6, 2, 0)
    found = kick_units(model, Run(noise, h, symbols), labels, count=1)
    assert found[0, 1].tolist() == [2]
    off = jax.tree.map(np.asarray, scaled(model, found[0, 1], 0.0))
    assert np.abs(off.net.w_rec[2]).max() == np.abs(off.net.w_in[2]).max() == 0
    assert np.allclose(off.net.w_rec[1], w_rec[1])


def test_gated_network_likelihood_is_that_of_its_samples():
    model = eqx.filter_jit(lambda key: SymbolGRU(4, 2, key=key))(jax.random.key(0))
    grid = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    p = np.exp(eqx.filter_jit(lambda model, grid: jax.vmap(model.log_likelihood)(grid))(model, grid))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    drawn = np.asarray(model.sample(jax.random.key(1), 20_000, 3)) @ [4, 2, 1]
    assert np.abs(np.bincount(drawn, minlength=8) / 20_000 - p).max() < 0.015


def test_what_is_refused():
    with pytest.raises(InputError, match="A vocabulary of 1"):
        NoiseRNN(4, 2, 1, key=jax.random.key(0))
    wild = network(np.ones((4, 1)), 5 * np.eye(4), np.ones((2, 4)))
    with pytest.raises(InputError, match="spectral radius 5"):
        run(wild, jax.random.key(0), 200)
