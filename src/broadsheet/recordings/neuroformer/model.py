"""The transformer: current spikes are queries; the past, the stimulus and behaviour are what they look at (arXiv 2311.00136).

Axes: r rows, l current tokens, m others, h heads, d width. Differences from the authors' program: padding is never attended,
the
place of video tokens is added to them, behaviour is not passed through a layer norm over its one number (which leaves nothing
of
it), and, as options, the neuron is predicted with its offset known, and what cannot follow has no probability.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from broadsheet.errors import InputError
from broadsheet.learn.layers import Dense, LayerNorm
from broadsheet.recordings.neuroformer.windows import Rows

MASKED = -1e9


@dataclass(frozen=True)
class Config:
    """Sizes of a Neuroformer.

    - `n_ids`, `n_offsets`: of the vocabularies; `past_offsets`: how many bins the past has.
    - `block`, `past_block`: the most tokens of a window, and of its past.
    - `state`, `stimulus`: self-attention layers of the encoders of spikes and of video; `history`, `look`, `behaviour`:
      cross-attention layers to the past, the stimulus, behaviour; `fusion`: the self-attention layers at the end.
    - `frames`: (frames, height, width) of the video before a window, or None; `kernel`, `stride`: of its patches.
    - `behaviours`: numbers of behaviour that each window comes with.
    - `clip`: width of the space in which modalities are compared, 0 for none.
    - `learned_time`: offsets are embedded by a small network of their number, in place of waves.
    - `id_given_offset`: the head of neurons knows the offset of the spike; else the two are independent given what came before,
      as in the authors' program.
    - `rising`: offsets never fall, and where the head of neurons knows the offset, EOS comes with its own offset alone;
      `in_order`: nor do neurons within a bin (events are sorted).
    """

    n_ids: int
    n_offsets: int
    past_offsets: int
    block: int
    past_block: int
    width: int = 64
    heads: int = 4
    state: int = 1
    history: int = 2
    stimulus: int = 1
    look: int = 1
    behaviour: int = 1
    fusion: int = 1
    frames: tuple[int, int, int] | None = None
    kernel: tuple[int, int, int] = (3, 8, 8)
    stride: tuple[int, int, int] = (3, 4, 4)
    behaviours: int = 0
    clip: int = 0
    dropout: float = 0.0
    learned_time: bool = False
    id_given_offset: bool = True
    rising: bool = True
    in_order: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2:
            raise InputError(f"A width of {self.width} with {self.heads} heads: an even multiple of the heads is wanted.")
        if (self.in_order and not self.id_given_offset) or (self.id_given_offset and not self.rising):
            raise InputError("in_order needs id_given_offset, and that needs rising.")
        if self.frames is not None and any(k > n for k, n in zip(self.kernel, self.frames, strict=True)):
            raise InputError(f"Patches of {self.kernel} do not fit a video of {self.frames}.")

    @property
    def n_neurons(self) -> int:
        return self.n_ids - 3


class Sees(NamedTuple):
    """What is visible; where something is not, the layers that would look at it get nothing."""

    past: Array | bool = True
    stimulus: Array | bool = True
    behaviour: Array | bool = True


ALL = Sees()


class Output(NamedTuple):
    """What the trunk makes of rows.

    - `x`: (rows, tokens, width), what the heads read.
    - `history`, `fusion`: attention weights of each layer, (rows, heads, tokens, keys), where they were asked for.
    - `video`: (rows, segments, width) mean features of the stimulus.
    """

    x: Float[Array, "rows tokens width"]
    history: tuple[Array, ...]
    fusion: tuple[Array, ...]
    video: Array | None


def drawn(rng: np.random.Generator, *shape: int) -> Array:
    """Normal with 0.02, as GPT."""
    return jnp.asarray(0.02 * rng.standard_normal(shape), jnp.float32)


def dense(rng: np.random.Generator, inputs: int, outputs: int) -> Dense:
    return eqx.tree_at(lambda d: d.weight, Dense(rng, inputs, outputs), drawn(rng, outputs, inputs))


class Matrix(eqx.Module):
    """x W^T over the last axis."""

    weight: Float[Array, "out in"]

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int):
        self.weight = drawn(rng, outputs, inputs)

    def __call__(self, x: Float[Array, "*shape in"]) -> Float[Array, "*shape out"]:
        return x @ self.weight.T


def waves(place: Array, width: int) -> Float[Array, "*shape width"]:
    """Sines on even channels and cosines on odd ones, with rates `10000^(-2i / width)`."""
    rates = jnp.exp(-math.log(10_000.0) * jnp.arange(0, width, 2) / width)
    angle = place[..., None].astype(jnp.float32) * rates
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(*place.shape, width)


def dropped(x: Array, rate: float, key: PRNGKeyArray | None) -> Array:
    if key is None or rate == 0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0.0)


def gelu(x: Array) -> Array:
    """The exact GELU by erf, one polynomial; JAX's takes erfc, which is two."""
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def _looked(q: Float[Array, "r h l e"], keys: Float[Array, "r h m e"], mask: Bool[Array, "#r #l m"]) -> Float[Array, "r h l m"]:
    """Weights before they are normalised: the largest of each query is 1, or all are 0 where it sees no key."""
    scores = jnp.where(mask[:, None], jnp.einsum("rhle,rhme->rhlm", q, keys), MASKED)
    largest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    return jnp.exp(scores - jnp.maximum(largest, MASKED / 2))


@jax.custom_vjp
def attended(
    q: Float[Array, "r h l e"], keys: Float[Array, "r h m e"], values: Float[Array, "r h m e"], mask: Bool[Array, "#r #l m"]
) -> Float[Array, "r h l e"]:
    """What queries get: means of values by softmax of `q k`; its gradient goes over the weights twice, JAX's own many times."""
    return _attended(q, keys, values, mask)[0]


def _attended(q: Array, keys: Array, values: Array, mask: Array) -> tuple[Array, tuple[Array, ...]]:
    weights = _looked(q, keys, mask)
    total = jnp.maximum(weights.sum(axis=-1, keepdims=True), 1.0)
    y = jnp.einsum("rhlm,rhme->rhle", weights, values) / total
    return y, (q, keys, values, weights, total, y)


def _back(kept: tuple[Array, ...], dy: Array) -> tuple[Array, Array, Array, None]:
    q, keys, values, weights, total, y = kept
    dy = dy / total
    scores = weights * (jnp.einsum("rhle,rhme->rhlm", dy, values) - (dy * y).sum(axis=-1, keepdims=True))
    of_keys, of_values = (  # with what is small transposed, not the weights
        jnp.einsum("rhle,rhlm->rhem", a, b).swapaxes(2, 3) for a, b in ((q, scores), (dy, weights))
    )
    return jnp.einsum("rhlm,rhme->rhle", scores, keys), of_keys, of_values, None


attended.defvjp(_attended, _back)


class Block(eqx.Module):
    """`x + attention(LN x)`, then `x + MLP(LN x)`, then a layer norm; keys and values are not normalised."""

    norm_query: LayerNorm
    norm_mlp: LayerNorm
    norm_out: LayerNorm
    query: Dense
    key: Dense
    value: Dense
    project: Dense
    up: Dense
    down: Dense
    heads: int = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(self, rng: np.random.Generator, width: int, heads: int, dropout: float):
        self.norm_query, self.norm_mlp, self.norm_out = (LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value, self.project = (dense(rng, width, width) for _ in range(4))
        self.up, self.down = dense(rng, width, 4 * width), dense(rng, 4 * width, width)
        self.heads, self.dropout = heads, dropout

    def seen(self, other: Float[Array, "r m d"]) -> tuple[Float[Array, "r h m e"], Float[Array, "r h m e"]]:
        """Keys and values, by one product."""
        weight = jnp.concatenate([self.key.weight, self.value.weight])
        bias = jnp.concatenate([self.key.bias, self.value.bias])
        keys, values = jnp.split(other @ weight.T + bias, 2, axis=-1)
        return self._split(keys), self._split(values)

    def __call__(
        self, x: Float[Array, "r l d"], keys: Array, values: Array, mask: Bool[Array, "#r #l m"], gate: Array | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "r l d"], Float[Array, "r h l m"]]:  # fmt: skip
        """The new x and the attention weights; where a query sees no key, it gets nothing. `gate`: (r, m), how much of each key
        is there, by which its weight is multiplied before weights are normalised."""
        k_one, k_two = (None, None) if key is None else jax.random.split(key)
        q = self._split(self.query(self.norm_query(x))) / math.sqrt(x.shape[-1] // self.heads)
        weights = _looked(q, keys, mask)
        if gate is not None:
            weights = weights * gate[:, None, None]
        weights = weights / jnp.maximum(weights.sum(axis=-1, keepdims=True), 1e-6)
        y = attended(q, keys, values, mask) if gate is None else jnp.einsum("rhlm,rhme->rhle", weights, values)
        y = self.project(jnp.swapaxes(y, 1, 2).reshape(x.shape))
        x = x + dropped(y, self.dropout, k_one)
        y = self.down(gelu(self.up(self.norm_mlp(x))))
        return self.norm_out(x + dropped(y, self.dropout, k_two)), weights

    def _split(self, x: Array) -> Array:
        return jnp.swapaxes(x.reshape(*x.shape[:-1], self.heads, -1), -2, -3)


class VideoPatches(eqx.Module):
    """A convolution in three dimensions by patches, a layer norm, a rectifier: (rows, segments, tokens, width)."""

    dense: Dense
    norm: LayerNorm
    kernel: tuple[int, int, int] = eqx.field(static=True)
    stride: tuple[int, int, int] = eqx.field(static=True)

    def __init__(self, rng: np.random.Generator, config: Config):
        self.dense, self.norm = dense(rng, math.prod(config.kernel), config.width), LayerNorm(config.width)
        self.kernel, self.stride = config.kernel, config.stride

    def __call__(self, frames: Float[Array, "r s f y x"], place: bool) -> Float[Array, "r s tokens d"]:
        size = frames.shape[2:]
        corners = [np.arange(0, n - k + 1, s) for n, k, s in zip(size, self.kernel, self.stride, strict=True)]
        at = np.stack(np.meshgrid(*corners, indexing="ij"), axis=-1).reshape(-1, 3)
        inside = np.stack(np.meshgrid(*map(np.arange, self.kernel), indexing="ij"), axis=-1).reshape(-1, 3)
        flat = np.ravel_multi_index(tuple((at[:, None] + inside[None]).transpose(2, 0, 1)), size)
        patches = frames.reshape(*frames.shape[:2], -1)[..., flat]
        x = jax.nn.relu(self.norm(self.dense(patches)))
        if not place:
            return x
        width = x.shape[-1] // 6 * 2
        where = [waves(jnp.asarray(at[:, k]) / self.stride[k], width) for k in range(3)]
        return x.at[..., : 3 * width].add(jnp.concatenate(where, axis=-1))


class NeuroformerNet(eqx.Module):
    """The network; `NeuroformerNet(config, rng)`."""

    embedding: Float[Array, "ids d"]
    place: Float[Array, "block d"]
    past_place: Float[Array, "past_block d"]
    time: tuple[Dense, Dense] | None
    past_time: tuple[Dense, Dense] | None
    video: VideoPatches | None
    values: tuple[Matrix, Matrix] | None
    state: tuple[Block, ...]
    stimulus: tuple[Block, ...]
    history: tuple[Block, ...]
    look: tuple[Block, ...]
    behave: tuple[Block, ...]
    fusion: tuple[Block, ...]
    head_ids: Matrix
    head_offsets: Matrix
    known: Float[Array, "offsets d"] | None
    clip: Matrix | None
    config: Config = eqx.field(static=True)

    def __init__(self, config: Config, rng: np.random.Generator):
        c, d = config, config.width
        self.config = config
        self.embedding, self.place, self.past_place = (
            drawn(rng, c.n_ids, d),
            jnp.zeros((c.block, d)),
            jnp.zeros((c.past_block, d)),
        )

        def blocks(count: int, wanted: bool = True) -> tuple[Block, ...]:
            return tuple(Block(rng, d, c.heads, c.dropout) for _ in range(count if wanted else 0))

        times = [(dense(rng, 1, d // 2), dense(rng, d // 2, d)) if c.learned_time else None for _ in range(2)]
        self.time, self.past_time = times
        seeing = c.frames is not None
        self.video = VideoPatches(rng, c) if seeing else None
        self.values = (Matrix(rng, 1, 2), Matrix(rng, 2, d)) if c.behaviours else None
        self.state, self.stimulus = blocks(c.state), blocks(c.stimulus, seeing)
        self.history, self.look, self.behave = blocks(c.history), blocks(c.look, seeing), blocks(c.behaviour, c.behaviours > 0)
        self.fusion = blocks(c.fusion)
        self.head_ids, self.head_offsets = Matrix(rng, d, c.n_ids), Matrix(rng, d, c.n_offsets)
        self.known = drawn(rng, c.n_offsets, d) if c.id_given_offset else None
        self.clip = Matrix(rng, d, c.clip) if c.clip else None

    def tokens(self, ids: Array, offsets: Array, place: Array) -> Float[Array, "*shape d"]:
        """Embeddings of current tokens."""
        return self.embedding[ids] + self.place[place] + self._when(offsets, self.time)

    def past(self, rows: Rows) -> Float[Array, "r m d"]:
        """Embeddings of past tokens."""
        when = self._when(rows.past_offsets, self.past_time)
        return self.embedding[rows.past_ids] + self.past_place[rows.past_place] + when

    def _when(self, offsets: Array, learned: tuple[Dense, Dense] | None) -> Array:
        if learned is None:
            return waves(offsets, self.config.width)
        first, second = learned
        return second(gelu(first(offsets[..., None].astype(jnp.float32))))

    def seen_frames(
        self,
        frames: Float[Array, "r s f y x"],
        present: Bool[Array, "r s"],
        place: bool = True,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "r m d"], Int[Array, "r m"], Float[Array, "r s d"]]:
        """Tokens of the stimulus, the segment of each (-1: not there), and their mean for each segment. The embedding of SOS is
        put before them, as in the authors' program."""
        assert self.video is not None
        x = self.video(frames, place)
        r, s, n, d = x.shape
        zero = jnp.zeros((), jnp.int32)
        sos = self.tokens(zero + self.config.n_ids - 3, zero, zero)
        x = jnp.concatenate([jnp.broadcast_to(sos, (r, s, 1, d)), x], axis=2).reshape(r * s, n + 1, d)
        everything = jnp.ones((1, 1, n + 1), bool)
        for block in self.stimulus:
            x, _ = block(x, *block.seen(x), everything, key=key)
        mean = x.mean(axis=1).reshape(r, s, d)
        segment = jnp.where(present, jnp.arange(s), -1)
        return x.reshape(r, s * (n + 1), d), jnp.repeat(segment, n + 1, axis=1), mean

    def seen_behaviour(
        self, values: Float[Array, "r s n"], present: Bool[Array, "r s"]
    ) -> tuple[Float[Array, "r m d"], Int[Array, "r m"]]:
        """Tokens of behaviour and their segments."""
        assert self.values is not None
        first, second = self.values
        x = second(gelu(first(values[..., None])))
        x = x + waves(jnp.arange(values.shape[2]), self.config.width)
        r, s, n, d = x.shape
        segment = jnp.where(present, jnp.arange(s), -1)
        return x.reshape(r, s * n, d), jnp.repeat(segment, n, axis=1)

    def __call__(
        self, rows: Rows, frames: Array | None = None, behaviour: Array | None = None, *, sees: Sees = ALL,
        place: bool = True, gate: Array | None = None, key: PRNGKeyArray | None = None,
    ) -> Output:  # fmt: skip
        """The trunk.

        **Arguments:** `frames`: (rows, segments, frames, height, width); `behaviour`: (rows, segments, numbers); `sees`: what
        is visible at all; `place`: whether video tokens know their place; `gate`: (rows, past tokens), how much of
        each past token is there.
        """
        rate = self.config.dropout
        keys = iter(jax.random.split(key, 64)) if key is not None else iter([None] * 64)
        x = dropped(self.tokens(rows.ids, rows.offsets, rows.place), rate, next(keys))
        past = dropped(self.past(rows), rate, next(keys))
        segment = rows.segment[:, :, None]
        real = segment >= 0
        count = rows.ids.shape[1]
        causal = (segment == rows.segment[:, None]) & real & jnp.tril(jnp.ones((count, count), bool))
        for block in self.state:
            x, _ = block(x, *block.seen(x), causal, key=next(keys))
        history, fusion, video = [], [], None
        behind = (segment == rows.past_segment[:, None]) & real & sees.past
        for block in self.history:
            x, weights = block(x, *block.seen(past), behind, gate, key=next(keys))
            history.append(weights)
        present = jnp.asarray(rows.window) >= 0
        if frames is not None:
            shown, at, video = self.seen_frames(frames, present, place, next(keys))
            for block in self.look:
                x, _ = block(x, *block.seen(shown), (segment == at[:, None]) & real & sees.stimulus, key=next(keys))
        if behaviour is not None:
            shown, at = self.seen_behaviour(behaviour, present)
            for block in self.behave:
                x, _ = block(x, *block.seen(shown), (segment == at[:, None]) & real & sees.behaviour, key=next(keys))
        for block in self.fusion:
            x, weights = block(x, *block.seen(x), causal, key=next(keys))
            fusion.append(weights)
        return Output(x, tuple(history), tuple(fusion), video)

    def offset_logits(self, x: Float[Array, "*shape d"], last: Int[Array, "*shape"]) -> Float[Array, "*shape offsets"]:
        """Of the next spikes' offsets, where the last ones are `last`."""
        logits = self.head_offsets(x)
        if not self.config.rising:
            return logits
        offset, bins = jnp.arange(self.config.n_offsets), self.config.n_offsets - 4
        possible = ((offset >= last[..., None]) & (offset < bins)) | (offset == bins + 2)
        return jnp.where(possible, logits, MASKED)

    def id_logits(
        self,
        x: Float[Array, "*shape d"],
        offset: Int[Array, "*shape"],
        last_id: Int[Array, "*shape"],
        last: Int[Array, "*shape"],
    ) -> Float[Array, "*shape ids"]:
        """Of the next neurons, where their offsets are `offset`, after tokens (`last_id`, `last`)."""
        if self.known is None:
            return self.head_ids(x)
        logits = self.head_ids(x + self.known[offset])
        ids, c = jnp.arange(self.config.n_ids), self.config
        possible = jnp.where(offset[..., None] == c.n_offsets - 2, ids == c.n_ids - 2, ids < c.n_neurons)
        if c.in_order:
            same = (offset == last) & (last_id < c.n_neurons)
            possible &= ~same[..., None] | (ids >= last_id[..., None])
        return jnp.where(possible, logits, MASKED)

    def pooled(self, x: Float[Array, "r l d"], rows: Rows) -> Float[Array, "r s d"]:
        """The mean of each segment's tokens."""
        here = (rows.segment[:, None] == jnp.arange(rows.window.shape[1])[:, None]).astype(x.dtype)
        return (here @ x) / jnp.maximum(here.sum(axis=-1, keepdims=True), 1.0)


def token_losses(model: NeuroformerNet, out: Output, rows: Rows) -> tuple[Array, Array, Array]:
    """(ids, offsets, real): minus the log-probability of each target, and which targets are no padding."""
    log_ids = jax.nn.log_softmax(model.id_logits(out.x, rows.target_offsets, rows.ids, rows.offsets))
    log_offsets = jax.nn.log_softmax(model.offset_logits(out.x, rows.offsets))
    real = rows.segment >= 0
    ids = -jnp.take_along_axis(log_ids, rows.target_ids[..., None], axis=-1)[..., 0]
    offsets = -jnp.take_along_axis(log_offsets, rows.target_offsets[..., None], axis=-1)[..., 0]
    return jnp.where(real, ids, 0.0), jnp.where(real, offsets, 0.0), real
