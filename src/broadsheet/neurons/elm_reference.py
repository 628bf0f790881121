"""What is published of the ELM neuron, for checks: its equations as a plain loop, its parameter counts. arXiv 2306.16922."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from broadsheet.neurons.elm import ELMCell

PUBLISHED_COUNTS = {
    1: 4601, 2: 4708, 3: 4823, 5: 5077, 7: 5363, 10: 5852, 15: 6827, 20: 8002, 25: 9377, 30: 10952,
    40: 14702, 50: 19252, 75: 34127, 100: 54002,
}  # fmt: skip
"""Branch-ELM parameters at the NeuronIO sizes (1278 channels, 45 branches of 100), by d_m (the official README)."""


def published_cell(
    cell: ELMCell,
    x: Float[np.ndarray, "time d_in"],
    *,
    scale: tuple[float, float] = (1.7159, 2 / 3),
    decayed_input: bool = True,
) -> Float[np.ndarray, "time d_out"]:
    """The published equations in NumPy, step by step and with one trace per synapse.

    The options are two mistakes that are easily made: another `scale` of the tanh and its argument, and a network that sees
    the memory before its decay.
    """
    raw, tau_m = np.asarray(cell.raw_weights), np.asarray(cell.tau_m)
    channel, connected = np.asarray(cell.channel), np.asarray(cell.connected)
    layers = [(np.asarray(layer.weight), np.asarray(layer.bias)) for layer in cell.mlp.layers]
    kappa_s = np.exp(-cell.dt / np.asarray(cell.tau_s))
    kappa_m = np.exp(-cell.dt / tau_m)
    lam = float(cell.lam)
    trace, memory, outputs = np.zeros(len(raw)), np.zeros(len(tau_m)), []
    for now in x:
        trace = kappa_s * trace + np.maximum(raw, 0) * connected * now[channel]
        branch = [trace[j * len(raw) // cell.d_tree : (j + 1) * len(raw) // cell.d_tree].sum() for j in range(cell.d_tree)]
        z = np.concatenate([branch, kappa_m * memory if decayed_input else memory])
        for k, (weight, bias) in enumerate(layers):
            z = weight @ z + bias
            z = np.maximum(z, 0) if k < len(layers) - 1 else z
        increment = scale[0] * np.tanh(scale[1] * z)
        gain = lam * (1 - kappa_m) if cell.variant == "v1" else 1 - np.exp(-lam * cell.dt / tau_m)
        memory = kappa_m * memory + gain * increment
        outputs.append(np.asarray(cell.head.weight) @ memory + np.asarray(cell.head.bias))
    return np.array(outputs)
