"""What every learning rule keeps to, tried on all that the package has, and on wrong ones that must be found out."""

import importlib
import inspect
import pkgutil
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import broadsheet.plasticity
from broadsheet.dynamics import rollout
from broadsheet.errors import InputError
from broadsheet.networks import HippocampalCAM
from broadsheet.plasticity import STDP, LearningRule
from broadsheet.plasticity.rule import of_two_factors

PRE, POST, STEPS = 5, 4, 80


def found_rules():
    """Every concrete rule in the package, by its files."""
    modules = [
        importlib.import_module(f"broadsheet.plasticity.{part.name}")
        for part in pkgutil.iter_modules(broadsheet.plasticity.__path__)
    ]
    classes = {value for module in modules for value in vars(module).values() if inspect.isclass(value)}
    rules = [kind for kind in classes if issubclass(kind, LearningRule) and kind is not LearningRule]
    return sorted((kind for kind in rules if not inspect.isabstract(kind)), key=lambda kind: kind.__name__)


def on_random_weights(rule, rng):
    """The rule on weights within its limits."""
    low, high = (float(np.clip(limit, -1.0, 1.0)) for limit in rule.limits)
    return rule.on(rng.uniform(low + 0.2 * (high - low), high - 0.2 * (high - low), (PRE, POST)))


def drawn(rule, rng, rate=0.2):
    """Spikes of both sides, and a random number for each modulator: (pre, post, *modulators), time first."""
    spikes = [(rng.random((STEPS, size)) < rate).astype(np.float32) for size in (PRE, POST)]
    shapes = [(STEPS, POST) if kind == "post" else (STEPS,) for kind in rule.modulators.values()]
    return [*spikes, *(rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes)]


def course(rule, inputs):
    """Weights after each step (time, pre, post)."""
    return np.asarray(rollout(rule, tuple(map(jnp.asarray, inputs)), record=lambda state, _: rule.learned(state))[1])


def assert_causal(rule_for, rng):
    """Other spikes from a step on change no weight before it."""
    inputs = drawn(rule_for([]), rng)
    rule = on_random_weights(rule_for(inputs), rng)
    changed = [array.copy() for array in inputs]
    for array, other in zip(changed, drawn(rule, rng), strict=True):
        array[STEPS // 2 :] = other[STEPS // 2 :]
    other = on_random_weights(rule_for(changed), rng).on(rule.weights)
    first, second = course(rule, inputs), course(other, changed)
    np.testing.assert_array_equal(first[: STEPS // 2], second[: STEPS // 2])
    assert not np.array_equal(first, second), "the rule never learned"


def assert_local(rule, rng):
    """Synapse (0, 0) learns the same whatever the other neurons and their modulators do."""
    rule = on_random_weights(rule, rng)
    inputs = drawn(rule, rng)
    changed = drawn(rule, rng)
    for array, original in zip(changed, inputs, strict=True):
        if array.ndim == 1:
            array[:] = original
        else:
            array[:, 0] = original[:, 0]
    if not rule.sees_output:
        first, second = course(rule, inputs), course(rule, changed)
        np.testing.assert_allclose(first[:, 0, 0], second[:, 0, 0], rtol=1e-5, atol=1e-6)
        return
    state, _ = rollout(rule, tuple(map(jnp.asarray, inputs)))  # one more step, with other inputs that send as much to neuron 0
    onto = np.asarray(rule.learned(state))[1:, 0]
    other = rng.standard_normal(PRE - 1)
    for array, original in zip(changed, inputs, strict=True):
        array[-1] = original[-1] = 1.0
    changed[0][-1, 1:] = inputs[0][-1, 1:] + other - onto * (onto @ other) / (onto @ onto)
    after = [rule.learned(rule.step(state, tuple(jnp.asarray(array[-1]) for array in some))[0]) for some in (inputs, changed)]
    np.testing.assert_allclose(after[0][0, 0], after[1][0, 0], rtol=1e-4, atol=1e-5)


def assert_bounded(rule, rng):
    """Under many spikes weights stay within the limits."""
    rule = on_random_weights(rule, rng)
    weights = course(rule, drawn(rule, rng, rate=0.8))
    low, high = rule.limits
    assert rule.unbounded or np.isfinite([low, high]).all(), "give it limits, or say unbounded = True"
    assert np.isfinite(weights).all()
    assert weights.min() >= low
    assert weights.max() <= high


def assert_silent(rule, rng):
    """Without spikes no weight changes, but for a decay that the rule declares, whatever the modulators say."""
    rule = on_random_weights(rule, rng)
    inputs = drawn(rule, rng)
    inputs[0][:] = inputs[1][:] = 0
    weights = np.concatenate([np.asarray(rule.weights)[None], course(rule, inputs)])
    if rule.decays:
        assert (np.abs(np.diff(np.abs(weights), axis=0)) > 0).any()
        assert (np.diff(np.abs(weights), axis=0) <= 0).all()
    else:
        np.testing.assert_array_equal(weights, np.broadcast_to(weights[0], weights.shape))


def assert_consolidated(rule, rng):
    """What was learned is written back, and is where the rule goes on from; the rule itself keeps its own."""
    rule = on_random_weights(rule, rng)
    before = np.asarray(rule.weights)
    state, _ = rollout(rule, tuple(map(jnp.asarray, drawn(rule, rng))))
    after = rule.consolidate(state)
    np.testing.assert_array_equal(after.weights, rule.learned(state))
    np.testing.assert_array_equal(after.learned(after.init(jax.random.key(0))), rule.learned(state))
    assert not np.array_equal(after.weights, before)
    np.testing.assert_array_equal(rule.weights, before)


CHECKS = {check.__name__: check for check in (assert_local, assert_bounded, assert_silent, assert_consolidated)}


def test_the_rules_are_found():
    assert {"STDP", "Triplet", "ThreeFactor"} <= {kind.__name__ for kind in found_rules()}


@pytest.mark.parametrize("kind", found_rules(), ids=lambda kind: kind.__name__)
def test_rule_is_causal(kind):
    assert_causal(lambda _: kind(), np.random.default_rng(0))


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("kind", found_rules(), ids=lambda kind: kind.__name__)
def test_rule_keeps_what_it_declares(kind, check):
    if check is assert_local and not kind.local:
        with pytest.raises(AssertionError):  # a rule that calls itself not local for nothing is found out too
            assert_local(kind(), np.random.default_rng(0))
    else:
        check(kind(), np.random.default_rng(0))


@pytest.mark.parametrize("kind", found_rules(), ids=lambda kind: kind.__name__)
def test_a_rule_learns_from_what_its_synapses_send_where_it_says_so(kind):
    """Where the neuron's activity includes what it is sent, its other synapses' weights are part of what one synapse learns."""
    rule, rng = kind(), np.random.default_rng(0)
    low, high = (float(np.clip(limit, -1.0, 1.0)) for limit in rule.limits)
    weights = np.full((PRE, POST), (low + high) / 2)
    others = weights + np.outer(np.arange(PRE) > 0, np.full(POST, (high - low) / 4))
    spikes = [np.ones((3, size), np.float32) for size in (PRE, POST)]
    given = [*spikes, *(each[:3] for each in drawn(rule, rng)[2:])]
    first, second = (course(rule.on(start), given)[:, 0] for start in (weights, others))
    assert np.allclose(first, second, rtol=0, atol=1e-7) is not rule.sees_output


@pytest.mark.parametrize("kind", found_rules(), ids=lambda kind: kind.__name__)
def test_modulators_have_the_names_that_the_docstring_gives(kind):
    assert all(re.search(rf"\b{name}\b", kind.__doc__) for name in kind.modulators)


@pytest.mark.parametrize("kind", found_rules(), ids=lambda kind: kind.__name__)
def test_a_trial_is_its_steps(kind):
    rule = on_random_weights(kind(), np.random.default_rng(0))
    inputs = tuple(map(jnp.asarray, drawn(rule, np.random.default_rng(1), rate=0.05)))
    state = rule.init(jax.random.key(0))
    stepped = rollout(rule, inputs, state=state)[0]
    np.testing.assert_allclose(rule.learned(rule.trial(state, *inputs)), rule.learned(stepped), rtol=1e-3, atol=1e-3)


class Wrong(STDP):
    """A rule with one thing wrong."""

    future: jax.Array | None = None
    fault: str = eqx.field(static=True, default="")

    def __init__(self, fault, future=None):
        super().__init__(bounds=(0.0, 1.0), a_plus=0.05, a_minus=0.05)
        self.fault, self.future = fault, future

    def init(self, key):
        return super().init(key), jnp.zeros((), jnp.int32)

    def learned(self, state):
        return state[0].weights

    def step(self, state, inputs, key=None):
        inner, t = state
        inner, sent = super().step(inner, inputs, key)
        weights = inner.weights
        if self.fault == "looks ahead" and self.future is not None:
            weights = weights + 0.01 * self.future[jnp.minimum(t + 1, STEPS - 1)][:, None]
        if self.fault == "normalises":
            weights = weights / weights.sum(axis=0)
        if self.fault == "overshoots":
            weights = weights + 0.1 * inputs[1]
        if self.fault == "drifts":
            weights = weights - 1e-3
        return (inner._replace(weights=weights), t + 1), sent

    def consolidate(self, state):
        return self if self.fault == "forgets" else super().consolidate(state)


@pytest.mark.parametrize(
    ("fault", "check"),
    [("normalises", assert_local), ("overshoots", assert_bounded), ("drifts", assert_silent), ("forgets", assert_consolidated)],
)  # fmt: skip
def test_a_wrong_rule_is_found_out(fault, check):
    check(Wrong("nothing"), np.random.default_rng(0))
    with pytest.raises(AssertionError):
        check(Wrong(fault), np.random.default_rng(0))


def test_a_rule_that_looks_ahead_is_found_out():
    def rule_for(inputs):
        return Wrong("looks ahead", jnp.asarray(inputs[0]) if inputs else None)

    assert_causal(lambda _: Wrong("nothing"), np.random.default_rng(0))
    with pytest.raises(AssertionError):
        assert_causal(rule_for, np.random.default_rng(0))


def test_mistakes_are_named():
    with pytest.raises(InputError, match=r"rule.on\(weights\)"):
        STDP().init(jax.random.key(0))
    with pytest.raises(InputError, match="weights have the shape"):
        STDP().on([1.0])
    with pytest.raises(InputError, match="a learning rule of"):
        of_two_factors("hebb", "the memory")
    with pytest.raises(InputError, match=r"STDP\(…\)"):
        of_two_factors(STDP, "the memory")
    with pytest.raises(InputError, match=r"define learned\(state\)"):
        STDP().learned((jnp.ones((2, 2)),))
    with pytest.raises(InputError, match=r"STDP keeps weights within \(0, 1\)"):
        HippocampalCAM(rule=STDP(dendritic=1))
    with pytest.raises(InputError, match="ThreeFactor also wants modulator"):
        of_two_factors(broadsheet.plasticity.ThreeFactor(), "the memory")
