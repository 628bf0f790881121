import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.dynamics import RingBuffer, SynapticDelays, rollout
from broadsheet.errors import EventOverflowError, InputError


def delayed_sum(weights, delays, spikes):
    """The definition, as a loop: a spike at t through a synapse of delay d arrives at t + d."""
    arriving = np.zeros((len(spikes) + delays.max() + 1, weights.shape[1]))
    for t, i in zip(*np.nonzero(spikes), strict=True):
        for j in range(weights.shape[1]):
            arriving[t + delays[i, j], j] += weights[i, j] * spikes[t, i]
    return arriving[: len(spikes)]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_both_modes_equal_the_definition(seed):
    rng = np.random.default_rng(seed)
    weights, delays = rng.normal(size=(6, 4)).astype(np.float32), rng.integers(0, 7, size=(6, 4))
    spikes = (rng.random((30, 6)) < 0.3).astype(np.float32)
    expected = delayed_sum(weights, delays, spikes)
    for mode in ("events", "gather"):
        _, arriving = rollout(SynapticDelays(weights, delays, mode=mode), jnp.asarray(spikes))
        np.testing.assert_allclose(arriving, expected, atol=1e-5)


def test_overflow_is_counted_and_raised():
    system = SynapticDelays(np.ones((5, 2)), np.ones((5, 2), int), max_events=3)
    state, _ = rollout(system, jnp.ones((4, 5)))
    assert int(state.overflow) == 8
    with pytest.raises(EventOverflowError, match="8 spikes were lost"):
        system.check(state)
    state, _ = rollout(system, jnp.zeros((4, 5)))
    system.check(state)


def test_gather_has_the_gradient_of_a_linear_map():
    weights, delays = np.ones((3, 2)), np.array([[0, 1], [2, 0], [1, 1]])
    spikes = jnp.eye(3)

    def total(w):
        return rollout(SynapticDelays(w, delays, mode="gather"), spikes)[1].sum()

    arrives_in_time = (np.arange(3)[:, None] + delays) < 3
    np.testing.assert_allclose(jax.grad(lambda w: total(w))(jnp.asarray(weights)), arrives_in_time)


def test_shapes_and_signs_are_checked():
    with pytest.raises(InputError, match="must agree"):
        SynapticDelays(np.ones((2, 3)), np.ones((3, 2), int))
    with pytest.raises(InputError, match="not negative"):
        SynapticDelays(np.ones((2, 3)), -np.ones((2, 3), int))


def test_ring_buffer_remembers_each_age():
    buffer = RingBuffer.filled(jnp.asarray(-1.0), 4)
    assert buffer.oldest() == -1.0
    for value in range(6):
        buffer = buffer.push(jnp.asarray(float(value)))
    assert [float(buffer.ago(n)) for n in (1, 2, 3, 4)] == [5.0, 4.0, 3.0, 2.0]
    assert buffer.oldest() == 2.0
