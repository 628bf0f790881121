"""A dense memory on a user's own patterns, from the command line."""

import json

import numpy as np

from broadsheet.networks.dense_memory import archetypes, corrupted
from commands import call, read


def test_memory(tmp_path):
    xi = archetypes(1, 6, 14)
    np.save(tmp_path / "p.npy", xi)
    (tmp_path / "cues.csv").write_text("\n".join(",".join(map(str, row)) for row in corrupted(2, xi[:2], 0.8)))
    words = ["networks", "memory", tmp_path / "p.npy", "--order", 4, "--flips", "0,0.1", "--sweeps", 5]
    asking = ["--ask", tmp_path / "cues.csv", "--csv", tmp_path / "got.csv", "--out", tmp_path / "m.json"]
    found = read(*words, *asking)
    assert found["neurons"] == 14
    assert {row["memory"] for row in found["recall"]} == {
        "dense, order 4", "pairwise, same neurons", "pairwise, same size", "nearest stored",
    }  # fmt: skip
    assert found["recall"][0] == {"memory": "dense, order 4", "flipped": 0.0, "overlap": 1.0, "exact": 1.0}
    assert found["capacity"]["most"] > 80
    assert [each["row"] for each in found["asked"]] == [1, 2]
    assert np.loadtxt(tmp_path / "got.csv", delimiter=",").shape == (2, 14)
    assert json.loads((tmp_path / "m.json").read_text())["patterns"] == 6
    assert (tmp_path / "m.png").stat().st_size > 10_000
    for options, said in (
        (["--order", 1], "order is 1"), (["--flips", "a"], "numbers with commas"), (["--flips", "0.7"], "0 to 0.5"),
        (["--csv", tmp_path / "x.csv"], "--ask"), (["--out", tmp_path / "m.txt"], "as .json"),
    ):  # fmt: skip
        done = call(*words[:3], *options, code=2)
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    np.save(tmp_path / "p.npy", np.full((2, 3), 0.5))
    assert "row 1: number 1 is 0.5" in call(*words, code=2).stderr
