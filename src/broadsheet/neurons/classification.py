"""Training a sequence model to give its answer at the last step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.dynamics import rollout, trainable
from broadsheet.learn import Fit, fit
from broadsheet.neurons.tasks import Batches, Task

if TYPE_CHECKING:
    from broadsheet.learn.pruning import Sparsifier


def last_logits(model: Any, x: Float[Array, "batch time inputs"]) -> Float[Array, "batch classes"]:
    """The outputs at the last step, of a model that is a function of the whole input or a `System`."""
    return jax.vmap(lambda x: (model(x) if callable(model) else rollout(model, x)[1])[-1])(x)


def fit_classifier(
    model: Any,
    task: Task,
    *,
    steps: int,
    batch: int,
    rate: float,
    key: PRNGKeyArray,
    sparsifier: Sparsifier | None = None,
    report: Callable[[int, float], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Fit:
    """Minimises the cross-entropy of the answer at the last step, with Adam and a cosine to 0.

    **Arguments:** `task`: (key, count) to inputs (count, time, inputs) and labels (count,); `batch`, `steps`, `rate`:
    examples a step, steps, and the learning rate at the start; `sparsifier`, `report`, `checkpoint`: as in
    `broadsheet.learn.fit`.
    """

    def loss(model: Any, data: tuple[Array, Array], key: PRNGKeyArray) -> Array:
        x, y = data
        return optax.softmax_cross_entropy_with_integer_labels(last_logits(model, x), y).mean()

    return fit(
        model, loss, Batches(task, batch), steps=steps, key=key, parameters=trainable(model), chunk=50,
        optimiser=optax.adam(optax.cosine_decay_schedule(rate, steps)), sparsifier=sparsifier, report=report,
        checkpoint=checkpoint,
    )  # fmt: skip


def accuracy(model: Any, task: Task, count: int, key: PRNGKeyArray) -> float:
    """Fraction of `count` fresh examples that are answered right."""
    x, y = task(key, count)
    return float(jnp.mean(jnp.argmax(eqx.filter_jit(last_logits)(model, x), axis=1) == y))
