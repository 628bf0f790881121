"""EScAIP against the authors' program, its files, and training."""

from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from scipy.special import eval_legendre

from broadsheet.atoms.fairchem import from_fairchem, to_fairchem
from broadsheet.atoms.potentials.escaip import (
    SMALL,
    EScAIP,
    EScAIPConfig,
    Features,
    Graph,
    LegendreAttention,
    biknn_graph,
    bond_orientational_order,
    legendre,
    log_envelope,
    soft_rank,
)
from broadsheet.atoms.structures import batch_atoms
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
    np.testing.assert_allclose(
        net.energy_and_direct_forces(batch, near).forces[:real], forces, atol=1e-5 * np.abs(forces).max()
    )
    for name, value in to_fairchem(net).items():
        np.testing.assert_array_equal(value[: len(arrays[name])], arrays[name].astype(value.dtype))
    wrapped = from_fairchem({f"module.{name}": value for name, value in arrays.items() if not name.startswith("out.")}, THEIRS)
    assert eqx.tree_equal(wrapped, net)
    arrays.pop("backbone.input_block.norm_node.weight")
    with pytest.raises(DataError, match="lacks backbone"):
        from_fairchem(arrays, THEIRS)


def test_an_overflow_is_not_silent():
    crowded = EScAIP(replace(TINY, slots=6), 0)
    batch = batch_atoms([bulk("Cu", cubic=True)])
    assert np.isnan(crowded.energy(batch, crowded.neighbours(batch))[0])


def both_forces(net, batch, near):
    """Gradient and direct forces, traced anew each time, since sizes of parts are constants."""
    return eqx.filter_jit(lambda *given: (net.energy_and_forces(*given), net.energy_and_direct_forces(*given).forces))(
        batch, near
    )


def test_atoms_in_parts_are_the_same_atoms(monkeypatch):
    net = EScAIP(replace(TINY, direct=True), 0)
    made = bulk("Cu", cubic=True).repeat((2, 2, 1))
    made.rattle(0.05, seed=0)
    batch = batch_atoms([made, molecule("CH3OH")])
    near = net.neighbours(batch)
    whole = both_forces(net, batch, near)
    monkeypatch.setattr("broadsheet.atoms.potentials.escaip.LARGE", 0)
    monkeypatch.setattr("broadsheet.atoms.potentials.escaip.PART", 7)
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


def test_sizes_that_do_not_fit():
    with pytest.raises(InputError, match="width of a head"):
        EScAIP(replace(TINY, heads=4), 0)


def test_polynomials_are_those_of_scipy():
    x = np.linspace(-1, 1, 7)
    for degrees in (1, 2, 6):
        found = legendre(jnp.asarray(x), degrees)
        assert len(found) == degrees
        np.testing.assert_allclose(found, [eval_legendre(n, x) for n in range(degrees)], atol=1e-6)


def test_order_of_bonds_by_hand():
    """Two neighbours at a right angle with weights of one and three: by the addition theorem, degree for degree."""
    directions = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]], np.float32)
    weights = np.array([[2.0, 1.0, 3.0]], np.float32)
    found = np.asarray(bond_orientational_order(directions, weights, 4))[0]
    a, b = 1 / 6, 3 / 6  # the atom itself, without a direction, counts in the degree of none alone
    wanted = [1.0, *(np.sqrt(a**2 + b**2 + 2 * a * b * eval_legendre(n, 0.0)) for n in (1, 2, 3))]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert bond_orientational_order(directions, weights).shape == (1, 10)


@pytest.mark.parametrize("kind", ["softmax", "uniform", "none"])
def test_attention_by_hand(kind):
    config = replace(TINY, width=8, heads=2, frequencies=(3, 1), attention=kind)
    layer, rng = LegendreAttention(np.random.default_rng(0), config), np.random.default_rng(1)
    message, envelope = rng.standard_normal((2, 4, 8)).astype(np.float32), -rng.random((2, 4)).astype(np.float32)
    cosine = rng.uniform(-1, 1, (2, 4, 4)).astype(np.float32)
    nothing = np.zeros((2, 4))
    graph = Graph(*(jnp.asarray(part) for part in (nothing.astype(int), nothing.astype(np.float32), np.zeros((2, 4, 3), np.float32))),
                  jnp.asarray(envelope), jnp.ones((2, 4), bool), jnp.zeros(2, bool))  # fmt: skip
    features = Features(
        jnp.zeros(2, int), jnp.zeros((2, 3)), graph, jnp.zeros((2, 4, 2)), [jnp.ones((2, 4, 4)), jnp.asarray(cosine)]
    )
    found = layer(jnp.asarray(message), features)
    q, k, v = (message @ np.asarray(part.weight).T + np.asarray(part.bias) for part in (layer.query, layer.key, layer.value))
    wanted = np.zeros((2, 4, 8))
    for atom, head in np.ndindex(2, 2):
        part = slice(4 * head, 4 * head + 4)
        logits = q[atom, :, part][:, :3] @ k[atom, :, part][:, :3].T + cosine[atom] * np.outer(
            q[atom, :, part][:, 3], k[atom, :, part][:, 3]
        )
        logits = (0 if kind == "uniform" else logits / np.sqrt(8)) + envelope[atom]  # 3 + 3 numbers, in eights
        share = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True) * np.ones((4, 4))
        wanted[atom, :, part] = v[atom, :, part] if kind == "none" else share @ v[atom, :, part]
    np.testing.assert_allclose(found, wanted @ np.asarray(layer.out.weight).T + np.asarray(layer.out.bias), atol=1e-5)


@pytest.mark.parametrize("envelope", [True, False])
def test_a_hard_graph_keeps_the_nearest_of_both_sides(envelope):
    """Atoms in a row with k = 2: an edge stays where either rank is below two and it is below the cutoff."""
    config = replace(TINY, rank="hard", nearest=2, cutoff=3.0, slots=5, envelope=envelope)
    x = np.array([0.0, 1.0, 2.1, 3.3, 4.6])
    batch = batch_atoms([Atoms("H5", [[each, 0, 0] for each in x])], atoms=8)
    graph = eqx.filter_jit(biknn_graph)(batch, EScAIP(config, 0).neighbours(batch), config)
    apart = np.abs(x[:, None] - x)
    rank = apart.argsort(axis=1).argsort(axis=1)
    e = np.max([rank / 2, rank.T / 2, apart / 3], axis=0)
    for atom in range(5):
        kept = np.asarray(graph.mask[atom])
        assert sorted(np.asarray(graph.index[atom])[kept]) == np.flatnonzero(e[atom] < 1).tolist()
        square = np.sort(e[atom][e[atom] < 1] ** 2)
        wanted = -square / (1 - square) if envelope else 0 * square
        np.testing.assert_allclose(np.sort(np.asarray(graph.log_envelope[atom])[kept])[::-1], wanted, atol=1e-5)
    assert not np.asarray(graph.overflow).any()
