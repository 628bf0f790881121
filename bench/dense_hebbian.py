"""Dense Hebbian memories: fields without the tensor, recall beside pairwise and softmax memories, and how the cost grows."""

import numpy as np

from harness import Comparison

ORDER = 4


def patterns(case, seed=0):
    return np.random.default_rng(seed).choice(np.array([-1.0, 1.0], np.float32), (case["patterns"], case["neurons"]))


def inputs(case):
    """Patterns, and cues with a tenth of their entries flipped."""
    x, rng = patterns(case), np.random.default_rng(1)
    cues = x[: case.get("cues", 1)].copy()
    flips = rng.random(cues.shape).argsort(axis=1) < round(0.1 * case["neurons"])
    return {"x": x, "cues": np.where(flips, -cues, cues)}


def grown(**sizes):
    return {"task": "field", "patterns": 1000, "neurons": 1000, "order": ORDER, "repeat": 20} | sizes


comparison = Comparison(
    "Dense Hebbian memories: a field and a recall",
    {
        "field, 24 neurons, 300 patterns": {"task": "field", "neurons": 24, "patterns": 300, "order": 4, "repeat": 100},
        "field, 64 neurons, 1000 patterns": {"task": "field", "neurons": 64, "patterns": 1000, "order": 4, "repeat": 20},
        **{f"field, 1000 neurons, {k} patterns": grown(patterns=k) for k in (500, 1000, 2000, 4000, 8000)},
        **{f"field, {n} neurons, 1000 patterns": grown(neurons=n) for n in (500, 2000, 4000, 10000)},
        **{f"field, 1000 neurons, 1000 patterns, order {p}": grown(order=p) for p in (3, 6, 8)},
        "recall, 48 neurons, 5 patterns, order 2": {"task": "recall", "neurons": 48, "patterns": 5, "order": 2, "cues": 5},
        "recall, 400 neurons, 30 patterns, order 2": {"task": "recall", "neurons": 400, "patterns": 30, "order": 2, "cues": 20},
        "recall, 48 neurons, 1100 patterns": {"task": "recall", "neurons": 48, "patterns": 1100, "order": 4, "cues": 50},
    },
    inputs,
    text="Random patterns of -1 and 1, float32. A field is on all neurons at once, built from the same patterns; the tensor's side "
    "has its N^4 couplings built before, and the sum's side is the plain einsum of the overlaps, whose indices may repeat, so that "
    "it is another model. Recall: from cues with a tenth of the entries flipped, until nothing moves; the overlap is with the "
    "pattern. Packages of pairwise networks have no higher order: beside order 4 stand softmax retrieval and themselves.",
    shown={"overlap": "mean overlap"},
)


@comparison.side("broadsheet", packages=("jax",))
def ours(case, given):
    import equinox as eqx
    import jax.numpy as jnp

    from broadsheet.networks.dense_memory import DenseHebbian

    net = DenseHebbian(given["x"], case["order"])
    if case["task"] == "field":
        field, sigma = eqx.filter_jit(lambda net, sigma: net.field(sigma)), jnp.asarray(given["cues"][0])
        return lambda: timed(lambda: field(net, sigma).block_until_ready(), case)
    return lambda: recalled(np.asarray(net.glauber(0, given["cues"], 50)), given)


@comparison.side("tensor, NumPy")
def tensor(case, given):
    only(case, "field", most=64, order=4)
    x = given["x"]
    pairs = np.einsum("mi,mj->mij", x, x).reshape(len(x), -1)
    couplings = (pairs.T @ pairs).reshape((case["neurons"],) * 4)
    sigma, at = given["cues"][0], np.arange(case["neurons"])
    for a in range(4):
        for b in range(a):
            index = [slice(None)] * 4
            index[a] = index[b] = at
            couplings[tuple(index)] = 0
    size = case["neurons"] ** 3
    return lambda: timed(lambda: couplings @ sigma @ sigma @ sigma / size, case)


@comparison.side("overlaps by einsum, indices may repeat")
def einsum(case, given):
    only(case, "field")
    x, sigma, size = given["x"], given["cues"][0], case["neurons"]
    return lambda: timed(lambda: np.einsum("mi,m->i", x, (np.einsum("mi,i->m", x, sigma) / size) ** (case["order"] - 1)), case)


@comparison.side("hopfieldkit", environment="hopfield", packages=("hopfieldkit",))
def hopfieldkit(case, given):
    only(case, "recall")
    import hopfieldkit

    net = hopfieldkit.HopfieldNetwork(case["neurons"]).fit(given["x"].astype(int))
    return lambda: recalled(np.array([net.recall(cue, seed=0) for cue in given["cues"]]), given)


@comparison.side("hopfieldnetwork", environment="hopfield", packages=("hopfieldnetwork",))
def hopfieldnetwork(case, given):
    only(case, "recall")
    from hopfieldnetwork import HopfieldNetwork

    net = HopfieldNetwork(case["neurons"])
    net.train_pattern(given["x"].T.astype(int))

    def run():
        found = []
        for cue in given["cues"].astype(int):
            net.set_initial_neurons_state(cue.copy())
            net.update_neurons(5, "async")
            found.append(net.S.copy())
        return recalled(np.array(found), given)

    return run


@comparison.side("softmax retrieval, PyTorch", environment="torch", packages=("torch",))
def softmax(case, given):
    only(case, "recall")
    import torch

    x, cues = torch.tensor(given["x"]), torch.tensor(given["cues"])

    def run():
        state = cues
        for _ in range(5):
            state = torch.softmax(state @ x.T, dim=-1) @ x
        return recalled(np.sign(state.numpy()), given)

    return run


def only(case, task, most=None, order=None):
    """Raises where a side has nothing to do with a case."""
    if case["task"] != task or (most and case["neurons"] > most) or (order and case["order"] != order):
        raise RuntimeError("not made for this case")


def timed(work, case):
    """Seconds of one of many."""
    import time

    start = time.perf_counter()
    for _ in range(case["repeat"]):
        work()
    return {"seconds": (time.perf_counter() - start) / case["repeat"]}


def recalled(found, given):
    return {"overlap": np.mean(found * given["x"][: len(found)])}
