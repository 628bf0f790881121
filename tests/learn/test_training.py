import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from broadsheet.errors import DataError, InputError
from broadsheet.learn import fit

TRUE = jnp.array([1.0, -2.0, 0.5])


def batch(key):
    x = jax.random.normal(key, (32, 3))
    return x, x @ TRUE


def loss(model, data, key):
    x, y = data
    return jnp.mean((jax.vmap(model)(x)[:, 0] - y) ** 2)


def model():
    return eqx.nn.Linear(3, 1, key=jax.random.key(0))


def run(steps, **options):
    return fit(model(), loss, batch, optimiser=optax.adam(0.05), steps=steps, key=jax.random.key(1), **options)


def test_finds_the_least_squares_weights():
    fitted = run(400)
    np.testing.assert_allclose(fitted.model.weight[0], TRUE, atol=0.01)
    assert fitted.losses.shape == (400,)


def test_equals_a_plain_optax_loop():
    weights = model()
    optimiser = optax.sgd(0.1)
    state = optimiser.init(eqx.filter(weights, eqx.is_array))
    for t in range(10):
        data_key, _ = jax.random.split(jax.random.fold_in(jax.random.key(1), t))
        gradient = eqx.filter_grad(loss)(weights, batch(data_key), None)
        updates, state = optimiser.update(gradient, state)
        weights = eqx.apply_updates(weights, updates)
    fitted = fit(model(), loss, batch, optimiser=optimiser, steps=10, key=jax.random.key(1), chunk=3).model
    np.testing.assert_allclose(fitted.weight, weights.weight, rtol=1e-5)


@pytest.mark.parametrize("streamed", [True, False])
def test_losses_that_differ_in_arrays_share_one_program(streamed):
    traced = []

    class Towards(eqx.Module):
        wanted: jax.Array
        power: int = 2

        def __call__(self, weights, data, key):
            traced.append(self.power)
            return jnp.mean((weights - self.wanted) ** self.power) + 0 * jnp.sum(data)

    def nothing(key):
        return jnp.zeros(2)

    def trained(loss, optimiser):
        data = [jnp.zeros(2)] * 300 if streamed else nothing
        return fit(jnp.zeros(2), loss, data, optimiser=optimiser, steps=300, key=jax.random.key(0)).model

    optimiser = optax.adam(0.1)
    np.testing.assert_allclose(trained(Towards(jnp.array([1.0, 2.0])), optimiser), [1, 2], atol=0.01)
    once = len(traced)
    np.testing.assert_allclose(trained(Towards(jnp.array([-3.0, 4.0])), optimiser), [-3, 4], atol=0.01)
    assert len(traced) == once
    trained(Towards(jnp.array([1.0, 2.0]), power=4), optimiser)
    assert set(traced[once:]) == {4}
    again = len(traced)
    trained(Towards(jnp.array([1.0, 2.0])), optax.adam(0.01))
    assert len(traced) > again


def test_resumes_to_the_same_weights(tmp_path):
    whole = run(60, chunk=20).model.weight
    run(20, chunk=20, checkpoint=tmp_path / "at")
    resumed = run(60, chunk=20, checkpoint=tmp_path / "at")
    assert len(resumed.losses) == 40
    np.testing.assert_array_equal(resumed.model.weight, whole)


def test_iterable_data_and_its_end():
    batches = [batch(jax.random.key(t)) for t in range(5)]
    kwargs = {"optimiser": optax.sgd(0.1), "key": jax.random.key(0)}
    assert fit(model(), loss, batches, steps=5, **kwargs).losses[-1] < 10
    with pytest.raises(InputError, match="ended after 5 batches"):
        fit(model(), loss, batches, steps=6, **kwargs)


def test_only_chosen_parameters_move_and_projection_holds():
    start = model()
    chosen = eqx.tree_at(lambda m: m.bias, jax.tree.map(lambda _: True, start), False)
    project = lambda m: eqx.tree_at(lambda m: m.weight, m, jnp.maximum(m.weight, 0))  # noqa: E731
    fitted = run(50, parameters=chosen, project=project).model
    np.testing.assert_array_equal(fitted.bias, start.bias)
    assert float(fitted.weight.min()) == 0.0


def test_says_where_it_diverged_and_refuses_a_strange_checkpoint(tmp_path):
    with pytest.raises(InputError, match="at step"):
        fit(model(), loss, batch, optimiser=optax.sgd(1e6), steps=50, key=jax.random.key(1))
    (tmp_path / "bad").write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match="no checkpoint of this model"):
        run(10, checkpoint=tmp_path / "bad")
