"""A read-out learned by recursive least squares, trial by trial."""

import numpy as np

from harness import Comparison


def inputs(case):
    """Features of a spiking reservoir in each trial, and the targets."""
    import jax
    import jax.numpy as jnp

    from broadsheet.networks.prediction import Block, cue_trials, library, target
    from broadsheet.networks.reservoir import reservoir

    jax.config.update("jax_enable_x64", True)
    given = library(reservoir(jax.random.key(0), case["neurons"]), jax.random.key(1))
    trials = cue_trials(jax.random.key(2), [Block(case["trials"], (0.8, 0.2), 300.0)])
    chosen = np.random.default_rng(0).integers(0, len(given.features), case["trials"])
    Y = jax.vmap(lambda outcome, time: target(outcome, time, given.times, 2))(trials.outcomes, trials.times)
    return {"X": np.asarray(given.features, np.float64), "chosen": chosen, "Y": np.asarray(jnp.asarray(Y), np.float64)}


comparison = Comparison(
    "Recursive least squares: two outputs, 167 samples a trial",
    {f"{neurons} features, {trials} trials": {"neurons": neurons, "trials": trials} for neurons, trials in ((400, 60), (1000, 20))},
    inputs,
    text="Features of 400 or 1000 Izhikevich neurons; the same weights in the end (double precision). ReservoirPy updates sample by "
    "sample; here weights are needed only between trials, and a trial is one block of the same recursion.",
    agree={"norm": 1e-6},
)  # fmt: skip
ALPHA = 0.1


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    from broadsheet.plasticity import RecursiveLeastSquares

    rule = RecursiveLeastSquares(jnp.zeros((case["neurons"], 2)), alpha=ALPHA)
    X, Y, chosen = (jnp.asarray(given[name]) for name in ("X", "Y", "chosen"))
    gate = jnp.ones(X.shape[1])

    @jax.jit
    def train(X, Y, chosen):
        def one(state, now):
            which, wanted = now
            return rule.trial(state, X[which], wanted, gate), None

        state, _ = jax.lax.scan(one, rule.init(jax.random.key(0)), (chosen, Y))
        return jnp.linalg.norm(rule.learned(state))

    def run():
        return {"norm": jax.block_until_ready(train(X, Y, chosen))}

    return run


@comparison.side("ReservoirPy", environment="reservoirpy", packages=("reservoirpy",))
def reservoirpy(case, given):
    from reservoirpy.nodes import RLS

    X, Y, chosen = given["X"], given["Y"], given["chosen"]

    def run():
        node = RLS(alpha=ALPHA, fit_bias=False)
        for which, wanted in zip(chosen, Y, strict=True):
            node.partial_fit(X[which], wanted)
        return {"norm": np.linalg.norm(node.Wout)}

    return run
