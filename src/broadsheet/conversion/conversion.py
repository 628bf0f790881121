"""Trained networks as spiking networks: quantised activations, and the integrate-and-fire neurons that compute them in time.

A QCFS activation with L levels (arXiv 2303.04347; used by arXiv 2303.10276) is what an integrate-and-fire neuron with a soft
reset and half a threshold of head start puts out on average over T = L steps under a constant input. Weights are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from broadsheet.dynamics.rollout import rollout
from broadsheet.dynamics.system import System, as_array
from broadsheet.errors import InputError
from broadsheet.neurons.integrate_and_fire import LIF, Membrane
from broadsheet.neurons.surrogates import at_threshold

Activation = Callable[[int, Array], Array]
"""What a body applies to the pre-activations of its k-th activation: (k, z) to activations of the same shape."""


@jax.custom_jvp
def _floor(x: Array) -> Array:
    """Floor, with the derivative of the identity."""
    return jnp.floor(x)


@_floor.defjvp
def _floor_jvp(primals: tuple, tangents: tuple) -> tuple:
    return _floor(*primals), tangents[0]


def qcfs(z: Float[Array, "*shape"], theta: Any, levels: int) -> Float[Array, "*shape"]:
    """`theta * clip(floor(levels z / theta + 1/2) / levels, 0, 1)`; the floor passes derivatives straight through."""
    return theta * jnp.clip(_floor(levels * z / theta + 0.5) / levels, 0.0, 1.0)


def lsq(z: Float[Array, "*shape"], scale: Any, bits: int) -> Float[Array, "*shape"]:
    """`scale * round(clip(z / scale, 0, 2^bits - 1))`, learned step size quantisation (arXiv 1902.08153).

    The same map as `qcfs(z, scale * L, L)` with L = 2^bits - 1, up to ties; the derivative by the scale is divided by
    sqrt(z.size * L), as the authors do.
    """
    top = 2**bits - 1
    damped = _damped(as_array(scale), 1 / np.sqrt(z.size * top))
    return damped * _floor(jnp.clip(z / damped, 0.0, top) + 0.5)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _damped(x: Array, factor: float) -> Array:
    """The value itself, with a smaller derivative."""
    return x


@_damped.defjvp
def _damped_jvp(factor: float, primals: tuple, tangents: tuple) -> tuple:
    return primals[0], factor * tangents[0]


@runtime_checkable
class Body(Protocol):
    """A network with its activations left open: (batch, …) inputs to (batch, classes)."""

    def __call__(self, x: Array, activate: Activation) -> Array: ...


class Layer(eqx.Module):
    """A step of a `Sequential`: linear, convolution, average pooling, flattening, or an activation.

    **Arguments:** `size`: stride of a convolution, side of a pool; `padding`: zeros before and after the input of a
    convolution; `dilation`, `groups`: of a convolution; stride, padding and dilation are one number or (height, width);
    `ceiling`: of an activation, the value at which a trained one is cut, None for a ReLU.
    """

    kind: Literal["linear", "conv", "pool", "flatten", "activation"] = eqx.field(static=True)
    weight: Array | None = None
    bias: Array | None = None
    size: int | tuple[int, int] = eqx.field(static=True, default=1)
    padding: int | tuple[int, int] = eqx.field(static=True, default=0)
    dilation: int | tuple[int, int] = eqx.field(static=True, default=1)
    groups: int = eqx.field(static=True, default=1)
    ceiling: float | None = eqx.field(static=True, default=None)

    def __call__(self, x: Array) -> Array:
        if self.kind == "flatten":
            return x.reshape(len(x), -1)
        if self.kind == "pool":
            window = (1, 1, *both(self.size))
            return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, window, "VALID") / int(np.prod(window))
        if self.weight is None:
            raise InputError(f"A layer of the kind {self.kind!r} has no weights to apply.")
        if self.kind == "linear":
            y = x @ self.weight.T
            return y if self.bias is None else y + self.bias
        y = jax.lax.conv_general_dilated(
            x, self.weight, both(self.size), [(n, n) for n in both(self.padding)], rhs_dilation=both(self.dilation),
            feature_group_count=self.groups,
        )  # fmt: skip
        return y if self.bias is None else y + self.bias[:, None, None]


def both(value: int | tuple[int, int]) -> tuple[int, int]:
    """Along height and width."""
    return (value, value) if isinstance(value, int) else value


class Sequential(eqx.Module):
    """Layers one after another; images are (channels, height, width)."""

    layers: tuple[Layer, ...]

    def __call__(self, x: Array, activate: Activation) -> Array:
        number = 0
        for layer in self.layers:
            if layer.kind == "activation":
                x = activate(number, x)
                number += 1
            else:
                x = layer(x)
        return x

    @property
    def ceilings(self) -> tuple[float | None, ...]:
        """Of each activation: where it is cut, None for a ReLU."""
        return tuple(layer.ceiling for layer in self.layers if layer.kind == "activation")

    @classmethod
    def mlp(cls, sizes: Sequence[int], key: PRNGKeyArray) -> Sequential:
        """Linear layers with activations between them."""
        layers = []
        for k, (n, out) in enumerate(pairwise(sizes)):
            weight = jax.random.normal(jax.random.fold_in(key, k), (out, n)) * np.sqrt(2 / n)
            layers += [Layer("linear", weight, jnp.zeros(out)), Layer("activation")]
        return cls(tuple(layers[:-1]))

    @classmethod
    def conv(
        cls, image: tuple[int, int, int], channels: Sequence[int], classes: int, key: PRNGKeyArray, *, pool: Sequence[bool]
    ) -> Sequential:
        """3x3 convolutions, each with an activation, average pooling by 2 after those marked, and a linear read-out."""
        depth, height, width = image
        layers: list[Layer] = []
        for k, (out, pooled) in enumerate(zip(channels, pool, strict=True)):
            weight = jax.random.normal(jax.random.fold_in(key, k), (out, depth, 3, 3)) * np.sqrt(2 / (9 * depth))
            layers += [Layer("conv", weight, jnp.zeros(out), 1, 1), Layer("activation")]
            if pooled:
                layers.append(Layer("pool", size=2))
                height, width = height // 2, width // 2
            depth = out
        n = depth * height * width
        weight = jax.random.normal(jax.random.fold_in(key, len(channels)), (classes, n)) * np.sqrt(1 / n)
        return cls((*layers, Layer("flatten"), Layer("linear", weight, jnp.zeros(classes))))


class QuantisedNet(eqx.Module):
    """A body with QCFS activations: what is trained, and what a spiking network with the same weights approaches.

    **Arguments:** `body`; `shape`: of one input; `levels`: L, the quantisation levels; `theta`: ceiling of the activations
    at the start, one number for all layers or one each; they are trained.
    """

    body: Any
    theta: tuple[Float[Array, ""], ...]
    shape: tuple[int, ...] = eqx.field(static=True)
    levels: int = eqx.field(static=True)

    def __init__(self, body: Body, shape: Sequence[int], *, levels: int = 4, theta: float | Sequence[float] = 8.0) -> None:
        if levels < 1:
            raise InputError(f"levels = {levels}; at least 1 is wanted.")
        self.body, self.shape, self.levels = body, tuple(shape), levels
        count = len(activation_shapes(body, self.shape))
        values = [theta] * count if isinstance(theta, (int, float)) else list(theta)
        if len(values) != count or min(values) <= 0:
            raise InputError(f"theta = {theta}; one number above 0, or one for each of {count} activations, is wanted.")
        self.theta = tuple(as_array(value) for value in values)

    def __call__(self, x: Any) -> Float[Array, "batch classes"]:
        """Logits of inputs (batch, …)."""
        return self.body(jnp.asarray(x), lambda k, z: qcfs(z, self.theta[k], self.levels))

    def spiking(self, *, start: float = 0.5) -> SpikingNet:
        """The spiking network with these weights; `start`: potential before the first step, in thresholds."""
        return SpikingNet(self.body, self.shape, self.theta, start=start)


def activation_shapes(body: Body, shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes of the body's activations for one input, in the order in which they are called."""
    found: dict[int, tuple[int, ...]] = {}

    def note(k: int, z: Array) -> Array:
        found[k] = z.shape[1:]
        return z

    jax.eval_shape(lambda x: body(x, note), jax.ShapeDtypeStruct((1, *shape), jnp.result_type(float)))
    return [found[k] for k in range(len(found))]


class SpikingNet(System):
    """Integrate-and-fire neurons with soft reset in place of activations. Input: an image or vector, the same at each step,
    as current. Output: (the read-out's answer in this step (classes,), spikes of each layer in this step).

    **Arguments:** `body`, `shape`: as of `QuantisedNet`; `theta`: thresholds of the layers, which are also the heights of
    their spikes; `start`: potential before the first step, in thresholds (1/2 rounds where 0 would cut off).
    """

    body: Any
    cells: tuple[LIF, ...]
    shape: tuple[int, ...] = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(self, body: Body, shape: Sequence[int], theta: Sequence[Any], *, start: float = 0.5) -> None:
        self.body, self.shape, self.dt = body, tuple(shape), 1.0
        self.shapes = tuple(activation_shapes(body, shape))
        if len(theta) != len(self.shapes):
            raise InputError(f"{len(theta)} thresholds for {len(self.shapes)} activations.")
        self.cells = tuple(
            LIF(
                int(np.prod(size)),
                tau=jnp.inf,
                rest=0.0,
                threshold=height,
                reset=None,
                v0=start * height,
                spike=at_threshold,
                dt=1.0,
            )
            for size, height in zip(self.shapes, theta, strict=True)
        )

    @property
    def theta(self) -> tuple[Array, ...]:
        return tuple(cell.threshold for cell in self.cells)

    def init(self, key: PRNGKeyArray) -> tuple[Membrane, ...]:
        return tuple(cell.at_rest() for cell in self.cells)

    def step(
        self, state: tuple[Membrane, ...], inputs: Float[Array, "*shape"], key: PRNGKeyArray | None = None
    ) -> tuple[tuple[Membrane, ...], tuple[Float[Array, " classes"], Float[Array, " layers"]]]:
        after: list[Membrane] = list(state)
        counts: list[Array] = [jnp.zeros(())] * len(state)

        def fire(k: int, z: Array) -> Array:
            after[k], spikes = self.cells[k].step(state[k], z.ravel())
            counts[k] = jnp.sum(spikes)
            return (self.cells[k].threshold * spikes).reshape(z.shape)

        answer = self.body(inputs[None], fire)[0]
        return tuple(after), (answer, jnp.stack(counts))

    def run(self, x: Any, steps: int) -> tuple[Float[Array, "batch time classes"], Float[Array, "batch time layers"]]:
        """Runs inputs (batch, …): (read-out summed up to each step, spikes of each layer in each step)."""
        return _run(self, jnp.asarray(x), steps)

    def nir_graph(self, nir: Any) -> tuple[dict[str, Any], list[tuple[str, str]], dict[str, Any]]:
        """Nodes, edges and note for `broadsheet.networks.to_nir`; raises `CompositionError` for a body that is no chain."""
        from broadsheet.conversion.nir_graph import converted_graph

        return converted_graph(nir, self)


@eqx.filter_jit
def _run(net: SpikingNet, x: Array, steps: int) -> tuple[Array, Array]:
    def one(example: Array) -> tuple[Array, Array]:
        inputs = jnp.broadcast_to(example, (steps, *example.shape))
        _, (answers, spikes) = rollout(net, inputs)
        return jnp.cumsum(answers, axis=0), spikes

    return jax.vmap(one)(x)


class DynamicRun(NamedTuple):
    """Of each sample: the answer, the step of the exit, counted from 1, and the spikes until then."""

    answers: Int[np.ndarray, " batch"]
    steps: Int[np.ndarray, " batch"]
    spikes: Float[np.ndarray, " batch"]


def run_dynamic(
    net: SpikingNet, x: Float[Array, "batch *shape"], leaves: Callable[[Array], Array], max_steps: int, *, least: int = 8
) -> DynamicRun:
    """Steps until every sample has left: one leaves when `leaves(summed read-out (batch, classes))` says so, or at the end.

    Samples that have left are not computed any more: the batch shrinks to powers of two, down to `least`.
    """
    x = jnp.asarray(x)
    if max_steps < 1:
        raise InputError(f"max_steps = {max_steps}; at least 1 is wanted.")
    count = len(x)
    answers, steps, spikes = np.zeros(count, np.int64), np.full(count, max_steps), np.zeros(count)
    where, inside = np.arange(count), np.ones(count, bool)  # the sample of each row, and whether it is still in
    run = _begin(net, x)
    for t in range(1, max_steps + 1):
        run, spent, best = _advance(net, run)
        leaving = np.asarray(leaves(run.total)) | (t == max_steps)
        spikes[where[inside]] += np.asarray(spent)[inside]
        going = inside & leaving
        answers[where[going]], steps[where[going]] = np.asarray(best)[going], t
        inside &= ~leaving
        staying = np.flatnonzero(inside)
        if not len(staying):
            break
        size = max(least, 1 << (len(staying) - 1).bit_length())
        if size < len(where):
            kept = np.concatenate([staying, np.zeros(size - len(staying), np.int64)])
            run, where, inside = _rows(run, kept), where[kept], np.arange(size) < len(staying)
    return DynamicRun(answers, steps, spikes)


class _Run(NamedTuple):
    """Samples on their way: potentials, inputs and summed read-outs."""

    state: tuple[Membrane, ...]
    x: Array
    total: Float[Array, "batch classes"]


@eqx.filter_jit
def _begin(net: SpikingNet, x: Array) -> _Run:
    state = net.init(jax.random.key(0))
    answer = jax.eval_shape(net.step, state, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))[1][0]
    return _Run(jax.vmap(lambda _: state)(x), x, jnp.zeros((len(x), *answer.shape), answer.dtype))


@eqx.filter_jit
def _advance(net: SpikingNet, run: _Run) -> tuple[_Run, Float[Array, " batch"], Int[Array, " batch"]]:
    """A step of each sample, its spikes in the step, and the best answer after it."""
    state, (answer, spikes) = jax.vmap(net.step)(run.state, run.x)
    total = run.total + answer
    return _Run(state, run.x, total), spikes.sum(axis=1), total.argmax(axis=1)


@jax.jit
def _rows(run: _Run, kept: Int[Array, " rows"]) -> _Run:
    return jax.tree.map(lambda leaf: leaf[kept], run)


def balanced_thresholds(
    body: Body, x: Float[Array, "batch *shape"], percentile: float = 99.9, ceilings: Sequence[float | None] = ()
) -> list[float]:
    """Thresholds for a network trained with plain ReLUs: a percentile of each layer's activations on data.

    **Arguments:** `ceilings`: where each activation is cut, None for one that is not (`Sequential.ceilings`); a neuron puts out
    no more than its threshold a step, so that no threshold lies above.
    """
    if not 0 < percentile <= 100:
        raise InputError(f"percentile = {percentile}; a number above 0, up to 100, is wanted.")
    found: dict[int, float] = {}

    def note(k: int, z: Array) -> Array:
        z = jnp.clip(z, 0.0, ceilings[k] if k < len(ceilings) else None)
        found[k] = max(float(np.percentile(np.asarray(z), percentile)), 1e-6)
        return z

    body(jnp.asarray(x), note)
    return [found[k] for k in range(len(found))]
