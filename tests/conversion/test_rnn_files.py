"""Recurrent networks of PyTorch and ONNX files against PyTorch and ONNX's own evaluator on the same sequences."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import save_file

from broadsheet.conversion.rnn_files import read_rnn, save_rnn
from broadsheet.dynamics import rollout
from broadsheet.errors import DataError, InputError
from broadsheet.networks import RateRNN

RNG = np.random.default_rng(0)
INPUTS, UNITS, OUTPUTS, TIMES = 3, 5, 2, 7
X = RNG.normal(size=(TIMES, INPUTS)).astype(np.float32)
DRIVE = jnp.asarray(X)
CELLS = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
OPS = {"rnn": ("RNN", (0,)), "gru": ("GRU", (1, 0, 2)), "lstm": ("LSTM", (0, 3, 1, 2))}  # where ONNX has PyTorch's gates


class Net(torch.nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.body = CELLS[kind](INPUTS, UNITS, **options)
        self.head = torch.nn.Linear(UNITS, OUTPUTS)

    def forward(self, x):
        return self.head(self.body(x)[0])


def arrays(net):
    return {name: np.ascontiguousarray(array.detach().numpy()) for name, array in net.state_dict().items()}


@pytest.fixture(scope="module", params=list(CELLS))
def pair(request):
    torch.manual_seed(0)
    net = Net(request.param)
    return request.param, net, net(torch.tensor(X)).detach().numpy()


def onnx_file(path, kind, net, *, gemm=False, start=None, behind=(), **attributes):
    """The graph that PyTorch exports: an operation with one direction, its axes moved, and a read-out."""
    op, order = OPS[kind]
    w = arrays(net)

    def sort(a):
        return np.concatenate([np.split(a, len(order))[k] for k in order])

    ih, hh, b = (w[f"body.{n}_l0"] for n in ("weight_ih", "weight_hh", "bias_ih"))
    bias = np.concatenate([sort(b), sort(w["body.bias_hh_l0"])])[None]
    held = {
        "W": sort(ih)[None],
        "R": sort(hh)[None],
        "B": bias,
        "one": np.array([1]),
        "H": w["head.weight"],
        "c": w["head.bias"],
    }
    held |= {} if start is None else {"h0": np.full((1, 1, UNITS), start, np.float32)}
    given = ["x", "W", "R", "B"] + (["", "h0"] if start is not None else [])
    attributes = {"hidden_size": UNITS, **({"linear_before_reset": 1} if kind == "gru" else {}), **attributes}
    nodes = [helper.make_node(op, given, ["y", "last"], **attributes), helper.make_node("Squeeze", ["y", "one"], ["s"])]
    if gemm:
        held |= {"one": np.array([1, 2]), "c": 0.5 * held["c"]}  # one sequence, (time, units)
        nodes.append(helper.make_node("Gemm", ["s", "H", "c"], ["o"], transB=1, beta=2.0))
    else:
        held["H"] = np.ascontiguousarray(held["H"].T)
        nodes += [helper.make_node("MatMul", ["s", "H"], ["m"]), helper.make_node("Add", ["c", "m"], ["o"])]
    nodes += list(behind)
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("x", (TIMES, 1, INPUTS)), ("o", None))
    ]
    graph = helper.make_graph(nodes, "net", *ends, [numpy_helper.from_array(a, k) for k, a in held.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_pytorch_names_and_onnx_give_what_pytorch_gives(pair, tmp_path):
    kind, net, expected = pair
    save_file(arrays(net), tmp_path / "net.safetensors")
    if kind == "rnn":
        with pytest.raises(DataError, match="activation"):
            read_rnn(tmp_path / "net.safetensors")
        (tmp_path / "net.safetensors.json").write_text('{"activation": "tanh"}')
    for path in (tmp_path / "net.safetensors", onnx_file(tmp_path / "net.onnx", kind, net)):
        np.testing.assert_allclose(rollout(read_rnn(path), DRIVE)[1], expected, atol=1e-5)
    (reference,) = ReferenceEvaluator(str(tmp_path / "net.onnx")).run(None, {"x": X[:, None]})
    np.testing.assert_allclose(reference[:, 0], expected, atol=1e-5)
    gemm = onnx_file(tmp_path / "gemm.onnx", kind, net, gemm=True, start=0.0)
    np.testing.assert_allclose(rollout(read_rnn(gemm), DRIVE)[1], expected, atol=1e-5)


def test_what_is_written_is_read_again(pair, tmp_path):
    kind, net, expected = pair
    save_file(
        arrays(net), tmp_path / "net.safetensors", metadata={"broadsheet": '{"activation": "tanh"}'} if kind == "rnn" else None
    )
    save_rnn(read_rnn(tmp_path / "net.safetensors"), tmp_path / "again.safetensors")
    np.testing.assert_allclose(rollout(read_rnn(tmp_path / "again.safetensors"), DRIVE)[1], expected, atol=1e-5)


def test_a_leaky_network_of_another_librarys_names_and_order(tmp_path):
    net = RateRNN(INPUTS, UNITS, OUTPUTS, activation="softplus", alpha=0.2, key=jax.random.key(1))
    save_file({"in": np.ascontiguousarray(net.w_in.T), "rec": np.ascontiguousarray(net.w_rec.T)}, tmp_path / "k.safetensors")
    note = {
        "kind": "rnn",
        "activation": "softplus",
        "alpha": 0.2,
        "transposed": True,
        "names": {"weight_ih": "in", "weight_hh": "rec"},
    }
    (tmp_path / "about.json").write_text(json.dumps(note))
    found = read_rnn(tmp_path / "k.safetensors", tmp_path / "about.json")
    h = np.zeros(UNITS)
    for t in range(TIMES):
        h = 0.8 * h + 0.2 * np.log1p(np.exp(net.w_in @ X[t] + net.w_rec @ h))
    np.testing.assert_allclose(found(DRIVE)[-1], h, rtol=1e-5)  # without a read-out the outputs are the states
    np.testing.assert_allclose(rollout(found, DRIVE)[1], found(DRIVE), rtol=1e-5)


def safe(path, held, note=None):
    save_file(held, path, metadata=None if note is None else {"broadsheet": note})
    return path


@pytest.mark.parametrize(
    ("change", "note", "said"),
    [
        ({"body.weight_ih_l1": np.zeros((5, 5), np.float32)}, None, "second layer"),
        ({"body.weight_hh_l0_reverse": np.zeros((5, 5), np.float32)}, None, "other direction"),
        ({"other.weight_ih": np.zeros((5, 5), np.float32)}, None, "two recurrent layers"),
        ({"extra.weight": np.zeros((2, 5), np.float32)}, None, "both be the read-out"),
        ({"scale": np.zeros(2, np.float32)}, None, "belongs to no part"),
        ({"head.weight": np.zeros((2, 4), np.float32)}, None, "head.weight is"),
        ({"body.bias_ih_l0": np.full(5, np.nan, np.float32)}, None, "NaN"),
        ({"body.weight_hh_l0": np.zeros((7, 5), np.float32)}, None, "no rnn, gru or lstm"),
        ({}, '{"activation": "tanh", "alpha": 2}', "alpha is 2"),
        ({}, '{"activation": "tanh", "layers": 2}', "'layers'"),
        ({}, '{"kind": "gru"}', "no gru of 5"),
        ({}, "[1]", "no JSON object"),
        ({}, '{"names": {"gate": "head.bias"}}', "'gate' is none"),
        ({}, '{"names": {"weight_ih": "nowhere"}}', "no array 'nowhere'"),
    ],
)
def test_what_is_not_one_layer_is_refused_by_its_name(tmp_path, change, note, said):
    held = arrays(Net("rnn")) | change
    with pytest.raises(DataError, match=said):
        read_rnn(safe(tmp_path / "x.safetensors", held, note or '{"activation": "tanh"}'))


def test_graphs_that_are_something_else_are_refused_by_the_node(tmp_path):
    net = Net("gru")
    cases = {
        "linear_before_reset": {"linear_before_reset": 0},
        "starts from 'h0'": {"start": 1.0},
        "runs reverse": {"direction": "reverse"},
        "attribute 'clip'": {"clip": 3.0},
        "activations": {"activations": ["Relu", "Tanh"]},
        "'o2' follows": {"behind": [helper.make_node("Relu", ["o"], ["o2"], name="o2")]},
    }
    for said, options in cases.items():
        with pytest.raises(DataError, match=said):
            read_rnn(onnx_file(tmp_path / "x.onnx", "gru", net, **options))
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(DataError, match="not an ONNX model"):
        read_rnn(tmp_path / "bad.onnx")
    with pytest.raises(InputError, match="neither"):
        read_rnn(__file__)


def test_a_wrong_size_is_one_sentence():
    with pytest.raises(InputError, match="alpha"):
        RateRNN(1, 2, 1, alpha=0.0, key=jax.random.key(0))
