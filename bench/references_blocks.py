"""What graph-tool says of one weighted graph and partition, for tests/references/block_models.json.

    /usr/bin/python3 bench/references_blocks.py

Needs Debian's python3-graph-tool (2.45): the parts of the description length, in nats, of the plain and the degree-corrected
model, of a simple graph, and of exponential weights with the prior alpha = 1 and beta = their mean.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parent.parent / "tests" / "references" / "block_models.json"


def main() -> None:
    import graph_tool.all as gt

    rng = np.random.RandomState(5)
    labels = np.repeat([0, 1, 2], [7, 8, 9])
    same = labels[:, None] == labels
    joined = np.triu(rng.rand(24, 24) < np.where(same, 0.7, 0.2), 1)
    weights = np.round(rng.exponential(np.where(same, 5.0, 1.0)), 3) + 0.001
    first, second = np.nonzero(joined)
    graph = gt.Graph(directed=False)
    graph.add_vertex(24)
    graph.add_edge_list(np.stack([first, second], axis=1))
    weight = graph.new_ep("double")
    weight.a = weights[first, second]
    made = {
        "labels": labels.tolist(),
        "edges": [[int(i), int(j), float(weights[i, j])] for i, j in zip(first, second, strict=True)],
    }

    def state(**options):
        return gt.BlockState(graph, b=graph.new_vp("int", vals=labels), **options)

    for name, corrected in (("multigraph", False), ("degree-corrected", True)):
        model = state(deg_corr=corrected)
        parts = {"edges": model.entropy(dl=False)}
        for part, option in (("partition", "partition_dl"), ("counts", "edges_dl"), ("degrees", "degree_dl")):
            only = dict.fromkeys(("partition_dl", "edges_dl", "degree_dl"), False) | {option: True}
            parts[part] = model.entropy(adjacency=False, deg_entropy=False, degree_dl_kind="uniform", **only)
        made[name] = parts
    made["simple"] = {"edges": state(deg_corr=False).entropy(dl=False, dense=True, multigraph=False)}
    prior = [{"alpha": 1.0, "beta": float(weight.a.mean())}]
    weighted = state(deg_corr=False, recs=[weight], rec_types=["real-exponential"], rec_params=prior)
    made["weights"] = weighted.entropy(recs_dl=False) - state(deg_corr=False).entropy()
    TARGET.write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
