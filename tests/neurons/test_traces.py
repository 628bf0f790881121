"""Synaptic traces in closed form, and what they tell of spikes that follow them."""

import numpy as np

from broadsheet.neurons.traces import logistic_on_traces, synaptic_traces


def test_a_pulse_decays_at_each_time_constant():
    inputs = np.zeros((30, 2))
    inputs[4, 0], inputs[10, 1] = 1.0, 2.0
    found = synaptic_traces(inputs, (5.0, 20.0), dt=2.0)
    t = np.arange(30)[:, None]
    expected = [
        np.where(t >= at, height * np.exp(-2.0 * (t - at) / tau), 0)
        for tau in (5.0, 20.0)
        for at, height in ((4, 1.0), (10, 2.0))
    ]
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=1e-6)
    assert synaptic_traces(inputs).shape == (30, 6)


def test_spikes_that_follow_a_trace_are_told_and_others_are_not():
    rng = np.random.default_rng(0)
    inputs = (rng.random((4, 800, 2)) < 0.1).astype(float)
    traces = np.stack([synaptic_traces(each, (20.0,)) for each in inputs])
    spikes = (traces[..., 0] - traces[..., 1] > 1.5).astype(float)
    assert logistic_on_traces((20.0,), inputs[:2], spikes[:2], inputs[2:], spikes[2:]) > 0.98
    assert abs(logistic_on_traces((20.0,), inputs[:2], spikes[:2], inputs[2:], rng.permuted(spikes[2:], axis=1)) - 0.5) < 0.1
