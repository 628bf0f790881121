"""Fixed and slow points against roots, closed forms and plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import brentq, root

from broadsheet.dynamics.fixed_points import FlatUpdate, find_fixed_points, spectra
from broadsheet.dynamics.phases import Kuramoto
from broadsheet.dynamics.rollout import initial_state
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


def standing(h, x):
    """Moves by x a step, wherever it is: the speed is |x|, and nothing makes it smaller."""
    return h + x


def test_points_are_fixed_or_slow_or_merged_as_it_comes_by_their_share_of_one_and_their_size():
    """A speed up to 1e-5 (1 + |h|) is fixed, up to 0.02 (1 + |h|) slow; points nearer than 0.01 (1 + |h|) are one."""
    starts = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.009, 2.5, -2.0]
    moves = [9e-6, 1.1e-5, 0.0199, 0.0201, 1.9e-5, 0.039, 0.041, 1e-3, 1e-3, 1e-3, 2e-3]
    shares = []
    found = find_fixed_points(
        standing, np.array(starts)[:, None], np.array(moves)[:, None], newton=0, memory=48.0, report=shares.append
    )
    kept = [0, 1, 4, 7, 9, 10, 2, 5]  # the slowest first; of equal ones the first
    assert found.points[:, 0].tolist() == pytest.approx([starts[k] for k in kept], abs=1e-6)
    assert found.inputs[:, 0].tolist() == pytest.approx([moves[k] for k in kept], rel=1e-6)
    np.testing.assert_allclose(found.speeds, [moves[k] for k in kept], rtol=5e-3)
    assert found.fixed.tolist() == [True, False, True] + [False] * 5
    assert found.starts.tolist() == [1, 1, 1, 2, 1, 1, 1, 1]
    assert found.lost == 2
    assert shares == [4 / 11, 8 / 11, 1.0]  # 48 bytes hold three numbers of four bytes for each of four


def test_it_goes_down_as_optax_does():
    """Without Newton's method: Adam on q = |f(h) - h|^2 / 2, its rate falling to a hundredth; the best point seen is kept."""
    steps, rate = 12, 0.05

    def update(h, x):
        return jnp.stack([h[0] - 0.5 * h[0] ** 2, 0.2 * h[1]]) + x

    def q(h):
        return ((update(h, jnp.zeros(2)) - h) ** 2).sum() / 2

    start = jnp.array([1.0, -2.0])
    adam = optax.adam(lambda t: rate * 0.01 ** (t / steps), eps=1e-12)

    @jax.jit
    def descend(h):
        def step(carry, _):
            h, memory = carry
            move, memory = adam.update(jax.grad(q)(h), memory)
            return (h + move, memory), h

        return jax.lax.scan(step, (h, adam.init(h)), length=steps)[1]

    path = np.asarray(descend(start))
    options = {"steps": steps, "newton": 0, "slow": 9.0}
    found = find_fixed_points(update, start[None], np.zeros(2), rate=rate, **options)
    np.testing.assert_allclose(found.points[0], path[-1], rtol=1e-5)
    assert found.speeds[0] == pytest.approx(float(np.sqrt(2 * q(path[-1]))), rel=1e-5)
    first = find_fixed_points(update, start[None], np.zeros(2), **(options | {"steps": 2}))
    np.testing.assert_allclose(first.points[0], [0.98, -1.98], rtol=1e-5)  # Adam's first step is its rate, 0.02


def test_newtons_method_halves_its_steps_until_the_speed_falls():
    """For h^2 - 2: (h^2 + 2) / 2h from 1; from 1/2 half of the step is best, from 1/200 a 128th, and none from 1/400."""
    starts = np.array([1.0, 0.5, 0.005, 0.0025])
    found = find_fixed_points(lambda h, x: h + h**2 - 2 + 0 * x, starts[:, None], np.zeros(1), steps=1, newton=1, slow=9.0)
    ends = [1.5, 1.375, 0.005 + 2 / 0.01 / 128, 0.0025]
    order = np.argsort([abs(h**2 - 2) for h in ends])
    np.testing.assert_allclose(found.points[:, 0], np.array(ends)[order], rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_moves_by_one_each_step_has_no_fixed_point(dtype):
    """h + 1, whose Jacobian less 1 is singular: rounding hides at 1e9 that the state moves."""
    with jax.enable_x64(dtype is np.float64):
        found = find_fixed_points(lambda h, x: h + 1 + 0 * x, np.zeros((2, 1), dtype), np.zeros(1, dtype), steps=20)
    assert (len(found.points), found.lost) == (0, 2)


def test_eigenvalues_come_largest_first_and_say_how_many_directions_grow():
    sizes = np.diag([0.5, -1.25, 1.0, -3.0])
    found = find_fixed_points(lambda h, x: sizes @ h + 0 * x[0], np.zeros((1, 4)), np.zeros(1), steps=2, newton=1)
    np.testing.assert_allclose(found.eigenvalues, [[-3.0, -1.25, 1.0, 0.5]], rtol=1e-6)
    assert found.eigenvalues.dtype == complex
    assert (found.radius.tolist(), found.unstable.tolist(), found.stable.tolist()) == ([3.0], [2], [False])
    none = find_fixed_points(standing, np.zeros((2, 3)), np.ones(3), steps=2, newton=0)
    assert (none.points.shape, none.eigenvalues.shape, none.lost) == ((0, 3), (0, 3), 2)
    assert spectra(standing, np.zeros((0, 3)), np.zeros(3)).shape == (0, 3)
    with pytest.raises(InputError, match="NaN or infinity"):
        find_fixed_points(standing, np.zeros((2, 3)), np.full(3, np.inf))


def test_a_flat_state_starts_where_a_rollout_does():
    oscillators = Kuramoto(np.zeros(5, np.float32), 1.0)
    np.testing.assert_array_equal(FlatUpdate(oscillators).start(), initial_state(oscillators, None))
