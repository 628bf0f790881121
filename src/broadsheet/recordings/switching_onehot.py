"""Couplings that are a type times a strength, with one prior of the types for all states: the M-step of the one-hot model.

In state s a coupling is `(a_exc - a_inh) softplus(rho)`: `a` is a nearly one-hot vector over inhibitory, none and excitatory.
Its prior has class probabilities `pi` that all states share. arXiv 2310.15263.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.nn import log_softmax, softplus
from jaxtyping import Array, PRNGKeyArray

from broadsheet.recordings.concrete import FLOOR, concrete_log_density, concrete_sample
from broadsheet.recordings.switching_em import Blocks, Link, decoded, drives, score

Prior = Literal["categorical", "concrete"]


class OneHot(NamedTuple):
    """- `bias`: (states or 1, neurons); `alpha`: (states, targets, sources, 3) logits of the types; `rho`: (states, targets,
    sources), softplus of it is the strength; `theta`: (states or 1, targets, sources, 3) logits of the prior.
    """

    bias: Array
    alpha: Array
    rho: Array
    theta: Array

    def couplings(self, log_a: Array) -> Array:
        """(states, neurons, 1 + neurons) with the bias first, for given logs of the types."""
        a = jnp.exp(log_a)
        weights = (a[..., 2] - a[..., 0]) * softplus(self.rho)
        bias = jnp.broadcast_to(self.bias, (self.rho.shape[0], self.bias.shape[1]))
        return jnp.concatenate([bias[..., None], weights], axis=-1)

    def effective(self) -> Array:
        """Couplings without noise."""
        return self.couplings(log_softmax(self.alpha))

    def log_prior(self, prior: Prior, tau: float | Array) -> Array:
        """Log-density of the types, summed. Categorical: the cross-entropy with the prior plus the entropy of the types."""
        log_a, log_pi = log_softmax(self.alpha), log_softmax(self.theta)
        if prior == "concrete":
            return concrete_log_density(jnp.maximum(log_a, FLOOR), jnp.broadcast_to(log_pi, log_a.shape), tau).sum()
        return (jnp.exp(log_a) * (log_pi - log_a)).sum()


def onehot_from(W: np.ndarray, share_bias: bool, share_prior: bool) -> OneHot:
    """Types and strengths whose couplings without noise are those of W (states, neurons, 1 + neurons)."""
    weights = np.asarray(W[:, :, 1:])
    strength = np.abs(weights) + 0.3
    m = np.clip(weights / strength, -0.999, 0.999)  # a_exc - a_inh; logits (-q, 0, q) reach it
    q = np.log((m + np.sqrt(m**2 + 4 * (1 - m**2))) / (2 * (1 - m)))
    alpha = np.stack([-q, np.zeros_like(q), q], axis=-1)
    log_a = alpha - np.log(np.exp(alpha).sum(axis=-1, keepdims=True))
    bias = W[:, :, 0].mean(axis=0, keepdims=True) if share_bias else W[:, :, 0]
    theta = np.log(np.exp(log_a).mean(axis=0, keepdims=True)) if share_prior else log_a
    return OneHot(*map(jnp.asarray, (bias, alpha, strength + np.log(-np.expm1(-strength)), theta)))


def _milder(logits: Array) -> Array:
    """Halves logits of which a class is all but impossible, from where no gradient would bring it back."""
    return jnp.where((log_softmax(logits) < FLOOR).any(axis=-1, keepdims=True), logits / 2, logits)


def _gradient(data: Blocks, states: Array, W: Array, link: Link) -> Array:
    """Derivative of the expected log-likelihood with respect to W; in blocks of single precision, which noise outweighs."""
    single, filter_ = W.astype(jnp.float32), data.filter_.astype(jnp.float32)

    def one(total: Array, given: tuple[Array, Array]) -> tuple[Array, None]:
        block, gamma = given
        x, seen, design = decoded(block, filter_)
        slope = gamma.astype(jnp.float32)[:, None] * score(x, drives(design, single), link)[0]
        slope = jnp.where(seen, slope, 0.0).reshape(-1, design.shape[1])
        return total + (slope @ design.T).reshape(W.shape), None

    return jax.lax.scan(one, jnp.zeros_like(W), (data.counts, states))[0]


def onehot_maximisation(
    data: Blocks, states: Array, found: OneHot, rule: optax.GradientTransformation, memory: Any, link: Link, prior: Prior, tau:
    float | Array, noise: Array | None, key: PRNGKeyArray, steps: int, hard: bool = False,
) -> tuple[OneHot, Any]:  # fmt: skip
    """`steps` steps of a gradient rule on the expected log-likelihood of noisy types plus the prior of those without noise.

    **Arguments:** `noise`: temperature of the noisy types, if any; `hard`: the types stay at their likeliest class, and only
    strengths and biases learn.
    """

    def step(carry: tuple, k: Array) -> tuple[tuple, None]:
        found, memory = carry

        def couplings(found: OneHot) -> Array:
            if hard:
                return found.couplings(jnp.log(jax.nn.one_hot(found.alpha.argmax(axis=-1), 3)))
            return found.couplings(concrete_sample(found.alpha, noise, k)) if noise is not None else found.effective()

        W, back = jax.vjp(couplings, found)
        (gradient,) = back(_gradient(data, states, W, link))
        if not hard:
            also = jax.grad(lambda each: each.log_prior(prior, tau))(found)
            gradient = jax.tree.map(jnp.add, gradient, also)
        updates, memory = rule.update(jax.tree.map(jnp.negative, gradient), memory, found)
        found = optax.apply_updates(found, updates)
        return (found._replace(alpha=_milder(found.alpha), theta=_milder(found.theta)), memory), None

    (found, memory), _ = jax.lax.scan(step, (found, memory), jax.random.split(key, steps))
    return found, memory
