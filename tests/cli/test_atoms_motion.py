"""What relax, md and dft do with what a file says of its atoms: fixed ones, masses, momenta, charge."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms, FixedPlane, Hookean
from ase.db import connect
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.units import fs
from typer.testing import CliRunner

from broadsheet.atoms.calculator import PotentialCalculator
from broadsheet.atoms.checkpoints import load_potential, save_potential
from broadsheet.atoms.potential import ScaledPotential
from broadsheet.atoms.registry import build
from broadsheet.atoms.structures import labelled
from broadsheet.cli.app import app
from broadsheet.errors import BroadsheetError


def run(*arguments):
    found = CliRunner().invoke(app, ["atoms", *map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, BroadsheetError | SystemExit):
        raise found.exception
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("motion")
    for name, scale in (("p", 2.0), ("q", 2.2)):
        save_potential(ScaledPotential(build("pairnet", 0), scale=scale), place / f"{name}.safetensors", {})
    start = molecule("CH3CH2OH")
    start.rattle(0.1, seed=0)
    start.set_constraint(FixAtoms([0, 1]))
    masses = start.get_masses()
    masses[start.numbers == 1] = 2.014
    start.set_masses(masses)
    start.set_momenta(np.random.default_rng(0).standard_normal((9, 3)))
    start.info = {"charge": 1, "spin": 2, "source": "here", "REF_energy": 7.0}
    write(place / "start.extxyz", start, format="extxyz")
    return place


def test_relax_keeps_what_is_fixed_and_said(folder):
    out = folder / "r.extxyz"
    assert json.loads(run("relax", folder / "start.extxyz", "-p", folder / "p.safetensors", "--out", out, "--json").stdout)[
        "converged"
    ]
    start, relaxed = read(folder / "start.extxyz"), read(out)
    assert np.array_equal(relaxed.positions[:2], start.positions[:2])
    start.calc = PotentialCalculator(load_potential(folder / "p.safetensors"))
    BFGS(start, logfile=None).run(fmax=0.05)
    assert relaxed.get_potential_energy() == pytest.approx(start.get_potential_energy(), abs=1e-3)
    np.testing.assert_allclose(relaxed.positions, start.positions, atol=1e-3)
    assert relaxed.constraints[0].index.tolist() == [0, 1]
    np.testing.assert_allclose(relaxed.get_masses(), start.get_masses())
    assert (relaxed.info["charge"], relaxed.info["spin"], relaxed.info["source"]) == (1, 2, "here")
    assert "REF_energy" not in relaxed.info


@pytest.mark.parametrize("names", [("p",), ("p", "q")])
def test_md_is_that_of_ase_for_the_same_file(folder, names):
    out, paths = folder / f"{''.join(names)}.extxyz", [folder / f"{name}.safetensors" for name in names]
    potentials = [part for path in paths for part in ("-p", path)]
    motion = ("md", folder / "start.extxyz", *potentials, "--friction", 0, "--dt", 0.5, "--every", 10, "--out", out)
    assert "began with the velocities of" in run(*motion, "--steps", 10).stdout
    assert json.loads(run(*motion, "--steps", 20, "--json").stdout)["frames"] == 2  # goes on
    start, frames = read(folder / "start.extxyz"), read(out, index=":")
    start.calc = PotentialCalculator([load_potential(path) for path in paths])
    energy = start.get_total_energy()
    VelocityVerlet(start, 0.5 * fs).run(20)
    np.testing.assert_allclose(frames[-1].positions, start.positions, atol=1e-4)
    np.testing.assert_allclose(frames[-1].get_momenta(), start.get_momenta(), atol=1e-3)
    assert frames[-1].get_temperature() == pytest.approx(start.get_temperature(), rel=1e-3)
    for each in frames:
        assert np.array_equal(each.positions[:2], read(folder / "start.extxyz").positions[:2])
        assert each.get_total_energy() == pytest.approx(energy, abs=0.02)
        assert each.constraints[0].index.tolist() == [0, 1]
        assert (each.info["charge"], each.info["source"]) == (1, "here")
        assert "REF_energy" not in each.info
        assert ("forces_std" in each.arrays) == (len(names) == 2)
    np.testing.assert_allclose(frames[-1].get_masses(), start.get_masses())


@pytest.mark.parametrize(("held", "out", "words"), [
    ([Hookean(0, 1, 5.0)], "o.traj", "structure 0 has the constraint Hookean"),
    ([FixedPlane([0], (0, 0, 1))], "o.extxyz", "structure 0 has the constraint FixedPlane, which"),
])  # fmt: skip
def test_constraints_that_are_not_kept_are_refused(folder, held, out, words):
    start = molecule("CH4")
    start.set_constraint(held)
    write(folder / "held.traj", start)
    found = run("relax", folder / "held.traj", "-p", folder / "p.safetensors", "--out", folder / out)
    assert words in str(found.exception)


@pytest.mark.parametrize("verb", ["relax", "md", "dft", "evaluate"])
def test_atoms_that_overlap_are_named(folder, verb):
    twice = labelled(Atoms("CH2", [[0, 0, 0], [1, 0, 0], [1, 0, 0]]), 0.0, np.zeros((3, 3)))
    write(folder / "twice.extxyz", twice, format="extxyz")
    options = () if verb == "dft" else ("-p", folder / "p.safetensors")
    options = (*options, "--out", folder / "none.extxyz") if verb in ("relax", "md") else options
    found = run(verb, folder / "twice.extxyz", *options)
    assert "Atoms 1 and 2 of " in str(found.exception)
    assert ("structure 0" if verb == "evaluate" else "twice.extxyz") in str(found.exception)


def test_dft_reads_the_charge_of_a_database(folder):
    hydroxyl = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
    with connect(folder / "c.db") as base:
        base.write(hydroxyl, data={"charge": -1})
    hydroxyl.info["charge"] = -1
    write(folder / "c.extxyz", hydroxyl, format="extxyz")
    options = ("--basis", "sto-3g", "--grid", 0, "-f", "lda", "--json")
    first, second = (json.loads(run("dft", folder / name, *options).stdout) for name in ("c.db", "c.extxyz"))
    assert first["structures"][0]["energy"] == pytest.approx(second["structures"][0]["energy"], abs=1e-6)
    hydroxyl.info["charge"] = -0.5
    write(folder / "half.extxyz", [molecule("H2"), hydroxyl], format="extxyz")
    assert "structure 1 has the charge -0.5" in str(run("dft", folder / "half.extxyz", *options).exception)


def test_dft_labels_fixed_atoms_with_their_forces(folder):
    made = Atoms("H2", [[0, 0, 0], [0, 0, 1.1]])
    made.set_constraint(FixAtoms([0]))
    write(folder / "fixed.extxyz", made, format="extxyz")
    run("dft", folder / "fixed.extxyz", "--basis", "sto-3g", "--grid", 0, "-f", "lda", "--forces", "--out", folder / "f.extxyz")
    forces = read(folder / "f.extxyz").get_forces(apply_constraint=False)
    np.testing.assert_allclose(forces[0], -forces[1], atol=1e-3)
    assert abs(forces[0]).max() > 0.1
