"""Structures in files, and labels."""

import json
import pickle
import zlib

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixedPlane
from ase.db import connect

from broadsheet.atoms.constraints import check_velocities, check_written, freedom
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


def test_distances_and_angles_by_hand():
    lengths, edges = np.array([10.0, 12.0, 14.0]), np.array([0.5, 1.5, 3.0])
    frames = np.array([[[0.5, 0, 0], [9.5, 0, 0], [0.5, 2, 0]], [[0.0, 0, 0], [0, 0, 13], [5, 6, 7]]])
    volume, pairs = 10 * 12 * 14, 2 * 3  # of two frames; distances 1, 2 and sqrt(5), then 1 and two long ones
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    np.testing.assert_allclose(radial_distribution(frames, lengths, edges), np.array([2, 2]) * volume / (pairs * shells))
    corner = np.array([[[0.0, 0, 0], [1, 0, 0], [-0.5, 3**0.5 / 2, 0]], [[0, 0, 0], [1, 0, 0], [8, 0, 0]]])
    edges = np.array([0.0, 90, 110, 130, 180])
    np.testing.assert_allclose(angular_distribution(corner, None, edges, 1.01), [0, 0, 1 / 20, 0])
    across = np.array([[[0.0, 0, 0], [1, 0, 0], [9, 0, 0]]])
    np.testing.assert_allclose(angular_distribution(across, np.full(3, 10.0), edges, 1.01), [0, 0, 0, 1 / 50])
    np.testing.assert_allclose(angular_distribution(across, None, edges, 1.01), 0)


def test_records_of_an_lmdb_come_by_their_numbers_and_as_many_as_asked(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    made = [labelled(bulk("Cu", a=3.5), float(k), np.zeros((1, 3)), np.arange(6.0)) for k in range(11)]
    write_lmdb(made, tmp_path / "x.lmdb")
    assert [each.get_potential_energy() for each in read_structures(tmp_path / "x.lmdb")] == list(range(11))
    first, second, third = read_structures(tmp_path / "x.lmdb", limit=3)
    assert third.get_potential_energy() == 2
    assert first.get_stress().tolist() == list(range(6))
    with (
        lmdb.open(str(tmp_path / "x.lmdb"), subdir=False, readonly=True, lock=False) as environment,
        environment.begin() as kept,
    ):
        known = {key: json.loads(zlib.decompress(kept.get(key))) for key in (b"nextid", b"deleted_ids", b"1")}
    assert (known[b"nextid"], known[b"deleted_ids"]) == (12, [])
    assert known[b"1"].keys() >= {"mtime", "ctime", "user", "key_value_pairs", "data", "numbers", "positions"}
    with lmdb.open(str(tmp_path / "folder"), map_size=2**20) as environment, environment.begin(write=True) as kept:
        kept.put(b"1", zlib.compress(json.dumps(known[b"1"]).encode()))
    (tmp_path / "folder").rename(tmp_path / "folder.lmdb")
    assert read_structures(tmp_path / "folder.lmdb")[0].get_potential_energy() == 0


def test_reading_without_checks_and_writing_into_new_folders(tmp_path):
    (tmp_path / "x.xyz").write_text("1\nREF_energy=1\nCu 0 0 nan\n")
    (found,) = read_structures(tmp_path / "x.xyz", check=False)
    assert found.calc.results["energy"] == 1
    with pytest.raises(InputError, match="is a folder"):
        read_structures(tmp_path)
    for name in ("a/b/c.XYZ", "a/d/e.traj"):
        assert write_structures([molecule("H2O")], tmp_path / name) == tmp_path / name
        assert len(read_structures(tmp_path / name)[0]) == 3
    assert sorted(each.name for each in (tmp_path / "a" / "d").iterdir()) == ["e.traj"]


def test_molecules_that_ship_as_many_as_asked_and_methods_by_name():
    both = molecules(("CH3NO2", "C3H8"), 2)
    assert [[len(each) for each in group] for group in both] == [[7, 7], [11, 11]]
    assert [len(group) for group in molecules()] == [240, *[60] * 7]
    with pytest.raises(DataError, match="C3H8 has 60 frames; 61 are wanted"):
        molecules(("C3H8",), 61)
    assert len(molecules(("C3H8",), 60)[0]) == 60
    assert calculator("lj").parameters["sigma"] == 1


def test_charges_of_atoms_are_the_charge_of_their_labels(home):
    pytest.importorskip("tblite")
    stated, by_atoms, spun = (molecule("OH") for _ in range(3))
    stated.info["charge"] = -1
    by_atoms.set_initial_charges([-1.0, 0.0])
    by_atoms.set_initial_magnetic_moments([0.0, 0.0])
    stated.set_initial_magnetic_moments([0.0, 0.0])
    spun.info["multiplicity"] = 2
    found = [label([each], "gfn1")[0].get_potential_energy() for each in (stated, by_atoms, spun)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert abs(found[2] - found[0]) > 1


@pytest.mark.parametrize(("along", "fits"), [(0.9e-6, True), (1.1e-6, False)])
def test_a_velocity_along_what_is_fixed_may_be_a_millionth(along, fits):
    made = Atoms("H2", [[0, 0, 0], [0, 0, 9]], constraint=FixAtoms([0]))
    free = freedom(made)
    velocities = np.array([[along, 0, 0], [1.0, 0, 0]])
    if fits:
        check_velocities(velocities, free, "it")
        check_velocities(velocities * 1e9, None, "it")
    else:
        with pytest.raises(InputError, match="it: atom 0"):
            check_velocities(velocities, free, "it")


@pytest.mark.parametrize(
    ("name", "kept"), [("a.traj", True), ("a.JSON", True), ("a.xyz", False), ("a.extxyz", False), ("a.cif", False)]
)
def test_what_files_keep_of_planes(tmp_path, name, kept):
    made = Atoms("H2", [[0, 0, 0], [0, 0, 9]], constraint=FixedPlane(0, (1, 1, 0)))
    check_written(Atoms("H"), tmp_path / name)
    if kept:
        check_written(made, tmp_path / name)
    else:
        with pytest.raises(InputError, match="would not keep"):
            check_written(made, tmp_path / name)
