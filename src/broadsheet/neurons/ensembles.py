"""Several cells of one kind trained at once, each as if it were alone: one compiled program, and the same data for all.

Cells of different sizes go together where a smaller one is a larger one with zeros: its hidden and memory units without a
weight stay so, because nothing comes from them and nothing reaches them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from broadsheet.dynamics import rollout, trainable
from broadsheet.learn import Fit, fit
from broadsheet.neurons.surrogate import BURN_IN
from broadsheet.neurons.tasks import Task

Windows = Callable[[PRNGKeyArray], tuple[Array, Array]] | Iterable[tuple[np.ndarray, np.ndarray]]
"""A key, traced, to inputs and targets of one batch; or batches one by one."""


def stacked(models: Sequence[Any]) -> Any:
    """One model whose arrays have the members in front; smaller arrays are filled up with zeros at their ends.

    The members are of one kind and differ in sizes and numbers only.
    """
    leaves = [jax.tree.leaves(eqx.filter(model, eqx.is_array)) for model in models]
    largest = max(range(len(models)), key=lambda k: sum(leaf.size for leaf in leaves[k]))
    arrays, rest = eqx.partition(models[largest], eqx.is_array)
    padded = []
    for same in zip(*leaves, strict=True):
        whole = np.zeros((len(same), *map(max, zip(*(leaf.shape for leaf in same), strict=True))), same[0].dtype)
        for k, leaf in enumerate(same):
            corner: Any = (k, *map(slice, leaf.shape))
            whole[corner] = leaf
        padded.append(jnp.asarray(whole))
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), padded), rest)


def outputs(models: Any, x: Float[Array, "batch time inputs"]) -> Float[Array, "members batch time outputs"]:
    """What each member makes of the same inputs; a member is a function of the whole input or a `System`."""

    def one(model: Any, x: Array) -> Array:
        return jax.vmap(lambda x: model(x) if callable(model) else rollout(model, x)[1])(x)

    return eqx.filter_vmap(one, in_axes=(eqx.if_array(0), None))(models, x)


class Losses(NamedTuple):
    """Of each member, the cross-entropy of spikes (nats a bin) and the mean squared error of scaled voltage."""

    spikes: Float[Array, " members"]
    voltage: Float[Array, " members"]


def recording_losses(models: Any, x: Float[Array, "batch time inputs"], y: Float[Array, "batch time 2"]) -> Losses:
    """How far members are from output spikes and scaled voltage."""
    out = outputs(models, x)
    spikes = optax.sigmoid_binary_cross_entropy(out[..., 0], y[..., 0]).mean(axis=(1, 2))
    return Losses(spikes, jnp.mean((out[..., 1] - y[..., 1]) ** 2, axis=(1, 2)))


class RecordingLoss(eqx.Module):
    """Half cross-entropy of spikes, half squared error of scaled voltage, added over members."""

    def __call__(self, models: Any, data: tuple[Array, Array], key: PRNGKeyArray) -> Array:
        found = recording_losses(models, *data)
        return jnp.sum(found.spikes + found.voltage) / 2


def clip_each(limit: float) -> optax.GradientTransformation:
    """Scales the gradient of each member down to a norm of at most `limit`."""

    def update(gradient: PyTree, state: PyTree, weights: PyTree | None = None) -> tuple[PyTree, PyTree]:
        squares = [jnp.sum(leaf.reshape(len(leaf), -1) ** 2, axis=1) for leaf in jax.tree.leaves(gradient)]
        norm = jnp.sqrt(functools.reduce(jnp.add, squares))
        scale = jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-12))
        return jax.tree.map(lambda leaf: leaf * scale.reshape(-1, *[1] * (leaf.ndim - 1)), gradient), state

    return optax.GradientTransformation(lambda weights: optax.EmptyState(), update)


def fit_recordings_together(
    models: Any,
    windows: Windows,
    *,
    steps: int,
    rate: float,
    key: PRNGKeyArray,
    report: Callable[[int, float], None] | None = None,
) -> Any:
    """Trains stacked models (time, channels) -> (time, 2), spikes and scaled voltage, with Adam and a cosine to 0.

    Each goes as in `broadsheet.neurons.surrogate.fit_recordings`; all see the same windows.
    """
    optimiser = optax.chain(clip_each(1.0), optax.adam(optax.cosine_decay_schedule(rate, steps)))
    return fit(models, RecordingLoss(), windows, optimiser=optimiser, steps=steps, key=key, parameters=trainable(models),
               chunk=200, report=report).model  # fmt: skip


@eqx.filter_jit
def _apply(models: Any, windows: Array) -> Array:
    return outputs(models, windows)


def predict_together(
    models: Any, inputs: Float[np.ndarray, "recordings time channels"], window: int = 1000
) -> Float[np.ndarray, "members recordings time outputs"]:
    """Each member's outputs for whole recordings, in windows that overlap by the burn-in; each begins from the zero state."""
    recordings, time, channels = inputs.shape
    fresh = max(1, window - BURN_IN)
    starts = np.arange(0, time, fresh)
    padded = np.zeros((recordings, BURN_IN + fresh * len(starts), channels), np.float32)
    padded[:, BURN_IN : BURN_IN + time] = inputs
    cut = np.stack([padded[:, t : t + BURN_IN + fresh] for t in starts], axis=1).reshape(-1, BURN_IN + fresh, channels)
    out = np.asarray(_apply(models, jnp.asarray(cut))[:, :, BURN_IN:])
    return out.reshape(len(out), recordings, -1, out.shape[-1])[:, :, :time]


class AnswerLoss(eqx.Module):
    """Cross-entropy of the answer at the last step, added over members, each of which has examples of its own."""

    def __call__(self, models: Any, data: tuple[Array, Array], key: PRNGKeyArray) -> Array:
        x, y = data
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(answers(models, x), y).mean(axis=1))


def answers(models: Any, x: Float[Array, "members batch time inputs"]) -> Float[Array, "members batch classes"]:
    """Outputs at the last step."""

    def one(model: Any, x: Array) -> Array:
        return jax.vmap(lambda x: (model(x) if callable(model) else rollout(model, x)[1])[-1])(x)

    return eqx.filter_vmap(one)(models, x)


class TaskBatches(eqx.Module):
    """The next examples of a task for each member; members with the same task have the same examples."""

    tasks: tuple[Task, ...]
    size: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        x, y = zip(*(task(key, self.size) for task in self.tasks), strict=True)
        return jnp.stack(x), jnp.stack(y)


def fit_tasks_together(
    models: Any,
    tasks: Sequence[Task],
    *,
    steps: int,
    batch: int,
    rate: float,
    key: PRNGKeyArray,
    report: Callable[[int, float], None] | None = None,
    watch: Callable[[int, Fit], None] | None = None,
) -> Fit:
    """Trains stacked models to answer at the last step, each its task, as `broadsheet.neurons.classification.fit_classifier`
    does one; `losses` are means over members."""
    found = fit(
        models, AnswerLoss(), TaskBatches(tuple(tasks), batch), steps=steps, key=key, parameters=trainable(models), chunk=50,
        optimiser=optax.adam(optax.cosine_decay_schedule(rate, steps)), report=report, watch=watch,
    )  # fmt: skip
    return found._replace(losses=found.losses / len(tasks))


@eqx.filter_jit
def _right(models: Any, x: Array, y: Array) -> Array:
    return jnp.mean(jnp.argmax(answers(models, x), axis=-1) == y, axis=1)


def accuracies(models: Any, tasks: Sequence[Task], count: int, key: PRNGKeyArray) -> Float[np.ndarray, " members"]:
    """Fraction of `count` fresh examples that each member answers right."""
    return np.asarray(_right(models, *TaskBatches(tuple(tasks), count)(key)))
