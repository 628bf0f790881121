import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import rollout
from broadsheet.errors import InputError
from broadsheet.neurons.flux_margins import _around_one, margins, pulses_out, supplied_energy
from broadsheet.neurons.josephson import FLUX_QUANTUM, Circuit, fluxons, pulse_train, splitter, transmission_line

DT = 0.1


def line(bias=70.0):
    circuit = Circuit()
    first, last = transmission_line(circuit, "line", 3, bias=bias)
    circuit.drive(first)
    return circuit, last


def drive(*times, length=160.0):
    return jnp.asarray(pulse_train(times, round(length / DT), DT), float)[:, None]


def test_a_line_works_within_its_margin_and_not_outside():
    """Against lines that are built with the scaled bias and run one by one; far above the critical current pulses come unasked."""
    factors = (0.2, 0.6, 1.0, 1.2, 2.0)
    circuit, last = line()
    found = margins(circuit, last, drive(60.0)[None], [1], {"lines": factors}, dt=DT)["lines"]
    for factor, works in zip(factors, found.works, strict=True):
        alone, end = line(70.0 * factor)
        state, _ = rollout(alone.build(dt=DT), drive(60.0))
        assert works == (int(fluxons(state.phase)[alone.build(dt=DT).node(end)]) == 1)
    assert found.works.tolist()[2:] == [True, True, False]
    assert (found.high, found.width) == (1.2, pytest.approx(min(0.2, 1 - found.low)))


def test_a_circuit_that_fails_as_drawn_has_no_margin():
    circuit, last = line()
    found = margins(circuit, last, drive(60.0)[None], [2], {"lines": (0.9, 1.0, 1.1)}, dt=DT)["lines"]
    assert found.width == 0
    assert not found.works.any()


def test_margins_say_what_they_cannot_try():
    circuit, last = line()
    with pytest.raises(InputError, match="no supply line 'thresholds'; there are lines"):
        margins(circuit, last, drive(60.0)[None], [1], {"thresholds": (1.0,)})
    with pytest.raises(InputError, match="1 among them"):
        margins(circuit, last, drive(60.0)[None], [1], {"lines": (0.9, 1.1)})


def test_noise_is_drawn_for_each_setting_and_case():
    circuit, last = line()
    system = circuit.build(dt=DT, temperature=4.2)
    inputs = jnp.stack([drive(60.0), drive()])
    counts = pulses_out(system, inputs, jnp.ones((3, 1)), jax.random.split(jax.random.key(0), (3, 2)))
    assert counts[..., system.node(last)].tolist() == [[1, 0]] * 3


def test_what_biases_give_is_what_resistors_take():
    """The energy of the shunts, V² / R over time, between two times of rest; the stimulus gives the small rest."""
    circuit, last = line()
    system = circuit.build(dt=0.02)
    x = jnp.asarray(pulse_train([60.0, 100.0], 9000, 0.02), float)[:, None]
    state, voltage = rollout(system, x, record=lambda state, _: state.voltage)
    shunts = np.array([junction.shunt for junction in circuit.junctions])
    after = np.asarray(voltage, float)[2000:]  # 40 ps: the biases stand
    taken = (after**2 / shunts).sum() * 0.02 * 1e-6
    driven = (np.asarray(x)[2000:, 0] * after[:, 0]).sum() * 0.02 * 1e-6
    given = supplied_energy(system, np.asarray(fluxons(state.phase)))
    assert given == pytest.approx(3 * 2 * 70.0 * FLUX_QUANTUM * 1e-6)
    assert given + driven == pytest.approx(taken, rel=0.02)


def test_a_splitter_makes_two_fluxons_of_one():
    circuit, last = line()
    ends = splitter(circuit, "S", last)
    system = circuit.build(dt=DT)
    state, _ = rollout(system, drive(60.0, 100.0))
    assert [int(fluxons(state.phase)[system.node(end)]) for end in ends] == [2, 2]


def test_a_margin_is_the_stretch_around_one_that_works():
    factors = np.array([0.5, 0.7, 0.9, 1.0, 1.1, 1.4, 1.6])
    for works, low, high, width in (
        ([1, 0, 1, 1, 1, 1, 0], 0.9, 1.4, 0.1), ([1] * 7, 0.5, 1.6, 0.5), ([0, 0, 0, 1, 0, 1, 1], 1.0, 1.0, 0.0), ([1, 1, 1, 0, 1, 1, 1], 1.0, 1.0, 0.0),
        ([0, 1, 1, 1, 1, 0, 1], 0.7, 1.1, 0.1),
    ):  # fmt: skip
        found = _around_one(factors, np.array(works, bool))
        assert (found.low, found.high, found.width) == (low, high, width)


def test_the_other_supply_lines_stand_at_their_nominal_values():
    circuit, last = line()
    circuit.bias(last, 5.0, "more")
    options = {"dt": DT, "nominal": {"lines": 0.2}}
    found = margins(circuit, last, drive(60.0)[None], [1], {"more": (1.0,), "lines": (1.0, 5.0)}, **options)
    assert [each.works.tolist() for each in found.values()] == [[False], [False, True]]
