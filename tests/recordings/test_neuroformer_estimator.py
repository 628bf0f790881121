"""Neuroformer as scikit-learn's estimator, plain means of connectivity and decoding, generators, and the verb."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import PoissonRegressor
from sklearn.utils import estimator_checks

from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.recordings import Neuroformer, Session, Spikes, Traces, write_nwb
from broadsheet.recordings.connectivity import coupling, fit_poisson, lagged_correlation, past_sums, poisson_log_likelihood
from broadsheet.recordings.decoders import history
from broadsheet.recordings.hub_network import HubNetwork
from broadsheet.recordings.neuroformer.published import read_v1al, read_visnav
from broadsheet.recordings.stimulus_population import StimulusPopulation
from commands import call

RNG = np.random.default_rng(0)
X = RNG.poisson(0.1, (400, 4))
Y = np.where(np.arange(400) % 5 == 4, np.sin(np.arange(400) / 20), np.nan)
SMALL = {"width": 8, "steps": 3, "batch": 2, "tuning_steps": 0}
FITTED = Neuroformer(**SMALL).fit(X, Y)


def test_an_estimator_is_saved_copied_and_loaded():
    again = pickle.loads(pickle.dumps(FITTED))
    np.testing.assert_array_equal(again.predict(X), FITTED.predict(X))
    assert clone(FITTED).get_params() == FITTED.get_params()
    assert again.score(X) == FITTED.score(X) < 0
    assert FITTED.predict(X).shape == (400,)
    assert FITTED.transform(X).shape == (79, 8)
    assert FITTED.generate(X).shape == (79, 5, 4)
    assert FITTED.sample(2).shape == (10, 4)


@pytest.mark.parametrize(
    "check",
    [
        "check_no_attributes_set_in_init", "check_parameters_default_constructible", "check_get_params_invariance",
        "check_set_params", "check_estimator_cloneable", "check_estimator_repr", "check_do_not_raise_errors_in_init_or_set_param",
    ],
)  # fmt: skip
def test_scikit_learns_checks(check):
    if (found := getattr(estimator_checks, check, None)) is None:
        pytest.skip(f"this scikit-learn has no {check}")
    found("Neuroformer", Neuroformer(**SMALL))


def test_mistakes_are_told():
    with pytest.raises(InputError, match="-1"):
        Neuroformer(**SMALL).fit(np.where(X == 0, -1, X))
    with pytest.raises(InputError, match="no label"):
        Neuroformer(**SMALL).fit(X, np.full(400, np.nan))
    with pytest.raises(InputError, match="3 neurons"):
        FITTED.score(X[:, :3])
    with pytest.raises(InputError, match="8 bins"):
        Neuroformer(**SMALL).fit(X[:8])


def test_the_poisson_regression_is_scikit_learns():
    features = RNG.standard_normal((300, 3))
    counts = RNG.poisson(np.exp(features @ [0.5, -0.3, 0.0] - 1))[:, None].astype(float)
    ours = fit_poisson(features, counts, ridge=2.0, tolerance=1e-4)
    theirs = PoissonRegressor(alpha=2.0 / 300, tol=1e-8, max_iter=1000).fit(features, counts[:, 0])
    np.testing.assert_allclose(ours.weights[:, 0], theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.bias[0], theirs.intercept_, atol=1e-4)
    from scipy.stats import poisson

    expected = poisson.logpmf(counts, ours.rates(features)).sum(axis=1)
    np.testing.assert_allclose(poisson_log_likelihood(counts, ours.rates(features)), expected, atol=1e-6)


def test_couplings_and_lags_find_who_drives_whom():
    counts, edges = HubNetwork(6, 1, fan_out=3, seconds=60.0).sample(0)
    assert edges.sum() == 3
    for found in (lagged_correlation(counts), coupling(counts)[0]):
        others = ~edges & ~np.eye(6, dtype=bool)
        assert found[edges].min() > found[others].max()


def test_past_sums_and_history_are_those_of_a_loop():
    counts = X[:30, :2].astype(float)
    found = past_sums(counts, (0, 1, 3))
    np.testing.assert_array_equal(found[10], [counts[9], counts[7:9].sum(axis=0)])
    np.testing.assert_array_equal(history(counts, 3)[10], counts[8:11])


def test_a_population_follows_its_film():
    made = StimulusPopulation(8, seconds=60.0).sample(1)
    drive = np.tensordot(made.frames, made.fields, axes=([1, 2], [1, 2]))
    spikes = made.counts.reshape(-1, 5, 8).sum(axis=1)
    assert np.median([np.corrcoef(drive[:, k], spikes[:, k])[0, 1] for k in range(8)]) > 0.1
    assert made.speed.shape == (1200,)


def test_published_files_are_read_as_the_program_does(tmp_path, monkeypatch):
    with pytest.raises(MissingDataError, match="VisNav"):
        read_visnav(None)
    inside = tmp_path / "NF_1.5"
    inside.mkdir()
    spikes = RNG.poisson(0.2, (3, 100)) + RNG.normal(0, 0.1, (3, 100)).clip(0, 0.3)
    np.save(inside / "spikerates_dt_0.01.npy", spikes)
    np.save(inside / "stimulus.npy", np.zeros((20, 1, 4, 5)))
    for name in ("behavior_speed_dt_0.05", "phi_dt_0.05", "th_dt_0.05"):
        np.save(inside / f"{name}.npy", np.arange(20.0))
    made = read_visnav(tmp_path)
    np.testing.assert_array_equal(made.counts, np.round(spikes.T))
    assert made.frames.shape == (20, 4, 5)
    np.save(inside / "th_dt_0.05.npy", np.arange(3.0))
    with pytest.raises(DataError, match="th has 3 steps"):
        read_visnav(tmp_path)
    monkeypatch.setenv("BROADSHEET_TRUST", "1")
    (tmp_path / "Combo3_V1AL.pkl").write_bytes(pickle.dumps({1: np.ones((3, 10)), 21: np.zeros((3, 10))}))
    np.save(tmp_path / "Combo3_V1AL_stimulus.npy", np.zeros((3, 1, 6, 4, 5)))
    trials, films = read_v1al(tmp_path)
    assert trials[1].shape == (10, 3)
    assert films.shape == (3, 6, 4, 5)


def recorded(path, units=3, seconds=40.0, still=False):
    speed = np.sin(np.arange(0, seconds, 0.05)) * (0 if still else 1)
    times = [np.unique(np.concatenate([t + 0.05 * RNG.random(RNG.poisson(0.8 + 0.7 * v)) for t, v in
                                       zip(np.arange(0, seconds, 0.05), speed, strict=True)])) for _ in range(units)]  # fmt: skip
    spikes = Spikes(tuple(times), tuple(f"u{k}" for k in range(units)), 0.0, seconds)
    running = Traces(speed, np.arange(0, seconds, 0.05), ("speed",), "cm/s")
    write_nwb(Session("mouse", spikes, {"behavior/BehavioralTimeSeries/running": running}), path)
    return path


def test_the_verb_says_what_cannot_be_decoded(tmp_path, home, monkeypatch):
    """What it decodes: `test_verbs_on_public_shapes`."""
    monkeypatch.chdir(tmp_path)
    file = recorded(tmp_path / "mouse.nwb")
    verb = ["recordings", "decode", file, "--target", "running"]
    asked = [*verb, "--steps", "2", "--tuning", "0", "--gap", "0.5"]
    assert "--labels" in call(*asked, "--labels", "0.01", code=2).stderr
    assert "two or more" in call(*verb[:2], recorded(tmp_path / "one.nwb", units=1), *verb[3:], code=2).stderr
    assert "never changes" in call(*verb[:2], recorded(tmp_path / "still.nwb", still=True), *verb[3:], code=2).stderr
    assert "pupil" in call(*verb[:4], "pupil", code=2).stderr


def test_an_interrupted_training_goes_on_where_it_was(tmp_path):
    file = tmp_path / "training"
    Neuroformer(**SMALL).fit(X, checkpoint=file)
    again = Neuroformer(**SMALL).fit(X, checkpoint=file)
    assert again.losses_.size == 0
    np.testing.assert_array_equal(again.network_.embedding, FITTED.network_.embedding)
