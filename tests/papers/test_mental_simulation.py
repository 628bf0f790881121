import dataclasses

import jax
import numpy as np
import pytest

from broadsheet.errors import MissingDataError
from broadsheet.papers import mental_simulation as module
from broadsheet.recordings import MentalPong
from pong_files import published
from quiet import Quiet


def test_a_rollout_follows_what_was_seen():
    trials = MentalPong().sample(6, 0)
    scene = module.Study(videos=4, test=6).scene(trials)
    assert (scene.first * 2 >= trials.hidden).all()
    assert ((scene.first - 1) * 2 < trials.hidden).all()
    seen = np.random.default_rng(0).normal(size=(6, scene.pictures.shape[1], 3))
    path = scene.continued(seen, np.full((6, 60, 3), 7.0))
    for row, latents, first in zip(path, seen, scene.first, strict=True):
        np.testing.assert_array_equal(row[:first], latents[:first])
        assert (row[first:] == 7).all()
    context = scene.contexts(seen, 7)
    np.testing.assert_array_equal(context[2], seen[2, scene.first[2] - 7 : scene.first[2]])
    np.testing.assert_array_equal(module.repeated_last(context)[:, 3], context[:, -1])


def test_the_elapsed_time_control_knows_nothing_but_time():
    config = module.Study(test=10, units=6, repeats=4, halves=1)
    brain = module.simulated_brain(config, np.random.default_rng(0))
    onehot = brain.elapsed()
    hidden = np.isfinite(brain.frames)
    np.testing.assert_array_equal(onehot[hidden].sum(axis=1), 1)
    assert np.isnan(onehot[~hidden]).all()
    for row, there in zip(onehot, hidden, strict=True):  # bins in their order
        np.testing.assert_array_equal(np.diff(row[there].argmax(axis=1)), 1)
    assert not np.isfinite(brain.responses[~hidden]).any()


def test_recordings_in_the_published_form_run_through_the_comparison(tmp_path, monkeypatch):
    experiment = module.paper.experiments["family_comparison"]
    small = dataclasses.replace(experiment.presets["smoke"], source="recorded", data=str(tmp_path), halves=1)
    with pytest.raises(MissingDataError, match="--data"):
        experiment.function(small, jax.random.key(0), Quiet())
    monkeypatch.setenv("BROADSHEET_TRUST", "1")
    for monkey, units in (("perle", 5), ("mahler", 3)):
        published(tmp_path, monkey, units=units, conditions=12)
    brain = module.recorded_brain(small)
    assert brain.responses.shape == (12, 30, 8)
    rng = np.random.default_rng(0)
    assert np.isfinite(brain.compare(rng.normal(size=(12, 30, 3))).rho).any()
    assert np.isfinite(brain.between_animals.r).all()
    scene = small.scene(brain.trials)
    assert (scene.first >= 7).all()
