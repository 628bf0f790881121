"""A converted network on digits, 32 steps: every sample to the end, and with early exit."""

import numpy as np

from harness import Comparison


def inputs(case):
    """Weights of a network trained for a few epochs, test digits, and a limit of confidence."""
    import jax

    from broadsheet.papers.dynamic_confidence import Exit, _images, _train

    class Quiet:
        def progress(self, fraction, **metrics):
            pass

    config = Exit(epochs=20, hidden=tuple(case["hidden"]))
    parts = _images(config, jax.random.key(0))
    net = _train(config, parts["train"], jax.random.key(0), Quiet())
    layers = [layer for layer in net.body.layers if layer.kind == "linear"]
    weights = {f"w{k}": np.asarray(layer.weight) for k, layer in enumerate(layers)}
    biases = {f"b{k}": np.asarray(layer.bias) for k, layer in enumerate(layers)}
    copies = np.tile(parts["test"][0], (case["copies"], 1))
    return weights | biases | {"theta": np.array(net.theta), "x": copies, "y": np.tile(parts["test"][1], case["copies"])}


SMALL, LARGE = {"hidden": [128, 128], "copies": 4}, {"hidden": [512, 512], "copies": 4}
comparison = Comparison(
    "Converted spiking network: 1988 digits, 32 steps",
    {"64-128-128-10": SMALL | {"exit": False}, "64-512-512-10": LARGE | {"exit": False},
     "64-512-512-10, early exit": LARGE | {"exit": True}},
    inputs,
    text="Integrate-and-fire neurons with soft reset and half a threshold of head start; the same weights, and the same accuracy "
    "and spikes. PyTorch runs the same neurons as a loop over steps, as converters for it do; without early exit: it looks up "
    "afterwards when each sample could have left. (snnTorch's neuron resets a second time where a spike leaves it above "
    "threshold, and so computes another network.)",
    agree={"accuracy": 1e-3, "spikes": 1e-3},
)  # fmt: skip
STEPS, ALPHA, LIMIT = 32, 12.0, 0.7


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    import jax
    import jax.numpy as jnp

    from broadsheet.conversion.conversion import Layer, Sequential, SpikingNet, run_dynamic

    layers = []
    for k in range(3):
        layers += [Layer("linear", jnp.asarray(given[f"w{k}"]), jnp.asarray(given[f"b{k}"])), Layer("activation")]
    net = SpikingNet(Sequential(tuple(layers[:-1])), (64,), given["theta"])
    leaves = jax.jit(lambda total: jax.nn.softmax(total / ALPHA, axis=1).max(axis=1) > LIMIT)

    def run():
        if case["exit"]:
            found = run_dynamic(net, given["x"], leaves, STEPS)
            return {"accuracy": (found.answers == given["y"]).mean(), "spikes": found.spikes.sum()}
        total, spikes = net.run(given["x"], STEPS)
        return {"accuracy": (np.asarray(total[:, -1]).argmax(axis=1) == given["y"]).mean(), "spikes": float(spikes.sum())}

    return run


@comparison.side("PyTorch", environment="torch", packages=("torch",))
def torch_side(case, given):
    import torch

    layers = [torch.nn.Linear(given[f"w{k}"].shape[1], given[f"w{k}"].shape[0]) for k in range(3)]
    for k, layer in enumerate(layers):
        layer.weight.data, layer.bias.data = torch.tensor(given[f"w{k}"]), torch.tensor(given[f"b{k}"])
    theta = [float(value) for value in given["theta"]]
    x, y = torch.tensor(given["x"]), torch.tensor(given["y"])

    def run():
        with torch.no_grad():
            held = [torch.full((len(x), layer.out_features), value / 2) for layer, value in zip(layers[:2], theta, strict=True)]
            total, counts, totals = torch.zeros(len(x), 10), [], []
            for _ in range(STEPS):
                signal, count = x, torch.zeros(len(x))
                for k in range(2):
                    held[k] += layers[k](signal)
                    spikes = (held[k] >= theta[k]).float()
                    held[k] -= theta[k] * spikes
                    signal, count = theta[k] * spikes, count + spikes.sum(1)
                total = total + layers[-1](signal)
                counts.append(count)
                totals.append(total)
            spent = torch.cumsum(torch.stack(counts), 0)
            if not case["exit"]:
                return {"accuracy": (total.argmax(1) == y).float().mean().item(), "spikes": spent[-1].sum().item()}
            every = torch.stack(totals)
            passed = torch.softmax(every / ALPHA, 2).amax(2) > LIMIT
            left = torch.where(passed.any(0), passed.float().argmax(0), STEPS - 1)
            rows = torch.arange(len(x))
            right = every[left, rows].argmax(1) == y
            return {"accuracy": right.float().mean().item(), "spikes": spent[left, rows].sum().item()}

    return run
