"""How well states, couplings and counts were found: alignment of states, errors, types, bits a spike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.special import gammaln, xlogy


def aligned_states(
    truth: Sequence[np.ndarray], found: Sequence[np.ndarray], states: int | None = None
) -> Int[np.ndarray, " states"]:
    """For each true state the found one that stands for it: the pairing with most bins in common (Hungarian method).

    **Arguments:** `truth`: for each sequence the states (bins,); `found`: the same, or probabilities (bins, states).
    """
    true, probable = np.concatenate([np.asarray(each) for each in truth]), np.concatenate([np.asarray(each) for each in found])
    if probable.ndim == 1:
        probable = np.eye(max(states or 0, probable.max() + 1))[probable]
    size = max(states or 0, true.max() + 1, probable.shape[1])
    common = np.zeros((size, size))
    np.add.at(common[:, : probable.shape[1]], true, probable)
    return linear_sum_assignment(-common)[1]


def state_accuracy(truth: Sequence[np.ndarray], found: Sequence[np.ndarray], order: np.ndarray) -> float:
    """Share of bins whose likeliest state is the true one, once states are aligned (`order` of `aligned_states`)."""
    true, guess = np.concatenate(truth), np.concatenate([p if p.ndim == 1 else p.argmax(axis=1) for p in found])
    return float((order[true] == guess).mean())


def weight_error(truth: np.ndarray, found: np.ndarray, order: np.ndarray) -> float:
    """Mean absolute error of couplings (states, neurons, neurons), states aligned."""
    return float(np.abs(truth - found[order]).mean())


def thresholded_types(weights: np.ndarray, threshold: float) -> Int[np.ndarray, "states targets sources"]:
    """-1, 0 or 1: the sign of couplings beyond a threshold."""
    return np.where(np.abs(weights) > threshold, np.sign(weights), 0).astype(int)


def off_diagonal(arrays: np.ndarray) -> np.ndarray:
    """(…, entries) of (…, neurons, neurons) without the diagonal."""
    return arrays[..., ~np.eye(arrays.shape[-1], dtype=bool)]


def correlation_of_states(arrays: np.ndarray) -> float:
    """Mean correlation, over pairs of states, of arrays (states, …); NaN for one state."""
    found = np.corrcoef(arrays.reshape(len(arrays), -1))
    return float(found[np.triu_indices(len(arrays), 1)].mean()) if len(arrays) > 1 else float("nan")


def bits_per_spike(log_likelihood: float, counts: Sequence[np.ndarray], rates: Float[np.ndarray, " neurons"]) -> float:
    """What a model says of counts beyond constant rates, in bits a spike.

    **Arguments:** `log_likelihood`: of all counts (nats); `rates`: spikes a bin of each neuron, from the training data.
    """
    flat = 0.0
    spikes = 0.0
    for part in counts:
        part = part[~np.isnan(part).all(axis=1)]
        flat += float((xlogy(part, rates) - rates - gammaln(part + 1)).sum())
        spikes += float(part.sum())
    return (log_likelihood - flat) / np.log(2) / max(spikes, 1.0)
