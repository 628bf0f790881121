"""A gated recurrent network that says the next symbol from those before: the usual generative model of symbol sequences."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.learn.training import fit
from broadsheet.networks.recurrent import Recurrent
from broadsheet.numerics.markov_chains import KeptSequences, TeacherBatches


class SymbolGRU(eqx.Module):
    """p(symbol | symbols before), by maximum likelihood; the first symbol's from an input of zeros."""

    net: Recurrent

    def __init__(self, units: int, symbols: int, *, key: PRNGKeyArray) -> None:
        self.net = Recurrent(symbols, units, symbols, kind="gru", key=key)

    def log_likelihood(self, sequence: Int[Array, " length"]) -> Float[Array, ""]:
        """log p(sequence), nats."""
        symbols = self.net.head.weight.shape[0]
        before = jnp.concatenate([jnp.zeros((1, symbols)), jax.nn.one_hot(sequence[:-1], symbols)])
        _, logits = jax.lax.scan(lambda state, x: self.net.step(state, x), self.net.init(jax.random.key(0)), before)
        return jnp.take_along_axis(jax.nn.log_softmax(logits), sequence[:, None], axis=1).sum()

    @eqx.filter_jit
    def sample(self, key: PRNGKeyArray, sequences: int, length: int) -> Int[Array, "sequences length"]:
        """Sequences, each symbol drawn from what those before say."""
        symbols = self.net.head.weight.shape[0]

        def step(carry: tuple[Array, Array], key: PRNGKeyArray) -> tuple[tuple[Array, Array], Array]:
            state, before = carry
            state, logits = jax.vmap(self.net.step)(state, before)
            drawn = jax.random.categorical(key, logits)
            return (state, jax.nn.one_hot(drawn, symbols)), drawn

        first = jnp.zeros((sequences, self.net.cell.hidden_size)), jnp.zeros((sequences, symbols))
        return jax.lax.scan(step, first, jax.random.split(key, length))[1].T


class NextSymbol(eqx.Module):
    """Cross-entropy of a batch of sequences, nats a symbol."""

    def __call__(self, model: SymbolGRU, batch: Int[Array, "sequences length"], key: PRNGKeyArray) -> Float[Array, ""]:
        return -jax.vmap(model.log_likelihood)(batch).mean() / batch.shape[1]


_ADAM = optax.adam(1e-2)


def fit_symbols(
    data: TeacherBatches | KeptSequences, *, units: int = 16, steps: int = 300, key: PRNGKeyArray
) -> tuple[SymbolGRU, Float[np.ndarray, " steps"]]:
    """A network fitted to batches of sequences, and its loss at each step (nats a symbol)."""
    model_key, fit_key = jax.random.split(key)
    model = SymbolGRU(units, data.symbols, key=model_key)
    found = fit(model, NextSymbol(), data, optimiser=_ADAM, steps=steps, key=fit_key)
    return found.model, found.losses
