"""Interactions: wirings that have a state and change with what flows through them, arXiv 2111.01297.

An interaction from A to B takes a value forward, and a reply to that value backward; an event, one value and its reply, moves
its state. A lens is an interaction with nothing to remember, a layer that learns is one that remembers weights, a market of
experts one that remembers whom to trust. In the language of `interfaces` it is a coalgebra of the internal hom.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray, PyTree

from broadsheet.dynamics.interfaces import IDENTITY, Lens
from broadsheet.dynamics.system import State, System, as_array, split
from broadsheet.errors import CompositionError, InputError

Respond = Callable[[PyTree], tuple[PyTree, State]]


class Interaction(eqx.Module):
    """A wiring with a state. `f >> g` is f, then g; `f @ g` has both side by side, on pairs.

    A subclass defines `init` and `react`. All parts of a composite move from the state before the event, because each
    answers from what it computed on the way forward.
    """

    def init(self, key: PRNGKeyArray | None = None) -> State:
        """The state before the first event."""
        return ()

    def react(self, state: State, value: PyTree) -> tuple[PyTree, Respond]:
        """The value that goes on, and a function from the reply to it to (reply to `value`, next state)."""
        raise TypeError(f"{type(self).__name__} does not define react(state, value).")

    def get(self, state: State, value: PyTree) -> PyTree:
        """Forward: what the outside sees of `value`."""
        return self.react(state, value)[0]

    def put(self, state: State, value: PyTree, reply: PyTree) -> PyTree:
        """Backward: the reply to `value`, given the reply to what the outside saw of it."""
        return self.react(state, value)[1](reply)[0]

    def update(self, state: State, value: PyTree, reply: PyTree) -> State:
        """The state after the event."""
        return self.react(state, value)[1](reply)[1]

    def parts(self) -> tuple[Interaction, ...]:
        """The interactions in a row of which this one is made."""
        return (self,)

    def __rshift__(self, other: Interaction) -> Interaction:
        return InSeries((*self.parts(), *other.parts()))

    def __matmul__(self, other: Interaction) -> Interaction:
        return InParallel(self, other)


class Wiring(Interaction):
    """A lens as an interaction without memory."""

    lens: Lens = eqx.field(static=True, default=IDENTITY)

    def react(self, state: State, value: PyTree) -> tuple[PyTree, Respond]:
        return self.lens.get(value), lambda reply: (self.lens.put(value, reply), state)


class InSeries(Interaction):
    """One after the other; the state is one flat tuple, so that brackets make no difference."""

    members: tuple[Interaction, ...]

    def init(self, key: PRNGKeyArray | None = None) -> State:
        return tuple(part.init(k) for part, k in zip(self.members, split(key, len(self.members)), strict=True))

    def react(self, state: State, value: PyTree) -> tuple[PyTree, Respond]:
        responses = []
        for part, own in zip(self.members, state, strict=True):
            value, respond = part.react(own, value)
            responses.append(respond)

        def back(reply: PyTree) -> tuple[PyTree, State]:
            after = []
            for respond in reversed(responses):
                reply, own = respond(reply)
                after.append(own)
            return reply, tuple(reversed(after))

        return value, back

    def parts(self) -> tuple[Interaction, ...]:
        return self.members


class InParallel(Interaction):
    """Two side by side: values, replies and states are pairs."""

    first: Interaction
    second: Interaction

    def init(self, key: PRNGKeyArray | None = None) -> State:
        one, other = split(key, 2)
        return self.first.init(one), self.second.init(other)

    def react(self, state: State, value: PyTree) -> tuple[PyTree, Respond]:
        left, respond_left = self.first.react(state[0], value[0])
        right, respond_right = self.second.react(state[1], value[1])

        def back(reply: PyTree) -> tuple[PyTree, State]:
            (reply_left, after_left), (reply_right, after_right) = respond_left(reply[0]), respond_right(reply[1])
            return (reply_left, reply_right), (after_left, after_right)

        return (left, right), back


def add_up(replies: tuple) -> PyTree:
    """The sum of replies, which is what cotangents of a shared value want."""
    return jax.tree.map(lambda *parts: sum(parts), *replies)


class Shared(Interaction):
    """Interactions that all receive the same value: a tuple of values goes on, a tuple of replies comes back.

    The reply to the common value is `collect` of the members' replies, by default their sum.
    """

    members: tuple[Interaction, ...]
    collect: Callable[[tuple], PyTree] = eqx.field(static=True, default=add_up)

    def init(self, key: PRNGKeyArray | None = None) -> State:
        return tuple(part.init(k) for part, k in zip(self.members, split(key, len(self.members)), strict=True))

    def react(self, state: State, value: PyTree) -> tuple[PyTree, Respond]:
        found = [part.react(own, value) for part, own in zip(self.members, state, strict=True)]

        def back(reply: PyTree) -> tuple[PyTree, State]:
            answers = [respond(part) for (_, respond), part in zip(found, reply, strict=True)]
            return self.collect(tuple(answer for answer, _ in answers)), tuple(after for _, after in answers)

        return tuple(value for value, _ in found), back


class Wired(System):
    """A Moore system seen through an interaction: outputs go forward through it, inputs come back."""

    system: System
    interaction: Interaction
    dt: float | None = eqx.field(static=True)

    def init(self, key: PRNGKeyArray) -> State:
        inside, around = split(key, 2)
        return self.system.init(inside), self.interaction.init(around)

    def step(self, state: State, inputs: PyTree, key: PRNGKeyArray | None = None) -> tuple[State, PyTree]:
        inside, around = state
        output, respond = self.interaction.react(around, self.system.readout(inside))
        within, around = respond(inputs)
        inside, _ = self.system.step(inside, within, key)
        return (inside, around), output

    def readout(self, state: State) -> PyTree:
        return self.interaction.get(state[1], self.system.readout(state[0]))

    def consolidate(self, state: State) -> Wired:
        return Wired(self.system.consolidate(state[0]), self.interaction, self.dt)


class Responding(System):
    """An interaction as a system: values in, values out, and the same reply to each (1 for a loss that is to fall)."""

    interaction: Interaction
    reply: PyTree

    def init(self, key: PRNGKeyArray | None = None) -> State:
        return self.interaction.init(key)

    def step(self, state: State, inputs: PyTree, key: PRNGKeyArray | None = None) -> tuple[State, PyTree]:
        output, respond = self.interaction.react(state, inputs)
        return respond(self.reply)[1], output


def wire(pattern: Lens | Diagram | Interaction, system: System) -> Wired:
    """Changes the interface of a Moore system; `CompositionError` where its output depends on its present input.

    The result shows `get(readout)`, and hands `put(readout, input)` to the system: a change of units, a subset of the
    outputs, a feedback loop (a `put` that routes outputs into inputs), or a wiring that learns.
    """
    if not system.moore:
        raise CompositionError(f"wire: the output of {type(system).__name__} depends on its present input.")
    pattern = pattern.lens() if isinstance(pattern, Diagram) else pattern
    return Wired(system, Wiring(pattern) if isinstance(pattern, Lens) else pattern, getattr(system, "dt", None))


def respond(interaction: Interaction, reply: PyTree) -> Responding:
    """The interaction as a system under a constant reply, for `rollout`."""
    return Responding(interaction, jax.tree.map(as_array, reply))


@dataclass(frozen=True)
class Diagram:
    """Boxes and wires: which outputs each box receives. `"in"` is the outside.

    `Diagram({"plant": ("controller",), "controller": ("plant", "in")}, out=("plant",))` closes a control loop.

    - `wires`: box -> the names whose outputs, summed, are its input; boxes in the order in which `parallel` has them.
    - `out`: the boxes that the outside sees; one alone is seen as it is, several as a tuple.
    """

    wires: dict[str, tuple[str, ...]]
    out: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in {source for sources in self.wires.values() for source in sources} - {"in"} | set(self.out):
            if name not in self.wires:
                raise InputError(f"The diagram has no box {name!r}; there are {', '.join(self.wires)}.")

    def lens(self) -> Lens:
        """The wiring of `parallel(...)` of the boxes, in the order of `wires`."""
        names = list(self.wires)

        def get(outputs: tuple) -> PyTree:
            shown = tuple(outputs[names.index(name)] for name in self.out)
            return shown[0] if len(shown) == 1 else shown

        def put(outputs: tuple, outside: PyTree) -> tuple:
            values = {**dict(zip(names, outputs, strict=True)), "in": outside}
            return tuple(
                add_up(tuple(values[source] for source in sources)) if sources else None for sources in self.wires.values()
            )

        return Lens(get, put)
