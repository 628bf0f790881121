"""Learns the rounding of one block's weights so that its outputs stay: post-training quantisation, block by block.

The target is the block's output in full precision for full-precision inputs; what the block gets while it learns are the inputs
that the already quantised blocks before it produce, so that it makes good their errors (arXiv 2306.00317). The loss is the
squared difference, summed over axis 1 and averaged over the others; Adam with a cosine decay of its rate to 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from broadsheet.errors import InputError
from broadsheet.learn.rounding import Activations, Params, Rounding, SecondOrder
from broadsheet.learn.training import fit
from broadsheet.numerics.quantisation import Grid, from_codes

Samples = Float[Array, "samples ..."]
Given = Float[Array | np.ndarray, "_ ..."]
Block = Callable[..., Array]
"""`block(weights, x)`, or `block(weights, x, quantise)` with activations: `quantise(name, x, sample)` rounds the inputs of a
weight; `sample` counts those that are mapped over one by one."""


class Quantised(NamedTuple):
    """A weight as integers: `step * (codes - zero)`."""

    codes: np.ndarray
    grid: Grid

    @property
    def weight(self) -> np.ndarray:
        """The numbers that the integers stand for."""
        return from_codes(self.codes, self.grid)


class Reconstruction(NamedTuple):
    """What `reconstruct` returns: learned parameters, integers by the weight's name, those of activations, and the losses."""

    params: dict[str, Params]
    weights: dict[str, Quantised]
    activations: dict[str, Params]
    losses: np.ndarray


def reconstruct(
    block: Block,
    weights: Mapping[str, Array],
    x_full: Given,
    x_quantised: Given,
    y_full: Given,
    quantizer: Rounding,
    *,
    iters: int = 600,
    rate: float = 3e-3,
    batch: int = 32,
    key: PRNGKeyArray,
    drop: float = 0.0,
    activations: Activations | None = None,
    inputs: Mapping[str, Array] | None = None,
    moments: Mapping[str, np.ndarray] | None = None,
    others: Mapping[str, Rounding] | None = None,
    report: Callable[[int, float], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Reconstruction:
    """Learns how to round the weights of one block.

    **Arguments:**

    - `block`: an Equinox module or function, `block(weights, x) -> y` over a batch. A module is compiled once for all blocks of
      its shape.
    - `weights`: by name, (out, in, ...).
    - `x_full`, `x_quantised`: inputs of the block in the model and in the model whose earlier blocks are quantised; `y_full`:
      the block's outputs for `x_full`.
    - `iters`, `rate`, `batch`: steps, first learning rate, samples a step (drawn with replacement).
    - `drop`: share of input numbers that are taken from `x_full` while learning (QDrop).
    - `activations`: also quantise the inputs of the weights; `inputs` are samples of them by the weight's name.
    - `moments`: X^T X of what each weight is multiplied with, for `SecondOrder`.
    - `others`: other quantisers for some of the weights.
    - `report`, `checkpoint`: as in `fit`.

    **Raises:** `InputError` where the numbers of samples differ, or inputs or moments are wanted and missing.
    """
    if not len(x_full) == len(x_quantised) == len(y_full):
        raise InputError(
            f"reconstruct: {len(x_full)}, {len(x_quantised)} and {len(y_full)} samples; as many of each are wanted."
        )
    quantizers = {name: (others or {}).get(name, quantizer) for name in weights}
    params = {name: _first(name, quantizers[name], weights[name], moments or {}) for name in weights}
    steps = {name: activations.init(_known(inputs or {}, name, "inputs")) for name in weights} if activations else {}
    losses = np.zeros(0)
    learned = {
        "weights": {name: quantizers[name].learned(params[name]) for name in weights},
        "activations": {name: activations.learned(row) for name, row in steps.items()} if activations else {},
        "made": True,  # moved by `_count` alone: its gradient is 0
    }
    if any(jax.tree.leaves(learned["weights"])) or steps:
        loss = _Error(
            _Flat.of((block, dict(weights))), tuple((name, _without_size(each)) for name, each in quantizers.items()),
            activations and dataclasses.replace(activations, bits=8), drop, jnp.asarray(float(iters)),
        )  # fmt: skip
        samples = _Batches(jnp.asarray(x_full), jnp.asarray(x_quantised), jnp.asarray(y_full), min(batch, len(x_full)))
        found = fit(
            {"weights": params, "activations": steps, "made": jnp.zeros(())}, loss, samples, optimiser=_adam(rate, iters),
            steps=iters, key=key, parameters=learned, project=_count, chunk=min(100, iters), report=report,
            checkpoint=checkpoint,
        )  # fmt: skip
        params, steps, losses = found.model["weights"], found.model["activations"], found.losses
    return Reconstruction(
        params, {name: _frozen(quantizers[name], params[name], weights[name]) for name in weights}, steps, losses
    )


def _first(name: str, quantizer: Rounding, w: Array, moments: Mapping[str, np.ndarray]) -> Params:
    return quantizer.solve(w, _known(moments, name, "moments")) if isinstance(quantizer, SecondOrder) else quantizer.init(w)


def _known(given: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in given:
        raise InputError(f"reconstruct: {what} of {name!r} are wanted to quantise it this way.")
    return given[name]


def _frozen(quantizer: Rounding, params: Params, w: Array) -> Quantised:
    codes, step, zero = quantizer.codes(params, w)
    return Quantised(codes, Grid(step, zero, quantizer.bits, quantizer.symmetric))


def _without_size(quantizer: Rounding) -> Rounding:
    """The same rule whatever the bits, which its parameters know: programs are compiled once for all."""
    return dataclasses.replace(quantizer, bits=8)


@lru_cache(maxsize=32)
def _adam(rate: float, iters: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(rate, iters))


def _count(model: dict) -> dict:
    return model | {"made": model["made"] + 1}


class _Batches(eqx.Module):
    """Random samples, with replacement."""

    x_full: Samples
    x_quantised: Samples
    y: Samples
    size: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        taken = jax.random.randint(key, (self.size,), 0, len(self.y))
        return self.x_full[taken], self.x_quantised[taken], self.y[taken]


class _Flat(eqx.Module):
    """A tree as a tuple of arrays and what can be hashed: trees with lists in them cannot."""

    arrays: tuple[Array, ...]
    others: tuple[Any, ...] = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    @classmethod
    def of(cls, tree: PyTree) -> _Flat:
        leaves, structure = jax.tree.flatten(tree)
        arrays = tuple(leaf for leaf in leaves if eqx.is_array(leaf))
        return cls(arrays, tuple(None if eqx.is_array(leaf) else (leaf,) for leaf in leaves), structure)

    @property
    def tree(self) -> PyTree:
        arrays = iter(self.arrays)
        return jax.tree.unflatten(self.structure, [next(arrays) if other is None else other[0] for other in self.others])


class _Error(eqx.Module):
    """The loss of a block."""

    given: _Flat
    quantizers: tuple[tuple[str, Rounding], ...]
    activations: Activations | None
    drop: float = eqx.field(static=True)
    iters: Array

    def __call__(self, model: PyTree, batch: tuple[Array, Array, Array], key: PRNGKeyArray) -> Array:
        (block, weights), (x_full, x, y) = self.given.tree, batch
        mix_key, drop_key = jax.random.split(key)
        if self.drop:
            x = jnp.where(jax.random.bernoulli(mix_key, self.drop, x.shape), x_full, x)
        params, progress = model["weights"], jax.lax.stop_gradient(model["made"]) / self.iters
        rounded = {name: each.quantize(params[name], weights[name]) for name, each in self.quantizers}
        penalty = sum(each.penalty(params[name], progress) for name, each in self.quantizers)
        if self.activations is None:
            found = block(rounded, x)
        else:
            rule, names = self.activations, list(weights)

            def quantise(name: str, inputs: Array, sample: Array | int = 0) -> Array:
                own = jax.random.fold_in(jax.random.fold_in(drop_key, names.index(name)), sample)
                return rule.dropped(model["activations"][name], inputs, own)

            found = block(rounded, x, quantise)
        return squared_error(found, y) + penalty


def squared_error(found: Samples, wanted: Samples) -> Array:
    """Squared differences, summed over axis 1, averaged over all others."""
    return jnp.mean(jnp.sum((found - wanted) ** 2, axis=1)) if found.ndim > 1 else jnp.mean((found - wanted) ** 2)


def relative_error(found: Array | np.ndarray, wanted: Array | np.ndarray) -> float:
    """Sum of squared differences over the sum of squares."""
    exact = np.asarray(wanted, np.float64)
    return float(np.sum((np.asarray(found, np.float64) - exact) ** 2) / np.sum(exact**2))
