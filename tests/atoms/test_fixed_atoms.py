"""Constraints, masses and momenta of structures in relaxation and dynamics, against ASE's."""

import jax
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.lj import LennardJones as ReferenceLJ
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian, FixCom, FixedLine, FixedPlane, FixScaled, Hookean
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from broadsheet.atoms.calculator import OutsideDomainError, PotentialCalculator
from broadsheet.atoms.constraints import check_written, freedom, velocities_of
from broadsheet.atoms.files import read_structures
from broadsheet.atoms.motion import BOLTZMANN, kinetic_energy, masses_of, simulate, thermal_velocities
from broadsheet.atoms.pair import LennardJones
from broadsheet.atoms.relaxation import relax
from broadsheet.atoms.relaxation_benchmark import heavy_rmsd, relaxation_report
from broadsheet.atoms.structures import batch_atoms
from broadsheet.errors import InputError


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


LJ = LennardJones(epsilon=0.0104, sigma=3.4, cutoff=8.0, smooth=True)
HELD = {
    "atoms": [FixAtoms([0, 1, 2, 3])],
    "components": [FixCartesian([0, 5], (True, False, True)), FixAtoms([1])],
    "planes": [FixedPlane([2, 3], (1, 1, 0)), FixedLine([4], (1, 2, 3)), FixAtoms([0])],
    "scaled": [FixScaled([1, 2], (True, False, True))],
}


def reference():
    return ReferenceLJ(epsilon=0.0104, sigma=3.4, rc=8.0, smooth=True)


def argon(held=(), seed=1):
    made = bulk("Ar", cubic=True, a=5.3).repeat((2, 1, 1))
    made.rattle(0.15, seed=seed)
    made.set_constraint(list(held))
    return made


@pytest.mark.parametrize("held", HELD.values(), ids=HELD)
def test_what_is_free_is_what_ase_leaves_free(held):
    structure = argon(held)
    vectors = np.random.default_rng(0).standard_normal((8, 3))
    wanted = vectors.copy()
    for each in held:
        each.adjust_forces(structure, wanted)
    np.testing.assert_allclose(np.einsum("nij,nj->ni", freedom(structure), vectors), wanted, atol=1e-14)
    assert freedom(argon()) is None


def test_scaled_coordinates_of_a_skewed_cell_stay():
    structure = Atoms("Ar", [[0.3, 0.4, 0.5]], cell=[[5, 0, 0], [1, 5, 0], [0.5, 1, 5]], pbc=True)
    structure.set_constraint(FixScaled(0, (True, False, False)))
    moved = structure.copy()
    moved.set_constraint()
    moved.positions += freedom(structure)[0] @ [0.3, -0.2, 0.1]
    before, after = (each.cell.scaled_positions(each.positions)[0] for each in (structure, moved))
    assert after[0] == pytest.approx(before[0])
    assert abs(after[1:] - before[1:]).max() > 0.01


def test_two_constraints_on_an_atom_hold_together():
    structure = argon(
        [FixedPlane([0], (1, 1, 0)), FixedPlane([0], (0, 1, 0)), FixedLine([1], (1, 0, 0)), FixCartesian(1, (1, 0, 0))]
    )
    free = freedom(structure)
    np.testing.assert_allclose(free[0], np.diag([0, 0, 1]), atol=1e-12)
    assert not free[1].any()


@pytest.mark.parametrize("other", [Hookean(0, 1, 5.0), FixBondLengths([[0, 1]]), FixCom()])
def test_other_constraints_are_refused_by_name(other):
    with pytest.raises(InputError, match=f"structure 1 has the constraint {type(other).__name__}"):
        batch_atoms([argon(), argon([other])])
    batch_atoms([argon([other])], motion=False)


@pytest.mark.parametrize("other", [FixBondLengths([(0, 1)]), FixAtoms([0])])
def test_constraints_are_ases_where_ase_moves_the_atoms(other):
    structure = argon([other])
    structure.calc = PotentialCalculator(LJ)
    expected = structure.copy()
    expected.calc = reference()
    for held in (True, False):
        np.testing.assert_allclose(
            structure.get_forces(apply_constraint=held), expected.get_forces(apply_constraint=held), rtol=1e-5, atol=1e-8
        )


@pytest.mark.parametrize("held", [HELD["atoms"], HELD["components"], HELD["planes"]])
def test_relaxation_with_fixed_atoms_goes_the_way_of_ase(held):
    structures = [argon(held), argon(seed=2)]
    batch = batch_atoms(structures)
    found = relax(LJ, batch, fmax=0.002)
    for k, each in enumerate(structures):
        made = each.copy()
        made.calc = reference()
        optimiser = BFGS(made, logfile=None)
        optimiser.run(fmax=0.002)
        assert found.steps[k] == optimiser.nsteps
        np.testing.assert_allclose(found.energy[k], made.get_potential_energy(), atol=1e-10)
        np.testing.assert_allclose(found.batch.positions[8 * k : 8 * k + 8], made.positions, atol=1e-7)
    move = np.asarray(found.batch.positions - batch.positions)[:8]
    for each in held:
        if isinstance(each, FixAtoms):
            assert not move[each.index].any()
    fire = relax(LJ, batch, fmax=0.002, method="fire")
    assert fire.converged.all()
    assert not np.asarray(fire.batch.positions - batch.positions)[
        np.all(freedom(structures[0]) == 0, axis=(1, 2)).nonzero()
    ].any()


def test_the_benchmark_of_relaxations_keeps_what_is_fixed():
    start, end = argon([FixAtoms([0, 1])]), argon(seed=2)
    for each in (start, end):
        each.calc = reference()
        each.get_potential_energy()
    found = relaxation_report(LJ, [start], [end], reference=lambda structures: [_labelled(each) for each in structures])
    assert np.array_equal(found.relaxed[0].positions[:2], start.positions[:2])
    assert found.rmsd[0] == pytest.approx(heavy_rmsd(found.relaxed[0], end))


def _labelled(structure):
    structure = structure.copy()
    structure.calc = reference()
    structure.get_forces()
    return structure


@pytest.mark.parametrize("count", [1, 2])
def test_dynamics_with_fixed_atoms_and_masses_is_that_of_ase(count):
    """With masses that are not those of the element, for one potential and for the mean of two."""
    structure = argon([FixAtoms([0]), FixedPlane([1], (1, 1, 0)), FixCartesian([2], (0, 0, 1))])
    structure.set_masses(np.linspace(2.0, 80.0, 8))
    batch = batch_atoms([structure], count=1)
    np.testing.assert_array_equal(masses_of(batch)[:8], structure.get_masses())
    velocities = thermal_velocities(batch, 60.0, jax.random.key(0))
    structure.set_velocities(np.asarray(velocities)[:8] / units.fs)
    potentials = [LJ, LennardJones(epsilon=0.012, sigma=3.4, cutoff=8.0, smooth=True)][:count]
    made = simulate(potentials, batch, steps=60, dt=1.0, velocities=velocities, key=jax.random.key(1), every=30)
    structure.calc = PotentialCalculator(potentials)
    VelocityVerlet(structure, units.fs).run(60)
    np.testing.assert_allclose(made.positions[-1][:8], structure.positions, atol=1e-7)
    assert np.array_equal(made.positions[-1][0], batch.positions[0])
    assert np.ptp(made.potential[:, 0] + made.kinetic[:, 0]) < 1e-5
    np.testing.assert_allclose(made.kinetic[-1, 0], structure.get_kinetic_energy(), rtol=1e-6)
    if count == 2:
        np.testing.assert_allclose(made.final.forces_std[:8], structure.calc.results["forces_std"], rtol=1e-5, atol=1e-9)
        with pytest.raises(OutsideDomainError, match="forces on atom"):
            simulate(potentials, batch, steps=5, stop_above=1e-6, key=jax.random.key(1))
    else:
        assert made.final.forces_std is None
        with pytest.raises(InputError, match="several potentials"):
            simulate(LJ, batch, steps=5, stop_above=1e-6, key=jax.random.key(1))


def test_thermal_velocities_have_their_temperature_in_what_is_free():
    large = bulk("Ar", cubic=True, a=5.3).repeat(6)
    large.set_masses(np.random.default_rng(0).uniform(1, 100, len(large)))
    free = large.copy()
    large.set_constraint([FixAtoms(range(400)), FixedPlane(range(400, 600), (1, 2, 0))])
    batch = batch_atoms([large, free])
    drawn = [thermal_velocities(batch, 300.0, jax.random.key(k)) for k in range(8)]
    kinetic = np.array([kinetic_energy(batch, each, masses_of(batch)) for each in drawn])
    degrees = np.array([3 * len(free) - 3 * 400 - 200, 3 * len(free) - 3])
    np.testing.assert_allclose(2 * kinetic[:, :2].mean(axis=0) / (degrees * BOLTZMANN), 300.0, rtol=0.04)
    velocities, kinetic = drawn[0], kinetic[0]
    assert not np.asarray(velocities)[:400].any()
    momenta = batch.sum_atoms(masses_of(batch)[:, None] * velocities)
    assert abs(np.asarray(momenta[1])).max() < 1e-9
    large.set_velocities(np.asarray(velocities)[: len(large)] / units.fs)
    assert large.get_temperature() == pytest.approx(2 * float(kinetic[0]) / (degrees[0] * BOLTZMANN), rel=1e-6)


def test_langevin_keeps_what_is_fixed_and_the_temperature_of_the_rest():
    light = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]])
    light.set_masses([1.0, 4.0])
    light.set_constraint(FixAtoms([0]))
    batch = batch_atoms([light] * 40)
    made = simulate(LJ, batch, steps=600, dt=2.0, temperature=20.0, friction=0.02, key=jax.random.key(2), every=20, skin=4.0)
    assert np.array_equal(made.positions[-1][:80:2], batch.positions[:80:2])
    np.testing.assert_allclose(made.kinetic[10:, :40].mean() / (1.5 * BOLTZMANN), 20.0, rtol=0.12)


def test_velocities_of_a_structure():
    structure = argon()
    assert velocities_of(structure) is None
    structure.set_masses(np.full(8, 2.0))
    structure.set_momenta(np.full((8, 3), 3.0))
    np.testing.assert_allclose(velocities_of(structure), 1.5 * units.fs)
    structure.set_constraint(FixAtoms([4]))
    with pytest.raises(InputError, match="atom 4 has a velocity along a direction in which it is fixed"):
        velocities_of(structure, "x.extxyz")
    structure.arrays["momenta"][4] = 0.0
    assert not velocities_of(structure)[4].any()
    with pytest.raises(InputError, match="atom 4"):
        simulate(LJ, batch_atoms([structure]), steps=1, velocities=jax.numpy.ones((8, 3)), key=jax.random.key(0))
    structure.arrays["momenta"][1, 1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        velocities_of(structure)


def test_constraints_that_a_file_would_lose(tmp_path):
    for held, name, kept in (
        (HELD["atoms"], "o.extxyz", True), (HELD["components"], "o.xyz", True), (HELD["planes"], "o.extxyz", False),
        (HELD["planes"], "o.traj", True), (HELD["atoms"], "o.cif", False),
    ):  # fmt: skip
        structure = argon(held)
        if kept:
            check_written(structure, tmp_path / name)
            structure.write(tmp_path / name)
            np.testing.assert_allclose(freedom(read_structures(tmp_path / name)[0]), freedom(structure))
        else:
            with pytest.raises(InputError, match="would not keep"):
                check_written(structure, tmp_path / name)
