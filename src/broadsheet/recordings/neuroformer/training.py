"""Training a Neuroformer on packed windows, and what it makes of others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from broadsheet.learn import Fit, fit
from broadsheet.recordings.neuroformer.contrastive import contrastive_loss
from broadsheet.recordings.neuroformer.model import ALL, NeuroformerNet, Sees, token_losses
from broadsheet.recordings.neuroformer.windows import Rows


class Data(eqx.Module):
    """Rows, and what their windows come with.

    - `frames`: (frames, height, width) of the session; `shown`: (windows, depth), the frames before each window ends.
    - `behaviour`: (windows, numbers).
    """

    rows: Rows
    frames: Array | np.ndarray | None = None
    shown: Array | np.ndarray | None = None
    behaviour: Array | np.ndarray | None = None

    def rows_of(self, windows: int) -> int:
        """How many rows hold so many windows, on average."""
        count, there = len(self.rows.ids), int((np.asarray(self.rows.window) >= 0).sum())
        return min(count, max(1, round(windows * count / there)))

    def batch(self, which: Any) -> tuple[Rows, Any, Any]:
        """Some rows with their frames and behaviour; on the host where the arrays are NumPy's."""
        rows = Rows(*(part[which] for part in self.rows))
        window = rows.window * (rows.window > 0)
        frames = None if self.frames is None or self.shown is None else self.frames[self.shown[window]]
        return rows, frames, None if self.behaviour is None else self.behaviour[window]

    def batches(self, size: int) -> Iterator[tuple[Rows, Any, Any]]:
        """All rows in turn, `size` at a time; rows without a window fill the last batch."""
        count = len(self.rows.ids)
        for start in range(0, count, size):
            here = np.minimum(np.arange(start, start + size), count - 1)
            rows, frames, behaviour = self.batch(here)
            blank = np.arange(start, start + size) >= count
            if blank.any():
                empty = {
                    name: np.where(blank[:, None], -1, getattr(rows, name)) for name in ("segment", "past_segment", "window")
                }
                rows = rows._replace(**empty)
            yield rows, frames, behaviour


class Draws(eqx.Module):
    """Batches of `size` rows at random."""

    data: Data
    size: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> tuple[Rows, Any, Any]:
        return self.data.batch(jax.random.randint(key, (self.size,), 0, len(self.data.rows.ids)))


class Loss(eqx.Module):
    """`(1 - c) (3/5 CE of neurons + 2/5 CE of offsets) + c` times the contrastive term, means over tokens; `c` is 1/4 in the
    authors' runs. `sees`: what is visible."""

    contrast: Array
    sees: Sees
    weights: tuple[float, float] = eqx.field(static=True, default=(0.6, 0.4))
    temperature: float = eqx.field(static=True, default=0.5)

    def __call__(self, model: NeuroformerNet, batch: tuple, key: PRNGKeyArray) -> Float[Array, ""]:
        rows, frames, behaviour = batch
        out = model(rows, frames, behaviour, sees=self.sees, key=key if model.config.dropout else None)
        ids, offsets, real = token_losses(model, out, rows)
        count = real.sum()
        value = (self.weights[0] * ids.sum() + self.weights[1] * offsets.sum()) / count
        if model.clip is None or out.video is None:
            return value
        u, v = (model.clip(each.reshape(-1, each.shape[-1])) for each in (out.video, model.pooled(out.x, rows)))
        term = contrastive_loss(u, v, (rows.window >= 0).reshape(-1), self.temperature)
        return (1 - self.contrast) * value + self.contrast * term


@functools.lru_cache(maxsize=16)
def optimiser(rate: float, steps: int, decay: float = 0.1) -> optax.GradientTransformation:
    """AdamW with betas (0.9, 0.95), gradients clipped at 1, decay of matrices of dense layers alone, a short warm-up and a
    cosine down to a tenth."""
    warm = max(1, min(50, steps // 10))
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, warm, max(steps, warm + 1), rate / 10)
    flat = optax.flatten(optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(0.9, 0.95)))  # of few operations
    rule = optax.chain(flat, optax.add_decayed_weights(decay, _decayed), optax.scale_by_learning_rate(schedule))
    return optax.GradientTransformation(jax.jit(rule.init), rule.update)


def _decayed(weights: Any) -> Any:
    """Matrices of dense layers: not embeddings, places, biases and norms."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: getattr(path[-1], "name", "") == "weight" and leaf.ndim == 2, weights
    )


def train(
    model: NeuroformerNet, data: Data, *, steps: int, key: PRNGKeyArray, batch: int = 64, rate: float = 2e-3,
    decay: float = 0.1, contrast: float = 0.25, sees: Sees = ALL, chunk: int = 50,
    report: Callable[[int, float], None] | None = None, checkpoint: str | Path | None = None,
) -> Fit:  # fmt: skip
    """The model after `steps` batches of some `batch` windows: as many rows as hold them on average."""
    loss = Loss(jnp.asarray(contrast), _arrays(sees))
    draws = Draws(jax.tree.map(jnp.asarray, data), data.rows_of(batch))
    rule = optimiser(rate, steps, decay)
    return fit(model, loss, draws, optimiser=rule, steps=steps, key=key, chunk=chunk, report=report, checkpoint=checkpoint)


def _arrays(sees: Sees) -> Sees:
    """Arrays, so that all combinations share a program."""
    return Sees(*map(jnp.asarray, sees))


@eqx.filter_jit
def _scores(model: NeuroformerNet, batch: tuple, sees: Sees) -> tuple[Array, Array, Array, Array | None]:
    rows, frames, behaviour = batch
    out = model(rows, frames, behaviour, sees=sees)
    ids, offsets, _ = token_losses(model, out, rows)
    return ids.sum(axis=1), offsets.sum(axis=1), model.pooled(out.x, rows), out.video


def evaluate(
    model: NeuroformerNet, data: Data, sees: Sees = ALL, batch: int = 64
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Of each row minus the log-likelihood of neurons and of offsets; of each window the mean of its tokens, (windows, width),
    and that of its stimulus."""
    parts, count = [], len(data.rows.ids)
    for given in data.batches(batch):
        parts.append([None if part is None else np.asarray(part) for part in _scores(model, given, _arrays(sees))])
    ids, offsets = (np.concatenate([part[k] for part in parts])[:count] for k in (0, 1))
    window = np.asarray(data.rows.window)
    there = window >= 0
    order = np.argsort(window[there])
    pooled, film = (
        None if parts[0][k] is None else np.concatenate([part[k] for part in parts])[:count][there][order] for k in (2, 3)
    )
    return ids, offsets, np.asarray(pooled), film
