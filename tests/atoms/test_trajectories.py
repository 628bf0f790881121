"""Relaxation trajectories: made, split, read as published, and relaxations judged."""

import gzip
import pickle

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.units import Bohr, Hartree, fs

from broadsheet.atoms import trajectories
from broadsheet.atoms.labels import frames, make_molecules
from broadsheet.atoms.pair import LennardJones, Morse
from broadsheet.atoms.relaxation_benchmark import (
    RelaxationReport,
    frame_errors,
    heavy_rmsd,
    judge_relaxed,
    relaxation_report,
    untrained,
)
from broadsheet.atoms.structures import batch_atoms, labelled
from broadsheet.atoms.trajectories import (
    ISOLATED,
    TrajectorySet,
    embed_smiles,
    g2_relaxations,
    label_from_atoms,
    make_trajectories,
    rattled,
    read_pubchemqcr,
)
from broadsheet.errors import DataError, InputError, UntrustedError

lmdb = pytest.importorskip("lmdb", reason="pip install '.[atoms]'")


@pytest.fixture(scope="module")
def data():
    names = ("CH4", "C2H2", "C2H4", "C2H6")
    return make_trajectories({name: molecule(name) for name in names}, (("gfn1", 0.1), ("gfn2", 0.1)), copies=2, seed=1)


def test_parts_of_a_set(data, tmp_path):
    assert data.stages == ("gfn1", "gfn2")
    assert len(data.starts()) == 8
    np.testing.assert_array_equal(data.step[data.starts()], 0)
    thin = data.thinned(3)
    assert len(thin) == 24
    np.testing.assert_allclose(thin.place().reshape(8, 3)[:, [0, 2]], [[0, 1]] * 8)
    np.testing.assert_array_equal(thin.energy[thin.ends()], data.energy[data.ends()])
    first, second = data.split((0.5, 0.5), np.random.default_rng(0))
    assert not set(first.molecule) & set(second.molecule)
    assert len(first) + len(second) == len(data)
    one, other = data.split((0.5, 0.5), np.random.default_rng(0), "frame")
    assert set(one.molecule) & set(other.molecule)
    frame = data.frame(5)
    assert frame.info["molecule"] == "CH4"
    data.save(tmp_path / "t.npz")
    again = TrajectorySet.load(tmp_path / "t.npz").frame(5)
    np.testing.assert_array_equal(again.positions, frame.positions)
    np.testing.assert_array_equal(again.get_forces(), frame.get_forces())
    for mistake in (lambda: data.thinned(1), lambda: data.split((0.9, 0.2), np.random.default_rng(0)),
                    lambda: data.take([0]).split((0.5, 0.5), np.random.default_rng(0)),
                    lambda: make_trajectories({}), lambda: make_trajectories({"CH4": molecule("CH4")}, steps=1)):  # fmt: skip
        with pytest.raises(InputError):
            mistake()
    np.savez(tmp_path / "other.npz", numbers=np.zeros(3))
    with pytest.raises(DataError, match="no set of trajectories"):
        TrajectorySet.load(tmp_path / "other.npz")


def test_a_minimum_of_two_methods(data):
    """A stage starts where the one before ended; its last forces are below its bound."""
    for trajectory in range(8):
        rows = np.flatnonzero(data.trajectory == trajectory)
        change = np.flatnonzero(np.diff(data.stage[rows]))[0]
        np.testing.assert_array_equal(data.frame(int(rows[change])).positions, data.frame(int(rows[change + 1])).positions)
        assert np.linalg.norm(data.frame(int(rows[-1])).get_forces(), axis=1).max() < 0.1


def test_made_once(home):
    made = g2_relaxations(("CH4",), copies=1)
    assert made.names == ("CH4",)
    assert len(g2_relaxations(("CH4",), copies=1)) == len(made)
    assert len(list((home / "cache" / "relaxations").glob("*.json"))) == 1


def test_smiles():
    pytest.importorskip("rdkit")
    made = embed_smiles(["CCO", "[NH4+]"])
    assert made["CCO"].get_chemical_formula() == "C2H6O"
    assert made["[NH4+]"].info["charge"] == 1
    with pytest.raises(InputError, match="no SMILES"):
        embed_smiles(["C(C"])


def record(energy=-40.5, charge=True, atoms=("C", "H", "H", "H", "H")):
    x = molecule("CH4").positions
    force = np.linspace(-0.02, 0.02, 15).reshape(5, 3)
    coordinates = [{"atom": s, "x": a, "y": b, "z": c} | ({"charge": 6.0} if charge else {})
                   for s, (a, b, c) in zip(atoms, x.tolist(), strict=True)]  # fmt: skip
    gradient = [{"atom": s, "dx": a, "dy": b, "dz": c} for s, (a, b, c) in zip(atoms, force.tolist(), strict=True)]
    return {"coordinates": coordinates, "energy": energy, "gradient": gradient}


def write(folder, records):
    with lmdb.open(str(folder), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key.encode(), value if isinstance(value, bytes) else gzip.compress(pickle.dumps(value)))
    return folder


def test_published_records(tmp_path):
    place = write(tmp_path / "a", {
        "000000001": {"pm3": [record(-1.0)], "DFT_1st": [record(), record(-40.6)], "DFT_2nd": [record(-40.7)]},
        "000000002": {"pm3": [], "DFT_1st": [record(charge=False)], "DFT_2nd": None}, "000000003": {"DFT_1st": None},
    })  # fmt: skip
    with pytest.raises(UntrustedError, match="--trust"):
        read_pubchemqcr(place)
    found = read_pubchemqcr(place, trust=True)
    assert (len(found), found.names) == (2, ("000000001",))
    np.testing.assert_allclose(found.energy[0], (-40.5 - ISOLATED[6] - 4 * ISOLATED[1]) * Hartree)
    np.testing.assert_allclose(found.frame(0).get_forces()[0, 0], 0.02 * Hartree / Bohr)
    assert read_pubchemqcr(place, "1st_smash", trust=True).names == ("000000002",)
    assert len(read_pubchemqcr(place, "mixing", trust=True)) == 4
    assert len(read_pubchemqcr(place, "mixing", limit=1, trust=True)) == 3
    with pytest.raises(DataError, match="no molecule"):
        read_pubchemqcr(place, "hf", trust=True)


def test_relaxations_of_published_molecules_are_judged_from_the_same_zero(home, tmp_path):
    """PySCF's own energy, written as a record and read again, is the energy that the judge gives the same geometry."""
    pytest.importorskip("pyscf")
    from pyscf import dft, gto

    made = molecule("H2")
    parts = list(zip(made.symbols, made.positions.tolist(), strict=True))
    field = dft.RKS(gto.M(atom=parts, basis="6-31g*", cart=True, verbose=0), xc="b3lyp")
    atoms = [{"atom": s, "charge": 1.0} | dict(zip("xyz", x, strict=True)) for s, x in parts]
    step = {"coordinates": atoms, "energy": float(field.kernel()), "gradient": [{"dx": 0.0, "dy": 0.0, "dz": 0.0}] * 2}
    read = read_pubchemqcr(write(tmp_path / "h2", {"000000783": {"DFT_1st": [step]}}), trust=True).frame(0)
    (judged,) = label_from_atoms([made])
    assert judged.get_potential_energy() == pytest.approx(read.get_potential_energy(), abs=1e-6)
    assert -5.5 < judged.get_potential_energy() < -4  # eV: the bond's
    made.numbers[:] = 92
    with pytest.raises(InputError):
        label_from_atoms([made])


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(("value", "error", "words"), [
    ({"DFT_1st": [Evil()]}, UntrustedError, "plain values"), (b"nonsense", DataError, "can't be read"), ([1], DataError, "dictionary"),
    ({"DFT_1st": [record(atoms=("U", "H", "H", "H", "H"))]}, DataError, "isolated atom 92"),
    ({"DFT_1st": [record(energy=float("nan"))]}, DataError, "finite"),
])  # fmt: skip
def test_records_that_cannot_be_used(tmp_path, capsys, value, error, words):
    with pytest.raises(error, match=words):
        read_pubchemqcr(write(tmp_path / "b", {"000000007": value}), trust=True)
    assert capsys.readouterr().out == ""
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no LMDB"):
        read_pubchemqcr(tmp_path / "empty", trust=True)


@pytest.mark.filterwarnings("ignore:Optimal rotation")  # of two points there are many
def test_relaxations_are_judged():
    """Two atoms in a Morse well: a potential of the same well, and one whose well is elsewhere."""
    from ase import Atoms

    truth = Morse(epsilon=1.0, r0=1.5, cutoff=6.0)

    def label(structures):
        batch = batch_atoms(structures)
        found = truth.energy_and_forces(batch, truth.neighbours(batch))
        rows = np.split(np.asarray(found.forces, float), np.cumsum([len(each) for each in structures]))
        return [labelled(each, float(e), f) for each, e, f in zip(structures, found.energy, rows, strict=False)]

    def dimer(r):
        return Atoms("C2", [[0, 0, 0], [r, 0, 0]])

    with jax.enable_x64(True):
        starts, ends = label([dimer(1.7), dimer(1.35)]), label([dimer(1.5)] * 2)
        good = relaxation_report(truth, starts, ends, reference=label, fmax=0.005)
        np.testing.assert_allclose(good.excess, 0, atol=0.5)
        np.testing.assert_allclose(good.gain, 1, atol=1e-2)
        assert good.summary()["relaxed"] == 1
        assert good.rmsd.max() < 5e-3  # the taper moves the minimum a little
        bad = relaxation_report(Morse(epsilon=1.0, r0=1.8, cutoff=6.0), starts, ends, reference=label, fmax=0.005)
        assert bad.summary()["relaxed"] == 0
        np.testing.assert_allclose(bad.rmsd, 0.15, atol=8e-3)  # each atom is half of 0.3 Å away
        errors = frame_errors(truth, starts)
        np.testing.assert_allclose([*errors.energy, *errors.force], 0, atol=1e-6)
    with pytest.raises(InputError, match="pairs"):
        relaxation_report(truth, starts, ends[:1])
    with pytest.raises(InputError, match="no potential called"):
        untrained("nequip", 0, 8)


def test_rmsd_of_heavy_atoms():
    made = molecule("CH3CH2OH")
    turned = made.copy()
    turned.rotate(70, (1, 2, 3))
    turned.positions += 1.0
    turned.positions[-1] += 0.5  # a hydrogen
    assert heavy_rmsd(turned, made) < 1e-6


def test_a_record_may_be_as_large_as_the_limit_and_no_byte_larger(tmp_path, monkeypatch):
    value = {"DFT_1st": [record()]}
    place, size = write(tmp_path / "a", {"000000001": value}), len(pickle.dumps(value))
    monkeypatch.setattr(trajectories, "RECORD_LIMIT", size)
    assert len(read_pubchemqcr(place, trust=True)) == 1
    monkeypatch.setattr(trajectories, "RECORD_LIMIT", size - 1)
    with pytest.raises(DataError, match=f"unpacks to more than {size - 1} bytes"):
        read_pubchemqcr(place, trust=True)


def test_a_heat_bath_pushes_the_centre_of_mass_of_labelled_frames():
    """Without forces from outside, and with noise that adds up to none, it would go on nearly along a line."""
    found = frames(molecule("CO"), "emt", count=3, temperature=300.0, every=5, settle=0)
    first, second, third = (each.get_center_of_mass() for each in found)
    before, after = second - first, third - second
    sine = np.linalg.norm(np.cross(before, after)) / np.linalg.norm(before) / np.linalg.norm(after)
    assert sine > 0.1  # 0.006 with such noise


def hand_made():
    """Six frames of one atom: a trajectory of three, one of one, one of two."""
    at = np.arange(6)
    return TrajectorySet(
        np.ones(6, int), at[:, None] * np.ones((1, 3)), -at[:, None] * np.ones((1, 3)), np.arange(7), 10.0 * at,
        np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 2, 2]), np.zeros(6, int), np.array([0, 1, 2, 0, 0, 1]), ("a", "b"), ("s",),
    )  # fmt: skip


def test_places_in_trajectories_by_hand():
    data = hand_made()
    assert (data.starts().tolist(), data.ends().tolist()) == ([0, 3, 4], [2, 3, 5])
    assert data.place().tolist() == [0, 0.5, 1, 0, 0, 1]
    assert data.thinned(2).energy.tolist() == [0, 20, 30, 40, 50]
    assert data.thinned(3).energy.tolist() == data.energy.tolist()
    some = data.take([4, 1])
    assert (some.positions[:, 0].tolist(), some.first.tolist(), some.energy.tolist()) == ([4, 1], [0, 1, 2], [40, 10])
    assert len(data.take([])) == 0
    frame = data.frame(4)
    assert frame.info == {"molecule": "b", "stage": "s", "step": 0}
    assert (frame.get_potential_energy(), frame.get_forces().tolist()) == (40, [[-4, -4, -4]])
    for shares, lengths in (((1.0,), [6]), ((0.5, 0.5), [3, 3]), ((0.5, 0.25), [3, 1])):
        parts = data.split(shares, np.random.default_rng(0), "frame")
        assert [len(part) for part in parts] == pytest.approx(lengths, abs=1)
        assert len({*np.concatenate([part.energy for part in parts])}) == sum(map(len, parts))
    assert sorted(len(part) for part in data.split((0.7, 0.3), np.random.default_rng(0), "trajectory"))[0] < 4
    for shares in ((), (0.0, 1.0), (0.6, 0.5), (-0.1, 0.5)):
        with pytest.raises(InputError, match="all above 0 and at most 1"):
            data.split(shares, np.random.default_rng(0))


def test_noise_of_rattled_frames_by_hand():
    asked = []

    def reference(structures):
        asked.append(len(structures))
        return [labelled(each, float(k), np.full((1, 3), k)) for k, each in enumerate(structures)]

    data = hand_made().take(np.zeros(80, int))
    made = rattled(data, 4, 0.2, reference=reference)
    assert asked == [400]
    moved = made.positions.reshape(80, 5, 3)
    assert not moved[:, 0].any()
    assert np.sqrt((moved[:, 1:] ** 2).mean()) == pytest.approx(0.2 / np.sqrt(3), rel=0.1)  # evenly up to 0.2 Å
    assert (moved[:, 1:] != 0).all()
    assert made.energy.tolist() == list(range(400))
    assert made.forces[7].tolist() == [7, 7, 7]
    assert len(made.trajectory) == 400


def test_records_of_several_databases_in_a_folder(tmp_path):
    (tmp_path / "set").mkdir()
    for part, keys in (("b", ("000000003", "nextid")), ("a", ("000000001", "000000002"))):
        made = write(tmp_path / "set" / part, {key: {"DFT_1st": [record()] * 2} for key in keys})
        assert (made / "lock.mdb").exists()  # LMDB leaves it beside each
    found = read_pubchemqcr(tmp_path / "set", trust=True)
    assert found.names == ("000000001", "000000002", "000000003")
    assert found.trajectory.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.step.tolist() == [0, 1] * 3
    assert read_pubchemqcr(tmp_path / "set", limit=2, trust=True).names == ("000000001", "000000002")
    assert len(read_pubchemqcr(tmp_path / "set" / "b", trust=True)) == 2


def report(**parts):
    fields = {name: np.zeros(4) for name in RelaxationReport._fields}
    return RelaxationReport(**(fields | {"relaxed": []} | {name: np.array(values) for name, values in parts.items()}))


def test_a_summary_of_relaxations_by_hand():
    found = report(
        success=[True, True, True, False], excess=[29.0, 29.9, 30.0, 0.0], gain=[0.9, 0.8, 0.9, 0.9], rmsd=[1.0, 2.0, 4.0, 9.0],
        steps=[1, 2, 5, 9],
    ).summary()  # fmt: skip
    assert found == pytest.approx(
        {"success": 0.75, "close": 0.5, "relaxed": 0.25, "excess": 29.45, "gain": 0.9, "rmsd": 3.0, "steps": 3.5}
    )
    failed = report(success=[True] * 4, excess=[np.nan] * 3 + [1.0], gain=[np.nan] * 3 + [1.0]).summary()
    assert (failed["excess"], failed["gain"], failed["close"]) == (1e6, -1e6, 0.25)


@pytest.mark.filterwarnings("ignore:Optimal rotation")  # of points in a line there are many
def test_what_is_judged_of_a_relaxation_by_hand():
    """A chain of three carbons: its end has moved; energies and forces come from the reference or are none."""
    x = np.array([[0.0, 0, 0], [1.5, 0, 0], [3.0, 0, 0]])
    start, end = (labelled(Atoms("C3", x), energy, np.zeros((3, 3))) for energy in (-1.0, -3.0))
    stretched = Atoms("C3", x * [1.1, 1, 1])

    def reference(structures):
        if structures[0].positions[2, 0] > 5:
            raise InputError("no electrons converge")
        return [labelled(structures[0], -2.4, np.array([[0.3, 0.4, 0], [0, 0, 0], [0, 0, 0.1]]))]

    far = Atoms("C3", x * [3.0, 1, 1])
    found = judge_relaxed([stretched, far], [True, True], [4, 5], [start] * 2, [end] * 2, reference)
    np.testing.assert_allclose(found.moved, [0.15, 3.0], atol=1e-6)
    assert found.success.tolist() == [True, False]  # two Å are the limit
    np.testing.assert_allclose(found.excess, [200, np.nan])
    np.testing.assert_allclose(found.gain, [0.7, np.nan])
    np.testing.assert_allclose(found.residual, [0.5, np.nan])
    np.testing.assert_allclose(found.rmsd, [0.15 * np.sqrt(2 / 3), 3 * np.sqrt(2 / 3)], atol=1e-6)
    assert found.steps.tolist() == [4, 5]
    assert heavy_rmsd(Atoms("C"), Atoms("C", [[5, 0, 0]])) == 0
    water, other = molecule("H2O"), molecule("H2O")
    other.positions[1] += 0.3
    assert heavy_rmsd(water, other) > 0.05  # of one heavy atom, all atoms count


def test_errors_of_frames_are_means_over_each_frame():
    frames = [labelled(molecule(name), 1.0 * n, np.full((n, 3), 0.1)) for name, n in (("CO", 2), ("H2O", 3))]
    nothing = LennardJones(epsilon=0.0)
    found = frame_errors(nothing, frames)
    np.testing.assert_allclose(found.energy, [1000, 1000])
    np.testing.assert_allclose(found.force, 100 * np.sqrt(3), rtol=1e-5)


def test_networks_of_the_benchmark_are_small_ones_of_its_cutoff():
    made = untrained("schnet", 0)
    assert (made.config.width, made.config.interactions, made.config.cutoff) == (64, 3, 4.5)
    assert untrained("schnet", 0, 16).config.width == 16
    assert untrained("transip", 0).cutoff == np.inf


def test_frames_are_steps_apart_and_seeds_are_kept(monkeypatch, tmp_path):
    """Of atoms that feel nothing, two frames lie as far apart as their velocity takes them in half a femtosecond."""
    atoms = Atoms("Au40", 60.0 * np.arange(40)[:, None] * np.eye(3)[0])
    told = []
    first, second = frames(atoms, "lj", count=2, temperature=300.0, every=1, settle=0, report=told.append)
    assert told == [0, 1]
    moved, velocities = second.positions - first.positions, first.get_velocities()
    assert (moved * velocities).sum() / (velocities**2).sum() == pytest.approx(0.5 * fs, rel=0.1)
    (later,) = frames(atoms, "lj", count=1, temperature=300.0, every=1, settle=1)
    np.testing.assert_allclose(later.positions, second.positions)
    (both,) = frames(atoms, "lj", count=1, temperature=300.0, every=2, settle=0)
    np.testing.assert_allclose(both.positions, second.positions)
    np.testing.assert_allclose(
        frames(atoms, "lj", count=1, temperature=300.0)[0].positions,
        frames(atoms, "lj", count=1, temperature=300.0, every=20, settle=100, dt=0.5, seed=0)[0].positions,
    )
    asked = []

    def fake(structure, count, temperature, seed):
        asked.append((structure.get_chemical_formula(), count, temperature, seed))
        made = [labelled(structure, 0.0, np.zeros((len(structure), 3))) for _ in range(count)]
        for k, each in enumerate(made):
            each.positions += 1000 * seed + k
        return made

    monkeypatch.setattr("broadsheet.atoms.labels.frames", fake)
    monkeypatch.setattr(
        "broadsheet.atoms.labels.label", lambda made: [labelled(each, each.positions[0, 0], each.positions) for each in made]
    )
    make_molecules(str(tmp_path / "m.npz"), (6, *[3] * 7))
    assert asked[:4] == [("C2H6O", 2, 300, 0), ("C2H6O", 2, 500, 1), ("C2H6O", 2, 700, 2), ("C2H4O2", 1, 300, 100)]
    assert asked[-1] == ("C4H4O", 1, 700, 702)
    with np.load(tmp_path / "m.npz") as kept:
        assert kept["CH3CH2OH_numbers"].tolist() == molecule("CH3CH2OH").numbers.tolist()
        x = kept["CH3CH2OH_positions"]
        assert sorted((x[:, 0, 0] - x[:, 0, 0].min()).round(3).tolist()) == pytest.approx([0, 1, 1000, 1001, 2000, 2001])
        assert x[:, 0, 0].tolist() != sorted(x[:, 0, 0])
        np.testing.assert_array_equal(kept["CH3CH2OH_energy"], x[:, 0, 0])
        np.testing.assert_array_equal(kept["CH3CH2OH_forces"], x)
    make_molecules(str(tmp_path / "m.npz"))
    with np.load(tmp_path / "m.npz") as kept:
        assert [len(kept[f"{name}_energy"]) for name in ("CH3CH2OH", "CH3COOH", "C4H4O")] == [240, 60, 60]
