"""A fit of J/psi photoproduction to a user's file, from the command line."""

import json

import pytest

from broadsheet.matter.measured_cross_sections import GLUEX_2019
from commands import call, read


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "gluex.csv"
    rows = "\n".join(f"{energy},{sigma},{error}" for energy, sigma, error in GLUEX_2019)
    path.write_text(f"E_gamma [GeV],sigma [nb],total\n{rows}\n")
    return path


def test_the_fit_is_told_and_written(data, tmp_path):
    out = tmp_path / "found.json"
    found = read("matter", "photoproduction", data, "--waves", "1", "--scale-error", "0.27", "--out", out)
    assert set(found["parameters"]) == {"alpha", "scale"}
    assert found["parameters"]["alpha"]["from"] < found["parameters"]["alpha"]["value"] < found["parameters"]["alpha"]["to"]
    assert -0.3 < found["scattering_length"] < -0.05
    assert found["scattering_length_error"] > 0
    assert found["others"]["vmd"]["chi2"] < found["chi2"]
    kept = json.loads(out.read_text())
    assert len(kept["curve"]["band"]) == 80
    assert out.with_suffix(".png").stat().st_size > 10_000


def test_as_a_table(data):
    done = call("matter", "photoproduction", data, "--waves", "1", "--born", "vmd")
    assert "Scattering length of J/psi on the nucleon: -0.2" in done.stdout
    assert "power of the distance to threshold: chi squared 6.5" in done.stdout


def test_a_file_without_errors_is_one_sentence(tmp_path):
    path = tmp_path / "bare.csv"
    path.write_text("E_gamma [GeV],sigma [nb]\n8.5,0.2\n")
    done = call("matter", "photoproduction", path, code=2)
    assert "line 2: the cross section has no error" in done.stderr
    assert "Traceback" not in done.stderr
