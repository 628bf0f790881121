"""FlexRound of a small network, here and with the official quantiser in a torch loop.

The official code is not part of this repository: its folder is named by FLEXROUND_CODE, and without it that side fails.
"""

import os
import sys

import numpy as np

from harness import Comparison

BITS, ITERS, RATE, BATCH, SAMPLES = 4, 600, 3e-3, 32, 512


def inputs(case):
    """Random weights of three layers, and inputs with a few strong directions."""
    rng = np.random.default_rng(0)
    width = case["width"]
    sizes = [(width, width), (width, width), (10, width)]
    arrays = {f"w{k}": (rng.standard_t(4, shape) / np.sqrt(width)).astype(np.float32) for k, shape in enumerate(sizes)}
    mixing = rng.normal(size=(width, width)) * np.exp(-np.arange(width) / (width / 4))
    return arrays | {"x": (rng.normal(size=(2 * SAMPLES, width)) @ mixing / np.sqrt(width)).astype(np.float32)}


def answers(weights, x):
    """The network in NumPy: ReLU between layers."""
    for k, w in enumerate(weights):
        x = (np.maximum(x, 0) if k else x) @ w.T
    return x


def error(arrays, weights):
    """Of the outputs for samples that were not calibrated with."""
    wanted = answers([arrays[f"w{k}"] for k in range(3)], arrays["x"][SAMPLES:])
    return {"error": np.sum((answers(weights, arrays["x"][SAMPLES:]) - wanted) ** 2) / np.sum(wanted**2)}


comparison = Comparison(
    "FlexRound of a network with three layers: the loop here and the official quantiser in torch",
    {"64 wide": {"width": 64}, "128 wide": {"width": 128}},
    inputs,
    text="Search of the first steps and 600 steps a layer on 512 samples in batches of 32; 4 bits, asymmetric, a step a row, Adam "
    "from 0.003 on a cosine. The official quantiser (no part of this repository) is run as it is, in a plain torch loop with "
    "the same target and schedule; its search, of a power of 2.4, tries all candidates on all weights. Errors are of outputs for "
    "512 other samples.",
    shown={"error": "output error"},
)


@comparison.side("broadsheet")
def ours(case, arrays):
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from broadsheet.learn.quantised import quantize_model
    from broadsheet.learn.rounding import FlexRound

    layers = []
    for k in range(3):
        w = jnp.asarray(arrays[f"w{k}"])
        layer = eqx.nn.Linear(w.shape[1], w.shape[0], use_bias=False, key=jax.random.key(0))
        layers += [eqx.tree_at(lambda each: each.weight, layer, w), eqx.nn.Lambda(jax.nn.relu)]
    model, rounding = eqx.nn.Sequential(layers[:-1]), FlexRound(bits=BITS, symmetric=False, per_channel=True)

    def run():
        made = quantize_model(model, arrays["x"][:SAMPLES], rounding, iters=ITERS, rate=RATE, batch=BATCH)
        return error(arrays, [made.weights_[f"layers.{2 * k}"].weight for k in range(3)])

    return run


@comparison.side("official quantiser, torch", packages=("torch",))
def official(case, arrays):
    sys.path.insert(0, os.environ["FLEXROUND_CODE"])
    import torch
    from quant.UniformAffineQuantizer import UniformAffineQuantizer

    def run():
        torch.manual_seed(0)
        x_full = x = torch.tensor(arrays["x"][:SAMPLES])
        weights = []
        for k in range(3):
            w = torch.tensor(arrays[f"w{k}"])
            target = x_full @ w.T
            quantizer = UniformAffineQuantizer(n_bits=BITS, symmetric=False, channel_wise=True, mode="flexround", org_weight=w)
            optimiser = torch.optim.Adam(quantizer.parameters(), lr=RATE)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=ITERS)
            for _ in range(ITERS):
                taken = torch.randint(0, SAMPLES, (BATCH,))
                loss = ((x[taken] @ quantizer(w).T - target[taken]) ** 2).sum(1).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
            rounded = quantizer(w).detach()
            weights.append(rounded.numpy())
            x_full, x = torch.relu(target), torch.relu(x @ rounded.T)
        return error(arrays, weights)

    return run
