"""Astrocytes and the language model of them, against sums term by term, plain loops and closed forms."""

import json
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from broadsheet.dynamics import rollout, trainable
from broadsheet.errors import DataError, InputError
from broadsheet.networks.astrocyte_language import AstroSNN, attention_energy, energy_report, load, save, state_bytes
from broadsheet.networks.astrocytes import AMSU, Astrocyte, spiking_units


@pytest.fixture(scope="module")
def model():
    return AstroSNN(13, 8, 1, 2, tau=(8.0, 64.0), key=jax.random.key(0))


def test_a_unit_is_its_equations():
    """One AM-SU in a plain loop of NumPy, spike by spike."""
    unit = AMSU(4, 2, tau=(3.0, 30.0), alpha=0.7, key=jax.random.key(1))
    unit = eqx.tree_at(lambda unit: unit.mix, unit, jnp.asarray([0.5, -1.0, 0.0, 2.0]))
    x = np.random.default_rng(0).standard_normal((40, 4))
    w = {name: np.asarray(getattr(unit, name).weight, float) for name in ("keys", "queries", "drive")}
    w_v, w_o = np.asarray(unit.transmitter, float), np.asarray(unit.release, float)
    decay, mu = np.exp(-1 / np.array([3.0, 30.0])), 1 / (1 + np.exp(-np.asarray(unit.mix, float)))
    u = {name: np.zeros(4) for name in ("a", "b", "o")}
    s = {name: np.zeros(4) for name in ("a", "b", "o")}
    calcium, z, last, wanted = np.zeros((2, 2, 2)), np.zeros((2, 2)), np.zeros(4), []

    def fire(name, current):
        u[name] = 0.8 * u[name] + current - s[name]
        s[name] = (u[name] >= 1).astype(float)
        return s[name]

    for row in x:
        h = row / np.sqrt(np.mean(row**2))
        a = fire("a", 2 * w["keys"] @ (mu * h + (1 - mu) * last)).reshape(2, 2)
        b = fire("b", 2 * w["queries"] @ h).reshape(2, 2)
        v = (w_v @ h).reshape(2, 2)
        g = np.zeros((2, 2))
        for head in range(2):
            calcium[head] = decay[head] * calcium[head] + np.outer(a[head], v[head])
            z[head] = decay[head] * z[head] + a[head]
            g[head] = calcium[head].T @ b[head] / (1 + z[head] @ b[head])
        wanted.append(row + fire("o", w["drive"] @ h + 0.7 * w_o @ g.ravel()))
        last = h
    np.testing.assert_allclose(np.asarray(jax.jit(lambda unit, x: unit(x))(unit, jnp.asarray(x))), wanted, atol=1e-5)


def test_spikes_of_a_constant_current():
    spikes = np.asarray(rollout(spiking_units(1), jnp.full((40, 1), 0.3))[1])[:, 0]
    np.testing.assert_array_equal(np.flatnonzero(spikes) + 1, [5, 11, 17, 23, 29, 35])
    slow = spiking_units(3, beta=(math.exp(-1 / 8), math.exp(-1 / 512)))
    np.testing.assert_allclose(slow.tau, [8, 64, 512], rtol=1e-5)


def test_sequences_go_on_where_they_were_cut(model):
    tokens = np.random.default_rng(1).integers(0, 13, 24)
    run = eqx.filter_jit(lambda model, state, tokens: model.sequence(state, tokens)[:2])
    state, first = run(model, eqx.filter_jit(model.init)(jax.random.key(0)), tokens[:12])
    _, second = run(model, state, tokens[12:])
    np.testing.assert_allclose(np.concatenate([first, second]), _stepped(model, tokens), atol=1e-5)


@eqx.filter_jit
def _stepped(model, tokens):
    """Logits of a sequence, token by token."""
    return rollout(model, tokens)[1]


def test_generation_takes_the_likeliest_and_its_state_does_not_grow(model):
    written = model.generate(jax.random.key(3), [1, 2, 3], 6, temperature=0.0)
    text = [1, 2, 3]
    for _ in range(6):
        text.append(int(np.argmax(_stepped(model, jnp.asarray(text + [0] * (24 - len(text))))[len(text) - 1])))
    np.testing.assert_array_equal(written, text[3:])
    # last input, calcium of two heads of 4 x 4, its trace, three kinds of membranes and those of the MLP
    assert state_bytes(model) == 4 * (8 + 2 * 16 + 8 + 3 * 8 + 16)


def test_energy_is_counted_from_spikes(model):
    tokens = np.random.default_rng(2).integers(0, 13, 30)
    found = energy_report(model, tokens)
    trace = eqx.filter_jit(lambda model, tokens: model.sequence(model.init(jax.random.key(0)), tokens)[2])(
        model, jnp.asarray(tokens)
    )
    a, b, o, h = (np.asarray(x).sum() / 30 for x in (*trace.units[:3], trace.hidden))
    assert found.additions == pytest.approx((a + b) * 5 + o + h * 8)
    assert found.multiplications == 5 * 64 + 8 * 5 + 16 + 8 * 16 + 40 + 24 + 16 + 16 + 8 * 13
    assert found.picojoules == pytest.approx(4.6 * found.multiplications + 0.9 * found.additions)
    assert found.rate == pytest.approx((a + b + o + h) / 40)
    grown = attention_energy(13, 8, 1, 2, context=513) - attention_energy(13, 8, 1, 2, context=257)
    assert grown == pytest.approx(4.6 * 8 * 256)


def test_files_say_what_they_hold(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save(model, path)
    again = load(path)
    assert eqx.tree_equal(model, again)
    assert np.asarray(again.blocks.unit.astrocyte.tau[0]) == pytest.approx([8, 64], rel=1e-5)
    with safe_open(path, framework="numpy") as file:
        note = file.metadata()
    arrays = load_file(path)
    (key,) = note
    for change, said in (
        (lambda a, n: a.pop("head"), "head is missing"),
        (lambda a, n: a.update(extra=np.zeros(2, np.float32)), "1 arrays more"),
        (lambda a, n: a.update(head=np.full((13, 8), np.nan, np.float32)), "not finite"),
        (lambda a, n: n.update({key: json.dumps(json.loads(n[key]) | {"width": 10**6})}), "not of the sizes"),
        (lambda a, n: n.update({key: "[]"}), "describes no AstroSNN"),
        (lambda a, n: n.clear(), "describes no AstroSNN"),
    ):
        changed, meta = dict(arrays), dict(note)
        change(changed, meta)
        save_file(changed, path, metadata=meta)
        with pytest.raises(DataError, match=said):
            load(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AstroSNN(1, key=jax.random.key(0)), "vocabulary of 1"),
        (lambda: AstroSNN(5, 0, key=jax.random.key(0)), "width = 0"),
        (lambda: AMSU(6, 4, key=jax.random.key(0)), "does not fall into 4 heads"),
        (lambda: AMSU(8, 4, tau=(1.0, 2.0, 3.0), key=jax.random.key(0)), "3 time constants"),
        (lambda: AMSU(8, 4, tau=(0.0, 2.0), key=jax.random.key(0)), "above 0"),
        (lambda: Astrocyte(2, [float("nan")]), "above 0"),
        (lambda: spiking_units(2, beta=1.0), "between 0 and 1"),
        (lambda: spiking_units(2, theta=0.0), "threshold above 0"),
    ],
)
def test_what_makes_no_model_is_said(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_tokens_outside_the_vocabulary_are_refused(model):
    for tokens, said in (([], "whole numbers"), ([1, 13], "Token 13"), ([-1], "Token -1"), ([0.5], "whole numbers")):
        with pytest.raises(InputError, match=said):
            model.generate(jax.random.key(0), tokens, 3)
    with pytest.raises(InputError, match="temperature"):
        model.generate(jax.random.key(0), [1], 3, temperature=float("nan"))
    astrocyte, silence = Astrocyte(2, [8.0]), jnp.zeros((3, 1, 2))
    with pytest.raises(InputError, match="chunk = 0"):
        astrocyte.sequence(astrocyte.init(jax.random.key(0)), silence, silence, silence, chunk=0)


def test_time_constants_are_trained_where_asked():
    for learn in (False, True):
        chosen = trainable(AMSU(4, 2, learn_tau=learn, key=jax.random.key(0)))
        assert chosen.astrocyte.raw_tau is learn
        assert not chosen.alpha
        assert not chosen.synaptic.tau
