"""NIR: exact round trips, and the spikes of snnTorch and Norse (traces made by bench/references.py)."""

from itertools import pairwise
from pathlib import Path

import equinox as eqx
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

    class Oscillator:
        pass

    with pytest.raises(DataError, match="'lif' is of the kind Oscillator"):
        from_nir(broken(lambda g: g.nodes.__setitem__("lif", Oscillator())))
    (tmp_path / "c.nir").write_bytes(b"not a graph")
    with pytest.raises(DataError, match="not a NIR graph"):
        from_nir(tmp_path / "c.nir")
    with pytest.raises(InputError, match=r"dt = 0\.0"):
        from_nir(every_kind(), dt=0.0)
    with pytest.raises(CompositionError, match="one multiple of dt"):
        spikes_of(from_nir(every_kind(), dt=0.15), np.ones((3, 2, 8, 8), np.float32))


@pytest.mark.parametrize(
    ("system", "said"),
    [(ConductanceLIF(2), "ConductanceLIF cannot"), (series(LIF(2)), "Series cannot"),
     (LIF(2, refractory=1.0), "refractory"), (LIF(2, reset=None), "rest at 0"),
     (feedback(LIF(2), Dense(jnp.ones((2, 2)), delay=3)), "delay of one step")],
)  # fmt: skip
def test_what_nir_cannot_say_is_refused(system, said):
    with pytest.raises(CompositionError, match=said):
        to_nir(system)
