import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from broadsheet.errors import InputError
from broadsheet.neurons import synaptic_traces
from broadsheet.neurons.surrogate import scale_voltage
from broadsheet.neurons.trace_models import TraceModel


def recording(rng, rule):
    x = (rng.random((4000, 8)) < 0.05).astype(np.float32)
    x[:, 4:] *= -1
    drive = rule(synaptic_traces(x, (20.0,)))
    return x, -67.7 + 3 * drive / drive.std(), (drive > np.quantile(drive, 0.95)).astype(np.float32)


def scores(model, seen, rule):
    rng = np.random.default_rng(1)
    model.fit([seen], bins=2000)
    x, voltage, spikes = recording(rng, rule)
    said = model.predict(x)
    return roc_auc_score(spikes, said[:, 0]), r2_score(scale_voltage(voltage), said[:, 1])


def test_squares_know_what_sums_do_not():
    """The drive is the product of two channels of one branch."""
    branches = np.repeat(np.eye(2), 2, axis=0)
    branches = np.concatenate([branches, branches])

    def rule(trace):
        return trace[:, :2].sum(axis=1) ** 2 - trace[:, 2:4].sum(axis=1) ** 2

    seen = recording(np.random.default_rng(0), rule)
    auc, explained = scores(TraceModel((20.0,), branches, squares=True), seen, rule)
    assert auc > 0.98
    linear_auc, linear_explained = scores(TraceModel((20.0,)), seen, rule)
    assert linear_auc < auc
    assert 1 - linear_explained > 2 * (1 - explained)


def test_features_are_traces_of_sums_and_their_products():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(50, 4)).astype(np.float32)
    branches = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    found = TraceModel((5.0, 20.0), branches, squares=True).features(x)
    traces = synaptic_traces(x, (5.0, 20.0)).reshape(50, 2, 4)  # of one channel each, so that sums are channels
    first = traces[:, :, [0, 2]].reshape(50, 4)
    products = np.stack([first[:, a] * first[:, b] for a in range(4) for b in range(a, 4)])
    assert found.shape == (50, 8 + 20)
    for wanted in products:
        assert np.isclose(found, wanted[:, None], atol=1e-5).all(axis=0).any()


def test_what_cannot_be_fitted_is_said():
    with pytest.raises(InputError, match="give branches"):
        TraceModel(squares=True)
    with pytest.raises(InputError, match="no output spike"):
        TraceModel().fit([(np.zeros((50, 2)), np.zeros(50), np.zeros(50))])


def test_with_room_for_all_bins_it_is_scikit_learns_regressions():
    rng = np.random.default_rng(3)
    pairs = [
        ((rng.random((300, 3)) < 0.2).astype(np.float32), rng.normal(-65, 5, 300), rng.random(300) < 0.1) for _ in range(2)
    ]
    model = TraceModel().fit([(x, v, s.astype(np.float32)) for x, v, s in pairs])
    assert (model.tau, model.C, model.features_) == ((5.0, 20.0, 60.0), 0.01, 9)
    X = np.concatenate([synaptic_traces(x, (5.0, 20.0, 60.0)) for x, _, _ in pairs])
    scaler = StandardScaler().fit(X)
    voltage = np.concatenate([scale_voltage(v) for _, v, _ in pairs])
    spikes = np.concatenate([s for *_, s in pairs])
    ridge = Ridge(1.0).fit(scaler.transform(X), voltage)
    logistic = LogisticRegression(C=0.01).fit(scaler.transform(X), spikes)
    found = model.predict(pairs[0][0])
    own = scaler.transform(synaptic_traces(pairs[0][0], (5.0, 20.0, 60.0)))
    np.testing.assert_allclose(found[:, 1], ridge.predict(own), atol=1e-4)
    np.testing.assert_allclose(found[:, 0], logistic.decision_function(own), atol=1e-3)


def test_of_many_bins_half_have_spikes_and_voltages_count_by_how_many_each_stands_for():
    """Voltages that are constant where a spike is and where none is: their weighted mean is that of all bins."""
    spikes = np.arange(1000) % 4 == 0
    voltage = np.where(spikes, -60.0, -70.0)
    seen, model = [], TraceModel((5.0,))
    model.features = lambda inputs: seen.append(len(inputs)) or np.zeros((len(inputs), 1))
    model.fit([(np.zeros((1000, 1), np.float32), voltage, spikes.astype(float))], bins=100)
    np.testing.assert_allclose(model._voltage.predict(np.zeros((1, 1))), scale_voltage(voltage).mean(), rtol=1e-6)
    assert model._spikes[-1].intercept_[0] == pytest.approx(0, abs=1e-3)  # as many with as without
