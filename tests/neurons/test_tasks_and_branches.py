"""Made data against the statistics that its description gives, and the branched neuron against its differential equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from sklearn.datasets import load_digits

from broadsheet.dynamics import rollout
from broadsheet.neurons import LIF, BranchedNeuron, LIFLayer, record, surrogates
from broadsheet.neurons.classification import accuracy
from broadsheet.neurons.tasks import Batches, DigitSpikes, SpokenDigits, branch_coincidences, which_pulse

KEY = jax.random.key(0)


def test_branches_and_soma_follow_their_differential_equation():
    """Conductances decay with 2, 40 and 8 ms; NMDA is freed by voltage as Jahr and Stevens (1990) have it; mV, ms."""
    with jax.enable_x64(True):
        neuron = BranchedNeuron(8, 2, g_ampa=0.02, g_nmda=0.05, g_gaba=0.03, couple=0.07, substeps=200)
        spikes = jnp.asarray([1.0, 1, 0, 0, 0, 0, -1, 0])  # two excitatory on the first branch, an inhibitory on the second
        state, _ = neuron.step(neuron.init(KEY), spikes)
        for _ in range(9):
            state, (voltage, spike) = neuron.step(state, jnp.zeros(8))

    def slopes(t, y):
        v, soma = y[:2], y[2]
        ampa, nmda, gaba = 0.04 * np.exp(-t / 2), 0.1 * np.exp(-t / 40), 0.03 * np.exp(-t / 8)
        ampa, nmda, gaba = np.array([ampa, 0]), np.array([nmda, 0]), np.array([0, gaba])
        freed = nmda / (1 + np.exp(-0.062 * v) / 3.57)  # 1 mM of magnesium
        dv = 0.05 * (-67.7 - v) + 0.07 * (soma - v) + (ampa + freed) * (0 - v) + gaba * (-75 - v)
        return [*dv, 0.05 * (-67.7 - soma) + 4 * 0.07 / 2 * (v - soma).sum()]

    expected = solve_ivp(slopes, (0, 10), [-67.7] * 3, rtol=1e-9, atol=1e-9).y[:, -1]
    np.testing.assert_allclose([*state.v, state.soma], expected, atol=0.02)
    assert expected[0] > expected[2] + 1 > expected[1] + 1  # excited, between, and inhibited
    assert (float(voltage), float(spike)) == (float(state.soma), 0.0)


def test_a_soma_above_threshold_fires_and_is_reset():
    neuron = BranchedNeuron(8, 2, couple=0.0, substeps=1)
    for soma, fires in ((-50.2, 0.0), (-48.0, 1.0)):
        state, (voltage, spike) = neuron.step(neuron.init(KEY)._replace(soma=jnp.asarray(soma)), jnp.zeros(8))
        assert float(spike) == fires
        np.testing.assert_allclose(state.adaptation, 0.25 * fires, rtol=1e-6)
        relaxed = -67.7 + (soma + 67.7) * np.exp(-0.05)
        np.testing.assert_allclose((state.soma, voltage), (-62.0, 0.0) if fires else (relaxed, relaxed), rtol=1e-5)


def test_recordings_have_the_rates_asked_for():
    """Spikes/s; inhibitory ones by half higher."""
    made = record(0, BranchedNeuron(64, 4), 4000, rate=(20.0, 20.0))
    assert made.inputs[:, :32].mean() * 1000 == pytest.approx(20, rel=0.05)
    assert made.inputs[:, 32:].mean() * 1000 == pytest.approx(-30, rel=0.05)


def test_a_neuron_without_a_refractory_time_keeps_no_count_of_it():
    sizes = {hold: [leaf.shape for leaf in jax.tree.leaves(LIF(3, refractory=hold, dt=1.0).init(KEY))] for hold in (0.0, 2.0)}
    assert sizes == {0.0: [(3,), (0,)], 2.0: [(3,), (3,)]}


def test_a_neuron_fires_above_its_threshold_and_at_it_where_that_is_asked_for():
    """As in Brian2, `v > threshold`, and as in the papers that write `v >= threshold`."""
    for spike, at in ((surrogates.spike, 0.0), (surrogates.at_threshold, 1.0)):
        cell = LIF(1, tau=1e9, rest=0.0, threshold=1.0, reset=0.0, spike=spike, dt=1.0)
        for kick, fires in ((0.999, 0.0), (1.0, at), (1.001, 1.0)):
            assert rollout(cell, jnp.asarray([[kick]]))[1].tolist() == [[fires]]


def test_outputs_of_a_layer_decay_with_their_own_time_constant():
    layer = LIFLayer(1, 2, 1, tau_out=7.0, key=KEY)
    state = layer.init(KEY)
    state = (state[0], jnp.asarray([3.0, -1.0]))
    for _ in range(4):
        state, out = layer.step(state, jnp.zeros(1))
    np.testing.assert_allclose(state[1], np.exp(-4 / 7) * np.array([3.0, -1.0]), rtol=1e-5)
    np.testing.assert_allclose(out, layer.head(state[1]), rtol=1e-6)
    wide = LIFLayer(400, 300, 1, gain=10.0, key=KEY)
    assert float(wide.w_in.std()) * np.sqrt(400) == pytest.approx(10, rel=0.02)
    assert float(wide.w_rec.std()) * np.sqrt(300) == pytest.approx(1, rel=0.02)


def test_pulses_come_in_the_first_steps_and_noise_after_them():
    x, which = which_pulse(KEY, 2000)
    x = np.asarray(x)
    assert x.shape == (2000, 321, 3)
    when = x[:, :, :2].sum(axis=2).argmax(axis=1)
    assert (when.min(), when.max()) == (0, 20)
    np.testing.assert_array_equal(x[:, :, :2].sum(axis=(1, 2)), 1)
    assert x[:, :21, 2].sum() == 0
    assert x[:, 21:, 2].mean() == pytest.approx(0.05, rel=0.02)
    assert which.mean() == pytest.approx(0.5, abs=0.04)
    assert which_pulse(KEY, 2, delay=5)[0].shape == (2, 26, 3)


def test_active_branches_fire_within_ten_steps():
    x, odd = branch_coincidences(KEY, 2000, inputs=3, steps=40)
    assert x.shape == (2000, 40, 6)
    each = np.asarray(x).reshape(2000, 40, 2, 3)
    spikes = each.sum(axis=(1, 3))
    assert set(np.unique(spikes)) == {1.0, 3.0}
    np.testing.assert_array_equal(odd, (spikes == 3).sum(axis=1) == 1)
    times = np.where(each.any(axis=3), np.arange(40)[:, None], -1)
    first = np.where(each.any(axis=3), np.arange(40)[:, None], 99).min(axis=1)
    last = times.max(axis=1)
    assert (last - first)[spikes == 3].max() == 9
    assert (first[spikes == 3].min(), last[spikes == 3].max()) == (5, 33)
    assert (first[spikes == 1].min(), last[spikes == 1].max()) == (5, 34)
    assert (spikes == 3).mean() == pytest.approx(0.5, abs=0.03)


def test_digits_fire_as_their_pixels_are_bright():
    """A spike in a step has the probability pixel / 32; both halves together are all of scikit-learn's."""
    halves = DigitSpikes(), DigitSpikes(test=True)
    assert [made.steps for made in halves] == [20, 20]
    images = np.concatenate([made.images for made in halves])
    assert len(images) == 1797
    np.testing.assert_array_equal(np.sort(np.asarray(images * 32).sum(axis=1)), np.sort(load_digits().data.sum(axis=1)))
    x, labels = halves[0].single(KEY, 400)
    assert x.shape == (400, 20, 64)
    assert (int(labels.min()), int(labels.max())) == (0, 9)
    assert float(x.mean()) == pytest.approx(float(halves[0].images.mean()), rel=0.03)
    pixels, labels = halves[0].pixels(KEY, 300)
    assert pixels.shape == (300, 64, 1)
    assert (float(pixels.max()), float(pixels.min())) == (1.0, 0.0)
    x, total = DigitSpikes(3).adding(KEY, 500)
    assert x.shape == (500, 6, 64)
    assert float(total.mean()) == pytest.approx(9, abs=0.5)


def test_spoken_digits_add_whatever_the_language():
    spikes = np.zeros((3, 4, 2), np.int8)
    spikes[0, 0, 0] = spikes[1, 1, 1] = spikes[2, 3, 0] = 1
    x, total = SpokenDigits(spikes, [3, 14, 7]).adding(KEY, 200)
    assert x.shape == (200, 8, 2)
    said = {(0, 0): 3, (1, 1): 4, (3, 0): 7}
    for row, answer in zip(np.asarray(x), np.asarray(total), strict=True):
        (t, c), (u, d) = np.argwhere(row)
        assert said[(t, c)] + said[(u - 4, d)] == answer
    inputs, labels = Batches(which_pulse, 5)(KEY)
    assert (inputs.shape, labels.shape) == ((5, 321, 3), (5,))


def test_accuracy_is_the_share_of_right_answers_at_the_last_step():
    """A model that answers with its input's first step, against one whose answer at the last step alone is right."""

    def task(key, count):
        return jax.nn.one_hot(jnp.asarray([[0, 1], [0, 2], [1, 2], [2, 2]]), 3), jnp.asarray([1, 2, 2, 0])

    assert accuracy(lambda x: x, task, 4, KEY) == 0.75
    assert accuracy(lambda x: x[:1], task, 4, KEY) == 0.0


def test_layers_and_branches_as_they_come():
    layer = LIFLayer(400, 300, 1, key=KEY)
    assert float(layer.w_in.std()) * np.sqrt(400) == pytest.approx(10, rel=0.02)
    times = (layer.tau_syn, layer.tau_out, layer.neurons.tau, layer.neurons.threshold)
    assert ([float(each) for each in times], layer.dt) == ([5, 50, 20, 1], 1.0)
    made = BranchedNeuron()
    assert (made.channels, made.branches, made.substeps, made.dt) == (128, 8, 5, 1.0)
    assert [float(each) for each in (made.g_ampa, made.g_nmda, made.g_gaba, made.couple)] == pytest.approx(
        [0.05, 0.14, 0.06, 0.05]
    )
    np.testing.assert_array_equal(np.asarray(made.branch).sum(axis=0), 16)
    np.testing.assert_array_equal(np.asarray(made.branch)[:64], np.asarray(made.branch)[64:])
    assert np.asarray(made.branch)[:8, 0].all()
