import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import rollout
from broadsheet.errors import InputError
from broadsheet.matter import WCA, Bias, CybloidSim, gaussian_ring, harmonic, pair, ring, sample_and_hold
from broadsheet.matter.observables import diffusion_constant, msd


@pytest.mark.parametrize("law", [harmonic(2.0), ring(3.0, 0.7), gaussian_ring(1.5, 1.0, 0.3), WCA()])
def test_forces_are_gradients_of_the_stated_potentials(law):
    def energy(delta):
        r = jnp.sqrt(jnp.sum(delta**2))
        name = type(law).__name__
        if name == "Harmonic":
            return law.k * r**2 / 2
        if name == "Ring":
            return law.k * (r - law.radius) ** 2 / 2
        if name == "GaussianRing":
            return -law.depth * jnp.exp(-((r - law.radius) ** 2) / (2 * law.width**2))
        return jnp.where(r < 2 ** (1 / 6), 4 * ((1 / r) ** 12 - (1 / r) ** 6) + 1, 0.0)

    for delta in (jnp.array([0.9, 0.2]), jnp.array([-0.5, 0.9]), jnp.array([1.3, 1.0])):
        np.testing.assert_allclose(law.force(delta), -jax.grad(energy)(delta), atol=1e-3)


def test_ring_force_at_the_centre_is_finite():
    assert jnp.isfinite(ring(1.0, 1.0).force(jnp.zeros(2))).all()
    assert jnp.isfinite(jax.grad(lambda d: ring(1.0, 1.0).force(d).sum())(jnp.zeros(2))).all()


def test_delay_is_exact_to_the_step():
    """Without noise, x_{t+1} = x_t - k dt (x_t - x_{t-n}) from a displaced start: compared with a plain loop."""
    n, k, dt = 3, 2.0, 0.1
    push = np.zeros(20)
    push[0] = 1.0
    sim = CybloidSim(1, 1, dt=dt, delay=n * dt, rule=harmonic(k), core=None, start=jnp.zeros((1, 1)))
    _, x = rollout(sim, jnp.asarray(push).reshape(20, 1, 1))
    path = [0.0] * (n + 1)
    for f in push:
        path.append(path[-1] + dt * (f - k * (path[-1] - path[-1 - n])))
    np.testing.assert_allclose(x[:, 0, 0], path[n + 1 :], atol=1e-6)


def test_free_diffusion():
    sim = CybloidSim(2000, D0=0.5, dt=0.01, core=None, start=jnp.zeros((2000, 2)))
    x = np.asarray(sim.run(jax.random.key(0), 200, 10))
    assert diffusion_constant(x, (2, 10), 0.1) == pytest.approx(0.5, rel=0.06)


def test_a_ring_without_noise_moves_at_the_exact_speed():
    dt = 0.001
    start = CybloidSim(1, D0=0.0, dt=dt, delay=1.0, rule=ring(5.0, 1.0), core=None, start=jnp.zeros((1, 2)))
    state = start.frozen(jnp.zeros((1, 2)))._replace(position=jnp.array([[1e-3, 0.0]]))
    _, x = rollout(start, steps=12_000, state=state, every=1000)
    np.testing.assert_allclose(np.linalg.norm(x[-1] - x[-2]), 5 / 6, rtol=2e-3)


def test_programmed_pair_holds_its_distance():
    """Two particles in each other's ring, no noise: they come to rest at R, the contact force being far."""
    start = jnp.array([[0.0, 0.0], [1.2, 0.3]])
    sim = CybloidSim(2, D0=0.0, dt=0.01, delay=0.05, rule=pair(ring(2.0, 1.8)), start=start)
    _, x = rollout(sim, steps=1000)
    assert np.linalg.norm(x[-1, 0] - x[-1, 1]) == pytest.approx(1.8, abs=1e-3)
    np.testing.assert_allclose(x[-1].mean(axis=0), start.mean(axis=0), atol=1e-5)  # no net force


def test_sample_and_hold_recovers_the_rule_and_uses_old_images():
    options = {"D0": 0.0, "dt": 0.1, "delay": 0.2, "core": None, "start": jnp.zeros((1, 1))}
    push = jnp.ones((12, 1, 1))
    _, plain = rollout(CybloidSim(1, 1, rule=harmonic(1.0), **options), push)
    _, fine = rollout(CybloidSim(1, 1, rule=sample_and_hold(harmonic(1.0), 0.1), **options), push)
    np.testing.assert_allclose(fine, plain, atol=1e-6)
    _, held = rollout(CybloidSim(1, 1, rule=sample_and_hold(harmonic(1.0), 0.4), **options), push)
    x, images = [0.0], []
    for t in range(12):  # the image in use was taken 2 steps before the last multiple of 4
        image = x[max(0, t - t % 4 - 2)]
        images.append(image)
        x.append(x[-1] + 0.1 * (1 - (x[-1] - image)))
    np.testing.assert_allclose(held[:, 0, 0], x[1:], atol=1e-6)


def test_rules_add_and_bias_pushes():
    start = jnp.array([[0.0, 0.0], [3.0, 0.0]])
    both = harmonic(1.0) + Bias(2.0, lambda now, delayed, history: jnp.ones_like(now))
    sim = CybloidSim(2, D0=0.0, dt=0.1, rule=both, core=None, start=start)
    _, x = rollout(sim, steps=1)
    np.testing.assert_allclose(x[0], start + 0.2, atol=1e-6)


def test_sizes_are_checked():
    with pytest.raises(InputError, match="whole number"):
        CybloidSim(1, dt=0.03, delay=0.1)
    with pytest.raises(InputError, match="core is"):
        CybloidSim(1, dt=0.1, core="hard")
    with pytest.raises(InputError, match="start has"):
        CybloidSim(2, dt=0.1, start=jnp.zeros((3, 2)))


def test_msd_grows_with_the_square_for_straight_motion():
    x = np.arange(50)[:, None, None] * np.array([[0.3, 0.4]])
    np.testing.assert_allclose(msd(x, [1, 4, 10]), 0.25 * np.array([1, 16, 100]))
