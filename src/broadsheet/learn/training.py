"""The one training loop: any model, any Optax optimiser, resumable to the bit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from broadsheet.cache import writing
from broadsheet.errors import DataError, InputError

if TYPE_CHECKING:
    from broadsheet.learn.pruning import Sparsifier, Split


class Fit(NamedTuple):
    """What `fit` returns: the trained model, the optimiser's state, and the loss of every step made in this call."""

    model: PyTree
    opt_state: PyTree
    losses: np.ndarray


def fit(
    model: PyTree,
    loss: Callable[[PyTree, PyTree, PRNGKeyArray], jax.Array],
    data: Callable[[PRNGKeyArray], PyTree] | Iterable[PyTree],
    *,
    optimiser: optax.GradientTransformation,
    steps: int,
    key: PRNGKeyArray,
    parameters: PyTree | None = None,
    sparsifier: Sparsifier | None = None,
    project: Callable[[PyTree], PyTree] | None = None,
    chunk: int = 50,
    report: Callable[[int, float], None] | None = None,
    watch: Callable[[int, Fit], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Fit:
    """Minimises `loss(model, batch, key)` for `steps` steps.

    Where `data` is a function it is traced, and `chunk` steps run as one compiled scan (make it an Equinox module where
    it holds much data: arrays in a closure are compiled in); where it is an iterable, its batches are drawn one a step. All
    randomness of step t comes from `fold_in(key, t)`, so that a run resumed from its checkpoint ends in the same weights as
    one that was never stopped.

    A loss that is an Equinox module is compiled once for all calls with the same optimiser object and losses that differ from
    it in arrays only: an ensemble, or one training for each weight of a term. Any other callable is compiled in each call.

    **Arguments:**

    - `parameters`: a tree of booleans, which leaves to train (`broadsheet.dynamics.trainable(model)`); by default all
      inexact arrays.
    - `sparsifier`: keeps the weights sparse (`GraNet(0.9, steps=steps, …)`); `sparsity(opt_state)` says how sparse they are.
    - `project`: applied to the model after each step, for constraints (a sign).
    - `report`: called with (steps made, mean loss of the chunk).
    - `watch`: called with (steps made, what `fit` would return then), for validation.
    - `checkpoint`: a file, written after each chunk and found again; with an iterable, the batches already used are
      skipped.

    **Raises:** `InputError` where the loss is not finite (with the step), `DataError` where the checkpoint is of another
    model.

    **Example:**

        >>> import jax, jax.numpy as jnp, optax
        >>> x = jnp.linspace(-1, 1, 32)
        >>> def loss(line, batch, key):
        ...     return jnp.mean((line["slope"] * batch + line["offset"] - (3 * batch + 1)) ** 2)
        >>> line = {"slope": jnp.zeros(()), "offset": jnp.zeros(())}
        >>> found = fit(line, loss, lambda key: x, optimiser=optax.adam(0.1), steps=300, key=jax.random.key(0))
        >>> round(float(found.model["slope"]), 2), round(float(found.model["offset"]), 2)
        (3.0, 1.0)
    """
    if steps < 1:
        raise InputError(f"fit: {steps} steps; at least 1 is wanted.")
    chosen = parameters if parameters is not None else jax.tree.map(eqx.is_inexact_array, model)
    weights, rest = eqx.partition(model, chosen)
    split = None
    if sparsifier is not None:
        split, optimiser = sparsifier.split(optimiser), sparsifier.around(optimiser)
    opt_state = optimiser.init(weights)
    if sparsifier is not None:
        weights = sparsifier.start(weights, opt_state)
    done = 0
    if checkpoint is not None and Path(checkpoint).exists():
        weights, opt_state, done = _load(Path(checkpoint), (weights, opt_state))

    if isinstance(loss, eqx.Module):
        arrays, static = eqx.partition(loss, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
        programs = _kept_programs(static, optimiser.update, project, chunk, split)
    else:
        arrays, programs = None, _programs(loss, optimiser.update, project, chunk, split)
    given = (rest, arrays, None if project is None else chosen, key)
    batches = iter(()) if callable(data) else iter(data)
    for _ in range(0 if callable(data) else done):
        next(batches, None)

    losses: list[np.ndarray] = []
    # a weakly typed leaf would change its type in the first step and compile everything again
    carry = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype) if eqx.is_array(leaf) else leaf, (weights, opt_state))
    while done < steps:
        count = min(chunk, steps - done)
        if callable(data):
            carry, values = programs.many(carry, jnp.asarray(done), jnp.asarray(count), data, given)
            values = values[:count]
        else:
            values_list = []
            for t in range(done, done + count):
                try:
                    batch = next(batches)
                except StopIteration:
                    raise InputError(f"The data ended after {t} batches; {steps} steps need as many.") from None
                one = programs.one if sparsifier is None or sparsifier.changes_at(t + 1) else programs.between
                carry, value = one(carry, jnp.asarray(t), batch, given)
                values_list.append(value)
            values = jnp.stack(values_list)
        found = np.asarray(values)
        if not np.isfinite(found).all():
            bad = done + int(np.flatnonzero(~np.isfinite(found))[0])
            cure = "lower the learning rate" if bad else "no step was made yet, so it is the model or its data"
            raise InputError(f"The loss is {found[bad - done]} at step {bad}; {cure}.")
        losses.append(found)
        done += count
        if report is not None:
            report(done, float(found.mean()))
        if watch is not None:
            watch(done, Fit(eqx.combine(carry[0], rest), carry[1], np.concatenate(losses)))
        if checkpoint is not None:
            _save(Path(checkpoint), carry, done)
    weights, opt_state = carry
    return Fit(eqx.combine(weights, rest), opt_state, np.concatenate(losses) if losses else np.zeros(0))


class _Programs(NamedTuple):
    """One step, one that changes no mask of a sparsifier, and up to a chunk of steps."""

    one: Callable[..., tuple[tuple, jax.Array]]
    between: Callable[..., tuple[tuple, jax.Array]]
    many: Callable[..., tuple[tuple, jax.Array]]


def _programs(
    loss: Callable, update: Callable, project: Callable[[PyTree], PyTree] | None, chunk: int, split: Split | None
) -> _Programs:
    """For one loss, without its arrays where it is a module; these are among what is `given`."""

    # keys and data are arguments: as constants of the program they would keep it out of JAX's compilation cache
    def step(update: Callable, carry: tuple, t: jax.Array, source: PyTree, given: tuple) -> tuple[tuple, jax.Array]:
        (weights, opt_state), (rest, arrays, chosen, key) = carry, given
        whole = loss if arrays is None else eqx.combine(arrays, loss)
        data_key, loss_key = jax.random.split(jax.random.fold_in(key, t))
        batch = source(data_key) if callable(source) else source
        value, gradient = eqx.filter_value_and_grad(lambda w: whole(eqx.combine(w, rest), batch, loss_key))(weights)
        updates, opt_state = update(gradient, opt_state, weights)
        weights = eqx.apply_updates(weights, updates)
        if project is not None:
            weights, _ = eqx.partition(project(eqx.combine(weights, rest)), chosen)
        return (weights, opt_state), value

    def many(carry: tuple, first: jax.Array, count: jax.Array, source: PyTree, given: tuple) -> tuple[tuple, jax.Array]:
        """`count` is traced, so that a shorter last chunk is not compiled again."""

        def made(update: Callable, carried: tuple[jax.Array, tuple, jax.Array]) -> tuple[jax.Array, tuple, jax.Array]:
            n, carry, values = carried
            carry, value = step(update, carry, first + n, source, given)
            return n + 1, carry, values.at[n].set(value.astype(values.dtype))

        def left(carried: tuple) -> jax.Array:
            return carried[0] < count

        def to_next_change(carried: tuple) -> tuple:
            carried = jax.lax.while_loop(
                lambda c: left(c) & ~split.due(c[1][1]),  # type: ignore[union-attr]
                functools.partial(made, split.between),  # type: ignore[union-attr]
                carried,
            )
            return jax.lax.cond(
                left(carried),
                functools.partial(made, split.changing),  # type: ignore[union-attr]
                lambda c: c,
                carried,
            )

        body = functools.partial(made, update) if split is None else to_next_change
        _, carry, values = jax.lax.while_loop(left, body, (jnp.zeros_like(count), carry, jnp.zeros(chunk)))
        return carry, values

    one = eqx.filter_jit(functools.partial(step, update))
    between = one if split is None else eqx.filter_jit(functools.partial(step, split.between))
    return _Programs(one, between, eqx.filter_jit(many))


_kept_programs = functools.lru_cache(maxsize=64)(_programs)


class AverageState(NamedTuple):
    """State of `with_average`: the inner optimiser's, and the running average of the weights."""

    inner: PyTree
    average: PyTree


def with_average(optimiser: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """The optimiser, which also keeps an exponential average of the weights in its state (`opt_state.average`)."""

    def init(weights: PyTree) -> AverageState:
        return AverageState(optimiser.init(weights), weights)

    def update(gradient: PyTree, state: AverageState, weights: PyTree | None = None) -> tuple[PyTree, AverageState]:
        updates, inner = optimiser.update(gradient, state.inner, weights)
        after = optax.apply_updates(weights, updates)
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.average, after)
        return updates, AverageState(inner, average)

    return optax.GradientTransformation(init, update)


def _save(path: Path, carry: PyTree, done: int) -> None:
    with writing(path) as stream:
        eqx.tree_serialise_leaves(stream, (np.asarray(done), carry))


def _load(path: Path, like: PyTree) -> tuple[Any, Any, int]:
    try:
        with path.open("rb") as stream:
            done, (weights, opt_state) = eqx.tree_deserialise_leaves(stream, (np.asarray(0), like))
    except (RuntimeError, ValueError, EOFError, OSError):
        raise DataError(f"{path} is no checkpoint of this model and optimiser; remove it or name another.") from None
    return weights, opt_state, int(done)
