"""Phase oscillators against closed forms and a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from broadsheet.dynamics import rollout
from broadsheet.dynamics.phases import (
    TURN,
    Clock,
    Kuramoto,
    Ticks,
    adler,
    kuramoto_order,
    lorentzian_frequencies,
    phase_locking_value,
)
from broadsheet.errors import InputError


@pytest.mark.parametrize(("detuning", "coupling", "value", "drift"), [(1, 2, 1, 0), (2.5, 2, 0.5, 1.5), (3, 1, 0.1716, 2.8284)])
def test_adler_closed_form_against_an_integrator(detuning, coupling, value, drift):
    assert adler(detuning, coupling)[0] == pytest.approx(value, abs=1e-4)
    assert adler(detuning, coupling)[1] == pytest.approx(drift, abs=1e-4)
    time = np.linspace(0, 60, 6001)
    psi = solve_ivp(lambda _, x: detuning - coupling * np.sin(x), (0, 60), [0.0], t_eval=time, rtol=1e-9, atol=1e-9).y[0]
    found, rate = phase_locking_value(psi, np.zeros_like(psi))
    assert found == pytest.approx(value, abs=2e-3)
    assert rate / 0.01 == pytest.approx(drift, rel=1e-3, abs=1e-6)


def test_the_order_of_infinitely_many_oscillators_solves_the_self_consistency():
    width, coupling = 0.5, 2.0
    order = float(kuramoto_order(coupling, width))

    def density(angle):
        return np.cos(angle) ** 2 * width / np.pi / ((coupling * order * np.sin(angle)) ** 2 + width**2)

    assert coupling * quad(density, -np.pi / 2, np.pi / 2)[0] == pytest.approx(1.0, abs=1e-6)
    assert kuramoto_order(0.9, width) == 0


def test_a_population_is_the_plain_sum_over_pairs():
    frequencies = jnp.asarray(lorentzian_frequencies(6, 0.5))
    system = Kuramoto(frequencies, 2.0)
    phases = np.asarray(system.init(jax.random.key(0)))
    after, mean = system.step(jnp.asarray(phases))
    pull = np.array([2.0 / 6 * sum(np.sin(other - own) for other in phases) for own in phases])
    assert np.allclose(after, (phases + (frequencies + pull) * 0.01) % TURN, atol=1e-5)
    assert complex(mean) == pytest.approx(np.exp(1j * phases).mean(), abs=1e-5)


def test_events_are_crossings_in_slots():
    clock = Clock()
    events = clock.events(1.005)
    assert len(events.slot) == 56
    assert (np.diff(events.slot) == 1).all()
    assert np.allclose(events.time, np.arange(1, 57) / 56, atol=1e-4)  # by crossing, not in whole steps of 0.5 ms
    assert events.encode[6] == pytest.approx(1.0, abs=1e-3)  # the seventh lies at theta = 0
    uncoupled = Clock(f_gamma=56 - 15 / TURN, kappa=0.0).events(25.0)
    assert uncoupled.slot_errors() / 200 == pytest.approx(15 / TURN / 8, abs=0.02)  # one slot is lost each turn of psi


def test_a_clock_from_event_to_event_is_the_same_clock():
    clock = Clock(f_gamma=54.0, noise=0.0)
    ticks = rollout(Ticks(clock), steps=30)[1]
    assert np.array_equal(np.asarray(ticks.slot)[1:], clock.events(0.6).slot[:29])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Clock(dt=2.0), "dt ≤ 1"),
        (lambda: Clock(kappa=float("nan")), "kappa is nan"),
        (lambda: Clock().events(0.0), "no time"),
        (lambda: phase_locking_value([0.0], [0.0]), "two samples"),
    ],
)
def test_mistakes(make, says):
    with pytest.raises(InputError, match=says):
        make()
