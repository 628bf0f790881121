"""Relaxation trajectories: made, split, read as published, and relaxations judged."""

import gzip
import pickle

import jax
import numpy as np
import pytest
from ase.build import molecule
from ase.units import Bohr, Hartree

from broadsheet.atoms import trajectories
from broadsheet.atoms.labels import frames
from broadsheet.atoms.pair import Morse
from broadsheet.atoms.relaxation_benchmark import frame_errors, heavy_rmsd, relaxation_report, untrained
from broadsheet.atoms.structures import batch_atoms, labelled
from broadsheet.atoms.trajectories import (
    ISOLATED,
    TrajectorySet,
    embed_smiles,
    g2_relaxations,
    label_from_atoms,
    make_trajectories,
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
