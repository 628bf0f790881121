"""Networks in the Neuromorphic Intermediate Representation, as systems: read from files of other libraries, and run.

NIR states equations in continuous time (seconds); a program chooses how to step through them. Here `method="euler"` is what
snnTorch and Norse do, `"exact"` integrates leaks exactly. An edge that closes a loop carries the output of the step before.
`broadsheet.networks.nir_nodes` says what each kind of node computes, `nir_files` reads files, `nir_writing` writes networks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from broadsheet.dynamics.system import System, split
from broadsheet.errors import CompositionError, DataError, InputError
from broadsheet.networks.nir_files import read_graph
from broadsheet.networks.nir_graph import NOTE
from broadsheet.networks.nir_nodes import (
    KINDS,
    SHAPE_ONLY,
    TIMES,
    Method,
    Node,
    Reset,
    Stepping,
    delay_steps,
    is_pass,
    shape_after,
    system_of,
)


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

    @property
    def stepping(self) -> Stepping:
        return Stepping(self.method, self.reset, self.start, self.dt)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a node's output."""
        return dict(self.shapes)[name]

    def system(self, name: str) -> System:
        """What a node computes."""
        try:
            return system_of(self.nodes[name], self.shape(name), self.stepping)
        except CompositionError as error:
            raise CompositionError(f"Node {name!r}: {error}") from None

    def init(self, key: PRNGKeyArray) -> tuple[dict[str, Any], dict[str, Array]]:
        keys = split(key, len(self.order))
        states = {name: self.system(name).init(k) for name, k in zip(self.order, keys, strict=True)}
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
            after[name], found[name] = self.system(name).step(states[name], sum(arriving[1:], arriving[0]))
        answer = {name: found[name] for name in self.outputs}
        out = answer if len(answer) > 1 else answer[self.outputs[0]]
        return (after, {name: found[name] for name in last}), out

    def _late(self, source: str, target: str) -> bool:
        """Whether an edge points back, and so carries the output of the step before."""
        return self.order.index(source) >= self.order.index(target)

    def neurons(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the nodes that fire."""
        return {name: self.shape(name) for name in self.order if KINDS[self.nodes[name].kind].fires}

    def spiking(self, name: str) -> bool:
        """Whether a node puts out spikes, 0 or 1 in each step: its neurons fire, or it hands on the spikes of others."""
        node, sources = self.nodes[name], [source for source, target in self.edges if target == name]
        if KINDS[node.kind].fires or node.kind == "Threshold":
            return True
        return is_pass(node) and len(sources) == 1 and self.spiking(sources[0])

    def replaced(self, name: str, parameter: str, value: float) -> NIRNetwork:
        """The network with one value for a parameter everywhere in a node; an impossible delay raises `CompositionError`."""
        node = self.nodes[name]
        changed = Node(node.kind, node.arrays | {parameter: jnp.full_like(node.arrays[parameter], value)}, node.options)
        return dataclasses.replace(self, nodes=self.nodes | {name: _timed(name, changed, self.dt)})


def from_nir(source: Any, *, dt: float = 0.1, method: Method = "euler", reset: Reset | None = None) -> NIRNetwork:
    """A network from a `.nir` file or a `nir.NIRGraph`, of all kinds of node that NIR has, graphs within graphs included.

    A layer has one value of a parameter or one for each neuron, and a `Delay` one delay or several, all multiples of `dt`. A
    node without an input gets an Input, one that leads nowhere an Output. Metadata of others are notes, and not read.

    **Arguments:** `dt`: step, ms (snnTorch writes files for 0.1); `method`: how equations are stepped; `reset`: `"to value"` as
    NIR says, or `"subtract"` (the threshold), which other libraries may mean; by default what the file's note says, else NIR.

    **Raises:** `DataError` where the file is no NIR graph, a node is of an unknown kind, or a value is impossible;
    `CompositionError` for a delay that is no multiple of the step. Both name the node.
    """
    if not dt > 0:
        raise InputError(f"dt = {dt} ms; a number above 0 is wanted.")
    if method not in ("euler", "exact"):
        raise InputError(f"method = {method!r}; 'euler' or 'exact' is wanted.")
    graph = read_graph(source) if isinstance(source, (str, Path)) else source
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
    nodes = {name: _timed(name, node, dt) for name, node in nodes.items()}
    order = _order(nodes, edges)
    for kind in SHAPE_ONLY:
        if not any(node.kind == kind for node in nodes.values()):
            raise DataError(f"The graph has no node of the kind {kind}.")
    network = NIRNetwork(
        nodes, jnp.asarray(float(note.get("start", 0.0))), tuple(edges), tuple(order), (), method,
        reset or note.get("reset", "to value"), float(dt),
    )  # fmt: skip
    return _with_shapes(network)


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


def _timed(name: str, node: Node, dt: float) -> Node:
    """The node with its delays in steps of `dt` ms, where it has any."""
    if node.kind != "Delay":
        return node
    try:
        return Node(node.kind, node.arrays, (("steps", delay_steps(node["delay"], dt)),))
    except CompositionError as error:
        raise CompositionError(f"Node {name!r}: {error}") from None


def _flat(graph: Any, prefix: str) -> tuple[dict[str, Node], list[tuple[str, str]]]:
    """Nodes and edges, those of graphs within the graph under `outer.inner`."""
    nodes: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []
    ends: dict[str, tuple[str, str]] = {}
    for name, node in graph.nodes.items():
        full = prefix + name
        if type(node).__name__ == "NIRGraph":
            found, inner_edges = _flat(node, f"{full}.")
            first, last = ([key for key in found if found[key].kind == kind] for kind in SHAPE_ONLY)
            if len(first) != 1 or len(last) != 1:
                raise DataError(
                    f"Graph {full!r} within the graph has {len(first)} inputs and {len(last)} outputs; 1 each is wanted."
                )
            found |= {key: Node("Scale", {"scale": jnp.ones(())}) for key in (*first, *last)}
            edges += inner_edges
            ends[full] = (first[0], last[0])
        else:
            found = {full: _node(full, node)}
        if twice := nodes.keys() & found.keys():
            raise DataError(f"Two nodes are called {sorted(twice)[0]!r}, one of them within a graph in the graph.")
        nodes |= found
    for source, target in graph.edges:
        pair = (ends.get(prefix + source, ("", prefix + source))[1], ends.get(prefix + target, (prefix + target, ""))[0])
        for end in pair:
            if end not in nodes:
                raise DataError(f"An edge names the node {end!r}, which does not exist.")
        if pair in edges:
            raise DataError(f"There are two edges from {pair[0]!r} to {pair[1]!r}; one is wanted.")
        edges.append(pair)
    return _with_ends(graph, prefix, nodes, edges, ends)


def _with_ends(
    graph: Any, prefix: str, nodes: dict[str, Node], edges: list[tuple[str, str]], ends: dict[str, tuple[str, str]]
) -> tuple[dict[str, Node], list[tuple[str, str]]]:
    """With an Input before each node of the graph that has none and says its shape, an Output after each that leads nowhere."""
    targets, sources = {target for _, target in edges}, {source for source, _ in edges}
    for name, node in graph.nodes.items():
        kind = type(node).__name__
        first, last = ends.get(prefix + name, (prefix + name, prefix + name))
        shape = next(iter((node.input_type or {}).values()), None)
        if first not in targets and kind not in SHAPE_ONLY and shape is not None:
            _add(nodes, f"{prefix}input_{name}", Node("Input", {}, (("shape", _shape(shape)),)))
            edges.append((f"{prefix}input_{name}", first))
        if last not in sources and kind not in SHAPE_ONLY:
            _add(nodes, f"{prefix}output_{name}", Node("Output", {}, (("shape", None),)))
            edges.append((last, f"{prefix}output_{name}"))
    return nodes, edges


def _add(nodes: dict[str, Node], name: str, node: Node) -> None:
    if name in nodes:
        raise DataError(f"A node lacks an input or an output, and its name {name!r} is taken.")
    nodes[name] = node


def _node(name: str, node: Any) -> Node:
    """A node of the library as ours."""
    kind = type(node).__name__
    if kind not in KINDS:
        raise DataError(f"Node {name!r} is of the kind {kind}, which is not known here.")
    try:
        arrays = {field: jnp.asarray(np.asarray(getattr(node, field))) for field in KINDS[kind].arrays}
        if kind in SHAPE_ONLY:
            shape = next(iter((node.input_type if kind == "Input" else node.output_type).values()))
            return Node(kind, arrays, (("shape", None if shape is None else _shape(shape)),))
        options = {field: getattr(node, field) for field in KINDS[kind].options if field != "steps"}
        if kind == "Flatten":
            options["input_type"] = options["input_type"]["input"]
        return Node(kind, arrays, tuple((field, _frozen(value)) for field, value in options.items()))
    except (TypeError, ValueError) as error:
        raise DataError(f"Node {name!r} ({kind}) has a value that cannot be read ({str(error)[:80]}).") from None


def _shape(shape: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in np.ravel(np.asarray(shape)))


def _frozen(value: Any) -> Any:
    """A parameter that fixes shapes, as something hashable."""
    if value is None or isinstance(value, str):
        return value
    array = np.asarray(value)
    if not (array == np.round(array)).all():
        raise ValueError(f"{value} is no whole number")
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
        try:
            shapes[name] = shape_after(node, arriving[0], network.stepping)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"Node {name!r} ({node.kind}) does not fit its input of the shape {arriving[0]} ({str(error)[:80]})."
            ) from None
        if node.kind == "Output" and node["shape"] not in (None, shapes[name]):
            raise DataError(f"Output node {name!r} says the shape {node['shape']}; {shapes[name]} arrives there.")
        if 0 in shapes[name]:
            raise DataError(f"Node {name!r} ({node.kind}) leaves nothing of its input of the shape {arriving[0]}.")
    for source, target in network.edges:
        wanted = shapes[source]
        first = next(s for s, t in network.edges if t == target)
        if shapes[first] != wanted:
            raise DataError(f"Inputs of node {target!r} have the shapes {shapes[first]} and {wanted}; they must agree.")
    return dataclasses.replace(network, shapes=tuple(shapes.items()))
