"""Neurons as they come: numbers of the papers where a paper gives them, of the documentation otherwise."""

import jax
import jax.numpy as jnp
import pytest
from scipy import constants

from broadsheet.errors import InputError
from broadsheet.neurons import (
    LIF,
    AdaptiveThreshold,
    BranchedNeuron,
    Circuit,
    ConductanceLIF,
    CurrentLIF,
    ELMCell,
    Integrator,
    Izhikevich,
    LeakyIntegrator,
    LevyBaxter,
    LIFLayer,
    MetaNeuron,
    QuantalRelease,
    RateNetwork,
    codes,
    complexity,
    elm_reference,
    event_data,
    intrinsics,
    josephson,
    sdr,
    sdr_data,
    spike_trains,
    surrogate,
    surrogates,
    tasks,
)


def test_constants_are_those_of_nature_and_of_the_papers():
    flux = constants.value("mag. flux quantum")
    assert pytest.approx(flux / 1e-6 / 1e-12, rel=1e-8) == josephson.FLUX_QUANTUM
    assert pytest.approx(constants.k / (1e-12 * 1e-12), rel=1e-8) == josephson.BOLTZMANN  # J / Ω is A² s: µA² ps
    assert (josephson.RAMP, josephson.PULSE_HEIGHT, josephson.PULSE_WIDTH) == (20.0, 150.0, 4.0)
    counts = elm_reference.PUBLISHED_COUNTS  # 45 inputs and d_m to 2 d_m to d_m with biases, two outputs, 4500 synapses
    assert counts == {m: 4500 + (45 + m + 1) * 2 * m + (2 * m + 1) * m + 2 * (m + 1) for m in counts}
    assert sorted(counts) == [1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 75, 100]
    assert (surrogate.CLIP, surrogate.OFFSET, surrogate.SCALE, surrogate.BURN_IN) == (-55.0, -67.7, 0.1, 150)
    assert event_data.MAX_BYTES == 2 * 1024**3
    assert spike_trains.MAX_DENSE == 4 * 1024**3


ONE = jnp.ones(())
AT_THE_EDGE = {  # what still works, and what does not any more
    "Poisson rate": (lambda x: codes.poisson_trains(jnp.asarray(x), 2, jax.random.key(0)), 0.0, -1e-3),
    "rate code from below": (lambda x: codes.rate_code(jnp.asarray(x), 1, jax.random.key(0)), 0.0, -1e-3),
    "rate code from above": (lambda x: codes.rate_code(jnp.asarray(x), 1, jax.random.key(0)), 1.0, 1.001),
    "steps of a code": (lambda n: codes.rate_code(ONE, n, jax.random.key(0)), 1, 0),
    "correlation": (lambda c: codes.markov_trains(0.5 * ONE, c, 2, jax.random.key(0)), 1.0, 1.001),
    "correlation below": (lambda c: codes.markov_trains(0.5 * ONE, c, 2, jax.random.key(0)), -1.0, -1.001),
    "time constant of a latency": (lambda t: codes.latency_code(ONE, 3, tau=t), 1e-3, 0.0),
    "threshold of a latency": (lambda t: codes.latency_code(ONE, 3, threshold=t), 1e-3, 0.0),
    "weighted rate": (lambda t: codes.weighted_rate(jnp.ones(3), t), 1e-3, 0.0),
    "trace": (lambda t: codes.exponential_trace(jnp.ones(3), t), 1e-3, 0.0),
    "rise": (lambda t: codes.double_exponential(jnp.ones(3), rise=t), 1e-3, 0.0),
    "decay": (lambda t: codes.double_exponential(jnp.ones(3), decay=t), 1e-3, 0.0),
    "probability from below": (complexity.entropy, 0.0, -1e-9),
    "probability from above": (complexity.entropy, 1.0, 1 + 1e-9),
    "active cells": (lambda a: sdr.false_match(10, a, 5, 3), 10, 11),
    "synapses": (lambda s: sdr.false_match(10, 5, s, 3), 10, 11),
    "synapses of active cells": (lambda s: sdr.false_negative(8, s, 3, 1), 8, 9),
    "cells that noise removes": (lambda v: sdr.false_negative(8, 6, 3, v), 8, 9),
    "threshold of a segment": (lambda theta: sdr.false_negative(8, 6, theta, 1), 6, 7),
    "cell": (lambda cell: sdr.SDR(10, [cell]), 9, 10),
    "first cell": (lambda cell: sdr.SDR(10, [cell, 5]), 0, -1),
    "examples of two classes": (lambda count: sdr_data.poirazi_mel(0, count), 10, 11),
    "neurons": (lambda n: LIF(n), 1, 0),
    "meta neurons": (lambda n: MetaNeuron(n), 1, 0),
    "neurons' time step": (lambda dt: LIF(1, dt=dt), 1e-3, 0.0),
    "Izhikevich's time step": (lambda dt: Izhikevich(1, dt=dt), 1e-3, 0.0),
    "Izhikevich's steps": (lambda n: Izhikevich(1, substeps=n), 1, 0),
    "Izhikevich's half steps": (lambda n: Izhikevich(1, substeps=n, half_steps=True), 1, 2),
    "refractory time": (lambda time: LIF(1, refractory=time, dt=0.1), 0.0, -0.1),
    "share of the way": (lambda a: MetaNeuron(1, a=a), 0.999, 1.0),
    "share of the way, from below": (lambda a: MetaNeuron(1, a=a), 0.001, 0.0),
    "width of a firing probability": (lambda kappa: MetaNeuron(1, kappa=kappa), 1e-3, 0.0),
    "success": (lambda p: LevyBaxter(jnp.ones((1, 1)), success=p), 1.0, 1.001),
    "failure": (lambda p: LevyBaxter(jnp.ones((1, 1)), success=p), 0.0, -0.001),
    "channels in pairs": (lambda n: ELMCell(n, 1, d_m=2, d_tree=2, routing="neighbour", key=jax.random.key(0)), 4, 5),
    "smallest time constant": (lambda t: ELMCell(2, 1, d_m=2, tau_m=(t, 5.0), key=jax.random.key(0)), 0.0, -0.1),
    "largest time constant": (lambda t: ELMCell(2, 1, d_m=2, tau_m=(1.0, t), key=jax.random.key(0)), 1.001, 1.0),
    "critical current": (lambda x: Circuit().junction("n", critical=x), 1e-3, 0.0),
    "damping": (lambda x: Circuit().junction("n", damping=x), 1e-3, 0.0),
    "capacitance": (lambda x: Circuit().junction("n", capacitance=x), 1e-3, 0.0),
    "inductance": (lambda x: Circuit().inductor("a", "b", x), 1e-3, 0.0),
    "inductance of a branch": (lambda x: Circuit().branch("a", "b", x, 1.0), 1e-3, 0.0),
    "resistance": (lambda x: Circuit().branch("a", "b", 1.0, x), 0.0, -1e-3),
    "stages": (lambda n: josephson.transmission_line(Circuit(), "line", n), 1, 0),
    "threshold of pulses": (lambda n: RateNetwork([jnp.ones((1, 3))], [n]), 3, 4),
    "least threshold of pulses": (lambda n: RateNetwork([jnp.ones((1, 3))], [n]), 1, 0),
    "width of a surrogate": (lambda w: surrogates.triangle(w), 1e-3, 0.0),
}


@pytest.mark.parametrize("name", AT_THE_EDGE)
def test_bounds_are_where_they_are_said_to_be(name):
    make, good, bad = AT_THE_EDGE[name]
    make(good)
    with pytest.raises(InputError):
        make(bad)


def test_steps_and_temperature_of_a_circuit():
    circuit = Circuit()
    josephson.transmission_line(circuit, "line", 2)
    circuit.build(dt=1e-3, temperature=0.0)
    for wrong in ({"dt": 0.0}, {"temperature": -1e-3}):
        with pytest.raises(InputError, match="neither can be negative"):
            circuit.build(**wrong)


SYSTEMS = {
    "LIF": lambda: LIF(2),
    "CurrentLIF": lambda: CurrentLIF(2),
    "ConductanceLIF": lambda: ConductanceLIF(2),
    "Izhikevich": lambda: Izhikevich(2),
    "AdaptiveThreshold": lambda: AdaptiveThreshold(LIF(2), increment=1.0, tau=5.0),
    "LIFLayer": lambda: LIFLayer(2, 3, 1, key=jax.random.key(0)),
    "LeakyIntegrator": lambda: LeakyIntegrator((2,), tau=5.0),
    "Integrator": lambda: Integrator((2,)),
    "MetaNeuron": lambda: MetaNeuron(2),
    "Intrinsic": lambda: intrinsics.Intrinsic(LIF(2), ["tau"]),
    "LevyBaxter": lambda: LevyBaxter(jnp.ones((2, 3))),
    "QuantalRelease": lambda: QuantalRelease(2),
    "BranchedNeuron": lambda: BranchedNeuron(),
    "ELMCell": lambda: ELMCell(4, 1, d_m=3, key=jax.random.key(0)),
    "RateNetwork": lambda: RateNetwork([jnp.ones((1, 3))], [2]),
    "DigitSpikes": lambda: tasks.DigitSpikes(),
    "Batches": lambda: tasks.Batches(tasks.which_pulse, 3),
    "Windows": lambda: surrogate.Windows(jnp.zeros((1, 10, 2)), jnp.zeros((1, 10, 1)), batch=1, window=2),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_sizes_and_steps_are_no_leaves(name):
    """Else each would be traced: a size could shape no array, and a parameter study would compile for nothing."""
    leaves = jax.tree.leaves(SYSTEMS[name]())
    assert all(isinstance(leaf, jax.Array) or callable(leaf) for leaf in leaves)
