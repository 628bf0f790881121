"""PaiNN, whose vectors turn with the structure.

**Source:** Schütt, Unke and Gastegger, ICML 2021, arXiv 2102.03150.
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
from broadsheet.learn.layers import Dense, LayerNorm, TwoLayers


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


@potential("painn", settings=MessageConfig, sizes=SIZES)
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
