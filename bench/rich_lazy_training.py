"""A thousand steps of training of rate networks on short trials, from one start and from several."""

import numpy as np

from harness import Comparison

BATCH, STEPS, MADE = 32, 1000, 200


def inputs(case):
    """Weights of each start, and 200 batches of 2AF trials that are shown in turn."""
    import jax

    from broadsheet.networks import gaussian_weights
    from broadsheet.networks.cognitive_tasks import perceptual_decision

    rng, units = np.random.default_rng(0), case["units"]
    x, labels = (np.asarray(part) for part in perceptual_decision(jax.random.key(0), BATCH * MADE))
    return {
        "w_in": rng.uniform(-(3**-0.5), 3**-0.5, (units, 3)).astype(np.float32),
        "w_rec": np.stack([gaussian_weights(k, units) for k in range(case["starts"])]).astype(np.float32),
        "w_out": rng.uniform(-(units**-0.5), units**-0.5, (3, units)).astype(np.float32),
        "x": x.reshape(MADE, BATCH, 8, 3), "labels": labels.reshape(MADE, BATCH, 8).astype(np.int64),
    }  # fmt: skip


comparison = Comparison(
    "Training of rate networks on 2AF, a thousand steps",
    {f"{units} units, {starts} starts": {"units": units, "starts": starts} for units, starts in ((300, 1), (100, 1), (100, 8))},
    inputs,
    text="ReLU units without biases, 32 trials of 8 steps, cross-entropy at each, gradient descent with a momentum of 0.9 at 0.003. "
    "PyTorch's loop is that of the paper's program, on batches made beforehand; NeuroGym's making of them is left out.",
    agree={"loss": 2e-2},
    shown={"loss": "last loss"},
    turns=3,
)


@comparison.side("broadsheet", packages=("jax", "broadsheet"))
def broadsheet(case, arrays):
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from broadsheet.networks import RateRNN, train_starts

    net = RateRNN(3, case["units"], 3, key=jax.random.key(0))
    parts = (jnp.asarray(arrays["w_in"]), jnp.asarray(arrays["w_out"]))
    net = eqx.tree_at(lambda net: (net.w_in, net.w_out), net, parts)
    x, labels = jnp.asarray(arrays["x"]), jnp.asarray(arrays["labels"], jnp.int32)

    class Shown(eqx.Module):
        """One of the batches at random."""

        x: jax.Array
        labels: jax.Array

        def __call__(self, key, count):
            k = jax.random.randint(key, (), 0, len(self.x))
            return self.x[k], self.labels[k]

    task, probe = Shown(x, labels), (x[0], labels[0])
    starts = {f"{k}": weights for k, weights in enumerate(arrays["w_rec"])}

    def run():
        found = train_starts(net, starts, task, steps=STEPS, batch=BATCH, probe=probe, key=jax.random.key(1))
        return {"loss": found.losses[-1].mean()}

    return run


@comparison.side("PyTorch, the paper's loop", environment="torch", packages=("torch",))
def pytorch(case, arrays):
    import torch
    from torch.nn.functional import cross_entropy

    x = torch.from_numpy(arrays["x"]).transpose(1, 2)
    labels = torch.from_numpy(arrays["labels"]).transpose(1, 2)

    def forward(w_in, w_rec, w_out, one):
        hidden = torch.zeros(one.shape[1], w_rec.shape[0])
        states = []
        for step in one:
            hidden = torch.relu(step @ w_in.T + hidden @ w_rec.T)
            states.append(hidden)
        return torch.stack(states) @ w_out.T

    def run():
        torch.manual_seed(0)
        losses = []
        for start in arrays["w_rec"]:
            weights = [torch.tensor(each, requires_grad=True) for each in (arrays["w_in"], start, arrays["w_out"])]
            optimiser = torch.optim.SGD(weights, lr=0.003, momentum=0.9)
            for _ in range(STEPS):
                k = int(torch.randint(len(x), ()))
                optimiser.zero_grad()
                loss = cross_entropy(forward(*weights, x[k]).reshape(-1, 3), labels[k].reshape(-1))
                loss.backward()
                optimiser.step()
            with torch.no_grad():
                losses.append(cross_entropy(forward(*weights, x[0]).reshape(-1, 3), labels[0].reshape(-1)).item())
        return {"loss": np.mean(losses)}

    return run
