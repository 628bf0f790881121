"""Writes tests/references/traction_nets.npz: what the published networks make of given weights and images.

    python bench/references_traction.py UNET GFNN    folders of github.com/schmittms/cell_force_prediction and
                                                     github.com/jcolen/cell_force_gfnn

Of the U-Net its blocks, its step down and the whole, of the Green's function network the whole. The whole U-Net is run with no
normalisation, where ours is over images and theirs over batches. Needs torch; modules for logs and pictures are not used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

TARGET = Path(__file__).parent.parent / "tests" / "references" / "traction_nets.npz"
UNUSED = ("pandas", "matplotlib", "matplotlib.pyplot", "matplotlib.colors", "torch.utils.tensorboard", "torchvision",
          "torchvision.transforms", "gfnn_data_processing", "utils.plot", "utils.loss")  # fmt: skip
CHANNELS, STAGES, BLOCKS, SIDE = 2, 2, 1, 16


def drawn(module: torch.nn.Module, rng: np.random.Generator, scale: float = 0.3) -> dict[str, np.ndarray]:
    """Gives a module weights of its own, which are returned by name."""
    told = {}
    for name, weight in module.named_parameters():
        if name == "q":
            continue
        value = scale * rng.normal(size=weight.shape)
        if weight.is_complex():
            value = value + 1j * scale * rng.normal(size=weight.shape)
        weight.data = torch.as_tensor(value).to(weight.dtype)
        told[name] = weight.detach().numpy()
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("unet", type=Path)
    parser.add_argument("gfnn", type=Path)
    given = parser.parse_args()
    sys.path[:0] = [str(given.unet), str(given.gfnn)]
    for name in UNUSED:
        sys.modules[name] = MagicMock()
    from gfnn_models import ClebschGFNN, ConvBlock
    from utils.base_layers import ConvNextCell
    from utils.UNeXt import UNet

    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}

    block = ConvNextCell(3, kernel=7, batchnorm=False)
    image = rng.normal(size=(2, 3, 9, 8)).astype(np.float32)
    made |= {f"block/{name}": value for name, value in drawn(block, rng).items()}
    made |= {"block_in": image, "block_out": block(torch.as_tensor(image)).detach().numpy()}

    net = UNet.__new__(UNet)
    torch.nn.Module.__init__(net)
    inner = {"kernel": 7, "batchnorm": False}
    net.make_encoder(CHANNELS, STAGES, BLOCKS, BLOCKS, {"kernel": 4, "batchnorm": False}, inner)
    net.make_decoder(STAGES, BLOCKS, 4, **inner)
    net.make_prepend(1, CHANNELS, CHANNELS, BLOCKS, **inner)
    net.make_append(CHANNELS, CHANNELS, 2, BLOCKS, inv_bottleneck_factor=8, **inner)
    image = rng.normal(size=(2, 1, SIDE, SIDE)).astype(np.float32)
    made |= {f"unet/{name}": value for name, value in drawn(net, rng, 0.2).items()}
    made |= {"unet_in": image, "unet_out": net(torch.as_tensor(image)).detach().numpy()}

    side = 6
    greens = ClebschGFNN(size=(side, side), pad=side)
    greens.conv_in = torch.nn.Sequential(ConvBlock(1, 3, 3), ConvBlock(3, 3, 3), torch.nn.Conv2d(3, 3, kernel_size=1))
    image = rng.normal(size=(2, 1, side, side)).astype(np.float32)
    weights = drawn(greens, rng)
    # kernels that are real in space, and nothing at the modes whose slope has no sign
    kernel = np.fft.fft2(0.1 * rng.normal(size=greens.kernel.shape))
    kernel[:, side], kernel[:, :, side] = -40, -40
    greens.kernel.data = torch.as_tensor(kernel.astype(np.complex64))
    weights["kernel"] = greens.kernel.detach().numpy()
    made |= {f"gfnn/{name}": value for name, value in weights.items()}
    made |= {"gfnn_in": image, "gfnn_out": greens(torch.as_tensor(image)).detach().numpy()}
    np.savez_compressed(TARGET, **made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
