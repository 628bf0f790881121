"""Graphs node by node against ONNX's own reference evaluator, and what is refused, by the node and the attribute."""

import os

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from broadsheet.conversion import QuantisedNet, SpikingNet
from broadsheet.conversion.conversion import Layer, Sequential, balanced_thresholds
from broadsheet.conversion.model_files import read_network, save_network
from broadsheet.dynamics import rollout
from broadsheet.errors import DataError, UntrustedError
from broadsheet.networks import from_nir, to_nir

RNG = np.random.default_rng(0)
IMAGE = (2, 7, 6)


def n(op, inputs, output="o", **attributes):
    return helper.make_node(op, inputs, [output], **attributes)


def saved(path, nodes, shape, arrays, *, opset=18, batch="N", inputs=("x",), outputs=("o",)):
    """A graph from x (batch, *shape) to o; arrays that are no protos become float32 initializers."""
    made = [a if isinstance(a, TensorProto) else numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]
    ends = [[helper.make_tensor_value_info(name, 1, dims and [batch, *dims]) for name in names]
            for names, dims in ((inputs, shape), (outputs, None))]  # fmt: skip
    graph = helper.make_graph(nodes, "net", *ends, made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
    return path


def f(*shape, low=None):
    drawn = RNG.normal(size=shape) if low is None else RNG.uniform(low, 2, size=shape)
    return drawn.astype(np.float32)


def answers(body, x):
    ceilings = body.ceilings
    return np.asarray(body(jnp.asarray(x), lambda k, z: jnp.clip(z, 0, ceilings[k])))


def agree(path, shape, *, batch=3):
    x = RNG.normal(size=(batch, *shape)).astype(np.float32)
    (expected,) = ReferenceEvaluator(str(path)).run(None, {"x": x})
    body, theta = read_network(path, shape)
    assert theta is None
    np.testing.assert_allclose(answers(body, x), expected, atol=1e-4)


def i(*values):
    return np.array(values, np.int64)


SEVEN = {"w": f(4, 7), "c": f(4)}
FLAT = {
    "beta": ([n("Gemm", ["x", "w", "c"], transB=1, alpha=0.5, beta=4.0)], SEVEN),
    "beta 0": ([n("Gemm", ["x", "w", "c"], transB=1, beta=0.0)], SEVEN),
    "scalar bias": ([n("Gemm", ["x", "w", "c"], transB=1)], {"w": f(4, 7), "c": f()}),
    "row bias": ([n("Gemm", ["x", "w", "c"], transB=1)], {"w": f(4, 7), "c": f(1, 4)}),
    "without bias": ([n("Gemm", ["x", "w"])], {"w": f(7, 4)}),
    "doubles": ([n("Gemm", ["x", "wf", "c"], transB=1)], {"wf": f(4, 7), "c": f(4)}),
    "bias before": ([n("MatMul", ["x", "w"], "1"), n("Add", ["c", "1"])], {"w": f(7, 4), "c": f(4)}),
    "affine": ([n("Sub", ["c", "x"], "1"), n("Div", ["1", "d"], "2"), n("MatMul", ["2", "w"], "3"), n("Mul", ["3", "e"])],
               {"c": f(7), "d": f(1, 7, low=0.5), "w": f(7, 4), "e": f(1)}),
    "ceiling": ([n("MatMul", ["x", "w"], "1"), n("Clip", ["1", "low", "high"], "2"), n("MatMul", ["2", "v"])],
                {"w": f(7, 5), "low": f() * 0, "high": np.float32(0.7), "v": f(5, 3)}),
    "cut twice": ([n("MatMul", ["x", "w"], "1"), n("Relu", ["1"], "2"), n("Clip", ["2", "", "high"], "3"), n("MatMul", ["3", "v"])],
                  {"w": f(7, 5), "high": np.float32(0.7), "v": f(5, 3)}),
    "norm": ([n("MatMul", ["x", "w"], "1"), n("BatchNormalization", ["1", "a", "b", "m", "s"], "2", epsilon=0.1),
              n("Relu", ["2"], "3"), n("BatchNormalization", ["3", "a", "b", "m", "s"], "4"), n("MatMul", ["4", "v"])],
             {"w": f(7, 5), "a": f(5), "b": f(5), "m": f(5), "s": f(5, low=0.5), "v": f(5, 3)}),
    "constants": ([n("Constant", [], "k", value_float=2.0), n("Transpose", ["w"], "t"), n("Mul", ["t", "k"], "u"),
                   n("Cast", ["u"], "v", to=1), n("Identity", ["x"], "1"), n("MatMul", ["1", "v"])], {"w": f(4, 7)}),
    "softmax": ([n("MatMul", ["x", "w"], "1"), n("Dropout", ["1"], "2"), n("Identity", ["2"])], {"w": f(7, 4)}),
    "view": ([n("Shape", ["x"], "s"), n("Gather", ["s", "zero"], "g"), n("Unsqueeze", ["g", "at"], "u"),
              n("Concat", ["u", "rest"], "t", axis=0), n("Reshape", ["x", "t"], "y"), n("MatMul", ["y", "w"])],
             {"zero": np.array(0), "at": i(0), "rest": i(-1), "w": f(7, 4)}),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAT)
def test_vectors(tmp_path, name):
    nodes, arrays = FLAT[name]
    agree(saved(tmp_path / "a.onnx", nodes, (7,), arrays), (7,), batch=1 if name == "view" else 3)


IMAGES = {
    "same upper": ([n("Conv", ["x", "w", "b"], "y", auto_pad="SAME_UPPER", strides=[2, 2])], {"w": f(3, 2, 3, 4), "b": f(3)}),
    "same lower": ([n("Conv", ["x", "w"], "y", auto_pad="SAME_LOWER", strides=[2, 1])], {"w": f(3, 2, 2, 4)}),
    "valid": ([n("Conv", ["x", "w"], "y", auto_pad="VALID")], {"w": f(3, 2, 3, 2)}),
    "grouped": ([n("Conv", ["x", "w", "b"], "y", group=2, pads=[1, 1, 1, 1])], {"w": f(6, 1, 3, 3), "b": f(6)}),
    "dilated": ([n("Conv", ["x", "w"], "y", dilations=[2, 3], strides=[1, 2])], {"w": f(3, 2, 2, 2)}),
    "asymmetric": ([n("Conv", ["x", "w"], "y", pads=[0, 2, 1, 0], dilations=[2, 2], strides=[2, 1])], {"w": f(3, 2, 2, 2)}),
    "norm first": ([n("BatchNormalization", ["x", "a", "b", "m", "s"], "1"), n("Conv", ["1", "w"], "2", pads=[1] * 4),
                    n("BatchNormalization", ["2", "a", "b", "m", "s"], "3"), n("Relu", ["3"], "y")],
                   {"a": f(2), "b": f(2), "m": f(2), "s": f(2, low=0.5), "w": f(2, 2, 3, 3)}),
    "normalised input": ([n("Sub", ["x", "m"], "1"), n("Div", ["1", "s"], "2"), n("Conv", ["2", "w"], "y", pads=[1] * 4)],
                         {"m": f(2, 1, 1), "s": f(1, 2, 1, 1, low=0.5), "w": f(3, 2, 3, 3)}),
    "pool": ([n("AveragePool", ["x"], "y", kernel_shape=[2, 2], strides=[2, 2])], {}),
    "pool by steps of one": ([n("AveragePool", ["x"], "y", kernel_shape=[2, 3])], {}),
    "pool with zeros": ([n("AveragePool", ["x"], "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 0, 1],
                           count_include_pad=1)], {}),
    "ceil that changes nothing": ([n("AveragePool", ["x"], "y", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1)], {}),
    "global": ([n("GlobalAveragePool", ["x"], "y")], {}),
}  # fmt: skip
ENDS = {
    "flatten": [n("Flatten", ["y"], "z")],
    "negative axis": [n("Flatten", ["y"], "z", axis=-3)],
    "reshape": [n("Constant", [], "t", value_ints=[0, -1]), n("Reshape", ["y", "t"], "z")],
    "by steps": [n("Constant", [], "t", value_ints=[-1, 1, 0, 1]), n("Constant", [], "one", value_ints=[1]),
                 n("Flatten", ["y"], "z1"), n("Unsqueeze", ["z1", "one"], "z2"), n("Squeeze", ["z2", "one"], "z")],
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_images(tmp_path, name):
    nodes, arrays = IMAGES[name]
    for end in ENDS.values():
        path = saved(tmp_path / "a.onnx", [*nodes, *end], IMAGE, arrays, outputs=("z",))
        (flat,) = ReferenceEvaluator(str(path)).run(None, {"x": np.zeros((1, *IMAGE), np.float32)})
        read_out = n("Gemm", ["z", "out"], transB=1)
        agree(saved(path, [*nodes, *end, read_out], IMAGE, {**arrays, "out": f(3, flat.shape[1])}), IMAGE)


def test_a_squeezed_map_of_one_pixel_is_flat(tmp_path):
    nodes = [n("GlobalAveragePool", ["x"], "1"), n("Transpose", ["1"], "2", perm=[0, 2, 3, 1]), n("Squeeze", ["2", "a"], "3"),
             n("MatMul", ["3", "w"])]  # fmt: skip
    agree(saved(tmp_path / "a.onnx", nodes, IMAGE, {"a": i(1, 2), "w": f(2, 3)}), IMAGE)


@pytest.mark.parametrize("opset", [6, 9, 11, 13])
def test_older_files_have_attributes_in_place_of_inputs(tmp_path, opset):
    clip = n("Clip", ["1"], "2", min=0.0, max=0.6) if opset < 11 else n("Clip", ["1", "low", "high"], "2")
    nodes = [n("Gemm", ["x", "w", "c"], "1", transB=1, **({"broadcast": 1} if opset < 7 else {})), clip,
             n("MatMul", ["2", "v"], "3"), n("Softmax", ["3"])]  # fmt: skip
    arrays = {"w": f(4, 7), "c": f(4), "low": np.float32(0), "high": np.float32(0.6), "v": f(4, 3)}
    body, _ = read_network(saved(tmp_path / "a.onnx", nodes, (7,), arrays, opset=opset))
    x = f(5, 7)
    hidden = np.clip(x @ arrays["w"].T + arrays["c"], 0, 0.6)
    np.testing.assert_allclose(answers(body, x), hidden @ arrays["v"], atol=1e-5)
    np.testing.assert_allclose(body.ceilings, [0.6], rtol=1e-6)


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int8, np.int64])
def test_weights_of_any_number(tmp_path, kind):
    weight = RNG.integers(-3, 4, (4, 7)).astype(kind)
    body, _ = read_network(saved(tmp_path / "a.onnx", [n("Gemm", ["x", "w"], transB=1)], (7,), {"w": weight}))
    x = f(2, 7)
    np.testing.assert_allclose(answers(body, x), x @ weight.T.astype(np.float32), rtol=1e-5)


def test_the_size_may_be_open_where_it_does_not_matter(tmp_path):
    nodes = [
        n("Conv", ["x", "w"], "1", strides=[2, 2]),
        n("Relu", ["1"], "2"),
        n("Flatten", ["2"], "3"),
        n("MatMul", ["3", "v"]),
    ]
    path = saved(tmp_path / "a.onnx", nodes, None, {"w": f(3, 2, 3, 3), "v": f(18, 4)})
    x = f(2, *IMAGE)
    (expected,) = ReferenceEvaluator(str(path)).run(None, {"x": x})
    for shape in (None, IMAGE):
        np.testing.assert_allclose(answers(read_network(path, shape)[0], x), expected, atol=1e-4)
    same = saved(tmp_path / "b.onnx", [n("Conv", ["x", "w"], auto_pad="SAME_UPPER")], None, {"w": f(3, 2, 3, 3)})
    with pytest.raises(DataError, match="'o' needs the sizes of the input"):
        read_network(same)


def test_a_ceiling_bounds_what_a_spiking_network_puts_out(tmp_path):
    """The long-run answers of a network with ReLU6-like activations are its own, although most inputs pass the ceiling."""
    arrays = {"w": f(8, 7), "low": np.float32(0), "high": np.float32(0.5), "v": f(8, 3)}
    nodes = [n("Gemm", ["x", "w"], "1", transB=1), n("Clip", ["1", "low", "high"], "2"), n("MatMul", ["2", "v"])]
    body, _ = read_network(saved(tmp_path / "a.onnx", nodes, (7,), arrays))
    x = f(40, 7)
    theta = balanced_thresholds(body, jnp.asarray(x), 100.0, body.ceilings)
    np.testing.assert_allclose(theta, [0.5])
    summed, _ = SpikingNet(body, (7,), theta).run(x, 400)
    np.testing.assert_allclose(summed[:, -1] / 400, answers(body, x), atol=0.02)
    assert np.abs(summed[:, -1] / 400 - np.maximum(x @ arrays["w"].T, 0) @ arrays["v"]).max() > 0.5


def external(path, location, weight, **more):
    tensor = numpy_helper.from_array(weight, "w")
    onnx.external_data_helper.set_external_data(tensor, location)
    for key, value in more.items():
        tensor.external_data.add(key=key, value=value)
    tensor.ClearField("raw_data")
    return saved(path, [n("Gemm", ["x", "w"], transB=1)], (7,), {"w": tensor})


def test_weights_lie_in_the_models_own_folder(tmp_path, monkeypatch):
    right, wrong = f(4, 7), f(4, 7)
    home, other = tmp_path / "home", tmp_path / "other"
    for folder, weight in ((home / "sub", right), (other / "sub", wrong)):
        folder.mkdir(parents=True)
        (folder / "w.bin").write_bytes(b"skip" + weight.tobytes())
    path = external(home / "a.onnx", "sub/w.bin", right, offset="4", length="112")
    monkeypatch.chdir(other)
    x = f(3, 7)
    for name in (path, os.path.relpath(path)):
        np.testing.assert_allclose(answers(read_network(name)[0], x), x @ right.T, atol=1e-5)
    (tmp_path / "link.onnx").symlink_to(path)
    np.testing.assert_allclose(answers(read_network(tmp_path / "link.onnx")[0], x), x @ right.T, atol=1e-5)


@pytest.mark.parametrize(
    ("location", "more", "said"),
    [("../other.bin", {}, "outside"), ("/etc/hostname", {}, "outside"), ("sub/../../other.bin", {}, "outside"), ("", {}, "outside"),
     ("C:\\w.bin", {}, "outside"), ("..\\other.bin", {}, "outside"), ("link.bin", {}, "outside"), ("none.bin", {}, "no file beside"),
     ("own.bin", {"offset": "400"}, "bytes 400"), ("own.bin", {"offset": "-1"}, "bytes -1"), ("own.bin", {"length": "x"}, "no whole"),
     ("own.bin", {"length": "4"}, "cannot be read"), ("own.bin", {"length": "999999999999"}, "which has 112"),
     ("own.bin", {"checksum": "ab"}, "'checksum'")],
)  # fmt: skip
def test_weights_elsewhere_are_refused(tmp_path, location, more, said):
    home = tmp_path / "home"
    home.mkdir()
    for name in ("other.bin", "home/own.bin"):
        (tmp_path / name).write_bytes(f(4, 7).tobytes())
    (home / "link.bin").symlink_to(tmp_path / "other.bin")
    with pytest.raises(UntrustedError if said == "outside" else DataError, match=f"'w'.*{said}"):
        read_network(external(home / "a.onnx", location, f(4, 7), **more))


CONV = {"w": f(3, 2, 3, 3)}
REFUSED = {
    "transA": ([n("Gemm", ["x", "w"], transA=1)], (7,), {"w": f(7, 4)}, "node Gemm 'o' has transA"),
    "left": ([n("Gemm", ["w", "x"])], (7,), {"w": f(7, 4)}, "from the left"),
    "left matrix": ([n("MatMul", ["w", "x"])], (7,), {"w": f(7, 4)}, "from the left"),
    "bias a sample": ([n("Gemm", ["x", "w", "c"])], (7,), {"w": f(7, 4), "c": f(3, 4)}, "constant of (3, 4)"),
    "negative clip": ([n("Clip", ["x", "a", "b"])], (7,), {"a": np.float32(-1), "b": np.float32(1)}, "min -1.0"),
    "open clip": ([n("Clip", ["x", "", "b"])], (7,), {"b": np.float32(1)}, "min None"),
    "raised clip": ([n("Clip", ["x", "a"])], (7,), {"a": np.float32(0.1)}, "min 0.1"),
    "last clip": ([n("Clip", ["x", "a", "b"])], (7,), {"a": np.float32(0), "b": np.float32(1)}, "classes may tie"),
    "unknown attribute": ([n("Relu", ["x"], slope=0.1)], (7,), {}, "'slope'"),
    "leaky": ([n("LeakyRelu", ["x"], alpha=0.1)], (7,), {}, "operation LeakyRelu"),
    "another domain": ([n("Relu", ["x"], domain="ai.onnx.ml")], (7,), {}, "domain 'ai.onnx.ml'"),
    "softmax within": ([n("Softmax", ["x"], "1"), n("MatMul", ["1", "w"])], (7,), {"w": f(7, 4)}, "follows a Softmax"),
    "softmax of samples": ([n("Softmax", ["x"], axis=0)], (7,), {}, "axis 0"),
    "groups": ([n("Conv", ["x", "w"], group=2)], IMAGE, CONV, "group 2"),
    "both paddings": ([n("Conv", ["x", "w"], auto_pad="VALID", pads=[1] * 4)], IMAGE, CONV, "auto_pad 'VALID' and pads"),
    "unknown padding": ([n("Conv", ["x", "w"], auto_pad="SAME")], IMAGE, CONV, "auto_pad 'SAME'"),
    "negative padding": ([n("Conv", ["x", "w"], pads=[0, -1, 0, 0])], IMAGE, CONV, "pads"),
    "huge stride": ([n("Conv", ["x", "w"], strides=[2**40, 1])], IMAGE, CONV, "strides"),
    "kernel": ([n("Conv", ["x", "w"], kernel_shape=[2, 2])], IMAGE, CONV, "kernel_shape"),
    "too large": ([n("Conv", ["x", "w"])], IMAGE, {"w": f(3, 2, 9, 3)}, "larger than the image"),
    "one dimension": ([n("Conv", ["x", "w"])], (2, 7), {"w": f(3, 2, 3)}, "kernel of 1 dimensions"),
    "zeros left out": ([n("AveragePool", ["x"], kernel_shape=[2, 2], pads=[1] * 4)], IMAGE, {}, "count_include_pad = 0"),
    "ceiling of a pool": ([n("AveragePool", ["x"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)], IMAGE, {}, "ceil_mode"),
    "largest": ([n("MaxPool", ["x"], kernel_shape=[2, 2])], IMAGE, {}, "operation MaxPool"),
    "flatten all": ([n("Flatten", ["x"], axis=0)], (7,), {}, "axis 0"),
    "samples mixed": ([n("Flatten", ["x"], axis=2)], IMAGE, {}, "axis 2"),
    "reshape": ([n("Reshape", ["x", "t"], "1"), n("Conv", ["1", "w"])], (18,), {"t": i(0, 2, 3, 3), **CONV}, "only flattening"),
    "reshape mixes": ([n("Reshape", ["x", "t"])], (8,), {"t": i(-1, 4)}, "samples are to stay apart"),
    "another image": ([n("Reshape", ["x", "t"], "1"), n("Conv", ["1", "w"])], IMAGE, {"t": i(0, 2, 6, 7), **CONV}, "only flattening"),
    "squeeze": ([n("Squeeze", ["x"])], (1, 7), {}, "names no axes"),
    "transpose": ([n("Transpose", ["x"], "1", perm=[0, 2, 3, 1]), n("Flatten", ["1"])], IMAGE, {}, "perm (0, 2, 3, 1)"),
    "whole numbers": ([n("Cast", ["x"], to=TensorProto.INT32)], (7,), {}, "to = INT32"),
    "training": ([n("BatchNormalization", ["x", "a", "a", "a", "a"], training_mode=1)], IMAGE, {"a": f(2, low=0.5)}, "training_mode"),
    "not a number": ([n("MatMul", ["x", "w"])], (7,), {"w": f(7, 4) * np.nan}, "'w', which holds NaN"),
    "too large for float32": ([n("MatMul", ["x", "w"])], (7,), {"w": np.full((7, 4), 1e300)}, "more than float32"),
    "fits not": ([n("MatMul", ["x", "w"])], (7,), {"w": f(6, 4)}, "weights for 6 inputs"),
    "three dimensions": ([n("MatMul", ["x", "w"])], (5, 7), {"w": f(7, 4)}, "(1, 5, 7) arrives"),
    "by place": ([n("Mul", ["x", "c"], "1"), n("Flatten", ["1"])], IMAGE, {"c": f(1, 2, 7, 6)}, "constant of (1, 2, 7, 6)"),
    "divides": ([n("Div", ["c", "x"])], (7,), {"c": f(7)}, "divides by its input"),
    "by zero": ([n("Div", ["x", "c"])], (7,), {"c": f(7) * 0}, "divides by zero"),
    "two of itself": ([n("Add", ["x", "x"])], (7,), {}, "branches"),
    "strange constant": ([n("Sin", ["w"], "v"), n("MatMul", ["x", "v"])], (7,), {"w": f(7, 4)}, "operation Sin on constants"),
    "growing": ([n("Mul", ["a", "b"], "v"), n("MatMul", ["x", "v"])], (7,), {"a": f(20_000, 1), "b": f(1, 20_000)}, "too large a"),
    "lacks": ([n("Gemm", ["x"])], (7,), {}, "node 0, Gemm, lacks"),
    "not flat": ([n("Conv", ["x", "w"])], IMAGE, CONV, "(samples, classes) is wanted"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_named(tmp_path, name):
    nodes, shape, arrays, said = REFUSED[name]
    path = saved(tmp_path / "a.onnx", nodes, shape, arrays)
    with pytest.raises(DataError) as caught:
        read_network(path, shape)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_several_ends_and_other_shapes_are_named(tmp_path):
    nodes = [n("Relu", ["x"], "1"), n("Relu", ["1"])]
    with pytest.raises(DataError, match=r"2 inputs \('x', 'y'\)"):
        read_network(saved(tmp_path / "a.onnx", nodes, (7,), {}, inputs=("x", "y")))
    with pytest.raises(DataError, match=r"2 outputs \('1', 'o'\)"):
        read_network(saved(tmp_path / "a.onnx", nodes, (7,), {}, outputs=("1", "o")))
    with pytest.raises(DataError, match="output '1' is not what the last node gives"):
        read_network(saved(tmp_path / "a.onnx", nodes, (7,), {}, outputs=("1",)))
    path = saved(tmp_path / "a.onnx", nodes, (7,), {})
    with pytest.raises(DataError, match=r"'x' is \(any, 7\), samples first; inputs of \(8,\)"):
        read_network(path, (8,))


def test_convolutions_of_all_kinds_are_kept_in_files_of_our_own_and_in_graphs(tmp_path):
    body = Sequential((Layer("conv", jnp.asarray(f(4, 1, 3, 2)), None, (2, 1), (1, 0), (1, 2), 2), Layer("activation"),
                       Layer("flatten"), Layer("linear", jnp.asarray(f(3, 64)))))  # fmt: skip
    net = QuantisedNet(body, IMAGE, theta=1.5)
    save_network(net, tmp_path / "a.safetensors")
    again, _ = read_network(tmp_path / "a.safetensors", IMAGE)
    x = f(2, *IMAGE)
    np.testing.assert_array_equal(answers(again, x), answers(body, x))
    spiking = net.spiking()
    graph, image = from_nir(to_nir(spiking)), jnp.abs(jnp.asarray(x[0]))
    said = rollout(graph, jnp.broadcast_to(image, (4, *IMAGE)))[1]
    np.testing.assert_allclose(jnp.cumsum(said, axis=0), spiking.run(image[None], 4)[0][0], atol=1e-4)
    with pytest.raises(DataError, match="trained on inputs of"):
        read_network(tmp_path / "a.safetensors", (2, 6, 7))
