"""Writes tests/references/granet.npz: masks that the official GraNet code makes of given weights and gradients.

    python bench/references_pruning.py FOLDER    the folder CIFAR of github.com/Shiweiliuiiiiiii/GraNet, commit f338a24

It wants a CUDA device; here its tensors stay where they are. Needs torch.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from pathlib import Path

import numpy as np
import torch

SHAPES = {"stem": (16, 3, 3, 3), "middle": (32, 16, 3, 3), "wide": (40, 32), "out": (10, 40)}
SEED, EVERY, LAST, STEPS = 0, 10, 80, 160


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    sys.path.insert(0, str(parser.parse_args().folder))
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor
    from sparselearning.core import CosineDecay, Masking

    rng = np.random.default_rng(SEED)
    model = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in SHAPES.items()})
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    args = argparse.Namespace(
        method="GraNet", sparse_init="ERK", fix=False, update_frequency=EVERY, init_density=0.5, final_density=0.1,
        init_prune_epoch=0, final_prune_epoch=LAST, multiplier=1, rm_first=False,
    )  # fmt: skip
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        masking = Masking(
            optimiser,
            prune_rate=0.5,
            prune_rate_decay=CosineDecay(0.5, STEPS),
            growth_mode="gradient",
            args=args,
            train_loader=[None],
        )
        masking.add_module(model)
    told = dict(re.findall(r"layer: (\w+), .*density: ([\d.e-]+)", said.getvalue()))
    kept = {"erk": np.array([float(told[name]) for name in SHAPES])}
    kept |= {f"first_{name}": masking.masks[name].numpy().astype(bool) for name in SHAPES}
    with contextlib.redirect_stdout(io.StringIO()):
        for event in range(1, 4):
            for name in SHAPES:
                weight = torch.from_numpy(rng.standard_normal(SHAPES[name]).astype(np.float32))
                model[name].data = weight * masking.masks[name]
                model[name].grad = torch.from_numpy(rng.standard_normal(SHAPES[name]).astype(np.float32))
            for _ in range(EVERY):
                masking.prune_rate_decay.step()
            masking.prune_rate = masking.prune_rate_decay.get_dr()
            masking.pruning(event * EVERY)
            kept |= {f"pruned{event}_{name}": masking.masks[name].numpy().astype(bool) for name in SHAPES}
            masking.truncate_weights(event * EVERY)
            kept |= {f"grown{event}_{name}": masking.masks[name].numpy().astype(bool) for name in SHAPES}
            kept[f"share{event}"] = masking.prune_rate
    out = Path(__file__).parent.parent / "tests" / "references" / "granet.npz"
    np.savez_compressed(out, **{name: np.packbits(a) if np.asarray(a).dtype == bool else a for name, a in kept.items()})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
