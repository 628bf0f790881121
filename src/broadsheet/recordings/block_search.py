"""The search for the groups of a graph that describe it in the fewest nats, for `block_models`.

A start begins with random groups. Node after node moves to the group where the length falls most, until none moves in a whole
round; the two groups whose union costs least are merged; and so on down to one group. A look at a node compares all groups at
once from counts between groups that are kept up to date, in time that grows with the square of the number of groups and not
with that of nodes. A start is one piece of machine code, and as many run side by side as there are processors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int
from scipy.special import gammaln

from broadsheet.dynamics.kernels import one_kernel

Kind = Literal["exponential", "none"]
Topology = Literal["simple", "multigraph", "degree-corrected"]
PADDED = 64
"""Graphs are filled up to a multiple of so many nodes, so that those of about one size share a program; groups to one of 8."""


class Found(NamedTuple):
    """What each start has at each count of groups, from one on.

    - `labels`: (starts, counts, nodes).
    - `lengths`: (starts, counts), nats, but for what all partitions into as many groups share.
    - `edges`: (starts, counts, groups, groups) between groups; on the diagonal each counts once.
    """

    labels: Int[np.ndarray, "starts counts nodes"]
    lengths: Float[np.ndarray, "starts counts"]
    edges: Int[np.ndarray, "starts counts groups groups"]


def log_factorials(nodes: int) -> Float[np.ndarray, " numbers"]:
    """ln n! of all n that counts in graphs of so many nodes reach."""
    room = -(-nodes // PADDED) * PADDED
    return gammaln(np.arange(room * room + room + 2) + 1.0)


def search(
    weights: Float[np.ndarray, "nodes nodes"], kind: Kind, topology: Topology, most: int, n_starts: int, sweeps: int, seed: int,
    logs: Float[np.ndarray, " numbers"],
) -> Found:  # fmt: skip
    """Groups of a symmetric matrix of weights, its diagonal 0, from `most` groups down to one.

    **Arguments:** `sweeps`: rounds of moves after each merge, at most; `logs`: `log_factorials` of its nodes.
    """
    rng, nodes = np.random.default_rng(seed), len(weights)
    room, width = -(-nodes // PADDED) * PADDED, _width(most)
    joined, given = np.zeros((room, room), np.int32), np.zeros((room, room))
    joined[:nodes, :nodes], given[:nodes, :nodes] = weights > 0, weights / weights[weights > 0].mean()
    begin, order = np.full((n_starts, room), width, np.int32), np.zeros((n_starts, room), np.int32)
    for start in range(n_starts):
        begin[start, :nodes] = rng.permutation(np.arange(nodes) % most)
        order[start, :nodes] = rng.permutation(nodes)
    flags = kind == "exponential", topology == "simple", topology == "multigraph", topology == "degree-corrected"
    room_for = np.zeros(width)
    with jax.enable_x64(True):
        shared = [jnp.asarray(each) for each in (joined, given, logs, np.array(flags, float), room_for)]

    def run(start: int) -> list[np.ndarray]:
        with jax.enable_x64(True):
            made = _merge_down(*shared, begin[start], order[start], np.array([nodes, most, sweeps], np.int32))
            return [np.asarray(each) for each in made]

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # XLA lets go of the interpreter
        labels, lengths, edges = (np.stack(each) for each in zip(*threads.map(run, range(n_starts)), strict=True))
    edges = edges[:, :most, :most, :most]
    return Found(labels[:, :most, :nodes], lengths[:, :most], np.where(np.eye(most, dtype=bool), edges // 2, edges))


def merged_counts(
    tables: Sequence[Int[np.ndarray, "_ _"]], room: int, logs: Float[np.ndarray, " numbers"]
) -> tuple[Int[np.ndarray, "tables counts groups"], Float[np.ndarray, "tables counts"]]:
    """Groups of groups by greedy unions, for each table of edges between groups, from as many as groups down to one.

    **Arguments:** `room`: no fewer than there are tables, and than a table has groups; tables of one room share a program.

    **Returns:** at each count of groups of groups their labels, and the nats that the edges between groups take given those
    between groups of groups, with those of the partition but for what all into as many share.
    """
    width = _width(room)
    given, sizes = np.zeros((width, width, width), np.int32), np.ones(width, np.int32)
    for k, table in enumerate(tables):
        sizes[k] = len(table)
        given[k, : sizes[k], : sizes[k]] = table + np.diag(np.diag(table))
    with jax.enable_x64(True):
        labels, lengths = (np.asarray(each)[: len(tables)] for each in _merge_tables(given, sizes, logs))
    return labels, lengths + logs[sizes[: len(tables), None]]


def _width(most: int) -> int:
    return -(-most // 8) * 8


class _Graph(NamedTuple):
    """Edges (nodes, nodes) as 0 and 1, weights as multiples of their mean, degrees, and how many nodes there are."""

    joined: Array
    given: Array
    degree: Array
    nodes: Array


class _Blocks(NamedTuple):
    """A partition and what follows from it; what lies within a group is counted twice.

    - `labels`: of the nodes; `edges`, `sums`: (groups, nodes), of a node to a group, and their weights.
    - `counts`, `weights`: (groups, groups), of edges between groups, and their weights.
    - `sizes`, `degrees`: of the groups.
    """

    labels: Array
    edges: Array
    sums: Array
    counts: Array
    weights: Array
    sizes: Array
    degrees: Array


class _Prices(NamedTuple):
    """What parts of a graph's description cost, in nats. `spread` and `arranged` are ln n! times how often it is paid."""

    logs: Array
    spread: Array
    arranged: Array
    flags: Array

    def pair(self, counts: Array, sums: Array, slots: Array) -> Array:
        """Edges, and weights, between two groups with so many pairs of nodes."""
        ways = _read(self.arranged, counts) + _read(self.spread, slots) - _read(self.spread, slots - counts)
        return ways + self.flags[0] * (counts + 1) * _ln(1 + sums)

    def own(self, counts: Array, sums: Array, sizes: Array) -> Array:
        """Those within a group, which are given twice."""
        twice = (1 - self.flags[1]) * np.log(2) * (counts // 2)
        return self.pair(counts // 2, sums / 2, sizes * (sizes - 1) // 2) - twice

    def group(self, sizes: Array, degrees: Array) -> Array:
        """Which nodes are in a group, and their degrees."""
        filled = jnp.maximum(sizes, 1)
        share = jnp.where(sizes > 0, _read(self.logs, filled + degrees - 1) - _read(self.logs, filled - 1), 0.0)
        return self.flags[2] * degrees * _ln(filled * 1.0) + self.flags[3] * share - _read(self.logs, sizes)


class _CountPrices(NamedTuple):
    """The same of counts of edges between groups, given those between groups of groups; all tables of one sum are alike."""

    logs: Array

    def pair(self, counts: Array, _: Array, slots: Array) -> Array:
        filled = jnp.maximum(slots, 1)
        return _read(self.logs, filled + counts - 1) - _read(self.logs, filled - 1) - _read(self.logs, counts)

    def own(self, counts: Array, sums: Array, sizes: Array) -> Array:
        return self.pair(counts // 2, sums, sizes * (sizes + 1) // 2)

    def group(self, sizes: Array, _: Array) -> Array:
        return -_read(self.logs, sizes)


def _read(table: Array, n: Array) -> Array:
    return table.at[n].get(mode="promise_in_bounds")


def _ln(x: Array) -> Array:
    """Natural logarithms of normal positive numbers, to the last bit or two. XLA asks the C library for one at a time, which
    would be two thirds of the search; this runs on vectors. `x = 2**k m`, and `ln m = 2 artanh((m - 1) / (m + 1))`."""
    bits = lax.bitcast_convert_type(x, jnp.int64)
    exponent = (bits - np.sqrt(0.5).view(np.int64)) >> 52
    m = lax.bitcast_convert_type(bits - (exponent << 52), jnp.float64)
    ratio = (m - 1) / (m + 1)
    square, tail = ratio * ratio, jnp.zeros_like(x)
    for k in range(19, 1, -2):
        tail = (tail + 1 / k) * square
    return exponent * np.log(2) + 2 * (ratio + ratio * tail)


@jax.jit
@one_kernel
def _merge_down(
    joined: Array, given: Array, logs: Array, flags: Array, room: Array, labels: Array, order: Array, limits: Array
) -> tuple[Array, Array, Array]:
    """Labels, lengths and counts of edges of one start at each count of groups.

    **Arguments:** `flags`: 1 or 0 for models of weights, simple graphs, multigraphs, corrected degrees; `room`: zeros, one for
    each group there is room for; `order`: in which nodes are looked at; `limits`: nodes, groups to begin with, and rounds.
    """
    nodes, most, sweeps = limits
    prices = _Prices(logs, flags[1] * logs, -(1 + flags[0]) * logs, flags)
    graph, blocks = _grouped(joined, given, labels, nodes, len(room))
    return _down(prices, blocks, most, lambda blocks, live: _settled(prices, graph, blocks, order, live, sweeps))


@jax.jit
def _merge_tables(counts: Array, groups: Array, logs: Array) -> tuple[Array, Array]:
    return jax.vmap(lambda one, live: _merge_table(one, live, logs))(counts, groups)


@one_kernel
def _merge_table(counts: Array, groups: Array, logs: Array) -> tuple[Array, Array]:
    """Labels of groups of groups, and what counts of edges cost given theirs, at each count of them."""
    width = len(counts)
    places = jnp.arange(width, dtype=jnp.int32)
    none, sizes = jnp.zeros((width, 1)), jnp.where(places < groups, 1, 0).astype(jnp.int32)
    blocks = _Blocks(places, none, none, counts, jnp.zeros(counts.shape), sizes, sizes)
    return _down(_CountPrices(logs), blocks, groups, lambda blocks, live: blocks)[:2]


def _down(
    prices: _Prices | _CountPrices, blocks: _Blocks, most: Array, settle: Callable[[_Blocks, Array], _Blocks]
) -> tuple[Array, Array, Array]:
    """Labels, lengths and counts at each count of groups: what `settle` makes of the blocks, then the cheapest union."""
    width = len(blocks.sizes)

    def stage(done: Array, kept: tuple) -> tuple:
        blocks, *lists = kept
        live = most - done
        blocks = settle(blocks, live)
        pairs = _all_pairs(prices, blocks)
        total = jnp.sum(jnp.where(jnp.tri(width, dtype=bool), pairs, 0)) + jnp.sum(prices.group(blocks.sizes, blocks.degrees))
        found = blocks.labels, total, blocks.counts
        lists = [lax.dynamic_update_index_in_dim(old, new, live - 1, 0) for old, new in zip(lists, found, strict=True)]
        return _united(blocks, *_cheapest_union(prices, blocks, pairs, live), live - 1), *lists

    none = [jnp.zeros((width, *shape), kind) for shape, kind in (
        (blocks.labels.shape, jnp.int32), ((), float), (blocks.counts.shape, jnp.int32))]  # fmt: skip
    return lax.fori_loop(jnp.int32(0), most, stage, (blocks, *none))[1:]


def _all_pairs(prices: _Prices | _CountPrices, blocks: _Blocks) -> Float[Array, "groups groups"]:
    """What pairs of groups cost."""
    within = prices.own(jnp.diagonal(blocks.counts), jnp.diagonal(blocks.weights), blocks.sizes)
    between = prices.pair(blocks.counts, blocks.weights, blocks.sizes[:, None] * blocks.sizes)
    return jnp.where(jnp.eye(len(within), dtype=bool), within, between)


def _grouped(joined: Array, given: Array, labels: Array, nodes: Array, width: int) -> tuple[_Graph, _Blocks]:
    """Counts of a partition, node by node."""

    def rows(node: Array, state: tuple) -> tuple:
        edges, sums, sizes = state
        group = labels[node]
        one = jnp.where(jnp.arange(width) == group, 1, 0).astype(jnp.int32)
        return _plus(edges, group, joined[node]), _plus(sums, group, given[node]), sizes + one

    def columns(node: Array, state: tuple) -> tuple:
        counts, weights = state
        return _plus(counts, labels[node], edges[:, node]), _plus(weights, labels[node], sums[:, node])

    empty = jnp.zeros((width, len(joined)), jnp.int32), jnp.zeros((width, len(joined)))
    edges, sums, sizes = lax.fori_loop(0, nodes, rows, (*empty, jnp.zeros(width, jnp.int32)))
    square = jnp.zeros((width, width), jnp.int32), jnp.zeros((width, width))
    counts, weights = lax.fori_loop(0, nodes, columns, square)
    graph = _Graph(joined, given, edges.sum(axis=0, dtype=jnp.int32), nodes)
    return graph, _Blocks(labels, edges, sums, counts, weights, sizes, counts.sum(axis=1, dtype=jnp.int32))


def _plus(rows: Array, at: Array, values: Array) -> Array:
    return lax.dynamic_update_index_in_dim(rows, rows[at] + values, at, 0)


def _settled(prices: _Prices, graph: _Graph, blocks: _Blocks, order: Array, live: Array, sweeps: Array) -> _Blocks:
    """Blocks after moves of single nodes, until none would move in a round."""
    last = sweeps * graph.nodes

    def going(state: tuple) -> Array:
        _, _, looks, idle = state
        return (idle < graph.nodes) & (looks < last)

    def turn(state: tuple) -> tuple:
        """Looks at nodes until one wants to move, and moves it."""
        blocks, pairs, looks, idle = state
        along = pairs.sum(axis=0)

        def searching(state: tuple) -> Array:
            looks, idle, _, goes = state
            return ~goes & (idle < graph.nodes) & (looks < last)

        def look(state: tuple) -> tuple:
            looks, idle, _, _ = state
            target, goes = _best_group(prices, graph, blocks, pairs, along, order[looks % graph.nodes], live)
            return looks + 1, idle + 1, target, goes

        looks, idle, target, goes = lax.while_loop(searching, look, (looks, idle, jnp.int32(0), jnp.asarray(False)))
        node = order[(looks - 1) % graph.nodes]
        blocks = _moved(graph, blocks, node, jnp.where(goes, target, blocks.labels[node]))
        return blocks, _all_pairs(prices, blocks), looks, jnp.where(goes, 0, idle)

    begin = blocks, _all_pairs(prices, blocks), jnp.int32(0), jnp.int32(0)
    return lax.while_loop(going, turn, begin)[0]


def _best_group(
    prices: _Prices, graph: _Graph, blocks: _Blocks, pairs: Array, along: Array, node: Array, live: Array
) -> tuple[Array, Array]:
    """The other group where a node costs least, and whether it costs less there than where it is, which it may not leave
    empty; `along`: sums of `pairs` of each group."""
    labels, edges, sums, counts, weights, sizes, degrees = blocks
    now, groups = labels[node], jnp.arange(len(sizes))
    here, degree, k, u = groups == now, graph.degree[node], edges[:, node], sums[:, node]
    size, left_counts, left_weights = sizes[now] - 1, counts[now] - k, weights[now] - u  # of its group without it
    left = prices.pair(left_counts, left_weights, size * sizes)

    def add(third: Array, cost: Array) -> Array:
        joint = prices.pair(counts[third] + k[third], weights[third] + u[third], (sizes + 1) * sizes[third])
        return cost + jnp.where((groups != third) & (third != now), joint, 0.0)

    cost = lax.fori_loop(0, live, add, jnp.zeros(len(sizes)))
    cost += prices.pair(left_counts + k[now], left_weights + u[now], (sizes + 1) * size)
    cost += prices.own(jnp.diagonal(counts) + 2 * k, jnp.diagonal(weights) + 2 * u, sizes + 1)
    cost -= along - pairs[now] + left
    cost += prices.group(sizes + 1, degrees + degree) - prices.group(sizes, degrees)
    stays = along[now] - jnp.sum(jnp.where(here, 0, left))
    stays -= prices.own(left_counts[now] - k[now], left_weights[now] - u[now], size)
    stays += prices.group(size + 1, degrees[now]) - prices.group(size, degrees[now] - degree)
    cost = jnp.where(here | (groups >= live), jnp.inf, cost)
    target = jnp.argmin(cost).astype(jnp.int32)
    return target, (size > 0) & (cost[target] < stays - 1e-9)


def _moved(graph: _Graph, blocks: _Blocks, node: Array, target: Array) -> _Blocks:
    labels, edges, sums, counts, weights, sizes, degrees = blocks
    now, groups = labels[node], jnp.arange(len(sizes))
    change = jnp.where(groups == target, 1, 0).astype(jnp.int32) - jnp.where(groups == now, 1, 0).astype(jnp.int32)
    k, u = edges[:, node], sums[:, node]
    return _Blocks(
        lax.dynamic_update_index_in_dim(labels, target, node, 0),
        _plus(_plus(edges, now, -graph.joined[node]), target, graph.joined[node]),
        _plus(_plus(sums, now, -graph.given[node]), target, graph.given[node]),
        counts + change[:, None] * k + k[:, None] * change,
        weights + change[:, None] * u + u[:, None] * change,
        sizes + change,
        degrees + change * graph.degree[node],
    )


def _cheapest_union(prices: _Prices | _CountPrices, blocks: _Blocks, pairs: Array, live: Array) -> tuple[Array, Array]:
    """The two groups, the lower first, whose union costs least."""
    _, _, _, counts, weights, sizes, degrees = blocks
    groups, within = jnp.arange(len(sizes)), (jnp.diagonal(counts), jnp.diagonal(weights))
    alone, along = prices.group(sizes, degrees), pairs.sum(axis=0)

    def with_all(one: Array, best: tuple) -> tuple:
        union = sizes + sizes[one]

        def add(third: Array, change: Array) -> Array:
            joint = prices.pair(counts[third] + counts[one, third], weights[third] + weights[one, third], union * sizes[third])
            return change + jnp.where((groups != third) & (third != one), joint, 0.0)

        change = lax.fori_loop(0, live, add, jnp.zeros(len(sizes)))
        change += prices.own(within[0] + within[0][one] + 2 * counts[one], within[1] + within[1][one] + 2 * weights[one], union)
        change += prices.group(union, degrees + degrees[one]) + pairs[one] - along - along[one] - alone - alone[one]
        change = jnp.where((groups > one) & (groups < live), change, jnp.inf)
        other = jnp.argmin(change).astype(jnp.int32)
        found = change[other], one, other
        return tuple(jnp.where(found[0] < best[0], new, old) for new, old in zip(found, best, strict=True))

    begin = jnp.asarray(jnp.inf), jnp.int32(0), jnp.int32(0)
    return lax.fori_loop(jnp.int32(0), live, with_all, begin)[1:]


def _united(blocks: _Blocks, kept: Array, gone: Array, last: Array) -> _Blocks:
    """The blocks with one group less: two are one, and the last takes the free place."""

    def rows(values: Array) -> Array:
        at = jnp.arange(len(values)).reshape((-1,) + (1,) * (values.ndim - 1))
        merged = jnp.where(at == kept, values[kept] + values[gone], jnp.where(at == gone, values[last], values))
        return jnp.where(at == last, 0, merged).astype(values.dtype)

    labels, edges, sums, counts, weights, sizes, degrees = blocks
    labels = jnp.where(labels == gone, kept, jnp.where(labels == last, gone, labels))
    return _Blocks(
        labels, rows(edges), rows(sums), rows(rows(counts).T), rows(rows(weights).T), rows(sizes), rows(degrees)
    )  # fmt: skip
