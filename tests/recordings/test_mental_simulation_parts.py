import pickle

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

from broadsheet.errors import DataError, InputError, MissingDataError, UntrustedError
from broadsheet.recordings import (
    FrameEncoder,
    FrontalUnits,
    LatentPredictor,
    MentalPong,
    Tracker,
    VideoPredictor,
    colliding_balls,
    noisy_observer,
    read_frontal,
    simulate_frontal,
)
from broadsheet.recordings.ball_scenes import scene_pictures
from broadsheet.recordings.frontal_files import FILES, as_trials, read_monkeys
from broadsheet.recordings.mental_pong import FRAME, bouncing_balls
from broadsheet.recordings.simulated_frontal import BIN, at_frames
from pong_files import published

PONG = MentalPong()
TRIALS = PONG.sample(16, 0, balanced=True)
DOTS = PONG.render(*bouncing_balls(20, 12, 0), 8, occluder=False, spot=4.0)


def test_the_predictor_is_an_estimator_of_scikit_learn():
    """The checks that take a table of numbers as one sequence; those of predictions with one row for each input are not meant."""
    model = LatentPredictor("linear", context=1)
    assert clone(model).get_params() == model.get_params()
    done = 0
    for estimator, check in estimator_checks_generator(model):
        name = check.func.__name__
        if name in (
            "check_estimators_unfitted", "check_no_attributes_set_in_init", "check_parameters_default_constructible",
            "check_get_params_invariance", "check_set_params", "check_estimators_overwrite_params", "check_dont_overwrite_attributes",
            "check_estimators_pickle", "check_fit_score_takes_y", "check_estimator_cloneable", "check_estimator_repr",
        ):  # fmt: skip
            check(estimator)
            done += 1
    assert done >= 9


@pytest.mark.parametrize("kind", ["pca", "random", "static", "dynamic"])
def test_encoders_give_centred_latents_in_which_the_dot_can_be_read(kind):
    encoder = FrameEncoder(kind, 6, steps=20, batch=16).fit(DOTS)
    latents = encoder.transform(DOTS)
    assert latents.shape == (20, 12, 6)
    np.testing.assert_allclose(latents.mean(axis=(0, 1)), 0, atol=1e-5)
    assert np.sqrt((latents**2).mean()) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(encoder.transform(DOTS[:2]), latents[:2], atol=1e-5)
    with pytest.raises(InputError, match="fitted to 8"):
        encoder.transform(np.zeros((1, 2, 12, 12)))


def test_encoders_refuse_what_is_no_video():
    for wrong, what in (
        (DOTS[0], "is wanted"),
        (np.full((1, 2, 8, 8), np.nan), "finite"),
        (np.zeros((1, 2, 6, 6)), "multiple of 4"),
    ):
        with pytest.raises(InputError, match=what):
            FrameEncoder().fit(wrong)
    with pytest.raises(InputError, match="kind is"):
        FrameEncoder("vit").fit(DOTS)
    with pytest.raises(InputError, match="no 100 components"):
        FrameEncoder("pca", 100).fit(DOTS)


@pytest.mark.parametrize("slots", [0, 2])
def test_video_predictors_roll_out_states(slots):
    model = VideoPredictor(slots, 4, context=3, steps=3, batch=8).fit(list(DOTS))
    windows = DOTS[:5, :3]
    shown = windows / np.float32(255)
    made = model.rollout(windows, 6)
    assert made.shape == (5, 6, 4)

    @eqx.filter_jit
    def following(model, window):
        if slots:  # one step of the graph network after the slots of the window
            return model.step(model.slots(window)).ravel()
        return model.encoder(jnp.concatenate([window[1:], model(window)[None]]))  # its own picture comes in at the end

    first = np.stack([np.asarray(following(model.model_, jnp.asarray(window))) for window in shown])
    np.testing.assert_allclose(made[:, 0], (first - model.mean_) / model.scale_, atol=1e-4)
    with pytest.raises(InputError, match="longer than the context"):
        VideoPredictor(slots, 4, context=20).fit(list(DOTS))
    with pytest.raises(InputError, match="a multiple"):
        VideoPredictor(3, 4).fit(list(DOTS))


def test_a_tracker_without_noise_knows_where_the_ball_is():
    rng = np.random.default_rng(0)
    exact = Tracker(diffusion=0.0, misjudged=0.0, bounces=1.0)
    beliefs = exact.believe(TRIALS, 2, rng)
    np.testing.assert_allclose(beliefs[0, ..., :2], np.stack([TRIALS.x, TRIALS.y], axis=-1), atol=0.8)  # a bounce on the edge
    free = TRIALS.hidden_bounces == 0
    early = np.isfinite(TRIALS.x) & (np.arange(TRIALS.x.shape[1]) > TRIALS.hidden[:, None]) & free[:, None]
    assert np.abs(beliefs[0, ..., 4] - TRIALS.y_end[:, None])[early].max() < 1.0
    careless = Tracker(diffusion=0.0, misjudged=0.0, bounces=0.0).answers(TRIALS, 3, rng)
    wrong = np.abs(careless[0] - TRIALS.y_end)
    assert wrong[~free].mean() > 5 * max(wrong[free].mean(), 0.1)
    with pytest.raises(InputError, match="at least 1"):
        exact.believe(TRIALS, 0, rng)


def test_simulated_counts_have_the_rates_of_their_units():
    units = FrontalUnits.draw(10, np.random.default_rng(1))
    made = simulate_frontal(TRIALS, units, 60, 0)
    assert made.counts.shape == (60, 16, *made.frames.shape[1:], 10)
    seen = np.isfinite(made.frames)
    np.testing.assert_array_equal(np.isfinite(made.counts).all(axis=(0, 3)), seen)
    np.testing.assert_allclose(made.counts[:, seen].mean(axis=(0, 1)), made.rates[seen].mean(axis=0) * BIN, rtol=0.05)
    assert made.rates[seen].min() >= 2.0
    assert (np.nanmax(made.frames, axis=1) * FRAME > TRIALS.end * FRAME - BIN).all()
    hidden = simulate_frontal(TRIALS, units, 2, 0, only_hidden=True)
    np.testing.assert_array_equal(np.isfinite(hidden.counts[0, ..., 0]), made.hidden)


def test_values_between_frames_lie_on_a_line():
    values = np.arange(10.0)[None, :, None] * np.array([1.0, -2.0])
    found = at_frames(values, np.array([[0.0, 2.5, 9.0, np.nan]]))
    np.testing.assert_allclose(found[0, :3], [[0, 0], [2.5, -5], [9, -18]])
    assert np.isnan(found[0, 3]).all()


def test_half_of_the_scenes_end_in_contact_and_an_exact_observer_knows_which():
    scenes = colliding_balls(41, 12, 40, 0)
    assert scenes.contact.sum() == 20
    far = np.hypot(scenes.x[:, 0] - scenes.x[:, 1], scenes.y[:, 0] - scenes.y[:, 1])
    np.testing.assert_array_equal((far < 4).any(axis=1), scenes.contact)
    assert far[:, :12].min() >= 4
    exact = noisy_observer(scenes, 3, 0, noise=0.0)
    assert (exact[0] == scenes.contact).mean() > 0.85  # but for bounces in the last step that is shown
    assert scene_pictures(scenes, 4, 8, spot=4.0).shape == (41, 10, 8, 8)
    with pytest.raises(InputError, match="2 scenes"):
        colliding_balls(1, 5, 10, 0)


def test_published_recordings_are_read_where_they_are_trusted(tmp_path, monkeypatch):
    held = published(tmp_path, "perle")
    path = tmp_path / FILES["perle"]
    monkeypatch.setenv("BROADSHEET_TRUST", "0")
    with pytest.raises(UntrustedError, match="--trust"):
        read_frontal(path)
    monkeypatch.setenv("BROADSHEET_TRUST", "1")
    found = read_frontal(path)
    np.testing.assert_array_equal(found.responses, held["neural_responses"]["occ"].transpose(1, 2, 0))
    np.testing.assert_allclose(found.ball[0, 2:25, 0], np.linspace(4, 32, 23), atol=1e-9)
    assert (found.running.sum(), found.hidden.sum()) == (4 * 23, 4 * 11)
    trials, frames = as_trials(found)
    np.testing.assert_allclose(frames[0, 2:25], np.arange(23) * BIN / FRAME)
    np.testing.assert_allclose(
        trials.x[0, : trials.end[0] + 1], 4 + np.arange(trials.end[0] + 1) * FRAME / BIN * 28 / 22, atol=1e-9
    )
    assert trials.hidden[0] == np.ceil(12 * BIN / FRAME)
    assert not trials.bounces.any()
    with pytest.raises(MissingDataError, match="zenodo"):
        read_monkeys(str(tmp_path))
    published(tmp_path, "mahler", units=3)
    assert [r.responses.shape[-1] for r in read_monkeys(str(tmp_path)).values()] == [5, 3]
    for spoilt, what in (
        ({"masks": {}}, "has no masks/occ"), ({"masks": {"occ": {"start_end_pad0": np.ones((4, 9)), "occ_end_pad0": np.ones((4, 9))}}}, "are wanted"),
    ):  # fmt: skip
        path.write_bytes(pickle.dumps(held | spoilt))
        with pytest.raises(DataError, match=what):
            read_frontal(path)
    path.write_bytes(b"no pickle")
    with pytest.raises(DataError, match="not a pickle"):
        read_frontal(path)
