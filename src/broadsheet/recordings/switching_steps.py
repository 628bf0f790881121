"""One iteration of EM of the switching GLM, compiled whole, and the climb by such iterations, which goes on after an
interruption.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from broadsheet.cache import writing
from broadsheet.errors import DataError
from broadsheet.numerics.hidden_markov import filtered, likeliest_path
from broadsheet.recordings.switching_em import (
    Blocks,
    Link,
    Penalty,
    emissions,
    expectation,
    maximisation,
    most_likely_transitions,
)  # fmt: skip
from broadsheet.recordings.switching_onehot import OneHot, Prior, hard_maximisation, onehot_maximisation

SAVE_EVERY = 10.0
"""Seconds between two savings of a climb that has a checkpoint."""

State = tuple[Array, Array, Penalty, Array, Array]
"""Couplings, transitions, prior, damping of each target's step, emissions of these couplings."""


@eqx.filter_jit
def em_step(
    data: Blocks, state: State, *, link: Link, share_bias: bool, pseudocount: Array, steps: int = 1
) -> tuple[State, Array]:
    """The state after one iteration, and the objective before it: log-likelihood plus log-priors."""
    W, transition, penalty, damping, known = state
    found = expectation(data, W, transition, link, known)
    objective = found.log_likelihood.sum() + pseudocount * jnp.log(transition).sum() + penalty.log_density(W).sum()
    W, penalty, damping, known = maximisation(data, found.states, W, penalty, damping, link, share_bias, steps)
    return (W, most_likely_transitions(found.transitions, pseudocount), penalty, damping, known), objective


OneHotState = tuple[OneHot, Array, Any, Array]
"""Types and strengths with their prior, transitions, memory of Adam, emissions of these couplings."""


@eqx.filter_jit
def onehot_step(
    data: Blocks, state: OneHotState, key: Array, *, link: Link, prior: Prior, tau: Array, noise: Array | None, rate: Array,
    steps: int, pseudocount: Array,
) -> tuple[OneHotState, Array]:  # fmt: skip
    """As `em_step`, with types and strengths."""
    onehot, transition, memory, known = state
    found = expectation(data, onehot.effective(), transition, link, known)
    objective = found.log_likelihood.sum() + pseudocount * jnp.log(transition).sum() + onehot.log_prior(prior, tau)
    onehot, memory, known = onehot_maximisation(
        data, found.states, onehot, optax.adam(rate), memory, link, prior, tau, noise, key, steps
    )  # fmt: skip
    return (onehot, most_likely_transitions(found.transitions, pseudocount), memory, known), objective


fisher_steps = eqx.filter_jit(maximisation)
emissions_of = eqx.filter_jit(emissions)
states_of = eqx.filter_jit(lambda data, W, transition, link: expectation(data, W, transition, link).states)
log_likelihoods = eqx.filter_jit(lambda data, W, transition, link: expectation(data, W, transition, link).log_likelihood)


@eqx.filter_jit
def hard_steps(data: Blocks, states: Array, onehot: OneHot, link: Link, rate: Array, steps: int) -> OneHot:
    """Strengths and biases fitted with the types at their likeliest."""
    return hard_maximisation(data, states, onehot, optax.adam(rate), link, steps)


def _over_sequences(of_one: Callable[[Array, Array, Array], Array]) -> Callable[[Blocks, Array, Array, Link], Array]:
    """Maps log-initial, log-transitions and log-emissions of a sequence over all."""

    @eqx.filter_jit
    def mapped(data: Blocks, W: Array, transition: Array, link: Link) -> Array:
        initial = jnp.full(W.shape[0], -np.log(W.shape[0]))
        return jax.vmap(lambda e: of_one(initial, jnp.log(transition), e))(emissions(data, W, link))

    return mapped


paths = _over_sequences(lambda initial, transition, e: likeliest_path(initial, transition, e)[0])
filtered_probabilities = _over_sequences(lambda initial, transition, e: jnp.exp(filtered(initial, transition, e).log_states))


@eqx.filter_jit
def probabilities(data: Blocks, W: Array, transition: Array, link: Link) -> Array:
    """(sequences, bins, states)."""
    found = jnp.swapaxes(expectation(data, W, transition, link).states, 1, 2)
    out = jnp.zeros((data.lengths.shape[0], data.most, *found.shape[1:]))
    return out.at[data.place[:, 0], data.place[:, 1]].set(found).reshape(len(out), -1, found.shape[-1])


class Climber:
    """Iterates steps until they gain less than `tol`, reports, and saves where there is a folder."""

    def __init__(
        self, report: Callable[[float, float], None] | None, iterations: int, tol: float, folder: str | Path | None
    ) -> None:
        self.report = report
        self.iterations = iterations
        self.tol = tol
        self.folder = None if folder is None else Path(folder)
        self.done = 0

    def climb(
        self, name: str, step: Callable[[Any, int], tuple[Any, Array]], state: Any, most: int, *, stops: bool = True
    ) -> tuple[Any, list[float], bool]:
        """The last state, the objective before each iteration and at the end, and whether it stopped by itself.

        **Arguments:** `step(state, iteration)`: the next state and the objective of the one given; `most`: iterations.
        """
        history: list[float] = []
        file = None if self.folder is None else self.folder / f"{name}.npz"
        if file is not None and file.exists():
            state, history = _load(file, state)
        saved = time.monotonic()

        def flat() -> bool:
            return stops and len(history) > 1 and history[-1] - history[-2] < self.tol

        while len(history) <= most and not flat():
            following, objective = step(state, len(history))
            history.append(float(objective))
            last = len(history) > most or flat()
            state = state if last else following  # the state whose objective stands last in the history
            if self.report is not None:
                self.report(min(1.0, (self.done + len(history)) / (self.iterations + 1)), history[-1])
            if file is not None and (last or time.monotonic() - saved > SAVE_EVERY):
                _save(file, state, history)
                saved = time.monotonic()
        self.done += most
        return state, history, bool(flat())


def _save(file: Path, state: Any, history: list[float]) -> None:
    with writing(file) as stream:
        np.savez(stream, *map(np.asarray, jax.tree.leaves(state)), history=np.array(history))


def _load(file: Path, like: Any) -> tuple[Any, list[float]]:
    """The state that was saved, in the shape of another; raises `DataError` where they differ."""
    leaves, tree = jax.tree.flatten(like)
    with np.load(file, allow_pickle=False) as stored:
        history = list(map(float, stored["history"]))
        found = [stored[f"arr_{k}"] for k in range(len(stored.files) - 1)]
    if [np.shape(each) for each in found] != [np.shape(each) for each in leaves]:
        raise DataError(f"{file} is of another fit; remove it, or name another folder.")
    return jax.tree.unflatten(tree, map(jnp.asarray, found)), history
