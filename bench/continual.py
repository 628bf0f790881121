"""One epoch of training a spiking network on digits through time, and what lateral subspaces add to it."""

import numpy as np

from harness import Comparison

ROWS, RATES, ITERATIONS, RATE = (60, 40, 40), (0.001, 0.01, 0.01), 5, 0.1


def inputs(case):
    """Standardised digits of 28 x 28 pixels, initial weights, and the order of the samples."""
    import jax

    from broadsheet.networks.continual import SpikingMLP
    from broadsheet.vision.images import digits

    rng = np.random.default_rng(2)
    images = digits(np.random.default_rng(0), scale=3.5)
    x = ((images.x - images.x.mean()) / images.x.std()).reshape(len(images.x), -1)[:1344]
    net = SpikingMLP((784, *case["hidden"], 10), rule="bptt", steps=case["steps"], key=jax.random.key(0))
    order = np.random.default_rng(1).permutation(1344).reshape(-1, 64)
    rows = {
        f"{name}{k}": np.linalg.qr(rng.standard_normal((n, m)))[0].T.astype(np.float32)
        for k, (n, m) in enumerate(zip((784, *case["hidden"]), ROWS, strict=True))
        for name in ("old", "new")
    }
    return rows | {"x": x, "y": images.y[:1344], "order": order} | {f"w{k}": np.asarray(w) for k, w in enumerate(net.W)}


def captured(rows, x):
    """The share of the inputs' energy in the new rows of the first layer."""
    return float(((x @ np.asarray(rows).T) ** 2).sum() / (x**2).sum())


comparison = Comparison(
    "Spiking network through time: one epoch of 1344 digits of 28 x 28 pixels, batch 64, 6 steps",
    {"784-200-200-10": {"hidden": [200, 200], "steps": 6, "lateral": False},
     "784-200-200-10, lateral subspaces": {"hidden": [200, 200], "steps": 6, "lateral": True}},
    inputs,
    text="Surrogate gradients through time and plain gradient descent from the same weights, in the same order; the loss on all "
    "samples after the epoch agrees. With lateral subspaces, snnTorch projects gradients by the same rows and learns 60, 40 and 40 "
    "of them by the same Hebbian rule, written out in PyTorch; what the learned rows capture of the inputs agrees.",
    agree={"loss": 0.02, "captured": 0.02},
)  # fmt: skip


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    from broadsheet.networks.continual import SpikingMLP, _epoch
    from broadsheet.plasticity import LateralSubspace

    net = SpikingMLP((784, *case["hidden"], 10), rule="bptt", steps=case["steps"], key=jax.random.key(0))
    net = eqx.tree_at(lambda n: n.W, net, tuple(jnp.asarray(given[f"w{k}"]) for k in range(3)))
    x, y, order = (jnp.asarray(given[name]) for name in ("x", "y", "order"))
    made = []
    for k, (n, m, rate) in enumerate(zip((784, *case["hidden"]), ROWS, RATES, strict=True)):
        old = LateralSubspace(n, capacity=2 * m, rate=rate, iterations=ITERATIONS).grow(m, jax.random.key(n)).freeze()
        both = jnp.concatenate([jnp.asarray(given[f"old{k}"]), jnp.asarray(given[f"new{k}"])])
        made.append(eqx.tree_at(lambda s: s.H, old.grow(m, jax.random.key(m)), both))
    rows = tuple(made) if case["lateral"] else tuple(LateralSubspace(n) for n in (784, *case["hidden"]))
    allowed = jnp.ones(10, bool)
    loss = jax.jit(lambda net: optax.softmax_cross_entropy_with_integer_labels(net(x)[0], y).mean())

    def run():
        trained, learned = _epoch(net, rows, None, x, y, allowed, order, jnp.asarray(RATE), case["lateral"])
        shares = {"captured": captured(learned[0].H[ROWS[0] :], given["x"])} if case["lateral"] else {}
        return {"loss": float(loss(trained))} | shares

    return run


@comparison.side("snnTorch", environment="torch", packages=("snntorch", "torch"))
def snntorch(case, given):
    import snntorch as snn
    import torch
    from snntorch import surrogate

    sizes = (784, *case["hidden"])
    x, y = torch.tensor(given["x"]), torch.tensor(given["y"])
    cells = [
        snn.Leaky(beta=0.5, reset_mechanism="subtract", reset_delay=False, spike_grad=surrogate.sigmoid(slope=4))
        for _ in sizes[1:]
    ]
    old = [torch.tensor(given[f"old{k}"]) for k in range(3)]

    def forward(weights, images):
        held, total, activity = [torch.zeros(len(images), n) for n in sizes[1:]], 0.0, [0.0] * 3
        for _ in range(case["steps"]):
            signal = images
            for k, cell in enumerate(cells):
                activity[k] = activity[k] + signal / case["steps"]
                signal, held[k] = cell(signal @ weights[k].T, held[k])
            activity[2] = activity[2] + signal / case["steps"]
            total = total + signal @ weights[2].T
        return total / case["steps"], activity

    def run():
        weights = [torch.tensor(given[f"w{k}"], requires_grad=True) for k in range(3)]
        new = [torch.tensor(given[f"new{k}"]) for k in range(3)]
        velocity = [torch.zeros_like(rows) for rows in new]
        for rows in torch.tensor(given["order"]):
            logits, activity = forward(weights, x[rows])
            gradient = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, y[rows]), weights)
            with torch.no_grad():
                for k, (weight, change) in enumerate(zip(weights, gradient, strict=True)):
                    if case["lateral"]:
                        change = change - change @ old[k].T @ old[k]
                        seen = activity[k] - activity[k] @ old[k].T @ old[k]
                        for _ in range(ITERATIONS):
                            answer = activity[k] @ new[k].T
                            step = (answer.T @ (seen - answer @ new[k]) / 64).clamp(-10, 10)
                            velocity[k] = 0.9 * velocity[k] + 0.1 * step
                            new[k] = new[k] + RATES[k] * velocity[k]
                    weight -= RATE * change
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(forward(weights, x)[0], y).item()
        return {"loss": loss} | ({"captured": captured(new[0], given["x"])} if case["lateral"] else {})

    return run
