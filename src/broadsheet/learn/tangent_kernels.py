"""Empirical tangent kernels: exact ones of recurrent networks without their Jacobians, and of any model by its Jacobian.

The kernel of outputs i and j is `<df_i/dw, df_j/dw>` over the weights w that are looked at. For a recurrent network

    h_t = keep_t h_{t-1} + gain_t (W h_{t-1} + V x_t + b) + …,   f_t = U h_t + c

linearised along its run, the gradient of one output is a sum of outer products over time, `df_i/dW = Σ_s e_{i,s} h_{s-1}ᵀ`, so
that with (time, time) matrices of inner products of states no Jacobian need be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from broadsheet.errors import InputError

Weights = Literal["recurrent", "input", "output", "bias"]


class LinearisedRun(NamedTuple):
    """A recurrent network along its runs over a batch of inputs.

    - `states`: after each step; `start`: before the first.
    - `gain`: derivative of a state by its unit's current; `keep`: by the state before, where the current stays.
    """

    inputs: Float[Array, "batch time inputs"]
    start: Float[Array, "batch units"]
    states: Float[Array, "batch time units"]
    gain: Float[Array, "batch time units"]
    keep: Float[Array, ""]

    @property
    def before(self) -> Float[Array, "batch time units"]:
        """The state before each step."""
        return jnp.concatenate([self.start[:, None], self.states[:, :-1]], axis=1)


def run_kernel(
    run: LinearisedRun,
    recurrent: Float[Array, "units units"],
    readout: Float[Array, "outputs units"],
    *,
    weights: Weights = "recurrent",
    steps: Sequence[int] | None = None,
) -> Float[Array, "rows rows"]:
    """The exact tangent kernel of a recurrent network's outputs, by one family of its weights.

    Takes of the order of B² Q n T (T + Q) / 2 operations and B Q T n numbers of memory, for B examples with Q = steps x outputs
    outputs each, T steps and n units: less than by Jacobians (B² Q² n² and B Q n²) wherever T (T + Q) < Q n. Outputs at all
    steps take five eighths of that where they are more than the units: what is over is left out.

    **Arguments:** `recurrent`, `readout`: W and U; `weights`: by which ones; `steps`: the steps whose outputs are looked at,
    by default all. Rows and columns go over examples first, then steps, then outputs.
    """
    time = run.states.shape[1]
    chosen = tuple(range(time)) if steps is None else tuple(range(time)[step] for step in steps)
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError("run_kernel: each step may be named once, and at least one must be.")
    kernel = _run_kernel(run, recurrent, readout, weights, tuple(sorted(chosen)))
    if list(chosen) == sorted(chosen):
        return kernel
    place, apart = np.argsort(np.argsort(chosen)), (len(run.states), len(chosen), len(readout)) * 2
    return kernel.reshape(apart)[:, place][:, :, :, :, place].reshape(kernel.shape)


@eqx.filter_jit
def _run_kernel(run: LinearisedRun, recurrent: Array, readout: Array, weights: Weights, steps: tuple[int, ...]) -> Array:
    """`run_kernel` of steps in order."""
    batch, outputs = len(run.states), len(readout)
    rows = batch * len(steps) * outputs
    if weights == "output":
        seen = run.states[:, jnp.asarray(steps)].reshape(batch * len(steps), -1)
        return jnp.einsum("ij,kl->ikjl", seen @ seen.T, jnp.eye(outputs)).reshape(rows, rows)
    end = steps[-1] + 1  # what comes after has no part in the outputs
    errors = _errors(run, recurrent, readout, steps)[:, :end]
    # what a weight is multiplied with at each step: the gradient is the sum of outer products of errors with it
    carried = {"recurrent": run.before, "input": run.inputs, "bias": jnp.ones((*run.states.shape[:2], 1))}[weights][:, :end]
    few = errors.shape[2] < errors.shape[3]

    def pair(both: tuple[Array, Array]) -> Array:
        """(outputs, outputs): the kernel of one example with another."""
        i, j = both
        one, other, inner = errors[i], errors[j], carried[i] @ carried[j].T
        if few:  # products a step and then their sum want no copy in another order, but their memory goes as outputs²
            spread = (inner @ other.reshape(len(other), -1)).reshape(other.shape)
            return jnp.einsum("tqn,trn->tqr", one, spread).sum(0)
        kernel = jnp.zeros((one.shape[1], other.shape[1]))
        for now, begun in spans:
            spread = jnp.zeros_like(other[now])
            for then, late in spans:
                part = inner[now, then] @ other[then, late:].reshape(then.stop - then.start, -1)
                spread = spread.at[:, late:].add(part.reshape(len(spread), -1, other.shape[-1]))
            kernel = kernel.at[begun:].add(jnp.einsum("tqn,trn->qr", one[now, begun:], spread))
        return kernel

    # steps in four spans, each with the first output that is not over before it: the errors of those that are over are 0
    edges = np.unique(np.linspace(0, end, 5).round().astype(int)).tolist()
    spans = [(slice(a, b), outputs * sum(step < a for step in steps)) for a, b in pairwise(edges)]
    rows_of, columns_of = np.triu_indices(batch)  # the kernel is symmetric
    blocks = jax.lax.map(pair, (jnp.asarray(rows_of), jnp.asarray(columns_of)))
    pairs = jnp.zeros((batch, batch, *blocks.shape[1:]))
    pairs = pairs.at[columns_of, rows_of].set(jnp.swapaxes(blocks, 1, 2)).at[rows_of, columns_of].set(blocks)
    return jnp.swapaxes(pairs, 1, 2).reshape(rows, rows)


def _errors(run: LinearisedRun, recurrent: Array, readout: Array, steps: tuple[int, ...]) -> Array:
    """(batch, time, steps x outputs, units): derivative of each output by the units' currents at each step."""
    batch, time, units = run.states.shape
    outputs = len(readout)
    starts = jnp.asarray(steps)[:, None, None] == jnp.arange(time)[:, None, None, None]

    def back(later: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        gain, begins = at
        here = later + jnp.where(begins, readout, 0.0).reshape(-1, units)
        error = gain[:, None] * here
        return error @ recurrent + run.keep * here, error

    none = jnp.zeros((batch, len(steps) * outputs, units))
    _, errors = jax.lax.scan(back, none, (jnp.moveaxis(run.gain, 1, 0), starts), reverse=True)
    return jnp.moveaxis(errors, 0, 1)


def tangent_kernel(
    model: PyTree,
    inputs: PyTree,
    *,
    where: Callable[[Any], Any] | None = None,
    function: Callable[[Any, Any], Array] | None = None,
    block: int | None = None,
) -> Float[Array, "rows rows"]:
    """The empirical tangent kernel of any model, by the Jacobians of its outputs, (batch x outputs, weights) in memory.

    **Arguments:** `inputs`: examples, first axis of each leaf; `where`: model -> the leaf or leaves to differentiate by, by
    default all inexact arrays (`lambda model: model.w_rec`); `function`: (model, one example) -> outputs, of any shape,
    by default `model(example)`; `block`: examples whose Jacobians are held beside the first ones', by default all.
    """
    call = function or (lambda made, one: made(one))
    pick = where or (lambda made: eqx.filter(made, eqx.is_inexact_array))
    weights = pick(model)

    def jacobian(one: PyTree) -> Array:
        def outputs(free: PyTree) -> Array:
            made = eqx.combine(free, model) if where is None else eqx.tree_at(where, model, free)
            return call(made, one).ravel()

        leaves = jax.tree.leaves(jax.jacrev(outputs)(weights))
        return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)

    jacobians = jax.jit(lambda part: jnp.concatenate(list(jax.vmap(jacobian)(part))))
    count = len(jax.tree.leaves(inputs)[0])
    size = block or count
    parts = [jax.tree.map(lambda leaf, k=k: leaf[k : k + size], inputs) for k in range(0, count, size)]
    rows = []
    for part in parts:
        own = jacobians(part)
        rows.append(jnp.concatenate([own @ jacobians(other).T for other in parts], axis=1))
    return jnp.concatenate(rows, axis=0)


def kernel_alignment(
    first: Float[Array | np.ndarray, "rows columns"],
    second: Float[Array | np.ndarray, "rows2 columns2"],
    *,
    centred: bool = False,
) -> float:
    """`<A, B> / (|A| |B|)`, from 0 to 1 for kernels; 1 for kernels that differ in scale alone.

    `centred`: without the mean of the features (Cortes et al., JMLR 13, 795 (2012)), as in CKA.

    **Raises:** `InputError` where the shapes differ, or a kernel is zero or not finite.
    """
    a, b = (np.asarray(each, float) for each in (first, second))
    if a.shape != b.shape or a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise InputError(f"kernel_alignment: kernels of {a.shape} and {b.shape}; two square ones of one size are wanted.")
    if centred:
        a, b = (each - each.mean(0) - each.mean(1)[:, None] + each.mean() for each in (a, b))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if not norms > 0 or not np.isfinite(norms):
        raise InputError("kernel_alignment: a kernel is zero or not finite, so that it is aligned with nothing.")
    return float((a * b).sum() / norms)
