"""Amplitudes and cross sections: numbers of another program, Watson's theorem, gauge invariance, closed forms, fits."""

from dataclasses import replace

import numpy as np
import pytest

from broadsheet.errors import InputError
from broadsheet.matter.charmonium import CharmoniumCQM
from broadsheet.matter.enhancement import effective_range, effective_range_factor, sommerfeld_factor
from broadsheet.matter.lippmann_schwinger import LippmannSchwinger, propagator, stretched_grid
from broadsheet.matter.measured_cross_sections import GLUEX_2019, power_law, pulls
from broadsheet.matter.photoproduction import Photoproduction, amplitudes, total, total_and_slopes, total_energy
from broadsheet.matter.photoproduction_fit import PhotoproductionFit
from broadsheet.matter.pomeron import GAMMA, METRIC, NUCLEON_MASS, Pomeron, polarisations, slash, spinors
from broadsheet.matter.quark_nucleon import QuarkNucleonPotential

STATE = CharmoniumCQM().solve()
LOOP = Photoproduction(STATE, pomeron=None)
TAIL = QuarkNucleonPotential.with_tail(0.06, 0.3, STATE)
ENERGIES, MEASURED = GLUEX_2019[:, 0], GLUEX_2019[:, 1:]


def test_the_numbers_of_an_independent_program():
    wave = replace(LOOP, waves=1)
    tables = wave.tables(np.array([4.05, 4.1, 4.2, 4.5]))
    ratio = total(tables, TAIL.parameters) / total(tables, TAIL.parameters, fsi=False)
    np.testing.assert_allclose(ratio, [1.537, 1.316, 1.197, 1.097], atol=2e-3)
    other = QuarkNucleonPotential.with_tail(0.1, 0.6, STATE).parameters
    assert (total(tables, other) / total(tables, other, fsi=False))[0] == pytest.approx(1.448, abs=2e-3)
    born = replace(LOOP, fsi=False).sigma(total_energy(np.array([8.49, 8.93])), TAIL)
    np.testing.assert_allclose(born, [0.26, 0.43], atol=5e-3)
    assert LOOP.scattering(TAIL).scattering_length() == pytest.approx(-0.2179, abs=2e-4)


def test_pomeron_exchange_alone():
    W = np.array([4.1, 4.5, 10.0, 30.0, 100.0, 300.0])
    found = Photoproduction(STATE, nodes=4, waves=1).sigma(W, TAIL.scaled(0.0))
    np.testing.assert_allclose(found, [0.0279, 0.394, 9.43, 26.8, 76.0, 199.7], rtol=3e-3)
    exchange, W = Pomeron(), 2000.0
    k, q = (W**2 - NUCLEON_MASS**2) / (2 * W), np.sqrt((W**2 - 4.0352**2) * (W**2 - 2.1586**2)) / (2 * W)
    squared = exchange.spin_sums(np.array(k), np.array(q), np.array(1.0)).squared
    forward = float(squared) / (16 * np.pi * (W**2 - NUCLEON_MASS**2) ** 2)
    assert forward == pytest.approx(exchange.forward(W**2), rel=1e-2)


def test_dirac_algebra_and_gauge_invariance():
    clifford = np.einsum("mij,njk->mnik", GAMMA, GAMMA)
    wanted = 2 * np.diag(METRIC)[:, :, None, None] * np.eye(4)
    np.testing.assert_allclose(clifford + clifford.swapaxes(0, 1), wanted, atol=1e-15)
    momentum = np.array([0.3, -0.2, 0.5])
    u = spinors(momentum, 0.938)
    np.testing.assert_allclose(np.conj(u.T) @ GAMMA[0] @ u, 2 * 0.938 * np.eye(2), atol=1e-14)
    four = np.append(np.sqrt(0.938**2 + momentum @ momentum), momentum)
    np.testing.assert_allclose(slash(four) @ u, 0.938 * u, atol=1e-14)
    meson = polarisations(momentum, 3.1)
    np.testing.assert_allclose(meson @ np.diag(METRIC) @ meson.T, -np.eye(3), atol=1e-14)
    on_shell = np.append(np.sqrt(3.1**2 + momentum @ momentum), momentum)
    np.testing.assert_allclose(meson @ (METRIC * on_shell), 0, atol=1e-14)
    k = np.array([2.0, 0, 0, 2.0])
    vertex = np.einsum("mn,ij->mnij", np.diag(METRIC), slash(k)) - np.einsum(
        "m,nij->mnij", METRIC * k, METRIC[:, None, None] * GAMMA
    )
    np.testing.assert_allclose(np.einsum("mnij,n->mij", vertex, k), 0, atol=1e-14)


def test_the_spin_sum_is_the_trace():
    """Sum over explicit spinors against the trace of Dirac matrices with completeness relations."""
    exchange, k, q, cosine = Pomeron(), 1.9, 0.6, 0.3
    found = float(exchange.spin_sums(np.array(k), np.array(q), np.array(cosine)).squared)
    photon, out = np.array([k, 0, 0, k]), q * np.array([np.sqrt(1 - cosine**2), 0, cosine])
    vector = np.append(np.sqrt(3.0969**2 + q**2), out)
    before, after = (np.append(np.sqrt(NUCLEON_MASS**2 + p @ p), p) for p in (-photon[1:], -out))
    vertex = np.einsum("mn,ij->mnij", np.diag(METRIC), slash(photon))
    vertex = vertex - np.einsum("m,nij->mnij", METRIC * photon, METRIC[:, None, None] * GAMMA)
    barred = np.einsum("ij,mnjk,kl->mnil", GAMMA[0], np.conj(vertex.swapaxes(-1, -2)), GAMMA[0])
    meson = -np.diag(METRIC) + np.outer(vector, vector) / 3.0969**2
    light = np.diag([0.0, 1, 1, 0])
    traced = np.einsum(
        "ij,mnjk,kl,abli,ma,nb->", slash(after) + NUCLEON_MASS * np.eye(4), vertex, slash(before) + NUCLEON_MASS * np.eye(4),
        barred, meson, light, optimize=True,
    )  # fmt: skip
    t = 3.0969**2 - 2 * (k * vector[0] - k * q * cosine)
    s = (k + before[0]) ** 2
    assert found == pytest.approx(float(traced.real) / 4 * abs(exchange.strength(np.array(s), np.array(t))) ** 2, rel=1e-10)


def test_the_loop_against_a_sum_in_three_dimensions():
    k, q = 1.9, np.array([0.3, 0.0, 0.4])
    transfer = q - np.array([0, 0, k])
    radius, weight = stretched_grid(32, 30.0)
    cosine, across = np.polynomial.legendre.leggauss(16)
    azimuth = 2 * np.pi * (np.arange(24) + 0.5) / 24
    y = radius[:, None, None, None] * np.stack(
        [
            np.sqrt(1 - cosine**2)[:, None] * np.cos(azimuth),
            np.sqrt(1 - cosine**2)[:, None] * np.sin(azimuth),
            np.broadcast_to(cosine[:, None], (16, 24)),
        ],
        axis=-1,
    )
    kappa = y - transfer / 2
    energies = sum(np.sqrt(STATE.quark_mass**2 + np.sum((np.array([0, 0, k / 2]) + s * kappa) ** 2, axis=-1)) for s in (1, -1))
    parts = weight * radius**2 * STATE.wave_function(radius)
    exact = np.einsum("r,c,rca->", parts, across, 1 / (k - energies)) * 2 * np.pi / 24
    size = np.linalg.norm(transfer)
    assert float(LOOP.loop(np.array(k), np.array(size), np.array(transfer[2] / size))) == pytest.approx(exact, rel=2e-4)
    assert exact < 0


def test_watsons_theorem_and_the_complex_equation():
    """The production amplitude with t from the complex equation, put together here: the same, and its phase is delta."""
    W = np.array([4.08, 4.3])
    tables = LOOP.tables(W)
    waves = amplitudes(tables, TAIL.parameters)
    pair = LOOP.scattering(TAIL)
    born = np.sum(tables.born_waves * tables.born * QuarkNucleonPotential("1Y", TAIL.alpha, TAIL.mu)(tables.transfer), axis=-1)
    for l in range(2):
        for k, energy in enumerate(W):
            g = propagator(pair.body, pair.body.momentum(energy), pair.p, pair.weight).astype(complex)
            g[-1] -= 1j * np.pi * pair.body.rho(pair.body.momentum(energy))
            full = born[l, k, -1] + np.sum(pair.half_shell_t(energy, l) * g * born[l, k])
            assert waves.full[l, k] == pytest.approx(full, rel=1e-6)
            assert np.angle(full) == pytest.approx(pair.phase(energy, l), abs=1e-8)


@pytest.mark.parametrize("fsi", [True, False])
@pytest.mark.parametrize("core", [0.0, 0.8])
def test_slopes_of_cross_sections_are_those_of_differences(core, fsi):
    tables = Photoproduction(STATE, nodes=12).tables(total_energy(np.array([8.4, 9.0, 11.0])))
    at = np.array([0.1, 0.4, 0.9])

    def sigma(alpha, mu, strength):
        return total(tables, (alpha, mu, core, 2.5), fsi, strength)

    values, slopes = total_and_slopes(tables, (*at[:2], core, 2.5), fsi, at[2])
    np.testing.assert_allclose(values, sigma(*at), rtol=1e-12)
    for k, step in enumerate(np.diag(1e-5 * at)):
        np.testing.assert_allclose(slopes[:, k], (sigma(*(at + step)) - sigma(*(at - step))) / (2 * step[k]), rtol=1e-6)


def test_energies_at_a_node_of_the_grid():
    """Where the singular integrand is met almost on a node, the amplitude is the middle of its neighbours' phases."""
    model = replace(LOOP, nodes=16)
    pair = LippmannSchwinger(model.scattering(TAIL).potential, NUCLEON_MASS, model.mass, 16, model.scale, transfers=16)
    node = float(model.body.energy(pair.p[pair.p < 1][-1]))
    phases = np.angle(amplitudes(model.tables(node + np.array([-1e-6, 1e-6])), TAIL.parameters).full)
    for l in range(2):
        beside = np.mean([pair.phase(node + step, l) for step in (-1e-4, 1e-4)])
        np.testing.assert_allclose(phases[l], beside, rtol=1e-5)


def test_differential_cross_sections_integrate_to_the_total():
    model = Photoproduction(STATE)
    least, most = model.t_range(4.3)
    x, weight = np.polynomial.legendre.leggauss(24)
    t = least + (most - least) * (1 + x) / 2
    area = weight @ model.dsigma_dt(4.3, t, TAIL) * (most - least) / 2
    assert area == pytest.approx(float(model.sigma(np.array([4.3]), TAIL)[0]), rel=1e-5)
    with pytest.raises(InputError, match="t lies between"):
        model.dsigma_dt(4.3, np.array([1.0]), TAIL)
    with pytest.raises(InputError, match="the threshold"):
        model.sigma(np.array([4.035170]), TAIL)


def test_enhancement_factors():
    pair = LOOP.scattering(TAIL)
    k = np.array([1e-3, 0.1])
    a, r = pair.scattering_length() / 0.1973269804, effective_range(pair)
    assert r > 0
    phase = [pair.phase(float(pair.body.energy(each))) for each in k]
    np.testing.assert_allclose(k / np.tan(phase), -1 / a + r * k**2 / 2, rtol=2e-2)
    assert np.all(np.diff(effective_range_factor(pair, k)) < 0)
    assert sommerfeld_factor(1e-9, 0.7, np.array([0.5]))[0] == pytest.approx(1)


def test_a_fit_finds_what_made_the_data_and_its_slopes_are_right():
    truth = QuarkNucleonPotential(alpha=0.025)
    exact = PhotoproductionFit(nodes=8, waves=1).model().sigma(total_energy(ENERGIES), truth)
    fit = PhotoproductionFit(nodes=8, waves=1).fit(ENERGIES, np.stack([exact, 0.1 * exact], axis=1))
    assert fit.parameters_["alpha"] == pytest.approx(0.025, rel=1e-6)
    assert fit.chi2_ < 1e-10
    np.testing.assert_allclose(fit.predict(ENERGIES), exact, rtol=1e-6)
    problem, step = fit._problem, 1e-6
    values, slopes = problem.evaluate(problem.tables, np.array([0.025, 0.3, 1.0, 1.0]))
    for column, size in ((0, 0.025), (1, 0.3), (2, 1.0), (3, 1.0)):
        ends = []
        for sign in (1, -1):
            vector = np.array([0.025, 0.3, 1.0, 1.0])
            vector[column] += sign * step * size
            ends.append(problem.evaluate(problem.tables, vector)[0])
        np.testing.assert_allclose(slopes[:, column], (ends[0] - ends[1]) / (2 * step * size), rtol=1e-5, atol=1e-8)
    low, high = fit.profile()
    assert (high - low) / 2 == pytest.approx(fit.errors_["alpha"], rel=0.05)
    for end in (low, high):
        changed = fit.model().sigma(total_energy(ENERGIES), QuarkNucleonPotential(alpha=end))
        assert np.sum(((changed - exact) / (0.1 * exact)) ** 2) == pytest.approx(1, rel=1e-3)
    sigma, band = fit.band(ENERGIES[:3])
    np.testing.assert_allclose(band / sigma, slopes[:3, 0] * fit.errors_["alpha"] / values[:3], rtol=1e-4)
    near = [
        fit.model().scattering(QuarkNucleonPotential(alpha=0.025 + s * fit.errors_["alpha"])).scattering_length()
        for s in (1, -1)
    ]
    assert fit.scattering_length_error_ == pytest.approx(abs(near[0] - near[1]) / 2, rel=0.02)


def test_asymmetric_errors_and_a_common_scale():
    assert pulls(np.array([2.0, 0.0]), np.array([[1.0, 2.0, 4.0]] * 2)).tolist() == [0.5, -0.25]
    shared = PhotoproductionFit(nodes=8, waves=1, scale_error=0.27).fit(ENERGIES, MEASURED)
    alone = PhotoproductionFit(nodes=8, waves=1).fit(ENERGIES, MEASURED)
    assert shared.chi2_ < alone.chi2_
    assert shared.errors_["alpha"] > alone.errors_["alpha"]
    assert set(shared.parameters_) == {"alpha", "scale"}
    low, high = shared.profile("alpha")
    assert low < shared.parameters_["alpha"] < high
    assert alone.score(ENERGIES, MEASURED) == pytest.approx(-alone.chi2_ / 10)
    photon = PhotoproductionFit(nodes=8, waves=1, born="vmd", free=("strength",)).fit(ENERGIES, MEASURED)
    assert photon.chi2_ < alone.chi2_


def test_power_laws():
    exact = 3.0 * (1 - 8.2077614 / ENERGIES) ** 1.5
    found = power_law(ENERGIES, np.stack([exact, 0.1 * exact], axis=1))
    assert (found.size, found.exponent) == (pytest.approx(3.0, rel=1e-3), pytest.approx(1.5, rel=1e-3))
    assert power_law(ENERGIES, MEASURED, 2.0).chi2 > power_law(ENERGIES, MEASURED).chi2


@pytest.mark.parametrize(
    ("energies", "measured", "words"),
    [
        ([8.0, 9.0], [[0.1, 0.1]] * 2, "point 1 has 8 GeV"),
        ([8.5, np.nan], [[0.1, 0.1]] * 2, "point 2 has nan"),
        ([8.5, 9.0], [0.1, 0.1], "come with errors"),
        ([8.5, 9.0], [[0.1, 0.1], [0.1, 0.0]], "positive errors"),
        ([8.5, 9.0], [[-0.1, 0.1], [0.1, 0.1]], "from 0 on"),
        ([8.5], [[0.1, 0.1]], "cannot determine"),
    ],
)
def test_data_that_cannot_be_fitted(energies, measured, words):
    with pytest.raises(InputError, match=words):
        PhotoproductionFit().fit(np.array(energies), np.array(measured))
    with pytest.raises(InputError, match="one or more of"):
        PhotoproductionFit(free=("beta",)).fit(ENERGIES, MEASURED)
