"""Place modules against a simulation that keeps a trace on every synapse, and place recognition against its definitions."""

from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from broadsheet.dynamics import rollout
from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.plasticity import STDP, Triplet
from broadsheet.vision import ModularVPR, PlaceModule
from broadsheet.vision.pictures import patch_normalise
from broadsheet.vision.place_modules import PlaceCells, _draw, _most_events, _present, diehl_cook
from broadsheet.vision.places import (
    front_end,
    photographed,
    precision_recall,
    read_traverse,
    read_traverses,
    recall_at,
    similarity_by_difference,
    similarity_by_gradients,
)

run = eqx.filter_jit(lambda cells, drive, state=None: rollout(cells, drive, state=state))
draw = jax.jit(lambda rates, key: _draw(rates, key, 0.5, 8192))
present = eqx.filter_jit(_present)


def step_by_step(net, module, given):
    """One presentation with pre, post1 and post2 traces on each synapse, changed at each arrival and each spike."""
    cells, rule, dt = net.cells, net.rule, net.cells.dt
    pre_change = -float(rule.a_minus)
    w = np.asarray(net.normalised(module.weights), float)
    delays, inputs = np.asarray(module.delays), np.arange(w.shape[0])
    steps, sent = int(500 / dt), np.zeros((int(500 / dt), w.shape[0]), int)
    for s, i in zip(np.asarray(given.steps)[: int(given.drawn)], np.asarray(given.inputs), strict=False):
        sent[s, i] += 1
    since = np.asarray(module.since) - dt
    pre, post1, post2 = np.zeros_like(w), np.exp(-since / 20), np.exp(-since / 40)
    state = module.cells
    counts = np.zeros(w.shape[1])
    step = jax.jit(lambda state, drive: cells.step(state, drive))
    for t in range(steps):
        arrived = np.where(t >= delays, sent[np.maximum(t - delays, 0), inputs[:, None]], 0)
        state, fired = step(state, jnp.asarray((w * arrived).sum(axis=0), jnp.float32))
        pre, post1, post2 = pre * np.exp(-dt / 20), post1 * np.exp(-dt / 20), post2 * np.exp(-dt / 40)
        w = np.clip(w + pre_change * arrived * post1, 0, 1)
        pre = np.where(arrived > 0, 1.0, pre)
        fired = np.asarray(fired) > 0
        w[:, fired] = np.clip(w[:, fired] + 0.01 * pre[:, fired] * post2[fired], 0, 1)
        post1[fired] = post2[fired] = 1.0
        counts += fired * (t < 350 / dt)
    return w, counts, state


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_presentation_is_what_traces_on_every_synapse_make_of_it(sign):
    """With as many inputs as keep normalised weights below the rule's limit of 1, to which traces would cut them at once."""
    net = PlaceModule(PlaceCells(6, inhibit=2.0), diehl_cook(sign))
    module = net.init(jax.random.key(0), 200)
    rates = jnp.asarray(np.random.default_rng(0).uniform(0, 125, 200), jnp.float32)  # as many spikes as of 784 inputs
    given = draw(rates, jax.random.key(1))
    learned, counts = present(net, module, given)
    weights, expected, state = step_by_step(net, module, given)
    assert counts.sum() > 15
    np.testing.assert_array_equal(counts, expected)
    start = net.normalised(module.weights)
    assert start.max() < 1
    moved = np.abs(weights - start).max()
    assert moved > 0.005
    np.testing.assert_allclose(learned.weights, weights, atol=1e-5)
    v, before, expected = (np.asarray(s.exc.neuron.membrane.v) for s in (learned.cells, module.cells, state))
    assert np.abs(v - before).max() > 0.1  # the rest is too short to forget all
    np.testing.assert_allclose(v, expected, atol=1e-4)
    _, counted = present(net, learned, given)
    np.testing.assert_array_equal(counted, step_by_step(net, learned, given)[1])


def test_a_query_is_answered_from_where_the_last_one_left_the_potentials():
    """Counts of two images in turn against the cells stepped through both, with the rest after each."""
    net = PlaceModule(PlaceCells(6, inhibit=2.0))
    module = net.init(jax.random.key(0), 100)
    images = np.random.default_rng(0).uniform(0, 900, (2, 100)).clip(0, 255)
    key, size = jax.random.key(1), _most_events(np.float32(images / net.intensity))
    found = net.respond(module, images, key)
    weights, delays = np.asarray(net.normalised(module.weights)), np.asarray(module.delays)
    cells, state = net.cells.frozen(), net.cells.start(module.rise)
    drawn = jax.jit(lambda image, k: _draw(image, jax.random.fold_in(key, k), 0.5, size))
    for k, image in enumerate(images):
        given = drawn(np.float32(image / net.intensity), k)
        drive = np.zeros((1000, 6))
        for s, i in zip(np.asarray(given.steps)[: int(given.drawn)], np.asarray(given.inputs), strict=False):
            drive[s + delays[i], np.arange(6)] += weights[i]
        state, fired = run(cells, np.float32(drive), state)
        np.testing.assert_allclose(np.asarray(fired)[:700].sum(axis=0), found[k], atol=1)  # sums are rounded otherwise


def test_input_spikes_are_a_poisson_process():
    rates = jnp.array([10.0, 0.0, 40.0])
    every = jax.jit(jax.vmap(lambda key: _draw(rates, key, 0.5, 1024)))(jax.random.split(jax.random.key(0), 300))
    every = jax.tree.map(np.asarray, every)
    drawn = [jax.tree.map(lambda part, k=k: part[k], every) for k in range(300)]
    counts = np.array([np.bincount(d.inputs[: int(d.drawn)], minlength=3) for d in drawn])
    np.testing.assert_allclose(counts.mean(axis=0), [3.5, 0, 14], atol=0.6)
    np.testing.assert_allclose(counts.var(axis=0), [3.5, 0, 14], rtol=0.25, atol=1e-9)
    steps = np.concatenate([d.steps[: int(d.drawn)] for d in drawn])
    assert steps.max() < 700
    assert abs(steps.mean() - 349.5) < 10


def test_neurons_wait_and_silence_each_other():
    """Under a strong steady drive: spikes of a neuron 50 ms apart, and fewer with inhibition than without."""
    drive = jnp.full((700, 4), 3.0)
    found = {inhibit: run(PlaceCells(4, inhibit=inhibit), drive) for inhibit in (0.0, 17.0)}
    spikes = {inhibit: np.asarray(fired) for inhibit, (_, fired) in found.items()}
    for k in range(4):
        assert (np.diff(np.flatnonzero(spikes[0.0][:, k])) >= 100).all()
    assert spikes[0.0].sum() == 4 * 7
    np.testing.assert_allclose(found[0.0][0].exc.rise, 7 * 0.05, rtol=1e-3)


def test_patches_are_normalised_by_their_windows():
    image = np.random.default_rng(0).uniform(0, 255, (1, 12, 12))
    found = patch_normalise(image, 7)[0]
    for y, x in ((0, 0), (5, 6), (11, 3)):
        window = image[0, max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
        assert abs(found[y, x] - np.clip((image[0, y, x] - window.mean()) / window.std(), -1, 1)) < 1e-9
    assert not patch_normalise(np.ones((1, 8, 8))).any()
    seen = front_end(255 * np.random.default_rng(1).random((2, 90, 120)))
    assert seen.shape == (2, 28, 28)
    assert (seen == np.floor(seen)).all()
    assert 0 <= seen.min() <= seen.max() <= 255


def test_recall_and_precision():
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.6, 0.5, 0.7], [0.0, 0.0, 0.0]])
    truth = np.array([0, 1, 0, 0])
    assert recall_at(scores, truth, (1, 2, 3)) == {1: 0.25, 2: 0.75, 3: 0.75}
    assert recall_at(scores, truth, (1,), tolerance=1)[1] == 0.5
    curve = precision_recall(scores, truth)
    assert curve.precision[0] == 1.0
    assert curve.recall[-1] == curve.recall_at_full_precision == 0.25
    assert abs(precision_recall(np.eye(5), np.arange(5)).area - 1) < 1e-9


@pytest.fixture(scope="module")
def route():
    """Four places with a bright quarter each, twice to learn and once to recognise, with noise."""
    rng = np.random.default_rng(0)
    quarter = np.arange(20) // 10
    bright = quarter[:, None] * 2 + quarter == np.arange(4)[:, None, None]
    images = np.clip(180 * bright + rng.uniform(0, 60, (3, 4, 20, 20)), 0, 255)
    return images[:2], images[2]


def test_modules_learn_and_answer(route):
    """Two modules of two places, against a chance of 1/4; the same through an executor."""
    reference, queries = route
    model = ModularVPR(2, 10, epochs=3).fit(reference).record(reference)
    assert model.score(queries, np.arange(4)) >= 0.75
    assert set(model.assignment_[:10]) <= {-1, 0, 1}
    assert set(model.assignment_[10:]) <= {-1, 2, 3}
    once = ModularVPR(2, 10, epochs=1)
    with ThreadPoolExecutor(2) as executor:
        parallel = once.fit(reference, executor=executor).modules_[1].weights
    np.testing.assert_array_equal(parallel, once.fit(reference).modules_[1].weights)
    counts = model.responses(queries)
    np.testing.assert_array_equal(model.hyperactivity_ >= 1, ~model.silenced(0) & model.silenced(1))
    assert not model.place_scores(counts, 1).any()
    assert (ModularVPR.predict(model.set_params(hyperactive=1), queries) == -1).all()
    assert model.calibrate(queries, np.arange(4), [0, 1, 100]).hyperactive in (0, 100)
    by_hand = counts[2, model.assignment_ == 3].mean() if (model.assignment_ == 3).any() else 0.0
    assert abs(model.place_scores(counts, 0)[2, 3] - by_hand) < 1e-5
    for plain in (similarity_by_difference, similarity_by_gradients):
        assert (plain(reference, reference[0]).argmax(axis=1) == np.arange(4)).all()


def test_places_of_photographs():
    """Appearances differ, places are the same: the plain difference still finds them."""
    reference, queries = photographed(6, np.random.default_rng(0), variants=2)
    assert reference.shape == queries.shape == (2, 6, 28, 28)
    assert (similarity_by_difference(reference, queries[1]).argmax(axis=1) == np.arange(6)).all()
    assert np.abs(queries[0] - reference[0]).mean() > 1


def write(folder, images):
    folder.mkdir(parents=True)
    for k, image in enumerate(images):
        Image.fromarray(image.astype(np.uint8)).save(folder / f"place_{k:03d}.png")


def test_traverses_from_folders(tmp_path):
    images = 255 * np.random.default_rng(0).random((3, 40, 50))
    for name in ("fall", "spring", "summer"):
        write(tmp_path / name, images)
    found = read_traverses(tmp_path, "spring")
    assert found.reference.shape == (2, 3, 28, 28)
    np.testing.assert_array_equal(found.query, front_end(images.astype(np.uint8)))
    assert read_traverses(tmp_path, places=2).query.shape == (2, 28, 28)
    assert read_traverse(tmp_path / "fall")[1] == ["place_000.png", "place_001.png", "place_002.png"]
    (tmp_path / "fall" / "place_001.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"place_001.png is no image"):
        read_traverse(tmp_path / "fall")
    (tmp_path / "fall" / "place_001.png").unlink()
    with pytest.raises(DataError, match="different numbers"):
        read_traverses(tmp_path)
    with pytest.raises(DataError, match="no folder 'winter'"):
        read_traverses(tmp_path, "winter")
    for missing in (None, tmp_path / "fall"):
        with pytest.raises(MissingDataError, match="Traverses are needed"):
            read_traverses(missing)
    with pytest.raises(MissingDataError, match="no folder with images"):
        read_traverse(tmp_path)


def test_a_module_takes_another_rule():
    """Pairs of nearest spikes, with amplitudes of zero: the weights stay as they are normalised."""
    net = PlaceModule(PlaceCells(4), STDP(a_plus=0.0, a_minus=0.0, pairing="nearest", dt=0.5), norm=30.0)
    module = net.init(jax.random.key(0), 100)
    learned, counts = net.train(module, np.full((2, 100), 255.0), jax.random.key(1))
    assert counts.sum() > 4
    np.testing.assert_allclose(learned.weights, net.normalised(module.weights), rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [lambda: patch_normalise(np.ones((1, 9, 9)), 4), lambda: photographed(10_000, np.random.default_rng(0)),
     lambda: ModularVPR().fit(np.ones((3, 28, 28))), lambda: ModularVPR(0).fit(np.ones((1, 2, 28, 28))),
     lambda: front_end([]), lambda: PlaceModule(PlaceCells(2), STDP(dt=0.5)), lambda: PlaceModule(PlaceCells(2), Triplet(dt=0.5, pairing="nearest")),
     lambda: PlaceModule(PlaceCells(2)).respond(PlaceModule(PlaceCells(2)).init(jax.random.key(0)), np.ones((1, 9)), jax.random.key(0)),
     lambda: PlaceModule(PlaceCells(2)).respond(PlaceModule(PlaceCells(2)).init(jax.random.key(0), 9), 300 * np.ones((1, 9)),
                                                jax.random.key(0))],
)  # fmt: skip
def test_mistakes_are_named(make):
    with pytest.raises(InputError):
        make()
