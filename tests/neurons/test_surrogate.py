import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from broadsheet.errors import InputError
from broadsheet.neurons import BranchedNeuron, ELMNeuron, record, synaptic_traces
from broadsheet.neurons.surrogate import CLIP, Windows, predict_recordings, scale_voltage, spike_scores, voltage_scores


def test_windows_are_drawn_evenly_from_all_recordings_and_places():
    place = jnp.arange(3 * 6.0).reshape(3, 6, 1)
    inputs, targets = Windows(place, -place, 6000, 4)(jax.random.key(0))
    np.testing.assert_array_equal(targets, -inputs)
    np.testing.assert_array_equal(inputs[:, 1:] - inputs[:, :-1], 1)
    first, counts = np.unique(inputs[:, 0, 0], return_counts=True)
    assert first.tolist() == [0, 1, 2, 6, 7, 8, 12, 13, 14]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_learns_a_filtered_sum():
    """Voltage is a low-passed sum of the inputs: a small cell explains nearly all of it."""
    rng = np.random.default_rng(0)
    x = (rng.random((6000, 6)) < 0.03).astype(np.float32)
    v = -67 + 4 * synaptic_traces(x, (10.0,)).sum(axis=1)
    y = np.minimum(v, -56)[:, None]
    model = ELMNeuron(4, targets=("voltage",), steps=600, window=150, learning_rate=1e-2).fit(x[:4000], y[:4000])
    assert model.score(x[4000:], y[4000:]) > 0.8
    assert model.predict(x).shape == (6000, 1)
    assert model.predict(x).max() < CLIP + 5


def test_windows_join_without_seams():
    rng = np.random.default_rng(1)
    x = (rng.random((1, 700, 6)) < 0.05).astype(np.float32)
    y = np.zeros((1, 700, 1)) - 65
    model = ELMNeuron(3, targets=("voltage",), tau_m=(1.0, 10.0), steps=2, window=100).fit(x, y)
    np.testing.assert_allclose(predict_recordings(model.cell_, x, 400), predict_recordings(model.cell_, x, 1200), atol=1e-3)


def test_scores_are_scikit_learns():
    rng = np.random.default_rng(2)
    x = (rng.random((2, 400, 4)) < 0.05).astype(np.float32)
    y = np.stack([rng.random((2, 400)) < 0.1, np.full((2, 400), -60.0)], axis=-1)
    model = ELMNeuron(2, steps=2, window=50).fit(x, y)
    p = model.predict(x)
    assert model.scores(x, y)["auc"] == pytest.approx(roc_auc_score(y[..., 0].ravel(), p[..., 0].ravel()), abs=1e-6)
    assert set(model.scores(x, y)) == {"auc", "tp_at_1_percent", "rmse_mv", "explained_variance"}
    assert clone(model).get_params()["steps"] == 2


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.zeros((50, 3)), np.zeros((50, 1)), "shape"),
        (np.zeros((50, 3)), np.full((50, 2), 0.5), "0 or 1"),
        (np.full((50, 3), np.nan), np.zeros((50, 2)), "NaN"),
        (np.zeros(50), np.zeros((50, 2)), "recordings, time, channels"),
    ],
)
def test_mistakes_are_named(x, y, words):
    with pytest.raises(InputError, match=words):
        ELMNeuron(2, steps=1).fit(x, y)


def test_branched_neuron_rests_where_nothing_comes_in_and_inhibition_lowers_it():
    neuron = BranchedNeuron(16, 2)
    silent = record(0, neuron, 100, rate=(0.0, 0.0))
    np.testing.assert_allclose(silent.voltage, -67.7, atol=1e-3)
    assert silent.spikes.sum() == 0
    driven = record(0, neuron, 2000, rate=(40.0, 40.0))
    assert driven.spikes.sum() > 0
    assert set(np.unique(driven.inputs)) == {-1.0, 0.0, 1.0}
    assert driven.voltage.max() <= 0.0
    assert driven.voltage.min() > -90


def test_adaptation_pulls_the_soma_down_as_long_as_it_lasts():
    """Alone, the soma follows dv/dt = 0.05 (rest - v) - a exp(-t / 150 ms)."""
    neuron = BranchedNeuron(16, 2, couple=0.0, substeps=20)
    state = neuron.init(jax.random.key(0))._replace(adaptation=jnp.asarray(0.3))
    for _ in range(20):
        state, (voltage, spike) = neuron.step(state, jnp.zeros(16))
    fall = 0.3 * (np.exp(-20 / 150) - np.exp(-0.05 * 20)) / (0.05 - 1 / 150)
    np.testing.assert_allclose(-67.7 - voltage, fall, rtol=0.01)
    assert spike == 0


def test_nmda_makes_branches_supralinear():
    """Two inputs on one branch do more than on two branches where NMDA is on; without it, they do less."""
    import jax.numpy as jnp

    from broadsheet.dynamics import rollout

    def peak(channels, nmda):
        neuron = BranchedNeuron(64, 4, g_ampa=0.02, g_nmda=0.15, nmda=nmda)
        x = jnp.zeros((60, 64)).at[5, jnp.array(channels)].set(1.0)
        return float(rollout(neuron, x)[1][0].max()) + 67.7

    same, apart = list(range(6)), [0, 1, 2, 8, 9, 10]
    assert peak(same, True) > 1.05 * peak(apart, True)
    assert peak(same, False) < peak(apart, False)


def test_hits_at_one_percent_false_positives_are_counted_by_hand():
    """400 silent bins scored 1 to 400: five spikes stand above all, three below 3 of them (0.75 %), two below 5 (1.25 %)."""
    logits = np.concatenate([np.arange(1.0, 401.0), np.full(5, 1000.0), np.full(3, 397.5), np.full(2, 395.5)])
    found = spike_scores(np.arange(410) >= 400, logits)
    assert found["tp_at_1_percent"] == pytest.approx(0.8)
    assert found["auc"] == pytest.approx(1 - (3 * 3 + 2 * 5) / 4000)


def test_voltages_are_scored_below_their_ceiling():
    truth = np.array([-70.0, -60.0, -40.0, -65.0])  # what is above -55 mV counts as that
    scaled = (np.array([-69.0, -60.0, -55.0, -67.0]) + 67.7) * 0.1
    found = voltage_scores(truth, scaled)
    assert found["rmse_mv"] == pytest.approx(np.sqrt((1 + 0 + 0 + 4) / 4))
    clipped = np.array([-70.0, -60, -55, -65])
    assert found["explained_variance"] == pytest.approx(1 - 5 / ((clipped - clipped.mean()) ** 2).sum())
    np.testing.assert_allclose(scale_voltage(truth), [-0.23, 0.77, 1.27, 0.27])


def test_a_neuron_is_scored_by_spikes_first_and_answers_in_millivolt():
    model = ELMNeuron(2, steps=1, window=500)
    x = (np.random.default_rng(0).random((60, 4)) < 0.2).astype(np.float32)
    y = np.stack([x[:, 0], np.full(60, -60.0)], axis=1)
    before = y.copy()
    model.fit(x, y)
    np.testing.assert_array_equal(y, before)
    logits, found = model.decision_function(x), model.predict(x)
    np.testing.assert_allclose(found[:, 0], 1 / (1 + np.exp(-logits[:, 0])), rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], logits[:, 1] * 10 - 67.7, rtol=1e-5)
    assert model.score(x, y) == model.scores(x, y)["auc"]
    for X, said in ((x[:, :2], "2 channels"), (x[None, None], "is wanted")):
        with pytest.raises(InputError, match=said):
            model.predict(X)
    with pytest.raises(InputError, match="'current'"):
        ELMNeuron(2, targets=("current",), steps=1).fit(x, y[:, :1])
    assert model.predict(np.stack([x, x])).shape == (2, 60, 2)
    made = ELMNeuron()
    assert (made.d_m, made.targets, made.tau_m, made.batch, made.window) == (20, ("spikes", "voltage"), (1.0, 150.0), 8, 300)
