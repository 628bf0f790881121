"""Trained feed-forward networks from files of other libraries: safetensors with PyTorch's names, and ONNX graphs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from broadsheet.cache import write_atomic
from broadsheet.conversion.conversion import Layer, QuantisedNet, Sequential
from broadsheet.errors import DataError, InputError, MissingExtraError
from broadsheet.files import MIB, existing, load_arrays

MAX_BYTES = 2048 * MIB
NOTE = "broadsheet"
"""Key of the layers' kinds in a file's metadata."""


def read_network(path: str | Path) -> tuple[Sequential, list[float] | None]:
    """(layers with activations between them, ceilings of the activations where the file has them).

    From ONNX: Gemm, MatMul with Add, Conv, Relu or Clip, AveragePool, Flatten. From safetensors: what `save_network` wrote, or
    linear layers named as PyTorch names them (`0.weight`, `0.bias`, `2.weight`, …), taken in order with an activation between.

    **Raises:** `DataError` for anything else, with the name of what was not understood.
    """
    found = existing(path)
    if found.suffix == ".onnx":
        return _from_onnx(found), None
    if found.suffix != ".safetensors":
        raise InputError(f"{found} is neither a .safetensors nor an .onnx file.")
    arrays = load_arrays(found)
    note = _note(found)
    return _from_note(found, arrays, note) if note is not None else (_from_names(found, arrays), None)


def save_network(net: QuantisedNet, path: str | Path) -> None:
    """Writes a quantised network of `Sequential` layers as safetensors, its layers' kinds in the metadata."""
    from safetensors.numpy import save

    if not isinstance(net.body, Sequential):
        raise InputError(f"{type(net.body).__name__} cannot be written as a row of layers.")
    arrays = {f"theta.{k}": np.asarray(theta) for k, theta in enumerate(net.theta)}
    kinds = []
    for k, layer in enumerate(net.body.layers):
        kinds.append({"kind": layer.kind, "size": layer.size, "padding": layer.padding})
        arrays |= {f"{k}.{name}": np.asarray(part) for name in ("weight", "bias") if (part := getattr(layer, name)) is not None}
    note = json.dumps({"layers": kinds, "levels": net.levels, "shape": list(net.shape)})
    write_atomic(Path(path), save(arrays, metadata={NOTE: note}))


def _note(path: Path) -> dict[str, Any] | None:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        raw = (file.metadata() or {}).get(NOTE)
    if raw is None:
        return None
    try:
        return dict(json.loads(raw))
    except (ValueError, TypeError):
        raise DataError(f"{path}: its metadata {raw[:60]!r} cannot be read.") from None


def _from_note(path: Path, arrays: dict[str, Any], note: dict[str, Any]) -> tuple[Sequential, list[float]]:
    layers: list[Layer] = []
    try:
        for k, each in enumerate(note["layers"]):
            weight, bias = (arrays.get(f"{k}.{name}") for name in ("weight", "bias"))
            if each["kind"] in ("linear", "conv") and weight is None:
                raise DataError(f"{path} has no {k}.weight.")
            if each["kind"] not in ("linear", "conv", "pool", "flatten", "activation"):
                raise DataError(f"{path}: layer {k} is of the kind {each['kind']!r}, which is not known here.")
            layers.append(_layer(each["kind"], weight, bias, int(each["size"]), int(each["padding"])))
        count = sum(layer.kind == "activation" for layer in layers)
        return Sequential(tuple(layers)), [float(arrays[f"theta.{k}"]) for k in range(count)]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its metadata does not fit its arrays ({error!r}).") from None


def _from_names(path: Path, arrays: dict[str, Any]) -> Sequential:
    def place(name: str) -> list[Any]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    names = sorted((name for name in arrays if name.endswith("weight")), key=place)
    if not names:
        raise DataError(f"{path} holds {', '.join(sorted(arrays)[:5]) or 'nothing'}; arrays named …weight are wanted.")
    layers: list[Layer] = []
    for name in names:
        weight = arrays[name]
        if weight.ndim != 2:
            raise DataError(
                f"{path}: {name} has the shape {weight.shape}; only linear layers can be told by their names, use ONNX."
            )
        layers += [_layer("linear", weight, arrays.get(name.removesuffix("weight") + "bias")), Layer("activation")]
    for before, after in zip(layers[:-3:2], layers[2::2], strict=False):
        if before.weight is not None and after.weight is not None and len(before.weight) != after.weight.shape[1]:
            raise DataError(f"{path}: layers of {len(before.weight)} outputs and {after.weight.shape[1]} inputs do not fit.")
    return Sequential(tuple(layers[:-1]))


def _layer(
    kind: Literal["linear", "conv", "pool", "flatten", "activation"], weight: Any = None, bias: Any = None, size: int = 1,
    padding: int = 0,
) -> Layer:  # fmt: skip
    arrays = [None if part is None else jnp.asarray(np.asarray(part, np.float32)) for part in (weight, bias)]
    return Layer(kind, arrays[0], arrays[1], size, padding)


def _from_onnx(path: Path) -> Sequential:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise MissingExtraError("ONNX", "data") from None
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} has {path.stat().st_size / MIB:.0f} MiB; at most {MAX_BYTES / MIB:g} MiB are read.")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
        constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    except Exception as error:  # protobuf raises whatever a damaged file leads it to
        raise DataError(f"{path} is not an ONNX model ({type(error).__name__}).") from None
    layers: list[Layer] = []
    last = next((each.name for each in graph.input if each.name not in constants), "")
    for node in graph.node:
        options = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(options["value"])
            continue
        if last not in node.input:
            raise DataError(f"{path}: node {node.op_type} {node.name!r} does not follow the one before; branches are not read.")
        last = node.output[0]
        parameters = [constants[name] for name in node.input if name in constants]
        layers = _append_onnx(path, node.op_type, options, parameters, layers)
    if layers and layers[-1].kind == "activation":
        layers.pop()
    return Sequential(tuple(layers))


def _append_onnx(
    path: Path, op: str, options: dict[str, Any], parameters: list[np.ndarray], layers: list[Layer]
) -> list[Layer]:
    """The layers with one more node of the graph."""
    if op == "Gemm":
        weight = parameters[0] if options.get("transB", 0) else parameters[0].T
        return [*layers, _layer("linear", options.get("alpha", 1.0) * weight, parameters[1] if len(parameters) > 1 else None)]
    if op == "MatMul" and parameters:
        return [*layers, _layer("linear", parameters[0].T)]
    if op == "Add" and parameters and layers and layers[-1].kind == "linear" and layers[-1].bias is None:
        return [*layers[:-1], _layer("linear", layers[-1].weight, parameters[0])]
    if op == "Conv":
        stride, pads = _square(path, op, options.get("strides", [1, 1])), _square(path, op, options.get("pads", [0] * 4))
        if _square(path, op, options.get("dilations", [1, 1])) != 1 or options.get("group", 1) != 1:
            raise DataError(f"{path}: a convolution with dilation or groups is not read.")
        return [*layers, _layer("conv", parameters[0], parameters[1] if len(parameters) > 1 else None, stride, pads)]
    if op == "AveragePool":
        side = _square(path, op, options["kernel_shape"])
        if _square(path, op, options.get("strides", [1, 1])) != side or any(options.get("pads", [])):
            raise DataError(f"{path}: an average pool is read where its stride is its side and it is not padded.")
        return [*layers, _layer("pool", size=side)]
    if op in ("Relu", "Clip"):
        return [*layers, _layer("activation")]
    if op in ("Flatten", "Reshape"):
        return [*layers, _layer("flatten")]
    if op in ("Identity", "Dropout", "Softmax", "LogSoftmax"):
        return layers  # the order of the classes stays as it is
    raise DataError(f"{path}: an operation {op} is not understood here.")


def _square(path: Path, op: str, values: Any) -> int:
    if len(set(values)) != 1:
        raise DataError(f"{path}: {op} with different sides {list(values)} is not read.")
    return int(values[0])
