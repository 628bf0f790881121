"""Networks written as NIR, so that other libraries can read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from broadsheet.dynamics.compose import Feedback
from broadsheet.dynamics.system import System
from broadsheet.errors import CompositionError
from broadsheet.networks.nir import NIRNetwork
from broadsheet.networks.nir_graph import NOTE, Chain, Graph, HasNIRGraph, jumps, library, lif_node, note, reset_of
from broadsheet.networks.nir_nodes import SHAPE_ONLY, Node
from broadsheet.networks.projections import Dense
from broadsheet.neurons.integrate_and_fire import LIF


def to_nir(system: System | HasNIRGraph, *, unit_resistance: bool = False) -> Any:
    """A `nir.NIRGraph` of a network: one read from NIR, LIF neurons with or without a dense loop, or a system with `nir_graph`.

    What NIR cannot say (resets by subtraction, a head start) is kept in the graph's metadata.

    **Arguments:** `unit_resistance`: neurons whose inputs are jumps of the potential need a factor; by default it is their
    resistance, as snnTorch has it; where a reader ignores resistances, as Norse does, it can be in the weights.

    **Raises:** `CompositionError` for a system that NIR cannot express.
    """
    nir = library()
    if isinstance(system, NIRNetwork):
        source = {target: source for source, target in reversed(system.edges)}
        nodes = {name: _written(nir, node, system.shape(source.get(name, name))) for name, node in system.nodes.items()}
        edges = list(system.edges)
        kept = note(system.reset, float(system.start))
    elif isinstance(system, LIF):
        nodes, edges, kept = _neurons(nir, system, unit_resistance)
    elif isinstance(system, Feedback) and isinstance(system.forward, LIF) and isinstance(system.back, Dense):
        if system.back.delay != 1:
            raise CompositionError(f"NIR's loops have a delay of one step; this projection has {system.back.delay}.")
        nodes, edges, kept = _neurons(nir, system.forward, unit_resistance)
        weights = jumps(system.back.weights, system.forward) if unit_resistance else np.asarray(system.back.weights)
        nodes["recurrent"] = nir.Linear(weight=weights)
        edges += [("neurons", "recurrent"), ("recurrent", "neurons")]
    elif isinstance(system, HasNIRGraph):
        nodes, edges, kept = system.nir_graph(nir)
    else:
        raise CompositionError(f"{type(system).__name__} cannot be written as a NIR graph.")
    graph = nir.NIRGraph(nodes=nodes, edges=edges, type_check=False)
    if kept:
        graph.metadata = {NOTE: json.dumps(kept)}
    return graph


def write_nir(system: System | HasNIRGraph, path: str | Path, *, unit_resistance: bool = False) -> None:
    """Writes a network as a `.nir` file; `unit_resistance` as of `to_nir`."""
    library().write(str(path), to_nir(system, unit_resistance=unit_resistance))


def _written(nir: Any, node: Node, shape: tuple[int, ...]) -> Any:
    """The node for the library; `shape`: of what arrives there."""
    if node.kind in SHAPE_ONLY:
        size = np.array(node["shape"] if node["shape"] is not None else shape)
        return nir.Input(input_type={"input": size}) if node.kind == "Input" else nir.Output(output_type={"output": size})
    values = {name: np.asarray(array)[()] for name, array in node.arrays.items()} | dict(node.options)  # no arrays without axes
    values.pop("steps", None)  # of delays, which are written in seconds
    if node.kind == "Flatten":
        values["input_type"] = {"input": np.array(shape)}
    if node.kind in ("Conv1d", "Conv2d") and values["input_shape"] is None:
        values["input_shape"] = shape[1] if node.kind == "Conv1d" else shape[1:]
    if node.kind in ("SumPool2d", "AvgPool2d"):
        values = {name: np.asarray(value) for name, value in values.items()}
    return getattr(nir, node.kind)(**values)


def _neurons(nir: Any, cell: LIF, unit_resistance: bool) -> Graph:
    """LIF neurons whose inputs are jumps of the potential."""
    chain = Chain(nir, (cell.size,))
    if unit_resistance:
        factor = jumps(jnp.ones(cell.size), cell)
        chain.linear("drive", np.diag(factor), np.zeros_like(factor))
        chain.add("neurons", lif_node(nir, cell, np.ones_like(factor)))
    else:
        chain.spiking("neurons", cell)
    return chain.graph((cell.size,), reset=reset_of(cell))
