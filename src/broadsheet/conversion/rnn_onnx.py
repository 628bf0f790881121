"""Recurrent networks from ONNX graphs: one RNN, GRU or LSTM and the linear read-out behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from broadsheet.conversion.onnx_constants import Constants, load_model, opset_of, refuse
from broadsheet.errors import DataError

KINDS = {"RNN": "rnn", "GRU": "gru", "LSTM": "lstm"}
ORDER = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 2, 3, 1)}
"""Where PyTorch's gates (r z n; i f g o) stand among those of ONNX (z r h; i o f c)."""
USUAL = {"gru": ["sigmoid", "tanh"], "lstm": ["sigmoid", "tanh", "tanh"]}
MOVING = {"Cast", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
"""Operations that move or choose what passes through, and leave its numbers as they are."""


def read_rnn_onnx(path: Path) -> tuple[str, dict[str, np.ndarray], str | None]:
    """(kind, parts by PyTorch's names, activation of an "rnn") of a graph with one recurrent node.

    Read are an RNN, GRU (`linear_before_reset` 1, as PyTorch's) or LSTM in one direction, before it what moves axes, behind it
    a linear read-out (MatMul, Gemm, Add) and a last Softmax or LogSoftmax, which is left out. An initial state of zeros, or one
    that the graph takes as an input, starts at 0 here.

    **Raises:** `DataError` for anything else, with the node and the attribute.
    """
    model = load_model(path)
    constants = Constants(path, model.graph, opset_of(model))
    found = [node for node in model.graph.node if node.op_type in KINDS]
    if len(found) != 1:
        raise DataError(f"{path} has {len(found)} recurrent nodes (RNN, GRU, LSTM); one is read.")
    try:
        return _Graph(path, model.graph, constants, found[0]).parts()
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: a node lacks something or is damaged ({(str(error).splitlines() or [''])[0][:80]})."
        ) from None


class _Graph:
    """What is upstream and downstream of the recurrent node."""

    def __init__(self, path: Path, graph: Any, constants: Constants, node: Any) -> None:
        import onnx

        self.path, self.graph, self.constants, self.node = path, graph, constants, node
        self.options = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        self.inputs = {each.name for each in graph.input if each.name not in constants}
        for each in graph.node:
            if each.op_type == "Constant":
                values = {part.name: onnx.helper.get_attribute_value(part) for part in each.attribute}
                constants.known[each.output[0]] = constants.constant(each, values)

    def parts(self) -> tuple[str, dict[str, np.ndarray], str | None]:
        kind = KINDS[self.node.op_type]
        activation = self._activation(kind)
        direction = self.options.get("direction", b"forward")
        if direction != b"forward":
            refuse(self.path, self.node, f"runs {direction.decode()}; forward is read")
        self._upstream()
        names = dict(enumerate(self.node.input))
        if names.get(4) or names.get(7):
            refuse(self.path, self.node, "has lengths of sequences or peepholes, which are not read")
        for place in (5, 6):
            self._starts_at_zero(names.get(place, ""))
        numbers = [self.constants.numbers(self.node, k) for k in (1, 2)]
        if any(array.ndim != 3 or len(array) != 1 for array in numbers):
            refuse(self.path, self.node, f"has weights of {numbers[0].shape} and {numbers[1].shape}; one direction is read")
        parts = {name: self._sorted(kind, array[0]) for name, array in zip(("weight_ih", "weight_hh"), numbers, strict=True)}
        if self.constants.given(self.node, 3):
            (bias,) = self.constants.numbers(self.node, 3)
            first, second = np.split(bias, 2)
            parts |= {"bias_ih": self._sorted(kind, first), "bias_hh": self._sorted(kind, second)}
        return kind, parts | self._read_out(), activation

    def _activation(self, kind: str) -> str | None:
        known = {"activations", "direction", "hidden_size", "layout", "linear_before_reset", "input_forget"}
        if unknown := sorted(set(self.options) - known):
            refuse(self.path, self.node, f"has the attribute {unknown[0]!r}, which is not read")
        said = [each.decode().lower() for each in self.options.get("activations", [])]
        if kind == "gru" and not self.options.get("linear_before_reset", 0):
            refuse(self.path, self.node, "has linear_before_reset 0; 1 is read, the form of PyTorch and cuDNN")
        if self.options.get("input_forget", 0):
            refuse(self.path, self.node, "couples the gates of input and forgetting, which is not read")
        if kind != "rnn":
            if said and said != USUAL[kind]:
                refuse(self.path, self.node, f"has the activations {said}; {USUAL[kind]} are read")
            return None
        activation = said[0] if said else "tanh"
        if len(said) > 1 or activation not in ("tanh", "relu", "sigmoid", "softplus"):
            refuse(self.path, self.node, f"has the activations {said}; one of tanh, relu, sigmoid and softplus is read")
        return activation

    def _sorted(self, kind: str, array: np.ndarray) -> np.ndarray:
        gates = np.split(array, len(ORDER[kind]))
        return np.concatenate([gates[k] for k in ORDER[kind]])

    def _upstream(self) -> None:
        made = {name: node for node in self.graph.node for name in node.output}
        name = self.node.input[0]
        while name not in self.inputs:
            node = made.get(name)
            if node is None or node.op_type not in MOVING - {"Gather", "Slice"}:
                refuse(self.path, node or self.node, "stands before the recurrent node; only what moves axes is read there")
            name = node.input[0]

    def _starts_at_zero(self, name: str) -> None:
        made = {output: node for node in self.graph.node for output in node.output}
        while name and name not in self.inputs:
            node = made.get(name)
            if name in self.constants:
                zero = not np.any(self.constants.value(self.node, name))
            elif node is not None and node.op_type in {"Expand", *MOVING}:
                name = node.input[0]
                continue
            elif node is not None and node.op_type == "ConstantOfShape":
                zero = not any(np.any(self.constants.array(each.t, name)) for each in node.attribute)
            else:
                zero = False
            if not zero:
                refuse(self.path, self.node, f"starts from {name!r}, which is not 0")
            return

    def _read_out(self) -> dict[str, np.ndarray]:
        """The linear map behind the node, in the order of the graph."""
        passing = set(self.node.output)
        parts: dict[str, np.ndarray] = {}
        ended = False
        for node in self.graph.node:
            through = [k for k, name in enumerate(node.input) if name in passing]
            if not through:
                continue
            if ended or (len(through) > 1 and node.op_type not in MOVING):
                refuse(self.path, node, "follows the read-out; one linear read-out is read")
            if node.op_type == "Shape":
                continue
            passing |= set(node.output)
            if node.op_type in MOVING:
                continue
            if node.op_type in ("Softmax", "LogSoftmax"):
                ended = True
            elif node.op_type == "MatMul" and not parts and through == [0]:
                parts["head.weight"] = self.constants.numbers(node, 1).T
            elif node.op_type == "Gemm" and not parts and through == [0]:
                parts |= self._gemm(node)
            elif node.op_type == "Add" and "head.weight" in parts and "head.bias" not in parts:
                parts["head.bias"] = self.constants.numbers(node, 1 - through[0])
            else:
                refuse(self.path, node, "follows the recurrent node; one linear read-out is read")
        return parts

    def _gemm(self, node: Any) -> dict[str, np.ndarray]:
        import onnx

        options = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        if options.get("transA", 0):
            refuse(self.path, node, "has transA, which mixes samples")
        weight = np.float32(options.get("alpha", 1.0)) * self.constants.numbers(node, 1)
        parts = {"head.weight": weight if options.get("transB", 0) else weight.T}
        if self.constants.given(node, 2):
            bias = np.float32(options.get("beta", 1.0)) * self.constants.numbers(node, 2)
            parts["head.bias"] = np.broadcast_to(bias.ravel(), len(parts["head.weight"]))
        return parts
