"""What each kind of node of a NIR graph is: its parameters, and the system that computes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from broadsheet.dynamics.compose import series
from broadsheet.dynamics.delay import Delay, RingBuffer
from broadsheet.dynamics.system import System
from broadsheet.errors import CompositionError
from broadsheet.neurons.integrate_and_fire import LIF, Membrane
from broadsheet.neurons.integrators import Integrator, LeakyIntegrator
from broadsheet.neurons.surrogates import at_threshold, spike

Method = Literal["euler", "exact"]
Reset = Literal["to value", "subtract"]


class Node(eqx.Module):
    """One node of a graph: its kind, and its parameters as NIR has them."""

    kind: str = eqx.field(static=True)
    arrays: dict[str, Array]
    options: tuple[tuple[str, Any], ...] = eqx.field(static=True, default=())

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name] if name in self.arrays else dict(self.options)[name]


class Stepping(NamedTuple):
    """How a program steps through NIR's equations: what NIR leaves open. `dt` in ms, `start` in thresholds above rest."""

    method: Method
    reset: Reset
    start: Array
    dt: float

    @property
    def seconds(self) -> float:
        return self.dt / 1000


class Apply(System):
    """A function of the input, without a state."""

    function: Callable[[Array], Array]

    def init(self, key: PRNGKeyArray) -> None:
        return None

    def step(self, state: None, inputs: Array, key: PRNGKeyArray | None = None) -> tuple[None, Array]:
        return None, self.function(inputs)


class Driven(System):
    """Neurons under a current times a resistance: LIF neurons take the jumps that it makes in a step; any shape."""

    cell: LIF
    r: Array
    share: Array | float
    shape: tuple[int, ...] = eqx.field(static=True)

    def init(self, key: PRNGKeyArray) -> Membrane:
        return self.cell.init(key)

    def step(self, state: Membrane, inputs: Array, key: PRNGKeyArray | None = None) -> tuple[Membrane, Array]:
        state, spikes = self.cell.step(state, self.share * jnp.broadcast_to(self.r * inputs, self.shape).ravel())
        return state, spikes.reshape(self.shape)


class Delays(System):
    """Each element of a signal put out with a delay of its own; 0 before its first input arrives.

    **Arguments:** `steps`: of each element of the flat signal, at least one of them above 0.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    steps: tuple[int, ...] = eqx.field(static=True)

    def init(self, key: PRNGKeyArray) -> RingBuffer:
        return RingBuffer.filled(jnp.zeros(self.shape), max(self.steps) + 1)

    def step(self, state: RingBuffer, inputs: Array, key: PRNGKeyArray | None = None) -> tuple[RingBuffer, Array]:
        state = state.push(inputs)
        rows = (state.cursor - 1 - np.array(self.steps)) % state.length
        return state, state.values.reshape(state.length, -1)[rows, np.arange(len(self.steps))].reshape(self.shape)


Shape = tuple[int, ...]
Make = Callable[[Node, Shape, Stepping], System]


class Kind(NamedTuple):
    """A kind of node: names of its arrays and of what fixes shapes, its system, by the node and the shape of its output; and
    what that shape is: that of the input, for which there is one parameter or one each (`"same"`), or what the system makes."""

    arrays: tuple[str, ...]
    make: Make
    options: tuple[str, ...] = ()
    shape: Literal["same", "made"] = "made"
    fires: bool = False


def _fires(tau: str, leaks: bool = True) -> Make:
    """LIF neurons, or without a leak IF neurons."""

    def make(node: Node, shape: Shape, how: Stepping) -> System:
        wide = {name: jnp.broadcast_to(value, shape).ravel() for name, value in node.arrays.items()}
        threshold, rest, subtract = wide["v_threshold"], wide.get("v_leak", 0.0), how.reset == "subtract"
        cell = LIF(
            int(np.prod(shape)), tau=wide[tau] if leaks else jnp.inf, rest=rest, threshold=threshold,
            reset=None if subtract else wide["v_reset"], drop=threshold if subtract else None, v0=rest + how.start * threshold,
            method=how.method, spike=at_threshold if subtract else spike, dt=how.seconds,
        )  # fmt: skip
        return Driven(cell, node["r"], 1 - cell.leak if leaks else how.seconds, shape)

    return make


def _low_pass(tau: str, gain: str, rest: bool = True) -> Make:
    def make(node: Node, shape: Shape, how: Stepping) -> System:
        goal = node["v_leak"] if rest else 0.0
        return LeakyIntegrator(shape, tau=node[tau], rest=goal, gain=node[gain], method=how.method, dt=how.seconds)

    return make


def _after_synapses(cell: Make) -> Make:
    """A cell behind exponential synapses."""
    synapses = _low_pass("tau_syn", "w_in", rest=False)
    return lambda node, shape, how: series(synapses(node, shape, how), cell(node, shape, how))


def _integrator(node: Node, shape: Shape, how: Stepping) -> System:
    return Integrator(shape, gain=node["r"], dt=how.seconds)


def delay_steps(delay: Any, dt: float) -> tuple[int, ...]:
    """Delays (s) as steps of `dt` ms: one where all are the same, else one for each; static, since buffers are as long.

    **Raises:** `CompositionError` where a delay is negative or no multiple of the step.
    """
    delays = np.asarray(delay, float).ravel()
    whole = np.round(delays * 1000 / dt)
    wrong = (np.abs(delays * 1000 / dt - whole) > 1e-3) | (delays < 0)
    if wrong.any():
        raise CompositionError(f"a delay of {delays[wrong][0]:g} s is no multiple of dt = {dt} ms.")
    return tuple(int(n) for n in (whole[:1] if (whole == whole[:1]).all() else whole))


def _delay(node: Node, shape: Shape, how: Stepping) -> System:
    steps = node["steps"]
    if len(steps) == 1:
        return Delay(jnp.zeros(shape), steps[0]) if steps[0] else Apply(lambda x: x)
    wide = np.broadcast_to(np.reshape(steps, node["delay"].shape), shape)
    return Delays(shape, tuple(wide.ravel().tolist()))


def _pure(function: Callable[[Node, Array], Array]) -> Make:
    return lambda node, shape, how: Apply(lambda x: function(node, x))


def _linear(node: Node, x: Array) -> Array:
    weight = node["weight"]
    if x.shape != (*weight.shape[:-2], weight.shape[-1]):
        raise ValueError(f"its weights have the shape {weight.shape}")
    return jnp.einsum("...ij,...j->...i", weight, x)


def _affine(node: Node, x: Array) -> Array:
    y = _linear(node, x)
    if node["bias"].shape not in ((), (1,), y.shape):
        raise ValueError(f"its bias has the shape {node['bias'].shape}, its weights {node['weight'].shape}")
    return y + node["bias"]


def _flatten(node: Node, x: Array) -> Array:
    first, last = (end + x.ndim if end < 0 else end for end in (node["start_dim"], node["end_dim"]))
    if node["input_type"] not in (None, x.shape):
        raise ValueError(f"it flattens {node['input_type']}")
    if not 0 <= first <= last < x.ndim:
        raise ValueError(f"it flattens the axes {node['start_dim']} to {node['end_dim']}")
    return x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :])


def _convolve(ndim: int) -> Make:
    def convolve(node: Node, x: Array) -> Array:
        padding, said = node["padding"], node["input_shape"]
        if said is not None and x.shape[1:] != _several(said, ndim):
            raise ValueError(f"its input_shape is {said}")
        pads = padding.upper() if isinstance(padding, str) else [(p, p) for p in _several(padding, ndim)]
        y = jax.lax.conv_general_dilated(
            x[None], node["weight"], _several(node["stride"], ndim), pads, rhs_dilation=_several(node["dilation"], ndim),
            feature_group_count=node["groups"],
        )[0]  # fmt: skip
        if node["bias"].size not in (1, len(y)):
            raise ValueError(f"its bias has the shape {node['bias'].shape}, its weights {node['weight'].shape}")
        return y + node["bias"].reshape(-1, *[1] * ndim)

    return _pure(convolve)


def _pool(node: Node, x: Array) -> Array:
    size, stride, padding = (_several(node[name], 2) for name in ("kernel_size", "stride", "padding"))
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, *size), (1, *stride), ((0, 0), *((p, p) for p in padding)))
    return total / np.prod(size) if node.kind == "AvgPool2d" else total


PASS = ("Flatten", "Delay", "Output")
"""Kinds that hand on what arrives, in another order or later."""


def is_pass(node: Node) -> bool:
    """Whether a node hands on what arrives as it is: spikes stay spikes."""
    return node.kind in PASS or (node.kind == "Scale" and bool((np.asarray(node["scale"]) == 1).all()))


def _several(value: Any, ndim: int) -> tuple[int, ...]:
    return tuple(int(v) for v in np.broadcast_to(np.asarray(value).ravel(), (ndim,)))


SHAPE_ONLY = ("Input", "Output")
SPATIAL = ("input_shape", "stride", "padding", "dilation", "groups")
POOL = ("kernel_size", "stride", "padding")
CELL = ("r", "v_leak", "v_threshold", "v_reset")
KINDS: dict[str, Kind] = {
    "Input": Kind((), _pure(lambda node, x: x), ("shape",)),
    "Output": Kind((), _pure(lambda node, x: x), ("shape",)),
    "Affine": Kind(("weight", "bias"), _pure(_affine)),
    "Linear": Kind(("weight",), _pure(_linear)),
    "Scale": Kind(("scale",), _pure(lambda node, x: node["scale"] * x), shape="same"),
    "Threshold": Kind(("threshold",), _pure(lambda node, x: spike(x - node["threshold"])), shape="same"),
    "Flatten": Kind((), _pure(_flatten), ("start_dim", "end_dim", "input_type")),
    "Conv1d": Kind(("weight", "bias"), _convolve(1), SPATIAL),
    "Conv2d": Kind(("weight", "bias"), _convolve(2), SPATIAL),
    "SumPool2d": Kind((), _pure(_pool), POOL),
    "AvgPool2d": Kind((), _pure(_pool), POOL),
    "Delay": Kind(("delay",), _delay, ("steps",), shape="same"),
    "I": Kind(("r",), _integrator, shape="same"),
    "LI": Kind(("tau", "r", "v_leak"), _low_pass("tau", "r"), shape="same"),
    "IF": Kind(("r", "v_threshold", "v_reset"), _fires("", leaks=False), shape="same", fires=True),
    "LIF": Kind(("tau", *CELL), _fires("tau"), shape="same", fires=True),
    "CubaLI": Kind(("tau_syn", "tau_mem", "r", "v_leak", "w_in"), _after_synapses(_low_pass("tau_mem", "r")), shape="same"),
    "CubaLIF": Kind(("tau_syn", "tau_mem", *CELL, "w_in"), _after_synapses(_fires("tau_mem")), shape="same", fires=True),
}
TIMES = ("tau", "tau_syn", "tau_mem")


def system_of(node: Node, shape: Shape, how: Stepping) -> System:
    """The system of a node; `shape`: of its output."""
    return KINDS[node.kind].make(node, shape, how)


def shape_after(node: Node, arriving: Shape, how: Stepping) -> Shape:
    """The shape of a node's output; raises `TypeError` or `ValueError` where the input does not fit."""
    kind = KINDS[node.kind]
    if kind.shape == "same":
        for name, array in node.arrays.items():
            one_each = array.ndim == len(arriving) and np.broadcast_shapes(arriving, array.shape) == arriving
            if array.size != 1 and not one_each:
                raise ValueError(f"its {name} has the shape {array.shape}")
        return arriving
    system = system_of(node, arriving, how)
    return jax.eval_shape(lambda x: system.step(None, x)[1], jax.ShapeDtypeStruct(arriving, jnp.result_type(float))).shape
