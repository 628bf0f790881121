"""EScAIP: plain attention over each atom's neighbourhood, arXiv 2410.24169 and the authors' code (ASK-Berkeley/EScAIP, MIT).

Every neighbourhood is a padded row of edges, the atom itself first. Angles come in through Legendre polynomials of the cosines
between edges, inside the logits of the attention, and through bond-orientational order; nothing is rotated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from broadsheet.atoms.neighbours import Neighbours, displacements, neighbour_list
from broadsheet.atoms.pair import gaussian_basis
from broadsheet.atoms.potential import Potential, Prediction
from broadsheet.atoms.registry import potential
from broadsheet.atoms.structures import MAX_NUMBER, AtomsBatch
from broadsheet.errors import InputError
from broadsheet.learn.layers import Dense, FeedForward, RMSNorm, gelu, stacked
from broadsheet.numerics import direction, generator, norm

Rank = Literal["sigmoid", "sine", "hard"]
FAR = -1e30
LARGE = 100_000
"""Edges from which on atoms are taken in parts, and these computed again in the backward pass instead of kept."""
PART = 512
"""Atoms of a part."""
UNROLLED = 4
"""Blocks up to which they are compiled one by one: with two of them that is a little faster than a loop."""


@dataclass(frozen=True)
class EScAIPConfig:
    """Sizes. The published ones: S 512 wide, 10 blocks, 8 heads; M 640, 6, 10; L 1024, 8, 16; all else as here.

    `cutoff`: Å; `nearest`: k of the soft bi-kNN graph; `slots`: neighbours that a row can hold, the atom itself included;
    `rank`: "sigmoid" (the authors' full soft rank, reaching 15 widths), "sine" (their truncated one, with compact support) or
    "hard"; `rank_width`: Å; `softness`: of the largest of the three criteria; `frequencies`: channels of a head that see the
    Legendre polynomial of degree 0, 1, …; `order_degrees`: degrees of bond-orientational order; `order_weights`: whether it
    counts neighbours with their envelope (the authors' code counts them whole, which makes the energy jump where one leaves);
    `attention`: "softmax", or for ablation "uniform" (envelopes alone) or "none" (each edge sees itself).
    """

    width: int = 512
    blocks: int = 10
    heads: int = 8
    cutoff: float = 6.0
    nearest: int = 30
    slots: int = 45
    rank: Rank = "sine"
    rank_width: float = 0.2
    softness: float = 0.1
    envelope: bool = True
    frequencies: tuple[int, ...] = (20, 10, 4, 10, 20)
    order_degrees: int = 10
    order_width: int = 64
    order_weights: bool = True
    basis: int = 600
    basis_width: int = 512
    atom_width: int = 128
    multiplier: int = 2
    attention: Literal["softmax", "uniform", "none"] = "softmax"
    direct: bool = False

    def check(self) -> EScAIPConfig:
        """Itself; raises `InputError` where sizes do not fit together."""
        if self.width % self.heads or sum(self.frequencies) != self.width // self.heads:
            raise InputError(
                f"EScAIP: frequencies {self.frequencies} add up to {sum(self.frequencies)}; the width of a head, "
                f"{self.width}/{self.heads}, is wanted."
            )
        if not self.cutoff > 0 or self.nearest < 1 or self.slots < 2 or self.blocks < 1 or self.basis < 2:
            raise InputError("EScAIP: cutoff, nearest, slots, blocks and basis must be positive.")
        return self


SMALL = EScAIPConfig(
    width=64, blocks=2, heads=4, frequencies=(5, 3, 1, 3, 4), basis=96, basis_width=64, atom_width=32, order_width=16
)
"""A size for CPUs; the papers here and the command line train with it, and with `TINY`."""
TINY = replace(SMALL, width=32, heads=2, basis=48, basis_width=32, order_width=8, atom_width=16)


def published(size: Literal["S", "M", "L"]) -> EScAIPConfig:
    """The sizes of the paper."""
    width, blocks, heads = {"S": (512, 10, 8), "M": (640, 6, 10), "L": (1024, 8, 16)}[size]
    return replace(EScAIPConfig(), width=width, blocks=blocks, heads=heads)


SIZES = {"small": SMALL, "tiny": TINY, "S": published("S"), "M": published("M"), "L": published("L")}


def as_wide(config: EScAIPConfig, width: int) -> EScAIPConfig:
    """The same with so many features, in heads as wide as they are there."""
    each = config.width // config.heads
    if width < each or width % each:
        raise InputError(f"EScAIP: heads have {each} features; a multiple of that is wanted as the width, not {width}.")
    return replace(config, width=width, heads=width // each)


class Graph(eqx.Module):
    """The soft bi-kNN graph, the atom itself in slot 0; `log_envelope` is 0 there and -1e30 where there is no edge."""

    index: Int[Array, "atoms slots"]
    distance: Float[Array, "atoms slots"]
    direction: Float[Array, "atoms slots 3"]
    log_envelope: Float[Array, "atoms slots"]
    mask: Bool[Array, "atoms slots"]
    overflow: Bool[Array, " atoms"]


def soft_rank(
    distance: Float[Array, "atoms m"], mask: Bool[Array, "atoms m"], width: float, kind: Rank = "sigmoid"
) -> Float[Array, "atoms m"]:
    """How many are nearer, counted softly: sum over the row of sigmoid((d - d_other) / width), the element itself included.

    "sine" replaces the sigmoid by (1 + sin(x/2)) / 2 between -pi and pi, so that what is further than pi widths away does not
    count; "hard" counts the nearer ones.
    """
    step = (distance[:, :, None] - distance[:, None, :]) / width
    if kind == "sigmoid":
        share = jax.nn.sigmoid(step)
    elif kind == "sine":
        share = 0.5 + 0.5 * jnp.where(jnp.abs(step) < jnp.pi, jnp.sin(step / 2), jnp.sign(step))
    else:
        share = (step > 0).astype(distance.dtype)
    return jnp.sum(jnp.where(mask[:, None, :], share, 0), axis=2)


def log_envelope(e: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """-e^2 / (1 - e^2) below 1, -1e30 from there on: an edge leaves smoothly, all derivatives included."""
    inside = e < 1
    square = jnp.where(inside, e, 0) ** 2
    return jnp.where(inside, -square / (1 - square), FAR)


def biknn_graph(batch: AtomsBatch, neighbours: Neighbours, config: EScAIPConfig) -> Graph:
    """Edges with e < 1, e the soft maximum of rank from here / k, rank from there / k and distance / cutoff.

    `neighbours` are candidates with the atom itself first and with `reverse`, out to the cutoff and the reach of the rank.
    """
    vectors = displacements(batch, neighbours)
    mask = jnp.asarray(neighbours.mask)
    itself = mask & (jnp.arange(neighbours.width) == 0)
    distance = jnp.where(itself, 0.0, norm(vectors))

    def ranked(rows: tuple[Array, Array]) -> Array:
        return soft_rank(*rows, config.rank_width, config.rank)

    rank = _by_rows(ranked, (distance, mask), mask.size > LARGE)
    other = rank[neighbours.index, neighbours.reverse]
    criteria = jnp.stack([rank / config.nearest, other / config.nearest, distance / config.cutoff])
    if config.rank == "hard":
        e = jnp.max(criteria, axis=0)
    else:
        e = config.softness * jax.nn.logsumexp(criteria / config.softness, axis=0)
    e = jnp.where(itself, 0.0, jnp.where(mask, e, jnp.inf))
    slots = min(config.slots, neighbours.width)
    overflow = jnp.sum(e < 1, axis=1) > slots
    index = jnp.asarray(neighbours.index)
    if slots < neighbours.width:
        order = jax.lax.top_k(-jax.lax.stop_gradient(e), slots)[1]
        e, distance, index = (jnp.take_along_axis(part, order, axis=1) for part in (e, distance, index))
        vectors = jnp.take_along_axis(vectors, order[..., None], axis=1)
    kept = e < 1
    envelope = log_envelope(e) if config.envelope else jnp.where(kept, 0.0, FAR)
    return Graph(index, distance, direction(vectors), envelope, kept, overflow)


def _by_rows(function: Callable[[Any], Any], rows: Any, in_parts: bool) -> Any:
    """A function of whole rows, at once or `PART` rows at a time; in parts, memory does not grow with their number."""
    if not in_parts:
        return function(rows)
    n = jax.tree.leaves(rows)[0].shape[0]
    parts = -(-n // PART)

    def split(leaf: Array) -> Array:
        padded = jnp.pad(leaf, [(0, parts * PART - n)] + [(0, 0)] * (leaf.ndim - 1))
        return padded.reshape(parts, PART, *leaf.shape[1:])

    found = jax.lax.map(jax.checkpoint(lambda part: function(part)), jax.tree.map(split, rows))  # methods have no hash
    return jax.tree.map(lambda leaf: leaf.reshape(parts * PART, *leaf.shape[2:])[:n], found)


def legendre(cosine: Float[Array, "*shape"], degrees: int) -> list[Float[Array, "*shape"]]:
    """P_0 … P_(degrees - 1) by their recursion."""
    found = [jnp.ones_like(cosine), cosine]
    for n in range(1, degrees - 1):
        found.append(((2 * n + 1) * cosine * found[n] - n * found[n - 1]) / (n + 1))
    return found[:degrees]


def bond_orientational_order(
    directions: Float[Array, "atoms slots 3"] | Float[np.ndarray, "atoms slots 3"],
    weights: Float[Array, "atoms slots"] | Float[np.ndarray, "atoms slots"],
    degrees: int = 10,
) -> Float[Array, "atoms degrees"]:
    """Steinhardt's order of degree 0 …, normalised so that a single bond has 1: sqrt(mean over pairs of bonds of P_l(cosine)).

    A zero vector (the atom itself) counts in degree 0 and in the number of bonds alone. Squares below 1e-6 are raised to it, as
    in the authors' code. **Source:** Steinhardt et al., Phys. Rev. B 28, 784 (1983).
    """
    directions, weights = jnp.asarray(directions), jnp.asarray(weights)
    share = weights / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1e-12)
    bond = share * (jnp.sum(directions**2, axis=-1) > 0.5)
    polynomials = legendre(jnp.einsum("nmd,nkd->nmk", directions, directions), degrees)
    squares = [jnp.einsum("nm,nmk,nk->n", bond, polynomial, bond) for polynomial in polynomials]
    squares[0] = jnp.sum(share, axis=1) ** 2
    return jnp.sqrt(jnp.maximum(jnp.stack(squares, axis=1), 1e-6))


class EdgeEmbedding(eqx.Module):
    """Features of an edge: its length, and species and order of both ends."""

    atom_from: Float[Array, "numbers width"]
    atom_to: Float[Array, "numbers width"]
    order_from: Dense
    order_to: Dense
    length: Dense
    join: Dense
    norm: RMSNorm

    def __init__(self, rng: np.random.Generator, config: EScAIPConfig):
        shape = (MAX_NUMBER + 1, config.atom_width)
        self.atom_from, self.atom_to = (jnp.asarray(rng.uniform(-0.001, 0.001, shape), float) for _ in range(2))
        self.order_from = Dense(rng, config.order_degrees, config.order_width)
        self.order_to = Dense(rng, config.order_degrees, config.order_width)
        self.length = Dense(rng, config.basis, config.basis_width)
        self.join = Dense(rng, config.basis_width + 2 * (config.order_width + config.atom_width), config.width)
        self.norm = RMSNorm(config.width)

    def __call__(self, features: Features) -> Float[Array, "atoms slots width"]:
        """The dense layer over the joined features, taken apart: what belongs to an atom is multiplied once an atom."""
        numbers, graph = features.numbers, features.graph
        a, o, length = self.atom_from.shape[1], self.order_from.bias.shape[0], self.length.bias.shape[0]
        W = jnp.split(self.join.weight, [length, length + o, length + o + a, length + 2 * o + a], axis=1)
        sender = gelu(self.order_from(features.order)) @ W[1].T + self.atom_from[numbers] @ W[2].T
        receiver = gelu(self.order_to(features.order)) @ W[3].T + self.atom_to[numbers] @ W[4].T
        ends = sender[graph.index] + features.own(receiver)[:, None]
        joined = gelu(self.length(features.basis)) @ W[0].T + ends + self.join.bias
        return self.norm(gelu(joined))


class Features(eqx.Module):
    """What all blocks read: species and order of all atoms, and the edges of all of them or of some, the `rows`."""

    numbers: Int[Array, " atoms"]
    order: Float[Array, "atoms degrees"]
    graph: Graph
    basis: Float[Array, "rows slots basis"]
    polynomials: list[Float[Array, "rows slots slots"]]
    rows: Int[Array, " rows"] | None = None

    def own(self, values: Float[Array, "atoms *shape"]) -> Float[Array, "rows *shape"]:
        """The values of the atoms whose edges these are."""
        return values if self.rows is None else values[self.rows]


class LegendreAttention(eqx.Module):
    """Self-attention over the slots of each atom; channel block l of a head is weighted with P_l(cosine of two edges)."""

    query: Dense
    key: Dense
    value: Dense
    out: Dense
    heads: int = eqx.field(static=True)
    frequencies: tuple[int, ...] = eqx.field(static=True)
    kind: str = eqx.field(static=True)

    def __init__(self, rng: np.random.Generator, config: EScAIPConfig):
        self.query, self.key, self.value, self.out = (Dense(rng, config.width, config.width) for _ in range(4))
        self.heads, self.frequencies, self.kind = config.heads, config.frequencies, config.attention

    def __call__(self, message: Float[Array, "atoms slots width"], features: Features) -> Float[Array, "atoms slots width"]:
        if self.kind == "none":
            return self.out(self.value(message))
        shape = (*message.shape[:2], self.heads, -1)
        q, k, v = (part(message).reshape(shape) for part in (self.query, self.key, self.value))
        expanded = sum(count * (2 * degree + 1) for degree, count in enumerate(self.frequencies))
        logits = jnp.zeros(())
        start = 0
        for count, polynomial in zip(self.frequencies if self.kind == "softmax" else (), features.polynomials, strict=False):
            part = jnp.einsum("nmhc,nkhc->nhmk", q[..., start : start + count], k[..., start : start + count])
            logits, start = logits + part * polynomial[:, None], start + count
        logits = logits / math.sqrt(-(-expanded // 8) * 8) + features.graph.log_envelope[:, None, None, :]
        mixed = jnp.einsum("nhmk,nkhc->nmhc", jnp.broadcast_to(jax.nn.softmax(logits, axis=-1), (
            message.shape[0], self.heads, message.shape[1], message.shape[1])), v)  # fmt: skip
        return self.out(mixed.reshape(message.shape))


class Block(eqx.Module):
    """Attention and feed-forward, each with its norm before and a residual path, on atoms and on edges."""

    embedding: EdgeEmbedding
    node_hidden: Dense
    edge_hidden: Dense
    message: Dense
    message_norm: RMSNorm
    attention: LegendreAttention
    node_ffn: FeedForward
    edge_ffn: FeedForward
    norms: tuple[RMSNorm, RMSNorm, RMSNorm, RMSNorm]

    def __init__(self, rng: np.random.Generator, config: EScAIPConfig):
        width = config.width
        self.embedding = EdgeEmbedding(rng, config)
        self.node_hidden, self.edge_hidden = Dense(rng, 2 * width, width), Dense(rng, width, width)
        self.message, self.message_norm = Dense(rng, 3 * width, width), RMSNorm(width)
        self.attention = LegendreAttention(rng, config)
        self.node_ffn = FeedForward(rng, width, config.multiplier)
        self.edge_ffn = FeedForward(rng, width, config.multiplier)
        self.norms = (RMSNorm(width), RMSNorm(width), RMSNorm(width), RMSNorm(width))

    def __call__(self, x: Array, e: Array, features: Features) -> tuple[Array, Array]:
        node, edge = self.norms[0](x), self.norms[1](e)
        sender, receiver = jnp.split(self.node_hidden.weight, 2, axis=1)
        ends = (node @ sender.T)[features.graph.index] + features.own(node @ receiver.T)[:, None] + self.node_hidden.bias
        parts = (self.embedding(features), gelu(self.edge_hidden(edge)), gelu(ends))
        message = self.message_norm(gelu(self.message(jnp.concatenate(parts, axis=-1))))
        output = self.attention(message, features)
        x, e = features.own(x) + output[:, 0], e + output
        return x + self.node_ffn(self.norms[2](x)), e + self.edge_ffn(self.norms[3](e))


class Readout(eqx.Module):
    """Residual feed-forward of what a block leaves, and after the last one, of all together."""

    ffn: FeedForward
    norm: RMSNorm

    def __init__(self, rng: np.random.Generator, config: EScAIPConfig):
        self.ffn, self.norm = FeedForward(rng, config.width, config.multiplier), RMSNorm(config.width)

    def __call__(self, x: Float[Array, "*shape width"]) -> Float[Array, "*shape width"]:
        return x + self.ffn(self.norm(x))


class Projection(eqx.Module):
    """The readouts of all blocks, joined."""

    join: Dense
    norm: RMSNorm

    def __init__(self, rng: np.random.Generator, config: EScAIPConfig):
        self.join, self.norm = Dense(rng, config.width * (config.blocks + 1), config.width), RMSNorm(config.width)

    def __call__(self, readouts: Float[Array, "*shape all"]) -> Float[Array, "*shape width"]:
        return self.norm(gelu(self.join(readouts)))


class Head(eqx.Module):
    """From the joined readouts to the answer."""

    norm: RMSNorm
    ffn: FeedForward
    answer: Float[Array, "out width"]

    def __init__(self, rng: np.random.Generator, config: EScAIPConfig, outputs: int):
        self.norm = RMSNorm(config.width)
        self.ffn = FeedForward(rng, config.width, config.multiplier, xavier=True)
        self.answer = Dense(rng, config.width, outputs, xavier=True).weight

    def __call__(self, joined: Float[Array, "*shape width"]) -> Float[Array, "*shape out"]:
        return self.ffn(self.norm(joined)) @ self.answer.T


@potential("escaip", settings=EScAIPConfig, sizes=SIZES, sized=as_wide)
class EScAIP(Potential):
    """The potential. Energies by default, forces as their gradient; with `direct` also forces of their own, which do not turn
    with the structure. Blocks and readouts are stacked along the first axis of their weights and run as one scan.

    Its energy is NaN where an atom has more edges than `slots`, so that nothing goes on without them.
    """

    input: EdgeEmbedding
    input_ffn: FeedForward
    input_norms: tuple[RMSNorm, RMSNorm]
    blocks: Block
    node_readouts: Readout
    edge_readouts: Readout | None
    node_projection: Projection
    edge_projection: Projection | None
    head: Head
    force_direction: Head | None
    force_size: Head | None
    config: EScAIPConfig = eqx.field(static=True)
    cutoff: float = eqx.field(static=True)

    def __init__(self, config: EScAIPConfig, key: PRNGKeyArray | int):
        self.config, self.cutoff = config.check(), config.cutoff
        rng = generator(key)  # drawn on the host: a new model compiles nothing
        self.input, self.input_ffn = EdgeEmbedding(rng, config), FeedForward(rng, config.width, 1)
        self.input_norms = (RMSNorm(config.width), RMSNorm(config.width))
        self.blocks = stacked([Block(rng, config) for _ in range(config.blocks)])
        self.node_readouts = stacked([Readout(rng, config) for _ in range(config.blocks + 1)])
        self.node_projection, self.head = Projection(rng, config), Head(rng, config, 1)
        self.edge_readouts = self.edge_projection = self.force_direction = self.force_size = None
        if config.direct:
            self.edge_readouts = stacked([Readout(rng, config) for _ in range(config.blocks + 1)])
            self.edge_projection = Projection(rng, config)
            self.force_direction, self.force_size = Head(rng, config, 3), Head(rng, config, 1)

    def neighbours(self, batch: AtomsBatch, *, skin: float = 0.0, width: int | None = None) -> Neighbours:
        """Candidates: the atom itself and all within the cutoff and the reach of the rank."""
        reach = {"sigmoid": 15.0, "sine": math.pi, "hard": 0.0}[self.config.rank] * self.config.rank_width
        return neighbour_list(batch, self.cutoff + reach + skin, self_edges=True, reverse=True, width=width)

    def order(self, graph: Graph) -> Float[Array, "atoms degrees"]:
        """Bond-orientational order of each row of the graph."""
        weights = jnp.exp(graph.log_envelope) if self.config.order_weights else graph.mask.astype(graph.distance.dtype)
        return bond_orientational_order(graph.direction, weights, self.config.order_degrees)

    def features(
        self, numbers: Int[Array, " atoms"], order: Float[Array, "atoms degrees"], graph: Graph,
        rows: Int[Array, " rows"] | None = None,
    ) -> Features:  # fmt: skip
        """What blocks read of a graph, or of some of its rows."""
        basis = gaussian_basis(graph.distance, self.config.basis, self.config.cutoff, width=2.0)
        bond = jnp.sum(graph.direction**2, axis=-1) > 0.5
        both = bond[:, :, None] & bond[:, None, :]
        cosines = jnp.einsum("nmd,nkd->nmk", graph.direction, graph.direction)
        polynomials = [
            jnp.where(both, polynomial, 0) if degree else polynomial
            for degree, polynomial in enumerate(legendre(cosines, len(self.config.frequencies)))
        ]
        return Features(numbers, order, graph, basis, polynomials, rows)

    def embed(
        self, batch: AtomsBatch, neighbours: Neighbours
    ) -> tuple[Float[Array, "stages atoms width"], Float[Array, "stages atoms slots width"] | None, Graph]:
        """Features of atoms, and with direct forces of edges, after the input and after each block; and the graph."""
        graph, numbers = biknn_graph(batch, neighbours, self.config), jnp.asarray(batch.numbers)
        large = graph.index.size > LARGE
        order = _by_rows(self.order, graph, large)
        whole = None if large else self.features(numbers, order, graph)
        edges_of = graph, jnp.arange(len(numbers))
        weights, static = eqx.partition(self.blocks, eqx.is_array)
        direct = self.config.direct

        def begin(part: tuple[Graph, Array]) -> tuple[Array, Array]:
            e = self.input(self.features(numbers, order, *part) if whole is None else whole)
            e = e + self.input_ffn(e)
            return self.input_norms[0](e[:, 0]), self.input_norms[1](e)

        def stage(carry: tuple[Array, Array], arrays: Block) -> tuple[tuple[Array, Array], tuple[Array, Array | None]]:
            block, (x, e) = eqx.combine(arrays, static), carry

            def go_on(part: tuple[Array, tuple[Graph, Array]]) -> tuple[Array, Array]:
                return block(x, part[0], self.features(numbers, order, *part[1]) if whole is None else whole)

            x, e = _by_rows(go_on, (e, edges_of), large)
            return (x, e), (x, e if direct else None)

        first = _by_rows(begin, edges_of, large)
        unroll = self.config.blocks if self.config.blocks <= UNROLLED else 1
        _, (nodes, edges) = jax.lax.scan(stage, first, weights, unroll=unroll)
        nodes = jnp.concatenate([first[0][None], nodes])
        return nodes, jnp.concatenate([first[1][None], edges]) if direct else None, graph  # type: ignore[list-item]

    def energy(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, " structures"]:
        nodes, _, graph = self.embed(batch, neighbours)
        return self._energy(batch, _joined(self.node_readouts, self.node_projection, nodes), graph)

    def _energy(self, batch: AtomsBatch, joined: Float[Array, "atoms width"], graph: Graph) -> Float[Array, " structures"]:
        return batch.sum_atoms(jnp.where(graph.overflow, jnp.nan, self.head(joined)[:, 0]))

    def energy_and_direct_forces(self, batch: AtomsBatch, neighbours: Neighbours) -> Prediction:
        """Forces: a size from the atom times a sum of edges, each scaled along x, y and z by numbers of its own."""
        if self.force_direction is None or self.force_size is None:
            return super().energy_and_direct_forces(batch, neighbours)
        nodes, edges, graph = self.embed(batch, neighbours)
        atoms = _joined(self.node_readouts, self.node_projection, nodes)
        size = self.force_size(atoms)
        joined = _joined(self.edge_readouts, self.edge_projection, edges)
        scale = self.force_direction(joined) * graph.direction
        summed = jnp.sum(jnp.where(graph.mask[..., None], scale, 0), axis=1)
        return Prediction(self._energy(batch, atoms, graph), jnp.where(batch.node_mask[:, None], size * summed, 0))


def _joined(readouts: Readout | None, projection: Projection | None, stages: Array | None) -> Array:
    """Each stage read out by itself, all joined along the features."""
    assert readouts is not None
    assert projection is not None
    assert stages is not None
    read = eqx.filter_vmap(lambda readout, x: readout(x))(readouts, stages)
    return projection(jnp.moveaxis(read, 0, -2).reshape(*stages.shape[1:-1], -1))
