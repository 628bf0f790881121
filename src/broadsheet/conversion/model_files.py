"""Trained feed-forward networks from files of other libraries: safetensors with PyTorch's names, and ONNX graphs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from broadsheet.cache import write_atomic
from broadsheet.conversion.conversion import Layer, QuantisedNet, Sequential
from broadsheet.conversion.onnx_constants import finite
from broadsheet.conversion.onnx_files import read_onnx
from broadsheet.errors import DataError, InputError
from broadsheet.files import existing, load_arrays, natural

NOTE = "broadsheet"
"""Key of the layers' kinds in a file's metadata."""
GEOMETRY = {"size": 1, "padding": 0, "dilation": 1, "groups": 1}
"""What is kept of a layer beside its kind and its arrays, with what stands where a file says nothing."""


def read_network(path: str | Path, shape: Sequence[int] | None = None) -> tuple[Sequential, list[float] | None]:
    """(layers with activations between them, trained thresholds of the activations where the file has them).

    From ONNX: see `broadsheet.conversion.onnx_files.read_onnx`; where a ReLU is cut (Clip), `Sequential.ceilings` says where.
    From safetensors: what `save_network` wrote, or linear layers named as PyTorch names them (`0.weight`, `0.bias`, `2.weight`,
    …), taken in order with an activation between.

    **Arguments:** `shape`: of one input; checked against the file's, and wanted where it leaves sizes open that matter.

    **Raises:** `DataError` for anything else, with the name of what was not understood.
    """
    found, wanted = existing(path), None if shape is None else tuple(int(side) for side in shape)
    if found.suffix == ".onnx":
        return read_onnx(found, wanted), None
    if found.suffix != ".safetensors":
        raise InputError(f"{found} is neither a .safetensors nor an .onnx file.")
    arrays = load_arrays(found)
    note = _note(found)
    for name, array in arrays.items():
        numbers = array.dtype.kind in "fiu" or "float" in str(array.dtype)
        if not numbers or not finite(array.astype(np.float32, copy=False)):
            raise DataError(f"{found}: {name} holds {array.dtype}, NaN or infinity; finite numbers are wanted.")
    if note is None:
        return _from_names(found, arrays, wanted), None
    if wanted is not None and list(wanted) != note.get("shape", list(wanted)):
        raise DataError(f"{found} was trained on inputs of {tuple(note['shape'])}; inputs of {wanted} came.")
    return _from_note(found, arrays, note)


def save_network(net: QuantisedNet, path: str | Path) -> None:
    """Writes a quantised network of `Sequential` layers as safetensors, its layers' kinds in the metadata."""
    from safetensors.numpy import save

    if not isinstance(net.body, Sequential):
        raise InputError(f"{type(net.body).__name__} cannot be written as a row of layers.")
    arrays = {f"theta.{k}": np.asarray(theta) for k, theta in enumerate(net.theta)}
    kinds = []
    for k, layer in enumerate(net.body.layers):
        kinds.append({"kind": layer.kind, **{name: getattr(layer, name) for name in GEOMETRY}})
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
    left = set(arrays)
    try:
        for k, each in enumerate(note["layers"]):
            weight, bias = (arrays.get(f"{k}.{name}") for name in ("weight", "bias"))
            left -= {f"{k}.weight", f"{k}.bias"}
            if each["kind"] in ("linear", "conv") and weight is None:
                raise DataError(f"{path} has no {k}.weight.")
            if each["kind"] not in ("linear", "conv", "pool", "flatten", "activation"):
                raise DataError(f"{path}: layer {k} is of the kind {each['kind']!r}, which is not known here.")
            if unknown := sorted(set(each) - {"kind", *GEOMETRY}):
                raise DataError(f"{path}: layer {k} has {unknown[0]!r}, which is not read.")
            layers.append(_layer(each["kind"], weight, bias, **{name: _sides(each.get(name, usual))
                                                              for name, usual in GEOMETRY.items()}))  # fmt: skip
        count = sum(layer.kind == "activation" for layer in layers)
        theta = [float(arrays[f"theta.{k}"]) for k in range(count)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: its metadata does not fit its arrays ({error!r}).") from None
    if more := sorted(left - {f"theta.{k}" for k in range(count)}):
        raise DataError(f"{path}: {more[0]} belongs to no layer.")
    if min(theta, default=1.0) <= 0:
        raise DataError(f"{path}: theta.{int(np.argmin(theta))} is {min(theta):g}; a threshold above 0 is wanted.")
    return Sequential(tuple(layers)), theta


def _sides(value: Any) -> int | tuple[int, int]:
    """A whole number, or one along the height and one along the width."""
    if isinstance(value, list):
        height, width = value
        return int(height), int(width)
    return int(value)


def _from_names(path: Path, arrays: dict[str, Any], shape: tuple[int, ...] | None) -> Sequential:
    names = sorted((name for name in arrays if name.endswith("weight")), key=natural)
    if not names:
        raise DataError(f"{path} holds {', '.join(sorted(arrays)[:5]) or 'nothing'}; arrays named …weight are wanted.")
    if left := sorted(set(arrays) - set(names) - {f"{name.removesuffix('weight')}bias" for name in names}):
        raise DataError(f"{path}: {left[0]} is no weight or bias of a linear layer, which are told by their names; use ONNX.")
    layers: list[Layer] = []
    width = None if shape is None else int(np.prod(shape))
    for name in names:
        weight, bias = arrays[name], arrays.get(name.removesuffix("weight") + "bias")
        if weight.ndim != 2:
            raise DataError(
                f"{path}: {name} has the shape {weight.shape}; only linear layers can be told by their names, use ONNX."
            )
        if width is not None and width != weight.shape[1]:
            raise DataError(f"{path}: {width} values arrive at {name}, which takes {weight.shape[1]}; they do not fit.")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise DataError(f"{path}: the bias beside {name} has the shape {bias.shape}; {weight.shape[:1]} is wanted.")
        width = len(weight)
        layers += [_layer("linear", weight, bias), Layer("activation")]
    if shape is not None and len(shape) > 1:
        layers.insert(0, Layer("flatten"))
    return Sequential(tuple(layers[:-1]))


def _layer(
    kind: Literal["linear", "conv", "pool", "flatten", "activation"], weight: Any = None, bias: Any = None, **geometry: Any
) -> Layer:
    arrays = [None if part is None else jnp.asarray(np.asarray(part, np.float32)) for part in (weight, bias)]
    return Layer(kind, arrays[0], arrays[1], **geometry)
