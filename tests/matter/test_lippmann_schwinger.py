"""Scattering by two routes each, and against the variable-phase equation, closed forms and SciPy."""

import numpy as np
import pytest
from scipy.special import eval_legendre

from broadsheet.errors import InputError
from broadsheet.matter.lippmann_schwinger import (
    LippmannSchwinger,
    momentum_grid,
    propagator,
    transfer_grid,
    variable_phase,
    variable_scattering_length,
)
from broadsheet.matter.quark_nucleon import QuarkNucleonPotential

YUKAWA = QuarkNucleonPotential("1Y", 0.3, 0.6)
NUCLEON, JPSI = 0.938272, 3.0969


def solver(relativistic=True, nodes=48, potential=YUKAWA):
    return LippmannSchwinger(potential, NUCLEON, JPSI, nodes, relativistic=relativistic)


def test_partial_waves_of_a_yukawa_are_the_closed_forms():
    p, k = np.array([0.01, 0.3, 1.0, 20.0])[:, None], np.array([0.2, 1.1, 21.0])
    z = (p**2 + k**2 + 0.36) / (2 * p * k)
    q_0 = 0.5 * np.log((z + 1) / (z - 1))
    for l, q_l in ((0, q_0), (1, z * q_0 - 1)):
        good = z < 30  # the closed form of l = 1 cancels beyond
        found = solver().partial_wave(p, k, l)
        np.testing.assert_allclose(found[good], (-0.3 / (np.pi * p * k) * q_l)[good], rtol=1e-7)


def test_transfers_integrate_over_the_cosine():
    q, cosine, weight = transfer_grid(np.array([0.0, 1.0, 30.0]), np.array([1.0, 1.0, 29.0]), 24)
    np.testing.assert_allclose(weight.sum(axis=-1), 2, rtol=1e-9)
    np.testing.assert_allclose((weight * cosine**2).sum(axis=-1), 2 / 3, rtol=1e-7)
    np.testing.assert_allclose(q[1] ** 2, 2 - 2 * cosine[1], atol=1e-12)


def test_the_subtraction_is_the_principal_value():
    """Of p² exp(-p²) / (E(k) - E(p)): by SciPy's rule for singular integrands."""
    from scipy.integrate import quad

    pair, k = solver().body, 0.6
    p, weight = momentum_grid(60, 0.7)
    g = propagator(pair, k, p, weight)
    ours = g[:-1] @ np.exp(-(p**2)) + g[-1] * np.exp(-(k**2))

    def smooth(x):
        slope = -(pair.rho(k) ** -1) * k**2
        near = abs(x - k) < 1e-7
        return x**2 * np.exp(-(x**2)) * (1 / slope if near else (x - k) / (pair.energy(k) - pair.energy(x)))

    exact = quad(smooth, 0, 3, weight="cauchy", wvar=k)[0] + quad(lambda x: smooth(x) / (x - k), 3, 20)[0]
    assert ours == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("l", [0, 1])
def test_phases_are_those_of_the_variable_phase_equation(l):
    pair = solver(relativistic=False)
    for k in (0.1, 0.5, 1.0):
        exact = variable_phase(YUKAWA.at, pair.body.reduced_mass, k, l)
        assert pair.phase(float(pair.body.energy(k)), l) == pytest.approx(exact, rel=3e-6)


def test_scattering_lengths():
    pair = solver(relativistic=False)
    exact = variable_scattering_length(YUKAWA.at, pair.body.reduced_mass)
    assert pair.scattering_length() == pytest.approx(exact, rel=1e-6)
    assert exact < pair.born_length() < 0
    k = 1e-3
    assert -np.tan(pair.phase(float(pair.body.energy(k)))) / k * 0.1973269804 == pytest.approx(exact, rel=1e-4)
    weak = solver(False, potential=YUKAWA.scaled(1e-4))
    assert weak.scattering_length() == pytest.approx(weak.born_length(), rel=1e-3)
    mass, born = pair.body.reduced_mass, -2 * 0.3 * pair.body.reduced_mass / 0.36 * 0.1973269804
    assert pair.born_length() == pytest.approx(born, rel=1e-9)
    assert variable_scattering_length(lambda r: 0.0, mass) == 0


def test_a_strong_potential_binds_and_its_length_is_positive():
    strong = QuarkNucleonPotential("1Y", 1.0, 0.6)  # beyond 0.84 mu / mass
    pair = solver(relativistic=False, potential=strong)
    assert pair.scattering_length() > 0


@pytest.mark.parametrize("relativistic", [True, False])
def test_unitarity_and_the_optical_theorem(relativistic):
    """With t from the complex equation: |S| = 1, and Im f(0) against an integral over the angle and against K's phases."""
    pair = solver(relativistic)
    W = float(pair.body.energy(0.7))
    k, waves = 0.7, 6
    for l in range(3):
        assert abs(abs(pair.s(W, l)) - 1) < 1e-10
        assert np.angle(pair.s(W, l)) / 2 == pytest.approx(pair.phase(W, l), abs=1e-11)
    cosine, weight = np.polynomial.legendre.leggauss(16)
    elastic = 2 * np.pi * weight @ np.abs(pair.amplitude(W, cosine, waves)) ** 2
    forward = complex(pair.amplitude(W, np.ones(1), waves)[0])
    assert 4 * np.pi / k * forward.imag == pytest.approx(elastic, rel=1e-8)
    assert pair.cross_section(W, waves) == pytest.approx(elastic, rel=1e-8)
    wrong = 1 - 2j * np.pi * pair.body.reduced_mass * k * pair.t(W)
    assert (abs(abs(wrong) - 1) > 1e-3) == relativistic


def test_a_wave_that_does_not_solve_the_equation_is_not_unitary():
    """What makes the check above one: the pole term left out of the complex equation, or a first-order t."""
    pair = solver()
    W = float(pair.body.energy(0.7))
    rho = float(pair.body.rho(0.7))
    assert abs(abs(1 - 2j * np.pi * rho * pair.k(W)) - 1) > 1e-2
    born = float(pair.partial_wave(np.array([0.7]), np.array([0.7]), 0)[0])
    assert abs(abs(1 - 2j * np.pi * rho * born) - 1) > 1e-2


def test_the_sum_of_waves_is_the_born_amplitude_where_the_potential_is_weak():
    weak = solver(potential=YUKAWA.scaled(1e-5))
    W, k = float(weak.body.energy(0.5)), 0.5
    cosine = np.array([-0.5, 0.2])
    sums = sum(
        (2 * l + 1) * weak.partial_wave(np.array([k]), np.array([k]), l)[0] * eval_legendre(l, cosine) for l in range(24)
    )
    np.testing.assert_allclose(sums / (4 * np.pi), weak.potential(np.sqrt(2 * k**2 * (1 - cosine))), rtol=1e-5)
    first = -4 * np.pi**2 * float(weak.body.rho(k)) / k * weak.potential(np.sqrt(2 * k**2 * (1 - cosine)))
    np.testing.assert_allclose(weak.amplitude(W, cosine, 20).real, first, rtol=1e-4)


def test_energies_below_threshold_are_refused():
    for W in (4.0, float("nan")):
        with pytest.raises(InputError, match="below the threshold"):
            solver().phase(W)
