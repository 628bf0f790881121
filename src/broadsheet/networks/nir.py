"""Networks in the Neuromorphic Intermediate Representation, as systems: read from files of other libraries, and run.

NIR states equations in continuous time (seconds); a program chooses how to step through them. Here `method="euler"` is what
snnTorch and Norse do, `"exact"` integrates leaks exactly. An edge that closes a loop carries the output of the step before.
`broadsheet.networks.nir_nodes` says what each kind of node computes, `nir_writing` writes networks.
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
from broadsheet.files import MIB, existing
from broadsheet.networks.nir_graph import NOTE, library
from broadsheet.networks.nir_nodes import KINDS, TIMES, Method, Node, Reset, Stepping, shape_after, system_of

SHAPE_ONLY = ("Input", "Output")
MAX_BYTES = 2048 * MIB


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


def _read(path: str | Path) -> Any:
    nir = library()
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
        if kind not in KINDS:
            raise DataError(f"Node {full!r} is of the kind {kind}, which is not known here.")
        arrays = {field: jnp.asarray(np.asarray(getattr(node, field))) for field in KINDS[kind].arrays}
        if kind in SHAPE_ONLY:
            types = node.input_type if kind == "Input" else node.output_type
            shape = next(iter(types.values()))
            options: tuple = (("shape", None if shape is None else tuple(int(n) for n in np.asarray(shape))),)
        else:
            options = tuple((field, _frozen(getattr(node, field))) for field in KINDS[kind].options)
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
    for source, target in network.edges:
        wanted = shapes[source]
        first = next(s for s, t in network.edges if t == target)
        if shapes[first] != wanted:
            raise DataError(f"Inputs of node {target!r} have the shapes {shapes[first]} and {wanted}; they must agree.")
    return dataclasses.replace(network, shapes=tuple(shapes.items()))
