"""Networks as the nodes and edges of a NIR graph, made with the library `nir`."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from broadsheet.errors import CompositionError, MissingExtraError
from broadsheet.neurons.integrate_and_fire import LIF

Graph = tuple[dict[str, Any], list[tuple[str, str]], dict[str, Any]]
"""Nodes by name, edges, and what NIR cannot say (`reset`, `start`), which is kept as a note."""
NOTE = "broadsheet"
"""Key of the note in a graph's metadata."""


@runtime_checkable
class HasNIRGraph(Protocol):
    """A system that says itself how it is written, as trained and converted networks do."""

    def nir_graph(self, nir: Any) -> Graph:
        """Nodes, edges and note, made with the library `nir`; raises `CompositionError` for what NIR cannot express."""


def library() -> Any:
    """The library `nir`; raises `MissingExtraError` where it is not installed."""
    try:
        import nir
    except ImportError:
        raise MissingExtraError("NIR", "data") from None
    return nir


class Chain:
    """A graph of nodes one after another, from an input of this shape on."""

    def __init__(self, nir: Any, shape: tuple[int, ...]) -> None:
        self.nir = nir
        self.nodes: dict[str, Any] = {"input": nir.Input(input_type={"input": np.array(shape)})}
        self.edges: list[tuple[str, str]] = []
        self._last = "input"

    def add(self, name: str, node: Any) -> None:
        """A node after the last one."""
        self.nodes[name] = node
        self.edges.append((self._last, name))
        self._last = name

    def linear(self, name: str, weight: Any, bias: Any | None = None) -> None:
        """Weights (outputs, inputs), with a bias where there is one."""
        weight = np.asarray(weight)
        self.add(
            name, self.nir.Linear(weight=weight) if bias is None else self.nir.Affine(weight=weight, bias=np.asarray(bias))
        )

    def spiking(self, name: str, cell: LIF) -> None:
        """LIF neurons whose inputs are jumps of the potential."""
        self.add(name, lif_node(self.nir, cell, jumps(jnp.ones(cell.size), cell)))

    def graph(self, shape: tuple[int, ...], *, reset: str = "to value", start: float = 0.0) -> Graph:
        """The graph, with an output of this shape after the last node."""
        self.add("output", self.nir.Output(output_type={"output": np.array(shape)}))
        return self.nodes, self.edges, note(reset, start)


def note(reset: str, start: float) -> dict[str, Any]:
    """What is kept beside a graph: nothing where it is as NIR has it."""
    return {} if (reset, start) == ("to value", 0.0) else {"reset": reset, "start": start}


def reset_of(cell: LIF) -> str:
    """What NIR cannot say of a neuron: whether it is reset to a value or loses its threshold."""
    return "subtract" if cell.reset is None else "to value"


def jumps(weights: Array, cell: LIF) -> np.ndarray:
    """Jumps of the potential (neurons, …) as the currents that cause them where the resistance is 1."""
    share = jnp.broadcast_to(1 - cell.leak, (cell.size,))
    return np.asarray(weights / share.reshape(-1, *[1] * (weights.ndim - 1)))


def lif_node(nir: Any, cell: LIF, r: np.ndarray) -> Any:
    """LIF neurons with these resistances; raises `CompositionError` for what NIR has no word for."""
    if cell.hold:
        raise CompositionError("NIR has no refractory period; this neuron has one.")
    if cell.reset is None and not np.allclose(np.asarray(cell.rest), 0):
        raise CompositionError("A soft reset is written for neurons that rest at 0.")
    if cell.drop is not None and not np.allclose(np.asarray(cell.drop), np.asarray(cell.threshold)):
        raise CompositionError("A soft reset is written for neurons that lose their threshold at a spike; this one loses less.")
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
