"""Training a module of the place-recognition network on images, one after the other."""

import numpy as np

from harness import Comparison


def inputs(case):
    """Images, the input spikes of each presentation (ms, input), initial weights and delays (ms)."""
    import jax

    from broadsheet.vision.place_modules import PlaceCells, PlaceModule, _draw, _most_events
    from broadsheet.vision.places import photographed

    reference, _ = photographed(case["images"] // 2, np.random.default_rng(0), variants=1)
    images = reference.reshape(-1, 784)
    net = PlaceModule(PlaceCells(case["neurons"], dt=case["dt"]))
    module = net.init(jax.random.key(0))
    rates = images / net.intensity
    size = _most_events(rates)
    steps, sent = [], []
    for k, rate in enumerate(rates):
        drawn = _draw(np.float32(rate), jax.random.fold_in(jax.random.key(1), k), case["dt"], size)
        pairs = np.unique(np.stack([drawn.steps, drawn.inputs])[:, : int(drawn.drawn)], axis=1)  # one spike a step and input
        steps.append(pairs[0] * case["dt"] + 500.0 * k)
        sent.append(pairs[1])
    return {"images": images, "times": np.concatenate(steps), "inputs": np.concatenate(sent), "weights": np.asarray(module.weights),
            "delays": np.asarray(module.delays) * case["dt"]}  # fmt: skip


comparison = Comparison(
    "Place module: training on eight images, half a second each",
    {f"784 inputs, {neurons} neurons, steps of {dt} ms": {"neurons": neurons, "dt": dt, "images": 8}
     for neurons, dt in ((48, 0.5), (48, 0.1), (400, 0.1))},
    inputs,
    text="Conductance neurons that silence each other, a delay on every synapse, triplet STDP and adaptive thresholds, from the same "
    "weights, delays and input spikes, of which Brian2 counts those of an input within one step once; Brian2 as the authors' program "
    "has it, compiled by Cython. Images with the rests after them, through which potentials go on; in Brian2 the loop alone is timed.",
    agree={"spikes": 0.3},
    turns=3,
)  # fmt: skip


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    import jax
    import jax.numpy as jnp

    from broadsheet.vision.place_modules import PlaceCells, PlaceModule

    net = PlaceModule(PlaceCells(case["neurons"], dt=case["dt"]))
    delays = jnp.asarray(np.round(given["delays"] / case["dt"]), jnp.int32)
    first = net.init(jax.random.key(0))._replace(weights=jnp.asarray(given["weights"]), delays=delays)

    def run():
        return {"spikes": net.train(first, given["images"], jax.random.key(1))[1].sum()}

    return run


@comparison.side("Brian2", environment="brian2", packages=("brian2",))
def brian2(case, given):
    import time

    from brian2 import Network, NeuronGroup, SpikeGeneratorGroup, SpikeMonitor, Synapses, defaultclock, ms, prefs

    prefs.codegen.target = "cython"
    n = case["neurons"]

    def run():
        defaultclock.dt = case["dt"] * ms
        source = SpikeGeneratorGroup(784, given["inputs"], given["times"] * ms)
        exc = NeuronGroup(
            n,
            """dv/dt = ((-65 - v) + ge * (0 - v) + gi * (-100 - v)) / (100 * ms) : 1 (unless refractory)
            dge/dt = -ge / (1 * ms) : 1
            dgi/dt = -gi / (0.5 * ms) : 1
            dtheta/dt = -theta / (1e7 * ms) : 1
            dtimer/dt = 0.1 : second""",
            threshold="v > theta - 72 and timer > 5 * ms", reset="v = -65; timer = 0 * ms; theta += 0.05", refractory=5 * ms,
            method="euler" if case["dt"] < 0.2 else "exponential_euler",
        )  # fmt: skip
        inh = NeuronGroup(
            n,
            """dv/dt = ((-60 - v) + ge * (0 - v) + gi * (-85 - v)) / (10 * ms) : 1 (unless refractory)
            dge/dt = -ge / (1 * ms) : 1
            dgi/dt = -gi / (0.5 * ms) : 1""",
            threshold="v > -40", reset="v = -45", refractory=2 * ms, method="euler" if case["dt"] < 0.2 else "exponential_euler",
        )  # fmt: skip
        exc.v, exc.theta, exc.timer, inh.v = -65, 20, 100 * ms, -60
        learning = Synapses(
            source, exc,
            """w : 1
            dpre/dt = -pre / (20 * ms) : 1 (event-driven)
            dpost1/dt = -post1 / (20 * ms) : 1 (event-driven)
            dpost2/dt = -post2 / (40 * ms) : 1 (event-driven)""",
            on_pre="ge_post += w; pre = 1; w = clip(w - 0.0001 * post1, 0, 1)",
            on_post="w = clip(w + 0.01 * pre * post2, 0, 1); post1 = 1; post2 = 1",
        )  # fmt: skip
        learning.connect()
        learning.w, learning.delay = given["weights"].ravel(), given["delays"].ravel() * ms
        excite = Synapses(exc, inh, on_pre="ge_post += 10.4")
        excite.connect(j="i")
        inhibit = Synapses(inh, exc, on_pre="gi_post += 17")
        inhibit.connect(condition="i != j")
        monitor = SpikeMonitor(exc)
        network = Network(source, exc, inh, learning, excite, inhibit, monitor)
        network.run(0 * ms)
        seconds = 0.0
        for _ in range(case["images"]):
            weights = np.asarray(learning.w).reshape(784, n)
            learning.w = (weights * 78 / weights.sum(axis=0)).ravel()
            start = time.perf_counter()
            network.run(500 * ms)
            seconds += time.perf_counter() - start
        return {"spikes": monitor.num_spikes, "seconds": seconds}

    return run
