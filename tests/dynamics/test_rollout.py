import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadsheet.dynamics import System, fixed, rollout, rollout_until, trainable
from broadsheet.dynamics.rollout import initial_state
from broadsheet.dynamics.system import as_array
from broadsheet.errors import InputError


class Leaky(System):
    """x <- decay x + u + noise"""

    decay: jax.Array
    floor: jax.Array = fixed(default_factory=lambda: as_array(0.0))
    dt: float = eqx.field(static=True, default=1.0)

    def init(self, key):
        return jnp.zeros(())

    def step(self, state, inputs, key=None):
        noise = 0.0 if key is None else jax.random.normal(key)
        state = self.decay * state + (0.0 if inputs is None else inputs) + noise
        return state, state


LEAKY = Leaky(as_array(0.9))


def test_equals_the_closed_form():
    _, outputs = rollout(LEAKY, jnp.ones(50))
    expected = (1 - 0.9 ** np.arange(1, 51)) / (1 - 0.9)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)


@settings(max_examples=10, deadline=None)
@given(cut=st.integers(1, 39))
def test_noise_does_not_depend_on_chunking(cut):
    key = jax.random.key(3)
    whole, outputs = rollout(LEAKY, steps=40, key=key)
    state, first = rollout(LEAKY, steps=cut, key=key)
    state, second = rollout(LEAKY, steps=40 - cut, key=key, state=state, start=cut)
    np.testing.assert_array_equal(jnp.concatenate([first, second]), outputs)
    np.testing.assert_array_equal(state, whole)


def test_every_and_remat_record_the_same_steps():
    inputs = jnp.sin(jnp.arange(60.0))
    _, dense = rollout(LEAKY, inputs, key=jax.random.key(0))
    _, sparse = rollout(LEAKY, inputs, key=jax.random.key(0), every=5)
    _, again = rollout(LEAKY, inputs, key=jax.random.key(0), every=5, remat=20)
    np.testing.assert_allclose(sparse, dense[4::5], rtol=1e-6)
    np.testing.assert_allclose(again, sparse, rtol=1e-6)


def test_gradient_through_remat_equals_the_closed_form():
    def last(decay, remat):
        return rollout(Leaky(decay), jnp.zeros(20).at[0].set(1.0), remat=remat)[0]

    for remat in (None, 5):
        np.testing.assert_allclose(jax.grad(last)(as_array(0.9), remat), 19 * 0.9**18, rtol=1e-5)


def test_vmap_over_systems():
    decays = jnp.array([0.1, 0.5, 0.9])
    outputs = jax.vmap(lambda d: rollout(Leaky(d), jnp.ones(10))[1])(decays)
    assert outputs.shape == (3, 10)
    np.testing.assert_allclose(outputs[:, 1], 1 + decays, rtol=1e-6)


def test_changing_a_number_does_not_recompile():
    compiled = []

    @eqx.filter_jit
    def run(system):
        compiled.append(1)
        return rollout(system, steps=3)[0]

    run(Leaky(as_array(0.1)))
    run(Leaky(as_array(0.2)))
    assert len(compiled) == 1


def test_record_sees_state_and_output():
    _, records = rollout(LEAKY, jnp.ones(4), record=lambda state, output: (state, 2 * output))
    np.testing.assert_allclose(records[1], 2 * records[0])


def test_until_stops_at_the_crossing():
    state, output, made = rollout_until(LEAKY, lambda s, y: y > 5.0, 100, jnp.ones(100))
    assert int(made) == 7  # 10 (1 - 0.9^n) > 5 first at n = 7
    assert output > 5.0
    assert state == output


def test_until_says_that_it_cannot_be_differentiated():
    def crossing(decay):
        return rollout_until(Leaky(decay), lambda s, y: y > 5.0, 100, jnp.ones(100))[1]

    with pytest.raises(InputError, match="cannot be differentiated"):
        jax.grad(crossing)(as_array(0.9))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rollout(LEAKY), "how many steps"),
        (lambda: rollout(LEAKY, jnp.ones(10), every=3), "multiple"),
        (lambda: rollout(LEAKY, jnp.ones(10), steps=9), "steps = 9"),
        (lambda: rollout(LEAKY, (jnp.ones(10), jnp.ones(9))), "differ in length"),
        (lambda: rollout(LEAKY, jnp.ones(10), remat=3), "chunk"),
        (lambda: rollout_until(LEAKY, lambda s, y: True, 5, jnp.ones(3)), "fewer"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_trainable_leaves_out_fixed_fields_at_any_depth():
    spec = trainable({"a": LEAKY, "b": [LEAKY, None, "text"], "c": jnp.arange(3)})
    assert spec["a"].decay is True
    assert spec["a"].floor is False
    assert spec["b"][0].floor is False
    assert spec["c"] is False
    kept, rest = eqx.partition({"a": LEAKY}, trainable({"a": LEAKY}))
    assert len(jax.tree.leaves(kept)) == 1
    assert len(jax.tree.leaves(rest)) == 1


def test_a_rollout_until_something_draws_the_noise_of_a_rollout():
    key = jax.random.key(3)
    whole = rollout(LEAKY, steps=6, key=key)
    state, output, made = rollout_until(LEAKY, lambda s, y: False, 6, key=key)
    np.testing.assert_allclose([state, output], [whole[0], whole[1][-1]], rtol=1e-6)
    assert int(made) == 6


def test_the_state_before_the_first_step_has_a_key_that_no_step_has():
    class Drawn(Leaky):
        def init(self, key):
            return jax.random.normal(key)

    made, key = Drawn(as_array(0.0)), jax.random.key(4)
    assert initial_state(made, None) == made.init(jax.random.key(0))
    assert initial_state(made, key) == made.init(jax.random.fold_in(key, 2**31 - 1))
    steps = jax.vmap(lambda t: jax.random.normal(jax.random.fold_in(key, t)))(jnp.arange(50))
    assert not np.isin(initial_state(made, key), steps)
    state, output, _ = rollout_until(Drawn(as_array(1.0)), lambda s, y: True, 1)
    assert state == output == made.init(jax.random.key(0))


def test_a_chunk_that_is_shorter_than_a_record_is_one_record_long():
    u = jnp.arange(1.0, 13.0)
    expected = rollout(LEAKY, u)[1][2::3]
    np.testing.assert_allclose(rollout(LEAKY, u, every=3, remat=2)[1], expected, rtol=1e-6)
    np.testing.assert_allclose(rollout(LEAKY, (u,)[0], every=3, remat=6, unroll=2)[1], expected, rtol=1e-6)
