"""Stochastic-gradient Langevin chains: our sampler, BlackJAX and posteriors on the same posteriors."""

import numpy as np

from harness import Comparison

CHAINS, BATCH, NOISE, PRIOR = 4, 64, 0.5, 1.0


def inputs(case):
    """Targets with noise of 0.5: linear in 20 inputs, or a wave of one input."""
    rng = np.random.default_rng(0)
    if case["model"] == "linear":
        X = rng.standard_normal((2048, 20))
        y = X @ rng.standard_normal(20)
    else:
        X = rng.uniform(-2, 2, (2048, 1))
        y = np.sin(3 * X[:, 0])
    sizes = [(20,)] if case["model"] == "linear" else [(1, 32), (32,), (32, 32), (32,), (32,), ()]
    starts = {f"start{k}": 0.3 * rng.standard_normal((CHAINS, *size)) for k, size in enumerate(sizes)}
    return {name: value.astype(np.float32) for name, value in {
        "X": X, "y": y + NOISE * rng.standard_normal(len(y)), **starts}.items()}  # fmt: skip


comparison = Comparison(
    "Langevin sampling: four chains of stochastic-gradient Langevin dynamics",
    {
        "linear model, 20 weights": {"model": "linear", "steps": 20_000, "step": 1e-5},
        "network, 1 153 weights": {"model": "network", "steps": 10_000, "step": 1e-5},
    },
    inputs,
    text="Minibatches of 64 of 2048 points, no preconditioning, four chains at once; the second half of each is kept, every 10th step. "
    "Noise differs, so spread (linear) and error of the mean (network) have to agree to a tenth. BlackJAX's loop is compiled as a whole, as its "
    "guide has it; posteriors runs one step at a time, its chains through torch.func.vmap.",
    agree={"spread": 0.1, "error": 0.1},
)


def summary(case, samples, predict):
    """Of samples (chains, kept, ...): mean deviation of the weights, or the root mean square error of the mean prediction."""
    if case["model"] == "linear":
        return {"spread": float(np.mean(np.std(np.asarray(samples[0]).reshape(-1, 20), axis=0)))}
    x = np.linspace(-1.8, 1.8, 50, dtype=np.float32)[:, None]
    flat = [np.asarray(leaf)[:, ::50].reshape(-1, *leaf.shape[2:]) for leaf in samples]
    mean = np.mean([predict([leaf[k] for leaf in flat], x) for k in range(len(flat[0]))], axis=0)
    return {"error": float(np.sqrt(np.mean((mean - np.sin(3 * x[:, 0])) ** 2)))}


def model(case, tanh):
    """(weights, X) to predictions."""
    if case["model"] == "linear":
        return lambda w, X: X @ w[0]
    return lambda w, X: tanh(tanh(X @ w[0] + w[1]) @ w[2] + w[3]) @ w[4] + w[5]


def starts_of(given):
    return [given[f"start{k}"] for k in range(sum(name.startswith("start") for name in given))]


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    import jax
    import jax.numpy as jnp

    from broadsheet.atoms.posterior import sample_chains

    predict, half = model(case, jnp.tanh), case["steps"] // 2

    def density(w, data, key):
        chosen = jax.random.randint(key, (BATCH,), 0, len(data[1]))
        errors = predict(w, data[0][chosen]) - data[1][chosen]
        prior = sum(jnp.sum(leaf**2) for leaf in w)
        return -prior / (2 * PRIOR**2) - len(data[1]) / BATCH * jnp.sum(errors**2) / (2 * NOISE**2)

    data = (jnp.asarray(given["X"]), jnp.asarray(given["y"]))
    starts = [jnp.asarray(leaf) for leaf in starts_of(given)]

    def run():
        found = sample_chains(
            density, starts, data, steps=case["steps"], keep=half // 10, burn_in=half, step=case["step"], key=jax.random.key(0),
            preconditioned=False,
        )  # fmt: skip
        return summary(case, found, model(case, np.tanh))

    return run


@comparison.side("BlackJAX", environment="blackjax", packages=("blackjax", "jax"), devices=("cpu", "gpu"))
def blackjax(case, given):
    import blackjax
    import jax
    import jax.numpy as jnp

    predict, half = model(case, jnp.tanh), case["steps"] // 2
    data = (jnp.asarray(given["X"]), jnp.asarray(given["y"]))

    def log_prior(w):
        return -sum(jnp.sum(leaf**2) for leaf in w) / (2 * PRIOR**2)

    def log_likelihood(w, point):
        return -((predict(w, point[0][None])[0] - point[1]) ** 2) / (2 * NOISE**2)

    gradient = blackjax.sgmcmc.gradients.grad_estimator(log_prior, log_likelihood, len(data[1]))
    sgld = blackjax.sgld(gradient)

    def one(w, key):
        choose, move = jax.random.split(key)
        chosen = jax.random.randint(choose, (BATCH,), 0, len(data[1]))
        return sgld.step(move, w, (data[0][chosen], data[1][chosen]), case["step"])

    @jax.jit
    def chains(starts, key):
        def chain(w, key):
            burnt, kept = jax.random.split(key)
            w = jax.lax.fori_loop(0, half, lambda n, w: one(w, jax.random.fold_in(burnt, n)), w)

            def thin(w, key):
                w = jax.lax.fori_loop(0, 10, lambda n, w: one(w, jax.random.fold_in(key, n)), w)
                return w, w

            return jax.lax.scan(thin, w, jax.random.split(kept, half // 10))[1]

        return jax.vmap(chain)(starts, jax.random.split(key, CHAINS))

    starts = [jnp.asarray(leaf) for leaf in starts_of(given)]
    return lambda: summary(case, chains(starts, jax.random.key(0)), model(case, np.tanh))


@comparison.side("posteriors", environment="blackjax", packages=("posteriors", "torch"), limit=1200)
def posteriors(case, given):
    import posteriors
    import torch

    predict, half = model(case, torch.tanh), case["steps"] // 2
    X, y = torch.tensor(given["X"]), torch.tensor(given["y"])

    def log_posterior(w, batch):
        errors = predict(w, batch[0]) - batch[1]
        prior = -sum((leaf**2).sum() for leaf in w.values()) / (2 * PRIOR**2)
        return prior - len(y) / BATCH * (errors**2).sum() / (2 * NOISE**2), torch.tensor([])

    sampler = posteriors.sgmcmc.sgld.build(log_posterior, lr=case["step"], beta=0.0)
    step = torch.func.vmap(lambda w, a, b: sampler.update(sampler.init(w), (a, b))[0].params, randomness="different")

    def run():
        torch.manual_seed(0)
        w, kept = {k: torch.tensor(leaf) for k, leaf in enumerate(starts_of(given))}, []
        for n in range(case["steps"]):
            chosen = torch.randint(len(y), (CHAINS, BATCH))
            w = step(w, X[chosen], y[chosen])
            if n >= half and (n + 1) % 10 == 0:
                kept.append([leaf.detach().numpy().copy() for leaf in w.values()])
        samples = [np.stack(leaves, axis=1) for leaves in zip(*kept, strict=True)]
        return summary(case, samples, model(case, np.tanh))

    return run
