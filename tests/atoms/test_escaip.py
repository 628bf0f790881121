"""EScAIP against the authors' program, its files, and training."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk, molecule

from broadsheet.atoms.checkpoints import from_fairchem, load_potential, read_header, save_potential, to_fairchem
from broadsheet.atoms.escaip import SMALL, EScAIP, EScAIPConfig, log_envelope, soft_rank
from broadsheet.atoms.labels import molecules
from broadsheet.atoms.potential import element_references, scaled
from broadsheet.atoms.structures import batch_atoms, labelled
from broadsheet.atoms.training import LabelledSet, Training, evaluate, train
from broadsheet.errors import DataError, InputError

REFERENCE = Path(__file__).parents[1] / "references" / "atoms" / "escaip.npz"
TINY = replace(
    SMALL, width=16, heads=2, frequencies=(5, 3, 0, 0, 0), blocks=1, basis=16, basis_width=8, order_width=4, atom_width=4
)
THEIRS = EScAIPConfig(
    width=16, blocks=2, heads=2, nearest=8, slots=20, rank="sigmoid", frequencies=(3, 2, 1, 1, 1), order_width=4, order_weights=False,
    basis=16, basis_width=8, atom_width=4, direct=True,
)  # fmt: skip


def test_blocks_are_those_of_the_authors():
    with np.load(REFERENCE) as kept:
        arrays = dict(kept)
    net = from_fairchem({name: value for name, value in arrays.items() if not name.startswith("out.")}, THEIRS)
    made = [molecule("CH3CH2OH"), molecule("CH3COOH")]
    for each in made:
        each.rattle(0.05, seed=2)
    batch = batch_atoms(made)
    near = net.neighbours(batch)
    nodes, _, graph = net.embed(batch, near)
    real = len(arrays["out.order"])
    np.testing.assert_allclose(net.order(graph)[:real], arrays["out.order"], atol=2e-6)
    for k in range(3):
        scale = np.abs(arrays[f"out.{k}"]).max()
        np.testing.assert_allclose(nodes[k, :real] / scale, arrays[f"out.{k}"] / scale, atol=2e-6)
    np.testing.assert_allclose(net.energy(batch, near)[:2], arrays["out.energy"], rtol=1e-5)
    forces = arrays["out.forces"]
    np.testing.assert_allclose(net.direct_forces(batch, near)[:real], forces, atol=1e-5 * np.abs(forces).max())
    for name, value in to_fairchem(net).items():
        np.testing.assert_array_equal(value[: len(arrays[name])], arrays[name].astype(value.dtype))
    arrays.pop("backbone.input_block.norm_node.weight")
    with pytest.raises(DataError, match="lacks backbone"):
        from_fairchem(arrays, THEIRS)


def test_forces_are_the_gradient_and_an_overflow_is_not_silent():
    with jax.enable_x64(True):
        net = EScAIP(TINY, 0)
        made = molecule("CH3OH")
        made.rattle(0.05, seed=0)
        batch = batch_atoms([made], count=1)
        near = net.neighbours(batch)
        energy = jax.jit(lambda x: net.energy(eqx.tree_at(lambda b: b.positions, batch, x), near)[0])
        forces = -jax.grad(energy)(jnp.asarray(batch.positions))
        step = np.zeros_like(batch.positions)
        step[1, 2] = 1e-5
        slope = (energy(batch.positions + step) - energy(batch.positions - step)) / 2e-5
        np.testing.assert_allclose(-slope, forces[1, 2], rtol=1e-6)
    crowded = EScAIP(replace(TINY, slots=6), 0)
    batch = batch_atoms([bulk("Cu", cubic=True)])
    assert np.isnan(crowded.energy(batch, crowded.neighbours(batch))[0])


def both_forces(net, batch, near):
    """Gradient and direct forces, traced anew each time, since sizes of parts are constants."""
    return eqx.filter_jit(lambda *given: (net.energy_and_forces(*given), net.direct_forces(*given)))(batch, near)


def test_atoms_in_parts_are_the_same_atoms(monkeypatch):
    net = EScAIP(replace(TINY, blocks=2, direct=True), 0)
    made = bulk("Cu", cubic=True).repeat((2, 2, 1))
    made.rattle(0.05, seed=0)
    batch = batch_atoms([made, molecule("CH3OH")])
    near = net.neighbours(batch)
    whole = both_forces(net, batch, near)
    monkeypatch.setattr("broadsheet.atoms.escaip.LARGE", 0)
    monkeypatch.setattr("broadsheet.atoms.escaip.PART", 7)
    parts = both_forces(net, batch, near)
    for one, other in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_soft_ranks_and_envelopes():
    distance = jnp.array([[0.0, 1.0, 3.0, 9.0]])
    mask = jnp.array([[True, True, True, False]])
    np.testing.assert_allclose(soft_rank(distance, mask, 0.01, "sigmoid"), [[0.5, 1.5, 2.5, 3]], atol=1e-5)
    np.testing.assert_allclose(soft_rank(distance, mask, 0.01, "sine"), [[0.5, 1.5, 2.5, 3]], atol=1e-5)
    np.testing.assert_array_equal(soft_rank(distance, mask, 0.01, "hard"), [[0, 1, 2, 3]])
    np.testing.assert_allclose(log_envelope(jnp.array([0.0, 0.5]))[:2], [0, -1 / 3], rtol=1e-6)
    assert jnp.exp(log_envelope(jnp.array(1.0))) == 0


@pytest.fixture(scope="module")
def sets():
    group = molecules(("CH3CH2OH",), 24)[0]
    potential = scaled(EScAIP(TINY, 1), group[:18])
    return potential, LabelledSet(group[:18], potential), LabelledSet(group[18:], potential)


SETTINGS = Training(steps=12, batch=6, learning_rate=3e-3, evaluate=6, force_weight=0.0)  # energies alone compile faster


def test_training_goes_on_where_it_was_stopped(sets, tmp_path):
    potential, first, second = sets
    whole = train(potential, first, second, SETTINGS, jax.random.key(0))
    before = evaluate(potential, second, size=6)
    assert whole.errors.energy_mae < before.energy_mae
    assert whole.history["step"].tolist() == [6, 12]
    seen = []

    class Stop(Exception):
        pass

    def stop(done, loss, errors):
        seen.append(done)
        raise Stop

    places = {"checkpoint": tmp_path / "c", "keep": tmp_path / "best.safetensors"}
    twelve = replace(SETTINGS, evaluate=4)
    with pytest.raises(Stop):
        train(potential, first, second, twelve, jax.random.key(0), **places, report=lambda *a: stop(*a) if a[0] == 8 else None)
    resumed = train(potential, first, second, twelve, jax.random.key(0), **places)
    assert resumed.history["step"][-1] == 12
    np.testing.assert_allclose(resumed.errors.force_mae, whole.errors.force_mae, rtol=1e-4)
    kept = load_potential(tmp_path / "best.safetensors")
    np.testing.assert_allclose(evaluate(kept, second, size=6).force_mae, resumed.errors.force_mae, rtol=1e-5)


def test_a_file_that_is_not_what_it_says(sets, tmp_path):
    potential = sets[0]
    path = save_potential(potential, tmp_path / "p.safetensors", {"seed": 1})
    header = read_header(path)
    assert header["units"] == "eV, eV/Å"
    assert header["elements"] == [1, 6, 8]
    again = load_potential(path)
    assert all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(potential), strict=True)
    )
    raw = path.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError):
        load_potential(tmp_path / "cut.safetensors")
    size = int.from_bytes(raw[:8], "little")
    text = json.loads(raw[8 : 8 + size])
    for change, words in (({"width": 10**6}, "cannot be used"), ({"blocks": 3}, "shape"), ({"heads": 3}, "cannot be used")):
        note = json.loads(text["__metadata__"]["broadsheet"])
        note["config"] |= change
        edited = json.dumps(text | {"__metadata__": {"broadsheet": json.dumps(note)}}).encode()
        (tmp_path / "bad.safetensors").write_bytes(len(edited).to_bytes(8, "little") + edited + raw[8 + size :])
        with pytest.raises(DataError, match=words):
            load_potential(tmp_path / "bad.safetensors")
    poisoned = eqx.tree_at(lambda p: p.network.head.answer, potential, potential.network.head.answer * jnp.nan)
    with pytest.raises(DataError, match="not finite"):
        load_potential(save_potential(poisoned, tmp_path / "nan.safetensors"))
    with pytest.raises(InputError, match="never trained on Cu"):
        potential.neighbours(batch_atoms([bulk("Cu", cubic=True)]))


def test_references_are_those_the_energies_were_made_of():
    made = [molecule(name) for name in ("H2O", "CO2", "CH4", "C2H6", "H2")]
    known = {1: -13.0, 6: -1030.0, 8: -2041.0}
    found = element_references([labelled(each, sum(known[z] for z in each.numbers)) for each in made])
    np.testing.assert_allclose([found[z] for z in known], list(known.values()), rtol=1e-10)
    assert np.isnan(found[29])


def test_sizes_that_do_not_fit():
    with pytest.raises(InputError, match="width of a head"):
        EScAIP(replace(TINY, heads=4), 0)
    with pytest.raises(InputError, match="positive"):
        Training(steps=0).check()


SHARDED = """
import jax, sys
import numpy as np
from dataclasses import replace
sys.path.insert(0, {folder!r})
from test_escaip import SETTINGS, TINY
from broadsheet.atoms.escaip import EScAIP
from broadsheet.atoms.labels import molecules
from broadsheet.atoms.potential import scaled
from broadsheet.atoms import training
from broadsheet.atoms.training import LabelledSet, train
group = molecules(("CH3CH2OH",), 24)[0]
potential = scaled(EScAIP(TINY, 1), group[:18])
sets = LabelledSet(group[:18], potential), LabelledSet(group[18:], potential)
settings = replace(SETTINGS, steps=2, batch=8, evaluate=2)
assert len(jax.devices()) == 8
training.evaluate = lambda *a, **k: training.Errors(0.0, 0.0, 0.0, 0.0, 0.0)  # only the loss is looked at
for devices in (jax.devices(), jax.devices()[:1]):
    print(*train(potential, *sets, settings, jax.random.key(0), devices=devices).history["loss"])
"""


def test_eight_devices_learn_what_one_does():
    import os

    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    code = SHARDED.format(folder=str(Path(__file__).parent))
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    eight, one = (float(line) for line in out.split())
    np.testing.assert_allclose(eight, one, rtol=1e-5)
