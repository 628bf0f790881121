"""Tasks and readings of memory beyond the window of attention: recall over a distance, noise, and keeping to a topic.

A model here is anything that gives logits (batch, tokens, words) for `model(input_ids=ids)`, as every causal model of Hugging
Face does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from broadsheet.errors import InputError
from broadsheet.language.models import log_probabilities

TOKENS = 4096
"""Tokens that are read at a time: more of them no longer fit into a processor's cache."""


def _parts(ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Token ids (rows, tokens) in parts that are read at a time."""
    return ids.split(max(TOKENS // ids.shape[1], 1))


@dataclass(frozen=True)
class RecallTask:
    """Pairs of a key and a value, then fillers, then one of the keys again: what is its value?

    Words: 0 the filler, 1 the mark of the question, then the keys, then the values. Chance is 1 in `values`.
    """

    pairs: int = 4
    keys: int = 16
    values: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.pairs <= self.keys or self.values < 1:
            raise InputError(f"{self.pairs} pairs need as many keys, not {self.keys}, and at least one value.")

    @property
    def words(self) -> int:
        return 2 + self.keys + self.values

    def draw(self, rng: np.random.Generator, rows: int, distance: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(ids (rows, 2 pairs + distance + 2), the values asked for (rows,)), with so many fillers after the pairs."""
        keys = rng.permuted(np.tile(np.arange(self.keys), (rows, 1)), axis=1)[:, : self.pairs] + 2
        values = rng.integers(0, self.values, keys.shape) + 2 + self.keys
        pairs = np.stack([keys, values], -1).reshape(rows, -1)
        asked, each = rng.integers(0, self.pairs, rows), np.arange(rows)
        end = np.stack([np.ones(rows, int), keys[each, asked]], 1)
        ids = np.concatenate([pairs, np.zeros((rows, distance), int), end], 1)
        return torch.from_numpy(ids), torch.from_numpy(values[each, asked])


def recall_accuracy(model: Any, ids: torch.Tensor, answers: torch.Tensor) -> float:
    """Share of rows whose most likely next word is the answer."""
    with torch.no_grad():
        said = torch.cat([model(input_ids=part).logits[:, -1].argmax(-1) for part in _parts(ids)])
    return float((said == answers).float().mean())


def retention_curve(
    model: Any, distances: Sequence[int], *, task: RecallTask | None = None, rows: int = 256, seed: int = 0
) -> np.ndarray:
    """Share of values recalled (distances,), by the fillers between the last pair and the question."""
    task, rng = task or RecallTask(), np.random.default_rng(seed)
    return np.array([recall_accuracy(model, *task.draw(rng, rows, distance)) for distance in distances])


def replaced(ids: torch.Tensor, fraction: float, words: int, rng: np.random.Generator, *, last: int = 0) -> torch.Tensor:
    """Token ids with a fraction of them replaced by random words; the `last` of each row stay.

    **Raises:** `InputError` for a fraction outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"The fraction is {fraction}; it is a share, from 0 to 1.")
    hit = rng.random(tuple(ids.shape)) < fraction
    hit[:, ids.shape[1] - last :] = False
    noise = torch.from_numpy(rng.integers(0, words, tuple(ids.shape)))
    return torch.where(torch.from_numpy(hit), noise, ids)


def noise_curve(
    model: Any,
    ids: torch.Tensor,
    fractions: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.3),
    *,
    words: int,
    seed: int = 0,
    answers: torch.Tensor | None = None,
    last: int = 0,
) -> np.ndarray:
    """Perplexity (fractions,) of clean next words after contexts (rows, tokens) with a fraction of the tokens replaced.

    With `answers` (rows,) it is theirs, after the last token; the `last` tokens of a row are never replaced. What counts as
    robust is the ratio to the first value. It says little of a model that ignores its context: its ratio is 1.
    """
    return noise_readings(model, ids, fractions, words=words, seed=seed, answers=answers, last=last)[0]


def noise_readings(
    model: Any,
    ids: torch.Tensor,
    fractions: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.3),
    *,
    words: int,
    seed: int = 0,
    answers: torch.Tensor | None = None,
    last: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Perplexities as of `noise_curve`, and beside them the share of clean words that are the most likely (fractions,)."""
    perplexities, accuracies = [], []
    for fraction in fractions:
        noisy = replaced(ids, fraction, words, np.random.default_rng(seed), last=last)
        losses, right, start = [], [], 0
        for part in _parts(noisy):
            now = slice(start, start := start + len(part))
            with torch.no_grad():
                logits = model(input_ids=part).logits
            told = logits[:, :-1].flatten(0, 1) if answers is None else logits[:, -1]
            wanted = ids[now, 1:].flatten() if answers is None else answers[now]
            losses.append(torch.nn.functional.cross_entropy(told, wanted, reduction="none"))
            right.append(told.argmax(-1) == wanted)
        perplexities.append(float(torch.cat(losses).mean().exp()))
        accuracies.append(float(torch.cat(right).float().mean()))
    return np.array(perplexities), np.array(accuracies)


def loss_by_position(model: Any, ids: torch.Tensor) -> np.ndarray:
    """Mean loss, nats, of each token but the first (tokens - 1,)."""
    with torch.no_grad():
        return -torch.cat([log_probabilities(model, part) for part in _parts(ids)]).mean(0).numpy()


@dataclass(frozen=True)
class TopicGrammar:
    """Documents of one topic: words of the topic, each behind an article, and between them words that belong to none.

    Words: 0 begins a document, 1 is the article, then `common` words, then `per_topic` words of each topic. There are `gap`
    common words between two words of the topic, so that a shorter window of attention holds none when the next one comes.
    """

    topics: int = 8
    per_topic: int = 4
    common: int = 8
    gap: int = 16

    @property
    def words(self) -> int:
        return 2 + self.common + self.topics * self.per_topic

    def topic_of(self, ids: torch.Tensor) -> torch.Tensor:
        """The topic of each word, -1 for those that belong to none."""
        content = ids - 2 - self.common
        return torch.where(content < 0, -1, content // self.per_topic)

    def draw(self, rng: np.random.Generator, rows: int, runs: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(ids (rows, 1 + runs (gap + 2)), topics (rows,)): an article, a word of the topic, common words, and so on."""
        topics = rng.integers(0, self.topics, rows)
        content = 2 + self.common + topics[:, None, None] * self.per_topic + rng.integers(0, self.per_topic, (rows, runs, 1))
        common = 2 + rng.integers(0, self.common, (rows, runs, self.gap))
        whole = np.concatenate([np.ones((rows, runs, 1), int), content, common], 2).reshape(rows, -1)
        return torch.from_numpy(np.concatenate([np.zeros((rows, 1), int), whole], 1)), torch.from_numpy(topics)

    def slots(self, runs: int) -> list[int]:
        """Where words of the topic stand, but for the first, which tells it."""
        return [2 + run * (self.gap + 2) for run in range(1, runs)]

    def answers(self, ids: torch.Tensor) -> torch.Tensor:
        """The words in the slots as what is to be learned (rows, tokens - 1), -100 elsewhere."""
        slots = torch.tensor(self.slots((ids.shape[1] - 1) // (self.gap + 2))) - 1
        return torch.full_like(ids[:, 1:], -100).index_copy(1, slots, ids[:, 1:][:, slots])


def words_in_slots(model: Any, grammar: TopicGrammar, ids: torch.Tensor, *, seed: int = 0) -> torch.Tensor:
    """What a model says (rows, slots) where words of the topic are due, one after the other, with what it said before."""
    ids, dice = ids.clone(), torch.Generator().manual_seed(seed)
    slots = grammar.slots((ids.shape[1] - 1) // (grammar.gap + 2))
    for slot in slots:
        with torch.no_grad():
            told = torch.cat([model(input_ids=part[:, :slot]).logits[:, -1] for part in _parts(ids)])
        ids[:, slot] = torch.multinomial(torch.softmax(told, -1), 1, generator=dice)[:, 0]
    return ids[:, slots]


def coherence(ids: torch.Tensor, topics: torch.Tensor, grammar: TopicGrammar) -> float:
    """Share of the words of any topic in what was generated (rows, tokens) that are of the row's own topic (rows,).

    NaN where no word is of any topic.
    """
    found = grammar.topic_of(ids)
    content = found >= 0
    return float((found == topics[:, None])[content].float().mean()) if bool(content.any()) else float("nan")


def segment_similarity(model: Any, ids: torch.Tensor, length: int = 64) -> float:
    """Mean cosine between the mean hidden states of neighbouring segments of so many tokens, over rows (rows, tokens).

    **Raises:** `InputError` for rows of fewer than two segments.
    """
    count = ids.shape[1] // length
    if count < 2:
        raise InputError(f"Texts of {ids.shape[1]} tokens have no two segments of {length}.")
    with torch.no_grad():
        states = torch.cat(
            [model(input_ids=part, output_hidden_states=True).hidden_states[-1] for part in _parts(ids[:, : count * length])]
        )
    means = states.float().unflatten(1, (count, length)).mean(2)
    return float(torch.nn.functional.cosine_similarity(means[:, 1:], means[:, :-1], dim=-1).mean())
