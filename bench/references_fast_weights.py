"""Writes tests/references/fast_weights.npz: flash-linear-attention's decayed linear attention and delta rule on a small input.

    bench/.environments/fla/bin/python bench/references_fast_weights.py

The environment is bench/environments/fla.txt; what runs is the package's own PyTorch code.
"""

from pathlib import Path

import numpy as np
import torch
from fla.ops.delta_rule.naive import delta_rule_recurrence
from fla.ops.simple_gla.naive import naive_recurrent_simple_gla

LAM = 0.9

rng = np.random.default_rng(0)
k, q, v = (rng.standard_normal((1, 2, 20, 4)).astype(np.float32) for _ in range(3))
k /= np.linalg.norm(k, axis=-1, keepdims=True)
r = rng.random((1, 2, 20)).astype(np.float32)
given = [torch.from_numpy(x) for x in (q, k, v, r)]
decay = torch.full((1, 20, 2), float(np.log(LAM)))
attended, _ = naive_recurrent_simple_gla(
    *(x.transpose(1, 2).contiguous() for x in (*given[:2], given[2] * given[3][..., None])), decay
)
delta, _ = delta_rule_recurrence(*given)
np.savez(
    Path(__file__).parents[1] / "tests" / "references" / "fast_weights.npz",
    k=k, q=q, v=v, r=r, lam=LAM, attention=attended.transpose(1, 2).numpy(), delta=delta.numpy(),
)  # fmt: skip
