"""Networks as they come: numbers of the papers where a paper gives them, of the documentation otherwise."""

import itertools
import random

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import feedback, rollout
from broadsheet.errors import InputError
from broadsheet.networks import (
    Dense,
    PoissonBackground,
    Projection,
    Uniform,
    astrocyte_language,
    astrocytes,
    cognitive_tasks,
    continual,
    delayed_recall,
    graph_worlds,
    hippocampus,
    memory_baselines,
    nir_files,
    nir_nodes,
    pattern_memory,
    prediction,
    rates,
    reservoir,
    spiking_classifier,
    tabular_agents,
    theta_gamma,
    theta_gamma_agent,
    willshaw,
)
from broadsheet.networks.token_models import LeakyTraces, TokenLSTM, TokenTransformer, count, matched
from broadsheet.neurons import LIF
from broadsheet.numerics.sparse_codes import SparseCode


def test_constants_are_those_of_the_papers():
    """The memory's cells and times as in the authors' programs: nF, ms, mV, nA."""
    assert hippocampus.CELLS == {"A": (0.27, 3.0), "B": (0.14, 0.5)}
    assert (hippocampus.REST, hippocampus.THRESHOLD, hippocampus.STRONGEST) == (-60.0, -57.0, 6.0)
    assert (hippocampus.STORE_STEPS, hippocampus.FORGET_STEPS, hippocampus.SETTLED) == (3, 5, 10)
    assert (hippocampus.CUE_TO_CONTENT, hippocampus.CONTENT_TO_CUE, hippocampus.DELAYS) == (6, 6, 3)
    assert pytest.approx(np.exp(-1)) == 0.5**continual.HALF_LIFE
    assert spiking_classifier.SIGNS == {"threshold": 1.0, "tau": -1.0, "d": 1.0}  # what makes a neuron fire less
    assert spiking_classifier.GAIN == 0.5
    assert nir_files.MAX_BYTES == 2 * 1024**3


def test_static_synapses_are_those_of_the_memorys_figure():
    """Weight in nA, delay in ms of each (arXiv 2310.05868, fig. 2 and the authors' program), for 4 bits of content."""
    found = {(c.source, c.target, c.pattern): (c.weight, c.delay) for c in hippocampus.connections(4)}
    one, every, others = "one to one", "all to all", "all to others"
    assert found == {
        ("InCue", "CueCue", one): (6.0, 1), ("InCont", "ContCue", one): (6.0, 1), ("CueCue", "CueCont", one): (6.0, 2),
        ("CueCue", "CueCont", others): (-24.0, 3), ("CueCue", "Cond", every): (-6.0, 2), ("ContCue", "Cond", one): (9.0, 1),
        ("ContCue", "CondInt", every): (6.0, 1), ("CondInt", "Cond", every): (2.0, 1), ("Cond", "ContCont", one): (6.0, 1),
        ("CueCont", "CueCont", others): (-24.0, 2), ("CueCue", "MergeCue", one): (6.0, 3),
        ("CueCont", "MergeCue", one): (6.0, 1), ("ContCue", "MergeCont", one): (6.0, 3),
        ("ContCont", "MergeCont", one): (6.0, 1), ("MergeCue", "OutCue", one): (6.0, 1),
        ("MergeCont", "OutCont", one): (6.0, 1),
    }  # fmt: skip
    rule = hippocampus.fast_stdp()
    assert (float(rule.a_plus), float(rule.a_minus), rule.limits) == (6.0, 6.0, (0.0, 6.0))
    assert (rule.dendritic, rule.axonal, rule.dt) == (1, 0, 1.0)
    assert (rule.tau_pre.tolist(), rule.tau_post.tolist()) == ([[3.0]], [[3.0]])


def test_a_cue_comes_and_leaves_a_context():
    course = reservoir.cue_course(200, 1, 3)
    assert jnp.unique(course[:, [0, 2]]).tolist() == [0.0]
    np.testing.assert_allclose(course[:, 1], [0.0] * 50 + [1.0] * 100 + [0.3] * 50, rtol=1e-6)


def test_predictions_targets_and_attention_at_their_edges():
    times = jnp.arange(0.0, 100.0, 10.0)
    z = jnp.zeros((10, 2)).at[:, 1].set(0.1).at[5, 1].set(1.0)
    when, chance = prediction.prediction_object(z, times)
    assert float(when) == 50.0
    np.testing.assert_allclose(chance, [0.0, (0.1 + 1.0 + 0.1) / 3], rtol=1e-6)  # within 10 ms, both ends
    np.testing.assert_allclose(prediction.attention(jnp.asarray(0.0), times), [1.0] * 6 + [0.2] * 4, rtol=1e-6)
    bump = prediction.target(jnp.asarray(1), jnp.asarray(50.0), times, 2)
    np.testing.assert_allclose(bump[:, 1], np.exp(-0.5 * ((np.arange(10) * 10 - 50) / 20) ** 2), rtol=1e-5)
    assert not bump[:, 0].any()
    assert not prediction.target(jnp.asarray(prediction.OMITTED), jnp.asarray(50.0), times, 2).any()


AT_THE_EDGE = {
    "trials": (lambda n: prediction.cue_trials(jax.random.key(0), [prediction.Block(n, (0.5,), 1.0)]), 1, 0),
    "probabilities": (lambda p: prediction.cue_trials(jax.random.key(0), [prediction.Block(1, (0.5, p), 1.0)]), 0.5, 0.51),
    "a probability": (lambda p: prediction.cue_trials(jax.random.key(0), [prediction.Block(1, (p,), 1.0)]), 0.0, -0.01),
    "cues": (lambda n: hippocampus.HippocampalNetwork(n, 1), 1, 0),
    "bits": (lambda n: hippocampus.HippocampalNetwork(1, n), 1, 0),
    "a delay": (lambda n: Projection.from_pairs([0], [1], [1.0], size=1, out=(2,), delay=n), 1, 0),
    "a dense delay": (lambda n: Dense(jnp.ones((1, 1)), delay=n), 1, 0),
    "a uniform delay": (lambda n: Uniform(1.0, 1, 1, "all to all", delay=n), 1, 0),
}


@pytest.mark.parametrize("name", AT_THE_EDGE)
def test_bounds_are_where_they_are_said_to_be(name):
    make, good, bad = AT_THE_EDGE[name]
    make(good)
    with pytest.raises(InputError):
        make(bad)


SYSTEMS = {
    "feedback": lambda: feedback(LIF(2), Dense(jnp.ones((2, 2)))),
    "Dense": lambda: Dense(jnp.ones((2, 3))),
    "Uniform": lambda: Uniform(1.0, 2, 2, "all to others"),
    "Reservoir": lambda: reservoir.reservoir(jax.random.key(0), 5),
    "HippocampalNetwork": lambda: hippocampus.HippocampalNetwork(2, 3),
    "Node": lambda: nir_nodes.Node("Scale", {"scale": jnp.ones(())}, ()),
    "PoissonBackground": lambda: PoissonBackground(3, 1.0, 1.0),
    "SpikingMLP": lambda: continual.SpikingMLP((4, 3, 2), key=jax.random.key(0)),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_sizes_and_steps_are_no_leaves(name):
    """Else each would be traced: a size could shape no array."""
    assert all(isinstance(leaf, jax.Array | np.ndarray) or callable(leaf) for leaf in jax.tree.leaves(SYSTEMS[name]()))


def test_half_life_neurons_fire_at_their_threshold():
    """Half the potential is kept each step: 0.5 + 0.25 + 0.125 + ... stays below 1, and 1 alone fires."""
    cell = continual.halving(1)
    assert rollout(cell, jnp.full((8, 1), 0.4999))[1].sum() == 0
    assert rollout(cell, jnp.asarray([[1.0], [0.0]]))[1].tolist() == [[1.0], [0.0]]
    assert rollout(cell, jnp.asarray([[1.5], [0.75]]))[1].tolist() == [[1.0], [1.0]]  # a soft reset: 0.5 stays, 0.25 a step on


def test_the_kinds_of_nodes_are_those_of_the_library():
    import nir

    known = {name for name, each in vars(nir).items() if isinstance(each, type) and issubclass(each, nir.ir.node.NIRNode)}
    assert set(nir_nodes.KINDS) == known - {"NIRNode", "NIRGraph"}
    for name, kind in nir_nodes.KINDS.items():
        fields = set(getattr(nir, name).__dataclass_fields__)
        assert set(kind.arrays) <= fields, name


@pytest.mark.parametrize("activation", list(rates.ACTIVATIONS))
@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_rates_follow_their_equation_with_leak_bias_and_any_activation(activation, alpha):
    rng = np.random.default_rng(0)
    net = rates.RateRNN(2, 3, 2, activation=activation, alpha=alpha, bias=True, key=jax.random.key(0))
    b, c = rng.standard_normal(3), rng.standard_normal(2)
    net = eqx.tree_at(lambda n: (n.b, n.c), net, (jnp.asarray(b, jnp.float32), jnp.asarray(c, jnp.float32)))
    function = {
        "identity": lambda x: x, "relu": lambda x: np.maximum(x, 0), "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "softplus": lambda x: np.log1p(np.exp(x)), "tanh": np.tanh,
    }[activation]  # fmt: skip
    x, h, wanted = rng.standard_normal((6, 2)), np.zeros(3), []
    for row in x:
        h = (1 - alpha) * h + alpha * function(np.asarray(net.w_in) @ row + np.asarray(net.w_rec) @ h + b)
        wanted.append(h)
    given = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(net.states(given), wanted, rtol=1e-4, atol=1e-5)
    out = np.array(wanted) @ np.asarray(net.w_out).T + c
    np.testing.assert_allclose(net(given), out, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rollout(net, given)[1], out, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(net.states(given[1:], jnp.asarray(wanted[0], jnp.float32)), wanted[1:], rtol=1e-4, atol=1e-5)


def test_rate_networks_begin_within_the_root_of_their_sizes():
    net = rates.RateRNN(4, 100, 50, key=jax.random.key(0))
    for weights, bound in ((net.w_in, 0.5), (net.w_rec, 0.1), (net.w_out, 0.1)):
        low, high = float(weights.min()), float(weights.max())
        assert -bound <= low < -0.97 * bound
        assert 0.97 * bound < high <= bound
    assert (net.b, net.c, float(net.alpha), net.activation) == (None, None, 1.0, "relu")
    for wrong in ({"inputs": 0}, {"units": 0}, {"outputs": 0}, {"alpha": 0.0}, {"alpha": 1.01}):
        with pytest.raises(InputError, match=r"alpha in \(0, 1\]"):
            rates.RateRNN(**({"inputs": 1, "units": 1, "outputs": 1, "key": jax.random.key(0)} | wrong))


def test_a_transformer_turns_queries_and_keys_by_their_places():
    heads = 2
    model = TokenTransformer(7, 8, 2, heads, key=jax.random.key(0))
    tokens = np.array([3, 0, 6, 6, 1])
    x = np.asarray(model.embedding, float)[tokens]
    half = 8 // heads // 2
    for (first, second), (mixer, out), feed in zip(model.norms, model.mixers, model.feeds, strict=True):
        q, k, v = np.split(np.asarray(mixer(first(jnp.asarray(x, jnp.float32))), float), 3, axis=1)
        found = np.zeros((5, 8))
        for head in range(heads):
            part = slice(head * 2 * half, (head + 1) * 2 * half)
            turned = []
            for each in (q[:, part], k[:, part]):
                whole = each[:, :half] + 1j * each[:, half:]  # a turn of a plane is a product of complex numbers
                whole = whole * np.exp(1j * np.arange(5)[:, None] * 10_000.0 ** (-np.arange(half) / half))
                turned.append(np.concatenate([whole.real, whole.imag], axis=1))
            scores = np.where(np.tri(5), turned[0] @ turned[1].T / np.sqrt(2 * half), -np.inf)
            shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            found[:, part] = shares @ v[:, part]
        x = x + np.asarray(out(jnp.asarray(found, jnp.float32)))
        x = x + np.asarray(feed(second(jnp.asarray(x, jnp.float32))))
    np.testing.assert_allclose(
        model.logits(jnp.asarray(tokens)), model.head(model.norm(jnp.asarray(x, jnp.float32))), atol=1e-4
    )


def test_gates_remember_up_to_the_longest_time():
    model = TokenLSTM(5, 400, 2, longest=50, key=jax.random.key(0))
    assert len(model.cells) == 2
    for cell in model.cells:
        closed, kept, rest = np.split(np.asarray(cell.bias), [400, 800])
        np.testing.assert_array_equal(closed, -kept)
        assert not rest.any()
        times = np.exp(kept)
        assert 1 <= times.min() < 2
        assert 47 < times.max() <= 49
        for weights in (cell.weight_hh, cell.weight_ih):
            assert 0.0495 < float(jnp.abs(weights).max()) <= 0.05
    assert TokenLSTM(5, 4, key=jax.random.key(0)).cells[0].bias.shape == (16,)
    traces = LeakyTraces(5, 3, (2.0, 20.0), key=jax.random.key(0))
    state, logits = traces.step(traces.init(jax.random.key(0)) + 1.0, jnp.asarray(4))
    x = np.asarray(traces.embedding)[4]
    kept = np.exp(-1 / np.array([[2.0], [20.0]])) + x
    np.testing.assert_allclose(state, kept, rtol=1e-5)
    np.testing.assert_allclose(logits, traces.head(jnp.concatenate([x, kept.ravel().astype(np.float32)])), rtol=1e-4)


def test_the_nearer_of_two_widths_is_taken():
    sizes = {width: count(TokenLSTM(5, width, key=jax.random.key(0))) for width in (4, 5, 6)}
    for wanted, width in (
        (sizes[4] - 50, 4),
        (sizes[4], 4),
        (sizes[5] - 1, 5),
        ((sizes[5] + sizes[6]) // 2 + 9, 6),
        (10**6, 6),
    ):
        made = matched(lambda width: TokenLSTM(5, width, key=jax.random.key(0)), wanted, (4, 5, 6))
        assert made.embedding.shape[1] == width


def test_tasks_at_their_smallest_and_what_they_cost():
    key = jax.random.key(0)
    assert delayed_recall.delayed_recall(key, 1, 1)[0].shape == (1, 3)
    assert delayed_recall.selective_copy(key, 1, 2)[0].shape == (1, 3)
    tokens, answers = delayed_recall.recall_by_key(key, 1, 4, 0)
    assert tokens.shape == (1, 9)
    assert int(answers[0]) == int(tokens[0, 1 + 2 * tokens[0, 0:8:2].tolist().index(int(tokens[0, -1]))])
    for call in (lambda: delayed_recall.selective_copy(key, 0, 2), lambda: delayed_recall.recall_by_key(key, 1, 0, 0),
                 lambda: delayed_recall.recall_by_key(key, 0, 1, 0), lambda: delayed_recall.recall_by_key(key, 1, 1, -1)):  # fmt: skip
        with pytest.raises(InputError, match="is wanted"):
            call()
    assert (delayed_recall.SYMBOLS, delayed_recall.DISTRACTORS, delayed_recall.VOCABULARY) == (8, 4, 13)
    many, _ = delayed_recall.selective_copy(key, 4000, 4)
    places = np.argmax(np.asarray(many) == 8, axis=1)
    assert sorted(set(places.tolist())) == [0, 1, 2]

    class Table(eqx.Module):
        def logits(self, tokens):
            return jax.nn.one_hot(tokens, 13) * jnp.log(3.0)

    cost = delayed_recall.Answers()(Table(), (jnp.asarray([[1, 2], [5, 4]]), jnp.asarray([2, 0])))
    assert float(cost) == pytest.approx(np.log(15) - np.log(3) / 2, rel=1e-5)
    cost = astrocyte_language.NextToken()(Table(), jnp.asarray([[1, 1, 2]]))
    assert float(cost) == pytest.approx(np.log(15) - np.log(3) / 2, rel=1e-5)


def test_cognitive_tasks_have_the_channels_that_are_listed():
    for name, task in cognitive_tasks.TASKS.items():
        x, labels = task(jax.random.key(1), 4000)
        inputs, classes = cognitive_tasks.CHANNELS[name]
        assert x.shape == (4000, cognitive_tasks.STEPS, inputs)
        assert set(np.unique(labels)) == set(range(classes))
    x, _ = cognitive_tasks.perceptual_decision(jax.random.key(1), 4000)
    strength = np.abs(np.asarray(x[:, :7, 1] - x[:, :7, 2]).mean(axis=1))  # of noise of 0.053
    assert (strength > 0.4).mean() == pytest.approx(0.2, abs=0.03)
    assert (strength > 0.19).mean() == pytest.approx(0.38, abs=0.04)
    assert np.asarray(x[:, :7, 1:]).mean() == pytest.approx(0.5, abs=0.002)
    x, _ = cognitive_tasks.context_decision(jax.random.key(1), 4000)
    assert not np.asarray(x[:, 2:, 1:5]).any()
    assert np.asarray(x[:, :2, 1:5]).mean() == pytest.approx(0.5, abs=0.004)
    strength = np.abs(np.asarray(x[:, :2, 1] - x[:, :2, 2]).mean(axis=1))  # of noise of 0.1
    assert (strength > 0.3).mean() == pytest.approx(0.36, abs=0.04)


def test_reservoirs_as_they_come():
    net = reservoir.reservoir(jax.random.key(0), 400)
    assert (net.weights.shape, net.cue.shape, float(net.tau_syn), float(net.noise)) == (
        (400, 400),
        (400, 1),
        5.0,
        np.float32(0.2),
    )
    bias, cue = np.asarray(net.bias), np.asarray(net.cue)[:, 0]
    assert 3 <= bias.min() < 3.05
    assert 5.95 < bias.max() <= 6
    assert (cue > 0).mean() == pytest.approx(0.5, abs=0.08)
    assert 11.8 < cue.max() <= 12
    weights = np.asarray(net.weights)
    assert (weights != 0).mean() == pytest.approx(0.1, abs=0.005)
    assert weights[:, :320].max() == pytest.approx(0.5 / np.sqrt(40), rel=0.01)
    assert weights[:, 320:].min() == pytest.approx(-2 * 0.5 / np.sqrt(40), rel=0.01)
    same = reservoir.heterogeneous_cells(jax.random.key(0), 10, alike=True)
    np.testing.assert_allclose(same.c, -65)
    np.testing.assert_allclose([same.a, same.b, same.d], [[0.02] * 10, [0.2] * 8 + [0.25] * 2, [8] * 8 + [2] * 2])
    assert (same.substeps, same.cap) == (4, True)
    for wrong in ({"weights": np.zeros((3, 2))}, {"cue": np.zeros(3)}, {"cue": np.zeros((2, 1))}, {"bias": np.zeros(2)}):
        parts = {"weights": np.zeros((3, 3)), "cue": np.zeros((3, 1)), "bias": np.zeros(3)} | wrong
        with pytest.raises(InputError, match="are wanted"):
            reservoir.Reservoir(reservoir.heterogeneous_cells(jax.random.key(0), 3), *parts.values())


def test_chunks_of_an_astrocyte_are_its_steps():
    rng = np.random.default_rng(0)
    a, b = (rng.random((20, 2, 3)) < 0.4 for _ in range(2))
    v = rng.standard_normal((20, 2, 3))
    for normalise, chunks in ((True, (6, 64)), (False, (1,))):
        cell = astrocytes.Astrocyte(3, [2.0, 15.0], normalise=normalise)
        decay, bound, free, wanted = np.exp(-1 / np.array([2.0, 15.0])), np.zeros((2, 3, 3)), np.zeros((2, 3)), []
        for x, y, z in zip(a, b, v, strict=True):
            bound = decay[:, None, None] * bound + x[:, :, None] * z[:, None]
            free = decay[:, None] * free + x
            wanted.append(np.einsum("hde,hd->he", bound, y) / (1 + normalise * (free * y).sum(axis=1, keepdims=True)))
        given = [jnp.asarray(each, jnp.float32) for each in (a, b, v)]
        for chunk in chunks:
            state, found = cell.sequence(cell.init(jax.random.key(0)), *given, chunk=chunk)
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(state.bound, bound, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(state.free, free, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="one or two numbers"):
        astrocytes.spiking_units(2, beta=(0.5, 0.6, 0.7))
    hard = astrocytes.spiking_units(2, soft=False)
    assert (float(hard.reset), hard.drop) == (0.0, None)
    drawn = astrocytes.weights(np.random.default_rng(0), 25, 400)
    assert drawn.shape == (400, 25)
    assert 0.199 < float(jnp.abs(drawn).max()) <= 0.2


def test_energy_of_two_layers_without_astrocytes():
    model = astrocyte_language.AstroSNN(13, 8, 2, 2, alpha=0.0, key=jax.random.key(0))
    tokens = np.random.default_rng(2).integers(0, 13, 30)
    found = astrocyte_language.energy_report(model, tokens)
    trace = eqx.filter_jit(lambda model, tokens: model.sequence(model.init(jax.random.key(0)), tokens)[2])(
        model, jnp.asarray(tokens)
    )
    a, _, o, h = (np.asarray(each).sum() / 30 for each in (*trace.units[:3], trace.hidden))
    layer = 2 * 64 + 8 * 16 + 5 * 8 + 2 * 8 + 16
    assert found.multiplications == 2 * layer + 16 + 8 * 13
    assert found.additions == pytest.approx(a * 8 + o + h * 8)
    assert found.rate == pytest.approx((a + o + h) / (2 * (2 * 8 + 16)))
    linear = astrocyte_language.attention_energy(13, 8, 2, 2, None)
    assert linear == pytest.approx(4.6 * (2 * (8 * 64 + 32 + 3 * 8 * 4 + 16) + 16 + 8 * 13))
    assert astrocyte_language.attention_energy(13, 8, 2, 2, 9) == pytest.approx(4.6 * (2 * (8 * 64 + 32 + 80) + 16 + 8 * 13))


def test_classical_memories_by_hand():
    patterns = np.array([[1, 1, 1, 1], [1, -1, 1, -1]])
    cue = np.array([[1.0, 1, 1, -1]])
    shares = np.exp([0.5 * 2, 0.5 * 2])
    state = shares / shares.sum() @ patterns
    np.testing.assert_array_equal(
        memory_baselines.softmax_recall(patterns, cue, beta=0.5, steps=1), [np.where(state >= 0, 1, -1)]
    )
    apart = np.array([[1.0, 1, 1, 1], [-1, -1, 1, 1]])
    biased = np.array([[0.2, 0.1, 0.0, 0.0]])
    scores = biased
    for _ in range(3):
        weights = np.exp(0.7 * scores @ apart.T)
        scores = weights / weights.sum() @ apart
    found = memory_baselines.softmax_recall(apart, biased, beta=0.7, steps=3)
    np.testing.assert_array_equal(found, np.where(scores >= 0, 1.0, -1.0))
    np.testing.assert_array_equal(memory_baselines.nearest(apart, np.array([[1.0, 0.5, 0, 0], [-1, 0, 0, 0]])), apart)
    assert memory_baselines.overlaps(apart[:1], np.array([[1, -1, 1, -1]])).tolist() == [0.0]
    bank = memory_baselines.PairwiseBank(
        np.sign(np.random.default_rng(0).standard_normal((6, 8))), 3, groups=2, omega=0.5, key=3
    )
    assert (bank.networks, bank.groups, bank.sweeps, bank.couplings.shape) == (2, 2, 20, (2, 8, 8))
    rng = np.random.default_rng(3)
    stored = np.sign(np.random.default_rng(0).standard_normal((6, 8)))
    for rows, weights in zip((stored[:3], stored[3:]), bank.couplings, strict=True):
        noise = np.triu(rng.standard_normal((8, 8)) * 0.5 * np.sqrt(3 / 1), 1)
        wanted = rows.T @ rows + noise + noise.T
        np.fill_diagonal(wanted, 0)
        np.testing.assert_allclose(weights, wanted / 8)
    still = memory_baselines.PairwiseBank(np.ones((1, 4)), 3, sweeps=0)
    np.testing.assert_array_equal(still.recall(cue), cue)


def test_patterns_recalled_in_a_table_by_hand():
    pair = np.asarray([[1, 1], [1, -1]], np.int8)
    patterns = np.kron(np.kron(pair, pair), pair)[[1, 2, 4]]
    rows = pattern_memory.recall_table(patterns, 4, flipped=(0.0, 1.0), cues=2, sweeps=3)
    assert [row.memory for row in rows[:4]] == [
        "dense, order 4",
        "pairwise, same neurons",
        "pairwise, same size",
        "nearest stored",
    ]
    assert [row.flipped for row in rows] == [0.0] * 4 + [1.0] * 4
    assert [(row.overlap, row.exact) for row in rows[:4]] == [(1.0, 1.0)] * 4
    assert [row.overlap for row in rows[4:7]] == [-1.0] * 3  # the opposite of a pattern is stored with it
    assert rows[4].exact == 0
    assert [row.memory for row in pattern_memory.recall_table(patterns, 2, flipped=(0.0,), cues=1)] == [
        "dense, order 2", "pairwise, same neurons", "nearest stored",
    ]  # fmt: skip
    found = pattern_memory.likeness(np.array([[1, 1, 1, 1], [1, 1, 1, -1], [-1, -1, -1, -1]], np.int8))
    assert found == pytest.approx({"mean": 2 / 12, "largest_overlap": 1.0})
    assert pattern_memory.likeness(np.array([[1, 1, 1, 1], [1, 1, -1, -1]]), most=1)["largest_overlap"] == 0


def test_worlds_step_by_step():
    """A ring of six places in two rooms; its goal is place 0, after three episodes place 3."""
    layout = graph_worlds.ring_of_paths(2, 3)
    items, contexts = SparseCode(60, 4), SparseCode(20, 2)
    world = graph_worlds.GraphWorld(
        layout, items, contexts, [0, 3], per_goal=3, episodes=5, limit=3, wrong=0, key=jax.random.key(0)
    )
    key, step = jax.random.key(1), eqx.filter_jit(world.step)
    state = world.init(key)._replace(place=jnp.asarray(2), optimal=jnp.asarray(2))
    same, seen = step(state, jnp.asarray(graph_worlds.WAIT), key)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), same, state))
    near, _ = step(state, jnp.asarray(0), key)
    assert (int(near.place), int(near.steps), int(near.seen.moves), bool(near.seen.reward)) == (1, 1, 1, False)
    np.testing.assert_array_equal(near.seen.item, world.item_codes[1])
    np.testing.assert_array_equal(near.seen.context, world.context_codes[0])
    home, shown = step(near, jnp.asarray(0), key)
    assert (int(home.place), int(home.steps), bool(home.seen.reward), int(home.seen.episode)) == (0, 2, True, 0)
    np.testing.assert_array_equal(shown.item, near.seen.item)  # what was seen before the move
    again, _ = step(home, jnp.asarray(graph_worlds.RESTART), key)
    assert (int(again.steps), int(again.seen.episode), int(again.seen.moves), bool(again.seen.reward)) == (0, 1, 3, False)
    assert int(again.place) != 0
    assert int(again.optimal) == layout.distances(0)[int(again.place)]
    assert (again.taken.tolist(), again.shortest.tolist()) == ([2, 0, 0, 0, 0], [2, 0, 0, 0, 0])
    lost = again._replace(place=jnp.asarray(3), steps=jnp.asarray(2))
    over, _ = step(lost, jnp.asarray(1), key)
    assert (int(over.seen.episode), int(over.steps), int(over.taken[1])) == (2, 0, 3)
    last = lost._replace(seen=lost.seen._replace(episode=jnp.asarray(2)), steps=jnp.asarray(0))
    moved, _ = step(last, jnp.asarray(graph_worlds.RESTART), key)
    assert int(moved.optimal) == layout.distances(3)[int(moved.place)]
    assert int(moved.place) != 3
    found = step(moved._replace(place=jnp.asarray(4)), jnp.asarray(0), key)[0]
    assert bool(found.seen.reward)
    starts = jax.vmap(lambda k: world.init(k).place)(jax.random.split(key, 60))
    assert set(starts.tolist()) == {1, 2, 3, 4, 5}
    noisy = graph_worlds.GraphWorld(layout, items, contexts, 0, key=jax.random.key(0))
    assert (noisy.per_goal, noisy.episodes, noisy.limit, noisy.wrong) == (20, 100, 1000, 1)
    seen = noisy.init(key)
    assert len(np.intersect1d(seen.seen.item, noisy.item_codes[int(seen.place)])) == 3
    with pytest.raises(InputError, match="run it with a key"):
        world.step(state, jnp.asarray(0))
    graph_worlds.ring_of_paths(1, 3)
    graph_worlds.ring_of_grids(1, 1, 3)
    for call in (
        lambda: graph_worlds.ring_of_grids(1, 1, 2),
        lambda: graph_worlds.ring_of_grids(0, 3, 3),
        lambda: graph_worlds.ring_of_grids(1, 0, 3),
    ):
        with pytest.raises(InputError, match="three places"):
            call()
    drawn = graph_worlds.random_goals(layout, 6, 0)
    assert sorted(drawn) == list(range(6))
    assert layout.rooms.tolist() == [0, 0, 0, 1, 1, 1]
    doors = graph_worlds.ring_of_grids(3, 3, 2).neighbours
    assert doors[2 * 1 + 1].tolist() == [2, 6 + 2, 1, 5]  # the door of the first room leads to the second
    assert doors[2].tolist() == [12 + 3, 3, 0, 4]  # and back round to the third
    assert doors[0].tolist() == [0, 1, 0, 2]  # walls


def test_tables_act_and_learn_by_hand():
    layout = graph_worlds.ring_of_paths(1, 4)
    agent = tabular_agents.TabularAgent(layout, random.Random(0), rate=0.5, discount=0.9, explore=0.0, drop=True, curiosity=0.2)
    assert agent.q == [[0.2, 0.2]] * 4
    agent.learn(1, 0, 0, True)
    assert (agent.goal, agent.q[1][0]) == (0, pytest.approx(0.2 + 0.5 * 0.8))
    agent.learn(2, 0, 1, False)
    assert agent.q[2][0] == pytest.approx(0.2 + 0.5 * (0.9 * 0.6 - 0.2))
    assert [agent.act(2) for _ in range(5)] == [0] * 5
    agent.learn(3, 1, 0, False)  # the goal is gone: all is forgotten
    assert agent.goal == -1
    assert agent.q[1][0] == 0.2
    assert agent.q[3][1] == pytest.approx(0.2 + 0.5 * (0.9 * 0.2 - 0.2))
    agent.learn(1, 0, 0, True)
    agent.learn(0, 1, 1, True)  # another goal
    assert agent.goal == 1
    assert agent.model == {(1, 0): 0, (2, 0): 1, (3, 1): 0, (0, 1): 1}
    kept = tabular_agents.TabularAgent(layout, random.Random(0), persist=1.0, explore=0.0)
    kept.heading = 1
    assert [kept.act(2) for _ in range(20)] == [1] * 20  # of equals the way it goes
    anew = tabular_agents.TabularAgent(layout, random.Random(0), persist=0.0, explore=0.0)
    assert {anew.act(2) for _ in range(40)} == {0, 1}
    curious = tabular_agents.TabularAgent(layout, random.Random(0), explore=1.0)
    curious.q[2] = [1.0, 0.0]
    assert {curious.act(2) for _ in range(40)} == {0, 1}
    assert (curious.rate, curious.discount, curious.persist, curious.backups, curious.curiosity) == (1.0, 0.95, 1.0, 0, 0.0)
    for good, bad in (
        ({"rate": 1.0}, {"rate": 0.0}),
        ({"discount": 0.99}, {"discount": 1.0}),
        ({"backups": 0}, {"backups": -1}),
        ({}, {"discount": 0.0}),
    ):
        tabular_agents.TabularAgent(layout, random.Random(0), **good)
        with pytest.raises(InputError):
            tabular_agents.TabularAgent(layout, random.Random(0), **bad)
    walked = tabular_agents.TabularAgent(layout, random.Random(0), persist=1.0, explore=0.0)
    walked.heading = 1
    for steps, shortest in itertools.islice(walked.episodes([0], 5, limit=2), 30):
        assert steps in (shortest, 2) or steps == 3 - shortest
        assert steps <= 2
    backed = tabular_agents.TabularAgent(layout, random.Random(0), backups=50)
    backed.goal, backed.model = 0, {(1, 0): 0, (2, 0): 1}
    backed.end_episode()
    assert (backed.q[1][0], backed.q[2][0]) == (1.0, pytest.approx(0.95))


def test_options_are_chosen_by_what_they_promise():
    promised = jnp.asarray([0.2, 0.7, 0.7])
    keys = jax.random.split(jax.random.key(0), 400)

    def share(heading, explore, persist):
        pick = jax.vmap(lambda key: theta_gamma_agent.choose(promised, heading, explore, persist, key))
        actions, headings = pick(keys)
        return [np.bincount(np.asarray(each), minlength=3) / 400 for each in (actions, headings)]

    for heading in (1, 2):
        assert share(heading, 0.0, 1.0)[0][heading] == 1
    assert share(0, 0.0, 1.0)[0].tolist() == pytest.approx([0, 0.5, 0.5], abs=0.1)  # no way to go on that is worse
    assert share(1, 0.0, 0.0)[0].tolist() == pytest.approx([0, 0.5, 0.5], abs=0.1)
    actions, headings = share(1, 1.0, 1.0)
    assert actions.tolist() == pytest.approx([1 / 3] * 3, abs=0.1)
    assert headings.tolist() == [0, 1, 0]


def test_keys_of_items_are_products_of_drives():
    items, contexts, keys = SparseCode(30, 4), SparseCode(20, 3), SparseCode(50, 5)
    memory = theta_gamma.ThetaGammaMemory(items, contexts, keys, links=6, key=jax.random.key(0))
    assert np.asarray(memory.item_links).sum(axis=0).tolist() == [6] * 50
    assert np.asarray(memory.context_links).sum(axis=0).tolist() == [6] * 50
    item, label = np.array([0, 3, 7, 11]), np.array([1, 2, 19])
    drive = (np.asarray(memory.item_links)[item].sum(axis=0) + 0.5) * (
        np.asarray(memory.context_links)[label].sum(axis=0) + 0.5
    )
    best = np.argsort(-(drive + np.asarray(memory.order)), kind="stable")[:5]
    assert sorted(memory.key_of(jnp.asarray(item), jnp.asarray(label)).tolist()) == sorted(best.tolist())
    alone = np.asarray(memory.item_links)[item].sum(axis=0) + 0.5 + np.asarray(memory.order)
    assert sorted(memory.key_of(jnp.asarray(item), None).tolist()) == sorted(np.argsort(-alone)[:5].tolist())
    assert 0 <= float(memory.order.min()) <= float(memory.order.max()) < 0.2
    theta_gamma.ThetaGammaMemory(items, contexts, threshold=1.0)
    theta_gamma.ThetaGammaMemory(items, contexts, keys, links=19)
    for options in ({"threshold": 1.01}, {"keys": keys, "links": 20}, {"keys": keys, "links": 0}):
        with pytest.raises(InputError, match="wanted"):
            theta_gamma.ThetaGammaMemory(items, contexts, **options)
    bare = theta_gamma.ThetaGammaMemory(items, contexts)
    assert bare.key_of(jnp.asarray(item), None).tolist() == item.tolist()
    rows = items.draw(jax.random.key(1), 3)
    known = bare.encode(rows)
    found, accepted = known.read(rows[0], steps=3)
    assert np.sort(found[:2]).tolist() == np.sort(rows[1:]).tolist()
    assert accepted.tolist() == [True, True, False]
    back, accepted = known.read(rows[2], direction="reverse", steps=2)
    assert np.sort(back).tolist() == np.sort(rows[:2][::-1]).tolist()
    for cut, is_known in ((1, True), (2, False)):  # of four units three say enough: 3 x 3 + 3 x 1.5 … at least 0.7 x 4
        broken = jnp.concatenate([rows[0][cut:], jnp.asarray([u for u in range(30) if u not in np.asarray(rows)][:cut])])
        assert bool(known.recognise(known.synapses, broken)[1]) is is_known or cut == 2


def test_a_dense_pair_is_stored_where_it_is_asked_for():
    x, y = jnp.arange(40), jnp.arange(10, 45)
    memory = willshaw.Willshaw(50, 50)
    wanted = np.zeros((50, 50), bool)
    wanted[:40, 10:45] = True
    np.testing.assert_array_equal(memory.store(x, y).weights, wanted)
    assert not np.asarray(memory.store(x, y, on=False).weights).any()
    assert not np.asarray(memory.store(x[:2], y[:2], on=False).weights).any()
    masked = willshaw.Willshaw(50, 50, 0.5, auto=True, key=jax.random.key(0))
    square = np.zeros((50, 50), bool)
    square[:40, :40] = True
    found = masked.store(x)
    np.testing.assert_array_equal(found.weights, square & np.asarray(masked.mask) & ~np.eye(50, dtype=bool))
    possible = np.asarray(masked.mask).sum() - np.trace(np.asarray(masked.mask))
    assert float(found.density) == pytest.approx(np.asarray(found.weights).sum() / possible)
    willshaw.Willshaw(1, 1)
    for call in (lambda: willshaw.Willshaw(1, 0), lambda: willshaw.Willshaw(2, 3, auto=True), lambda: willshaw.Willshaw(2, 2, 0.0),
                 lambda: willshaw.Willshaw(2, 2, 1.1, key=jax.random.key(0)), lambda: willshaw.Willshaw(5, 5).store(jnp.asarray([-1]), jnp.asarray([0]))):  # fmt: skip
        with pytest.raises(InputError):
            call()
    with pytest.raises(InputError, match="the memory's outputs"):
        willshaw.Willshaw(5, 9).store(jnp.asarray([8]), jnp.asarray([5]))
