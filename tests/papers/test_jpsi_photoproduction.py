"""The paper's loader, and what its claims rest on."""

import jax
import numpy as np
import pytest

from broadsheet.errors import MissingDataError
from broadsheet.papers.jpsi_photoproduction import Fits, _measured, excited, fits, production
from quiet import Quiet


def test_the_papers_size_says_what_it_needs(tmp_path):
    config = fits.configure("paper")
    with pytest.raises(MissingDataError, match=r"hepdata\.140802"):
        fits.function(config, jax.random.key(0), Quiet())
    near, high = tmp_path / "near.csv", tmp_path / "high.yaml"
    near.write_text(
        "#: name: Table 1\nE [GeV],SIG [NB],stat +,stat -,sys +,sys -\n8.5,0.14,0.03,-0.02,0.04,-0.04\n9,0.3,0.1,-0.1,0,0\n"
    )
    high.write_text(
        "independent_variables: [{header: {name: W, units: GEV}, values: [{low: 40.0, high: 60.0}]}]\n"
        "dependent_variables: [{header: {name: SIG, units: NB}, values: [{value: 45, errors: [{symerror: 3}]}]}]\n"
    )
    first, second = _measured(Fits(data=str(near), high=str(high), need_files=True), jax.random.key(0))
    np.testing.assert_allclose(first[0], [8.5, 0.14, (0.05 + np.hypot(0.02, 0.04)) / 2])
    np.testing.assert_allclose(second, [[(50**2 - 0.938272**2) / (2 * 0.938272), 45, 3]])


def test_cheap_factors_meet_what_is_claimed_of_the_final_state():
    arms = production.function(production.configure("smoke"), jax.random.key(0), Quiet()).arms
    assert arms["sommerfeld"]["ratio_405"] > arms["system"]["ratio_405"] > arms["effective-range"]["ratio_405"] > 1.3
    assert arms["repulsive"]["ratio_405"] < arms["zero-range"]["ratio_405"] < 1
    assert 0.01 < arms["system"]["final_term_405"] < 0.1


def test_psi_2s_is_rarer_and_as_long():
    metrics = excited.function(excited.configure("smoke"), jax.random.key(0), Quiet()).metrics
    assert metrics["sigma_psi2s_03"] < metrics["sigma_jpsi_03"]
    assert metrics["length_psi2s_fm"] < metrics["length_jpsi_fm"] < 0
