"""Windows written by a trained Neuroformer, one spike after the other, with keys and values kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.recordings.neuroformer.model import ALL, MASKED, Block, NeuroformerNet, Sees
from broadsheet.recordings.neuroformer.training import Data
from broadsheet.recordings.neuroformer.windows import Rows


def nucleus(logits: Float[Array, "*shape n"], top_p: Float[Array, ""] | float) -> Float[Array, "*shape n"]:
    """Logits of the fewest values that have `top_p` of the probability together; the rest is masked."""
    ordered = jnp.sort(logits, axis=-1)[..., ::-1]
    before = jnp.cumsum(jax.nn.softmax(ordered), axis=-1) - jax.nn.softmax(ordered)
    least = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, MASKED)


@eqx.filter_jit
def write(
    model: NeuroformerNet,
    batch: tuple[Rows, Array | None, Array | None],
    key: PRNGKeyArray,
    temperature: Array,
    top_p: Array,
    sees: Sees = ALL,
) -> tuple[Int[Array, "rows tokens"], Int[Array, "rows tokens"]]:
    """(ids, offsets) of one window a row after SOS, given the rows' past, stimulus and behaviour; PAD follows EOS."""
    rows, frames, behaviour = batch
    c = model.config
    count, limit = len(rows.past_ids), c.block - 1
    sos, eos, pad, bins = c.n_ids - 3, c.n_ids - 2, c.n_ids - 1, c.n_offsets - 4
    past = model.past(rows)
    behind = (rows.past_segment == 0)[:, None] & sees.past
    crossed: list[tuple[Block, Array, Array, Array]] = [(b, *b.seen(past), behind) for b in model.history]
    present = jnp.ones((count, 1), bool)
    if frames is not None:
        shown, at, _ = model.seen_frames(frames, present)
        crossed += [(b, *b.seen(shown), (at == 0)[:, None] & sees.stimulus) for b in model.look]
    if behaviour is not None:
        shown, at = model.seen_behaviour(behaviour, present)
        crossed += [(b, *b.seen(shown), (at == 0)[:, None] & sees.behaviour) for b in model.behave]
    remembering = (*model.state, *model.fusion)
    store = jnp.zeros((len(remembering), 2, count, c.heads, limit, c.width // c.heads))

    def step(carry: tuple) -> tuple:
        i, ids, offsets, last, offset, done, store = carry
        x = model.tokens(last[:, None], offset[:, None], jnp.broadcast_to(i, (count, 1)))
        seen = jnp.broadcast_to(jnp.arange(limit) <= i, (count, 1, limit))

        def remember(k: int, block: Block, x: Array, store: Array) -> tuple[Array, Array]:
            new = jnp.stack(block.seen(x))
            store = jax.lax.dynamic_update_slice(store, new[None], (k, 0, 0, 0, i, 0))
            return block(x, store[k, 0], store[k, 1], seen)[0], store

        for k, block in enumerate(model.state):
            x, store = remember(k, block, x, store)
        for block, keys, values, mask in crossed:
            x, _ = block(x, keys, values, mask)
        for k, block in enumerate(model.fusion, start=len(model.state)):
            x, store = remember(k, block, x, store)
        x = x[:, 0]
        k_id, k_offset = jax.random.split(jax.random.fold_in(key, i))
        logits = model.offset_logits(x, offset)
        logits = logits.at[:, jnp.array([bins, bins + 1, bins + 3])].set(MASKED)
        when = jax.random.categorical(k_offset, nucleus(logits / temperature, top_p))
        logits = model.id_logits(x, when, last, offset).at[:, jnp.array([sos, pad])].set(MASKED)
        new = jax.random.categorical(k_id, nucleus(logits / temperature, top_p))
        over = done | (new == eos) | (when == bins + 2)  # where the two are independent, either ends the window
        new = jnp.where(done, pad, jnp.where(over, eos, new))
        ids = ids.at[:, i].set(new)
        offsets = offsets.at[:, i].set(jnp.where(done, bins + 3, jnp.where(over, bins + 2, when)))
        return i + 1, ids, offsets, new, jnp.where(over, offset, when), over, store

    def more(carry: tuple) -> Array:
        return (carry[0] < limit) & ~carry[5].all()

    blank = jnp.full((count, limit), pad), jnp.full((count, limit), c.n_offsets - 1)
    first = jnp.full(count, sos), jnp.zeros(count, int), jnp.zeros(count, bool)
    made = jax.lax.while_loop(more, step, (jnp.asarray(0), *blank, *first, store))
    return made[1], made[2]


def counts_of(
    ids: Int[np.ndarray, "windows tokens"], offsets: Int[np.ndarray, "windows tokens"], neurons: int, bins: int
) -> Int[np.ndarray, "windows bins neurons"]:
    """Spikes of written windows."""
    ids, offsets = np.asarray(ids), np.asarray(offsets)
    counts = np.zeros((len(ids), bins, neurons), np.int32)
    window, token = np.nonzero(ids < neurons)
    np.add.at(counts, (window, offsets[window, token], ids[window, token]), 1)
    return counts


def generate(
    model: NeuroformerNet,
    data: Data,
    key: PRNGKeyArray,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    sees: Sees = ALL,
    batch: int = 128,
) -> Int[np.ndarray, "windows bins neurons"]:
    """Counts of each window of `data` (one a row) given its true past."""
    made, c = [], model.config
    settings = jnp.asarray(temperature), jnp.asarray(top_p), Sees(*map(jnp.asarray, sees))
    for k, given in enumerate(data.batches(batch)):
        ids, offsets = write(model, given, jax.random.fold_in(key, k), *settings)
        made.append(counts_of(np.asarray(ids), np.asarray(offsets), c.n_neurons, c.n_offsets - 4))
    return np.concatenate(made)[: len(data.rows.ids)]


def generate_freely(
    model: NeuroformerNet, start: Int[np.ndarray, "bins neurons"], windows: int, key: PRNGKeyArray, *,
    extras: Sequence[tuple[Any, Any]] | None = None, temperature: float = 1.0, top_p: float = 1.0,
) -> Int[np.ndarray, "written neurons"]:  # fmt: skip
    """Counts of windows in a row, each written with those before it as its past; `start`: what came first, at least the past's
    bins. `extras`: for each window its frames (frames, height, width) and behaviour, or None of either."""
    c = model.config
    tokens, width = c.past_block, c.n_offsets - 4
    written = np.asarray(start, np.int32)
    for k in range(windows):
        bins, neurons = np.nonzero(written[-c.past_offsets :])
        times = written[-c.past_offsets :][bins, neurons]
        bins, neurons = np.repeat(bins, times)[-tokens:], np.repeat(neurons, times)[-tokens:]
        n = len(bins)
        filled: list[Any] = [np.full((1, tokens), value, np.int32) for value in (c.n_ids - 1, c.n_offsets - 1, 0, -1)]
        for part, values in zip(filled, (neurons, bins, np.arange(n), 0), strict=True):
            part[0, :n] = values
        blank = np.zeros((1, 1), np.int32)
        frames, behaviour = (None, None) if extras is None else extras[k]
        batch = (
            Rows._make(map(jnp.asarray, [*[blank] * 6, *filled, blank])),
            None if frames is None else jnp.asarray(frames)[None, None],
            None if behaviour is None else jnp.asarray(behaviour)[None, None],
        )
        ids, offsets = write(model, batch, jax.random.fold_in(key, k), jnp.asarray(temperature), jnp.asarray(top_p))
        written = np.concatenate([written, counts_of(np.asarray(ids), np.asarray(offsets), c.n_neurons, width)[0]])
    return written[len(start) :]
