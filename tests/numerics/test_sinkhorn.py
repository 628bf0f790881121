"""Entropic transport against GeomLoss, a linear programme, and central differences."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from broadsheet.errors import InputError
from broadsheet.numerics.scaled_sinkhorn import scaled_sinkhorn
from broadsheet.numerics.sinkhorn import half_squared, plan_of, sinkhorn, sinkhorn_divergence

GIVEN = json.loads((Path(__file__).parents[1] / "references" / "hmmrnn.json").read_text())["divergence"]


@pytest.mark.parametrize("blur", [0.2, 0.5])
def test_value_and_gradient_of_geomloss(blur):
    with jax.enable_x64(True):
        x, y = (jnp.asarray(GIVEN[name]) for name in "xy")
        value, gradient = jax.value_and_grad(lambda x: sinkhorn_divergence(x, y, blur=blur))(x)
        wanted = GIVEN[str(blur)]
        assert float(value) == pytest.approx(wanted["value"], rel=1e-12)
        assert np.abs(np.asarray(gradient) - wanted["gradient"]).max() < 1e-12


def test_geomloss_schedule_is_far_from_converged_and_more_sweeps_are_not():
    """What the divergence is says a plain loop of 5000 rescalings of the kernel, in float64."""
    x, y = (np.asarray(GIVEN[name]) for name in "xy")

    def transport(x, y, eps=0.04):
        costs = ((x[:, None] - y) ** 2).sum(-1) / 2
        kernel, v = np.exp(-costs / eps) / costs.size, np.ones(len(y))
        for _ in range(5000):
            u = 1 / len(x) / (kernel @ v)
            v = 1 / len(y) / (kernel.T @ u)
        plan = u[:, None] * kernel * v
        value = eps * (np.log(u).mean() + np.log(v).mean())
        return value, (plan[:, :, None] * (x[:, None] - y)).sum(axis=1)

    (between, to_x), (own, to_own), (other, _) = transport(x, y), transport(x, x), transport(y, y)
    exact, slope = between - own / 2 - other / 2, to_x - to_own
    with jax.enable_x64(True):
        points = jnp.asarray(x)
        value, gradient = jax.value_and_grad(lambda x: sinkhorn_divergence(x, jnp.asarray(y), blur=0.2, sweeps=5000))(points)
    assert float(value) == pytest.approx(exact, rel=1e-9)
    assert np.allclose(gradient, slope, atol=1e-7)
    assert GIVEN["0.2"]["value"] < 0.985 * exact
    assert np.abs(GIVEN["0.2"]["gradient"] - slope).max() > 0.4 * np.abs(slope).max()


def test_known_values():
    corners = jnp.eye(4)
    assert float(sinkhorn_divergence(corners[:2], corners[2:], blur=0.2)) == pytest.approx(1 - 0.04 * np.log(2), abs=1e-6)
    assert float(sinkhorn_divergence(corners[:2], corners[:2], blur=0.2)) == 0


def test_small_epsilon_is_the_assignment():
    x, y = np.random.default_rng(0).standard_normal((2, 8, 3)).astype(np.float32)

    @jax.jit
    def solved(x, y):
        costs = half_squared(x, y)
        found = sinkhorn(costs, epsilon=0.005, sweeps=5000, tolerance=1e-7)
        return costs, found.cost, plan_of(costs, found, epsilon=0.005)

    costs, cost, plan = map(np.asarray, solved(x, y))
    exact = costs[linear_sum_assignment(costs)].mean()
    assert cost == pytest.approx(exact + 0.005 * np.log(8), rel=1e-3)  # a permutation's entropy
    assert plan.argmax(axis=1).tolist() == linear_sum_assignment(costs)[1].tolist()


def test_weights_marginals_and_gradients():
    rng = np.random.default_rng(1)
    costs = rng.random((6, 4))
    a, b = (rng.dirichlet(np.ones(n)) for n in (6, 4))
    a[0] = 0.0
    a /= a.sum()

    def solved(costs, a):
        found = sinkhorn(costs, a, jnp.asarray(b), epsilon=0.2, sweeps=5000, tolerance=1e-14)
        return found.cost, (found, plan_of(costs, found, a, jnp.asarray(b), epsilon=0.2))

    with jax.enable_x64(True):
        both = jax.jit(jax.value_and_grad(solved, (0, 1), has_aux=True))(costs, a)
    (cost, (found, plan)), (to_costs, to_a) = jax.tree.map(np.asarray, both)
    assert np.allclose(plan.sum(1), a, atol=1e-12)
    assert np.allclose(plan.sum(0), b, atol=1e-12)
    assert found.row_error < 1e-12
    relative = plan[1:] * np.log(plan[1:] / (a[1:, None] * b))
    assert cost == pytest.approx((plan * costs).sum() + 0.2 * relative.sum(), abs=1e-12)
    assert np.allclose(to_costs, plan, atol=1e-12)
    assert np.allclose(to_a, found.f, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_scalings_of_a_kernel_find_the_potentials_of_a_plain_loop(scale):
    """Also where the farthest pair costs a thousand epsilon, whose kernel is zero in single precision."""
    rng = np.random.default_rng(0)
    x, y = scale * rng.standard_normal((40, 2)), scale * (rng.standard_normal((30, 2)) + 1)
    costs = ((x[:, None] - y) ** 2).sum(-1) / 2
    a, b = (weights / weights.sum() for weights in (rng.random(40), rng.random(30)))
    a[3], b[5] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    with np.errstate(divide="ignore"):
        log_a, log_b, f, g = np.log(a), np.log(b), np.zeros(40), np.zeros(30)
    epsilon = costs.max()
    for _ in range(4000):
        epsilon = max(1.0, 0.8 * epsilon)
        f = -epsilon * logsumexp(log_b + (g - costs) / epsilon, axis=1)
        g = -epsilon * logsumexp(log_a[:, None] + (f[:, None] - costs) / epsilon, axis=0)
    found = scaled_sinkhorn(*(jnp.asarray(each, jnp.float32) for each in (costs, a, b)), sweeps=4000, tolerance=1e-5)
    plan, wanted = (
        a[:, None] * b * np.exp(f_[:, None] + g_ - costs) for f_, g_ in ((np.asarray(found.f, float), found.g), (f, g))
    )
    np.testing.assert_allclose(plan, wanted, atol=2e-3 / costs.size)
    np.testing.assert_allclose(plan.sum(axis=0), b, atol=1e-5)
    assert np.abs(plan.sum(axis=1) - a).sum() < 1e-3
    assert found.row_error < 1e-3
    assert float(found.cost) == pytest.approx(a @ f + b @ g, rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_points_that_no_others_stand_for_have_their_plan(weighted):
    """Two far pairs among 1500 and 1000 points, whose potentials are found between some of them: a pair goes to its own."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((1500, 2)), rng.standard_normal((1000, 2)) + 0.5
    x[[1, 2, 3]] += 40
    y[[1, 3]] += 40
    a, b = np.full(1500, 1 / 1500), np.full(1000, 1 / 1000)
    if weighted:  # some that stand for others have none
        a[::5], a[1:4], b[::4], b[[1, 3]] = 0, 1 / 1500, 0, 1 / 1000
        a, b = a / a.sum(), b / b.sum()
    costs = ((x[:, None] - y) ** 2).sum(-1) / 2
    found = jax.jit(scaled_sinkhorn)(*(jnp.asarray(each, jnp.float32) for each in (costs, a, b)))
    plan = a[:, None] * b * np.exp(np.asarray(found.f, float)[:, None] + np.asarray(found.g, float) - costs)
    np.testing.assert_allclose(plan.sum(axis=0), b, atol=2e-6)
    np.testing.assert_allclose(plan.sum(axis=1), a, atol=2e-6)
    assert plan[1:4][:, [1, 3]].sum() == pytest.approx(min(a[1:4].sum(), b[[1, 3]].sum()), rel=1e-3)


def test_any_cost_and_its_gradient():
    def rounded(x, y):  # a distance without its kink at 0
        return jnp.sqrt(((x[:, None] - y) ** 2).sum(-1) + 0.01)

    rng = np.random.default_rng(2)
    x, y, move = rng.standard_normal((3, 5, 2))
    with jax.enable_x64(True):
        both = jax.jit(jax.value_and_grad(
            lambda x: sinkhorn_divergence(x, jnp.asarray(y), blur=1.0, cost=rounded, sweeps=300)))  # fmt: skip
        slope = (np.asarray(both(x)[1]) * move).sum()
        ahead, behind = (float(both(x + sign * 1e-5 * move)[0]) for sign in (1, -1))
    assert slope == pytest.approx((ahead - behind) / 2e-5, rel=1e-5)


def test_what_is_refused():
    with pytest.raises(InputError, match="one dimension"):
        sinkhorn_divergence(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
    with pytest.raises(InputError, match="scaling is 1"):
        sinkhorn(jnp.zeros((2, 2)), epsilon=1.0, scaling=1.0)
    with pytest.raises(InputError, match="above 0"):
        sinkhorn(jnp.zeros((2, 2)), epsilon=0.0)
    with pytest.raises(InputError, match="one weight a point"):
        sinkhorn(jnp.zeros((2, 2)), jnp.ones(3), epsilon=1.0)
    costs, half = jnp.zeros((2, 2)), jnp.full(2, 0.5)
    with pytest.raises(InputError, match="epsilon is 0; it must be above 0"):
        scaled_sinkhorn(costs, half, half, epsilon=0.0)
    with pytest.raises(InputError, match="one weight a point"):
        scaled_sinkhorn(costs, half, jnp.ones(3) / 3)
    for wrong in ([0.5, 0.6], [1.5, -0.5], [jnp.nan, 1.0]):
        with pytest.raises(InputError, match=r"b sums to .* weights of 0 or more"):
            scaled_sinkhorn(costs, half, jnp.asarray(wrong))
