"""Multiplicative diffusion beside the same network, loss and sampler in PyTorch."""

from itertools import pairwise

import numpy as np

from harness import Comparison

STEPS, BATCH, HIDDEN, DEPTH, SIGMA = 500, 128, 256, 3, 0.8


def inputs(case):
    """Positive rows: what is learnt."""
    rng = np.random.default_rng(0)
    return {"x": (1 + rng.beta(0.6, 0.6, (2000, case["columns"]))).astype(np.float32)}


comparison = Comparison(
    "Learning positive data and drawing from it, a thousand samples",
    {
        f"{columns} columns, {reverse} steps back": {"columns": columns, "reverse": reverse}
        for columns, reverse in ((64, 500), (784, 200))
    },
    inputs,
    text="Three layers of 256 units, 500 steps of Adam on batches of 128, then 1000 samples by multiplicative steps from the fitted "
    "log-normal law. Both sides draw their own noise: the loss of the last hundred steps and the spread of log x agree.",
    agree={"loss": 5e-2, "spread": 5e-2},
    shown={"loss": "loss of the last 100 steps", "spread": "spread of log x"},
    turns=3,
)


@comparison.side("broadsheet", packages=("jax", "broadsheet"))
def broadsheet(case, arrays):
    from broadsheet.transport import PositiveDiffusion

    def run():
        model = PositiveDiffusion(SIGMA, weight="noise", hidden=HIDDEN, depth=DEPTH, steps=STEPS, batch=BATCH, average=0.98)
        made = model.fit(arrays["x"]).sample(1000, steps=case["reverse"])
        return {"loss": model.losses_[-100:].mean(), "spread": np.log(made).std()}

    return run


@comparison.side("PyTorch", environment="torch", packages=("torch",))
def pytorch(case, arrays):
    import torch

    x, columns = torch.from_numpy(arrays["x"]), case["columns"]
    logs = torch.log(x)
    mean, variance = logs.mean(0), logs.var(0)

    def features(t):
        phases = torch.pi * 2.0 ** torch.arange(4) * t
        return torch.cat([torch.log(t) / 3, torch.sin(phases), torch.cos(phases)], dim=1)

    def run():
        torch.manual_seed(0)
        sizes = [columns + 9, *[HIDDEN] * DEPTH, columns]
        layers = []
        for a, b in pairwise(sizes):
            layers += [torch.nn.Linear(a, b), torch.nn.SiLU()]
        net = torch.nn.Sequential(*layers[:-1])
        average = {name: value.detach().clone() for name, value in net.named_parameters()}
        optimiser = torch.optim.Adam(net.parameters(), 1e-3)

        def noise(y, t):
            return net(torch.cat([(y - mean) / torch.sqrt(variance + SIGMA**2 * t), features(t)], dim=1))

        losses = []
        for _ in range(STEPS):
            y = logs[torch.randint(len(x), (BATCH,))]
            t, eps = 1e-3 + (1 - 1e-3) * torch.rand(BATCH, 1), torch.randn(BATCH, columns)
            loss = ((noise(y + SIGMA * torch.sqrt(t) * eps, t) - eps) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
            with torch.no_grad():
                for name, value in net.named_parameters():
                    average[name].lerp_(value, 0.02)
        net.load_state_dict(average)
        with torch.no_grad():
            y = mean + torch.sqrt(variance + SIGMA**2) * torch.randn(1000, columns)
            times = torch.linspace(1, 1e-3, case["reverse"] + 1)
            for k, (now, then) in enumerate(pairwise(times)):
                t = now.expand(1000, 1)
                step, last = now - then, k == case["reverse"] - 1
                y = y - step * SIGMA * noise(y, t) / torch.sqrt(now)
                y = y if last else y + SIGMA * torch.sqrt(step) * torch.randn_like(y)
        return {"loss": torch.stack(losses[-100:]).mean().numpy(), "spread": y.std().numpy()}

    return run
