"""Worlds of rooms for agents: places on a graph, seen as sparse codes, and a reward that moves after some episodes."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from broadsheet.dynamics import System, fixed
from broadsheet.errors import InputError
from broadsheet.numerics.random import generator
from broadsheet.numerics.sparse_codes import SparseCode

WAIT, RESTART = -1, -2
"""What an agent may do beside taking one of the actions."""


class Observation(NamedTuple):
    """What an agent is shown."""

    item: Int[Array, " active"]  # the place's code, some of its units wrong
    context: Int[Array, " context_active"]  # the room's code
    reward: Bool[Array, ""]
    moves: Int[Array, ""]  # made so far, in all episodes
    episode: Int[Array, ""]


class WorldState(NamedTuple):
    place: Int[Array, ""]
    seen: Observation
    steps: Int[Array, ""]  # in this episode
    optimal: Int[Array, ""]  # steps that the shortest way takes from this episode's start
    taken: Int[Array, " episodes"]  # steps of each episode that is over
    shortest: Int[Array, " episodes"]


class GraphWorld(System):
    """An agent is put at a random place, and an episode ends at the goal, or after `limit` steps.

    A Moore system: its input is an action (`WAIT`, `RESTART` or 0, 1, …), its readout an `Observation`. Its state keeps how
    long each episode took, and how long the shortest way is. The goal is `goals[episode // per_goal]`.

    **Arguments:** `neighbours`: the place that each action leads to, itself where it leads nowhere; `rooms`: the room of each
    place; `item_codes`, `context_codes`: codes of places and of rooms; `goals`: one after the other; `per_goal`: episodes for
    each; `episodes`: how many the world keeps; `wrong`: units of a place's code that are wrong when it is seen.

    **Raises:** `InputError` where a goal is no place or a place cannot be reached from another.
    """

    neighbours: Int[Array, "places actions"] = fixed()
    rooms: Int[Array, " places"] = fixed()
    item_codes: Int[Array, "places active"] = fixed()
    context_codes: Int[Array, "rooms context_active"] = fixed()
    goals: Int[Array, " goals"] = fixed()
    distances: Int[Array, "goals places"] = fixed()  # steps to each goal
    items: SparseCode = eqx.field(static=True)
    per_goal: int = eqx.field(static=True)
    episodes: int = eqx.field(static=True)
    limit: int = eqx.field(static=True)
    wrong: int = eqx.field(static=True)

    def __init__(
        self,
        layout: Layout,
        items: SparseCode,
        contexts: SparseCode,
        goals: Any,
        *,
        per_goal: int = 20,
        episodes: int = 100,
        limit: int = 1000,
        wrong: int = 1,
        key: PRNGKeyArray,
    ) -> None:
        places = len(layout.rooms)
        goals = np.atleast_1d(goals)
        if not ((goals >= 0) & (goals < places)).all():
            raise InputError(f"GraphWorld: the goals {goals.tolist()} are not all among the places 0 to {places - 1}.")
        one, other = jax.random.split(key)
        self.neighbours, self.rooms = jnp.asarray(layout.neighbours), jnp.asarray(layout.rooms)
        self.item_codes = items.draw(one, places)
        self.context_codes = contexts.draw(other, int(layout.rooms.max()) + 1)
        self.goals = jnp.asarray(goals)
        self.distances = jnp.asarray(np.stack([layout.distances(goal) for goal in goals]))
        self.items, self.per_goal, self.episodes, self.limit, self.wrong = items, per_goal, episodes, limit, wrong

    def init(self, key: PRNGKeyArray) -> WorldState:
        none = jnp.zeros((), jnp.int32)
        log = jnp.zeros(self.episodes, jnp.int32)
        place, seen_key = self._start(key, none), jax.random.fold_in(key, 1)
        seen = self._look(seen_key, place, jnp.zeros((), bool), none, none)
        return WorldState(place, seen, none, self.distances[0, place], log, log)

    def step(self, state: WorldState, inputs: Any, key: PRNGKeyArray | None = None) -> tuple[WorldState, Observation]:
        if key is None:
            raise InputError("A GraphWorld draws starts and noise: run it with a key.")
        return jax.lax.cond(inputs == WAIT, lambda: state, lambda: self._act(state, inputs, key)), state.seen

    def readout(self, state: WorldState) -> Observation:
        return state.seen

    def _act(self, state: WorldState, action: Array, key: PRNGKeyArray) -> WorldState:
        """A move; where the episode is over by it, or by `RESTART`, that is kept and the next one starts."""
        start_key, seen_key = jax.random.split(key)
        moving, episode = action >= 0, state.seen.episode
        place = jnp.where(moving, self.neighbours[state.place, action], state.place)
        reward = moving & (place == self._goal(episode))
        steps = state.steps + moving
        over = ~moving | ((steps >= self.limit) & ~reward)
        after = episode + over
        place = jnp.where(over, self._start(start_key, after), place)
        return WorldState(
            place,
            self._look(seen_key, place, reward, state.seen.moves + 1, after),
            jnp.where(over, 0, steps),
            jnp.where(over, self.distances[self._index(after), place], state.optimal),
            state.taken.at[jnp.where(over, episode, self.episodes)].set(steps, mode="drop"),
            state.shortest.at[jnp.where(over, episode, self.episodes)].set(state.optimal, mode="drop"),
        )

    def _index(self, episode: Array) -> Array:
        return jnp.minimum(episode // self.per_goal, len(self.goals) - 1)

    def _goal(self, episode: Array) -> Array:
        return self.goals[self._index(episode)]

    def _start(self, key: PRNGKeyArray, episode: Array) -> Array:
        """A random place that is not the goal."""
        place = jax.random.randint(key, (), 0, len(self.rooms) - 1)
        return place + (place >= self._goal(episode))

    def _look(self, key: PRNGKeyArray, place: Array, reward: Array, moves: Array, episode: Array) -> Observation:
        code = self.item_codes[place]
        if self.wrong:
            code = self.items.noisy(key, code, self.wrong)
        return Observation(code, self.context_codes[self.rooms[place]], reward, moves, episode)


class Layout(NamedTuple):
    """Places, the rooms they are in, and where each action leads; an action that leads nowhere stays."""

    neighbours: np.ndarray  # (places, actions)
    rooms: np.ndarray  # (places,)

    @property
    def graph(self) -> nx.DiGraph:
        """The moves as a graph."""
        made = nx.DiGraph()
        made.add_nodes_from(range(len(self.rooms)))
        made.add_edges_from((a, int(b)) for a, row in enumerate(self.neighbours) for b in row if a != b)
        return made

    def distances(self, goal: Any) -> np.ndarray:
        """Steps from each place to the goal; `InputError` where there is no way."""
        lengths = nx.single_source_shortest_path_length(self.graph.reverse(copy=False), int(goal))
        if len(lengths) < len(self.rooms):
            raise InputError(f"Place {min(set(range(len(self.rooms))) - set(lengths))} has no way to the goal {int(goal)}.")
        return np.array([lengths[place] for place in range(len(self.rooms))])


def ring_of_paths(rooms: int = 20, places: int = 7) -> Layout:
    """Rooms in a ring, each a path of places; the last place of one is next to the first of the next. Actions: back, on."""
    if rooms * places < 3:
        raise InputError(f"ring_of_paths: {rooms} rooms of {places} places; at least three places are wanted.")
    at = np.arange(rooms * places)
    return Layout(np.stack([(at - 1) % len(at), (at + 1) % len(at)], axis=1), at // places)


def ring_of_grids(rooms: int, rows: int, columns: int) -> Layout:
    """Rooms in a ring, each a grid, with a door in the middle row to the next. Actions: west, east, north, south."""
    if rooms < 1 or rows < 1 or columns < 1 or rooms * rows * columns < 3:
        raise InputError(f"ring_of_grids: {rooms} rooms of {rows} by {columns} places; at least three places are wanted.")
    size = rows * columns
    neighbours = np.tile(np.arange(rooms * size)[:, None], (1, 4))
    for place in range(rooms * size):
        room, (row, column) = place // size, divmod(place % size, columns)
        for action, (down, right) in enumerate(((0, -1), (0, 1), (-1, 0), (1, 0))):
            to_row, to_column, to_room = row + down, column + right, room
            if to_column in (-1, columns) and row == rows // 2 and rooms > 1:
                to_room, to_column = (room + right) % rooms, to_column % columns
            if 0 <= to_row < rows and 0 <= to_column < columns:
                neighbours[place, action] = to_room * size + to_row * columns + to_column
    return Layout(neighbours, np.arange(rooms * size) // size)


def relearned(taken: np.ndarray, shortest: np.ndarray, moved: int, window: int = 5, share: float = 0.9) -> np.ndarray:
    """For each episode, whether by its end the shortest over the actual length has averaged `share` in the last `window`
    episodes, all of them after the goal moved at episode `moved`."""
    if not len(taken):
        return np.zeros(0, bool)
    ratio = np.asarray(shortest) / np.maximum(taken, 1)
    means = np.convolve(np.where(np.arange(len(ratio)) < moved, 0.0, ratio), np.full(window, 1 / window))[: len(ratio)]
    return (means >= share - 1e-12) & (np.arange(1, len(ratio) + 1) >= moved + window)


def random_goals(layout: Layout, count: int, key: Any) -> list[int]:
    """Different goals, one after the other."""
    return generator(key).choice(len(layout.rooms), count, replace=False).tolist()
