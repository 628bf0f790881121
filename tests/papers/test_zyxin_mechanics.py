"""The paper's own: its manufactured solution, its loader of movies, and forces that are balanced without mechanics."""

import jax
import numpy as np
import pytest

from broadsheet.errors import DataError, MissingDataError
from broadsheet.matter import SyntheticCells
from broadsheet.matter.traction_errors import net_force
from broadsheet.matter.traction_files import write_frame
from broadsheet.papers.zyxin_mechanics import Gallery, _data, balanced, manufactured_error


def test_second_order():
    with jax.enable_x64(True):
        coarse, fine = manufactured_error(6), manufactured_error(12)
    assert 1.8 < np.log2(coarse / fine) < 2.2


def test_balanced():
    cells = SyntheticCells(0, size=48, h=64 / 48).sample(2)
    force = np.random.default_rng(0).normal(size=cells.force.shape)
    made = balanced(force, cells.mask)
    assert net_force(made).max() < 1e-12
    assert not made[np.broadcast_to(~cells.mask[:, None], made.shape)].any()


def test_movies(tmp_path):
    config = {"source": "movies", "shrink": 2}
    with pytest.raises(MissingDataError, match="raw movies"):
        _data(Gallery(**config), 0)
    cells = SyntheticCells(0, size=48, h=64 / 48).sample(3)
    for k in range(3):
        write_frame(tmp_path / f"cell_{k}" / "frame_0.npy", force=cells.force[k], mask=cells.mask[k], zyxin=100 + 50 * cells.zyxin[k],
                    protein=cells.actin[k])  # fmt: skip
        if k == 0:
            with pytest.raises(DataError, match="two at least"):
                _data(Gallery(**config, data=str(tmp_path)), 0)
    train, test = _data(Gallery(**config, data=str(tmp_path)), 0)
    assert train.zyxin.shape == (2, 24, 24)
    expected = cells.force[0].reshape(2, 24, 2, 24, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(test.true_force[0], expected, atol=1e-5)
