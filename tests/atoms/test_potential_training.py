"""Training of potentials, their files, and the two message-passing networks."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from safetensors.numpy import save_file

from broadsheet.atoms.checkpoints import load_potential, read_header, save_potential
from broadsheet.atoms.labels import molecules
from broadsheet.atoms.message_passing import MessageConfig, edges_of
from broadsheet.atoms.pair import LennardJones
from broadsheet.atoms.potential import Prediction, ScaledPotential, element_references, scaled
from broadsheet.atoms.potentials.painn import PaiNN
from broadsheet.atoms.potentials.schnet import SchNet, shifted_softplus
from broadsheet.atoms.registry import build
from broadsheet.atoms.structures import batch_atoms, labelled
from broadsheet.atoms.training import LabelledSet, Training, evaluate, in_rows, label_error, optimiser, train
from broadsheet.errors import DataError, InputError
from broadsheet.files import load_arrays

TINY = MessageConfig(width=16, interactions=1, basis=16)


@pytest.fixture(scope="module")
def sets():
    group = molecules(("CH3CH2OH",), 24)[0]
    potential = scaled(SchNet(TINY, 1), group[:18])
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


def test_a_set_puts_together_what_batching_gives_and_names_a_bad_structure(sets):
    potential, first, _ = sets
    batch, near = first.batch([7, 0, 3])
    direct = batch_atoms([first.structures[k] for k in (7, 0, 3)], atoms=len(batch.positions), count=3)
    for found, wanted in zip(jax.tree.leaves(batch), jax.tree.leaves(direct), strict=True):
        np.testing.assert_array_equal(found, wanted)
    lists = potential.neighbours(direct, width=first.width)
    for found, wanted in zip(jax.tree.leaves(near), jax.tree.leaves(lists), strict=True):
        np.testing.assert_array_equal(found, wanted)
    twice = first.structures[2].copy()
    twice.positions[1] = twice.positions[0]
    twice = labelled(twice, 0.0, np.zeros((len(twice), 3)))
    with pytest.raises(InputError, match="of structure 2 overlap"):
        LabelledSet([*first.structures[:2], twice], potential)


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
    for change, words in (
        ({"width": 10**6}, "cannot be used"),
        ({"interactions": 3}, "shape"),
        ({"cutoff": -1}, "cannot be used"),
    ):
        note = json.loads(text["__metadata__"]["broadsheet"])
        note["config"] |= change
        edited = json.dumps(text | {"__metadata__": {"broadsheet": json.dumps(note)}}).encode()
        (tmp_path / "bad.safetensors").write_bytes(len(edited).to_bytes(8, "little") + edited + raw[8 + size :])
        with pytest.raises(DataError, match=words):
            load_potential(tmp_path / "bad.safetensors")
    for kind in ("NequIP", "LennardJones"):
        note = json.loads(text["__metadata__"]["broadsheet"]) | {"kind": kind}
        edited = json.dumps(text | {"__metadata__": {"broadsheet": json.dumps(note)}}).encode()
        (tmp_path / "other.safetensors").write_bytes(len(edited).to_bytes(8, "little") + edited + raw[8 + size :])
        with pytest.raises(DataError, match=f"holds '{kind}'"):
            load_potential(tmp_path / "other.safetensors")
    poisoned = eqx.tree_at(lambda p: p.network.readout.first.weight, potential, replace_fn=lambda w: w * jnp.nan)
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


SHARDED = """
import jax, sys
import numpy as np
from dataclasses import replace
sys.path.insert(0, {folder!r})
from test_potential_training import SETTINGS, TINY
from broadsheet.atoms.potentials.schnet import SchNet
from broadsheet.atoms.labels import molecules
from broadsheet.atoms.potential import scaled
from broadsheet.atoms import training
from broadsheet.atoms.training import LabelledSet, train
group = molecules(("CH3CH2OH",), 24)[0]
potential = scaled(SchNet(TINY, 1), group[:18])
sets = LabelledSet(group[:18], potential), LabelledSet(group[18:], potential)
settings = replace(SETTINGS, steps=2, batch=8, evaluate=2)
assert len(jax.devices()) == 8
training.evaluate = lambda *a, **k: training.Errors(0.0, 0.0, 0.0, 0.0, 0.0)  # only the loss is looked at
for devices in (jax.devices(), jax.devices()[:1]):
    print(*train(potential, *sets, settings, jax.random.key(0), devices=devices).history["loss"])
"""


def test_eight_devices_learn_what_one_does():
    import os

    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags}
    code = SHARDED.format(folder=str(Path(__file__).parent))
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    eight, one = (float(line) for line in out.split())
    np.testing.assert_allclose(eight, one, rtol=1e-5)


def test_weights_in_rows_are_updated_as_a_tree_is():
    """Three steps against Optax's AdamW with a mask: clipped, only matrices decay, the average follows."""
    settings = Training(steps=10, learning_rate=0.1, weight_decay=0.3, clip=1.0, warmup=0.3, average=0.5)
    rng = np.random.default_rng(0)
    weights = {name: jnp.asarray(rng.normal(size=shape), jnp.float32)
               for name, shape in (("weight", (3, 4)), ("bias", (2, 3)), ("atom_table", (5, 2)), ("scale", (4,)))}  # fmt: skip
    rate = optax.warmup_cosine_decay_schedule(0.02, 0.1, 3, 11, 0.001)
    masked = {name: name == "weight" for name in weights}
    wanted = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.3, mask=masked))
    (rows, as_weights), tree = in_rows(weights), weights
    average, made, other = weights, optimiser(settings).init(rows), wanted.init(weights)
    for _ in range(3):
        gradient = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), weights)
        change, made = optimiser(settings).update(in_rows(gradient)[0], made, rows)
        rows = optax.apply_updates(rows, change)
        change, other = wanted.update(gradient, other, tree)
        tree = optax.apply_updates(tree, change)
        average = jax.tree.map(lambda old, new: (old + new) / 2, average, tree)
        for found, known in ((rows, tree), (made.average, average)):
            found = as_weights(found)
            assert all(np.allclose(found[name], known[name], rtol=1e-5, atol=1e-7) for name in weights)
    assert not np.allclose(tree["weight"], weights["weight"], atol=0.01)


def test_settings_that_train_nothing():
    with pytest.raises(InputError, match="positive"):
        Training(steps=0).check()
    with pytest.raises(InputError, match="two at least"):
        SchNet(MessageConfig(width=1), 0)


def test_one_round_of_schnet_by_hand():
    net = SchNet(TINY, 3)
    batch = batch_atoms([molecule("CO")])
    near = net.neighbours(batch)
    r = float(np.linalg.norm(np.diff(batch.positions[:2], axis=0)))
    basis = np.exp(-((r - np.linspace(0, 4.5, 16)) ** 2) / (2 * (4.5 / 15) ** 2))
    np.testing.assert_allclose(edges_of(batch, near, TINY).basis[0, 0], basis, rtol=1e-4, atol=1e-6)
    layer = jax.tree.map(lambda leaf: np.asarray(leaf)[0] if eqx.is_array(leaf) else leaf, net.interactions)

    def two(layers, x):
        inner = np.log1p(np.exp(x @ layers.first.weight.T + layers.first.bias)) - math.log(2)
        return inner @ layers.second.weight.T + layers.second.bias

    x = np.asarray(net.atom_embedding)[[6, 8]]
    taper = (1 + math.cos(math.pi * r / 4.5)) / 2
    message = (x[::-1] @ layer.inner.T) * two(layer.filter, basis) * taper
    wanted = two(net.readout, x + two(layer.outer, message)).sum()
    np.testing.assert_allclose(net.energy(batch, near)[0], wanted, rtol=2e-4)
    assert shifted_softplus(jnp.zeros(())) == 0


def test_painn_tells_apart_what_distances_cannot():
    """Two carbon environments with equal distances to their neighbours and other angles; hydrogens beyond each other's reach."""
    from ase import Atoms

    def star(angle):
        return Atoms("CHH", [[0, 0, 0], [1.0, 0, 0], [math.cos(angle), math.sin(angle), 0]])

    with jax.enable_x64(True):
        for kind, differs in ((SchNet, False), (PaiNN, True)):
            net = kind(MessageConfig(width=16, interactions=1, basis=16, cutoff=1.2), 0)
            batches = [batch_atoms([star(angle)]) for angle in (1.6, 2.6)]
            first, second = (float(net.energy(batch, net.neighbours(batch))[0]) for batch in batches)
            assert (abs(first - second) > 1e-9) == differs


def test_the_loss_and_the_errors_are_those_of_the_formulas(monkeypatch):
    """Two structures of two and three atoms with labels and answers drawn at random; all means by hand."""
    rng = np.random.default_rng(0)
    made = [
        labelled(molecule(name), float(k), rng.standard_normal((k, 3)), rng.standard_normal(6))
        for name, k in (("CO", 2), ("H2O", 3))
    ]
    batch = batch_atoms(made, atoms=7, count=3)
    said = Prediction(*(rng.standard_normal(shape).astype(np.float32) for shape in ((4,), (7, 3), (4, 3, 3))))
    off_energy, off_forces, off_stress = (
        np.asarray(one, float) - np.asarray(getattr(batch, name), float) for name, one in zip(said._fields, said, strict=True)
    )
    energy, atoms = np.abs(off_energy[:2]) / [2, 3], [off_forces[:2], off_forces[2:5]]
    lengths = [np.linalg.norm(each, axis=1) for each in atoms]
    for squared in (False, True):
        power = 2 if squared else 1
        parts = [
            np.mean((energy / 1.7) ** power), np.mean([np.mean((each / 1.7) ** power) for each in lengths]),
            np.mean((np.linalg.norm(off_stress[:2].reshape(2, 9), axis=1) / 1.7) ** power),
        ]  # fmt: skip
        for weights in ((0.5, 3.0, 2.0), (2.0, 0.0, 0.0), (0.0, 1.0, 0.0)):
            settings = Training(energy_weight=weights[0], force_weight=weights[1], stress_weight=weights[2], squared=squared)
            found = label_error(settings, ScaledPotential(LennardJones(), scale=1.7), batch, jax.tree.map(jnp.asarray, said))
            assert float(found) == pytest.approx(np.dot(weights, parts), rel=1e-5)
    data = LabelledSet([labelled(bulk("Cu"), 0.0, np.zeros((1, 3)), np.zeros(6))], LennardJones(), stress=True)
    monkeypatch.setattr("broadsheet.atoms.training.predictions", lambda *given, **options: [(batch, said)])
    found, known = evaluate(LennardJones(), data), [np.asarray(each.get_forces()) for each in made]
    assert found.energy_mae == pytest.approx(1e3 * energy.mean(), rel=1e-5)
    assert found.force_mae == pytest.approx(1e3 * np.abs(off_forces[:5]).mean(), rel=1e-5)
    assert found.force_rmse == pytest.approx(1e3 * np.mean([np.sqrt(np.mean(each**2)) for each in lengths]), rel=1e-5)
    ours, theirs = np.asarray(said.forces[:5], float), np.concatenate(known)
    cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert found.force_cosine == pytest.approx(cosines.mean(), rel=1e-5)
    assert found.stress_mae == pytest.approx(1e3 * np.abs(off_stress[:2]).mean(), rel=1e-5)
    data.stress = False
    assert np.isnan(evaluate(LennardJones(), data).stress_mae)


def test_batches_of_a_set_take_each_structure_once_a_round():
    pairs = [
        labelled(Atoms(f"H{n}", [[0, 0, 2.0 * k] for k in range(n)]), 100.0 * n, np.zeros((n, 3))) for n in (2, 3, 4, 5, 9)
    ]
    data = LabelledSet(pairs, LennardJones())
    stream = data.stream(2, 0)
    rounds = [np.concatenate([np.asarray(next(stream)[0].energy)[0, :2] for _ in range(2)]) for _ in range(6)]
    assert all(len({*each}) == 4 and {*each} <= {200, 300, 400, 500, 900} for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    shared = next(data.stream(4, 0, 2))[0]
    assert shared.energy.shape == (2, 3)
    assert np.concatenate(shared.energy[:, :2]).tolist() == rounds[0].tolist()  # the same draw, dealt out
    assert (data.room(1), data.room(2), data.room(5)) == (16, 16, 24)
    parts = list(data.all(2))
    assert [int(batch.graph_mask.sum()) for batch, _ in parts] == [2, 2, 1]
    assert {batch.positions.shape for batch, _ in parts} == {(16, 3)}
    for size, shards in ((6, 1), (3, 2)):
        with pytest.raises(InputError, match="not more than there are, and even"):
            next(data.stream(size, 0, shards))


def test_settings_of_a_saved_potential_at_their_limits(tmp_path):
    potential = ScaledPotential(build("pairnet", 0, width=2, basis=2))
    path = save_potential(potential, tmp_path / "p.safetensors")
    arrays = load_arrays(path)
    assert read_header(path)["note"] == {}

    def written(more=None, **change):
        note = read_header(path)
        note |= {name: value for name, value in change.items() if name != "config"}
        note["config"] |= change.get("config", {})
        save_file({**arrays, **(more or {})}, tmp_path / "x.safetensors", {"broadsheet": json.dumps(note)})
        return tmp_path / "x.safetensors"

    assert load_potential(written(scale=2)).scale == 2
    assert load_potential(written(config={"cutoff": 3})).cutoff == 3.0
    for change, words in (
        ({"scale": 0.0}, "scale cannot be used"), ({"scale": float("inf")}, "scale cannot be used"), ({"format": 2}, "format 2; format 1"),
        ({"config": {"width": 16_385}}, "width = 16385"), ({"config": {"width": True}}, "has the shape"), ({"config": {"width": 0}}, "cannot be"),
        ({"more": {"other": np.zeros(2)}}, "has other, which the model has not; 0 are missing and 1 too many"),
        ({"more": {"references": np.zeros(3)}}, "element references"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=words):
            load_potential(written(**change))
    arrays.pop("layers.0.bias")
    with pytest.raises(DataError, match=r"lacks layers\.0\.bias; 1 are missing and 0 too many"):
        load_potential(written())


def test_the_scale_is_the_root_mean_square_of_the_forces():
    made = [labelled(Atoms("H2", [[0, 0, 0], [0, 0, 1.0]]), -3.0, np.array([[0, 0, f], [0, 0, -f]])) for f in (1.0, 3.0)]
    found = scaled(build("pairnet", 0), made)
    assert float(found.scale) == pytest.approx(np.sqrt((1 + 9) / 3 / 2 * 1.0))
    assert found.references[1] == pytest.approx(-1.5)
    assert found.elements == [1]
