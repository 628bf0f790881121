import h5py
import numpy as np
import pytest

from broadsheet.errors import DataError, MissingDataError
from broadsheet.neurons.datasets import read_shd
from broadsheet.neurons.tasks import DigitSpikes, SpokenDigits, branch_coincidences, which_pulse


def test_missing_data_says_what_to_get(tmp_path):
    with pytest.raises(MissingDataError, match=r"shd_train\.h5"):
        read_shd(tmp_path)


def test_shd_is_binned(tmp_path):
    with h5py.File(tmp_path / "shd_train.h5", "w") as file:
        times = file.create_dataset("spikes/times", (2,), dtype=h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", (2,), dtype=h5py.vlen_dtype(np.uint16))
        times[0], units[0] = [0.001, 0.105], [3, 699]
        times[1], units[1] = [0.5, 1.5], [0, 1]  # the second spike is after the end
        file["labels"] = np.array([4, 13])
    spikes, labels = read_shd(tmp_path)
    assert spikes.shape == (2, 100, 700)
    assert spikes[0, 0, 3] == spikes[0, 10, 699] == spikes[1, 50, 0] == 1
    assert spikes.sum() == 3
    import jax

    x, total = SpokenDigits(spikes, labels).adding(jax.random.key(0), 8)
    assert x.shape == (8, 200, 700)
    assert set(total.tolist()) <= {6, 7, 8}
    (tmp_path / "shd_test.h5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match="not a file of"):
        read_shd(tmp_path, "test")


def test_tasks_have_their_labels():
    import jax

    x, which = which_pulse(jax.random.key(0), 50)
    assert x.shape == (50, 321, 3)
    np.testing.assert_array_equal(x[:, :21, :2].sum(axis=1).argmax(axis=1), which)
    assert x[:, 21:, :2].sum() == 0
    assert x[:, :21, 2].sum() == 0
    x, odd = branch_coincidences(jax.random.key(1), 200)
    per_branch = x.reshape(200, 40, 2, 4).sum(axis=(1, 3))
    assert set(np.unique(per_branch)) == {1.0, 4.0}
    np.testing.assert_array_equal((per_branch == 4).sum(axis=1) % 2, odd)
    digits = DigitSpikes(8)
    x, total = digits.adding(jax.random.key(2), 30)
    assert x.shape == (30, 16, 64)
    assert 0 <= int(total.min()) <= int(total.max()) <= 18
    pixels, _ = digits.pixels(jax.random.key(3), 4)
    assert float(pixels.max()) <= 1.0
