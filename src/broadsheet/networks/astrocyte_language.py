"""A language model of astrocyte-modulated spiking units, after the idea of arXiv 2312.07625 (read as an abstract only).

Embedding, blocks of an `AMSU` and a `SpikingMLP`, a norm and a read-out. It is trained on whole sequences and used step by
step, with a state of one size however long the text. The equations and sizes are ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from broadsheet.cache import write_atomic
from broadsheet.dynamics.system import System, split
from broadsheet.errors import DataError, InputError
from broadsheet.files import load_arrays
from broadsheet.learn.layers import RMSNorm
from broadsheet.networks.astrocytes import AMSU, Beta, Block, SpikingMLP, UnitTrace
from broadsheet.networks.astrocytes import weights as uniform_weights
from broadsheet.numerics import generator

Tokens = Int[Array, " time"]
NOTE = "broadsheet.astrosnn"
MULTIPLY_PJ, ADD_PJ = 4.6, 0.9
"""Energy of a multiply-accumulate and of an addition, float32 in 45 nm (Horowitz, 2014), pJ."""


class Trace(NamedTuple):
    """Spikes in all layers: of the units, each (layers, time, width), and of the neurons in their MLPs."""

    units: UnitTrace
    hidden: Float[Array, "layers time hidden"]


class AstroSNN(System):
    """A spiking language model: a token in, logits (vocab,) out, each step or for a sequence at once.

    **Arguments:** `vocab`: number of tokens; `width`, `layers`, `heads`: channels, blocks, and processes of each astrocyte; the
    others are those of `AMSU`.

    **Raises:** `InputError` for a vocabulary of one and other sizes that make no model.
    """

    embedding: Float[Array, "vocab width"]
    blocks: Block  # of all layers, along the first axis of its arrays
    norm: RMSNorm
    head: Float[Array, "vocab width"]

    def __init__(
        self, vocab: int, width: int = 64, layers: int = 2, heads: int = 4, *, tau: Sequence[float] = (8.0, 512.0),
        alpha: float = 1.0, beta: Beta = 0.8, theta: float = 1.0, soft: bool = True, learn_tau: bool = False,
        normalise: bool = True, key: PRNGKeyArray,
    ) -> None:  # fmt: skip
        if vocab < 2:
            raise InputError(f"A vocabulary of {vocab} leaves nothing to predict; at least 2 tokens are wanted.")
        if width < 1 or layers < 1:
            raise InputError(f"width = {width} and layers = {layers}; at least 1 of each is wanted.")
        first, *rest = split(key, 2 * layers + 1)
        rng = generator(first)
        self.embedding = jnp.asarray(rng.standard_normal((vocab, width)), jnp.result_type(float))
        neurons: dict[str, Any] = {"beta": beta, "theta": theta, "soft": soft}
        synapses: dict[str, Any] = {"tau": tau, "alpha": alpha, "learn_tau": learn_tau, "normalise": normalise}
        units = [AMSU(width, heads, **synapses, **neurons, key=k) for k in rest[::2]]
        mlps = [SpikingMLP(width, **neurons, key=k) for k in rest[1::2]]
        blocks = [Block(unit, mlp) for unit, mlp in zip(units, mlps, strict=True)]
        self.blocks = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *blocks)  # on the host: nothing is compiled
        self.norm, self.head = RMSNorm(width), uniform_weights(rng, width, vocab)

    def init(self, key: PRNGKeyArray) -> PyTree:
        first = jax.tree.map(lambda leaf: leaf[0], self.blocks).init(key)
        return jax.tree.map(lambda leaf: jnp.zeros((len(self), *leaf.shape), leaf.dtype), first)

    def step(
        self, state: PyTree, inputs: Int[Array, ""], key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Float[Array, " vocab"]]:
        def layer(x: Array, block_and_state: tuple[Block, PyTree]) -> tuple[Array, PyTree]:
            block, before = block_and_state
            after, x = block.step(before, x)
            return x, after

        x, state = jax.lax.scan(layer, self.embedding[inputs], (self.blocks, state))
        return state, self.head @ self.norm(x)

    def sequence(self, state: PyTree, tokens: Tokens) -> tuple[PyTree, Float[Array, "time vocab"], Trace]:
        """All tokens at once: the state after them, logits, and spikes."""

        def layer(x: Array, block_and_state: tuple[Block, PyTree]) -> tuple[Array, tuple[PyTree, tuple]]:
            block, before = block_and_state
            after, x, trace = block.sequence(before, x)
            return x, (after, trace)

        x, (state, trace) = jax.lax.scan(layer, self.embedding[tokens], (self.blocks, state))
        return state, self.norm(x) @ self.head.T, Trace(*trace)

    def logits(self, tokens: Tokens) -> Float[Array, "time vocab"]:
        """Of the token after each."""
        return self.sequence(self.init(jax.random.key(0)), tokens)[1]

    def generate(self, key: PRNGKeyArray, prompt: Any, n: int, temperature: float = 1.0) -> np.ndarray:
        """`n` tokens after a prompt, drawn with a temperature; at 0 the likeliest each time.

        The prompt is read as a whole sequence; then only the state is kept, so that memory does not grow with `n`.

        **Raises:** `InputError` for an empty prompt or tokens outside the vocabulary.
        """
        prompt = check_tokens(prompt, self.vocab)
        if n < 1 or not temperature >= 0:
            raise InputError(f"n = {n} tokens at temperature {temperature}; n of 1 or more and a temperature of 0 or more.")
        return np.asarray(_generate(self, key, jnp.asarray(prompt), n, jnp.asarray(temperature, float)))

    @property
    def vocab(self) -> int:
        """Number of tokens."""
        return len(self.embedding)

    def __len__(self) -> int:
        """Number of layers."""
        return len(self.blocks.unit.alpha)


class NextToken(eqx.Module):
    """Mean cross-entropy (nats) of each token of a batch (batch, time), given those before it; of any model with `logits`."""

    def __call__(self, model: Any, batch: Int[Array, "batch time"], key: Any = None) -> Float[Array, ""]:
        logits = jax.vmap(model.logits)(batch[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]).mean()


def check_tokens(tokens: Any, vocab: int) -> np.ndarray:
    """Tokens as an array (time,); raises `InputError` where there is none or one outside the vocabulary."""
    found = np.asarray(tokens)
    if found.ndim != 1 or found.size == 0 or found.dtype.kind not in "iu":
        raise InputError(f"Tokens of shape {found.shape} and type {found.dtype}; one row of whole numbers is wanted.")
    if found.min() < 0 or found.max() >= vocab:
        raise InputError(f"Token {found.min() if found.min() < 0 else found.max()} is outside the vocabulary of {vocab}.")
    return found


@eqx.filter_jit
def _generate(model: AstroSNN, key: PRNGKeyArray, prompt: Tokens, n: int, temperature: Array) -> Array:
    def draw(logits: Array, k: Array) -> Array:
        noise = temperature * jax.random.gumbel(jax.random.fold_in(key, k), logits.shape, logits.dtype)
        return jnp.argmax(logits + noise)

    def next_token(carry: tuple, k: Array) -> tuple[tuple, Array]:
        state, logits = carry
        token = draw(logits, k)
        return model.step(state, token), token

    state, logits, _ = model.sequence(model.init(key), prompt)
    return jax.lax.scan(next_token, (state, logits[-1]), jnp.arange(n))[1]


def state_bytes(model: System) -> int:
    """Bytes of what a model remembers between two steps."""
    state = eqx.filter_eval_shape(model.init, jax.random.key(0))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


class Energy(NamedTuple):
    """An estimate, per token: operations, picojoules, and the share of neurons that fire in a step."""

    multiplications: float
    additions: float
    picojoules: float
    rate: float


def energy_report(model: AstroSNN, tokens: Any) -> Energy:
    """What a token would cost on a chip that skips silent inputs: an estimate from counted operations, not a measurement.

    4.6 pJ a multiply-accumulate and 0.9 pJ an addition (float32, 45 nm: Horowitz, 2014); memory traffic is left out. Additions
    are the measured spikes times what each reaches. Products with numbers that are no spikes (the inputs of W_k, W_q, W_v, W_p,
    W_o, W_1 and the read-out), leaks and norms count as multiplications.
    """
    tokens = check_tokens(tokens, model.vocab)
    trace = _trace(model, jnp.asarray(tokens))
    part, modulated = model.blocks.unit.astrocyte.channels, bool(jnp.all(model.blocks.unit.alpha != 0))
    layers, width, mlp = model.blocks.mlp.down.shape
    if modulated:
        dense = 5 * width**2 + width * (part + 1) + 2 * width  # W_k, W_q, W_v, W_p, W_o; decay of C and z; alpha / denominator
    else:
        dense = 2 * width**2  # W_k and W_p
    dense += width * mlp + 5 * width + (3 if modulated else 2) * width + mlp  # W_1; two norms and the shift; leaks
    multiplications = layers * dense + 2 * width + width * model.vocab
    a, b, o, h = (float(np.sum(spikes)) / len(tokens) for spikes in (*trace.units[:3], trace.hidden))  # a token, in all layers
    additions = o + h * width + ((a + b) * (part + 1) if modulated else a * width)
    fired = a + o + h + (b if modulated else 0.0)
    neurons = layers * ((3 if modulated else 2) * width + mlp)
    energy = MULTIPLY_PJ * multiplications + ADD_PJ * additions
    return Energy(float(multiplications), additions, energy, fired / neurons)


@eqx.filter_jit
def _trace(model: AstroSNN, tokens: Tokens) -> Trace:
    return model.sequence(model.init(jax.random.key(0)), tokens)[2]


def attention_energy(vocab: int, width: int, layers: int, heads: int, context: int | None) -> float:
    """The same estimate, pJ a token, for a network of attention without spikes, its MLPs twice as wide as its channels.

    **Arguments:** `context`: tokens of a text, over which softmax attention is averaged; None for linear attention with a
    decay, whose sum over the past is a state.
    """
    part = width // heads
    mixing = 3 * width * part + 2 * width if context is None else width * (context + 1)  # a mean of (context + 1) / 2, twice
    dense = 4 * width**2 + 4 * width**2 + 4 * width
    return MULTIPLY_PJ * (layers * (dense + mixing) + 2 * width + width * vocab)


def save(model: AstroSNN, path: str | Path) -> None:
    """Writes a model as safetensors, time constants and thresholds among its arrays; sizes and modes stand in the metadata."""
    from safetensors.numpy import save as packed

    unit = model.blocks.unit
    note = {
        "vocab": model.vocab, "width": model.embedding.shape[1], "layers": len(model),
        "heads": unit.astrocyte.raw_tau.shape[1], "soft": unit.output.reset is None, "learn_tau": unit.astrocyte.learn_tau,
    }  # fmt: skip
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(model, eqx.is_array))
    arrays = {_name(place): np.asarray(leaf) for place, leaf in leaves}
    write_atomic(Path(path), packed(arrays, metadata={NOTE: json.dumps(note)}))


def load(path: str | Path) -> AstroSNN:
    """A model that `save` wrote.

    **Raises:** `DataError` where the file describes no such model, or its arrays are not those of the description.
    """
    arrays = load_arrays(path)
    blank = _described(Path(path), arrays)
    leaves, shape = jax.tree_util.tree_flatten_with_path(eqx.filter(blank, eqx.is_array))
    for place, leaf in leaves:
        name = _name(place)
        if name not in arrays or arrays[name].shape != leaf.shape or not np.isfinite(arrays[name]).all():
            raise DataError(f"{path}: {name} is missing, not finite or not of the shape {leaf.shape} that is described.")
    if len(arrays) > len(leaves):
        raise DataError(f"{path} has {len(arrays) - len(leaves)} arrays more than its description.")
    made = [jnp.asarray(arrays[_name(place)], leaf.dtype) for place, leaf in leaves]
    return eqx.combine(jax.tree.unflatten(shape, made), blank)


def _described(path: Path, arrays: dict[str, np.ndarray]) -> AstroSNN:
    """A model of the sizes in a file's metadata, which its first arrays must have: nothing is allocated on a word alone."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        raw = (file.metadata() or {}).get(NOTE)
    try:
        note = json.loads(raw or "")
        vocab, width, layers, heads = (int(note[name]) for name in ("vocab", "width", "layers", "heads"))
        modes: dict[str, Any] = {name: bool(note[name]) for name in ("soft", "learn_tau")}
        found = (arrays["embedding"].shape, arrays["blocks.unit.transmitter"].shape)
        if found != ((vocab, width), (layers, width, width)):
            raise DataError(f"{path}: its arrays are not of the sizes that it describes.")
        return AstroSNN(vocab, width, layers, heads, **modes, key=jax.random.key(0))
    except (ValueError, TypeError, KeyError, InputError) as error:
        said = f"{error}" if isinstance(error, DataError) else f"{path} describes no AstroSNN in its metadata."
        raise DataError(said) from None


def _name(place: tuple) -> str:
    return jax.tree_util.keystr(place, simple=True, separator=".")
