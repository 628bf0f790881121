"""Training that teaches features to turn: a map is asked for the features of the rotated structure, arXiv 2510.00027.

The paper's text was not at hand; the losses' forms and weights are ours, after its abstract.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from broadsheet.atoms.neighbours import Neighbours
from broadsheet.atoms.potential import Prediction, ScaledPotential
from broadsheet.atoms.potentials.transip import AtomTransformer, LinearRotationMap, RotationMap
from broadsheet.atoms.rotations import doubled, joined, random_rotations, rotated, rotations_from
from broadsheet.atoms.structures import AtomsBatch
from broadsheet.atoms.training import LabelledSet, Training, label_error
from broadsheet.errors import InputError
from broadsheet.learn import fit
from broadsheet.numerics import generator

COLLAPSED = 0.25
"""Share of the spread before training below which features are said to collapse."""
ALIKE = 0.005
"""Relative difference of two atoms' distances to all others below which they count as equivalent by symmetry."""


@dataclass(frozen=True)
class LatentEquivariance:
    """The second objective. `weight`: 0 leaves augmentation by rotations alone; `kind`: "infonce", -log of the right atom's
    share among all of the batch by cosines over a `temperature`, or "mse", mean square distance of what the map says from what
    the network says; `hold`: gradients go through the map's side only; `rotate`: without it, structures stay as they lie;
    `mapped`: without it, features are asked to stay as they are, whatever the rotation.
    """

    weight: float = 3.0
    kind: Literal["mse", "infonce"] = "infonce"
    temperature: float = 0.1
    hold: bool = False
    rotate: bool = True
    mapped: bool = True

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
    logits = jnp.where(mask[None, :] & ~equivalent_atoms(batch), unit @ other.T / temperature, -1e30)
    right = jnp.sum(unit * other, axis=1) / temperature
    share = right - jnp.logaddexp(right, jax.nn.logsumexp(logits, axis=1))
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
    aim = LatentEquivariance() if aim is None else aim
    turns = random_rotations(key, batch.structures)
    h, target = network.embed(batch, neighbours), network.embed(rotated(batch, turns), neighbours)
    return RotationLoss(Training(), aim).objective(network, batch, h, target, turns)


class RotationLoss(eqx.Module):
    """What `rotation_loss` returns. What tells one objective from another are leaves: they share one compiled program."""

    weight: Float[Array, ""]
    rotate: Bool[Array, ""]
    mapped: Bool[Array, ""]
    contrast: Bool[Array, ""]
    settings: Training = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    hold: bool = eqx.field(static=True)

    def __init__(self, settings: Training, aim: LatentEquivariance):
        self.weight = jnp.float32(aim.check().weight)
        self.rotate, self.mapped, self.contrast = map(jnp.asarray, (aim.rotate, aim.mapped, aim.kind == "infonce"))
        self.settings, self.temperature, self.hold = settings, aim.temperature, aim.hold

    def __call__(
        self, potential: ScaledPotential, batch: AtomsBatch, neighbours: Neighbours, key: PRNGKeyArray
    ) -> Float[Array, ""]:
        network = potential.network
        if not isinstance(network, AtomTransformer):
            raise InputError(f"rotation_loss: the network is of {type(network).__name__}; an AtomTransformer is wanted.")
        turns = random_rotations(key, 2 * batch.structures)
        turns = jnp.where(self.rotate, turns, jnp.eye(3)).astype(batch.positions.dtype)
        first, second = jnp.split(turns, 2)
        both, near = joined(rotated(batch, first), rotated(batch, second)), doubled(neighbours)
        found, h = _answers(network, both, near, self.settings.direct)

        def weighted() -> Array:
            between = jnp.einsum("gij,gkj->gik", second, first)
            here, there = jnp.split(h, 2)
            return self.weight * self.objective(network, batch, here, there, between)

        labels = label_error(self.settings, potential, both, potential.in_units(found, both))
        return labels + jax.lax.cond(self.weight > 0, weighted, lambda: jnp.zeros((), h.dtype))

    def objective(
        self, network: AtomTransformer, batch: AtomsBatch, h: Array, target: Array, turns: Float[Array, "structures 3 3"]
    ) -> Float[Array, ""]:
        """The second objective, without its weight, from features of structures and of the same structures turned."""
        target = jax.lax.stop_gradient(target) if self.hold else target
        said = jnp.where(self.mapped, network.rotation_map(h, turns[batch.graph]), h)
        contrast = latent_contrast(said, target, batch, self.temperature)
        return jnp.where(self.contrast, contrast, latent_distance(said, target, jnp.asarray(batch.node_mask)))


def rotation_loss(settings: Training, aim: LatentEquivariance) -> RotationLoss:
    """The training loss: labels of two copies of each structure, each rotated by itself, and the second objective between them.

    Augmentation is the same with a weight of 0: as many structures go through the network. For `train(..., loss=...)`; the
    potential's network is an `AtomTransformer`, else the loss raises `InputError`.
    """
    return RotationLoss(settings, aim)


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


class _MapLoss(eqx.Module):
    """The second objective as a loss of the map alone, over the features of a network that stays as it is."""

    network: AtomTransformer
    loss: RotationLoss

    def __call__(
        self, rotation_map: RotationMap | LinearRotationMap, parts: tuple[AtomsBatch, Neighbours], key: PRNGKeyArray
    ) -> Float[Array, ""]:
        batch, near = jax.tree.map(lambda leaf: leaf[0], parts)
        network = eqx.tree_at(lambda net: net.rotation_map, self.network, rotation_map)
        first, second = jnp.split(random_rotations(key, 2 * batch.structures), 2)
        h, target = (network.embed(rotated(batch, turns), near) for turns in (first, second))
        return self.loss.objective(network, batch, h, target, jnp.einsum("gij,gkj->gik", second, first))


def fit_map(
    network: AtomTransformer, data: LabelledSet, aim: LatentEquivariance, settings: Training, key: PRNGKeyArray
) -> AtomTransformer:
    """The network with its map fitted to its features as they are, by the second objective alone.

    What a map can make of features that were never taught to turn; `settings` say how many steps, batches and at which rate,
    those of the training that it is compared with.
    """
    seed = int(np.asarray(jax.random.key_data(key)).ravel()[-1])
    size = min(settings.batch, len(data))
    fitted = fit(
        network.rotation_map, _MapLoss(network, RotationLoss(settings, replace(aim, weight=1.0, mapped=True))),
        data.stream(size, seed), optimiser=map_optimiser(settings.learning_rate, settings.steps), steps=settings.steps, key=key,
        chunk=settings.steps,
    ).model  # fmt: skip
    return eqx.tree_at(lambda net: net.rotation_map, network, fitted)


@lru_cache(maxsize=8)
def map_optimiser(rate: float, steps: int) -> optax.GradientTransformation:
    """Adam on a cosine to a hundredth of the rate."""
    return optax.adam(optax.cosine_decay_schedule(rate, steps, 0.01))


class LatentReport(NamedTuple):
    """How features follow rotations, in units of their size.

    - `mapped`: |f(Rx) - T(f(x), R)|; `still`: |f(Rx) - f(x)|, 0 where features are invariant; `ratio` of the two.
    - `group`: |T(T(h, R1), R2) - T(h, R2 R1)| over |T(h, R2 R1) - h|, the way that it goes at once.
    - `shuffled`: `mapped` with the rotations of other structures, over `mapped`, one for each shuffle.
    - `spread`: standard deviation of features over atoms, 0 where all have become the same.
    """

    mapped: float
    still: float
    ratio: float
    group: float
    shuffled: Float[np.ndarray, " shuffles"]
    spread: float


def latent_report(
    network: AtomTransformer,
    batch: AtomsBatch,
    neighbours: Neighbours,
    key: PRNGKeyArray,
    shuffles: int = 20,
    *,
    before: LatentReport | None = None,
) -> LatentReport:
    """One random rotation a structure, and `shuffles` ways of giving structures each other's.

    Warns where features have lost three quarters of the spread that they had `before` training: a map of features that are
    all alike errs little, whatever it says.
    """
    rng, mask, graph = generator(key), np.asarray(batch.node_mask), np.asarray(batch.graph)
    turns, more = (rotations_from(rng, batch.structures) for _ in range(2))
    h, target = turned_features(network, batch, neighbours), turned_features(network, batch, neighbours, turns)

    def length(rows: np.ndarray) -> float:
        """Root mean square length of the real rows."""
        return float(np.sqrt(np.mean(np.sum(rows[mask] ** 2, axis=1))))

    def off(given: np.ndarray) -> float:
        return length(target - mapped_features(network, h, given[graph]))

    def cycled() -> np.ndarray:
        """The rotations along a random cycle through the structures: none keeps its own."""
        order, found = rng.permutation(int(np.sum(batch.graph_mask))), turns.copy()
        found[order] = turns[np.roll(order, -1)]
        return found

    own, still = off(turns), length(target - h)
    at_once = mapped_features(network, h, (more @ turns)[graph])
    twice = mapped_features(network, mapped_features(network, h, turns[graph]), more[graph])
    spread = float(h[mask].std(axis=0).mean())
    if before is not None and spread < COLLAPSED * before.spread:
        warnings.warn(
            f"Features spread by {spread:.3g} over atoms, {before.spread:.3g} before training: they collapse.", stacklevel=2
        )
    return LatentReport(
        own / length(target), still / length(target), own / max(still, 1e-12),
        length(twice - at_once) / max(length(at_once - h), 1e-12),
        np.array([off(cycled()) for _ in range(shuffles)]) / max(own, 1e-12), spread,
    )  # fmt: skip


def turned_features(
    network: AtomTransformer, batch: AtomsBatch, neighbours: Neighbours, turns: np.ndarray | None = None
) -> Float[np.ndarray, "atoms width"]:
    """Features of the structures, turned by rotation matrices, one a structure, where these are given."""
    turns = np.broadcast_to(np.eye(3), (batch.structures, 3, 3)) if turns is None else turns
    return np.asarray(_turned_features(network, batch, neighbours, jnp.asarray(turns, batch.positions.dtype)))


@eqx.filter_jit
def _turned_features(network: AtomTransformer, batch: AtomsBatch, neighbours: Neighbours, turns: Array) -> Array:
    return network.embed(rotated(batch, turns), neighbours)


def mapped_features(network: AtomTransformer, features: np.ndarray, turns: np.ndarray) -> Float[np.ndarray, "atoms width"]:
    """What the network's map says of features after rotations, one an atom."""
    return np.asarray(_mapped_features(network.rotation_map, jnp.asarray(features), jnp.asarray(turns, features.dtype)))


@eqx.filter_jit
def _mapped_features(rotation_map: RotationMap | LinearRotationMap, features: Array, turns: Array) -> Array:
    return rotation_map(features, turns)
