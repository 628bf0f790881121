"""NIR: exact round trips, and the spikes of snnTorch and Norse (traces made by bench/references.py)."""

from itertools import pairwise
from pathlib import Path

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import nir
import numpy as np
import pytest

from broadsheet.conversion import QuantisedNet
from broadsheet.conversion.conversion import Sequential
from broadsheet.dynamics import feedback, rollout, series
from broadsheet.errors import CompositionError, DataError, InputError
from broadsheet.networks import Dense, SNNClassifier, from_nir, to_nir, write_nir
from broadsheet.networks.continual import SpikingMLP
from broadsheet.networks.nir_files import read_graph
from broadsheet.neurons import LIF, ConductanceLIF

FOLDER = Path(__file__).parents[1] / "references" / "spiking"


def spikes_of(network, drive):
    return np.asarray(rollout(network, jnp.asarray(drive))[1])


@pytest.mark.parametrize(("name", "dt"), [("snntorch", 0.1), ("norse", 0.001)])
def test_networks_of_other_libraries_fire_the_same_spikes_here(name, dt):
    """Norse writes its time constants a thousand times too short: so is the step."""
    trace = np.load(FOLDER / f"{name}.npz")
    assert trace["spikes"].sum() > 100
    np.testing.assert_array_equal(spikes_of(from_nir(FOLDER / f"{name}.nir", dt=dt), trace["drive"]), trace["spikes"])


@pytest.mark.parametrize("name", ["snntorch", "norse"])
def test_our_networks_fire_the_same_spikes_there(name):
    ours = np.load(FOLDER / "ours.npz")
    np.testing.assert_array_equal(np.load(FOLDER / f"{name}_runs.npz")["spikes"], ours["spikes"])
    cell = LIF(6, tau=2.0, rest=0.0, threshold=1.0, reset=0.0, method="euler", dt=0.1)
    np.testing.assert_array_equal(spikes_of(cell, ours["drive"]), ours["spikes"])


@pytest.mark.parametrize("unit", [False, True])
def test_a_loop_written_and_read_is_the_same_network(tmp_path, unit):
    cell = LIF(5, tau=20.0, rest=0.0, threshold=1.0, reset=0.0, dt=1.0)
    network = feedback(cell, Dense(0.8 * jax.random.normal(jax.random.key(0), (5, 5))))
    write_nir(network, tmp_path / "a.nir", unit_resistance=unit)
    again = from_nir(tmp_path / "a.nir", dt=1.0, method="exact")
    drive = jax.random.uniform(jax.random.key(1), (150, 5)) * 0.3
    expected = spikes_of(network, drive)
    assert expected.sum() > 50
    np.testing.assert_array_equal(spikes_of(again, drive), expected)
    write_nir(again, tmp_path / "b.nir")
    assert eqx.tree_equal(from_nir(tmp_path / "b.nir", dt=1.0, method="exact"), again)


def test_trained_networks_answer_the_same_once_written(tmp_path):
    """A classifier of spike trains and a learner of many tasks, their logits from the file alone."""
    rng = np.random.default_rng(0)
    X, y = (rng.random((40, 30, 5)) < 0.2).astype(np.float32), rng.integers(0, 2, 40)
    net = SNNClassifier(hidden=6, epochs=2).fit(X, y).network_
    write_nir(net, tmp_path / "a.nir")
    again = from_nir(tmp_path / "a.nir", dt=1.0, method="exact")
    found = [rollout(again, jnp.asarray(x))[1][-1] for x in X[:5]]
    assert net.spikes(jnp.asarray(X[:5]), jax.random.key(0)).sum() > 20
    np.testing.assert_allclose(found, net.logits(jnp.asarray(X[:5]), jax.random.key(0)), atol=1e-4)
    layers = SpikingMLP((5, 8, 8, 3), rule="bptt", steps=12, key=jax.random.key(1))
    layers = eqx.tree_at(lambda m: m.W, layers, tuple(3 * w for w in layers.W))
    write_nir(layers, tmp_path / "b.nir")
    again = from_nir(tmp_path / "b.nir", dt=1.0, method="exact")
    x = jnp.asarray(rng.random((4, 5)), jnp.float32)
    found = [rollout(again, jnp.broadcast_to(one, (12, 5)))[1].mean(axis=0) for one in x]
    assert np.abs(found).max() > 0.1
    np.testing.assert_allclose(found, layers(x)[0], atol=1e-4)
    for cannot in (SpikingMLP((5, 3), key=jax.random.key(0)), SNNClassifier("meta", hidden=3, epochs=1).fit(X, y).network_):
        with pytest.raises(CompositionError, match="NIR has no"):
            to_nir(cannot)


def test_converted_networks_keep_their_resets_and_head_start(tmp_path):
    body = Sequential.conv((1, 6, 6), (3,), 4, jax.random.key(0), pool=(True,))
    net = QuantisedNet(body, (1, 6, 6), theta=1.0).spiking()
    write_nir(net, tmp_path / "a.nir")
    x = jax.random.uniform(jax.random.key(1), (1, 6, 6))
    again = from_nir(tmp_path / "a.nir")
    out = spikes_of(again, jnp.broadcast_to(x, (10, *x.shape)))
    np.testing.assert_allclose(np.cumsum(out, axis=0), net.run(x[None], 10)[0][0], atol=1e-5)
    write_nir(again, tmp_path / "b.nir")
    assert eqx.tree_equal(from_nir(tmp_path / "b.nir"), again)


def every_kind():
    """A graph with each node that can be read, in one row."""
    ones = np.ones(4, np.float32)
    lif = {"r": ones, "v_leak": 0 * ones, "v_threshold": ones, "v_reset": 0 * ones}
    nodes = {
        "input": nir.Input(input_type={"input": np.array([2, 8, 8])}),
        "conv": nir.Conv2d(input_shape=(8, 8), weight=np.full((3, 2, 3, 3), 0.1, np.float32), stride=1, padding=1, dilation=1,
                           groups=1, bias=np.zeros(3, np.float32)),
        "sum": nir.SumPool2d(kernel_size=np.array([2, 2]), stride=np.array([2, 2]), padding=np.array([0, 0])),
        "mean": nir.AvgPool2d(kernel_size=np.array([2, 2]), stride=np.array([2, 2]), padding=np.array([0, 0])),
        "flat": nir.Flatten(input_type={"input": np.array([3, 2, 2])}, start_dim=0, end_dim=-1),
        "affine": nir.Affine(weight=np.full((4, 12), 0.1, np.float32), bias=ones),
        "scale": nir.Scale(scale=2 * ones), "delay": nir.Delay(delay=2e-4 * ones),
        "li": nir.LI(tau=1e-3 * ones, r=ones, v_leak=0 * ones), "i": nir.I(r=1000 * ones),
        "cubali": nir.CubaLI(tau_syn=1e-3 * ones, tau_mem=2e-3 * ones, r=ones, v_leak=0 * ones),
        "threshold": nir.Threshold(threshold=0.1 * ones), "if": nir.IF(r=1e4 * ones, v_threshold=ones),
        "lif": nir.LIF(tau=1e-3 * ones, **{k: v for k, v in lif.items() if k != "r"}, r=20 * ones),
        "linear": nir.Linear(weight=np.eye(4, dtype=np.float32)),
        "cuba": nir.CubaLIF(tau_syn=1e-3 * ones, tau_mem=1e-3 * ones, **lif, w_in=40 * ones),
        "output": nir.Output(output_type={"output": np.array([4])}),
    }  # fmt: skip
    names = list(nodes)
    return nir.NIRGraph(nodes=nodes, edges=list(pairwise(names)), type_check=False)


def test_every_kind_of_node_runs_and_comes_back(tmp_path):
    network = from_nir(every_kind())
    out = spikes_of(network, np.ones((120, 2, 8, 8), np.float32))
    assert out.shape == (120, 4)
    assert 0 < out.mean() < 1
    write_nir(network, tmp_path / "a.nir")
    assert eqx.tree_equal(from_nir(tmp_path / "a.nir"), network)
    assert set(network.neurons()) == {"if", "lif", "cuba"}


def test_nodes_step_as_their_equations_say():
    """A leaky integrator and a delay, against the closed form."""
    one = np.ones(1, np.float32)
    nodes = {"input": nir.Input(input_type={"input": np.array([1])}), "delay": nir.Delay(delay=5e-4 * one),
             "li": nir.LI(tau=2e-3 * one, r=3 * one, v_leak=one), "output": nir.Output(output_type={"output": np.array([1])})}  # fmt: skip
    network = from_nir(
        nir.NIRGraph(nodes=nodes, edges=[("input", "delay"), ("delay", "li"), ("li", "output")]), dt=0.1, method="exact"
    )
    out = spikes_of(network, np.ones((40, 1), np.float32))[:, 0]
    t = np.maximum(np.arange(1, 41) - 5, 0) * 0.1
    np.testing.assert_allclose(out, 1 + 3 * (1 - np.exp(-t / 2)), rtol=1e-5)


def graph_of(shape, nodes, out, **options):
    """A row of nodes between an input of one shape and an output of another."""
    row = {"input": nir.Input(input_type={"input": np.array(shape)})} | nodes
    row["output"] = nir.Output(output_type={"output": np.array(out)})
    return nir.NIRGraph(nodes=row, edges=list(pairwise(row)), type_check=False, **options)


def test_each_neuron_may_have_a_delay_of_its_own(tmp_path):
    drive = np.random.default_rng(0).normal(size=(12, 2, 2)).astype(np.float32)
    for delays in (np.full((2, 2), 2e-4), np.array([[0, 1e-4], [5e-4, 2e-4]]), np.float64(3e-4), np.zeros((1, 1))):
        nir.write(tmp_path / "a.nir", graph_of((2, 2), {"d": nir.Delay(delay=delays)}, (2, 2)))
        network = from_nir(tmp_path / "a.nir", dt=0.1)
        out = jax.jit(lambda net, x: rollout(net, x)[1])(network, drive)
        for place in np.ndindex(2, 2):
            late = round(np.broadcast_to(delays, (2, 2))[place] / 1e-4)
            expected = np.concatenate([np.zeros(late), drive[: 12 - late, *place]])
            np.testing.assert_allclose(out[:, *place], expected, atol=1e-7)
        write_nir(network, tmp_path / "b.nir")
        assert eqx.tree_equal(from_nir(tmp_path / "b.nir"), network)
        slower = spikes_of(network.replaced("d", "delay", 4e-4), drive)
        np.testing.assert_allclose(slower, np.concatenate([np.zeros((4, 2, 2)), drive[:8]]))
    with pytest.raises(CompositionError, match="Node 'd': a delay of -0"):
        from_nir(graph_of((2, 2), {"d": nir.Delay(delay=np.array([-1e-4]))}, (2, 2)))


def cells(shape):
    """Each kind of cell with these many values of each parameter."""
    ones = np.ones(shape, np.float32)[()]
    lif = {"r": 3 * ones, "v_leak": 0.1 * ones, "v_threshold": 0.5 * ones, "v_reset": -0.1 * ones}
    return {
        "I": nir.I(r=5 * ones), "LI": nir.LI(tau=1e-3 * ones, r=3 * ones, v_leak=0.1 * ones),
        "IF": nir.IF(r=900 * ones, v_threshold=0.5 * ones, v_reset=-0.1 * ones), "LIF": nir.LIF(tau=1e-3 * ones, **lif),
        "CubaLI": nir.CubaLI(tau_syn=1e-3 * ones, tau_mem=2e-3 * ones, r=3 * ones, v_leak=0.1 * ones, w_in=2 * ones),
        "CubaLIF": nir.CubaLIF(tau_syn=1e-3 * ones, tau_mem=1e-3 * ones, **lif, w_in=2 * ones),
        "Scale": nir.Scale(scale=2 * ones), "Threshold": nir.Threshold(threshold=0.3 * ones),
    }  # fmt: skip


@pytest.mark.parametrize("kind", list(cells(())))
def test_one_parameter_stands_for_a_layer(tmp_path, kind):
    """A file with numbers, with arrays of one, or with both kinds beside full arrays, is the network with full arrays."""
    drive = np.random.default_rng(1).random((60, 2, 3)).astype(np.float32)
    expected = spikes_of(from_nir(graph_of((2, 3), {"cell": cells((2, 3))[kind]}, (2, 3))), drive)
    assert np.abs(expected).sum() > 0
    for shape in ((), (1,), (1, 1)):
        nir.write(tmp_path / "a.nir", graph_of((2, 3), {"cell": cells(shape)[kind]}, (2, 3)))
        np.testing.assert_array_equal(spikes_of(from_nir(tmp_path / "a.nir"), drive), expected)
    nir.write(tmp_path / "a.nir", graph_of((2, 3), {"cell": cells((2, 3))[kind]}, (2, 3)))
    with h5py.File(tmp_path / "a.nir", "r+") as file:
        group = file["node/nodes/cell"]
        first = next(name for name in group if name != "type")
        value = group[first][0, 0]
        del group[first]
        group[first] = value
    np.testing.assert_array_equal(spikes_of(from_nir(tmp_path / "a.nir"), drive), expected)


def convolved(x, weight, bias, groups, stride, padding, dilation):
    """A plain loop over channels and places, which is what frameworks mean by a convolution."""
    sizes = x.shape[1:]
    x = np.pad(x, [(0, 0), *((p, p) for p in padding)])
    width = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    out = [(n + 2 * p - w) // s + 1 for n, p, w, s in zip(sizes, padding, width, stride, strict=True)]
    y = np.zeros((len(weight), *out))
    inputs, outputs = weight.shape[1], len(weight) // groups
    for c, *place in np.ndindex(*y.shape):
        part = x[c // outputs * inputs :][:inputs]
        window = tuple(slice(p * s, p * s + w, d) for p, s, w, d in zip(place, stride, width, dilation, strict=True))
        y[(c, *place)] = (part[(slice(None), *window)] * weight[c]).sum() + bias[c]
    return y


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("ndim", [1, 2])
def test_grouped_convolutions_are_read(tmp_path, groups, ndim):
    rng = np.random.default_rng(2)
    size, kernel = (9, 8)[:ndim], (3, 2)[:ndim]
    weight, bias = rng.normal(size=(8, 4 // groups, *kernel)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    how = {"stride": (2, 1)[:ndim], "padding": (1, 0)[:ndim], "dilation": (1, 2)[:ndim]}
    x = rng.normal(size=(4, *size)).astype(np.float32)
    expected = convolved(x, weight, bias, groups, **how)
    if ndim == 1:
        how = {name: value[0] for name, value in how.items()}
    node = (nir.Conv1d, nir.Conv2d)[ndim - 1](
        input_shape=size if ndim == 2 else size[0], weight=weight, bias=bias, groups=groups, **how
    )
    nir.write(tmp_path / "a.nir", graph_of(x.shape, {"conv": node}, expected.shape))
    network = from_nir(tmp_path / "a.nir")
    np.testing.assert_allclose(spikes_of(network, x[None])[0], expected, atol=1e-5)
    write_nir(network, tmp_path / "b.nir")
    assert eqx.tree_equal(from_nir(tmp_path / "b.nir"), network)


def test_linear_nodes_of_several_axes():
    """Weights (…, outputs, inputs) take inputs (…, inputs), each its own."""
    rng = np.random.default_rng(3)
    weight, x = rng.normal(size=(3, 2, 3)).astype(np.float32), rng.normal(size=(3, 3)).astype(np.float32)
    found = spikes_of(from_nir(graph_of((3, 3), {"w": nir.Linear(weight=weight)}, (3, 2))), x[None])[0]
    np.testing.assert_allclose(found, [w @ part for w, part in zip(weight, x, strict=True)], rtol=1e-5)
    with pytest.raises(DataError, match="'w' \\(Linear\\) does not fit"):
        from_nir(graph_of((3, 3), {"w": nir.Linear(weight=weight[0])}, (2, 3)))


def test_graphs_in_graphs_and_loops(tmp_path):
    """A loop within a graph within a graph, whose ends are added where they are missing, against a plain loop."""
    weight = np.array([[0.2, -0.5], [0.7, 0.1]], np.float32)
    inner = nir.NIRGraph(
        nodes={"in": nir.Input(input_type={"input": np.array([2])}), "scale": nir.Scale(scale=np.float32(0.5)),
               "loop.w": nir.Linear(weight=weight), "out": nir.Output(output_type={"output": np.array([2])})},
        edges=[("in", "scale"), ("scale", "loop.w"), ("loop.w", "scale"), ("scale", "out")], type_check=False,
    )  # fmt: skip
    outer = nir.NIRGraph(
        nodes={"net": inner, "last": nir.Scale(scale=np.float32(2))}, edges=[("net", "last")], type_check=False
    )
    nir.write(tmp_path / "a.nir", outer)
    drive = np.random.default_rng(4).normal(size=(20, 2)).astype(np.float32)
    last, expected = np.zeros(2), []
    for x in drive:
        y = 0.5 * (x + last)
        last = weight @ y
        expected.append(2 * y)
    network = from_nir(tmp_path / "a.nir")
    np.testing.assert_allclose(spikes_of(network, drive), expected, atol=1e-5)
    assert (network.inputs, network.outputs) == (("input_net",), ("output_last",))
    write_nir(network, tmp_path / "b.nir")
    np.testing.assert_allclose(spikes_of(from_nir(tmp_path / "b.nir"), drive), expected, atol=1e-5)


def test_a_node_that_hears_itself_hears_the_step_before():
    graph = nir.NIRGraph(
        nodes={"in": nir.Input(input_type={"input": np.array([1])}), "half": nir.Scale(scale=np.float32([0.5])),
               "out": nir.Output(output_type={"output": np.array([1])})},
        edges=[("in", "half"), ("half", "half"), ("half", "out")], type_check=False,
    )  # fmt: skip
    found = spikes_of(from_nir(graph), np.float32([[8], [0], [4]]))
    np.testing.assert_allclose(found[:, 0], [4, 2, 3])


@pytest.mark.parametrize("kind", list(cells(())))
def test_spikes_are_told_from_graded_output_by_the_graph(kind):
    cell, flat = cells(())[kind], nir.Flatten(input_type={"input": np.array([2, 3])}, start_dim=0)
    network = from_nir(graph_of((2, 3), {"c": cell, "d": nir.Delay(delay=np.array(1e-4)), "f": flat}, (6,)))
    assert network.spiking("output") == (kind in ("IF", "LIF", "CubaLIF", "Threshold"))
    pool = nir.SumPool2d(kernel_size=np.array([1, 2]), stride=np.array([1, 2]), padding=np.array([0, 0]))
    assert not from_nir(graph_of((1, 2, 4), {"c": cell, "p": pool}, (1, 2, 2))).spiking("output")


def broken(change):
    graph = every_kind()
    change(graph)
    return graph


def test_mistakes_are_named(tmp_path):
    for change, said in (
        (lambda g: g.nodes["lif"].tau.__setitem__(0, -1.0), "Node 'lif' has tau"),
        (lambda g: g.nodes["affine"].bias.__setitem__(0, np.nan), "NaN or infinity in bias"),
        (lambda g: g.edges.append(("lif", "nowhere")), "'nowhere', which does not exist"),
        (lambda g: g.nodes.pop("output"), "'output', which does not exist"),
        (lambda g: setattr(g.nodes["affine"], "weight", np.ones((4, 7), np.float32)), "'affine' \\(Affine\\) does not fit"),
    ):
        with pytest.raises(DataError, match=said):
            from_nir(broken(change))

    ones = np.ones(4, np.float32)
    for nodes, said in (
        (
            {"lif": cells((4,))["LIF"]},
            "'lif' \\(LIF\\) does not fit its input of the shape \\(2, 4, 4\\) \\(its tau has the shape",
        ),
        ({"s": nir.Scale(scale=np.ones((3, 2, 4, 4)))}, "its scale has the shape"),
        ({"p": nir.AvgPool2d(kernel_size=np.array(5), stride=np.array(1), padding=np.array(0))}, "'p' \\(AvgPool2d\\) leaves"),
        ({"c": nir.Conv2d((4, 5), np.ones((1, 2, 3, 3)), 1, 0, 1, 1, np.ones(1))}, "its input_shape is \\(4, 5\\)"),
        ({"c": nir.Conv2d((4, 4), np.ones((1, 2, 3, 3)), 1, 0, 1, 1, ones)}, "its bias has the shape"),
        ({"c": nir.Conv2d(None, np.ones((1, 2, 3, 3)), 1, np.full(2, 0.5), 1, 1, np.ones(1))}, "'c' \\(Conv2d\\) has a value"),
        ({"f": nir.Flatten({"input": np.array([2, 8])}, 0)}, "it flattens \\(2, 8\\)"),
        ({"s": nir.Scale(scale=np.ones(1))}, "Output node 'output' says the shape \\(7,\\)"),
    ):
        with pytest.raises(DataError, match=said):
            from_nir(graph_of((2, 4, 4), nodes, (7,)))
    twice = graph_of((4,), {"s": nir.Scale(scale=ones)}, (4,))
    twice.edges.append(("input", "s"))
    with pytest.raises(DataError, match="two edges from 'input' to 's'"):
        from_nir(twice)

    class Oscillator:
        pass

    with pytest.raises(DataError, match="'lif' is of the kind Oscillator"):
        from_nir(broken(lambda g: g.nodes.__setitem__("lif", Oscillator())))
    for change, said in (
        (lambda node: node.pop("tau"), "Node 'lif' \\(LIF\\) has no tau"),
        (lambda node: node.create_dataset("noise", data=1.0), "Node 'lif' \\(LIF\\) has 'noise'"),
        (lambda node: (node.pop("r"), node.create_dataset("r", data=np.ones(3))), "'lif' has r of the shape \\(3,\\)"),
        (lambda node: (node.pop("type"), node.create_dataset("type", data="Resonator")), "'lif' is of the kind Resonator"),
    ):
        nir.write(tmp_path / "d.nir", every_kind())
        with h5py.File(tmp_path / "d.nir", "r+") as file:
            change(file["node/nodes/lif"])
        with pytest.raises(DataError, match=said):
            from_nir(tmp_path / "d.nir")
    (tmp_path / "c.nir").write_bytes(b"not a graph")
    with pytest.raises(DataError, match="not a NIR graph"):
        from_nir(tmp_path / "c.nir")
    with pytest.raises(InputError, match=r"dt = 0\.0"):
        from_nir(every_kind(), dt=0.0)
    with pytest.raises(CompositionError, match="Node 'delay': a delay of"):
        from_nir(every_kind(), dt=0.15)


@pytest.mark.parametrize(
    ("system", "said"),
    [(ConductanceLIF(2), "ConductanceLIF cannot"), (series(LIF(2)), "Series cannot"),
     (LIF(2, refractory=1.0), "refractory"), (LIF(2, reset=None), "rest at 0"),
     (feedback(LIF(2), Dense(jnp.ones((2, 2)), delay=3)), "delay of one step")],
)  # fmt: skip
def test_what_nir_cannot_say_is_refused(system, said):
    with pytest.raises(CompositionError, match=said):
        to_nir(system)


def test_a_node_alone_is_read_as_a_graph_of_it(tmp_path):
    nir.write(tmp_path / "one.nir", nir.Affine(np.ones((2, 3)), np.zeros(2)))
    found = read_graph(tmp_path / "one.nir")
    assert isinstance(found, nir.NIRGraph)
    assert list(found.nodes) == ["node"]
    assert found.edges == []
    np.testing.assert_array_equal(found.nodes["node"].weight, np.ones((2, 3)))
