"""What stands beside the feedback: passive particles on springs, walkers, active particles, and particles behind walls."""

import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import RingBuffer
from broadsheet.matter import gaussian_ring
from broadsheet.matter.observables import diffusion_constant, heading_autocorrelation, msd
from broadsheet.papers.cybloids import (
    Crystal,
    InnerHalf,
    Single,
    Swim,
    _active_brownian,
    _held,
    _passive,
    _spacing,
    _walker,
)

RNG = np.random.default_rng


@pytest.mark.parametrize(("spring", "drag"), [(4.0, 4.0), (2.0, 24.0), (2.0, np.inf)])
def test_a_particle_on_a_spring_to_a_bead_moves_by_the_closed_form(spring, drag):
    lags = np.array([1, 10, 50, 200])
    found = msd(_passive(spring, drag, Single(particles=400, duration=20.0), RNG(0)), lags.tolist()) / 4
    share, t = 1 / (1 + 1 / drag), 0.01 * lags
    np.testing.assert_allclose(found, t / (1 + drag) + share**2 / spring * (1 - np.exp(-spring * t / share)), rtol=0.06)


def test_a_bead_without_drag_leaves_the_particle_free():
    assert msd(_passive(0.0, 0.0, Single(particles=400, duration=4.0), RNG(0)), [10])[0] == pytest.approx(0.4, rel=0.03)


def test_walkers_turn_at_a_quarter_of_the_tied_particles_rate():
    config = Swim(particles=400, duration=60.0)
    memory = heading_autocorrelation(_walker(0.8, 0.002, config, RNG(0)), 1, [4, 16])
    assert -np.log(memory[1] / memory[0]) / 12 == pytest.approx(0.002 / 0.8**2, rel=0.1)


def test_active_brownian_particles_diffuse_by_the_closed_form():
    x = _active_brownian(0.8, 0.02, 0.3, Swim(particles=1000, duration=100.0), RNG(0))
    assert diffusion_constant(x, (60, 120), 0.5) == pytest.approx(0.02 + 0.8**2 / (2 * 0.3), rel=0.06)


def test_the_inner_half_of_a_well_pushes_out_and_never_in():
    well = gaussian_ring(2.0, 1.5, 0.2)
    near, far = jnp.array([1.4, 0.0]), jnp.array([0.0, 1.6])
    np.testing.assert_allclose(InnerHalf(well).force(near), well.force(near))
    assert InnerHalf(well).force(near)[0] > 0
    assert not InnerHalf(well).force(far).any()


def test_walls_enclose_the_area_of_a_hexagonal_crystal():
    config = Crystal(particles=50)
    walls = _held(config, 1.4)
    i, j = np.meshgrid(np.arange(-9, 10), np.arange(-9, 10))
    lattice = 1.4 * np.stack([i + 0.5 * j, np.sqrt(3) / 2 * j], axis=-1).reshape(-1, 2)
    assert (np.linalg.norm(lattice, axis=1) < walls.radius).sum() == pytest.approx(50, abs=6)
    middle = lattice[np.linalg.norm(lattice, axis=1) < 3]
    assert _spacing(np.array([[0, 0], [1.0, 0], [0, 2.0], [3.0, 0], [0, 4.0]])) > 2
    assert _spacing(lattice) == pytest.approx(1.4, rel=0.01)
    history = RingBuffer.filled(jnp.zeros(2), 1)
    inside = walls.centre + middle
    assert not walls(inside, inside, history).any()
    out = walls.centre + jnp.array([[walls.radius + 1.0, 0.0]])
    np.testing.assert_allclose(walls(out, out, history), [[-50.0, 0.0]], rtol=1e-4)
