"""Rules as they come: numbers of the papers where a paper gives them, of the room's page otherwise."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import rollout
from broadsheet.errors import InputError
from broadsheet.plasticity import STDP, ErrorModulated, LateralSubspace, RecursiveLeastSquares, Tempotron, ThreeFactor, Triplet
from broadsheet.plasticity.subspace import projected_linear
from broadsheet.plasticity.tempotron import psp_kernel
from options import options

AS_THEY_COME = [
    # Song, Miller and Abbott (2000): both windows 20 ms, depression the stronger
    (STDP, {
        "a_plus": 0.01, "a_minus": 0.012, "tau_plus": 20.0, "tau_minus": 20.0, "bounds": (0.0, 1.0), "soft": False, "axonal": 0,
        "dendritic": 0, "pairing": "all", "zero_lag": True, "dt": 1.0,
    }),
    # Pfister and Gerstner (2006), table 4: visual cortex, all to all, minimal model (A2+ = 0)
    (Triplet, {
        "a_plus": 0.0, "a_minus": 0.007, "triplet_plus": 0.0062, "triplet_minus": 0.00023, "tau_plus": 16.8, "tau_minus": 33.7,
        "tau_x": 101.0, "tau_y": 125.0,
    }),
    # Gütig and Sompolinsky (2006): tau = 15 ms, tau / tau_s = 4
    (psp_kernel, {"tau": 15.0, "tau_s": 15.0 / 4}),
    (Tempotron, {
        "tau": 15.0, "tau_s": 15.0 / 4, "threshold": 1.0, "rate": 0.02, "epochs": 100, "momentum": 0.0, "rate_tau": 0.0,
        "rate_threshold": 0.0, "dt": 1.0, "random_state": 0,
    }),
    (ThreeFactor, {"rate": 0.01, "tau": 20.0, "tau_e": 0.0, "bounds": (-np.inf, np.inf), "dt": 1.0}),
    (ErrorModulated, {"rate": 0.2, "split": False, "hebbian": False}),
    (RecursiveLeastSquares, {"alpha": 0.1, "forget": 1.0}),
    (LateralSubspace, {"capacity": 0, "rate": 0.01, "momentum": 0.9, "iterations": 5, "sees_old": True, "width": 0}),
    (LateralSubspace.freeze, {"orthonormal": False}),
]  # fmt: skip


@pytest.mark.parametrize(("made", "expected"), AS_THEY_COME, ids=lambda part: getattr(part, "__name__", ""))
def test_rules_as_they_come(made, expected):
    assert options(made) == expected


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
