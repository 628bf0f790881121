import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.conversion import QuantisedNet, SpikingNet, run_dynamic
from broadsheet.conversion.conversion import Layer, Sequential, balanced_thresholds, lsq, qcfs
from broadsheet.conversion.resnet import ResNet, calibrate_norms
from broadsheet.errors import InputError

BARE = Sequential((Layer("activation"),))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), levels=st.integers(1, 9), theta=st.sampled_from([0.25, 1.0, 8.0]))
def test_a_neuron_computes_its_activation(seed, levels, theta):
    """Exact in T = L steps under a constant input, away from ties."""
    z = np.random.default_rng(seed).uniform(-theta, 2 * theta, 64).astype(np.float32)
    z = z[np.abs(levels * z / theta % 1 - 0.5) > 1e-3]
    summed, spikes = SpikingNet(BARE, z.shape, [theta]).run(z[None], levels)
    np.testing.assert_allclose(summed[0, -1] / levels, qcfs(jnp.asarray(z), theta, levels), atol=1e-5 * theta)
    np.testing.assert_allclose(spikes.sum() * theta, summed[0, -1].sum(), rtol=1e-4)


def test_lsq_is_the_same_map_and_has_the_published_derivatives():
    z = jnp.array([-0.4, 0.31, 0.77, 1.6])
    np.testing.assert_allclose(lsq(z, 0.3, 2), qcfs(z, 0.9, 3), atol=1e-6)
    by_scale = jax.grad(lambda s: jnp.sum(lsq(z, s, 2)))(0.3)
    c = np.clip(np.asarray(z) / 0.3, 0, 3)
    expected = np.where(c < 3, np.round(c) - np.where((c > 0) & (c < 3), c, 0), 3).sum() / np.sqrt(4 * 3)
    np.testing.assert_allclose(by_scale, expected, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(jax.grad(lambda x: lsq(x[None], 0.3, 2)[0]))(z), [0, 1, 1, 0])


def test_theta_learns_through_the_ceiling():
    """Above the ceiling the activation is theta; below, the straight-through floor makes the derivative (a - z) / theta."""
    gradient = jax.grad(lambda theta, z: qcfs(jnp.asarray(z), theta, 4))
    np.testing.assert_allclose(gradient(1.0, 3.0), 1.0, rtol=1e-6)
    np.testing.assert_allclose(gradient(1.0, 0.4), 0.5 - 0.4, rtol=1e-5)


@pytest.fixture(scope="module")
def net():
    body = Sequential.conv((1, 8, 8), (4, 6), 10, jax.random.key(0), pool=(True, True))
    return QuantisedNet(body, (1, 8, 8), levels=4, theta=1.0)


def test_long_runs_approach_the_quantised_network(net):
    x = jax.random.uniform(jax.random.key(1), (20, 1, 8, 8))
    summed, _ = net.spiking().run(x, 200)
    error = [float(jnp.abs(summed[:, t - 1] / t - net(x)).mean()) for t in (2, 200)]
    assert error[1] < 0.6 * error[0]


def test_dynamic_runs_give_the_answers_of_the_full_run_at_the_exit(net):
    x = jax.random.uniform(jax.random.key(2), (37, 1, 8, 8))
    spiking = net.spiking()
    summed, spikes = (np.asarray(part) for part in spiking.run(x, 12))
    limit = float(np.median(summed.max(axis=2)[:, 5]))
    found = run_dynamic(spiking, x, lambda total: total.max(axis=1) > limit, 12)
    passed = summed.max(axis=2) > limit
    expected = np.where(passed.any(axis=1), passed.argmax(axis=1) + 1, 12)
    assert len(np.unique(expected)) > 3
    np.testing.assert_array_equal(found.steps, expected)
    np.testing.assert_array_equal(found.answers, summed[np.arange(37), expected - 1].argmax(axis=1))
    counts = np.cumsum(spikes.sum(axis=2), axis=1)[np.arange(37), expected - 1]
    np.testing.assert_allclose(found.spikes, counts, rtol=1e-5)


def test_thresholds_balance_a_network_trained_with_relus(net):
    x = jax.random.uniform(jax.random.key(3), (50, 1, 8, 8))
    theta = balanced_thresholds(net.body, x, 100.0)
    spiking = SpikingNet(net.body, (1, 8, 8), theta)
    relu = net.body(x, lambda k, z: jax.nn.relu(z))
    summed, _ = spiking.run(x, 300)
    assert float(jnp.abs(summed[:, -1] / 300 - relu).max()) < 0.1


def test_residual_networks_with_stored_statistics_do_not_mix_samples():
    net = QuantisedNet(ResNet(10, width=4, blocks=(1, 1), key=jax.random.key(0)), (3, 8, 8), levels=3, theta=2.0)
    x = jax.random.normal(jax.random.key(1), (6, 3, 8, 8))
    assert float(jnp.abs(net(x)[:2] - net(x[:2])).max()) > 1e-3
    stored = calibrate_norms(net, x)
    np.testing.assert_allclose(stored(x), net(x), atol=1e-4)
    np.testing.assert_allclose(stored(x)[:2], stored(x[:2]), atol=1e-5)
    assert stored.spiking().run(x[:1], 3)[0].shape == (1, 3, 10)


@pytest.mark.parametrize(
    ("make", "said"),
    [(lambda: QuantisedNet(BARE, (3,), levels=0), "levels = 0"), (lambda: QuantisedNet(BARE, (3,), theta=[1.0, 2.0]), "theta"),
     (lambda: SpikingNet(BARE, (3,), []), "0 thresholds for 1"), (lambda: balanced_thresholds(BARE, jnp.ones((2, 3)), 0.0), "percentile")],
)  # fmt: skip
def test_mistakes_are_named(make, said):
    with pytest.raises(InputError, match=said):
        make()
