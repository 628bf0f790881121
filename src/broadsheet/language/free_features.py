"""Free features under a linear read-out: gradient descent with nothing between contexts and words, after arXiv 2509.23024.

Each context c has features F_c of its own, logits are F W^T, and targets are words drawn by a law: what remains of a language
model when its network is taken away. The law's skew, the width of the features and the loss are settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Loss = Literal["cross-entropy", "squared-error"]


@dataclass(frozen=True)
class FreeFeatures:
    """Sizes of the model; targets are a word's own share and, with `soft`, the law of all words for the rest."""

    skew: float = 1.0  # exponent of Zipf's law; 0: even words
    width: int = 8
    words: int = 64
    contexts: int = 256
    soft: float = 0.5  # weight of the law in each target
    rate: float = 0.5
    steps: int = 800
    scale: float = 0.05  # standard deviation of F and W at the start


class Start(NamedTuple):
    """Features (contexts, width), read-out (words, width) and targets (contexts, words) before the first step."""

    features: Float[Array, "contexts width"]
    read_out: Float[Array, "words width"]
    targets: Float[Array, "contexts words"]


class Descent(NamedTuple):
    """Features before every second step (looks, contexts, width), and the read-out in the end."""

    features: Float[np.ndarray, "looks contexts width"]
    read_out: Float[np.ndarray, "words width"]


def word_law(words: int, skew: float) -> Float[Array, " words"]:
    """Zipf's law with an exponent: p(v) ~ v^-skew."""
    law = jnp.arange(1.0, words + 1) ** -skew
    return law / law.sum()


def start(key: Array, config: FreeFeatures) -> Start:
    """A small random start, and targets whose words are drawn by the law."""
    f_key, w_key, y_key = jax.random.split(key, 3)
    law = word_law(config.words, config.skew)
    labels = jax.nn.one_hot(jax.random.choice(y_key, config.words, (config.contexts,), p=law), config.words)
    return Start(
        config.scale * jax.random.normal(f_key, (config.contexts, config.width)),
        config.scale * jax.random.normal(w_key, (config.words, config.width)),
        (1 - config.soft) * labels + config.soft * law,
    )


def descend(begin: Start, config: FreeFeatures, *, loss: Loss = "cross-entropy", read_out_learns: bool = True) -> Descent:
    """Full-batch gradient descent; the loss is a sum over contexts, divided by 16.

    Both losses have the same slope at small logits but for the mean word: -(target - p) W, with p the softmax or the logits.
    """
    looks, read_out = _descend(begin, config.rate, float(read_out_learns), config.steps // 2 + 1, loss)
    return Descent(np.asarray(looks), np.asarray(read_out))


@partial(jax.jit, static_argnums=(3, 4))
def _descend(begin: Start, rate: float, learns: float, looks: int, loss: Loss) -> tuple[Array, Array]:
    def cost(weights: tuple[Array, Array]) -> Array:
        logits = weights[0] @ weights[1].T
        if loss == "squared-error":
            return 0.5 * jnp.sum((begin.targets - logits) ** 2) / 16
        return -jnp.sum(begin.targets * jax.nn.log_softmax(logits)) / 16

    def step(weights: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        features, read_out = jax.grad(cost)(weights)
        return (weights[0] - rate * features, weights[1] - rate * learns * read_out), None

    def look(weights: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        return jax.lax.scan(step, weights, None, length=2)[0], weights[0]

    (_, read_out), seen = jax.lax.scan(look, (begin.features, begin.read_out), None, length=looks)
    return seen, read_out
