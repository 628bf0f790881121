"""The Sinkhorn divergence, a training step and fixed points, beside GeomLoss, OTT, the official PyTorch and a plain loop."""

from __future__ import annotations

import numpy as np

from harness import Comparison

DIVERGENCES, STEPS, POINTS = "divergence", "step", "points"

comparison = Comparison(
    "Networks that emulate hidden Markov models",
    {f"divergence, {n} sequences": {"kind": DIVERGENCES, "size": n, "length": 30} for n in (128, 512, 2048)}
    | {"training step, 128 sequences": {"kind": STEPS, "size": 128, "length": 30, "units": 64, "noise": 10}}
    | {"fixed points, 64 units": {"kind": POINTS, "starts": 256, "units": 64, "steps": 2000}},
    lambda case: inputs(case),
    text="Divergence: value and gradient for one-hot sequences of the two-state chain, blur 0.2, the same schedule. OTT does "
    "not anneal and stops at its tolerance, so that its value is that of more sweeps. Training step: noise, "
    "rollout, straight-through symbols, divergence, backward pass, clipped Adam. Fixed points: from 256 starts, Adam at the same "
    "rate and as many steps; ours stops early, polishes by Newton's method and has the spectra.",
    shown={"value": "value", "gradient": "norm of the gradient", "found": "distinct points"},
    turns=3,
)  # fmt: skip


def inputs(case):
    rng = np.random.default_rng(0)
    if case["kind"] == POINTS:
        n = case["units"]
        return {"w": (1.6 * rng.standard_normal((n, n)) / n**0.5).astype(np.float32),
                "starts": rng.standard_normal((case["starts"], n)).astype(np.float32)}  # fmt: skip
    stay = rng.random((2, case["size"], case["length"])) < 0.95
    states = np.cumsum(~stay, axis=2) % 2 * 2
    noise = rng.random(states.shape) < 0.01
    symbols = np.where(noise, 1, states)
    x, y = np.eye(3, dtype=np.float32)[symbols].reshape(2, case["size"], -1)
    return {"x": x, "y": y}


@comparison.side("broadsheet", packages=("jax",))
def ours(case, given):
    import jax
    import jax.numpy as jnp

    if case["kind"] == POINTS:
        from broadsheet.dynamics.fixed_points import find_fixed_points

        w = jnp.asarray(given["w"])
        update = jax.tree_util.Partial(lambda w, h, x: jnp.tanh(w @ h), w)
        return lambda: {"found": len(find_fixed_points(update, given["starts"], np.zeros(1), steps=case["steps"]).points)}
    from broadsheet.numerics.sinkhorn import sinkhorn_divergence

    x, y = jnp.asarray(given["x"]), jnp.asarray(given["y"])
    if case["kind"] == DIVERGENCES:
        both = jax.jit(jax.value_and_grad(lambda x: sinkhorn_divergence(x, y, blur=0.2)))

        def run():
            value, gradient = both(x)
            return {"value": float(value), "gradient": float(jnp.linalg.norm(gradient))}

        return run
    from broadsheet.networks.noise_rnn import NoiseRNN, fit_sequences

    model = NoiseRNN(case["units"], case["noise"], 3, key=jax.random.key(0))
    batch = y.reshape(case["size"], case["length"], 3).argmax(-1)
    data = jax.tree_util.Partial(lambda batch, key: batch, batch)

    def steps():
        import time

        fit_sequences(model, data, steps=50, key=jax.random.key(1))  # compiled
        start = time.perf_counter()
        found = fit_sequences(model, data, steps=50, key=jax.random.key(1))
        return {"value": float(found.losses[-1]), "seconds": (time.perf_counter() - start) / 50}

    return steps


@comparison.side("GeomLoss on PyTorch", environment="hmmrnn", packages=("torch", "geomloss"))
def pytorch(case, given):
    import torch

    if case["kind"] == POINTS:
        return plain_loop(case, given, torch)
    import geomloss

    y = torch.tensor(given["y"])
    loss = geomloss.SamplesLoss(blur=0.2)
    if case["kind"] == DIVERGENCES:

        def run():
            x = torch.tensor(given["x"], requires_grad=True)
            value = loss(x, y)
            value.backward()
            return {"value": value.item(), "gradient": x.grad.norm().item()}

        return run
    rnn = torch.nn.RNN(case["noise"], case["units"], nonlinearity="relu", batch_first=True, bias=False)
    head = torch.nn.Linear(case["units"], 3, bias=False)
    weights = [*rnn.parameters(), *head.parameters()]
    adam = torch.optim.Adam(weights, lr=1e-3, betas=(0.9, 0.9))

    def steps():
        import time

        start = time.perf_counter()
        for _ in range(50):
            adam.zero_grad()
            logits = head(rnn(torch.randn(case["size"], case["length"], case["noise"]))[0])
            out = torch.nn.functional.gumbel_softmax(logits, tau=1.0, hard=True)
            value = loss(out.reshape(case["size"], -1), y)
            value.backward()
            torch.nn.utils.clip_grad_norm_(weights, 0.9)
            adam.step()
        return {"value": value.item(), "seconds": (time.perf_counter() - start) / 50}

    return steps


def plain_loop(case, given, torch):
    """Adam on the speed of all starts together, as Fixed-Point-Finder does, without its clean-up."""
    w = torch.tensor(given["w"])

    def run():
        h = torch.tensor(given["starts"], requires_grad=True)
        adam = torch.optim.Adam([h], lr=0.02)
        falls = torch.optim.lr_scheduler.ExponentialLR(adam, 0.01 ** (1 / case["steps"]))
        for _ in range(case["steps"]):
            adam.zero_grad()
            ((torch.tanh(h @ w.T) - h) ** 2).sum().div(2).backward()
            adam.step()
            falls.step()
        points = h.detach().numpy()
        speed = np.linalg.norm(np.tanh(points @ given["w"].T) - points, axis=1)
        kept: list[np.ndarray] = []
        for point in points[speed < 0.02 * (1 + np.linalg.norm(points, axis=1))]:
            if all(np.linalg.norm(point - other) > 0.01 * (1 + np.linalg.norm(point)) for other in kept):
                kept.append(point)
        return {"found": len(kept)}

    return run


@comparison.side("OTT", environment="ott", packages=("ott-jax", "jax"))
def ott(case, given):
    import jax
    import jax.numpy as jnp
    from ott.geometry import costs, pointcloud
    from ott.tools import sinkhorn_divergence

    if case["kind"] != DIVERGENCES:
        raise RuntimeError("OTT has neither networks nor fixed points")
    x, y = jnp.asarray(given["x"]), jnp.asarray(given["y"])

    def value(x):  # its cost is |x - y|², twice ours
        options = {"cost_fn": costs.SqEuclidean(), "epsilon": 0.08}
        return sinkhorn_divergence.sinkhorn_divergence(pointcloud.PointCloud, x, y, **options)[0] / 2

    both = jax.jit(jax.value_and_grad(value))

    def run():
        found, gradient = both(x)
        return {"value": float(found), "gradient": float(jnp.linalg.norm(gradient))}

    return run
