"""The theory of dense memories against SciPy's quadrature and roots, closed forms and automatic differentiation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar, root
from scipy.special import erf
from scipy.stats import norm

from broadsheet.errors import InputError
from broadsheet.networks.replica import (
    alpha_c,
    dataset_entropy,
    effective_load,
    examples_needed,
    glass_onset,
    highest_temperature,
    phase_diagram,
    retrieval_limit,
    rs_pressure,
    rs_solve,
    snr,
    snr_binomial,
)


def moment(function, signal, spread):
    return quad(lambda z: norm.pdf(z) * function(signal + spread * z), -10, 10, epsabs=1e-12, limit=400)[0]


def equations(n, q, order, load, rho, temperature):
    """m, and what n and q should be, by quadrature."""
    field = order / 2 * (1 + rho) ** (order / 2 - 1) * n ** (order - 1)
    spread = math.sqrt(rho * field**2 + load * order * math.factorial(order) / 4 * q ** (order - 1)) / temperature
    m, new_q = (moment(f, field / temperature, spread) for f in (np.tanh, lambda g: np.tanh(g) ** 2))
    signal = moment(lambda g: 1 / np.cosh(g) ** 2, field / temperature, spread)
    return m, (m + rho * field / temperature * signal) / (1 + rho), new_q


@pytest.mark.parametrize(
    ("order", "load", "rho", "temperature"),
    [(4, 0.02, 0.2, 0.2), (3, 0.06, 0.1, 0.4), (4, 0.0257, 0.3, 0.4), (6, 5e-4, 0.0, 0.6)],
)
def test_order_parameters_are_a_root_by_quadrature(order, load, rho, temperature):
    state = rs_solve(order, load, rho, temperature)
    found = root(lambda at: np.array(equations(*at, order, load, rho, temperature)[1:]) - at, [state.n + 1e-3, state.q - 1e-3])
    assert found.success
    np.testing.assert_allclose(found.x, (state.n, state.q), atol=1e-8)
    assert state.m == pytest.approx(equations(*found.x, order, load, rho, temperature)[0], abs=1e-8)
    assert state.m > 0.5


def test_the_pressures_derivatives_vanish_and_its_value_is_that_of_quadrature():
    with jax.enable_x64(True):
        state = rs_solve(4, 0.02, 0.2, 0.2)
        slope = jax.jit(jax.grad(lambda n, q: rs_pressure(n, q, 4, 0.02, 0.2, 0.2), argnums=(0, 1)))
        slopes = slope(jnp.asarray(state.n), jnp.asarray(state.q))
        assert max(abs(float(each)) for each in slopes) < 1e-10
    beta, noise = 5.0, 24 * 0.02
    field = 2 * 1.2 * state.n**3
    spread = beta * math.sqrt(0.2 * field**2 + noise * state.q**3)
    entropic = moment(lambda g: np.logaddexp(g, -g), beta * field, spread)
    wanted = entropic + beta**2 * noise / 8 * (1 - 4 * state.q**3 + 3 * state.q**4) - beta * 1.5 * 1.2**2 * state.n**4
    assert state.pressure == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("order", [3, 4, 5, 6])
def test_capacity_without_noise_has_a_closed_form(order):
    best = minimize_scalar(lambda t: -(erf(t) ** (2 * (order - 1))) / (2 * t**2), bounds=(0.5, 4), method="bounded",
                           options={"xatol": 1e-10})  # fmt: skip
    assert alpha_c(order) == pytest.approx(-best.fun / math.factorial(order - 1), rel=1e-8)


@pytest.mark.parametrize(("order", "rho", "temperature"), [(4, 0.1, 0.2), (4, 2.0, 0.0), (3, 0.3, 0.3)])
def test_iteration_from_above_keeps_retrieval_below_the_capacity_and_loses_it_above(order, rho, temperature):
    end = alpha_c(order, rho, temperature)
    z = np.linspace(-9, 9, 2001)
    weights = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    for factor, kept in ((0.99, True), (1.01, False)):
        n, q = 1.0, 1.0
        for _ in range(1000):
            field = order / 2 * (1 + rho) ** (order / 2 - 1) * n ** (order - 1)
            spread = math.sqrt(rho * field**2 + factor * end * order * math.factorial(order) / 4 * q ** (order - 1)) + 1e-99
            if temperature:
                t = np.tanh((field + spread * z) / temperature)
                m, tilt, new_q = t @ weights, (z * t) @ weights, t**2 @ weights
            else:
                m, tilt, new_q = erf(field / spread / math.sqrt(2)), 2 * norm.pdf(field / spread), 1.0
            n, q = (n + (m + rho * field / spread * tilt) / (1 + rho)) / 2, (q + new_q) / 2
        assert (n > 0.1) == kept


def test_limits_of_low_load():
    assert rs_solve(4, 0.0, 1.0).m == pytest.approx(erf(1 / math.sqrt(2)))
    state = rs_solve(4, 0.0, 0.0, 0.8)
    assert state.m == pytest.approx(math.tanh(2 / 0.8 * state.m**3), abs=1e-12)
    assert [round(highest_temperature(order), 4) for order in (3, 4, 6)] == [0.8739, 0.9916, 1.2682]
    assert alpha_c(4, 0.0, 0.05) == pytest.approx(alpha_c(4), rel=0.04)
    assert alpha_c(4, 0.0, 1.0) == 0
    assert rs_solve(4, 0.01, 0.0, 1.0).m == 0


def test_the_glass_solves_its_equation_and_begins_where_said():
    onset, static = glass_onset(4)
    state = rs_solve(4, static * 0.09 * 1.1, 0.0, 0.3, "glass")
    _, _, q = equations(0.0, state.q, 4, static * 0.09 * 1.1, 0.0, 0.3)
    assert q == pytest.approx(state.q, abs=1e-8)
    assert rs_solve(4, onset * 0.09 * 0.99, 0.0, 0.3, "glass").q == 0
    assert onset < static


def test_phases_agree_with_the_solutions_on_either_side_of_the_lines():
    found = phase_diagram(4, 0.1, [0.2, 0.5], np.linspace(0, 0.045, 5))
    for temperature, row, end in zip(found.temperatures, found.phase, found.spinodal, strict=True):
        retrieves = [rs_solve(4, load, 0.1, temperature).m > 0 for load in found.loads]
        np.testing.assert_array_equal(row >= 2, retrieves)
        assert retrieval_limit(4, 0.1, temperature) <= end
    load = 0.95 * found.stable[1]
    glass = rs_solve(4, load, 0.1, 0.5, "glass")
    assert rs_solve(4, load, 0.1, 0.5).pressure > glass.pressure
    load = 1.02 * found.stable[1]
    assert rs_solve(4, load, 0.1, 0.5).pressure < rs_solve(4, load, 0.1, 0.5, "glass").pressure


def test_one_step_laws_agree_for_many_examples_and_their_inverse_is_one():
    rho = dataset_entropy(0.4, 4000)
    assert snr_binomial(3, 0.15, quality=0.4, examples=4000) == pytest.approx(snr(3, 0.15, neurons=150, rho=rho), abs=1e-3)
    needed = examples_needed(4, 0.01, 0.3, 0.9)
    assert snr(4, 0.01, neurons=50, rho=(1 - 0.09) / (needed * 0.09)) == pytest.approx(0.9)
    assert examples_needed(4, 0.1, 0.3, 0.99) == math.inf
    assert effective_load(4, 0.5, neurons=48, exponent=1.0, omega=9.6) == pytest.approx(24 * (1 + 9.6**2) / 48**3)
    assert snr(4, 0.0, neurons=48) == 1


@pytest.mark.parametrize("arguments", [(2, 0.1), (4, -0.1), (4, 0.1, math.nan), (4, 0.1, 0.0, -1.0), (True, 0.1)])
def test_nonsense_is_refused(arguments):
    with pytest.raises(InputError):
        rs_solve(*arguments)


def test_nonsense_data_are_refused():
    for quality, examples in ((0.0, 5), (1.1, 5), (0.5, 0)):
        with pytest.raises(InputError, match="quality"):
            dataset_entropy(quality, examples)
    with pytest.raises(InputError, match="temperature is 0"):
        retrieval_limit(4, 0.0, 0.0)
    with pytest.raises(InputError, match="above 0"):
        phase_diagram(4, 0.0, [0.0], [0.1])
