"""Fixed points of a user's network by the command: what comes out, and what is refused in a sentence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.conversion.rnn_files import save_rnn
from broadsheet.networks.rates import RateRNN
from commands import call, read


@pytest.fixture
def bistable(tmp_path):
    net = RateRNN(1, 2, 1, activation="tanh", key=jax.random.key(0))
    net = eqx.tree_at(lambda n: (n.w_rec, n.w_in), net, (2 * jnp.eye(2), jnp.array([[1.0], [0.0]])))
    save_rnn(net, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_points_and_spectra_of_each_input(bistable, tmp_path):
    np.save(tmp_path / "x.npy", np.array([[0.0], [3.0]]))
    words = ["networks", "fixed-points", bistable, "--inputs", tmp_path / "x.npy", "--spread", 3, "--out", tmp_path / "f.json"]
    found = read(*words, "--starts", 50, "--steps", 40)
    first = [each for each in found["points"] if each["input"] == 0]
    assert {tuple(np.sign(np.round(each["state"], 3)).astype(int)) for each in first} >= {(0, 0)}
    origin = next(each for each in first if np.abs(each["state"]).max() < 1e-3)
    assert origin["radius"] == pytest.approx(2)
    assert origin["unstable"] == 2
    assert not origin["stable"]
    corners = [each for each in first if np.abs(each["state"]).min() > 0.9]
    assert corners
    assert all(each["stable"] and np.abs(each["state"]) == pytest.approx([0.957504] * 2, abs=1e-5) for each in corners)
    assert {each["input"] for each in found["points"]} == {0, 1}
    assert (tmp_path / "f.png").stat().st_size > 5000


def test_what_is_refused_in_a_sentence(bistable, tmp_path):
    def refused(array, *options):
        np.save(tmp_path / "x.npy", array)
        done = call("networks", "fixed-points", bistable, "--inputs", tmp_path / "x.npy", *options, code=2)
        assert done.stderr.count("\n") == 1
        return done.stderr

    assert "sequences of 5 steps are not longer than the warm-up of 10" in refused(np.zeros((2, 5, 1)))
    assert "has 3 inputs a step" in refused(np.zeros((2, 3)))
    assert "holds NaN or infinity" in refused(np.array([[np.nan]]))
    assert "should hold one array of numbers" in refused(np.zeros(3))
    assert "findings are written as .json" in refused(np.zeros((1, 1)), "--out", tmp_path / "f.txt")
    wild = eqx.tree_at(lambda n: n.w_rec, RateRNN(1, 2, 1, key=jax.random.key(0)), 3 * jnp.eye(2))
    save_rnn(wild, bistable)
    assert "spectral radius of its recurrent weights 3" in refused(np.ones((1, 1)))
