"""Interactions that say what they go between, and refuse what does not fit in a sentence, arXiv 2111.01297.

An interface B y^A is what is shown and what is accepted. An interaction from A y^A' to B y^B' takes a value like A forward to
one like B, and a reply like B' back to one like A'. Shapes alone count: those of arrays, of numbers, and of tuples of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from broadsheet.dynamics.interactions import InSeries, Interaction, Respond, Wiring
from broadsheet.dynamics.interfaces import Lens
from broadsheet.dynamics.system import State, System
from broadsheet.errors import CompositionError

Shapes = Any
"""A shape, `(3,)` or `()` for a number; None for nothing; or a tuple of such, `((3,), ())`."""


class Mono(NamedTuple):
    """The interface B y^A: the shapes that are shown (B) and those that are accepted (A).

    `Mono((3,), (3,))` is a wire that carries three numbers forward, and three back.
    """

    shown: Shapes
    accepted: Shapes

    def __matmul__(self, other: Mono) -> Mono:
        """Side by side: pairs of what is shown, pairs of what is accepted."""
        return Mono((self.shown, other.shown), (self.accepted, other.accepted))

    def __repr__(self) -> str:
        return f"{_words(self.shown)} y^{_words(self.accepted)}"


class Typed(Interaction):
    """An interaction from the interface `dom` to the interface `cod`; made by `typed` and `typed_learner`.

    Before another typed one (`f >> g`) its codomain must be the domain of that; beside one (`f @ g`) interfaces are pairs. A
    value or reply of another shape is refused where it arrives, also where it comes from an interaction without interfaces.
    """

    interaction: Interaction
    dom: Mono = eqx.field(static=True)
    cod: Mono = eqx.field(static=True)

    def init(self, key: PRNGKeyArray | None = None) -> State:
        return self.interaction.init(key)

    def react(self, state: State, value: PyTree) -> tuple[PyTree, Respond]:
        self._fits("is given", self.dom.shown, value)
        output, respond = self.interaction.react(state, value)
        self._fits("shows", self.cod.shown, output)

        def back(reply: PyTree) -> tuple[PyTree, State]:
            self._fits("is answered", self.cod.accepted, reply)
            answer, after = respond(reply)
            self._fits("answers", self.dom.accepted, answer)
            return answer, after

        return output, back

    def __rshift__(self, other: Interaction) -> Interaction:
        if not isinstance(other, Typed):
            return super().__rshift__(other)
        if self.cod != other.dom:
            raise CompositionError(f"An interaction to {self.cod!r} cannot be followed by one from {other.dom!r}.")
        members = (*self.interaction.parts(), *other.interaction.parts())
        return Typed(InSeries(members), self.dom, other.cod)

    def __matmul__(self, other: Interaction) -> Interaction:
        both = super().__matmul__(other)
        return Typed(both, self.dom @ other.dom, self.cod @ other.cod) if isinstance(other, Typed) else both

    def _fits(self, verb: str, wanted: Shapes, found: PyTree) -> None:
        if wanted != _shapes(found):
            raise CompositionError(
                f"An interaction from {self.dom!r} to {self.cod!r} {verb} {_words(_shapes(found))} where {_words(wanted)} "
                "is wanted."
            )


def typed(pattern: Interaction | Lens, dom: Mono, cod: Mono) -> Typed:
    """An interaction, or a lens, from `dom` to `cod`.

    **Raises:** `CompositionError` where it does not go between them; it is traced with such shapes, and not run.

    **Example:**

        >>> from broadsheet.dynamics import Lens
        >>> total = Lens(lambda a: a.sum(), lambda a, e: 0 * a + e)
        >>> typed(total, Mono((3,), (3,)), Mono((), ())).cod
        () y^()
    """
    made = Typed(Wiring(pattern) if isinstance(pattern, Lens) else pattern, dom, cod)

    def event(value: PyTree, reply: PyTree) -> State:
        return made.react(made.init(jax.random.key(0)), value)[1](reply)[1]

    eqx.filter_eval_shape(event, _arrays(dom.shown), _arrays(cod.accepted))
    return made


def typed_learner(part: Interaction, inputs: Shapes) -> Typed:
    """An interaction whose replies are like its values, as a learner's are, between the interfaces that go with its inputs."""

    def get(value: PyTree) -> PyTree:
        return part.get(part.init(jax.random.key(0)), value)

    outputs = _shapes(eqx.filter_eval_shape(get, _arrays(inputs)))
    return typed(part, Mono(inputs, inputs), Mono(outputs, outputs))


def interface(system: System, inputs: Shapes = None) -> Mono:
    """What a Moore system shows, and that it accepts such inputs.

    **Raises:** `CompositionError` where its output depends on its present input, or is of another shape after a step.
    """
    if not system.moore:
        raise CompositionError(f"{type(system).__name__} has no interface: its output depends on its present input.")
    key = jax.random.key(0)

    def shown(value: PyTree) -> tuple[PyTree, PyTree]:
        state = system.init(key)
        return system.readout(state), system.readout(system.step(state, value, key)[0])

    first, then = map(_shapes, eqx.filter_eval_shape(shown, _arrays(inputs)))
    if first != then:
        raise CompositionError(f"{type(system).__name__} shows {_words(first)}, and after a step {_words(then)}.")
    return Mono(first, inputs)


def _shapes(value: PyTree) -> Shapes:
    """The shapes of a value."""
    if isinstance(value, list | tuple):
        return tuple(map(_shapes, value))
    return None if value is None else tuple(jnp.shape(value))


def _of_each(function: Callable[[tuple[int, ...]], Any], shapes: Shapes) -> Any:
    if shapes is None or all(isinstance(extent, int) for extent in shapes):
        return None if shapes is None else function(shapes)
    return tuple(_of_each(function, part) for part in shapes)


def _arrays(shapes: Shapes) -> PyTree:
    """Abstract arrays of the default float type."""
    return _of_each(lambda shape: jax.ShapeDtypeStruct(shape, jnp.result_type(float)), shapes)


def _words(shapes: Shapes) -> str:
    return str(shapes).replace("None", "nothing")
