from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest

from broadsheet.atoms.files import write_structures
from broadsheet.atoms.labels import molecules
from broadsheet.atoms.motion import BOLTZMANN
from broadsheet.atoms.potential import compiled_predict, scaled
from broadsheet.atoms.potentials.escaip import EScAIP
from broadsheet.atoms.structures import batch_atoms, labelled
from broadsheet.papers.escaip import (
    TINIEST_MOLECULE,
    FreeOfNetForce,
    Molecules,
    Parameters,
    _frames,
    _split,
    enlarged,
    springs_to,
    without_choice,
)

energy = eqx.filter_jit(lambda net, batch, near: net.energy(batch, near)[0])
slopes_of = eqx.filter_jit(eqx.filter_grad(lambda net, batch, near: net.energy(batch, near)[0]))
FRAMES = [frame for group in molecules(count=6) for frame in group]


def test_enlarged_networks_have_as_many_more_parameters():
    _, sizes = enlarged(Parameters(), jax.random.key(0))
    added = [sizes[f"more-{part}"] - sizes["system"] for part in ("attention", "feed-forward", "basis")]
    assert min(added) > 0.15 * sizes["system"]
    assert max(added) < 1.25 * min(added)
    assert min(added) == added[0]  # of attention, which is claimed to gain the most


def test_zeros_beside_a_network_change_nothing_and_stay():
    config = Parameters(model=TINIEST_MOLECULE, attentions=3, multiplier=3, basis_width=40)
    nets, _ = enlarged(config, jax.random.key(0))
    batch = batch_atoms(FRAMES[:1], count=1)
    for name, change in (("system", {}), ("more-feed-forward", {"multiplier": 3}), ("more-basis", {"basis_width": 40})):
        plain = EScAIP(replace(TINIEST_MOLECULE, **change), jax.random.key(0))
        near = plain.neighbours(batch)
        np.testing.assert_allclose(energy(nets[name], batch, near), energy(plain, batch, near), rtol=1e-5, err_msg=name)
    assert abs(energy(nets["more-attention"], batch, near) - energy(nets["system"], batch, near)) > 1e-4
    slope = slopes_of(nets["system"], batch, near)
    silent, slopes = (
        [leaf for leaf in jax.tree.leaves(eqx.tree_at(lambda n: n.blocks.attention, net, None).blocks) if leaf.ndim > 2]
        for net in (nets["system"], slope)
    )  # weights alone; biases begin at zero
    assert sum(int((leaf == 0).sum()) for leaf in silent) > 1000
    assert max(np.abs(np.asarray(d)[np.asarray(leaf) == 0]).max(initial=0) for leaf, d in zip(silent, slopes, strict=True)) == 0
    assert max(np.abs(leaf[:, 1:]).max() for leaf in jax.tree.leaves(slope.blocks.attention)) == 0


def test_a_network_without_choice_is_the_uniform_one_and_stays_so():
    whole = EScAIP(TINIEST_MOLECULE, 0)
    net, uniform = without_choice(whole), EScAIP(replace(TINIEST_MOLECULE, attention="uniform"), 0)
    batch = batch_atoms(FRAMES[:1], count=1)
    near = net.neighbours(batch)
    np.testing.assert_allclose(energy(net, batch, near), energy(uniform, batch, near), rtol=1e-5)
    slope = slopes_of(net, batch, near).blocks.attention
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves((slope.query, slope.key))) == 0


def test_direct_forces_lose_their_sum_and_torque_and_nothing_else():
    net = scaled(EScAIP(replace(TINIEST_MOLECULE, direct=True), 0), FRAMES[:6])
    free = FreeOfNetForce(inner=net, cutoff=net.cutoff)
    batch = batch_atoms(FRAMES[:1], count=1)
    near = free.neighbours(batch)
    raw, found = (np.asarray(compiled_predict(each, batch, near, direct=True).forces)[:9] for each in (net, free))
    x = FRAMES[0].positions - FRAMES[0].positions.mean(axis=0)
    size = np.abs(raw).max()
    assert np.abs(raw.sum(axis=0)).max() > 0.01 * size
    np.testing.assert_allclose(found.sum(axis=0), 0, atol=1e-4 * size)
    np.testing.assert_allclose(np.cross(x, found).sum(axis=0), 0, atol=1e-3 * size)
    rigid = np.concatenate([np.eye(3)[None].repeat(9, 0), np.cross(np.eye(3)[None], x[:, None])], axis=1)  # atoms, 6, 3
    rest = (raw - found).ravel()
    basis = rigid.transpose(0, 2, 1).reshape(27, 6)
    np.testing.assert_allclose(basis @ np.linalg.lstsq(basis, rest)[0], rest, atol=1e-4 * size)


def test_unseen_molecules_are_apart_and_their_elements_are_not():
    for seed in range(3):
        parts = _split(FRAMES, 0.25, np.random.default_rng(seed))
        formulas = [{frame.get_chemical_formula() for frame in part} for part in parts]
        assert len(formulas[3]) == 2
        assert not formulas[3] & (formulas[0] | formulas[1] | formulas[2])
        assert sum(map(len, parts)) == len(FRAMES)
        elements = [{int(z) for frame in part for z in frame.numbers} for part in parts]
        assert elements[3] <= elements[0]


def test_a_file_is_drawn_from_evenly_and_no_more_is_kept_than_asked(tmp_path):
    path = write_structures(FRAMES, tmp_path / "frames.xyz")
    drawn = [
        [each.get_potential_energy() for each in _frames(Molecules(data=str(path), limit=12), np.random.default_rng(seed))]
        for seed in range(3)
    ]
    every = np.array([each.get_potential_energy() for each in FRAMES])
    assert all(len(each) == len(set(each)) == 12 for each in drawn)
    assert all(np.isclose(every, value, atol=1e-5).any() for each in drawn for value in each)
    late = [np.isclose(every[24:], value, atol=1e-5).any() for each in drawn for value in each]
    assert 0.25 < np.mean(late) < 0.75
    assert len(_frames(Molecules(data=str(path)), np.random.default_rng(0))) == len(FRAMES)


def test_springs_pull_to_their_places_with_the_constants_of_equipartition():
    from ase import Atoms

    rng, kT = np.random.default_rng(0), BOLTZMANN * 300
    wanted = {1: 20.0, 8: 50.0}
    numbers = [8, 1, 1] * 400
    k = np.array([wanted[z] for z in numbers])[:, None]
    forces = rng.normal(0, np.sqrt(k * kT), (1200, 3))  # of independent springs at 300 K
    frame = labelled(Atoms(numbers, rng.uniform(0, 9, (1200, 3))), 0.0, forces)
    springs = springs_to(FRAMES[0], [frame], 300.0)
    assert {z: springs.constants[z] for z in wanted} == pytest.approx(wanted, rel=0.1)
    moved = FRAMES[0].copy()
    moved.positions += rng.normal(0, 0.1, moved.positions.shape)
    batch = batch_atoms([moved], count=1)
    found = compiled_predict(springs, batch, springs.neighbours(batch))
    k = springs.constants[moved.numbers][:, None]
    away = moved.positions - FRAMES[0].positions
    np.testing.assert_allclose(found.forces[: len(moved)], -k * away, rtol=1e-3, atol=1e-4)
    assert float(found.energy[0]) == pytest.approx((k * away**2).sum() / 2, rel=1e-3)
