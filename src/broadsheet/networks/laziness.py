"""How far training moved a network: its weights, its representation and its tangent kernel, before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from broadsheet.dynamics import rollout
from broadsheet.errors import InputError
from broadsheet.learn.tangent_kernels import LinearisedRun, Weights, kernel_alignment, run_kernel, tangent_kernel
from broadsheet.networks.rates import ACTIVATIONS, RateRNN
from broadsheet.networks.recurrent import Recurrent
from broadsheet.numerics import generator

Network = RateRNN | Recurrent

JACOBIAN_NUMBERS = 50_000_000
"""Of the Jacobians of gated networks so many numbers are held at a time."""


class Laziness(NamedTuple):
    """How much stayed as it was; a lazy training leaves the alignments near 1, a rich one does not.

    - `weight_change`: Frobenius norm of the change of the recurrent weights; `relative_change`: over that of the weights
      before.
    - `representation`: alignment of the Gram matrices of hidden states over examples.
    - `kernel`: alignment of the tangent kernels by the recurrent weights.
    - `signs`: share of hidden states whose sign is the same (of ReLU units: which are active).
    """

    weight_change: float
    relative_change: float
    representation: float
    kernel: float
    signs: float


def linearised(net: RateRNN, inputs: Float[Array | np.ndarray, "batch time inputs"]) -> LinearisedRun:
    """A rate network along its runs over a batch of inputs, from the state 0."""
    return _linearised(net, jnp.asarray(inputs))


@eqx.filter_jit
def _linearised(net: RateRNN, inputs: Array) -> LinearisedRun:
    states = jax.vmap(net.states)(inputs)
    start = jnp.zeros_like(states[:, 0])
    before = jnp.concatenate([start[:, None], states[:, :-1]], axis=1)
    currents = jax.vmap(jax.vmap(net.current))(before, inputs)
    slope = jax.vmap(jax.vmap(jax.vmap(jax.grad(ACTIVATIONS[net.activation]))))(currents)
    return LinearisedRun(inputs, start, states, net.alpha * slope, 1 - net.alpha)


def weights_of(net: Network, family: Weights) -> Any:
    """The recurrent, input or output weights, or the units' biases, of a network; None for biases that it lacks."""
    return _PLACES[type(net)][family](net)


_PLACES: dict[type, dict[str, Callable[[Any], Any]]] = {
    RateRNN: {"recurrent": lambda net: net.w_rec, "input": lambda net: net.w_in, "output": lambda net: net.w_out,
              "bias": lambda net: net.b},
    Recurrent: {"recurrent": lambda net: net.cell.weight_hh, "input": lambda net: net.cell.weight_ih,
                "output": lambda net: net.head.weight, "bias": lambda net: net.cell.bias},
}  # fmt: skip


@eqx.filter_jit
def hidden_states(net: Network, inputs: Float[Array | np.ndarray, "batch time inputs"]) -> Float[Array, "batch time units"]:
    """The hidden states after each step, from the state 0."""
    if isinstance(net, RateRNN):
        return jax.vmap(net.states)(jnp.asarray(inputs))

    def hidden(state: Any, output: Array) -> Array:
        return state[0] if isinstance(state, tuple) else state

    return jax.vmap(lambda one: rollout(net, one, record=hidden)[1])(inputs)


def network_kernel(
    net: Network,
    inputs: Float[Array | np.ndarray, "batch time inputs"],
    *,
    weights: Weights = "recurrent",
    steps: Sequence[int] | None = None,
) -> Float[Array, "rows rows"]:
    """The tangent kernel of a recurrent network's outputs by one family of its weights, at some steps or at all.

    Of a rate network exact and without Jacobians (`broadsheet.learn.tangent_kernels.run_kernel`), of an LSTM or a GRU by them.
    """
    inputs = jnp.asarray(inputs)
    if isinstance(net, RateRNN):
        return run_kernel(linearised(net, inputs), net.w_rec, net.w_out, weights=weights, steps=steps)
    chosen = jnp.arange(inputs.shape[1]) if steps is None else jnp.asarray(steps)
    rows = len(chosen) * net.head.weight.shape[0] * weights_of(net, weights).size
    return tangent_kernel(
        net, inputs, where=_PLACES[Recurrent][weights], function=lambda net, one: rollout(net, one)[1][chosen],
        block=max(1, JACOBIAN_NUMBERS // rows),
    )  # fmt: skip


def with_shuffled(net: Network, key: Any) -> Network:
    """The network with its recurrent weights in random places: their sizes alone are kept."""
    weights = np.asarray(weights_of(net, "recurrent"))
    mixed = generator(key).permutation(weights.ravel()).reshape(weights.shape)
    return eqx.tree_at(_PLACES[type(net)]["recurrent"], net, jnp.asarray(mixed))


def check_pair(before: Network, after: Network, inputs: Float[Array | np.ndarray, "batch time inputs"]) -> None:
    """Raises `InputError` where two networks are no two states of one, or where inputs do not fit them."""
    said = []
    for net in (before, after):
        kind = f"{net.activation} units" if isinstance(net, RateRNN) else type(net.cell).__name__.removesuffix("Cell")
        shapes = [np.shape(weights_of(net, family)) for family in ("input", "recurrent", "output")]
        said.append(f"{kind}, weights of {', '.join(map(str, shapes))}")
    if said[0] != said[1]:
        raise InputError(f"Two states of one network are wanted; before: {said[0]}; after: {said[1]}.")
    wide = weights_of(before, "input").shape[1]
    if np.ndim(inputs) != 3 or np.shape(inputs)[2] != wide or not np.size(inputs) or not np.isfinite(inputs).all():
        raise InputError(f"Inputs of {np.shape(inputs)}; (examples, time, {wide}) of finite numbers are wanted.")


def laziness_report(
    before: Network,
    after: Network,
    inputs: Float[Array | np.ndarray, "batch time inputs"],
    *,
    step: int = -1,
    steps: Sequence[int] | None = None,
    kernel_batch: int = 32,
    kernel: Float[Array | np.ndarray, "rows rows"] | None = None,
) -> Laziness:
    """How far a network moved in training, on a batch of inputs (arXiv 2310.08513).

    **Arguments:** `step`: of the hidden states whose representation is looked at (the decision); `steps`: of the outputs
    in the kernel, by default all; `kernel_batch`: so many first examples make the kernel; `kernel`: that of `before`, where
    it is known.

    An alignment is NaN where no unit of a network is active, or where the network has diverged.

    **Raises:** `InputError` for networks that are not two states of one, and for inputs that do not fit.
    """
    check_pair(before, after, inputs)
    inputs = jnp.asarray(inputs, jnp.float32)
    few = inputs[:kernel_batch]
    old, new = (np.asarray(hidden_states(net, inputs)[:, step], float) for net in (before, after))
    first = network_kernel(before, few, steps=steps) if kernel is None else kernel
    was, became = (np.asarray(weights_of(net, "recurrent"), float) for net in (before, after))
    change = float(np.linalg.norm(became - was))
    return Laziness(
        weight_change=change, relative_change=change / float(np.linalg.norm(was)),
        representation=alignment_or_nan(old @ old.T, new @ new.T),
        kernel=alignment_or_nan(first, network_kernel(after, few, steps=steps)),
        signs=float((np.sign(old) == np.sign(new)).mean()),
    )  # fmt: skip


def alignment_or_nan(first: Float[Array | np.ndarray, "n n"], second: Float[Array | np.ndarray, "n n"]) -> float:
    """`kernel_alignment`, NaN where it is not defined: of a kernel that is zero or not finite."""
    try:
        return kernel_alignment(first, second)
    except InputError:
        return float("nan")
