"""The Concrete distribution (relaxed one-hot vectors, Gumbel-softmax), in log space. arXiv 1611.00712, arXiv 1611.01144."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, PRNGKeyArray

FLOOR = -20.0
"""No log of a component goes below it: towards the corners of the simplex the density grows without bound."""


def concrete_log_density(
    log_a: Float[Array, "*#batch classes"], log_pi: Float[Array, "*#batch classes"], tau: float | Array
) -> Float[Array, "*batch"]:
    """Log-density at `a`, with respect to the Lebesgue measure of all components but one.

    **Arguments:** `log_a`: logs of a point of the simplex; `log_pi`: logs of the classes' probabilities (logs, not the
    probabilities: these would be taken for nearly equal classes); `tau`: temperature.
    """
    classes = log_a.shape[-1]
    tau = jnp.asarray(tau)
    norm = gammaln(classes) + (classes - 1) * jnp.log(tau) - classes * logsumexp(log_pi - tau * log_a, axis=-1)
    return norm + (log_pi - (tau + 1) * log_a).sum(axis=-1)


def concrete_sample(
    log_pi: Float[Array, "*batch classes"], tau: float | Array, key: PRNGKeyArray
) -> Float[Array, "*batch classes"]:
    """Logs of relaxed one-hot vectors: Gumbel noise on the logits, divided by the temperature."""
    noise = jax.random.gumbel(key, log_pi.shape, log_pi.dtype)
    return jax.nn.log_softmax((log_pi + noise) / tau, axis=-1)
