import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.conversion.vgg import VGG
from broadsheet.errors import DataError, MissingDataError, UntrustedError
from broadsheet.papers.granet import Cifar, Digits, Moved, Task, _images
from broadsheet.vision.images import cifar


def written(folder, python, per_file=4):
    """CIFAR-10 in the published format of its binary version, or of its Python one; returns all pixels and labels."""
    rng, pixels, labels = np.random.default_rng(0), [], []
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        x, y = rng.integers(0, 256, (per_file, 3072), np.uint8), rng.integers(0, 10, per_file).astype(np.uint8)
        pixels.append(x)
        labels.append(y)
        if python:
            held = {
                "batch_label": name,
                "labels": y.tolist(),
                "data": x,
                "filenames": [f"{name}_{k}.png" for k in range(per_file)],
            }
            (folder / name).write_bytes(pickle.dumps(held, protocol=2))
        else:
            (folder / f"{name}.bin").write_bytes(np.concatenate([y[:, None], x], axis=1).tobytes())
    return np.concatenate(pixels), np.concatenate(labels)


@pytest.mark.parametrize("python", [False, True])
def test_cifar_is_read_as_it_is_published(tmp_path, python, monkeypatch):
    monkeypatch.setenv("BROADSHEET_TRUST", "1" if python else "0")
    pixels, labels = written(tmp_path, python)
    x, y, test_x, test_y = _images(Cifar(data=str(tmp_path)), np.random.default_rng(0))
    np.testing.assert_array_equal(np.concatenate([y, test_y]), labels)
    assert x.shape == (20, 3, 32, 32)
    raw = pixels.reshape(-1, 3, 32, 32).astype(float) / 255
    mean, deviation = (getattr(raw[:20], name)(axis=(0, 2, 3), keepdims=True) for name in ("mean", "std"))
    np.testing.assert_allclose(np.concatenate([x, test_x]), (raw - mean) / deviation, atol=1e-4)


def test_cifar_as_pickles_wants_trust_and_what_is_wrong_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("BROADSHEET_TRUST", "0")
    with pytest.raises(MissingDataError, match="CIFAR is needed"):
        _images(Cifar(), np.random.default_rng(0))
    written(tmp_path, python=True)
    with pytest.raises(UntrustedError, match="--trust"):
        cifar(tmp_path)
    monkeypatch.setenv("BROADSHEET_TRUST", "1")
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({"data": np.zeros((2, 3000), np.uint8), "labels": [0, 1]}))
    with pytest.raises(DataError, match="data_batch_3 holds data"):
        cifar(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(DataError, match="no data and labels"):
        cifar(tmp_path)


def test_moved_images_are_windows_of_the_padded_ones():
    x = jnp.arange(1.0, 1 + 2 * 3 * 6 * 6).reshape(2, 3, 6, 6)
    made, labels = Moved(x, jnp.array([0, 1]), 8)(jax.random.key(0))
    padded = np.pad(np.asarray(x), ((0, 0), (0, 0), (4, 4), (4, 4)))
    for image, which in zip(np.asarray(made), np.asarray(labels), strict=True):
        windows = [padded[which, :, i : i + 6, j : j + 6] for i in range(9) for j in range(9)]
        assert any(np.array_equal(image, w) or np.array_equal(image, w[..., ::-1]) for w in windows)


def test_vgg_19_has_the_published_size():
    net = jax.eval_shape(lambda key: VGG(10, key=key), jax.random.key(0))
    kernels = [layer.weight.shape for stage in net.stages for layer in stage]
    assert len(kernels) == 16
    assert kernels[0] == (64, 3, 3, 3)
    assert kernels[-1] == (512, 512, 3, 3)
    assert sum(int(np.prod(shape)) for shape in kernels) == 9 * (
        3 * 64 + 64**2 + 64 * 128 + 128**2 + 128 * 256 + 3 * 256**2 + 256 * 512 + 7 * 512**2
    )
    small = VGG(10, width=2, stages=(1, 1), key=jax.random.key(0))
    assert small(jnp.ones((2, 3, 8, 8)), lambda index, value: jax.nn.relu(value)).shape == (2, 10)


def test_arms_of_a_seed_share_first_weights_and_batches():
    first, second = (Task(Digits(epochs=1, train=128, hidden=(16,)), jax.random.key(3)) for _ in range(2))
    np.testing.assert_array_equal(first.train().losses, second.train().losses)
