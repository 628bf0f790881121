"""Sparse training: gradual magnitude pruning with regrowth, around any Optax optimiser; pruning plasticity.

After "Sparse Training via Boosting Pruning Plasticity with Neuroregeneration" (GraNet, arXiv 2106.10404). GMP (Zhu and Gupta
2017), RigL (Evci et al. 2020), SET (Mocanu et al. 2018) and static sparsity are settings of the same rule.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from broadsheet.errors import InputError
from broadsheet.learn.sparse_masks import (
    Distribution,
    Exclude,
    Scope,
    apply_masks,
    exchanged,
    is_sparse,
    live_counts,
    live_total,
    pruned,
    random_keys,
    random_masks,
    score_keys,
    sparse_leaves,
)

Growth = Literal["gradient", "random", "momentum"]
MOMENTUM = 0.9
"""Decay of the running average of dense gradients by which growth "momentum" chooses."""


@dataclass(frozen=True)
class Sparsifier:
    """When weights are pruned, how many, and what grows back. Steps count optimiser steps.

    - `s_final`, `s_init`: share of weights that are zero at the end and at the start.
    - `steps`: of the whole training; `every`: between two changes of the masks; pruning begins at `t0` and ends at `t_f` (by
      default half of the steps), where one last prune leaves exactly `s_final`.
    - `growth`: after each prune, and on after the last, the weakest live weights of each layer go and as many come where the
      dense gradient of this step, its running average ("momentum") or chance says; None: nothing grows.
    - `r0`, `r_min`: share of live weights that is exchanged, falling as a cosine from r0 to r_min over all steps.
    - `scope`: weights compete over all layers together ("global"), or each layer is pruned to its own count ("layer").
    - `distribution`: of the first live weights over layers, and of each layer's count where the scope is "layer".
    - `ranks`, `exclude`: leaves of these ranks are made sparse but for those where `exclude(path, leaf)` is true.
    - `outputs`: keep the largest live weight of each output, so that no layer is emptied.
    - `rescale`: a layer that starts with density d has its first weights multiplied by 1 / sqrt(d), which keeps the variance
      of what it puts out.
    - `seed`: of the first masks and of random growth.

    **Raises:** `InputError` where these contradict each other.
    """

    s_final: float
    s_init: float = 0.5
    steps: int = 1000
    every: int = 100
    t0: int = 0
    t_f: int | None = None
    growth: Growth | None = "gradient"
    r0: float = 0.5
    r_min: float = 0.005
    scope: Scope = "global"
    distribution: Distribution = "erk"
    ranks: tuple[int, ...] = (2, 4)
    exclude: Exclude | None = None
    outputs: bool = False
    rescale: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.s_init <= self.s_final < 1:
            raise InputError(
                f"Sparsities {self.s_init:g} at the start and {self.s_final:g} at the end: 0 <= start <= end < 1 is wanted."
            )
        if self.every < 1 or self.steps < 1 or not 0 <= self.t0 < self.end:
            raise InputError(
                f"Pruning every {self.every} steps from {self.t0} to {self.end}: one step or more, and a start before the end."
            )
        if not 0 <= self.r_min <= self.r0 <= 1:
            raise InputError(f"Shares to exchange, {self.r0:g} falling to {self.r_min:g}: both from 0 to 1, in this order.")
        if self.growth not in (None, "gradient", "random", "momentum"):
            raise InputError(f"growth={self.growth!r}; gradient, random, momentum or None is wanted.")

    @property
    def end(self) -> int:
        """The step of the last prune."""
        return max(self.steps // 2, self.t0 + 1) if self.t_f is None else self.t_f

    def sparsity_at(self, step: int) -> float:
        """The sparsity that the schedule has at a step: cubic from s_init at t0 to s_final at t_f."""
        left = 1 - min(max((step - self.t0) / (self.end - self.t0), 0.0), 1.0)
        return self.s_final + (self.s_init - self.s_final) * left**3

    def prunes_at(self) -> list[int]:
        """The steps that prune: multiples of `every` from t0 on, and t_f (where the sparsity stays, nothing falls then)."""
        first = max(math.ceil(self.t0 / self.every), 1) * self.every
        return [*range(first, self.end, self.every), self.end]

    def start(self, params: PyTree, state: SparseState) -> PyTree:
        """The first weights as the optimiser wants them: masked, and with `rescale` scaled by 1 / sqrt(density)."""
        if not self.rescale:
            return apply_masks(params, state.masks)
        return jax.tree.map(lambda leaf, mask: jnp.where(mask, leaf / jnp.sqrt(mask.mean()), 0), params, state.masks)

    def around(self, optimiser: optax.GradientTransformation) -> optax.GradientTransformation:
        """The optimiser, for weights that are kept sparse by this rule (see `sparse`)."""
        return sparse(optimiser, self)

    def split(self, optimiser: optax.GradientTransformation) -> Split:
        """What `around` does in the steps that change masks and in those that do not, each by itself."""
        return _split_of(optimiser.update, self.growth, self.scope, self.outputs)

    def changes_at(self, step: int) -> bool:
        """Whether masks change in the update that makes this step, counted from 1."""
        exchanges = self.growth is not None and step % self.every == 0 and self.t0 <= step < self.steps
        return exchanges or step in self.prunes_at()


def GraNet(s_final: float, *, s_init: float = 0.5, **options: Any) -> Sparsifier:
    """Gradual pruning from `s_init` (0: dense) with regrowth by gradient. Options as of `Sparsifier`."""
    return Sparsifier(s_final, s_init, **options)


def GMP(s_final: float, *, s_init: float = 0.0, **options: Any) -> Sparsifier:
    """Gradual magnitude pruning from a dense network; nothing grows back."""
    return Sparsifier(s_final, s_init, growth=None, **options)


def RigL(s_final: float, **options: Any) -> Sparsifier:
    """Sparse from the start; weights are exchanged for those of largest gradient."""
    return Sparsifier(s_final, s_final, **options)


def SET(s_final: float, **options: Any) -> Sparsifier:
    """Sparse from the start; weights are exchanged for others at random."""
    return Sparsifier(s_final, s_final, growth="random", **options)


def StaticSparse(s_final: float, **options: Any) -> Sparsifier:
    """Sparse from the start, always the same weights."""
    return Sparsifier(s_final, s_final, growth=None, **options)


@dataclass(frozen=True)
class FixedMasks:
    """Weights that are live where these masks are True, all the time: to go on after a prune, or to train a ticket again."""

    masks: PyTree

    def start(self, params: PyTree, state: SparseState) -> PyTree:
        """The weights, masked."""
        return apply_masks(params, state.masks)

    def around(self, optimiser: optax.GradientTransformation) -> optax.GradientTransformation:
        """The optimiser, for weights that stay sparse like this."""

        def init(params: PyTree) -> SparseState:
            return SparseState(
                optimiser.init(params), self.masks, _number(0), _number([]), _number([]).reshape(0, 1), _number(1), _number(0),
                jnp.zeros(3, jnp.float32), _number(0), None,
            )  # fmt: skip

        return optax.GradientTransformation(init, _update_of(optimiser.update, None, "global", False))

    def split(self, optimiser: optax.GradientTransformation) -> None:
        """None: all steps are alike."""

    def changes_at(self, step: int) -> bool:
        """Never."""
        return False


class SparseState(NamedTuple):
    """State of `sparse`.

    - `inner`: the optimiser's; `masks`: which weights are live; `step`: steps made.
    - `prune_at`, `keep`: steps that prune, and how many weights live after each (of all layers, or of each).
    - `every`, `start`: when weights are exchanged; `rates`: r0, r_min and all steps; `seed`: of random growth.
    - `gradients`: running average of dense gradients, where growth goes by it.
    """

    inner: PyTree
    masks: PyTree
    step: Int[Array, ""]
    prune_at: Int[Array, " prunes"]
    keep: Int[Array, "prunes counts"]
    every: Int[Array, ""]
    start: Int[Array, ""]
    rates: Float[Array, "3"]
    seed: Int[Array, ""]
    gradients: PyTree


def sparse(optimiser: optax.GradientTransformation, rule: Sparsifier) -> optax.GradientTransformation:
    """The optimiser, for weights that are kept sparse by a rule.

    Weights that are not live are exactly zero after each update. Their moments in the optimiser's state count as zero from the
    next one on, where they are masked as they are read: a pass over them by itself would cost more than the rest. The loss
    is one of the weights as they are: since these are masked already, its gradient is that with respect to effective weights,
    dense where weights are not live, and growth needs that. `rule.start(weights, state)` masks the first weights.

    Rules that differ in numbers only share their `update`, so that what was compiled for one serves the others.
    """

    def init(params: PyTree) -> SparseState:
        chosen = sparse_leaves(params, rule.ranks, rule.exclude)
        shapes = [leaf.shape for leaf, one in zip(jax.tree.leaves(params), jax.tree.leaves(chosen), strict=True) if one]
        masks = random_masks(params, chosen, live_counts(shapes, rule.s_init, rule.distribution), jax.random.key(rule.seed))
        prunes = rule.prunes_at()
        sparsities = [rule.sparsity_at(step) for step in prunes]
        if rule.scope == "global":
            keep = [[live_total(sum(map(math.prod, shapes)), s)] for s in sparsities]
        else:
            floor = rule.s_init < rule.s_final
            keep = [live_counts(shapes, s, rule.distribution, floor=floor) for s in sparsities]
        return SparseState(
            inner=optimiser.init(params),
            masks=masks,
            step=_number(0),
            prune_at=_number(prunes),
            keep=_number(keep),
            every=_number(rule.every),
            start=_number(rule.t0),
            rates=jnp.array([rule.r0, rule.r_min, rule.steps], jnp.float32),
            seed=_number(rule.seed),
            gradients=jax.tree.map(jnp.zeros_like, params) if rule.growth == "momentum" else None,
        )

    return optax.GradientTransformation(init, _update_of(optimiser.update, rule.growth, rule.scope, rule.outputs))


def _number(value: Any) -> Int[Array, "..."]:
    return jnp.asarray(value, jnp.int32)


class Split(NamedTuple):
    """The update of a sparse optimiser in two, for loops that know which one a step needs: a branch within each step of a
    compiled loop would copy through it all that it may change.

    - `changing`, `between`: for a step that changes masks, and for one that does not.
    - `due`: from the optimiser's state, whether the next step changes them.
    """

    changing: Callable[..., tuple[PyTree, SparseState]]
    between: Callable[..., tuple[PyTree, SparseState]]
    due: Callable[[SparseState], Array]


@functools.lru_cache(maxsize=64)
def _split_of(inner_update: Callable, growth: Growth | None, scope: Scope, outputs: bool) -> Split:
    """The parts of the update of all rules that differ in numbers only."""

    def changing(gradient: PyTree, state: SparseState, params: PyTree) -> tuple[PyTree, SparseState]:
        old, step, average = state.masks, state.step + 1, _averaged(gradient, state, growth)
        updates, inner = _inner_step(inner_update, gradient, state, params)
        moved, masks = apply_masks(optax.apply_updates(params, updates), old), old
        if state.prune_at.size:
            at = jnp.searchsorted(state.prune_at, step)
            masks = jax.lax.cond(
                jnp.any(state.prune_at == step),
                lambda: pruned(old, moved, state.keep[jnp.minimum(at, len(state.keep) - 1)], scope, outputs),
                lambda: old,
            )
        if growth is not None:
            key = jax.random.fold_in(jax.random.key(state.seed), step)
            masks = regrown(masks, moved, average if growth == "momentum" else gradient, exchange_rate(state), growth, key)
        updates = _emptying(jax.tree.map(lambda before, now: before & now, old, masks), updates, params)
        return updates, state._replace(inner=inner, masks=masks, step=step, gradients=average)

    def between(gradient: PyTree, state: SparseState, params: PyTree) -> tuple[PyTree, SparseState]:
        updates, inner = _inner_step(inner_update, gradient, state, params)
        updates = _emptying(state.masks, updates, params)
        return updates, state._replace(inner=inner, step=state.step + 1, gradients=_averaged(gradient, state, growth))

    return Split(changing, between, functools.partial(_due, growth=growth))


@functools.lru_cache(maxsize=64)
def _update_of(inner_update: Callable, growth: Growth | None, scope: Scope, outputs: bool) -> Callable:
    """The whole update of all rules that differ in numbers only."""
    changing, between, due = _split_of(inner_update, growth, scope, outputs)

    def update(gradient: PyTree, state: SparseState, params: PyTree | None = None) -> tuple[PyTree, SparseState]:
        if params is None:
            raise InputError("A sparse optimiser is given the weights: update(gradient, state, weights).")
        if growth is None and not state.prune_at.size:
            return between(gradient, state, params)
        return jax.lax.cond(due(state), changing, between, gradient, state, params)

    return update


def _inner_step(inner_update: Callable, gradient: PyTree, state: SparseState, params: PyTree) -> tuple[PyTree, PyTree]:
    """What the optimiser itself does, given the gradients and moments of live weights."""
    return inner_update(apply_masks(gradient, state.masks), _with_masked_moments(state.inner, state.masks), params)


def _averaged(gradient: PyTree, state: SparseState, growth: Growth | None) -> PyTree:
    """The running average of dense gradients, where growth goes by it."""
    if growth != "momentum":
        return state.gradients
    return jax.tree.map(lambda a, g: MOMENTUM * a + (1 - MOMENTUM) * g, state.gradients, gradient)


def _emptying(masks: PyTree, updates: PyTree, params: PyTree) -> PyTree:
    """The updates, and for weights that are not live those after which they are exactly zero."""
    return jax.tree.map(lambda m, u, p: jnp.where(m, u, -p) if is_sparse(m) else u, masks, updates, params)


def _due(state: SparseState, growth: Growth | None) -> Array:
    """Whether masks change in this step; in the very last one nothing is exchanged, since what grows would stay zero."""
    step = state.step + 1
    prunes = jnp.any(state.prune_at == step)
    if growth is None:
        return prunes
    return prunes | ((step % state.every == 0) & (step >= state.start) & (step < state.rates[2]))


def exchange_rate(state: SparseState) -> Float[Array, ""]:
    """Share of live weights that is exchanged in the step to come: a cosine from r0 to r_min over all steps."""
    highest, lowest, steps = state.rates
    return lowest + (highest - lowest) * (1 + jnp.cos(jnp.pi * (state.step + 1) / steps)) / 2


@functools.partial(jax.jit, static_argnames="growth")
def regrown(masks: PyTree, weights: PyTree, scores: PyTree, share: Array | float, growth: Growth, key: PRNGKeyArray) -> PyTree:
    """Masks after one exchange in each sparse layer: ceil(share of the live) weights of smallest size go, and as many come
    where |score| is largest, or with growth "random" anywhere. Live counts stay as they are."""

    leaves, tree = jax.tree.flatten(masks)
    weight, score = jax.tree.leaves(weights), jax.tree.leaves(scores)
    by_size: dict[tuple[int, Any], list[int]] = {}
    for k, mask in enumerate(leaves):
        if is_sparse(mask):
            by_size.setdefault((mask.size, weight[k].dtype), []).append(k)

    def one(layer: tuple[Array, Array, Array, Array]) -> Array:
        index, mask, size, wanted = layer
        if growth == "random":
            return exchanged(mask, size, lambda dead: random_keys(jax.random.fold_in(key, index), dead), share)
        return exchanged(mask, size, lambda dead: score_keys(wanted, dead), share)

    for alike in by_size.values():  # one program for all layers of a size
        rows = tuple(jnp.stack([part[k].ravel() for k in alike]) for part in (leaves, weight, score))
        for k, new in zip(alike, jax.lax.map(one, (jnp.asarray(alike), *rows)), strict=True):
            leaves[k] = new.reshape(leaves[k].shape)
    return jax.tree.unflatten(tree, leaves)


def _with_masked_moments(inner: PyTree, masks: PyTree) -> PyTree:
    """An optimiser's state with zeros for weights that are not live, in all that is shaped and named like the weights."""
    known = {path: mask for path, mask in jax.tree_util.tree_flatten_with_path(masks)[0] if is_sparse(mask)}

    def one(path: tuple, leaf: Any) -> Any:
        for start in range(len(path) + 1):
            mask = known.get(path[start:])
            if mask is not None and jnp.shape(leaf) == mask.shape:
                return jnp.where(mask, leaf, jnp.zeros_like(leaf))
        return leaf

    return jax.tree_util.tree_map_with_path(one, inner)


def sparse_state(state: PyTree) -> SparseState:
    """The state of `sparse` within an optimiser's; raises `InputError` where there is none."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, SparseState))
    for node in nodes:
        if isinstance(node, SparseState):
            return node
    raise InputError("This is no state of a sparse optimiser: train with sparsifier=… or with sparse(optimiser, rule).")


def live_by_layer(state: PyTree) -> dict[str, tuple[int, int]]:
    """Path of each sparse layer -> its live weights, and all of them."""
    flat = jax.tree_util.tree_flatten_with_path(sparse_state(state).masks)[0]
    return {jax.tree_util.keystr(path): (int(mask.sum()), mask.size) for path, mask in flat if is_sparse(mask)}


def sparsity(state: PyTree) -> float:
    """Share of the weights of sparse layers that are zero."""
    live, sizes = np.sum(list(live_by_layer(state).values()), axis=0)
    return float(1 - live / sizes)
