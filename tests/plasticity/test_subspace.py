import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import subspace_angles

from broadsheet.errors import InputError
from broadsheet.plasticity import LateralSubspace, projected_conv, projected_linear
from broadsheet.plasticity.subspace import patches, principal_subspace, smallest_cosine


@pytest.fixture
def old():
    """A subspace with four orthonormal old rows in ten dimensions."""
    return LateralSubspace(10, capacity=8).grow(4, jax.random.key(0)).freeze(orthonormal=True)


def test_projection_is_the_orthogonal_complement(old):
    x = jax.random.normal(jax.random.key(1), (5, 10))
    basis = np.asarray(old.H[:4])
    expected = np.asarray(x) @ (np.eye(10) - basis.T @ basis)
    np.testing.assert_allclose(old.project(x), expected, atol=1e-6)
    np.testing.assert_allclose(old.project(old.project(x)), expected, atol=1e-6)


def test_rows_learn_the_principal_subspace_and_avoid_old_ones(old):
    """Against SciPy's principal angles; the data are strong along three old directions and two new ones."""
    rng = np.random.default_rng(0)
    new = np.linalg.qr(np.concatenate([np.asarray(old.H[:4]).T, rng.standard_normal((10, 2))], axis=1))[0].T[4:]
    strong = np.concatenate([np.asarray(old.H[:3]), new])
    X = 0.2 * rng.standard_normal((3000, 64, 10)) + 2 * rng.standard_normal((3000, 64, 5)) @ strong
    grown = LateralSubspace(10, rate=0.01, iterations=1)
    grown = eqx.tree_at(lambda s: (s.H, s.old, s.used), grown, (old.H[:4], old.old, old.used))
    grown = grown.grow(2, jax.random.key(3))
    learned, _ = jax.lax.scan(lambda s, x: (s.update(x), None), grown, jnp.asarray(X, jnp.float32))
    angles = subspace_angles(np.asarray(learned.H[4:6]).T, new.T)
    assert np.cos(angles).min() > 0.99
    np.testing.assert_array_equal(learned.H[:4], grown.H[:4])
    assert float(jnp.abs(learned.H[4:6] @ learned.H[:4].T).max()) < 0.05


def test_weight_gradient_uses_the_trace_and_errors_the_feedback():
    keys = jax.random.split(jax.random.key(0), 4)
    x, trace, W, B = (jax.random.normal(k, s) for k, s in zip(keys, ((6, 4), (6, 4), (3, 4), (3, 4)), strict=True))
    delta = jax.random.normal(jax.random.key(9), (6, 3))
    dx, dW = jax.grad(lambda x, W: jnp.sum(delta * projected_linear(x, W, trace, B)), (0, 1))(x, W)
    np.testing.assert_allclose(dW, delta.T @ trace, rtol=1e-5)
    np.testing.assert_allclose(dx, delta @ B, rtol=1e-5)


def test_projected_convolution_projects_each_patch():
    """Against the explicit product of errors with projected patches."""
    x = jax.random.normal(jax.random.key(0), (2, 3, 6, 6))
    W = jax.random.normal(jax.random.key(1), (4, 3, 3, 3))
    subspace = LateralSubspace(27).grow(9, jax.random.key(2)).freeze(orthonormal=True)
    delta = jax.random.normal(jax.random.key(3), (2, 4, 6, 6))
    dW = jax.grad(lambda W: jnp.sum(delta * projected_conv(x, W, subspace)))(W)
    rows = subspace.project(patches(x, 3))
    expected = jnp.moveaxis(delta, 1, -1).reshape(-1, 4).T @ rows
    np.testing.assert_allclose(dW.reshape(4, -1), expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(projected_conv(x, W, subspace), jax.lax.conv(x, W, (1, 1), "SAME"), rtol=1e-5)


def test_spiking_lateral_neurons_round_and_room_does_not_matter(old):
    x = jax.random.normal(jax.random.key(5), (7, 10))
    coarse = LateralSubspace(10, spiking=(20.0, 40))
    np.testing.assert_allclose(coarse.respond(x, jnp.eye(10)), np.round(np.clip(x / 20, -1, 1) * 40) / 40 * 20, atol=1e-5)
    roomy, tight = (LateralSubspace(10, capacity=c).grow(3, jax.random.key(1)) for c in (9, 0))
    np.testing.assert_allclose(roomy.update(x).H[:3], tight.update(x).H, rtol=1e-6)


def test_angles_agree_with_scipy():
    A, B = (jax.random.normal(jax.random.key(k), (3, 9)) for k in (0, 1))
    expected = np.cos(subspace_angles(np.asarray(A).T, np.asarray(B).T).max())
    np.testing.assert_allclose(smallest_cosine(A, B), expected, rtol=1e-4)
    assert principal_subspace(A, 2).shape == (2, 9)


@pytest.mark.parametrize(
    ("make", "said"),
    [(lambda: LateralSubspace(0), "n = 0"), (lambda: LateralSubspace(4, rate=-1.0), "rate = -1.0"),
     (lambda: LateralSubspace(4).grow(5, jax.random.key(0)), "do not fit"),
     (lambda: LateralSubspace(4, spiking=(1.0, 0)), "spiking"), (lambda: LateralSubspace(4, capacity=-1), "room for -1 rows"),
     (lambda: LateralSubspace(4, iterations=0), "iterations = 0"), (lambda: LateralSubspace(4, momentum=1.0), "momentum = 1.0")],
)  # fmt: skip
def test_mistakes_are_named(make, said):
    with pytest.raises(InputError, match=said):
        make()


@pytest.mark.parametrize("orthonormal", [False, True])
def test_frozen_rows_are_as_they_were_or_an_orthonormal_basis_of_their_span(orthonormal):
    grown = LateralSubspace(6, capacity=3).grow(2, jax.random.key(0))
    skew = jnp.asarray([[1.0, 2, 0, 0, 0, 0], [0, 1, 0, 3, 0, 0], [0, 0, 0, 0, 0, 0]])
    frozen = eqx.tree_at(lambda s: s.H, grown, skew).freeze(orthonormal=orthonormal)
    assert int(frozen.old) == int(frozen.used) == 2
    np.testing.assert_array_equal(frozen.H[2:], 0)
    if orthonormal:
        np.testing.assert_allclose(frozen.H[:2] @ frozen.H[:2].T, np.eye(2), atol=1e-6)
        np.testing.assert_allclose(subspace_angles(frozen.H[:2].T, skew[:2].T), 0, atol=1e-3)
    else:
        np.testing.assert_array_equal(frozen.H, skew)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rate": 0.2, "momentum": 0.5, "iterations": 2, "sees_old": False},
        {"rate": 0.05, "spiking": (2.0, 3), "capacity": 7},
    ],
    ids=str,
)
def test_new_rows_move_as_the_equations_say_and_old_ones_do_not(options):
    """Oja's subspace rule with momentum on what old rows leave over, changes within ±10, by hand over two batches."""
    rng = np.random.default_rng(3)
    batches = 6 * rng.standard_normal((2, 4, 8))
    start = LateralSubspace(8, **options).grow(2, jax.random.key(0)).freeze().grow(3, jax.random.key(1))
    said = {"rate": 0.01, "momentum": 0.9, "iterations": 5, "sees_old": True} | options
    old, new = np.split(np.asarray(start.H[:5], float), [2])
    velocity, largest = np.zeros((3, 8)), 0.0

    def respond(x, rows):
        if "spiking" not in said:
            return x @ rows.T
        reach, steps = said["spiking"]
        return np.round(np.clip(x @ rows.T / reach, -1, 1) * steps) / steps * reach

    found = start
    for x in batches:
        left = x - respond(x, old) @ old if said["sees_old"] else x
        for _ in range(said["iterations"]):
            y = respond(x, new)
            change = y.T @ (left - y @ new) / 4
            largest = max(largest, np.abs(change).max())
            velocity = said["momentum"] * velocity + (1 - said["momentum"]) * np.clip(change, -10, 10)
            new = new + said["rate"] * velocity
        found = found.update(jnp.asarray(x, jnp.float32))
    assert largest > 10
    np.testing.assert_array_equal(found.H[:2], start.H[:2])
    np.testing.assert_allclose(found.H[2:5], new, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.velocity[2:5], velocity, rtol=1e-3, atol=1e-2)
    assert not np.asarray(found.H[5:]).any()
    assert found.H.shape == (max(5, said.get("capacity", 0)), 8)
    more = found.grow(2, jax.random.key(2))
    np.testing.assert_array_equal(more.H[:5], found.H[:5])
    np.testing.assert_array_equal(more.velocity[:5], found.velocity[:5])
    np.testing.assert_allclose(more.H[5:7] @ more.H[5:7].T, np.eye(2), atol=1e-6)
    assert (int(more.old), int(more.used), more.H.shape) == (2, 7, (7, 8))


def test_principal_directions_are_numpys_and_sets_of_two_sizes_have_an_angle():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 5)) * [5, 3, 1, 0.5, 0.1]
    wanted = np.linalg.svd(x)[2]
    np.testing.assert_allclose(np.abs(principal_subspace(x, 2) @ wanted.T), np.eye(2, 5), atol=1e-5)
    wide, narrow = wanted[:3], wanted[[0, 4]]
    assert smallest_cosine(jnp.asarray(wide), jnp.asarray(narrow)) == pytest.approx(0, abs=1e-5)
    assert smallest_cosine(jnp.asarray(wide), jnp.asarray(wanted[:2])) == pytest.approx(1, abs=1e-5)


def test_a_projected_layer_answers_as_any_and_asks_nothing_of_traces():
    x, trace, W, back = (
        jax.random.normal(jax.random.key(k), shape) for k, shape in enumerate([(4, 3), (4, 3), (2, 3), (2, 3)])
    )
    np.testing.assert_allclose(projected_linear(x, W, trace, back), x @ W.T, rtol=1e-5)
    asked = jax.grad(lambda trace, back: (projected_linear(x, W, trace, back) ** 2).sum(), (0, 1))(trace, back)
    assert not any(np.asarray(each).any() for each in asked)
