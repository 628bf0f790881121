"""A layer of delays on one movie of events: evidence of all classes at all places."""

import numpy as np

from harness import Comparison
from spiking import brian_run


def inputs(case):
    """A natural movie as events, and kernels of which a share is left."""
    import jax.numpy as jnp

    from broadsheet.vision import DelayConv
    from broadsheet.vision.event_movies import motions, natworld, sample_images

    rng = np.random.default_rng(0)
    movie = natworld(rng, sample_images()[0], motions(8, (0.63,)), side=case["pixels"], steps=case["steps"])
    K = rng.standard_normal((8, 2, case["delays"], case["side"], case["side"])).astype(np.float32)
    K = np.asarray(DelayConv(jnp.asarray(K)).prune(case["share"]).K) if case["share"] < 1 else K
    return {"events": movie.events, "K": K}


SIZE = {"pixels": 48, "steps": 80, "delays": 9, "side": 7}
comparison = Comparison(
    "Delay layer: 8 motions, 80 ms of 48 x 48 pixels",
    {"9 ms x 7 x 7 pixels, 3 % of the weights": SIZE | {"share": 0.03}, "9 ms x 7 x 7 pixels": SIZE | {"share": 1.0},
     "21 ms x 17 x 17 pixels, the authors' size": SIZE | {"delays": 21, "side": 17, "share": 1.0}},
    inputs,
    text="The same events and weights; the sum and the sum of squares of the evidence agree. Broadsheet adds the shifted stream "
    "for each weight of sparse kernels and multiplies spectra for whole ones; PyTorch convolves; Brian2 has a synapse with a "
    "delay for each weight at each place, C++ standalone, its simulation loop alone.",
    agree={"sum": 1e-3, "squares": 1e-3},
)  # fmt: skip


def totals(evidence):
    row = np.ravel(evidence)
    return {"sum": float(row.sum(dtype=np.float64)), "squares": float(row @ row)}


@comparison.side("broadsheet", packages=("jax",), devices=("cpu", "gpu"))
def ours(case, given):
    from broadsheet.vision import DelayConv

    layer = DelayConv(given["K"])
    table = layer.to_synapses()

    def run():
        return totals(table.run(given["events"]) if case["share"] < 0.2 else layer.evidence(given["events"], "fft"))

    return run


@comparison.side("PyTorch", environment="torch", packages=("torch",))
def torch_side(case, given):
    import torch

    kernel = torch.tensor(np.ascontiguousarray(given["K"][:, :, ::-1, ::-1, ::-1]))
    radius = case["side"] // 2

    def run():
        with torch.no_grad():
            stream = torch.tensor(given["events"], dtype=torch.float32)[None]
            padded = torch.nn.functional.pad(stream, (radius, radius, radius, radius, case["delays"] - 1, 0))
            return totals(torch.nn.functional.conv3d(padded, kernel)[0].numpy())

    return run


@comparison.side("Brian2", environment="brian2", packages=("brian2",))
def brian(case, given):
    import brian2 as b

    if case["share"] == 1:
        raise RuntimeError("a synapse a weight and place: more than fit")
    b.set_device("cpp_standalone", build_on_run=False)
    b.defaultclock.dt = 1 * b.ms
    side, radius = case["pixels"], case["side"] // 2
    classes, polarity, delay, di, dj = np.nonzero(given["K"])
    x, y = (part.ravel() for part in np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    pre, post, weight, late = [], [], [], []
    for c, p, d, i, j in zip(classes, polarity, delay, di, dj, strict=True):
        a, e = x + i - radius, y + j - radius
        inside = (a >= 0) & (a < side) & (e >= 0) & (e < side)
        pre.append((p * side + x[inside]) * side + y[inside])
        post.append((c * side + a[inside]) * side + e[inside])
        weight.append(np.full(inside.sum(), given["K"][c, p, d, i, j]))
        late.append(np.full(inside.sum(), d))
    times, lines = np.nonzero(given["events"].transpose(1, 0, 2, 3).reshape(case["steps"], -1))
    source = b.SpikeGeneratorGroup(2 * side * side, lines, times * b.ms)
    cells = b.NeuronGroup(8 * side * side, "v : 1\ntotal : 1\nsquares : 1", threshold="False")
    cells.run_regularly("total += v\nsquares += v*v\nv = 0", when="end")
    synapses = b.Synapses(source, cells, "w : 1", on_pre="v += w")
    synapses.connect(i=np.concatenate(pre), j=np.concatenate(post))
    synapses.w, synapses.delay = np.concatenate(weight), np.concatenate(late) * b.ms
    run = brian_run(b, [source, cells, synapses, *cells.contained_objects], cells, case["steps"])

    def counted():
        found = run()
        del found["rate_hz"]
        return found | {"sum": float(np.sum(cells.total[:])), "squares": float(np.sum(cells.squares[:]))}

    return counted
