from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.recordings import LatentPredictor, MentalPong, bouncing_balls, extrapolated, kalman_filter
from broadsheet.recordings.latent_prediction import CTRNNDynamics, LSTMDynamics
from broadsheet.recordings.mental_pong import Starts, folded

TRACE = np.load(Path(__file__).parents[1] / "references" / "pong.npz")
PONG = MentalPong()


def test_trials_are_those_of_the_published_program():
    trials, accepted = PONG.trials(Starts(*TRACE["starts"].T))
    np.testing.assert_array_equal(accepted, TRACE["kept"])
    assert 20 < accepted.sum() < 200
    y_end, end, hidden = TRACE["labels"].T
    np.testing.assert_array_equal(trials.end, end)
    np.testing.assert_array_equal(trials.hidden, hidden)
    np.testing.assert_array_equal(trials.y_end, y_end)
    for x, y, theirs in zip(trials.x, trials.y, TRACE["paths"], strict=False):
        length = np.isfinite(theirs[:, 0]).sum()
        np.testing.assert_array_equal(np.stack([x, y], axis=1)[:length], theirs[:length])
        assert np.isnan(x[length:]).all()


def test_pictures_are_the_published_ones_but_for_edges():
    x, y = TRACE["drawn"].transpose(2, 0, 1)
    ours, theirs = PONG.render(x, y, 100).astype(int), TRACE["pictures"].astype(int)
    assert (ours[..., 76:] == 128).all()
    assert (theirs[..., 76:] == 128).all()
    for one, other in zip(ours[..., :74].reshape(-1, 100, 74), theirs[..., :74].reshape(-1, 100, 74), strict=True):
        assert one.max() == other.max()
        if one.max():  # the same middle, to half a pixel, and as much of it
            middles = [np.array(np.nonzero(picture > 127)).mean(axis=1) for picture in (one, other)]
            assert np.abs(middles[0] - middles[1]).max() < 0.6
            assert 0.6 < (one > 127).sum() / (other > 127).sum() < 1.4


def test_samples_are_balanced_and_begin_on_the_lists():
    trials = PONG.sample(31, 5, balanced=True)
    assert (len(trials), (trials.bounces > 0).sum()) == (31, 15)
    assert (trials.hidden_bounces <= trials.bounces).all()
    assert ((trials.hidden >= 15) & (trials.hidden <= 45) & (trials.end - trials.hidden >= 15)).all()
    np.testing.assert_allclose(
        np.unique(np.round(trials.starts.x / 32 * 100)) / 100 * 32, np.unique(np.round(trials.starts.x, 9))
    )
    speed = np.hypot(*trials.states[..., 2:].transpose(2, 0, 1))
    straight = np.abs(speed - trials.starts.speed[:, None]) < 1e-9
    assert np.nanmean(np.where(np.isfinite(speed), straight, np.nan)) > 0.97  # a step with a bounce in it is shorter
    with pytest.raises(InputError, match="at least 1"):
        PONG.sample(0, 0)
    with pytest.raises(InputError, match="have no 5 trials"):
        MentalPong(speeds=(9.0,), headings=3).sample(5, 0)


def test_a_path_between_walls_is_a_reflected_line():
    position, speed, path = 3.0, 0.7, []
    for _ in range(200):
        path.append(position)
        position += speed
        if not 1 <= position <= 5:
            position, speed = 2 * np.clip(position, 1, 5) - position, -speed
    np.testing.assert_allclose(folded(3 + 0.7 * np.arange(200), 1.0, 5.0), path, atol=1e-9)
    x, y = bouncing_balls(50, 300, 0)
    assert min(x.min(), y.min()) >= 0.64
    assert max(x.max(), y.max()) <= 32 - 0.64


def test_the_kalman_filter_is_filterpys():
    path = TRACE["kalman_path"][None]
    position, velocity = kalman_filter(path, np.array([20]))
    np.testing.assert_allclose(np.stack([position[0], velocity[0]], axis=1), TRACE["kalman"], atol=1e-9)
    with pytest.raises(InputError, match="two seen frames"):
        kalman_filter(path, np.array([1]))


def test_extrapolation_is_right_where_nothing_is_in_the_way():
    trials = PONG.sample(60, 1, balanced=True)
    hidden = np.isfinite(trials.x) & (np.arange(trials.x.shape[1]) >= trials.hidden[:, None])
    free = trials.hidden_bounces == 0
    errors = {}
    for by in ("last", "line", "kalman", "bouncing"):
        x, y = extrapolated(trials, by)
        np.testing.assert_array_equal(np.isfinite(x), np.isfinite(trials.x))
        np.testing.assert_allclose(y[~hidden], trials.y[~hidden], atol=1e-12)
        errors[by] = [np.abs(y - trials.y)[part[:, None] & hidden].mean() for part in (free, ~free)]
    assert errors["line"][0] < 0.05  # a bounce in the last visible step is seen too late
    assert errors["bouncing"][1] < errors["line"][1] < errors["last"][1] * 2
    assert errors["last"][0] > 1
    with pytest.raises(InputError, match="by is 'magic'"):
        extrapolated(trials, "magic")


CIRCLES = np.stack([[np.cos(0.3 * np.arange(40) + p), np.sin(0.3 * np.arange(40) + p)] for p in range(6)]).transpose(0, 2, 1)


def on_host(network):
    return jax.tree.map(lambda leaf: np.asarray(leaf) if eqx.is_array(leaf) else leaf, network)


@pytest.mark.parametrize("dynamics", ["lstm", "ctrnn"])
def test_networks_are_the_written_equations(dynamics):
    context, key = CIRCLES[0, :3], jax.random.key(1)
    if dynamics == "ctrnn":
        network = on_host(CTRNNDynamics(2, 8, 4.0, key=key))
        a = np.asarray(network.start)
        for z in context:
            a = a + (-a + network.recurrent @ np.maximum(np.tanh(a), 0) + network.inward @ z + network.bias) / 4
        out = np.maximum(np.tanh(a), 0)
        out = network.readout.weight @ out + network.readout.bias
    else:
        network = on_host(LSTMDynamics(2, 8, key=key))
        out, c = np.zeros(8), np.zeros(8)
        for z in context:
            gates = network.cell.weight_ih @ z + network.cell.weight_hh @ out + network.cell.bias
            i, f, g, o = np.split(np.asarray(gates), 4)
            c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
            out = np.tanh(c) / (1 + np.exp(-o))
    expected = network.out.weight @ out + network.out.bias
    np.testing.assert_allclose(eqx.filter_jit(network)(context.astype(np.float32)), expected, atol=1e-5)


def test_a_rollout_is_prediction_after_prediction():
    model = LatentPredictor("linear", context=3, alpha=3.0).fit(CIRCLES)
    window, made = CIRCLES[:, :3], []
    for _ in range(4):
        following = np.stack([model.predict(np.concatenate([row, row[:1]]))[0] for row in window])
        made.append(following)
        window = np.concatenate([window[:, 1:], following[:, None]], axis=1)
    np.testing.assert_allclose(model.rollout(CIRCLES[:, :3], 4), np.stack(made, axis=1), atol=1e-5)


def test_training_beats_copying_and_is_the_same_again():
    options = {"hidden": 8, "steps": 150, "context": 3, "residual": True, "learning_rate": 1e-2}
    one, other = (LatentPredictor("lstm", **options).fit(CIRCLES) for _ in range(2))
    assert one.score(CIRCLES) > 0.8
    np.testing.assert_array_equal(one.predict(CIRCLES), other.predict(CIRCLES))
    assert one.losses_[-20:].mean() < 0.2 * one.losses_[:20].mean()


def test_linear_dynamics_find_a_rotation_and_copying_finds_nothing():
    linear = LatentPredictor("linear", context=2, alpha=1e-6).fit(list(CIRCLES))
    assert linear.score(CIRCLES) > 0.999
    np.testing.assert_allclose(linear.rollout(CIRCLES[:, :2], 38), CIRCLES[:, 2:], atol=1e-3)
    copy = LatentPredictor("id", context=2).fit(CIRCLES)
    assert copy.score(CIRCLES) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(copy.rollout(CIRCLES[:, :2], 3), np.repeat(CIRCLES[:, 1:2], 3, axis=1), atol=1e-6)


def test_mistakes_with_predictors_are_one_sentence():
    for options, what in (
        ({"dynamics": "gru"}, "lstm, ctrnn, linear and id"), ({"context": 0}, "1 or more"), ({"dynamics": "ctrnn", "tau": 0.1}, "tau is"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=what):
            LatentPredictor(**options).fit(CIRCLES)
    with pytest.raises(InputError, match="8 or more are wanted"):
        LatentPredictor().fit(CIRCLES[:, :7])
    with pytest.raises(InputError, match="hold nan in bin 1"):
        LatentPredictor("id", context=1).fit(np.array([[1.0], [np.nan], [2.0]]))
    model = LatentPredictor("id", context=2).fit(CIRCLES)
    with pytest.raises(InputError, match="fitted to 2"):
        model.predict(np.zeros((9, 3)))
    with pytest.raises(InputError, match="has 3 latents"):
        model.rollout(CIRCLES[:, :3], 2)
