"""What a trained Neuroformer says about who drives whom: attention, and what each past spike does to each neuron's logit.

All matrices are [target, source]. Attention is no coupling: a model may look at what says nothing, and a source that tells of a
common drive is looked at as well.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from broadsheet.recordings.neuroformer.model import NeuroformerNet
from broadsheet.recordings.neuroformer.training import Data
from broadsheet.recordings.neuroformer.windows import Rows


class Attention(NamedTuple):
    """Mean weights from a neuron's token to another's, over co-occurrences: `past`, of the cross-attention to the window
    before,
    and `current`, of the self-attention within a window. NaN where two never met."""

    past: Float[np.ndarray, "target source"]
    current: Float[np.ndarray, "target source"]


@eqx.filter_jit
def _attention(model: NeuroformerNet, batch: tuple, written: Array) -> tuple[Array, ...]:
    rows, frames, behaviour = batch
    out = model(rows, frames, behaviour)
    n = model.config.n_neurons
    query = jax.nn.one_hot(jnp.where(written, rows.target_ids, rows.ids), n)
    past, key = jax.nn.one_hot(rows.past_ids, n), jax.nn.one_hot(rows.ids, n)  # SOS, EOS and PAD are rows of zeros
    behind = (rows.segment[:, :, None] == rows.past_segment[:, None]) & (rows.segment >= 0)[:, :, None]
    count = rows.ids.shape[1]
    earlier = (rows.segment[:, :, None] == rows.segment[:, None]) & (rows.segment >= 0)[:, :, None]
    earlier = earlier & jnp.tril(jnp.ones((count, count), bool))
    earlier = earlier & (written | ~jnp.eye(count, dtype=bool))

    def met(weights: Array, source: Array) -> Array:
        return jnp.einsum("rlq,rlk->qk", query, weights @ source)

    history = sum(weights.mean(axis=1) for weights in out.history) / max(len(out.history), 1)
    fusion = sum(weights.mean(axis=1) for weights in out.fusion) / max(len(out.fusion), 1)
    return (
        met(jnp.asarray(history) * behind, past), met(behind.astype(jnp.float32), past),
        met(jnp.asarray(fusion) * earlier, key), met(earlier.astype(jnp.float32), key),
    )  # fmt: skip


def attention_connectivity(model: NeuroformerNet, data: Data, *, written: bool = True, batch: int = 64) -> Attention:
    """Attention summed by neurons, over co-occurrences, of mean layers and heads.

    **Arguments:** `written`: the target is the neuron that the query is about to write; else it is the neuron whose token the
    query has, as in the authors' program.
    """
    sums: list[np.ndarray] = []
    for given in data.batches(batch):
        made = [np.asarray(part, float) for part in _attention(model, given, jnp.asarray(written))]
        sums = [a + b for a, b in zip(sums, made, strict=True)] if sums else made
    with np.errstate(invalid="ignore", divide="ignore"):
        return Attention(sums[0] / sums[1], sums[2] / sums[3])


@eqx.filter_jit
def _sensitivity(model: NeuroformerNet, batch: tuple) -> tuple[Array, Array]:
    rows, frames, behaviour = batch
    n = model.config.n_neurons
    first = _before_any_spike(rows, model.config.n_ids - 3)

    def logits(gate: Array) -> Array:
        out = model(first, frames, behaviour, gate=gate)
        return model.head_ids(out.x)[..., :n].sum(axis=(0, 1), where=(first.segment >= 0)[..., None])

    _, back = jax.vjp(logits, jnp.ones(rows.past_ids.shape))
    slopes = jax.vmap(lambda unit: back(unit)[0])(jnp.eye(n))
    source = jax.nn.one_hot(rows.past_ids, n) * (rows.past_segment >= 0)[..., None]
    return jnp.einsum("irm,rmj->ij", slopes, source), source.sum(axis=(0, 1))


def _before_any_spike(rows: Rows, sos: int) -> Rows:
    """One token a window: its SOS."""
    segments = rows.window.shape[1]
    shape = (len(rows.ids), segments)
    zero = jnp.zeros(shape, jnp.int32)
    segment = jnp.where(rows.window >= 0, jnp.arange(segments), -1)
    return rows._replace(ids=zero + sos, offsets=zero, place=zero, segment=segment, target_ids=zero, target_offsets=zero)


def sensitivity(model: NeuroformerNet, data: Data, *, batch: int = 64) -> Float[np.ndarray, "target source"]:
    """Mean slope of a neuron's logit before anything of the window is written, by how much of a past spike of another is there
    (1: whole; 0: not seen): the effect of a spike to first order."""
    total, seen = np.zeros(()), np.zeros(())
    for given in data.batches(batch):
        slopes, count = _sensitivity(model, given)
        total, seen = total + np.asarray(slopes, float), seen + np.asarray(count, float)
    return np.asarray(total / np.maximum(seen, 1))


def average_precision(scores: Float[np.ndarray, "n n"], edges: Bool[np.ndarray, "n n"]) -> float:
    """Of ranking ordered pairs of different neurons by their scores; a score that is missing ranks last."""
    from sklearn.metrics import average_precision_score

    off = ~np.eye(len(edges), dtype=bool)
    return float(average_precision_score(edges[off], _filled(scores)[off]))


def area(scores: Float[np.ndarray, "n n"], edges: Bool[np.ndarray, "n n"]) -> float:
    """Under the curve of true against false positives, over ordered pairs of different neurons."""
    from sklearn.metrics import roc_auc_score

    off = ~np.eye(len(edges), dtype=bool)
    return float(roc_auc_score(edges[off], _filled(scores)[off]))


def direction_index(scores: Float[np.ndarray, "n n"], edges: Bool[np.ndarray, "n n"]) -> float:
    """Share of edges that have a larger score than the reverse pair, where that is no edge; ties count half."""
    scores = _filled(scores)
    one_way = edges & ~edges.T
    difference = (scores - scores.T)[one_way]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def _filled(scores: np.ndarray) -> np.ndarray:
    """Missing scores become a bit less than the lowest."""
    known = np.isfinite(scores)
    if not known.any():
        return np.zeros(scores.shape)
    return np.where(known, scores, scores[known].min() - 1.0)
