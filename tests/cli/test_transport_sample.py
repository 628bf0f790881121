"""`broadsheet transport sample` on tables as users have them."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from broadsheet.cli.app import app
from broadsheet.errors import BroadsheetError

RNG = np.random.default_rng(0)
FAST = ["--training-steps", "60", "--hidden", "8", "--steps", "20", "--count", "50"]


def run(*arguments):
    return CliRunner().invoke(app, ["transport", "sample", *map(str, arguments)])


def test_samples_of_counts_with_zeros(tmp_path):
    data = RNG.poisson(3.0, (120, 2))
    (tmp_path / "t.csv").write_text("spikes;bursts\n" + "\n".join(f"{a};{b}" for a, b in data))
    refused = run(tmp_path / "t.csv")
    assert isinstance(refused.exception, BroadsheetError)
    row = int(np.flatnonzero((data == 0).any(axis=1))[0]) + 1
    assert f"row {row}, column {['spikes', 'bursts'][int(np.argmin(data[row - 1]))]}" in str(refused.exception)
    made = run(
        tmp_path / "t.csv", "--shift", "1", "--samples", tmp_path / "m.csv", "--out", tmp_path / "f.json", "--json", *FAST
    )
    assert made.exit_code == 0, made.output
    found = json.loads((tmp_path / "f.json").read_text())
    drawn = np.genfromtxt(tmp_path / "m.csv", delimiter=",", names=True)
    assert drawn.dtype.names == ("spikes", "bursts")
    values = np.stack([drawn["spikes"], drawn["bursts"]], axis=1)
    assert values.shape == (50, 2)
    assert values.min() > -1
    np.testing.assert_allclose(found["log_means"], np.log(values + 1).mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(found["log_spreads_of_data"], np.log(data + 1).std(axis=0), rtol=1e-5)
    assert (tmp_path / "f.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ("1,2\n3,4\n", [], "at least 20"),
        ("a,b\n" + "1,2\n" * 25 + "1,\n", [], "row 26, column b"),
        ("1,2\n" * 25, ["--samples", "x.txt"], ".csv or .npy"),
        ("1,2\n" * 25, ["--out", "x.txt"], ".json"),
    ],
)
def test_what_cannot_be_is_one_sentence(tmp_path, rows, options, said):
    (tmp_path / "t.csv").write_text(rows)
    refused = run(tmp_path / "t.csv", *options)
    assert isinstance(refused.exception, BroadsheetError)
    assert said in str(refused.exception)
