"""The classifier of spike trains under its three rules."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone

from broadsheet.dynamics import rollout
from broadsheet.errors import InputError
from broadsheet.networks import SNNClassifier
from broadsheet.networks.spiking_classifier import SIGNS
from broadsheet.neurons import LIF, Intrinsic, MetaNeuron
from broadsheet.plasticity import STDP, ThreeFactor

LEAKY = LIF(40, tau=5.0, rest=0.0, threshold=1.0, reset=0.0, dt=1.0)


@pytest.fixture(scope="module")
def trains():
    """Two classes of 60 samples: 0 fires on the first three channels, 1 on the other three."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    rates = np.where((np.arange(6) < 3) == (y[:, None] == 0), 0.2, 0.02)
    return (rng.random((120, 60, 6)) < rates[:, None]).astype(float), np.where(y == 0, "left", "right")


@pytest.mark.parametrize(
    "options",
    [{"neuron": "lif"}, {"neuron": "meta", "spread": 1.0}, {"neuron": "levy-baxter", "draws": 2},
     {"rule": "tempotron", "rate": 0.01, "rate_intrinsic": 0.002},
     {"rule": "stdp", "epochs": 2, "decision": "lzc"}],
    ids=lambda options: "-".join(map(str, options.values())),
)  # fmt: skip
def test_each_rule_learns_what_is_easy(trains, options):
    """On held-out halves; a classifier that saw shuffled labels stays near chance, which 0.9 is far from."""
    X, y = trains
    settings = {"hidden": 8, "batch": 30, "epochs": 30} | options
    model = clone(SNNClassifier(**settings)).fit(X[:60], y[:60])
    assert model.score(X[60:], y[60:]) >= 0.9
    assert set(model.predict(X[:4])) <= {"left", "right"}
    np.testing.assert_allclose(model.predict_proba(X[:4]).sum(axis=1), 1, rtol=1e-5)


def test_random_neurons_are_averaged(trains):
    """Twice the same draws give the same probabilities; one draw differs from the mean of four."""
    X, y = trains
    model = SNNClassifier("probabilistic", hidden=4, batch=30, epochs=1, draws=4, spread=2.0).fit(X[:30], y[:30])
    mean = model.predict_proba(X[:6])
    np.testing.assert_array_equal(mean, model.predict_proba(X[:6]))
    assert np.abs(mean - model.set_params(draws=1).predict_proba(X[:6])).max() > 1e-3


@pytest.mark.parametrize(("name", "neuron"), [("threshold", LEAKY), ("tau", LEAKY), ("d", MetaNeuron(40, squash=False))])
def test_neurons_that_fire_too_much_move_each_parameter_so_that_they_fire_less(name, neuron):
    learned = Intrinsic(neuron, (name,))

    def fired(way):
        moved = eqx.tree_at(lambda made: made.free[name], learned, learned.free[name] + 0.5 * way * SIGNS[name])
        return rollout(moved, jnp.tile(jnp.linspace(0.3, 0.9, 40), (300, 1)))[1].sum()

    assert fired(1.0) < fired(0.0) < fired(-1.0)


def test_homeostasis_brings_neurons_to_their_rate(trains):
    X, y = trains
    rates = {}
    for learn in (False, True):
        model = SNNClassifier(rule="stdp", learn_intrinsic=learn, target_rate=0.04, rate_intrinsic=0.3, epochs=4, hidden=8).fit(
            X, y
        )
        rates[learn] = model.hidden_spikes(X).mean(axis=(0, 1))
    assert np.abs(rates[True] - 0.04).max() < 0.02 < np.abs(rates[False] - 0.04).max()


def test_a_rule_by_its_name_is_the_rule_itself(trains):
    """And another one learns something else."""
    X, y = trains
    options = {"epochs": 1, "hidden": 6}
    by_name, itself, other = (
        SNNClassifier(rule=rule, **options).fit(X, y).network_.hidden.weights.weight
        for rule in ("stdp", STDP(), STDP(a_plus=0.1))
    )
    np.testing.assert_array_equal(by_name, itself)
    assert not np.allclose(by_name, other)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"neuron": "meta", "rule": "tempotron"}, "one LIF neuron"), ({"decision": "lzc", "rule": "tempotron"}, "one LIF neuron"),
     ({"neuron": "levy-baxter", "rule": "stdp"}, "A learning rule is for"),
     ({"rule": ThreeFactor()}, "also wants modulator"), ({"rule": STDP(bounds=(0.0, 2.0))}, "0 and 1 are wanted")],
)  # fmt: skip
def test_impossible_pairs_are_named(trains, options, said):
    with pytest.raises(InputError, match=said):
        SNNClassifier(**options).fit(*trains)


def test_patterns_are_checked(trains):
    X, y = trains
    for bad, labels in ((X * 0.5, y), (X[0], y), (X, y[:5]), (X, np.zeros(120))):
        with pytest.raises(InputError):
            SNNClassifier().fit(bad, labels)
    with pytest.raises(InputError, match="5 inputs"):
        SNNClassifier(epochs=1, hidden=2).fit(X, y).predict(X[:, :, :5])
