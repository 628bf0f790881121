"""Multiplicative diffusion against closed forms, automatic differentiation and paths of the equation by a plain loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from broadsheet.errors import InputError
from broadsheet.learn.exponentiated import exponentiated_gradient
from broadsheet.transport import GBM, PositiveDiffusion
from broadsheet.transport.additive_diffusion import AdditiveDiffusion
from broadsheet.transport.multiplicative_samplers import (
    Annealing,
    lognormal_start,
    reverse_step,
    sample_annealed,
    sample_reverse,
)
from broadsheet.transport.score_matching import DenoisingLoss, explicit_loss, implicit_loss
from broadsheet.transport.timed_nets import TimedUNet, timed_net
from broadsheet.transport.two_samples import energy_distance

RNG = np.random.default_rng(0)
MEAN, SPREAD = 0.3, 0.5
GBM_ = GBM(0.8, mu=0.1)


def log_density(x, t):
    """Of log-normal data under the noise, in x."""
    variance = SPREAD**2 + 0.64 * t
    away = jnp.log(x) - MEAN - (0.1 - 0.32) * t
    return -jnp.log(x) - away**2 / (2 * variance)


def exact(x, t):
    return GBM_.lognormal_score(x, t, jnp.array([MEAN]), jnp.array([SPREAD**2]))


def test_scores_are_derivatives_of_the_density():
    x, t = np.array([[0.7], [1.9]], np.float32), np.array([[0.2], [0.9]], np.float32)
    slopes = jax.jit(jax.vmap(jax.grad(log_density)))(x[:, 0], t[:, 0])
    np.testing.assert_allclose(jax.jit(exact)(x, t)[:, 0], x[:, 0] * slopes, rtol=1e-5)
    x0 = np.array([[1.1], [0.4]], np.float32)

    @jax.jit
    def noised(x0, t):
        xt = GBM_.marginal(x0, t, jax.random.key(0))
        return xt, GBM_.noise(x0, xt, t), GBM_.target(x0, xt, t)

    xt, noise, target = map(np.asarray, noised(x0, t))
    eps = (np.log(xt) - np.log(x0) - (0.1 - 0.32) * t) / (0.8 * np.sqrt(t))
    np.testing.assert_allclose(noise, eps, rtol=1e-4)
    np.testing.assert_allclose(target, -1 - eps / (0.8 * np.sqrt(t)), rtol=1e-4)


def test_one_step_of_each_sampler_by_hand():
    x, h, z, d = 1.3, -0.4, 0.7, 0.01
    args = [np.full((1, 1), value, np.float32) for value in (x, h, z)]
    methods = ("dale", "ambient", "flow")
    made = jax.jit(lambda x, h, z, d: [reverse_step(x, h, GBM_, d, z, m)[0, 0] for m in methods])(*args, jnp.asarray(d))
    step = dict(zip(methods, map(float, made), strict=True))
    assert step["dale"] == pytest.approx(x * np.exp(d * (1.5 * 0.64 - 0.1 + 0.64 * h) + 0.8 * np.sqrt(d) * z), rel=1e-5)
    assert step["ambient"] == pytest.approx(x * (1 + d * (2 * 0.64 + 0.64 * h - 0.1) + 0.8 * np.sqrt(d) * z), rel=1e-5)
    assert step["flow"] == pytest.approx(x * np.exp(d * (0.32 * (1 + h) - (0.1 - 0.32))), rel=1e-5)


@pytest.mark.parametrize("method", ["dale", "ambient", "flow"])
def test_the_exact_score_gives_the_law_back(method):
    start = lognormal_start(GBM_, jnp.array([MEAN]), jnp.array([SPREAD**2]), 20_000, jax.random.key(1))
    made = np.asarray(sample_reverse(exact, GBM_, start, jax.random.key(2), steps=200, method=method))
    logs = np.log(made[made > 0])
    assert logs.mean() == pytest.approx(MEAN, abs=0.015)
    assert logs.std() == pytest.approx(SPREAD, abs=0.015)


def test_annealed_steps_are_the_same_steps_with_fading_noise():
    start, key = jnp.full((3, 1), 1.5), jax.random.key(3)
    made = sample_annealed(exact, GBM_, start, key, Annealing(0.01, inner=2, factor=0.5, levels=3, clean=1))
    x = start
    step = jax.jit(lambda x, t, loud, draw: reverse_step(
        x, exact(x, jnp.full((3, 1), t)), GBM_, jnp.asarray(0.01), loud * jax.random.normal(draw, x.shape), "dale"
    ))  # fmt: skip
    for k, draw in enumerate(jax.random.split(key, 7)):
        level = min(k // 2, 2)
        x = step(x, (3 - level) / 3, 0.5**level if k < 6 else 0.0, draw)
    np.testing.assert_allclose(made, x, rtol=1e-5)
    with pytest.raises(InputError, match="at least one step"):
        sample_annealed(exact, GBM_, start, key, Annealing(levels=0))


def test_losses_agree_where_theory_says():
    x0 = np.exp(SPREAD * np.random.default_rng(4).normal(size=(200_000, 1))).astype(np.float32)
    at = np.array([-0.3, -0.7], np.float32)

    def implicit(p, x0):
        return implicit_loss(lambda x: p[0] + p[1] * jnp.log(x), x0)

    def explicit(p, x0):
        return explicit_loss(lambda x: p[0] + p[1] * jnp.log(x), lambda x: -1 - jnp.log(x) / SPREAD**2, x0)

    found, expected = jax.jit(lambda p, x0: (jax.grad(implicit)(p, x0), jax.grad(explicit)(p, x0)))(at, x0)
    np.testing.assert_allclose(found, expected, rtol=0.02)
    data = x0 * np.float32(np.exp(MEAN))
    weights = {
        weight: float(eqx.filter_jit(DenoisingLoss(GBM_, weight=weight))(exact, data, jax.random.key(5)))
        for weight in ("noise", "authors")
    }
    t = np.linspace(1e-3, 1, 100_001)
    share = SPREAD**2 / (SPREAD**2 + 0.64 * t)  # of the noise's variance that the best prediction leaves
    assert weights["noise"] == pytest.approx(share.mean(), rel=0.02)
    assert weights["authors"] == pytest.approx((0.64 * t * share).mean(), rel=0.02)


def test_estimators_learn_a_law_and_stay_positive(caplog):
    data = RNG.gamma(2.0, 0.5, (600, 1))
    options = {"hidden": 16, "depth": 1, "steps": 400, "average": 0.99, "random_state": 1}
    made = PositiveDiffusion(1.5, weight="noise", **options).fit(data).sample(600, steps=50)
    assert made.min() > 0
    assert energy_distance(made, data) < energy_distance(data * 1.5, data)
    other = AdditiveDiffusion("preserving", log=True, **options).fit(data).sample(600, steps=50)
    assert other.min() > 0
    assert energy_distance(other, data) < energy_distance(data * 1.5, data)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        again = PositiveDiffusion(1.5, weight="noise", **options).fit(data).sample(600, steps=50)
    assert "Compiling" not in caplog.text  # each fit's own optimiser would compile the training again
    np.testing.assert_array_equal(made, again)


def test_a_unet_of_images_sees_their_places():
    net = timed_net(32, 4, 2, (4, 4, 2), jax.random.key(0))
    x, t, run = np.asarray(RNG.normal(size=32), np.float32), jnp.asarray(0.3), eqx.filter_jit(lambda net, x, t: net(x, t))
    made = run(net, x, t)
    assert made.shape == (32,)
    same = TimedUNet((4, 4, 2), (4, 8), key=jax.random.key(0))
    np.testing.assert_array_equal(made, run(same, x, t))
    assert not np.allclose(made, run(net, x, jnp.asarray(0.9)))
    assert run(timed_net(3, 8, 1, None, jax.random.key(0)), x[:3], t).shape == (3,)
    with pytest.raises(InputError, match="halved 2 times"):
        TimedUNet((6, 6, 1), (4, 8, 8), key=jax.random.key(0))
    with pytest.raises(InputError, match="no images of 4 x 4 x 1"):
        timed_net(15, 4, 2, (4, 4, 1), jax.random.key(0))


def test_what_is_not_positive_is_refused_with_its_place():
    data = np.ones((4, 2))
    data[2, 1] = 0
    with pytest.raises(InputError, match="row 2, column 1"):
        PositiveDiffusion().fit(data)
    with pytest.raises(InputError, match="at least 2"):
        PositiveDiffusion().fit(np.ones((1, 2)))
    with pytest.raises(InputError, match="both above 0"):
        GBM(-1.0)
    with pytest.raises(InputError, match="0 steps"):
        sample_reverse(exact, GBM_, jnp.ones((1, 1)), jax.random.key(0), steps=0)


def test_energy_distance_of_two_normals():
    x, y = RNG.normal(size=(3000, 1)), RNG.normal(1.0, 1.0, (2500, 1))
    pairs = 2 * np.abs(x - y.T).mean() - np.abs(x - x.T).sum() / (3000 * 2999) - np.abs(y - y.T).sum() / (2500 * 2499)
    assert energy_distance(x, y) == pytest.approx(pairs, rel=1e-9)
    assert abs(energy_distance(x, RNG.normal(size=(2500, 1)))) < 0.01


def test_exponentiated_steps_by_hand_and_under_dales_law():
    rule = exponentiated_gradient(optax.constant_schedule(0.1))
    w, slope = jnp.array([0.5, -2.0, 0.0]), jnp.array([1.0, 3.0, 4.0])
    updates, state = rule.update(slope, rule.init(w), w)
    np.testing.assert_allclose(w + updates, [0.5 * np.exp(-0.1), -2 * np.exp(0.3), 0.0], rtol=1e-6)
    assert int(state.count) == 1
    with pytest.raises(InputError, match="weights"):
        rule.update(slope, state)
