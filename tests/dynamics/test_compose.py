import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from broadsheet.dynamics import Delay, System, feedback, is_moore, parallel, rollout, series, substep
from broadsheet.errors import CompositionError, InputError


class LowPass(System):
    """y <- a y + (1 - a) u: output depends on the present input."""

    a: jax.Array
    dt: float = eqx.field(static=True, default=1.0)

    def init(self, key):
        return jnp.zeros(())

    def step(self, state, inputs, key=None):
        state = self.a * state + (1 - self.a) * inputs
        return state, state


class Integrator(System):
    """Moore: shows its sum, then adds its input."""

    gain: jax.Array
    dt: float = eqx.field(static=True, default=1.0)

    def init(self, key):
        return jnp.zeros(())

    def step(self, state, inputs, key=None):
        return state + self.gain * inputs, state

    def readout(self, state):
        return state


def low_pass(a, dt=1.0):
    return LowPass(jnp.asarray(a), dt)


def test_series_equals_scipys_cascade():
    u = np.sin(np.arange(40.0))
    _, y = rollout(series(low_pass(0.5), low_pass(0.8)), jnp.asarray(u))
    np.testing.assert_allclose(y, signal.lfilter([0.2], [1, -0.8], signal.lfilter([0.5], [1, -0.5], u)), atol=1e-6)


def test_parallel_runs_side_by_side():
    u = jnp.ones(5)
    _, (a, b) = rollout(parallel(low_pass(0.5), low_pass(0.8)), (u, 2 * u))
    np.testing.assert_allclose(a, 1 - 0.5 ** np.arange(1, 6), rtol=1e-6)
    np.testing.assert_allclose(b, 2 - 2 * 0.8 ** np.arange(1, 6), rtol=1e-6)


@pytest.mark.parametrize("readout_at", ["forward", "back"])
def test_negative_feedback_equals_the_closed_form(readout_at):
    """Integrator with gain g in unit negative feedback: the error shrinks by (1 - g) a step."""
    gain = 0.3
    minus = {"combine": lambda u, fed: u - fed}
    if readout_at == "forward":
        loop = feedback(Integrator(jnp.asarray(gain)), **minus)
        expected = 1 - (1 - gain) ** np.arange(20)
    else:
        loop = feedback(low_pass(0.0), Delay(jnp.zeros(()), steps=1), combine=lambda u, fed: fed + gain * (u - fed))
        expected = 1 - (1 - gain) ** np.arange(1, 21)
    _, y = rollout(loop, jnp.ones(20))
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_a_loop_without_delay_is_refused():
    with pytest.raises(CompositionError, match="Put a Delay in the loop"):
        feedback(low_pass(0.5))
    assert is_moore(series(low_pass(0.5), Delay(jnp.zeros(()))))
    assert not is_moore(series(Delay(jnp.zeros(())), low_pass(0.5)))


def test_readout_equals_the_output_of_the_next_step():
    system = series(low_pass(0.5), Integrator(jnp.asarray(2.0)))
    state, _ = rollout(system, jnp.ones(7))
    for u in (-3.0, 11.0):
        assert system.step(state, jnp.asarray(u))[1] == system.readout(state)


def test_different_time_steps_do_not_compose():
    with pytest.raises(CompositionError, match=r"dt = 0\.1.*substep"):
        series(low_pass(0.5), Integrator(jnp.asarray(1.0), dt=0.1))
    fast = substep(Integrator(jnp.asarray(0.1), dt=0.1), 10)
    _, y = rollout(series(low_pass(0.0), fast), jnp.ones(3))
    np.testing.assert_allclose(y, [0.9, 1.9, 2.9], rtol=1e-5)
    with pytest.raises(InputError, match="at least one"):
        substep(fast, 0)


def test_delay_is_exact_to_the_step():
    u = jnp.arange(1.0, 11.0)
    for steps in (1, 3, 7):
        _, y = rollout(Delay(jnp.zeros(()), steps=steps), u)
        np.testing.assert_array_equal(y, np.concatenate([np.zeros(steps), np.arange(1.0, 11.0)])[:10])
    with pytest.raises(InputError, match="at least 1"):
        Delay(jnp.zeros(()), steps=0)


def test_a_chain_reads_out_its_last_system_and_learns_in_each():
    chain = series(low_pass(0.5), low_pass(0.8), Integrator(jnp.asarray(2.0)))
    assert is_moore(chain)
    assert not is_moore(series(Integrator(jnp.asarray(2.0)), low_pass(0.5)))
    assert chain.readout((jnp.asarray(1.0), jnp.asarray(2.0), jnp.asarray(3.0))) == 3.0
    for made in (chain, parallel(low_pass(0.5), low_pass(0.8))):
        with pytest.raises(ValueError, match="zip"):
            made.consolidate(made.init(jax.random.key(0))[:1])


def test_a_coarse_step_counts_from_one():
    u = jnp.asarray(np.sin(np.arange(8.0)))
    once, twice = (rollout(substep(low_pass(0.5), count), u)[1] for count in (1, 2))
    np.testing.assert_allclose(once, signal.lfilter([0.5], [1, -0.5], u), atol=1e-6)
    np.testing.assert_allclose(twice, signal.lfilter([0.5], [1, -0.5], np.repeat(u, 2))[1::2], atol=1e-6)
    with pytest.raises(InputError, match="at least one step"):
        substep(low_pass(0.5), 0)
