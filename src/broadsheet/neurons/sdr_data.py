"""Patterns to test dendrites on: correlated, nonlinearly separable, and real."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from broadsheet.errors import InputError
from broadsheet.numerics import generator


def correlated_sdrs(
    key: Any, n: int, a: int, count: int, *, sizes: tuple[int, ...] = tuple(range(2, 10)), cells_per_size: int = 2000
) -> Int[np.ndarray, "count a"]:
    """Patterns made of clusters of cells that are always active together.

    Clusters of each size cover `cells_per_size` cells (fewer where n is smaller), the rest of the population is free. A
    pattern joins random clusters while they fit in a cells, and is filled with random cells.
    """
    rng = generator(key)
    per_size = min(cells_per_size, n // len(sizes))
    clusters: list[np.ndarray] = []
    for k, size in enumerate(sizes):
        cells = np.arange(k * per_size, (k + 1) * per_size)
        clusters += [cells[i : i + size] for i in range(0, len(cells) - size + 1, size)]
    patterns = np.empty((count, a), np.int32)
    for row in range(count):
        chosen: list[int] = []
        for c in rng.permutation(len(clusters))[: 2 * a]:
            if len(chosen) + len(clusters[c]) > a:
                break
            chosen.extend(clusters[c].tolist())
        rest = np.setdiff1d(np.arange(n), chosen)
        patterns[row] = np.concatenate([chosen, rng.choice(rest, a - len(chosen), replace=False)])
    return patterns


def poirazi_mel(
    key: Any, count: int, *, latent: int = 40, bins: int = 10, fixed: int = 4, product: int = 4
) -> tuple[Int[np.ndarray, "count latent"], Int[np.ndarray, " count"]]:
    """Two classes that no linear unit separates, as one-hot bins: `latent * bins` cells, `latent` active.

    Gaussian latent vectors whose last `fixed` coordinates are 1; each coordinate becomes the product of `product` random
    ones; positives are multiplied by a matrix P of U[-1, 1], negatives by P plus N(0, 1); each dimension is cut into `bins`
    of equal frequency.

    **Returns:** (active cells, labels 1 and 0), positives first.
    """
    rng = generator(key)
    if count % 2:
        raise InputError(f"count is {count}; an even number gives classes of equal size.")
    z = rng.normal(size=(count, latent))
    z[:, latent - fixed :] = 1.0
    z = z[:, rng.integers(0, latent, (latent, product))].prod(axis=2)
    P = rng.uniform(-1, 1, (latent, latent))
    half = count // 2
    values = np.concatenate([z[:half] @ P, z[half:] @ (P + rng.normal(size=P.shape))])
    ranks = values.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    cells = np.arange(latent) * bins + ranks * bins // count
    return cells, np.repeat([1, 0], half)


def k_winners(key: Any, X: Float[np.ndarray, "samples features"], n: int = 2048, k: int = 41) -> Int[np.ndarray, "samples k"]:
    """Real-valued data as sparse patterns: a fixed random projection to n cells, of which the k largest are active."""
    rng = generator(key)
    projection = rng.normal(size=(X.shape[1], n)) / np.sqrt(X.shape[1])
    return np.argpartition(-((X - X.mean(axis=1, keepdims=True)) @ projection), k, axis=1)[:, :k]
