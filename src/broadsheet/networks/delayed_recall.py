"""Tasks of memory on tokens: recall after a delay, selective copying, and recall by a key.

Each makes (tokens (batch, time), answers (batch,)); the answer is wanted at the last token, a query or a key.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.errors import InputError

SYMBOLS, DISTRACTORS = 8, 4
QUERY = SYMBOLS + DISTRACTORS
VOCABULARY = QUERY + 1
"""Symbols first, then distractors, then the query."""
Batch = tuple[Int[Array, "batch time"], Int[Array, " batch"]]


def delayed_recall(key: PRNGKeyArray, batch: int, delay: int) -> Batch:
    """One of 8 symbols, `delay` distractors drawn from 4, and the query: which symbol was it?"""
    _at_least(1, batch=batch, delay=delay)
    symbol_key, distractor_key = jax.random.split(key)
    symbols = jax.random.randint(symbol_key, (batch, 1), 0, SYMBOLS)
    between = jax.random.randint(distractor_key, (batch, delay), SYMBOLS, QUERY)
    return jnp.concatenate([symbols, between, jnp.full((batch, 1), QUERY)], axis=1), symbols[:, 0]


def selective_copy(key: PRNGKeyArray, batch: int, length: int) -> Batch:
    """`length` tokens that are all symbols but for one mark, and the query: which symbol came after the mark?"""
    _at_least(2, length=length)
    _at_least(1, batch=batch)
    symbol_key, place_key = jax.random.split(key)
    symbols = jax.random.randint(symbol_key, (batch, length), 0, SYMBOLS)
    places = jax.random.randint(place_key, (batch, 1), 0, length - 1)
    tokens = jnp.where(jnp.arange(length) == places, SYMBOLS, symbols)
    answers = jnp.take_along_axis(symbols, places + 1, axis=1)
    return jnp.concatenate([tokens, jnp.full((batch, 1), QUERY)], axis=1), answers[:, 0]


def recall_by_key(key: PRNGKeyArray, batch: int, pairs: int, delay: int) -> Batch:
    """`pairs` of a key (a distractor, each once) and a symbol, `delay` queries as filling, and a key: which symbol was its?"""
    _at_least(1, batch=batch, pairs=pairs)
    _at_least(0, delay=delay)
    if pairs > DISTRACTORS:
        raise InputError(f"{pairs} pairs have no keys of their own; there are {DISTRACTORS}.")
    order_key, symbol_key, which_key = jax.random.split(key, 3)
    ranks = jax.random.uniform(order_key, (batch, DISTRACTORS))
    keys = SYMBOLS + jnp.argsort(ranks, axis=1)[:, :pairs]
    symbols = jax.random.randint(symbol_key, (batch, pairs), 0, SYMBOLS)
    which = jax.random.randint(which_key, (batch, 1), 0, pairs)
    shown = jnp.stack([keys, symbols], axis=2).reshape(batch, 2 * pairs)
    asked = jnp.take_along_axis(keys, which, axis=1)
    tokens = jnp.concatenate([shown, jnp.full((batch, delay), QUERY), asked], axis=1)
    return tokens, jnp.take_along_axis(symbols, which, axis=1)[:, 0]


class Answers(eqx.Module):
    """Mean cross-entropy (nats) of the answers at the last token, of any model with `logits`."""

    def __call__(self, model: Any, batch: Batch, key: Any = None) -> Float[Array, ""]:
        tokens, answers = batch
        logits = jax.vmap(model.logits)(tokens)[:, -1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, answers).mean()


def accuracies(model: Any, sets: list[tuple]) -> list[float]:
    """Share of right answers on sets of examples of any lengths, by one pass over all of them.

    Shorter ones are filled up behind their query, which no answer sees.
    """
    longest = max(tokens.shape[1] for tokens, _ in sets)
    filled = [np.pad(np.asarray(tokens), ((0, 0), (0, longest - tokens.shape[1]))) for tokens, _ in sets]
    places = [np.full(len(answers), tokens.shape[1] - 1) for tokens, answers in sets]
    answers = np.concatenate([np.asarray(answers) for _, answers in sets])
    right = np.asarray(_right(model, *map(jnp.asarray, (np.concatenate(filled), np.concatenate(places), answers))))
    ends = np.cumsum([len(answers) for _, answers in sets])
    return [float(part.mean()) for part in np.split(right, ends[:-1])]


@eqx.filter_jit
def _right(model: Any, tokens: Array, places: Array, answers: Array) -> Array:
    return jax.vmap(lambda row, place, answer: jnp.argmax(model.logits(row)[place]) == answer)(tokens, places, answers)


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise InputError(f"{name} = {value}; at least {least} is wanted.")
