import jax
import numpy as np
import pytest
from ase.build import molecule

from broadsheet.atoms import label, write_lmdb
from broadsheet.errors import MissingDataError
from broadsheet.papers.transip import Learning, paper


def test_published_files_are_read_with_charge_and_multiplicity(tmp_path):
    made = []
    for k in range(10):
        each = molecule(("CH3", "H2O")[k % 2])
        each.positions += 0.05 * np.random.default_rng(k).standard_normal(each.positions.shape)
        each.info |= {"charge": 0, "spin": 2 - k % 2}
        made.append(each)
    write_lmdb(label(made), tmp_path / "part.aselmdb")
    first, second, test = Learning(names=(), data=str(tmp_path / "part.aselmdb"), limit=10).sets(jax.random.key(0))
    assert [len(part) for part in (first, second, test)] == [7, 1, 2]
    assert {(len(each), each.info["spin"]) for each in (*first, *second, *test)} == {(4, 2), (3, 1)}
    energies = {round(each.get_potential_energy(), 6) for each in (*first, *second, *test)}
    assert energies == {round(each.get_potential_energy(), 6) for each in label(made)}


def test_the_papers_size_says_what_it_needs():
    with pytest.raises(MissingDataError, match="OMol25"):
        paper.experiments["learning"].configure("paper").sets(jax.random.key(0))
