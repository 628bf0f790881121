"""The layers and blocks of an Equinox model, found by structure; what goes in and out of them; other weights in their place.

A layer is a module with a `weight` of two axes or more and no such module inside it; a block is the outermost item of a tuple
or list of the model that holds layers, or a layer outside of all these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from broadsheet.errors import InputError

Place = tuple[str | int, ...]
"""The way to a module: names of fields, indices, keys."""

Samples = Float[Array, "samples ..."]
NO_LAYERS = (eqx.nn.Embedding, eqx.nn.LayerNorm, eqx.nn.GroupNorm, eqx.nn.RMSNorm)


class Call(NamedTuple):
    """What a module is called with beside its input."""

    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]


def name_of(place: Place) -> str:
    """`layers.0.weight`; the model itself is `model`."""
    return ".".join(str(part) for part in place) or "model"


def module_at(model: PyTree, place: Place) -> Any:
    """The module at a place."""
    for part in place:
        model = getattr(model, str(part)) if isinstance(model, eqx.Module) else model[part]
    return model


def with_modules(model: PyTree, modules: Mapping[Place, Any]) -> PyTree:
    """The model with other modules or arrays at these places."""
    if not modules:
        return model
    if () in modules:
        return modules[()]
    return eqx.tree_at(lambda tree: [module_at(tree, place) for place in modules], model, list(modules.values()))


def layers_of(model: PyTree, skip: Sequence[str] = ()) -> dict[str, Place]:
    """Name -> place of each layer, without those whose name has one of these words."""
    found = {name_of(place): place for place, _ in _layers(model, ())}
    return {name: place for name, place in found.items() if not any(word in name for word in skip)}


def _layers(node: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    within = [layer for part, child in _children(node) for layer in _layers(child, (*place, part))]
    weight: Any = getattr(node, "weight", None)
    if within:
        yield from within
    elif isinstance(node, eqx.Module) and not isinstance(node, NO_LAYERS) and eqx.is_inexact_array(weight) and weight.ndim > 1:
        yield place, node


def _children(node: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(node, eqx.Module):
        for field in dataclasses.fields(node):
            if not field.metadata.get("static") and hasattr(node, field.name):
                yield field.name, getattr(node, field.name)
    elif isinstance(node, tuple | list):
        yield from enumerate(node)
    elif isinstance(node, dict):
        yield from node.items()


def arrays_of(node: Any, place: Place = ()) -> dict[Place, Array]:
    """Place -> each array of a model."""
    if eqx.is_array(node):
        return {place: node}
    return {k: v for part, child in _children(node) for k, v in arrays_of(child, (*place, part)).items()}


def block_of(place: Place) -> Place:
    """The place of the block that a layer is in."""
    ends = [k + 1 for k, part in enumerate(place) if isinstance(part, int)]
    return place[: ends[0]] if ends else place


class Around(eqx.Module):
    """A module in the place of another, whose attributes it has: what calls a layer may also look at it."""

    module: Any

    def __getattr__(self, name: str) -> Any:
        if name == "module":
            raise AttributeError(name)
        return getattr(self.module, name)


class _Tap(Around):
    """A module that also puts down what it gets and gives."""

    place: Place = eqx.field(static=True)
    seen: list = eqx.field(static=True)

    def __call__(self, x: Array, *args: Any, **kwargs: Any) -> Any:
        y = self.module(x, *args, **kwargs)
        self.seen.append((self.place, x, y, Call(args, tuple(kwargs.items()))))
        return y


def calls(model: PyTree, places: Sequence[Place], sample: Array, batched: bool) -> dict[Place, Call]:
    """How modules are called, in order; raises `InputError` for one that is not called exactly once, or with other arrays."""
    seen: list[tuple[Place, Any, Any, Call]] = []

    def run(x: Array) -> Any:
        tapped = with_modules(model, {place: _Tap(module_at(model, place), place, seen) for place in places})
        return tapped(x)

    try:
        jax.eval_shape(run, sample if batched else sample[0])
    except (TypeError, ValueError) as error:
        raise InputError(f"The model does not take samples of shape {sample.shape[1:]} ({str(error)[:120]}).") from None
    found = {place: call for place, _, _, call in seen}
    for place in places:
        times = sum(place == other for other, *_ in seen)
        if times != 1:
            raise InputError(f"{name_of(place)} is called {times} times in one pass; it can be quantised where that is once.")
        if any(eqx.is_array(leaf) for leaf in jax.tree.leaves(found[place])):
            raise InputError(f"{name_of(place)} is called with more than one array, so that it is no layer or block by itself.")
    return found


def passed(model: PyTree, place: Place, x: Samples, batched: bool, size: int = 256) -> tuple[Samples, Samples]:
    """Inputs and outputs of a module for these samples, in parts of `size`."""
    parts = [_passed(model, place, x[start : start + size], batched) for start in range(0, len(x), size)]
    inputs, outputs = zip(*parts, strict=True)
    return jnp.concatenate(inputs), jnp.concatenate(outputs)


@eqx.filter_jit
def _passed(model: PyTree, place: Place, x: Samples, batched: bool) -> tuple[Samples, Samples]:
    def run(x: Array) -> tuple[Array, Array]:
        seen: list[tuple[Place, Any, Any, Call]] = []
        with_modules(model, {place: _Tap(module_at(model, place), place, seen)})(x)
        return seen[0][1], seen[0][2]

    try:
        return run(x) if batched else jax.vmap(run)(x)
    except jax.errors.UnexpectedTracerError:
        raise InputError(
            f"{name_of(place)} is called within a transformation of the model's own; quantise by block instead."
        ) from None


@eqx.filter_jit
def outputs(model: PyTree, x: Samples, batched: bool) -> Samples:
    """What the model answers."""
    return model(x) if batched else jax.vmap(model)(x)


def second_moment(layer: Any, x: Samples, batched: bool, size: int = 64) -> Float[np.ndarray, "in in"]:
    """X^T X of what a layer's weights are multiplied with, patches of a convolution included; float64.

    The layer with an identity in place of its weights puts these out. Raises `InputError` for a layer that cannot.
    """
    w = layer.weight
    count = int(np.prod(w.shape[1:]))
    eye = eqx.tree_at(lambda module: module.weight, layer, jnp.eye(count, dtype=w.dtype).reshape(count, *w.shape[1:]))
    if getattr(layer, "bias", None) is not None:
        eye = eqx.tree_at(lambda module: module.bias, eye, jnp.zeros((), w.dtype))
    total = np.zeros((count, count))
    for start in range(0, len(x), size):
        try:
            seen = np.asarray(outputs(eye, x[start : start + size], batched), np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"The inputs of this layer's weights cannot be told apart ({str(error)[:100]}).") from None
        axis = 1 if w.ndim > 2 else -1
        flat = np.moveaxis(seen, axis, -1).reshape(-1, count)
        total += flat.T @ flat
    return total
