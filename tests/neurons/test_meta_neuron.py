"""Meta neurons, quantal synapses and learned parameters against closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import rollout, trainable
from broadsheet.errors import InputError
from broadsheet.neurons import LIF, Intrinsic, LevyBaxter, MetaNeuron, QuantalRelease


def test_it_rests_where_the_parabola_says():
    """U = b V at rest, so V² - (1 + b) V + I = 0."""
    current = np.array([0.1, 0.2, 0.3])
    (v, u), spikes = rollout(MetaNeuron(3, squash=False), jnp.broadcast_to(jnp.asarray(current), (3000, 3)))
    np.testing.assert_allclose(v, (1.2 - np.sqrt(1.44 - 4 * current)) / 2, atol=1e-4)
    np.testing.assert_allclose(u, 0.2 * v, atol=1e-4)
    assert not spikes.any()


def test_a_squashed_neuron_fires_on_no_input_at_all():
    assert rollout(MetaNeuron(1), jnp.zeros((40, 1)))[1].sum() == 4


def test_a_narrow_firing_probability_is_a_threshold():
    drive = 1.5 * jax.random.normal(jax.random.key(0), (300, 20))
    sharp, _ = (rollout(MetaNeuron(20, kappa=k), drive, key=jax.random.key(1))[1] for k in (1e-6, 0.3))
    np.testing.assert_array_equal(sharp, rollout(MetaNeuron(20), drive)[1])


def test_levy_baxter_sums_have_the_moments_of_the_binomial():
    n, f, s = 40, 0.3, 0.75
    cell = LevyBaxter(np.ones((1, n)), success=s)
    x = (jax.random.uniform(jax.random.key(0), (20_000, n)) < f).astype(float)
    sums = np.asarray(jax.vmap(cell.excitation)(x, jax.random.split(jax.random.key(1), 20_000)))
    variance = n * (f * s / 3 - (f * s / 2) ** 2)
    assert abs(sums.mean() - n * f * s / 2) < 4 * np.sqrt(variance / 20_000)
    assert abs(sums.var() / variance - 1) < 0.05


def test_quantal_release_keeps_the_mean_and_its_derivative():
    def mean(success):
        sent = jax.vmap(lambda k: QuantalRelease(2, success).step(None, jnp.array([1.0, 0.0]), k)[1])
        return sent(jax.random.split(jax.random.key(0), 20_000)).mean(0)[0]

    value, slope = jax.value_and_grad(mean)(0.3)
    assert abs(value - 0.3) < 0.02
    np.testing.assert_allclose(slope, 1.0, rtol=1e-5)


def test_the_amplitude_of_release_may_be_fixed():
    """Uniform between 1 - spread and 1 + spread, of variance spread² / 3; without a spread what passes is whole."""
    keys = jax.random.split(jax.random.key(0), 20_000)
    for spread in (0.0, 0.5, 1.0):
        release = QuantalRelease(1, success=0.3, spread=spread)
        sent = np.asarray(jax.vmap(lambda k, release=release: release.step(None, jnp.ones(1), k)[1])(keys))[:, 0]
        passed = sent[sent > 0]
        assert len(passed) / len(sent) == pytest.approx(0.3, abs=0.02)
        assert (passed.min() >= 1 - spread - 1e-6) & (passed.max() <= 1 + spread + 1e-6)
        assert passed.var() == pytest.approx(spread**2 / 3, rel=0.1, abs=1e-6)


def test_learned_parameters_are_the_neurons_own():
    """The same spikes as without, a derivative by the chain rule, and nothing else to train."""
    neuron = LIF(3, tau=[5.0, 10.0, 20.0], rest=0.0, threshold=1.0, reset=None, dt=1.0)
    learned = Intrinsic(neuron, ("tau", "threshold"))
    drive = 0.3 * jax.random.uniform(jax.random.key(0), (200, 3))
    np.testing.assert_array_equal(rollout(learned, drive)[1], rollout(neuron, drive)[1])
    assert sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(learned, trainable(learned)))) == 6

    def loss(system):
        return rollout(system, drive, record=lambda state, _: state.v)[1].mean()

    free = eqx.filter_grad(loss)(learned).free
    raw = eqx.filter_grad(loss)(neuron)
    np.testing.assert_allclose(free["tau"], raw.tau * neuron.tau, rtol=1e-4)


@pytest.mark.parametrize(
    ("neuron", "names"),
    [(MetaNeuron(2, a=[0.1, 0.9], b=-0.2, c=-0.5, d=0.3, threshold=0.4, kappa=0.2), ("a", "b", "c", "d", "threshold", "kappa")),
     (LIF(2, tau=20.0, rest=-65.0, threshold=-50.0, reset=-70.0), ("tau", "rest", "threshold", "reset")),
     (QuantalRelease(2, 0.3), ("success",))],
    ids=["meta", "lif", "release"],
)  # fmt: skip
def test_parameters_stay_within_their_bounds_however_far_they_are_learned(neuron, names):
    learned = Intrinsic(neuron, names)
    assert set(learned.free) == set(names)
    low = {"tau": 0, "kappa": 0, "a": 0, "success": 0, "d": 0}
    high = {"a": 1, "success": 1}
    for name in names:
        np.testing.assert_allclose(getattr(learned.built(), name), np.broadcast_to(getattr(neuron, name), 2), rtol=1e-5)
        for sign in (-1.0, 1.0):
            far = eqx.tree_at(lambda made, name=name: made.free[name], learned, sign * jnp.full(2, 30.0))
            found = np.asarray(getattr(far.built(), name))
            assert (found >= low.get(name, -30)).all()
            assert (found <= high.get(name, np.inf)).all()
            assert np.isfinite(found).all()


def test_interspike_intervals_of_a_learned_time_constant():
    """tau log(R I / (R I - threshold)), for a hard reset."""
    tau, current = np.array([10.0, 30.0]), 1.5
    learned = Intrinsic(LIF(2, tau=tau, rest=0.0, threshold=1.0, reset=0.0, dt=0.01), ("tau",))
    drive = jnp.broadcast_to(current * (1 - learned.built().leak), (20_000, 2))
    spikes = np.asarray(rollout(learned, drive)[1])
    for k in range(2):
        interval = np.diff(np.nonzero(spikes[:, k])[0]).mean() * 0.01
        assert abs(interval - tau[k] * np.log(current / (current - 1))) < 0.02


@pytest.mark.parametrize(
    "make",
    [lambda: MetaNeuron(0), lambda: MetaNeuron(2, a=1.5), lambda: MetaNeuron(2, a=0.0), lambda: MetaNeuron(2, kappa=0.0),
     lambda: MetaNeuron(2, b=[1.0, 2, 3]),
     lambda: LevyBaxter([1.0]), lambda: QuantalRelease(2, 1.5), lambda: QuantalRelease(2, spread=1.5),
     lambda: Intrinsic(MetaNeuron(2), ("kappa",)),
     lambda: rollout(MetaNeuron(1, kappa=0.1), jnp.zeros((2, 1))), lambda: rollout(QuantalRelease(1), jnp.zeros((2, 1)))],
)  # fmt: skip
def test_mistakes_are_named(make):
    with pytest.raises(InputError):
        make()


@pytest.mark.parametrize("squash", [True, False])
def test_steps_of_a_neuron_as_it_comes_by_hand(squash):
    drive = np.random.default_rng(0).uniform(-3, 3, (60, 1))
    v, u, wanted = 0.0, 0.08, []
    for x in drive[:, 0]:
        current = 1 / (1 + np.exp(-x)) if squash else x
        v, u = np.clip(v * v - u + current, -2, 2), u + 0.02 * (0.2 * v - u)
        fired = v > 0.5
        v, u = (0.0 if fired else v), u + 0.08 * fired
        wanted.append((v, u, fired))
    _, found = rollout(MetaNeuron(1, squash=squash), jnp.asarray(drive), record=lambda state, out: (*state, out))
    np.testing.assert_allclose(np.stack(found)[..., 0].T, np.array(wanted, float), rtol=1e-4, atol=1e-5)
    assert 0 < sum(fired for *_, fired in wanted) < 60


def test_chances_to_fire_are_those_of_a_logistic_law():
    cell = MetaNeuron(20_000, kappa=0.2)
    for v in (0.3, 0.5, 0.8):
        fired = float(cell._fire(jnp.full(20_000, v), jax.random.key(0)).mean())
        assert fired == pytest.approx(1 / (1 + np.exp(-(v - 0.5) / 0.2)), abs=0.015)
    made = LevyBaxter(np.ones((2, 4)))
    assert (float(made.success), float(made.threshold), made.size) == (0.75, 1.0, 2)
    sure = LevyBaxter(np.zeros((1, 3)), threshold=0.0)  # nothing is no less than no threshold
    assert sure.step(None, jnp.ones(3), jax.random.key(0))[1].tolist() == [1.0]
    release = QuantalRelease(3)
    assert (float(release.success), float(release.spread)) == (0.5, 1.0)
