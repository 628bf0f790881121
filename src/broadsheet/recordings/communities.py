"""The usual ways to communities of a weighted graph, beside block models: modularity, spectra, thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import KMeans

from broadsheet.errors import MissingExtraError
from broadsheet.recordings.block_models import checked_weights


def louvain(weights: Any, seed: int = 0, resolution: float = 1.0) -> Int[np.ndarray, " nodes"]:
    """Communities of highest modularity by networkx' Louvain method, the largest first."""
    try:
        import networkx as nx
    except ImportError:
        raise MissingExtraError("networkx", "recordings") from None
    graph = nx.from_numpy_array(checked_weights(weights))
    found = nx.community.louvain_communities(graph, seed=seed, resolution=resolution)
    labels = np.zeros(len(graph), int)
    for k, members in enumerate(sorted(found, key=lambda each: (-len(each), min(each)))):
        labels[list(members)] = k
    return labels


def spectral_communities(weights: Any, most: int = 12, seed: int = 0) -> Int[np.ndarray, " nodes"]:
    """K-means on the leading eigenvectors of the normalised matrix of weights; as many groups as stand before the widest gap
    between eigenvalues."""
    weights = checked_weights(weights)
    strength = weights.sum(axis=1)
    scale = np.where(strength > 0, strength, 1.0) ** -0.5
    values, vectors = np.linalg.eigh(scale[:, None] * weights * scale)
    values, vectors = values[::-1], vectors[:, ::-1]
    most = min(most, len(weights) - 1)
    count = int(np.argmax(-np.diff(values[: most + 1]))) + 1
    if count == 1:
        return np.zeros(len(weights), int)
    rows = vectors[:, :count]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return KMeans(count, n_init=5, random_state=seed).fit_predict(rows)


def above_median(weights: Any) -> Float[np.ndarray, "nodes nodes"]:
    """1 for each edge that is heavier than half of them, 0 for all others."""
    weights = checked_weights(weights)
    return (weights > np.median(weights[weights > 0])).astype(float)


def without_weak(weights: Any, floor: float = 1e-3) -> Float[np.ndarray, "nodes nodes"]:
    """The weights without those below a share of the largest."""
    weights = checked_weights(weights)
    return np.where(weights >= floor * weights.max(), weights, 0.0)
