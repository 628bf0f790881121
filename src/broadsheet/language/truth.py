"""Where in a model the truth of a statement is, and what its direction there does to the answer: arXiv 2504.02904.

The direction is fitted on the statements of some topics; that it is used by the model shows in prompts that ask for the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.linear_model import LogisticRegression

from broadsheet.language.anatomy import embedding
from broadsheet.language.directions import Direction, Vector, cosine, transfer_table, word_difference
from broadsheet.language.interventions import Effect, nie, plain_preference
from broadsheet.language.states import Rows, States, read_states


@dataclass(frozen=True)
class Site:
    """Where a direction is read, after a block at a token counted from the end, and where it is added: blocks and tokens."""

    layer: int
    position: int
    layers: tuple[int, ...]
    positions: tuple[int, ...]

    @classmethod
    def one(cls, layer: int, position: int) -> Site:
        """Read and added at the same place."""
        return cls(layer, position, (layer,), (position,))


@dataclass(frozen=True)
class TruthTask:
    """Labelled statements that end on the question, with prompts of each topic; one topic is kept for the test.

    - `rows`, `labels`, `groups`: token ids of the statements with what is asked, without examples.
    - `prompts`: topic -> (of true statements, of false ones), with examples.
    - `answers`: ids of TRUE and FALSE.
    - `test`: the topic that no direction is fitted on.
    """

    rows: Rows
    labels: np.ndarray
    groups: np.ndarray
    prompts: Mapping[str, tuple[Rows, Rows]]
    answers: tuple[int, int]
    test: str

    @property
    def fitted(self) -> np.ndarray:
        """Which statements directions are fitted on."""
        return self.groups != self.test

    def states(self, model: Any, site: Site) -> States:
        """Of all statements, at a site."""
        return read_states(model, self.rows, site.layer, position=site.position)

    def fit(self, states: States, site: Site, labels: np.ndarray | None = None) -> Direction:
        """A direction from the statements that are no test."""
        y, some = self.labels if labels is None else labels, self.fitted
        return Direction.fit(states[some], y[some], self.groups[some], layer=site.layer, position=site.position)

    def accuracy(self, direction: Direction, states: States) -> float:
        """On the test."""
        return direction.accuracy(states[~self.fitted], self.labels[~self.fitted])

    def plain(self, model: Any, topic: str = "") -> tuple[float, float]:
        """Mean P(TRUE) - P(FALSE) of the true and of the false prompts of a topic, by default the test."""
        return plain_preference(model, *self.prompts[topic or self.test], answers=self.answers)

    def effect(
        self, model: Any, vector: Vector, site: Site, topic: str = "", plain: tuple[float, float] | None = None
    ) -> Effect:
        """What a vector does to the answers on a topic, by default the test."""
        return nie(
            model, vector, *self.prompts[topic or self.test], layers=site.layers, positions=site.positions,
            answers=self.answers, plain=plain,
        )  # fmt: skip


def choose_site(model: Any, task: TruthTask, sites: Sequence[Site]) -> tuple[Site, np.ndarray]:
    """The site with the best score, and the scores: the smaller of the accuracy on topics held out and the effect on answers.

    Both are of the topics that are no test; of equal scores the first counts.
    """
    if len(sites) == 1:
        return sites[0], np.array([np.nan])
    some, scores = task.fitted, []
    topics = [str(topic) for topic in np.unique(task.groups[some])]
    plain = {topic: task.plain(model, topic) for topic in topics}
    for site in sites:
        states = task.states(model, site)
        right = transfer_table({"": states[some]}, task.labels[some], task.groups[some])["", ""]
        vector = task.fit(states, site).vector
        effects = [task.effect(model, vector, site, topic, plain[topic]).mean for topic in topics]
        scores.append(min(right, float(np.mean(effects))))
    return sites[int(np.argmax(scores))], np.array(scores)


class Models(Protocol):
    """Models by name: a dictionary, or a `broadsheet.language.suite.Suite`, which loads them when they are asked for."""

    def __getitem__(self, name: str, /) -> Any: ...


class Exchange:
    """Directions of several models, the base first, as probes and interventions in each other.

    Of each model: `states` at the site; `plain`, its preferences without any direction; `own`, the direction fitted on its
    states; `words`, that of its two answers in the unembedding; `embedded`, the mean embedding of each statement's tokens. Each
    model is asked for here once, and once more by `prepare`.
    """

    def __init__(self, models: Models, names: Sequence[str], task: TruthTask, site: Site) -> None:
        self.models, self.names, self.task, self.site = models, list(names), task, site
        self.states: dict[str, States] = {}
        self.plain: dict[str, tuple[float, float]] = {}
        self.own: dict[str, Direction] = {}
        self.words: dict[str, Direction] = {}
        self.embedded: dict[str, States] = {}
        for name in names:
            model = models[name]
            self.states[name], self.plain[name] = task.states(model, site), task.plain(model)
            self.own[name] = task.fit(self.states[name], site)
            self.words[name] = self.along(name, word_difference(model, *task.answers))
            table: Any = embedding(model).weight
            table = table.detach()
            self.embedded[name] = np.array([table[row].float().mean(0).cpu().numpy() for row in task.rows])
        self._effects: dict[tuple[bytes, str], Effect] = {}

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(of, in): within each model, from the base to each, and back; a model's that it is in together."""
        base = self.names[0]
        return [(a, b) for b in self.names for a in self.names if a == b or base in (a, b)]

    def prepare(self, arms: Iterable[Mapping[str, Direction]]) -> None:
        """Tries several sets of directions, one model after the other."""
        every = [self.own, *arms]
        for source, target in self.pairs:
            for directions in every:
                self.effect(directions[source], target)

    def along(self, name: str, vector: Vector) -> Direction:
        """A vector with the classifier along it, fitted on a model's states."""
        some, y, groups = self.task.fitted, self.task.labels, self.task.groups
        return Direction.along(vector, self.states[name][some], y[some], groups[some], layer=self.site.layer)

    def effect(self, direction: Direction, target: str) -> Effect:
        """What a direction does in a model; at the length of the base's own where it is no model's own."""
        own = any(direction is known for known in self.own.values())
        vector = direction.vector if own else direction.unit * self.own[self.names[0]].norm
        where = (vector.tobytes(), target)
        if where not in self._effects:
            self._effects[where] = self.task.effect(self.models[target], vector, self.site, plain=self.plain[target])
        return self._effects[where]

    def accuracy(self, direction: Direction, target: str) -> float:
        """Of a direction on the test, in a model."""
        return self.task.accuracy(direction, self.states[target])

    def readings(self, directions: Mapping[str, Direction]) -> dict[str, float]:
        """How far directions, one a model, are the same and serve in the others.

        - `cosine`: the smallest of the base's and another's.
        - those of `probe_readings`.
        - `nie_least`: the smallest mean effect, within models, from the base and to it; `nie_gap`: the most that one differs
          from that of the model's own direction; `nie_post_base` and the like: of the first other model's in the base.
        """
        base, *post = self.names
        self.prepare([directions])
        found = {(a, b): self.effect(directions[a], b).mean for a, b in self.pairs}
        own = {name: self.effect(self.own[name], name).mean for name in self.names}
        said = {base: "base", post[0]: "post"}
        return {
            "cosine": min(cosine(directions[base].vector, directions[name].vector) for name in post),
            **self.probe_readings({(a, b): self.accuracy(directions[a], b) for a, b in self.pairs}),
            "nie_least": min(found.values()),
            "nie_gap": max(abs(value - own[target]) for (_, target), value in found.items()),
            **{f"nie_{said[a]}_{said[b]}": found[a, b] for a in said for b in said},
        }

    def probe_readings(self, accuracy: Mapping[tuple[str, str], float]) -> dict[str, float]:
        """Of (fitted on, looked at) -> accuracy: `own_base`, the base's; `forward_loss` and `backward_loss`, the most that
        another model's own direction is better there than the base's, and the base's own better there than another's."""
        base, *post = self.names
        own = {name: self.accuracy(self.own[name], name) for name in self.names}
        return {
            "own_base": accuracy[base, base],
            "forward_loss": max(own[name] - accuracy[base, name] for name in post),
            "backward_loss": max(own[base] - accuracy[name, base] for name in post),
        }

    def from_words(self) -> dict[str, float]:
        """`probe_readings` of a logistic regression on which tokens the statements have: the same in every model."""
        task, words = self.task, sorted({token for row in self.task.rows for token in row})
        counts = np.array([[row.count(word) for word in words] for row in task.rows])
        fitted = LogisticRegression(max_iter=1000).fit(counts[task.fitted], task.labels[task.fitted])
        right = float(fitted.score(counts[~task.fitted], task.labels[~task.fitted]))
        return self.probe_readings({(a, b): right for a in self.names for b in self.names})

    def from_embeddings(self) -> dict[str, float]:
        """`probe_readings` of directions of the mean embedding of a statement's tokens."""
        fitted = {name: self.task.fit(states, self.site) for name, states in self.embedded.items()}
        return self.probe_readings({(a, b): self.task.accuracy(fitted[a], self.embedded[b]) for a, b in self.pairs})


def balanced_labels(labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Labels that say nothing of the given ones: half of the texts of each label of each group, drawn by the seed, get 1."""
    rng, made = np.random.default_rng(seed), np.zeros(len(labels), int)
    for group in np.unique(groups):
        for label in (0, 1):
            here = rng.permutation(np.flatnonzero((groups == group) & (labels == label)))
            made[here[: len(here) // 2]] = 1
    return made
