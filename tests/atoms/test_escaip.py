"""EScAIP against the authors' program, its files, and training."""

from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk, molecule

from broadsheet.atoms.fairchem import from_fairchem, to_fairchem
from broadsheet.atoms.potentials.escaip import SMALL, EScAIP, EScAIPConfig, log_envelope, soft_rank
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
