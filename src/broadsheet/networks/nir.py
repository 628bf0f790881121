"""Networks in the Neuromorphic Intermediate Representation: read, run and written, so that other libraries can do the same.

NIR states equations in continuous time (seconds); a program chooses how to step through them. Here `method="euler"` is what
snnTorch and Norse do, `"exact"` integrates leaks exactly. An edge that closes a loop carries the output of the step before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from broadsheet.dynamics.compose import Feedback
from broadsheet.dynamics.delay import RingBuffer
from broadsheet.dynamics.system import System
from broadsheet.errors import CompositionError, DataError, InputError, MissingExtraError
from broadsheet.files import MIB, existing
from broadsheet.networks.projections import Dense
from broadsheet.neurons.integrate_and_fire import LIF
from broadsheet.neurons.surrogates import at_threshold, spike

Method = Literal["euler", "exact"]
Reset = Literal["to value", "subtract"]
SHAPE_ONLY = ("Input", "Output")
SPATIAL = ("Conv1d", "Conv2d")
MAX_BYTES = 2048 * MIB
NOTE = "broadsheet"
"""Key of what NIR cannot say, in a graph's metadata."""


class Node(eqx.Module):
    """One node of a graph: its kind, and its parameters as NIR has them."""

    kind: str = eqx.field(static=True)
    arrays: dict[str, Array]
    options: tuple[tuple[str, Any], ...] = eqx.field(static=True, default=())

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name] if name in self.arrays else dict(self.options)[name]


class NIRNetwork(System):
    """A NIR graph as a system: the input of its Input node to the output of its Output node, each step.

    With several inputs or outputs both are dictionaries by name. Made by `from_nir`.
    """

    nodes: dict[str, Node]
    start: Array
    edges: tuple[tuple[str, str], ...] = eqx.field(static=True)
    order: tuple[str, ...] = eqx.field(static=True)
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)
    method: Method = eqx.field(static=True)
    reset: Reset = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(name for name in self.order if self.nodes[name].kind == "Input")

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name for name in self.order if self.nodes[name].kind == "Output")

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a node's output."""
        return dict(self.shapes)[name]

    def init(self, key: PRNGKeyArray) -> tuple[dict[str, Any], dict[str, Array]]:
        states = {name: self._start(name) for name in self.order}
        late = {source for source, target in self.edges if self._late(source, target)}
        return states, {name: jnp.zeros(self.shape(name)) for name in sorted(late)}

    def step(self, state: tuple, inputs: Any, key: PRNGKeyArray | None = None) -> tuple[tuple, Any]:
        states, last = state
        given = inputs if isinstance(inputs, Mapping) else {self.inputs[0]: inputs}
        found: dict[str, Array] = {}
        after: dict[str, Any] = {}
        for name in self.order:
            if self.nodes[name].kind == "Input":
                found[name], after[name] = jnp.asarray(given[name]), states[name]
                continue
            arriving = [
                last[source] if self._late(source, name) else found[source] for source, target in self.edges if target == name
            ]
            after[name], found[name] = self._apply(name, states[name], sum(arriving[1:], arriving[0]))
        answer = {name: found[name] for name in self.outputs}
        out = answer if len(answer) > 1 else answer[self.outputs[0]]
        return (after, {name: found[name] for name in last}), out

    def _late(self, source: str, target: str) -> bool:
        """Whether an edge points back, and so carries the output of the step before."""
        return self.order.index(source) >= self.order.index(target)

    def _cell(self, name: str) -> LIF:
        """The neuron of a node, for all its elements in one row; times in s."""
        node = self.nodes[name]
        size = int(np.prod(self.shape(name)))
        wide = {k: jnp.broadcast_to(v, self.shape(name)).ravel() for k, v in node.arrays.items()}
        tau = wide.get("tau", wide.get("tau_mem", jnp.inf))
        rest = wide.get("v_leak", 0.0)
        threshold = wide["v_threshold"]
        subtract = self.reset == "subtract"
        return LIF(
            size, tau=tau, rest=rest, threshold=threshold, reset=None if subtract else wide["v_reset"],
            drop=threshold if subtract else None, v0=rest + self.start * threshold, method=self.method,
            spike=at_threshold if subtract else spike, dt=self.dt / 1000,
        )  # fmt: skip

    def _start(self, name: str) -> Any:
        node, shape = self.nodes[name], self.shape(name)
        if node.kind in ("LIF", "IF"):
            return self._cell(name).at_rest()
        if node.kind == "CubaLIF":
            return self._cell(name).at_rest(), jnp.zeros(shape)
        if node.kind == "LI":
            return jnp.broadcast_to(node["v_leak"], shape)
        if node.kind == "CubaLI":
            return jnp.broadcast_to(node["v_leak"], shape), jnp.zeros(shape)
        if node.kind == "I":
            return jnp.zeros(shape)
        if node.kind == "Delay":
            return RingBuffer.filled(jnp.zeros(shape), self._delay(name)) if self._delay(name) else None
        return None

    def _delay(self, name: str) -> int:
        steps = np.asarray(self.nodes[name]["delay"]) * 1000 / self.dt
        whole = np.round(steps)
        if np.unique(whole).size != 1 or np.abs(steps - whole).max() > 1e-3:
            raise CompositionError(f"The delays of node {name!r} are not one multiple of dt = {self.dt} ms.")
        return int(whole.flat[0])

    def _apply(self, name: str, state: Any, x: Array) -> tuple[Any, Array]:
        node, seconds = self.nodes[name], self.dt / 1000
        kind = node.kind

        def approach(tau: Array) -> Array:
            """Share of the distance to a goal that one step covers."""
            return seconds / tau if self.method == "euler" else 1 - jnp.exp(-seconds / tau)

        if kind in ("LIF", "IF"):
            cell = self._cell(name)
            gain = (1 - cell.leak) if kind == "LIF" else seconds
            state, spikes = cell.step(state, (gain * (node["r"] * x).ravel()).reshape(-1))
            return state, spikes.reshape(self.shape(name))
        if kind == "CubaLIF":
            cell, (membrane, current) = self._cell(name), state
            current = current + approach(node["tau_syn"]) * (node["w_in"] * x - current)
            membrane, spikes = cell.step(membrane, (1 - cell.leak) * (node["r"] * current).ravel())
            return (membrane, current), spikes.reshape(self.shape(name))
        if kind == "LI":
            v = state + approach(node["tau"]) * (node["v_leak"] + node["r"] * x - state)
            return v, v
        if kind == "CubaLI":
            v, current = state
            current = current + approach(node["tau_syn"]) * (node["w_in"] * x - current)
            v = v + approach(node["tau_mem"]) * (node["v_leak"] + node["r"] * current - v)
            return (v, current), v
        if kind == "I":
            v = state + seconds * node["r"] * x
            return v, v
        if kind == "Delay":
            return (state.push(x), state.oldest()) if self._delay(name) else (state, x)
        return state, _transform(node, x)

    def neurons(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the nodes that fire."""
        return {name: self.shape(name) for name in self.order if self.nodes[name].kind in ("LIF", "IF", "CubaLIF")}


def _transform(node: Node, x: Array) -> Array:
    """Nodes without a state."""
    kind = node.kind
    if kind == "Output":
        return x
    if kind in ("Affine", "Linear"):
        y = node["weight"] @ x
        return y + node["bias"] if kind == "Affine" else y
    if kind == "Scale":
        return node["scale"] * x
    if kind == "Threshold":
        return spike(x - node["threshold"])
    if kind == "Flatten":
        first, last = node["start_dim"], node["end_dim"]
        last = x.ndim - 1 if last == -1 else last
        return x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :])
    if kind in SPATIAL:
        ndim = int(kind[4])
        padding = node["padding"]
        pads = padding.upper() if isinstance(padding, str) else [(p, p) for p in _several(padding, ndim)]
        y = jax.lax.conv_general_dilated(
            x[None], node["weight"], _several(node["stride"], ndim), pads, rhs_dilation=_several(node["dilation"], ndim),
            feature_group_count=node["groups"],
        )[0]  # fmt: skip
        return y + node["bias"].reshape(-1, *[1] * ndim)
    size, stride, padding = (_several(node[name], 2) for name in ("kernel_size", "stride", "padding"))
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, *size), (1, *stride), ((0, 0), *((p, p) for p in padding)))
    return total / np.prod(size) if kind == "AvgPool2d" else total


def _several(value: Any, ndim: int) -> tuple[int, ...]:
    return tuple(int(v) for v in np.broadcast_to(np.asarray(value).ravel(), (ndim,)))


STATIC = {
    "Conv1d": ("input_shape", "stride", "padding", "dilation", "groups"),
    "Conv2d": ("input_shape", "stride", "padding", "dilation", "groups"),
    "Flatten": ("start_dim", "end_dim"),
    "SumPool2d": ("kernel_size", "stride", "padding"),
    "AvgPool2d": ("kernel_size", "stride", "padding"),
}
ARRAYS = {
    "Input": (), "Output": (), "Affine": ("weight", "bias"), "Linear": ("weight",), "Scale": ("scale",),
    "Threshold": ("threshold",), "Delay": ("delay",), "I": ("r",), "Flatten": (), "SumPool2d": (), "AvgPool2d": (),
    "IF": ("r", "v_threshold", "v_reset"), "LI": ("tau", "r", "v_leak"),
    "LIF": ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak", "w_in"), "Conv1d": ("weight", "bias"), "Conv2d": ("weight", "bias"),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
}  # fmt: skip
TIMES = ("tau", "tau_syn", "tau_mem")


def from_nir(source: Any, *, dt: float = 0.1, method: Method = "euler", reset: Reset | None = None) -> NIRNetwork:
    """A network from a `.nir` file or a `nir.NIRGraph`.

    **Arguments:** `dt`: step, ms (snnTorch writes files for 0.1); `method`: how equations are stepped; `reset`: `"to value"` as
    NIR says, or `"subtract"` (the threshold), which other libraries may mean; by default what the file's note says, else NIR.

    **Raises:** `DataError` where the file is no NIR graph, a node is of an unknown kind, or a value is impossible.
    """
    if not dt > 0:
        raise InputError(f"dt = {dt} ms; a number above 0 is wanted.")
    if method not in ("euler", "exact"):
        raise InputError(f"method = {method!r}; 'euler' or 'exact' is wanted.")
    graph = _read(source) if isinstance(source, (str, Path)) else source
    note = _note(graph)
    nodes, edges = _flat(graph, "")
    for name, node in nodes.items():
        for time in TIMES:
            if time in node.arrays and not np.all(np.asarray(node.arrays[time]) > 0):
                raise DataError(
                    f"Node {name!r} has {time} = {np.asarray(node.arrays[time]).min()} s; times above 0 are wanted."
                )
        for key, values in node.arrays.items():
            if not np.isfinite(np.asarray(values)).all():
                raise DataError(f"Node {name!r} holds NaN or infinity in {key}.")
    order = _order(nodes, edges)
    for kind in SHAPE_ONLY:
        if not any(node.kind == kind for node in nodes.values()):
            raise DataError(f"The graph has no node of the kind {kind}.")
    network = NIRNetwork(
        nodes, jnp.asarray(float(note.get("start", 0.0))), tuple(edges), tuple(order), (), method,
        reset or note.get("reset", "to value"), float(dt),
    )  # fmt: skip
    return _with_shapes(network)


@runtime_checkable
class HasNIRGraph(Protocol):
    """A system that says itself how it is written, as converted networks do."""

    def nir_graph(self, nir: Any) -> tuple[dict[str, Any], list[tuple[str, str]], dict[str, Any]]:
        """Nodes by name, edges, and what NIR cannot say (`reset`, `start`), made with the library `nir`."""


def to_nir(system: System, *, unit_resistance: bool = False) -> Any:
    """A `nir.NIRGraph` of a network: one read from NIR, LIF neurons with or without a dense loop, or a system with `nir_graph`.

    What NIR cannot say (resets by subtraction, a head start) is kept in the graph's metadata.

    **Arguments:** `unit_resistance`: neurons whose inputs are jumps of the potential need a factor; by default it is their
    resistance, as snnTorch has it; where a reader ignores resistances, as Norse does, it can be in the weights.

    **Raises:** `CompositionError` for a system that NIR cannot express.
    """
    nir = _library()
    note: dict[str, Any] = {}
    if isinstance(system, NIRNetwork):
        source = {target: source for source, target in reversed(system.edges)}
        nodes = {name: _written(nir, node, system.shape(source.get(name, name))) for name, node in system.nodes.items()}
        edges = list(system.edges)
        note = {"reset": system.reset, "start": float(system.start)}
        if note == {"reset": "to value", "start": 0.0}:
            note = {}
    elif isinstance(system, LIF):
        nodes, edges, note = _neurons(nir, system, unit_resistance)
    elif isinstance(system, Feedback) and isinstance(system.forward, LIF) and isinstance(system.back, Dense):
        if system.back.delay != 1:
            raise CompositionError(f"NIR's loops have a delay of one step; this projection has {system.back.delay}.")
        nodes, edges, note = _neurons(nir, system.forward, unit_resistance)
        weights = _jumps(system.back.weights, system.forward) if unit_resistance else np.asarray(system.back.weights)
        nodes["recurrent"] = nir.Linear(weight=weights)
        edges += [("neurons", "recurrent"), ("recurrent", "neurons")]
    elif isinstance(system, HasNIRGraph):
        nodes, edges, note = system.nir_graph(nir)
    else:
        raise CompositionError(f"{type(system).__name__} cannot be written as a NIR graph.")
    graph = nir.NIRGraph(nodes=nodes, edges=edges, type_check=False)
    if note:
        graph.metadata = {NOTE: json.dumps(note)}
    return graph


def write_nir(system: System, path: str | Path, *, unit_resistance: bool = False) -> None:
    """Writes a network as a `.nir` file; `unit_resistance` as of `to_nir`."""
    _library().write(str(path), to_nir(system, unit_resistance=unit_resistance))


def _library() -> Any:
    try:
        import nir
    except ImportError:
        raise MissingExtraError("NIR", "data") from None
    return nir


def _read(path: str | Path) -> Any:
    nir = _library()
    found = existing(path)
    if found.is_dir():
        raise InputError(f"{found} is a folder; a .nir file is wanted.")
    if found.stat().st_size > MAX_BYTES:
        raise DataError(f"{found} has {found.stat().st_size / MIB:.0f} MiB; at most {MAX_BYTES / MIB:g} MiB are read.")
    try:
        return nir.read(str(found))
    except AttributeError as error:
        raise DataError(f"{found} holds a node of an unknown kind ({error}).") from None
    except Exception as error:  # h5py and nir raise whatever a damaged file leads them to
        text = str(error).split("\n")[0][:120]
        raise DataError(f"{found} is not a NIR graph ({type(error).__name__}: {text}).") from None


def _note(graph: Any) -> dict[str, Any]:
    """What this package wrote beside the graph."""
    raw = (getattr(graph, "metadata", None) or {}).get(NOTE)
    if raw is None:
        return {}
    try:
        found = json.loads(raw.decode() if isinstance(raw, bytes) else str(raw))
        return {"reset": found["reset"], "start": float(found["start"])}
    except (ValueError, TypeError, KeyError):
        raise DataError(f"The graph's note {str(raw)[:80]!r} cannot be read.") from None


def _flat(graph: Any, prefix: str) -> tuple[dict[str, Node], list[tuple[str, str]]]:
    """Nodes and edges, those of graphs within the graph under `outer.inner`."""
    nodes: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []
    ends: dict[str, tuple[str, str]] = {}
    for name, node in graph.nodes.items():
        full = prefix + name
        kind = type(node).__name__
        if kind == "NIRGraph":
            inner, inner_edges = _flat(node, f"{full}.")
            first = [key for key, each in inner.items() if each.kind == "Input" and key.count(".") == full.count(".") + 1]
            last = [key for key, each in inner.items() if each.kind == "Output" and key.count(".") == full.count(".") + 1]
            if len(first) != 1 or len(last) != 1:
                raise DataError(
                    f"Graph {full!r} within the graph has {len(first)} inputs and {len(last)} outputs; 1 each is wanted."
                )
            for key in (*first, *last):
                inner[key] = Node("Scale", {"scale": jnp.ones(())})
            nodes |= inner
            edges += inner_edges
            ends[full] = (first[0], last[0])
            continue
        if kind not in ARRAYS:
            raise DataError(f"Node {full!r} is of the kind {kind}, which is not known here.")
        arrays = {field: jnp.asarray(np.asarray(getattr(node, field))) for field in ARRAYS[kind]}
        options = tuple((field, _frozen(getattr(node, field))) for field in STATIC.get(kind, ()))
        if kind in SHAPE_ONLY:
            types = node.input_type if kind == "Input" else node.output_type
            shape = next(iter(types.values()))
            options = (("shape", None if shape is None else tuple(int(n) for n in np.asarray(shape))),)
        nodes[full] = Node(kind, arrays, options)
    for source, target in graph.edges:
        pair = (ends.get(prefix + source, ("", prefix + source))[1], ends.get(prefix + target, (prefix + target, ""))[0])
        for end in pair:
            if end not in nodes:
                raise DataError(f"An edge names the node {end!r}, which does not exist.")
        if pair not in edges:
            edges.append(pair)
    return nodes, edges


def _frozen(value: Any) -> Any:
    """A parameter that fixes shapes, as something hashable."""
    if value is None or isinstance(value, str):
        return value
    array = np.asarray(value)
    return int(array) if array.ndim == 0 else tuple(int(v) for v in array)


def _order(nodes: Mapping[str, Node], edges: list[tuple[str, str]]) -> list[str]:
    """Nodes such that as few edges as possible point back: depth first from the inputs, each after what feeds it."""
    targets: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        targets[source].append(target)
    done: list[str] = []
    seen: set[str] = set()
    for start in sorted(nodes, key=lambda name: nodes[name].kind != "Input"):
        stack = [(start, iter(targets[start]))] if start not in seen else []
        seen.add(start)
        while stack:
            name, rest = stack[-1]
            following = next((target for target in rest if target not in seen), None)
            if following is None:
                done.append(name)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(targets[following])))
    return done[::-1]


def _with_shapes(network: NIRNetwork) -> NIRNetwork:
    """With the shape of each node's output, from the inputs on."""
    import dataclasses

    shapes: dict[str, tuple[int, ...]] = {}
    for name in network.order:
        node = network.nodes[name]
        if node.kind == "Input":
            if node["shape"] is None:
                raise DataError(f"Input node {name!r} does not say its shape.")
            shapes[name] = node["shape"]
            continue
        arriving = [shapes[source] for source, target in network.edges if target == name and source in shapes]
        if not arriving:
            raise DataError(f"Nothing leads to node {name!r}.")
        x = jax.ShapeDtypeStruct(arriving[0], jnp.result_type(float))
        try:
            if node.kind in ("LIF", "IF", "LI", "I", "CubaLIF", "CubaLI"):
                shapes[name] = np.broadcast_shapes(arriving[0], *(array.shape for array in node.arrays.values()))
            elif node.kind == "Delay":
                shapes[name] = arriving[0]
            else:
                shapes[name] = jax.eval_shape(lambda x, node=node: _transform(node, x), x).shape
        except (TypeError, ValueError) as error:
            raise DataError(
                f"Node {name!r} ({node.kind}) does not fit its input of the shape {arriving[0]} ({str(error)[:80]})."
            ) from None
    for source, target in network.edges:
        wanted = shapes[source]
        first = next(s for s, t in network.edges if t == target)
        if shapes[first] != wanted:
            raise DataError(f"Inputs of node {target!r} have the shapes {shapes[first]} and {wanted}; they must agree.")
    return dataclasses.replace(network, shapes=tuple(shapes.items()))


def _written(nir: Any, node: Node, shape: tuple[int, ...]) -> Any:
    """The node for the library; `shape`: of what arrives there."""
    if node.kind in SHAPE_ONLY:
        size = np.array(node["shape"] if node["shape"] is not None else shape)
        return nir.Input(input_type={"input": size}) if node.kind == "Input" else nir.Output(output_type={"output": size})
    values = {name: np.asarray(array) for name, array in node.arrays.items()} | dict(node.options)
    if node.kind == "Flatten":
        values["input_type"] = {"input": np.array(shape)}
    if node.kind in SPATIAL and values["input_shape"] is None:
        values["input_shape"] = shape[1] if node.kind == "Conv1d" else shape[1:]
    if node.kind in ("SumPool2d", "AvgPool2d"):
        values = {name: np.asarray(value) for name, value in values.items()}
    return getattr(nir, node.kind)(**values)


def _jumps(weights: Array, cell: LIF) -> np.ndarray:
    """Jumps of the potential (neurons, …) as the currents that cause them where the resistance is 1."""
    share = jnp.broadcast_to(1 - cell.leak, (cell.size,))
    return np.asarray(weights / share.reshape(-1, *[1] * (weights.ndim - 1)))


def _lif(nir: Any, cell: LIF, r: np.ndarray) -> Any:
    if cell.hold:
        raise CompositionError("NIR has no refractory period; this neuron has one.")
    wide = {
        name: np.broadcast_to(np.asarray(value, np.float32), (cell.size,)).copy()
        for name, value in (
            ("tau", cell.tau / 1000), ("v_leak", cell.rest), ("v_threshold", cell.threshold),
            ("v_reset", cell.rest if cell.reset is None else cell.reset),
        )
    }  # fmt: skip
    if np.isinf(wide["tau"]).any():
        raise CompositionError("A neuron without a leak is written as part of a converted network only.")
    return nir.LIF(r=r, **wide)


def _neurons(nir: Any, cell: LIF, unit_resistance: bool) -> tuple[dict[str, Any], list[tuple[str, str]], dict[str, Any]]:
    """LIF neurons whose inputs are jumps of the potential."""
    if cell.reset is None and not np.allclose(np.asarray(cell.rest), 0):
        raise CompositionError("A soft reset is written for neurons that rest at 0.")
    size = np.array([cell.size])
    factor = _jumps(jnp.ones(cell.size), cell)
    nodes = {
        "input": nir.Input(input_type={"input": size}),
        "neurons": _lif(nir, cell, np.ones_like(factor) if unit_resistance else factor),
        "output": nir.Output(output_type={"output": size}),
    }
    edges = [("input", "neurons"), ("neurons", "output")]
    if unit_resistance:
        nodes["drive"] = nir.Affine(weight=np.diag(factor), bias=np.zeros_like(factor))
        edges = [("input", "drive"), ("drive", "neurons"), ("neurons", "output")]
    return nodes, edges, {"reset": "subtract", "start": 0.0} if cell.reset is None else {}
