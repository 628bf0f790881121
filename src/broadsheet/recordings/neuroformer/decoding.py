"""Behaviour decoded from the trunk: a linear head on the mean of a window's tokens, trained with the trunk on few labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.learn import fit
from broadsheet.recordings.neuroformer.model import NeuroformerNet
from broadsheet.recordings.neuroformer.training import Data, evaluate, optimiser


class Decoder(eqx.Module):
    """A trunk and its head; labels are standardised by `mean` and `scale`."""

    trunk: NeuroformerNet
    weight: Float[Array, "labels d"]
    bias: Float[Array, " labels"]
    mean: Float[Array, " labels"]
    scale: Float[Array, " labels"]


class Labelled(eqx.Module):
    """Batches of rows with the labels of their windows."""

    data: Data
    labels: Float[Array, "windows labels"]
    size: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Any, Array]:
        batch = self.data.batch(jax.random.randint(key, (self.size,), 0, len(self.data.rows.ids)))
        return batch, self.labels[jnp.maximum(batch[0].window, 0)]


class SquaredError(eqx.Module):
    """Of standardised labels, mean over windows."""

    def __call__(self, model: Decoder, batch: tuple, key: Any) -> Array:
        (rows, frames, behaviour), labels = batch
        out = model.trunk(rows, frames, behaviour)
        error = model.trunk.pooled(out.x, rows) @ model.weight.T + model.bias - (labels - model.mean) / model.scale
        there = (rows.window >= 0)[..., None]
        return jnp.sum(error**2, where=there) / jnp.maximum(there.sum() * labels.shape[-1], 1)


def fine_tune(
    trunk: NeuroformerNet, data: Data, labels: Float[np.ndarray, "windows labels"], *, steps: int, key: PRNGKeyArray,
    batch: int = 32, rate: float = 1e-3, decay: float = 0.1, frozen: bool = False,
    report: Callable[[int, float], None] | None = None,
) -> Decoder:  # fmt: skip
    """A trunk, pretrained or not, and a new head, trained on labelled windows (`labels`: by their numbers in `data`), some
    `batch` of them a step.

    `frozen`: the trunk stays; the head is then ridge regression on its features, with the penalty chosen by cross-validation.
    """
    windows = np.asarray(data.rows.window)
    used = labels[np.sort(windows[windows >= 0])]
    mean, scale = used.mean(axis=0), np.maximum(used.std(axis=0), 1e-9)
    start = Decoder(trunk, jnp.zeros((labels.shape[1], trunk.config.width)), jnp.zeros(labels.shape[1]),
                    *(jnp.asarray(part, jnp.float32) for part in (mean, scale)))  # fmt: skip
    if frozen:
        return _ridge_head(start, data, (used - mean) / scale)
    draws = Labelled(jax.tree.map(jnp.asarray, data), jnp.asarray(labels, jnp.float32), data.rows_of(batch))
    parameters = jax.tree.map(eqx.is_inexact_array, start)
    parameters = eqx.tree_at(lambda d: (d.mean, d.scale), parameters, (False, False))
    return fit(start, SquaredError(), draws, optimiser=optimiser(rate, steps, decay), steps=steps, key=key,
               parameters=parameters, report=report).model  # fmt: skip


def _ridge_head(start: Decoder, data: Data, targets: np.ndarray) -> Decoder:
    from sklearn.linear_model import RidgeCV

    features = evaluate(start.trunk, data)[2]
    head = RidgeCV(np.logspace(-2, 5, 15)).fit(features, targets)
    weight, bias = np.atleast_2d(head.coef_), np.atleast_1d(head.intercept_)
    made = tuple(jnp.asarray(part, jnp.float32) for part in (weight, bias))
    return eqx.tree_at(lambda d: (d.weight, d.bias), start, made)


def decode(decoder: Decoder, data: Data) -> Float[np.ndarray, "windows labels"]:
    """Labels of windows."""
    features = evaluate(decoder.trunk, data)[2]
    scaled = features @ np.asarray(decoder.weight).T + np.asarray(decoder.bias)
    return scaled * np.asarray(decoder.scale) + np.asarray(decoder.mean)
