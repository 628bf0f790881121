import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from broadsheet.dynamics import (
    Delay,
    Diagram,
    Lens,
    System,
    feedback,
    learner,
    parallel,
    respond,
    rollout,
    series,
    supervised,
    wire,
)
from broadsheet.dynamics.interactions import Interaction, Shared, Wiring
from broadsheet.dynamics.learners import Learner, Market, Outcome
from broadsheet.errors import CompositionError, InputError

KEY = jax.random.key(0)


class Leaky(System):
    """x <- a x + u, shows x."""

    a: jax.Array

    def init(self, key=None):
        return jnp.zeros(())

    def step(self, state, inputs, key=None):
        return self.a * state + inputs, state

    def readout(self, state):
        return state


def net(key):
    return eqx.nn.MLP(3, 2, 5, 2, activation=jnp.tanh, key=key)


def mean_square(b, y):
    return jnp.mean((b - y) ** 2)


def test_a_composite_learns_as_the_whole_does():
    first, second = net(jax.random.key(1)), eqx.nn.Linear(2, 2, key=jax.random.key(2))
    x, y = jax.random.normal(KEY, (20, 8, 3)), jax.random.normal(KEY, (20, 8, 2))
    optimiser = optax.adam(1e-2)
    chain = learner(first, optimiser, batched=True) >> learner(second, optimiser, batched=True)
    state, losses = rollout(respond(supervised(chain, mean_square), 1.0), (x, y))
    (one, _), (two, _) = state[0][0]

    whole = (first, second)
    memory = optimiser.init(eqx.filter(whole, eqx.is_array))
    values = []
    for a, b in zip(x, y, strict=True):
        value, gradient = eqx.filter_value_and_grad(lambda w, a, b: mean_square(jax.vmap(lambda v: w[1](w[0](v)))(a), b))(
            whole, a, b
        )
        updates, memory = optimiser.update(gradient, memory)
        whole = eqx.apply_updates(whole, updates)
        values.append(value)
    np.testing.assert_allclose(losses, values, rtol=1e-5)
    found = jax.tree.leaves((one, two))
    for a, b in zip(found, jax.tree.leaves(eqx.filter(whole, eqx.is_array)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_updates_are_differentiated_through_only_where_asked():
    def after(rate, differentiable):
        made = learner(eqx.nn.Linear(1, 1, key=KEY), optax.sgd(1.0), differentiable=differentiable)
        state = made.update(made.init(), jnp.ones(1), rate * made.get(made.init(), jnp.ones(1)))
        return made.get(state, jnp.ones(1))[0]

    assert jax.grad(after)(0.1, False) == 0
    assert jax.grad(after)(0.1, True) != 0


def test_a_loop_from_a_diagram_is_the_loop_from_feedback():
    plant, controller = Leaky(jnp.asarray(0.9)), Leaky(jnp.asarray(0.5))
    drive = jnp.sin(jnp.arange(40.0))
    loop = wire(Diagram({"plant": ("controller",), "controller": ("plant", "in")}, out=("plant",)), parallel(plant, controller))
    np.testing.assert_allclose(
        rollout(loop, drive)[1][1:], rollout(feedback(series(controller, plant)), drive)[1][1:], rtol=1e-6
    )
    final, outputs = rollout(loop, drive)
    assert loop.readout(final).shape == outputs.shape[1:]


def test_diagrams_and_wires_say_what_is_wrong():
    with pytest.raises(InputError, match="no box 'plnat'"):
        Diagram({"plant": ("plnat",)}, out=("plant",))
    with pytest.raises(InputError, match="no box 'in'"):
        Diagram({"plant": ("in",)}, out=("in",))

    class Mealy(System):
        def init(self, key=None):
            return ()

        def step(self, state, inputs, key=None):
            return state, inputs

    with pytest.raises(CompositionError, match="Mealy"):
        wire(Lens(lambda a: a, lambda a, e: e), Mealy())
    with pytest.raises(InputError, match="no function"):
        learner(3.0, optax.sgd(0.1))
    with pytest.raises(InputError, match="share"):
        Market(mean_square, 2, share=1.0)
    with pytest.raises(TypeError, match="react"):
        Interaction().get((), 1)


def test_a_wired_system_keeps_its_time_step():
    lagged = wire(Lens(lambda b: 2 * b, lambda b, e: e), Delay(jnp.zeros(()), 3))
    out = rollout(lagged, jnp.arange(1.0, 9.0))[1]
    np.testing.assert_allclose(out, [0, 0, 0, 2, 4, 6, 8, 10])


def test_market_follows_the_closed_form():
    market = Market(lambda b, y: jnp.abs(b - y), 3, rate=0.5, share=0.1)
    state = market.init()
    predictions, outcome = (jnp.asarray(0.1), jnp.asarray(0.4), jnp.asarray(0.9)), jnp.asarray(0.3)
    mean, back = market.react(state, predictions)
    np.testing.assert_allclose(mean, 1.4 / 3, rtol=1e-6)
    replies, after = back(outcome)
    assert replies == (outcome,) * 3
    raw = np.exp(-0.5 * np.array([0.2, 0.1, 0.6]))
    np.testing.assert_allclose(market.weights(after), 0.9 * raw / raw.sum() + 0.1 / 3, rtol=1e-6)


def test_an_expert_of_a_market_without_shares_comes_back_from_any_weight():
    """One is right 2000 times, then the other 2010 times: what counts is the difference of their losses, exp(-10 / 2)."""
    market = Market(lambda b, y: jnp.abs(b - y), 2, rate=0.5, share=0.0)
    predictions = (jnp.asarray(0.0), jnp.asarray(1.0))
    outcomes = jnp.concatenate([jnp.zeros(2000), jnp.ones(2010)])

    def step(state, outcome):
        return market.react(state, predictions)[1](outcome)[1], market.weights(state)

    state, weights = jax.lax.scan(step, market.init(), outcomes)
    assert weights[2000].tolist() == [1, 0]
    np.testing.assert_allclose(market.weights(state)[0], np.exp(-5) / (1 + np.exp(-5)), rtol=1e-2)


def test_a_learner_shows_the_model_that_it_has_learned():
    """Momentum makes the optimiser's memory differ from the weights: w <- w - 0.1 m, m <- g + 0.9 m; g = reply a."""
    made = Learner(eqx.nn.Linear(2, 1, use_bias=False, key=KEY), optax.sgd(0.1, momentum=0.9))
    state, before = made.init(), np.asarray(made.model.weight)
    a, replies = jnp.asarray([2.0, -1.0]), (1.0, 3.0)
    for reply in replies:
        _, back = made.react(state, a)
        _, state = back(jnp.asarray([reply]))
    moved = -0.1 * (replies[0] + (replies[1] + 0.9 * replies[0])) * a
    np.testing.assert_allclose(made.learned(state).weight, before + moved, rtol=1e-5)
    np.testing.assert_allclose(made.learned(state)(a), (before + moved) @ a, rtol=1e-5)


def test_a_market_has_at_least_one_expert():
    alone = Market(lambda b, y: jnp.abs(b - y), 1)
    value, _ = alone.react(alone.init(), (jnp.asarray(0.4),))
    assert float(value) == pytest.approx(0.4)
    with pytest.raises(InputError, match="experts = 0"):
        Market(lambda b, y: jnp.abs(b - y), 0)


def test_shared_values_and_outcomes():
    double = Wiring(Lens(lambda a: 2 * a, lambda a, e: 2 * e))
    both = Shared((double, Wiring()))
    value, back = both.react(both.init(), jnp.asarray(3.0))
    assert [float(v) for v in value] == [6.0, 3.0]
    reply, _ = back((jnp.asarray(1.0), jnp.asarray(10.0)))
    assert float(reply) == 12.0  # the derivative of both branches, as the chain rule adds them
    judged = Outcome(lambda b, y: (b - y) ** 2)
    assert float(judged.put((), jnp.asarray(3.0), jnp.asarray(1.0))) == 4.0
    assert (double >> double).put(((), ()), jnp.asarray(1.0), jnp.asarray(1.0)) == 4.0


def test_a_market_without_shares_forgets_nothing_that_was_taken_back():
    """400 events for one expert and as many for the other leave both where they began, and not at the smallest number."""
    market = Market(lambda b, y: jnp.abs(b - y), 2, rate=1.0, share=0.0)
    predictions = (jnp.asarray(0.0), jnp.asarray(1.0))
    outcomes = jnp.repeat(jnp.array([0.0, 1.0]), 400)

    def step(state, outcome):
        return market.react(state, predictions)[1](outcome)[1], None

    state, _ = jax.lax.scan(step, market.init(), outcomes)
    np.testing.assert_allclose(market.weights(state), [0.5, 0.5], atol=1e-4)
