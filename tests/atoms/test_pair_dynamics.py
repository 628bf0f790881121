"""Dynamics under tabulated pair forces against laws of statistical mechanics, and ASE's forces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones as ReferenceLJ

from broadsheet.atoms.dumbbells import DumbbellFluid, Dumbbells
from broadsheet.atoms.motion import ACCELERATION, BOLTZMANN
from broadsheet.atoms.pair import LennardJones, Morse, Repulsion
from broadsheet.atoms.pair_dynamics import pair_dynamics, pair_normal_equations, pair_slopes
from broadsheet.atoms.structures import batch_atoms
from broadsheet.errors import InputError

SETTINGS = {"temperature": 300.0, "mass": 40.0, "dt": 5.0}


def test_slopes_are_those_of_ases_lennard_jones():
    r = np.array([3.2, 3.8, 5.0, 7.9, 8.1])
    found = pair_slopes([LennardJones(0.01, 3.4, 8.0)], jnp.asarray(r, jnp.float32))
    for distance, slope in zip(r, found, strict=True):
        pair = Atoms("Ar2", [[0, 0, 0], [0, 0, distance]], calculator=ReferenceLJ(epsilon=0.01, sigma=3.4, rc=8.0))
        np.testing.assert_allclose(slope, -pair.get_forces()[1, 2], atol=2e-6)


def test_distances_of_two_beads_follow_boltzmann():
    pair, length, runs = Morse(0.03, 4.0, 4.0, cutoff=7.0), 14.0, 100
    knots = np.linspace(1.0, 7.0, 600)
    table = pair_slopes([pair], jnp.asarray(knots, jnp.float32))
    starts = np.tile([[[1.0, 1, 1], [1, 1, 5]]], (runs, 1, 1))
    made = pair_dynamics(jnp.tile(table, (runs, 1)), (1.0, 7.0), starts, np.full(3, length), steps=12000, every=20, friction=0.01,
                         key=jax.random.key(0), **SETTINGS)  # fmt: skip
    assert made.positions.shape == (runs, 600, 2, 3)
    apart = made.positions[:, 100:, 0] - made.positions[:, 100:, 1]
    r = np.linalg.norm(apart - length * np.round(apart / length), axis=-1)
    edges = np.linspace(3.0, 7.0, 17)
    fine = np.linspace(3.0, 7.0, 1601)
    energy = np.asarray(pair.pair(jnp.asarray(fine)[None]) * pair.taper(jnp.asarray(fine)[None]))[0]
    law = fine**2 * np.exp(-energy / (BOLTZMANN * 300))
    wanted = np.array([np.trapezoid(law[100 * k : 100 * k + 101]) for k in range(16)])
    found = np.stack([np.histogram(part, edges)[0] for part in np.split(r, 10)])
    found, wanted = found / found.sum(axis=1, keepdims=True), wanted / wanted.sum()
    error = found.std(axis=0, ddof=1) / np.sqrt(10)
    assert np.mean(((found.mean(axis=0) - wanted) / error) ** 2) < 2.5
    np.testing.assert_allclose(found.mean(axis=0), wanted, atol=0.006)
    assert (made.nearest > 1.0).all()
    assert (made.nearest < 3.8).all()


def test_free_beads_diffuse_as_langevin_says():
    friction, steps = 0.02, 200
    starts = np.random.default_rng(0).uniform(0, 20, (40, 50, 3))
    made = pair_dynamics(np.zeros((40, 10)), (1.0, 5.0), starts, np.full(3, 20.0), steps=steps, every=steps,
                         friction=friction, key=jax.random.key(1), **SETTINGS)  # fmt: skip
    moved = made.positions[:, -1] - starts
    time = steps * SETTINGS["dt"]
    speed = BOLTZMANN * 300 * ACCELERATION / SETTINGS["mass"]
    wanted = 2 * speed / friction * (time - (1 - np.exp(-friction * time)) / friction)
    np.testing.assert_allclose((moved**2).mean(), wanted, rtol=0.05)


def test_least_squares_finds_the_slopes_that_made_the_forces():
    rng = np.random.default_rng(0)
    knots = np.linspace(1.0, 6.0, 400)
    tables = np.stack([np.exp(-((knots - centre) ** 2)) for centre in (2.0, 3.5, 5.0)])
    fixed = np.asarray(pair_slopes([Repulsion(0.01, 3.0, 6.0)], jnp.asarray(knots, jnp.float32)), float)
    weights, lengths = np.array([0.5, -1.0, 0.3]), np.array([13.0, 14.0, 12.5])
    positions = rng.uniform(0, 12, (6, 12, 3))
    forces = np.zeros_like(positions)
    for frame in range(6):
        for i in range(12):
            for j in range(12):
                apart = positions[frame, i] - positions[frame, j]
                apart -= lengths * np.round(apart / lengths)
                r = np.linalg.norm(apart)
                if i != j and r < 6.0:
                    forces[frame, i] -= np.interp(r, knots, weights @ tables + fixed) * apart / r
    gram, moment = pair_normal_equations(positions, forces, lengths, tables, (1.0, 6.0), fixed)
    np.testing.assert_allclose(np.linalg.solve(gram.sum(axis=0), moment.sum(axis=0)), weights, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.solve(gram[0], moment[0]), weights, rtol=1e-5)


def test_what_does_not_fit():
    with pytest.raises(InputError, match="half the box"):
        pair_dynamics(np.zeros((1, 5)), (1.0, 6.0), np.zeros((1, 2, 3)), np.full(3, 10.0), steps=2, every=1, friction=0.0,
                      key=jax.random.key(0), **SETTINGS)  # fmt: skip
    with pytest.raises(InputError, match="2 tables, 1 starts"):
        pair_dynamics(np.zeros((2, 5)), (1.0, 4.0), np.zeros((1, 2, 3)), np.full(3, 10.0), steps=2, every=1, friction=0.0,
                      key=jax.random.key(0), **SETTINGS)  # fmt: skip


def test_springs_and_pairs_are_those_of_the_dumbbell_fluid():
    fluid = DumbbellFluid(12)
    potential, lengths = Dumbbells(fluid), np.full(3, fluid.length)
    span = (0.7 * fluid.sigma, potential.cutoff)
    cells = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3)[:12] * fluid.length / 3
    sites = (cells[:, None] + np.array([[0, 0, 0], [0, 0, 2.0]])).reshape(-1, 3)
    table = pair_slopes([potential.pair], jnp.linspace(*span, 4000))[None]
    made = pair_dynamics(table, span, sites[None], lengths, steps=1500, every=500, friction=0.05, bond=(fluid.bond, fluid.stiffness),
                         key=jax.random.key(2), **SETTINGS)  # fmt: skip
    assert made.nearest[0] < 3.4
    batch = batch_atoms([Atoms("Ar24", made.positions[0, -1], cell=lengths, pbc=True)])
    wanted = potential.energy_and_forces(batch, potential.neighbours(batch)).forces[:24]
    np.testing.assert_allclose(made.forces[0, -1], wanted, atol=2e-4 * np.abs(wanted).max())
