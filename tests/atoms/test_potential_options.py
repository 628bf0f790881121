"""Potentials and their tools as they come: numbers of the papers and of nature, and bounds where they are said to be."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from scipy import constants

from broadsheet.atoms import (
    LatentEquivariance,
    LennardJones,
    MessageConfig,
    Morse,
    Repulsion,
    build,
    calculator,
    checkpoints,
    compression,
    dumbbells,
    environments,
    extxyz,
    files,
    message_passing,
    motion,
    neighbours,
    parts,
    posterior,
    potential,
    relaxation_benchmark,
    structures,
    training,
    trajectories,
)
from broadsheet.atoms.constraints import FIXED
from broadsheet.atoms.potentials import escaip, transip
from broadsheet.errors import BroadsheetError, InputError

latent = importlib.import_module("broadsheet.atoms.latent_equivariance")  # the package shows a function of this name


def test_sizes_are_those_that_the_page_lists():
    assert {
        "standard": MessageConfig(128, 4, 128, 6.0), "tiny": MessageConfig(64, 3, 32, 4.5),
    } == message_passing.SIZES  # fmt: skip
    assert sorted(transip.SIZES) == ["standard", "tiny"]
    assert sorted(escaip.SIZES) == ["L", "M", "S", "small", "tiny"]
    assert [(transip.SIZES[name].width, transip.SIZES[name].blocks) for name in ("standard", "tiny")] == [(128, 4), (64, 3)]
    small, tiny = escaip.SMALL, escaip.TINY
    assert (small.width, small.blocks, small.heads, small.frequencies) == (64, 2, 4, (5, 3, 1, 3, 4))
    assert (small.basis, small.basis_width, small.atom_width, small.order_width) == (96, 64, 32, 16)
    assert (tiny.width, tiny.blocks, tiny.heads, tiny.frequencies) == (32, 2, 2, (5, 3, 1, 3, 4))
    assert (tiny.basis, tiny.basis_width, tiny.atom_width, tiny.order_width) == (48, 32, 16, 8)
    for each in (escaip.EScAIPConfig(), small, tiny):  # a head has one channel a frequency and rotation, the paper's appendix
        assert each.width // each.heads >= len(each.frequencies)


def test_constants_are_those_of_nature():
    """Against CODATA by SciPy; energies of atoms against the limits of Hartree and Fock."""
    volt = constants.e  # J in an eV
    assert pytest.approx(constants.k / volt, rel=1e-9) == motion.BOLTZMANN
    assert pytest.approx(volt / constants.atomic_mass * 1e20 / 1e30, rel=3e-9) == motion.ACCELERATION
    assert pytest.approx(1e3 / constants.N_A / volt / 10, rel=1e-7) == dumbbells.KJ_PER_NM
    assert math.exp(-compression.UNDERFLOW + 1e-12) > 0
    assert math.exp(-compression.UNDERFLOW - 1e-12) == 0
    # Hartree-Fock limits of Bunge et al. (1993); density functionals lie less than 0.3 % (and 0.1) below
    limits = {
        1: -0.5, 4: -14.573, 5: -24.529, 6: -37.689, 7: -54.401, 8: -74.809, 9: -99.409, 14: -288.854, 15: -340.719,
        16: -397.505, 17: -459.482, 35: -2572.441,
    }  # fmt: skip
    assert trajectories.ISOLATED.keys() == limits.keys()
    for number, energy in trajectories.ISOLATED.items():
        assert 0 < limits[number] - energy < 0.05 * number**0.95, number


def test_published_errors_are_those_of_the_table():
    """arXiv 2507.01131, table 1: energy (meV an atom), then forces (meV/Å), row by row."""
    table = """
        SchNet 5.55 56.22
        PaiNN 5.33 46.92
        NequIP 8.27 55.59
        SevenNet 10.21 48.05
        Allegro 10.80 61.44
        FAENet 8.70 60.51
        MACE 7.47 45.70
        PACE 6.53 51.43
        Equiformer 5.38 35.11
    """
    rows = {name: (float(energy), float(force)) for name, energy, force in map(str.split, table.strip().splitlines())}
    assert rows == relaxation_benchmark.PUBLISHED
    assert (relaxation_benchmark.CUTOFF, relaxation_benchmark.FAR) == (4.5, 2.0)


def test_limits_of_what_is_read_and_searched():
    mib = 1024**2
    assert (64 * mib, 100, 1000) == (extxyz.UNPACKED_LIMIT, extxyz.UNPACKED_RATIO, extxyz.BLANK_LIMIT)
    assert (64 * mib, 256 * mib) == (files.RECORD_LIMIT, trajectories.RECORD_LIMIT)
    assert files.SQLITE == b"SQLite format 3\x00"  # sqlite.org/fileformat.html, 1.3.1
    assert checkpoints.FORMAT == 1
    assert (neighbours.OVERLAP, neighbours.DENSEST, neighbours.MANY, neighbours.WHOLE) == (0.05, 1.5, 10**7, 10**8)
    assert (structures.MAX_NUMBER, structures.FARTHEST) == (118, 1e8)
    assert (environments.BANDWIDTH, environments.TIE, FIXED) == (0.015, 1e-8, 1e-6)
    assert (latent.COLLAPSED, latent.ALIKE) == (0.25, 0.005)
    assert (transip.CHARGES, transip.SPINS) == (8, 16)


def labelled(forces):
    made = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])
    made.calc = SinglePointCalculator(made, energy=1.0, forces=forces)
    return made


AT_THE_EDGE = {
    "choice": (lambda n: parts.select_in_parts(_two(), n), 2, 3),
    "least choice": (lambda n: compression.select(_two(), n, "random"), 1, 0),
    "largest choice": (lambda n: compression.select(_two(), n, "random"), 2, 3),
    "sizes that are tried": (lambda n: compression.best_size(_two(), np.arange(2), grid=n), 3, 2),
    "neighbours": (lambda n: environments.describe(Atoms("H3", np.eye(3)), n, 5.0, whole_shells=False), 2, 1),
    "cutoff": (lambda r: environments.describe(Atoms("H3", np.eye(3)), 2, r, whole_shells=False), 2.0, 0.0),
    "volume": (environments.bandwidth, 1e-3, 0.0),
    "kernel": (lambda h: environments.novelty(np.ones((1, 2)), np.ones((1, 2)), h), 1e-3, 0.0),
    "weight of the latent term": (lambda w: LatentEquivariance(weight=w).check(), 0.0, -1e-3),
    "temperature of the latent term": (lambda t: LatentEquivariance(temperature=t).check(), 1e-3, 0.0),
    "width": (lambda n: MessageConfig(width=n).check(), 2, 1),
    "basis": (lambda n: MessageConfig(basis=n).check(), 2, 1),
    "interactions": (lambda n: MessageConfig(interactions=n).check(), 1, 0),
    "message cutoff": (lambda r: MessageConfig(cutoff=r).check(), 1e-3, 0.0),
    "pair cutoff": (lambda r: neighbours.neighbour_list(_pair(), r), 1e-3, 0.0),
    "Lennard-Jones cutoff": (lambda r: LennardJones(cutoff=r), 1e-3, 0.0),
    "Lennard-Jones onset": (lambda r: LennardJones(cutoff=3.0, onset=r), 2.999, 3.0),
    "least Lennard-Jones onset": (lambda r: LennardJones(cutoff=3.0, onset=r), 1e-3, 0.0),
    "steps of a schedule": (lambda n: posterior.step_schedule(1.0, 0.5, n), 1, 0),
    "end of a schedule": (lambda x: posterior.step_schedule(1.0, x, 5), 1e-3, 0.0),
    "start of a schedule": (lambda x: posterior.step_schedule(x, 0.5, 5), 0.5, 0.499),
    "members": (lambda n: posterior.calibration_factor(np.arange(2.0 * n).reshape(n, 2) ** 2, np.zeros(2)), 4, 3),
    "models": (lambda n: calculator.check_stop(1.0, n), 2, 1),
    "forces": (lambda f: potential.scaled(build("pairnet", 0), [labelled([[0, 0, f], [0, 0, -f]])]), 1e-3, 0.0),
}  # fmt: skip


def _two():
    return environments.EnvironmentSet(np.asarray([[0.0, 1.0], [1.0, 1.0], [2.0, 0.0], [2.0, 1.0]]), np.asarray([0, 0, 1, 1]))


def _pair():
    return structures.batch_atoms([Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])])


@pytest.mark.parametrize("name", AT_THE_EDGE)
def test_bounds_are_where_they_are_said_to_be(name):
    make, good, bad = AT_THE_EDGE[name]
    make(good)
    with pytest.raises(BroadsheetError):
        make(bad)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"every": 0}, {"dt": 0.0}, {"skin": 0.0}, {"friction": -1e-3}, {"temperature": -1e-3}]
)
def test_motion_refuses_each_number_by_itself(wrong):
    with pytest.raises(InputError, match="must be positive"):
        motion.simulate(LennardJones(), _pair(), **{"steps": 1, "key": jax.random.key(0), **wrong})


SYSTEMS = {
    "pairnet": lambda: build("pairnet", 0),
    "LennardJones": lambda: LennardJones(),
    "Morse": lambda: Morse(),
    "Repulsion": lambda: Repulsion(1.0, 1.0, 3.0),
    "ScaledPotential": lambda: potential.ScaledPotential(build("pairnet", 0)),
    "SumPotential": lambda: potential.SumPotential(LennardJones(), Morse()),
    "schnet": lambda: build("schnet", 0, size="tiny"),
    "RotationLoss": lambda: latent.rotation_loss(training.Training(), LatentEquivariance()),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_sizes_and_cutoffs_are_no_leaves(name):
    """Else each would be traced: a cutoff could choose no neighbours."""
    leaves = jax.tree.leaves(SYSTEMS[name]())
    assert leaves
    assert all(isinstance(leaf, jax.Array | np.ndarray) or callable(leaf) for leaf in leaves)
    assert all(leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jnp.number) for leaf in leaves if isinstance(leaf, jax.Array))


def test_a_network_without_a_scale_or_references_is_in_physical_units_already():
    pair, dimer = _pair(), LennardJones()
    own, bare = (each.energy_and_forces(pair, dimer.neighbours(pair)) for each in (potential.ScaledPotential(dimer), dimer))
    np.testing.assert_array_equal(own.energy, bare.energy)
    np.testing.assert_array_equal(own.forces, bare.forces)


def test_one_atom_of_many_neighbours_among_lone_ones_is_refused(monkeypatch):
    """Rows are as wide as that of the fullest atom: for n lone atoms and a pair 2 (n + 2) places hold 2 neighbours."""
    monkeypatch.setattr(neighbours, "WHOLE", 0)
    for lone, refused in ((48, False), (49, True)):
        row = Atoms(f"H{lone + 2}", [[0, 0, 0], [0, 0, 0.8], *([10.0 * n, 50, 0] for n in range(lone))])
        batch = structures.batch_atoms([row], atoms=lone + 2)
        if refused:
            with pytest.raises(InputError, match="most have far fewer"):
                neighbours.neighbour_list(batch, 2.0, width=2)
        else:
            neighbours.neighbour_list(batch, 2.0, width=2)
