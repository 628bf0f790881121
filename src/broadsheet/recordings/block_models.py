"""Weighted stochastic block models: communities of a weighted graph as what compresses it most.

The description length (nats) of a graph, its groups and its weights is that of a microcanonical block model (Peixoto 2017,
2018): edges given the counts between groups, the counts, the partition, and weights that are exponential for each pair of
groups, their rates integrated out. Counts have a flat prior or, nested, a block model of their own (Peixoto 2014). The search
starts from random groups, moves single nodes to where the length falls most, merges the two groups whose union costs least,
and so on down to one group; the shortest of all counts of groups and starts is taken. All starts run as one program.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import gammaln
from sklearn.base import BaseEstimator, ClusterMixin

from broadsheet.errors import InputError

Kind = Literal["exponential", "none"]
Topology = Literal["simple", "multigraph", "degree-corrected"]


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


def _hierarchy(counts: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """The shortest description of counts by groups of groups that greedy merges find, and the labels of each level."""
    best: tuple[float, np.ndarray | None] = (_top_length(counts), None)
    labels, merged, sizes = np.arange(len(counts)), counts.copy(), np.ones(len(counts))
    for _ in range(len(counts) - 2):
        one, other = _cheapest_union(merged, sizes)
        above = np.delete(np.eye(len(sizes)), other, axis=1)
        above[other, one - (one > other)] = 1
        labels, merged, sizes = above.argmax(axis=1)[labels], _merge_counts(merged, above), sizes @ above
        length = _upper_length(counts, np.eye(len(sizes))[labels]) + _top_length(merged)
        if length < best[0]:
            best = (length, labels)
    length, first = best
    if first is None:
        return length, []
    merged = _merge_counts(counts, np.eye(first.max() + 1)[first])
    above_length, more = _hierarchy(merged)
    return length - _top_length(merged) + above_length, [first, *(each[first] for each in more)]


def _cheapest_union(counts: np.ndarray, sizes: np.ndarray) -> tuple[int, int]:
    """The two groups of groups whose union lengthens the description of counts least."""
    diagonal = np.eye(len(sizes), dtype=bool)
    own, union = np.diag(counts), sizes[:, None] + sizes
    apart = _spread(np.outer(sizes, sizes), counts)
    alone = _spread(sizes * (sizes + 1) / 2, own)
    joint = _spread(union[:, :, None] * sizes, counts[:, None] + counts)
    third = ~(diagonal[:, None] | diagonal)
    change = np.where(third, joint - apart[:, None] - apart, 0.0).sum(axis=2) - apart - alone[:, None] - alone
    change += _spread(union * (union + 1) / 2, own[:, None] + own + counts)
    change += gammaln(sizes[:, None] + 1) + gammaln(sizes + 1) - gammaln(union + 1)
    kept, gone = np.unravel_index(np.argmin(np.where(diagonal, np.inf, change)), change.shape)
    return int(min(kept, gone)), int(max(kept, gone))


def _spread(slots: Any, edges: Any) -> Any:
    """ln of the ways to spread edges over slots that may hold several."""
    return _choose(slots + edges - 1, edges)


def _shortest(
    weights: np.ndarray, kind: Kind, topology: Topology, most: int, n_starts: int, sweeps: int, seed: int, nested: bool
) -> tuple[float, list[np.ndarray], Length, dict[int, float]]:
    """Length, levels, parts, and the shortest length at each count of groups."""
    partitions, lengths = _search(weights, kind, topology, most, n_starts, sweeps, seed)
    best: tuple[float, list[np.ndarray]] = (np.inf, [])
    profile: dict[int, float] = {}
    for groups in range(1, most + 1):
        at = int(lengths[:, groups - 1].argmin())
        labels = np.unique(partitions[at, groups - 1], return_inverse=True)[1]
        length, levels = description_length(weights, [labels], kind=kind, topology=topology), [labels]
        total = length.total
        if nested and groups > 2 and total - length.counts < best[0]:
            counts, more = _hierarchy(_between((weights > 0).astype(float), np.eye(groups)[labels]))
            if counts < length.counts:
                total, levels = total - length.counts + counts, [labels, *(each[labels] for each in more)]
        profile[groups] = total
        if total < best[0]:
            best = (total, levels)
    total, levels = best
    return total, levels, description_length(weights, levels, kind=kind, topology=topology), profile


def _search(
    weights: np.ndarray, kind: Kind, topology: Topology, most: int, n_starts: int, sweeps: int, seed: int
) -> tuple[Int[np.ndarray, "starts groups nodes"], Float[np.ndarray, "starts groups"]]:
    """For each start and count of groups the partition, and its description length but for what it shares with all others."""
    rng, nodes = np.random.default_rng(seed), len(weights)
    room = -(-nodes // PADDED) * PADDED
    padded = np.zeros((2, room, room))
    padded[:, :nodes, :nodes] = weights > 0, weights
    labels = np.stack([rng.permutation(np.arange(nodes) % most) for _ in range(n_starts)])
    member = np.zeros((n_starts, room, most))
    member[:, :nodes] = np.eye(most)[labels]
    orders = np.stack([rng.permuted(np.tile(np.arange(nodes), (sweeps, 1)), axis=1) for _ in range(n_starts)])
    orders = np.pad(orders, ((0, 0), (0, 0), (0, room - nodes)))
    mean = weights.sum() / (weights > 0).sum()
    flags = np.array(
        [kind == "exponential", topology == "simple", topology == "multigraph", topology == "degree-corrected"], float
    )
    with jax.enable_x64(True):
        found = _merge_down(padded, member, orders, gammaln(np.arange(room * room + room + 2) + 1.0), mean, nodes, flags)
        partitions, costs = (np.asarray(each) for each in found)
    edges, groups = (weights > 0).sum() / 2, np.arange(1, most + 1)
    shared = _choose(groups * (groups + 1) / 2 + edges - 1, edges) + _choose(nodes - 1, groups - 1)
    return partitions[:, ::-1, :nodes], costs[:, ::-1] + shared


PADDED = 64
"""Graphs are filled up to a multiple of so many nodes, so that those of about one size share a program."""


class _Blocks(NamedTuple):
    """Counts and sums of weights between groups (once on the diagonal), and the sizes and degrees of groups."""

    counts: Array
    sums: Array
    sizes: Array
    degrees: Array


@jax.jit
def _merge_down(
    given: Float[Array, "2 nodes nodes"], member: Float[Array, "starts nodes groups"], orders: Int[Array, "starts sweeps "
    "nodes"],
    logs: Array, mean: Array, nodes: Array, flags: Float[Array, "4"],
) -> tuple[Array, Array]:  # fmt: skip
    """Partitions and costs of each start at each count of groups, from all groups down to one.

    **Arguments:** `given`: edges as 0 and 1, and weights; `logs`: ln n! of n; `flags`: whether weights count, and which
    topology.
    """
    most = member.shape[2]
    weighted, simple, multigraph, corrected = flags
    degree = given[0].sum(axis=1)
    diagonal = jnp.eye(most, dtype=bool)

    def factorial(n: Array) -> Array:
        return logs[n.astype(jnp.int32)]

    def pair_cost(counts: Array, sums: Array, one: Array, other: Array, same: Array) -> Array:
        arranged = factorial(counts)
        slots = jnp.where(same, one * (one - 1) / 2, one * other)
        edges = simple * (factorial(slots) - factorial(slots - counts)) - arranged
        edges -= (1 - simple) * jnp.where(same, counts * jnp.log(2.0), 0.0)
        return edges - weighted * (arranged + jnp.log(mean) - (counts + 1) * jnp.log(mean + sums))

    def group_cost(sizes: Array, degrees: Array) -> Array:
        share = jnp.where(sizes > 0, factorial(jnp.maximum(sizes + degrees - 1, 0)) - factorial(jnp.maximum(sizes - 1, 0)), 0.0)
        return multigraph * degrees * jnp.log(jnp.maximum(sizes, 1)) + corrected * share - factorial(sizes)

    def blocks_of(member: Array) -> _Blocks:
        between = jnp.einsum("nr,knm,ms->krs", member, given, member) / jnp.where(diagonal, 2, 1)
        return _Blocks(jnp.round(between[0]), between[1], member.sum(axis=0), degree @ member)

    def total(blocks: _Blocks) -> Array:
        costs = pair_cost(blocks.counts, blocks.sums, blocks.sizes[:, None], blocks.sizes, diagonal)
        return jnp.where(jnp.tri(most, dtype=bool), costs, 0).sum() + group_cost(blocks.sizes, blocks.degrees).sum()

    def shifted(blocks: _Blocks, row: Array, edges: Array, sums: Array, node_degree: Array) -> _Blocks:
        """The blocks after a node with so many edges to each group joins one (`row` has a 1) or leaves it (-1)."""
        cross = row[:, None] + row - jnp.diag(row)
        both = jnp.where(row[:, None] != 0, edges, edges[:, None])
        weight = jnp.where(row[:, None] != 0, sums, sums[:, None])
        return _Blocks(
            blocks.counts + jnp.sign(cross) * both, jnp.maximum(blocks.sums + jnp.sign(cross) * weight, 0.0),
            blocks.sizes + row, blocks.degrees + row * node_degree,
        )  # fmt: skip

    def move(node: Array, state: tuple[Array, _Blocks, Array]) -> tuple[Array, _Blocks, Array]:
        member, blocks, moved = state
        edges, sums = given[:, node] @ member
        now = member[node]
        rest = shifted(blocks, -now, edges, sums, degree[node])
        sizes = rest.sizes
        larger = jnp.where(diagonal, sizes + 1, sizes)
        with_node = pair_cost(rest.counts + edges, rest.sums + sums, sizes[:, None] + 1, larger, diagonal)
        cost = (with_node - pair_cost(rest.counts, rest.sums, sizes[:, None], sizes, diagonal)).sum(axis=1)
        cost += group_cost(sizes + 1, rest.degrees + degree[node]) - group_cost(sizes, rest.degrees)
        cost = jnp.where(blocks.sizes > 0, cost, jnp.inf)
        stays = jnp.where(now > 0, cost, 0.0).sum()
        goes = (jnp.where(now > 0, sizes, 0.0).sum() > 0) & (cost.min() < stays - 1e-9)
        target = jnp.where(goes, (jnp.arange(most) == jnp.argmin(cost)).astype(now.dtype), now)
        return member.at[node].set(target), shifted(rest, target, edges, sums, degree[node]), moved | goes

    def settle(member: Array, orders: Array) -> Array:
        """Sweeps of moves until none is left."""

        def sweep(state: tuple) -> tuple:
            member, _, count = state
            begin = (member, blocks_of(member), jnp.asarray(False))
            member, _, moved = jax.lax.fori_loop(0, nodes, lambda k, state: move(orders[count, k], state), begin)
            return member, moved, count + 1

        return jax.lax.while_loop(lambda s: s[1] & (s[2] < len(orders)), sweep, (member, jnp.asarray(True), jnp.asarray(0)))[0]

    def merge(member: Array, blocks: _Blocks) -> Array:
        """The two groups whose union costs least become one."""
        counts, sums, sizes, degrees = blocks
        costs = pair_cost(counts, sums, sizes[:, None], sizes, diagonal)
        union = sizes[:, None] + sizes

        def with_others(group: Array) -> Array:
            """What the union of this group with each costs with all others, over what both cost with them."""
            joint = pair_cost(counts + counts[group], sums + sums[group], union[group][:, None], sizes, jnp.asarray(False))
            third = ~(diagonal | diagonal[group])
            return jnp.where(third, joint - costs - costs[group], 0.0).sum(axis=1)

        own, own_sums = jnp.diagonal(counts), jnp.diagonal(sums)
        inside = pair_cost(own[:, None] + own + counts, own_sums[:, None] + own_sums + sums, union, union, jnp.asarray(True))
        change = jax.lax.map(with_others, jnp.arange(most)) + inside
        change -= jnp.diagonal(costs)[:, None] + jnp.diagonal(costs) + costs
        alone = group_cost(sizes, degrees)
        change += group_cost(union, degrees[:, None] + degrees) - alone[:, None] - alone
        live = (sizes[:, None] > 0) & (sizes > 0) & ~diagonal
        kept, gone = jnp.unravel_index(jnp.argmin(jnp.where(live, change, jnp.inf)), (most, most))
        return member.at[:, kept].add(jnp.where(kept != gone, member[:, gone], 0.0)).at[:, gone].multiply(kept == gone)

    def down(start: tuple[Array, Array]) -> tuple[Array, Array]:
        first, orders = start

        def stage(member: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
            member = settle(member, orders)
            blocks = blocks_of(member)
            return merge(member, blocks), (jnp.argmax(member, axis=1), total(blocks))

        return jax.lax.scan(stage, first, None, length=most)[1]

    return jax.lax.map(down, (member, orders))
