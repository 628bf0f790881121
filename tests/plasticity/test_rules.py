"""The tempotron and three-factor learning."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from broadsheet.dynamics import rollout
from broadsheet.errors import InputError
from broadsheet.plasticity import ErrorModulated, RecursiveLeastSquares, Tempotron, ThreeFactor, psp_kernel


def test_kernel_has_its_peak_of_one_where_the_closed_form_says():
    t = np.linspace(0, 60, 60_001)
    k = np.asarray(psp_kernel(jnp.asarray(t)))
    assert abs(t[k.argmax()] - 6.931) < 2e-3
    np.testing.assert_allclose(k.max(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(k[10_000], 2.11653 * (np.exp(-10 / 15) - np.exp(-10 / 3.75)), rtol=1e-4)


def test_tempotron_separates_patterns_with_equal_counts():
    """Random patterns of one spike an input, far below capacity; shuffled labels at test are at chance."""
    rng = np.random.default_rng(0)
    X = np.zeros((40, 100, 60))
    for k in range(40):
        X[k, rng.integers(0, 100, 60), np.arange(60)] = 1
    y = rng.permutation(np.repeat([3, 7], 20))
    model = Tempotron(rate=0.01, epochs=300).fit(X, y)
    assert model.errors_[-1] == 0
    assert model.score(X, y) == 1.0
    np.testing.assert_array_equal(model.voltage(X).max(axis=1) > 1, y == 7)


def test_tempotron_voltage_is_the_sum_of_kernels():
    X = np.zeros((2, 30, 2))
    X[0, 3, 0] = X[0, 8, 1] = X[1, 5, 0] = 1
    model = Tempotron(epochs=1).fit(X, [0, 1])
    t = np.arange(30)
    expected = model.coef_[0] * psp_kernel(jnp.asarray(t - 3.0)) + model.coef_[1] * psp_kernel(jnp.asarray(t - 8.0))
    np.testing.assert_allclose(model.voltage(X)[0], expected, atol=1e-6)


def test_tempotron_moves_tau_along_the_derivative_of_its_voltage():
    """One missed pattern; the derivative by differences of the voltage at the same time."""
    X = np.zeros((2, 40, 3))
    X[1, [5, 9, 14], [0, 1, 2]] = 1
    model = Tempotron(rate=0.0, rate_tau=0.5, rate_threshold=0.1, epochs=1, random_state=4).fit(X, [0, 1])
    voltage = Tempotron(rate=0.0, epochs=1, random_state=4).fit(X, [0, 1]).voltage(X)[1]
    top = voltage.argmax()

    def at(tau):
        return sum(
            w * float(psp_kernel(jnp.asarray(float(top - t)), tau)) for w, t in zip(model.coef_, (5, 9, 14), strict=True)
        )

    slope = (at(15 * 1.01) - at(15 / 1.01)) / (2 * np.log(1.01))
    np.testing.assert_allclose(np.log(model.tau_ / 15), 0.5 * slope, rtol=0.02)
    np.testing.assert_allclose(model.threshold_, 0.9, rtol=1e-6)


def test_three_factor_rule_is_the_delta_rule_on_traces():
    """With a factor of one and an error as modulator: the same steps written out in NumPy."""
    rng = np.random.default_rng(1)
    pre, target = (rng.random((200, 4)) < 0.3).astype(float), rng.standard_normal((200, 2))
    w, trace = np.zeros((4, 2)), np.zeros(4)
    state = (rule := ThreeFactor(np.zeros((4, 2)), rate=0.05, tau=10.0)).init(jax.random.key(0))
    step = eqx.filter_jit(rule.step)
    for x, y in zip(pre, target, strict=True):
        trace = np.exp(-0.1) * trace + x
        error = y - trace @ w
        w = w + 0.05 * np.outer(trace, error)
        state, _ = step(state, (jnp.asarray(x), jnp.ones(2), jnp.asarray(error)))
    np.testing.assert_allclose(rule.consolidate(state).weights, w, rtol=1e-4, atol=1e-5)


def test_reward_reaches_back_to_what_was_eligible():
    """A single pair of spikes, and a reward 30 ms later: rate exp(-30 / tau_e), in closed form."""
    rule = ThreeFactor([[0.0]], rate=0.5, tau=20.0, tau_e=100.0)
    pre, post, reward = (np.zeros((40, 1)) for _ in range(3))
    pre[2], post[2], reward[32] = 1, 1, 1
    state, _ = rollout(rule, tuple(map(jnp.asarray, (pre, post, reward))))
    np.testing.assert_allclose(state.weights, 0.5 * np.exp(-30 / 100), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "said"),
    [(lambda: psp_kernel(jnp.zeros(3), 3.0, 4.0), "tau = 3.0"), (lambda: ThreeFactor([[0.0]], tau=0.0), "tau, the time constant"),
     (lambda: ThreeFactor([[0.0]], tau_e=-2.0), "tau_e"), (lambda: Tempotron().fit(np.zeros((3, 4)), [0, 1, 1]), "X has the shape"),
     (lambda: Tempotron().fit(np.zeros((3, 4, 2)), [0, 0, 0]), "1 classes")],
)  # fmt: skip
def test_mistakes_are_named(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_rules_as_they_come_follow_their_closed_forms():
    """A fixed trace x and probability 1: rate 0.2 and P = 10 at the start are what the rules have without a word."""
    x, n = jnp.asarray([0.6, 0.8]), 5
    given = (jnp.tile(x, (n, 1)), jnp.ones((n, 1)), jnp.ones(n))
    learned = {}
    for kind in (ErrorModulated, RecursiveLeastSquares):
        rule = kind(jnp.zeros((2, 1)))
        learned[kind] = float(x @ rule.consolidate(rollout(rule, given)[0]).weights[:, 0])
    assert learned[ErrorModulated] == pytest.approx(1 - 0.8**n, rel=1e-5)
    assert learned[RecursiveLeastSquares] == pytest.approx(n / (n + 0.1), rel=1e-4)


@pytest.mark.parametrize("forget", [1.0, 0.9])
def test_least_squares_of_a_whole_trial_is_the_weighted_solution(forget):
    """Against the normal equations: sample k of n counts forget^(n - k), the start alpha forget^n."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((12, 4)), rng.standard_normal((12, 2))
    with jax.enable_x64(True):
        rule = RecursiveLeastSquares(jnp.zeros((4, 2)), alpha=0.3, forget=forget)
        given = (jnp.asarray(X), jnp.asarray(Y), jnp.ones(12))
        whole = rule.trial(rule.init(jax.random.key(0)), *given)
        stepped, _ = rollout(rule, given)
        weight = forget ** np.arange(11, -1, -1)
        wanted = np.linalg.solve((X * weight[:, None]).T @ X + 0.3 * forget**12 * np.eye(4), (X * weight[:, None]).T @ Y)
        np.testing.assert_allclose(rule.learned(whole), wanted, rtol=1e-8)
        np.testing.assert_allclose(rule.learned(stepped), wanted, rtol=1e-8)
        np.testing.assert_allclose(stepped.P, whole.P, rtol=1e-8)


@pytest.mark.parametrize("options", [{}, {"hebbian": True}, {"split": True}], ids=str)
def test_when_learns_the_mean_error_and_what_the_rest_of_it(options):
    """The rule by hand, with two outcomes and gates of both signs; where it is split, `what` learns in a second pass."""
    rng = np.random.default_rng(0)
    X, Y, gates, start = (rng.standard_normal(shape) for shape in ((6, 3), (6, 2), (6,), (3, 2)))
    rule, when, what, sent = ErrorModulated(start, rate=0.3, **options), np.zeros(3), start.T, []

    def error_of(x, y):
        return y if options.get("hebbian") else y - (when + what) @ x

    for x, y, gate in zip(X, Y, gates, strict=True):
        sent.append((when + what) @ x)
        error = error_of(x, y)
        when = when + 0.3 * gate * error.mean() * x
        if "split" not in options:
            what = what + 0.3 * gate * np.outer(error - error.mean(), x)
    given = tuple(map(jnp.asarray, (X, Y, gates)))
    state, answers = rollout(rule, given)
    np.testing.assert_allclose(answers, sent, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.when, when, rtol=1e-4, atol=1e-5)
    for x, y, gate in zip(X, Y, gates, strict=True) if "split" in options else ():
        error = error_of(x, y)
        what = what + 0.3 * gate * np.outer(error - error.mean(), x)
    whole = rule.trial(rule.init(jax.random.key(0)), *given)
    np.testing.assert_allclose(whole.what, what, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rule.learned(whole), (when + what).T, rtol=1e-4, atol=1e-5)


def test_three_factors_as_they_come_with_steps_of_half_a_millisecond_and_within_bounds():
    pre, post = np.zeros((8, 1)), np.zeros((8, 1))
    pre[2] = post[5] = 1
    given = tuple(map(jnp.asarray, (pre, post, np.ones((8, 1)))))
    for options, wanted in (
        ({}, 0.01 * np.exp(-3 / 20)), ({"dt": 0.5}, 0.01 * np.exp(-1.5 / 20)), ({"bounds": (-1.0, 0.004)}, 0.004),
        ({"tau_e": 10.0, "dt": 2.0}, 0.01 * np.exp(-6 / 20) * (1 + np.exp(-0.2) + np.exp(-0.4))),
    ):  # fmt: skip
        np.testing.assert_allclose(rollout(ThreeFactor([[0.0]], **options), given)[0].weights, wanted, rtol=1e-5)


def kernel(t, tau=15.0, tau_s=3.75):
    """The potential after a spike, its peak 1."""
    at = np.maximum(np.append(t, np.linspace(0, 200, 200_001)), 0)
    shape = np.exp(-at / tau) - np.exp(-at / tau_s)
    return shape[: len(t)] / shape.max()


TWO = np.zeros((2, 20, 3))
TWO[0, [2, 9], [0, 1]] = TWO[1, [3, 5, 12], [0, 1, 2]] = 1


def test_a_tempotron_as_it_comes_makes_the_step_of_the_paper():
    """Of two patterns that stay below the threshold the one of the second class is missed; weights grow by its potentials."""
    model = Tempotron(epochs=1).fit(TWO, ["no", "yes"])
    start = np.random.default_rng(0).normal(0, 0.01, 3)
    traces = np.array([kernel(np.arange(20.0) - at) for at in (3, 5, 12)]).T
    top = (traces @ start).argmax()
    np.testing.assert_allclose(model.coef_, start + 0.02 * traces[top], rtol=1e-4)
    assert (model.errors_, model.threshold_, model.tau_) == ([1], 1.0, pytest.approx(15.0))
    assert Tempotron(rate=0.0).fit(TWO, [0, 1]).errors_ == [1] * 100
    assert Tempotron(rate=0.0, epochs=3).fit(TWO[[1, 1, 0]], [1, 1, 0]).errors_ == [2] * 3


def test_momentum_thresholds_and_steps_of_time_of_a_tempotron():
    model = Tempotron(rate=0.1, epochs=4, momentum=0.5, rate_threshold=0.05, dt=0.5, threshold=0.3, random_state=2)
    rng = np.random.default_rng(2)
    weights, threshold, velocity, errors = rng.normal(0, 0.01, 3), 0.3, np.zeros(3), []
    times = 0.5 * np.arange(20)
    traces = [sum(np.outer(kernel(times - 0.5 * t), np.eye(3)[n]) for t, n in np.argwhere(each)) for each in TWO]
    model.fit(TWO, [0, 1])
    for _ in range(len(model.errors_)):
        errors.append(0)
        for k in rng.permutation(2):
            voltage = traces[k] @ weights
            error = float(k) - (voltage.max() > threshold)
            velocity = 0.5 * velocity + 0.1 * error * traces[k][voltage.argmax()]
            weights, threshold = weights + velocity, threshold - 0.05 * error
            errors[-1] += error != 0
    assert model.errors_ == errors
    np.testing.assert_allclose(model.coef_, weights, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(model.threshold_, threshold, rtol=1e-5)
    np.testing.assert_allclose(model.voltage(TWO), np.array(traces) @ weights, atol=1e-4)
    np.testing.assert_allclose(model.decision_function(TWO), (np.array(traces) @ weights).max(axis=1) - threshold, atol=1e-4)


def test_a_time_constant_moves_by_a_tenth_at_most_and_stays_above_the_short_one():
    once, often = (Tempotron(rate=0.0, rate_tau=1e6, epochs=n, random_state=4).fit(TWO, [0, 1]) for n in (1, 40))
    assert abs(np.log(once.tau_ / 15)) == pytest.approx(0.1, rel=1e-4)
    down = often if often.tau_ < 15 else Tempotron(rate=0.0, rate_tau=-1e6, epochs=40, random_state=4).fit(TWO, [0, 1])
    assert down.tau_ == pytest.approx(1.1 * 3.75, rel=1e-5)


def test_patterns_that_a_tempotron_cannot_take():
    model = Tempotron(epochs=1).fit(TWO, [0, 1])
    with pytest.raises(InputError, match="2 inputs; the tempotron learned 3"):
        model.voltage(TWO[:, :, :2])
    for X, y in ((TWO * np.nan, [0, 1]), (TWO, [0, 1, 1]), (TWO, [[0, 1]])):
        with pytest.raises(InputError):
            Tempotron().fit(X, y)
