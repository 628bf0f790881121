"""Masks of sparse networks: how many weights each layer keeps, and which; every count is exact.

A mask is a tree like the parameters: booleans of a leaf's shape where the leaf is sparse, a single True where it is dense.
Selections take a count that is traced, so that one compiled program prunes by any schedule: the value of the k-th largest entry
is found by bisection over the bits of the numbers, and ties are broken by position.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree, UInt

from broadsheet.errors import InputError

Distribution = Literal["erk", "uniform"]
Scope = Literal["global", "layer"]
Exclude = Callable[[str, Array], bool]


def erk_densities(shapes: Sequence[tuple[int, ...]], density: float) -> list[float]:
    """Density of each layer by the Erdős-Rényi-kernel rule (Evci et al. 2020), `density` over all weights together.

    A layer's density is proportional to (sum of its dimensions) / (their product), and 1 where that would be more.
    """
    sizes = np.array([math.prod(shape) for shape in shapes], float)
    raw = np.array([sum(shape) for shape in shapes], float) / sizes
    dense = np.zeros(len(sizes), bool)
    scale = 0.0
    while not dense.all():
        budget = density * sizes[~dense].sum() - (1 - density) * sizes[dense].sum()
        scale = budget / (raw * sizes)[~dense].sum()
        over = ~dense & (raw == raw[~dense].max()) & (scale * raw > 1)
        if not over.any():
            break
        dense |= over
    return [1.0 if full else float(scale * each) for full, each in zip(dense, raw, strict=True)]


def densities(shapes: Sequence[tuple[int, ...]], density: float, distribution: Distribution) -> list[float]:
    """Density of each layer, `density` over all of them together."""
    return erk_densities(shapes, density) if distribution == "erk" else [density] * len(shapes)


def live_total(size: int, sparsity: float) -> int:
    """How many of `size` weights a sparsity leaves: floor(size (1 - sparsity)), rounding of the product set aside."""
    return math.floor(size * (1 - sparsity) + 1e-6)


def live_counts(
    shapes: Sequence[tuple[int, ...]], sparsity: float, distribution: Distribution, *, floor: bool = False
) -> list[int]:
    """How many weights each layer keeps; together `live_total`, what floors leave over going to the largest remainders.

    With `floor` they get nothing, so that no layer's count rises where the sparsity does.
    """
    sizes = [math.prod(shape) for shape in shapes]
    wanted = [d * size for d, size in zip(densities(shapes, 1 - sparsity, distribution), sizes, strict=True)]
    counts = [math.floor(each + 1e-6) for each in wanted]
    if not floor:
        not_full = [k for k in range(len(sizes)) if counts[k] < sizes[k]]
        not_full.sort(key=lambda k: counts[k] - wanted[k])
        for k in not_full[: max(live_total(sum(sizes), sparsity) - sum(counts), 0)]:
            counts[k] += 1
    return counts


def sparse_leaves(params: PyTree, ranks: tuple[int, ...] = (2, 4), exclude: Exclude | None = None) -> PyTree:
    """Which leaves are made sparse: those of these ranks (matrices and kernels) that `exclude(path, leaf)` does not name.

    **Raises:** `InputError` where that leaves none.
    """

    def chosen(path: tuple, leaf: Array) -> bool:
        return leaf.ndim in ranks and not (exclude is not None and exclude(jax.tree_util.keystr(path), leaf))

    found = jax.tree_util.tree_map_with_path(chosen, params)
    if not any(jax.tree.leaves(found)):
        raise InputError(f"There is nothing to make sparse: no weights of rank {' or '.join(map(str, ranks))}.")
    return found


def random_masks(params: PyTree, chosen: PyTree, counts: Sequence[int], key: PRNGKeyArray) -> PyTree:
    """Masks with exactly so many live weights in each chosen leaf, at random places."""
    leaves, tree = jax.tree.flatten(params)
    masks, left = [], iter(counts)
    for k, (leaf, sparse) in enumerate(zip(leaves, jax.tree.leaves(chosen), strict=True)):
        if sparse:
            keys = random_keys(jax.random.fold_in(key, k), jnp.ones(leaf.size, bool))
            masks.append(largest(keys, next(left)).reshape(leaf.shape))
        else:
            masks.append(jnp.ones((), bool))
    return jax.tree.unflatten(tree, masks)


def apply_masks(tree: PyTree, masks: PyTree) -> PyTree:
    """The tree with zeros where the masks are False."""
    return jax.tree.map(lambda leaf, mask: jnp.where(mask, leaf, jnp.zeros_like(leaf)), tree, masks)


def is_sparse(mask: Array) -> bool:
    """Whether the mask is one of a sparse leaf."""
    return mask.ndim > 0


def score_keys(scores: Array, among: Bool[Array, "..."]) -> UInt[Array, " n"]:
    """Unsigned integers in the order of |scores|, 0 outside `among`."""
    values = jnp.abs(scores).ravel()
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    kind = jnp.uint64 if values.dtype.itemsize == 8 else jnp.uint32
    return jnp.where(among.ravel(), jax.lax.bitcast_convert_type(values, kind) + kind(1), kind(0))


def random_keys(key: PRNGKeyArray, among: Bool[Array, "..."]) -> UInt[Array, " n"]:
    """Keys in random order, 0 outside `among`."""
    return jnp.where(among.ravel(), jax.random.bits(key, (among.size,)) | jnp.uint32(1), jnp.uint32(0))


@jax.jit
def largest(keys: UInt[Array, " n"], count: Int[Array, ""] | int) -> Bool[Array, " n"]:
    """Where the `count` largest keys are, those of equal size in order of position; keys of 0 are never chosen."""
    wanted = jnp.maximum(jnp.asarray(count, jnp.int32), 0)
    threshold = jnp.maximum(_kth(keys, wanted, 8 * keys.dtype.itemsize), 1)
    above, equal = keys > threshold, keys == threshold
    missing = wanted - jnp.sum(above, dtype=jnp.int32)

    def first_of_equal() -> Bool[Array, " n"]:
        places = jnp.where(equal, jnp.arange(keys.size, 0, -1, dtype=jnp.uint32), jnp.uint32(0))
        return places >= jnp.maximum(_kth(places, missing, keys.size.bit_length()), 1)

    return above | jax.lax.cond(jnp.sum(equal, dtype=jnp.int32) <= missing, lambda: equal, first_of_equal)


def _kth(keys: UInt[Array, " n"], count: Int[Array, ""], bits: int) -> UInt[Array, ""]:
    """The largest threshold that at least `count` keys reach, bit by bit."""
    kind = jnp.float32 if keys.size < 2**24 else jnp.int32  # a sum of floats is the quicker one, and exact that far

    def bit(n: Array, threshold: Array) -> Array:
        higher = threshold | (jnp.ones((), keys.dtype) << (bits - 1 - n).astype(keys.dtype))
        return jnp.where(jnp.sum((keys >= higher).astype(kind)) >= count, higher, threshold)

    return jax.lax.fori_loop(0, bits, bit, jnp.zeros((), keys.dtype))


@functools.partial(jax.jit, static_argnames=("scope", "outputs"))
def pruned(masks: PyTree, scores: PyTree, keep: Int[Array, " counts"], scope: Scope, outputs: bool = False) -> PyTree:
    """Masks with only the live weights of largest |score|: `keep[0]` of all together, or `keep[l]` of each sparse layer.

    With `outputs` the best live weight of each output (first axis) is kept before all others, so that no layer is emptied.
    """
    leaves, tree = jax.tree.flatten(masks)
    sparse = [k for k, mask in enumerate(leaves) if is_sparse(mask)]
    values = jax.tree.leaves(scores)
    keys = [score_keys(values[k], leaves[k]) for k in sparse]
    if outputs:
        keys = [_best_first(each, leaves[k].shape[0]) for each, k in zip(keys, sparse, strict=True)]
    if scope == "global":
        together = largest(jnp.concatenate(keys), keep[0])
        chosen = jnp.split(together, np.cumsum([each.size for each in keys])[:-1])
    else:
        chosen = [largest(each, keep[n]) for n, each in enumerate(keys)]
    for k, each in zip(sparse, chosen, strict=True):
        leaves[k] = each.reshape(leaves[k].shape)
    return jax.tree.unflatten(tree, leaves)


def _best_first(keys: UInt[Array, " n"], outputs: int) -> UInt[Array, " n"]:
    """The largest key of each output raised above all others, by its top bit, which no key of a number has."""
    rows = keys.reshape(outputs, -1)
    best = (jnp.arange(rows.shape[1]) == rows.argmax(axis=1)[:, None]) & (rows > 0)
    top = jnp.asarray(1 << (8 * keys.dtype.itemsize - 1), keys.dtype)
    return jnp.where(best, rows | top, rows).ravel()


def exchanged(
    mask: Bool[Array, "..."], weights: Array, grow_keys: Callable[[Array], Array], share: Array | float
) -> Bool[Array, "..."]:
    """The mask after ceil(share of the live) weights of smallest size went and as many of largest key came.

    What has just gone may come again. `grow_keys(dead)` gives the keys among the dead entries.
    """
    live = jnp.sum(mask, dtype=jnp.int32)
    moved = jnp.ceil(share * live.astype(jnp.float32)).astype(jnp.int32)
    kept = largest(score_keys(weights, mask), live - moved).reshape(mask.shape)
    return kept | largest(grow_keys(~kept), moved).reshape(mask.shape)
