"""The Vogels-Abbott networks with currents (CUBA) and conductances (COBA): 4000 neurons, 2 % connected, one second."""

from dataclasses import asdict
from functools import partial

import numpy as np

from harness import Comparison
from spiking import brian_run, nest_kernel, nest_run


def inputs(case):
    """Parameters, synapses, and potentials and conductances at the start."""
    from broadsheet.networks import balanced

    made = getattr(balanced, case["network"])()
    edges = made.edges(case["seed"])
    start = {"g": np.zeros((2, made.size)) if case["network"] == "Cuba" else made.conductances(case["seed"])}
    synapses = {"pre": edges.pre, "post": edges.post, "port": edges.port, "v": made.start(case["seed"])}
    return asdict(made) | synapses | start


comparison = Comparison(
    "Vogels-Abbott networks, 4000 neurons, 1 s at 0.1 ms",
    {"CUBA": {"network": "Cuba", "ms": 1000.0, "seed": 1}, "COBA": {"network": "Coba", "ms": 1000.0, "seed": 1}},
    inputs,
    text="The same synapses, potentials and conductances at the start everywhere; float32 in Broadsheet and BrainPy, float64 in "
    "Brian2 and NEST. Spikes are recorded. Rates differ a little because the networks are chaotic. Brian2 and NEST time their "
    "simulation loop alone.",
    agree={"rate_hz": 0.25},
)


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    from broadsheet.networks import balanced, simulate

    system = getattr(balanced, case["network"])().system(case["seed"])
    steps = round(case["ms"] / given["dt"])

    def run():
        _, spikes = simulate(system, steps=steps)
        return {"rate_hz": len(spikes.steps) / given["size"] / case["ms"] * 1000}

    return run


def brian(case, given, threads):
    import brian2 as b

    b.set_device("cpp_standalone", build_on_run=False)
    b.prefs.devices.cpp_standalone.openmp_threads = threads
    b.defaultclock.dt = float(given["dt"]) * b.ms
    names = {"El": float(given["rest"]), "Vt": float(given["threshold"]), "Vr": float(given["reset"])}
    names |= {"taum": float(given["tau"]) * b.ms, "taue": given["tau_syn"][0] * b.ms, "taui": given["tau_syn"][1] * b.ms}
    currents = case["network"] == "Cuba"
    drive = "ge + gi - (v - El)" if currents else "ge*(Ee - v) + gi*(Ei - v) - (v - El)"
    if not currents:
        names |= {"Ee": given["reversal"][0], "Ei": given["reversal"][1]}
    neurons = b.NeuronGroup(
        int(given["size"]),
        f"dv/dt = ({drive})/taum : 1 (unless refractory)\ndge/dt = -ge/taue : 1\ndgi/dt = -gi/taui : 1",
        threshold="v > Vt", reset="v = Vr", refractory=float(given["refractory"]) * b.ms, namespace=names,
        method="exact" if currents else "exponential_euler",
    )  # fmt: skip
    neurons.v, (neurons.ge, neurons.gi) = given["v"], given["g"]
    kept = [neurons]
    for port, name in enumerate(("ge", "gi")):
        synapses = b.Synapses(neurons, neurons, on_pre=f"{name} += {given['weights'][port]}")
        chosen = given["port"] == port
        synapses.connect(i=given["pre"][chosen], j=given["post"][chosen])
        kept.append(synapses)
    return brian_run(b, kept, neurons, case["ms"])


for name, threads in (("Brian2", 0), ("Brian2, 2 threads", 2)):
    comparison.side(name, environment="brian2", packages=("brian2",))(partial(brian, threads=threads))


@comparison.side("NEST, 2 threads", environment="nest", packages=("nest-simulator",))
def nest_two(case, given):
    import nest

    weights = given["weights"] * (1, 1 if case["network"] == "Cuba" else -1)  # NEST tells the synapse by the sign

    def build():
        nest_kernel(nest, given["dt"])
        membrane = {"E_L": "rest", "V_th": "threshold", "V_reset": "reset", "t_ref": "refractory"}
        options = {name: float(given[field]) for name, field in membrane.items()}
        options |= {
            "tau_syn_ex": given["tau_syn"][0],
            "tau_syn_in": given["tau_syn"][1],
            "C_m": float(given["tau"]),
            "I_e": 0.0,
        }
        if case["network"] == "Cuba":  # with C_m = tau_m, a current in pA over tau is a jump of the drive in mV
            neurons = nest.Create("iaf_psc_exp", int(given["size"]), options | {"tau_m": float(given["tau"])})
        else:  # with a leak of 1 nS, conductances are relative to the leak
            reversal = {"g_L": 1.0, "E_ex": given["reversal"][0], "E_in": given["reversal"][1]}
            neurons = nest.Create("iaf_cond_exp", int(given["size"]), options | reversal)
            neurons.g_ex, neurons.g_in = given["g"]
        neurons.V_m = given["v"]
        synapses = {"weight": weights[given["port"]], "delay": np.full(len(given["pre"]), float(given["dt"]))}
        nest.Connect(given["pre"] + 1, given["post"] + 1, "one_to_one", synapses)
        return neurons

    return nest_run(nest, build, case["ms"])


@comparison.side("BrainPy", environment="brainpy", packages=("brainpy", "jax"))
def brainpy(case, given):
    import brainpy as bp
    import brainpy.math as bm

    bm.set_dt(float(given["dt"]))
    size, excitatory = int(given["size"]), round(float(given["share"]) * int(given["size"]))
    bounds = ((0, excitatory), (excitatory, size))

    class Network(bp.DynSysGroup):
        def __init__(self):
            super().__init__()
            self.N = bp.dyn.LifRef(
                size, V_rest=float(given["rest"]), V_th=float(given["threshold"]), V_reset=float(given["reset"]),
                tau=float(given["tau"]), tau_ref=float(given["refractory"]), V_initializer=bm.asarray(given["v"], bm.float32),
                method="exp_auto",
            )  # fmt: skip
            self.delay = bp.VarDelay(self.N.spike, entries={"back": None})
            self.ports = []
            for port, (first, last) in enumerate(bounds):
                chosen = given["port"] == port
                pairs = bp.conn.IJConn(given["pre"][chosen] - first, given["post"][chosen])(last - first, size)
                out = bp.dyn.COBA.desc(E=given["reversal"][port]) if "reversal" in given else bp.dyn.CUBA.desc()
                projection = bp.dyn.HalfProjAlignPostMg(
                    bp.dnn.EventCSRLinear(pairs, float(given["weights"][port])),
                    bp.dyn.Expon.desc(size, tau=float(given["tau_syn"][port])), out, self.N,
                )  # fmt: skip
                setattr(self, f"port{port}", projection)
                self.ports.append(projection)

        def start(self):
            self.reset()
            for port, projection in enumerate(self.ports):
                projection.refs["syn"].g.value = bm.asarray(given["g"][port], bm.float32)

        def update(self, drive):
            spikes = self.delay.at("back")
            for projection, (first, last) in zip(self.ports, bounds, strict=True):
                projection(spikes[first:last])
            self.delay(self.N(drive))
            return self.N.spike.value

    network = Network()
    indices = np.arange(round(case["ms"] / float(given["dt"])))
    simulate = bm.jit(lambda: bm.for_loop(lambda i: network.step_run(i, 0.0), indices, progress_bar=False))

    def run():
        network.start()
        spikes = np.asarray(simulate())
        return {"rate_hz": spikes.sum() / size / case["ms"] * 1000}

    return run
