"""Posteriors over a potential's weights: stochastic-gradient Langevin chains, deep ensembles, and what their spread is worth.

After arXiv 2212.07959 and its authors' code (jax-sgmc and chemtrain, Apache-2.0). The step size is of the drift: a step is
`eps * gradient` and noise `sqrt(2 eps)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from broadsheet.errors import InputError


class Sample(NamedTuple):
    """A point of the posterior: the model's weights, and the logarithm of the noise's scale in units of `force_scale`."""

    weights: PyTree
    log_noise: Float[Array, ""]


class ForceMatchingPosterior(eqx.Module):
    """Independent normal errors of one unknown size on each force component, normal weights, exponential noise.

    **Arguments:** `forces`: (weights, inputs) to predicted forces, any shape; `prior_scale`: deviation of each weight;
    `force_scale`: mean of the noise's prior, in the forces' units. The noise is sampled as its logarithm, with the Jacobian,
    and cannot change sign.
    """

    forces: Callable[[PyTree, PyTree], Array] = eqx.field(static=True)
    prior_scale: float = eqx.field(static=True)
    force_scale: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not self.prior_scale > 0 or not self.force_scale > 0:
            raise InputError("ForceMatchingPosterior: prior_scale and force_scale must be above 0.")

    def log_prior(self, sample: Sample) -> Float[Array, ""]:
        squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(sample.weights))
        return -squares / (2 * self.prior_scale**2) - jnp.exp(sample.log_noise) + sample.log_noise

    def log_likelihood(self, sample: Sample, inputs: PyTree, targets: Array, mask: Array | None = None) -> Float[Array, ""]:
        """Of a batch; `mask` says which components count."""
        scale = jnp.exp(sample.log_noise) * self.force_scale
        errors = (self.forces(sample.weights, inputs) - targets) / scale
        each = -(errors**2) / 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)
        return jnp.sum(each if mask is None else jnp.where(mask, each, 0))

    def log_density(self, sample: Sample, batch: tuple, total: float | Array) -> Float[Array, ""]:
        """Log posterior up to a constant, estimated from a batch (inputs, targets[, mask]); `total`: frames of the whole set
        over those of the batch, by which its likelihood counts.
        """
        return self.log_prior(sample) + total * self.log_likelihood(sample, *batch)


class LangevinState(NamedTuple):
    """Steps made, the key, and the running mean of squared gradients."""

    made: Array
    key: PRNGKeyArray
    square: PyTree


def psgld(
    step: float | Array | Callable[[Array], Array],
    key: PRNGKeyArray,
    *,
    alpha: float = 0.9,
    floor: float = 1e-5,
    temperature: float | Array = 1.0,
    freeze_after: int | None,
    preconditioned: bool = True,
) -> optax.GradientTransformation:
    """Langevin steps on a potential Phi = -log posterior, whose gradient is given: -eps G g + sqrt(2 eps T G) noise.

    `G = 1 / (floor + sqrt(V))`, V the running mean of squared gradients. While V follows the gradient the chain samples another
    law, about |Phi'| exp(-Phi) for slow steps (twice the variance of a normal law): the authors leave the term that would
    mend it out. `freeze_after` steps V stays as it is, which is exact for small steps; None never freezes, as theirs.

    **Arguments:** `step`: eps, or a schedule; `temperature`: 1 is Bayes, below 1 is a cold posterior; `preconditioned`:
    without, plain SGLD.
    """

    def init(weights: PyTree) -> LangevinState:
        return LangevinState(jnp.zeros((), jnp.int32), key, jax.tree.map(jnp.ones_like, weights))

    def update(gradient: PyTree, state: LangevinState, weights: PyTree | None = None) -> tuple[PyTree, LangevinState]:
        live = jnp.asarray(True) if freeze_after is None else state.made < freeze_after
        square = jax.tree.map(lambda v, g: jnp.where(live, alpha * v + (1 - alpha) * g**2, v), state.square, gradient)
        eps = step(state.made) if callable(step) else step
        flat, unravel = ravel_pytree(gradient)  # one draw for all weights: many small ones cost more than the rest of a step
        noise = unravel(jax.random.normal(jax.random.fold_in(state.key, state.made), flat.shape, flat.dtype))

        def move(g: Array, v: Array, z: Array) -> Array:
            G = 1 / (floor + jnp.sqrt(v)) if preconditioned else 1.0
            return -eps * G * g + jnp.sqrt(2 * eps * temperature * G) * z

        return jax.tree.map(move, gradient, square, noise), LangevinState(state.made + 1, state.key, square)

    return optax.GradientTransformation(init, update)


def step_schedule(first: float, last: float, steps: int, gamma: float = 0.33) -> Callable[[Array], Array]:
    """eps_t = a (b + t)^-gamma, from `first` to `last` in so many steps."""
    if not 0 < last <= first or steps < 1:
        raise InputError(f"step_schedule: from {first} to {last} in {steps} steps; 0 < last <= first is wanted.")
    ratio = (first / last) ** (1 / gamma)
    if ratio - 1 < 1e-9:
        return lambda t: jnp.asarray(first)
    b = steps / (ratio - 1)
    return lambda t: first * ((b + t) / b) ** -gamma


def sample_chains(
    log_density: Callable[[Any, Any, PRNGKeyArray], Array],
    starts: Any,
    data: Any,
    *,
    steps: int,
    keep: int,
    key: PRNGKeyArray,
    burn_in: int = 0,
    step: float | Array | Callable[[Array], Array] = 1e-3,
    temperature: float = 1.0,
    alpha: float = 0.9,
    floor: float = 1e-5,
    freeze: bool = True,
    preconditioned: bool = True,
) -> Any:
    """Chains from different starts at once: samples stacked as (chains, keep, ...), evenly spaced after the burn-in.

    **Arguments:** `log_density`: (sample, data, key) to a scalar, which draws its minibatch with the key (equal ones, at any
    temperature, share what is compiled); `starts`: samples stacked along a first axis; `freeze`: the preconditioner stays after
    the burn-in (see `psgld`).

    **Raises:** `InputError` where a chain has left the finite numbers, naming it.
    """
    if steps < 1 or not 1 <= keep <= steps - burn_in or burn_in < 0:
        raise InputError(f"sample_chains: {keep} samples of {steps} steps with a burn-in of {burn_in} cannot be kept.")
    chains = jax.tree.leaves(starts)[0].shape[0]
    found = _sampled(
        log_density, starts, data, jax.random.split(key, chains), steps, keep, burn_in, step, jnp.asarray(temperature, float),
        alpha, floor, freeze, preconditioned,
    )  # fmt: skip
    for leaf in jax.tree.leaves(found):
        bad = np.flatnonzero(~np.isfinite(np.asarray(leaf)).reshape(chains, -1).all(axis=1))
        if len(bad):
            raise InputError(f"Chain {bad[0]} has left the finite numbers; lower the step size.")
    return found


@eqx.filter_jit
def _sampled(
    log_density: Callable, starts: Any, data: Any, keys: Array, steps: int, keep: int, burn_in: int, step: Any,
    temperature: Array, alpha: float, floor: float, freeze: bool, preconditioned: bool,
) -> Any:  # fmt: skip
    thin = (steps - burn_in) // keep

    def chain(start: Any, key: PRNGKeyArray) -> Any:
        noise_key, data_key = jax.random.split(key)
        rule = psgld(step, noise_key, alpha=alpha, floor=floor, temperature=temperature,
                     freeze_after=burn_in if freeze else None, preconditioned=preconditioned)  # fmt: skip

        def move(n: Array, carry: tuple) -> tuple:
            sample, state = carry
            batch_key = jax.random.fold_in(data_key, state.made)
            gradient = jax.grad(lambda s: -log_density(s, data, batch_key))(sample)
            updates, state = rule.update(gradient, state, sample)
            return optax.apply_updates(sample, updates), state

        carry = jax.lax.fori_loop(0, burn_in + (steps - burn_in) % keep, move, (start, rule.init(start)))

        def kept(carry: tuple, _: None) -> tuple[tuple, Any]:
            carry = jax.lax.fori_loop(0, thin, move, carry)
            return carry, carry[0]

        return jax.lax.scan(kept, carry, None, length=keep)[1]

    return jax.vmap(chain)(starts, keys)


class Propagated(NamedTuple):
    """Mean, deviation, and 2.5 % and 97.5 % quantiles of an observable over members, and which members failed."""

    mean: np.ndarray
    deviation: np.ndarray
    low: np.ndarray
    high: np.ndarray
    failed: list[int]


def propagate(members: Sequence[Any], observable: Callable[[Any], np.ndarray]) -> Propagated:
    """The observable of each member (an average over dynamics, say), and its spread. Members that fail are named, not dropped
    silently.

    **Raises:** `InputError` where fewer than two members are left.
    """
    values, failed = [], []
    for k, member in enumerate(members):
        try:
            value = np.asarray(observable(member), float)
        except InputError:
            failed.append(k)
            continue
        if np.isfinite(value).all():
            values.append(value)
        else:
            failed.append(k)
    if len(values) < 2:
        raise InputError(f"{len(failed)} of {len(members)} members failed; two at least are wanted for a spread.")
    return summarised(np.stack(values), failed)


def summarised(values: Float[np.ndarray, "members ..."], failed: Sequence[int] = ()) -> Propagated:
    """The same of values at hand."""
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    return Propagated(values.mean(axis=0), values.std(axis=0, ddof=1), low, high, list(failed))


def coverage(mean: np.ndarray, deviation: np.ndarray, truth: np.ndarray, width: float = 1.96) -> float:
    """Share of the truth inside mean plus and minus `width` deviations."""
    return float(np.mean(np.abs(np.asarray(truth) - mean) <= width * np.asarray(deviation)))


def calibration_factor(predictions: Float[np.ndarray, "members k"], targets: Float[np.ndarray, " k"]) -> float:
    """Factor by which deviations must be multiplied to fit the errors: alpha^2 = -1/M + (M-3)/(M-1) mean((mean - y)^2 / v).

    **Source:** the authors' code (chemtrain); v is the unbiased variance over M members. 0 where alpha^2 would be negative.

    **Raises:** `InputError` for fewer than four members.
    """
    members = len(predictions)
    if members < 4:
        raise InputError(f"calibration_factor: {members} members; four at least are wanted.")
    variance = predictions.var(axis=0, ddof=1)
    square = np.mean((predictions.mean(axis=0) - targets) ** 2 / variance)
    return float(np.sqrt(max(0.0, -1 / members + (members - 3) / (members - 1) * square)))


class MinibatchDensity(eqx.Module):
    """A density for `sample_chains`: frames of (inputs, targets) drawn with the key, `batch` a step; all of them for None."""

    posterior: ForceMatchingPosterior
    batch: int | None = eqx.field(static=True)

    def __call__(self, sample: Sample, data: tuple[PyTree, Array], key: PRNGKeyArray) -> Array:
        (inputs, targets), batch = data, self.batch
        frames = targets.shape[0]
        if batch is None:
            return self.posterior.log_density(sample, (inputs, targets), 1.0)
        chosen = jax.random.choice(key, frames, (batch,), replace=False) if batch > frames // 4 else jax.random.randint(
            key, (batch,), 0, frames)  # fmt: skip
        picked = jax.tree.map(lambda leaf: leaf[chosen], inputs)
        return self.posterior.log_density(sample, (picked, targets[chosen]), frames / batch)


class DeepEnsemble(NamedTuple):
    """Members trained from different starts on the squared error of forces, and the size of what is left (the noise)."""

    weights: Any
    noise: np.ndarray

    @staticmethod
    def fit(
        forces: Callable[[PyTree, PyTree], Array], starts: Any, data: tuple[PyTree, Array], *, steps: int, key: PRNGKeyArray,
        batch: int | None = None, learning_rate: float = 1e-3,
    ) -> DeepEnsemble:  # fmt: skip
        """All members at once, by Adam with a rate that falls to a hundredth; `starts` is stacked along a first axis."""
        members = jax.tree.leaves(starts)[0].shape[0]
        weights, noise = _trained(forces, starts, data, jax.random.split(key, members), steps, batch, learning_rate)
        return DeepEnsemble(weights, np.asarray(noise))


@eqx.filter_jit
def _trained(
    forces: Callable[[PyTree, PyTree], Array], starts: PyTree, data: tuple[PyTree, Array], keys: Array, steps: int,
    batch: int | None, learning_rate: float,
) -> tuple[PyTree, Array]:  # fmt: skip
    inputs, targets = data
    rule = optax.adam(optax.exponential_decay(learning_rate, steps, 0.01))

    def loss(weights: PyTree, key: PRNGKeyArray) -> Array:
        if batch is None:
            return jnp.mean((forces(weights, inputs) - targets) ** 2)
        chosen = jax.random.randint(key, (batch,), 0, targets.shape[0])
        return jnp.mean((forces(weights, jax.tree.map(lambda leaf: leaf[chosen], inputs)) - targets[chosen]) ** 2)

    def member(start: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Array]:
        def move(n: Array, carry: tuple) -> tuple:
            weights, state = carry
            gradient = jax.grad(loss)(weights, jax.random.fold_in(key, n))
            updates, state = rule.update(gradient, state, weights)
            return optax.apply_updates(weights, updates), state

        weights, _ = jax.lax.fori_loop(0, steps, move, (start, rule.init(start)))
        return weights, jnp.sqrt(_mean_square(forces, weights, data, batch))

    return jax.vmap(member)(starts, keys)


def _mean_square(forces: Callable, weights: PyTree, data: tuple[PyTree, Array], batch: int | None) -> Array:
    """Of all errors, a batch at a time, so that memory does not grow with the frames."""
    inputs, targets = data
    if batch is None:
        return jnp.mean((forces(weights, inputs) - targets) ** 2)
    frames = targets.shape[0]

    def part(at: Array) -> Array:
        chosen = jnp.minimum(at + jnp.arange(batch), frames - 1)
        square = (forces(weights, jax.tree.map(lambda leaf: leaf[chosen], inputs)) - targets[chosen]) ** 2
        inside = (at + jnp.arange(batch) < frames).reshape(-1, *[1] * (targets.ndim - 1))
        return jnp.sum(jnp.where(inside, square, 0)) / targets.size

    return jnp.sum(jax.lax.map(part, jnp.arange(0, frames, batch)))
