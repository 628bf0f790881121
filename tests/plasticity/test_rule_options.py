"""Rules as they come: numbers of the papers where a paper gives them, of the room's page otherwise."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import rollout
from broadsheet.errors import InputError
from broadsheet.plasticity import STDP, ErrorModulated, LateralSubspace, RecursiveLeastSquares, ThreeFactor, Triplet
from broadsheet.plasticity.subspace import projected_linear
from broadsheet.plasticity.tempotron import psp_kernel


@pytest.mark.parametrize("made", [STDP, Triplet, ThreeFactor, ErrorModulated, RecursiveLeastSquares, LateralSubspace])
def test_options_are_given_by_name(made):
    by_place = [each.name for each in inspect.signature(made).parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert by_place in (["weights"], ["n"])


@pytest.mark.parametrize("rule", [STDP, Triplet])
def test_weights_change_where_every_neuron_fires_at_once(rule):
    """To ask for silence must not take a step in which all are active for one in which none is."""
    pre, post = jnp.zeros((6, 3)), jnp.zeros((6, 2))
    spikes = pre.at[1].set(1.0), post.at[3].set(1.0)
    asking, always = (
        rollout(rule(jnp.full((3, 2), 0.5), a_plus=0.1, skip_silence=skip), spikes)[0].weights for skip in (True, False)
    )
    np.testing.assert_array_equal(asking, always)
    assert (asking > 0.5).all()
    large = rule(jnp.full((65, 64), 0.5), a_plus=0.1)
    grown = rollout(large, (jnp.zeros((6, 65)).at[1].set(1.0), jnp.zeros((6, 64)).at[3].set(1.0)))[0].weights
    np.testing.assert_allclose(grown, asking[0, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "good", "bad"),
    [
        (lambda n: LateralSubspace(n), 1, 0),
        (lambda n: LateralSubspace(2, capacity=n), 0, -1),
        (lambda x: LateralSubspace(2, rate=x), 1e-3, 0.0),
        (lambda x: LateralSubspace(2, momentum=x), 0.0, -1e-3),
        (lambda x: LateralSubspace(2, momentum=x), 0.999, 1.0),
        (lambda n: LateralSubspace(2, iterations=n), 1, 0),
        (lambda x: LateralSubspace(2, spiking=(x, 1)), 1e-3, 0.0),
        (lambda n: LateralSubspace(2, spiking=(1.0, n)), 1, 0),
        (lambda n: LateralSubspace(3).grow(n, jax.random.key(0)), 3, 4),
        (lambda n: LateralSubspace(3).grow(n, jax.random.key(0)), 0, -1),
        (lambda n: STDP([[0.5]], axonal=n), 0, -1),
        (lambda n: STDP([[0.5]], dendritic=n), 0, -1),
        (lambda x: STDP([[0.5]], bounds=(0.0, x)), 1e-3, 0.0),
        (lambda x: STDP([[0.5]], tau_plus=x), 1e-3, 0.0),
        (lambda x: STDP([[0.5]], tau_minus=x), 1e-3, 0.0),
        (lambda x: Triplet([[0.5]], tau_x=x), 1e-3, 0.0),
        (lambda x: Triplet([[0.5]], tau_y=x), 1e-3, 0.0),
        (lambda x: ThreeFactor([[0.5]], tau=x), 1e-3, 0.0),
        (lambda x: ThreeFactor([[0.5]], tau_e=x), 0.0, -1e-3),
        (lambda x: ThreeFactor([[0.5]], bounds=(0.0, x)), 1e-3, 0.0),
        (lambda x: psp_kernel(jnp.zeros(1), tau=x, tau_s=3.75), 3.76, 3.75),
        (lambda x: psp_kernel(jnp.zeros(1), tau_s=x), 1e-3, 0.0),
    ],
)
def test_bounds_are_where_they_are_said_to_be(make, good, bad):
    make(good)
    with pytest.raises(InputError):
        make(bad)


@pytest.mark.parametrize(
    "made",
    [
        STDP([[0.5]]), Triplet([[0.5]]), ThreeFactor([[0.5]]), ErrorModulated([[0.5]]), RecursiveLeastSquares([[0.5]]),
        LateralSubspace(2, capacity=1),
    ],
    ids=lambda made: type(made).__name__,
)  # fmt: skip
def test_sizes_and_options_are_no_leaves(made):
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(made))


def test_limits_are_the_bounds_in_their_order():
    assert [float(each) for each in STDP([[0.5]], bounds=(-1.0, 2.0)).limits] == [-1.0, 2.0]
    assert [float(each) for each in ThreeFactor([[0.5]], bounds=(-1.0, 2.0)).limits] == [-1.0, 2.0]
    assert RecursiveLeastSquares([[0.5]]).limits == (-np.inf, np.inf)


def test_least_squares_begins_at_one_over_alpha():
    rule = RecursiveLeastSquares(jnp.ones((3, 2)), alpha=0.25)
    state = rule.init(jax.random.key(0))
    np.testing.assert_array_equal(state.P, 4 * np.eye(3))
    moved = rule.trial(state, jnp.ones((5, 3)), jnp.zeros((5, 2)), jnp.ones(5))
    np.testing.assert_array_equal(rule.reset(moved).P, 4 * np.eye(3))
    np.testing.assert_array_equal(rule.reset(moved).weights, moved.weights)


def test_weights_have_a_synapse_at_least():
    for shape in ((0, 2), (2, 0), (2,), (1, 2, 3)):
        with pytest.raises(InputError, match="at least one of each"):
            STDP(jnp.zeros(shape))
        with pytest.raises(InputError, match="at least one of each"):
            STDP().on(jnp.zeros(shape))


def test_gradients_of_many_batches_are_those_of_one():
    """Axes before the last are all of the batch."""
    keys = jax.random.split(jax.random.key(0), 4)
    x, trace, W, back = (
        jax.random.normal(key, shape) for key, shape in zip(keys, [(2, 3, 4), (2, 3, 4), (5, 4), (5, 4)], strict=True)
    )

    def total(x, W, trace):
        return (projected_linear(x, W, trace, back) ** 2).sum() / 2

    whole, flat = (jax.grad(total, (0, 1))(*given) for given in ((x, W, trace), (x.reshape(6, 4), W, trace.reshape(6, 4))))
    np.testing.assert_allclose(whole[0].reshape(6, 4), flat[0], rtol=1e-5)
    np.testing.assert_allclose(whole[1], flat[1], rtol=1e-5)
    delta = (x @ W.T).reshape(6, 5)
    np.testing.assert_allclose(whole[1], delta.T @ trace.reshape(6, 4), rtol=1e-4)
