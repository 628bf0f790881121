import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from broadsheet.dynamics import rollout, trainable
from broadsheet.errors import DataError, InputError, UntrustedError
from broadsheet.language.checkpoints import read_state
from broadsheet.neurons import ELMCell, count_params, load_official, to_official
from broadsheet.neurons.elm_reference import published_cell

KEY = jax.random.key(0)
PUBLISHED = {1: 4601, 2: 4708, 5: 5077, 20: 8002, 100: 54002}


class TorchELM(torch.nn.Module):
    """The published cell with its module names, as an independent program: one trace a synapse, all in PyTorch."""

    def __init__(self, cell):
        super().__init__()
        n_syn, d_m = len(cell.raw_weights), cell.d_m
        self._proto_w_s = torch.nn.Parameter(torch.rand(n_syn) - 0.2)
        self._proto_tau_m = torch.nn.Parameter(torch.tensor(np.array(cell.tau_logit)), requires_grad=False)
        self.register_buffer("tau_s", torch.full((n_syn,), 5.0))
        self.mlp = torch.nn.Module()
        self.mlp.network = torch.nn.Sequential(
            torch.nn.Linear(cell.d_tree + d_m, 2 * d_m), torch.nn.ReLU(), torch.nn.Linear(2 * d_m, d_m)
        )
        self.w_y = torch.nn.Linear(d_m, cell.head.bias.shape[0])
        self.cell = cell

    def forward(self, x):
        cell = self.cell
        low, high = (float(v) for v in cell.tau_range)
        tau = low + (high - low) * torch.sigmoid(self._proto_tau_m)
        kappa_s, kappa_m = torch.exp(-cell.dt / self.tau_s), torch.exp(-cell.dt / tau)
        channel, mask = torch.tensor(np.array(cell.channel)), torch.tensor(np.array(cell.connected))
        s, m, out = torch.zeros(len(self._proto_w_s)), torch.zeros(len(tau)), []
        for now in x:
            s = kappa_s * s + torch.relu(self._proto_w_s) * mask * now[channel]
            branch = s.view(cell.d_tree, -1).sum(dim=1)
            z = self.mlp.network(torch.cat([branch, kappa_m * m]))
            gain = 5.0 * (1 - kappa_m) if cell.variant == "v1" else 1 - torch.exp(-5.0 * cell.dt / tau)
            m = kappa_m * m + gain * 1.7159 * torch.tanh(2 / 3 * z)
            out.append(self.w_y(m))
        return torch.stack(out)


@pytest.mark.parametrize("variant", ["v1", "v2"])
@pytest.mark.parametrize("sizes", [{"d_tree": 4, "d_brch": 7, "routing": "neighbour"}, {}])
def test_a_torch_checkpoint_gives_the_same_outputs(tmp_path, variant, sizes):
    torch.manual_seed(0)
    options = {"tau_m": (1.0, 150.0), "variant": variant, **({"routing": "neighbour"} if sizes else {})}
    reference = TorchELM(ELMCell(20, 2, 6, key=KEY, **{**sizes, **options}))
    torch.save(reference.state_dict(), tmp_path / "elm.pt")
    cell = load_official(read_state(tmp_path / "elm.pt"), 20, **options)
    x = (np.random.default_rng(0).random((200, 20)) < 0.1).astype(np.float32)
    with torch.no_grad():
        expected = reference(torch.tensor(x)).numpy()
    np.testing.assert_allclose(cell(jnp.asarray(x)), expected, atol=1e-5)
    np.testing.assert_allclose(rollout(cell, jnp.asarray(x))[1], expected, atol=1e-5)


def test_round_trip_of_weights():
    cell = ELMCell(20, 2, 6, d_tree=4, d_brch=7, routing="neighbour", key=KEY)
    again = load_official(to_official(cell), 20, routing="neighbour")
    for a, b in zip(jax.tree.leaves(cell), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_pickles_in_checkpoints_are_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"w": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(DataError, match="not a checkpoint of weights"):
        read_state(tmp_path / "evil.pt")
    (tmp_path / "evil.npz").write_bytes(b"\x80\x04\x95")
    with pytest.raises(UntrustedError):
        read_state(tmp_path / "evil.npz")
    with pytest.raises(DataError, match="is missing"):
        load_official({"w_y.weight": np.ones((1, 2))}, 4)


@pytest.mark.parametrize(("d_m", "published"), PUBLISHED.items())
def test_parameter_counts(d_m, published):
    cell = eqx.filter_eval_shape(ELMCell, 1278, 2, d_m, d_tree=45, d_brch=100, routing="neighbour", key=KEY)
    assert count_params(cell) == published


def test_plain_cell_has_the_published_size():
    assert count_params(eqx.filter_eval_shape(ELMCell, 700, 20, 100, key=KEY)) == 183_020
    assert count_params(eqx.filter_eval_shape(ELMCell, 700, 20, 100, learn_tau=True, key=KEY)) == 183_120


@pytest.mark.parametrize("variant", ["v1", "v2"])
@pytest.mark.parametrize("routed", [{}, {"d_tree": 4, "d_brch": 3, "routing": "neighbour"}], ids=["plain", "branches"])
def test_the_cell_is_the_published_equations(variant, routed):
    x = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    cell = ELMCell(8, 2, 5, variant=variant, tau_m=(1.0, 50.0), key=KEY, **routed)
    found = np.asarray(cell(jnp.asarray(x)))
    np.testing.assert_allclose(found, published_cell(cell, x), atol=2e-5)
    for wrong in ({"scale": (1.0, 1.0)}, {"decayed_input": False}):
        assert np.abs(found - published_cell(cell, x, **wrong)).max() > 1e-3


def test_neighbour_routing_interleaves_and_masks():
    cell = ELMCell(1278, 2, 1, d_tree=45, d_brch=100, routing="neighbour", key=KEY)
    assert int(cell.connected.sum()) == 4282
    assert cell.channel[:4].tolist() == [0, 639, 1, 640]
    assert cell.channel[100].item() == (29 % 2) * 639 + 29 // 2


def test_memory_is_bounded_and_traces_of_synapses_agree():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(300, 8)) * 50, jnp.float32)
    for variant, options in (("v1", {}), ("v2", {})):
        cell = ELMCell(8, 1, 5, variant=variant, tau_m=(1.0, 50.0), key=KEY, **options)
        memory = rollout(cell, x, record=lambda state, _: state.memory)[1]
        bound = 1.7159 * (5.0 if variant == "v1" else (cell.gain / (1 - cell.decay)))
        assert (jnp.abs(memory) <= bound + 1e-4).all()
    one = ELMCell(8, 1, 5, key=KEY)
    many = ELMCell(8, 1, 5, tau_s=np.full(8, 5.0), key=KEY)
    np.testing.assert_allclose(one(x / 50), many(x / 50), atol=1e-5)


def test_time_constants_are_log_spaced_and_fixed_unless_asked():
    cell = ELMCell(4, 1, 3, tau_m=(1.0, 100.0), key=KEY)
    np.testing.assert_allclose(cell.tau_m, [1.0, 10.0, 100.0], rtol=1e-3)
    assert trainable(cell).tau_logit is False
    assert trainable(ELMCell(4, 1, 3, learn_tau=True, key=KEY)).tau_logit is True


def test_batches_by_vmap():
    cell = ELMCell(4, 2, 3, key=KEY)
    state, out = jax.vmap(cell.step)(cell.init_state(5), jnp.ones((5, 4)))
    assert out.shape == (5, 2)
    assert state.memory.shape == (5, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"d_tree": 2}, "Without routing"),
        ({"d_tree": 2, "d_brch": 2, "routing": "near"}, "routing is"),
        ({"variant": "v3"}, "variant is"),
        ({"tau_m": (10.0, 1.0)}, "tau_m is"),
        ({"activation": "gelu"}, "activation is"),
        ({"tau_s": [5.0], "variant": "v2"}, "each synapse"),
    ],
)
def test_mistakes_are_named(options, words):
    with pytest.raises(InputError, match=words):
        ELMCell(5, 1, 2, key=KEY, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"mlp_layers": 0},
        {"mlp_layers": 3, "activation": "silu", "mlp_width": 3},
        {"bounded": False, "dt": 0.5, "lam": 2.0},
    ],
    ids=str,
)
def test_cells_of_any_depth_by_hand(options):
    cell = ELMCell(6, 2, 4, d_tree=3, d_brch=2, tau_m=(1.0, 30.0), key=KEY, **options)
    x = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    dt, lam = options.get("dt", 1.0), options.get("lam", 5.0)
    act = {"silu": lambda z: z / (1 + np.exp(-z))}.get(options.get("activation"), lambda z: np.maximum(z, 0))
    layers = [(np.asarray(each.weight), np.asarray(each.bias)) for each in cell.mlp.layers]
    assert [len(bias) for _, bias in layers] == [options.get("mlp_width", 8)] * options.get("mlp_layers", 1) + [4]
    decay = np.exp(-dt / np.asarray(cell.tau_m))
    trace, memory, wanted = np.zeros(3), np.zeros(4), []
    for row in x:
        trace = np.exp(-dt / 5.0) * trace + 0.5 * row.reshape(3, 2).sum(axis=1)
        z = np.concatenate([trace, decay * memory])
        for weight, bias in layers[:-1]:
            z = act(weight @ z + bias)
        z = layers[-1][0] @ z + layers[-1][1]
        memory = decay * memory + lam * (1 - decay) * (z if "bounded" in options else 1.7159 * np.tanh(2 / 3 * z))
        wanted.append(np.asarray(cell.head.weight) @ memory + np.asarray(cell.head.bias))
    np.testing.assert_allclose(cell(jnp.asarray(x)), wanted, rtol=1e-3, atol=1e-4)
    if "bounded" in options:
        np.testing.assert_allclose(rollout(cell, jnp.asarray(x))[1], wanted, rtol=1e-3, atol=1e-4)


def test_cells_as_they_come_and_random_routing():
    made = ELMCell(4, 1, key=KEY)
    assert (made.d_m, float(made.lam), float(made.tau_s), made.tau_range.tolist(), made.dt) == (100, 5.0, 5.0, [1, 1000], 1.0)
    assert (made.variant, made.bounded, made.learn_tau, made.mlp.depth) == ("v1", True, False, 1)
    drawn = ELMCell(7, 1, 2, d_tree=5, d_brch=40, routing="random", key=KEY)
    assert drawn.connected.all()
    assert set(drawn.channel.tolist()) == set(range(7))
    silent = ELMCell(4, 1, 2, key=KEY)
    assert not eqx.tree_at(lambda c: c.raw_weights, silent, -jnp.ones(4)).synapses.any()
    with pytest.raises(DataError, match="do not divide into"):
        load_official(to_official(silent) | {"_proto_w_s": np.ones(5)}, 4)
    with pytest.raises(DataError, match="is wanted"):
        load_official(to_official(silent) | {"w_y.bias": np.ones(3)}, 4)
    own = ELMCell(4, 1, 2, tau_s=np.array([1.0, 2.0, 3.0, 4.0]), key=KEY)
    assert load_official(to_official(own), 4).tau_s.tolist() == [1, 2, 3, 4]
    without = {name: value for name, value in to_official(silent).items() if name != "tau_s"}
    assert float(load_official(without, 4).tau_s) == 5.0
