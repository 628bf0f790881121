"""Schrödinger bridges against closed forms, scikit-learn's Gaussian process, SciPy's assignment, and plain loops."""

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import norm, wasserstein_distance
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from broadsheet.errors import InputError
from broadsheet.transport import SBIRR, ReferenceSDE, schrodinger_bridge, wasserstein1
from broadsheet.transport.bridges import walk
from broadsheet.transport.drift_regression import ExactGP, Nystrom, RandomFeatures, _Cosines, _Scaled
from broadsheet.transport.reference_processes import (
    FAMILIES,
    brownian,
    euler_paths,
    family,
    lamb_oseen,
    linear,
    lotka_volterra,
    repressilator,
    transitions,
    vortex,
)
from broadsheet.transport.reference_refinement import increments_of, misfit, refit, stack_snapshots
from broadsheet.transport.snapshot_series import branching, drifters, gene_ring, observe, predator_prey
from broadsheet.transport.trajectory_baselines import matched, shoot, spline_paths

KEY = jax.random.key(0)
ZERO = jnp.zeros(())
RNG = np.random.default_rng(0)
QUANTILES = norm.ppf((np.arange(200) + 0.5) / 200)[:, None]
LV = {"a": 1.0, "b": 0.4, "d": 0.1, "g": 0.4}
TIMES = np.linspace(0, 1, 11, dtype=np.float32)


def test_a_bridge_of_normal_laws_has_the_covariance_and_the_drift_of_the_closed_form():
    """Ends with c = (sqrt(4 s0² s1² + sigma⁴) - sigma²) / 2; the drift at 1/2 takes each point half-way to where it goes."""
    bridge = schrodinger_bridge(QUANTILES, QUANTILES / 2, brownian(1.0), dt=0.1, key=KEY)
    v0, v1 = QUANTILES.var(), QUANTILES.var() / 4
    c = (np.sqrt(4 * v0 * v1 + 1) - 1) / 2
    coupling = bridge.coupling()
    np.testing.assert_allclose(coupling.sum(axis=1), 1 / 200, rtol=1e-3)
    np.testing.assert_allclose(coupling.sum(axis=0), 1 / 200, rtol=1e-3)
    assert float(QUANTILES[:, 0] @ coupling @ (QUANTILES[:, 0] / 2)) == pytest.approx(c, rel=3e-3)
    here = (v0 + v1 + 2 * c) / 4 + 1 / 4
    at = np.array([[-1.0], [0.5]])
    np.testing.assert_allclose(bridge.drift(at, 0.5), ((c + v1) / 2 / here - 1) * at / 0.5, rtol=0.02)
    begin = np.repeat(np.arange(200), 25)
    paths, ends = bridge.forth(jax.random.key(1), begin)
    np.testing.assert_allclose(paths[-1], (QUANTILES / 2)[ends], atol=1e-5)
    assert float(paths[5].var()) == pytest.approx(here, rel=0.06)
    paths, starts = bridge.back(jax.random.key(2), begin)
    np.testing.assert_allclose(paths[0], QUANTILES[starts], atol=1e-5)
    assert np.cov(paths[0, :, 0], paths[-1, :, 0])[0, 1] == pytest.approx(c, rel=0.2)


def test_transitions_of_a_linear_drift_are_those_of_its_steps():
    A, b, sigma = np.array([[-0.5, 1.0], [-1.0, 0.2]]), np.array([0.3, 0.0]), 0.4
    reference = ReferenceSDE(linear, {"A": A, "b": b}, sigma)
    found = transitions(reference, reference.sigma, jnp.array([[1.0, 2.0]]), jnp.asarray(TIMES))
    m, S, flow = np.array([1.0, 2.0]), np.zeros((2, 2)), np.eye(2) + 0.1 * A
    spreads = [S]
    for _ in range(10):
        m, S = m + 0.1 * (A @ m + b), flow @ S @ flow.T + 0.1 * sigma**2 * np.eye(2)
        spreads.append(S)
    np.testing.assert_allclose(found.mean[-1, 0], m, rtol=1e-5)
    np.testing.assert_allclose(found.covariance[0], S, rtol=1e-4)
    for k in (0, 4, 10):
        gain = spreads[k] @ np.linalg.matrix_power(flow, 10 - k).T @ np.linalg.inv(S)
        np.testing.assert_allclose(found.gain[k, 0], gain, atol=1e-4)


def test_groups_of_points_have_plans_of_their_own():
    x, y = RNG.normal(size=(53, 2)), RNG.normal(size=(37, 2)) + 1
    bridge = schrodinger_bridge(x, y, brownian(0.5), dt=0.25, group=20, key=KEY)
    assert len(bridge.rows) == 3
    coupling = bridge.coupling()
    np.testing.assert_allclose(coupling.sum(axis=1), 1 / 53, rtol=1e-3)
    assert coupling.sum() == pytest.approx(1, rel=1e-3)
    for at, backwards, of in ((np.arange(53), False, coupling), (np.arange(37), True, coupling.T)):
        assert (of[at, bridge.partners(KEY, at, backwards)] > 0).all()
    with pytest.raises(InputError, match="3 groups"):
        bridge.drift(x, 0.5)


def test_gaussian_processes_are_those_of_scikit_learn():
    x, t, v = (jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in ((3, 20, 1), (3,), (3, 20, 1)))
    lengths, args = jnp.array([2.0, 1.0]), (jnp.asarray(0.5), jnp.asarray(4.0))
    rows = np.column_stack([np.ravel(x), np.repeat(t, 20)])
    kernel = ConstantKernel(4.0, "fixed") * Matern([2.0, 1.0], "fixed", nu=0.5)
    peer = GaussianProcessRegressor(kernel, alpha=0.5, optimizer=None).fit(rows, np.ravel(v))
    at = np.array([[0.3, -0.2], [2.0, 0.1]])
    exact = ExactGP()(x, t, v, *args, lengths, KEY)
    every = Nystrom(60)(x, t, v, *args, lengths, KEY)
    for drift in (exact, every):
        run = eqx.filter_jit(drift)
        found = [float(run(jnp.asarray(each[:1], jnp.float32), jnp.asarray(each[1], jnp.float32))[0]) for each in at]
        np.testing.assert_allclose(found, peer.predict(at), rtol=2e-3)
    cosines = eqx.filter_jit(_Cosines(_Scaled(jnp.ones(2)), *_frequencies(20_000)))
    a, b = jnp.array([0.1]), jnp.array([0.8])
    assert float(np.asarray(cosines(a, jnp.zeros(()))) @ np.asarray(cosines(b, jnp.asarray(0.3)))) == pytest.approx(
        np.exp(-np.hypot(0.7, 0.3)), abs=0.03
    )
    assert np.isfinite(eqx.filter_jit(RandomFeatures(7)(x, t, v, *args, lengths, KEY))(a, jnp.zeros(()))).all()
    with pytest.raises(InputError, match="9000 rows"):
        ExactGP()(jnp.zeros((9, 1000, 1)), t, v, *args, lengths, KEY)


def _frequencies(features):
    rng = np.random.default_rng(1)
    z = rng.normal(size=(2, features)) / np.abs(rng.normal(size=features))
    return jnp.asarray(z, jnp.float32), jnp.asarray(rng.uniform(0, 2 * np.pi, features), jnp.float32)


def test_drifts_in_turns_carry_one_snapshot_into_the_other():
    x = RNG.normal(size=(100, 1))
    bridge = schrodinger_bridge(
        x, x / 2 + 2, brownian(1.0), dt=0.1, method="ipfp", iterations=3, regressor=Nystrom(50), key=KEY
    )
    paths, ends = bridge.forth(jax.random.key(1))
    assert float(ends.mean()) == pytest.approx(2 + x.mean() / 2, abs=0.4)
    np.testing.assert_array_equal(paths[-1], ends)
    paths, begins = bridge.back(jax.random.key(1))
    assert float(begins.mean()) == pytest.approx(x.mean(), abs=0.5)
    assert bridge.drift(x[:3], 0.3).shape == (3, 1)


def test_drifts_of_families():
    x, run = jnp.array([1.2, 0.7]), jax.jit(lambda drift, *given: drift(*given), static_argnums=0)
    np.testing.assert_allclose(run(lotka_volterra, LV, x, ZERO), [1.2 - 0.4 * 0.84, 0.1 * 0.84 - 0.4 * 0.7], rtol=1e-5)
    genes = {"beta": 10.0, "n": 3.0, "k": 1.5, "gamma": 0.8}
    three = np.array([0.4, 1.2, 2.0])
    expected = [10 / (1 + (three[k - 1] / 1.5) ** 3) - 0.8 * three[k] for k in range(3)]
    np.testing.assert_allclose(run(repressilator, genes, jnp.asarray(three), ZERO), expected, rtol=1e-4)
    assert np.isfinite(run(repressilator, genes | {"n": 60.0}, jnp.array([-1.0, 9.0, 0.0]), ZERO)).all()
    turn = {"x0": 0.2, "y0": 0.1, "l": 0.3, "s": 0.9}
    np.testing.assert_allclose(run(vortex, turn, x, ZERO), [0.9 * 0.6 * np.exp(-0.3), -0.9], rtol=1e-5)
    whirl = np.asarray(run(lamb_oseen, {"x0": 0.2, "y0": 0.1, "scale": 0.0, "circulation": 2.0}, x, ZERO))
    r = np.hypot(1.0, 0.6)
    assert np.linalg.norm(whirl) == pytest.approx(2 * (1 - np.exp(-(r**2))) / r, rel=1e-5)
    assert whirl @ np.array([1.0, 0.6]) == pytest.approx(0, abs=1e-6)
    for name, (_, d, _) in FAMILIES.items():
        made = family(name, d or 4, 0.1, KEY)
        assert jax.eval_shape(made, jnp.ones(d or 4), ZERO).shape == (d or 4,)


def test_a_refit_of_a_family_linear_in_its_rates_is_least_squares():
    truth = ReferenceSDE(lotka_volterra, LV, 0.1)
    start = jnp.asarray(RNG.uniform(1, 5, (40, 2)), jnp.float32)
    steps = increments_of(euler_paths(truth, truth.sigma, start, jnp.asarray(TIMES), KEY), TIMES)
    assert float(misfit(truth, steps)) == pytest.approx(1, abs=0.15)
    found = refit(family("lotka-volterra", 2, 0.1, KEY), steps)
    x, v = np.asarray(steps.x, float), np.asarray(steps.v, float)
    both = x[:, 0] * x[:, 1]
    first = np.linalg.lstsq(np.column_stack([x[:, 0], -both]), v[:, 0], rcond=None)[0]
    second = np.linalg.lstsq(np.column_stack([both, -x[:, 1]]), v[:, 1], rcond=None)[0]
    np.testing.assert_allclose([abs(float(found.params[n])) for n in "abdg"], [*first, *second], rtol=2e-3)
    assert float(misfit(found, steps)) <= float(misfit(truth, steps))
    slow = refit(family("lotka-volterra", 2, 0.1, KEY), steps, by="adam", epochs=200, batch=100)
    assert float(misfit(slow, steps)) < 1.5 * float(misfit(found, steps))
    with pytest.raises(InputError, match="no parameters"):
        refit(brownian(), steps)


def test_rates_are_learnt_from_snapshots():
    series = predator_prey(KEY, 20, 5).every(2)
    x, t = stack_snapshots(series.snapshots, series.times)
    order = RNG.permutation(len(x))
    model = SBIRR(family("lotka-volterra", 2, 0.1, KEY), outer=4, dt=0.1).fit(x[order], t[order])
    assert [abs(float(model.params_[n])) for n in "abdg"] == pytest.approx([1.0, 0.4, 0.1, 0.4], rel=0.25)
    assert model.misfits_[-1] < model.misfits_[0]
    assert model.paths_.shape == (41, 60, 2)
    np.testing.assert_allclose(np.sort(model.interpolate(0.0)[:20], axis=0), np.sort(series.snapshots[0], axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.interpolate(0.25), (model.paths_[2] + model.paths_[3]) / 2)
    assert model.sample(70).shape == (70, 41, 2)
    assert model.predict(x[:3], t[:3]).shape == (3, 2)
    assert -0.2 < model.score(x, t) < 0
    fitted, missed = shoot(family("lotka-volterra", 2, 0.1, KEY), series.snapshots, series.times, dt=0.1, starts=5)
    assert missed < 0.1
    assert abs(float(fitted.params["b"])) == pytest.approx(0.4, rel=0.25)
    with pytest.raises(InputError, match=r"from 0 to 4, not to 5"):
        model.interpolate(5.0)


def test_paths_go_through_all_snapshots():
    parts = [RNG.normal(size=(n, 2)) + k for k, n in enumerate((6, 9, 6))]
    for options in ({}, {"method": "ipfp", "iterations": 1, "regressor": Nystrom(20)}):
        bridges = [
            schrodinger_bridge(a, b, brownian(0.5), start=float(k), stop=k + 1.0, dt=0.25, key=KEY, **options)
            for k, (a, b) in enumerate(pairwise(parts))
        ]
        paths = walk(bridges, KEY)
        assert paths.shape == (9, 21, 2)
        for k, (begin, part) in enumerate(zip((0, 6, 15), parts, strict=True)):
            np.testing.assert_allclose(paths[4 * k, begin : begin + len(part)], part, rtol=1e-5, atol=1e-6)


def test_distances_and_matches():
    x, y = RNG.normal(size=(30, 2)), RNG.normal(size=(30, 2))
    rows, columns = linear_sum_assignment(cdist(x, y))
    assert wasserstein1(x, y) == pytest.approx(cdist(x, y)[rows, columns].mean(), rel=1e-6)
    assert wasserstein1(x[:, :1], y[:17, :1]) == pytest.approx(wasserstein_distance(x[:, 0], y[:17, 0]), rel=1e-6)
    chains = matched([x, x[::-1] + 0.001, x])
    np.testing.assert_allclose(chains[2], x)
    np.testing.assert_allclose(spline_paths([x, x + 1, x + 2], np.arange(3.0), np.array([0.5])), x[None] + 0.5)
    with pytest.raises(InputError, match="at least one"):
        wasserstein1(x, y[:0])


def test_generated_populations():
    for made, d in (
        (predator_prey(KEY, 5, 3), 2),
        (gene_ring(KEY, 5, 3), 3),
        (drifters(KEY, 5, 3), 2),
        (branching(KEY, 5, 3), 5),
    ):
        assert [part.shape for part in made.snapshots] == [(5, d)] * 3
        assert made.every(2).times.tolist() == [made.times[0], made.times[2]]
    with pytest.raises(InputError, match="whole steps"):
        observe(brownian(), jnp.zeros((4, 1)), np.array([0.0, 0.15]), KEY, 0.1)
    with pytest.raises(InputError, match="at least one each"):
        observe(brownian(), jnp.zeros((1, 1)), np.array([0.0, 0.1]), KEY, 0.1)


@pytest.mark.parametrize(
    ("x", "t", "said"),
    [
        (np.zeros((4, 1)), np.zeros(4), "two times or more"),
        (np.zeros((3, 1)), np.array([0, 0, 1]), "Time 1 has one point"),
        (np.array([[0.0], [np.nan], [1.0], [2.0]]), np.array([0, 0, 1, 1]), "1 rows are not finite, the first of them row 1"),
        (np.zeros((4, 1)), np.zeros(3), "one number a row"),
        (np.zeros((0, 2)), np.zeros(0), "are wanted"),
        (np.array([["a"]]), np.zeros(1), "numbers"),
    ],
)
def test_rows_that_are_no_snapshots_are_refused(x, t, said):
    with pytest.raises(InputError, match=said):
        SBIRR().fit(x, t)


@pytest.mark.parametrize(
    ("snapshots", "times", "said"),
    [
        ([np.zeros((2, 1))] * 3, [0, 2, 1], "Time 2 is 1, after 2"),
        ([np.zeros((2, 1)), np.zeros((0, 1))], [0, 1], "Snapshot 1 is"),
        ([np.zeros((2, 1)), np.zeros((2, 3))], [0, 1], "Snapshot 1 is"),
        ([np.zeros((2, 1))], [0, 1], "one time a snapshot"),
    ],
)
def test_snapshots_in_disorder_are_refused(snapshots, times, said):
    with pytest.raises(InputError, match=said):
        stack_snapshots(snapshots, times)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"x0": np.zeros((0, 1))}, "x0 holds"),
        ({"x1": np.full((2, 1), np.inf)}, "2 points that are not finite"),
        ({"x1": np.zeros((2, 2))}, "1 and 2 dimensions"),
        ({"stop": -1.0}, "times that rise"),
        ({"dt": 0.0}, "step above 0"),
        ({"method": "other"}, "'gaussian' or 'ipfp'"),
        ({"method": "ipfp", "iterations": 0}, "0 iterations"),
        ({"group": 1}, "Groups of 1"),
    ],
)
def test_a_bridge_of_what_cannot_be_bridged_is_refused(options, said):
    given = {"x0": np.zeros((2, 1)), "x1": np.ones((2, 1)), "reference": brownian(), "key": KEY} | options
    with pytest.raises(InputError, match=said):
        schrodinger_bridge(given.pop("x0"), given.pop("x1"), given.pop("reference"), **given)


def test_references_that_are_none_are_refused():
    with pytest.raises(InputError, match="volatility above 0"):
        brownian(0.0)
    with pytest.raises(InputError, match="of 2 dimensions"):
        family("vortex", 3, 0.1, KEY)
    with pytest.raises(InputError, match="no family"):
        family("tides", 3, 0.1, KEY)
    with pytest.raises(InputError, match="outer is 0"):
        SBIRR(outer=0).fit(np.zeros((4, 1)), [0, 0, 1, 1])
