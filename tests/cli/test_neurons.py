"""Networks and spikes of a user's own: graded output stays graded, and spikes lie in their bins."""

import nir
import numpy as np
import pytest

from commands import call, read


def network(path, cell):
    ends = {
        "input": nir.Input(input_type={"input": np.array([3])}),
        "output": nir.Output(output_type={"output": np.array([3])}),
    }
    nodes = {"input": ends["input"], "cell": cell, "output": ends["output"]}
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=[("input", "cell"), ("cell", "output")], type_check=False))
    return path


@pytest.mark.parametrize("kind", ["LI", "LIF"])
def test_silence_is_told_apart_by_the_graph(tmp_path, kind):
    ones = np.ones(1, np.float32)
    cell = {
        "LI": nir.LI(tau=ones, r=ones, v_leak=0 * ones),
        "LIF": nir.LIF(tau=ones, r=ones, v_leak=0 * ones, v_threshold=ones),
    }
    np.save(tmp_path / "x.npy", np.zeros((20, 3)))
    words = ["--input", tmp_path / "x.npy", "--out", tmp_path / "o.npz"]
    call("neurons", "simulate", network(tmp_path / "a.nir", cell[kind]), *words)
    with np.load(tmp_path / "o.npz") as found:
        if kind == "LI":
            np.testing.assert_array_equal(found["output"], np.zeros((20, 3)))
        else:
            assert (len(found["times"]), int(found["size"])) == (0, 3)


def test_delays_are_run_and_swept(tmp_path):
    x = np.random.default_rng(0).random((10, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    words = ["--input", tmp_path / "x.npy", "--out", tmp_path / "o.npz"]
    path = network(tmp_path / "a.nir", nir.Delay(delay=np.array([0.0, 1e-4, 3e-4])))
    call("neurons", "simulate", path, *words)
    with np.load(tmp_path / "o.npz") as found:
        for k, late in enumerate((0, 1, 3)):
            np.testing.assert_allclose(found["output"][late:, k], x[: 10 - late, k])
    call("neurons", "simulate", path, *words, "--sweep", "cell.delay=0.0002,0.0005")
    with np.load(tmp_path / "o.npz") as found:
        np.testing.assert_allclose(found["output_0.0005"][5:], x[:5])
    assert "no multiple of dt" in call("neurons", "simulate", path, *words, "--sweep", "cell.delay=0.00015", code=2).stderr


def test_complexity_reads_each_type_and_says_how_to_merge(tmp_path):
    times = np.arange(0, 200, 2) * 0.1
    for kind in ("f4", "f8"):
        np.savez(tmp_path / "a.npz", times=times.astype(kind), neurons=np.full(100, 255, "u1"), duration=20.0)
        found = read("neurons", "complexity", tmp_path / "a.npz", "--dt", "0.1", "--shuffles", "0")["neurons"]
        assert [round(row["rate_hz"]) for row in found] == [0] * 255 + [5000]
    refused = call("neurons", "complexity", tmp_path / "a.npz", "--no-merge", code=2).stderr
    assert "20 times" in refused
    assert "--merge" in refused
    merged = read("neurons", "complexity", tmp_path / "a.npz", "--shuffles", "0")
    assert (merged["bins"], merged["merged"], merged["neurons"][255]["rate_hz"]) == (20, 20, 1000)
    assert "20 times" in call("neurons", "complexity", tmp_path / "a.npz", "--shuffles", "0").stderr
    np.savez(tmp_path / "b.npz", times=[0.1], neurons=[0], duration=0.5)
    assert "has 1 bins of 1 ms" in call("neurons", "complexity", tmp_path / "b.npz", code=2).stderr
