"""Residual networks for small images, with its activations left open (see `broadsheet.conversion.conversion`)."""

from __future__ import annotations

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.conversion.conversion import Activation

Images = Float[Array, "batch channels height width"]
Network = TypeVar("Network", bound=eqx.Module)


class Norm(eqx.Module):
    """Batch normalisation: by the batch's own statistics, or by stored ones once `calibrate_norms` has measured them."""

    gain: Array
    shift: Array
    stored: tuple[Array, Array] | None = None

    def __call__(self, x: Images) -> Images:
        mean, variance = _statistics(x) if self.stored is None else self.stored
        scale = self.gain / jnp.sqrt(variance + 1e-5)
        return x * scale[:, None, None] + (self.shift - mean * scale)[:, None, None]


class _Measured(Norm):
    """A normalisation that stores the statistics of the batch that it sees."""

    def __call__(self, x: Images) -> Images:
        object.__setattr__(self, "stored", _statistics(x))
        return super().__call__(x)


def _statistics(x: Images) -> tuple[Array, Array]:
    return x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))


class Convolution(eqx.Module):
    """A convolution without bias, and the normalisation after it."""

    weight: Array
    norm: Norm
    stride: int = eqx.field(static=True)

    def __init__(self, channels: int, out: int, size: int, stride: int, key: PRNGKeyArray) -> None:
        self.weight = jax.random.normal(key, (out, channels, size, size)) * np.sqrt(2 / (channels * size**2))
        self.norm, self.stride = Norm(jnp.ones(out), jnp.zeros(out)), stride

    def __call__(self, x: Images) -> Array:
        side = self.weight.shape[-1] // 2
        return self.norm(jax.lax.conv_general_dilated(x, self.weight, (self.stride, self.stride), [(side, side)] * 2))


class Block(eqx.Module):
    """Two convolutions and a way around them."""

    first: Convolution
    second: Convolution
    around: Convolution | None

    def __init__(self, channels: int, out: int, stride: int, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key, 3)
        self.first, self.second = Convolution(channels, out, 3, stride, keys[0]), Convolution(out, out, 3, 1, keys[1])
        self.around = Convolution(channels, out, 1, stride, keys[2]) if stride > 1 or channels != out else None


class ResNet(eqx.Module):
    """He et al. (2016) for 32x32 images: a 3x3 stem, stages of blocks, average pooling and a linear read-out.

    **Arguments:** `classes`; `width`: channels of the first stage; each later one has twice as many and half the side;
    `blocks`: of each stage. The defaults are ResNet-18.
    """

    stem: Convolution
    blocks: tuple[Block, ...]
    weight: Array
    bias: Array

    def __init__(self, classes: int, *, width: int = 64, blocks: tuple[int, ...] = (2, 2, 2, 2), key: PRNGKeyArray) -> None:
        self.stem = Convolution(3, width, 3, 1, jax.random.fold_in(key, 0))
        made: list[Block] = []
        channels = width
        for stage, count in enumerate(blocks):
            for k in range(count):
                made.append(
                    Block(channels, width * 2**stage, 2 if stage and not k else 1, jax.random.fold_in(key, 1 + len(made)))
                )
                channels = width * 2**stage
        self.blocks = tuple(made)
        self.weight = jax.random.normal(jax.random.fold_in(key, 1 + len(made)), (classes, channels)) / np.sqrt(channels)
        self.bias = jnp.zeros(classes)

    def __call__(self, x: Images, activate: Activation) -> Float[Array, "batch classes"]:
        x = activate(0, self.stem(x))
        for k, block in enumerate(self.blocks):
            inner = block.second(activate(2 * k + 1, block.first(x)))
            x = activate(2 * k + 2, inner + (x if block.around is None else block.around(x)))
        return x.mean(axis=(2, 3)) @ self.weight.T + self.bias


def calibrate_norms(net: Network, x: Images) -> Network:
    """The network, a function of images, with the statistics of these stored in its normalisations.

    Spiking networks need that: statistics of a batch would tie the samples of one step together.
    """

    def norms(tree: Any) -> list[Norm]:
        found = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Norm))
        return [node for node in found if isinstance(node, Norm)]

    measured = [_Measured(norm.gain, norm.shift) for norm in norms(net)]
    watched = eqx.tree_at(norms, net, measured)
    watched(x)
    stored = [Norm(norm.gain, norm.shift, norm.stored) for norm in norms(watched)]
    return eqx.tree_at(norms, net, stored)
