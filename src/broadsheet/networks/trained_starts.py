"""One rate network trained from several starts of its recurrent weights at once, on the same batches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from broadsheet.dynamics import trainable
from broadsheet.errors import InputError
from broadsheet.learn import Fit, fit
from broadsheet.networks.cognitive_tasks import CognitiveTask, Trials, decisions_right, step_loss
from broadsheet.networks.rates import RateRNN
from broadsheet.neurons.tasks import Batches


class TrainedStarts(NamedTuple):
    """Networks by the name of their start, before and after training, and what was seen on the way.

    `looks`: steps made at each look; `losses`, `accuracies`: (looks, starts) on the probe trials; `models`: all networks at
    each look, stacked in the order of the names.
    """

    before: dict[str, RateRNN]
    after: dict[str, RateRNN]
    looks: np.ndarray
    losses: np.ndarray
    accuracies: np.ndarray
    models: list[RateRNN]

    def loss(self, name: str) -> np.ndarray:
        """The probe's loss at each look."""
        return self.losses[:, list(self.before).index(name)]

    def at_loss(self, name: str, target: float) -> RateRNN:
        """The network at the first look with a loss of `target` at most; the last one where there is none."""
        reached = np.flatnonzero(self.loss(name) <= target)
        return member(self.models[reached[0] if len(reached) else -1], list(self.before).index(name))


def member(stacked: RateRNN, k: int) -> RateRNN:
    """One of the networks that are stacked along the first axis of each leaf."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[k]), stacked)  # JAX would compile a slice for each k


class _StartsLoss(eqx.Module):
    """The sum of the networks' losses: their gradients do not meet. Recurrent weights of frozen ones learn nothing.

    The loss of one that diverged is left out, so that the others go on.
    """

    frozen: Array

    def __call__(self, nets: RateRNN, batch: Trials, key: PRNGKeyArray) -> Array:
        inputs, labels = batch

        def one(net: RateRNN, frozen: Array) -> Array:
            held = jnp.where(frozen, jax.lax.stop_gradient(net.w_rec), net.w_rec)
            return step_loss(jax.vmap(eqx.tree_at(lambda net: net.w_rec, net, held))(inputs), labels)

        losses = jax.vmap(one)(nets, self.frozen)
        return jnp.where(jnp.isfinite(losses), losses, 0.0).sum()


@functools.lru_cache(maxsize=8)
def _momentum(rate: float) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=0.9)


@eqx.filter_jit
def _scores(nets: RateRNN, probe: Trials) -> tuple[Array, Array]:
    def one(net: RateRNN) -> tuple[Array, Array]:
        logits = jax.vmap(net)(probe[0])
        return step_loss(logits, probe[1]), decisions_right(logits, probe[1])

    return jax.vmap(one)(nets)


def train_starts(
    net: RateRNN,
    starts: Mapping[str, Float[np.ndarray, "units units"] | RateRNN],
    task: CognitiveTask,
    *,
    steps: int,
    batch: int,
    probe: Trials,
    key: PRNGKeyArray,
    rate: float = 0.003,
    frozen: Collection[str] = (),
    looks: int = 30,
    report: Callable[[float], None] | None = None,
) -> TrainedStarts:
    """Trains `net` from each start of its recurrent weights by gradient descent with a momentum of 0.9.

    **Arguments:** `starts`: by name, recurrent weights, or whole networks of one shape; `probe`: trials on which loss and
    accuracy are followed, `looks` times; `frozen`: starts whose recurrent weights do not learn.

    The losses of a start from which training diverges are NaN from then on.

    **Raises:** `InputError` where no start is given, and where a start is of another size.
    """
    if not starts:
        raise InputError("train_starts: no start was given; one or more are wanted.")
    before = {name: start if isinstance(start, RateRNN) else with_recurrent(net, start) for name, start in starts.items()}
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *before.values())
    seen: list[tuple[int, np.ndarray, np.ndarray, PyTree]] = []

    def watch(done: int, found: Fit) -> None:
        losses, right = _scores(found.model, probe)
        seen.append((done, np.asarray(losses), np.asarray(right), jax.tree.map(np.asarray, found.model)))
        if report is not None:
            report(done / steps)

    fit(
        stacked, _StartsLoss(jnp.array([name in frozen for name in starts])), Batches(task, batch), steps=steps, key=key,
        optimiser=_momentum(rate), parameters=trainable(stacked), chunk=-(-steps // looks), watch=watch,
    )  # fmt: skip
    done, losses, right, models = zip(*seen, strict=True)
    after = {name: member(models[-1], k) for k, name in enumerate(starts)}
    return TrainedStarts(before, after, np.array(done), np.stack(losses), np.stack(right), list(models))


def with_recurrent(net: RateRNN, weights: Float[np.ndarray, "units units"]) -> RateRNN:
    """The network with other recurrent weights; raises `InputError` where they are of another size."""
    if np.shape(weights) != net.w_rec.shape:
        raise InputError(f"Recurrent weights of {np.shape(weights)} for {net.units} units; {net.w_rec.shape} are wanted.")
    return eqx.tree_at(lambda net: net.w_rec, net, jnp.asarray(weights, net.w_rec.dtype))
