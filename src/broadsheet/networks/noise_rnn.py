"""A rate network that noise alone drives, which emits one of some symbols a step, and its training on sequences.

`h <- relu(W_in x + W_rec h)` with fresh x ~ N(0, sigma²), from h = 0; logits `W_out h`; a symbol by the Gumbel trick, in
training as a one-hot vector through which gradients go as through the softmax (straight through). The loss is the Sinkhorn
divergence between whole sequences, flattened one-hot vectors, of the network and of what it is to emulate. Nothing tells the
network which noise should give which sequence. After github.com/EliaTorre/hmmrnn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpy.typing import ArrayLike

from broadsheet.errors import InputError
from broadsheet.learn.training import Fit, fit
from broadsheet.networks.rates import Activation, RateRNN
from broadsheet.numerics.random import generator
from broadsheet.numerics.sinkhorn import half_squared, plan_of, sinkhorn, sinkhorn_divergence


class Emitted(NamedTuple):
    """States, logits and symbols of a rollout."""

    h: Float[Array, "sequences length units"]
    logits: Float[Array, "sequences length symbols"]
    symbols: Int[Array, "sequences length"]


class NoiseRNN(eqx.Module):
    """`net` driven by as many independent standard normals a step as it has inputs.

    **Raises:** `InputError` for fewer than two symbols.

    **Example:**

        >>> import jax
        >>> model = NoiseRNN(8, 2, 3, key=jax.random.key(0))
        >>> model.rollout(jax.random.key(1), sequences=4, length=5).symbols.shape
        (4, 5)
    """

    net: RateRNN

    def __init__(self, units: int, noise: int, symbols: int = 3, *, activation: Activation = "relu", key: PRNGKeyArray) -> None:
        if symbols < 2:
            raise InputError(f"A vocabulary of {symbols}: at least two symbols are wanted, or there is nothing to emit.")
        self.net = RateRNN(noise, units, symbols, activation=activation, key=key)

    @property
    def symbols(self) -> int:
        """How many symbols there are."""
        return self.net.w_out.shape[0]

    def states(
        self,
        key: PRNGKeyArray,
        sequences: int,
        length: int,
        sigma: float | Float[Array, ""] = 1.0,
        h: Float[Array, "sequences units"] | None = None,
    ) -> Float[Array, "sequences length units"]:
        """States after each step, from `h` or 0; `sigma` scales the noise."""
        noise = sigma * jax.random.normal(key, (sequences, length, self.net.w_in.shape[1]))
        if h is None:
            h = jnp.zeros((sequences, self.net.units))
        return jax.vmap(self.net.states)(noise, h)

    def rollout(self, key: PRNGKeyArray, sequences: int, length: int, sigma: float = 1.0, warm_up: int = 0) -> Emitted:
        """As many sequences from h = 0, without their first `warm_up` steps; not within `jit`: noise is drawn by NumPy, which
        spares a compilation of seconds for each size."""
        rng = generator(key)
        noise = sigma * rng.standard_normal((sequences, warm_up + length, self.net.w_in.shape[1]), np.float32)
        h, logits = _driven(self, jnp.asarray(noise))
        h, logits = h[:, warm_up:], logits[:, warm_up:]
        return Emitted(h, logits, jnp.argmax(logits + rng.gumbel(size=logits.shape).astype(np.float32), axis=-1))

    def emit(
        self, key: PRNGKeyArray, sequences: int, length: int, tau: float = 1.0
    ) -> Float[Array, "sequences length symbols"]:
        """One-hot symbols that gradients pass as if they were the softmax of logits and Gumbel noise at temperature `tau`."""
        noise_key, symbol_key = jax.random.split(key)
        logits = self.net.output(self.states(noise_key, sequences, length))
        noisy = logits + jax.random.gumbel(symbol_key, logits.shape)
        soft = jax.nn.softmax(noisy / tau)
        hard = jax.nn.one_hot(noisy.argmax(-1), self.symbols)
        return soft + jax.lax.stop_gradient(hard - soft)


@eqx.filter_jit
def _driven(model: NoiseRNN, noise: Float[Array, "sequences length inputs"]) -> tuple[Array, Array]:
    h = jax.vmap(model.net.states)(noise)
    return h, model.net.output(h)


class SequenceDivergence(eqx.Module):
    """Sinkhorn divergence between a batch of the network's sequences and a batch of others, each flattened."""

    blur: float = 0.2
    scaling: float = 0.5

    def __call__(self, model: NoiseRNN, batch: Int[Array, "sequences length"], key: PRNGKeyArray) -> Float[Array, ""]:
        given = jax.nn.one_hot(batch, model.symbols)
        made = model.emit(key, *batch.shape)
        return self.between(made, given)

    def between(self, x: Float[Array, "n length symbols"], y: Float[Array, "m length symbols"]) -> Float[Array, ""]:
        """Of two batches of one-hot sequences."""
        flat = (each.reshape(len(each), -1) for each in (x, y))
        return sinkhorn_divergence(*flat, blur=self.blur, scaling=self.scaling)


def matched_distance(x: ArrayLike, y: ArrayLike, symbols: int, epsilon: float = 0.1, sweeps: int = 200) -> float:
    """Mean Euclidean distance from each sequence of y to the one of x that transport, at the cost of that distance, moves most
    to it; sequences as flattened one-hot vectors."""
    flat = [jax.nn.one_hot(each, symbols).reshape(len(each), -1) for each in (jnp.asarray(x), jnp.asarray(y))]
    return float(_matched(*flat, epsilon, sweeps))


@functools.partial(jax.jit, static_argnames=("epsilon", "sweeps"))
def _matched(x: Array, y: Array, epsilon: float, sweeps: int) -> Array:
    costs = jnp.sqrt(2 * half_squared(x, y))
    found = sinkhorn(costs, epsilon=epsilon, sweeps=sweeps, tolerance=1e-3)
    best = plan_of(costs, found, epsilon=epsilon).argmax(axis=0)
    return jnp.take_along_axis(costs, best[None], axis=0).mean()


def fit_sequences(
    model: NoiseRNN,
    data: Callable[[PRNGKeyArray], Array],
    *,
    steps: int,
    key: PRNGKeyArray,
    rate: float = 1e-3,
    clip: float = 0.9,
    recurrent: float = 1.0,
    loss: SequenceDivergence | None = None,
    validate: Int[Array, "sequences length"] | None = None,
    watch: Callable[[int, NoiseRNN], None] | None = None,
    **options: Any,
) -> Fit:
    """Trains the network to emit sequences like those of `data(key)`: Adam with both decays 0.9, the gradient's norm clipped.

    **Arguments:**

    - `recurrent`: steps of the recurrent weights are multiplied by it; 0 leaves them as they are.
    - `validate`: held-out sequences; the model with the smallest loss on them comes back, tried after each chunk of steps.
    - `watch`: called with (steps made, the model then); further options as of `broadsheet.learn.fit`.
    """
    loss = SequenceDivergence() if loss is None else loss
    lowest, best, held_key = np.inf, None, jax.random.fold_in(key, 2**31 - 2)
    held = None if validate is None else jax.nn.one_hot(validate, model.symbols)

    def after(done: int, found: Fit) -> None:
        nonlocal lowest, best
        if held is not None:
            made = jax.nn.one_hot(found.model.rollout(held_key, *held.shape[:2]).symbols, model.symbols)
            if (value := float(loss.between(made, held))) < lowest:
                lowest, best = value, found.model
        if watch is not None:
            watch(done, found.model)

    fitted = fit(
        model,
        loss,
        data,
        optimiser=_adam(rate=rate, clip=clip, recurrent=recurrent),
        steps=steps,
        key=key,
        watch=after,
        **options,
    )
    return fitted if best is None else fitted._replace(model=best)


@functools.lru_cache(maxsize=1)
def _clipped_adam() -> optax.GradientTransformation:
    """With its numbers among its state, so that all trainings of one shape are one program."""

    def made(rate: Array, clip: Array, recurrent: Array) -> optax.GradientTransformation:
        def slowed(updates: NoiseRNN, _: Any) -> NoiseRNN:
            return eqx.tree_at(lambda model: model.net.w_rec, updates, recurrent * updates.net.w_rec)

        adam = optax.adam(rate, b1=0.9, b2=0.9)
        return optax.chain(optax.clip_by_global_norm(clip), adam, optax.stateless(slowed))

    return optax.inject_hyperparams(made)(rate=1.0, clip=1.0, recurrent=1.0)


def _adam(**numbers: float) -> optax.GradientTransformation:
    """`rate`, `clip`, and `recurrent`, by which steps of the recurrent weights are multiplied."""
    whole = _clipped_adam()

    def init(weights: NoiseRNN) -> Any:
        return whole.init(weights)._replace(hyperparams={name: jnp.asarray(each, float) for name, each in numbers.items()})

    return optax.GradientTransformation(init, whole.update)
