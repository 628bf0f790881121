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
from broadsheet.neurons.josephson import (
    FLUX_QUANTUM,
    GROUND,
    Circuit,
    flux_neuron,
    flux_synapse,
    fluxons,
    pulse_train,
    raised_cosine,
    splitter,
    transmission_line,
    xor_network,
)


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


def test_pulses_are_raised_cosines_and_pass_half_at_the_middle():
    at = pulse_train([60.0, 110.0], 2400, 0.05)
    assert at.max() == at[1200] == at[2200] == 150
    assert at.sum() * 0.05 == pytest.approx(2 * 150 * 4)
    assert np.flatnonzero(at)[[0, -1]] * 0.05 == pytest.approx([56.05, 113.95])
    assert [raised_cosine(x) for x in (0.0, 2.0, -2.0, 4.0, 5.0)] == pytest.approx([150, 75, 75, 0, 0])
    assert pulse_train([], 5, 0.05).tolist() == [0] * 5
    assert passing(jnp.asarray(56.6)) == pytest.approx(0.5)
    assert passing(jnp.asarray(56.6 + 6.4 / math.sqrt(math.pi))) == pytest.approx((1 + math.erf(1)) / 2, rel=1e-5)
    assert passing(jnp.asarray(3.0), 1.0, math.sqrt(math.pi)) == pytest.approx((1 + math.erf(2)) / 2, rel=1e-5)
    assert jax.grad(passing)(jnp.asarray(56.6)) == pytest.approx(
        1 / 6.4, rel=1e-5
    )  # the width is that of the slope at the middle
    assert rate_xor().rates(jnp.asarray([1.0, 0, 0, 1]))[0] == pytest.approx(0.95**3, rel=1e-4)


def test_parts_of_circuits_are_those_that_are_said():
    circuit = Circuit()
    circuit.junction("s")
    end = flux_synapse(circuit, "W", "s", weight=40.0)
    ends = splitter(circuit, "S", end, group="others")
    out = flux_neuron(circuit, "N", ends, bias=55.0)
    kinds = {(each.a, each.b): each.critical for each in circuit.junctions}
    assert (kinds["W.in", "W.decide"], kinds["W.decide", GROUND], kinds["S.split", GROUND]) == (60, 80, 140)
    assert (kinds["N.threshold", GROUND], kinds["s", GROUND], kinds[out, GROUND]) == (100, 100, 100)
    assert all(each.damping == pytest.approx(1.0) for each in circuit.junctions)
    assert [each.capacitance / each.critical for each in circuit.junctions] == pytest.approx([0.0007] * len(circuit.junctions))
    biases = {node: (current, group) for node, current, group in circuit.biases}
    assert (biases["W.decide"], biases["S.split"], biases["N.threshold"]) == (
        (40, "weights"),
        (98, "others"),
        (55, "thresholds"),
    )
    assert (biases["W.out.0"], biases["S.left.1"]) == ((70, "lines"), (70, "others"))
    assert {value for *_, value in circuit.inductors} == {8.0}
    assert circuit.branches == [(ends[0], "N.threshold", 20.0, 1.0), (ends[1], "N.threshold", 20.0, 1.0)]
    pairs = {(a, b) for a, b, _ in circuit.inductors}
    assert {
        ("s", "W.in"),
        ("W.decide", "W.out.0"),
        ("W.out.0", "W.out.1"),
        (end, "S.split"),
        ("N.threshold", "N.out.0"),
    } <= pairs
    assert circuit.groups() == ["weights", "lines", "others", "thresholds"]
    system = circuit.build()
    assert system.bias[system.node("W.decide")] == 40
    np.testing.assert_allclose(system.scaled(jnp.asarray([0.5, 1, 1, 1])).bias[system.node("W.decide")], 20)


def test_a_deck_by_hand():
    circuit = Circuit()
    circuit.junction("a", critical=50.0)
    circuit.junction("b", "a", critical=200.0, damping=0.5, capacitance=0.1)
    circuit.inductor("a", GROUND, 3.0)
    circuit.branch("a", "b", 20.0, 1.5)
    circuit.bias("b", 40.0)
    circuit.drive("a")
    circuit.drive("b")
    shunts = [math.sqrt(g * FLUX_QUANTUM / (2 * math.pi * i * c)) for g, i, c in ((1, 50, 0.035), (0.5, 200, 0.1))]
    deck = circuit.to_spice(pulses={1: [70.0, 30.0]}).splitlines()
    assert deck[:13] == [
        "* 1 = a, 2 = b", "B0 1 0 jj0", f"RS0 1 0 {shunts[0]:.6g}", "B1 2 1 jj1", f"RS1 2 1 {shunts[1]:.6g}",
        ".model jj0 jj(rtype=0, cap=0.035p, icrit=50u)", ".model jj1 jj(rtype=0, cap=0.1p, icrit=200u)", "L0 1 0 3p", "LB0 1 b0 20p",
        "RB0 b0 2 1.5", "IB0 0 2 pwl(0 0 20p 40u)", "ID0 0 1 pwl(0 0)", deck[12],
    ]  # fmt: skip
    points = deck[12].removeprefix("ID1 0 2 pwl(0 0 ").removesuffix(")").split()
    assert (points[0], points[1], points[16], points[17]) == ("26p", "0u", "30p", "150u")
    assert len(points) == 2 * 2 * 17
    assert points[2 * 17 + 16] == "70p"
    assert deck[13:] == [".tran 0.05p 400p", ".print phase 1", ".print phase 2", ".end"]
