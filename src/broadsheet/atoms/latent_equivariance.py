"""Training that teaches features to turn: a map is asked for the features of the rotated structure, arXiv 2510.00027.

The paper's text was not at hand; the losses' forms and weights are ours, after its abstract.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from broadsheet.atoms.atom_transformer import AtomTransformer
from broadsheet.atoms.neighbours import Neighbours
from broadsheet.atoms.potential import Prediction, ScaledPotential
from broadsheet.atoms.rotations import doubled, joined, random_rotations, rotated
from broadsheet.atoms.structures import AtomsBatch
from broadsheet.atoms.training import LossTerm, Training, label_error
from broadsheet.errors import InputError

ALIKE = 0.005
"""Relative difference of two atoms' distances to all others below which they count as equivalent by symmetry."""


@dataclass(frozen=True)
class LatentEquivariance:
    """The second objective. `weight`: 0 leaves augmentation by rotations alone; `kind`: "infonce", -log of the right atom's
    share among all of the batch by cosines over a `temperature`, or "mse", mean square distance of what the map says from what
    the network says; `hold`: gradients go through the map's side only; `rotate`: without it, structures stay as they lie.
    """

    weight: float = 3.0
    kind: Literal["mse", "infonce"] = "infonce"
    temperature: float = 0.1
    hold: bool = False
    rotate: bool = True

    def check(self) -> LatentEquivariance:
        """Itself; raises `InputError` for what cannot be trained with."""
        if not self.weight >= 0 or not self.temperature > 0 or self.kind not in ("mse", "infonce"):
            raise InputError("LatentEquivariance: a weight of 0 or more, a temperature above 0, and mse or infonce are wanted.")
        return self


def latent_distance(
    mapped: Float[Array, "atoms width"], target: Float[Array, "atoms width"], mask: Bool[Array, " atoms"]
) -> Float[Array, ""]:
    """Mean square difference over features and real atoms."""
    return jnp.sum(jnp.where(mask, jnp.mean((mapped - target) ** 2, axis=1), 0)) / jnp.sum(mask)


def latent_contrast(
    mapped: Float[Array, "atoms width"], target: Float[Array, "atoms width"], batch: AtomsBatch, temperature: float
) -> Float[Array, ""]:
    """InfoNCE: -log of the share of each atom's own target among all real atoms', without equivalent atoms of its structure."""
    mask = jnp.asarray(batch.node_mask)
    unit, other = (part * jax.lax.rsqrt(jnp.sum(part**2, axis=1, keepdims=True) + 1e-12) for part in (mapped, target))
    logits = unit @ other.T / temperature
    own = jnp.eye(len(mapped), dtype=bool)
    counted = mask[None, :] & (own | ~equivalent_atoms(batch))
    share = jnp.diag(jax.nn.log_softmax(jnp.where(counted, logits, -1e30), axis=1))
    return -jnp.sum(jnp.where(mask, share, 0)) / jnp.sum(mask)


def equivalent_atoms(batch: AtomsBatch) -> Bool[Array, "atoms atoms"]:
    """Atoms of one element and structure whose distances to the others, by element, are nearly the same."""
    numbers, graph, x = (jnp.asarray(part) for part in (batch.numbers, batch.graph, batch.positions))
    together = (graph[:, None] == graph[None, :]) & batch.node_mask[:, None] & batch.node_mask[None, :]
    square = jnp.sum((x[:, None] - x[None, :]) ** 2, axis=-1)
    weight = jnp.sin(numbers.astype(x.dtype)) + 2  # tells elements apart
    rows = [jnp.where(together, jnp.exp(-square / scale**2), 0) @ weight for scale in (1.0, 2.0, 4.0)]
    signature = jnp.stack(rows, axis=1)
    apart = jnp.max(jnp.abs(signature[:, None] - signature[None, :]), axis=-1) / jnp.max(signature, axis=-1)[:, None]
    return together & (numbers[:, None] == numbers[None, :]) & (apart < ALIKE)


def latent_equivariance(
    network: AtomTransformer,
    batch: AtomsBatch,
    neighbours: Neighbours,
    key: PRNGKeyArray,
    aim: LatentEquivariance | None = None,
) -> Float[Array, ""]:
    """The second objective by itself: features of randomly rotated structures against the mapped features of the others."""
    aim = LatentEquivariance() if aim is None else aim.check()
    turns = random_rotations(key, batch.structures)
    h, target = network.embed(batch, neighbours), network.embed(rotated(batch, turns), neighbours)
    return _objective(aim, network, batch, h, target, turns)


def _objective(
    aim: LatentEquivariance, network: AtomTransformer, batch: AtomsBatch, h: Array, target: Array, turns: Array
) -> Array:
    mapped = network.rotation_map(h, turns[batch.graph])
    target = jax.lax.stop_gradient(target) if aim.hold else target
    if aim.kind == "mse":
        return latent_distance(mapped, target, jnp.asarray(batch.node_mask))
    return latent_contrast(mapped, target, batch, aim.temperature)


def rotation_loss(settings: Training, aim: LatentEquivariance) -> LossTerm:
    """The training loss: labels of two copies of each structure, each rotated by itself, and the second objective between them.

    Augmentation is the same with a weight of 0: as many structures go through the network. For `train(..., loss=...)`; the
    potential's network is an `AtomTransformer`, else the loss raises `InputError`.
    """
    aim.check()

    def loss(potential: ScaledPotential, batch: AtomsBatch, neighbours: Neighbours, key: PRNGKeyArray) -> Float[Array, ""]:
        network = potential.network
        if not isinstance(network, AtomTransformer):
            raise InputError(f"rotation_loss: the network is of {type(network).__name__}; an AtomTransformer is wanted.")
        one = jnp.broadcast_to(jnp.eye(3, dtype=batch.positions.dtype), (batch.structures, 3, 3))
        first, second = (
            random_rotations(part, batch.structures) if aim.rotate else one for part in jax.random.split(key)
        )  # fmt: skip
        both, near = joined(rotated(batch, first), rotated(batch, second)), doubled(neighbours)
        found, h = _answers(network, both, near, settings.direct)
        total = label_error(settings, potential, both, potential.in_units(found, both))
        if aim.weight:
            here, there = jnp.split(h, 2)
            turns = jnp.einsum("gij,gkj->gik", second, first)
            total += aim.weight * _objective(aim, network, batch, here, there, turns)
        return total

    return loss


def _answers(network: AtomTransformer, batch: AtomsBatch, neighbours: Neighbours, direct: bool) -> tuple[Prediction, Array]:
    """Energies, forces and features from one pass."""
    if direct:
        h = network.embed(batch, neighbours)
        return network.read_both(h, batch), h

    def total(positions: Array) -> tuple[Array, tuple[Array, Array]]:
        moved = eqx.tree_at(lambda b: b.positions, batch, positions)
        h = network.embed(moved, neighbours)
        energy = network.read(h, moved)
        return jnp.sum(jnp.where(batch.graph_mask, energy, 0)), (energy, h)

    (_, (energy, h)), gradient = jax.value_and_grad(total, has_aux=True)(jnp.asarray(batch.positions))
    return Prediction(energy, -gradient), h


class LatentReport(NamedTuple):
    """How features follow rotations, in units of their size.

    - `mapped`: |f(Rx) - T(f(x), R)|; `still`: |f(Rx) - f(x)|, 0 where features are invariant; `ratio` of the two.
    - `group`: |T(T(h, R1), R2) - T(h, R2 R1)| over |T(h, R2 R1) - h|, the way that it goes at once.
    - `shuffled`: `mapped` with the rotations of other structures, over `mapped`, one for each shuffle.
    - `spread`: standard deviation of features over atoms, 0 where all have become the same.
    """

    mapped: Float[Array, ""]
    still: Float[Array, ""]
    ratio: Float[Array, ""]
    group: Float[Array, ""]
    shuffled: Float[Array, " shuffles"]
    spread: Float[Array, ""]


@eqx.filter_jit
def latent_report(
    network: AtomTransformer, batch: AtomsBatch, neighbours: Neighbours, key: PRNGKeyArray, shuffles: int = 20
) -> LatentReport:
    """One random rotation a structure, and `shuffles` ways of giving structures each other's."""
    keys = jax.random.split(key, 3)
    turns, more = (random_rotations(part, batch.structures) for part in keys[:2])
    mask, graph, T = jnp.asarray(batch.node_mask), batch.graph, network.rotation_map
    h, target = network.embed(batch, neighbours), network.embed(rotated(batch, turns), neighbours)
    real = jnp.sum(batch.graph_mask)
    size = _length(target, mask)

    def shuffled(key: PRNGKeyArray) -> Array:
        """A random cycle through the structures: none keeps its own."""
        order = jnp.argsort(jnp.where(batch.graph_mask, jax.random.uniform(key, real_shape), 2.0))
        following = order[(jnp.arange(batch.structures) + 1) % jnp.maximum(real, 1)]
        other = jnp.zeros_like(turns).at[order].set(turns[following])
        return _length(target - T(h, other[graph]), mask)

    real_shape = (batch.structures,)
    mapped, still = _length(target - T(h, turns[graph]), mask), _length(target - h, mask)
    product = jnp.einsum("gij,gjk->gik", more, turns)
    at_once = T(h, product[graph])
    group = _length(T(T(h, turns[graph]), more[graph]) - at_once, mask) / jnp.maximum(_length(at_once - h, mask), 1e-12)
    mean = jnp.sum(jnp.where(mask[:, None], h, 0), axis=0) / jnp.sum(mask)
    variance = jnp.sum(jnp.where(mask[:, None], (h - mean) ** 2, 0), axis=0) / jnp.sum(mask)
    others = jax.vmap(shuffled)(jax.random.split(keys[2], shuffles))
    return LatentReport(
        mapped / size, still / size, mapped / jnp.maximum(still, 1e-12), group, others / jnp.maximum(mapped, 1e-12),
        jnp.mean(jnp.sqrt(variance)),
    )  # fmt: skip


def _length(rows: Float[Array, "atoms width"], mask: Bool[Array, " atoms"]) -> Float[Array, ""]:
    """Root mean square length of the real rows."""
    return jnp.sqrt(jnp.sum(jnp.where(mask[:, None], rows**2, 0)) / jnp.sum(mask))
