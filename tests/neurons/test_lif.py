import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.dynamics import rollout, trainable
from broadsheet.neurons import LIFLayer
from broadsheet.neurons.surrogates import spike


def test_free_membrane_equals_the_closed_form():
    """One input spike, no threshold in reach: v is the double exponential of its synapse and membrane, step by step."""
    layer = LIFLayer(1, 1, 1, gain=1.0, key=jax.random.key(0))
    w = float(layer.w_in[0, 0])
    x = jnp.zeros((40, 1)).at[0, 0].set(0.5)
    v = rollout(layer, x, record=lambda state, _: state[0].membrane.v[0])[1]
    a, b = np.exp(-1 / 20), np.exp(-1 / 5)
    n = np.arange(40)
    expected = 0.5 * w * (1 - a) * (a ** (n + 1) - b ** (n + 1)) / (a - b)
    np.testing.assert_allclose(v, expected, atol=1e-6)


def test_rate_under_constant_current_follows_the_threshold():
    layer = LIFLayer(1, 1, 1, key=jax.random.key(0))
    drive = lambda i: jnp.full((400, 1), i * (1 - np.exp(-1 / 5)) / float(layer.w_in[0, 0]))  # noqa: E731
    layer = jax.tree.map(lambda leaf: leaf, layer)
    spikes = lambda i: float(rollout(layer, drive(i), record=lambda s, _: s[0].spikes[0])[1].sum())  # noqa: E731
    assert spikes(0.9) <= 1  # its own recurrent weight may push once
    assert spikes(3.0) > spikes(1.5) > 0


def test_spike_has_a_surrogate_gradient_and_time_constants_are_held():
    np.testing.assert_array_equal(spike(jnp.array([-0.1, 0.1])), [0.0, 1.0])
    np.testing.assert_allclose(jax.vmap(jax.grad(spike))(jnp.array([0.0, 0.2])), [1.0, 1 / 36], rtol=1e-5)
    layer = LIFLayer(2, 3, 1, key=jax.random.key(0))
    assert not any(jax.tree.leaves(trainable(layer).neurons))
    assert trainable(layer).w_in is True
