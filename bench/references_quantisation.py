"""Traces that the official code of FlexRound makes of small matrices, kept as tests/references/flexround_linear.npz for the tests.

git clone https://github.com/onliwad101/FlexRound_LRQ && python bench/references_quantisation.py FlexRound_LRQ/quant
"""

import sys
from pathlib import Path

import numpy as np
import torch

FILE = Path(__file__).parent.parent / "tests" / "references" / "flexround_linear.npz"


def main(folder):
    """For a matrix and moved factors: the step and the zero point found, the output on inputs, and the derivatives."""
    sys.path.insert(0, folder)
    from UniformAffineQuantizer import UniformAffineQuantizer

    torch._aminmax = lambda x, *dim: tuple(torch.aminmax(x, dim=dim[0]) if dim else torch.aminmax(x))
    made = {}
    for name, bits, symmetric, clipping in (
        ("asymmetric4", 4, False, True),
        ("asymmetric3", 3, False, True),
        ("whole4", 4, False, False),
        ("symmetric3", 3, True, False),
        ("symmetric2", 2, True, False),
    ):
        rng = np.random.default_rng(bits)
        weights, inputs = (torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) for shape in ((6, 10), (5, 10)))
        theirs = UniformAffineQuantizer(
            n_bits=bits, symmetric=symmetric, clipping=clipping, channel_wise=True, mode="flexround", org_weight=weights
        )
        made |= {f"{name}.weights": weights, f"{name}.inputs": inputs, f"{name}.zero": theirs.zero_point}
        made[f"{name}.delta"] = theirs.delta
        with torch.no_grad():
            theirs.delta1 += torch.from_numpy(rng.normal(0, 0.1, theirs.delta1.shape).astype(np.float32))
            theirs.delta2 += torch.from_numpy(rng.normal(0, 0.2, theirs.delta2.shape).astype(np.float32))
            theirs.delta3 += torch.from_numpy(rng.normal(0, 0.1, theirs.delta3.shape).astype(np.float32))
        out = torch.nn.functional.linear(inputs, theirs(weights))
        out.square().sum().backward()
        made[f"{name}.out"] = out
        for k in (1, 2, 3):
            delta = getattr(theirs, f"delta{k}")
            made |= {f"{name}.delta{k}": delta, f"{name}.gradient{k}": delta.grad}
    np.savez_compressed(FILE, **{name: value.detach().numpy() for name, value in made.items()})
    print(f"{FILE}: {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
