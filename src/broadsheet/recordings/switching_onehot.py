"""Couplings that are a type times a strength, with one prior of the types for all states: the M-step of the one-hot model.

In state s a coupling is `(a_exc - a_inh) softplus(rho)`: `a` is a nearly one-hot vector over inhibitory, none and excitatory.
Its prior has class probabilities `pi` that all states share. arXiv 2310.15263.

Spikes are looked at twice in an M-step: the expected log-likelihood is expanded to second order around the couplings that
there are, gradient steps go over that parabola, and where they end it is computed and compared. A step costs next to nothing
then, and can average the noise of the types over some draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.nn import log_softmax, softplus
from jaxtyping import Array, PRNGKeyArray

from broadsheet.recordings.concrete import FLOOR, concrete_log_density, concrete_sample
from broadsheet.recordings.switching_em import Blocks, Link, decoded, drives, expected_value, moments, score

Prior = Literal["categorical", "concrete"]
DRAWS = 2
"""Noisy types that a gradient step averages over."""
WHOLE = 100
"""Up to so many neurons the second order of each is computed whole; more share second moments."""
HALVINGS = 5


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
    """Derivative of the expected log-likelihood with respect to W, in blocks of single precision."""
    single, filter_ = W.astype(jnp.float32), data.filter_.astype(jnp.float32)

    def one(total: Array, given: tuple[Array, Array]) -> tuple[Array, None]:
        block, gamma = given
        x, seen, design = decoded(block, filter_)
        slope = gamma.astype(jnp.float32)[:, None] * score(x, drives(design, single), link)[0]
        slope = jnp.where(seen, slope, 0.0).reshape(-1, design.shape[1])
        return total + (slope @ design.T).reshape(W.shape), None

    return jax.lax.scan(one, jnp.zeros_like(W), (data.counts, states))[0]


class _Parabola(NamedTuple):
    """The expected log-likelihood of each target around couplings: value (neurons,), gradient as of W, and `curved`, the
    information times vectors like W; `diagonal`: of the information, shaped like W."""

    around: Array
    value: Array
    gradient: Array
    curved: Callable[[Array], Array]
    diagonal: Array

    def slopes(self, W: Array) -> Array:
        """Derivatives with respect to draws of W (draws, …), of the mean over all combinations of each coupling's draws."""
        mean = W.mean(axis=0)
        return (self.gradient - self.curved(mean - self.around) - self.diagonal * (W - mean)) / len(W)

    def holds(self, W: Array, value: Array) -> Array:
        """Whether a value of each target (neurons,) at W is above a parabola of three times the curvature."""
        away = W - self.around
        lowest = away * (self.gradient - 1.5 * self.curved(away))
        return value >= self.value + lowest.sum(axis=(0, 2)) - 1e-9 * jnp.abs(self.value)


def _parabola(data: Blocks, states: Array, W: Array, link: Link) -> _Parabola:
    found = moments(data, states, W, link, W.shape[1] <= WHOLE)
    A = found.information
    if found.scale is None:
        return _Parabola(
            W, found.value, found.gradient, lambda v: jnp.einsum("snij,snj->sni", A, v), jnp.diagonal(A, axis1=2, axis2=3)
        )
    scale = found.scale[..., None]
    diagonal = scale * jnp.diagonal(A, axis1=1, axis2=2)[:, None]
    return _Parabola(W, found.value, found.gradient, lambda v: scale * jnp.einsum("sij,snj->sni", A, v), diagonal)


def onehot_maximisation(
    data: Blocks, states: Array, found: OneHot, rule: optax.GradientTransformation, memory: Any, link: Link, prior: Prior, tau:
    float | Array, noise: Array | None, key: PRNGKeyArray, steps: int,
) -> tuple[OneHot, Any, Array]:  # fmt: skip
    """`steps` steps of a gradient rule on the expected log-likelihood of noisy types plus the prior of those without noise; and
    the `emissions` of what they lead to.

    A target whose likelihood without noise falls further than the expansion can account for goes half as far, until it doesn't.

    **Arguments:** `noise`: temperature of the noisy types, if any.
    """
    parabola = _parabola(data, states, found.effective(), link)

    def gradient(here: OneHot, k: Array) -> OneHot:
        def couplings(each: OneHot) -> Array:
            if noise is None:
                return each.effective()[None]
            drawn = concrete_sample(jnp.broadcast_to(each.alpha, (DRAWS, *each.alpha.shape)), noise, k)
            return jax.vmap(each.couplings)(drawn)

        W, back = jax.vjp(couplings, here)
        also = jax.grad(lambda each: each.log_prior(prior, tau))(here)
        return jax.tree.map(jnp.add, back(parabola.slopes(W))[0], also)

    start = found
    end, memory = _climbed(start, rule, memory, gradient, key, steps)

    def shortened(share: Array) -> OneHot:
        return jax.tree.map(lambda a, b: a + share.reshape(-1, *[1] * (a.ndim - 2)) * (b - a), start, end)

    def evaluated(carry: tuple) -> tuple:
        share, holds, _, tries = carry
        share = jnp.where(holds | (tries == 0), share, share / 2)
        W = shortened(share).effective()
        value, known = expected_value(data, states, W, link)
        return share, parabola.holds(W, value), known, tries + 1

    whole = jnp.ones(len(parabola.value))
    first = evaluated((whole, whole > 0, None, 0))
    share, _, known, _ = jax.lax.while_loop(lambda c: ~c[1].all() & (c[3] <= HALVINGS), evaluated, first)
    return shortened(share), memory, known


def hard_maximisation(
    data: Blocks, states: Array, found: OneHot, rule: optax.GradientTransformation, link: Link, steps: int
) -> OneHot:
    """`steps` steps of a gradient rule on the expected log-likelihood, of strengths and biases, with the types at their
    likeliest."""
    log_a = jnp.log(jax.nn.one_hot(found.alpha.argmax(axis=-1), 3))

    def gradient(here: OneHot, _: Array) -> OneHot:
        W, back = jax.vjp(lambda each: each.couplings(log_a), here)
        return back(_gradient(data, states, W, link))[0]

    return _climbed(found, rule, rule.init(found), gradient, jax.random.key(0), steps)[0]


def _climbed(
    start: OneHot, rule: optax.GradientTransformation, memory: Any, gradient: Callable[[OneHot, Array], OneHot],
    key: PRNGKeyArray, steps: int,
) -> tuple[OneHot, Any]:  # fmt: skip
    def step(carry: tuple, k: Array) -> tuple[tuple, None]:
        found, memory = carry
        updates, memory = rule.update(jax.tree.map(jnp.negative, gradient(found, k)), memory, found)
        found = optax.apply_updates(found, updates)
        return (found._replace(alpha=_milder(found.alpha), theta=_milder(found.theta)), memory), None

    return jax.lax.scan(step, (start, memory), jax.random.split(key, steps))[0]
