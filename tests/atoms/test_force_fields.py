import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from broadsheet.atoms.force_fields import relax_by_force_field

pytest.importorskip("rdkit")


def test_a_rattled_molecule_gets_its_bonds_back():
    made = molecule("CH3CH2OH")
    start = made.copy()
    start.positions += 0.1 * np.random.default_rng(0).standard_normal(start.positions.shape)
    relaxed, converged, name = relax_by_force_field(start, made)
    assert converged
    assert name == "MMFF94"
    carbon, oxygen = np.flatnonzero(made.numbers == 6), np.flatnonzero(made.numbers == 8)
    assert relaxed.get_distance(*carbon) == pytest.approx(1.51, abs=0.03)  # Å; measured by microwaves: 1.512 and 1.431
    assert min(relaxed.get_distance(k, oxygen[0]) for k in carbon) == pytest.approx(1.43, abs=0.03)
    np.testing.assert_array_equal(made.numbers, relaxed.numbers)


def test_what_has_no_bonds_stays_where_it_is():
    apart = Atoms("CH4", 10.0 * np.arange(15).reshape(5, 3))
    relaxed, converged, name = relax_by_force_field(apart, apart)
    assert not converged
    assert name == "none"
    np.testing.assert_array_equal(relaxed.positions, apart.positions)


def test_places_next_to_nothing_are_read():
    start = molecule("H2O")
    start.positions -= start.positions[0]
    start.positions[0] = (1e-17, -1e-12, 0.0)
    relaxed, converged, name = relax_by_force_field(start, start)
    assert converged
    assert name in ("MMFF94", "UFF")
    assert relaxed.get_distance(0, 1) == pytest.approx(0.97, abs=0.05)
