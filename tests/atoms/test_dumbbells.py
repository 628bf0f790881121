"""A fluid of dumbbells against ASE's Lennard-Jones, and its coarse frames, made or read."""

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones as ReferenceLJ
from scipy.constants import N_A, e

from broadsheet.atoms.dumbbells import DumbbellFluid, Dumbbells, coarse_frames, read_coarse
from broadsheet.atoms.structures import batch_atoms
from broadsheet.errors import DataError


def test_energies_are_pairs_between_molecules_and_springs_within():
    fluid = DumbbellFluid(2, volume=1000.0)
    sites = np.array([[1.0, 1, 1], [1, 1, 3.3], [4.6, 1, 1], [4.6, 2.5, 1]])
    structure = Atoms("Ar4", sites, cell=[fluid.length] * 3, pbc=True)
    potential = Dumbbells(fluid)
    assert potential.cutoff == pytest.approx(10 * 2 ** (1 / 3) / 2 - 0.6)  # in a small box not 2.5 times 3.4 Å
    assert Dumbbells(DumbbellFluid(2, volume=5000.0)).cutoff == pytest.approx(8.5)
    batch = batch_atoms([structure])
    found = potential.energy_and_forces(batch, potential.neighbours(batch))

    structure.calc = ReferenceLJ(epsilon=0.0104, sigma=3.4, rc=potential.cutoff, smooth=True)
    energy, forces = structure.get_potential_energy(), structure.get_forces()
    for within in ([0, 1], [2, 3]):
        alone = structure[within]
        alone.calc = ReferenceLJ(epsilon=0.0104, sigma=3.4, rc=potential.cutoff, smooth=True)
        energy, forces[within] = energy - alone.get_potential_energy(), forces[within] - alone.get_forces()
    forces[:2, 2] += [0.3, -0.3]  # 1 eV/Å^2 times what the bonds are longer or shorter than 2 Å
    forces[2:, 1] += [-0.5, 0.5]
    np.testing.assert_allclose(found.energy[0], energy + (0.3**2 + 0.5**2) / 2, rtol=1e-5)
    np.testing.assert_allclose(found.forces[:4], forces, atol=1e-5)


def test_coarse_frames_are_centres_and_what_acts_on_them():
    frames = coarse_frames(DumbbellFluid(9), 3, jax.random.key(0), every=5)
    real = frames.forces[:, :9]
    assert real.shape == (3, 9, 3)
    assert np.abs(real).max() > 0.01
    np.testing.assert_allclose(real.sum(axis=1), 0, atol=1e-4)  # action and reaction; springs cancel
    assert not frames.forces[:, 9:].any()
    np.testing.assert_allclose(frames.lengths, (9 * 85) ** (1 / 3))
    apart = frames.positions[0, :9, None] - frames.positions[0, :9]
    apart = np.linalg.norm(apart - frames.lengths * np.round(apart / frames.lengths), axis=2)[np.triu_indices(9, 1)]
    assert apart.min() > 2  # no two molecules share a place
    assert (frames.molecules, frames.number, frames.size) == (9, 36, pytest.approx(1.2 * 3.4))
    assert frames.temperature == 200
    assert frames.repulsion == frames.unit == pytest.approx(200 / 11604.518)  # kT, eV
    assert frames.cutoff == pytest.approx((9 * 85) ** (1 / 3) / 2 - 0.1)
    one = frames.batch(1)
    np.testing.assert_allclose(one.positions[:9], frames.positions[1, :9], rtol=1e-6)
    assert one.numbers[:9].tolist() == [36] * 9
    lists = frames.pairs()
    assert lists.r.shape[0] == 3
    assert lists.unit.shape == (*lists.r.shape, 3)
    counts = [(each < frames.cutoff).sum() for each in lists.r]
    assert counts[0] == (apart < frames.cutoff).sum()
    assert max(counts) == lists.r.shape[1]
    for k in range(3):
        np.testing.assert_allclose(lists.r[k, counts[k] :], 2 * frames.cutoff)
        assert not lists.unit[k, counts[k] :].any()


def test_coarse_water_comes_in_the_units_of_its_files(tmp_path):
    rng = np.random.default_rng(0)
    positions, forces = rng.random((2, 5, 3)), rng.standard_normal((2, 5, 3))
    np.save(tmp_path / "conf_COM.npy", positions)
    np.save(tmp_path / "forces_COM.npy", forces)
    for box in (np.diag([1.2, 1.3, 1.4]), np.array([1.2, 1.3, 1.4])):
        np.save(tmp_path / "box.npy", box)
        found = read_coarse(tmp_path, temperature=300.0)
        np.testing.assert_allclose(found.positions[:, :5], 10 * positions)
        np.testing.assert_allclose(found.forces[:, :5], forces * 1000 / (N_A * e) / 10, rtol=1e-6)
        np.testing.assert_allclose(found.lengths, [12, 13, 14])
        assert found.cutoff == pytest.approx(5.9)  # below half of the shortest side
        assert found.repulsion == pytest.approx(0.025852, rel=1e-4)  # kT at 300 K, eV
        assert (found.number, found.size, found.molecules) == (18, 3.165, 5)
    np.save(tmp_path / "box.npy", np.full(3, 2.0))
    assert read_coarse(tmp_path).cutoff == pytest.approx(2.2 * 3.165)
    assert read_coarse(tmp_path).temperature == 298
    np.save(tmp_path / "box.npy", np.ones(2))
    with pytest.raises(DataError, match="and a box are wanted"):
        read_coarse(tmp_path)
