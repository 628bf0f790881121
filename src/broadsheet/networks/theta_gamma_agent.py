"""An agent whose model of the world is a theta-gamma memory: it writes what it meets, sweeps ahead, and replays on reward.

Ours, after a position paper that gives no equations (arXiv 2105.07284). Clock, memory, agent and world are four Moore systems
in one wiring; a step is one gamma cycle. The agent knows of the world only what the memory recalls: places are the codes that
it recognises, transitions what sweeps read. It keeps a value for each code that it has met.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from broadsheet.dynamics import Lens, System, fixed, parallel, rollout, wire
from broadsheet.dynamics.phases import Clock, Ticks
from broadsheet.dynamics.system import as_array
from broadsheet.errors import InputError
from broadsheet.networks.graph_worlds import RESTART, WAIT, GraphWorld, Observation, relearned
from broadsheet.networks.theta_gamma import FORWARD, REVERSE, WRITE, Recall, Request, ThetaGammaMemory
from broadsheet.numerics.sparse_codes import SparseCode

LOOKING, ENCODING, SWEEPING, REPLAYING = range(4)
"""What the agent is at."""
DIRECTIONS = {"reverse": -1, "none": 0, "forward": 1}
"""Of a replay."""


class AgentState(NamedTuple):
    mode: Int[Array, ""]
    action: Int[Array, ""]
    request: Request
    known: Int[Array, "places active"]  # codes met so far; what is not there yet names no unit
    met: Int[Array, ""]  # how many of them
    values: Float[Array, " places"]
    tag: Int[Array, ""]  # the code with the reward, -1 for none
    here: Int[Array, ""]
    took: Int[Array, ""]  # the last action
    heading: Int[Array, ""]  # the last one that was not random
    moves: Int[Array, ""]  # of the last observation that was taken up
    episode: Int[Array, ""]
    option: Int[Array, ""]  # that the present sweep is about
    read: Int[Array, ""]  # items of it so far
    predicted: Float[Array, " actions"]
    trail: Int[Array, " trail"]  # codes of this episode
    trail_actions: Int[Array, " trail"]  # that led to each
    length: Int[Array, ""]
    at: Int[Array, ""]  # where in the trail a replay is
    current: Int[Array, ""]  # the code it is at


class TGA(System):
    """The agent alone: a Moore system from (`Recall`, `Observation`) to (`Request`, action).

    At each place: the observation is written in the encoding half of theta; then one sweep for each action reads what the
    memory says will follow if it is kept to. An action's value is the largest discounted value on its sweep, or `curiosity`,
    discounted, where the sweep came to an end because nothing is known. Of equal values the last action that was not random is
    taken again, with probability `persist`, else any. On reward the trail of this episode is replayed once and each place gets
    the discounted value of the next, if that is more; where the reward is missing, or is found elsewhere, its tag and all
    values are dropped.

    **Arguments:** `actions`: how many; `places`: the most codes that it can know; `sweep`: items a sweep reads at most;
    `replay`: "reverse", "forward" or "none"; `trail`: longest trail; `explore`: share of random actions.
    """

    action_codes: Int[Array, "actions context_active"] = fixed()
    discount: Float[Array, ""] = fixed(converter=as_array)
    explore: Float[Array, ""] = fixed(converter=as_array)
    persist: Float[Array, ""] = fixed(converter=as_array)
    curiosity: Float[Array, ""] = fixed(converter=as_array)
    direction: Int[Array, ""] = fixed()  # of the replay: -1 reverse, 1 forward, 0 none
    items: SparseCode = eqx.field(static=True)
    actions: int = eqx.field(static=True)
    places: int = eqx.field(static=True)
    sweep: int = eqx.field(static=True)
    trail: int = eqx.field(static=True)

    def __init__(
        self,
        items: SparseCode,
        contexts: SparseCode,
        actions: int,
        places: int,
        *,
        sweep: int = 7,
        replay: str = "reverse",
        trail: int = 128,
        discount: float = 0.95,
        explore: float = 0.05,
        persist: float = 1.0,
        curiosity: float = 0.1,
        key: PRNGKeyArray,
    ) -> None:
        if replay not in DIRECTIONS:
            raise InputError(f"TGA: replay is {replay!r}; 'reverse', 'forward' or 'none' is wanted.")
        if min(actions, places, sweep, trail) < 1 or not 0 < discount < 1:
            raise InputError("TGA: actions, places, sweep and trail are at least 1, and the discount lies between 0 and 1.")
        self.action_codes = contexts.draw(key, actions)
        self.discount, self.explore, self.persist, self.curiosity = map(as_array, (discount, explore, persist, curiosity))
        self.items, self.actions, self.places = items, actions, places
        self.sweep, self.trail, self.direction = sweep, trail, jnp.asarray(DIRECTIONS[replay])

    def init(self, key: PRNGKeyArray | None = None) -> AgentState:
        none, false = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
        item, label = jnp.arange(self.items.active), self.action_codes[0]
        trail = jnp.zeros(self.trail, jnp.int32)
        return AgentState(
            mode=none + LOOKING,
            action=none + WAIT,
            request=Request(none, none, item, label, label, item, false),
            known=jnp.full((self.places, self.items.active), self.items.size),
            met=none,
            values=jnp.zeros(self.places),
            tag=none - 1,
            here=none,
            took=none,
            heading=none,
            moves=none - 1,
            episode=none - 1,
            option=none,
            read=none,
            predicted=jnp.zeros(self.actions),
            trail=trail,
            trail_actions=trail,
            length=none,
            at=none,
            current=none,
        )

    def readout(self, state: AgentState) -> tuple[Request, Int[Array, ""]]:
        return state.request, state.action

    def step(
        self, state: AgentState, inputs: tuple[Recall, Observation], key: PRNGKeyArray | None = None
    ) -> tuple[AgentState, tuple[Request, Array]]:
        if key is None:
            raise InputError("A TGA draws actions: run it with a key.")
        recall, observation = inputs
        idle = state._replace(action=jnp.asarray(WAIT, jnp.int32))
        answered = recall.number == state.request.number
        due = jnp.stack(
            [
                observation.moves != state.moves,
                answered & recall.done,
                answered & ((recall.found > state.read) | ~recall.going),
                answered & ((recall.found > 0) | ~recall.going),
            ]
        )[state.mode]
        after = jax.lax.switch(
            jnp.where(due, 1 + state.mode, 0),
            (
                lambda: idle,
                lambda: self._look(idle, observation),
                lambda: self._arrive(idle, recall, observation),
                lambda: self.act(idle, recall, key),
                lambda: self.learn(idle, recall),
            ),
        )
        return after, self.readout(state)

    def place_of(self, state: AgentState, item: Int[Array, " active"]) -> tuple[Int[Array, ""], Bool[Array, ""]]:
        """(the number of the code that the agent knows it as, whether it knows it)."""
        bits = jnp.zeros(self.items.size).at[item].set(1.0)
        shared = bits.at[state.known].get(mode="fill", fill_value=0.0).sum(1)
        best = shared.argmax().astype(jnp.int32)
        return best, shared[best] >= 0.7 * self.items.active

    def _ask(self, state: AgentState, mode: Any, item: Array, label: Array, **changes: Any) -> AgentState:
        number = state.request.number + 1
        asked = state.request._replace(number=number, mode=jnp.asarray(mode, jnp.int32), item=item, label=label, **changes)
        return state._replace(request=asked, read=jnp.zeros((), jnp.int32))

    def _look(self, state: AgentState, observation: Observation) -> AgentState:
        """Asks the memory to write what is seen, after the place before it."""
        fresh = observation.episode != state.episode
        asked = self._ask(
            state,
            WRITE,
            observation.item,
            self.action_codes[state.took],
            context=observation.context,
            previous=state.known[state.here],
            linked=~fresh,
        )
        return asked._replace(
            mode=jnp.asarray(ENCODING, jnp.int32),
            moves=observation.moves,
            episode=observation.episode,
            length=jnp.where(fresh, 0, state.length),
        )

    def _arrive(self, state: AgentState, recall: Recall, observation: Observation) -> AgentState:
        """The place has a code now: keeps the trail, and goes on to a sweep or, on reward, to a replay."""
        found, known = self.place_of(state, recall.item)
        here = jnp.where(known, found, jnp.minimum(state.met, self.places - 1))
        full = state.length == self.trail
        at = jnp.minimum(state.length, self.trail - 1)

        def kept(trail: Array, value: Array) -> Array:
            return jnp.where(full, jnp.roll(trail, -1), trail).at[at].set(value)

        missing = (here == state.tag) & ~observation.reward
        elsewhere = observation.reward & (state.tag >= 0) & (here != state.tag)
        values = jnp.where(missing | elsewhere, 0.0, state.values)
        state = state._replace(
            known=state.known.at[here].set(jnp.where(known, state.known[here], recall.item)),
            met=state.met + ~known,
            here=here,
            trail=kept(state.trail, here),
            trail_actions=kept(state.trail_actions, state.took),
            length=at + 1,
            tag=jnp.where(observation.reward, here, jnp.where(missing, -1, state.tag)),
            values=values.at[here].set(jnp.where(observation.reward, 1.0, values[here])),
        )
        return jax.lax.cond(
            observation.reward, lambda: self._begin_replay(state), lambda: self._sweep(state, jnp.zeros((), jnp.int32))
        )

    def _sweep(self, state: AgentState, option: Array) -> AgentState:
        asked = self._ask(state, FORWARD, state.known[state.here], self.action_codes[option])
        return asked._replace(
            mode=jnp.asarray(SWEEPING, jnp.int32), option=option, predicted=state.predicted.at[option].set(0.0)
        )

    def act(self, state: AgentState, recall: Recall, key: PRNGKeyArray) -> AgentState:
        """One item more of a sweep; after the last option's sweep, the choice."""
        place, known = self.place_of(state, recall.item)
        steps = recall.found.astype(self.discount.dtype)
        seen = jnp.where(known & (recall.found > state.read), self.discount**steps * state.values[place], 0.0)
        unknown = jnp.where(recall.going, 0.0, self.curiosity * self.discount ** (steps + 1))
        stays = (recall.found == 1) & (place == state.here)
        predicted = jnp.where(stays, -1.0, jnp.maximum(state.predicted[state.option], jnp.maximum(seen, unknown)))
        state = state._replace(predicted=state.predicted.at[state.option].set(predicted), read=recall.found)
        over = (recall.found >= self.sweep) | ~recall.going | stays
        last = state.option == self.actions - 1
        return jax.lax.switch(
            jnp.where(over, jnp.where(last, 2, 1), 0),
            (lambda: state, lambda: self._sweep(state, state.option + 1), lambda: self._choose(state, key)),
        )

    def _choose(self, state: AgentState, key: PRNGKeyArray) -> AgentState:
        action, heading = choose(state.predicted, state.heading, self.explore, self.persist, key)
        return state._replace(mode=jnp.asarray(LOOKING, jnp.int32), action=action, took=action, heading=heading)

    def _begin_replay(self, state: AgentState) -> AgentState:
        start = jnp.where(self.direction < 0, state.length - 1, 0)
        return self._replay(state._replace(at=start, current=state.trail[start]), state.known[state.trail[start]])

    def _replay(self, state: AgentState, item: Array) -> AgentState:
        """Asks for the next item of the trail, in the direction of the replay, or ends it."""
        reverse = self.direction < 0
        over = jnp.where(reverse, state.at <= 0, state.at >= state.length - 1) | (self.direction == 0)
        label = self.action_codes[state.trail_actions[jnp.where(reverse, state.at, state.at + 1)]]
        asked = self._ask(state, jnp.where(reverse, REVERSE, FORWARD), item, label)
        return jax.lax.cond(over, lambda: self._restart(state), lambda: asked._replace(mode=jnp.asarray(REPLAYING, jnp.int32)))

    def learn(self, state: AgentState, recall: Recall) -> AgentState:
        """One step of the replay: `V(x) <- max(V(x), discount V(x'))`, x' being what follows x."""
        place, known = self.place_of(state, recall.item)
        reverse = self.direction < 0
        earlier, later = jnp.where(reverse, jnp.stack([place, state.current]), jnp.stack([state.current, place]))
        better = jnp.maximum(state.values[earlier], self.discount * state.values[later])
        learned = state._replace(values=state.values.at[earlier].set(better), current=place, at=state.at + self.direction)
        return jax.lax.cond(known & recall.going, lambda: self._replay(learned, recall.item), lambda: self._restart(state))

    def _restart(self, state: AgentState) -> AgentState:
        return state._replace(mode=jnp.asarray(LOOKING, jnp.int32), action=jnp.asarray(RESTART, jnp.int32))


def choose(
    predicted: Float[Array, " actions"], heading: Any, explore: Any, persist: Any, key: PRNGKeyArray
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """(the action, the heading to keep): an action of the largest value, of equal ones the heading with probability `persist`;
    with probability `explore` any action, which does not change the heading."""
    any_key, tie_key, keep_key = jax.random.split(key, 3)
    ties = predicted >= predicted.max() - 1e-9
    keep = ties[heading] & (jax.random.uniform(keep_key) < persist)
    best = jnp.where(keep, heading, jnp.where(ties, jax.random.uniform(tie_key, predicted.shape), -1.0).argmax())
    roll = jax.random.uniform(any_key, (2,))
    other = jnp.floor(roll[1] * len(predicted)).astype(jnp.int32)
    best = best.astype(jnp.int32)
    return jnp.where(roll[0] < explore, other, best), best


def inhabit(clock: Clock, memory: ThetaGammaMemory, agent: TGA, world: GraphWorld) -> System:
    """The four in one closed system that steps from one gamma event to the next; its state is that of each, in this order."""

    def inputs(outputs: tuple, _: Any) -> tuple:
        tick, recall, (request, action), observation = outputs
        return None, (tick, request), (recall, observation), action

    return wire(Lens(lambda outputs: outputs, inputs), parallel(Ticks(clock), memory, agent, world))


class Life(NamedTuple):
    """What an agent did in a world."""

    taken: np.ndarray  # steps of each episode
    shortest: np.ndarray  # that the shortest way takes
    relearned: int | None  # episodes after the goal moved, where it was relearned
    values: np.ndarray  # of the codes that the agent met
    events: int  # gamma cycles


def live(system: Any, key: PRNGKeyArray, moved: int, events: int = 200_000, chunk: int = 2000) -> Life:
    """Runs `inhabit(…)` until the goal that moved at episode `moved` is relearned (see `relearned`), for all episodes that the
    world keeps, or for so many gamma events; it looks after each chunk of events. It gives up where the last five episodes all
    ran into the world's limit of steps: binary synapses only fill, so that a full memory hardly comes back.

    **Raises:** `InputError` where the agent does not fit the world.
    """
    _, _, agent, world = system.system.systems
    if agent.actions != len(world.neighbours[0]) or agent.items != world.items:
        raise InputError(
            f"The agent has {agent.actions} actions and {agent.items}, the world {len(world.neighbours[0])} and {world.items}."
        )
    state: Any = system.init(jax.random.fold_in(key, 2**31 - 1))
    reached, made = np.array([], int), 0
    while not len(reached) and made < events:
        state = _live(system, state, key, jnp.asarray(made), min(chunk, events))
        made += min(chunk, events)
        after = state[0][3]
        episodes = min(int(after.seen.episode), world.episodes)
        taken, shortest = (np.asarray(x)[:episodes] for x in (after.taken, after.shortest))
        reached = np.flatnonzero(relearned(taken, shortest, moved))
        lost = episodes >= moved + 5 and (taken[-5:] >= world.limit).all()
        if episodes == world.episodes or lost:
            break
    count = int(reached[0]) + 1 - moved if len(reached) else None
    values = np.asarray(state[0][2].values)[: int(state[0][2].met)]
    return Life(taken, shortest, count, values, made)


@eqx.filter_jit
def _live(system: System, state: Any, key: PRNGKeyArray, start: Array, events: int) -> Any:
    return rollout(system, steps=events, state=state, key=key, start=start, record=lambda *_: None)[0]
