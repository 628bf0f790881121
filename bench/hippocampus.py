"""The hippocampal memory: random stores, overwrites and questions, at the paper's size and larger, and many memories at once."""

import time

import numpy as np

from harness import Comparison
from spiking import brian_run


def inputs(case):
    """Input spikes (memories, time, cue and content), one operation each 10 ms."""
    from broadsheet.networks.hippocampus import schedule

    n, m = case["cues"], case["bits"]
    spikes = []
    for memory in range(case["memories"]):
        rng, operations = np.random.default_rng(memory), []
        for k in range(case["ms"] // 10):
            bits = np.nonzero(rng.random(m) < 0.4)[0][: max(1, m // 3)].tolist() or [0]
            cue = int(rng.integers(n))
            operations.append((10 * k, cue if rng.random() < 0.7 else None, bits if rng.random() < 0.7 else bits[:1]))
        spikes.append(schedule(n, m, operations, case["ms"]))
    return {"spikes": np.array(spikes)}


def sized(cues, bits, ms=10_000, memories=1, piece=None):
    """`piece`: ms after which the answer is read, before the memory goes on; by default at the end."""
    return {"cues": cues, "bits": bits, "ms": ms, "memories": memories, "piece": piece or ms}


comparison = Comparison(
    "Content-addressable memory after CA3",
    {"5 cues, 10 bits, 10 s": sized(5, 10), "64 cues, 64 bits, 10 s": sized(64, 64),
     "200 memories of 5 cues, 10 bits, 1 s": sized(5, 10, 1000, 200),
     "5 cues, 10 bits, 200 operations, each answer read": sized(5, 10, 2000, piece=10)},
    inputs,
    text="The same spikes, neuron by neuron and ms by ms. In Brian2 the step that the memory needs (deliver, integrate, threshold, "
    "decay; plasticity by pairs, the postsynaptic spike first) is written out; C++ standalone, its simulation loop alone, after "
    "some twenty seconds of compiling. Where each answer is read before the next operation, a standalone program will not do, and "
    "Brian2 runs compiled Cython. sPyMem, the authors' package, needs SpiNNaker hardware.",
    agree={"output_spikes": 0.0, "all_spikes": 0.0},
)  # fmt: skip


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    import jax.numpy as jnp

    from broadsheet.networks.hippocampus import HippocampalCAM, HippocampalNetwork, run_fresh, run_network

    def tell(found):
        output = found["OutCue"].sum() + found["OutCont"].sum()
        return {"output_spikes": output, "all_spikes": sum(a.sum() for n, a in found.items() if not n.startswith("In"))}

    memory = HippocampalCAM(case["cues"], case["bits"])

    def use():
        memory.reset()
        pieces = (given["spikes"][0, start : start + case["piece"]] for start in range(0, case["ms"], case["piece"]))
        answers = [tell(memory.run(piece)) for piece in pieces]
        return {name: sum(answer[name] for answer in answers) for name in answers[0]}

    if case["piece"] < case["ms"]:
        return use
    network = HippocampalNetwork(case["cues"], case["bits"])
    spikes = jnp.asarray(given["spikes"], jnp.float32)

    def run():
        start = time.perf_counter()
        rows = np.asarray(run_fresh(network, spikes) if len(spikes) > 1 else run_network(network, spikes[0])[1])
        seconds = time.perf_counter() - start  # without counting the spikes, as Brian2's
        return tell(network.populations(rows)) | {"seconds": seconds}

    return run


@comparison.side("Brian2", environment="brian2", packages=("brian2",))
def brian(case, given):
    import brian2 as b

    n, m, memories = case["cues"], case["bits"], case["memories"]
    whole = case["piece"] == case["ms"]
    if whole:
        b.set_device("cpp_standalone", build_on_run=False)
    else:
        b.prefs.codegen.target = "cython"
    b.defaultclock.dt = 1 * b.ms
    names = ["CueCue", "CueCont", "MergeCue", "OutCue", "ContCue", "ContCont", "Cond", "MergeCont", "OutCont", "CondInt"]
    sizes = [n] * 4 + [m] * 5 + [1]
    at = dict(zip(names, np.cumsum([0, *sizes[:-1]]), strict=True))
    size, total = dict(zip(names, sizes, strict=True)), sum(sizes)
    cells = b.NeuronGroup(
        memories * total,
        "v : 1\nexc : 1\ninh : 1\nwait : 1\nR : 1\ntau : 1\nvt : 1\nready : boolean",
        threshold="ready and v >= vt",
        reset="v = -60\nwait = 1",
    )
    cells.v, cells.wait = -60, 0
    cells.run_regularly(
        "ready = wait < 0.5\ngoal = -60 + R*(exc - inh)\nv = v + int(ready)*(goal - (goal - v)*exp(-1/tau) - v)\n"
        "wait = wait*int(wait < 0.5)\nexc = exc*exp(-1/0.3)\ninh = inh*exp(-1/0.3)",
        when="groups",
    )
    kind_b = {"CueCont", "Cond", "CondInt"}
    capacity, tau = np.array([(0.14, 0.5) if name in kind_b else (0.27, 3.0) for name in names]).T
    threshold = np.array([-57.5 if name.startswith("Out") else -57 for name in names])
    for name, values in (("R", tau / capacity), ("tau", tau), ("vt", threshold)):
        setattr(cells, name, np.tile(np.repeat(values, sizes), memories))
    memory, steps, lines = np.nonzero(given["spikes"])
    source = b.SpikeGeneratorGroup(memories * (n + m), memory * (n + m) + lines, steps * b.ms)
    rows = []  # from, to, weight, delay

    def repeated(numbers, each=total):
        return (np.arange(memories)[:, None] * each + np.asarray(numbers)).ravel()

    one, lateral = 6.0, -6.0 * m

    def row(pre, post, weight, delay):
        rows.append((repeated(pre), repeated(post), weight, delay))

    def every(name):
        return at[name] + np.arange(size[name])

    def others(first, second):
        i, j = np.meshgrid(every(first), every(second), indexing="ij")
        keep = ~np.eye(len(i), dtype=bool)
        return i[keep], j[keep]

    def complete(first, second):
        i, j = np.meshgrid(every(first), every(second), indexing="ij")
        return i.ravel(), j.ravel()

    for first, second, weight, delay in (
        ("CueCue", "CueCont", one, 2),
        ("ContCue", "Cond", 9.0, 1),
        ("Cond", "ContCont", one, 1),
        ("CueCue", "MergeCue", one, 3),
        ("CueCont", "MergeCue", one, 1),
        ("ContCue", "MergeCont", one, 3),
        ("ContCont", "MergeCont", one, 1),
        ("MergeCue", "OutCue", one, 1),
        ("MergeCont", "OutCont", one, 1),
    ):
        row(every(first), every(second), weight, delay)
    row(*others("CueCue", "CueCont"), lateral, 3)
    row(*others("CueCont", "CueCont"), lateral, 2)
    row(*complete("CueCue", "Cond"), -6.0, 2)
    row(*complete("ContCue", "CondInt"), one, 1)
    row(*complete("CondInt", "Cond"), 2.0, 1)
    scale = 0.3 * (1 - np.exp(-1 / 0.3))
    kept = [source]
    for sign, port in ((1, "exc"), (-1, "inh")):
        chosen = [r for r in rows if np.sign(r[2]) == sign]
        static = b.Synapses(cells, cells, "w : 1", on_pre=f"{port} += w")
        static.connect(i=np.concatenate([r[0] for r in chosen]), j=np.concatenate([r[1] for r in chosen]))
        static.w = scale * np.concatenate([np.full(len(r[0]), abs(r[2])) for r in chosen])
        static.delay = np.concatenate([np.full(len(r[0]), r[3] - 1.0) for r in chosen]) * b.ms
        kept.append(static)
    feed = b.Synapses(source, cells, on_pre=f"exc += {6 * scale}")
    feed.connect(i=np.arange(memories * (n + m)), j=repeated(np.concatenate([every("CueCue"), every("ContCue")])))
    kept.append(feed)
    for first, second in (("CueCue", "ContCue"), ("ContCont", "CueCont")):
        plastic = b.Synapses(
            cells,
            cells,
            "w : 1\ndx/dt = -x/(3*ms) : 1 (event-driven)\ndy/dt = -y/(3*ms) : 1 (event-driven)",
            on_pre=f"w = clip(w - 6*y, 0, 6)\nx += 1\nexc_post += {scale}*w",
            on_post="w = clip(w + 6*x, 0, 6)\ny += 1",
        )
        plastic.connect(**{end: repeated(numbers) for end, numbers in zip("ij", complete(first, second), strict=True)})
        plastic.post.delay = 1 * b.ms
        plastic.post.order, plastic.pre.order = -1, 0
        kept.append(plastic)
    monitor = b.SpikeMonitor(cells)
    parts = [cells, *kept, *cells.contained_objects]

    def tell(neurons):
        neurons = np.asarray(neurons) % total
        output = sum(((neurons >= at[k]) & (neurons < at[k] + size[k])).sum() for k in ("OutCue", "OutCont"))
        return {"output_spikes": output, "all_spikes": len(neurons)}

    if whole:
        run = brian_run(b, parts, cells, case["ms"], monitor=monitor)
        return lambda: {name: value for name, value in (run() | tell(monitor.i[:])).items() if name != "rate_hz"}
    network = b.Network(*parts, monitor)
    network.store()

    def use():
        network.restore()
        answers, seen = [], 0
        for _ in range(0, case["ms"], case["piece"]):
            network.run(case["piece"] * b.ms)
            answers.append(tell(monitor.i[seen:]))
            seen += answers[-1]["all_spikes"]
        return {name: sum(answer[name] for answer in answers) for name in answers[0]}

    return use
