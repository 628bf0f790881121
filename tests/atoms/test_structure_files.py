"""Structures in files, and labels."""

import pickle

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.db import connect

from broadsheet.atoms.files import read_structures, write_lmdb, write_structures
from broadsheet.atoms.labels import MOLECULES, calculator, label, molecules
from broadsheet.atoms.observables import angular_distribution, energy_drift, radial_distribution
from broadsheet.atoms.structures import labelled
from broadsheet.errors import DataError, InputError, UntrustedError


@pytest.fixture
def structures():
    rng = np.random.default_rng(0)
    made = []
    for each in (bulk("Cu", cubic=True), molecule("H2O")):
        made.append(labelled(each, float(rng.standard_normal()), rng.standard_normal((len(each), 3))))
    return made


@pytest.mark.parametrize("name", ["s.extxyz", "s.db", "s.aselmdb", "s.traj"])
def test_what_is_written_is_read(structures, tmp_path, name):
    path = tmp_path / name
    if name.endswith(".db"):
        with connect(path) as database:
            for each in structures:
                database.write(each)
    elif name.endswith("lmdb"):
        pytest.importorskip("lmdb")
        write_lmdb(structures, path)
    else:
        write_structures(structures, path)
    for found, wanted in zip(read_structures(path), structures, strict=True):
        np.testing.assert_allclose(found.positions, wanted.positions, atol=1e-7)
        np.testing.assert_array_equal(found.pbc, wanted.pbc)
        np.testing.assert_allclose(found.get_potential_energy(), wanted.get_potential_energy(), atol=1e-7)
        np.testing.assert_allclose(found.get_forces(), wanted.get_forces(), atol=1e-7)


def test_labels_under_plain_names(tmp_path):
    path = tmp_path / "old.xyz"
    path.write_text('1\nProperties=species:S:1:pos:R:3:dft_force:R:3 dft_energy=-3.5 pbc="F F F"\nH 0 0 0 1 2 3\n')
    (found,) = read_structures(path)
    assert found.get_potential_energy() == -3.5
    assert found.get_forces().tolist() == [[1, 2, 3]]


def test_broken_files(structures, tmp_path):
    path = tmp_path / "s.extxyz"
    write_structures(structures, path)
    whole = path.read_text()
    path.write_text(whole[:-30])
    with pytest.raises(DataError, match="structure 1 cannot be read"):
        read_structures(path)
    path.write_text(whole.replace("\nH ", "\nQq ", 1))
    with pytest.raises(DataError):
        read_structures(path)
    path.write_text("")
    with pytest.raises(DataError):
        read_structures(path)
    bad = tmp_path / "s.pkl"
    bad.write_bytes(pickle.dumps([1]))
    with pytest.raises(UntrustedError):
        read_structures(bad)
    sneaky = tmp_path / "s.xyz"
    sneaky.write_bytes(pickle.dumps([1]))
    with pytest.raises(UntrustedError):
        read_structures(sneaky)
    with pytest.raises(InputError, match="no such file"):
        read_structures(tmp_path / "none.xyz")
    with pytest.raises(InputError, match="cannot write"):
        write_structures(structures, tmp_path / "s.unknown")


def test_a_pickled_record_is_refused(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    path = tmp_path / "x.lmdb"
    with lmdb.open(str(path), subdir=False, map_size=2**20) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"0", pickle.dumps({"pos": 1}))
    with pytest.raises(UntrustedError, match="record 0"):
        read_structures(path)
    (tmp_path / "y.lmdb").write_bytes(b"nothing")
    with pytest.raises(DataError):
        read_structures(tmp_path / "y.lmdb")


def test_shipped_labels_are_those_of_the_program(home):
    pytest.importorskip("tblite")
    assert len(molecules()) == len(MOLECULES)
    (frame,) = molecules(("H2CCO",), 1)[0]
    (again,) = label([frame], "gfn2")
    np.testing.assert_allclose(again.get_potential_energy(), frame.get_potential_energy(), atol=1e-6)
    np.testing.assert_allclose(again.get_forces(), frame.get_forces(), atol=1e-4)
    with pytest.raises(InputError, match="does not ship"):
        molecules(("C60",))


def test_each_charge_has_labels_of_its_own(home):
    pytest.importorskip("tblite")
    energies = []
    for said in ({}, {"charge": -1}, {"charge": 1}, {"spin": 3}):
        structure = molecule("H2O")
        structure.info |= said
        energies.append(label([structure], "gfn2")[0].get_potential_energy())
        structure.calc = calculator("gfn2", structure)
        np.testing.assert_allclose(energies[-1], structure.get_potential_energy(), atol=1e-6)
    assert energies[0] < min(energies[1:]) - 1
    assert len(set(np.round(energies, 3))) == 4


def test_classical_labels_and_stress(home):
    cell = bulk("Cu", cubic=True)
    (found,) = label([cell], "emt")
    cell.calc = EMT()
    np.testing.assert_allclose(found.get_stress(), cell.get_stress(), atol=1e-12)
    with pytest.raises(InputError, match="fails on structure 0"):
        label([bulk("Si")], "emt")


def test_observables_of_known_systems():
    rng = np.random.default_rng(0)
    ideal = 20 * rng.random((40, 200, 3))
    found = radial_distribution(ideal, np.full(3, 20.0), np.linspace(2, 10, 9))
    np.testing.assert_allclose(found, 1, atol=0.05)
    right = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0]]], float)
    angles = angular_distribution(right, None, np.linspace(0, 180, 19), 1.2)
    assert angles.argmax() in (8, 9)
    np.testing.assert_allclose(angles.sum() * 10, 1)
    np.testing.assert_allclose(energy_drift(np.array([0.0, 500, 1000]), np.array([0, 0.001, 0.002]), 2), 1.0)
