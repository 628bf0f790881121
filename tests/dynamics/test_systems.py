"""What systems are by themselves: their options, what of them is traced, and each part at its smallest size."""

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
    RingBuffer,
    SynapticDelays,
    System,
    batch,
    feedback,
    learner,
    parallel,
    respond,
    rollout,
    rollout_until,
    series,
    substep,
    supervised,
    wire,
)
from broadsheet.dynamics.interactions import Shared, Wiring
from broadsheet.dynamics.interfaces import Poly, Y
from broadsheet.dynamics.learners import Loss, Market, TargetLearner
from broadsheet.dynamics.phases import Clock, Kuramoto, Ticks
from broadsheet.dynamics.system import common_dt, fixed, split, trainable
from broadsheet.errors import CompositionError, EventOverflowError, InputError

KEY = jax.random.key(0)


class Sum(System):
    """Shows its sum, then adds its input and a normal number where it gets a key."""

    gain: jax.Array
    dt: float = eqx.field(static=True, default=0.5)

    def init(self, key):
        return jnp.zeros(())

    def step(self, state, inputs, key=None):
        noise = 0.0 if key is None else jax.random.normal(key)
        return state + self.gain * inputs + noise, state

    def readout(self, state):
        return state

    def consolidate(self, state):
        return Sum(state, self.dt)


def total():
    return Sum(jnp.asarray(1.0))


COMPOSED = {
    "series": lambda: series(total(), total()),
    "parallel": lambda: parallel(total(), total()),
    "feedback": lambda: feedback(total()),
    "substep": lambda: substep(total(), 3),
    "batch": lambda: batch(total(), 3),
    "wire": lambda: wire(Lens(lambda a: a, lambda a, e: e), total()),
    "Delay": lambda: Delay(jnp.zeros(()), 3),
    "SynapticDelays": lambda: SynapticDelays(np.ones((2, 2)), np.ones((2, 2), int)),
    "Market": lambda: Market(lambda b, y: jnp.abs(b - y), 2),
    "learner": lambda: learner(eqx.nn.Linear(1, 1, key=KEY), optax.sgd(0.1)),
    "Loss": lambda: Loss(lambda b, y: (b - y) ** 2),
    "Shared": lambda: Shared((Wiring(), Wiring())),
    "Clock": lambda: Clock(),
    "Ticks": lambda: Ticks(Clock()),
    "Kuramoto": lambda: Kuramoto(jnp.zeros(2), 1.0),
    "TargetLearner": lambda: TargetLearner(eqx.nn.Linear(1, 1, key=KEY), 0.1),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_sizes_and_steps_are_no_leaves(name):
    """Else each would be traced: a number of steps could bound no loop, and a function is no array."""
    made = COMPOSED[name]()
    assert all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(made))
    assert jax.jit(lambda made: jnp.zeros(()))(made) == 0


@pytest.mark.parametrize(
    ("name", "dt"), [("series", 0.5), ("parallel", 0.5), ("feedback", 0.5), ("substep", 1.5), ("batch", 0.5)]
)
def test_a_composed_system_has_the_time_step_of_its_parts(name, dt):
    assert COMPOSED[name]().dt == dt
    assert common_dt(COMPOSED[name]()) == dt
    assert common_dt(Delay(jnp.zeros(()))) is None


def test_examples_of_a_batch_are_last_in_all_that_it_shows():
    made = batch(Delay(jnp.zeros((2, 3)), 1), 4)
    state = made.init(KEY)
    assert made.readout(state).shape == (2, 3, 4)
    given = jax.random.normal(KEY, (2, 3, 4))
    state, out = made.step(state, given)
    assert out.shape == (2, 3, 4)
    np.testing.assert_array_equal(made.readout(state), given)
    assert made.moore
    assert batch(made, 1).readout(batch(made, 1).init(KEY)).shape == (2, 3, 4, 1)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_fast_step_has_noise_of_its_own(count):
    """Sums of the same keys' numbers, one by one: the key of fast step n is that of the slow one with n folded in."""
    state, _ = substep(total(), count).step(jnp.zeros(()), jnp.zeros(()), KEY)
    expected = sum(jax.random.normal(jax.random.fold_in(KEY, n)) for n in range(count))
    np.testing.assert_allclose(state, expected, rtol=1e-6)


def test_composed_systems_write_back_what_each_has_learned():
    state = (jnp.asarray(2.0), jnp.asarray(3.0))
    for made in (series(total(), total()), parallel(total(), total())):
        assert [float(each.gain) for each in made.consolidate(state).systems] == [2.0, 3.0]
        assert made.consolidate(state).dt == 0.5
    loop = feedback(total(), total(), combine=lambda u, fed: u - fed)
    back = loop.consolidate(state)
    assert (float(back.forward.gain), float(back.back.gain), back.dt) == (2.0, 3.0, 0.5)
    assert back.combine is loop.combine
    assert float(feedback(total()).consolidate((jnp.asarray(2.0), None)).forward.gain) == 2.0
    fast = substep(total(), 3).consolidate(jnp.asarray(2.0))
    assert (float(fast.system.gain), fast.count, fast.dt) == (2.0, 3, 1.5)
    wired = wire(Lens(lambda a: a, lambda a, e: e), total()).consolidate((jnp.asarray(2.0), ()))
    assert (float(wired.system.gain), wired.dt) == (2.0, 0.5)


def test_parallel_systems_want_an_input_each_or_none():
    made = parallel(total(), total())
    assert made.readout((jnp.asarray(1.0), jnp.asarray(2.0))) == (1.0, 2.0)
    with pytest.raises(CompositionError, match="2 parallel systems got 3 inputs"):
        made.step(made.init(KEY), (jnp.zeros(()),) * 3)
    delays = parallel(Delay(jnp.zeros(())), Delay(jnp.ones(())))
    assert delays.moore
    assert [float(out) for out in delays.readout(delays.init(KEY))] == [0.0, 1.0]
    for make in (series, parallel):
        with pytest.raises(InputError, match="at least one system"):
            make()


def test_a_buffer_of_one_holds_the_last_value():
    buffer = RingBuffer.filled(jnp.asarray(-1.0), 1)
    assert (buffer.length, float(buffer.oldest())) == (1, -1.0)
    for value in (3.0, 4.0):
        buffer = buffer.push(jnp.asarray(value))
        assert float(buffer.oldest()) == float(buffer.ago(1)) == value


@pytest.mark.parametrize("mode", ["events", "gather"])
def test_synapses_without_delay_answer_in_the_same_step(mode):
    made = SynapticDelays(np.asarray([[2.0]]), np.asarray([[0]]), mode=mode)
    assert made.slots == 1
    np.testing.assert_array_equal(rollout(made, jnp.asarray([[1.0], [0.0], [1.0]]))[1], [[2.0], [0.0], [2.0]])
    made.check(made.init(KEY))
    crowded = SynapticDelays(np.ones((2, 1)), np.zeros((2, 1), int), max_events=1)
    state, out = crowded.step(crowded.init(KEY), jnp.ones(2))
    assert (int(state.overflow), out.tolist()) == (1, [1.0])
    with pytest.raises(EventOverflowError, match="1 spikes were lost"):
        crowded.check(state)


def test_rollouts_record_what_is_asked_for():
    made, u = total(), jnp.arange(1.0, 13.0)
    sums = np.concatenate([[0], np.cumsum(u)])
    for options_ in ({}, {"unroll": 3}, {"remat": 4}, {"remat": 6, "every": 3}, {"every": 3}, {"every": 12}):
        every = options_.get("every", 1)
        state, out = rollout(made, u, **options_)
        np.testing.assert_allclose(out, sums[:-1][every - 1 :: every])
        assert float(state) == sums[-1]
    assert float(rollout(made, u, state=jnp.asarray(5.0))[0]) == sums[-1] + 5
    np.testing.assert_allclose(rollout(made, u, record=lambda state, out: (state, out))[1][0], sums[1:])
    for wrong in ({"every": 0}, {"every": 5}, {"remat": 5}, {"steps": 11}):
        with pytest.raises(InputError):
            rollout(made, u, **wrong)
    with pytest.raises(InputError, match="say how many steps"):
        rollout(made, None)
    with pytest.raises(InputError, match="differ in length"):
        rollout(made, (jnp.zeros(2), jnp.zeros(3)))


def test_noise_of_a_rollout_depends_on_the_number_of_the_step_alone():
    made = total()
    whole = rollout(made, jnp.zeros(6), key=KEY)
    half = rollout(made, jnp.zeros(3), key=KEY)
    rest = rollout(made, jnp.zeros(3), key=KEY, state=half[0], start=3)
    np.testing.assert_allclose(np.concatenate([half[1], rest[1]]), whole[1], rtol=1e-6)
    expected = sum(jax.random.normal(jax.random.fold_in(KEY, t)) for t in range(6))
    np.testing.assert_allclose(whole[0], expected, rtol=1e-5)


def test_rollouts_until_something_stop_there():
    made, u = total(), jnp.ones(10)
    state, out, steps = rollout_until(made, lambda state, out: state >= 4, 10, u)
    assert (float(state), float(out), int(steps)) == (4.0, 3.0, 4)
    state, _, steps = rollout_until(made, lambda state, out: state >= 40, 10, u)
    assert (float(state), int(steps)) == (10.0, 10)
    assert int(rollout_until(made, lambda state, out: True, 1, u)[2]) == 1
    with pytest.raises(InputError, match="at least 1"):
        rollout_until(made, lambda state, out: True, 0, u)
    with pytest.raises(InputError, match="fewer than max_steps"):
        rollout_until(made, lambda state, out: True, 11, u)


def test_fields_that_are_fixed_are_no_parameters():
    class Two(System):
        free: jax.Array
        held_back: jax.Array = fixed()
        inner: System

    made = Two(jnp.zeros(2), jnp.zeros(2), total())
    assert made.held == {"held_back"}
    marks = trainable(made)
    assert (marks.free, marks.held_back, marks.inner.gain) == (True, False, True)
    assert trainable(jnp.zeros(2)) is True
    assert trainable(jnp.zeros(2, int)) is False
    assert trainable(jax.ShapeDtypeStruct((2,), jnp.float32)) is True
    assert trainable(jax.ShapeDtypeStruct((2,), jnp.int32)) is False


def test_keys_are_split_or_left_out():
    assert split(None, 3) == [None] * 3
    assert len(split(KEY, 3)) == 3
    assert len({tuple(jax.random.key_data(key).tolist()) for key in split(KEY, 3)}) == 3


def test_polynomials_without_directions_and_the_unit():
    assert Poly([0])(5) == 1
    assert Poly([])(5) == 0
    assert Y(5) == 5
    assert Poly.monomial(3, 2)(5) == 3 * 5**2
    with pytest.raises(InputError, match="cannot be negative"):
        Poly([2, -1])


def test_a_target_learner_steps_down_the_square_error():
    """Linear w x without a bias: w <- w - step (w x - b) x and a <- a - w (w x - b)."""
    made = TargetLearner(eqx.nn.Linear(1, 1, use_bias=False, key=KEY), 0.25)
    w = float(made.model.weight[0, 0])
    output, back = made.react(made.init(), jnp.asarray([2.0]))
    reply, after = back(jnp.asarray([1.0]))
    np.testing.assert_allclose(output, [2 * w], rtol=1e-6)
    np.testing.assert_allclose(after.weight[0, 0], w - 0.25 * (2 * w - 1) * 2, rtol=1e-5)
    np.testing.assert_allclose(reply, [2 - w * (2 * w - 1)], rtol=1e-5)


def test_supervised_networks_hand_no_reply_to_the_label():
    made = supervised(Wiring(), lambda b, y: (b - y) ** 2)
    number, back = made.react(made.init(KEY), (jnp.asarray(3.0), jnp.asarray(1.0)))
    (reply, label), _ = back(1.0)
    assert (float(number), float(reply)) == (4.0, 4.0)
    assert label is None
    running = respond(made, 1.0)
    assert float(running.step(running.init(KEY), (jnp.asarray(3.0), jnp.asarray(1.0)))[1]) == 4.0


@pytest.mark.parametrize(
    ("bad", "good"),
    [({"rate": -0.001}, {"rate": 0.0}), ({"share": -0.001}, {"share": 0.0}), ({"share": 1.0}, {"share": 0.999})],
)
def test_bounds_of_a_market(bad, good):
    Market(lambda b, y: jnp.abs(b - y), 2, **good)
    with pytest.raises(InputError, match="Market"):
        Market(lambda b, y: jnp.abs(b - y), 2, **bad)


def test_states_of_another_number_of_members_are_refused():
    chain, beside = Wiring() >> Wiring(), Shared((Wiring(), Wiring()))
    for made in (chain, beside):
        with pytest.raises(ValueError, match="zip"):
            made.react(((),), jnp.zeros(()))
    answer = beside.react(((), ()), jnp.zeros(()))[1]
    with pytest.raises(ValueError, match="zip"):
        answer((jnp.zeros(()),))


@pytest.mark.parametrize("steps", [(0.5, 0.25), (0.5, 0.25, 0.125), (0.5, 0.5, 0.25)])
def test_any_two_time_steps_that_differ_do_not_compose(steps):
    kinds = [type(f"Sum{k}", (Sum,), {}) for k in range(len(steps))]
    with pytest.raises(CompositionError, match="Time steps differ"):
        common_dt(*(kind(jnp.asarray(1.0), dt) for kind, dt in zip(kinds, steps, strict=True)))
    assert common_dt(*(kind(jnp.asarray(1.0), 0.5) for kind in kinds)) == 0.5


def noises(count):
    return [float(jax.random.normal(key)) for key in jax.random.split(KEY, count)]


def test_each_part_of_a_composite_draws_noise_of_its_own():
    """Parts have one key each of as many as there are parts; a loop has two, whether or not it has a way back."""
    zero = jnp.zeros(())
    one, other = noises(2)
    for made, given in ((series(total(), total()), zero), (parallel(total(), total()), (zero, zero))):
        np.testing.assert_allclose(made.step((zero, zero), given, KEY)[0], [one, other], rtol=1e-6)
    np.testing.assert_allclose(feedback(total()).step((zero, None), zero, KEY)[0][0], one, rtol=1e-6)
    loop = feedback(total(), total(), combine=lambda u, fed: u)
    np.testing.assert_allclose(loop.step((zero, zero), zero, KEY)[0], [one, other], rtol=1e-6)
    wired = wire(Lens(lambda a: a, lambda a, e: e), total())
    np.testing.assert_allclose(wired.step((zero, ()), zero, KEY)[0][0], jax.random.normal(KEY), rtol=1e-6)
    examples = batch(total(), 2)
    np.testing.assert_allclose(examples.step(jnp.zeros(2), jnp.zeros(2), KEY)[0], [one, other], rtol=1e-6)


class Drawn(Sum):
    """Starts at a normal number."""

    def init(self, key):
        return jax.random.normal(key)


class DrawnWiring(Wiring):
    """Remembers a normal number that it drew at first."""

    def init(self, key=None):
        return jax.random.normal(key)


def test_each_part_of_a_composite_starts_by_a_key_of_its_own():
    one, other = noises(2)
    drawn = Drawn(jnp.asarray(1.0))
    for made in (series(drawn, drawn), parallel(drawn, drawn), feedback(drawn, drawn), wire(DrawnWiring(), drawn)):
        np.testing.assert_allclose(made.init(KEY), [one, other], rtol=1e-6)
    np.testing.assert_allclose(batch(drawn, 2).init(KEY), [one, other], rtol=1e-6)
    np.testing.assert_allclose(feedback(drawn).init(KEY)[0], one, rtol=1e-6)
    assert feedback(drawn).init(KEY)[1] is None
    assert substep(drawn, 2).init(KEY) == drawn.init(KEY)
    for made in (DrawnWiring() >> DrawnWiring(), DrawnWiring() @ DrawnWiring(), Shared((DrawnWiring(), DrawnWiring()))):
        np.testing.assert_allclose(made.init(KEY), [one, other], rtol=1e-6)
    assert respond(DrawnWiring(), 1.0).init(KEY) == drawn.init(KEY)


class Plus(System):
    """Shows what comes in plus 1, in the same step."""

    def init(self, key):
        return jnp.zeros(())

    def step(self, state, inputs, key=None):
        return inputs, inputs + 1


def test_a_loop_with_a_way_back_by_hand():
    """The sum shows before it takes in, so that what comes back is that plus 1: x <- x + (u + x + 1)."""
    loop, x, shown = feedback(total(), Plus()), 0.0, []
    for u in (1.0, 2.0, -4.0):
        shown.append(x)
        x += u + x + 1
    state, out = rollout(loop, jnp.asarray([1.0, 2.0, -4.0]))
    assert (float(state[0]), out.tolist()) == (x, shown)
    assert float(state[1]) == shown[-1]  # what the way back was given last
    assert loop.moore
    assert float(loop.readout(state)) == x
    behind = feedback(Plus(), total())  # and the other way round: the sum speaks first
    state, out = rollout(behind, jnp.asarray([1.0, 2.0]))
    assert (out.tolist(), float(state[1])) == ([2.0, 5.0], 7.0)
    assert not behind.moore
    free = feedback(Delay(jnp.ones(())))  # without an input it feeds on itself
    assert rollout(free, steps=3)[1].tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(CompositionError, match="Time steps differ"):
        feedback(total(), type("Other", (Sum,), {})(jnp.asarray(1.0), 0.25))
    assert substep(Delay(jnp.zeros(())), 2).dt is None


def test_a_delay_as_it_comes_is_of_one_step_and_of_any_tree():
    u = jnp.arange(1.0, 5.0)
    out = rollout(Delay({"a": jnp.asarray(-1.0), "b": jnp.zeros(2)}), {"a": u, "b": jnp.stack([u, -u], 1)})[1]
    assert out["a"].tolist() == [-1.0, 1.0, 2.0, 3.0]
    assert out["b"].tolist() == [[0.0, 0.0], [1.0, -1.0], [2.0, -2.0], [3.0, -3.0]]


def test_a_learner_and_a_market_as_they_come():
    """A model of one example, whose updates are not differentiated; e^(-0.3 loss), of which a thousandth each is shared."""
    made = learner(eqx.nn.Linear(2, 1, use_bias=False, key=KEY), optax.sgd(0.1))
    assert made.get(made.init(), jnp.ones(2)).shape == (1,)
    assert made.differentiable is False
    market = Market(lambda b, y: jnp.abs(b - y), 2)
    state = market.react(market.init(), (jnp.asarray(0.0), jnp.asarray(1.0)))[1](jnp.asarray(0.0))[1]
    raw = np.exp(-0.3 * np.array([0.0, 1.0]))
    np.testing.assert_allclose(market.weights(state), 0.998 * raw / raw.sum() + 0.001, rtol=1e-6)


def test_a_diagram_shows_several_boxes_and_leaves_some_without_an_input():
    made = Diagram({"a": ("in", "b"), "b": (), "c": ("a",)}, out=("c", "a")).lens()
    assert made.get((1.0, 2.0, 3.0)) == (3.0, 1.0)
    assert made.put((1.0, 2.0, 3.0), 10.0) == (12.0, None, 1.0)
    assert Diagram({"a": ("in",)}, out=("a",)).lens().get((1.0,)) == 1.0
