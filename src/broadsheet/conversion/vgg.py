"""VGG networks for small images, with their activations left open (see `broadsheet.conversion.conversion`)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.conversion.conversion import Activation
from broadsheet.conversion.resnet import Convolution, Images

VGG19 = (2, 2, 4, 4, 4)
"""Convolutions of each stage."""


class VGG(eqx.Module):
    """Simonyan and Zisserman (2015) for 32x32 images, with batch normalisation: stages of 3x3 convolutions, each but the last
    ending in maximum pooling over 2x2, then average pooling and a linear read-out.

    **Arguments:** `classes`; `width`: channels of the first stage; each later one has twice as many, up to 8 `width`;
    `stages`: convolutions of each. The defaults are VGG-19.
    """

    stages: tuple[tuple[Convolution, ...], ...]
    weight: Array
    bias: Array

    def __init__(self, classes: int, *, width: int = 64, stages: tuple[int, ...] = VGG19, key: PRNGKeyArray) -> None:
        channels, made = 3, []
        for n, count in enumerate(stages):
            out, stage = width * min(2**n, 8), []
            for k in range(count):
                stage.append(Convolution(channels, out, 3, 1, jax.random.fold_in(key, 100 * n + k)))
                channels = out
            made.append(tuple(stage))
        self.stages = tuple(made)
        last = jax.random.fold_in(key, 100 * len(stages))
        self.weight = jax.random.normal(last, (classes, channels)) / np.sqrt(channels)
        self.bias = jnp.zeros(classes)

    def __call__(self, x: Images, activate: Activation) -> Float[Array, "batch classes"]:
        index = 0
        for n, stage in enumerate(self.stages):
            for convolution in stage:
                x = activate(index, convolution(x))
                index += 1
            if n + 1 < len(self.stages):
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        return x.mean(axis=(2, 3)) @ self.weight.T + self.bias
