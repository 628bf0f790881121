"""Training steps of an ELM neuron at the sizes of NeuronIO."""

import numpy as np

from harness import Comparison


def inputs(case):
    """Spikes (batch, time, channels) with inhibitory ones negative, targets (batch, time, 2), and the start's weights."""
    import jax

    from broadsheet.neurons import to_official

    rng = np.random.default_rng(0)
    spikes = (rng.random((case["batch"], case["steps"], 1278)) < 0.01).astype(np.float32)
    spikes[..., 639:] *= -1
    target = np.stack([rng.random(spikes.shape[:2]) < 0.01, rng.standard_normal(spikes.shape[:2])], -1).astype(np.float32)
    cell = make_cell(case, jax.random.key(0))
    routing = {"channel": cell.channel, "connected": cell.connected, "tau_m": cell.tau_m}
    return {"spikes": spikes, "target": target} | {f"w:{k}": v for k, v in to_official(cell).items()} | routing


def make_cell(case, key):
    from broadsheet.neurons import ELMCell

    return ELMCell(1278, 2, case["d_m"], d_tree=45, d_brch=100, routing="neighbour", tau_m=(1.0, 150.0), key=key)


comparison = Comparison(
    "ELM neuron, one training step at the NeuronIO size: batch 8, 500 ms, 1278 channels",
    {f"d_m = {d_m}": {"d_m": d_m, "batch": 8, "steps": 500} for d_m in (20, 100)},
    inputs,
    text="Forward, backward and an Adam step on half the squared error of the voltage and half the cross-entropy of the spikes, "
    "from the same weights; the loss after five steps agrees. In PyTorch the same cell, as a loop over time: eager, and compiled "
    "by TorchScript as the official code does.",
    agree={"loss": 1e-3},
)
STEPS = 5


@comparison.side("broadsheet", packages=("jax", "equinox"), devices=("cpu", "gpu"))
def ours(case, given):
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    from broadsheet.dynamics import trainable

    start = make_cell(case, jax.random.key(0))
    weights, rest = eqx.partition(start, trainable(start))
    optimiser = optax.adam(5e-4)
    spikes, target = jnp.asarray(given["spikes"]), jnp.asarray(given["target"])

    def loss(weights):
        out = jax.vmap(eqx.combine(weights, rest))(spikes)
        entropy = optax.sigmoid_binary_cross_entropy(out[..., 0], target[..., 0]).mean()
        return 0.5 * entropy + 0.5 * jnp.mean((out[..., 1] - target[..., 1]) ** 2)

    @jax.jit
    def step(weights, state):
        value, gradient = jax.value_and_grad(loss)(weights)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(weights, updates), state, value

    def run():
        now, state = weights, optimiser.init(weights)
        for _ in range(STEPS):
            now, state, value = step(now, state)
        return {"loss": value}

    return run


def torch_cell(case, given, script):
    import torch
    from torch.nn import functional

    weights = {name[2:]: torch.tensor(value) for name, value in given.items() if name.startswith("w:")}
    names = ["_proto_w_s", "mlp.network.0.weight", "mlp.network.0.bias", "mlp.network.2.weight", "mlp.network.2.bias"]
    names += ["w_y.weight", "w_y.bias"]
    channel = torch.tensor(given["channel"], dtype=torch.long)
    connected, tau_m = torch.tensor(given["connected"]).float(), torch.tensor(given["tau_m"])
    spikes, target = torch.tensor(given["spikes"]), torch.tensor(given["target"])
    kappa_s, kappa_m = float(np.exp(-1 / 5.0)), torch.exp(-1 / tau_m)

    def forward(
        x: torch.Tensor, raw: torch.Tensor, w1: torch.Tensor, b1: torch.Tensor, w2: torch.Tensor, b2: torch.Tensor,
        w_y: torch.Tensor, b_y: torch.Tensor, channel: torch.Tensor, connected: torch.Tensor, kappa_m: torch.Tensor, kappa_s: float,
    ) -> torch.Tensor:  # fmt: skip
        branch, memory = torch.zeros(x.shape[0], 45), torch.zeros(x.shape[0], kappa_m.shape[0])
        strength = torch.relu(raw).view(-1) * connected
        outputs = []
        for t in range(x.shape[1]):
            drive = (x[:, t].index_select(1, channel) * strength).view(x.shape[0], 45, 100).sum(-1)
            branch = kappa_s * branch + drive
            decayed = kappa_m * memory
            hidden = torch.relu(functional.linear(torch.cat([branch, decayed], 1), w1, b1))
            change = 1.7159 * torch.tanh(2.0 / 3.0 * functional.linear(hidden, w2, b2))
            memory = decayed + 5.0 * (1 - kappa_m) * change
            outputs.append(functional.linear(memory, w_y, b_y))
        return torch.stack(outputs, 1)

    model = torch.jit.script(forward) if script else forward

    def run():
        now = [weights[name].clone().requires_grad_() for name in names]
        optimiser = torch.optim.Adam(now, lr=5e-4, eps=1e-8)
        for _ in range(STEPS):
            out = model(spikes, *now, channel, connected, kappa_m, kappa_s)
            entropy = functional.binary_cross_entropy_with_logits(out[..., 0], target[..., 0])
            loss = 0.5 * entropy + 0.5 * torch.mean((out[..., 1] - target[..., 1]) ** 2)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return {"loss": loss.item()}

    return run


@comparison.side("PyTorch, eager", environment="torch", packages=("torch",))
def torch_eager(case, given):
    return torch_cell(case, given, script=False)


@comparison.side("PyTorch, TorchScript", environment="torch", packages=("torch",))
def torch_script(case, given):
    return torch_cell(case, given, script=True)
