"""The quark model against published masses, folding against brute force and closed forms."""

import numpy as np
import pytest
from scipy.integrate import quad

from broadsheet.errors import InputError
from broadsheet.matter.charmonium import HBARC, CharmoniumCQM, QuarkModel
from broadsheet.matter.quark_nucleon import FoldedPotential, QuarkNucleonPotential

STATE = CharmoniumCQM().solve()


def test_masses_are_the_published_ones():
    found = [CharmoniumCQM().solve(spin, n).mass for spin, n in ((1, 1), (1, 2), (0, 1), (0, 2))]
    np.testing.assert_allclose(found, [3.0969, 3.7032, 2.9896, 3.6425], atol=1e-3)
    assert QuarkModel().alpha_s == pytest.approx(0.2879, abs=1e-4)
    with pytest.raises(InputError, match="spin 2"):
        CharmoniumCQM().solve(2)


def test_the_solver_finds_the_levels_of_hydrogen():
    class Coulomb(QuarkModel):
        def potential(self, r, spin):
            return -0.5 / r

    for n in (1, 2):
        mass = CharmoniumCQM(Coulomb(), points=6000, radius=12.0).solve(1, n).mass
        assert mass - 2 * 1.763 == pytest.approx(-(0.5**2) * 1.763 / 4 / n**2, rel=2e-3)


def test_wave_function_and_form_factor_against_quadrature():
    k = np.linspace(0, 12, 500)
    assert np.trapezoid(4 * np.pi * (k * STATE.wave_function(k)) ** 2, k) == pytest.approx(1, abs=1e-5)
    q = np.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(STATE.form_factor(q), [0.95986, 0.85015, 0.53501], atol=1e-5)
    exact = [np.sum(STATE.density * np.sinc(each * STATE.r / (2 * np.pi))) for each in (0.013, 0.77, 9.1, 42.0)]
    np.testing.assert_allclose(STATE.form_factor(np.array([0.013, 0.77, 9.1, 42.0])), exact, atol=1e-9)
    assert STATE.form_factor(np.array(500.0)) == 0
    assert STATE.rms_radius == pytest.approx(0.392, abs=5e-4)


@pytest.mark.parametrize("kind", ["1Y", "2Y"])
def test_folding_is_the_same_in_both_spaces_and_by_brute_force(kind):
    folded = FoldedPotential(QuarkNucleonPotential(kind, 0.05, 0.6), STATE)
    for r in np.array([0.8, 2.5]) / HBARC:
        assert folded.at(r) == pytest.approx(folded.by_quadrature(float(r)), rel=1e-6)
    r = 3.0  # GeV⁻¹: the Fourier transform back, (2π)⁻³ being within the potential
    back = quad(lambda q: 4 * np.pi * q**2 * np.sinc(q * r / np.pi) * folded(np.array(q)), 0, 60, limit=400)[0]
    assert back == pytest.approx(float(folded.at(np.array(r))), rel=1e-4)


@pytest.mark.parametrize(("strength", "mu", "factor"), [(0.06, 0.3, 1.01492), (0.1, 0.6, 1.06126)])
def test_the_tail_is_the_one_asked_for(strength, mu, factor):
    potential = QuarkNucleonPotential.with_tail(strength, mu, STATE)
    r = np.array(2.5 / HBARC)
    assert float(FoldedPotential(potential, STATE).at(r) * r * np.exp(mu * r)) == pytest.approx(-strength, rel=1e-8)
    assert STATE.tail_factor(mu) == pytest.approx(factor, abs=1e-5)


def test_the_difference_of_two_is_finite_at_the_origin():
    potential = QuarkNucleonPotential("2Y", 0.1, 0.3, ratio=3.0)
    assert potential.at(np.array(1e-6)) == pytest.approx(-0.1 * 2 * 0.3, rel=1e-4)
    for wrong in ({"mu": 0.0}, {"kind": "3Y"}, {"ratio": 1.0}, {"alpha": float("nan")}):
        with pytest.raises(InputError):
            QuarkNucleonPotential(**wrong)
