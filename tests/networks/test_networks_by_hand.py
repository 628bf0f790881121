"""What networks are started from, and what is read from them, worked out by hand."""

import dataclasses
import importlib
import inspect
import pkgutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet import networks
from broadsheet.errors import InputError
from broadsheet.networks import (
    astrocytes,
    continual,
    dense_memory,
    gain_control,
    initial_weights,
    linear_learning,
    recurrent,
    stochastic_mechanism,
    theta_gamma,
    theta_gamma_agent,
    trained_starts,
)
from broadsheet.networks.initial_weights import match_norm
from broadsheet.networks.noise_rnn import NoiseRNN
from broadsheet.networks.rates import RateRNN
from broadsheet.numerics.sparse_codes import SparseCode
from broadsheet.plasticity.subspace import LateralSubspace


def test_starts_of_recurrent_weights_by_hand():
    n, key = 12, 5
    whole = initial_weights.gaussian_weights(key, n)
    rng = np.random.default_rng(0)
    assert initial_weights.gaussian_weights(rng, 400).std() == pytest.approx(1.25 / 20, rel=0.01)
    norm, size = np.linalg.norm(whole), np.abs(whole)
    strength = np.r_[np.ones(10), -5 * np.ones(2)]  # 10 of 12 are excitatory; 0.8 / 0.2 is 4
    strength[10:] = -4
    made = initial_weights.dale_weights(key, n)
    np.testing.assert_allclose(made / made[0, 0], size * strength / size[0, 0])
    assert np.linalg.norm(made) == pytest.approx(norm)
    made = initial_weights.dale_weights(key, n, balance=False, excitatory=0.5)
    np.testing.assert_allclose(made / made[0, 0], size * np.r_[np.ones(6), -np.ones(6)] / size[0, 0])
    places = np.array([min(k, n - k) for k in range(n)]) / n
    made = initial_weights.ring_weights(key, n)
    for i, j in ((0, 1), (0, 11), (3, 9), (2, 2), (11, 4)):
        wanted = whole[i, j] * np.exp(-places[(i - j) % n] / 0.1) / whole[0, 0]
        assert made[i, j] / made[0, 0] == pytest.approx(wanted)
    made = initial_weights.chain_weights(key, n, links=3)
    of = np.arange(n) // 4
    wanted = np.array([[size[i, j] * (of[i] == of[j] + 1) * 3**0.5 + 0.1 * whole[i, j] for j in range(n)] for i in range(n)])
    np.testing.assert_allclose(made, wanted * norm / np.linalg.norm(wanted))
    np.testing.assert_allclose(
        initial_weights.chain_weights(key, n), initial_weights.chain_weights(key, n, links=10, gain=1.25, noise=0.1)
    )
    rng = np.random.default_rng(7)
    base = rng.standard_normal((n, n)) * 1.25 / n**0.5
    means, widths = rng.standard_normal((4, 4)), np.exp(0.5 * rng.standard_normal((4, 4)))
    of = np.arange(n) // 3
    wanted = base * widths[of][:, of] + means[of][:, of] * 1.25 / n**0.5
    made = initial_weights.block_weights(np.random.default_rng(7), n)
    np.testing.assert_allclose(made, wanted * np.linalg.norm(base) / np.linalg.norm(wanted))
    wired = initial_weights.wired_weights(np.array([[0.0, 3], [4, 0]]), [1, -1])
    np.testing.assert_allclose(wired, np.array([[0, -4], [3, 0]]) / 5 * 1.25 * 2**0.5)
    mixed = initial_weights.shuffled_weights(3, whole)
    np.testing.assert_allclose(np.diag(mixed), np.diag(whole))
    np.testing.assert_allclose(np.sort(mixed, axis=0), np.sort(whole, axis=0))
    assert (mixed != whole).sum() > 80
    np.testing.assert_allclose(match_norm(np.diag([3.0, 4]), 10.0), [[6, 0], [0, 8]])
    np.testing.assert_allclose(match_norm(np.diag([3.0, 4]), np.eye(2) * 5), np.array([[3, 0], [0, 4]]) * 2**0.5)
    np.testing.assert_allclose(initial_weights.match_radius(np.diag([1.0, -4]), 2.0), np.diag([0.5, -2]))
    np.testing.assert_allclose(initial_weights.truncate(np.diag([4.0, 3]), 1), np.diag([5.0, 0]), atol=1e-12)
    np.testing.assert_allclose(initial_weights.truncate(np.diag([4.0, 3]), 1, "none"), np.diag([4.0, 0]), atol=1e-12)
    np.testing.assert_allclose(initial_weights.truncate(np.diag([4.0, 3]), 2), np.diag([4.0, 3]), atol=1e-12)
    said = initial_weights.describe(np.diag([2.0, -1]))
    wanted = {"effective_rank": 25 / 17, "norm": 5**0.5, "radius": 2, "largest_singular_value": 2}
    assert {name: said[name] for name in wanted} == pytest.approx(wanted)
    assert 1 < said["entropy_rank"] < 2
    made = initial_weights.smooth_spectrum_weights(key, n, 1.01)
    assert initial_weights.describe(made)["effective_rank"] == pytest.approx(1.01)
    for call in (
        lambda: initial_weights.smooth_spectrum_weights(key, n, 1.009),
        lambda: initial_weights.smooth_spectrum_weights(key, n, float(n)),
        lambda: initial_weights.gaussian_weights(key, 0),
        lambda: initial_weights.gaussian_weights(key, 3, np.inf),
        lambda: initial_weights.dale_weights(key, n, excitatory=1.0),
        lambda: initial_weights.dale_weights(key, n, excitatory=0.0),
        lambda: initial_weights.block_weights(key, n, types=13),
        lambda: initial_weights.block_weights(key, n, types=0),
        lambda: initial_weights.chain_weights(key, n, links=1),
        lambda: initial_weights.chain_weights(key, n, links=13),
        lambda: initial_weights.ring_weights(key, n, reach=0.0),
        lambda: initial_weights.truncate(whole, 0),
        lambda: initial_weights.truncate(whole, 13),
        lambda: match_norm(np.zeros((2, 2)), 1.0),
        lambda: match_norm(np.full((2, 2), np.inf), 1.0),
        lambda: initial_weights.match_radius(np.eye(3, k=1), 1.0),
        lambda: initial_weights.wired_weights(np.ones((3, 3)), [1, -1]),
        lambda: initial_weights.wired_weights(np.ones((2, 2)), [1, 0]),
        lambda: initial_weights.wired_weights(-np.ones((2, 2)), [1, -1]),
        lambda: initial_weights.wired_weights(np.zeros((2, 2)), [1, -1]),
    ):
        with pytest.raises(InputError):
            call()
    for call in (
        lambda: initial_weights.block_weights(key, n, types=12),
        lambda: initial_weights.chain_weights(key, n, links=2),
        lambda: initial_weights.chain_weights(key, n, links=12),
        lambda: initial_weights.gaussian_weights(key, 1),
    ):
        assert np.isfinite(call()).all()


def test_linear_nets_by_hand():
    net = linear_learning.LinearNet(jnp.array([[1.0, 2], [0, -1]]), jnp.array([0.5, 1.0]))
    assert float(net(jnp.array([3.0, 4]))) == pytest.approx(0.5 * 11 - 4)
    np.testing.assert_allclose(net.effective, [0.5, 0])
    np.testing.assert_allclose(net.kernel, [[1 + 1.25, 2], [2, 5 + 1.25]])
    np.testing.assert_allclose(net.balance, [[5 - 0.25, -2 - 0.5], [-2.5, 1 - 1]])
    beta = jnp.array([1.0, -1.0])
    one = linear_learning.train_linear(net, beta, most=1)
    np.testing.assert_allclose(one.net.w, [[1 + 0.05 * 0.5 * 0.5, 2 - 0.05 * 0.5], [0.05 * 0.5, -1 - 0.05]], rtol=1e-6)
    np.testing.assert_allclose(one.net.a, [0.5 + 0.05 * (0.5 - 2), 1 + 0.05], rtol=1e-6)
    w, a = np.asarray(one.net.w), np.asarray(one.net.a)
    assert (int(one.steps), float(one.loss)) == (1, pytest.approx(0.5 * ((w.T @ a - np.asarray(beta)) ** 2).sum(), rel=1e-5))
    moved = w @ w.T - np.outer(a, a) - np.asarray(net.balance)
    assert float(one.drift) == pytest.approx(np.abs(moved).max(), rel=1e-4)
    still = linear_learning.train_linear(net, beta, most=1, readout=False)
    np.testing.assert_allclose(still.net.a, net.a)
    assert int(linear_learning.train_linear(net, net.effective).steps) == 0
    low = linear_learning.low_rank_net(0, 6, 5, 3, 2.0)
    np.testing.assert_allclose(np.linalg.svd(low.w)[1], [2 / 3**0.5] * 3 + [0, 0], atol=1e-6)
    assert 0 < np.linalg.norm(low.a) / (2e-4 * 6**0.5) < 2
    one = linear_learning.rank_one_net(0, 6, np.array([3.0, 0, 4]), 2.0, readout=0.5)
    assert np.linalg.norm(one.a) == pytest.approx(1)
    np.testing.assert_allclose(one.w, 2 * np.asarray(one.a)[:, None] * [0.6, 0, 0.8], rtol=1e-6)
    balanced = linear_learning.rank_one_net(0, 6, np.array([3.0, 0, 4]), 2.0)
    np.testing.assert_allclose(balanced.balance, np.zeros((6, 6)), atol=1e-6)
    a, b = jnp.array([[1.0, 2], [3, 4]]), jnp.array([[0.0, 1], [1, 0]])
    assert float(linear_learning.matrix_alignment(a, b)) == pytest.approx(5 / 60**0.5)
    assert float(linear_learning.expected_alignment(4.0, 6)) == pytest.approx(7 / (6 * 3) * 2)
    start = jnp.diag(jnp.array([1.0, 2, 2]))
    assert float(linear_learning.predicted_alignment(start, jnp.array([0.0, 3, 0]))) == pytest.approx(7 / (6**0.5 * 3))
    values = np.linalg.svd(linear_learning.anisotropic_features(0, 5, 3.0))[1]
    np.testing.assert_allclose(values, [3, 3, 1, 1, 1])
    for rank in (0, 6):
        with pytest.raises(InputError, match="1 to 5"):
            linear_learning.low_rank_net(0, 6, 5, rank, 2.0)


def _mechanism(**fields):
    made = object.__new__(stochastic_mechanism.Mechanism)
    vars(made).update(fields)
    return made


def test_regions_and_what_is_unstable_there_by_hand():
    stays = np.array([1.99, 2.0, 8.0, 8.01, 8.01, 8.01, 1.0])
    sure = np.array([0.9, 0.9, 0.9, 0.81, 0.8, 0.5, 0.1])
    np.testing.assert_array_equal(stochastic_mechanism.regions(stays, sure), [0, 1, 1, 2, 3, 3, 0])
    values = np.array(
        [[0.9 + 0.5j, 0.9 - 0.5j, 1.2, 0.3], [0.999 * np.exp(0.1j), 0.999 * np.exp(0.2j), -0.5, 1.0], [2.0, -2.0, 1.01, 0]]
    )
    # z = exp(i a) goes to i tan(a / 2): 0.05 is too little, 0.1 is enough
    np.testing.assert_array_equal(stochastic_mechanism.critical_pairs(values), [1, 1, 0])
    made = _mechanism(
        eigenvalues=values, at=np.array([0, 4, 8]), region=np.array([0, 2, 2, 3]),
        inside={"cluster": np.array([0, 8, 9]), "transition": np.array([3]), "kick zone": np.array([4])},
    )  # fmt: skip
    assert [made.unstable(name) for name in ("cluster", "transition", "kick zone")] == [3.0, 0.0, 0.0]
    assert [made.critical(name) for name in ("cluster", "transition", "kick zone")] == [0.5, 0.0, 1.0]
    assert [made.share(name) for name in stochastic_mechanism.REGIONS] == [0.25, 0.0, 0.5, 0.25]
    run = stochastic_mechanism.Run(None, None, np.array([0, 0, 1, 1, 1, 2, 0, 0]))
    assert (run.transitions.tolist(), run.dwells.tolist(), run.rate) == ([2, 5, 6], [3, 1], 3 / 7)


def test_rates_of_transitions_count_what_is_finite(monkeypatch):
    logits = np.zeros((1, 6, 2), np.float32)
    logits[0, :, 1] = [1, 1, -1, 1, np.inf, 1]

    class Fixed:
        def rollout(self, key, sequences, steps, warm_up):
            assert (sequences, steps, warm_up) == (32, 300, 50)
            return type("Made", (), {"logits": logits})

    monkeypatch.setitem(stochastic_mechanism.transition_rate.__annotations__, "model", object)
    rates = {(): 0.5, (1,): 0.1, (2,): 0.2, (3,): 0.3}
    model = NoiseRNN(4, 2, key=jax.random.key(0))

    def rate(of, key):
        silent = np.flatnonzero(~np.asarray(of.net.w_rec).any(axis=1))
        return rates[tuple(silent.tolist())]

    monkeypatch.setattr(stochastic_mechanism, "transition_rate", rate)
    run = stochastic_mechanism.Run(np.zeros((2, 2)), np.array([[0.0, 1, 2, 1.2]] * 2), np.zeros(2, int))
    found = stochastic_mechanism.silenced(model, jax.random.key(0), run, np.array([1]), draws=40)
    assert found[:2] == pytest.approx((0.2, 0.6))  # of 2 and 3, unit 3 is as active as unit 1
    assert found.random == pytest.approx(0.5, abs=0.07)  # unit 0 is silent anyway
    assert stochastic_mechanism.silenced(model, jax.random.key(0), run, np.array([], int)) == (1.0, 1.0, 1.0)
    halved = stochastic_mechanism.scaled(model, np.array([2]), 0.5)
    np.testing.assert_allclose(halved.net.w_rec, np.asarray(model.net.w_rec) * np.array([[1], [1], [0.5], [1]]))
    np.testing.assert_allclose(halved.net.w_in, np.asarray(model.net.w_in) * np.array([[1], [1], [0.5], [1]]))


def test_warm_up_is_run_and_left_out():
    model = NoiseRNN(5, 2, 3, key=jax.random.key(0))
    long = model.rollout(jax.random.key(1), 2, 9)
    late = model.rollout(jax.random.key(1), 2, 5, warm_up=4)
    np.testing.assert_allclose(late.h, long.h[:, 4:], rtol=1e-6)
    assert late.symbols.shape == (2, 5)
    run = stochastic_mechanism.run(model, jax.random.key(1), 9, warm_up=0)
    later = stochastic_mechanism.run(model, jax.random.key(1), 5, warm_up=4)
    np.testing.assert_allclose(later.h, run.h[4:], rtol=1e-6)
    np.testing.assert_allclose(later.noise, run.noise[4:])
    with pytest.raises(InputError, match="at least two"):
        NoiseRNN(5, 2, 1, key=jax.random.key(0))


def test_looks_at_a_loss():
    nets = [RateRNN(1, 2, 1, key=jax.random.key(k)) for k in range(2)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *nets)
    models = [jax.tree.map(lambda leaf, k=k: leaf + k, stacked) for k in range(3)]
    losses = np.array([[0.9, 0.8], [0.5, 0.7], [0.4, 0.3]])
    made = trained_starts.TrainedStarts({"a": nets[0], "b": nets[1]}, {}, np.arange(3), losses, losses, models)
    np.testing.assert_array_equal(made.loss("b"), [0.8, 0.7, 0.3])
    for name, target, look in (("a", 0.5, 1), ("a", 0.45, 2), ("b", 0.75, 1), ("b", 0.1, 2), ("a", 2.0, 0)):
        np.testing.assert_allclose(made.at_loss(name, target).w_rec, nets["ab".index(name)].w_rec + look, rtol=1e-6)


def test_guards_and_masks_of_continual_learning():
    model = continual.SpikingMLP((3, 2), rule="bptt", steps=1, key=jax.random.key(0))
    x, y = jnp.ones((2, 3)), jnp.array([0, 1])
    none = (LateralSubspace(3, capacity=1),)
    plain, _ = continual._loss(model.W, model, none, None, x, y, jnp.ones(2, bool))
    then, mattered = jnp.zeros((2, 3)), jnp.arange(6.0).reshape(2, 3)
    guard = continual.Guard((then,), (mattered,), jnp.asarray(4.0))
    held, _ = continual._loss(model.W, model, none, guard, x, y, jnp.ones(2, bool))
    assert float(held - plain) == pytest.approx(2 * float((mattered * model.W[0] ** 2).sum()), rel=1e-5)
    learner = continual.ContinualClassifier(classes=4)
    np.testing.assert_array_equal(learner._mask(None), [True] * 4)
    np.testing.assert_array_equal(learner._mask([1, 3]), [False, True, False, True])
    assert continual.DSR().ceiling == pytest.approx(6)
    for sizes, steps in (((3,), 1), ((3, 0), 1), ((3, 2), 0)):
        with pytest.raises(InputError, match="at least two sizes"):
            continual.SpikingMLP(sizes, steps=steps, key=jax.random.key(0))
    assert all(float(jnp.abs(w).max()) <= 1 / 3**0.5 for w in (*model.W, *model.random))


def test_gain_networks_refuse_and_keep_to_bounds():
    F, W = np.array([[1.0, 0.2], [0.3, 1.5]]), np.array([[0.2, 0.1], [0.1, 0.3]])
    net = gain_control.GainNetwork(F, W)
    np.testing.assert_allclose(net.D, np.eye(2) - W)
    half = np.array([0.5, 0.5])
    h = np.linalg.solve(np.diag([2.0, 0.5]) - W, F)
    np.testing.assert_allclose(net.steady(np.array([0.5, 2.0])), h)
    error, activity = 0.5 * ((F - net.D @ h) ** 2).sum(), 0.5 * (h**2).sum()
    cost = net.cost(np.array([0.5, 2.0]), half)
    assert (cost.error, cost.activity) == pytest.approx((error, activity))
    assert net.loss(np.array([0.5, 2.0]), half) == pytest.approx(error + 0.7 * activity + 2.4 * 1.25)
    held = net.adapt(half, bounds=(0.9, 3.0))
    free = net.adapt(half)
    assert free.max() < 0.9
    np.testing.assert_allclose(held, 0.9)
    raised = net.fit(net.steady(np.array([1.1, 1.2])))
    np.testing.assert_allclose(raised, [1.1, 1.2], rtol=1e-6)
    np.testing.assert_allclose(net.fit(net.steady(np.array([1.1, 1.2])), bounds=(0.01, 1.15))[1], 1.15)
    single = gain_control.without_recurrence(np.array([[2.0, 1.0]]), half)
    np.testing.assert_allclose(single, [(2.5 + 2.4) / (1.7 * 2.5 + 2.4)])
    for call, match in (
        (lambda: gain_control.GainNetwork(F[:1], W), "W has the shape"),
        (lambda: gain_control.GainNetwork(F[0], W), "F has the shape"),
        (lambda: gain_control.GainNetwork(F, W[:, :1]), "W has the shape"),
        (lambda: gain_control.GainNetwork(F, W, np.eye(3)), "D has the shape"),
        (lambda: gain_control.GainNetwork(F * np.nan, W), "NaN"),
        (lambda: gain_control.GainNetwork(F, W, tau=0.0), "positive"),
        (lambda: gain_control.GainNetwork(F, np.eye(2)), "below 1"),
        (lambda: net.steady(np.array([0.0, 1])), "positive gains"),
        (lambda: net.steady(np.ones(3)), "positive gains"),
        (lambda: net.steady(np.array([np.nan, 1])), "positive gains"),
        (lambda: net.steady(np.array([9.0, 9])), "past stability"),
        (lambda: net.cost(np.ones(2), np.array([0.4, 0.5])), "sum to 1"),
        (lambda: net.cost(np.ones(2), np.array([-0.5, 1.5])), "sum to 1"),
        (lambda: net.cost(np.ones(2), np.ones(1)), "sum to 1"),
        (lambda: net.adapt(half, -0.1), "not negative"),
        (lambda: net.adapt(half, 0.1, -1.0), "not negative"),
        (lambda: net.adapt(half, bounds=(1.0, 1.0)), "smaller first"),
        (lambda: net.adapt(half, bounds=(0.0, 1.0)), "smaller first"),
        (lambda: net.adapt(half, start=np.array([9.0, 9]), bounds=(0.1, 10.0)), "start from"),
        (lambda: net.adapt(half, max_steps=1), "did not settle in 1 steps"),
        (lambda: net.fit(np.ones((2, 3))), "Finite responses"),
        (lambda: net.fit(F * np.nan), "Finite responses"),
        (lambda: gain_control.ridge_decoder(F, F, half, -1.0), "not negative"),
        (lambda: gain_control.GainCircuit(W, 10.0, 10.0), "below the time constant"),
        (lambda: gain_control.GainCircuit(W, 10.0, 0.0), "below the time constant"),
        (lambda: gain_control.online(net, hold=0.4), "whole number"),
        (lambda: gain_control.online(net, hold=100.5), "whole number"),
    ):
        with pytest.raises(InputError, match=match):
            call()
    decoder = gain_control.ridge_decoder(F, 2 * F, half, 0.0)
    np.testing.assert_allclose(decoder, np.eye(2) / 2, atol=1e-12)


def test_plain_numbers_and_names_are_no_leaves():
    """Of every system of this room, built or not: else each would be traced, and a size could shape no array."""
    plain = {"int", "float", "bool", "str"}
    traced = []
    for info in pkgutil.iter_modules(networks.__path__, "broadsheet.networks."):
        module = importlib.import_module(info.name)
        for made in vars(module).values():
            if not (inspect.isclass(made) and issubclass(made, eqx.Module) and made.__module__ == info.name):
                continue
            for field in dataclasses.fields(made):
                kind = str(field.type)
                known = kind in plain or kind.startswith(("tuple[int", "tuple[str", "tuple[tuple[str", "Literal"))
                if known and not field.metadata.get("static"):
                    traced.append(f"{made.__name__}.{field.name}")
    assert traced == ["SequenceDivergence.blur", "SequenceDivergence.scaling"]  # of a loss, which is no system


def as_they_come():
    key = jax.random.key(0)
    items, contexts = SparseCode(30, 4), SparseCode(20, 3)
    units = {"tau": (8.0, 512.0), "alpha": 1.0, "beta": 0.8, "theta": 1.0, "soft": True, "learn_tau": False, "normalise": True}
    dense = {"order": 4, "temperature": 0.0, "distinct": True, "sequential": True, "scale": 1.0, "noise_scale": 0.0}
    net = gain_control.GainNetwork(np.eye(2), np.eye(2) / 10)
    price = {"alpha": 0.7, "gamma": 2.4}
    agent = {"sweep": 7, "replay": "reverse", "trail": 128, "discount": 0.95, "explore": 0.05, "persist": 1.0, "curiosity": 0.1}
    return {
        "AMSU": (astrocytes.AMSU, (8,), {"key": key}, units | {"heads": 4, "chunk": 64}),
        "mlp": (astrocytes.SpikingMLP, (8,), {"key": key}, {"multiplier": 2, "beta": 0.8, "theta": 1.0, "soft": True}),
        "DenseHebbian": (dense_memory.DenseHebbian, (jnp.asarray([[1.0, -1.0, 1.0, 1.0, -1.0, 1.0]]),), {}, dense),
        "memory": (
            theta_gamma.ThetaGammaMemory,
            (items, contexts),
            {},
            {"threshold": 0.7, "context_gain": 0.25, "gated": True},
        ),
        "Recurrent": (recurrent.Recurrent, (2, 3, 1), {"key": key}, {"kind": "lstm"}),
        "agent": (theta_gamma_agent.TGA, (items, contexts, 2, 8), {"key": key}, agent),
        "online": (gain_control.online, (net,), {}, price | {"rate": 0.002, "hold": 100.0, "dt": 1.0, "adjoint": True}),
        "circuit": (gain_control.GainCircuit, (np.eye(2) / 10,), {}, {"tau": 10.0, "dt": 1.0}),
    }


@pytest.mark.parametrize("name", ["AMSU", "mlp", "DenseHebbian", "memory", "Recurrent", "agent", "online", "circuit"])
def test_systems_as_they_come_have_these_numbers(name):
    make, given, needed, numbers = as_they_come()[name]
    assert eqx.tree_equal(make(*given, **needed), make(*given, **needed, **numbers))


def test_gains_as_they_come_have_these_prices():
    net = gain_control.GainNetwork(np.array([[1.0, 0.2], [0.3, 1.5]]), np.array([[0.2, 0.1], [0.1, 0.3]]))
    p, g = np.array([0.4, 0.6]), np.array([0.8, 1.3])
    assert net.tau == 10.0
    for method in (net.loss, net.grad, net.adapt):
        args = (p,) if method == net.adapt else (g, p)
        np.testing.assert_array_equal(method(*args), method(*args, 0.7, 2.4))
    np.testing.assert_array_equal(net.adapt(p, 5.0, 0.0), net.adapt(p, 5.0, 0.0, bounds=(0.01, 3.0)))
    assert net.expand(g, p).loss == net.expand(g, p, 0.7, 2.4).loss
    small = 0.001 * net.F
    np.testing.assert_allclose(
        gain_control.ridge_decoder(net.F, small, p),
        np.linalg.solve(small @ np.diag(p) @ small.T + 1e-6 * np.eye(2), small @ np.diag(p) @ net.F.T).T,
    )
