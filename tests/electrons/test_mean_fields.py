"""Which molecule is solved: core potentials, charges, multiplicities and refusals, against PySCF's own."""

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms

from broadsheet.atoms.charge import charge_and_multiplicity
from broadsheet.atoms.labels import B3LYP, calculator, label
from broadsheet.atoms.structures import batch_atoms
from broadsheet.electrons.calculator import KohnShamCalculator
from broadsheet.electrons.core_potentials import core_potentials
from broadsheet.electrons.functionals import named
from broadsheet.electrons.kohn_sham import Molecule, grid_density, mean_field
from broadsheet.electrons.self_consistency import converge, ground_state
from broadsheet.errors import InputError

pytest.importorskip("pyscf", reason="pip install '.[atoms]'")


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


HYDROGEN_IODIDE = Atoms("HI", [[0, 0, 0], [0, 0, 1.609]])
HYDROXYL = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])


def said(atoms=HYDROXYL, charges=None, moments=None, **info):
    made = atoms.copy()
    made.info = info
    made.set_initial_charges(charges)
    made.set_initial_magnetic_moments(moments)
    return made


def test_iodine_has_its_core_potential_in_energy_and_forces():
    from ase.units import Bohr, Hartree
    from pyscf import dft, gto

    mol = gto.M(atom="H 0 0 0; I 0 0 1.609", basis="def2-svp", ecp={"I": "def2-svp"}, verbose=0)
    field = dft.RKS(mol, xc="pbe,pbe")
    field.grids.level, field.conv_tol = 0, 1e-11
    made = HYDROGEN_IODIDE.copy()
    made.calc = KohnShamCalculator("pbe", grid=0)
    np.testing.assert_allclose(made.get_potential_energy(), field.kernel() * Hartree, atol=1e-6)
    np.testing.assert_allclose(made.get_forces(), -field.nuc_grad_method().kernel() * Hartree / Bohr, atol=5e-4)
    ours = Molecule.from_pyscf(mean_field(made, grid=0), exchange=False)
    assert sum(ours.electrons) == 26
    density = grid_density(ours, made.calc.ground.D)
    np.testing.assert_allclose(np.sum(density.total * ours.weights.ravel()), 26, atol=1e-3)


@pytest.mark.parametrize(("basis", "symbols", "cores"), [
    ("def2-SVP", ("H", "I"), {"I": 28}), ("unc-def2-tzvp", ("Au",), {"Au": 60}), ("lanl2dz", ("C", "Cl"), {"Cl": 10}),
    ("cc-pVTZ-PP", ("Br",), {"Br": 10}), ("aug-cc-pVTZ-PP", ("Au",), {"Au": 60}), ("sto-3g", ("I", "He", "C"), {}),
    ("bfd-vdz", ("Si", "H"), {"Si": 10, "H": 0}), ("ccecp-cc-pvdz", ("C",), {"C": 2}), ("def2-mTZVP", ("Rb",), {"Rb": 28}),
    ("6-31g*", ("C", "Br"), {}), ("stuttgart", ("Cl",), {"Cl": 10}),
])  # fmt: skip
def test_core_potentials_of_bases(basis, symbols, cores):
    assert {symbol: found[0] for symbol, found in core_potentials(basis, symbols).items()} == cores


@pytest.mark.parametrize(("basis", "symbols", "words"), [
    ("6-31g", ("C", "I"), "'6-31g' has no functions for I"), ("nonsense", ("C",), "PySCF has no basis 'nonsense'"),
    ("gth-szv", ("H",), "pseudopotentials of periodic"), ("def2-svp-jkfit", ("I",), "core of I"), ("minao", ("Au",), "core of Au"),
    ("ecp-qvszp", ("C",), "has no|core of C|no basis"),
])  # fmt: skip
def test_bases_without_core_or_element_are_refused_by_name(basis, symbols, words):
    with pytest.raises(InputError, match=words):
        core_potentials(basis, symbols)


@pytest.mark.parametrize(("structure", "electrons", "unpaired"), [
    (said(), 9, 1), (said(charge=-1), 10, 0), (said(charge=np.float64(-1.0), spin=3), 10, 2), (said(total_charge=1), 8, 0),
    (said(multiplicity=4), 9, 3), (said(charges=[-1.2, 0.2]), 10, 0), (said(spin=0), 9, 1),
    (said(moments=[1.0, 0.0]), 9, 1), (said(charges=[1, 0], moments=[2, 0]), 8, 2), (said(moments=[-3, 0]), 9, 3),
    (said(moments=[1, -1], charge=1, spin=1), 8, 0),
])  # fmt: skip
def test_charge_and_multiplicity_from_wherever_a_structure_says_them(structure, electrons, unpaired):
    mol = mean_field(structure, basis="sto-3g", grid=0).mol
    assert (mol.nelectron, mol.spin) == (electrons, unpaired)


@pytest.mark.parametrize(("structure", "options", "words"), [
    (said(charge=-0.5), {}, "charge -0.5; a whole number"), (said(spin=2.5), {}, "multiplicity 2.5; a whole"),
    (said(spin=-1), {}, "1 or more"), (said(charge="one"), {}, "charge=one is no number"),
    (said(charge=-1, spin=2), {}, "10 electrons cannot have the multiplicity 2"), (said(spin=12), {}, "9 electrons cannot"),
    (said(charge=9), {}, "no electrons"), (said(charges=[-0.5, 0]), {}, "initial charges that add up to -0.5"),
    (said(charges=[-1, 0], charge=0), {}, "charge=0, and the initial charges"), (said(moments=[0.5, 0]), {}, "add up to 0.5"),
    (said(charges=[np.inf, 0]), {}, "charges that are not finite"), (said(moments=[[0, 0, 1], [0, 0, 0]]), {}, "moments that are vectors"),
    (said(moments=[1, -1]), {}, "cancel"), (said(moments=[1, 0], spin=4), {}, "magnetic moments of its atoms say 2"),
    (said(charge=np.nan), {}, "no number"), (said(Atoms("He"), spin=3), {"basis": "sto-3g"}, "2 electrons of one spin do not fit into 1"),
    (said(Atoms("H"), charge=-2), {"basis": "sto-3g"}, "2 electrons of one spin"),
    (said(HYDROGEN_IODIDE, charge=27), {}, "-1 electrons outside the cores"), (Atoms("H2"), {}, "Atoms 0 and 1 of the structure overlap"),
    (Atoms(), {}, "no atoms"), (Atoms("HX", [[0, 0, 0], [0, 0, 1]]), {}, "no element"),
    (Atoms("H", [[np.nan, 0, 0]]), {}, "not finite"), (Atoms("H2", [[0, 0, 0], [0, 0, 1]], cell=[5, 5, 5], pbc=[1, 0, 0]), {}, "periodic"),
])  # fmt: skip
def test_molecules_that_cannot_be_are_refused(structure, options, words):
    with pytest.raises(InputError, match=words):
        mean_field(structure, **options)


def test_a_mean_field_made_elsewhere_needs_room_for_its_electrons():
    field = mean_field(Atoms("He2", [[0, 0, 0], [0, 0, 3.0]]), basis="sto-3g", grid=0)
    field.mol.spin = 4
    with pytest.raises(InputError, match="4 electrons of one spin do not fit into 2 independent orbitals"):
        Molecule.from_pyscf(field)


def test_calculators_notice_another_charge():
    for made in (KohnShamCalculator("lda"), B3LYP()):
        made.atoms = HYDROXYL.copy()
        assert made.check_state(HYDROXYL) == []
        assert made.check_state(said(charge=-1)) == ["info"]


def test_other_labels_read_charges_alike():
    with pytest.raises(InputError, match=r"structure 1: .*charge -0\.5"):
        label([molecule("H2"), said(charge=-0.5)], "b3lyp/6-31g*")
    with pytest.raises(InputError, match="multiplicity 1"):
        B3LYP().calculate(said(spin=1))
    with pytest.raises(InputError, match="initial charges"):
        calculator("gfn2", said(charges=[0.4, 0]))
    assert charge_and_multiplicity(said(charge=2)) == (2, None)
    assert batch_atoms([said(charge=-1, spin=1)]).charge[0] == -1


def test_labels_are_forces_on_fixed_atoms_too():
    made = molecule("H2O")
    free, made.info = made.copy(), {"a": 1}
    made.set_constraint(FixAtoms([0, 1]))
    made, free = label([made], "lj")[0], label([free], "lj")[0]
    np.testing.assert_array_equal(made.get_forces(apply_constraint=False), free.get_forces())
    assert made.constraints


def test_no_convergence_inside_jit_is_told():
    made = Molecule.from_atoms(molecule("H2"), basis="sto-3g", grid=0, exchange=False)
    one = jax.jit(lambda: ground_state(named("lda"), made, cycles=1).energy)
    assert np.isnan(one())
    assert np.isfinite(converge(named("lda"), made).energy)
