"""What every potential passes that is built by name; and how one of another package comes in."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import molecule
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from broadsheet import atoms
from broadsheet.atoms import registry
from broadsheet.atoms.checkpoints import load_potential, read_header, save_potential
from broadsheet.atoms.files import write_structures
from broadsheet.atoms.pair import Morse
from broadsheet.atoms.potential import ScaledPotential
from broadsheet.atoms.potentials.transip import TransformerBlock
from broadsheet.atoms.registry import build, kind, names
from broadsheet.atoms.registry import potential as registered
from broadsheet.atoms.structures import batch_atoms, labelled
from broadsheet.cli.app import app
from broadsheet.errors import BroadsheetError, InputError
from broadsheet.lab import identity

SIZES = 6, 3  # atoms of methanol and water
FEWER = {"blocks": 1, "interactions": 2}  # of those that a potential has, which compiles sooner


def structures():
    made = [molecule("CH3OH"), molecule("H2O")]
    for k, each in enumerate(made):
        each.rattle(0.05, seed=k)
    return made


class Checked:
    """A tiny potential in float64, with one compiled program for all that is asked of it in one shape."""

    def __init__(self, name):
        self.kind, self.traces = kind(name), 0
        size = "tiny" if "tiny" in self.kind.sizes else None
        fewer = {name: count for name, count in FEWER.items() if self.kind.has(name)}
        with jax.enable_x64(True):
            self.net, self.other = (build(name, k, size=size, direct=self.kind.has("direct"), **fewer) for k in range(2))
        self.answers = eqx.filter_jit(self._answers)

    def _answers(self, net, batch, near):
        self.traces += 1
        found = net.energy_and_forces(batch, near)
        forces = net.energy_and_direct_forces(batch, near).forces if self.kind.has("direct") else found.forces
        return found.energy, found.forces, forces

    def look(self, made, net=None):
        """Energies, and of the real atoms the gradient's forces and the direct ones, where there are any."""
        net = self.net if net is None else net
        batch = batch_atoms(made, atoms=16, count=3)
        energy, *forces = self.answers(net, batch, net.neighbours(batch, width=10))
        for part in (energy, *forces):  # a norm of zero length has no gradient, and rows of padding have zero length
            assert np.isfinite(part).all(), "not finite: take distances where neighbours.mask holds, as edges_of does"
        return [np.asarray(energy)[: len(made)], *(np.asarray(part)[np.asarray(batch.node_mask)] for part in forces)]


@cache
def checked(name):
    return Checked(name)


@pytest.fixture(params=names())
def potential(request):
    with jax.enable_x64(True):
        yield checked(request.param)


def same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10 * np.abs(other).max())


def test_translations_leave_all_and_rotations_what_is_declared(potential):
    before, made, moved = potential.look(structures()), structures(), structures()
    for each in moved:
        each.positions += (0.7, -1.3, 2.1)
    same(potential.look(moved), before)
    turn = Rotation.random(random_state=1).as_matrix() * -1  # a reflection too
    for each in made:
        each.positions = each.positions @ turn.T
    after = potential.look(made)
    change = np.abs(after[0] - before[0]).max(), np.abs(after[1] - before[1] @ turn.T).max()
    if potential.kind.equivariant:
        np.testing.assert_allclose(change, 0, atol=1e-9 * max(np.abs(part).max() for part in before))
    else:
        assert min(change) > 1e-3


def test_the_order_of_atoms_and_structures_is_nothing(potential):
    before, rng = potential.look(structures()), np.random.default_rng(0)
    orders = [rng.permutation(count) for count in SIZES]
    energy, *forces = potential.look([each[order] for each, order in zip(structures(), orders, strict=True)][::-1])
    flat = np.concatenate([orders[1] + SIZES[0], orders[0]])
    same([energy[::-1], *forces], [before[0], *(part[flat] for part in before[1:])])


def test_forces_are_the_slopes_of_the_energy(potential):
    _, forces, _ = potential.look(structures())
    for atom, axis in ((0, 1), (4, 2), (7, 0)):
        sides = []
        for step in (1e-4, -1e-4):
            made = structures()
            place, within = (0, atom) if atom < SIZES[0] else (1, atom - SIZES[0])
            made[place].positions[within, axis] += step
            sides.append(potential.look(made)[0].sum())
        np.testing.assert_allclose(forces[atom, axis], -(sides[0] - sides[1]) / 2e-4, rtol=1e-5, atol=1e-8)


def test_company_leaves_the_answers(potential):
    found = potential.look([*structures(), molecule("CH4")])
    same([found[0][:2], *(part[: sum(SIZES)] for part in found[1:])], potential.look(structures()))


def test_a_file_brings_the_same_potential_back(potential, tmp_path):
    scaled = ScaledPotential(potential.net, scale=2.0)
    path = save_potential(scaled, tmp_path / "p.safetensors", {"seed": 1})
    again = load_potential(path)
    assert read_header(path)["note"] == {"seed": 1}
    assert eqx.tree_equal(again, scaled)  # and so compiles nothing anew
    same(potential.look(structures(), again.network), potential.look(structures()))


def test_one_program_serves_all_weights_and_padding_is_nothing(potential):
    """Compiled once with weights and structures as arguments; `vmap` over weights and positions, in more room for atoms,
    structures and neighbours.
    """
    before = potential.look(structures())
    traces = potential.traces
    assert traces > 0
    other = potential.look(structures(), potential.other)
    assert potential.traces == traces
    assert np.abs(other[0] - before[0]).min() > 1e-6
    batch = batch_atoms(structures(), atoms=23, count=5)
    near = potential.net.neighbours(batch, width=13)
    first, static = eqx.partition(potential.net, eqx.is_array)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), first, eqx.filter(potential.other, eqx.is_array))
    shift = jnp.stack([jnp.zeros_like(batch.positions), jnp.full_like(batch.positions, 0.5)])

    @jax.jit
    @jax.vmap
    def energies(weights, shift):
        moved = eqx.tree_at(lambda b: b.positions, batch, batch.positions + shift)
        return eqx.combine(weights, static).energy(moved, near)[:2]

    np.testing.assert_allclose(energies(both, shift), [before[0], other[0]], rtol=1e-8)


SPRINGS = '''
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp

from broadsheet.atoms.message_passing import edges_of
from broadsheet.atoms.pair import PairPotential
from broadsheet.atoms.registry import potential
from broadsheet.atoms.training import label_loss
from broadsheet.errors import InputError

asked = []


@dataclass(frozen=True)
class SpringConfig:
    width: int = 3
    cutoff: float = 4.0

    def check(self):
        if self.width < 1:
            raise InputError("Springs: one at least.")
        return self


def objective(settings, weight):
    asked.append(weight)
    return label_loss(settings)


@potential("springs", settings=SpringConfig, objective=objective)
class Springs(PairPotential):
    """Springs of any lengths between all pairs."""

    stiffness: jnp.ndarray
    lengths: jnp.ndarray
    config: SpringConfig = eqx.field(static=True)
    cutoff: float = eqx.field(static=True)

    def __init__(self, config, key):
        self.config, self.cutoff = config.check(), config.cutoff
        self.stiffness, self.lengths = jnp.ones(config.width), jnp.linspace(1.0, 2.0, config.width)

    def pair(self, r):
        return jnp.sum(self.stiffness * (r[..., None] - self.lengths) ** 2, axis=-1)
'''


@pytest.fixture
def springs(tmp_path, monkeypatch):
    """A package that brings a potential by its entry point, as installed."""
    (tmp_path / "their_springs.py").write_text(SPRINGS)
    info = tmp_path / "their_springs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-springs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[broadsheet.potentials]\nsprings = their_springs:Springs\nbroken = their_springs:Nothing\nempty = json:loads\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    registry._kinds.pop("springs", None)
    sys.modules.pop("their_springs", None)


def run(*arguments):
    found = CliRunner().invoke(app, ["atoms", *map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, BroadsheetError | SystemExit):
        raise found.exception
    return found


def test_a_potential_of_another_package(springs):
    assert {"springs", "painn"} <= set(names())
    rng, frames = np.random.default_rng(0), []
    for _ in range(12):
        made = molecule("H2O")
        shift = 0.1 * rng.standard_normal(made.positions.shape)
        made.positions += shift
        frames.append(labelled(made, float(0.5 * np.sum(shift**2)), -shift))
    write_structures(frames, springs / "frames.extxyz")
    out = springs / "springs.safetensors"
    training = ("train", springs / "frames.extxyz", "--network", "springs", "--width", 2, "--steps", 3, "--batch", 4, "--out", out,
                "--evaluate-every", 3, "--equivariance", 0.5, "--json")  # fmt: skip
    made = run(*training)
    assert made.exit_code == 0, made.exception
    import their_springs

    assert their_springs.asked == [0.5]
    assert read_header(out)["kind"] == "Springs"
    del registry._kinds["springs"], sys.modules["their_springs"]  # as in a process that has not seen it yet
    found = load_potential(out).network
    assert found.config.width == 2
    assert (found.stiffness != 1).all()
    known = json.loads(run("evaluate", springs / "frames.extxyz", "-p", out, "--json").stdout)
    assert known[str(out)]["force_mae"] > 0
    for arguments, words in (
        (("--network", "springs", "--direct"), "no direct forces"),
        (("--network", "springs", "--size", "huge"), "no size 'huge'; it has standard."),
        (("--network", "spring"), "no potential called 'spring'; there are"),
        (("--network", "broken"), "cannot be loaded"),
        (("--network", "empty"), "registers none of that name"),
        (("--network", "transip", "--cutoff", 3), "no setting 'cutoff'"),
        (("--network", "painn", "--equivariance", 1), "learns from labels alone"),
        (("--network", "escaip", "--width", 20), "a multiple"),
    ):
        assert words in str(run("train", springs / "frames.extxyz", *arguments).exception)


def test_what_is_not_registered(springs, tmp_path):
    with pytest.raises(InputError, match="Morse is not registered"):
        save_potential(ScaledPotential(Morse()), tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=r"is broadsheet\.atoms\.potentials\.painn\.PaiNN already"):
        registered("painn", settings=kind("painn").settings)(Morse)
    with pytest.raises(InputError, match="no setting 'depth'"):
        build("painn", 0, depth=3)
    assert build(kind("painn").network, 0, size="tiny", basis=8).config == build("painn", 0, size="tiny", basis=8).config


MISTAKES = (
    ("self.config, self.cutoff = config.check(), config.cutoff", "self.cutoff = 4.0; self.config = None", "does not keep its settings"),
    ("self.config, self.cutoff = config.check(), config.cutoff", "self.config, self.cutoff = config, None", "has no cutoff"),
    ("jnp.ones(config.width), jnp", "2.0, jnp", "stiffness is a float; leaves are arrays"),
    ("@dataclass(frozen=True)", "@dataclass", "have to be a frozen dataclass"),
    ("    def pair(", "    def energy(self, batch, neighbours):\n        return jnp.zeros(len(batch.numbers))\n\n    def pair(",
     "sum over atoms by batch.sum_atoms"),
)  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "words"), MISTAKES, ids=[words for *_, words in MISTAKES])
def test_a_potential_that_cannot_be_trained_or_saved_is_told_before(springs, right, wrong, words):
    assert right in SPRINGS
    (springs / "their_springs.py").write_text(SPRINGS.replace(right, wrong))
    write_structures([labelled(molecule("H2O"), -1.0, np.full((3, 3), 0.1)) for _ in range(10)], springs / "frames.extxyz")
    found = run("train", springs / "frames.extxyz", "--network", "springs", "--steps", 1, "--out", springs / "s.safetensors")
    assert words in str(found.exception)


def test_the_room_is_cheap_to_import_and_a_run_depends_on_the_file_behind_a_name():
    code = "import sys, broadsheet.atoms, broadsheet.atoms.registry as r; r.names(); print('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
    defined = [identity._defined_in("broadsheet.atoms", name) for name in ("EScAIP", "PaiNN", "build", "train")]
    assert defined == [f"broadsheet.atoms.{name}" for name in ("potentials.escaip", "potentials.painn", "registry", "training")]
    assert "broadsheet.atoms.latent_equivariance" in identity._closure({"broadsheet.atoms.potentials.transip"}, ("broadsheet",))
    assert not any("potentials" in name for name in identity._closure({"broadsheet.atoms.training"}, ("broadsheet",)))
    assert all(hasattr(atoms, name) for name in atoms.__all__)


def test_networks_as_they_come_are_the_published_ones():
    """EScAIP: the table of arXiv 2410.24169 and the authors' settings for MPtrj; SchNet and PaiNN: those of the benchmark of
    relaxations; TransIP: 12 width^2 weights a block, as the Transformer's with four times the width within.
    """
    escaip = kind("escaip").sizes
    table = {"S": (512, 10, 8), "M": (640, 6, 10), "L": (1024, 8, 16)}
    assert {size: (escaip[size].width, escaip[size].blocks, escaip[size].heads) for size in table} == table
    for size in table:
        here = escaip[size]
        assert (here.cutoff, here.frequencies, here.order_degrees, here.order_width) == (6.0, (20, 10, 4, 10, 20), 10, 64)
        assert (here.basis, here.basis_width, here.atom_width, here.multiplier) == (600, 512, 128, 2)
    for name in ("schnet", "painn"):
        made = kind(name).settings()
        assert (made.width, made.interactions, made.basis, made.cutoff) == (128, 4, 128, 4.5)
        assert kind(name).sizes["standard"].cutoff == 6.0
    transip = kind("transip").settings().check()
    block = TransformerBlock(np.random.default_rng(0), transip)
    weights = sum(leaf.size for leaf in jax.tree.leaves(block) if leaf.ndim == 2)
    assert weights == 12 * transip.width**2


@pytest.mark.parametrize("name", registry.own_names())
def test_each_has_a_tiny_size_and_a_standard_one_first(name):
    """The tests, benchmarks and `--size` build them by these names."""
    sizes = kind(name).sizes
    assert sizes.get("tiny", "missing") != sizes[next(iter(sizes))]
    assert isinstance(build(name, 0, size="tiny"), kind(name).network)


@pytest.mark.parametrize(
    "file",
    sorted((Path(__file__).parents[1] / "references" / "atoms" / "saved").glob("*.safetensors")),
    ids=lambda file: file.stem,
)
def test_files_written_before_still_load(file):
    """Written by the first version, with the energy that it found for methanol."""
    found = load_potential(file)
    batch = batch_atoms([molecule("CH3OH")])
    energy = eqx.filter_jit(found.energy)(batch, found.neighbours(batch))[0]
    assert type(found.network).__name__ == file.stem == read_header(file)["kind"]
    np.testing.assert_allclose(energy, read_header(file)["note"]["energy"], rtol=1e-5)
