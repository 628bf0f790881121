"""Brunel's network (2000, model A): 12 500 neurons, 1250 sources each, delta synapses, a Poisson background."""

from dataclasses import asdict
from functools import partial

import numpy as np

from harness import Comparison
from spiking import brian_run, nest_kernel, nest_run


def inputs(case):
    """Parameters and synapses."""
    from broadsheet.networks.balanced import Brunel

    made = Brunel()
    edges = made.edges(case["seed"])
    weight = {"j": np.where(edges.port == 0, made.weight, -made.g * made.weight)}
    return asdict(made) | weight | {"pre": edges.pre, "post": edges.post, "size": made.size, "background": made.background}


comparison = Comparison(
    "Brunel's network, 12 500 neurons, 15.6 million synapses, 0.5 s at 0.1 ms",
    {"g = 5, eta = 2": {"ms": 500.0, "seed": 1}},
    inputs,
    text="Asynchronous irregular state. The same synapses in Broadsheet, Brian2 and BrainPy; NEST draws them by the same law. "
    "Every neuron has a Poisson background of its own. Potentials start at rest. Brian2 and NEST time their simulation loop "
    "alone.",
    agree={"rate_hz": 0.1},
)


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    import jax

    from broadsheet.networks import simulate
    from broadsheet.networks.balanced import Brunel

    system, steps = Brunel().system(case["seed"]), round(case["ms"] / given["dt"])

    def run():
        _, spikes = simulate(system, steps=steps, key=jax.random.key(0))
        return {"rate_hz": len(spikes.steps) / given["size"] / case["ms"] * 1000}

    return run


def brian(case, given, threads):
    import brian2 as b

    b.set_device("cpp_standalone", build_on_run=False)
    b.prefs.devices.cpp_standalone.openmp_threads = threads
    b.defaultclock.dt = float(given["dt"]) * b.ms
    names = {"tau": float(given["tau"]) * b.ms, "Vt": float(given["threshold"]), "Vr": float(given["reset"])}
    neurons = b.NeuronGroup(
        int(given["size"]), "dv/dt = -v/tau : 1 (unless refractory)", threshold="v > Vt", reset="v = Vr",
        refractory=float(given["refractory"]) * b.ms, namespace=names, method="exact",
    )  # fmt: skip
    background = float(given["background"])  # spikes a ms
    outside = b.PoissonInput(neurons, "v", 10_000, background / 10 * b.Hz, weight=float(given["weight"]))
    parts = [neurons, outside]
    for weight in np.unique(given["j"]):
        synapses = b.Synapses(neurons, neurons, on_pre=f"v += {weight}", delay=float(given["delay"]) * b.ms)
        chosen = given["j"] == weight
        synapses.connect(i=given["pre"][chosen], j=given["post"][chosen])
        parts.append(synapses)
    return brian_run(b, parts, neurons, case["ms"])


for name, threads in (("Brian2", 0), ("Brian2, 2 threads", 2)):
    comparison.side(name, environment="brian2", packages=("brian2",))(partial(brian, threads=threads))


@comparison.side("NEST, 2 threads", environment="nest", packages=("nest-simulator",))
def nest_two(case, given):
    import nest

    def build():
        nest_kernel(nest, given["dt"])
        options = {"C_m": 1.0, "tau_m": float(given["tau"]), "E_L": 0.0, "V_th": float(given["threshold"])}
        options |= {"V_reset": float(given["reset"]), "t_ref": float(given["refractory"]), "V_m": 0.0}
        neurons = nest.Create("iaf_psc_delta", int(given["size"]), options)
        excitatory = int(given["excitatory"])
        weight, delay = float(given["weight"]), float(given["delay"])
        for sources, strength in ((neurons[:excitatory], weight), (neurons[excitatory:], -float(given["g"]) * weight)):
            rule = {"rule": "fixed_indegree", "indegree": round(float(given["share"]) * len(sources))}
            nest.Connect(sources, neurons, rule, {"weight": strength, "delay": delay})
        outside = nest.Create("poisson_generator", params={"rate": 1000 * float(given["background"])})
        nest.Connect(outside, neurons, syn_spec={"weight": weight, "delay": float(given["dt"])})
        return neurons

    return nest_run(nest, build, case["ms"])


@comparison.side("BrainPy", environment="brainpy", packages=("brainpy", "jax"))
def brainpy(case, given):
    import brainpy as bp
    import brainpy.math as bm

    bm.set_dt(float(given["dt"]))
    size, excitatory, mean = int(given["size"]), int(given["excitatory"]), float(given["background"] * given["dt"])
    bounds, weight = ((0, excitatory), (excitatory, size)), float(given["weight"])

    class Network(bp.DynSysGroup):
        def __init__(self):
            super().__init__()
            self.N = bp.dyn.LifRef(
                size, V_rest=0.0, V_th=float(given["threshold"]), V_reset=float(given["reset"]), tau=float(given["tau"]),
                tau_ref=float(given["refractory"]), V_initializer=bp.init.ZeroInit(), method="exp_auto",
            )  # fmt: skip
            self.delay = bp.VarDelay(self.N.spike, entries={"back": float(given["delay"])})
            self.ports = []
            for port, (first, last) in enumerate(bounds):
                chosen = (given["pre"] >= first) & (given["pre"] < last)
                pairs = bp.conn.IJConn(given["pre"][chosen] - first, given["post"][chosen])(last - first, size)
                strength = weight if port == 0 else -float(given["g"]) * weight
                projection = bp.dyn.HalfProjDelta(bp.dnn.EventCSRLinear(pairs, strength), self.N)
                setattr(self, f"port{port}", projection)
                self.ports.append(projection)

        def update(self):
            spikes = self.delay.at("back")
            for projection, (first, last) in zip(self.ports, bounds, strict=True):
                projection(spikes[first:last])
            self.N.V += weight * bm.random.poisson(mean, size) * (self.N.t_last_spike + self.N.tau_ref <= bp.share["t"])
            self.delay(self.N())
            return self.N.spike.value

    network = Network()
    indices = np.arange(round(case["ms"] / float(given["dt"])))
    simulate = bm.jit(lambda: bm.for_loop(lambda i: network.step_run(i), indices, progress_bar=False))

    def run():
        network.reset()
        spikes = np.asarray(simulate())
        return {"rate_hz": spikes.sum() / size / case["ms"] * 1000}

    return run
