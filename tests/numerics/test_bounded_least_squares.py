import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares, lsq_linear

from broadsheet.errors import InputError
from broadsheet.numerics.bounded_least_squares import bounded_least_squares

FREE = np.array([[-1e3, -1e3], [1e3, 1e3]])


def rosenbrock(x):
    return np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]]), np.array([[-20 * x[0], 10], [-1, 0]])


def test_rosenbrocks_valley_is_followed_to_its_end():
    found = bounded_least_squares(rosenbrock, np.array([-1.2, 1.0]), FREE)
    np.testing.assert_allclose(found.x, 1.0, rtol=1e-7)
    assert found.total < 1e-12


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_straight_lines_within_limits_as_a_solver_of_their_own_has_them(seed, count):
    """A convex problem, so that there is one minimum, on a face of the limits or inside; against `lsq_linear`."""
    rng = np.random.default_rng(seed)
    slopes, aim = rng.standard_normal((8, count)), rng.standard_normal(8)
    limits = np.sort(rng.standard_normal((2, count)), axis=0)
    limits[1] += 0.1
    found = bounded_least_squares(lambda x: (slopes @ x - aim, slopes), rng.standard_normal(count), limits)
    exact = lsq_linear(slopes, aim, (limits[0], limits[1]), method="bvls", tol=1e-14)
    np.testing.assert_allclose(found.x, exact.x, atol=1e-6)
    np.testing.assert_allclose(found.total, 2 * exact.cost, rtol=1e-10)


@pytest.mark.parametrize("low", [0.0, 0.8])
def test_decays_with_noise_as_scipy_finds_them(low):
    t = np.linspace(0, 4, 30)
    data = 2 * np.exp(-0.7 * t) + 0.05 * np.random.default_rng(0).standard_normal(30)

    def decay(x):
        shape = np.exp(-x[1] * t)
        return x[0] * shape - data, np.column_stack([shape, -x[0] * t * shape])

    limits = np.array([[0.1, low], [9.0, 5.0]])
    found = bounded_least_squares(decay, np.array([0.5, 3.0]), limits)
    exact = least_squares(
        lambda x: decay(x)[0], [0.5, 3.0], lambda x: decay(x)[1], limits, x_scale="jac", xtol=1e-13, ftol=1e-15
    )
    np.testing.assert_allclose(found.x, exact.x, rtol=1e-6)
    np.testing.assert_allclose(found.jac, exact.jac, rtol=1e-5, atol=1e-8)
    assert (found.x[1] == low) == (low == 0.8)


def test_what_the_data_do_not_see_stays():
    """A parameter without slope keeps its start; two that act alike end on the nearest line of minima."""
    found = bounded_least_squares(
        lambda x: (np.array([x[0] - 3, 2 * x[0] - 6]), np.array([[1.0, 0], [2, 0]])), np.ones(2), FREE
    )
    np.testing.assert_allclose(found.x, [3.0, 1.0], rtol=1e-8)
    found = bounded_least_squares(lambda x: (np.array([x.sum() - 3]), np.ones((1, 2))), np.ones(2), FREE)
    np.testing.assert_allclose(found.x, 1.5, rtol=1e-6)


def test_a_model_that_is_nowhere_beyond_a_point_is_left_again_and_a_start_there_is_refused():
    def root(x):  # a full first step from 0.01 would end below zero, where there is no number
        with np.errstate(invalid="ignore"):
            return np.log(x) - np.log(2), (1 / x)[:, None]

    np.testing.assert_allclose(bounded_least_squares(root, np.array([40.0]), np.array([[-1e3], [1e3]])).x, 2.0, rtol=1e-7)
    with pytest.raises(InputError, match="are not finite"):
        bounded_least_squares(root, np.array([-1.0]), np.array([[-1e3], [1e3]]))


def test_the_number_of_evaluations_is_held_to():
    count = 0

    def counted(x):
        nonlocal count
        count += 1
        return rosenbrock(x)

    found = bounded_least_squares(counted, np.array([-1.2, 1.0]), FREE, most=5)
    assert count == 5
    assert 0.01 < found.total < 24.2
