"""What language models of spiking units are compared with: an LSTM, a small Transformer, and leaky traces of the tokens.

Each has `logits(tokens)` for a sequence and `step(state, token)`, as `broadsheet.networks.astrocyte_language.AstroSNN`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from broadsheet.dynamics.rollout import rollout
from broadsheet.dynamics.system import System, fixed, trainable
from broadsheet.errors import InputError
from broadsheet.learn.layers import Dense, FeedForward, RMSNorm
from broadsheet.numerics import generator

Tokens = Int[Array, " time"]


class TokenLSTM(System):
    """Embedding, layers of LSTM cells, read-out.

    Forget gates start so that cells remember for 1 to `longest` tokens, `b_f = log U(1, longest - 1)`, `b_i = -b_f`: what an
    LSTM needs to learn of delays at all (Tallec and Ollivier, arXiv 1804.11188).
    """

    embedding: Float[Array, "vocab width"]
    cells: tuple[eqx.nn.LSTMCell, ...]
    head: Dense

    def __init__(self, vocab: int, width: int, layers: int = 1, *, longest: int = 128, key: PRNGKeyArray) -> None:
        rng = generator(key)
        self.embedding = jnp.asarray(rng.standard_normal((vocab, width)), float)
        self.cells = tuple(_cell(rng, width, longest) for _ in range(layers))
        self.head = Dense(rng, width, vocab)

    def init(self, key: PRNGKeyArray) -> PyTree:
        zeros = jnp.zeros(self.embedding.shape[1])
        return tuple((zeros, zeros) for _ in self.cells)

    def step(self, state: PyTree, inputs: Int[Array, ""], key: PRNGKeyArray | None = None) -> tuple[PyTree, Array]:
        x, after = self.embedding[inputs], []
        for cell, before in zip(self.cells, state, strict=True):
            after.append(cell(x, before))
            x = after[-1][0]
        return tuple(after), self.head(x)

    def logits(self, tokens: Tokens) -> Float[Array, "time vocab"]:
        return rollout(self, tokens)[1]


def _cell(rng: np.random.Generator, width: int, longest: int) -> eqx.nn.LSTMCell:
    """Uniform weights within 1 / sqrt(width) as Equinox has them, drawn on the host: nothing is compiled for a width."""
    shapes = eqx.filter_eval_shape(eqx.nn.LSTMCell, width, width, key=jax.random.key(0))
    bound = 1 / np.sqrt(width)
    cell = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(-bound, bound, leaf.shape), leaf.dtype), shapes)
    kept = np.log(rng.uniform(1, longest - 1, width))
    bias = jnp.asarray(np.concatenate([-kept, kept, np.zeros(2 * width)]), cell.bias.dtype)  # input, forget, cell, output
    return eqx.tree_at(lambda cell: cell.bias, cell, bias)


class Cache(NamedTuple):
    """Keys and values of the tokens so far, and how many these are."""

    keys: Float[Array, "layers context heads channels"]
    values: Float[Array, "layers context heads channels"]
    length: Int[Array, ""]


class TokenTransformer(System):
    """A decoder with rotary positions, RMS norms and GELU; in steps it keeps the keys and values of `context` tokens."""

    embedding: Float[Array, "vocab width"]
    norms: tuple[tuple[RMSNorm, RMSNorm], ...]
    mixers: tuple[tuple[Dense, Dense], ...]
    feeds: tuple[FeedForward, ...]
    norm: RMSNorm
    head: Dense
    heads: int = eqx.field(static=True)
    context: int = eqx.field(static=True)

    def __init__(
        self, vocab: int, width: int, layers: int = 2, heads: int = 4, *, context: int = 1024, key: PRNGKeyArray
    ) -> None:
        if width % (2 * heads):
            raise InputError(f"A width of {width} does not fall into {heads} heads of an even number of channels.")
        rng = generator(key)
        self.embedding = jnp.asarray(rng.standard_normal((vocab, width)), float)
        self.norms = tuple((RMSNorm(width), RMSNorm(width)) for _ in range(layers))
        self.mixers = tuple((Dense(rng, width, 3 * width), Dense(rng, width, width)) for _ in range(layers))
        self.feeds = tuple(FeedForward(rng, width, 2) for _ in range(layers))
        self.norm, self.head, self.heads, self.context = RMSNorm(width), Dense(rng, width, vocab), heads, context

    def init(self, key: PRNGKeyArray) -> Cache:
        width = self.embedding.shape[1]
        empty = jnp.zeros((len(self.feeds), self.context, self.heads, width // self.heads))
        return Cache(empty, empty, jnp.zeros((), int))

    def step(self, state: Cache, inputs: Int[Array, ""], key: PRNGKeyArray | None = None) -> tuple[Cache, Array]:
        x, seen = self.embedding[inputs], jnp.arange(self.context) <= state.length
        keys, values = state.keys, state.values
        for layer, ((first, second), (mixer, out), feed) in enumerate(self._blocks):
            q, k, v = self._heads(mixer(first(x))[None], state.length[None])
            keys, values = keys.at[layer, state.length].set(k[0]), values.at[layer, state.length].set(v[0])
            x = x + out(_attend(q, keys[layer], values[layer], seen[None])[0])
            x = x + feed(second(x))
        return Cache(keys, values, state.length + 1), self.head(self.norm(x))

    def logits(self, tokens: Tokens) -> Float[Array, "time vocab"]:
        t = jnp.arange(len(tokens))
        x, past = self.embedding[tokens], t[:, None] >= t
        for (first, second), (mixer, out), feed in self._blocks:
            x = x + out(_attend(*self._heads(mixer(first(x)), t), past))
            x = x + feed(second(x))
        return self.head(self.norm(x))

    @property
    def _blocks(self) -> list[tuple]:
        return list(zip(self.norms, self.mixers, self.feeds, strict=True))

    def _heads(self, mixed: Array, places: Array) -> tuple[Array, Array, Array]:
        """Queries, keys and values (time, heads, channels), the first two turned by their places."""
        q, k, v = (part.reshape(len(mixed), self.heads, -1) for part in jnp.split(mixed, 3, axis=-1))
        half = q.shape[-1] // 2
        angles = places[:, None, None] * 10_000.0 ** (-jnp.arange(half) / half)
        cos, sin = jnp.cos(angles), jnp.sin(angles)

        def turned(x: Array) -> Array:
            left, right = jnp.split(x, 2, axis=-1)
            return jnp.concatenate([left * cos - right * sin, left * sin + right * cos], axis=-1)

        return turned(q), turned(k), v


def _attend(q: Array, k: Array, v: Array, allowed: Array) -> Array:
    scores = jnp.einsum("thd,ihd->hti", q, k) / jnp.sqrt(q.shape[-1])
    shares = jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf), axis=-1)
    return jnp.einsum("hti,ihd->thd", shares, v).reshape(len(q), -1)


class LeakyTraces(System):
    """Exponential traces of the tokens' embeddings, the present token among them, and a linear read-out: memory without a
    nonlinearity, without spikes and without attention.

    **Arguments:** `tau`: time constants, steps.
    """

    embedding: Float[Array, "vocab width"]
    head: Dense
    tau: Float[Array, " traces"] = fixed()

    def __init__(self, vocab: int, width: int, tau: Sequence[float], *, key: PRNGKeyArray) -> None:
        rng = generator(key)
        self.embedding = jnp.asarray(rng.standard_normal((vocab, width)), float)
        self.head = Dense(rng, width * (len(tau) + 1), vocab)
        self.tau = jnp.asarray(np.asarray(tau), float)

    def init(self, key: PRNGKeyArray) -> Float[Array, "traces width"]:
        return jnp.zeros((len(self.tau), self.embedding.shape[1]))

    def step(
        self, state: Float[Array, "traces width"], inputs: Int[Array, ""], key: PRNGKeyArray | None = None
    ) -> tuple[Array, Array]:
        x = self.embedding[inputs]
        state = jnp.exp(-1 / self.tau)[:, None] * state + x
        return state, self.head(jnp.concatenate([x, state.reshape(-1)]))

    def logits(self, tokens: Tokens) -> Float[Array, "time vocab"]:
        return rollout(self, tokens)[1]


def count(model: Any) -> int:
    """Number of trained numbers."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, trainable(model))))


def matched(make: Callable[[int], Any], parameters: int, widths: Sequence[int]) -> Any:
    """Of the models that `make` makes of these widths, in rising order, the one whose number of parameters is nearest."""
    above = bisect_left(widths, parameters, key=lambda width: count(make(width)))
    near = [make(width) for width in widths[max(above - 1, 0) : above + 1]]
    return min(near, key=lambda model: abs(count(model) - parameters))
