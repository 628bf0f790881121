"""Cells that learn together against the same cells alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.neurons import ELMCell
from broadsheet.neurons.classification import accuracy, fit_classifier
from broadsheet.neurons.ensembles import (
    RecordingLoss,
    accuracies,
    clip_each,
    fit_recordings_together,
    fit_tasks_together,
    outputs,
    predict_together,
    recording_losses,
    stacked,
)
from broadsheet.neurons.sequence_tasks import clustered_bursts, marked_pulse
from broadsheet.neurons.surrogate import Windows, fit_recordings, predict_recordings
from broadsheet.neurons.tasks import branch_coincidences

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def recording():
    rng = np.random.default_rng(0)
    x = (rng.random((1, 400, 6)) < 0.1).astype(np.float32)
    y = np.stack([(x.sum(axis=2) > 1), x[..., 0] - x[..., 3]], axis=-1).astype(np.float32)
    return x, y


def test_cells_of_different_sizes_learn_as_they_do_alone(recording):
    x, y = recording
    cells = [ELMCell(6, 2, d, key=jax.random.key(d)) for d in (1, 4)]
    given = {"steps": 6, "rate": 1e-2, "key": KEY}
    together = fit_recordings_together(stacked(cells), Windows(jnp.asarray(x), jnp.asarray(y), 4, 12), **given)
    found = predict_together(together, x, 200)
    alone = fit_recordings(cells[0], x, y, ("spikes", "voltage"), batch=4, window=12, **given)
    np.testing.assert_allclose(found[0], predict_recordings(alone, x, 200), atol=2e-4)


def test_a_small_cell_in_a_large_one_says_the_same(recording):
    x, _ = recording
    cells = [ELMCell(6, 2, d, key=jax.random.key(d)) for d in (2, 7, 3)]
    found = outputs(stacked(cells), jnp.asarray(x))
    for cell, out in zip(cells, found, strict=True):
        np.testing.assert_allclose(out[0], cell(jnp.asarray(x[0])), atol=1e-5)


def test_tasks_are_learned_together_as_alone():
    cell = ELMCell(8, 2, 5, d_tree=2, d_brch=4, tau_m=(1.0, 50.0), key=KEY)
    tasks = [branch_coincidences, clustered_bursts]
    given = {"steps": 4, "batch": 8, "rate": 1e-2, "key": KEY}
    together = fit_tasks_together(stacked([cell, cell]), tasks, **given)
    alone = fit_classifier(cell, clustered_bursts, **given)
    member = jax.tree.map(lambda leaf: leaf[1] if eqx.is_array(leaf) else leaf, together.model)
    for one, other in zip(*(jax.tree.leaves(eqx.filter(each, eqx.is_array)) for each in (member, alone.model)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    found = accuracies(together.model, [clustered_bursts] * 2, 100, KEY)[1]
    assert found == pytest.approx(accuracy(member, clustered_bursts, 100, KEY))


def test_the_marked_pulse_is_the_one_beside_the_mark():
    x, which = map(np.asarray, marked_pulse(KEY, 300))
    assert x.shape == (300, 120, 3)
    assert (x[..., 2].sum(axis=1) == 1).all()
    when = x[..., 2].argmax(axis=1)
    assert when.max() < 40
    np.testing.assert_array_equal(x[np.arange(300), when, :2].argmax(axis=1), which)
    near = np.abs(np.arange(120) - when[:, None]) <= 15
    assert x[..., :2].sum(axis=2)[near].sum() == 300  # the marked one alone
    others = (x[..., :2] * ~near[..., None]).sum(axis=1)
    assert abs(others.sum() / (2 * (~near).sum()) - 0.03) < 0.003
    difference = (others[:, 0] - others[:, 1]) * (1 - 2 * which)
    assert abs(difference.mean()) < 4 * difference.std() / 300**0.5  # the others say nothing of the marked one


def test_bursts_differ_in_who_fires_together_and_in_nothing_else():
    x, clustered = map(np.asarray, clustered_bursts(KEY, 2000))
    assert (x.sum(axis=1) == 1).all()
    late = x.reshape(2000, 40, 2, 4).argmax(axis=1) >= 20
    assert set(late.sum(axis=2)[clustered == 1].ravel().tolist()) == {0, 4}
    assert set(late.sum(axis=2)[clustered == 0].ravel().tolist()) == {2}
    together = x.sum(axis=2)
    assert (together[:, :20].sum(axis=1) == 4).all()
    means = [together[clustered == label].mean(axis=0) for label in (0, 1)]
    assert np.abs(means[0] - means[1]).max() < 0.1
    assert 0.45 < clustered.mean() < 0.55


def test_gradients_are_clipped_member_by_member_and_losses_are_by_hand():
    gradient = {"a": jnp.asarray([[3.0, 0.0], [0.3, 0.0]]), "b": jnp.asarray([[[4.0]], [[0.4]]])}
    found, _ = clip_each(1.0).update(gradient, None)
    np.testing.assert_allclose(found["a"], [[0.6, 0], [0.3, 0]], rtol=1e-6)
    np.testing.assert_allclose(found["b"][:, 0, 0], [0.8, 0.4], rtol=1e-6)
    assert not np.asarray(clip_each(1.0).update(jax.tree.map(jnp.zeros_like, gradient), None)[0]["a"]).any()

    class Constant(eqx.Module):
        out: jax.Array

        def __call__(self, x):
            return jnp.broadcast_to(self.out, (len(x), 2))

    members = Constant(jnp.asarray([[0.0, 1.0], [2.0, -1.0]]))
    y = jnp.asarray([[[1.0, 3.0], [0.0, 0.0]]])
    losses = recording_losses(members, jnp.zeros((1, 2, 1)), y)
    chance = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(losses.spikes, [np.log(2), -(np.log(chance) + np.log(1 - chance)) / 2], rtol=1e-5)
    np.testing.assert_allclose(losses.voltage, [(4 + 1) / 2, (16 + 1) / 2], rtol=1e-6)
    assert float(RecordingLoss()(members, (jnp.zeros((1, 2, 1)), y), KEY)) == pytest.approx(
        float((losses.spikes + losses.voltage).sum()) / 2
    )
