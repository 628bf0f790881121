import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import poisson_binom

from broadsheet.dynamics import rollout
from broadsheet.errors import InputError
from broadsheet.neurons.flux_rates import RateNetwork, at_least, bias_for, passing, rate_xor
from broadsheet.neurons.josephson import FLUX_QUANTUM, GROUND, Circuit, fluxons, pulse_train, transmission_line, xor_network


def line(stages=4, **options):
    circuit = Circuit()
    first, last = transmission_line(circuit, "line", stages, **options)
    circuit.drive(first)
    return circuit, last


def test_a_junction_against_scipy():
    """The pendulum equation of one driven junction by an adaptive solver."""
    circuit = Circuit()
    node = circuit.junction("j", damping=2.0)
    circuit.bias(node, 130.0)
    made = circuit.junctions[0]
    assert made.damping == pytest.approx(2.0)

    def slope(t, y):
        phase, voltage = y
        current = 130.0 * min(1.0, t / 20.0) - made.critical * math.sin(phase) - voltage / made.shunt
        return [2 * math.pi / FLUX_QUANTUM * voltage, current / made.capacitance]

    right = solve_ivp(slope, (0, 60), [0.0, 0.0], rtol=1e-9, atol=1e-9, t_eval=[40.0, 60.0], max_step=0.05)
    for dt, allowed in ((0.02, 0.2), (0.005, 0.05)):  # of 152 rad; the scheme is of first order
        _, phase = rollout(circuit.build(dt=dt), steps=round(60 / dt))
        found = np.asarray(phase)[[round(40 / dt) - 1, round(60 / dt) - 1], 0]
        assert np.abs(found - right.y[0]).max() < allowed


def test_inductors_and_branches_against_linear_circuit_theory():
    """Far below the critical current a junction is an inductor: currents divide, and a branch's current decays with L / R."""
    circuit = Circuit()
    a = circuit.junction("a", critical=1000.0)
    b = circuit.junction("b", critical=1000.0)
    circuit.inductor(a, b, 5.0)
    circuit.bias(a, 20.0)
    state, _ = rollout(circuit.build(), steps=8000)
    own = FLUX_QUANTUM / (2 * math.pi) / 1000.0  # pH
    share = (5.0 + own) / (5.0 + 2 * own)  # through the first junction
    assert 1000.0 * np.sin(state.phase) == pytest.approx([20 * share, 20 * (1 - share)], rel=1e-2)
    circuit = Circuit()
    circuit.junction("a", critical=1000.0)
    circuit.branch("a", GROUND, 20.0, 1.0)
    circuit.bias("a", 30.0)
    system = circuit.build()
    state = system.init()._replace(branch=jnp.array([10.0]), time=jnp.array(100.0))
    _, current = rollout(system, state=state, steps=400, record=lambda state, _: state.branch[0])
    assert current[-1] == pytest.approx(10.0 * math.exp(-20.0 / 20.0), rel=0.1)


def test_thermal_noise_has_the_energy_of_its_temperature():
    """Equipartition: the mean of C V² / 2 of a junction at rest is k T / 2."""
    circuit = Circuit()
    circuit.junction("j")
    system = circuit.build(dt=0.02, temperature=4.2)
    _, voltage = rollout(system, steps=200_000, key=jax.random.key(0), record=lambda state, _: state.voltage[0], every=5)
    energy = circuit.junctions[0].capacitance * float(jnp.var(voltage[2000:]))  # pF µV² = 1e-24 J
    assert energy == pytest.approx(13.80649 * 4.2, rel=0.06)


def test_fluxons_travel_and_are_counted():
    circuit, last = line()
    system = circuit.build()
    inputs = jnp.asarray(pulse_train([60.0, 110.0], 3600, system.dt), float)[:, None]
    state, phase = rollout(system, inputs)
    assert fluxons(state.phase).tolist() == [2] * 4
    arrived = [int(np.argmax(np.asarray(phase[:, k]) > math.pi)) for k in range(4)]
    assert arrived == sorted(arrived)
    quiet, _ = rollout(system, 0 * inputs)
    assert fluxons(quiet.phase).tolist() == [0] * 4  # the ramp of the bias sets nothing off
    assert fluxons(jnp.array([1.5, -1.5, 2 * math.pi + 1.5])).tolist() == [0, 0, 1]


def test_supply_lines_are_scaled_one_by_one():
    circuit, out = xor_network()
    system = circuit.build()
    assert len(circuit.junctions) == 21
    assert circuit.groups() == ["lines", "hidden", "output"]
    scaled = system.scaled(jnp.array([1.0, 0.5, 1.0]))
    ratio = np.asarray(scaled.bias) / np.asarray(system.bias)
    assert sorted(set(np.round(ratio, 6))) == [0.5, 1.0]
    assert ratio[system.node("H1.threshold")] == 0.5
    assert system.node(out) == system.names.index("OUT.out.1")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda c: c.junction("a", critical=-1.0), "positive"),
        (lambda c: c.junction("a", capacitance=0.0), "capacitance"),
        (lambda c: c.inductor("a", "b", 0.0), "positive"),
        (lambda c: c.branch("a", "b", 1.0, -1.0), "Ω"),
        (lambda c: (c.junction("a"), c.inductor("a", "b", 1.0), c.build()), "'b' touches no junction"),
        (lambda c: c.build(), "without junctions"),
        (lambda c: (c.junction("a"), c.build(dt=0.0)), "dt is"),
        (lambda c: (c.junction("a"), c.build().node("x")), "no node 'x'"),
        (lambda c: transmission_line(c, "l", 0), "at least 1"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(InputError, match=words):
        make(Circuit())


def test_a_deck_holds_every_element_once():
    circuit, _ = xor_network()
    deck = circuit.to_spice(300.0, {0: [60.0]})
    lines = deck.splitlines()
    kinds = {
        kind: sum(line.startswith(kind) for line in lines)
        for kind in ("B", "RS", "LB", "RB", "IB", "ID", ".model", ".tran", ".end")
    }
    assert kinds == {"B": 21, "RS": 21, "LB": 6, "RB": 6, "IB": 21, "ID": 4, ".model": 1, ".tran": 1, ".end": 1}
    assert sum(line.startswith("L") for line in lines) == 6 + len(circuit.inductors)
    model = next(line for line in lines if line.startswith(".model"))
    assert "icrit=100u" in model
    assert "cap=0.07p" in model
    assert "76" not in deck.split("ID1")[1].splitlines()[0]  # only the driven input has a pulse
    assert "150u" in next(line for line in lines if line.startswith("ID0"))


def test_counts_of_coincidences_against_scipy():
    p = np.array([0.1, 0.9, 0.4, 0.4, 0.7])
    for threshold in range(1, 6):
        assert at_least(jnp.asarray(p), threshold) == pytest.approx(poisson_binom.sf(threshold - 1, p), abs=1e-6)


def test_rates_by_hand_and_by_sampling():
    """Exclusive or: a hidden neuron fires with p² a b, the output where one of both arrives."""
    network = rate_xor(0.95)
    r = jnp.array([0.1, 0.9, 0.9, 0.1])  # A off, B on
    one, two = 0.95**2 * 0.1 * 0.1, 0.95**2 * 0.9 * 0.9
    expected = 1 - (1 - 0.95 * one) * (1 - 0.95 * two)
    assert network.rates(r)[0] == pytest.approx(expected, abs=1e-5)
    pulses = network.sample(r, 20_000, jax.random.key(1))
    assert pulses.mean() == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 20_000))
    gradient = jax.grad(lambda b: RateNetwork((network.biases[0], b), (2, 1)).rates(r)[0])(network.biases[1])
    assert (gradient > 0).all()


def test_bias_and_probability_are_inverse():
    p = jnp.array([0.01, 0.3, 0.5, 0.99])
    assert passing(bias_for(p)) == pytest.approx(np.asarray(p), abs=1e-4)
    with pytest.raises(InputError, match="threshold of 3"):
        RateNetwork((jnp.ones((1, 2)),), (3,))
    with pytest.raises(InputError, match="as many"):
        RateNetwork((jnp.ones((1, 2)),), (1, 1))
