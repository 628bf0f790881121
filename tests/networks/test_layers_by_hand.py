"""Layers, projections and read-outs at their smallest and at their edges, against sums by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import poisson

from broadsheet.dynamics import rollout
from broadsheet.errors import CompositionError, InputError
from broadsheet.networks import SNN, Dense, PlasticLayer, PoissonBackground, Projection, Recurrent, SNNClassifier, SpikingLayer
from broadsheet.networks.continual import SpikingMLP
from broadsheet.networks.layers import cross_entropy, fire, fire_online, linear
from broadsheet.networks.spikes import events, for_each_spike, pack, simulate
from broadsheet.networks.spiking_classifier import _group, _plastic_epoch, cells, network
from broadsheet.neurons import LIF, QuantalRelease
from broadsheet.plasticity import STDP, Tempotron

KEY = jax.random.key(0)


def perfect(size):
    """Neurons that add up their input and fire above 1."""
    return LIF(size, tau=1e9, rest=0.0, threshold=1.0, reset=0.0, dt=1.0)


@pytest.mark.parametrize("neurons", [1, 31, 32, 33, 64, 65])
def test_each_spike_is_visited_once_in_order(neurons):
    for chosen in ([], [0], [neurons - 1], range(neurons), range(0, neurons, 3)):
        spikes = jnp.zeros(neurons).at[jnp.asarray(list(chosen), int)].set(1.0)
        words = pack(spikes)
        assert words.shape == (-(-neurons // 32),)
        seen, count = for_each_spike(words, lambda n, carry: (carry[0].at[carry[1]].set(n), carry[1] + 1),
                                     (jnp.full(neurons, -1), 0))  # fmt: skip
        assert (int(count), seen[: len(chosen)].tolist()) == (len(chosen), list(chosen))
        assert events(words[None])[1].tolist() == list(chosen)


def test_runs_are_recorded_as_events_from_any_state():
    cell = perfect(2)
    state, spikes = simulate(cell, jnp.asarray([[0.0, 2.0], [2.0, 0.0], [2.0, 2.0]]))
    assert (spikes.steps.tolist(), spikes.neurons.tolist()) == ([0, 1, 2, 2], [1, 0, 0, 1])
    _, later = simulate(cell, jnp.asarray([[0.6, 0.0]]), state=cell.at_rest()._replace(v=jnp.asarray([0.5, 0.5])))
    assert later.neurons.tolist() == [0]
    assert state.v.tolist() == [0.0, 0.0]


def test_projections_without_synapses_and_into_planes():
    empty = Projection.from_pairs([], [], [], size=3, out=(2, 2))
    assert empty.targets.shape == (3, 1)
    assert rollout(empty, jnp.ones((2, 3)))[1].tolist() == np.zeros((2, 2, 2)).tolist()
    plane = Projection.from_pairs([0, 2, 2], [3, 0, 3], [1.0, 2.0, 4.0], size=3, out=(2, 2))
    assert rollout(plane, jnp.asarray([[1.0, 1, 1], [0, 0, 0]]))[1][1].tolist() == [[2, 0], [0, 5]]
    assert plane.targets.shape == (3, 2)
    Projection([[3]], [[1.0]], (3,))  # the padding
    for wrong in (lambda: Projection([[-1]], [[1.0]], (3,)), lambda: Projection.from_pairs([-1], [0], 1.0, size=2, out=(3,)),
                  lambda: Projection.from_pairs([2], [0], 1.0, size=2, out=(3,))):  # fmt: skip
        with pytest.raises(InputError, match="must lie between"):
            wrong()
    Projection.from_pairs([1], [0], 1.0, size=2, out=(3,))


def test_background_counts_are_quantiles_of_poissons_law():
    made = PoissonBackground(4000, 2.5, 0.5)
    np.testing.assert_allclose(made.cumulative, poisson.cdf(np.arange(len(made.cumulative)), 2.5), rtol=1e-5)
    counts = made.step(None, jnp.zeros(4000), KEY)[1] / 0.5
    assert float(counts.mean()) == pytest.approx(2.5, rel=0.05)
    assert float(counts.var()) == pytest.approx(2.5, rel=0.1)
    assert float(counts.min()) == 0


def test_a_spiking_layer_weighs_then_integrates_and_its_synapses_may_fail():
    layer = SpikingLayer(linear(jnp.asarray([[0.6, 0.6], [0.6, 0.0]]), jnp.asarray([0.0, 0.1])), perfect(2))
    spikes = rollout(layer, jnp.asarray([[1.0, 1], [1, 0], [1, 0]]))[1]
    assert spikes.tolist() == [[1, 0], [0, 1], [1, 0]]
    shut = SpikingLayer(layer.weights, perfect(2), QuantalRelease(2, success=0.0))
    assert rollout(shut, jnp.ones((5, 2)), key=KEY)[1].sum() == 0
    sure = SpikingLayer(layer.weights, perfect(2), QuantalRelease(2, success=1.0, spread=0.0))
    np.testing.assert_array_equal(rollout(sure, jnp.asarray([[1.0, 1], [1, 0], [1, 0]]), key=KEY)[1], spikes)


def test_a_plastic_layer_drives_with_the_weights_before_the_step():
    rule = STDP([[0.5], [0.25]], a_plus=0.1, a_minus=0.0)
    layer = PlasticLayer(rule, perfect(1), jnp.asarray([0.05]), jnp.asarray(2.0))
    state, spikes = rollout(layer, jnp.asarray([[1.0, 0], [0, 1]]))
    assert spikes.tolist() == [[1.0], [0.0]]  # 2 x 0.5 + 0.05, then 2 x 0.25 + 0.05
    np.testing.assert_allclose(state.neurons.v, [0.55], rtol=1e-6)
    after, _ = rollout(layer, jnp.asarray([[1.0, 0], [0, 1], [0, 1]]))
    learned = layer.consolidate(after).rule.weights
    np.testing.assert_array_equal(learned, after.rule.weights)
    assert learned[0, 0] > 0.5


def test_read_outs_see_counts_over_the_scale():
    hidden = SpikingLayer(linear(jnp.asarray([[2.0]]), jnp.zeros(1)), perfect(1))
    made = SNN(hidden, linear(jnp.asarray([[3.0], [-1.0]]), jnp.asarray([0.5, 0.0])), 4.0)
    X = jnp.asarray([[[1.0], [0.0], [1.0]], [[0.0], [0.0], [1.0]]])
    assert made.spikes(X, KEY)[..., 0].tolist() == [[1, 0, 1], [0, 0, 1]]
    np.testing.assert_allclose(made.logits(X, KEY), [[3 * 2 / 4 + 0.5, -2 / 4], [3 / 4 + 0.5, -1 / 4]], rtol=1e-6)


def test_layers_fire_alike_whether_or_not_derivatives_go_through_time():
    cell = LIF(3, tau=5.0, rest=0.0, threshold=1.0, reset=None, dt=1.0)
    drive = jax.random.uniform(KEY, (30, 4, 3))
    np.testing.assert_array_equal(fire(cell, drive), fire_online(cell, drive))
    assert fire(cell, drive).shape == (30, 4, 3)
    early = [jax.grad(lambda d, run=run: run(cell, d)[-1].sum())(drive)[0] for run in (fire, fire_online)]
    assert float(jnp.abs(early[0]).sum()) > 0
    assert float(jnp.abs(early[1]).sum()) == 0


def test_cross_entropy_among_the_classes_that_are_allowed():
    logits, y = jnp.asarray([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]]), jnp.asarray([1, 0])
    every = -np.log(softmax(np.asarray(logits), axis=1)[[0, 1], [1, 0]]).mean()
    assert float(cross_entropy(logits, y)) == pytest.approx(every, rel=1e-5)
    two = -np.log(softmax(np.asarray(logits)[:, :2], axis=1)[[0, 1], [1, 0]]).mean()
    assert float(cross_entropy(logits, y, jnp.asarray([True, True, False]))) == pytest.approx(two, rel=1e-5)


@pytest.mark.parametrize(("kind", "cell"), [("lstm", eqx.nn.LSTMCell), ("gru", eqx.nn.GRUCell)])
def test_recurrent_networks_show_their_hidden_state(kind, cell):
    made = Recurrent(2, 3, 1, kind=kind, key=KEY)
    assert type(made.cell) is cell
    state, out = made.step(made.init(KEY), jnp.ones(2))
    expected = made.cell(jnp.ones(2), (jnp.zeros(3), jnp.zeros(3)) if kind == "lstm" else jnp.zeros(3))
    hidden = expected[0] if kind == "lstm" else expected
    np.testing.assert_allclose(out, made.head(hidden), rtol=1e-6)
    assert jax.tree.all(jax.tree.map(jnp.allclose, state, expected))


@pytest.mark.parametrize(
    ("kind", "names", "bias", "random"),
    [("lif", ["tau", "threshold"], 0.0, False), ("meta", list("abcd"), -1.5, False),
     ("probabilistic", [*"abcd", "kappa"], -1.5, True)],
)  # fmt: skip
def test_networks_before_training(kind, names, bias, random):
    made = network(kind, 300, 40, 5, KEY, spread=0.5, release=0.25)
    assert float(made.hidden.weights.weight.std()) == pytest.approx(0.5, rel=0.03)
    assert jnp.unique(made.hidden.weights.bias).tolist() == [bias]
    assert float(made.head.weight.std()) * np.sqrt(40) == pytest.approx(1, rel=0.2)
    assert not made.head.bias.any()
    assert sorted(made.hidden.neurons.free) == sorted(names)
    assert cells(kind, 2, learn=False).free == {}
    assert (made.hidden.release is not None) is random
    if random:
        assert list(made.hidden.release.free) == ["success"]
        assert float(made.hidden.release.neuron.spread) == 0.25
        assert float(made.hidden.neurons.neuron.kappa) == pytest.approx(0.1)
    with pytest.raises(InputError, match="is wanted here"):
        cells("levy-baxter", 2)


def test_levy_baxter_networks_have_weights_of_one_sign():
    made = network("levy-baxter", 200, 30, 2, KEY, spread=0.5)
    inner = made.hidden.neuron
    assert float(inner.weights.min()) >= 0
    assert float(inner.weights.mean()) == pytest.approx(4 * 0.5 * np.sqrt(2 / np.pi), rel=0.05)
    assert (float(inner.success), float(inner.threshold)) == (0.75, 1.0)
    assert sorted(made.hidden.free) == ["success", "threshold"]
    with pytest.raises(CompositionError, match="always transmit"):
        made.nir_graph(None)


def test_intrinsic_parameters_have_a_rate_of_their_own():
    made = network("lif", 3, 2, 2, KEY)
    labels = jax.tree_util.tree_map_with_path(_group, made)
    assert set(labels.hidden.neurons.free.values()) == {"intrinsic"}
    assert (labels.hidden.weights.weight, labels.head.bias) == ("weights", "weights")


def test_an_epoch_without_spikes_scales_weights_and_lowers_thresholds():
    """Nothing fires: weights stay but for their scaling to a mean of 1/2; log tau rises and thresholds fall by pull x target."""
    made = network("lif", 2, 1, 2, KEY)
    before = {name: float(value[0]) for name, value in made.hidden.neurons.free.items()}
    silent = jnp.zeros((3, 4, 2))
    trained, weights = _plastic_epoch(made, STDP(), jnp.asarray([[0.2], [0.6]]), silent, 0.25, 0.1, KEY)
    np.testing.assert_allclose(weights, [[0.25], [0.75]], rtol=1e-5)
    np.testing.assert_allclose(trained.hidden.weights.weight, [[0.125, 0.375]], rtol=1e-5)
    after = {name: float(value[0]) for name, value in trained.hidden.neurons.free.items()}
    assert after["threshold"] == pytest.approx(before["threshold"] - 3 * 0.1 * 0.25, abs=1e-5)
    assert after["tau"] == pytest.approx(before["tau"] + 3 * 0.1 * 0.25, abs=1e-5)
    capped, weights = _plastic_epoch(made, STDP(), jnp.asarray([[0.0], [0.9]]), silent, 0.25, 0.0, KEY)
    np.testing.assert_allclose(weights, [[0.0], [1.0]], atol=1e-6)


def test_a_tempotron_classifier_is_the_tempotron():
    rng = np.random.default_rng(0)
    X, y = (rng.random((20, 30, 4)) < 0.1).astype(float), np.repeat([3, 7], 10)
    X[10:, 5, 0] = 1
    made = SNNClassifier(rule="tempotron", tau=12.0, epochs=3, rate=0.05, learn_intrinsic=False).fit(X, y)
    alone = Tempotron(tau=12.0, tau_s=3.0, rate=0.05, epochs=3).fit(X, np.repeat([0, 1], 10))
    np.testing.assert_array_equal(made.tempotron_.coef_, alone.coef_)
    high = 1 / (1 + np.exp(-alone.decision_function(X)))
    np.testing.assert_allclose(made.predict_proba(X), np.stack([1 - high, high], axis=1), rtol=1e-6)
    assert set(made.predict(X)) <= {3, 7}
    with pytest.raises(InputError, match="two classes"):
        SNNClassifier(rule="tempotron").fit(X, np.arange(20) % 3)
    for wrong in (X[0], X + 0.5):
        with pytest.raises(InputError, match="holds more than 0 and 1"):
            made.predict(wrong)


def test_dense_projections_of_delay_one_keep_the_last_spikes_alone():
    made = Dense(jnp.asarray([[2.0, 3.0]]))
    assert made.init(KEY).shape == (2,)
    state, out = made.step(made.init(KEY), jnp.asarray([1.0, 0.0]))
    assert (out.tolist(), made.readout(state).tolist()) == ([0.0], [2.0])


@pytest.mark.parametrize(
    ("sizes", "steps", "fits"), [((1, 1), 1, True), ((2,), 1, False), ((0, 1), 1, False), ((1, 1), 0, False)]
)
def test_sizes_of_a_network_that_learns_tasks(sizes, steps, fits):
    if fits:
        assert SpikingMLP(sizes, steps=steps, key=KEY).W[0].shape == (1, 1)
    else:
        with pytest.raises(InputError):
            SpikingMLP(sizes, steps=steps, key=KEY)
