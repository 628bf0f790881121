"""The switching GLM: one round of EM against the official loop, one state against nemos, smoothing against dynamax, likelihood against
hmmlearn, and cost against bins, trials and neurons."""

import os

import numpy as np

from harness import Comparison

BASE = {"states": 5, "neurons": 20, "bins": 2000, "trials": 3, "what": "round"}
comparison = Comparison(
    "Switching GLM: rounds of EM, smoothing, one state; one thread",
    {
        "round, free": BASE,
        "round, one-hot": BASE | {"what": "onehot"},
        "E-step": BASE | {"what": "expectation"},
        "smoothing alone": BASE | {"what": "smoothing"},
        "one state, whole fit": {"states": 1, "neurons": 20, "bins": 20_000, "trials": 1, "what": "one"},
        "likelihood beside a Poisson HMM": {"states": 3, "neurons": 10, "bins": 1000, "trials": 10, "what": "likelihood"},
        **{f"round of {bins} bins": {"states": 3, "neurons": 20, "bins": bins, "trials": 1, "what": "round"} for bins in (5000, 20_000, 80_000)},
        **{f"round of {trials} trials": {"states": 3, "neurons": 20, "bins": 1000, "trials": trials, "what": "round"} for trials in (5, 20, 80)},
        **{f"round of {n} neurons": {"states": 3, "neurons": n, "bins": 5000, "trials": 1, "what": "round"} for n in (50, 100, 200, 400)},
    },
    lambda case: _inputs(case),
    text="A round is an E-step over each sequence and an M-step. The official M-step is 50 steps of Adam in single precision. Ours, in "
    "double precision, is one safeguarded Fisher step for free couplings; for one-hot couplings it is 25 steps of Adam at twice the "
    "rate, on the second order around the couplings that there are, each over 2 draws of the types' noise, which ends higher. What an "
    "M-step computed of the likelihood is what the next round's E-step begins with. "
    "nemos fits one state by LBFGS. hmmlearn's Poisson HMM has no couplings: its likelihood is lower. Where a case has no peer it is "
    "for the curve of cost. The official code is run from a folder named by ONEHOT_HMMGLM.",
    agree={"log_likelihood_of_one": 1e-4, "smoothed": 1e-4},
    shown={"score": "held-out nats a bin"},
)  # fmt: skip


def _inputs(case):
    from broadsheet.recordings.switching_tasks import synthetic

    rng = np.random.default_rng(0)
    if case["neurons"] > 30 or case["bins"] > 5000:  # of independent neurons: their number is what counts
        return {"x": rng.poisson(0.3, (case["trials"], case["bins"], case["neurons"])).astype(np.int16)}
    system = synthetic(case["states"], case["neurons"], rng)
    twice = case["trials"] * (2 if case["what"] == "likelihood" else 1)
    x = system.counts(system.states(case["bins"], twice, rng), rng)
    return {"x": x[: case["trials"]].astype(np.int16), "test": x[case["trials"] :].astype(np.int16),
            "emission": 3 * rng.normal(size=(case["trials"], case["bins"], case["states"]))}  # fmt: skip


@comparison.side("broadsheet", packages=("jax",))
def ours(case, given):
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import optax

    from broadsheet.numerics.smoothed_sequences import smoothed_sequences
    from broadsheet.recordings import HMMGLM
    from broadsheet.recordings import switching_steps as steps
    from broadsheet.recordings.switching_em import blocks_of
    from broadsheet.recordings.switching_onehot import onehot_from
    from broadsheet.recordings.switching_tasks import exponential_filter, sticky

    states, what, x = case["states"], case["what"], given["x"]
    if what == "smoothing":
        initial, transition = jnp.full(states, -np.log(states)), jnp.log(sticky(states))
        smooth = jax.jit(lambda e: smoothed_sequences(initial, transition, e))
        emission = jnp.asarray(given["emission"])
        return lambda: {"smoothed": float((smooth(emission).states ** 2).sum())}
    if what == "one":
        return lambda: {"log_likelihood_of_one": HMMGLM(1, tol=1e-7).fit(x).score(x)}
    if what == "likelihood":
        return lambda: {"score": HMMGLM(states, link="sigmoid", restarts=1, random_state=0).fit(x).score(given["test"])}
    data = blocks_of(list(x), exponential_filter())
    rng = np.random.default_rng(1)
    W = np.concatenate([np.zeros((states, x.shape[2], 1)), 0.1 * rng.normal(size=(states, x.shape[2], x.shape[2]))], axis=2)
    state = HMMGLM(states, link="sigmoid")._state(data, W, sticky(states), W[0, :, 1:])
    types = onehot_from(W, True, True)
    start = (types, state[1], optax.adam(0.02).init(types), steps.emissions_of(data, types.effective(), "sigmoid"))
    numbers = {name: jnp.asarray(value) for name, value in {"tau": 0.2, "noise": 0.2, "rate": 0.02, "pseudocount": 0.1}.items()}

    def run():
        if what == "expectation":
            return steps.states_of(data, state[0], state[1], "sigmoid")
        if what == "onehot":
            return steps.onehot_step(data, start, jax.random.key(0), link="sigmoid", prior="concrete", steps=25, **numbers)
        return steps.em_step(data, state, link="sigmoid", share_bias=True, pseudocount=numbers["pseudocount"])

    def timed():
        jax.block_until_ready(run())
        return {}

    return timed


@comparison.side("official loop", environment="onehot", packages=("torch",))
def official(case, given):
    import sys
    import time

    if case["what"] not in ("round", "onehot", "expectation") or case["states"] != 5:
        raise RuntimeError("no peer in this case")
    sys.path.insert(0, os.environ["ONEHOT_HMMGLM"])
    import torch
    from hmmglm.deprecated import model, nonlinearities, utils

    torch.set_num_threads(1)
    basis = utils.exp_basis(1, 5, 5)
    x = torch.tensor(given["x"], dtype=torch.float32)
    y = utils.convolve_spikes_with_basis(x, basis)
    kind = model.OnehotHMMGLM if case["what"] == "onehot" else model.NaiveHMMGLM
    made = kind(case["states"], case["neurons"], basis, activation=nonlinearities.Sigmoid())
    made._bias.data = x.mean(dim=(0, 1))
    optimiser = torch.optim.Adam(made.parameters(), lr=0.01)

    def run():
        start = time.perf_counter()
        for one, past in zip(x, y, strict=True):
            gamma, xi = made.forward_backward(one, past)
            if case["what"] == "expectation":
                continue
            if case["what"] == "onehot":
                made.set_adjacency_type("gumbel_softmax")
            for _ in range(50):
                loss = -made.m_step(one, past, gamma, xi)
                if case["what"] == "onehot":
                    loss = loss - made.adjacency_prior_log_likelihood()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                if case["what"] == "onehot":
                    made.correct_extreme_onehot()
            if case["what"] == "onehot":
                made.set_adjacency_type("softmax")
        return {"seconds": time.perf_counter() - start}

    return run


@comparison.side("nemos", environment="nemos", packages=("nemos",))
def nemos(case, given):
    if case["what"] != "one":
        raise RuntimeError("no peer in this case")
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import jax

    jax.config.update("jax_enable_x64", True)
    import nemos as nmo

    x = given["x"][0].astype(float)
    weights = np.exp(-np.arange(1.0, 6))
    weights /= weights.sum()
    y = np.zeros(x.shape)
    for k, weight in enumerate(weights, 1):
        y[k:] += weight * x[:-k]

    def run():
        model = nmo.glm.PopulationGLM(
            observation_model=nmo.observation_models.PoissonObservations(),
            inverse_link_function=jax.nn.softplus,
            solver_name="LBFGS",
        )
        model.fit(y, x)
        return {"log_likelihood_of_one": float(model.score(y, x, score_type="log-likelihood")) * x.shape[1]}

    return run


@comparison.side("dynamax", environment="dynamax", packages=("dynamax",))
def dynamax(case, given):
    if case["what"] != "smoothing":
        raise RuntimeError("no peer in this case")
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from dynamax.hidden_markov_model import hmm_smoother

    states = case["states"]
    initial, transition = jnp.full(states, 1 / states), jnp.where(jnp.eye(states, dtype=bool), 0.98, 0.02 / (states - 1))
    smooth = jax.jit(jax.vmap(lambda e: hmm_smoother(initial, transition, e).smoothed_probs))
    emission = jnp.asarray(given["emission"])
    return lambda: {"smoothed": float((smooth(emission) ** 2).sum())}


@comparison.side("hmmlearn", environment="hmmlearn", packages=("hmmlearn",))
def hmmlearn(case, given):
    if case["what"] != "likelihood":
        raise RuntimeError("no peer in this case")
    from hmmlearn.hmm import PoissonHMM

    x, test = given["x"], given["test"]

    def run():
        model = PoissonHMM(case["states"], n_iter=100, random_state=0).fit(x.reshape(-1, x.shape[2]), [x.shape[1]] * len(x))
        return {"score": model.score(test.reshape(-1, x.shape[2]), [test.shape[1]] * len(test)) / test[..., 0].size}

    return run
