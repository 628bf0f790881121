"""Weighted stochastic block models: communities of a weighted graph as what compresses it most.

The description length (nats) of a graph, its groups and its weights is that of a microcanonical block model (Peixoto 2017,
2018): edges given the counts between groups, the counts, the partition, and weights that are exponential for each pair of
groups, their rates integrated out. Counts have a flat prior or, nested, a block model of their own (Peixoto 2014). The search
(`block_search`) starts from random groups, moves single nodes to where the length falls most, merges the two groups whose union
costs least, and so on down to one group; the shortest of all counts of groups and starts is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import gammaln
from sklearn.base import BaseEstimator, ClusterMixin

from broadsheet.errors import InputError
from broadsheet.recordings.block_search import Kind, Topology, log_factorials, merged_counts, search


class Length(NamedTuple):
    """Nats that the parts of a description take; `total` is their sum.

    - `edges`: which pairs are joined, given the counts between groups; `degrees`: of the nodes, where these are corrected for;
      `counts`: of edges between groups; `partition`: which node is in which group; `weights`: of the edges.
    """

    edges: float
    degrees: float
    counts: float
    partition: float
    weights: float

    @property
    def total(self) -> float:
        return sum(self)


class WeightedSBM(ClusterMixin, BaseEstimator):
    """Communities of a symmetric matrix of weights by the shortest description; 0 is no edge.

    **Parameters:**

    - `kind`: `"exponential"` weights, or `"none"`: edges alone.
    - `degree_corrected`: True, False, or `"auto"`: the shorter of both. Corrected models are of multigraphs, which is poor for
      dense graphs.
    - `multigraph`: price edges of a model without correction as those of a multigraph too, as graph-tool does by default;
      else as of a simple graph, which is right for dense ones.
    - `nested`: the counts between groups get a block model of their own, and so on; small groups are then found in large
      graphs.
    - `max_groups`: where merging starts; None: a third of the nodes, 24 at most.
    - `n_starts`: random starts; `sweeps`: of single-node moves after each merge, at most.
    - `random_state`: integer.

    **Attributes:** `labels_` (nodes,); `levels_`: the labels at each level, the finest first, each by nodes; `n_groups_`;
    `description_length_`; `length_`: its parts; `degree_corrected_`; `profile_`: the shortest length for each count of groups.
    """

    def __init__(
        self, kind: Kind = "exponential", *, degree_corrected: bool | Literal["auto"] = "auto", multigraph: bool = False,
        nested: bool = True, max_groups: int | None = None, n_starts: int = 10, sweeps: int = 20, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.kind = kind
        self.degree_corrected = degree_corrected
        self.multigraph = multigraph
        self.nested = nested
        self.max_groups = max_groups
        self.n_starts = n_starts
        self.sweeps = sweeps
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> WeightedSBM:
        """Fits a matrix of weights (nodes, nodes): symmetric, from 0 on; the diagonal is left out."""
        weights = checked_weights(X)
        if self.kind not in ("exponential", "none") or self.degree_corrected not in (True, False, "auto"):
            raise InputError(
                f"kind = {self.kind!r}, degree_corrected = {self.degree_corrected!r}: exponential or none, and True, False or "
                "'auto' are wanted."
            )
        if self.n_starts < 1 or (self.max_groups is not None and self.max_groups < 1):
            raise InputError(f"{self.n_starts} starts from {self.max_groups} groups; one or more of each are wanted.")
        plain: Topology = "multigraph" if self.multigraph else "simple"
        tried: list[Topology] = ["degree-corrected"] if self.degree_corrected is True else [plain]
        if self.degree_corrected == "auto":
            tried.append("degree-corrected")
        nodes = len(weights)
        most = min(self.max_groups or min(max(nodes // 3, 1), 24), nodes)
        best: tuple[float, list[np.ndarray], Length, Topology, dict[int, float]] | None = None
        for topology in tried:
            found = _shortest(weights, self.kind, topology, most, self.n_starts, self.sweeps, self.random_state, self.nested)
            if best is None or found[0] < best[0]:
                best = (*found[:3], topology, found[3])
        assert best is not None
        self.description_length_, self.levels_, self.length_, used, self.profile_ = best
        self.labels_, self.degree_corrected_ = self.levels_[0], used == "degree-corrected"
        self.n_groups_ = int(self.labels_.max()) + 1
        return self


def description_length(
    weights: Any, levels: Sequence[Any], *, kind: Kind = "exponential", topology: Topology = "simple"
) -> Length:
    """Nats that a graph takes with a partition, term by term.

    **Arguments:** `levels`: the labels of the nodes; for nested counts those of coarser levels behind them, each by nodes.
    """
    weights = checked_weights(weights)
    labels = [np.unique(np.asarray(each), return_inverse=True)[1] for each in levels]
    first = labels[0]
    joined = (weights > 0).astype(float)
    groups = int(first.max()) + 1
    member = np.eye(groups)[first]
    counts, sums = _between(joined, member), _between(weights, member)
    sizes, degrees = member.sum(axis=0), member.T @ joined.sum(axis=1)
    upper, diagonal = np.triu_indices(groups, 1), np.diag_indices(groups)
    if topology == "simple":
        pairs = np.outer(sizes, sizes)
        pairs[diagonal] = sizes * (sizes - 1) / 2
        edges = _choose(pairs, counts)[np.triu_indices(groups)].sum()
    else:
        edges = -gammaln(counts[upper] + 1).sum()
        edges -= (counts[diagonal] * np.log(2) + gammaln(counts[diagonal] + 1)).sum()
        if topology == "multigraph":
            edges += (degrees * np.log(sizes)).sum()
        else:
            edges += gammaln(degrees + 1).sum() - gammaln(joined.sum(axis=1) + 1).sum()
    correction = _choose(sizes + degrees - 1, degrees).sum() if topology == "degree-corrected" else 0.0
    partition = _partition_length(sizes)
    prior, inside = 0.0, counts
    for one, coarser in pairwise(labels):
        parent = np.zeros(int(one.max()) + 1, int)
        parent[one] = coarser
        above = np.eye(int(coarser.max()) + 1)[parent]
        prior += _upper_length(inside, above)
        inside = _merge_counts(inside, above)
    prior += _top_length(inside)
    cost = 0.0
    if kind == "exponential":
        mean = weights.sum() / joined.sum()
        pair = gammaln(counts + 1) + np.log(mean) - (counts + 1) * np.log(mean + sums)
        cost = -pair[np.triu_indices(groups)].sum()
    return Length(float(edges), float(correction), float(prior), float(partition), float(cost))


def checked_weights(X: Any) -> Float[np.ndarray, "nodes nodes"]:
    """A symmetric matrix from 0 on, its diagonal cleared; raises `InputError` for anything else, and where there is no edge."""
    weights = np.array(X, float)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or len(weights) < 2:
        raise InputError(f"The weights are {weights.shape}; a square matrix of two nodes or more is wanted.")
    np.fill_diagonal(weights, 0.0)
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise InputError("The weights hold negative values or some that are not finite; numbers from 0 on are wanted.")
    if not np.allclose(weights, weights.T, rtol=1e-6, atol=1e-12 * weights.max()):
        raise InputError("The matrix of weights is not symmetric; an undirected graph is wanted.")
    if not weights.any():
        raise InputError("The graph has no edge: all weights are 0.")
    return (weights + weights.T) / 2


def _between(matrix: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Sums over edges between groups; on the diagonal each edge inside counts once."""
    out = member.T @ matrix @ member
    out[np.diag_indices(len(out))] /= 2
    return out


def _choose(n: Any, k: Any) -> Any:
    """ln of n over k; 0 where k is 0."""
    n, k = np.asarray(n, float), np.asarray(k, float)
    return np.where(k > 0, gammaln(n + 1) - gammaln(k + 1) - gammaln(np.maximum(n - k, 0) + 1), 0.0)


def _partition_length(sizes: np.ndarray) -> float:
    nodes = sizes.sum()
    return float(np.log(nodes) + _choose(nodes - 1, len(sizes) - 1) + gammaln(nodes + 1) - gammaln(sizes + 1).sum())


def _top_length(counts: np.ndarray) -> float:
    """Counts of edges between groups, all tables of one sum alike."""
    groups, edges = len(counts), counts[np.triu_indices(len(counts))].sum()
    return float(_spread(groups * (groups + 1) / 2, edges))


def _merge_counts(counts: np.ndarray, above: np.ndarray) -> np.ndarray:
    doubled = counts + np.diag(np.diag(counts))
    return _between(doubled, above)


def _upper_length(counts: np.ndarray, above: np.ndarray) -> float:
    """Counts between groups given those between groups of groups, and that partition."""
    sizes, merged = above.sum(axis=0), _merge_counts(counts, above)
    slots = np.outer(sizes, sizes)
    slots[np.diag_indices(len(sizes))] = sizes * (sizes + 1) / 2
    return float(_spread(slots, merged)[np.triu_indices(len(sizes))].sum()) + _partition_length(sizes)


def _spread(slots: Any, edges: Any) -> Any:
    """ln of the ways to spread edges over slots that may hold several."""
    return _choose(slots + edges - 1, edges)


def _hierarchies(tables: Sequence[Int[np.ndarray, "_ _"]], room: int, logs: np.ndarray) -> list[tuple[float, list[np.ndarray]]]:
    """Of each table of edges between groups the shortest description by groups of groups that greedy unions find, and the
    labels of each level, none where a flat one is shorter; `room` and `logs` as in `merged_counts`."""
    found: list[tuple[float, list[np.ndarray]]] = []
    merged: dict[int, np.ndarray] = {}
    for table, labels, lengths in zip(tables, *merged_counts(tables, room, logs), strict=True):
        groups, edges, above = len(table), int(np.triu(table).sum()), np.arange(2, len(table))
        flat = _top_length(table)
        inside = lengths[above - 1] + np.log(groups) + _choose(groups - 1, above - 1)
        nested = inside + _spread(above * (above + 1) / 2, edges)
        if groups > 2 and nested.min() < flat:
            at = int(nested.argmin())
            first = labels[above[at] - 1, :groups].astype(int)
            merged[len(found)] = _merge_counts(table, np.eye(above[at])[first]).astype(int)
            found.append((float(inside[at]), [first]))
        else:
            found.append((flat, []))
    if merged:
        for k, (length, more) in zip(merged, _hierarchies(list(merged.values()), room, logs), strict=True):
            inside_length, (first,) = found[k]
            found[k] = (inside_length + length, [first, *(each[first] for each in more)])
    return found


def _shortest(
    weights: np.ndarray, kind: Kind, topology: Topology, most: int, n_starts: int, sweeps: int, seed: int, nested: bool
) -> tuple[float, list[np.ndarray], Length, dict[int, float]]:
    """Length, levels, parts, and the shortest length at each count of groups."""
    nodes, edges, logs = len(weights), np.count_nonzero(weights) // 2, log_factorials(len(weights))
    found = search(weights, kind, topology, most, n_starts, sweeps, seed, logs)
    best, groups = found.lengths.argmin(axis=0), np.arange(1, most + 1)
    flat = _spread(groups * (groups + 1) / 2, edges)
    rest = found.lengths.min(axis=0) + _choose(nodes - 1, groups - 1)
    rest += description_length(weights, [np.zeros(nodes)], kind=kind, topology=topology).total - rest[0]
    if nested:
        tables = [found.edges[at, k, : k + 1, : k + 1] for k, at in enumerate(best)]
        counts = _hierarchies(tables, most, logs)
    else:
        counts = [(float(each), []) for each in flat]
    totals = rest + [length for length, _ in counts]
    at = int(totals.argmin())
    labels = found.labels[best[at], at].astype(int)
    levels = [labels, *(each[labels] for each in counts[at][1])]
    length = description_length(weights, levels, kind=kind, topology=topology)
    return length.total, levels, length, dict(zip(groups.tolist(), totals.tolist(), strict=True))
