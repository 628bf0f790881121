"""Fixed and slow points against roots, closed forms and plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, root

from broadsheet.dynamics.fixed_points import FlatUpdate, find_fixed_points, spectra
from broadsheet.errors import InputError
from broadsheet.networks.rates import RateRNN
from broadsheet.networks.recurrent import Recurrent


def tanh_pair(h, x):
    return jnp.tanh(jnp.array([[1.5, 0.4], [0.2, 1.3]]) @ h + x)


def test_all_roots_and_their_spectra():
    with jax.enable_x64(True):
        starts = np.random.default_rng(0).uniform(-1, 1, (60, 2))
        found = find_fixed_points(tanh_pair, starts, np.zeros(2), steps=300, tolerance=1e-10, slow=1e-6)
    w = np.array([[1.5, 0.4], [0.2, 1.3]])
    ends = [root(lambda h: np.tanh(w @ h) - h, s, tol=1e-12).x for s in starts]
    exact = {tuple(np.round(h, 6) + 0.0) for h in ends if np.abs(np.tanh(w @ h) - h).max() < 1e-9}
    assert {tuple(np.round(point, 6) + 0.0) for point in found.points} == exact
    assert len(exact) == len(found.points) >= 3
    assert found.starts.sum() + found.lost == 60
    assert found.fixed.all()
    for point, values, stable in zip(found.points, found.eigenvalues, found.stable, strict=True):
        exactly = np.linalg.eigvals((1 - np.tanh(w @ point) ** 2)[:, None] * w)
        assert np.allclose(np.sort(values.real), np.sort(exactly.real), atol=1e-8)
        assert stable == (np.abs(exactly).max() < 1)


def test_a_slow_point_is_the_ghost_of_a_pair():
    def update(h, x):  # no fixed point: h² + 0.01 never vanishes; the slowest is at 0
        return h + 0.5 * (h**2 + x)

    found = find_fixed_points(update, np.linspace(-0.3, 0.3, 8)[:, None], np.array([0.01]), steps=400, slow=0.02)
    assert not found.fixed.any()
    assert found.speeds.min() == pytest.approx(0.005, rel=1e-3)
    assert abs(found.points[0, 0]) < 0.02


def test_inputs_of_their_own_and_chunks():
    def update(h, x):
        return 0.5 * h + x

    x = np.repeat([[1.0], [2.0]], 4, axis=0)
    found = find_fixed_points(update, np.zeros((8, 1)), x, steps=200, memory=40.0)
    order = np.argsort(found.inputs[:, 0])
    assert np.allclose(found.points[order], [[2.0], [4.0]], atol=1e-4)
    assert found.starts.tolist() == [4, 4]


def test_spectra_of_rectifiers_and_flat_states():
    net = RateRNN(2, 5, 1, key=jax.random.key(0))
    h = jax.random.normal(jax.random.key(1), (4, 5))
    found = spectra(net.update, h, np.zeros(2), memory=200.0)
    w = np.asarray(net.w_rec, float)
    for one, values in zip(np.asarray(h), found, strict=True):
        exact = np.linalg.eigvals(np.diag(w @ one > 0) @ w)
        assert np.allclose(np.sort(np.abs(values)), np.sort(np.abs(exact)), atol=1e-5)
    lstm = Recurrent(2, 3, 1, key=jax.random.key(0))
    flat = FlatUpdate(lstm)
    assert flat.start().shape == (6,)
    after, ours = jax.jit(lambda x: (lstm.step((jnp.zeros(3), jnp.zeros(3)), x)[0], flat(flat.start(), x)))(
        np.ones(2, np.float32)
    )
    assert np.allclose(ours, np.concatenate(after))


def test_bistable_against_brentq():
    edge = brentq(lambda h: np.tanh(2 * h) - h, 0.5, 1.5)
    found = find_fixed_points(lambda h, x: jnp.tanh(2 * h + x), np.linspace(-1, 1, 8)[:, None], np.zeros(1), steps=300)
    assert sorted(found.points[:, 0]) == pytest.approx([-edge, 0, edge], abs=1e-4)


def test_what_is_refused():
    with pytest.raises(InputError, match="NaN or infinity"):
        find_fixed_points(tanh_pair, np.full((2, 2), np.nan), np.zeros(2))
    with pytest.raises(InputError, match="one a start"):
        find_fixed_points(tanh_pair, np.zeros((3, 2)), np.zeros((2, 2)))
