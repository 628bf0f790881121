"""Pair potentials, dynamics, relaxation and the calculator, against ASE's."""

import jax
import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones as ReferenceLJ
from ase.calculators.morse import MorsePotential
from ase.cluster import Icosahedron
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from broadsheet.atoms.calculator import EnsembleCalculator, OutsideDomainError, PotentialCalculator
from broadsheet.atoms.motion import BOLTZMANN, simulate, thermal_velocities
from broadsheet.atoms.pair import LennardJones, Morse, Repulsion
from broadsheet.atoms.potential import SumPotential, compiled_predict
from broadsheet.atoms.potentials.pairnet import PairConfig, PairNet
from broadsheet.atoms.relaxation import relax
from broadsheet.atoms.structures import batch_atoms
from broadsheet.errors import InputError


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


ARGON = {"epsilon": 0.0104, "sigma": 3.4}


def argon(pbc=True):
    made = bulk("Ar", cubic=True, a=5.3).repeat((2, 2, 1))
    made.rattle(0.1, seed=1)
    made.pbc = pbc
    return made


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("pbc", [True, [True, True, False], False])
def test_lennard_jones_is_that_of_ase(smooth, pbc):
    structure = argon(pbc)
    structure.calc = ReferenceLJ(**ARGON, rc=8.0, smooth=smooth)
    potential = LennardJones(**ARGON, cutoff=8.0, smooth=smooth)
    batch = batch_atoms([structure, molecule("H2O")])
    found = compiled_predict(potential, batch, potential.neighbours(batch), True)
    np.testing.assert_allclose(found.energy[0], structure.get_potential_energy(), rtol=1e-12)
    np.testing.assert_allclose(found.forces[:16], structure.get_forces(), atol=1e-12)
    if pbc is True:
        np.testing.assert_allclose(found.stress[0], structure.get_stress(voigt=False), atol=1e-14)


def test_morse_of_a_near_pair_is_that_of_ase():
    structure = molecule("N2")
    structure.calc = MorsePotential(epsilon=2.0, rho0=5.0, r0=1.2, rcut1=40.0, rcut2=50.0)
    potential = Morse(2.0, 5.0, 1.2, cutoff=1e4)
    taper = (1 + np.cos(np.pi * structure.get_distance(0, 1) / 1e4)) / 2
    batch = batch_atoms([structure])
    found = potential.energy_and_forces(batch, potential.neighbours(batch))
    np.testing.assert_allclose(found.energy[0], taper * structure.get_potential_energy(), rtol=1e-7)


def test_forces_of_networks_are_the_gradient():
    potential = SumPotential(PairNet(PairConfig(cutoff=6.0), jax.random.key(0)), Repulsion(0.01, 3.0, 6.0))
    batch = batch_atoms([argon()])
    near = potential.neighbours(batch)
    forces = np.asarray(potential.energy_and_forces(batch, near).forces)
    energy = jax.jit(lambda x: potential.energy(_at(batch, x), near)[0])
    step = np.zeros_like(batch.positions)
    step[2, 1] = 1e-5
    slope = (energy(batch.positions + step) - energy(batch.positions - step)) / 2e-5
    np.testing.assert_allclose(-slope, forces[2, 1], rtol=1e-6)


def _at(batch, positions):
    import equinox as eqx

    return eqx.tree_at(lambda b: b.positions, batch, positions)


def test_verlet_is_that_of_ase():
    potential, structure = LennardJones(**ARGON, cutoff=8.0, smooth=True), argon()
    batch = batch_atoms([structure])
    velocities = thermal_velocities(batch, 50.0, jax.random.key(0))
    structure.calc = ReferenceLJ(**ARGON, rc=8.0, smooth=True)
    structure.set_velocities(np.asarray(velocities)[:16] / units.fs)
    VelocityVerlet(structure, 2 * units.fs).run(60)
    made = simulate(potential, batch, steps=60, dt=2.0, velocities=velocities, key=jax.random.key(1), every=25)
    assert made.times.tolist() == [0, 50, 100, 120]
    np.testing.assert_allclose(made.positions[-1][:16], structure.positions, atol=1e-7)
    total = made.potential[:, 0] + made.kinetic[:, 0]
    assert np.ptp(total) < 1e-5


def test_langevin_has_its_temperature():
    potential = Morse(1.0, 4.0, 1.5, cutoff=30.0)
    batch = batch_atoms([molecule("N2")] * 24)
    made = simulate(
        potential, batch, steps=1500, dt=1.0, temperature=400.0, friction=0.05, key=jax.random.key(2), every=25, skin=3.0
    )
    kinetic = made.kinetic[10:, :24].mean()
    np.testing.assert_allclose(kinetic / (3 * BOLTZMANN), 400.0, rtol=0.08)


def test_relaxation_goes_the_way_of_ase():
    potential, clusters = LennardJones(**ARGON, cutoff=8.0, smooth=True), []
    for seed in range(3):
        clusters.append(Icosahedron("Ar", 2, latticeconstant=5.3))
        clusters[-1].rattle(0.3, seed=seed)
        clusters[-1].pbc = False
    found = relax(potential, batch_atoms(clusters), fmax=0.005)
    for k, cluster in enumerate(clusters):
        cluster.calc = ReferenceLJ(**ARGON, rc=8.0, smooth=True)
        reference = BFGS(cluster, logfile=None)
        reference.run(fmax=0.005)
        assert found.steps[k] == reference.nsteps
        np.testing.assert_allclose(found.energy[k], cluster.get_potential_energy(), atol=1e-9)
    fire = relax(potential, batch_atoms(clusters), fmax=0.0005, method="fire")
    assert fire.converged.all()
    np.testing.assert_allclose(fire.energy, found.energy, atol=1e-3)
    stopped = relax(potential, found.batch, fmax=1e-9, steps=2)
    assert not stopped.converged.any()


def test_the_calculator_and_the_stop():
    structure, reference = argon(), argon()
    reference.calc = ReferenceLJ(**ARGON, rc=8.0, smooth=True)
    first, second = (LennardJones(e, 3.4, 8.0, smooth=True) for e in (0.0104, 0.0110))
    structure.calc = PotentialCalculator(first)
    np.testing.assert_allclose(structure.get_stress(), reference.get_stress(), atol=1e-14)
    structure.positions[0] += 0.4  # past the skin
    reference.positions[0] += 0.4
    np.testing.assert_allclose(structure.get_forces(), reference.get_forces(), atol=1e-12)
    structure.calc = PotentialCalculator([first, second])
    forces = structure.get_forces()
    np.testing.assert_allclose(structure.calc.results["forces_std"], np.abs(forces) * 0.0006 / 0.0214 * np.sqrt(2), rtol=1e-6)
    structure.calc = PotentialCalculator([first, second], stop_above=1e-9)
    with pytest.raises(OutsideDomainError, match="forces on atom"):
        structure.get_forces()
    both = EnsembleCalculator([ReferenceLJ(epsilon=e, sigma=3.4, rc=8.0, smooth=True) for e in (0.0104, 0.0110)])
    reference.calc = both
    np.testing.assert_allclose(reference.get_forces(), forces, atol=1e-12)
    energies = [member.get_potential_energy(reference) for member in both.members]
    np.testing.assert_allclose(reference.get_potential_energy(), np.mean(energies), rtol=1e-12)
    np.testing.assert_allclose(both.results["energy_std"], abs(energies[0] - energies[1]) / np.sqrt(2), rtol=1e-6)
    structure.calc = PotentialCalculator([first, second])
    for made in (structure, reference):  # what ASE's filters of cells minimise is the energy where there are no electrons
        assert made.get_potential_energy(force_consistent=True) == made.get_potential_energy()
    reference.calc = EnsembleCalculator(both.members, stop_above=1e-9)
    with pytest.raises(OutsideDomainError):
        reference.get_potential_energy()


def test_bad_settings():
    batch, potential = batch_atoms([argon()]), LennardJones(**ARGON, cutoff=8.0)
    settings = {"steps": 1, "every": 1, "dt": 1.0, "friction": 0.0, "temperature": 0.0, "skin": 1.0}
    for wrong in ({"steps": 0}, {"every": 0}, {"dt": 0.0}, {"friction": -0.1}, {"temperature": -1.0}, {"skin": 0.0}):
        with pytest.raises(InputError, match=r"^simulate"):
            simulate(potential, batch, key=jax.random.key(0), **(settings | wrong))
    for wrong in ({"fmax": 0.0}, {"steps": 0}, {"max_step": 0.0}, {"skin": 0.0}):
        with pytest.raises(InputError, match=r"^relax"):
            relax(potential, batch, **wrong)
    with pytest.raises(InputError, match="spread"):
        PotentialCalculator(potential, stop_above=1.0)
    with pytest.raises(InputError, match="no direct forces"):
        potential.energy_and_direct_forces(batch, potential.neighbours(batch))
    with pytest.raises(InputError, match="onset"):
        LennardJones(cutoff=-1.0)
