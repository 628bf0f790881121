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


def test_weights_begin_within_the_root_of_what_a_unit_hears():
    model = TemporalConvolution(4, 25, 40, layers=2, kernel=2, key=jax.random.key(2))
    for weights, count in ((model.encoder, 4), (model.kernels, 50), (model.head, 25)):
        drawn = np.asarray(weights) * count**0.5
        assert -1 <= drawn.min() < -0.9
        assert 0.9 < drawn.max() <= 1
    assert not np.asarray(model.biases).any()
    assert not np.asarray(model.offset).any()
    assert model.kernels.shape == (2, 2, 25, 25)
    assert TemporalConvolution(1, 2, 1, key=jax.random.key(0)).kernels.shape == (6, 3, 2, 2)
