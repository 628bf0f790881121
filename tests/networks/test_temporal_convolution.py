import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.networks.temporal_convolution import TemporalConvolution


def test_it_is_the_sum_over_past_steps():
    """One layer of dilation 1 against the definition, written step by step."""
    model = TemporalConvolution(3, 4, 2, layers=1, kernel=3, key=jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(9, 3))
    coded = x @ np.asarray(model.encoder).T
    for t, out in enumerate(np.asarray(model(jnp.asarray(x)))):
        found = np.zeros(4)
        for k in range(3):
            if t - 2 + k >= 0:
                found += np.asarray(model.kernels)[0, k] @ coded[t - 2 + k]
        np.testing.assert_allclose(out, np.asarray(model.head) @ (coded[t] + np.maximum(found, 0)), atol=1e-5)


def test_an_output_looks_back_as_far_as_it_says_and_not_ahead():
    model = TemporalConvolution(1, 5, 1, layers=3, kernel=3, key=jax.random.key(1))
    assert model.reach == 1 + 2 * (1 + 2 + 4)
    slope = np.asarray(jax.jacobian(model)(jnp.ones((30, 1))))[20, 0, :, 0]
    touched = np.flatnonzero(slope)
    assert touched.max() == 20
    assert touched.min() == 20 - model.reach + 1
