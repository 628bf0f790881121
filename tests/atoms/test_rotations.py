import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation
from scipy.stats import kstest

from broadsheet.atoms import (
    LennardJones,
    PaiNN,
    batch_atoms,
    energy_forces_stress,
    equivariance_report,
    label,
    random_rotations,
)
from broadsheet.atoms.latent_equivariance import LatentEquivariance, RotationLoss, fit_map, latent_report, turned_features
from broadsheet.atoms.message_passing import MessageConfig
from broadsheet.atoms.potential import Potential, compiled_predict
from broadsheet.atoms.potentials.transip import AtomTransformer, TransformerConfig
from broadsheet.atoms.rotations import (
    RotationAverage,
    doubled,
    joined,
    randomly_turned,
    rotated,
    rotation_matrices,
    rotations_from,
)
from broadsheet.atoms.training import LabelledSet, Training
from broadsheet.errors import InputError
from broadsheet.numerics import generator

SMALL = TransformerConfig(width=16, blocks=1, heads=2, octaves=1)


def test_matrices_of_quaternions_are_scipys():
    q = np.random.default_rng(0).standard_normal((50, 4))
    wanted = Rotation.from_quat(q[:, [1, 2, 3, 0]]).as_matrix()
    np.testing.assert_allclose(rotation_matrices(jnp.asarray(q)), wanted, atol=1e-5)


def test_random_rotations_have_the_angles_of_the_haar_measure():
    turns = np.asarray(random_rotations(jax.random.key(0), 4000), float)
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-5)
    angles = np.arccos(np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert kstest(angles, lambda angle: (angle - np.sin(angle)) / np.pi).pvalue > 0.01
    axes = turns[:, :, 2]  # where the z axis goes: evenly over the sphere
    assert kstest(axes[:, 2], "uniform", (-1, 2)).pvalue > 0.01


def test_rotated_labels_are_those_of_the_rotated_crystal():
    made = bulk("Cu", cubic=True).repeat(2)
    made.rattle(0.1, rng=np.random.default_rng(1))
    potential = LennardJones(sigma=2.2, epsilon=0.4, cutoff=5.0)
    with jax.enable_x64(True):
        batch = batch_atoms([made, made])
        near = potential.neighbours(batch)
        look = eqx.filter_jit(energy_forces_stress)
        found = look(potential, batch, near)
        labels = (found.energy, found.forces, found.stress)
        batch = eqx.tree_at(lambda b: (b.energy, b.forces, b.stress), batch, labels, is_leaf=lambda leaf: leaf is None)
        turned = jax.jit(rotated)(batch, random_rotations(jax.random.key(2), batch.structures))
        after = look(potential, turned, near)
        np.testing.assert_allclose(after.energy, turned.energy, rtol=1e-10)
        np.testing.assert_allclose(after.forces, turned.forces, atol=1e-10)
        np.testing.assert_allclose(after.stress, turned.stress, atol=1e-12)
        assert np.abs(after.forces - found.forces).max() > 0.1


def test_two_batches_in_one_answer_as_each():
    structures = [molecule(name) for name in ("H2O", "CH3OH")]
    net = PaiNN(MessageConfig(width=8, interactions=1, basis=8), 0)
    batch = batch_atoms(structures)
    other = jax.jit(rotated)(batch, random_rotations(jax.random.key(1), batch.structures))
    near = net.neighbours(batch)
    look = eqx.filter_jit(net.energy_and_forces)
    both = look(jax.jit(joined)(batch, other), jax.jit(doubled)(near))
    for part, given in enumerate((batch, other)):
        alone = look(given, near)
        np.testing.assert_allclose(np.split(both.energy, 2)[part], alone.energy, rtol=1e-5)
        np.testing.assert_allclose(np.split(both.forces, 2)[part], alone.forces, atol=1e-5)


def test_the_report_tells_what_follows_rotations():
    batch = batch_atoms([molecule("CH3OH"), molecule("H2O")])
    for net, direct, low, high in (
        (PaiNN(MessageConfig(width=8, interactions=1, basis=8), 0), False, 0, 1e-4),
        (AtomTransformer(SMALL, 0), True, 0.1, 10),
    ):
        found = equivariance_report(net, batch, net.neighbours(batch), jax.random.key(0), direct=direct)
        assert low <= found.forces < high
        assert (found.energy > 1) == direct


def test_the_average_over_rotations_follows_them_better():
    net, batch = AtomTransformer(SMALL, 0), batch_atoms([molecule("CH3OH"), molecule("H2O")])
    near, errors = net.neighbours(batch), []
    for potential in (net, RotationAverage(net, 64, jax.random.key(1))):
        errors.append(equivariance_report(potential, batch, near, jax.random.key(2), direct=True))
        forces = compiled_predict(potential, batch, near, False, True).forces
        np.testing.assert_allclose(batch.sum_atoms(forces), 0, atol=1e-4)
    assert errors[1].energy < errors[0].energy / 3
    average = RotationAverage(net, 3, jax.random.key(1))
    gradient = jax.jit(jax.grad(lambda x: average.energy(eqx.tree_at(lambda b: b.positions, batch, x), near)[:2].sum()))
    forces = compiled_predict(average, batch, near, False, False).forces
    np.testing.assert_allclose(forces, -gradient(batch.positions), atol=1e-4)


def test_turned_molecules_keep_energies_and_turn_forces():
    frame = molecule("H2O")
    frame.positions += 5 + 0.05 * np.random.default_rng(0).standard_normal((3, 3))
    (before,) = label([frame])
    (after,) = randomly_turned([before], np.random.default_rng(1))
    (again,) = label([after])
    np.testing.assert_allclose(after.get_potential_energy(), again.get_potential_energy(), atol=1e-6)
    np.testing.assert_allclose(after.get_forces(), again.get_forces(), atol=1e-4)
    np.testing.assert_allclose(after.positions.mean(axis=0), frame.positions.mean(axis=0))
    before.pbc = True
    with pytest.raises(InputError, match="without periodic"):
        randomly_turned([before], np.random.default_rng(1))


def test_a_map_is_fitted_to_features_as_they_are():
    structures = label([molecule("H2O"), molecule("NH3"), molecule("CH4")])
    net = AtomTransformer(SMALL, 0)
    data, settings = LabelledSet(structures, net), Training(steps=150, batch=3, learning_rate=1e-2)
    fitted = fit_map(net, data, LatentEquivariance(kind="mse"), settings, jax.random.key(1))
    for before, after in zip(
        *(jax.tree.leaves(eqx.tree_at(lambda n: n.rotation_map, one, None)) for one in (net, fitted)), strict=True
    ):
        np.testing.assert_array_equal(before, after)  # the network itself stays
    batch = batch_atoms(structures)
    first, last = (latent_report(one, batch, net.neighbours(batch), jax.random.key(2)) for one in (net, fitted))
    assert first.ratio == pytest.approx(1, abs=0.05)  # it begins as the identity
    assert last.ratio < 0.9
    assert last.shuffled.mean() > 1.02


def test_features_that_collapse_are_told():
    batch = batch_atoms([molecule("CH3OH"), molecule("H2O")])
    net = AtomTransformer(SMALL, 0)
    before = latent_report(net, batch, net.neighbours(batch), jax.random.key(0), 2)
    assert before.spread > 0
    with pytest.warns(UserWarning, match="collapse"):
        latent_report(net, batch, net.neighbours(batch), jax.random.key(0), 2, before=before._replace(spread=5 * before.spread))


class Falling(Potential):
    """An energy that grows with height: its answers turn with nothing."""

    cutoff: float = eqx.field(static=True, default=1.0)

    def energy(self, batch, neighbours):
        """The heights of all atoms together."""
        return batch.sum_atoms(jnp.asarray(batch.positions)[:, 2])


def test_a_report_on_rotations_of_what_knows_where_down_is():
    """Of one atom 3 Å from the origin the height is even over ±3 Å; a force and the same turned are 4/3 of their size apart."""
    batch = batch_atoms([Atoms("H", [[0, 0, 3.0]]), Atoms("H2", [[0, 0, 3.0], [0, 0, -1.0]])])
    fall = Falling()
    found = equivariance_report(fall, batch, fall.neighbours(batch), jax.random.key(0), rotations=500)
    assert found.forces == pytest.approx(4 / 3, rel=0.05)
    assert found.energy == pytest.approx(1000 * (3 + 2 / 2) / np.sqrt(3) / 2, rel=0.05)
    with pytest.raises(InputError, match="at least one rotation"):
        RotationAverage(fall, 0, jax.random.key(0))
    assert RotationAverage(fall, 1, jax.random.key(0)).matrices.shape == (1, 3, 3)


def test_a_target_that_is_held_has_no_slope():
    net, batch = AtomTransformer(SMALL, 0), batch_atoms([molecule("H2O")])
    turns = random_rotations(jax.random.key(0), batch.structures)
    h, target = jax.random.normal(jax.random.key(1), (2, 8, 16))
    for hold in (False, True):
        loss = RotationLoss(Training(), LatentEquivariance(kind="mse", hold=hold))
        slopes = jax.jit(jax.grad(lambda h, target, loss=loss: loss.objective(net, batch, h, target, turns), (0, 1)))(h, target)
        assert np.asarray(slopes[0][:3]).all()
        assert np.asarray(slopes[1][:3]).any() is not hold
        assert not np.asarray(slopes[0][3:]).any()  # rows of padding


def test_a_report_on_features_by_hand():
    """With a map that turns vectors, all lengths from features of structures that are turned as positions."""
    net = AtomTransformer(TransformerConfig(width=16, blocks=1, heads=2, octaves=1, map="linear"), 0)
    batch, key = batch_atoms([molecule("CH3OH"), molecule("H2O")]), jax.random.key(3)
    near, real = net.neighbours(batch), np.asarray(batch.node_mask)
    found = latent_report(net, batch, near, key, 5)
    rng = generator(key)
    turns, more = (rotations_from(rng, batch.structures) for _ in range(2))
    own = turns[np.asarray(batch.graph)]
    turned = eqx.tree_at(lambda b: b.positions, batch, np.einsum("nij,nj->ni", own, batch.positions).astype(np.float32))
    h, target = (turned_features(net, each, near) for each in (batch, turned))
    mapped = np.asarray(net.rotation_map(jnp.asarray(h), jnp.asarray(own, jnp.float32)))

    def length(rows):
        return np.sqrt((rows[real] ** 2).sum(axis=1).mean())

    assert found.mapped == pytest.approx(length(target - mapped) / length(target), rel=1e-4)
    assert found.still == pytest.approx(length(target - h) / length(target), rel=1e-4)
    assert found.ratio == pytest.approx(found.mapped / found.still, rel=1e-4)
    assert found.group < 1e-4  # maps of rotations, one after the other, are the map of both
    assert found.spread == pytest.approx(h[real].std(axis=0).mean(), rel=1e-5)
    assert found.shuffled.shape == (5,)
    assert (found.shuffled != 1).all()  # of two structures each gets the other's rotation
    np.testing.assert_allclose(found.shuffled, found.shuffled[0], rtol=1e-4)
