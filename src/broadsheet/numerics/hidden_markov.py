"""Hidden Markov chains with any emissions, in log space: filtering, smoothing, the likeliest path.

All functions take one sequence and go through `jax.vmap`, `jit` and, the path aside, `grad`. What they need of the emissions
is their log-likelihood in each state; where a bin is missing it is 0 in all states, so that the chain moves on and nothing is
learned. Sequences of unequal length are padded with missing bins: `length` keeps the padding out of what is expected.
Rabiner, Proc. IEEE 77, 257 (1989).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jaxtyping import Array, Bool, Float, Int


class Filtered(NamedTuple):
    """- `log_states`: log p(z_t | x_1..x_t).
    - `log_norms`: log p(x_t | x_1..x_{t-1}); their sum is the log-likelihood.
    """

    log_states: Float[Array, "bins states"]
    log_norms: Float[Array, " bins"]


class Smoothed(NamedTuple):
    """- `states`: p(z_t | all x), 0 in padding.
    - `transitions`: expected number of steps from a state (row) to a state (column).
    - `log_likelihood`: log p(x).
    """

    states: Float[Array, "bins states"]
    transitions: Float[Array, "states states"]
    log_likelihood: Float[Array, ""]


def observed(log_emissions: Float[Array, "bins states"], seen: Bool[Array, " bins"]) -> Float[Array, "bins states"]:
    """Log-emissions with those of missing bins at 0, whatever stands there (NaN too)."""
    return jnp.where(seen[:, None], log_emissions, 0.0)


def filtered(
    log_initial: Float[Array, " states"],
    log_transitions: Float[Array, "*steps states states"],
    log_emissions: Float[Array, "bins states"],
) -> Filtered:
    """The forward pass.

    **Arguments:** `log_transitions`: from row to column, one matrix or one for each step (bins - 1 of them).
    """

    def step(predicted: Array, given: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        emission, transition = given
        joint = predicted + emission
        norm = logsumexp(joint)
        here = joint - norm
        return logsumexp(here[:, None] + transition, axis=0), (here, norm)

    if log_transitions.ndim == 2:
        _, found = jax.lax.scan(lambda carry, e: step(carry, (e, log_transitions)), log_initial, log_emissions)
    else:
        last = jnp.zeros((1, *log_transitions.shape[1:]), log_transitions.dtype)  # what is predicted past the end is not used
        _, found = jax.lax.scan(step, log_initial, (log_emissions, jnp.concatenate([log_transitions, last])))
    return Filtered(*found)


def smoothed(
    log_initial: Float[Array, " states"],
    log_transitions: Float[Array, "*steps states states"],
    log_emissions: Float[Array, "bins states"],
    length: Int[Array, ""] | int | None = None,
) -> Smoothed:
    """Forward and backward pass; memory grows with bins x states, transitions are summed on the way.

    **Arguments:** as of `filtered`; `length`: bins before the padding.
    """
    bins = log_emissions.shape[0]
    real = jnp.arange(bins) < (bins if length is None else length)
    forward = filtered(log_initial, log_transitions, log_emissions)
    each_step = log_transitions.ndim == 3

    def step(carry: tuple[Array, Array], given: tuple) -> tuple[tuple[Array, Array], Array]:
        backward, counts = carry  # of the bin after
        here, after, norm, counted, transition = given
        ahead = (log_transitions if transition is None else transition) + (after + backward - norm)
        pairs = here[:, None] + ahead
        counts = counts + jnp.where(counted, jnp.exp(pairs), 0.0)
        return (logsumexp(ahead, axis=1), counts), logsumexp(pairs, axis=1)

    given = (
        forward.log_states[:-1], log_emissions[1:], forward.log_norms[1:], real[1:], log_transitions if each_step else None,
    )  # fmt: skip
    start = (jnp.zeros_like(log_emissions[0]), jnp.zeros(log_transitions.shape[-2:], log_emissions.dtype))
    (_, counts), before = jax.lax.scan(step, start, given, reverse=True)
    states = jnp.exp(jnp.concatenate([before, forward.log_states[-1:]]))
    return Smoothed(jnp.where(real[:, None], states, 0.0), counts, forward.log_norms.sum())


def likeliest_path(
    log_initial: Float[Array, " states"],
    log_transitions: Float[Array, "*steps states states"],
    log_emissions: Float[Array, "bins states"],
) -> tuple[Int[Array, " bins"], Float[Array, ""]]:
    """Viterbi's path and the log of its joint probability with the observations; arguments as of `filtered`."""
    each_step = log_transitions.ndim == 3

    def step(best: Array, given: tuple) -> tuple[Array, Array]:
        emission, transition = given
        through = best[:, None] + (log_transitions if transition is None else transition)
        return through.max(axis=0) + emission, through.argmax(axis=0)

    best, came_from = jax.lax.scan(
        step, log_initial + log_emissions[0], (log_emissions[1:], log_transitions if each_step else None)
    )
    last = best.argmax()
    _, path = jax.lax.scan(lambda state, origin: (origin[state], origin[state]), last, came_from, reverse=True)
    return jnp.append(path, last), best[last]
