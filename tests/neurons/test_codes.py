import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import rollout
from broadsheet.errors import InputError
from broadsheet.neurons import LIF, codes

KEY = jax.random.key(0)


def test_poisson_rates_and_counts():
    """Mean and variance of counts: those of independent draws with the exact probability of a spike in a step."""
    spikes = codes.poisson_trains(jnp.full(400, 80.0), 1000, KEY, dt=0.5)
    p = 1 - np.exp(-0.04)
    counts = np.asarray(codes.spike_count(spikes))
    assert abs(counts.mean() - 1000 * p) < 4 * np.sqrt(1000 * p * (1 - p) / 400)
    assert 0.8 < counts.var() / (1000 * p * (1 - p)) < 1.2
    np.testing.assert_allclose(codes.firing_rate(spikes, dt=0.5), counts / 0.5, rtol=1e-5)


@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.1])
def test_markov_trains_have_the_mean_and_correlation_asked_for(correlation):
    spikes = np.asarray(codes.markov_trains(jnp.full(200, 0.2), correlation, 5000, KEY))
    assert abs(spikes.mean() - 0.2) < 0.01
    centred = spikes - 0.2
    found = (centred[1:] * centred[:-1]).mean() / (0.2 * 0.8)
    assert abs(found - correlation) < 0.02


def test_latencies_are_those_of_a_leaky_neuron():
    x = jnp.array([0.005, 0.05, 0.2, 1.0])
    first = codes.first_spike(codes.latency_code(x, 60, tau=20.0, threshold=0.01))
    dt = 0.01
    cell = LIF(4, tau=20.0, rest=0.0, threshold=0.01, reset=0.0, dt=dt)
    _, spikes = rollout(cell, jnp.broadcast_to(x * (1 - jnp.exp(-dt / 20.0)), (6000, 4)))
    expected = np.where(np.asarray(spikes).any(axis=0), np.asarray(codes.first_spike(spikes)) * dt, 60)
    np.testing.assert_allclose(first, expected, atol=0.52)


def test_decoders():
    spikes = jnp.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(codes.first_spike(spikes), [0, 3])
    w = np.exp(-np.array([2, 1, 0]) / 2.0)
    np.testing.assert_allclose(codes.weighted_rate(spikes, 2.0)[0], (w[0] + w[2]) / w.sum(), rtol=1e-6)
    np.testing.assert_allclose(codes.exponential_trace(spikes, 2.0)[:, 0], [1, np.exp(-0.5), 1 + np.exp(-1)], rtol=1e-6)
    assert codes.constant_current(jnp.ones(3), 4).shape == (4, 3)


@pytest.mark.parametrize(
    ("make", "said"),
    [(lambda: codes.rate_code(jnp.array([1.5]), 3, KEY), "x must lie"),
     (lambda: codes.rate_code(jnp.array([jnp.nan]), 3, KEY), "NaN"),
     (lambda: codes.poisson_trains(jnp.array([-1.0]), 3, KEY), "rate must lie"),
     (lambda: codes.markov_trains(jnp.array([0.2]), -0.9, 3, KEY), "impossible"),
     (lambda: codes.rate_code(jnp.array([0.5]), 0, KEY), "steps = 0"),
     (lambda: codes.latency_code(jnp.ones(2), 3, tau=0.0), "tau = 0.0"),
     (lambda: codes.latency_code(jnp.ones(2), 3, threshold=0.0), "threshold = 0.0"),
     (lambda: codes.exponential_trace(jnp.ones((2, 1)), 0.0), "tau = 0.0"),
     (lambda: codes.double_exponential(jnp.ones((2, 1)), rise=0.0), "rise = 0.0"),
     (lambda: codes.double_exponential(jnp.ones((2, 1)), decay=0.0), "decay = 0.0"),
     (lambda: codes.weighted_rate(jnp.ones((2, 1)), -1.0), "tau = -1.0")],
)  # fmt: skip
def test_mistakes_are_named(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_events_of_poisson_come_as_often_as_their_rates_and_in_order():
    rates = jnp.asarray([10.0, 0.0, 30.0])
    made = jax.jit(lambda key: codes.poisson_events(rates, 4000, key, dt=0.5, size=200))(KEY)
    count = int(made.drawn)
    assert abs(count - 80) < 4 * 80**0.5  # two seconds of 40 Hz
    assert int(made.lost) == 0
    steps, inputs = np.asarray(made.steps)[:count], np.asarray(made.inputs)[:count]
    assert (np.diff(steps) >= 0).all()
    assert 0 <= steps.min() < 400
    assert 3600 < steps.max() < 4000
    assert set(inputs.tolist()) == {0, 2}
    assert abs((inputs == 0).mean() - 0.25) < 4 * (0.25 * 0.75 / count) ** 0.5
    few = codes.poisson_events(rates, 4000, KEY, dt=0.5, size=20)
    assert (int(few.drawn), int(few.lost)) == (20, count - 20)


def test_codes_as_they_come():
    x = jnp.asarray([0.02, 0.1, 1.0])
    found = codes.first_spike(codes.latency_code(x, 10))
    np.testing.assert_array_equal(found, np.round(5 * np.log(np.asarray(x) / (np.asarray(x) - 0.01))))
    one = jnp.zeros((60, 1)).at[0].set(1.0)
    h, r, wanted = 0.0, 0.0, []
    for t in range(60):
        h = np.exp(-1 / 3) * h + (t == 0)
        r = np.exp(-1 / 20) * r + (1 - np.exp(-1 / 20)) * h
        wanted.append(r)
    np.testing.assert_allclose(codes.double_exponential(one)[:, 0], wanted, rtol=1e-5)
    assert codes.firing_rate(one).tolist() == pytest.approx([1000 / 60])
    np.testing.assert_allclose(codes.exponential_trace(one, 4.0)[:, 0], np.exp(-np.arange(60) / 4), rtol=1e-5)
    assert codes.poisson_trains(jnp.full(20_000, 100.0), 1, KEY).mean() == pytest.approx(1 - np.exp(-0.1), rel=0.1)
