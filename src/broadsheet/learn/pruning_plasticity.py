"""Pruning plasticity: how far a network recovers that is pruned at some point of its training and then trained on.

After arXiv 2106.10404. Also what a training with changing masks costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, PRNGKeyArray, PyTree

from broadsheet.errors import InputError
from broadsheet.learn.pruning import Growth, regrown
from broadsheet.learn.sparse_masks import (
    Distribution,
    Exclude,
    Scope,
    apply_masks,
    is_sparse,
    live_counts,
    pruned,
    sparse_leaves,
)  # fmt: skip

Criterion = Literal["magnitude", "random", "gradient"]


def pruned_at_once(
    params: PyTree,
    rate: float,
    *,
    criterion: Criterion = "magnitude",
    scope: Scope = "global",
    distribution: Distribution = "uniform",
    gradient: PyTree | None = None,
    key: PRNGKeyArray | None = None,
    ranks: tuple[int, ...] = (2, 4),
    exclude: Exclude | None = None,
) -> PyTree:
    """Masks that leave floor(N (1 - rate)) of N weights live: those of largest |w|, of largest |w dL/dw|, or any.

    With scope "layer" each layer keeps its own count, the same share of each ("uniform") or by the kernel rule ("erk").
    Leaves of other ranks, and those that `exclude(path, leaf)` names, stay dense.

    **Raises:** `InputError` for a rate outside [0, 1), and where the gradient or the key that the criterion needs is missing.
    """
    if not 0 <= rate < 1:
        raise InputError(f"A pruning rate of {rate:g}; from 0 to below 1 is wanted.")
    scores = params
    if criterion == "gradient":
        if gradient is None:
            raise InputError("Pruning by gradient needs gradient=…, that of the loss at these weights.")
        scores = jax.tree.map(jnp.multiply, params, gradient)
    elif criterion == "random":
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(_given(key, "Random pruning"), len(leaves))
        drawn = [jax.random.uniform(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
        scores = jax.tree.unflatten(tree, drawn)
    chosen = sparse_leaves(params, ranks, exclude)
    dense = jax.tree.map(lambda leaf, one: jnp.ones(leaf.shape if one else (), bool), params, chosen)
    shapes = [mask.shape for mask in jax.tree.leaves(dense) if is_sparse(mask)]
    counts = live_counts(shapes, rate, distribution)
    return pruned(dense, scores, jnp.asarray([sum(counts)] if scope == "global" else counts), scope)


def pruning_plasticity(
    train: Callable[[PyTree, PyTree], PyTree],
    evaluate: Callable[[PyTree], float],
    params: PyTree,
    rate: float,
    *,
    growth: Growth | None = None,
    share: float = 0.5,
    gradient: Callable[[PyTree], PyTree] | None = None,
    criterion: Criterion = "magnitude",
    scope: Scope = "global",
    distribution: Distribution = "uniform",
    key: PRNGKeyArray | None = None,
    ranks: tuple[int, ...] = (2, 4),
    exclude: Exclude | None = None,
) -> float:
    """What `evaluate` says after pruning by `rate` and training on, less what it said before; 0 is full recovery.

    **Arguments:**

    - `train(params, masks)`: trains on with the masks held (`fit(…, sparsifier=FixedMasks(masks))`), and returns the weights.
    - `growth`: after the prune `share` of the live weights of each layer go too and as many come, by gradient or at random,
      so that as many are live as without; None: nothing grows.
    - `gradient(params)`: the dense gradient of the loss, where growth or the criterion goes by it.

    **Raises:** `InputError` where the gradient or the key that is needed is missing.
    """
    before = None
    if criterion == "gradient" or growth == "gradient":
        if gradient is None:
            raise InputError("Pruning or growth by gradient needs gradient=…, a function of the weights.")
        before = gradient(params)
    masks = pruned_at_once(
        params, rate, criterion=criterion, scope=scope, distribution=distribution, gradient=before, key=key, ranks=ranks,
        exclude=exclude,
    )  # fmt: skip
    if growth is not None:
        masks = regenerated(masks, params, growth, share=share, gradient=gradient, key=key)
    return float(evaluate(train(apply_masks(params, masks), masks))) - float(evaluate(params))


def regenerated(
    masks: PyTree,
    params: PyTree,
    growth: Growth,
    *,
    share: float = 0.5,
    gradient: Callable[[PyTree], PyTree] | None = None,
    key: PRNGKeyArray | None = None,
) -> PyTree:
    """Masks after one exchange in each layer, as of `learn.pruning.regrown`, by the gradient of the masked weights."""
    masked = apply_masks(params, masks)
    if growth == "random":
        return regrown(masks, masked, masked, share, growth, _given(key, "Random growth"))
    if gradient is None:
        raise InputError("Growth by gradient needs gradient=…, a function of the weights.")
    return regrown(masks, masked, gradient(masked), share, growth, jax.random.key(0))


def _given(key: PRNGKeyArray | None, what: str) -> PRNGKeyArray:
    if key is None:
        raise InputError(f"{what} needs key=….")
    return key


def training_cost(
    live: Int[np.ndarray, "steps layers"],
    sizes: Sequence[int],
    *,
    dense_gradients: Bool[np.ndarray, " steps"] | None = None,
    uses: Sequence[int] | None = None,
) -> float:
    """Multiplications of a sparse training, as a share of those of the dense one.

    A step has three products with each weight that is live: forward, and backward to activations and to weights. Where growth
    looks at dense gradients the last is with all weights.

    **Arguments:** `live`: live weights of each layer in each step; `sizes`: all weights of each; `dense_gradients`: steps that
    make dense gradients; `uses`: how often a weight of each layer is used for one example (once in dense layers, once a pixel
    that it makes in convolutions).
    """
    weight = np.ones(len(sizes)) if uses is None else np.asarray(uses, float)
    sparse_work = np.asarray(live) @ weight
    dense_work = float(np.asarray(sizes) @ weight)
    backward = sparse_work if dense_gradients is None else np.where(dense_gradients, dense_work, sparse_work)
    return float(np.sum(2 * sparse_work + backward) / (3 * len(live) * dense_work))
