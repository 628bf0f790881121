import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from broadsheet.dynamics import rollout, trainable
from broadsheet.errors import InputError
from broadsheet.neurons import surrogates
from broadsheet.neurons.integrate_and_fire import LIF, AdaptiveThreshold, ConductanceLIF, CurrentLIF, Izhikevich

HIGH = 1e6  # mV, a threshold out of reach


def trace(cell, inputs):
    return np.asarray(rollout(cell, inputs, record=lambda state, _: state)[1].membrane.v)


def test_currents_are_integrated_exactly():
    """Kicks to both synapses, against an ODE solver that stops at each."""
    cell = CurrentLIF(1, tau=20.0, tau_syn=(5.0, 10.0), rest=-60.0, threshold=HIGH, dt=0.5)
    kicks = np.zeros((80, 2, 1))
    kicks[0, 0], kicks[30, 1] = 8.0, -5.0
    state, expected = np.array([-60.0, 0.0, 0.0]), []
    slope = lambda _, y: [(y[1] + y[2] - (y[0] + 60)) / 20, -y[1] / 5, -y[2] / 10]  # noqa: E731
    for kick in kicks[..., 0]:
        state[1:] += kick
        state = solve_ivp(slope, (0, 0.5), state, rtol=1e-10, atol=1e-12).y[:, -1]
        expected.append(state[0])
    np.testing.assert_allclose(trace(cell, jnp.asarray(kicks, jnp.float32))[:, 0], expected, rtol=1e-5)


def test_conductances_converge_to_the_differential_equation():
    def ours(dt):
        cell = ConductanceLIF(1, tau=20.0, tau_syn=(5.0, 10.0), rest=-60.0, threshold=HIGH, g0=[[0.8], [2.0]], dt=dt)
        return trace(cell, jnp.zeros((round(20 / dt), 2, 1)))[-1, 0]

    slope = lambda t, v: (-60 - v + 0.8 * np.exp(-t / 5) * (0 - v) + 2.0 * np.exp(-t / 10) * (-80 - v)) / 20  # noqa: E731
    exact = solve_ivp(slope, (0, 20), [-60.0], rtol=1e-10, atol=1e-12).y[0, -1]
    errors = [abs(ours(dt) - exact) for dt in (1.0, 0.5, 0.25)]
    assert errors[0] > 1.8 * errors[1] > 3 * errors[2]
    assert errors[2] < 0.2


@pytest.mark.parametrize("refractory", [0.0, 3.0])
def test_interspike_interval_is_the_closed_form(refractory):
    """Constant drive R I = 30 mV above rest, threshold 10 and reset 0 above: T = refractory + tau ln(30 / 20)."""
    dt, tau = 0.01, 20.0
    cell = LIF(1, tau=tau, rest=0.0, threshold=10.0, reset=0.0, refractory=refractory, dt=dt)
    jump = 30 * (1 - np.exp(-dt / tau))
    _, spikes = rollout(cell, jnp.full((8000, 1), jump, jnp.float32))
    intervals = np.diff(np.nonzero(np.asarray(spikes)[:, 0])[0]) * dt
    assert len(intervals) >= 5
    np.testing.assert_allclose(intervals, refractory + tau * np.log(1.5), atol=2 * dt)


def test_soft_reset_keeps_what_is_above_threshold():
    cell = LIF(1, tau=1e9, rest=0.0, threshold=1.0, reset=None, dt=1.0)
    drive = jnp.full((99, 1), 0.3, jnp.float32)
    assert int(rollout(cell, drive)[1].sum()) == 29  # 29.7 mV in all, 1 mV taken off a spike
    hard = LIF(1, tau=1e9, rest=0.0, threshold=1.0, reset=0.0, dt=1.0)
    assert int(rollout(hard, drive)[1].sum()) == 24  # every fourth jump


def test_izhikevich_fires_when_the_differential_equation_does():
    """Regular spiking cell at I = 10, against a solver with events; forward Euler is first order in dt."""
    spike = lambda t, y: y[0] - 30  # noqa: E731
    spike.terminal, spike.direction = True, 1
    state, now, expected = np.array([-65.0, -13.0]), 0.0, []
    while now < 300:
        slope = lambda t, y: [0.04 * y[0] ** 2 + 5 * y[0] + 140 - y[1] + 10, 0.02 * (0.2 * y[0] - y[1])]  # noqa: E731
        done = solve_ivp(slope, (now, 300), state, events=spike, rtol=1e-9, atol=1e-9)
        now = done.t[-1]
        if done.status == 1:
            expected.append(now)
            state = np.array([-65.0, done.y[1, -1] + 8])
    cell = Izhikevich(1, dt=0.005)
    _, spikes = rollout(cell, jnp.full((60_000, 1), 10.0))
    times = (np.nonzero(np.asarray(spikes)[:, 0])[0] + 1) * 0.005
    assert len(times) == len(expected) >= 5
    np.testing.assert_allclose(times, expected, rtol=5e-3)


def test_spikes_have_surrogate_derivatives():
    cell = LIF(2, rest=0.0, threshold=1.0, reset=0.0)
    gradient = jax.grad(lambda w: jnp.sum(rollout(cell, w * jnp.ones((20, 2)))[1]))(0.1)
    assert float(gradient) > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [({"tau": 0.0}, "tau, the membrane"), ({"refractory": 0.25, "dt": 0.1}, "not a multiple"), ({"tau": jnp.nan}, "tau, the")],
)
def test_mistakes_are_named(options, said):
    with pytest.raises(InputError, match=said):
        LIF(3, **options)
    if "tau" in options:
        with pytest.raises(InputError, match="tau_syn"):
            CurrentLIF(3, tau_syn=(0.0, 5.0))


def test_the_mean_current_of_a_step_carries_the_same_charge():
    """A kick moves the membrane as far in the end by either form; within a step they differ by the order of arrival."""
    kicks = jnp.zeros((400, 2, 1)).at[0, 0].set(10.0)
    area = [
        trace(CurrentLIF(1, tau_syn=(2.0, 2.0), rest=0.0, threshold=HIGH, current=c, dt=0.5), kicks).sum()
        for c in ("exact", "mean")
    ]
    np.testing.assert_allclose(area[0], area[1], rtol=2e-3)
    equal = CurrentLIF(1, tau=20.0, tau_syn=(20.0, 5.0), rest=0.0, threshold=HIGH, dt=0.5)  # the limit of equal time constants
    t = 0.5 * np.arange(1, 401)
    np.testing.assert_allclose(trace(equal, kicks)[:, 0], 10 * t / 20 * np.exp(-t / 20), rtol=1e-3)


def test_euler_steps_leak_as_euler_does():
    cell = LIF(1, tau=10.0, rest=0.0, threshold=HIGH, v0=1.0, method="euler", dt=1.0)
    v = np.asarray(rollout(cell, jnp.zeros((5, 1)), record=lambda state, _: state.v)[1])[:, 0]
    np.testing.assert_allclose(v, 0.9 ** np.arange(1, 6), rtol=1e-5)


def test_adaptive_thresholds_rise_with_spikes_and_fall_back():
    """Intervals lengthen; between spikes the rise decays exponentially. It wraps Izhikevich cells as well."""
    cell = AdaptiveThreshold(LIF(1, tau=20.0, rest=0.0, threshold=10.0, reset=0.0, dt=0.1), increment=3.0, tau=100.0)
    drive = jnp.full((6000, 1), 30 * (1 - np.exp(-0.1 / 20)))
    _, (rise, spikes) = rollout(cell, drive, record=lambda state, out: (state[1][0], out[0]))
    rise, times = np.asarray(rise), np.nonzero(np.asarray(spikes))[0]
    intervals = np.diff(times)
    assert intervals[0] < intervals[1] < intervals[-1]
    first, second = times[:2]
    np.testing.assert_allclose(rise[second - 1] / rise[first], np.exp(-0.1 * (second - 1 - first) / 100), rtol=1e-3)
    fast = AdaptiveThreshold(Izhikevich(1, dt=0.5), increment=5.0, tau=50.0)
    assert float(rollout(fast, jnp.full((400, 1), 10.0))[1].sum()) > 0
    with pytest.raises(InputError, match="tau, the time constant of the threshold"):
        AdaptiveThreshold(LIF(1), increment=1.0, tau=0.0)


def test_a_pause_keeps_spikes_apart_and_frozen_thresholds_stay():
    cell = AdaptiveThreshold(LIF(2, rest=0.0, threshold=1.0, reset=0.0, dt=0.5), increment=0.1, tau=100.0, pause=7.0)
    state, spikes = rollout(cell, jnp.full((200, 2), 5.0))
    assert (np.diff(np.flatnonzero(spikes[:, 0])) == 14).all()
    assert spikes[:, 0].sum() > 10
    after, more = rollout(cell.frozen(), jnp.full((100, 2), 5.0), state=state)
    assert more.sum() > 0
    np.testing.assert_array_equal(after.rise, state.rise)


def test_a_cell_as_it_comes_is_the_regular_spiking_one():
    """Izhikevich (2003), figure 2: (0.02, 0.2, -65, 8), from rest at -65 mV; 30 mV is the peak of a spike."""
    cell = Izhikevich(2)
    np.testing.assert_allclose([cell.a, cell.b, cell.c, cell.d, cell.threshold], [0.02, 0.2, -65, 8, 30])
    v, u = cell.init(jax.random.key(0))
    np.testing.assert_allclose([v, u], [[-65, -65], [-13, -13]])
    for wrong in ({"substeps": 0}, {"substeps": 2, "half_steps": True}, {"dt": 0.0}):
        with pytest.raises(InputError, match="is wanted"):
            Izhikevich(2, **wrong)


def test_izhikevich_substeps_are_smaller_steps():
    """Four substeps of a step equal four steps under the same input; what fires within counts for the step."""
    drive = jnp.repeat(jax.random.uniform(jax.random.key(0), (100, 3)) * 15, 4, axis=0)
    _, (v, spikes) = rollout(Izhikevich(3, dt=0.25), drive, record=lambda state, out: (state[0], out))
    _, (coarse, seen) = rollout(Izhikevich(3, substeps=4, dt=1.0), drive[::4], record=lambda state, out: (state[0], out))
    np.testing.assert_allclose(coarse, v[3::4], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(seen, spikes.reshape(100, 4, 3).max(axis=1))
    assert seen.sum() > 3
    capped = rollout(Izhikevich(1, cap=True, dt=0.5), jnp.full((300, 1), 10.0), record=lambda state, _: state[0])[1]
    assert float(capped.max()) <= 30.0
    with pytest.raises(InputError, match="substeps = 0"):
        Izhikevich(1, substeps=0)


def test_learned_parameters_are_trainable_and_others_are_not():
    cell = LIF(2, learn=("tau", "threshold"))
    marks = trainable(cell)
    assert (marks.tau, marks.threshold, marks.rest) == (True, True, False)
    gradient = jax.grad(lambda c: jnp.sum(rollout(c, 3 * jnp.ones((30, 2)))[1]), allow_int=True)(cell)
    assert float(jnp.abs(gradient.tau)) > 0
    with pytest.raises(InputError, match="which is no parameter"):
        LIF(2, learn=("gain",))
    with pytest.raises(InputError, match="drop is what a soft reset"):
        LIF(2, drop=1.0)


@pytest.mark.parametrize(
    ("make", "area"),
    [(surrogates.fast_sigmoid, 2 / 25), (surrogates.arctan, 1.0), (surrogates.triangle, 1.0), (surrogates.sigmoid, 1.0)],
)
def test_surrogate_derivatives_are_bumps_of_the_area_they_say(make, area):
    """All but the fast sigmoid integrate to the height of the step; at the threshold only inclusive ones fire."""
    x = jnp.linspace(-200, 200, 400_001)
    bump = jax.vmap(jax.grad(make()))(x)
    np.testing.assert_allclose(np.trapezoid(bump, x), area, rtol=1e-2)
    assert (float(make()(jnp.zeros(()))), float(make(inclusive=True)(jnp.zeros(())))) == (0.0, 1.0)
    with pytest.raises(InputError, match="above 0"):
        make(-1.0)


def test_what_a_soft_reset_takes_off():
    """The way from rest to threshold, or what is asked for; a hard one goes to a place of its own."""
    for options, after in (
        ({"reset": None}, -49.0 - 10), ({"reset": None, "drop": 4.0}, -49.0 - 4), ({"reset": -70.0}, -70.0), ({}, -60.0),
    ):  # fmt: skip
        cell = LIF(1, tau=1e9, v0=-52.0, dt=1.0, **options)
        state, spikes = cell.step(cell.at_rest(), jnp.asarray([3.0]))
        assert (float(spikes[0]), float(state.v[0])) == (1.0, pytest.approx(after, abs=1e-4))
    refractory = LIF(1, tau=1e9, rest=0.0, threshold=1.0, reset=0.0, refractory=3.0, dt=1.0)
    drive = jnp.asarray([[2.0], [2.0], [2.0], [2.0], [2.0]])
    assert rollout(refractory, drive)[1][:, 0].tolist() == [1, 0, 0, 1, 0]


def test_cells_as_they_come():
    cell = LIF(1)
    assert [float(each) for each in (cell.tau, cell.rest, cell.threshold, cell.reset, cell.v0[0])] == [20, -60, -50, -60, -60]
    assert (cell.dt, cell.hold, cell.drop, cell.method) == (0.1, 0, None, "exact")
    assert float(cell.leak) == pytest.approx(np.exp(-0.1 / 20))
    assert CurrentLIF(1).tau_syn.tolist() == ConductanceLIF(1).tau_syn.tolist() == [[5.0], [10.0]]
    assert ConductanceLIF(1).reversal.tolist() == [[0.0], [-80.0]]
    assert not CurrentLIF(2).g0.any()
    for wrong in ({"size": 0}, {"tau": np.ones(3)}, {"threshold": np.nan}, {"reset": [np.nan, 0.0]}):
        with pytest.raises(InputError):
            LIF(**({"size": 2} | wrong))


def test_half_steps_of_izhikevich_by_hand():
    cell, v, u = Izhikevich(1, half_steps=True), -65.0, -13.0
    drive, wanted = np.linspace(5, 20, 40), []
    for current in drive:
        for _ in range(2):
            v = v + 0.5 * (0.04 * v**2 + 5 * v + 140 - u + current)
        u = u + 0.02 * (0.2 * v - u)
        fired = v >= 30
        wanted.append((fired, v := -65.0 if fired else v, u := u + 8 * fired))
    _, (v, u, spikes) = rollout(cell, jnp.asarray(drive)[:, None], record=lambda state, out: (*state, out))
    np.testing.assert_allclose(np.stack([spikes, v, u])[..., 0].T, np.array(wanted, float), rtol=1e-3, atol=1e-2)
    assert 0 < np.sum([fired for fired, *_ in wanted]) < 10


@pytest.mark.parametrize(
    ("made", "at", "slope"),
    [
        (surrogates.fast_sigmoid(), 0.04, 1 / 4), (surrogates.arctan(), 1 / np.pi, 1 / 2), (surrogates.triangle(), 0.25, 3 / 4),
        (surrogates.triangle(2.0), 1.0, 1 / 4), (surrogates.rectangle(), 0.49, 1.0), (surrogates.rectangle(), -0.51, 0.0),
        (surrogates.rectangle(4.0), 1.9, 1 / 4), (surrogates.sigmoid(), np.log(3) / 4, 4 * 3 / 16), (surrogates.spike, -0.12, 1 / 16),
        (surrogates.at_threshold, 0.12, 1 / 16),
    ],
)  # fmt: skip
def test_surrogate_derivatives_by_hand_and_copies_that_are_equal(made, at, slope):
    for side in (at, -at):
        assert float(jax.grad(made)(jnp.asarray(side))) == pytest.approx(slope, rel=1e-5)
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert hash(again) == hash(made)
    assert made != surrogates.fast_sigmoid(7.0)
    assert surrogates.fast_sigmoid(3.0) != surrogates.fast_sigmoid(3.0, inclusive=True)


def flat(x):
    return jnp.ones_like(x)


def test_a_surrogate_of_ones_own_is_known_by_its_derivative():
    own = surrogates.surrogate(flat)
    assert pickle.loads(pickle.dumps(own)) == own == surrogates.Surrogate(flat)
    assert (float(own(jnp.zeros(()))), float(surrogates.surrogate(flat, inclusive=True)(jnp.zeros(())))) == (0.0, 1.0)
    assert float(jax.grad(own)(jnp.asarray(5.0))) == 1.0
