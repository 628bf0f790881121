"""Training of potentials: batches of labelled structures, losses, and the loop with validation, average and checkpoints."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from broadsheet.atoms.checkpoints import load_potential, read_header, save_potential
from broadsheet.atoms.neighbours import Neighbours
from broadsheet.atoms.potential import Potential, Prediction, ScaledPotential, compiled_predict, predict
from broadsheet.atoms.structures import AtomsBatch, batch_atoms, bucket, check_labels, energies_of, forces_of, has_volume
from broadsheet.errors import DataError, InputError
from broadsheet.learn import Fit, fit, with_average

if TYPE_CHECKING:
    from ase import Atoms

Pair = tuple[AtomsBatch, Neighbours]
LossTerm = Callable[[ScaledPotential, AtomsBatch, Neighbours, PRNGKeyArray], Float[Array, ""]]


class LabelledSet:
    """Labelled structures with their neighbours, found once, from which padded batches of one shape are put together.

    **Arguments:** `potential`: whose neighbours they are; `stress`: whether stress is wanted as a label.

    **Raises:** `DataError` where a label is missing or not finite, or stress is wanted of what has no volume.
    """

    def __init__(self, structures: Sequence[Atoms], potential: Potential, stress: bool = False):
        if not structures:
            raise DataError("There are no structures to train on.")
        energies_of(structures)
        forces_of(structures)
        for k, each in enumerate(structures):
            check_labels(each, f"structure {k}")
            if stress and not has_volume(each):
                raise DataError(f"Stress is wanted, but structure {k} has no volume: it is not periodic in three directions.")
        self.structures = list(structures)
        whole = batch_atoms(self.structures, motion=False)
        if stress and whole.stress is None:
            lacking = next(k for k, each in enumerate(structures) if batch_atoms([each], count=1).stress is None)
            raise DataError(f"Stress is wanted, but structure {lacking} has none.")
        self.stress = stress
        self.sizes = np.array([len(each) for each in self.structures])
        self._starts = np.cumsum(self.sizes) - self.sizes
        count, atoms = len(self.sizes), int(self.sizes.sum())
        names = ("cell", "pbc", "charge", "spin", "energy", *(("stress",) if stress else ()))
        self._nodes = {name: getattr(whole, name)[:atoms] for name in ("positions", "numbers", "forces")}
        self._graphs = {name: getattr(whole, name)[:count] for name in names}
        self._padding = {name: getattr(whole, name)[-1:] for name in names}
        lists = potential.neighbours(whole)
        fields = ("index", "shift", "mask", *(("reverse",) if lists.reverse is not None else ()))
        self.width = lists.width
        self._lists = {name: getattr(lists, name)[:atoms] for name in fields}
        self._lists["index"] = self._lists["index"] - np.repeat(self._starts, self.sizes)[:, None].astype(np.int32)

    def __len__(self) -> int:
        return len(self.structures)

    def room(self, size: int) -> int:
        """Atoms that any `size` structures fit into."""
        return bucket(int(np.sort(self.sizes)[-size:].sum()))

    def batch(self, chosen: Sequence[int] | np.ndarray, atoms: int | None = None, count: int | None = None) -> Pair:
        """The chosen structures as one batch with neighbours."""
        chosen = np.asarray(chosen)
        count = len(chosen) if count is None else count
        atoms = self.room(count) if atoms is None else atoms
        sizes = self.sizes[chosen]
        first = np.repeat(np.cumsum(sizes) - sizes, sizes)
        total, padding = len(first), count + 1 - len(chosen)
        rows = np.arange(total) - first + np.repeat(self._starts[chosen], sizes)

        def padded(values: np.ndarray) -> np.ndarray:
            out = np.zeros((atoms, *values.shape[1:]), values.dtype)
            out[:total] = values[rows]
            return out

        graphs = {
            name: np.concatenate([values[chosen], np.repeat(self._padding[name], padding, axis=0)])
            for name, values in self._graphs.items()
        }
        graph = np.full(atoms, count, np.int32)
        graph[:total] = np.repeat(np.arange(len(chosen)), sizes)
        batch = AtomsBatch(
            **{name: padded(values) for name, values in self._nodes.items()}, **graphs, graph=graph,
            node_mask=np.arange(atoms) < total, graph_mask=np.arange(count + 1) < len(chosen),
        )  # fmt: skip
        lists = {name: padded(values) for name, values in self._lists.items()}
        lists["index"][:total] += first[:, None].astype(np.int32)
        lists["index"][total:] = np.arange(total, atoms)[:, None]
        return batch, Neighbours(**lists)

    def all(self, size: int = 32) -> Iterator[Pair]:
        """All structures in their order, `size` a batch, all batches of one shape."""
        atoms = self.room(min(size, len(self)))
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))), atoms, min(size, len(self)))

    def stream(self, size: int, seed: int, shards: int = 1) -> Iterator[Pair]:
        """Shuffled batches without end; each of `shards` parts of a batch lies along a leading axis."""
        if size > len(self) or size % shards:
            raise InputError(
                f"Batches of {size} from {len(self)} structures in {shards} parts: not more than there are, and even."
            )
        rng, each = np.random.default_rng(seed), size // shards
        atoms = self.room(each)
        while True:
            order = rng.permutation(len(self))
            for start in range(0, len(self) - size + 1, size):
                parts = [self.batch(order[start + k * each : start + (k + 1) * each], atoms) for k in range(shards)]
                yield jax.tree.map(lambda *leaves: np.stack(leaves), *parts)


@dataclass(frozen=True)
class Training:
    """How a potential is trained. Losses are of energies an atom and of force vectors, in units of the forces' scale.

    `direct`: forces from the model's own head; `average`: decay of the weights' running average, which is validated and kept
    (0: none); `warmup`: share of the steps; the rate falls on a cosine to a hundredth; `clip`: largest norm of the gradient;
    `squared`: squared errors in place of absolute ones and vector lengths.
    """

    steps: int = 1000
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    warmup: float = 0.05
    clip: float = 10.0
    energy_weight: float = 1.0
    force_weight: float = 10.0
    stress_weight: float = 0.0
    direct: bool = False
    squared: bool = False
    average: float = 0.99
    evaluate: int = 100

    def check(self) -> Training:
        """Itself; raises `InputError` for what cannot be trained with."""
        if min(self.steps, self.batch, self.evaluate) < 1 or not self.learning_rate > 0 or not 0 <= self.average < 1:
            raise InputError("Training: steps, batch, evaluate and learning_rate must be positive, average below 1.")
        if min(self.energy_weight, self.force_weight, self.stress_weight) < 0:
            raise InputError("Training: weights of the loss cannot be negative.")
        return self


def label_error(
    settings: Training, potential: ScaledPotential, batch: AtomsBatch, found: Prediction
) -> Float[Array, ""]:  # fmt: skip
    """The weighted loss of energies, forces and stress against the batch's labels, in units of the potential's scale."""
    scale = jnp.asarray(potential.scale, batch.positions.dtype)
    labels = Prediction(*(jnp.asarray(part) for part in (batch.energy, batch.forces)))
    counts, graphs = batch.counts(), batch.graph_mask.astype(batch.positions.dtype)

    def mean(values: Array) -> Array:
        return jnp.sum(jnp.where(batch.graph_mask, values, 0)) / jnp.sum(graphs)

    def size(vectors: Array) -> Array:
        square = jnp.sum(vectors**2, axis=-1)
        return square if settings.squared else jnp.sqrt(jnp.maximum(square, 1e-20))

    energy = (found.energy - labels.energy) / counts / scale
    total = settings.energy_weight * mean(energy**2 if settings.squared else jnp.abs(energy))
    if settings.force_weight:
        total += settings.force_weight * mean(batch.sum_atoms(size((found.forces - labels.forces) / scale)) / counts)
    if settings.stress_weight and found.stress is not None:
        error = (found.stress - jnp.asarray(batch.stress)).reshape(-1, 9) / scale
        total += settings.stress_weight * mean(size(error))
    return total


@functools.lru_cache(maxsize=8)
def label_loss(settings: Training) -> LossTerm:
    """`label_error` of what the potential predicts."""

    def term(potential: ScaledPotential, batch: AtomsBatch, neighbours: Neighbours, key: PRNGKeyArray) -> Float[Array, ""]:
        if settings.force_weight or settings.stress_weight:
            found = predict(potential, batch, neighbours, settings.stress_weight > 0, settings.direct)
        else:
            found = Prediction(potential.energy(batch, neighbours), jnp.zeros_like(jnp.asarray(batch.positions)))
        return label_error(settings, potential, batch, found)

    return term


@functools.lru_cache(maxsize=8)
def optimiser(settings: Training) -> optax.GradientTransformation:
    """AdamW with warm-up and cosine, clipped, and the weights' running average, for weights `in_rows`."""
    steps = settings.steps
    rate = optax.warmup_cosine_decay_schedule(
        0.2 * settings.learning_rate, settings.learning_rate, max(1, int(settings.warmup * steps)), steps + 1,
        0.01 * settings.learning_rate,
    )  # fmt: skip
    adamw = optax.adamw(rate, weight_decay=settings.weight_decay, mask=(True, False))
    return with_average(optax.chain(optax.clip_by_global_norm(settings.clip), adamw), settings.average)


Rows = tuple[Array, Array]


class FromRows(NamedTuple):
    """Rows back to weights. Those of equal structures are equal, so what is compiled for one is compiled for all."""

    first: Callable[[Array], PyTree]
    second: Callable[[Array], PyTree]

    def __call__(self, rows: Rows) -> PyTree:
        return eqx.combine(self.first(rows[0]), self.second(rows[1]))


def in_rows(weights: PyTree) -> tuple[Rows, FromRows]:
    """Weights as one row of those that decay, matrices, and one of the others (biases, norms, embeddings of elements), and the
    way back. Many small updates take small networks longer than two, and longer to compile.
    """

    def decays(path: tuple, leaf: Array) -> bool:  # layers stacked for a scan have an axis more, so axes alone don't tell
        return leaf.ndim >= 2 and not re.search("bias|norm|atom_", jax.tree_util.keystr(path))

    parts = eqx.partition(weights, jax.tree_util.tree_map_with_path(decays, weights))
    (first, as_first), (second, as_second) = (ravel_pytree(part) for part in parts)
    return (first, second), FromRows(as_first, as_second)


class Errors(NamedTuple):
    """Of a labelled set: mean absolute energy error (meV an atom), of force components and root mean square of force vectors,
    averaged over structures (meV/Å), mean cosine of force vectors, mean absolute stress error (meV/Å^3, NaN without).
    """

    energy_mae: float
    force_mae: float
    force_rmse: float
    force_cosine: float
    stress_mae: float


def predictions(
    potential: Potential, data: LabelledSet, *, direct: bool = False, size: int = 32
) -> Iterator[tuple[AtomsBatch, Prediction]]:
    """Batches of a labelled set and what the potential says of them, as NumPy arrays."""
    for batch, neighbours in data.all(size):
        yield batch, jax.tree.map(np.asarray, compiled_predict(potential, batch, neighbours, data.stress, direct))


def evaluate(potential: Potential, data: LabelledSet, *, direct: bool = False, size: int = 32) -> Errors:
    """Errors of a potential on labelled structures."""
    energy, component, rms, cosine, stress = ([] for _ in range(5))
    for batch, found in predictions(potential, data, direct=direct, size=size):
        real, graphs = np.asarray(batch.node_mask), np.asarray(batch.graph_mask)
        energies, forces = np.asarray(batch.energy), np.asarray(batch.forces)
        counts = np.bincount(batch.graph[real], minlength=batch.structures)[graphs]
        energy.append(np.abs(found.energy[graphs] - energies[graphs]) / counts)
        error = found.forces[real] - forces[real]
        component.append(np.abs(error).ravel())
        square = np.bincount(batch.graph[real], (error**2).sum(axis=1), batch.structures)[graphs]
        rms.append(np.sqrt(square / counts))
        lengths = np.linalg.norm(found.forces[real], axis=1) * np.linalg.norm(forces[real], axis=1)
        cosine.append((found.forces[real] * forces[real]).sum(axis=1) / np.maximum(lengths, 1e-12))
        if data.stress and found.stress is not None:
            stress.append(np.abs(found.stress[graphs] - np.asarray(batch.stress)[graphs]).ravel())
    values = [np.concatenate(part).mean() if part else np.nan for part in (energy, component, rms, cosine, stress)]
    energy_mae, force_mae, force_rmse, alignment, stress_mae = (float(value) for value in values)
    return Errors(1e3 * energy_mae, 1e3 * force_mae, 1e3 * force_rmse, alignment, 1e3 * stress_mae)


class Trained(NamedTuple):
    """The best potential by validation, its errors there, and the history: step, training loss, errors at each evaluation."""

    potential: ScaledPotential
    errors: Errors
    history: dict[str, np.ndarray]


class _BatchLoss(eqx.Module):
    """A loss as a function of the weights' rows and of a batch in parts, one for each device."""

    term: LossTerm
    rest: PyTree
    as_weights: FromRows
    shards: int = eqx.field(static=True)

    def __call__(self, rows: Rows, parts: Pair, key: PRNGKeyArray) -> Float[Array, ""]:
        model = eqx.combine(self.as_weights(rows), self.rest)
        if self.shards == 1:
            batch, neighbours = jax.tree.map(lambda leaf: leaf[0], parts)
            return self.term(model, batch, neighbours, key)
        keys = jax.random.split(key, self.shards)
        return jnp.mean(jax.vmap(lambda batch, near, key: self.term(model, batch, near, key))(*parts, keys))


def train(
    potential: ScaledPotential,
    train_set: LabelledSet,
    validation: LabelledSet,
    settings: Training,
    key: PRNGKeyArray,
    *,
    loss: LossTerm | None = None,
    checkpoint: str | Path | None = None,
    keep: str | Path | None = None,
    report: Callable[[int, float, Errors], None] | None = None,
    observe: Callable[[int, ScaledPotential], None] | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Trained:
    """Trains on one set and keeps what is best on another.

    **Arguments:** `loss`: in place of `label_loss`, called with (potential, batch, neighbours, key); the arrays of an Equinox
    module are arguments of the compiled program, not constants in it; `checkpoint`: a file to go on from after a stop; `keep`:
    where the best potential is written each time it improves, and found again after a stop; `report`: called at each
    evaluation; `observe`: called there with the step and the potential as it is validated; `devices`: over which each batch is
    spread (all by default, as far as the batch divides).

    **Raises:** `InputError` where the loss is no longer finite, or there are fewer structures than one batch; `DataError` where
    no validation was finite.
    """
    settings.check()
    size = min(settings.batch, len(train_set))
    devices = list(jax.devices() if devices is None else devices)
    shards = max(n for n in range(1, len(devices) + 1) if size % n == 0)
    sharding = jax.sharding.NamedSharding(
        jax.sharding.Mesh(np.asarray(devices[:shards]), ("structures",)), jax.sharding.PartitionSpec("structures")
    )
    trained = jax.tree.map(eqx.is_inexact_array, potential)
    weights, rest = eqx.partition(potential, eqx.tree_at(lambda p: (p.references, p.scale), trained, (False, False)))
    rows, as_weights = in_rows(weights)
    whole = _BatchLoss(label_loss(settings) if loss is None else loss, rest, as_weights, shards)
    seed = int(np.asarray(jax.random.key_data(key)).ravel()[-1])
    stream = train_set.stream(size, seed, shards)
    batches = stream if shards == 1 else (jax.device_put(parts, sharding) for parts in stream)
    seen: list[tuple[float, ...]] = []
    best: tuple[float, ScaledPotential, Errors | None] = (np.inf, potential, None)
    if checkpoint is not None and keep is not None and Path(checkpoint).exists() and Path(keep).exists():
        kept, note = load_potential(keep), read_header(keep)["note"]
        best = (float(note["score"]), kept, Errors(*note["errors"]))

    def watch(done: int, found: Fit) -> None:
        nonlocal best
        model = eqx.combine(as_weights(found.opt_state.average if settings.average else found.model), rest)
        model = jax.device_put(model, devices[0]) if shards > 1 else model
        errors = evaluate(model, validation, direct=settings.direct, size=size)
        score = settings.energy_weight * errors.energy_mae + settings.force_weight * errors.force_mae
        if score < best[0]:
            best = (score, model, errors)
            if keep is not None:
                save_potential(model, keep, {"score": score, "errors": list(errors), "step": done})
        seen.append((done, float(found.losses[-settings.evaluate :].mean()), *errors))
        if report is not None:
            report(done, seen[-1][1], errors)
        if observe is not None:
            observe(done, model)

    if shards > 1:
        rows = jax.device_put(rows, jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec()))
    last = fit(
        rows, whole, batches, optimiser=optimiser(settings), steps=settings.steps, key=key,
        chunk=min(settings.evaluate, settings.steps), watch=watch, checkpoint=checkpoint,
    )  # fmt: skip
    if best[2] is None:  # the checkpoint had all the steps, and nothing was kept beside it
        watch(settings.steps, last._replace(losses=np.full(1, np.nan)))
    if best[2] is None:
        raise DataError("The errors on the validation structures are not finite at any evaluation: nothing was kept.")
    names = ("step", "loss", *Errors._fields)
    return Trained(best[1], best[2], dict(zip(names, np.reshape(seen, (-1, len(names))).T, strict=True)))
