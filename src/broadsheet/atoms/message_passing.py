"""What message-passing potentials share: sizes, edges, and rounds of messages between an embedding and a read-out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.atoms.neighbours import Neighbours, separations
from broadsheet.atoms.pair import cosine_taper, gaussian_basis
from broadsheet.atoms.potential import Potential
from broadsheet.atoms.structures import MAX_NUMBER, AtomsBatch
from broadsheet.errors import InputError
from broadsheet.learn.layers import TwoLayers, stacked
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


SIZES = {"standard": MessageConfig(cutoff=6.0), "tiny": MessageConfig(width=64, interactions=3, basis=32)}


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


class MessagePassing(Potential):
    """Embedded elements, rounds of messages along the edges, a read-out of each atom."""

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
