"""Networks from images of cells to tractions, or to what the mechanics of the sheet needs: U-Net, PBNN and GFNN.

Images are (cells, height, width, channels) in here. Depthwise convolutions go through the Fourier transform, where on CPUs a
grouped one takes 20 to 100 times as long. Structure after the published code of arXiv 2303.00176, with a normalisation over
each image in place of that over batches, which does not work with a batch of one cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.fft import next_fast_len

from broadsheet.learn.layers import Dense

Images = Float[Array, "cells _ _ _"]


def gelu(x: Array) -> Array:
    """x times the normal distribution up to x; with erf, which CPUs compute faster than the erfc of `jax.nn.gelu`."""
    return 0.5 * x * (1 + jax.lax.erf(x * np.float32(np.sqrt(0.5))))


class Depthwise(eqx.Module):
    """A k x k convolution of each channel by itself, as large as what goes in; a single channel goes into many."""

    weight: Float[Array, "k k channels"]
    bias: Float[Array, " channels"]
    edge: bool = eqx.field(static=True)

    def __init__(self, rng: np.random.Generator, channels: int, kernel: int, edge: bool = False):
        self.weight = jnp.asarray(rng.uniform(-1 / kernel, 1 / kernel, (kernel, kernel, channels)), jnp.float32)
        self.bias = jnp.zeros(channels)
        self.edge = edge

    def __call__(self, x: Images) -> Images:
        kernel, (height, width) = self.weight.shape[0], x.shape[1:3]
        before = kernel // 2
        if self.edge:
            x = jnp.pad(x, ((0, 0), (before, before), (before, before), (0, 0)), mode="edge")
        sides = tuple(next_fast_len(side + kernel - 1, real=True) for side in x.shape[1:3])
        modes = jnp.fft.rfft2(x, sides, axes=(1, 2)) * jnp.fft.rfft2(self.weight[::-1, ::-1], sides, axes=(0, 1))
        first = kernel - 1 if self.edge else kernel - 1 - before
        whole = jnp.fft.irfft2(modes, sides, axes=(1, 2))
        return whole[:, first : first + height, first : first + width] + self.bias


class Convolution(eqx.Module):
    """A dense convolution; its stride is 1 with zeros around, or the kernel's size without."""

    weight: Float[Array, "k k in out"]
    bias: Float[Array, " out"]
    patches: bool = eqx.field(static=True)

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int, kernel: int, patches: bool = False):
        bound = 1 / np.sqrt(inputs * kernel**2)
        self.weight = jnp.asarray(rng.uniform(-bound, bound, (kernel, kernel, inputs, outputs)), jnp.float32)
        self.bias = jnp.zeros(outputs)
        self.patches = patches

    def __call__(self, x: Images) -> Images:
        kernel = self.weight.shape[0]
        if self.patches:
            cells, height, width, channels = x.shape
            rows, columns = height // kernel, width // kernel
            x = x[:, : rows * kernel, : columns * kernel].reshape(cells, rows, kernel, columns, kernel, channels)
            return jnp.einsum("nykxlc,klcd->nyxd", x, self.weight) + self.bias
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, self.weight, (1, 1), "SAME", dimension_numbers=numbers) + self.bias


class ImageNorm(eqx.Module):
    """Zero mean, unit variance over all of an image, then scaled and shifted by channel: an empty background stays quiet."""

    weight: Float[Array, " channels"]
    bias: Float[Array, " channels"]

    def __init__(self, channels: int):
        self.weight, self.bias = jnp.ones(channels), jnp.zeros(channels)

    def __call__(self, x: Images) -> Images:
        return jax.nn.standardize(x, axis=(1, 2, 3), epsilon=1e-5) * self.weight + self.bias


class ConvNext(eqx.Module):
    """Depthwise k x k, to `factor` times the channels, GELU or sine, back; added to what goes in, or not."""

    depthwise: Depthwise
    norm: ImageNorm | None
    up: Dense
    down: Dense
    sine: bool = eqx.field(static=True)

    def __init__(
        self, rng: np.random.Generator, channels: int, kernel: int = 7, factor: int = 4, sine: bool = False,
    ):  # fmt: skip
        self.depthwise = Depthwise(rng, channels, kernel, edge=sine)
        self.norm = None if sine else ImageNorm(channels)
        self.up, self.down = Dense(rng, channels, factor * channels), Dense(rng, factor * channels, channels)
        self.sine = sine

    def __call__(self, x: Images) -> Images:
        y = self.depthwise(x)
        y = self.up(y if self.norm is None else self.norm(y))
        if self.sine:
            return self.down(jnp.sin(y))
        return x + self.down(gelu(y))


class Stack(eqx.Module):
    """A convolution 3 x 3, blocks, and another one."""

    first: Convolution
    blocks: tuple[ConvNext, ...]
    last: Convolution

    def __init__(self, rng: np.random.Generator, inputs: int, channels: int, outputs: int, blocks: int, factor: int = 4):
        self.first = Convolution(rng, inputs, channels, 3)
        self.blocks = _blocks(rng, channels, blocks, factor=factor)
        self.last = Convolution(rng, channels, outputs, 3)

    def __call__(self, x: Images) -> Images:
        return self.last(_through(self.blocks, self.first(x)))


def _blocks(rng: np.random.Generator, channels: int, count: int, kernel: int = 7, factor: int = 4) -> tuple[ConvNext, ...]:
    return tuple(ConvNext(rng, channels, kernel, factor) for _ in range(count))


def _through(blocks: Sequence[ConvNext], x: Images) -> Images:
    for block in blocks:
        x = block(x)
    return x


class Level(eqx.Module):
    """One size of the U-Net: blocks on the way down, beside, and on the way up."""

    beside: tuple[ConvNext, ...]
    down: tuple[ConvNext, ...]
    shrink: Convolution
    up: tuple[ConvNext, ...]
    join: Convolution


class UNet(eqx.Module):
    """The ConvNext U-Net of the paper: at each stage `stride` times smaller and with twice the channels."""

    head: Stack
    levels: tuple[Level, ...]
    bottom: tuple[ConvNext, ...]
    tail: Stack
    stride: int = eqx.field(static=True)

    def __init__(
        self, rng: np.random.Generator, inputs: int, outputs: int = 2, *, channels: int = 4, stages: int = 3, blocks: int = 4,
        stride: int = 4, tail_factor: int = 8,
    ):  # fmt: skip
        self.head = Stack(rng, inputs, channels, channels, blocks)
        levels, c = [], channels
        for _ in range(stages):
            levels.append(Level(
                beside=_blocks(rng, c, blocks), down=_blocks(rng, c, blocks), shrink=Convolution(rng, c, 2 * c, stride, True),
                up=_blocks(rng, 3 * c, blocks), join=Convolution(rng, 3 * c, c, 3),
            ))  # fmt: skip
            c *= 2
        self.levels, self.bottom = tuple(levels), _blocks(rng, c, blocks)
        self.tail = Stack(rng, channels, channels, outputs, blocks, tail_factor)
        self.stride = stride

    def __call__(self, x: Images) -> Images:
        x, kept = self.head(x), []
        for level in self.levels:
            kept.append(_through(level.beside, x))
            x = gelu(level.shrink(_through(level.down, x)))
        x = _through(self.bottom, x)
        for level, beside in zip(self.levels[::-1], kept[::-1], strict=True):
            x = jnp.repeat(jnp.repeat(x, self.stride, axis=1), self.stride, axis=2)
            x = level.join(_through(level.up, jnp.concatenate([x, beside], axis=-1)))
        return self.tail(x)


class SheetNet(eqx.Module):
    """From an image to what the elastic sheet needs: log stiffness of each pixel, and log sigma_a and log alpha of the cell.

    Blocks at full size beside blocks at a quarter of it; the two numbers come from the means of the latter over the cell.
    """

    first: Convolution
    fine: tuple[ConvNext, ...]
    shrink: Convolution
    coarse: tuple[ConvNext, ...]
    join: Convolution
    scalars: tuple[Dense, Dense]

    def __init__(
        self,
        rng: np.random.Generator,
        inputs: int,
        *,
        channels: int = 32,
        blocks: int = 2,
        kernel: int = 15,
        start: float = -4.0,
    ):
        self.first = Convolution(rng, inputs, channels, 5)
        self.fine = _blocks(rng, channels, blocks, kernel)
        self.shrink = Convolution(rng, channels, 2 * channels, 4, True)
        self.coarse = _blocks(rng, 2 * channels, blocks, kernel)
        join = Convolution(rng, 3 * channels, 1, 5)
        self.join = eqx.tree_at(lambda layer: layer.bias, join, jnp.full(1, start))
        self.scalars = (Dense(rng, 2 * channels, 32), Dense(rng, 32, 2))

    def __call__(self, x: Images, mask: Float[Array, "cells height width"]) -> tuple[Array, Array]:
        """Log stiffness (cells, height, width) and the cells' two logarithms (cells, 2)."""
        x = jax.nn.relu(self.first(x))
        small = _through(self.coarse, gelu(self.shrink(x)))
        large = jnp.repeat(jnp.repeat(small, 4, axis=1), 4, axis=2)
        field = self.join(jnp.concatenate([_through(self.fine, x), large], axis=-1))[..., 0]
        share = mask.reshape(len(mask), mask.shape[1] // 4, 4, mask.shape[2] // 4, 4).mean(axis=(2, 4))
        mean = (small * share[..., None]).sum(axis=(1, 2)) / share.sum(axis=(1, 2))[:, None]
        return field, self.scalars[1](jax.nn.relu(self.scalars[0](mean)))


class GreensNet(eqx.Module):
    """Three scalar sources of the image, each convolved with a learned kernel; F = grad phi + psi grad chi (Clebsch).

    `kernels`: `"modes"`, a complex number for each Fourier mode, as published; `"radial"`, real and the same in all directions;
    or `"none"`: the same network with no reach beyond its convolutions.
    """

    sources: tuple[ConvNext, ...]
    widen: Convolution
    heads: Dense
    log_kernel: Float[Array, "3 2 modes_y modes_x"] | Float[Array, "3 bins"]
    sign: Float[Array, " 3"]
    kernels: Literal["modes", "radial", "none"] = eqx.field(static=True)

    def __init__(
        self, rng: np.random.Generator, inputs: int, size: tuple[int, int], *, channels: int = 64,
        kernels: Literal["modes", "radial", "none"] = "modes",
    ):  # fmt: skip
        self.widen = Convolution(rng, inputs, channels, 3)
        self.sources = tuple(ConvNext(rng, channels, 3, sine=True) for _ in range(2))
        self.heads = Dense(rng, channels, 3)
        rows, columns = 2 * size[0], size[1] + 1
        shape = {"modes": (3, 2, rows, columns), "radial": (3, max(size) + 1), "none": (3, 1)}[kernels]
        self.log_kernel = jnp.asarray(0.05 * rng.standard_normal(shape), jnp.float32)
        self.sign = jnp.ones(3)
        self.kernels = kernels

    def transfer(self, size: tuple[int, int]) -> Array:
        """G(q) of the three kernels on the modes of images of twice the size."""
        if self.kernels == "modes":
            return jnp.exp(self.log_kernel[:, 0]) * jnp.exp(1j * self.log_kernel[:, 1])
        modes = (3, 2 * size[0], size[1] + 1)
        if self.kernels == "none":
            return jnp.broadcast_to((self.sign * jnp.exp(self.log_kernel[:, 0]))[:, None, None], modes).astype(jnp.complex64)
        qy, qx = _wavenumbers(size)
        radius = jnp.minimum(jnp.hypot(qy, qx) * 2 * max(size), self.log_kernel.shape[1] - 1.001)
        at = jnp.floor(radius).astype(int)
        low, high = self.log_kernel[:, at], self.log_kernel[:, at + 1]
        return (self.sign[:, None, None] * jnp.exp(low + (radius - at) * (high - low))).astype(jnp.complex64)

    def scalars(self, x: Images) -> Float[Array, "cells 3 height width"]:
        """The sources."""
        return jnp.moveaxis(self.heads(_through(self.sources, self.widen(x))), -1, 1)

    def __call__(self, x: Images) -> Images:
        size = (x.shape[1], x.shape[2])
        sources = self.scalars(x)
        sides = (2 * size[0], 2 * size[1])
        modes = jnp.fft.rfft2(sources, sides) * self.transfer(size)
        qy, qx = _wavenumbers(size)
        slope = 2j * jnp.pi * jnp.stack(jnp.broadcast_arrays(qx, qy))[:, None]

        def back(values):
            return jnp.fft.irfft2(values, sides)[..., : size[0], : size[1]]

        grad_phi, grad_chi = jnp.moveaxis(back(slope * modes[:, None, 0::2]), 2, 0)
        force = grad_phi + back(modes[:, 1:2]) * grad_chi
        return jnp.moveaxis(force, 1, -1)


def _wavenumbers(size: tuple[int, int]) -> tuple[Array, Array]:
    """Cycles a pixel of each mode of images of twice the size; the last of an even side has no slope."""
    qy, qx = jnp.fft.fftfreq(2 * size[0])[:, None], jnp.fft.rfftfreq(2 * size[1])[None]
    return jnp.where(jnp.abs(qy) == 0.5, 0.0, qy), jnp.where(qx == 0.5, 0.0, qx)
