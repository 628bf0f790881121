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
    calibration,
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
from broadsheet.atoms.registry import kind
from broadsheet.errors import BroadsheetError, InputError

latent = importlib.import_module("broadsheet.atoms.latent_equivariance")  # the package shows a function of this name


def test_sizes_are_those_that_the_page_lists():
    assert {
        "standard": MessageConfig(128, 4, 128, 6.0), "tiny": MessageConfig(64, 3, 32, 4.5),
    } == message_passing.SIZES  # fmt: skip
    assert sorted(transip.SIZES) == ["standard", "tiny"]
    assert sorted(escaip.SIZES) == ["L", "M", "S", "small", "tiny"]
    assert [(transip.SIZES[name].width, transip.SIZES[name].blocks) for name in ("standard", "tiny")] == [(128, 4), (64, 3)]
    whole = transip.TransformerConfig()
    assert (whole.width, whole.blocks, whole.heads, whole.multiplier) == (384, 8, 8, 4)
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


def test_pair_potentials_as_they_come_by_hand():
    r = np.array([0.9, 1.2, 2.2, 2.9])
    dimers = [Atoms("H2", [[0, 0, 0], [0, 0, distance]]) for distance in (*r, 3.1, 5.2)]
    batch = structures.batch_atoms(dimers)

    def energies(given):
        found = given.energy_and_forces(batch, given.neighbours(batch))
        np.testing.assert_array_equal(found.forces[:12].sum(axis=1).reshape(6, 2).sum(axis=1), 0)
        return np.asarray(found.energy)[:6]

    def shape(r):
        return 4 * (r**-12.0 - r**-6.0)

    parts = [energies(each) for each in (Morse(), LennardJones(), Repulsion(0.5, 2.0, 3.0))]
    np.testing.assert_allclose(parts[1], [*(shape(r) - shape(3.0)), 0, 0], rtol=1e-4, atol=1e-6)
    tapered = [(9 - x**2) ** 2 * (9 + 2 * x**2 - 3 * 1.98**2) / (9 - 1.98**2) ** 3 if x > 1.98 else 1 for x in r]
    np.testing.assert_allclose(energies(LennardJones(smooth=True)), [*(shape(r) * tapered), 0, 0], rtol=1e-4, atol=1e-6)
    bond = np.exp(-6 * (np.append(r, 3.1) - 1))
    wanted = (bond**2 - 2 * bond) * (1 + np.cos(np.pi * np.append(r, 3.1) / 5)) / 2
    np.testing.assert_allclose(parts[0], [*wanted, 0], rtol=1e-4, atol=1e-7)
    wanted = 0.5 * ((2 / r) ** 12 - (2 / 3) ** 12)
    np.testing.assert_allclose(parts[2], [*wanted, 0, 0], rtol=1e-4, atol=1e-6)
    both = potential.SumPotential(Morse(), LennardJones(), Repulsion(0.5, 2.0, 3.0))
    assert both.cutoff == 5.0
    np.testing.assert_allclose(both.energy(batch, both.neighbours(batch))[:6], np.sum(parts, axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(energies(both), np.sum(parts, axis=0), rtol=1e-4, atol=1e-6)


def test_potentials_that_answer_together_are_of_one_kind():
    assert len(potential.members(LennardJones())) == 1
    assert len(potential.members([LennardJones(2.0), LennardJones()])) == 2
    scaled = potential.ScaledPotential(LennardJones())
    potential.members([scaled, LennardJones()])
    for wrong in ([LennardJones(), LennardJones(cutoff=3.5)], [LennardJones(), Morse(cutoff=3.0)],
                  [build("pairnet", 0, width=2), build("pairnet", 0, width=3)]):  # fmt: skip
        with pytest.raises(InputError, match="one kind"):
            potential.members(wrong)
    with pytest.raises(InputError, match="no potential"):
        potential.members([])
    single = calculator.PotentialCalculator(LennardJones())
    with pytest.raises(InputError, match="1 calculators have no spread"):
        calculator.EnsembleCalculator([single])
    spread = np.array([[0.0, 0, 1], [3.0, 4, 0], [1, 1, 1]])
    calculator.check_domain(spread, 5.0)
    calculator.check_domain(spread, None)
    with pytest.raises(calculator.OutsideDomainError, match=r"atom 1 differ by 5 eV/Å, above the limit of 4\.99"):
        calculator.check_domain(spread, 4.99)


def test_a_calculator_looks_for_neighbours_when_atoms_have_moved_half_the_skin(monkeypatch):
    found, looked = potential.fresh_neighbours, []
    monkeypatch.setattr(calculator, "fresh_neighbours", lambda *given: looked.append(given[2]) or found(*given))
    made = Atoms("H3", [[0, 0, 0], [0, 0, 1.2], [0, 0, 2.9]], cell=[9, 9, 9])
    made.calc = calculator.PotentialCalculator(LennardJones())
    for move, count in ((0.0, 1), (0.24, 1), (0.02, 2), (-0.24, 2), (-0.24, 3)):
        made.positions[2, 2] += move
        made.get_potential_energy()
        assert len(looked) == count
    assert set(looked) == {0.5}
    made.pbc = True
    made.get_potential_energy()
    made.cell[0, 0] = 9.5
    made.get_potential_energy()
    assert len(looked) == 5
    assert made.get_stress().shape == (6,)
    made.pbc = [True, True, False]
    with pytest.raises(InputError, match="periodic in all three directions"):
        made.get_stress()
    alone = Atoms("H2", [[0, 0, 0], [0, 0, 1.2]])
    alone.calc = calculator.PotentialCalculator([LennardJones(), LennardJones(2.0)])
    energy = alone.get_potential_energy()
    assert alone.calc.results["energy_std"] == pytest.approx(abs(energy) / 1.5 / np.sqrt(2), rel=1e-5)


def test_nearest_neighbours_and_whole_structures_by_hand():
    row = Atoms("H5", [[x, 0, 0] for x in (0.0, 1.0, 2.2, 3.6, 5.1)])
    batch = structures.batch_atoms([Atoms("H"), row], atoms=8)
    found = neighbours.neighbour_list(batch, 3.0, nearest=2, self_edges=True)
    kept = [sorted(found.index[k][found.mask[k]].tolist()) for k in range(7)]
    assert kept == [[0], [1, 2, 3], [1, 2, 3], [2, 3, 4], [3, 4, 5], [3, 4, 5], []]
    assert found.index[1, 0] == 1  # the atom itself comes first
    assert [neighbours.neighbour_list(batch, 3.0, nearest=n).mask.sum() for n in (1, 9)] == [5, 14]
    assert found.width == 4
    exact = neighbours.neighbour_list(batch, 3.0, width=4)
    assert exact.mask[1:6].sum(axis=1).tolist() == [2, 3, 4, 3, 2]
    whole = neighbours.whole_structures(batch)
    assert whole.index[1:6].tolist() == [[1, 2, 3, 4, 5]] * 5
    assert whole.index[0].tolist() == [0] * 5
    assert whole.mask.sum(axis=1).tolist() == [1, 5, 5, 5, 5, 5, 0, 0]
    assert neighbours.whole_structures(batch, width=5).width == 5
    with pytest.raises(InputError, match="5 atoms and 4 fit"):
        neighbours.whole_structures(batch, width=4)
    for distance, apart in ((0.0499, False), (0.0501, True)):
        near = Atoms("H3", [[0, 0, 0], [5, 0, 0], [5, 0, distance]])
        if apart:
            neighbours.check_overlap(near)
        else:
            with pytest.raises(InputError, match=r"Atoms [12] and [12] of it overlap"):
                neighbours.check_overlap(near, "it")


TRANSFORMER = {"width": 16, "blocks": 1, "heads": 1, "octaves": 0}
HEADS = {"width": 16, "blocks": 1, "heads": 1, "frequencies": (16,), "basis": 2}
SETTINGS = {
    "heads": ("transip", {"heads": 16}, {"heads": 0}), "more heads": ("transip", {"heads": 2}, {"heads": 3}),
    "width": ("transip", {"width": 16}, {"width": 15}), "blocks": ("transip", {"blocks": 1}, {"blocks": 0}),
    "octaves": ("transip", {"octaves": 0}, {"octaves": -1}), "multiplier": ("transip", {"multiplier": 0}, {"multiplier": -1}),
    "basis": ("transip", {"basis": 2}, {"basis": 1}), "wavelength": ("transip", {"wavelength": 1e-3}, {"wavelength": 0.0}),
    "reach": ("transip", {"reach": 1e-3}, {"reach": 0.0}),
    "cutoff of attention": ("escaip", {"cutoff": 1e-3}, {"cutoff": 0.0}), "nearest": ("escaip", {"nearest": 1}, {"nearest": 0}),
    "slots": ("escaip", {"slots": 2}, {"slots": 1}), "blocks of attention": ("escaip", {"blocks": 1}, {"blocks": 0}),
    "basis of attention": ("escaip", {"basis": 2}, {"basis": 1}),
    "frequencies": ("escaip", {"frequencies": (8, 8)}, {"frequencies": (8, 7)}),
    "heads of attention": ("escaip", {"heads": 2, "frequencies": (8,)}, {"heads": 3, "frequencies": (5,)}),
    "pair width": ("pairnet", {"width": 1}, {"width": 0}), "pair basis": ("pairnet", {"basis": 2}, {"basis": 1}),
    "pair cutoff": ("pairnet", {"cutoff": 1e-3}, {"cutoff": 0.0}), "pair unit": ("pairnet", {"unit": 1e-3}, {"unit": 0.0}),
    "steps": (training.Training, {"steps": 1}, {"steps": 0}), "batch": (training.Training, {"batch": 1}, {"batch": 0}),
    "evaluate": (training.Training, {"evaluate": 1}, {"evaluate": 0}),
    "rate": (training.Training, {"learning_rate": 1e-9}, {"learning_rate": 0.0}),
    "average": (training.Training, {"average": 0.0}, {"average": -1e-3}),
    "most average": (training.Training, {"average": 0.999}, {"average": 1.0}),
    "energies": (training.Training, {"energy_weight": 0.0}, {"energy_weight": -1e-3}),
    "forces": (training.Training, {"force_weight": 0.0}, {"force_weight": -1e-3}),
    "stresses": (training.Training, {"stress_weight": 0.0}, {"stress_weight": -1e-3}),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_refused_where_they_are_said_to_be(name):
    of, good, bad = SETTINGS[name]
    more = {"transip": TRANSFORMER, "escaip": HEADS}.get(of, {})
    make = of if isinstance(of, type) else kind(of).settings
    make(**(more | good)).check()
    with pytest.raises(InputError):
        make(**(more | bad)).check()


def test_widths_of_attention_keep_the_size_of_heads():
    made = escaip.as_wide(escaip.SMALL, 32)
    assert (made.width, made.heads, made.frequencies) == (32, 2, escaip.SMALL.frequencies)
    assert (escaip.as_wide(escaip.SMALL, 16).heads, escaip.as_wide(escaip.SMALL, 128).heads) == (1, 8)
    for width in (8, 24):
        with pytest.raises(InputError, match="a multiple"):
            escaip.as_wide(escaip.SMALL, width)
    assert [transip.as_wide(transip.SIZES["tiny"], n).heads for n in (16, 20, 18, 17)] == [8, 4, 2, 1]
    settings = training.Training()
    assert float(transip.turned(settings, None).weight) == LatentEquivariance().weight
    assert float(transip.turned(settings, 0.25).weight) == 0.25


def test_charges_and_multiplicities_that_are_embedded():
    net = build("transip", 0, **TRANSFORMER)

    def batch(*given):
        return structures.batch_atoms([Atoms("H", info={key: value}) for key, value in given])

    known = batch(("charge", 8), ("charge", -8), ("spin", 1), ("spin", 16))
    assert np.isfinite(net.energy(known, net.neighbours(known))[:4]).all()
    for wrong in (("charge", 9), ("charge", -9), ("spin", 0), ("spin", 17), ("spin", 1.5)):
        with pytest.raises(InputError, match="structure 1 has the charge"):
            net.neighbours(batch(("charge", 0), wrong))


def test_atoms_that_all_see_each_other_do_not_overlap():
    net = build("transip", 0, **TRANSFORMER)
    for distance, fits in ((0.0501, True), (0.0499, False)):
        batch = structures.batch_atoms(
            [Atoms("H2", [[0, 0, 0], [0, 0, 1.0]]), Atoms("H3", [[0, 0, 0], [5, 0, 0], [5, 0, distance]])]
        )
        if fits:
            net.neighbours(batch)
        else:
            with pytest.raises(InputError, match="Atoms 1 and 2 of structure 1 overlap"):
                net.neighbours(batch)


@pytest.mark.parametrize(("rank", "seen"), [("hard", 3), ("sine", 6), ("sigmoid", 18)])
def test_edges_reach_as_far_as_soft_ranks_do(rank, seen):
    net = build("escaip", 0, **HEADS, rank=rank, rank_width=1.0, cutoff=3.5)
    row = structures.batch_atoms([Atoms("H30", [[float(x), 0, 0] for x in range(30)])])
    found = net.neighbours(row)
    assert found.mask[0].sum() == 1 + seen  # with the atom itself: 3.5 Å, and nothing, π or 15 widths more
    assert found.reverse is not None


def test_calibration_needs_errors_and_deviations():
    one = np.ones(3)
    assert calibration.spread_factor(0 * one, one, one) > 0
    for given in ((one, one, one), (one * np.nan, one, one), (np.ones((3, 1)), np.ones((3, 1)), np.zeros((3, 1))), (one[:0], one[:0], one[:0]),
                  (one, one[:2], 0 * one), (one, one, np.zeros(2))):  # fmt: skip
        with pytest.raises(InputError, match="spread_factor"):
            calibration.spread_factor(*given)
