"""A network as a composite of learners that train themselves, against plain training loops on the same batches."""

from itertools import pairwise

import numpy as np

from harness import Comparison


def inputs(case):
    """Batches (steps, batch, 64), labels (steps, batch), and the weights at the start."""
    rng = np.random.default_rng(0)
    sizes = (64, case["hidden"], case["hidden"], 10)
    weights = {f"w{k}": rng.standard_normal((n, m)) / np.sqrt(m) for k, (m, n) in enumerate(pairwise(sizes))}
    weights |= {f"b{k}": np.zeros(n) for k, n in enumerate(sizes[1:])}
    x = rng.standard_normal((case["steps"], case["batch"], 64))
    given = weights | {"x": x, "rate": 1e-3}
    return {name: np.asarray(value, np.float32) for name, value in given.items()} | {"y": rng.integers(0, 10, x.shape[:2])}


comparison = Comparison(
    "Nested learners: a three-layer network with Adam, 500 steps",
    {
        f"hidden {hidden}, batch {batch}": {"hidden": hidden, "batch": batch, "steps": 500}
        for hidden, batch in ((32, 32), (256, 64))
    },
    inputs,
    text="Each layer is a learner with an Adam of its own; the plain loop is one jitted step of Optax on the whole tree, scanned. "
    "The weights after 500 steps agree. PyTorch runs the same network and batches, eager.",
    agree={"weight": 1e-3},
)


def layers(given):
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    class Layer(eqx.Module):
        weight: jax.Array
        bias: jax.Array
        last: bool = eqx.field(static=True)

        def __call__(self, x):
            out = x @ self.weight.T + self.bias
            return out if self.last else jnp.tanh(out)

    return tuple(Layer(jnp.asarray(given[f"w{k}"]), jnp.asarray(given[f"b{k}"]), k == 2) for k in range(3))


def cross_entropy(out, y):
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(out, y).mean()


@comparison.side("broadsheet", packages=("jax", "optax"), devices=("cpu", "gpu"))
def ours(case, given):
    import jax
    import jax.numpy as jnp
    import optax

    from broadsheet.dynamics import rollout
    from broadsheet.dynamics.interactions import InSeries, respond
    from broadsheet.dynamics.learners import learner, supervised

    optimiser = optax.adam(float(given["rate"]))
    system = respond(supervised(InSeries(tuple(learner(layer, optimiser) for layer in layers(given))), cross_entropy), 1.0)
    batches = jnp.asarray(given["x"]), jnp.asarray(given["y"])
    train = jax.jit(lambda batches: rollout(system, batches)[0])

    def run():
        state = jax.block_until_ready(train(batches))
        return {"weight": next(abs(leaf).mean() for leaf in jax.tree.leaves(state) if leaf.ndim == 2)}

    return run


@comparison.side("Optax", packages=("jax", "optax"), devices=("cpu", "gpu"))
def plain(case, given):
    import jax
    import jax.numpy as jnp
    import optax

    optimiser, start = optax.adam(float(given["rate"])), layers(given)

    def step(carry, batch):
        weights, state = carry
        x, y = batch

        def loss(weights):
            out = x
            for layer in weights:
                out = layer(out)
            return cross_entropy(out, y)

        value, gradient = jax.value_and_grad(loss)(weights)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(weights, updates), state), value

    train = jax.jit(lambda batches: jax.lax.scan(step, (start, optimiser.init(start)), batches)[0])
    batches = jnp.asarray(given["x"]), jnp.asarray(given["y"])

    def run():
        weights, _ = jax.block_until_ready(train(batches))
        return {"weight": abs(weights[0].weight).mean()}

    return run


@comparison.side("PyTorch", environment="torch", packages=("torch",))
def torch_loop(case, given):
    import torch
    from torch.nn import functional

    x, y = torch.tensor(given["x"]), torch.tensor(given["y"])

    def run():
        weights = [torch.tensor(given[f"{name}{k}"], requires_grad=True) for k in range(3) for name in "wb"]
        optimiser = torch.optim.Adam(weights, lr=float(given["rate"]))
        for now, label in zip(x, y, strict=True):
            out = now
            for k in range(3):
                out = functional.linear(out, weights[2 * k], weights[2 * k + 1])
                out = out if k == 2 else torch.tanh(out)
            optimiser.zero_grad()
            functional.cross_entropy(out, label).backward()
            optimiser.step()
        return {"weight": weights[0].abs().mean().item()}

    return run
