"""The reservoir, its features, and trials of cues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import rollout
from broadsheet.errors import InputError
from broadsheet.networks.prediction import (
    OMITTED,
    Block,
    Library,
    cue_trials,
    interleaved,
    learn,
    library,
    prediction_object,
    serial_compound,
    subspace_angle,
    target,
)
from broadsheet.networks.reservoir import Features, heterogeneous_cells, reservoir
from broadsheet.neurons.codes import double_exponential
from broadsheet.plasticity import ErrorModulated, RecursiveLeastSquares


def test_a_spike_leaves_the_difference_of_two_exponentials():
    """In the limit of short steps: (exp(-t / 20) - exp(-t / 3)) 3 / 17 times dt, an integral of 3 / dt steps."""
    dt = 0.01
    spikes = jnp.zeros((30_000, 1)).at[0, 0].set(1.0)
    t = dt * np.arange(30_000)
    expected = 3 / 17 * (np.exp(-t / 20) - np.exp(-t / 3))
    np.testing.assert_allclose(double_exponential(spikes, dt=dt)[:, 0], expected, atol=1e-3)


def test_weights_and_currents_are_what_was_asked_for():
    net = reservoir(jax.random.key(0), 200, connection=0.2, gain=0.7)
    W = np.asarray(net.weights)
    assert not W.diagonal().any()
    assert (W[:, :160] >= 0).all()
    assert (W[:, 160:] <= 0).all()
    assert abs((W != 0).mean() - 0.2) < 0.02
    assert abs(W[:, :160][W[:, :160] > 0].mean() / (0.5 * 0.7 / np.sqrt(40)) - 1) < 0.05
    _, state = rollout(net, jnp.zeros((200, 1)), key=jax.random.key(1), record=lambda state, _: (state.current, state.spikes))
    current, spikes = map(np.asarray, state)
    np.testing.assert_allclose(current[1:], np.exp(-1 / 5) * current[:-1] + spikes[:-1] @ W.T, atol=1e-4)
    assert spikes.sum() > 100


def test_cells_are_those_of_the_published_recipe():
    """Izhikevich (2003): of a thousand, 800 with a = 0.02, b = 0.2, c from -65 to -50 and d from 8 to 2, and 200 fast ones."""
    cells = heterogeneous_cells(jax.random.key(0), 1000)
    a, b, c, d = (np.asarray(getattr(cells, name)) for name in "abcd")
    np.testing.assert_allclose(a[:800], 0.02)
    np.testing.assert_allclose(b[:800], 0.2)
    np.testing.assert_allclose((c[:800] + 65) / 15, (8 - d[:800]) / 6, atol=1e-5)
    assert c[:800].min() < -64.9
    assert c[:800].max() > -50.1
    np.testing.assert_allclose((a[800:] - 0.02) / 0.08, (0.25 - b[800:]) / 0.05, atol=1e-4)
    assert a[800:].max() > 0.099
    np.testing.assert_allclose(np.stack([c[800:], d[800:]]), np.broadcast_to([[-65.0], [2.0]], (2, 200)))


def test_outcomes_come_as_often_as_they_should():
    trials = cue_trials(jax.random.key(0), [Block(4000, (0.5, 0.2), 300.0), Block(10, (1.0,), 420.0)])
    first = np.asarray(trials.outcomes)[:4000]
    for outcome, p in ((0, 0.5), (1, 0.2), (OMITTED, 0.3)):
        assert abs((first == outcome).mean() - p) < 4 * np.sqrt(p * (1 - p) / 4000)
    assert (np.asarray(trials.outcomes)[4000:] == 0).all()
    assert np.flatnonzero(trials.switched).tolist() == [4000]
    with pytest.raises(InputError, match="at most 1 together"):
        cue_trials(jax.random.key(0), [Block(3, (0.8, 0.3), 300.0)])


def orthogonal_library():
    """Features that differ at each time: what is learned at one is not heard at another."""
    times = jnp.arange(30.0, 301.0, 30.0)
    return Library(jnp.eye(len(times))[None], times)


@pytest.mark.parametrize("split", [True, False])
def test_orthogonal_features_learn_time_and_probability(split):
    """With rate 0.1 and the gate open, the mean of the last trials is the probability itself."""
    given = orthogonal_library()
    trials = cue_trials(jax.random.key(1), [Block(400, (0.7, 0.3), 150.0)])
    found = learn(ErrorModulated(jnp.zeros((10, 2)), rate=0.1, split=split), given, trials, jax.random.key(2))
    assert (np.asarray(found.time)[50:] == 150).all()
    np.testing.assert_allclose(np.asarray(found.probability)[100:].mean(0), [0.7, 0.3], atol=0.06)


def test_split_and_joint_rules_give_the_same_weights():
    rng = np.random.default_rng(0)
    given = Library(jnp.asarray(rng.standard_normal((3, 20, 15)) / 4), jnp.arange(20) * 10.0)
    trials = cue_trials(jax.random.key(1), [Block(30, (0.5, 0.3), 100.0)])
    split, joint = (
        learn(ErrorModulated(jnp.zeros((15, 2)), split=s), given, trials, jax.random.key(2)).weights for s in (True, False)
    )
    np.testing.assert_allclose(split, joint, atol=1e-5)


def test_cues_come_in_any_order_and_keep_their_own():
    first = cue_trials(jax.random.key(0), [Block(30, (0.5, 0.2), 100.0), Block(20, (0.1, 0.9), 200.0)])
    second = cue_trials(jax.random.key(1), [Block(25, (1.0,), 300.0)])
    mixed = interleaved(jax.random.key(2), [first, second])
    cues = np.asarray(mixed.cues)
    assert (cues == 0).sum() == 50
    assert (cues == 1).sum() == 25
    assert (np.diff(cues) != 0).sum() > 10
    for cue, own in enumerate((first, second)):
        for field in ("outcomes", "times", "switched"):
            np.testing.assert_array_equal(np.asarray(getattr(mixed, field))[cues == cue], getattr(own, field))


def test_a_delay_line_learns_times_and_probabilities_of_each_cue_with_omissions():
    """Each feature is one time after one cue: heights are the probabilities, omissions lower them."""
    times = jnp.arange(30.0, 301.0, 30.0)
    plans = [(150.0, (0.7, 0.3)), (240.0, (0.2, 0.4))]
    courses = [cue_trials(jax.random.key(k), [Block(400, p, time)]) for k, (time, p) in enumerate(plans)]
    trials = interleaved(jax.random.key(5), courses)
    found = learn(ErrorModulated(jnp.zeros((20, 2)), rate=0.1), serial_compound(times, 2), trials, jax.random.key(2))
    for cue, (time, p) in enumerate(plans):
        own = np.flatnonzero(trials.cues == cue)[100:]
        assert (np.asarray(found.time)[own] == time).all()
        np.testing.assert_allclose(np.asarray(found.probability)[own].mean(0), p, atol=0.08)


def test_trajectories_of_one_cue_are_more_alike_than_those_of_two():
    net = reservoir(jax.random.key(0), 60, cues=2)
    found = library(net, jax.random.key(1), trials=3, steps=300)
    assert found.cues == 2
    X = np.asarray(found.features).reshape(6, -1)
    apart = np.linalg.norm(X[:, None] - X, axis=-1)
    assert apart[:3, :3].max() < apart[:3, 3:].min()


def test_least_squares_steps_blocks_and_the_normal_equations_agree():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        X, Y = rng.standard_normal((2, 25, 8)), rng.standard_normal((2, 25, 3))
        for forget in (1.0, 0.97):
            rule = RecursiveLeastSquares(jnp.zeros((8, 3)), alpha=0.1, forget=forget)
            one = block = rule.init(jax.random.key(0))
            for x, y in zip(jnp.asarray(X), jnp.asarray(Y), strict=True):
                one, _ = rollout(rule, (x, y, jnp.ones(25)), state=one)
                block = rule.trial(block, x, y, jnp.ones(25))
            flat, wanted = X.reshape(50, 8), Y.reshape(50, 3)
            ages = forget ** np.arange(49, -1, -1)
            normal = flat.T @ (ages[:, None] * flat) + 0.1 * forget**50 * np.eye(8)
            weights = np.linalg.solve(normal, flat.T @ (ages[:, None] * wanted)).T
            np.testing.assert_allclose(one.weights, weights, atol=1e-9)
            np.testing.assert_allclose(block.weights, weights, atol=1e-9)
            np.testing.assert_allclose(block.P, np.linalg.inv(normal), atol=1e-9)
        np.testing.assert_allclose(rule.reset(block).P, 10 * np.eye(8))


def test_prediction_and_target():
    times = jnp.arange(0.0, 300.0, 3.0)
    z = 0.6 * target(jnp.asarray(0), jnp.asarray(150.0), times, 2) + 0.2 * target(jnp.asarray(1), jnp.asarray(150.0), times, 2)
    when, chance = prediction_object(z, times)
    near = np.exp(-(np.arange(-9, 10, 3.0) ** 2) / 800).mean()
    assert when == 150
    np.testing.assert_allclose(chance, [0.6 * near, 0.2 * near], rtol=1e-5)
    assert not target(jnp.asarray(OMITTED), jnp.asarray(150.0), times, 2).any()


def test_features_are_centred_and_of_mean_norm_one():
    raw = jax.random.uniform(jax.random.key(0), (4, 50, 6))
    x = Features.of(raw)(raw)
    np.testing.assert_allclose(x.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(x, axis=-1).mean(), 1, rtol=1e-5)


def test_angles_of_known_planes():
    a = np.array([[1.0, 0], [0, 1], [0, 0], [0, 0]])
    b = np.array([[1.0, 0], [0, 0], [np.tan(np.radians(40)), 0], [0, 1]])
    assert abs(subspace_angle(a, b) - 40) < 1e-6


@pytest.mark.parametrize(
    "make",
    [lambda: ErrorModulated(jnp.zeros((0, 2))), lambda: RecursiveLeastSquares(jnp.zeros((3, 0))), lambda: double_exponential(jnp.zeros((3, 1)), rise=0.0),
     lambda: rollout(reservoir(jax.random.key(0), 10), jnp.zeros((2, 1)))],
)  # fmt: skip
def test_mistakes_are_named(make):
    with pytest.raises(InputError):
        make()
