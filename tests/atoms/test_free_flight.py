"""Motion and relaxation where the answer is known: free atoms, a spring, chains of a normal law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from scipy import constants

from broadsheet.atoms import LennardJones, Morse, batch_atoms, posterior, relax, simulate, thermal_velocities
from broadsheet.atoms.motion import kinetic_energy, masses_of
from broadsheet.atoms.potential import predict
from broadsheet.errors import InputError

KEY = jax.random.key(0)
FAR = Atoms("HeNe", [[0, 0, 0], [0, 0, 50.0]])
ARGON = LennardJones(epsilon=0.0103, sigma=3.4, cutoff=12.0)


def test_masses_are_the_elements_or_the_structures():
    heavy = FAR.copy()
    heavy.set_masses([10.0, 30.0])
    assert masses_of(batch_atoms([FAR], atoms=8))[:3] == pytest.approx([4.002602, 20.1797, 1.0])
    assert masses_of(batch_atoms([heavy], atoms=8))[:3].tolist() == [10.0, 30.0, 1.0]


def test_kinetic_energy_in_electronvolt():
    """m v² / 2 in SI: 1 Å/fs is 1e5 m/s."""
    batch = batch_atoms([FAR, FAR], atoms=8)
    velocities = jnp.zeros((8, 3)).at[1].set(jnp.asarray([0.0, 0.6, 0.8])).at[6].set(9.0)
    masses = np.full(8, 2.0)
    joule = 0.5 * 2 * constants.atomic_mass * 1e5**2
    np.testing.assert_allclose(kinetic_energy(batch, velocities, masses)[:2], [joule / constants.e, 0], rtol=1e-6)


def test_thermal_velocities_are_maxwells():
    many = Atoms("He4000", np.random.default_rng(0).uniform(0, 1000, (4000, 3)))
    many.set_masses(np.tile([4.0, 16.0], 2000))
    batch = batch_atoms([many])
    v = np.asarray(thermal_velocities(batch, 300.0, KEY))[:4000]
    for place, mass in ((0, 4.0), (1, 16.0)):
        expected = np.sqrt(constants.k * 300 / (mass * constants.atomic_mass)) / 1e5
        assert v[place::2].std() == pytest.approx(expected, rel=0.02)
    masses = np.tile([4.0, 16.0], 2000)[:, None]
    assert np.abs((masses * v).sum(axis=0)).max() < 1e-2
    moving = np.asarray(thermal_velocities(batch, 300.0, KEY, still=False))[:4000]
    assert np.abs((masses * moving).sum(axis=0)).max() > 1e-1
    held = many.copy()
    held.set_constraint(FixAtoms([0]))
    fixed = np.asarray(thermal_velocities(batch_atoms([held]), 300.0, KEY))
    assert not fixed[0].any()
    np.testing.assert_allclose(fixed[1:4000], moving[1:], rtol=1e-5)  # with an atom held, momentum is no constant
    assert not np.asarray(thermal_velocities(batch, 0.0, KEY)).any()


def test_neighbours_are_found_again_after_half_the_skin():
    """Two atoms that start beyond cutoff and skin, and come within the cutoff before either has gone the skin's length."""
    strong = LennardJones(epsilon=10.0, sigma=3.4, cutoff=12.0)
    pair = batch_atoms([Atoms("Ar2", [[0, 0, 0], [0, 0, 12.55]])], atoms=8)
    v = jnp.zeros((8, 3)).at[0, 2].set(0.1).at[1, 2].set(-0.1)
    path = simulate(strong, pair, steps=4, dt=1.0, velocities=v, key=KEY)
    moved = batch_atoms([Atoms("Ar2", path.positions[-1, :2])], atoms=8)
    assert float(path.positions[-1, 1, 2] - path.positions[-1, 0, 2]) == pytest.approx(11.75, abs=2e-3)
    wanted = predict(strong, moved, strong.neighbours(moved)).energy[0]
    assert float(path.potential[-1, 0]) == pytest.approx(float(wanted), rel=1e-3)
    assert float(wanted) < -1e-3


def test_free_atoms_go_straight_on_and_frames_come_when_asked():
    v = jnp.zeros((8, 3)).at[0].set(jnp.asarray([0.01, 0.02, -0.03]))
    batch, seen = batch_atoms([FAR], atoms=8), []
    path = simulate(ARGON, batch, steps=7, dt=2.0, velocities=v, every=3, key=KEY, report=lambda n, _: seen.append(n))
    assert seen == [3, 6, 7]
    np.testing.assert_allclose(path.times, [0, 6, 12, 14])
    expected = np.asarray([0.01, 0.02, -0.03]) * np.asarray(path.times)[:, None]
    np.testing.assert_allclose(path.positions[:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(path.velocities[:, 0], np.broadcast_to(v[0], (4, 3)), rtol=1e-6)
    assert not path.potential[:, 0].any()
    assert np.ptp(path.kinetic[:, 0]) == 0
    np.testing.assert_array_equal(path.final.positions, path.positions[-1])


def test_the_skin_changes_nothing_and_friction_slows():
    cluster = Atoms("Ar3", [[0, 0, 0], [0, 0, 3.8], [0, 3.6, 1.0]])
    batch = batch_atoms([cluster])
    ends = [simulate(ARGON, batch, steps=40, dt=5.0, temperature=80.0, key=KEY, skin=skin, every=40) for skin in (0.05, 3.0)]
    np.testing.assert_allclose(ends[0].positions, ends[1].positions, atol=1e-3)
    v = jnp.zeros((8, 3)).at[0, 0].set(0.05)
    slowed = simulate(
        ARGON, batch_atoms([FAR], atoms=8), steps=10, dt=2.0, temperature=0.0, friction=0.02, velocities=v, key=KEY
    )
    np.testing.assert_allclose(slowed.velocities[-1, 0, 0], 0.05 * np.exp(-0.02 * 20), rtol=1e-4)


@pytest.mark.parametrize("method", ["fire", "bfgs"])
def test_a_pair_relaxes_to_the_minimum_of_its_potential(method):
    bond = Morse(epsilon=2.0, rho=3.0, r0=1.5, cutoff=500.0)
    made = relax(bond, batch_atoms([Atoms("N2", [[0, 0, 0], [0, 0, 1.8]])]), fmax=1e-3, steps=300, method=method)
    distance = float(jnp.linalg.norm(made.batch.positions[1] - made.batch.positions[0]))
    assert distance == pytest.approx(1.5, abs=1e-3)
    assert bool(made.converged[0])
    assert 1 < int(made.steps[0]) < 300
    assert float(made.energy[0]) == pytest.approx(-2.0, abs=1e-3)


@pytest.mark.parametrize(("good", "bad"), [({"fmax": 1.0}, {"fmax": 0.0}), ({"steps": 1}, {"steps": 0}),
                                           ({"max_step": 0.1}, {"max_step": 0.0}), ({"skin": 0.1}, {"skin": 0.0})])  # fmt: skip
def test_bounds_of_a_relaxation(good, bad):
    pair = batch_atoms([Atoms("Ar2", [[0, 0, 0], [0, 0, 3.9]])])
    relax(ARGON, pair, **{"steps": 2, **good})
    with pytest.raises(InputError):
        relax(ARGON, pair, **{"steps": 2, **bad})


def test_schedules_begin_and_end_where_they_are_told():
    made = posterior.step_schedule(1e-2, 1e-4, 1000)
    np.testing.assert_allclose([made(0), made(1000)], [1e-2, 1e-4], rtol=1e-5)
    assert made(500) > 1e-4
    assert float(posterior.step_schedule(1e-2, 1e-2, 10)(7)) == pytest.approx(1e-2)
    # a (b + t)^-gamma: of one and the same b at any two times
    for gamma in (0.33, 1.0):
        made = posterior.step_schedule(1.0, 0.25, 100, gamma)
        b = [t / (float(made(t)) ** (-1 / gamma) - 1) for t in (10.0, 50.0, 100.0)]
        np.testing.assert_allclose(b, b[0], rtol=1e-4)


def test_densities_of_a_sample_by_hand():
    density = posterior.ForceMatchingPosterior(lambda w, x: w * x, 2.0, 0.5)
    sample = posterior.Sample(jnp.asarray(3.0), jnp.asarray(-1.0))
    assert float(density.log_prior(sample)) == pytest.approx(-9 / 8 - np.exp(-1) - 1)
    x, y = jnp.asarray([1.0, 2.0]), jnp.asarray([3.1, 5.0])
    scale = 0.5 * np.exp(-1)
    each = [-((0.1 / scale) ** 2) / 2, -((1 / scale) ** 2) / 2]
    constant = -np.log(scale) - 0.5 * np.log(2 * np.pi)
    assert float(density.log_likelihood(sample, x, y)) == pytest.approx(sum(each) + 2 * constant, rel=1e-5)
    masked = density.log_likelihood(sample, x, y, jnp.asarray([True, False]))
    assert float(masked) == pytest.approx(each[0] + constant, rel=1e-4)
    whole = density.log_density(sample, (x, y), 3.0)
    assert float(whole) == pytest.approx(-9 / 8 - np.exp(-1) - 1 + 3 * (sum(each) + 2 * constant), rel=1e-5)


def test_spreads_of_members_by_hand():
    found = posterior.summarised(np.asarray([[1.0, 2.0], [3.0, 6.0]]), [4])
    np.testing.assert_allclose(found.mean, [2, 4])
    np.testing.assert_allclose(found.deviation, [np.sqrt(2), np.sqrt(8)])
    assert posterior.coverage(np.zeros(4), np.ones(4), np.asarray([0.0, 1.96, -1.97, 3.0])) == 0.5
    predictions = np.asarray([[0.0], [1.0], [2.0], [3.0], [4.0]])  # mean 2, variance 2.5
    wanted = np.sqrt(-1 / 5 + 2 / 4 * (2 - 7.0) ** 2 / 2.5)
    assert posterior.calibration_factor(predictions, np.asarray([7.0])) == pytest.approx(wanted)
    assert posterior.calibration_factor(predictions, np.asarray([2.0])) == 0


def test_dynamics_as_it_comes_has_steps_of_half_a_femtosecond_at_300_kelvin():
    many = batch_atoms([Atoms("He400", 100 * np.stack(np.unravel_index(np.arange(400), (8, 8, 8)), axis=1))])
    path = simulate(ARGON, many, steps=2, key=KEY)
    assert path.times.tolist() == [0, 0.5, 1.0]
    joule = 1.5 * constants.k * 300 * 400
    np.testing.assert_allclose(path.kinetic[:, 0], joule / constants.e, rtol=0.08)
    assert np.ptp(path.kinetic[:, 0]) == 0  # without friction
    np.testing.assert_allclose(path.positions[2] - path.positions[0], path.velocities[0], atol=2e-4)  # to the last bit of 700 Å


def test_fire_by_hand():
    """Two atoms in a line, moves of 0.02 Å at most: velocities, steps of time and mixing as in the paper of FIRE."""
    epsilon, rho, r0 = 2.0, 3.0, 1.5
    bond = Morse(epsilon=epsilon, rho=rho, r0=r0, cutoff=500.0)
    r, v, dt, mixing, downhill, path, limited = 1.8, 0.0, 0.1, 0.1, 0, [], 0
    for _ in range(40):
        power = np.exp(-rho * (r / r0 - 1))
        force = epsilon * rho / r0 * 2 * (power**2 - power)  # on the second atom; the first has minus that
        if force * v > 0:
            v = (1 - mixing) * v + mixing * abs(v) * np.sign(force)
            if downhill > 5:
                dt, mixing = min(1.1 * dt, 1.0), 0.99 * mixing
            downhill += 1
        else:
            v, dt, mixing, downhill = 0.0, 0.5 * dt, 0.1, 0
        v += dt * force
        move = dt * v
        limited += np.sqrt(2) * abs(move) > 0.02
        r += 2 * np.clip(move, -0.02 / np.sqrt(2), 0.02 / np.sqrt(2))
        path.append(r)
    assert 0 < limited < 40
    for steps in (3, 12, 25, 40):
        pair = batch_atoms([Atoms("N2", [[0, 0, 0], [0, 0, 1.8]])])
        made = relax(bond, pair, fmax=1e-9, steps=steps, max_step=0.02, method="fire")
        assert float(jnp.linalg.norm(made.batch.positions[1] - made.batch.positions[0])) == pytest.approx(
            path[steps - 1], abs=2e-4
        )
        assert int(made.steps[0]) == steps


def test_a_relaxation_as_it_comes_tells_its_steps_and_ends_below_a_twentieth():
    bond, told = Morse(epsilon=2.0, rho=3.0, r0=1.5, cutoff=500.0), []
    pair = batch_atoms([Atoms("N2", [[0, 0, 0], [0, 0, 1.8]]), Atoms("N2", [[0, 0, 0], [0, 0, 1.5]])])
    made = relax(bond, pair, report=lambda steps, forces: told.append((steps.tolist(), forces.tolist())))
    assert told[-1] == (made.steps.tolist(), made.fmax.tolist())
    assert made.steps[1] == 0
    assert (made.fmax < 0.05).all()
    before = relax(bond, pair, steps=int(made.steps[0]) - 1)
    assert before.fmax[0] > 0.05
    assert before.converged.tolist() == [False, True]
    lost = batch_atoms([Atoms("N2", [[0, 0, 0], [0, 0, 1.8]])])
    with pytest.raises(InputError, match="Structure 0 has forces that are not finite"):
        relax(Morse(epsilon=np.nan, rho=3.0, r0=1.5, cutoff=500.0), lost)
