"""Files of the Neuromorphic Intermediate Representation, as graphs of the library `nir`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.errors import DataError, InputError
from broadsheet.files import MIB, existing
from broadsheet.networks.nir_graph import library
from broadsheet.networks.nir_nodes import KINDS

MAX_BYTES = 2048 * MIB
DEFAULTS = ("v_reset", "w_in", "input_shape", "input_type")
"""What a file may leave out."""


def read_graph(path: str | Path) -> Any:
    """The `nir.NIRGraph` in a file. Types are not checked: the library knows no grouped convolutions and no single parameters.

    Parameters of a layer that have different shapes are broadcast, where one of them stands for all neurons.

    **Raises:** `DataError` where the file is no graph, or a node is of an unknown kind, lacks a parameter or has a strange one.
    """
    nir = library()
    import h5py

    found = existing(path)
    if found.is_dir():
        raise InputError(f"{found} is a folder; a .nir file is wanted.")
    if found.stat().st_size > MAX_BYTES:
        raise DataError(f"{found} has {found.stat().st_size / MIB:.0f} MiB; at most {MAX_BYTES / MIB:g} MiB are read.")
    try:
        with h5py.File(found, "r") as file:
            tree = _tree(file["node"])
        if tree.get("type") != "NIRGraph":
            tree = {"type": "NIRGraph", "nodes": {"node": tree}, "edges": []}
        _check(tree, "")
        return nir.dict2NIRNode(tree)
    except DataError as error:
        raise DataError(f"{found}: {error}") from None
    except Exception as error:  # h5py and nir raise whatever a damaged file leads them to
        text = str(error).split("\n")[0][:120]
        raise DataError(f"{found} is not a NIR graph ({type(error).__name__}: {text}).") from None


def _tree(group: Any) -> dict[str, Any]:
    """What is stored in a group, groups within it as dictionaries, bytes as text."""
    found: dict[str, Any] = {}
    for name, item in group.items():
        value = _tree(item) if isinstance(item, Mapping) else item[()]
        found[name] = value.decode() if isinstance(value, bytes) else value
    return found


def _check(graph: dict[str, Any], prefix: str) -> None:
    """Makes a stored graph, with those in it, one that the library takes, or says which node it would not take."""
    graph["type_check"] = False
    for name, node in graph["nodes"].items():
        kind = node.get("type")
        if kind == "NIRGraph":
            _check(node, f"{prefix}{name}.")
            continue
        if kind not in KINDS:
            raise DataError(f"Node {prefix + name!r} is of the kind {kind}, which is not known here.")
        known = {*KINDS[kind].arrays, *KINDS[kind].options} - {"steps"}
        if missing := sorted(known - node.keys() - {*DEFAULTS}):
            raise DataError(f"Node {prefix + name!r} ({kind}) has no {missing[0]}.")
        if strange := sorted(node.keys() - known - {"type", "metadata"}):
            raise DataError(f"Node {prefix + name!r} ({kind}) has {strange[0]!r}, which NIR does not know.")
        if "input_shape" in known:
            node.setdefault("input_shape", None)
        if KINDS[kind].shape == "same":
            _even(node, [field for field in KINDS[kind].arrays if field in node], f"{prefix}{name}")


def _even(node: dict[str, Any], fields: list[str], name: str) -> None:
    """Gives the parameters of a layer one shape, where one value stands for all neurons."""
    shapes = {np.shape(node[field]) for field in fields}
    if len(shapes) > 1:
        largest = max(shapes, key=lambda shape: (np.prod(shape), len(shape)))
        for field in fields:
            if np.size(node[field]) != 1 and np.shape(node[field]) != largest:
                raise DataError(f"Node {name!r} has {field} of the shape {np.shape(node[field])} beside one of {largest}.")
            node[field] = np.full(largest, node[field]) if np.size(node[field]) == 1 else node[field]
