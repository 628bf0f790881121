import gzip
import struct

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import softmax

from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.networks import ContinualClassifier, continual
from broadsheet.networks.continual import DSR, SpikingMLP, _importance, backward_transfer, final_accuracy
from broadsheet.networks.layers import fire, fire_online
from broadsheet.neurons import LIF
from broadsheet.plasticity import LateralSubspace
from broadsheet.vision.images import cifar, digits, mnist

SMALL = {
    "hidden": (12,),
    "classes": 3,
    "rows": ((5, 3), (3, 2)),
    "row_rates": (0.01, 0.01),
    "epochs": 2,
    "batch": 16,
    "steps": 4,
}


def test_rates_of_the_neuron_are_those_of_the_paper():
    """Constant currents 1, 2, 4 and 8 over 20 steps: weighted rates 1.25, 2.06, 4.22 and 6, the ceiling."""
    neuron = DSR()
    cell = neuron.cell(4)
    current = np.tile(np.float32([1.0, 2.0, 4.0, 8.0]), (20, 1, 1))
    rate = jax.jit(lambda current: neuron.rate(fire(cell, (1 - cell.leak) * current)))(current)
    np.testing.assert_allclose(rate[0], [1.25, 2.06, 4.22, 6.0], atol=0.01)
    assert neuron.ceiling == pytest.approx(6.0)


@eqx.filter_jit
def slope_and_activity(net, x, delta):
    """Derivatives by the weights of the sum of delta times the logits, and the activity before each layer."""

    def total(net):
        logits, activity = net(x)
        return jnp.sum(delta * logits), activity

    gradient, activity = jax.grad(total, has_aux=True)(net)
    return gradient.W, activity


@pytest.mark.parametrize("feedback", ["bp", "fa", "ss"])
def test_derivatives_on_rates_follow_the_chain_rule(feedback):
    """dW2 = delta a^T and dW1 = (delta B * mask) x^T / tau, with the mask of rates between 0 and the ceiling."""
    net = SpikingMLP((5, 7, 3), feedback=feedback, steps=10, key=jax.random.key(0))
    rng = np.random.default_rng(1)
    x, delta = (rng.standard_normal((6, n)).astype(np.float32) for n in (5, 3))
    x *= 3
    gradient, (_, rate) = slope_and_activity(net, x, delta)
    np.testing.assert_allclose(gradient[1], delta.T @ rate, rtol=1e-4, atol=1e-5)
    W, random = (tuple(map(np.asarray, each)) for each in (net.W, net.random))
    mean = x @ W[0].T
    back = {"bp": W[1], "fa": random[1], "ss": np.sign(W[1]) * np.abs(W[1]).mean()}[feedback]
    inner = np.where((mean > 0) & (mean < 6), delta @ back, 0.0)
    np.testing.assert_allclose(gradient[0], inner.T @ x, rtol=1e-4, atol=1e-5)


def test_hidden_rates_are_those_of_the_spikes():
    net = SpikingMLP((5, 7, 3), steps=10, key=jax.random.key(0))
    x = 3 * np.random.default_rng(1).standard_normal((6, 5)).astype(np.float32)
    neuron = DSR()
    cell = neuron.cell(7)

    @eqx.filter_jit
    def both(net, x):
        fired = fire(cell, (1 - cell.leak) * jnp.broadcast_to(x @ net.W[0].T, (10, 6, 7)))
        return net(x), neuron.rate(fired)

    (logits, (first, rate)), expected = jax.tree.map(np.asarray, both(net, x))
    np.testing.assert_array_equal(first, x)
    np.testing.assert_allclose(rate, expected, atol=1e-6)
    np.testing.assert_allclose(logits, rate @ np.asarray(net.W[1]).T, rtol=1e-5, atol=1e-5)
    assert rate.max() > 1


def test_online_traces_equal_the_sum_over_time():
    """OTTT's gradient: errors of each step, through space alone, times the filtered input; written out for one layer."""
    net = SpikingMLP((4, 3), rule="ottt", steps=5, key=jax.random.key(0))
    rng = np.random.default_rng(1)
    x, delta = (rng.standard_normal((2, n)).astype(np.float32) for n in (4, 3))
    (gradient,), _ = slope_and_activity(net, x, delta)
    np.testing.assert_allclose(gradient, delta.T @ x, rtol=1e-5, atol=1e-6)


def two_tasks():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2, 3, 20))
    y = np.repeat(np.arange(3), 32)
    X = [centres[k, y] + 0.3 * rng.standard_normal((96, 20)) for k in range(2)]
    return [(part.astype(np.float32), y) for part in X]


@pytest.mark.parametrize("options", [{}, {"projection": "svd"}, {"projection": "none", "ewc": 1.0}, {"rule": "bptt"},
                                     {"projection": "random"}, {"projection": "none", "replay": 4}, {"rule": "ottt"},
                                     {"projection": "none", "replay": 4, "mixed": True}])  # fmt: skip
def test_every_method_learns_two_tasks(options):
    learner = ContinualClassifier(**(SMALL | {"epochs": 8} | options))
    for task in two_tasks():
        learner.fit_task(*task)
        assert learner.score(*task) > 0.8
    assert learner.tasks_ == 2
    if options.get("projection", "hebbian") != "none":
        assert [int(s.old) for s in learner.subspaces_] == [8, 5]


@pytest.mark.parametrize("rule", ["dsr", "bptt", "ottt"])
@pytest.mark.parametrize("batch", [2, 40])
def test_gradients_are_the_plain_ones_less_their_part_in_the_old_rows(rule, batch):
    """For few and many examples: the smaller of what weights see and their gradient is projected."""
    rng, sizes = np.random.default_rng(0), (12, 9, 7, 3)
    net = SpikingMLP(sizes, rule=rule, steps=4, key=jax.random.key(0))
    net = eqx.tree_at(lambda net: net.W, net, tuple(jnp.asarray(2 * np.asarray(W)) for W in net.W))
    x = 2 * rng.standard_normal((batch, 12)).astype(np.float32)
    y = rng.integers(0, 3, batch)
    subspaces = tuple(LateralSubspace(n).grow(3, jax.random.key(n)).freeze() for n in sizes[:-1])

    @eqx.filter_grad
    def gradient(net, x, subspaces):
        return optax.softmax_cross_entropy_with_integer_labels(net(x, subspaces)[0], y).mean()

    both = eqx.filter_jit(lambda *given: [gradient(*given, each).W for each in (None, subspaces)])(net, x)
    for plain, found, subspace in zip(*jax.tree.map(np.asarray, both), subspaces, strict=True):
        H = np.asarray(subspace.H)
        assert np.abs(plain).max() > 1e-4
        np.testing.assert_allclose(found, plain - plain @ H.T @ H, atol=1e-5 * np.abs(plain).max())


def test_importance_is_the_mean_square_of_each_examples_gradient():
    """Of one layer the gradient of the cross-entropy is (softmax - label) x."""
    rng = np.random.default_rng(0)
    net = SpikingMLP((5, 3), steps=10, key=jax.random.key(0))
    x, y = rng.standard_normal((6, 5)).astype(np.float32), np.array([0, 1, 2, 2, 0, 1])
    (found,) = _importance(net, jnp.asarray(x), jnp.asarray(y), jnp.ones(3, bool))
    each = (softmax(x @ np.asarray(net.W[0]).T, axis=1) - np.eye(3)[y])[:, :, None] * x[:, None]
    np.testing.assert_allclose(found, (each**2).mean(axis=0), rtol=1e-4)


def test_old_answers_stay_when_rows_span_the_old_inputs():
    """With as many rows as old inputs have dimensions, a projected step cannot change what they give."""
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((20, 4)))[0]
    y = np.repeat(np.arange(3), 32)
    first = (rng.standard_normal((96, 4)) @ basis.T).astype(np.float32)
    learner = ContinualClassifier(**(SMALL | {"hidden": (), "rows": ((4,), (4,)), "row_rates": (0.01,), "projection": "svd"}))
    learner.fit_task(first, y)
    before = learner.decision_function(first)
    learner.fit_task(rng.standard_normal((96, 20)).astype(np.float32), y)
    np.testing.assert_allclose(learner.decision_function(first), before, atol=1e-4)


def test_each_batch_has_as_many_kept_examples_with_their_own_heads():
    (X, y), (other, _) = two_tasks()
    learner = ContinualClassifier(**(SMALL | {"projection": "none", "replay": 4, "mixed": True, "classes": 6}))
    learner.fit_task(X, y, classes=(0, 1, 2))
    order = np.arange(96).reshape(6, 16)
    (made, labels, allowed), places = learner._mixture(
        other[order], y[order] + 3, learner._mask((3, 4, 5)), np.random.default_rng(0)
    )
    assert places.shape == (6, 32)
    for batch in places:
        np.testing.assert_array_equal(allowed[batch], np.repeat(np.eye(2, dtype=bool)[[1, 0]], 3, axis=1).repeat(16, axis=0))
        old = np.asarray(made)[batch[16:]]
        assert all((row == learner.kept_[0][0]).all(axis=1).any() for row in old)
    np.testing.assert_array_equal(np.asarray(made)[places[:, :16]], other[order])
    np.testing.assert_array_equal(np.asarray(labels)[places[:, :16]], y[order] + 3)


def test_rows_by_svd_are_the_principal_directions_of_what_is_left():
    """Of a task's activity less the old rows, as NumPy's SVD of all of it at once finds them."""
    (X, y), (other, _) = two_tasks()
    learner = ContinualClassifier(**(SMALL | {"projection": "svd"})).fit_task(X, y)
    for layer, m in enumerate(SMALL["rows"][0]):
        right = np.linalg.svd(learner.activity(X)[layer])[2][:m]
        np.testing.assert_allclose(right.T @ right, (H := np.asarray(learner.subspaces_[layer].H)[:m]).T @ H, atol=1e-4)
    learner.fit_task(other, y)
    for layer, (old, m) in enumerate(zip(*SMALL["rows"], strict=True)):
        rows = np.asarray(learner.subspaces_[layer].H)[: old + m]
        np.testing.assert_allclose(rows @ rows.T, np.eye(old + m), atol=1e-4)


def test_a_network_is_read_in_parts(monkeypatch):
    (X, y), _ = two_tasks()
    learner = ContinualClassifier(**SMALL).fit_task(X, y)
    whole, activity = learner.decision_function(X), learner.activity(X)
    monkeypatch.setattr(continual, "PART", 4 * 20 * 10)
    assert [len(logits) for logits, _ in continual.in_parts(learner.model_, X)] == [10] * 9 + [6]
    np.testing.assert_allclose(learner.decision_function(X), whole, atol=1e-6)
    for one, other in zip(learner.activity(X), activity, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_heads_scores_and_mistakes():
    (X, y), _ = two_tasks()
    learner = ContinualClassifier(**SMALL).fit_task(X, np.minimum(y, 1), classes=[0, 1])
    assert set(learner.predict(X, classes=[0, 1])) <= {0, 1}
    A = np.array([[0.9, np.nan], [0.7, 0.8]])
    assert final_accuracy(A) == pytest.approx(0.75)
    assert backward_transfer(A) == pytest.approx(-0.2)
    for make, said in (
        (lambda: learner.fit_task(X[:, :3], y), "X has the shape"), (lambda: learner.fit_task(X, y + 5), "labels from 0 to 2"),
        (lambda: learner.fit_task(X[:4], y[:4]), "at least one batch"), (lambda: learner.predict(X * np.nan), "NaN"),
        (lambda: ContinualClassifier(**(SMALL | {"rows": ((5,),)})).fit(X, y), "rows and row_rates"),
        (lambda: SpikingMLP((3,), key=jax.random.key(0)), "sizes"),
        (lambda: SpikingMLP((3, 2), steps=0, key=jax.random.key(0)), "steps = 0"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            make()


def test_images_are_read_as_published(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (30, 28, 28), dtype=np.uint8), rng.integers(0, 10, 30, dtype=np.uint8)
    for part in ("train", "t10k"):
        images = struct.pack(">HBBIII", 0, 8, 3, 30, 28, 28) + x.tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(images)
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, 30) + y.tobytes()))
    found = mnist(tmp_path)
    np.testing.assert_allclose(found.x, x / 255, atol=1e-6)
    np.testing.assert_array_equal(found.test_y, y)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    np.testing.assert_allclose(mnist(tmp_path / "mnist.npz").test_x, x / 255, atol=1e-6)
    (tmp_path / "mnist.npz").unlink()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(images[:-5])
    with pytest.raises(DataError, match="its header says"):
        mnist(tmp_path)
    with pytest.raises(MissingDataError, match="MNIST is needed"):
        mnist(None)

    pixels = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
    rows = np.concatenate([np.arange(4, dtype=np.uint8)[:, None], pixels], axis=1)
    for name in [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]:
        (tmp_path / name).write_bytes(rows.tobytes())
    images = cifar(tmp_path)
    assert images.x.shape == (20, 32, 32, 3)
    np.testing.assert_allclose(images.test_x[1, 2, 3], pixels[1].reshape(3, 32, 32)[:, 2, 3] / 255, atol=1e-6)
    (tmp_path / "train.bin").write_bytes(rows.tobytes())
    with pytest.raises(DataError, match="no multiple of 3074"):
        cifar(tmp_path, 100)
    assert digits(rng, scale=3.5).x.shape == (1400, 28, 28)


def test_online_spikes_are_the_same_and_their_derivatives_stay_in_their_step():
    cell = LIF(3, tau=2.0, rest=0.0, threshold=1.0, reset=None, dt=1.0)
    drive = 1.5 * np.random.default_rng(0).random((12, 2, 3), np.float32)

    def fired(drive, run):
        spikes = run(cell, drive)
        return spikes[-1].sum(), spikes

    both = jax.jit(lambda drive: [jax.grad(fired, has_aux=True)(drive, run) for run in (fire_online, fire)])(drive)
    through, spikes = zip(*jax.tree.map(np.asarray, both), strict=True)
    np.testing.assert_array_equal(*spikes)
    assert not through[0][:-1].any()
    assert through[1][:-1].any()
    np.testing.assert_allclose(through[0][-1], through[1][-1], rtol=1e-5)
