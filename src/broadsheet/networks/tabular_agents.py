"""Tabular agents on the same worlds, for comparison: Q-learning, Dyna-Q, and a model whose values are iterated to the end.

They see which place they are at, without noise; ties and random moves are those of `theta_gamma_agent.TGA`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from broadsheet.errors import InputError
from broadsheet.networks.graph_worlds import Layout


@dataclass
class TabularAgent:
    """Q-learning (Watkins, 1989): `Q(s, a) += rate (r + discount max Q(s') - Q(s, a))`, an episode ends at the reward.

    **Arguments:** `backups`: Dyna-Q's (Sutton, 1990), of random remembered transitions, after each episode; `iterate`:
    instead, values of the remembered transitions are iterated until they stay; `drop`: where the remembered reward is missing
    or elsewhere, forget all values; `curiosity`: the value of what was never tried; `rate`, `discount`, `explore`, `persist`:
    as in the equation, and in `TGA`.

    **Raises:** `InputError` where rate, discount or backups are out of range.
    """

    layout: Layout
    rng: random.Random
    rate: float = 1.0
    discount: float = 0.95
    explore: float = 0.05
    persist: float = 1.0
    backups: int = 0
    iterate: bool = False
    curiosity: float = 0.0
    drop: bool = False
    q: list[list[float]] = field(init=False)
    model: dict[tuple[int, int], int] = field(init=False, default_factory=dict)
    goal: int = field(init=False, default=-1)
    heading: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if not (0 < self.rate <= 1 and 0 < self.discount < 1 and self.backups >= 0):
            raise InputError("TabularAgent: a rate in (0, 1], a discount in (0, 1) and backups of 0 or more are wanted.")
        self.q = [[self.curiosity] * self.layout.neighbours.shape[1] for _ in self.layout.rooms]

    def act(self, place: int) -> int:
        row = self.q[place]
        ties = [action for action, value in enumerate(row) if value >= max(row) - 1e-9]
        if self.heading not in ties or self.rng.random() >= self.persist:
            self.heading = self.rng.choice(ties)
        return self.rng.randrange(len(row)) if self.rng.random() < self.explore else self.heading

    def learn(self, place: int, action: int, after: int, reward: bool) -> None:
        """One transition, online."""
        self.model[place, action] = after
        if reward:
            if self.goal not in (-1, after):
                self._miss()
            self.goal = after
        elif after == self.goal:
            self._miss()
        self._back_up(place, action, after, reward)

    def _miss(self) -> None:
        self.goal = -1
        if self.drop:
            self.q = [[self.curiosity] * len(row) for row in self.q]

    def _back_up(self, place: int, action: int, after: int, reward: bool) -> float:
        aim = 1.0 if reward else self.discount * max(self.q[after])
        change = self.rate * (aim - self.q[place][action])
        self.q[place][action] += change
        return abs(change)

    def end_episode(self) -> None:
        """What is learned from memory."""
        remembered = list(self.model.items())
        change = 1.0 if self.iterate else 0.0
        while change > 1e-12:
            change = max(self._back_up(place, action, after, after == self.goal) for (place, action), after in remembered)
        for _ in range(self.backups):
            (place, action), after = self.rng.choice(remembered)
            self._back_up(place, action, after, after == self.goal)

    def episodes(self, goals: Sequence[int], per_goal: int, limit: int = 1000) -> Iterator[tuple[int, int]]:
        """(steps taken, fewest steps possible) of one episode after another, without an end; goals as in `GraphWorld`."""
        distances = [self.layout.distances(goal) for goal in goals]
        neighbours = self.layout.neighbours.tolist()
        for episode in itertools.count():
            index = min(episode // per_goal, len(goals) - 1)
            goal = int(goals[index])
            start = self.rng.randrange(len(neighbours) - 1)
            start += start >= goal
            if start == self.goal:
                self._miss()
            place, steps = start, 0
            while place != goal and steps < limit:
                action = self.act(place)
                after = neighbours[place][action]
                self.learn(place, action, after, after == goal)
                place, steps = after, steps + 1
            self.end_episode()
            yield steps, int(distances[index][start])


def relearns(agent: TabularAgent, goals: Sequence[int], moved: int, episodes: int, window: int = 5, share: float = 0.9) -> int:
    """Episodes after the goal moved at episode `moved`, until the shortest over the actual length has averaged `share` in the
    last `window` of them; at most `episodes`."""
    ratios: list[float] = []
    for taken, shortest in itertools.islice(agent.episodes(goals, moved), moved, moved + episodes):
        ratios.append(shortest / taken)
        if len(ratios) >= window and sum(ratios[-window:]) >= share * window:
            break
    return len(ratios)
