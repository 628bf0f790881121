import jax
import jax.numpy as jnp
import numpy as np

from broadsheet.networks.prediction import Block, cue_trials, learn, serial_compound
from broadsheet.papers.what_when_reservoir import Fading, Learning, rules


def test_weights_without_an_error_fade_to_a_running_average():
    """One feature that is always 1 and an outcome that always comes: w = rate (1 - s) (1 - (1 - s)^n) / s after n trials, and
    (1 - s)^m of it is left after m trials without.
    """
    rule = Fading(jnp.zeros((1, 2)), rate=0.03, share=0.08)
    state = rule.init(jax.random.key(0))
    for n in range(1, 21):
        state = rule.trial(state, jnp.ones((1, 1)), jnp.asarray([[1.0, 0.0]]), jnp.ones(1))
        np.testing.assert_allclose(rule.learned(state)[0], [0.03 * 0.92 * (1 - 0.92**n) / 0.08, 0], rtol=1e-5, atol=1e-7)
    left = rule.learned(state)[0, 0] * 0.92**5
    for _ in range(5):
        state = rule.trial(state, jnp.ones((1, 1)), jnp.zeros((1, 2)), jnp.ones(1))
    np.testing.assert_allclose(rule.learned(state)[0, 0], left, rtol=1e-5)


def test_a_gate_that_is_shut_learns_in_each_place_alike_and_less():
    """With a delay line weights follow p (1 - (1 - a)^n) at the event, a the rate times the gate: 0.2, or 0.04 where shut."""
    config = Learning(neurons=4)
    given = serial_compound(jnp.arange(3.0, 601.0, 3.0))
    trials = cue_trials(jax.random.key(0), [Block(30, (1.0, 0.0), 300.0)])
    for name, a in (("serial-compound", 0.2), ("gate-shut", 0.04)):
        rule, features, options = rules(config, given)[name]
        if name == "gate-shut":
            rule, features = rule.on(jnp.zeros((given.features.shape[-1], 2))), given
        course = learn(rule, features, trials, jax.random.key(1), **options)
        at = int(np.flatnonzero(np.asarray(given.times) == 300.0)[0])
        np.testing.assert_allclose(course.z[:, at, 0], 1 - (1 - a) ** np.arange(30), atol=1e-5)
