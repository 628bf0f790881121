"""What the paper's file adds to its room: references of its own, and its loader of images."""

import gzip
import struct

import jax
import numpy as np
import pytest

from broadsheet.errors import MissingDataError
from broadsheet.networks.replica import alpha_c
from broadsheet.papers.dense_hebbian import TABLE, Pictures, _brute_force, _class_means, _extended_field, pictures
from quiet import Quiet


def test_references_agree_with_each_other():
    rng = np.random.default_rng(0)
    x, sigma = rng.choice([-1.0, 1.0], (3, 9)), rng.choice([-1.0, 1.0], 9)
    h, energy = _brute_force(x, sigma, 4)
    np.testing.assert_allclose(_extended_field(x, sigma, np.arange(9)), h, atol=1e-14)
    assert h @ sigma == pytest.approx(-24 * energy)  # each set of neurons counts for each of its members, with 3!


def test_the_table_is_that_of_the_solver():
    for order, row in TABLE.items():
        for rho, wanted in row.items():
            assert alpha_c(order, rho) == pytest.approx(wanted, rel=1e-3)


def test_class_means():
    means = np.array([[0.5, -0.2, 0.0], [-1.0, 1.0, -0.1]])
    np.testing.assert_array_equal(_class_means(means, np.array([[1.0, -1.0, -1.0]])), [[1, -1, 1]])


def test_mnist_as_published(tmp_path):
    rng = np.random.default_rng(1)
    for part, count in (("train", 60), ("t10k", 20)):
        x, y = rng.integers(0, 256, (count, 5, 5), np.uint8), np.arange(count, dtype=np.uint8) % 10
        for name, array in ((f"{part}-images-idx3-ubyte.gz", x), (f"{part}-labels-idx1-ubyte.gz", y)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (tmp_path / name).write_bytes(gzip.compress(head + array.tobytes()))
    config = Pictures(images="mnist", data=str(tmp_path), examples=(2,), cues=10, sweeps=2)
    report = pictures.function(config, jax.random.key(0), Quiet())
    assert report.numpy_arrays()["confusion"].sum() == 10
    with pytest.raises(MissingDataError, match="MNIST is needed"):
        pictures.function(pictures.configure("paper"), jax.random.key(0), Quiet())
