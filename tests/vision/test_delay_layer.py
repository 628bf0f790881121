import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import rollout
from broadsheet.errors import DataError, InputError, MissingDataError
from broadsheet.neurons import LIF
from broadsheet.vision import DelayConv, MotionDetector
from broadsheet.vision.delay_layer import FEW, cone_mask, contexts, dense_evidence
from broadsheet.vision.event_movies import (
    Movie,
    frames_to_events,
    motion_cloud,
    motions,
    natworld,
    read_images,
    sample_images,
)
from broadsheet.vision.pictures import whiten


@pytest.fixture(scope="module")
def layer():
    rng = np.random.default_rng(0)
    return DelayConv(
        rng.standard_normal((3, 2, 4, 3, 5)).astype(np.float32), rng.standard_normal(3).astype(np.float32), size=(9, 8)
    )


@pytest.fixture(scope="module")
def stream():
    return np.random.default_rng(1).random((2, 20, 9, 8)) < 0.1


def by_definition(layer, A):
    """The sum over synapses, written out."""
    K = np.asarray(layer.K)
    classes, polarities, delays, kx, ky = K.shape
    _, steps, nx, ny = A.shape
    out = np.zeros((classes, steps, nx, ny))
    for p, t, x, y in np.argwhere(A):
        for d in range(delays):
            for i in range(kx):
                for j in range(ky):
                    a, b = x + i - kx // 2, y + j - ky // 2
                    if t + d < steps and 0 <= a < nx and 0 <= b < ny:
                        out[:, t + d, a, b] += K[:, p, d, i, j]
    return out + np.asarray(layer.bias)[:, None, None, None]


def test_convolution_events_steps_and_contexts_agree_with_the_definition(layer, stream):
    expected = by_definition(layer, stream)
    np.testing.assert_allclose(layer.evidence(stream), expected, atol=1e-4)
    np.testing.assert_allclose(layer.evidence(stream, "fft"), expected, atol=1e-4)
    few = stream & (np.random.default_rng(3).random(stream.shape) < 0.1)
    assert few.mean() < FEW < stream.mean()  # events are walked, and summed
    for A in (few, stream):
        np.testing.assert_allclose(layer.to_synapses().run(A), by_definition(layer, A), atol=1e-4)
        twice = tuple(np.repeat(part, 2) for part in np.nonzero(A))
        bias = np.asarray(layer.bias)[:, None, None, None]
        as_list = layer.to_synapses().run(twice, A.shape) - bias
        np.testing.assert_allclose(as_list, 2 * (by_definition(layer, A) - bias), atol=2e-4)
    _, steps = rollout(layer, jnp.asarray(stream.transpose(1, 0, 2, 3), jnp.float32))
    np.testing.assert_allclose(jnp.moveaxis(steps, 1, 0), expected, atol=1e-4)

    square = DelayConv(np.random.default_rng(2).standard_normal((3, 2, 4, 3, 3)).astype(np.float32))
    where = tuple(part[np.nonzero(stream)[1] >= 3] for part in np.nonzero(stream))
    past = contexts(stream, where, 4, 3)
    linear = past.reshape(len(past), -1) @ np.asarray(square.K).reshape(3, -1).T
    aligned = np.where(
        where[0] == 1, *(by_definition(square, A)[:, where[1], where[2], where[3]] for A in (stream, stream[::-1]))
    )
    np.testing.assert_allclose(linear.T, aligned, atol=1e-4)


def test_pruning_shortening_and_shuffling(layer):
    K = np.abs(np.asarray(layer.K))
    pruned = np.asarray(layer.prune(0.25).K)
    assert (pruned != 0).sum() == K.size // 4
    assert K[pruned != 0].min() >= K[pruned == 0].max()
    assert (np.asarray(layer.prune(0.25, key=jax.random.key(0)).K) != 0).sum() == K.size // 4
    assert not np.asarray(layer.shorten(2).K)[:, :, 2:].any()
    shuffled = np.asarray(layer.shuffle_delays(jax.random.key(0)).K)
    np.testing.assert_allclose(np.sort(shuffled, axis=2), np.sort(np.asarray(layer.K), axis=2))
    assert len(layer.prune(0.1).to_synapses().weight) == round(0.1 * K.size)


def test_synapses_drive_spiking_neurons(layer, stream):
    """A neuron that forgets at once fires where the drive of that step is above its threshold."""
    table = layer.to_synapses()
    drive = table.run(stream) - table.bias[:, None, None, None]
    spikes = table.spikes(stream, lambda n: LIF(n, tau=1e-3, rest=0.0, threshold=1.0, reset=0.0, dt=1.0))
    np.testing.assert_array_equal(spikes, drive > 1)
    assert 0 < spikes.mean() < 0.5


def test_frames_become_events_as_the_authors_program_and_as_a_camera_make_them():
    """A ramp in one pixel: the program forgets what is left of a step, a camera carries it on."""
    frames = np.zeros((12, 1, 4))
    frames[1:, 0, 0] = np.cumsum([0, 0, 5, 0.5, 5, 0, 0, 0, -5, 0, 0])
    theta = np.diff(frames, axis=0, prepend=frames[:1]).std()
    for mode in ("code", "accumulate"):
        events = frames_to_events(frames, mode=mode)
        assert not events[:, :, 0, 1:].any()
        residual = kept = 0.0
        for t in range(1, 12):
            change = frames[t, 0, 0] - frames[t - 1, 0, 0]
            residual = (kept if mode == "accumulate" else 0) + change - (0 if mode == "accumulate" else kept)
            sign = int(residual > theta) - int(residual < -theta)
            kept = residual - theta * sign if mode == "accumulate" else theta * sign
            assert events[1, t, 0, 0] == (sign > 0)
            assert events[0, t, 0, 0] == (sign < 0)


def test_the_threshold_is_the_deviation_of_changes_between_frames():
    """A pixel whose change lies just above or below that of the ten frames' nine changes; no change is put in front."""
    frames = np.cumsum(np.random.default_rng(0).normal(size=(10, 5, 4)), axis=0)
    deviation = np.std([frames[t + 1] - frames[t] for t in range(9)])
    largest = np.abs(frames[1] - frames[0])
    first = frames_to_events(frames, selectivity=1.0)[:, 1].any(axis=0)
    np.testing.assert_array_equal(first, largest > deviation)
    place = np.unravel_index(largest.argmax(), largest.shape)
    for factor, fires in ((0.999, True), (1.001, False)):
        events = frames_to_events(frames, selectivity=factor * largest.max() / deviation)
        assert events[:, 1, place[0], place[1]].any() == fires
    assert not frames_to_events(frames[:1]).any()


def test_score_counts_the_bins_that_have_usable_events():
    """Of bins without events the answer is that of the bin before, which is no answer."""
    rng = np.random.default_rng(2)
    movies = [Movie(rng.random((2, 40, 8, 8)) < 0.1, rng.integers(0, 2, 40)) for _ in range(2)]
    detector = MotionDetector(3, 3, iterations=40).fit(movies)
    events, labels = np.array(movies[0].events), movies[0].labels
    events[:, ::2] = False
    used = [t for t in range(2, 40) if events[:, t].any()]
    answers = detector.predict(events)
    right = np.mean([answers[t] == labels[t] for t in used])
    assert detector.score([Movie(events, labels)]) == pytest.approx(right)
    assert len(used) == 19
    assert np.isnan(detector.score([Movie(np.zeros_like(events), labels)]))


def test_movies_move_as_their_labels_say():
    """The best shift between frames' events, by cross-correlation, is the motion of the label."""
    rng = np.random.default_rng(0)
    images = sample_images()
    assert abs(images[0].mean()) < 1e-9
    velocities = motions(4, (1.0,))
    movie = natworld(rng, images[0], velocities, side=48, steps=40, switch=0.0)
    assert (movie.labels == movie.labels[0]).all()
    late, early = (movie.events[1, t].sum(axis=0).astype(float) for t in (slice(24, 28), slice(20, 24)))
    correlation = np.fft.ifft2(np.fft.fft2(late - late.mean()) * np.conj(np.fft.fft2(early - early.mean()))).real
    shift = np.array(np.unravel_index(correlation.argmax(), correlation.shape))
    shift = (shift + 24) % 48 - 24
    np.testing.assert_allclose(shift, 4 * velocities[movie.labels[0]], atol=1.0)


def test_clouds_move_and_rings_of_speeds_turn():
    cloud = motion_cloud(np.random.default_rng(0), (1.0, 0.0), side=32, steps=32, frequency=0.1)
    still = np.corrcoef(cloud[0].ravel(), cloud[8].ravel())[0, 1]
    moved = np.corrcoef(np.roll(cloud[0], 8, axis=0).ravel(), cloud[8].ravel())[0, 1]
    assert moved > still + 0.3
    v = motions(12, (0.25, 0.5))
    np.testing.assert_allclose(np.hypot(*v.T), np.repeat([0.25, 0.5], 12))
    np.testing.assert_allclose(np.degrees(np.arctan2(*v[12][::-1])), 15.0)


def test_detector_learns_motion_and_spikes_at_the_rate_asked_for():
    rng = np.random.default_rng(3)
    images, velocities = sample_images(), motions(4, (0.63,))
    movies = [natworld(rng, images[k % 2], velocities, side=32, steps=50) for k in range(14)]
    detector = MotionDetector(5, 5, samples=150, iterations=40).fit(movies[:10])
    assert detector.score(movies[10:]) > 0.7
    with_one_delay = MotionDetector(1, 5, samples=150, iterations=40).fit(movies[:10])
    assert with_one_delay.score(movies[10:]) < detector.score(movies[10:]) - 0.2
    rate = detector.spikes(movies[0].events, rate=4.0).mean() * 1000
    assert abs(rate - 4) < 0.5


def test_mask_and_flips():
    mask = cone_mask(5, 9)
    assert mask[0, 4, 4] == mask.max()
    assert mask[0, 0, 4] < mask[4, 0, 4]
    assert mask[:, 0, 0].max() == 0
    A = jnp.zeros((2, 6, 5, 5)).at[1, 2, 2, 2].set(1.0)
    layer = DelayConv(np.random.default_rng(0).standard_normal((2, 2, 3, 3, 3)).astype(np.float32))
    np.testing.assert_allclose(dense_evidence(layer, A), dense_evidence(layer, A[::-1]))
    np.testing.assert_allclose(dense_evidence(layer, A, flips=False), layer.evidence(A), atol=1e-5)


def test_mistakes_are_named(tmp_path, layer, stream):
    rng = np.random.default_rng(0)
    table = layer.to_synapses()
    for make, said in (
        (lambda: DelayConv(np.zeros((2, 2, 3, 4, 3))), "odd kx"), (lambda: layer.prune(0.0), "fraction = 0.0"),
        (lambda: layer.shorten(9), "delays = 9"), (lambda: table.run(tuple(np.array([[0], [30], [0], [0]]))), "shape"),
        (lambda: table.run(tuple(np.array([[0], [30], [0], [0]])), stream.shape), "1 events lie outside"),
        (lambda: MotionDetector(3, 4).fit([]), "side = 4"), (lambda: natworld(rng, np.ones((60, 60)), motions(4, (0.5,))), "too small"),
        (lambda: frames_to_events(np.full((3, 2, 2), np.nan)), "NaN"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            make()
    with pytest.raises(MissingDataError, match="Natural images are needed"):
        read_images(None)
    np.savez(tmp_path / "a.npz", a=rng.random((2, 40, 40)), b=rng.random((50, 40)))
    assert [image.shape for image in read_images(tmp_path / "a.npz")] == [(40, 40), (40, 40), (50, 40)]
    np.savez(tmp_path / "b.npz", a=np.zeros((40, 40)))
    with pytest.raises(DataError, match="grey images"):
        read_images(tmp_path / "b.npz")
    with pytest.raises(MissingDataError, match="holds no images"):
        read_images(tmp_path)
    from PIL import Image

    Image.fromarray(rng.integers(0, 255, (40, 50), dtype=np.uint8)).save(tmp_path / "c.png")
    (image,) = read_images(tmp_path)
    np.testing.assert_allclose(image, whiten(np.asarray(Image.open(tmp_path / "c.png"), float)))
