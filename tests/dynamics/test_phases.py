"""Phase oscillators against closed forms and a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.stats import cauchy

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


def test_a_step_of_a_clock_by_hand():
    """n, m, the dt of a step, a detuning and noise: each by the equations of the class's docstring."""
    clock = Clock(6.0, 20.0, 3, 12.0, noise=0.5, m=2, dt=0.25)
    assert float(clock.detuning) == pytest.approx(TURN * (3 * 6.0 - 2 * 20.0), rel=1e-5)
    start = clock.init()._replace(theta=jnp.float32(1.0), gamma=jnp.float32(0.25), cycle=jnp.int32(4), slot=jnp.int32(9))
    key = jax.random.key(3)
    quiet, shown = clock.step(start)
    assert shown is start
    assert clock.readout(start) is start
    rate = TURN * 20.0 + 12.0 / 2 * np.sin(3 * 1.0 - 2 * 0.25)
    assert float(quiet.theta) == pytest.approx(1 + TURN * 6.0 * 0.25e-3, rel=1e-6)
    assert float(quiet.gamma) == pytest.approx(0.25 + rate * 0.25e-3, rel=1e-6)
    assert (int(quiet.cycle), bool(quiet.event), int(quiet.slot), float(quiet.encode)) == (4, False, 9, 1.0)
    pushed, _ = clock.step(start, 8.0, key)
    drawn = 0.5 * np.sqrt(0.25e-3) * float(jax.random.normal(key, (), jnp.float32))
    assert float(pushed.gamma) == pytest.approx(0.25 + (rate + 8.0) * 0.25e-3 + drawn, rel=1e-5)
    assert float(pushed.theta) == float(quiet.theta)


@pytest.mark.parametrize(("theta", "turns"), [(3.0, 0), (TURN - 1e-3, 1)])
def test_a_crossing_is_put_where_in_the_step_it_was(theta, turns):
    clock = Clock(8.0, 56.0, 7, 0.0, dt=1.0)
    start = clock.init()._replace(theta=jnp.float32(theta), gamma=jnp.float32(TURN - 0.1), cycle=jnp.int32(2))
    after, _ = clock.step(start)
    within = 0.1 / (TURN * 0.056)
    crossed = theta + within * TURN * 0.008
    assert bool(after.event)
    assert float(after.within) == pytest.approx(within, rel=1e-4)
    assert int(after.slot) == 2 * 7 + int(np.floor(7 * crossed / TURN + 0.5))
    assert float(after.encode) == pytest.approx((1 + np.cos(crossed)) / 2, rel=1e-5)
    assert int(after.cycle) == 2 + turns
    assert float(after.theta) == pytest.approx(theta + TURN * 0.008 - turns * TURN, abs=1e-5)
    assert float(after.gamma) == pytest.approx(TURN * 0.056 - 0.1, abs=1e-5)


def test_a_clock_as_it_comes_locks_seven_to_one_without_noise():
    clock = Clock()
    assert [float(each) for each in (clock.f_theta, clock.f_gamma, clock.kappa, clock.noise)] == [8.0, 56.0, 30.0, 0.0]
    assert (clock.n, clock.m, clock.dt, Ticks(clock).limit) == (7, 1, 0.5, 200)
    assert Kuramoto(jnp.zeros(2), 1.0).dt == 10.0
    start = clock.init()
    assert (float(start.theta), float(start.gamma), float(start.within), float(start.encode)) == (0.0, 0.0, 0.0, 1.0)
    assert (int(start.cycle), int(start.slot), bool(start.event)) == (0, 0, False)
    assert [bool(start._replace(encode=jnp.float32(each)).writing) for each in (0.49, 0.5, 0.51)] == [False, False, True]
    for bad in ({"n": 0}, {"m": 0}, {"dt": 0.0}, {"dt": 1.001}, {"noise": np.inf}):
        with pytest.raises(InputError, match="wanted"):
            Clock(**bad)
    Clock(n=1, m=1, dt=1.0)


def test_a_clock_without_a_crossing_stops_at_its_limit():
    """Of 1 ms a step and 1 Hz gamma crosses 0 after a second: not within 30 steps."""
    clock = Clock(8.0, 1.0, kappa=0.0, dt=1.0)
    after, shown = Ticks(clock, 30).step(clock.init())
    assert not bool(after.event)
    assert float(after.theta) == pytest.approx(TURN * 8.0 * 0.030, rel=1e-5)
    assert float(shown.theta) == 0.0
    one = clock.events(0.0005001)  # one step, rounded
    assert len(one.time) == len(one.slot) == len(one.encode) == 0


def test_locking_values_by_hand():
    """Whole turns of a steady phase average to 0; without `whole` all samples count; n and m multiply."""
    steady = TURN * np.arange(50) / 8 + 0.1
    assert phase_locking_value(steady, np.zeros(50)) == pytest.approx((0.0, TURN / 8), abs=1e-9)
    part = np.abs(np.exp(1j * steady).mean())
    assert phase_locking_value(steady, np.zeros(50), whole=False) == pytest.approx((part, TURN / 8), abs=1e-9)
    assert phase_locking_value(steady, steady / 2, n=3, m=6) == pytest.approx((1.0, 0.0), abs=1e-9)
    assert phase_locking_value(steady, 2 * steady, n=2) == pytest.approx((1.0, 0.0), abs=1e-9)
    slow = np.array([0.2, 0.3, 3.0, 3.1])  # no turn: the second half
    assert phase_locking_value(slow, np.zeros(4)) == pytest.approx((np.abs(np.exp(1j * slow[2:]).mean()), 0.0))
    assert phase_locking_value([0.0, 1.0], [0.0, 1.0]) == pytest.approx((1.0, 0.0))
    for a, b in (([0.0, 1.0], [0.0]), ([[0.0, 1.0]], [[0.0, 1.0]]), ([0.0, np.nan], [0.0, 1.0]), ([0.0, 1.0], [np.inf, 1.0])):
        with pytest.raises(InputError, match="equally long"):
            phase_locking_value(a, b)
    assert adler([3.0, -3.0, 0.0, 2.0], [0.0, 0.0, 0.0, -2.0])[0].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert adler([3.0, -3.0, 0.0, 2.0], [0.0, 0.0, 0.0, -2.0])[1].tolist() == [3.0, 3.0, 0.0, 0.0]


def test_frequencies_are_the_quantiles_of_scipys_lorentzian():
    quantiles = (np.arange(7) + 0.5) / 7
    np.testing.assert_allclose(lorentzian_frequencies(7, 0.5), cauchy.ppf(quantiles, 0.0, 0.5), atol=1e-12)
    np.testing.assert_allclose(lorentzian_frequencies(7, 0.5, 3.0), cauchy.ppf(quantiles, 3.0, 0.5), atol=1e-12)
    system, phases = Kuramoto(jnp.array([1.0, 2.0]), 0.0, dt=100.0), jnp.array([0.5, 6.2])
    np.testing.assert_allclose(system.step(phases, 3.0)[0], [0.5 + 0.4, (6.2 + 0.5) % TURN], rtol=1e-5)
