"""Traces that other programs make of small networks, kept under tests/references/spiking for the tests.

python bench/references.py write                                   our networks as NIR files, in our environment
bench/.environments/brian2/bin/python bench/references.py brian    Brian2: voltages and spikes of single cells
bench/.environments/torch/bin/python bench/references.py snntorch  snnTorch: its own NIR files, and ours, run there
bench/.environments/torch/bin/python bench/references.py norse     Norse: likewise
"""

import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent.parent / "tests" / "references" / "spiking"


def inputs():
    """Kicks to two synapses of three neurons at steps of 0.1 ms, and currents for three Izhikevich cells."""
    rng = np.random.default_rng(0)
    kicks = np.zeros((4000, 2, 3))
    kicks[:, 0] = 3.0 * (rng.random((4000, 3)) < 0.06)
    kicks[:, 1] = -4.0 * (rng.random((4000, 3)) < 0.01)
    currents = np.repeat(rng.uniform(0, 15, (40, 3)), 100, axis=0)
    return kicks, currents


def brian():
    import brian2 as b

    b.prefs.codegen.target = "numpy"
    kicks, currents = inputs()
    out = {"kicks": kicks, "currents": currents}
    b.defaultclock.dt = 0.1 * b.ms
    step = 0.1 * b.ms
    for name, drive, method in (
        ("current", "ge + gi - (v + 60)", "exact"),
        ("conductance", "ge*(0 - v) + gi*(-80 - v) - (v + 60)", "exponential_euler"),
    ):
        scale = 2.0 if name == "current" else 0.05
        sign = 1.0 if name == "current" else -1.0
        excite, inhibit = b.TimedArray(scale * kicks[:, 0], dt=step), b.TimedArray(scale * sign * kicks[:, 1], dt=step)
        cells = b.NeuronGroup(
            3,
            f"dv/dt = ({drive})/(20*ms) : 1 (unless refractory)\ndge/dt = -ge/(5*ms) : 1\ndgi/dt = -gi/(10*ms) : 1",
            threshold="v > -50",
            reset="v = -60",
            refractory=2 * b.ms,
            method=method,
            namespace={"excite": excite, "inhibit": inhibit},
        )
        cells.v = -60
        cells.run_regularly("ge += excite(t, i)\ngi += inhibit(t, i)", dt=step, when="start")
        run(b, cells, out, name)
    drive = b.TimedArray(currents, dt=step)
    cells = b.NeuronGroup(
        3,
        "dv/dt = (0.04*v**2 + 5*v + 140 - u + drive(t, i))/ms : 1\ndu/dt = a*(b*v - u)/ms : 1\na : 1\nb : 1\nc : 1\nd : 1",
        threshold="v >= 30",
        reset="v = c; u += d",
        method="euler",
        namespace={"drive": drive},
    )
    cells.a, cells.b, cells.c, cells.d = [0.02, 0.1, 0.02], [0.2, 0.2, 0.25], [-65, -65, -55], [8, 2, 4]
    cells.v, cells.u = -65, "b*v"
    run(b, cells, out, "izhikevich")
    np.savez_compressed(FOLDER / "brian2.npz", **{k: v.astype(np.float32) if v.dtype == float else v for k, v in out.items()})


def run(b, cells, out, name):
    """Voltages after each step, every tenth of them kept, and spikes as (step, neuron)."""
    spikes = b.SpikeMonitor(cells)
    voltage = b.StateMonitor(cells, "v", record=True, when="end")
    b.Network(cells, cells.contained_objects, spikes, voltage).run(400 * b.ms)
    out[f"{name}_v"] = voltage.v.T[::10]
    out[f"{name}_steps"], out[f"{name}_neurons"] = np.round(np.asarray(spikes.t / b.ms) * 10).astype(int), np.asarray(spikes.i)


CUBA_SEEDS, CUBA_STEPS = range(5), 100_000


def summary(steps, neurons, size, total):
    """Mean rate (Hz) and mean coefficient of variation of intervals after the first 10 % of the run."""
    late = steps >= total // 10
    steps, neurons = steps[late], neurons[late]
    order = np.lexsort((steps, neurons))
    trains = np.split(steps[order], np.cumsum(np.bincount(neurons, minlength=size))[:-1])
    spread = [np.diff(train).std() / np.diff(train).mean() for train in trains if len(train) >= 10]
    return {"rate_hz": len(steps) / size / (0.9 * total * 1e-4), "irregularity": float(np.mean(spread))}


def brian_cuba():
    """Networks drawn and simulated by Brian2 alone; C++ standalone."""
    import json

    import brian2 as b

    b.set_device("cpp_standalone", build_on_run=False)
    found = []
    for seed in CUBA_SEEDS:
        b.device.reinit()
        b.device.activate(build_on_run=False)
        b.seed(seed)
        b.defaultclock.dt = 0.1 * b.ms
        cells = b.NeuronGroup(
            4000,
            "dv/dt = (ge + gi - (v + 49))/(20*ms) : 1 (unless refractory)\ndge/dt = -ge/(5*ms) : 1\ndgi/dt = -gi/(10*ms) : 1",
            threshold="v > -50",
            reset="v = -60",
            refractory=5 * b.ms,
            method="exact",
        )
        cells.v = "-60 + rand()*10"
        excite, inhibit = b.Synapses(cells, cells, on_pre="ge += 1.62"), b.Synapses(cells, cells, on_pre="gi -= 9")
        excite.connect("i < 3200 and i != j", p=0.02)
        inhibit.connect("i >= 3200 and i != j", p=0.02)
        spikes = b.SpikeMonitor(cells)
        b.Network(cells, excite, inhibit, spikes).run(CUBA_STEPS * 0.1 * b.ms)
        b.device.build(run=True, directory=None)
        found.append(summary(np.round(np.asarray(spikes.t / b.ms) * 10).astype(int), np.asarray(spikes.i), 4000, CUBA_STEPS))
    (FOLDER / "brian2_cuba.json").write_text(json.dumps(found, indent=1) + "\n")


def cuba():
    from broadsheet.networks import simulate
    from broadsheet.networks.balanced import Cuba

    for seed in CUBA_SEEDS:
        _, spikes = simulate(Cuba().system(seed), steps=CUBA_STEPS)
        print(seed, summary(spikes.steps, spikes.neurons, 4000, CUBA_STEPS))


def write():
    import jax
    import jax.numpy as jnp

    from broadsheet.dynamics import feedback, rollout
    from broadsheet.networks import Dense, write_nir
    from broadsheet.neurons import LIF

    cell = LIF(6, tau=2.0, rest=0.0, threshold=1.0, reset=0.0, method="euler", dt=0.1)
    drive = np.random.default_rng(3).uniform(0, 0.2, (300, 6)).astype(np.float32)
    weights = 0.3 * jax.random.normal(jax.random.key(0), (6, 6))
    for name, system in (("ours", cell), ("ours_recurrent", feedback(cell, Dense(weights)))):
        write_nir(system, FOLDER / f"{name}.nir")
        write_nir(system, FOLDER / f"{name}_unit.nir", unit_resistance=True)
        np.savez_compressed(FOLDER / f"{name}.npz", drive=drive, spikes=np.asarray(rollout(system, jnp.asarray(drive))[1]))


def snntorch():
    import nir
    import snntorch as snn
    import torch
    from snntorch.export_nir import export_to_nir
    from snntorch.import_nir import import_from_nir

    torch.manual_seed(0)
    options = {"reset_mechanism": "zero", "reset_delay": False, "threshold": torch.ones(12)}
    net = torch.nn.Sequential(
        torch.nn.Linear(8, 12),
        snn.Leaky(beta=torch.full((12,), 0.9), init_hidden=True, **options),
        torch.nn.Linear(12, 5),
        snn.Synaptic(
            alpha=torch.full((5,), 0.7), beta=torch.full((5,), 0.85), init_hidden=True, **options | {"threshold": torch.ones(5)}
        ),
    )
    x = (torch.rand(200, 1, 8) < 0.4).float() * 2
    nir.write(str(FOLDER / "snntorch.nir"), export_to_nir(net, x[0, 0]))
    spikes = []
    with torch.no_grad():
        for step in x:
            out = net(step)
            spikes.append((out[0] if isinstance(out, tuple) else out).numpy()[0])
    np.savez_compressed(FOLDER / "snntorch.npz", drive=x.numpy()[:, 0], spikes=np.stack(spikes))
    theirs(lambda graph: import_from_nir(graph), "snntorch_runs")


def theirs(load, name, file="ours"):
    """Runs our NIR file in another library."""
    import nir
    import torch

    made = load(nir.read(str(FOLDER / f"{file}.nir")))
    drive = torch.tensor(np.load(FOLDER / "ours.npz")["drive"])
    state, spikes = None, []
    with torch.no_grad():
        for x in drive:
            out = made(x[None], state) if state is not None else made(x[None])
            out, state = out if isinstance(out, tuple) else (out, None)
            spikes.append(out.numpy()[0])
    np.savez_compressed(FOLDER / f"{name}.npz", spikes=np.stack(spikes))


def norse():
    import nir
    import norse.torch as norse
    import torch
    from norse.torch.utils.export_nir import to_nir
    from norse.torch.utils.import_nir import from_nir

    torch.manual_seed(1)
    p = norse.LIFBoxParameters(tau_mem_inv=torch.full((12,), 100.0), v_th=torch.full((12,), 0.3), v_leak=torch.zeros(12))
    net = norse.SequentialState(torch.nn.Linear(8, 12), norse.LIFBoxCell(p))
    x = (torch.rand(200, 1, 8) < 0.4).float() * 5
    graph = to_nir(net, x[0, 0])
    nir.write(str(FOLDER / "norse.nir"), graph)
    state, spikes = None, []
    with torch.no_grad():
        for step in x:
            out, state = net(step, state)
            spikes.append(out.numpy()[0])
    np.savez_compressed(FOLDER / "norse.npz", drive=x.numpy()[:, 0], spikes=np.stack(spikes))
    theirs(lambda graph: from_nir(graph, dt=1e-4), "norse_runs", "ours_unit")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    {"brian": brian, "brian_cuba": brian_cuba, "cuba": cuba, "write": write, "snntorch": snntorch, "norse": norse}[
        sys.argv[1]
    ]()
