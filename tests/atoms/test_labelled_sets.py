import numpy as np
import pytest
from ase.build import molecule

from broadsheet.atoms.labelled_sets import EvenSet, StreamedSet
from broadsheet.atoms.message_passing import MessageConfig
from broadsheet.atoms.potential import scaled
from broadsheet.atoms.potentials.schnet import SchNet
from broadsheet.atoms.training import LabelledSet
from broadsheet.atoms.trajectories import make_trajectories, rattled

CONFIG = MessageConfig(width=4, interactions=1, basis=4)


@pytest.fixture(scope="module")
def data():
    names = ("CH4", "C2H6", "NH3")
    return make_trajectories({name: molecule(name) for name in names}, (("gfn2", 0.05),), copies=2)


def test_streamed_batches_are_those_that_are_kept(data):
    potential = scaled(SchNet(CONFIG, 0), data.frames())
    kept, streamed = LabelledSet(data.frames(), potential), StreamedSet(data, potential)
    assert len(streamed) == len(kept)
    assert streamed.width == kept.width
    for (a, near), (b, close) in zip(kept.all(8), streamed.all(8), strict=True):
        for name in ("positions", "numbers", "energy", "forces", "graph", "node_mask", "graph_mask"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), err_msg=name)
        real = a.node_mask
        np.testing.assert_array_equal(near.mask[real], close.mask[real])
        rows = [np.sort(np.where(part.mask, part.index, -1)[real], axis=1) for part in (near, close)]
        np.testing.assert_array_equal(*rows)


def test_rattled_frames_have_labels_of_their_own_and_no_more_noise_than_asked(data):
    ends = data.take(data.ends())
    made = rattled(ends, 3, 0.1)
    assert len(made) == 4 * len(ends)
    np.testing.assert_allclose(made.energy[::4], ends.energy, atol=1e-5)
    assert (made.energy[1::4] > ends.energy).all()  # a minimum is the lowest
    moved = np.abs(made.positions - np.concatenate([ends.frame(k).positions for k in range(len(ends)) for _ in range(4)]))
    assert 0 < moved.max() < 0.5


def test_a_split_by_trajectory_parts_no_trajectory(data):
    parts = data.split((0.5, 0.5), np.random.default_rng(0), "trajectory")
    assert not set(parts[0].trajectory) & set(parts[1].trajectory)
    assert set(parts[0].molecule) & set(parts[1].molecule)


def test_even_batches_hold_the_same_and_have_one_shape_for_all_sets(data):
    potential = scaled(SchNet(CONFIG, 0), data.frames())
    shapes = set()
    for part in (data.frames(range(8)), data.frames(range(len(data) - 8, len(data))), data.frames()):
        plain, even = LabelledSet(part, potential), EvenSet(part, potential)
        (a, near), (b, close) = plain.batch(np.arange(8)), even.batch(np.arange(8))
        shapes.add((b.positions.shape, close.index.shape))
        real = a.node_mask.sum()
        np.testing.assert_array_equal(a.positions[:real], b.positions[:real])
        rows = [np.sort(np.where(each.mask, each.index, -1)[:real], axis=1)[:, ::-1][:, : near.width] for each in (near, close)]
        np.testing.assert_array_equal(*rows)
        energies = [potential.energy(*pair)[:8] for pair in ((a, near), (b, close))]
        np.testing.assert_allclose(*energies, rtol=1e-5)
    assert len(shapes) <= 2  # steps of four atoms: ammonia has four, ethane eight
