"""Labels, charges and multiplicities under the names that files have for them."""

import sqlite3

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import write

from broadsheet.atoms.files import read_structures, write_lmdb, write_structures
from broadsheet.atoms.label_names import LabelNames, without_labels
from broadsheet.atoms.pair import LennardJones
from broadsheet.atoms.structures import energies_of, forces_of, labelled
from broadsheet.atoms.training import LabelledSet
from broadsheet.errors import DataError, UntrustedError

LATTICE = 'Lattice="2 0 0 0 3 0 0 0 4"'
STRESS = np.array([[1.0, 0.4, 0.5], [0.4, 2.0, 0.6], [0.5, 0.6, 3.0]])
NINE, SIX = " ".join(map(str, STRESS.ravel())), "1 2 3 0.6 0.5 0.4"
VIRIAL = " ".join(map(str, -24 * STRESS.ravel()))


def text(comment, **columns):
    """A frame of one atom with these keys and columns of three numbers."""
    names = "".join(f":{name}:R:3" for name in columns)
    numbers = " ".join(f"{value} 0 0" for value in columns.values())
    return f"1\nProperties=species:S:1:pos:R:3{names} {comment}\nCu 0 0 0 {numbers}\n"


def read(tmp_path, *frames, **names):
    (tmp_path / "x.xyz").write_text("".join(frames))
    return read_structures(tmp_path / "x.xyz", labels=LabelNames(**names))


@pytest.mark.parametrize(
    ("energy", "forces"),
    [
        ("energy", "forces"), ("energy", "force"), ("REF_energy", "REF_forces"), ("dft_energy", "dft_force"),
        ("DFT_energy", "DFT_forces"), ("mace_energy", "mace_forces"), ("energy_dft", "forces_dft"),
        ("ccsd_energy", "ccsd_forces"),
    ],
)  # fmt: skip
def test_a_level_of_theory_by_its_mark(tmp_path, energy, forces):
    (found,) = read(tmp_path, text(f"{energy}=-3.5", **{forces: 2.0}))
    assert found.get_potential_energy() == -3.5
    assert found.get_forces().tolist() == [[2, 0, 0]]


@pytest.mark.parametrize(
    "keys",
    [
        f'energy=1 stress="{NINE}"', f'energy=1 stress="{SIX}"', f'energy=1 virial="{VIRIAL}"', f'energy=1 virials="{VIRIAL}"',
        f'REF_energy=1 REF_stress="{NINE}"', f'REF_energy=1 REF_stress="{SIX}"', f'dft_energy=1 dft_virial="{VIRIAL}"',
        f'energy=1 stress="{NINE}" virial="{VIRIAL}"',
    ],
)  # fmt: skip
def test_stress_and_virials_in_six_and_nine_numbers(tmp_path, keys):
    (found,) = read(tmp_path, text(f"{keys} {LATTICE}"), wanted=("stress",))
    np.testing.assert_allclose(found.get_stress(voigt=False), STRESS, rtol=1e-12)


@pytest.mark.parametrize("key", ["stress", "REF_stress"])
def test_stress_is_symmetric_to_a_hundredth_of_its_largest_number(tmp_path, key):
    def frame(off):
        return text(f'{key.replace("stress", "energy")}=1 {key}="100 0 0 {off} 100 0 0 0 100" {LATTICE}')

    (found,) = read(tmp_path, frame(0.9), wanted=("stress",))
    np.testing.assert_allclose(found.get_stress()[:3], 100)
    with pytest.raises(DataError, match="stress is not symmetric"):
        read(tmp_path, frame(1.1))


def test_of_two_levels_none_is_chosen_in_silence(tmp_path):
    both = text("energy=1000 REF_energy=0.3", force=7.0, REF_forces=-0.6)
    with pytest.raises(
        DataError, match=r"structure 0 has labels of two levels.*energy with force and REF_energy with REF_forces"
    ):
        read(tmp_path, both)
    for names, wanted in (({"energy": "REF_energy"}, (0.3, -0.6)), ({"forces": "force"}, (1000, 7)),
                          ({"energy": "REF_energy", "forces": "force"}, (0.3, 7))):  # fmt: skip
        found = read(tmp_path, both, **names)
        assert (energies_of(found)[0], forces_of(found)[0][0, 0]) == wanted
    (left,) = read_structures(tmp_path / "x.xyz", labels=False)
    assert left.info["REF_energy"] == 0.3
    with pytest.raises(DataError, match="two levels"):
        read(tmp_path, text("REF_energy=0.3", forces=7.0))
    equal = read(tmp_path, text("energy=1 REF_energy=1", forces=7.0, REF_forces=7.0))
    assert energies_of(equal)[0] == 1


def test_structures_are_of_one_level(tmp_path):
    first, second = text("energy=1", forces=1.0), text("REF_energy=2", REF_forces=2.0)
    with pytest.raises(DataError, match="structure 1 has REF_energy"):
        read(tmp_path, first, second)
    names = LabelNames()
    for name, frame in (("a.xyz", first), ("b.xyz", second)):
        (tmp_path / name).write_text(frame)
    read_structures(tmp_path / "a.xyz", labels=names)
    with pytest.raises(DataError, match=r"b.xyz: structure 0 has REF_energy"):
        read_structures(tmp_path / "b.xyz", labels=names)


@pytest.mark.parametrize(
    ("keys", "columns", "names", "words"),
    [
        ("energy=nan", {"forces": 0.0}, {}, "structure 1 has an energy that is not finite"),
        ("energy=1", {"forces": "inf"}, {}, "structure 1 has forces that are not finite"),
        (f'energy=1 stress="nan 0 0 0 0 0" {LATTICE}', {}, {}, "structure 1 has a stress that is not finite"),
        ("REF_energy=*****", {}, {}, r"structure 1: REF_energy=\*{5} is no number"),
        ("REF_energy=T", {}, {}, "REF_energy=True is no number"),
        ("energy=1 force=2", {}, {"forces": "force"}, "force has 1 numbers; 3 are wanted"),
        ("energy=1", {"forces": 0.0, "force": 1.0}, {}, "two values of its forces, under forces and force"),
        ("energy=1", {}, {"wanted": ("energy", "forces")}, "structure 1 has no forces"),
        ("formation_energy=1", {"forces": 0.0}, {"wanted": ("energy",)}, "no energy .it has formation_energy; --energy-key"),
        ("free_energy=1", {"forces": 0.0}, {"wanted": ("energy",)}, "has no energy .it has free_energy; --energy-key"),
        ("energy_per_atom=1", {"forces": 0.0}, {"wanted": ("energy",)}, r"structure 1 has no energy\."),
        ("energy=1", {}, {"energy": "dft_energy"}, "structure 1 has no dft_energy .it has energy;"),
        (f'energy=1 stress="{SIX}" pbc="T T F" {LATTICE}', {}, {"wanted": ("stress",)}, "has a stress but no volume"),
        (f'energy=1 virial="{VIRIAL}"', {}, {"wanted": ("stress",)}, "has a virial but no volume"),
        (f'energy=1 stress="{NINE}" virial="{NINE}" {LATTICE}', {}, {}, "stress is not minus virial / volume"),
        (f'REF_energy=1 stress="{NINE}" {LATTICE}', {}, {"wanted": ("stress",)}, "no stress .it has stress; --stress-key"),
        ('REF_energy=1 REF_stress="1 2 3"', {}, {}, "REF_stress has 3 numbers; 6 or 9"),
        (f'REF_energy=1 REF_stress="1 0 0 7 1 0 0 0 1" {LATTICE}', {}, {}, "REF_stress is not symmetric"),
    ],
)
def test_labels_that_are_none_are_named(tmp_path, keys, columns, names, words):
    fine = text(f'energy=1 dft_energy=1 REF_energy=1 free_energy=1 {LATTICE} stress="{SIX}"', forces=0.0, force=0.0)
    with pytest.raises(DataError, match=words):
        read(tmp_path, fine, text(keys, **columns), **names)


def test_a_key_for_each_label(tmp_path):
    (found,) = read(tmp_path, text(f'energy=1 e=2 s="{SIX}" v="{VIRIAL}" {LATTICE}', f=3.0), energy="e", forces="f", stress="s")
    assert (found.get_potential_energy(), found.get_forces()[0, 0], found.get_stress()[0]) == (2, 3, 1)
    (found,) = read(tmp_path, text(f'energy=1 my_virial="{VIRIAL}" {LATTICE}'), stress="my_virial", energy="energy")
    np.testing.assert_allclose(found.get_stress()[3], 0.6)
    for name, key in (("energy", "energy_per_atom"), ("forces", "gradient")):
        with pytest.raises(DataError, match=f"{key} says by its name"):
            read(tmp_path, text("energy_per_atom=1", gradient=1.0), **{name: key})


def test_labelled_sets_refuse_what_is_not_finite():
    good = labelled(bulk("Ar", cubic=True), 0.0, np.zeros((4, 3)), np.zeros(6))
    potential = LennardJones(0.01, 3.4, 5.0)
    with pytest.raises(DataError, match="structure 1 has an energy that is not finite"):
        LabelledSet([good, labelled(good, np.nan, np.zeros((4, 3)))], potential)
    slab = bulk("Ar", cubic=True)
    slab.pbc = [True, True, False]
    slab = labelled(slab, 0.0, np.zeros((4, 3)), np.zeros(6))
    with pytest.raises(DataError, match="structure 1 has no volume"):
        LabelledSet([good, slab], potential, stress=True)
    with pytest.raises(DataError, match="structure 1 has none"):
        LabelledSet([good, labelled(good, 0.0, np.zeros((4, 3)))], potential, stress=True)


def test_a_moved_structure_loses_its_labels(tmp_path):
    (found,) = read(tmp_path, text("energy=1 REF_energy=1 note=kept", REF_forces=1.0, other=2.0))
    moved = without_labels(found)
    assert (moved.calc, moved.info) == (None, {"note": "kept"})
    assert "other" in moved.arrays
    assert "REF_forces" not in moved.arrays


@pytest.mark.parametrize("name", ["x.db", "x.json", "x@3#.db", "x.aselmdb"])
def test_databases_keep_charge_multiplicity_constraints_masses_and_labels(tmp_path, name):
    water = molecule("H2O")
    water.set_constraint(FixAtoms([1]))
    water.set_masses([16.5, 2.0, 1.0])
    water.set_momenta(np.arange(9.0).reshape(3, 3))
    water.calc = SinglePointCalculator(water, energy=-1.0, forces=np.ones((3, 3)))
    if name.endswith("lmdb"):
        pytest.importorskip("lmdb")
        water.info = {"charge": -1, "spin": 2, "REF_forces": np.ones((3, 3)), "REF_energy": -1.0}
        write_lmdb([water], tmp_path / name)
    else:
        database = connect(tmp_path / name, type=name.rpartition(".")[2])
        database.write(water, charge=-1, data={"spin": 2, "REF_forces": np.ones((3, 3)), "REF_energy": -1.0})
    before = sorted(each.name for each in tmp_path.iterdir())
    (found,) = read_structures(tmp_path / name)
    assert (found.info["charge"], found.info["spin"]) == (-1, 2)
    assert found.constraints[0].index.tolist() == [1]
    assert found.get_masses().tolist() == [16.5, 2.0, 1.0]
    np.testing.assert_allclose(found.get_momenta(), water.get_momenta())
    np.testing.assert_allclose(forces_of([found])[0], 1)
    if not name.endswith("lmdb"):
        assert sorted(each.name for each in tmp_path.iterdir()) == before  # to read makes nothing
    write_structures([found], tmp_path / "again.extxyz")
    (again,) = read_structures(tmp_path / "again.extxyz")
    assert (again.info["charge"], again.info["spin"]) == (-1, 2)
    assert again.constraints[0].index.tolist() == [1]


def test_databases_that_contradict_themselves(tmp_path):
    connect(tmp_path / "x.db").write(molecule("H2O"), charge=1, data={"charge": -1})
    with pytest.raises(DataError, match="structure 0 has charge=1 as a key and charge=-1 in its data"):
        read_structures(tmp_path / "x.db")
    (tmp_path / "y.db").write_bytes(b"")
    with pytest.raises(DataError, match="no table of systems"):
        read_structures(tmp_path / "y.db")
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("CREATE VIEW more AS SELECT * FROM systems")
    with pytest.raises(UntrustedError, match="views"):
        read_structures(tmp_path / "x.db")


@pytest.mark.parametrize(
    ("keys", "columns", "charge", "spin"),
    [
        ("charge=-1 spin=2", {}, -1, 2),
        ("total_charge=2 multiplicity=3", {}, 2, 3),
        ("charge=1 net_charge=1 spin=1 spin_multiplicity=1", {}, 1, 1),
        ("", {"initial_charges": 1.0, "initial_magmoms": -2.0}, 1, 3),
        ("", {"initial_charges": 0.3, "initial_magmoms": 0.4}, None, None),
        ('pbc="T T T" Lattice="9 0 0 0 9 0 0 0 9"', {"initial_charges": 1.0}, None, None),
    ],
)
def test_charge_and_multiplicity_have_one_name(tmp_path, keys, columns, charge, spin):
    names, numbers = "".join(f":{name}:R:1" for name in columns), " ".join(map(str, columns.values()))
    (found,) = read(tmp_path, f"1\nProperties=species:S:1:pos:R:3{names} {keys}\nO 0 0 0 {numbers}\n")
    assert (found.info.get("charge"), found.info.get("spin")) == (charge, spin)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("charge=1 total_charge=2", "has charge=1 and total_charge=2"),
        ("spin=1 multiplicity=3", "has spin=1 and multiplicity=3"),
        ("charge=minus", "charge=minus is no number"),
        ("spin=nan", "spin=nan is no number"),
        ("charge=-1", "has charge=-1, and the initial charges of its atoms say 1"),
    ],
)
def test_charges_that_contradict_each_other(tmp_path, keys, words):
    with pytest.raises(DataError, match=words):
        read(tmp_path, f"1\nProperties=species:S:1:pos:R:3:initial_charges:R:1 {keys}\nO 0 0 0 1.0\n")


def test_other_formats_of_ase(tmp_path):
    slab = bulk("Cu", cubic=True)
    slab.set_constraint(FixAtoms([0]))
    slab.calc = SinglePointCalculator(slab, energy=1.0, forces=np.zeros((4, 3)))
    for name in ("POSCAR", "a@2.traj", "x.cif", "-"):
        kind = {"POSCAR": "vasp", "x.cif": "cif", "-": "extxyz"}.get(name, "traj")
        with (tmp_path / name).open("wb" if kind in ("traj", "cif") else "w") as stream:
            write(stream, slab, format=kind)
        (found,) = read_structures(tmp_path / name)
        assert len(found) == 4
        if kind in ("vasp", "traj"):
            assert found.constraints[0].index.tolist() == [0]
    assert energies_of(read_structures(tmp_path / "a@2.traj"))[0] == 1
    (tmp_path / "x.mystery").write_text("mystery\n")
    with pytest.raises(DataError, match="of no format that is known"):
        read_structures(tmp_path / "x.mystery")
    (tmp_path / "frames.xyz@0").write_text("1\n\nH 0 0 0\n")
    assert len(read_structures(tmp_path / "frames.xyz@0")) == 1
    connect(tmp_path / "x.db").write(slab, charge=-1)
    (tmp_path / "x.db").rename(tmp_path / "x.sqlite")
    assert read_structures(tmp_path / "x.sqlite")[0].info["charge"] == -1
