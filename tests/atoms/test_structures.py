"""Batches and neighbour lists, against ASE's."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

from broadsheet.atoms.neighbours import displacements, neighbour_list
from broadsheet.atoms.structures import batch_atoms, bucket, energies_of, forces_of, labelled
from broadsheet.errors import DataError, InputError


def rattled(structure, amount=0.1):
    structure.rattle(amount, seed=1)
    return structure


CASES = {
    "open": rattled(molecule("C6H6")),
    "crystal": rattled(bulk("Cu", cubic=True)),
    "slab": Atoms(rattled(bulk("Cu", cubic=True)), pbc=[True, True, False]),
    "wire": Atoms(rattled(bulk("Cu", cubic=True)), pbc=[False, False, True]),
    "skewed": rattled(bulk("NaCl", "rocksalt", a=5.6)),
}


@pytest.mark.parametrize("name", CASES)
def test_neighbours_are_those_of_ase(name):
    structure = CASES[name]
    i, j, d = neighbor_list("ijd", structure, 5.0)
    batch = batch_atoms([molecule("H2O"), structure])
    near = neighbour_list(batch, 5.0, reverse=True)
    length = np.linalg.norm(np.asarray(displacements(batch, near), float), axis=2)
    for atom in range(len(structure)):
        real = near.mask[atom + 3]
        assert sorted(near.index[atom + 3][real] - 3) == sorted(j[i == atom])
        np.testing.assert_allclose(length[atom + 3][real], np.sort(d[i == atom]), atol=1e-5)
    here = np.argwhere(near.mask)
    back = near.index[near.index[here[:, 0], here[:, 1]], near.reverse[here[:, 0], here[:, 1]]]
    assert (back == here[:, 0]).all()
    other = length[near.index[here[:, 0], here[:, 1]], near.reverse[here[:, 0], here[:, 1]]]
    np.testing.assert_allclose(other, length[here[:, 0], here[:, 1]], atol=1e-5)


def test_neighbours_need_no_pytorch_and_leave_it_to_others():
    pytest.importorskip("torch", reason="PyTorch is not here: pip install '.[language]'")
    code = """
import sys, numpy as np
from broadsheet.atoms.neighbours import pairs
i, j, shifts, distances = pairs(np.array([[0.0, 0, 0], [0, 0, 2]]), np.zeros((3, 3)), np.zeros(3, bool), 3.0)
assert sorted(zip(i, j)) == [(0, 1), (1, 0)] and set(distances) == {2.0}
assert "torch" not in sys.modules
import torch, vesin
found = vesin.NeighborList(cutoff=3.0, full_list=True).compute(
    points=torch.tensor([[0.0, 0, 0], [0, 0, 2]], dtype=torch.float64), box=torch.zeros((3, 3), dtype=torch.float64),
    periodic=False, quantities="d")
assert isinstance(found[0], torch.Tensor)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


def test_a_batch_keeps_labels_and_masks():
    one = labelled(molecule("H2O"), -1.0, np.ones((3, 3)))
    batch = batch_atoms([one, labelled(molecule("CO"), -2.0, np.zeros((2, 3)))])
    assert batch.node_mask.sum() == 5
    assert batch.graph_mask.sum() == 2
    assert batch.energy[:2].tolist() == [-1, -2]
    assert batch.forces[:5].sum() == 9
    assert batch.stress is None
    np.testing.assert_array_equal(np.asarray(batch.sum_atoms(jnp.asarray(batch.numbers, float)))[:2], [10, 14])


def test_few_sizes():
    sizes = {bucket(n) for n in range(1, 10_000)}
    assert len(sizes) < 120
    assert all(bucket(n) >= n for n in range(1, 10_000))


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        (Atoms("H", [[np.nan, 0, 0]]), "not finite"),
        (Atoms(), "no atoms"),
        (Atoms("H", pbc=True), "lattice vector"),
        (Atoms("X", [[0, 0, 0]]), "no element"),
        (Atoms("H", masses=[np.inf]), "mass"),
        (Atoms("H", masses=[-1.0]), "mass"),
        (Atoms("H", info={"charge": "minus one"}), "structure 0 has charge=minus one; a number is wanted"),
        (Atoms("H", info={"spin": np.nan}), "structure 0 has spin=nan"),
    ],
)
def test_bad_structures(structure, words):
    with pytest.raises(InputError, match=words):
        batch_atoms([structure])


def test_bad_neighbourhoods():
    batch = batch_atoms([Atoms("H2", [[0, 0, 0], [0, 0, 0.01]])])
    with pytest.raises(InputError, match="overlap"):
        neighbour_list(batch, 3.0)
    batch = batch_atoms([bulk("Cu", cubic=True)])
    with pytest.raises(InputError, match="neighbours within"):
        neighbour_list(batch, 5.0, width=8)
    with pytest.raises(InputError, match="cutoff"):
        neighbour_list(batch, 0.0)
    with pytest.raises(InputError, match="no structures"):
        batch_atoms([])
    with pytest.raises(InputError, match="do not fit"):
        batch_atoms([molecule("C6H6")], atoms=4)


def test_missing_labels():
    with pytest.raises(DataError, match="structure 1 has no energy"):
        energies_of([labelled(molecule("H2O"), 0.0), molecule("H2O")])
    with pytest.raises(DataError, match="structure 0 has no forces"):
        forces_of([molecule("H2O")])
