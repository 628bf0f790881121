"""Adaptive gain at the paper's size: recordings from a file, and what is said where there is none."""

import dataclasses

import jax
import numpy as np
import pytest

from broadsheet.errors import InputError, MissingDataError
from broadsheet.networks.adaptation_files import AdaptedPopulation, write_population
from broadsheet.networks.orientations import biased, grid, ring_network, uniform
from broadsheet.papers.adaptive_gain import Natural, Ring, explained, objective, paper
from quiet import Quiet


def test_recorded_population(tmp_path):
    """Exact responses of a network: its gains explain the change at stimuli that they were not fitted to, all of it."""
    ring, p = ring_network(8, 16), biased(16, 8)
    before, after = (ring.adapt(each) for each in (uniform(16), p))
    made = AdaptedPopulation(grid(16), p, ring.steady(before), ring.steady(after), np.pi / 2)
    held_out, gains = explained(made, 0.85 * float(before.mean()))
    assert held_out == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(gains, after / before, atol=1e-5)
    assert explained(made, 0.0)[0] < 0.99

    write_population(made, tmp_path / "population.npz")
    experiment = paper.experiments["population"]
    config = dataclasses.replace(experiment.configure("paper"), data=str(tmp_path / "population.npz"))
    arms = experiment.function(config, jax.random.key(0), Quiet()).scalars()
    assert arms["system"]["explained"] > arms["no-recurrence"]["explained"] > arms["uniform-gain"]["explained"]
    assert arms["system"]["strength"] == 0.6
    with pytest.raises(MissingDataError, match="--data FILE"):
        experiment.function(experiment.configure("paper"), jax.random.key(0), Quiet())


def test_objective_as_written_is_the_networks():
    ring, p = ring_network(8), biased(8, 4)
    g = np.linspace(0.5, 0.9, 8)
    with jax.enable_x64(True):
        assert float(objective(g, ring.F, ring.W, ring.D, p, 0.7, 2.4)) == pytest.approx(ring.loss(g, p), rel=1e-12)


def test_settings_refused():
    with pytest.raises(InputError, match="a multiple is wanted"):
        Ring(24, 36)
    with pytest.raises(InputError, match="china and flower"):
        paper.experiments["natural"].function(Natural(8, 8, picture="x"), jax.random.key(0), Quiet())
