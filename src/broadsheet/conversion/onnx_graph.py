"""An ONNX graph on its way to layers: which node is read, from what, and what is known of the array that passes through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from broadsheet.conversion.conversion import Layer, Sequential
from broadsheet.conversion.onnx_constants import Constants, opset_of, refuse
from broadsheet.errors import DataError

OPEN = "needs the sizes of the input, which the file leaves open; give its shape"


class Graph:
    """A graph on its way: layers so far, and what is known of the array that passes through.

    `shape` is that of the array in the graph, samples first, `real` that of the array our layers give, which have no layer for
    dimensions of one; both None where nobody says. Where the number of samples is open, it counts as one. A subclass has
    `operations`, by their ONNX names: how each is read, and the attributes that are.
    """

    operations: ClassVar[Mapping[str, tuple[Callable[[Any, Any, dict[str, Any]], None], set[str]]]]
    unchanged: ClassVar[set[str]]
    """Operations that may follow a Softmax, since they leave the order of the classes as it is."""

    def __init__(self, path: Path, model: Any, shape: tuple[int, ...] | None) -> None:
        self.path, self.graph, self.made = path, model.graph, list[Layer]()
        self.opset = opset_of(model)
        self.constants = Constants(path, self.graph, self.opset)
        self.current, self.shape = self._input(shape)
        self.real = self.shape
        self.shapes = {self.current: self.shape}
        self.ended: Any = None

    def _input(self, shape: tuple[int, ...] | None) -> tuple[str, tuple[int, ...] | None]:
        inputs = [each for each in self.graph.input if each.name not in self.constants]
        for kind, found in (("inputs", inputs), ("outputs", self.graph.output)):
            if len(found) != 1:
                names = ", ".join(repr(each.name) for each in found) or "none"
                raise DataError(f"{self.path}: the graph has {len(found)} {kind} ({names}); one is wanted.")
        (only,) = inputs
        sides = only.type.tensor_type.shape.dim if only.type.tensor_type.HasField("shape") else None
        declared = None if sides is None else [max(side.dim_value, 0) for side in sides]
        if shape is not None:
            fits = declared is None or len(declared) == len(shape) + 1
            if not fits or any(want not in (0, have) for want, have in zip((declared or [])[1:], shape, strict=False)):
                said = ", ".join(str(side or "any") for side in declared or [])
                raise DataError(f"{self.path}: its input {only.name!r} is ({said}), samples first; inputs of {shape} came.")
            return only.name, ((declared or [0])[0] or 1, *shape)
        if declared is None or len(declared) < 2 or min(declared[1:]) < 1:
            return only.name, None
        return only.name, (declared[0] or 1, *declared[1:])

    def refuse(self, node: Any, said: str) -> NoReturn:
        refuse(self.path, node, said)

    def layers(self) -> Sequential:
        """All nodes as layers, without a last activation."""
        for number, node in enumerate(self.graph.node):
            try:
                self._read(node)
            except (IndexError, KeyError, TypeError, ValueError) as error:
                said = (str(error).splitlines() or [""])[0]
                raise DataError(
                    f"{self.path}: node {number}, {node.op_type}, lacks something or is damaged ({said[:80]})."
                ) from None
        if self.current != self.graph.output[0].name:
            raise DataError(f"{self.path}: the output {self.graph.output[0].name!r} is not what the last node gives.")
        if self.shape is not None and len(self.shape) != 2:
            raise DataError(f"{self.path}: the output is {self.shape}; (samples, classes) is wanted.")
        if self.made and self.made[-1].kind == "activation":
            if self.made[-1].ceiling is not None:
                raise DataError(f"{self.path}: the last node is a Clip at {self.made[-1].ceiling:g}, where classes may tie.")
            self.made.pop()
        return Sequential(tuple(self.made))

    def _read(self, node: Any) -> None:
        import onnx

        if node.domain not in ("", "ai.onnx"):
            self.refuse(node, f"is of the domain {node.domain!r}, which is not read")
        options = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute if not each.ref_attr_name}
        if node.op_type == "Constant":
            self.constants.known[node.output[0]] = self.constants.constant(node, options)
            return
        if node.op_type == "Shape":
            self.constants.known[node.output[0]] = self._shape_of(node, options)
            return
        given = [name for name in node.input if name]
        if given and all(name in self.constants for name in given):
            self.constants.known[node.output[0]] = self.constants.folded(node)
            return
        if node.op_type not in self.operations:
            raise DataError(
                f"{self.path}: an operation {node.op_type} is not understood here (node {node.name or node.output[0]!r})."
            )
        read, attributes = self.operations[node.op_type]
        if unknown := sorted({each.name for each in node.attribute} - attributes):
            self.refuse(node, f"has the attribute {unknown[0]!r}, which is not read")
        others = [name for name in given if name not in self.constants]
        if others != [self.current]:
            self.refuse(node, "does not follow the one before; branches are not read")
        if self.ended is not None and node.op_type not in self.unchanged:
            self.refuse(node, f"follows a {self.ended.op_type}, which is read as the last node only")
        read(self, node, options)
        self.current = node.output[0]
        self.shapes[self.current] = self.shape

    def _shape_of(self, node: Any, options: dict[str, Any]) -> np.ndarray:
        (name,) = node.input
        if name in self.constants:
            shape: tuple[int, ...] | None = self.constants.value(node, name).shape
        elif name in self.shapes:
            shape = self.shapes[name]
        else:
            self.refuse(node, f"asks for the shape of {name!r}, which is not read")
        return np.array(self._known(node, shape)[options.get("start", 0) : options.get("end")], np.int64)

    def _known(self, node: Any, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        if shape is None:
            self.refuse(node, OPEN)
        return shape

    def _sides(self, node: Any) -> tuple[int, int] | None:
        """(height, width) of the images that arrive, where they are known."""
        if self.shape is None:
            return None
        if self.real != self.shape:
            self.refuse(node, f"gets an array that was reshaped to {self.shape}; only flattening is read")
        if len(self.shape) != 4:
            self.refuse(node, f"gets an array of {self.shape}; images (samples, channels, height, width) are wanted")
        return self.shape[2], self.shape[3]

    def _width(self, node: Any) -> tuple[int, bool]:
        """(features or channels of what arrives, whether they are features)."""
        if self.shape is None:
            last = next((layer for layer in reversed(self.made) if layer.kind not in ("activation", "pool")), None)
            if last is None or last.weight is None:
                self.refuse(node, OPEN)
            return len(last.weight), last.kind == "linear"
        if len(self.shape) == 2:
            return self.shape[1], True
        self._sides(node)
        return self.shape[1], False

    def _reshaped(self, node: Any, after: tuple[int, ...], what: str) -> None:
        before = self._known(node, self.shape)
        if len(after) < 2 or after[0] != before[0] or np.prod(after[1:], dtype=float) != np.prod(before[1:], dtype=float):
            self.refuse(node, f"makes {after} of {before} by its {what}: samples are to stay apart")
        self.shape = after
        if len(after) == 2 and after != self.real:
            self.made.append(Layer("flatten"))
            self.real = after

    def _ints(self, node: Any, options: dict[str, Any], name: str, k: int) -> tuple[int, ...] | None:
        """Whole numbers of an attribute (older files) or of the k-th input."""
        if name in options:
            return tuple(int(each) for each in options[name])
        if not self.constants.given(node, k):
            return None
        return tuple(int(each) for each in np.ravel(self.constants.value(node, node.input[k])))
