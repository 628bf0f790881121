"""The verbs of atoms, on files."""

import gzip
import json
import pickle

import numpy as np
import pytest
from ase.build import bulk, molecule
from typer.testing import CliRunner

from broadsheet.atoms.calculator import PotentialCalculator
from broadsheet.atoms.checkpoints import load_potential
from broadsheet.atoms.files import read_structures, write_structures
from broadsheet.atoms.labels import molecules
from broadsheet.atoms.trajectories import read_pubchemqcr
from broadsheet.cli.app import app
from broadsheet.errors import BroadsheetError


def run(*arguments):
    found = CliRunner().invoke(app, ["atoms", *map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, BroadsheetError | SystemExit):
        raise found.exception
    return found


def by_ase(path, potential, direct=False):
    """Mean absolute errors of energies an atom (eV) and of forces (eV/Å), asked structure by structure through ASE."""
    energies, forces = [], []
    for each in read_structures(path):
        bare = each.copy()
        bare.calc = PotentialCalculator(potential, direct=direct)
        energies.append(abs(bare.get_potential_energy() - each.get_potential_energy()) / len(each))
        forces.append(np.abs(bare.get_forces() - each.get_forces()).mean())
    return np.mean(energies), np.mean(forces)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("atoms")
    write_structures(molecules(("CH3CH2OH",), 12)[0], place / "frames.extxyz")
    cells = [bulk("Cu", cubic=True, a=3.6 * (1 + 0.001 * k)) for k in range(20)]
    cells[7].positions[0] += 0.6
    write_structures(cells, place / "cells.extxyz")
    write_structures([molecule("CH3CH2OH")], place / "start.extxyz")
    write_structures(molecules(("CH3CH2OH",), 3)[0], place / "few.extxyz")
    made = run("train", place / "frames.extxyz", "--out", place / "p.safetensors", "--network", "schnet", "--width", 16, "--steps", 2, "--batch", 4, "--force-weight", 0,
               "--evaluate-every", 2, "--json")  # fmt: skip
    assert made.exit_code == 0
    everything = json.loads(run("evaluate", place / "frames.extxyz", "-p", place / "p.safetensors", "--json").stdout)
    assert (
        0.2 < json.loads(made.stdout)["force_mae"] / everything[str(place / "p.safetensors")]["force_mae"] < 5
    )  # of a part of them
    assert not (place / "p.checkpoint").exists()
    return place


def test_a_transformer_learns_rotations(folder):
    out = folder / "t.safetensors"
    made = run("train", folder / "frames.extxyz", "--out", out, "--network", "transip", "--width", 16, "--direct", "--steps", 2,
               "--batch", 4, "--evaluate-every", 2, "--json")  # fmt: skip
    assert made.exit_code == 0
    found = json.loads(run("evaluate", folder / "frames.extxyz", "-p", out, "--direct", "--json").stdout)
    _, forces = by_ase(folder / "frames.extxyz", load_potential(out), direct=True)
    assert found[str(out)]["force_mae"] == pytest.approx(1e3 * forces, rel=1e-3)


def test_evaluate_relax_and_md(folder):
    p = folder / "p.safetensors"
    found = run("evaluate", folder / "frames.extxyz", "-p", p, "--json")
    energies, forces = by_ase(folder / "frames.extxyz", load_potential(p))
    row = json.loads(found.stdout)[str(p)]
    assert row["energy_mae"] == pytest.approx(1e3 * energies, rel=1e-3)
    assert row["force_mae"] == pytest.approx(1e3 * forces, rel=1e-3)
    relaxed = ("relax", folder / "start.extxyz", "-p", p, "--out", folder / "r.extxyz", "--steps", 3, "--json")
    first = json.loads(run(*relaxed).stdout)
    assert first["structures"] == 1
    assert json.loads(run(*relaxed).stdout) == first  # nothing is relaxed again
    assert "other settings" in str(run(*relaxed, "--fmax", 0.5).exception)
    motion = ("md", folder / "start.extxyz", "-p", p, "--out", folder / "m.extxyz", "--every", 2, "--json", "--dt", 0.1)
    assert json.loads(run(*motion, "--steps", 4).stdout)["frames"] == 2
    with (folder / "m.extxyz").open("a") as stream:  # what a killed run leaves
        stream.write("9\nProperties=species:S:1:pos:R:3\nC 0 0")
    assert json.loads(run(*motion, "--steps", 8).stdout)["frames"] == 4  # goes on
    frames = read_structures(folder / "m.extxyz")
    assert frames[-1].info["step"] == 8
    assert np.isfinite(frames[-1].get_forces()).all()


def test_a_potential_under_the_benchmark(folder):
    """On records in the published layout: five molecules of three steps, whose errors are those that `evaluate` finds."""
    lmdb = pytest.importorskip("lmdb")
    rng = np.random.default_rng(0)
    with lmdb.open(str(folder / "qcr"), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for key in range(5):
            steps = []
            for _ in range(3):
                places = molecule("CH4").positions + 0.02 * rng.standard_normal((5, 3))
                atoms = [
                    {"atom": s, "charge": 1.0} | dict(zip("xyz", x, strict=True))
                    for s, x in zip("CHHHH", places.tolist(), strict=True)
                ]
                steps.append({"coordinates": atoms, "energy": -40.5, "gradient": [{"dx": 0.0, "dy": 0.0, "dz": 0.01}] * 5})
            transaction.put(f"{key:09d}".encode(), gzip.compress(pickle.dumps({"DFT_1st": steps})))
    arguments = ("benchmark", "pubchemqcr", folder / "p.safetensors", "--data", folder / "qcr", "--relaxations", 0, "--json")
    assert "--trust" in str(run(*arguments).exception)
    assert "--relaxations 0" in str(run(*arguments[:5], "--stage", "hf").exception)
    found = json.loads(run(*arguments, "--trust").stdout)
    assert (found["frames"], found["molecules"]) == (3, 1)
    assert found["published"]["PaiNN"] == {"energy_mae": 5.33, "force_rmse": 46.92}
    frames = read_pubchemqcr(folder / "qcr", trust=True).split((0.6, 0.2, 0.2), np.random.default_rng(0))[2].frames()
    write_structures(frames, folder / "held.extxyz")
    known = json.loads(run("evaluate", folder / "held.extxyz", "-p", folder / "p.safetensors", "--json").stdout)
    known = known[str(folder / "p.safetensors")]
    assert found["energy_mae"] == pytest.approx(known["energy_mae"], rel=1e-4)
    assert found["force_rmse"] == pytest.approx(known["force_rmse"], rel=1e-4)


def test_density_functionals_of_molecules(folder):
    write_structures([molecule("H2")], folder / "h2.extxyz")
    found = json.loads(
        run("dft", folder / "h2.extxyz", "-f", "lda", "--grid", 0, "--out", folder / "h2_out.extxyz", "--json").stdout
    )
    assert -31.5 < found["structures"][0]["energy"] < -30  # -1.13 Hartree
    assert read_structures(folder / "h2_out.extxyz")[0].get_potential_energy() == pytest.approx(
        found["structures"][0]["energy"]
    )


def test_compress_outliers_and_entropy(folder):
    cells = folder / "cells.extxyz"
    found = json.loads(run("compress", cells, "--fraction", 0.1, "--out", folder / "c.extxyz", "--json").stdout)
    assert found["kept"] == 2
    assert 7 in found["indices"]
    kept = read_structures(folder / "c.extxyz")
    assert [each.info["source_index"] for each in kept] == found["indices"]
    parts = json.loads(run("compress", cells, "--count", 2, "--part", 100, "--out", folder / "d.extxyz", "--json").stdout)
    assert 7 in parts["indices"]
    blind = json.loads(run("entropy", cells, "--json").stdout)["entropy"]
    assert json.loads(run("entropy", cells, "--by-element", "--json").stdout)["entropy"] >= blind - 1e-9
    assert "rises up to the whole file" in run("compress", folder / "start.extxyz", "--out", folder / "e.extxyz").stdout
    novel = json.loads(run("outliers", cells, "--out", folder / "o.extxyz", "--json").stdout)
    assert novel["top"][0]["structure"] == 7
    assert "dH" in read_structures(folder / "o.extxyz")[0].arrays
    known = json.loads(run("entropy", cells, "--reference", folder / "c.extxyz", "--json").stdout)
    assert 0 <= known["entropy"] <= np.log(80)
    assert 0 <= known["covered"] <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "{f}/none.xyz"), "no such file"),
        (("train", "{f}/few.extxyz"), "10 structures"),
        (("train", "{f}/start.extxyz"), "no energy"),
        (("train", "{f}/cells.extxyz", "--out", "{f}/x.pt"), "safetensors"),
        (("evaluate", "{f}/cells.extxyz", "-p", "{f}/p.safetensors"), "no energy"),
        (("relax", "{f}/cells.extxyz", "-p", "{f}/p.safetensors", "--out", "{f}/y.extxyz"), "never trained on Cu"),
        (("md", "{f}/start.extxyz", "-p", "{f}/p.safetensors", "--stop-above", "1", "--out", "{f}/z.extxyz"), "several"),
        (("dft", "{f}/cells.extxyz"), "periodic"),
        (("dft", "{f}/start.extxyz", "-f", "mystery"), "no functional"),
        (("benchmark", "pubchemqcr", "mystery", "--data", "{f}/none"), "no such file"),
        (("train", "{f}/frames.extxyz", "--network", "painn", "--direct"), "no direct forces"),
        (("compress", "{f}/cells.extxyz", "--fraction", "0"), "keeps nothing"),
        (("compress", "{f}/cells.extxyz", "--fraction", "0.5", "--count", "3"), "not both"),
        (("evaluate", "{f}/frames.extxyz", "-p", "{f}/frames.extxyz"), "is not a .npz, .npy or .safetensors"),
    ],
)
def test_a_mistake_is_one_sentence(folder, arguments, words):
    found = run(*(each.format(f=folder) for each in arguments))
    assert words in str(found.exception)
    assert isinstance(found.exception, BroadsheetError)


def test_labels_of_files_reach_training_by_their_keys(folder):
    """Two levels in one file: neither is learned without being named, and a validation set is looked at before training."""
    frames = molecules(("CH3CH2OH",), 12)[0]
    for each in frames:
        each.info["REF_energy"], each.arrays["REF_forces"] = each.get_potential_energy() + 5, 2 * each.get_forces()
    write_structures(frames, folder / "two.xyz")
    p = folder / "p.safetensors"
    arguments = ("train", folder / "two.xyz", "--network", "schnet", "--width", 16, "--steps", 2, "--batch", 4)
    said = run(*arguments, "--out", folder / "k.safetensors")
    assert "energy with forces and REF_energy with REF_forces; name the keys" in str(said.exception)
    errors = {
        key: json.loads(run("evaluate", folder / "two.xyz", "-p", p, "--energy-key", key, "--json").stdout)[str(p)]
        for key in ("energy", "REF_energy")
    }
    assert abs(errors["energy"]["energy_mae"] - errors["REF_energy"]["energy_mae"]) > 100  # 5 eV of nine atoms
    ours = json.loads(run("evaluate", folder / "frames.extxyz", "-p", p, "--json").stdout)[str(p)]
    assert errors["energy"]["force_rmse"] == pytest.approx(ours["force_rmse"], rel=1e-4)
    mixed = run("evaluate", folder / "two.xyz", "-p", p, "--energy-key", "energy", "--forces-key", "REF_forces", "--json")
    mixed = json.loads(mixed.stdout)[str(p)]
    assert mixed["energy_mae"] == pytest.approx(ours["energy_mae"], rel=1e-4)
    assert mixed["force_mae"] == pytest.approx(errors["REF_energy"]["force_mae"], rel=1e-4)
    frames[1].calc.results["energy"] = np.nan
    write_structures(frames, folder / "T@300K.xyz")
    named = (*arguments, "--validation", folder / "T@300K.xyz", "--energy-key", "energy", "--out", folder / "k.safetensors")
    assert "T@300K.xyz: structure 1 has an energy that is not finite" in str(run(*named).exception)
    assert not (folder / "k.safetensors").exists()
    assert json.loads(run("entropy", folder / "T@300K.xyz", "--json").stdout)["structures"] == 12


def test_relaxed_structures_have_no_label_of_where_they_were(folder):
    start = molecules(("CH3CH2OH",), 1)[0][0]
    start.info |= {"REF_energy": -1.0, "charge": 0, "note": "kept"}
    start.arrays["REF_forces"] = np.ones((9, 3))
    write_structures([start], folder / "labelled.extxyz")
    assert run("relax", folder / "labelled.extxyz", "-p", folder / "p.safetensors", "--out", folder / "l.extxyz", "--steps", 2,
               "--json").exit_code == 0  # fmt: skip
    (found,) = read_structures(folder / "l.extxyz")
    assert "REF_energy" not in found.info
    assert "REF_forces" not in found.arrays
    assert (found.info["note"], found.info["charge"]) == ("kept", 0)


def test_a_file_that_is_no_trajectory_is_not_cut(folder):
    (folder / "mine.xyz").write_text("1\n\nH 0 0 0\nwords of mine\n")
    said = run("md", folder / "start.extxyz", "-p", folder / "p.safetensors", "--out", folder / "mine.xyz", "--steps", 2)
    assert "is no trajectory of this command" in str(said.exception)
    assert "words of mine" in (folder / "mine.xyz").read_text()
