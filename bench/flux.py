"""A fluxon on a Josephson transmission line."""

import numpy as np

from harness import Comparison

DT = 0.05  # ps
SPACING = 8.0  # pH

comparison = Comparison(
    "Single flux quanta: sixteen fluxons, each down a line of its own",
    {f"{junctions} junctions, {length} ps": {"junctions": junctions, "length": length, "lines": 16}
     for junctions, length in ((50, 250), (200, 500))},
    text="Critically damped junctions of 100 µA, 8 pH apart, biased at 70 µA, steps of 0.05 ps. In pyjjasim every branch holds a junction: "
    "inductors are overdamped junctions of 5 mA, their own inductance taken off. Phases at the end agree to 1e-3, times of arrival to 2 % "
    "of the way. JoSIM could not be had.",
    agree={"turns": 1e-3, "arrival": 0.02},
)  # fmt: skip


def times(case):
    """When each line's pulse comes, ps."""
    return 60.0 + 2.0 * np.arange(case["lines"])


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    import jax
    import jax.numpy as jnp

    from broadsheet.dynamics import rollout
    from broadsheet.neurons.josephson import Circuit, pulse_train, transmission_line

    circuit = Circuit()
    first, last = transmission_line(circuit, "line", case["junctions"])
    circuit.drive(first)
    system = circuit.build(dt=DT)
    node, steps = system.node(last), round(case["length"] / DT)
    drives = jnp.asarray(np.stack([pulse_train([at], steps, DT) for at in times(case)])[..., None], jnp.float32)
    compute = jax.jit(jax.vmap(lambda drive: rollout(system, drive, record=lambda state, phase: phase[node])[1]))

    def run():
        phase = np.asarray(compute(drives))
        return {"turns": phase[:, -1].mean() / (2 * np.pi), "arrival": (phase > np.pi).argmax(axis=1).mean() * DT}

    return run


@comparison.side("pyjjasim", environment="pyjjasim", packages=("pyjjasim", "numpy"))
def pyjjasim(case, given):
    np.asscalar = lambda array: array.item()  # it calls what NumPy no longer has
    from pyjjasim import Circuit, EmbeddedGraph, TimeEvolutionProblem

    n, count, steps = case["junctions"], case["lines"], round(case["length"] / DT)
    shunt = np.sqrt(2067.833848 / (2 * np.pi * 100.0 * 0.07))
    unit_time, unit_inductance = 2067.833848 / (2 * np.pi * 100.0 * shunt), 2067.833848 / (2 * np.pi * 100.0)
    ground = n
    graph = EmbeddedGraph(
        np.append(np.arange(n), n / 2), np.append(np.zeros(n), -float(n)), np.append(np.arange(n), np.arange(n - 1)),
        np.append(np.full(n, ground), np.arange(1, n)),
    )  # fmt: skip
    a, b = graph.get_edges()
    junction = (a == ground) | (b == ground)
    circuit = Circuit(
        graph, critical_current=np.where(junction, 1.0, 50.0), resistance=np.where(junction, 1.0, 0.02),
        capacitance=np.where(junction, 1.0, 0.0), inductance=np.where(junction, 0.0, SPACING / unit_inductance - 1 / 50.0),
    )  # fmt: skip
    t = DT * np.arange(steps)
    sources = np.zeros((len(a), count, steps))
    sources[junction] = 0.7 * np.minimum(t / 20, 1)
    edge = {int(min(x, y)): k for k, (x, y) in enumerate(zip(a, b, strict=True)) if ground in (x, y)}
    pulses = 0.75 * (1 + np.cos(np.pi * np.clip((t - times(case)[:, None]) / 4, -1, 1)))
    sources[edge[0]] += pulses
    sources[junction] *= np.where(a < b, 1, -1)[junction][:, None, None]
    start = np.zeros((len(a), count))

    def run():
        problem = TimeEvolutionProblem(
            circuit, time_step=DT / unit_time, time_step_count=steps, current_sources=sources, store_voltage=False, store_current=False,
            config_at_minus_1=start, config_at_minus_2=start,
        )  # fmt: skip
        phase = np.abs(problem.compute().theta[edge[n - 1]])
        return {"turns": phase[:, -1].mean() / (2 * np.pi), "arrival": (phase > np.pi).argmax(axis=1).mean() * DT}

    return run
