"""A Transformer over atoms that knows no symmetry but the order of the atoms and the place of the structure, and maps that
turn its features: the idea of TransIP, arXiv 2510.00027.

One token an atom, full attention within a structure. What a rotation does to the features is learned; only training needs it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from broadsheet.atoms.neighbours import OVERLAP, Neighbours, refuse_overlap, whole_structures
from broadsheet.atoms.pair import gaussian_basis
from broadsheet.atoms.potential import Potential, Prediction
from broadsheet.atoms.registry import potential
from broadsheet.atoms.structures import MAX_NUMBER, AtomsBatch
from broadsheet.errors import InputError
from broadsheet.learn.layers import Dense, FeedForward, LayerNorm, TwoLayers, gelu, stacked
from broadsheet.numerics import generator

if TYPE_CHECKING:
    from broadsheet.atoms.training import LossTerm, Training

CHARGES = 8
"""Largest total charge, of either sign, that has an embedding, e."""
SPINS = 16
"""Largest multiplicity that has one."""
UNROLLED = 4
"""Blocks up to which they are compiled one by one."""
NOTHING = -1e30


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes.

    `octaves`: sines and cosines of the coordinates, from `wavelength` (Å) on, each half as long as the one before; `pair_bias`:
    attention also sees distances, by `basis` Gaussians up to `reach` (Å), which makes part of the network invariant; `map`:
    what a rotation does to features, "mlp" or "linear" (an exact representation of rotations in a learned basis);
    `map_scale`: of the last layer of the "mlp" at the start (0: it begins as the identity); `direct`: a head for forces.
    """

    width: int = 384
    blocks: int = 8
    heads: int = 8
    multiplier: int = 4
    octaves: int = 6
    wavelength: float = 16.0
    pair_bias: bool = False
    basis: int = 32
    reach: float = 12.0
    map: Literal["mlp", "linear"] = "mlp"
    map_scale: float = 0.0
    direct: bool = True

    def check(self) -> TransformerConfig:
        """Itself; raises `InputError` where sizes do not fit together."""
        if self.width < 16 or self.blocks < 1 or self.heads < 1 or self.width % self.heads:
            raise InputError(f"AtomTransformer: {self.heads} heads of {self.width} features; a multiple of them, 16 at least.")
        if min(self.octaves, self.multiplier) < 0 or self.basis < 2 or not min(self.wavelength, self.reach) > 0:
            raise InputError("AtomTransformer: octaves, basis, wavelength and reach must be positive.")
        if self.map not in ("mlp", "linear"):
            raise InputError(f"AtomTransformer: the map {self.map!r} is neither mlp nor linear.")
        return self


class Layout(eqx.Module):
    """Where the atoms of a batch stand in rows of `slots`, a row a structure; padding atoms stand nowhere."""

    place: Int[Array, " atoms"]
    mask: Bool[Array, "structures slots"]

    @classmethod
    def of(cls, batch: AtomsBatch, neighbours: Neighbours) -> Layout:
        """The atoms of a structure lie one after the other in a batch, and the first is every one's first neighbour."""
        rows, slots = batch.structures, neighbours.width
        within = jnp.arange(len(batch.graph)) - neighbours.index[:, 0]
        place = jnp.where(batch.node_mask, batch.graph * slots + within, rows * slots)
        return cls(place, jnp.zeros(rows * slots, bool).at[place].set(True, mode="drop").reshape(rows, slots))

    def rows(self, values: Float[Array, "atoms *shape"]) -> Float[Array, "structures slots *shape"]:
        """From atoms to rows, zero where there is none."""
        flat = jnp.zeros((self.mask.size, *values.shape[1:]), values.dtype).at[self.place].set(values, mode="drop")
        return flat.reshape(*self.mask.shape, *values.shape[1:])

    def atoms(self, values: Float[Array, "structures slots *shape"]) -> Float[Array, "atoms *shape"]:
        """From rows to atoms, zero for padding atoms."""
        return values.reshape(self.mask.size, *values.shape[2:]).at[self.place].get(mode="fill", fill_value=0)


class TransformerBlock(eqx.Module):
    """Full attention within a structure and a feed-forward layer, each with its norm before and a residual path."""

    norms: tuple[LayerNorm, LayerNorm]
    joint: Dense
    out: Dense
    bias: Float[Array, "basis heads"] | None
    feed_forward: FeedForward
    heads: int = eqx.field(static=True)

    def __init__(self, rng: np.random.Generator, config: TransformerConfig):
        width = config.width
        self.norms = (LayerNorm(width), LayerNorm(width))
        self.joint, self.out = Dense(rng, width, 3 * width, xavier=True), Dense(rng, width, width, xavier=True)
        self.bias = jnp.zeros((config.basis, config.heads)) if config.pair_bias else None
        self.feed_forward = FeedForward(rng, width, config.multiplier, xavier=True)
        self.heads = config.heads

    def __call__(
        self, x: Float[Array, "structures slots width"], mask: Bool[Array, "structures slots"],
        distances: Float[Array, "structures slots slots basis"] | None,
    ) -> Float[Array, "structures slots width"]:  # fmt: skip
        q, k, v = (
            part.reshape(*part.shape[:2], self.heads, -1) for part in jnp.split(self.joint(self.norms[0](x)), 3, axis=-1)
        )
        logits = jnp.einsum("gmhc,gnhc->ghmn", q, k) / math.sqrt(q.shape[-1])
        if self.bias is not None and distances is not None:
            logits += jnp.einsum("gmnb,bh->ghmn", distances, self.bias)
        share = jax.nn.softmax(jnp.where(mask[:, None, None], logits, NOTHING), axis=-1)
        x = x + self.out(jnp.einsum("ghmn,gnhc->gmhc", share, v).reshape(x.shape))
        return x + self.feed_forward(self.norms[1](x))


class RotationMap(eqx.Module):
    """What a rotation does to an atom's features: h + MLP([h, R]) at the length of h."""

    layers: tuple[Dense, Dense, Dense]

    def __init__(self, rng: np.random.Generator, width: int, scale: float):
        first, second = (Dense(rng, n, 2 * width, xavier=True) for n in (width + 9, 2 * width))
        last = Dense(rng, 2 * width, width, xavier=True)
        self.layers = (first, second, eqx.tree_at(lambda dense: dense.weight, last, scale * last.weight))

    def __call__(self, h: Float[Array, "rows width"], rotations: Float[Array, "rows 3 3"]) -> Float[Array, "rows width"]:
        first, second, last = self.layers
        given = jnp.concatenate([h, rotations.reshape(-1, 9).astype(h.dtype)], axis=-1)
        moved = h + last(gelu(second(gelu(first(given)))))
        squares = (jnp.sum(part**2, axis=1, keepdims=True) + 1e-12 for part in (h, moved))
        return moved * jnp.sqrt(next(squares) / next(squares))


class LinearRotationMap(eqx.Module):
    """h' = B D(R) B^T h with an orthogonal B that is learned: scalars, vectors and symmetric traceless tensors in a learned
    basis, so that one rotation after the other is exactly their product. A width of n holds n/8 vectors and n/16 tensors, and
    scalars in the rest.
    """

    skew: Float[Array, "width width"]
    vectors: int = eqx.field(static=True)
    tensors: int = eqx.field(static=True)

    def __init__(self, rng: np.random.Generator, width: int):
        self.skew = jnp.asarray(rng.standard_normal((width, width)) / width, float)
        self.vectors, self.tensors = width // 8, width // 16

    def basis(self) -> Float[Array, "width width"]:
        """B, by Cayley's transform of a skew-symmetric matrix."""
        skew, one = self.skew - self.skew.T, jnp.eye(len(self.skew))
        return jnp.linalg.solve(one + skew, one - skew)

    def __call__(self, h: Float[Array, "rows width"], rotations: Float[Array, "rows 3 3"]) -> Float[Array, "rows width"]:
        basis, R = self.basis(), rotations.astype(h.dtype)
        vectors, tensors, scalars = jnp.split(h @ basis, [3 * self.vectors, 3 * self.vectors + 5 * self.tensors], axis=1)
        vectors = jnp.einsum("nde,nke->nkd", R, vectors.reshape(len(h), -1, 3))
        tensors = jnp.einsum("nab,nkb->nka", _of_tensors(R), tensors.reshape(len(h), -1, 5))
        return jnp.concatenate([vectors.reshape(len(h), -1), tensors.reshape(len(h), -1), scalars], axis=1) @ basis.T


def _of_tensors(R: Float[Array, "rows 3 3"]) -> Float[Array, "rows 5 5"]:
    """What rotations do to symmetric traceless tensors, in an orthonormal basis of them."""
    a, b = math.sqrt(0.5), math.sqrt(1 / 6)
    units = np.zeros((5, 3, 3))
    for k, (i, j) in enumerate(((0, 1), (1, 2), (0, 2))):
        units[k, i, j] = units[k, j, i] = a
    units[3], units[4] = np.diag([a, -a, 0]), np.diag([-b, -b, 2 * b])
    return jnp.einsum("aij,nik,njl,bkl->nab", units, R, R, units)


SIZES = {"standard": TransformerConfig(width=128, blocks=4), "tiny": TransformerConfig(width=64, blocks=3)}


def as_wide(config: TransformerConfig, width: int) -> TransformerConfig:
    """The same with so many features, in 8 heads or as many as divide them."""
    return replace(config, width=width, heads=max(n for n in (1, 2, 4, 8) if width % n == 0))


def turned(settings: Training, weight: float | None) -> LossTerm:
    """Labels under rotations, and latent equivariance with its weight, 3 by default."""
    from broadsheet.atoms.latent_equivariance import LatentEquivariance, rotation_loss

    return rotation_loss(settings, LatentEquivariance() if weight is None else LatentEquivariance(weight))


@potential("transip", settings=TransformerConfig, sizes=SIZES, sized=as_wide, objective=turned, equivariant=False)
class AtomTransformer(Potential):
    """The potential. Neither its energy nor its forces follow rotations unless it has learned to; translations and the order of
    the atoms are exact. Structures without periodic directions alone.
    """

    atom_embedding: Float[Array, "numbers width"]
    charge_embedding: Float[Array, "charges width"]
    spin_embedding: Float[Array, "spins width"]
    place: TwoLayers
    blocks: TransformerBlock
    norm: LayerNorm
    head: TwoLayers
    force_head: TwoLayers | None
    rotation_map: RotationMap | LinearRotationMap
    config: TransformerConfig = eqx.field(static=True)
    cutoff: float = eqx.field(static=True)

    def __init__(self, config: TransformerConfig, key: PRNGKeyArray | int):
        self.config, self.cutoff = config.check(), math.inf
        rng, width = generator(key), config.width

        def embedding(rows: int) -> Array:
            return jnp.asarray(rng.standard_normal((rows, width)), float)

        self.atom_embedding = embedding(MAX_NUMBER + 1)
        self.charge_embedding, self.spin_embedding = 0.1 * embedding(2 * CHARGES + 1), 0.1 * embedding(SPINS + 1)
        self.place = TwoLayers(rng, 3 * (1 + 2 * config.octaves), 2 * width, width, gelu)
        self.blocks = stacked([TransformerBlock(rng, config) for _ in range(config.blocks)])
        self.norm, self.head = LayerNorm(width), TwoLayers(rng, width, width, 1, gelu)
        self.force_head = TwoLayers(rng, width, width, 3, gelu) if config.direct else None
        if config.map == "linear":
            self.rotation_map: RotationMap | LinearRotationMap = LinearRotationMap(rng, width)
        else:
            self.rotation_map = RotationMap(rng, width, config.map_scale)

    def neighbours(self, batch: AtomsBatch, *, skin: float = 0.0, width: int | None = None) -> Neighbours:
        """All atoms of the structure, the atom itself among them."""
        real = np.asarray(batch.graph_mask)
        if np.asarray(batch.pbc)[real].any():
            raise InputError("AtomTransformer: structures without periodic directions are wanted.")
        charge, spin = np.asarray(batch.charge)[real], np.asarray(batch.spin)[real]
        known = (np.abs(charge) <= CHARGES) & (spin >= 1) & (spin <= SPINS) & (charge % 1 == 0) & (spin % 1 == 0)
        if not known.all():
            k = int(np.flatnonzero(~known)[0])
            raise InputError(
                f"structure {k} has the charge {charge[k]:g} and the multiplicity {spin[k]:g}; AtomTransformer knows whole "
                f"charges up to ±{CHARGES} and multiplicities of 1 to {SPINS}."
            )
        found = whole_structures(batch, width=width)
        positions, atoms = np.asarray(batch.positions, float), np.arange(len(found.index))
        apart = np.sqrt(((positions[found.index] - positions[:, None]) ** 2).sum(axis=-1))
        near = found.mask & (found.index != atoms[:, None]) & (apart < OVERLAP)
        if near.any():
            i, slot = (int(part[0]) for part in np.nonzero(near))
            j, k = int(found.index[i, slot]), int(batch.graph[i])
            first = int(np.searchsorted(batch.graph, k))
            refuse_overlap(np.array([i - first]), np.array([j - first]), apart[[i], [slot]], f"structure {k}")
        return found

    def embed(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, "atoms width"]:
        """Features of each atom, of zero mean and unit variance times what the last norm learned."""
        config, graph = self.config, batch.graph
        x = jnp.asarray(batch.positions)
        x = x - (batch.sum_atoms(x) / batch.counts()[:, None])[graph]
        waves = [2 * math.pi * 2**k / config.wavelength * x for k in range(config.octaves)]
        seen = jnp.concatenate([x, *(part for wave in waves for part in (jnp.sin(wave), jnp.cos(wave)))], axis=1)
        charge, spin = (jnp.asarray(part).round().astype(int)[graph] for part in (batch.charge, batch.spin))
        tokens = self.atom_embedding[batch.numbers] + self.place(seen) + self.charge_embedding[charge + CHARGES]
        layout = Layout.of(batch, neighbours)
        distances = self._distances(layout.rows(x)) if config.pair_bias else None
        arrays, static = eqx.partition(self.blocks, eqx.is_array)

        def block(h: Array, layer: TransformerBlock) -> tuple[Array, None]:
            return eqx.combine(layer, static)(h, layout.mask, distances), None

        unroll = config.blocks <= UNROLLED
        h, _ = jax.lax.scan(block, layout.rows(tokens + self.spin_embedding[spin]), arrays, unroll=unroll)
        return layout.atoms(self.norm(h))

    def _distances(self, x: Float[Array, "structures slots 3"]) -> Float[Array, "structures slots slots basis"]:
        square = jnp.sum((x[:, :, None] - x[:, None]) ** 2, axis=-1)
        apart = square > 0
        distance = jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)
        return gaussian_basis(distance, self.config.basis, self.config.reach)

    def read(self, h: Float[Array, "atoms width"], batch: AtomsBatch) -> Float[Array, " structures"]:
        """Energies from the features."""
        return batch.sum_atoms(self.head(h)[:, 0])

    def read_forces(self, h: Float[Array, "atoms width"], batch: AtomsBatch) -> Float[Array, "atoms 3"]:
        """Forces from the features; those of a structure add up to zero."""
        if self.force_head is None:
            raise InputError("This AtomTransformer was made without a head for forces (direct=False).")
        forces = self.force_head(h)
        net = batch.sum_atoms(forces) / batch.counts()[:, None]
        return jnp.where(batch.node_mask[:, None], forces - net[batch.graph], 0)

    def read_both(self, h: Float[Array, "atoms width"], batch: AtomsBatch) -> Prediction:
        """Energies and forces from the features."""
        return Prediction(self.read(h, batch), self.read_forces(h, batch))

    def energy(self, batch: AtomsBatch, neighbours: Neighbours) -> Float[Array, " structures"]:
        return self.read(self.embed(batch, neighbours), batch)

    def energy_and_direct_forces(self, batch: AtomsBatch, neighbours: Neighbours) -> Prediction:
        return self.read_both(self.embed(batch, neighbours), batch)
