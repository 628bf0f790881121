"""`networks laziness` on checkpoints of a user's network, and what it refuses."""

import jax
import numpy as np
import pytest

from broadsheet.conversion.rnn_files import save_rnn
from broadsheet.networks import RateRNN
from broadsheet.networks.trained_starts import with_recurrent
from commands import call, read


@pytest.fixture
def files(tmp_path):
    net = RateRNN(2, 6, 2, activation="tanh", key=jax.random.key(0))
    moved = with_recurrent(net, np.asarray(net.w_rec) + 0.3 * np.eye(6))
    for name, each in (("before", net), ("after", moved)):
        save_rnn(each, tmp_path / f"{name}.safetensors")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(10, 5, 2)))
    return tmp_path


def words(folder, after="after"):
    return [
        "networks",
        "laziness",
        folder / "before.safetensors",
        folder / f"{after}.safetensors",
        "--inputs",
        folder / "x.npy",
    ]


def test_what_moved(files):
    found = read(*words(files), "--out", files / "found.json")
    assert found["weights"]["recurrent"]["change"] == pytest.approx(0.3 * 6**0.5, rel=1e-5)
    assert found["weights"]["recurrent"]["rank_of_change"] == pytest.approx(6, rel=1e-4)
    assert found["weights"]["input"]["change"] == 0
    assert 0 < found["kernels"]["recurrent"]["alignment"] < 1
    assert found["kernel_steps"] == [0, 1, 2, 3, 4]
    assert (files / "found.png").stat().st_size > 1000
    same = read(*words(files, "before"), "--kernel-steps", 1)
    assert same["kernels"]["recurrent"]["alignment"] == pytest.approx(1)
    assert same["features"] == pytest.approx({"step": -1, "representation": 1, "signs": 1})


def test_what_is_refused(files):
    save_rnn(RateRNN(2, 7, 2, activation="tanh", key=jax.random.key(0)), files / "wide.safetensors")
    assert "Two states of one network" in call(*words(files, "wide"), code=2).stderr
    np.save(files / "x.npy", np.zeros((10, 5, 2)))
    assert "No unit is active at step -1 before training" in call(*words(files), code=2).stderr
    np.save(files / "x.npy", np.full((10, 5, 2), np.nan))
    done = call(*words(files), code=2)
    assert "finite" in done.stderr
    assert done.stderr.count("\n") == 1
    np.save(files / "x.npy", np.zeros((10, 5)))
    assert "(examples, time, inputs)" in call(*words(files), code=2).stderr
