"""A two-level associative memory that a theta-gamma clock writes and reads: sequences of sparse codes, in one shot.

Ours, after a position paper that gives no equations (arXiv 2105.07284): items and contexts are k-of-N codes, all synapses
binary. Items are written in the half of the theta cycle that is open for encoding, and read, one at each gamma cycle, in the
other half (Hasselmo, Bodelón and Wyble, 2002). What follows an item depends on its context through conjunctive units.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from broadsheet.dynamics import System, fixed
from broadsheet.dynamics.phases import Tick
from broadsheet.dynamics.system import as_array
from broadsheet.errors import InputError
from broadsheet.networks.willshaw import Willshaw
from broadsheet.numerics import generator
from broadsheet.numerics.sparse_codes import SparseCode, k_winners

IDLE, WRITE, FORWARD, REVERSE = range(4)
"""What a request asks for."""


class Synapses(NamedTuple):
    """The five plastic projections."""

    auto: Willshaw  # item to itself, without the diagonal: clean-up
    following: Willshaw  # key of an item to the item after it
    preceding: Willshaw | None  # key to the item before it; without keys the transpose of `following` does that
    up: Willshaw  # item to context
    down: Willshaw  # context to item


class Request(NamedTuple):
    """What is asked of the memory; a new `number` makes it a new request."""

    number: Int[Array, ""]
    mode: Int[Array, ""]
    item: Int[Array, " active"]  # cue of a sweep, or the item to be written
    label: Int[Array, " context_active"]  # what disambiguates transitions: a context, or an action
    context: Int[Array, " context_active"]  # to be linked with the item
    previous: Int[Array, " active"]  # the item before, to be written
    linked: Bool[Array, ""]  # whether there is one


class Recall(NamedTuple):
    """What the memory shows."""

    number: Int[Array, ""]  # of the request that it is about
    item: Int[Array, " active"]  # the last item read; after writing, the item as it was recognised
    context: Int[Array, " context_active"]  # of the last item, taken up at the end of a theta cycle
    found: Int[Array, ""]  # items read
    going: Bool[Array, ""]  # false after an item that nothing is known to follow
    done: Bool[Array, ""]  # of writing
    cycle: Int[Array, ""]  # of theta, in the last step


class MemoryState(NamedTuple):
    synapses: Synapses
    recall: Recall


class ThetaGammaMemory(System):
    """Sparse items and contexts, linked by five binary projections; a Moore system that shows its `Recall`.

    As a system its input is (`Tick`, `Request`): it writes at a gamma event of the encoding half of theta and reads one item at
    each event of the other half. `encode` and `read` do the same with whole sequences, without a clock.

    **Arguments:** `items`, `contexts`: their codes; `keys`: the code of the conjunctive units, None to link items themselves;
    `links`: synapses onto each conjunctive unit from items and from contexts; `threshold`: share of a whole cue's drive below
    which nothing is recalled; `context_gain`: weight of a context's synapses onto its items; `gated`: whether theta separates
    writing from reading; without, both are half open all the time, and what is recalled is written too.

    **Raises:** `InputError` where the threshold is not in (0, 1].
    """

    synapses: Synapses
    item_links: Bool[Array, "items keys"] | None = fixed()
    context_links: Bool[Array, "contexts keys"] | None = fixed()
    order: Float[Array, " keys"] | None = fixed()  # decides between equal drives of conjunctive units
    threshold: Float[Array, ""] = fixed(converter=as_array)
    context_gain: Float[Array, ""] = fixed(converter=as_array)
    gated: Bool[Array, ""] = fixed(converter=jnp.asarray)
    items: SparseCode = eqx.field(static=True)
    contexts: SparseCode = eqx.field(static=True)
    keys: SparseCode | None = eqx.field(static=True)

    def __init__(
        self,
        items: SparseCode,
        contexts: SparseCode,
        keys: SparseCode | None = None,
        *,
        links: int = 20,
        threshold: float = 0.7,
        context_gain: float = 0.25,
        gated: bool = True,
        key: PRNGKeyArray | None = None,
    ) -> None:
        if not 0 < threshold <= 1:
            raise InputError(f"ThetaGammaMemory: threshold is {threshold}; a share in (0, 1] is wanted.")
        n, c = items.size, contexts.size
        self.item_links = self.context_links = self.order = None
        if keys is not None:
            one, other, order = jax.random.split(jax.random.key(0) if key is None else key, 3)
            self.item_links = _links(one, n, keys.size, links)
            self.context_links = _links(other, c, keys.size, links)
            self.order = as_array(0.2 * generator(order).random(keys.size))
        before = n if keys is None else keys.size
        self.synapses = Synapses(
            Willshaw(n, n, auto=True),
            Willshaw(n, before),
            None if keys is None else Willshaw(n, before),
            Willshaw(c, n),
            Willshaw(n, c),
        )
        self.threshold, self.context_gain = as_array(threshold), as_array(context_gain)
        self.items, self.contexts, self.keys, self.gated = items, contexts, keys, jnp.asarray(gated)

    def key_of(self, item: Int[Array, " active"], label: Int[Array, " context_active"] | None) -> Int[Array, " key_active"]:
        """The conjunctive units of an item and a label; the item itself in a memory without them.

        Each multiplies its two inputs, as coincidences do. With their sum, keys of one label share a third of their units,
        and a few labels with many items each, such as actions, are then confused.
        """
        if self.keys is None or self.item_links is None or self.context_links is None:
            return item
        drive = self.item_links[item].sum(0) + 0.5
        if label is not None:
            drive = drive * (self.context_links[label].sum(0) + 0.5)
        return k_winners(drive + jnp.asarray(self.order), self.keys.active)

    def write(
        self,
        synapses: Synapses,
        previous: Int[Array, " active"],
        item: Int[Array, " active"],
        label: Int[Array, " context_active"] | None,
        gate: Any = 1.0,
        on: Any = True,
    ) -> Synapses:
        """Links `previous` and `item`, both ways.

        What is written is active when its drive, `gate` times the input and `1 - gate` times what the memory recalls, is half
        of the threshold's: with the gate open the input alone, half open also what is recalled.
        """

        def link(memory: Willshaw, source: Array, target: Array) -> Willshaw:
            recalled = memory.drive(source) / len(source)
            drive = ((1 - gate) * recalled).at[target].add(gate)
            return memory.store_bits(source, (drive >= self.threshold / 2) & on)

        following = link(synapses.following, self.key_of(previous, label), item)
        if synapses.preceding is None:
            return synapses._replace(following=following)
        return synapses._replace(following=following, preceding=link(synapses.preceding, self.key_of(item, label), previous))

    def recognise(self, synapses: Synapses, item: Int[Array, " active"]) -> tuple[Int[Array, " active"], Bool[Array, ""]]:
        """(the stored item nearest to this one, true), or (the item as it is, false) where none is near enough.

        A unit's own activity stands for the synapse onto itself, which is not stored, and wins where drives are equal.
        """
        drive = synapses.auto.drive(item).at[item].add(1.5)
        winners = k_winners(drive, self.items.active)
        known = drive[winners[-1]] >= self.threshold * self.items.active
        return jnp.where(known, winners, item), known

    def retrieve(
        self,
        synapses: Synapses,
        item: Int[Array, " active"],
        label: Int[Array, " context_active"] | None,
        context: Int[Array, " context_active"] | None,
        reverse: Any = False,
    ) -> tuple[Int[Array, " active"], Bool[Array, ""]]:
        """(the item after this one, or before it, cleaned up; whether it was accepted)."""
        source = self.key_of(item, label)

        def back() -> Array:
            return (synapses.following.drive_back if synapses.preceding is None else synapses.preceding.drive)(source)

        def ahead() -> Array:
            return synapses.following.drive(source)

        drive = (back() if reverse else ahead()) if isinstance(reverse, bool) else jax.lax.cond(reverse, back, ahead)
        biased = drive if context is None else drive + self.context_gain * synapses.down.drive(context)
        winners = k_winners(biased, self.items.active)
        accepted = drive[winners].min() >= self.threshold * len(source)
        clean, _ = self.recognise(synapses, winners)
        return clean, accepted

    def encode(
        self, sequences: Int[Array, "*batch time active"], contexts: Int[Array, "*batch context_active"] | None = None
    ) -> ThetaGammaMemory:
        """The memory with these sequences as well, each in its context, seen once.

        **Raises:** `InputError` where a sequence is shorter than two items or has codes of another size.
        """
        if sequences.ndim < 2 or sequences.shape[-2] < 2 or sequences.shape[-1] != self.items.active:
            raise InputError(
                f"ThetaGammaMemory.encode: got codes of shape {sequences.shape}; (…, items, {self.items.active}) with two "
                "items or more a sequence is wanted."
            )
        length = sequences.shape[-2]
        whole = sequences.reshape(-1, length, self.items.active)
        labels = None if contexts is None else contexts.reshape(-1, self.contexts.active)
        learned = _encode(self, self.synapses, whole, labels)
        return eqx.tree_at(lambda memory: memory.synapses, self, learned)

    def read(
        self,
        cue: Int[Array, "*cues active"],
        context: Int[Array, "... context_active"] | None = None,
        direction: str = "forward",
        steps: int = 6,
    ) -> tuple[Int[Array, "*cues steps active"], Bool[Array, "*cues steps"]]:
        """(the items read one after another from a cue, whether each was accepted, false from the first that was not).

        **Arguments:** `context`: for each cue one for all steps, or `(*cues, steps, context_active)`, to switch on the way;
        `direction`: "forward" or "reverse".
        """
        if direction not in ("forward", "reverse"):
            raise InputError(f"ThetaGammaMemory.read: direction is {direction!r}; 'forward' or 'reverse' is wanted.")
        if cue.shape[-1] != self.items.active:
            raise InputError(f"ThetaGammaMemory.read: a cue of {cue.shape[-1]} units; {self.items.active} are wanted.")
        if context is not None and context.ndim == cue.ndim:
            context = jnp.broadcast_to(context[..., None, :], (*cue.shape[:-1], steps, context.shape[-1]))
        return _read(self, cue, context, jnp.asarray(direction == "reverse"), steps)

    def init(self, key: PRNGKeyArray | None = None) -> MemoryState:
        none = jnp.zeros((), jnp.int32)
        item, context = jnp.arange(self.items.active), jnp.arange(self.contexts.active)
        false = jnp.zeros((), bool)
        return MemoryState(self.synapses, Recall(none, item, context, none, false, false, none))

    def step(
        self, state: MemoryState, inputs: tuple[Tick, Request], key: PRNGKeyArray | None = None
    ) -> tuple[MemoryState, Recall]:
        tick, request = inputs
        synapses, recall = state
        fresh = request.number != recall.number
        recall = recall._replace(
            number=request.number,
            item=jnp.where(fresh, request.item, recall.item),
            context=jnp.where(fresh, request.context, recall.context),
            found=jnp.where(fresh, 0, recall.found),
            going=jnp.where(fresh, request.mode >= FORWARD, recall.going),
            done=~fresh & recall.done,
            cycle=tick.cycle,
        )
        writing = tick.event & (tick.writing | ~self.gated) & (request.mode == WRITE) & ~recall.done
        reading = tick.event & (~tick.writing | ~self.gated) & recall.going
        synapses, recall = self._learn(synapses, recall, request, tick, writing)
        # after the writing: synapses that are read before they change would be copied
        recall = recall._replace(context=self._context(synapses, recall, tick.cycle != state.recall.cycle))
        return MemoryState(synapses, self._next(synapses, recall, request, reading)), state.recall

    def _context(self, synapses: Synapses, recall: Recall, due: Any) -> Int[Array, " context_active"]:
        """At the end of a theta cycle, the context of the last item; the one before where that is not known."""

        def renew() -> Array:
            drive = synapses.up.drive(recall.item)
            winners = k_winners(drive, self.contexts.active)
            return jnp.where(drive[winners[-1]] >= self.threshold * self.items.active, winners, recall.context)

        return jax.lax.cond(due & recall.going, renew, lambda: recall.context)

    def _learn(self, synapses: Synapses, recall: Recall, request: Request, tick: Tick, writing: Any) -> tuple[Synapses, Recall]:
        """What the encoding half does with a request to write."""

        def once(_: Any, carry: tuple[Synapses, Recall]) -> tuple[Synapses, Recall]:
            synapses, recall = carry
            item, known = self.recognise(synapses, request.item)
            synapses = synapses._replace(
                auto=synapses.auto.store(item, on=~known),
                up=synapses.up.store(item, request.context),
                down=synapses.down.store(request.context, item),
            )
            gate = jnp.where(self.gated, tick.encode, 0.5)
            synapses = self.write(synapses, request.previous, item, request.label, gate, request.linked)
            return synapses, recall._replace(item=item, done=jnp.ones((), bool))

        # a loop of one turn or none: it changes the synapses where they are, and a conditional would copy them
        return jax.lax.fori_loop(0, writing.astype(jnp.int32), once, (synapses, recall))

    def _next(self, synapses: Synapses, recall: Recall, request: Request, reading: Any) -> Recall:
        """What the retrieving half does: one item more."""

        def read() -> Recall:
            item, going = self.retrieve(synapses, recall.item, request.label, recall.context, request.mode == REVERSE)
            item = jnp.where(going, item, recall.item)
            return recall._replace(item=item, going=going, found=recall.found + going)

        return jax.lax.cond(reading, read, lambda: recall)

    def readout(self, state: MemoryState) -> Recall:
        return state.recall

    def consolidate(self, state: MemoryState) -> ThetaGammaMemory:
        return eqx.tree_at(lambda memory: memory.synapses, self, state.synapses)


def _links(key: PRNGKeyArray, inputs: int, keys: int, count: int) -> Bool[Array, "inputs keys"]:
    """`count` random inputs for each conjunctive unit."""
    if not 0 < count < inputs:
        raise InputError(f"ThetaGammaMemory: {count} links a unit from {inputs} units; fewer links than units are wanted.")
    code = SparseCode(inputs, count)
    return jnp.asarray(code.bits(code.draw(key, keys)).T)


@eqx.filter_jit
def _encode(memory: ThetaGammaMemory, synapses: Synapses, sequences: Array, labels: Array | None) -> Synapses:
    """All items, transitions and contexts of whole sequences."""
    before, after = sequences[:, :-1], sequences[:, 1:]
    repeated = None if labels is None else jnp.broadcast_to(labels[:, None], (*before.shape[:2], labels.shape[-1]))

    def keys(items: Array) -> Array:
        if memory.keys is None:
            return items
        if repeated is None:
            return jax.vmap(jax.vmap(lambda item: memory.key_of(item, None)))(items)
        return jax.vmap(jax.vmap(memory.key_of))(items, repeated)

    learned = synapses._replace(auto=synapses.auto.store(sequences), following=synapses.following.store(keys(before), after))
    if synapses.preceding is not None:
        learned = learned._replace(preceding=synapses.preceding.store(keys(after), before))
    if labels is None:
        return learned
    of_each = jnp.broadcast_to(labels[:, None], (*sequences.shape[:2], labels.shape[-1]))
    return learned._replace(up=synapses.up.store(sequences, of_each), down=synapses.down.store(of_each, sequences))


@eqx.filter_jit
def _read(memory: ThetaGammaMemory, cue: Array, context: Array | None, reverse: Array, steps: int) -> tuple[Array, Array]:
    def one(carry: tuple[Array, Array], label: Array | None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        item, going = carry
        found, accepted = memory.retrieve(memory.synapses, item, label, label, reverse)
        going = going & accepted
        item = jnp.where(going, found, item)
        return (item, going), (item, going)

    def sweep(cue: Array, context: Array | None) -> tuple[Array, Array]:
        return jax.lax.scan(one, (cue, jnp.ones((), bool)), context, length=steps)[1]

    for _ in range(cue.ndim - 1):
        sweep = jax.vmap(sweep)
    return sweep(cue, context)
