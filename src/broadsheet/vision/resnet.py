"""Residual networks as torchvision and timm publish them, from their safetensors files, with normalisations folded in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from broadsheet.errors import DataError
from broadsheet.files import load_arrays

IMAGENET_MEAN, IMAGENET_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Residual(eqx.Module):
    """Two or three convolutions and a way around them."""

    convs: tuple[eqx.nn.Conv2d, ...]
    around: eqx.nn.Conv2d | None

    def __call__(self, x: Float[Array, "channels height width"]) -> Float[Array, "out height2 width2"]:
        inner = x
        for k, conv in enumerate(self.convs):
            inner = conv(jax.nn.relu(inner) if k else inner)
        return jax.nn.relu(inner + (x if self.around is None else self.around(x)))


class ImageResNet(eqx.Module):
    """He et al. (2016) for one image, (channels, height, width), normalised as it was trained.

    Made by `read_resnet`. A 7x7 stem halves the side and is pooled; a 3x3 stem, as for CIFAR, does neither.
    """

    stem: eqx.nn.Conv2d
    blocks: tuple[Residual, ...]
    fc: eqx.nn.Linear

    def __call__(self, x: Float[Array, "channels height width"]) -> Float[Array, " classes"]:
        x = jax.nn.relu(self.stem(x))
        if self.stem.kernel_size == (7, 7):
            x = eqx.nn.MaxPool2d(3, 2, padding=1)(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean(axis=(1, 2)))


def read_resnet(path: str | Path) -> ImageResNet:
    """The network of a safetensors file with torchvision's names (`layer1.0.conv1.weight`, …): ResNet-18 to 152, timm's and
    CIFAR's too.

    **Raises:** `DataError` where the file holds another network.
    """
    arrays = load_arrays(path)
    try:
        stem_side = arrays["conv1.weight"].shape[-1]
        stem = _folded(arrays, "conv1", "bn1", 2 if stem_side == 7 else 1)
        blocks = tuple(_block(arrays, stage, k) for stage in range(1, 5) for k in range(_count(arrays, stage)))
        weight, bias = jnp.asarray(arrays["fc.weight"]), jnp.asarray(arrays["fc.bias"])
    except KeyError as error:
        raise DataError(f"{path} is no residual network with torchvision's names: it has no {error.args[0]}.") from None
    used = re.compile(r"(conv1|bn1|fc|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01]))\.\w+$")
    unknown = [name for name in arrays if not used.match(name)]
    if unknown or not blocks:
        raise DataError(f"{path} is no residual network with torchvision's names: it has {(unknown or ['no blocks'])[0]}.")
    if not all(np.isfinite(each).all() for each in arrays.values()):
        raise DataError(f"{path} holds weights that are not finite.")
    fc = eqx.nn.Linear(weight.shape[1], weight.shape[0], key=jax.random.key(0))
    return ImageResNet(stem, blocks, eqx.tree_at(lambda layer: (layer.weight, layer.bias), fc, (weight, bias)))


def _count(arrays: Mapping[str, np.ndarray], stage: int) -> int:
    found = {int(m[1]) for name in arrays if (m := re.match(rf"layer{stage}\.(\d+)\.conv1\.weight$", name))}
    return max(found) + 1 if found else 0


def _block(arrays: Mapping[str, np.ndarray], stage: int, k: int) -> Residual:
    place, stride = f"layer{stage}.{k}", 2 if stage > 1 and k == 0 else 1
    count = 3 if f"{place}.conv3.weight" in arrays else 2
    at = 1 if count == 3 else 0  # the strided convolution is the 3x3 one of a bottleneck
    convs = [
        _folded(arrays, f"{place}.conv{n + 1}", f"{place}.bn{n + 1}", stride if n == at else 1) for n in range(count)
    ]  # fmt: skip
    has_way = f"{place}.downsample.0.weight" in arrays
    around = _folded(arrays, f"{place}.downsample.0", f"{place}.downsample.1", stride) if has_way else None
    return Residual(tuple(convs), around)


def _folded(arrays: Mapping[str, np.ndarray], conv: str, norm: str, stride: int) -> eqx.nn.Conv2d:
    """A convolution and the normalisation behind it, by its stored statistics, as one convolution with a bias."""
    weight = arrays[f"{conv}.weight"].astype(np.float32)
    out, channels, side, _ = weight.shape
    scale = arrays[f"{norm}.weight"] / np.sqrt(arrays[f"{norm}.running_var"] + 1e-5)
    bias = arrays[f"{norm}.bias"] - arrays[f"{norm}.running_mean"] * scale
    made = eqx.nn.Conv2d(channels, out, side, stride, padding=side // 2, key=jax.random.key(0))
    new = (jnp.asarray(weight * scale[:, None, None, None]), jnp.asarray(bias.reshape(-1, 1, 1)))
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), made, new)
