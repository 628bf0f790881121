"""SchNet, which knows distances alone.

**Source:** Schütt et al., J. Chem. Phys. 148, 241722 (2018).
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.atoms.message_passing import SIZES, Edges, MessageConfig, MessagePassing
from broadsheet.atoms.neighbours import Neighbours
from broadsheet.atoms.registry import potential
from broadsheet.atoms.structures import AtomsBatch
from broadsheet.learn.layers import Dense, TwoLayers


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


@potential("schnet", settings=MessageConfig, sizes=SIZES)
class SchNet(MessagePassing):
    """Continuous-filter convolutions of the distances: all features are invariant."""

    def __init__(self, config: MessageConfig, key: PRNGKeyArray | int):
        super().__init__(config, key, SchNetInteraction, shifted_softplus)

    def embed(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, "atoms width"]:
        return self.rounds(self.atom_embedding[batch.numbers], batch, neighbours)
