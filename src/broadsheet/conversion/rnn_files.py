"""Trained recurrent networks of one layer from files of other libraries: safetensors with a description, and ONNX."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.cache import write_atomic
from broadsheet.conversion.onnx_constants import finite
from broadsheet.conversion.rnn_onnx import read_rnn_onnx
from broadsheet.errors import DataError, InputError
from broadsheet.files import existing, load_arrays, read_json
from broadsheet.networks.rates import ACTIVATIONS, RateRNN
from broadsheet.networks.recurrent import Recurrent

NOTE = "broadsheet"
"""Key of the description in a file's metadata."""
KEYS = {"kind", "activation", "alpha", "names", "transposed"}
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
"""Arrays of a layer as PyTorch names them, and beside them "head.weight" and "head.bias" of the read-out."""
HEAD = ("head.weight", "head.bias")


def read_rnn(path: str | Path, description: str | Path | None = None) -> RateRNN | Recurrent:
    """A recurrent network of one layer with at most one linear read-out; without one the outputs are the states.

    From ONNX: see `broadsheet.conversion.rnn_onnx.read_rnn_onnx`. From safetensors: arrays named as PyTorch names them
    (`….weight_ih_l0`, …, and one `….weight` of the read-out, (outputs, units)), or as the description says, a JSON object in
    the file's metadata (`save_rnn` writes it), in `description` or in a file beside the model, `MODEL.json`:

    - "kind": "rnn", "gru" or "lstm"; told by the number of rows where it is missing.
    - "activation": of an "rnn", and must be said: "tanh", "relu", "sigmoid", "softplus" or "identity".
    - "alpha": of an "rnn", `dt / tau` in (0, 1]: `h <- (1 - alpha) h + alpha phi(…)`; 1 where it is missing.
    - "names": {"weight_ih": …, "weight_hh": …, "bias_ih": …, "bias_hh": …, "head.weight": …, "head.bias": …}.
    - "transposed": true where matrices are (from, to), as they are in Keras; else they are (to, from).

    **Raises:** `DataError` for several layers, both directions, arrays that belong to no part, and all that is not understood.
    """
    found = existing(path)
    if found.suffix == ".onnx":
        if description is not None:
            raise InputError(f"{found} says itself what it is; a description is for .safetensors.")
        return assemble(found, *read_rnn_onnx(found))
    if found.suffix != ".safetensors":
        raise InputError(f"{found} is neither a .safetensors nor an .onnx file.")
    arrays = load_arrays(found)
    note = _description(found, None if description is None else Path(description))
    for name, array in arrays.items():
        if not (array.dtype.kind in "fiu" or "float" in str(array.dtype)) or not finite(array.astype(np.float32, copy=False)):
            raise DataError(f"{found}: {name} holds {array.dtype}, NaN or infinity; finite numbers are wanted.")
    names = note.get("names") or _names(found, arrays)
    if not isinstance(names, dict) or (unknown := sorted(set(names) - {*PARTS, *HEAD})):
        raise DataError(f"{found}: names of {', '.join([*PARTS, *HEAD])} are wanted; {unknown[0]!r} is none of them.")
    if missing := [name for name in names.values() if name not in arrays]:
        raise DataError(f"{found} has no array {missing[0]!r}; it has {', '.join(sorted(arrays)[:8])}.")
    if left := sorted(set(arrays) - set(names.values())):
        raise DataError(f"{found}: {left[0]} belongs to no part of one recurrent layer and its read-out; name the parts.")
    parts = {part: np.asarray(arrays[name], np.float32) for part, name in names.items()}
    if note.get("transposed"):
        parts = {part: array.T for part, array in parts.items()}
    if not {"weight_ih", "weight_hh"} <= parts.keys() or parts["weight_hh"].ndim != 2:
        raise DataError(f"{found}: weight_ih and weight_hh, (rows, inputs) and (rows, units), are wanted.")
    rows, units = parts["weight_hh"].shape
    kind = note.get("kind") or next((kind for kind, gates in GATES.items() if gates * units == rows), None)
    if kind not in GATES or rows != GATES[kind] * units:
        raise DataError(f"{found}: weight_hh is {rows} x {units}, which is no {kind or 'rnn, gru or lstm'} of {units} units.")
    activation, alpha = note.get("activation"), note.get("alpha", 1.0)
    if kind == "rnn" and activation not in ACTIVATIONS:
        raise DataError(
            f"{found}: its activation is {activation!r}; write one of {', '.join(ACTIVATIONS)} into {found}.json, "
            'as {"activation": "tanh"}.'
        )
    if kind != "rnn" and (activation is not None or alpha != 1.0):
        raise DataError(f"{found}: a {kind} has neither an activation nor an alpha to say.")
    if not isinstance(alpha, (int, float)) or not 0 < alpha <= 1:
        raise DataError(f"{found}: alpha is {alpha!r}; a number in (0, 1] is wanted.")
    return assemble(found, kind, parts, activation, float(alpha))


def assemble(
    path: Path, kind: str, parts: Mapping[str, np.ndarray], activation: str | None = None, alpha: float = 1.0
) -> RateRNN | Recurrent:
    """A network of checked parts, gates in PyTorch's order; the shapes must fit."""
    rows, units = parts["weight_hh"].shape
    w_in = parts["weight_ih"]
    inputs = w_in.shape[-1]
    head = parts.get("head.weight", np.eye(units, dtype=np.float32))
    outputs = len(head)
    wanted = {
        "weight_ih": (rows, inputs), "bias_ih": (rows,), "bias_hh": (rows,), "head.weight": (outputs, units),
        "head.bias": (outputs,),
    }  # fmt: skip
    for part, shape in wanted.items():
        if part in parts and parts[part].shape != shape:
            raise DataError(f"{path}: {part} is {parts[part].shape}; {shape} is wanted beside {rows} x {units}.")
    zeros = np.zeros(rows, np.float32)
    b_in, b_rec = parts.get("bias_ih", zeros), parts.get("bias_hh", zeros)
    c = parts.get("head.bias")
    if kind == "rnn":
        biased = "bias_ih" in parts or "bias_hh" in parts
        made = RateRNN(inputs, units, outputs, activation=activation, alpha=alpha, key=jax.random.key(0))  # type: ignore[arg-type]
        given = (w_in, parts["weight_hh"], head, b_in + b_rec if biased else None, c)
        return _with(made, lambda net: (net.w_in, net.w_rec, net.w_out, net.b, net.c), given)
    net = Recurrent(inputs, units, outputs, kind=kind, key=jax.random.key(0))  # type: ignore[arg-type]
    arrays = (w_in, parts["weight_hh"], head, np.zeros(outputs, np.float32) if c is None else c)
    net = _with(net, lambda net: (net.cell.weight_ih, net.cell.weight_hh, net.head.weight, net.head.bias), arrays)
    if kind == "lstm":
        return _with(net, lambda net: (net.cell.bias,), (b_in + b_rec,))
    both = np.where(np.arange(rows) < 2 * units, b_in + b_rec, b_in)  # the candidate's second bias is within the reset
    return _with(net, lambda net: (net.cell.bias, net.cell.bias_n), (both, b_rec[2 * units :]))


def save_rnn(net: RateRNN | Recurrent, path: str | Path) -> None:
    """Writes a network as safetensors with PyTorch's names, and what they do not say in its metadata; `read_rnn` reads it."""
    from safetensors.numpy import save

    note: dict[str, Any]
    arrays: dict[str, Any]
    if isinstance(net, RateRNN):
        note = {"kind": "rnn", "activation": net.activation, "alpha": float(net.alpha)}
        arrays = {"weight_ih": net.w_in, "weight_hh": net.w_rec, "bias_ih": net.b, "head.weight": net.w_out, "head.bias": net.c}
    else:
        cell = net.cell
        note = {"kind": "gru" if isinstance(cell, eqx.nn.GRUCell) else "lstm"}
        arrays = {"weight_ih": cell.weight_ih, "weight_hh": cell.weight_hh, "bias_ih": cell.bias}
        arrays |= {"head.weight": net.head.weight, "head.bias": net.head.bias}
        if isinstance(cell, eqx.nn.GRUCell) and cell.bias_n is not None:
            arrays["bias_hh"] = np.append(np.zeros(2 * cell.hidden_size, np.float32), cell.bias_n)
    stored = {f"{part}_l0" if part in PARTS else part: np.asarray(a) for part, a in arrays.items() if a is not None}
    write_atomic(Path(path), save(stored, metadata={NOTE: json.dumps(note)}))


def _with(net: Any, where: Any, arrays: tuple) -> Any:
    given = tuple(None if array is None else jnp.asarray(array) for array in arrays)
    return eqx.tree_at(where, net, given, is_leaf=lambda leaf: leaf is None)


def _description(path: Path, given: Path | None) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        raw = (file.metadata() or {}).get(NOTE)
    beside = path.with_name(f"{path.name}.json")
    if given is not None or beside.exists():
        place, note = f"{given or beside}", read_json(given or beside)
    else:
        place = f"{path}: its metadata"
        try:
            note = {} if raw is None else json.loads(raw)
        except ValueError:
            raise DataError(f"{path}: its metadata {str(raw)[:60]!r} cannot be read.") from None
    if not isinstance(note, dict) or (unknown := sorted(set(note) - KEYS)):
        said = f"has {unknown[0]!r}, which is not read" if isinstance(note, dict) else "is no JSON object"
        raise DataError(f"{place} {said}; {', '.join(sorted(KEYS))} are.")
    return note


def _names(path: Path, arrays: Mapping[str, Any]) -> dict[str, str]:
    """Parts by PyTorch's names, `….weight_ih_l0` of a layer and `….weight_ih` of a cell."""
    recurrent = {name for name in arrays if any(f".{part}" in f".{name}" for part in PARTS)}
    if deeper := sorted(name for name in recurrent if not name.removesuffix("_l0").endswith(PARTS)):
        raise DataError(f"{path}: {deeper[0]} is of a second layer or of the other direction; one layer forward is read.")
    names: dict[str, str] = {}
    for name in sorted(recurrent):
        part = name.removesuffix("_l0").rpartition(".")[2]
        if part in names:
            raise DataError(f"{path}: {names[part]} and {name} are two recurrent layers; one is read.")
        names[part] = name
    if not names:
        raise DataError(f"{path} holds {', '.join(sorted(arrays)[:5]) or 'nothing'}; arrays named ….weight_ih_l0 are wanted.")
    heads = [name for name in sorted(set(arrays) - recurrent) if name.endswith("weight")]
    if len(heads) > 1:
        raise DataError(f"{path}: {heads[0]} and {heads[1]} might both be the read-out; name the parts.")
    for name in heads:
        names["head.weight"] = name
        bias = name.removesuffix("weight") + "bias"
        names |= {"head.bias": bias} if bias in arrays else {}
    return names
