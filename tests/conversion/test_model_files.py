import json

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from broadsheet.conversion import QuantisedNet
from broadsheet.conversion.conversion import Sequential
from broadsheet.conversion.model_files import read_network, save_network
from broadsheet.errors import DataError, InputError


def relu(k, z):
    return jax.nn.relu(z)


def test_quantised_networks_come_back(tmp_path):
    body = Sequential.conv((1, 6, 6), (3,), 4, jax.random.key(0), pool=(True,))
    net = QuantisedNet(body, (1, 6, 6), theta=1.5)
    save_network(net, tmp_path / "a.safetensors")
    again, theta = read_network(tmp_path / "a.safetensors")
    assert theta == [1.5]
    x = jax.random.normal(jax.random.key(1), (2, 1, 6, 6))
    np.testing.assert_allclose(QuantisedNet(again, (1, 6, 6), theta=theta)(x), net(x), rtol=1e-6)


def test_pytorch_names_are_taken_in_order(tmp_path):
    """Layer 10 comes after layer 2, whatever the alphabet says."""
    rng = np.random.default_rng(0)
    arrays = {
        "net.2.weight": rng.normal(size=(5, 4)),
        "net.10.weight": rng.normal(size=(3, 5)),
        "net.2.bias": rng.normal(size=5),
    }
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    save_file(arrays, tmp_path / "a.safetensors")
    body, theta = read_network(tmp_path / "a.safetensors")
    x = rng.normal(size=(6, 4)).astype(np.float32)
    expected = np.maximum(x @ arrays["net.2.weight"].T + arrays["net.2.bias"], 0) @ arrays["net.10.weight"].T
    np.testing.assert_allclose(body(jnp.asarray(x), relu), expected, atol=1e-5)
    assert theta is None


def onnx_file(path, nodes, constants):
    ends = [[helper.make_tensor_value_info(name, 1, None)] for name in ("x", "o")]
    arrays = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in constants.items()]
    onnx.save(helper.make_model(helper.make_graph(nodes, "net", *ends, arrays)), path)


def test_onnx_convolutions_equal_the_reference_evaluator(tmp_path):
    rng = np.random.default_rng(1)
    constants = {
        "w": rng.normal(size=(3, 2, 3, 3)),
        "b": rng.normal(size=3),
        "v": rng.normal(size=(4, 27)),
        "c": rng.normal(size=4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["1"], strides=[1, 1], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["1"], ["2"]),
        helper.make_node("AveragePool", ["2"], ["3"], kernel_shape=[2, 2], strides=[2, 2]), helper.make_node("Flatten", ["3"], ["4"]),
        helper.make_node("Gemm", ["4", "v", "c"], ["o"], transB=1),
    ]  # fmt: skip
    onnx_file(tmp_path / "a.onnx", nodes, constants)
    x = rng.normal(size=(2, 2, 6, 6)).astype(np.float32)
    from onnx.reference import ReferenceEvaluator

    (expected,) = ReferenceEvaluator(str(tmp_path / "a.onnx")).run(None, {"x": x})
    body, _ = read_network(tmp_path / "a.onnx")
    np.testing.assert_allclose(body(jnp.asarray(x), relu), expected, atol=1e-4)


def test_what_is_not_understood_is_named(tmp_path):
    onnx_file(tmp_path / "a.onnx", [helper.make_node("Sigmoid", ["x"], ["o"])], {})
    with pytest.raises(DataError, match="operation Sigmoid"):
        read_network(tmp_path / "a.onnx")
    onnx_file(tmp_path / "b.onnx", [helper.make_node("Relu", ["x"], ["1"]), helper.make_node("Relu", ["x"], ["o"])], {})
    with pytest.raises(DataError, match="branches"):
        read_network(tmp_path / "b.onnx")
    (tmp_path / "c.onnx").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not an ONNX model"):
        read_network(tmp_path / "c.onnx")
    save_file({"a.weight": np.zeros((3, 2), np.float32), "b.weight": np.zeros((3, 4), np.float32)}, tmp_path / "d.safetensors")
    with pytest.raises(DataError, match="do not fit"):
        read_network(tmp_path / "d.safetensors")
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "e.safetensors")
    with pytest.raises(DataError, match="arrays named"):
        read_network(tmp_path / "e.safetensors")
    (tmp_path / "f.h5").write_bytes(b"")
    with pytest.raises(InputError, match="neither"):
        read_network(tmp_path / "f.h5")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"0.weight": np.ones((3, 2)), "0.bias": np.ones(3), "1.running_mean": np.ones(3)}, "1.running_mean is no weight"),
        ({"0.weight": np.ones((3, 2)), "1.bias": np.ones(3)}, "1.bias is no weight"),
        ({"0.weight": np.ones((3, 2)), "0.bias": np.ones(2)}, "bias beside 0.weight"),
        ({"0.weight": np.full((3, 2), np.nan)}, "NaN or infinity"),
        ({"0.weight": np.ones((3, 2)), "1.weight": np.ones(3)}, r"1.weight has the shape \(3,\)"),
        ({"0.weight": np.ones((3, 5))}, "6 values arrive at 0.weight, which takes 5"),
    ],
)
def test_no_array_of_a_file_is_passed_over(tmp_path, arrays, said):
    save_file({name: array.astype(np.float32) for name, array in arrays.items()}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=said):
        read_network(tmp_path / "a.safetensors", (2, 3) if "6 values" in said else None)


def test_images_are_flattened_for_linear_layers(tmp_path):
    weight = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    save_file({"fc.weight": weight}, tmp_path / "a.safetensors")
    x = np.ones((4, 2, 3), np.float32)
    body, _ = read_network(tmp_path / "a.safetensors", (2, 3))
    np.testing.assert_allclose(body(jnp.asarray(x), relu), x.reshape(4, 6) @ weight.T, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda arrays, note: arrays.update({"9.weight": np.ones(2, np.float32)}), "9.weight belongs to no layer"),
        (lambda arrays, note: arrays.update({"theta.0": np.array(-1, np.float32)}), "theta.0 is -1"),
        (lambda arrays, note: note["layers"][0].update(stride=2), "layer 0 has 'stride'"),
        (lambda arrays, note: note["layers"][0].update(size=[1, 2, 3]), "does not fit"),
    ],
)
def test_what_we_wrote_ourselves_is_read_as_strictly(tmp_path, change, said):
    net = QuantisedNet(Sequential.mlp([4, 5, 3], jax.random.key(0)), (4,), theta=1.5)
    save_network(net, tmp_path / "a.safetensors")
    arrays = load_file(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        note = json.loads(file.metadata()["broadsheet"])
    change(arrays, note)
    save_file(arrays, tmp_path / "b.safetensors", metadata={"broadsheet": json.dumps(note)})
    with pytest.raises(DataError, match=said):
        read_network(tmp_path / "b.safetensors")
