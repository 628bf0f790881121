"""Structures, batches, labels and charges at the edges of what is allowed, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from broadsheet.atoms import batch_atoms, iterate_structures
from broadsheet.atoms.charge import charge_and_multiplicity, charge_and_unpaired, charge_changed
from broadsheet.atoms.label_names import LabelNames, check_stated, classified, without_labels
from broadsheet.atoms.structures import bucket, check_labels, check_structure, energies_of, forces_of, has_volume, labelled
from broadsheet.errors import DataError, InputError

WATER = Atoms("OH2", [[0, 0, 0], [0, 0, 0.96], [0.93, 0, -0.24]])


def changed(**how):
    made = WATER.copy()
    for name, value in how.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (changed(numbers=[118, 1, 1]), changed(numbers=[119, 1, 1])),
        (changed(numbers=[1, 1, 1]), changed(numbers=[0, 1, 1])),
        (changed(positions=[[1e8, 0, 0]] + [[0, 0, 0]] * 2), changed(positions=[[1.01e8, 0, 0]] + [[0, 0, 0]] * 2)),
        (changed(cell=[1, 1, 1], pbc=True), changed(cell=[1, 1, 0], pbc=True)),
        (changed(cell=[1, 1, 0], pbc=[1, 1, 0]), changed(cell=[1, 1, 1e-7], pbc=True)),
        (changed(cell=[[1, 0, 0], [0, 1, 0], [1, 1, 0.1]], pbc=True), changed(cell=[[1, 0, 0], [0, 1, 0], [1, 1, 0]], pbc=True)),
        (changed(cell=[[1, 0, 0], [1, 0, 0], [0, 0, 1]], pbc=[1, 0, 1]),
         changed(cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=[1, 1, 0])),
    ],
)  # fmt: skip
def test_what_no_potential_can_take(good, bad):
    check_structure(good)
    with pytest.raises(InputError, match="the structure"):
        check_structure(bad)


@pytest.mark.parametrize("mass", [0.0, -1.0, np.nan, np.inf])
def test_masses_are_above_zero(mass):
    made = WATER.copy()
    made.set_masses([1e-3, 1, 1])
    check_structure(made)
    made.arrays["masses"] = np.asarray([mass, 1.0, 1.0])
    with pytest.raises(InputError, match="mass"):
        check_structure(made)


def test_volume_needs_three_directions():
    assert has_volume(Atoms("H", cell=[2, 2, 2], pbc=True))
    assert not has_volume(Atoms("H", cell=[2, 2, 2], pbc=[1, 1, 0]))
    assert not has_volume(Atoms("H", pbc=True))


def test_sizes_are_eight_an_octave():
    assert [bucket(n) for n in (0, 1, 8, 9, 128, 129, 144, 145, 256, 257)] == [8, 8, 8, 16, 128, 144, 144, 160, 256, 288]
    assert [bucket(n, 4) for n in (1, 4, 5, 64, 65, 128, 129)] == [4, 4, 8, 64, 72, 128, 144]
    for size in range(1, 3000, 7):
        assert size <= bucket(size) <= max(8, size * 9 / 8 + 8)


def test_a_batch_is_padded_behind_what_is_real():
    charged = WATER.copy()
    charged.info |= {"charge": -1, "spin": 2}
    made = batch_atoms([WATER, charged], atoms=8, count=3)
    assert made.structures == 4
    assert made.node_mask.tolist() == [True] * 6 + [False] * 2
    assert made.graph.tolist() == [0] * 3 + [1] * 3 + [3] * 2
    assert made.graph_mask.tolist() == [True, True, False, False]
    assert made.charge.tolist() == [0, -1, 0, 0]
    assert made.spin.tolist() == [1, 2, 1, 1]
    assert made.numbers.tolist() == [8, 1, 1] * 2 + [0, 0]
    assert made.counts().tolist() == [3, 3, 1, 1]
    assert made.sum_atoms(jnp.arange(8.0)).tolist() == [3, 12, 0, 0]
    assert (made.energy, made.forces, made.stress, made.masses, made.free) == (None,) * 5
    np.testing.assert_array_equal(made.allowed(jnp.ones((8, 3))), np.ones((8, 3)))
    batch_atoms([WATER, charged], atoms=6, count=2)
    for wrong in ({"atoms": 5}, {"count": 1}):
        with pytest.raises(InputError, match="do not fit"):
            batch_atoms([WATER, charged], **wrong)
    for key, value in (("charge", "much"), ("spin", None), ("charge", np.nan)):
        bad = WATER.copy()
        bad.info[key] = value
        with pytest.raises(InputError, match=f"structure 1 has {key}="):
            batch_atoms([WATER, bad])


def test_masses_and_constraints_only_where_atoms_move():
    from ase.constraints import FixAtoms

    made = WATER.copy()
    made.set_masses([2.0, 3.0, 4.0])
    made.set_constraint(FixAtoms([1]))
    moving, still = (batch_atoms([WATER, made], motion=motion) for motion in (True, False))
    assert (still.masses, still.free) == (None, None)
    np.testing.assert_allclose(moving.masses[:6], [15.999, 1.008, 1.008, 2, 3, 4])
    allowed = np.asarray(moving.allowed(jnp.ones(moving.positions.shape)))
    assert allowed[:6].any(axis=1).tolist() == [True] * 4 + [False, True]


def test_labels_are_of_all_structures_or_of_none():
    one = labelled(WATER, -2.0, np.ones((3, 3)), np.arange(6.0))
    made = batch_atoms([one, labelled(WATER, -3.0)])
    assert made.energy[:2].tolist() == [-2, -3]
    assert made.forces is None
    assert made.stress is None
    alone = batch_atoms([one])
    # xx, yy, zz, yz, xz, xy
    assert alone.stress[0].tolist() == [[0, 5, 4], [5, 1, 3], [4, 3, 2]]
    assert energies_of([one]).tolist() == [-2]
    assert forces_of([one])[0].tolist() == np.ones((3, 3)).tolist()
    for read, said in ((energies_of, "structure 1 has no energy"), (forces_of, "structure 1 has no forces")):
        with pytest.raises(DataError, match=said):
            read([one, WATER])


@pytest.mark.parametrize(
    ("results", "said"),
    [({"energy": np.nan}, "an energy that is not finite"), ({"forces": np.full((3, 3), np.inf)}, "forces that are not finite"),
     ({"forces": np.ones((2, 3))}, "3 atoms and forces of 2"), ({"stress": np.full(6, np.nan)}, "stress that is not finite")],
)  # fmt: skip
def test_labels_that_nothing_can_learn_from(results, said):
    made = WATER.copy()
    made.calc = SinglePointCalculator(made)
    made.calc.results = results
    with pytest.raises(DataError, match=said):
        check_labels(made)


@pytest.mark.parametrize(
    ("info", "charges", "moments", "expected"),
    [
        ({}, None, None, (0, None, 0)),
        ({"charge": 1}, None, None, (1, None, 1)),
        ({"spin": 3}, None, None, (0, 3, 2)),
        ({"spin": 0}, None, None, (0, None, 0)),
        ({}, [1.0, 0.0004, 0.0], None, (1, None, 1)),
        ({}, None, [1.0, 0.5, 0.5], (0, 3, 2)),
        ({}, None, [-1.0, -0.5, -0.5], (0, 3, 2)),
        ({"spin": 1}, None, [1.0, -1.0, 0.0], (0, 1, 0)),
        ({"charge": -1, "spin": 2}, None, None, (-1, 2, 1)),
        ({"charge": 9}, None, None, (9, None, 1)),  # one electron is left
    ],
)
def test_charge_and_multiplicity_by_hand(info, charges, moments, expected):
    made = WATER.copy()
    made.info |= info
    if charges is not None:
        made.set_initial_charges(charges)
    if moments is not None:
        made.set_initial_magnetic_moments(moments)
    assert (*charge_and_multiplicity(made), charge_and_unpaired(made)[1]) == expected
    assert charge_and_unpaired(made)[0] == expected[0]


@pytest.mark.parametrize(
    ("info", "charges", "moments", "said"),
    [
        ({"charge": 10}, None, None, "no electrons"),
        ({"charge": 0.5}, None, None, "a whole number is wanted"),
        ({"spin": -1}, None, None, "1 or more, is wanted"),
        ({"spin": 2}, None, None, "10 electrons cannot have the multiplicity 2"),
        ({"charge": 9, "spin": 4}, None, None, "1 electrons cannot have the multiplicity 4"),
        ({}, [0.3, 0.0, 0.0], None, "charges that add up to 0.3"),
        ({}, [0.002, 0.0, 0.0], None, "charges that add up to 0.002"),
        ({}, None, [1.0, -1.0, 0.0], "moments that cancel"),
        ({}, None, [[1.0, 0, 0]] * 3, "are vectors"),
        ({}, [np.nan, 0, 0], None, "not finite"),
    ],
)
def test_charges_that_cannot_be(info, charges, moments, said):
    made = WATER.copy()
    made.info |= info
    if charges is not None:
        made.set_initial_charges(charges)
    if moments is not None:
        made.set_initial_magnetic_moments(moments)
    with pytest.raises(InputError, match=said):
        charge_and_unpaired(made)


def test_calculators_are_told_of_a_new_charge():
    other = WATER.copy()
    assert charge_changed(None, WATER) == charge_changed(WATER, other) == []
    other.info["total_charge"] = 1
    assert charge_changed(WATER, other) == ["info"]


@pytest.mark.parametrize(
    ("keys", "charge", "spin"),
    [
        ({"total_charge": 2}, 2, None), ({"net_charge": -1}, -1, None), ({"charge": 1, "total_charge": 1}, 1, None),
        ({"multiplicity": 3}, None, 3), ({"spin_multiplicity": 2}, None, 2), ({"mult": 1}, None, 1),
    ],
)  # fmt: skip
def test_stated_charges_by_any_of_their_names(keys, charge, spin):
    made = WATER.copy()
    made.info |= keys
    info = check_stated(made, "it").info
    assert (info.get("charge"), info.get("spin")) == (charge, spin)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"charge": 1, "net_charge": 2}, "charge=1 and net_charge=2"),
        ({"energy_unit": "kcal/mol"}, "energies are read in eV"),
        ({"positions_units": "bohr"}, "lengths in Å"),
        ({"charge": "x"}, "is no number"),
        ({"charge": [1, 2]}, "is no number"),
        ({"spin": np.inf}, "is no number"),
    ],
)
def test_what_a_structure_states_and_cannot_mean(keys, said):
    made = WATER.copy()
    made.info |= keys
    with pytest.raises(DataError, match=said):
        check_stated(made, "it")
    for fine in ({"energy_unit": "eV"}, {"forces_unit": "eV/Å"}):
        made = WATER.copy()
        made.info |= fine
        check_stated(made, "it")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("energy", ("", "energy")), ("REF_forces", ("REF_", "forces")), ("energy_dft", ("_dft", "energy")),
        ("virial", ("", "virial")), ("dft_stress", ("dft_", "stress")), ("colour", None), ("a_energy_b", None),
    ],
)  # fmt: skip
def test_keys_by_mark_and_quantity(key, expected):
    assert classified(key) == expected


def test_a_moved_structure_keeps_what_is_no_label():
    made = labelled(WATER, -1.0, np.ones((3, 3)))
    made.info |= {"REF_energy": 1.0, "name": "water", "charge": 1}
    made.arrays["REF_forces"] = np.ones((3, 3))
    made.arrays["tags"] = np.arange(3)
    bare = without_labels(made)
    assert bare.calc is None
    assert bare.info == {"name": "water", "charge": 1}
    assert set(bare.arrays) == {"numbers", "positions", "tags"}
    assert "REF_energy" in made.info


def test_stress_is_minus_the_virial_over_the_volume():
    made = Atoms("H", cell=[2, 2, 2], pbc=True)
    made.info |= {"energy": 1.0, "virial": np.diag([8.0, 16.0, 24.0])}
    made.arrays["forces"] = np.zeros((1, 3))
    taken = LabelNames().take(made, "it")
    np.testing.assert_allclose(taken.get_stress(), [-1, -2, -3, 0, 0, 0])
    for stress, fits in (([-1, -2, -3.002, 0, 0, 0], True), ([-1, -2, -3.01, 0, 0, 0], False), ([1.0, 2, 3, 0, 0, 0], False)):
        both = made.copy()
        both.info["stress"] = np.asarray(stress)
        if fits:
            np.testing.assert_allclose(LabelNames().take(both, "it").get_stress(), stress)
        else:
            with pytest.raises(DataError, match="is not minus virial / volume"):
                LabelNames().take(both, "it")


@pytest.mark.parametrize("place", [0, 1, 3])
def test_the_structure_that_is_wrong_is_named_by_its_place(tmp_path, place):
    file = tmp_path / "four.extxyz"
    lines = ["energy_unit=kcal/mol" if k == place else "energy_unit=eV" for k in range(4)]
    file.write_text("".join(f"1\n{line}\nH 0 0 0\n" for line in lines))
    with pytest.raises(DataError, match=f"structure {place} states energy_unit"):
        list(iterate_structures(file))
