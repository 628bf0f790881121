"""Training a spiking network whose neurons learn their leak and threshold along with its weights."""

import numpy as np

from harness import Comparison

CLASSES, RATE = 2, 0.01


def inputs(case):
    """Samples that burst or do not, batches in their order, and initial weights."""
    from broadsheet.papers.meta_neuron import Bursts, burst_samples

    rng = np.random.default_rng(0)
    X, y = burst_samples(400, Bursts(steps=case["steps"]), rng)
    order = np.concatenate([rng.permutation(400).reshape(-1, 100) for _ in range(case["epochs"])])
    n = case["hidden"]
    return {"X": X, "y": y, "order": order, "w": (0.25 * rng.standard_normal((n, X.shape[2]))).astype(np.float32),
            "head": (rng.standard_normal((CLASSES, n)) / np.sqrt(n)).astype(np.float32)}  # fmt: skip


comparison = Comparison(
    "Neurons that learn leak and threshold: five epochs of 400 samples, batch 100",
    {"8 neurons, 100 steps": {"hidden": 8, "steps": 100, "epochs": 5}, "128 neurons, 100 steps": {"hidden": 128, "steps": 100, "epochs": 5},
     "128 neurons, 500 steps": {"hidden": 128, "steps": 500, "epochs": 5}},
    inputs,
    text="LIF neurons with soft reset, a linear read-out of spike counts, cross-entropy, Adam, surrogate gradients through time; "
    "the leak of each neuron and its threshold are parameters in both (snnTorch: `learn_beta`, `learn_threshold`), from the same "
    "weights, in the same order. The loss on all samples at the end agrees.",
    agree={"loss": 0.05},
)  # fmt: skip


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    from broadsheet.dynamics import trainable
    from broadsheet.networks import SNN, SpikingLayer
    from broadsheet.networks.layers import linear
    from broadsheet.networks.spiking_classifier import surprise
    from broadsheet.neurons import LIF, Intrinsic
    from broadsheet.neurons.surrogates import fast_sigmoid

    n = case["hidden"]
    cell = LIF(n, tau=10.0, rest=0.0, threshold=1.0, reset=None, spike=fast_sigmoid(10.0), dt=1.0)
    first = SNN(
        SpikingLayer(linear(jnp.asarray(given["w"]), jnp.zeros(n)), Intrinsic(cell, ("tau", "threshold"))),
        linear(jnp.asarray(given["head"]), jnp.zeros(CLASSES)),
    )
    X, y = jnp.asarray(given["X"]), jnp.asarray(given["y"])
    rule = optax.adam(RATE)

    @eqx.filter_jit
    def train(net, X, y, order):
        chosen = trainable(net)
        weights, rest = eqx.partition(net, chosen)

        def step(carry, rows):
            weights, state = carry

            def loss(w):
                return surprise(eqx.combine(w, rest), (X[rows], y[rows]), jax.random.key(0))

            updates, state = rule.update(jax.grad(loss)(weights), state, weights)
            return (eqx.apply_updates(weights, updates), state), None

        (weights, _), _ = jax.lax.scan(step, (weights, rule.init(weights)), order)
        return surprise(eqx.combine(weights, rest), (X, y), jax.random.key(0))

    order = jnp.asarray(given["order"])

    def run():
        return {"loss": jax.block_until_ready(train(first, X, y, order))}

    return run


@comparison.side("snnTorch", environment="torch", packages=("snntorch", "torch"))
def snntorch(case, given):
    import snntorch as snn
    import torch

    X, y = torch.tensor(given["X"]).transpose(0, 1), torch.tensor(given["y"])
    n = case["hidden"]

    def run():
        cell = snn.Leaky(
            beta=torch.full((n,), float(np.exp(-0.1))), threshold=torch.ones(n), learn_beta=True, learn_threshold=True,
            spike_grad=snn.surrogate.fast_sigmoid(slope=10), reset_mechanism="subtract", reset_delay=False,
        )  # fmt: skip
        first, head = torch.nn.Linear(X.shape[2], n), torch.nn.Linear(n, CLASSES)
        for layer, name in ((first, "w"), (head, "head")):
            layer.weight = torch.nn.Parameter(torch.tensor(given[name]))
            layer.bias = torch.nn.Parameter(torch.zeros(len(given[name])))
        parameters = [*cell.parameters(), *first.parameters(), *head.parameters()]
        rule, loss = torch.optim.Adam(parameters, lr=RATE), torch.nn.CrossEntropyLoss()

        def logits(x):
            mem, counts = cell.reset_mem(), 0.0
            for now in first(x):
                spikes, mem = cell(now, mem)
                counts = counts + spikes
            return head(counts / 10)

        for rows in given["order"]:
            rule.zero_grad()
            loss(logits(X[:, rows]), y[rows]).backward()
            rule.step()
        with torch.no_grad():
            return {"loss": loss(logits(X), y).item()}

    return run
