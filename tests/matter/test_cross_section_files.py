"""Cross sections in HEPData's CSV and YAML, and in plain tables: units, errors, and what is refused."""

import numpy as np
import pytest

from broadsheet.errors import DataError
from broadsheet.matter.cross_section_files import read_cross_sections
from broadsheet.matter.photoproduction import photon_energy

HEPDATA = r"""#: table_doi: 10.17182/hepdata.00000.v1/t1
#: name: Total cross section
#: description: made up, in the form of HEPData's export
#: data_file: total.yaml
#: keyword reactions: GAMMA P --> J/PSI P
#: RE,,,GAMMA P --> J/PSI P
$E_\gamma$ [GeV],$E_\gamma$ [GeV] LOW,$E_\gamma$ [GeV] HIGH,SIG [PB],stat +,stat -,"sys,scale +","sys,scale -"
8.74,8.56,8.92,340,70,-60,5%,-5%
8.38,8.2,8.56,116,31,-31,13,-13

#: name: Another
#: RE,,,GAMMA P --> J/PSI P
$E_\gamma$ [GeV],DSIG/DT [NB/GEV**2],stat +,stat -
8.4,1,.2,-.2
"""
YAML = """
independent_variables:
- header: {name: W, units: GEV}
  values: [{value: 4.2}, {low: 4.4, high: 4.6}, {value: 5.0}]
dependent_variables:
- header: {name: SIG, units: NB}
  qualifiers: [{name: RE, value: GAMMA P --> J/PSI P}]
  values:
  - value: 0.4
    errors: [{symerror: 0.03, label: stat}, {asymerror: {plus: 0.04, minus: -0.02}, label: sys}]
  - {value: 0.9, errors: [{symerror: 10%}]}
  - {value: '-'}
"""


def written(folder, text, name="data.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_hepdatas_csv(tmp_path):
    found = read_cross_sections(written(tmp_path, HEPDATA))
    assert found.name == "Total cross section"
    np.testing.assert_allclose(found.energy, [8.38, 8.74])
    np.testing.assert_allclose(found.sigma, [0.116, 0.340])
    np.testing.assert_allclose(found.up, [np.hypot(0.031, 0.013), np.hypot(0.070, 0.017)])
    np.testing.assert_allclose(found.down, [np.hypot(0.031, 0.013), np.hypot(0.060, 0.017)])
    assert found.notes[0].startswith("Another (DSIG/DT")
    assert "quadratic sum of: stat, sys,scale" in found.notes[1]
    assert found.measured.shape == (2, 3)


def test_hepdatas_yaml(tmp_path):
    found = read_cross_sections(written(tmp_path, YAML, "t.yaml"))
    np.testing.assert_allclose(found.energy, photon_energy(np.array([4.2, 4.5])))
    np.testing.assert_allclose(found.up, [0.05, 0.09])
    np.testing.assert_allclose(found.down, [np.hypot(0.03, 0.02), 0.09])
    assert "point 3 has no value" in found.notes


@pytest.mark.parametrize(
    ("header", "factor"),
    [
        ("E_gamma [MeV],sigma [mub],err", 1e3),
        ("SQRT(S) IN GEV;SIG IN PB;total +;total -", 1e-3),
        ("W (GeV)\tsigma (nb)\tstat", 1),
    ],
)
def test_plain_tables_in_other_units(tmp_path, header, factor):
    separator = next(each for each in "\t;," if each in header)
    energy = "9000" if "MeV" in header else "4.3"
    row = separator.join([energy, "0.5", "0.1", *(["-0.2"] if "total -" in header else [])])
    found = read_cross_sections(written(tmp_path, f"{header}\n{row}\n"))
    assert found.energy[0] == pytest.approx(9.0 if "MeV" in header else photon_energy(4.3))
    assert found.sigma[0] == pytest.approx(0.5 * factor)
    assert found.down[0] / found.up[0] == pytest.approx(2 if "total -" in header else 1)


@pytest.mark.parametrize(
    ("header", "total"),
    [
        (r"$W_{\gamma p}$", True), (r"$W_{\gamma\text{p}}$", True), ("W(GAMMA P)", True), ("SQRT(S)", True), ("W", True),
        (r"$E_{\gamma}$", False), ("E(GAMMA)", False), ("Photon beam energy", False), (r"$\langle E_\gamma \rangle$", False),
        ("T", None),
    ],
)  # fmt: skip
def test_names_of_the_energy(tmp_path, header, total):
    path = written(tmp_path, f"{header} [GeV],sigma [nb],stat\n10.5,0.2,0.1\n")
    if total is None:
        with pytest.raises(DataError, match="energy of a photon or W"):
            read_cross_sections(path)
    else:
        assert read_cross_sections(path).energy[0] == pytest.approx(photon_energy(10.5) if total else 10.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("E_gamma [GeV],sigma [nb]\n8.5,0.2\n", "line 2: the cross section has no error"),
        ("E_gamma [GeV],sigma [nb],stat\n9,0.2,0.1\n8.5,0.2,\n", "line 3: the cross section has no error"),
        ("E_gamma [GeV],sigma [nb],stat\n8.1,0.2,0.1\n", "line 2: a photon of 8.1 GeV is below the threshold at 8.2"),
        ("E_gamma [GeV],sigma [nb],stat\n8.5,nan,0.1\n", "the cross section is 'nan'"),
        ("E_gamma [GeV],sigma [nb],stat\nx,0.2,0.1\n", "the energy is 'x'"),
        ("E_gamma [GeV],sigma [nb],stat\n8.5,0.2,0\n", "positive ones are wanted"),
        ("E_gamma [GeV],sigma [nb],stat\n8.5,-0.2,0.1\n", "is negative"),
        ("E_gamma [GeV],sigma [nb],stat\n8.5,0.2\n", "line 2: 2 fields"),
        ("E_gamma [GeV],sigma [nb],stat,stat\n", "a column is there twice"),
        ("E_gamma [GeV],sigma [nb],stat\n", "has no point"),
        ("E_gamma,sigma,stat\n8.5,0.2,0.1\n", "units in brackets"),
        ("", "no table"),
    ],
)
def test_what_is_refused(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read_cross_sections(written(tmp_path, text), threshold=8.2078)


@pytest.mark.parametrize("text", ["a: [", "- 1", "independent_variables: []\ndependent_variables: [{}]"])
def test_yaml_that_is_no_table(tmp_path, text):
    with pytest.raises(DataError, match=r"YAML|no table"):
        read_cross_sections(written(tmp_path, text, "t.yaml"))
