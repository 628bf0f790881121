"""What a dense memory is compared with: the list of patterns itself, softmax retrieval, and pairwise networks of equal size."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from broadsheet.errors import InputError
from broadsheet.networks.dense_memory import stored_numbers


def nearest(patterns: Any, cues: Any) -> Shaped[np.ndarray, "cues neurons"]:
    """The pattern of largest overlap with each cue."""
    patterns, cues = np.asarray(patterns), np.asarray(cues)
    return patterns[np.argmax(cues @ patterns.T, axis=-1)]


def softmax_recall(patterns: Any, cues: Any, *, beta: float, steps: int = 5) -> Float[np.ndarray, "cues neurons"]:
    """Signs of the modern Hopfield network's state (Ramsauer et al., arXiv 2008.02217) after so many steps of
    state = patterns^T softmax(beta patterns state), from each cue."""
    patterns, state = np.asarray(patterns, float), np.asarray(cues, float)
    for _ in range(steps):
        scores = beta * state @ patterns.T
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        state = weights / weights.sum(axis=-1, keepdims=True) @ patterns
    return np.where(state >= 0, 1.0, -1.0)


class PairwiseBank:
    """As many pairwise Hebbian networks as hold together the numbers of one with couplings of `order` neurons.

    The patterns (K, neurons) are dealt out in `groups`, each stored in as many of the networks: more groups hold fewer patterns
    each, fewer are stored more often, so that independent noise of deviation `omega` a pattern and coupling averages out.
    Recall runs one network a group, of the averaged couplings, and takes the outcome that is nearest to the cue.

    **Raises:** `InputError` for more groups than patterns or networks.
    """

    def __init__(
        self, patterns: Any, order: int = 4, *, groups: int = 0, omega: float = 0.0, key: Any = None, sweeps: int = 20
    ):
        patterns = np.asarray(patterns, float)
        count, neurons = patterns.shape
        self.networks = max(1, stored_numbers(neurons, order) // stored_numbers(neurons, 2))
        self.groups = groups or min(self.networks, count)
        self.sweeps = sweeps
        if not 1 <= self.groups <= min(count, self.networks):
            raise InputError(
                f"{groups} groups: {count} patterns and {self.networks} networks allow 1 to {min(count, self.networks)}."
            )
        rng = np.random.default_rng(key)
        couplings = []
        for rows in np.array_split(np.arange(count), self.groups):
            weights = patterns[rows].T @ patterns[rows]
            noise = rng.standard_normal((neurons, neurons)) * omega * np.sqrt(len(rows) / (self.networks // self.groups))
            weights = weights + np.triu(noise, 1) + np.triu(noise, 1).T
            np.fill_diagonal(weights, 0)
            couplings.append(weights / neurons)
        self.couplings = np.stack(couplings)

    def recall(self, cues: Any) -> Float[np.ndarray, "cues neurons"]:
        """What the bank makes of each cue (cues, neurons), without thermal noise, one neuron after the other."""
        cues = np.asarray(cues, float)
        state = np.repeat(cues[None], self.groups, axis=0)
        for _ in range(self.sweeps):
            before = state.copy()
            for i in range(cues.shape[1]):
                field = np.einsum("gcn,gn->gc", state, self.couplings[:, i])
                state[:, :, i] = np.where(field == 0, state[:, :, i], np.sign(field))
            if np.array_equal(before, state):
                break
        best = np.argmax(np.einsum("gcn,cn->gc", state, cues), axis=0)
        return state[best, np.arange(len(cues))]


def overlaps(states: Any, patterns: Any) -> Float[np.ndarray, " states"]:
    """Mattis magnetisation of each state with its pattern."""
    return np.mean(np.asarray(states, float) * np.asarray(patterns), axis=-1)
