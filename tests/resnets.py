"""Residual networks with random weights, in files like torchvision's."""

import numpy as np
from safetensors.numpy import save_file


def write_resnet(path, *, side: int, bottleneck: bool, blocks=(1, 2), classes=5, seed=0) -> dict[str, np.ndarray]:
    """Random weights with the names and shapes of torchvision's networks."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}

    def conv(name, out, channels, size):
        arrays[f"{name}.weight"] = (rng.normal(size=(out, channels, size, size)) / np.sqrt(channels * size**2)).astype("f4")

    def norm(name, out):
        for part, low, high in (("weight", 0.5, 1.5), ("bias", -1, 1), ("running_mean", -1, 1), ("running_var", 0.5, 2)):
            arrays[f"{name}.{part}"] = rng.uniform(low, high, out).astype("f4")
        arrays[f"{name}.num_batches_tracked"] = np.array(7)

    conv("conv1", 4, 3, side)
    norm("bn1", 4)
    channels = 4
    for stage, count in enumerate(blocks, 1):
        width = 4 * 2 ** (stage - 1)
        out = 4 * width if bottleneck else width
        for k in range(count):
            place = f"layer{stage}.{k}"
            shapes = [(width, channels, 1), (width, width, 3), (out, width, 1)] if bottleneck else [
                (width, channels, 3), (width, width, 3)]  # fmt: skip
            for n, shape in enumerate(shapes, 1):
                conv(f"{place}.conv{n}", *shape)
                norm(f"{place}.bn{n}", shape[0])
            if channels != out or (stage > 1 and k == 0):
                conv(f"{place}.downsample.0", out, channels, 1)
                norm(f"{place}.downsample.1", out)
            channels = out
    arrays |= {"fc.weight": rng.normal(size=(classes, channels)).astype("f4"), "fc.bias": rng.normal(size=classes).astype("f4")}
    save_file(arrays, path)
    return arrays
