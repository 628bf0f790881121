"""Feed-forward networks from ONNX graphs: node after node, each used as it is written or refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from broadsheet.conversion.conversion import Layer, Sequential
from broadsheet.conversion.onnx_constants import load_model
from broadsheet.conversion.onnx_graph import Graph

FURTHEST = 1024
"""Largest stride, dilation and padding that are read; larger ones are a damaged file's."""
WIDEST = 4096
"""Features that are scaled one by one by a matrix of their own."""
FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")


def read_onnx(path: Path, shape: tuple[int, ...] | None = None) -> Sequential:
    """The layers of a graph without branches; `shape`: of one input, wanted where the file leaves its sizes open.

    Read are Gemm, MatMul, Conv (two dimensions; strides, dilations, groups, any padding), AveragePool, GlobalAveragePool,
    BatchNormalization, Add, Sub, Mul and Div by constants, Relu, Clip from 0 on, Flatten, Reshape, Squeeze, Unsqueeze and
    Transpose that flatten or move nothing, Identity, Dropout, Cast to floating-point numbers, what is computed from constants
    and shapes alone, and weights beside the model in files of its own folder. Numbers become float32. A last Softmax,
    LogSoftmax or Relu is left out, since the largest of the classes stays the largest; one input and one output are wanted.

    **Raises:** `DataError` for anything else, with the node and the attribute; `UntrustedError` for weights elsewhere.
    """
    return _Reader(path, load_model(path), shape).layers()


class _Reader(Graph):
    """A graph whose operations are those below."""

    def flatten(self, node: Any, options: dict[str, Any]) -> None:
        axis = int(options.get("axis", 1))
        if self.shape is None:
            if axis != 1:
                self.refuse(node, f"has axis {axis}; 1 is wanted where the sizes are open")
            self.made.append(Layer("flatten"))
            return
        at = axis + len(self.shape) if axis < 0 else axis
        if not 0 < at <= len(self.shape):
            self.refuse(node, f"has axis {axis}, which mixes samples")
        sides = [int(np.prod(part, dtype=float)) for part in (self.shape[:at], self.shape[at:])]
        self._reshaped(node, (sides[0], sides[1]), f"axis {axis}")

    def reshape(self, node: Any, options: dict[str, Any]) -> None:
        target = self._ints(node, options, "shape", 1)
        if target is None or target.count(-1) > 1 or min(target, default=0) < -1:
            self.refuse(node, f"has the shape {target}, which says nothing")
        if options.get("allowzero", 0) and 0 in target:
            self.refuse(node, "has allowzero and a size of 0")
        if self.shape is None:
            if len(target) != 2 or target[0] not in (-1, 0, 1):
                self.refuse(node, f"has the shape {target}; only flattening is read where the sizes are open")
            self.made.append(Layer("flatten"))
            return
        if any(side == 0 and k >= len(self.shape) for k, side in enumerate(target)):
            self.refuse(node, f"has the shape {target} for an array of {self.shape}")
        sides = [self.shape[k] if side == 0 else side for k, side in enumerate(target)]
        if -1 in sides:
            total, others = int(np.prod(self.shape, dtype=float)), int(np.prod([s for s in sides if s != -1], dtype=float))
            sides[sides.index(-1)] = total // others
        self._reshaped(node, tuple(sides), f"shape {target}")

    def squeeze(self, node: Any, options: dict[str, Any]) -> None:
        axes, shape = self._ints(node, options, "axes", 1), self._known(node, self.shape)
        if not axes:
            self.refuse(node, "names no axes, and might take that of the samples")
        gone = {axis % len(shape) for axis in axes}
        if any(not -len(shape) <= axis < len(shape) for axis in axes) or any(k == 0 or shape[k] != 1 for k in gone):
            self.refuse(node, f"takes the axes {axes} out of {shape}, which are not of size 1, or are those of the samples")
        self._reshaped(node, tuple(side for k, side in enumerate(shape) if k not in gone), f"axes {axes}")

    def unsqueeze(self, node: Any, options: dict[str, Any]) -> None:
        axes, shape = self._ints(node, options, "axes", 1) or (), self._known(node, self.shape)
        rank = len(shape) + len(axes)
        new = {axis % rank for axis in axes}
        if 0 in new or len(new) != len(axes) or any(not -rank <= axis < rank for axis in axes):
            self.refuse(node, f"has the axes {axes} for an array of {shape}, samples first")
        old = iter(shape)
        self._reshaped(node, tuple(1 if k in new else next(old) for k in range(rank)), f"axes {axes}")

    def transpose(self, node: Any, options: dict[str, Any]) -> None:
        shape = self._known(node, self.shape)
        order = tuple(options.get("perm", range(len(shape))[::-1]))
        moved = [k for k in order if k and shape[k] > 1] if sorted(order) == list(range(len(shape))) else None
        if moved is None or order[0] != 0 or moved != sorted(moved):
            self.refuse(node, f"has perm {order}, which moves {shape}; only what moves nothing is read")
        self._reshaped(node, tuple(shape[k] for k in order), f"perm {order}")

    def _append(self, kind: Any, weight: Any = None, bias: Any = None, **geometry: Any) -> None:
        arrays = [None if part is None else jnp.asarray(np.asarray(part, np.float32)) for part in (weight, bias)]
        self.made.append(Layer(kind, arrays[0], arrays[1], **geometry))

    def _linear(self, node: Any, weight: np.ndarray, bias: np.ndarray | None) -> None:
        if weight.ndim != 2:
            self.refuse(node, f"has weights of the shape {weight.shape}; two dimensions are wanted")
        if self.shape is not None and (len(self.shape) != 2 or self.shape[1] != weight.shape[1]):
            self.refuse(node, f"has weights for {weight.shape[1]} inputs; an array of {self.shape} arrives")
        self._append("linear", weight=weight, bias=bias)
        self.shape = self.real = (1 if self.shape is None else self.shape[0], weight.shape[0])

    def gemm(self, node: Any, options: dict[str, Any]) -> None:
        if node.input[0] != self.current:
            self.refuse(node, "multiplies from the left; weights are wanted behind the input")
        if options.get("transA", 0):
            self.refuse(node, "has transA = 1, which mixes samples")
        weight = self.constants.numbers(node, 1)
        weight = weight if options.get("transB", 0) else weight.T
        alpha, beta, bias = np.float32(options.get("alpha", 1.0)), np.float32(options.get("beta", 1.0)), None
        if alpha != 1:
            weight = alpha * weight
        if self.constants.given(node, 2):
            bias = beta * self._spread(node, self.constants.numbers(node, 2), (1, len(weight))).ravel()
        self._linear(node, weight, bias)

    def matmul(self, node: Any, options: dict[str, Any]) -> None:
        if node.input[0] != self.current:
            self.refuse(node, "multiplies from the left; weights are wanted behind the input")
        self._linear(node, self.constants.numbers(node, 1).T, None)

    def _spread(self, node: Any, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A constant for each feature or channel of one sample."""
        if array.ndim == len(shape) == 4 and array.shape[2:] != (1, 1) and (array == array[:, :, :1, :1]).all():
            array = array[:, :, :1, :1]
        try:
            return np.broadcast_to(array, shape)
        except ValueError:
            self.refuse(node, f"takes a constant of {array.shape}, which is not one number a class, feature or channel")

    def elementwise(self, node: Any, options: dict[str, Any]) -> None:
        first = node.input[0] == self.current
        constant = self.constants.numbers(node, 1 if first else 0)
        one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
        if node.op_type == "Add":
            self._affine(node, one, constant)
        elif node.op_type == "Sub":
            self._affine(node, *((one, -constant) if first else (-one, constant)))
        elif node.op_type == "Mul":
            self._affine(node, constant, none)
        elif first and constant.all():
            self._affine(node, 1 / constant, none)
        else:
            self.refuse(node, "divides by zero" if first else "divides by its input")

    def _affine(self, node: Any, scale: np.ndarray, shift: np.ndarray) -> None:
        """`scale x + shift` by feature or channel, taken into the layer before where that has weights."""
        width, flat = self._width(node)
        wide = (1, width) if flat else (1, width, 1, 1)
        scale, shift = (self._spread(node, part, wide).reshape(-1) for part in (scale, shift))
        last = self.made[-1] if self.made else None
        if last is not None and last.weight is not None:
            weight, bias = np.asarray(last.weight), 0 if last.bias is None else np.asarray(last.bias)
            same = {name: getattr(last, name) for name in ("size", "padding", "dilation", "groups")}
            self.made.pop()
            self._append(
                last.kind, weight=scale.reshape(-1, *[1] * (weight.ndim - 1)) * weight, bias=scale * bias + shift, **same
            )
        elif not flat:
            self._append("conv", weight=scale.reshape(-1, 1, 1, 1), bias=shift, groups=width)
        elif width <= WIDEST:
            self._append("linear", weight=np.diag(scale), bias=shift)
        else:
            self.refuse(node, f"scales {width} features one by one; at most {WIDEST} are read")

    def batch_normalization(self, node: Any, options: dict[str, Any]) -> None:
        if (
            options.get("training_mode", 0)
            or not options.get("spatial", 1)
            or (self.opset < 7 and not options.get("is_test", 0))
        ):
            self.refuse(node, "has training_mode, spatial or is_test set so that it uses the batch's own statistics")
        gain, offset, mean, variance = (self.constants.numbers(node, k).astype(float) for k in (1, 2, 3, 4))
        if variance.min(initial=0.0) < 0:
            self.refuse(node, "has a variance below 0")
        scale = gain / np.sqrt(variance + options.get("epsilon", 1e-5))
        wide = (1, -1) if self._width(node)[1] else (1, -1, 1, 1)
        self._affine(node, *(part.astype(np.float32).reshape(wide) for part in (scale, offset - mean * scale)))

    def _window(self, node: Any, options: dict[str, Any], kernel: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """(strides, dilations, zeros before, zeros after), each along height and width."""
        if len(kernel) != 2:
            self.refuse(node, f"has a kernel of {len(kernel)} dimensions; two are read")
        strides, dilations = (tuple(options.get(name, (1, 1))) for name in ("strides", "dilations"))
        pads, auto = tuple(options.get("pads", (0, 0, 0, 0))), options.get("auto_pad", b"NOTSET").decode()
        for name, values, least, count in (("strides", strides, 1, 2), ("dilations", dilations, 1, 2), ("pads", pads, 0, 4)):
            if len(values) != count or min(values) < least or max(values) > FURTHEST:
                self.refuse(node, f"has {name} {list(values)}, which are not read")
        if min(kernel) < 1 or max(kernel) > FURTHEST:
            self.refuse(node, f"has a kernel of {kernel}, which is not read")
        if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
            self.refuse(node, f"has auto_pad {auto!r}, which is not read")
        if auto != "NOTSET" and any(pads):
            self.refuse(node, f"has auto_pad {auto!r} and pads too")
        if not auto.startswith("SAME"):
            return strides, dilations, pads[:2], pads[2:]
        self._known(node, self.shape)
        sides = self._sides(node) or ()
        needed = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
                  for n, s, k, d in zip(sides, strides, kernel, dilations, strict=True)]  # fmt: skip
        less, more = tuple(total // 2 for total in needed), tuple(total - total // 2 for total in needed)
        return (strides, dilations, less, more) if auto == "SAME_UPPER" else (strides, dilations, more, less)

    def _convolve(self, node: Any, weight: np.ndarray, bias: np.ndarray | None, groups: int, window: Any) -> None:
        """A convolution with as many zeros before as after: kernels get zeros in place of the difference."""
        strides, dilations, before, after = (list(part) for part in window)
        sides = self._sides(node)
        for k in (0, 1):
            if before[k] == after[k]:
                continue
            axis = 2 + k
            if dilations[k] > 1:
                wide = np.zeros(
                    [(n - 1) * dilations[k] + 1 if a == axis else n for a, n in enumerate(weight.shape)], np.float32
                )
                wide[(slice(None),) * axis + (slice(None, None, dilations[k]),)] = weight
                weight, dilations[k] = wide, 1
            missing = (max(after[k] - before[k], 0), max(before[k] - after[k], 0))
            weight = np.pad(weight, [missing if a == axis else (0, 0) for a in range(4)])
            before[k] = after[k] = max(before[k], after[k])
        if sides is not None:
            out = [(n + 2 * p - (w - 1) * d - 1) // s + 1
                   for n, p, w, d, s in zip(sides, before, weight.shape[2:], dilations, strides, strict=True)]  # fmt: skip
            if min(out) < 1:
                self.refuse(node, f"has a kernel that is larger than the image of {sides}")
            self.shape = self.real = (self._known(node, self.shape)[0], weight.shape[0], *out)
        each = {"size": strides, "padding": before, "dilation": dilations}
        self._append("conv", weight=weight, bias=bias, groups=groups,
                     **{name: one[0] if one[0] == one[1] else tuple(one) for name, one in each.items()})  # fmt: skip

    def conv(self, node: Any, options: dict[str, Any]) -> None:
        if node.input[0] != self.current:
            self.refuse(node, "takes its weights from the input")
        weight, groups = self.constants.numbers(node, 1), int(options.get("group", 1))
        kernel = weight.shape[2:]
        if tuple(options.get("kernel_shape", kernel)) != kernel:
            self.refuse(node, f"has kernel_shape {list(options['kernel_shape'])} and weights of {weight.shape}")
        window, sides = self._window(node, options, kernel), self._sides(node)
        if sides is not None and self.shape is not None:
            channels = self.shape[1]
            if groups < 1 or channels != weight.shape[1] * groups or len(weight) % groups:
                self.refuse(node, f"has group {groups} and weights of {weight.shape}; images of {channels} channels arrive")
        bias = self.constants.numbers(node, 2) if self.constants.given(node, 2) else None
        if bias is not None and bias.shape != weight.shape[:1]:
            self.refuse(node, f"has a bias of {bias.shape} for {len(weight)} channels")
        self._convolve(node, weight, bias, groups, window)

    def average_pool(self, node: Any, options: dict[str, Any]) -> None:
        kernel = tuple(int(side) for side in options.get("kernel_shape", ()))
        strides, dilations, before, after = window = self._window(node, options, kernel)
        padded, sides = any((*before, *after)), self._sides(node)
        if padded and not options.get("count_include_pad", 0):
            self.refuse(node, "has pads and count_include_pad = 0; averages that leave zeros out are not read")
        if options.get("ceil_mode", 0):
            self._known(node, self.shape)
            reach = [(k - 1) * d + 1 - b - a for k, d, b, a in zip(kernel, dilations, before, after, strict=True)]
            left = [(n - r) % s for n, r, s in zip(sides or (), reach, strides, strict=True)]
            if any(left):
                self.refuse(node, f"has ceil_mode = 1 and images of {sides}, which its windows do not fill; that is not read")
        side = kernel[0]
        if padded or {*kernel, *strides} != {side} or set(dilations) != {1}:
            weight = np.full((self._width(node)[0], 1, *kernel), 1 / np.prod(kernel), np.float32)
            self._convolve(node, weight, None, len(weight), window)
            return
        if sides is not None:
            if min(sides) < side:
                self.refuse(node, f"has a kernel that is larger than the image of {sides}")
            self.shape = self.real = (*self._known(node, self.shape)[:2], sides[0] // side, sides[1] // side)
        self._append("pool", size=side)

    def global_average_pool(self, node: Any, options: dict[str, Any]) -> None:
        self._known(node, self.shape)
        sides = self._sides(node)
        self.average_pool(node, {"kernel_shape": sides, "strides": sides})

    def relu(self, node: Any, options: dict[str, Any]) -> None:
        self._activation(None)

    def clip(self, node: Any, options: dict[str, Any]) -> None:
        low, high = (
            float(options[name]) if name in options
            else float(self.constants.numbers(node, k).reshape(())) if self.constants.given(node, k)
            else None
            for k, name in ((1, "min"), (2, "max"))
        )  # fmt: skip
        above = bool(self.made) and self.made[-1].kind == "activation"
        if low != 0 and not (above and (low is None or low < 0)):
            self.refuse(node, f"has min {low}; only a Clip from 0 on is what spikes can do")
        if high is not None and high <= 0:
            self.refuse(node, f"has max {high}; a ceiling above 0 is wanted")
        self._activation(None if high is None or high >= np.finfo(np.float32).max else high)

    def _activation(self, ceiling: float | None) -> None:
        if self.made and self.made[-1].kind == "activation":
            before = self.made.pop().ceiling
            ceiling = min((each for each in (before, ceiling) if each is not None), default=None)
        self._append("activation", ceiling=ceiling)

    def softmax(self, node: Any, options: dict[str, Any]) -> None:
        axis = int(options.get("axis", -1 if self.opset >= 13 else 1))
        if axis not in (1, -1) or (self.shape is not None and len(self.shape) != 2):
            self.refuse(node, f"has axis {axis} for an array of {self.shape}; classes (samples, classes) are wanted")
        self.ended = node

    def cast(self, node: Any, options: dict[str, Any]) -> None:
        import onnx

        kind = onnx.TensorProto.DataType.Name(options["to"]) if "to" in options else "nothing"
        if kind not in FLOATS:
            self.refuse(node, f"has to = {kind}; casts to floating-point numbers are read")

    def dropout(self, node: Any, options: dict[str, Any]) -> None:
        if (self.constants.given(node, 2) and self.constants.value(node, node.input[2]).any()) or (
            self.opset < 7 and not options.get("is_test", 0)
        ):
            self.refuse(node, "is in training mode")

    def identity(self, node: Any, options: dict[str, Any]) -> None:
        """Nothing changes."""


_Reader.operations = {
    "Add": (_Reader.elementwise, {"broadcast"}),
    "AveragePool": (
        _Reader.average_pool,
        {"auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides"},
    ),
    "BatchNormalization": (_Reader.batch_normalization, {"epsilon", "is_test", "momentum", "spatial", "training_mode"}),
    "Cast": (_Reader.cast, {"saturate", "to"}),
    "Clip": (_Reader.clip, {"max", "min"}),
    "Conv": (_Reader.conv, {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"}),
    "Div": (_Reader.elementwise, {"broadcast"}),
    "Dropout": (_Reader.dropout, {"is_test", "ratio", "seed"}),
    "Flatten": (_Reader.flatten, {"axis"}),
    "Gemm": (_Reader.gemm, {"alpha", "beta", "broadcast", "transA", "transB"}),
    "GlobalAveragePool": (_Reader.global_average_pool, set()),
    "Identity": (_Reader.identity, set()),
    "LogSoftmax": (_Reader.softmax, {"axis"}),
    "MatMul": (_Reader.matmul, set()),
    "Mul": (_Reader.elementwise, {"broadcast"}),
    "Relu": (_Reader.relu, set()),
    "Reshape": (_Reader.reshape, {"allowzero", "shape"}),
    "Softmax": (_Reader.softmax, {"axis"}),
    "Squeeze": (_Reader.squeeze, {"axes"}),
    "Sub": (_Reader.elementwise, {"broadcast"}),
    "Transpose": (_Reader.transpose, {"perm"}),
    "Unsqueeze": (_Reader.unsqueeze, {"axes"}),
}
_Reader.unchanged = {"Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze"}
