"""What the paper's file adds to its parts: MNIST by rows, the wiring of connectomes, and where data are missing."""

import gzip
import struct
from dataclasses import replace

import jax
import numpy as np
import pytest

from broadsheet.errors import MissingDataError
from broadsheet.papers.rich_lazy import SMALL, Structure, _starts, _task, _wirings, recurrent
from broadsheet.recordings.worm import Connectome
from quiet import Quiet


def test_mnist_comes_by_rows_from_its_own_files(tmp_path):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (12, 28, 28), np.uint8), np.arange(12).astype(np.uint8) % 10
    for part in ("train", "t10k"):
        for name, array in (("images-idx3-ubyte", pixels), ("labels-idx1-ubyte", labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            with gzip.open(tmp_path / f"{part}-{name}.gz", "wb") as stream:
                stream.write(header + array.tobytes())
    trials, sizes = _task(replace(SMALL, images="mnist", data=str(tmp_path)), "rows")
    assert sizes == (28, 10)
    x, asked = trials(jax.random.key(0), 4)
    k = [int(np.flatnonzero((pixels / np.float32(255) == each).all(axis=(1, 2)))[0]) for each in np.asarray(x)]
    np.testing.assert_array_equal(np.asarray(asked)[:, -1], labels[k])


def test_the_paper_s_size_says_what_it_wants():
    config = replace(SMALL, images=recurrent.presets["paper"].images, tasks=("rows",), row_ranks=(2, 8))
    with pytest.raises(MissingDataError, match="MNIST is needed"):
        recurrent.function(config, jax.random.key(0), Quiet())


def test_ladders_differ_in_what_they_say_alone():
    starts, ladders = _starts(replace(SMALL, ranks=(1, 3, 8)), (1, 3, 8), jax.random.key(0))
    norms = [np.linalg.norm(starts[name]) for name in ladders["system"][0]]
    np.testing.assert_allclose(norms, norms[0])
    largest = [np.linalg.norm(starts[name], 2) for name in ladders["matched-singular-value"][0]]
    np.testing.assert_allclose(largest, largest[-1])
    low, full = (starts[name] for name in ladders["radius-alone"][0])
    np.testing.assert_allclose(low / low[0, 0], full / full[0, 0])
    eigenvalues = [np.abs(np.linalg.eigvals(each)).max() for each in (low, starts[ladders["system"][0][0]])]
    assert eigenvalues[0] == pytest.approx(eigenvalues[1])


def test_wiring_is_that_of_the_maps():
    wirings, signs = _wirings(Structure(maps=("white", "witvliet1")))
    each = Connectome.load("witvliet1")
    both = np.flatnonzero(each.annotated & Connectome.load("white").annotated)
    assert len(signs) == len(both)
    assert wirings["witvliet1"].sum() == each.chem[np.ix_(both, both)].sum()
    negative = {each.names[cell] for cell, sign in zip(both, signs, strict=True) if sign < 0}
    assert {"RIS", "RMED"} <= negative
    assert not negative & {"AVAL", "AVBR", "AIYL"}
