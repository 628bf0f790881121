"""Gains within a recurrent network, against finite differences, dense solves, SciPy's minimiser and its ODE solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares, minimize

from broadsheet.dynamics import rollout, substep
from broadsheet.errors import InputError
from broadsheet.networks.gain_control import (
    GainCircuit,
    GainNetwork,
    TwoPasses,
    online,
    ridge_decoder,
    without_recurrence,
)
from broadsheet.networks.orientations import biased, circulant_weights, drives, ring_network, uniform, weights_between


def lopsided(neurons=5, stimuli=7, seed=0):
    """A network without any symmetry, a decoder of its own, an ensemble, gains."""
    rng = np.random.default_rng(seed)
    F, W, D = (
        rng.random((neurons, stimuli)),
        0.3 * rng.standard_normal((neurons, neurons)),
        rng.standard_normal((neurons, neurons)),
    )
    return GainNetwork(F, W, D), rng.dirichlet(np.ones(stimuli)), 0.5 + rng.random(neurons)


def test_steady_state_and_loss_by_loops():
    network, p, g = lopsided()
    H = network.steady(g)
    loss = 2.4 * sum((each - 1) ** 2 for each in g)
    for s in range(network.stimuli):
        r = np.linalg.solve(np.eye(5) - network.W @ np.diag(g), network.F[:, s])
        np.testing.assert_allclose(H[:, s], g * r)
        missed = network.F[:, s] - network.D @ (g * r)
        loss += p[s] * (missed @ missed + 0.7 * (g * r) @ (g * r))
    assert network.loss(g, p) == pytest.approx(loss, rel=1e-12)
    assert network.expand(g, p).loss == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize(("neurons", "stimuli"), [(5, 7), (6, 3), (5, 1200)])
def test_gradient_and_hessian_are_finite_differences(neurons, stimuli):
    """Also where fewer stimuli than neurons leave a second moment of low rank, and where stimuli are many."""
    network, p, g = lopsided(neurons, stimuli)
    found = network.expand(g, p, 0.4, 1.1)
    assert found.loss == pytest.approx(network.loss(g, p, 0.4, 1.1), rel=1e-12)
    steps = 1e-6 * np.eye(neurons)
    slope = [(network.loss(g + e, p, 0.4, 1.1) - network.loss(g - e, p, 0.4, 1.1)) / 2e-6 for e in steps]
    np.testing.assert_allclose(found.gradient, slope, rtol=1e-6, atol=1e-7)
    curve = [(network.grad(g + e, p, 0.4, 1.1) - network.grad(g - e, p, 0.4, 1.1)) / 2e-6 for e in steps]
    np.testing.assert_allclose(found.hessian, curve, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_newton_finds_what_lbfgs_finds(seed):
    network, p, _ = lopsided(seed=seed)
    ours = network.adapt(p, gamma=0.5, bounds=(0.4, 1.2))

    def loss(g):
        return network.loss(g, p, gamma=0.5), network.grad(g, p, gamma=0.5)

    theirs = minimize(loss, np.ones(5), jac=True, method="L-BFGS-B", bounds=[(0.4, 1.2)] * 5, options={"ftol": 1e-15})
    assert network.loss(ours, p, gamma=0.5) <= theirs.fun + 1e-9
    np.testing.assert_allclose(ours, theirs.x, atol=1e-4)
    assert 0.4 <= ours.min() <= ours.max() <= 1.2


def test_closed_form_without_recurrence_and_symmetry_with_it():
    p = biased(12, 3)
    alone = GainNetwork(drives(12), np.zeros((12, 12)))
    np.testing.assert_allclose(alone.adapt(p), without_recurrence(alone.F, p), atol=1e-9)
    ring = ring_network(12)
    assert ring.adapt(uniform(12)).std() < 1e-9
    turned = np.roll(ring.adapt(biased(12, 3)), 4)
    np.testing.assert_allclose(turned, ring.adapt(biased(12, 7)), atol=1e-8)


def test_gains_of_the_default_ring():
    """From an independent L-BFGS run on the written-out objective."""
    ring = ring_network(24)
    g = ring.adapt(biased(24, 12))
    np.testing.assert_allclose([g[12], g[16], g[0]], [0.6141, 0.6880, 0.7275], atol=5e-5)
    assert ring.adapt(uniform(24))[0] == pytest.approx(0.68849, abs=1e-5)


def test_a_grid_of_stimuli_twice_as_fine_changes_little():
    coarse, fine = ring_network(24), ring_network(24, 48)
    np.testing.assert_allclose(coarse.adapt(biased(24, 12)), fine.adapt(biased(48, 24)), atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_stability_is_that_of_the_eigenvalues(seed, symmetric):
    rng = np.random.default_rng(seed)
    W = 0.3 * rng.standard_normal((4, 4))
    W = (W + W.T) / 2 if symmetric else W
    if np.linalg.eigvals(W).real.max() >= 1:
        return
    network, g = GainNetwork(np.ones((4, 2)), W), rng.uniform(0.1, 6, 4)
    assert network.stable(g) == (np.linalg.eigvals(np.diag(g) @ W).real.max() < 1)


def test_steps_stay_within_stability():
    """Activity costs nothing and error falls with larger gains until the edge: g D = 2 asks for more than there is."""
    W = circulant_weights(8, 0.9)
    network = GainNetwork(drives(8), W, 0.05 * np.eye(8))
    g = network.adapt(uniform(8), alpha=0.0, gamma=1e-4)
    assert network.stable(g)
    assert g.max() > 1.05
    assert np.abs(network.grad(g, uniform(8), 0.0, 1e-4)).max() < 1e-6


def test_dynamics_are_those_of_the_differential_equation():
    network, _, g = lopsided()
    drive = network.F[:, 0]
    solved = solve_ivp(
        lambda t, r: (-r + drive + network.W @ (g * r)) / network.tau, (0, 30), np.zeros(5), rtol=1e-9, atol=1e-10
    )
    h = network.simulate(np.tile(drive, (3000, 1)), g, dt=0.01)
    np.testing.assert_allclose(h[-1], g * solved.y[:, -1], rtol=2e-3, atol=1e-4)


def test_second_relaxation_and_rule_follow_the_gradient():
    network, _, g = lopsided(seed=2)
    one = np.eye(7)[3]
    fast = substep(TwoPasses(GainCircuit(network.W, network.tau, 1.0), network.D, 0.7), 1500)
    _, (h, b) = fast.step(fast.init(jax.random.key(0)), (jnp.asarray(network.F[:, 3]), jnp.asarray(g)))
    H = network.steady(g)[:, 3]
    cost = 2 * (0.7 * H - network.D.T @ (network.F[:, 3] - network.D @ H))
    np.testing.assert_allclose(h, H, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(b, np.linalg.solve(np.diag(1 / g) - network.W.T, cost), rtol=1e-3, atol=1e-4)
    system = online(network, 1e-3, hold=1500.0)
    state, _ = rollout(system, jnp.asarray(network.F.T[[3]]))
    wanted = 1 - 1e-3 * network.grad(np.ones(5), one)
    np.testing.assert_allclose(state[1], wanted, atol=2e-6)


def test_gains_come_back_from_their_responses():
    network, _, g = lopsided()
    np.testing.assert_allclose(network.fit(network.steady(g)), g, atol=1e-6)


@pytest.mark.parametrize(("neurons", "stimuli"), [(5, 7), (6, 3)])
def test_a_fit_to_responses_of_no_gains_is_least_squares(neurons, stimuli):
    network, _, _ = lopsided(neurons, stimuli)
    responses = network.steady() + 0.3 * np.random.default_rng(1).standard_normal((neurons, stimuli))

    def missed(g):
        return np.append((responses - network.steady(g)).ravel() / stimuli**0.5, 0.2**0.5 * (g - 1))

    theirs = least_squares(missed, np.ones(neurons), bounds=(0.01, 3.0), xtol=1e-14, ftol=1e-14, gtol=1e-14)
    np.testing.assert_allclose(network.fit(responses, 0.2), theirs.x, atol=1e-6)


def test_decoders():
    network, p, _ = lopsided()
    H = network.steady()
    D = ridge_decoder(network.F, H, p, 0.0)
    np.testing.assert_allclose(D @ H, network.F, atol=1e-7)
    np.testing.assert_allclose(GainNetwork(network.F, network.W).D @ H, network.F, atol=1e-12)


def test_weights_of_a_ring():
    W = circulant_weights(9, 0.7, 3.0)
    np.testing.assert_allclose(W, weights_between(np.pi * np.arange(9) / 9, 0.7, 3.0), atol=1e-15)
    assert np.array_equal(W, W.T)
    np.testing.assert_allclose(W.sum(axis=1), 0.7)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda n: ring_network(8, excitation=1.0), "eigenvalue of real part 1"),
        (lambda n: GainNetwork(n.F, n.W[:, :3]), r"W has the shape \(8, 3\)"),
        (lambda n: GainNetwork(n.F[0], n.W), "F has the shape"),
        (lambda n: GainNetwork(n.F * np.nan, n.W), "F holds NaN"),
        (lambda n: GainNetwork(n.F, n.W, tau=0.0), "time constant is positive"),
        (lambda n: n.adapt(np.ones(8)), "sum 8"),
        (lambda n: n.adapt(uniform(7)), "8 probabilities"),
        (lambda n: n.adapt(uniform(8), alpha=-1.0), "prices are not negative"),
        (lambda n: n.adapt(uniform(8), bounds=(1.0, 0.5)), "the smaller first"),
        (lambda n: n.adapt(uniform(8), start=np.full(8, 2.0)), "past stability"),
        (lambda n: n.adapt(biased(8, 1), max_steps=1), "did not settle in 1 steps"),
        (lambda n: n.steady(np.full(8, 2.0)), "past stability"),
        (lambda n: n.steady(np.ones(3)), "8 positive gains"),
        (lambda n: n.fit(n.F[:, :2]), "Finite responses of the shape"),
        (lambda n: n.simulate(n.F.T, np.ones(8), dt=20.0), "below the time constant"),
        (lambda n: online(n, rate=0.0), "positive one"),
        (lambda n: online(n, hold=1.5), "whole number of steps"),
        (lambda n: biased(8, 8), "is no adapter"),
        (lambda n: biased(8, 0, 1.0), "from 0 to below 1"),
        (lambda n: uniform(1), "two or more"),
        (lambda n: ridge_decoder(n.F, n.F, uniform(8), -1.0), "not negative"),
    ],
)
def test_what_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call(ring_network(8))
