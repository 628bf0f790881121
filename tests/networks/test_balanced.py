import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import rollout
from broadsheet.networks.balanced import Brunel, Coba, Cuba
from broadsheet.networks.spikes import simulate
from broadsheet.neurons import SpikeTrains

STEPS = 1500


def ours(network, seed, steps=STEPS, key=None):
    return np.stack(simulate(network.system(seed), steps=steps, key=key)[1], axis=1)


def by_the_equations(network, seed, currents):
    """A plain loop with a dense matrix, in float64."""
    edges, n, dt = network.edges(seed), network.size, network.dt
    weights = np.zeros((2, n, n))
    np.add.at(weights, (edges.port, edges.post, edges.pre), np.asarray(network.weights)[edges.port])
    v, g = network.start(seed).astype(float), np.zeros((2, n))
    if not currents:
        g = network.conductances(seed).copy()
    hold, fired, found = np.zeros(n, int), np.zeros(n), []
    te, ti, tm = *network.tau_syn, network.tau
    for t in range(STEPS):
        g = g + weights @ fired
        if currents:
            e, i = np.exp(-dt / te), np.exp(-dt / ti)
            m = np.exp(-dt / tm)
            free = network.rest + m * (v - network.rest)
            free += te / (te - tm) * (e - m) * g[0] + ti / (ti - tm) * (i - m) * g[1]
        else:
            total = 1 + g.sum(0)
            goal = (network.rest + g[0] * network.reversal[0] + g[1] * network.reversal[1]) / total
            free = goal + (v - goal) * np.exp(-dt * total / tm)
        g = g * np.exp(-dt / np.array([[te], [ti]]))
        v = np.where(hold > 0, v, free)
        fired = (v > network.threshold).astype(float)
        hold = np.where(fired > 0, round(network.refractory / dt) - 1, np.maximum(hold - 1, 0))
        v = np.where(fired > 0, network.reset, v)
        found += [(t, k) for k in np.nonzero(fired)[0]]
    return np.array(found)


@pytest.mark.parametrize("currents", [True, False])
def test_spikes_equal_a_plain_loop(currents):
    """Every spike of 150 ms, step and neuron, in float64."""
    network = replace(Cuba() if currents else Coba(), size=200, probability=0.1)
    network = network if currents else replace(network, weights=(2.5, 6.7))
    with jax.enable_x64(True):
        found = ours(network, 3)
    expected = by_the_equations(network, 3, currents)
    assert len(expected) > 50
    np.testing.assert_array_equal(found, expected)


def test_synapses_are_as_many_as_the_papers_say():
    edges = Cuba().edges(0)
    assert abs(len(edges.pre) / (4000 * 3999 * 0.02) - 1) < 0.01
    assert not np.any(edges.pre == edges.post)
    degrees = np.bincount(Brunel().edges(0).post)
    assert set(degrees) == {1250}


def test_brunel_without_a_network_fires_as_a_shot_noise_neuron():
    """With no synapses, threshold out of reach: mean and variance of the potential are nu J tau and half of nu J² tau."""
    lone = replace(Brunel(), excitatory=400, inhibitory=100, share=0.0, threshold=1e6, eta=2.0 * 20 / 1e6)
    drive = lone.background
    assert drive == pytest.approx(20.0)  # spikes a ms
    v = rollout(lone.system(0), steps=3000, every=10, key=jax.random.key(0), record=lambda s, _: s[0][1].v)[1][100:]
    leak = np.exp(-lone.dt / lone.tau)
    mean, variance = drive * lone.dt * lone.weight / (1 - leak), drive * lone.dt * lone.weight**2 / (1 - leak**2)
    assert float(jnp.mean(v)) == pytest.approx(mean, rel=0.01)
    assert float(jnp.var(v)) == pytest.approx(variance, rel=0.1)


def test_brunel_inhibition_balances_excitation():
    """A tenth of the size: inhibition that dominates keeps the rate low; excitation that does drives it to the refractory limit."""
    small = replace(Brunel(), excitatory=1000, inhibitory=250, share=0.5)
    rates = {g: len(ours(replace(small, g=g), 1, 1000, jax.random.key(1))) / 1250 / 0.1 for g in (5.0, 2.0)}
    assert 5 < rates[5.0] < 80
    assert rates[2.0] > 3 * rates[5.0]


def test_long_runs_keep_rate_and_irregularity_within_brian2s_spread():
    """10 s of the CUBA network, against five networks that Brian2 drew and ran itself (bench/references.py)."""
    brian = json.loads((Path(__file__).parents[1] / "references" / "spiking" / "brian2_cuba.json").read_text())
    _, spikes = simulate(Cuba().system(0), steps=100_000)
    late = spikes.steps >= 10_000
    trains = SpikeTrains((spikes.steps[late] - 10_000) * 0.1, spikes.neurons[late], 4000, 9000.0)
    for name, ours in (("rate_hz", trains.rates().mean()), ("irregularity", trains.irregularity())):
        theirs = [run[name] for run in brian]
        assert abs(ours - np.mean(theirs)) < 3 * np.std(theirs, ddof=1), name


def test_networks_are_those_of_their_papers():
    """Benchmarks 1 and 2 of Brette et al. (2007), table 1, and model A of Brunel (2000): mV, ms, nS over a leak of 10 nS."""
    coba, cuba, brunel = Coba(), Cuba(), Brunel()
    assert (coba.rest, coba.threshold, coba.reset, coba.refractory, coba.tau) == (-60.0, -50.0, -60.0, 5.0, 20.0)
    assert (coba.reversal, coba.tau_syn) == ((0.0, -80.0), (5.0, 10.0))
    np.testing.assert_allclose(coba.weights, (6 / 10, 67 / 10))
    assert (cuba.rest, cuba.threshold, cuba.reset, cuba.refractory, cuba.tau) == (-49.0, -50.0, -60.0, 5.0, 20.0)
    assert (cuba.size, cuba.share, cuba.probability) == (4000, 0.8, 0.02)
    assert (brunel.excitatory, brunel.inhibitory, brunel.share) == (10_000, 2500, 0.1)
    assert (brunel.tau, brunel.threshold, brunel.reset, brunel.refractory) == (20.0, 20.0, 10.0, 2.0)
