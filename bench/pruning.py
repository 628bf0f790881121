"""What sparse training adds to a dense step: ours, torch.nn.utils.prune and sparsimony, at equal final density."""

import time
from itertools import pairwise

import numpy as np

from harness import Comparison

SIZES, BATCH, STEPS, SPARSITY, RATE = (64, 300, 100, 10), 64, 1140, 0.95, 0.05


def inputs(case):
    """Digits, the order of the batches and He's first weights; the same for all sides."""
    from broadsheet.vision.images import digits

    rng = np.random.default_rng(0)
    images = digits(rng, train=1257)
    arrays = {"x": images.x.reshape(len(images.x), -1), "y": images.y}
    arrays |= {"test_x": images.test_x.reshape(len(images.test_x), -1), "test_y": images.test_y}
    arrays["rows"] = rng.integers(0, len(images.y), (STEPS, BATCH))
    for k, (a, b) in enumerate(pairwise(SIZES)):
        arrays[f"w{k}"] = (rng.standard_normal((b, a)) * np.sqrt(2 / a)).astype(np.float32)
    return arrays


comparison = Comparison(
    "Sparse training of a small network: cost beside a dense step, and accuracy at equal density",
    {f"masks change every {every} steps": {"every": every} for every in (20, 100)},
    inputs,
    text="64-300-100-10 on scikit-learn's digits, 1140 steps of 64, SGD with Nesterov's momentum, 95 % sparse at the end. Each side trains "
    "dense and sparse in turn with its own library; overhead is the sparse time over the dense one, less 1. Here: GraNet (half dense at the "
    "start, gradual prune and regrowth). torch.nn.utils.prune: gradual magnitude pruning by global_unstructured, the same schedule. "
    "sparsimony: RigL with kernel shares. The times are those of the sparse training.",
    shown={"overhead": "overhead of sparse training", "accuracy": "accuracy", "dense": "accuracy, dense", "density": "final density"},
    turns=5,
)  # fmt: skip


@comparison.side("broadsheet", packages=("jax", "optax"))
def ours(case, given):
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    from broadsheet.learn import GraNet, fit, sparsity

    def answers(net, x):
        for weight, bias in net[:-1]:
            x = jax.nn.relu(x @ weight.T + bias)
        return x @ net[-1][0].T + net[-1][1]

    class Loss(eqx.Module):
        def __call__(self, net, batch, key):
            return optax.softmax_cross_entropy_with_integer_labels(answers(net, batch[0]), batch[1]).mean()

    class Rows(eqx.Module):
        x: jax.Array
        y: jax.Array

        def __call__(self, key):
            rows = jax.random.randint(key, (BATCH,), 0, len(self.y))
            return self.x[rows], self.y[rows]

    first = [(jnp.asarray(given[f"w{k}"]), jnp.zeros(len(given[f"w{k}"]))) for k in range(3)]
    data, loss = Rows(jnp.asarray(given["x"]), jnp.asarray(given["y"])), Loss()
    optimiser = optax.sgd(RATE, momentum=0.9, nesterov=True)
    rule = GraNet(SPARSITY, steps=STEPS, every=case["every"], rescale=True)

    def train(sparsifier):
        start = time.perf_counter()
        found = fit(
            first, loss, data, optimiser=optimiser, steps=STEPS, key=jax.random.key(0), sparsifier=sparsifier, chunk=STEPS
        )
        took = time.perf_counter() - start
        right = np.asarray(answers(found.model, jnp.asarray(given["test_x"]))).argmax(axis=1) == given["test_y"]
        return took, right.mean(), found.opt_state

    def run():
        dense, dense_right, _ = train(None)
        took, right, state = train(rule)
        return {
            "seconds": took,
            "overhead": took / dense - 1,
            "accuracy": right,
            "dense": dense_right,
            "density": 1 - sparsity(state),
        }

    return run


def torch_side(case, given, sparsify):
    """A torch network, trained dense and then sparse: `sparsify(layers, optimiser)` gives what is called after each step."""
    import torch

    torch.set_num_threads(1)
    x, y, test_x = (torch.from_numpy(given[name]) for name in ("x", "y", "test_x"))
    rows = torch.from_numpy(given["rows"])

    def train(sparse):
        layers = [torch.nn.Linear(a, b) for a, b in pairwise(SIZES)]
        with torch.no_grad():
            for k, layer in enumerate(layers):
                layer.weight.copy_(torch.from_numpy(given[f"w{k}"]))
                layer.bias.zero_()
        net = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
        optimiser = torch.optim.SGD(net.parameters(), RATE, momentum=0.9, nesterov=True)
        after = sparsify(net, layers, optimiser) if sparse else lambda step: None
        start = time.perf_counter()
        for step in range(STEPS):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows[step]]), y[rows[step]]).backward()
            optimiser.step()
            after(step + 1)
        took = time.perf_counter() - start
        with torch.no_grad():
            right = (net(test_x).argmax(dim=1).numpy() == given["test_y"]).mean()
            live = sum(int((layer.weight != 0).sum()) for layer in layers)
        return took, right, live / sum(layer.weight.numel() for layer in layers)

    def run():
        dense, dense_right, _ = train(False)
        took, right, density = train(True)
        return {"seconds": took, "overhead": took / dense - 1, "accuracy": right, "dense": dense_right, "density": density}

    return run


@comparison.side("torch.nn.utils.prune", environment="sparsimony", packages=("torch",))
def torch_prune(case, given):
    from torch.nn.utils import prune

    def sparsify(net, layers, optimiser):
        parameters, state = [(layer, "weight") for layer in layers], {"alive": sum(layer.weight.numel() for layer in layers)}
        total, last = state["alive"], STEPS // 2

        def after(step):
            if (step % case["every"] == 0 and step < last) or step == last:
                wanted = int(total * (1 - SPARSITY * (1 - (1 - step / last) ** 3)) + 1e-6)
                if wanted < state["alive"]:
                    prune.global_unstructured(parameters, prune.L1Unstructured, amount=state["alive"] - wanted)
                    state["alive"] = wanted

        return after

    return torch_side(case, given, sparsify)


@comparison.side("sparsimony", environment="sparsimony", packages=("sparsimony", "torch"))
def sparsimony(case, given):
    from sparsimony.distributions.base import ERKDistribution
    from sparsimony.dst.rigl import RigL
    from sparsimony.schedulers.base import CosineDecayScheduler

    def sparsify(net, layers, optimiser):
        scheduler = CosineDecayScheduler(0.5, 3 * STEPS // 4, case["every"])
        sparsifier = RigL(scheduler, ERKDistribution(), optimiser, sparsity=SPARSITY)
        sparsifier.prepare(net, [{"tensor_fqn": f"{k}.weight"} for k in (0, 2, 4)])
        return lambda step: sparsifier.step()

    return torch_side(case, given, sparsify)
