"""Layers of networks; their weights are drawn on the host, so that a new model compiles nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Dense(eqx.Module):
    """x W^T + b over the last axis; uniform weights within 1 / sqrt(inputs), or Glorot's with `xavier`."""

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"]

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int, xavier: bool = False):
        bound = math.sqrt(6 / (inputs + outputs)) if xavier else 1 / math.sqrt(inputs)
        self.weight = jnp.asarray(rng.uniform(-bound, bound, (outputs, inputs)), float)
        self.bias = jnp.zeros(outputs)

    def __call__(self, x: Float[Array, "*shape in"]) -> Float[Array, "*shape out"]:
        return x @ self.weight.T + self.bias


class RMSNorm(eqx.Module):
    """x / sqrt(mean(x^2) + machine epsilon), scaled."""

    weight: Float[Array, " width"]

    def __init__(self, width: int):
        self.weight = jnp.ones(width)

    def __call__(self, x: Float[Array, "*shape width"]) -> Float[Array, "*shape width"]:
        square = jnp.mean(x**2, axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(square + jnp.finfo(jnp.float32).eps) * self.weight


class LayerNorm(eqx.Module):
    """Zero mean, unit variance over the last axis, then scaled and shifted."""

    weight: Float[Array, " width"]
    bias: Float[Array, " width"]

    def __init__(self, width: int):
        self.weight, self.bias = jnp.ones(width), jnp.zeros(width)

    def __call__(self, x: Float[Array, "*shape width"]) -> Float[Array, "*shape width"]:
        return jax.nn.standardize(x, axis=-1, epsilon=1e-5) * self.weight + self.bias


class FeedForward(eqx.Module):
    """Dense, GELU, Dense."""

    up: Dense
    down: Dense

    def __init__(self, rng: np.random.Generator, width: int, multiplier: int, xavier: bool = False):
        self.up = Dense(rng, width, multiplier * width, xavier)
        self.down = Dense(rng, multiplier * width, width, xavier)

    def __call__(self, x: Float[Array, "*shape width"]) -> Float[Array, "*shape width"]:
        return self.down(gelu(self.up(x)))


class TwoLayers(eqx.Module):
    """Dense, a nonlinearity, dense; Glorot's weights."""

    first: Dense
    second: Dense
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, outputs: int, activation: Callable[[Array], Array]):
        self.first, self.second = Dense(rng, inputs, hidden, xavier=True), Dense(rng, hidden, outputs, xavier=True)
        self.activation = activation

    def __call__(self, x: Float[Array, "*shape in"]) -> Float[Array, "*shape out"]:
        return self.second(self.activation(self.first(x)))


def gelu(x: Array) -> Array:
    """The exact GELU, by the error function."""
    return jax.nn.gelu(x, approximate=False)


def stacked(modules: list[Any]) -> Any:
    """Modules of one shape as one, along a new first axis of their weights."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *modules)
