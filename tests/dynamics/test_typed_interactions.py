import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from broadsheet.dynamics import Lens, System, learner, wire
from broadsheet.dynamics.interactions import InSeries, Wiring
from broadsheet.dynamics.learners import Loss, Market
from broadsheet.dynamics.typed_interactions import Mono, Typed, interface, typed, typed_learner
from broadsheet.errors import CompositionError


class Dense(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return self.weight @ x


def part(inputs, outputs):
    return learner(Dense(jnp.ones((outputs, inputs))), optax.sgd(0.1))


def test_learners_say_what_they_go_between_and_compose_where_it_fits():
    first, second = typed_learner(part(4, 3), (4,)), typed_learner(part(3, 2), (3,))
    assert repr(first.dom) == "(4,) y^(4,)"
    assert first.cod == second.dom == Mono((3,), (3,))
    both = first >> second
    assert (both.dom, both.cod) == (first.dom, second.cod)
    with pytest.raises(CompositionError, match=r"to \(2,\) y\^\(2,\) cannot be followed by one from \(4,\) y\^\(4,\)"):
        second >> first


def test_interfaces_change_no_number():
    plain = part(4, 3) >> part(3, 2)
    made = typed_learner(part(4, 3), (4,)) >> typed_learner(part(3, 2), (3,))
    assert isinstance(made.interaction, InSeries)
    value, reply = jnp.arange(4.0), jnp.array([1.0, -2.0])
    found, wanted = (
        (output, *back(reply)) for output, back in (each.react(each.init(), value) for each in (made, plain))
    )  # fmt: skip
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_does_not_go_between_two_interfaces_is_refused_before_it_runs():
    total = Lens(lambda a: a.sum(), lambda a, e: 0 * a + e)
    assert typed(total, Mono((3,), (3,)), Mono((), ())).cod == Mono((), ())
    with pytest.raises(CompositionError, match=r"shows \(\) where \(2,\) is wanted"):
        typed(total, Mono((3,), (3,)), Mono((2,), ()))
    with pytest.raises(CompositionError, match=r"answers \(3,\) where \(\) is wanted"):
        typed(total, Mono((3,), ()), Mono((), ()))
    loss = typed(Loss(lambda b, y: jnp.sum((b - y) ** 2)), Mono(((2,), (2,)), ((2,), None)), Mono((), ()))
    assert repr(loss.dom) == "((2,), (2,)) y^((2,), nothing)"


def test_a_value_or_reply_of_another_shape_is_refused_where_it_arrives():
    made = typed_learner(part(4, 3), (4,))
    with pytest.raises(CompositionError, match=r"is given \(5,\) where \(4,\) is wanted"):
        (Wiring(Lens(lambda a: jnp.ones(5), lambda a, e: e)) >> made).get(((), made.init()), jnp.ones(4))
    with pytest.raises(CompositionError, match=r"is answered \(2,\) where \(3,\) is wanted"):
        made.put(made.init(), jnp.ones(4), jnp.ones(2))


def test_side_by_side_interfaces_are_pairs():
    both = typed_learner(part(4, 3), (4,)) @ typed_learner(part(2, 1), (2,))
    assert isinstance(both, Typed)
    assert both.dom == Mono(((4,), (2,)), ((4,), (2,)))
    market = typed(Market(lambda b, y: jnp.abs(b - y), 2), Mono(((), ()), ((), ())), Mono((), ()))
    assert float(market.get(market.init(), (jnp.asarray(0.0), jnp.asarray(1.0)))) == 0.5


class Level(System):
    """Shows its level, whatever comes in."""

    def init(self, key=None):
        return jnp.zeros(2)

    def step(self, state, inputs, key=None):
        return state + inputs, state

    def readout(self, state):
        return state


def test_systems_have_interfaces_and_are_wired_through_typed_ones():
    assert interface(Level(), (2,)) == Mono((2,), (2,))
    total = typed(Lens(lambda b: b.sum(), lambda b, e: jnp.stack([e, e])), interface(Level(), (2,)), Mono((), ()))
    wired = wire(total, Level())
    assert interface(wired, ()) == Mono((), ())
    with pytest.raises(CompositionError, match="is answered"):
        interface(wired, (3,))

    class Mealy(System):
        def step(self, state, inputs, key=None):
            return state, inputs

    with pytest.raises(CompositionError, match="Mealy has no interface"):
        interface(Mealy())


def test_a_system_may_take_in_nothing_and_has_to_show_the_same_after_a_step():
    class Ticking(Level):
        def step(self, state, inputs, key=None):
            assert inputs is None
            return state + 1, state

    assert interface(Ticking()) == Mono((2,), None)
    assert repr(Mono((2,), None)) == "(2,) y^nothing"

    class Growing(Level):
        def step(self, state, inputs, key=None):
            return jnp.zeros(3), state

    with pytest.raises(CompositionError, match=r"Growing shows \(2,\), and after a step \(3,\)"):
        interface(Growing(), (2,))


def test_typed_interactions_beside_those_without_interfaces_have_none():
    made, plain = typed_learner(part(4, 3), (4,)), part(3, 2)
    for both in (made >> plain, made @ plain):
        assert not isinstance(both, Typed)
    assert (made >> plain).get((made.init(), plain.init()), jnp.ones(4)).shape == (2,)
    nested = Mono(((), ((2,), None)), ((), ((2,), None)))
    pairs = typed(Lens(lambda a: a, lambda a, e: e), nested, nested)
    value = (jnp.asarray(1.0), [jnp.ones(2), None])
    assert pairs.get(pairs.init(), value)[1][1] is None
    assert pairs.init() == ()
    with pytest.raises(CompositionError, match="is given"):
        pairs.get((), (jnp.asarray(1.0), (jnp.ones(2), jnp.ones(2))))
