"""Networks of a vector and a time: dense layers, and a U-Net where the vector is an image."""

from __future__ import annotations

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.errors import InputError

WAVES = 4
"""Frequencies of the time that a network sees."""


def time_features(t: Float[Array, ""]) -> Float[Array, " features"]:
    """Of a time in (0, 1]: its logarithm, sines and cosines."""
    phases = jnp.pi * 2.0 ** jnp.arange(WAVES) * t
    return jnp.concatenate([jnp.log(t)[None] / 3, jnp.sin(phases), jnp.cos(phases)])


class TimedMLP(eqx.Module):
    """Dense layers with SiLU between: (d,) and () to (d,)."""

    layers: tuple[eqx.nn.Linear, ...]

    def __init__(self, d: int, hidden: int, depth: int, *, key: PRNGKeyArray) -> None:
        sizes = (d + 2 * WAVES + 1, *(hidden,) * depth, d)
        keys = jax.random.split(key, depth + 1)
        self.layers = tuple(eqx.nn.Linear(a, b, key=k) for (a, b), k in zip(pairwise(sizes), keys, strict=True))

    def __call__(self, x: Float[Array, " d"], t: Float[Array, ""]) -> Float[Array, " d"]:
        x = jnp.concatenate([x, time_features(t)])
        for layer in self.layers[:-1]:
            x = jax.nn.silu(layer(x))
        return self.layers[-1](x)


class _Block(eqx.Module):
    """Two convolutions with the time between them, beside a shortcut."""

    first: eqx.nn.Conv2d
    second: eqx.nn.Conv2d
    norms: tuple[eqx.nn.GroupNorm, eqx.nn.GroupNorm]
    time: eqx.nn.Linear
    shortcut: eqx.nn.Conv2d

    def __init__(self, inputs: int, outputs: int, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key, 4)
        self.first = eqx.nn.Conv2d(inputs, outputs, 3, padding=1, key=keys[0])
        self.second = eqx.nn.Conv2d(outputs, outputs, 3, padding=1, key=keys[1])
        self.norms = (eqx.nn.GroupNorm(min(8, outputs), outputs), eqx.nn.GroupNorm(min(8, outputs), outputs))
        self.time = eqx.nn.Linear(2 * WAVES + 1, outputs, key=keys[2])
        self.shortcut = eqx.nn.Conv2d(inputs, outputs, 1, key=keys[3])

    def __call__(self, x: Float[Array, "c h w"], features: Float[Array, " f"]) -> Float[Array, "d h w"]:
        h = jax.nn.silu(self.norms[0](self.first(x)) + self.time(features)[:, None, None])
        return self.shortcut(x) + jax.nn.silu(self.norms[1](self.second(h)))


class TimedUNet(eqx.Module):
    """A U-Net of images that come as rows, channels last: (height * width * channels,) and () to the same.

    **Arguments:** `shape`: (height, width, channels), sides that halve once for each width but the first; `widths`: channels by
    level, multiples of 8 or below it.
    """

    down: tuple[_Block, ...]
    up: tuple[_Block, ...]
    out: eqx.nn.Conv2d
    shape: tuple[int, int, int] = eqx.field(static=True)

    def __init__(self, shape: tuple[int, int, int], widths: tuple[int, ...] = (32, 64, 128), *, key: PRNGKeyArray) -> None:
        height, width, channels = shape
        halved = 2 ** (len(widths) - 1)
        if height % halved or width % halved:
            raise InputError(f"Images of {height} x {width} cannot be halved {len(widths) - 1} times; take fewer widths.")
        keys = iter(jax.random.split(key, 2 * len(widths)))
        inputs = (channels, *widths[:-1])
        self.down = tuple(_Block(a, b, next(keys)) for a, b in zip(inputs, widths, strict=True))
        self.up = tuple(_Block(a + b, b, next(keys)) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.out = eqx.nn.Conv2d(widths[0], channels, 1, key=next(keys))
        self.shape = shape

    def __call__(self, x: Float[Array, " d"], t: Float[Array, ""]) -> Float[Array, " d"]:
        features = time_features(t)
        h, kept = jnp.moveaxis(x.reshape(self.shape), 2, 0), []
        for level, block in enumerate(self.down):
            if level:
                h = h.reshape(len(h), h.shape[1] // 2, 2, h.shape[2] // 2, 2).mean(axis=(2, 4))
            h = block(h, features)
            kept.append(h)
        for block, skip in zip(self.up, kept[-2::-1], strict=True):
            h = block(jnp.concatenate([jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2), skip]), features)
        return jnp.moveaxis(self.out(h), 0, 2).ravel()


def timed_net(d: int, hidden: int, depth: int, shape: tuple[int, int, int] | None, key: PRNGKeyArray) -> TimedMLP | TimedUNet:
    """Dense layers of d numbers, or for images of a shape a U-Net whose first level has `hidden` channels and which has `depth`
    levels, each of twice as many."""
    if shape is None:
        return TimedMLP(d, hidden, depth, key=key)
    if shape[0] * shape[1] * shape[2] != d:
        raise InputError(f"Rows of {d} numbers are no images of {shape[0]} x {shape[1]} x {shape[2]}.")
    return TimedUNet(shape, tuple(hidden * 2**level for level in range(depth)), key=key)
