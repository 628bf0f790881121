from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation
from scipy.special import log_softmax

from broadsheet.atoms import (
    LabelledSet,
    Training,
    batch_atoms,
    load_potential,
    save_potential,
    scaled,
    train,
)
from broadsheet.atoms.latent_equivariance import (
    LatentEquivariance,
    equivalent_atoms,
    latent_contrast,
    latent_distance,
    latent_equivariance,
    latent_report,
    rotation_loss,
)
from broadsheet.atoms.message_passing import MessageConfig
from broadsheet.atoms.potentials.schnet import SchNet
from broadsheet.atoms.potentials.transip import AtomTransformer, LinearRotationMap, TransformerBlock, TransformerConfig
from broadsheet.atoms.structures import labelled
from broadsheet.atoms.training import label_loss
from broadsheet.errors import InputError

SMALL = TransformerConfig(width=16, blocks=2, heads=2, octaves=1)
STRUCTURES = [molecule(name) for name in ("CH3OH", "H2O", "NH3")]


def test_attention_that_sees_distances_knows_no_order():
    """`pair_bias` begins at zero; with any values, energies are others and the order of atoms is still nothing."""
    net = AtomTransformer(replace(SMALL, pair_bias=True), 0)
    bias = jax.random.normal(jax.random.key(0), net.blocks.bias.shape)
    seeing = eqx.tree_at(lambda net: net.blocks.bias, net, bias)
    orders = [np.random.default_rng(k).permutation(len(each)) for k, each in enumerate(STRUCTURES)]
    batch, other = (batch_atoms(made) for made in (STRUCTURES, [each[o] for each, o in zip(STRUCTURES, orders, strict=True)]))
    look = eqx.filter_jit(lambda net, batch, near: net.energy(batch, near)[:3])
    blind, first, second = (look(n, b, n.neighbours(b)) for n, b in ((net, batch), (seeing, batch), (seeing, other)))
    np.testing.assert_allclose(second, first, rtol=1e-4)
    assert jnp.abs(first - blind).min() > 1e-3


def test_a_block_is_torchs_encoder_layer():
    torch = pytest.importorskip("torch", reason="PyTorch is not here: pip install '.[language]'")
    config = TransformerConfig(width=16, blocks=1, heads=4, multiplier=2)
    block = TransformerBlock(np.random.default_rng(0), config)
    theirs = torch.nn.TransformerEncoderLayer(16, 4, 32, dropout=0, activation="gelu", batch_first=True, norm_first=True)
    weights = {
        "self_attn.in_proj_weight": block.joint.weight, "self_attn.in_proj_bias": block.joint.bias,
        "self_attn.out_proj.weight": block.out.weight, "self_attn.out_proj.bias": block.out.bias,
        "linear1.weight": block.feed_forward.up.weight, "linear1.bias": block.feed_forward.up.bias,
        "linear2.weight": block.feed_forward.down.weight, "linear2.bias": block.feed_forward.down.bias,
        "norm1.weight": block.norms[0].weight, "norm1.bias": block.norms[0].bias,
        "norm2.weight": block.norms[1].weight, "norm2.bias": block.norms[1].bias,
    }  # fmt: skip
    theirs.load_state_dict({name: torch.tensor(np.asarray(value)) for name, value in weights.items()})
    rng = np.random.default_rng(1)
    x, mask = rng.standard_normal((3, 5, 16)).astype(np.float32), np.arange(5) < np.array([[5], [3], [1]])
    with torch.no_grad():
        wanted = theirs(torch.tensor(x), src_key_padding_mask=torch.tensor(~mask)).numpy()
    np.testing.assert_allclose(block(jnp.asarray(x), jnp.asarray(mask), None)[mask], wanted[mask], atol=2e-5)


def test_charge_and_multiplicity_are_seen_within_limits():
    made = [molecule("CH3") for _ in range(3)]
    made[1].info["charge"], made[2].info["spin"] = 1, 2
    net, batch = AtomTransformer(SMALL, 0), batch_atoms(made)
    energy = np.asarray(eqx.filter_jit(net.energy)(batch, net.neighbours(batch)))[:3]
    assert len(set(energy.round(4))) == 3
    made[0].info["charge"] = 20
    with pytest.raises(InputError, match="charges"):
        net.neighbours(batch_atoms(made))
    made[0].info["charge"], made[1].info["charge"] = 0, 0.5
    with pytest.raises(InputError, match=r"structure 1 has the charge 0\.5"):
        net.neighbours(batch_atoms(made))
    made[1].info["charge"] = 0
    made[1].positions[3] = made[1].positions[2] + 0.01
    with pytest.raises(InputError, match="Atoms 2 and 3 of structure 1 overlap"):
        net.neighbours(batch_atoms(made))
    with pytest.raises(InputError, match="periodic"):
        net.neighbours(batch_atoms([bulk("Cu")]))
    with pytest.raises(InputError, match="fit"):
        net.neighbours(batch, width=2)
    for wrong in (replace(SMALL, heads=3), replace(SMALL, wavelength=0.0)):
        with pytest.raises(InputError):
            AtomTransformer(wrong, 0)
    still = AtomTransformer(replace(SMALL, direct=False), 0)
    with pytest.raises(InputError, match="head"):
        still.energy_and_direct_forces(batch, still.neighbours(batch))


def test_the_linear_map_is_a_group_of_orthogonal_maps():
    made = LinearRotationMap(np.random.default_rng(0), 32)
    turns = jnp.asarray(Rotation.random(2, random_state=0).as_matrix())
    with jax.enable_x64(True):
        made = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), made)
        h = jnp.asarray(np.random.default_rng(1).standard_normal((2, 32)))
        first, second = (jnp.broadcast_to(jnp.asarray(np.asarray(turn, np.float64)), (2, 3, 3)) for turn in turns)
        np.testing.assert_allclose(made(made(h, first), second), made(h, second @ first), atol=1e-6)
        np.testing.assert_allclose(made(h, jnp.broadcast_to(jnp.eye(3), (2, 3, 3))), h, atol=1e-12)
        np.testing.assert_allclose(jnp.linalg.norm(made(h, first)), jnp.linalg.norm(h), rtol=1e-6)
        assert jnp.abs(made(h, first) - h).max() > 0.1


def test_objectives_have_their_closed_forms():
    batch = batch_atoms(STRUCTURES)
    net, near = AtomTransformer(SMALL, 0), AtomTransformer(SMALL, 0).neighbours(batch)
    h, mask = eqx.filter_jit(net.embed)(batch, near), jnp.asarray(batch.node_mask)
    assert latent_distance(h, h, mask) == 0
    assert latent_distance(h + mask[:, None] * 2, h, mask) == pytest.approx(4, rel=1e-5)
    same = jnp.ones_like(h)  # every target is as likely: log of how many are counted
    groups = np.asarray(equivalent_atoms(batch)).sum(axis=1)[:13]
    assert sorted(groups.tolist()) == sorted([1, 1, 1, 1, 2, 2, 1, 2, 2, 1, 3, 3, 3])  # methanol (Cs), water, ammonia
    wanted = np.mean(np.log(13 - groups + 1))
    assert latent_contrast(same, same, batch, 0.1) == pytest.approx(wanted, rel=1e-5)
    said, target = np.random.default_rng(0).standard_normal((2, *h.shape)).astype(np.float32)
    said[:13] += target[:13]
    unit, other = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (said, target))
    counted = np.eye(13, dtype=bool) | ~np.asarray(equivalent_atoms(batch))[:13, :13]
    logits = np.where(counted, (unit @ other.T)[:13, :13] / 0.1, -np.inf)
    wanted = -np.mean(np.diag(log_softmax(logits, axis=1)))
    assert latent_contrast(jnp.asarray(said), jnp.asarray(target), batch, 0.1) == pytest.approx(wanted, rel=1e-5)


def test_the_map_begins_as_the_identity_and_the_report_sees_it():
    batch = batch_atoms(STRUCTURES)
    net = AtomTransformer(SMALL, 0)
    found = latent_report(net, batch, net.neighbours(batch), jax.random.key(0))
    assert found.ratio == pytest.approx(1)
    assert found.group == 0
    np.testing.assert_allclose(found.shuffled, 1, rtol=1e-5)
    taught = AtomTransformer(replace(SMALL, map_scale=1.0), 0)
    found = latent_report(taught, batch, net.neighbours(batch), jax.random.key(0))
    assert found.group > 0.1
    assert np.ptp(found.shuffled) > 0
    assert found.mapped / found.still == pytest.approx(found.ratio)  # both in units of the features' size
    assert 0 < found.still < 2  # no further apart than vectors of that length can be


def _frames(count):
    """Molecules on springs to where they are: forces that learn quickly."""
    rng, found = np.random.default_rng(0), []
    for k in range(count):
        made = molecule(("CH3OH", "H2O", "NH3")[k % 3])
        shift = 0.1 * rng.standard_normal(made.positions.shape)
        made.positions += shift
        found.append(labelled(made, float(0.5 * np.sum(shift**2)), -shift))
    return found


def test_without_rotations_the_loss_is_that_of_the_labels():
    potential = scaled(AtomTransformer(SMALL, 0), _frames(6))
    batch, near = LabelledSet(_frames(6), potential).batch(np.arange(6))
    for direct in (True, False):
        settings = Training(direct=direct)
        wanted = eqx.filter_jit(label_loss(settings))(potential, batch, near, jax.random.key(0))
        for weight in (0.0, 2.0):  # the map is the identity yet, and both copies are the same
            loss = eqx.filter_jit(rotation_loss(settings, LatentEquivariance(weight, "mse", rotate=False)))
            assert loss(potential, batch, near, jax.random.key(0)) == pytest.approx(float(wanted), rel=1e-4)
        aim = LatentEquivariance(2.0, rotate=False, mapped=False)
        h = potential.network.embed(batch, near)
        contrast = latent_contrast(h, h, batch, aim.temperature)
        loss = rotation_loss(settings, aim)
        assert loss(potential, batch, near, jax.random.key(0)) == pytest.approx(float(wanted + 2 * contrast), rel=1e-4)
        other = rotation_loss(settings, LatentEquivariance(0.0, "mse"))
        assert jax.tree.structure(loss) == jax.tree.structure(other)  # one program for both
    with pytest.raises(InputError, match="temperature"):
        rotation_loss(Training(), LatentEquivariance(temperature=0.0))
    other = scaled(SchNet(MessageConfig(width=16, interactions=1, basis=8), 0), _frames(6))
    batch, near = LabelledSet(_frames(6), other).batch(np.arange(6))
    with pytest.raises(InputError, match="the network is of SchNet"):
        rotation_loss(Training(), LatentEquivariance())(other, batch, near, jax.random.key(0))


@pytest.mark.parametrize("kind", ["mse", "infonce"])
def test_training_lowers_the_second_objective_and_the_file_keeps_all(kind, tmp_path):
    potential = scaled(AtomTransformer(SMALL, 0), _frames(12))
    data = LabelledSet(_frames(12), potential)
    settings = Training(steps=40, batch=6, learning_rate=1e-2, direct=True, evaluate=20, average=0.0)
    aim = LatentEquivariance(10.0, kind)
    seen = []
    found = train(
        potential, data, data, settings, jax.random.key(0), loss=rotation_loss(settings, aim),
        observe=lambda step, model: seen.append(step),
    ).potential  # fmt: skip
    assert seen == [20, 40]
    batch, near = data.batch(np.arange(6))
    objective = eqx.filter_jit(latent_equivariance)
    before, after = (
        objective(model.network, batch, near, jax.random.key(1), aim) for model in (potential, found)
    )  # fmt: skip
    assert after < before
    again = load_potential(save_potential(found, tmp_path / "potential.safetensors"))
    np.testing.assert_array_equal(again.energy(batch, near), found.energy(batch, near))
    assert eqx.tree_equal(again.network.rotation_map, found.network.rotation_map)
