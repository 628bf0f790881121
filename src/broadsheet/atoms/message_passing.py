"""Message-passing potentials: SchNet, which knows distances, and PaiNN, whose vectors turn with the structure.

**Source:** SchNet: Schütt et al., J. Chem. Phys. 148, 241722 (2018). PaiNN: Schütt, Unke and Gastegger, ICML 2021,
arXiv 2102.03150.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.atoms.neighbours import Neighbours, separations
from broadsheet.atoms.pair import cosine_taper, gaussian_basis
from broadsheet.atoms.potential import Potential
from broadsheet.atoms.structures import MAX_NUMBER, AtomsBatch
from broadsheet.errors import InputError
from broadsheet.learn.layers import Dense, LayerNorm, TwoLayers, stacked
from broadsheet.numerics import generator

UNROLLED = 4
"""Interactions up to which they are compiled one by one, which runs more than three times as fast as a loop of two."""


@dataclass(frozen=True)
class MessageConfig:
    """Sizes; the defaults are those of the benchmark of relaxations (arXiv 2506.23008).

    `width`: features of an atom; `interactions`: rounds of messages; `basis`: Gaussians of the distance; `cutoff`: Å.
    """

    width: int = 128
    interactions: int = 4
    basis: int = 128
    cutoff: float = 4.5

    def check(self) -> MessageConfig:
        """Itself; raises `InputError` for sizes that make no network."""
        if min(self.width, self.basis) < 2 or self.interactions < 1 or not self.cutoff > 0:
            raise InputError("Width and basis of two at least, one interaction and a cutoff above 0 Å are wanted.")
        return self


class Edges(eqx.Module):
    """Gaussians of the distances, their weight, which goes to 0 at the cutoff, and unit vectors to the neighbours."""

    basis: Float[Array, "atoms neighbours basis"]
    weight: Float[Array, "atoms neighbours"]
    unit: Float[Array, "atoms neighbours 3"]


def edges_of(batch: AtomsBatch, neighbours: Neighbours, config: MessageConfig) -> Edges:
    """Differentiable in the positions; what lies beyond the cutoff weighs nothing."""
    parts = separations(batch, neighbours)
    square = sum((part**2 for part in parts[1:]), parts[0] ** 2)
    near = jnp.asarray(neighbours.mask) & (square < config.cutoff**2)
    r = jnp.sqrt(jnp.where(near, square, (config.cutoff / 2) ** 2))
    weight = jnp.where(near, cosine_taper(r, config.cutoff), 0)
    return Edges(gaussian_basis(r, config.basis, config.cutoff), weight, jnp.stack(parts, axis=-1) / r[..., None])


def shifted_softplus(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """ln(1 + e^x) - ln 2."""
    return jax.nn.softplus(x) - math.log(2)


class SchNetInteraction(eqx.Module):
    """x + MLP(sum over neighbours of (W x_j) times a filter of the distance)."""

    inner: Float[Array, "width width"]
    filter: TwoLayers
    outer: TwoLayers

    def __init__(self, rng: np.random.Generator, config: MessageConfig):
        width = config.width
        self.inner = Dense(rng, width, width, xavier=True).weight
        self.filter = TwoLayers(rng, config.basis, width, width, shifted_softplus)
        self.outer = TwoLayers(rng, width, width, width, shifted_softplus)

    def __call__(self, x: Float[Array, "atoms width"], edges: Edges, neighbours: Neighbours) -> Float[Array, "atoms width"]:
        weighted = self.filter(edges.basis) * edges.weight[..., None]
        return x + self.outer(jnp.sum((x @ self.inner.T)[neighbours.index] * weighted, axis=1))


class PaiNNInteraction(eqx.Module):
    """Messages along the edges, then an update of each atom by itself; scalars s and vectors v."""

    norm: LayerNorm
    message: TwoLayers
    filter: Dense
    mix: Float[Array, "both width"]
    update: TwoLayers

    def __init__(self, rng: np.random.Generator, config: MessageConfig):
        width = config.width
        self.norm = LayerNorm(width)
        self.message = TwoLayers(rng, width, width, 3 * width, jax.nn.silu)
        self.filter = Dense(rng, config.basis, 3 * width, xavier=True)
        self.mix = Dense(rng, width, 2 * width, xavier=True).weight
        self.update = TwoLayers(rng, 2 * width, width, 3 * width, jax.nn.silu)

    def __call__(
        self, features: tuple[Float[Array, "atoms width"], Float[Array, "atoms 3 width"]], edges: Edges, neighbours: Neighbours
    ) -> tuple[Float[Array, "atoms width"], Float[Array, "atoms 3 width"]]:
        s, v = features
        width = s.shape[1]
        phi = self.message(self.norm(s))[neighbours.index] * (self.filter(edges.basis) * edges.weight[..., None])
        a, b, c = jnp.split(phi, 3, axis=-1)
        # one component at a time: (atoms, neighbours, 3, width) would not fit into a processor's cache
        dv = [jnp.sum(v[:, d][neighbours.index] * b / math.sqrt(3) + c * edges.unit[..., d, None], axis=1) for d in range(3)]
        s, v = (s + jnp.sum(a, axis=1)) / math.sqrt(2), v + jnp.stack(dv, axis=1) / math.sqrt(width)
        v1, v2 = jnp.split(v @ self.mix.T, 2, axis=-1)
        along = jnp.sum(v1 * v2, axis=1) / math.sqrt(width)
        p, q, t = jnp.split(self.update(jnp.concatenate([s, jnp.sqrt(jnp.sum(v2**2, axis=1) + 1e-8)], axis=-1)), 3, axis=-1)
        return s + (p + q * along) / math.sqrt(2), v + t[:, None] * v1


class MessagePassing(Potential):
    """Embedded elements, rounds of messages along the edges, a read-out of each atom."""

    settings: ClassVar[type] = MessageConfig
    atom_embedding: Float[Array, "numbers width"]
    interactions: Any
    readout: TwoLayers
    config: MessageConfig = eqx.field(static=True)
    cutoff: float = eqx.field(static=True)

    def __init__(self, config: MessageConfig, key: PRNGKeyArray | int, interaction: type, activation: Callable[[Array], Array]):
        self.config, self.cutoff = config.check(), float(config.cutoff)
        rng = generator(key)
        self.atom_embedding = jnp.asarray(rng.standard_normal((MAX_NUMBER + 1, config.width)), float)
        self.interactions = stacked([interaction(rng, config) for _ in range(config.interactions)])
        self.readout = TwoLayers(rng, config.width, config.width // 2, 1, activation)

    @abstractmethod
    def embed(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, "atoms width"]:
        """Invariant features of the atoms after the last round."""

    def rounds(self, start: Any, batch: AtomsBatch, neighbours: Neighbours) -> Any:
        """What the rounds of messages make of the features that they begin with."""
        edges = edges_of(batch, neighbours, self.config)
        arrays, static = eqx.partition(self.interactions, eqx.is_array)

        def round_of(features: Any, layer: Any) -> tuple[Any, None]:
            return eqx.combine(layer, static)(features, edges, neighbours), None

        return jax.lax.scan(round_of, start, arrays, unroll=self.config.interactions <= UNROLLED)[0]

    def energy(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, " structures"]:
        return batch.sum_atoms(self.readout(self.embed(batch, neighbours))[:, 0])


class SchNet(MessagePassing):
    """Continuous-filter convolutions of the distances: all features are invariant."""

    def __init__(self, config: MessageConfig, key: PRNGKeyArray | int):
        super().__init__(config, key, SchNetInteraction, shifted_softplus)

    def embed(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, "atoms width"]:
        return self.rounds(self.atom_embedding[batch.numbers], batch, neighbours)


class PaiNN(MessagePassing):
    """Scalars and vectors of the atoms; the vectors carry directions, so that angles are seen without triplets."""

    def __init__(self, config: MessageConfig, key: PRNGKeyArray | int):
        super().__init__(config, key, PaiNNInteraction, jax.nn.silu)

    def features(
        self, batch: AtomsBatch, neighbours: Neighbours
    ) -> tuple[Float[Array, "atoms width"], Float[Array, "atoms 3 width"]]:
        """Scalars, and vectors that turn with the structure, after the last round."""
        s = self.atom_embedding[batch.numbers]
        return self.rounds((s, jnp.zeros((s.shape[0], 3, s.shape[1]), s.dtype)), batch, neighbours)

    def embed(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, "atoms width"]:
        return self.features(batch, neighbours)[0]
