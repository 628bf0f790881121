"""Weighted block models: ours against graph-tool's, and networkx' Louvain.

graph-tool is not on the package registry: it is taken from Debian (python3-graph-tool) and run by /usr/bin/python3.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from harness import Comparison

DEBIAN = "/usr/bin/python3"
CASES = {
    **{f"{nodes} nodes, 4 groups": {"nodes": nodes, "groups": 4, "degree": 15.0 * nodes / 60} for nodes in (32, 60, 120, 240)},
    "120 nodes, 8 groups": {"nodes": 120, "groups": 8, "degree": 20.0, "mu_t": 0.5, "mu_w": 0.25},
    "120 nodes, 12 groups": {"nodes": 120, "groups": 12, "degree": 20.0, "mu_t": 0.4, "mu_w": 0.2},
}


def inputs(case):
    """A graph whose weights and edges are at odds."""
    from broadsheet.recordings.planted_graphs import mixing_graph

    graph = mixing_graph(np.random.default_rng(1), **case)
    return {"weights": graph.weights, "labels": graph.labels}


comparison = Comparison(
    "Communities of weighted graphs by the shortest description",
    CASES,
    inputs,
    text="Three quarters of the edges, and a tenth of the weight, lead out of a group, but for 8 and 12 groups. Ours tries ten starts of a "
    "plain model of simple graphs and of a degree-corrected one. graph-tool (Debian's, in a process of its own, which times itself) is called as "
    "the paper's authors do, but with each edge once: nested models of real-exponential weights, plain and corrected, one run of each, and the "
    "shorter of both. The length, in nats, is that of the partition that a side found as a simple graph with flat counts, by one function, which "
    "equals graph-tool's for a given partition and prior. The cases of 32 to 240 nodes are the cost curve in neurons.",
    shown={"length": "description length", "truth": "of the planted groups", "nmi": "agreement with the truth", "groups": "groups"},
    turns=3,
)  # fmt: skip


def judged(given, labels):
    from sklearn.metrics import normalized_mutual_info_score

    from broadsheet.recordings.block_models import description_length

    return {
        "length": description_length(given["weights"], [labels]).total,
        "truth": description_length(given["weights"], [given["labels"]]).total,
        "nmi": normalized_mutual_info_score(given["labels"], labels), "groups": len(np.unique(labels)),
    }  # fmt: skip


@comparison.side("broadsheet", packages=("jax",))
def ours(case, given):
    from broadsheet.recordings.block_models import WeightedSBM

    return lambda: judged(given, WeightedSBM().fit(given["weights"]).labels_)


@comparison.side("broadsheet, one start", packages=("jax",))
def one_start(case, given):
    from broadsheet.recordings.block_models import WeightedSBM

    return lambda: judged(given, WeightedSBM(n_starts=1).fit(given["weights"]).labels_)


@comparison.side("networkx, Louvain", packages=("networkx",))
def modularity(case, given):
    from broadsheet.recordings.communities import louvain

    return lambda: judged(given, louvain(given["weights"]))


@comparison.side("graph-tool (Debian)")
def graph_tool(case, given):
    if not Path(DEBIAN).exists() or subprocess.run([DEBIAN, "-c", "import graph_tool"], capture_output=True).returncode:
        raise RuntimeError("graph-tool is missing: apt-get install python3-graph-tool")

    def run():
        with tempfile.TemporaryDirectory() as folder:
            np.save(f"{folder}/weights.npy", given["weights"])
            done = subprocess.run([DEBIAN, __file__, folder], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        return judged(given, np.array(found["labels"])) | {"seconds": found["seconds"], "peak_mb": found["peak_mb"]}

    return run


def debian(folder):
    """What graph-tool finds in the graph of a folder, with the seconds that it took."""
    import resource
    import time

    import graph_tool.all as gt

    weights = np.load(f"{folder}/weights.npy")
    first, second = np.nonzero(np.triu(weights, 1))
    graph = gt.Graph(directed=False)
    graph.add_vertex(len(weights))
    graph.add_edge_list(np.stack([first, second], axis=1))
    weight = graph.new_ep("double")
    weight.a = weights[first, second]
    start = time.perf_counter()
    states = [
        gt.minimize_nested_blockmodel_dl(
            graph, state_args={"deg_corr": corrected, "recs": [weight], "rec_types": ["real-exponential"]}
        )
        for corrected in (True, False)
    ]
    best = min(states, key=lambda state: state.entropy())
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    labels = [int(best.get_levels()[0].get_blocks()[node]) for node in range(len(weights))]
    print(json.dumps({"labels": labels, "seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    debian(sys.argv[1])
