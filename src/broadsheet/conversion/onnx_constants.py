"""What is constant in an ONNX graph: arrays within and beside the model, and what nodes compute from them alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np

from broadsheet.errors import DataError, MissingExtraError, UntrustedError
from broadsheet.files import MIB

MAX_BYTES = 2048 * MIB
FOLDED = {"Add", "Cast", "Concat", "Div", "Flatten", "Gather", "Identity", "Mul", "Neg", "Reshape", "Squeeze", "Sub",
          "Transpose", "Unsqueeze"}  # fmt: skip
"""Operations that are computed at once where all that goes in is constant."""
FOLDED_NUMBERS = 2**28


def load_model(path: Path) -> Any:
    """An ONNX model with nodes, its arrays left where they are; raises `DataError` where the file is none."""
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("ONNX", "data") from None
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} has {path.stat().st_size / MIB:.0f} MiB; at most {MAX_BYTES / MIB:g} MiB are read.")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises whatever a damaged file leads it to
        raise DataError(f"{path} is not an ONNX model ({type(error).__name__}).") from None
    if not model.graph.node:
        raise DataError(f"{path} is not an ONNX model with nodes.")
    return model


def opset_of(model: Any) -> int:
    """The version of ONNX's own operations that a model uses."""
    return next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)


def refuse(path: Path, node: Any, said: str) -> NoReturn:
    """Raises `DataError` with the node's operation and name, or that of its output."""
    raise DataError(f"{path}: node {node.op_type} {node.name or node.output[0]!r} {said}.")


def finite(array: np.ndarray) -> bool:
    """Whether all float32 numbers are finite: their squares' sum tells in one pass, but where it overflows."""
    flat = array.ravel(order="K")
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.dot(flat, flat)) or np.isfinite(flat).all())


class Constants:
    """Constants of a graph by name; arrays are read when they are asked for."""

    def __init__(self, path: Path, graph: Any, opset: int) -> None:
        self.path, self.opset = path, opset
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise DataError(f"{path}: the initializer {name!r} is sparse, which is not read.")
        self.known: dict[str, np.ndarray] = {}
        self.tensors = {each.name: each for each in graph.initializer}

    def __contains__(self, name: str) -> bool:
        return name in self.known or name in self.tensors

    def constant(self, node: Any, options: dict[str, Any]) -> np.ndarray:
        """What a Constant node holds."""
        if len(options) != 1 or not next(iter(options)).startswith("value"):
            refuse(self.path, node, f"has the attributes {sorted(options)}; one value is wanted")
        ((name, value),) = options.items()
        if name == "value":
            return self.array(value, node.output[0])
        if name not in ("value_float", "value_floats", "value_int", "value_ints"):
            refuse(self.path, node, f"has the attribute {name!r}, which is not read")
        return np.asarray(value, np.float32 if "float" in name else np.int64)

    def array(self, tensor: Any, name: str) -> np.ndarray:
        """What a tensor of the file holds."""
        import onnx
        from onnx import numpy_helper

        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raw = self._external({each.key: each.value for each in tensor.external_data}, name)
            tensor = onnx.TensorProto(name=name, data_type=tensor.data_type, dims=tensor.dims, raw_data=raw)
        try:
            array = np.asarray(numpy_helper.to_array(tensor))
        except Exception as error:  # the library raises whatever a damaged array leads it to
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{self.path}: the array {name!r} cannot be read ({said[:80]}).") from None
        if array.dtype.kind in "OSUc":
            raise DataError(f"{self.path}: the array {name!r} holds {array.dtype}; real numbers are wanted.")
        return array

    def _external(self, entry: dict[str, str], name: str) -> bytes:
        """Bytes of a file beside the model, wherever the program runs, and never of one outside its folder."""
        if unknown := sorted(set(entry) - {"location", "offset", "length"}):
            raise DataError(f"{self.path}: the external data of {name!r} have the key {unknown[0]!r}, which is not read.")
        location = entry.get("location", "")
        parts = Path(location.replace("\\", "/")).parts
        homes = (self.path.absolute().parent.resolve(), self.path.resolve().parent)  # a link's folder, and the file's own
        file = next((home / location for home in homes if (home / location).exists()), homes[0] / location)
        outside = not any(file.resolve().is_relative_to(home) for home in homes)
        if not parts or ".." in parts or parts[0] == "/" or ":" in parts[0] or outside:
            raise UntrustedError(f"{self.path}: {name!r} lies in {location!r}, outside the model's folder, and is not read.")
        if not file.is_file():
            raise DataError(f"{self.path}: {name!r} lies in {location!r}, which is no file beside the model.")
        size = file.stat().st_size
        try:
            offset = int(entry.get("offset", 0))
            length = int(entry["length"]) if "length" in entry else size - offset
        except ValueError:
            raise DataError(f"{self.path}: offset or length of {name!r} in {location!r} is no whole number.") from None
        if offset < 0 or length < 0 or offset + length > size or length > MAX_BYTES:
            raise DataError(
                f"{self.path}: {name!r} is to be bytes {offset} to {offset + length} of {location!r}, which has {size}."
            )
        with file.open("rb") as stream:
            stream.seek(offset)
            return stream.read(length)

    def value(self, node: Any, name: str) -> np.ndarray:
        """A constant by its name."""
        if name not in self.known and name in self.tensors:
            self.known[name] = self.array(self.tensors[name], name)
        if name not in self.known:
            refuse(self.path, node, f"takes {name!r} from the input; a constant is wanted there")
        return self.known[name]

    def numbers(self, node: Any, k: int) -> np.ndarray:
        """The k-th input as float32."""
        name = node.input[k]
        with np.errstate(over="ignore"):
            array = self.value(node, name).astype(np.float32, copy=False)
        if not finite(array):
            refuse(self.path, node, f"takes {name!r}, which holds NaN, infinity or more than float32 can")
        return array

    def given(self, node: Any, k: int) -> bool:
        """Whether a node has a k-th input."""
        return len(node.input) > k and bool(node.input[k])

    def folded(self, node: Any) -> np.ndarray:
        """What a node computes from constants alone."""
        import onnx
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        if node.op_type not in FOLDED:
            raise DataError(
                f"{self.path}: an operation {node.op_type} on constants is not understood here "
                f"(node {node.name or node.output[0]!r})."
            )
        given = {name: self.value(node, name) for name in node.input if name}
        arrays = list(given.values())
        try:
            count = int(np.prod([max(array.size, 1) for array in arrays], dtype=float)) if node.op_type == "Gather" else 0
            if node.op_type in ("Add", "Div", "Mul", "Sub"):
                count = int(np.prod(np.broadcast_shapes(*(array.shape for array in arrays)), dtype=float))
            if max(count, sum(array.size for array in arrays)) > FOLDED_NUMBERS:
                refuse(self.path, node, "would make too large a constant")
            ends = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                    for name, array in given.items()]  # fmt: skip
            out = onnx.ValueInfoProto(name=node.output[0])
            made = helper.make_model(helper.make_graph([node], "one", ends, [out]),
                                     opset_imports=[helper.make_opsetid("", self.opset)])  # fmt: skip
            (computed,) = cast("list[np.ndarray]", ReferenceEvaluator(made).run(None, given))
            return np.asarray(computed)
        except DataError:
            raise
        except Exception as error:  # each operation of the library checks its arguments in its own way
            said = (str(error).splitlines() or [type(error).__name__])[0]
            refuse(self.path, node, f"cannot be computed ({said[:80]})")
