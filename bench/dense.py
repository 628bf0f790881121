"""Dense recurrent networks of LIF and Izhikevich neurons: forward, and backward through all steps."""

import numpy as np

from harness import Comparison

LEAK, IZHIKEVICH_DT = 0.95, 1.0


def inputs(case):
    """Weights (post, pre), and the drive of each step (time, batch, neurons)."""
    rng = np.random.default_rng(0)
    n, steps, batch = case["neurons"], case["steps"], case["batch"]
    weights = rng.standard_normal((n, n)) / np.sqrt(n)
    np.fill_diagonal(weights, 0.0)
    scale, mean, spread = (0.2, 0.05, 0.1) if case["cell"] == "LIF" else (5.0, 4.0, 5.0)
    drive = mean + spread * rng.standard_normal((steps, batch, n))
    return {"weights": (scale * weights).astype(np.float32), "drive": drive.astype(np.float32)}


def named(cell, neurons, steps, batch=1, backward=False):
    name = f"{cell}, N = {neurons}, T = {steps}" + (f", batch {batch}" if batch > 1 else "")
    case = {"cell": cell, "neurons": neurons, "steps": steps, "batch": batch, "backward": backward}
    return {name + (", backward" if backward else ""): case}


comparison = Comparison(
    "Dense recurrent spiking networks",
    named("LIF", 100, 1000) | named("LIF", 100, 10_000) | named("LIF", 100, 1000, backward=True)
    | named("LIF", 100, 10_000, backward=True) | named("LIF", 1000, 1000) | named("LIF", 1000, 1000, batch=32)
    | named("LIF", 1000, 1000, batch=32, backward=True) | named("Izhikevich", 100, 1000) | named("Izhikevich", 100, 10_000)
    | named("Izhikevich", 1000, 1000) | named("Izhikevich", 100, 1000, backward=True),
    inputs,
    text="A step is a leak of 0.95, a given random drive, and recurrent spikes of the step before; reset to zero (Izhikevich: 1 "
    "ms Euler steps). Backward: the derivative of the mean spike count by the recurrent weights, each with its own surrogate. "
    "snnTorch and Norse compute the same spikes; spyx only resets by subtraction, and a step later.",
    agree={"rate": 0.05},
)  # fmt: skip


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from broadsheet.dynamics import batch, feedback, rollout
    from broadsheet.networks import Dense
    from broadsheet.neurons import LIF, Izhikevich

    n = case["neurons"]
    if case["cell"] == "LIF":
        cell = LIF(n, tau=-1 / np.log(LEAK), rest=0.0, threshold=1.0, reset=0.0, dt=1.0)
    else:
        cell = Izhikevich(n, dt=IZHIKEVICH_DT)
    network = feedback(cell, Dense(jnp.asarray(given["weights"])))
    drive = jnp.moveaxis(jnp.asarray(given["drive"]), 1, -1)  # examples last

    def mean(weights, drive):
        system = eqx.tree_at(lambda s: s.back.weights, network, weights)
        return jnp.mean(rollout(batch(system, case["batch"]), drive)[1])

    compute = jax.jit(jax.value_and_grad(mean) if case["backward"] else mean)

    def run():
        out = jax.block_until_ready(compute(network.back.weights, drive))
        return {"rate": out[0] if case["backward"] else out}

    return run


def torch_run(case, given, start, step):
    """`step(x, state, weights)` -> (spikes, state) in a loop, as a user of these libraries writes it."""
    import torch

    weights = torch.tensor(given["weights"], requires_grad=case["backward"])
    drive = torch.tensor(given["drive"])

    def run():
        with torch.set_grad_enabled(case["backward"]):
            state, spikes = start(), []
            for x in drive:
                out, state = step(x, state, weights)
                spikes.append(out)
            rate = torch.stack(spikes).mean()
            if case["backward"]:
                weights.grad = None
                rate.backward()
        return {"rate": rate.item()}

    return run


@comparison.side("snnTorch", environment="torch", packages=("snntorch", "torch"))
def snntorch(case, given):
    import snntorch as snn
    import torch

    if case["cell"] != "LIF":
        raise RuntimeError("snnTorch has no Izhikevich neuron")
    cell = snn.RLeaky(
        beta=LEAK, linear_features=case["neurons"], threshold=1.0, reset_mechanism="zero", reset_delay=False,
        learn_recurrent=case["backward"],
    )  # fmt: skip
    cell.recurrent = torch.nn.Linear(case["neurons"], case["neurons"], bias=False)
    cell.recurrent.weight = torch.nn.Parameter(torch.tensor(given["weights"]), requires_grad=case["backward"])
    drive = torch.tensor(given["drive"])

    def run():
        with torch.set_grad_enabled(case["backward"]):
            (spk, mem), spikes = cell.reset_mem(), []
            for x in drive:
                spk, mem = cell(x, spk, mem)
                spikes.append(spk)
            rate = torch.stack(spikes).mean()
            if case["backward"]:
                cell.zero_grad()
                rate.backward()
        return {"rate": rate.item()}

    return run


@comparison.side("Norse", environment="torch", packages=("norse", "torch"))
def norse(case, given):
    import torch
    from norse.torch.functional import izhikevich, lif

    n, eye = case["neurons"], torch.eye(case["neurons"])
    if case["cell"] == "LIF":
        # its Euler step takes the share 1 - LEAK of a current that lasts one step
        scaled = {name: array / (1 - LEAK) for name, array in given.items()}
        parameters = lif.LIFParameters(
            tau_syn_inv=torch.tensor(1.0), tau_mem_inv=torch.tensor(1 - LEAK), v_th=torch.tensor(1.0)
        )
        return torch_run(
            case, scaled, lambda: lif.LIFState(*(torch.zeros(case["batch"], n) for _ in range(3))),
            lambda x, state, w: lif.lif_step(x, state, eye, w, parameters, dt=1.0),
        )  # fmt: skip
    regular = izhikevich.IzhikevichParameters(a=0.02, b=0.2, c=-65.0, d=8.0)

    def start():
        v = torch.full((case["batch"], n), -65.0)
        return izhikevich.IzhikevichRecurrentState(torch.zeros_like(v), v, 0.2 * v)

    return torch_run(
        case, given, start,
        lambda x, state, w: izhikevich.izhikevich_recurrent_step(x, state, eye, w, regular, dt=IZHIKEVICH_DT / 250),
    )  # fmt: skip


@comparison.side("spyx", environment="spyx", packages=("spyx", "jax"))
def spyx(case, given):
    import jax
    import jax.numpy as jnp
    import spyx.nn as snn
    from flax import nnx

    if case["cell"] != "LIF":
        raise RuntimeError("spyx has no Izhikevich neuron")
    cell = snn.RLIF((case["neurons"],), beta=LEAK, threshold=1, rngs=nnx.Rngs(0))
    cell.recurrent_w = nnx.Param(jnp.asarray(given["weights"].T))
    drive = jnp.asarray(given["drive"])

    def mean(cell, drive):
        return jnp.mean(snn.run(cell, drive)[0])

    compute = nnx.jit(nnx.value_and_grad(mean) if case["backward"] else mean)

    def run():
        jax.block_until_ready(compute(cell, drive))
        return {}

    return run
