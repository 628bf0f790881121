"""What the official quantiser of FlexRound gives, for tests/references/flexround.npz.

    python bench/references_rounding.py FOLDER_OF_THE_OFFICIAL_CODE

Needs torch. Random weights, learned numbers that are not those of the start, and a random function of what comes out; forward
values and derivatives in float32.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parent.parent / "tests" / "references" / "flexround.npz"


def main(folder: str) -> None:
    sys.path.insert(0, folder)
    import torch
    from quant.UniformAffineQuantizer import UniformAffineQuantizer

    rng = np.random.default_rng(0)
    w, outer = rng.normal(0.1, 1, (6, 40)).astype(np.float32), rng.normal(size=(6, 40)).astype(np.float32)
    made = {"w": w, "outer": outer}
    for name, symmetric in (("asymmetric", False), ("symmetric", True)):
        quantizer = UniformAffineQuantizer(
            n_bits=3, symmetric=symmetric, clipping=True, channel_wise=True, mode="flexround", org_weight=torch.tensor(w)
        )
        with torch.no_grad():
            quantizer.delta2 += torch.tensor(rng.normal(0, 0.2, w.shape).astype(np.float32))
            quantizer.delta3 += torch.tensor(rng.normal(0, 0.2, (6, 1)).astype(np.float32))
        found = quantizer(torch.tensor(w))
        (torch.tensor(outer) * found).sum().backward()
        made |= {
            f"{name}_step": quantizer.delta.numpy(),
            f"{name}_zero": quantizer.zero_point.numpy(),
            f"{name}_delta2": quantizer.delta2.detach().numpy(),
            f"{name}_delta3": quantizer.delta3.detach().numpy(),
            f"{name}_quantised": found.detach().numpy(),
            **{f"{name}_grad{k}": getattr(quantizer, f"delta{k}").grad.numpy() for k in (1, 2, 3)},
        }
    np.savez(TARGET, **made)


if __name__ == "__main__":
    main(sys.argv[1])
